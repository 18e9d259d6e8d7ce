"""What apps can ask beyond values and widgets (spec 03a, 03b): refusals that change nothing, limits at and past their
edge, energy, devices and provisioning, tags, exported apps, clones, faces, passwords, and how commands queue."""

import json
import os
import shutil
import tempfile
import zlib

import pytest
from clients import (
    DEVICE_NOT_IN_NETWORK,
    ENERGY_LIMIT,
    ILLEGAL_COMMAND,
    ILLEGAL_COMMAND_BODY,
    INVALID_TOKEN,
    NOT_ALLOWED,
    NOTIFICATION_ERROR,
    OK,
    QUOTA_LIMIT,
    SERVER_ERROR,
    USER_NOT_AUTHENTICATED,
    App,
    new_email,
    password_hash,
    widget,
)
from servers import HOST, Server

SILENCE = None


def server_of(certificate, **settings):
    path = tempfile.mkdtemp(prefix="bp-")
    server = Server(path, **{**certificate, **settings}).start()
    yield server
    server.finish()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def small(certificate):
    """A server with limits that can be reached: two projects, two devices, widgets of 1 KiB, projects of 4."""
    yield from server_of(
        certificate,
        limits_dashboards=2,
        limits_devices=2,
        limits_widget_kb=1,
        limits_profile_kb=4,
        limits_reports=2,
        limits_energy=6000,
        limits_messages_per_s=100000,
        limits_failed_logins=1000,
    )


@pytest.fixture(scope="module")
def wide(certificate):
    """A server that minds no flood."""
    yield from server_of(certificate, limits_messages_per_s=100000, limits_failed_logins=1000)


def unpack(answer):
    assert isinstance(answer, bytes), f"answered with {answer}"
    return json.loads(zlib.decompress(answer))


def emptied(app):
    """The app again, its account without projects and apps."""
    for one in app.profile().get("apps", []):
        app.ask("DELETE_APP", one["id"])
    for project in app.profile().get("dashBoards", []):
        assert app.ask("DELETE_DASH", project["id"]) == OK
    return app


@pytest.fixture(scope="module")
def _app(small):
    app = small.app()
    yield app
    app.close()


@pytest.fixture
def app(_app, small):
    yield emptied(_app)
    _app.silence()
    small.check_log()


@pytest.fixture(scope="module")
def _user(wide):
    app = wide.app()
    yield app
    app.close()


@pytest.fixture
def user(_user, wide):
    yield emptied(_user)
    _user.silence()
    wide.check_log()


# ---------------------------------------------------------------------------------------------------------------
# What is refused, and changes nothing
# ---------------------------------------------------------------------------------------------------------------

GOOD = {
    "widget": {"id": 90, "type": "LED", "width": 1, "height": 1},
    "device": {"id": 9, "name": "x", "boardType": "ESP8266"},
    "tag": {"id": 100009, "name": "x"},
    "template": {"id": 9, "mode": "PAGE"},
    "report": {
        "id": 9,
        "name": "r",
        "reportSources": [
            {"type": "DEVICE", "reportDataStreams": [{"pin": 1, "pinType": "VIRTUAL"}], "deviceIds": [0]}
        ],
        "reportType": {"type": "ONE_TIME", "rangeMillis": 86400000},
        "recipients": "a@example.com",
    },
    "face": {"theme": "Blynk", "provisionType": "STATIC", "name": "x", "projectIds": [1]},
}
# Commands of one project, with what comes behind its id.
OF_A_PROJECT = [
    *[
        (name, ())
        for name in "LOAD_PROFILE_GZIPPED ACTIVATE_DASHBOARD DELETE_DASH APP_SYNC GET_DEVICES GET_TAGS".split()
    ],
    *[(name, ()) for name in "REFRESH_TOKEN UPDATE_FACE GET_CLONE_CODE DEACTIVATE_DASHBOARD EMAIL".split()],
    ("SHARING", ("on",)),
    ("GET_WIDGET", (1,)),
    ("DELETE_WIDGET", (1,)),
    ("CREATE_WIDGET", (GOOD["widget"],)),
    ("CREATE_WIDGET", (5, 1, GOOD["widget"])),
    ("UPDATE_WIDGET", ({**GOOD["widget"], "id": 1},)),
    ("SET_WIDGET_PROPERTY", (1, "label", "x")),
    ("CREATE_DEVICE", (GOOD["device"],)),
    ("UPDATE_DEVICE", ({**GOOD["device"], "id": 0},)),
    ("DELETE_DEVICE", (0,)),
    ("MOBILE_GET_DEVICE", (0,)),
    ("GET_PROVISION_TOKEN", (GOOD["device"],)),
    ("ASSIGN_TOKEN", ("x" * 32,)),
    ("CREATE_TAG", (GOOD["tag"],)),
    ("UPDATE_TAG", ({**GOOD["tag"], "id": 100000},)),
    ("DELETE_TAG", (100000,)),
    ("CREATE_TILE_TEMPLATE", (5, GOOD["template"])),
    ("UPDATE_TILE_TEMPLATE", (5, {**GOOD["template"], "id": 1})),
    ("DELETE_TILE_TEMPLATE", (5, 1)),
    ("UPDATE_PROJECT_SETTINGS", ({"name": "x"},)),
    ("ADD_PUSH_TOKEN", ("uid", "token")),
    ("EMAIL_QR", ("app",)),
    ("CREATE_REPORT", (GOOD["report"],)),
    ("UPDATE_REPORT", ({**GOOD["report"], "id": 1},)),
    ("DELETE_REPORT", (1,)),
    ("EXPORT_REPORT", (1,)),
    ("GET_ENHANCED_GRAPH_DATA", (8, "DAY")),
    ("DELETE_ENHANCED_GRAPH_DATA", (8,)),
    ("EXPORT_GRAPH_DATA", (8,)),
    ("HARDWARE", ("vw", 5, 1)),
]
EMPTY_MEANS_ALL = ("LOAD_PROFILE_GZIPPED", "DEACTIVATE_DASHBOARD")
SHARE_COMMANDS = ("GET_SHARE_TOKEN", "REFRESH_SHARE_TOKEN")  # a number that is none is NOT_ALLOWED here
NO_NUMBERS = ("x", "", " 1", "1 ", "1.0", "0x1", "99999999999", "-", "+", "1\u0661", "١")


@pytest.fixture(scope="module")
def _rich(wide):
    """Two accounts, the first with project 1 that has one of everything, the second with projects 1 and 2."""
    app, other = wide.app(), wide.app()
    template = {"id": 1, "mode": "PAGE", "templateId": "T", "deviceIds": [0], "widgets": [widget("LED", 51, 9)]}
    app.make_project(
        1,
        devices=2,
        tags=[{"id": 100000, "name": "t", "deviceIds": [0]}],
        widgets=[
            widget("SLIDER", 1, 5, value="5"),
            widget("DEVICE_TILES", 5, templates=[template]),
            widget("REPORT", 7),
            widget("ENHANCED_GRAPH", 8, dataStreams=[{"targetId": 0, "pin": {"pin": 5, "pinType": "VIRTUAL"}}]),
            widget("NOTIFICATION", 10),
            widget("DEVICE_SELECTOR", 200000, value=0, deviceIds=[0, 1]),
        ],
    )
    assert isinstance(app.ask("CREATE_REPORT", 1, {**GOOD["report"], "id": 1}), bytes)
    for project in (1, 2):
        other.make_project(project, devices=1)
    yield app, other
    app.close()
    other.close()


@pytest.fixture
def rich(_rich, wide):
    """The first account's app. Whatever the test did, neither account has changed."""
    app, other = _rich
    before = app.profile(), other.profile()
    yield app
    app.silence()
    assert (app.profile(), other.profile()) == before
    wide.check_log()


@pytest.mark.parametrize("command, rest", OF_A_PROJECT, ids=lambda v: v if isinstance(v, str) else "")
def test_a_project_that_is_not_there_is_refused(rich, command, rest):
    for project in ("2", "-1", "0", "2147483647", *NO_NUMBERS):  # 2 is there, in another account
        if project or command not in EMPTY_MEANS_ALL:
            assert rich.ask(command, project.encode(), *rest) == ILLEGAL_COMMAND, project


@pytest.mark.parametrize("command", SHARE_COMMANDS)
def test_a_project_that_is_not_there_cannot_be_shared(rich, command):
    for project in (2, -1, 2147483647):
        assert rich.ask(command, project) == ILLEGAL_COMMAND
    for project in NO_NUMBERS:
        assert rich.ask(command, project.encode()) == NOT_ALLOWED


@pytest.mark.parametrize(
    "command, fields, code",
    [
        # ids that do not exist
        ("GET_WIDGET", (1, 99), ILLEGAL_COMMAND),
        ("GET_WIDGET", (1, 51), ILLEGAL_COMMAND),  # inside a template: not by this command
        ("GET_WIDGET", (1, "x"), ILLEGAL_COMMAND),
        ("GET_WIDGET", (1,), ILLEGAL_COMMAND),
        ("DELETE_WIDGET", (1, 99), ILLEGAL_COMMAND),
        ("DELETE_WIDGET", (1, ""), ILLEGAL_COMMAND),
        ("DELETE_WIDGET", (1, 9223372036854775808), ILLEGAL_COMMAND),
        ("UPDATE_WIDGET", (1, {**GOOD["widget"], "id": 99}), ILLEGAL_COMMAND),
        ("UPDATE_WIDGET", (1, {**GOOD["widget"], "id": 1}), ILLEGAL_COMMAND),  # another type
        ("UPDATE_WIDGET", (1, {"id": 1, "type": "SLIDER"}), NOT_ALLOWED),  # no size
        ("CREATE_WIDGET", (1, {**GOOD["widget"], "id": 1}), NOT_ALLOWED),
        ("CREATE_WIDGET", (1, {**GOOD["widget"], "id": 51}), NOT_ALLOWED),
        ("CREATE_WIDGET", (1, {**GOOD["widget"], "width": 0}), NOT_ALLOWED),
        ("CREATE_WIDGET", (1, {**GOOD["widget"], "height": -1}), NOT_ALLOWED),
        ("CREATE_WIDGET", (1, {}), NOT_ALLOWED),
        ("CREATE_WIDGET", (1, 5, GOOD["widget"]), ILLEGAL_COMMAND_BODY),
        ("CREATE_WIDGET", (1, 5, 9, GOOD["widget"]), ILLEGAL_COMMAND),
        ("CREATE_WIDGET", (1, 1, 1, GOOD["widget"]), ILLEGAL_COMMAND),
        ("CREATE_WIDGET", (1, "x", 1, GOOD["widget"]), ILLEGAL_COMMAND),
        ("SET_WIDGET_PROPERTY", (1, 99, "label", "x"), ILLEGAL_COMMAND),
        ("SET_WIDGET_PROPERTY", (1, 1, "shape", "x"), ILLEGAL_COMMAND_BODY),
        ("SET_WIDGET_PROPERTY", (1, 1, "step", "1"), ILLEGAL_COMMAND_BODY),
        ("SET_WIDGET_PROPERTY", (1, 1, "label"), ILLEGAL_COMMAND_BODY),
        ("SET_WIDGET_PROPERTY", (1, 1, "label", "a", "b"), ILLEGAL_COMMAND_BODY),
        ("CREATE_TILE_TEMPLATE", (1, 5, {"id": 1, "mode": "PAGE"}), NOT_ALLOWED),
        ("CREATE_TILE_TEMPLATE", (1, 1, {"id": 2, "mode": "PAGE"}), ILLEGAL_COMMAND),
        ("CREATE_TILE_TEMPLATE", (1, 99, {"id": 2}), ILLEGAL_COMMAND),
        ("UPDATE_TILE_TEMPLATE", (1, 5, {"id": 2, "mode": "PAGE"}), ILLEGAL_COMMAND),
        ("DELETE_TILE_TEMPLATE", (1, 5, 2), ILLEGAL_COMMAND),
        ("DELETE_TILE_TEMPLATE", (1, 5), ILLEGAL_COMMAND),
        ("DELETE_DEVICE", (1, 9), ILLEGAL_COMMAND),
        ("DELETE_DEVICE", (1,), ILLEGAL_COMMAND),
        ("UPDATE_DEVICE", (1, GOOD["device"]), ILLEGAL_COMMAND_BODY),
        ("MOBILE_GET_DEVICE", (1, 9), ILLEGAL_COMMAND_BODY),
        ("MOBILE_GET_DEVICE", (1,), ILLEGAL_COMMAND),
        ("REFRESH_TOKEN", (1, 9), ILLEGAL_COMMAND_BODY),
        ("REFRESH_TOKEN", (1, ""), ILLEGAL_COMMAND),
        ("CREATE_DEVICE", (1, {**GOOD["device"], "id": 0}), NOT_ALLOWED),
        ("GET_PROVISION_TOKEN", (1, {**GOOD["device"], "id": 0}), NOT_ALLOWED),
        ("UPDATE_TAG", (1, {"id": 100009, "name": "x"}), ILLEGAL_COMMAND),
        ("DELETE_TAG", (1, 100009), ILLEGAL_COMMAND),
        ("CREATE_TAG", (1, {"id": 100000, "name": "y"}), ILLEGAL_COMMAND),
        ("CREATE_TAG", (1, {"id": 100009, "name": "t"}), ILLEGAL_COMMAND),
        ("CREATE_TAG", (1, {"id": 99999, "name": "y"}), ILLEGAL_COMMAND),
        ("UPDATE_DASH", ({"id": 9},), ILLEGAL_COMMAND),
        ("UPDATE_DASH", (b"null",), ILLEGAL_COMMAND),
        ("UPDATE_DASH", (b'{"id":1,"widgets":null}',), ILLEGAL_COMMAND_BODY),
        ("CREATE_DASH", ({"id": 1},), NOT_ALLOWED),
        ("CREATE_DASH", (b"no_token",), ILLEGAL_COMMAND),
        ("CREATE_DASH", (b"no_token\0{",), ILLEGAL_COMMAND_BODY),
        ("CREATE_DASH", (b"null",), ILLEGAL_COMMAND_BODY),
        ("DELETE_APP", ("blynkabcdefgh",), NOT_ALLOWED),
        ("UPDATE_APP", ({**GOOD["face"], "id": "blynkabcdefgh"},), NOT_ALLOWED),
        ("UPDATE_FACE", (1,), NOT_ALLOWED),
        ("EMAIL", (1, 9), ILLEGAL_COMMAND_BODY),
        ("EMAIL", ("template", 1, 5, 9), ILLEGAL_COMMAND),
        ("EMAIL", ("template", 1, 5), ILLEGAL_COMMAND),
        ("EMAIL_QR", (1, "x"), ILLEGAL_COMMAND_BODY),
        ("CREATE_REPORT", (1, {**GOOD["report"], "id": 1}), ILLEGAL_COMMAND),
        ("UPDATE_REPORT", (1, GOOD["report"]), ILLEGAL_COMMAND),
        ("DELETE_REPORT", (1, 9), ILLEGAL_COMMAND),
        ("EXPORT_REPORT", (1, 9), ILLEGAL_COMMAND),
        ("GET_ENHANCED_GRAPH_DATA", (1, 1, "DAY"), ILLEGAL_COMMAND),  # not a graph
        # writes
        ("HARDWARE", ("1-0",), ILLEGAL_COMMAND),
        ("HARDWARE", ("1-0", "v"), ILLEGAL_COMMAND),
        ("HARDWARE", ("1-0", "vw", 5), ILLEGAL_COMMAND_BODY),
        ("HARDWARE", ("1-0", "vw", -1, 1), ILLEGAL_COMMAND),
        ("HARDWARE", ("1-0", "vw", "", 1), ILLEGAL_COMMAND),
        ("HARDWARE", ("1", "vu", 1), ILLEGAL_COMMAND),
        ("HARDWARE", ("1", "vu", 99, 0), ILLEGAL_COMMAND),
        ("HARDWARE", ("1", "vu", 200000, "x"), ILLEGAL_COMMAND),
        ("HARDWARE", ("1", "vu", 1, 0), SILENCE),  # not a selector
        ("HARDWARE", ("1-9", "vw", 5, 1), SILENCE),
        ("HARDWARE", ("1-100009", "vw", 5, 1), SILENCE),
        ("HARDWARE", ("1-200009", "vw", 5, 1), SILENCE),
        ("HARDWARE_RESEND_FROM_BLUETOOTH", (1,), ILLEGAL_COMMAND),
        ("HARDWARE_RESEND_FROM_BLUETOOTH", ("1", "vw", 5, 1), ILLEGAL_COMMAND),
        ("HARDWARE_RESEND_FROM_BLUETOOTH", ("1-0", "vw", 256, 1), ILLEGAL_COMMAND),
        ("HARDWARE_RESEND_FROM_BLUETOOTH", ("1-0", "vw", 5, ""), ILLEGAL_COMMAND),
        ("HARDWARE_RESEND_FROM_BLUETOOTH", ("1-9", "vw", 5, 1), ILLEGAL_COMMAND),
        ("HARDWARE_RESEND_FROM_BLUETOOTH", ("1-0", "vr", 5, 1), SILENCE),
        # parts that are missing
        ("SHARING", (1,), ILLEGAL_COMMAND),
        ("APP_SYNC", ("1-",), ILLEGAL_COMMAND),
        ("APP_SYNC", ("1-x",), ILLEGAL_COMMAND),
        ("UPDATE_PROJECT_SETTINGS", (1,), ILLEGAL_COMMAND),
        ("UPDATE_PROJECT_SETTINGS", (1, ""), ILLEGAL_COMMAND),
        ("ADD_PUSH_TOKEN", (1, "uid"), ILLEGAL_COMMAND),
        ("ASSIGN_TOKEN", (1,), ILLEGAL_COMMAND),
        ("GET_PROVISION_TOKEN", (1,), ILLEGAL_COMMAND),
        ("DELETE_DEVICE_DATA", (1,), ILLEGAL_COMMAND),
        ("LOAD_PROFILE_GZIPPED", ("x" * 32, 1), ILLEGAL_COMMAND),
        ("LOAD_PROFILE_GZIPPED", ("x" * 32, 1, "a@example.com"), SILENCE),  # published: needs the database
        # what needs a database
        ("ASSIGN_TOKEN", (1, "x" * 32), NOT_ALLOWED),
        ("GET_PROJECT_BY_TOKEN", ("x" * 32,), NOT_ALLOWED),
        ("REDEEM", ("code",), NOT_ALLOWED),
        ("EMAIL", (1,), NOTIFICATION_ERROR),  # mail is not set up
        ("EMAIL", ("template", 1, 5, 1), NOTIFICATION_ERROR),
        # energy
        ("ADD_ENERGY", ("x", "id"), ILLEGAL_COMMAND),
        ("ADD_ENERGY", ("5",), NOT_ALLOWED),
        ("ADD_ENERGY", ("5", ""), NOT_ALLOWED),
        ("ADD_ENERGY", ("5", "com.blynk.energy.x"), NOT_ALLOWED),
        ("ADD_ENERGY", ("5", "1234567890123456789.1234567890123456"), NOT_ALLOWED),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(rich, command, fields, code):
    if code is SILENCE:
        rich.command(command, *fields)
    else:
        assert rich.ask(command, *fields) == code


def deep(levels):
    return {"a": deep(levels - 1)} if levels else 1


BROKEN = {
    "not closed": b'{"id":9,',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a word": b"what",
    "an open list, many times": b"[" * 900,
    "an open object, many times": b'{"a":' * 150,
    "too deep": json.dumps({"id": 9, "x": deep(60)}).encode(),
    "an id that is a text": b'{"id":"nine"}',
    "an id that is a list": b'{"id":[9]}',
    "an id out of range": b'{"id":99999999999999999999}',
    "an id that is infinite": b'{"id":1e999}',
    "not a number": b'{"id":NaN}',
    "a name that is an object": b'{"id":9,"name":{}}',
    "half a name": b'{"id":9,"name":"',
    "no utf-8": b'\xff\xfe{"id":9}',
}
CARRIERS = [
    ("CREATE_DASH", ()),
    ("UPDATE_DASH", ()),
    ("UPDATE_PROJECT_SETTINGS", (1,)),
    ("CREATE_WIDGET", (1,)),
    ("UPDATE_WIDGET", (1,)),
    ("CREATE_WIDGET", (1, 5, 1)),
    ("CREATE_DEVICE", (1,)),
    ("UPDATE_DEVICE", (1,)),
    ("GET_PROVISION_TOKEN", (1,)),
    ("CREATE_TAG", (1,)),
    ("UPDATE_TAG", (1,)),
    ("CREATE_TILE_TEMPLATE", (1, 5)),
    ("UPDATE_TILE_TEMPLATE", (1, 5)),
    ("CREATE_APP", ()),
    ("UPDATE_APP", ()),
    ("CREATE_REPORT", (1,)),
    ("UPDATE_REPORT", (1,)),
]
# Where a wrong document is no wrong document: settings have no id, an app's id is a text; and widgets have no name.
TAKEN = {
    ("UPDATE_PROJECT_SETTINGS", "an id"),
    ("CREATE_APP", "an id that is a text"),
    ("UPDATE_APP", "an id that is a text"),
}


@pytest.mark.parametrize("command, before", CARRIERS, ids=lambda v: v if isinstance(v, str) else "")
def test_documents_that_are_none_are_refused_and_change_nothing(rich, command, before):
    for name, body in BROKEN.items():
        if command == "UPDATE_PROJECT_SETTINGS" and name.startswith("an id"):
            continue  # settings have none
        if "WIDGET" in command and name == "a name that is an object":
            continue  # nor have widgets a name
        code = rich.ask(command, *before, body)
        expected = {ILLEGAL_COMMAND_BODY}
        if command.endswith("_APP") and name.startswith("an id") and "list" not in name:
            expected = {ILLEGAL_COMMAND_BODY, NOT_ALLOWED}  # its id may be a text; then the rest is missing
        if command == "UPDATE_DASH" and name == "null":
            expected = {ILLEGAL_COMMAND}
        assert code in expected, name


WRONG_WIDGETS = [
    {"pin": 40000},
    {"pin": "four"},
    {"pinType": "OTHER"},
    {"pinType": ""},
    {"pinType": 3},
    {"type": "TABLE", "rows": [1]},
    {"type": "TABLE", "rows": {"id": 1}},
    {"type": "RGB", "pins": [[]]},
    {"type": "TABS", "tabs": "x"},
    {"type": "EVENTOR", "rules": [{"condition": {"type": "MAYBE"}}]},
    {"type": "EVENTOR", "rules": [{"condition": {}}]},
    {"type": "EVENTOR", "rules": [{"actions": [{"type": "DANCE"}]}]},
    {"type": "REPORT", "reportSources": [{"deviceIds": [0]}]},
    {"type": "REPORT", "reports": [{"reportType": {"type": "YEARLY"}}]},
    {"type": "DEVICE_TILES", "templates": [{"id": "x"}]},
    {"type": "DEVICE_TILES", "templates": [{"widgets": [{"pin": "x"}]}]},
    {"type": "ENHANCED_GRAPH", "dataStreams": [{"functionType": "MOST"}]},
    {"type": "ENHANCED_GRAPH", "selectedPeriods": ["NEVER"]},
    {"type": "WEBHOOK", "method": "PATCH"},
    {"type": "NOTIFICATION", "androidTokens": ["x"]},
    {"type": "NOTIFICATION", "priority": "urgent"},
    {"isDefaultColor": "perhaps"},
    {"min": "low"},
    {"label": ["x"]},
]


@pytest.mark.parametrize("wrong", WRONG_WIDGETS, ids=lambda w: json.dumps(w)[:60])
def test_a_field_of_the_wrong_type_spoils_the_whole_document(rich, wrong):
    document = {**GOOD["widget"], **wrong}
    assert rich.ask("CREATE_WIDGET", 1, document) == ILLEGAL_COMMAND_BODY
    assert rich.ask("CREATE_DASH", {"id": 9, "widgets": [document]}) == ILLEGAL_COMMAND_BODY
    assert rich.ask("UPDATE_DASH", {"id": 1, "widgets": [document]}) == ILLEGAL_COMMAND_BODY


@pytest.mark.parametrize(
    "sent, kept",
    [
        ({"pin": "4", "pinType": 1}, {"pin": 4, "pinType": "VIRTUAL"}),
        ({"width": 1.9, "height": "2", "x": "", "y": None}, {"width": 1, "height": 2, "x": 0, "y": 0}),
        ({"isDefaultColor": "TRUE", "pwmMode": 1, "rangeMappingOn": ""}, {"isDefaultColor": True, "pwmMode": True}),
        ({"label": 7, "min": "1.5", "max": 3}, {"label": "7", "min": 1.5, "max": 3.0}),
        ({"value": True, "pinType": None}, {"value": "true"}),
        ({"label": "half \ud83d"}, {"label": "half ?"}),
        ({"label": "whole \U0001f600"}, {"label": "whole \U0001f600"}),
        ({"templates": 7, "reports": [1, 2], "pins": "x", "tiles": {}, "rows": 5}, {"templates": 7, "reports": [1, 2]}),
    ],
    ids=str,
)
def test_a_document_is_brought_to_its_own_types(user, sent, kept):
    user.make_project(1)
    body = json.dumps({**GOOD["widget"], **sent}).encode()
    assert user.ask("CREATE_WIDGET", b"1", body) == OK
    shown = user.widget(1, 90)
    assert {key: shown[key] for key in kept} == kept
    assert user.ask("DELETE_WIDGET", 1, 90) == OK


def test_fields_the_server_does_not_know_come_back_also_from_an_update(user):
    user.make_project(1, devices=1, tags=[{"id": 100000, "name": "t"}], future={"a": [1]})
    assert (
        user.ask("UPDATE_DASH", {"id": 1, "future": {"b": 2}, "sharedToken": "x" * 32, "pinsStorage": {"x": 1}}) == OK
    )
    assert user.ask("UPDATE_PROJECT_SETTINGS", 1, {"name": "n", "later": 3, "widgets": 7, "devices": "x"}) == OK
    assert user.ask("UPDATE_DEVICE", 1, {"id": 0, "boardType": "ESP8266", "shelf": 4, "token": "mine"}) == OK
    assert user.ask("UPDATE_TAG", 1, {"id": 100000, "name": "u", "colour": "red"}) == OK
    project = user.project(1)
    assert project["future"] == {"b": 2} and project["later"] == 3
    assert project["devices"][0]["shelf"] == 4 and len(project["devices"][0]["token"]) == 32
    assert project["tags"] == [{"id": 100000, "name": "u", "colour": "red"}]
    assert "sharedToken" not in project and "pinsStorage" not in project and "widgets" not in project


# ---------------------------------------------------------------------------------------------------------------
# Limits: what just fits, and one more
# ---------------------------------------------------------------------------------------------------------------


def padded(document, size):
    """The document as JSON of exactly so many characters, with one of two bytes among them."""
    text = json.dumps({**document, "pad": "ä"}, ensure_ascii=False)
    return json.dumps({**document, "pad": "ä" + "x" * (size - len(text))}, ensure_ascii=False).encode()


def test_projects_and_their_size(app):
    fits, over = padded({"id": 1, "name": "n"}, 4096), padded({"id": 1}, 4097)
    assert app.ask("CREATE_DASH", over) == NOT_ALLOWED
    assert app.ask("CREATE_DASH", fits) == OK
    assert app.ask("UPDATE_DASH", over) == NOT_ALLOWED
    assert app.ask("UPDATE_DASH", fits) == OK
    app.make_project(2)
    assert app.ask("CREATE_DASH", {"id": 3}) == QUOTA_LIMIT
    assert app.ask("CREATE_DASH", {"id": 1}) == QUOTA_LIMIT  # the count is looked at first
    code = app.ask("GET_CLONE_CODE", 2).decode()
    assert app.ask("GET_PROJECT_BY_CLONE_CODE", code, "new") == QUOTA_LIMIT
    assert sorted(p["id"] for p in app.profile()["dashBoards"]) == [1, 2]


@pytest.mark.parametrize(
    "command, before, document, too_much",
    [
        ("CREATE_WIDGET", (1,), {"id": 90, "type": "TEXT", "width": 1, "height": 1}, NOT_ALLOWED),
        ("CREATE_WIDGET", (1, 5, 1), {"id": 91, "type": "TEXT", "width": 1, "height": 1}, NOT_ALLOWED),
        ("UPDATE_WIDGET", (1,), {"id": 1, "type": "TEXT", "width": 1, "height": 1}, NOT_ALLOWED),
        ("UPDATE_PROJECT_SETTINGS", (1,), {"name": "x"}, NOT_ALLOWED),
        ("CREATE_TILE_TEMPLATE", (1, 5), {"id": 2, "mode": "PAGE"}, NOT_ALLOWED),
        ("UPDATE_TILE_TEMPLATE", (1, 5), {"id": 1, "mode": "PAGE"}, NOT_ALLOWED),
        ("CREATE_APP", (), GOOD["face"], NOT_ALLOWED),
    ],
    ids=str,
)
def test_documents_of_the_widgets_size(app, command, before, document, too_much):
    template = {"id": 1, "mode": "PAGE"}
    app.make_project(1, widgets=[widget("TEXT", 1), widget("DEVICE_TILES", 5, templates=[template])])
    untouched = app.project(1)
    assert app.ask(command, *before, padded(document, 1025)) == too_much
    assert app.project(1) == untouched
    answer = app.ask(command, *before, padded(document, 1024))
    assert answer == OK or isinstance(answer, bytes)


def test_devices_of_a_project(app):
    app.make_project(1, devices=2)
    for id, fits in ((2, True), (3, False), (0, False)):
        answer = app.ask("CREATE_DEVICE", 1, {**GOOD["device"], "id": id})
        assert isinstance(answer, bytes) if fits else answer == NOT_ALLOWED, id
    assert app.ask("DELETE_DEVICE", 1, 2) == OK
    assert app.ask("CREATE_DEVICE", 1, {**GOOD["device"], "id": 0}) == NOT_ALLOWED
    assert len(app.json("GET_DEVICES", 1)) == 2


@pytest.mark.parametrize("command", ["CREATE_DEVICE", "UPDATE_DEVICE", "GET_PROVISION_TOKEN"])
def test_a_device_needs_a_board_and_a_name_of_at_most_fifty(app, command):
    app.make_project(1, devices=1)
    id = 0 if command == "UPDATE_DEVICE" else 9
    for wrong in ({"name": "x" * 51, "boardType": "ESP8266"}, {"name": "x"}, {"name": "x", "boardType": None}, {}):
        assert app.ask(command, 1, {"id": id, **wrong}) == ILLEGAL_COMMAND, wrong
    for right in ({"name": "ä" * 50, "boardType": "ESP8266"}, {"boardType": "Unheard of"}):
        answer = app.ask(command, 1, {"id": id, **right})
        assert answer == OK or isinstance(answer, bytes), right
        id += command != "UPDATE_DEVICE"


def test_tags_names_ids_and_devices(app):
    app.make_project(1)
    ids = list(range(25))
    assert app.json("CREATE_TAG", 1, {"id": 100000, "name": "ä" * 40, "deviceIds": ids})["deviceIds"] == ids
    for wrong in (
        {"id": 100001, "name": "x" * 41},
        {"id": 100001, "name": ""},
        {"id": 100001},
        {"id": 99999, "name": "x"},
        {"id": 100001, "name": "x", "deviceIds": list(range(26))},
    ):
        assert app.ask("CREATE_TAG", 1, wrong) == ILLEGAL_COMMAND, wrong
        assert app.ask("UPDATE_TAG", 1, {**wrong, "id": min(wrong["id"], 100000)}) == ILLEGAL_COMMAND, wrong
    assert [t["id"] for t in app.json("GET_TAGS", 1)] == [100000]


def test_exported_apps_twenty_six_of_an_account(app):
    for _ in range(26):
        assert app.json("CREATE_APP", GOOD["face"])["id"].startswith("blynk")
    assert app.ask("CREATE_APP", GOOD["face"]) == NOT_ALLOWED
    assert len(app.profile()["apps"]) == 26


def test_reports_of_a_project(app):
    with_energy(app, 10000).make_project(1, widgets=[widget("REPORT", 1)])
    for id in (1, 2):
        assert app.json("CREATE_REPORT", 1, {**GOOD["report"], "id": id})["id"] == id
    assert app.ask("CREATE_REPORT", 1, {**GOOD["report"], "id": 3}) == ILLEGAL_COMMAND


def test_registrations_of_an_hour(make_server):
    server = make_server(limits_registrations_per_hour=2)
    codes = []
    for n in range(5):
        with server.unknown() as app:
            email = new_email() if n != 1 else "no address"
            codes.append(app.ask("REGISTER", email, "hash", "Blynk"))
    assert codes == [
        OK,
        ILLEGAL_COMMAND,
        OK,
        NOT_ALLOWED,
        NOT_ALLOWED,
    ]  # failed ones count, and one more than the limit


def test_only_the_named_may_register_where_names_are_given(make_server):
    server = make_server(limits_allowed_users=["ann@example.org"])
    assert server.unknown().register("bob@example.org") == NOT_ALLOWED
    assert server.unknown().register("ANN@example.org") == OK


# ---------------------------------------------------------------------------------------------------------------
# Energy
# ---------------------------------------------------------------------------------------------------------------


def energy(app):
    return int(app.ask("GET_ENERGY"))


def with_energy(app, amount):
    """The app again, with exactly that much."""
    assert app.ask("ADD_ENERGY", amount - energy(app), "homeScreen") == OK
    return app


def test_every_price_is_asked_at_the_limit_and_one_below(app):
    steps = [
        ("CREATE_DASH", ({"id": 1, "widgets": [widget("GAUGE", 1), widget("TABLE", 2)]},), 1100),
        ("CREATE_WIDGET", (1, widget("REPORT", 3)), 0),
        ("CREATE_WIDGET", (1, widget("DEVICE_TILES", 5, templates=[{"id": 1, "widgets": [widget("LED", 6)]}])), 1800),
        ("CREATE_WIDGET", (1, 5, 1, widget("MENU", 7)), 400),
        ("CREATE_REPORT", (1, GOOD["report"]), 2900),
        ("GET_SHARE_TOKEN", (1,), 1000),
    ]
    for command, fields, price in steps:
        if price:
            with_energy(app, price - 1)
            before = app.profile()
            assert app.ask(command, *fields) == ENERGY_LIMIT, command
            assert app.profile() == before and energy(app) == price - 1
            with_energy(app, price)
        was = energy(app)
        answer = app.ask(command, *fields)
        assert answer == OK or isinstance(answer, bytes), command
        assert energy(app) == was - price, command
    code = app.ask("GET_CLONE_CODE", 1).decode()
    with_energy(app, 3299)
    assert app.ask("GET_PROJECT_BY_CLONE_CODE", code, "new") == ENERGY_LIMIT
    with_energy(app, 3300)  # without the report, which a clone has not
    assert unpack(app.ask("GET_PROJECT_BY_CLONE_CODE", code, "new"))["id"] == 2
    assert energy(app) == 0
    assert app.ask("DELETE_DASH", 2) == OK and energy(app) == 3300
    assert app.ask("DELETE_WIDGET", 1, 3) == OK and energy(app) == 3300 + 2900
    assert app.ask("DELETE_TILE_TEMPLATE", 1, 5, 1) == OK and energy(app) == 6200 + 500
    assert app.ask("DELETE_DASH", 1) == OK and energy(app) == 6700 + 1100 + 1700


def test_updates_and_child_projects_are_free(app):
    with_energy(app, 0)
    app.make_project(1)
    assert app.ask("UPDATE_DASH", {"id": 1, "widgets": [widget("TABLE", 1)]}) == OK
    assert app.ask("CREATE_DASH", {"id": 2, "parentId": 1, "widgets": [widget("TABLE", 1)]}) == OK
    assert energy(app) == 0
    assert app.ask("DELETE_DASH", 2) == OK and energy(app) == 0
    assert app.ask("DELETE_DASH", 1) == OK and energy(app) == 800


def test_energy_stays_a_number_of_32_bits(app):
    with_energy(app, 0)
    app.make_project(1)
    assert app.ask("ADD_ENERGY", "2147483647", "id") == OK
    assert app.ask("ADD_ENERGY", "2147483647", "id") == OK
    assert energy(app) == 2147483647
    assert app.ask("UPDATE_DASH", {"id": 1, "widgets": [widget("TABLE", 1)]}) == OK
    assert app.ask("DELETE_WIDGET", 1, 1) == OK
    assert energy(app) == 2147483647
    for amount in ("-2147483648", "-1"):
        assert app.ask("ADD_ENERGY", amount, "id") == OK
    assert energy(app) == -2
    assert app.ask("ADD_ENERGY", "2147483648", "id") == ILLEGAL_COMMAND


def test_other_apps_are_charged_but_never_refused(small):
    with small.app(app="blynkother") as app:
        assert energy(app) == 6000
        widgets = [widget("DEVICE_SELECTOR", 200000 + n) for n in range(4)]
        assert app.ask("CREATE_DASH", {"id": 1, "widgets": widgets}) == OK
        assert energy(app) == 6000 - 4 * 1900
        assert app.ask("CREATE_WIDGET", 1, widget("LED", 1)) == OK
        assert energy(app) == 6000 - 4 * 1900 - 100


def test_unlimited_energy_is_neither_taken_nor_given(user):
    """The default of a fresh blynk.toml: GET_ENERGY answers at least 100000."""
    assert energy(user) == 100000
    widgets = [widget("DEVICE_TILES", n) for n in range(70)]
    assert user.ask("CREATE_DASH", {"id": 1, "widgets": widgets}) == OK
    assert user.ask("CREATE_WIDGET", 1, widget("TABLE", 900)) == OK
    assert isinstance(user.ask("GET_SHARE_TOKEN", 1), bytes)
    assert energy(user) == 100000
    assert user.ask("DELETE_DASH", 1) == OK
    assert energy(user) == 100000
    assert user.ask("ADD_ENERGY", "-50000", "id") == OK
    assert energy(user) == 100000
    assert user.ask("ADD_ENERGY", "60000", "id") == OK
    assert energy(user) == 110000
    assert user.ask("ADD_ENERGY", "-10000", "id") == OK


# ---------------------------------------------------------------------------------------------------------------
# Devices, tokens, provisioning
# ---------------------------------------------------------------------------------------------------------------


def test_a_device_comes_back_as_the_java_server_writes_it(user):
    user.make_project(1, devices=[])
    document = {"id": 1, "name": "My Device", "boardType": "ESP8266", "address": "AA", "vendor": "v", "iconName": "i"}
    sent = {**document, "connectionType": "BLE", "token": "x" * 32, "connectTime": 5, "hardwareInfo": {"version": "1"}}
    answer = user.ask("CREATE_DEVICE", 1, {**sent, "shelf": 3}).decode()
    token = json.loads(answer)["token"]
    assert answer == (
        '{"id":1,"name":"My Device","boardType":"ESP8266","address":"AA","token":"' + token + '","vendor":"v",'
        '"connectionType":"BLE","status":"OFFLINE","disconnectTime":0,"connectTime":0,"firstConnectTime":0,'
        '"dataReceivedAt":0,"iconName":"i","isUserIcon":false,"shelf":3}'
    )
    assert user.ask("MOBILE_GET_DEVICE", 1, 1).decode() == answer
    assert (
        list(user.json("GET_DEVICES", 1)[0])
        == (
            "id name boardType token vendor connectionType status disconnectTime connectTime dataReceivedAt iconName isUserIcon"
        ).split()
    )
    answer = user.ask("GET_PROVISION_TOKEN", 1, {"id": 2, "name": "Fühler", "boardType": "ESP8266"}).decode()
    token = json.loads(answer)["token"]
    assert answer == (
        '{"id":2,"name":"F?hler","boardType":"ESP8266","token":"' + token + '","status":"OFFLINE","disconnectTime":0,'
        '"connectTime":0,"firstConnectTime":0,"dataReceivedAt":0,"isUserIcon":false}'
    )


def test_a_client_cannot_take_somebody_elses_token_away(user, wide):
    user.make_project(1, devices=1)
    token = user.token(1, 0)
    with wide.app() as thief:
        device = {"id": 0, "name": "x", "boardType": "ESP8266", "token": token}
        thief.make_project(1, devices=[device])
        thief.json("CREATE_DEVICE", 1, {**device, "id": 1})
        thief.json("GET_PROVISION_TOKEN", 1, {**device, "id": 2})
        thief.make_project(2, devices=[])
        assert thief.ask("UPDATE_DASH", {"id": 2, "devices": [device]}) == OK
        assert token not in json.dumps(thief.profile())
    with wide.hardware(token) as board:
        user.expect("1-0", "HARDWARE_CONNECTED")
        board.send("vw 1 1")
        user.expect("1-0 vw 1 1")
    user.expect("1-0", "DEVICE_OFFLINE")


def test_a_refreshed_token_ends_the_boards_that_use_the_old_one(user, wide):
    user.make_project(1, devices=2)
    old, other = user.token(1, 0), user.token(1, 1)
    boards, bystander = [wide.hardware(old), wide.hardware(old)], wide.hardware(other)
    user.drain()
    new = user.ask("REFRESH_TOKEN", 1).decode()
    assert len(new) == 32 and new != old
    for board in boards:
        board.closed()
    bystander.ping()
    assert [f.text for f in user.drain() if f.command == "DEVICE_OFFLINE"] == ["1-0"]
    assert wide.hardware().login(old) == INVALID_TOKEN
    assert user.token(1, 0) == new
    with wide.hardware(new):
        user.expect("1-0", "HARDWARE_CONNECTED")
    user.expect("1-0", "DEVICE_OFFLINE")
    bystander.close()
    user.expect("1-1", "DEVICE_OFFLINE")


def test_an_announced_device_joins_with_its_first_login(user, wide):
    user.make_project(1, devices=1)
    announced = user.json("GET_PROVISION_TOKEN", 1, {"id": 5, "name": "Shed", "boardType": "ESP8266"})
    assert [d["id"] for d in user.json("GET_DEVICES", 1)] == [0]
    assert user.ask("MOBILE_GET_DEVICE", 1, 5) == ILLEGAL_COMMAND_BODY
    second = user.json("GET_PROVISION_TOKEN", 1, {"id": 5, "name": "Barn", "boardType": "ESP8266"})
    with wide.hardware(announced["token"]) as board:
        user.expect("1-5", "HARDWARE_CONNECTED")
        board.send("vw 1 1")
        user.expect("1-5 vw 1 1")
        shown = user.device(1, 5)
        assert (shown["name"], shown["token"], shown["status"]) == ("Shed", announced["token"], "ONLINE")
        assert wide.hardware().login(second["token"]) == INVALID_TOKEN  # that id is taken meanwhile
        assert user.ask("GET_PROVISION_TOKEN", 1, {"id": 5, "name": "x", "boardType": "ESP8266"}) == NOT_ALLOWED
    user.expect("1-5", "DEVICE_OFFLINE")
    with wide.hardware(announced["token"]):
        user.expect("1-5", "HARDWARE_CONNECTED")
    user.expect("1-5", "DEVICE_OFFLINE")
    third = user.json("GET_PROVISION_TOKEN", 1, {"id": 6, "name": "x", "boardType": "ESP8266"})
    assert user.ask("DELETE_DASH", 1) == OK
    assert wide.hardware().login(third["token"]) == INVALID_TOKEN


def test_an_announcement_is_good_for_seven_days():
    import blynk_pi

    class Clock:
        now = 1_700_000_000.0

        def __call__(self):
            return self.now

    clock = Clock()
    path = tempfile.mkdtemp(prefix="bp-")
    settings = blynk_pi.Settings()
    settings.data_folder = path
    loop = blynk_pi.Loop(monotonic=clock, wall=clock)
    server = blynk_pi.Server(settings, loop)
    loop.run_once(0)
    account = server.new_account("ann@example.org", "Blynk", "hash")
    project = server.add_project(account, blynk_pi.read_document("PROJECT", '{"id":1}'))
    document = blynk_pi.read_document("DEVICE", '{"id":1,"boardType":"ESP8266"}')
    try:
        tokens = [server.provide(project, dict(document, id=n)) for n in (1, 2, 3)]
        clock.now += 7 * 86400 - 1
        loop.run_once(0)
        assert server.device_of_token(tokens[0]).id == 1
        clock.now += 2
        loop.run_once(0)
        assert server.device_of_token(tokens[1]) is None
        assert list(project.devices) == [1]
        server.provide(project, dict(document, id=4))
        assert len(server.provisional) == 1  # the one that expired is gone
    finally:
        server.abandon()
        shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------
# Exported apps and faces
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def face(user):
    """(app, id of an exported app with project 10)"""
    user.make_project(
        10,
        devices=3,
        name="Face",
        sharedToken="x" * 32,
        widgets=[
            widget("SLIDER", 1, 1, value="5"),
            widget("TERMINAL", 2, 2, device=1),
            widget("EVENTOR", 3, device=2),
            widget("NOTIFICATION", 4, androidTokens={"u": "secret"}),
        ],
    )
    return user, user.json("CREATE_APP", {**GOOD["face"], "provisionType": "DYNAMIC", "projectIds": [10, 10]})["id"]


def test_who_registers_with_an_exported_app_gets_its_project(face, wide):
    user, id = face
    with wide.app(app=id) as guest:
        (project,) = guest.profile()["dashBoards"]
        assert (project["id"], project["name"], project["isActive"], project["parentId"]) == (1, "Face", True, -1)
        assert [d["id"] for d in project["devices"]] == [0, 1]  # an eventor does not hold a device
        assert all(len(d["token"]) == 32 for d in project["devices"])
        assert "secret" not in json.dumps(project) and "value" not in project["widgets"][0]
        assert wide.hardware().login(project["devices"][0]["token"]) == OK
        assert user.ask("DELETE_APP", id) == NOT_ALLOWED  # somebody uses it
    assert user.ask("UPDATE_APP", {**GOOD["face"], "id": id, "isMultiFace": True, "projectIds": [10]}) == OK
    with wide.app(app=id) as guest:
        assert guest.profile() == {}
    assert user.ask("UPDATE_APP", {**GOOD["face"], "id": id, "projectIds": [99]}) == OK
    with wide.app(app=id) as guest:
        assert guest.profile() == {}
    assert user.ask("UPDATE_APP", {**GOOD["face"], "id": id, "projectIds": [10]}) == OK
    with wide.app(app=id) as guest:  # STATIC: tokens are flashed elsewhere
        assert not any("token" in d for d in guest.profile()["dashBoards"][0]["devices"])
        assert guest.ask("ASSIGN_TOKEN", 1, "x" * 32) == NOT_ALLOWED


def test_a_deleted_app_takes_its_projects_along(user, wide):
    user.make_project(10, devices=1)
    user.make_project(11, devices=1)
    id = user.json("CREATE_APP", {**GOOD["face"], "projectIds": [10, 99, 10]})["id"]
    with wide.hardware(user.token(10, 0)) as board:
        user.expect("10-0", "HARDWARE_CONNECTED")
        assert user.ask("DELETE_APP", id) == OK
        board.closed()
    assert [f.text for f in user.drain()] == ["10-0"]
    assert [p["id"] for p in user.profile()["dashBoards"]] == [11]
    assert id not in [a["id"] for a in user.profile().get("apps", [])]


def test_an_apps_document_is_checked(user):
    for wrong, code in (
        ({"name": ""}, NOT_ALLOWED),
        ({"theme": None}, NOT_ALLOWED),
        ({"provisionType": None}, NOT_ALLOWED),
        ({"projectIds": None}, NOT_ALLOWED),
        ({"theme": "Dark"}, ILLEGAL_COMMAND_BODY),
        ({"projectIds": "x"}, ILLEGAL_COMMAND_BODY),
    ):
        assert user.ask("CREATE_APP", {**GOOD["face"], **wrong}) == code, wrong
    made = user.json("CREATE_APP", {**GOOD["face"], "id": "mine", "projectIds": []})
    assert made["id"].startswith("blynk") and len(made["id"]) == 13 and "projectIds" not in made
    assert user.ask("DELETE_APP", made["id"]) == OK


def test_a_face_gives_its_looks_to_its_children_and_they_keep_their_values(face, wide):
    user, _ = face
    parent = 10
    child_widgets = [
        widget("SLIDER", 1, 1, value="7"),
        {**widget("TIME_INPUT", 20, 20), "value": "60\000120\0UTC", "startAt": 60, "stopAt": 120, "tzName": "UTC"},
        widget("TABLE", 21, 21, value="pick\0000", rows=[{"id": 1, "name": "n", "value": "v", "isSelected": True}]),
        widget("SLIDER", 22, 22, value="other pin"),
    ]
    for child in (11, 12):
        user.make_project(child, parentId=parent, devices=2, widgets=child_widgets, active=False)
    assert user.ask("UPDATE_FACE", parent) == NOT_ALLOWED  # no app has one of the children
    id = user.json("CREATE_APP", {**GOOD["face"], "projectIds": [11]})["id"]
    other = wide.app(app=id)
    (theirs,) = other.profile()["dashBoards"]
    assert theirs["parentId"] == parent
    other.send("1-0 vw 1 9")
    other.expect_status(DEVICE_NOT_IN_NETWORK)
    for one in (widget("TIME_INPUT", 20, 20), widget("TABLE", 21, 21), widget("SLIDER", 22, 23)):
        user.add_widget(parent, one)
    settings = {"name": "New", "theme": "SparkFun", "keepScreenOn": True, "color": 7}
    assert user.ask("UPDATE_PROJECT_SETTINGS", parent, settings) == OK
    assert user.ask("UPDATE_FACE", parent) == OK
    other.closed()
    with wide.app(other.email, app=id) as again:
        (theirs,) = again.profile()["dashBoards"]
        assert theirs["name"] == "New" and theirs["widgets"][0]["value"] == "9"
    for child in (11, 12):
        project = user.project(child)
        assert {key: project[key] for key in settings} == settings
        shown = {w["id"]: w for w in project["widgets"]}
        assert sorted(shown) == [1, 2, 3, 4, 20, 21, 22]
        assert shown[1]["value"] == "7" and shown[20]["startAt"] == 60 and shown[21]["rows"][0]["name"] == "n"
        assert "value" not in shown[22] and "androidTokens" not in shown[4]
        assert len(project["devices"]) == 2 and not project["isActive"]
    assert user.ask("UPDATE_FACE", 11) == NOT_ALLOWED
    assert user.ask("UPDATE_FACE", 99) == ILLEGAL_COMMAND


# ---------------------------------------------------------------------------------------------------------------
# Clones
# ---------------------------------------------------------------------------------------------------------------

EVIL = [
    "../anna@example.com.Blynk.user",
    "../../../../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "x" * 31,
    "x" * 33,
    "../" * 10 + "xx",
    "%2e%2e%2f" * 3 + "xxxxx",
    "x" * 31 + "/",
    "x" * 31 + "\\",
    "x" * 31 + ".",
    "ä" * 32,
    "x" * 31 + "\n",
    "x" * 31 + "=",
    "x" * 32,
    ".tmp" * 8,
]


@pytest.mark.parametrize("code", EVIL)
def test_a_clone_code_is_never_a_path(user, wide, code):
    for name in ("x" * 31 + "=", "ä" * 32, ".tmp" * 8):  # even where such a file is
        with open(os.path.join(wide.data, "clone", name), "w") as file:
            file.write('{"id":1,"name":"stolen"}')
    assert user.ask("GET_PROJECT_BY_CLONE_CODE", code.encode()) == SERVER_ERROR
    assert user.ask("GET_PROJECT_BY_CLONE_CODE", code.encode() + b"\0new") in (SERVER_ERROR, ILLEGAL_COMMAND)
    assert "dashBoards" not in user.profile()


def test_a_clone_starts_with_nothing_of_its_origin(user, wide):
    user.make_project(
        7,
        devices=2,
        isShared=True,
        isPreview=True,
        parentId=3,
        tags=[{"id": 100000, "name": "t", "deviceIds": [0]}],
        widgets=[widget("SLIDER", 1, 1, value="5"), widget("DEVICE_TILES", 5)],
    )
    template = {"id": 1, "mode": "PAGE", "deviceIds": [0], "pin": {"pin": 3, "pinType": "VIRTUAL"}}
    assert user.ask("CREATE_TILE_TEMPLATE", 7, 5, template) == OK
    share = user.ask("GET_SHARE_TOKEN", 7).decode()
    user.ask("HARDWARE", "7-0 vw 9 stored")
    code = user.ask("GET_CLONE_CODE", 7).decode()
    with wide.app() as friend:
        shown = zlib.decompress(friend.ask("GET_PROJECT_BY_CLONE_CODE", code)).decode()
        assert share not in shown and not any(user.token(7, d) in shown for d in (0, 1)) and "stored" not in shown
        made = unpack(friend.ask("GET_PROJECT_BY_CLONE_CODE", code, "new"))
        assert made == friend.project(1)
        assert (made["id"], made["isShared"], made["isPreview"], made["parentId"]) == (1, False, False, -1)
        tokens = [d["token"] for d in made["devices"]]
        assert len({*tokens, user.token(7, 0), user.token(7, 1)}) == 4
        assert made["tags"] == [{"id": 100000, "name": "t", "deviceIds": [0]}]
        assert "pinsStorage" not in friend.profile()
        with wide.hardware(tokens[1]):
            friend.expect("1-1", "HARDWARE_CONNECTED")
        friend.expect("1-1", "DEVICE_OFFLINE")
        assert friend.ask("DELETE_DASH", 1) == OK
        friend.make_project(2147483647)
        assert unpack(friend.ask("GET_PROJECT_BY_CLONE_CODE", code, "new"))["id"] == 1
        assert unpack(friend.ask("GET_PROJECT_BY_CLONE_CODE", code, "new"))["id"] == 2


@pytest.mark.parametrize(
    "text", [b"", b"no json", b"[]", b'{"id":1,"devices":7}', b"\xff\xfe", b'{"id":1,"widgets":[7]}']
)
def test_a_broken_clone_file_is_an_error_and_no_project_or_a_readable_one(user, wide, text):
    code = "Q" * 31 + "q"
    with open(os.path.join(wide.data, "clone", code), "wb") as file:
        file.write(text)
    answer = user.ask("GET_PROJECT_BY_CLONE_CODE", code, "new")
    assert answer == SERVER_ERROR or unpack(answer)["id"] == 1
    user.profile()


# ---------------------------------------------------------------------------------------------------------------
# Passwords without mail
# ---------------------------------------------------------------------------------------------------------------


def test_a_forgotten_password_without_mail_is_set_with_the_logged_code_or_with_passwd(wide):
    import subprocess

    with wide.app() as owner, wide.unknown() as app:
        assert app.ask("RESET_PASSWORD", "start", owner.email, "Blynk") == OK
        line = next(line for line in wide.log().splitlines() if owner.email in line and "reset the password" in line)
        code = line.split()[-1]
        assert app.ask("RESET_PASSWORD", "verify", code) == OK
        assert app.ask("RESET_PASSWORD", "reset", code, password_hash("second", owner.email)) == OK
        assert app.ask("RESET_PASSWORD", "reset", code, password_hash("third", owner.email)) == NOT_ALLOWED
        assert owner.ask("PING") == OK  # who is in stays in
        with wide.unknown() as again:
            assert again.login(owner.email, "pw") == USER_NOT_AUTHENTICATED
            assert again.login(owner.email, "second") == OK
        command = [wide.python, wide.program, "--data", wide.data, "--config", wide.config, "passwd", owner.email]
        done = subprocess.run(command, input="fourth\n", capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        with wide.unknown() as again:
            assert again.login(owner.email, "fourth") == OK
        assert "fourth" not in wide.log() and password_hash("second", owner.email) not in wide.log()


# ---------------------------------------------------------------------------------------------------------------
# Order, flow, quota
# ---------------------------------------------------------------------------------------------------------------


def pipelined(app, *commands):
    """Sends all in one write; the answers in their order."""
    frames = [app.pack(command, b"\0".join(str(f).encode() for f in fields), n) for n, (command, *fields) in commands]
    app.send_raw(b"".join(frames))
    return [app.next() for _ in commands]


def test_commands_behind_a_slow_one_run_once_and_in_order(user):
    """What waits for the disk or a password holds the commands behind it back; one that is done at once does not make
    them run twice."""
    user.make_project(1)
    face = user.json("CREATE_APP", GOOD["face"])["id"]
    commands = [
        ("GET_CLONE_CODE", 1),  # waits for the disk
        ("DELETE_APP", "nope"),
        ("CREATE_TAG", 1, '{"id":100000,"name":"one"}'),
        ("DELETE_APP", face),  # waits for nothing: its project 1 goes
        ("CREATE_DASH", '{"id":2}'),
        ("GET_CLONE_CODE", 2),
        ("CREATE_DASH", '{"id":3}'),
        ("PING",),
    ]
    answers = pipelined(user, *enumerate(commands, 1))
    assert [f.id for f in answers] == list(range(1, 9))
    assert [f.code if f.command == "RESPONSE" else f.command for f in answers] == [
        "GET_CLONE_CODE",
        NOT_ALLOWED,
        "CREATE_TAG",
        OK,
        OK,
        "GET_CLONE_CODE",
        OK,
        OK,
    ]
    user.silence()


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_commands_may_come_in_pieces_while_a_slow_one_is_worked_on(user, size):
    user.make_project(1)
    frames = [user.pack("GET_CLONE_CODE", b"1", n) + user.pack("PING", b"", 100 + n) for n in range(5)]
    data = b"".join(frames)
    for at in range(0, len(data), size):
        user.send_raw(data[at : at + size])
    assert [user.next().id for _ in range(10)] == [n for pair in zip(range(5), range(100, 105)) for n in pair]


def test_login_and_what_follows_in_one_write(wide):
    """Also for an account whose password the Java server stored, which is looked at on the spot."""
    with wide.app() as owner:
        for _ in range(2):
            with wide.unknown() as app:
                login = f"{owner.email}\0{password_hash('pw', owner.email)}\0Android\0002.27.0\0Blynk"
                commands = [("LOGIN", login), ("PING",), ("GET_ENERGY",), ("PING",)]
                assert [f.id for f in pipelined(app, *enumerate(commands, 1))] == [1, 2, 3, 4]
                app.silence()


def test_who_asks_and_does_not_read_waits_and_costs_no_memory(wide):
    asked = 24
    with wide.app() as app, wide.app_websocket(app.email) as tab, wide.app(app.email) as other:
        for project in (1, 2):
            app.make_project(project, widgets=[widget("TEXT", n, text=os.urandom(1200).hex()) for n in range(100)])
        size = len(app.ask("LOAD_PROFILE_GZIPPED"))
        before = wide.rss_kb()
        app.send_raw(b"".join(app.pack("LOAD_PROFILE_GZIPPED", b"", n) for n in range(asked)))
        for n in range(asked):
            tab.send_raw(tab.pack("LOAD_PROFILE_GZIPPED", b"", n))
        for _ in range(100):
            assert other.ask("PING") == OK
        assert wide.rss_kb() - before < asked * size / 1024 / 2
        for n in range(asked):
            assert take_whole(app.sock, 7) == app.pack("LOAD_PROFILE_GZIPPED", b"", n)[:3] + size.to_bytes(4, "big")
            take_whole(app.sock, size)
        for n in range(asked):
            assert tab.sock.recv()[:3] == tab.pack("LOAD_PROFILE_GZIPPED", b"", n)
        app.silence(tab)


def take_whole(sock, size):
    data = bytearray()
    while len(data) < size:
        data += sock.recv(size - len(data))
    return bytes(data)


def test_too_many_messages_are_dropped_and_it_is_said_once(make_server):
    server = make_server(limits_messages_per_s=20)
    with server.app() as app:
        app.send_raw(b"".join(app.pack("PING", b"", n) for n in range(1, 301)))
        for n in range(1, 301):  # the first second is not over
            assert app.next().id == n
        import time

        deadline = time.monotonic() + 5
        codes = []
        while QUOTA_LIMIT not in codes and time.monotonic() < deadline:
            app.command("PING", id=1000 + len(codes))
            app.receive(0.2)
            codes += [f.code for f in app.inbox]
            app.inbox.clear()
        assert codes.count(QUOTA_LIMIT) == 1
        app.command("CREATE_DASH", {"id": 1})
        for _ in range(3):
            app.command("PING")
        app.quiet()
    with server.app(app.email) as again:
        assert "dashBoards" not in again.profile()


@pytest.mark.parametrize("tab", [False, True])
def test_before_the_login_only_a_few_commands_are_heard(wide, tab):
    import blynk_pi

    allowed = {"REGISTER", "LOGIN", "RESET_PASSWORD", "SHARE_LOGIN", "GET_SERVER", "HARDWARE_LOGIN"}
    names = {n: c for n, c in vars(blynk_pi.Command).items() if isinstance(c, int) and n not in allowed}
    for name, number in names.items():
        app = wide_tab(wide) if tab else App(HOST, wide.https_port)
        app.send_raw(app.pack(number, b"1" if number else b"", 1) if number else b"\0\0\1\0\0\0\xc8")
        app.closed()
        app.close()
        assert name
    with wide_tab(wide) if tab else App(HOST, wide.https_port) as app:
        assert app.ask("GET_SERVER", "a@example.com", "Blynk") == HOST.encode()
        assert app.ask("GET_SERVER", "a@example.com") == ILLEGAL_COMMAND
        assert app.ask("GET_SERVER", "a@example.com", "x" * 101) == ILLEGAL_COMMAND
        assert app.ask("GET_SERVER", "nobody", "Blynk") == ILLEGAL_COMMAND_BODY
        assert app.ask("HARDWARE_LOGIN", "x" * 32) == ILLEGAL_COMMAND  # a token of one part
        email = new_email()
        assert app.register(email) == OK
        assert app.ask("REGISTER", new_email(), "hash", "Blynk") == NOT_ALLOWED
        app.closed()


def wide_tab(server):
    from clients import AppWebSocket

    return AppWebSocket(HOST, server.https_port)


@pytest.mark.parametrize(
    "version, outdated", [("1.1.1", True), ("1.1.0", False), ("2.27.0", False), ("RC13", False), ("1.1", False)]
)
def test_an_outdated_app_is_told_right_after_its_login(_user, wide, version, outdated):
    with wide.unknown() as app:
        id = app.command("LOGIN", _user.email, password_hash("pw", _user.email), "Android", version, "Blynk")
        assert (app.next().code, app.ended) == (OK, False)
        if outdated:
            frame = app.next()
            assert (frame.command, frame.id) == ("OUTDATED_APP_NOTIFICATION", id)
            assert frame.body.startswith(b"Your app is outdated. Please update to the latest app version.")
        app.silence()


@pytest.mark.parametrize(
    "parts, code",
    [
        (("{email}",), ILLEGAL_COMMAND),
        (("{email}", "{hash}"), OK),
        (("{email}", "{hash}", "Android"), OK),
        (("{email}", "{hash}", "Android", "2.27.0"), OK),
        (("{email}", "{hash}", "Android", "2.27.0", "Blynk"), OK),
        (("{email}", "{hash}", "Android", "2.27.0", "other"), 3),
        (("{email}", "{hash}", "Android", "2.27.0", "other", "more"), OK),
        (("{email}", "{hash}", "Android", "2.27.0", "facebook"), NOT_ALLOWED),
        ((" {email}", "{hash}"), 3),
        (("{email}", "wrong"), USER_NOT_AUTHENTICATED),
    ],
)
def test_the_forms_of_a_login(_user, wide, parts, code):
    with wide.unknown() as app:
        values = {"email": _user.email, "hash": password_hash("pw", _user.email)}
        assert app.ask("LOGIN", *(part.format(**values) for part in parts)) == code
