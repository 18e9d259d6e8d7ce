// web/protocol.js against a real server, and the parts of the page that need no browser. Run by test_webapp_protocol.py,
// which sets BLYNK_WEB (folder of the modules) and BLYNK_URL (ws://…/dashws) when there is a server.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { deflateSync } from "node:zlib";

const module = (name) => import(pathToFileURL(`${process.env.BLYNK_WEB}/${name}`));
const { Command, Connection, Refusal, Status, askOnce, graphPoints, inflate, pack, passwordHash, unpack } = await module("protocol.js");
const { Model, PROPERTIES } = await module("model.js");
const format = await module("format.js");
const layout = await module("layout.js");
const { sha256 } = await module("vendor/sha256.js");
const { qr } = await module("vendor/qr.js");

const URL = process.env.BLYNK_URL;
const withServer = { skip: URL ? false : "needs a server and a Node with WebSocket" };
after(() => { setTimeout(() => process.exit(), 500).unref(); });       // a failed test may leave a connection open
const someone = () => `${randomBytes(6).toString("hex")}@example.com`;

test("the password hash is that of the specification", () => {
  assert.equal(passwordHash("user@example.com", "1"), "lzrpLkCfGLraaRJDA72qk57dwYgUQcoUXZTNuvnswfU=");
  assert.equal(passwordHash(" USER@example.com ", "1"), "lzrpLkCfGLraaRJDA72qk57dwYgUQcoUXZTNuvnswfU=");
});

test("SHA-256 agrees with Node's for every length around a block", () => {
  for (let n = 0; n < 200; n++) {
    const bytes = randomBytes(n);
    assert.equal(Buffer.from(sha256(bytes)).toString("hex"), createHash("sha256").update(bytes).digest("hex"));
  }
});

test("frames are packed and unpacked as the wire has them", () => {
  assert.deepEqual([...pack(20, 3, "1-0", "vw", 4, 1)], [0x14, 0, 3, 0x31, 0x2d, 0x30, 0, 0x76, 0x77, 0, 0x34, 0, 0x31]);
  assert.deepEqual(unpack(new Uint8Array([0, 0, 2, 0, 0, 0, 200]).buffer), { command: 0, id: 2, code: 200 });
  assert.equal(unpack(new Uint8Array([0, 0]).buffer), null);
  assert.equal(unpack(new Uint8Array([0, 0, 2, 0]).buffer), null);
});

test("zlib and graph points", async () => {
  const body = Buffer.alloc(4 + 4 + 32 + 4);
  body.writeInt32BE(1, 0);
  body.writeInt32BE(2, 4);
  body.writeDoubleBE(21.5, 8);
  body.writeBigInt64BE(1700000000000n, 16);
  body.writeDoubleBE(-3, 24);
  body.writeBigInt64BE(1700000060000n, 32);
  const bytes = await inflate(deflateSync(body));
  assert.deepEqual(graphPoints(bytes), [[{ value: 21.5, ts: 1700000000000 }, { value: -3, ts: 1700000060000 }], []]);
  assert.deepEqual(graphPoints(bytes.subarray(0, 20)), [[]]);
});

// A server made of nothing, for what a real one does not do on demand.
class FakeSocket {
  static made = [];

  constructor(url) {
    this.url = url;
    this.readyState = 0;
    this.sent = [];
    FakeSocket.made.push(this);
  }

  open() { this.readyState = 1; this.onopen(); }
  send(frame) { this.sent.push(unpack(frame.buffer.slice(frame.byteOffset, frame.byteOffset + frame.byteLength))); }
  receive(...bytes) { this.onmessage({ data: new Uint8Array(bytes).buffer }); }
  answer(code) { const { id } = this.sent.at(-1); this.receive(0, id >> 8, id & 255, 0, 0, 0, code); }
  close() { this.readyState = 3; this.onclose?.(); }
}

const fake = (more) => {
  const states = [], frames = [];
  const link = new Connection({ url: "ws://x/dashws", login: { email: "a@b.c", hash: "h" }, WebSocket: FakeSocket, random: () => 0.5,
    onState: (state) => states.push(state), onFrame: (frame) => frames.push(frame), ...more });
  link.open();
  return { link, states, frames, socket: () => FakeSocket.made.at(-1) };
};
const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

test("login names the browser, so that notifications come as frames", async () => {
  const { link, states, socket } = fake();
  socket().open();
  assert.equal(new TextDecoder().decode(socket().sent[0].bytes), "a@b.c\0h\0Web\x001.0.0\0Blynk");
  socket().answer(200);
  await turn();
  assert.deepEqual(states, ["connecting", "online"]);
  link.close();
});

test("a refused login ends it; a lost connection is tried again, later each time", async () => {
  const refused = fake();
  refused.socket().open();
  refused.socket().answer(5);
  await turn();
  assert.deepEqual(refused.states, ["connecting", "refused"]);

  const before = FakeSocket.made.length;
  const lost = fake();
  lost.socket().close();
  assert.deepEqual(lost.states, ["connecting", "lost"]);
  assert.equal(FakeSocket.made.length, before + 1);
  await new Promise((resolve) => setTimeout(resolve, 450));
  assert.equal(FakeSocket.made.length, before + 2, "tried again after 0.4 s");
  lost.socket().close();
  lost.link.hurry();
  assert.equal(FakeSocket.made.length, before + 3, "at once when the network is back");
  lost.link.close();
});

test("what waits for an answer is told when the connection is lost", async () => {
  const { link, socket } = fake();
  socket().open();
  socket().answer(200);
  await turn();
  const asked = link.request(Command.GET_ENERGY);
  socket().close();
  await assert.rejects(asked, (refusal) => refusal instanceof Refusal && refusal.code === "lost");
  await assert.rejects(link.request(Command.GET_ENERGY), { code: "lost" });
  assert.equal(link.send(Command.HARDWARE, "1-0", "vw", 1, 1), 0);
  link.close();
});

test("pushes are no answers, even with the id of a question", async () => {
  const late = [];
  const { link, frames, socket } = fake({ onLateRefusal: (id, code) => late.push([id, code]) });
  socket().open();
  socket().answer(200);
  await turn();
  const asked = link.request(Command.SHARING, 1, "on");
  const { id } = socket().sent.at(-1);
  socket().receive(26, id >> 8, id & 255, 0x31);          // another app switched sharing: not our answer
  socket().receive(20, 0, 1, 0x31, 0x2d, 0x30);
  assert.equal(frames.length, 2);
  socket().answer(200);
  await asked;
  socket().receive(0, 0x12, 0x34, 0, 0, 0, 7);            // a write that could not be delivered
  assert.deepEqual(late, [[0x1234, 7]]);
  for (let i = 0; i < 70000; i++) {
    const used = link.send(Command.HARDWARE, "1-0", "vw", 1, 1);
    assert.ok(used > 1 && used < 65536 && ![111, 888, 1111, 7777, 7778].includes(used));
    socket().sent.length = 0;
  }
  link.close();
});

test("a text frame, a short one and broken zlib are ignored", async () => {
  const { link, frames, socket } = fake();
  socket().open();
  socket().answer(200);
  await turn();
  socket().onmessage({ data: "text" });
  socket().receive(1);
  socket().receive(24, 9, 9, 1, 2, 3);
  socket().receive(4, 0, 1, 0x31);
  for (let i = 0; i < 400 && !frames.length; i++) await turn();
  assert.deepEqual(frames.map((f) => f.command), [4]);
  link.close();
});

// Against the real server.

async function account() {
  const email = someone(), hash = passwordHash(email, "pw");
  await askOnce(URL, Command.REGISTER, [email, hash, "Blynk"]);
  return { email, hash };
}

function online(login, more = {}) {
  return new Promise((resolve, reject) => {
    const link = new Connection({ url: URL, login, onState: (state, code) => {
      if (state === "online") resolve(link);
      if (state === "refused") reject(new Refusal(code, 2));
    }, ...more });
    link.open();
  });
}

const document = (id) => JSON.stringify({ id, name: "Node", isActive: true, devices: [{ id: 0, name: "d", boardType: "ESP8266" }],
  widgets: [{ type: "GAUGE", id: 1, x: 0, y: 0, width: 4, height: 3, deviceId: 0, pinType: "VIRTUAL", pin: 2, max: 100 }] });

test("register, log in, make a project, read it back", withServer, async () => {
  const login = await account();
  await assert.rejects(askOnce(URL, Command.REGISTER, [login.email, login.hash, "Blynk"]), { code: Status.USER_ALREADY_REGISTERED });
  await assert.rejects(online({ email: login.email, hash: "wrong" }), { code: Status.USER_NOT_AUTHENTICATED });
  await assert.rejects(online({ email: someone(), hash: "wrong" }), { code: Status.USER_NOT_REGISTERED });
  const link = await online(login);
  await link.request(Command.CREATE_DASH, document(1));
  await assert.rejects(link.request(Command.CREATE_DASH, document(1)), { code: Status.NOT_ALLOWED });
  const profile = JSON.parse((await link.request(Command.LOAD_PROFILE)).text);
  assert.equal(profile.dashBoards[0].widgets[0].type, "GAUGE");
  assert.match(profile.dashBoards[0].devices[0].token, /^[\w-]{32}$/);
  assert.match((await link.request(Command.GET_ENERGY)).text, /^\d+$/);
  const answers = await Promise.all(Array.from({ length: 20 }, () => link.request(Command.GET_DEVICES, 1)));
  assert.ok(answers.every((frame) => JSON.parse(frame.text).length === 1));
  link.close();
});

test("a value of one app reaches the other's model, and pings keep the line", withServer, async () => {
  const login = await account();
  const first = await online(login);
  await first.request(Command.CREATE_DASH, document(1));
  const model = new Model({ GAUGE: {} });
  const second = await online(login, { onFrame: (frame) => model.frame(frame) });
  model.loadProfile(JSON.parse((await second.request(Command.LOAD_PROFILE)).text));
  const project = model.projects.get(1);
  const instance = project.instance(project.widgets[0]);
  const seen = new Promise((resolve) => project.on("value", (...news) => resolve(news)));
  first.send(Command.HARDWARE, "1-0", "vw", 2, "47");
  assert.deepEqual(await seen, [0, "v", 2, "47"]);
  assert.equal(instance.state.values[0], "47");
  await second.request(Command.PING);
  first.close();
  second.close();
});

test("a long body goes through, and comes back", withServer, async () => {
  const login = await account();
  const link = await online(login);
  const project = JSON.parse(document(1));
  for (let i = 2; i < 700; i++) project.widgets.push({ ...project.widgets[0], id: i, label: "a long label to make it long" });
  const body = JSON.stringify(project);
  assert.ok(body.length > 66000);
  await link.request(Command.CREATE_DASH, body);
  const back = JSON.parse((await link.request(Command.LOAD_PROFILE, 1)).text);
  assert.equal(back.widgets.length, 699);
  link.close();
});

// Parts without a browser.

test("values in their formats", () => {
  const { formatValue, numberText, parseNumber, cssColor, colorInt, propertyColor, utcToClock, clockToUtc, csv, mapped } = format;
  assert.equal(formatValue("/pin.#/ °C", ["21.57"]), "21.6 °C");
  assert.equal(formatValue("/pin./", ["21.57"]), "22");
  assert.equal(formatValue("/pin0/ and /pin[1]/", ["a", "b"]), "a and b");
  assert.equal(formatValue("no mark", ["5"]), "5");
  assert.equal(formatValue("/pin.##/", ["hot"]), "hot");
  assert.equal(numberText(0.1 + 0.2), "0.3");
  assert.equal(parseNumber(" 1e3 "), 1000);
  assert.equal(parseNumber("1 2"), null);
  assert.equal(cssColor(600084223), "#23c48e");
  assert.equal(cssColor(0), "");
  assert.equal(colorInt("#23C48E"), 600084223);
  assert.equal(colorInt("#ff0000"), -16776961);
  assert.equal(propertyColor("0xFF0000"), -16776961);
  assert.equal(propertyColor("-1"), -1);
  assert.equal(propertyColor("red"), null);
  assert.equal(utcToClock(3600, "UTC"), "01:00");
  assert.equal(clockToUtc("01:00:30", "UTC"), 3630);
  assert.equal(utcToClock(clockToUtc("08:15", "Asia/Kolkata"), "Asia/Kolkata"), "08:15");
  assert.equal(utcToClock(-1), "");
  assert.equal(mapped({ rangeMappingOn: true, min: 0, max: 50 }, 1023), 50);
  assert.equal(csv(["=a", 'b"'], [[{ ts: 0, value: 1 }], [{ ts: 0, value: 2 }, { ts: 60000, value: 3 }]]),
    'time,\'=a,"b"""\r\n1970-01-01T00:00:00.000Z,1,2\r\n1970-01-01T00:01:00.000Z,,3\r\n');
});

test("the grid: free places, overlaps of foreign projects", () => {
  const { arrange, fits, firstFree, freeId } = layout;
  const taken = [{ x: 0, y: 0, width: 8, height: 1 }, { x: 0, y: 1, width: 3, height: 2 }];
  assert.deepEqual(firstFree(4, 2, taken), { x: 3, y: 1, width: 4, height: 2 });
  assert.equal(fits({ x: 6, y: 4, width: 3, height: 1 }, []), false);
  assert.equal(freeId([1, 2, 4]), 3);
  const pile = [1, 2, 3].map((id) => ({ id, x: 0, y: 0, width: 0, height: 0 }));
  const { places } = arrange(pile);
  assert.deepEqual(places.map((p) => [p.widget.id, p.x, p.y]), [[1, 0, 0], [2, 1, 0], [3, 2, 0]]);
  assert.ok(pile.every((w) => w.width === 0), "documents stay as they are");
});

test("values find their widgets as the specification says", () => {
  const model = new Model({ BUTTON: {}, GAUGE: {}, TERMINAL: {} });
  const single = (type, id, more) => ({ type, id, x: 0, y: 0, width: 1, height: 1, deviceId: 0, pinType: "VIRTUAL", pin: 1, ...more });
  const project = model.loadProject({ id: 1, devices: [{ id: 0 }, { id: 1 }], tags: [{ id: 100000, deviceIds: [0, 1] }], widgets: [
    single("GAUGE", 1), single("GAUGE", 2, { deviceId: 1 }), single("GAUGE", 3, { deviceId: 200000 }), { type: "DEVICE_SELECTOR", id: 200000, value: 0, deviceIds: [0, 1] },
    single("BUTTON", 4, { pinType: "DIGITAL", pin: 5, pwmMode: true }), single("GAUGE", 5, { pinType: "ANALOG", pin: 5 }), single("GAUGE", 6, { deviceId: 100000 })] },
  { "1-1-v1": "stored", "1-1-v1-label": "Two", "2-0-v1": "other project" });
  const shown = (id) => project.instance(project.findWidget(id)).state.values[0];
  project.widgets.forEach((w) => project.instance(w));
  const push = (command, text, id = 5) => model.frame({ command, id, text: text.replaceAll(" ", "\0") });
  push(Command.HARDWARE, "1-0 vw 1 10");
  assert.deepEqual([shown(1), shown(2), shown(3), shown(6)], ["10", undefined, "10", undefined]);
  push(Command.APP_SYNC, "1-0 vu 200000 1");
  assert.equal(shown(3), "stored");
  assert.equal(project.instance(project.findWidget(3)).w.label, "Two");
  assert.equal(project.findWidget(3).label, undefined, "the document keeps its own");
  push(Command.APP_SYNC, "1-100000 vw 1 30");
  assert.deepEqual([shown(1), shown(2), shown(3), shown(6)], ["30", "30", "30", "30"]);
  push(Command.HARDWARE, "1-0 aw 5 128");
  assert.deepEqual([shown(4), shown(5)], ["128", "128"]);
  push(Command.HARDWARE, "1-0 dw 5 1");
  assert.deepEqual([shown(4), shown(5)], ["1", "1"]);
  push(Command.HARDWARE, "9-0 vw 1 1");
  push(Command.HARDWARE, "1-0 vw");
  push(Command.DEVICE_OFFLINE, "1-0", 0);
  assert.equal(project.online(0), false);
  push(Command.HARDWARE_CONNECTED, "1-0", 1);
  assert.equal(project.online(100000), true);
  push(Command.DEACTIVATE, "", 3);
  assert.equal(project.active, false);
});

test("properties of boards change documents as the server changes them", () => {
  const apply = (w, name, value) => { PROPERTIES[name](w, value); return w; };
  assert.deepEqual(apply({}, "color", "#23C48E"), { color: 600084223, isDefaultColor: false });
  assert.deepEqual(apply({ min: 1 }, "min", "x"), { min: 1 });
  assert.deepEqual(apply({}, "labels", "a\0b"), { labels: ["a", "b"] });
  assert.deepEqual(apply({ type: "STYLED_BUTTON", onButtonState: { text: "a" } }, "onLabel", "b").onButtonState, { text: "b" });
  assert.deepEqual(apply({ type: "IMAGE", urls: ["a", "b"] }, "url", "2\0c").urls, ["a", "c"]);
  assert.deepEqual(apply({ type: "IMAGE", urls: ["a"] }, "url", "7\0c").urls, ["a"]);
});

test("QR codes have their size, finders and timing", () => {
  for (const [length, size] of [[1, 21], [14, 21], [15, 25], [200, 57], [666, 97]]) {
    const rows = qr("x".repeat(length));
    assert.equal(rows.length, size);
    assert.deepEqual(rows[0].slice(0, 8), [true, true, true, true, true, true, true, false]);
    for (let i = 8; i < size - 8; i++) assert.equal(rows[6][i], i % 2 === 0);
  }
  assert.equal(qr("x".repeat(667)), null);
});
