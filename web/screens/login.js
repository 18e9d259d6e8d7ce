// Before any project: log in, register, reset the password, or enter as a guest with a link.

import { enter, go } from "../app.js";
import { button, field, h, icon, replace } from "../dom.js";
import { LANGUAGES, language, setLanguage, t } from "../i18n.js";
import { passwordHash } from "../protocol.js";
import { reason, register, resetPassword, session } from "../session.js";

const card = (screen, heading, form, ...links) => {
  screen.bare();
  const languages = h(".languages", null, Object.entries(LANGUAGES).map(([code, name]) => h("button", { type: "button", lang: code, "aria-pressed": String(language() === code),
    onclick: async () => { await setLanguage(code); location.reload(); } }, name)));
  screen.show(h(".card.login", null, h(".brand", null, h("img", { src: "static/icons/icon.svg", alt: "", width: 56, height: 56 }), h("h1", null, heading)),
    form, h(".links", null, links), location.protocol === "http:" && h("a.hint-link", { href: "#/certificate" }, icon("lock"), t("Use the https address and install this app")), languages));
};

const email = (value = "") => h("input", { type: "email", name: "email", autocomplete: "username", required: true, maxLength: 255, value });
const password = (kind) => h("input", { type: "password", name: "password", autocomplete: kind, required: true });

// A form with one line for what went wrong; its button is off while the answer is awaited.
function form(fields, text, act) {
  const problem = h("p.problem", { role: "alert" });
  const send = h("button.primary", { type: "submit" }, text);
  return h("form", {
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
  }, fields, problem, send);
}

async function logIn(mail, secret, stay) {
  const login = { email: mail.trim().toLowerCase(), hash: passwordHash(mail, secret) };
  await new Promise((resolve, reject) => {
    const off = session.on("state", (state) => { if (state === "lost") { off(); session.stop(); reject(Object.assign(new Error(), { code: "lost" })); } });
    enter(login, stay).then(resolve, reject).finally(off);
  });
}

export function showLogin(screen) {
  const mail = email(), secret = password("current-password"), stay = h("input", { type: "checkbox", checked: true });
  card(screen, t("Log in"), form([field(t("E-mail"), mail), field(t("Password"), secret), field(t("Stay logged in on this device"), stay)], t("Log in"), async () => {
    await logIn(mail.value, secret.value, stay.checked);
    go("", true);
  }), h("a", { href: "#/register" }, t("New here? Make an account")), h("a", { href: "#/reset" }, t("Password forgotten?")));
  mail.focus();
}

export function showRegister(screen) {
  const mail = email(), secret = password("new-password");
  secret.minLength = 4;
  card(screen, t("Make an account"), form([field(t("E-mail"), mail, t("It is your name here; mail is only sent to it when you ask for it.")), field(t("Password"), secret)], t("Make the account"), async () => {
    await register(mail.value.trim().toLowerCase(), secret.value);
    await logIn(mail.value, secret.value, true);
    go("", true);
  }), h("a", { href: "#/login" }, t("I have an account")));
  mail.focus();
}

export function showReset(screen) {
  const mail = email(), code = h("input", { name: "code", autocomplete: "one-time-code", required: true }), secret = password("new-password");
  const second = () => replace(body, form([h("p", null, t("A mail with a link is on its way. Open it, or copy the token out of it here.")), field(t("Token"), code), field(t("New password"), secret)], t("Set the password"), async () => {
    const token = (/token=([\w-]+)/.exec(code.value) || [null, code.value.trim()])[1];
    await resetPassword("verify", token);
    await resetPassword("reset", token, passwordHash(mail.value, secret.value));
    await logIn(mail.value, secret.value, true);
    go("", true);
  }));
  const body = h("div", null, form([field(t("E-mail"), mail)], t("Send the mail"), async () => {
    await resetPassword("start", mail.value.trim().toLowerCase(), "Blynk");
    second();
  }), h(".links", null, button(t("I have a token already"), () => { if (mail.reportValidity()) second(); }, { class: "plain" })));
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
    return;                                             // app.js says that the link does not work
  }
  const [project] = session.model.projects.values();
  go(project ? `project/${project.id}` : "", true);
}
