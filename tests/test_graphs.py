"""Graphs and history as an app, a guest and a browser see them, on a real server (spec 03b §9, 06 §3.7)."""

import gzip
import os
import struct
import subprocess
import sys
import time
import zlib

import pytest
from clients import ILLEGAL_COMMAND, NO_DATA, NOT_ALLOWED, OK, until, widget

MINUTE = 60_000


def graph(id=9, target=0, pins=(1,), **fields):
    streams = [{"targetId": target, "pin": {"pin": pin, "pinType": "VIRTUAL"}} for pin in pins]
    return widget("ENHANCED_GRAPH", id, dataStreams=streams, **fields)


def points(answer):
    """[[(value, ts), …] per stream] of a graph answer."""
    body, streams, at = zlib.decompress(answer), [], 4
    while at < len(body):
        (count,) = struct.unpack_from(">i", body, at)
        streams.append(list(struct.iter_unpack(">dq", body[at + 4 : at + 4 + 16 * count])))
        at += 4 + 16 * count
    return streams


def values(answer):
    return [[value for value, _ in stream] for stream in points(answer)]


def history_file(server, email, pin=1, device=0, kind="minute", project=1):
    folder = os.path.join(server.data, "data", email)
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"history_{project}-{device}_v{pin}_{kind}.bin")


def put(path, numbers, step=MINUTE):
    now = int(time.time() * 1000)
    start = now - now % step - len(numbers) * step
    with open(path, "wb") as file:
        file.write(b"".join(struct.pack(">dq", value, start + n * step) for n, value in enumerate(numbers)))


@pytest.fixture
def charts(server):
    """An app with a graph of V1 and V2 of device 0, which have 100 and 10 minutes."""
    app = server.app()
    app.make_project(1, devices=2, widgets=[graph(pins=(1, 2)), widget("REPORT", 8)])
    put(history_file(server, app.email, 1), [float(n) for n in range(100)])
    put(history_file(server, app.email, 2), [float(n) for n in range(10)])
    yield app
    app.close()


def test_periods_and_pages_count_records(charts):
    first = values(charts.ask("GET_ENHANCED_GRAPH_DATA", "1", "9", "ONE_HOUR"))
    assert first == [[float(n) for n in range(40, 100)], [float(n) for n in range(10)]]
    second = values(charts.ask("GET_ENHANCED_GRAPH_DATA", "1", "9", "ONE_HOUR", "1"))
    assert second == [[float(n) for n in range(40)], []]
    assert charts.ask("GET_ENHANCED_GRAPH_DATA", "1", "9", "ONE_HOUR", "2") == NO_DATA
    assert charts.ask("GET_ENHANCED_GRAPH_DATA", "1", "9", "ONE_HOUR", "-1") != NO_DATA


def test_another_target_may_be_asked_for(server, charts):
    put(history_file(server, charts.email, 1, device=1), [7.0])
    assert values(charts.ask("GET_ENHANCED_GRAPH_DATA", "1-1", "9", "DAY")) == [[7.0], []]
    assert charts.ask("GET_ENHANCED_GRAPH_DATA", "1-55", "9", "DAY") == NO_DATA


@pytest.mark.parametrize("words", [("1", "9", "SOMETIME"), ("1", "x", "DAY"), ("1", "9"), ("1", "9", "DAY", "x")])
def test_malformed_requests_are_refused(charts, words):
    assert charts.ask("GET_ENHANCED_GRAPH_DATA", *words) == ILLEGAL_COMMAND


def test_deleting_a_graphs_data_takes_all_streams_or_the_one_named(server, charts):
    one, two = (history_file(server, charts.email, pin) for pin in (1, 2))
    assert charts.ask("DELETE_ENHANCED_GRAPH_DATA", "1", "9", "1") == OK
    assert os.path.exists(one) and not os.path.exists(two)
    put(two, [1.0])
    assert charts.ask("DELETE_ENHANCED_GRAPH_DATA", "1", "9", "7") == OK
    assert not os.path.exists(one) and not os.path.exists(two)


def test_deleting_data_of_pins_devices_and_all_devices(server, charts):
    one, two = (history_file(server, charts.email, pin) for pin in (1, 2))
    other = history_file(server, charts.email, 1, device=1)
    put(other, [1.0])
    assert charts.ask("DELETE_DEVICE_DATA", "1-0", "v2", "a7") == OK
    assert os.path.exists(one) and not os.path.exists(two)
    assert charts.ask("DELETE_DEVICE_DATA", "1-0") == OK
    assert os.path.exists(other) and not os.path.exists(one)
    assert charts.ask("DELETE_DEVICE_DATA", "1-*") == OK
    assert not os.path.exists(other)
    for words in (("1",), ("1-x",), ("1-0", "q1"), ("1-0", "v999"), ("1-0", "")):
        assert charts.ask("DELETE_DEVICE_DATA", *words) in ((ILLEGAL_COMMAND,) if words[-1] else (OK,))


def test_history_is_gone_when_the_answer_to_a_deletion_comes(server, charts):
    put(history_file(server, charts.email, 1, device=1), [1.0])
    assert charts.ask("DELETE_DEVICE", "1", "1") == OK
    assert not os.path.exists(history_file(server, charts.email, 1, device=1))
    assert os.path.exists(history_file(server, charts.email, 1))
    assert charts.ask("DELETE_DASH", "1") == OK
    assert not os.path.exists(history_file(server, charts.email, 1))


def test_a_guest_sees_graphs_and_deletes_only_where_the_owner_allows_it(server, charts):
    token = charts.ask("GET_SHARE_TOKEN", "1").decode()
    assert charts.ask("SHARING", "1", "on") == OK
    guest = server.guest(charts.email, token)
    assert values(guest.ask("GET_ENHANCED_GRAPH_DATA", "1", "9", "FIFTEEN_MINUTES"))[0] == list(range(85, 100))
    assert guest.ask("DELETE_DEVICE_DATA", "1-0") == NOT_ALLOWED
    charts.make_project(2, devices=1, widgets=[graph()])
    assert guest.ask("GET_ENHANCED_GRAPH_DATA", "2", "9", "DAY") == NOT_ALLOWED
    assert charts.ask("UPDATE_WIDGET", "1", widget("REPORT", 8, allowEndUserToDeleteDataOn=True)) == OK
    assert guest.ask("DELETE_DEVICE_DATA", "1-0") == OK
    assert not os.path.exists(history_file(server, charts.email, 1))
    guest.close()


def test_a_browser_downloads_a_pins_minutes_without_any_mail(server, charts):
    token = charts.token(1, 0)
    reply = server.get(f"/{token}/data/v1")
    assert reply.status == 301
    file = server.get(reply.headers["location"])
    lines = gzip.decompress(file.body).decode().splitlines()
    assert len(lines) == 100 and lines[0].startswith("0.0,") and lines[-1].endswith(",0")
    assert server.get(f"/{token}/data/v77").status == 400


def test_a_graph_is_mailed_as_links_that_work(make_server, mailbox):
    server = make_server(**mailbox.settings)
    app = server.app()
    app.make_project(1, devices=1, widgets=[graph(pins=(1, 2, 3))], name="Ho<me")
    assert app.ask("EXPORT_GRAPH_DATA", "1", "9") == NO_DATA
    for pin in (1, 3):
        put(history_file(server, app.email, pin), [float(pin)])
    assert app.ask("EXPORT_GRAPH_DATA", "1", "9") == OK
    mail = mailbox.next_to(app.email)
    while not mail["subject"].startswith("History"):
        mail = mailbox.next_to(app.email)
    assert mail["subject"] == "History graph data for project Ho<me"
    text = mail.get_content()
    assert text.startswith("<html><body>") and text.count("<br>") == 2 and ">Board 0 v3</a>" in text
    link = text.split('href="')[1].split('"')[0]
    file = server.get(link.split(f":{server.http_port}", 1)[1])
    assert gzip.decompress(file.body).startswith(b"1.0,")


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(make_server):
    """small_disk(**settings) -> a server whose data folder is a file system of 3 MB."""
    mounted = []

    def make(**settings):
        server = make_server(start=False, **settings)
        os.makedirs(server.data, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", server.data]
        if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
            pytest.skip("cannot mount a small file system here")
        mounted.append(server.data)
        return server.start()

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=False)


def test_on_a_full_disk_devices_and_apps_go_on_and_values_are_saved_when_there_is_room(small_disk):
    server = small_disk(data_journal_interval_ms=50, raw_data_store="csv")
    app = server.app()
    app.make_project(1, devices=1, widgets=[graph(), widget("GAUGE", 3, pin=4)])
    board = server.hardware(app.token(1, 0))
    ballast = os.path.join(server.data, "ballast")
    with open(ballast, "wb", 0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    app.drain()
    for value in range(500):
        board.send("vw", 4, value)
        app.expect(f"1-0 vw 4 {value}")
        board.send("vw", 1, value)
        app.expect(f"1-0 vw 1 {value}")
    until(lambda: "journal cannot be written" in server.log(), what="a word in the log")
    assert server.log().count("cannot be written") < 6
    os.unlink(ballast)
    board.send("vw", 4, 77)
    app.expect("1-0 vw 4 77")
    until(lambda: "can be written again" in server.log(), timeout=30, what="a word in the log")
    server.stop()
    server.start()
    assert server.app(app.email).sync(1).count("1-0 vw 4 77") == 1


@pytest.mark.slow
def test_a_read_only_history_folder_is_named_and_everything_else_goes_on(make_server):
    server = make_server(start=False, data_journal_interval_ms=50)
    folder = os.path.join(server.data, "data")
    os.makedirs(folder, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", folder]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("cannot mount a read-only file system here")
    try:
        server.start()
        app = server.app()
        app.make_project(1, devices=1, widgets=[graph()])
        token = app.token(1, 0)
        old = [{"timestamp": int(time.time() * 1000) - 5 * MINUTE, "value": "5"}]
        with server.http() as user:
            assert user.put(f"/{token}/extra/pin/v1", old).status == 200
        until(lambda: "history cannot be written, Read-only file system" in server.log(), 70, "a word in the log")
        board = server.hardware(token)
        board.send("vw", 1, 5)
        app.expect("1-0 vw 1 5")
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        until(lambda: "history is written again" in server.log(), 70, "a word in the log")
        (stream,) = points(app.ask("GET_ENHANCED_GRAPH_DATA", "1", "9", "ONE_HOUR"))
        assert stream[0][0] == 5.0
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


@pytest.mark.slow
def test_the_folder_of_a_java_server_is_carried_on(make_server, java_data):
    server = make_server(start=False, data=java_data)
    for home, _, names in os.walk(server.data):
        for path in (home, *(os.path.join(home, name) for name in names)):
            os.chmod(path, 0o700)
    server.start()
    folder = os.path.join(server.data, "data", "anna@example.com")

    def last(kind):
        with open(os.path.join(folder, f"history_1-0_v5_{kind}.bin"), "rb") as file:
            return struct.unpack(">dq", file.read()[-16:])

    until(lambda: last("daily") == (22.625, 1795132800000), 70, "the Java server's unfinished averages")
    assert last("minute") == (23.0, 1795193820000) and last("hourly") == (22.625, 1795190400000)
