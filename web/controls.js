// Controls: what the user presses, turns and types. Each function draws one widget type into a view (view.js).

import { ask, button, dialog, field, h, icon, iconButton, safeUrl, select } from "./dom.js";
import {
	clamp,
	clock,
	clockSeconds,
	clockToUtc,
	cssColor,
	hsvToRgb,
	mapOut,
	numberText,
	parseNumber,
	range,
	readable,
	rgbToHsv,
	userZone,
	utcToClock,
	zoneOffset,
} from "./format.js";
import { DAYS, t } from "./i18n.js";
import { Command } from "./protocol.js";

/** Are two values the same pin value? "1" and "1.0" are. */
export function same(a, b) {
	const x = parseNumber(a),
		y = parseNumber(b);
	return x !== null && y !== null ? x === y : String(a ?? "") === String(b ?? "");
}

const onValue = (w) => numberText(range(w, 0, 1)[1]);
const offValue = (w) => numberText(range(w, 0, 1)[0]);
const isOn = (view) => view.state.values[0] !== undefined && same(view.state.values[0], onValue(view.w));

// A push button is on while it is held, by finger, mouse or key; a switch turns over at each click.
function pressable(view, el) {
	let held = false;
	const press = (event) => {
		if (!view.w.pushMode || held || event.button > 0) return;
		held = true;
		view.send(onValue(view.w));
		if (event.pointerId) el.setPointerCapture(event.pointerId); // let go beside the button counts too
	};
	const release = () => {
		if (!held) return;
		held = false;
		view.send(offValue(view.w));
	};
	el.addEventListener("pointerdown", press);
	for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) el.addEventListener(name, release);
	el.addEventListener("keydown", (event) => {
		if (event.key === " " || event.key === "Enter") press(event);
	});
	el.addEventListener("keyup", (event) => {
		if (event.key === " " || event.key === "Enter") release();
	});
	el.addEventListener("click", () => {
		if (!view.w.pushMode) view.send(isOn(view) ? offValue(view.w) : onValue(view.w));
	});
	el.addEventListener("contextmenu", (event) => {
		if (view.w.pushMode) event.preventDefault();
	});
	view.cleanups.push(release);
}

export function drawButton(view) {
	const text = h("span");
	const el = h("button.push", { type: "button" }, text);
	pressable(view, el);
	view.onupdate = () => {
		const on = isOn(view);
		text.textContent = on ? view.w.onLabel || t("ON") : view.w.offLabel || t("OFF");
		el.setAttribute("aria-pressed", String(on));
		el.setAttribute("aria-label", `${view.name}: ${text.textContent}`);
	};
	return el;
}

const shapes = (w) => `${(w.edge || "ROUNDED").toLowerCase()} ${(w.buttonStyle || "SOLID").toLowerCase()}`;

function paintState(el, text, state, fallback) {
	const background = cssColor(state?.backgroundColor),
		color = cssColor(state?.textColor);
	text.textContent = state?.text || fallback;
	el.style.setProperty("--fill", background || "var(--accent)");
	el.style.setProperty("--ink", color || (background ? readable(background) : "var(--on-accent)"));
}

export function drawStyledButton(view) {
	const text = h("span");
	const el = h("button.styled", { type: "button" }, text);
	pressable(view, el);
	view.onupdate = () => {
		const { w } = view;
		const on = isOn(view);
		el.className = `styled ${shapes(w)} ${on ? "on" : "off"}`;
		paintState(el, text, on ? w.onButtonState : w.offButtonState, on ? t("ON") : t("OFF"));
		if (!on && !cssColor(w.offButtonState?.backgroundColor)) {
			el.style.setProperty("--fill", "var(--well)");
			el.style.setProperty("--ink", cssColor(w.offButtonState?.textColor) || "var(--text)");
		}
		el.setAttribute("aria-pressed", String(on));
		el.setAttribute("aria-label", `${view.name}: ${text.textContent}`);
	};
	return el;
}

export function drawLinkButton(view) {
	const text = h("span");
	const el = h("a.styled", { target: "_blank", rel: "noopener noreferrer" }, text);
	view.onupdate = () => {
		const { w } = view;
		const url = safeUrl(w.url);
		el.className = `styled on ${shapes(w)}`;
		paintState(el, text, w.offButtonState || w.onButtonState, w.label || t("Open"));
		if (url) el.href = url;
		else el.removeAttribute("href");
		el.classList.toggle("dead", !url);
		el.title = url || t("no address is set");
	};
	return el;
}

export function drawSwitch(view) {
	const text = h("span.switch-text");
	const el = h("button.switch", { type: "button", role: "switch" }, h("span.track", null, h("span.knob")), text);
	el.addEventListener("click", () => view.send(isOn(view) ? offValue(view.w) : onValue(view.w)));
	view.onupdate = () => {
		const { w } = view;
		const on = isOn(view);
		el.setAttribute("aria-checked", String(on));
		text.textContent = (on ? w.onLabel : w.offLabel) || "";
		el.setAttribute("aria-label", text.textContent ? `${view.name}: ${text.textContent}` : view.name);
		const track = cssColor(on ? w.onBackgroundColor : w.offBackgroundColor),
			knob = cssColor(w.handleColor);
		el.style.setProperty("--track", track || (on ? "var(--accent)" : "var(--line)"));
		el.style.setProperty("--knob", knob || "#ffffff");
	};
	return el;
}

export const drawSlider = (vertical) =>
	function slider(view) {
		const input = h("input", {
			type: "range",
			class: vertical ? "vertical" : "",
			orient: vertical ? "vertical" : "horizontal",
		});
		const text = h("output.slider-value");
		const send = view.sender();
		let dragging = false;
		const digits = () => clamp(view.w.maximumFractionDigits | 0, 0, 6);
		const show = () => {
			const [low, high] = range(view.w, 0, 255);
			const share = (Number(input.value) - Math.min(low, high)) / (Math.abs(high - low) || 1);
			input.style.setProperty("--share", `${clamp(share, 0, 1) * 100}%`);
			text.textContent =
				view.state.values[0] === undefined && !dragging ? "–" : numberText(Number(input.value), digits());
		};
		input.addEventListener("input", () => {
			dragging = true;
			show();
			send(numberText(Number(input.value), digits()));
		});
		input.addEventListener("change", () => {
			dragging = false;
			send(numberText(Number(input.value), digits()), true);
		});
		view.onupdate = () => {
			const [low, high] = range(view.w, 0, 255);
			input.min = Math.min(low, high);
			input.max = Math.max(low, high);
			input.step = numberText(10 ** -digits(), 6);
			if (!dragging) input.value = parseNumber(view.state.values[0]) ?? low;
			text.hidden = view.w.showValueOn === false;
			input.setAttribute("aria-label", view.name);
			show();
		};
		return h(vertical ? ".slider.upright" : ".slider", null, input, text);
	};

export const drawStep = (vertical) =>
	function step(view) {
		const text = h("output.step-value");
		const send = view.sender();
		const move = (sign) => {
			const { w } = view;
			const size = Number(w.step) || 1;
			if (w.isSendStep) return view.send(numberText(sign * size));
			const [low, high] = range(w, 0, 100);
			let next = (parseNumber(view.state.values[0]) ?? low) + sign * size;
			if (next > Math.max(low, high)) next = w.isLoopOn ? Math.min(low, high) : Math.max(low, high);
			if (next < Math.min(low, high)) next = w.isLoopOn ? Math.max(low, high) : Math.min(low, high);
			view.state.values[0] = numberText(next);
			view.dirty();
			send(numberText(next), true);
		};
		const down = iconButton("minus", "", () => move(-1)),
			up = iconButton("plus", "", () => move(1));
		view.onupdate = () => {
			const names = view.w.isArrowsOn ? (vertical ? ["down", "up"] : ["back", "next"]) : ["minus", "plus"];
			if (names[0] !== view.stepIcons) {
				view.stepIcons = names[0];
				down.replaceChildren(icon(names[0]));
				up.replaceChildren(icon(names[1]));
			}
			for (const [el, what] of [
				[down, t("less")],
				[up, t("more")],
			]) {
				el.title = what;
				el.setAttribute("aria-label", `${view.name}: ${what}`);
			}
			text.textContent = view.w.isSendStep ? numberText(Number(view.w.step) || 1) : (view.state.values[0] ?? "–");
			text.hidden = view.w.showValueOn === false;
		};
		return h(vertical ? ".step.upright" : ".step", null, vertical ? [up, text, down] : [down, text, up]);
	};

export function drawTextInput(view) {
	const input = h("input", { type: "text", autocomplete: "off" });
	const go = () => {
		if (input.value !== (view.state.values[0] ?? "")) view.send(input.value);
	};
	input.addEventListener("change", go);
	view.onupdate = () => {
		if (document.activeElement !== input) input.value = view.state.values[0] ?? "";
		input.placeholder = view.w.hint || "";
		if (view.w.limit > 0) input.maxLength = view.w.limit;
		input.setAttribute("aria-label", view.name);
	};
	return h(
		"form.text-input",
		{
			onsubmit: (event) => {
				event.preventDefault();
				go();
			},
		},
		input,
	);
}

export function drawNumberInput(view) {
	const input = h("input", { type: "number", inputMode: "decimal" });
	const suffix = h("span.suffix");
	const limits = () => range(view.w, -Infinity, Infinity);
	const go = (value) => {
		if (value === null) return;
		const [low, high] = limits();
		let next = value;
		if (view.w.isLoopOn && next > high) next = low;
		else if (view.w.isLoopOn && next < low) next = high;
		input.value = numberText(clamp(next, low, high));
		if (!same(input.value, view.state.values[0])) view.send(input.value);
	};
	input.addEventListener("change", () => go(parseNumber(input.value)));
	const by = (sign) => go((parseNumber(input.value) ?? 0) + sign * (Number(view.w.step) || 1));
	view.onupdate = () => {
		if (document.activeElement !== input) input.value = view.state.values[0] ?? "";
		const [low, high] = limits();
		input.min = Number.isFinite(low) && !view.w.isLoopOn ? low : "";
		input.max = Number.isFinite(high) && !view.w.isLoopOn ? high : "";
		input.step = "any";
		suffix.textContent = view.w.suffix || "";
		input.setAttribute("aria-label", view.name);
	};
	return h(
		"form.number-input",
		{
			onsubmit: (event) => {
				event.preventDefault();
				go(parseNumber(input.value));
			},
		},
		iconButton("minus", t("less"), () => by(-1)),
		h("span.number-box", null, input, suffix),
		iconButton("plus", t("more"), () => by(1)),
	);
}

// RGB: the streams' values as [r, g, b]; merged they are one value "r\0g\0b".
function rgbOf(view) {
	const { values } = view.state;
	const parts = view.w.splitMode ? values : String(values[0] ?? "").split("\0");
	return [0, 1, 2].map((i) => clamp(parseNumber(parts[i]) ?? 0, 0, 255));
}

export function drawRgb(view) {
	const senders = [0, 1, 2].map((i) => view.sender(i));
	let hsv = [0, 1, 1],
		dragging = false;
	const go = (last) => {
		const rgb = hsvToRgb(...hsv);
		const { w } = view;
		if (w.splitMode) rgb.forEach((c, i) => senders[i](numberText(Math.round(mapOut(w.pins?.[i] || {}, c))), last));
		else senders[0](rgb.join("\0"), last);
		show();
	};
	const bar = (name, top, apply) => {
		const el = h("input.rgb-bar", { type: "range", min: 0, max: top, step: top === 1 ? 0.01 : 1, "aria-label": name });
		el.addEventListener("input", () => {
			dragging = true;
			apply(Number(el.value));
			go(false);
		});
		el.addEventListener("change", () => {
			dragging = false;
			go(true);
		});
		return el;
	};
	const hue = bar(t("Colour tone"), 360, (x) => {
		hsv[0] = x;
		if (!hsv[1]) hsv[1] = 1;
		if (!hsv[2]) hsv[2] = 1;
	});
	const saturation = bar(t("Saturation"), 1, (x) => {
		hsv[1] = x;
	});
	const brightness = bar(t("Brightness"), 1, (x) => {
		hsv[2] = x;
	});
	hue.classList.add("hue");
	const swatch = h("input.swatch", { type: "color" });
	swatch.addEventListener("input", () => {
		const n = parseInt(swatch.value.slice(1), 16);
		hsv = rgbToHsv(n >> 16, (n >> 8) & 255, n & 255);
		go(true);
	});
	const show = () => {
		const hex = (rgb) => `#${rgb.map((c) => Math.round(c).toString(16).padStart(2, "0")).join("")}`;
		hue.value = hsv[0];
		saturation.value = hsv[1];
		brightness.value = hsv[2];
		saturation.style.setProperty("--from", hex(hsvToRgb(hsv[0], 0, hsv[2])));
		saturation.style.setProperty("--to", hex(hsvToRgb(hsv[0], 1, hsv[2])));
		brightness.style.setProperty("--from", "#000000");
		brightness.style.setProperty("--to", hex(hsvToRgb(hsv[0], hsv[1], 1)));
		swatch.value = hex(hsvToRgb(...hsv));
	};
	view.onupdate = () => {
		if (!dragging) {
			const next = rgbToHsv(...rgbOf(view));
			if (!next[1]) next[0] = hsv[0]; // grey has no tone: keep the one last chosen
			hsv = next;
		}
		swatch.setAttribute("aria-label", view.name);
		show();
	};
	return h(".rgb", null, swatch, h(".rgb-bars", null, hue, saturation, brightness));
}

export function drawJoystick(view) {
	const knob = h("span.stick");
	const pad = h("span.pad", { role: "application", tabIndex: 0 }, knob);
	const senders = [view.sender(0), view.sender(1)];
	let at = [128, 128],
		dragging = false;
	const scale = (value, stream) => {
		if (stream?.rangeMappingOn || (stream && stream.max !== stream.min && stream.max !== 255)) {
			const [low, high] = range(stream, 0, 255);
			return Math.round(low + ((high - low) * value) / 255);
		}
		return Math.round(value);
	};
	const go = (last) => {
		const { w } = view;
		const pins = w.pins || [];
		const x = numberText(scale(at[0], pins[0])),
			y = numberText(scale(at[1], pins[1]?.pin >= 0 ? pins[1] : pins[0]));
		if (w.split) {
			senders[0](x, last);
			senders[1](y, last);
		} else senders[0](`${x}\0${y}`, last);
		show();
	};
	const show = () => {
		knob.style.setProperty("--x", String(at[0] / 255));
		knob.style.setProperty("--y", String(1 - at[1] / 255));
		pad.setAttribute("aria-label", `${view.name}: ${Math.round(at[0])}, ${Math.round(at[1])}`);
	};
	const follow = (event) => {
		const box = pad.getBoundingClientRect();
		let x = ((event.clientX - box.left) / box.width) * 2 - 1,
			y = 1 - ((event.clientY - box.top) / box.height) * 2;
		const far = Math.hypot(x, y);
		if (far > 1) {
			x /= far;
			y /= far;
		}
		at = [(x + 1) * 127.5, (y + 1) * 127.5];
		go(false);
	};
	const leave = () => {
		if (!dragging) return;
		dragging = false;
		if (view.w.autoReturnOn !== false) at = [128, 128];
		go(true);
	};
	pad.addEventListener("pointerdown", (event) => {
		dragging = true;
		pad.setPointerCapture(event.pointerId);
		follow(event);
	});
	pad.addEventListener("pointermove", (event) => {
		if (dragging) follow(event);
	});
	for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, leave);
	const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
	pad.addEventListener("keydown", (event) => {
		const by = KEYS[event.key];
		if (!by) return;
		event.preventDefault();
		dragging = true;
		at = at.map((v, i) => clamp(v + by[i] * 26, 0, 255));
		go(false);
	});
	pad.addEventListener("keyup", (event) => {
		if (KEYS[event.key]) leave();
	});
	view.onupdate = () => {
		if (dragging) return;
		const { w, state } = view;
		const parts = w.split ? state.values : String(state.values[0] ?? "").split("\0");
		at = [0, 1].map((i) => {
			const value = parseNumber(parts[i]);
			const stream = w.pins?.[i];
			if (value === null) return 128;
			if (stream && stream.max !== stream.min && stream.max !== 255)
				return clamp(((value - stream.min) / (stream.max - stream.min)) * 255, 0, 255);
			return clamp(value, 0, 255);
		});
		show();
	};
	return h(".joystick", null, pad);
}

export function drawTimer(view) {
	const start = h("input", { type: "time", step: 1, "aria-label": t("Start time") });
	const stop = h("input", { type: "time", step: 1, "aria-label": t("Stop time") });
	const save = async () => {
		const { widget } = view.instance;
		const old = [widget.startTime, widget.stopTime];
		widget.startTime = clockToUtc(start.value);
		widget.stopTime = clockToUtc(stop.value);
		if (view.env.guest) return;
		if (!(await view.request(Command.UPDATE_WIDGET, view.env.project.id, JSON.stringify(widget))))
			[widget.startTime, widget.stopTime] = old;
		view.instance.refresh();
	};
	for (const input of [start, stop]) input.addEventListener("change", save);
	view.onupdate = () => {
		if (document.activeElement !== start) start.value = utcToClock(view.w.startTime ?? -1);
		if (document.activeElement !== stop) stop.value = utcToClock(view.w.stopTime ?? -1);
		start.disabled = stop.disabled = Boolean(view.env.guest);
	};
	return h(
		".timer",
		null,
		h("label", null, h("span", null, t("on at")), start),
		h("label", null, h("span", null, t("off at")), stop),
	);
}

// TIME_INPUT: "start\0stop\0zone\0days\0offset"; a time is a second of the day, "sr" sunrise, "ss" sunset, "" never.
const SUN = { sr: -3, ss: -2 };

function timeInputParts(value, w) {
	const parts = String(value ?? "").split("\0");
	return {
		start: parts[0] || "",
		stop: parts[1] || "",
		zone: parts[2] || w.tzName || userZone(),
		days: (parts[3] || "")
			.split(",")
			.map(Number)
			.filter((d) => d >= 1 && d <= 7),
	};
}

function timeText(part) {
	if (part in SUN) return part === "sr" ? t("sunrise") : t("sunset");
	return part === "" ? "–" : clock(Number(part));
}

export function drawTimeInput(view) {
	const times = h("strong"),
		days = h("small");
	const open = async () => {
		const { w } = view;
		const now = timeInputParts(view.state.values[0], w);
		const result = await dialog(view.name, (close) => {
			const part = (label, value) => {
				const kind = select(
					[
						["", t("never")],
						["time", t("at a time")],
						...(w.isSunsetSunriseAllowed || value in SUN
							? [
									["sr", t("sunrise")],
									["ss", t("sunset")],
								]
							: []),
					],
					value in SUN ? value : value === "" ? "" : "time",
				);
				const at = h("input", { type: "time", step: 1, value: value && !(value in SUN) ? clock(Number(value)) : "" });
				at.addEventListener("input", () => {
					kind.value = "time";
				});
				return {
					row: h(".row", null, field(label, at), field(t("When"), kind)),
					read: () =>
						kind.value === "time" ? (clockSeconds(at.value) < 0 ? "" : String(clockSeconds(at.value))) : kind.value,
				};
			};
			const start = part(w.isStartStopAllowed ? t("Start time") : t("Time"), now.start),
				stop = part(t("Stop time"), now.stop);
			const zone = h("input", { value: now.zone });
			const boxes = DAYS().map((name, i) =>
				h(
					"label.day",
					null,
					h("input", { type: "checkbox", value: String(i + 1), checked: now.days.includes(i + 1) }),
					name,
				),
			);
			return h(
				"form",
				{
					onsubmit: (event) => {
						event.preventDefault();
						const chosen = boxes
							.map((b) => b.firstChild)
							.filter((b) => b.checked)
							.map((b) => b.value)
							.join(",");
						const tz = zone.value.trim() || userZone();
						close(
							[
								start.read(),
								w.isStartStopAllowed ? stop.read() : "",
								tz,
								w.isDayOfWeekAllowed ? chosen : "",
								zoneOffset(tz),
							].join("\0"),
						);
					},
				},
				start.row,
				w.isStartStopAllowed && stop.row,
				w.isDayOfWeekAllowed && h(".days", null, boxes),
				w.isTimezoneAllowed && field(t("Time zone"), zone),
				h(
					".row.end",
					null,
					button(t("Cancel"), () => close()),
					h("button.primary", { type: "submit" }, t("Send")),
				),
			);
		});
		if (result !== undefined) view.send(result);
	};
	view.onupdate = () => {
		const { w } = view;
		const now = timeInputParts(view.state.values[0], w);
		times.textContent = w.isStartStopAllowed ? `${timeText(now.start)} – ${timeText(now.stop)}` : timeText(now.start);
		days.textContent = now.days.length ? now.days.map((d) => DAYS()[d - 1]).join(" ") : "";
	};
	return h("button.time-input", { type: "button", onclick: open }, icon("clock"), h("span", null, times, days));
}

export function drawSegments(view) {
	const box = h(".segments", { role: "radiogroup" });
	let drawn = "";
	view.onupdate = () => {
		const labels = view.w.labels || [];
		const key = labels.join("\0");
		if (key !== drawn || !box.children.length) {
			drawn = key;
			box.replaceChildren(
				...labels.map((text, i) =>
					h("button", { type: "button", role: "radio", onclick: () => view.send(String(i + 1)) }, text),
				),
			);
			if (!labels.length) box.replaceChildren(h("span.hint", null, t("no options")));
		}
		[...box.children].forEach((el, i) => el.setAttribute("aria-checked", String(same(view.state.values[0], i + 1))));
		box.setAttribute("aria-label", view.name);
	};
	return box;
}

export function drawMenu(view) {
	const el = h("select.menu-widget");
	let drawn = null;
	el.addEventListener("change", () => {
		if (el.value) view.send(el.value);
	});
	view.onupdate = () => {
		const labels = view.w.labels || [];
		const key = labels.join("\0") + (view.w.hint || "");
		if (key !== drawn) {
			drawn = key;
			el.replaceChildren(
				h("option", { value: "" }, view.w.hint || t("choose …")),
				...labels.map((text, i) => h("option", { value: String(i + 1) }, text)),
			);
		}
		const value = parseNumber(view.state.values[0]);
		el.value = value >= 1 && value <= labels.length ? String(value) : "";
		el.setAttribute("aria-label", view.name);
	};
	return el;
}

export function drawPlayer(view) {
	const press = (what) => {
		if (what === "play" || what === "stop") view.w.isOnPlay = what === "play";
		view.send(what);
	};
	const main = iconButton("play", t("Play"), () => press(view.w.isOnPlay ? "stop" : "play"));
	main.classList.add("primary");
	view.onupdate = () => {
		const on = Boolean(view.w.isOnPlay);
		main.replaceChildren(icon(on ? "pause" : "play"));
		main.title = on ? t("Stop") : t("Play");
		main.setAttribute("aria-label", main.title);
	};
	const skip = (name, label, value) => iconButton(name, label, () => press(value));
	return h(".player", null, skip("back", t("Previous"), "prev"), main, skip("next", t("Next"), "next"));
}

export function drawQrScanner(view) {
	const text = h("span.scan-value");
	const scan = async () => {
		if (!("BarcodeDetector" in window) || !navigator.mediaDevices?.getUserMedia) {
			const typed = await ask(
				view.name,
				[
					{
						name: "code",
						label: t("Code"),
						value: "",
						help: t("This browser cannot read QR codes with the camera here: type the code."),
					},
				],
				t("Send"),
			);
			if (typed?.code) view.send(typed.code);
			return;
		}
		const code = await scanWithCamera(view.name);
		if (code) view.send(code);
	};
	view.onupdate = () => {
		text.textContent = view.state.values[0] ?? "";
	};
	return h("button.info-tile", { type: "button", onclick: scan }, icon("qr"), h("span", null, t("Scan a code")), text);
}

function scanWithCamera(title) {
	return dialog(title, (close) => {
		const video = h("video.camera", { autoplay: true, muted: true, playsInline: true });
		(async () => {
			let stream;
			try {
				stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
			} catch {
				video.replaceWith(h("p", null, t("The camera is not allowed.")));
				return;
			}
			video.srcObject = stream;
			const detector = new window.BarcodeDetector();
			const look = async () => {
				if (!video.isConnected) return stream.getTracks().forEach((track) => track.stop());
				const found = await detector.detect(video).catch(() => []);
				if (found.length) {
					stream.getTracks().forEach((track) => track.stop());
					close(found[0].rawValue);
				} else setTimeout(look, 200);
			};
			look();
		})();
		return h("div", null, video);
	});
}

export function drawSelector(view) {
	const el = h("select.menu-widget");
	let drawn = null;
	el.addEventListener("change", async () => {
		const { project } = view.env;
		const device = Number(el.value),
			old = view.instance.widget.value;
		project.select(view.instance.widget.id, device);
		const any = project.devices[0]?.id ?? 0;
		if (!(await view.request(Command.HARDWARE, `${project.id}-${any}`, "vu", view.instance.widget.id, device)))
			project.select(view.instance.widget.id, old);
	});
	view.onupdate = () => {
		const { project } = view.env;
		const ids = view.w.deviceIds || [];
		const options = ids.map((id) => [id, project.findDevice(id)?.name || `#${id}`, project.online(id)]);
		const key = JSON.stringify(options) + (view.w.hint || "");
		if (key !== drawn) {
			drawn = key;
			el.replaceChildren(
				...(ids.includes(view.w.value) ? [] : [h("option", { value: "" }, view.w.hint || t("choose a device"))]),
				...options.map(([id, name, online]) =>
					h("option", { value: String(id) }, online ? name : `${name} (${t("offline")})`),
				),
			);
		}
		el.value = ids.includes(view.w.value) ? String(view.w.value) : "";
		el.setAttribute("aria-label", view.name);
	};
	return el;
}

export function drawTabs(view) {
	const bar = h(".tabs", { role: "tablist" });
	view.onupdate = () => {
		const { w } = view;
		const tabs = w.tabs || [];
		bar.replaceChildren(
			...tabs.map((tab, i) => {
				const on = view.env.tab() === i;
				const color = cssColor(on ? w.activeTxtColor : w.textColor),
					line = cssColor(w.underlineColor);
				return h(
					"button",
					{
						type: "button",
						role: "tab",
						"aria-selected": String(on),
						onclick: () => view.env.showTab(i),
						style: { ...(color && { color }), ...(line && { "--accent": line }) },
					},
					tab.label || String(i + 1),
				);
			}),
		);
		bar.setAttribute("aria-label", view.name);
	};
	return bar;
}
