"""Every widget type of spec 04 §12, on a real server: what a value does to it, what syncs send, properties, price.

The table below is written from the specification, not from the server: a type without behaviour cannot hide.
"""

import json
import shutil
import tempfile

import pytest
from clients import ILLEGAL_COMMAND, ILLEGAL_COMMAND_BODY, NOT_ALLOWED, OK, widget
from servers import Server

# type | base | price | pin mode | hardware sync | app sync | properties beyond those of the base
#     its own fields and their defaults, those that are there when only an id is given: `flag` is false, `+flag` true
# base: S one pin, R one pin that can be polled, M several pins, N none.
TABLE = """
BUTTON                 | S |  200 | out | value | value | onLabel offLabel
    pushMode
STYLED_BUTTON          | S |  300 | out | value | value | onLabel offLabel onColor offColor onBackColor offBackColor
    pushMode lockSize
LINK_BUTTON            | N |  500 | -   | -     | -     |
    lockSize showAddressBar showNavigationBar allowInBrowser
TEXT_INPUT             | S |  400 | out | value | value |
    limit=0
NUMBER_INPUT           | S |  400 | out | value | value | suffix
    step=0.0 isLoopOn
SLIDER                 | S |  200 | out | value | value | maximumFractionDigits
    sendOnReleaseOn frequency=0 maximumFractionDigits=0 +showValueOn
VERTICAL_SLIDER        | S |  200 | out | value | value | maximumFractionDigits
    sendOnReleaseOn frequency=0 maximumFractionDigits=0 +showValueOn
RGB                    | M |  400 | out | value | value |
    splitMode sendOnReleaseOn frequency=0
TIMER                  | S |  200 | out | value | value |
    startTime=-1 stopTime=-1
TWO_AXIS_JOYSTICK      | M |  400 | out | value | value |
    split autoReturnOn portraitLocked frequency=0
TERMINAL               | S |  200 | -   | value | lines |
    autoScrollOn terminalInputOn textLightOn attachNewLine
STEP                   | S |  500 | out | value | value | step
    step=0.0 isArrowsOn isLoopOn isSendStep frequency=0 +showValueOn
VERTICAL_STEP          | S |  500 | out | value | value | step
    step=0.0 isArrowsOn isLoopOn isSendStep frequency=0 +showValueOn
QR                     | S |  200 | out | value | value |
TIME_INPUT             | S |  200 | out | value | value |
    startAt=-1 stopAt=-1 isStartStopAllowed isDayOfWeekAllowed isSunsetSunriseAllowed isTimezoneAllowed
SEGMENTED_CONTROL      | S |  400 | out | value | value | labels
SWITCH                 | S |  200 | out | value | value | onLabel offLabel
    offBackgroundColor=0 onBackgroundColor=0 handleColor=0
LED                    | S |  100 | in  | value | value |
DIGIT4_DISPLAY         | R |  200 | in  | value | value |
LABELED_VALUE_DISPLAY  | R |  400 | in  | value | value | valueFormatting
GAUGE                  | R |  300 | in  | value | value | valueFormatting
LCD                    | M |  400 | in  | -     | value |
    advancedMode textLight frequency=0
LEVEL_DISPLAY          | R |  200 | in  | value | value |
    isAxisFlipOn +showValueOn
VERTICAL_LEVEL_DISPLAY | R |  200 | in  | value | value |
    isAxisFlipOn +showValueOn
VIDEO                  | S |  500 | -   | -     | -     | url
    forceTCP
ENHANCED_GRAPH         | N |  900 | -   | -     | -     |
    showTitle showLegend yAxisValues xAxisValues showXAxis allowFullScreen overrideYAxis hideGradient yAxisMin=0.0
    yAxisMax=0.0 isPercentMaxMin
    selectedPeriods=["LIVE","ONE_HOUR","SIX_HOURS","N_DAY","N_WEEK","N_MONTH","N_THREE_MONTHS"]
MAP                    | S |  600 | in  | -     | value |
    isPinToLatestPoint isMyLocationSupported isSatelliteMode radius=0 lat=0.0 lon=0.0
GPS_TRIGGER            | S |  500 | out | -     | value |
    triggerOnEnter triggerLat=0.0 triggerLon=0.0 triggerRadius=0 accuracy=0
GPS_STREAMING          | S |  500 | out | -     | value |
    accuracy=0 frequency=0 interval=0
ACCELEROMETER          | S |  400 | out | -     | value |
    frequency=0
LIGHT                  | S |  300 | out | -     | value |
    frequency=0
PROXIMITY              | S |  300 | out | -     | value |
    frequency=0
GRAVITY                | S |  300 | out | -     | value |
    frequency=0
BAROMETER              | S |  300 | out | -     | value |
    frequency=0
HUMIDITY               | S |  300 | out | -     | value |
    frequency=0
TEMPERATURE            | S |  300 | out | -     | value |
    isCelsius frequency=0
TWITTER                | N |    0 | -   | -     | -     |
EMAIL                  | N |  100 | -   | -     | -     |
    contentType="TEXT_HTML"
NOTIFICATION           | N |  400 | -   | -     | -     |
    notifyWhenOffline notifyWhenOfflineIgnorePeriod=0 priority="normal"
SMS                    | N |  100 | -   | -     | -     |
MENU                   | S |  400 | out | value | value | labels
    iconColor=0
TABS                   | N |    0 | -   | -     | -     |
    activeTxtColor=0 underlineColor=0 textColor=0
PLAYER                 | S |  400 | out | value | value | isOnPlay
    isOnPlay
TABLE                  | S |  800 | out | -     | rows  |
    currentRowIndex=0 isReoderingAllowed isClickableRows
IMAGE                  | S |  600 | in  | value | value | urls opacity scale rotation
    opacity=0 scale=0 rotation=0
REPORT                 | N |    0 | -   | -     | -     |
    allowEndUserToDeleteDataOn fontSize="MEDIUM" edge="ROUNDED" buttonStyle="SOLID" textColor=0
RTC                    | N |  100 | -   | -     | -     |
BRIDGE                 | N |  100 | -   | -     | -     |
BLUETOOTH              | N |    0 | -   | -     | -     |
    deviceId=0
BLUETOOTH_SERIAL       | N |    0 | -   | -     | -     |
    deviceId=0
EVENTOR                | N |  500 | -   | -     | -     |
    deviceId=0
DEVICE_SELECTOR        | N | 1900 | -   | -     | -     |
    value=0 iconColor=0 showIcon
DEVICE_TILES           | N | 1700 | -   | -     | -     |
    rows=0 columns=0 alignment="LEFT" disableWhenOffline stretchToBottom
TEXT                   | N |  100 | -   | -     | -     |
    textSize="AUTO"
WEBHOOK                | S |  500 | -   | -     | -     |
    method="GET"
"""  # fmt: skip
OWN_LETTER = ("BUTTON", "STYLED_BUTTON", "SWITCH")  # pwmMode does not turn their pin into an analog one
NOT_KEPT = ("TIMER", "TIME_INPUT")  # an update takes the value of the JSON

# property -> (what is sent, field, what the field becomes)
PROPERTIES = {
    "label": ("Pump", "label", "Pump"),
    "color": ("#23C48E", "color", 600084223),
    "onBackColor": ("0xFF0000", None, None),
    "offBackColor": ("-1", None, None),
    "onColor": ("255", None, None),
    "offColor": ("010", None, None),
    "onLabel": ("an", "onLabel", "an"),
    "offLabel": ("aus", "offLabel", "aus"),
    "labels": ("one", "labels", ["one"]),
    "min": ("-1.5", "min", -1.5),
    "max": ("1e3", "max", 1000.0),
    "isOnPlay": ("TRUE", "isOnPlay", True),
    "url": ("http://example.com/v", "url", "http://example.com/v"),
    "urls": ("http://example.com/i", "urls", ["http://example.com/i"]),
    "step": ("0.25", "step", 0.25),
    "valueFormatting": ("/pin/ C", "valueFormatting", "/pin/ C"),
    "suffix": ("m", "suffix", "m"),
    "maximumFractionDigits": ("3", "maximumFractionDigits", 3),
    "opacity": ("50", "opacity", 50),
    "scale": ("7", "scale", 7),
    "rotation": ("90", "rotation", 90),
}
WRONG = {  # a value that cannot be read, for those that are parsed
    **dict.fromkeys(("color",), ("red", "0x", "", "#GG0000", "08", "99999999999", "--5", "1_0")),
    **dict.fromkeys(("min", "max", "step"), ("much", "", "nan", "1e999", "1_0")),
    **dict.fromkeys(("maximumFractionDigits", "opacity", "scale", "rotation"), ("1.5", "x", "99999999999")),
}


class Row:
    def __init__(self, text):
        line, *fields = text.split("\n")
        self.name, self.base, price, self.mode, self.hardware, self.app, properties = map(str.strip, line.split("|"))
        self.price = int(price)
        self.fields = dict(map(self.field, " ".join(fields).split()))
        self.properties = {"label", "color", *properties.split()} | ({"min", "max"} if self.base in "SR" else set())
        self.takes_values = self.base in "SRM" and self.name != "WEBHOOK"

    @staticmethod
    def field(word):
        name, equals, value = word.partition("=")
        return (name, json.loads(value)) if equals else (name.lstrip("+"), name[0] == "+")

    def document(self, id):
        """The widget as the server writes it when only id and size were given (spec 04 §11.1)."""
        out = {"type": self.name, "id": id, "x": 0, "y": 0, "color": 0, "width": 1, "height": 1}
        out["tabId"] = -1 if self.name == "TABS" else 0
        out["isDefaultColor"] = False
        if self.base in "SR":
            out.update(deviceId=0, pin=-1, pwmMode=False, rangeMappingOn=False, min=0.0, max=0.0)
        if self.base == "R":
            out["frequency"] = 0
        if self.base == "M":
            out["deviceId"] = 0
        return {**out, **self.fields}

    def bound(self, id, pin, pin_type="VIRTUAL", **fields):
        """A widget of this type on a pin."""
        stream = {"pin": pin, "pinType": pin_type, **{k: fields.pop(k) for k in ("pwmMode", "value") if k in fields}}
        document = {"type": self.name, "id": id, "width": 1, "height": 1, "deviceId": 0, **fields}
        if self.base == "M":
            return {**document, "pins": [stream, {"pin": -1}]}
        return {**document, **stream}


def entries(text):
    """The table's entries: a line, and the indented ones behind it."""
    found = []
    for line in text.strip().splitlines():
        if line.startswith(" "):
            found[-1] += "\n" + line
        else:
            found.append(line)
    return found


ROWS = {row.name: row for row in map(Row, entries(TABLE))}
every_type = pytest.mark.parametrize("name", ROWS)
ID, PIN = 40, 7


class Bench:
    """One account whose project 1 is emptied between tests: an app, a board, energy that is counted."""

    def __init__(self, server):
        self.server, self.app = server, server.app()
        self.app.make_project(1, devices=2)
        self.hardware = server.hardware(self.app.token(1, 0))
        self.app.expect("1-0", "HARDWARE_CONNECTED")

    def empty(self):
        """Leaves no widget and no stored pin behind."""
        for project in self.app.profile()["dashBoards"]:
            if project["id"] != 1:
                assert self.app.ask("DELETE_DASH", project["id"]) == OK
            else:
                for one in project.get("widgets", []):
                    self.app.ask("DELETE_WIDGET", 1, one["id"])
        for key in self.app.profile().get("pinsStorage", {}):
            pin_type = {"v": "VIRTUAL", "d": "DIGITAL", "a": "ANALOG"}[key.split("-")[2][0]]
            pin, device = int(key.split("-")[2][1:]), int(key.split("-")[1])
            self.app.add_widget(1, widget("LED", 9999, pin, pin_type, device))
            assert self.app.ask("DELETE_WIDGET", 1, 9999) == OK
        self.app.drain()
        self.hardware.drain()

    def energy(self):
        return int(self.app.ask("GET_ENERGY"))

    def write(self, text):
        self.hardware.send(text)
        self.app.expect("1-0 " + text.replace("\0", " "))

    def activated(self):
        """What the board is told at an activation."""
        assert self.app.activate(1) == OK
        self.app.drain()
        return [f.text for f in self.hardware.drain() if f.id == 1]

    def ask_all(self, peer, requests):
        ids = [peer.command(*request) for request in requests]
        return [peer.take(lambda f, id=id: f.command == "RESPONSE" and f.id == id).code for id in ids]

    def properties(self):
        """(device, pin, property, value) texts of the stored properties, as an app sync tells them."""
        return [t for t in self.app.sync(1) if t.split()[1].isdigit()]


@pytest.fixture(scope="module")
def counting(certificate):
    """A server that counts energy and minds no flood."""
    path = tempfile.mkdtemp(prefix="bp-")
    server = Server(path, limits_energy=100000, limits_messages_per_s=100000, **certificate).start()
    yield server
    server.finish()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def _bench(counting):
    bench = Bench(counting)
    yield bench
    bench.app.close()
    bench.hardware.close()


@pytest.fixture
def bench(_bench, counting):
    yield _bench
    _bench.empty()
    counting.check_log()


def test_the_table_has_every_type_the_server_knows():
    import blynk_pi

    assert sorted(ROWS) == sorted(blynk_pi.WIDGETS)


@every_type
def test_a_new_widget_has_the_documented_fields_in_their_order_and_costs_its_price(bench, name):
    row, before = ROWS[name], bench.energy()
    bench.app.add_widget(1, {"type": name, "id": ID, "width": 1, "height": 1})
    made = bench.app.widget(1, ID)
    assert made == row.document(ID)
    assert list(made) == list(row.document(ID))
    assert before - bench.energy() == row.price
    assert bench.app.ask("UPDATE_WIDGET", 1, {"type": name, "id": ID, "width": 2, "height": 1, "tabId": 0}) == OK
    assert before - bench.energy() == row.price
    assert bench.app.ask("DELETE_WIDGET", 1, ID) == OK
    assert bench.energy() == before


@every_type
def test_a_value_does_to_it_what_it_should_and_syncs_tell(bench, name):
    row, value = ROWS[name], "add\0001\0Row\0007" if name == "TABLE" else "42"
    bench.app.add_widget(1, row.bound(ID, PIN))
    bench.write(f"vw\0{PIN}\0{value}")
    told = f"vw {PIN} {value}".replace("\0", " ")
    shown = bench.app.widget(1, ID)
    held = shown["pins"][0] if row.base == "M" else shown
    if name == "TERMINAL":
        assert "value" not in held
    elif row.takes_values:
        assert held["value"] == value
    in_storage = bench.app.profile().get("pinsStorage", {})
    assert in_storage == ({} if row.takes_values else {f"1-0-v{PIN}": value})
    expected = {"value": [f"1-0 {told}"], "lines": [f"1-0 vm {PIN} 42"], "-": []}
    expected["rows"] = [f"1-0 vm {PIN} add 1 Row 7 true"]
    apps = expected[row.app] if row.takes_values else [f"1-0 {told}"]  # a stored value is told in any case
    assert bench.app.sync(1) == apps
    assert bench.app.sync("1-0") == apps
    assert bench.app.sync("1-1") == []
    boards = [told] if row.hardware == "value" or not row.takes_values else []
    assert bench.hardware.sync() == boards
    assert bench.hardware.sync(PIN) == boards


@every_type
def test_its_physical_pin_is_announced_as_it_should_and_pwm_makes_it_analog(bench, name):
    row = ROWS[name]
    bench.app.add_widget(1, row.bound(ID, 5, "DIGITAL", pwmMode=True))
    assert bench.activated() == ([f"pm 5 {row.mode}"] if row.mode != "-" else [])
    if not row.takes_values or name in ("TABLE", "TERMINAL"):
        return
    bench.write("aw 5 9")
    letter = "d" if name in OWN_LETTER else "a"
    assert bench.app.sync(1) == ([f"1-0 {letter}w 5 9"] if row.app == "value" else [])
    assert bench.hardware.sync() == ([f"{letter}w 5 9"] if row.hardware == "value" else [])
    bench.write("vw 5 8")  # another pin
    assert f"1-0 {letter}w 5 9" in bench.app.sync(1) or row.app != "value"


@every_type
def test_an_analog_widget_takes_digital_writes_of_its_pin(bench, name):
    row = ROWS[name]
    bench.app.add_widget(1, row.bound(ID, 6, "ANALOG"))
    assert bench.activated() == ([f"pm 6 {row.mode}"] if row.mode != "-" else [])
    bench.write("dw 6 1")
    taken = row.base in "SR" and row.takes_values
    assert ("1-0-d6" in bench.app.profile().get("pinsStorage", {})) is not taken


@every_type
def test_an_app_sets_the_properties_it_has_and_no_others(bench, name):
    row = ROWS[name]
    bench.app.add_widget(1, {"type": name, "id": ID, "width": 1, "height": 1})
    before = bench.app.widget(1, ID)
    codes = bench.ask_all(
        bench.app, [("SET_WIDGET_PROPERTY", "1", str(ID), prop, text) for prop, (text, _, _) in PROPERTIES.items()]
    )
    taken = {prop for prop, code in zip(PROPERTIES, codes) if code == OK}
    assert taken == row.properties
    assert {code for code in codes if code != OK} == {ILLEGAL_COMMAND_BODY}
    after = {**before, "isDefaultColor": False}
    for prop in taken:
        _, field, value = PROPERTIES[prop]
        if field is not None and not (name == "STYLED_BUTTON" and prop in ("onLabel", "offLabel")):
            after[field] = value
    assert bench.app.widget(1, ID) == after
    wrong = [(prop, text) for prop in sorted(taken & set(WRONG)) for text in WRONG[prop] if text]
    codes = bench.ask_all(bench.app, [("SET_WIDGET_PROPERTY", "1", str(ID), *pair) for pair in wrong])
    assert [pair for pair, code in zip(wrong, codes) if code != ILLEGAL_COMMAND] == []
    assert bench.app.widget(1, ID) == after


@every_type
def test_a_board_sets_the_properties_it_has_and_the_others_are_stored(bench, name):
    row = ROWS[name]
    if row.base == "N":
        return
    bench.app.add_widget(1, row.bound(ID, PIN))
    requests = [("SET_WIDGET_PROPERTY", str(PIN), prop, text) for prop, (text, _, _) in PROPERTIES.items()]
    assert bench.ask_all(bench.hardware, requests) == [OK] * len(requests)
    assert [f.text for f in bench.app.drain()] == [" ".join(["1-0", *request[1:]]) for request in requests]
    refused = set(PROPERTIES) - (row.properties if row.takes_values else set())
    stored = {f"1-0-v{PIN}-{prop}": PROPERTIES[prop][0] for prop in refused}
    assert bench.app.profile().get("pinsStorage", {}) == stored
    assert bench.app.ask("DELETE_WIDGET", 1, ID) == OK
    assert "pinsStorage" not in bench.app.profile()


@every_type
def test_an_update_keeps_the_value_of_the_pin_and_another_pin_starts_empty(bench, name):
    row = ROWS[name]
    if not row.takes_values or name in ("TERMINAL", "TABLE"):
        return
    bench.app.add_widget(1, row.bound(ID, PIN))
    bench.write(f"vw {PIN} 42")
    assert bench.app.ask("UPDATE_WIDGET", 1, row.bound(ID, PIN, label="new", value="json")) == OK
    updated = bench.app.widget(1, ID)
    held = updated["pins"][0] if row.base == "M" else updated
    assert updated["label"] == "new"
    assert held["value"] == ("json" if name in NOT_KEPT else "42")
    assert bench.app.ask("UPDATE_WIDGET", 1, row.bound(ID, PIN + 1)) == OK
    updated = bench.app.widget(1, ID)
    assert "value" not in (updated["pins"][0] if row.base == "M" else updated)


@every_type
def test_behind_a_selector_values_are_kept_per_device_in_the_storage(bench, name):
    row = ROWS[name]
    if row.base == "N":
        return
    bench.app.add_widget(1, widget("DEVICE_SELECTOR", 200000, value=0, deviceIds=[0, 1]))
    bench.app.add_widget(1, {**row.bound(ID, PIN), "deviceId": 200000})
    bench.write(f"vw {PIN} one")
    bench.write(f"vw {PIN} two")
    kept = bench.app.profile()["pinsStorage"][f"1-0-v{PIN}"]
    if name in ("TERMINAL", "LCD", "TABLE"):
        assert kept == {"type": name, "values": ["one", "two"]}
        assert bench.app.sync(1) == [f"1-0 vm {PIN} one two", f"1-0 vw {PIN} two"]
        assert bench.hardware.sync() == [f"vw {PIN} one", f"vw {PIN} two"]
    else:
        assert kept == "two"
        assert bench.app.sync(1) == [f"1-0 vw {PIN} two"]
        assert bench.hardware.sync(PIN) == [f"vw {PIN} two"]


def test_a_clone_of_every_type_holds_no_value(bench):
    """Erase of spec 04 §17.2, type by type."""
    widgets = [row.bound(100 + n, n + 1) for n, row in enumerate(ROWS.values()) if row.base in "SRM"]
    widgets += [
        {"type": "EMAIL", "id": 1, "width": 1, "height": 1, "to": "me@example.com", "contentType": "TEXT_PLAIN"},
        widget("TWITTER", 2, token="secret-t", secret="secret-s", username="secret-u"),
        widget("NOTIFICATION", 3, androidTokens={"u": "secret-a"}, iOSTokens={"u": "secret-i"}),
        widget("DEVICE_TILES", 4, templates=[TEMPLATE]),
        {**ROWS["TIMER"].bound(5, 200), "startTime": 5, "startValue": "1", "stopTime": 6, "stopValue": "0"},
        widget("RTC", 6, tzName="Europe/Berlin"),
        widget("DEVICE_SELECTOR", 200000, value=1, deviceIds=[0, 1]),
        widget("REPORT", 7, reports=[{"id": 1, "name": "r", "reportType": {"type": "ONE_TIME"}}]),
    ]
    bench.app.make_project(5, widgets=widgets, devices=2)
    with bench.server.hardware(bench.app.token(5, 0)) as hw:
        for n, row in enumerate(ROWS.values()):
            value = {"TABLE": "add\0001\0Row\0007", "TIME_INPUT": "60\000120\0Europe/Berlin\0001"}.get(row.name, "play")
            hw.send(f"vw\0{n + 1}\0{value}")
        hw.send("vw 31 77")
        hw.ping()
    before = bench.app.project(5)
    assert all("value" in w for w in before["widgets"] if w["id"] >= 100 and w["type"] in ("SLIDER", "MAP", "TABLE"))
    code = bench.app.ask("GET_CLONE_CODE", 5).decode()
    text, clone = clone_of(bench.app, code)
    assert "secret" not in text and not any(d.get("token") for d in clone["devices"])
    by_type = {w["type"]: w for w in clone["widgets"]}
    for one in clone["widgets"]:
        if one["type"] != "DEVICE_SELECTOR":
            assert "value" not in one, one
        assert not any("value" in stream for stream in one.get("pins", ())), one
    assert "rows" not in by_type["TABLE"] and "tzName" not in by_type["TIME_INPUT"]
    assert by_type["EMAIL"] == {**before_of(before, "EMAIL"), "to": None} or "to" not in by_type["EMAIL"]
    assert by_type["EMAIL"]["contentType"] == "TEXT_PLAIN"
    timer = clone["widgets"][[w["id"] for w in clone["widgets"]].index(5)]
    assert (timer["startTime"], timer["stopTime"]) == (-1, -1)
    assert "startValue" not in timer and "stopValue" not in timer
    tiles = by_type["DEVICE_TILES"]
    assert "tiles" not in tiles and "deviceIds" not in tiles["templates"][0]
    assert tiles["templates"][0]["templateId"] == "T" and "value" not in tiles["templates"][0]["pin"]
    assert "reports" not in by_type["REPORT"] and by_type["RTC"]["tzName"] == "Europe/Berlin"
    assert by_type["DEVICE_SELECTOR"]["deviceIds"] == [0, 1] and by_type["PLAYER"]["isOnPlay"] is True


def before_of(project, kind):
    return next(w for w in project["widgets"] if w["type"] == kind)


def clone_of(app, code):
    import zlib

    text = zlib.decompress(app.ask("GET_PROJECT_BY_CLONE_CODE", code)).decode()
    return text, json.loads(text)


# ---------------------------------------------------------------------------------------------------------------
# What single types do with their values
# ---------------------------------------------------------------------------------------------------------------


def test_a_player_knows_play_and_stop(bench):
    bench.app.add_widget(1, ROWS["PLAYER"].bound(ID, PIN))
    for value, on in (("play", True), ("next", True), ("stop", False), ("prev", False)):
        bench.write(f"vw {PIN} {value}")
        shown = bench.app.widget(1, ID)
        assert (shown["value"], shown["isOnPlay"]) == (value, on)


@pytest.mark.parametrize(
    "value, start, stop, zone, days",
    [
        ("36000\0ss\0Europe/Berlin\0001,2,3\0007200", 36000, -2, "Europe/Berlin", [1, 2, 3]),
        ("sr\0\0Nowhere/Land", -3, -1, "UTC", None),
        ("\00060\0+03:00\0", -1, 60, "+03:00", None),
        ("0\00086399\0Asia/Hanoi\0007", 0, 86399, "Asia/Ho_Chi_Minh", [7]),
        ("60", 5, 6, "UTC", [1]),  # too few parts: only the value
        ("60\00070", 5, 6, "UTC", [1]),
        ("60\0\0\0", 5, 6, "UTC", [1]),  # trailing empty parts do not count
    ],
)
def test_a_time_input_reads_its_value(bench, value, start, stop, zone, days):
    bench.app.add_widget(
        1, {**ROWS["TIME_INPUT"].bound(ID, PIN), "startAt": 5, "stopAt": 6, "tzName": "UTC", "days": [1]}
    )
    bench.write(f"vw\0{PIN}\0{value}")
    shown = bench.app.widget(1, ID)
    assert shown["value"] == value
    assert (shown["startAt"], shown["stopAt"], shown["tzName"], shown.get("days")) == (start, stop, zone, days)


@pytest.mark.parametrize(
    "value", ["x\0y\0z", "1\0x\0UTC", "1\0002\0UTC\0001,x", "1.5\0002\0UTC", "99999999999\0002\0UTC"]
)
def test_a_value_a_time_input_cannot_read_changes_nothing(bench, value):
    bench.app.add_widget(1, ROWS["TIME_INPUT"].bound(ID, PIN))
    bench.app.add_widget(1, ROWS["SLIDER"].bound(ID + 1, PIN, value="1"))
    before = bench.app.project(1)["widgets"]
    assert bench.hardware.ask("HARDWARE", f"vw\0{PIN}\0{value}") == ILLEGAL_COMMAND
    assert bench.app.ask("HARDWARE", f"1-0\0vw\0{PIN}\0{value}") == ILLEGAL_COMMAND
    assert bench.app.project(1)["widgets"] == before
    bench.app.silence(bench.hardware)


@pytest.mark.parametrize(
    "commands, rows, current",
    [
        (["add 1 a 1", "add 2 b 2"], [(1, "a", "1", True), (2, "b", "2", True)], 0),
        (["add 1 a 1", "add 1 b 2"], [(1, "b", "2", True)], 0),
        (["update 1 a 1"], [], 0),
        (["add 1 a 1", "update 1 b 2", "pick 3"], [(1, "b", "2", True)], 3),
        (["add 1 a 1", "deselect 1"], [(1, "a", "1", False)], 0),
        (["add 1 a 1", "deselect 1", "select 1", "select 9"], [(1, "a", "1", True)], 0),
        (["add 1 a 1", "pick 2", "clr"], [], 0),
        (["add 1 a", "add 1", "add", "pick", "select", "what 1 2 3"], [], 0),
        ([f"add {n} r {n}" for n in range(103)], [(n, "r", str(n), True) for n in range(3, 103)], 0),
    ],
)
def test_a_table_follows_its_commands(bench, commands, rows, current):
    bench.app.add_widget(1, ROWS["TABLE"].bound(ID, PIN))
    for command in commands:
        bench.hardware.send(f"vw {PIN} {command}")
    bench.hardware.ping()
    shown = bench.app.widget(1, ID)
    assert [(r["id"], r["name"], r["value"], r["isSelected"]) for r in shown.get("rows", [])] == rows
    assert shown["currentRowIndex"] == current
    assert shown["value"].replace("\0", " ") == commands[-1]


def test_an_update_of_a_table_keeps_the_servers_rows(bench):
    """Spec 04 §17.3: what the app knows of the rows may be old."""
    bench.app.add_widget(1, ROWS["TABLE"].bound(ID, PIN))
    for text in ("add 1 a 1", "add 2 b 2", "pick 1"):
        bench.write(f"vw {PIN} {text}")
    stale = {**ROWS["TABLE"].bound(ID, PIN), "label": "new", "rows": [{"id": 9, "name": "old", "value": "x"}]}
    assert bench.app.ask("UPDATE_WIDGET", 1, stale) == OK
    shown = bench.app.widget(1, ID)
    assert [r["id"] for r in shown["rows"]] == [1, 2] and shown["currentRowIndex"] == 1
    assert shown["label"] == "new" and shown["value"] == "pick\0001"
    assert bench.app.ask("UPDATE_WIDGET", 1, {**stale, "pin": PIN + 1}) == OK  # another pin: those of the JSON
    assert [r["id"] for r in bench.app.widget(1, ID)["rows"]] == [9]


def test_a_terminal_keeps_25_lines_until_clr_an_update_or_a_restart(bench):
    bench.app.add_widget(1, ROWS["TERMINAL"].bound(ID, PIN))
    for n in range(30):
        bench.hardware.send(f"vw {PIN} {n}")
    bench.hardware.ping()
    assert bench.app.sync(1) == [f"1-0 vm {PIN} " + " ".join(map(str, range(5, 30)))]
    assert bench.hardware.sync(PIN) == [f"vw {PIN} 29"]
    bench.app.drain()
    bench.write(f"vw {PIN} clr")
    assert bench.app.sync(1) == [] and bench.hardware.sync(PIN) == []
    bench.write(f"vw {PIN} again")
    assert bench.app.ask("UPDATE_WIDGET", 1, ROWS["TERMINAL"].bound(ID, PIN)) == OK
    assert bench.app.sync(1) == []


def test_a_map_keeps_25_points_and_an_update_keeps_the_last(bench):
    bench.app.add_widget(1, ROWS["MAP"].bound(ID, PIN))
    for n in range(30):
        bench.hardware.send(f"vw {PIN} {n} 1.5 2.5 here")
    bench.hardware.ping()
    assert bench.app.sync(1) == [f"1-0 vw {PIN} {n} 1.5 2.5 here" for n in range(5, 30)]
    assert bench.app.ask("UPDATE_WIDGET", 1, ROWS["MAP"].bound(ID, PIN)) == OK
    assert bench.app.sync(1) == [f"1-0 vw {PIN} 29 1.5 2.5 here"]
    assert bench.app.ask("UPDATE_WIDGET", 1, ROWS["MAP"].bound(ID, PIN + 1, value="x")) == OK
    assert bench.app.sync(1) == []  # another pin: a value of the JSON is no point
    bench.app.drain()
    bench.write(f"vw {PIN + 1} clr")
    assert "value" not in bench.app.widget(1, ID) and bench.app.sync(1) == []


def test_an_lcd_in_advanced_mode_keeps_six_commands_and_tells_them_on_its_first_pin(bench):
    pins = [{"pin": PIN, "pinType": "VIRTUAL"}, {"pin": PIN + 1, "pinType": "VIRTUAL"}]
    bench.app.add_widget(1, {"type": "LCD", "id": ID, "width": 1, "height": 1, "advancedMode": True, "pins": pins})
    for n in range(8):
        bench.write(f"vw {PIN + n % 2} {n}")
    assert bench.app.sync(1) == [f"1-0 vw {PIN} {n}" for n in range(2, 8)]
    assert bench.hardware.sync() == []
    assert bench.app.ask("UPDATE_WIDGET", 1, {"type": "LCD", "id": ID, "width": 1, "height": 1, "pins": pins}) == OK
    assert bench.app.sync(1) == [f"1-0 vw {PIN} 6", f"1-0 vw {PIN + 1} 7"]  # simple mode: a value each


@pytest.mark.parametrize("kind, flag", [("RGB", "splitMode"), ("TWO_AXIS_JOYSTICK", "split")])
def test_widgets_of_several_pins_speak_merged_or_split(bench, kind, flag):
    pins = [{"pin": p, "pinType": "VIRTUAL"} for p in (1, 2)]
    for split, told in ((False, ["vw 1 5"]), (True, ["vw 1 5", "vw 2 6"])):
        bench.app.add_widget(1, {"type": kind, "id": ID, "width": 1, "height": 1, flag: split, "pins": pins})
        bench.write("vw 1 5")
        bench.write("vw 2 6")
        assert bench.app.sync(1) == [f"1-0 {t}" for t in told]
        assert bench.hardware.sync() == told
        assert bench.hardware.sync(2) == told
        assert bench.app.ask("DELETE_WIDGET", 1, ID) == OK


def test_several_widgets_of_a_pin_all_take_its_value(bench):
    for id, kind in enumerate(("SLIDER", "LED", "TERMINAL", "MAP", "LCD", "TABLE"), 1):
        bench.app.add_widget(1, ROWS[kind].bound(id, PIN))
    bench.write(f"vw {PIN} 5")
    shown = {w["type"]: w for w in bench.app.project(1)["widgets"]}
    assert all(shown[kind]["value"] == "5" for kind in ("SLIDER", "LED", "MAP", "TABLE"))
    assert shown["LCD"]["pins"][0]["value"] == "5"
    assert bench.app.sync(1) == [
        *[f"1-0 vw {PIN} 5"] * 2,
        f"1-0 vm {PIN} 5",
        *[f"1-0 vw {PIN} 5"] * 2,
    ]


def test_a_widget_of_a_type_nobody_knows_is_kept_and_behaves_as_a_button(bench):
    unknown = {
        "type": "HOLOGRAM",
        "id": ID,
        "width": 1,
        "height": 1,
        "pin": 5,
        "pinType": "DIGITAL",
        "glow": {"a": [1]},
    }
    bench.app.add_widget(1, unknown)
    shown = bench.app.widget(1, ID)
    assert {k: shown[k] for k in unknown} == unknown
    bench.write("dw 5 1")
    assert bench.app.sync(1) == ["1-0 dw 5 1"] and bench.hardware.sync(5) == []
    assert bench.activated() == ["pm 5 out"]
    assert bench.app.ask("SET_WIDGET_PROPERTY", "1", str(ID), "onLabel", "an") == OK
    bench.app.add_widget(1, widget("TABS", 50, tabs=[{"id": 0}, {"id": 1}]))
    assert bench.app.ask("DELETE_WIDGET", 1, 50) == OK
    assert [w["id"] for w in bench.app.project(1)["widgets"]] == [ID]


def test_properties_of_a_button_with_states_go_into_them(bench):
    states = {"onButtonState": {"text": "a"}, "offButtonState": {"text": "b"}}
    bench.app.add_widget(1, {**ROWS["STYLED_BUTTON"].bound(ID, PIN), **states})
    for prop, text in (("onLabel", "an"), ("offColor", "#000001"), ("onBackColor", "0x000002"), ("offBackColor", "3")):
        assert bench.hardware.ask("SET_WIDGET_PROPERTY", str(PIN), prop, text) == OK
    shown = bench.app.widget(1, ID)
    assert shown["onButtonState"] == {"text": "an", "textColor": 0, "backgroundColor": 0x2FF}
    assert shown["offButtonState"] == {"text": "b", "textColor": 0x1FF, "backgroundColor": 0x3FF}
    assert bench.hardware.ask("SET_WIDGET_PROPERTY", str(PIN), "onColor", "red") == ILLEGAL_COMMAND
    assert bench.app.widget(1, ID) == shown
    assert bench.app.ask("UPDATE_WIDGET", 1, ROWS["STYLED_BUTTON"].bound(ID, PIN)) == OK
    assert bench.hardware.ask("SET_WIDGET_PROPERTY", str(PIN), "onColor", "red") == OK  # no state: taken, not looked at
    bench.app.drain()


def test_a_property_that_one_of_two_widgets_cannot_read_changes_neither(bench):
    bench.app.add_widget(1, ROWS["VIDEO"].bound(ID, PIN, url="http://example.com/v"))
    bench.app.add_widget(1, ROWS["IMAGE"].bound(ID + 1, PIN, urls=["http://example.com/1"]))
    before = bench.app.project(1)["widgets"]
    assert bench.hardware.ask("SET_WIDGET_PROPERTY", f"{PIN}\0url\0x\0http://example.com/2") == ILLEGAL_COMMAND
    assert bench.app.project(1)["widgets"] == before
    bench.app.silence()
    assert bench.hardware.ask("SET_WIDGET_PROPERTY", f"{PIN}\0url\0001\0http://example.com/2") == OK
    assert bench.app.widget(1, ID + 1)["urls"] == ["http://example.com/2"]
    bench.app.drain()


# ---------------------------------------------------------------------------------------------------------------
# Tiles and templates
# ---------------------------------------------------------------------------------------------------------------

STREAM = {"pin": 31, "pinType": "VIRTUAL", "min": 0, "max": 100}
TEMPLATE = {"mode": "PAGE", "id": 1, "templateId": "T", "name": "Node", "deviceIds": [0, 1], "pin": STREAM}


@pytest.fixture
def tiles(bench):
    """Widget 5, tiles, with template 1 for both devices on V31."""
    bench.app.add_widget(1, widget("DEVICE_TILES", 5))
    assert bench.app.ask("CREATE_TILE_TEMPLATE", 1, 5, TEMPLATE) == OK
    return bench


@pytest.mark.parametrize("kind", ["SLIDER", "LED", "MAP", "TERMINAL", "LCD", "TABLE"])
def test_widgets_in_templates_keep_their_values_in_the_storage(tiles, kind):
    assert tiles.app.ask("CREATE_WIDGET", 1, 5, 1, ROWS[kind].bound(50, 9)) == OK
    tiles.write("vw 9 one")
    tiles.write("vw 9 two")
    kept = tiles.app.profile()["pinsStorage"]["1-0-v9"]
    if kind in ("TERMINAL", "LCD", "TABLE"):
        assert kept == {"type": kind, "values": ["one", "two"]}
        tiles.write("vw 9 clr")
        kept = tiles.app.profile()["pinsStorage"]["1-0-v9"]
        assert kept == ({"type": kind} if kind != "LCD" else {"type": kind, "values": ["one", "two", "clr"]})
    else:
        assert kept == "two"
    inner = tiles.app.widget(1, 5)["templates"][0]["widgets"][0]
    assert "value" not in inner and "rows" not in inner and not any("value" in s for s in inner.get("pins", ()))
    assert tiles.app.ask("DELETE_TILE_TEMPLATE", 1, 5, 1) == OK
    assert "pinsStorage" not in tiles.app.profile()


def test_queues_in_the_storage_have_their_sizes(tiles):
    sizes = {"TERMINAL": (11, 25), "LCD": (12, 6), "TABLE": (13, 100)}
    for kind, (pin, _) in sizes.items():
        assert tiles.app.ask("CREATE_WIDGET", 1, 5, 1, ROWS[kind].bound(pin, pin)) == OK
    for n in range(105):
        for pin, _ in sizes.values():
            tiles.hardware.send(f"vw {pin} {n}")
    tiles.hardware.ping()
    storage = tiles.app.profile()["pinsStorage"]
    for pin, size in sizes.values():
        assert storage[f"1-0-v{pin}"]["values"] == [str(n) for n in range(105 - size, 105)]


def test_tiles_are_told_in_their_order(tiles):
    second = {**TEMPLATE, "id": 2, "templateId": "U", "deviceIds": [1, 0], "pin": {**STREAM, "pin": 32}}
    assert tiles.app.ask("CREATE_TILE_TEMPLATE", 1, 5, second) == OK
    for device, pin in ((0, 31), (1, 31), (1, 32), (0, 32)):
        tiles.app.send(f"1-{device} vw {pin} {device}{pin}")
    assert tiles.app.sync(1) == ["1-0 vw 31 031", "1-1 vw 31 131", "1-1 vw 32 132", "1-0 vw 32 032"]
    assert tiles.app.sync("1-1") == ["1-1 vw 31 131", "1-1 vw 32 132"]
    assert tiles.hardware.sync() == ["vw 31 031", "vw 32 032"]
    assert tiles.hardware.sync(31) == ["vw 31 031", "vw 32 032"]  # all tiles of the device answer
    tiles.hardware.drain()


def test_a_changed_template_keeps_the_values_of_tiles_that_stay(tiles):
    tiles.write("vw 31 77")
    app = tiles.app
    assert app.ask("UPDATE_TILE_TEMPLATE", 1, 5, {**TEMPLATE, "deviceIds": [1, 0], "name": "More"}) == OK
    shown = app.widget(1, 5)
    assert [(t["deviceId"], t["pin"].get("value")) for t in shown["tiles"]] == [(1, None), (0, "77")]
    assert app.ask("UPDATE_TILE_TEMPLATE", 1, 5, {**TEMPLATE, "deviceIds": [0], "pin": {**STREAM, "pin": 33}}) == OK
    assert [t["pin"].get("value") for t in app.widget(1, 5)["tiles"]] == [None]  # another pin
    assert app.ask("UPDATE_TILE_TEMPLATE", 1, 5, {**TEMPLATE, "widgets": [widget("LED", 77)]}) == OK
    assert "widgets" not in app.widget(1, 5)["templates"][0]  # those of the JSON do not count


def test_an_update_of_the_tiles_widget_keeps_tiles_and_templates(tiles):
    tiles.write("vw 31 77")
    update = widget("DEVICE_TILES", 5, templates=[], tiles=[], columns=3)
    assert tiles.app.ask("UPDATE_WIDGET", 1, update) == OK
    shown = tiles.app.widget(1, 5)
    assert shown["columns"] == 3 and len(shown["templates"]) == 1 and shown["tiles"][0]["pin"]["value"] == "77"


def test_energy_of_tiles_counts_what_is_inside(tiles):
    before = tiles.energy()
    for id, price in ((50, 200), (51, 100)):
        assert tiles.app.ask("CREATE_WIDGET", 1, 5, 1, ROWS["SLIDER" if id == 50 else "LED"].bound(id, id)) == OK
        before -= price
        assert tiles.energy() == before
    assert tiles.app.ask("DELETE_WIDGET", 1, 51) == OK
    assert tiles.energy() == before + 100
    assert tiles.app.ask("DELETE_TILE_TEMPLATE", 1, 5, 1) == OK
    assert tiles.energy() == before + 300
    inside = {**TEMPLATE, "id": 3, "widgets": [ROWS["SLIDER"].bound(60, 60)]}
    assert tiles.app.ask("CREATE_TILE_TEMPLATE", 1, 5, inside) == OK
    assert tiles.energy() == before + 300  # free
    assert tiles.app.ask("DELETE_WIDGET", 1, 5) == OK
    assert tiles.energy() == before + 300 + 1700 + 200


def test_a_widget_cannot_go_where_there_is_no_template(tiles):
    before = tiles.energy()
    tiles.app.add_widget(1, ROWS["LED"].bound(ID, 1))
    for place in ((5, 9), (9, 1), (ID, 1)):
        assert tiles.app.ask("CREATE_WIDGET", 1, *place, ROWS["LED"].bound(70, 2)) == ILLEGAL_COMMAND
    assert tiles.app.ask("CREATE_WIDGET", 1, 5, 1, ROWS["LED"].bound(ID, 2)) == NOT_ALLOWED  # that id is taken
    assert tiles.energy() == before - 100


def test_a_deleted_device_leaves_tiles_values_and_history_lists(bench):
    app = bench.app
    app.make_project(6, devices=2)
    with bench.server.hardware(app.token(6, 1)) as hw:
        for n, row in enumerate(ROWS.values()):
            if row.base in "SRM" and row.name != "WEBHOOK":
                app.add_widget(6, {**row.bound(n + 1, n + 1), "deviceId": 1})
        app.add_widget(6, widget("DEVICE_TILES", 90))
        for id in (1, 2):
            assert (
                app.ask("CREATE_TILE_TEMPLATE", 6, 90, {**TEMPLATE, "id": id, "pin": {**STREAM, "pin": 200 + id}}) == OK
            )
        for pin in range(1, 250):
            hw.send(f"vw {pin} play")
        hw.ping()
    assert app.ask("DELETE_DEVICE", 6, 1) == OK
    project = app.project(6)
    assert [w["type"] for w in project["widgets"] if "value" in w] == []
    assert [w["type"] for w in project["widgets"] if any("value" in s for s in w.get("pins", ()))] == []
    shown = app.widget(6, 90)
    assert [t["deviceId"] for t in shown["tiles"]] == [0, 0]
    assert [t["deviceIds"] for t in shown["templates"]] == [[0], [0]]
    assert not any(key.startswith("6-") for key in app.profile().get("pinsStorage", {}))
    app.drain()


# ---------------------------------------------------------------------------------------------------------------
# Tabs
# ---------------------------------------------------------------------------------------------------------------


def test_tabs_inside_a_template_take_their_own_container_along(tiles):
    app, before = tiles.app, tiles.energy()
    app.add_widget(1, {**ROWS["LED"].bound(80, 80), "tabId": 2})
    tabs = widget("TABS", 60, tabs=[{"id": n, "label": str(n)} for n in range(3)])
    assert app.ask("CREATE_WIDGET", 1, 5, 1, tabs) == OK
    for id in (61, 62):
        assert app.ask("CREATE_WIDGET", 1, 5, 1, {**ROWS["LED"].bound(id, id), "tabId": id - 60}) == OK
    assert app.ask("UPDATE_WIDGET", 1, widget("TABS", 60, tabs=[{"id": 0}, {"id": 1}])) == OK
    assert [w["id"] for w in app.widget(1, 5)["templates"][0]["widgets"]] == [60, 61]
    assert app.ask("DELETE_WIDGET", 1, 60) == OK
    assert "widgets" not in app.widget(1, 5)["templates"][0]
    assert app.widget(1, 80)["tabId"] == 2
    assert tiles.energy() == before - 100
