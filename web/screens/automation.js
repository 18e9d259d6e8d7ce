// What happens by itself, in plain sentences: rules of the eventor, timers, webhooks; and reports.

import { mainMenu } from "../app.js";
import { button, confirm, dialog, field, h, icon, iconButton, replace, select, toast } from "../dom.js";
import {
	clock,
	clockSeconds,
	clockToUtc,
	numberText,
	parseNumber,
	userZone,
	utcToClock,
	zoneOffset,
} from "../format.js";
import { ago, DAYS, LONG_DAYS, t } from "../i18n.js";
import { arrange, firstFree, freeId } from "../layout.js";
import { pinName, PROPERTIES, validPin } from "../model.js";
import {
	createWidget,
	deleteReport,
	deleteWidget,
	explain,
	runReport,
	saveReport,
	session,
	updateWidget,
	widgetId,
} from "../session.js";
import { openSheet, pinInput, sourceFields, targetOptions, tie, zoneInput } from "../sheet.js";
import { newWidget } from "../widgets.js";

// Conditions: type -> [text, which fields it has].
const CONDITIONS = () => ({
	GT: [t("is higher than"), "number"],
	GTE: [t("is at least"), "number"],
	LT: [t("is lower than"), "number"],
	LTE: [t("is at most"), "number"],
	EQ: [t("is equal to"), "number"],
	NEQ: [t("is not equal to"), "number"],
	BETWEEN: [t("is between"), "two"],
	NOT_BETWEEN: [t("is not between"), "two"],
	CHANGED: [t("changes"), ""],
	STR_EQUAL: [t("is the text"), "text"],
	STR_NOT_EQUAL: [t("is not the text"), "text"],
});
// Properties as rules name them (spec 04 §13.1).
const RULE_PROPERTIES = Object.fromEntries(
	Object.keys(PROPERTIES)
		.filter((name) => !/hint|abled/.test(name))
		.map((name) => [name === "maximumFractionDigits" ? "FRACTION" : name.replace(/[A-Z]/g, "_$&").toUpperCase(), name]),
);
const ACTIONS = () => ({
	SETPIN: t("set a pin"),
	NOTIFY: t("notify me"),
	MAIL: t("send a mail"),
	TWIT: t("tweet"),
	SET_PROP: t("change a widget"),
});

/** A pin with the title of a widget on it: "Temperature (V5)". */
function pinTitle(project, stream) {
	if (!validPin(stream)) return t("a pin");
	const widget = project.allWidgets().find((w) => w.label && w.pin === stream.pin && w.pinType === stream.pinType);
	return widget ? `${widget.label} (${pinName(stream)})` : pinName(stream);
}

const quoted = (text) => `“${text ?? ""}”`;

function conditionText(condition) {
	const [text, kind] = CONDITIONS()[condition?.type] || [String(condition?.type), ""];
	if (kind === "number") return `${text} ${numberText(Number(condition.value))}`;
	if (kind === "two")
		return `${text} ${t("{0} and {1}", numberText(Number(condition.left)), numberText(Number(condition.right)))}`;
	return kind === "text" ? `${text} ${quoted(condition.value)}` : text;
}

function actionText(project, action) {
	switch (action.type) {
		case "SETPIN":
			return t("set {0} to {1}", pinTitle(project, action.pin), String(action.value ?? "").replaceAll("\0", ", "));
		case "NOTIFY":
			return t("notify me: {0}", quoted(action.message));
		case "MAIL":
			return t("send a mail: {0}", quoted(action.subject || action.message));
		case "TWIT":
			return t("tweet: {0}", quoted(action.message));
		case "SET_PROP":
			return t(
				"change {0} of {1} to {2}",
				RULE_PROPERTIES[action.property] || String(action.property),
				pinTitle(project, action.pin),
				action.value ?? "",
			);
		default:
			return String(action.type);
	}
}

const daysText = (days) =>
	days.length === 7
		? t("every day")
		: days.length === 5 && days.every((d) => d <= 5)
			? t("Monday to Friday")
			: days.map((d) => DAYS()[d - 1]).join(", ");

/** A rule as a sentence. */
function ruleText(project, rule) {
	const what = (rule.actions || []).map((action) => actionText(project, action)).join(", ") || t("do nothing");
	if (rule.triggerTime) {
		const zone = rule.triggerTime.tzName || "UTC";
		const at = utcToClock(rule.triggerTime.time, zone) + (zone === userZone() ? "" : ` (${zone})`);
		return t("At {0}, {1}: {2}", at, daysText(rule.triggerTime.days || []), what);
	}
	return t("When {0} {1}: {2}", pinTitle(project, rule.triggerPin), conditionText(rule.condition), what);
}

function timerText(project, w) {
	const pin = pinTitle(project, w);
	const parts = [];
	if (w.startTime >= 0 && w.startValue)
		parts.push(t("at {0} set {1} to {2}", utcToClock(w.startTime), pin, w.startValue));
	if (w.stopTime >= 0 && w.stopValue) parts.push(t("at {0} set {1} to {2}", utcToClock(w.stopTime), pin, w.stopValue));
	return parts.length ? `${t("Every day")}: ${parts.join(", ")}` : t("This timer has no time yet.");
}

export function showRules(screen) {
	const project = screen.project();
	if (!project) return;
	screen.head(t("Rules and timers"), `project/${project.id}`, mainMenu());
	const box = h("div");
	const draw = () => {
		const eventor = project.first("EVENTOR");
		const rules = eventor?.rules || [];
		const save = async (next) => {
			await updateWidget(project, eventor, { ...structuredClone(eventor), rules: next });
		};
		const edit = async (rule) => {
			const holder = eventor || (await addWidget(project, "EVENTOR"));
			if (!holder) return;
			const changed = await ruleDialog(project, rule);
			if (!changed) return;
			const now = [...(holder.rules || [])];
			if (rule) now[now.indexOf(rule)] = changed;
			else now.push(changed);
			try {
				await updateWidget(project, holder, { ...structuredClone(holder), rules: now });
			} catch (refusal) {
				explain(refusal);
			}
		};
		const needs = missing(project, rules);
		replace(
			box,
			!project.active &&
				h(
					".note",
					null,
					icon("pausebox"),
					h("span", null, t("This project is paused: values are not passed on, rules and timers rest.")),
				),
			h(
				".card",
				null,
				h("h2", null, t("Rules")),
				eventor &&
					project.devices.length > 1 &&
					field(
						t("Device"),
						tie(
							select(targetOptions(project, { withSelectors: false, withTags: false }), eventor.deviceId || 0),
							async (value) => {
								await updateWidget(project, eventor, { ...structuredClone(eventor), deviceId: Number(value) }).catch(
									explain,
								);
							},
						),
					),
				h(
					".list",
					null,
					rules.map((rule) =>
						h(
							".list-item",
							{ class: rule.isActive ? "" : "inactive" },
							h(
								"button.switch.small",
								{
									type: "button",
									role: "switch",
									"aria-checked": String(Boolean(rule.isActive)),
									"aria-label": t("active"),
									onclick: () =>
										save(rules.map((r) => (r === rule ? { ...r, isActive: !r.isActive } : r))).catch(explain),
								},
								h("span.track", null, h("span.knob")),
							),
							h("span.grow", null, ruleText(project, rule)),
							iconButton("edit", t("Edit"), () => edit(rule)),
							iconButton("trash", t("Delete"), async () => {
								if (await confirm(t("Delete this rule?"), ruleText(project, rule), t("Delete")))
									await save(rules.filter((r) => r !== rule)).catch(explain);
							}),
						),
					),
				),
				!rules.length && h("p.hint", null, t("No rule yet. Example: when V5 is higher than 30: notify me.")),
				needs.map(([type, text]) =>
					h(
						".note",
						null,
						icon("info"),
						h("span", null, text),
						button(t("Add"), () => addWidget(project, type)),
					),
				),
				button([icon("plus"), t("New rule")], () => edit(null), { class: "primary" }),
			),
			widgetCard(project, "TIMER", t("Timers"), (w) => timerText(project, w), t("New timer")),
			widgetCard(
				project,
				"WEBHOOK",
				t("Webhooks"),
				(w) => t("When {0} gets a value: {1} {2}", pinTitle(project, w), w.method || "GET", w.url || "…"),
				t("New webhook"),
			),
		);
	};
	draw();
	screen.listen(project, "changed", draw);
	screen.listen(project, "activity", draw);
	screen.show(box);
}

// Actions that need a widget of their own in the project to do anything.
function missing(project, rules) {
	const kinds = new Set(rules.flatMap((rule) => (rule.actions || []).map((action) => action.type)));
	return [
		["NOTIFY", "NOTIFICATION", t("Notifications need the Notifications widget in the project.")],
		["TWIT", "TWITTER", t("Tweets need the Tweet widget in the project.")],
	]
		.filter(([action, type]) => kinds.has(action) && !project.first(type))
		.map(([, type, text]) => [type, text]);
}

function widgetCard(project, type, title, sentence, add) {
	const all = project.widgets.filter((w) => w.type === type);
	const edit = (widget) =>
		openSheet({
			project,
			widget,
			place: null,
			save: (next) => updateWidget(project, widget, next).catch(explain),
			remove: () => removeWidget(project, widget),
			duplicate: () => toast(t("Use edit mode for this.")),
		});
	return h(
		".card",
		null,
		h("h2", null, title),
		h(
			".list",
			null,
			all.map((w) =>
				h(
					".list-item",
					null,
					h("span.grow", null, sentence(w)),
					iconButton("edit", t("Edit"), () => edit(w)),
				),
			),
		),
		!all.length && h("p.hint", null, t("None yet.")),
		button([icon("plus"), add], async () => {
			const made = await addWidget(project, type);
			if (made) edit(made);
		}),
	);
}

async function removeWidget(project, widget) {
	if (await confirm(t("Delete?"), t("The widget is deleted from the project."), t("Delete")))
		await deleteWidget(project, widget, null).catch(explain);
}

/** Put a widget at the end of the project: rules, timers and webhooks live in widgets. */
async function addWidget(project, type) {
	const tab = project.first("TABS") ? 0 : null;
	const there = tab === null ? project.widgets : project.widgets.filter((w) => (w.tabId || 0) <= 0);
	const { places, columns } = arrange(there);
	const bottom = Math.max(0, ...places.map((p) => p.y + p.height));
	const made = newWidget(type, widgetId(project, type), { x: 0, y: 0, width: 1, height: 1 });
	const [width, height] = [4, type === "TIMER" ? 2 : 1];
	Object.assign(made, firstFree(width, height, places, columns, bottom > 0 ? bottom - 1 : 0));
	if (type === "EVENTOR") made.deviceId = project.devices[0]?.id ?? 0;
	if (type === "TIMER" || type === "WEBHOOK")
		Object.assign(made, { pin: 1, pinType: "VIRTUAL", deviceId: project.devices[0]?.id ?? 0 });
	try {
		await createWidget(project, made, null);
		return made;
	} catch (refusal) {
		explain(refusal);
		return null;
	}
}

const firstPin = () => ({ pin: 1, pinType: "VIRTUAL", max: 255 });

// A rule is edited as a sentence: When … then …
function ruleDialog(project, old) {
	const draft = old
		? structuredClone(old)
		: {
				triggerPin: firstPin(),
				condition: { type: "GT", value: 0 },
				actions: [{ type: "NOTIFY", message: "" }],
				isActive: true,
			};
	draft.actions ||= [];
	let kind = draft.triggerTime ? "time" : "pin";
	return dialog(
		old ? t("Rule") : t("New rule"),
		(close) => {
			const when = h("div"),
				what = h("div"),
				problem = h("p.problem", { role: "alert" });
			const drawWhen = () => {
				const kinds = select(
					[
						["pin", t("a pin's value …")],
						["time", t("the time is …")],
					],
					kind,
					{ "aria-label": t("When") },
				);
				kinds.addEventListener("change", () => {
					kind = kinds.value;
					if (kind === "time") {
						draft.triggerTime ||= {
							id: Math.floor(Math.random() * 1e9),
							days: [1, 2, 3, 4, 5, 6, 7],
							time: clockToUtc("08:00"),
							tzName: userZone(),
						};
					} else {
						draft.triggerPin ||= firstPin();
						draft.condition ||= { type: "GT", value: 0 };
					}
					drawWhen();
				});
				replace(when, kinds, kind === "pin" ? pinWhen() : timeWhen());
			};
			const pinWhen = () => {
				const inputs = h("div");
				const c = draft.condition;
				const number = (name, label) =>
					field(
						label,
						tie(h("input", { type: "number", step: "any", value: c[name] ?? 0, required: true }), (text) => {
							c[name] = parseNumber(text) ?? 0;
						}),
					);
				const draw = () => {
					const fields = CONDITIONS()[c.type]?.[1];
					replace(
						inputs,
						fields === "number" && number("value", t("Value")),
						fields === "two" && h(".row.range", null, number("left", t("from")), number("right", t("to"))),
						fields === "text" &&
							field(
								t("Text"),
								tie(h("input", { value: c.value ?? "" }), (text) => {
									c.value = text;
								}),
							),
					);
				};
				const type = select(
					Object.entries(CONDITIONS()).map(([key, [text]]) => [key, text]),
					c.type,
					{ "aria-label": t("Condition") },
				);
				type.addEventListener("change", () => {
					draft.condition = fresh(type.value);
					drawWhen();
				});
				draw();
				return h("div", null, pinInput(draft.triggerPin, t("Pin")), type, inputs);
			};
			const timeWhen = () => {
				const time = draft.triggerTime;
				time.tzName ||= "UTC";
				const at = h("input", { type: "time", step: 1, value: utcToClock(time.time, time.tzName), required: true });
				at.addEventListener("input", () => {
					time.time = clockToUtc(at.value, time.tzName);
				});
				return h(
					"div",
					null,
					field(t("Time"), at),
					h(
						".days",
						{ role: "group", "aria-label": t("Days of the week") },
						DAYS().map((name, i) =>
							h(
								"label.day",
								null,
								tie(
									h("input", { type: "checkbox", checked: (time.days || []).includes(i + 1) }),
									(on) => {
										time.days = [1, 2, 3, 4, 5, 6, 7].filter((d) => (d === i + 1 ? on : (time.days || []).includes(d)));
									},
									"change",
								),
								name,
							),
						),
					),
					field(
						t("Time zone"),
						zoneInput(time.tzName, (zone) => {
							time.tzName = zone;
							time.time = clockToUtc(at.value, zone);
						}),
					),
				);
			};
			const drawWhat = () =>
				replace(
					what,
					draft.actions.map((action, i) => {
						const type = select(Object.entries(ACTIONS()), action.type, { "aria-label": t("Action") });
						type.addEventListener("change", () => {
							draft.actions[i] = freshAction(type.value);
							drawWhat();
						});
						return h(
							"fieldset.rows-item.action",
							null,
							h("legend", null, i ? t("and") : t("then")),
							h(
								".row",
								null,
								type,
								iconButton("trash", t("Remove"), () => {
									draft.actions.splice(i, 1);
									drawWhat();
								}),
							),
							actionFields(action),
						);
					}),
					button(
						[icon("plus"), t("Add an action")],
						() => {
							draft.actions.push(freshAction("SETPIN"));
							drawWhat();
						},
						{ class: "plain" },
					),
				);
			drawWhen();
			drawWhat();
			return h(
				"form.sheet",
				{
					onsubmit(event) {
						event.preventDefault();
						if (kind === "time") {
							delete draft.triggerPin;
							delete draft.condition;
						} else delete draft.triggerTime;
						problem.textContent =
							kind === "pin" && !validPin(draft.triggerPin)
								? t("Choose a pin.")
								: kind === "time" && !draft.triggerTime.days.length
									? t("Choose a day.")
									: !draft.actions.length
										? t("Add an action.")
										: draft.actions.some((a) => (a.pin ? !validPin(a.pin) : !a.message))
											? t("An action is not complete.")
											: "";
						if (!problem.textContent) close(draft);
					},
				},
				h("fieldset", null, h("legend", null, t("When")), when),
				what,
				problem,
				h(
					".row.end",
					null,
					button(t("Cancel"), () => close()),
					h("button.primary", { type: "submit" }, t("Save")),
				),
			);
		},
		"side",
	);
}

function fresh(type) {
	const fields = CONDITIONS()[type][1];
	return {
		type,
		...(fields === "number" && { value: 0 }),
		...(fields === "two" && { left: 0, right: 100 }),
		...(fields === "text" && { value: "" }),
	};
}

function freshAction(type) {
	if (type === "SETPIN") return { type, pin: { ...firstPin(), max: 1 }, value: "1", setPinType: "CUSTOM" };
	if (type === "SET_PROP") return { type, pin: firstPin(), property: "LABEL", value: "" };
	return type === "MAIL" ? { type, subject: "", message: "" } : { type, message: "" };
}

function actionFields(action) {
	const text = (name, label, tag = "input", help = "") =>
		field(
			label,
			tie(h(tag, { value: action[name] ?? "" }), (value) => {
				action[name] = value;
			}),
			help,
		);
	const inMessage = t("/pin/ is replaced by the value.");
	if (action.type === "SETPIN") {
		return h(
			"div",
			null,
			pinInput(action.pin, t("Pin")),
			tie2(action),
			field(
				t("Value"),
				tie(h("input", { value: String(action.value ?? "").replaceAll("\0", ","), required: true }), (value) => {
					action.value = value;
					action.setPinType = "CUSTOM";
				}),
			),
		);
	}
	if (action.type === "SET_PROP") {
		return h(
			"div",
			null,
			pinInput(action.pin, t("Pin")),
			field(
				t("Property"),
				tie(select(Object.entries(RULE_PROPERTIES), action.property), (value) => {
					action.property = value;
				}),
			),
			text("value", t("Value")),
		);
	}
	if (action.type === "MAIL")
		return h("div", null, text("subject", t("Subject")), text("message", t("Message"), "textarea", inMessage));
	return text("message", t("Message"), "textarea", inMessage);
}

// A stored value keeps its kind (ON, OFF, own) unless it is changed.
const tie2 = (action) =>
	action.setPinType && action.setPinType !== "CUSTOM"
		? h("p.hint", null, action.setPinType === "ON" ? t("ON") : t("OFF"))
		: null;

// ---------------------------------------------------------------------------------------------------------------
// Reports: what is sent, when and to whom; the files that were made, to download.

const DAY_MS = 86400000;
const KINDS = () => ({
	ONE_TIME: t("once, for the time before"),
	DAILY: t("every day"),
	WEEKLY: t("every week"),
	MONTHLY: t("every month"),
});

/** Milliseconds of atTime as a clock time of the report's zone, and back. */
const atClock = (ms, zone) => clock((((Math.floor(ms / 1000) + zoneOffset(zone, ms)) % 86400) + 86400) % 86400);
function atMillis(text, zone) {
	const now = Date.now();
	const midnight = Math.floor((Math.floor(now / 1000) + zoneOffset(zone, now)) / 86400) * 86400;
	return (midnight + Math.max(0, clockSeconds(text)) - zoneOffset(zone, now)) * 1000;
}

function reportText(report) {
	const type = report.reportType || {};
	const zone = report.tzName || "UTC";
	const at = atClock(type.atTime || 0, zone);
	const when =
		{
			ONE_TIME: t("Once, of the last {0} days", Math.round((type.rangeMillis || 0) / DAY_MS)),
			DAILY: t("Every day at {0}", at),
			WEEKLY: t("Every {0} at {1}", LONG_DAYS()[(type.dayOfTheWeek || 1) - 1], at),
			MONTHLY:
				type.dayOfMonth === "LAST"
					? t("On the last day of the month at {0}", at)
					: t("On the first day of the month at {0}", at),
		}[type.type] || "";
	return `${when}${zone === userZone() || type.type === "ONE_TIME" ? "" : ` (${zone})`} → ${report.recipients || ""}`;
}

const RESULTS = () => ({ OK: t("sent"), NO_DATA: t("no data"), ERROR: t("failed"), EXPIRED: t("over") });

export function showReports(screen) {
	const project = screen.project();
	if (!project) return;
	screen.head(t("Reports"), `project/${project.id}`, mainMenu());
	const box = h("div"),
		files = h(".card");
	const draw = () => {
		const widget = project.first("REPORT");
		if (!widget) {
			return replace(
				box,
				h(
					".empty",
					null,
					icon("report"),
					h("p", null, t("Reports send the history of pins as a table by mail.")),
					button(t("Set up reports"), () => addReportWidget(project), { class: "primary" }),
				),
			);
		}
		const logged = (widget.reportSources || []).reduce(
			(n, s) => n + (s.reportDataStreams || s.dataStreams || []).length,
			0,
		);
		const settings = () =>
			openSheet({
				project,
				widget,
				place: null,
				save: (next) => updateWidget(project, widget, next).catch(explain),
				remove: () => toast(t("Use edit mode for this.")),
				duplicate: () => {},
			});
		replace(
			box,
			h(
				".card",
				null,
				h("h2", null, t("Pins to log")),
				h(
					"p",
					null,
					logged ? t("Pins logged for reports: {0}", logged) : t("No pin is logged yet: choose the pins first."),
				),
				button([icon("gear"), t("Choose the pins")], settings, { class: logged ? "" : "primary" }),
			),
			h(
				".card",
				null,
				h("h2", null, t("Reports")),
				h(
					".list",
					null,
					(widget.reports || []).map((report) =>
						h(
							".list-item",
							{ class: report.isActive ? "" : "inactive" },
							icon("report"),
							h(
								"span.grow",
								null,
								h("strong", null, report.name || t("Report")),
								h("small", null, reportText(report)),
								h(
									"small",
									null,
									[
										report.nextReportAt > Date.now() &&
											report.isActive &&
											t("next: {0}", new Date(report.nextReportAt).toLocaleString()),
										report.lastReportAt > 0 &&
											t("last: {0}, {1}", ago(report.lastReportAt), RESULTS()[report.lastRunResult] || ""),
									]
										.filter(Boolean)
										.join(" · "),
								),
							),
							iconButton("play", t("Send now"), () => run(project, widget, report)),
							iconButton("edit", t("Edit"), () => edit(project, widget, report)),
							iconButton("trash", t("Delete"), async () => {
								if (await confirm(t("Delete “{0}”?", report.name || t("Report")), reportText(report), t("Delete")))
									await deleteReport(project, widget, report).catch(explain);
							}),
						),
					),
				),
				!(widget.reports || []).length && h("p.hint", null, t("None yet.")),
				button([icon("plus"), t("New report")], () => edit(project, widget, null), { class: "primary" }),
			),
		);
	};
	async function run(p, widget, report) {
		try {
			await runReport(p, widget, report);
			toast(RESULTS()[report.lastRunResult] || t("Done"), { error: report.lastRunResult !== "OK" });
			loadFiles();
		} catch (refusal) {
			explain(refusal);
		}
	}
	async function loadFiles() {
		const token = project.devices.find((d) => d.token)?.token;
		const answer = token && (await fetch(`${token}/reports`).catch(() => null));
		const entries = answer?.ok ? await answer.json() : [];
		const title = (id) => project.first("REPORT")?.reports?.find((report) => report.id === id)?.name || t("Report");
		replace(
			files,
			h("h2", null, t("Files")),
			h(
				".list",
				null,
				entries.map(({ name, report, made }) =>
					h(
						".list-item",
						null,
						icon("file"),
						h("span.grow", null, title(report), h("small", null, new Date(made).toLocaleString())),
						h(
							"a.icon-button",
							{ href: encodeURIComponent(name), download: name, "aria-label": t("Download"), title: t("Download") },
							icon("download"),
						),
					),
				),
			),
			!entries.length && h("p.hint", null, t("No file yet. They are kept here also when no mail is set up.")),
		);
	}
	draw();
	screen.listen(project, "changed", draw);
	screen.show(box, files);
	loadFiles();
}

async function addReportWidget(project) {
	const { places, columns } = arrange(project.widgets.filter((w) => (w.tabId || 0) <= 0));
	const widget = newWidget("REPORT", widgetId(project, "REPORT"), { x: 0, y: 0, width: 4, height: 1 });
	Object.assign(widget, firstFree(4, 1, places, columns));
	await createWidget(project, widget, null).catch(explain);
}

function edit(project, widget, old) {
	const draft = old
		? structuredClone(old)
		: {
				id: freeId((widget.reports || []).map((r) => r.id)),
				name: t("Report {0}", (widget.reports || []).length + 1),
				reportSources: structuredClone(widget.reportSources || []),
				reportType: {
					type: "DAILY",
					atTime: atMillis("08:00", userZone()),
					durationType: "INFINITE",
					startTs: 0,
					endTs: 0,
				},
				recipients: session.email,
				granularityType: "HOURLY",
				isActive: true,
				reportOutput: "MERGED_CSV",
				format: "ISO_SIMPLE",
				tzName: userZone(),
				nextReportAt: 0,
				lastReportAt: 0,
			};
	draft.reportType ||= { type: "DAILY" };
	return dialog(
		old ? draft.name || t("Report") : t("New report"),
		(close) => {
			const when = h("div");
			const type = draft.reportType;
			const drawWhen = () => {
				const zone = draft.tzName || "UTC";
				const time = field(
					t("Time"),
					tie(h("input", { type: "time", value: atClock(type.atTime || 0, zone), required: true }), (v) => {
						type.atTime = atMillis(v, zone);
					}),
				);
				const date = (name, label) =>
					field(
						label,
						tie(
							h("input", { type: "date", value: type[name] ? new Date(type[name]).toISOString().slice(0, 10) : "" }),
							(v) => {
								type[name] = v ? Date.parse(`${v}T12:00:00Z`) : 0;
							},
						),
					);
				replace(
					when,
					type.type === "ONE_TIME"
						? field(
								t("Days before now"),
								tie(
									h("input", {
										type: "number",
										min: 1,
										max: 365,
										value: Math.max(1, Math.round((type.rangeMillis || DAY_MS) / DAY_MS)),
									}),
									(v) => {
										type.rangeMillis = Math.max(1, Number(v)) * DAY_MS;
									},
								),
							)
						: [
								time,
								type.type === "WEEKLY" &&
									field(
										t("Day"),
										tie(
											select(
												LONG_DAYS().map((name, i) => [i + 1, name]),
												type.dayOfTheWeek || 1,
											),
											(v) => {
												type.dayOfTheWeek = Number(v);
											},
										),
									),
								type.type === "MONTHLY" &&
									field(
										t("Day"),
										tie(
											select(
												[
													["FIRST", t("First of the month")],
													["LAST", t("Last of the month")],
												],
												type.dayOfMonth || "FIRST",
											),
											(v) => {
												type.dayOfMonth = v;
											},
										),
									),
								field(
									t("How long"),
									tie(
										select(
											[
												["INFINITE", t("without end")],
												["CUSTOM", t("between two dates")],
											],
											type.durationType || "INFINITE",
										),
										(v) => {
											type.durationType = v;
											drawWhen();
										},
									),
								),
								type.durationType === "CUSTOM" && h(".row", null, date("startTs", t("from")), date("endTs", t("to"))),
							],
				);
			};
			const kind = select(Object.entries(KINDS()), type.type);
			kind.addEventListener("change", () => {
				type.type = kind.value;
				if (type.type === "ONE_TIME") type.rangeMillis ||= 7 * DAY_MS;
				else
					Object.assign(type, {
						atTime: type.atTime || atMillis("08:00", draft.tzName || userZone()),
						durationType: type.durationType || "INFINITE",
						startTs: type.startTs || 0,
						endTs: type.endTs || 0,
					});
				if (type.type === "WEEKLY") type.dayOfTheWeek ||= 1;
				if (type.type === "MONTHLY") type.dayOfMonth ||= "FIRST";
				drawWhen();
			});
			drawWhen();
			const text = (name, label, help, props) =>
				field(
					label,
					tie(h("input", { value: draft[name] ?? "", ...props }), (v) => {
						draft[name] = v;
					}),
					help,
				);
			const choice = (name, label, options) =>
				field(
					label,
					tie(select(options, draft[name] || options[0][0]), (v) => {
						draft[name] = v;
					}),
				);
			return h(
				"form.sheet",
				{
					async onsubmit(event) {
						event.preventDefault();
						const { type: k, ...rest } = type;
						const kept =
							k === "ONE_TIME"
								? { rangeMillis: rest.rangeMillis }
								: {
										atTime: rest.atTime,
										durationType: rest.durationType,
										startTs: rest.startTs || 0,
										endTs: rest.endTs || 0,
										...(k === "WEEKLY" && { dayOfTheWeek: rest.dayOfTheWeek }),
										...(k === "MONTHLY" && { dayOfMonth: rest.dayOfMonth }),
									};
						try {
							await saveReport(project, widget, { ...draft, reportType: { type: k, ...kept } }, !old);
							close(true);
						} catch (refusal) {
							explain(refusal);
						}
					},
				},
				text("name", t("Name")),
				field(t("When"), kind),
				when,
				field(
					t("Time zone"),
					zoneInput(draft.tzName || "UTC", (v) => {
						draft.tzName = v;
					}),
				),
				text("recipients", t("To"), t("Up to five addresses, with commas between them"), { required: true }),
				sourceFields(draft, project),
				choice("granularityType", t("One line per"), [
					["MINUTE", t("minute")],
					["HOURLY", t("hour")],
					["DAILY", t("day")],
				]),
				choice("reportOutput", t("Files"), [
					["MERGED_CSV", t("one file")],
					["CSV_FILE_PER_DEVICE", t("one per device")],
					["CSV_FILE_PER_DEVICE_PER_PIN", t("one per pin")],
				]),
				choice("format", t("Times as"), [
					["ISO_SIMPLE", "2024-05-31 22:01:20"],
					["ISO_INSTANT", "2024-05-31T22:01:20+03:00"],
					["ISO_INSTANT_Z", "2024-05-31T22:01:20EEST"],
					["TS", t("milliseconds")],
				]),
				field(
					t("Active"),
					tie(
						h("input", { type: "checkbox", checked: draft.isActive !== false }),
						(v) => {
							draft.isActive = v;
						},
						"change",
					),
				),
				h("p.hint", null, !old && t("A report costs 2,900 energy.")),
				h(
					".row.end",
					null,
					button(t("Cancel"), () => close()),
					h("button.primary", { type: "submit" }, t("Save")),
				),
			);
		},
		"side",
	);
}
