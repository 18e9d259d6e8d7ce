// Edit mode: the widget box, moving and resizing on whole cells with mouse, finger and keys, undo, the settings sheet.

import { go } from "./app.js";
import { Board, theme } from "./board.js";
import { button, h, icon, iconButton, replace, toast } from "./dom.js";
import { t } from "./i18n.js";
import { cells, firstFree, fits } from "./layout.js";
import { streamsOf } from "./model.js";
import {
	createWidget,
	deleteWidget,
	explain,
	refreshWidget,
	session,
	setActive,
	updateWidget,
	widgetId,
} from "./session.js";
import { GROUPS, WIDGETS, newWidget } from "./widgets.js";
import { openSheet } from "./sheet.js";

const FAR = 6,
	LONG_PRESS = 280; // pixels that make a drag; ms that a finger rests before it drags

export class Editor {
	constructor(screen, project, place) {
		Object.assign(this, { screen, project, place, undone: [], done: [], selected: null, changed: false });
	}

	open() {
		const { screen, project, place } = this;
		this.undoButton = iconButton("undo", t("Undo"), () => this.undo());
		this.redoButton = iconButton("redo", t("Redo"), () => this.redo());
		const add = iconButton("plus", t("Add a widget"), () => this.toggleBox(), { class: "add-button" });
		const back = place ? `project/${project.id}/edit` : `project/${project.id}`;
		screen.head(
			place ? place.template.name || t("Template") : project.name,
			back,
			this.undoButton,
			this.redoButton,
			add,
			button([icon("check"), h("span", null, t("Done"))], () => go(back), { class: "primary" }),
		);
		screen.look(theme(project));
		this.say = h(".sr", { "aria-live": "assertive" });
		this.ghost = h(".ghost", { hidden: true });
		this.board = new Board(project, { place, editing: true });
		this.board.el.classList.add("editing");
		this.board.grid.append(this.ghost);
		this.board.ondraw = (view) => this.prepare(view);
		this.board.onchange = () => this.afterDraw();
		for (const view of this.board.views.values()) this.prepare(view);
		this.afterDraw();
		this.box = this.widgetBox();
		screen.listen(project, "changed", () => {
			this.board.draw();
			this.afterDraw();
		});
		const keys = (event) => this.shortcut(event);
		document.addEventListener("keydown", keys);
		screen.onleave(() => {
			document.removeEventListener("keydown", keys);
			this.board.remove();
			// The server tells boards their pin modes when a project is activated.
			if (this.changed && project.active && session.online) setActive(project, true).catch(() => {});
		});
		this.hint = h(
			"p.hint.editor-hint",
			null,
			t("Tap + and choose a widget. Drag to move, drag the corner to resize, click for the settings."),
		);
		screen.show(h(".editor", null, this.box, h(".editor-main", null, this.board.el, this.hint), this.say));
		this.buttons();
	}

	// The widget box.

	widgetBox() {
		const list = h(".box-list");
		const search = h("input", { type: "search", placeholder: t("Search widgets"), "aria-label": t("Search widgets") });
		const draw = () => {
			const wanted = search.value.trim().toLowerCase();
			replace(
				list,
				GROUPS.map((group) => {
					const found = Object.entries(WIDGETS).filter(
						([type, row]) =>
							row.group === group &&
							(!wanted ||
								t(row.name).toLowerCase().includes(wanted) ||
								type.toLowerCase().replace(/_/g, " ").includes(wanted)),
					);
					return (
						found.length > 0 &&
						h(
							"section",
							null,
							h("h3", null, t(group)),
							found.map(([type, row]) => this.boxItem(type, row)),
						)
					);
				}),
			);
			if (!list.children.length) list.append(h("p.hint", null, t("Nothing found.")));
		};
		search.addEventListener("input", draw);
		search.addEventListener("keydown", (event) => {
			if (event.key === "Enter") list.querySelector("button")?.click();
		});
		draw();
		this.search = search;
		return h(
			"aside.widget-box",
			{ "aria-label": t("Widget box") },
			h(
				"header",
				null,
				search,
				iconButton("close", t("Close"), () => this.toggleBox(false), { class: "box-close" }),
			),
			list,
		);
	}

	boxItem(type, row) {
		const el = h(
			"button.box-item",
			{ type: "button", "data-type": type },
			icon(row.icon),
			h("span", null, t(row.name)),
			row.price > 0 && h("small", { title: t("energy") }, String(row.price)),
		);
		el.addEventListener("click", () => {
			if (!el.dragged) this.add(type);
			el.dragged = false;
		});
		el.addEventListener("pointerdown", (event) => {
			if (event.pointerType === "touch" || event.button) return;
			this.follow(event, {
				start: () => {
					el.dragged = true;
					this.ghost.hidden = false;
				},
				move: (e) => this.hover(type, e),
				end: (ok) => {
					const place = this.ghostPlace;
					this.hideGhost();
					if (ok && place) this.add(type, place);
				},
			});
		});
		return el;
	}

	hover(type, event) {
		const { width, height } = this.size(type);
		const cell = this.cellAt(event, width, height);
		this.showGhost(cell && { ...cell, width, height }, null);
	}

	size(type) {
		const [width, height] = WIDGETS[type].size;
		return { width: Math.min(width, this.board.columns), height };
	}

	toggleBox(open = !this.box.classList.contains("open")) {
		this.box.classList.toggle("open", open);
		if (open) this.search.focus();
	}

	async add(type, at) {
		this.toggleBox(false);
		const { project, place, board } = this;
		if (type === "TABS" && board.tabs) return toast(t("There are tabs already."));
		const { width, height } = this.size(type);
		const spot = at || firstFree(width, height, board.places, board.columns);
		const widget = newWidget(type, widgetId(project, type), {
			x: spot.x,
			y: spot.y,
			width: spot.width,
			height: spot.height,
		});
		if (widget.tabId !== -1 && board.tabs) widget.tabId = board.tab;
		this.choosePin(widget);
		try {
			await createWidget(project, widget, place);
		} catch (refusal) {
			return explain(refusal);
		}
		this.remember({ undo: () => this.drop(widget), redo: () => this.bring(widget) });
		this.settle(widget);
		this.sheet(widget);
	}

	// A widget that has a pin starts on the first virtual pin that no other widget uses.
	choosePin(widget) {
		const first = streamsOf(widget)[0];
		if (!first) {
			if (widget.type === "DEVICE_SELECTOR") widget.deviceIds = this.project.devices.map((d) => d.id);
			return;
		}
		const device = this.project.devices[0]?.id ?? 0;
		if (!this.place) widget.deviceId = device;
		const used = new Set(
			this.project
				.allWidgets()
				.flatMap((w) => streamsOf(w))
				.filter((s) => s.pinType === "VIRTUAL")
				.map((s) => s.pin),
		);
		let pin = 1;
		while (used.has(pin) && pin < 255) pin++;
		Object.assign(first, { pin, pinType: "VIRTUAL" });
		if (widget.type === "LCD") Object.assign(widget.pins[1], { pin: Math.min(255, pin + 1), pinType: "VIRTUAL" });
	}

	// One widget on the grid.

	prepare(view) {
		const { el, instance } = view;
		view.body.inert = true;
		el.tabIndex = 0;
		el.setAttribute("aria-roledescription", t("widget"));
		const handle = h("span.resize", { "aria-hidden": "true" });
		el.append(handle);
		const widget = instance.widget;
		el.addEventListener("pointerdown", (event) => this.press(event, view, event.target === handle));
		el.addEventListener("keydown", (event) => this.key(event, view));
		el.addEventListener("focus", () => this.select(widget));
		el.addEventListener("click", (event) => {
			if (event.detail === 0 && event.target === el) this.sheet(widget);
		});
		el.addEventListener(
			"touchmove",
			(event) => {
				if (this.dragging) event.preventDefault();
			},
			{ passive: false },
		);
	}

	select(widget) {
		this.selected = widget;
		for (const [w, view] of this.board.views) view.el.classList.toggle("selected", w === widget);
	}

	settle(widget) {
		this.select(widget);
		const el = this.board.views.get(widget)?.el;
		el?.focus({ preventScroll: true });
		el?.scrollIntoView({ block: "nearest", behavior: "smooth" });
	}

	press(event, view, resizing) {
		if (event.button) return;
		const widget = view.instance.widget;
		// Tabs stay usable in edit mode: their bar is how one gets to the other tabs.
		if (widget.type === "TABS" && !resizing) {
			const tab =
				document.elementsFromPoint(event.clientX, event.clientY).find((x) => x.getAttribute?.("role") === "tab") ||
				[...view.body.querySelectorAll('[role="tab"]')].find((x) => {
					const r = x.getBoundingClientRect();
					return event.clientX >= r.left && event.clientX < r.right;
				});
			const index = tab ? [...tab.parentNode.children].indexOf(tab) : -1;
			if (index >= 0 && index !== this.board.tab) {
				this.board.showTab(index);
				return;
			}
		}
		const from = { ...view.place };
		const box = view.el.getBoundingClientRect();
		const offset = { x: event.clientX - box.left, y: event.clientY - box.top };
		const touch = event.pointerType === "touch";
		const wasSelected = this.selected === widget;
		this.follow(event, {
			wait: touch && !wasSelected && !resizing,
			start: () => {
				this.dragging = true;
				this.select(widget);
				view.el.classList.add("dragged");
				navigator.vibrate?.(10);
			},
			move: (e) => (resizing ? this.resizeTo(view, from, e) : this.moveTo(view, from, offset, e)),
			end: (ok) => {
				this.dragging = false;
				view.el.classList.remove("dragged");
				view.el.style.transform = "";
				const place = this.ghostPlace;
				this.hideGhost();
				if (ok && place) this.change(widget, place);
			},
			click: () => {
				this.select(widget);
				this.sheet(widget);
			},
		});
	}

	// Follow a pointer until it is let go. With `wait` it has to rest first, so that a finger can scroll the page.
	follow(event, { wait, start, move, end, click }) {
		const origin = event;
		let state = "pressed",
			timer = 0;
		const begin = () => {
			state = "dragging";
			start?.();
			move(origin);
		};
		if (wait) timer = setTimeout(begin, LONG_PRESS);
		const onMove = (e) => {
			if (e.pointerId !== origin.pointerId) return;
			const far = Math.hypot(e.clientX - origin.clientX, e.clientY - origin.clientY) > FAR;
			if (state === "pressed" && far) {
				if (wait) return finish(e, true);
				begin();
			}
			if (state === "dragging") {
				e.preventDefault();
				move(e);
				this.scrollAlong(e);
			}
		};
		const finish = (e, cancelled) => {
			clearTimeout(timer);
			for (const [name, listener] of listeners) document.removeEventListener(name, listener);
			if (state === "dragging") end(!cancelled);
			else if (!cancelled) click?.();
			state = "over";
		};
		const listeners = [
			["pointermove", onMove],
			["pointerup", (e) => finish(e, false)],
			["pointercancel", (e) => finish(e, true)],
			[
				"keydown",
				(e) => {
					if (e.key === "Escape") finish(e, true);
				},
			],
		];
		for (const [name, listener] of listeners) document.addEventListener(name, listener);
	}

	scrollAlong(event) {
		if (event.clientY < 70) scrollBy(0, -12);
		else if (event.clientY > innerHeight - 50) scrollBy(0, 12);
	}

	cellAt(event, width, height, offset = { x: 0, y: 0 }) {
		const box = this.board.grid.getBoundingClientRect();
		const size = box.width / this.board.columns;
		const x = Math.round((event.clientX - offset.x - box.left) / size),
			y = Math.round((event.clientY - offset.y - box.top) / size);
		if (event.clientX < box.left - size || event.clientX > box.right + size) return null;
		return { x: Math.max(0, Math.min(this.board.columns - width, x)), y: Math.max(0, y) };
	}

	moveTo(view, from, offset, event) {
		const cell = this.cellAt(event, from.width, from.height, offset) || { x: from.x, y: from.y };
		this.showGhost({ ...cell, width: from.width, height: from.height }, view.instance.widget);
		const box = this.board.grid.getBoundingClientRect();
		const size = box.width / this.board.columns;
		view.el.style.transform = `translate(${event.clientX - offset.x - box.left - from.x * size}px, ${event.clientY - offset.y - box.top - from.y * size}px)`;
	}

	resizeTo(view, from, event) {
		const box = this.board.grid.getBoundingClientRect();
		const size = box.width / this.board.columns;
		const width = Math.max(
			1,
			Math.min(this.board.columns - from.x, Math.round((event.clientX - box.left) / size - from.x)),
		);
		const height = Math.max(1, Math.round((event.clientY - box.top) / size - from.y));
		this.showGhost({ x: from.x, y: from.y, width, height }, view.instance.widget);
	}

	// Where it would go; red where something else is: then it stays at the last free place.
	showGhost(place, widget) {
		const others = this.board.places.filter((p) => p.widget !== widget);
		const ok = place && fits(place, others, this.board.columns);
		if (ok) this.ghostPlace = place;
		this.ghost.hidden = !place;
		this.ghost.classList.toggle("blocked", !ok);
		if (!place) {
			this.ghostPlace = null;
			return;
		}
		this.ghost.style.gridColumn = `${place.x + 1} / span ${place.width}`;
		this.ghost.style.gridRow = `${place.y + 1} / span ${place.height}`;
	}

	hideGhost() {
		this.ghost.hidden = true;
		this.ghostPlace = null;
	}

	key(event, view) {
		if (event.target !== view.el) return;
		const widget = view.instance.widget;
		const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
		if (by) {
			const p = view.place;
			const next = event.shiftKey
				? { x: p.x, y: p.y, width: p.width + by[0], height: p.height + by[1] }
				: this.hop(view, by);
			if (
				next &&
				fits(
					next,
					this.board.places.filter((x) => x.widget !== widget),
					this.board.columns,
				)
			)
				this.change(widget, next);
			else this.announce(t("no room there"));
		} else if (event.key === "Enter" || event.key === " ") this.sheet(widget);
		else if (event.key === "Delete" || event.key === "Backspace") this.remove(widget);
		else if (event.key === "d" && (event.ctrlKey || event.metaKey)) this.duplicate(widget);
		else return;
		event.preventDefault();
	}

	// One cell further; over what is in the way, to the next place in that direction that is free.
	hop(view, [dx, dy]) {
		const others = this.board.places.filter((x) => x !== view.place);
		const { x, y, width, height } = view.place;
		for (let n = 1; n <= 40; n++) {
			const next = { x: x + dx * n, y: y + dy * n, width, height };
			if (next.x < 0 || next.y < 0 || next.x + width > this.board.columns) return null;
			if (fits(next, others, this.board.columns)) return next;
		}
		return null;
	}

	announce(text) {
		this.say.textContent = "";
		this.say.textContent = text;
	}

	// Changes, each with its way back.

	async change(widget, { x, y, width, height }) {
		const old = cells(widget);
		if (old.x === x && old.y === y && old.width === width && old.height === height) return;
		await this.apply(widget, { ...widget, x, y, width, height });
		this.announce(
			t(
				"{0}: column {1}, row {2}, {3} wide, {4} high",
				this.board.views.get(widget)?.name || "",
				x + 1,
				y + 1,
				width,
				height,
			),
		);
	}

	/** Replace a widget's document, with undo. */
	async apply(widget, next, remember = true) {
		const before = structuredClone(widget);
		const after = structuredClone(next);
		// Show it at once; the server's refusal takes it back.
		Object.assign(widget, { x: next.x, y: next.y, width: next.width, height: next.height });
		this.board.draw();
		this.afterDraw();
		try {
			await updateWidget(this.project, widget, after);
		} catch (refusal) {
			Object.assign(widget, before);
			this.project.changed();
			explain(refusal);
			return false;
		}
		const gone = widget.type === "TABS" ? this.dropOrphans(widget) : [];
		if (remember)
			this.remember({
				undo: async () => {
					await this.apply(widget, before, false);
					await this.bringAll(gone);
				},
				redo: () => this.apply(widget, after, false),
			});
		this.settle(widget);
		return true;
	}

	// The server deletes the widgets of tabs that are gone.
	dropOrphans(tabs) {
		const list = this.project.container(this.place);
		const last = (tabs.tabs || []).length - 1;
		const gone = list.filter((w) => w.tabId > last);
		for (const w of gone) list.splice(list.indexOf(w), 1);
		this.project.changed();
		return gone;
	}

	/** Delete a widget; returns the widgets that went with it. */
	async drop(widget) {
		await deleteWidget(this.project, widget, this.place);
		if (this.selected === widget) this.selected = null;
		return widget.type === "TABS" ? this.dropOrphans({ tabs: [{}] }) : [];
	}

	async bringAll(widgets) {
		for (const widget of widgets) await createWidget(this.project, widget, this.place);
	}

	async bring(widget) {
		await createWidget(this.project, widget, this.place);
		if (widget.type === "DEVICE_TILES") await refreshWidget(this.project, widget);
		this.settle(widget);
	}

	async remove(widget) {
		let gone;
		try {
			gone = await this.drop(widget);
		} catch (refusal) {
			return explain(refusal);
		}
		const entry = {
			undo: async () => {
				await this.bring(widget);
				await this.bringAll(gone);
			},
			redo: () => this.drop(widget).then(() => true),
		};
		this.remember(entry);
		toast(t("Deleted"), {
			undo: () => {
				if (this.done.at(-1) === entry) this.undo();
			},
		});
	}

	async duplicate(widget) {
		const copy = structuredClone(widget);
		copy.id = widgetId(this.project, widget.type);
		for (const template of copy.templates || []) template.widgets = [];
		Object.assign(copy, firstFree(copy.width, copy.height, this.board.places, this.board.columns));
		try {
			await createWidget(this.project, copy, this.place);
		} catch (refusal) {
			return explain(refusal);
		}
		this.remember({ undo: () => this.drop(copy), redo: () => this.bring(copy) });
		this.settle(copy);
	}

	sheet(widget) {
		openSheet({
			project: this.project,
			widget,
			place: this.place,
			save: (next) => this.apply(widget, next),
			remove: () => this.remove(widget),
			duplicate: () => this.duplicate(widget),
		});
	}

	remember(entry) {
		this.done.push(entry);
		this.undone.length = 0;
		this.changed = true;
		this.buttons();
	}

	async undo() {
		await this.turn(this.done, this.undone, "undo");
	}
	async redo() {
		await this.turn(this.undone, this.done, "redo");
	}

	async turn(from, to, what) {
		const entry = from.pop();
		if (!entry) return;
		this.buttons();
		try {
			if ((await entry[what]()) === false) return;
			to.push(entry);
		} catch (refusal) {
			explain(refusal);
		}
		this.buttons();
	}

	buttons() {
		this.undoButton.disabled = !this.done.length;
		this.redoButton.disabled = !this.undone.length;
	}

	shortcut(event) {
		if (document.querySelector("dialog[open]") || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
		if (!(event.ctrlKey || event.metaKey)) return;
		const key = event.key.toLowerCase();
		if (key === "z" && !event.shiftKey) this.undo();
		else if (key === "y" || (key === "z" && event.shiftKey)) this.redo();
		else return;
		event.preventDefault();
	}

	afterDraw() {
		if (!this.board.grid.contains(this.ghost)) this.board.grid.append(this.ghost);
		for (const [w, view] of this.board.views) view.el.classList.toggle("selected", w === this.selected);
		this.board.grid.style.setProperty("--rows", String(Math.max(8, this.board.rows + 3)));
	}
}
