// Widgets on the screen: the view of one, and the grid they stand on.

// One widget. The model marks views dirty as often as it likes; each is drawn once per animation frame.

import { go } from "./app.js";
import { h, icon, toast } from "./dom.js";
import { cssColor, readable } from "./format.js";
import { t } from "./i18n.js";
import { arrange } from "./layout.js";
import { Refusal } from "./protocol.js";
import { explain, session } from "./session.js";

const waiting = new Set();
let frame = 0;

function flush() {
	frame = 0;
	for (const view of waiting) {
		waiting.delete(view);
		try {
			view.update();
		} catch (problem) {
			view.fail(problem);
		}
	}
}

const WRITE_PAUSE = 100; // ms between two values of one control; the server allows 100 messages a second in all

class View {
	constructor(instance, env) {
		this.instance = instance;
		this.env = env;
		this.type = instance.type;
		this.cleanups = [];
		this.onupdate = null;
		this.title = h("span.label");
		this.mark = h(
			"span.offline",
			{ hidden: true, title: t("offline") },
			icon("warning"),
			h("span.sr", null, t("offline")),
		);
		this.header = h("header.w-head", null, this.title, this.mark);
		this.body = h(".w-body");
		this.el = h(
			"section.widget",
			{ "data-type": instance.widget.type, "data-id": String(instance.widget.id) },
			this.header,
			this.body,
		);
		instance.views.add(this);
		if (this.type) {
			try {
				this.body.append(this.type.draw(this));
			} catch (problem) {
				this.fail(problem);
			}
		} else this.body.append(h(".unknown", null, icon("widget"), h("span", null, String(instance.widget.type))));
		this.update();
	}

	get w() {
		return this.instance.w;
	}
	get state() {
		return this.instance.state;
	}
	get name() {
		return this.w.label || (this.type ? t(this.type.name) : String(this.instance.widget.type));
	}
	get enabled() {
		return this.w.isEnabled !== false;
	}

	dirty() {
		waiting.add(this);
		if (!frame) frame = requestAnimationFrame(flush);
	}

	update() {
		const { w, type } = this;
		this.el.setAttribute("aria-label", this.name);
		this.el.setAttribute("role", "group");
		this.title.textContent = w.label || (type && !type.quiet ? t(type.name) : "");
		this.title.classList.toggle("unnamed", !w.label);
		this.header.hidden = type?.bare || (!this.title.textContent && !this.bound);
		const color = w.isDefaultColor ? "" : cssColor(w.color);
		if (color !== this.color) {
			this.color = color;
			if (color) {
				this.el.style.setProperty("--accent", color);
				this.el.style.setProperty("--on-accent", readable(color));
			} else for (const name of ["--accent", "--on-accent"]) this.el.style.removeProperty(name);
		}
		const away = !this.env.editing && this.bound && !this.env.project.online(this.instance.target);
		this.mark.hidden = !away;
		this.el.classList.toggle("away", away);
		if (!this.enabled !== this.wasDisabled) {
			this.wasDisabled = !this.enabled;
			if (!this.env.editing) this.body.inert = this.wasDisabled;
			this.el.classList.toggle("disabled", this.wasDisabled);
		}
		this.onupdate?.();
	}

	/** Bound to a device: the offline mark makes sense. */
	get bound() {
		const { w } = this;
		return w.type !== "WEBHOOK" && (w.pin >= 0 || (Array.isArray(w.pins) && w.pins.some((stream) => stream.pin >= 0)));
	}

	fail(problem) {
		console.error(problem);
		this.body.replaceChildren(h(".unknown", null, icon("warning"), h("span", null, t("This widget cannot be drawn."))));
		this.onupdate = null;
	}

	/** Send a value now. */
	send(value, index = 0) {
		if (this.env.editing) return;
		if (!this.env.project.active) return this.env.explainPaused();
		if (!this.env.project.write(this.instance, value, index) && this.w.pin !== -1) this.env.explainLost();
	}

	/**
	 * sender(index) -> send(value, last): at most one value each `frequency` ms (100 when it is 0), the newest one wins and
	 * the last one is always sent; with "send on release" only the last.
	 */
	sender(index = 0) {
		let next = 0,
			timer = 0,
			kept = null,
			sent = null;
		this.cleanups.push(() => clearTimeout(timer));
		const go = () => {
			timer = 0;
			next = Date.now() + Math.max(WRITE_PAUSE, Number(this.w.frequency) || 0);
			const value = kept;
			kept = null;
			if (value === null) return;
			sent = value;
			this.send(value, index);
		};
		return (value, last = false) => {
			if (this.w.sendOnReleaseOn && !last) return;
			if (value === sent && kept === null && this.state.values[index] === value) return; // let go where it was
			kept = value;
			const pause = next - Date.now();
			if (pause <= 0) {
				clearTimeout(timer);
				go();
			} else if (!timer) timer = setTimeout(go, pause);
		};
	}

	/** Ask the server; a refusal becomes a message. */
	async request(...args) {
		try {
			return await this.env.link.request(...args);
		} catch (refusal) {
			if (!(refusal instanceof Refusal)) throw refusal;
			this.env.explain(refusal);
			return null;
		}
	}

	remove() {
		this.instance.views.delete(this);
		waiting.delete(this);
		for (const cleanup of this.cleanups) cleanup();
		this.el.remove();
	}
}

// ---------------------------------------------------------------------------------------------------------------
// A grid of widgets: a project's, or that of a tile's page. In play mode it is alive; the editor builds on it.

let told = 0;
function tell(text) {
	if (Date.now() - told < 3000) return;
	told = Date.now();
	toast(text, { error: true });
}

/** What widgets may use of the page around them. */
export function environment(project, { editing = false, device, board } = {}) {
	return {
		project,
		editing,
		device,
		guest: session.guest,
		model: session.model,
		get link() {
			return session.link;
		},
		explain,
		explainPaused: () => tell(t("The project is paused: start it first.")),
		explainLost: () => tell(t("No connection to the server.")),
		tab: () => board.tab,
		showTab: (index) => board.showTab(index),
		open: (what) => {
			if (!editing && !session.guest) go(`project/${project.id}/${what}`);
		},
		openTile: (widget, tile) => {
			if (!editing) go(`project/${project.id}/tile/${widget.id}/${tile.deviceId}`);
		},
		openChart: (widget) => {
			if (!editing) go(`project/${project.id}/chart/${widget.id}${device === undefined ? "" : `/${device}`}`);
		},
	};
}

const openTabs = new Map(); // project or template -> the tab last shown, for this visit

export class Board {
	constructor(project, { place = null, device, editing = false } = {}) {
		Object.assign(this, { project, place, device, editing, views: new Map() });
		this.env = environment(project, { editing, device, board: this });
		this.tabKey = `${project.id}/${place?.template?.id ?? ""}`;
		this.tab = openTabs.get(this.tabKey) || 0;
		this.grid = h(".grid");
		this.el = h(".board", { "data-theme": theme(project) }, this.grid);
		this.draw();
	}

	get widgets() {
		return this.project.container(this.place);
	}
	get tabs() {
		return this.widgets.find((w) => w.type === "TABS");
	}

	/** The widgets on the tab that is shown; Tabs itself is on all. */
	visible() {
		const { tabs } = this;
		if (!tabs) return this.widgets;
		if (this.tab >= (tabs.tabs?.length || 1)) this.tab = 0;
		return this.widgets.filter((w) => w.type === "TABS" || w.tabId === -1 || (w.tabId || 0) === this.tab);
	}

	showTab(index) {
		this.tab = index;
		openTabs.set(this.tabKey, index);
		this.draw();
		this.onchange?.();
	}

	draw() {
		this.el.dataset.theme = theme(this.project);
		this.el.classList.toggle("solid", Boolean(this.project.document.widgetBackgroundOn));
		const { columns, places } = arrange(this.visible());
		this.columns = columns;
		this.places = places;
		this.grid.style.setProperty("--columns", String(columns));
		const kept = new Map();
		for (const place of places) {
			const instance = this.project.instance(place.widget, this.device, this.place?.tiles);
			let view = this.views.get(place.widget);
			if (!view || view.instance !== instance) {
				view?.remove();
				view = new View(instance, this.env);
				this.ondraw?.(view);
			} else view.update();
			kept.set(place.widget, view);
			this.put(view, place);
		}
		for (const [widget, view] of this.views) if (!kept.has(widget)) view.remove();
		this.views = kept;
		const order = [...places].sort((a, b) => a.y - b.y || a.x - b.x).map((place) => kept.get(place.widget).el);
		order.forEach((el, i) => {
			if (this.grid.children[i] !== el) this.grid.insertBefore(el, this.grid.children[i] || null);
		});
		this.rows = Math.max(0, ...places.map((place) => place.y + place.height));
		this.grid.style.setProperty("--rows", String(this.rows));
	}

	put(view, place) {
		view.el.style.gridColumn = `${place.x + 1} / span ${place.width}`;
		view.el.style.gridRow = `${place.y + 1} / span ${place.height}`;
		view.el.dataset.rows = String(Math.min(3, place.height));
		view.el.dataset.columns = String(Math.min(3, place.width));
		view.place = place;
	}

	remove() {
		for (const view of this.views.values()) view.remove();
		this.views.clear();
	}
}

export const theme = (project) => (["BlynkLight", "AppTheme"].includes(project.document.theme) ? "light" : "dark");
