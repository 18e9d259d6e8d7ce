#!/usr/bin/env python3
"""blynk-ser: carries boards that only have a serial line (USB, Bluetooth, UART) to a Blynk server.

    blynk-ser.py                                   finds the board and the server by itself
    blynk-ser.py -c /dev/ttyUSB0 -s 192.168.1.5    the original script's options mean what they meant
    blynk-ser.py --all                             every board that is plugged in, now or later
    blynk-ser.py --ncp -c /dev/ttyACM0             be the network co-processor of a Blynk.NCP board

One dependency, pyserial. One process, one thread for all boards; a thread of its own only for what can block
(opening a port, looking up and dialling a server, downloading a firmware).

How a value travels:

    board → Line → FrameReader (finds the frames in what the line brings) → Bridge → ServerLink → server
    server → ServerLink → Bridge → Pacer (never more than the board can hold) → Line → board
    Blynk.NCP board ↔ Line ↔ NcpLink (frames and calls, no I/O) ↔ Ncp (what each call means here) ↔ ServerLink

Rooms, top to bottom; a room only uses those above it:

    1 Vocabulary   2 Options   3 Frames   4 Pacer   5 Loop   6 Ports   7 Server   8 Worker   9 Bridge
    10 NCP wire   11 Place and time   12 Firmware   13 NCP   14 Program
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and hasattr(os, "memfd_create") and "BLYNK_SER_FILE" not in os.environ:
    # A script that Python compiles at start keeps megabytes of compiler leftovers (13 MB of 24 here). So the compiled
    # code goes to a fresh interpreter, through memory: no cache file, and it works in a folder that is read only.
    import marshal

    _fd = os.memfd_create("blynk-ser", 0)
    with os.fdopen(os.dup(_fd), "wb") as _file:
        marshal.dump(sys._getframe().f_code, _file)
    os.lseek(_fd, 0, os.SEEK_SET)
    os.environ["BLYNK_SER_FILE"] = os.path.abspath(__file__)
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    _boot = (
        "import marshal,os,sys;__file__=os.environ['BLYNK_SER_FILE'];sys.path[0]=os.path.dirname(__file__);"
        f"_f=open({_fd},'rb');_c=marshal.load(_f);_f.close();exec(_c)"
    )
    try:
        os.execv(sys.executable, [sys.executable, "-c", _boot, *sys.argv])
    except OSError:  # no such luck: go on in this process
        os.close(_fd)
        del os.environ["BLYNK_SER_FILE"]

import errno
import heapq
import selectors
import signal
import socket
import struct
import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Optional

VERSION = "1.0.0"

# ======================================================================================================================
#  1  Vocabulary
#
#  The words of the wire (spec 01), the boards by USB id (spec 10 §3.8), the exit codes, the log.
# ======================================================================================================================

RESPONSE, LOGIN, PING, BRIDGE, SYNC, INTERNAL, PROPERTY, HARDWARE = 0, 2, 6, 15, 16, 17, 19, 20
PUSH, GROUP, HARDWARE_LOGIN, REDIRECT, DEBUG_PRINT, LOG_EVENT = 14, 21, 29, 41, 55, 64
OK, ALREADY_REGISTERED, NOT_AUTHENTICATED, INVALID_TOKEN = 200, 4, 5, 9

STATUS_TEXT = {
    1: "quota exceeded",
    2: "illegal command",
    3: "not registered",
    4: "already registered",
    5: "not authenticated",
    9: "invalid token",
    16: "time-out",
    19: "server error",
}

EXIT_SIGNAL, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_NO_PYSERIAL = 0, 1, 2, 3, 4

NO_PYSERIAL = (
    "blynk-ser needs pyserial: sudo apt install python3-serial   (or: python3 -m pip install pyserial)\n"
    "with a virtual environment: use its python to start blynk-ser.py"
)

# USB ids: vendor, product (None = all of the vendor), what it is, how sure we are that it is a board, and whether
# USB itself holds back what the sketch does not read yet ("native": no 64-byte ring, so no pacing).
BOARDS = (
    (0x2341, 0x8036, "Arduino Leonardo", "board", True),
    (0x2341, 0x8037, "Arduino Micro", "board", True),
    (0x2341, 0x0043, "Arduino Uno", "board", False),
    (0x2341, 0x0001, "Arduino Uno", "board", False),
    (0x2341, 0x0042, "Arduino Mega", "board", False),
    (0x2341, 0x0010, "Arduino Mega", "board", False),
    (0x2341, None, "Arduino", "board", False),
    (0x2A03, None, "Arduino", "board", False),
    (0x2E8A, None, "Raspberry Pi Pico", "board", True),
    (0x303A, None, "Espressif", "board", True),
    (0x16C0, 0x0483, "Teensy", "board", True),
    (0x239A, None, "Adafruit", "board", True),
    (0x1B4F, None, "SparkFun", "board", True),
    (0x2886, None, "Seeed", "board", True),
    (0x0483, 0x5740, "STM32", "board", True),
    (0x1A86, 0x7523, "CH340", "converter", False),
    (0x1A86, 0x5523, "CH341", "converter", False),
    (0x1A86, 0x55D4, "CH9102", "converter", False),
    (0x0403, 0x6001, "FTDI", "converter", False),
    (0x0403, 0x6015, "FTDI", "converter", False),
    (0x0403, 0x6010, "FTDI", "converter", False),
    (0x10C4, 0xEA60, "CP210x", "converter", False),
    (0x067B, 0x2303, "PL2303", "converter", False),
)
# Opening one of these toggles DTR of a thing that is not ours.
NOT_BOARDS = ("zigbee", "z-wave", "zwave", "modem", "gps", "conbee", "sonoff", "ups")


TOKEN_BYTES = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_")


def short_token(token: bytes) -> str:
    """The ends of a token, enough to recognise it, useless to a reader of the log: `abcd…wxyz`."""
    text = token.decode("latin-1")
    return f"{text[:4]}…{text[-4:]}" if len(text) > 12 else "…"


def shown(data: bytes) -> str:
    """A body or a line for the log: blanks for NULs, nothing that moves a terminal's cursor, tokens by their ends."""
    words = []
    for word in data.split(b"\0"):
        is_token = len(word) == 32 and all(c in TOKEN_BYTES for c in word)
        text = short_token(word) if is_token else word.decode("utf-8", "replace")
        words.append("".join(c if c.isprintable() else "·" for c in text))
    return " ".join(words)


def status_text(status: int) -> str:
    return f"{status} ({STATUS_TEXT[status]})" if status in STATUS_TEXT else str(status)


class Log:
    """Lines on standard error. Level 0 troubles only, 1 changes of state, 2 frames, 3 bytes."""

    __slots__ = ("level", "clock")

    def __init__(self) -> None:
        self.level = 1
        self.clock = "JOURNAL_STREAM" not in os.environ  # the journal has its own clock

    def write(self, level: int, alias: str, text: str) -> None:
        if level > self.level:
            return
        prefix = time.strftime("%H:%M:%S ") if self.clock else ""
        line = f"{prefix}[{alias}] {text}\n" if alias else f"{prefix}{text}\n"
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except (OSError, ValueError):  # the terminal is gone; the bridge is not
            pass


log = Log()

# ======================================================================================================================
#  2  Options
#
#  One table: the command line, the settings file and the help are read from it. A name given on the command line wins
#  over the port's section of the file, that over [DEFAULT], that over the table.
# ======================================================================================================================

# name, flags, kind, default, help. Kinds: str int float flag list count hidden-free choices as a tuple.
OPTIONS: tuple[tuple[str, tuple[str, ...], Any, Any, str], ...] = (
    (
        "comm",
        ("-c", "--comm"),
        "list",
        (),
        "serial port: path, pattern, VID:PID[:serial], hwgrep://regex, URL, auto or all; @baud may follow; repeatable",
    ),
    ("baud", ("-b", "--baud"), "int", 0, "speed (9600; with --ncp 38400)"),
    ("server", ("-s", "--server"), "str", "auto", "server as host or host:port; auto looks for one on the network"),
    ("port", ("-p", "--port"), "int", 0, "server port (8080, with TLS 9443)"),
    ("source", ("-f", "--from"), ("SER", "TCP"), "SER", "SER serial port, TCP listen for clients that are boards"),
    ("listen", ("-l", "--listen"), "int", 80, "TCP port to listen on with -f TCP"),
    ("to", ("-t", "--to"), ("TCP", "SSL", "2WAY"), "TCP", "how to reach the server: TCP or SSL"),
    ("tls", ("--tls",), "flag", False, "same as -t SSL"),
    ("cert", ("--cert",), "str", "", "file of the certificate authority, or of the server's own certificate"),
    ("insecure", ("--insecure",), "flag", False, "TLS without checking whom we talk to"),
    ("fingerprint", ("--fingerprint",), "str", "", "TLS: SHA-256 of the server's certificate, instead of an authority"),
    ("client_cert", ("--client-cert",), "str", "", "TLS: file with our own certificate and key"),
    ("token", ("--token",), "str", "", "log in with this token, whatever the board sends"),
    ("all", ("--all",), "flag", False, "every board that is plugged in, now or later"),
    ("any", ("--any",), "flag", False, "count USB-to-serial converters of unknown use as boards"),
    ("list", ("--list",), "flag", False, "show the ports and end"),
    ("raw", ("--raw",), "flag", False, "copy bytes, whatever they are"),
    ("ncp", ("--ncp",), "flag", False, "be the network co-processor of a Blynk.NCP board"),
    ("pace", ("--pace",), "int", -1, "ms a board gets for each frame (75 where needed); 0 = no pacing"),
    ("grace", ("--grace",), "float", 5.0, "seconds without the server before the board is told"),
    ("reset", ("--reset",), ("auto", "always", "never"), "auto", "reset the board: once at start, at each open, never"),
    ("release", ("--release",), "int", 60, "seconds SIGUSR1 lets go of the ports, to upload a sketch"),
    ("scan_baud", ("--scan-baud",), "flag", False, "try the usual speeds until the board logs in"),
    ("once", ("--once",), "flag", False, "end with the first session instead of reconnecting"),
    ("config", ("--config",), "str", "", "settings file (~/.config/blynk-ser.ini, /etc/blynk/ser.ini)"),
    ("status", ("--status",), "str", "", "file that SIGUSR2 writes the counters to"),
    ("quiet", ("-q", "--quiet"), "flag", False, "show troubles only"),
    ("verbose", ("-v", "--verbose"), "count", 0, "show frames; twice: bytes"),
    ("ncp_max_frame", ("--ncp-max-frame",), "int", 1536, "NCP: largest payload the board takes; 256 for an AVR"),
    ("ncp_events", ("--ncp-events",), ("log", "push", "off"), "log", "NCP: what becomes of logEvent"),
    ("ncp_queue", ("--ncp-queue",), "int", 64, "NCP: pins kept while there is no server"),
    ("ncp_led", ("--ncp-led",), "str", "", "NCP: LED of this computer that shows the state (name in /sys/class/leds)"),
    ("wifi_test", ("--no-wifi-test",), "off", True, "NCP: refuse the factory Wi-Fi test"),
    ("ota_force", ("--ota-force",), "flag", False, "NCP: accept firmware of another type"),
)

SCAN_SPEEDS = (9600, 115200, 57600, 38400, 19200, 230400)
MIN_BAUD, MAX_BAUD, BOOTLOADER_BAUD = 300, 4_000_000, 1200


class UsageError(Exception):
    """What the user asked for cannot be done; the text says how to mend it."""


class Options:
    """The values of the table, as attributes; `given` holds the names that the command line set."""

    __slots__ = tuple(row[0] for row in OPTIONS) + ("given", "sections")
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self) -> None:
        for name, _flags, _kind, default, _help in OPTIONS:
            setattr(self, name, default)
        self.given: set[str] = set()
        self.sections: dict[str, dict[str, str]] = {}

    @property
    def use_tls(self) -> bool:
        return bool(self.tls) or self.to == "SSL"

    @property
    def speed(self) -> int:
        return int(self.baud) or (38400 if self.ncp else 9600)

    def for_port(self, names: Iterable[str], baud: int = 0) -> Options:
        """These options with those of the port's own section (its path, USB id or pattern) laid over."""
        own = Options()
        for row in OPTIONS:
            setattr(own, row[0], getattr(self, row[0]))
        own.given, own.sections = self.given, self.sections
        for name in names:
            own.take(self.sections.get(name, {}), name)
        if baud:
            own.baud = baud
        own.check()
        return own

    def take(self, values: dict[str, str], where: str) -> None:
        """Text values of a settings file. Raises UsageError naming the key."""
        rows = {row[0]: row for row in OPTIONS}
        rows["from"] = rows["source"]
        for key, text in values.items():
            row = rows.get(key.replace("-", "_"))
            if row is None:
                raise UsageError(f"[{where}] {key}: no such option (blynk-ser.py --help lists them)")
            if row[0] not in self.given:
                setattr(self, row[0], option_value(row, text, where))

    def check(self) -> None:
        if self.to == "2WAY":
            raise UsageError("-t 2WAY is not supported: use -t SSL with --client-cert FILE")
        if self.raw and self.ncp:
            raise UsageError("--raw and --ncp exclude each other")
        if self.speed == BOOTLOADER_BAUD:
            raise UsageError("1200 baud would start the bootloader of many boards: use another speed in the sketch")
        if not MIN_BAUD <= self.speed <= MAX_BAUD:
            raise UsageError(f"speed {self.speed} is out of range: {MIN_BAUD} to {MAX_BAUD} baud")
        if not 0 <= self.port <= 65535 or not 0 < self.listen <= 65535:
            raise UsageError("a TCP port is a number from 1 to 65535")
        if not 64 <= self.ncp_max_frame <= 4096:
            raise UsageError("--ncp-max-frame is a number from 64 to 4096")


def option_value(row: tuple[str, tuple[str, ...], Any, Any, str], text: str, where: str) -> Any:
    """One value of the settings file, in the option's own type."""
    kind = row[2]
    truth = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    try:
        if kind in ("flag", "off"):
            return truth[text.strip().lower()]
        if kind == "list":
            return tuple(text.replace(",", " ").split())
        if kind in ("int", "count"):
            return int(text)
        if kind == "float":
            return float(text)
        if isinstance(kind, tuple) and text not in kind:
            raise ValueError
        return text.strip()
    except (KeyError, ValueError):
        wanted = "/".join(kind) if isinstance(kind, tuple) else {"flag": "yes/no", "off": "yes/no"}.get(kind, kind)
        raise UsageError(f"[{where}] {row[0]} = {text}: expected {wanted}") from None


def read_command_line(argv: list[str]) -> Options:
    """Options of the command line laid over those of the settings file. Raises UsageError."""
    import argparse

    parser = argparse.ArgumentParser(prog="blynk-ser.py", description=(__doc__ or "").split("\n\n")[0])
    for name, flags, kind, default, text in OPTIONS:
        common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        if kind == "flag":
            parser.add_argument(*flags, action="store_true", **common)
        elif kind == "off":
            parser.add_argument(*flags, action="store_false", **common)
        elif kind == "count":
            parser.add_argument(*flags, action="count", **common)
        elif kind == "list":
            parser.add_argument(*flags, action="append", metavar="PORT", **common)
        elif isinstance(kind, tuple):
            parser.add_argument(*flags, choices=kind, type=str if default.islower() else str.upper, **common)
        else:
            cast, shown_as = {"str": (str, "TEXT"), "int": (int, "N"), "float": (float, "N")}[kind]
            parser.add_argument(*flags, type=cast, metavar=shown_as, **common)
    parser.add_argument("--version", action="version", version=VERSION)
    given = vars(parser.parse_args(list(joined_tokens(argv))))
    options = Options()
    options.given = set(given)
    for name, value in given.items():
        setattr(options, name, tuple(value) if name == "comm" else value)
    options.sections = read_settings_file(options.config)
    options.take(options.sections.get("DEFAULT", {}), "DEFAULT")
    if options.all:
        options.comm = ("all",)
    options.check()
    return options


def joined_tokens(argv: list[str]) -> Iterator[str]:
    """--token X as one word: a token may begin with a dash, which argparse takes for an option."""
    words = iter(argv)
    for word in words:
        yield f"--token={next(words, '')}" if word == "--token" else word


def settings_path(named: str) -> str:
    """The settings file in use, "" when there is none."""
    if named:
        return named
    for path in (os.path.expanduser("~/.config/blynk-ser.ini"), "/etc/blynk/ser.ini"):
        if os.path.isfile(path):
            return path
    return ""


def read_settings_file(named: str) -> dict[str, dict[str, str]]:
    """Sections of the INI file: DEFAULT, one per port, `ncp:TEMPLATE`. Raises UsageError when it cannot be read."""
    path = settings_path(named)
    if not path:
        return {}
    import configparser

    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise UsageError(f"settings file {path}: {str(error).splitlines()[0]}") from None
    sections = {name: dict(parser[name]) for name in parser.sections()}
    for name, values in sections.items():
        if not name.startswith("ncp:"):
            Options().take(values, name)  # a mistake is said now, not when that board is plugged in
    return sections


def split_host(text: str, default_port: int) -> tuple[str, int]:
    """host, host:port, [v6]:port, v6. Raises UsageError."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or (port and not (port.isdigit() and 0 < int(port) < 65536)):
        raise UsageError(f"server {text}: expected host or host:port")
    return host, int(port) if port else default_port


# ======================================================================================================================
#  3  Frames
#
#  Sans-I/O. A serial line has no checksum and no way back into step but knowing what a frame can look like, so the
#  reader of the board's side checks each header and the beginning of each body (spec 10 §3.2).
# ======================================================================================================================

HEADER = struct.Struct(">BHH")
DIGITS = frozenset(b"0123456789")
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz")
MAX_BODY = 1024  # libraries send at most 128 bytes from a small board and 1024 from a big one
STALE_FRAME = 2.0  # s: an unfinished frame older than this will never be finished
SILENCE = 0.2  # s without a byte: the next one starts a frame
# The device's own RESPONSE that tells it that it is not logged in any more; the id is any but 0 and 1.
KICK = HEADER.pack(RESPONSE, 0x4D, NOT_AUTHENTICATED)

# What may follow the header of a command that boards send: kind of body, least length.
DEVICE_BODIES = {
    LOGIN: ("token", 1),
    PING: ("none", 0),
    12: ("text", 0),
    13: ("text", 0),
    PUSH: ("text", 0),
    BRIDGE: ("digits", 3),
    SYNC: ("pins", 0),
    INTERNAL: ("word", 1),
    18: ("text", 0),
    PROPERTY: ("digits", 3),
    HARDWARE: ("pin", 4),
    GROUP: ("word", 1),
    HARDWARE_LOGIN: ("token", 1),
    DEBUG_PRINT: ("text", 0),
    LOG_EVENT: ("text", 0),
    65: ("text", 0),
}
# Bodies so particular that they are believed even out of step.
STRONG = frozenset((LOGIN, HARDWARE_LOGIN, HARDWARE, PROPERTY, BRIDGE, INTERNAL, SYNC))


def pack(command: int, message_id: int, body: bytes = b"") -> bytes:
    return HEADER.pack(command, message_id, len(body)) + body


def pack_status(message_id: int, status: int) -> bytes:
    return HEADER.pack(RESPONSE, message_id, status)


def body_fits(kind: str, head: bytes) -> bool:
    """Could a body of this kind begin with these bytes (as many as have come)?"""
    if not head:
        return True
    if kind == "token":
        return all(c in TOKEN_BYTES for c in head)
    if kind == "none":
        return False
    if kind == "text":
        return head[0] >= 0x20
    if kind == "word":
        return all(c in LETTERS for c in head[:1]) and all(c >= 0x20 or c == 0 for c in head[:3])
    if kind == "digits":
        digits = head.partition(b"\0")[0]
        return 0 < len(digits) <= 10 and all(c in DIGITS for c in digits)
    operations = b"r" if kind == "pins" else b"wr"
    if head[0] not in b"vdaVDA" or (len(head) > 1 and head[1] not in operations):
        return False
    return not (len(head) > 2 and head[2]) and not (len(head) > 3 and head[3] not in DIGITS)


class FrameReader:
    """Board's bytes in, whole frames out; out of step it looks for the next frame it can believe.

    `feed` gives (command, id, body or status, raw frame) for each frame and (None, 0, 0, text) for each line of text
    that the sketch printed between frames.
    """

    __slots__ = ("buffer", "in_step", "last", "since", "skipped", "text", "after_newline")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.in_step = True
        self.last = 0.0  # when bytes came last
        self.since = 0.0  # when the unfinished frame began
        self.skipped = 0  # bytes that were no frame, ever
        self.text = bytearray()
        self.after_newline = False

    def feed(self, data: bytes, now: float) -> list[tuple[Any, int, Any, bytes]]:
        events: list[tuple[Any, int, Any, bytes]] = []
        if self.buffer and (
            now - self.since > STALE_FRAME if self.in_step else now - self.last > SILENCE
        ):  # what waited for its rest waited in vain
            self._skip(len(self.buffer), events)
        if not self.in_step and now - self.last > SILENCE:
            self._resync(events)
        if not self.buffer:
            self.since = now
        self.last = now
        self.buffer += data
        while self.buffer:
            size = self._match()
            if size == 0:
                break
            if size < 0:
                self.in_step = False
                self._skip(1, events)
                continue
            self._resync(events)
            raw = bytes(self.buffer[:size])
            del self.buffer[:size]
            self.since = now
            command, message_id, length = HEADER.unpack_from(raw)
            events.append((command, message_id, length if command == RESPONSE else raw[5:], raw))
        return events

    def _match(self) -> int:
        """Length of the frame at the buffer's start; 0 = more bytes needed; -1 = no frame starts here."""
        buffer = self.buffer
        command = buffer[0]
        if command != RESPONSE and command not in DEVICE_BODIES:
            return -1
        strong = command in STRONG
        if not self.in_step and not strong and not (command == PING and self.after_newline):
            return -1
        if len(buffer) < 5:
            return self._match_part()
        _command, message_id, length = HEADER.unpack_from(buffer)
        if message_id == 0:
            return -1
        if command == RESPONSE:
            return 5 if length <= 255 else -1
        kind, least = DEVICE_BODIES[command]
        if length > MAX_BODY or (length < least and not (self.in_step and length == 0)) or (kind == "none" and length):
            return -1
        if kind == "token" and (length > 64 or not (self.in_step or (message_id == 1 and length == 32))):
            return -1
        if not self.in_step and strong and length < 3:
            return -1
        if not body_fits(kind, bytes(buffer[5 : 5 + min(length, 64)])):
            return -1
        return 5 + length if len(buffer) >= 5 + length else 0

    def _match_part(self) -> int:
        """A header that is not complete yet: is it impossible already?"""
        buffer = self.buffer
        if len(buffer) >= 3 and not (buffer[1] or buffer[2]):
            return -1
        if len(buffer) >= 4 and buffer[3] > MAX_BODY >> 8:
            return -1
        return 0

    def _skip(self, count: int, events: list[tuple[Any, int, Any, bytes]]) -> None:
        self.skipped += count
        for byte in self.buffer[:count]:
            self.after_newline = byte == 0x0A
            if byte == 0x0A or len(self.text) >= 200:
                self._flush_text(events)
            if byte != 0x0A:
                self.text.append(byte)
        del self.buffer[:count]

    def _resync(self, events: list[tuple[Any, int, Any, bytes]]) -> None:
        self.in_step = True
        self.after_newline = False
        if self.text:
            self._flush_text(events)

    def _flush_text(self, events: list[tuple[Any, int, Any, bytes]]) -> None:
        """Noise is counted, text is shown: four printable characters or more, and little else."""
        text = bytes(self.text).rstrip(b"\r")
        self.text.clear()
        printable = sum(0x20 <= c < 0x7F or c == 9 or c >= 0xA0 for c in text)
        if printable >= 4 and printable * 10 >= len(text) * 9:
            events.append((None, 0, 0, text))


class ServerReader:
    """Server's bytes in, (command, id, body or status) out. Raises ValueError on what no Blynk server says."""

    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, Any]]:
        buffer = self.buffer
        buffer += data
        if buffer[:4] == b"HTTP" or buffer[:2] == b"\x15\x03":
            raise ValueError(bytes(buffer[:4]))
        while len(buffer) >= 5:
            command, message_id, length = HEADER.unpack_from(buffer)
            if command == RESPONSE:
                del buffer[:5]
                yield command, message_id, length
                continue
            if len(buffer) < 5 + length:
                return
            body = bytes(buffer[5 : 5 + length])
            del buffer[: 5 + length]
            yield command, message_id, body


# ======================================================================================================================
#  4  Pacer
#
#  Sans-I/O. An Uno's receive ring holds 64 bytes and a sketch may not look at it for 66 ms: 40 frames at line speed to
#  one gave 7 handled and framing lost; 75 ms apart, 40 of 40 (spec 10 §2.1).
# ======================================================================================================================

IN_FLIGHT = 48  # bytes a board is trusted with at once; the other 16 of its ring are for answers
URGENT_IN_FLIGHT = 15  # three bare headers
QUEUE_LIMIT = 256  # frames
FRAME_GAP = 0.075  # s


class Pacer:
    """Frames in, bytes that may be written now out. Answers and PINGs overtake values."""

    __slots__ = ("gap", "baud", "urgent", "queue", "free_at", "urgent_flying", "merged", "dropped")

    def __init__(self, gap: float, baud: int) -> None:
        self.gap = gap  # s per frame; 0 = the board can take everything
        self.baud = baud
        self.urgent: deque[bytes] = deque()
        self.queue: deque[bytes] = deque()
        self.free_at = 0.0
        self.urgent_flying = 0
        self.merged = 0
        self.dropped = 0

    def push(self, frame: bytes, urgent: bool = False) -> None:
        if urgent:
            if len(self.urgent) < QUEUE_LIMIT:
                self.urgent.append(frame)
            return
        if len(self.queue) >= QUEUE_LIMIT:
            self._make_room(frame)
        self.queue.append(frame)

    def _make_room(self, frame: bytes) -> None:
        """The oldest value of the same pin goes, since a newer one follows; else the oldest of all."""
        pin = frame[5:].split(b"\0", 2)[:2]
        if frame[0] == HARDWARE and frame[5:7] == b"vw":
            for index, waiting in enumerate(self.queue):
                if waiting[0] == HARDWARE and waiting[5:].split(b"\0", 2)[:2] == pin:
                    del self.queue[index]
                    self.merged += 1
                    return
        self.queue.popleft()
        self.dropped += 1

    def take(self, now: float) -> bytes:
        """What may be written at `now`; b"" when nothing waits or the board needs time (see `wait`)."""
        if not self.gap:
            data = b"".join(self.urgent) + b"".join(self.queue)
            self.urgent.clear()
            self.queue.clear()
            return data
        if now < self.free_at:
            return self._take_urgent()
        self.urgent_flying = 0
        batch: list[bytes] = []
        size, frames = 0, 0
        for queue in (self.urgent, self.queue):
            while queue and (not batch or size + len(queue[0]) <= IN_FLIGHT):
                batch.append(queue.popleft())
                size += len(batch[-1])
                frames += 1
        if batch:
            self.free_at = now + max(size * 10 / self.baud, frames * self.gap)
        return b"".join(batch)

    def _take_urgent(self) -> bytes:
        batch = []
        while self.urgent and self.urgent_flying + len(self.urgent[0]) <= URGENT_IN_FLIGHT:
            self.urgent_flying += len(self.urgent[0])
            batch.append(self.urgent.popleft())
        return b"".join(batch)

    def wait(self, now: float) -> Optional[float]:
        """Seconds until `take` has something, None when nothing waits."""
        return max(0.0, self.free_at - now) if self.urgent or self.queue else None

    def clear(self) -> None:
        self.urgent.clear()
        self.queue.clear()


# ======================================================================================================================
#  5  Loop
#
#  One thread waits for descriptors and timers; `work` runs what can block elsewhere and brings the result back.
# ======================================================================================================================


class Timer:
    __slots__ = ("fn", "args")

    def __init__(self, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.fn: Optional[Callable[..., None]] = fn
        self.args = args

    def cancel(self) -> None:
        self.fn = None


class Loop:
    """`now` is the monotonic time of this turn."""

    __slots__ = ("selector", "now", "timers", "count", "wake_in", "wake_out", "posted", "stopping")

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.now = time.monotonic()
        self.timers: list[tuple[float, int, Timer]] = []
        self.count = 0
        self.wake_in, self.wake_out = socket.socketpair()
        self.wake_in.setblocking(False)
        self.wake_out.setblocking(False)
        self.posted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.stopping = False
        self.watch(self.wake_in, self._woken)

    def watch(self, what: Any, on_read: Callable[[], None], on_write: Optional[Callable[[], None]] = None) -> None:
        """Calls on_read when bytes wait, on_write (when given) when there is room for more."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if on_write else 0)
        try:
            self.selector.modify(what, events, (on_read, on_write))
        except KeyError:
            self.selector.register(what, events, (on_read, on_write))

    def forget(self, what: Any) -> None:
        try:
            self.selector.unregister(what)
        except (KeyError, ValueError):
            pass

    def call_later(self, seconds: float, fn: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(fn, args)
        self.count += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.count, timer))
        return timer

    def post(self, fn: Callable[..., None], *args: Any) -> None:
        """From any thread: fn(*args) runs in the loop's next turn."""
        self.posted.append((fn, args))
        try:
            self.wake_out.send(b"\0")
        except OSError:  # full: it is awake already; closed: it has ended
            pass

    def work(self, fn: Callable[..., Any], *args: Any, done: Callable[[Any, Optional[BaseException]], None]) -> None:
        """fn(*args) in a thread of its own, done(result, error) here."""

        def run() -> None:
            try:
                result, error = fn(*args), None
            except Exception as caught:  # handed over, not swallowed
                result, error = None, caught
            self.post(done, result, error)

        threading.Thread(target=run, daemon=True).start()

    def _woken(self) -> None:
        try:
            self.wake_in.recv(4096)
        except BlockingIOError:
            pass

    def run(self) -> None:
        while not self.stopping:
            self.turn()

    def turn(self) -> None:
        timeout = None
        while self.timers and self.timers[0][2].fn is None:
            heapq.heappop(self.timers)
        if self.timers:
            timeout = max(0.0, self.timers[0][0] - time.monotonic())
        if self.posted:
            timeout = 0.0
        for key, events in self.selector.select(timeout):
            self.now = time.monotonic()
            on_read, on_write = key.data
            if events & selectors.EVENT_WRITE and on_write:
                on_write()
            if events & selectors.EVENT_READ:
                on_read()
        self.now = time.monotonic()
        while self.posted:
            fn, args = self.posted.popleft()
            fn(*args)
        while self.timers and self.timers[0][0] <= self.now:
            timer = heapq.heappop(self.timers)[2]
            if timer.fn is not None:
                timer.fn(*timer.args)


def notify_systemd(text: str) -> None:
    """sd_notify without the library; nothing happens outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.send(text.encode())
    except OSError:
        pass


# ======================================================================================================================
#  6  Ports
#
#  Which port is a board, how to open it without harm, and the open line itself. pyserial is imported here, when needed.
# ======================================================================================================================

PORT_RETRY = (0.5, 1.0, 2.0, 5.0)  # s
BUSY_RETRY = 3.0
SETTLE = 3.0  # s a bootloader may take; ends early when the sketch logs in
RESET_PULSE = 0.25


class PortInfo:
    """A serial port that exists now."""

    __slots__ = ("device", "vid", "pid", "serial", "location", "text")

    def __init__(
        self,
        device: str,
        vid: Optional[int] = None,
        pid: Optional[int] = None,
        serial: str = "",
        location: str = "",
        text: str = "",
    ) -> None:
        self.device, self.vid, self.pid = device, vid, pid
        self.serial, self.location, self.text = serial, location, text

    @property
    def usb_id(self) -> str:
        return f"{self.vid:04X}:{self.pid:04X}" if self.vid is not None and self.pid is not None else ""

    @property
    def identity(self) -> Optional[tuple[str, str]]:
        """Same board, whatever its name is after the next plugging in; None when USB does not tell."""
        if not self.usb_id or not (self.serial or self.location):
            return None
        return self.usb_id, self.serial or self.location

    def row(self) -> tuple[str, str, bool]:
        """(what it is, "board" | "converter" | "other" | "no", native USB)."""
        if any(
            word in self.text.lower().replace("/", " ").split() or f"{word} " in self.text.lower() + " "
            for word in NOT_BOARDS
        ):
            return self.text, "no", False
        for vid, pid, name, kind, native in BOARDS:
            if vid == self.vid and pid in (None, self.pid):
                return name, kind, native
        return self.text, "other", False

    def describe(self) -> str:
        name, kind, _native = self.row()
        note = {"board": "", "converter": "  (board or something else)", "no": "  (not a board)"}.get(kind, "")
        return f"{self.device:<16} {self.usb_id:<9}  {self.text or name}{note}"


def plugged_in() -> list[PortInfo]:
    """The serial ports of this computer, as pyserial sees them."""
    from serial.tools import list_ports

    ports = []
    for found in list_ports.comports():
        text = found.product or (found.description if found.description != "n/a" else "") or ""
        if found.manufacturer and found.manufacturer not in text:
            text = f"{text} ({found.manufacturer})"
        ports.append(
            PortInfo(found.device, found.vid, found.pid, found.serial_number or "", found.location or "", text)
        )
    return sorted(ports, key=lambda port: port.device)


def boards_among(ports: list[PortInfo], any_converter: bool = False) -> list[PortInfo]:
    """Ports that may be opened unasked: boards; converters only when alone, or on request (spec 10 §3.8)."""
    boards = [port for port in ports if port.row()[1] == "board"]
    converters = [port for port in ports if port.row()[1] == "converter"]
    if any_converter:
        return boards + converters
    return boards or (converters if len(converters) == 1 else [])


def matching(spec: str, ports: list[PortInfo], any_converter: bool) -> list[PortInfo]:
    """The ports that a -c value means now; a path that does not exist is no port."""
    if spec in ("auto", "all"):
        return boards_among(ports, any_converter)
    if spec.startswith("hwgrep://"):
        import re

        pattern = re.compile(spec[9:], re.IGNORECASE)
        line = "{0.device} {0.text} VID:PID={0.usb_id} SER={0.serial} LOCATION={0.location}".format
        return [port for port in ports if pattern.search(line(port))]
    if "://" in spec:
        return [PortInfo(spec)]
    parts = spec.split(":")
    if len(parts) in (2, 3) and all(len(p) == 4 and not set(p.lower()) - set("0123456789abcdef") for p in parts[:2]):
        wanted = ":".join(parts[:2]).upper()
        return [p for p in ports if p.usb_id == wanted and (len(parts) < 3 or p.serial == parts[2])]
    if any(c in spec for c in "*?["):
        import glob

        paths = sorted(glob.glob(spec))
        known = {port.device: port for port in ports}
        return [known.get(path, PortInfo(path)) for path in paths]
    if os.name == "nt" or os.path.exists(spec):
        real = os.path.realpath(spec)
        known_as = next((p for p in ports if p.device in (spec, real)), None)
        if known_as is not None:
            return [PortInfo(spec, known_as.vid, known_as.pid, known_as.serial, known_as.location, known_as.text)]
        return [PortInfo(spec)] if os.name != "nt" else []
    return []


def split_speed(spec: str) -> tuple[str, int]:
    """/dev/ttyUSB0@115200 → its two parts; speed 0 when not given."""
    path, at, speed = spec.rpartition("@")
    return (path, int(speed)) if at and speed.isdigit() else (spec, 0)


def alias_of(device: str) -> str:
    """A short name for the log."""
    return device if "://" in device else os.path.basename(device) or device


class PortError(Exception):
    """A port that cannot be opened now; `busy` when somebody else has it."""

    def __init__(self, text: str, busy: bool = False) -> None:
        super().__init__(text)
        self.busy = busy


def processes() -> Iterator[tuple[str, str]]:
    """(process id, name) of what runs here, where the system shows it."""
    try:
        ids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return
    for pid in ids:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                yield pid, file.read().strip()
        except OSError:
            continue


def holder_of(device: str) -> str:
    """Name of the program that has the port open, "" when it cannot be told (another user's, not Linux)."""
    real = os.path.realpath(device)
    for pid, name in processes():
        if pid == str(os.getpid()):
            continue
        try:
            for handle in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{handle}") == real:
                    return f"{name} (process {pid})"
        except OSError:
            continue
    return ""


def avrdude_runs() -> bool:
    return any(name == "avrdude" for _pid, name in processes())


def open_port(device: str, baud: int, options: Options) -> Any:
    """The opened pyserial port: 8N1, no flow control, ours alone. Blocks; raises PortError."""
    import serial

    native = "://" not in device
    if native and os.name != "nt" and avrdude_runs():
        raise PortError("avrdude is uploading a sketch: waiting for its end", busy=True)
    try:
        port = serial.serial_for_url(device, do_not_open=True)
        port.baudrate, port.timeout, port.write_timeout = baud, None, None
        # Both lines alike: an ESP's auto-reset circuit holds the chip in reset when they differ.
        port.dtr = port.rts = True
        if native and os.name != "nt":
            port.exclusive = True
        port.open()
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise PortError(*explain_open(device, error)) from None
    if native and os.name != "nt":
        claim(port, options.reset == "never")
    return port


def explain_open(device: str, error: Exception) -> tuple[str, bool]:
    """(one line with the cure, busy)."""
    code = getattr(error, "errno", None)
    text = str(error)
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text or "PermissionError(13" in text:
        holder = holder_of(device) if os.name != "nt" else ""
        return f"port is in use{f' by {holder}' if holder else ''}: waiting until it is free", True
    if code == errno.EACCES:
        return (
            "no permission: add this user to the group dialout (sudo usermod -aG dialout $USER) and log in anew",
            False,
        )
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return "port is gone", False
    return f"cannot open the port: {text}", False


def claim(port: Any, keep_running: bool) -> None:
    """Keep others out, ask the driver for speed, and (reset never) do not drop DTR at close."""
    import fcntl
    import termios

    try:
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    except OSError:
        pass
    try:
        port.set_low_latency_mode(True)
    except (OSError, ValueError, AttributeError, NotImplementedError):
        pass
    if keep_running:
        set_hang_up(port, False)


def set_hang_up(port: Any, on: bool) -> None:
    """HUPCL: does the last close drop DTR, and so reset a board at the next open?"""
    try:
        import termios

        settings = termios.tcgetattr(port.fileno())
        settings[2] = settings[2] | termios.HUPCL if on else settings[2] & ~termios.HUPCL
        termios.tcsetattr(port.fileno(), termios.TCSANOW, settings)
    except (ImportError, OSError, ValueError, AttributeError, TypeError):
        pass
    except Exception as error:  # termios.error is no OSError
        if type(error).__name__ != "error":
            raise


class Line:
    """One open line. Bytes come by on_data(data), its end by on_lost(why), once; `write` never blocks the loop.

    Where the system can wait for the descriptor it does; elsewhere (Windows, rfc2217://, loop://) a reader and a
    writer thread stand between.
    """

    __slots__ = (
        "loop", "port", "on_data", "on_lost", "descriptor", "out", "closed", "outbox", "is_socket",
    )  # fmt: skip

    def __init__(self, loop: Loop, port: Any, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self.loop, self.port, self.on_data, self.on_lost = loop, port, on_data, on_lost
        self.out = bytearray()
        self.closed = False
        self.is_socket = isinstance(port, socket.socket)
        self.outbox: Any = None
        self.descriptor = -1
        if os.name != "nt" or self.is_socket:
            try:
                self.descriptor = port.fileno()
            except (OSError, AttributeError, NotImplementedError, ValueError):
                pass
        if self.descriptor >= 0:
            loop.watch(self.descriptor, self._readable)
        else:
            self._start_threads()

    def write(self, data: bytes) -> None:
        if self.closed or not data:
            return
        if self.descriptor < 0:
            self.outbox.put(data)
            return
        self.out += data
        if len(self.out) == len(data):
            self._flush()

    def set_baud(self, baud: int) -> bool:
        """False, and everything as before, when the port cannot do it. Sockets have no speed: always true."""
        if self.is_socket:
            return True
        before = self.port.baudrate
        try:
            self.port.baudrate = baud
            return True
        except Exception:  # termios.error is no OSError
            try:
                self.port.baudrate = before
            except Exception:  # the line is gone: the next read tells
                pass
            return False

    def unsent(self) -> int:
        """Bytes that have not left this computer, as far as it tells."""
        try:
            waiting = 0 if self.is_socket else self.port.out_waiting
        except Exception:  # gone, or a kind of port that does not know
            waiting = 0
        return len(self.out) + int(waiting)

    def set_lines(self, on: bool) -> bool:
        """DTR and RTS together; False where the line has none (pty, Bluetooth, network)."""
        if self.is_socket:
            return False
        try:
            self.port.dtr = on
            self.port.rts = on
            return not self._is_pty()
        except Exception:  # ENOTTY, EINVAL, termios.error: no such lines
            return False

    def _is_pty(self) -> bool:
        return os.path.realpath(str(self.port.port)).startswith("/dev/pts/")

    def close(self, linger: float = 0.0) -> None:
        """What has been written gets `linger` seconds to leave; the rest is thrown away."""
        if self.closed:
            return
        self.closed = True
        if self.descriptor >= 0:
            self.loop.forget(self.descriptor)
            end = time.monotonic() + linger
            while self.unsent() and time.monotonic() < end:
                time.sleep(0.002)
            try:  # else close waits up to 30 s for a board that does not read
                if not self.is_socket and self.unsent():
                    self.port.reset_output_buffer()
            except Exception:  # termios.error, SerialException: the line is gone, which is fine
                pass
            self._close_port()
        else:
            self.outbox.put(None)
            threading.Thread(target=self._close_port, daemon=True).start()

    def _close_port(self) -> None:
        try:
            self.port.close()
        except Exception:  # it is gone already
            pass

    def _lose(self, why: str) -> None:
        if not self.closed:
            self.close()
            self.on_lost(why)

    def _readable(self) -> None:
        try:
            data = self.port.recv(4096) if self.is_socket else os.read(self.descriptor, 4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if data:
            self.on_data(data)
        else:
            self._lose("unplugged" if not self.is_socket else "closed by the other side")

    def _flush(self) -> None:
        try:
            sent = self.port.send(self.out) if self.is_socket else os.write(self.descriptor, self.out)
            del self.out[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        self.loop.watch(self.descriptor, self._readable, self._flush if self.out else None)

    # ---- where descriptors cannot be waited for

    def _start_threads(self) -> None:
        import queue

        self.outbox = queue.Queue()
        for run in (self._read_for_ever, self._write_for_ever):
            threading.Thread(target=run, daemon=True).start()

    def _read_for_ever(self) -> None:
        port = self.port
        try:
            port.timeout = 1.0
            while not self.closed:
                data = port.read(1)
                if data:
                    waiting = port.in_waiting
                    self.loop.post(self._arrived, data + (port.read(waiting) if waiting else b""))
        except Exception as error:  # pyserial raises TypeError and more when a port goes away under it
            self.loop.post(self._lose, str(error))

    def _arrived(self, data: bytes) -> None:
        if not self.closed:
            self.on_data(data)

    def _write_for_ever(self) -> None:
        try:
            while True:
                data = self.outbox.get()
                if data is None:
                    return
                self.port.write(data)
        except Exception as error:
            self.loop.post(self._lose, str(error))


# ======================================================================================================================
#  7  Server
#
#  Finding it, dialling it (in a thread), and the link: frames in, frames out, one line why it ended.
# ======================================================================================================================

CONNECT_TIMEOUT = 5.0
LOGIN_TIMEOUT = 10.0
UNACKNOWLEDGED_MS = 20_000
WRITE_LIMIT = 64 * 1024
SERVER_RETRY = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
LONG_LIVED = 60.0  # s: a connection that held so long was a good one; the next dial need not wait
MDNS_WAIT = 3.0
MDNS_GROUP = ("224.0.0.251", 5353)
PLAIN_PORT, TLS_PORT = 8080, 9443


class ServerError(Exception):
    """Why there is no server, in one line."""


def dns_name(data: bytes, at: int) -> tuple[str, int]:
    """(name, offset behind it) of a DNS packet. Raises IndexError or ValueError on a broken one."""
    labels: list[str] = []
    behind, jumps = -1, 0
    while True:
        length = data[at]
        if length == 0:
            return ".".join(labels), behind if behind >= 0 else at + 1
        if length >= 0xC0:
            behind = at + 2 if behind < 0 else behind
            at = (length & 0x3F) << 8 | data[at + 1]
            jumps += 1
            if jumps > 32:
                raise ValueError("name loops")
            continue
        labels.append(data[at + 1 : at + 1 + length].decode("utf-8", "replace"))
        at += 1 + length


def dns_query(questions: Iterable[tuple[str, int]]) -> bytes:
    """One multicast DNS packet with these (name, type), asking for an answer to us alone."""
    body, count = b"", 0
    for name, kind in questions:
        for label in name.split("."):
            body += bytes((len(label),)) + label.encode()
        body += b"\0" + struct.pack(">HH", kind, 0x8001)
        count += 1
    return struct.pack(">HHHHHH", 0, 0, count, 0, 0, 0) + body


def dns_records(data: bytes) -> Iterator[tuple[str, int, Any]]:
    """(name, type, value) of an answer: PTR → name, SRV → (port, host), A → address, TXT → dict."""
    _id, flags, questions, answers, authority, extra = struct.unpack_from(">HHHHHH", data)
    if not flags & 0x8000:
        return
    at = 12
    for _ in range(questions):
        at = dns_name(data, at)[1] + 4
    for _ in range(answers + authority + extra):
        name, at = dns_name(data, at)
        kind, _class, _ttl, length = struct.unpack_from(">HHIH", data, at)
        at += 10
        if kind == 12:
            yield name, kind, dns_name(data, at)[0]
        elif kind == 33:
            yield name, kind, (struct.unpack_from(">H", data, at + 4)[0], dns_name(data, at + 6)[0])
        elif kind == 1 and length == 4:
            yield name, kind, socket.inet_ntoa(data[at : at + 4])
        elif kind == 16:
            yield name, kind, dict(txt_pairs(data[at : at + length]))
        at += length


def txt_pairs(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        key, _, value = data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace").partition("=")
        yield key.lower(), value
        at += 1 + data[at]


class Answers:
    """What the network said: enough records to name a server?"""

    __slots__ = ("services", "addresses", "texts", "instances")

    def __init__(self) -> None:
        self.instances: list[str] = []
        self.services: dict[str, tuple[int, str]] = {}
        self.addresses: dict[str, str] = {}
        self.texts: dict[str, dict[str, str]] = {}

    def take(self, data: bytes, sender: str) -> None:
        try:
            for name, kind, value in dns_records(data):
                key = name.lower()
                if kind == 12 and key == "_blynk._tcp.local" and value not in self.instances:
                    self.instances.append(value)
                elif kind == 33:
                    self.services[key] = value
                    self.addresses.setdefault(value[1].lower(), sender)
                elif kind == 1:
                    self.addresses[key] = value
                elif kind == 16:
                    self.texts[key] = value
        except (IndexError, ValueError, struct.error):
            pass  # somebody else's broken packet

    def server(self, use_tls: bool) -> Optional[tuple[str, int]]:
        """(address, port) of the first complete answer, None so far."""
        for instance in self.instances:
            service = self.services.get(instance.lower())
            if service is not None:
                text = self.texts.get(instance.lower(), {})
                port = service[0]
                if use_tls:
                    port = int(text["tls"]) if text.get("tls", "").isdigit() else TLS_PORT
                return self.addresses[service[1].lower()], port
        return None


def ask_network(use_tls: bool, wait: float = MDNS_WAIT) -> Optional[tuple[str, int]]:
    """Multicast DNS without a library: _blynk._tcp, else whoever is blynk.local. Blocks up to `wait` seconds."""
    answers = Answers()
    query = dns_query((("_blynk._tcp.local", 12), ("blynk.local", 1)))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            sock.bind(("", 0))
            end = time.monotonic() + wait
            again = 0.0
            while time.monotonic() < end:
                if time.monotonic() >= again:
                    sock.sendto(query, MDNS_GROUP)
                    again = time.monotonic() + 1.0
                sock.settimeout(max(0.01, min(again, end) - time.monotonic()))
                try:
                    data, sender = sock.recvfrom(9000)
                except socket.timeout:
                    continue
                answers.take(data, sender[0])
                found = answers.server(use_tls)
                if found:
                    return found
    except OSError:
        pass  # no network yet
    address = answers.addresses.get("blynk.local")
    return (address, TLS_PORT if use_tls else PLAIN_PORT) if address else None


def ask_zeroconf(use_tls: bool, wait: float = MDNS_WAIT) -> Optional[tuple[str, int]]:
    """The same with the zeroconf package, which hears answers that a firewall keeps from a strange port."""
    try:
        from zeroconf import ServiceBrowser, Zeroconf
    except ImportError:
        return None
    found: list[tuple[str, int]] = []
    heard = threading.Event()

    class Listener:
        def add_service(self, zeroconf: Any, kind: str, name: str) -> None:
            info = zeroconf.get_service_info(kind, name)
            if info and info.parsed_addresses():
                found.append((info.parsed_addresses()[0], info.port))
                heard.set()

        update_service = remove_service = lambda self, *_: None

    try:
        zeroconf = Zeroconf()
        ServiceBrowser(zeroconf, "_blynk-tls._tcp.local." if use_tls else "_blynk._tcp.local.", Listener())  # type: ignore
        heard.wait(wait)
        zeroconf.close()
    except OSError:
        return None
    return found[0] if found else None


class ServerFinder:
    """Where the server is: as told, or found once and remembered until three dials in a row failed."""

    __slots__ = ("options", "found", "failures", "lock")

    def __init__(self, options: Options) -> None:
        self.options = options
        self.found: Optional[tuple[str, int]] = None
        self.failures = 0
        self.lock = threading.Lock()

    def find(self, options: Options) -> tuple[str, int]:
        """(host, port). Blocks while it looks around; called from threads."""
        default = options.port or (TLS_PORT if options.use_tls else PLAIN_PORT)
        if options.server != "auto":
            return split_host(options.server, default)
        with self.lock:
            if self.found is None or self.failures >= 3:
                self.failures = 0
                found = ask_network(options.use_tls) or ask_zeroconf(options.use_tls)
                self.found = found or ("127.0.0.1", default)
                where = f"found on the network at {self.found[0]}:{self.found[1]}" if found else "not announced: trying"
                log.write(1, "", f"server {where}{'' if found else f' 127.0.0.1:{default}'}")
            host, port = self.found
            return host, options.port or port


def tls_context(options: Options) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.insecure or options.fingerprint:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options.cert:
        context.load_verify_locations(options.cert)
    else:
        context.load_default_certs()
    if options.client_cert:
        context.load_cert_chain(options.client_cert)
    return context


def fingerprint_of(certificate: bytes) -> str:
    import hashlib

    return hashlib.sha256(certificate).hexdigest()


def fingerprint_shown(address: tuple[Any, ...]) -> str:
    """What the server there shows, for the user to compare and to paste."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(address[:2], CONNECT_TIMEOUT) as sock, context.wrap_socket(sock) as secure:
            return f" (it shows {fingerprint_of(secure.getpeercert(binary_form=True) or b'')})"
    except OSError:
        return ""


def start_tls(sock: socket.socket, host: str, options: Options) -> Any:
    """TLS on a connected socket, checked as asked for. Raises ServerError."""
    import hmac
    import ssl

    address = sock.getpeername()
    try:
        secure = tls_context(options).wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise ServerError(
            f"certificate of {host} is not trusted ({error.verify_message}): give --cert FILE, or --fingerprint with its "
            f"SHA-256{fingerprint_shown(address)}, or, at your own risk, --insecure"
        ) from None
    except (ssl.SSLError, ConnectionError) as error:
        if "certificate" not in str(error).lower():
            raise ServerError("no TLS on that port: leave out -t SSL / --tls, or use the server's TLS port") from None
        raise ServerError(f"TLS: {error}") from None
    except FileNotFoundError:
        raise ServerError(f"no file {options.cert or options.client_cert}: check --cert and --client-cert") from None
    if options.fingerprint:
        seen = fingerprint_of(secure.getpeercert(binary_form=True) or b"")
        wanted = options.fingerprint.replace(":", "").strip().lower()
        if not hmac.compare_digest(seen, wanted):
            secure.close()
            raise ServerError(f"certificate of {host} has fingerprint {seen}, not the one given with --fingerprint")
    return secure


def dial(host: str, port: int, options: Options) -> socket.socket:
    """A connected, non-blocking socket. Blocks while it connects; raises ServerError."""
    try:
        sock = socket.create_connection((host, port), CONNECT_TIMEOUT)
    except socket.gaierror:
        raise ServerError(f"no such host: {host}") from None
    except socket.timeout:
        raise ServerError("no answer (is it switched on, is a firewall in between?)") from None
    except OSError as error:
        hint = " (is the server running?)" if error.errno == errno.ECONNREFUSED else ""
        raise ServerError(f"{(error.strerror or str(error)).lower()}{hint}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if options.use_tls:
            sock = start_tls(sock, host, options)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class ServerLink:
    """One connection to the server at a time.

    `connect` → on_open(), then on_data(bytes) …, then on_lost(why) once; a failed dial is on_lost without on_open.
    """

    __slots__ = (
        "loop", "options", "finder", "on_open", "on_data", "on_lost", "sock", "out", "dialling", "redirect",
        "failures", "where", "opened_at", "received", "tls_want",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        options: Options,
        finder: ServerFinder,
        on_open: Callable[[], None],
        on_data: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.loop, self.options, self.finder = loop, options, finder
        self.on_open, self.on_data, self.on_lost = on_open, on_data, on_lost
        self.sock: Any = None
        self.out = bytearray()
        self.dialling: Optional[object] = None  # this dial's own mark, so that a late result is known as late
        self.redirect: Optional[tuple[str, int]] = None  # where the server sent us
        self.failures = 0
        self.where = "the server"
        self.opened_at = 0.0
        self.received = False

    @property
    def up(self) -> bool:
        return self.sock is not None

    @property
    def busy(self) -> bool:
        return self.sock is not None or self.dialling is not None

    def connect(self) -> None:
        self.close()
        mark = self.dialling = object()
        redirect = self.redirect

        def run() -> tuple[socket.socket, str]:
            host, port = redirect or self.finder.find(self.options)
            self.where = f"{host}:{port}"
            return dial(host, port, self.options), self.where

        def done(result: Any, error: Optional[BaseException]) -> None:
            if mark is not self.dialling:
                if result:
                    result[0].close()
                return
            self.dialling = None
            if error is not None:
                self.finder.failures += 1
                self.fail(str(error) if isinstance(error, (ServerError, UsageError)) else repr(error))
                return
            self.sock, self.where = result
            self.finder.failures = 0
            self.opened_at, self.received = self.loop.now, False
            self.loop.watch(self.sock, self._readable)
            self.on_open()

        self.loop.work(run, done=done)

    def retry_delay(self) -> float:
        """Seconds until the next dial; grows with each failure; a fifth up or down, so that many do not act as one."""
        import random

        delay = SERVER_RETRY[min(self.failures, len(SERVER_RETRY)) - 1] if self.failures else 0.2
        return delay * random.uniform(0.8, 1.2)

    def send(self, data: bytes) -> None:
        if self.sock is None:
            return
        self.out += data
        if len(self.out) > WRITE_LIMIT:
            self.fail("server does not read any more")
        elif len(self.out) == len(data):
            self._flush()

    def close(self) -> None:
        self.dialling = None
        self.out.clear()
        if self.sock is not None:
            self.loop.forget(self.sock)
            self.sock.close()
            self.sock = None

    def fail(self, why: str) -> None:
        """Ends the connection as lost."""
        long_lived = self.sock is not None and self.loop.now - self.opened_at >= LONG_LIVED
        self.failures = 0 if long_lived else self.failures + 1
        if self.redirect and self.failures >= 3:
            self.redirect = None
        self.close()
        self.on_lost(why)

    def _readable(self) -> None:
        while self.sock is not None:
            try:
                data = self.sock.recv(16384)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if "Want" in type(error).__name__:  # TLS: SSLWantReadError, SSLWantWriteError
                    return
                self.fail(self._explain_end((error.strerror or str(error)).lower()))
                return
            if not data:
                self.fail(self._explain_end("closed by the server"))
                return
            self.received = True
            self.on_data(data)
            if not hasattr(self.sock, "pending") or not self.sock.pending():
                return

    def _explain_end(self, why: str) -> str:
        """A TLS port that hears plain bytes hangs up without a word."""
        if self.received or self.options.use_tls:
            return why
        return f"{why} without a word (if that is its TLS port: -t SSL)"

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self.out)
            del self.out[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if "Want" not in type(error).__name__:
                self.fail((error.strerror or str(error)).lower())
                return
        if self.sock is not None:
            self.loop.watch(self.sock, self._readable, self._flush if self.out else None)


# ======================================================================================================================
#  8  Worker
#
#  One per board: keeps its port open, finds it again under another name, counts, and tells each change of state once.
#  Bridge, RawBridge and Ncp say what happens with the bytes.
# ======================================================================================================================

UNCLAIMED = 60.0  # s without a login until we say so
FAREWELL_TIME = 0.05  # s the last bytes have to leave
SCAN_STEP = 7.0  # s a speed is given: boards repeat their login every 5 or 6 s


class Worker:
    """A board's place. Subclasses fill in opened, data, gone."""

    __slots__ = (
        "program", "loop", "spec", "identity", "strict", "options", "alias", "info", "line", "state", "attempt",
        "look_again", "released_until",
        "timer", "opening", "reset_done", "counts", "last_error", "settle_until", "stopped", "link", "one_shot",
        "told",
    )  # fmt: skip

    def __init__(self, program: Any, spec: str, options: Options, identity: Any = None, strict: bool = False) -> None:
        self.program, self.loop, self.spec, self.options = program, program.loop, spec, options
        self.identity = identity  # the board's, not the port's: followed from ttyACM0 to ttyACM1
        self.strict = strict  # this board only (--all), not whatever sits at the path
        self.alias = alias_of(spec)
        self.info = PortInfo(spec)
        self.line: Optional[Line] = None
        self.state = ""
        self.attempt = 0
        self.look_again = False
        self.released_until = 0.0
        self.timer: Optional[Timer] = None
        self.opening: Optional[object] = None
        self.reset_done = False
        self.settle_until = 0.0
        self.stopped = False
        self.one_shot = False  # a TCP client's: ends with it
        self.last_error = ""
        self.told: set[str] = set()  # hints given once
        self.counts = dict.fromkeys(
            ("bytes_in", "bytes_out", "frames_up", "frames_down", "skipped", "dropped", "resets", "reconnects"), 0
        )
        self.link = ServerLink(self.loop, options, program.finder, self.link_open, self.link_data, self.link_lost)

    # ---- what subclasses do

    def opened(self) -> None:
        """The line is open (and, after a reset, still settling)."""

    def data(self, data: bytes) -> None:
        """Bytes from the board."""

    def gone(self) -> None:
        """The line is closed; nothing can be written any more."""

    def farewell(self) -> bytes:
        """Last bytes for the board when the program ends."""
        return b""

    def link_open(self) -> None: ...

    def link_data(self, data: bytes) -> None: ...

    def link_lost(self, why: str) -> None: ...

    def settings_changed(self) -> None:
        """The settings file was read anew."""

    # ---- telling

    def say(self, text: str, level: int = 1) -> None:
        log.write(level, self.alias, text)

    def become(self, state: str, level: int = 1) -> None:
        """A change of state: one line, not repeated while it lasts."""
        if state != self.state:
            self.state = state
            self.say(state, level)

    def hint(self, key: str, text: str) -> None:
        if key not in self.told:
            self.told.add(key)
            self.say(text, 0)

    # ---- the port

    def start(self) -> None:
        self._open()

    def _open(self) -> None:
        if self.stopped or self.line is not None or self.opening is not None:
            return
        self._cancel_timer()
        self.program.watch_devices()  # before we look, so that what comes while we do is not missed
        self.look_again = False
        mark = self.opening = object()

        def done(result: Any, error: Optional[BaseException]) -> None:
            if mark is not self.opening:
                if result:
                    result[1].close()
                return
            self.opening = None
            if error is not None:
                self._not_opened(error)
            else:
                self._adopt(*result)

        self.loop.work(self._find_and_open, set(self.program.taken(self)), done=done)

    def _find_and_open(self, taken: set[str]) -> tuple[PortInfo, Any]:
        """In a thread: the board's port of today, opened."""
        ports = plugged_in() if "://" not in self.spec else []
        wanted = [p for p in ports if self.identity and p.identity == self.identity]
        if not wanted and not (self.strict and self.identity):
            wanted = matching(self.spec, ports, self.options.any)
        wanted = [p for p in wanted if p.device not in taken]
        if not wanted:
            raise PortError("")
        return wanted[0], open_port(wanted[0].device, self.options.speed, self.options)

    def _not_opened(self, error: BaseException) -> None:
        self.last_error = str(error) or "not plugged in"
        if self.options.once:
            self.program.finish(EXIT_FAILED)
        if not str(error):
            self.become(f"waiting for {self.spec}" if self.spec not in ("auto", "all") else "waiting for a board")
            delay = 30.0 if os.name != "nt" else 5.0  # the watch on /dev wakes us; this is for what it cannot see
        elif isinstance(error, PortError) and error.busy:
            self.become(str(error))
            delay = BUSY_RETRY
        else:
            if self.attempt >= 2 or "permission" not in str(error):  # udev gives them a moment after the port is there
                self.become(str(error) if isinstance(error, PortError) else repr(error), 0)
            delay = PORT_RETRY[min(self.attempt, len(PORT_RETRY) - 1)]
            self.attempt += 1
        self.timer = self.loop.call_later(0.05 if self.look_again else delay, self._open)

    def devices_changed(self) -> None:
        """Something was plugged in or out."""
        if self.opening is not None:
            self.look_again = True
        elif self.line is None and self.loop.now >= self.released_until:
            self._open()

    def _adopt(self, info: PortInfo, port: Any) -> None:
        """The opened port becomes our line; a reset, when wanted, is under way."""
        self.info = info
        self.identity = info.identity or self.identity
        self.alias = alias_of(info.device)
        self.attempt = 0
        self.line = Line(self.loop, port, self._data, self._lost)
        wanted = self.options.reset == "always" or (self.options.reset == "auto" and not self.reset_done)
        self.reset_done = True
        self.become(f"port open, {self.options.speed} baud{f' ({info.text})' if info.text else ''}")
        self.settle_until = 0.0
        self.opened()
        if wanted:
            self.reset_board()

    def adopt_socket(self, sock: socket.socket, name: str) -> None:
        """A TCP client that is a board."""
        self.one_shot = True
        self.alias = name
        self.line = Line(self.loop, sock, self._data, self._lost)
        self.become("connected")
        self.opened()

    def reset_board(self) -> bool:
        """Pulls DTR and RTS for a moment; False where the line has none. The sketch starts after the bootloader."""
        if self.line is None or not self.line.set_lines(False):
            return False
        self.counts["resets"] += 1
        self.settle_until = self.loop.now + RESET_PULSE + SETTLE
        self.loop.call_later(RESET_PULSE, self._end_pulse, self.line)
        return True

    def _end_pulse(self, line: Line) -> None:
        if not line.closed:
            line.set_lines(True)

    @property
    def settling(self) -> bool:
        return bool(self.loop.now < self.settle_until)

    def _data(self, data: bytes) -> None:
        self.counts["bytes_in"] += len(data)
        if log.level >= 3:
            self.say(f"< {data.hex(' ')}", 3)
        self.data(data)

    def write(self, data: bytes) -> None:
        if self.line is not None and data:
            self.counts["bytes_out"] += len(data)
            if log.level >= 3:
                self.say(f"> {data.hex(' ')}", 3)
            self.line.write(data)

    def _lost(self, why: str) -> None:
        self.line = None
        self.last_error = why
        self.link.close()
        self.gone()
        self.become(f"board gone ({why.lower()})")
        if self.one_shot:
            self.program.forget(self)
            return
        if self.options.once:
            self.program.finish(EXIT_FAILED)
        self.timer = self.loop.call_later(PORT_RETRY[0], self._open)

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def release(self, seconds: float) -> None:
        """Lets go of the port for a while, so that a sketch can be uploaded."""
        if self.one_shot:
            return
        self._close()
        self.released_until = self.loop.now + seconds
        self.become(f"port released for {seconds:g} s")
        self.timer = self.loop.call_later(seconds, self._open)

    def _close(self) -> None:
        self._cancel_timer()
        self.opening = None
        self.link.close()
        if self.line is not None:
            self.write(self.farewell())
            line, self.line = self.line, None
            line.close(FAREWELL_TIME)
            self.gone()

    def stop(self) -> None:
        self.stopped = True
        if self.line is not None and self.options.reset == "never" and not self.one_shot:
            set_hang_up(self.line.port, True)
        self._close()

    def status(self) -> str:
        counts = " ".join(f"{name}={value}" for name, value in self.counts.items())
        return f"[{self.alias}] {self.state} | {counts} last_error={self.last_error or '-'}"


class RawBridge(Worker):
    """Bytes either way, nothing looked at; the server is dialled when the line opens, and again when it is lost."""

    __slots__ = ("waiting", "retry")

    def opened(self) -> None:
        self.waiting = bytearray()
        self.retry: Optional[Timer] = None
        self.link.connect()

    def data(self, data: bytes) -> None:
        if self.settling:
            return
        if self.link.up:
            self.link.send(data)
        elif len(self.waiting) < 4096:
            self.waiting += data
        else:
            self.counts["dropped"] += len(data)

    def link_open(self) -> None:
        self.become(f"connected to {self.link.where}")
        self.link.send(bytes(self.waiting))
        self.waiting.clear()

    def link_data(self, data: bytes) -> None:
        self.write(data)

    def link_lost(self, why: str) -> None:
        self.counts["reconnects"] += 1
        self.last_error = why
        self.become(f"no connection to {self.link.where}: {why}")
        if self.options.once:
            self.program.finish(EXIT_FAILED)
        self.retry = self.loop.call_later(self.link.retry_delay(), self._again)

    def _again(self) -> None:
        if self.line is not None and not self.link.busy:
            self.link.connect()

    def gone(self) -> None:
        if self.retry is not None:
            self.retry.cancel()


# ======================================================================================================================
#  9  Bridge
#
#  The Blynk protocol between a BlynkSimpleStream board and the server (spec 10 §3.2–3.6). The board's side is one of
#  "waiting" (no login seen, or told that the server is gone), "login" (wants an answer), "online".
# ======================================================================================================================

FRESH_LOGIN = 2.5  # s: a board waits 3 s for its answer; one that comes later would be read as that of the next login
LOGIN_STALE = 40.0  # s: boards repeat an unanswered login every 5 to 18 s
REFUSED_FOR = 30.0  # s: a refused token is not asked about again
LOOP_WINDOW = 7.5  # s: a login so soon after an accepted one, and nothing between
SILENCES = (2, 4, 8, 14)  # logins left unanswered, so that stale bytes drain (spec 10 §2.3)
KICK_EVERY = 5.0
MAX_REDIRECTS = 3
HOLD_LIMIT = 256  # frames kept while the server is away
TO_BOARD = frozenset((PING, BRIDGE, INTERNAL, HARDWARE, DEBUG_PRINT))
# First words of INTERNAL that describe the board; others (rtc, utc, meta …) ask for something.
INFO_WORDS = frozenset((b"ver", b"fw", b"h-beat", b"buff-in", b"dev", b"cpu", b"con", b"tmpl", b"build", b"fw-type",
                        b"mcu", b"ncp", b"blynk"))  # fmt: skip
FRAME_NAMES = {0: "response", 2: "login", 6: "ping", 13: "email", 14: "push", 15: "bridge", 16: "sync", 17: "internal",
               19: "property", 20: "hardware", 29: "login", 41: "redirect", 55: "debug", 64: "event"}  # fmt: skip


class Bridge(Worker):
    __slots__ = (
        "reader", "server_reader", "pacer", "side", "token", "login_command", "login_id", "login_at", "infos",
        "buff_in", "hold", "logged_in", "session", "ready", "swallow", "redirects", "refused", "refused_until",
        "answered_at", "frames_since", "loops", "cure", "silent", "reset_at", "kicked_at", "pace_timer", "retry_timer",
        "grace_timer", "login_timer", "claim_timer", "claimed", "scan", "info_over",
    )  # fmt: skip

    def opened(self) -> None:
        self.reader = FrameReader()
        self.server_reader = ServerReader()
        self.pacer = Pacer(self._gap(), self.options.speed)
        self.side = "waiting"
        self.token = b""
        self.login_command, self.login_id, self.login_at = HARDWARE_LOGIN, 1, 0.0
        self.infos: list[bytes] = []  # the frames in which the board describes itself, for replay
        self.info_over = False
        self.buff_in = 256
        self.hold: deque[bytes] = deque()  # what the board says while the server is away
        self.logged_in = False
        self.session = 0
        self.ready = False  # the server has accepted; the board's next login is answered at once
        self.swallow: dict[int, int] = {}  # answers to replayed frames, by id
        self.redirects = 0
        self.refused, self.refused_until = b"", 0.0
        self.answered_at, self.frames_since, self.loops, self.cure, self.silent = 0.0, 0, 0, 0, 0
        self.reset_at = -1000.0
        self.kicked_at = -1000.0
        self.pace_timer: Optional[Timer] = None
        self.retry_timer: Optional[Timer] = None
        self.grace_timer: Optional[Timer] = None
        self.login_timer: Optional[Timer] = None
        self.claimed = False
        self.scan = 0
        self.claim_timer: Optional[Timer] = self.loop.call_later(
            SCAN_STEP if self.options.scan_baud else UNCLAIMED, self._unclaimed
        )

    def _gap(self) -> float:
        if self.options.pace >= 0:
            return float(self.options.pace) / 1000
        return 0.0 if self.info.row()[2] else FRAME_GAP

    def gone(self) -> None:
        for timer in (self.pace_timer, self.retry_timer, self.grace_timer, self.login_timer, self.claim_timer):
            if timer is not None:
                timer.cancel()
        self.side = "waiting"
        self.logged_in = False

    def _unclaimed(self) -> None:
        """Nobody has logged in on this port: another speed, or say so."""
        if self.claimed or self.line is None:
            return
        if not self.options.scan_baud:
            self.hint("claim", f"no Blynk login in {UNCLAIMED:g} s at {self.options.speed} baud: another speed in the "
                      "sketch (--scan-baud tries the usual ones), or not a Blynk sketch?")  # fmt: skip
            return
        self.scan += 1
        speed = SCAN_SPEEDS[self.scan % len(SCAN_SPEEDS)]
        if self.line.set_baud(speed):
            self.options.baud = self.pacer.baud = speed
            self.become(f"trying {speed} baud")
        self.reader = FrameReader()
        self.claim_timer = self.loop.call_later(SCAN_STEP, self._unclaimed)

    # ---- board → server

    def data(self, data: bytes) -> None:
        skipped = self.reader.skipped
        for command, message_id, body, raw in self.reader.feed(data, self.loop.now):
            if command is None:
                self._text(raw)
            elif command in (LOGIN, HARDWARE_LOGIN):
                self._trace("board", command, message_id, body)
                self._board_login(command, message_id, body)
            elif not self.settling:
                self._trace("board", command, message_id, body)
                self._board_frame(command, message_id, body, raw)
        self.counts["skipped"] += self.reader.skipped - skipped
        self.pump()

    def _text(self, text: bytes) -> None:
        if self.settling:
            return
        self.say(f"text: {shown(text)}")
        self.hint("text", "the sketch prints on the port that Blynk uses: move debug output to another port")

    def _trace(self, source: str, command: int, message_id: int, body: Any) -> None:
        if log.level < 2:
            return
        if command in (LOGIN, HARDWARE_LOGIN):
            text = short_token(body)
        else:
            text = str(body) if command == RESPONSE else shown(body)
        self.say(f"{source}: {FRAME_NAMES.get(command, command)} {message_id} {text}", 2)

    def _board_login(self, command: int, message_id: int, token: bytes) -> None:
        now = self.loop.now
        self.claimed = True
        self.settle_until = 0.0
        self.login_command, self.login_id, self.login_at = command, message_id, now
        if self.silent > 0:
            self.silent -= 1
            return
        if self._login_loops():
            self._cure_loop()
            return
        token = self.options.token.encode() or token
        if token == self.refused and now < self.refused_until:
            self.to_board(pack_status(message_id, INVALID_TOKEN), urgent=True)
            return
        accepted = self.ready and self.logged_in and token == self.token
        self.token = token
        self.infos, self.info_over, self.buff_in = [], False, 256
        self.hold.clear()
        self._end_grace()
        self.side = "login"
        if accepted:
            self._accept_board()
        elif self.link.up or not (self.link.busy or self._retry_pending()):
            self._connect()  # a board that has restarted gets a session of its own for its new life

    def _login_loops(self) -> bool:
        """Accepted logins that the board does not seem to hear (spec 10 §3.6)."""
        heard = self.answered_at and self.loop.now - self.answered_at <= LOOP_WINDOW and not self.frames_since
        self.loops = self.loops + 1 if heard else 0
        self.answered_at = 0.0
        return self.loops >= 2

    def _cure_loop(self) -> None:
        self.loops = 0
        self.link.close()
        self.side, self.logged_in = "waiting", False
        self.pacer.clear()
        if self.options.reset != "never" and self.loop.now - self.reset_at > 30:
            self.reset_at = self.loop.now
            if self.reset_board():
                self.become("board does not hear the answer to its login: reset")
                return
        self.silent = SILENCES[min(self.cure, len(SILENCES) - 1)]
        self.cure += 1
        self.become(f"board does not hear the answer to its login: silent for {self.silent} of them, so that it drains")

    def _board_frame(self, command: int, message_id: int, body: Any, raw: bytes) -> None:
        if self.side == "waiting":
            self._kick()
            return
        if command in (PING, INTERNAL, HARDWARE):
            self.frames_since += 1
            self.loops = self.cure = 0
        if command == INTERNAL:
            self._note_info(body, raw)
        elif command != RESPONSE:
            self.info_over = True
        self.counts["frames_up"] += 1
        if self.logged_in and self.side == "online":
            self.link.send(raw)
        elif command == PING:
            self.to_board(pack_status(message_id, OK), urgent=True)
        elif command != RESPONSE:
            if len(self.hold) >= HOLD_LIMIT:
                self.hold.popleft()
                self.counts["dropped"] += 1
            self.hold.append(raw)

    def _kick(self) -> None:
        """A board that talks without having logged in here thinks it is online: tell it to log in."""
        if not self.settling and self.loop.now - self.kicked_at >= KICK_EVERY and self.silent == 0:
            self.kicked_at = self.loop.now
            self.to_board(KICK, urgent=True)

    def _note_info(self, body: bytes, raw: bytes) -> None:
        fields = body.split(b"\0")
        if fields[0] not in INFO_WORDS or self.info_over:
            return
        self.infos.append(raw)
        pairs = dict(zip(fields[::2], fields[1::2]))
        size = pairs.get(b"buff-in", b"")
        if size.isdigit() and int(size) > 0:
            self.buff_in = int(size)
            if self.buff_in > 256 and self.options.pace < 0:
                self.pacer.gap = 0.0

    # ---- the server link

    def _connect(self) -> None:
        self._cancel_retry()
        self.logged_in = self.ready = False
        self.session += 1
        self.server_reader = ServerReader()
        self.link.connect()

    def _retry_pending(self) -> bool:
        return self.retry_timer is not None

    def _cancel_retry(self) -> None:
        if self.retry_timer is not None:
            self.retry_timer.cancel()
            self.retry_timer = None

    def _retry(self) -> None:
        self.retry_timer = None
        if self.side == "login" and self.loop.now - self.login_at > LOGIN_STALE:
            self.side = "waiting"  # the board has stopped asking
        if self.side != "waiting" and self.line is not None and not self.link.busy:
            self._connect()

    def link_open(self) -> None:
        if self.side == "waiting":  # nobody waits for it any more
            self.link.close()
            return
        self.link.send(pack(self.login_command, 1, self.token))
        self.login_timer = self.loop.call_later(LOGIN_TIMEOUT, self.link.fail, "no answer to the login")

    def link_data(self, data: bytes) -> None:
        session = self.session
        try:
            for command, message_id, body in self.server_reader.feed(data):
                self._trace("server", command, message_id, body)
                self._server_frame(command, message_id, body)
                if session != self.session or not self.link.up:
                    break  # what follows belongs to a connection that is no more
        except ValueError as error:
            tls = error.args[0][:2] == b"\x15\x03"
            self.link.fail("that port wants TLS: -t SSL" if tls else "that is a web server, not a Blynk server's port")
        self.pump()

    def _server_frame(self, command: int, message_id: int, body: Any) -> None:
        if command == REDIRECT:
            self._follow(body)
        elif not self.logged_in:
            if command == RESPONSE:
                self._login_answer(body)
        elif command == RESPONSE:
            if self.swallow.get(message_id):
                self.swallow[message_id] -= 1
            elif message_id:
                self.to_board(pack_status(message_id, body), urgent=True)
        elif message_id == 0 or command not in TO_BOARD:
            self.counts["dropped"] += 1
            self.say(f"frame of the server not for boards (command {command}, id {message_id}): dropped", 2)
        elif len(body) > self.buff_in:
            self.counts["dropped"] += 1
            self.say(f"value of {len(body)} bytes is more than the board takes ({self.buff_in}): dropped", 0)
        else:
            self.to_board(pack(command, message_id, body), urgent=command == PING)

    def _follow(self, body: bytes) -> None:
        """The server sends us to another one; the board need not know."""
        host, _, port = body.decode("ascii", "replace").partition("\0")
        self.redirects += 1
        if self.redirects > MAX_REDIRECTS or not host or not port.isdigit() or not 0 < int(port) < 65536:
            self.redirects = 0
            self.link.redirect = None
            self.link.fail(f"redirected in circles (to {host}:{port})")
            return
        self.say(f"{self.link.where} sends us to {host}:{port}")
        self.link.redirect = (host, int(port))
        self._cancel_login_timer()
        self._connect()

    def _cancel_login_timer(self) -> None:
        if self.login_timer is not None:
            self.login_timer.cancel()
            self.login_timer = None

    def _login_answer(self, status: int) -> None:
        self._cancel_login_timer()
        self.redirects = 0
        if status in (OK, ALREADY_REGISTERED):
            self._logged_in()
        elif status == INVALID_TOKEN:
            self._token_refused()
        else:
            self.become(f"login at {self.link.where} answered {status_text(status)}", 0)
            self.link.close()
            if self.side == "login":
                self.to_board(pack_status(self.login_id, status), urgent=True)
            else:
                self.to_board(KICK, urgent=True)
            self.side = "waiting"

    def _logged_in(self) -> None:
        self.logged_in = True
        self.swallow = {}
        self.refused = b""
        if self.side == "online":
            self._resume()
        elif self.loop.now - self.login_at <= FRESH_LOGIN:
            self._accept_board()
        else:
            self.ready = True

    def _accept_board(self) -> None:
        self.ready = False
        self.side = "online"
        self.answered_at, self.frames_since = self.loop.now, 0
        self.to_board(pack_status(self.login_id, OK), urgent=True)
        self.become(f"online at {self.link.where}, token {short_token(self.token)}")
        self._send_hold()

    def _resume(self) -> None:
        """The board has not noticed that the server was away: say for it what it said at its login."""
        self._end_grace()
        for raw in self.infos:
            message_id = HEADER.unpack_from(raw)[1]
            self.swallow[message_id] = self.swallow.get(message_id, 0) + 1
            self.link.send(raw)
        self.counts["reconnects"] += 1
        self.become(f"online again at {self.link.where}, token {short_token(self.token)}")
        self._send_hold()

    def _send_hold(self) -> None:
        while self.hold:
            self.link.send(self.hold.popleft())

    def _token_refused(self) -> None:
        self.refused, self.refused_until = self.token, self.loop.now + REFUSED_FOR
        what = f" of {self.info.text}" if self.info.text else ""
        self.become(f"token {short_token(self.token)}{what} not accepted by {self.link.where}: that server does not "
                    "know it; copy the device's token from the app into the sketch", 0)  # fmt: skip
        self.last_error = "token refused"
        self.link.close()
        self.to_board(pack_status(self.login_id, INVALID_TOKEN) if self.side == "login" else KICK, urgent=True)
        self.side, self.logged_in = "waiting", False
        if self.options.once:
            self.program.finish(EXIT_REFUSED)

    def link_lost(self, why: str) -> None:
        self._cancel_login_timer()
        was_online, self.logged_in, self.ready = self.logged_in, False, False
        self.session += 1
        self.last_error = why
        if self.side == "online" and was_online:
            self.become(f"server lost: {why}")
            self.grace_timer = self.loop.call_later(self.options.grace, self._grace_over)
        elif self.side != "waiting":
            self.become(f"no server at {self.link.where}: {why}", 0)
        if self.options.once:
            self.program.finish(EXIT_FAILED)
        self._cancel_retry()
        self.retry_timer = self.loop.call_later(self.link.retry_delay(), self._retry)

    def _grace_over(self) -> None:
        """The server stays away: the sketch gets its BLYNK_DISCONNECTED now, not in a minute."""
        self.side = "waiting"
        self.hold.clear()
        self.pacer.clear()
        self.to_board(KICK, urgent=True)
        self.kicked_at = self.loop.now
        self.become("server still away: board told")
        self.pump()

    def _end_grace(self) -> None:
        if self.grace_timer is not None:
            self.grace_timer.cancel()
            self.grace_timer = None

    def settings_changed(self) -> None:
        self.refused = b""

    # ---- server → board

    def to_board(self, frame: bytes, urgent: bool = False) -> None:
        self.counts["frames_down"] += 1
        dropped = self.pacer.dropped
        self.pacer.push(frame, urgent)
        if self.pacer.dropped > dropped:
            self.counts["dropped"] += 1
            self.hint("slow", "values come faster than the board takes them: the oldest are dropped")
        self.pump()

    def pump(self) -> None:
        """Writes what the board may get now, and sets the timer for the rest."""
        if self.line is None:
            return
        congested = len(self.line.out) > 2048  # USB holds us back: the board does not read
        if not congested:
            self.write(self.pacer.take(self.loop.now))
        wait = self.pacer.wait(self.loop.now)
        if wait is not None and self.pace_timer is None:
            self.pace_timer = self.loop.call_later(max(wait, 0.05 if congested else 0.002), self._paced)

    def _paced(self) -> None:
        self.pace_timer = None
        self.pump()


# ======================================================================================================================
#  10  NCP wire
#
#  Sans-I/O: Blynk.NCP's link layer and its remote calls (spec 09 §1, §2). Bytes in, calls of `serve`; calls and pushes
#  in, bytes out. Little-endian. No clock: `now` is an argument.
# ======================================================================================================================

INVOKE, RESULT, ONEWAY = 0x67BC, 0xA512, 0x1CF3
FRAME_START, FRAME_END, ESCAPE = 0xAA, 0xBB, 0xCC
MUST_ESCAPE = frozenset((0x11, 0x13, FRAME_START, FRAME_END, ESCAPE))
MAX_ESCAPED = 4096
RPC_OK, RPC_ERROR, RPC_TIMEOUT, RPC_UNKNOWN, RPC_BAD_ARGUMENTS, RPC_BAD_RESULT = 0x00, 0x10, 0x11, 0x13, 0x15, 0x17
MCU_PING = 0x0181
FENCE_WAIT, FENCE_TRIES, STALL_PAUSE = 0.3, 3, 1.0
MERGE_FROM, PUSH_LIMIT = 32, 256  # waiting pushes: from here values of one pin are merged; the oldest go


def crc8(data: bytes) -> int:
    """Polynomial 07, start 0: "123456789" → F4."""
    crc = 0
    for byte in data:
        crc = CRC8[crc ^ byte]
    return crc


def _crc8_table() -> bytes:
    table = bytearray(256)
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
        table[value] = crc
    return bytes(table)


CRC8 = _crc8_table()


def ncp_frame(payload: bytes) -> bytes:
    """A payload on its way: start, escaped bytes and CRC, end. Never empty (that crashes the driver)."""
    out = bytearray((FRAME_START,))
    for byte in (*payload, crc8(payload)):
        if byte in MUST_ESCAPE:
            out += bytes((ESCAPE, byte ^ 0xFF))
        else:
            out.append(byte)
    out.append(FRAME_END)
    return bytes(out)


class NcpReader:
    """Bytes in, payloads out; whatever is broken is counted and forgotten."""

    __slots__ = ("buffer", "inside", "escaped", "broken")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.inside = self.escaped = False
        self.broken = 0

    def feed(self, data: bytes) -> list[bytes]:
        payloads = []
        for byte in data:
            if byte == FRAME_START:  # can never be inside a frame: the sender has begun anew
                self.broken += self.inside
                self.buffer.clear()
                self.inside, self.escaped = True, False
            elif not self.inside:
                continue
            elif byte == FRAME_END:
                payload = self._end()
                if payload is not None:
                    payloads.append(payload)
            elif self.escaped:
                self.buffer.append(byte ^ 0xFF)
                self.escaped = False
            elif byte == ESCAPE:
                self.escaped = True
            else:
                self.buffer.append(byte)
                if len(self.buffer) > MAX_ESCAPED:
                    self.inside = False
                    self.broken += 1
        return payloads

    def _end(self) -> Optional[bytes]:
        self.inside = False
        payload = bytes(self.buffer[:-1])
        if self.escaped or len(self.buffer) < 3 or crc8(payload) != self.buffer[-1]:
            self.broken += 1
            return None
        return payload


FIXED = {"b": struct.Struct("<?"), "B": struct.Struct("<B"), "H": struct.Struct("<H"), "h": struct.Struct("<h"),
         "I": struct.Struct("<I"), "q": struct.Struct("<q")}  # fmt: skip


def ncp_values(kinds: str, data: bytes) -> list[Any]:
    """Decoded values: b Bool, B u8, H u16, h i16, I u32, q i64, s String, x Binary. Raises ValueError."""
    values: list[Any] = []
    at = 0
    for kind in kinds:
        if kind == "s":
            end = data.find(b"\0", at)
            if end < 0:
                raise ValueError("string without an end")
            values.append(data[at:end].decode("utf-8", "replace"))
            at = end + 1
            continue
        try:
            if kind == "x":
                length = FIXED["H"].unpack_from(data, at)[0]
                at += 2
                if len(data) < at + length:
                    raise ValueError("binary cut short")
                values.append(data[at : at + length])
                at += length
            else:
                values.append(FIXED[kind].unpack_from(data, at)[0])
                at += FIXED[kind].size
        except struct.error:
            raise ValueError("value cut short") from None
    if kinds and at != len(data):
        raise ValueError("more than the arguments")
    return values


def ncp_bytes(kinds: str, values: Iterable[Any]) -> bytes:
    out = b""
    for kind, value in zip(kinds, values):
        if kind == "s":
            out += str(value).encode() + b"\0"
        elif kind == "x":
            out += FIXED["H"].pack(len(value)) + value
        else:
            out += FIXED[kind].pack(value)
    return out


class Request:
    """A call of ours that waits for its RESULT, or the fence behind a batch of pushes."""

    __slots__ = ("uid", "arguments", "wait", "done", "tries", "deadline", "batch")

    def __init__(
        self, uid: int, arguments: bytes, wait: float, done: Optional[Callable[[int, bytes], None]], tries: int = 1
    ) -> None:
        self.uid, self.arguments, self.wait, self.done, self.tries = uid, arguments, wait, done, tries
        self.deadline = 0.0
        self.batch: list[tuple[Optional[int], bytes]] = []


class NcpLink:
    """One board's calls, both ways. One request of ours is out at a time; theirs are answered meanwhile.

    serve(uid, arguments, wants_result) gives (status, result bytes), or None when `reply` will come later.
    """

    __slots__ = (
        "reader", "serve", "limit", "out", "message_id", "request_id", "waiting", "calls", "pushes", "held",
        "resume_at", "stalled", "frames", "dropped", "last_frame", "byte_time",
    )  # fmt: skip

    def __init__(self, serve: Callable[[int, bytes, bool], Optional[tuple[int, bytes]]], limit: int = 1536) -> None:
        self.reader = NcpReader()
        self.serve = serve
        self.limit = limit  # raw payload bytes the board can take
        self.out = bytearray()
        self.message_id = 0  # of the call that is being served
        self.request_id = 0  # of our own last one
        self.waiting: Optional[Request] = None
        self.calls: deque[Request] = deque()
        self.pushes: deque[tuple[Optional[int], bytes]] = deque()  # (pin or None, payload)
        self.held = False  # pushes wait (firmware update)
        self.resume_at = 0.0
        self.stalled = False  # the board did not acknowledge; asked with pings only
        self.frames = 0
        self.dropped = 0
        self.last_frame = -1000.0
        self.byte_time = 10 / 38400  # s on the wire, for the deadlines

    def take_output(self) -> bytes:
        data = bytes(self.out)
        self.out.clear()
        return data

    def reset(self) -> None:
        """A new board, or the same after its death: nothing that was under way counts."""
        self.calls.clear()
        self.pushes.clear()
        self.waiting = None
        self.held = self.stalled = False
        self.out.clear()

    # ---- theirs

    def receive(self, data: bytes, now: float) -> None:
        for payload in self.reader.feed(data):
            operation = FIXED["H"].unpack_from(payload)[0]
            rest = payload[2:]
            self.frames += 1
            self.last_frame = now
            if operation == RESULT and len(rest) >= 3:
                self._result(FIXED["H"].unpack_from(rest)[0], rest[2], rest[3:], now)
            elif operation == INVOKE and len(rest) >= 4:
                uid, message_id = struct.unpack_from("<HH", rest)
                self.message_id = message_id
                answer = self.serve(uid, rest[4:], True)
                if answer is not None:
                    self.reply(message_id, *answer)
            elif operation == ONEWAY and len(rest) >= 2:
                self.serve(FIXED["H"].unpack_from(rest)[0], rest[2:], False)
        self._advance(now)

    def reply(self, message_id: int, status: int, result: bytes = b"") -> None:
        self.out += ncp_frame(struct.pack("<HHB", RESULT, message_id, status) + (result if status == RPC_OK else b""))

    # ---- ours

    def call(
        self,
        uid: int,
        arguments: bytes,
        wait: float,
        done: Optional[Callable[[int, bytes], None]],
        now: float,
        tries: int = 1,
    ) -> None:
        """done(status, result bytes); status 0x11 when nothing came in `wait` seconds, `tries` times."""
        self.calls.append(Request(uid, arguments, wait, done, tries))
        self._advance(now)

    def push(self, uid: int, arguments: bytes, now: float, pin: Optional[int] = None, first: bool = False) -> bool:
        """A one-way message; the next one leaves when the board has taken this. False: more than the board can hold."""
        payload = struct.pack("<HH", ONEWAY, uid) + arguments
        if len(payload) + 1 > self.limit:
            self.dropped += 1
            return False
        if first:
            self.pushes.appendleft((pin, payload))
        else:
            self._merge(pin)
            self.pushes.append((pin, payload))
        self._advance(now)
        return True

    def _merge(self, pin: Optional[int]) -> None:
        if pin is not None and (self.held or len(self.pushes) >= MERGE_FROM):
            for index, (other, _payload) in enumerate(self.pushes):
                if other == pin:
                    del self.pushes[index]
                    return
        if len(self.pushes) >= PUSH_LIMIT:
            self.pushes.popleft()
            self.dropped += 1

    def deadline(self) -> Optional[float]:
        """When `tick` is due, None when there is nothing to wait for."""
        if self.waiting is not None:
            return self.waiting.deadline
        return self.resume_at if self.stalled else None

    def tick(self, now: float) -> None:
        request = self.waiting
        if request is not None and now >= request.deadline:
            self.waiting = None
            request.tries -= 1
            if request.tries > 0:
                self._send(request, now)
            elif request.uid == MCU_PING and request.done is None:
                self.pushes.extendleft(reversed(request.batch))
                self.stalled, self.resume_at = True, now + STALL_PAUSE
            elif request.done is not None:
                request.done(RPC_TIMEOUT, b"")
        self._advance(now)

    def _advance(self, now: float) -> None:
        """The next request, when none is out."""
        if self.waiting is not None:
            return
        if self.calls:
            self._send(self.calls.popleft(), now)
        elif self.stalled:
            if now >= self.resume_at:
                self._send(Request(MCU_PING, b"", FENCE_WAIT, None), now)
        elif self.pushes and not self.held:
            fence = Request(MCU_PING, b"", FENCE_WAIT, None, FENCE_TRIES)
            size = 0
            while self.pushes and (not fence.batch or size + len(self.pushes[0][1]) + 4 <= IN_FLIGHT):
                fence.batch.append(self.pushes.popleft())
                size += len(fence.batch[-1][1]) + 4
            self._send(fence, now)

    def _send(self, request: Request, now: float) -> None:
        self.request_id = (self.request_id + 1) & 0xFFFF
        for _pin, payload in request.batch:
            self.out += ncp_frame(payload)
        self.out += ncp_frame(struct.pack("<HHH", INVOKE, request.uid, self.request_id) + request.arguments)
        request.deadline = now + request.wait + len(self.out) * self.byte_time
        self.waiting = request

    def _result(self, message_id: int, status: int, result: bytes, now: float) -> None:
        if self.waiting is None or message_id != self.request_id:
            return  # late: its caller has given up
        request, self.waiting = self.waiting, None
        self.stalled = False
        if request.done is not None:
            request.done(status, result)


# ======================================================================================================================
#  11  Place and time
#
#  What the computer knows of clock and zone, for getTime and getLocationInfo (spec 09 §5).
# ======================================================================================================================


def clock_is_set() -> bool:
    """Has something (NTP, GPS) set the clock? Where the system does not tell: is the year possible?"""
    if os.path.exists("/run/systemd/timesync/synchronized"):
        return True
    if sys.platform.startswith("linux"):
        try:
            import ctypes

            state = (ctypes.c_int * 64)()  # struct timex, nothing to change
            if ctypes.CDLL(None).adjtimex(ctypes.byref(state)) >= 0:
                return not state[5 * ctypes.sizeof(ctypes.c_long) // 4] & 0x40  # status, STA_UNSYNC
        except (ImportError, OSError, AttributeError):
            pass
    return time.gmtime().tm_year >= 2024


def system_zone() -> str:
    """Olson name of this computer's zone, "" when it cannot be told."""
    try:
        with open("/etc/timezone", encoding="ascii") as file:
            name = file.read().strip()
            if name:
                return name
    except (OSError, ValueError):
        pass
    target = os.path.realpath("/etc/localtime")
    return target.partition("zoneinfo/")[2]


def zone_rule(name: str) -> str:
    """The zone's POSIX rule, the last line of its file; "" when there is no such zone here."""
    from zoneinfo import TZPATH

    if not name or ".." in name or name.startswith("/"):
        return ""
    folders = list(TZPATH)
    try:
        import tzdata

        folders.append(os.path.join(os.path.dirname(tzdata.__file__ or ""), "zoneinfo"))
    except ImportError:
        pass
    for folder in folders:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
        except OSError:
            continue
        if data[:4] == b"TZif":
            return data.rstrip(b"\n").rpartition(b"\n")[2].decode("ascii", "replace")
    return ""


class Place:
    """Zone and position of one board: the settings file's, else the computer's."""

    __slots__ = ("zone", "latitude", "longitude", "rule")

    def __init__(self, values: dict[str, str]) -> None:
        self.zone = values.get("timezone", "") or system_zone()
        self.latitude = values.get("latitude", "")
        self.longitude = values.get("longitude", "")
        self.rule = zone_rule(self.zone)

    def time_values(self, utc_ms: int) -> tuple[str, int, int, str, int]:
        """iso8601, UTC ms, offset in minutes, abbreviation, dst (0 zone unknown, 1 none, 2 now, 3 not now)."""
        from datetime import datetime, timezone

        moment = datetime.fromtimestamp(utc_ms / 1000, timezone.utc)
        if not self.rule:
            return moment.strftime("%Y-%m-%dT%H:%M:%S+00:00"), utc_ms, 0, "UTC", 0
        from zoneinfo import ZoneInfo

        local = moment.astimezone(ZoneInfo(self.zone))
        offset = local.utcoffset()
        minutes = int(offset.total_seconds() // 60) if offset is not None else 0
        summer = 2 if local.dst() else 3
        sign = "-" if minutes < 0 else "+"
        text = local.strftime("%Y-%m-%dT%H:%M:%S") + f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
        return text, utc_ms, minutes, local.tzname() or "", summer if "," in self.rule else 1


# ======================================================================================================================
#  12  Firmware
#
#  An update of a Blynk.NCP board: the file, fetched whole to a temporary file, measured, its tag read; and its way to the
#  board, chunk by chunk (spec 09 §6).
# ======================================================================================================================

MAX_FIRMWARE = 32 * 1024 * 1024
DOWNLOAD_TIMEOUT = 30.0
TAG_START = b"blnkinf\0"
OTA_AVAILABLE, OTA_WRITE, OTA_FINISH, OTA_CANCEL = 0x0441, 0x0442, 0x0443, 0x0444
OTA_TRIES, OTA_WAIT = 5, 5.0
OTA_KEPT = 600.0  # s an accepted update waits for the board to ask for it (it may reboot into a loader first)
OTA_FRAME_COST = 17  # raw bytes of a chunk's frame that are not the chunk
AFTER_RESULT = 0.002  # s: what a call sets off follows its RESULT


class FirmwareError(Exception):
    """Why there is no firmware to offer."""


class Firmware:
    """A downloaded image; `file` is deleted by the system when it is closed."""

    __slots__ = ("url", "name", "file", "size", "crc32", "md5", "sha256", "tag")

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = url.partition("?")[0].rpartition("/")[2] or "firmware.bin"
        self.file: Any = None
        self.size, self.crc32, self.md5, self.sha256 = 0, 0, b"", b""
        self.tag: dict[str, str] = {}

    def chunk(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        data: bytes = self.file.read(length)
        return data

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def fetch_firmware(url: str, options: Options) -> Firmware:
    """Blocks while it downloads. Raises FirmwareError."""
    import hashlib
    import tempfile
    import urllib.error
    import urllib.request
    import zlib

    if not url.startswith(("http://", "https://")):
        raise FirmwareError(f"not a web address: {url}")
    firmware = Firmware(url)
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    overlap, tagged = b"", bytearray()
    try:
        context = tls_context(options) if url.startswith("https://") else None
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT, context=context) as answer:  # noqa: S310
            firmware.file = tempfile.TemporaryFile()
            while True:
                data = answer.read(16384)
                if not data:
                    break
                firmware.size += len(data)
                if firmware.size > MAX_FIRMWARE:
                    raise FirmwareError(f"larger than {MAX_FIRMWARE >> 20} MiB")
                firmware.file.write(data)
                firmware.crc32 = zlib.crc32(data, firmware.crc32)
                md5.update(data)
                sha256.update(data)
                if tagged:
                    tagged += data[: 512 - len(tagged)] if len(tagged) < 512 else b""
                else:
                    at = (overlap + data).find(TAG_START)
                    tagged += (overlap + data)[at : at + 512] if at >= 0 else b""
                    overlap = data[-len(TAG_START) :]
            length = answer.headers.get("Content-Length", "")
    except (urllib.error.URLError, OSError, ValueError) as error:
        firmware.close()
        raise FirmwareError(str(getattr(error, "reason", error))) from None
    except FirmwareError:
        firmware.close()
        raise
    if not firmware.size or (length.isdigit() and int(length) != firmware.size):
        firmware.close()
        raise FirmwareError("the file is empty" if not firmware.size else "the download ended early")
    firmware.md5, firmware.sha256 = md5.digest(), sha256.digest()
    firmware.tag = read_tag(bytes(tagged))
    return firmware


def read_tag(data: bytes) -> dict[str, str]:
    """blnkinf\\0 key\\0 value\\0 … \\0 → the pairs; empty when there is no tag."""
    if not data.startswith(TAG_START):
        return {}
    fields = data[len(TAG_START) :].split(b"\0")
    pairs = {}
    for key, value in zip(fields[::2], fields[1::2]):
        if not key:
            break
        pairs[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return pairs


class Update:
    """The way of one firmware at a time from the server to the board (spec 09 §6).

    Phases: "" → fetching → (suspended) → offered → accepted → writing → finishing → applied → "".
    `ncp` is the board's Ncp: its calls, its words, its end of the session when the board restarts.
    """

    __slots__ = (
        "ncp", "phase", "firmware", "offset", "chunk", "tries", "lost", "resume_at", "pause", "patience", "refused_url",
    )  # fmt: skip

    def __init__(self, ncp: Any) -> None:
        self.ncp = ncp
        self.phase = ""
        self.firmware: Optional[Firmware] = None
        self.offset = self.chunk = self.tries = 0
        self.lost = False  # the last chunk's RESULT did not come
        self.resume_at = 0.0
        self.pause: Optional[Timer] = None  # otaUpdateSuspend
        self.patience: Optional[Timer] = None  # accepted, not yet asked for
        self.refused_url = ""  # what this board did not want: the server offers it at each login

    def fetch(self, url: str) -> None:
        if self.phase or url == self.refused_url:
            return
        self.phase = "fetching"
        self.ncp.say(f"server offers firmware {url}")

        def done(firmware: Any, error: Optional[BaseException]) -> None:
            if self.phase != "fetching":
                if firmware is not None:
                    firmware.close()
                return
            self.phase = ""
            if error is not None:
                self.ncp.say(f"no firmware from {url}: {error}", 0)
            else:
                self.offer(firmware)

        self.ncp.loop.work(fetch_firmware, url, self.ncp.options, done=done)

    def _held_back(self, then: Callable[[Firmware], None], firmware: Firmware) -> bool:
        """Is the board's otaUpdateSuspend in force? Then `then` comes later."""
        wait = self.resume_at - self.ncp.loop.now
        if wait > 0:
            self.pause = self.ncp.loop.call_later(wait, self._resume, then, firmware)
        return bool(wait > 0)

    def _resume(self, then: Callable[[Firmware], None], firmware: Firmware) -> None:
        self.pause = None
        if firmware is self.firmware:
            then(firmware)

    def suspend(self, seconds: int) -> None:
        """Holds back the offer and the chunks; 0 resumes."""
        self.resume_at = self.ncp.loop.now + seconds
        if self.pause is not None and seconds == 0:
            args = self.pause.args
            self.pause.cancel()
            self.pause = self.ncp.loop.call_later(AFTER_RESULT, self._resume, *args)

    def offer(self, firmware: Firmware) -> None:
        self.firmware, self.phase = firmware, "suspended"
        if self._held_back(self.offer, firmware):
            return
        kind, ours = firmware.tag.get("fw-type", ""), self.ncp.firmware[0]
        if kind and ours and kind != ours and not self.ncp.options.ota_force:
            self.refused_url = firmware.url
            self.drop(f"firmware is for {kind}, this board is {ours}: refused (--ota-force)")
            return
        self.phase = "offered"
        values = (firmware.name, firmware.size, kind, firmware.tag.get("mcu", ""), firmware.tag.get("build", ""))
        self._call(OTA_AVAILABLE, ncp_bytes("sIsss", values), self._offer_answer)

    def _call(self, uid: int, arguments: bytes, done: Callable[[int, bytes], None]) -> None:
        self.ncp.rpc.call(uid, arguments, OTA_WAIT, done, self.ncp.loop.now)
        self.ncp.pump()

    def _offer_answer(self, status: int, result: bytes) -> None:
        if self.firmware is None:
            return
        if status == RPC_OK and result == b"\x01":
            if self.phase == "offered":  # else the board has started already, from within the call
                self.phase = "accepted"
                self.patience = self.ncp.loop.call_later(OTA_KEPT, self.drop, "firmware was accepted, never asked for")
            return
        self.refused_url = self.firmware.url
        why = "board does not answer" if status == RPC_TIMEOUT else "board does not want it"
        self.drop(f"firmware not taken: {why}")

    def start(self, chunk: int) -> bool:
        """The board asks for the bytes."""
        if self.phase not in ("offered", "accepted", "writing") or not chunk or self.firmware is None:
            return False
        again = self.phase == "writing"
        self.phase = "writing"
        self.chunk = max(1, min(chunk, self.ncp.rpc.limit - OTA_FRAME_COST))
        self.offset = self.tries = 0
        self.lost = False
        self.ncp.rpc.held = True
        self._cancel_patience()
        self.ncp.say(f"firmware: sending {self.firmware.size} bytes to the board")
        if not again:  # else the answer to the chunk that is out goes on from the new beginning
            self.ncp.loop.call_later(AFTER_RESULT, self._write, self.firmware)
        return True

    def _write(self, firmware: Firmware) -> None:
        if firmware is not self.firmware or self.phase != "writing" or self._held_back(self._write, firmware):
            return
        if self.offset >= firmware.size:
            self.phase = "finishing"
            self._call(OTA_FINISH, b"", self._finish_answer)
            return
        import zlib

        data = firmware.chunk(self.offset, self.chunk)
        offset = self.offset
        arguments = ncp_bytes("IxI", (offset, data, zlib.crc32(data)))
        self._call(OTA_WRITE, arguments, lambda status, result: self._chunk_answer(offset, len(data), status, result))

    def _chunk_answer(self, offset: int, length: int, status: int, result: bytes) -> None:
        if self.firmware is None or self.phase != "writing":
            return
        if offset != self.offset:
            pass  # the board has started anew meanwhile
        elif status == RPC_OK and result == b"\x01":
            self.offset += length
            self.tries, self.lost = 0, False
        elif status != RPC_TIMEOUT and self.lost:
            # The chunk was stored and its RESULT lost: the repeat is refused since the board's offset moved on.
            self.offset += length
            self.lost = False
        else:
            self.lost = status == RPC_TIMEOUT
            self.tries += 1
            if self.tries >= OTA_TRIES:
                self.ncp.rpc.call(OTA_CANCEL, b"", 1.0, None, self.ncp.loop.now)
                self.drop(f"firmware: board refuses the bytes from {offset}: cancelled")
                self.ncp.pump()
                return
        self._write(self.firmware)

    def _finish_answer(self, status: int, result: bytes) -> None:
        if self.firmware is None:
            return
        if status == RPC_OK and result == b"\x01":
            self.ncp.say("firmware: board has it and restarts")
            self.phase = "applied"
            self.ncp.rpc.held = False
            self.ncp.board_restarts()
            return
        self.refused_url = self.firmware.url
        self.drop(f"firmware: {'board rejects the file' if status == RPC_OK else 'no answer at the end'}")
        self.ncp.pump()

    def board_started(self, version: str) -> None:
        """The board's next start tells whether the update took."""
        if self.phase == "applied" and self.firmware is not None:
            wanted = self.firmware.tag.get("mcu", "")
            if wanted and wanted != version:
                self.ncp.say(f"firmware: board runs {version}, not {wanted}", 0)
                self.refused_url = self.firmware.url
            else:
                self.ncp.say(f"firmware: board runs {version} now")
            self.drop("")
        elif self.phase in ("writing", "finishing"):
            self.drop("firmware: board restarted in the middle")

    def digest(self, name: str, empty: Any) -> tuple[Any, bool]:
        return (getattr(self.firmware, name), True) if self.firmware is not None else (empty, False)

    def drop(self, why: str) -> None:
        """The end of it, for whatever reason; values to the board may flow again."""
        if self.firmware is not None:
            self.firmware.close()
            if why:
                self.ncp.say(why, 0)
        self._cancel_patience()
        if self.pause is not None:
            self.pause.cancel()
            self.pause = None
        self.firmware, self.phase = None, ""
        self.ncp.rpc.held = False

    def _cancel_patience(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None


# ======================================================================================================================
#  13  NCP
#
#  What a Blynk.NCP module does for its board, done by this computer (spec 09 §3–§9). METHODS says which handler serves
#  which call; a handler gets the decoded arguments and returns the result values, or LATER.
# ======================================================================================================================

IDLE, CONFIG, CONNECTING_NET, CONNECTING_CLOUD, CONNECTED, NOT_INITIALIZED, ERROR = 1, 2, 3, 4, 5, 10, 12
STATE_TEXT = {
    IDLE: "idle",
    CONFIG: "no token for this board",
    CONNECTING_NET: "no network",
    CONNECTING_CLOUD: "connecting",
    CONNECTED: "online",
    NOT_INITIALIZED: "board not initialized",
    ERROR: "token refused",
}
EVENT_REBOOTING, EVENT_PROVISIONED, EVENT_WANTS_TIME, EVENT_TIME_CHANGED = 1, 20, 21, 22
STATE_CHANGE, VPIN_CHANGE, PROCESS_EVENT = 0x0411, 0x0412, 0x0421
HEARTBEAT = 30
REFUSED_RETRY = 60.0
SWITCH_PROOF = 3.0  # s: no valid frame so long after a change of speed, and it is taken back
NOISE_BEFORE_SCAN, SCAN_STAY = 1.5, 0.35
SPEEDS_TO_SCAN = (115200, 57600, 230400, 460800)
QUIET, PROBE_EVERY, PROBES = 20.0, 5.0, 5  # liveness: silence, then pings
HOUSEKEEPING = 2.0
GROUP_WAIT = 1.0
SLOW_FOR, SLOW_STEP = 60.0, 0.1  # after the server's "quota exceeded"
LATER = ()  # a handler's answer that comes by `reply`

# uid: name, kinds of the arguments, kinds of the result (None: one-way), handler
METHODS: dict[int, tuple[str, str, Optional[str], str]] = {
    0x0101: ("ncp.ping", "", "", "on_ping"),
    0x0102: ("ncp.reboot", "", "b", "on_reboot"),
    0x0103: ("ncp.hasUID", "H", "b", "on_has_uid"),
    0x0201: ("hw.setUartBaudRate", "I", "b", "on_baud"),
    0x0211: ("hw.initUserButton", "Hb", "b", "on_hardware"),
    0x0221: ("hw.initLED", "Hb", "b", "on_led"),
    0x0222: ("hw.initRGB", "HHHb", "b", "on_hardware"),
    0x0223: ("hw.initARGB", "HBB", "b", "on_hardware"),
    0x0224: ("hw.setLedBrightness", "B", "b", "on_led"),
    0x0231: ("hw.getWiFiMAC", "", "sb", "on_wifi_mac"),
    0x0232: ("hw.getEthernetMAC", "", "sb", "on_ethernet_mac"),
    0x0301: ("blynk.initialize", "ss", "b", "on_initialize"),
    0x0302: ("blynk.setVendorPrefix", "s", "b", "on_vendor_prefix"),
    0x0303: ("blynk.setVendorServer", "s", "b", "on_vendor_server"),
    0x0304: ("blynk.setFirmwareInfo", "ssss", "b", "on_firmware_info"),
    0x0305: ("blynk.getNcpVersion", "", "sb", "on_version"),
    0x0306: ("blynk.getState", "", "B", "on_state"),
    0x0307: ("blynk.getHotspotName", "", "sb", "on_hotspot_name"),
    0x0311: ("blynk.virtualWrite", "Hx", None, "on_virtual_write"),
    0x0312: ("blynk.syncAll", "", None, "on_sync_all"),
    0x0313: ("blynk.syncVirtual", "x", None, "on_sync"),
    0x0314: ("blynk.setProperty", "Hsx", None, "on_property"),
    0x0315: ("blynk.beginGroup", "q", None, "on_group_begin"),
    0x0316: ("blynk.endGroup", "", None, "on_group_end"),
    0x0317: ("blynk.logEvent", "ss", None, "on_log_event"),
    0x0318: ("blynk.resolveEvent", "s", None, "on_resolve_event"),
    0x0319: ("blynk.resolveAllEvents", "s", None, "on_resolve_event"),
    0x031A: ("blynk.setMetadata", "ss", None, "on_metadata"),
    0x0321: ("blynk.configStart", "", "b", "on_config_start"),
    0x0322: ("blynk.configStop", "", "b", "on_config_stop"),
    0x0323: ("blynk.configReset", "", "b", "on_config_reset"),
    0x0324: ("blynk.isConfigured", "", "b", "on_is_configured"),
    0x0325: ("blynk.setConfigTimeout", "H", "b", "on_config_timeout"),
    0x0326: ("blynk.setConfigSkipLimit", "B", "b", "on_skip_limit"),
    0x0331: ("blynk.factoryReset", "", "b", "on_factory_reset"),
    0x0332: ("blynk.factoryTestWiFi", "ss", "hB", "on_test_wifi"),
    0x0333: ("blynk.factoryTestWiFiAP", "H", "B", "on_test_access_point"),
    0x033A: ("blynk.factoryTestConnect", "", "B", "on_test_connect"),
    0x0341: ("blynk.otaUpdateStart", "H", "b", "on_ota_start"),
    0x0342: ("blynk.otaUpdateGetCRC32", "", "Ib", "on_ota_crc"),
    0x0343: ("blynk.otaUpdateGetMD5", "", "xb", "on_ota_md5"),
    0x0344: ("blynk.otaUpdateGetSHA256", "", "xb", "on_ota_sha256"),
    0x0345: ("blynk.otaUpdatePrefetch", "", "B", "on_ota_prefetch"),
    0x0346: ("blynk.otaUpdateSuspend", "H", "b", "on_ota_suspend"),
    0x0351: ("blynk.setTime", "q", "b", "on_set_time"),
    0x0352: ("blynk.getTime", "", "sqhsBb", "on_get_time"),
    0x0353: ("blynk.getLocationInfo", "", "ssssb", "on_location"),
}


def network_address(kind: str) -> str:
    """MAC of wlan0 or eth0, or of the first of its kind; "" when there is none."""
    folder = "/sys/class/net"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return ""
    wireless = kind == "wlan"
    for name in sorted(names, key=lambda name: name != f"{kind}0"):
        if name == "lo" or os.path.isdir(f"{folder}/{name}/wireless") != wireless:
            continue
        if not wireless and not os.path.exists(f"{folder}/{name}/device"):
            continue
        try:
            with open(f"{folder}/{name}/address", encoding="ascii") as file:
                return file.read().strip().upper()
        except OSError:
            continue
    return ""


def wifi_now() -> tuple[str, int]:
    """(name, signal in dBm) of the network that this computer is on; ("", 0) for none."""
    try:
        import array
        import fcntl

        with open("/proc/net/wireless", encoding="ascii") as file:
            fields = file.read().splitlines()[2].split()
        name = array.array("B", b"\0" * 32)
        request = struct.pack("16sPHH", fields[0].rstrip(":").encode(), name.buffer_info()[0], 32, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock.fileno(), 0x8B1B, request)  # SIOCGIWESSID
        return bytes(name).rstrip(b"\0").decode("utf-8", "replace"), int(float(fields[3].rstrip(".")))
    except (ImportError, OSError, IndexError, ValueError):
        return "", 0


class Ncp(Worker):
    __slots__ = (
        "rpc", "code", "template", "product", "firmware", "prefix", "place", "speed", "negotiated", "switch_to",
        "noise_since", "byte_at", "scan_at", "scan_timer", "tick_timer", "house_timer", "probes", "probe_at",
        "server_reader", "logged_in", "message_id", "pending", "group", "group_timer", "sent_at", "pings",
        "login_timer", "retry_timer", "redirects", "slow_until", "slow_timer", "paused", "provisioned", "clock_offset",
        "clock_step", "place_seen", "wants_time_at", "update", "config_seen",
        "warned_clock",
    )  # fmt: skip

    def opened(self) -> None:
        self.rpc = NcpLink(self.serve, self.options.ncp_max_frame)
        self.code = NOT_INITIALIZED
        self.template = self.product = self.prefix = ""
        self.firmware = ("", "", "", "")  # type, version, build, blynk
        self.place = Place({})
        self.speed = self.options.speed
        self.rpc.byte_time = 10 / self.speed
        self.negotiated = self.switch_to = 0
        self.noise_since = self.byte_at = 0.0
        self.scan_at = 0
        self.probes, self.probe_at = 0, 0.0
        self.server_reader = ServerReader()
        self.logged_in = False
        self.message_id = 1
        self.pending: dict[int, bytes] = {}  # last value of each pin while there is no server
        self.group: Optional[list[bytes]] = None
        self.sent_at, self.pings, self.redirects, self.slow_until = 0.0, 0, 0, 0.0
        self.paused = False  # configStart: no connecting
        self.provisioned = False  # a token came while the board waited for one
        self.clock_offset: Optional[float] = None  # s to add to our clock, from setTime
        self.clock_step = time.time() - self.loop.now
        self.place_seen: Any = None
        self.wants_time_at = self.loop.now + 86400
        self.update = Update(self)
        self.config_seen = self.config_stamp()
        self.scan_timer = self.tick_timer = self.group_timer = self.login_timer = None
        self.retry_timer = self.slow_timer = None
        self.house_timer = self.loop.call_later(HOUSEKEEPING, self.housekeeping)
        # An MCU that was running sees our restart only if we tell it. Alone, short, not fenced: its speed is unknown.
        self.loop.call_later(0.05, self._greet, self.line)

    def _greet(self, line: Optional[Line]) -> None:
        if line is self.line and self.rpc.frames == 0 and not self.settling:
            self.write(ncp_frame(struct.pack("<HHB", ONEWAY, PROCESS_EVENT, EVENT_REBOOTING)))

    def farewell(self) -> bytes:
        if self.code == NOT_INITIALIZED:
            return b""
        return ncp_frame(struct.pack("<HHB", ONEWAY, PROCESS_EVENT, EVENT_REBOOTING))

    def gone(self) -> None:
        for timer in (self.scan_timer, self.tick_timer, self.house_timer, self.group_timer, self.login_timer,
                      self.retry_timer, self.slow_timer):  # fmt: skip
            if timer is not None:
                timer.cancel()
        self.update.drop("")
        self.logged_in = False
        self.code = NOT_INITIALIZED
        self._show_led()

    # ---- bytes and calls

    def data(self, data: bytes) -> None:
        frames, broken = self.rpc.frames, self.rpc.reader.broken
        self.rpc.receive(data, self.loop.now)
        self.counts["skipped"] += self.rpc.reader.broken - broken
        self._note_noise(self.rpc.frames > frames)
        self.pump()

    def pump(self) -> None:
        """Writes what the calls produced, and sets the timer for their time-outs."""
        if self.line is None:
            return
        out = self.rpc.take_output()
        self.write(out)
        if self.switch_to and out:
            speed, self.switch_to = self.switch_to, 0
            self.loop.call_later(len(out) * 10 / self.speed + 0.004, self._switch, speed)
        due = self.rpc.deadline()
        if self.tick_timer is not None:
            self.tick_timer.cancel()
        self.tick_timer = self.loop.call_later(max(0.0, due - self.loop.now), self._tick) if due is not None else None

    def _tick(self) -> None:
        self.rpc.tick(self.loop.now)
        self.pump()

    def serve(self, uid: int, arguments: bytes, wants_result: bool) -> Optional[tuple[int, bytes]]:
        row = METHODS.get(uid)
        if row is None:
            self.say(f"call of an unknown method {uid:04x}", 2)
            return (RPC_UNKNOWN, b"") if wants_result else None
        name, kinds, results, handler = row
        try:
            values = ncp_values(kinds, arguments)
        except ValueError as error:
            self.say(f"{name}: {error}", 2)
            return (RPC_BAD_ARGUMENTS, b"") if wants_result else None
        if results is not None and not wants_result:
            return None
        try:
            answer = getattr(self, handler)(*values)
        except Exception as error:  # ours, not theirs: the board gets its answer, and the line lives
            self.say(f"{name}: {error!r}", 0)
            return (RPC_ERROR, b"") if wants_result else None
        self.counts["frames_up"] += 1
        if log.level >= 2:
            self.say(f"{name}{tuple(values)} → {answer if results else 'ok'}", 2)
        if not wants_result or (results and answer is LATER):
            return None
        return RPC_OK, ncp_bytes(results, answer) if results else b""

    def answer_later(self, uid: int, work: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Runs `work` elsewhere; its values answer the call that is being served."""
        message_id, rpc, results = self.rpc.message_id, self.rpc, METHODS[uid][2] or ""

        def done(values: Any, error: Optional[BaseException]) -> None:
            if error is not None:
                self.say(f"{METHODS[uid][0]}: {error!r}", 0)
                rpc.reply(message_id, RPC_ERROR)
            else:
                rpc.reply(message_id, RPC_OK, ncp_bytes(results, values))
            self.pump()

        self.loop.work(work, done=done)
        return LATER

    def push_event(self, event: int) -> None:
        if self.code != NOT_INITIALIZED:
            self.rpc.push(PROCESS_EVENT, bytes((event,)), self.loop.now)
            self.pump()

    def push_state(self) -> None:
        if self.code != NOT_INITIALIZED:
            self.rpc.push(STATE_CHANGE, bytes((self.code,)), self.loop.now, first=True)
            self.pump()

    def set_code(self, code: int, why: str = "") -> None:
        changed, self.code = code != self.code, code
        if changed or why:
            self.become(STATE_TEXT[code] + (f": {why}" if why else ""), 0 if code == ERROR else 1)
        if changed:
            self.push_state()
            self._show_led()

    # ---- speed

    def _switch(self, speed: int) -> None:
        """The reply has been handed to the system; when it is on the wire the speed changes, not before."""
        if self.line is None:
            return
        if self.line.unsent():
            self.loop.call_later(0.001, self._switch, speed)
            return
        if self._use_speed(speed):
            self.negotiated = speed
            self.loop.call_later(SWITCH_PROOF, self._prove_switch, speed, self.rpc.frames)

    def _use_speed(self, speed: int) -> bool:
        if self.line is None or not self.line.set_baud(speed):
            return False
        self.speed = speed
        self.rpc.byte_time = 10 / speed
        return True

    def _prove_switch(self, speed: int, frames: int) -> None:
        if self.line is not None and self.rpc.frames == frames and self.speed == speed:
            self.say(f"nothing understood at {speed} baud: back to {self.options.speed}", 2)
            self._use_speed(self.options.speed)

    def _note_noise(self, understood: bool) -> None:
        """Bytes without a frame for a while: the board speaks at another speed, so look for it."""
        now = self.loop.now
        if understood or now - self.byte_at > 1.0:
            self.noise_since = now
        if understood and self.scan_timer is not None:
            self.scan_timer.cancel()
            self.scan_timer = None
            self.say(f"board found at {self.speed} baud", 2)
        self.byte_at = now
        if now - self.noise_since > NOISE_BEFORE_SCAN and self.scan_timer is None:
            self.scan_at = 0
            self._scan_step()

    def _scan_step(self) -> None:
        self.scan_timer = None
        if self.line is None:
            return
        speeds = [self.options.speed, SPEEDS_TO_SCAN[0]]
        speeds += [self.negotiated] if self.negotiated else SPEEDS_TO_SCAN[1:]
        if self.loop.now - self.byte_at > 1.0:
            self._use_speed(self.options.speed)
            return
        self._use_speed(speeds[self.scan_at % len(speeds)])
        self.scan_at += 1
        self.scan_timer = self.loop.call_later(SCAN_STAY, self._scan_step)

    # ---- housekeeping: is the board alive, the settings file, the clock

    def housekeeping(self) -> None:
        self.house_timer = self.loop.call_later(HOUSEKEEPING, self.housekeeping)
        if self.code != NOT_INITIALIZED:
            self._check_life()
            self._check_clock()
            self._heartbeat()
        stamp = self.config_stamp()
        if stamp != self.config_seen:
            self.config_seen = stamp
            self.program.reload()

    def config_stamp(self) -> float:
        path = settings_path(self.options.config)
        try:
            return os.stat(path).st_mtime if path else 0.0
        except OSError:
            return 0.0

    def _check_life(self) -> None:
        now = self.loop.now
        if now - self.rpc.last_frame < QUIET:
            self.probes = 0
            return
        if now - self.probe_at < PROBE_EVERY:
            return
        if self.probes >= PROBES:
            self._board_died()
            return
        self.probes += 1
        self.probe_at = now
        self.rpc.call(MCU_PING, b"", FENCE_WAIT, lambda status, result: None, now)
        self.pump()

    def _board_died(self) -> None:
        self.say("board does not answer: its device goes offline")
        self._end_session()
        self.rpc.reset()
        self.update.drop("firmware: board does not answer")
        self.probes = 0
        self.set_code(NOT_INITIALIZED)
        self._use_speed(self.options.speed)

    def _end_session(self) -> None:
        """Off the server, and no way back until somebody connects."""
        for timer in (self.retry_timer, self.login_timer, self.group_timer):
            if timer is not None:
                timer.cancel()
        self.retry_timer = self.login_timer = None
        self.group = None
        self.logged_in = False
        self.link.close()

    def _check_clock(self) -> None:
        """Event 22 when what getTime or getLocationInfo says has changed by itself; 21 when nobody knows the time."""
        step = time.time() - self.loop.now
        place = (self.place.zone, self.place.latitude, self.place.longitude,
                 self.place.time_values(int(time.time() * 1000))[2])  # fmt: skip
        jumped = abs(step - self.clock_step) > 30
        if jumped or (self.place_seen is not None and place != self.place_seen):
            self.push_event(EVENT_TIME_CHANGED)
        self.clock_step, self.place_seen = step, place
        if self.loop.now >= self.wants_time_at:
            self.wants_time_at = self.loop.now + 86400
            if not clock_is_set():
                self.push_event(EVENT_WANTS_TIME)

    def _show_led(self) -> None:
        """Lit when online, dark otherwise."""
        if not self.options.ncp_led:
            return
        path = self.options.ncp_led
        path = path if "/" in path else f"/sys/class/leds/{path}"
        try:
            with open(os.path.join(path, "brightness"), "w", encoding="ascii") as file:
                file.write("1" if self.code == CONNECTED else "0")
        except OSError as error:
            self.hint("led", f"--ncp-led {self.options.ncp_led}: {(error.strerror or '').lower()}")

    def settings_changed(self) -> None:
        self.place = Place(self._section())
        if self.code in (CONFIG, ERROR) and self._token() and not self.paused:
            self.provisioned = self.code == CONFIG
            self._connect()

    def _section(self) -> dict[str, str]:
        return dict(self.options.sections.get(f"ncp:{self.template}", {}))

    def _token(self) -> str:
        return str(self.options.token or self._section().get("token", ""))

    # ---- the server

    def _connect(self) -> None:
        """By the board's leave and with a token; else the state says what is missing."""
        if self.code == NOT_INITIALIZED or self.line is None:
            return
        if not self._token():
            where = settings_path(self.options.config) or "~/.config/blynk-ser.ini"
            self.set_code(CONFIG, f"put [ncp:{self.template}] token=… into {where}, or give --token")
            return
        self._end_session()
        self.server_reader = ServerReader()
        self.set_code(CONNECTING_CLOUD)
        self.link.connect()

    def link_open(self) -> None:
        self.link.send(pack(HARDWARE_LOGIN, 1, self._token().encode()))
        self.login_timer = self.loop.call_later(LOGIN_TIMEOUT, self.link.fail, "no answer to the login")

    def link_lost(self, why: str) -> None:
        self._end_session()
        self.last_error = why
        self.counts["reconnects"] += 1
        no_route = any(word in why for word in ("no such host", "unreachable", "no route"))
        self.set_code(CONNECTING_NET if no_route else CONNECTING_CLOUD, f"{self.link.where}: {why}")
        if self.options.once:
            self.program.finish(EXIT_FAILED)
        self.retry_timer = self.loop.call_later(self.link.retry_delay(), self._connect)

    def link_data(self, data: bytes) -> None:
        try:
            for command, message_id, body in self.server_reader.feed(data):
                if log.level >= 2:
                    text = body if command == RESPONSE else shown(body)
                    self.say(f"server: {FRAME_NAMES.get(command, command)} {message_id} {text}", 2)
                reader = self.server_reader
                self._server_frame(command, message_id, body)
                if reader is not self.server_reader or not self.link.up:
                    break
        except ValueError as error:
            tls = error.args[0][:2] == b"\x15\x03"
            self.link.fail("that port wants TLS: -t SSL" if tls else "that is a web server, not a Blynk server's port")
        self.pump()

    def _server_frame(self, command: int, message_id: int, body: Any) -> None:
        self.pings = 0
        if command == REDIRECT:
            self._follow(body)
        elif not self.logged_in:
            if command == RESPONSE:
                self._login_answer(body)
        elif command == RESPONSE:
            self._status(body)
        elif command in (HARDWARE, BRIDGE):
            self._pin(body)
        elif command == INTERNAL:
            self._internal(body)
        elif command == PING:
            self._send(pack_status(message_id or 1, OK))
        elif command == DEBUG_PRINT:
            self.say(f"server says: {shown(body)}")

    def _follow(self, body: bytes) -> None:
        host, _, port = body.decode("ascii", "replace").partition("\0")
        self.redirects += 1
        if self.redirects > MAX_REDIRECTS or not host or not port.isdigit() or not 0 < int(port) < 65536:
            self.redirects = 0
            self.link.redirect = None
            self.link.fail(f"redirected in circles (to {host}:{port})")
            return
        self.say(f"{self.link.where} sends us to {host}:{port}")
        self.link.redirect = (host, int(port))
        self._connect()

    def _login_answer(self, status: int) -> None:
        if self.login_timer is not None:
            self.login_timer.cancel()
        self.redirects = 0
        token = short_token(self._token().encode())
        if status in (OK, ALREADY_REGISTERED):
            self.logged_in = True
            self._send(self._info_frame())
            self._send_pending()
            self.set_code(CONNECTED, f"at {self.link.where}, token {token}")
            if self.provisioned:
                self.provisioned = False
                self.push_event(EVENT_PROVISIONED)
            return
        self._end_session()
        if status == INVALID_TOKEN:
            self.set_code(ERROR, f"token {token} not accepted by {self.link.where}: that server does not know it; "
                          "copy the device's token from the app")  # fmt: skip
            if self.options.once:
                self.program.finish(EXIT_REFUSED)
        else:
            self.set_code(ERROR, f"login at {self.link.where} answered {status_text(status)}")
        self.retry_timer = self.loop.call_later(REFUSED_RETRY, self._connect)

    def _info_frame(self) -> bytes:
        """What the board is; the order matters to the old server, which looks at the first letter (spec 09 §8)."""
        kind, version, build, blynk = self.firmware
        pairs = (
            ("ver", blynk), ("fw", version), ("fw-type", kind), ("build", build), ("dev", "MCU via NCP"),
            ("con", "UART"), ("tmpl", self.template), ("h-beat", str(HEARTBEAT)),
            ("buff-in", str(self.rpc.limit - 16)), ("ncp", VERSION),
        )  # fmt: skip
        fields = "\0".join(f"{key}\0{value}" for key, value in pairs if value or key == "ver")
        return pack(INTERNAL, self._next_id(), fields.encode())

    def _next_id(self) -> int:
        self.message_id = self.message_id % 65535 + 1
        return self.message_id

    def _send(self, frame: bytes) -> None:
        self.sent_at = self.loop.now
        self.link.send(frame)

    def _heartbeat(self) -> None:
        if not self.logged_in or self.loop.now - self.sent_at < HEARTBEAT * 0.9:
            return
        if self.pings >= 2:
            self.link.fail("server does not answer")
            return
        self.pings += 1
        self._send(pack(PING, self._next_id()))

    def _status(self, status: int) -> None:
        if status == NOT_AUTHENTICATED:
            self.link.fail("server wants a new login")
        elif status == 1:
            self.hint("quota", "the server says that values come too fast: slowing down")
            self.slow_until = self.loop.now + SLOW_FOR
        elif status != OK:
            self.say(f"server answers {status_text(status)}", 2)

    # ---- values to the server

    def _value(self, pin: int, frame: bytes) -> None:
        if self.logged_in and self.group is not None:
            self.group.append(frame)
        elif self.logged_in and self.loop.now >= self.slow_until:
            self._send(frame)
        else:
            self.pending.pop(pin, None)
            if len(self.pending) >= max(1, self.options.ncp_queue):
                self.pending.pop(next(iter(self.pending)))
                self.counts["dropped"] += 1
            self.pending[pin] = frame
            if self.logged_in and self.slow_timer is None:
                self.slow_timer = self.loop.call_later(SLOW_STEP, self._send_slowly)

    def _send_pending(self) -> None:
        while self.pending:
            self._send(self.pending.pop(next(iter(self.pending))))

    def _send_slowly(self) -> None:
        self.slow_timer = None
        if not self.logged_in:
            return
        if self.pending:
            self._send(self.pending.pop(next(iter(self.pending))))
            self.slow_timer = self.loop.call_later(SLOW_STEP, self._send_slowly)

    def _send_now(self, command: int, body: bytes) -> None:
        """Something that has no sense later: without a server it is counted and gone."""
        if self.logged_in:
            frame = pack(command, self._next_id(), body)
            if self.group is not None:
                self.group.append(frame)
            else:
                self._send(frame)
        else:
            self.counts["dropped"] += 1

    def on_virtual_write(self, pin: int, value: bytes) -> None:
        if pin > 255 or not value or len(value) > 65000:
            self.hint(f"pin{pin}", f"V{pin}: pins go from 0 to 255 and a value is not empty: not sent")
            return
        self._value(pin, pack(HARDWARE, self._next_id(), b"vw\0%d\0%b" % (pin, value)))

    def on_sync_all(self) -> None:
        self._send_now(SYNC, b"")

    def on_sync(self, pins: bytes) -> None:
        if pins:
            self._send_now(SYNC, b"vr\0" + pins)

    def on_property(self, pin: int, name: str, value: bytes) -> None:
        if pin <= 255 and name and value:
            self._send_now(PROPERTY, b"%d\0%b\0%b" % (pin, name.encode(), value))

    def on_group_begin(self, _timestamp: int) -> None:
        self.on_group_end()
        self.group = []
        self.group_timer = self.loop.call_later(GROUP_WAIT, self.on_group_end)

    def on_group_end(self) -> None:
        if self.group_timer is not None:
            self.group_timer.cancel()
        frames, self.group = self.group, None
        if frames and self.logged_in:
            self._send(b"".join(frames))

    def on_log_event(self, code: str, description: str) -> None:
        if self.options.ncp_events == "push":
            self._send_now(PUSH, (description or code).encode())
        elif self.options.ncp_events == "log" and code:
            self._send_now(LOG_EVENT, (f"{code}\0{description}" if description else code).encode())

    def on_resolve_event(self, code: str) -> None:
        self.say(f"event {code} resolved: this server keeps no events", 2)

    def on_metadata(self, field: str, value: str) -> None:
        self._send_now(INTERNAL, f"meta\0set\0{field}\0{value}".encode())

    # ---- values to the board

    def _pin(self, body: bytes) -> None:
        fields = body.split(b"\0", 2)
        if fields[0] != b"vw" or len(fields) < 3 or not fields[1].isdigit() or int(fields[1]) > 255:
            self.hint("pins", "digital and analog pins cannot be reached through NCP: use virtual pins")
            return
        pin, value = int(fields[1]), fields[2]
        if pin == 255 and value == b"mcu ping":
            self.rpc.call(MCU_PING, b"", FENCE_WAIT, self._ping_answer, self.loop.now)
        elif not self.rpc.push(VPIN_CHANGE, ncp_bytes("Hx", (pin, value)), self.loop.now, pin):
            self.counts["dropped"] += 1
            self.say(f"value of {len(value)} bytes for V{pin} is more than the board takes "
                     f"(--ncp-max-frame {self.rpc.limit}): dropped", 0)  # fmt: skip
        else:
            self.counts["frames_down"] += 1

    def _ping_answer(self, status: int, _result: bytes) -> None:
        text = b"mcu ping OK" if status == RPC_OK else b"mcu ping FAIL"
        self._value(255, pack(HARDWARE, self._next_id(), b"vw\x00255\0" + text))

    def _internal(self, body: bytes) -> None:
        fields = body.decode("utf-8", "replace").split("\0")
        if fields[0] == "ota" and len(fields) > 1:
            self.update.fetch(fields[1])

    # ---- ncp and hw

    def on_ping(self) -> tuple[Any, ...]:
        return ()

    def on_reboot(self) -> tuple[bool]:
        """Session closed, state 10, initial speed; no event, else Zephyr's bring-up would never end (spec 09 §4.3)."""
        self._end_session()
        self.rpc.calls.clear()
        self.rpc.pushes.clear()
        self.rpc.stalled = False
        self.code = NOT_INITIALIZED
        self.become("board asked for a restart")
        self._show_led()
        if self.speed != self.options.speed:
            self.switch_to = self.options.speed
        return (True,)

    def on_has_uid(self, uid: int) -> tuple[bool]:
        return (uid in METHODS,)

    def on_baud(self, speed: int) -> tuple[bool]:
        if not MIN_BAUD <= speed <= MAX_BAUD or speed == BOOTLOADER_BAUD or self.line is None:
            return (False,)
        if speed != self.speed:
            if not self.line.set_baud(speed):
                return (False,)
            self.line.set_baud(self.speed)
            self.switch_to = speed
        return (True,)

    def on_hardware(self, *_pins: Any) -> tuple[bool]:
        """The numbers are those of another chip's pins: driving ours blindly could damage something."""
        return (False,)

    def on_led(self, *_values: Any) -> tuple[bool]:
        self._show_led()
        return (bool(self.options.ncp_led),)

    def on_wifi_mac(self) -> tuple[str, bool]:
        address = network_address("wlan")
        return address, bool(address)

    def on_ethernet_mac(self) -> tuple[str, bool]:
        address = network_address("eth")
        return address, bool(address)

    # ---- blynk: identity and provisioning

    def on_initialize(self, template: str, product: str) -> tuple[bool]:
        if not template:
            self.say("initialize without a template id: refused", 0)
            return (False,)
        connected = self.logged_in and template == self.template
        self.template, self.product = template, product
        self.paused = False
        self.update.board_started(self.firmware[1])
        self.place = Place(self._section())
        if self.code == NOT_INITIALIZED:
            self.code = CONNECTING_CLOUD
            self.say(f"board started: {product or template}, firmware {self.firmware[1] or 'unknown'}")
        # The state follows the RESULT by a moment (spec 09 §4).
        wire = 20 * self.rpc.byte_time + 0.003
        self.loop.call_later(wire, self.push_state if connected else self._begin)
        return (True,)

    def _begin(self) -> None:
        if self.code != NOT_INITIALIZED:
            before = self.code
            self._connect()
            if self.code == before:
                self.push_state()

    def on_vendor_prefix(self, prefix: str) -> tuple[bool]:
        self.prefix = prefix
        return (True,)

    def on_vendor_server(self, host: str) -> tuple[bool]:
        """Taken only when nobody named a server and the settings file allows it; known in any case."""
        allowed = self._section().get("vendor_server", "").lower() in ("yes", "true", "1", "on")
        if allowed and "server" not in self.options.given and host:
            try:
                self.link.redirect = split_host(host, TLS_PORT if self.options.use_tls else PLAIN_PORT)
            except UsageError:
                return (False,)
        return (True,)

    def on_firmware_info(self, kind: str, version: str, build: str, blynk: str) -> tuple[bool]:
        changed = (kind, version, build, blynk) != self.firmware
        self.firmware = (kind, version, build, blynk)
        if changed and self.logged_in:
            self._send(self._info_frame())
        return (True,)

    def on_version(self) -> tuple[str, bool]:
        return VERSION, True

    def on_state(self) -> tuple[int]:
        return (self.code,)

    def on_hotspot_name(self) -> tuple[str, bool]:
        if self.code == NOT_INITIALIZED:
            return "", False
        address = (network_address("wlan") or network_address("eth")).replace(":", "")
        return f"{self.prefix or 'Blynk'} {self.product}-{address[-4:]}", True

    def on_config_start(self) -> tuple[bool]:
        if self.code == NOT_INITIALIZED:
            return (False,)
        self.paused = True
        self._end_session()
        self.loop.call_later(AFTER_RESULT, self.set_code, CONFIG)
        return (True,)

    def on_config_stop(self) -> tuple[bool]:
        if self.code == NOT_INITIALIZED:
            return (False,)
        self.paused = False
        if self._token():
            self.loop.call_later(AFTER_RESULT, self._connect)
        else:
            self.loop.call_later(AFTER_RESULT, self.set_code, IDLE)
        return (True,)

    def on_config_reset(self) -> tuple[bool]:
        """Tokens come from the command line or the settings file only, and those are not the board's to erase."""
        return (not self._token(),)

    def on_is_configured(self) -> tuple[bool]:
        return (bool(self._token()),)

    def on_config_timeout(self, seconds: int) -> tuple[bool]:
        return (60 <= seconds <= 3600,)

    def on_skip_limit(self, count: int) -> tuple[bool]:
        return (count == 0 or 5 <= count <= 50,)

    def on_factory_reset(self) -> tuple[bool]:
        if self._token():
            return (False,)
        return self.on_reboot()

    # ---- blynk: factory test

    def _configured(self) -> bool:
        return self.code in (CONNECTING_NET, CONNECTING_CLOUD, CONNECTED)

    def on_test_wifi(self, ssid: str, _password: str) -> tuple[Any, ...]:
        """Never joins a network: says how well this computer hears the one it is on (spec 09 §7)."""
        if self._configured() or not ssid:
            return 0, 2
        if not self.options.wifi_test:
            return 0, 3
        here, signal_strength = wifi_now()
        if here != ssid:
            return 0, 4
        return signal_strength, 1 if signal_strength >= -85 else 5

    def on_test_access_point(self, channel: int) -> tuple[int]:
        return (2 if self._configured() or not 1 <= channel <= 14 else 3,)

    def on_test_connect(self) -> tuple[Any, ...]:
        if self._configured():
            return (2,)

        def test() -> tuple[int]:
            try:
                host, port = self.program.finder.find(self.options)
                dial(host, port, self.options).close()
                return (1,)
            except (ServerError, UsageError):
                return (6,)

        return self.answer_later(0x033A, test)

    # ---- blynk: time and place

    def on_set_time(self, utc_ms: int) -> tuple[bool]:
        """Kept for getTime while nothing better sets our clock; never sets it."""
        if not 1577836800000 <= utc_ms < 4102444800000:  # 2020 … 2100
            return (False,)
        before = self.clock_offset
        self.clock_offset = utc_ms / 1000 - time.time()
        self.wants_time_at = self.loop.now + 86400
        if abs(self.clock_offset - (before or 0.0)) > 30 and not clock_is_set():
            self.loop.call_later(AFTER_RESULT, self.push_event, EVENT_TIME_CHANGED)
        return (True,)

    def on_get_time(self) -> tuple[Any, ...]:
        now = time.time()
        if not clock_is_set():
            if self.clock_offset is None:
                return "", 0, 0, "", 0, False
            now += self.clock_offset
        return (*self.place.time_values(int(now * 1000)), True)

    def on_location(self) -> tuple[Any, ...]:
        place = self.place
        known = bool(place.rule or place.latitude)
        return place.latitude, place.longitude, place.zone if place.rule else "", place.rule, known

    # ---- firmware of the board

    def board_restarts(self) -> None:
        """After an update: state 10 in silence, and wait for the new program's initialize."""
        self._end_session()
        self.rpc.pushes.clear()
        self.code = NOT_INITIALIZED
        self._show_led()

    def on_ota_start(self, chunk: int) -> tuple[bool]:
        return (self.update.start(chunk),)

    def on_ota_crc(self) -> tuple[Any, bool]:
        return self.update.digest("crc32", 0)

    def on_ota_md5(self) -> tuple[Any, bool]:
        return self.update.digest("md5", b"")

    def on_ota_sha256(self) -> tuple[Any, bool]:
        return self.update.digest("sha256", b"")

    def on_ota_prefetch(self) -> tuple[int]:
        return (1 if self.update.firmware is not None else 2,)

    def on_ota_suspend(self, seconds: int) -> tuple[bool]:
        if seconds > 18 * 3600:
            return (False,)
        self.update.suspend(seconds)
        return (True,)


# ======================================================================================================================
#  14  Program
#
#  Workers for the ports asked for, the watch on /dev, signals, systemd; `main`.
# ======================================================================================================================

WATCH_EVERY = 1.0  # s between looks at the time stamp of /dev, while a board is missing or may come


class Program:
    """All boards of this process."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loop = Loop()
        self.finder = ServerFinder(options)
        self.workers: list[Worker] = []
        self.exit_code = EXIT_SIGNAL
        self.follow = False  # new boards are taken in (-c all, patterns)
        self.scanning = self.scan_again = False
        self.watch_timer: Optional[Timer] = None
        self.seen: tuple[int, ...] = ()
        self.listener: Optional[socket.socket] = None
        self.signals: deque[int] = deque()

    # ---- boards

    def taken(self, worker: Worker) -> Iterator[str]:
        """Ports that are another worker's."""
        return (other.info.device for other in self.workers if other is not worker and other.line is not None)

    def add(self, spec: str, info: Optional[PortInfo], speed: int, strict: bool = False) -> Worker:
        names = [spec]
        if info is not None:
            names = [name for name in (info.serial, info.usb_id, info.device, spec) if name]
        options = self.options.for_port(names, speed)
        kind = Ncp if options.ncp else RawBridge if options.raw else Bridge
        worker = kind(self, spec, options, info.identity if info else None, strict)
        self.workers.append(worker)
        return worker

    def forget(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)

    def start(self) -> None:
        """Raises UsageError when it is not clear which port is meant."""
        if self.options.source == "TCP":
            self._listen()
            return
        ports = plugged_in()
        for text in self.options.comm or ("auto",):
            spec, speed = split_speed(text)
            if spec == "all":
                self.follow = True
            elif spec == "auto":
                port = the_board(ports, self.options)
                self.add(port.device, port, speed)
            else:
                known = next((p for p in ports if p.device == spec), None)
                self.add(spec, known, speed)
        for worker in self.workers:
            worker.start()
        if self.follow:
            self.watch_devices()
            self._scan()
            if not self.workers:
                log.write(1, "", "no board yet: waiting for one to be plugged in")

    def _scan(self) -> None:
        """-c all: a worker for each board that has none yet."""
        if self.scanning:
            self.scan_again = True
            return
        self.scanning, self.scan_again = True, False

        def done(ports: Any, error: Optional[BaseException]) -> None:
            self.scanning = False
            known = {worker.identity for worker in self.workers if worker.identity}
            paths = {worker.info.device for worker in self.workers if not worker.identity or worker.line is not None}
            for port in boards_among(ports or [], self.options.any):
                if port.identity not in known and port.device not in paths:
                    speed = next((split_speed(text)[1] for text in self.options.comm if text.startswith("all")), 0)
                    self.add(port.device, port, speed, strict=True).start()
            if self.scan_again:
                self._scan()

        self.loop.work(plugged_in, done=done)

    def _listen(self) -> None:
        """-f TCP: each client is a board."""
        try:
            listener = socket.create_server(("", self.options.listen))
        except OSError as error:
            text = (error.strerror or str(error)).lower()
            raise UsageError(f"cannot listen on port {self.options.listen}: {text} (-l names another)") from None
        listener.setblocking(False)
        self.listener = listener
        log.write(1, "", f"listening on port {listener.getsockname()[1]}")
        self.loop.watch(listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, address = self.listener.accept() if self.listener else (None, None)
        except OSError:
            return
        if sock is None or address is None:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = f"{address[0]}:{address[1]}"
        self.add(name, None, 0).adopt_socket(sock, name)

    # ---- hot plug

    def watch_devices(self) -> None:
        """Looks at the time stamps of the folders that ports live in; costs a few system calls a second."""
        if self.watch_timer is None:
            self.seen = self._stamps()
            self.watch_timer = self.loop.call_later(WATCH_EVERY, self._look)

    def _stamps(self) -> tuple[int, ...]:
        if os.name == "nt":
            return (int(time.monotonic() / 5),)  # no folder to look at: every five seconds
        folders = {"/dev"} | {os.path.dirname(w.spec) for w in self.workers if w.spec.startswith("/")}
        stamps = []
        for folder in sorted(folders):
            try:
                stamps.append(os.stat(folder).st_mtime_ns)
            except OSError:
                stamps.append(0)
        return tuple(stamps)

    def _look(self) -> None:
        self.watch_timer = None
        before, self.seen = self.seen, self._stamps()
        if self.seen != before:
            for worker in list(self.workers):
                worker.devices_changed()
            if self.follow:
                self._scan()
        if self.follow or any(worker.line is None for worker in self.workers):
            self.watch_timer = self.loop.call_later(WATCH_EVERY, self._look)

    # ---- signals, status, end

    def reload(self) -> None:
        """The settings file anew: tokens, zones and places count at once, the rest at the next start."""
        try:
            sections = read_settings_file(self.options.config)
        except UsageError as error:
            log.write(0, "", str(error))
            return
        log.write(1, "", "settings file read")
        self.options.sections.clear()
        self.options.sections.update(sections)
        for worker in list(self.workers):
            if worker.line is not None:
                worker.settings_changed()

    def status(self) -> None:
        text = "".join(worker.status() + "\n" for worker in self.workers) or "no boards\n"
        if not self.options.status:
            log.write(0, "", text.rstrip())
            return
        try:
            with open(self.options.status, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            log.write(0, "", f"--status {self.options.status}: {(error.strerror or '').lower()}")

    def release(self) -> None:
        for worker in list(self.workers):
            worker.release(self.options.release)

    def finish(self, code: int) -> None:
        self.exit_code = code
        self.loop.stopping = True

    def _signalled(self) -> None:
        while self.signals:
            number = self.signals.popleft()
            name = signal.Signals(number).name
            {"SIGHUP": self.reload, "SIGUSR1": self.release, "SIGUSR2": self.status}.get(
                name, lambda: self.finish(EXIT_SIGNAL)
            )()

    def _on_signal(self, number: int, _frame: Any) -> None:
        self.signals.append(number)
        self.loop.post(self._signalled)

    def catch_signals(self) -> None:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, self._on_signal)

    def _alive(self) -> None:
        notify_systemd("WATCHDOG=1")
        self.loop.call_later(int(os.environ["WATCHDOG_USEC"]) / 2_000_000, self._alive)

    def run(self) -> int:
        self.catch_signals()
        self.start()
        notify_systemd("READY=1")
        if os.environ.get("WATCHDOG_USEC", "").isdigit() and os.environ.get("WATCHDOG_PID", "") in (
            "",
            str(os.getpid()),
        ):
            self._alive()
        self.loop.run()
        notify_systemd("STOPPING=1")
        for worker in list(self.workers):
            worker.stop()
        return self.exit_code


def the_board(ports: list[PortInfo], options: Options) -> PortInfo:
    """The one board that is plugged in. Raises UsageError with the list when there is not exactly one."""
    boards = boards_among(ports, options.any)
    if len(boards) == 1:
        return boards[0]
    shown = "\n".join(f"  {port.describe()}" for port in (boards or ports))
    if boards:
        raise UsageError(f"several boards: choose one with -c PORT, or take them all with --all\n{shown}")
    converters = [port for port in ports if port.row()[1] == "converter"]
    if converters:
        shown = "\n".join(f"  {port.describe()}" for port in converters)
        raise UsageError(f"no port that is certainly a board: choose one with -c PORT, or --any\n{shown}")
    rest = f"; ports that are here:\n{shown}" if shown else ""
    raise UsageError(f"no board found: plug one in, or name its port with -c PORT{rest}")


def list_ports(options: Options) -> int:
    ports = plugged_in()
    boards = boards_among(ports, options.any)
    for port in ports:
        print(f"{'*' if port in boards else ' '} {port.describe()}")
    print("* would be used without -c" if boards else "no board found" if ports else "no serial ports found")
    return 0


def main(argv: list[str]) -> int:
    """Returns the exit code (spec 10 §3.10)."""
    try:
        options = read_command_line(argv)
        log.level = 0 if options.quiet else 1 + options.verbose
        try:
            import serial  # noqa: F401  (looked for before anything is promised)
        except ImportError:
            print(NO_PYSERIAL, file=sys.stderr)
            return EXIT_NO_PYSERIAL
        if options.list:
            return list_ports(options)
        threading.stack_size(256 * 1024)
        if options.to == "TCP" and not options.use_tls and options.server not in ("auto", "localhost", "127.0.0.1"):
            log.write(2, "", "the connection to the server is not encrypted: use -t SSL where others listen")
        return Program(options).run()
    except UsageError as error:
        print(f"blynk-ser: {error}", file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    if "BLYNK_SER_FILE" in os.environ:  # started by the head of this file: its name stands before the options
        sys.exit(main(sys.argv[2:]))
    sys.exit(main(sys.argv[1:]))
