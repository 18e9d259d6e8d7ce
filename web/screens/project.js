// A project in play and in edit mode, the page behind a tile, and the editor of a tile template's page.

import { go, mainMenu } from "../app.js";
import { Board, theme } from "../board.js";
import { button, h, icon, iconButton, menu, replace } from "../dom.js";
import { ago, t } from "../i18n.js";
import { session, setActive, syncProject } from "../session.js";
import { Refusal } from "../protocol.js";

/** "● ESP8266 online", leading to the devices. */
function deviceChip(project) {
  const el = session.guest ? h("span.chip") : h("a.chip", { href: `#/project/${project.id}/devices` });
  const draw = () => {
    const { devices } = project;
    const online = devices.filter((device) => device.status === "ONLINE");
    el.classList.toggle("on", online.length > 0);
    const text = devices.length === 1 ? (online.length ? t("online") : devices[0].connectTime || devices[0].disconnectTime ? t("offline") : t("never connected")) : `${online.length}/${devices.length}`;
    replace(el, h("span.dot"), h("span", null, text));
    const last = devices.length === 1 && !online.length && devices[0].disconnectTime;
    el.title = devices.map((device) => `${device.name || t("Device")}: ${device.status === "ONLINE" ? t("online") : t("offline")}`).join("\n") + (last ? ` (${ago(last)})` : "");
    el.setAttribute("aria-label", `${t("Devices")}: ${text}`);
  };
  draw();
  el.draw = draw;
  return el;
}

async function sync(project) {
  if (!session.online) return;
  try {
    await syncProject(project);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
  }
}

function keepAwake(screen, project) {
  if (!project.document.keepScreenOn || !navigator.wakeLock) return;
  let lock = null;
  navigator.wakeLock.request("screen").then((x) => { lock = x; if (!screen.open) x.release(); }).catch(() => {});
  screen.onleave(() => lock?.release());
}

export async function showProject(screen) {
  const project = screen.project();
  if (!project) return;
  const chip = deviceChip(project);
  const more = iconButton("more", t("More"), () => menu(more, [
    ["edit", t("Edit"), () => go(`project/${project.id}/edit`)], ["chip", t("Devices"), () => go(`project/${project.id}/devices`)],
    ["tag", t("Tags"), () => go(`project/${project.id}/tags`)], ["rule", t("Rules and timers"), () => go(`project/${project.id}/rules`)],
    ["report", t("Reports"), () => go(`project/${project.id}/reports`)], ["bell", t("Notifications"), () => go(`project/${project.id}/notifications`)],
    ["share", t("Share"), () => go(`project/${project.id}/share`)], ["gear", t("Settings"), () => go(`project/${project.id}/settings`)],
  ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
  screen.head(project.name, session.guest && session.model.projects.size < 2 ? null : "", chip,
    !session.guest && h("a.icon-button", { href: `#/project/${project.id}/edit`, "aria-label": t("Edit"), title: t("Edit") }, icon("edit")), session.guest ? mainMenu() : more);
  screen.look(theme(project));
  const board = new Board(project);
  const paused = h(".note", { hidden: true });
  const firstSteps = h(".note", { hidden: true });
  const sayState = () => {
    chip.draw();
    paused.hidden = project.active;
    replace(paused, icon("pausebox"), h("span", null, t("This project is paused: values are not passed on, rules and timers rest.")),
      !session.guest && button(t("Start"), async () => { await setActive(project, true); }, { class: "primary" }));
    const fresh = !session.guest && project.devices.length && project.devices.every((device) => !device.connectTime && !device.firstConnectTime && device.status !== "ONLINE");
    firstSteps.hidden = !fresh || !project.active;
    if (fresh) replace(firstSteps, icon("chip"), h("span", null, t("Your device has not connected yet. It needs its token and a few lines.")), button(t("Show me"), () => go(`project/${project.id}/device/${project.devices[0].id}`), { class: "primary" }));
  };
  sayState();
  screen.listen(project, "changed", () => { screen.head(project.name, session.guest ? null : "", ...document.querySelector(".top .actions").children); board.draw(); sayState(); });
  screen.listen(project, "activity", sayState);
  screen.listen(project, "status", sayState);
  screen.listen(project, "changed-selection", () => board.draw());
  screen.onleave(() => board.remove());
  keepAwake(screen, project);
  const empty = !project.widgets.length && h(".empty", null, icon("widget"), h("p", null, t("There is no widget here yet.")), !session.guest && button(t("Add widgets"), () => go(`project/${project.id}/edit`), { class: "primary" }));
  screen.show(paused, firstSteps, empty || board.el);
  refreshWhenBack(screen, project);
  await sync(project);
}

// Another app may have changed the project meanwhile; the server does not tell, so look again after a longer absence.
function refreshWhenBack(screen, project) {
  let left = 0;
  const listener = async () => {
    if (document.visibilityState === "hidden") left = Date.now();
    else if (left && Date.now() - left > 20000 && session.online) {
      await session.reload(project).catch(() => {});
      await sync(project);
    }
  };
  document.addEventListener("visibilitychange", listener);
  screen.onleave(() => document.removeEventListener("visibilitychange", listener));
}

export async function showEditor(screen) {
  const { Editor } = await import("../editor.js");
  const project = screen.project();
  if (project) new Editor(screen, project, null).open();
}

function tilesOf(screen, project) {
  const tiles = project.widgets.find((w) => String(w.id) === screen.params.widget && w.type === "DEVICE_TILES");
  if (!tiles) go(`project/${project.id}`, true);
  return tiles;
}

export async function showTemplateEditor(screen) {
  const { Editor } = await import("../editor.js");
  const project = screen.project();
  const tiles = project && tilesOf(screen, project);
  const template = tiles?.templates?.find((x) => String(x.id) === screen.params.template);
  if (template) new Editor(screen, project, { tiles, template }).open();
  else if (project) go(`project/${project.id}/edit`, true);
}

export async function showTilePage(screen) {
  const project = screen.project();
  const tiles = project && tilesOf(screen, project);
  if (!tiles) return;
  const device = Number(screen.params.device);
  const tile = tiles.tiles?.find((x) => x.deviceId === device);
  const template = tiles.templates?.find((x) => x.id === tile?.templateId);
  if (!template) return go(`project/${project.id}`, true);
  const name = project.findDevice(device)?.name || template.name || `#${device}`;
  const chip = h("span.chip");
  const say = () => {
    const on = project.online(device);
    chip.classList.toggle("on", on);
    replace(chip, h("span.dot"), h("span", null, on ? t("online") : t("offline")));
  };
  say();
  screen.head(name, `project/${project.id}`, chip, !session.guest && h("a.icon-button", { href: `#/project/${project.id}/template/${tiles.id}/${template.id}`, "aria-label": t("Edit"), title: t("Edit") }, icon("edit")));
  screen.look(theme(project));
  const board = new Board(project, { place: { tiles, template }, device });
  screen.listen(project, "changed", () => board.draw());
  screen.listen(project, "status", say);
  screen.onleave(() => board.remove());
  screen.show((template.widgets || []).length ? board.el : h(".empty", null, icon("tiles"), h("p", null, t("This page has no widgets yet.")),
    !session.guest && button(t("Add widgets"), () => go(`project/${project.id}/template/${tiles.id}/${template.id}`), { class: "primary" })));
  await sync(project);
}
