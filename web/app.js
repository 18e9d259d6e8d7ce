// The page: routes, the frame around every screen, what is true of the connection, notifications.

import { button, h, icon, iconButton, menu, replace, toast } from "./dom.js";
import { setLanguage, t } from "./i18n.js";
import { explain, reason, session } from "./session.js";
import { Status } from "./protocol.js";

// Route -> [module, function of it, who may see it: "all", "user" or "guest" too].
const ROUTES = [
	["login", "account", "showLogin", "all"],
	["register", "account", "showRegister", "all"],
	["reset", "account", "showReset", "all"],
	["certificate", "account", "showCertificate", "all"],
	["guest/:email/:token", "account", "showGuest", "all"],
	["", "projects", "showProjects", "guest"],
	["account", "account", "showAccount", "user"],
	["notifications", "account", "showNotifications", "user"],
	["project/:id", "projects", "showProject", "guest"],
	["project/:id/edit", "projects", "showEditor", "user"],
	["project/:id/tile/:widget/:device", "projects", "showTilePage", "guest"],
	["project/:id/template/:widget/:template", "projects", "showTemplateEditor", "user"],
	["project/:id/settings", "projects", "showSettings", "user"],
	["project/:id/devices", "devices", "showDevices", "user"],
	["project/:id/device/:device", "devices", "showDevice", "user"],
	["project/:id/tags", "devices", "showTags", "user"],
	["project/:id/share", "devices", "showShare", "user"],
	["project/:id/chart/:widget", "chart", "showChart", "guest"],
	["project/:id/chart/:widget/:device", "chart", "showChart", "guest"],
	["project/:id/rules", "automation", "showRules", "user"],
	["project/:id/reports", "automation", "showReports", "user"],
	["project/:id/notifications", "account", "showNotifications", "user"],
];

function match(path) {
	const parts = path.split("/");
	for (const [pattern, module, name, who] of ROUTES) {
		const wanted = pattern.split("/");
		if (wanted.length !== parts.length) continue;
		const params = {};
		if (wanted.every((w, i) => (w[0] === ":" ? (params[w.slice(1)] = decode(parts[i])) !== "" : w === parts[i])))
			return { module, name, who, params };
	}
	return null;
}

function decode(text) {
	try {
		return decodeURIComponent(text);
	} catch {
		return text;
	}
}

export function go(path, replaceIt = false) {
	const hash = `#/${path}`;
	if (location.hash === hash) return render();
	if (replaceIt) location.replace(hash);
	else location.hash = hash;
}

// The frame.

const app = document.getElementById("app");
const title = h("h1");
const backLink = h("a.icon-button.back", { "aria-label": t("Back"), title: t("Back") }, icon("back"));
const actions = h(".actions");
const status = h(".status-banner", { role: "status", hidden: true });
const main = h("main", { id: "main", tabIndex: -1 });
const bar = h("header.top", null, backLink, title, actions);

/** What a screen gets: its place, and the frame's parts. */
class Screen {
	constructor(params) {
		this.params = params;
		this.main = main;
		this.leavers = [];
		this.open = true;
	}

	/** Title, where "back" leads (null: nowhere), and the elements at the right of the bar. */
	head(text, back, ...elements) {
		title.textContent = text;
		document.title = text === "Blynk" ? "Blynk" : `${text} – Blynk`;
		backLink.hidden = back === null;
		if (back !== null) backLink.href = `#/${back}`;
		replace(actions, elements);
		bar.hidden = false;
	}

	bare() {
		bar.hidden = true;
		document.title = "Blynk";
	}

	/** The whole page in the look of a project, until the screen is left. */
	look(name) {
		document.documentElement.dataset.theme = name;
	}
	show(...children) {
		if (this.open) replace(main, children);
	}
	onleave(leaver) {
		this.leavers.push(leaver);
	}
	listen(emitter, event, listener) {
		this.onleave(emitter.on(event, listener));
	}

	/** The project of the route; without it the list is shown. */
	project() {
		const project = session.model.projects.get(Number(this.params.id));
		if (!project) go("", true);
		return project;
	}
}

let current = null,
	turn = 0;

async function render() {
	const mine = ++turn;
	const path = location.hash.replace(/^#\/?/, "");
	const route = match(path) || match("");
	if (route.who !== "all") {
		if (!session.login) {
			const login = session.remembered();
			if (!login) return go("login", true);
			frame();
			replace(main, h(".loading", null, t("Connecting …")));
			bar.hidden = true;
			start(login);
			return;
		}
		if (!session.ready) return;
		if (session.guest && route.who === "user") return go("", true);
	}
	let module;
	try {
		module = await import(`./screens/${route.module}.js`);
	} catch {
		frame();
		replace(
			main,
			h(
				".empty",
				null,
				h("p", null, t("This part of the page could not be loaded.")),
				button(t("Try again"), () => location.reload()),
			),
		);
		return;
	}
	if (mine !== turn) return;
	for (const leaver of current?.leavers || []) leaver();
	if (current) current.open = false;
	for (const open of document.querySelectorAll("dialog[open]")) open.close();
	current = new Screen(route.params);
	applyTheme();
	frame();
	main.className = route.name.replace("show", "screen-").toLowerCase();
	main.scrollTop = 0;
	scrollTo(0, 0);
	try {
		await module[route.name](current);
	} catch (problem) {
		console.error(problem);
		replace(main, h(".empty", null, t("This screen could not be shown.")));
	}
}

function frame() {
	if (!app.contains(main))
		replace(
			app,
			h(
				"a.skip",
				{
					href: "#main",
					onclick: (event) => {
						event.preventDefault();
						main.focus();
					},
				},
				t("Skip to content"),
			),
			bar,
			status,
			main,
		);
}

function start(login) {
	session.ready = false;
	session
		.start(login)
		.then(() => {
			session.ready = true;
			render();
		})
		.catch(() => {});
}

/** Log in with what a form gave; the promise is rejected when the server refuses. */
export async function enter(login, stay) {
	session.ready = false;
	await session.start(login);
	session.ready = true;
	if (!login.share) session.remember(login, stay);
}

session.on("refused", (code) => {
	const guest = session.guest;
	session.stop();
	session.ready = false;
	if (!guest) {
		if (code === Status.USER_NOT_REGISTERED || code === Status.USER_NOT_AUTHENTICATED) session.forget();
		if (!/^#\/(login|register)/.test(location.hash)) go("login", true);
	} else
		replace(
			main,
			h(
				".empty",
				null,
				icon("lock"),
				h("p", null, t("This link does not work any more, or the owner has switched sharing off.")),
			),
		);
	if (!guest) toast(reason({ code }), { error: true });
});

session.on("loaded", () => {
	if (session.ready) render();
});

// What is true of the connection, said once at the top.
let since = 0;
session.on("state", (state) => {
	const away = state === "lost" || (state === "connecting" && !status.hidden) || (state === "connecting" && since);
	if (state === "lost" && !since) since = Date.now();
	if (state === "online" || state === "idle" || state === "refused") since = 0;
	status.hidden = !away;
	document.body.classList.toggle("lost", Boolean(away));
	if (away) {
		replace(
			status,
			icon("warning"),
			h(
				"span",
				null,
				t(
					"No connection to the server. What you see is from {0}; trying again …",
					new Date(since).toLocaleTimeString(),
				),
			),
			button(t("Try now"), () => session.link?.hurry()),
		);
	}
});
addEventListener("online", () => session.link?.hurry());
document.addEventListener("visibilitychange", () => {
	if (document.visibilityState === "visible") session.link?.hurry();
});

// Notifications of boards and rules: in the page, kept for this visit, and as a system notification where allowed.
session.model.on("notification", (message, project, device) => {
	const from = [project?.name, device?.name].filter(Boolean).join(" · ");
	session.notifications.unshift({ ts: Date.now(), message, from });
	if (session.notifications.length > 100) session.notifications.pop();
	const el = h(
		".toast.notice",
		{ role: "status" },
		icon("bell"),
		h("span", null, from && h("small", null, from), message),
		iconButton("close", t("Close"), () => el.remove()),
	);
	document.getElementById("toasts").append(el);
	setTimeout(() => el.remove(), 15000);
	session.emit("notified");
	if (
		isSecureContext &&
		"Notification" in window &&
		Notification.permission === "granted" &&
		document.visibilityState !== "visible"
	) {
		const options = { body: message, icon: "static/icons/icon-192.png", tag: `${from}${message}` };
		navigator.serviceWorker?.ready.then((worker) => worker.showNotification(from || "Blynk", options)).catch(() => {});
	}
});

/** The menu at the right of most screens. */
export const mainMenu = () => {
	const el = iconButton(
		"user",
		t("Menu"),
		() =>
			menu(
				el,
				session.guest
					? [
							[
								"logout",
								t("Leave"),
								() => {
									session.stop();
									session.ready = false;
									go("login");
								},
							],
						]
					: [
							["user", t("Account and energy"), () => go("account")],
							["bell", t("Notifications"), () => go("notifications")],
							location.protocol === "http:" && ["lock", t("Trust this server (https)"), () => go("certificate")],
							[
								"logout",
								t("Log out"),
								() => {
									session.logOut();
									session.ready = false;
									go("login");
								},
							],
						],
			),
		{ "aria-haspopup": "menu", "aria-expanded": "false" },
	);
	return el;
};

/** The user's look: chosen under Account, else the system's. */
export function isDark() {
	const choice = localStorage.getItem("blynk-pi-theme") || "auto";
	return choice === "dark" || (choice === "auto" && !matchMedia("(prefers-color-scheme: light)").matches);
}

export function applyTheme() {
	document.documentElement.dataset.theme = isDark() ? "dark" : "light";
	document.querySelector('meta[name="theme-color"]').content = isDark() ? "#12181b" : "#f3f6f7";
}

addEventListener("hashchange", render);
addEventListener("unhandledrejection", (event) => {
	try {
		explain(event.reason);
		event.preventDefault();
	} catch {
		/* not a refusal: the console has it */
	}
});
matchMedia("(prefers-color-scheme: light)").addEventListener("change", applyTheme);
if (isSecureContext && "serviceWorker" in navigator)
	navigator.serviceWorker.register("static/sw.js", { scope: "./" }).catch(() => {});
applyTheme();
setLanguage().then(render);
