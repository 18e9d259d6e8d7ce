// Charts: in their widget and full screen. uPlot is fetched when the first chart is shown.

import { go } from "../app.js";
import { theme } from "../board.js";
import { confirm, download, h, iconButton, menu, replace, toast } from "../dom.js";
import { cssColor, csv, numberText } from "../format.js";
import { language, t } from "../i18n.js";
import { letterOf, validPin } from "../model.js";
import { Command, graphPoints, Status } from "../protocol.js";
import { explain, reason, session } from "../session.js";
import { SWATCHES } from "../sheet.js";

// Periods that are offered (spec 05 §6.1): how long, and the step where a day comes in minutes and in hours.
const PERIOD_TABLE = {
	LIVE: "",
	FIFTEEN_MINUTES: "15 minute",
	THIRTY_MINUTES: "30 minute",
	ONE_HOUR: "1 hour",
	THREE_HOURS: "3 hour",
	SIX_HOURS: "6 hour",
	TWELVE_HOURS: "12 hour",
	DAY: "1 day",
	N_DAY: "1 day hour",
	TWO_DAYS: "2 day",
	N_THREE_DAYS: "3 day",
	N_WEEK: "1 week",
	N_TWO_WEEKS: "2 week",
	N_MONTH: "1 month",
	N_THREE_MONTHS: "3 month",
	SIX_MONTHS: "6 month",
	ONE_YEAR: "1 year",
};
// Charts of old apps may have these; they are not offered.
const OLD_PERIODS = {
	THREE_DAYS: "3 day",
	WEEK: "1 week",
	TWO_WEEKS: "2 week",
	MONTH: "1 month",
	THREE_MONTHS: "3 month",
	ALL: "1 year",
};
const unit = (n, name) =>
	new Intl.NumberFormat(language(), { style: "unit", unit: name, unitDisplay: "long" }).format(n);

/** "N_WEEK" -> "1 week"; "1 day / 1 hour" is the day that comes in hours. */
function periodText(key) {
	const [n, name, step] = (PERIOD_TABLE[key] ?? OLD_PERIODS[key] ?? "").split(" ");
	if (!n) return key === "LIVE" ? t("Live") : key;
	return unit(Number(n), name) + (step ? ` / ${unit(1, step)}` : "");
}
/** [key, text] of the periods that a chart may offer. */
export const PERIODS = (chosen) =>
	[...new Set([...Object.keys(PERIOD_TABLE), ...chosen])].map((key) => [key, periodText(key)]);

let library = null;

function uPlot() {
	library ||= new Promise((resolve, reject) => {
		document.head.append(
			h("script", {
				src: "static/vendor/uPlot.iife.min.js",
				onload: () => resolve(window.uPlot),
				onerror: () => {
					library = null;
					reject(new Error("no uPlot"));
				},
			}),
		);
	});
	return library;
}

const streamColor = (stream, i) => cssColor(stream.color) || SWATCHES[i % 5];
const streamTitle = (stream, i) => stream.title || t("Line {0}", i + 1);

/** One chart's data: asked for by period and page, LIVE values added as they come. */
class ChartData {
	constructor(project, widget, device) {
		Object.assign(this, { project, widget, device, page: 0 });
		const offered = widget.selectedPeriods || [];
		this.period = widget.period || offered.find((p) => p !== "LIVE") || offered[0] || "ONE_HOUR";
		this.streams = [];
	}

	async load() {
		const target = this.device === undefined ? this.project.id : `${this.project.id}-${this.device}`;
		try {
			const frame = await session.link.request(Command.GET_GRAPH_DATA, target, this.widget.id, this.period, this.page);
			this.streams = graphPoints(frame.bytes);
			this.problem = "";
		} catch (refusal) {
			this.streams = [];
			this.problem = refusal.code === Status.NO_DATA ? this.why() : reason(refusal);
		}
	}

	// An empty chart says why.
	why() {
		const { widget, project } = this;
		const streams = (widget.dataStreams || []).filter((s) => validPin(s.pin));
		if (!streams.length) return t("No line has a pin yet: set it in edit mode.");
		if (this.page > 0) return t("There is nothing older.");
		const away =
			this.device === undefined ? streams.every((s) => !project.online(s.targetId || 0)) : !project.online(this.device);
		if (this.period === "LIVE")
			return away ? t("The device is offline: nothing comes in.") : t("Waiting for the first value …");
		return away
			? t("No data for this time: the device is offline.")
			: t("No data for this time yet: averages are made every minute.");
	}

	/** Rows for uPlot: [times in seconds, values of each stream]. */
	rows() {
		const times = [...new Set(this.streams.flatMap((points) => points.map((p) => p.ts)))].sort((a, b) => a - b);
		const at = new Map(times.map((ts, i) => [ts, i]));
		const columns = this.streams.map((points) => {
			const column = new Array(times.length).fill(null);
			for (const { ts, value } of points) column[at.get(ts)] = value;
			return column;
		});
		return [times.map((ts) => ts / 1000), ...columns];
	}

	add(index, point) {
		while (this.streams.length < (this.widget.dataStreams || []).length) this.streams.push([]);
		const points = this.streams[index];
		if (!points) return;
		points.push(point);
		if (points.length > 600) points.shift();
		this.problem = "";
	}

	get empty() {
		return !this.streams.some((points) => points.length);
	}
	titles() {
		return (this.widget.dataStreams || []).map(streamTitle);
	}
	csv() {
		return csv(this.titles(), this.streams);
	}
}

// A time at the axis, as precise as the span of seconds asks for.
const timeText = (ts, span) =>
	new Date(ts * 1000).toLocaleString(
		language(),
		span > 172800
			? { day: "numeric", month: "short" }
			: { hour: "2-digit", minute: "2-digit", ...(span < 300 && { second: "2-digit" }) },
	);

const css = (el, name) => getComputedStyle(el).getPropertyValue(name).trim() || "#888";

/** Draw data into a box; returns { paint(), destroy() }. */
export async function plot(data, box, { axes = true, legend = false } = {}) {
	const U = await uPlot();
	let chart = null;
	const options = () => {
		const { widget } = data;
		const streams = widget.dataStreams || [];
		const line = css(box, "--line"),
			ink = css(box, "--muted");
		const series = streams.map((s, i) => {
			const color = streamColor(s, i);
			const kind = s.graphType || "LINE";
			const paths =
				kind === "BAR"
					? U.paths.bars({ size: [0.7, 40] })
					: kind === "BINARY"
						? U.paths.stepped({ align: 1 })
						: s.cubicSmoothingEnabled
							? U.paths.spline()
							: U.paths.linear();
			return {
				label: streamTitle(s, i),
				stroke: color,
				width: 2,
				paths,
				scale: `y${i}`,
				fill: kind === "BAR" ? color : kind === "FILLED_LINE" || kind === "BINARY" ? `${color}33` : undefined,
				spanGaps: s.connectMissingPointsEnabled !== false,
				points: { show: data.streams[i]?.length < 3 },
				value: (u, v) =>
					v === null || v === undefined
						? "–"
						: `${numberText(v, s.maximumFractionDigits > 0 ? s.maximumFractionDigits : 3)}${s.suffix || ""}`,
			};
		});
		const scales = { x: { time: true } };
		streams.forEach((s, i) => {
			scales[`y${i}`] = { range: (u, low, high) => yRange(s, low, high) };
		});
		const small = box.clientWidth < 260;
		return {
			width: Math.max(60, box.clientWidth),
			height: Math.max(40, box.clientHeight - (legend ? 34 : 0)),
			padding: [10, small ? 2 : 10, 0, small ? 0 : 4],
			series: [
				{ label: t("Time"), value: (u, ts) => (ts ? new Date(ts * 1000).toLocaleString(language()) : "–") },
				...series,
			],
			scales,
			legend: { show: legend },
			cursor: { drag: { x: axes, y: false } },
			axes: [
				{
					show: widget.xAxisValues !== false || axes,
					stroke: ink,
					grid: { stroke: line, width: 1 },
					ticks: { stroke: line, size: 4 },
					size: 26,
					space: 66,
					font: "11px system-ui",
					values: (u, splits) => splits.map((ts) => timeText(ts, u.scales.x.max - u.scales.x.min)),
				},
				...streams.slice(0, axes ? 4 : 1).map((s, i) => ({
					scale: `y${i}`,
					side: i % 2 ? 1 : 3,
					show: i === 0 ? (widget.yAxisValues !== false || axes) && !small : axes && Boolean(s.showYAxis),
					stroke: streams.length > 1 ? streamColor(s, i) : ink,
					grid: { show: i === 0, stroke: line, width: 1 },
					ticks: { stroke: line, size: 4 },
					size: 46,
					font: "11px system-ui",
					values: (u, splits) => splits.map((v) => (v === null ? "" : numberText(v, 4))),
				})),
			],
		};
	};
	const make = () => {
		chart?.destroy();
		chart = null;
		const message = data.problem || (data.empty ? data.why() : "");
		if (message) return replace(box, h("p.hint.chart-hint", null, message));
		replace(box);
		chart = new U(options(), data.rows(), box);
	};
	const sizes = new ResizeObserver(() => {
		if (chart && box.clientWidth)
			chart.setSize({
				width: Math.max(60, box.clientWidth),
				height: Math.max(40, box.clientHeight - (legend ? 34 : 0)),
			});
	});
	sizes.observe(box);
	return {
		paint() {
			if (chart && !data.empty && !data.problem) chart.setData(data.rows());
			else make();
		},
		make,
		destroy() {
			sizes.disconnect();
			chart?.destroy();
		},
	};
}

// The vertical range of a stream (its yAxisScale).
function yRange(stream, low, high) {
	if (low === null || low === undefined) return [0, 1];
	const { yAxisMin = 0, yAxisMax = 0 } = stream;
	if (stream.yAxisScale === "MINMAX" && yAxisMax > yAxisMin) return [yAxisMin, yAxisMax];
	if (stream.yAxisScale === "DELTA" && stream.delta > 0) {
		const middle = (low + high) / 2;
		return [middle - stream.delta / 2, middle + stream.delta / 2];
	}
	const pad = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
	const [bottom, top] = [low - pad, high + pad];
	if (stream.yAxisScale === "HEIGHT" && yAxisMax > yAxisMin && yAxisMax <= 100) {
		// only a share of the height is used
		const span = (top - bottom) / ((yAxisMax - yAxisMin) / 100);
		return [bottom - (span * yAxisMin) / 100, bottom - (span * yAxisMin) / 100 + span];
	}
	return [bottom, top];
}

function periodButtons(data, changed) {
	const box = h(".periods", { role: "group", "aria-label": t("Period") });
	const offered = data.widget.selectedPeriods?.length
		? data.widget.selectedPeriods
		: ["LIVE", "ONE_HOUR", "N_DAY", "N_WEEK"];
	const draw = () =>
		replace(
			box,
			[...new Set([...offered, data.period])].map((key) =>
				h(
					"button",
					{
						type: "button",
						"aria-pressed": String(key === data.period),
						onclick: () => {
							data.period = key;
							data.page = 0;
							draw();
							changed();
						},
					},
					periodText(key),
				),
			),
		);
	draw();
	return box;
}

// A minute passes: what is shown by minutes has a new point.
const refreshEvery = (act) => {
	const timer = setInterval(act, 30000);
	return () => clearInterval(timer);
};

export async function inlineChart(view, box) {
	const { env } = view;
	const widget = view.instance.widget;
	const data = new ChartData(env.project, widget, env.device);
	const area = h(".plot");
	const load = async () => {
		if (env.editing) return;
		await data.load();
		drawn?.make();
	};
	const full = iconButton("expand", t("Full screen"), () => env.openChart(widget), { class: "small" });
	const legend =
		widget.showLegend &&
		h(
			".chart-legend",
			null,
			(widget.dataStreams || []).map((s, i) =>
				h("span", null, h("span.dot", { style: { background: streamColor(s, i) } }), streamTitle(s, i)),
			),
		);
	replace(box, h(".chart-top", null, legend || h("span"), full), area, periodButtons(data, load));
	let drawn = null;
	view.sample = (index, point) => {
		if (data.period !== "LIVE") return;
		data.add(index, point);
		view.dirty();
	};
	view.onupdate = () => {
		if (data.period === "LIVE") drawn?.paint();
	};
	let gone = false;
	view.cleanups.push(
		refreshEvery(() => {
			if (data.period !== "LIVE" && document.visibilityState === "visible") load();
		}),
		() => {
			gone = true;
			drawn?.destroy();
		},
	);
	if (env.editing)
		return replace(
			area,
			h(
				"p.hint.chart-hint",
				null,
				(widget.dataStreams || []).map(streamTitle).join(", ") || t("No line has a pin yet: set it in edit mode."),
			),
		);
	try {
		drawn = await plot(data, area, { axes: false });
	} catch {
		return replace(area, h("p.hint", null, t("This part of the page could not be loaded.")));
	}
	if (gone) return drawn.destroy();
	await load();
}

function findGraph(project, id) {
	return project.allWidgets().find((w) => String(w.id) === id && w.type === "ENHANCED_GRAPH");
}

export async function showChart(screen) {
	const project = screen.project();
	if (!project) return;
	const widget = findGraph(project, screen.params.widget);
	const device = screen.params.device === undefined ? undefined : Number(screen.params.device);
	if (!widget) return go(`project/${project.id}`, true);
	screen.look(theme(project));
	const data = new ChartData(project, widget, device);
	const tiles =
		device === undefined ? null : project.widgets.find((w) => w.templates?.some((x) => x.widgets?.includes(widget)));
	const box = h(".plot.full"),
		range = h("span.chart-range", { "aria-live": "polite" });
	const older = iconButton("back", t("Older"), () => {
			data.page++;
			load();
		}),
		newer = iconButton("next", t("Newer"), () => {
			data.page--;
			load();
		});
	const more = iconButton(
		"more",
		t("More"),
		() =>
			menu(more, [
				["download", t("CSV of what is shown"), () => saveCsv(project, widget, data)],
				...minuteLinks(project, widget, device),
				!session.guest && ["trash", t("Delete the data"), () => deleteData(project, widget, device, load), true],
			]),
		{ "aria-haspopup": "menu", "aria-expanded": "false" },
	);
	screen.head(
		widget.label || t("Chart"),
		tiles ? `project/${project.id}/tile/${tiles.id}/${device}` : `project/${project.id}`,
		iconButton("download", t("CSV of what is shown"), () => saveCsv(project, widget, data)),
		more,
	);
	let drawn = null;
	async function load() {
		await data.load();
		const points = data.streams.flat();
		const times = points.map((p) => p.ts);
		range.textContent = times.length
			? `${new Date(Math.min(...times)).toLocaleString()} – ${new Date(Math.max(...times)).toLocaleString()}`
			: "";
		newer.disabled = data.page === 0;
		older.disabled = data.period === "LIVE" || (!points.length && data.page > 0);
		drawn?.make();
	}
	screen.show(
		h(
			".chart-screen",
			null,
			periodButtons(data, () => load()),
			box,
			h(".row.center", null, older, range, newer),
		),
	);
	screen.onleave(() => drawn?.destroy());
	screen.onleave(
		refreshEvery(() => {
			if (data.period !== "LIVE" && data.page === 0 && document.visibilityState === "visible") load();
		}),
	);
	screen.listen(project, "value", (dev, letter, pin, value) => {
		if (data.period !== "LIVE") return;
		(widget.dataStreams || []).forEach((s, i) => {
			if (
				validPin(s.pin) &&
				s.pin.pin === pin &&
				letterOf(s.pin) === letter &&
				(device ?? project.shownDevice(s.targetId || 0)) === dev &&
				Number.isFinite(Number(value))
			) {
				data.add(i, { ts: Date.now(), value: Number(value) });
				drawn?.paint();
			}
		});
	});
	drawn = await plot(data, box, { legend: true });
	await load();
}

function saveCsv(project, widget, data) {
	if (data.empty) return toast(t("There is no data yet."));
	download(
		`${(widget.label || "chart").replace(/[^\p{L}\p{N}]+/gu, "-")}-${data.period.toLowerCase()}.csv`,
		"text/csv",
		data.csv(),
	);
}

// Every minute that the server has of a pin, as it stores it (value, milliseconds, device), gzipped.
function minuteLinks(project, widget, device) {
	return (widget.dataStreams || []).flatMap((s, i) => {
		const token = project.findDevice(device ?? project.shownDevice(s.targetId || 0))?.token;
		if (!token || !validPin(s.pin)) return [];
		return [
			[
				"download",
				t("All minutes of {0} (.csv.gz)", streamTitle(s, i)),
				async () => {
					const answer = await fetch(`${token}/data/${letterOf(s.pin)}${s.pin.pin}`).catch(() => null);
					if (!answer?.ok) return toast(t("There is no data yet."), { error: true });
					const url = URL.createObjectURL(await answer.blob());
					const link = h("a", { href: url, download: `${letterOf(s.pin)}${s.pin.pin}.csv.gz` });
					link.click();
					setTimeout(() => URL.revokeObjectURL(url), 10000);
				},
			],
		];
	});
}

async function deleteData(project, widget, device, load) {
	if (!(await confirm(t("Delete the data?"), t("The history of this chart's pins is deleted for good."), t("Delete"))))
		return;
	try {
		await session.link.request(
			Command.DELETE_GRAPH_DATA,
			device === undefined ? project.id : `${project.id}-${device}`,
			widget.id,
		);
		await load();
	} catch (refusal) {
		explain(refusal);
	}
}
