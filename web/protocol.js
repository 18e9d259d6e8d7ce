// The app protocol over /dashws: frames, login, request and reply by id, reconnecting. No DOM: runs in Node too.
//
//   const link = new Connection({ url, login: { email, hash }, onFrame, onState });
//   link.open();
//   const answer = await link.request(Command.GET_DEVICES, 1);        // { command, id, text } or throws Refusal
//   link.send(Command.HARDWARE, "1-0", "vw", 5, 255);                 // no answer on success
//
// One binary WebSocket message is one frame: command u8, id u16, then the body; an answer (command 0) has a u32 code.

import { sha256 } from "./vendor/sha256.js";

export const VERSION = "1.0.0";

export const Command = Object.freeze({
	RESPONSE: 0,
	REGISTER: 1,
	LOGIN: 2,
	REDEEM: 3,
	HARDWARE_CONNECTED: 4,
	PING: 6,
	ACTIVATE: 7,
	DEACTIVATE: 8,
	REFRESH_TOKEN: 9,
	EMAIL: 13,
	PUSH_NOTIFICATION: 14,
	SET_WIDGET_PROPERTY: 19,
	HARDWARE: 20,
	CREATE_DASH: 21,
	UPDATE_DASH: 22,
	DELETE_DASH: 23,
	LOAD_PROFILE: 24,
	APP_SYNC: 25,
	SHARING: 26,
	ADD_PUSH_TOKEN: 27,
	EXPORT_GRAPH_DATA: 28,
	GET_SHARE_TOKEN: 30,
	REFRESH_SHARE_TOKEN: 31,
	SHARE_LOGIN: 32,
	CREATE_WIDGET: 33,
	UPDATE_WIDGET: 34,
	DELETE_WIDGET: 35,
	GET_ENERGY: 36,
	ADD_ENERGY: 37,
	UPDATE_PROJECT_SETTINGS: 38,
	CREATE_DEVICE: 42,
	UPDATE_DEVICE: 43,
	DELETE_DEVICE: 44,
	GET_DEVICES: 45,
	CREATE_TAG: 46,
	UPDATE_TAG: 47,
	DELETE_TAG: 48,
	GET_TAGS: 49,
	GET_DEVICE: 50,
	GET_GRAPH_DATA: 60,
	DELETE_GRAPH_DATA: 61,
	GET_CLONE_CODE: 62,
	GET_PROJECT_BY_CLONE_CODE: 63,
	LOGOUT: 66,
	CREATE_TEMPLATE: 67,
	UPDATE_TEMPLATE: 68,
	DELETE_TEMPLATE: 69,
	GET_WIDGET: 70,
	DEVICE_OFFLINE: 71,
	OUTDATED_APP: 72,
	GET_PROVISION_TOKEN: 74,
	DELETE_DEVICE_DATA: 76,
	CREATE_REPORT: 77,
	UPDATE_REPORT: 78,
	DELETE_REPORT: 79,
	EXPORT_REPORT: 80,
	RESET_PASSWORD: 81,
});

export const Status = Object.freeze({
	QUOTA_LIMIT: 1,
	ILLEGAL_COMMAND: 2,
	USER_NOT_REGISTERED: 3,
	USER_ALREADY_REGISTERED: 4,
	USER_NOT_AUTHENTICATED: 5,
	NOT_ALLOWED: 6,
	DEVICE_NOT_IN_NETWORK: 7,
	ILLEGAL_COMMAND_BODY: 11,
	NOTIFICATION_ERROR: 15,
	NO_DATA: 17,
	SERVER_ERROR: 19,
	ENERGY_LIMIT: 21,
	FACEBOOK_USER: 22,
	OK: 200,
});

const C = Command;
// Answered with a frame of the same command; everything else is answered with a code.
const WITH_DATA = new Set([
	C.REFRESH_TOKEN,
	C.LOAD_PROFILE,
	C.GET_SHARE_TOKEN,
	C.REFRESH_SHARE_TOKEN,
	C.GET_ENERGY,
	C.CREATE_DEVICE,
	C.GET_DEVICES,
	C.CREATE_TAG,
	C.GET_TAGS,
	C.GET_DEVICE,
	C.GET_GRAPH_DATA,
	C.GET_CLONE_CODE,
	C.GET_PROJECT_BY_CLONE_CODE,
	C.GET_WIDGET,
	C.GET_PROVISION_TOKEN,
	C.CREATE_REPORT,
	C.UPDATE_REPORT,
	C.EXPORT_REPORT,
]);
const ZIPPED = new Set([C.LOAD_PROFILE, 58, C.GET_PROJECT_BY_CLONE_CODE, C.GET_GRAPH_DATA]);
const SERVER_IDS = new Set([0, 1, 111, 888, 1111, 7777, 7778]); // the server's own; never ours, so an answer is ours
const PING_AFTER = 10000,
	DEAD_AFTER = 8000,
	ANSWER_WITHIN = 12000,
	FIRST_RETRY = 400,
	LAST_RETRY = 10000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** An answer that is not OK: code is a Status, or "lost" (no connection), or "timeout". */
export class Refusal extends Error {
	constructor(code, command) {
		super(`refused: ${code} (command ${command})`);
		this.code = code;
		this.command = command;
	}
}

/** The hash that LOGIN and REGISTER carry instead of the password (44 characters of base64). */
export function passwordHash(email, password) {
	const salt = sha256(encoder.encode(email.trim().toLowerCase()));
	const secret = encoder.encode(password);
	const both = new Uint8Array(secret.length + salt.length);
	both.set(secret);
	both.set(salt, secret.length);
	return btoa(String.fromCharCode(...sha256(both)));
}

/** pack(command, id, "a", 1, "b") -> bytes of one frame, the parts joined by NUL. */
export function pack(command, id, ...parts) {
	const body = encoder.encode(parts.join("\0"));
	const frame = new Uint8Array(3 + body.length);
	frame[0] = command;
	frame[1] = id >> 8;
	frame[2] = id & 255;
	frame.set(body, 3);
	return frame;
}

/** unpack(ArrayBuffer) -> { command, id, code } or { command, id, bytes }; null for what is no frame. */
export function unpack(buffer) {
	if (buffer.byteLength < 3) return null;
	const view = new DataView(buffer);
	const command = view.getUint8(0);
	const id = view.getUint16(1);
	if (command === C.RESPONSE) return buffer.byteLength < 7 ? null : { command, id, code: view.getUint32(3) };
	return { command, id, bytes: new Uint8Array(buffer, 3) };
}

export async function inflate(bytes) {
	const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
	return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Body of GET_GRAPH_DATA -> one array of { value, ts } per data stream, oldest first. */
export function graphPoints(bytes) {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const streams = [];
	for (let at = 4; at + 4 <= bytes.byteLength;) {
		const points = [];
		let left = view.getInt32(at);
		for (at += 4; left > 0 && at + 16 <= bytes.byteLength; left--, at += 16) {
			points.push({ value: view.getFloat64(at), ts: Number(view.getBigInt64(at + 8)) });
		}
		streams.push(points);
		if (left > 0) break; // cut off
	}
	return streams;
}

/** A connection that stays: it logs in by itself, again after every loss, until close() or a refused login. */
export class Connection {
	#socket = null;
	#id = 1;
	#waiting = new Map();
	#timer = 0;
	#watch = 0;
	#tries = 0;
	#heard = 0;
	#busy = null;
	#wanted = false;

	constructor({
		url,
		login,
		onFrame,
		onState,
		onLateRefusal,
		WebSocket: Socket = globalThis.WebSocket,
		random = Math.random,
	}) {
		Object.assign(this, { url, login, onFrame, onState, onLateRefusal, Socket, random });
		this.state = "idle"; // idle, connecting, online, lost, refused
	}

	get online() {
		return this.state === "online";
	}

	open() {
		this.#wanted = true;
		this.#connect();
	}

	close() {
		this.#wanted = false;
		clearTimeout(this.#timer);
		this.#drop();
		this.#enter("idle");
	}

	/** Try now instead of waiting for the next turn (the browser says that the network is back). */
	hurry() {
		if (this.#wanted && this.state === "lost") {
			clearTimeout(this.#timer);
			this.#connect();
		} else if (this.online) this.#ping();
	}

	/** Send and wait for the answer. Rejects with Refusal. `within`: ms to wait. */
	request(command, ...parts) {
		return this.#ask(command, parts, ANSWER_WITHIN);
	}

	requestWithin(within, command, ...parts) {
		return this.#ask(command, parts, within);
	}

	/** Send a command that has no answer on success; returns its id, or 0 when there is no connection. */
	send(command, ...parts) {
		if (!this.online) return 0;
		const id = this.#nextId();
		this.#socket.send(pack(command, id, ...parts));
		return id;
	}

	#nextId() {
		do this.#id = (this.#id % 65535) + 1;
		while (SERVER_IDS.has(this.#id) || this.#waiting.has(this.#id));
		return this.#id;
	}

	#ask(command, parts, within) {
		if (!this.#socket || this.#socket.readyState !== 1) return Promise.reject(new Refusal("lost", command));
		const id = this.#nextId();
		return new Promise((resolve, reject) => {
			const timer = setTimeout(() => {
				this.#waiting.delete(id);
				reject(new Refusal("timeout", command));
			}, within);
			this.#waiting.set(id, { command, resolve, reject, timer });
			this.#socket.send(pack(command, id, ...parts));
		});
	}

	#enter(state, detail) {
		if (this.state === state) return;
		this.state = state;
		this.onState?.(state, detail);
	}

	#connect() {
		this.#drop();
		this.#enter("connecting");
		let socket;
		try {
			socket = new this.Socket(this.url);
		} catch {
			return this.#lost();
		}
		this.#socket = socket;
		socket.binaryType = "arraybuffer";
		socket.onopen = () => this.#logIn(socket);
		socket.onmessage = (event) => {
			if (socket === this.#socket) this.#received(event.data);
		};
		socket.onclose = () => {
			if (socket === this.#socket) this.#lost();
		};
		socket.onerror = () => {};
	}

	async #logIn(socket) {
		const { email, hash, share } = this.login;
		try {
			if (share) await this.#ask(C.SHARE_LOGIN, [email, share, "Web", VERSION], ANSWER_WITHIN);
			else await this.#ask(C.LOGIN, [email, hash, "Web", VERSION, this.login.app || "Blynk"], ANSWER_WITHIN);
		} catch (refusal) {
			if (socket !== this.#socket) return;
			if (typeof refusal.code === "number") {
				this.#wanted = false;
				this.#drop();
				this.#enter("refused", refusal.code);
			} else this.#lost();
			return;
		}
		if (socket !== this.#socket) return;
		this.#tries = 0;
		this.#heard = Date.now();
		clearInterval(this.#watch);
		this.#watch = setInterval(() => this.#look(), 2000);
		this.#enter("online");
	}

	// Nothing heard for a while: ask; still nothing: the connection is dead, whatever the system says.
	#look() {
		const silent = Date.now() - this.#heard;
		if (silent > PING_AFTER + DEAD_AFTER) this.#lost();
		else if (silent > PING_AFTER) this.#ping();
	}

	#ping() {
		this.#ask(C.PING, [], DEAD_AFTER).catch((refusal) => {
			if (refusal.code === "timeout") this.#lost();
		});
	}

	#received(data) {
		this.#heard = Date.now();
		if (typeof data === "string") return;
		const frame = unpack(data);
		if (!frame) return;
		if (this.#busy) {
			// a body is being inflated: keep the order
			this.#busy = this.#busy.then(() => this.#handle(frame));
		} else if (ZIPPED.has(frame.command)) {
			const mine = (this.#busy = this.#handle(frame).finally(() => {
				if (this.#busy === mine) this.#busy = null;
			}));
		} else this.#handle(frame);
	}

	async #handle(frame) {
		if (frame.bytes) {
			try {
				if (ZIPPED.has(frame.command)) frame.bytes = await inflate(frame.bytes);
				if (frame.command !== C.GET_GRAPH_DATA) frame.text = decoder.decode(frame.bytes);
			} catch {
				return;
			}
		}
		const asked = this.#waiting.get(frame.id);
		const answer = frame.command === C.RESPONSE || (asked?.command === frame.command && WITH_DATA.has(frame.command));
		if (!answer) return this.onFrame?.(frame);
		if (!asked) {
			if (frame.code !== Status.OK) this.onLateRefusal?.(frame.id, frame.code);
			return;
		}
		this.#waiting.delete(frame.id);
		clearTimeout(asked.timer);
		if (frame.command === C.RESPONSE && frame.code !== Status.OK) asked.reject(new Refusal(frame.code, asked.command));
		else asked.resolve(frame);
	}

	#drop() {
		clearInterval(this.#watch);
		const socket = this.#socket;
		this.#socket = null;
		this.#busy = null;
		if (socket) {
			socket.onclose = socket.onmessage = socket.onopen = null;
			try {
				socket.close();
			} catch {
				/* it was not open */
			}
		}
		for (const { command, reject, timer } of this.#waiting.values()) {
			clearTimeout(timer);
			reject(new Refusal("lost", command));
		}
		this.#waiting.clear();
	}

	#lost() {
		this.#drop();
		if (!this.#wanted) return;
		const pause = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#tries++) * (0.75 + this.random() / 2);
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => this.#connect(), pause);
		this.#enter("lost");
	}
}

/** One command before any login (REGISTER, RESET_PASSWORD), on a connection of its own. */
export function askOnce(url, command, parts, { WebSocket: Socket = globalThis.WebSocket, within = 20000 } = {}) {
	return new Promise((resolve, reject) => {
		const socket = new Socket(url);
		socket.binaryType = "arraybuffer";
		const end = (finish, value) => {
			clearTimeout(timer);
			socket.onclose = null;
			try {
				socket.close();
			} catch {
				/* already closed */
			}
			finish(value);
		};
		const timer = setTimeout(() => end(reject, new Refusal("timeout", command)), within);
		socket.onopen = () => socket.send(pack(command, 2, ...parts));
		socket.onclose = () => end(reject, new Refusal("lost", command));
		socket.onerror = () => {};
		socket.onmessage = (event) => {
			const frame = typeof event.data === "string" ? null : unpack(event.data);
			if (!frame || frame.id !== 2) return;
			if (frame.command === C.RESPONSE && frame.code !== Status.OK)
				return end(reject, new Refusal(frame.code, command));
			if (frame.bytes) frame.text = decoder.decode(frame.bytes);
			end(resolve, frame);
		};
	});
}
