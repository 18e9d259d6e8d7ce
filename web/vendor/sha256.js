// SHA-256 (FIPS 180-4) over a Uint8Array. The page also works on plain http, where browsers keep crypto.subtle away.
// Part of blynk-pi, MIT licence.

const K = new Uint32Array(64);
const START = new Uint32Array(8);

// The constants are the first 32 bits of the fractional parts of the cube (K) and square (START) roots of the primes.
(function constants() {
	const fraction = (x) => (x - Math.floor(x)) * 4294967296;
	for (let n = 2, count = 0; count < 64; n++) {
		let prime = true;
		for (let d = 2; d * d <= n; d++) if (n % d === 0) prime = false;
		if (!prime) continue;
		if (count < 8) START[count] = fraction(Math.sqrt(n));
		K[count++] = fraction(Math.cbrt(n));
	}
})();

const rotate = (x, n) => (x >>> n) | (x << (32 - n));

/** sha256(Uint8Array) -> Uint8Array(32) */
export function sha256(bytes) {
	const blocks = ((bytes.length + 8) >> 6) + 1;
	const padded = new Uint8Array(blocks * 64);
	padded.set(bytes);
	padded[bytes.length] = 0x80;
	const view = new DataView(padded.buffer);
	view.setUint32(padded.length - 8, Math.floor(bytes.length / 0x20000000));
	view.setUint32(padded.length - 4, (bytes.length << 3) >>> 0);
	const hash = START.slice();
	const w = new Uint32Array(64);
	for (let block = 0; block < padded.length; block += 64) {
		for (let i = 0; i < 16; i++) w[i] = view.getUint32(block + i * 4);
		for (let i = 16; i < 64; i++) {
			const s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >>> 3);
			const s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >>> 10);
			w[i] = w[i - 16] + s0 + w[i - 7] + s1;
		}
		let [a, b, c, d, e, f, g, h] = hash;
		for (let i = 0; i < 64; i++) {
			const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
			const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
			const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
			const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
			h = g;
			g = f;
			f = e;
			e = (d + t1) | 0;
			d = c;
			c = b;
			b = a;
			a = (t1 + t2) | 0;
		}
		const add = [a, b, c, d, e, f, g, h];
		for (let i = 0; i < 8; i++) hash[i] += add[i];
	}
	const out = new Uint8Array(32);
	const outView = new DataView(out.buffer);
	hash.forEach((word, i) => outView.setUint32(i * 4, word));
	return out;
}
