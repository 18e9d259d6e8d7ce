// Reports: what is sent, when and to whom; the files that were made, to download.

import { mainMenu } from "../app.js";
import { button, confirm, dialog, field, h, icon, iconButton, replace, select, toast } from "../dom.js";
import { clock, clockSeconds, userZone, zoneOffset } from "../format.js";
import { LONG_DAYS, ago, t } from "../i18n.js";
import { arrange, firstFree, freeId } from "../layout.js";
import { createWidget, deleteReport, explain, runReport, saveReport, session, updateWidget, widgetId } from "../session.js";
import { openSheet, sourceFields, tie, zoneInput } from "../sheet.js";
import { newWidget } from "../widgets.js";

const DAY_MS = 86400000;
const KINDS = () => ({ ONE_TIME: t("once, for the time before"), DAILY: t("every day"), WEEKLY: t("every week"), MONTHLY: t("every month") });

/** Milliseconds of atTime as a clock time of the report's zone, and back. */
const atClock = (ms, zone) => clock((((Math.floor(ms / 1000) + zoneOffset(zone, ms)) % 86400) + 86400) % 86400);
function atMillis(text, zone) {
  const now = Date.now();
  const midnight = Math.floor((Math.floor(now / 1000) + zoneOffset(zone, now)) / 86400) * 86400;
  return (midnight + Math.max(0, clockSeconds(text)) - zoneOffset(zone, now)) * 1000;
}

export function reportText(report) {
  const type = report.reportType || {};
  const zone = report.tzName || "UTC";
  const at = atClock(type.atTime || 0, zone);
  const when = { ONE_TIME: t("Once, of the last {0} days", Math.round((type.rangeMillis || 0) / DAY_MS)), DAILY: t("Every day at {0}", at), WEEKLY: t("Every {0} at {1}", LONG_DAYS()[(type.dayOfTheWeek || 1) - 1], at),
    MONTHLY: type.dayOfMonth === "LAST" ? t("On the last day of the month at {0}", at) : t("On the first day of the month at {0}", at) }[type.type] || "";
  return `${when}${zone === userZone() || type.type === "ONE_TIME" ? "" : ` (${zone})`} → ${report.recipients || ""}`;
}

const RESULTS = () => ({ OK: t("sent"), NO_DATA: t("no data"), ERROR: t("failed"), EXPIRED: t("over") });

export function showReports(screen) {
  const project = screen.project();
  if (!project) return;
  screen.head(t("Reports"), `project/${project.id}`, mainMenu());
  const box = h("div"), files = h(".card");
  const draw = () => {
    const widget = project.first("REPORT");
    if (!widget) {
      return replace(box, h(".empty", null, icon("report"), h("p", null, t("Reports send the history of pins as a table by mail.")), button(t("Set up reports"), () => addReportWidget(project), { class: "primary" })));
    }
    const logged = (widget.reportSources || []).reduce((n, s) => n + (s.reportDataStreams || s.dataStreams || []).length, 0);
    const settings = () => openSheet({ project, widget, place: null, save: (next) => updateWidget(project, widget, next).catch(explain), remove: () => toast(t("Use edit mode for this.")), duplicate: () => {} });
    replace(box, h(".card", null, h("h2", null, t("Pins to log")), h("p", null, logged ? t("{0} pins are logged for reports.", logged) : t("No pin is logged yet: choose the pins first.")), button([icon("gear"), t("Choose the pins")], settings, { class: logged ? "" : "primary" })),
      h(".card", null, h("h2", null, t("Reports")), h(".list", null, (widget.reports || []).map((report) => h(".list-item", { class: report.isActive ? "" : "inactive" }, icon("report"),
        h("span.grow", null, h("strong", null, report.name || t("Report")), h("small", null, reportText(report)), h("small", null, [report.nextReportAt > Date.now() && report.isActive && t("next: {0}", new Date(report.nextReportAt).toLocaleString()),
          report.lastReportAt > 0 && t("last: {0}, {1}", ago(report.lastReportAt), RESULTS()[report.lastRunResult] || "")].filter(Boolean).join(" · "))),
        iconButton("play", t("Send now"), () => run(project, widget, report)), iconButton("edit", t("Edit"), () => edit(project, widget, report)),
        iconButton("trash", t("Delete"), async () => { if (await confirm(t("Delete “{0}”?", report.name || t("Report")), reportText(report), t("Delete"))) await deleteReport(project, widget, report).catch(explain); })))),
      !(widget.reports || []).length && h("p.hint", null, t("None yet.")), button([icon("plus"), t("New report")], () => edit(project, widget, null), { class: "primary" })));
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
    const answer = token && await fetch(`${token}/reports`).catch(() => null);
    const list = answer?.ok ? await answer.json().catch(() => []) : [];
    const entries = Array.isArray(list) ? list : list.reports || [];
    replace(files, h("h2", null, t("Files")), h(".list", null, entries.map((entry) => {
      const path = typeof entry === "string" ? entry : entry.url || entry.path || entry.file || entry.name || "";
      const name = typeof entry === "string" ? entry.split("/").pop() : entry.name || path.split("/").pop();
      const time = entry.time ?? entry.ts ?? entry.createdAt ?? entry.at;
      return h(".list-item", null, icon("file"), h("span.grow", null, h("span", null, name), time && h("small", null, new Date(time).toLocaleString())), h("a.icon-button", { href: fileUrl(path), download: "", "aria-label": `${t("Download")}: ${name}`, title: t("Download") }, icon("download")));
    })), !entries.length && h("p.hint", null, t("No file yet. They are kept here also when no mail is set up.")));
  }
  draw();
  screen.listen(project, "changed", draw);
  screen.show(box, files);
  loadFiles();
}

// Files are named by the server; only a path on this server is followed.
function fileUrl(path) {
  try {
    const url = new URL(path, location.origin);
    return `${location.origin}${url.pathname}`;
  } catch {
    return "";
  }
}

async function addReportWidget(project) {
  const { places, columns } = arrange(project.widgets.filter((w) => (w.tabId || 0) <= 0));
  const widget = newWidget("REPORT", widgetId(project, "REPORT"), { x: 0, y: 0, width: 4, height: 1 });
  Object.assign(widget, firstFree(4, 1, places, columns));
  await createWidget(project, widget, null).catch(explain);
}

function edit(project, widget, old) {
  const draft = old ? structuredClone(old) : { id: freeId((widget.reports || []).map((r) => r.id)), name: t("Report {0}", (widget.reports || []).length + 1), reportSources: structuredClone(widget.reportSources || []),
    reportType: { type: "DAILY", atTime: atMillis("08:00", userZone()), durationType: "INFINITE", startTs: 0, endTs: 0 }, recipients: session.email, granularityType: "HOURLY", isActive: true,
    reportOutput: "MERGED_CSV", format: "ISO_SIMPLE", tzName: userZone(), nextReportAt: 0, lastReportAt: 0 };
  draft.reportType ||= { type: "DAILY" };
  return dialog(old ? draft.name || t("Report") : t("New report"), (close) => {
    const when = h("div");
    const type = draft.reportType;
    const drawWhen = () => {
      const zone = draft.tzName || "UTC";
      const time = field(t("Time"), tie(h("input", { type: "time", value: atClock(type.atTime || 0, zone), required: true }), (v) => { type.atTime = atMillis(v, zone); }));
      const date = (name, label) => field(label, tie(h("input", { type: "date", value: type[name] ? new Date(type[name]).toISOString().slice(0, 10) : "" }), (v) => { type[name] = v ? Date.parse(`${v}T12:00:00Z`) : 0; }));
      replace(when, type.type === "ONE_TIME" ? field(t("Days before now"), tie(h("input", { type: "number", min: 1, max: 365, value: Math.max(1, Math.round((type.rangeMillis || DAY_MS) / DAY_MS)) }), (v) => { type.rangeMillis = Math.max(1, Number(v)) * DAY_MS; })) : [time,
        type.type === "WEEKLY" && field(t("Day"), tie(select(LONG_DAYS().map((name, i) => [i + 1, name]), type.dayOfTheWeek || 1), (v) => { type.dayOfTheWeek = Number(v); })),
        type.type === "MONTHLY" && field(t("Day"), tie(select([["FIRST", t("First of the month")], ["LAST", t("Last of the month")]], type.dayOfMonth || "FIRST"), (v) => { type.dayOfMonth = v; })),
        field(t("How long"), tie(select([["INFINITE", t("without end")], ["CUSTOM", t("between two dates")]], type.durationType || "INFINITE"), (v) => { type.durationType = v; drawWhen(); })),
        type.durationType === "CUSTOM" && h(".row", null, date("startTs", t("from")), date("endTs", t("to")))]);
    };
    const kind = select(Object.entries(KINDS()), type.type);
    kind.addEventListener("change", () => {
      type.type = kind.value;
      if (type.type === "ONE_TIME") type.rangeMillis ||= 7 * DAY_MS;
      else Object.assign(type, { atTime: type.atTime || atMillis("08:00", draft.tzName || userZone()), durationType: type.durationType || "INFINITE", startTs: type.startTs || 0, endTs: type.endTs || 0 });
      if (type.type === "WEEKLY") type.dayOfTheWeek ||= 1;
      if (type.type === "MONTHLY") type.dayOfMonth ||= "FIRST";
      drawWhen();
    });
    drawWhen();
    const text = (name, label, help, props) => field(label, tie(h("input", { value: draft[name] ?? "", ...props }), (v) => { draft[name] = v; }), help);
    const choice = (name, label, options) => field(label, tie(select(options, draft[name] || options[0][0]), (v) => { draft[name] = v; }));
    return h("form.sheet", { async onsubmit(event) {
      event.preventDefault();
      const { type: k, ...rest } = type;
      const kept = k === "ONE_TIME" ? { rangeMillis: rest.rangeMillis } : { atTime: rest.atTime, durationType: rest.durationType, startTs: rest.startTs || 0, endTs: rest.endTs || 0, ...(k === "WEEKLY" && { dayOfTheWeek: rest.dayOfTheWeek }), ...(k === "MONTHLY" && { dayOfMonth: rest.dayOfMonth }) };
      try {
        await saveReport(project, widget, { ...draft, reportType: { type: k, ...kept } }, !old);
        close(true);
      } catch (refusal) {
        explain(refusal);
      }
    } }, text("name", t("Name")), field(t("When"), kind), when, field(t("Time zone"), zoneInput(draft.tzName || "UTC", (v) => { draft.tzName = v; })), text("recipients", t("To"), t("Up to five addresses, with commas between them"), { required: true }),
    sourceFields(draft, project), choice("granularityType", t("One line per"), [["MINUTE", t("minute")], ["HOURLY", t("hour")], ["DAILY", t("day")]]),
    choice("reportOutput", t("Files"), [["MERGED_CSV", t("one file")], ["CSV_FILE_PER_DEVICE", t("one per device")], ["CSV_FILE_PER_DEVICE_PER_PIN", t("one per pin")]]),
    choice("format", t("Times as"), [["ISO_SIMPLE", "2024-05-31 22:01:20"], ["ISO_INSTANT", "2024-05-31T22:01:20+03:00"], ["ISO_INSTANT_Z", "2024-05-31T22:01:20EEST"], ["TS", t("milliseconds")]]),
    field(t("Active"), tie(h("input", { type: "checkbox", checked: draft.isActive !== false }), (v) => { draft.isActive = v; }, "change")), h("p.hint", null, !old && t("A report costs 2,900 energy.")), h(".row.end", null, button(t("Cancel"), () => close()), h("button.primary", { type: "submit" }, t("Save"))));
  }, "side");
}
