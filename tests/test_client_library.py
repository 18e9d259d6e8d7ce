"""Real client libraries from the registries, unchanged, against this server."""

import os
import shutil
import subprocess
import threading

import pytest
from clients import TIMEOUT
from servers import HOST, ROOT

NODE_LIBRARY = os.environ.get(
    "BLYNK_NODE_LIBRARY", os.path.join(ROOT, ".venv", "node", "node_modules", "blynk-library")
)


@pytest.fixture
def python_board(house):
    """blynklib, the Python library, running in a thread: (what it received, the board)."""
    blynklib = pytest.importorskip("blynklib")
    board = blynklib.Blynk(house.tokens[0], server=HOST, port=house.server.http_port, heartbeat=5)
    received, stop, ready = [], threading.Event(), threading.Event()
    board._events = {}

    @board.handle_event("connect")
    def on_connect():
        ready.set()

    @board.handle_event("write V4")
    def on_write(pin, value):
        received.append((pin, value))
        board.virtual_write(5, *value)

    def run():
        while not stop.is_set():
            board.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(TIMEOUT)
    yield received, board
    stop.set()
    thread.join(TIMEOUT)
    board.RECONNECT_SLEEP = 0
    board.disconnect()


def test_the_python_library_exchanges_values_with_an_app(house, python_board):
    received, board = python_board
    house.app.expect("1-0", "HARDWARE_CONNECTED")
    house.app.send("1-0 vw 4 17")
    house.app.expect("1-0 vw 5 17")
    assert received == [(4, ["17"])]
    assert house.app.device()["hardwareInfo"]["boardType"] == "python"
    board.virtual_write(6, "a", "b")
    house.app.expect("1-0 vw 6 a b")
    board.set_property(5, "label", "From Python")
    house.app.expect("1-0 5 label From Python", "SET_WIDGET_PROPERTY")
    board.virtual_sync(4)
    house.app.expect("1-0 vw 5 17")  # the sync came back as a write to V4, which the board echoes


JAVASCRIPT_BOARD = """
const Blynk = require(process.argv[2]);
const blynk = new Blynk.Blynk(process.argv[3], {
  connector: new Blynk.TcpClient({addr: process.argv[4], port: +process.argv[5]})
});
const v4 = new blynk.VirtualPin(4), v5 = new blynk.VirtualPin(5);
v4.on('write', values => v5.write(values));
blynk.on('connect', () => console.log('ready'));
"""


@pytest.mark.skipif(not shutil.which("node") or not os.path.isdir(NODE_LIBRARY), reason="needs node and blynk-library")
def test_the_javascript_library_exchanges_values_with_an_app(house, tmp_path):
    script = tmp_path / "board.js"
    script.write_text(JAVASCRIPT_BOARD)
    board = subprocess.Popen(
        ["node", str(script), NODE_LIBRARY, house.tokens[0], HOST, str(house.server.http_port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        house.app.expect("1-0", "HARDWARE_CONNECTED")
        while board.stdout.readline() not in ("ready\n", ""):
            pass
        house.app.send("1-0 vw 4 hello")
        house.app.expect("1-0 vw 5 hello")
        assert house.app.device()["hardwareInfo"]["boardType"] == "js"
    finally:
        board.kill()
        board.wait()
    house.app.expect("1-0", "DEVICE_OFFLINE")
