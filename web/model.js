// Projects, pin values and which widget they belong to. No DOM: runs in Node too.
//
// A project is the JSON document as the server sent it; fields and widget types that this page does not know stay as they
// came. Around it live instances: one per widget, and one per tile and widget for the pages inside device tiles. A value
// that comes in finds its instances by "device-pin", is given to the widget type's accept() and marks their views dirty.

import { Command } from "./protocol.js";
import { parseNumber, propertyColor } from "./format.js";

export const TAGS_FROM = 100000,
	SELECTORS_FROM = 200000;
const LETTER = { VIRTUAL: "v", DIGITAL: "d", ANALOG: "a" };
const OWN_LETTER = new Set(["BUTTON", "STYLED_BUTTON", "SWITCH"]); // these ignore PWM mode (spec 04 §12.1)

export const letterOf = (stream) => LETTER[stream?.pinType] || "v";
export const validPin = (stream) => Boolean(stream && stream.pin >= 0 && stream.pin !== undefined && stream.pinType);
export const pinName = (stream) => (validPin(stream) ? `${letterOf(stream).toUpperCase()}${stream.pin}` : "");
const keyOf = (device, letter, pin) => `${device}-${letter}${pin}`;

/** The data streams of a widget: itself for single-pin widgets, its pins for the others. */
export function streamsOf(w) {
	if (Array.isArray(w.pins)) return w.pins;
	return w.pin === undefined ? [] : [w];
}

// Keys under which values for a stream may come in (spec 04 §9.2).
function keysOf(device, stream, single) {
	const letter = letterOf(stream);
	const letters = new Set([letter]);
	if (stream.pwmMode) letters.add("a");
	if (single && letter === "a") letters.add("d");
	return [...letters].map((l) => keyOf(device, l, stream.pin));
}

// Properties that a board may set: name -> what it does to the widget (spec 04 §13.2).
const text = (field) => (w, value) => {
	w[field] = value;
};
const number = (field) => (w, value) => {
	const n = parseNumber(value);
	if (n !== null) w[field] = n;
};
const color = (field) => (w, value) => {
	const c = propertyColor(value);
	if (c !== null) w[field] = c;
};
const inState = (state, field, isColor) => (w, value) => {
	if (!w[state]) return;
	const next = isColor ? propertyColor(value) : value;
	if (next !== null) w[state] = { ...w[state], [field]: next };
};
const listed = (field) => (w, value) => {
	w[field] = value.split("\0");
};
const flag = (field) => (w, value) => {
	w[field] = /^(true|1)$/i.test(value);
};
const STYLED = ["STYLED_BUTTON", "LINK_BUTTON"];
const either = (plain, styled) => (w, value) => (STYLED.includes(w.type) ? styled : plain)(w, value);
export const PROPERTIES = {
	label: text("label"),
	min: number("min"),
	max: number("max"),
	step: number("step"),
	suffix: text("suffix"),
	color: (w, value) => {
		const c = propertyColor(value);
		if (c !== null) Object.assign(w, { color: c, isDefaultColor: false });
	},
	onLabel: either(text("onLabel"), inState("onButtonState", "text")),
	offLabel: either(text("offLabel"), inState("offButtonState", "text")),
	onColor: either(color("onColor"), inState("onButtonState", "textColor", true)),
	offColor: either(color("offColor"), inState("offButtonState", "textColor", true)),
	onBackColor: either(color("onBackgroundColor"), inState("onButtonState", "backgroundColor", true)),
	offBackColor: either(color("offBackgroundColor"), inState("offButtonState", "backgroundColor", true)),
	labels: listed("labels"),
	valueFormatting: text("valueFormatting"),
	isOnPlay: flag("isOnPlay"),
	maximumFractionDigits: number("maximumFractionDigits"),
	opacity: number("opacity"),
	scale: number("scale"),
	rotation: number("rotation"),
	urls: listed("urls"),
	url: (w, value) => {
		if (w.type !== "IMAGE") {
			w.url = value;
			return;
		}
		const [index, url] = [value.slice(0, value.indexOf("\0")), value.slice(value.indexOf("\0") + 1)];
		if (w.urls?.[index - 1] !== undefined) w.urls = w.urls.map((old, i) => (i === index - 1 ? url : old));
	},
	hint: text("hint"),
	enabled: flag("isEnabled"),
	isEnabled: flag("isEnabled"),
	isDisabled: (w, v) => {
		w.isEnabled = !/^(true|1)$/i.test(v);
	},
};

export class Emitter {
	#listeners = new Map();

	on(event, listener) {
		if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
		this.#listeners.get(event).add(listener);
		return () => this.#listeners.get(event)?.delete(listener);
	}

	emit(event, ...args) {
		for (const listener of [...(this.#listeners.get(event) || [])]) listener(...args);
	}
}

/** One widget at work: its document, the device it stands for, its state and the views that show it. */
class Instance {
	constructor(project, widget, device, tiles) {
		Object.assign(this, { project, widget, tileDevice: device, tiles, views: new Set() });
		this.type = project.model.types[widget.type];
		this.refresh();
	}

	/** What a write is addressed to: a device, a tag or a selector. */
	get target() {
		return this.tileDevice ?? (this.widget.deviceId || 0);
	}

	/** The device whose values are shown. */
	get device() {
		return this.project.shownDevice(this.target);
	}

	/** Effective document and state, anew: after a change of the document or of the selected device. */
	refresh() {
		const { project, widget, device } = this;
		this.w = widget;
		if (this.tileDevice !== undefined || this.target >= SELECTORS_FROM) {
			this.w = { ...widget };
			if (Array.isArray(widget.pins)) this.w.pins = widget.pins.map((stream) => ({ ...stream }));
			for (const stream of streamsOf(this.w))
				stream.value = project.values.get(keyOf(device, letterOf(stream), stream.pin));
			for (const stream of streamsOf(this.w)) {
				for (const [name, value] of project.properties.get(keyOf(device, "v", stream.pin)) || [])
					PROPERTIES[name]?.(this.w, value);
			}
		}
		this.state = { values: streamsOf(this.w).map((stream) => stream.value), lines: [], points: new Map(), text: [] };
		const first = streamsOf(this.w)[0];
		const kept = first && project.lists.get(keyOf(device, letterOf(first), first.pin));
		this.type?.start?.(this, kept);
		this.touch();
	}

	accept(value, index) {
		const stream = streamsOf(this.w)[index];
		if (this.type?.accept) this.type.accept(this, value, index);
		else {
			this.state.values[index] = value;
			if (stream) stream.value = value;
		}
		this.touch();
	}

	touch() {
		for (const view of this.views) view.dirty();
	}
}

export class Project extends Emitter {
	constructor(model, document, stored) {
		super();
		this.model = model;
		this.load(document, stored);
	}

	load(document, stored = {}) {
		this.document = document;
		this.values = new Map();
		this.lists = new Map();
		this.properties = new Map();
		const prefix = `${document.id}-`;
		for (const [key, value] of Object.entries(stored)) {
			if (!key.startsWith(prefix)) continue;
			const [device, pin, property] = key.slice(prefix.length).split("-");
			const short = `${device}-${pin}`;
			if (property) this.#keepProperty(short, property, value);
			else if (typeof value === "string") this.values.set(short, value);
			else if (Array.isArray(value?.values)) {
				this.lists.set(short, value.values);
				this.values.set(short, value.values.at(-1));
			}
		}
		for (const w of this.widgets) {
			for (const stream of streamsOf(w)) {
				if (validPin(stream) && stream.value !== undefined)
					this.values.set(keyOf(w.deviceId || 0, letterOf(stream), stream.pin), stream.value);
			}
			for (const tile of w.tiles || []) {
				if (validPin(tile.pin) && tile.pin.value !== undefined)
					this.values.set(keyOf(tile.deviceId, letterOf(tile.pin), tile.pin.pin), tile.pin.value);
			}
		}
		this.instances = new Map();
		this.changed();
	}

	get id() {
		return this.document.id;
	}
	get name() {
		return this.document.name || "New Project";
	}
	get active() {
		return Boolean(this.document.isActive);
	}
	get widgets() {
		return this.document.widgets || (this.document.widgets = []);
	}
	get devices() {
		return this.document.devices || (this.document.devices = []);
	}
	get tags() {
		return this.document.tags || (this.document.tags = []);
	}

	findWidget(id) {
		return this.widgets.find((w) => w.id === id);
	}
	first(type) {
		return this.widgets.find((w) => w.type === type);
	}
	findDevice(id) {
		return this.devices.find((d) => d.id === id);
	}
	allWidgets() {
		return this.widgets.flatMap((w) => [w, ...(w.templates || []).flatMap((template) => template.widgets || [])]);
	}

	/** The list a widget lives in: the project's, or that of a tile template. */
	container(place) {
		return place?.template ? place.template.widgets || (place.template.widgets = []) : this.widgets;
	}

	/** Widgets, devices or tags changed: drop the routes. */
	changed() {
		this.routes = null;
		for (const instance of this.instances?.values() || [])
			if (!this.#alive(instance)) this.instances.delete(instance.key);
		this.emit("changed");
	}

	#alive(instance) {
		return instance.tiles ? this.widgets.includes(instance.tiles) : this.widgets.includes(instance.widget);
	}

	/** The instance of a widget; `device` for a widget on the page of a tile. */
	instance(widget, device, tiles) {
		const key = device === undefined ? widget : `${tiles.id}/${widget.id}/${device}`;
		let instance = this.instances.get(key);
		if (!instance || instance.widget !== widget) {
			instance = new Instance(this, widget, device, tiles);
			instance.key = key;
			this.instances.set(key, instance);
			this.routes = null;
		}
		return instance;
	}

	selectedDevice(selectorId) {
		const selector = this.findWidget(selectorId);
		return selector ? selector.value || 0 : -1;
	}

	/** The device whose values a target shows: a selector's choice; a tag stands for itself. */
	shownDevice(target) {
		return target >= SELECTORS_FROM ? this.selectedDevice(target) : target;
	}

	/** The devices a write to the target reaches. */
	reached(target) {
		if (target < TAGS_FROM) return [target];
		if (target < SELECTORS_FROM) return this.tags.find((tag) => tag.id === target)?.deviceIds || [];
		return [this.selectedDevice(target)];
	}

	online(target) {
		return this.reached(target).some((id) => this.findDevice(id)?.status === "ONLINE");
	}

	targetName(target) {
		if (target >= SELECTORS_FROM)
			return this.findWidget(target)?.label || this.findDevice(this.selectedDevice(target))?.name || "";
		if (target >= TAGS_FROM) return this.tags.find((tag) => tag.id === target)?.name || "";
		return this.findDevice(target)?.name || "";
	}

	#route() {
		for (const w of this.widgets) this.instance(w);
		const routes = new Map();
		const add = (key, entry) => {
			if (!routes.has(key)) routes.set(key, []);
			routes.get(key).push(entry);
		};
		for (const instance of this.instances.values()) {
			const { widget: w, tileDevice } = instance;
			if (w.type === "WEBHOOK" || !this.#alive(instance)) continue;
			streamsOf(w).forEach((stream, index) => {
				if (validPin(stream)) for (const key of keysOf(instance.device, stream, !w.pins)) add(key, { instance, index });
			});
			for (const tile of w.tiles || []) {
				if (validPin(tile.pin)) for (const key of keysOf(tile.deviceId, tile.pin)) add(key, { instance, tile });
			}
			for (const stream of w.dataStreams || []) {
				const device = tileDevice ?? this.shownDevice(stream.targetId || 0);
				if (validPin(stream.pin)) add(keyOf(device, letterOf(stream.pin), stream.pin.pin), { instance, stream });
			}
		}
		this.routes = routes;
		return routes;
	}

	/** A value of a pin, from wherever. `except`: the instance whose user caused it. `live`: news, not a repetition. */
	value(device, letter, pin, value, { except = null, live = true } = {}) {
		const key = keyOf(device, letter, pin);
		this.values.set(key, value);
		const routes = this.routes || this.#route();
		for (const { instance, index, tile, stream } of routes.get(key) || []) {
			if (stream) {
				if (live) instance.type?.sample?.(instance, stream, value);
			} else if (tile) {
				tile.pin.value = value;
				instance.touch();
			} else if (instance !== except) instance.accept(value, index);
		}
		this.emit("value", device, letter, pin, value);
	}

	/** Several remembered values of one pin, oldest first (terminal lines, table rows). */
	list(device, letter, pin, values) {
		const key = keyOf(device, letter, pin);
		this.lists.set(key, values);
		for (const { instance, index } of (this.routes || this.#route()).get(key) || []) {
			if (index === undefined) continue;
			instance.type?.list?.(instance, values);
			instance.touch();
		}
	}

	#keepProperty(key, name, value) {
		if (!this.properties.has(key)) this.properties.set(key, new Map());
		this.properties.get(key).set(name, value);
	}

	property(device, pin, name, value) {
		const key = keyOf(device, "v", pin);
		this.#keepProperty(key, name, value);
		for (const { instance, index } of (this.routes || this.#route()).get(key) || []) {
			if (index === undefined) continue;
			PROPERTIES[name]?.(instance.w, value);
			instance.type?.property?.(instance, name, value);
			instance.touch();
		}
	}

	select(selectorId, device) {
		const selector = this.findWidget(selectorId);
		if (!selector) return;
		selector.value = device;
		this.routes = null;
		for (const instance of this.instances.values()) {
			if (instance.target === selectorId || instance.widget === selector) instance.refresh();
			else if (instance.widget.dataStreams?.some((stream) => stream.targetId === selectorId)) {
				instance.type?.start?.(instance);
				instance.touch();
			}
		}
		this.emit("changed-selection");
	}

	status(deviceId, online, now = Date.now()) {
		const device = this.findDevice(deviceId);
		if (!device) return;
		device.status = online ? "ONLINE" : "OFFLINE";
		device[online ? "connectTime" : "disconnectTime"] = now;
		for (const instance of this.instances.values()) instance.touch();
		this.emit("status", device);
	}

	/** Write a pin of a widget: to the server and to the other widgets on the same pin. false: not connected. */
	write(instance, value, index = 0) {
		const stream = streamsOf(instance.w)[index];
		if (!validPin(stream)) return false;
		const body = String(value);
		const letter = stream.pwmMode && !OWN_LETTER.has(instance.w.type) ? "a" : letterOf(stream);
		instance.accept(body, index);
		for (const device of new Set([...this.reached(instance.target), instance.target])) {
			if (device < SELECTORS_FROM)
				this.value(device, letterOf(stream), stream.pin, body, { except: instance, live: false });
		}
		return this.model.write(this, instance.target, letter, stream.pin, body);
	}
}

/** All projects of the account, and the frames that change them. */
export class Model extends Emitter {
	constructor(types = {}) {
		super();
		this.types = types;
		this.projects = new Map();
		this.link = null;
		this.skip = null; // the repetition of a list's last value that follows it in a sync
	}

	loadProfile(profile) {
		const seen = new Set();
		for (const document of profile.dashBoards || []) {
			seen.add(document.id);
			this.loadProject(document, profile.pinsStorage);
		}
		for (const id of [...this.projects.keys()]) if (!seen.has(id)) this.projects.delete(id);
		this.emit("projects");
	}

	loadProject(document, stored) {
		const project = this.projects.get(document.id);
		if (project) project.load(document, stored);
		else this.projects.set(document.id, new Project(this, document, stored));
		return this.projects.get(document.id);
	}

	write(project, target, letter, pin, value) {
		const id = this.link?.send(Command.HARDWARE, `${project.id}-${target}`, `${letter}w`, pin, value) || 0;
		if (id) this.lastWrites.set(id, { project, target });
		if (this.lastWrites.size > 200) this.lastWrites.delete(this.lastWrites.keys().next().value);
		return Boolean(id);
	}

	lastWrites = new Map();

	/** A frame that the server pushed. */
	frame(frame) {
		const handler = PUSHED[frame.command];
		if (!handler) return;
		const parts = (frame.text ?? "").split("\0");
		const [dash, device] = split(parts[0]);
		const project = this.projects.get(dash);
		handler(this, project, device, parts, frame);
	}
}

function split(text) {
	const at = text.indexOf("-", 1);
	return at < 0 ? [Number(text), 0] : [Number(text.slice(0, at)), Number(text.slice(at + 1))];
}

function pushedValue(model, project, target, parts, frame) {
	if (!project || parts.length < 3) return;
	const [, kind, pinText, ...rest] = parts;
	const letter = kind[0]?.toLowerCase(),
		operation = kind[1];
	if (operation === "u") return project.select(Number(pinText), Number(rest[0]));
	const pin = Number(pinText);
	const repeated = frame.id === 1111;
	if (operation === "m") {
		model.skip = `${project.id}-${target}-${letter}${pin}`;
		return project.list(target, letter, pin, rest);
	}
	if (operation !== "w") return;
	const value = rest.join("\0");
	const skip = repeated && model.skip === `${project.id}-${target}-${letter}${pin}`;
	model.skip = null;
	if (skip) return project.values.set(keyOf(target, letter, pin), value);
	for (const device of new Set([...project.reached(target), target])) {
		if (device < SELECTORS_FROM)
			project.value(device, letter, pin, value, { live: frame.command === Command.HARDWARE });
	}
}

function pushedNotification(model, project, device, parts) {
	const from = parts.length > 1 ? project : undefined; // "dash-device\0text" or the text alone
	const message = parts.slice(from ? 1 : 0).join("\n");
	if (message) model.emit("notification", message, from, from?.findDevice(device));
}

// Command -> what a pushed frame of it does.
const PUSHED = {
	[Command.HARDWARE]: pushedValue,
	[Command.APP_SYNC]: pushedValue,
	[Command.SET_WIDGET_PROPERTY]: (model, project, device, [, pin, name, ...value]) =>
		project?.property(device, pin, name, value.join("\0")),
	[Command.HARDWARE_CONNECTED]: (model, project, device) => project?.status(device, true),
	[Command.DEVICE_OFFLINE]: (model, project, device) => project?.status(device, false),
	[Command.ACTIVATE]: (model, project) => activity(model, project ? [project] : [], true),
	[Command.DEACTIVATE]: (model, project) => activity(model, project ? [project] : [...model.projects.values()], false),
	[Command.SHARING]: (model, project, device, [, on]) => {
		if (!project) return;
		project.document.isShared = on === "on";
		project.emit("sharing");
	},
	[Command.PUSH_NOTIFICATION]: pushedNotification,
};

function activity(model, projects, active) {
	for (const project of projects) {
		project.document.isActive = active;
		project.emit("activity");
	}
}
