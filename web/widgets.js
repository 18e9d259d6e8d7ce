// THE widget table: every type of the protocol, one row each. How it is drawn, how big it starts, what a value does to it,
// and which fields its settings sheet has. A new widget type is a new row.
//
//   name     shown to people (a key of i18n.js)      group, icon   where it stands in the widget box
//   price    energy it costs                         base          S one pin, R one pin that can be polled, M several, N none
//   size     first width and height                  defaults      what a new document has that is neither 0 nor false
//   draw     (view) => element; sets view.onupdate   fields        settings, in order (kinds: screens/sheet.js)
//   start, accept, list, sample                      what values do to its state; without accept a value replaces the last
//   quiet    no title when it has no label of its own       bare          no title at all

import * as control from "./controls.js";
import * as display from "./displays.js";
import * as other from "./displays.js";

// Fields: [kind, document field, label, options]
const text = (name, label, more) => ({ kind: "text", name, label, ...more });
const area = (name, label, more) => ({ kind: "area", name, label, ...more });
const url = (name, label, more) => ({ kind: "url", name, label, ...more });
const number = (name, label, more) => ({ kind: "number", name, label, ...more });
const whole = (name, label, more) => ({ kind: "number", whole: true, name, label, ...more });
const flag = (name, label, more) => ({ kind: "flag", name, label, ...more });
const choice = (name, label, options, more) => ({ kind: "choice", name, label, options, ...more });
const color = (name, label, more) => ({ kind: "color", name, label, ...more });
const list = (name, label, more) => ({ kind: "list", name, label, ...more });
const pins = (labels, more) => ({ kind: "pins", name: "pins", label: "Pins", labels, ...more });
const of = (kind, name, label, more) => ({ kind, name, label, ...more });

const TARGET = of("target", "deviceId", "Device", {});
const PIN = of("pin", "pin", "Pin");
const RANGE = of("range", "min", "Range");
const MAPPING = flag("rangeMappingOn", "Map readings 0–1023 to the range");
const FONT = choice("fontSize", "Font size", [
	["", "Default"],
	["SMALL", "Small"],
	["MEDIUM", "Medium"],
	["LARGE", "Large"],
	["AUTO", "Automatic"],
]);
const ALIGN = [
	["", "Default"],
	["LEFT", "Left"],
	["MIDDLE", "Middle"],
	["RIGHT", "Right"],
];
const rates = (label, first, all) =>
	choice(
		"frequency",
		label,
		[[0, first], ...all.map((ms) => [ms, ms < 60000 ? `${ms / 1000} s` : `${ms / 60000} min`])],
		{ number: true },
	);
const READ = rates("Read every", "When the device sends (push)", [1000, 2000, 5000, 10000, 30000, 60000, 300000]);
const WRITE = rates("Send at most every", "0.1 s", [200, 500, 1000, 2000, 5000]);
const RELEASE = flag("sendOnReleaseOn", "Send only when released");
const FORMAT = text("valueFormatting", "Value format", {
	help: "/pin/ is the value, /pin.#/ one digit after the point, /pin.##/ two: /pin.#/ °C",
});
const SHOW = flag("showValueOn", "Show the value", { fallback: true });
const MODE = choice(
	"pushMode",
	"Mode",
	[
		[true, "Push: on while it is held"],
		[false, "Switch: each press turns it over"],
	],
	{ flag: true },
);
const EDGE = choice("edge", "Corners", [
	["", "Default"],
	["ROUNDED", "Rounded"],
	["SHARP", "Sharp"],
	["PILL", "Pill"],
	["TEXT", "Text only"],
]);
const STYLE = choice("buttonStyle", "Style", [
	["", "Default"],
	["SOLID", "Solid"],
	["OUTLINE", "Outline"],
]);
const ZONE = of("zone", "tzName", "Time zone");
const STATES = [of("state", "onButtonState", "When on"), of("state", "offButtonState", "When off")];

const stream = (max = 255) => ({ pin: -1, min: 0, max });

// Base fields and defaults (spec 04 §11.1).
const LABEL = text("label", "Title"),
	COLOR = color("color", "Colour", { base: true });
const SINGLE = { deviceId: 0, pin: -1, min: 0, max: 255 };
const BASES = {
	S: { defaults: SINGLE, fields: [TARGET, PIN] },
	R: { defaults: { ...SINGLE, max: 1023 }, fields: [TARGET, PIN] },
	M: { defaults: { deviceId: 0 }, fields: [TARGET] },
	N: { defaults: {}, fields: [] },
};

const row = (name, group, icon, price, base, size, draw, fields, defaults = {}, more = {}) => ({
	name,
	group,
	icon,
	price,
	base,
	size,
	draw,
	defaults: { ...BASES[base].defaults, ...defaults },
	fields: [...BASES[base].fields, ...fields, LABEL, COLOR],
	...more,
});

const SLIDER = [RANGE, whole("maximumFractionDigits", "Digits after the point"), SHOW, RELEASE, WRITE];
const STEP = [
	RANGE,
	number("step", "Step"),
	flag("isSendStep", "Send the step, not the sum"),
	flag("isLoopOn", "Start over at the end"),
	flag("isArrowsOn", "Arrows instead of + and –"),
	SHOW,
];
const LEVEL = [RANGE, MAPPING, flag("isAxisFlipOn", "Flip the direction"), SHOW, READ];
const sensor = (name, icon, price, fields = [WRITE], defaults = { frequency: 1000 }) =>
	row(name, "Sensors", icon, price, "S", [4, 2], other.drawSensor, fields, defaults);
const info = (name, group, icon, price, fields, defaults, base = "N", more = {}) =>
	row(name, group, icon, price, base, [4, 1], other.drawInfo, fields, defaults, { bare: true, ...more });
const terminal = { start: display.terminalStart, accept: display.terminalAccept, list: display.terminalList };

export const WIDGETS = {
	// Controls
	BUTTON: row(
		"Button",
		"Controls",
		"button",
		200,
		"S",
		[2, 2],
		control.drawButton,
		[MODE, RANGE, text("onLabel", "Text when on"), text("offLabel", "Text when off"), FONT],
		{ max: 1, onLabel: "ON", offLabel: "OFF" },
	),
	STYLED_BUTTON: row(
		"Styled button",
		"Controls",
		"styledbutton",
		300,
		"S",
		[4, 1],
		control.drawStyledButton,
		[MODE, RANGE, ...STATES, EDGE, STYLE, FONT],
		{ max: 1, onButtonState: { text: "ON" }, offButtonState: { text: "OFF" }, edge: "ROUNDED", buttonStyle: "SOLID" },
		{ quiet: true },
	),
	SWITCH: row(
		"Switch",
		"Controls",
		"switch",
		200,
		"S",
		[2, 1],
		control.drawSwitch,
		[
			RANGE,
			text("onLabel", "Text when on"),
			text("offLabel", "Text when off"),
			color("onBackgroundColor", "Colour when on"),
			color("offBackgroundColor", "Colour when off"),
			color("handleColor", "Knob colour"),
		],
		{ max: 1 },
	),
	SLIDER: row("Slider", "Controls", "slider", 200, "S", [4, 1], control.drawSlider(false), SLIDER, {
		maximumFractionDigits: 0,
		showValueOn: true,
	}),
	VERTICAL_SLIDER: row("Vertical slider", "Controls", "vslider", 200, "S", [1, 4], control.drawSlider(true), SLIDER, {
		maximumFractionDigits: 0,
		showValueOn: true,
	}),
	STEP: row("Step", "Controls", "step", 500, "S", [3, 1], control.drawStep(false), STEP, {
		max: 100,
		step: 1,
		showValueOn: true,
	}),
	VERTICAL_STEP: row("Vertical step", "Controls", "step", 500, "S", [1, 3], control.drawStep(true), STEP, {
		max: 100,
		step: 1,
		showValueOn: true,
	}),
	RGB: row(
		"zeRGBa colour",
		"Controls",
		"rgb",
		400,
		"M",
		[4, 3],
		control.drawRgb,
		[pins(["Red", "Green", "Blue"], { together: "splitMode", apart: "One pin per colour" }), RELEASE, WRITE],
		{ pins: [stream(), stream(), stream()] },
	),
	TWO_AXIS_JOYSTICK: row(
		"Joystick",
		"Controls",
		"joystick",
		400,
		"M",
		[3, 3],
		control.drawJoystick,
		[
			pins(["X", "Y"], { together: "split", apart: "One pin per axis" }),
			flag("autoReturnOn", "Spring back to the middle"),
			WRITE,
		],
		{ autoReturnOn: true, pins: [stream(), stream()] },
	),
	TEXT_INPUT: row(
		"Text input",
		"Controls",
		"input",
		400,
		"S",
		[4, 1],
		control.drawTextInput,
		[text("hint", "Hint"), whole("limit", "At most so many characters"), FONT],
		{},
	),
	NUMBER_INPUT: row(
		"Number input",
		"Controls",
		"number",
		400,
		"S",
		[4, 1],
		control.drawNumberInput,
		[RANGE, number("step", "Step"), text("suffix", "Unit"), flag("isLoopOn", "Start over at the end"), FONT],
		{ max: 100, step: 1 },
	),
	SEGMENTED_CONTROL: row(
		"Segments",
		"Controls",
		"segments",
		400,
		"S",
		[4, 1],
		control.drawSegments,
		[list("labels", "Options"), FONT],
		{ labels: ["One", "Two"] },
	),
	MENU: row(
		"Menu",
		"Controls",
		"menu",
		400,
		"S",
		[4, 1],
		control.drawMenu,
		[list("labels", "Options"), text("hint", "Hint"), FONT],
		{ labels: ["One", "Two"] },
	),
	TIMER: row(
		"Timer",
		"Controls",
		"timer",
		200,
		"S",
		[4, 2],
		control.drawTimer,
		[
			of("time", "startTime", "Start time"),
			text("startValue", "Value sent at the start"),
			of("time", "stopTime", "Stop time"),
			text("stopValue", "Value sent at the end"),
		],
		{ max: 1, startTime: -1, startValue: "1", stopTime: -1, stopValue: "0" },
	),
	TIME_INPUT: row(
		"Time input",
		"Controls",
		"clock",
		200,
		"S",
		[4, 1],
		control.drawTimeInput,
		[
			flag("isStartStopAllowed", "Start and stop time"),
			flag("isDayOfWeekAllowed", "Days of the week"),
			flag("isSunsetSunriseAllowed", "Sunrise and sunset"),
			flag("isTimezoneAllowed", "Choose the time zone"),
			text("format", "Format"),
			ZONE,
		],
		{ startAt: -1, stopAt: -1, isStartStopAllowed: true, isDayOfWeekAllowed: true },
	),
	PLAYER: row("Player", "Controls", "player", 400, "S", [4, 1], control.drawPlayer, [], {}),
	LINK_BUTTON: row(
		"Link button",
		"Controls",
		"link",
		500,
		"N",
		[4, 1],
		control.drawLinkButton,
		[url("url", "Address"), of("state", "offButtonState", "Text and colours"), EDGE, STYLE, FONT],
		{ url: "", offButtonState: { text: "Open" }, onButtonState: { text: "Open" }, allowInBrowser: true },
		{ quiet: true },
	),
	QR: row("QR scanner", "Controls", "qr", 200, "S", [3, 1], control.drawQrScanner, [], {}),

	// Displays
	LED: row("LED", "Displays", "led", 100, "S", [1, 1], display.drawLed, [RANGE], { max: 255 }, { quiet: true }),
	DIGIT4_DISPLAY: row("Value", "Displays", "value", 200, "R", [2, 1], display.drawValue, [RANGE, MAPPING, READ, FONT]),
	LABELED_VALUE_DISPLAY: row(
		"Labelled value",
		"Displays",
		"value",
		400,
		"R",
		[4, 1],
		display.drawLabeledValue,
		[RANGE, MAPPING, FORMAT, READ, choice("textAlignment", "Alignment", ALIGN), FONT],
		{ valueFormatting: "/pin/", textAlignment: "LEFT" },
	),
	GAUGE: row("Gauge", "Displays", "gauge", 300, "R", [4, 3], display.drawGauge, [RANGE, MAPPING, FORMAT, READ, FONT], {
		max: 100,
	}),
	LEVEL_DISPLAY: row("Level", "Displays", "level", 200, "R", [4, 1], display.drawLevel(false), LEVEL, {
		max: 100,
		showValueOn: true,
	}),
	VERTICAL_LEVEL_DISPLAY: row(
		"Vertical level",
		"Displays",
		"vlevel",
		200,
		"R",
		[1, 4],
		display.drawLevel(true),
		LEVEL,
		{ max: 100, showValueOn: true },
	),
	LCD: row(
		"LCD",
		"Displays",
		"lcd",
		400,
		"M",
		[5, 2],
		display.drawLcd,
		[
			pins(["Line 1", "Line 2"]),
			flag("advancedMode", "Advanced: the device writes at any place"),
			text("textFormatLine1", "Format of line 1", { help: "/pin0/ and /pin1/ are the two values" }),
			text("textFormatLine2", "Format of line 2"),
			flag("textLight", "Light text"),
			READ,
		],
		{ textFormatLine1: "/pin0/", textFormatLine2: "/pin1/", pins: [stream(1023), stream(1023)] },
		{ start: display.lcdStart, accept: display.lcdAccept },
	),
	TERMINAL: row(
		"Terminal",
		"Displays",
		"terminal",
		200,
		"S",
		[8, 4],
		display.drawTerminal,
		[
			flag("terminalInputOn", "Input line"),
			flag("autoScrollOn", "Scroll to the newest line"),
			flag("attachNewLine", "Add a new line to what is sent"),
			flag("textLightOn", "Light text"),
		],
		{ autoScrollOn: true, terminalInputOn: true },
		terminal,
	),
	TABLE: row(
		"Table",
		"Displays",
		"table",
		800,
		"S",
		[8, 4],
		display.drawTable,
		[
			of("columns", "columns", "Columns"),
			flag("isClickableRows", "Rows can be ticked"),
			flag("isReoderingAllowed", "Rows can be moved"),
		],
		{ columns: [{ name: "Name" }, { name: "Value" }], rows: [] },
		{ start: display.tableStart, accept: display.tableAccept, list: display.tableList },
	),
	ENHANCED_GRAPH: row(
		"Chart",
		"Displays",
		"chart",
		900,
		"N",
		[8, 4],
		other.drawGraph,
		[
			of("streams", "dataStreams", "Lines"),
			of("periods", "selectedPeriods", "Periods"),
			flag("showTitle", "Show the title"),
			flag("showLegend", "Show the legend"),
			flag("xAxisValues", "Times on the axis"),
			flag("yAxisValues", "Values on the axis"),
		],
		{
			dataStreams: [],
			showLegend: true,
			yAxisValues: true,
			xAxisValues: true,
			showXAxis: true,
			allowFullScreen: true,
			period: "ONE_HOUR",
			selectedPeriods: ["LIVE", "ONE_HOUR", "SIX_HOURS", "DAY", "N_WEEK", "N_MONTH", "N_THREE_MONTHS"],
		},
		{ sample: other.graphSample, quiet: true },
	),
	MAP: row(
		"Map",
		"Displays",
		"map",
		600,
		"S",
		[8, 5],
		display.drawMap,
		[
			flag("isPinToLatestPoint", "Follow the newest point"),
			flag("isMyLocationSupported", "Show where I am"),
			whole("radius", "Radius in metres"),
		],
		{ isPinToLatestPoint: true },
		{ start: display.mapStart, accept: display.mapAccept },
	),
	IMAGE: row(
		"Image",
		"Displays",
		"image",
		600,
		"S",
		[4, 4],
		display.drawImage,
		[
			list("urls", "Addresses of the pictures", { url: true }),
			choice("scaling", "Scaling", [
				["FIT", "Fit"],
				["FILL", "Fill"],
				["NONE", "Original size"],
			]),
			whole("opacity", "Opacity, %"),
			whole("scale", "Scale, %"),
			whole("rotation", "Rotation, degrees"),
		],
		{ source: "URL", scaling: "FIT", urls: [], opacity: 100, scale: 100 },
		{ quiet: true },
	),
	VIDEO: row(
		"Video",
		"Displays",
		"video",
		500,
		"S",
		[8, 4],
		display.drawVideo,
		[url("url", "Address")],
		{ url: "" },
		{ quiet: true },
	),
	TEXT: row(
		"Text",
		"Displays",
		"text",
		100,
		"N",
		[4, 1],
		display.drawText,
		[
			area("text", "Text"),
			choice("textSize", "Font size", [
				["AUTO", "Automatic"],
				["SMALL", "Small"],
				["MEDIUM", "Medium"],
				["LARGE", "Large"],
			]),
			choice("alignment", "Alignment", ALIGN),
		],
		{ textSize: "AUTO", text: "Text" },
		{ quiet: true },
	),

	// Interface
	TABS: row(
		"Tabs",
		"Interface",
		"tabs",
		0,
		"N",
		[8, 1],
		control.drawTabs,
		[
			of("tabs", "tabs", "Tabs"),
			color("activeTxtColor", "Colour of the open tab"),
			color("textColor", "Colour of the others"),
			color("underlineColor", "Line colour"),
		],
		{ tabId: -1, tabs: [{ label: "Tab 1" }, { id: 1, label: "Tab 2" }] },
		{ quiet: true },
	),
	DEVICE_SELECTOR: row(
		"Device selector",
		"Interface",
		"selector",
		1900,
		"N",
		[4, 1],
		control.drawSelector,
		[of("devices", "deviceIds", "Devices to choose from"), text("hint", "Hint"), FONT],
		{ value: 0, deviceIds: [] },
	),
	DEVICE_TILES: row(
		"Device tiles",
		"Interface",
		"tiles",
		1700,
		"N",
		[8, 6],
		other.drawTiles,
		[
			of("templates", "templates", "Templates"),
			whole("columns", "Columns"),
			whole("rows", "Rows"),
			flag("disableWhenOffline", "Lock tiles of devices that are offline"),
			choice("sortType", "Order", [
				["", "As added"],
				["DEVICE_NAME_ASC", "By name"],
				["DEVICE_NAME_DESC", "By name, backwards"],
				["TEMPLATE_NAME_ASC", "By template"],
				["TEMPLATE_NAME_DESC", "By template, backwards"],
				["STATUS_CRITICAL", "Offline first"],
				["STATUS_OK", "Online first"],
			]),
		],
		{ templates: [], tiles: [], rows: 2, columns: 2, alignment: "LEFT" },
		{ quiet: true },
	),

	// Notifications
	NOTIFICATION: info(
		"Notifications",
		"Notifications",
		"bell",
		400,
		[
			flag("notifyWhenOffline", "Also when a device goes offline"),
			choice(
				"notifyWhenOfflineIgnorePeriod",
				"Only when it stays away for",
				[
					[0, "0 s"],
					[60000, "1 min"],
					[300000, "5 min"],
					[900000, "15 min"],
					[3600000, "1 h"],
				],
				{ number: true },
			),
			choice("priority", "Priority", [
				["normal", "Normal"],
				["high", "High"],
			]),
		],
		{ priority: "normal" },
	),
	EMAIL: info(
		"E-mail",
		"Notifications",
		"mail",
		100,
		[
			text("to", "To", { type: "email" }),
			choice("contentType", "Kind", [
				["TEXT_HTML", "HTML"],
				["TEXT_PLAIN", "Plain text"],
			]),
		],
		{ contentType: "TEXT_HTML" },
	),
	SMS: info("SMS", "Notifications", "chat", 100, [text("to", "Phone number", { type: "tel" })], {}),
	TWITTER: info(
		"Tweet",
		"Notifications",
		"chat",
		0,
		[
			text("username", "User name"),
			text("token", "Token", { type: "password" }),
			text("secret", "Secret", { type: "password" }),
		],
		{},
	),

	// Automation and other
	EVENTOR: info("Rules", "Automation", "rule", 500, [of("rules", "rules", "Rules"), TARGET], { rules: [] }),
	WEBHOOK: info(
		"Webhook",
		"Automation",
		"webhook",
		500,
		[
			choice("method", "Method", [
				["GET", "GET"],
				["POST", "POST"],
				["PUT", "PUT"],
				["DELETE", "DELETE"],
			]),
			url("url", "Address", { help: "/pin/ is the value, /pin[0]/ its first part" }),
			of("headers", "headers", "Headers"),
			area("body", "Body"),
		],
		{ url: "http://", method: "GET", headers: [] },
		"S",
	),
	REPORT: info(
		"Reports",
		"Automation",
		"report",
		0,
		[of("sources", "reportSources", "Pins to log"), flag("allowEndUserToDeleteDataOn", "Guests may delete data")],
		{ reportSources: [], reports: [], fontSize: "MEDIUM", edge: "ROUNDED", buttonStyle: "SOLID" },
	),
	RTC: info("Clock for devices", "Automation", "clock", 100, [ZONE], {}),
	BRIDGE: info("Bridge", "Automation", "bridge", 100, [], {}),
	BLUETOOTH: info("Bluetooth LE", "Automation", "bluetooth", 0, [text("name", "Name"), TARGET], {}),
	BLUETOOTH_SERIAL: info("Bluetooth serial", "Automation", "bluetooth", 0, [text("name", "Name"), TARGET], {}),

	// Sensors of the phone or computer
	GPS_TRIGGER: sensor(
		"Place trigger",
		"gps",
		500,
		[
			number("triggerLat", "Latitude"),
			number("triggerLon", "Longitude"),
			whole("triggerRadius", "Radius in metres"),
			flag("triggerOnEnter", "Send 1 when I arrive (else when I leave)"),
		],
		{ triggerOnEnter: true, triggerRadius: 100 },
	),
	GPS_STREAMING: sensor("Position", "gps", 500, [WRITE], { frequency: 1000 }),
	ACCELEROMETER: sensor("Accelerometer", "sensor", 400),
	LIGHT: sensor("Light sensor", "sun", 300),
	PROXIMITY: sensor("Proximity", "sensor", 300),
	TEMPERATURE: sensor("Thermometer", "thermometer", 300, [flag("isCelsius", "Celsius"), WRITE], {
		isCelsius: true,
		frequency: 1000,
	}),
	GRAVITY: sensor("Gravity", "sensor", 300),
	BAROMETER: sensor("Barometer", "gauge", 300),
	HUMIDITY: sensor("Humidity", "sensor", 300),
};

export const GROUPS = ["Controls", "Displays", "Interface", "Automation", "Notifications", "Sensors"];

/** A new document of a type, at a place: what CREATE_WIDGET carries. */
export function newWidget(type, id, place) {
	const { defaults, name } = WIDGETS[type];
	const widget = { type, id, ...place, isDefaultColor: true, ...structuredClone(defaults) };
	if (type === "DEVICE_SELECTOR") widget.label = name;
	return widget;
}

/** What a widget costs, and gives back: its price, reports 2,900 each, tiles with all that is in their templates. */
export function priceOf(w) {
	if (w.type === "REPORT") return 2900 * (w.reports || []).length;
	const inside = (w.templates || []).flatMap((template) => template.widgets || []);
	return (WIDGETS[w.type]?.price || 0) + inside.reduce((sum, x) => sum + priceOf(x), 0);
}
