// Everything that is neither a plain control nor a plain display: device tiles, charts, sensors of the phone, and the tiles
// of widgets that work in the background.

import { h, icon, button, replace } from "../dom.js";
import { clamp, cssColor, formatValue, numberText, parseNumber, range, readable, utcToClock } from "../format.js";
import { t, DAYS } from "../i18n.js";
import { pinName, validPin } from "../model.js";
import { same } from "./controls.js";
import { fontScale } from "./displays.js";

// DEVICE_TILES: a tile per device; templates say how it looks and what opens.

function sorted(project, w) {
  const tiles = (w.tiles || []).map((tile) => ({ tile, template: (w.templates || []).find((x) => x.id === tile.templateId), device: project.findDevice(tile.deviceId) }));
  const name = (x) => x.device?.name || "";
  const online = (x) => x.device?.status === "ONLINE";
  const template = (x) => x.template?.name || "";
  const orders = {
    DEVICE_NAME_ASC: (a, b) => name(a).localeCompare(name(b)), DEVICE_NAME_DESC: (a, b) => name(b).localeCompare(name(a)),
    TEMPLATE_NAME_ASC: (a, b) => template(a).localeCompare(template(b)), TEMPLATE_NAME_DESC: (a, b) => template(b).localeCompare(template(a)),
    STATUS_CRITICAL: (a, b) => online(a) - online(b), STATUS_OK: (a, b) => online(b) - online(a),
  };
  return orders[w.sortType] ? tiles.sort(orders[w.sortType]) : tiles;
}

export function tileText(template, raw) {
  if (raw === undefined || raw === null) return "–";
  const number = parseNumber(raw);
  const text = number !== null && template.maximumFractionDigits > 0 ? number.toFixed(template.maximumFractionDigits) : String(raw);
  return (template.valueFormatting ? formatValue(template.valueFormatting, [text]) || text : text) + (template.valueSuffix || "");
}

export function drawTiles(view) {
  const grid = h(".tile-grid");
  const write = (tile, value) => {
    const { project, model } = view.env;
    if (!project.active) return view.env.explainPaused();
    tile.pin.value = String(value);
    view.instance.touch();
    const letter = { VIRTUAL: "v", DIGITAL: "d", ANALOG: "a" }[tile.pin.pinType];
    project.value(tile.deviceId, letter, tile.pin.pin, String(value), { live: false });
    if (!model.write(project, tile.deviceId, letter, tile.pin.pin, value)) view.env.explainLost();
  };
  const open = (tile) => view.env.openTile(view.instance.widget, tile);
  view.onupdate = () => {
    const { w } = view;
    const { project } = view.env;
    grid.style.setProperty("--columns", String(w.columns > 0 ? w.columns : 2));
    grid.style.setProperty("--rows", String(w.rows > 0 ? w.rows : 2));
    const tiles = sorted(project, w).filter((x) => x.template);
    if (!tiles.length) {
      return replace(grid, h("p.hint", null, (w.templates || []).length ? t("No device uses a template yet.")
        : t("Add a template in edit mode, and choose its devices.")));
    }
    // A tile keeps its element while its kind stays, so that a finger on it is not lost when a value comes in.
    const old = new Map([...grid.children].map((el) => [el.dataset.key, el]));
    grid.replaceChildren(...tiles.map(({ tile, template, device }) => {
      const key = `${tile.templateId}/${tile.deviceId}/${template.mode}`;
      const el = old.get(key) || TILE_MODES[template.mode in TILE_MODES ? template.mode : "PAGE"](write, open);
      el.dataset.key = key;
      el.paint({ tile, template, device, w });
      return el;
    }));
  };
  return grid;
}

function common(el, { template, device, w, tile }, name) {
  const away = device?.status !== "ONLINE";
  el.classList.toggle("away", away);
  el.disabled = Boolean(w.disableWhenOffline && away);
  name.textContent = template.showDeviceName === false ? template.name || "" : device?.name || `#${tile.deviceId}`;
}

function fill(el, background, ink) {
  const color = cssColor(background), text = cssColor(ink);
  el.style.setProperty("--fill", color || "var(--well)");
  el.style.setProperty("--ink", text || (color ? readable(color) : "var(--text)"));
}

const offline = () => h("small.tile-off", null, t("offline"));

const TILE_MODES = {
  PAGE(write, open) {
    const name = h("span.tile-name"), value = h("strong.tile-value"), title = h("small");
    const el = h("button.tile", { type: "button", onclick: () => open(el.tile) }, name, value, title, offline());
    el.paint = (x) => {
      el.tile = x.tile;
      common(el, x, name);
      fill(el, x.template.tileColor, x.template.color);
      value.textContent = tileText(x.template, x.tile.pin?.value);
      title.textContent = x.template.showTileLabel || x.template.valueName ? x.template.valueName || x.template.name || "" : "";
      el.style.setProperty("--font", fontScale(x.template));
    };
    return el;
  },
  BUTTON(write) {
    const name = h("span.tile-name"), value = h("strong.tile-value");
    const el = h("button.tile", { type: "button" }, name, value, offline());
    const on = () => same(el.tile.pin?.value, levels()[1]);
    const levels = () => range(el.tile.pin || {}, 0, 1).map((n) => numberText(n));
    el.addEventListener("click", () => { if (!el.template.pushMode && validPin(el.tile.pin)) write(el.tile, levels()[on() ? 0 : 1]); });
    const press = (down) => () => { if (el.template.pushMode && validPin(el.tile.pin)) write(el.tile, levels()[down ? 1 : 0]); };
    el.addEventListener("pointerdown", press(true));
    el.addEventListener("pointerup", press(false));
    el.paint = (x) => {
      el.tile = x.tile;
      el.template = x.template;
      common(el, x, name);
      const state = on() ? x.template.stateOn : x.template.stateOff;
      fill(el, state?.tileColor || (on() ? 600084223 : 0), state?.textColor);
      value.textContent = state?.text || (on() ? t("ON") : t("OFF"));
      el.setAttribute("aria-pressed", String(on()));
    };
    return el;
  },
  DIMMER(write, open) {
    const name = h("span.tile-name"), value = h("strong.tile-value"), level = h("span.tile-level");
    const slider = h("input.tile-slider", { type: "range" });
    slider.addEventListener("change", () => { if (validPin(el.tile.pin)) write(el.tile, slider.value); });
    const page = h("button.tile-open", { type: "button", onclick: () => open(el.tile) }, name, value, offline());
    const el = h(".tile.dimmer", null, level, page, slider);
    el.paint = (x) => {
      el.tile = x.tile;
      common(el, x, name);
      fill(el, x.template.tileColor, x.template.color);
      const [low, high] = range(x.tile.pin || {}, 0, 100);
      const now = parseNumber(x.tile.pin?.value);
      Object.assign(slider, { min: low, max: high, step: x.template.step || 1, disabled: el.disabled });
      if (document.activeElement !== slider) slider.value = now ?? low;
      slider.setAttribute("aria-label", name.textContent);
      level.style.setProperty("--share", String(clamp(((now ?? low) - low) / (high - low), 0, 1)));
      level.style.setProperty("--level", cssColor(x.template.levelColor) || "var(--accent)");
      value.textContent = tileText(x.template, x.tile.pin?.value);
    };
    return el;
  },
};

// ENHANCED_GRAPH: drawn by screens/chart.js, which brings the chart library when the first chart is shown.

export const drawGraph = (view) => {
  const box = h(".graph");
  import("../screens/chart.js").then(({ inlineChart }) => { if (box.isConnected || view.el.isConnected) inlineChart(view, box); });
  return box;
};

/** LIVE values of a chart: what came in since the page is open, per stream. */
export function graphSample(instance, stream, value) {
  const number = parseNumber(value);
  if (number === null) return;
  for (const view of instance.views) view.sample?.(instance.widget.dataStreams.indexOf(stream), { value: number, ts: Date.now() });
}

// Sensors: the browser's own, where it has them and the context is secure.

function gravity(send) {
  const listener = (event) => {
    const a = event.accelerationIncludingGravity;
    if (a && a.x !== null) send([a.x, a.y, a.z].map((n) => numberText(n ?? 0, 4)).join("\0"));
  };
  window.addEventListener("devicemotion", listener);
  return () => window.removeEventListener("devicemotion", listener);
}

const generic = (name, read) => ({
  available: () => name in window,
  start(send, view, failed) {
    try {
      const sensor = new window[name]({ frequency: 10 });
      sensor.onreading = () => send(read(sensor));
      sensor.onerror = () => failed();
      sensor.start();
      return () => sensor.stop();
    } catch {
      failed();
      return () => {};
    }
  },
});

const xyz = (s) => [s.x, s.y, s.z].map((n) => numberText(n ?? 0, 4)).join("\0");
const motion = { available: () => "DeviceMotionEvent" in window,
  async start(send, view, failed) {
    const ask = window.DeviceMotionEvent.requestPermission;
    if (ask && await ask().catch(() => "denied") !== "granted") { failed(); return () => {}; }
    return gravity(send);
  } };

function metres(a, b) {
  const rad = (x) => (x * Math.PI) / 180;
  const f = Math.sin(rad(b.lat - a.lat) / 2) ** 2 + Math.cos(rad(a.lat)) * Math.cos(rad(b.lat)) * Math.sin(rad(b.lon - a.lon) / 2) ** 2;
  return 12742000 * Math.asin(Math.sqrt(f));
}

const position = (report) => ({ available: () => isSecureContext && "geolocation" in navigator,
  start(send, view, failed) {
    const id = navigator.geolocation.watchPosition(({ coords }) => report(send, view, coords), failed, { enableHighAccuracy: true });
    return () => navigator.geolocation.clearWatch(id);
  } });

const SENSORS = {
  ACCELEROMETER: motion,
  GRAVITY: motion,
  LIGHT: generic("AmbientLightSensor", (s) => numberText(s.illuminance ?? 0, 2)),
  PROXIMITY: generic("ProximitySensor", (s) => numberText(s.distance ?? (s.near ? 0 : 1), 2)),
  TEMPERATURE: generic("TemperatureSensor", (s) => numberText(s.celsius ?? 0, 2)),
  BAROMETER: generic("BarometerSensor", (s) => numberText(s.pressure ?? 0, 2)),
  HUMIDITY: generic("HumiditySensor", (s) => numberText(s.humidity ?? 0, 2)),
  GPS_STREAMING: position((send, view, c) => send([c.latitude, c.longitude, c.altitude ?? 0, c.speed ?? 0].join("\0"))),
  GPS_TRIGGER: position((send, view, c) => {
    const { w } = view;
    const inside = metres({ lat: w.triggerLat, lon: w.triggerLon }, { lat: c.latitude, lon: c.longitude }) <= (w.triggerRadius || 100);
    if (inside === view.inside) return;
    view.inside = inside;
    send(inside === Boolean(w.triggerOnEnter) ? "1" : "0");
  }),
};
export { xyz, metres };

export function drawSensor(view) {
  const sensor = SENSORS[view.instance.widget.type];
  const text = h("output.sensor-value"), action = button("", () => toggle());
  const send = view.sender();
  let stop = null, problem = "";
  const deliver = (value) => { send(value); view.last = value; view.dirty(); };
  const toggle = async () => {
    if (stop) { stop(); stop = null; }
    else {
      problem = "";
      stop = await sensor.start(deliver, view, () => { problem = t("This device does not give its readings."); stop = null; view.dirty(); });
    }
    view.dirty();
  };
  view.cleanups.push(() => stop?.());
  view.onupdate = () => {
    const able = sensor.available();
    action.hidden = !able;
    action.textContent = stop ? t("Stop") : t("Start");
    const now = view.last ?? view.state.values[0];
    text.textContent = problem || (able ? (now === undefined ? "–" : String(now).split("\0").map((n) => numberText(Number(n), 2)).join("  "))
      : isSecureContext ? t("This browser has no such sensor.") : t("Sensors need the https address."));
  };
  return h(".sensor", null, icon(view.type.icon), text, action);
}

// Widgets that work in the background: an icon and, in one line, what they do.

const timeRuleText = (rule) => `${utcToClock(rule.triggerTime.time)} ${(rule.triggerTime.days || []).map((d) => DAYS()[d - 1]).join(" ")}`;

const SUMMARIES = {
  EVENTOR: (w) => t("{0} rules", (w.rules || []).length),
  REPORT: (w) => t("{0} reports", (w.reports || []).length),
  WEBHOOK: (w) => `${pinName(w) || "–"} → ${w.method || "GET"} ${w.url || "…"}`,
  EMAIL: (w) => w.to || t("to your own address"),
  SMS: (w) => w.to || "",
  TWITTER: (w) => w.username || "",
  RTC: (w) => w.tzName || "UTC",
  NOTIFICATION: (w) => (w.notifyWhenOffline ? t("also when a device goes offline") : ""),
  BRIDGE: () => t("device to device"),
  BLUETOOTH: () => t("only in the phone app"),
  BLUETOOTH_SERIAL: () => t("only in the phone app"),
};

export function drawInfo(view) {
  const { type } = view.instance.widget;
  const name = h("span"), line = h("small");
  const opens = { EVENTOR: "rules", REPORT: "reports", NOTIFICATION: "notifications", WEBHOOK: "rules" }[type];
  const el = opens
    ? h("button.info-tile", { type: "button", onclick: () => view.env.open(opens) }, icon(view.type.icon), h("span.info-text", null, name, line))
    : h(".info-tile", null, icon(view.type.icon), h("span.info-text", null, name, line));
  view.onupdate = () => {
    name.textContent = view.name;
    line.textContent = SUMMARIES[type](view.w);
  };
  return el;
}

export { timeRuleText };
