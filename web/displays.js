// Displays: what a board says; then device tiles, charts, sensors, and the tiles of what works in the background. Each draw
// function draws one widget type into a view; start, accept and list keep its state.

import { same } from "./controls.js";
import { button, h, icon, iconButton, replace, safeUrl, svg } from "./dom.js";
import { clamp, cssColor, formatValue, mapped, numberText, parseNumber, range, readable } from "./format.js";
import { t } from "./i18n.js";
import { pinName, streamsOf, validPin } from "./model.js";

const FONT = { SMALL: 0.7, MEDIUM: 1, LARGE: 1.4, AUTO: 1 };
const fontScale = (w) => String(FONT[w.fontSize] || 1);

/** The text of a widget's value: mapped to its range, then in its format. "–" when there is none yet. */
function valueText(w, raw) {
	if (raw === undefined || raw === null) return "–";
	const number = parseNumber(raw);
	const text =
		w.rangeMappingOn && number !== null ? numberText(mapped(w, number), 3) : String(raw).replaceAll("\0", " ");
	return w.valueFormatting ? formatValue(w.valueFormatting, [text]) || text : text;
}

export function drawLed(view) {
	const lamp = h("span.lamp", { role: "img" });
	view.onupdate = () => {
		const value = parseNumber(view.state.values[0]) ?? 0;
		const [low, high] = range(view.w, 0, 255);
		const share = clamp((value - low) / (high - low), 0, 1);
		lamp.style.setProperty("--share", share.toFixed(3));
		lamp.classList.toggle("lit", share > 0);
		lamp.setAttribute("aria-label", `${view.name}: ${Math.round(share * 100)} %`);
	};
	return h(".led", null, lamp);
}

export function drawValue(view) {
	const text = h("output.big-value");
	view.onupdate = () => {
		text.textContent = valueText(view.w, view.state.values[0]);
		text.style.setProperty("--font", fontScale(view.w));
		text.style.setProperty("--chars", String(Math.max(3, text.textContent.length)));
	};
	return text;
}

export function drawLabeledValue(view) {
	const text = h("output.big-value");
	const align = { LEFT: "left", RIGHT: "right", MIDDLE: "center" };
	view.onupdate = () => {
		text.textContent = valueText(view.w, view.state.values[0]);
		text.style.setProperty("--font", fontScale(view.w));
		text.style.setProperty("--chars", String(Math.max(3, text.textContent.length)));
		text.style.textAlign = align[view.w.textAlignment] || "left";
	};
	return text;
}

const ARC = 240,
	RADIUS = 42;

function arc(from, to) {
	const point = (share) => {
		const angle = ((share * ARC - ARC / 2 - 90) * Math.PI) / 180;
		return `${(50 + RADIUS * Math.cos(angle)).toFixed(2)} ${(50 + RADIUS * Math.sin(angle)).toFixed(2)}`;
	};
	return `M${point(from)}A${RADIUS} ${RADIUS} 0 ${(to - from) * ARC > 180 ? 1 : 0} 1 ${point(to)}`;
}

export function drawGauge(view) {
	const filled = svg("path", { class: "gauge-fill", d: "" });
	const low = svg("text", { x: 20, y: 86, class: "gauge-end" }),
		high = svg("text", { x: 80, y: 86, class: "gauge-end" });
	const picture = svg(
		"svg",
		{ viewBox: "4 4 92 86", "aria-hidden": "true", preserveAspectRatio: "xMidYMid meet" },
		svg("path", { class: "gauge-track", d: arc(0, 1) }),
		filled,
		low,
		high,
	);
	const text = h("output.gauge-value");
	view.onupdate = () => {
		const { w, state } = view;
		const [min, max] = range(w, 0, 100);
		const raw = parseNumber(state.values[0]);
		const value = raw === null ? null : mapped(w, raw);
		const share = value === null ? 0 : clamp((value - min) / (max - min), 0, 1);
		filled.setAttribute("d", share > 0.001 ? arc(0, share) : "");
		low.textContent = numberText(min, 1);
		high.textContent = numberText(max, 1);
		text.textContent = valueText(w, state.values[0]);
		text.style.setProperty("--font", fontScale(w));
		text.style.setProperty("--chars", String(Math.max(7, text.textContent.length)));
		text.setAttribute("aria-label", `${view.name}: ${text.textContent}`);
	};
	return h(".gauge", null, picture, text);
}

export const drawLevel = (vertical) =>
	function level(view) {
		const fill = h("span.level-fill");
		const bar = h("span.level-bar", { role: "meter" }, fill);
		const text = h("output.level-value");
		view.onupdate = () => {
			const { w, state } = view;
			const [min, max] = range(w, 0, 100);
			const raw = parseNumber(state.values[0]);
			const value = raw === null ? null : mapped(w, raw);
			const share = value === null ? 0 : clamp((value - min) / (max - min), 0, 1);
			fill.style.setProperty("--share", share.toFixed(4));
			bar.classList.toggle("flipped", Boolean(w.isAxisFlipOn));
			bar.setAttribute("aria-label", view.name);
			bar.setAttribute("aria-valuemin", String(min));
			bar.setAttribute("aria-valuemax", String(max));
			bar.setAttribute("aria-valuenow", String(value ?? min));
			text.textContent = valueText(w, state.values[0]);
			text.hidden = w.showValueOn === false;
		};
		return h(vertical ? ".level.upright" : ".level", null, bar, text);
	};

// LCD: two lines of 16 characters. Advanced mode: commands "clr" and "p\0x\0y\0text" on the first stream.

export function lcdStart(instance) {
	instance.state.text = ["", ""];
	instance.state.values.forEach((value, i) => {
		if (value !== undefined) lcdAccept(instance, value, i);
	});
}

export function lcdAccept(instance, value, index) {
	const { w, state } = instance;
	state.values[index] = value;
	const stream = streamsOf(w)[index];
	if (stream) stream.value = value;
	if (!w.advancedMode) return;
	const [command, x, y, ...text] = value.split("\0");
	if (command === "clr") state.text = ["", ""];
	else if (command === "p" && text.length) {
		const row = clamp(Number(y) | 0, 0, 1),
			column = clamp(Number(x) | 0, 0, 15);
		const line = (state.text[row] || "").padEnd(16);
		const words = text.join(" ");
		state.text[row] = (line.slice(0, column) + words + line.slice(column + words.length)).slice(0, 16);
	}
}

function lcdLines(w, state) {
	if (w.advancedMode) return [0, 1].map((i) => state.text[i] || "");
	return [w.textFormatLine1, w.textFormatLine2].map((format, i) => {
		if (!format) return String(state.values[i] ?? "").replaceAll("\0", " ");
		return formatValue(format, state.values).slice(0, 32);
	});
}

export function drawLcd(view) {
	const lines = [h("span"), h("span")];
	const glass = h("output.lcd-glass", null, lines);
	view.onupdate = () => {
		lcdLines(view.w, view.state).forEach((text, i) => {
			lines[i].textContent = text || "\u00a0";
		});
		glass.classList.toggle("light", Boolean(view.w.textLight));
		glass.setAttribute("aria-label", view.name);
	};
	return glass;
}

// TERMINAL: remembered lines; "clr" clears.

const TERMINAL_LINES = 200;

export function terminalStart(instance, kept) {
	instance.state.lines = kept ? [...kept] : [];
}

export function terminalAccept(instance, value) {
	const { lines } = instance.state;
	if (value === "clr") lines.length = 0;
	else lines.push(value);
	if (lines.length > TERMINAL_LINES) lines.splice(0, lines.length - TERMINAL_LINES);
}

export function terminalList(instance, values) {
	instance.state.lines = values.slice(-TERMINAL_LINES);
}

export function drawTerminal(view) {
	const screen = h("output.terminal-screen", { tabIndex: 0, "aria-live": "polite" });
	const input = h("input", {
		type: "text",
		autocomplete: "off",
		autocapitalize: "off",
		spellcheck: false,
		enterKeyHint: "send",
	});
	const form = h(
		"form.terminal-input",
		{
			onsubmit: (event) => {
				event.preventDefault();
				if (!input.value) return;
				view.send(view.w.attachNewLine ? `${input.value}\n` : input.value);
				input.value = "";
			},
		},
		input,
		iconButton("next", t("Send"), null, { type: "submit" }),
	);
	view.onupdate = () => {
		const text = view.state.lines
			.map((line) => String(line).replaceAll("\0", " "))
			.join("\n")
			.replace(/\n\n/g, "\n");
		const atEnd = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - 24;
		if (screen.textContent !== text) screen.textContent = text;
		if (view.w.autoScrollOn !== false || atEnd) screen.scrollTop = screen.scrollHeight;
		screen.classList.toggle("light", Boolean(view.w.textLightOn));
		form.hidden = view.w.terminalInputOn === false;
		screen.setAttribute("aria-label", view.name);
		input.setAttribute("aria-label", `${view.name}: ${t("Command")}`);
		input.placeholder = t("type a command");
	};
	return h(".terminal", null, screen, form);
}

// TABLE: rows { id, name, value, isSelected }, changed by commands of the board (spec 04 §14.7).

const ROWS = 100;

export function tableAccept(instance, value) {
	const { w } = instance;
	w.value = value;
	const [command, first, name, text] = value.split("\0");
	const rows = w.rows ? [...w.rows] : [];
	const at = rows.findIndex((row) => row.id === Number(first));
	if (command === "clr") {
		rows.length = 0;
		w.currentRowIndex = 0;
	} else if (command === "add" && text !== undefined) {
		if (at >= 0) rows[at] = { ...rows[at], name, value: text };
		else rows.push({ id: Number(first), name, value: text, isSelected: true });
		if (rows.length > ROWS) rows.shift();
	} else if (command === "update" && at >= 0 && text !== undefined) rows[at] = { ...rows[at], name, value: text };
	else if (command === "pick" && first !== undefined) w.currentRowIndex = Number(first) || 0;
	else if ((command === "select" || command === "deselect") && at >= 0)
		rows[at] = { ...rows[at], isSelected: command === "select" };
	else if (command === "order" && rows[Number(first)]) rows.splice(Number(name), 0, ...rows.splice(Number(first), 1));
	w.rows = rows;
}

export function tableList(instance, values) {
	const rows = [];
	for (let i = 0; i < values.length;) {
		if (values[i] === "add") {
			rows.push({
				id: Number(values[i + 1]),
				name: values[i + 2],
				value: values[i + 3],
				isSelected: values[i + 4] !== "false",
			});
			i += 5;
		} else if (values[i]?.includes("\0")) {
			tableAccept(instance, values[i]);
			i++;
		} else i++;
	}
	if (rows.length) instance.w.rows = rows;
}

export function tableStart(instance, kept) {
	if (kept) {
		instance.w.rows = [];
		for (const command of kept) tableAccept(instance, command);
	}
}

export function drawTable(view) {
	const head = h("thead"),
		body = h("tbody");
	let drag = null;
	const send = (...parts) => view.send(parts.join("\0"));
	view.onupdate = () => {
		const { w } = view;
		const columns = (w.columns || []).map((column) => column.name || "");
		replace(
			head,
			columns.some(Boolean) &&
				h(
					"tr",
					null,
					w.isClickableRows && h("td"),
					columns.slice(0, 2).map((name) => h("th", { scope: "col" }, name)),
				),
		);
		replace(
			body,
			(w.rows || []).map((row, i) => {
				const tick =
					w.isClickableRows &&
					h(
						"td",
						null,
						h("input", {
							type: "checkbox",
							checked: row.isSelected !== false,
							"aria-label": row.name || String(i + 1),
							onchange: (event) => send(event.target.checked ? "select" : "deselect", row.id),
						}),
					);
				const line = h(
					"tr",
					{ class: `${i === w.currentRowIndex ? "current" : ""} ${row.isSelected === false ? "unselected" : ""}` },
					tick,
					h("td", null, row.name ?? ""),
					h("td.number", null, row.value ?? ""),
				);
				if (w.isReoderingAllowed) {
					line.draggable = true;
					line.addEventListener("dragstart", () => {
						drag = i;
					});
					line.addEventListener("dragover", (event) => event.preventDefault());
					line.addEventListener("drop", () => {
						if (drag !== null && drag !== i) send("order", drag, i);
						drag = null;
					});
				}
				return line;
			}),
		);
		if (!(w.rows || []).length) body.append(h("tr", null, h("td.hint", { colSpan: 3 }, t("no rows yet"))));
	};
	return h(".table-box", { tabIndex: 0, role: "region", "aria-label": view.name }, h("table", null, head, body));
}

// MAP: points "index\0latitude\0longitude\0label" on a grid of its own; no tiles are fetched from anywhere.

export function mapStart(instance) {
	instance.state.points = new Map();
	instance.state.track = [];
	const value = instance.state.values[0];
	if (value) mapAccept(instance, value);
}

export function mapAccept(instance, value) {
	const { state, w } = instance;
	state.values[0] = value;
	w.value = value;
	if (value === "clr") {
		state.points.clear();
		state.track = [];
		return;
	}
	const parts = value.split("\0");
	const [index, lat, lon] = parts.length >= 3 ? parts : ["0", ...parts];
	const [y, x] = [parseNumber(lat), parseNumber(lon)];
	if (y === null || x === null || Math.abs(y) > 90 || Math.abs(x) > 180) return;
	state.points.set(index, { lat: y, lon: x, label: parts[3] || "" });
	state.latest = index;
	const last = state.track.at(-1);
	if (!last || last.lat !== y || last.lon !== x) state.track.push({ lat: y, lon: x, index });
	if (state.track.length > 200) state.track.shift();
}

const KM_PER_DEGREE = 111.32;

/** A round distance for the scale bar: 1, 2 or 5 times a power of ten, at most `km`. */
function roundDistance(km) {
	const power = 10 ** Math.floor(Math.log10(km));
	return [5, 2, 1].map((n) => n * power).find((n) => n <= km) || power;
}

const distanceText = (km) => (km >= 1 ? `${numberText(km, 1)} km` : `${Math.round(km * 1000)} m`);

export function drawMap(view) {
	const picture = svg("svg", { class: "map-picture", preserveAspectRatio: "none" });
	const note = h("span.map-note");
	let zoom = 1,
		shift = [0, 0],
		grabbed = null;
	const draw = () => {
		const box = frame.getBoundingClientRect();
		const width = box.width || 300,
			height = box.height || 200;
		const { state, w } = view;
		const points = [...state.points];
		const all = points.length ? points.map(([, p]) => p) : w.lat || w.lon ? [{ lat: w.lat, lon: w.lon }] : [];
		picture.replaceChildren();
		picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
		note.hidden = all.length > 0;
		note.textContent = t("no position yet");
		if (!all.length) return;
		const latest = w.isPinToLatestPoint && state.points.get(state.latest);
		const lats = all.map((p) => p.lat),
			lons = all.map((p) => p.lon);
		const middle = latest || {
			lat: (Math.max(...lats) + Math.min(...lats)) / 2,
			lon: (Math.max(...lons) + Math.min(...lons)) / 2,
		};
		const squeeze = Math.max(0.05, Math.cos((middle.lat * Math.PI) / 180));
		const reach = (of, at) =>
			latest ? 2 * Math.max(...of.map((n) => Math.abs(n - at))) : Math.max(...of) - Math.min(...of);
		const needed =
			Math.max(
				reach(lats, middle.lat) / height,
				(reach(lons, middle.lon) * squeeze) / width,
				(w.radius ? w.radius / 500 : 1) / KM_PER_DEGREE / Math.min(width, height),
			) * 1.3;
		const scale = needed / zoom; // degrees of latitude per pixel
		const px = (p) => [
			width / 2 + shift[0] + ((p.lon - middle.lon) * squeeze) / scale,
			height / 2 + shift[1] - (p.lat - middle.lat) / scale,
		];
		const km = roundDistance((width / 3) * scale * KM_PER_DEGREE);
		const step = km / KM_PER_DEGREE / scale;
		const lines = [];
		const origin = px(middle);
		for (let x = ((origin[0] % step) + step) % step; x < width; x += step) lines.push(`M${x.toFixed(1)} 0V${height}`);
		for (let y = ((origin[1] % step) + step) % step; y < height; y += step) lines.push(`M0 ${y.toFixed(1)}H${width}`);
		picture.append(svg("path", { d: lines.join(""), class: "map-grid" }));
		if (state.track.length > 1)
			picture.append(
				svg("polyline", {
					class: "map-track",
					points: state.track
						.map((p) =>
							px(p)
								.map((n) => n.toFixed(1))
								.join(","),
						)
						.join(" "),
				}),
			);
		for (const [index, point] of points) {
			const [x, y] = px(point);
			picture.append(
				svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 6, class: "map-point" }),
				svg("text", { x: (x + 9).toFixed(1), y: (y + 4).toFixed(1), class: "map-label" }, point.label || index),
			);
		}
		if (view.here) {
			const [x, y] = px(view.here);
			picture.append(svg("circle", { cx: x, cy: y, r: 6, class: "map-here" }));
		}
		picture.append(
			svg("path", { d: `M10 ${height - 14}v5h${step.toFixed(1)}v-5`, class: "map-scale" }),
			svg("text", { x: 14, y: height - 14, class: "map-label" }, distanceText(km)),
		);
		picture.setAttribute("role", "img");
		picture.setAttribute(
			"aria-label",
			`${view.name}: ${points.map(([i, p]) => `${p.label || i} ${p.lat}, ${p.lon}`).join("; ")}`,
		);
	};
	const by = (factor) => {
		zoom = clamp(zoom * factor, 0.05, 1000);
		draw();
	};
	const frame = h(
		".map",
		null,
		picture,
		note,
		h(
			".map-buttons",
			null,
			iconButton("plus", t("Zoom in"), () => by(1.6)),
			iconButton("minus", t("Zoom out"), () => by(1 / 1.6)),
			iconButton("gps", t("Show everything"), () => {
				zoom = 1;
				shift = [0, 0];
				locate();
				draw();
			}),
		),
	);
	const locate = () => {
		if (!view.w.isMyLocationSupported || !isSecureContext || !navigator.geolocation) return;
		navigator.geolocation.getCurrentPosition(
			({ coords }) => {
				view.here = { lat: coords.latitude, lon: coords.longitude };
				draw();
			},
			() => {},
		);
	};
	picture.addEventListener("pointerdown", (event) => {
		grabbed = [event.clientX - shift[0], event.clientY - shift[1]];
		picture.setPointerCapture(event.pointerId);
	});
	picture.addEventListener("pointermove", (event) => {
		if (grabbed) {
			shift = [event.clientX - grabbed[0], event.clientY - grabbed[1]];
			draw();
		}
	});
	for (const name of ["pointerup", "pointercancel"])
		picture.addEventListener(name, () => {
			grabbed = null;
		});
	const sizes = new ResizeObserver(draw);
	sizes.observe(frame);
	view.cleanups.push(() => sizes.disconnect());
	view.onupdate = draw;
	return frame;
}

export function drawVideo(view) {
	const box = h(".media");
	let shown = null;
	view.onupdate = () => {
		const url = safeUrl(view.w.url, "media");
		if (url === shown) return;
		shown = url;
		if (!url)
			return replace(
				box,
				h("span.hint", null, view.w.url ? t("this address cannot be shown") : t("no address is set")),
			);
		if (url.startsWith("rtsp:"))
			return replace(box, h("span.hint", null, t("Browsers do not play rtsp; use the camera's MJPEG or HLS address.")));
		if (view.env.editing) return replace(box, h("span.hint", null, url));
		const video = () =>
			h("video", {
				src: url,
				autoplay: true,
				muted: true,
				loop: false,
				controls: true,
				playsInline: true,
				"aria-label": view.name,
				onerror: () => replace(box, h("span.hint", null, t("the stream does not answer"))),
			});
		if (/\.(mp4|webm|ogv|ogg|m3u8|mov)(\?|$)/i.test(url)) return replace(box, video());
		replace(
			box,
			h("img", { src: url, alt: view.name, referrerPolicy: "no-referrer", onerror: () => replace(box, video()) }),
		);
	};
	return box;
}

export function drawImage(view) {
	const picture = h("img", { referrerPolicy: "no-referrer", alt: "" });
	const hint = h("span.hint", { hidden: true });
	picture.addEventListener("error", () => {
		picture.hidden = true;
		hint.hidden = false;
		hint.textContent = t("the picture does not load");
	});
	picture.addEventListener("load", () => {
		picture.hidden = false;
		hint.hidden = true;
	});
	let shown = null;
	view.onupdate = () => {
		const { w, state } = view;
		const urls = w.urls || [];
		const index = clamp((parseNumber(state.values[0]) ?? 1) | 0, 1, Math.max(1, urls.length)) - 1;
		const url = safeUrl(urls[index], "image");
		const unset = !w.scale && !w.opacity; // never set: shown as it is
		picture.style.opacity = String(unset ? 1 : clamp(Number(w.opacity) || 0, 0, 100) / 100);
		picture.style.transform = `rotate(${Number(w.rotation) || 0}deg) scale(${unset ? 1 : clamp(Number(w.scale) || 100, 1, 1000) / 100})`;
		picture.style.objectFit = { FILL: "fill", FIT: "contain", NONE: "none" }[w.scaling] || "contain";
		picture.alt = view.name;
		if (url === shown) return;
		shown = url;
		picture.hidden = !url;
		hint.hidden = Boolean(url);
		hint.textContent = urls.length ? t("this address cannot be shown") : t("no picture is set");
		if (url) picture.src = url;
		else picture.removeAttribute("src");
	};
	return h(".media", null, picture, hint);
}

export function drawText(view) {
	const text = h("p.text-widget");
	const align = { LEFT: "left", RIGHT: "right", MIDDLE: "center" };
	view.onupdate = () => {
		text.textContent = view.w.text || view.w.label || "";
		text.style.textAlign = align[view.w.alignment] || "left";
		text.style.setProperty("--font", String(FONT[view.w.textSize] || 1));
		const color = cssColor(view.w.color);
		text.style.color = color && !view.w.isDefaultColor ? color : "";
	};
	return text;
}

// ---------------------------------------------------------------------------------------------------------------
// DEVICE_TILES: a tile per device; templates say how it looks and what opens.

function sorted(project, w) {
	const tiles = (w.tiles || []).map((tile) => ({
		tile,
		template: (w.templates || []).find((x) => x.id === tile.templateId),
		device: project.findDevice(tile.deviceId),
	}));
	const name = (x) => x.device?.name || "";
	const online = (x) => x.device?.status === "ONLINE";
	const template = (x) => x.template?.name || "";
	const orders = {
		DEVICE_NAME_ASC: (a, b) => name(a).localeCompare(name(b)),
		DEVICE_NAME_DESC: (a, b) => name(b).localeCompare(name(a)),
		TEMPLATE_NAME_ASC: (a, b) => template(a).localeCompare(template(b)),
		TEMPLATE_NAME_DESC: (a, b) => template(b).localeCompare(template(a)),
		STATUS_CRITICAL: (a, b) => online(a) - online(b),
		STATUS_OK: (a, b) => online(b) - online(a),
	};
	return orders[w.sortType] ? tiles.sort(orders[w.sortType]) : tiles;
}

function tileText(template, raw) {
	if (raw === undefined || raw === null) return "–";
	const number = parseNumber(raw);
	const text =
		number !== null && template.maximumFractionDigits > 0
			? number.toFixed(template.maximumFractionDigits)
			: String(raw);
	return (
		(template.valueFormatting ? formatValue(template.valueFormatting, [text]) || text : text) +
		(template.valueSuffix || "")
	);
}

export function drawTiles(view) {
	const grid = h(".tile-grid");
	const write = (tile, value) => {
		const { project, model } = view.env;
		if (!project.active) return view.env.explainPaused();
		tile.pin.value = String(value);
		view.instance.touch();
		const letter = { VIRTUAL: "v", DIGITAL: "d", ANALOG: "a" }[tile.pin.pinType];
		project.value(tile.deviceId, letter, tile.pin.pin, String(value), { live: false });
		if (!model.write(project, tile.deviceId, letter, tile.pin.pin, value)) view.env.explainLost();
	};
	const open = (tile) => view.env.openTile(view.instance.widget, tile);
	view.onupdate = () => {
		const { w } = view;
		const { project } = view.env;
		grid.style.setProperty("--columns", String(w.columns > 0 ? w.columns : 2));
		grid.style.setProperty("--rows", String(w.rows > 0 ? w.rows : 2));
		const tiles = sorted(project, w).filter((x) => x.template);
		if (!tiles.length) {
			return replace(
				grid,
				h(
					"p.hint",
					null,
					(w.templates || []).length
						? t("No device uses a template yet.")
						: t("Add a template in edit mode, and choose its devices."),
				),
			);
		}
		// A tile keeps its element while its kind stays, so that a finger on it is not lost when a value comes in.
		const old = new Map([...grid.children].map((el) => [el.dataset.key, el]));
		grid.replaceChildren(
			...tiles.map(({ tile, template, device }) => {
				const key = `${tile.templateId}/${tile.deviceId}/${template.mode}`;
				const el = old.get(key) || TILE_MODES[template.mode in TILE_MODES ? template.mode : "PAGE"](write, open);
				el.dataset.key = key;
				el.paint({ tile, template, device, w });
				return el;
			}),
		);
	};
	return grid;
}

function common(el, { template, device, w, tile }, name) {
	const away = device?.status !== "ONLINE";
	el.classList.toggle("away", away);
	el.disabled = Boolean(w.disableWhenOffline && away);
	name.textContent = template.showDeviceName === false ? template.name || "" : device?.name || `#${tile.deviceId}`;
}

function fill(el, background, ink) {
	const color = cssColor(background),
		text = cssColor(ink);
	el.style.setProperty("--fill", color || "var(--well)");
	el.style.setProperty("--ink", text || (color ? readable(color) : "var(--text)"));
}

const offline = () => h("small.tile-off", null, t("offline"));

const TILE_MODES = {
	PAGE(write, open) {
		const name = h("span.tile-name"),
			value = h("strong.tile-value"),
			title = h("small");
		const el = h("button.tile", { type: "button", onclick: () => open(el.tile) }, name, value, title, offline());
		el.paint = (x) => {
			el.tile = x.tile;
			common(el, x, name);
			fill(el, x.template.tileColor, x.template.color);
			value.textContent = tileText(x.template, x.tile.pin?.value);
			title.textContent =
				x.template.showTileLabel || x.template.valueName ? x.template.valueName || x.template.name || "" : "";
			el.style.setProperty("--font", fontScale(x.template));
		};
		return el;
	},
	BUTTON(write) {
		const name = h("span.tile-name"),
			value = h("strong.tile-value");
		const el = h("button.tile", { type: "button" }, name, value, offline());
		const on = () => same(el.tile.pin?.value, levels()[1]);
		const levels = () => range(el.tile.pin || {}, 0, 1).map((n) => numberText(n));
		el.addEventListener("click", () => {
			if (!el.template.pushMode && validPin(el.tile.pin)) write(el.tile, levels()[on() ? 0 : 1]);
		});
		const press = (down) => () => {
			if (el.template.pushMode && validPin(el.tile.pin)) write(el.tile, levels()[down ? 1 : 0]);
		};
		el.addEventListener("pointerdown", press(true));
		el.addEventListener("pointerup", press(false));
		el.paint = (x) => {
			el.tile = x.tile;
			el.template = x.template;
			common(el, x, name);
			const state = on() ? x.template.stateOn : x.template.stateOff;
			fill(el, state?.tileColor || (on() ? 600084223 : 0), state?.textColor);
			value.textContent = state?.text || (on() ? t("ON") : t("OFF"));
			el.setAttribute("aria-pressed", String(on()));
		};
		return el;
	},
	DIMMER(write, open) {
		const name = h("span.tile-name"),
			value = h("strong.tile-value"),
			level = h("span.tile-level");
		const slider = h("input.tile-slider", { type: "range" });
		slider.addEventListener("change", () => {
			if (validPin(el.tile.pin)) write(el.tile, slider.value);
		});
		const page = h("button.tile-open", { type: "button", onclick: () => open(el.tile) }, name, value, offline());
		const el = h(".tile.dimmer", null, level, page, slider);
		el.paint = (x) => {
			el.tile = x.tile;
			common(el, x, name);
			fill(el, x.template.tileColor, x.template.color);
			const [low, high] = range(x.tile.pin || {}, 0, 100);
			const now = parseNumber(x.tile.pin?.value);
			Object.assign(slider, { min: low, max: high, step: x.template.step || 1, disabled: el.disabled });
			if (document.activeElement !== slider) slider.value = now ?? low;
			slider.setAttribute("aria-label", name.textContent);
			level.style.setProperty("--share", String(clamp(((now ?? low) - low) / (high - low), 0, 1)));
			level.style.setProperty("--level", cssColor(x.template.levelColor) || "var(--accent)");
			value.textContent = tileText(x.template, x.tile.pin?.value);
		};
		return el;
	},
};

// ENHANCED_GRAPH: drawn by screens/chart.js, which brings the chart library when the first chart is shown.

export const drawGraph = (view) => {
	const box = h(".graph");
	import("./screens/chart.js").then(({ inlineChart }) => {
		if (box.isConnected || view.el.isConnected) inlineChart(view, box);
	});
	return box;
};

/** LIVE values of a chart: what came in since the page is open, per stream. */
export function graphSample(instance, stream, value) {
	const number = parseNumber(value);
	if (number === null) return;
	for (const view of instance.views)
		view.sample?.(instance.widget.dataStreams.indexOf(stream), { value: number, ts: Date.now() });
}

// Sensors: the browser's own, where it has them and the context is secure.

function gravity(send) {
	const listener = (event) => {
		const a = event.accelerationIncludingGravity;
		if (a && a.x !== null) send([a.x, a.y, a.z].map((n) => numberText(n ?? 0, 4)).join("\0"));
	};
	window.addEventListener("devicemotion", listener);
	return () => window.removeEventListener("devicemotion", listener);
}

const generic = (name, read) => ({
	available: () => name in window,
	start(send, view, failed) {
		try {
			const sensor = new window[name]({ frequency: 10 });
			sensor.onreading = () => send(read(sensor));
			sensor.onerror = () => failed();
			sensor.start();
			return () => sensor.stop();
		} catch {
			failed();
			return () => {};
		}
	},
});

const motion = {
	available: () => "DeviceMotionEvent" in window,
	async start(send, view, failed) {
		const ask = window.DeviceMotionEvent.requestPermission;
		if (ask && (await ask().catch(() => "denied")) !== "granted") {
			failed();
			return () => {};
		}
		return gravity(send);
	},
};

function metres(a, b) {
	const rad = (x) => (x * Math.PI) / 180;
	const f =
		Math.sin(rad(b.lat - a.lat) / 2) ** 2 +
		Math.cos(rad(a.lat)) * Math.cos(rad(b.lat)) * Math.sin(rad(b.lon - a.lon) / 2) ** 2;
	return 12742000 * Math.asin(Math.sqrt(f));
}

const position = (report) => ({
	available: () => isSecureContext && "geolocation" in navigator,
	start(send, view, failed) {
		const id = navigator.geolocation.watchPosition(({ coords }) => report(send, view, coords), failed, {
			enableHighAccuracy: true,
		});
		return () => navigator.geolocation.clearWatch(id);
	},
});

const SENSORS = {
	ACCELEROMETER: motion,
	GRAVITY: motion,
	LIGHT: generic("AmbientLightSensor", (s) => numberText(s.illuminance ?? 0, 2)),
	PROXIMITY: generic("ProximitySensor", (s) => numberText(s.distance ?? (s.near ? 0 : 1), 2)),
	TEMPERATURE: generic("TemperatureSensor", (s) => numberText(s.celsius ?? 0, 2)),
	BAROMETER: generic("BarometerSensor", (s) => numberText(s.pressure ?? 0, 2)),
	HUMIDITY: generic("HumiditySensor", (s) => numberText(s.humidity ?? 0, 2)),
	GPS_STREAMING: position((send, view, c) => send([c.latitude, c.longitude, c.altitude ?? 0, c.speed ?? 0].join("\0"))),
	GPS_TRIGGER: position((send, view, c) => {
		const { w } = view;
		const inside =
			metres({ lat: w.triggerLat, lon: w.triggerLon }, { lat: c.latitude, lon: c.longitude }) <=
			(w.triggerRadius || 100);
		if (inside === view.inside) return;
		view.inside = inside;
		send(inside === Boolean(w.triggerOnEnter) ? "1" : "0");
	}),
};

export function drawSensor(view) {
	const sensor = SENSORS[view.instance.widget.type];
	const text = h("output.sensor-value"),
		action = button("", () => toggle());
	const send = view.sender();
	let stop = null,
		problem = "";
	const deliver = (value) => {
		send(value);
		view.last = value;
		view.dirty();
	};
	const toggle = async () => {
		if (stop) {
			stop();
			stop = null;
		} else {
			problem = "";
			stop = await sensor.start(deliver, view, () => {
				problem = t("This device does not give its readings.");
				stop = null;
				view.dirty();
			});
		}
		view.dirty();
	};
	view.cleanups.push(() => stop?.());
	view.onupdate = () => {
		const able = sensor.available();
		action.hidden = !able;
		action.textContent = stop ? t("Stop") : t("Start");
		const now = view.last ?? view.state.values[0];
		text.textContent =
			problem ||
			(able
				? now === undefined
					? "–"
					: String(now)
							.split("\0")
							.map((n) => numberText(Number(n), 2))
							.join("  ")
				: isSecureContext
					? t("This browser has no such sensor.")
					: t("Sensors need the https address."));
	};
	return h(".sensor", null, icon(view.type.icon), text, action);
}

// Widgets that work in the background: an icon and, in one line, what they do.

const SUMMARIES = {
	EVENTOR: (w) => t("{0} active", (w.rules || []).filter((rule) => rule.isActive).length),
	REPORT: (w) => t("{0} active", (w.reports || []).filter((report) => report.isActive).length),
	WEBHOOK: (w) => `${pinName(w) || "–"} → ${w.method || "GET"} ${w.url || "…"}`,
	EMAIL: (w) => w.to || t("to your own address"),
	SMS: (w) => w.to || "",
	TWITTER: (w) => w.username || "",
	RTC: (w) => w.tzName || "UTC",
	NOTIFICATION: (w) => (w.notifyWhenOffline ? t("also when a device goes offline") : ""),
	BRIDGE: () => t("device to device"),
	BLUETOOTH: () => t("only in the phone app"),
	BLUETOOTH_SERIAL: () => t("only in the phone app"),
};

export function drawInfo(view) {
	const { type } = view.instance.widget;
	const name = h("span"),
		line = h("small");
	const opens = { EVENTOR: "rules", REPORT: "reports", NOTIFICATION: "notifications", WEBHOOK: "rules" }[type];
	const el = opens
		? h(
				"button.info-tile",
				{ type: "button", onclick: () => view.env.open(opens) },
				icon(view.type.icon),
				h("span.info-text", null, name, line),
			)
		: h(".info-tile", null, icon(view.type.icon), h("span.info-text", null, name, line));
	view.onupdate = () => {
		name.textContent = view.name;
		line.textContent = SUMMARIES[type](view.w);
	};
	return el;
}
