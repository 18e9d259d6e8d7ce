// QR code encoder (ISO/IEC 18004): byte mode, error correction level M, versions 1 to 20 (up to 666 bytes).
// Part of blynk-pi, MIT licence.

// Level M: error correction bytes per block, and number of blocks, by version.
const CORRECTION = [0, 10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26];
const BLOCKS = [0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16];

const EXP = new Uint8Array(512);
const LOG = new Uint8Array(256);
for (let i = 0, x = 1; i < 255; i++) {
	EXP[i] = EXP[i + 255] = x;
	LOG[x] = i;
	x = (x << 1) ^ (x & 0x80 ? 0x11d : 0);
}
const times = (a, b) => (a && b ? EXP[LOG[a] + LOG[b]] : 0);

function correction(data, length) {
	const divisor = new Uint8Array(length);
	divisor[length - 1] = 1;
	for (let i = 0, root = 1; i < length; i++, root = times(root, 2)) {
		for (let j = 0; j < length; j++) divisor[j] = times(divisor[j], root) ^ (j + 1 < length ? divisor[j + 1] : 0);
	}
	const rest = new Uint8Array(length);
	for (const byte of data) {
		const factor = byte ^ rest[0];
		rest.copyWithin(0, 1);
		rest[length - 1] = 0;
		for (let i = 0; i < length; i++) rest[i] ^= times(divisor[i], factor);
	}
	return rest;
}

function alignments(version) {
	if (version === 1) return [];
	const count = Math.floor(version / 7) + 2;
	const step = Math.ceil((version * 4 + 4) / (count * 2 - 2)) * 2;
	const out = [6];
	for (let at = version * 4 + 10; out.length < count; at -= step) out.splice(1, 0, at);
	return out;
}

// Modules that carry data and correction: all of them less the function patterns.
function capacity(version) {
	let bits = (16 * version + 128) * version + 64;
	if (version >= 2) {
		const n = Math.floor(version / 7) + 2;
		bits -= (25 * n - 10) * n - 55;
		if (version >= 7) bits -= 36;
	}
	return bits >> 3;
}

function codewords(bytes, version) {
	const total = capacity(version);
	const blocks = BLOCKS[version];
	const ecc = CORRECTION[version];
	const room = total - blocks * ecc;
	const bits = [];
	const put = (value, length) => {
		for (let i = length - 1; i >= 0; i--) bits.push((value >>> i) & 1);
	};
	put(4, 4);
	put(bytes.length, version < 10 ? 8 : 16);
	for (const byte of bytes) put(byte, 8);
	put(0, Math.min(4, room * 8 - bits.length));
	put(0, (8 - (bits.length % 8)) % 8);
	for (let pad = 0xec; bits.length < room * 8; pad ^= 0xec ^ 0x11) put(pad, 8);
	const data = new Uint8Array(room);
	bits.forEach((bit, i) => {
		data[i >> 3] |= bit << (7 - (i & 7));
	});
	const short = blocks - (total % blocks);
	const size = Math.floor(total / blocks) - ecc;
	const parts = [];
	for (let i = 0, at = 0; i < blocks; i++) {
		const part = data.subarray(at, at + size + (i < short ? 0 : 1));
		at += part.length;
		parts.push([part, correction(part, ecc)]);
	}
	const out = [];
	for (let i = 0; i <= size; i++) for (const [part] of parts) if (i < part.length) out.push(part[i]);
	for (let i = 0; i < ecc; i++) for (const [, rest] of parts) out.push(rest[i]);
	return out;
}

const MASKS = [
	(x, y) => (x + y) % 2 === 0,
	(x, y) => y % 2 === 0,
	(x) => x % 3 === 0,
	(x, y) => (x + y) % 3 === 0,
	(x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
	(x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
	(x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
	(x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

function penalty(grid) {
	const size = grid.length;
	let sum = 0,
		dark = 0;
	const lines = [...grid, ...grid.map((_, x) => grid.map((row) => row[x]))];
	for (const line of lines) {
		const text = line.map((c) => (c ? "1" : "0")).join("");
		for (const run of text.match(/0{5,}|1{5,}/g) || []) sum += run.length - 2;
		for (let i = 0; i + 11 <= size; i++) {
			const part = text.substr(i, 11);
			if (part === "10111010000" || part === "00001011101") sum += 40;
		}
	}
	for (let y = 0; y < size; y++) {
		for (let x = 0; x < size; x++) {
			dark += grid[y][x] ? 1 : 0;
			if (x && y && grid[y][x] === grid[y - 1][x] && grid[y][x] === grid[y][x - 1] && grid[y][x] === grid[y - 1][x - 1])
				sum += 3;
		}
	}
	return sum + Math.floor(Math.abs((dark * 20) / (size * size) - 10)) * 10;
}

/** qr(text) -> rows of booleans (true = dark), without the quiet zone of four modules; null when the text is too long. */
export function qr(text) {
	const bytes = new TextEncoder().encode(text);
	let version = 1;
	while (
		version < 21 &&
		capacity(version) - BLOCKS[version] * CORRECTION[version] < bytes.length + (version < 10 ? 2 : 3)
	)
		version++;
	if (version > 20) return null;
	const size = version * 4 + 17;
	const grid = Array.from({ length: size }, () => new Array(size).fill(false));
	const fixed = Array.from({ length: size }, () => new Array(size).fill(false));
	const set = (x, y, dark) => {
		if (x < 0 || y < 0 || x >= size || y >= size) return;
		grid[y][x] = Boolean(dark);
		fixed[y][x] = true;
	};
	for (let i = 0; i < size; i++) {
		set(6, i, i % 2 === 0);
		set(i, 6, i % 2 === 0);
	}
	for (const [cx, cy] of [
		[3, 3],
		[size - 4, 3],
		[3, size - 4],
	]) {
		for (let dy = -4; dy <= 4; dy++) {
			for (let dx = -4; dx <= 4; dx++) {
				const far = Math.max(Math.abs(dx), Math.abs(dy));
				set(cx + dx, cy + dy, far !== 2 && far !== 4);
			}
		}
	}
	const spots = alignments(version);
	for (const cy of spots) {
		for (const cx of spots) {
			if ((cx === 6 && cy === 6) || (cx === 6 && cy === size - 7) || (cx === size - 7 && cy === 6)) continue;
			for (let dy = -2; dy <= 2; dy++) {
				for (let dx = -2; dx <= 2; dx++) set(cx + dx, cy + dy, Math.max(Math.abs(dx), Math.abs(dy)) !== 1);
			}
		}
	}
	const format = (mask) => {
		let rest = mask; // level M is 00, so the five bits are the mask alone
		for (let i = 0; i < 10; i++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
		const bits = ((mask << 10) | rest) ^ 0x5412;
		const bit = (i) => (bits >>> i) & 1;
		for (let i = 0; i <= 5; i++) set(8, i, bit(i));
		set(8, 7, bit(6));
		set(8, 8, bit(7));
		set(7, 8, bit(8));
		for (let i = 9; i < 15; i++) set(14 - i, 8, bit(i));
		for (let i = 0; i < 8; i++) set(size - 1 - i, 8, bit(i));
		for (let i = 8; i < 15; i++) set(8, size - 15 + i, bit(i));
		set(8, size - 8, 1);
	};
	format(0);
	if (version >= 7) {
		let rest = version;
		for (let i = 0; i < 12; i++) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
		const bits = (version << 12) | rest;
		for (let i = 0; i < 18; i++) {
			const a = size - 11 + (i % 3),
				b = Math.floor(i / 3);
			set(a, b, (bits >>> i) & 1);
			set(b, a, (bits >>> i) & 1);
		}
	}
	const words = codewords(bytes, version);
	let at = 0;
	for (let right = size - 1; right >= 1; right -= 2) {
		if (right === 6) right = 5;
		for (let step = 0; step < size; step++) {
			for (let j = 0; j < 2; j++) {
				const x = right - j;
				const y = ((right + 1) & 2) === 0 ? size - 1 - step : step;
				if (!fixed[y][x] && at < words.length * 8) {
					grid[y][x] = Boolean((words[at >> 3] >>> (7 - (at & 7))) & 1);
					at++;
				}
			}
		}
	}
	const flip = (mask) => {
		for (let y = 0; y < size; y++) {
			for (let x = 0; x < size; x++) if (!fixed[y][x] && MASKS[mask](x, y)) grid[y][x] = !grid[y][x];
		}
	};
	let best = 0,
		least = Infinity;
	for (let mask = 0; mask < 8; mask++) {
		flip(mask);
		format(mask);
		const score = penalty(grid);
		if (score < least) {
			least = score;
			best = mask;
		}
		flip(mask);
	}
	flip(best);
	format(best);
	return grid;
}
