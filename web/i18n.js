// Language. t() gives an English text in the language of the user; the table is texts.js, with the English text as the key. A text that is missing there is shown in English.

export const LANGUAGES = { en: "English", de: "Deutsch", es: "Español" };
const STORE = "blynk-pi-language";

let now = "en";
let texts = null;

export const language = () => now;

/** Choose a language (default: the stored one, else the browser's) and fetch its texts. */
export async function setLanguage(code) {
	if (code) localStorage.setItem(STORE, code);
	const wanted = [localStorage.getItem(STORE), ...(navigator.languages || [navigator.language])].map((x) =>
		String(x || "").slice(0, 2),
	);
	now = wanted.find((x) => x in LANGUAGES) || "en";
	document.documentElement.lang = now;
	if (now !== "en" && !texts) texts = (await import("./texts.js")).TEXTS;
}

/** The text in the user's language, {0} and {1} replaced by the values. */
export function t(text, ...values) {
	const found = now === "en" ? text : texts?.[text]?.[now === "de" ? 0 : 1] || text;
	return values.length ? found.replace(/\{(\d)\}/g, (_, i) => String(values[i] ?? "")) : found;
}

const weekday = (style) => () =>
	Array.from({ length: 7 }, (_, i) =>
		new Intl.DateTimeFormat(now, { weekday: style, timeZone: "UTC" }).format(Date.UTC(2024, 0, 1 + i)),
	);

/** Names of the days, Monday first. */
export const DAYS = weekday("short");
export const LONG_DAYS = weekday("long");

const STEPS = [
	[60, 1, "second"],
	[3600, 60, "minute"],
	[86400, 3600, "hour"],
	[86400 * 30, 86400, "day"],
	[Infinity, 86400 * 30, "month"],
];

/** "3 minutes ago" */
export function ago(ts, at = Date.now()) {
	if (!ts) return "";
	const seconds = Math.max(0, Math.round((at - ts) / 1000));
	const [, size, unit] = STEPS.find(([limit]) => seconds < limit);
	return new Intl.RelativeTimeFormat(now, { numeric: "auto" }).format(-Math.floor(seconds / size), unit);
}
