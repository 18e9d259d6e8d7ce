// Who is logged in, the connection and the model: one of each per page. And every change of a project as one function.

import { toast } from "./dom.js";
import { t } from "./i18n.js";
import { freeId } from "./layout.js";
import { Emitter, Model, SELECTORS_FROM, TAGS_FROM } from "./model.js";
import { Command, Connection, Refusal, Status, askOnce, passwordHash } from "./protocol.js";
import { WIDGETS } from "./widgets.js";

const STORE = "blynk-pi";

const socketUrl = () => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/dashws`;

// What a refusal means to a person.
const REASONS = {
	lost: "No connection to the server.",
	timeout: "The server did not answer in time.",
	[Status.QUOTA_LIMIT]: "Too many at once: a limit of the server is reached.",
	[Status.ILLEGAL_COMMAND]: "The server did not accept this.",
	[Status.ILLEGAL_COMMAND_BODY]: "The server did not accept this.",
	[Status.USER_NOT_REGISTERED]: "There is no account with this e-mail address.",
	[Status.USER_ALREADY_REGISTERED]: "There is an account with this e-mail address already.",
	[Status.USER_NOT_AUTHENTICATED]: "The password is wrong.",
	[Status.NOT_ALLOWED]: "Not allowed.",
	[Status.DEVICE_NOT_IN_NETWORK]: "The device is offline.",
	[Status.NOTIFICATION_ERROR]: "The mail could not be sent. Is mail set up on the server?",
	[Status.NO_DATA]: "There is no data yet.",
	[Status.SERVER_ERROR]: "The server could not do this.",
	[Status.ENERGY_LIMIT]: "Not enough energy. You can add some under Account.",
	[Status.FACEBOOK_USER]: "This account has no password.",
};

export const reason = (refusal) => t(REASONS[refusal?.code] || "The server did not accept this.");

export function explain(refusal) {
	if (!(refusal instanceof Refusal)) throw refusal;
	toast(reason(refusal), { error: true });
}

class Session extends Emitter {
	model = new Model(WIDGETS);
	link = null;
	login = null;
	notifications = [];
	#quiet = 0;

	get guest() {
		return Boolean(this.login?.share);
	}
	get online() {
		return Boolean(this.link?.online);
	}
	get email() {
		return this.login?.email || "";
	}

	remembered() {
		try {
			return JSON.parse(localStorage.getItem(STORE) || sessionStorage.getItem(STORE));
		} catch {
			return null;
		}
	}

	remember(login, stay) {
		const store = stay ? localStorage : sessionStorage;
		store.setItem(STORE, JSON.stringify(login));
	}

	forget() {
		localStorage.removeItem(STORE);
		sessionStorage.removeItem(STORE);
	}

	/** Connect and log in; resolves when the projects are there, rejects with the Refusal of a refused login. */
	start(login) {
		this.stop();
		this.login = login;
		return new Promise((resolve, reject) => {
			this.link = this.model.link = new Connection({
				url: socketUrl(),
				login,
				onFrame: (frame) => this.model.frame(frame),
				onLateRefusal: (id, code) => this.#late(id, code),
				onState: async (state, code) => {
					this.emit("state", state);
					if (state === "refused") {
						this.emit("refused", code);
						reject(new Refusal(code, Command.LOGIN));
					}
					if (state === "online") {
						try {
							await this.load();
							resolve();
						} catch (refusal) {
							if (refusal.code === "timeout") this.link?.hurry();
						}
					}
				},
			});
			this.link.open();
		});
	}

	stop() {
		this.link?.close();
		this.link = this.model.link = null;
		this.login = null;
		this.model.projects.clear();
	}

	async load() {
		const frame = await this.link.request(Command.LOAD_PROFILE);
		this.model.loadProfile(JSON.parse(frame.text));
		if (this.guest) for (const project of this.model.projects.values()) await this.loadDevices(project);
		this.emit("loaded");
	}

	/** One project again: another app may have changed it, which the server does not tell. */
	async reload(project) {
		const stored = {};
		for (const [key, value] of project.values) stored[`${project.id}-${key}`] = value;
		const frame = await this.link.request(Command.LOAD_PROFILE, ...(this.guest ? [] : [project.id]));
		const document = JSON.parse(frame.text);
		this.model.loadProject(this.guest ? document.dashBoards[0] : document, stored);
		if (this.guest) await this.loadDevices(project);
	}

	async loadDevices(project) {
		const frame = await this.link.request(Command.GET_DEVICES, project.id);
		for (const device of JSON.parse(frame.text)) {
			const known = project.findDevice(device.id);
			if (known) Object.assign(known, device);
			else project.devices.push(device);
		}
		project.emit("status");
	}

	// A write that the server refused: say so, but not for each one of a moving slider.
	#late(id, code) {
		const write = this.model.lastWrites.get(id);
		if (!write || Date.now() - this.#quiet < 4000) return;
		this.#quiet = Date.now();
		if (code === Status.DEVICE_NOT_IN_NETWORK)
			toast(t("{0} is offline: it will not get this now.", write.project.targetName(write.target) || t("The device")));
		else if (this.guest && code === Status.NOT_ALLOWED)
			toast(t("The owner does not share this project at the moment."), { error: true });
		else toast(reason({ code }), { error: true });
	}

	logOut() {
		const link = this.link;
		this.forget();
		link
			?.request(Command.LOGOUT, "web")
			.catch(() => {})
			.finally(() => this.stop());
	}
}

export const session = new Session();

export async function register(email, password) {
	await askOnce(socketUrl(), Command.REGISTER, [email, passwordHash(email, password), "Blynk"]);
}

export const resetPassword = (...parts) => askOnce(socketUrl(), Command.RESET_PASSWORD, parts);

const ask = (command, ...parts) => {
	if (!session.link) return Promise.reject(new Refusal("lost", command));
	return session.link.request(command, ...parts);
};
const json = async (command, ...parts) => JSON.parse((await ask(command, ...parts)).text);

/** The server's plain and its TLS port, as text; the usual ones when it does not say. */
export async function ports() {
	const answer = await fetch("./", { method: "HEAD", headers: { accept: "text/html" } }).catch(() => null);
	return (answer?.headers.get("x-blynk-ports") || "8080 9443").split(" ");
}

// Projects.

const MAX_BODY = 60000; // one WebSocket frame of the protocol holds 65,536 bytes

export async function createProject({ name, theme, board, connection }) {
	const id = freeId([...session.model.projects.keys()]);
	const device = {
		id: 0,
		name: board === "Generic Board" ? "My device" : board,
		boardType: board,
		connectionType: connection,
	};
	await ask(
		Command.CREATE_DASH,
		JSON.stringify({
			id,
			parentId: -1,
			isPreview: false,
			name,
			createdAt: 0,
			updatedAt: 0,
			devices: [device],
			theme,
			keepScreenOn: false,
			isAppConnectedOn: false,
			isNotificationsOff: false,
			isShared: false,
			isActive: true,
			widgetBackgroundOn: false,
			color: -1,
			isDefaultColor: true,
		}),
	);
	return fetchProject(id);
}

async function fetchProject(id) {
	const project = session.model.loadProject(await json(Command.LOAD_PROFILE, id));
	session.model.emit("projects");
	return project;
}

const SETTINGS = [
	"name",
	"isShared",
	"theme",
	"keepScreenOn",
	"isAppConnectedOn",
	"isNotificationsOff",
	"widgetBackgroundOn",
	"color",
	"isDefaultColor",
];

export async function changeSettings(project, changes) {
	const next = Object.fromEntries(SETTINGS.map((key) => [key, project.document[key]]));
	Object.assign(next, changes);
	await ask(Command.UPDATE_PROJECT_SETTINGS, project.id, JSON.stringify(next));
	Object.assign(project.document, changes);
	project.emit("changed");
	session.model.emit("projects");
}

export async function cloneProject(project, name) {
	const code = (await ask(Command.GET_CLONE_CODE, project.id)).text;
	return importProject(code, name);
}

export async function importProject(code, name) {
	const document = await json(Command.GET_PROJECT_BY_CLONE_CODE, code, "new");
	const project = await fetchProject(document.id);
	if (name) await changeSettings(project, { name });
	return project;
}

export const cloneCode = async (project) => (await ask(Command.GET_CLONE_CODE, project.id)).text;

export async function deleteProject(project) {
	await ask(Command.DELETE_DASH, project.id);
	session.model.projects.delete(project.id);
	session.model.emit("projects");
}

export async function setActive(project, on) {
	try {
		await ask(on ? Command.ACTIVATE : Command.DEACTIVATE, project.id);
	} catch (refusal) {
		if (refusal.code !== Status.DEVICE_NOT_IN_NETWORK) throw refusal; // it is active, only no device is there
	}
	project.document.isActive = on;
	project.emit("activity");
}

export const syncProject = (project) => ask(Command.APP_SYNC, project.id);

// Widgets. `place` is null for the project itself, or { tiles, template }.

const inside = (place) => (place?.template ? [place.tiles.id, place.template.id] : []);

export async function createWidget(project, widget, place) {
	await ask(Command.CREATE_WIDGET, project.id, ...inside(place), JSON.stringify(widget));
	project.container(place).push(widget);
	project.changed();
}

export async function updateWidget(project, old, next) {
	const body = JSON.stringify(next);
	if (body.length > MAX_BODY) throw new Refusal(Status.NOT_ALLOWED, Command.UPDATE_WIDGET);
	await ask(Command.UPDATE_WIDGET, project.id, body);
	for (const key of Object.keys(old)) if (!(key in next)) delete old[key];
	Object.assign(old, next);
	project.instances.delete(old);
	project.changed();
}

export async function deleteWidget(project, widget, place) {
	await ask(Command.DELETE_WIDGET, project.id, widget.id);
	const list = project.container(place);
	list.splice(list.indexOf(widget), 1);
	project.changed();
}

/** An id for a new widget: the smallest that no widget of the project has, also none inside tiles. */
export function widgetId(project, type) {
	const taken = project.allWidgets().map((w) => w.id);
	return freeId(taken, type === "DEVICE_SELECTOR" ? SELECTORS_FROM : 1);
}

// Tile templates.

export async function saveTemplate(project, tiles, template, isNew) {
	await ask(isNew ? Command.CREATE_TEMPLATE : Command.UPDATE_TEMPLATE, project.id, tiles.id, JSON.stringify(template));
	await refreshWidget(project, tiles);
}

export async function deleteTemplate(project, tiles, template) {
	await ask(Command.DELETE_TEMPLATE, project.id, tiles.id, template.id);
	await refreshWidget(project, tiles);
}

/** A widget as the server has it now (it makes the tiles of a template). */
export async function refreshWidget(project, widget) {
	const fresh = await json(Command.GET_WIDGET, project.id, widget.id);
	for (const key of Object.keys(widget))
		if (!(key in fresh) && !/Tokens$|^(token|secret|username)$/.test(key)) delete widget[key];
	Object.assign(widget, fresh);
	project.instances.delete(widget);
	project.changed();
}

// Devices and tags.

export async function createDevice(project, device) {
	const made = await json(
		Command.CREATE_DEVICE,
		project.id,
		JSON.stringify({
			id: freeId(
				project.devices.map((d) => d.id),
				0,
			),
			...device,
		}),
	);
	project.devices.push(made);
	project.changed();
	return made;
}

export async function updateDevice(project, device, changes) {
	const { id, name, boardType, vendor, address, connectionType, iconName, isUserIcon } = { ...device, ...changes };
	await ask(
		Command.UPDATE_DEVICE,
		project.id,
		JSON.stringify({ id, name, boardType, vendor, address, connectionType, iconName, isUserIcon }),
	);
	Object.assign(device, changes);
	project.changed();
}

export async function deleteDevice(project, device) {
	await ask(Command.DELETE_DEVICE, project.id, device.id);
	await session.reload(project);
}

export async function refreshToken(project, device) {
	device.token = (await ask(Command.REFRESH_TOKEN, project.id, device.id)).text;
	project.changed();
}

export const deleteDeviceData = (project, device) => ask(Command.DELETE_DEVICE_DATA, `${project.id}-${device.id}`);
export const mailToken = (project, device) => ask(Command.EMAIL, project.id, device.id);

export async function saveTag(project, tag) {
	const known = project.tags.find((x) => x.id === tag.id);
	if (known) {
		await ask(Command.UPDATE_TAG, project.id, JSON.stringify(tag));
		Object.assign(known, tag);
	} else {
		project.tags.push(
			await json(
				Command.CREATE_TAG,
				project.id,
				JSON.stringify({
					id: freeId(
						project.tags.map((x) => x.id),
						TAGS_FROM,
					),
					...tag,
				}),
			),
		);
	}
	project.changed();
}

export async function deleteTag(project, tag) {
	await ask(Command.DELETE_TAG, project.id, tag.id);
	project.tags.splice(project.tags.indexOf(tag), 1);
	project.changed();
}

// Sharing, energy, reports.

export async function share(project, on) {
	await ask(Command.SHARING, project.id, on ? "on" : "off");
	project.document.isShared = on;
	project.emit("sharing");
}

export async function shareToken(project, fresh = false) {
	const token = (await ask(fresh ? Command.REFRESH_SHARE_TOKEN : Command.GET_SHARE_TOKEN, project.id)).text;
	project.document.sharedToken = token;
	return token;
}

export const energy = async () => Number((await ask(Command.GET_ENERGY)).text);
export const addEnergy = (amount) => ask(Command.ADD_ENERGY, amount, `web-${Date.now()}`);

export async function saveReport(project, widget, report, isNew) {
	const saved = await json(isNew ? Command.CREATE_REPORT : Command.UPDATE_REPORT, project.id, JSON.stringify(report));
	const at = (widget.reports ||= []).findIndex((x) => x.id === saved.id);
	if (at < 0) widget.reports.push(saved);
	else widget.reports[at] = saved;
	project.changed();
}

export async function deleteReport(project, widget, report) {
	await ask(Command.DELETE_REPORT, project.id, report.id);
	widget.reports.splice(
		widget.reports.findIndex((x) => x.id === report.id),
		1,
	);
	project.changed();
}

export async function runReport(project, widget, report) {
	const frame = await session.link.requestWithin(120000, Command.EXPORT_REPORT, project.id, report.id);
	const saved = JSON.parse(frame.text);
	Object.assign(report, saved);
	project.changed();
}
