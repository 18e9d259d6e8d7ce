"""Real projects, bent and broken, and random commands: the server answers, stays whole, and starts again.

The projects are those of the fixtures (a Java server's folder) and of the recorded conversations.
"""

import copy
import glob
import json
import os
import shutil
import tempfile

import pytest
from clients import COMMANDS, ILLEGAL_COMMAND_BODY, OK
from servers import ROOT, Server

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
RELAXED = hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


def real_projects():
    """The projects of the fixtures and of the recordings; no address in them can be called."""
    found = []
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "fixtures", "java-data", "*.user"))):
        with open(path, encoding="utf-8") as file:
            found += json.loads(file.read().replace("http", "nttp"))["profile"].get("dashBoards", [])
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "replay", "*", "*.txt"))):
        with open(path, encoding="utf-8") as file:
            for line in file:
                _, mark, body = line.partition("> CREATE_DASH ")
                if mark and body.startswith("{") and "${" not in body:
                    try:
                        found.append(json.loads(body.replace("http", "nttp")))
                    except ValueError:
                        pass  # one that is meant to be broken
    return [project for project in found if isinstance(project, dict) and isinstance(project.get("widgets", []), list)]


PROJECTS = real_projects()
WIDGETS = list({json.dumps(w): w for project in PROJECTS for w in project.get("widgets") or []}.values())
ODD_VALUES = [
    *(None, True, False, 0, 1, -1, 7, 40000, 100000, 200000, 2**31 - 1, 2**31, -(2**63), 2**63, 1e300, 1.5, -0.0),
    *(
        "",
        "x",
        "0",
        "-1",
        "true",
        "VIRTUAL",
        "DIGITAL",
        "LCD",
        "\0",
        "1\0002\0UTC",
        "add\0001\0a\0b",
        "ü" * 40,
        "x" * 3000,
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [0, 1],
        ["a"],
        {"a": {"a": {"a": []}}},
        {"type": "BUTTON"},
        {"pin": 1, "pinType": "VIRTUAL"},
    ),
]


def names_in(document):
    if isinstance(document, dict):
        return set(document).union(*map(names_in, document.values()))
    return set().union(*map(names_in, document)) if isinstance(document, list) else set()


NAMES = sorted(set().union(*map(names_in, PROJECTS)))


def places(document):
    """(container, key) of everything in a document."""
    found = []
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        found.append((document, key))
        if isinstance(value, (dict, list)):
            found += places(value)
    return found


def bend(document, changes):
    """The document with some things replaced, removed, added, doubled or moved."""
    document = copy.deepcopy(document)
    for where, how, what in changes:
        all_places = places(document)
        if not all_places:
            return document
        container, key = all_places[where % len(all_places)]
        if how == "replace":
            container[key] = copy.deepcopy(ODD_VALUES[what % len(ODD_VALUES)])
        elif how == "remove":
            del container[key]
        elif how == "move":
            other, at = all_places[what % len(all_places)]
            container[key] = copy.deepcopy(other[at])
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[NAMES[what % len(NAMES)]] = copy.deepcopy(ODD_VALUES[where % len(ODD_VALUES)])
    return document


changes = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["replace", "remove", "move", "add"]), st.integers(0, 10**6)),
    max_size=4,
)


def mixed(widgets, active, device_ids):
    """A project of widgets of all the others."""
    document = {"id": 2, "isActive": active, "tags": [{"id": 100000, "name": "t", "deviceIds": [0, 1]}]}
    document["devices"] = [{"id": id, "boardType": "ESP8266"} for id in device_ids]
    return {**document, "widgets": [WIDGETS[n % len(WIDGETS)] for n in widgets]}


projects = st.one_of(
    st.builds(
        mixed, st.lists(st.integers(0, 10**6), min_size=1, max_size=25), st.booleans(), st.sets(st.integers(0, 2))
    ),
    st.sampled_from(PROJECTS),
)
small_ids = st.sampled_from([0, 1, 2, 3, 5, 7, 50, 400, 500, 501, 601, 100000, 200000, 99, -1])
texts = st.sampled_from(
    ["", "x", "on", "off", "label", "color", "#FF0000", "urls", "min", "DAY", "LIVE", "new", "\0", "*"]
)
bodies = st.one_of(
    st.lists(st.one_of(small_ids, texts), max_size=4),
    st.tuples(
        st.sampled_from(["1-0", "1-1", "1-100000", "1-200000", "2-0", "1", "7-0", "-1-0"]),
        st.sampled_from(["vw", "dw", "aw", "vu", "vr", "pm", "", "v"]),
        st.one_of(st.integers(0, 40), small_ids),
        st.sampled_from(["1", "", "clr", "play", "add\0001\0a\0b", "1\0002\0UTC\0001", "x\0y\0z", "1.5", "ü" * 50]),
    ),
)
NEVER = ("LOGOUT", "RESPONSE", "EXPORT_GRAPH_DATA", "EXPORT_REPORT")  # they end the connection, or take a worker's time
commands = st.tuples(st.sampled_from(sorted(set(COMMANDS) - set(NEVER))), bodies)


@pytest.fixture(scope="module")
def playground(certificate):
    """(server, app): nothing is too much, nothing too large."""
    path = tempfile.mkdtemp(prefix="bp-")
    server = Server(
        path,
        limits_messages_per_s=1000000,
        limits_profile_kb=1024,
        limits_widget_kb=512,
        limits_registrations_per_hour=10,
        log_level="info",
        **certificate,
    ).start()
    app = server.app()
    yield server, app
    app.close()
    # What is left of it all is a folder a server starts with, and every account of it can be loaded.
    server.stop()
    server.start()
    again = server.app(app.email)
    assert isinstance(again.profile(), dict)
    again.close()
    server.finish()
    shutil.rmtree(path, ignore_errors=True)


def play(playground, base, first, second, one_widget, asked):
    """One round: a bent project is made, changed, its widgets too; then come the commands, and a board."""
    server, app = playground
    app.command("CREATE_DASH", bend(base, first))
    app.command("CREATE_DASH", {"id": 1, "isActive": True, "devices": [{"id": 0, "boardType": "ESP8266"}]})
    app.command("UPDATE_DASH", bend(base, second))
    for widget in (base.get("widgets") or [])[:30]:
        bent = bend(widget, one_widget)
        for command in ("CREATE_WIDGET", "UPDATE_WIDGET"):
            app.command(command, 1, bent)
        for template in widget.get("templates", [])[:2]:
            for command in ("CREATE_TILE_TEMPLATE", "UPDATE_TILE_TEMPLATE"):
                app.command(command, 1, widget.get("id", 0), bend(template, one_widget))
    for command, fields in asked:
        app.command(command, *fields)
    app.drain()
    profile = app.profile()
    for one in profile.get("dashBoards", []):
        tokens = [d["token"] for d in one.get("devices", []) if d.get("token")]
        if tokens:
            use_board(server, app, one, tokens[0])
        assert app.ask("APP_SYNC", one["id"]) == OK
        app.drain()
    json.dumps(app.profile())
    for one in app.profile().get("dashBoards", []):
        assert app.ask("DELETE_DASH", one["id"]) == OK
    for one in app.profile().get("apps", []):
        app.ask("DELETE_APP", one["id"])
    app.drain()
    server.check_log()


def use_board(server, app, project, token):
    """A board writes and reads whatever the project's widgets are bound to; a browser looks at the project."""
    with server.hardware(token) as board:
        app.command("ACTIVATE_DASHBOARD", project["id"])
        pins = {w.get("pin") for w in project.get("widgets", []) if isinstance(w.get("pin"), int)}
        pins = sorted(pin for pin in pins if 0 <= pin < 256)[:20]
        for pin in pins:
            for value in ("1", "clr", "add\0001\0a\0b", "1\0002\0UTC\0001"):
                board.send(f"vw\0{pin}\0{value}")
            board.command("SET_WIDGET_PROPERTY", f"{pin}\0label\0x")
            board.command("SET_WIDGET_PROPERTY", f"{pin}\0color\0#FF0000")
        board.command("HARDWARE_SYNC")
        board.drain()
    with server.http() as browser:
        assert browser.get(f"/{token}/project").status == 200
        assert browser.get(f"/{token}/rtc").status in (200, 400)
        for pin in pins[:5]:
            assert browser.get(f"/{token}/get/v{pin}").status in (200, 400)
            assert browser.get(f"/{token}/update/v{pin}?label=x").status in (200, 400)


@RELAXED
@hypothesis.given(projects, changes, changes, changes, st.lists(commands, max_size=25))
def test_bent_projects_and_random_commands_do_no_harm(playground, base, first, second, one_widget, asked):
    play(playground, base, first, second, one_widget, asked)


@pytest.mark.slow
@hypothesis.settings(RELAXED, max_examples=1500)
@hypothesis.given(projects, changes, changes, changes, st.lists(commands, max_size=60))
def test_very_many_bent_projects_do_no_harm(playground, base, first, second, one_widget, asked):
    play(playground, base, first, second, one_widget, asked)


def test_every_real_project_comes_back_as_it_was(playground):
    """What the server makes of each: nothing is lost but what belongs to the account it came from."""
    _, app = playground
    for project in PROJECTS:
        project = {**project, "id": 1, "createdAt": 5}
        code = app.ask("CREATE_DASH", project)
        if code != OK:  # one that a recording has refused
            assert code == ILLEGAL_COMMAND_BODY and len(json.dumps(project)) < 300
            continue
        shown = app.project(1)
        for key, value in project.items():
            if key in ("widgets", "tags"):
                assert len(shown.get(key, [])) == len(value), key
                for sent, kept in zip(value, shown.get(key, [])):
                    assert_within(sent, kept)
            elif key not in ("devices", "sharedToken", "pinsStorage"):
                assert_within(value, shown.get(key))
        assert len(shown.get("devices", [])) == len(project.get("devices", []))
        assert app.ask("DELETE_DASH", 1) == OK


def assert_within(sent, kept):
    """What was sent is there, in the types the model has."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            if value not in (None, "", [], {}) and not (key == "dataStream" and "pin" in kept):
                assert key in kept, (key, kept)
                assert_within(value, kept[key])
    elif isinstance(sent, list) and isinstance(kept, list):
        assert len(sent) == len(kept)
        for one, other in zip(sent, kept):
            assert_within(one, other)
    elif isinstance(sent, (dict, list)):
        assert sent == kept
    else:
        assert str(sent).lower() in (str(kept).lower(), str(kept).lower() + ".0") or float(sent) == float(kept), (
            sent,
            kept,
        )
