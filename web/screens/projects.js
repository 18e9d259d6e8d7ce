// The list of projects, and the settings of one.

import { go, isDark, mainMenu } from "../app.js";
import { ask, button, confirm, copy, dialog, field, h, icon, iconButton, menu, replace, select, toast } from "../dom.js";
import { t } from "../i18n.js";
import { BOARDS, CONNECTIONS } from "./boards.js";
import { changeSettings, cloneCode, cloneProject, createProject, deleteProject, importProject, session, setActive } from "../session.js";

export const THEMES = () => [["Blynk", t("Dark")], ["BlynkLight", t("Light")], ["SparkFun", "SparkFun"]];

// The server keeps projects in the order they were made; another order is this browser's own.
const orderKey = () => `blynk-pi-order-${session.email}`;
function order() {
  try {
    return JSON.parse(localStorage.getItem(orderKey())) || [];
  } catch {
    return [];
  }
}

export function sortedProjects() {
  const wanted = order();
  const at = (project) => { const i = wanted.indexOf(project.id); return i < 0 ? Infinity : i; };
  return [...session.model.projects.values()].sort((a, b) => at(a) - at(b) || 0);
}

function move(project, by) {
  const ids = sortedProjects().map((p) => p.id);
  const from = ids.indexOf(project.id);
  if (from + by < 0 || from + by >= ids.length) return;
  ids.splice(from + by, 0, ...ids.splice(from, 1));
  localStorage.setItem(orderKey(), JSON.stringify(ids));
  session.model.emit("projects");
}

export function showProjects(screen) {
  screen.head(t("Projects"), null, !session.guest && iconButton("plus", t("New project"), newProject), mainMenu());
  const list = h(".project-list");
  const draw = () => {
    const all = sortedProjects();
    if (!all.length) {
      return replace(list, h(".empty", null, icon("logo"), h("h2", null, t("Welcome!")), h("p", null, t("A project is a screen full of widgets, and the devices behind them. Make your first one.")),
        button(t("New project"), newProject, { class: "primary" })));
    }
    replace(list, all.map(projectCard), !session.guest && h(".row.center", null, button([icon("download"), t("Copy a project with a code")], importDialog, { class: "plain" })));
  };
  screen.listen(session.model, "projects", draw);
  for (const project of session.model.projects.values()) screen.listen(project, "status", draw);
  draw();
  screen.show(list);
}

function projectCard(project) {
  const online = project.devices.filter((device) => device.status === "ONLINE").length;
  const more = iconButton("more", t("More"), () => menu(more, [
    ["gear", t("Settings"), () => go(`project/${project.id}/settings`)], ["edit", t("Edit"), () => go(`project/${project.id}/edit`)],
    ["up", t("Move up"), () => move(project, -1)], ["down", t("Move down"), () => move(project, 1)],
    ["copy", t("Duplicate"), async () => { await cloneProject(project, t("{0} (copy)", project.name)); toast(t("Duplicated")); }],
    ["trash", t("Delete"), () => removeProject(project), true],
  ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
  return h("article.project-card", null,
    h("a", { href: `#/project/${project.id}` }, h("span.thumb", { "aria-hidden": "true" }, thumbnail(project)),
      h("span.project-text", null, h("strong", null, project.name), h("small", null,
        project.devices.length ? t("{0} of {1} devices online", online, project.devices.length) : t("no device yet"), " · ", t("{0} widgets", project.widgets.length))),
      h("span.badges", null, !project.active && h("span.badge", null, t("paused")), project.document.isShared && h("span.badge", null, t("shared")))),
    !session.guest && more);
}

// A small picture of where the widgets are.
function thumbnail(project) {
  const boxes = project.widgets.filter((w) => (w.tabId || 0) <= 0).slice(0, 40).map((w) => {
    const el = h("i");
    el.style.gridColumn = `${Math.min(8, (w.x | 0) + 1)} / span ${Math.max(1, Math.min(8, w.width | 0))}`;
    el.style.gridRow = `${(w.y | 0) + 1} / span ${Math.max(1, w.height | 0)}`;
    return (w.y | 0) < 9 && el;
  });
  return h("span.thumb-grid", null, boxes);
}

async function newProject() {
  const chosen = await ask(t("New project"), [
    { name: "name", label: t("Name"), value: "", required: true, max: 100 },
    { name: "board", label: t("Your device"), options: BOARDS.map((b) => [b, b]), value: "ESP8266" },
    { name: "connection", label: t("Connected by"), options: CONNECTIONS(), value: "WI_FI" },
    { name: "theme", label: t("Look"), options: THEMES(), value: isDark() ? "Blynk" : "BlynkLight" },
  ], t("Create"));
  if (!chosen) return;
  const project = await createProject(chosen);
  go(`project/${project.id}/edit`);
  toast(t("Drag widgets from the box onto the grid. The token for your device is under Devices."), { ms: 9000 });
}

async function importDialog() {
  const chosen = await ask(t("Copy a project with a code"), [{ name: "code", label: t("Code"), value: "", required: true, help: t("Whoever has the project finds its code in the settings of the project.") }], t("Copy"));
  if (!chosen) return;
  const code = (/clone\/([\w-]{32})/.exec(chosen.code) || [null, chosen.code.trim()])[1];
  const project = await importProject(code);
  go(`project/${project.id}`);
}

export async function removeProject(project) {
  if (!await confirm(t("Delete “{0}”?", project.name), t("Its widgets, devices and their history are gone for good."), t("Delete"))) return;
  await deleteProject(project);
  go("", true);
}

export function showSettings(screen) {
  const project = screen.project();
  if (!project) return;
  screen.head(t("Settings"), `project/${project.id}`, mainMenu());
  const doc = project.document;
  const name = h("input", { value: doc.name || "", maxLength: 100, required: true });
  const theme = select(THEMES().some(([key]) => key === doc.theme) ? THEMES() : [...THEMES(), [doc.theme, doc.theme]], doc.theme || "Blynk");
  const flags = [["keepScreenOn", t("Keep the screen on")], ["isAppConnectedOn", t("Tell devices when an app comes and goes")],
    ["isNotificationsOff", t("Do not tell me when devices go offline")], ["widgetBackgroundOn", t("Stronger widget background")]];
  const boxes = flags.map(([key]) => h("input", { type: "checkbox", checked: Boolean(doc[key]) }));
  const form = h("form.card", { async onsubmit(event) {
    event.preventDefault();
    await changeSettings(project, { name: name.value, theme: theme.value, ...Object.fromEntries(flags.map(([key], i) => [key, boxes[i].checked])) });
    toast(t("Saved"));
    go(`project/${project.id}`);
  } }, field(t("Name"), name), field(t("Look"), theme), flags.map(([, label], i) => field(label, boxes[i])), h(".row.end", null, h("button.primary", { type: "submit" }, t("Save"))));
  const toggle = button("", async () => { await setActive(project, !project.active); say(); });
  const say = () => { toggle.textContent = project.active ? t("Pause the project") : t("Start the project"); };
  say();
  screen.listen(project, "activity", say);
  screen.show(form, h(".card", null, h("h2", null, t("Running")), h("p", null, t("A paused project neither forwards values nor runs rules and timers.")), toggle),
    h(".card", null, h("h2", null, t("Give it away")), h("p", null, t("With the code others get a copy of this project, without your devices' tokens and values.")), button(t("Show the code"), () => showCode(project))),
    h(".card", null, h("h2", null, t("Delete")), button(t("Delete the project"), () => removeProject(project), { class: "danger" })));
}

async function showCode(project) {
  const code = await cloneCode(project);
  const { qrPicture } = await import("./qrpicture.js");
  dialog(t("Code of this project"), () => h("div", null, h("p", null, t("Enter it under Projects, “Copy a project with a code”, or scan it with the phone app.")),
    qrPicture(`blynk://token/clone/${code}?server=${location.hostname}&port=${location.port || 443}`), h("code.token", null, code), button([icon("copy"), t("Copy")], () => copy(code))));
}
