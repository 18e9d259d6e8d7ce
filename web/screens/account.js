// Log in, account, notifications, certificate.

// Before any project: log in, register, reset the password, or enter as a guest with a link.

import { applyTheme, enter, go, mainMenu } from "../app.js";
import { button, field, h, icon, iconButton, replace, select, toast } from "../dom.js";
import { ago, language, LANGUAGES, setLanguage, t } from "../i18n.js";
import { passwordHash } from "../protocol.js";
import { addEnergy, energy, explain, ports, reason, register, resetPassword, session } from "../session.js";

const card = (screen, heading, form, ...links) => {
	screen.bare();
	const languages = h(
		".languages",
		null,
		Object.entries(LANGUAGES).map(([code, name]) =>
			h(
				"button",
				{
					type: "button",
					lang: code,
					"aria-pressed": String(language() === code),
					onclick: async () => {
						await setLanguage(code);
						location.reload();
					},
				},
				name,
			),
		),
	);
	screen.show(
		h(
			".card.login",
			null,
			h(
				".brand",
				null,
				h("img", { src: "static/icons/icon.svg", alt: "", width: 56, height: 56 }),
				h("h1", null, heading),
			),
			form,
			h(".links", null, links),
			location.protocol === "http:" &&
				h("a.hint-link", { href: "#/certificate" }, icon("lock"), t("Use the https address and install this app")),
			languages,
		),
	);
};

const email = (value = "") =>
	h("input", { type: "email", name: "email", autocomplete: "username", required: true, maxLength: 255, value });
const password = (kind) => h("input", { type: "password", name: "password", autocomplete: kind, required: true });

// A form with one line for what went wrong; its button is off while the answer is awaited.
function form(fields, text, act) {
	const problem = h("p.problem", { role: "alert" });
	const send = h("button.primary", { type: "submit" }, text);
	return h(
		"form",
		{
			async onsubmit(event) {
				event.preventDefault();
				send.disabled = true;
				problem.textContent = "";
				try {
					await act();
				} catch (refusal) {
					problem.textContent = refusal.code === undefined ? refusal.message : reason(refusal);
				}
				send.disabled = false;
			},
		},
		fields,
		problem,
		send,
	);
}

async function logIn(mail, secret, stay) {
	const login = { email: mail.trim().toLowerCase(), hash: passwordHash(mail, secret) };
	await new Promise((resolve, reject) => {
		const off = session.on("state", (state) => {
			if (state === "lost") {
				off();
				session.stop();
				reject(Object.assign(new Error(), { code: "lost" }));
			}
		});
		enter(login, stay).then(resolve, reject).finally(off);
	});
}

export function showLogin(screen) {
	const mail = email(),
		secret = password("current-password"),
		stay = h("input", { type: "checkbox", checked: true });
	card(
		screen,
		t("Log in"),
		form(
			[field(t("E-mail"), mail), field(t("Password"), secret), field(t("Stay logged in on this device"), stay)],
			t("Log in"),
			async () => {
				await logIn(mail.value, secret.value, stay.checked);
				go("", true);
			},
		),
		h("a", { href: "#/register" }, t("New here? Make an account")),
		h("a", { href: "#/reset" }, t("Password forgotten?")),
	);
	mail.focus();
}

export function showRegister(screen) {
	const mail = email(),
		secret = password("new-password");
	secret.minLength = 4;
	card(
		screen,
		t("Make an account"),
		form(
			[
				field(t("E-mail"), mail, t("It is your name here; mail is only sent to it when you ask for it.")),
				field(t("Password"), secret),
			],
			t("Make the account"),
			async () => {
				await register(mail.value.trim().toLowerCase(), secret.value);
				await logIn(mail.value, secret.value, true);
				go("", true);
			},
		),
		h("a", { href: "#/login" }, t("I have an account")),
	);
	mail.focus();
}

export function showReset(screen) {
	const mail = email(),
		code = h("input", { name: "code", autocomplete: "one-time-code", required: true }),
		secret = password("new-password");
	const second = () =>
		replace(
			body,
			form(
				[
					h("p", null, t("A mail with a link is on its way. Open it, or copy the token out of it here.")),
					field(t("Token"), code),
					field(t("New password"), secret),
				],
				t("Set the password"),
				async () => {
					const token = (/token=([\w-]+)/.exec(code.value) || [null, code.value.trim()])[1];
					await resetPassword("verify", token);
					await resetPassword("reset", token, passwordHash(mail.value, secret.value));
					await logIn(mail.value, secret.value, true);
					go("", true);
				},
			),
		);
	const body = h(
		"div",
		null,
		form([field(t("E-mail"), mail)], t("Send the mail"), async () => {
			await resetPassword("start", mail.value.trim().toLowerCase(), "Blynk");
			second();
		}),
		h(
			".links",
			null,
			button(
				t("I have a token already"),
				() => {
					if (mail.reportValidity()) second();
				},
				{ class: "plain" },
			),
		),
	);
	card(screen, t("Reset the password"), body, h("a", { href: "#/login" }, t("Back to the login")));
	mail.focus();
}

export async function showGuest(screen) {
	screen.bare();
	screen.show(h(".loading", null, t("Opening the shared project …")));
	const { email: owner, token } = screen.params;
	try {
		await enter({ email: owner, share: token }, false);
	} catch {
		return; // app.js says that the link does not work
	}
	const [project] = session.model.projects.values();
	go(project ? `project/${project.id}` : "", true);
}

// ---------------------------------------------------------------------------------------------------------------
// The account: energy, language, look, notifications of this browser; and the log of notifications.

export async function showAccount(screen) {
	screen.head(t("Account"), "", mainMenu());
	const amount = h("strong.energy", null, "…");
	const load = async () => {
		amount.textContent = (await energy()).toLocaleString(language());
	};
	const theme = select(
		[
			["auto", t("Like the system")],
			["dark", t("Dark")],
			["light", t("Light")],
		],
		localStorage.getItem("blynk-pi-theme") || "auto",
	);
	theme.addEventListener("change", () => {
		localStorage.setItem("blynk-pi-theme", theme.value);
		applyTheme();
	});
	const languages = select(Object.entries(LANGUAGES), language());
	languages.addEventListener("change", async () => {
		await setLanguage(languages.value);
		go("account");
	});
	screen.show(
		h(
			".card",
			null,
			h("h2", null, t("Account")),
			h("p", null, session.email),
			h(
				".row",
				null,
				button(t("Change the password"), () => changePassword()),
				button([icon("logout"), t("Log out")], () => {
					session.logOut();
					session.ready = false;
					go("login");
				}),
			),
		),
		h(
			".card",
			null,
			h("h2", null, t("Energy")),
			h("p", null, icon("energy"), " ", amount),
			h("p.hint", null, t("Widgets cost energy and give it back when deleted. On your own server it is free.")),
			button(t("Add {0}", (100000).toLocaleString(language())), async () => {
				await addEnergy(100000);
				await load();
			}),
		),
		h(
			".card",
			null,
			h("h2", null, t("This browser")),
			field(t("Language"), languages),
			field(t("Look"), theme),
			notificationSwitch(),
		),
	);
	try {
		await load();
	} catch (refusal) {
		explain(refusal);
	}
}

async function changePassword() {
	try {
		await resetPassword("start", session.email, "Blynk");
		toast(t("A mail with a link to set a new password is on its way."));
	} catch (refusal) {
		explain(refusal);
	}
}

function notificationSwitch() {
	const state = h("span.hint");
	const on = button(t("Allow notifications"), async () => {
		await Notification.requestPermission();
		say();
	});
	const say = () => {
		const able = isSecureContext && "Notification" in window;
		on.hidden = !able || Notification.permission !== "default";
		state.textContent = !able
			? t("System notifications need the https address; in the page they always appear.")
			: {
					granted: t("System notifications are allowed."),
					denied: t("System notifications are blocked in the settings of the browser."),
					default: "",
				}[Notification.permission];
	};
	say();
	return h(".field", null, h("span.field-label", null, t("Notifications")), on, state);
}

/** The log: what this page received, and what the server says it sent, and where to. */
export async function showNotifications(screen) {
	const project = screen.params.id ? screen.project() : null;
	screen.head(
		t("Notifications"),
		project ? `project/${project.id}` : "",
		iconButton("refresh", t("Refresh"), () => load()),
		mainMenu(),
	);
	const list = h(".list", { "aria-live": "polite" });
	const token =
		[...(project ? [project] : session.model.projects.values())].flatMap((p) => p.devices).find((d) => d.token)
			?.token || [...session.model.projects.values()].flatMap((p) => p.devices).find((d) => d.token)?.token;
	let logged = null;
	const draw = () =>
		replace(
			list,
			session.notifications.length > 0 && h("h2", null, t("Received in this page")),
			session.notifications.map((n) =>
				h(
					".list-item",
					null,
					icon("bell"),
					h(
						"span.grow",
						null,
						h("span", null, n.message),
						h("small", null, [n.from, new Date(n.ts).toLocaleString()].filter(Boolean).join(" · ")),
					),
				),
			),
			h("h2", null, t("Sent by the server")),
			logged === null &&
				h("p.hint", null, token ? t("Loading …") : t("The log needs a device in one of your projects.")),
			(logged || []).map(logEntry),
			logged?.length === 0 && h(".empty", null, icon("bell"), h("p", null, t("Nothing has been sent yet."))),
		);
	async function load() {
		if (token) {
			const answer = await fetch(`${token}/notifications`).catch(() => null);
			logged = answer?.ok ? (await answer.json()).reverse() : [];
		}
		draw();
	}
	screen.listen(session, "notified", draw);
	draw();
	screen.show(list);
	await load();
}

const KIND_ICONS = { mail: "mail", sms: "chat", tweet: "chat" };

function logEntry({ time, kind, target, result }) {
	return h(
		".list-item",
		{ class: result === "sent" ? "" : "failed" },
		icon(KIND_ICONS[kind] || "bell"),
		h(
			"span.grow",
			null,
			h("span", null, `${kind} · ${target}`),
			h("small", null, `${ago(time)} · ${result === "sent" ? t("sent") : result}`),
		),
	);
}

// ---------------------------------------------------------------------------------------------------------------
// How to make this computer or phone trust the server's own certificate: needed for the installed app, for sensors, for the
// camera and for system notifications. The steps are per system.

const SYSTEMS = () => [
	["Android", t("Settings → Security → Install a certificate → CA certificate: choose the file.")],
	[
		"iPhone, iPad",
		t(
			"Allow the profile and install it under Settings → General → VPN and device management, then switch it on under General → About → Certificate trust settings.",
		),
	],
	["Windows", t("Open the file → Install certificate → Local machine → Trusted root certification authorities.")],
	["macOS", t("Open the file in Keychain Access, double-click it → Trust → Always trust.")],
	["Linux", t("In the browser's settings: Privacy and security → Certificates → Authorities → Import.")],
];

function mine() {
	const agent = navigator.userAgent;
	if (/android/i.test(agent)) return "Android";
	if (/iphone|ipad/i.test(agent)) return "iPhone, iPad";
	if (/windows/i.test(agent)) return "Windows";
	return /macintosh/i.test(agent) ? "macOS" : "Linux";
}

export async function showCertificate(screen) {
	screen.head(t("Trust this server"), session.login ? "" : "login");
	const link = h("p");
	const own = mine();
	screen.show(
		h(
			".card",
			null,
			icon("lock"),
			h(
				"p",
				null,
				t(
					"The https address allows more: this page as an app, system notifications, sensors, camera. First this device has to trust the server's own certificate.",
				),
			),
			link,
		),
		h(
			".card",
			null,
			h("h2", null, t("Steps")),
			SYSTEMS()
				.sort((a, b) => (b[0] === own) - (a[0] === own))
				.map(([name, step]) =>
					h(
						"details",
						{ open: name === own },
						h("summary", null, name),
						h(
							"ol",
							null,
							[t("Download the certificate."), step, t("Restart the browser, then open the https address.")].map(
								(text) => h("li", null, text),
							),
						),
					),
				),
		),
	);
	const [certificate, [, tls]] = await Promise.all([fetch("blynk.crt", { method: "HEAD" }).catch(() => null), ports()]);
	const port = location.protocol === "https:" ? location.port : tls;
	const secure = `https://${location.hostname}${port && Number(port) !== 443 ? `:${port}` : ""}/`;
	replace(
		link,
		certificate?.ok
			? h(
					"a.button.primary",
					{ href: "blynk.crt", download: "blynk.crt" },
					icon("download"),
					t("Download the certificate"),
				)
			: h("span.hint", null, t("This server has no certificate of its own to download.")),
		" ",
		h("a", { href: secure }, secure),
	);
}
