// Making elements. Whatever a user typed or a board sent becomes a text node or an attribute, never markup.

import { t } from "./i18n.js";
import { ICONS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

/** h("button.primary", { onclick, disabled, "aria-label": "…" }, child, …): an element. A child is a node, text, or false. */
export function h(tag, props, ...children) {
  const [name, ...classes] = tag.split(".");
  const el = document.createElement(name || "div");
  if (classes.length) el.className = classes.join(" ");
  assign(el, props);
  el.append(...flat(children));
  return el;
}

/** The same for SVG. */
export function svg(name, attributes, ...children) {
  const el = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) el.setAttribute(key, value);
  el.append(...flat(children));
  return el;
}

function flat(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

function assign(el, props) {
  for (const [key, value] of Object.entries(props || {})) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, text] of Object.entries(value)) el.style.setProperty(name, text);
    else if (key === "class") el.className += ` ${value}`;
    else if (key in el && key !== "list" && key !== "form") el[key] = value;
    else if (value !== false) el.setAttribute(key, value === true ? "" : value);
  }
}

export function replace(el, ...children) {
  el.replaceChildren(...flat(children));
  return el;
}

/** A line icon, 24 by 24, in the colour of the text. */
export function icon(name, label) {
  const attributes = { viewBox: "0 0 24 24", class: "icon", fill: "none", stroke: "currentColor", "stroke-width": 1.8,
    "stroke-linecap": "round", "stroke-linejoin": "round" };
  if (label) Object.assign(attributes, { role: "img", "aria-label": label });
  else attributes["aria-hidden"] = "true";
  return svg("svg", attributes, svg("path", { d: ICONS[name] || ICONS.widget }));
}

export const button = (label, onclick, props) => h("button", { type: "button", onclick, ...props }, label);

export const iconButton = (name, label, onclick, props) =>
  h("button.icon-button", { type: "button", "aria-label": label, title: label, onclick, ...props }, icon(name));

let serial = 0;

/** A labelled form field: label text, the input, and an optional line of help. */
export function field(label, input, help) {
  const id = input.id || (input.id = `f${++serial}`);
  const note = help ? h("small", { id: `${id}-help` }, help) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return input.type === "checkbox"
    ? h(".field.check", null, h("label", null, input, h("span", null, label)), note)
    : h(".field", null, h("label", { for: id }, label), input, note);
}

export function select(options, value, props) {
  const el = h("select", props, options.map(([key, text]) => h("option", { value: String(key) }, text)));
  el.value = String(value);
  return el;
}

/** A dialog over the page. build(close) gives its content; resolves with what close() was given, undefined when dismissed. */
export function dialog(title, build, className = "") {
  return new Promise((resolve) => {
    const box = h("dialog", { class: className, "aria-label": title });
    let result;
    const close = (value) => { result = value; box.close(); };
    box.addEventListener("close", () => { box.remove(); resolve(result); });
    box.addEventListener("click", (event) => { if (event.target === box) close(); });
    box.append(h(".dialog-body", null,
      h("header", null, h("h2", null, title), iconButton("close", t("Close"), () => close())), build(close)));
    document.body.append(box);
    box.showModal();
    box.querySelector("[autofocus], form input, form select, form textarea, .primary")?.focus();
  });
}

export const confirm = (title, text, yes, danger = true) => dialog(title, (close) => h("form", {
  onsubmit: (event) => { event.preventDefault(); close(true); },
}, h("p", null, text), h(".row.end", null, button(t("Cancel"), () => close()),
  h("button", { type: "submit", class: danger ? "danger" : "primary" }, yes))));

/** ask("New project", [{ name, label, value, type?, options?, required?, help? }], "Create") -> { name: value } or undefined */
export function ask(title, fields, yes) {
  return dialog(title, (close) => {
    const inputs = fields.map((f) => {
      const common = { name: f.name, required: f.required, maxLength: f.max || 255 };
      if (f.options) return select(f.options, f.value, { name: f.name });
      if (f.type === "checkbox") return h("input", { type: "checkbox", name: f.name, checked: Boolean(f.value) });
      if (f.type === "textarea") return h("textarea", { name: f.name, rows: 4 }, f.value ?? "");
      return h("input", { type: f.type || "text", value: f.value ?? "", autocomplete: "off", ...common });
    });
    return h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        close(Object.fromEntries(inputs.map((i) => [i.name, i.type === "checkbox" ? i.checked : i.value])));
      },
    }, inputs.map((input, i) => field(fields[i].label, input, fields[i].help)),
    h(".row.end", null, button(t("Cancel"), () => close()), h("button.primary", { type: "submit" }, yes || t("Save"))));
  });
}

/** A menu that drops down from a button: items are [icon, text, action, danger?]. */
export function menu(anchor, items) {
  const box = h(".menu", { role: "menu" });
  const shut = () => {
    box.remove();
    document.removeEventListener("pointerdown", outside, true);
    anchor.setAttribute("aria-expanded", "false");
  };
  const outside = (event) => { if (!box.contains(event.target)) shut(); };
  box.append(...flat(items.filter(Boolean).map(([name, text, action, danger]) => h("button", {
    type: "button", role: "menuitem", class: danger ? "danger" : "", onclick: () => { shut(); anchor.focus(); action(); },
  }, icon(name), text))));
  box.addEventListener("keydown", (event) => {
    const all = [...box.children];
    const at = all.indexOf(document.activeElement);
    if (event.key === "Escape") { shut(); anchor.focus(); }
    else if (event.key === "ArrowDown") all[(at + 1) % all.length].focus();
    else if (event.key === "ArrowUp") all[(at + all.length - 1) % all.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  (anchor.closest("dialog") || document.body).append(box);
  const place = anchor.getBoundingClientRect();
  box.style.top = `${Math.max(8, Math.min(place.bottom + 4, innerHeight - box.offsetHeight - 8))}px`;
  box.style.left = `${Math.max(8, Math.min(place.right - box.offsetWidth, innerWidth - box.offsetWidth - 8))}px`;
  anchor.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  box.firstChild?.focus();
}

/** A short message at the bottom; with `undo` it has a button. Errors are announced at once, the rest politely. */
export function toast(text, { error = false, undo = null, ms = 5000 } = {}) {
  const tray = document.getElementById("toasts");
  const el = h(".toast", { class: error ? "error" : "", role: error ? "alert" : "status" }, h("span", null, text));
  if (undo) el.append(button(t("Undo"), () => { el.remove(); undo(); }));
  tray.append(el);
  while (tray.children.length > 4) tray.firstChild.remove();
  setTimeout(() => el.remove(), ms);
}

/** Copies text; also on plain http, where there is no navigator.clipboard. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { value: text, class: "off-screen", "aria-hidden": "true" });
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(t("Copied"));
}

const SCHEMES = { link: ["http:", "https:"], media: ["http:", "https:", "rtsp:"], image: ["http:", "https:", "blob:"] };

/** A URL of a user's widget, checked: the text when its scheme is one of the kind's, else "". */
export function safeUrl(text, kind = "link") {
  const clean = String(text ?? "").trim();
  if (!clean) return "";
  try {
    const url = new URL(clean, location.href);
    if (SCHEMES[kind].includes(url.protocol)) return url.href;
    if (kind === "image" && /^data:image\/(png|jpeg|gif|webp|bmp)[;,]/i.test(clean)) return clean;
  } catch { /* no URL */ }
  return "";
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
