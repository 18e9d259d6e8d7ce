"""The document engine (spec 04 §1, §2, §10): what is read, what is written, what a broken file loses."""

import json

import pytest

import blynk_pi

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
RELAXED = hypothesis.settings(max_examples=200, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


def read(kind, document, lenient=False):
    return blynk_pi.read_document(kind, document if isinstance(document, str) else json.dumps(document), lenient)


# The minimal objects of spec 04 §18, and a public view, to the byte.
WRITTEN = [
    (
        "PROJECT",
        '{"id":0,"parentId":-1,"isPreview":false,"createdAt":0,"updatedAt":0,"theme":"Blynk","keepScreenOn":false,'
        '"isAppConnectedOn":false,"isNotificationsOff":false,"isShared":false,"isActive":false,'
        '"widgetBackgroundOn":false,"color":-1,"isDefaultColor":true}',
        {"id": 0},
    ),
    (
        "DEVICE",
        '{"id":1,"name":"n","boardType":"ESP8266","status":"OFFLINE","disconnectTime":0,"connectTime":0,'
        '"firstConnectTime":0,"dataReceivedAt":0,"isUserIcon":false}',
        {"id": 1, "name": "n", "boardType": "ESP8266"},
    ),
    ("TAG", '{"id":100000,"name":"n"}', {"id": 100000, "name": "n", "deviceIds": []}),
    (
        "WIDGET",
        '{"type":"BUTTON","id":0,"x":0,"y":0,"color":0,"width":0,"height":0,"tabId":0,"isDefaultColor":false,'
        '"deviceId":0,"pin":-1,"pwmMode":false,"rangeMappingOn":false,"min":0.0,"max":0.0,"pushMode":false}',
        {"type": "BUTTON", "label": "", "value": None},
    ),
    (
        "WIDGET",
        '{"type":"LCD","id":0,"x":0,"y":0,"color":0,"width":0,"height":0,"tabId":0,"isDefaultColor":false,'
        '"deviceId":0,"advancedMode":false,"textLight":false,"frequency":0}',
        {"type": "LCD", "pins": []},
    ),
    ("HARDWARE_INFO", '{"heartbeatInterval":0,"buffIn":250}', {}),
    ("SETTINGS", "{" + '"isShared":false,"theme":"Blynk","keepScreenOn":false,"isAppConnectedOn":false,'
     '"isNotificationsOff":false,"widgetBackgroundOn":false,"color":0,"isDefaultColor":false}', {"theme": None}),
]  # fmt: skip


@pytest.mark.parametrize("kind, text, document", WRITTEN, ids=lambda v: v[:20] if isinstance(v, str) else "")
def test_minimal_objects_are_written_as_documented(kind, text, document):
    assert blynk_pi.to_json(read(kind, document)) == text


EXAMPLE = {
    "type": "EVENTOR",
    "id": 20,
    "rules": [
        {
            "triggerPin": {"pin": 2, "pinType": "VIRTUAL", "max": 50},
            "condition": {"type": "GT", "value": 30},
            "actions": [
                {"type": "SETPIN", "pin": {"pin": 6, "pinType": "DIGITAL"}, "value": 1, "setPinType": 0},
                {"type": "MAIL", "message": "m", "subject": "s"},
            ],
            "isActive": True,
        },
        {"triggerTime": {"id": 7, "days": [6, 7], "time": 30600, "tzName": "Europe/Berlin"}},
    ],
}


def test_rules_are_read_with_their_parts():
    rules = read("WIDGET", EXAMPLE)["rules"]
    assert rules[0]["condition"] == {"type": "GT", "value": 30.0}
    assert list(rules[0]["actions"][0]) == ["type", "pin", "value", "setPinType"]
    assert rules[0]["actions"][0]["setPinType"] == "ON" and rules[0]["actions"][0]["value"] == "1"
    assert list(rules[0]["actions"][1]) == ["type", "subject", "message"]
    assert rules[1] == {
        "triggerTime": {"id": 7, "days": [6, 7], "time": 30600, "tzName": "Europe/Berlin"},
        "isActive": False,
    }


@pytest.mark.parametrize("mode", ["PAGE", "BUTTON", "DIMMER", "SPHERE", None])
def test_a_template_takes_its_stream_under_both_names_and_writes_it_last(mode):
    for name in ("pin", "dataStream"):
        template = read("TEMPLATE", {name: {"pin": 3}, "mode": mode, "boardType": "Unheard of"})
        assert template["mode"] == (mode if mode in ("PAGE", "BUTTON", "DIMMER") else "PAGE")
        assert list(template)[-1] == "pin" and template["pin"]["pin"] == 3
        assert template["boardType"] == "Generic Board"
    assert read("TEMPLATE", {"mode": "DIMMER"})["step"] == 1.0


def test_a_reports_sources_take_their_streams_under_both_names():
    for name in ("dataStreams", "reportDataStreams"):
        source = {"type": "DEVICE", name: [{"pin": 1, "pinType": "VIRTUAL"}], "deviceIds": [0]}
        assert list(read("WIDGET", {"type": "REPORT", "reportSources": [source]})["reportSources"][0]) == [
            "type",
            "deviceIds",
            "reportDataStreams",
        ]


@pytest.mark.parametrize(
    "name, kept",
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("Europe/Kiev", "Europe/Kiev"),
        ("Brazil/East", "Brazil/East"),
        ("Asia/Hanoi", "Asia/Ho_Chi_Minh"),
        ("Canada/East-Saskatchewan", "America/Regina"),
        ("UTC", "UTC"),
        ("Z", "Z"),
        ("+03:00", "+03:00"),
        ("UTC+3", "UTC+3"),
        ("GMT+3", "GMT+3"),
        ("Mars/Olympus", "UTC"),
        ("../../etc/passwd", "UTC"),
        ("", None),
        (None, None),
    ],
)
def test_zones_keep_their_names_or_become_utc(name, kept):
    assert read("WIDGET", {"type": "RTC", "tzName": name}).get("tzName") == kept


@pytest.mark.parametrize("enum", sorted(blynk_pi.ENUMS))
def test_a_constant_may_be_given_by_its_place_in_the_list(enum):
    names = blynk_pi.ENUMS[enum].split()
    reader = blynk_pi.Reader()
    assert [reader.enum(n, "e", enum) for n in range(len(names))] == names
    assert [reader.enum(name, "e", enum) for name in names] == names
    for wrong in (len(names), -1, True, "", names[0].lower() + "x", 1.5, [], {}):
        with pytest.raises(blynk_pi.DocumentError):
            reader.enum(wrong, "e", enum)


@pytest.mark.parametrize("text", ["1_0", "١", "1.5.5", "0x10", "--5", "1e", "1e999", "nan", "²", "five"])
def test_texts_that_are_no_numbers(text):
    with pytest.raises(blynk_pi.DocumentError):
        read("TAG", {"id": text})


@pytest.mark.parametrize(
    "text, number", [("4", 4), (" 4 ", 4), ("-4", -4), ("+4", 4), ("1.9", 1), ("-1.9", -1), ("", 0)]
)
def test_texts_that_are_numbers(text, number):
    assert read("TAG", {"id": text})["id"] == number


def test_nesting_is_bounded_in_what_is_known_and_in_what_is_not():
    def nested(levels, name):
        return {name: nested(levels - 1, name)} if levels else {}

    assert read("PROJECT", {"future": nested(30, "a")})["future"] == nested(30, "a")
    for name in ("a", "widgets"):
        with pytest.raises(blynk_pi.DocumentError):
            read("PROJECT", {"future": nested(50, name)})

    def tiles(levels):
        inner = [tiles(levels - 1)] if levels else []
        return {"type": "DEVICE_TILES", "templates": [{"widgets": inner}]}

    read("WIDGET", tiles(15))
    with pytest.raises(blynk_pi.DocumentError):
        read("WIDGET", tiles(30))


def test_a_file_with_many_broken_rules_loses_those_only():
    """However many are left out: the rest of the file is not "too deep" because of them."""
    broken = [{"condition": {"type": "MAYBE"}, "actions": [{"type": "DANCE"}]}] * 200
    good = {"condition": {"type": "GT", "value": 1.0}, "isActive": True}
    eventor = {"type": "EVENTOR", "id": 1, "rules": [*broken, good]}
    after = {"type": "LED", "id": 2, "pin": 5, "pinType": "VIRTUAL", "value": "1"}
    user = {"email": "a@example.org", "profile": {"dashBoards": [{"id": 1, "widgets": [eventor, after]}]}}
    project = read("USER", user, lenient=True)["profile"]["dashBoards"][0]
    assert [w["id"] for w in project["widgets"]] == [1, 2]
    assert len(project["widgets"][0]["rules"]) == 201  # each without its broken parts
    assert project["widgets"][0]["rules"][-1]["condition"] == {"type": "GT", "value": 1.0}
    assert project["widgets"][1]["value"] == "1"


def test_a_broken_field_of_a_file_falls_back_to_its_default():
    device = {"id": "x", "boardType": "ESP8266", "status": "ASLEEP", "connectTime": [], "token": "t" * 32}
    project = {"id": 1, "theme": "Dark", "color": "red", "devices": [device, 7, None], "widgets": "none", "tags": {}}
    user = {"name": "a@example.org", "energy": "much", "profile": {"dashBoards": [project, []], "apps": 3}}
    read_user = read("USER", user, lenient=True)
    (kept,) = read_user["profile"]["dashBoards"]
    assert read_user["energy"] == 0 and kept["theme"] == "Blynk" and kept["color"] == -1 and "widgets" not in kept
    assert [(d["id"], d["status"], d["token"]) for d in kept["devices"]] == [(0, "OFFLINE", "t" * 32)]


@pytest.mark.parametrize(
    "key, parts",
    [
        ("1-0-v24", (1, 0, "v", 24, "")),
        ("1-0-v24-label", (1, 0, "v", 24, "label")),
        ("1-0-A7", (1, 0, "a", 7, "")),
        ("-1-0-v24", (-1, 0, "v", 24, "")),
        ("1--5-v24-min", (1, -5, "v", 24, "min")),
        ("-1--5-v24", (-1, -5, "v", 24, "")),
        ("1-100000-d0", (1, 100000, "d", 0, "")),
        *(
            (key, None)
            for key in ("", "1", "1-0", "1-0-", "1-0-v", "1-0-v256", "1-0-v-1", "1-0-x5", "x-0-v5", "1-x-v5", "--")
        ),
    ],
)
def test_keys_of_stored_pins(key, parts):
    assert blynk_pi.split_storage_key(key) == parts


def test_stored_pins_of_a_file_are_read_as_far_as_they_can():
    raw = {
        "1-0-v1": "text",
        "1-0-v2": 7,
        "1-0-v3": True,
        "1-0-v4": None,
        "1-0-v5": {"type": "TERMINAL", "values": ["a", None, 5]},
        "1-0-v6": {"type": "LCD"},
        "1-0-v7": {"type": "LCD", "values": 5},
        "1-0-v8": {"type": "MAP", "values": ["x"]},
        "1-0-v9-shape": "as a label",
        "1-0-x9": "lost",
    }
    kept = blynk_pi.read_pins_storage(raw)
    assert kept == {
        "1-0-v1": "text",
        "1-0-v2": "7",
        "1-0-v5": {"type": "TERMINAL", "values": ["a", "5"]},
        "1-0-v6": {"type": "LCD", "values": []},
        "1-0-v7": {"type": "LCD", "values": []},
        "1-0-v9-label": "as a label",
    }
    assert blynk_pi.written_storage(kept)["1-0-v6"] == {"type": "LCD"}
    assert blynk_pi.read_pins_storage(["1-0-v1"]) == {}


def test_the_public_view_has_no_secrets_and_the_http_view_none_either_unless_asked():
    inner = {"type": "TWITTER", "token": "secret"}
    tiles = {"type": "DEVICE_TILES", "templates": [{"id": 1, "widgets": [inner], "pin": {"pin": 1}}]}
    phone = {"type": "NOTIFICATION", "androidTokens": {"u": "push"}, "iOSTokens": {"u": "push"}, "priority": "high"}
    odd = {"type": "TEXT", "templates": 7, "androidTokens": "not of this type: kept"}
    device = {"id": 0, "name": "Hub", "boardType": "ESP32 Dev Board", "connectionType": "WI_FI", "iconName": "ic_hub"}
    private = {"token": "secret", "hardwareInfo": {"version": "secret"}, "lastLoggedIP": "secret", "connectTime": 5}
    raw = {"id": 1, "sharedToken": "secret", "widgets": [tiles, phone, odd], "devices": [{**device, **private}]}
    project = read("PROJECT", raw)
    before = json.dumps(project)
    view = blynk_pi.public_view(project)
    text = blynk_pi.to_json(view)
    assert "secret" not in text and "push" not in text
    assert view["devices"] == [{**device, "isUserIcon": False}]
    assert view["widgets"][0]["templates"][0]["pin"]["pin"] == 1 and view["widgets"][2]["templates"] == 7
    assert "push" in blynk_pi.to_json(blynk_pi.http_view(project, True))
    assert "secret" not in blynk_pi.to_json(blynk_pi.http_view(project, True))
    view["widgets"][0]["templates"][0]["widgets"].clear()
    view["devices"].clear()
    assert json.dumps(project) == before  # a copy, all the way down


# Any JSON whatever: an error of the document or a document that reads the same again.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
known_names = sorted(
    {field[0] for kind in blynk_pi.KIND_FIELDS for field in blynk_pi.fields_of(kind)} | {"type", "mode"}
)


@RELAXED
@hypothesis.given(
    st.sampled_from(["PROJECT", "WIDGET", "DEVICE", "TAG", "APP", "REPORT", "TEMPLATE", "USER"]),
    st.dictionaries(st.sampled_from(known_names), json_values, max_size=6),
    st.sampled_from([None, *blynk_pi.WIDGETS]),
    st.booleans(),
)
def test_whatever_comes_is_a_document_or_an_error_of_it(kind, document, type_name, lenient):
    if type_name is not None and kind == "WIDGET":
        document["type"] = type_name
    try:
        first = blynk_pi.read_document(kind, document, lenient)
    except blynk_pi.DocumentError:
        return
    text = blynk_pi.to_json(first)
    again = blynk_pi.read_document(kind, json.loads(text), lenient)
    assert blynk_pi.to_json(again) == text


@RELAXED
@hypothesis.given(st.text(max_size=200))
def test_any_text_is_json_or_an_error(text):
    try:
        blynk_pi.parse_json(text)
    except blynk_pi.DocumentError:
        pass


@RELAXED
@hypothesis.given(st.text(alphabet="0123456789-vdax", max_size=20))
def test_a_key_that_is_read_is_written_as_it_was(key):
    parts = blynk_pi.split_storage_key(key)
    if parts is not None and "x" not in key:
        dash, device, letter, pin, name = parts
        assert key.endswith(name) and letter in "vda" and 0 <= pin <= 255
        again = f"{dash}-{device}-{letter}{pin}" + (f"-{name}" if name else "")
        assert blynk_pi.split_storage_key(again) == parts
