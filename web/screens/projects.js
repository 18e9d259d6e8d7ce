// The list of projects, the settings of one, and the project itself.

import { go, isDark, mainMenu } from "../app.js";
import { Board, theme } from "../board.js";
import {
	ask,
	button,
	confirm,
	copy,
	dialog,
	field,
	h,
	icon,
	iconButton,
	menu,
	replace,
	select,
	toast,
} from "../dom.js";
import { ago, t } from "../i18n.js";
import { Refusal } from "../protocol.js";
import {
	changeSettings,
	cloneCode,
	cloneProject,
	createProject,
	deleteProject,
	importProject,
	session,
	setActive,
	syncProject,
} from "../session.js";

const THEMES = () => [
	["Blynk", t("Dark")],
	["BlynkLight", t("Light")],
];

// The server keeps projects in the order they were made; another order is this browser's own.
const orderKey = () => `blynk-pi-order-${session.email}`;
function order() {
	try {
		return JSON.parse(localStorage.getItem(orderKey())) || [];
	} catch {
		return [];
	}
}

function sortedProjects() {
	const wanted = order();
	const at = (project) => {
		const i = wanted.indexOf(project.id);
		return i < 0 ? Infinity : i;
	};
	return [...session.model.projects.values()].sort((a, b) => at(a) - at(b) || 0);
}

function move(project, by) {
	const ids = sortedProjects().map((p) => p.id);
	const from = ids.indexOf(project.id);
	if (from + by < 0 || from + by >= ids.length) return;
	ids.splice(from + by, 0, ...ids.splice(from, 1));
	localStorage.setItem(orderKey(), JSON.stringify(ids));
	session.model.emit("projects");
}

export function showProjects(screen) {
	screen.head(t("Projects"), null, !session.guest && iconButton("plus", t("New project"), newProject), mainMenu());
	const list = h(".project-list");
	const draw = () => {
		const all = sortedProjects();
		if (!all.length) {
			return replace(
				list,
				h(
					".empty",
					null,
					icon("logo"),
					h("h2", null, t("Welcome!")),
					h("p", null, t("A project is a screen of widgets with the devices behind them. Make your first one.")),
					button(t("New project"), newProject, { class: "primary" }),
				),
			);
		}
		replace(
			list,
			all.map(projectCard),
			!session.guest &&
				h(
					".row.center",
					null,
					button([icon("download"), t("Copy a project with a code")], importDialog, { class: "plain" }),
				),
		);
	};
	screen.listen(session.model, "projects", draw);
	for (const project of session.model.projects.values()) screen.listen(project, "status", draw);
	draw();
	screen.show(list);
}

function projectCard(project) {
	const online = project.devices.filter((device) => device.status === "ONLINE").length;
	const more = iconButton(
		"more",
		t("More"),
		() =>
			menu(more, [
				["gear", t("Settings"), () => go(`project/${project.id}/settings`)],
				["edit", t("Edit"), () => go(`project/${project.id}/edit`)],
				["up", t("Move up"), () => move(project, -1)],
				["down", t("Move down"), () => move(project, 1)],
				[
					"copy",
					t("Duplicate"),
					async () => {
						await cloneProject(project, t("{0} (copy)", project.name));
						toast(t("Duplicated"));
					},
				],
				["trash", t("Delete"), () => removeProject(project), true],
			]),
		{ "aria-haspopup": "menu", "aria-expanded": "false" },
	);
	return h(
		"article.project-card",
		null,
		h(
			"a",
			{ href: `#/project/${project.id}` },
			h("span.thumb", { "aria-hidden": "true" }, thumbnail(project)),
			h(
				"span.project-text",
				null,
				h("strong", null, project.name),
				h(
					"small",
					null,
					project.devices.length ? t("{0}/{1} online", online, project.devices.length) : t("no device yet"),
					" · ",
					t("widgets: {0}", project.widgets.length),
				),
			),
			h(
				"span.badges",
				null,
				!project.active && h("span.badge", null, t("paused")),
				project.document.isShared && h("span.badge", null, t("shared")),
			),
		),
		!session.guest && more,
	);
}

// A small picture of where the widgets are.
function thumbnail(project) {
	const boxes = project.widgets
		.filter((w) => (w.tabId || 0) <= 0)
		.slice(0, 40)
		.map((w) => {
			const el = h("i");
			el.style.gridColumn = `${Math.min(8, (w.x | 0) + 1)} / span ${Math.max(1, Math.min(8, w.width | 0))}`;
			el.style.gridRow = `${(w.y | 0) + 1} / span ${Math.max(1, w.height | 0)}`;
			return (w.y | 0) < 9 && el;
		});
	return h("span.thumb-grid", null, boxes);
}

async function newProject() {
	const { BOARDS, CONNECTIONS } = await import("./devices.js");
	const chosen = await ask(
		t("New project"),
		[
			{ name: "name", label: t("Name"), value: "", required: true, max: 100 },
			{ name: "board", label: t("Your device"), options: BOARDS.map((b) => [b, b]), value: "ESP8266" },
			{ name: "connection", label: t("Connected by"), options: CONNECTIONS(), value: "WI_FI" },
			{ name: "theme", label: t("Look"), options: THEMES(), value: isDark() ? "Blynk" : "BlynkLight" },
		],
		t("Create"),
	);
	if (!chosen) return;
	const project = await createProject(chosen);
	go(`project/${project.id}/edit`);
	toast(t("Drag widgets from the box onto the grid. The token for your device is under Devices."), { ms: 9000 });
}

async function importDialog() {
	const chosen = await ask(
		t("Copy a project with a code"),
		[
			{
				name: "code",
				label: t("Code"),
				value: "",
				required: true,
				help: t("Whoever has the project finds its code in the settings of the project."),
			},
		],
		t("Copy"),
	);
	if (!chosen) return;
	const code = (/clone\/([\w-]{32})/.exec(chosen.code) || [null, chosen.code.trim()])[1];
	const project = await importProject(code);
	go(`project/${project.id}`);
}

async function removeProject(project) {
	if (
		!(await confirm(
			t("Delete “{0}”?", project.name),
			t("Its widgets, devices and their history are gone for good."),
			t("Delete"),
		))
	)
		return;
	await deleteProject(project);
	go("", true);
}

export function showSettings(screen) {
	const project = screen.project();
	if (!project) return;
	screen.head(t("Settings"), `project/${project.id}`, mainMenu());
	const doc = project.document;
	const name = h("input", { value: doc.name || "", maxLength: 100, required: true });
	const theme = select(
		THEMES().some(([key]) => key === doc.theme) ? THEMES() : [...THEMES(), [doc.theme, doc.theme]],
		doc.theme || "Blynk",
	);
	const flags = [
		["keepScreenOn", t("Keep the screen on")],
		["isAppConnectedOn", t("Tell devices when an app comes and goes")],
		["isNotificationsOff", t("Do not tell me when devices go offline")],
		["widgetBackgroundOn", t("Stronger widget background")],
	];
	const boxes = flags.map(([key]) => h("input", { type: "checkbox", checked: Boolean(doc[key]) }));
	const form = h(
		"form.card",
		{
			async onsubmit(event) {
				event.preventDefault();
				await changeSettings(project, {
					name: name.value,
					theme: theme.value,
					...Object.fromEntries(flags.map(([key], i) => [key, boxes[i].checked])),
				});
				toast(t("Saved"));
				go(`project/${project.id}`);
			},
		},
		field(t("Name"), name),
		field(t("Look"), theme),
		flags.map(([, label], i) => field(label, boxes[i])),
		h(".row.end", null, h("button.primary", { type: "submit" }, t("Save"))),
	);
	const toggle = button("", async () => {
		await setActive(project, !project.active);
		say();
	});
	const say = () => {
		toggle.textContent = project.active ? t("Pause the project") : t("Start the project");
	};
	say();
	screen.listen(project, "activity", say);
	screen.show(
		form,
		h(
			".card",
			null,
			h("h2", null, t("Running")),
			h("p", null, t("A paused project neither forwards values nor runs rules and timers.")),
			toggle,
		),
		h(
			".card",
			null,
			h("h2", null, t("Give it away")),
			h("p", null, t("With the code others get a copy of this project, without tokens and values.")),
			button(t("Show the code"), () => showCode(project)),
		),
		h(
			".card",
			null,
			h("h2", null, t("Delete")),
			button(t("Delete the project"), () => removeProject(project), { class: "danger" }),
		),
	);
}

async function showCode(project) {
	const code = await cloneCode(project);
	const { qrPicture } = await import("./devices.js");
	dialog(t("Code of this project"), () =>
		h(
			"div",
			null,
			h("p", null, t("Enter it under Projects, or scan it with the phone app.")),
			qrPicture(`blynk://token/clone/${code}?server=${location.hostname}&port=${location.port || 443}`),
			h("code.token", null, code),
			button([icon("copy"), t("Copy")], () => copy(code)),
		),
	);
}

// ---------------------------------------------------------------------------------------------------------------
// A project in play and in edit mode, the page behind a tile, and the editor of a tile template's page.

/** "● ESP8266 online", leading to the devices. */
function deviceChip(project) {
	const el = session.guest ? h("span.chip") : h("a.chip", { href: `#/project/${project.id}/devices` });
	const draw = () => {
		const { devices } = project;
		const online = devices.filter((device) => device.status === "ONLINE");
		el.classList.toggle("on", online.length > 0);
		const text =
			devices.length === 1
				? online.length
					? t("online")
					: devices[0].connectTime || devices[0].disconnectTime
						? t("offline")
						: t("never connected")
				: `${online.length}/${devices.length}`;
		replace(el, h("span.dot"), h("span", null, text));
		const last = devices.length === 1 && !online.length && devices[0].disconnectTime;
		el.title =
			devices
				.map((device) => `${device.name || t("Device")}: ${device.status === "ONLINE" ? t("online") : t("offline")}`)
				.join("\n") + (last ? ` (${ago(last)})` : "");
		el.setAttribute("aria-label", `${t("Devices")}: ${text}`);
	};
	draw();
	el.draw = draw;
	return el;
}

async function sync(project) {
	if (!session.online) return;
	try {
		await syncProject(project);
	} catch (refusal) {
		if (!(refusal instanceof Refusal)) throw refusal;
	}
}

function keepAwake(screen, project) {
	if (!project.document.keepScreenOn || !navigator.wakeLock) return;
	let lock = null;
	navigator.wakeLock
		.request("screen")
		.then((x) => {
			lock = x;
			if (!screen.open) x.release();
		})
		.catch(() => {});
	screen.onleave(() => lock?.release());
}

export async function showProject(screen) {
	const project = screen.project();
	if (!project) return;
	const chip = deviceChip(project);
	const more = iconButton(
		"more",
		t("More"),
		() =>
			menu(more, [
				["edit", t("Edit"), () => go(`project/${project.id}/edit`)],
				["chip", t("Devices"), () => go(`project/${project.id}/devices`)],
				["tag", t("Tags"), () => go(`project/${project.id}/tags`)],
				["rule", t("Rules and timers"), () => go(`project/${project.id}/rules`)],
				["report", t("Reports"), () => go(`project/${project.id}/reports`)],
				["bell", t("Notifications"), () => go(`project/${project.id}/notifications`)],
				["share", t("Share"), () => go(`project/${project.id}/share`)],
				["gear", t("Settings"), () => go(`project/${project.id}/settings`)],
			]),
		{ "aria-haspopup": "menu", "aria-expanded": "false" },
	);
	screen.head(
		project.name,
		session.guest && session.model.projects.size < 2 ? null : "",
		chip,
		!session.guest &&
			h(
				"a.icon-button",
				{ href: `#/project/${project.id}/edit`, "aria-label": t("Edit"), title: t("Edit") },
				icon("edit"),
			),
		session.guest ? mainMenu() : more,
	);
	screen.look(theme(project));
	const board = new Board(project);
	const paused = h(".note", { hidden: true });
	const firstSteps = h(".note", { hidden: true });
	const sayState = () => {
		chip.draw();
		paused.hidden = project.active;
		replace(
			paused,
			icon("pausebox"),
			h("span", null, t("This project is paused: values are not passed on, rules and timers rest.")),
			!session.guest &&
				button(
					t("Start"),
					async () => {
						await setActive(project, true);
					},
					{ class: "primary" },
				),
		);
		const fresh =
			!session.guest &&
			project.devices.length &&
			project.devices.every((device) => !device.connectTime && !device.firstConnectTime && device.status !== "ONLINE");
		firstSteps.hidden = !fresh || !project.active;
		if (fresh)
			replace(
				firstSteps,
				icon("chip"),
				h("span", null, t("Your device has not connected yet. It needs its token and a few lines.")),
				button(t("Show me"), () => go(`project/${project.id}/device/${project.devices[0].id}`), { class: "primary" }),
			);
	};
	sayState();
	screen.listen(project, "changed", () => {
		screen.head(project.name, session.guest ? null : "", ...document.querySelector(".top .actions").children);
		board.draw();
		sayState();
	});
	screen.listen(project, "activity", sayState);
	screen.listen(project, "status", sayState);
	screen.listen(project, "changed-selection", () => board.draw());
	screen.onleave(() => board.remove());
	keepAwake(screen, project);
	const empty =
		!project.widgets.length &&
		h(
			".empty",
			null,
			icon("widget"),
			h("p", null, t("There is no widget here yet.")),
			!session.guest && button(t("Add widgets"), () => go(`project/${project.id}/edit`), { class: "primary" }),
		);
	screen.show(paused, firstSteps, empty || board.el);
	refreshWhenBack(screen, project);
	await sync(project);
}

// Another app may have changed the project meanwhile; the server does not tell, so look again after a longer absence.
function refreshWhenBack(screen, project) {
	let left = 0;
	const listener = async () => {
		if (document.visibilityState === "hidden") left = Date.now();
		else if (left && Date.now() - left > 20000 && session.online) {
			await session.reload(project).catch(() => {});
			await sync(project);
		}
	};
	document.addEventListener("visibilitychange", listener);
	screen.onleave(() => document.removeEventListener("visibilitychange", listener));
}

export async function showEditor(screen) {
	const { Editor } = await import("../editor.js");
	const project = screen.project();
	if (project) new Editor(screen, project, null).open();
}

function tilesOf(screen, project) {
	const tiles = project.widgets.find((w) => String(w.id) === screen.params.widget && w.type === "DEVICE_TILES");
	if (!tiles) go(`project/${project.id}`, true);
	return tiles;
}

export async function showTemplateEditor(screen) {
	const { Editor } = await import("../editor.js");
	const project = screen.project();
	const tiles = project && tilesOf(screen, project);
	const template = tiles?.templates?.find((x) => String(x.id) === screen.params.template);
	if (template) new Editor(screen, project, { tiles, template }).open();
	else if (project) go(`project/${project.id}/edit`, true);
}

export async function showTilePage(screen) {
	const project = screen.project();
	const tiles = project && tilesOf(screen, project);
	if (!tiles) return;
	const device = Number(screen.params.device);
	const tile = tiles.tiles?.find((x) => x.deviceId === device);
	const template = tiles.templates?.find((x) => x.id === tile?.templateId);
	if (!template) return go(`project/${project.id}`, true);
	const name = project.findDevice(device)?.name || template.name || `#${device}`;
	const chip = h("span.chip");
	const say = () => {
		const on = project.online(device);
		chip.classList.toggle("on", on);
		replace(chip, h("span.dot"), h("span", null, on ? t("online") : t("offline")));
	};
	say();
	screen.head(
		name,
		`project/${project.id}`,
		chip,
		!session.guest &&
			h(
				"a.icon-button",
				{
					href: `#/project/${project.id}/template/${tiles.id}/${template.id}`,
					"aria-label": t("Edit"),
					title: t("Edit"),
				},
				icon("edit"),
			),
	);
	screen.look(theme(project));
	const board = new Board(project, { place: { tiles, template }, device });
	screen.listen(project, "changed", () => board.draw());
	screen.listen(project, "status", say);
	screen.onleave(() => board.remove());
	screen.show(
		(template.widgets || []).length
			? board.el
			: h(
					".empty",
					null,
					icon("tiles"),
					h("p", null, t("This page has no widgets yet.")),
					!session.guest &&
						button(t("Add widgets"), () => go(`project/${project.id}/template/${tiles.id}/${template.id}`), {
							class: "primary",
						}),
				),
	);
	await sync(project);
}
