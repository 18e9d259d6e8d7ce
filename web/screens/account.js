// The account: energy, language, look, notifications of this browser; and the log of notifications.

import { applyTheme, go, mainMenu } from "../app.js";
import { button, field, h, icon, iconButton, replace, select, toast } from "../dom.js";
import { LANGUAGES, ago, language, setLanguage, t } from "../i18n.js";
import { addEnergy, energy, explain, resetPassword, session } from "../session.js";

export async function showAccount(screen) {
  screen.head(t("Account"), "", mainMenu());
  const amount = h("strong.energy", null, "…");
  const load = async () => { amount.textContent = (await energy()).toLocaleString(language()); };
  const theme = select([["auto", t("Like the system")], ["dark", t("Dark")], ["light", t("Light")]], localStorage.getItem("blynk-pi-theme") || "auto");
  theme.addEventListener("change", () => { localStorage.setItem("blynk-pi-theme", theme.value); applyTheme(); });
  const languages = select(Object.entries(LANGUAGES), language());
  languages.addEventListener("change", async () => { await setLanguage(languages.value); go("account"); });
  screen.show(
    h(".card", null, h("h2", null, t("Account")), h("p", null, session.email), h(".row", null, button(t("Change the password"), () => changePassword()), button([icon("logout"), t("Log out")], () => { session.logOut(); session.ready = false; go("login"); }))),
    h(".card", null, h("h2", null, t("Energy")), h("p", null, icon("energy"), " ", amount), h("p.hint", null, t("Widgets cost energy and give it back when they are deleted. On your own server it is free.")),
      button(t("Add {0}", (100000).toLocaleString(language())), async () => { await addEnergy(100000); await load(); })),
    h(".card", null, h("h2", null, t("This browser")), field(t("Language"), languages), field(t("Look"), theme), notificationSwitch()));
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
  const on = button(t("Allow notifications"), async () => { await Notification.requestPermission(); say(); });
  const say = () => {
    const able = isSecureContext && "Notification" in window;
    on.hidden = !able || Notification.permission !== "default";
    state.textContent = !able ? t("System notifications need the https address; in the page they always appear.") : { granted: t("System notifications are allowed."), denied: t("System notifications are blocked in the settings of the browser."), default: "" }[Notification.permission];
  };
  say();
  return h(".field", null, h("span.field-label", null, t("Notifications")), on, state);
}

/** The log: what this page received, and what the server says it sent, and where to. */
export async function showNotifications(screen) {
  const project = screen.params.id ? screen.project() : null;
  screen.head(t("Notifications"), project ? `project/${project.id}` : "", iconButton("refresh", t("Refresh"), () => load()), mainMenu());
  const list = h(".list", { "aria-live": "polite" });
  const token = [...(project ? [project] : session.model.projects.values())].flatMap((p) => p.devices).find((d) => d.token)?.token
    || [...session.model.projects.values()].flatMap((p) => p.devices).find((d) => d.token)?.token;
  let logged = null;
  const draw = () => replace(list, session.notifications.length > 0 && h("h2", null, t("Received in this page")),
    session.notifications.map((n) => h(".list-item", null, icon("bell"), h("span.grow", null, h("span", null, n.message), h("small", null, [n.from, new Date(n.ts).toLocaleString()].filter(Boolean).join(" · "))))),
    h("h2", null, t("Sent by the server")), logged === null && h("p.hint", null, token ? t("Loading …") : t("The log needs a device in one of your projects.")),
    (logged || []).map(logEntry), logged?.length === 0 && h(".empty", null, icon("bell"), h("p", null, t("Nothing has been sent yet."))));
  async function load() {
    if (token) {
      const answer = await fetch(`${token}/notifications`).catch(() => null);
      const entries = answer?.ok ? await answer.json().catch(() => []) : [];
      logged = (Array.isArray(entries) ? entries : entries.notifications || []).sort((a, b) => timeOf(b) - timeOf(a));
    }
    draw();
  }
  screen.listen(session, "notified", draw);
  draw();
  screen.show(list);
  await load();
}

const timeOf = (entry) => { const time = entry.time ?? entry.ts ?? entry.at ?? 0; return typeof time === "number" ? time : Date.parse(time) || 0; };
const KIND_ICONS = { mail: "mail", email: "mail", push: "bell", sms: "chat", tweet: "chat" };

function logEntry(entry) {
  const result = entry.result ?? entry.status ?? (entry.sent === true ? "sent" : entry.error ?? entry.sent ?? "");
  const good = entry.sent === true || /^(sent|ok)\b/i.test(String(result));
  return h(".list-item", { class: good ? "" : "failed" }, icon(KIND_ICONS[String(entry.kind).toLowerCase()] || "bell"), h("span.grow", null, h("span", null, [entry.kind, entry.target, entry.text ?? entry.message].filter(Boolean).join(" · ")),
    h("small", null, [ago(timeOf(entry)), good ? t("sent") : String(result)].filter(Boolean).join(" · "))));
}
