// Making elements. Whatever a user typed or a board sent becomes a text node or an attribute, never markup.

import { t } from "./i18n.js";

const SVG = "http://www.w3.org/2000/svg";

/** h("button.primary", { onclick, disabled, "aria-label": "…" }, child, …): an element. A child is a node, text, or false. */
export function h(tag, props, ...children) {
	const [name, ...classes] = tag.split(".");
	const el = document.createElement(name || "div");
	if (classes.length) el.className = classes.join(" ");
	assign(el, props);
	el.append(...flat(children));
	return el;
}

/** The same for SVG. */
export function svg(name, attributes, ...children) {
	const el = document.createElementNS(SVG, name);
	for (const [key, value] of Object.entries(attributes || {})) el.setAttribute(key, value);
	el.append(...flat(children));
	return el;
}

function flat(children) {
	return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

function assign(el, props) {
	for (const [key, value] of Object.entries(props || {})) {
		if (value === undefined || value === null) continue;
		if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
		else if (key === "style") for (const [name, text] of Object.entries(value)) el.style.setProperty(name, text);
		else if (key === "class") el.className += ` ${value}`;
		else if (key in el && key !== "list" && key !== "form") el[key] = value;
		else if (value !== false) el.setAttribute(key, value === true ? "" : value);
	}
}

export function replace(el, ...children) {
	el.replaceChildren(...flat(children));
	return el;
}

/** A line icon, 24 by 24, in the colour of the text. */
export function icon(name, label) {
	const attributes = {
		viewBox: "0 0 24 24",
		class: "icon",
		fill: "none",
		stroke: "currentColor",
		"stroke-width": 1.8,
		"stroke-linecap": "round",
		"stroke-linejoin": "round",
	};
	if (label) Object.assign(attributes, { role: "img", "aria-label": label });
	else attributes["aria-hidden"] = "true";
	return svg("svg", attributes, svg("path", { d: ICONS[name] || ICONS.widget }));
}

export const button = (label, onclick, props) => h("button", { type: "button", onclick, ...props }, label);

export const iconButton = (name, label, onclick, props) =>
	h("button.icon-button", { type: "button", "aria-label": label, title: label, onclick, ...props }, icon(name));

let serial = 0;

/** A labelled form field: label text, the input, and an optional line of help. */
export function field(label, input, help) {
	const id = input.id || (input.id = `f${++serial}`);
	const note = help ? h("small", { id: `${id}-help` }, help) : null;
	if (note) input.setAttribute("aria-describedby", note.id);
	return input.type === "checkbox"
		? h(".field.check", null, h("label", null, input, h("span", null, label)), note)
		: h(".field", null, h("label", { for: id }, label), input, note);
}

export function select(options, value, props) {
	const el = h(
		"select",
		props,
		options.map(([key, text]) => h("option", { value: String(key) }, text)),
	);
	el.value = String(value);
	return el;
}

/** A dialog over the page. build(close) gives its content; resolves with what close() was given, undefined when dismissed. */
export function dialog(title, build, className = "") {
	return new Promise((resolve) => {
		const box = h("dialog", { class: className, "aria-label": title });
		let result;
		const close = (value) => {
			result = value;
			box.close();
		};
		box.addEventListener("close", () => {
			box.remove();
			resolve(result);
		});
		box.addEventListener("click", (event) => {
			if (event.target === box) close();
		});
		box.append(
			h(
				".dialog-body",
				null,
				h(
					"header",
					null,
					h("h2", null, title),
					iconButton("close", t("Close"), () => close()),
				),
				build(close),
			),
		);
		document.body.append(box);
		box.showModal();
		box.querySelector("[autofocus], form input, form select, form textarea, .primary")?.focus();
	});
}

export const confirm = (title, text, yes, danger = true) =>
	dialog(title, (close) =>
		h(
			"form",
			{
				onsubmit: (event) => {
					event.preventDefault();
					close(true);
				},
			},
			h("p", null, text),
			h(
				".row.end",
				null,
				button(t("Cancel"), () => close()),
				h("button", { type: "submit", class: danger ? "danger" : "primary" }, yes),
			),
		),
	);

/** ask("New project", [{ name, label, value, type?, options?, required?, help? }], "Create") -> { name: value } or undefined */
export function ask(title, fields, yes) {
	return dialog(title, (close) => {
		const inputs = fields.map((f) => {
			const common = { name: f.name, required: f.required, maxLength: f.max || 255 };
			if (f.options) return select(f.options, f.value, { name: f.name });
			if (f.type === "checkbox") return h("input", { type: "checkbox", name: f.name, checked: Boolean(f.value) });
			if (f.type === "textarea") return h("textarea", { name: f.name, rows: 4 }, f.value ?? "");
			return h("input", { type: f.type || "text", value: f.value ?? "", autocomplete: "off", ...common });
		});
		return h(
			"form",
			{
				onsubmit: (event) => {
					event.preventDefault();
					close(Object.fromEntries(inputs.map((i) => [i.name, i.type === "checkbox" ? i.checked : i.value])));
				},
			},
			inputs.map((input, i) => field(fields[i].label, input, fields[i].help)),
			h(
				".row.end",
				null,
				button(t("Cancel"), () => close()),
				h("button.primary", { type: "submit" }, yes || t("Save")),
			),
		);
	});
}

/** A menu that drops down from a button: items are [icon, text, action, danger?]. */
export function menu(anchor, items) {
	const box = h(".menu", { role: "menu" });
	const shut = () => {
		box.remove();
		document.removeEventListener("pointerdown", outside, true);
		anchor.setAttribute("aria-expanded", "false");
	};
	const outside = (event) => {
		if (!box.contains(event.target)) shut();
	};
	box.append(
		...flat(
			items.filter(Boolean).map(([name, text, action, danger]) =>
				h(
					"button",
					{
						type: "button",
						role: "menuitem",
						class: danger ? "danger" : "",
						onclick: () => {
							shut();
							anchor.focus();
							action();
						},
					},
					icon(name),
					text,
				),
			),
		),
	);
	box.addEventListener("keydown", (event) => {
		const all = [...box.children];
		const at = all.indexOf(document.activeElement);
		if (event.key === "Escape") {
			shut();
			anchor.focus();
		} else if (event.key === "ArrowDown") all[(at + 1) % all.length].focus();
		else if (event.key === "ArrowUp") all[(at + all.length - 1) % all.length].focus();
		else return;
		event.preventDefault();
		event.stopPropagation();
	});
	(anchor.closest("dialog") || document.body).append(box);
	const place = anchor.getBoundingClientRect();
	box.style.top = `${Math.max(8, Math.min(place.bottom + 4, innerHeight - box.offsetHeight - 8))}px`;
	box.style.left = `${Math.max(8, Math.min(place.right - box.offsetWidth, innerWidth - box.offsetWidth - 8))}px`;
	anchor.setAttribute("aria-expanded", "true");
	document.addEventListener("pointerdown", outside, true);
	box.firstChild?.focus();
}

/** A short message at the bottom; with `undo` it has a button. Errors are announced at once, the rest politely. */
export function toast(text, { error = false, undo = null, ms = 5000 } = {}) {
	const tray = document.getElementById("toasts");
	const el = h(".toast", { class: error ? "error" : "", role: error ? "alert" : "status" }, h("span", null, text));
	if (undo)
		el.append(
			button(t("Undo"), () => {
				el.remove();
				undo();
			}),
		);
	tray.append(el);
	while (tray.children.length > 4) tray.firstChild.remove();
	setTimeout(() => el.remove(), ms);
}

/** Copies text; also on plain http, where there is no navigator.clipboard. */
export async function copy(text) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {
		const area = h("textarea", { value: text, class: "off-screen", "aria-hidden": "true" });
		(document.querySelector("dialog[open]") || document.body).append(area);
		area.select();
		document.execCommand("copy");
		area.remove();
	}
	toast(t("Copied"));
}

const SCHEMES = { link: ["http:", "https:"], media: ["http:", "https:", "rtsp:"], image: ["http:", "https:", "blob:"] };

/** A URL of a user's widget, checked: the text when its scheme is one of the kind's, else "". */
export function safeUrl(text, kind = "link") {
	const clean = String(text ?? "").trim();
	if (!clean) return "";
	try {
		const url = new URL(clean, location.href);
		if (SCHEMES[kind].includes(url.protocol)) return url.href;
		if (kind === "image" && /^data:image\/(png|jpeg|gif|webp|bmp)[;,]/i.test(clean)) return clean;
	} catch {
		/* no URL */
	}
	return "";
}

export function download(name, type, text) {
	const url = URL.createObjectURL(new Blob([text], { type }));
	const link = h("a", { href: url, download: name });
	document.body.append(link);
	link.click();
	link.remove();
	setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// Line icons, one path each on a grid of 24 by 24.
const ICONS = {
	logo: "M13 2 5 13.5h6L10 22l9-12.5h-6z",
	back: "M15 5l-7 7 7 7",
	next: "M9 5l7 7-7 7",
	close: "M6 6l12 12M18 6 6 18",
	plus: "M12 5v14M5 12h14",
	minus: "M5 12h14",
	check: "M5 12.5l4.5 4.5L19 7.5",
	more: "M12 5.5v.01M12 12v.01M12 18.5v.01",
	search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.5 4.5",
	edit: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
	play: "M7 4.5v15l12-7.5z",
	pause: "M8 5v14M16 5v14",
	undo: "M8 5 4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11H9",
	redo: "M16 5l4 4-4 4M20 9H10a5.5 5.5 0 0 0 0 11h5",
	trash: "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 13h9l1-13M10 11v5M14 11v5",
	copy: "M9 9h11v11H9zM15 9V4H4v11h5",
	gear: "M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM12 3v2.5M12 18.5V21M3 12h2.5M18.5 12H21M5.6 5.6l1.8 1.8M16.6 16.6l1.8 1.8M18.4 5.6l-1.8 1.8M7.4 16.6l-1.8 1.8",
	share:
		"M18 3.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM6 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM18 15.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM8.2 10.8l7.6-3.6M8.2 13.2l7.6 3.6",
	user: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4.5 20.5c.8-4 3.6-6 7.5-6s6.7 2 7.5 6",
	bell: "M6 17V11a6 6 0 0 1 12 0v6l1.5 1.500h-15zM10 21h4",
	download: "M12 4v11M7.5 10.5 12 15l4.5-4.500M4.5 20h15",
	expand: "M14 4h6v6M10 20H4v-6M20 4l-7 7M4 20l7-7",
	lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
	logout: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
	link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.7-5.700l-1.5 1.500M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.7 5.700l1.5-1.5",
	chip: "M7 7h10v10H7zM9.5 3.500V7M14.5 3.500V7M9.5 17v3.500M14.5 17v3.500M3.5 9.500H7M3.5 14.500H7M17 9.500h3.500M17 14.500h3.5",
	refresh: "M19.5 12a7.5 7.5 0 1 1-2.2-5.300L20 9M20 4v5h-5",
	info: "M12 3.500a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM12 11v5.500M12 7.500v.01",
	warning: "M12 4 2.5 20h19zM12 10v4.500M12 17.300v.01",
	up: "M12 19V6M6.5 11.5 12 6l5.5 5.5",
	down: "M12 5v13M6.5 12.5 12 18l5.5-5.5",
	pausebox: "M9 8v8M15 8v8M12 3.500a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17z",
	energy: "M13 3 6 13h5l-1 8 7-10h-5z",
	tag: "M3.5 12.500v-9h9l8 8-9 9zM8 8v.01",
	list: "M9 6h11M9 12h11M9 18h11M4.5 6v.01M4.5 12v.01M4.5 18v.01",
	file: "M6 3.500h8l4 4v13H6zM14 3.500v4h4",
	widget: "M4 4h16v16H4z",
	button: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 8v4",
	styledbutton: "M3.5 8h17v8h-17zM8 12h8",
	switch: "M8 7.500h8a4.5 4.5 0 0 1 0 9H8a4.5 4.5 0 0 1 0-9zM16 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
	slider: "M3.5 12h7M15.5 12h5M13 9.500a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
	vslider: "M12 3.500v7M12 15.500v5M12 10.500a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
	rgb: "M12 3.500a8.5 8.5 0 1 0 0 17c1.5 0 2-1 1.5-2.3-.6-1.5.3-3 2-3h2.200c2 0 2.8-1.2 2.8-3.2 0-5-4-8.5-8.5-8.500zM8 12v.01M10 7.800v.01M15 7.800v.01",
	joystick:
		"M12 3.500a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM12 5.500v.01M12 18.500v.01M5.5 12v.01M18.5 12v.01",
	step: "M3.5 8h17v8h-17zM6.5 12h3M15 12h3M16.5 10.500v3M12 8v8",
	text: "M5 6h14M12 6v13",
	input: "M3.5 7h17v10h-17zM7 10v4",
	number: "M9 4 7.5 20M16.5 4 15 20M4.5 9h16M3.5 15h16",
	timer: "M12 5.500a7.5 7.5 0 1 0 0 15 7.5 7.5 0 0 0 0-15zM12 9v4l2.5 1.500M9.5 2.500h5",
	clock: "M12 3.500a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM12 7v5l3.5 2",
	terminal: "M3.5 5h17v14h-17zM7 9.500l3 2.5-3 2.500M12.5 15h4",
	segments: "M3.5 8h17v8h-17zM9.2 8v8M14.8 8v8",
	menu: "M3.5 8h17v8h-17zM14 11l1.8 2 1.8-2",
	led: "M8 15V9a4 4 0 0 1 8 0v6zM6.5 15h11M10 15v5M14 15v5",
	value: "M3.5 6h17v12h-17zM7 10h3v4H7zM13 10l1.5-.8V15M17 10v.01M17 14v.01",
	gauge: "M4 17a8.5 8.5 0 1 1 16 0M12 15l4-5.5",
	level: "M3.5 9h17v6h-17zM3.5 9h10v6h-10z",
	vlevel: "M9 3.500h6v17H9zM9 11h6v9.500H9z",
	lcd: "M3.5 6h17v12h-17zM6.5 10h11M6.5 14h7",
	chart: "M4 4v16h16M7 15l4-5 3 2.5 5-6.5",
	map: "M12 21s-6.5-6-6.5-11a6.5 6.5 0 0 1 13 0c0 5-6.5 11-6.5 11zM12 7.500a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
	video: "M3.5 6.500h11v11h-11zM14.5 11l6-3.500v9l-6-3.500z",
	image: "M3.5 5h17v14h-17zM3.5 16l5-5 4 4 3-3 5 5M15 8.500v.01",
	table: "M3.5 5h17v14h-17zM3.5 10h17M3.5 14.500h17M11 5v14",
	player: "M5 5v14M19 5v14l-11-7z",
	tabs: "M3.5 9h17v11h-17zM3.5 9V5h6v4M9.5 6.500h5V9",
	tiles: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
	selector: "M4 5h11v8H4zM8 17h12M17.5 14.5 20 17l-2.5 2.5",
	mail: "M3.5 6h17v12h-17zM3.5 7l8.5 6 8.5-6",
	chat: "M4 5h16v11H10l-4 4v-4H4z",
	bridge: "M3.5 17V9M20.5 17V9M3.5 15c4-7 13-7 17 0M3.5 15h17",
	rule: "M5 4v6a4 4 0 0 0 4 4h10M15 10l4 4-4 4M5 20v.01",
	webhook: "M9 8a3.5 3.5 0 1 1 5 3.200l2.5 4.300M16.5 15.500a3 3 0 1 1-1 3.500H9M8.5 17A3.5 3.5 0 1 1 6 13.500l3-5",
	report: "M6 3.500h8l4 4v13H6zM9 16v-3M12 16v-6M15 16v-4.5",
	gps: "M12 6a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM12 2.500V6M12 18v3.500M2.5 12H6M18 12h3.5",
	sensor:
		"M7.5 16.500a6.4 6.4 0 0 1 0-9M16.5 7.500a6.4 6.4 0 0 1 0 9M4.8 19.200a10.2 10.2 0 0 1 0-14.400M19.2 4.800a10.2 10.2 0 0 1 0 14.400M12 12v.01",
	sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500V5M12 19v2.500M2.5 12H5M19 12h2.500M5.3 5.3 7 7M17 17l1.7 1.700M18.7 5.3 17 7M7 17l-1.7 1.7",
	thermometer: "M10 13.500V5a2 2 0 0 1 4 0v8.500a4 4 0 1 1-4 0z",
	qr: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h2v2h-2zM18 18h2v2h-2zM18 14h2M14 18v2",
	bluetooth: "M7 7.5 17 16l-5 4.500v-17L17 8 7 16.5",
};
