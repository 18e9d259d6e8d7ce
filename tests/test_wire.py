"""Frames on real sockets: whole, in pieces, wrong, unknown, too long, random (spec 01 §2, §3, §6)."""

import os
import random
import struct

import pytest
from clients import (
    ILLEGAL_COMMAND,
    NOT_ALLOWED,
    OK,
    USER_ALREADY_REGISTERED,
    App,
    AppWebSocket,
    Hardware,
    connect,
    http_raw,
    new_email,
    password_hash,
)
from servers import HOST

UNKNOWN_BUT_KNOWN_TO_OTHERS = (5, 10, 11, 21, 41, 52, 64, 65, 73, 75, 82, 94, 99)  # a board may send them: ignored
NOT_FOR_APPS = (5, 10, 11, 12, 14, 15, 16, 17, 18, 29, 41, 52, 64, 73, 75, 82, 94, 99)
TOO_BIG_TO_BE_TRUE = 10_000_001

HARDWARE_KINDS = {
    "tcp": {},
    "tls": {"tls": True},
    "websocket": {"websocket": True},
    "tls-websocket": {"tls": True, "websocket": True},
}


@pytest.fixture(params=HARDWARE_KINDS)
def board(request, house):
    """A board that is logged in, one for each way to connect."""
    return house.hardware(**HARDWARE_KINDS[request.param])


@pytest.fixture(params=["tcp", "websocket", "tls-websocket"])
def stranger(request, server):
    """A board's connection that has not logged in. (Over plain TLS nothing but its login tells a board from an app.)"""
    return server.hardware(**HARDWARE_KINDS[request.param])


@pytest.fixture(params=["tls", "websocket"])
def app(request, house):
    """An app that is logged in, over TLS and from a browser."""
    if request.param == "tls":
        return house.app
    tab = house.server.app_websocket(house.email)
    house.peers.append(tab)
    return tab


@pytest.fixture(params=["tls", "websocket"])
def unknown_app(request, server):
    if request.param == "tls":
        return server.unknown()
    return AppWebSocket(HOST, server.https_port)


# ---------------------------------------------------------------------------------------------------------------
# The rows of spec 01 §6: boards
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [100, 101, 200, 255])
def test_an_unknown_number_from_a_board_closes_the_connection(board, number):
    board.command(number, b"")
    board.closed()


@pytest.mark.parametrize("number", [100, 255])
def test_an_unknown_number_before_the_login_closes_the_connection(stranger, number):
    stranger.command(number, b"abc")
    stranger.closed()


def test_the_close_comes_when_the_header_is_seen(house):
    hw = house.hardware()
    hw.send_raw(struct.pack(">BHH", 100, 2, 5000))  # and no body
    hw.closed()


@pytest.mark.parametrize("number", UNKNOWN_BUT_KNOWN_TO_OTHERS)
def test_a_command_that_boards_do_not_have_is_ignored(house, number):
    hw = house.hardware()
    hw.command(number, "1 2 3")
    hw.silence()
    house.app.silence()


@pytest.mark.parametrize("command", ["PING", "HARDWARE", "HARDWARE_SYNC", "BLYNK_INTERNAL", "BRIDGE", "REGISTER"])
def test_a_board_must_log_in_before_anything_else(stranger, command):
    stranger.command(command, "vw 1 2")
    stranger.closed()


def test_a_second_login_is_refused_and_the_board_stays(board, house):
    for command in ("HARDWARE_LOGIN", "LOGIN"):
        assert board.ask(command, house.tokens[0].encode()) == USER_ALREADY_REGISTERED
    board.silence()


def test_a_response_before_the_login_closes_the_connection(stranger):
    stranger.respond(1, OK)
    stranger.closed()


def test_a_response_after_the_login_is_ignored(board):
    board.respond(7, ILLEGAL_COMMAND)
    board.respond(8, OK)  # the code 200 is not a length
    board.silence()


@pytest.mark.parametrize("body", ["vw x 1", "vw 256 1", "vw -1 1", "vw 1.5 1", "xw 1 1", "vw 99999999999 1"])
def test_a_number_that_is_none_is_an_illegal_command(board, body):
    assert board.ask("HARDWARE", body) == ILLEGAL_COMMAND
    board.silence()


def test_half_a_frame_waits_for_its_other_half(house):
    hw = house.hardware()
    frame = hw.pack("HARDWARE", b"vw\x005\x00123", 9)
    for cut in range(1, len(frame)):
        hw.send_raw(frame[:cut])
        house.app.silence()
        hw.send_raw(frame[cut:])
        house.app.expect("1-0 vw 5 123", id=9)


def test_a_body_of_the_full_65535_bytes_arrives(house):
    hw = house.hardware()
    value = "x" * (65535 - 5)
    hw.send("vw", "5", value)
    house.app.expect(f"1-0 vw 5 {value}")


# ---------------------------------------------------------------------------------------------------------------
# The rows of spec 01 §6: apps
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [100, 101, 200, 255])
def test_an_unknown_number_from_an_app_closes_the_connection(house, number):
    house.app.command(number, b"")
    house.app.closed()


def test_an_unknown_number_from_a_browser_is_ignored(house):
    tab = house.server.app_websocket(house.email)
    for number in (100, 200, 255):
        tab.command(number, b"abc")
    tab.send_raw(b"\x14\x00")  # shorter than a header
    tab.send_raw(b"\x14")
    tab.silence()
    tab.close()


@pytest.mark.parametrize("number", NOT_FOR_APPS)
def test_a_command_that_apps_do_not_have_is_ignored(app, number):
    app.command(number, "1 2 3")
    app.silence()


@pytest.mark.parametrize("command", ["LOGIN", "REGISTER", "GET_SERVER", "RESET_PASSWORD", "SHARE_LOGIN"])
def test_what_belongs_before_the_login_is_ignored_after_it(app, house, command):
    app.command(command, house.email, "x", "Blynk")
    app.silence()


@pytest.mark.parametrize("command", ["PING", "HARDWARE", "LOAD_PROFILE_GZIPPED", "CREATE_DASH", "LOGOUT"])
def test_an_app_must_log_in_before_anything_else(unknown_app, command):
    unknown_app.command(command, "1")
    unknown_app.closed()


def test_a_second_register_on_one_connection_is_refused_and_closed(unknown_app):
    assert unknown_app.register(new_email()) == OK
    assert unknown_app.register(new_email()) == NOT_ALLOWED
    unknown_app.closed()


def test_a_response_from_an_app_before_the_login_closes_the_connection(unknown_app):
    unknown_app.respond(1, OK)
    unknown_app.closed()


def test_a_response_from_an_app_after_the_login_is_ignored(app):
    app.respond(7, OK)
    app.silence()


@pytest.mark.parametrize("command", ["ACTIVATE_DASHBOARD", "DELETE_DASH", "APP_SYNC", "GET_DEVICES"])
def test_a_number_that_is_none_from_an_app_is_an_illegal_command(app, command):
    assert app.ask(command, "nonsense") == ILLEGAL_COMMAND
    app.silence()


@pytest.mark.parametrize("length", [TOO_BIG_TO_BE_TRUE, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("logged_in", [True, False])
def test_too_long_a_frame_closes_the_connection_at_its_header(server, length, logged_in):
    app = server.app() if logged_in else server.unknown()
    app.send_raw(struct.pack(">BHI", 2, 9, length))
    app.closed()


def test_an_apps_frame_in_pieces_is_put_together(house):
    hw = house.hardware()
    frame = house.app.pack("HARDWARE", b"1-0\x00vw\x005\x00123", 9)
    for cut in range(1, len(frame)):
        house.app.send_raw(frame[:cut])
        house.app.send_raw(frame[cut:])
        hw.expect("vw 5 123", id=9)


# ---------------------------------------------------------------------------------------------------------------
# Which protocol is it (spec 01 §2)
# ---------------------------------------------------------------------------------------------------------------


def test_nothing_is_decided_before_five_bytes(house):
    hw = house.server.hardware()
    frame = hw.pack("HARDWARE_LOGIN", house.tokens[0].encode(), 1)
    for i in range(len(frame)):
        hw.send_raw(frame[i : i + 1])
    hw.expect_status(OK, 1)


def test_a_tls_board_with_the_old_login_command_is_a_board(house):
    hw = house.server.hardware(tls=True)
    assert hw.login(house.tokens[0], "LOGIN") == OK
    hw.send("vw 5 1")
    house.app.expect("1-0 vw 5 1")


def test_a_tls_board_whose_first_frame_has_another_id_is_taken_for_an_app(house):
    hw = house.server.hardware(tls=True)
    hw.command("HARDWARE_LOGIN", house.tokens[0].encode(), id=2)  # an app's frame of two megabytes begins so: too long
    hw.closed()


def test_an_app_on_the_plain_port_is_taken_for_a_board(server):
    sock = connect(HOST, server.http_port)
    peer = Hardware.__new__(Hardware)
    super(Hardware, peer).__init__(sock)
    peer.send_raw(App.pack(App.__new__(App), "LOGIN", b"a@example.com\0hash", 1))
    peer.ended or peer.receive(10)
    peer.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "TRACE", "CONNECT"])
@pytest.mark.parametrize("tls", [False, True])
def test_every_http_method_is_taken_for_http(server, method, tls):
    port = server.https_port if tls else server.http_port
    answer = http_raw(HOST, port, f"{method} /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), tls)
    assert answer.startswith(b"HTTP/1.1 "), answer


def test_plain_text_on_the_tls_port_is_closed(server):
    sock = connect(HOST, server.https_port)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    sock.settimeout(10)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    sock.close()
    server.check_log()


# ---------------------------------------------------------------------------------------------------------------
# Anything at all
# ---------------------------------------------------------------------------------------------------------------

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
RELAXED = hypothesis.settings(
    deadline=None,
    max_examples=60 if os.environ.get("CI") else 25,
    suppress_health_check=list(hypothesis.HealthCheck),
)

texts = st.one_of(
    st.sampled_from(
        ["", "1", "0", "1-0", "vw", "vr", "dw", "pm", "vu", "5", "256", "-1", "clr", "add", "i", "rtc", "ver"]
    ),
    st.text(max_size=12),
    st.integers(-(2**40), 2**40).map(str),
    st.sampled_from(
        ["{}", "[]", "null", '{"id":1}', '{"id":1,"type":"BUTTON"}', "{", '{"id":"x"}', '{"widgets":null}']
    ),
)
bodies = st.lists(texts, max_size=6).map(lambda parts: "\0".join(parts).encode("utf-8", "surrogatepass"))
numbers = st.one_of(st.integers(0, 99), st.integers(0, 255))
frames = st.lists(st.tuples(numbers, st.integers(0, 65535), bodies), max_size=12)


def in_pieces(data, seed):
    """The same bytes in pieces of arbitrary sizes."""
    rng = random.Random(seed)
    while data:
        size = rng.choice([1, 2, 3, 5, 7, 100, len(data)])
        yield data[:size]
        data = data[size:]


def pour(sock, data, seed):
    """Writes the pieces; that the server closes meanwhile is fine."""
    try:
        for piece in in_pieces(data, seed):
            sock.sendall(piece)
        sock.settimeout(0.02)
        sock.recv(65536)
    except OSError:
        pass
    sock.close()


@pytest.fixture(scope="module")
def target(_shared_server):
    """An account that random sessions may ruin."""
    app = _shared_server.app()
    app.make_project(1)
    token = app.token()
    yield _shared_server, app.email, token
    app.close()


def still_well(server):
    with server.hardware() as hw:
        assert hw.login("x" * 32) == 9
    assert server.app().ask("PING") == OK
    server.check_log()


@RELAXED
@hypothesis.given(data=st.binary(max_size=300), seed=st.integers())
def test_random_bytes_harm_nobody(target, data, seed):
    server, _, _ = target
    pour(connect(HOST, server.http_port), data, seed)
    pour(App.open(HOST, server.https_port), data, seed)
    server.check_log()


@RELAXED
@hypothesis.given(session=frames, seed=st.integers())
def test_random_sessions_of_a_board_harm_nobody(target, session, seed):
    server, _, token = target
    hw = server.hardware(token)
    pour(hw.sock, b"".join(hw.pack(number, body[:60000], id) for number, id, body in session), seed)
    server.check_log()


@RELAXED
@hypothesis.given(session=frames, seed=st.integers())
def test_random_sessions_of_an_app_harm_nobody(target, session, seed):
    server, email, _ = target
    app = server.unknown()
    assert app.ask("LOGIN", email, password_hash("pw", email), "Android", "2.27.0", "Blynk") == OK
    pour(app.sock, b"".join(app.pack(number, body, id) for number, id, body in session), seed)
    server.check_log()


def test_after_all_that_the_server_is_well(target):
    still_well(target[0])


def test_garbage_does_not_make_the_server_grow(make_server):
    server = make_server()
    rng = random.Random(1)

    def garbage(count):
        for _ in range(count):
            pour(connect(HOST, server.http_port), rng.randbytes(2000), rng.random())
        for _ in range(count // 10):
            pour(App.open(HOST, server.https_port), rng.randbytes(2000), rng.random())

    garbage(100)
    before = server.rss_kb()
    garbage(300)
    assert server.rss_kb() - before < 1024, "resident memory grew"
    still_well(server)
