// Devices, tags, sharing.

// Boards (spec 04 §15) and what a newcomer has to type to connect each kind of device.

import { go, mainMenu } from "../app.js";
import { ask, button, confirm, copy, dialog, field, h, icon, iconButton, menu, replace, svg, toast } from "../dom.js";
import { ago, t } from "../i18n.js";
import {
	createDevice,
	deleteDevice,
	deleteDeviceData,
	deleteTag,
	explain,
	mailToken,
	ports,
	refreshToken,
	saveTag,
	session,
	share,
	shareToken,
	updateDevice,
} from "../session.js";
import { checks } from "../sheet.js";
import { qr } from "../vendor/qr.js";

export const BOARDS = [
	"ESP8266",
	"ESP32 Dev Board",
	"NodeMCU",
	"WeMos D1 mini",
	"WeMos D1",
	"Arduino UNO",
	"Arduino Nano",
	"Arduino Mega",
	"Arduino Leonardo",
	"Arduino MKR1000",
	"Arduino Due",
	"Arduino Yun",
	"Arduino Zero",
	"Raspberry Pi 3 B",
	"Raspberry Pi 2/A+/B+",
	"Particle Photon",
	"Orange Pi",
	"BBC Micro:bit",
	"Onion Omega",
	"STM32F103C Blue Pill",
	"WiPy",
	"Teensy 3",
	"Intel Edison",
	"Generic Board",
];

export const CONNECTIONS = () => [
	["WI_FI", "Wi-Fi"],
	["ETHERNET", "Ethernet"],
	["USB", "USB"],
	["GSM", "GSM"],
	["BLE", "Bluetooth LE"],
	["BLUETOOTH", "Bluetooth"],
];

const wifi = (board, header) => (x) => `#define BLYNK_PRINT Serial
#include <${board}>
#include <${header}>

char auth[] = "${x.token}";
char ssid[] = "YourNetwork";
char pass[] = "YourPassword";

BLYNK_WRITE(V1) {                 // a widget on V1 was used
  int value = param.asInt();
}

void setup() {
  Serial.begin(115200);
  Blynk.begin(auth, ssid, pass, "${x.host}", ${x.port});
}

void loop() {
  Blynk.run();
}
`;

/** Ready-made lines: [name, function of { token, host, port, web } -> text]. */
const SKETCHES = [
	["ESP8266", wifi("ESP8266WiFi.h", "BlynkSimpleEsp8266.h")],
	["ESP32", wifi("WiFi.h", "BlynkSimpleEsp32.h")],
	[
		"Ethernet",
		(x) => `#define BLYNK_PRINT Serial
#include <SPI.h>
#include <Ethernet.h>
#include <BlynkSimpleEthernet.h>

char auth[] = "${x.token}";

void setup() {
  Serial.begin(9600);
  Blynk.begin(auth, "${x.host}", ${x.port});
}

void loop() {
  Blynk.run();
}
`,
	],
	[
		"USB",
		(x) => `#include <BlynkSimpleStream.h>

char auth[] = "${x.token}";

void setup() {
  Serial.begin(9600);
  Blynk.begin(Serial, auth);
}

void loop() {
  Blynk.run();
}

/* On the computer with the USB cable:
   python3 blynk-ser.py -c /dev/ttyUSB0 -s ${x.host} -p ${x.port}  */
`,
	],
	[
		"Python",
		(x) => `# pip install blynklib
import blynklib

blynk = blynklib.Blynk("${x.token}", server="${x.host}", port=${x.port}, heartbeat=10)

@blynk.handle_event("write V1")
def write_handler(pin, value):
    print(f"V{pin} = {value[0]}")

while True:
    blynk.run()
`,
	],
	[
		"JavaScript",
		(x) => `// npm install blynk-library
const Blynk = require("blynk-library");

const blynk = new Blynk.Blynk("${x.token}", {
  connector: new Blynk.TcpClient({ addr: "${x.host}", port: ${x.port} }),
});
const v1 = new blynk.VirtualPin(1);
v1.on("write", (value) => console.log("V1 =", value[0]));
`,
	],
	[
		"curl",
		(x) => `# write V1
curl "${x.web}/${x.token}/update/V1?value=42"

# read V1
curl "${x.web}/${x.token}/get/V1"
`,
	],
];

export const hint = () => t("Upload it, open the serial monitor, and the device appears online here.");

// ---------------------------------------------------------------------------------------------------------------
// Devices: status, token, QR, the lines for a sketch; and tags.

const isOnline = (device) => device.status === "ONLINE";

/** "online since 3 minutes", "offline, last seen …", "never connected": what is true. */
function statusText(device) {
	if (isOnline(device)) return device.connectTime ? t("online, connected {0}", ago(device.connectTime)) : t("online");
	const seen = Math.max(device.disconnectTime || 0, device.dataReceivedAt || 0);
	return seen ? t("offline, last seen {0}", ago(seen)) : t("never connected");
}

const boardOptions = (now) => (BOARDS.includes(now) || !now ? BOARDS : [now, ...BOARDS]).map((b) => [b, b]);
const deviceFields = (device) => [
	{ name: "name", label: t("Name"), value: device.name, required: true, max: 50 },
	{
		name: "boardType",
		label: t("Board"),
		options: boardOptions(device.boardType),
		value: device.boardType || "ESP8266",
	},
	{ name: "connectionType", label: t("Connected by"), options: CONNECTIONS(), value: device.connectionType || "WI_FI" },
];

export function showDevices(screen) {
	const project = screen.project();
	if (!project) return;
	const add = async () => {
		const chosen = await ask(t("New device"), deviceFields({ name: "" }), t("Create"));
		if (!chosen) return;
		const device = await createDevice(project, chosen);
		go(`project/${project.id}/device/${device.id}`);
	};
	screen.head(t("Devices"), `project/${project.id}`, iconButton("plus", t("New device"), add), mainMenu());
	const list = h(".list");
	const draw = () =>
		replace(
			list,
			project.devices.map((device) =>
				h(
					"a.list-item",
					{ href: `#/project/${project.id}/device/${device.id}` },
					h("span.dot", { class: isOnline(device) ? "on" : "" }),
					h(
						"span.grow",
						null,
						h("strong", null, device.name || t("Device")),
						h("small", null, [device.boardType, statusText(device)].filter(Boolean).join(" · ")),
					),
					icon("next"),
				),
			),
			!project.devices.length &&
				h(
					".empty",
					null,
					icon("chip"),
					h("p", null, t("No device yet.")),
					button(t("New device"), add, { class: "primary" }),
				),
		);
	draw();
	screen.listen(project, "status", draw);
	screen.listen(project, "changed", draw);
	const timer = setInterval(draw, 30000);
	screen.onleave(() => clearInterval(timer));
	screen.show(
		list,
		h(
			".row.center",
			null,
			h("a.plain", { href: `#/project/${project.id}/tags` }, icon("tag"), t("Tags: several devices as one")),
		),
	);
}

export function showDevice(screen) {
	const project = screen.project();
	if (!project) return;
	const device = project.findDevice(Number(screen.params.device));
	if (!device) return go(`project/${project.id}/devices`, true);
	const change = async () => {
		const chosen = await ask(t("Device"), deviceFields(device));
		if (chosen) await updateDevice(project, device, chosen);
	};
	const more = iconButton(
		"more",
		t("More"),
		() =>
			menu(more, [
				["edit", t("Rename and change"), change],
				[
					"mail",
					t("Mail me the token"),
					async () => {
						await mailToken(project, device);
						toast(t("The mail is sent."));
					},
				],
				[
					"refresh",
					t("New token"),
					async () => {
						if (await confirm(t("New token?"), t("The device is cut off until it has the new one."), t("New token")))
							await refreshToken(project, device);
					},
				],
				[
					"file",
					t("Delete its history"),
					async () => {
						if (await confirm(t("Delete its history?"), t("Its pins' history is deleted for good."), t("Delete"))) {
							await deleteDeviceData(project, device);
							toast(t("Deleted"));
						}
					},
					true,
				],
				[
					"trash",
					t("Delete"),
					async () => {
						if (
							!(await confirm(
								t("Delete “{0}”?", device.name || t("Device")),
								t("Its token stops working. Widgets that use it stay, without a device."),
								t("Delete"),
							))
						)
							return;
						await deleteDevice(project, device);
						go(`project/${project.id}/devices`, true);
					},
					true,
				],
			]),
		{ "aria-haspopup": "menu", "aria-expanded": "false" },
	);
	const box = h("div");
	const draw = () => {
		screen.head(
			device.name || t("Device"),
			`project/${project.id}/devices`,
			iconButton("edit", t("Rename and change"), change),
			more,
		);
		replace(box, summary(device), tokenCard(device), sketches(device));
	};
	draw();
	screen.listen(project, "status", () => replace(box.firstChild, ...summary(device).childNodes));
	screen.listen(project, "changed", draw);
	const timer = setInterval(() => {
		if (box.firstChild) replace(box.firstChild, ...summary(device).childNodes);
	}, 30000);
	screen.onleave(() => clearInterval(timer));
	screen.show(box);
}

function summary(device) {
	const info = device.hardwareInfo || {};
	const facts = [
		[t("State"), h("span", null, h("span.dot", { class: isOnline(device) ? "on" : "" }), statusText(device))],
		[t("Board"), info.boardType || device.boardType],
		[t("Firmware"), [info.version, info.build].filter(Boolean).join(", ")],
		[t("Blynk library"), info.blynkVersion],
		[t("Processor"), info.cpuType],
		[t("Last address"), device.lastLoggedIP],
		[t("Last value"), device.dataReceivedAt ? ago(device.dataReceivedAt) : ""],
		[t("Firmware update"), device.deviceOtaInfo?.otaInitiatedAt ? ago(device.deviceOtaInfo.otaInitiatedAt) : ""],
	];
	return h(
		".card.device-summary",
		null,
		h(
			"dl",
			null,
			facts
				.filter(([, value]) => value)
				.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
		),
	);
}

function tokenCard(device) {
	if (!device.token) return h(".card", null, h("p", null, t("This device has no token.")));
	return h(
		".card",
		null,
		h("h2", null, t("Token")),
		h("p", null, t("The token is what a device logs in with. Keep it to yourself.")),
		h(
			".token-row",
			null,
			h("code.token", { "data-token": "" }, device.token),
			button([icon("copy"), t("Copy")], () => copy(device.token), { class: "primary" }),
			button([icon("qr"), "QR"], () =>
				dialog(t("Token of {0}", device.name || t("Device")), () =>
					h("div", null, qrPicture(device.token), h("code.token", null, device.token)),
				),
			),
		),
	);
}

function sketches(device) {
	const host = location.hostname,
		plain = location.protocol === "http:";
	const values = { token: device.token || "", host, port: plain ? location.port || 80 : 8080, web: location.origin };
	const usual =
		{ "ESP32 Dev Board": "ESP32", "Arduino UNO": device.connectionType === "ETHERNET" ? "Ethernet" : "USB" }[
			device.boardType
		] || (device.connectionType === "USB" ? "USB" : /Raspberry|Orange/.test(device.boardType) ? "Python" : "ESP8266");
	let chosen = SKETCHES.find(([name]) => name === usual)[0];
	const code = h("pre.sketch", { tabIndex: 0, "aria-label": t("Lines for the device") }),
		bar = h(".periods", { role: "group", "aria-label": t("Kind of device") }),
		server = h("p");
	const draw = () => {
		replace(
			bar,
			SKETCHES.map(([name]) =>
				h(
					"button",
					{
						type: "button",
						"aria-pressed": String(name === chosen),
						onclick: () => {
							chosen = name;
							draw();
						},
					},
					name,
				),
			),
		);
		code.textContent = SKETCHES.find(([name]) => name === chosen)[1](values);
		server.textContent = t("Server: {0}, port {1}", values.host, values.port);
	};
	draw();
	if (!plain)
		ports().then(([port]) => {
			values.port = port;
			draw();
		});
	return h(
		".card",
		null,
		h("h2", null, t("Connect it")),
		server,
		bar,
		code,
		h(
			".row",
			null,
			button([icon("copy"), t("Copy")], () => copy(code.textContent)),
			h("span.hint", null, hint()),
		),
	);
}

export function showTags(screen) {
	const project = screen.project();
	if (!project) return;
	const edit = (tag) =>
		dialog(tag ? tag.name : t("New tag"), (close) => {
			const draft = tag ? structuredClone(tag) : { name: "", deviceIds: [] };
			const name = h("input", { value: draft.name, required: true, maxLength: 40 });
			return h(
				"form",
				{
					async onsubmit(event) {
						event.preventDefault();
						try {
							await saveTag(project, { ...draft, name: name.value.trim() });
							close();
						} catch (refusal) {
							explain(refusal);
						}
					},
				},
				field(t("Name"), name),
				checks(
					t("Devices"),
					project.devices.map((d) => [d.id, d.name || `#${d.id}`]),
					draft.deviceIds || [],
					(ids) => {
						draft.deviceIds = ids;
					},
				),
				h(
					".row.end",
					null,
					button(t("Cancel"), () => close()),
					h("button.primary", { type: "submit" }, t("Save")),
				),
			);
		});
	screen.head(
		t("Tags"),
		`project/${project.id}`,
		iconButton("plus", t("New tag"), () => edit(null)),
		mainMenu(),
	);
	const list = h(".list");
	const draw = () =>
		replace(
			list,
			project.tags.map((tag) =>
				h(
					".list-item",
					null,
					icon("tag"),
					h(
						"span.grow",
						null,
						h("strong", null, tag.name),
						h(
							"small",
							null,
							(tag.deviceIds || []).map((id) => project.findDevice(id)?.name || `#${id}`).join(", ") ||
								t("no device yet"),
						),
					),
					iconButton("edit", t("Edit"), () => edit(tag)),
					iconButton("trash", t("Delete"), async () => {
						if (
							await confirm(
								t("Delete “{0}”?", tag.name),
								t("Widgets that use the tag stay, without a device."),
								t("Delete"),
							)
						)
							await deleteTag(project, tag);
					}),
				),
			),
			!project.tags.length &&
				h(
					".empty",
					null,
					icon("tag"),
					h("p", null, t("A tag stands for several devices: one button switches them all.")),
					button(t("New tag"), () => edit(null), { class: "primary" }),
				),
		);
	draw();
	screen.listen(project, "changed", draw);
	screen.show(list);
}

// A QR code as an SVG picture, black on white with its quiet zone.

export function qrPicture(text) {
	const rows = qr(text);
	if (!rows) return h("p.hint", null, t("Too long for a QR code."));
	const size = rows.length + 8;
	let path = "";
	rows.forEach((row, y) =>
		row.forEach((dark, x) => {
			if (dark) path += `M${x + 4} ${y + 4}h1v1h-1z`;
		}),
	);
	return svg(
		"svg",
		{
			viewBox: `0 0 ${size} ${size}`,
			class: "qr-picture",
			role: "img",
			"aria-label": t("QR code"),
			"shape-rendering": "crispEdges",
		},
		svg("rect", { width: size, height: size, fill: "#fff" }),
		svg("path", { d: path, fill: "#000" }),
	);
}

// ---------------------------------------------------------------------------------------------------------------
// Sharing a project: switch, link and QR for guests, a new link that ends the old one.

const guestLink = (email, token) =>
	`${location.origin}${location.pathname}#/guest/${encodeURIComponent(email)}/${encodeURIComponent(token)}`;

export function showShare(screen) {
	const project = screen.project();
	if (!project) return;
	screen.head(t("Share"), `project/${project.id}`, mainMenu());
	const box = h("div");
	const draw = () => {
		const { isShared, sharedToken } = project.document;
		if (!isShared || !sharedToken) {
			return replace(
				box,
				h(
					".card",
					null,
					h("h2", null, t("Show it to others")),
					h(
						"p",
						null,
						t(
							"Whoever has the link sees this project and can use its widgets, without an account. You can end it at any time.",
						),
					),
					!sharedToken && h("p.hint", null, t("The first link costs 1,000 energy.")),
					button(
						t("Share this project"),
						async () => {
							await shareToken(project);
							await share(project, true);
							draw();
						},
						{ class: "primary" },
					),
				),
			);
		}
		const link = guestLink(session.email, sharedToken);
		replace(
			box,
			h(
				".card.share",
				null,
				h("h2", null, t("This project is shared")),
				qrPicture(link),
				h("code.token.link", { "data-link": "" }, link),
				h(
					".row.center",
					null,
					button([icon("copy"), t("Copy the link")], () => copy(link), { class: "primary" }),
					navigator.share &&
						button([icon("share"), t("Send")], () =>
							navigator.share({ url: link, title: project.name }).catch(() => {}),
						),
				),
				h(
					".row.center",
					null,
					button(t("Stop sharing"), async () => {
						await share(project, false);
						draw();
					}),
					button(
						t("New link"),
						async () => {
							if (!(await confirm(t("New link?"), t("Everybody who has the old link is thrown out."), t("New link"))))
								return;
							await shareToken(project, true);
							toast(t("The old link does not work any more."));
							draw();
						},
						{ class: "danger" },
					),
				),
			),
		);
	};
	draw();
	screen.listen(project, "sharing", draw);
	screen.show(box);
}
