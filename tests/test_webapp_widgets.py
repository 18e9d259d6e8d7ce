# ruff: noqa: E501 - tables and scripts for the page in long lines
"""Every widget type of spec 04 §12 on a page: what it shows of values and properties, and what it sends.

A case is a conversation. `board` says what the board writes, `see` what is then on the widget (part of its text, or of an
attribute: "css@name"), `do` is what the user does (JavaScript on the widget; press() and put() are given), `sent` what
the board gets. V1 is the widget's pin (V1, V2, V3 for several).
"""

import os
import uuid

import pytest
from clients import OK
from page import Page, needs_browser
from servers import HOST

pytestmark = needs_browser

HELP = """
const w = document.querySelector('.widget');
const q = (css) => w.querySelector(css);
const press = (css) => q(css).click();
const put = (css, value, last = true) => {
  const el = q(css); el.value = value;
  el.dispatchEvent(new Event('input', { bubbles: true }));
  if (last) el.dispatchEvent(new Event('change', { bubbles: true }));
};
const enter = (css, value) => { q(css).value = value; q(css).form.requestSubmit(); };
"""


def board(text):
    return ("board", text)


def prop(name, *value):
    return ("prop", name, value)


def see(css, text):
    return ("see", css, text)


def do(script):
    return ("do", script)


def sent(text):
    return ("sent", text)


ON_OFF = [
    see("button", "OFF"),
    board("vw 1 1"),
    see("button", "ON"),
    do("press('button')"),
    sent("vw 1 0"),
    see("button", "OFF"),
]
STATES = {
    "onButtonState": {"text": "go", "textColor": 0, "backgroundColor": 0},
    "offButtonState": {"text": "stop", "textColor": 0, "backgroundColor": 0},
}
LIST = {"labels": ["red", "green", "blue"]}
SENSOR = [see(".sensor-value", ""), board("vw 1 20.5"), see(".sensor", "")]

# type -> (fields beyond the page's own defaults, conversation)
CASES = {
    "BUTTON": ({}, [*ON_OFF, prop("offLabel", "closed"), see("button", "closed"), see("button@aria-pressed", "false")]),
    "STYLED_BUTTON": (STATES, [
        board("vw 1 1"), see("button", "go"), do("press('button')"), sent("vw 1 0"), see("button", "stop"), prop("offLabel", "halt"), see("button", "halt"),
        prop("offBackColor", "#0000FF"), see("button@style", "#0000ff"),
    ]),
    "SWITCH": ({}, [
        board("vw 1 1"), see("button@aria-checked", "true"), do("press('button')"), sent("vw 1 0"), see("button@aria-checked", "false"), prop("offLabel", "night"), see("button", "night"),
    ]),
    "SLIDER": ({}, [board("vw 1 200"), see("output", "200"), do("put('input', '90')"), sent("vw 1 90"), prop("max", "100"), see("input@max", "100"), board("vw 1 12"), see("output", "12")]),
    "VERTICAL_SLIDER": ({"maximumFractionDigits": 1}, [board("vw 1 2.5"), see("output", "2.5"), do("put('input', '7.5')"), sent("vw 1 7.5")]),
    "STEP": ({"step": 5}, [board("vw 1 10"), see("output", "10"), do("press('button:last-of-type')"), sent("vw 1 15"), see("output", "15"), prop("step", "2"), do("press('button')"), sent("vw 1 13")]),
    "VERTICAL_STEP": ({"isLoopOn": True, "max": 10}, [board("vw 1 10"), do("press('button')"), sent("vw 1 0")]),
    "RGB": ({}, [board("vw 1 255 0 0"), see(".swatch@aria-label", "zeRGBa"), do("put('.swatch', '#00ff00')"), sent("vw 1 0 255 0")]),
    "TWO_AXIS_JOYSTICK": ({}, [
        board("vw 1 255 0"), see(".pad@aria-label", "255, 0"), do("q('.pad').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))"), sent("vw 1 229 0"),
        do("q('.pad').dispatchEvent(new KeyboardEvent('keyup', {key: 'ArrowLeft'}))"), sent("vw 1 128 128"),
    ]),
    "TEXT_INPUT": ({"hint": "a name"}, [see("input@placeholder", "a name"), board("vw 1 hello"), ("value", "input", "hello"), do("enter('input', 'two words')"), ("sent_fields", ("vw", "1", "two words"))]),
    "NUMBER_INPUT": ({"suffix": " %"}, [board("vw 1 50"), ("value", "input", "50"), see(".suffix", "%"), do("put('input', '120')"), sent("vw 1 100"), prop("suffix", "kg"), see(".suffix", "kg"), do("press('button')"), sent("vw 1 99")]),
    "SEGMENTED_CONTROL": (LIST, [
        board("vw 1 2"), see("[aria-checked=true]", "green"), do("press('button:last-child')"), sent("vw 1 3"), see("[aria-checked=true]", "blue"), prop("labels", "on", "off"), see(".segments", "on"), board("vw 1 1"), see("[aria-checked=true]", "on"),
    ]),
    "MENU": ({**LIST, "hint": "which?"}, [see("select", "which?"), board("vw 1 3"), ("value", "select", "3"), do("put('select', '1')"), sent("vw 1 1"), prop("labels", "x", "y"), see("select", "y")]),
    "TIMER": ({"startTime": 21600, "startValue": "1", "stopTime": -1}, [("utc", "input", 21600), do("put('input', '07:30:00')"), ("saved", "startTime")]),
    "TIME_INPUT": ({}, [
        ("board_fields", ("vw", "1", "36000", "ss", "Europe/Berlin", "1,2", "7200")), see("strong", "10:00"), see("strong", "sunset"), see("small", "Mon"), do("press('button')"),
        do("document.querySelector('dialog input[type=time]').value = '11:00'; document.querySelector('dialog form').requestSubmit()"), ("sent_start", "vw 1 39600 ss Europe/Berlin 1,2 "),
    ]),
    "PLAYER": ({}, [board("vw 1 play"), see(".player button:nth-child(2)@aria-label", "Play"), do("press('button')"), sent("vw 1 prev"), prop("isOnPlay", "true"), see(".player button:nth-child(2)@aria-label", "Stop"), do("press('button:nth-child(2)')"), sent("vw 1 stop")]),
    "LINK_BUTTON": ({"url": "http://example.com/", "offButtonState": {"text": "read"}}, [see("a", "read"), see("a@href", "http://example.com/"), see("a@rel", "noopener")]),
    "QR": ({}, [board("vw 1 code7"), see(".scan-value", "code7"), do("press('button')"), do("document.querySelector('dialog input').value = 'typed'; document.querySelector('dialog form').requestSubmit()"), sent("vw 1 typed")]),
    "LED": ({}, [board("vw 1 255"), see(".lamp@aria-label", "100 %"), board("vw 1 51"), see(".lamp@aria-label", "20 %")]),
    "DIGIT4_DISPLAY": ({}, [see("output", "–"), board("vw 1 1234"), see("output", "1234"), board("vw 1 hot"), see("output", "hot")]),
    "LABELED_VALUE_DISPLAY": ({"valueFormatting": "T: /pin.#/ °C"}, [board("vw 1 21.57"), see("output", "T: 21.6 °C"), prop("valueFormatting", "/pin.##/ F"), see("output", "21.57 F")]),
    "GAUGE": ({"valueFormatting": "/pin.#/ C"}, [see("output", "–"), board("vw 1 23.44"), see("output", "23.4 C"), see(".gauge-fill@d", "M"), prop("max", "50"), see(".gauge svg", "50"), prop("min", "-10"), see(".gauge svg", "-10")]),
    "LEVEL_DISPLAY": ({}, [board("vw 1 40"), see(".level-bar@aria-valuenow", "40"), see("output", "40"), prop("max", "200"), see(".level-bar@aria-valuemax", "200")]),
    "VERTICAL_LEVEL_DISPLAY": ({"rangeMappingOn": True, "max": 50}, [board("vw 1 1023"), see("output", "50"), see(".level-bar@aria-valuenow", "50")]),
    "LCD": ({}, [("board_fields", ("vw", "1", "line one")), board("vw 2 22"), see(".lcd-glass", "line one"), see(".lcd-glass", "22")]),
    "TERMINAL": ({}, [board("vw 1 boot"), board("vw 1 ready"), see(".terminal-screen", "boot"), see(".terminal-screen", "ready"), do("enter('input', 'help')"), sent("vw 1 help"), see(".terminal-screen", "help"), board("vw 1 clr"), ("gone", ".terminal-screen", "boot")]),
    "TABLE": ({"isClickableRows": True}, [
        board("vw 1 add 1 Salad 3"), board("vw 1 add 2 Basil 9"), see("tbody", "Basil"), board("vw 1 update 1 Salad 4"), see("tbody tr", "4"), board("vw 1 pick 1"), see("tr.current", "Basil"),
        do("press('tbody input')"), sent("vw 1 deselect 1"), see("tr.unselected", "Salad"), board("vw 1 clr"), see("tbody", "no rows yet"),
    ]),
    "ENHANCED_GRAPH": ({"dataStreams": [{"title": "Warmth", "graphType": "LINE", "color": 600084223, "targetId": 0, "pin": {"pin": 1, "pinType": "VIRTUAL", "min": 0, "max": 100}}], "period": "LIVE"}, [
        see(".chart-hint", "Waiting for the first value"), board("vw 1 20"), board("vw 1 25"), see("canvas@width", ""), see(".chart-legend", "Warmth"), do("press('.periods button:nth-child(2)')"), see(".chart-hint", "averages are made every minute"),
    ]),
    "MAP": ({}, [("board_fields", ("vw", "1", "1", "48.1", "11.6", "Munich")), see(".map-picture", "Munich"), see(".map-picture", " m"), ("board_fields", ("vw", "1", "2", "48.2", "11.7", "North")), see(".map-picture", "North"), board("vw 1 clr"), see(".map-note", "no position yet")]),
    "IMAGE": ({"urls": ["static/icons/icon-192.png", "static/icons/icon-512.png"]}, [
        see("img@src", "icon-192"), board("vw 1 2"), see("img@src", "icon-512"), prop("opacity", "50"), see("img@style", "opacity: 0.5"), prop("rotation", "90"), see("img@style", "rotate(90deg)"), prop("scale", "50"), see("img@style", "scale(0.5)"),
        prop("url", "2", "static/icons/icon.svg"), see("img@src", "icon.svg"), prop("urls", "static/icons/icon-192.png"), see("img@src", "icon-192"),
    ]),
    "VIDEO": ({"url": "static/none.mp4"}, [("any", ".media video, .media .hint"), prop("url", "rtsp://camera/1"), see(".media", "rtsp")]),
    "TEXT": ({"text": "Grüße"}, [see("p", "Grüße")]),
    "TABS": ({"tabs": [{"id": 0, "label": "one"}, {"id": 1, "label": "two"}]}, [see("[aria-selected=true]", "one"), do("press('button:last-child')"), see("[aria-selected=true]", "two")]),
    "DEVICE_SELECTOR": ({"deviceIds": [0, 1]}, [see("select", "Node 2 (offline)"), do("put('select', '1')"), ("saved", "value", 1)]),
    "DEVICE_TILES": ({}, [see(".tile-grid", "Add a template in edit mode")]),
    "NOTIFICATION": ({"notifyWhenOffline": True}, [see(".info-tile", "also when a device goes offline")]),
    "EMAIL": ({"to": "me@example.com"}, [see(".info-tile", "me@example.com")]),
    "SMS": ({"to": "+4912345"}, [see(".info-tile", "+4912345")]),
    "TWITTER": ({"username": "pi"}, [see(".info-tile", "pi")]),
    "EVENTOR": ({}, [see(".info-tile", "0 active"), do("press('button')"), ("path", "/rules")]),
    "WEBHOOK": ({"url": "http://127.0.0.1:9/", "method": "PUT"}, [see(".info-tile", "V1 → PUT http://127.0.0.1:9/")]),
    "REPORT": ({}, [see(".info-tile", "0 active"), do("press('button')"), ("path", "/reports")]),
    "RTC": ({"tzName": "Europe/Berlin"}, [see(".info-tile", "Europe/Berlin")]),
    "BRIDGE": ({}, [see(".info-tile", "device to device")]),
    "BLUETOOTH": ({}, [see(".info-tile", "only in the phone app")]),
    "BLUETOOTH_SERIAL": ({}, [see(".info-tile", "only in the phone app")]),
    "GPS_TRIGGER": ({}, SENSOR),
    "GPS_STREAMING": ({}, SENSOR),
    "ACCELEROMETER": ({}, [
        do("press('.sensor button')"), ("wait_text", ".sensor button", "Stop"),
        do("const e = new Event('devicemotion'); e.accelerationIncludingGravity = { x: 1, y: 2.5, z: 9.81 }; window.dispatchEvent(e)"), sent("vw 1 1 2.5 9.81"),
    ]),
    "LIGHT": ({}, SENSOR),
    "PROXIMITY": ({}, SENSOR),
    "TEMPERATURE": ({}, SENSOR),
    "GRAVITY": ({}, SENSOR),
    "BAROMETER": ({}, SENSOR),
    "HUMIDITY": ({}, SENSOR),
}  # fmt: skip


class Stage:
    """A page with project 1, and the board of its device 0."""

    def __init__(self, server):
        self.server = server
        self.page = Page(f"http://{HOST}:{server.http_port}/", width=900, height=800)
        self.page.register(f"{uuid.uuid4().hex[:12]}@example.com")
        self.token = self.page.run("""
          const s = await at('session.js');
          await s.addEnergy(1000000);
          const p = await s.createProject({ name: 'Stage', theme: 'Blynk', board: 'ESP8266', connection: 'WI_FI' });
          await s.createDevice(p, { name: 'Node 2', boardType: 'ESP8266' });
          return p.devices[0].token""")
        self.hw = server.hardware(self.token)
        self.page.open("project/1")
        self.page.until(lambda: self.page.find(".chip.on") or self.page.find(".chip"), "the project")

    def put(self, kind, fields):
        """The only widget of the project: a new one of the kind, as the widget box makes it."""
        self.page.run(
            """
            const s = await at('session.js'), { newWidget, WIDGETS } = await at('widgets.js'), { streamsOf } = await at('model.js'), { go } = await at('app.js');
            const p = s.session.model.projects.get(1);
            for (const w of [...p.widgets]) await s.deleteWidget(p, w, null);
            const size = args[0] in WIDGETS ? WIDGETS[args[0]].size : [2, 2];
            const place = { x: 0, y: 0, width: Math.max(size[0], 3), height: Math.max(size[1], 2) };
            const doc = args[0] in WIDGETS ? newWidget(args[0], args[0] === 'DEVICE_SELECTOR' ? 200000 : 7, place) : { type: args[0], id: 7, ...place, tabId: 0 };
            streamsOf(doc).forEach((stream, i) => Object.assign(stream, { pin: i + 1, pinType: 'VIRTUAL' }));
            Object.assign(doc, args[1]);
            if ('label' in doc && !('label' in args[1])) delete doc.label;
            await s.createWidget(p, doc, null);
            go('project/1');""",
            kind,
            fields,
        )
        self.page.widget(kind)
        return self

    def play(self, *step):
        getattr(self, "step_" + step[0])(*step[1:])

    def step_board(self, text):
        self.hw.send(text)

    def step_board_fields(self, fields):
        self.hw.send(*fields)

    def step_prop(self, name, value):
        assert self.hw.ask("SET_WIDGET_PROPERTY", "1", name, *value) == OK

    def look(self, css):
        css, _, attribute = css.partition("@")
        script = f"{HELP} const el = q(arguments[0]); return el && (arguments[1] ? el.getAttribute(arguments[1]) : el.textContent)"
        return self.page.js(script, css, attribute)

    def step_see(self, css, text):
        self.page.until(
            lambda: text in (self.look(css) if self.look(css) is not None else "\0"),
            f"{text!r} in {css}, not {self.look(css)!r}",
        )

    def step_gone(self, css, text):
        self.page.until(lambda: text not in self.look(css), f"{css} without {text!r}")

    def step_any(self, css):
        self.page.until(lambda: self.page.js(f"{HELP} return Boolean(q(arguments[0]))", css), css)

    def step_wait_text(self, css, text):
        self.page.until(lambda: self.look(css) == text, f"{css}: {text}")

    def step_value(self, css, text):
        self.page.until(lambda: self.page.js(f"{HELP} return q(arguments[0]).value", css) == text, f"{css} is {text}")

    def step_utc(self, css, second):
        shown = self.page.js(f"{HELP} return q(arguments[0]).value", css)
        local = self.page.run("const f = await at('format.js'); return f.utcToClock(args[0])", second)
        assert shown[:5] == local[:5]

    def step_saved(self, name, value=None):
        def look():
            found = self.page.run(
                "const s = await at('session.js'); const d = await s.session.link.request(70, 1, args[0]); return JSON.parse(d.text)",
                self.page.run("const s = await at('session.js'); return s.session.model.projects.get(1).widgets[0].id"),
            )[name]
            return (
                found == value
                if value is not None
                else found == self.page.run("const f = await at('format.js'); return f.clockToUtc('07:30:00')")
            )

        self.page.until(look, f"{name} on the server")

    def step_path(self, end):
        self.page.until(lambda: self.page.driver.current_url.endswith(end), end)
        self.page.open("project/1")

    def step_do(self, script):
        self.page.js(HELP + script)

    def step_sent(self, text):
        self.hw.expect(text)

    def step_sent_fields(self, fields):
        self.hw.expect("\0".join(fields))

    def step_sent_start(self, start):
        frame = self.hw.take(lambda f: f.text.startswith(start), what=start)
        assert frame


@pytest.fixture(scope="module")
def stage(_shared_server):
    found = Stage(_shared_server)
    yield found
    found.hw.close()
    found.page.close()


def test_the_table_has_every_type(stage):
    types = stage.page.run("const w = await at('widgets.js'); return Object.keys(w.WIDGETS)")
    assert sorted(types) == sorted(CASES)
    server_types = set(__import__("blynk_pi").WIDGETS)
    assert set(types) == server_types


@pytest.mark.parametrize("kind", CASES)
def test_widget(stage, kind, tmp_path):
    fields, steps = CASES[kind]
    stage.put(kind, fields)
    for step in steps:
        stage.play(*step)
    if stage.page.js("const w = document.querySelector('.widget'); return Boolean(w)") and steps[-1][0] != "path":
        element = stage.page.widget(kind)
        with open(os.path.join(tmp_path, f"{kind}.png"), "wb") as f:
            f.write(element.screenshot_as_png)
        assert os.path.getsize(os.path.join(tmp_path, f"{kind}.png")) > 300
    assert [p for p in stage.page.problems() if "none.mp4" not in p] == []


@pytest.mark.parametrize("kind", ["GAUGE", "BUTTON", "SLIDER", "TERMINAL", "MENU", "LCD", "RGB"])
def test_every_pin_widget_takes_label_and_colour(stage, kind):
    stage.put(kind, {})
    stage.play(*prop("label", "Water <b>pump</b>"))
    stage.play(*see(".label", "Water <b>pump</b>"))
    stage.play(*prop("color", "#D3435C"))
    stage.page.until(lambda: "#d3435c" in stage.page.widget(kind).get_attribute("style"), "the colour")


def test_an_unknown_type_is_a_named_tile_and_stays_as_it_is(stage):
    odd = {"label": "Future", "holo": {"depth": 3}, "frames": [1, 2]}
    stage.put("HOLOGRAM", odd)
    stage.play(*see(".unknown", "HOLOGRAM"))
    stage.page.open("project/1/edit")
    stage.page.widget("HOLOGRAM").click()
    stage.page.see("This page does not know this kind of widget.")
    stage.page.press("Save")
    stage.page.until(lambda: not stage.page.find("dialog[open]"), "the sheet to close")
    document = stage.page.run(
        "const s = await at('session.js'); await s.session.load(); return s.session.model.projects.get(1).widgets[0]"
    )
    assert document["type"] == "HOLOGRAM"
    assert {key: document[key] for key in odd} == odd


def test_a_push_button_is_on_while_it_is_held(stage):
    stage.put("BUTTON", {"pushMode": True})
    stage.page.js(HELP + "q('button').dispatchEvent(new PointerEvent('pointerdown', { button: 0 }))")
    stage.hw.expect("vw 1 1")
    stage.page.js(HELP + "q('button').dispatchEvent(new PointerEvent('pointerup'))")
    stage.hw.expect("vw 1 0")


def test_a_slider_sends_at_most_ten_values_a_second_and_always_the_last(stage):
    stage.put("SLIDER", {})
    stage.page.run("""
      const input = document.querySelector('.widget input');
      for (let i = 1; i <= 50; i++) {
        input.value = i; input.dispatchEvent(new Event('input'));
        await new Promise((r) => setTimeout(r, 10));
      }
      input.dispatchEvent(new Event('change'))""")
    stage.hw.expect("vw 1 50")
    first = [frame for frame in stage.hw.inbox if frame.command == "HARDWARE"]
    assert 2 <= len(first) <= 12, "half a second of sliding"
    stage.hw.inbox.clear()
    stage.put("SLIDER", {"sendOnReleaseOn": True})
    stage.page.js(HELP + "put('input', '10', false); put('input', '20', false); put('input', '30')")
    assert stage.hw.next().text == "vw 1 30"
    stage.hw.quiet()


def test_split_colours_and_axes_go_to_their_own_pins(stage):
    stage.put("RGB", {"splitMode": True})
    stage.page.js(HELP + "put('.swatch', '#ff8000')")
    for text in ("vw 1 255", "vw 2 128", "vw 3 0"):
        stage.hw.expect(text)
    stage.put("TWO_AXIS_JOYSTICK", {"split": True})
    stage.page.js(HELP + "q('.pad').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowUp'}))")
    stage.hw.expect("vw 2 154")


def test_an_advanced_lcd_writes_at_any_place(stage):
    stage.put("LCD", {"advancedMode": True})
    for fields in (("clr",), ("p", "4", "1", "Hi"), ("p", "0", "0", "Blynk")):
        stage.hw.send("vw", "1", *fields)
    stage.play(*see(".lcd-glass span:last-child", "    Hi"))
    stage.play(*see(".lcd-glass span", "Blynk"))


def test_tiles_show_their_devices_and_open_their_pages(stage):
    stage.put("DEVICE_TILES", {})
    stage.page.run("""
      const s = await at('session.js'), { newWidget } = await at('widgets.js'); const p = s.session.model.projects.get(1), tiles = p.widgets[0];
      const stream = (pin) => ({ pin, pinType: 'VIRTUAL', pwmMode: false, rangeMappingOn: false, min: 0, max: 100 });
      await s.saveTemplate(p, tiles, { mode: 'PAGE', id: 1, name: 'Page', deviceIds: [0], showDeviceName: true, valueSuffix: '%', pin: stream(5), widgets: [] }, true);
      await s.saveTemplate(p, tiles, { mode: 'BUTTON', id: 2, name: 'Relay', deviceIds: [0], showDeviceName: false, pin: { ...stream(6), max: 1 }, stateOn: { text: 'AN' }, stateOff: { text: 'AUS' }, widgets: [] }, true);
      const doc = Object.assign(newWidget('SWITCH', 20, { x: 0, y: 0, width: 2, height: 1 }), { pin: 9, pinType: 'VIRTUAL' });
      await s.createWidget(p, doc, { tiles, template: tiles.templates[0] });""")
    stage.hw.send("vw 5 77")
    stage.play(*see(".tile-grid", "77%"))
    stage.play(*see(".tile-grid", "AUS"))
    stage.page.js(HELP + "press('.tile:last-child')")
    stage.hw.expect("vw 6 1")
    stage.play(*see(".tile-grid", "AN"))
    stage.page.js(HELP + "press('.tile')")
    stage.page.until(
        lambda: "/tile/7/0" in stage.page.driver.current_url and stage.page.find(".switch"), "the tile's page"
    )
    stage.hw.send("vw 9 1")
    stage.page.until(lambda: stage.page.find(".switch")[0].get_attribute("aria-checked") == "true", "the switch on")
    stage.page.find(".switch")[0].click()
    stage.hw.expect("vw 9 0")
    stage.page.open("project/1")


def test_what_a_selector_chooses_is_what_its_widgets_show(stage):
    stage.put("DEVICE_SELECTOR", {"deviceIds": [0, 1]})
    stage.page.run("""
      const s = await at('session.js'), { newWidget } = await at('widgets.js'); const p = s.session.model.projects.get(1);
      await s.createWidget(p, Object.assign(newWidget('GAUGE', 8, { x: 0, y: 3, width: 4, height: 3 }), { pin: 4, pinType: 'VIRTUAL', deviceId: 200000 }), null);""")
    stage.hw.send("vw 4 33")
    gauge = lambda: stage.page.js("return document.querySelector('.gauge-value').textContent")  # noqa: E731
    stage.page.until(lambda: gauge() == "33", "33 of device 0")
    stage.page.js(
        "const el = document.querySelector('select.menu-widget'); el.value = '1'; el.dispatchEvent(new Event('change'))"
    )
    stage.page.until(lambda: gauge() == "–", "nothing of device 1 yet")
    stage.page.js(
        "const el = document.querySelector('select.menu-widget'); el.value = '0'; el.dispatchEvent(new Event('change'))"
    )
    stage.page.until(lambda: gauge() == "33", "33 again")
