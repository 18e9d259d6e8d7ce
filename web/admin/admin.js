// The admin page: state, accounts, devices, log, settings. No library; every text goes into the page as text.

const base = document.body.dataset.base;
const page = document.getElementById("page");
const dialog = document.getElementById("dialog");

// -- small tools

/** element("p", {class: "x", onclick: f}, "text", child) */
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** The JSON of a path below the admin path; throws an Error with the server's words. A lost session leads to the login. */
async function ask(path, method = "GET", body = undefined) {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const answer = await fetch(base + path, options);
  const text = await answer.text();
  if (answer.status === 404 && !text) {
    const here = await fetch(`${base}/api/state`);
    if (!here.ok) location.replace(base);
  }
  if (!answer.ok) throw new Error(text || `error ${answer.status}`);
  return text && answer.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
}

function bytes(count) {
  if (count == null || count < 0) return "?";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${count < 10 && unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

function moment(ms) {
  return ms ? new Date(ms).toLocaleString() : "never";
}

function table(columns, rows, empty) {
  const head = element("tr", {}, ...columns.map((title) => element("th", { scope: "col" }, title)));
  const body = rows.length ? rows : [element("tr", {}, element("td", { colspan: columns.length, class: "quiet" }, empty))];
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function cell(...content) {
  return element("td", {}, ...content.map((part) => (typeof part === "number" ? String(part) : part)));
}

/** A dialog with fields; `act(values)` may throw: its words are shown and the dialog stays. */
function openDialog(title, note, fields, action, act) {
  const form = element("form", { method: "dialog" });
  const message = element("p", { class: "bad", role: "alert", hidden: true });
  const inputs = fields.map(({ label, name, ...rest }) => {
    const input = element("input", { name, ...rest });
    form.append(element("label", {}, `${label} `, input));
    return input;
  });
  const button = element("button", { class: "primary", type: "submit" }, action);
  form.prepend(element("h2", {}, title), note ? element("p", {}, note) : "");
  form.append(
    message,
    element("div", { class: "row" }, button, element("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await act(Object.fromEntries(inputs.map((input) => [input.name, input.value])));
      dialog.close();
      show();
    } catch (problem) {
      message.textContent = problem.message;
      message.hidden = false;
    }
    button.disabled = false;
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

// -- state

let last = null; // {at, messages} of the state before
const rates = []; // messages a second, the newest last

function noteRate(state) {
  if (last && state.now > last.at && state.messages >= last.messages) {
    rates.push(((state.messages - last.messages) * 1000) / (state.now - last.at));
    if (rates.length > 120) rates.shift();
  }
  last = { at: state.now, messages: state.messages };
}

function curve(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 120 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "messages a second over the last minutes");
  const most = Math.max(1, ...values);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", values.map((v, i) => `${120 - values.length + i},${23 - (v / most) * 22}`).join(" "));
  svg.append(line);
  return svg;
}

function figure(id, title, value, more) {
  return element("div", { class: "card figure", id }, element("h2", {}, title), element("p", { class: "value" }, value), more ?? null);
}

async function statePage() {
  const state = await ask("/api/state");
  noteRate(state);
  const rate = rates.length ? rates[rates.length - 1] : state.rate;
  const small = (text) => element("p", { class: "quiet" }, text);
  const problems = state.problems.map((text) => element("li", {}, text));
  return [
    problems.length ? element("div", { class: "card bad" }, element("h2", {}, "Problems"), element("ul", {}, ...problems)) : null,
    element(
      "div",
      { class: "grid" },
      figure("memory", "Memory", bytes(state.memory), small(`up ${duration((state.now - state.started) / 1000)}`)),
      figure("connections", "Connections", String(state.connections), small(`${state.tls} over TLS`)),
      figure("boards", "Boards online", String(state.boards), small(`of ${state.devices} devices`)),
      figure("apps", "Apps online", String(state.apps), small(`${state.accounts} accounts, ${state.projects} projects`)),
      figure("rate", "Messages per second", rate.toFixed(rate < 10 ? 1 : 0), curve(rates)),
      figure("disk", "Room on the disk", bytes(state.diskFree), small(state.folder)),
    ),
    element(
      "div",
      { class: "card" },
      element("h2", {}, "This server"),
      element("p", {}, `blynk-pi ${state.version}, Python ${state.python}, host ${state.host}; ports: plain ${state.ports.http}, TLS ${state.ports.https}, MQTT ${state.ports.mqtt || "off"}.`),
      element(
        "p",
        { class: "row" },
        element("a", { class: "button", href: `${base}/api/backup`, id: "backup", download: true }, "Download a back-up"),
        element("a", { class: "button", href: "/blynk.crt" }, "Certificate of this server"),
      ),
    ),
  ];
}

// -- accounts

function accountRow(account) {
  const path = `/api/accounts/${encodeURIComponent(account.id)}`;
  const button = (text, act, kind = "") => element("button", { onclick: act, class: kind }, text);
  return element(
    "tr",
    { "data-id": account.id },
    cell(account.email, account.admin ? element("span", { class: "badge" }, "admin") : ""),
    cell(account.app),
    cell(account.projects),
    cell(`${account.online} of ${account.devices}`),
    cell(account.apps),
    cell(account.energy),
    cell(moment(account.lastLogin)),
    element(
      "td",
      { class: "row" },
      button("Password", () =>
        openDialog(`New password for ${account.email}`, "", [{ label: "Password", name: "password", type: "password", autocomplete: "new-password", required: true }], "Set", ({ password }) => ask(`${path}/password`, "POST", { password })),
      ),
      button("Energy", () =>
        openDialog(`Energy of ${account.email}`, "", [{ label: "Energy", name: "energy", type: "number", min: 0, value: account.energy, required: true }], "Set", ({ energy }) => ask(`${path}/energy`, "POST", { energy: Number(energy) })),
      ),
      button("Delete", () =>
        openDialog(`Delete ${account.email}?`, "Its projects, devices and history go; its connections end. The user file stays in the folder deleted.", [], "Delete", () => ask(`/users/${encodeURIComponent(account.id)}`, "DELETE")),
        "danger",
      ),
    ),
  );
}

async function accountsPage() {
  const accounts = await ask("/api/accounts");
  accounts.sort((a, b) => a.email.localeCompare(b.email));
  const create = () =>
    openDialog("New account", "", [
      { label: "E-mail", name: "email", type: "email", required: true },
      { label: "Password", name: "password", type: "password", autocomplete: "new-password", required: true },
      { label: "App", name: "app", value: "Blynk", required: true },
    ], "Create", (values) => ask("/api/accounts", "POST", values));
  return [
    element("p", { class: "row" }, element("button", { class: "primary", id: "new-account", onclick: create }, "New account")),
    table(["E-mail", "App", "Projects", "Devices online", "Apps online", "Energy", "Last login", ""], accounts.map(accountRow), "No accounts."),
  ];
}

// -- devices and firmware

function deviceRow(device) {
  return element(
    "tr",
    { "data-device": `${device.account}/${device.projectId}/${device.id}` },
    cell(element("span", { class: device.online ? "dot on" : "dot" }), device.online ? "online" : "offline"),
    cell(device.name),
    cell(device.project),
    cell(device.account.slice(0, device.account.lastIndexOf("-"))),
    cell(device.board),
    cell([device.library, device.connection].filter(Boolean).join(", ")),
    cell([device.firmware, device.build].filter(Boolean).join(", ")),
    cell(moment(device.seen)),
    cell(device.ip),
  );
}

function firmwareForm() {
  const message = element("p", { role: "status" });
  const file = element("input", { type: "file", name: "upfile", required: true });
  const user = element("input", { name: "user", placeholder: "all accounts" });
  const project = element("input", { name: "project", placeholder: "all projects" });
  const send = async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    if (user.value) query.set("user", user.value);
    if (project.value) query.set("project", project.value);
    const body = new FormData();
    body.append("upfile", file.files[0]);
    message.textContent = "Sending…";
    const answer = await fetch(`${base}/ota/start?${query}`, { method: "POST", body });
    const text = await answer.text();
    message.textContent = answer.ok ? `Boards that report another build get ${text}` : text || "The file has no build date (\\0build\\0…): it is no Blynk firmware.";
  };
  const stop = async () => {
    await fetch(`${base}/ota/stop`);
    message.textContent = "No update waits any more.";
  };
  return element(
    "form",
    { class: "card", id: "firmware", onsubmit: send },
    element("h2", {}, "Firmware"),
    element("div", { class: "row" }, element("label", {}, "File ", file), element("label", {}, "Account ", user), element("label", {}, "Project ", project)),
    element("div", { class: "row" }, element("button", { class: "primary" }, "Upload"), element("button", { type: "button", onclick: stop }, "Cancel waiting updates")),
    message,
  );
}

let deviceFilter = "";
let firmware = null; // kept over refreshes: a file may be chosen

async function devicesPage() {
  const devices = await ask("/api/devices");
  devices.sort((a, b) => Number(b.online) - Number(a.online) || b.seen - a.seen);
  const wanted = devices.filter((d) => Object.values(d).join(" ").toLowerCase().includes(deviceFilter));
  firmware ??= firmwareForm();
  const filter = element("input", { type: "search", id: "device-filter", placeholder: "Filter", "aria-label": "Filter", value: deviceFilter });
  filter.addEventListener("change", () => {
    deviceFilter = filter.value.trim().toLowerCase();
    show();
  });
  return [
    element("p", { class: "row" }, filter),
    table(["", "Device", "Project", "Account", "Board", "Library", "Firmware", "Last seen", "Address"], wanted.map(deviceRow), "No devices."),
    firmware,
  ];
}

// -- log, settings

async function logPage() {
  const lines = await ask("/api/log");
  return [element("pre", { id: "log" }, lines.join("\n") || "Nothing yet.")];
}

async function settingsPage() {
  const { files, warnings, settings } = await ask("/api/settings");
  const rows = settings.map((s) =>
    element(
      "tr",
      { class: s.default ? "quiet" : "" },
      cell(`${s.section}.${s.key}`),
      element("td", {}, element("code", {}, Array.isArray(s.value) ? s.value.join(", ") || "[]" : String(s.value) || '""')),
      cell(s.help),
    ),
  );
  return [
    element("p", {}, files.length ? `Read from ${files.join(", ")}.` : "No settings file was read: these are the defaults."),
    warnings.length ? element("ul", { class: "bad" }, ...warnings.map((text) => element("li", {}, text))) : null,
    table(["Setting", "Value", ""], rows, ""),
  ];
}

// -- pages

const PAGES = {
  state: ["State", statePage, 2000],
  accounts: ["Accounts", accountsPage, 5000],
  devices: ["Devices", devicesPage, 3000],
  log: ["Log", logPage, 3000],
  settings: ["Settings", settingsPage, 0],
};
let timer = 0;
let turn = 0;

function busyWithPage() {
  return dialog.open || page.contains(document.activeElement) && document.activeElement.matches("input");
}

async function show() {
  const name = PAGES[location.hash.slice(1)] ? location.hash.slice(1) : "state";
  const [, make, period] = PAGES[name];
  const mine = ++turn;
  clearTimeout(timer);
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    const content = await make();
    document.getElementById("offline").hidden = true;
    if (mine !== turn) return;
    const log = document.getElementById("log");
    const atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    page.dataset.page = name;
    page.replaceChildren(...content.filter(Boolean));
    const now = document.getElementById("log");
    if (now && atEnd) now.scrollTop = now.scrollHeight;
  } catch (problem) {
    if (problem instanceof TypeError) document.getElementById("offline").hidden = false;
    else page.replaceChildren(element("p", { class: "bad" }, problem.message));
  }
  const again = () => {
    if (document.hidden || busyWithPage()) timer = setTimeout(again, 1000);
    else show();
  };
  if (mine === turn && period) timer = setTimeout(again, period);
}

document.getElementById("tabs").append(...Object.entries(PAGES).map(([name, [title]]) => element("a", { href: `#${name}` }, title)));
addEventListener("hashchange", show);
show();
