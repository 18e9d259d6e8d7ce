"""Boards on serial cables, and the bridge process between them and a server. Shares no code with blynk-ser.py.

cable = Cable(folder, baud=9600)        a pseudo-terminal whose bytes take the time a wire would
board = Board(cable)                    a scripted board: what a Hardware peer can say, over the cable
uno = Uno(cable, token)                 a simulated ATmega328P on the Arduino core, tests/avr
bridge = Bridge("-c", cable.path, "-s", f"127.0.0.1:{server.http_port}")
bridge.expect("online at")
cable.unplug(); cable.plug()
"""

import functools
import importlib.util
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty

import pytest
from clients import TIMEOUT, Hardware, Peer

HOST = "127.0.0.1"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "blynk-ser.py")
AVR = os.path.join(ROOT, "tests", "avr")
ARDUINO = "/usr/share/arduino/hardware/arduino/avr"
SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}


class Cable:
    """A pseudo-terminal at `path` (a symbolic link, as udev makes them) and a socket `end` for the board.

    Bytes pass at `baud`; with `own_speed` set, they come out wrong while the port is set to another speed.
    `spoil(data, to_board)` may change what passes.
    """

    def __init__(self, folder, name="ttyV0", baud=115200, own_speed=False):
        self.folder, self.name, self.baud, self.own_speed = str(folder), name, baud, own_speed
        self.master = self.slave = -1
        self.spoil = lambda data, to_board: data
        self.end, self.inner = socket.socketpair()
        self.inner.setblocking(False)
        self.wake, self.waker = os.pipe()
        self.lock = threading.Lock()
        self.running = True
        self.passed = [0, 0]  # bytes to the host, to the board
        self.plug()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def path(self):
        return os.path.join(self.folder, self.name)

    def plug(self, name=None):
        with self.lock:
            self.name = name or self.name
            self.master, self.slave = pty.openpty()
            tty.setraw(self.slave)
            temporary = self.path + ".new"
            os.symlink(os.ttyname(self.slave), temporary)
            os.rename(temporary, self.path)
        os.write(self.waker, b"x")

    def unplug(self):
        with self.lock:
            os.unlink(self.path)
            os.close(self.master)
            os.close(self.slave)
            self.master = self.slave = -1
        os.write(self.waker, b"x")

    def port_speed(self):
        """What the program at the port has set."""
        return SPEEDS.get(termios.tcgetattr(self.master)[5], 0)

    def close(self):
        self.running = False
        os.write(self.waker, b"x")
        self.thread.join(5)
        if self.master >= 0:
            self.unplug()
        self.end.close()
        self.inner.close()
        os.close(self.wake)
        os.close(self.waker)

    def _run(self):
        ways = ([bytearray(), 0.0], [bytearray(), 0.0])  # what waits, since when it may pass: to the host, to the board
        while self.running:
            with self.lock:
                master = self.master
            waiting = any(way[0] for way in ways)
            sources = [self.wake] + [self.inner] * (len(ways[0][0]) < 4096)
            if master >= 0 and len(ways[1][0]) < 4096:
                sources.append(master)
            try:
                ready = select.select(sources, [], [], 0.001 if waiting else 1.0)[0]
            except (OSError, ValueError):
                continue
            if self.wake in ready:
                os.read(self.wake, 100)
            now = time.monotonic()
            for index, source in ((0, self.inner), (1, master)):
                if source in ready:
                    self._take(ways[index], index, source, now)
                self._pass(ways[index], index, now)

    def _take(self, way, index, source, now):
        with self.lock:
            try:
                data = source.recv(4096) if index == 0 else os.read(source, 4096) if source == self.master else b""
                speed = self.port_speed() if self.own_speed and self.master >= 0 else self.baud
            except OSError:
                return
        if index == 0 and not data:
            time.sleep(0.01)
        if speed != self.baud:
            data = bytes((byte * 7 + 13) & 0x7F for byte in data)  # another speed's view of it
        if not way[0]:
            way[1] = now
        way[0] += self.spoil(data, index == 1)

    def _pass(self, way, index, now):
        count = min(len(way[0]), int((now - way[1]) * self.baud / 10))
        if count <= 0:
            return
        way[1] += count * 10 / self.baud
        data = bytes(way[0][:count])
        del way[0][:count]
        self.passed[index] += count
        with self.lock:
            try:
                if index == 1:
                    self.inner.sendall(data)
                elif self.master >= 0:
                    os.write(self.master, data)
            except OSError:
                pass


class Board(Hardware):
    """A scripted board on a cable. It can say all that a Hardware peer can."""

    def __init__(self, cable):
        Peer.__init__(self, cable.end)
        self.cable = cable

    def start(self, token, info="ver 0.6.1 h-beat 10 buff-in 256 dev Arduino_Uno con Stream"):
        """What a sketch does first: login, and the frame that describes the board."""
        code = self.login(token)
        if code == 200 and info:
            assert self.ask("BLYNK_INTERNAL", info) == 200
        return code

    def expect_kick(self, timeout=None):
        """The response that tells a board that it is not logged in any more."""
        return self.expect_status(5, timeout=timeout)


@functools.cache
def build_uno(defines=()):
    """Compiles the runner and the sketch; skips the test where the tools are missing. Returns the folder."""
    for tool in ("avr-g++", "avr-gcc", "gcc"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed (Debian: gcc-avr avr-libc gcc)")
    if not os.path.exists("/usr/include/simavr/sim_avr.h") or not os.path.isdir(ARDUINO):
        pytest.skip("simavr or the Arduino core is not installed (Debian: libsimavr-dev libelf-dev arduino-core-avr)")
    out = tempfile.mkdtemp(prefix="uno-")
    core = f"{ARDUINO}/cores/arduino"
    flags = ["-mmcu=atmega328p", "-DF_CPU=16000000L", "-DARDUINO=10819", "-DARDUINO_AVR_UNO", "-DARDUINO_ARCH_AVR"]
    flags += ["-DDECIMAL_DIG=17", "-Os", "-w", "-ffunction-sections", "-fdata-sections", f"-I{core}"]
    flags += [f"-I{ARDUINO}/variants/standard"]
    run = functools.partial(subprocess.run, check=True, capture_output=True)
    try:
        run(["gcc", "-O2", "-w", "-o", f"{out}/uno", f"{AVR}/uno.c", "-lsimavr", "-lelf", "-lm"])
        for name in ("wiring", "wiring_digital", "hooks"):
            run(["avr-gcc", *flags, "-c", f"{core}/{name}.c", "-o", f"{out}/{name}.o"])
        names = "HardwareSerial HardwareSerial0 Print Stream WString main new abi".split()
        sources = [f"{core}/{name}.cpp" for name in names]
        objects = [f"{out}/{name}.o" for name in ("wiring", "wiring_digital", "hooks")]
        flags += [*defines, "-std=gnu++11", "-fno-exceptions", "-fno-threadsafe-statics", "-Wl,--gc-sections"]
        run(["avr-g++", *flags, f"{AVR}/stream_board.cpp", *sources, *objects, "-o", f"{out}/board.elf"])
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"the Uno's program does not compile:\n{error.stderr.decode()[-3000:]}") from None
    return out


class Uno:
    """A simulated Uno at the cable; its receive ring holds 64 bytes and is filled at the line's speed."""

    def __init__(self, cable, token, *defines, baud=9600):
        self.cable, self.baud = cable, baud  # the simulated UART keeps the line's speed; the cable may be faster
        self.folder = build_uno((f'-DTOKEN="{token}"', f"-DBAUD={baud}", *defines))
        self.process = None
        self.power_on()

    def power_on(self):
        """Starts the program from the beginning."""
        self.process = subprocess.Popen(
            [f"{self.folder}/uno", f"{self.folder}/board.elf", str(self.baud)],
            stdin=self.cable.end.fileno(),
            stdout=self.cable.end.fileno(),
            stderr=subprocess.DEVNULL,
        )

    def power_off(self):
        self.process.kill()
        self.process.wait()

    close = power_off


class Bridge:
    """A running blynk-ser.py and what it says."""

    def __init__(self, *arguments, python=sys.executable, environment=None, prefix=()):
        env = dict(os.environ, HOME="/nonexistent", PYTHONUNBUFFERED="1", JOURNAL_STREAM="test")
        env.pop("NOTIFY_SOCKET", None)
        env.update(environment or {})
        self.process = subprocess.Popen(
            [*prefix, python, PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
        )
        self.lines, self.seen = [], 0
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip())
                self.changed.notify_all()
        with self.changed:
            self.lines.append("(ended)")
            self.changed.notify_all()

    @property
    def log(self):
        return "\n".join(self.lines)

    @property
    def pid(self):
        return self.process.pid

    def expect(self, text, timeout=TIMEOUT):
        """Waits for a line with that text, after those that earlier calls found; returns it."""
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                while self.seen < len(self.lines):
                    line = self.lines[self.seen]
                    self.seen += 1
                    if text in line:
                        return line
                left = end - time.monotonic()
                if left <= 0 or (self.lines and self.lines[-1] == "(ended)"):
                    raise AssertionError(f"the bridge did not say {text!r}; it said:\n{self.log}")
                self.changed.wait(left)

    def signal(self, name):
        self.process.send_signal(getattr(signal, name))

    def stop(self):
        """TERM; the exit must be orderly. Looks for tracebacks."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the bridge did not stop:\n{self.log}") from None
        self.thread.join(TIMEOUT)
        self.process.stderr.close()
        assert "Traceback" not in self.log, self.log
        return code

    def wait(self, timeout=TIMEOUT):
        """Its own end; returns the exit code."""
        code = self.process.wait(timeout)
        self.thread.join(TIMEOUT)
        return code


class RawServer:
    """A server for faults that a right one does not make: the test says each byte."""

    def __init__(self):
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(10)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(10)
        return sock

    def accept_login(self, answer=b"\0\0\1\0\xc8"):
        """Accepts a connection, takes the login and answers it; returns (socket, token)."""
        sock = self.accept()
        frame = b""
        while len(frame) < 37:
            frame += sock.recv(100)
        sock.sendall(answer)
        return sock, frame[5:37].decode()

    def close(self):
        self.listener.close()


def program():
    """blynk-ser.py as a module: its dash keeps it from being imported by name."""
    if "blynk_ser" not in sys.modules:
        spec = importlib.util.spec_from_file_location("blynk_ser", PROGRAM)
        module = importlib.util.module_from_spec(spec)
        sys.modules["blynk_ser"] = module
        spec.loader.exec_module(module)
    return sys.modules["blynk_ser"]


@pytest.fixture
def place():
    """A folder for ports; whatever was made with .keep() is closed before it goes."""

    class Place:
        folder = tempfile.mkdtemp(prefix="ser-")
        kept = []

        def keep(self, thing):
            self.kept.append(thing)
            return thing

    place = Place()
    place.kept = []
    yield place
    failures = []
    for thing in reversed(place.kept):
        try:
            (thing.stop if hasattr(thing, "stop") else thing.close)()
        except AssertionError as failure:
            failures.append(failure)
    shutil.rmtree(place.folder, ignore_errors=True)
    if failures:
        raise failures[0]
