"""What a hostile review found: faults of a disk, of a clock, of peers that do not read, and of races between them."""

import errno
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from clients import OK, USER_NOT_AUTHENTICATED, Hardware, connect, password_hash, until, widget
from servers import HOST, ROOT

import blynk_pi

LONG_NAME = "x" * 60 + "@" + ".".join(["b" * 60] * 3) + ".com"  # with an app of 100 letters: no file system takes it


# ---------------------------------------------------------------------------------------------------------------
# A server in this process, turned by hand
# ---------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, start):
        self.time = start

    def __call__(self):
        return self.time


class Desk:
    """A Server that listens on nothing; its disk thread is real and can be held."""

    def __init__(self, folder, **clocks):
        settings = blynk_pi.load_settings(["--data", str(folder)], ROOT)
        self.server = blynk_pi.Server(settings, blynk_pi.Loop(**clocks))
        self.store, self.loop, self.ledger = self.server.store, self.server.loop, self.server.ledger
        self.gate = threading.Event()
        self.store.open()
        self.server.load()
        self.store.start()

    def account(self, email, app="Blynk"):
        """An account with project 1 and its device 0, in its file when there can be one."""
        account = self.server.new_account(email, app, "hash")
        project = {"id": 1, "name": "p", "isActive": True, "devices": [{"id": 0, "name": "d"}]}
        self.server.add_project(account, blynk_pi.read_document("PROJECT", project))
        self.settle()
        return account

    def write(self, account, text):
        blynk_pi.set_value(account.projects[1], 0, "v", 5, text)

    def turn(self, condition, what="it"):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, f"{what} did not come about"
            self.loop.run_once(0.01)

    def settle(self):
        """Everything that is known to be changed has been handed to the disk, and the disk is done with it."""
        self.store.tick()
        self.turn(lambda: not self.store.saving and not self.ledger.structural)
        self.disk_idle()

    def disk_idle(self):
        done = []
        self.loop.submit("disk", lambda: None, done=lambda *_: done.append(1))
        self.turn(lambda: done, "an idle disk")

    def hold_disk(self):
        self.loop.submit("disk", self.gate.wait, 10)

    def fold(self):
        self.store.fold()
        self.disk_idle()
        self.turn(lambda: self.store.folding is None and not self.store.saving, "the fold")

    def file(self, account):
        with open(self.store.path(account.file_name), encoding="utf-8") as file:
            return file.read()

    def journals(self):
        names = (blynk_pi.OLD_JOURNAL_FILE, blynk_pi.JOURNAL_FILE)
        return [r for n in names for _, records in blynk_pi.read_journal(self.store.path(n)) for r in records]

    def close(self):
        self.gate.set()
        if self.store.lock is not None:
            self.store.lock.release()
        self.loop.close()


@pytest.fixture
def make_desk(tmp_path):
    desks = []

    def make(**clocks):
        desks.append(Desk(tmp_path, **clocks))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(make_desk):
    return make_desk()


# ---------------------------------------------------------------------------------------------------------------
# The store
# ---------------------------------------------------------------------------------------------------------------


def test_a_user_file_that_cannot_be_written_keeps_nobody_else_from_being_saved(desk):
    good = [desk.account(f"good{n}@example.com") for n in range(6)]
    bad = desk.account(LONG_NAME, "y" * 100)
    desk.write(bad, "of the bad one")
    for account in good:
        desk.write(account, "a value")
    minute = desk.loop.now_ms - 120_000
    desk.server.history.series(good[0], 1, 0, "v", 9).add(5.0, minute)
    desk.fold()
    assert ["a value" in desk.file(account) for account in good] == [True] * 6
    assert os.path.getsize(desk.server.history.path("good0@example.com", 1, 0, "v9", 0)) == 16
    assert [record[6] for record in desk.journals()] == ["of the bad one"]  # and nothing that the files have


def test_a_user_file_that_cannot_be_written_keeps_nobody_else_from_being_saved_at_the_stop(desk):
    good = [desk.account(f"good{n}@example.com") for n in range(6)]
    bad = desk.account(LONG_NAME, "y" * 100)
    desk.write(bad, "of the bad one")
    for account in good:
        account.document["lastLoggedAt"] = 77_777
        account.modified()
    desk.store.close()
    desk.store.lock = None
    assert ['"lastLoggedAt":77777' in desk.file(account) for account in good] == [True] * 6
    assert [record[6] for record in desk.journals()] == ["of the bad one"]


def test_a_save_that_fails_while_the_journal_is_turned_loses_no_value(desk, monkeypatch):
    account = desk.account("anna@example.com")
    desk.write(account, "precious")
    desk.store.tick()
    desk.hold_disk()
    desk.store.fold()
    account.modified()
    desk.store.tick()  # its file waits behind the journal's turn
    real = blynk_pi.write_file

    def full(path, data, private=True):
        if path.endswith(".user"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, private)

    monkeypatch.setattr(blynk_pi, "write_file", full)
    desk.gate.set()
    desk.turn(lambda: not desk.store.saving and desk.store.folding is None)
    desk.disk_idle()
    assert "precious" in desk.file(account) or "precious" in str(desk.journals())


def test_an_account_that_changes_while_it_is_removed_does_not_come_back(desk):
    account = desk.account("anna@example.com")
    gone, real = [], desk.store.move_to_deleted

    def slow(who, done):
        desk.hold_disk()
        real(who, done)
        gone.append("on its way")

    desk.store.move_to_deleted = slow
    desk.server.remove_account(account, gone.append)
    desk.turn(lambda: gone)
    account.projects[1].modified()  # a board announces itself
    desk.store.tick()
    desk.gate.set()
    desk.turn(lambda: True in gone)
    desk.disk_idle()
    assert not os.path.exists(desk.store.path(account.file_name))
    assert os.path.exists(desk.store.path("deleted", account.file_name))


def test_values_that_waited_when_their_account_was_removed_keep_no_disk_busy(desk):
    account = desk.account("anna@example.com")
    route = account.projects[1].route(0, "v", 5)
    route.pending, route.waiting = b"1", True
    desk.ledger.unsettled.append(route)
    desk.server.forget_account(account)
    desk.loop.run_once(0)
    desk.fold()
    assert not desk.ledger.touched and not desk.ledger.presence


def test_values_reach_the_files_each_minute_when_the_clock_is_set_back(make_desk):
    monotonic, wall = Clock(1000.0), Clock(1_900_000_000.0)
    desk = make_desk(monotonic=monotonic, wall=wall)
    account = desk.server.new_account("anna@example.com", "Blynk", "hash")
    project = {"id": 1, "name": "p", "devices": [{"id": 0, "name": "d"}]}
    desk.server.add_project(account, blynk_pi.read_document("PROJECT", project))
    wall.time = 1_700_000_000.0  # six years
    folds = []
    desk.store.fold = lambda: folds.append(wall.time)
    for _ in range(180):
        wall.time += 1
        monotonic.time += 1
        desk.write(account, "x")
        desk.loop.run_once(0)
    assert len(folds) >= 3 and all(time % 60 < 2 for time in folds[1:])  # at full minutes of the new time


def test_a_backup_that_fails_keeps_no_other_from_being_made(desk):
    anna, zoe = desk.account("anna@example.com"), desk.account("zoe@example.com")
    too_long = "m" * 240 + ".user"  # with a date behind it
    with open(desk.store.path(too_long), "w") as file:
        file.write("{}")
    with pytest.raises(OSError, match="too long"):
        desk.store.copy_to_backup([anna.file_name, too_long, zoe.file_name], "2024-01-01")
    names = os.listdir(desk.store.path("backup"))
    assert {f"{a.file_name}.2024-01-01" for a in (anna, zoe)} <= set(names)


def test_a_full_queue_of_the_disk_does_not_end_the_folds(desk):
    account = desk.account("anna@example.com")
    desk.write(account, "one")
    desk.hold_disk()
    desk.turn(lambda: desk.loop.pools["disk"].active == 1)
    desk.loop.pools["disk"].limit = 0
    desk.store.fold()
    desk.store.rotated(None, None)  # a disk that was quick once more, and then not
    desk.turn(lambda: not desk.store.saving)
    desk.loop.pools["disk"].limit = 1000
    desk.gate.set()
    assert desk.store.folding is None and "disk does not keep up" in str(desk.server.health)
    desk.fold()
    assert "one" in desk.file(account)


@pytest.mark.parametrize(
    "text",
    [
        '{"email":"a@b.cc","profile":{"dashBoards":[{"id":1,"pinsStorage":[1]}]}}',
        '{"email":"a@b.cc","journal":"x"}',
        '{"email":"../../a@b.cc"}',
        "[" * 100_000,
    ],
)
def test_a_user_file_with_nonsense_does_not_keep_the_server_from_starting(make_server, text):
    server = make_server(start=False)
    with open(os.path.join(server.data, "a@b.cc.Blynk.user"), "w") as file:
        file.write(text)
    with open(os.path.join(server.data, "good@example.com.Blynk.user"), "w") as file:
        json.dump({"email": "good@example.com", "pass": password_hash("pw", "good@example.com")}, file)
    server.start()
    server.app("good@example.com")
    server.stop()
    assert not os.path.exists(os.path.join(server.folder, "..", "a@b.cc.Blynk.user"))


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(tmp_path):
    code = (
        "import resource, sys, blynk_pi; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "blynk_pi.FolderLock(sys.argv[1]).release()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)


# ---------------------------------------------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------------------------------------------


class Protocol:
    def __init__(self, drained=None):
        self.drained = drained
        self.gone = False

    def received(self, data):
        pass

    def closed(self):
        self.gone = True


@pytest.fixture
def loop():
    loop = blynk_pi.Loop(monotonic=Clock(1000.0), wall=Clock(1_700_000_000.0))
    yield loop
    loop.close()


def stream_of(loop, protocol):
    """A stream and the peer's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = blynk_pi.Stream(loop, ours, "peer", 0, False)
    stream.protocol = protocol
    return stream, theirs


def fail():
    raise RuntimeError("a mistake of ours")


def test_a_mistake_at_the_end_of_a_turn_costs_one_connection_not_the_server(loop):
    loop.end_of_turn.append(fail)
    bad, end_of_bad = stream_of(loop, Protocol(drained=fail))
    good, end_of_good = stream_of(loop, Protocol())
    bad.write(b"a")
    good.write(b"b")
    loop.run_once(0)
    assert end_of_good.recv(10) == b"b" and bad.closed and not good.closed
    end_of_bad.close(), end_of_good.close()


def test_a_mistake_in_one_deadline_does_not_keep_others_open(loop):
    ends = []
    for wrong in (True, False):
        for _ in range(5):
            stream, end = stream_of(loop, Protocol())
            stream.on_expired = fail if wrong else None
            stream.set_idle(5)
            ends.append(end)
    loop.monotonic.time += 6
    loop.run_once(0)
    assert sum(stream.on_expired is None for stream in loop.streams) == 0
    for end in ends:
        end.close()


def test_last_words_have_their_minute_even_to_a_peer_that_was_silent_for_long(loop):
    stream, end = stream_of(loop, Protocol())
    other, end_of_other = stream_of(loop, Protocol())
    loop.monotonic.time += 300
    loop.run_once(0)
    stream.write(b"x" * 5_000_000)
    stream.close()
    other.set_idle(1)  # somebody whose time is up: all deadlines are looked at
    loop.run_once(0)
    loop.monotonic.time += 2
    loop.run_once(0)
    assert other.closed and not stream.closed
    loop.monotonic.time += 61
    loop.run_once(0)
    assert stream.closed
    end.close(), end_of_other.close()


def test_a_quick_reader_of_a_big_file_has_its_turn_like_everybody(loop, tmp_path):
    path = tmp_path / "big"
    path.write_bytes(b"z" * 5_000_000)
    stream, end = stream_of(loop, Protocol())
    calls = []
    real = stream.sock

    class Quick:
        """A socket whose peer reads whatever comes."""

        def send(self, data):
            calls.append(len(data))
            return len(data)

        def __getattr__(self, name):
            return getattr(real, name)

    stream.sock = Quick()
    stream.send_file(open(path, "rb"), 5_000_000)
    loop.run_once(0)
    assert 0 < sum(calls) < 1_000_000
    while stream.source is not None:
        loop.run_once(0)
    assert sum(calls) == 5_000_000
    end.close()


# ---------------------------------------------------------------------------------------------------------------
# Peers
# ---------------------------------------------------------------------------------------------------------------


def test_an_app_that_is_gone_costs_the_next_app_no_value(desk):
    account = desk.account("anna@example.com")
    streams = []
    for _ in range(3):
        stream, end = stream_of(desk.loop, None)
        session = stream.protocol = blynk_pi.AppSession(desk.server, stream)
        session.join(account, None, 1)
        streams.append((stream, end))
    board, end_of_board = stream_of(desk.loop, None)
    session = board.protocol = blynk_pi.HardwareSession(desk.server, board)
    session.join(account.projects[1].devices[0], 1)
    desk.loop.run_once(0)
    first, end_of_first = streams[0]
    end_of_first.close()
    first.out += b"x" * blynk_pi.OUTPUT_LIMIT  # it did not read, and now it is gone
    frames = [struct.pack(">BHH", 20, n, 7) + b"vw\x005\x00%02d" % n for n in (1, 2)]
    session.received(frames[0])
    session.received(frames[1])
    assert first.closed
    assert [b"vw\x005\x0002" in bytes(stream.out) for stream, _ in streams[1:]] == [True, True]
    for end in (end_of_board, streams[1][1], streams[2][1]):
        end.close()


def test_a_board_that_asks_and_does_not_read_costs_no_memory(make_server):
    server = make_server(limits_messages_per_s=1_000_000)
    app = server.app()
    app.make_project(1)
    board = server.hardware(app.token(1, 0))
    board.send("vw", 9, "x" * 60_000)
    app.take(lambda frame: frame.command == "HARDWARE")
    before = server.rss_kb()
    board.send_raw(struct.pack(">BHH", 16, 5, 0) * 3000)  # 15 KB that ask for 180 MB
    assert server.get("/health").status == 200  # has had its turn behind them
    assert server.rss_kb() - before < 20_000
    got = 0
    while got < 3000 * 60_000:  # nothing is lost for a board that does read
        data = board.sock.recv(1 << 20)
        assert data
        got += len(data)


def test_a_flood_of_slow_commands_lets_the_others_have_their_turn(make_server):
    server = make_server(limits_messages_per_s=1_000_000)
    app = server.app()
    app.make_project(1, devices=2, widgets=[widget("SLIDER", 1, 3)])
    flood, quiet = server.hardware(app.token(1, 0)), server.hardware(app.token(1, 1))
    frame = struct.pack(">BHH", 20, 7, 9) + b"vw\x00999\x0012"  # refused: no such pin
    flood.send_raw(frame * 4000)
    assert quiet.ask("PING") == OK
    answered = len(flood.sock.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)) // 5 if readable(flood) else 0
    assert answered < 4000
    got = 0
    while got < 4000 * 5:
        got += len(flood.sock.recv(1 << 20))
    assert got == 4000 * 5


def readable(peer):
    import select

    return bool(select.select([peer.sock], [], [], 0)[0])


def test_wrong_passwords_sent_all_at_once_are_no_way_round_the_limit(make_server):
    server = make_server()
    app = server.app()
    peers = [server.unknown() for _ in range(30)]
    for number, peer in enumerate(peers):
        password = "pw" if number == 25 else f"guess {number}"
        peer.command("LOGIN", app.email, password_hash(password, app.email), "Android", "2.27.0", "Blynk")
    codes = [peer.take(lambda frame: frame.command == "RESPONSE").code for peer in peers]
    assert codes == [USER_NOT_AUTHENTICATED] * 30
    for peer in peers:
        peer.close()


def test_connections_leave_descriptors_for_the_files(make_server):
    server = make_server(start=False)
    command = server.command()
    server.command = lambda: ["/bin/sh", "-c", 'ulimit -n 200; exec "$@"', "sh", *command]
    server.start()
    app = server.app()
    app.make_project(1)
    crowd = [connect(HOST, server.http_port) for _ in range(300)]
    app.json("CREATE_TAG", 1, {"id": 100000, "name": "in the crowd", "deviceIds": [0]})
    path = os.path.join(server.data, f"{app.email}.Blynk.user")

    def saved():
        if not os.path.exists(path):
            return False
        with open(path, encoding="utf-8") as file:
            return "in the crowd" in file.read()

    until(saved, 5, "the tag in the file")
    for sock in crowd:
        sock.close()
    until(lambda: logs_in(server, app.token(1, 0)), 5, "room for a board")


def logs_in(server, token):
    try:
        Hardware(HOST, server.http_port, token).close()
        return True
    except (AssertionError, OSError):
        return False
