"""What is kept: over a stop, a kill, a Java server's folder, spoilt files, a full disk (spec 05, DESIGN §6)."""

import glob
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time

import pytest
from clients import OK, Hardware, password_hash, until, widget
from servers import HOST, PROGRAM, Server

ACCOUNTS = {
    ("anna@example.com", "Blynk"): "anna-secret",
    ("ben@example.com", "blynkddrzfynk"): "ben-secret",
    ("clara@example.com", "Blynk"): "clara-secret",
    ("admin@blynk.cc", "Blynk"): "admin",
}
TOKENS = {
    "anna": "3eR4e86e58jZFLnOV6CiywmWxIeifaaL",
    "ben": "WEiAtDY5Pw1phyYk4h6RBgBrHZTv5Kv8",
    "clara": "ruaGmp7MVv2RKHwWJ_2H-XIVF_wxu3Ku",
}
# tests/fixtures/README.md: what HARDWARE_SYNC of anna's device 0 answers after `vw 5 24`; the last ten in any order
WIDGET_VALUES = (
    "dw 5 1|vw 1 512|vw 2 7|vw 3 1|vw 4 0|vw 5 24|vw 6 255|vw 7 1234|vw 8 hello|vw 9 40|vw 10 255 0 64|vw 11 100|"
    "vw 12 -100|vw 18 play|vw 19 36000 ss Europe/Berlin 1,2,3 7200|vw 20 15|vw 21 50|vw 22 typed text|vw 23 2|vw 24 1|"
    "vw 25 2|vw 32 1|aw 0 512"
).split("|")
STORED_VALUES = "vw 99 stored|vw 98 a b c|dw 13 0|vw 41 300|vw 40 first line|vw 40 second line".split("|")


def user_file(server, email, app="Blynk"):
    return os.path.join(server.data, f"{email}.{app}.user")


def read_user(server, email, app="Blynk"):
    with open(user_file(server, email, app), encoding="utf-8") as f:
        return json.load(f)


def files_of(folder):
    """path below the folder -> (size, time of the last change)."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            stat = os.stat(path)
            found[os.path.relpath(path, folder)] = (stat.st_size, stat.st_mtime_ns)
    return found


# ---------------------------------------------------------------------------------------------------------------
# An orderly stop
# ---------------------------------------------------------------------------------------------------------------


def test_a_restart_keeps_everything(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1, devices=2, widgets=[widget("SLIDER", 1, 3), widget("RGB", 2), widget("TABLE", 3, 30)])
    app.make_project(2, active=False)
    tag = app.json("CREATE_TAG", 1, {"id": 100000, "name": "both", "deviceIds": [0, 1]})
    share = app.ask("GET_SHARE_TOKEN", 1).decode()
    assert app.ask("SHARING", 1, "on") == OK
    hw = server.hardware(app.token(1, 0))
    for text in ("vw 3 30", "vw 9 nine", "dw 2 1", "aw 17 1000"):
        hw.send(text)
        app.expect(f"1-0 {text}")
    assert hw.ask("SET_WIDGET_PROPERTY", "3", "label", "Slow") == OK
    assert hw.ask("SET_WIDGET_PROPERTY", "77", "label", "No widget") == OK
    hw.ask("BLYNK_INTERNAL", "ver 0.6.1 h-beat 10 buff-in 256 dev ESP8266")
    before, values = app.profile(), sorted(hw.sync())
    energy = app.ask("GET_ENERGY")
    server.stop()
    server.start()
    app = server.app(app.email)
    after = app.profile()
    for project in before["dashBoards"] + after["dashBoards"]:
        project.pop("updatedAt", None)
        for device in project["devices"]:
            for key in ("status", "disconnectTime"):
                device.pop(key, None)
    assert after == before
    assert app.ask("GET_ENERGY") == energy
    assert app.json("GET_TAGS", 1) == [tag]
    assert sorted(server.hardware(app.token(1, 0)).sync()) == values
    assert server.guest(app.email, share).project(1)["name"] == "Project 1"


def test_a_change_is_on_the_disk_within_a_second(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    until(lambda: os.path.exists(user_file(server, app.email)), 2.5, "the new account's file")
    app.add_widget(1, widget("SLIDER", 1, 3, label="fresh"))
    began = time.monotonic()
    until(lambda: "fresh" in json.dumps(read_user(server, app.email)), 2.5, "the new widget in the file")
    assert time.monotonic() - began < 2.2


def test_nothing_is_written_when_nothing_changes(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    hw = server.hardware(app.token())
    app.expect("1-0", "HARDWARE_CONNECTED")
    until(lambda: os.path.exists(user_file(server, app.email)), 3, "the new account's file")
    app.quiet(2.5)
    before = files_of(server.data)
    for _ in range(5):
        hw.ping()
        app.quiet(0.4)
    assert files_of(server.data) == before


def test_files_with_secrets_are_for_their_owner_only(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    server.stop()
    for path in glob.glob(os.path.join(server.data, "*")):
        if os.path.isfile(path):
            assert os.stat(path).st_mode & 0o077 == 0, path


def test_no_password_and_no_hash_an_app_sends_is_in_the_files(make_server):
    server = make_server()
    app = server.app(password="very-secret")
    server.stop()
    text = json.dumps(read_user(server, app.email))
    assert read_user(server, app.email)["pass"].startswith("scrypt$")
    assert password_hash("very-secret", app.email) not in text


def test_no_temporary_file_is_left(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    server.stop()
    assert not [name for name in files_of(server.data) if name.endswith(".tmp")]


# ---------------------------------------------------------------------------------------------------------------
# A folder of the Java server
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken_over(make_server, java_data):
    return make_server(data=java_data, limits_energy=100000)


def test_every_account_of_the_java_server_logs_in(taken_over):
    for (email, app_name), password in ACCOUNTS.items():
        app = taken_over.app(email, password, app_name)
        assert app.ask("PING") == OK
    for (email, app_name), energy in [
        (("anna@example.com", "Blynk"), b"1068700"),
        (("clara@example.com", "Blynk"), b"99600"),
    ]:
        assert taken_over.app(email, ACCOUNTS[email, app_name], app_name).ask("GET_ENERGY") == energy


def test_the_profile_of_the_java_server_is_all_there(taken_over, java_data):
    with open(os.path.join(os.path.dirname(java_data), "profile-of-anna.json"), encoding="utf-8") as f:
        expected = json.load(f)
    profile = taken_over.app("anna@example.com", "anna-secret").profile()
    for document in (profile, expected):
        for project in document["dashBoards"]:
            project.pop("updatedAt", None)
            for w in project["widgets"]:
                for report in w.get("reports", ()):  # reports that are due run at the start
                    for key in ("nextReportAt", "lastReportAt", "lastRunResult"):
                        report.pop(key, None)
    assert without_neutral(profile) == without_neutral(expected)


def without_neutral(value):
    """A document without what is null, false, 0 or empty: absent means the same."""
    if isinstance(value, dict):
        cleaned = {k: without_neutral(v) for k, v in value.items()}
        return {k: v for k, v in cleaned.items() if v not in (None, False, 0, "", [], {})}
    if isinstance(value, list):
        return [without_neutral(v) for v in value]
    return value


def test_the_devices_of_the_java_server_find_their_values(taken_over):
    hw = taken_over.hardware(TOKENS["anna"])
    hw.send("vw 5 24")
    values = hw.sync()
    assert values[: len(WIDGET_VALUES)] == WIDGET_VALUES
    assert sorted(values[len(WIDGET_VALUES) :]) == sorted(STORED_VALUES)
    for name in ("ben", "clara"):
        taken_over.hardware(TOKENS[name]).ping()


def test_the_share_token_of_the_java_server_works(taken_over):
    guest = taken_over.guest("anna@example.com", "uQklYFkwYaLPWjtF9lNuinu6hDbwZUjs")
    assert guest.project(1)["name"] == "House"


VOLATILE = {  # what a running server changes by itself
    *("updatedAt", "lastModifiedTs", "lastLoggedAt", "lastLoggedIP", "status", "ip", "dataReceivedAt"),
    *("connectTime", "firstConnectTime", "disconnectTime", "nextReportAt", "lastReportAt", "lastRunResult"),
}


def lost(old, new, path=""):
    """Paths of what the old document has and the new one does not have, or has otherwise."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key, value in old.items():
            if key in VOLATILE:
                continue
            if key not in new:
                if value not in (None, "", [], {}):
                    found.append(f"{path}/{key}")
            else:
                found += lost(value, new[key], f"{path}/{key}")
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [p for i, (a, b) in enumerate(zip(old, new)) for p in lost(a, b, f"{path}[{i}]")]
    return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [f"{path}: {old!r} is now {new!r}"]


def test_nothing_the_java_server_needs_is_lost_from_its_files(make_server, java_data):
    server = make_server(data=java_data)
    for (email, app_name), password in ACCOUNTS.items():
        app = server.app(email, password, app_name)
        for project in app.profile().get("dashBoards", []):  # a change of each project, so that each is saved
            app.ask("ACTIVATE_DASHBOARD", project["id"])
            if not project.get("isActive"):
                app.ask("DEACTIVATE_DASHBOARD", project["id"])
    server.stop()
    for email, app_name in ACCOUNTS:
        name = f"{email}.{app_name}.user"
        with open(os.path.join(java_data, name), encoding="utf-8") as f:
            old = json.load(f)
        assert lost(old, read_user(server, email, app_name)) == [], name
        assert read_user(server, email, app_name)["pass"] == old["pass"]
    for name, (size, _) in files_of(java_data).items():
        if name.endswith((".user", "_temp.bin")):
            continue
        with open(os.path.join(java_data, name), "rb") as f:
            old_bytes = f.read()
        with open(os.path.join(server.data, name), "rb") as f:
            assert f.read(size) == old_bytes, name  # history files may have grown
    for path in glob.glob(os.path.join(server.data, "data", "*_temp.bin")):
        with open(path, "rb") as f:
            assert f.read(4) == b"\xac\xed\x00\x05", f"{path} is nothing the Java server can read"


def test_a_second_start_on_the_folder_finds_the_same(make_server, java_data):
    server = make_server(data=java_data)
    hw = server.hardware(TOKENS["anna"])
    hw.send("vw 5 24")
    first, profile = hw.sync(), server.app("anna@example.com", "anna-secret").profile()
    server.stop()
    server.start()
    assert sorted(server.hardware(TOKENS["anna"]).sync()) == sorted(first)
    again = server.app("anna@example.com", "anna-secret").profile()
    assert [len(p["widgets"]) for p in again["dashBoards"]] == [len(p["widgets"]) for p in profile["dashBoards"]]
    assert set(again["pinsStorage"]) == set(profile["pinsStorage"])


# ---------------------------------------------------------------------------------------------------------------
# Spoilt folders
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "not an account"])
def test_a_spoilt_file_is_set_aside_and_its_backup_used(make_server, java_data, damage):
    server = make_server(start=False, data=java_data)
    path = user_file(server, "anna@example.com")
    with open(path, "rb") as f:
        content = f.read()
    with open(path, "wb") as f:
        f.write(
            {"cut": content[: len(content) // 2], "empty": b"", "noise": os.urandom(999), "not an account": b"[1]"}[
                damage
            ]
        )
    server.start()
    assert server.app("anna@example.com", "anna-secret").project(1)["name"] == "House"
    assert server.app("clara@example.com", "clara-secret").ask("PING") == OK
    assert glob.glob(path + ".corrupt*")
    assert "anna@example.com" in server.log()
    server.stop()
    server.start()
    assert server.app("anna@example.com", "anna-secret").project(1)["name"] == "House"


def test_a_spoilt_file_without_backup_does_not_stop_the_server(make_server):
    server = make_server()
    first, second = server.app(), server.app()
    server.stop()
    shutil.rmtree(os.path.join(server.data, "backup"), ignore_errors=True)
    with open(user_file(server, first.email), "w") as f:
        f.write("{")
    server.start()
    assert server.app(second.email).ask("PING") == OK
    assert glob.glob(user_file(server, first.email) + ".corrupt*")


def test_an_old_file_name_is_read_and_replaced(make_server, java_data):
    server = make_server(start=False, data=java_data)
    os.rename(user_file(server, "clara@example.com"), os.path.join(server.data, "u_clara@example.com.user"))
    server.start()
    app = server.app("clara@example.com", "clara-secret")
    assert app.ask("DEACTIVATE_DASHBOARD", 7) == OK
    server.stop()
    assert os.path.exists(user_file(server, "clara@example.com"))
    assert not os.path.exists(os.path.join(server.data, "u_clara@example.com.user"))


def test_of_two_files_of_one_account_the_newer_counts(make_server, java_data):
    server = make_server(start=False, data=java_data)
    with open(user_file(server, "clara@example.com"), encoding="utf-8") as f:
        document = json.load(f)
    document["lastModifiedTs"] -= 1000
    document["profile"]["dashBoards"][0]["name"] = "older"
    with open(os.path.join(server.data, "u_clara@example.com.user"), "w", encoding="utf-8") as f:
        json.dump(document, f)
    server.start()
    assert server.app("clara@example.com", "clara-secret").project(7)["name"] == "Gärten 花園"


def test_a_second_server_on_the_folder_is_refused(make_server, folder, certificate):
    first = make_server()
    second = Server(folder, **certificate)
    second.data = first.data
    second.launch()
    assert second.process.wait(20) == 1
    lines = [line for line in second.log().splitlines() if first.data in line]
    assert len(lines) == 1 and "Traceback" not in second.log(), second.log()
    assert first.app().ask("PING") == OK


def test_a_folder_that_cannot_be_used_is_named(folder):
    path = os.path.join(folder, "file")
    open(path, "w").close()
    done = subprocess.run([sys.executable, PROGRAM, "--data", path], capture_output=True, text=True, timeout=30)
    assert done.returncode in (1, 2) and path in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_full_disk_does_not_stop_the_talk_and_is_made_up_for(make_server):
    """RLIMIT_FSIZE of 0 makes every write to a file fail as a full disk does."""
    server = make_server(piped=True)
    app = server.app()
    app.make_project(1)
    token = app.token()
    until(lambda: os.path.exists(user_file(server, app.email)), 3, "the new account's file")
    limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    hw = server.hardware(token)
    app.expect("1-0", "HARDWARE_CONNECTED")
    app.add_widget(1, widget("SLIDER", 1, 3, label="while full"))
    hw.send("vw 9 while full")
    app.expect("1-0 vw 9 while full")
    until(lambda: "cannot" in server.log().lower(), 8, "a line in the log that says so")
    hw.send("vw 9 still full")
    app.expect("1-0 vw 9 still full")
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
    until(lambda: "while full" in json.dumps(read_user(server, app.email)), 70, "the widget in the file")
    server.stop()
    server.start()
    assert server.hardware(token).sync(9) == ["vw 9 still full"]


# ---------------------------------------------------------------------------------------------------------------
# kill -9
# ---------------------------------------------------------------------------------------------------------------

LOST_AT_MOST = 1.0 + 0.6  # seconds: the journal's interval, and what an fsync of a busy machine takes
PINS = 20


class Load:
    """A board that writes counting values and an app that makes widgets; remembers what was acknowledged when."""

    def __init__(self, server, email, token, rng):
        self.rng = rng
        self.hw, self.app = server.hardware(token), server.app(email)
        self.sent = {}  # pin -> last value sent
        self.known = []  # (time, pin, value): acknowledged by the PING behind it
        self.widgets = []  # (time, widget id)

    def run(self, seconds, counter, next_widget):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(self.rng.randint(1, 30)):
                counter += 1
                pin = self.rng.randrange(PINS)
                self.hw.send(f"vw {pin} {counter}")
                self.sent[pin] = counter
            self.hw.ping()
            self.hw.inbox.clear()
            now = time.monotonic()
            self.known += [(now, pin, value) for pin, value in self.sent.items()]
            self.app.inbox.clear()
            if self.rng.random() < 0.2:
                next_widget += 1
                assert self.app.ask("CREATE_WIDGET", 1, widget("TEXT", next_widget)) == OK
                self.widgets.append((time.monotonic(), next_widget))
            self.app.ping()
        return counter, next_widget

    def must_be_there(self, killed_at):
        """pin -> the least value, widget ids: acknowledged long enough before the kill."""
        limit = killed_at - LOST_AT_MOST
        values = {}
        for at, pin, value in self.known:
            if at <= limit:
                values[pin] = max(value, values.get(pin, 0))
        return values, {id for at, id in self.widgets if at <= limit}


def kill_and_compare(make_server, rounds, seed):
    rng = random.Random(seed)
    server = make_server(limits_messages_per_s=10_000_000)
    app = server.app()
    app.make_project(1, widgets=[widget("SLIDER", 1, 0), widget("SLIDER", 2, 1)])
    email, token = app.email, app.token()
    app.close()
    until(lambda: os.path.exists(user_file(server, email)), 3, "the new account's file")
    counter, next_widget = 0, 1000
    floor, widgets = {}, set()
    for turn in range(rounds):
        load = Load(server, email, token, rng)
        counter, next_widget = load.run(rng.uniform(0.05, 3.0), counter, next_widget)
        server.kill()
        values, made = load.must_be_there(time.monotonic())
        floor.update(values)
        widgets |= made
        server.start(tls=False)
        hw = server.hardware(token)
        there = {int(pin): int(value) for _, pin, value in (text.split(" ") for text in hw.sync())}
        for pin, value in floor.items():
            assert there.get(pin, 0) >= value, f"round {turn}: V{pin} is {there.get(pin)}, {value} was acknowledged"
        for pin, value in there.items():
            assert value <= counter, f"round {turn}: V{pin} has {value}, which was never sent"
        floor = there
        server.wait_listening()
        app = server.app(email)
        got = {w["id"] for w in app.project(1)["widgets"]}
        assert widgets <= got, f"round {turn}: widgets {sorted(widgets - got)} are gone"
        app.close()
        hw.close()
        server.check_log()


def test_a_kill_costs_at_most_the_last_second(make_server):
    kill_and_compare(make_server, rounds=5, seed=7)


@pytest.mark.slow
def test_fifty_kills_cost_at_most_the_last_second_each(make_server):
    kill_and_compare(make_server, rounds=50, seed=time.time_ns())


def test_a_torn_end_of_the_journal_is_skipped(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    token = app.token()
    hw = server.hardware(token)
    hw.send("vw 5 kept")
    hw.ping()
    journals = until(
        lambda: [n for n, (size, _) in files_of(server.data).items() if "journal" in n and size], 3, "a journal"
    )
    app.drain()
    app.quiet(LOST_AT_MOST)
    server.kill()
    for tail in (b"\0\0\0", b'["v",1', os.urandom(50), b"\n\n{"):
        with open(os.path.join(server.data, journals[0]), "ab") as f:
            f.write(tail)
        server.start()
        assert server.hardware(token).sync(5) == ["vw 5 kept"]
        server.kill()


def test_a_new_account_survives_a_kill_a_second_after_it_was_made(make_server):
    server = make_server()
    app = server.app()
    email = app.email
    app.quiet(LOST_AT_MOST)
    server.kill()
    server.start()
    assert server.app(email).ask("PING") == OK


def test_values_of_two_connections_of_a_killed_server_do_not_mix(make_server):
    server = make_server()
    boards = []
    for _ in range(3):
        app = server.app()
        app.make_project(1)
        boards.append((app.token(), app))
    for i, (token, app) in enumerate(boards):
        hw = Hardware(HOST, server.http_port, token)
        hw.send(f"vw 1 mine {i}")
        app.expect(f"1-0 vw 1 mine {i}")
    boards[0][1].drain()
    boards[0][1].quiet(LOST_AT_MOST)
    server.kill()
    server.start()
    for i, (token, _) in enumerate(boards):
        assert server.hardware(token).sync() == [f"vw 1 mine {i}"]
