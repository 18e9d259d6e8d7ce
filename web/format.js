// Numbers, colours, times and text formats of widgets. No DOM.

/** parseNumber("21.5") -> 21.5; anything that is not one plain number -> null. */
export function parseNumber(text) {
	const clean = String(text ?? "").trim();
	return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(clean) ? Number(clean) : null;
}

/** A number as the phone app sends it: 5, not 5.0; at most `digits` after the point. */
export function numberText(value, digits = 7) {
	if (!Number.isFinite(value)) return "0";
	const text = Number(value.toFixed(digits)).toString();
	return /e/.test(text) ? value.toFixed(digits).replace(/\.?0+$/, "") : text;
}

const clamp = (x, low, high) => Math.min(Math.max(x, Math.min(low, high)), Math.max(low, high));
export { clamp };

/** Range of a widget or stream; documents may say 0 to 0, then it is the pin's natural one. */
export function range(w, low = 0, high = 100) {
	const min = Number(w.min) || 0,
		max = Number(w.max) || 0;
	return min === max ? [low, high] : [min, max];
}

/** A raw reading in the widget's range, when "map to range" is on (analog readings are 0 to 1023). */
export function mapped(w, value) {
	if (!w.rangeMappingOn || value === null || w.min === w.max) return value;
	return w.min + ((w.max - w.min) * value) / 1023;
}

/** What a controller on 0…`top` sends when "map to range" is on. */
export function mapOut(stream, value, top = 255) {
	if (!stream.rangeMappingOn || stream.min === stream.max) return value;
	return stream.min + ((stream.max - stream.min) * value) / top;
}

/**
 * The text of a value: "/pin/ °C" as it is, "/pin.#/" with one digit after the point, "/pin./" rounded, "/pin1/" and
 * "/pin[1]/" one of several values. Without any such mark the format is put around nothing: the value alone is shown.
 */
export function formatValue(format, values) {
	const all = Array.isArray(values) ? values : [values];
	if (!format || !/\/pin/.test(format)) return all[0] ?? "";
	return format.replace(/\/pin(\[?(\d+)\]?)?(\.(#*))?\//g, (_, __, index, point, digits) => {
		const text = all[index ? Number(index) : 0];
		if (text === undefined || text === null) return "";
		if (point === undefined) return text;
		const number = parseNumber(text);
		return number === null ? text : number.toFixed(digits.length);
	});
}

// Colours: the protocol's signed 32-bit 0xRRGGBBAA.

/** cssColor(600084223) -> "#23c48e"; 0 (not set) -> "" */
export function cssColor(value) {
	const bits = (Number(value) || 0) >>> 0;
	return bits === 0 ? "" : `#${(bits >>> 8).toString(16).padStart(6, "0")}`;
}

/** colorInt("#23C48E") -> 600084223 */
export function colorInt(css) {
	const match = /^#([0-9a-f]{6})/i.exec(css);
	return match ? (parseInt(match[1], 16) << 8) | 0xff : 0;
}

/** The colour property as a board sends it: "#23C48E", "0x23C48E" or a decimal RGB -> protocol colour, null if it is none. */
export function propertyColor(text) {
	const clean = String(text).trim();
	const hex = /^(?:#|0x)([0-9a-f]{1,8})$/i.exec(clean);
	if (!hex && !/^-?\d+$/.test(clean)) return null;
	return ((hex ? parseInt(hex[1], 16) : Number(clean)) << 8) | 0xff;
}

/** Black or white, whichever reads better on the colour. */
export function readable(css) {
	const n = parseInt(css.slice(1, 7), 16);
	const channel = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
	const light = 0.2126 * channel(n >> 16) + 0.7152 * channel((n >> 8) & 255) + 0.0722 * channel(n & 255);
	return light > 0.33 ? "#10181c" : "#ffffff";
}

export function hsvToRgb(hue, saturation, value) {
	const f = (n) => {
		const k = (n + hue / 60) % 6;
		return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
	};
	return [f(5), f(3), f(1)];
}

export function rgbToHsv(r, g, b) {
	const max = Math.max(r, g, b),
		delta = max - Math.min(r, g, b);
	let hue = 0;
	if (delta) hue = max === r ? ((g - b) / delta) % 6 : max === g ? (b - r) / delta + 2 : (r - g) / delta + 4;
	return [(hue * 60 + 360) % 360, max ? delta / max : 0, max / 255];
}

// Times.

export const userZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** Seconds east of UTC in a zone at an instant; an unknown zone counts as UTC. */
export function zoneOffset(zone, at = Date.now()) {
	try {
		const parts = new Intl.DateTimeFormat("en-US", {
			timeZone: zone,
			hourCycle: "h23",
			year: "numeric",
			month: "numeric",
			day: "numeric",
			hour: "numeric",
			minute: "numeric",
			second: "numeric",
		}).formatToParts(at);
		const n = Object.fromEntries(parts.map((p) => [p.type, Number(p.value)]));
		return Math.round(
			(Date.UTC(n.year, n.month - 1, n.day, n.hour, n.minute, n.second) - Math.floor(at / 1000) * 1000) / 1000,
		);
	} catch {
		return 0;
	}
}

const DAY = 86400;
const turn = (seconds) => ((seconds % DAY) + DAY) % DAY;

/** Second of the UTC day <-> "HH:MM" (or "HH:MM:SS") of the zone's clock. -1 is no time: "". */
export function utcToClock(second, zone = userZone()) {
	return second >= 0 && second < DAY ? clock(turn(second + zoneOffset(zone))) : "";
}

export function clockToUtc(text, zone = userZone()) {
	const second = clockSeconds(text);
	return second < 0 ? -1 : turn(second - zoneOffset(zone));
}

export function clock(second) {
	if (!(second >= 0 && second < DAY)) return "";
	const two = (n) => String(Math.floor(n)).padStart(2, "0");
	const text = `${two(second / 3600)}:${two((second / 60) % 60)}`;
	return second % 60 ? `${text}:${two(second % 60)}` : text;
}

export function clockSeconds(text) {
	const match = /^(\d\d?):(\d\d)(?::(\d\d))?$/.exec(text || "");
	return match ? Number(match[1]) * 3600 + Number(match[2]) * 60 + Number(match[3] || 0) : -1;
}

/** CSV of several streams: one line per time, one column per stream. */
export function csv(titles, streams) {
	const rows = new Map();
	streams.forEach((points, column) => {
		for (const { ts, value } of points) {
			if (!rows.has(ts)) rows.set(ts, new Array(streams.length).fill(""));
			rows.get(ts)[column] = value;
		}
	});
	// A cell that starts like a formula gets an apostrophe, so that no spreadsheet runs it.
	const quote = (text) => {
		const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : String(text);
		return /[",\n;]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
	};
	const lines = [["time", ...titles].map(quote).join(",")];
	for (const [ts, values] of [...rows].sort((a, b) => a[0] - b[0]))
		lines.push([new Date(ts).toISOString(), ...values].join(","));
	return lines.join("\r\n") + "\r\n";
}
