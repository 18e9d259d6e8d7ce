// The settings sheet of a widget, made from the fields of its row in the widget table. Each kind of field is one function
// that draws it and writes what the user chooses into the draft; Save hands the draft back.

import { go } from "./app.js";
import { button, confirm, dialog, field, h, icon, iconButton, replace, select } from "./dom.js";
import { cssColor, colorInt, userZone, utcToClock, clockToUtc, parseNumber } from "./format.js";
import { t } from "./i18n.js";
import { freeId } from "./layout.js";
import { SELECTORS_FROM, letterOf } from "./model.js";
import { deleteTemplate, explain, saveTemplate } from "./session.js";
import { WIDGETS } from "./widgets.js";
import { PERIODS } from "./screens/chart.js";

const LETTERS = { v: "VIRTUAL", d: "DIGITAL", a: "ANALOG" };
export const SWATCHES = ["#23c48e", "#04c0f8", "#5f7cd8", "#ed9d00", "#d3435c", "#ffffff"];

/** openSheet({ project, widget, place, save(next), remove(), duplicate() }) */
export function openSheet({ project, widget, place, save, remove, duplicate }) {
	const type = WIDGETS[widget.type];
	const draft = structuredClone(widget);
	const ctx = { project, place, widget, draft };
	return dialog(
		type ? t(type.name) : String(widget.type),
		(close) => {
			ctx.close = close;
			const fields = type ? type.fields : [];
			const tabs = project.container(place).find((w) => w.type === "TABS");
			return h(
				"form.sheet",
				{
					async onsubmit(event) {
						event.preventDefault();
						clean(draft);
						close(true);
						await save(draft);
					},
				},
				!type && h("p", null, t("This page does not know this kind of widget. It stays as it is.")),
				fields.map((f) => KINDS[f.kind](f, draft, ctx)),
				tabs &&
					widget.type !== "TABS" &&
					field(
						t("On tab"),
						tie(
							select(
								(tabs.tabs || []).map((tab, i) => [i, tab.label || String(i + 1)]),
								draft.tabId || 0,
							),
							(value) => {
								draft.tabId = Number(value);
							},
						),
					),
				h(
					".row.sheet-end",
					null,
					iconButton(
						"trash",
						t("Delete"),
						() => {
							close();
							remove();
						},
						{ class: "danger" },
					),
					iconButton("copy", t("Duplicate"), () => {
						close();
						duplicate();
					}),
					h("span.grow"),
					button(t("Cancel"), () => close()),
					h("button.primary", { type: "submit" }, t("Save")),
				),
			);
		},
		"side",
	);
}

// Empty texts and lists are not part of a document (spec 04 §1.1).
function clean(draft) {
	for (const [key, value] of Object.entries(draft))
		if (value === "" || value === null || value === undefined) delete draft[key];
}

function tie(input, change, event = input.tagName === "SELECT" ? "change" : "input") {
	input.addEventListener(event, () => change(input.type === "checkbox" ? input.checked : input.value));
	return input;
}

const textInput = (f, draft, props) =>
	tie(
		h("input", { type: f.type || "text", value: draft[f.name] ?? "", maxLength: 1000, autocomplete: "off", ...props }),
		(value) => {
			draft[f.name] = value;
		},
	);
const numberInput = (value, change, props) =>
	tie(h("input", { type: "number", step: "any", value: value ?? "", ...props }), (text) => {
		change(parseNumber(text) ?? 0);
	});
const flagInput = (value, change) => tie(h("input", { type: "checkbox", checked: Boolean(value) }), change, "change");

/** Targets a widget can have: devices, tags, selectors. */
export function targetOptions(project, { withSelectors = true, withTags = true } = {}) {
	return [
		...project.devices.map((d) => [d.id, d.name || `#${d.id}`]),
		...(withTags ? project.tags.map((tag) => [tag.id, t("tag {0}", tag.name)]) : []),
		...(withSelectors
			? project.widgets
					.filter((w) => w.type === "DEVICE_SELECTOR" && w.id >= SELECTORS_FROM)
					.map((w) => [w.id, t("chosen in {0}", w.label || t("Device selector"))])
			: []),
	];
}

/** A pin: kind and number; writes pinType and pin (and pwmMode when asked for) into the stream. */
export function pinInput(stream, label, { pwm = true } = {}) {
	const kind = select(
		[
			["", "–"],
			["v", "V"],
			["d", "D"],
			["a", "A"],
		],
		stream.pin >= 0 && stream.pinType ? letterOf(stream) : "",
		{ "aria-label": `${label}: ${t("kind of pin")}` },
	);
	const number = h("input", {
		type: "number",
		min: 0,
		max: 255,
		step: 1,
		value: stream.pin >= 0 ? stream.pin : "",
		"aria-label": `${label}: ${t("number")}`,
		class: "narrow",
	});
	const pwmBox = h("input", { type: "checkbox", checked: Boolean(stream.pwmMode) });
	const pwmRow = h("label.inline", null, pwmBox, " PWM");
	const read = () => {
		const letter = kind.value,
			value = parseNumber(number.value);
		const ok = letter && value !== null && value >= 0 && value <= 255;
		stream.pin = ok ? Math.floor(value) : -1;
		if (ok) stream.pinType = LETTERS[letter];
		else delete stream.pinType;
		pwmRow.hidden = !pwm || letter !== "d";
		if (pwm) stream.pwmMode = letter === "d" && pwmBox.checked;
		number.disabled = !letter;
		number.required = Boolean(letter);
	};
	for (const el of [number, pwmBox]) el.addEventListener("input", read);
	kind.addEventListener("change", () => {
		read();
		if (kind.value && number.value === "") {
			number.value = "0";
			read();
			number.focus();
		}
	});
	read();
	return h("fieldset.pin", null, h("legend", null, label), h(".row", null, kind, number, pwmRow));
}

function colorInput(label, value, change, none) {
	const now = cssColor(value);
	const custom = h("input", { type: "color", value: now || SWATCHES[0], "aria-label": `${label}: ${t("own colour")}` });
	const box = h(".swatches", { role: "group", "aria-label": label });
	const mark = (css) => {
		for (const el of box.querySelectorAll("button")) el.setAttribute("aria-pressed", String(el.dataset.color === css));
	};
	const pick = (css) => {
		change(css ? colorInt(css) : 0, css);
		mark(css);
		if (css) custom.value = css;
	};
	box.append(
		h("button.swatch-none", {
			type: "button",
			"data-color": "",
			"aria-label": none || t("Default"),
			title: none || t("Default"),
			onclick: () => pick(""),
		}),
		...SWATCHES.map((css) =>
			h("button", {
				type: "button",
				"data-color": css,
				"aria-label": css,
				style: { background: css },
				onclick: () => pick(css),
			}),
		),
		custom,
	);
	custom.addEventListener("input", () => pick(custom.value));
	mark(now);
	return h(".field", null, h("span.field-label", null, label), box);
}

// A list of rows that can be added, removed and moved.
function rows(label, items, draw, make, change) {
	const box = h(".rows");
	const redraw = () => {
		replace(
			box,
			items.map((item, i) =>
				h(
					".rows-item",
					null,
					draw(item, i, redraw),
					h(
						"span.rows-buttons",
						null,
						i > 0 &&
							iconButton("up", t("Move up"), () => {
								items.splice(i - 1, 0, ...items.splice(i, 1));
								change(items);
								redraw();
							}),
						iconButton("trash", t("Remove"), () => {
							items.splice(i, 1);
							change(items);
							redraw();
						}),
					),
				),
			),
			button(
				[icon("plus"), t("Add")],
				() => {
					items.push(make());
					change(items);
					redraw();
				},
				{ class: "plain" },
			),
		);
	};
	redraw();
	return h("fieldset", null, h("legend", null, label), box);
}

function checks(label, options, chosen, change) {
	const set = new Set(chosen);
	return h(
		"fieldset.checks",
		null,
		h("legend", null, label),
		options.map(([key, text]) =>
			h(
				"label.inline",
				null,
				tie(
					h("input", { type: "checkbox", checked: set.has(key) }),
					(on) => {
						if (on) set.add(key);
						else set.delete(key);
						change(options.map(([k]) => k).filter((k) => set.has(k)));
					},
					"change",
				),
				text,
			),
		),
		!options.length && h("p.hint", null, t("nothing to choose from")),
	);
}

const KINDS = {
	text: (f, draft) => field(t(f.label), textInput(f, draft), f.help && t(f.help)),
	area: (f, draft) =>
		field(
			t(f.label),
			tie(h("textarea", { rows: 3, value: draft[f.name] ?? "" }), (value) => {
				draft[f.name] = value;
			}),
			f.help && t(f.help),
		),
	url: (f, draft) =>
		field(t(f.label), textInput(f, draft, { inputMode: "url", placeholder: "http://" }), f.help && t(f.help)),
	number: (f, draft) =>
		field(
			t(f.label),
			numberInput(
				draft[f.name],
				(value) => {
					draft[f.name] = f.whole ? Math.round(value) : value;
				},
				f.whole ? { step: 1 } : {},
			),
		),
	flag: (f, draft) =>
		field(
			t(f.label),
			flagInput(draft[f.name] ?? f.fallback, (on) => {
				draft[f.name] = on;
			}),
		),
	choice: (f, draft) =>
		field(
			t(f.label),
			tie(
				select(
					f.options.some(([key]) => String(key) === String(draft[f.name] ?? ""))
						? f.options.map(([key, text]) => [key, t(text)])
						: [[draft[f.name], String(draft[f.name])], ...f.options.map(([key, text]) => [key, t(text)])],
					draft[f.name] ?? f.options[0][0],
				),
				(value) => {
					draft[f.name] = f.number ? Number(value) : f.flag ? value === "true" : value;
				},
			),
		),
	color: (f, draft) =>
		colorInput(t(f.label), f.base && draft.isDefaultColor ? 0 : draft[f.name], (value) => {
			draft[f.name] = value;
			if (f.base) draft.isDefaultColor = value === 0;
		}),
	list: (f, draft) => {
		draft[f.name] ||= [];
		return rows(
			t(f.label),
			draft[f.name],
			(text, i) =>
				tie(
					h("input", { value: text, "aria-label": `${t(f.label)} ${i + 1}`, inputMode: f.url ? "url" : "text" }),
					(value) => {
						draft[f.name][i] = value;
					},
				),
			() => "",
			(items) => {
				draft[f.name] = items;
			},
		);
	},
	target: (f, draft, { project, place }) => {
		if (place) return null; // on a tile's page the tile's device is meant
		return field(
			t(f.label),
			tie(select(targetOptions(project), draft.deviceId || 0), (value) => {
				draft.deviceId = Number(value);
			}),
		);
	},
	pin: (f, draft) => pinInput(draft, t(f.label)),
	pins: (f, draft) => {
		const streams = (draft.pins ||= []);
		while (streams.length < f.labels.length) streams.push({ pin: -1, min: 0, max: 255 });
		const all = () =>
			streams.slice(0, f.together && !draft[f.together] ? 1 : f.labels.length).map((stream, i) =>
				h(
					"div",
					null,
					pinInput(stream, f.together && !draft[f.together] ? t("Pin") : t(f.labels[i])),
					f.labels[0] !== "Line 1" &&
						h(
							".row.range",
							null,
							field(
								t("from"),
								numberInput(stream.min, (n) => {
									stream.min = n;
								}),
							),
							field(
								t("to"),
								numberInput(stream.max, (n) => {
									stream.max = n;
								}),
							),
						),
				),
			);
		const box = h("div", null, all());
		return h(
			"div",
			null,
			f.together &&
				field(
					t(f.apart),
					flagInput(draft[f.together], (on) => {
						draft[f.together] = on;
						replace(box, all());
					}),
				),
			box,
		);
	},
	range: (f, draft) =>
		h(
			"fieldset.range",
			null,
			h("legend", null, t(f.label)),
			h(
				".row",
				null,
				field(
					t("from"),
					numberInput(draft.min, (n) => {
						draft.min = n;
					}),
				),
				field(
					t("to"),
					numberInput(draft.max, (n) => {
						draft.max = n;
					}),
				),
			),
		),
	state: (f, draft) => {
		const state = (draft[f.name] ||= { text: "", textColor: 0, backgroundColor: 0 });
		return h(
			"fieldset",
			null,
			h("legend", null, t(f.label)),
			field(
				t("Text"),
				tie(h("input", { value: state.text ?? "" }), (value) => {
					state.text = value;
				}),
			),
			colorInput(t("Background"), state.backgroundColor, (value) => {
				state.backgroundColor = value;
			}),
			colorInput(t("Text colour"), state.textColor, (value) => {
				state.textColor = value;
			}),
		);
	},
	time: (f, draft) =>
		field(
			t(f.label),
			tie(h("input", { type: "time", step: 1, value: utcToClock(draft[f.name] ?? -1) }), (value) => {
				draft[f.name] = clockToUtc(value);
			}),
		),
	zone: (f, draft) => {
		draft[f.name] ||= userZone();
		return field(
			t(f.label),
			zoneInput(draft[f.name], (value) => {
				draft[f.name] = value;
			}),
		);
	},
	columns: (f, draft) => {
		draft.columns ||= [];
		return rows(
			t(f.label),
			draft.columns,
			(column, i) =>
				tie(h("input", { value: column.name ?? "", "aria-label": `${t(f.label)} ${i + 1}` }), (value) => {
					column.name = value;
				}),
			() => ({ name: "" }),
			() => {},
		);
	},
	headers: (f, draft) => {
		draft.headers ||= [];
		return rows(
			t(f.label),
			draft.headers,
			(header) =>
				h(
					".row",
					null,
					tie(
						h("input", { value: header.name ?? "", placeholder: "Content-Type", "aria-label": t("Name") }),
						(value) => {
							header.name = value;
						},
					),
					tie(
						h("input", { value: header.value ?? "", placeholder: "application/json", "aria-label": t("Value") }),
						(value) => {
							header.value = value;
						},
					),
				),
			() => ({ name: "", value: "" }),
			() => {},
		);
	},
	tabs: (f, draft) => {
		draft.tabs ||= [];
		return rows(
			t(f.label),
			draft.tabs,
			(tab, i) =>
				tie(h("input", { value: tab.label ?? "", "aria-label": `${t("Tab")} ${i + 1}` }), (value) => {
					tab.label = value;
				}),
			() => ({ id: draft.tabs.length, label: t("Tab {0}", draft.tabs.length + 1) }),
			(items) =>
				items.forEach((tab, i) => {
					tab.id = i;
				}),
		);
	},
	devices: (f, draft, { project }) =>
		checks(
			t(f.label),
			project.devices.map((d) => [d.id, d.name || `#${d.id}`]),
			draft.deviceIds || [],
			(ids) => {
				draft.deviceIds = ids;
				if (!ids.includes(draft.value) && ids.length) draft.value = ids[0];
			},
		),
	periods: (f, draft) =>
		checks(t(f.label), PERIODS(draft[f.name] || []), draft[f.name] || [], (keys) => {
			draft[f.name] = keys;
		}),
	streams: (f, draft, { project, place }) => {
		draft.dataStreams ||= [];
		const device = project.devices[0]?.id ?? 0;
		return rows(
			t(f.label),
			draft.dataStreams,
			(s, i) => graphStream(s, i, project, place),
			() => ({
				title: t("Line {0}", draft.dataStreams.length + 1),
				graphType: "LINE",
				color: colorInt(SWATCHES[draft.dataStreams.length % 5]),
				targetId: device,
				pin: { pin: -1, min: 0, max: 1023 },
				functionType: "AVG",
				showYAxis: true,
				connectMissingPointsEnabled: true,
				yAxisScale: "AUTO",
			}),
			() => {},
		);
	},
	rules: (f, draft, { project, close }) =>
		h(
			"p",
			null,
			button([icon("rule"), t("Edit the rules")], () => {
				close();
				go(`project/${project.id}/rules`);
			}),
		),
	sources: (f, draft, { project }) => sourceFields(draft, project),
	templates: (f, draft, ctx) => templateFields(ctx),
};

export function zoneInput(value, change) {
	const zones = Intl.supportedValuesOf?.("timeZone") || [];
	if (!zones.length) return tie(h("input", { value }), change);
	return tie(
		select(
			[
				...(zones.includes(value) ? [] : [[value, value]]),
				...(value === "UTC" || zones.includes("UTC") ? [] : [["UTC", "UTC"]]),
				...zones.map((z) => [z, z]),
			],
			value,
		),
		change,
	);
}

function graphStream(s, i, project, place) {
	s.pin ||= { pin: -1, min: 0, max: 1023 };
	const summary = h(
		"summary",
		null,
		h("span.dot", { style: { background: cssColor(s.color) || "var(--accent)" } }),
		s.title || t("Line {0}", i + 1),
	);
	const isTag = () => s.targetId >= 100000 && s.targetId < SELECTORS_FROM;
	const functions = field(
		t("Of several devices"),
		tie(
			select(
				[
					["AVG", t("average")],
					["MIN", t("least")],
					["MAX", t("greatest")],
					["SUM", t("sum")],
					["MED", t("median")],
				],
				s.functionType || "AVG",
			),
			(v) => {
				s.functionType = v;
			},
		),
	);
	functions.hidden = !isTag();
	const scale = h(
		".row.range",
		{ hidden: !["MINMAX", "HEIGHT", "DELTA"].includes(s.yAxisScale) },
		field(
			t("from"),
			numberInput(s.yAxisMin, (n) => {
				s.yAxisMin = n;
			}),
		),
		field(
			t("to"),
			numberInput(s.yAxisMax, (n) => {
				s.yAxisMax = n;
			}),
		),
	);
	return h(
		"details",
		{ open: !(s.pin.pin >= 0) },
		summary,
		field(
			t("Title"),
			tie(h("input", { value: s.title ?? "" }), (v) => {
				s.title = v;
			}),
		),
		!place &&
			field(
				t("Device"),
				tie(select(targetOptions(project), s.targetId || 0), (v) => {
					s.targetId = Number(v);
					functions.hidden = !isTag();
				}),
			),
		pinInput(s.pin, t("Pin"), { pwm: false }),
		functions,
		field(
			t("Kind"),
			tie(
				select(
					[
						["LINE", t("Line")],
						["FILLED_LINE", t("Filled line")],
						["BAR", t("Bars")],
						["BINARY", t("On and off")],
					],
					s.graphType || "LINE",
				),
				(v) => {
					s.graphType = v;
				},
			),
		),
		colorInput(t("Colour"), s.color, (v) => {
			s.color = v;
			summary.firstChild.style.background = cssColor(v) || "var(--accent)";
		}),
		field(
			t("Unit"),
			tie(h("input", { value: s.suffix ?? "" }), (v) => {
				if (v) s.suffix = v;
				else delete s.suffix;
			}),
		),
		field(
			t("Digits after the point"),
			numberInput(
				s.maximumFractionDigits,
				(v) => {
					s.maximumFractionDigits = Math.round(v);
				},
				{ min: 0, max: 9 },
			),
		),
		field(
			t("Scale"),
			tie(
				select(
					[
						["AUTO", t("Automatic")],
						["MINMAX", t("Fixed")],
						["HEIGHT", t("Share of the height")],
						["DELTA", t("Fixed span")],
					],
					s.yAxisScale === "UNSET" || !s.yAxisScale ? "AUTO" : s.yAxisScale,
				),
				(v) => {
					s.yAxisScale = v;
					scale.hidden = v === "AUTO";
				},
			),
		),
		scale,
		field(
			t("Smooth"),
			flagInput(s.cubicSmoothingEnabled, (v) => {
				s.cubicSmoothingEnabled = v;
			}),
		),
		field(
			t("Connect over gaps"),
			flagInput(s.connectMissingPointsEnabled, (v) => {
				s.connectMissingPointsEnabled = v;
			}),
		),
	);
}

/** Report sources: which pins of which devices. Used by the report widget and by each report. */
export function sourceFields(holder, project) {
	const sources = (holder.reportSources ||= []);
	return rows(
		t("Pins to log"),
		sources,
		(source) => {
			source.reportDataStreams ||= source.dataStreams || [];
			delete source.dataStreams;
			return h(
				"details",
				{ open: !source.reportDataStreams.some((s) => s.pin >= 0) },
				h(
					"summary",
					null,
					t("pins: {0}, devices: {1}", source.reportDataStreams.length, (source.deviceIds || []).length),
				),
				checks(
					t("Devices"),
					project.devices.map((d) => [d.id, d.name || `#${d.id}`]),
					source.deviceIds || [],
					(ids) => {
						source.deviceIds = ids;
					},
				),
				rows(
					t("Pins"),
					source.reportDataStreams,
					(stream) =>
						h(
							"div",
							null,
							pinInput(stream, t("Pin"), { pwm: false }),
							field(
								t("Title"),
								tie(h("input", { value: stream.label ?? "" }), (v) => {
									stream.label = v;
								}),
							),
						),
					() => ({ pin: -1, label: "", isSelected: true }),
					() => {},
				),
			);
		},
		() => ({
			type: "DEVICE",
			deviceIds: project.devices.map((d) => d.id),
			reportDataStreams: [{ pin: -1, label: "", isSelected: true }],
		}),
		() => {},
	);
}

// Device tiles: the templates are saved one by one, by commands of their own, not with the widget.
function templateFields({ project, widget, close }) {
	const box = h(".rows");
	const draw = () =>
		replace(
			box,
			(widget.templates || []).map((template) =>
				h(
					".rows-item",
					null,
					h(
						"span.grow",
						null,
						h("strong", null, template.name || t("Template")),
						h("small", null, ` ${t("devices: {0}", (template.deviceIds || []).length)}`),
					),
					h(
						"span.rows-buttons",
						null,
						iconButton("gear", t("Settings"), async () => {
							await templateDialog(project, widget, template);
							draw();
						}),
						iconButton("edit", t("Edit its page"), () => {
							close();
							go(`project/${project.id}/template/${widget.id}/${template.id}`);
						}),
						iconButton("trash", t("Remove"), async () => {
							if (
								!(await confirm(
									t("Delete “{0}”?", template.name || t("Template")),
									t("Its page and tiles are deleted."),
									t("Delete"),
								))
							)
								return;
							await deleteTemplate(project, widget, template).catch(explain);
							draw();
						}),
					),
				),
			),
			button(
				[icon("plus"), t("Add a template")],
				async () => {
					await templateDialog(project, widget, null);
					draw();
				},
				{ class: "plain" },
			),
		);
	draw();
	return h("fieldset", null, h("legend", null, t("Templates")), box);
}

const TEMPLATE_DEFAULTS = {
	PAGE: {},
	BUTTON: { stateOn: { tileColor: 600084223, text: "ON" }, stateOff: { text: "OFF" } },
	DIMMER: { interaction: "PAGE", step: 1 },
};

function templateDialog(project, tiles, old) {
	const draft = old
		? structuredClone(old)
		: {
				mode: "PAGE",
				id: freeId((tiles.templates || []).map((x) => x.id)),
				widgets: [],
				deviceIds: project.devices.map((d) => d.id),
				name: t("Template"),
				showDeviceName: true,
				pin: { pin: -1, min: 0, max: 100 },
			};
	draft.pin ||= draft.dataStream || { pin: -1, min: 0, max: 100 };
	return dialog(
		old ? old.name || t("Template") : t("New template"),
		(close) => {
			const own = h("div");
			const text = (name, label, help) =>
				field(
					label,
					tie(h("input", { value: draft[name] ?? "" }), (v) => {
						draft[name] = v;
					}),
					help,
				);
			const drawOwn = () =>
				replace(
					own,
					draft.mode === "BUTTON"
						? [
								field(
									t("Push: on while it is held"),
									flagInput(draft.pushMode, (v) => {
										draft.pushMode = v;
									}),
								),
								...[
									["stateOn", t("When on")],
									["stateOff", t("When off")],
								].map(([key, label]) => {
									const state = (draft[key] ||= {});
									return h(
										"fieldset",
										null,
										h("legend", null, label),
										field(
											t("Text"),
											tie(h("input", { value: state.text ?? "" }), (v) => {
												state.text = v;
											}),
										),
										colorInput(t("Background"), state.tileColor, (v) => {
											state.tileColor = v;
										}),
										colorInput(t("Text colour"), state.textColor, (v) => {
											state.textColor = v;
										}),
									);
								}),
							]
						: [
								text("valueName", t("Name of the value")),
								text(
									"valueFormatting",
									t("Value format"),
									t("/pin/ is the value, /pin.#/ one digit after the point, /pin.##/ two: /pin.#/ °C"),
								),
								text("valueSuffix", t("Unit")),
								colorInput(t("Tile colour"), draft.tileColor, (v) => {
									draft.tileColor = v;
								}),
								colorInput(t("Text colour"), draft.color, (v) => {
									draft.color = v;
								}),
								draft.mode === "DIMMER" &&
									colorInput(t("Level colour"), draft.levelColor, (v) => {
										draft.levelColor = v;
									}),
							],
				);
			drawOwn();
			return h(
				"form.sheet",
				{
					async onsubmit(event) {
						event.preventDefault();
						clean(draft);
						try {
							await saveTemplate(project, tiles, draft, !old);
							close(true);
						} catch (refusal) {
							explain(refusal);
						}
					},
				},
				text("name", t("Name")),
				text("templateId", t("Template id"), t("New devices with this id get a tile of their own.")),
				field(
					t("A tile is"),
					tie(
						select(
							[
								["PAGE", t("a page with widgets")],
								["BUTTON", t("a button")],
								["DIMMER", t("a dimmer")],
							],
							draft.mode,
						),
						(v) => {
							draft.mode = v;
							for (const [key, value] of Object.entries(TEMPLATE_DEFAULTS[v])) draft[key] ??= structuredClone(value);
							drawOwn();
						},
					),
				),
				checks(
					t("Devices"),
					project.devices.map((d) => [d.id, d.name || `#${d.id}`]),
					draft.deviceIds || [],
					(ids) => {
						draft.deviceIds = ids;
					},
				),
				pinInput(draft.pin, t("Pin of the tile's value")),
				h(
					".row.range",
					null,
					field(
						t("from"),
						numberInput(draft.pin.min, (n) => {
							draft.pin.min = n;
						}),
					),
					field(
						t("to"),
						numberInput(draft.pin.max, (n) => {
							draft.pin.max = n;
						}),
					),
				),
				own,
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

export { checks, tie };
