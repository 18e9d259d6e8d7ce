"""WebSocket clients of other people: Python's `websockets` and Node's ws or built-in one, against both endpoints."""

import os
import shutil
import struct
import subprocess

import pytest
from clients import OK, password_hash, tls_context, widget
from servers import HOST

HARDWARE, LOGIN, HARDWARE_LOGIN, PING = 20, 2, 29, 6


@pytest.fixture(params=["plain", "tls"])
def place(request, server):
    """(URL without path, arguments of connect) of each port."""
    if request.param == "plain":
        return f"ws://{HOST}:{server.http_port}", {}
    return f"wss://{HOST}:{server.https_port}", {"ssl": tls_context()}


def frame(command, id, body):
    return struct.pack(">BHH", command, id, len(body)) + body


def message(command, id, body=b""):
    return struct.pack(">BH", command, id) + body


@pytest.mark.parametrize("path", ["/websockets", "/websocket", "/websockets/any", "/websockets?x=1"])
def test_a_board_of_the_python_library(place, house, path):
    client = pytest.importorskip("websockets.sync.client")
    url, more = place
    with client.connect(url + path, **more) as board:
        board.send(frame(HARDWARE_LOGIN, 1, house.tokens[0].encode()))
        assert board.recv() == struct.pack(">BHH", 0, 1, 200)
        house.app.expect("1-0", "HARDWARE_CONNECTED")
        board.send([b"\x14\x00\x02\x00\x08vw", b"\x005\x00a", b"bc"])  # fragments of one message
        house.app.expect("1-0 vw 5 abc", id=2)
        board.send(frame(HARDWARE, 3, b"vw\0005\0001") + frame(HARDWARE, 4, b"vw\0005\0002")[:6])
        board.send(frame(HARDWARE, 4, b"vw\0005\0002")[6:])
        house.app.expect("1-0 vw 5 1", id=3)
        house.app.expect("1-0 vw 5 2", id=4)
        board.send("text is ignored")
        pong = board.ping(b"hello")
        assert pong.wait(10)
        house.app.send("1-0 vw 5 9", id=77)
        assert board.recv(10) == frame(HARDWARE, 77, b"vw\0005\0009")
    house.app.expect("1-0", "DEVICE_OFFLINE")


def test_an_app_of_the_python_library(place, house):
    client = pytest.importorskip("websockets.sync.client")
    url, more = place
    with client.connect(url + "/dashws", max_size=1 << 22, **more) as app:
        app.send(message(LOGIN, 1, f"{house.email}\0{password_hash('pw', house.email)}".encode()))
        assert app.recv() == message(0, 1, (200).to_bytes(4, "big"))
        app.send(message(PING, 2))
        assert app.recv() == message(0, 2, (200).to_bytes(4, "big"))
        for malformed in (b"", b"\x14", b"\x14\x00", b"\xff\x00\x01x"):
            app.send(malformed)
        app.send(message(HARDWARE, 3, b"1-0\0vw\0005\0007"))
        house.app.expect("1-0 vw 5 7", "APP_SYNC", id=3)


def test_a_long_message_in_fragments_and_one_that_is_too_long(server, house):
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    document = b'1\0{"id":1,"name":"' + b"n" * 150_000 + b'"}'
    with client.connect(f"ws://{HOST}:{server.http_port}/dashws") as app:
        app.send(message(LOGIN, 1, f"{house.email}\0{password_hash('pw', house.email)}".encode()))
        app.recv()
        whole = message(99, 2, document)
        app.send([whole[i : i + 60_000] for i in range(0, len(whole), 60_000)])
        app.send(message(PING, 3))
        assert app.recv()[:3] == message(0, 3)
        with pytest.raises(exceptions.ConnectionClosedError) as closed:
            app.send(b"\x63" * 1_000_000)
            app.recv()
        assert closed.value.rcvd.code == 1009


def test_handshakes_that_are_none(server):
    with server.http() as user:
        head = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        answer = user.get("/websockets", {**head, "Sec-WebSocket-Version": "8"})
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
        assert user.get("/websockets", {**head, "Sec-WebSocket-Key": "short"}).status == 400
        assert user.get("/websockets", {**head, "Connection": "close, keep"}).status == 400
        assert user.get("/dashws").status == 404
        assert user.get("/websocketsx", head).status == 404
        assert user.post("/websockets", b"", head).status == 403


NODE_APP = """
const [url, email, hash] = process.argv.slice(1);
const socket = new WebSocket(url);
socket.binaryType = "arraybuffer";
const head = (command, id) => [command, id >> 8, id & 255];
const say = (command, id, body) => socket.send(Uint8Array.from([...head(command, id), ...new TextEncoder().encode(body)]));
socket.onopen = () => say(2, 1, `${email}\\0${hash}`);
socket.onmessage = ({ data }) => {
  const bytes = new Uint8Array(data);
  const id = bytes[1] << 8 | bytes[2];
  if (bytes[0] === 0 && id === 1) {
    if (bytes[6] !== 200) process.exit(3);
    say(20, 2, "1-0\\0vw\\x005\\x00from node");
  } else if (bytes[0] === 20) {
    console.log(new TextDecoder().decode(bytes.slice(3)).replaceAll("\\0", " "));
    socket.close(1000, "done");
  }
};
socket.onclose = ({ code }) => process.exit(code === 1000 ? 0 : 4);
setTimeout(() => process.exit(5), 15000);
"""


@pytest.mark.parametrize("tls", [False, True])
def test_an_app_in_node(server, house, tls):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    has = subprocess.run(
        [node, "--experimental-websocket", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"],
        capture_output=True,
        check=False,
    )
    if has.returncode:
        pytest.skip("this node has no WebSocket")
    house.app.add_widget(1, widget("SLIDER", 5, 5))
    board = house.hardware()
    url = f"wss://{HOST}:{server.https_port}/dashws" if tls else f"ws://{HOST}:{server.http_port}/dashws"
    environment = {**os.environ, "NODE_TLS_REJECT_UNAUTHORIZED": "0", "NODE_NO_WARNINGS": "1"}
    command = [node, "--experimental-websocket", "-e", NODE_APP, url, house.email, password_hash("pw", house.email)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        board.expect("vw 5 from node", id=2)
        board.send("vw 5 hello node")
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert output == "1-0 vw 5 hello node\n"
    assert process.returncode == 0


def test_a_plain_websocket_on_the_tls_port_fails_quietly(server):
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    with pytest.raises((OSError, EOFError, exceptions.InvalidHandshake)):
        client.connect(f"ws://{HOST}:{server.https_port}/websockets", open_timeout=3)
    assert server.app().ask("PING") == OK
