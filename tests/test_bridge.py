# ruff: noqa: F401, F811  (fixtures are imported by name)
"""The serial bridge: boards on pseudo-terminals at line speed, a simulated Uno, and the real server."""

import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from boards import PROGRAM, Board, Bridge, Cable, RawServer, Uno, place, program
from clients import OK, until
from servers import HOST, cpu_seconds_of, free_ports, rss_kb_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
pytest.importorskip("serial")

UNKNOWN_TOKEN = "x" * 32


@pytest.fixture
def wired(place, house):
    """A scripted board on a cable, the bridge, the server: .board .cable .bridge, not yet logged in."""
    place.cable = place.keep(Cable(place.folder))
    place.board = Board(place.cable)
    place.bridge = place.keep(Bridge("-c", place.cable.path, "-s", f"{HOST}:{house.server.http_port}"))
    place.bridge.expect("port open")
    place.house, place.app = house, house.app
    return place


def bridge_to(place, port, *arguments, cable=None):
    """A board on a new cable and a bridge to that port: (board, bridge)."""
    cable = place.keep(cable or Cable(place.folder))
    bridge = place.keep(Bridge("-c", cable.path, "-s", f"{HOST}:{port}", *arguments))
    bridge.expect("port open")
    return Board(cable), bridge


def send_login(board, token):
    board.command("HARDWARE_LOGIN", token.encode(), id=1)


# ---------------------------------------------------------------------------------------------------------------
# A day in the life
# ---------------------------------------------------------------------------------------------------------------


def test_a_board_logs_in_and_values_go_both_ways(wired):
    assert wired.board.start(wired.house.tokens[0]) == OK
    wired.app.expect("1-0", "HARDWARE_CONNECTED")
    wired.bridge.expect("online at")
    wired.board.send("vw 5 123")
    wired.app.expect("1-0 vw 5 123")
    wired.app.send("1-0 vw 4 77")
    wired.board.expect("vw 4 77")
    wired.board.ping()


def test_the_log_shows_only_the_ends_of_a_token(wired):
    token = wired.house.tokens[0]
    wired.board.start(token)
    line = wired.bridge.expect("online at")
    assert f"{token[:4]}…{token[-4:]}" in line
    assert token not in wired.bridge.log


def test_an_old_board_logs_in_with_command_2(wired):
    assert wired.board.login(wired.house.tokens[0], "LOGIN") == OK
    wired.app.expect("1-0", "HARDWARE_CONNECTED")


def test_a_board_that_restarts_gets_a_session_of_its_own(wired):
    token = wired.house.tokens[0]
    wired.board.start(token)
    wired.app.expect("1-0", "HARDWARE_CONNECTED")
    assert wired.board.start(token) == OK  # not 4, "already registered"
    wired.app.expect("1-0", "HARDWARE_CONNECTED")
    wired.board.send("vw 1 2")
    wired.app.expect("1-0 vw 1 2")


def test_a_board_that_is_online_already_is_told_to_log_in(wired):
    wired.board.send("vw 1 5")  # the bridge was restarted, the board was not
    wired.board.expect_kick()
    assert wired.board.start(wired.house.tokens[0]) == OK


def test_text_between_frames_is_shown_once_with_a_hint_and_harms_nothing(wired):
    wired.board.start(wired.house.tokens[0])
    wired.board.send_raw(b"temperature is 21.5\r\n")
    wired.board.send("vw 5 1")
    wired.app.expect("1-0 vw 5 1")
    wired.bridge.expect("text: temperature is 21.5")
    wired.bridge.expect("move debug output to another port")
    wired.board.send_raw(b"and 22\r\n")
    wired.board.send("vw 5 2")
    wired.app.expect("1-0 vw 5 2")
    assert wired.bridge.log.count("move debug output") == 1


def test_what_a_board_prints_cannot_move_the_cursor_of_a_terminal(wired):
    wired.board.start(wired.house.tokens[0])
    wired.board.send_raw(b"clear the screen\x1b[2J please\r\n")
    assert wired.bridge.expect("text: clear").endswith("clear the screen·[2J please")


def test_frames_shown_on_request_have_no_tokens(place, house):
    board, bridge = bridge_to(place, house.server.http_port, "-v")
    board.start(house.tokens[0])
    board.command("BRIDGE", "64", "i", house.tokens[1])
    bridge.expect("board: bridge")
    board.send("vw 5 1")
    bridge.expect("board: hardware 4 vw 5 1")
    assert house.tokens[0] not in bridge.log and house.tokens[1] not in bridge.log


def test_a_token_may_begin_with_a_dash():
    token = "-" + "t" * 31
    assert program().read_command_line(["--token", token, "-c", "/dev/x"]).token == token


def test_a_token_of_the_command_line_replaces_the_boards(place, house):
    board, _ = bridge_to(place, house.server.http_port, "--token", house.tokens[1])
    assert board.start(UNKNOWN_TOKEN) == OK
    house.app.expect("1-1", "HARDWARE_CONNECTED")


def test_the_settings_file_has_options_for_each_port(place, house):
    cable = place.keep(Cable(place.folder))
    path = os.path.join(place.folder, "ser.ini")
    with open(path, "w") as file:
        file.write(f"[DEFAULT]\nserver = {HOST}\nport = {house.server.http_port}\n")
        file.write(f"[{cable.path}]\ntoken = {house.tokens[1]}\n")
    place.keep(Bridge("-c", cable.path, "--config", path)).expect("port open")
    assert Board(cable).start(UNKNOWN_TOKEN) == OK


# ---------------------------------------------------------------------------------------------------------------
# The server goes and comes
# ---------------------------------------------------------------------------------------------------------------


def test_a_board_does_not_notice_that_the_server_restarts(place, make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    board, bridge = bridge_to(place, server.http_port, "--grace", 30)
    assert board.start(app.token()) == OK
    bridge.expect("online at")
    server.stop()
    bridge.expect("server lost")
    board.ping()  # answered by the bridge
    board.send("vw 5 1")
    board.send("vw 5 2")
    server.start()
    app = server.app(app.email, register=False)
    bridge.expect("online again", 30)
    board.ping()
    assert not board.inbox, board.inbox  # no kick, no answer to the replayed login
    board.send("vw 6 9")
    app.expect("1-0 vw 6 9")


def test_values_of_the_outage_arrive_in_order_when_the_server_is_back(place):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    send_login(board, "t" * 32)
    sock, _ = server.accept_login()
    board.expect_status(OK, 1)
    info = board.command("BLYNK_INTERNAL", "ver 0.6.1 h-beat 10")
    assert b"h-beat" in sock.recv(200)
    sock.close()
    bridge.expect("server lost")
    for n in range(20):
        board.send(f"vw 5 {n}", id=n + 10)
    sock, token = server.accept_login()
    assert token == "t" * 32
    data = b""
    while data.count(b"vw\0005\0") < 20:
        data += sock.recv(4096)
    assert data.startswith(struct.pack(">BHH", 17, info, 19) + b"ver\0000.6.1\0h-beat\00010")
    values = [int(part[:2].rstrip(b"\x14").split(b"\0")[0]) for part in data.split(b"vw\0005\0")[1:]]
    assert values == list(range(20))
    sock.sendall(struct.pack(">BHH", 0, info, 200))  # the answer to the replayed frame is not the board's
    sock.sendall(struct.pack(">BHH", 20, 9, 6) + b"vw\0001\0001"[:6])
    board.expect("vw 1 1")
    assert not [f for f in board.inbox if f.command == "RESPONSE" and f.code == 200 and f.id == info]


def test_a_board_is_told_when_the_server_stays_away_and_gets_in_when_it_is_back(place):
    server = RawServer()
    board, bridge = bridge_to(place, server.port, "--grace", 0.5)
    send_login(board, "t" * 32)
    sock, _ = server.accept_login()
    board.expect_status(OK, 1)
    sock.close()
    server.close()
    board.expect_kick()
    bridge.expect("board told")
    send_login(board, "t" * 32)
    bridge.expect("no server at")
    board.quiet()  # an unanswered login: that is what keeps the board trying
    listener = socket.create_server((HOST, server.port))
    server.listener = place.keep(listener)
    listener.settimeout(20)
    stop = threading.Event()

    def keep_asking():
        while not stop.wait(1.0):
            send_login(board, "t" * 32)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        server.accept_login()
        board.expect_status(OK, 1)
    finally:
        stop.set()
        thread.join()


def test_a_server_that_starts_after_the_bridge_is_found(place, make_server):
    server = make_server(start=False)
    board, bridge = bridge_to(place, server.http_port)
    send_login(board, UNKNOWN_TOKEN)
    bridge.expect("is the server running")
    server.start()
    app = server.app()
    app.make_project(1)
    until(lambda: board.start(app.token()) == OK if not board.quiet(0) else False, 20)


def test_a_refused_token_is_said_plainly_and_asked_about_once(place, house):
    board, bridge = bridge_to(place, house.server.http_port)
    assert board.login(UNKNOWN_TOKEN) == 9
    line = bridge.expect("not accepted by")
    assert f"{HOST}:{house.server.http_port}" in line and "xxxx…xxxx" in line and "copy" in line
    for _ in range(3):
        assert board.login(UNKNOWN_TOKEN) == 9
    assert bridge.log.count("not accepted") == 1
    assert board.start(house.tokens[0]) == OK  # another token is another question


def test_a_refused_token_ends_a_bridge_that_runs_once(place, house):
    cable = place.keep(Cable(place.folder))
    bridge = place.keep(Bridge("-c", cable.path, "-s", HOST, "-p", house.server.http_port, "--once"))
    bridge.expect("port open")
    send_login(Board(cable), UNKNOWN_TOKEN)
    assert bridge.wait() == 3


def test_a_redirect_is_followed_without_the_board_knowing(place, house):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    send_login(board, house.tokens[0])
    body = f"{HOST}\0{house.server.http_port}".encode()
    server.accept_login(struct.pack(">BHH", 41, 1, len(body)) + body)
    board.expect_status(OK, 1)
    assert not board.inbox
    bridge.expect(f"sends us to {HOST}:{house.server.http_port}")
    house.app.expect("1-0", "HARDWARE_CONNECTED")


def test_redirects_in_circles_end(place):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    send_login(board, "t" * 32)
    body = f"{HOST}\0{server.port}".encode()
    for _ in range(4):
        server.accept_login(struct.pack(">BHH", 41, 1, len(body)) + body)
    bridge.expect("redirected in circles")


# ---------------------------------------------------------------------------------------------------------------
# TLS, and the wrong port
# ---------------------------------------------------------------------------------------------------------------


def test_tls_with_the_servers_own_certificate(place, server, certificate):
    app = server.app()
    app.make_project(1)
    cable = place.keep(Cable(place.folder))
    options = ("-t", "SSL", "--cert", certificate["tls_cert"])
    bridge = place.keep(Bridge("-c", cable.path, "-s", f"localhost:{server.https_port}", *options))
    bridge.expect("port open")
    assert Board(cable).start(app.token()) == OK


def test_tls_with_a_fingerprint(place, server, certificate):
    app = server.app()
    app.make_project(1)
    shown = subprocess.check_output(
        ["openssl", "x509", "-in", certificate["tls_cert"], "-noout", "-fingerprint", "-sha256"], text=True
    )
    board, _ = bridge_to(place, server.https_port, "--tls", "--fingerprint", shown.partition("=")[2].strip())
    assert board.start(app.token()) == OK


@pytest.mark.parametrize(
    "port, options, said",
    [
        ("https_port", ["--tls"], "is not trusted"),
        ("https_port", ["--tls", "--fingerprint", "00" * 32], "not the one given"),
        ("http_port", ["--tls", "--insecure"], "no TLS on that port"),
        ("https_port", [], "-t SSL"),
    ],
)
def test_the_wrong_kind_of_connection_is_named(place, server, port, options, said):
    board, bridge = bridge_to(place, getattr(server, port), *options)
    send_login(board, UNKNOWN_TOKEN)
    bridge.expect(said)


def test_the_fingerprint_to_paste_is_shown(place, server):
    board, bridge = bridge_to(place, server.https_port, "--tls")
    send_login(board, UNKNOWN_TOKEN)
    shown = re.search(r"it shows ([0-9a-f]{64})", bridge.expect("is not trusted")).group(1)
    app = server.app()
    app.make_project(1)
    cable = Cable(place.folder, "ttyV1")
    board, _ = bridge_to(place, server.https_port, "--tls", "--fingerprint", shown, cable=cable)
    assert board.start(app.token()) == OK


def test_a_web_server_is_recognised(place):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    send_login(board, "t" * 32)
    server.accept_login(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    bridge.expect("that is a web server")


# ---------------------------------------------------------------------------------------------------------------
# What a board must never see
# ---------------------------------------------------------------------------------------------------------------


def test_frames_that_a_board_cannot_take_do_not_reach_it(place):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    send_login(board, "t" * 32)
    sock, _ = server.accept_login()
    board.expect_status(OK, 1)
    value = b"vw\0001\0"
    sock.sendall(struct.pack(">BHH", 20, 0, 6) + b"vw\0001\0"[:5] + b"1")  # id 0
    sock.sendall(struct.pack(">BHH", 25, 5, 4) + b"vw\0001"[:4])  # not a board's command
    sock.sendall(struct.pack(">BHH", 20, 6, 300) + value + b"x" * (300 - len(value)))  # more than buff-in
    sock.sendall(struct.pack(">BHH", 20, 7, 6) + value + b"2")
    assert board.expect("vw 1 2").id == 7
    assert not board.inbox
    bridge.expect("more than the board takes")


def test_a_half_frame_of_a_dying_server_does_not_reach_the_board(place):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    send_login(board, "t" * 32)
    sock, _ = server.accept_login()
    board.expect_status(OK, 1)
    sock.sendall(struct.pack(">BHH", 20, 7, 6) + b"vw\0")
    sock.close()
    sock, _ = server.accept_login()
    sock.sendall(struct.pack(">BHH", 20, 8, 6) + b"vw\0001\0003"[:6])
    assert board.next().id == 8


def test_a_board_that_does_not_hear_is_left_alone_until_it_does(place):
    """The endless login loop: stale bytes in the board's ring stand before our answers (spec 10 §2.3)."""
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)
    for _ in range(2):
        send_login(board, "t" * 32)
        server.accept_login()
        board.expect_status(OK, 1)
    send_login(board, "t" * 32)
    bridge.expect("does not hear")
    send_login(board, "t" * 32)
    send_login(board, "t" * 32)
    board.quiet()
    send_login(board, "t" * 32)
    server.accept_login()
    board.expect_status(OK, 1)
    assert board.command("PING") and board.next(20)


# ---------------------------------------------------------------------------------------------------------------
# Ports
# ---------------------------------------------------------------------------------------------------------------


def test_an_unplugged_board_is_offline_at_once_and_back_when_plugged_in(wired):
    token = wired.house.tokens[0]
    wired.board.start(token)
    wired.app.expect("1-0", "HARDWARE_CONNECTED")
    wired.cable.unplug()
    wired.bridge.expect("board gone")
    wired.app.expect("1-0", "DEVICE_OFFLINE")
    wired.cable.plug()
    wired.bridge.expect("port open")
    assert wired.board.start(token) == OK
    wired.app.expect("1-0", "HARDWARE_CONNECTED")


def test_a_board_is_found_under_another_name(place, house):
    cable = place.keep(Cable(place.folder, "ttyV0"))
    board = Board(cable)
    port = house.server.http_port
    bridge = place.keep(Bridge("-c", os.path.join(place.folder, "ttyV*"), "-s", f"{HOST}:{port}"))
    bridge.expect("[ttyV0] port open")
    assert board.start(house.tokens[0]) == OK
    cable.unplug()
    cable.plug("ttyV1")
    bridge.expect("[ttyV1] port open")
    assert board.start(house.tokens[0]) == OK


def test_a_port_that_comes_later_is_waited_for(place, house):
    path = os.path.join(place.folder, "ttyV7")
    bridge = place.keep(Bridge("-c", path, "-s", f"{HOST}:{house.server.http_port}"))
    bridge.expect(f"waiting for {path}")
    cable = place.keep(Cable(place.folder, "ttyV7"))
    bridge.expect("port open")
    assert Board(cable).start(house.tokens[0]) == OK


def test_a_port_in_use_is_waited_for_and_its_holder_named(place, house):
    import fcntl

    cable = place.keep(Cable(place.folder))
    holder = os.open(cable.path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    bridge = place.keep(Bridge("-c", cable.path, "-s", f"{HOST}:{house.server.http_port}"))
    assert f"process {os.getpid()}" in bridge.expect("in use")
    os.close(holder)
    bridge.expect("port open")


def test_sixteen_boards_on_one_bridge(place, house):
    cables = [place.keep(Cable(place.folder, f"ttyV{n}")) for n in range(16)]
    arguments = [word for cable in cables for word in ("-c", cable.path)]
    bridge = place.keep(Bridge(*arguments, "-s", f"{HOST}:{house.server.http_port}"))
    boards = [Board(cable) for cable in cables]
    for _ in boards:
        bridge.expect("port open")
    for n, board in enumerate(boards):
        assert board.start(house.tokens[n % 2]) == OK
    cables[3].unplug()
    for n, board in enumerate(boards):
        if n != 3:
            board.send(f"vw 9 {n}")
            house.app.expect(f"1-{n % 2} vw 9 {n}")
    cables[3].plug()


def test_a_tcp_client_can_be_a_board(place, house):
    (port,) = free_ports(1)
    bridge = place.keep(Bridge("-f", "TCP", "-l", port, "-s", f"{HOST}:{house.server.http_port}"))
    bridge.expect("listening on port")
    from clients import Hardware

    for _ in range(2):
        with Hardware(HOST, port) as board:
            assert board.login(house.tokens[0]) == OK
            board.send("vw 3 3")
            house.app.expect("1-0 vw 3 3")
        house.app.expect("1-0", "DEVICE_OFFLINE")
        bridge.expect("board gone")


def test_a_socket_url_is_a_port(place, house):
    far = place.keep(RawServer())
    bridge = place.keep(Bridge("-c", f"socket://{HOST}:{far.port}", "-s", f"{HOST}:{house.server.http_port}"))
    cable = type("End", (), {"end": far.accept()})
    bridge.expect("port open")
    assert Board(cable).start(house.tokens[0]) == OK


def test_an_rfc2217_url_is_a_port(place, house):
    """pyserial's own RFC 2217 server, as in its examples, in front of a pseudo-terminal."""
    import serial
    import serial.rfc2217

    cable = place.keep(Cable(place.folder))
    far = place.keep(RawServer())

    class Port(serial.Serial):
        """A pseudo-terminal has no modem lines."""

        cts = dsr = ri = cd = False
        _update_dtr_state = _update_rts_state = lambda self: None

    port = Port(cable.path, 9600, timeout=0.05)

    def serve():
        sock = far.accept()

        class Connection:
            write = staticmethod(sock.sendall)

        manager = serial.rfc2217.PortManager(port, Connection)
        sock.settimeout(0.02)
        while True:
            try:
                data = sock.recv(1000)
                if not data:
                    return
                port.write(b"".join(manager.filter(data)))
            except socket.timeout:
                pass
            except OSError:
                return
            data = port.read(port.in_waiting or 0)
            if data:
                sock.sendall(b"".join(manager.escape(data)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    bridge = Bridge("-c", f"rfc2217://{HOST}:{far.port}", "-s", f"{HOST}:{house.server.http_port}")
    try:
        bridge.expect("port open", 20)
        board = Board(cable)
        assert board.start(house.tokens[0]) == OK
        house.app.send("1-0 vw 4 5")
        board.expect("vw 4 5")
    finally:
        bridge.stop()
        thread.join(5)
        port.close()


def test_raw_mode_copies_bytes(place):
    server = place.keep(RawServer())
    board, _ = bridge_to(place, server.port, "--raw")
    sock = server.accept()
    board.send_raw(b"anything\0at all")
    assert sock.recv(100)
    sock.sendall(b"\xff\xfeback")
    assert board.cable.end.recv(1) == b"\xff"


def test_the_board_is_chosen_by_its_usb_id():
    ser = program()
    uno = ser.PortInfo("/dev/ttyACM0", 0x2341, 0x0043, "A1", "1-1", "Arduino Uno")
    clone = ser.PortInfo("/dev/ttyUSB0", 0x1A86, 0x7523, "", "1-2", "USB Serial")
    modem = ser.PortInfo("/dev/ttyUSB1", 0x10C4, 0xEA60, "Z", "1-3", "Sonoff Zigbee 3.0")
    console = ser.PortInfo("/dev/ttyAMA0", text="ttyAMA0")
    options = ser.Options()
    assert ser.the_board([uno, clone, modem, console], options) is uno
    assert ser.the_board([clone, modem, console], options) is clone
    with pytest.raises(ser.UsageError, match="no board found"):
        ser.the_board([modem, console], options)
    second = ser.PortInfo("/dev/ttyACM1", 0x2E8A, 0x000A, "P", "1-4", "Pico")
    with pytest.raises(ser.UsageError, match="several boards") as caught:
        ser.the_board([uno, second], options)
    assert "/dev/ttyACM0" in str(caught.value) and "/dev/ttyACM1" in str(caught.value)
    assert ser.matching("2341:0043", [uno, clone], False) == [uno]
    assert ser.matching("2341:0043:B7", [uno, clone], False) == []
    assert ser.matching("hwgrep://pico", [uno, second], False) == [second]


class Usb:
    """The list of ports that pyserial gives, as the test says it: the only thing here that is not real."""

    SITE = """
import json
import serial.tools.list_ports as ports
from serial.tools.list_ports_common import ListPortInfo
def comports(include_links=False):
    found = []
    for row in json.load(open({path!r})):
        info = ListPortInfo(row[0])
        info.vid, info.pid, info.serial_number, info.product = row[1:]
        found.append(info)
    return found
ports.comports = comports
"""

    def __init__(self, place):
        self.place, self.rows = place, {}
        self.path = os.path.join(place.folder, "ports.json")
        os.mkdir(os.path.join(place.folder, "site"))
        with open(os.path.join(place.folder, "site", "sitecustomize.py"), "w") as file:
            file.write(self.SITE.format(path=self.path))
        self.environment = {"PYTHONPATH": os.path.join(place.folder, "site")}
        self.list()

    def list(self):
        with open(self.path + ".new", "w") as file:
            json.dump(list(self.rows.values()), file)
        os.rename(self.path + ".new", self.path)

    def board(self, name, vid, pid, number, product):
        """Plugs in a new board; returns its cable."""
        self.rows[number] = [os.path.join(self.place.folder, name), vid, pid, number, product]
        self.list()
        return self.place.keep(Cable(self.place.folder, name))

    def move(self, cable, name, number):
        """Pulls a board out and plugs it in somewhere else."""
        row = self.rows.pop(number)
        self.list()
        cable.unplug()
        self.rows[number] = [os.path.join(self.place.folder, name), *row[1:]]
        self.list()
        cable.plug(name)


def test_every_board_that_is_plugged_in_gets_its_bridge(place, house):
    usb = Usb(place)
    uno = usb.board("ttyV0", 0x2341, 0x43, "A1", "Arduino Uno")
    usb.board("ttyV5", 0x10C4, 0xEA60, "Z1", "Sonoff Zigbee Dongle")
    port = house.server.http_port
    bridge = place.keep(Bridge("--all", "-s", f"{HOST}:{port}", environment=usb.environment))
    bridge.expect("[ttyV0] port open, 9600 baud (Arduino Uno")
    assert Board(uno).start(house.tokens[0]) == OK
    pico = usb.board("ttyV1", 0x2E8A, 0x0A, "P1", "Pico")
    bridge.expect("[ttyV1] port open")
    assert Board(pico).start(house.tokens[1]) == OK
    usb.move(uno, "ttyV2", "A1")
    bridge.expect("[ttyV0] board gone")
    bridge.expect("[ttyV2] port open")
    assert Board(uno).start(house.tokens[0]) == OK
    assert "ttyV5" not in bridge.log


def test_the_only_board_is_found_and_followed(place, house):
    usb = Usb(place)
    nano = usb.board("ttyV0", 0x1A86, 0x7523, "N1", "USB Serial")
    bridge = place.keep(Bridge("-s", f"{HOST}:{house.server.http_port}", environment=usb.environment))
    bridge.expect("[ttyV0] port open")
    assert Board(nano).start(house.tokens[0]) == OK
    usb.move(nano, "ttyV1", "N1")
    bridge.expect("[ttyV1] port open")
    assert Board(nano).start(house.tokens[0]) == OK


def test_a_native_usb_board_is_not_paced(place, house):
    usb = Usb(place)
    leonardo = usb.board("ttyV0", 0x2341, 0x8036, "L1", "Arduino Leonardo")
    bridge = place.keep(Bridge("-s", f"{HOST}:{house.server.http_port}", environment=usb.environment))
    bridge.expect("port open")
    board = Board(leonardo)
    assert board.start(house.tokens[0]) == OK
    began = time.monotonic()
    for n in range(40):
        house.app.send(f"1-0 vw 1 {n}")
    board.expect("vw 1 39")
    assert time.monotonic() - began < 2  # paced, it would be three seconds


# ---------------------------------------------------------------------------------------------------------------
# The command line, signals, systemd
# ---------------------------------------------------------------------------------------------------------------


def run_program(*arguments, **environment):
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env=dict(os.environ, HOME="/nonexistent", **environment),
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-c", "/dev/x", "-b", "1200"], "bootloader"),
        (["-c", "/dev/x", "-t", "2WAY"], "2WAY is not supported"),
        (["-c", "/dev/x", "--raw", "--ncp"], "exclude"),
        (["-c", "/dev/x", "--config", "/nonexistent/ser.ini"], "settings file"),
        (["-b", "9600"], "no board found"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, said):
    done = run_program(*arguments)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_mistake_in_the_settings_file_is_said_at_start(place):
    path = os.path.join(place.folder, "ser.ini")
    for text, said in (("speed = 9600", "speed: no such option"), ("baud = fast", "baud = fast: expected int")):
        with open(path, "w") as file:
            file.write(f"[/dev/ttyACM0]\n{text}\n")
        done = run_program("-c", "/dev/x", "--config", path)
        assert done.returncode == 2 and said in done.stderr and "[/dev/ttyACM0]" in done.stderr


def test_the_original_scripts_options_are_understood(place, house):
    cable = place.keep(Cable(place.folder, baud=9600))
    arguments = ["-f", "SER", "-c", cable.path, "-b", "9600", "-t", "TCP", "-s", HOST, "-p", house.server.http_port]
    place.keep(Bridge(*arguments)).expect("port open, 9600 baud")
    assert Board(cable).start(house.tokens[0]) == OK
    assert cable.port_speed() == 9600


def test_without_pyserial_the_line_that_installs_it_is_printed(place):
    with open(os.path.join(place.folder, "serial.py"), "w") as file:
        file.write("raise ImportError\n")
    done = run_program("-c", "/dev/x", PYTHONPATH=place.folder)
    assert done.returncode == 4
    assert "apt install python3-serial" in done.stderr and "pip install pyserial" in done.stderr


def test_ports_are_listed():
    done = run_program("--list")
    assert done.returncode == 0, done.stderr


def test_counters_are_dumped_on_sigusr2(place, house):
    status = os.path.join(place.folder, "status")
    board, bridge = bridge_to(place, house.server.http_port, "--status", status)
    board.start(house.tokens[0])
    bridge.expect("online at")
    bridge.signal("SIGUSR2")
    until(lambda: os.path.exists(status) and "frames_up=1" in open(status).read())


def test_the_port_is_released_for_an_upload(place, house):
    board, bridge = bridge_to(place, house.server.http_port, "--release", 1)
    board.start(house.tokens[0])
    house.app.expect("1-0", "HARDWARE_CONNECTED")
    bridge.signal("SIGUSR1")
    bridge.expect("released for 1 s")
    house.app.expect("1-0", "DEVICE_OFFLINE")
    bridge.expect("port open")


def test_systemd_is_told_readiness_life_and_end(place, house):
    path = os.path.join(place.folder, "notify")
    inbox = place.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    inbox.bind(path)
    inbox.settimeout(10)
    cable = place.keep(Cable(place.folder))
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    bridge = Bridge("-c", cable.path, "-s", HOST, "-p", house.server.http_port, environment=environment)
    try:
        assert inbox.recv(100) == b"READY=1"
        for _ in range(3):
            assert inbox.recv(100) == b"WATCHDOG=1"
    finally:
        assert bridge.stop() == 0
    while inbox.recv(100) != b"STOPPING=1":
        pass


def test_an_idle_bridge_costs_next_to_nothing(wired):
    wired.board.start(wired.house.tokens[0])
    wired.bridge.expect("online at")
    before, began = cpu_seconds_of(wired.bridge.pid), time.monotonic()
    wired.board.quiet(3)
    share = (cpu_seconds_of(wired.bridge.pid) - before) / (time.monotonic() - began)
    print(f"idle: {share:.2%} of a core, {rss_kb_of(wired.bridge.pid)} KiB resident")
    assert share < 0.01


def test_nothing_leaks_when_board_and_server_come_and_go(place):
    server = place.keep(RawServer())
    board, bridge = bridge_to(place, server.port)

    def descriptors():
        return len(os.listdir(f"/proc/{bridge.pid}/fd"))

    counts = []
    for _ in range(8):
        send_login(board, "t" * 32)
        sock, _ = server.accept_login()
        board.expect_status(OK, 1)
        board.cable.unplug()
        bridge.expect("board gone")
        sock.close()
        board.cable.plug()
        bridge.expect("port open")
        counts.append(descriptors())
    assert counts[-1] <= counts[1]


# ---------------------------------------------------------------------------------------------------------------
# Finding the server
# ---------------------------------------------------------------------------------------------------------------


def test_the_announcement_of_a_real_zeroconf_peer_is_understood():
    zeroconf = pytest.importorskip("zeroconf")
    ser = program()
    info = zeroconf.ServiceInfo(
        "_blynk._tcp.local.",
        "Blynk on pi._blynk._tcp.local.",
        port=8080,
        addresses=[socket.inet_aton("192.168.1.5")],
        server="pi.local.",
        properties={"version": "1.0", "http": "8080", "tls": "9443", "path": "/"},
    )
    out = zeroconf.DNSOutgoing(0x8400)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        out.add_answer_at_time(record, 0)
    answers = ser.Answers()
    for packet in out.packets():
        answers.take(packet, "10.0.0.1")
    assert answers.server(False) == ("192.168.1.5", 8080)
    assert answers.server(True) == ("192.168.1.5", 9443)


def test_a_broken_announcement_is_ignored():
    ser = program()
    answers = ser.Answers()
    for packet in (b"", b"\0" * 12, b"\0\0\x84\0\0\0\0\1\0\0\0\0\xc0\x0c", b"\0\0\x84\0\0\0\0\1\0\0\0\0\xc0\x0c" * 9):
        answers.take(packet, "10.0.0.1")
    assert answers.server(False) is None


def test_the_question_is_one_a_zeroconf_peer_understands():
    zeroconf = pytest.importorskip("zeroconf")
    ser = program()
    packet = zeroconf.DNSIncoming(ser.dns_query((("_blynk._tcp.local", 12), ("blynk.local", 1))))
    assert packet.valid
    assert [(q.name, q.type) for q in packet.questions] == [("_blynk._tcp.local.", 12), ("blynk.local.", 1)]


@pytest.fixture
def two_networks():
    """Two computers on one cable: the commands that run something on each."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("takes root and ip")
    names = [f"ser-{os.getpid()}-{n}" for n in range(2)]
    for name in names:
        if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
            pytest.skip("no network namespaces on this machine")
    try:
        link = ["ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns"]
        subprocess.run([*link, names[1]], check=True)
        for n, name in enumerate(names):
            setup = f"ip link set lo up; ip link set eth0 up; ip addr add 10.213.8.{n + 1}/24 dev eth0"
            setup += "; ip route add 224.0.0.0/4 dev eth0"
            subprocess.run(["ip", "netns", "exec", name, "sh", "-c", setup], check=True)
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.slow
def test_a_bridge_with_no_server_named_finds_the_real_one(two_networks, make_server, place):
    pytest.importorskip("zeroconf")
    (port,) = free_ports(1)
    settings = {"server_host": "", "server_listen": "", "discovery_mode": "zeroconf", "ports_http": port}
    server = make_server(**dict(settings, server_listen=HOST, discovery_mode="off"))
    app = server.app()
    app.make_project(1)
    token = app.token()
    server.stop()
    server.write_settings(**settings)
    process = subprocess.Popen([*two_networks[0], *server.command()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        cable = place.keep(Cable(place.folder))
        bridge = place.keep(Bridge("-c", cable.path, prefix=two_networks[1]))
        bridge.expect("port open")
        board = Board(cable)
        until(lambda: asks_in(board, token), 40, "the board's login")
        bridge.expect(f"found on the network at 10.213.8.1:{port}")
    finally:
        process.kill()
        process.communicate()


def asks_in(board, token):
    """One login, as a board repeats it; true when it was accepted."""
    send_login(board, token)
    try:
        board.expect_status(OK, 1, timeout=3)
    except AssertionError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------
# Into step again
# ---------------------------------------------------------------------------------------------------------------


def frames_of(stream, sizes=(), gap=0.001):
    """The frames that a reader finds in the stream, cut at these sizes."""
    reader, found, at, now = program().FrameReader(), [], 0, 1.0
    for size in [*sizes, len(stream)]:
        found += [(c, i, b) for c, i, b, _ in reader.feed(stream[at : at + size], now) if c is not None]
        at += size
        now += gap
    return found


def hardware(id, text):
    body = text.replace(" ", "\0").encode()
    return struct.pack(">BHH", 20, id, len(body)) + body


LOGIN = struct.pack(">BHH", 29, 1, 32) + b"0123456789abcdefghijklmnopqrst_-"
PING = struct.pack(">BHH", 6, 9, 0)


def test_frames_are_found_however_the_bytes_are_cut():
    stream = LOGIN + hardware(2, "vw 1 5") + PING + b"\0\0\5\0\xc8" + hardware(3, "dw 13 1")
    whole = frames_of(stream)
    assert [c for c, _, _ in whole] == [29, 20, 6, 0, 20]
    for size in range(1, len(stream)):
        assert frames_of(stream, [size]) == whole
    assert frames_of(stream, [1] * (len(stream) - 1)) == whole


@pytest.mark.parametrize("at", range(13))
def test_a_lost_byte_costs_two_frames_at_most(at):
    frames = [hardware(n, f"vw 1 {n + 100}") for n in range(1, 9)]
    damaged = frames[3][:at] + frames[3][at + 1 :]
    found = frames_of(b"".join([*frames[:3], damaged, *frames[4:]]))
    ids = [i for _, i, b in found if b == f"vw\0001\0{i + 100}".encode()]
    assert set(ids) >= {1, 2, 3, 6, 7, 8} and sorted(ids) == ids


@pytest.mark.parametrize("at", range(13))
def test_a_doubled_byte_costs_two_frames_at_most(at):
    frames = [hardware(n, f"vw 1 {n + 100}") for n in range(1, 9)]
    damaged = frames[3][: at + 1] + frames[3][at:]
    found = frames_of(b"".join([*frames[:3], damaged, *frames[4:]]))
    ids = [i for _, i, b in found if b == f"vw\0001\0{i + 100}".encode()]
    assert set(ids) >= {1, 2, 3, 6, 7, 8}


def test_a_login_is_found_in_the_rubbish_of_a_bootloader():
    rubbish = bytes(range(256)) * 2
    assert frames_of(rubbish + LOGIN)[-1][0] == 29


def test_text_is_told_from_noise():
    reader = program().FrameReader()
    events = reader.feed(b"Hello World\r\n\x80\x81\x82\x83\x84\n" + hardware(5, "vw 1 1"), 1.0)
    assert [raw for c, _, _, raw in events if c is None] == [b"Hello World"]
    assert events[-1][:2] == (20, 5)


def test_an_unfinished_frame_does_not_hold_up_the_next():
    reader = program().FrameReader()
    assert reader.feed(hardware(5, "vw 1 123")[:9], 1.0) == []
    assert [e[1] for e in reader.feed(hardware(6, "vw 1 1"), 3.5)] == [6]


def test_silence_brings_the_reader_into_step():
    reader = program().FrameReader()
    reader.feed(b"\x99\x98", 1.0)
    assert [e[0] for e in reader.feed(PING, 1.3)] == [6]


def test_random_noise_never_breaks_the_reader():
    chance = random.Random(7)
    reader = program().FrameReader()
    good = 0
    for n in range(1, 2000):
        frame = bytearray(hardware(n, f"vw 1 {n}"))
        if chance.random() < 0.02:
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        good += sum(1 for c, i, b, _ in reader.feed(bytes(frame), n * 0.07) if b == f"vw\0001\0{n}".encode())
    assert good > 1900


def test_the_pacer_never_trusts_a_board_with_more_than_its_ring():
    pacer = program().Pacer(0.075, 9600)
    frames = [hardware(n, f"vw 1 {n}") for n in range(1, 41)]
    for frame in frames:
        pacer.push(frame)
    now, out = 0.0, []
    while len(out) < 40:
        data = pacer.take(now)
        assert len(data) <= 48
        out += [f for f in frames if f in data]
        now += pacer.wait(now) or 0.0
    assert out == frames
    assert 2.6 <= now <= 40 * 0.075


def test_a_full_queue_keeps_the_newest_value_of_each_pin():
    pacer = program().Pacer(0.075, 9600)
    for n in range(1, 400):
        pacer.push(hardware(n, f"vw {n % 4} {n}"))
    assert len(pacer.queue) <= 256 and pacer.dropped == 0
    assert list(pacer.queue)[-4:] == [hardware(n, f"vw {n % 4} {n}") for n in range(396, 400)]


# ---------------------------------------------------------------------------------------------------------------
# A simulated Uno, 64 bytes of ring
#
# A busy test machine may stop the cable or the simulation for a moment; what waited then comes at line speed, which no
# pacing can help. So the long runs keep at most eight values under way (more than the ring holds, less than a quick
# board drains at line speed), the boards are quick with each value, and no two of them run at a time.
# ---------------------------------------------------------------------------------------------------------------


NOT_BUSY = ("-DBUSY=10",)
one_at_a_time = pytest.mark.xdist_group("uno")


def exchange(app, first, last, window=100):
    """Sends the numbers to the Uno, which answers each; returns what came back, in order."""
    back, sent = [], first - 1
    while len(back) < last - first + 1:
        while sent < last and sent - first + 1 - len(back) < window:
            sent += 1
            app.send(f"1-0 vw 1 {sent}")
        frame = app.take(lambda f: f.text.startswith("1-0 vw 2 "), 20, f"the answer to {first + len(back)} of {sent}")
        back.append(int(frame.text.rpartition(" ")[2]))
    return back


def report(app):
    """(count, lost, doubled, disordered) as the Uno saw it."""
    app.send("1-0 vw 3 1")
    frame = app.take(lambda f: f.text.startswith("1-0 vw 4 "), 20, "the Uno's report")
    return [int(n) for n in frame.text.split(" ")[3:]]


def uno_wired(place, house, *options, baud=9600, defines=()):
    cable = place.keep(Cable(place.folder, baud=10_000_000))
    uno = place.keep(Uno(cable, house.tokens[0], *defines, baud=baud))
    bridge = place.keep(
        Bridge("-c", cable.path, "-b", baud, "-s", f"{HOST}:{house.server.http_port}", "--reset", "never", *options)
    )
    bridge.expect("online at", 20)
    house.app.expect("1-0 vw 7 1", timeout=20)
    return cable, uno, bridge


@one_at_a_time
def test_a_simulated_uno_loses_nothing(place, house):
    uno_wired(place, house, defines=("-DBUSY=20",))
    assert exchange(house.app, 1, 40, window=40) == list(range(1, 41))
    assert report(house.app) == [40, 0, 0, 0]


@one_at_a_time
def test_a_chattering_uno_at_115200(place, house):
    uno_wired(place, house, baud=115200, defines=("-DCHATTER", "-DBUSY=20"))
    assert exchange(house.app, 1, 20) == list(range(1, 21))


@one_at_a_time
@pytest.mark.slow
def test_a_thousand_values_each_way_unplugged_and_plugged_in(place, house):
    """None lost, none doubled, order kept; in the middle the plug is pulled twice, once with the board's power."""
    cable, uno, bridge = uno_wired(place, house, defines=NOT_BUSY)
    app = house.app
    back = exchange(app, 1, 400, window=8)
    assert report(app) == [400, 0, 0, 0]
    cable.unplug()
    app.expect("1-0", "DEVICE_OFFLINE")
    cable.plug()  # the board has power of its own and thinks it is online: it is told to log in
    bridge.expect("online at", 40)
    app.expect("1-0 vw 7 2", timeout=20)
    back += exchange(app, 401, 700, window=8)
    assert report(app) == [700, 0, 0, 0]
    cable.unplug()
    uno.power_off()
    app.expect("1-0", "DEVICE_OFFLINE")
    cable.plug()
    uno.power_on()
    bridge.expect("online at", 40)
    app.expect("1-0 vw 7 1", timeout=20)
    back += exchange(app, 701, 1000, window=8)
    assert report(app) == [300, 0, 0, 0]
    assert back == list(range(1, 1001))


@one_at_a_time
@pytest.mark.slow
def test_a_thousand_values_of_the_uno_on_its_own_account(place, house):
    """The other way round: the board sends as fast as the library lets it, while values come."""
    uno_wired(place, house, defines=NOT_BUSY)
    app = house.app
    app.send("1-0 vw 5 1000")
    seen = []
    while len(seen) < 1000:
        frame = app.take(lambda f: f.text.startswith("1-0 vw 6 "), 20, f"number {len(seen) + 1}")
        seen.append(int(frame.text.rpartition(" ")[2]))
    assert seen == list(range(1, 1001))


def back_within(app, seconds):
    """Sends a new number every three seconds until the Uno answers one; returns how long that took."""
    began, number = time.monotonic(), 5000
    while time.monotonic() - began < seconds:
        number += 1
        app.send(f"1-0 vw 1 {number}")
        try:
            app.expect(f"1-0 vw 2 {number}", timeout=3)
            return time.monotonic() - began
        except AssertionError:
            continue
    raise AssertionError(f"the Uno did not come back in {seconds} s")


@one_at_a_time
@pytest.mark.slow
def test_an_uno_is_back_after_noise(place, house):
    cable, _, bridge = uno_wired(place, house)
    chance = random.Random(5)
    cable.spoil = lambda data, to_board: bytes(
        byte ^ 1 << chance.randrange(8) if chance.random() < 1e-3 else byte for byte in data
    )
    for n in range(1, 201):
        house.app.send(f"1-0 vw 1 {n}")
        house.app.receive(0.15)
    cable.spoil = lambda data, to_board: data
    took = back_within(house.app, 90)
    print(f"back after {took:.0f} s; {bridge.log.count('online at')} logins")


@one_at_a_time
@pytest.mark.slow
def test_an_uno_is_back_after_its_ring_ran_over(place, house):
    """Without pacing, forty values at once: what --pace is there against."""
    uno_wired(place, house, "--pace", 0)
    for n in range(1, 41):
        house.app.send(f"1-0 vw 1 {n}")
    took = back_within(house.app, 90)
    print(f"back after {took:.0f} s")


# ---------------------------------------------------------------------------------------------------------------
# The file itself
# ---------------------------------------------------------------------------------------------------------------


def test_the_rooms_are_where_the_front_matter_says():
    with open(PROGRAM, encoding="utf-8") as file:
        source = file.read()
    front, _, rest = source.partition('"""\n\nfrom')
    listed = re.findall(r"(\d+) ([A-Z][A-Za-z ]+?)(?=   |\n)", front)
    banners = re.findall(r"^# =+\n#  (\d+)  (.+)\n#\n#  \S", rest, re.MULTILINE)
    assert listed == banners


def test_the_readme_names_every_option():
    with open(os.path.join(os.path.dirname(PROGRAM), "README.md"), encoding="utf-8") as file:
        readme = file.read()
    if "## Boards on a USB cable" not in readme:
        pytest.skip("the chapter is not written yet")
    missing = [flag for row in program().OPTIONS for flag in row[1] if flag not in readme]
    assert not missing
