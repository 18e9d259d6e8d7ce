#!/usr/bin/env python3
"""blynk-pi: the Blynk server for a Raspberry Pi, in one file.

    python3 blynk_pi.py --data /home/pi/Blynk

Boards speak the Blynk hardware protocol on the plain port (8080) or over TLS (9443); apps speak the app protocol over
TLS (9443) or as a WebSocket (`/dashws`); HTTP and MQTT clients read and write the same pins. One selectors loop in this
module serves all ports. Projects are the JSON documents of the Java server, in the same files.

How a value travels, from a board's `vw 5 123` to the screens that show it:

    socket readable          Loop: Stream.fill, at most 64 KiB a turn
      frames decoded         Hardware: HardwareSession.received, one flat loop over the buffer
        route found          Model: device.routes[b"vw\\x005\\x00"], one look-up
          value noted        Model: Route.pending, the last one counts; history and rules see each one
          apps told          Hub: the frame, prefixed "1-0", joins each app's out-buffer
    end of the turn          Model: values settle in the documents; Loop: one send() per stream
    every second             Store: values to the journal, one write and one fsync
    every minute             Store: documents and history files, then the journal starts anew

The rooms of this file, top to bottom. A room uses only rooms above it:

     1 Vocabulary    numbers and words of the protocol, limits, small helpers, the log
     2 Settings      one table of settings; TOML, .properties and the command line fill it
     3 Wire          codecs without sockets: frames, HTTP/1.1, WebSocket, MQTT
     4 Loop          selectors, timers, streams, listeners, worker threads
     5 Model         accounts, projects, devices, widgets as documents; routes
     6 Store         user files, journal, history, raw data, database, back-ups
     7 Hub           who is online; fan-out to apps and devices
     8 Messengers    mail, push, SMS, posts
     9 Automation    timers, eventor, webhooks, reading widgets, reports
    10 Hardware      one handler per hardware command
    11 App           one handler per app command
    12 Web           REST, pages, firmware, administration, WebSocket and MQTT ports
    13 LAN           addresses, certificates, zeroconf
    14 Server        puts the rooms together; sub-commands; main()
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and hasattr(os, "memfd_create") and "BLYNK_PI_FILE" not in os.environ:
    # A script that Python compiles at start keeps megabytes of compiler leftovers. Hand the compiled code to a fresh
    # interpreter through memory: no cache file to go stale, no write to the card, and it works in a read-only folder.
    # Docstrings of functions stay behind (before 3.14, where their place in the code is known).
    import marshal

    def _without_docstrings(code: Any) -> Any:
        kept = [_without_docstrings(c) if hasattr(c, "co_consts") else c for c in code.co_consts]
        if kept and isinstance(kept[0], str) and code.co_name[0] != "<" and code.co_flags & 2:
            kept[0] = None
        return code.replace(co_consts=tuple(kept))

    try:
        _code = sys._getframe().f_code
        if sys.version_info < (3, 14):
            _code = _without_docstrings(_code)
        _fd = os.memfd_create("blynk_pi", 0)
        with os.fdopen(os.dup(_fd), "wb") as _file:
            marshal.dump(_code, _file)
        os.lseek(_fd, 0, os.SEEK_SET)
        os.environ["BLYNK_PI_FILE"] = os.path.abspath(__file__)
        os.environ.setdefault("MALLOC_ARENA_MAX", "1")
        os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "262144")  # the 16 MB of a password hash go back at once
        _boot = (
            "import marshal,os,sys;__file__=os.environ['BLYNK_PI_FILE'];sys.path[0]=os.path.dirname(__file__);"
            f"_f=open({_fd},'rb');_c=marshal.load(_f);_f.close();exec(_c)"
        )
        os.execv(sys.executable, [sys.executable, "-c", _boot, *sys.argv])
    except (OSError, ValueError):  # a system that does not allow it: go on in this process
        os.environ.pop("BLYNK_PI_FILE", None)

import base64
import errno
import hashlib
import heapq
import hmac
import json
import selectors
import signal
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional

    Document = dict[str, Any]

__version__ = "1.0.0"

# Where this file lies: web/ and old .properties files are looked for beside it.
PROGRAM_FILE = os.environ.pop("BLYNK_PI_FILE", None) or os.path.abspath(__file__)
PROGRAM_FOLDER = os.path.dirname(PROGRAM_FILE)
if __name__ == "__main__" and sys.argv[0] == "-c":
    del sys.argv[0]  # what the fresh interpreter was given: argv as the user typed it


# ======================================================================================================================
# 1. Vocabulary
# ======================================================================================================================
# Numbers and words of the protocol (spec 01), limits that are not settings, small pure helpers and the log.
# Knows nothing of the rooms below; everybody uses it.


class Command:
    """Command numbers (spec 01 §7)."""

    RESPONSE, REGISTER, LOGIN, REDEEM, HARDWARE_CONNECTED = 0, 1, 2, 3, 4
    PING, ACTIVATE_DASHBOARD, DEACTIVATE_DASHBOARD, REFRESH_TOKEN = 6, 7, 8, 9
    TWEET, EMAIL, PUSH_NOTIFICATION, BRIDGE, HARDWARE_SYNC, BLYNK_INTERNAL, SMS = 12, 13, 14, 15, 16, 17, 18
    SET_WIDGET_PROPERTY, HARDWARE = 19, 20
    CREATE_DASH, UPDATE_DASH, DELETE_DASH, LOAD_PROFILE_GZIPPED, APP_SYNC, SHARING = 21, 22, 23, 24, 25, 26
    ADD_PUSH_TOKEN, EXPORT_GRAPH_DATA, HARDWARE_LOGIN, GET_SHARE_TOKEN, REFRESH_SHARE_TOKEN = 27, 28, 29, 30, 31
    SHARE_LOGIN, CREATE_WIDGET, UPDATE_WIDGET, DELETE_WIDGET, GET_ENERGY, ADD_ENERGY = 32, 33, 34, 35, 36, 37
    UPDATE_PROJECT_SETTINGS, ASSIGN_TOKEN, GET_SERVER, CONNECT_REDIRECT = 38, 39, 40, 41
    CREATE_DEVICE, UPDATE_DEVICE, DELETE_DEVICE, GET_DEVICES = 42, 43, 44, 45
    CREATE_TAG, UPDATE_TAG, DELETE_TAG, GET_TAGS, MOBILE_GET_DEVICE, UPDATE_FACE = 46, 47, 48, 49, 50, 51
    WEB_SOCKETS, EVENTOR, WEB_HOOKS = 52, 53, 54
    CREATE_APP, UPDATE_APP, DELETE_APP, GET_PROJECT_BY_TOKEN, EMAIL_QR = 55, 56, 57, 58, 59
    GET_ENHANCED_GRAPH_DATA, DELETE_ENHANCED_GRAPH_DATA, GET_CLONE_CODE, GET_PROJECT_BY_CLONE_CODE = 60, 61, 62, 63
    HARDWARE_LOG_EVENT, HARDWARE_RESEND_FROM_BLUETOOTH, LOGOUT = 64, 65, 66
    CREATE_TILE_TEMPLATE, UPDATE_TILE_TEMPLATE, DELETE_TILE_TEMPLATE, GET_WIDGET = 67, 68, 69, 70
    DEVICE_OFFLINE, OUTDATED_APP_NOTIFICATION, TRACK_DEVICE, GET_PROVISION_TOKEN, RESOLVE_EVENT = 71, 72, 73, 74, 75
    DELETE_DEVICE_DATA, CREATE_REPORT, UPDATE_REPORT, DELETE_REPORT, EXPORT_REPORT, RESET_PASSWORD = (
        76,
        77,
        78,
        79,
        80,
        81,
    )


class Status:
    """Codes of a RESPONSE frame (spec 01 §8)."""

    OK = 200
    QUOTA_LIMIT, ILLEGAL_COMMAND, USER_NOT_REGISTERED, USER_ALREADY_REGISTERED, USER_NOT_AUTHENTICATED = 1, 2, 3, 4, 5
    NOT_ALLOWED, DEVICE_NOT_IN_NETWORK, NO_ACTIVE_DASHBOARD, INVALID_TOKEN, ILLEGAL_COMMAND_BODY = 6, 7, 8, 9, 11
    NOTIFICATION_INVALID_BODY, NOTIFICATION_NOT_AUTHORIZED, NOTIFICATION_ERROR = 13, 14, 15
    NO_DATA, SERVER_ERROR, ENERGY_LIMIT, FACEBOOK_USER_LOGIN_WITH_PASS = 17, 19, 21, 22


OK = Status.OK

# Message ids of what the server says by itself (spec 01 §4).
ID_HTTP, ID_EVENTOR, ID_SYNC, ID_TIMER, ID_READING = 111, 888, 1111, 7777, 7778

MAX_APP_BODY = 10_000_000  # bytes; a longer announcement closes the connection (spec 01 §3.7)
MAX_LOGIN_BODY = 65_536  # bytes; the same before the login: strangers cost no memory
MAX_HARDWARE_BODY = 65_535  # bytes; the length field has two bytes
FIRST_TAG_ID, FIRST_SELECTOR_ID = 100_000, 200_000  # target ids below are devices (spec 04 §9.3)
DETECTION_SECONDS = 20  # a connection must show five bytes in this time (spec 01 §2)
WATERMARK_HIGH, WATERMARK_LOW = (
    65_536,
    32_768,
)  # bytes of pending output: not writable above, again below (spec 01 §12.5)
OUTPUT_LIMIT = 262_144  # bytes of pending output beyond which values to a stream are dropped (DESIGN §4)
STALL_SECONDS = 60  # a peer that has not read for so long is closed
READ_SIZE = 65_536  # bytes one stream may read a turn

PIN_TYPES = {"v": "VIRTUAL", "d": "DIGITAL", "a": "ANALOG"}
LETTERS = {"VIRTUAL": "v", "DIGITAL": "d", "ANALOG": "a"}


class Refused(Exception):
    """A handler's refusal; the dispatcher answers `status` (spec 01 §8)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Log:
    """Lines to the console and, when a folder is set, to `blynk.log` there, rotated by size.

    Texts come ready-made; guard costly debug lines with `if log.debugging`. Never throws: a full disk must not stop
    the server from talking.
    """

    LEVELS = {"trace": 0, "debug": 1, "info": 2, "warn": 3, "error": 4, "off": 5}

    def __init__(self) -> None:
        self.level = 2
        self.debugging = False
        self.path = ""
        self.max_bytes, self.files, self.size = 5 << 20, 3, 0
        self.file: Any = None
        self.recent: deque[str] = deque(maxlen=200)  # for the admin page
        self.seen: set[str] = set()
        self.console = True

    def setup(self, level: str, folder: str, max_mb: int, files: int) -> None:
        """Errors: OSError when the folder cannot be written."""
        self.level = self.LEVELS.get(level, 2)
        self.debugging = self.level <= 1
        self.max_bytes, self.files = max_mb << 20, files
        if folder:
            os.makedirs(folder, exist_ok=True)
            self.path = os.path.join(folder, "blynk.log")
            self._open()

    def _open(self) -> None:
        self.file = open(self.path, "a", encoding="utf-8", errors="replace")
        self.size = self.file.tell()

    def _write(self, level: str, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.localtime(now))
        line = f"{stamp}.{int(now * 1000) % 1000:03} {level:5}- {text}"
        self.recent.append(time.strftime("%Y-%m-%d ", time.localtime(now)) + line)
        try:
            if self.file is not None:
                self.size += self.file.write(line + "\n")
                self.file.flush()
                if self.size > self.max_bytes:
                    self._rotate()
            if self.console:
                print(line, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            pass

    def _rotate(self) -> None:
        self.file.close()
        for n in range(self.files - 1, 0, -1):
            older = f"{self.path}.{n}"
            newer = f"{self.path}.{n - 1}" if n > 1 else self.path
            if os.path.exists(newer):
                os.replace(newer, older)
        if self.files <= 1:
            os.remove(self.path)
        self._open()

    def debug(self, text: str) -> None:
        if self.level <= 1:
            self._write("DEBUG", text)

    def info(self, text: str) -> None:
        if self.level <= 2:
            self._write("INFO", text)

    def warning(self, text: str) -> None:
        if self.level <= 3:
            self._write("WARN", text)

    def error(self, text: str) -> None:
        if self.level <= 4:
            self._write("ERROR", text)

    def exception(self, text: str) -> None:
        """Our own mistake: the traceback once per place, then one line each time."""
        import traceback

        kind, error, trace = sys.exc_info()
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else text
        if place in self.seen or len(self.seen) > 200:
            self.error(f"{text}: {error!r}")
            return
        self.seen.add(place)
        self.error(f"{text}\n{traceback.format_exc().rstrip()}")


log = Log()


# -- splitting and numbers, as the protocol has them (spec 01 §5) ------------------------------------------------------


def full_split(text: str) -> list[str]:
    """Every NUL separates; trailing empty parts are dropped; "" gives one empty part, "\\0" none at all."""
    parts = text.split("\0")
    if text:
        while parts and not parts[-1]:
            parts.pop()
    return parts


def limited_split(text: str, most: int) -> list[str]:
    """At most `most` parts; a separator at index 0 belongs to the first part; the last part keeps the rest."""
    parts: list[str] = []
    start = 0
    while len(parts) < most - 1:
        at = text.find("\0", start + 1 if not parts else start)
        if at < 0:
            break
        parts.append(text[start:at])
        start = at + 1
    parts.append(text[start:])
    return parts


def split2(text: str) -> list[str]:
    return limited_split(text, 2)


def split3(text: str) -> list[str]:
    return limited_split(text, 3)


def parse_int(text: str, bits: int = 32) -> int:
    """Strict base 10 with optional sign, no blanks, within `bits` (spec 01 §5). Errors: ValueError."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise ValueError(f"not a number: {text[:20]!r}")
    number = int(text)
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise ValueError(f"number out of range: {text[:20]!r}")
    return number


def parse_pin(text: str) -> int:
    """A pin number, 0 to 255. Errors: ValueError."""
    pin = parse_int(text)
    if not 0 <= pin <= 255:
        raise ValueError(f"no such pin: {pin}")
    return pin


NUMBER_CHARACTERS = frozenset("0123456789.eE+-")


def parse_number(text: str) -> Optional[float]:
    """A value as number, or None when it is text (spec 05 §5.2): no blanks, no nan, no hex; `1.`, `.5`, `1e` are fine."""
    if not text or not NUMBER_CHARACTERS.issuperset(text) or len(text) > 400:
        return None
    try:
        number = float(text)
    except ValueError:
        if text[-1] not in "eE+-" or text[:-1].count("e") + text[:-1].count("E") > 1:
            return None
        try:  # an exponent without digits counts as none
            number = float(text.rstrip("+-").rstrip("eE") if text[-1] in "eE" or text[-2:-1] in ("e", "E") else "x")
        except ValueError:
            return None
    return number


def java_double(number: float) -> str:
    """The text Java prints for a double (spec 04 §1.1): `1.0`, `1.0E7`, `9.9E-4`."""
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "Infinity" if number > 0 else "-Infinity"
    size = abs(number)
    if size == 0 or 1e-3 <= size < 1e7:
        text = repr(number)
        if "e" not in text:
            return text
        text = f"{number:.20f}".rstrip("0")  # repr turns to exponents at 1e-4 and 1e16: never in this range
        return text + "0" if text.endswith(".") else text
    digits, _, exponent = f"{number!r}".partition("e")
    sign = "-" if digits[0] == "-" else ""
    whole, _, fraction = digits.lstrip("-").partition(".")
    power = int(exponent or 0) + len(whole) - 1
    figures = whole + fraction
    bare = figures.lstrip("0")
    power -= len(figures) - len(bare)
    bare = bare.rstrip("0") or "0"
    return f"{sign}{bare[0]}.{bare[1:] or '0'}E{power}"


def encode(text: str) -> bytes:
    """UTF-8; a lone surrogate (JSON can spell one) becomes `?`."""
    return text.encode("utf-8", "replace")


# -- tokens, passwords, addresses, zones -------------------------------------------------------------------------------


def new_token() -> str:
    """24 random bytes in URL-safe base64: 32 characters of `A–Z a–z 0–9 - _`."""
    return base64.urlsafe_b64encode(os.urandom(24)).decode()


def java_password(password: str, email: str) -> str:
    """What an app sends for a password (spec 03a §2.2): base64, 44 characters."""
    salt = hashlib.sha256(email.lower().encode()).digest()
    return base64.b64encode(hashlib.sha256(password.encode() + salt).digest()).decode()


def equal(a: str, b: str) -> bool:
    """Constant-time comparison of two texts."""
    return hmac.compare_digest(a.encode("utf-8", "replace"), b.encode("utf-8", "replace"))


def hash_password(sent: str) -> str:
    """`scrypt$N$r$p$salt$hash` of what the app sends. Slow and takes 16 MB: crypto thread only."""
    salt = os.urandom(16)
    key = hashlib.scrypt(sent.encode(), salt=salt, n=16384, r=8, p=1, maxmem=64 << 20, dklen=32)
    return "scrypt$16384$8$1$" + base64.b64encode(salt).decode() + "$" + base64.b64encode(key).decode()


def check_password(sent: str, stored: str) -> bool:
    """Whether `sent` is the password kept as `stored` (either form). Slow for scrypt: crypto thread only."""
    if not stored.startswith("scrypt$"):
        return bool(stored) and equal(sent, stored)
    try:
        _, n, r, p, salt, key = stored.split("$")
        wanted = base64.b64decode(key)
        made = hashlib.scrypt(
            sent.encode(), salt=base64.b64decode(salt), n=int(n), r=int(r), p=int(p), maxmem=64 << 20, dklen=len(wanted)
        )
    except ValueError:
        return False
    return hmac.compare_digest(made, wanted)


LOCAL_PART = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=^_`{|}~.")


def valid_email(text: str) -> bool:
    """Syntax only, so that `user@home.lan` works (spec 08 §2.7); nothing that could leave its folder as a file name."""
    local, _, domain = text.rpartition("@")
    if not (0 < len(local) <= 64 and domain and len(text) <= 255) or not LOCAL_PART.issuperset(local):
        return False
    if local[0] == "." or local[-1] == "." or ".." in local or "/" in local:
        return False
    if domain[0] == "[" and domain[-1] == "]":
        return all(c in "0123456789abcdefABCDEF.:" for c in domain[1:-1]) and len(domain) > 2
    labels = domain.split(".")
    return len(labels) > 1 and all(
        part and part[0] != "-" and part[-1] != "-" and all(c.isalnum() or c == "-" for c in part) for part in labels
    )


# Old names of zones that some systems keep in a package of their own, with where their rules are found (spec 04 §1.3).
ZONE_ALIASES = {
    "Canada/East-Saskatchewan": "America/Regina",
    "Asia/Hanoi": "Asia/Ho_Chi_Minh",
    "Europe/Kiev": "Europe/Kyiv",
    "Brazil/East": "America/Sao_Paulo",
    "Brazil/West": "America/Manaus",
    "Brazil/Acre": "America/Rio_Branco",
    "Asia/Calcutta": "Asia/Kolkata",
    "Asia/Saigon": "Asia/Ho_Chi_Minh",
    "Asia/Katmandu": "Asia/Kathmandu",
    "Asia/Rangoon": "Asia/Yangon",
    "America/Buenos_Aires": "America/Argentina/Buenos_Aires",
    "US/Eastern": "America/New_York",
    "US/Central": "America/Chicago",
    "US/Mountain": "America/Denver",
    "US/Pacific": "America/Los_Angeles",
    "US/Alaska": "America/Anchorage",
    "US/Hawaii": "Pacific/Honolulu",
    "US/Arizona": "America/Phoenix",
    "Canada/Eastern": "America/Toronto",
    "Canada/Central": "America/Winnipeg",
    "Canada/Mountain": "America/Edmonton",
    "Canada/Pacific": "America/Vancouver",
    "Canada/Atlantic": "America/Halifax",
    "Canada/Newfoundland": "America/St_Johns",
    "Canada/Saskatchewan": "America/Regina",
    "Australia/ACT": "Australia/Sydney",
    "Australia/NSW": "Australia/Sydney",
    "Australia/Queensland": "Australia/Brisbane",
    "Australia/South": "Australia/Adelaide",
    "Australia/Tasmania": "Australia/Hobart",
    "Australia/Victoria": "Australia/Melbourne",
    "Australia/West": "Australia/Perth",
    "Australia/North": "Australia/Darwin",
    "Mexico/General": "America/Mexico_City",
    "Chile/Continental": "America/Santiago",
    "Europe/Belfast": "Europe/London",
    "Atlantic/Faeroe": "Atlantic/Faroe",
    "Africa/Asmera": "Africa/Asmara",
    "GB": "Europe/London",
    "NZ": "Pacific/Auckland",
    "Japan": "Asia/Tokyo",
    "Israel": "Asia/Jerusalem",
    "Turkey": "Europe/Istanbul",
    "Singapore": "Asia/Singapore",
    "Hongkong": "Asia/Hong_Kong",
    "Iran": "Asia/Tehran",
    "Egypt": "Africa/Cairo",
    "Poland": "Europe/Warsaw",
    "Portugal": "Europe/Lisbon",
    "Eire": "Europe/Dublin",
    "Cuba": "America/Havana",
    "PRC": "Asia/Shanghai",
    "ROC": "Asia/Taipei",
    "ROK": "Asia/Seoul",
    "W-SU": "Europe/Moscow",
    "Zulu": "UTC",
    "Universal": "UTC",
    "Greenwich": "UTC",
    "UCT": "UTC",
    "GMT": "UTC",
}
RENAMED_ZONES = ("Canada/East-Saskatchewan", "Asia/Hanoi")  # the two that are written back under their new name
zones: dict[str, Any] = {}


def _offset_zone(name: str) -> Any:
    """`+03:00`, `UTC+3`, `GMT-03:30`: a fixed zone, or None."""
    from datetime import timedelta, timezone

    text = name[3:] if name[:3] in ("UTC", "GMT") else name[2:] if name[:2] == "UT" else name
    if not text or text[0] not in "+-":
        return None
    hours, _, minutes = text[1:].partition(":")
    if not minutes and len(hours) == 4:
        hours, minutes = hours[:2], hours[2:]
    if not (hours.isdigit() and len(hours) <= 2 and (minutes or "0").isdigit()) or int(hours) > 18:
        return None
    delta = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-delta if text[0] == "-" else delta)


def find_zone(name: str) -> Any:
    """The tzinfo of a zone id, or None when nobody knows it (spec 04 §1.3). Loads zone data when first asked."""
    if name in zones:
        return zones[name]
    from datetime import timezone

    found: Any = timezone.utc if name in ("UTC", "Z") else _offset_zone(name)
    if found is None and all(c.isalnum() or c in "/_+-" for c in name) and name[:1].isalpha():
        import zoneinfo

        for candidate in (name, ZONE_ALIASES.get(name, "")):
            try:
                found = timezone.utc if candidate == "UTC" else zoneinfo.ZoneInfo(candidate) if candidate else None
            except (OSError, ValueError, KeyError):  # KeyError: ZoneInfoNotFoundError
                found = None
            if found is not None:
                break
    if len(zones) < 1000:
        zones[name] = found
    return found


def zone(name: Optional[str]) -> Any:
    """The tzinfo of a zone id; UTC for none and for unknown ones."""
    found = find_zone(name) if name else None
    if found is None:
        from datetime import timezone

        return timezone.utc
    return found


def local_seconds(name: Optional[str], seconds: float) -> int:
    """Wall-clock time of the zone counted as if it were UTC (spec 02 §5.2)."""
    if not name or name in ("UTC", "Z"):
        return int(seconds)
    from datetime import datetime

    offset = datetime.fromtimestamp(seconds, zone(name)).utcoffset()
    return int(seconds) + (int(offset.total_seconds()) if offset is not None else 0)


# ======================================================================================================================
# 2. Settings
# ======================================================================================================================
# One table drives everything: the attributes of `Settings` and their defaults, blynk.toml, the Java server's
# .properties files, `--help settings` and blynk.toml.example (which is `settings_text()`; a test compares them).
# Later wins: defaults, old .properties, blynk.toml, command line (spec 07 §11). Whatever is wrong becomes one
# `SettingsError` line that names file, key, value and what is allowed. main() calls load_settings() once; no sockets.

SETTINGS_FILE = "blynk.toml"
SYSTEM_SETTINGS_FILE = "/etc/blynk/blynk.toml"
ANY_NUMBER = (0, 2147483647)
POSITIVE = (1, 2147483647)
PORT_NUMBER = (0, 65535)
LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "off")
PRIVATE_NETWORKS = [
    "127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fe80::/10", "fc00::/7",
]  # fmt: skip

# section, key, kind (see SETTING_KINDS), default, allowed, keys of the Java server (the first that is set counts), help
SETTINGS: tuple[tuple[str, str, str, Any, Any, tuple[str, ...], str], ...] = (
    ("server", "host", "text", "", None, ("server.host",), "name or address in links and QR codes; empty: found out"),
    ("server", "interface", "text", "eth", None, ("net.interface",), "network interface (prefix) to find the address"),
    ("server", "listen", "text", "", None, ("listen.address",), "address all ports listen on; empty: every address"),
    ("server", "product_name", "text", "Blynk", None, ("product.name",), "{PRODUCT_NAME} in mails and pushes"),
    ("server", "vendor_email", "text", "", None, ("vendor.email",), "{VENDOR_EMAIL} in mails that a device sends"),
    ("server", "region", "text", "local", None, ("region",), "local: / on the https port leads to the admin page"),
    ("server", "restore_host", "text", "", None, ("restore.host",), "host in password-reset links; empty: this server"),
    ("server", "links_on_port_80", "bool", False, None, ("force.port.80.for.csv",), "leave the port out of links"),
    ("server", "redirect_port_80", "bool", True, None, ("force.port.80.for.redirect",),
     "boards that are sent to another server are sent to its port 80"),
    ("ports", "http", "int", 8080, PORT_NUMBER, ("http.port",), "plain port: boards, HTTP API, web; 0: off"),
    ("ports", "https", "int", 9443, PORT_NUMBER, ("https.port",),
     "TLS port: app, boards, HTTPS API, admin page; 0: off"),
    ("ports", "mqtt", "int", 8440, PORT_NUMBER, ("hardware.mqtt.port",), "MQTT boards; 0: off"),
    ("ports", "hardware_plain_legacy", "int", 0, PORT_NUMBER, ("hardware.default.port",), "old sketches: 8442; 0: off"),
    ("ports", "hardware_tls_legacy", "int", 0, PORT_NUMBER, ("hardware.ssl.port",), "old TLS sketches: 8441; 0: off"),
    ("ports", "app_tls_legacy", "int", 0, PORT_NUMBER, ("app.ssl.port",), "old apps: 8443; 0: off"),
    ("ports", "admin_legacy", "int", 0, PORT_NUMBER, ("administration.https.port",),
     "old admin bookmarks: 7443; 0: off"),
    ("timeouts", "hardware_idle_s", "int", 10, ANY_NUMBER, ("hard.socket.idle.timeout",),
     "a board silent for 2.3 times this is offline; 0: never"),
    ("timeouts", "app_idle_s", "int", 300, ANY_NUMBER, ("app.socket.idle.timeout",),
     "an app silent this long is closed; 0: never"),
    ("timeouts", "http_idle_s", "int", 60, POSITIVE, (), "an HTTP client silent this long is closed"),
    ("tls", "cert", "file", "", None, ("server.ssl.cert", "https.cert"),
     "PEM file with your certificate and its chain"),
    ("tls", "key", "file", "", None, ("server.ssl.key", "https.key"), "PEM file with its private key"),
    ("tls", "key_password", "text", "", None, ("server.ssl.key.pass", "https.key.pass"), "password of the private key"),
    ("tls", "min_version", "choice", "", ("", "1.0", "1.1", "1.2", "1.3"), (),
     "oldest TLS version that is accepted; empty: as the TLS library has it"),
    ("tls", "reload_check_s", "int", 60, (1, 86400), (), "how often the certificate files are checked for a change"),
    ("acme", "challenge_folder", "text", "", None, (), "certbot's webroot, served at /.well-known/acme-challenge/"),
    ("acme", "enabled", "bool", False, None, (), "a built-in ACME client is a later step; use certbot until then"),
    ("acme", "email", "text", "", None, ("contact.email",), "e-mail of the ACME account"),
    ("acme", "renew", "bool", True, None, (), "renew certificates"),
    ("acme", "renew_before_days", "int", 21, (1, 89), (), "renew when only this many days are left"),
    ("data", "folder", "text", "", None, ("data.folder",),
     "accounts, history, certificates; empty: a temporary folder"),
    ("data", "save_period_ms", "int", 60000, (1000, 86400000), ("profile.save.worker.period",),
     "how often pin values are folded from the journal into the account files"),
    ("data", "journal_interval_ms", "int", 1000, (10, 60000), (), "how often pin values are made safe on the disk"),
    ("data", "password_storage", "choice", "mixed", ("mixed", "scrypt", "java"), (),
     "mixed: new accounts scrypt, old ones stay; scrypt: upgraded at login; java: as the Java server"),
    ("data", "backup_keep_days", "int", 30, ANY_NUMBER, (), "daily backups of account files kept; 0: no backups"),
    ("data", "store_ip", "bool", True, None, ("allow.store.ip",), "keep the last address of users and devices"),
    ("data", "csv_max_points", "int", 43200, POSITIVE, ("csv.export.data.points.max",), "most points in a CSV export"),
    ("data", "minute_history_days", "int", 10, POSITIVE, ("store.minute.record.days",), "days of minute history kept"),
    ("data", "export_keep_days", "int", 45, POSITIVE, ("store.export.csv.report.days",), "days CSV exports are kept"),
    ("data", "csv_folder", "text", "", None, (), "where CSV exports are put; empty: blynk in the temporary folder"),
    ("log", "folder", "text", "", None, ("logs.folder",), "folder for blynk.log (rotated); empty: console only"),
    ("log", "max_mb", "int", 5, (1, 4096), (), "size of a log file"),
    ("log", "files", "int", 3, (1, 1000), (), "log files kept"),
    ("log", "level", "choice", "info", LOG_LEVELS, ("log.level",), "trace, debug, info, warn, error or off"),
    ("log", "stats_period_ms", "int", 60000, (1000, 86400000), ("stats.print.worker.period",), "period of statistics"),
    ("http", "max_request_size", "int", 524288, (1024, 1073741824), ("web.request.max.size",), "largest body, bytes"),
    ("http", "upload_max_size", "int", 16777216, (1024, 1073741824), (), "largest firmware upload, bytes"),
    ("http", "project_shows_push_tokens", "bool", False, None, (), "push tokens in GET /{token}/project, as Java had"),
    ("limits", "devices", "int", 50, ANY_NUMBER, ("user.devices.limit",), "devices in a project"),
    ("limits", "tags", "int", 100, ANY_NUMBER, ("user.tags.limit",), "tags in a project"),
    ("limits", "dashboards", "int", 100, ANY_NUMBER, ("user.dashboard.max.limit",), "projects of an account"),
    ("limits", "widget_kb", "int", 20, POSITIVE, ("user.widget.max.size.limit",), "size of a widget, KB"),
    ("limits", "profile_kb", "int", 256, POSITIVE, ("user.profile.max.size",), "size of a project, KB"),
    ("limits", "messages_per_s", "int", 100, POSITIVE, ("user.message.quota.limit",),
     "messages a second of a connection"),
    ("limits", "registrations_per_hour", "int", 1000, ANY_NUMBER, ("hourly.registrations.limit",),
     "new accounts an hour"),
    ("limits", "allowed_users", "list", (), None, ("allowed.users.list",), "only these may register; empty: everybody"),
    ("limits", "energy", "energy", "unlimited", ANY_NUMBER, ("initial.energy",),
     "energy of a new account, or \"unlimited\""),
    ("limits", "reports", "int", 25, ANY_NUMBER, (), "reports of a project"),
    ("limits", "connections", "int", 10000, POSITIVE, (), "connections in all"),
    ("limits", "connections_per_address", "int", 0, ANY_NUMBER, (),
     "connections of an address not logged in; 0: no limit"),
    ("limits", "failed_logins", "int", 10, ANY_NUMBER, (),
     "wrong passwords of an account and address before a pause; 0: no limit"),
    ("limits", "failed_logins_window_s", "int", 300, POSITIVE, (), "time in which they are counted"),
    ("limits", "failed_logins_pause_s", "int", 60, POSITIVE, (), "length of the pause"),
    ("discovery", "mode", "choice", "zeroconf", ("zeroconf", "off"), (), "announce the server in the LAN, or off"),
    ("discovery", "name", "text", "", None, (), "name it is announced by; empty: the host name"),
    ("pools", "terminal", "int", 25, POSITIVE, ("terminal.strings.pool.size",), "lines a terminal widget keeps"),
    ("pools", "map", "int", 25, POSITIVE, ("map.strings.pool.size",), "points a map widget keeps"),
    ("pools", "lcd", "int", 6, POSITIVE, ("lcd.strings.pool.size",), "commands an LCD widget keeps"),
    ("pools", "table", "int", 100, POSITIVE, ("table.rows.pool.size",), "rows a table widget keeps"),
    ("notifications", "min_interval_s", "int", 5, ANY_NUMBER,
     ("notifications.frequency.user.quota.limit", "notifications.user.quota.limit"),
     "shortest time between two mails, pushes, tweets or SMS of a device"),
    ("notifications", "mails_per_day", "int", 100, ANY_NUMBER, (), "mails a day of an account"),
    ("notifications", "queue", "int", 2000, POSITIVE, ("notifications.queue.limit",), "messages waiting to be sent"),
    ("notifications", "workers", "int", 2, (1, 64), ("blocking.processor.thread.pool.limit",),
     "network threads, started when first needed"),
    ("webhooks", "min_interval_ms", "int", 1000, ANY_NUMBER, ("webhooks.frequency.user.quota.limit",),
     "shortest time between two webhook calls of a device; 0: no limit"),
    ("webhooks", "max_response_kb", "int", 96, POSITIVE, ("webhooks.response.size.limit",), "largest answer, KB"),
    ("webhooks", "max_failures", "int", 10, ANY_NUMBER, ("webhooks.failure.count.limit",),
     "a webhook that failed this often in a row is off; 0: never"),
    ("webhooks", "private_networks", "bool", True, None, (), "webhooks may call addresses of the LAN"),
    ("reading", "without_app", "bool", False, None, ("allow.reading.widget.without.active.app",),
     "reading widgets ask the board though no app is online"),
    ("admin", "path", "path", "/admin", None, ("admin.rootPath",), "path of the admin page"),
    ("admin", "allowed_ips", "networks", tuple(PRIVATE_NETWORKS), None, ("allowed.administrator.ips",),
     "addresses and networks that may open the admin page; empty: nobody"),
    ("admin", "email", "text", "admin@blynk.cc", None, ("admin.email",), "login of the first admin"),
    ("admin", "password", "text", "", None, ("admin.pass",), "password of the first admin; empty: made and shown once"),
    ("mail", "host", "text", "", None, ("mail.smtp.host",), "mail server; empty: no mails"),
    ("mail", "port", "int", 587, (1, 65535), ("mail.smtp.port",), "its port"),
    ("mail", "username", "text", "", None, ("mail.smtp.username",), "login"),
    ("mail", "password", "text", "", None, ("mail.smtp.password",), "password"),
    ("mail", "from", "text", "", None, ("mail.from",), "sender; empty: username"),
    ("mail", "auth", "bool", True, None, ("mail.smtp.auth",), "log in"),
    ("mail", "security", "choice", "starttls", ("starttls", "starttls-required", "tls", "none"), (),
     "starttls (if offered), starttls-required, tls (port 465) or none"),
    ("mail", "verify_certificate", "bool", True, None, (), "check the mail server's certificate"),
    ("mail", "connect_timeout_ms", "int", 30000, POSITIVE, ("mail.smtp.connectiontimeout",), "time to connect"),
    ("mail", "timeout_ms", "int", 120000, POSITIVE, ("mail.smtp.timeout",), "time to wait for an answer"),
    ("sms", "nexmo_key", "text", "", None, ("nexmo.api.key",), "Nexmo (Vonage) API key; empty: no SMS"),
    ("sms", "nexmo_secret", "text", "", None, ("nexmo.api.secret",), "Nexmo (Vonage) API secret"),
    ("sms", "url", "url", "", None, (), "any HTTP gateway; {to} and {text} in the URL are replaced"),
    ("push", "server", "url", "", None, ("gcm.server",), "server for pushes in the old FCM form"),
    ("push", "api_key", "text", "", None, ("gcm.api.key",), "its key"),
    ("push", "ntfy_url", "url", "", None, (), "ntfy server for pushes"),
    ("push", "ntfy_topic", "text", "", None, (), "ntfy topic"),
    ("push", "ntfy_token", "text", "", None, (), "ntfy access token"),
    ("push", "fcm_v1_account_file", "file", "", None, (), "service account (JSON) of your Firebase project"),
    ("push", "apprise_urls", "list", (), None, (), "URLs for the apprise program"),
    ("push", "title", "text", "{PRODUCT_NAME} Notification", None, ("notification.title",), "title of a push"),
    ("push", "offline_body", "text", "Your {DEVICE_NAME} went offline.", None, ("notification.body",),
     "text of the push when a device goes offline"),
    ("twitter", "consumer_key", "text", "", None, ("oauth.consumerKey",), "Twitter app key; empty: no tweets"),
    ("twitter", "consumer_secret", "text", "", None, ("oauth.consumerSecret",), "Twitter app secret"),
    ("twitter", "mastodon_url", "url", "", None, (), "Mastodon server to post to instead"),
    ("twitter", "mastodon_token", "text", "", None, (), "Mastodon access token"),
    ("database", "enabled", "bool", False, None, ("enable.db",), "use PostgreSQL (pip install psycopg)"),
    ("database", "url", "text", "", None, ("jdbc.url",), "postgresql://host:port/name"),
    ("database", "user", "text", "", None, ("user",), "database user"),
    ("database", "password", "text", "", None, ("password",), "database password"),
    ("database", "reporting_url", "text", "", None, ("reporting.jdbc.url",), "database for raw values; empty: url"),
    ("database", "reporting_user", "text", "", None, ("reporting.user",), "its user"),
    ("database", "reporting_password", "text", "", None, ("reporting.password",), "its password"),
    ("database", "clean_reporting", "bool", True, None, ("clean.reporting",), "delete old rows"),
    ("raw_data", "store", "choice", "off", ("off", "sqlite", "csv", "postgres"), (), "keep every value: where"),
    ("raw_data", "keep_days", "int", 30, POSITIVE, (), "days raw values are kept"),
    ("raw_data", "max_mb", "int", 200, POSITIVE, (), "space they may take"),
    ("legacy", "read_properties", "bool", False, None, (),
     "read the Java server's .properties too; always done when there is no blynk.toml"),
)  # fmt: skip

# The Java server's default for an integer that is there but empty, where it is not the default above (spec 07 §3).
LEGACY_EMPTY = {
    "limits_widget_kb": 10,
    "limits_profile_kb": 64,
    "limits_energy": 2000,
    "notifications_min_interval_s": 15,
    "webhooks_max_response_kb": 64,
}

# Old switches whose meaning is more than their value: key -> (attribute, value when "true", value when not).
LEGACY_SWITCHES: dict[str, tuple[str, Any, Any]] = {
    "latest.tls": ("tls_min_version", "1.2", ""),
    "renewal.disabled": ("acme_renew", False, True),
    "enable.raw.data.store": ("raw_data_store", "csv", "off"),
    "enable.raw.db.data.store": ("raw_data_store", "postgres", None),
    "mail.smtp.starttls.enable": ("mail_security", "starttls", "none"),
    "mail.smtp.starttls.required": ("mail_security", "starttls-required", None),
    "mail.smtp.ssl.enable": ("mail_security", "tls", None),
}

# Keys of old releases that mean nothing here (spec 07 §9), without a word. A name ending in "." stands for a family.
LEGACY_IGNORED = (
    "async.logger.ring.buffer.size server.worker.threads tcp.websocket.port "
    "ssl.websocket.port reset.pass.http.port server.default.port server.ssl.port server.ssl.default.port "
    "user.message.quota.limit.exceeded.warning.period user.traffic.limit user.message.size.limit "
    "enable.native.epoll.transport enable.native.openssl rename.old.reporting.files user.in.memory.storage.limit "
    "redis. server2. user.dashboard.id.min user.dashboard.id.max app.ssl.enabled enable.administration.ui "
    "server.admin.port "
    "mail.transport.protocol mail.smtp.ssl.trust connection.timeout.millis reporting.connection.timeout.millis"
).split()

LEGACY_FILES = (
    "server.properties",
    "mail.properties",
    "sms.properties",
    "gcm.properties",
    "twitter4j.properties",
    "db.properties",
)

# option (one or two dashes) -> the setting it sets, or "" for those that load_settings handles itself
COMMAND_LINE_OPTIONS = {
    "data": "data_folder", "dataFolder": "data_folder", "http-port": "ports_http", "hardPort": "ports_http",
    "https-port": "ports_https", "appPort": "ports_https", "mqtt-port": "ports_mqtt", "listen": "server_listen",
    "log-level": "log_level", "log-folder": "log_folder", "config": "", "serverConfig": "", "mailConfig": "",
    "smsConfig": "", "workerThreads": "",
}  # fmt: skip
LEGACY_OPTIONS = ("serverConfig", "mailConfig", "smsConfig")
COMMAND_LINE_FLAGS = ("help", "h", "version", "restore")
SUB_COMMANDS = {
    "passwd": "EMAIL [APP]: set a new password",
    "users": "list the accounts",
    "token": "EMAIL [APP]: the device tokens of an account, ready for the sketch",
    "doctor": "check ports, certificate, clock, disk, folder and network, and say what to do",
    "check-mail": "[TO]: check the mail settings, and send a mail",
    "avahi-service": "print a service file for the avahi daemon",
    "backup": "FILE: write a backup of the data folder",
    "restore": "FILE [EMAIL]: put a backup back, or one account of it",
}


class SettingsError(Exception):
    """A wrong setting; its text is the one line for the user. The program ends with exit code 2."""


class Settings:
    """Every setting as `section_key`; `Settings()` has the defaults.

    command, arguments: the sub-command of the command line ("" for the server itself; "help", "version") and its words;
    restore: `-restore` was given; files: setting files that were read; warnings: lines for the log;
    origins: attribute -> where it was set ("file: key"), for later error lines.
    """

    __slots__ = (
        *[f"{row[0]}_{row[1]}" for row in SETTINGS],
        "command",
        "arguments",
        "restore",
        "files",
        "warnings",
        "origins",
        "program_folder",
    )

    def __init__(self) -> None:
        for section, key, _, default, *_ in SETTINGS:
            setattr(self, f"{section}_{key}", list(default) if isinstance(default, tuple) else default)
        self.command = ""
        self.arguments: list[str] = []
        self.restore = False
        self.files: list[str] = []
        self.warnings: list[str] = []
        self.origins: dict[str, str] = {}
        self.program_folder = ""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


# --- kinds of values: a text of a .properties file or the command line becomes a value, which is checked ---------


def text_to_int(text: str) -> Any:
    """The number, or the text itself, which the check then refuses."""
    digits = text[1:] if text[:1] == "-" else text
    return int(text) if digits.isascii() and digits.isdigit() else text


def text_to_list(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def setting_int(value: Any, allowed: tuple[int, int]) -> Any:
    if type(value) is not int or not allowed[0] <= value <= allowed[1]:
        raise ValueError(f"a whole number from {allowed[0]} to {allowed[1]}")
    return value


def setting_bool(value: Any, allowed: Any) -> Any:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def setting_text(value: Any, allowed: Any) -> Any:
    if not isinstance(value, str) or any(c in value for c in "\0\r\n"):
        raise ValueError("a text of one line in quotes")
    return value


def setting_choice(value: Any, allowed: tuple[str, ...]) -> Any:
    if isinstance(value, str) and value.lower() in allowed:
        return value.lower()
    raise ValueError("one of " + ", ".join(f'"{word}"' for word in allowed))


def setting_list(value: Any, allowed: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError('a list of texts, such as ["a", "b"]')
    return value


def setting_energy(value: Any, allowed: tuple[int, int]) -> Any:
    try:
        return "unlimited" if value == "unlimited" else setting_int(value, allowed)
    except ValueError as error:
        raise ValueError(f'"unlimited" or {error}') from None


def setting_file(value: Any, allowed: Any) -> Any:
    if setting_text(value, None) and not os.path.isfile(value):
        raise ValueError("the path of a file that is there and may be read")
    return value


def setting_url(value: Any, allowed: Any) -> Any:
    if setting_text(value, None) and not value.startswith(("http://", "https://")):
        raise ValueError("a URL that starts with http:// or https://")
    return value


def setting_path(value: Any, allowed: Any) -> Any:
    if not setting_text(value, None).startswith("/") or len(value) < 2 or any(c in value for c in " ?#%"):
        raise ValueError("a path that starts with / and is not / alone")
    return value.rstrip("/")


def setting_networks(value: Any, allowed: Any) -> Any:
    for item in setting_list(value, None):
        if parse_network(item) is None:
            raise ValueError('a list of addresses and networks, such as ["192.168.0.0/16", "::1"]')
    return value


SETTING_KINDS: dict[str, tuple[Callable[[str], Any], Callable[[Any, Any], Any]]] = {
    "int": (text_to_int, setting_int),
    "bool": (lambda text: text.lower() == "true", setting_bool),
    "text": (str, setting_text),
    "choice": (str, setting_choice),
    "list": (text_to_list, setting_list),
    "energy": (lambda text: text if text == "unlimited" else text_to_int(text), setting_energy),
    "file": (str, setting_file),
    "url": (str, setting_url),
    "path": (str, setting_path),
    "networks": (text_to_list, setting_networks),
}


def parse_network(text: str) -> Optional[tuple[int, int]]:
    """`192.168.0.0/16`, `::1` … -> (number >> shift, shift) in the space of 128 bits; None when it is neither.

    IPv4 counts as IPv4-mapped IPv6, so `::/0` is the whole world and `0.0.0.0/0` all of IPv4.
    """
    address, slash, bits = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    width = 128 if family == socket.AF_INET6 else 32
    try:
        raw = socket.inet_pton(family, address.partition("%")[0])
    except (OSError, ValueError):
        return None
    if slash and not (bits.isascii() and bits.isdigit() and int(bits) <= width):
        return None
    number = int.from_bytes(raw, "big") + (0xFFFF << 32 if width == 32 else 0)
    shift = width - int(bits) if slash else 0
    return number >> shift, shift


def address_in(address: str, networks: list[str]) -> bool:
    """Is the peer address in one of the networks of a setting (each already checked)?"""
    host = parse_network(address)
    if host is None or "/" in address:
        return False
    for network in map(parse_network, networks):
        if network is not None and host[0] >> network[1] == network[0]:
            return True
    return False


# --- setting one value ------------------------------------------------------------------------------------------------

SECRET_SETTINGS = ("pass", "secret", "token", "key", "urls")


def set_setting(settings: Settings, row: tuple[Any, ...], value: Any, where: str, name: str) -> None:
    """Checks the value and sets it; `where` is the file (or "command line"), `name` the key as the user wrote it."""
    section, key, kind, _, allowed = row[:5]
    try:
        setattr(settings, f"{section}_{key}", SETTING_KINDS[kind][1](value, allowed))
    except ValueError as error:
        raise SettingsError(f"{where}: {name} = {shown_value(key, value)} is not allowed: it must be {error}") from None
    settings.origins[f"{section}_{key}"] = f"{where}: {name}"


def shown_value(key: str, value: Any) -> str:
    """The value for an error line; what may be a secret is not shown."""
    return "***" if any(word in key for word in SECRET_SETTINGS) and key not in ("cert", "key") else toml_value(value)


def set_setting_text(settings: Settings, row: tuple[Any, ...], text: str, where: str, name: str) -> None:
    set_setting(settings, row, SETTING_KINDS[row[2]][0](text), where, name)


def toml_value(value: Any) -> str:
    """A value as blynk.toml writes it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False, default=str)


# --- blynk.toml -------------------------------------------------------------------------------------------------------


def apply_toml(settings: Settings, path: str, document: dict[str, Any]) -> None:
    """Sets what blynk.toml sets. An unknown section or key is an error: it is most likely a typing mistake."""
    sections: dict[str, dict[str, Any]] = {}
    for row in SETTINGS:
        sections.setdefault(row[0], {})[row[1]] = row
    for section, content in document.items():
        if section not in sections or not isinstance(content, dict):
            raise SettingsError(f"{path}: [{section}] is not a section: there are {', '.join(sections)}")
        for key, value in content.items():
            if key not in sections[section]:
                allowed = ", ".join(sections[section])
                raise SettingsError(
                    f"{path}: {section}.{key} = {shown_value(key, value)} is not a setting: [{section}] has {allowed}"
                )
            set_setting(settings, sections[section][key], value, path, f"{section}.{key}")
    settings.files.append(path)


def parse_toml(path: str) -> dict[str, Any]:
    text = read_setting_file(path).decode("utf-8-sig", "surrogateescape")
    try:
        import tomllib as toml
    except ImportError:
        try:
            import tomli as toml
        except ImportError:
            raise SettingsError(
                f"{path}: reading it takes Python 3.11, or `pip install tomli` (Debian: apt install python3-tomli)"
            ) from None
    try:
        return dict(toml.loads(text.encode("utf-8").decode("utf-8")))
    except UnicodeError:
        raise SettingsError(f"{path}: the file must be UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError and names line and column
        raise SettingsError(f"{path}: {error}") from None


def read_setting_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None


# --- the Java server's .properties ------------------------------------------------------------------------------------


def parse_properties(raw: bytes) -> dict[str, str]:
    """Java properties (spec 07 §2) -> {key: value}; UTF-8, else ISO-8859-1; blanks after a value are dropped.

    Raises ValueError for a broken \\u escape.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("iso-8859-1")
    found = {}
    waiting = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = line.lstrip(" \t\f")
        if not waiting and line[:1] in ("", "#", "!"):
            continue
        line = waiting + line
        waiting = ""
        if (len(line) - len(line.rstrip("\\"))) % 2:
            waiting = line[:-1]
            continue
        key, value = split_property(line)
        found[key] = value
    if waiting:
        key, value = split_property(waiting)
        found[key] = value
    return found


def split_property(line: str) -> tuple[str, str]:
    """One logical line -> key, value. The key ends at the first `=`, `:` or blank that no backslash protects."""
    end = 0
    while end < len(line) and line[end] not in "=: \t\f":
        end += 2 if line[end] == "\\" else 1
    rest = line[end:].lstrip(" \t\f")
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(" \t\f")
    return unescape_property(line[:end]), unescape_property(rest.rstrip(" \t\f"))


def unescape_property(text: str) -> str:
    if "\\" not in text:
        return text
    out = []
    i = 0
    while i < len(text):
        char = text[i]
        i += 1
        if char == "\\" and i < len(text):
            char = text[i]
            i += 1
            if char == "u":
                char = chr(int(text[i : i + 4].ljust(4, "?"), 16))
                i += 4
            else:
                char = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(char, char)
        out.append(char)
    return "".join(out)


def read_properties(settings: Settings, paths: list[str], energy_too: bool) -> None:
    """Sets what the old files set; keys nobody knows become warnings (spec 07 §9).

    energy_too: no blynk.toml is there, so new accounts get the energy the Java server gave them.
    """
    if paths and energy_too:
        settings.limits_energy = 100000
    found: dict[str, tuple[str, str]] = {}  # key -> (value, file)
    for path in paths:
        try:
            content = parse_properties(read_setting_file(path))
        except ValueError:
            raise SettingsError(f"{path}: \\u must be followed by four hexadecimal digits") from None
        found.update((key, (value, path)) for key, value in content.items())
        settings.files.append(path)
    for row in SETTINGS:
        names = [name for name in row[5] if name in found]
        for name in [name for name in names if found[name][0]][:1] or names[:1]:
            set_property_value(settings, row, name, *found[name])
    for key, (attribute, true, false) in LEGACY_SWITCHES.items():  # in the table's order: the later, stronger one wins
        value = found.pop(key, None)
        chosen = None if value is None or not value[0] else true if value[0].lower() == "true" else false
        if chosen is not None:
            setattr(settings, attribute, chosen)
    if settings.raw_data_store == "postgres" and not settings.database_enabled:
        settings.raw_data_store = "off"  # as in the Java server: raw values need enable.db
    if bool(settings.tls_cert) != bool(settings.tls_key):  # it takes both, as in the Java server
        settings.tls_cert = settings.tls_key = ""
    if settings.mail_username and "mail.smtp.host" not in found:
        settings.mail_host = "smtp.gmail.com"  # the Java server's default, for a mail.properties with just a login
    known = {name for row in SETTINGS for name in row[5]}
    families = tuple(name for name in LEGACY_IGNORED if name.endswith("."))
    for key, (_, path) in found.items():
        if key not in known and key not in LEGACY_IGNORED and not key.startswith(families):
            settings.warnings.append(f"{path}: {key} is not known here and has no effect")


def set_property_value(settings: Settings, row: tuple[Any, ...], name: str, text: str, path: str) -> None:
    """One known key of an old file, as lenient as the Java server: empty is the default, a missing file is none."""
    attribute = f"{row[0]}_{row[1]}"
    if not text and row[2] in ("int", "energy", "choice", "path"):
        setattr(settings, attribute, LEGACY_EMPTY.get(attribute, row[3]))
    elif row[2] == "file" and text and not os.path.isfile(text):
        settings.warnings.append(f"{path}: {name} = {text} is not there; this server's own certificate is used")
    elif row[2] == "list":
        settings.limits_allowed_users = [word.lower() for word in text_to_list(text)]
    else:
        set_setting_text(settings, row, text, path, name)


# --- command line and precedence --------------------------------------------------------------------------------------


def parse_command_line(settings: Settings, argv: list[str]) -> dict[str, str]:
    """Options -> {name without dashes: value}; words go to settings.command and settings.arguments."""
    given: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            settings.arguments.append(word)
            continue
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        if name in COMMAND_LINE_FLAGS and not equals:
            given[{"h": "help"}.get(name, name)] = "true"
            continue
        if name not in COMMAND_LINE_OPTIONS:
            raise SettingsError(f"command line: {word} is not an option: `--help` lists them")
        if not equals and (not words or words[0].lstrip("-") in COMMAND_LINE_OPTIONS and words[0][0] == "-"):
            raise SettingsError(f"command line: {word} needs a value")
        given[name] = value if equals else words.pop(0)
    return given


def take_command(settings: Settings, given: dict[str, str]) -> None:
    """The first word is the sub-command; --help and --version come before everything."""
    if "help" in given or "version" in given:
        settings.command = "help" if "help" in given else "version"
    elif settings.arguments:
        settings.command = settings.arguments.pop(0)
        if settings.command not in SUB_COMMANDS:
            known = ", ".join(SUB_COMMANDS)
            raise SettingsError(f"command line: {settings.command} is not a command: there are {known}")


def load_settings(argv: list[str], program_folder: str) -> Settings:
    """Reads the settings of this start (spec 07 §11). `argv` without the program's name; raises SettingsError."""
    settings = Settings()
    settings.program_folder = program_folder
    given = parse_command_line(settings, argv)
    take_command(settings, given)
    if settings.command in ("help", "version"):
        return settings
    config = find_config(given, program_folder)
    document = parse_toml(config) if config.endswith(".toml") else None
    if document is None:
        settings.legacy_read_properties = True
    elif isinstance(document.get("legacy"), dict):
        settings.legacy_read_properties = document["legacy"].get("read_properties") is True
    if settings.legacy_read_properties:
        read_properties(settings, find_properties(given, program_folder, config), energy_too=document is None)
    elif any(name in given for name in LEGACY_OPTIONS):
        settings.warnings.append(
            f"{config} is there: set legacy.read_properties = true in it to read old files as well"
        )
    if document is not None:
        apply_toml(settings, config, document)
    apply_options(settings, given)
    return settings


def find_config(given: dict[str, str], program_folder: str) -> str:
    """The path of blynk.toml, or of the .properties given with --config, or "" when there is neither."""
    path = given.get("config", "")
    if path:
        if not path.endswith((".toml", ".properties")):
            raise SettingsError(f"command line: --config {path}: the name must end in .toml or .properties")
        return path
    candidates = (os.path.join(program_folder, SETTINGS_FILE), SYSTEM_SETTINGS_FILE)
    return next((path for path in candidates if os.path.isfile(path)), "")


def find_properties(given: dict[str, str], program_folder: str, config: str) -> list[str]:
    """The old files to read: those given, else those that lie in the program's folder."""
    paths = []
    for name in LEGACY_FILES:
        option = name.replace(".properties", "Config")
        path = given.get(option) or os.path.join(program_folder, name)
        if name == "server.properties" and config.endswith(".properties"):
            path = config
        elif option not in given and not os.path.isfile(path):
            continue
        paths.append(path)
    return paths


def apply_options(settings: Settings, given: dict[str, str]) -> None:
    """What the command line sets, and a few combinations that cannot be meant."""
    rows = {f"{row[0]}_{row[1]}": row for row in SETTINGS}
    for name, text in given.items():
        attribute = COMMAND_LINE_OPTIONS.get(name)
        if attribute:
            dashes = "--" if name.islower() else "-"
            set_setting_text(settings, rows[attribute], text, "command line", dashes + name)
    settings.restore = "restore" in given
    if "workerThreads" in given:
        settings.warnings.append("command line: -workerThreads has no effect: this server needs no such threads")
    check_combinations(settings)


def check_combinations(settings: Settings) -> None:
    """Settings that are fine each, but not together."""
    if settings.tls_key and not settings.tls_cert:
        raise wrong_setting(settings, "tls_key", "it needs tls.cert, the certificate that belongs to it")
    if settings.acme_enabled:
        problem = "the built-in client is a later step; use certbot with acme.challenge_folder, or tls.cert and tls.key"
        raise wrong_setting(settings, "acme_enabled", problem)
    if settings.restore and not settings.database_enabled:
        raise SettingsError("command line: -restore reads accounts from the database: it needs database.enabled = true")
    taken: dict[int, str] = {}
    for section, key, *_ in SETTINGS:
        port = getattr(settings, f"{section}_{key}") if section == "ports" else 0
        if port and port in taken:
            raise wrong_setting(settings, f"ports_{key}", f"{taken[port]} is the same port")
        taken[port] = f"ports.{key}"


def wrong_setting(settings: Settings, attribute: str, problem: str) -> SettingsError:
    """The error for a setting that turns out wrong when it is used: it still names where it was set."""
    section, _, key = attribute.partition("_")
    if section == "raw":
        section, key = "raw_data", attribute[9:]
    origin = settings.origins.get(attribute, f"{section}.{key}")
    return SettingsError(f"{origin} = {shown_value(key, getattr(settings, attribute))} is not allowed: {problem}")


def temp_folder() -> str:
    """The system's temporary folder (the tempfile module would cost a megabyte)."""
    names = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    names.append("/tmp")  # noqa: S108
    return next((name for name in names if name and os.path.isdir(name)), os.getcwd())


def choose_data_folder(settings: Settings) -> tuple[str, list[str]]:
    """The data folder, made if need be, and lines for the console (spec 07 §5.2); settings.data_folder becomes it.

    None given: a temporary folder and a warning. One that cannot be used is an error, unlike in the Java server, which
    went on with an empty one: while the drive is not mounted, every board would be told that its token is wrong.
    """
    folder = settings.data_folder
    lines = []
    if folder in ("", "/path"):
        lines.append(f"WARNING : '{folder}' does not exists. Please specify correct -dataFolder parameter.")
        folder = os.path.join(temp_folder(), "blynk")
        lines.append(f"Your data may be lost during server restart. Using temp folder : {folder}")
    try:
        os.makedirs(folder, mode=0o700 if lines else 0o777, exist_ok=True)
    except OSError as error:
        raise wrong_setting(settings, "data_folder", f"the folder cannot be made: {error.strerror or error}") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise wrong_setting(settings, "data_folder", "there is no right to write in this folder")
    settings.data_folder = folder
    return folder, lines


# --- help -------------------------------------------------------------------------------------------------------------


def settings_text() -> str:
    """blynk.toml.example: every setting, commented out, with its default and its line of help."""
    lines = [
        "# Settings of blynk-pi: every one with its default. Copy this file to blynk.toml beside blynk_pi.py (or to",
        "# /etc/blynk/blynk.toml, or name it with --config) and take the # away from what you change.",
    ]
    section = ""
    for row in SETTINGS:
        if row[0] != section:
            section = row[0]
            lines += ["", f"[{section}]"]
        lines.append(f"# {row[6]}")
        lines.append(f"#{row[1]} = {toml_value(row[3])}")
    return "\n".join(lines) + "\n"


def help_text(topic: str = "") -> str:
    """What --help prints; topic "settings" is every setting, in the form of blynk.toml."""
    if topic == "settings":
        return settings_text()
    rows = {f"{row[0]}_{row[1]}": row for row in SETTINGS}
    words = {"int": "NUMBER", "text": "TEXT", "choice": "WORD"}
    lines = [
        f"blynk-pi {__version__}: the Blynk server in one file",
        "",
        "usage: blynk_pi.py [options]            run the server",
        "       blynk_pi.py [options] COMMAND …  do one thing, through the running server if there is one",
        "",
        "options:",
    ]
    for name, attribute in COMMAND_LINE_OPTIONS.items():
        if attribute and name.islower():
            row = rows[attribute]
            lines.append(f"  --{name + ' ' + words[row[2]]:20} {row[6]} ({toml_value(row[3])})")
    lines += [
        "  --config FILE          blynk.toml, or a .properties file of the Java server",
        "  --version, --help      --help settings: every setting, ready to be saved as blynk.toml",
        "  Of the Java server, too: -dataFolder -serverConfig -mailConfig -smsConfig -hardPort -appPort -restore",
        "",
        "commands:",
    ]
    lines += [f"  {name:14} {text}" for name, text in SUB_COMMANDS.items()]
    return "\n".join(lines) + "\n"


# ======================================================================================================================
# 3. Wire
# ======================================================================================================================
# Codecs without sockets, clock or log: bytes in, events out; events in, bytes out. Blynk frames first (spec 01 §3),
# then HTTP/1.1, WebSocket and MQTT.

HARDWARE_HEADER = struct.Struct(">BHH")
APP_HEADER = struct.Struct(">BHI")
DASHWS_HEADER = struct.Struct(">BH")
pack_hardware_header = HARDWARE_HEADER.pack
pack_app_header = APP_HEADER.pack


def pack_hw(command: int, id: int, body: bytes) -> bytes:
    """A frame to a board: 5-byte header. Message id 0 would make the library drop the connection: it goes out as 1."""
    return pack_hardware_header(command, id & 0xFFFF or 1, len(body)) + body


def pack_dashws(command: int, id: int, body: bytes) -> bytes:
    """The payload of one `/dashws` message: 3-byte header, no length (spec 01 §3.3)."""
    return DASHWS_HEADER.pack(command, id & 0xFFFF) + body


HTTP_STARTS = frozenset((b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"PATC", b"DELE", b"TRAC", b"CONN"))
TLS_HARDWARE_STARTS = (b"\x1d\x00\x01\x00\x20", b"\x02\x00\x01\x00\x20")


def detect(start: bytes, secure: bool) -> str:
    """Which protocol a connection speaks, from its first five bytes (spec 01 §2): "http", "hardware" or "app"."""
    if start[:4] in HTTP_STARTS:
        return "http"
    return "app" if secure and start[:5] not in TLS_HARDWARE_STARTS else "hardware"


class Quota:
    """Messages per second as a one-minute moving average (spec 01 §12.3); one per connection."""

    __slots__ = ("last_tick", "count", "rate", "started", "warned")
    ALPHA = 1 - 2.718281828459045 ** (-1 / 60)

    def __init__(self, now_ms: int) -> None:
        self.last_tick = now_ms
        self.count = 0
        self.rate = 0.0
        self.started = False
        self.warned = -60_000_000

    def over(self, now_ms: int, limit: float) -> bool:
        """Brings the average up to date and says whether it is above the limit."""
        age = now_ms - self.last_tick
        if age > 1000:
            self.last_tick = now_ms - age % 1000
            ticks = age // 1000
            if self.started:
                self.rate += self.ALPHA * (self.count - self.rate)
            else:
                self.rate, self.started = float(self.count), True
            self.count = 0
            if ticks > 1:
                self.rate *= (1 - self.ALPHA) ** (ticks - 1)
        elif age < 0:  # the clock was set back
            self.last_tick = now_ms
        return self.rate > limit

    def warn(self, now_ms: int) -> bool:
        """Whether QUOTA_LIMIT may be said now: at most once a minute."""
        if now_ms - self.warned < 60_000:
            return False
        self.warned = now_ms
        return True


# -- 3a HTTP/1.1 -------------------------------------------------------------------------------------------------------
# Bytes in, events out; no sockets, no clock, no logging. An `HttpParser` turns the bytes of one connection
# into requests: `feed(data)`, then `next()` until it says None. Whatever a client does wrong is an
# `HttpError` that carries the status to answer before the connection is closed. Bodies come in pieces, so
# that an upload can go to disk. What two parsers could read in two ways (Content-Length beside chunks, two
# lengths, folded lines, a bare CR) is refused, never guessed. Used by room 12 only.

HTTP_REASONS = {
    100: "Continue",
    101: "Switching Protocols",
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    301: "Moved Permanently",
    302: "Found",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
HTTP_MAX_FIELDS = 100  # header lines a request may have; clients send 5 to 20
HTTP_CHUNK_LINE = 256  # a chunk's size with its extensions; sizes alone need 8 characters

_TOKEN_CHARACTERS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEAD_CHARACTERS = bytes([9, 10, 13, *range(32, 127), *range(128, 256)])  # no other control character in a head
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_HTTP_VERSIONS = {"HTTP/1.1": 1, "HTTP/1.0": 0}
_SINGLE_FIELDS = ("content-length", "transfer-encoding", "host", "expect", "authorization", "content-type")


class HttpError(Exception):
    """The client's mistake. `status` is the answer, after which the connection must be closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class HttpRequest:
    """The head of a request.

    method "GET"; target as sent ("/a?b=c", Latin-1 text of the bytes); path and query (None without "?") of it;
    headers {lower-case name: value}; minor 1 or 0 of the HTTP version; keep_alive; length of the body in bytes,
    -1 when it comes in chunks; expects_continue. `arguments` and `body` are the router's.
    """

    __slots__ = (
        "method",
        "target",
        "path",
        "query",
        "headers",
        "minor",
        "keep_alive",
        "length",
        "expects_continue",
        "arguments",
        "body",
    )

    def __init__(self, method: str, target: str, minor: int, headers: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        path, mark, query = target.partition("?")
        self.path = path
        self.query: str | None = query if mark else None
        self.keep_alive = minor == 1
        self.length = 0
        self.expects_continue = False
        self.arguments: tuple[str, ...] = ()
        self.body = b""


class HttpParser:
    """One connection's requests, one after the other.

    feed(data) takes bytes as they came. next() gives the next event: an HttpRequest; then, when its `length` is not
    0, `bytes` for each piece of the body and b"" when it is complete; None when more bytes are needed. Raises
    HttpError. `max_body` may be changed between the head and its body (uploads have a larger limit).
    """

    __slots__ = ("buffer", "max_line", "max_headers", "max_body", "_left", "_total", "_state")

    def __init__(self, max_line: int = 4096, max_headers: int = 8192, max_body: int = 524288) -> None:
        self.buffer = bytearray()
        self.max_line = max_line
        self.max_headers = max_headers
        self.max_body = max_body
        self._left = 0  # bytes left of the body or of the chunk
        self._total = 0  # bytes of chunks so far
        self._state: Callable[[], HttpRequest | bytes | None] | None = None  # None: between requests

    @property
    def in_body(self) -> bool:
        """True between a head that announced a body and the body's end."""
        return self._state is not None

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next(self) -> HttpRequest | bytes | None:
        state = self._state
        return self._head() if state is None else state()

    def skip_body(self) -> bool:
        """Throws away what has come of the body; True when that was all of it (`next` gives the next head)."""
        while self._state is not None:
            piece = self.next()
            if piece is None:
                return False
            self._total = 0  # what is thrown away counts against no limit
        return True

    # --- the head: about 6 microseconds for the three header lines of curl, because the block is split once

    def _head(self) -> HttpRequest | None:
        buffer = self.buffer
        while buffer[:2] == b"\r\n":  # RFC 9112 §2.2: an empty line before a request is skipped
            del buffer[:2]
        end = buffer.find(b"\n\r\n")
        short = buffer.find(b"\n\n", 0, end if end >= 0 else len(buffer))
        if short >= 0:  # boards that end their lines with LF alone; RFC 9112 §2.2 lets us
            head, consumed = bytes(buffer[:short]), short + 2
        elif end >= 0:
            head, consumed = bytes(buffer[:end]), end + 3
        else:
            self._check_size(bytes(buffer[: self.max_line + 2]), len(buffer))
            return None
        if head.endswith(b"\r"):
            head = head[:-1]
        self._check_size(head, len(head))
        del buffer[:consumed]
        request = self._parse(head)
        if request.length:
            self._total = 0
            self._left = request.length
            self._state = self._chunk_size if request.length < 0 else self._body
        return request

    def _check_size(self, start: bytes, length: int) -> None:
        """Whether a head of so many bytes, of which `start` has the request line, keeps the limits."""
        line = start.find(b"\n")
        end = len(start) if line < 0 else line
        if end - (start[end - 1 : end] == b"\r") > self.max_line:
            raise HttpError(414, "request line too long")
        if line >= 0 and length - line - 1 > self.max_headers:
            raise HttpError(431, "header block too long")

    def _parse(self, head: bytes) -> HttpRequest:
        text = head.decode("latin-1")
        lines = text.split("\r\n")
        if head.count(b"\n") != len(lines) - 1:  # some lines end with LF alone
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
            lines = text.split("\r\n")
        if text.count("\r") != len(lines) - 1 or head.translate(None, _HEAD_CHARACTERS):
            raise HttpError(400, "control character in the head")
        words = lines[0].split(" ")
        if len(words) != 3:
            raise HttpError(400, "request line is not 'METHOD target HTTP/1.1'")
        method, target, version = words
        minor = _HTTP_VERSIONS.get(version)
        if minor is None:
            raise HttpError(505 if version[:5] == "HTTP/" and version[5:6].isdigit() else 400, "unknown HTTP version")
        headers = _parse_fields(lines)
        if not method or method.encode("latin-1").translate(None, _TOKEN_CHARACTERS):
            raise HttpError(400, "method is not a word")
        if target[:1] != "/":
            target = _origin_form(method, target, headers)
        request = HttpRequest(method, target, minor, headers)
        if headers:
            _apply_fields(request, headers)
        return request

    # --- bodies

    def _body(self) -> bytes | None:
        left = self._left
        if not left:
            self._state = None
            return b""
        piece = bytes(self.buffer[:left])
        if not piece:
            return None
        del self.buffer[: len(piece)]
        self._left = left - len(piece)
        return piece

    def _line(self, limit: int) -> bytes | None:
        end = self.buffer.find(b"\r\n", 0, limit + 2)
        if end < 0:
            if len(self.buffer) > limit:
                raise HttpError(400, "line between chunks too long")
            return None
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return line

    def _chunk_size(self) -> bytes | None:
        line = self._line(HTTP_CHUNK_LINE)
        if line is None:
            return None
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not 0 < len(digits) <= 8 or digits.translate(None, _HEX_DIGITS) or line.translate(None, _HEAD_CHARACTERS):
            raise HttpError(400, "bad chunk size")
        if b"\n" in line or b"\r" in line:
            raise HttpError(400, "bad chunk size")
        self._left = int(digits, 16)
        self._total += self._left
        if self._total > self.max_body:
            raise HttpError(413, "body too long")
        if not self._left:
            self._total = 0
            self._state = self._trailer
            return self._trailer()
        self._state = self._chunk
        return self._chunk()

    def _chunk(self) -> bytes | None:
        if not self._left:
            if len(self.buffer) < 2:
                return None
            if self.buffer[:2] != b"\r\n":
                raise HttpError(400, "chunk longer than its size")
            del self.buffer[:2]
            self._state = self._chunk_size
            return self._chunk_size()
        piece = bytes(self.buffer[: self._left])
        if not piece:
            return None
        del self.buffer[: len(piece)]
        self._left -= len(piece)
        return piece

    def _trailer(self) -> bytes | None:
        while True:
            line = self._line(self.max_headers)
            if line is None:
                return None
            self._total += len(line)
            if self._total > self.max_headers:
                raise HttpError(431, "trailer too long")
            if not line:
                self._state = None
                return b""


def _parse_fields(lines: list[str]) -> dict[str, str]:
    """Header lines (lines[0] is the request line) -> {lower-case name: value}; repeated names are joined."""
    if len(lines) > HTTP_MAX_FIELDS + 1:
        raise HttpError(431, "too many header lines")
    headers: dict[str, str] = {}
    for i in range(1, len(lines)):
        name, colon, value = lines[i].partition(":")
        if not colon or not name:
            raise HttpError(400, "header line without a name")
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in _SINGLE_FIELDS:
                raise HttpError(400, f"{name} given twice")
            value = headers[name] + ("; " if name == "cookie" else ", ") + value
        headers[name] = value
    if "".join(headers).encode("latin-1").translate(None, _TOKEN_CHARACTERS):
        raise HttpError(400, "bad character in a header name")  # also folded lines and blanks before the colon
    return headers


def _apply_fields(request: HttpRequest, headers: dict[str, str]) -> None:
    """What the connection itself reads of the header: lengths, keep-alive, expectation, host."""
    connection = headers.get("connection")
    if connection is not None:
        words = [word.strip() for word in connection.lower().split(",")]
        request.keep_alive = "close" not in words and (request.minor == 1 or "keep-alive" in words)
    host = headers.get("host")
    if host and (host.translate(_HOST_CHARACTERS) or len(host) > 255):
        raise HttpError(400, "bad Host")
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if length is not None or request.minor == 0:
            raise HttpError(400, "Transfer-Encoding beside Content-Length or in HTTP/1.0")
        if coding.lower() != "chunked":
            raise HttpError(501, "unknown Transfer-Encoding")
        request.length = -1
    elif length is not None:
        if not 0 < len(length) <= 15 or not (length.isascii() and length.isdigit()):
            raise HttpError(400, "bad Content-Length")
        request.length = int(length)
    expect = headers.get("expect")
    if expect is not None and request.minor == 1:
        if expect.lower() != "100-continue":
            raise HttpError(417, "unknown Expect")
        request.expects_continue = True


_HOST_CHARACTERS = {
    ord(c): None for c in "-._~:[]%!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
}


def _origin_form(method: str, target: str, headers: dict[str, str]) -> str:
    """ "http://host/path" -> "/path" (its host replaces the Host header, RFC 9112 §3.2.2); "*" stays for OPTIONS."""
    scheme, mark, rest = target.partition("://")
    if mark and scheme.lower() in ("http", "https"):
        cut = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
        headers["host"] = rest[:cut]
        path = rest[cut:]
        return path if path[:1] == "/" else "/" + path
    if (method == "OPTIONS" and target == "*") or method == "CONNECT":
        return target
    raise HttpError(400, "target is not a path")


def http_field(name: str, value: str) -> bytes:
    """One header line. A line break or another control character in the value is our bug: ValueError."""
    line = f"{name}: {value}".encode("latin-1", "replace")
    if line.translate(None, _HEAD_CHARACTERS) or b"\n" in line or b"\r" in line:
        raise ValueError(f"header {name} must be one line")
    return line + b"\r\n"


def http_status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTP_REASONS.get(status, 'Unknown')}\r\n".encode("ascii")


def percent_decode(text: str) -> str:
    """%41 -> A; what is no escape stays. `text` is Latin-1 text of the bytes sent; the result is read as UTF-8."""
    if "%" not in text:
        return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")
    first, *rest = text.encode("latin-1", "replace").split(b"%")
    out = [first]
    for part in rest:
        pair = part[:2]
        if len(pair) == 2 and not pair.translate(None, _HEX_DIGITS):
            out.append(bytes((int(pair, 16),)))
            out.append(part[2:])
        else:
            out.append(b"%" + part)
    return b"".join(out).decode("utf-8", "replace")


def parse_query(query: str | None, limit: int = 1024) -> dict[str, list[str]]:
    """`a=1&b=2;a=3` -> {"a": ["1", "3"], "b": ["2"]}; + is a blank, no "=" gives "", 1024 count (spec 06 §1.6)."""
    result: dict[str, list[str]] = {}
    if not query:
        return result
    for pair in query.replace(";", "&").split("&", limit)[:limit]:
        if pair:
            name, _, value = pair.partition("=")
            if "+" in pair:
                name, value = name.replace("+", " "), value.replace("+", " ")
            result.setdefault(percent_decode(name), []).append(percent_decode(value))
    return result


# -- 3b WebSocket ------------------------------------------------------------------------------------------------------
# RFC 6455, the server's side, without extensions: `feed(data)`, then `next()` until it says None. Messages
# come out whole, however they were cut; control frames come out between the pieces of a message. A client's
# mistake is a `WebSocketError` with the close code to send. Spec 01 §11. Used by room 12 only.

WS_CONTINUATION, WS_TEXT, WS_BINARY, WS_CLOSE, WS_PING, WS_PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
WS_MAX_FRAME = 65536  # payload of one frame from a client (spec 01 §3.7)
_WS_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketError(Exception):
    """The client's mistake; `code` is what our close frame says (RFC 6455 §7.4)."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class WebSocketCodec:
    """One connection's messages. next() gives (opcode, payload) or None: opcode WS_TEXT, WS_BINARY (whole messages),
    WS_PING, WS_PONG, WS_CLOSE (payload as sent: 2 bytes code and reason, or empty). After WS_CLOSE nothing comes.

    max_frame, max_message: bytes; more raises WebSocketError(1009) as soon as the length is known.
    """

    __slots__ = ("buffer", "max_frame", "max_message", "_opcode", "_message", "_decoder", "closed")

    def __init__(self, max_frame: int = WS_MAX_FRAME, max_message: int = WS_MAX_FRAME) -> None:
        self.buffer = bytearray()
        self.max_frame = max_frame
        self.max_message = max_message
        self._opcode = 0  # of the fragmented message that is being received
        self._message: bytearray | None = None
        self._decoder: Any = None
        self.closed = False

    def feed(self, data: bytes) -> None:
        if not self.closed:
            self.buffer += data

    def next(self) -> tuple[int, bytes] | None:
        while not self.closed:
            frame = self._frame()
            if frame is None:
                return None
            fin, opcode, payload = frame
            if opcode >= 8:
                if opcode == WS_CLOSE:
                    _check_close(payload)
                    self.closed = True
                    self.buffer.clear()
                return opcode, payload
            event = self._data(fin, opcode, payload)
            if event is not None:
                return event
        return None

    def _frame(self) -> tuple[bool, int, bytes] | None:
        """(fin, opcode, unmasked payload) of the next whole frame. The header is judged as soon as it is there."""
        buffer = self.buffer
        available = len(buffer)
        if available < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode, length, start = first & 15, second & 127, 6
        _check_header(first, opcode, second, length)
        if length == 126:
            if available < 4:
                return None
            length, start = buffer[2] << 8 | buffer[3], 8
            if length < 126:
                raise WebSocketError(1002, "length not in its shortest form")
        elif length == 127:
            if available < 10:
                return None
            length, start = int.from_bytes(buffer[2:10], "big"), 14
            if length < 65536 or length >> 63:
                raise WebSocketError(1002, "length not in its shortest form")
        if length > self.max_frame:
            raise WebSocketError(1009, "frame too long")
        if available < start + length:
            return None
        payload = _unmask(bytes(buffer[start : start + length]), bytes(buffer[start - 4 : start]))
        del buffer[: start + length]
        return first >= 128, opcode, payload

    def _data(self, fin: bool, opcode: int, payload: bytes) -> tuple[int, bytes] | None:
        message = self._message
        if opcode == WS_CONTINUATION:
            if message is None:
                raise WebSocketError(1002, "continuation of nothing")
            if len(message) + len(payload) > self.max_message:
                raise WebSocketError(1009, "message too long")
            self._check_text(self._opcode, payload, fin)
            message += payload
            if not fin:
                return None
            self._message = None
            return self._opcode, bytes(message)
        if message is not None:
            raise WebSocketError(1002, "new message inside a fragmented one")
        if len(payload) > self.max_message:
            raise WebSocketError(1009, "message too long")
        self._check_text(opcode, payload, fin)
        if fin:
            return opcode, payload
        self._opcode, self._message = opcode, bytearray(payload)
        return None

    def _check_text(self, opcode: int, payload: bytes, fin: bool) -> None:
        """Text must be UTF-8, also where a fragment ends inside a character; the first wrong fragment fails."""
        if opcode != WS_TEXT:
            return
        if self._decoder is None:
            import codecs

            self._decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            self._decoder.decode(payload, fin)
        except UnicodeDecodeError:
            raise WebSocketError(1007, "text is not UTF-8") from None
        if fin:
            self._decoder = None


def _check_header(first: int, opcode: int, second: int, length: int) -> None:
    if first & 0x70:
        raise WebSocketError(1002, "reserved bit set")
    if 3 <= opcode <= 7 or opcode > 10:
        raise WebSocketError(1002, "unknown opcode")
    if second < 128:
        raise WebSocketError(1002, "frame without a mask")
    if opcode >= 8 and (first < 128 or length > 125):
        raise WebSocketError(1002, "control frame fragmented or too long")


def _unmask(payload: bytes, mask: bytes) -> bytes:
    """XOR as one big number: 30 times quicker than byte by byte."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise WebSocketError(1002, "bad close code")
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise WebSocketError(1007, "close reason is not UTF-8") from None


def ws_frame(opcode: int, payload: bytes) -> bytes:
    """A whole, unmasked frame."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, length) + payload


def ws_close_frame(code: int, reason: str = "") -> bytes:
    return ws_frame(WS_CLOSE, code.to_bytes(2, "big") + reason.encode("utf-8")[:123])


def ws_handshake(request: HttpRequest) -> str:
    """The Sec-WebSocket-Accept value for an upgrade request; HttpError(426) for another version, 400 for a bad one."""
    headers = request.headers
    upgrade = [word.strip() for word in headers.get("upgrade", "").lower().split(",")]
    connection = [word.strip() for word in headers.get("connection", "").lower().split(",")]
    if "websocket" not in upgrade or "upgrade" not in connection or request.minor == 0:
        raise HttpError(400, "not a websocket request")
    if headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "unknown websocket version")
    key = headers.get("sec-websocket-key", "").encode("latin-1")
    try:
        raw = base64.b64decode(key, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise HttpError(400, "bad Sec-WebSocket-Key")
    return base64.b64encode(hashlib.sha1(key + _WS_GUID).digest()).decode("ascii")


# -- 3c MQTT -----------------------------------------------------------------------------------------------------------
# MQTT 3.1 and 3.1.1, the server's side: `feed(data)`, then `next()` until it says None. A packet is a tuple
# that begins with its type. Malformed or too long: `MqttError`, close the connection (spec 01 §10). Which
# packets mean what to a device is room 12f's.

MQTT_CONNECT, MQTT_CONNACK, MQTT_PUBLISH, MQTT_PUBACK, MQTT_PUBREC, MQTT_PUBREL, MQTT_PUBCOMP = 1, 2, 3, 4, 5, 6, 7
MQTT_SUBSCRIBE, MQTT_SUBACK, MQTT_UNSUBSCRIBE, MQTT_UNSUBACK, MQTT_PINGREQ, MQTT_PINGRESP, MQTT_DISCONNECT = range(
    8, 15
)
MQTT_MAX_PACKET = 8092  # bytes of a packet after its fixed header (spec 01 §10)
MQTT_PROTOCOLS = {("MQIsdp", 3), ("MQTT", 4)}
_MQTT_FLAGS = {MQTT_PUBREL: 2, MQTT_SUBSCRIBE: 2, MQTT_UNSUBSCRIBE: 2}  # others have 0; PUBLISH has its own


class MqttError(Exception):
    """The client's mistake; the connection is to be closed."""


class MqttCodec:
    """One connection's packets. next() gives None or one of

    (MQTT_CONNECT, name, level, client_id, user, password, keep_alive_s): user and password None when absent
    (MQTT_PUBLISH, topic, payload, qos, packet_id, retain): packet_id 0 with QoS 0
    (MQTT_SUBSCRIBE, packet_id, [(topic, qos)]) and (MQTT_UNSUBSCRIBE, packet_id, [topic])
    (MQTT_PUBACK / MQTT_PUBREC / MQTT_PUBREL / MQTT_PUBCOMP, packet_id), (MQTT_PINGREQ,), (MQTT_DISCONNECT,)
    """

    __slots__ = ("buffer", "max_packet")

    def __init__(self, max_packet: int = MQTT_MAX_PACKET) -> None:
        self.buffer = bytearray()
        self.max_packet = max_packet

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next(self) -> tuple[Any, ...] | None:
        buffer = self.buffer
        length = shift = 0
        position = 1
        while True:  # the length: 7 bits a byte, at most four bytes
            if position >= len(buffer):
                return None
            byte = buffer[position]
            length |= (byte & 127) << shift
            position += 1
            shift += 7
            if byte < 128:
                break
            if shift > 21:
                raise MqttError("length of more than four bytes")
        if length > self.max_packet:
            raise MqttError("packet too long")
        if len(buffer) < position + length:
            return None
        first = buffer[0]
        body = bytes(buffer[position : position + length])
        del buffer[: position + length]
        return _mqtt_packet(first >> 4, first & 15, body)


def _mqtt_packet(kind: int, flags: int, body: bytes) -> tuple[Any, ...]:
    if kind == MQTT_PUBLISH:
        return _mqtt_publish(flags, body)
    if flags != _MQTT_FLAGS.get(kind, 0):
        raise MqttError("bad flags")
    if kind == MQTT_CONNECT:
        return _mqtt_connect(body)
    if kind in (MQTT_PINGREQ, MQTT_DISCONNECT):
        if body:
            raise MqttError("unexpected body")
        return (kind,)
    if kind in (MQTT_SUBSCRIBE, MQTT_UNSUBSCRIBE):
        return _mqtt_topics(kind, body)
    if MQTT_PUBACK <= kind <= MQTT_PUBCOMP and len(body) == 2:
        return kind, int.from_bytes(body, "big")
    raise MqttError("packet no client sends")


def _mqtt_bytes(body: bytes, at: int) -> tuple[bytes, int]:
    """A field with its two bytes of length at `at` -> (field, position after it)."""
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    if at + 2 > len(body) or end > len(body):
        raise MqttError("field longer than its packet")
    return body[at + 2 : end], end


def _mqtt_text(body: bytes, at: int) -> tuple[str, int]:
    field, at = _mqtt_bytes(body, at)
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        raise MqttError("text is not UTF-8") from None
    if "\0" in text:
        raise MqttError("NUL in a text")
    return text, at


def _mqtt_connect(body: bytes) -> tuple[Any, ...]:
    name, at = _mqtt_text(body, 0)
    if len(body) < at + 4:
        raise MqttError("CONNECT too short")
    level, flags, keep_alive = body[at], body[at + 1], int.from_bytes(body[at + 2 : at + 4], "big")
    if (name, level & 127) not in MQTT_PROTOCOLS:  # a bridge sets the level's high bit
        return MQTT_CONNECT, name, level, "", None, None, keep_alive  # what follows has another form
    if flags & 1 or flags >> 3 & 3 == 3 or (not flags & 4 and flags & 0x38) or (flags & 0x40 and not flags & 0x80):
        raise MqttError("bad CONNECT flags")
    client_id, at = _mqtt_text(body, at + 4)
    if flags & 4:  # a last will: read over, nobody listens for it
        _, at = _mqtt_text(body, at)
        _, at = _mqtt_bytes(body, at)
    user = password = None
    if flags & 0x80:
        user, at = _mqtt_text(body, at)
    if flags & 0x40:
        raw, at = _mqtt_bytes(body, at)
        password = raw.decode("utf-8", "replace")
    if at != len(body):
        raise MqttError("CONNECT too long")
    return MQTT_CONNECT, name, level, client_id, user, password, keep_alive


def _mqtt_publish(flags: int, body: bytes) -> tuple[Any, ...]:
    qos = flags >> 1 & 3
    if qos == 3 or (not qos and flags & 8):
        raise MqttError("bad PUBLISH flags")
    topic, at = _mqtt_text(body, 0)
    if not topic or "#" in topic or "+" in topic:
        raise MqttError("bad topic")
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
        if not packet_id or at > len(body):
            raise MqttError("bad packet id")
    return MQTT_PUBLISH, topic, body[at:], qos, packet_id, bool(flags & 1)


def _mqtt_topics(kind: int, body: bytes) -> tuple[Any, ...]:
    packet_id, at = int.from_bytes(body[:2], "big"), 2
    if len(body) < 5 or not packet_id:
        raise MqttError("no packet id or no topic")
    topics: list[Any] = []
    while at < len(body):
        topic, at = _mqtt_text(body, at)
        if not topic:
            raise MqttError("empty topic")
        if kind == MQTT_SUBSCRIBE:
            if at >= len(body) or body[at] > 2:
                raise MqttError("bad QoS")
            topics.append((topic, body[at]))
            at += 1
        else:
            topics.append(topic)
    return kind, packet_id, topics


def mqtt_packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A packet to a client: fixed header, length, body."""
    length, head = len(body), bytearray((kind << 4 | flags,))
    while True:
        length, low = length >> 7, length & 127
        head.append(low | 128 if length else low)
        if not length:
            return bytes(head) + body


def mqtt_connack(code: int) -> bytes:
    return bytes((MQTT_CONNACK << 4, 2, 0, code))


def mqtt_ack(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK."""
    return struct.pack(">BBH", kind << 4 | _MQTT_FLAGS.get(kind, 0), 2, packet_id)


def mqtt_suback(packet_id: int, codes: list[int]) -> bytes:
    return mqtt_packet(MQTT_SUBACK, packet_id.to_bytes(2, "big") + bytes(codes))


def mqtt_publish(topic: bytes, payload: bytes, qos: int = 0, packet_id: int = 0) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + (packet_id.to_bytes(2, "big") if qos else b"") + payload
    return mqtt_packet(MQTT_PUBLISH, body, qos << 1)


# ======================================================================================================================
# 4. Loop
# ======================================================================================================================
# One thread, one selector, all ports. Timers by monotonic and by wall clock, streams over TCP and TLS with bounded
# buffers and idle deadlines, worker threads for whatever can block. Knows nothing of Blynk: a stream hands its bytes to
# a protocol object that has received(data), closed() and, when it wants to know, drained().

EVENT_READ, EVENT_WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
WALL_CHECK_SECONDS = 10.0  # while a wall-clock timer waits the clock is looked at so often: it may be set meanwhile
# What a peer may do to a socket without it being our mistake.
NORMAL_ERRORS = (ConnectionError, TimeoutError, ssl.SSLError, socket.timeout)


class Timer:
    """A pending call; cancel() is cheap, the heap forgets it later."""

    __slots__ = ("when", "fn", "args")

    def __init__(self, when: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when, self.fn, self.args = when, fn, args

    def cancel(self) -> None:
        self.fn = None  # type: ignore[assignment]
        self.args = ()


class Workers:
    """Threads of one kind with a bounded queue, started when first needed; results come back in the loop."""

    __slots__ = (
        "loop",
        "kind",
        "most",
        "limit",
        "jobs",
        "ready",
        "threads",
        "idle",
        "active",
        "done_count",
        "stopping",
    )

    def __init__(self, loop: Loop, kind: str, most: int, limit: int) -> None:
        self.loop, self.kind, self.most, self.limit = loop, kind, most, limit
        self.jobs: deque[tuple[Any, ...]] = deque()
        self.ready = threading.Condition(threading.Lock())
        self.threads: list[threading.Thread] = []
        self.idle = self.active = self.done_count = 0
        self.stopping = False

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], done: Optional[Callable[..., Any]]) -> bool:
        """False when the queue is full."""
        with self.ready:
            if len(self.jobs) >= self.limit:
                return False
            self.jobs.append((fn, args, done))
            if self.idle >= len(self.jobs) or len(self.threads) >= self.most:
                self.ready.notify()
            else:
                thread = threading.Thread(target=self._work, name=f"blynk-{self.kind}", daemon=True)
                self.threads.append(thread)
                thread.start()
        return True

    def _work(self) -> None:
        while True:
            with self.ready:
                while not self.jobs:
                    if self.stopping:
                        return
                    self.idle += 1
                    self.ready.wait()
                    self.idle -= 1
                fn, args, done = self.jobs.popleft()
                self.active += 1
            result = error = None
            try:
                result = fn(*args)
            except Exception as problem:  # handed to whoever asked
                error = problem
                if done is None:
                    log.exception(f"in a {self.kind} thread")
            self.active -= 1
            self.done_count += 1
            if done is not None:
                self.loop.from_thread(done, result, error)
            del fn, args, done, result, error

    def stop(self, seconds: float) -> None:
        """Finishes what is queued, waiting at most so long."""
        with self.ready:
            self.stopping = True
            self.ready.notify_all()
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))


class Loop:
    """The event loop. `now` is monotonic seconds, `now_ms` wall-clock milliseconds, both read once a turn."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        net_threads: int = 2,
    ) -> None:
        self.monotonic, self.wall = monotonic, wall
        self.now, self.now_ms = monotonic(), int(wall() * 1000)
        self.selector = selectors.DefaultSelector()
        self.timers: list[tuple[float, int, Timer]] = []
        self.wall_timers: list[tuple[float, int, Timer]] = []
        self.sequence = 0
        self.dirty: list[Stream] = []  # streams with output to send at the end of the turn
        self.streams: set[Stream] = set()
        self.listeners: list[Listener] = []
        self.end_of_turn: list[Callable[[], object]] = []
        self.results: deque[tuple[Any, ...]] = deque()
        self.running = False
        self.sweep_timer: Optional[Timer] = None
        self.max_connections = 10_000
        self.pools = {
            "disk": Workers(self, "disk", 1, 1000),
            "crypto": Workers(self, "crypto", 1, 200),
            "net": Workers(self, "net", net_threads, 2000),
        }
        self.wake_in, self.wake_out = socket.socketpair()
        self.wake_in.setblocking(False)
        self.wake_out.setblocking(False)
        self.selector.register(self.wake_in, EVENT_READ, self._woken)

    # -- timers ------------------------------------------------------------------------------------------------------

    def call_at(self, when: float, fn: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(when, fn, args)
        self.sequence += 1
        heapq.heappush(self.timers, (when, self.sequence, timer))
        return timer

    def call_later(self, seconds: float, fn: Callable[..., object], *args: Any) -> Timer:
        return self.call_at(self.now + seconds, fn, *args)

    def soon(self, fn: Callable[..., object], *args: Any) -> Timer:
        return self.call_at(0.0, fn, *args)

    def call_at_wall(self, ms: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Calls when the wall clock shows `ms` or later, also when somebody sets the clock."""
        timer = Timer(ms, fn, args)
        self.sequence += 1
        heapq.heappush(self.wall_timers, (ms, self.sequence, timer))
        return timer

    def _run_timers(self) -> None:
        for heap, now in ((self.timers, self.now), (self.wall_timers, self.now_ms)):
            ready = []
            while heap and (heap[0][0] <= now or heap[0][2].fn is None):
                ready.append(heapq.heappop(heap)[2])
            for timer in ready:
                fn, args = timer.fn, timer.args
                if fn is not None:
                    timer.cancel()
                    self._call(fn, *args)

    def _timeout(self) -> float:
        for heap in (self.timers, self.wall_timers):
            while heap and heap[0][2].fn is None:
                heapq.heappop(heap)
        wait = 3600.0
        if self.timers:
            wait = self.timers[0][0] - self.monotonic()
        if self.wall_timers:
            wait = min(wait, WALL_CHECK_SECONDS, self.wall_timers[0][0] / 1000 - self.wall())
        return wait if wait > 0 else 0.0

    # -- work in other threads ---------------------------------------------------------------------------------------

    def submit(self, kind: str, fn: Callable[..., Any], *args: Any, done: Optional[Callable[..., Any]] = None) -> bool:
        """Runs fn(*args) in a thread of that kind ("disk", "crypto", "net"); done(result, error) is called in the loop.
        False when the queue is full: nothing will happen."""
        return self.pools[kind].submit(fn, args, done)

    def from_thread(self, fn: Callable[..., Any], *args: Any) -> None:
        """Calls fn(*args) in the loop; may be called from any thread or signal handler."""
        self.results.append((fn, *args))
        try:
            self.wake_out.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # it is awake already, or closed

    def _woken(self, _events: int) -> None:
        try:
            self.wake_in.recv(4096)
        except BlockingIOError:
            pass
        while self.results:
            fn, *args = self.results.popleft()
            self._call(fn, *args)

    @staticmethod
    def _call(fn: Callable[..., object], *args: Any) -> None:
        try:
            fn(*args)
        except Exception:
            log.exception(f"in {getattr(fn, '__qualname__', fn)}")

    # -- turning -----------------------------------------------------------------------------------------------------

    def run_once(self, most: float = 3600.0) -> None:
        """One turn: waits for a socket or a timer, at most so many seconds; then sends what was written."""
        ready = self.selector.select(min(self._timeout(), most))
        self.now, self.now_ms = self.monotonic(), int(self.wall() * 1000)
        for key, events in ready:
            try:
                key.data(events)
            except Exception:
                log.exception("in the loop")
        if self.timers or self.wall_timers:
            self._run_timers()
        for fn in self.end_of_turn:
            self._call(fn)
        while self.dirty:
            streams, self.dirty = self.dirty, []
            for stream in streams:
                stream.queued = False
                try:
                    stream.flush()
                except Exception:  # of a protocol's drained(): costs it its connection, not everybody theirs
                    log.exception(f"while answering {stream.peer}")
                    stream.abort()

    def run(self) -> None:
        self.running = True
        while self.running:
            self.run_once()

    def stop(self) -> None:
        self.running = False

    def close(self) -> None:
        for listener in list(self.listeners):
            listener.close()
        for stream in list(self.streams):
            stream.abort()
        for pool in self.pools.values():
            pool.stop(5.0)
        self.selector.close()
        self.wake_in.close()
        self.wake_out.close()

    # -- streams -----------------------------------------------------------------------------------------------------

    def listen(
        self,
        host: str,
        port: int,
        on_accept: Callable[[Stream], object],
        tls: Optional[Callable[[], Optional[ssl.SSLContext]]] = None,
    ) -> Listener:
        """Opens a port. `tls` gives the context of the moment for each new connection. Errors: OSError."""
        listener = Listener(self, host, port, on_accept, tls)
        self.listeners.append(listener)
        return listener

    def watch_idle(self, deadline: float) -> None:
        """Makes sure that idle streams are looked at by then."""
        timer = self.sweep_timer
        if timer is None or timer.fn is None or timer.when > deadline:
            if timer is not None:
                timer.cancel()
            self.sweep_timer = self.call_at(max(deadline, self.now + 0.05), self._sweep)

    def _sweep(self) -> None:
        """Closes what has been silent, or has not read, for too long."""
        self.sweep_timer = None
        now, earliest = self.now, float("inf")
        for stream in list(self.streams):
            deadline = stream.deadline()
            if deadline <= now:
                self._call(stream.expired)
            elif deadline < earliest:
                earliest = deadline
        if earliest < float("inf"):
            self.watch_idle(max(earliest, now + 0.5))


class Listener:
    """A listening socket (two when the machine has IPv6 and no address was given)."""

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        on_accept: Callable[[Stream], object],
        tls: Optional[Callable[[], Optional[ssl.SSLContext]]],
    ) -> None:
        self.loop, self.on_accept, self.tls = loop, on_accept, tls
        self.sock = self._bind(host, port)
        self.port: int = self.sock.getsockname()[1]
        loop.selector.register(self.sock, EVENT_READ, self._acceptable)

    @staticmethod
    def _bind(host: str, port: int) -> socket.socket:
        if not host and socket.has_dualstack_ipv6():
            try:
                sock = socket.create_server(("::", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
                sock.setblocking(False)
                return sock
            except OSError as problem:
                if problem.errno == errno.EADDRINUSE or problem.errno == errno.EACCES:
                    raise
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=1024)
        sock.setblocking(False)
        return sock

    def _acceptable(self, _events: int) -> None:
        loop = self.loop
        for _ in range(64):
            try:
                sock, address = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning(f"cannot accept a connection: {problem.strerror}; trying again in a second")
                    loop.selector.unregister(self.sock)
                    loop.call_later(1.0, self._again)
                return
            if len(loop.streams) >= loop.max_connections:
                sock.close()
                continue
            self._accept(sock, address[0])

    def _again(self) -> None:
        if self.sock.fileno() >= 0:
            self.loop.selector.register(self.sock, EVENT_READ, self._acceptable)

    def _accept(self, sock: socket.socket, peer: str) -> None:
        context = None
        if self.tls is not None:
            context = self.tls()
            if context is None:
                sock.close()
                return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            sock.close()
            return
        if peer.startswith("::ffff:"):
            peer = peer[7:]
        stream = Stream(self.loop, sock, peer, self.port, context is not None)
        self.on_accept(stream)

    def close(self) -> None:
        if self in self.loop.listeners:
            self.loop.listeners.remove(self)
            try:
                self.loop.selector.unregister(self.sock)
            except (KeyError, ValueError):
                pass
            self.sock.close()


class Stream:
    """One TCP or TLS connection, never blocking, with bounded buffers.

    `out` gathers output, sent once at the end of the turn. `congested` is the "not writable" of spec 01 §12.5.
    """

    __slots__ = (
        "loop", "sock", "fd", "peer", "local_port", "secure", "protocol", "out", "queued", "congested", "closed",
        "closing", "handshaking", "events", "idle", "last_read", "stalled_at", "paused", "source", "on_expired",
        "__weakref__",
    )  # fmt: skip

    def __init__(self, loop: Loop, sock: socket.socket, peer: str, local_port: int, secure: bool) -> None:
        self.loop, self.sock, self.peer, self.local_port, self.secure = loop, sock, peer, local_port, secure
        self.fd = sock.fileno()
        self.protocol: Any = None
        self.out = bytearray()
        self.queued = self.congested = self.closed = self.closing = self.paused = False
        self.handshaking = secure
        self.idle = 0.0
        self.last_read = loop.now
        self.stalled_at = 0.0
        self.source: Any = None
        self.on_expired: Optional[Callable[[], object]] = None
        self.events = EVENT_READ
        loop.selector.register(self.fd, EVENT_READ, self.ready)
        loop.streams.add(self)

    # -- for protocols -----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queues bytes; they leave at the end of the turn."""
        if self.closing:
            return
        self.out += data
        if not self.queued:
            self.queued = True
            self.loop.dirty.append(self)

    def pending(self) -> int:
        return len(self.out)

    def close(self) -> None:
        """Sends what is queued, says goodbye (close_notify on TLS), closes; does not wait for the peer's goodbye."""
        if self.closing:
            return
        self.closing = True
        self.paused = True
        if not self.queued:
            self.queued = True
            self.loop.dirty.append(self)
        if self.out:
            self.last_read = self.loop.now  # from now on the time for the rest runs
            self.set_idle(STALL_SECONDS)

    def abort(self) -> None:
        """Closes at once; output is lost."""
        if self.closed:
            return
        self.closed = self.closing = True
        self.out = bytearray()
        self.loop.streams.discard(self)
        try:
            self.loop.selector.unregister(self.fd)
        except (KeyError, ValueError):
            pass
        if self.source is not None:
            self.source[0].close()
            self.source = None
        try:
            self.sock.close()
        except OSError:
            pass
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self.loop._call(protocol.closed)

    def set_idle(self, seconds: float) -> None:
        """Closes the stream when nothing has been received for so long; 0 means never."""
        self.idle = seconds
        if seconds:
            self.loop.watch_idle(self.loop.now + seconds)

    def pause(self) -> None:
        """Reads nothing until resume()."""
        self.paused = True
        self._update_events()

    def resume(self) -> None:
        if not self.closing:
            self.paused = False
            self._update_events()
            if self.secure and not self.handshaking and self.sock.pending():  # type: ignore[attr-defined]
                self.loop.soon(self.ready, EVENT_READ)

    def send_file(self, file: Any, length: int) -> None:
        """Sends `length` bytes of an open binary file after what is queued, piece by piece; closes the file. Write
        nothing more before drained() was called."""
        self.source = [file, length]
        self.write(b"")

    # -- for the loop ------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When this stream is to be closed if nothing happens (monotonic)."""
        deadline = self.last_read + self.idle if self.idle else float("inf")
        return min(deadline, self.stalled_at + STALL_SECONDS) if self.stalled_at else deadline

    def expired(self) -> None:
        if self.on_expired is not None and not self.closing and not self.stalled_at:
            self.on_expired()
        else:
            self.abort()

    def ready(self, events: int) -> None:
        if self.closed:
            return
        if self.handshaking:
            self._handshake()
            return
        if events & EVENT_WRITE:
            self.flush()
        if events & EVENT_READ and not self.paused and not self.closed:
            self._read()

    def _handshake(self) -> None:
        try:
            self.sock.do_handshake()  # type: ignore[attr-defined]
        except ssl.SSLWantReadError:
            return self._want(EVENT_READ)
        except ssl.SSLWantWriteError:
            return self._want(EVENT_READ | EVENT_WRITE)
        except (OSError, ValueError) as problem:
            if log.debugging:
                log.debug(f"TLS handshake with {self.peer} failed: {problem}")
            return self.abort()
        self.handshaking = False
        self.last_read = self.loop.now
        secured = getattr(self.protocol, "secured", None)
        if secured is not None:
            secured()
        if self.out or self.closing:
            self.flush()
        self._update_events()
        if not self.closed:
            self._read()  # what came along with the last handshake message

    def _read(self) -> None:
        try:
            if self.secure:
                data = self.sock.recv(READ_SIZE)
                if len(data) >= 16384 or data and self.sock.pending():  # type: ignore[attr-defined]
                    data = self._read_records(data)
            else:
                data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            return self._ended()
        self.last_read = self.loop.now
        try:
            self.protocol.received(data)
        except Exception:
            log.exception(f"while serving {self.peer}")
            self.close()

    def _ended(self) -> None:
        """The peer will send no more. A protocol with ended() may say that it still has an answer to give."""
        ended = getattr(self.protocol, "ended", None)
        if ended is None or not ended():
            return self.abort()
        self.pause()
        self.last_read = self.loop.now
        self.set_idle(STALL_SECONDS)

    def _read_records(self, data: bytes) -> bytes:
        """The TLS records that have arrived already, up to READ_SIZE: their bytes would not wake the selector again."""
        parts, total = [data], len(data)
        try:
            while total < READ_SIZE:
                more = self.sock.recv(READ_SIZE - total)
                if not more:
                    break
                parts.append(more)
                total += len(more)
        except (OSError, ValueError):
            pass  # an end or an error shows itself again at the next read
        if self.sock.pending():  # type: ignore[attr-defined]
            self.loop.soon(self.ready, EVENT_READ)
        return b"".join(parts)

    def flush(self) -> None:
        """Sends what the socket takes; of a file a few pieces, or one quick reader would keep all others waiting."""
        if self.closed or self.handshaking:
            return
        out = self.out
        pieces = 4
        try:
            while out or self.source is not None:
                if not out:
                    if not pieces or not self._fill_from_source():
                        break
                    pieces -= 1
                sent = self.sock.send(out)
                del out[:sent]
                self.stalled_at = 0.0
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError, InterruptedError):
            if not self.stalled_at:
                self.stalled_at = self.loop.now
                self.loop.watch_idle(self.loop.now + STALL_SECONDS)
        except OSError:
            return self.abort()
        size = len(out)
        if size > WATERMARK_HIGH:
            self.congested = True
        elif size < WATERMARK_LOW:
            self.congested = False
        if not size and self.closing and self.source is None:
            return self._finish()
        if size or self.source is not None or self.events != EVENT_READ:
            self._update_events()
        if not size and self.protocol is not None and self.source is None:
            drained = getattr(self.protocol, "drained", None)
            if drained is not None:
                drained()

    def _fill_from_source(self) -> bool:
        file, left = self.source
        try:
            piece = file.read(min(READ_SIZE, left))
        except OSError:
            piece = b""
        self.out += piece
        self.source[1] = left - len(piece)
        if self.source[1] <= 0 or not piece:
            file.close()
            self.source = None
            if self.out == b"" and left > 0:
                self.closing = True  # the file became shorter: the promised length cannot be kept
        return bool(piece)

    def _finish(self) -> None:
        """Nothing is left to send: goodbye."""
        try:
            if self.secure and not self.handshaking:
                self.sock.unwrap()  # type: ignore[attr-defined]
        except (OSError, ValueError):
            pass  # close_notify is on its way; the peer's is not waited for
        try:
            for _ in range(4):  # unread bytes would turn the end into a reset, which can overtake our last words
                if not socket.socket.recv(self.sock, READ_SIZE):
                    break
        except OSError:
            pass
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.abort()

    def _want(self, events: int) -> None:
        if events != self.events:
            self.events = events
            try:
                self.loop.selector.modify(self.fd, events, self.ready)
            except (KeyError, ValueError):
                pass

    def _update_events(self) -> None:
        if self.closed or self.handshaking:
            return
        events = (0 if self.paused else EVENT_READ) | (EVENT_WRITE if self.out or self.source is not None else 0)
        if events == 0:
            if self.events:
                self.loop.selector.unregister(self.fd)
                self.events = 0
        elif self.events == 0:
            self.loop.selector.register(self.fd, events, self.ready)
            self.events = events
        else:
            self._want(events)


# ======================================================================================================================
# 5. Model
# ======================================================================================================================
# Accounts, projects, devices and widgets. The documents are the app's: dicts that stay dicts, brought to their own types
# on the way in, unknown fields kept as they came. Thin runtime objects with __slots__ live beside them. Knows nothing of
# sockets and files.

# -- 5a Documents: what fields each kind of object has (spec 04) -------------------------------------------------------
# One word a field, in write order: name:code or name:code=default. Codes: i int, l long, h short, f float, b bool,
# s text, z time zone, B board label, S list of texts, I list of ints, M map of texts, e.NAME enum, E.NAME enum whose
# null becomes the default too, o.KIND object, L.KIND list of objects, N.NAME list of enums. Numbers and flags are always
# there; texts, lists and objects only when they are not empty.

KIND_FIELDS = {
    "USER": "name:s email:s appName:s region:s ip:s pass:s lastModifiedTs:l lastLoggedIP:s lastLoggedAt:l profile:o.PROFILE"
    " isFacebookUser:b isSuperAdmin:b energy:i id:s",
    "PROFILE": "dashBoards:L.PROJECT apps:L.APP",
    "PROJECT": "id:i parentId:i=-1 isPreview:b name:s createdAt:l updatedAt:l widgets:L.WIDGET devices:L.DEVICE tags:L.TAG"
    " theme:E.Theme=Blynk keepScreenOn:b isAppConnectedOn:b isNotificationsOff:b isShared:b isActive:b widgetBackgroundOn:b"
    " color:i=-1 isDefaultColor:b=1 sharedToken:s",
    "SETTINGS": "name:s isShared:b theme:E.Theme=Blynk keepScreenOn:b isAppConnectedOn:b isNotificationsOff:b"
    " widgetBackgroundOn:b color:i isDefaultColor:b",
    "DEVICE": "id:i name:s boardType:B address:s token:s vendor:s connectionType:e.ConnectionType status:E.Status=OFFLINE"
    " disconnectTime:l connectTime:l firstConnectTime:l dataReceivedAt:l lastLoggedIP:s hardwareInfo:o.HARDWARE_INFO"
    " deviceOtaInfo:o.OTA_INFO iconName:s isUserIcon:b",
    "HARDWARE_INFO": "version:s blynkVersion:s boardType:s cpuType:s connectionType:s build:s templateId:s"
    " heartbeatInterval:i buffIn:i=250",
    "OTA_INFO": "otaInitiatedBy:s otaInitiatedAt:l otaUpdateAt:l",
    "TAG": "id:i name:s deviceIds:I",
    "APP": "id:s theme:e.Theme provisionType:e.ProvisionType color:i isMultiFace:b name:s icon:s projectIds:I",
    "STREAM": "pin:h pwmMode:b rangeMappingOn:b pinType:e.PinType value:s min:f max:f label:s",
    "BUTTON_STATE": "text:s textColor:i backgroundColor:i iconName:s",
    "TILE_STATE": "tileColor:i iconName:s iconColor:i text:s textColor:i",
    "TAB": "id:i label:s",
    "COLUMN": "name:s",
    "ROW": "id:i name:s value:s isSelected:b",
    "HEADER": "name:s value:s",
    "TILE": "deviceId:i templateId:l iconName:s pin:o.STREAM",
    "TEMPLATE": "id:l widgets:L.WIDGET deviceIds:I templateId:s name:s iconName:s boardType:B",
    "PAGE": "valueName:s valueFormatting:s valueSuffix:s color:i tileColor:i fontSize:e.FontSize showTileLabel:b"
    " maximumFractionDigits:i",
    "BUTTON": "pushMode:b labelsVisibility:b stateOn:o.TILE_STATE stateOff:o.TILE_STATE",
    "DIMMER": "valueName:s valueFormatting:s valueSuffix:s color:i tileColor:i showTileLabel:b maximumFractionDigits:i"
    " levelColor:i interaction:e.Interaction=PAGE step:f=1",
    "RULE": "triggerPin:o.STREAM triggerTime:o.TIMER_TIME condition:o.CONDITION actions:L.ACTION isActive:b",
    "TIMER_TIME": "id:i days:I time:i tzName:z",
    "GT": "value:f", "GTE": "value:f", "LT": "value:f", "LTE": "value:f", "EQ": "value:f", "NEQ": "value:f",
    "BETWEEN": "left:f right:f", "NOT_BETWEEN": "left:f right:f",
    "CHANGED": "value:s", "STR_EQUAL": "value:s", "STR_NOT_EQUAL": "value:s",
    "SETPIN": "pin:o.STREAM value:s setPinType:e.SetPinType",
    "SET_PROP": "pin:o.STREAM property:e.Property value:s",
    "NOTIFY": "message:s", "TWIT": "message:s", "MAIL": "subject:s message:s",
    "GRAPH_STREAM": "title:s graphType:e.GraphType color:i targetId:i pin:o.STREAM functionType:e.Function flip:i low:s"
    " high:s mathFormula:s yAxisMin:f yAxisMax:f showYAxis:b suffix:s cubicSmoothingEnabled:b"
    " connectMissingPointsEnabled:b isPercentMaxMin:b yAxisScale:E.YAxisScale=UNSET delta:f userDeltaModifyAllowed:b"
    " maximumFractionDigits:i",
    "REPORT_STREAM": "pin:h pinType:e.PinType label:s isSelected:b",
    "SOURCE_DEVICE": "deviceIds:I reportDataStreams:L.REPORT_STREAM",
    "SOURCE_TILE_TEMPLATE": "templateId:i deviceIds:I reportDataStreams:L.REPORT_STREAM",
    "REPORT": "id:i name:s reportSources:L.REPORT_SOURCE reportType:o.REPORT_TYPE recipients:s"
    " granularityType:E.Granularity=MINUTE isActive:b reportOutput:E.ReportOutput=CSV_FILE_PER_DEVICE_PER_PIN"
    " format:e.ReportFormat tzName:z nextReportAt:l lastReportAt:l lastRunResult:e.ReportResult",
    "ONE_TIME": "rangeMillis:l",
    "DAILY": "atTime:l durationType:e.ReportDuration startTs:l endTs:l",
    "WEEKLY": "atTime:l durationType:e.ReportDuration startTs:l endTs:l dayOfTheWeek:i",
    "MONTHLY": "atTime:l durationType:e.ReportDuration startTs:l endTs:l dayOfMonth:E.DayOfMonth=FIRST",
}  # fmt: skip

ENUMS = {
    "PinType": "DIGITAL VIRTUAL ANALOG",
    "Theme": "blynk Blynk BlynkLight SparkFun AppTheme CustomTheme AppExport",
    "ProvisionType": "STATIC DYNAMIC",
    "Status": "ONLINE OFFLINE",
    "ConnectionType": "ETHERNET WI_FI USB BLUETOOTH BLE GSM",
    "FontSize": "LARGE MEDIUM SMALL AUTO",
    "TextAlignment": "LEFT RIGHT MIDDLE",
    "Edge": "ROUNDED SHARP PILL TEXT",
    "ButtonStyle": "SOLID OUTLINE",
    "ImageSource": "URL ALBUM PREDEFINED",
    "ImageScaling": "NONE FILL FIT",
    "SortType": "CUSTOM DEVICE_NAME_ASC DEVICE_NAME_DESC TEMPLATE_NAME_ASC TEMPLATE_NAME_DESC STATUS_CRITICAL STATUS_OK",
    "Interaction": "BUTTON PAGE STEP",
    "GraphType": "LINE FILLED_LINE BAR BINARY",
    "Function": "MIN MAX AVG SUM MED",
    "YAxisScale": "UNSET AUTO MINMAX HEIGHT DELTA",
    "Stacking": "NO_STACKING STACK STACK_100",
    "GoalLine": "GOAL ABOVE_GOAL BELOW_GOAL",
    "LineType": "LINE DASH",
    "Granularity": "MINUTE HOURLY DAILY",
    "GraphPeriod": "LIVE FIFTEEN_MINUTES THIRTY_MINUTES ONE_HOUR THREE_HOURS SIX_HOURS TWELVE_HOURS DAY THREE_DAYS WEEK"
    " TWO_WEEKS MONTH THREE_MONTHS ALL N_DAY TWO_DAYS N_THREE_DAYS N_WEEK N_TWO_WEEKS N_MONTH N_THREE_MONTHS SIX_MONTHS"
    " ONE_YEAR",
    "Method": "POST GET PUT DELETE",
    "ContentType": "TEXT_HTML TEXT_PLAIN",
    "Priority": "normal high",
    "SetPinType": "ON OFF CUSTOM",
    "ReportOutput": "EXCEL_TAB_PER_DEVICE CSV_FILE_PER_DEVICE_PER_PIN CSV_FILE_PER_DEVICE MERGED_CSV",
    "ReportFormat": "ISO_SIMPLE ISO_INSTANT ISO_INSTANT_Z TS",
    "ReportResult": "NO_DATA ERROR OK EXPIRED",
    "ReportDuration": "CUSTOM INFINITE",
    "DayOfMonth": "FIRST LAST",
    "Property": "LABEL COLOR ON_BACK_COLOR OFF_BACK_COLOR ON_COLOR OFF_COLOR ON_LABEL OFF_LABEL LABELS MIN MAX IS_ON_PLAY"
    " URL URLS STEP VALUE_FORMATTING SUFFIX FRACTION OPACITY SCALE ROTATION",
}

# The property names of the wire, in the order of ENUMS["Property"] (spec 04 §13.1).
PROPERTY_LABELS = (
    "label color onBackColor offBackColor onColor offColor onLabel offLabel labels min max isOnPlay url urls step"
    " valueFormatting suffix maximumFractionDigits opacity scale rotation"
).split()

BOARDS = frozenset(
    "ESP8266·Arduino UNO·NodeMCU·Raspberry Pi 3 B·WeMos D1 mini·Arduino Nano·Arduino Mega·ESP32 Dev Board·WeMos D1·"
    "Generic Board·Raspberry Pi 2/A+/B+·Particle Photon·Arduino MKR1000·Arduino 101·Arduino Yun·Raspberry Pi A/B (Rev2)·"
    "Arduino Pro Mini·Arduino Leonardo·Raspberry Pi B (Rev1)·Arduino Due·SparkFun Blynk Board·Orange Pi·BBC Micro:bit·"
    "Arduino Mini·Arduino Micro·Onion Omega·Arduino Pro Micro·Particle Core·SparkFun ESP8266 Thing·STM32F103C Blue Pill·"
    "WiPy·Particle Electron·Arduino Zero·Intel Edison·Teensy 3·LinkIt ONE·NanoPi·LightBlue Bean·Intel Galileo·"
    "RedBearLab BLE Nano·RedBear Duo·TI CC3200-LaunchXL·Digistump Oak·Seeed Wio Link·TI Tiva C Connected·"
    "Samsung ARTIK 5·Microduino CoreUSB·Espruino Pico·TinyDuino·Microduino Core+·chipKIT Uno32·The AirBoard·"
    "Microduino Core·Simblee·LeMaker Banana Pro·Wildfire v2·LightBlue Bean+·SparkFun Photon RedBoard·"
    "Microduino CoreRF·RedBearLab CC3200/Mini·Bluz·LeMaker Guitar·panStamp esp-output·Digistump Digispark·"
    "RedBearLab Blend Micro·TI LM4F120 LaunchPad·Wildfire v3·Wildfire v4·Konekt Dash Pro".split("·")
)

RANGES = {"i": 1 << 31, "l": 1 << 63, "h": 1 << 15}
FIELD_ALIASES = {"reportDataStreams": "dataStreams", "pin": "dataStream"}  # older input names of the same field
MAX_NESTING = 40  # of a document; nothing the app sends comes near


class DocumentError(ValueError):
    """A document the app sent cannot be read: ILLEGAL_COMMAND_BODY."""


parsed_kinds: dict[str, tuple[tuple[str, str, str, Any], ...]] = {}


def parse_fields(words: str) -> tuple[tuple[str, str, str, Any], ...]:
    """(name, code, detail, default) per field; a later word for the same name replaces its code and default."""
    fields: dict[str, tuple[str, str, str, Any]] = {}
    for word in words.split():
        name, _, rest = word.partition(":")
        code, _, default = rest.partition("=")
        code, _, detail = code.partition(".")
        value: Any = default or None
        if code in RANGES:
            value = int(default or 0)
        elif code == "f":
            value = float(default or 0)
        elif code == "b":
            value = default == "1"
        elif code == "N":
            value = default.split(",") if default else None
        fields[name] = (name, code, detail, value)
    return tuple(fields.values())


def fields_of(kind: str) -> tuple[tuple[str, str, str, Any], ...]:
    """The fields of a kind; parsed when first asked for."""
    fields = parsed_kinds.get(kind)
    if fields is None:
        fields = parsed_kinds[kind] = parse_fields(KIND_FIELDS[kind])
    return fields


class Reader:
    """Brings documents to their own types. Strict for what an app sends (DocumentError); lenient for files, where a
    broken field falls back to its default and a broken rule is left out, so that no account is lost (spec 04 §1.2)."""

    __slots__ = ("lenient", "depth")

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.depth = 0

    def read(self, kind: str, raw: Any) -> Document:
        """The canonical document of that kind. Errors: DocumentError."""
        if not isinstance(raw, dict):
            raise DocumentError(f"{kind.lower()} is not an object")
        self.depth += 1
        try:
            if self.depth > MAX_NESTING:
                raise DocumentError("too deep")
            special = SPECIAL_KINDS.get(kind)
            return special(self, raw) if special is not None else self.fill({}, fields_of(kind), raw)
        finally:
            self.depth -= 1

    def fill(self, out: Document, fields: Iterable[tuple[str, str, str, Any]], raw: Document) -> Document:
        taken = set(out)
        for name, code, detail, default in fields:
            taken.add(name)
            value = raw.get(name, MISSING)
            alias = FIELD_ALIASES.get(name)
            if alias is not None and alias in raw:
                if code == "L" or (code == "o" and "mode" in out):
                    taken.add(alias)
                    value = raw[alias] if value is MISSING else value
            if value is MISSING:
                value = list(default) if isinstance(default, list) else default
            else:
                try:
                    value = self.convert(value, code, detail, default)
                except DocumentError:
                    if not self.lenient:
                        raise
                    value = default
            if value is not None and value != "" and value != []:
                out[name] = value
        if len(raw) > len(taken & raw.keys()):
            for name, value in raw.items():
                if name not in taken:
                    self.check_depth(value, MAX_NESTING - self.depth)
                    out[name] = value
        return out

    def check_depth(self, value: Any, left: int) -> None:
        if isinstance(value, (dict, list)):
            if left <= 0:
                raise DocumentError("too deep")
            for inner in value.values() if isinstance(value, dict) else value:
                self.check_depth(inner, left - 1)

    def convert(self, value: Any, code: str, detail: str, default: Any) -> Any:
        if value is None:
            if code in RANGES:
                return 0
            return 0.0 if code == "f" else False if code == "b" else default if code == "E" else None
        return CONVERTERS[code](self, value, code, detail)

    def integer(self, value: Any, code: str, _detail: str) -> int:
        if isinstance(value, str):
            value = self.number_in(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DocumentError(f"not a number: {str(value)[:20]}")
        if value != value or abs(value) >= 1e300:
            raise DocumentError("number out of range")
        value = int(value)
        if not -RANGES[code] <= value < RANGES[code]:
            raise DocumentError(f"number out of range: {str(value)[:30]}")
        return int(value)

    @staticmethod
    def number_in(text: str) -> Any:
        text = text.strip()
        if not text:
            return 0
        try:
            if NUMBER_CHARACTERS.issuperset(text):
                return int(text) if len(text) < 25 and text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            pass
        raise DocumentError(f"not a number: {text[:20]!r}")

    def real(self, value: Any, _code: str, _detail: str) -> float:
        if isinstance(value, str):
            value = self.number_in(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DocumentError(f"not a number: {str(value)[:20]}")
        try:
            number = float(value)
        except OverflowError:
            raise DocumentError("number out of range") from None
        if number - number != 0:  # nan or infinite
            raise DocumentError("not a finite number")
        return number

    def flag(self, value: Any, _code: str, _detail: str) -> bool:
        if isinstance(value, str):
            if value.lower() not in ("true", "false", ""):
                raise DocumentError(f"neither true nor false: {value[:20]!r}")
            return value.lower() == "true"
        if not isinstance(value, (bool, int, float)):
            raise DocumentError("neither true nor false")
        return bool(value)

    def text(self, value: Any, _code: str, _detail: str) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return repr(value)
        raise DocumentError("not a text")

    def enum(self, value: Any, _code: str, detail: str) -> str:
        names = ENUMS[detail].split()
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        if value not in names:
            raise DocumentError(f"no such {detail}: {str(value)[:30]!r}")
        return str(value)

    def board(self, value: Any, _code: str, _detail: str) -> str:
        return value if isinstance(value, str) and value in BOARDS else "Generic Board"

    def zone(self, value: Any, code: str, detail: str) -> Optional[str]:
        name = self.text(value, code, detail)
        if not name:
            return None
        if name in RENAMED_ZONES:
            return ZONE_ALIASES[name]
        if self.lenient:  # a file's zones were looked at when they came; loading zone data costs memory
            return name
        return name if find_zone(name) is not None else "UTC"

    def texts(self, value: Any, code: str, detail: str) -> list[str]:
        return [self.text(v, code, detail) for v in self.items(value) if v is not None]

    def integers(self, value: Any, _code: str, detail: str) -> list[int]:
        return [0 if v is None else self.integer(v, "i", detail) for v in self.items(value)]

    def enums(self, value: Any, code: str, detail: str) -> list[str]:
        return [self.enum(v, code, detail) for v in self.items(value) if v is not None]

    @staticmethod
    def items(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise DocumentError("not a list")
        return value

    def mapping(self, value: Any, code: str, detail: str) -> Optional[dict[str, str]]:
        if not isinstance(value, dict):
            raise DocumentError("not an object")
        return {k: self.text(v, code, detail) for k, v in value.items() if v is not None} or None

    def object(self, value: Any, _code: str, detail: str) -> Document:
        return self.read(detail, value)

    def objects(self, value: Any, _code: str, detail: str) -> list[Document]:
        out = []
        for item in self.items(value):
            if item is None:
                continue
            try:
                out.append(self.read(detail, item))
            except DocumentError as problem:
                if not self.lenient:
                    raise
                log.warning(f"left out of a file: a broken {detail.lower()}: {problem}")
        return out

    # -- kinds that carry a discriminator as their first property --------------------------------------------------------

    def tagged(self, raw: Document, tag: str, kinds: str, prefix: str = "") -> Document:
        name = raw.get(tag)
        if name not in kinds.split():
            raise DocumentError(f"no such {tag}: {str(name)[:30]!r}")
        return self.fill({tag: name}, fields_of(prefix + str(name)), raw)

    def widget(self, raw: Document) -> Document:
        name = raw.get("type")
        row = WIDGETS.get(name) if isinstance(name, str) else None
        if row is not None:
            return self.fill({"type": name}, row.field_list(), raw)
        if name is None or not isinstance(name, str) or not name:
            return self.fill({"type": "BUTTON"}, WIDGETS["BUTTON"].field_list(), {**raw, "type": "BUTTON"})
        known = [
            f for f in WIDGETS["BUTTON"].field_list() if f[0] in raw or f[0] in ("id", "x", "y", "width", "height")
        ]
        return self.fill({"type": name}, known, raw)

    def template(self, raw: Document) -> Document:
        mode = raw.get("mode")
        if mode not in ("PAGE", "BUTTON", "DIMMER"):
            mode = "PAGE"
        last = parse_fields("showDeviceName:b pin:o.STREAM")
        fields = (*fields_of("TEMPLATE"), last[0], *fields_of(mode), last[1])
        return self.fill({"mode": mode}, fields, {**raw, "mode": mode})

    def condition(self, raw: Document) -> Document:
        return self.tagged(raw, "type", "GT GTE LT LTE EQ NEQ BETWEEN NOT_BETWEEN CHANGED STR_EQUAL STR_NOT_EQUAL")

    def action(self, raw: Document) -> Document:
        return self.tagged(raw, "type", "SETPIN SET_PROP NOTIFY TWIT MAIL")

    def report_source(self, raw: Document) -> Document:
        return self.tagged(raw, "type", "DEVICE TILE_TEMPLATE", "SOURCE_")

    def report_type(self, raw: Document) -> Document:
        return self.tagged(raw, "type", "ONE_TIME DAILY WEEKLY MONTHLY")

    def user(self, raw: Document) -> Document:
        return self.fill({}, fields_of("USER"), {k: v for k, v in raw.items() if k != "id"})

    def profile(self, raw: Document) -> Document:
        out = self.fill({}, fields_of("PROFILE"), {k: v for k, v in raw.items() if k != "pinsStorage"})
        out["pinsStorage"] = read_pins_storage(raw.get("pinsStorage"))
        return out


MISSING: Any = object()
CONVERTERS: dict[str, Callable[..., Any]] = {
    "i": Reader.integer, "l": Reader.integer, "h": Reader.integer, "f": Reader.real, "b": Reader.flag, "s": Reader.text,
    "e": Reader.enum, "E": Reader.enum, "B": Reader.board, "z": Reader.zone, "S": Reader.texts, "I": Reader.integers,
    "N": Reader.enums, "M": Reader.mapping, "o": Reader.object, "L": Reader.objects,
}  # fmt: skip
SPECIAL_KINDS: dict[str, Callable[..., Document]] = {
    "WIDGET": Reader.widget, "TEMPLATE": Reader.template, "CONDITION": Reader.condition, "ACTION": Reader.action,
    "REPORT_SOURCE": Reader.report_source, "REPORT_TYPE": Reader.report_type, "USER": Reader.user,
    "PROFILE": Reader.profile,
}  # fmt: skip


def parse_json(text: str) -> Any:
    """The first JSON value of a text; what follows it is ignored (spec 04 §1.2). Errors: DocumentError."""
    try:
        value = json_decoder.raw_decode(text.lstrip())[0]
        if "\\ud" in text or "\\uD" in text:  # half a character can be spelled, but not sent: it becomes `?`
            value = json.loads(encode(to_json(value)))
        return value
    except (ValueError, RecursionError) as problem:
        raise DocumentError(f"not JSON: {str(problem)[:60]}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _short_int(digits: str) -> int:
    """Pythons before 3.11 have no limit of their own: a number of megabytes would take minutes."""
    if len(digits) > 4300:
        raise ValueError("a number of too many digits")
    return int(digits)


json_decoder = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=None if sys.version_info >= (3, 11) else _short_int
)


def read_document(kind: str, raw: Any, lenient: bool = False) -> Document:
    """A document (JSON text or parsed) brought to its own types. Errors: DocumentError; Refused(ILLEGAL_COMMAND_BODY)
    is what a handler makes of it."""
    if isinstance(raw, str):
        raw = parse_json(raw)
    return Reader(lenient).read(kind, raw)


def to_json(document: Any) -> str:
    """Compact JSON, non-ASCII raw (spec 04 §1.1)."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def copy_document(document: Any) -> Any:
    """A deep copy of JSON-like data."""
    if isinstance(document, dict):
        return {k: copy_document(v) for k, v in document.items()}
    if isinstance(document, list):
        return [copy_document(v) for v in document]
    return document


def set_or_drop(document: Document, name: str, value: Any) -> None:
    """Sets a field, or leaves it away when empty, as documents are written."""
    if value is None or value == "" or value == [] or value == {}:
        document.pop(name, None)
    else:
        document[name] = value


def take_unknown(document: Document, new: Document, *kinds: str) -> None:
    """Takes over what an update brings that the server knows nothing of: fields that none of the kinds has."""
    known = {field[0] for kind in kinds for field in fields_of(kind)} | PRIVATE_PROJECT
    for name in new:
        if name not in known:
            document[name] = new[name]


def templates_of(widget: Document) -> list[Document]:
    """The templates of a tiles widget; in any other, a field of that name is the app's own business."""
    return widget.get("templates", []) if widget["type"] == "DEVICE_TILES" else []


# -- views (spec 04 §2) ------------------------------------------------------------------------------------------------

PRIVATE_DEVICE = frozenset(
    "token status disconnectTime connectTime firstConnectTime dataReceivedAt lastLoggedIP hardwareInfo deviceOtaInfo".split()
)
PRIVATE_PROJECT = frozenset(("sharedToken", "pinsStorage"))
PRIVATE_WIDGET = {
    "TWITTER": frozenset(("token", "secret", "username")),
    "NOTIFICATION": frozenset(("androidTokens", "iOSTokens")),
}


def public_widget(widget: Document, hidden: dict[str, frozenset[str]] = PRIVATE_WIDGET) -> Document:
    """A copy without what is private."""
    private: Any = hidden.get(widget["type"], ())
    out: Document = {}
    for name, value in widget.items():
        if name == "templates" and templates_of(widget):
            out[name] = [
                {
                    k: [public_widget(w, hidden) for w in v] if k == "widgets" else copy_document(v)
                    for k, v in template.items()
                }
                for template in value
            ]
        elif name not in private:
            out[name] = copy_document(value)
    return out


def public_view(project: Document, hidden: dict[str, frozenset[str]] = PRIVATE_WIDGET) -> Document:
    """A copy of a project as guests and clones see it."""
    out: Document = {}
    for name, value in project.items():
        if name in PRIVATE_PROJECT:
            continue
        if name == "devices":
            out[name] = [{k: copy_document(v) for k, v in d.items() if k not in PRIVATE_DEVICE} for d in value]
        elif name == "widgets":
            out[name] = [public_widget(w, hidden) for w in value]
        else:
            out[name] = copy_document(value)
    return out


def http_view(project: Document, push_tokens: bool) -> Document:
    """A copy of a project for `GET /{token}/project`."""
    return public_view(project, {"TWITTER": PRIVATE_WIDGET["TWITTER"]} if push_tokens else PRIVATE_WIDGET)


STATUS_FIELDS = (
    "id name boardType token vendor connectionType status disconnectTime connectTime dataReceivedAt hardwareInfo iconName"
    " isUserIcon"
).split()


def device_json(device: Document) -> str:
    """A whole device, its fields in their order; a client may compare texts (spec 04 §1.1)."""
    names = [field[0] for field in fields_of("DEVICE") if field[0] in device]
    return to_json({name: device[name] for name in (*names, *device)})


def device_status(device: Document) -> Document:
    """One element of GET_DEVICES (spec 04 §6.3)."""
    return {k: device[k] for k in STATUS_FIELDS if k in device}


# -- pin storage (spec 04 §10) -----------------------------------------------------------------------------------------


def split_storage_key(key: str) -> Optional[tuple[int, int, str, int, str]]:
    """`1-0-v24-label` → (1, 0, "v", 24, "label"); None when malformed."""
    first = key.find("-", 1)  # an id may be negative
    second = key.find("-", first + 2)
    if not 0 < first < second:
        return None
    pin_text, _, name = key[second + 1 :].partition("-")
    letter = pin_text[:1].lower()
    try:
        if letter in PIN_TYPES:
            return parse_int(key[:first]), parse_int(key[first + 1 : second]), letter, parse_pin(pin_text[1:]), name
    except ValueError:
        pass
    return None


def read_pins_storage(raw: Any) -> Document:
    """The usable entries, under canonical keys; the rest is left out with a log line."""
    out: Document = {}
    for key, value in raw.items() if isinstance(raw, dict) else ():
        parts = split_storage_key(key)
        if parts is not None and isinstance(value, dict) and value.get("type") in ("LCD", "TERMINAL", "TABLE"):
            values = value.get("values")
            texts = [str(v) for v in values if v is not None] if isinstance(values, list) else []
            value = {"type": value["type"], "values": texts}
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = repr(value)
        elif not isinstance(value, str):
            parts = None
        if parts is None:
            log.warning(f"left out of a file: stored pin {key[:60]!r}")
            continue
        dash, device, letter, pin, name = parts
        if name and name not in PROPERTY_LABELS:
            name = "label"
        out[f"{dash}-{device}-{letter}{pin}" + (f"-{name}" if name else "")] = value
    return out


def written_storage(storage: Document) -> Document:
    """pinsStorage as it is written: an empty queue has no `values`."""
    return {k: {"type": v["type"]} if isinstance(v, dict) and not v["values"] else v for k, v in storage.items()}


# -- 5b Widgets: what the types do differently, as data (spec 04 §11–14) -----------------------------------------------
# One row a type. A new widget type is a new row; a column says which function below serves it.

BASE_FIELDS = "id:l x:i y:i color:i width:i height:i tabId:i label:s isDefaultColor:b"
SINGLE_PIN_FIELDS = (
    BASE_FIELDS + " deviceId:i pinType:e.PinType pin:h=-1 pwmMode:b rangeMappingOn:b min:f max:f value:s"
)


class WidgetType:
    """base: S one pin, R one pin that can be polled, M several pins, N none. mode: the word in `pm`. accept, app_sync,
    hw_sync: which behaviour serves an incoming value, an app's sync, a board's sync. own_letter: pwmMode does not turn
    the pin into an analog one. properties: names beyond label, color and, with one pin, min and max."""

    __slots__ = (
        "name", "base", "price", "mode", "accept", "hw_sync", "app_sync", "own_letter", "properties", "words", "fields",
    )  # fmt: skip

    def __init__(
        self, name: str, base: str, price: int, mode: str, words: str = "", *, accept: str = "", hw_sync: str = "",
        app_sync: str = "", own_letter: bool = False, properties: str = "",
    ) -> None:  # fmt: skip
        plain = {"S": "value", "R": "value", "M": "streams", "N": "-"}[base]
        self.name, self.base, self.price, self.mode, self.words = name, base, price, mode, words
        self.accept, self.hw_sync, self.app_sync = accept or plain, hw_sync or plain, app_sync or plain
        self.own_letter = own_letter
        self.properties = properties.split()
        self.fields: Optional[tuple[tuple[str, str, str, Any], ...]] = None

    def field_list(self) -> tuple[tuple[str, str, str, Any], ...]:
        if self.fields is None:
            if self.base in "SR":
                words = f"{SINGLE_PIN_FIELDS} {'frequency:i ' if self.base == 'R' else ''}{self.words}"
            elif self.base == "M":
                words = f"{BASE_FIELDS} deviceId:i {self.words} pins:L.STREAM"
            else:
                words = f"{BASE_FIELDS} {self.words}"
            self.fields = parse_fields(words)
        return self.fields


FONT = "fontSize:e.FontSize"
STATES = f"onButtonState:o.BUTTON_STATE offButtonState:o.BUTTON_STATE {FONT} edge:e.Edge buttonStyle:e.ButtonStyle lockSize:b"
STEP_FIELDS = "step:f isArrowsOn:b isLoopOn:b isSendStep:b frequency:i showValueOn:b=1"
LEVEL_FIELDS = "isAxisFlipOn:b showValueOn:b=1"
SLIDER_FIELDS = "sendOnReleaseOn:b frequency:i maximumFractionDigits:i showValueOn:b=1"
ON_OFF = "onLabel offLabel"

WIDGETS: dict[str, WidgetType] = {
    row.name: row
    for row in (
        # controllers
        WidgetType("BUTTON", "S", 200, "out", f"pushMode:b onLabel:s offLabel:s {FONT}", own_letter=True, properties=ON_OFF),
        WidgetType("STYLED_BUTTON", "S", 300, "out", f"pushMode:b {STATES}", own_letter=True,
                   properties=f"{ON_OFF} onColor offColor onBackColor offBackColor"),
        WidgetType("LINK_BUTTON", "N", 500, "", f"url:s {STATES} showAddressBar:b showNavigationBar:b allowInBrowser:b"),
        WidgetType("TEXT_INPUT", "S", 400, "out", f"hint:s limit:i {FONT}"),
        WidgetType("NUMBER_INPUT", "S", 400, "out", f"suffix:s step:f isLoopOn:b {FONT}", properties="suffix"),
        WidgetType("SLIDER", "S", 200, "out", SLIDER_FIELDS, properties="maximumFractionDigits"),
        WidgetType("VERTICAL_SLIDER", "S", 200, "out", SLIDER_FIELDS, properties="maximumFractionDigits"),
        WidgetType("RGB", "M", 400, "out", "splitMode:b sendOnReleaseOn:b frequency:i"),
        WidgetType("TIMER", "S", 200, "out", f"startTime:i=-1 startValue:s stopTime:i=-1 stopValue:s {FONT}"),
        WidgetType("TWO_AXIS_JOYSTICK", "M", 400, "out", "split:b autoReturnOn:b portraitLocked:b frequency:i"),
        WidgetType("TERMINAL", "S", 200, "", "autoScrollOn:b terminalInputOn:b textLightOn:b attachNewLine:b",
                   accept="terminal", hw_sync="last", app_sync="terminal"),
        WidgetType("STEP", "S", 500, "out", STEP_FIELDS, properties="step"),
        WidgetType("VERTICAL_STEP", "S", 500, "out", STEP_FIELDS, properties="step"),
        WidgetType("QR", "S", 200, "out"),
        WidgetType("TIME_INPUT", "S", 200, "out", "format:s days:I startAt:i=-1 stopAt:i=-1 tzName:z isStartStopAllowed:b"
                   " isDayOfWeekAllowed:b isSunsetSunriseAllowed:b isTimezoneAllowed:b", accept="time_input"),
        WidgetType("SEGMENTED_CONTROL", "S", 400, "out", f"labels:S {FONT}", properties="labels"),
        WidgetType("SWITCH", "S", 200, "out", "onLabel:s offLabel:s offBackgroundColor:i onBackgroundColor:i handleColor:i"
                   f" {FONT}", own_letter=True, properties=ON_OFF),
        # displays
        WidgetType("LED", "S", 100, "in"),
        WidgetType("DIGIT4_DISPLAY", "R", 200, "in", FONT),
        WidgetType("LABELED_VALUE_DISPLAY", "R", 400, "in", f"textAlignment:e.TextAlignment valueFormatting:s {FONT}",
                   properties="valueFormatting"),
        WidgetType("GAUGE", "R", 300, "in", f"valueFormatting:s {FONT}", properties="valueFormatting"),
        WidgetType("LCD", "M", 400, "in", "advancedMode:b textFormatLine1:s textFormatLine2:s textLight:b frequency:i",
                   accept="lcd", hw_sync="-", app_sync="lcd"),
        WidgetType("LEVEL_DISPLAY", "R", 200, "in", LEVEL_FIELDS),
        WidgetType("VERTICAL_LEVEL_DISPLAY", "R", 200, "in", LEVEL_FIELDS),
        WidgetType("VIDEO", "S", 500, "", "url:s forceTCP:b", hw_sync="-", app_sync="-", properties="url"),
        WidgetType("ENHANCED_GRAPH", "N", 900, "", "dataStreams:L.GRAPH_STREAM period:e.GraphPeriod"
                   f" textAlignment:e.TextAlignment {FONT} stacking:e.Stacking showTitle:b showLegend:b yAxisValues:b"
                   " xAxisValues:b showXAxis:b allowFullScreen:b overrideYAxis:b hideGradient:b yAxisMin:f yAxisMax:f"
                   " isPercentMaxMin:b goalText:s goalLine:e.GoalLine lineType:e.LineType"
                   " selectedPeriods:N.GraphPeriod=LIVE,ONE_HOUR,SIX_HOURS,N_DAY,N_WEEK,N_MONTH,N_THREE_MONTHS"),
        WidgetType("MAP", "S", 600, "in", "isPinToLatestPoint:b isMyLocationSupported:b isSatelliteMode:b labelFormat:s"
                   " radius:i lat:f lon:f", accept="map", hw_sync="-", app_sync="map"),
        # sensors of the phone
        WidgetType("GPS_TRIGGER", "S", 500, "out", "triggerOnEnter:b triggerLat:f triggerLon:f triggerRadius:i accuracy:i",
                   hw_sync="-"),
        WidgetType("GPS_STREAMING", "S", 500, "out", "accuracy:i frequency:i interval:l", hw_sync="-"),
        WidgetType("ACCELEROMETER", "S", 400, "out", "frequency:i", hw_sync="-"),
        WidgetType("LIGHT", "S", 300, "out", "frequency:i", hw_sync="-"),
        WidgetType("PROXIMITY", "S", 300, "out", "frequency:i", hw_sync="-"),
        WidgetType("GRAVITY", "S", 300, "out", "frequency:i", hw_sync="-"),
        WidgetType("BAROMETER", "S", 300, "out", "frequency:i", hw_sync="-"),
        WidgetType("HUMIDITY", "S", 300, "out", "frequency:i", hw_sync="-"),
        WidgetType("TEMPERATURE", "S", 300, "out", "isCelsius:b frequency:i", hw_sync="-"),
        # notifications
        WidgetType("TWITTER", "N", 0, "", "token:s secret:s username:s"),
        WidgetType("EMAIL", "N", 100, "", "to:s contentType:e.ContentType=TEXT_HTML"),
        WidgetType("NOTIFICATION", "N", 400, "", "androidTokens:M iOSTokens:M notifyWhenOffline:b"
                   " notifyWhenOfflineIgnorePeriod:i priority:e.Priority=normal soundUri:s"),
        WidgetType("SMS", "N", 100, "", "to:s"),
        # interface, other
        WidgetType("MENU", "S", 400, "out", f"labels:S hint:s alignment:e.TextAlignment {FONT} iconColor:i",
                   properties="labels"),
        WidgetType("TABS", "N", 0, "", "tabs:L.TAB activeTxtColor:i underlineColor:i textColor:i tabId:i=-1"),
        WidgetType("PLAYER", "S", 400, "out", "isOnPlay:b", accept="player", properties="isOnPlay"),
        WidgetType("TABLE", "S", 800, "out", "columns:L.COLUMN rows:L.ROW currentRowIndex:i isReoderingAllowed:b"
                   " isClickableRows:b", accept="table", hw_sync="-", app_sync="table"),
        WidgetType("IMAGE", "S", 600, "in", "source:e.ImageSource scaling:e.ImageScaling urls:S opacity:i scale:i rotation:i",
                   properties="url urls opacity scale rotation"),
        WidgetType("REPORT", "N", 0, "", f"reportSources:L.REPORT_SOURCE allowEndUserToDeleteDataOn:b {FONT}=MEDIUM"
                   " edge:e.Edge=ROUNDED buttonStyle:e.ButtonStyle=SOLID textColor:i reports:L.REPORT"),
        WidgetType("RTC", "N", 100, "", "tzName:z"),
        WidgetType("BRIDGE", "N", 100, ""),
        WidgetType("BLUETOOTH", "N", 0, "", "name:s deviceId:i"),
        WidgetType("BLUETOOTH_SERIAL", "N", 0, "", "name:s deviceId:i"),
        WidgetType("EVENTOR", "N", 500, "", "rules:L.RULE deviceId:i width:i=2 height:i=1"),
        WidgetType("DEVICE_SELECTOR", "N", 1900, "", f"value:i deviceIds:I {FONT} iconColor:i showIcon:b hint:s"),
        WidgetType("DEVICE_TILES", "N", 1700, "", "templates:L.TEMPLATE tiles:L.TILE rows:i columns:i sortType:e.SortType"
                   " alignment:e.TextAlignment=LEFT disableWhenOffline:b stretchToBottom:b", accept="tiles",
                   hw_sync="tiles", app_sync="tiles"),
        WidgetType("TEXT", "N", 100, "", "textSize:e.FontSize=AUTO alignment:e.TextAlignment text:s"),
        WidgetType("WEBHOOK", "S", 500, "", "url:s method:e.Method=GET headers:L.HEADER body:s", accept="-", hw_sync="-",
                   app_sync="-"),
    )
}  # fmt: skip
UNKNOWN_WIDGET = WIDGETS["BUTTON"]  # behaviour and price of a type nobody knows; its document stays as it came
MULTI_VALUE = {"TERMINAL": "TERMINAL", "LCD": "LCD", "TABLE": "TABLE"}  # widgets whose stored values queue up
READING_WIDGETS = frozenset(("DIGIT4_DISPLAY", "LABELED_VALUE_DISPLAY", "GAUGE", "LEVEL_DISPLAY",
                             "VERTICAL_LEVEL_DISPLAY", "LCD"))  # fmt: skip
REPORT_PRICE = 2900


def widget_type(widget: Document) -> WidgetType:
    return WIDGETS.get(widget["type"], UNKNOWN_WIDGET)


def widget_price(widget: Document) -> int:
    """Energy of a widget, with the widgets in its templates and the reports in it (spec 03a §8)."""
    price = widget_type(widget).price
    if widget["type"] == "REPORT":
        price += REPORT_PRICE * len(widget.get("reports", ()))
    for template in templates_of(widget):
        price += sum(widget_price(w) for w in template.get("widgets", ()))
    return price


# -- matching (spec 02 §15.1, 04 §9.2) ---------------------------------------------------------------------------------


def stream_matches(stream: Document, letter: str, pin: int) -> bool:
    return stream.get("pin", -1) == pin and (
        LETTERS.get(stream.get("pinType", "")) == letter or bool(stream.get("pwmMode")) and letter == "a"
    )


def one_pin_matches(widget: Document, device_id: int, letter: str, pin: int) -> bool:
    if widget.get("pin", -1) != pin or widget.get("deviceId", 0) != device_id:
        return False
    own = LETTERS.get(widget.get("pinType", ""))
    return own == letter or bool(widget.get("pwmMode")) and letter == "a" or letter == "d" and own == "a"


def matching_tile(widget: Document, device_id: int, letter: str, pin: int) -> Optional[Document]:
    for tile in widget.get("tiles", ()):
        if tile["deviceId"] == device_id and stream_matches(tile.get("pin", {}), letter, pin):
            return tile  # type: ignore[no-any-return]
    return None


def widget_matches(widget: Document, device_id: int, letter: str, pin: int) -> bool:
    """Whether a value of that pin concerns the widget; webhooks never (spec 02 §15.1)."""
    row = widget_type(widget)
    if row.accept == "-":
        return False
    if row.base == "M":
        return widget.get("deviceId", 0) == device_id and any(
            stream_matches(s, letter, pin) for s in widget.get("pins", ())
        )
    if row.accept == "tiles":
        return matching_tile(widget, device_id, letter, pin) is not None
    return row.base in "SR" and one_pin_matches(widget, device_id, letter, pin)


# -- what an incoming value does (spec 02 §15.2) -----------------------------------------------------------------------
# accept(project, widget, value): for the types that do more than keep the value. Errors: ValueError, nothing changed.


def accept_terminal(project: Project, widget: Document, value: str) -> None:
    lines = project.history_of(widget, project.pools["TERMINAL"])
    if value == "clr":
        lines.clear()
    else:
        lines.append(value)


def accept_map(project: Project, widget: Document, value: str) -> None:
    points = project.history_of(widget, project.pools["MAP"])
    if value == "clr":
        points.clear()
        widget.pop("value", None)
    else:
        points.append(value)
        widget["value"] = value


def accept_lcd(project: Project, widget: Document, value: str) -> None:
    project.history_of(widget, project.pools["LCD"]).append(value)


def accept_player(project: Project, widget: Document, value: str) -> None:
    widget["value"] = value
    if value in ("play", "stop"):
        widget["isOnPlay"] = value == "play"


TABLE_COMMANDS = {"clr": 1, "add": 4, "update": 4, "pick": 2, "select": 2, "deselect": 2}  # with the parts they need


def accept_table(project: Project, widget: Document, value: str) -> None:
    parts = full_split(value)
    command = parts[0] if parts else ""
    if command in TABLE_COMMANDS and len(parts) >= TABLE_COMMANDS[command]:
        number = 0 if command == "clr" else parse_int(parts[1])
        rows = widget.get("rows", [])
        row = next((r for r in rows if r["id"] == number), None)
        if command == "clr":
            rows, widget["currentRowIndex"] = [], 0
        elif command == "pick":
            widget["currentRowIndex"] = number
        elif command in ("select", "deselect"):
            if row is not None:
                row["isSelected"] = command == "select"
        elif row is not None:
            row["name"], row["value"] = parts[2], parts[3]
        elif command == "add":
            rows = [*rows, {"id": number, "name": parts[2], "value": parts[3], "isSelected": True}]
            del rows[: -project.pools["TABLE"]]
        set_or_drop(widget, "rows", rows)
    widget["value"] = value


def time_of_day(text: str) -> int:
    """Seconds, or -1 for none, -2 for sunset, -3 for sunrise (spec 04 §14.10)."""
    return {"": -1, "ss": -2, "sr": -3}.get(text) or parse_int(text)


def accept_time_input(project: Project, widget: Document, value: str) -> None:
    parts = full_split(value)
    if len(parts) >= 3:
        start, stop = time_of_day(parts[0]), time_of_day(parts[1])
        days = [parse_int(d) for d in parts[3].split(",")] if parts[3:] and parts[3] else None
        widget["startAt"], widget["stopAt"] = start, stop
        name = parts[2]
        widget["tzName"] = ZONE_ALIASES[name] if name in RENAMED_ZONES else name if name and find_zone(name) else "UTC"
        set_or_drop(widget, "days", days)
    widget["value"] = value


ACCEPT: dict[str, Callable[[Project, Document, str], None]] = {
    "terminal": accept_terminal, "map": accept_map, "lcd": accept_lcd, "player": accept_player, "table": accept_table,
    "time_input": accept_time_input,
}  # fmt: skip


# -- what a sync sends (spec 02 §15.3, 03a §5.6) -----------------------------------------------------------------------


def value_body(letter: str, pin: int, value: str) -> str:
    return f"{letter}w\0{pin}\0{value}"


def has_pin(stream: Document) -> bool:
    return stream.get("pin", -1) != -1 and "pinType" in stream


def stream_body(stream: Document, own_letter: bool = False) -> Optional[str]:
    """`vw\\0pin\\0value` of a stream or one-pin widget, None without pin or value."""
    value = stream.get("value")
    if value is None or not has_pin(stream):
        return None
    letter = "a" if stream.get("pwmMode") and not own_letter else LETTERS[stream["pinType"]]
    return value_body(letter, stream["pin"], value)


def is_split(widget: Document) -> bool:
    """Whether a widget with several pins keeps a value for each of them."""
    if widget["type"] == "LCD":
        return not widget.get("advancedMode")
    return bool(widget.get("splitMode") or widget.get("split"))


def sync_value(project: Project, widget: Document, _device_id: int) -> list[str]:
    body = stream_body(widget, widget_type(widget).own_letter)
    return [] if body is None else [body]


def sync_streams(project: Project, widget: Document, _device_id: int) -> list[str]:
    streams = widget.get("pins", [])
    bodies = (stream_body(s) for s in (streams if is_split(widget) else streams[:1]))
    return [body for body in bodies if body is not None]


def sync_lines(project: Project, widget: Document) -> list[str]:
    """A body for each line in memory, oldest first."""
    bodies = (stream_body({**widget, "value": line}) for line in project.history_of(widget))
    return [body for body in bodies if body is not None]


def sync_last(project: Project, widget: Document, _device_id: int) -> list[str]:
    return sync_lines(project, widget)[-1:]


def sync_tiles(project: Project, widget: Document, device_id: int) -> list[str]:
    bodies = (stream_body(t.get("pin", {})) for t in widget.get("tiles", ()) if t["deviceId"] == device_id)
    return [body for body in bodies if body is not None]


def sync_terminal(project: Project, widget: Document, _device_id: int) -> list[str]:
    lines = project.history_of(widget)
    return (
        ["\0".join((f"{LETTERS[widget['pinType']]}m", str(widget["pin"]), *lines))] if lines and has_pin(widget) else []
    )


def sync_map(project: Project, widget: Document, _device_id: int) -> list[str]:
    return sync_lines(project, widget)


def sync_lcd(project: Project, widget: Document, device_id: int) -> list[str]:
    streams = widget.get("pins", [])
    if is_split(widget):
        return sync_streams(project, widget, device_id)
    if not streams or not has_pin(streams[0]):
        return []
    bodies = (stream_body({**streams[0], "value": line}) for line in project.history_of(widget))
    return [body for body in bodies if body is not None]


def sync_table(project: Project, widget: Document, _device_id: int) -> list[str]:
    rows = widget.get("rows", ())
    if not rows or not has_pin(widget):
        return []
    parts = [f"{LETTERS[widget['pinType']]}m", str(widget["pin"])]
    for row in rows:
        parts += [
            "add", str(row["id"]), row.get("name", "null"), row.get("value", "null"),
            "true" if row.get("isSelected") else "false",
        ]  # fmt: skip
    return ["\0".join(parts)]


SYNC: dict[str, Callable[[Project, Document, int], list[str]]] = {
    "value": sync_value, "streams": sync_streams, "last": sync_last, "tiles": sync_tiles, "terminal": sync_terminal,
    "map": sync_map, "lcd": sync_lcd, "table": sync_table,
}  # fmt: skip
NO_SELECTOR_SYNC = frozenset(("value", "lcd"))  # such a widget on a device selector has its values in the pin storage


def hardware_sync(project: Project, widget: Document, device_id: int) -> list[str]:
    """The bodies a widget answers a board's sync with (spec 02 §15.3)."""
    row = widget_type(widget)
    serve = SYNC.get(row.hw_sync)
    if serve is None or (row.hw_sync != "tiles" and widget.get("deviceId", 0) != device_id):
        return []
    return serve(project, widget, device_id)


def app_sync(project: Project, widget: Document, target: int) -> list[tuple[int, str]]:
    """(device or target id, body) pairs a widget answers an app's sync with; target -1 is any (spec 03a §5.6)."""
    row = widget_type(widget)
    serve = SYNC.get(row.app_sync)
    if serve is None:
        return []
    if row.app_sync == "tiles":
        tiles = [t for t in widget.get("tiles", ()) if target in (-1, t["deviceId"])]
        bodies = ((t["deviceId"], stream_body(t.get("pin", {}))) for t in tiles)
        return [(device_id, body) for device_id, body in bodies if body is not None]
    device_id = widget.get("deviceId", 0)
    if target not in (-1, device_id) or (device_id >= FIRST_SELECTOR_ID and row.app_sync in NO_SELECTOR_SYNC):
        return []
    return [(device_id, body) for body in serve(project, widget, device_id)]


def pin_modes(project: Project, device_id: int) -> str:
    """The `pm` body for a device, "" when it has no physical pins (spec 02 §13.1)."""
    parts: list[str] = []

    def add(stream: Document, mode: str) -> None:
        if stream.get("pin", -1) != -1 and stream.get("pinType", "VIRTUAL") != "VIRTUAL":
            parts.extend((str(stream["pin"]), mode))

    for widget in project.widgets:
        if widget.get("deviceId", 0) != device_id:
            continue
        row = widget_type(widget)
        if widget["type"] == "EVENTOR":
            for action in (a for rule in widget.get("rules", ()) for a in rule.get("actions", ())):
                if action["type"] == "SETPIN":
                    add(action.get("pin", {}), "out")
        elif row.mode:
            for stream in widget.get("pins", ()) if row.base == "M" else (widget,):
                add(stream, row.mode)
    return "\0".join(("pm", *parts)) if parts else ""


# -- properties (spec 02 §15.4, 04 §13) --------------------------------------------------------------------------------


def parse_color(text: str) -> int:
    """`#RRGGBB`, `0xRRGGBB`, octal or decimal → signed 32-bit RGBA. Errors: ValueError."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    base = 10
    if digits[:1] == "#":
        digits, base = digits[1:], 16
    elif digits[:2] in ("0x", "0X"):
        digits, base = digits[2:], 16
    elif digits[:1] == "0" and len(digits) > 1:
        digits, base = digits[1:], 8
    if not (digits.isascii() and digits.isalnum()) or len(digits) > 20:
        raise ValueError(f"not a colour: {text[:20]!r}")
    number = int(digits, base) * (-1 if text[:1] == "-" else 1)
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"colour out of range: {text[:20]!r}")
    rgba = ((number & 0xFFFFFF) << 8) | 0xFF
    return rgba - (1 << 32) if rgba >= 1 << 31 else rgba


def parse_float(text: str) -> float:
    """A finite decimal number. Errors: ValueError."""
    number = float(text) if NUMBER_CHARACTERS.issuperset(text) else float("nan")
    if number - number != 0:
        raise ValueError(f"not a number: {text[:20]!r}")
    return number


STATE_PROPERTIES = {
    "onLabel": ("onButtonState", "text"), "offLabel": ("offButtonState", "text"),
    "onColor": ("onButtonState", "textColor"), "offColor": ("offButtonState", "textColor"),
    "onBackColor": ("onButtonState", "backgroundColor"), "offBackColor": ("offButtonState", "backgroundColor"),
}  # fmt: skip
PROPERTY_PARSERS: dict[str, Callable[[str], Any]] = {
    "color": parse_color, "onColor": parse_color, "offColor": parse_color, "onBackColor": parse_color,
    "offBackColor": parse_color, "min": parse_float, "max": parse_float, "step": parse_float,
    "maximumFractionDigits": parse_int, "opacity": parse_int, "scale": parse_int, "rotation": parse_int,
    "labels": full_split, "urls": full_split, "isOnPlay": lambda text: text.lower() == "true",
}  # fmt: skip


def supports_property(widget: Document, name: str) -> bool:
    row = widget_type(widget)
    return name in ("label", "color") or (name in ("min", "max") and row.base in "SR") or name in row.properties


def property_value(widget: Document, name: str, text: str) -> Any:
    """(what holds it, its key, the value) of a property; None when the type does not take it, () when it takes it and
    has nowhere to put it. Errors: ValueError."""
    if not supports_property(widget, name):
        return None
    if widget["type"] == "IMAGE" and name == "url":
        return image_url(widget, text)
    if widget["type"] == "STYLED_BUTTON" and name in STATE_PROPERTIES:
        state, field = STATE_PROPERTIES[name]
        return (widget[state], field, PROPERTY_PARSERS.get(name, str)(text)) if state in widget else ()
    return widget, name, PROPERTY_PARSERS.get(name, str)(text)


def image_url(widget: Document, text: str) -> Any:
    """`index\\0url`, counted from 1, within the existing urls."""
    index, nul, url = text.partition("\0")
    urls = widget.get("urls", [])
    at = parse_int(index) - 1 if nul else -1
    return (urls, at, url) if 0 <= at < len(urls) else None


def set_widget_property(widget: Document, name: str, text: str) -> bool:
    """Sets a property; False when the type does not take it. Errors: ValueError, nothing changed."""
    place = property_value(widget, name, text)
    if place is None:
        return False
    if place:
        holder, key, value = place
        if isinstance(holder, list):
            holder[key] = value
        else:
            set_or_drop(holder, key, value)
        if name == "color":
            widget["isDefaultColor"] = False
    return True


# -- erase and carry over (spec 04 §17) --------------------------------------------------------------------------------

ERASED = {
    "EMAIL": (("to", None),),
    "TIMER": (("startValue", None), ("stopValue", None), ("startTime", -1), ("stopTime", -1)),
    "TIME_INPUT": (("tzName", None),),
    "TABLE": (("rows", None),),
    "DEVICE_TILES": (("tiles", None),),
    "REPORT": (("reports", None),),
}


def erase_widget(widget: Document, project: Optional[Project] = None) -> None:
    """Forgets what a widget has been told (spec 04 §17.2)."""
    row = widget_type(widget)
    if row.base in "SR":
        widget.pop("value", None)
    for stream in widget.get("pins", ()) if row.base == "M" else ():
        stream.pop("value", None)
    for name, value in ERASED.get(widget["type"], ()):
        if name in widget or value is not None:
            set_or_drop(widget, name, value)
    if widget["type"] == "TERMINAL" and project is not None:
        project.history_of(widget).clear()
    for template in templates_of(widget):
        template.get("pin", {}).pop("value", None)
        template.pop("deviceIds", None)
        for inner in template.get("widgets", ()):
            erase_widget(inner, project)


def erase_device(device: Document) -> None:
    """Forgets token, times and what the board said of itself (spec 04 §6.1)."""
    for name in ("token", "lastLoggedIP", "hardwareInfo", "deviceOtaInfo"):
        device.pop(name, None)
    for name in ("disconnectTime", "connectTime", "firstConnectTime", "dataReceivedAt"):
        device[name] = 0
    device["status"] = "OFFLINE"


def same_pin(old: Document, new: Document) -> bool:
    """Whether a one-pin widget takes values of the stored one's pin; also when both have no pin at all."""
    if not has_pin(old):
        return old.get("deviceId", 0) == new.get("deviceId", 0) and not has_pin(new)
    return one_pin_matches(new, old.get("deviceId", 0), LETTERS[old["pinType"]], old["pin"])


def carry_over(old: Document, new: Document) -> None:
    """What a changed widget keeps of the stored one (spec 03b §3.2, 04 §17.3)."""
    kind, row = new["type"], widget_type(new)
    if kind == "NOTIFICATION":
        for name in ("androidTokens", "iOSTokens"):
            set_or_drop(new, name, {**new.get(name, {}), **old.get(name, {})})
    elif kind in KEPT_FIELDS:
        for name in KEPT_FIELDS[kind]:
            set_or_drop(new, name, old.get(name))
    elif row.base in "SR" and kind not in ("TIMER", "TIME_INPUT"):
        if same_pin(old, new):
            for name in ("value", "rows", "currentRowIndex") if kind == "TABLE" else ("value",):
                if name in old:
                    new[name] = old[name]
    elif row.base == "M" and old.get("deviceId", 0) == new.get("deviceId", 0):
        for was in old.get("pins", ()):
            for stream in new.get("pins", ()) if has_pin(was) else ():
                if stream_matches(stream, LETTERS[was["pinType"]], was["pin"]):
                    set_or_drop(stream, "value", was.get("value"))


KEPT_FIELDS = {"DEVICE_TILES": ("tiles", "templates"), "REPORT": ("reports",)}


# -- 5c Accounts, projects, devices, routes ----------------------------------------------------------------------------


def _nothing(*_args: Any) -> None:
    return None


class Ledger:
    """What has changed since it was last written; the store empties it. Also the hooks by which the model asks rooms
    below about a pin (set by the server, so that the model needs to know none of them)."""

    __slots__ = (
        "loop", "pools", "unsettled", "structural", "touched", "routes", "operations", "wake", "series_for", "watches",
        "record_raw", "project_changed", "raw_on", "presence",
    )  # fmt: skip

    def __init__(self, loop: Loop, pools: dict[str, int]) -> None:
        self.loop, self.pools = loop, pools
        self.unsettled: list[Route] = []  # values received, not yet in the documents
        self.structural: set[Account] = set()  # to be saved within a second
        self.touched: set[Account] = (
            set()
        )  # values changed: saved at the next minute, the journal covers them till then
        self.presence: set[Account] = set()  # only times and states of devices changed: saved at the stop
        self.routes: list[Route] = []  # whose last value goes to the journal
        self.operations: list[list[Any]] = []  # journal records that must not be merged
        self.wake: Callable[[], object] = _nothing  # the store: something has to be written
        self.series_for: Callable[[Project, int, str, int], Any] = _nothing
        self.watches: Callable[[Project, int, str, int], Any] = _nothing
        self.record_raw: Callable[..., object] = _nothing
        self.project_changed: Callable[[Project], object] = _nothing
        self.raw_on = False

    def settle(self) -> None:
        """Puts received values into the documents. Whoever reads or changes documents calls this first; the loop does
        at the end of each turn."""
        routes, self.unsettled = self.unsettled, []
        now_ms = self.loop.now_ms
        for route in routes:
            route.waiting = False
            device = route.device
            assert device is not None
            device.document["dataReceivedAt"] = now_ms
            route.set(route.pending.decode("utf-8", "replace"), now_ms)


class Route:
    """Where the values of one pin of one target go: found once, kept until the project changes (DESIGN §4).

    cells are (dict, key) pairs that hold the last value; specials are (accept, widget) pairs for the types that do more.
    plain: nothing but cells, so that of many values in one read only the last has to be looked at.
    """

    __slots__ = (
        "project", "device", "target", "letter", "pin", "cells", "specials", "queue", "series", "watched", "plain",
        "pending", "waiting", "value", "journaled",
    )  # fmt: skip

    def __init__(self, project: Project, target: int, letter: str, pin: int) -> None:
        self.project, self.target, self.letter, self.pin = project, target, letter, pin
        self.device = project.devices.get(target)
        self.cells: list[tuple[Document, str]] = []
        self.specials: list[tuple[Callable[[Project, Document, str], None], Document]] = []
        self.queue: Optional[Document] = None
        self.pending, self.value = b"", ""
        self.waiting = self.journaled = False
        for widget in project.widgets:
            if widget_matches(widget, target, letter, pin):
                self._bind(widget)
        if not self.cells and not self.specials:
            self._bind_storage()
        ledger = project.account.ledger
        self.series = ledger.series_for(project, target, letter, pin) if self.device is not None else None
        self.watched = bool(ledger.watches(project, target, letter, pin))
        self.plain = not (self.specials or self.queue or self.series or self.watched or ledger.raw_on)

    def _bind(self, widget: Document) -> None:
        row = widget_type(widget)
        if row.accept == "tiles":
            tile = matching_tile(widget, self.target, self.letter, self.pin)
            assert tile is not None
            self.cells.append((tile["pin"], "value"))
        elif row.base == "M":
            streams = (s for s in widget.get("pins", ()) if stream_matches(s, self.letter, self.pin))
            self.cells.extend((s, "value") for s in streams)
            if row.accept == "lcd" and widget.get("advancedMode"):
                self.specials.append((accept_lcd, widget))
        elif row.accept in ACCEPT:
            self.specials.append((ACCEPT[row.accept], widget))
        else:
            self.cells.append((widget, "value"))

    def _bind_storage(self) -> None:
        storage = self.project.account.storage
        key = f"{self.project.id}-{self.target}-{self.letter}{self.pin}"
        stored = storage.get(key)
        kind = None if key in storage else self.project.queue_kind(self.target, self.letter, self.pin)
        if kind is not None:
            stored = storage[key] = {"type": kind, "values": []}
        if isinstance(stored, dict):
            self.queue = stored
        else:
            self.cells.append((storage, key))

    def set(self, text: str, now_ms: int) -> None:
        """The model's part of a value (spec 04 §9.4). Errors: ValueError when a widget refuses it, nothing changed."""
        for accept, widget in self.specials:
            accept(self.project, widget, text)
        for cell, key in self.cells:
            cell[key] = text
        if self.queue is not None:
            self._enqueue(self.queue, text)
        project = self.project
        project.document["updatedAt"] = now_ms
        self.value = text
        ledger = project.account.ledger
        ledger.touched.add(project.account)
        if self.specials or self.queue is not None:
            account = project.account
            ledger.operations.append(
                ["v", account.email, account.app, project.id, self.target, self.letter + str(self.pin), text]
            )
        elif not self.journaled:
            self.journaled = True
            ledger.routes.append(self)
        ledger.wake()

    def _enqueue(self, queue: Document, text: str) -> None:
        values = queue["values"]
        if text == "clr" and queue["type"] != "LCD":
            values.clear()
        else:
            values.append(text)
            del values[: -self.project.pools[queue["type"]]]

    def record(self, text: str, now_ms: int) -> None:
        """History of a value that a device sent (spec 05 §5.1)."""
        if self.series is not None:
            number = parse_number(text)
            if number is not None:
                self.series.add(number, now_ms)
        ledger = self.project.account.ledger
        if ledger.raw_on:
            project = self.project
            ledger.record_raw(project.account, project.id, self.target, self.letter, self.pin, text, now_ms)


class Device:
    """One device of a project; `document` is its part of the project's document (spec 04 §6)."""

    __slots__ = ("project", "document", "id", "sessions", "routes", "prefix")

    def __init__(self, project: Project, document: Document) -> None:
        self.project, self.document = project, document
        self.id: int = document["id"]
        self.sessions: list[Any] = []  # hardware connections logged in with its token
        self.routes: dict[bytes, Route] = {}  # b"vw\x005" → route
        self.prefix = f"{project.id}-{self.id}".encode()

    @property
    def name(self) -> Optional[str]:
        return self.document.get("name")

    @property
    def token(self) -> Optional[str]:
        return self.document.get("token")

    @property
    def online(self) -> bool:
        return bool(self.sessions)

    def buffer_fits(self, length: int) -> bool:
        """Whether a body of so many characters fits the board's announced input buffer (spec 01 §13.3)."""
        info = self.document.get("hardwareInfo")
        return length <= 250 if info is None else length + 5 <= (info.get("buffIn") or 250)


class Project:
    """One dashboard; `document` is the app's (spec 04 §5)."""

    __slots__ = ("account", "document", "id", "devices", "routes", "histories", "runtime")

    def __init__(self, account: Account, document: Document) -> None:
        self.account, self.document = account, document
        self.id: int = document["id"]
        self.devices: dict[int, Device] = {}
        for device in document.get("devices", ()):
            self.devices.setdefault(device["id"], Device(self, device))
        self.routes: dict[tuple[int, str, int], Route] = {}
        self.histories: dict[int, tuple[Document, deque[str]]] = {}
        self.runtime: Any = None  # what the automation keeps about it

    # -- the document ------------------------------------------------------------------------------------------------

    @property
    def widgets(self) -> list[Document]:
        widgets: list[Document] = self.document.get("widgets", [])
        return widgets

    @property
    def active(self) -> bool:
        return bool(self.document["isActive"])

    @property
    def name(self) -> Optional[str]:
        return self.document.get("name")

    @property
    def pools(self) -> dict[str, int]:
        return self.account.ledger.pools

    def find(self, kind: str) -> Optional[Document]:
        """The first widget of a type: the only one that counts for services (spec 04 §12.4)."""
        return next((w for w in self.widgets if w["type"] == kind), None)

    def all_widgets(self) -> Iterator[tuple[Document, Optional[Document]]]:
        """(widget, None) for top-level widgets, (widget, template) for those in tile templates."""
        for widget in self.widgets:
            yield widget, None
            for template in templates_of(widget):
                for inner in template.get("widgets", ()):
                    yield inner, template

    def widget(self, widget_id: int) -> Optional[Document]:
        """By id: top level first, then in the templates."""
        found = next((w for w in self.widgets if w["id"] == widget_id), None)
        if found is None:
            found = next((w for w, t in self.all_widgets() if t is not None and w["id"] == widget_id), None)
        return found

    def price(self) -> int:
        return 0 if self.document["parentId"] != -1 else sum(widget_price(w) for w in self.widgets)

    def find_by_pin(self, device_id: int, letter: str, pin: int) -> Optional[Document]:
        return next((w for w in self.widgets if widget_matches(w, device_id, letter, pin)), None)

    def history_of(self, widget: Document, size: int = 0) -> deque[str]:
        """The lines a terminal, map or LCD keeps in memory (spec 04 §14.8); with `size` the queue is made to stay."""
        entry = self.histories.get(id(widget))
        if entry is not None:
            return entry[1]
        lines: deque[str] = deque(maxlen=size or 1)
        if size:
            self.histories[id(widget)] = (widget, lines)
        return lines

    # -- targets (spec 04 §9.3) --------------------------------------------------------------------------------------

    def tag(self, tag_id: int) -> Optional[Document]:
        return next((t for t in self.document.get("tags", ()) if t["id"] == tag_id), None)

    def selector(self, widget_id: int) -> Optional[Document]:
        return next((w for w in self.widgets if w["id"] == widget_id and w["type"] == "DEVICE_SELECTOR"), None)

    def target_ids(self, target: int, assigned: bool = False) -> Optional[list[int]]:
        """Device ids of a target, None when there is no such target. assigned: all that a selector offers, not only the
        chosen one."""
        if target < FIRST_TAG_ID:
            return [target] if target in self.devices else None
        if target < FIRST_SELECTOR_ID:
            tag = self.tag(target)
            return None if tag is None else tag.get("deviceIds", [])
        selector = self.selector(target)
        if selector is None:
            return None
        return selector.get("deviceIds", []) if assigned else [selector["value"]]

    def selected(self, target: int) -> list[Device]:
        ids = self.target_ids(target) or ()
        return [self.devices[i] for i in ids if i in self.devices]

    def assigned(self, target: int) -> list[Device]:
        ids = self.target_ids(target, True) or ()
        return [self.devices[i] for i in ids if i in self.devices]

    # -- values ------------------------------------------------------------------------------------------------------

    def route(self, target: int, letter: str, pin: int) -> Route:
        key = (target, letter, pin)
        route = self.routes.get(key)
        if route is None:
            route = self.routes[key] = Route(self, target, letter, pin)
        return route

    def queue_kind(self, device_id: int, letter: str, pin: int) -> Optional[str]:
        """The kind of queue a value without a widget gets, None for a single value (spec 04 §10.3)."""
        for widget in self.widgets:
            if widget["type"] in MULTI_VALUE and widget.get("deviceId", 0) >= FIRST_SELECTOR_ID:
                devices = self.target_ids(widget["deviceId"], True) or ()
                if device_id in devices and has_stream(widget, letter, pin):
                    return MULTI_VALUE[widget["type"]]
            for template in templates_of(widget):
                if device_id in template.get("deviceIds", ()):
                    for inner in template.get("widgets", ()):
                        if inner["type"] in MULTI_VALUE and has_stream(inner, letter, pin):
                            return MULTI_VALUE[inner["type"]]
        return None

    def set_property(self, device_id: int, pin: int, name: str, text: str) -> bool:
        """What a device's SET_WIDGET_PROPERTY does (spec 02 §10): True when a widget took it; else, or when only the
        tiles did, it is stored. Errors: ValueError, nothing changed."""
        matching = [w for w in self.widgets if widget_matches(w, device_id, "v", pin)]
        for widget in matching:
            property_value(widget, name, text)  # may raise, before anything is changed
        takers = [w for w in matching if set_widget_property(w, name, text)]
        if not takers or takers[-1]["type"] == "DEVICE_TILES":
            self.account.storage[f"{self.id}-{device_id}-v{pin}-{name}"] = text
        account = self.account
        account.ledger.operations.append(["p", account.email, account.app, self.id, device_id, pin, name, text])
        self.touched()
        return bool(takers)

    def stored(self, device_id: Optional[int] = None) -> list[tuple[int, str, int, str, Any]]:
        """(device, letter, pin, property, value) of what the pin storage holds of this project."""
        prefix = f"{self.id}-" if device_id is None else f"{self.id}-{device_id}-"
        out = []
        for key, value in self.account.storage.items():
            if key.startswith(prefix):
                parts = split_storage_key(key)
                if parts is not None:
                    out.append((*parts[1:], value))
        return out

    def forget_pins(self, widget: Document, template: Optional[Document] = None, properties: bool = True) -> None:
        """Drops stored values of a widget's pins, for every device it can show (spec 04 §10.7)."""
        if widget["type"] == "DEVICE_TILES":
            for tile in widget.get("tiles", ()):
                self._forget(tile.get("pin", {}), [tile["deviceId"]], properties)
            for inner_template in templates_of(widget):
                for inner in inner_template.get("widgets", ()):
                    self.forget_pins(inner, inner_template, properties)
            return
        row = widget_type(widget)
        if row.base == "N":
            return
        target = widget.get("deviceId", 0)
        if template is not None:
            devices = template.get("deviceIds", [])
        else:
            devices = [*(self.target_ids(target, True) or ()), target]  # a tag keeps values of its own
        for stream in widget.get("pins", ()) if row.base == "M" else (widget,):
            self._forget(stream, devices, properties)

    def _forget(self, stream: Document, device_ids: Iterable[int], properties: bool) -> None:
        if not has_pin(stream):
            return
        storage = self.account.storage
        for device_id in device_ids:
            key = f"{self.id}-{device_id}-{LETTERS[stream['pinType']]}{stream['pin']}"
            storage.pop(key, None)
            if properties and storage:
                for name in PROPERTY_LABELS:
                    storage.pop(f"{key}-{name}", None)

    # -- changes -----------------------------------------------------------------------------------------------------

    def touched(self) -> None:
        """A value or property changed: the journal has it, the file follows at the next minute."""
        ledger = self.account.ledger
        self.document["updatedAt"] = ledger.loop.now_ms
        ledger.touched.add(self.account)
        ledger.wake()

    def modified(self) -> None:
        """A structural change: on disk within a second."""
        self.document["updatedAt"] = self.account.ledger.loop.now_ms
        self.account.save_soon()

    def changed(self) -> None:
        """Widgets, devices, tags or targets changed: routes are found anew."""
        self.account.ledger.settle()
        self.routes.clear()
        for device in self.devices.values():
            device.routes.clear()
        if self.histories:
            there = {id(w) for w, _ in self.all_widgets()}
            for gone in [key for key in self.histories if key not in there]:
                del self.histories[gone]
        self.account.ledger.project_changed(self)


def has_stream(widget: Document, letter: str, pin: int) -> bool:
    """Whether a queueing widget is bound to that pin, whatever its device (spec 04 §10.3)."""
    if widget_type(widget).base == "M":
        return any(stream_matches(s, letter, pin) for s in widget.get("pins", ()))
    return widget.get("pin", -1) == pin and LETTERS.get(widget.get("pinType", "")) == letter


class Account:
    """One user of one app; `document` is the user file (spec 04 §3), without its profile's lists, which live here."""

    __slots__ = (
        "ledger", "document", "email", "app", "projects", "apps_made", "storage", "apps", "hardware", "mails",
        "mails_since", "notifications", "removed",
    )  # fmt: skip

    def __init__(self, ledger: Ledger, document: Document) -> None:
        self.ledger, self.document = ledger, document
        self.email: str = document["email"]
        self.app: str = document.setdefault("appName", "Blynk")
        profile = document.pop("profile", None) or {}
        self.storage: Document = profile.pop("pinsStorage", {})
        self.apps_made: list[Document] = profile.pop("apps", [])  # exported apps ("faces")
        self.projects: dict[int, Project] = {}
        for project in profile.pop("dashBoards", ()):
            self.projects.setdefault(project["id"], Project(self, project))
        document["profile"] = profile  # unknown fields only
        self.apps: list[Any] = []  # logged-in app connections
        self.hardware: list[Any] = []  # logged-in hardware connections
        self.mails, self.mails_since = 0, 0.0
        self.notifications: Any = ()
        self.removed = False

    @property
    def user_name(self) -> str:
        return f"{self.email}-{self.app}"

    @property
    def folder_name(self) -> str:
        """The folder of its history (spec 05 §1)."""
        return self.email if self.app == "Blynk" else f"{self.email}_{self.app}"

    @property
    def file_name(self) -> str:
        return f"{self.email}.{self.app}.user"

    def profile(self) -> Document:
        """The profile as the owner's app gets it and the file has it."""
        out: Document = {}
        if self.projects:
            out["dashBoards"] = [p.document for p in self.projects.values()]
        if self.apps_made:
            out["apps"] = self.apps_made
        if self.storage:
            out["pinsStorage"] = written_storage(self.storage)
        out.update(self.document["profile"])
        return out

    def user_document(self) -> Document:
        """The whole user object (spec 04 §3)."""
        out = dict(self.document)
        out["profile"] = self.profile()
        out["id"] = self.user_name
        return out

    def modified(self) -> None:
        """A structural change: on disk within a second."""
        self.document["lastModifiedTs"] = self.ledger.loop.now_ms
        self.save_soon()

    def add_energy(self, amount: int) -> None:
        """The balance is a signed 32-bit number in the file; it does not leave that range."""
        self.document["energy"] = max(-(1 << 31), min((1 << 31) - 1, self.document["energy"] + amount))
        self.modified()

    def save_soon(self) -> None:
        self.ledger.structural.add(self)
        self.ledger.wake()

    def add_project(self, document: Document) -> Project:
        project = self.projects[document["id"]] = Project(self, document)
        return project


def set_value(project: Project, target: int, letter: str, pin: int, text: str) -> None:
    """Updates the widgets of a pin, or its storage when it has none (spec 04 §9.4). Errors: ValueError."""
    ledger = project.account.ledger
    if ledger.unsettled:
        ledger.settle()
    project.route(target, letter, pin).set(text, ledger.loop.now_ms)


def stored_values(value: Any) -> list[str]:
    """The values of a pin storage entry, oldest first."""
    return value["values"] if isinstance(value, dict) else [value]


def project_sync(project: Project, target: int = -1) -> list[tuple[int, str]]:
    """The state of a project as an app is told it: (command, body) pairs, stored values first (spec 03a §5.6)."""
    project.account.ledger.settle()
    out: list[tuple[int, str]] = []
    for device_id, letter, pin, name, value in project.stored(None if target == -1 else target):
        head = f"{project.id}-{device_id}\0"
        if name:
            out.append((Command.SET_WIDGET_PROPERTY, f"{head}{pin}\0{name}\0{value}"))
        elif isinstance(value, dict):
            if value["values"]:
                values = value["values"]
                out.append((Command.APP_SYNC, f"{head}{letter}m\0{pin}\0" + "\0".join(values)))
                out.append((Command.APP_SYNC, head + value_body(letter, pin, values[-1])))
        else:
            out.append((Command.APP_SYNC, head + value_body(letter, pin, value)))
    for widget in project.widgets:
        for device_id, body in app_sync(project, widget, target):
            out.append((Command.APP_SYNC, f"{project.id}-{device_id}\0{body}"))
    return out


# ======================================================================================================================
# 6. Store
# ======================================================================================================================
# User files, journal, history files, raw data, the database and back-ups (spec 05, DESIGN §6). The loop makes the bytes,
# the disk thread writes them. Knows nothing of sessions.

# -- 6a User files and journal -----------------------------------------------------------------------------------------
# A structural change rewrites the user's file within a second; values go to journal.log, one line a second with its
# checksum, and every minute into the files. Each line has a number; each file says up to which line it is: what a kill
# leaves behind is replayed at the next start, nothing twice.

JOURNAL_FILE, OLD_JOURNAL_FILE, AVERAGES_FILE = "journal.log", "journal.old", "aggregation_temp.json"
FOLD_SECONDS = 60
BACKUP_MS = 24 * 3600 * 1000


REPLAY: dict[
    str, Callable[..., object]
] = {}  # kinds of journal records that rooms below keep: replay(project, target, …)


# What a user file can have wrong with it: it is set aside then.
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class StoreError(Exception):
    """The data folder cannot be used; the text is the line for the user."""


def write_file(path: str, data: bytes, private: bool = True) -> None:
    """Writes a file whole or not at all: temporary file, fsync, rename, fsync of the folder. Errors: OSError."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        try:
            os.remove(temporary)
        except OSError:
            pass
        raise
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Makes a rename durable; Windows has no such thing."""
    if os.name == "nt":
        return
    fd = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def journal_line(number: int, records: list[Any]) -> bytes:
    data = encode(to_json([number, records]))
    return b"%08x %s\n" % (zlib.crc32(data), data)


def read_journal(path: str) -> Iterator[tuple[int, list[Any]]]:
    """(number, records) per whole line; a torn or broken line is skipped."""
    try:
        file = open(path, "rb")
    except OSError:
        return
    with file:
        for line in file:
            if line[8:9] != b" " or line[-1:] != b"\n":
                continue
            try:
                if int(line[:8], 16) == zlib.crc32(line[9:-1]):
                    number, records = json.loads(line[9:-1])
                    yield number, records
            except (ValueError, TypeError):
                continue


def mend_tail(path: str) -> None:
    """Cuts a torn last line off, so that the next one does not join it. Errors: OSError."""
    try:
        file = open(path, "r+b")
    except FileNotFoundError:
        return
    with file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            file.truncate(end)


class FolderLock:
    """One server per data folder."""

    __slots__ = ("file",)

    def __init__(self, folder: str) -> None:
        """Errors: StoreError when another process has it."""
        path = os.path.join(folder, ".lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.file = os.fdopen(fd, "r+b", buffering=0)
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                import fcntl

                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self.file.read(20).decode("ascii", "replace").strip() or "?"
            self.file.close()
            raise StoreError(f"{folder} is in use by another server (process {holder}): stop that one first") from None
        try:
            self.file.seek(0)
            self.file.truncate()
            self.file.write(b"%d\n" % os.getpid())
        except OSError:
            pass  # a full disk: the lock counts, the number is for people

    def release(self) -> None:
        self.file.close()


class Store:
    """The data folder of one server."""

    def __init__(self, server: Server) -> None:
        self.server, self.loop, self.ledger = server, server.loop, server.ledger
        self.folder: str = server.settings.data_folder
        self.interval = max(0.02, server.settings.data_journal_interval_ms / 1000 * 0.8)  # on disk within the interval
        self.number = 0  # of the last journal line
        self.journal: Any = None
        self.journal_size = 0
        self.timer: Optional[Timer] = None
        self.folding: Optional[list[Account]] = None
        self.unsaved: set[tuple[str, str]] = set()  # accounts whose file this fold could not write
        self.leaving: set[Account] = set()  # whose file is on its way to deleted/: nothing may bring it back
        self.saving: dict[Account, bool] = {}  # being written; True: again, it has changed meanwhile
        self.waiting: list[Callable[[], object]] = []  # called when everything of now is on disk
        self.last_backup_ms = 0
        self.lock: Optional[FolderLock] = None
        self.replayed = False
        self.saved_once = False

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    # -- start -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Makes the folders and takes the lock. Errors: StoreError."""
        try:
            for name in ("", "deleted", "backup", "clone", "data"):
                os.makedirs(self.path(name), exist_ok=True)
            self.lock = FolderLock(self.folder)
        except OSError as problem:
            raise StoreError(
                f"data folder {self.folder}: {problem.strerror}; check that it exists and is yours"
            ) from None

    def load(self) -> None:
        """Reads every account of the folder, then what the journal has of them (spec 05 §2)."""
        accounts = self.server.accounts
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".user") and not name.startswith("."):
                document = self.read_user(name)
                if document is not None:
                    self.keep_account(accounts, Account(self.ledger, document))
        self.replay()

    def keep_account(self, accounts: dict[tuple[str, str], Account], account: Account) -> None:
        """Of two files with the same identity the younger counts."""
        key = (account.email, account.app)
        other = accounts.get(key)
        if other is not None:
            log.error(f"two files for {account.user_name}: the one that was changed last is used")
            if other.document["lastModifiedTs"] >= account.document["lastModifiedTs"]:
                return
        accounts[key] = account

    def read_user(self, name: str) -> Optional[Document]:
        """A user file; when it is broken it is set aside and its newest backup is used."""
        try:
            return self.parse_user(self.path(name))
        except UNREADABLE as problem:
            log.error(f"user file {name} cannot be read: {problem}")
        aside = self.path(f"{name}.corrupt-{self.loop.now_ms}")
        try:
            os.replace(self.path(name), aside)
        except OSError:
            pass
        backups = [b for b in os.listdir(self.path("backup")) if b.startswith(name + ".") and not b.endswith(".tmp")]
        backups.sort(key=lambda b: os.path.getmtime(self.path("backup", b)), reverse=True)
        for backup in backups:
            try:
                document = self.parse_user(self.path("backup", backup))
            except UNREADABLE:
                continue
            log.error(f"{name} was set aside as {os.path.basename(aside)}; its backup {backup} is used instead")
            document["lastModifiedTs"] = self.loop.now_ms + 10_000
            document["restored"] = True
            return document
        log.error(f"{name} was set aside as {os.path.basename(aside)}; there is no backup of it")
        return None

    def parse_user(self, path: str) -> Document:
        """Errors: one of UNREADABLE."""
        with open(path, encoding="utf-8") as file:
            return self.migrate(read_document("USER", file.read(), lenient=True))

    def migrate(self, user: Document) -> Document:
        """Old forms are brought up to date (spec 05 §2.2). Errors: one of UNREADABLE for what nobody can bring."""
        settings = self.server.settings
        user.setdefault("email", user.get("name", ""))
        user.setdefault("name", user["email"])
        user.setdefault("appName", "Blynk")
        if any(sign in user["email"] + user["appName"] for sign in "/\\\0"):
            raise ValueError("its email or appName cannot be part of a file name")
        if type(user.get("journal", 0)) is not int:
            del user["journal"]
        user["lastModifiedTs"] = user["lastModifiedTs"] or self.loop.now_ms
        user.setdefault("region", settings.server_region)
        user["ip"] = self.server.host
        profile = user.setdefault("profile", {"pinsStorage": {}})
        for project in profile.get("dashBoards", ()):
            for key, value in (project.pop("pinsStorage", None) or {}).items():
                device_id, _, rest = key.partition("-")
                letter, (pin, _, name) = rest[:1], rest[1:].partition("-")
                key = f"{project['id']}-{device_id}-{letter}{pin if pin.isdigit() else 0}" + (
                    f"-{name}" if name else ""
                )
                profile["pinsStorage"].update(read_pins_storage({key: value}))
            for device in project.get("devices", ()):
                device["status"] = "OFFLINE"
        return user

    def replay(self) -> None:
        """What a kill left in the journal; files that have it already say so by their number."""
        accounts = self.server.accounts
        for account in accounts.values():
            self.number = max(self.number, account.document.get("journal", 0))
            if account.document.pop("restored", None):
                account.document.pop("journal", None)
        try:
            with open(self.path(AVERAGES_FILE), encoding="utf-8") as file:
                averages = json.load(file)
            covered = int(averages["journal"])
        except (OSError, ValueError, TypeError, KeyError, OverflowError):
            averages, covered = None, 0
        self.server.history.restore(averages)
        read_up_to = 0
        for name in (OLD_JOURNAL_FILE, JOURNAL_FILE):
            self.replayed = self.replayed or os.path.exists(self.path(name))
            for number, records in read_journal(self.path(name)):
                self.replayed = True
                if number <= read_up_to:
                    continue  # a kill came between copying the line and removing it
                read_up_to = number
                self.number = max(self.number, number)
                for record in records:
                    try:
                        if record[0] in "hH":
                            if number > covered:
                                self.server.history.replay(record)
                        else:
                            self.replay_value(number, record)
                    except Exception as problem:
                        log.debug(f"journal: left out {record[0]!r}: {problem!r}")
        self.number = max(self.number, covered)
        self.ledger.operations.clear()
        self.ledger.routes.clear()
        for account in self.ledger.touched:
            for project in account.projects.values():
                project.routes.clear()

    def replay_value(self, number: int, record: list[Any]) -> None:
        kind, email, app_name, project_id, target, *rest = record
        account = self.server.accounts.get((email, app_name))
        if account is None or number <= account.document.get("journal", 0):
            return
        project = account.projects.get(project_id)
        if project is None:
            return
        if kind == "v":
            name, text = rest
            project.route(target, name[0], int(name[1:])).set(text, self.loop.now_ms)
        elif kind == "p":
            project.set_property(target, *rest)
        else:
            REPLAY[kind](project, target, *rest)

    def start(self) -> None:
        """Begins to write: what was replayed goes into the files at once."""
        self.ledger.wake = self.wake
        self.schedule_fold()
        if self.replayed:
            self.fold()
        elif self.ledger.structural or self.ledger.touched:
            self.wake()

    # -- the second --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        if self.timer is None:
            self.timer = self.loop.call_later(self.interval, self.tick)

    def tick(self) -> None:
        """Hands the values of this second to the disk thread, then the accounts that changed."""
        self.timer = None
        self.journal_values()
        accounts, self.ledger.structural = self.ledger.structural, set()
        for account in accounts:
            self.save(account)

    def journal_values(self) -> None:
        line = self.collect()
        if line and not self.loop.submit("disk", self.append, line, done=self.appended):
            self.appended(None, OSError(errno.EAGAIN, "the disk does not keep up"))

    def collect(self) -> bytes:
        """The journal line of what has changed since the last one."""
        ledger = self.ledger
        ledger.settle()
        records, ledger.operations = ledger.operations, []
        for route in ledger.routes:
            route.journaled = False
            project = route.project
            account = project.account
            records.append(
                ["v", account.email, account.app, project.id, route.target, route.letter + str(route.pin), route.value]
            )
        ledger.routes = []
        records += self.server.history.drain()
        if not records:
            return b""
        self.number += 1
        return journal_line(self.number, records)

    def append(self, data: bytes) -> None:
        """Disk thread."""
        if self.journal is None:
            mend_tail(self.path(JOURNAL_FILE))
            self.journal = open(self.path(JOURNAL_FILE), "ab", buffering=0)
        at = os.fstat(self.journal.fileno()).st_size
        try:
            if self.journal.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self.journal.fileno())
        except OSError:
            os.ftruncate(self.journal.fileno(), at)  # no torn line in front of the next one
            raise

    def appended(self, _result: Any, problem: Optional[Exception]) -> None:
        self.report("journal", problem)

    def report(self, what: str, problem: Optional[Exception]) -> None:
        """Says once that the folder cannot be written, and once that it can again."""
        health = self.server.health
        if problem is None:
            if health.pop(what, None):
                log.info(f"{what}: {self.folder} can be written again")
            return
        text = f"{what} cannot be written: {getattr(problem, 'strerror', None) or problem} ({self.folder})"
        if health.get(what) != text:
            health[what] = text
            log.error(f"{text}; devices and apps go on, make room or mend the folder")

    # -- accounts ----------------------------------------------------------------------------------------------------

    def save(self, account: Account) -> None:
        """Writes the user's file in the disk thread. One write of an account at a time."""
        if account.removed or account in self.leaving:
            return
        if account in self.saving:
            self.saving[account] = True
            return
        self.journal_values()  # before the file that claims to have them
        document = account.document
        document["journal"] = self.number
        data = encode(to_json(account.user_document()))
        self.saving[account] = False
        self.ledger.touched.discard(account)

        def done(_result: Any, problem: Optional[Exception]) -> None:
            self.saved(account, problem)

        if not self.loop.submit("disk", self.write_account, account.file_name, account.email, data, done=done):
            self.loop.soon(done, None, OSError(errno.EAGAIN, "the disk does not keep up"))

    def write_account(self, name: str, email: str, data: bytes) -> None:
        write_file(self.path(name), data)
        old = self.path(f"u_{email}.user")
        if os.path.exists(old):
            os.remove(old)

    def saved(self, account: Account, problem: Optional[Exception]) -> None:
        again = self.saving.pop(account, False)
        self.report(f"user file {account.file_name}", problem)
        if problem is not None:
            self.ledger.touched.add(account)  # the next minute tries again
        elif again:
            self.save(account)
        if problem is None and not account.removed:
            self.saved_once = True
            database = self.server.database
            if database is not None:
                database.user_saved(account)
        if self.folding is not None and account in self.folding:
            if problem is not None:
                self.unsaved.add((account.email, account.app))
            self.folding.remove(account)
            self.fold_next()
        if not self.saving and not self.ledger.structural:
            waiting, self.waiting = self.waiting, []
            for fn in waiting:
                fn()

    def when_saved(self, fn: Callable[[], object]) -> None:
        """Calls fn once what is changed now is on disk."""
        self.tick()
        if self.saving or not self.loop.submit("disk", _nothing, done=lambda *_: fn()):
            self.waiting.append(fn)

    # -- the minute --------------------------------------------------------------------------------------------------

    def schedule_fold(self) -> None:
        """At full minutes, since that is when a minute of history ends (spec 05 §5.4). Counted in seconds that pass:
        a clock that is set back must not put it off."""
        self.loop.call_later(FOLD_SECONDS - self.loop.now_ms / 1000 % FOLD_SECONDS + 0.01, self.each_minute)

    def each_minute(self) -> None:
        self.schedule_fold()
        if self.ledger.touched or self.number_in_journal() or self.server.history.due(self.loop.now_ms):
            self.fold()

    def number_in_journal(self) -> bool:
        return self.journal is not None or os.path.exists(self.path(OLD_JOURNAL_FILE))

    def fold(self) -> None:
        """Everything in the journal goes into the files; then the journal starts anew."""
        if self.folding is not None:
            return  # a slow disk is still at the last one
        if not self.loop.submit("disk", self.rotate, self.collect(), done=self.rotated):
            self.rotated(None, OSError(errno.EAGAIN, "the disk does not keep up"))

    def rotate(self, line: bytes) -> None:
        """Disk thread: the present journal becomes the old one, unless an old one is still needed."""
        if line:
            self.append(line)
        if self.journal is not None:
            self.journal.close()
            self.journal = None
        if os.path.exists(self.path(JOURNAL_FILE)):
            if os.path.exists(self.path(OLD_JOURNAL_FILE)):
                mend_tail(self.path(OLD_JOURNAL_FILE))
                with open(self.path(JOURNAL_FILE), "rb") as new, open(self.path(OLD_JOURNAL_FILE), "ab") as old:
                    for line in new:
                        old.write(line)
                    old.flush()
                    os.fsync(old.fileno())
                os.remove(self.path(JOURNAL_FILE))
            else:
                os.replace(self.path(JOURNAL_FILE), self.path(OLD_JOURNAL_FILE))
            sync_folder(self.folder)

    def rotated(self, _result: Any, problem: Optional[Exception]) -> None:
        self.report("journal", problem)
        if problem is not None:
            return
        self.folding = [*self.ledger.touched, *(self.saving.keys() - self.ledger.touched)]
        self.unsaved = set()
        self.fold_next()

    def fold_next(self) -> None:
        """One account at a time: only one document is in memory twice."""
        while self.folding:
            account = self.folding[0]
            if account.removed:
                self.ledger.touched.discard(account)
            elif account not in self.leaving:
                if account not in self.saving:
                    self.save(account)
                return
            self.folding.pop(0)
        history = self.server.history
        work = history.flush(self.loop.now_ms)
        averages = encode(to_json({**history.snapshot(), "journal": self.number}))
        if not self.loop.submit("disk", self.finish_fold, work, averages, self.unsaved, done=self.folded):
            history.unwritten += work
            self.folded(None, OSError(errno.EAGAIN, "the disk does not keep up"))

    def finish_fold(self, work: list[tuple[str, bytes]], averages: bytes, unsaved: set[tuple[str, str]]) -> None:
        """Disk thread: history, running averages, then the old journal may go, but for what the unsaved have in it."""
        if work:
            self.server.history.write(work)
        path = self.path(AVERAGES_FILE)
        if len(averages) > 60 or os.path.exists(path):
            write_file(path, averages)
        old = self.path(OLD_JOURNAL_FILE)
        left = []
        for number, records in read_journal(old) if unsaved else ():
            records = [r for r in records if r[0] not in "hH" and tuple(r[1:3]) in unsaved]
            if records:
                left.append(journal_line(number, records))
        if left:
            write_file(old, b"".join(left))
        elif os.path.exists(old):
            os.remove(old)

    def folded(self, _result: Any, problem: Optional[Exception]) -> None:
        self.folding = None
        self.report("history", problem)
        if problem is None:
            self.daily_backup()

    # -- backups, end ------------------------------------------------------------------------------------------------

    def daily_backup(self) -> None:
        """Once in 24 hours, first after the first save, a copy of every account (spec 05 §3)."""
        if not self.saved_once or self.server.database is not None and self.server.database.connected:
            return
        if self.last_backup_ms and 0 <= self.loop.now_ms - self.last_backup_ms < BACKUP_MS:
            return
        self.last_backup_ms = self.loop.now_ms
        day = time.strftime("%Y-%m-%d", time.localtime(self.loop.now_ms / 1000))
        names = [a.file_name for a in self.server.accounts.values()]
        self.loop.submit(
            "disk", self.copy_to_backup, names, day, done=lambda _result, problem: self.report("backup", problem)
        )

    def copy_to_backup(self, names: list[str], day: str) -> None:
        """Disk thread. Copies older than backup_keep_days go; those of the Java server count as ours. One that fails
        does not keep the others from being made. Errors: OSError, at the end."""
        problem: Optional[OSError] = None
        for name in names:
            try:
                with open(self.path(name), "rb") as file:
                    data = file.read()
                write_file(self.path("backup", f"{name}.{day}"), data)
            except FileNotFoundError:
                continue
            except OSError as error:
                problem = error
        keep = self.server.settings.data_backup_keep_days
        if keep:
            limit = time.time() - keep * 86400
            for name in os.listdir(self.path("backup")):
                path = self.path("backup", name)
                if ".user." in name and os.path.getmtime(path) < limit:
                    os.remove(path)
        if problem is not None:
            raise problem

    def move_to_deleted(self, account: Account, done: Callable[[bool], object]) -> None:
        """The file of a removed account goes to deleted/; done(False) when there was none."""

        def move() -> bool:
            name = account.file_name
            try:
                os.replace(self.path(name), self.path("deleted", name))
            except FileNotFoundError:
                return False
            sync_folder(self.folder)
            return True

        def moved(result: Any, problem: Optional[Exception]) -> None:
            done(bool(result) and problem is None)
            self.leaving.discard(account)
            if not account.removed:
                account.save_soon()  # it stays, with what has changed meanwhile

        self.leaving.add(account)
        if not self.loop.submit("disk", move, done=moved):
            self.loop.soon(moved, None, OSError(errno.EAGAIN, "the disk does not keep up"))

    def close(self) -> None:
        """At the end: everything to disk, in this thread; then the lock is given back. Nothing else runs any more."""
        self.ledger.wake = _nothing
        if self.timer is not None:
            self.timer.cancel()
        self.loop.pools["disk"].stop(10.0)
        failed: Optional[OSError] = None
        try:
            self.rotate(self.collect())
        except OSError as problem:  # the files may work all the same
            failed = problem
        unsaved = set()
        for account in self.ledger.touched | self.ledger.structural | self.ledger.presence | self.saving.keys():
            if account.removed:
                continue
            account.document["journal"] = self.number
            try:
                self.write_account(account.file_name, account.email, encode(to_json(account.user_document())))
            except OSError as problem:
                failed = problem
                unsaved.add((account.email, account.app))
                continue
            if self.server.database is not None:
                self.server.database.user_saved(account)
        try:
            history = self.server.history
            work = history.flush(self.loop.now_ms)
            self.finish_fold(work, encode(to_json({**history.snapshot(), "journal": self.number})), unsaved)
        except OSError as problem:
            failed = problem
        if failed is not None:
            log.error(
                f"the last values could not be folded into {self.folder}: {failed.strerror}; the journal has them"
            )
        if self.lock is not None:
            self.lock.release()


# -- 6b History --------------------------------------------------------------------------------------------------------
# Minute, hour and day averages of the pins that a graph or a report shows, in the Java server's files (spec 05 §5-7).
#
#   Series.add          the hot path: one addition per value, nothing else
#   History.drain       every second: what was added, as journal records, and into the running periods
#   History.flush       every minute: finished periods, to be appended by write() in the disk thread
#   History.snapshot    the running periods, kept by the store with its journal
#
# The loop thread owns the series; files are only touched in worker threads, appended and deleted in the disk thread.

HISTORY_PERIODS = (("minute", 60_000), ("hourly", 3_600_000), ("daily", 86_400_000))
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
RECORD = struct.Struct(">dq")  # average, start of the period in ms UTC (spec 05 §5.5)
LIVE_POINTS = 60
LAST_MS = 250_000_000_000_000  # a timestamp beyond (the year 9892) is no date any more
FILE_KEEPS_ORDER = (1440, 48, 7)  # per period: a record late by at most so many periods is put in its place
CLOCK_NOT_SET = 1_451_606_400_000  # ms; 2016: a clock that shows less has not been set yet
CLOCK_PATIENCE = 600.0  # seconds to wait for a clock that went back by more than a day before it is believed
UNWRITTEN_LIMIT = 2 << 20  # bytes of history kept in memory while the disk takes nothing
DISK_FLOOR = 32 << 20  # bytes free below which history stops, or a twentieth of the disk if that is less

# Periods a graph may ask for: points and index into HISTORY_PERIODS; -1 is the live ring (spec 05 §6.1, ordinal order).
GRAPH_PERIODS = {
    "LIVE": (60, -1),
    "FIFTEEN_MINUTES": (15, 0),
    "THIRTY_MINUTES": (30, 0),
    "ONE_HOUR": (60, 0),
    "THREE_HOURS": (180, 0),
    "SIX_HOURS": (360, 0),
    "TWELVE_HOURS": (720, 0),
    "DAY": (1440, 0),
    "THREE_DAYS": (72, 1),
    "WEEK": (168, 1),
    "TWO_WEEKS": (336, 1),
    "MONTH": (720, 1),
    "THREE_MONTHS": (2160, 1),
    "ALL": (8640, 1),
    "N_DAY": (24, 1),
    "TWO_DAYS": (48, 1),
    "N_THREE_DAYS": (72, 1),
    "N_WEEK": (7, 2),
    "N_TWO_WEEKS": (14, 2),
    "N_MONTH": (30, 2),
    "N_THREE_MONTHS": (90, 2),
    "SIX_MONTHS": (180, 2),
    "ONE_YEAR": (360, 2),
}


class Series:
    """What one pin of one device has sent lately. A route holds it; add() is called for every number.

    `sum` and `count` are what came since the last drain within the minute [starts, ends). `periods` holds the running
    minute, hour and day: start of the period in ms + index into HISTORY_PERIODS -> [sum, count].
    """

    __slots__ = (
        "history", "folder", "project_id", "device_id", "name", "starts", "ends", "label", "sum", "count", "live",
        "ring", "ring_count", "periods",
    )  # fmt: skip

    def __init__(self, history: History, folder: str, project_id: int, device_id: int, name: str) -> None:
        self.history, self.folder = history, folder
        self.project_id, self.device_id = project_id, device_id
        self.name = name  # letter and pin, "v5"
        self.starts = self.ends = self.label = 0
        self.sum, self.count = 0.0, 0
        self.live = False  # a graph shows the single values too
        self.ring: Optional[bytearray] = None
        self.ring_count = 0
        self.periods: dict[int, list[float]] = {}

    def add(self, value: float, now_ms: int) -> None:
        """Hot path: 0.2 µs, with the live ring 0.45 µs (measured on x86, 3 GHz)."""
        if not self.starts <= now_ms < self.ends:
            self._turn(now_ms)
        if not self.count:
            self.history.dirty.append(self)
        self.sum += value
        self.count += 1
        if self.live:
            self._keep(value, now_ms)

    def _keep(self, value: float, now_ms: int) -> None:
        """The last 60 values as they came, in the bytes of the answer: 1 KB where a list of pairs took 7."""
        if self.ring is None:
            self.ring = bytearray(LIVE_POINTS * RECORD.size)
        RECORD.pack_into(self.ring, self.ring_count % LIVE_POINTS * RECORD.size, value, min(now_ms, 1 << 62))
        self.ring_count += 1

    def _turn(self, now_ms: int) -> None:
        """Another minute began, or a value brought a timestamp of its own."""
        history = self.history
        if self.count:
            history.pending.append((self, self.label, self.sum, self.count))
            self.sum, self.count = 0.0, 0
        self.starts = now_ms - now_ms % MINUTE_MS
        self.ends = self.starts + MINUTE_MS
        self.label = history.label(now_ms)

    def fold(self, start: int, total: float, count: float) -> None:
        """Adds a minute's part to the running minute, hour and day."""
        periods = self.periods
        for index, (_, length) in enumerate(HISTORY_PERIODS):
            key = start - start % length + index
            period = periods.get(key)
            if period is None:
                periods[key] = [total, count]
            else:
                period[0] += total
                period[1] += count

    def newest(self, count: int, skip: int) -> bytes:
        """Records of the live ring, oldest first, by the paging rule of the files (spec 05 §6.2)."""
        if self.ring is None:
            return b""
        held = min(self.ring_count, LIVE_POINTS)
        at = self.ring_count % LIVE_POINTS * RECORD.size if self.ring_count > LIVE_POINTS else 0
        ordered = bytes(self.ring[at:] + self.ring[:at])
        end = held - skip
        return ordered[max(0, end - count) * RECORD.size : end * RECORD.size] if end > 0 else b""

    def clear(self) -> None:
        self.sum, self.count = 0.0, 0
        self.ring, self.ring_count = None, 0
        self.periods.clear()


class History:
    """All series of the server and their files.

    A clock that jumps (a Pi has none until the network is up): a minute's values are noted under the wall-clock minute
    they came in; unfinished periods simply wait for their end. Back by up to a day: records find their place in the
    file, one that is there already becomes the mean of both. Back by more, or before 2016: the clock is taken for not
    set, values wait up to ten minutes for a better one and then count for the period that is running. So no period is
    written twice, none lies before the epoch or far ahead, and no value is lost.
    """

    def __init__(self, server: Any) -> None:
        self.server = server
        self.folder = os.path.join(server.settings.data_folder, "data")
        self.known: dict[tuple[str, int, int, str], Series] = {}
        self.dirty: list[Series] = []  # series with values since the last drain
        self.pending: list[tuple[Series, int, float, float]] = []  # their parts of minutes that ended meanwhile
        self.deleted: list[list[Any]] = []  # journal records of deletions
        self.unwritten: list[tuple[str, bytes]] = []  # what the disk did not take
        self.newest_ms = CLOCK_NOT_SET + DAY_MS
        self.behind_since: Optional[float] = None
        self.carried: dict[str, list[int]] = {}  # the Java server's temporary files that are in `periods` already
        self.disk_full = False
        self.complained = False
        self.started = server.loop.now
        self.last_clean_ms = server.loop.now_ms
        self.raw_data: Any = None  # 06c, when switched on

    # -- collecting --------------------------------------------------------------------------------------------------

    def series(
        self, account: Account, project_id: int, device_id: int, letter: str, pin: int, live: bool = False
    ) -> Series:
        """The series of a pin, made when new."""
        found = self._series(account.folder_name, project_id, device_id, f"{letter}{pin}")
        found.live = live
        return found

    def _series(self, folder: str, project_id: int, device_id: int, name: str) -> Series:
        key = (folder, project_id, device_id, name)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = Series(self, sys.intern(folder), project_id, device_id, sys.intern(name))
        return found

    def series_for(self, project: Project, device_id: int, letter: str, pin: int) -> Optional[Series]:
        """The series a route feeds, or None when no widget logs the pin (spec 05 §5.1). Asked once per route."""
        widget = logging_widget(project, device_id, letter, pin)
        if widget is None:
            return None
        live = widget.get("type") == "ENHANCED_GRAPH" and "LIVE" in widget.get("selectedPeriods", ())
        return self.series(project.account, project.id, device_id, letter, pin, live)

    def raw(self, account: Account, project_id: int, device_id: int, letter: str, pin: int, text: str, ms: int) -> None:
        """Every value as it came, text too; only called when raw data are switched on."""
        if self.raw_data is not None:
            self.raw_data.add(account, project_id, device_id, letter, pin, text, ms)

    def label(self, now_ms: int) -> int:
        """The minute a value counts for; 0 = the one that runs when the clock has been set."""
        clock = self.server.loop.now_ms
        if now_ms == clock and self._clock_is_behind(clock):
            return 0
        if not 0 < now_ms < clock + DAY_MS:
            return 0  # a timestamp of its own that cannot be
        return now_ms - now_ms % MINUTE_MS

    def _clock_is_behind(self, now_ms: int) -> bool:
        if now_ms >= self.newest_ms - DAY_MS:
            self.newest_ms = max(self.newest_ms, now_ms)
            self.behind_since = None
            return False
        now = self.server.loop.now
        if self.behind_since is None:
            self.behind_since = now
            log.warning("the clock is not set or was set back: history waits for it, at most ten minutes")
        elif now - self.behind_since >= CLOCK_PATIENCE:
            log.warning("the clock stays as it is: history goes on with it")
            self.newest_ms, self.behind_since = now_ms, None
            return False
        return True

    # -- journal and snapshot ----------------------------------------------------------------------------------------

    def drain(self) -> list[list[Any]]:
        """What was added since the last call, for the journal: `["h", minute ms, folder, [[project, device, "v5", sum,
        count], …]]`, one record per minute and account folder; and deletions, `["h", "gone", folder, [project, device,
        pins]]`."""
        self._clock_is_behind(self.server.loop.now_ms)
        if not (self.dirty or self.pending or self.deleted):
            return []
        parts, self.pending = self.pending, []
        dirty, self.dirty = self.dirty, []
        for series in dirty:
            if series.count:
                parts.append((series, series.label, series.sum, series.count))
                series.sum, series.count = 0.0, 0
        records, self.deleted = self.deleted, []
        groups: dict[tuple[int, str], list[Any]] = {}
        for series, start, total, count in parts:
            series.fold(start, total, count)
            row = [series.project_id, series.device_id, series.name, total, count]
            groups.setdefault((start, series.folder), []).append(row)
        records += [["h", start, folder, rows] for (start, folder), rows in groups.items()]
        return records

    def replay(self, record: list[Any]) -> None:
        """One record of drain(), at start. A foreign one is skipped."""
        try:
            _, start, folder, rows = record
            if start == "gone":
                self._forget(folder, *rows)
                return
            for project_id, device_id, name, total, count in rows:
                self._series(folder, project_id, device_id, name).fold(int(start), float(total), int(count))
            self.newest_ms = max(self.newest_ms, int(start))
        except (ValueError, TypeError, IndexError):
            log.warning(f"skipped a history record of the journal: {str(record)[:80]}")

    def snapshot(self) -> Document:
        """The running periods, JSON-able: `{"saved": ms, "java": {…}, "series": [[folder, project, device, "v5",
        [[key, sum, count], …]], …]}`. Call after drain()."""
        series = [
            [s.folder, s.project_id, s.device_id, s.name, [[key, *period] for key, period in s.periods.items()]]
            for s in self.known.values()
            if s.periods
        ]
        return {"saved": self.newest_ms, "java": self.carried, "series": series}

    def restore(self, snapshot: Any) -> None:
        """Takes up a snapshot() (None: there is none), then what the Java server left behind. Before the journal."""
        if isinstance(snapshot, dict):
            if isinstance(snapshot.get("saved"), int):
                self.newest_ms = max(self.newest_ms, snapshot["saved"])
            carried = snapshot.get("java")
            self.carried = carried if isinstance(carried, dict) else {}
            try:
                for folder, project_id, device_id, name, periods in snapshot.get("series", ()):
                    self._series(folder, project_id, device_id, name).periods = {
                        int(key): [float(total), int(count)] for key, total, count in periods
                    }
            except (ValueError, TypeError):
                log.warning("part of the running averages could not be read")
        self._carry_on_java()

    def _carry_on_java(self) -> None:
        """`minute_temp.bin` and its like, written by an orderly stop of the Java server (spec 05 §4.2)."""
        for index, (name, length) in enumerate(HISTORY_PERIODS):
            path = os.path.join(self.folder, f"{name}_temp.bin")
            try:
                status = os.stat(path)
            except OSError:
                continue
            stamp = [status.st_size, status.st_mtime_ns]
            if self.carried.get(name) == stamp:
                continue  # a kill came between the snapshot and the removal of the file
            try:
                entries = read_java_map(path)
                rows = [_java_average(key, value) for key, value in entries]
            except (OSError, ValueError) as problem:
                set_aside(path, problem)
                continue
            for folder, project_id, device_id, pin_name, period, total, count in rows:
                periods = self._series(folder, project_id, device_id, pin_name).periods
                held = periods.setdefault(period * length + index, [0.0, 0])
                held[0] += total
                held[1] += count
            self.carried[name] = stamp
            if rows:
                log.info(f"carrying on {len(rows)} unfinished {name} averages of the Java server")

    def _drop_java_files(self) -> None:
        """Disk thread, some minutes later: by then a snapshot has what they held."""
        if self.server.loop.now - self.started < 150:
            return
        for name in list(self.carried):
            path = os.path.join(self.folder, f"{name}_temp.bin")
            try:
                status = os.stat(path)
                if [status.st_size, status.st_mtime_ns] == self.carried[name]:
                    os.remove(path)
            except FileNotFoundError:
                self.carried.pop(name, None)
            except OSError:
                pass

    # -- each minute: finished periods to their files ----------------------------------------------------------------

    def due(self, now_ms: int) -> bool:
        """Whether flush() would have something to do."""
        return bool(self.unwritten) or any(
            key - index + HISTORY_PERIODS[index][1] <= now_ms
            for series in self.known.values()
            for key in series.periods
            for index in (key % MINUTE_MS,)
        )

    def flush(self, now_ms: int) -> list[tuple[str, bytes]]:
        """Finished periods as (path, records) for write(), taken out of memory. Call after drain()."""
        if self._clock_is_behind(now_ms) or self.disk_full:
            self._shorten()
            return []
        work, self.unwritten = self.unwritten, []
        averages: list[tuple[Series, int, int, float]] = []
        for series in self.known.values():
            if series.periods:
                self._settle(series, now_ms)
                self._finish(series, now_ms, work, averages)
        database = getattr(self.server, "database", None)
        if database is not None:
            database.averages(averages, now_ms)
        return work

    @staticmethod
    def _settle(series: Series, now_ms: int) -> None:
        """Periods from before the clock was set, or from a future it was set back from, count for the running ones."""
        lost = [key for key in series.periods if key < len(HISTORY_PERIODS) or key > now_ms + DAY_MS]
        for key in lost:
            index = key % MINUTE_MS
            total, count = series.periods.pop(key)
            held = series.periods.setdefault(now_ms - now_ms % HISTORY_PERIODS[index][1] + index, [0.0, 0])
            held[0] += total
            held[1] += count

    def _finish(
        self, series: Series, now_ms: int, work: list[tuple[str, bytes]], averages: list[tuple[Series, int, int, float]]
    ) -> None:
        files: dict[int, bytes] = {}
        for key in sorted(series.periods):
            index = key % MINUTE_MS
            start = key - index
            if start + HISTORY_PERIODS[index][1] <= now_ms:
                total, count = series.periods.pop(key)
                if count:
                    files[index] = files.get(index, b"") + RECORD.pack(total / count, start)
                    averages.append((series, index, start, total / count))
        for index, data in files.items():
            work.append((self.path(series.folder, series.project_id, series.device_id, series.name, index), data))

    def _shorten(self) -> None:
        """While nothing can be written: the oldest minutes go when there are too many of them."""
        for series in self.known.values():
            if len(series.periods) > 1500:
                for key in sorted(series.periods)[:-1500]:
                    del series.periods[key]

    def write(self, work: list[tuple[str, bytes]]) -> None:
        """Appends what flush() gave. Disk thread. What fails is kept, bounded, and tried again a minute later."""
        failed: list[tuple[str, bytes]] = []
        problem: Optional[OSError] = None
        for path, data in work:
            try:
                append_history(path, data)
            except OSError as error:
                problem = error
                failed.append((path, data))
        self.unwritten.extend(failed)
        while sum(len(data) + 100 for _, data in self.unwritten) > UNWRITTEN_LIMIT:
            del self.unwritten[: len(self.unwritten) // 10 + 1]
        if problem is not None and not self.complained:
            log.error(f"history cannot be written, {problem.strerror}: {failed[-1][0]}; it is kept in memory")
            self.server.health["history files"] = f"history cannot be written: {problem.strerror}"
        elif problem is None and self.complained:
            log.info("history is written again")
            self.server.health.pop("history files", None)
        self.complained = problem is not None

    def _each_minute(self) -> None:
        self.server.loop.call_later(60.0, self._each_minute)
        self.server.loop.submit("disk", self.check_disk)

    def check_disk(self) -> None:
        """Once a minute, in the disk thread: near the end of the disk history and raw data stop, values go on."""
        self._drop_java_files()
        try:
            free, total = disk_space(self.server.settings.data_folder)
        except OSError:
            return
        full = free < min(DISK_FLOOR, total // 20)
        if full != self.disk_full:
            self.disk_full = full
            if full:
                text = f"only {free >> 10} KB free for {self.server.settings.data_folder}"
                log.error(text + ": history and raw data wait for room; values and devices go on")
                self.server.health["disk"] = text
            else:
                log.info("there is room on the disk again: history goes on")
        if not full:
            self.server.health.pop("disk", None)

    # -- names -------------------------------------------------------------------------------------------------------

    def path(self, folder: str, project_id: int, device_id: int, name: str, index: int) -> str:
        """`…/data/ann@example.org/history_1-0_v5_minute.bin` (spec 05 §5.5); index into HISTORY_PERIODS."""
        file = f"history_{project_id}-{device_id}_{name}_{HISTORY_PERIODS[index][0]}.bin"
        return os.path.join(self.folder, folder, file)

    # -- reading -----------------------------------------------------------------------------------------------------

    def graph_plan(
        self, project: Project, widget: Document, override: Optional[int], period: str, page: int
    ) -> list[tuple[list[Any], Optional[str], int, int]]:
        """What a graph request will read, gathered in the loop: per stream (sources, function, count, skip), where a
        source is a path or the bytes of a live ring; function None for a single device (spec 05 §6.3).
        Errors: KeyError for an unknown period."""
        count, index = GRAPH_PERIODS[period]
        skip = count * page
        plan: list[tuple[list[Any], Optional[str], int, int]] = []
        for stream in widget.get("dataStreams", ()):
            name = stream_pin(stream.get("pin"))
            target = stream.get("targetId", 0) if override is None else override
            devices = project.selected(target) if name else []
            sources: list[Any] = []
            is_tag = FIRST_TAG_ID <= target < FIRST_SELECTOR_ID
            for device in devices:
                if index >= 0:
                    sources.append(self.path(project.account.folder_name, project.id, device.id, name, index))
                elif not is_tag:
                    series = self.known.get((project.account.folder_name, project.id, device.id, name))
                    sources.append(series.newest(count, skip) if series is not None else b"")
            plan.append((sources, (stream.get("functionType") or "AVG") if is_tag else None, count, skip))
        return plan

    def graph_reply(
        self, project: Project, widget: Document, override: Optional[int], period: str, page: int
    ) -> Optional[bytes]:
        """The whole answer at once; None when there is nothing. The app's handler does both halves apart."""
        return graph_bytes(project.id, self.graph_plan(project, widget, override, period, page))

    # -- export ------------------------------------------------------------------------------------------------------

    def http_csv(self, device: Device, letter: str, pin: int) -> Optional[str]:
        """Makes the CSV of a device's minutes and gives its name in the CSV folder, or None when there are none
        (spec 06 §3.7). Worker thread. The milliseconds in the name are off by up to half a day, at random: the name is
        all that protects the file. Errors: OSError."""
        account = device.project.account
        stamp = int(time.time() * 1000) + int.from_bytes(os.urandom(4), "big") % DAY_MS - DAY_MS // 2
        name = f"{account.email}_{device.project.id}_{device.id}_{letter}{pin}_{stamp}.csv.gz"
        return self._csv(name, account.folder_name, device.project.id, [device.id], f"{letter}{pin}")

    def export_csv(
        self, email: str, folder: str, project_id: int, target: int, device_ids: list[int], name: str
    ) -> Optional[str]:
        """The same for a graph's stream and the app's mail. Worker thread. Errors: OSError."""
        file = f"{email}_{project_id}_{target}_{name}_{int(time.time() * 1000)}_{new_token()[:16]}.csv.gz"
        return self._csv(file, folder, project_id, device_ids, name)

    def _csv(self, file: str, folder: str, project_id: int, device_ids: list[int], name: str) -> Optional[str]:
        import gzip

        most = self.server.settings.data_csv_max_points
        written = 0
        path = os.path.join(csv_folder(self.server.settings), safe_name(file))
        try:
            with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw) as out:
                for device_id in device_ids:
                    for line in csv_lines(self.path(folder, project_id, device_id, name, 0), most, device_id):
                        out.write(line)
                        written += 1
        except OSError:
            remove_file(path)
            raise
        if not written:
            remove_file(path)
            return None
        return os.path.basename(path)

    # -- deleting ----------------------------------------------------------------------------------------------------

    def delete(
        self,
        folder: str,
        project_id: Optional[int] = None,
        device_id: Optional[int] = None,
        pins: Optional[list[str]] = None,
        done: Optional[Callable[[Any, Optional[Exception]], object]] = None,
    ) -> bool:
        """Deletes an account's history, a project's, a device's or that of some pins (`["v4", …]`), in memory and on
        disk (spec 05 §7.2). done(number of files, error) comes when they are gone. False: the disk thread is too busy,
        nothing happened."""
        if not self.server.loop.submit("disk", self._delete_files, folder, project_id, device_id, pins, done=done):
            return False
        self._forget(folder, project_id, device_id, pins)
        self.deleted.append(["h", "gone", folder, [project_id, device_id, pins]])
        return True

    def _forget(
        self, folder: str, project_id: Optional[int], device_id: Optional[int], pins: Optional[list[str]]
    ) -> None:
        gone = set()
        for key, series in self.known.items():
            if key[0] == folder and chosen(key[1:], project_id, device_id, pins):
                series.clear()
                gone.add(id(series))
        self.pending = [part for part in self.pending if id(part[0]) not in gone]

    def _delete_files(
        self, folder: str, project_id: Optional[int], device_id: Optional[int], pins: Optional[list[str]]
    ) -> int:
        """Disk thread, behind the appends that are queued. Errors: OSError."""
        home = os.path.join(self.folder, folder)
        gone = 0
        for entry in list_folder(home):
            if chosen(file_owner(entry), project_id, device_id, pins):
                os.remove(os.path.join(home, entry))
                gone += 1
        self.unwritten = [
            (path, data)
            for path, data in self.unwritten
            if os.path.dirname(path) != home
            or not chosen(file_owner(os.path.basename(path)), project_id, device_id, pins)
        ]
        if project_id is None:
            try:
                os.rmdir(home)
            except OSError:
                pass  # something else lies there
        return gone

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Registers the periodic jobs (spec 05 §12); switches raw data on."""
        loop = self.server.loop
        self.raw_data = open_raw_data(self.server)
        loop.call_later(1.0, self._each_minute)
        loop.call_later(3600.0, self._truncate_all)
        loop.call_later(86_400.0, self._clean_unused)

    def stop(self) -> None:
        """At the end of the server: raw data that wait are written."""
        if self.raw_data is not None:
            self.raw_data.stop()

    def _truncate_all(self) -> None:
        self.server.loop.call_later(168 * 3600.0, self._truncate_all)
        self.server.loop.submit("disk", self.user_folders, done=self._truncate_next)
        self.server.loop.submit("disk", self.clean_exports)

    def _truncate_next(self, folders: Optional[list[str]], problem: Optional[Exception]) -> None:
        """One folder a job: an fsync of the journal must not wait for all of them."""
        if folders:
            folder = folders.pop()
            self.server.loop.submit("disk", self.truncate, folder, done=lambda *_: self._truncate_next(folders, None))

    def user_folders(self) -> list[str]:
        return [name for name in list_folder(self.folder) if os.path.isdir(os.path.join(self.folder, name))]

    def truncate(self, folder: str) -> None:
        """Cuts minute files to the newest `minute_history_days`; removes an empty folder (spec 05 §7.3)."""
        limit = self.server.settings.data_minute_history_days * 1440 * RECORD.size
        home = os.path.join(self.folder, folder)
        names = list_folder(home)
        for name in names:
            path = os.path.join(home, name)
            if name.endswith("_minute.bin") and os.path.getsize(path) > limit:
                with open(path, "rb") as file:
                    file.seek(os.path.getsize(path) // RECORD.size * RECORD.size - limit)
                    data = file.read(limit)
                replace_file(path, data)
        if not names:
            os.rmdir(home)

    def clean_exports(self) -> None:
        """Deletes exports and reports that are too old (spec 05 §7.3, both kinds). Disk thread."""
        oldest = time.time() - self.server.settings.data_export_keep_days * 86_400
        folder = csv_folder(self.server.settings)
        for name in list_folder(folder):
            path = os.path.join(folder, name)
            try:
                if name.endswith((".csv.gz", ".zip")) and os.path.getmtime(path) < oldest:
                    os.remove(path)
            except OSError:
                pass

    def _clean_unused(self) -> None:
        """Deletes the files of pins nobody shows any more, of accounts that changed (spec 05 §7.4)."""
        loop = self.server.loop
        loop.call_later(7 * 86_400.0, self._clean_unused)
        since, self.last_clean_ms = self.last_clean_ms, loop.now_ms
        for account in list(self.server.accounts.values()):
            changed = [account.document.get("lastModifiedTs", 0)]
            changed += [project.document.get("updatedAt", 0) for project in account.projects.values()]
            if max(changed) >= since:
                loop.submit("disk", self.clean_unused, account.folder_name, used_files(account))

    def clean_unused(self, folder: str, used: set[tuple[int, int, str]]) -> int:
        """Deletes the history files of an account that are not of a (project, device, pin) in `used`. Disk thread."""
        home = os.path.join(self.folder, folder)
        gone = 0
        for name in list_folder(home):
            owner = file_owner(name)
            if owner is not None and owner not in used:
                remove_file(os.path.join(home, name))
                gone += 1
        return gone


# -- who logs a pin ----------------------------------------------------------------------------------------------------


def stream_pin(stream: Optional[Document]) -> str:
    """The pin of a data stream, "v5" (spec 04 §9.1); "" when it has none. No pin type counts as virtual."""
    if not stream or stream.get("pin", 0) < 0:
        return ""
    return f"{LETTERS.get(stream.get('pinType', ''), 'v')}{stream.get('pin', 0)}"


def logging_widget(project: Project, device_id: int, letter: str, pin: int) -> Optional[Document]:
    """The first widget that logs the pin: a graph, a graph in a tile template, or a report (spec 05 §5.1)."""
    inner: Document
    for widget in project.widgets:
        kind = widget.get("type")
        if kind == "ENHANCED_GRAPH":
            if _graph_logs(project, widget, (), device_id, letter, pin):
                return widget
        elif kind == "DEVICE_TILES":
            for template in widget.get("templates", ()):
                devices = template.get("deviceIds", ())
                for inner in template.get("widgets", ()):
                    if inner.get("type") == "ENHANCED_GRAPH" and _graph_logs(
                        project, inner, devices, device_id, letter, pin
                    ):
                        return inner
        elif kind == "REPORT" and any(
            stream.get("pin", 0) == pin and stream.get("pinType") == PIN_TYPES[letter]
            for source in widget.get("reportSources", ())
            for stream in source.get("reportDataStreams", ())
        ):
            return widget
    return None


def _graph_logs(
    project: Project, graph: Document, template_devices: Iterable[int], device_id: int, letter: str, pin: int
) -> bool:
    for stream in graph.get("dataStreams", ()):
        if "pin" in stream and stream_matches(stream["pin"], letter, pin):
            target = stream.get("targetId", 0)
            if target == device_id or device_id in template_devices:
                return True
            if target >= FIRST_TAG_ID and any(device.id == device_id for device in project.assigned(target)):
                return True
    return False


def used_files(account: Account) -> set[tuple[int, int, str]]:
    """(project, device, "v5") of all history an account can still show (spec 05 §7.4), and of what is being logged."""
    used: set[tuple[int, int, str]] = set()
    for project in account.projects.values():
        for widget, template in project.all_widgets():
            if widget.get("type") == "ENHANCED_GRAPH":
                for stream in widget.get("dataStreams", ()):
                    name = stream_pin(stream.get("pin"))
                    ids = {device.id for device in project.assigned(stream.get("targetId", 0))}
                    ids.update(template.get("deviceIds", ()) if template is not None else ())
                    used.update((project.id, device_id, name) for device_id in ids if name)
            elif widget.get("type") == "REPORT":
                for source in widget.get("reportSources", ()):
                    _add_source(used, project.id, source, list(project.devices))
                for report in widget.get("reports", ()):
                    for source in report.get("reportSources", ()):
                        _add_source(used, project.id, source, source.get("deviceIds", ()))
    return used


def _add_source(used: set[tuple[int, int, str]], project_id: int, source: Document, device_ids: Iterable[int]) -> None:
    for stream in source.get("reportDataStreams", ()):
        name = stream_pin(stream)
        used.update((project_id, device_id, name) for device_id in device_ids if name)


# -- history files -----------------------------------------------------------------------------------------------------


def append_history(path: str, data: bytes) -> None:
    """Appends records to a history file. Disk thread. Errors: OSError.

    An incomplete record at the end is written over. A record the file has already is not written twice, whatever a kill
    made us do again; one that is a little late is put in its place (see History about clocks)."""
    try:
        file = open(path, "r+b")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = open(path, "x+b")
    with file:
        records = file.seek(0, os.SEEK_END) // RECORD.size
        last = _timestamp(file, records - 1) if records else -1
        if RECORD.unpack_from(data)[1] > last:
            _write_at(file, records, data)
        else:
            _write_late(file, records, last, data, path)


def _timestamp(file: Any, record: int) -> int:
    file.seek(record * RECORD.size)
    return int(RECORD.unpack(file.read(RECORD.size))[1])


def _write_at(file: Any, record: int, data: bytes) -> None:
    """All or nothing: a full disk must not leave half a record that the next append would hide."""
    file.seek(record * RECORD.size)
    try:
        file.write(data)
        file.flush()
    except OSError:
        try:
            os.ftruncate(file.fileno(), record * RECORD.size)
        except OSError:
            pass
        raise


def _write_late(file: Any, records: int, last: int, data: bytes, path: str) -> None:
    kind = path[path.rfind("_") + 1 : -4]
    index = next((i for i, (name, _) in enumerate(HISTORY_PERIODS) if name == kind), 0)
    window = FILE_KEEPS_ORDER[index]
    floor = last - window * HISTORY_PERIODS[index][1]
    start = max(0, records - window)
    file.seek(start * RECORD.size)
    old = file.read((records - start) * RECORD.size)
    held = [RECORD.unpack_from(old, at) for at in range(0, len(old), RECORD.size)]
    first = next((n for n in range(len(held) - 1, 0, -1) if held[n - 1][1] >= held[n][1]), 0)  # in order from here on
    tail = {ts: value for value, ts in held[first:]}
    anew = b""  # far behind the last one: the clock was ahead before, here begins a new order
    for value, ts in RECORD.iter_unpack(data):
        if ts < floor or anew:
            anew += RECORD.pack(value, ts)
        elif ts in tail:
            tail[ts] = value if tail[ts] == value else (tail[ts] + value) / 2
        else:
            tail[ts] = value
    new = old[: first * RECORD.size] + b"".join(RECORD.pack(tail[ts], ts) for ts in sorted(tail)) + anew
    same = next((n for n in range(0, len(old), RECORD.size) if old[n : n + 16] != new[n : n + 16]), len(old))
    if new[same:]:
        _write_at(file, start + same // RECORD.size, new[same:])


def read_history(path: str, count: int, skip: int = 0) -> bytes:
    """The last `count` records before the last `skip` ones, oldest first; b"" when there are none (spec 05 §6.2).
    Errors: OSError, but not for a file that does not exist."""
    try:
        with open(path, "rb", 0) as file:
            end = file.seek(0, os.SEEK_END) // RECORD.size - skip
            if end <= 0:
                return b""
            start = max(0, end - count)
            file.seek(start * RECORD.size)
            return file.read((end - start) * RECORD.size)
    except FileNotFoundError:
        return b""


def csv_lines(path: str, most: int, device_id: int) -> Iterator[bytes]:
    """`value,ts,deviceId` lines of a file, oldest first (spec 05 §7.1)."""
    data = read_history(path, most)
    for value, ts in RECORD.iter_unpack(data):
        yield f"{java_double(value)},{ts},{device_id}\n".encode()


def _median(values: list[float]) -> float:
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


MERGE_FUNCTIONS: dict[str, Callable[[list[float]], float]] = {
    "MIN": min,
    "MAX": max,
    "AVG": lambda values: sum(values) / len(values),
    "SUM": sum,
    "MED": _median,
}


def merge_records(parts: list[bytes], function: str) -> bytes:
    """The records of a tag's devices, brought together per timestamp (spec 05 §6.3)."""
    values: dict[int, list[float]] = {}
    for part in parts:
        for value, ts in RECORD.iter_unpack(part):
            values.setdefault(ts, []).append(value)
    merge = MERGE_FUNCTIONS.get(function, MERGE_FUNCTIONS["AVG"])
    return b"".join(RECORD.pack(merge(values[ts]), ts) for ts in sorted(values))


def graph_bytes(project_id: int, plan: list[tuple[list[Any], Optional[str], int, int]]) -> Optional[bytes]:
    """The answer to GET_ENHANCED_GRAPH_DATA: zlib of `i32 project, per stream i32 n, n × (f64, i64)` (spec 05 §6.4);
    None when all streams are empty. Worker thread. Errors: OSError."""
    body = [struct.pack(">i", project_id)]
    for sources, function, count, skip in plan:
        parts = [source if isinstance(source, bytes) else read_history(source, count, skip) for source in sources]
        records = merge_records(parts, function) if function is not None else b"".join(parts[:1])
        body.append(struct.pack(">i", len(records) // RECORD.size))
        body.append(records)
    return zlib.compress(b"".join(body)) if any(body[2::2]) else None


# -- small file helpers ------------------------------------------------------------------------------------------------


def disk_space(path: str) -> tuple[int, int]:
    """(free for us, total) bytes of the disk a path is on. Errors: OSError."""
    if hasattr(os, "statvfs"):  # shutil would load the compressors, half a megabyte
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    import shutil

    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def list_folder(path: str) -> list[str]:
    """Names in a folder; none when it does not exist."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_file(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        pass


def replace_file(path: str, data: bytes) -> None:
    """The file's new content, whole or not at all. Errors: OSError."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        remove_file(temporary)
        raise


def set_aside(path: str, problem: Exception) -> None:
    """Renames a file we cannot read, so that nothing is lost and nobody stumbles over it again."""
    aside = f"{path}.corrupt-{int(time.time())}"
    try:
        os.replace(path, aside)
        log.warning(f"{path} cannot be read ({problem}); it is now {os.path.basename(aside)}")
    except OSError as error:
        log.warning(f"{path} cannot be read ({problem}) nor set aside ({error.strerror})")


def safe_name(name: str) -> str:
    """A file name that stays in its folder and needs no escaping in a link."""
    return "".join(c if c.isascii() and c.isalnum() or c in "@._-+" else "_" for c in name).lstrip(".")


def csv_folder(settings: Settings) -> str:
    """The folder of exports and reports, made if need be (spec 05 §1). Errors: OSError."""
    folder: str = settings.data_csv_folder or os.path.join(temp_folder(), "blynk")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def file_owner(name: str) -> Optional[tuple[int, int, str]]:
    """(project, device, "v5") of `history_1-0_v5_minute.bin`; None for any other name."""
    parts = name.split("_")
    if len(parts) != 4 or parts[0] != "history" or not parts[3].endswith(".bin"):
        return None
    project, _, device = parts[1].partition("-")
    try:
        return int(project), int(device), parts[2]
    except ValueError:
        return None


def chosen(
    owner: Optional[tuple[int, int, str]],
    project_id: Optional[int],
    device_id: Optional[int],
    pins: Optional[list[str]],
) -> bool:
    """Whether a (project, device, "v5") is among those meant; None means all of them."""
    return (
        owner is not None
        and (project_id is None or owner[0] == project_id)
        and (device_id is None or owner[1] == device_id)
        and (pins is None or owner[2] in pins)
    )


# -- what the Java server serialised -----------------------------------------------------------------------------------


class JavaReader:
    """Reads one object of a Java object stream (`AC ED 00 05`), any classes, without knowing them.

    Objects become dicts: the fields of all their classes by name, `"class"`, and under `"data"` the list of what their
    writeObject added (bytes for plain data). Enum constants become their names. Errors: ValueError.
    """

    MOST_ITEMS = 5_000_000
    DEEPEST = 100
    SIZES = {"B": ">b", "C": ">H", "D": ">d", "F": ">f", "I": ">i", "J": ">q", "S": ">h", "Z": ">?"}

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.depth = data, 4, 0
        self.handles: list[Any] = []
        if data[:4] != b"\xac\xed\0\5":
            raise ValueError("not a Java object stream")

    def read(self) -> Any:
        try:
            return self._content()
        except (struct.error, IndexError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as problem:
            raise ValueError(f"damaged Java object stream near byte {self.at}: {problem!r}") from None

    def _unpack(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def _bytes(self, length: int) -> bytes:
        if not 0 <= length <= len(self.data) - self.at:
            raise ValueError("damaged Java object stream: it ends early")
        self.at += length
        return self.data[self.at - length : self.at]

    def _text(self, form: str = ">H") -> str:
        return self._bytes(self._unpack(form)).replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")

    def _handle(self, value: Any) -> Any:
        if len(self.handles) > self.MOST_ITEMS:
            raise ValueError("too large a Java object stream")
        self.handles.append(value)
        return value

    END = object()

    def _content(self) -> Any:
        kind = self._unpack(">B")
        self.depth += 1
        if self.depth > self.DEEPEST:
            raise ValueError("too deep a Java object stream")
        try:
            return self.READERS[kind](self)
        finally:
            self.depth -= 1

    def _class_of_object(self) -> Any:
        kind = self._unpack(">B")
        if kind not in (0x70, 0x71, 0x72):
            raise ValueError(f"a Java class expected, not type {kind:#x}")
        return self.READERS[kind](self)

    def _class_description(self) -> Any:
        description: dict[str, Any] = {"name": self._text()}
        self.at += 8  # the class's version
        self._handle(description)
        flags = self._unpack(">B")
        fields = []
        for _ in range(self._unpack(">H")):
            code = chr(self._unpack(">B"))
            name = self._text()
            if code in "[L":
                self._content()
            fields.append((code, name))
        self._annotation()
        description.update(flags=flags, fields=fields, parent=self._class_of_object())
        return description

    def _annotation(self) -> list[Any]:
        items: list[Any] = []
        while True:
            item = self._content()
            if item is self.END:
                return items
            items.append(item)

    def _value(self, code: str) -> Any:
        return self._content() if code in "[L" else self._unpack(self.SIZES[code])

    def _object(self) -> Any:
        description = self._class_of_object()
        value: dict[str, Any] = {"class": description["name"], "data": []}
        self._handle(value)
        chain = []
        while description is not None:
            chain.append(description)
            description = description["parent"]
        for part in reversed(chain):
            if part["flags"] & 4:
                raise ValueError(f"a Java class that writes itself: {part['name']}")
            for code, name in part["fields"]:
                value[name] = self._value(code)
            if part["flags"] & 1:
                value["data"] += self._annotation()
        return value

    def _array(self) -> list[Any]:
        code = self._class_of_object()["name"][1]
        items: list[Any] = self._handle([])
        for _ in range(self._unpack(">i")):
            items.append(self._value(code))
        return items

    def _enum(self) -> Any:
        self._class_of_object()
        slot = len(self.handles)
        self._handle(None)
        self.handles[slot] = self._content()
        return self.handles[slot]

    def _reference(self) -> Any:
        return self.handles[self._unpack(">i") - 0x7E0000]

    def _class_object(self) -> Any:
        return self._handle(self._class_of_object())

    READERS: dict[int, Callable[[JavaReader], Any]] = {
        0x70: lambda self: None,
        0x71: _reference,
        0x72: _class_description,
        0x73: _object,
        0x74: lambda self: self._handle(self._text()),
        0x75: _array,
        0x76: _class_object,
        0x77: lambda self: self._bytes(self._unpack(">B")),
        0x78: lambda self: JavaReader.END,
        0x7A: lambda self: self._bytes(self._unpack(">i")),
        0x7C: lambda self: self._handle(self._text(">q")),
        0x7E: _enum,
    }


def read_java_map(path: str) -> list[tuple[Any, Any]]:
    """The entries of a serialised hash map (spec 05 §4.2). Errors: OSError, ValueError."""
    with open(path, "rb") as file:
        data = file.read(64 << 20)
    value = JavaReader(data).read()
    if not isinstance(value, dict):
        raise ValueError("not a map")
    items = [item for item in value["data"] if not isinstance(item, bytes)]
    entries = []
    for at in range(0, len(items) - 1, 2):
        if items[at] is None:
            break
        entries.append((items[at], items[at + 1]))
    return entries


def history_folder(email: str, app: str) -> str:
    """The folder of an account's history below data/ (spec 05 §1)."""
    return email if app == "Blynk" else f"{email}_{app}"


def _java_average(key: Any, value: Any) -> tuple[str, int, int, str, int, float, int]:
    """(folder, project, device, "v5", period number, sum, count). Errors: ValueError."""
    try:
        base = key["baseReportingKey"]
        name = f"{LETTERS[base['pinType']]}{base['pin']}"
        folder = history_folder(base["email"], base["appName"])
        return folder, base["dashId"], base["deviceId"], name, key["ts"], value["values"], value["count"]
    except (KeyError, TypeError) as problem:
        raise ValueError(f"an average without {problem}") from None


def read_java_tokens(path: str) -> dict[str, Document]:
    """Reset tokens of `tokens_pool_temp.bin`: token -> {"email", "appName", "expireAt" ms}. Empty when there is no such
    file; one that cannot be read is set aside."""
    try:
        return {
            token: {name: value[name] for name in ("email", "appName", "expireAt")}
            for token, value in read_java_map(path)
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        set_aside(path, problem)
        return {}


# -- 6c Raw data -------------------------------------------------------------------------------------------------------
# Every value of every pin as it came, text too; off unless `raw_data.store` says where: "sqlite" (raw_data.db in the
# data folder), "csv" (a folder `raw` there) or "postgres" (the Java server's table, through room 6d). Values are
# gathered in memory, bounded, and written in one go per journal interval; what cannot be written is tried again, then
# dropped and counted in the log.

RAW_LIMIT = 100_000  # values waiting in memory
RAW_COMPLAINT_SECONDS = 60.0
CSV_PIECE_MOST, CSV_PIECE_LEAST = 10 << 20, 64 << 10  # bytes of a CSV file before it is put away


class RawData:
    """Gathers values and hands them in batches to write(), which the kinds of store implement.

    A value is (email, app, project, device, letter, pin, text, ms).
    """

    thread = "disk"

    def __init__(self, server: Any) -> None:
        self.server, self.settings = server, server.settings
        self.waiting: list[tuple[Any, ...]] = []
        self.dropped = 0
        self.complained_at = -RAW_COMPLAINT_SECONDS
        self.busy = False
        self.retry_at = 0.0
        self.max_bytes = self.settings.raw_data_max_mb << 20
        self.timer = self.server.loop.call_later(self.settings.data_journal_interval_ms / 1000, self.tick)

    def add(self, account: Account, project_id: int, device_id: int, letter: str, pin: int, text: str, ms: int) -> None:
        if len(self.waiting) >= RAW_LIMIT:
            self.dropped += 1
            return
        if not text.isascii():
            text = encode(text).decode()  # a lone surrogate would spoil its whole batch, and so would a wild timestamp
        ms = min(max(ms, 0), LAST_MS)
        self.waiting.append((account.email, account.app, project_id, device_id, letter, pin, text, ms))

    def tick(self) -> None:
        """Each journal interval: what waits goes to the worker thread, one batch at a time."""
        loop = self.server.loop
        self.timer = loop.call_later(self.settings.data_journal_interval_ms / 1000, self.tick)
        if self.dropped and loop.now - self.complained_at >= RAW_COMPLAINT_SECONDS:
            log.warning(f"raw data: {self.dropped} values dropped, the store does not take them")
            self.dropped, self.complained_at = 0, loop.now
        if self.waiting and not self.busy and loop.now >= self.retry_at:
            if self.server.history.disk_full and self.thread == "disk":
                self.dropped += len(self.waiting)
                self.waiting = []
                return
            batch, self.waiting = self.waiting, []
            self.busy = True
            if not loop.submit(self.thread, self.write, batch, done=lambda _, problem: self._written(batch, problem)):
                self._written(batch, OSError(errno.EAGAIN, "too much to write"))

    def _written(self, batch: list[tuple[Any, ...]], problem: Optional[Exception]) -> None:
        self.busy = False
        health = self.server.health
        if problem is None:
            if health.pop("raw data", None):
                log.info("raw data are written again")
            return
        self.retry_at = self.server.loop.now + 10
        self.waiting[:0] = batch
        if len(self.waiting) > RAW_LIMIT:
            self.dropped += len(self.waiting) - RAW_LIMIT
            del self.waiting[: len(self.waiting) - RAW_LIMIT]
        text = " ".join(f"raw data cannot be written: {problem}".split())
        if health.get("raw data") != text:
            health["raw data"] = text
            log.error(text)

    def write(self, batch: list[tuple[Any, ...]]) -> None:
        """Worker thread. Errors: any; the batch is tried again ten seconds later."""
        raise NotImplementedError

    def stop(self) -> None:
        """The last values, in the caller's thread; then the store is closed."""
        self.timer.cancel()
        try:
            if self.waiting:
                self.write(self.waiting)
            self.close()
        except Exception as problem:  # a database may raise its own kinds
            log.error(f"raw data: the last {len(self.waiting)} values are lost: {problem}")
        self.waiting = []

    def close(self) -> None:
        """Gives back what the store holds open."""


class SqliteRawData(RawData):
    """One table of values, one of the pins they belong to. WAL: a batch is one append, no fsync of its own."""

    SCHEMA = """
        PRAGMA auto_vacuum = INCREMENTAL;
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = NORMAL;
        PRAGMA journal_size_limit = 1048576;
        PRAGMA cache_size = -512;
        CREATE TABLE IF NOT EXISTS pins (id INTEGER PRIMARY KEY, email TEXT, app TEXT, project_id INTEGER,
            device_id INTEGER, pin_type TEXT, pin INTEGER, UNIQUE (email, app, project_id, device_id, pin_type, pin));
        CREATE TABLE IF NOT EXISTS raw_data (id INTEGER PRIMARY KEY, pin_id INTEGER, ts INTEGER, value);
        CREATE INDEX IF NOT EXISTS raw_data_of_pin ON raw_data (pin_id, ts);
        CREATE VIEW IF NOT EXISTS raw AS SELECT email, app, project_id, device_id, pin_type, pin, ts, value
            FROM raw_data JOIN pins ON pins.id = pin_id;
    """

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.path = os.path.join(self.settings.data_folder, "raw_data.db")
        self.db: Any = None
        self.pins: dict[tuple[Any, ...], int] = {}
        self.batches = 0

    def _open(self) -> None:
        import sqlite3

        try:
            self.db = sqlite3.connect(self.path, check_same_thread=False, timeout=5)
            self.db.executescript(self.SCHEMA)
        except sqlite3.DatabaseError as problem:
            if self.db is not None:
                self.db.close()
                self.db = None
            if not isinstance(problem, sqlite3.OperationalError):  # not a database
                set_aside(self.path, problem)
            raise
        self.pins = {tuple(row[1:]): row[0] for row in self.db.execute("SELECT * FROM pins")}

    def write(self, batch: list[tuple[Any, ...]]) -> None:
        if self.db is None:
            self._open()
        try:
            with self.db:
                rows = [(self._pin(value[:6]), value[7], self._value(value[6])) for value in batch]
                self.db.executemany("INSERT INTO raw_data (pin_id, ts, value) VALUES (?, ?, ?)", rows)
            self.batches += 1
            if self.batches % 60 == 1:
                self._shorten()
        except Exception:
            self.db.close()
            self.db = None
            self.pins.clear()
            raise

    def _pin(self, key: tuple[Any, ...]) -> int:
        found = self.pins.get(key)
        if found is None:
            sql = "INSERT INTO pins (email, app, project_id, device_id, pin_type, pin) VALUES (?, ?, ?, ?, ?, ?)"
            found = self.pins[key] = self.db.execute(sql, key).lastrowid
        return found

    @staticmethod
    def _value(text: str) -> Any:
        number = parse_number(text)
        return text if number is None or number - number != 0 else number

    def _shorten(self) -> None:
        """The oldest values go: those that are too old, and as many as it takes to stay below the size."""
        oldest = int(time.time() * 1000) - self.settings.raw_data_keep_days * DAY_MS
        with self.db:
            self.db.execute(
                "DELETE FROM raw_data WHERE id < (SELECT min(id) FROM raw_data WHERE ts >= ?) AND ts < ?",
                (oldest, oldest),
            )
        pages, free, size = (
            self.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        used = (pages - free) * size
        if used > self.max_bytes * 0.95:
            first, last = self.db.execute("SELECT min(id), max(id) FROM raw_data").fetchone()
            share = 1 - self.max_bytes * 0.85 / used
            with self.db:
                self.db.execute("DELETE FROM raw_data WHERE id < ?", (first + int((last - first + 1) * share),))
        self.db.execute("PRAGMA incremental_vacuum(2000)").fetchall()

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None


class CsvRawData(RawData):
    """A file per pin, `raw/<account>/raw_1-0_v5.csv` with lines `value,timestamp,deviceId`; a full one is put away
    under its date. Text with a comma, quote or line end is quoted; a NUL between parts of a value is written `\\0`."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.folder = os.path.join(self.settings.data_folder, "raw")
        self.files: set[str] = set()
        self.batches = 0

    def write(self, batch: list[tuple[Any, ...]]) -> None:
        pieces: dict[str, list[str]] = {}
        for email, app, project_id, device_id, letter, pin, text, ms in batch:
            name = os.path.join(history_folder(email, app), f"raw_{project_id}-{device_id}_{letter}{pin}.csv")
            pieces.setdefault(name, []).append(f"{self._field(text)},{ms},{device_id}\n")
        self.files.update(pieces)
        piece = min(max(self.max_bytes // (2 * len(self.files)), CSV_PIECE_LEAST), CSV_PIECE_MOST)
        for name in list(pieces):
            self._append(os.path.join(self.folder, name), "".join(pieces[name]).encode("utf-8", "replace"), piece)
        self.batches += 1
        if self.batches % 60 == 1:
            self._shorten()

    @staticmethod
    def _field(text: str) -> str:
        text = text.replace("\0", "\\0")
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text

    @staticmethod
    def _append(path: str, data: bytes, piece: int) -> None:
        try:
            file = open(path, "ab", 0)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = open(path, "ab", 0)
        with file:
            at = file.tell()
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(file.fileno(), at)
                raise
        if at + len(data) > piece:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            away, number = f"{path[:-4]}_{stamp}.csv", 1
            while os.path.exists(away):
                away, number = f"{path[:-4]}_{stamp}-{number}.csv", number + 1
            os.replace(path, away)

    def _shorten(self) -> None:
        """Files nobody wrote to for `keep_days` go, then the oldest until all fit."""
        found = []
        for home, _, names in os.walk(self.folder):
            for name in names:
                status = os.stat(os.path.join(home, name))
                found.append((status.st_mtime, status.st_size, os.path.join(home, name)))
        found.sort()
        total = sum(size for _, size, _ in found)
        oldest = time.time() - self.settings.raw_data_keep_days * 86_400
        for mtime, size, path in found:
            if mtime >= oldest and total <= self.max_bytes:
                break
            os.remove(path)
            total -= size


class PostgresRawData(RawData):
    """The Java server's table reporting_raw_data (spec 05 §10.2)."""

    thread = "database"

    def write(self, batch: list[tuple[Any, ...]]) -> None:
        database = self.server.database
        if database is None:
            raise OSError("there is no database")
        database.insert_raw(batch)


def open_raw_data(server: Any) -> Optional[RawData]:
    """The store of the settings, or None when raw data are off."""
    kinds: dict[str, type[RawData]] = {"sqlite": SqliteRawData, "csv": CsvRawData, "postgres": PostgresRawData}
    kind = kinds.get(server.settings.raw_data_store)
    return kind(server) if kind is not None else None


# -- 6d Database -------------------------------------------------------------------------------------------------------
# PostgreSQL mode (`database.enabled`, spec 05 §10): accounts are mirrored, several servers behind one database find out
# whose a token is, redeem and clone codes and flashed tokens live there. All work is done in a thread of its own, one
# piece after the other; a database that is away delays nobody: what asks is told "not found", what tells is tried again
# (accounts) or dropped (averages). Needs the package psycopg, imported only here.

DATABASE_RETRY = 10.0  # seconds between attempts to connect
REDIRECT_CACHE = 1000  # tokens whose server is remembered, unknown ones too; forgotten each hour (spec 02 §1)

DATABASE_TABLES = {
    "users": """email text NOT NULL, appName text NOT NULL, region text, ip text, name text, pass text,
        last_modified timestamp, last_logged timestamp, last_logged_ip text, is_facebook_user bool,
        is_super_admin bool DEFAULT FALSE, energy int, json text, PRIMARY KEY (email, appName)""",
    "redeem": """token char(32) PRIMARY KEY, company text, isRedeemed boolean DEFAULT FALSE,
        reward integer NOT NULL DEFAULT 0, email text, version integer NOT NULL DEFAULT 1, ts timestamp""",
    "flashed_tokens": """token char(32), app_name text, email text, project_id int4 NOT NULL, device_id int4 NOT NULL,
        is_activated boolean DEFAULT FALSE, ts timestamp, PRIMARY KEY (token, app_name)""",
    "cloned_projects": "token char(32) PRIMARY KEY, ts timestamp, json text",
    "purchase": """email text, reward integer NOT NULL, transactionId text, price float8,
        ts timestamp NOT NULL DEFAULT now(), PRIMARY KEY (email, transactionId)""",
    "forwarding_tokens": """token char(32), host text, email text, project_id int4, device_id int4,
        ts timestamp DEFAULT now(), PRIMARY KEY (token, host)""",
}
AVERAGE_TABLE = """email text, project_id int4, device_id int8, pin int2, pin_type int2, ts timestamp with time zone,
    value float8, PRIMARY KEY (email, project_id, device_id, pin, pin_type, ts)"""
APP_STAT_COLUMNS = (
    "active active_week active_month minute_rate connected online_apps online_hards total_online_apps"
    " total_online_hards registrations"
).split()
COMMAND_STAT_COLUMNS = (
    "response register login load_profile app_sync sharing get_token ping activate deactivate refresh_token"
    " get_graph_data export_graph_data set_widget_property bridge hardware get_share_dash get_share_token"
    " refresh_share_token share_login create_project update_project delete_project hardware_sync internal sms tweet"
    " email push add_push_token create_widget update_widget delete_widget create_device update_device delete_device"
    " get_devices create_tag update_tag delete_tag get_tags add_energy get_energy get_server connect_redirect"
    " web_sockets eventor webhooks appTotal hardTotal"
).split()
HTTP_STAT_COLUMNS = (
    "is_hardware_connected is_app_connected get_pin_data update_pin email push get_project qr get_history_pin_data"
    " total"
).split()
# Where a column's counter has another name than its own in camel case.
STAT_NAMES = {
    "minute_rate": "oneMinRate",
    "get_share_dash": "getSharedDash",
    "hardTotal": "mqttTotal",
    "update_pin": "updatePinData",
}
HTTP_STAT_NAMES = {"push": "notify"}


def _stat_table(columns: list[str]) -> str:
    return f"region text, ts timestamp, {', '.join(name + ' int4' for name in columns)}, PRIMARY KEY (region, ts)"


REPORTING_TABLES = {
    "reporting_raw_data": """email text, project_id int4, device_id int4, pin int2, pinType char, ts timestamp,
        stringValue text, doubleValue float8, PRIMARY KEY (email, project_id, device_id, pin, pinType, ts)""",
    "reporting_average_minute": AVERAGE_TABLE,
    "reporting_average_hourly": AVERAGE_TABLE,
    "reporting_average_daily": AVERAGE_TABLE,
    "reporting_app_stat_minute": _stat_table(APP_STAT_COLUMNS),
    "reporting_app_command_stat_minute": _stat_table(COMMAND_STAT_COLUMNS),
    "reporting_http_command_stat_minute": _stat_table(HTTP_STAT_COLUMNS),
}

PURCHASE_PRICES = {200: 0.0, 1000: 0.99, 2400: 1.99, 5000: 3.99, 13000: 9.99, 28000: 19.99}
NOT_A_PURCHASE = ("AdColonyAward", "homeScreen")
SQL_TIME = "to_timestamp(%s::float8 / 1000)::timestamp"  # of ms; the session's zone is UTC


class PostgresConnection:
    """One connection, opened when first used and again after it broke. Database thread only."""

    __slots__ = ("driver", "url", "user", "password", "tables", "connection", "retry_at")

    def __init__(self, driver: Any, url: str, user: str, password: str, tables: dict[str, str]) -> None:
        if url.startswith("jdbc:"):  # its parameters mean nothing to libpq
            url = url[5:].partition("?")[0]
        self.driver, self.url, self.user, self.password, self.tables = driver, url, user, password, tables
        self.connection: Any = None
        self.retry_at = 0.0

    def run(self, work: Callable[[Any], Any]) -> Any:
        """work(cursor) in a transaction of its own. Errors: the driver's, OSError while the database is away."""
        if self.connection is None:
            self._open()
        connection = self.connection
        try:
            with connection.cursor() as cursor:
                result = work(cursor)
            connection.commit()
            return result
        except Exception as problem:
            if connection.closed or connection.broken or isinstance(problem, self.driver.OperationalError):
                self.close()
            else:
                connection.rollback()
            raise

    def _open(self) -> None:
        if time.monotonic() < self.retry_at:
            raise OSError("the database is away")
        try:
            self.connection = self.driver.connect(
                self.url,
                user=self.user or None,
                password=self.password or None,
                connect_timeout=10,
                application_name="blynk-pi",
                options="-c timezone=UTC -c statement_timeout=60000",
                keepalives_idle=30,
                tcp_user_timeout=60000,
            )
            self._make_tables()
        except Exception:
            self.retry_at = time.monotonic() + DATABASE_RETRY
            self.close()
            raise

    def _make_tables(self) -> None:
        with self.connection.cursor() as cursor:
            for name, columns in self.tables.items():
                cursor.execute("SELECT to_regclass(%s)", (name,))
                if cursor.fetchone()[0] is None:
                    cursor.execute(f"CREATE TABLE {name} ({columns})")
        self.connection.commit()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as problem:
                log.debug(f"database: {problem}")


class Database:
    """What the other rooms ask of the database. Every method may be called in the loop and returns at once; answers
    come as done(...) in the loop. `connected` is what is known of the accounts' database."""

    def __init__(self, server: Any, driver: Any) -> None:
        settings = server.settings
        self.server, self.loop = server, server.loop
        url = settings.database_url or "postgresql://localhost:5432/blynk"
        user, password = settings.database_user, settings.database_password
        self.main = PostgresConnection(driver, url, user, password, DATABASE_TABLES)
        self.reporting = PostgresConnection(
            driver,
            settings.database_reporting_url or url,
            settings.database_reporting_user or user,
            settings.database_reporting_password or password,
            REPORTING_TABLES,
        )
        self.connected = False
        self.complained: dict[str, str] = {}
        self.users: dict[tuple[str, str], tuple[Any, ...]] = {}  # rows still to be written
        self.hosts: dict[str, Optional[str]] = {}  # token -> host, oldest first
        self.hosts_since = 0.0
        self.save_timer: Optional[Timer] = None
        self.loop.pools.setdefault("database", Workers(self.loop, "database", 1, 2000))

    # -- work and its failures ---------------------------------------------------------------------------------------

    def submit(
        self,
        work: Callable[[Any], Any],
        done: Optional[Callable[[Any, Optional[Exception]], object]] = None,
        reporting: bool = False,
    ) -> bool:
        """work(cursor) in the database thread. False when too much waits."""
        connection = self.reporting if reporting else self.main

        def finished(result: Any, problem: Optional[Exception]) -> None:
            self._note(reporting, problem)
            if done is not None:
                done(result, problem)

        return bool(self.loop.submit("database", connection.run, work, done=finished))

    def _note(self, reporting: bool, problem: Optional[Exception]) -> None:
        """Says once that the database does not work, and once that it does."""
        name = "reporting database" if reporting else "database"
        if not reporting:
            self.connected = problem is None or self.main.connection is not None
        if problem is None:
            if self.complained.pop(name, None):
                self.server.health.pop(name, None)
                log.info(f"{name}: working again")
            return
        text = " ".join(str(problem).split())[:300]
        if name not in self.complained:
            log.error(f"{name}: {text}; the server goes on without it and tries again")
            self.server.health[name] = text
        self.complained[name] = text

    def start(self) -> None:
        """Connects, and enters the tokens of the accounts that are here."""
        rows = [
            (device.token, account.email, project.id, device.id)
            for account in self.server.accounts.values()
            for project in account.projects.values()
            for device in project.devices.values()
            if device.token
        ]
        self._enter_tokens(rows)
        if self.server.settings.database_clean_reporting:
            self.loop.call_later(60.0, self._clean)

    def stop(self) -> None:
        """At the end, after the accounts were saved: what waits is written, then the connections are closed."""
        if self.save_timer is not None:
            self.save_timer.cancel()
        self.loop.pools["database"].stop(15.0)
        rows = list(self.users.values())
        try:
            if rows:
                self.main.run(lambda cursor: cursor.executemany(self.SAVE_USER, rows))
        except Exception as problem:
            log.error(f"database: {len(rows)} accounts could not be mirrored: {problem}")
        self.main.close()
        self.reporting.close()

    # -- accounts ----------------------------------------------------------------------------------------------------

    SAVE_USER = f"""INSERT INTO users (email, appName, region, ip, name, pass, last_modified, last_logged,
        last_logged_ip, is_facebook_user, is_super_admin, energy, json)
        VALUES (%s, %s, %s, %s, %s, %s, {SQL_TIME}, {SQL_TIME}, %s, %s, %s, %s, %s)
        ON CONFLICT (email, appName) DO UPDATE SET region = EXCLUDED.region, ip = EXCLUDED.ip, name = EXCLUDED.name,
        pass = EXCLUDED.pass, last_modified = EXCLUDED.last_modified, last_logged = EXCLUDED.last_logged,
        last_logged_ip = EXCLUDED.last_logged_ip, is_facebook_user = EXCLUDED.is_facebook_user,
        is_super_admin = EXCLUDED.is_super_admin, energy = EXCLUDED.energy, json = EXCLUDED.json"""

    def user_saved(self, account: Account) -> None:
        """Mirrors an account after its file was saved; several within a second go together."""
        user = account.document
        self.users[account.email, account.app] = (
            account.email, account.app, self.server.settings.server_region, self.server.host,
            user.get("name"), user.get("pass"), user.get("lastModifiedTs", 0), user.get("lastLoggedAt", 0),
            user.get("lastLoggedIP"), user.get("isFacebookUser", False), user.get("isSuperAdmin", False),
            min(user.get("energy", 0), 2147483647), encode(to_json(account.profile())).decode(),
        )  # fmt: skip
        if self.save_timer is None:
            self.save_timer = self.loop.call_later(1.0, self._save_users)

    def _save_users(self) -> None:
        self.save_timer = None
        rows, self.users = self.users, {}

        def done(_: Any, problem: Optional[Exception]) -> None:
            if problem is not None:
                self.users = {**rows, **self.users}
                if self.save_timer is None:
                    self.save_timer = self.loop.call_later(30.0, self._save_users)

        if rows and not self.submit(lambda cursor: cursor.executemany(self.SAVE_USER, list(rows.values())), done):
            done(None, OSError("too much to write"))

    def user_deleted(self, email: str, app: str) -> None:
        self.users.pop((email, app), None)
        self.submit(lambda cursor: cursor.execute("DELETE FROM users WHERE email = %s AND appName = %s", (email, app)))

    def server_of(self, email: str, app: str, done: Callable[[Optional[str]], object]) -> bool:
        """The host of a user's server, None when the database does not know (GET_SERVER, spec 03a §2.8)."""

        def look(cursor: Any) -> Optional[str]:
            row = cursor.execute("SELECT ip FROM users WHERE email = %s AND appName = %s", (email, app)).fetchone()
            return row[0] if row else None

        return self.submit(look, lambda host, _: done(host))

    def restore_users(self) -> list[Document]:
        """The accounts of our region as user documents, for `-restore`. Waits for them, before the loop runs. Errors:
        any; the server must not start then."""

        def load(cursor: Any) -> list[Any]:
            cursor.execute(
                "SELECT email, appName, region, ip, name, pass, is_facebook_user, is_super_admin, energy, json,"
                " extract(epoch FROM last_modified) * 1000, extract(epoch FROM last_logged) * 1000, last_logged_ip"
                " FROM users WHERE region = %s",
                (self.server.settings.server_region,),
            )
            return list(cursor.fetchall())

        names = ("email", "appName", "region", "ip", "name", "pass", "isFacebookUser", "isSuperAdmin", "energy")
        users = []
        for row in self.main.run(load):
            user = {key: value for key, value in zip(names, row) if value is not None}
            user["profile"] = json.loads(row[9] or "{}")
            user["lastModifiedTs"], user["lastLoggedAt"] = int(row[10] or 0), int(row[11] or 0)
            user["lastLoggedIP"] = row[12]
            users.append(read_document("USER", user, lenient=True))
        return users

    # -- whose is a token --------------------------------------------------------------------------------------------

    def _enter_tokens(self, rows: list[tuple[Any, ...]]) -> None:
        host = self.server.host
        sql = """INSERT INTO forwarding_tokens (token, host, email, project_id, device_id) VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT DO NOTHING"""
        values = [(token, host, *rest) for token, *rest in rows]

        def enter(cursor: Any) -> None:
            if values:
                cursor.executemany(sql, values)

        self.submit(enter)

    def token_assigned(self, token: str, email: str, project_id: int, device_id: int) -> None:
        """A device got a token: other servers send it here."""
        self._enter_tokens([(token, email, project_id, device_id)])

    def tokens_removed(self, tokens: Iterable[str]) -> None:
        gone = [token for token in tokens if token]
        if gone:
            self.submit(lambda cursor: cursor.execute("DELETE FROM forwarding_tokens WHERE token = ANY(%s)", (gone,)))

    def find_host(self, token: str, done: Callable[[Optional[str], Optional[Exception]], object]) -> bool:
        """The host a token belongs to, None when nobody knows it; may answer at once. False: too much waits."""
        now = self.loop.now
        if now - self.hosts_since > 3600:
            self.hosts_since = now
            self.hosts.clear()
        if token in self.hosts:
            host = self.hosts[token] = self.hosts.pop(token)
            done(host, None)
            return True

        def look(cursor: Any) -> Optional[str]:
            sql = "SELECT host FROM forwarding_tokens WHERE token = %s ORDER BY ts DESC LIMIT 1"
            row = cursor.execute(sql, (token,)).fetchone()
            return row[0] if row else None

        def found(host: Optional[str], problem: Optional[Exception]) -> None:
            if problem is None:
                self.hosts[token] = host
                if len(self.hosts) > REDIRECT_CACHE:
                    del self.hosts[next(iter(self.hosts))]
            done(host, problem)

        return self.submit(look, found)

    def redirect(self, session: Any, token: str, id: int) -> Optional[int]:
        """Answers a hardware login with a token that is not ours (spec 02 §1): CONNECT_REDIRECT `host\\0port`, or
        INVALID_TOKEN. The session waits meanwhile."""
        answered: list[int] = []

        def done(host: Optional[str], _problem: Optional[Exception]) -> None:
            answered.append(id)
            if session.gone:
                return
            if host is None or host == self.server.host:
                session.status(id, Status.INVALID_TOKEN)
            else:
                session.send(Command.CONNECT_REDIRECT, id, f"{host}\0{self._port(session)}".encode("ascii", "replace"))
            if session.busy:
                session.proceed()

        if not self.find_host(token, done):
            return Status.SERVER_ERROR
        if not answered:
            session.wait()
        return None

    def _port(self, session: Any) -> int:
        settings = self.server.settings
        if settings.server_redirect_port_80:
            return 80
        return int(settings.ports_https if session.stream.secure else settings.ports_http)

    # -- flashed tokens, codes, purchases ----------------------------------------------------------------------------

    def insert_flashed(self, rows: list[tuple[str, str, str, int, int]], done: Callable[[bool], object]) -> bool:
        """(token, app id, email, project, device) of a published app (spec 03b §7.2); done(whether it worked)."""
        sql = "INSERT INTO flashed_tokens (token, app_name, email, project_id, device_id) VALUES (%s, %s, %s, %s, %s)"
        return self.submit(lambda cursor: cursor.executemany(sql, rows), lambda _, problem: done(problem is None))

    def find_flashed(self, token: str, done: Callable[[Optional[Document]], object]) -> bool:
        """{"token", "app", "email", "project", "device", "activated"} of a flashed token, or None."""

        def look(cursor: Any) -> Optional[Document]:
            row = cursor.execute(
                "SELECT app_name, email, project_id, device_id, is_activated FROM flashed_tokens WHERE token = %s",
                (token,),
            ).fetchone()
            names = ("app", "email", "project", "device", "activated")
            return {"token": token, **dict(zip(names, row))} if row else None

        return self.submit(look, lambda found, _: done(found))

    def activate_flashed(self, token: str, app: str, done: Callable[[bool], object]) -> bool:
        """Marks a flashed token as used; done(False) when that did not hit exactly one that was free."""

        def mark(cursor: Any) -> bool:
            cursor.execute(
                "UPDATE flashed_tokens SET is_activated = TRUE, ts = now()"
                " WHERE token = %s AND app_name = %s AND NOT is_activated",
                (token, app),
            )
            return bool(cursor.rowcount == 1)

        return self.submit(mark, lambda hit, problem: done(bool(hit) and problem is None))

    def redeem(self, token: str, email: str, done: Callable[[int, int], object]) -> bool:
        """Redeems a code for a user: done(status, energy to add) (spec 05 §10.3)."""

        def take(cursor: Any) -> tuple[int, int]:
            row = cursor.execute("SELECT isRedeemed, reward, email FROM redeem WHERE token = %s", (token,)).fetchone()
            if row is None or (row[0] and row[2] != email):
                return Status.NOT_ALLOWED, 0
            if row[0]:
                return OK, 0
            cursor.execute(
                "UPDATE redeem SET email = %s, version = 2, isRedeemed = TRUE, ts = now()"
                " WHERE token = %s AND version = 1",
                (email, token),
            )
            return (OK, row[1]) if cursor.rowcount == 1 else (Status.NOT_ALLOWED, 0)

        return self.submit(take, lambda answer, _: done(*(answer or (Status.NOT_ALLOWED, 0))))

    def purchase(self, email: str, reward: int, transaction: str) -> None:
        """Notes a purchase of energy; rewards that only look like one are not kept."""
        if transaction not in NOT_A_PURCHASE:
            row = (email, reward, transaction, PURCHASE_PRICES.get(reward, -1.0))
            sql = "INSERT INTO purchase (email, reward, transactionId, price) VALUES (%s, %s, %s, %s)"
            self.submit(lambda cursor: cursor.execute(sql, row))

    def insert_clone(self, token: str, text: str, done: Callable[[bool], object]) -> bool:
        """Keeps a cloned project's JSON under its code."""
        sql = "INSERT INTO cloned_projects (token, ts, json) VALUES (%s, now(), %s)"
        return self.submit(lambda cursor: cursor.execute(sql, (token, text)), lambda _, problem: done(problem is None))

    def find_clone(self, token: str, done: Callable[[Optional[str]], object]) -> bool:
        """The JSON of a clone code, or None: then it may still be in a file."""

        def look(cursor: Any) -> Optional[str]:
            row = cursor.execute("SELECT json FROM cloned_projects WHERE token = %s", (token,)).fetchone()
            return row[0] if row else None

        return self.submit(look, lambda text, _: done(text))

    # -- reporting ---------------------------------------------------------------------------------------------------

    def averages(self, records: list[tuple[Series, int, int, float]], now_ms: int) -> None:
        """The records just written to history files: (series, index into HISTORY_PERIODS, start ms, average)."""
        if not records:
            return
        emails = {account.folder_name: account.email for account in self.server.accounts.values()}
        pin_types = {"d": 0, "v": 1, "a": 2}
        rows: list[list[tuple[Any, ...]]] = [[], [], []]
        for series, index, start, average in records:
            email = emails.get(series.folder)
            if email is not None:
                pin = (int(series.name[1:]), pin_types[series.name[0]])
                rows[index].append((email, series.project_id, series.device_id, *pin, start, average))

        def insert(cursor: Any) -> None:
            for index, (name, _) in enumerate(HISTORY_PERIODS):
                if rows[index]:
                    table = f"reporting_average_{name} (email, project_id, device_id, pin, pin_type, ts, value)"
                    values = "VALUES (%s, %s, %s, %s, %s, to_timestamp(%s::float8 / 1000), %s) ON CONFLICT DO NOTHING"
                    cursor.executemany(f"INSERT INTO {table} {values}", rows[index])

        self.submit(insert, reporting=True)

    def _clean(self) -> None:
        """Each minute: averages nobody asks for any more (spec 05 §10.3)."""
        self.loop.call_later(60.0, self._clean)

        def delete(cursor: Any) -> None:
            cursor.execute("DELETE FROM reporting_average_minute WHERE ts < now() - interval '1441 minutes'")
            cursor.execute("DELETE FROM reporting_average_hourly WHERE ts < now() - interval '2161 hours'")

        self.submit(delete, reporting=True)

    def insert_raw(self, batch: list[tuple[Any, ...]]) -> None:
        """Values of room 6c. Database thread. Errors: the driver's, OSError."""
        rows = []
        for email, _, project_id, device_id, letter, pin, text, ms in batch:
            number = parse_number(text)
            kept = text.replace("\0", "\\0") if number is None else None
            rows.append((email, project_id, device_id, pin, letter, ms, kept, number))
        sql = f"""INSERT INTO reporting_raw_data
            (email, project_id, device_id, pin, pinType, ts, stringValue, doubleValue)
            VALUES (%s, %s, %s, %s, %s, {SQL_TIME}, %s, %s) ON CONFLICT (email, project_id, device_id, pin, pinType, ts)
            DO UPDATE SET stringValue = EXCLUDED.stringValue, doubleValue = EXCLUDED.doubleValue"""
        self.reporting.run(lambda cursor: cursor.executemany(sql, rows))

    def stats(self, report: Document) -> None:
        """One row per statistics table from the object of spec 05 §9.1."""
        region, ts = self.server.settings.server_region, self.loop.now_ms // MINUTE_MS * MINUTE_MS
        tables: tuple[tuple[str, list[str], Document, dict[str, str]], ...] = (
            ("reporting_app_stat_minute", APP_STAT_COLUMNS, report, {}),
            ("reporting_app_command_stat_minute", COMMAND_STAT_COLUMNS, report.get("commands", {}), {}),
            ("reporting_http_command_stat_minute", HTTP_STAT_COLUMNS, report.get("http", {}), HTTP_STAT_NAMES),
        )

        def insert(cursor: Any) -> None:
            for table, columns, counters, names in tables:
                values = [min(int(counters.get(_stat_name(c, names), 0)), 2147483647) for c in columns]
                sql = f"INSERT INTO {table} VALUES (%s, {SQL_TIME}{', %s' * len(columns)}) ON CONFLICT DO NOTHING"
                cursor.execute(sql, (region, ts, *values))

        self.submit(insert, reporting=True)


def _stat_name(column: str, names: dict[str, str]) -> str:
    """`get_pin_data` -> `getPinData`, with the exceptions of the tables."""
    if column in names or column in STAT_NAMES:
        return names.get(column) or STAT_NAMES[column]
    first, *rest = column.split("_")
    return first + "".join(word.capitalize() for word in rest)


def open_database(server: Any) -> Optional[Database]:
    """The database of the settings, or None: switched off, or no driver. Call start() once the accounts are loaded."""
    if not server.settings.database_enabled:
        return None
    try:
        import psycopg
    except ImportError:
        log.error(
            "database.enabled needs the package psycopg: pip install 'psycopg[binary]'; going on without database"
        )
        server.health["database"] = "the package psycopg is not installed"
        return None
    return Database(server, psycopg)


# -- 6e Back-ups -------------------------------------------------------------------------------------------------------
# One archive of the whole data folder, `.tar.gz`, with a list of its files and their checksums as its last member, read
# back before it gets its name. Used by the sub-commands and the admin page, in a worker thread: a back-up of a running
# server sees what a kill at that moment would have left, which is always whole. Raw data are left out: too large.

MANIFEST = "blynk-pi-backup.json"
NOT_ARCHIVED = ("raw", "web-gz", "control.json", "control.sock")
NOT_ARCHIVED_STARTS = ("raw_data.db", "before-restore-", ".")
# Read in this order: what is later in it may know more than what is earlier, never less.
ARCHIVE_FIRST = ("journal.old", "journal.log", "aggregation_temp.json")


class BackupError(ValueError):
    """A back-up cannot be made or put back; the text is for the user, to be said behind the name of the archive."""


def is_archived(name: str) -> bool:
    """Whether something in the data folder, by its first name, belongs in a back-up."""
    return name not in NOT_ARCHIVED and not name.startswith(NOT_ARCHIVED_STARTS)


def archived_files(folder: str) -> list[str]:
    """Relative names of what a back-up holds, `/` between parts, in the order they must be read."""
    found = []
    for home, folders, names in os.walk(folder):
        inside = os.path.relpath(home, folder).replace(os.sep, "/")
        if inside == ".":
            folders[:] = [name for name in folders if is_archived(name)]
            names = [name for name in names if is_archived(name)]
            inside = ""
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(home, name)
            if not name.startswith(".") and os.path.isfile(path) and not os.path.islink(path):
                found.append(f"{inside}/{name}" if inside else name)
    return sorted(found, key=lambda name: (ARCHIVE_FIRST.index(name) if name in ARCHIVE_FIRST else 9, name))


def make_backup(source: Any, file: str) -> list[str]:
    """Archives the data folder of a server, or one given by its name, into `file`, whole or not at all; gives lines
    that say so. A server may be running on the folder. Worker thread. Errors: BackupError."""
    folder = source if isinstance(source, str) else source.settings.data_folder
    if not os.path.isdir(folder):
        raise BackupError(f"there is no data folder {folder}")
    target = os.path.abspath(file)
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.tmp")
    names = [name for name in archived_files(folder) if os.path.abspath(os.path.join(folder, name)) != target]
    try:
        made = _write_archive(folder, names, temporary)
        read = check_backup(temporary)
        if read != made:
            raise BackupError("the archive does not read back as it was written: is the disk broken?")
        os.replace(temporary, target)
        sync_folder(os.path.dirname(target))
    except OSError as problem:
        raise BackupError(f"cannot be written: {problem.strerror or problem}") from None
    finally:
        remove_file(temporary)
    accounts = sum(name.endswith(".user") and "/" not in name for name in made)
    size = (os.path.getsize(target) + 1023) >> 10
    return [f"{file} is written and checked: {accounts} accounts, {len(made)} files, {size} KB"]


def _write_archive(folder: str, names: list[str], path: str) -> dict[str, list[Any]]:
    import io
    import tarfile

    listed: dict[str, list[Any]] = {}
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as out:
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=6) as archive:
            for name in names:
                try:
                    source = open(os.path.join(folder, name), "rb")
                except FileNotFoundError:
                    continue  # deleted meanwhile
                with source:
                    status = os.fstat(source.fileno())
                    data = source.read(status.st_size)
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.mode = len(data), status.st_mtime, 0o600
                archive.addfile(entry, io.BytesIO(data))
                listed[name] = [len(data), hashlib.sha256(data).hexdigest()]
            manifest = encode(to_json({"version": 1, "made": int(time.time() * 1000), "files": listed}))
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mtime, entry.mode = len(manifest), time.time(), 0o600
            archive.addfile(entry, io.BytesIO(manifest))
        out.flush()
        os.fsync(out.fileno())
    return listed


def read_archive(file: str) -> Iterator[tuple[str, int, bytes]]:
    """(name, ms of change, content) of each file of an archive. Errors: BackupError for whatever is not one of ours."""
    import gzip
    import tarfile

    try:
        with gzip.open(file) as raw:
            with tarfile.open(fileobj=raw, mode="r|") as archive:
                for entry in archive:
                    parts = entry.name.split("/")
                    if not entry.isreg() or not all(parts) or any(p.startswith(".") or "\\" in p for p in parts):
                        raise BackupError(f"{entry.name!r} in it does not belong in a back-up")
                    source = archive.extractfile(entry)
                    yield entry.name, int(entry.mtime * 1000), source.read() if source is not None else b""
            while raw.read(1 << 16):
                pass  # to the end: only there gzip's checksum is compared
    except FileNotFoundError:
        raise BackupError("there is no such file") from None
    except (tarfile.TarError, EOFError, zlib.error) as problem:
        raise BackupError(f"it is damaged or not a back-up: {problem}") from None
    except OSError as problem:
        raise BackupError(f"cannot be read: {problem.strerror or problem}") from None


def check_backup(file: str, keep: Optional[Callable[[str, int, bytes], object]] = None) -> dict[str, list[Any]]:
    """Reads a whole archive and compares it with its list, {name: [size, sha256]}; keep(name, ms, content) sees each
    file. Errors: BackupError."""
    found: dict[str, list[Any]] = {}
    listed: Any = None
    for name, ms, data in read_archive(file):
        if name == MANIFEST:
            try:
                listed = json.loads(data)["files"]
            except (ValueError, KeyError, TypeError):
                listed = None
        else:
            found[name] = [len(data), hashlib.sha256(data).hexdigest()]
            if keep is not None:
                keep(name, ms, data)
    if listed is None:
        raise BackupError("it is incomplete or not a back-up: it has no list of its files")
    if listed != found:
        raise BackupError("it is damaged: its files are not those of its list")
    return found


def backup_running(server: Any, file: str, done: Callable[[Optional[list[str]], Optional[Exception]], object]) -> None:
    """A back-up of this server, with everything up to now; done(lines, BackupError) comes in the loop."""
    for account in list(server.ledger.touched):
        account.save_soon()

    def begin() -> None:
        if not server.loop.submit("net", make_backup, server, file, done=done):
            done(None, BackupError("the server is too busy: try again later"))

    server.store.when_saved(begin)


def restore_backup(folder: str, file: str, email: Optional[str] = None) -> list[str]:
    """Puts a back-up in the place of a data folder, or one user's accounts of it; gives lines that say so. What was
    there is kept in `before-restore-<time>` within the folder. The caller has the folder's lock: no server may be
    running on it. All or nothing: the archive is read and checked before anything is changed, and a failure puts
    everything back. Errors: BackupError."""
    import shutil

    stamp = time.strftime("%Y%m%d-%H%M%S")
    fresh, kept = os.path.join(folder, f".restore-{stamp}"), os.path.join(folder, f"before-restore-{stamp}")
    try:
        wanted = _unpack(folder, file, fresh, email)
        old = _in_the_way(folder, email, fresh)
        _swap(folder, fresh, kept, old)
    except OSError as problem:
        text = f"nothing was changed, {folder} cannot be written: {problem.strerror or problem}"
        raise BackupError(text) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    accounts = sum(name.endswith(".user") and "/" not in name for name in wanted)
    lines = [f"put back from {file}: {accounts} accounts, {len(wanted)} files"]
    return lines + ([f"what was there before is now in {kept}"] if old else [])


def _unpack(folder: str, file: str, fresh: str, email: Optional[str]) -> list[str]:
    """Writes what is wanted of a checked archive into the folder `fresh`. Errors: BackupError, OSError."""
    homes: set[str] = set()
    averages: dict[str, bytes] = {}

    def look(name: str, _ms: int, data: bytes) -> None:
        if name == AVERAGES_FILE:
            averages[name] = data
        if name.endswith(".user") and "/" not in name and email is not None:
            try:
                user = json.loads(data)
            except ValueError:
                return  # set aside by the server it came from, or soon
            if (user.get("email") or user.get("name")) == email:
                homes.add(history_folder(email, user.get("appName") or "Blynk"))
                users.append(name)

    users: list[str] = []
    names = list(check_backup(file, look))
    if email is not None and not users:
        raise BackupError(f"it has no account of {email}")
    wanted = [
        n for n in names if email is None or n in users or n.split("/")[0:2][-1] in homes and n.startswith("data/")
    ]
    os.makedirs(fresh, mode=0o700)
    for name, ms, data in read_archive(file):
        if name in wanted:
            path = os.path.join(fresh, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if name in users:
                data = _past_journal(folder, data)
            write_file(path, data)
            os.utime(path, (ms / 1000, ms / 1000))
    if email is not None:
        _merge_averages(folder, fresh, averages.get(AVERAGES_FILE), homes)
    return wanted


def _past_journal(folder: str, data: bytes) -> bytes:
    """A single account put back: what a kill left in the journal here is not its."""
    user = json.loads(data)
    numbers = [n for name in ARCHIVE_FIRST[:2] for n, _ in read_journal(os.path.join(folder, name))]
    user["journal"] = max([user.get("journal", 0), *numbers])
    return encode(to_json(user))


def _merge_averages(folder: str, fresh: str, archived: Optional[bytes], homes: set[str]) -> None:
    """The running averages here, with those accounts' from the archive."""
    try:
        with open(os.path.join(folder, AVERAGES_FILE), encoding="utf-8") as file:
            here = json.load(file)
        there = json.loads(archived or b"{}").get("series", [])
        here["series"] = [row for row in here["series"] if row[0] not in homes] + [
            row for row in there if row[0] in homes
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return
    write_file(os.path.join(fresh, AVERAGES_FILE), encode(to_json(here)))


def _in_the_way(folder: str, email: Optional[str], fresh: str) -> list[str]:
    """What has to make room: names in the data folder, `/` between parts."""
    if email is None:
        return [name for name in list_folder(folder) if is_archived(name)]
    names = [name for name in list_folder(fresh) if name != "data"]
    names += [f"data/{name}" for name in list_folder(os.path.join(fresh, "data"))]
    return [name for name in names if os.path.exists(os.path.join(folder, name))]


def _swap(folder: str, fresh: str, kept: str, old: list[str]) -> None:
    """Renames the old entries away and the new ones in; undone when one of it fails. Errors: OSError."""
    moved: list[tuple[str, str]] = []

    def move(source: str, target: str) -> None:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
        moved.append((source, target))

    try:
        for name in old:
            move(os.path.join(folder, name), os.path.join(kept, name))
        for name in list_folder(fresh):
            target = os.path.join(folder, name)
            if os.path.isdir(target):
                for inner in list_folder(os.path.join(fresh, name)):
                    move(os.path.join(fresh, name, inner), os.path.join(target, inner))
            else:
                move(os.path.join(fresh, name), target)
        sync_folder(folder)
    except OSError:
        for source, target in reversed(moved):
            os.rename(target, source)
        raise


# ======================================================================================================================
# 7. Hub
# ======================================================================================================================
# Who is online: sessions by account, fan-out to apps and devices, the dispatcher that answers for handlers (spec 01 §13).
# A session is a protocol object of a stream (or of something that looks like one: a WebSocket). Knows nothing of HTTP.

COMMANDS_A_TURN = 200  # of one connection that need a handler: some 20 ms, then the others have their turn


class Stats:
    """Counters for the log, the admin page and /metrics (spec 05 §9.1)."""

    __slots__ = ("commands", "names", "rate", "last", "messages")

    def __init__(self) -> None:
        self.commands = [0] * 100  # by command number, this period
        self.names: dict[str, int] = {}  # whatever has no number: http counters, mqttTotal, appTotal…
        self.messages = 0  # of boards and apps, ever
        self.rate, self.last = 0.0, 0  # messages a second in the last period; count at its end

    def count(self, name: str) -> None:
        self.names[name] = self.names.get(name, 0) + 1

    def reset(self, seconds: float) -> None:
        """Begins a new period; one of so many seconds ends."""
        self.rate, self.last = (self.messages - self.last) / seconds, self.messages
        self.commands = [0] * 100
        self.names = {}


class Session:
    """What hardware and app connections share. `busy`: an answer is being worked out elsewhere; frames wait. `held`:
    they wait until the peer has read its answers."""

    __slots__ = (
        "server", "stream", "account", "project", "buffer", "quota", "busy", "held", "gone", "turn", "commands",
    )  # fmt: skip

    def __init__(self, server: Server, stream: Any) -> None:
        self.server, self.stream = server, stream
        self.account: Optional[Account] = None
        self.project: Optional[Project] = None
        self.buffer = b""
        self.quota = Quota(server.loop.now_ms)
        self.busy = self.held = self.gone = False
        self.turn, self.commands = 0.0, 0  # when the loop's present turn began, how many commands were handled in it

    def send(self, command: int, id: int, body: bytes) -> None:
        raise NotImplementedError

    def status(self, id: int, status: int) -> None:
        raise NotImplementedError

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    @property
    def peer(self) -> str:
        return str(self.stream.peer)

    def wait(self) -> None:
        """Holds further frames back until proceed()."""
        self.busy = True
        self.stream.pause()

    def proceed(self) -> None:
        self.busy = False
        if not self.gone:
            self.stream.resume()
            self.received(b"")

    def drained(self) -> None:
        """The peer has read everything: its next frames may have their turn."""
        if self.held:
            self.held = False
            self.server.loop.soon(self.proceed)

    def close(self) -> None:
        self.stream.close()

    def over_quota(self, id: int) -> bool:
        """Whether the connection talks too much; says so at most once a minute (spec 01 §12.3)."""
        server = self.server
        if not self.quota.over(server.loop.now_ms, server.settings.limits_messages_per_s):
            return False
        if self.quota.warn(server.loop.now_ms) and not self.stream.congested:
            self.status(id, Status.QUOTA_LIMIT)
        return True

    def dispatch(self, handler: Callable[..., Any], command: int, id: int, body: bytes) -> None:
        """Calls a handler and answers for it: an int is a status, text or bytes a reply of the same command; refusals,
        unreadable documents and wrong numbers have their codes (spec 03a §1.6). Who asks and does not read is not
        heard until it has read: five bytes can ask for megabytes."""
        server = self.server
        if server.ledger.unsettled:
            server.ledger.settle()
        try:
            answer = handler(self, id, body)
        except Refused as refusal:
            answer = refusal.status
        except DocumentError:
            answer = Status.ILLEGAL_COMMAND_BODY
        except ValueError:
            answer = Status.ILLEGAL_COMMAND
        except Exception:
            log.exception(f"in command {command}")
            answer = Status.SERVER_ERROR
        if isinstance(answer, int):
            self.status(id, answer)
        elif answer is not None:
            self.send(command, id, answer if isinstance(answer, bytes) else encode(answer))
        if self.busy or self.stream.closing:
            return
        if self.turn != server.loop.now:
            self.turn, self.commands = server.loop.now, 0
        self.commands += 1
        if self.stream.pending() > OUTPUT_LIMIT:
            self.held = True
            self.wait()
        elif self.commands >= COMMANDS_A_TURN:
            self.wait()
            server.loop.soon(self.proceed)


# -- fan-out -----------------------------------------------------------------------------------------------------------


def to_apps(project: Project, command: int, id: int, body: bytes, sender: Optional[Session] = None) -> int:
    """To the owner's apps and the guests of that project; those that do not read are skipped (spec 01 §13.2)."""
    told = 0
    for app in project.account.apps:
        if app is not sender and (app.share is None or app.share is project) and not app.stream.congested:
            app.send(command, id, body)
            told += 1
    return told


def prefixed(device: Device, body: str) -> bytes:
    """`1-0\\0` and the body."""
    return b"%s\0%s" % (device.prefix, encode(body))


def to_hardware(devices: Iterable[Device], command: int, id: int, body: bytes, fit: bool = True) -> int:
    """To every connection of these devices; a body too long for a board's buffer is not sent to it (spec 01 §13.3).
    Returns how many took it."""
    told = 0
    length = len(body)
    if length > MAX_HARDWARE_BODY:
        log.warning(f"a message of {length} bytes is too long for any board: dropped")
        return 0
    if fit and not body.isascii():
        length = len(body.decode("utf-8", "replace"))  # buffers count characters
    for device in devices:
        if device.sessions and (not fit or device.buffer_fits(length)):
            for session in device.sessions:
                if not session.stream.congested:
                    session.send(command, id, body)
                    told += 1
    return told


def notify_hardware(account: Account, word: bytes) -> None:
    """`acon` or `adis` to the boards of every active project that wants to know (spec 03a §2.6)."""
    for project in account.projects.values():
        if project.document["isAppConnectedOn"] and project.active:
            to_hardware(project.devices.values(), Command.BLYNK_INTERNAL, ID_TIMER, word, fit=False)


def send_pin_modes(project: Project, device: Device, session: Optional[Any] = None) -> Optional[int]:
    """Tells a board (or one connection of it) its pin modes; None when there are none, else how many took them."""
    body = encode(pin_modes(project, device.id))
    if not body:
        return None
    if session is not None:
        session.send(Command.HARDWARE, 1, body)
        return 1
    return to_hardware((device,), Command.HARDWARE, 1, body)


def close_sessions(sessions: Iterable[Any]) -> None:
    """Closes connections; their offline processing runs before this returns."""
    for session in list(sessions):
        session.leave()
        session.close()


# ======================================================================================================================
# 8. Messengers
# ======================================================================================================================
# What leaves the house: mail, pushes, SMS, posts (spec 08 §2–5). A channel is a small class whose one `send` runs in a
# net thread and returns, or raises Undelivered with a reason in plain words. Everything waits in one Outbox: bounded,
# lanes take turns, a lane (one destination) is served in order and one at a time, so that a dead mail server holds up
# mails only. Handlers and rules call Messengers.mail / push / sms / tweet; `done(ok)` comes back in the loop.
# No secret and no text of a message ever reaches the log.

PATIENCE_SECONDS = 10.0  # for one call of a push, SMS or post gateway
REPLY_LIMIT = 65_536  # bytes of a gateway's answer that are looked at
RETRY_SECONDS = (5, 60, 300)  # pauses before the 2nd, 3rd and 4th try of a mail that may still get through
COMPLAIN_SECONDS = 3600  # a channel that fails says so in the log once in that time
NOTIFICATIONS_KEPT = 100  # entries of an account's notification log
REPLY_HEAD_LIMIT = 65_536  # bytes of the head of an HTTP answer
PUSH_LENGTH, TWEET_LENGTH, SMS_LENGTH = 255, 140, 160  # characters of a text

NEXMO_URL = "https://rest.nexmo.com/sms/json"
X_URL = "https://api.x.com/2/tweets"
FCM_URL = "https://fcm.googleapis.com/v1/projects/{}/messages:send"


class Undelivered(Exception):
    """A message did not get through; the text says why in plain words. `later`: another try may help."""

    def __init__(self, why: str, later: bool = False) -> None:
        super().__init__(why)
        self.later = later


class UnknownReceiver(Undelivered):
    """The push gateway does not know that phone any more."""


# -- 8a HTTP to others -----------------------------------------------------------------------------------------------
# A client of its own, 90 lines: http.client costs 2 MB for good and has no deadline for the whole call.

URL_CHARACTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?@!$&'()*+,;=")
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
client_contexts: dict[bool, ssl.SSLContext] = {}


def percent(text: str, keep: frozenset[int] = UNRESERVED) -> str:
    """Percent-encoded UTF-8."""
    return "".join(chr(c) if c in keep else f"%{c:02X}" for c in encode(text))


def mend_url(text: str) -> str:
    """A path and query with what is illegal there percent-encoded; `%xx` stays (spec 08 §7.2)."""
    data, out = encode(text), []
    for at, c in enumerate(data):
        escape = c == 0x25 and len(data) > at + 2 and data[at + 1] in HEX_DIGITS and data[at + 2] in HEX_DIGITS
        out.append(chr(c) if c in URL_CHARACTERS or escape else f"%{c:02X}")
    return "".join(out)


def split_url(url: str) -> tuple[bool, str, int, str, str]:
    """(TLS?, host, port, path with query, `user:password` or ""). Errors: ValueError."""
    scheme, _, rest = url.strip().partition("://")
    if scheme.lower() not in ("http", "https"):
        raise ValueError("the URL starts neither with http:// nor with https://")
    rest = rest.partition("#")[0]
    end = min((at for at in map(rest.find, "/?\\") if at >= 0), default=len(rest))
    user, _, place = rest[:end].rpartition("@")
    path = rest[end:] if rest[end : end + 1] == "/" else "/" + rest[end:]
    host, _, port = place.rpartition(":") if place.rfind(":") > place.rfind("]") else (place, "", "")
    host = host.strip("[]") if host[:1] == "[" else host
    if not host.isascii():
        host = host.encode("idna").decode()  # UnicodeError is a ValueError
    if not host or not all(c.isalnum() or c in "-._:%" for c in host):
        raise ValueError("the URL has no proper host name")
    secure = scheme.lower() == "https"
    number = parse_int(port) if port else 443 if secure else 80
    if not 0 < number < 65536:
        raise ValueError(f"no such port: {number}")
    return secure, host, number, mend_url(path), user


def client_tls(verify: bool = True) -> ssl.SSLContext:
    """The TLS settings towards others; made when first needed (loading the authorities takes a while)."""
    context = client_contexts.get(verify)
    if context is None:
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        client_contexts[verify] = context
    return context


def why_not(problem: BaseException) -> str:
    """A network error in plain words."""
    if isinstance(problem, Undelivered):
        return str(problem)
    if isinstance(problem, socket.gaierror):
        return "host name not found"
    if isinstance(problem, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(problem, ConnectionRefusedError):
        return "connection refused"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({problem.verify_message})"
    if isinstance(problem, ssl.SSLError):
        return f"TLS failed ({problem.reason or 'no reason given'})"
    if isinstance(problem, OSError):
        return problem.strerror or "connection lost"
    return str(problem) or type(problem).__name__


def dial(host: str, port: int, seconds: float, vet: Optional[Callable[[str], None]] = None) -> socket.socket:
    """Connects to the first address of the host that answers. `vet(address)` is asked about every address before, and
    the address it saw is the one that is used. Errors: OSError, Undelivered."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if vet is not None:
        for entry in found:
            vet(str(entry[4][0]))
    end = time.monotonic() + seconds
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.5, end - time.monotonic()))
            sock.connect(address)
            return sock
        except OSError as failed:
            sock.close()
            problem = failed
    raise problem


def fetch(
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes = b"",
    limit: int = REPLY_LIMIT,
    seconds: float = PATIENCE_SECONDS,
    connect_seconds: float = 5.0,
    vet: Optional[Callable[[str, int, str], None]] = None,
) -> tuple[int, Optional[bytes]]:
    """One HTTP call, redirects not followed: (status, body), the body None when it is longer than `limit` bytes.
    For net threads: blocks for at most `seconds` (and what the name server takes). Errors: Undelivered."""
    try:
        secure, host, port, path, user = split_url(url)
        end = time.monotonic() + seconds
        look = None if vet is None else lambda address: vet(address, port, path)
        sock = dial(host, port, min(connect_seconds, seconds), look)
    except (OSError, ValueError) as problem:
        raise Undelivered(why_not(problem), isinstance(problem, OSError)) from None
    try:
        if secure:
            sock = client_tls().wrap_socket(sock, server_hostname=host)
        name = f"[{host}]" if ":" in host else host
        lines = {"Host": name if port == (443 if secure else 80) else f"{name}:{port}", "Accept": "*/*"}
        if user:
            lines["Authorization"] = "Basic " + base64.b64encode(encode(user)).decode()
        given = {header.lower() for header in headers}
        lines = {**{header: value for header, value in lines.items() if header.lower() not in given}, **headers}
        if body or method in ("POST", "PUT"):
            lines["Content-Length"] = str(len(body))
        lines["Connection"] = "close"
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        sock.settimeout(max(0.1, end - time.monotonic()))
        sock.sendall(encode(head) + body)
        return read_reply(ReplyReader(sock, end), limit)
    except (OSError, ValueError, IndexError) as problem:
        raise Undelivered(why_not(problem), True) from None
    finally:
        sock.close()


class ReplyReader:
    """Bytes of an answer, before a deadline (monotonic)."""

    __slots__ = ("sock", "end", "buffer")

    def __init__(self, sock: socket.socket, end: float) -> None:
        self.sock, self.end = sock, end
        self.buffer = bytearray()

    def more(self) -> bool:
        """Waits for more bytes; False at the end of the connection."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def upto(self, mark: bytes, most: int) -> bytes:
        """What comes before the mark; both are taken."""
        while True:
            at = self.buffer.find(mark)
            if at >= 0:
                break
            if len(self.buffer) > most or not self.more():
                raise Undelivered("it does not answer in HTTP", True)
        part = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return part

    def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                raise Undelivered("its answer ended early", True)
        part = bytes(self.buffer[:size])
        del self.buffer[:size]
        return part


def read_reply(reader: ReplyReader, limit: int) -> tuple[int, Optional[bytes]]:
    """(status, body) of an HTTP/1.x answer; the body None when longer than `limit`.
    Errors: Undelivered, OSError, ValueError."""
    status = 100
    while status < 200:  # "100 Continue" and "103 Early Hints" come before the answer
        lines = reader.upto(b"\r\n\r\n", REPLY_HEAD_LIMIT).decode("latin-1").split("\r\n")
        if not lines[0].startswith("HTTP/1."):
            raise Undelivered("it does not answer in HTTP", True)
        status = parse_int(lines[0].split(" ")[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if status in (204, 304):
        return status, b""
    if headers.get("transfer-encoding", "").lower().endswith("chunked"):
        return status, read_chunks(reader, limit)
    if "content-length" in headers:
        size = parse_int(headers["content-length"], 64)
        return status, reader.take(size) if 0 <= size <= limit else None
    while len(reader.buffer) <= limit:
        if not reader.more():
            return status, bytes(reader.buffer)
    return status, None


def read_chunks(reader: ReplyReader, limit: int) -> Optional[bytes]:
    body = bytearray()
    while True:
        size = int(reader.upto(b"\r\n", 1024).partition(b";")[0], 16)
        if size <= 0:
            return bytes(body)
        if len(body) + size > limit:
            return None
        body += reader.take(size)
        reader.take(2)


# -- 8b The outbox ---------------------------------------------------------------------------------------------------


class Errand:
    """Something to do in a net thread: fn(*args), then done(result, error) in the loop."""

    __slots__ = ("fn", "args", "done", "owner", "tries")

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], done: Callable[..., object], owner: object, tries: int
    ) -> None:
        self.fn, self.args, self.done, self.owner, self.tries = fn, args, done, owner, tries


class Lane:
    """Errands to one destination: in order, one at a time."""

    __slots__ = ("waiting", "busy", "yields")

    def __init__(self, yields: bool) -> None:
        self.waiting: deque[Errand] = deque()
        self.busy = False
        self.yields = yields  # leaves one worker to the others


class Outbox:
    """The one queue to the outside. At most `limit` errands wait, of one owner a quarter of that; lanes take turns at
    the `workers` threads; yielding lanes (webhooks, whose hosts are anybody's choice) leave one of them alone."""

    __slots__ = ("loop", "limit", "workers", "lanes", "ready", "running", "yielding", "pending", "owners")

    def __init__(self, loop: Loop, limit: int, workers: int) -> None:
        self.loop, self.limit, self.workers = loop, limit, workers
        self.lanes: dict[object, Lane] = {}
        self.ready: deque[object] = deque()  # names of lanes that may send
        self.running = self.yielding = self.pending = 0
        self.owners: dict[object, int] = {}

    def put(
        self,
        name: object,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        done: Callable[..., object],
        owner: object = None,
        tries: int = 1,
        yields: bool = False,
    ) -> bool:
        """Queues an errand in the lane `name`; False when there is no room. An error with `.later` is tried again while
        `tries` last; done(result, error) is called once."""
        if self.pending >= self.limit:
            return False
        if owner is not None:
            if self.owners.get(owner, 0) >= max(20, self.limit // 4):
                return False
            self.owners[owner] = self.owners.get(owner, 0) + 1
        self.pending += 1
        self._queue(name, Errand(fn, args, done, owner, tries), yields)
        return True

    def _queue(self, name: object, errand: Errand, yields: bool) -> None:
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(yields)
        lane.waiting.append(errand)
        if not lane.busy and len(lane.waiting) == 1:
            self.ready.append(name)
        self._pump()

    def _pump(self) -> None:
        """Starts what may run."""
        for _ in range(len(self.ready)):
            if self.running >= self.workers:
                return
            name = self.ready.popleft()
            lane = self.lanes[name]
            if lane.yields and self.yielding >= max(1, self.workers - 1):
                self.ready.append(name)
                continue
            errand = lane.waiting[0]
            if not self.loop.submit("net", errand.fn, *errand.args, done=lambda r, e, n=name: self._back(n, r, e)):
                self.ready.appendleft(name)  # the threads' own queue is full of other work
                self.loop.call_later(1.0, self._pump)
                return
            lane.busy = True
            self.running += 1
            self.yielding += lane.yields

    def _back(self, name: object, result: Any, error: Optional[BaseException]) -> None:
        lane = self.lanes[name]
        errand = lane.waiting.popleft()
        lane.busy = False
        self.running -= 1
        self.yielding -= lane.yields
        if lane.waiting:
            self.ready.append(name)
        else:
            del self.lanes[name]
        if error is not None and getattr(error, "later", False) and errand.tries > 1:
            pause = RETRY_SECONDS[max(0, len(RETRY_SECONDS) + 1 - errand.tries)]
            errand.tries -= 1
            self.loop.call_later(pause, self._queue, name, errand, lane.yields)
        else:
            self._over(errand)
            self.loop._call(errand.done, result, error)
        self._pump()

    def _over(self, errand: Errand) -> None:
        self.pending -= 1
        if errand.owner is not None:
            left = self.owners[errand.owner] - 1
            if left:
                self.owners[errand.owner] = left
            else:
                del self.owners[errand.owner]


# -- 8c Mail ---------------------------------------------------------------------------------------------------------

# Our own wording; what is in braces is the contract (spec 08 §2.2). A file of the same relative path in the working
# directory takes the place of a text.
MAIL_TEXTS = {
    "single_token_mail_body.txt": """
How to use it:
- put the token into your sketch, where it says char auth[] = "YourAuthToken";
- and the address of this server: Blynk.begin(auth, ssid, pass, "your server", 8080);

Whoever has the token can read and set this device's pins: keep it to yourself.
""",
    "dynamic_provisioning_mail.html": """\
<p>Your app <b>{project_name}</b> is ready. Devices get their tokens when they are connected for the first time.</p>
<p>The attached QR code opens the app on the phone of whoever sets a device up.</p>
{DYNAMIC_SECTION}""",
    "static_provisioning_mail.html": """\
<p>Your app <b>{project_name}</b> is ready. Each device has a token of its own:</p>
<p>{DYNAMIC_SECTION}</p>
<p>The attached QR codes, one per device, connect the app with the device.</p>
""",
    "template_id_mail.html": """\
<p>Template ID of <b>{template_name}</b>: <code>{template_id}</code></p>
<p>Put it into the sketch of every device that is to use this template: #define BLYNK_TEMPLATE_ID "{template_id}"</p>
""",
    "static/register-email.html": """\
<p>Welcome! Your account {EMAIL} on this {PRODUCT_NAME} server is ready.</p>
<p>What comes next: make a project, add a device, put its token into the sketch, and drag your first button onto the
screen.</p>
<p>If you did not make this account, somebody mistyped an address: please ignore this message.</p>
""",
    "static/report-email.html": """\
<p>Your report is ready: <a href="{DOWNLOAD_URL}">download it</a>.</p>
<p>
{DYNAMIC_SECTION}
</p>
""",
    "static/reset/reset-email.html": """\
<p>You recently made a request to reset your password for the {PRODUCT_NAME} app. To complete the process, \
click the link below.</p>
<p><a href="{RESET_URL}">{RESET_URL}</a></p>
<p>If you did not request a password reset from {PRODUCT_NAME}, please ignore this message.</p>
""",
    "static/reset/reset-email-app.html": """\
<p>Somebody, most likely you, wants to set a new password for your {PRODUCT_NAME} account.</p>
<p>Open this link on the phone that has the app: <a href="{RESET_URL}">{RESET_URL}</a></p>
<p>It works for 45 minutes. If it was not you, ignore this message: nothing has been changed.</p>
""",
    "static/reset/reset-email-app-confirmation.html": """\
<p>The password of your {PRODUCT_NAME} account {EMAIL} has been changed.</p>
<p>If it was not you, please tell the administrator of the server at once.</p>
""",
}  # fmt: skip


def escape_html(text: str) -> str:
    for plain, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(plain, entity)
    return text


def one_line(text: str) -> str:
    """For a header: no line ends, no control characters."""
    return "".join(c if c >= " " and c != "\x7f" else " " for c in text).strip()


def qr_png(text: str) -> Optional[bytes]:
    """A QR code as PNG, or None without the `segno` package."""
    try:
        import segno
    except ImportError:
        return None
    from io import BytesIO

    out = BytesIO()
    segno.make_qr(text).save(out, kind="png", scale=5)
    return out.getvalue()


class Mail:
    """SMTP (spec 08 §2.1): one connection per mail, in a net thread."""

    __slots__ = ("settings",)
    name = "mail"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ready(self) -> bool:
        s = self.settings
        return bool(s.mail_host and (s.mail_password or not s.mail_auth))

    def sender(self) -> str:
        s = self.settings
        text = str(s.mail_from or s.mail_username or f"blynk@{socket.gethostname()}")
        return one_line(text.replace("{PRODUCT_NAME}", s.server_product_name))

    def send(
        self, to: list[str], subject: str, body: str, html: bool, attachments: Iterable[tuple[str, str, bytes]]
    ) -> None:
        """Errors: Undelivered."""
        client = None
        try:
            message = self.compose(to, subject, body, html, attachments)
            client = self.connect()
            client.send_message(message, to_addrs=to)
        except Exception as problem:
            raise self.undelivered(problem) from None
        finally:
            if client is not None:
                hang_up(client)

    def compose(
        self, to: list[str], subject: str, body: str, html: bool, attachments: Iterable[tuple[str, str, bytes]]
    ) -> Any:
        """An EmailMessage."""
        from email.message import EmailMessage
        from email.utils import formatdate, make_msgid, parseaddr

        sender = self.sender()
        message = EmailMessage()
        message["From"] = sender
        message["To"] = ", ".join(to)
        message["Subject"] = one_line(subject)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=parseaddr(sender)[1].rpartition("@")[2] or "localhost")
        message["Auto-Submitted"] = "auto-generated"
        clean = encode(body.replace("\0", " ")).decode()
        message.set_content(clean, subtype="html" if html else "plain", charset="utf-8")
        for name, kind, data in attachments:
            maintype, _, subtype = kind.partition("/")
            message.add_attachment(data, maintype=maintype, subtype=subtype, filename=name)
        return message

    def connect(self) -> Any:
        """A logged-in SMTP client. Errors: whatever smtplib, ssl and the sockets raise; Undelivered."""
        import smtplib

        s = self.settings
        name = socket.gethostname()
        kwargs: dict[str, Any] = {"timeout": s.mail_connect_timeout_ms / 1000}
        kwargs["local_hostname"] = name if "." in name else "[127.0.0.1]"  # the default asks the name server
        if s.mail_security == "tls":
            client: Any = smtplib.SMTP_SSL(
                s.mail_host, s.mail_port, context=client_tls(s.mail_verify_certificate), **kwargs
            )
        else:
            client = smtplib.SMTP(s.mail_host, s.mail_port, **kwargs)
        try:
            client.sock.settimeout(s.mail_timeout_ms / 1000)
            client.ehlo()
            if s.mail_security.startswith("starttls"):
                if client.has_extn("starttls"):
                    client.starttls(context=client_tls(s.mail_verify_certificate))
                    client.ehlo()
                elif s.mail_security == "starttls-required":
                    raise Undelivered(f"{self.place()} does not offer STARTTLS; see mail.security")
            if s.mail_auth:
                client.login(s.mail_username, s.mail_password)
            return client
        except BaseException:
            client.close()
            raise

    def place(self) -> str:
        return f"{self.settings.mail_host}:{self.settings.mail_port}"

    def undelivered(self, problem: BaseException) -> Undelivered:
        """What went wrong, in words that say what to do."""
        import smtplib

        s, place = self.settings, self.place()
        if isinstance(problem, smtplib.SMTPServerDisconnected) and isinstance(problem.__context__, OSError):
            problem = problem.__context__  # smtplib hides what happened to the socket
        if isinstance(problem, Undelivered):
            return problem
        if isinstance(problem, socket.gaierror):
            return Undelivered(f"host name {s.mail_host} not found: check mail.host and the network", True)
        if isinstance(problem, (TimeoutError, socket.timeout)):
            return Undelivered(
                f"no answer from {place}: the port may be blocked (many providers block 25; 587 with starttls and 465"
                " with tls are usual), or it waits for TLS (465)", True)  # fmt: skip
        if isinstance(problem, ConnectionRefusedError):
            return Undelivered(f"nobody listens at {place}: check mail.host and mail.port", True)
        if isinstance(problem, ssl.SSLCertVerificationError):
            return Undelivered(
                f"the certificate of {s.mail_host} is not valid ({problem.verify_message}): use the name it was made"
                " for, or set mail.verify_certificate = false for a server of your own")  # fmt: skip
        if isinstance(problem, ssl.SSLError):
            return Undelivered(
                f'{place} does not speak TLS so: try mail.security = "starttls" (port 587) or "tls" (port 465)'
            )
        if isinstance(problem, smtplib.SMTPAuthenticationError):
            return self._login_refused(problem.smtp_code, problem.smtp_error)
        if isinstance(problem, smtplib.SMTPNotSupportedError):
            return Undelivered(f"{place} does not offer a login here: try mail.security, or mail.auth = false")
        if isinstance(problem, smtplib.SMTPRecipientsRefused):
            code, text = next(iter(problem.recipients.values()))
            return Undelivered(f"the receiver was refused: {smtp_words(code, text)}", 400 <= code < 500)
        if isinstance(problem, smtplib.SMTPSenderRefused):
            words = smtp_words(problem.smtp_code, problem.smtp_error)
            return Undelivered(f"the sender was refused (mail.from): {words}", 400 <= problem.smtp_code < 500)
        if isinstance(problem, smtplib.SMTPResponseException):
            code = problem.smtp_code
            return Undelivered(f"{place} said: {smtp_words(code, problem.smtp_error)}", not 500 <= code < 600)
        if isinstance(problem, (smtplib.SMTPServerDisconnected, OSError)):
            hint = ': port 465 wants mail.security = "tls"' if s.mail_port == 465 and s.mail_security != "tls" else ""
            return Undelivered(f"{place} closed the connection{hint}", True)
        return Undelivered(f"the mail could not be made: {problem}")

    def _login_refused(self, code: int, text: Any) -> Undelivered:
        host = self.settings.mail_host.lower()
        if host.endswith(("gmail.com", "googlemail.com")):
            return Undelivered(
                "Gmail refused the login: it wants an app password (Google account, Security, 2-Step Verification, App"
                " passwords) as mail.password, not the password of the account")  # fmt: skip
        hint = (
            "; many providers want an app password"
            if host.endswith(("yahoo.com", "icloud.com", "me.com", "office365.com"))
            else ""
        )
        words = f"the login was refused ({smtp_words(code, text)}): check mail.username and mail.password{hint}"
        return Undelivered(words, 400 <= code < 500)


def smtp_words(code: int, text: Any) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return one_line(f"{code} {words}")[:200]


def hang_up(client: Any) -> None:
    try:
        client.sock.settimeout(5.0)  # the mail is delivered: no long goodbye
        client.quit()
    except Exception:
        client.close()


def check_mail(settings: Settings, to: str = "") -> list[str]:
    """Tries the mail settings, sends a mail when `to` is given; what is wrong, in plain words. Blocks. The last line
    starts with "ok" when mail works."""
    mailer = Mail(settings)
    if not settings.mail_host:
        return ["mail is off: set mail.host, mail.username and mail.password"]
    if not mailer.ready():
        return ["mail is off: mail.password is empty (or set mail.auth = false for a server without login)"]
    lines = []
    if "@" not in mailer.sender():
        lines.append(f"the sender {mailer.sender()!r} is not an address: set mail.from")
    try:
        if to:
            text = f"Mail works: this was sent by the {settings.server_product_name} server.\n"
            mailer.send([to], f"{settings.server_product_name} test mail", text, False, ())
        else:
            client = mailer.connect()
            if settings.mail_auth and not isinstance(client.sock, ssl.SSLSocket):
                lines.append("the password goes over the network unencrypted: see mail.security")
            hang_up(client)
    except Exception as problem:
        return [*lines, str(mailer.undelivered(problem))]
    sent = (
        f"a mail to {to} was handed over"
        if to
        else "the server took the login"
        if settings.mail_auth
        else "the server answers"
    )
    return [*lines, f"ok: {mailer.place()}: {sent}"]


# -- 8d Push channels (spec 08 §3) -----------------------------------------------------------------------------------
# targets(widget) -> list of (map name, uid, token); one "" target for channels that reach the house, not a phone.

PUSH_MAPS = ("androidTokens", "iOSTokens")


class Push:
    """One notification: project id, title, text, whether it is urgent."""

    __slots__ = ("project_id", "title", "text", "high")

    def __init__(self, project_id: int, title: str, text: str, high: bool) -> None:
        self.project_id, self.title, self.text, self.high = project_id, title, text, high


def phones(widget: Document) -> list[tuple[str, str, str]]:
    """(map, uid, token) of every phone that a notification widget knows."""
    return [(name, uid, token) for name in PUSH_MAPS for uid, token in (widget.get(name) or {}).items()]


def expect_ok(reply: tuple[int, Optional[bytes]]) -> bytes:
    status, body = reply
    if not 200 <= status < 300:
        raise Undelivered(f"it answered {status}", status >= 500 or status == 429)
    return body or b""


class LegacyFcm:
    """The Java server's JSON POST, to a gateway that speaks it (Google's own is gone)."""

    __slots__ = ("settings",)
    name = "push server"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ready(self) -> bool:
        return bool(self.settings.push_server and not self.settings.push_fcm_v1_account_file)

    targets = staticmethod(phones)

    def send(self, target: tuple[str, str, str], push: Push) -> None:
        document: Document = {"to": target[2], "priority": "high" if push.high else "normal"}
        if target[0] == "androidTokens":
            document["data"] = {"message": push.text, "dashId": push.project_id}
        else:
            document["notification"] = {
                "body": push.text,
                "dashId": push.project_id,
                "sound": "default",
                "title": push.title,
            }
        headers = {
            "Authorization": f"key={self.settings.push_api_key}",
            "Content-Type": "application/json; charset=utf-8",
        }
        answer = json_answer(expect_ok(fetch("POST", self.settings.push_server, headers, encode(to_json(document)))))
        results = answer.get("results")
        error = (
            str(results[0].get("error"))
            if isinstance(results, list) and results and isinstance(results[0], dict)
            else ""
        )
        if answer.get("failure") == 1:
            raise (UnknownReceiver if "NotRegistered" in error else Undelivered)(
                f"it said: {one_line(error)[:60] or 'failure'}"
            )


def json_answer(body: bytes) -> Document:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


class FcmV1:
    """Firebase for people with an app of their own: HTTP v1, the RS256 signature made by the `openssl` program."""

    __slots__ = ("settings", "access", "until")
    name = "fcm"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.access, self.until = "", 0.0

    def ready(self) -> bool:
        return bool(self.settings.push_fcm_v1_account_file)

    targets = staticmethod(phones)

    def send(self, target: tuple[str, str, str], push: Push) -> None:
        account = self.account()
        if time.monotonic() > self.until:
            self.log_in(account)
        message: Document = {"token": target[2], "data": {"message": push.text, "dashId": str(push.project_id)}}
        if target[0] == "androidTokens":
            message["android"] = {"priority": "high" if push.high else "normal"}
        else:
            message["notification"] = {"title": push.title, "body": push.text}
        headers = {"Authorization": f"Bearer {self.access}", "Content-Type": "application/json"}
        body = encode(to_json({"message": message}))
        status, answer = fetch("POST", FCM_URL.format(percent(str(account.get("project_id")))), headers, body)
        if status == 401:
            self.until = 0.0
        if status == 404 or b"UNREGISTERED" in (answer or b""):
            raise UnknownReceiver("the phone is not registered any more")
        expect_ok((status, answer))

    def account(self) -> Document:
        path = self.settings.push_fcm_v1_account_file
        try:
            with open(path, "rb") as file:
                return json_answer(file.read())
        except OSError as problem:
            raise Undelivered(f"cannot read {path}: {problem.strerror}") from None

    def log_in(self, account: Document) -> None:
        """Trades a signed statement for an access token (RFC 7523)."""
        where, now = str(account.get("token_uri")), int(time.time())
        claims = {"iss": account.get("client_email"), "scope": "https://www.googleapis.com/auth/firebase.messaging",
                  "aud": where, "iat": now, "exp": now + 3600}  # fmt: skip
        parts = [base64_url(encode(to_json(part))) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
        signature = sign_rs256(encode(str(account.get("private_key"))), encode(".".join(parts)))
        form = "grant_type=" + percent("urn:ietf:params:oauth:grant-type:jwt-bearer") + "&assertion="
        form += ".".join([*parts, base64_url(signature)])
        reply = fetch("POST", where, {"Content-Type": "application/x-www-form-urlencoded"}, encode(form))
        answer = json_answer(expect_ok(reply))
        if not isinstance(answer.get("access_token"), str):
            raise Undelivered("Google gave no access token")
        self.access = answer["access_token"]
        self.until = time.monotonic() + 3000


def base64_url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def sign_rs256(key: bytes, data: bytes) -> bytes:
    """An RSA-SHA256 signature by the openssl program; the key (PEM) is in a file of our own only while it works."""
    import subprocess
    import tempfile

    handle, path = tempfile.mkstemp(prefix="blynk-")  # 0600
    try:
        os.write(handle, key)
        os.close(handle)
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", path], input=data, capture_output=True, timeout=30, check=False
        )
    except FileNotFoundError:
        raise Undelivered("the openssl program is missing: apt install openssl") from None
    except subprocess.TimeoutExpired:
        raise Undelivered("openssl does not answer") from None
    finally:
        os.unlink(path)
    if done.returncode:
        raise Undelivered("openssl cannot sign with the private_key of the account file")
    return done.stdout


class Ntfy:
    """https://ntfy.sh or an ntfy server of one's own: one POST."""

    __slots__ = ("settings",)
    name = "ntfy"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ready(self) -> bool:
        return bool(self.settings.push_ntfy_url)

    @staticmethod
    def targets(_widget: Document) -> list[tuple[str, str, str]]:
        return [("", "", "")]

    def send(self, _target: tuple[str, str, str], push: Push) -> None:
        s = self.settings
        url = s.push_ntfy_url.rstrip("/") + ("/" + percent(s.push_ntfy_topic) if s.push_ntfy_topic else "")
        title = one_line(push.title)
        if not title.isascii():
            title = f"=?UTF-8?B?{base64.b64encode(encode(title)).decode()}?="
        headers = {
            "Title": title,
            "Priority": "high" if push.high else "default",
            "Content-Type": "text/plain; charset=utf-8",
        }
        if s.push_ntfy_token:
            headers["Authorization"] = f"Bearer {s.push_ntfy_token}"
        expect_ok(fetch("POST", url, headers, encode(push.text)))


class Apprise:
    """The `apprise` program, which speaks to a hundred services. The URLs go in its environment: they hold secrets."""

    __slots__ = ("settings",)
    name = "apprise"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ready(self) -> bool:
        return bool(self.settings.push_apprise_urls)

    targets = staticmethod(Ntfy.targets)

    def send(self, _target: tuple[str, str, str], push: Push) -> None:
        import subprocess

        environment = {**os.environ, "APPRISE_URLS": " ".join(self.settings.push_apprise_urls)}
        command = ["apprise", "--title", one_line(push.title)]
        try:
            done = subprocess.run(
                command, input=encode(push.text), env=environment, capture_output=True, timeout=60, check=False
            )
        except FileNotFoundError:
            raise Undelivered("the apprise program is missing: apt install apprise") from None
        except subprocess.TimeoutExpired:
            raise Undelivered("apprise does not come to an end", True) from None
        if done.returncode:
            raise Undelivered(f"apprise failed with exit code {done.returncode}", True)


# -- 8e SMS and posts (spec 08 §4, §5) -------------------------------------------------------------------------------


class Sms:
    """Nexmo (Vonage), or any gateway whose URL takes {to} and {text}."""

    __slots__ = ("settings",)
    name = "sms"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ready(self) -> bool:
        return bool(self.settings.sms_url or self.settings.sms_nexmo_key)

    def send(self, to: str, text: str) -> None:
        s = self.settings
        if s.sms_url:
            expect_ok(fetch("GET", s.sms_url.replace("{to}", percent(to)).replace("{text}", percent(text)), {}))
            return
        query = {"api_key": s.sms_nexmo_key, "api_secret": s.sms_nexmo_secret, "from": "Blynk", "to": to, "text": text}
        url = NEXMO_URL + "?" + "&".join(f"{name}={percent(value)}" for name, value in query.items())
        messages = json_answer(expect_ok(fetch("POST", url, {}))).get("messages")
        first = messages[0] if isinstance(messages, list) and messages and isinstance(messages[0], dict) else {}
        if str(first.get("status")) != "0":
            raise Undelivered(f"it said: {one_line(str(first.get('error-text') or 'nothing'))[:100]}")


class Tweet:
    """Mastodon when set, else X (API v2, OAuth 1.0a with the user's token from the widget)."""

    __slots__ = ("settings",)
    name = "post"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ready(self) -> bool:
        s = self.settings
        return bool(
            (s.twitter_mastodon_url and s.twitter_mastodon_token)
            or (s.twitter_consumer_key and s.twitter_consumer_secret)
        )

    def authorized(self, widget: Document) -> bool:
        """Whether the widget (or the settings, for Mastodon) say in whose name to post."""
        return bool(self.settings.twitter_mastodon_url or (widget.get("token") and widget.get("secret")))

    def send(self, token: str, secret: str, text: str) -> None:
        s = self.settings
        if s.twitter_mastodon_url:
            headers = {
                "Authorization": f"Bearer {s.twitter_mastodon_token}",
                "Content-Type": "application/x-www-form-urlencoded",
            }
            expect_ok(
                fetch(
                    "POST",
                    s.twitter_mastodon_url.rstrip("/") + "/api/v1/statuses",
                    headers,
                    encode("status=" + percent(text)),
                )
            )
            return
        consumer = (s.twitter_consumer_key, s.twitter_consumer_secret)
        headers = {
            "Authorization": oauth1("POST", X_URL, consumer, (token, secret)),
            "Content-Type": "application/json",
        }
        expect_ok(fetch("POST", X_URL, headers, encode(to_json({"text": text}))))


def oauth1(method: str, url: str, consumer: tuple[str, str], user: tuple[str, str]) -> str:
    """The Authorization header of a call without form parameters, signed with HMAC-SHA1 (RFC 5849)."""
    fields = {
        "oauth_consumer_key": consumer[0],
        "oauth_nonce": os.urandom(16).hex(),
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(int(time.time())),
        "oauth_token": user[0],
        "oauth_version": "1.0",
    }
    pairs = "&".join(f"{percent(name)}={percent(value)}" for name, value in sorted(fields.items()))
    base = f"{method}&{percent(url)}&{percent(pairs)}"
    key = f"{percent(consumer[1])}&{percent(user[1])}"
    signature = hmac.new(encode(key), encode(base), hashlib.sha1).digest()
    fields["oauth_signature"] = base64.b64encode(signature).decode()
    return "OAuth " + ", ".join(f'{name}="{percent(value)}"' for name, value in sorted(fields.items()))


# -- 8f What the other rooms call --------------------------------------------------------------------------------------


def masked(target: str) -> str:
    """An address, number or token as the notification log shows it: enough to know it, not enough to use it."""
    local, at, domain = target.rpartition("@")
    if at:
        return f"{local[:1]}***@{domain}"
    return target[:2] + "***" + target[-2:] if len(target) > 6 else "***"


class Messengers:
    """Mail, push, SMS and posts for handlers and rules.

    Each call returns at once; what came of it is in the account's notification log (`account.notifications`, the last
    100: dicts with time (ms), kind, target (masked), result ("sent" or why not)) and given to `done(ok)` in the loop.
    """

    __slots__ = ("server", "settings", "loop", "outbox", "mailer", "pushers", "sms_gateway", "tweeter", "texts", "said")

    def __init__(self, server: Any) -> None:
        self.server, self.settings, self.loop = server, server.settings, server.loop
        self.outbox = Outbox(self.loop, self.settings.notifications_queue, self.settings.notifications_workers)
        self.mailer = Mail(self.settings)
        self.pushers = [channel(self.settings) for channel in (LegacyFcm, FcmV1, Ntfy, Apprise)]
        self.sms_gateway = Sms(self.settings)
        self.tweeter = Tweet(self.settings)
        self.texts = {name: path for name in MAIL_TEXTS if os.path.isfile(path := os.path.abspath(name))}
        self.said: dict[str, float] = {}  # channel -> when the log last heard of its trouble

    # -- mail ------------------------------------------------------------------------------------------------------

    def text(self, name: str, values: dict[str, str], raw: Optional[dict[str, str]] = None) -> str:
        """A mail's text with its placeholders replaced (spec 08 §2.2, §2.3): `values` are escaped in HTML, `raw` (links
        and HTML of our own) not. Every line ends with a line feed."""
        own = MAIL_TEXTS[name]
        path = self.texts.get(name)
        try:
            body = own if path is None else open(path, encoding="utf-8", errors="replace").read()
        except OSError as problem:
            log.warning(f"{path}: {problem.strerror}: the built-in text is used")
            body = own
        body = "".join(line + "\n" for line in body.splitlines())
        html = name.endswith(".html")
        for key, value in {"PRODUCT_NAME": self.settings.server_product_name, **values}.items():
            body = body.replace("{" + key + "}", escape_html(value) if html else value)
        for key, value in (raw or {}).items():
            body = body.replace("{" + key + "}", value)
        return body

    def mail(
        self,
        to: str,
        subject: str,
        body: str,
        html: bool = False,
        attachments: Iterable[tuple[str, str, bytes]] = (),
        done: Optional[Callable[[bool], object]] = None,
        account: Any = None,
        tries: int = 0,
    ) -> bool:
        """Sends a mail to one address or a comma-separated list; attachments are (file name, type, bytes).

        `tries`: how often at most, when the trouble may pass; by default once when somebody waits for `done`, else four
        times within six minutes. False: not even queued (`done(False)` comes all the same).
        """
        receivers = [part.strip() for part in to.split(",") if part.strip()]
        target = ",".join(masked(receiver) for receiver in receivers)
        args = (receivers, subject, body, html, tuple(attachments))
        return self._send(
            self.mailer, "mail", target, args, account, done, tries or (1 if done else len(RETRY_SECONDS) + 1)
        )

    def may_mail(self, account: Any) -> bool:
        """The daily limit of what devices and rules mail (spec 08 §2.6): asked before limited_mail."""
        if account.mails and self.loop.now - account.mails_since >= 86400:
            account.mails = 0
        return bool(account.mails <= self.settings.notifications_mails_per_day)

    def limited_mail(
        self,
        account: Any,
        to: str,
        subject: str,
        body: str,
        html: bool,
        done: Optional[Callable[[bool], object]] = None,
    ) -> bool:
        """A mail of a device or rule: counts against the daily limit, is tried patiently."""
        if not account.mails:
            account.mails_since = self.loop.now
        account.mails += 1
        return self.mail(to, subject, body, html, (), done, account, len(RETRY_SECONDS) + 1)

    def greet(self, account: Any) -> None:
        """Welcomes a new user of the standard app."""
        if account.app == "Blynk" and self.mailer.ready():
            body = self.text("static/register-email.html", {"EMAIL": account.email})
            self.mail(account.email, "Get started with Blynk", body, True, account=account)

    # -- push, SMS, posts ------------------------------------------------------------------------------------------

    def reaches(self, project: Any, widget: Document) -> bool:
        """Whether a push has anywhere to go: a phone's token, a channel to the house, or an open browser."""
        if any(widget.get(name) for name in PUSH_MAPS):
            return True
        if self.settings.push_ntfy_url or self.settings.push_apprise_urls:
            return True
        return any(True for _ in self.browsers(project))

    @staticmethod
    def browsers(project: Any) -> Iterator[Any]:
        """Sessions of the browser app that look at this project."""
        for session in project.account.apps:
            if session.os == "Web" and session.share in (None, project) and not session.stream.congested:
                yield session

    def push(self, project: Any, text: str) -> None:
        """Pushes a text to everybody who follows the project: phones, channels, open browsers (spec 08 §3). Nothing
        without a notification widget."""
        widget = project.find("NOTIFICATION")
        if widget is None:
            return
        account, body = project.account, encode(text)
        for session in self.browsers(project):
            session.send(Command.PUSH_NOTIFICATION, 0, body)
            self.note(account, "push", "browser", "sent")
        title = self.settings.push_title.replace("{PRODUCT_NAME}", self.settings.server_product_name)
        push = Push(project.id, title, text, widget.get("priority") == "high")
        for channel in self.pushers:
            if channel.ready():
                for target in channel.targets(widget):
                    name = masked(target[2]) if target[2] else channel.name
                    self._send(channel, "push", name, (target, push), account, None, 1, (widget, target))

    def sms(self, account: Any, to: str, text: str) -> bool:
        """False when no gateway is set or the queue is full."""
        return self._send(self.sms_gateway, "sms", masked(to), (to, text), account, None, 1)

    def tweet(self, account: Any, widget: Document, text: str, done: Optional[Callable[[bool], object]] = None) -> bool:
        args = (str(widget.get("token") or ""), str(widget.get("secret") or ""), text)
        return self._send(
            self.tweeter, "tweet", str(widget.get("username") or self.tweeter.name), args, account, done, 1
        )

    # -- in one place ----------------------------------------------------------------------------------------------

    def _send(
        self,
        channel: Any,
        kind: str,
        target: str,
        args: tuple[Any, ...],
        account: Any,
        done: Optional[Callable[[bool], object]],
        tries: int,
        phone: Optional[tuple[Document, tuple[str, str, str]]] = None,
    ) -> bool:
        def back(_result: Any, error: Optional[BaseException]) -> None:
            if error is not None:
                if not isinstance(error, Undelivered):
                    log.error(f"{channel.name}: our own mistake: {error!r}")
                self._failed(channel, error, phone)
            self.note(account, kind, target, "sent" if error is None else why_not(error))
            if done is not None:
                done(error is None)

        refusal = None if channel.ready() else "not configured"
        if refusal is None and not self.outbox.put(channel.name, channel.send, args, back, account, tries):
            refusal = "too many messages are waiting"
            self._complain(channel.name, refusal)
        if refusal is not None:
            self.note(account, kind, target, refusal)
            if done is not None:
                self.loop.soon(done, False)
        return refusal is None

    def _failed(
        self, channel: Any, error: BaseException, phone: Optional[tuple[Document, tuple[str, str, str]]]
    ) -> None:
        if isinstance(error, UnknownReceiver) and phone is not None:
            widget, (name, uid, token) = phone
            tokens = widget.get(name) or {}
            if tokens.get(uid) == token:
                set_or_drop(widget, name, {k: v for k, v in tokens.items() if k != uid})
            return
        self._complain(channel.name, why_not(error))

    def _complain(self, channel: str, why: str) -> None:
        if self.loop.now - self.said.get(channel, -COMPLAIN_SECONDS) >= COMPLAIN_SECONDS:
            self.said[channel] = self.loop.now
            log.warning(f"{channel}: not delivered: {why} (said once an hour; the account's notification log has all)")
        elif log.debugging:
            log.debug(f"{channel}: not delivered: {why}")

    def note(self, account: Any, kind: str, target: str, result: str) -> None:
        """Into the account's notification log."""
        if account is not None:
            if not account.notifications:
                account.notifications = deque(maxlen=NOTIFICATIONS_KEPT)
            entry = {"time": self.loop.now_ms, "kind": kind, "target": target, "result": result}
            account.notifications.append(entry)


# ======================================================================================================================
# 9. Automation
# ======================================================================================================================
# What the server does by itself: rules on values (eventor), timers and time rules, webhooks, widgets that ask for their
# value, the notice that a device went offline; reports in the second part. The model asks `watches` when it builds a
# route and calls `on_value` for watched pins only; a changed project comes by `project_changed`. Knows no HTTP server.

# -- 9a Rules, timers, webhooks, reading -------------------------------------------------------------------------------

CATCH_UP_MS = 12_000  # a timer this late still runs (the loop looks at a clock that was set after at most 10 s)
CLOCK_CHECK_SECONDS = 60  # how often timers look whether the clock was set back
CLOCK_WAS_WRONG_MS = 12 * 3600 * 1000  # set back by more: the old time was wrong, what ran then may run again
TIMERS_A_TURN = 200  # due timers that run before sockets get their turn
DAY_MS = 86_400_000
READING_OFFSET_MS = 400  # reading widgets ask that long after a full second
TILE_READING_MS = 1000  # inside device tiles, whatever the widget says

NUMERIC_CONDITIONS: dict[str, Callable[[float, Document], bool]] = {
    "GT": lambda v, c: v > c["value"],
    "GTE": lambda v, c: v >= c["value"],
    "LT": lambda v, c: v < c["value"],
    "LTE": lambda v, c: v <= c["value"],
    "EQ": lambda v, c: v == c["value"],
    "NEQ": lambda v, c: v != c["value"],
    "BETWEEN": lambda v, c: c["left"] < v < c["right"],
    "NOT_BETWEEN": lambda v, c: not c["left"] < v < c["right"],
}
TEXT_MATCHES = frozenset(("NEQ", "NOT_BETWEEN"))  # a text is not that number, nor between those


def condition_holds(condition: Document, value: str) -> bool:
    """Whether a value meets a condition (spec 08 §8.3); a text is never a number. CHANGED compares with the text seen
    last, which the caller keeps."""
    kind, wanted = condition["type"], condition.get("value", "")
    if kind in NUMERIC_CONDITIONS:
        number = parse_number(value)
        return kind in TEXT_MATCHES if number is None else NUMERIC_CONDITIONS[kind](number, condition)
    return bool(value == wanted) is (kind == "STR_EQUAL")


def action_valid(action: Document) -> bool:
    """Spec 04 §14.5; an invalid action is left out."""
    if action["type"] in ("SETPIN", "SET_PROP"):
        stream = action.get("pin") or {}
        return "value" in action and has_pin(stream) and bool(0 <= stream["pin"] <= 255)
    return bool(action.get("message"))


class RuleState:
    """A rule of an eventor while the server runs. fired: the condition held at the last value. record: of what CHANGED
    saw last, in the list of journal records `batch`."""

    __slots__ = ("rule", "index", "fired", "record", "batch")

    def __init__(self, rule: Document, index: int) -> None:
        self.rule, self.index, self.fired = rule, index, False
        self.record: list[Any] = []
        self.batch: Optional[list[list[Any]]] = None


class HookState:
    """A webhook widget while the server runs. failures: in a row; waiting: calls under way."""

    __slots__ = ("widget", "failures", "waiting")

    def __init__(self, widget: Document) -> None:
        self.widget = widget
        self.failures = self.waiting = 0


class Poller:
    """A widget that asks boards for its value: `vr\\05` for each of its pins. last: device id → nominal time (ms)."""

    __slots__ = ("target", "tiles", "template_id", "period", "bodies", "last")

    def __init__(self, widget: Document, tiles: Optional[Document] = None, template_id: int = 0) -> None:
        self.target, self.tiles, self.template_id = widget.get("deviceId", 0), tiles, template_id
        self.period: int = widget["frequency"] if tiles is None else TILE_READING_MS
        streams = widget.get("pins", ()) if widget["type"] == "LCD" else (widget,)
        self.bodies = [f"{LETTERS[s['pinType']]}r\0{s['pin']}".encode() for s in streams if has_pin(s)]
        self.last: dict[int, int] = {}

    def devices(self, project: Project) -> list[Device]:
        """Those whose boards it asks."""
        if self.tiles is None:
            return project.selected(self.target)
        return tile_devices(project, self.tiles, self.template_id)


def tile_devices(project: Project, tiles: Document, template_id: int) -> list[Device]:
    """The devices whose tiles use that template."""
    ids = dict.fromkeys(t["deviceId"] for t in tiles.get("tiles", ()) if t["templateId"] == template_id)
    return [project.devices[i] for i in ids if i in project.devices]


class Alarm:
    """A moment of the day at which something happens: a Timer widget's start or stop, or a time rule.

    seconds: of the UTC day, with a zone of the local day. days: of the week, Monday 1. trigger: a rule's `triggerTime`.
    """

    __slots__ = ("project", "key", "seconds", "days", "zone", "due", "fire", "trigger")

    def __init__(
        self, project: Project, key: tuple[Any, ...], seconds: int, days: Any, zone: Any, fire: Callable[[], None]
    ) -> None:
        self.project: Optional[Project] = project  # None: no longer wanted
        self.key, self.seconds, self.days, self.zone, self.fire = key, seconds, days, zone, fire
        self.due = 0
        self.trigger: Optional[Document] = None

    def next_due(self, after: int) -> int:
        """The first such moment later than `after` (ms); 0 when there is none."""
        if self.zone is None:
            due: int = after - after % DAY_MS + self.seconds * 1000
            return due if due > after else due + DAY_MS
        from datetime import datetime, timedelta

        day = datetime.fromtimestamp(after / 1000, self.zone).date() - timedelta(days=1)
        for _ in range(10):
            if day.isoweekday() in self.days:
                # A time that the clock leaps over is taken with the offset before the leap, one that comes twice counts
                # the first time: either way once.
                local = datetime(day.year, day.month, day.day, tzinfo=self.zone)
                hours, rest = divmod(self.seconds, 3600)
                due = int(local.replace(hour=hours, minute=rest // 60, second=rest % 60).timestamp() * 1000)
                if due > after:
                    return due
            day += timedelta(days=1)
        return 0


def zone_offset(tz: Any, ms: int) -> int:
    """Seconds a zone is ahead of UTC at that moment."""
    from datetime import datetime

    offset = datetime.fromtimestamp(ms / 1000, tz).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


class Rules:
    """What the automation keeps about one project (`project.runtime`)."""

    __slots__ = ("eventor", "rules", "states", "hooks", "readers", "alarms")

    def __init__(self) -> None:
        self.eventor: Optional[Document] = None
        self.rules: list[Document] = []  # the eventor's list itself: another one means that it was saved anew
        self.states: list[RuleState] = []
        self.hooks: list[HookState] = []
        self.readers: list[Poller] = []
        self.alarms: list[Alarm] = []


class Automation:
    """Rules, timers, webhooks and reading widgets of all projects."""

    __slots__ = (
        "server", "loop", "settings", "heap", "sequence", "wake_timer", "wake_at", "dead", "clock", "clock_timer",
        "offsets", "reading", "reading_timer", "offline_timers", "started",
    )  # fmt: skip

    def __init__(self, server: Any) -> None:
        self.server, self.loop, self.settings = server, server.loop, server.settings
        self.heap: list[tuple[int, int, Alarm]] = []
        self.sequence = self.dead = 0
        self.wake_timer: Optional[Timer] = None
        self.wake_at = 0
        self.clock = 0  # wall minus monotonic clock, ms
        self.clock_timer: Optional[Timer] = None
        self.offsets: dict[Any, int] = {}  # zone of time rules → its offset from UTC, s, when last looked
        self.reading: dict[Project, Rules] = {}
        self.reading_timer: Optional[Timer] = None
        self.offline_timers: dict[Device, Timer] = {}
        self.started = False

    # -- projects come, change and go --------------------------------------------------------------------------------

    def start(self) -> None:
        """Takes up every account's rules."""
        self.started = True
        self.clock = self.skew()
        for account in self.server.accounts.values():
            since = self.ran_until(account)
            for project in account.projects.values():
                try:
                    self.register(project, since)
                except Exception:
                    log.exception(f"in the rules of {account.email}, project {project.id}")

    def ran_until(self, account: Account) -> int:
        """After which moment (ms) alarms still run: those of a pause of up to CATCH_UP_MS, none a second time."""
        now, ran = self.loop.now_ms, account.document.get("timersRan", 0)
        since: int = now - CATCH_UP_MS
        return min(max(ran, since), now) if isinstance(ran, int) else since

    def project_changed(self, project: Project) -> None:
        """Reads a project anew; what did not change goes on as it was. Creation counts as a change."""
        if self.started:
            if self.heap and self.heap[0][0] <= self.loop.now_ms:
                self.run_due()  # what is due just now is due as it was
            self.register(project, self.loop.now_ms)

    def project_removed(self, project: Project) -> None:
        old, project.runtime = project.runtime, None
        self.reading.pop(project, None)
        for alarm in old.alarms if old is not None else ():
            self.forget(alarm)
        for device in project.devices.values():
            timer = self.offline_timers.pop(device, None)
            if timer is not None:
                timer.cancel()

    def register(self, project: Project, since: int) -> None:
        old: Optional[Rules] = project.runtime
        new = Rules()
        hooks = {id(h.widget): h for h in old.hooks} if old is not None else {}
        for widget in project.widgets:
            kind = widget["type"]
            if kind == "EVENTOR" and new.eventor is None:
                self.read_eventor(project, widget, old, new)
            elif kind == "WEBHOOK":
                new.hooks.append(hooks.get(id(widget)) or HookState(widget))
            elif kind == "TIMER":
                self.read_timer(project, widget, new)
            elif kind == "DEVICE_TILES":
                self.read_tiles(project, widget, new)
            elif kind in READING_WIDGETS and widget.get("frequency", 0) > 0:
                new.readers.append(Poller(widget))
        self.set_alarms(old, new, since)
        wanted = new.eventor is not None or new.hooks or new.readers or new.alarms
        project.runtime = new if wanted else None
        if new.readers:
            self.reading[project] = new
            self.wake_reading()
        else:
            self.reading.pop(project, None)

    def read_tiles(self, project: Project, tiles: Document, new: Rules) -> None:
        for template in tiles.get("templates", ()):
            for widget in template.get("widgets", ()):
                if widget["type"] == "TIMER":
                    self.read_timer(project, widget, new, tiles, template["id"])
                elif widget["type"] in READING_WIDGETS and widget.get("frequency", 0) > 0:
                    new.readers.append(Poller(widget, tiles, template["id"]))

    def read_eventor(self, project: Project, eventor: Document, old: Optional[Rules], new: Rules) -> None:
        """The first eventor of a project; after any save of it the rules start afresh (spec 08 §8.2)."""
        new.eventor, new.rules = eventor, eventor.get("rules", [])
        if old is not None and old.rules is new.rules:
            new.states = old.states
        else:
            new.states = [
                RuleState(rule, index)
                for index, rule in enumerate(new.rules)
                if rule.get("isActive") and "triggerPin" in rule and "condition" in rule and rule.get("actions")
            ]
        for rule in new.rules:
            if rule.get("isActive") and "triggerTime" in rule and any(map(action_valid, rule.get("actions", ()))):
                self.read_time_rule(project, eventor, rule, old, new)

    def read_time_rule(
        self, project: Project, eventor: Document, rule: Document, old: Optional[Rules], new: Rules
    ) -> None:
        """A time rule has its time in UTC and a zone for its days; what the user meant is the local time (see
        local_time)."""
        trigger = rule["triggerTime"]
        days, tz = frozenset(trigger.get("days", ())), zone(trigger.get("tzName"))
        if not days or not 0 <= trigger["time"] < 86400:
            return
        before = [r["triggerTime"] for r in old.rules if "triggerTime" in r] if old is not None else None
        seconds = self.local_time(project, trigger, tz, before)

        def fire() -> None:
            self.run_time_rule(project, eventor, rule)

        alarm = Alarm(project, ("rule", id(rule)), seconds, days, tz, fire)
        if hasattr(tz, "key"):
            alarm.trigger = trigger
            self.offsets.setdefault(tz, zone_offset(tz, self.loop.now_ms))
        new.alarms.append(alarm)

    def local_time(self, project: Project, trigger: Document, tz: Any, before: Optional[list[Document]]) -> int:
        """The second of the local day that a rule means, which it keeps over changes of the zone's offset.

        Apps convert to UTC with the offset of the moment they save at. The document remembers that offset
        (`savedOffset`) and is brought up to date when it changes, since apps, and the Java server, read it as of today.
        `before`: the triggers until now, when an app has just saved; a time that is new to them means today's offset.
        """
        now = zone_offset(tz, self.loop.now_ms)
        if not hasattr(tz, "key"):  # UTC or a fixed offset
            return int(trigger["time"] + now) % 86400
        saved = trigger.get("savedOffset")
        if not isinstance(saved, int) or abs(saved) > 86400:
            saved = now
        local = int(trigger["time"] + saved) % 86400
        if before is not None and not any(
            t["id"] == trigger["id"] and (t["time"] + t.get("savedOffset", now)) % 86400 == local for t in before
        ):
            local = int(trigger["time"] + now) % 86400
        if trigger.get("savedOffset") != now:
            trigger["time"], trigger["savedOffset"] = (local - now) % 86400, now
            project.account.save_soon()
        return local

    def read_timer(
        self, project: Project, widget: Document, new: Rules, tiles: Optional[Document] = None, template_id: int = 0
    ) -> None:
        """Start and stop of a Timer widget (spec 08 §9.1)."""
        if not has_pin(widget) or not 0 <= widget["pin"] <= 255:
            return
        for which in ("start", "stop"):
            seconds, value = widget.get(f"{which}Time", -1), widget.get(f"{which}Value")
            if not value or not 0 <= seconds < 86400:
                continue

            def fire(value: str = value) -> None:
                devices = (
                    project.selected(widget.get("deviceId", 0))
                    if tiles is None
                    else tile_devices(project, tiles, template_id)
                )
                letter = LETTERS[widget["pinType"]]
                self.write_pin(devices, letter, letter, widget["pin"], value, ID_TIMER)

            key = (which, widget["id"], template_id, seconds, value)
            new.alarms.append(Alarm(project, key, seconds, None, None, fire))

    # -- values ------------------------------------------------------------------------------------------------------

    def watches(self, project: Project, target: int, letter: str, pin: int) -> bool:
        """Whether a rule or webhook is bound to that pin of that target."""
        rules: Optional[Rules] = project.runtime
        if rules is None:
            return False
        if self.hook_of(rules, target, letter, pin) is not None:
            return True
        return (
            rules.eventor is not None
            and rules.eventor.get("deviceId", 0) == target
            and any(stream_matches(s.rule["triggerPin"], letter, pin) for s in rules.states)
        )

    def on_value(self, project: Project, target: int, letter: str, pin: int, value: str, origin: Any) -> None:
        """A value came (spec 08 §6): rules, then the webhook. origin: the session, or "http", which calls no webhook.
        Errors stay here: whoever sent the value is not concerned."""
        rules: Optional[Rules] = project.runtime
        if rules is None:
            return
        try:
            eventor = rules.eventor
            if eventor is not None and eventor.get("deviceId", 0) == target and project.active:
                self.run_rules(project, rules, target, letter, pin, value)
            if origin != "http":
                hook = self.hook_of(rules, target, letter, pin)
                if hook is not None:
                    self.call_hook(project, hook, target, letter, pin, value, origin)
        except Exception:
            log.exception(f"in the rules of project {project.id}")

    def run_rules(self, project: Project, rules: Rules, target: int, letter: str, pin: int, value: str) -> None:
        for state in rules.states:
            rule = state.rule
            if not stream_matches(rule["triggerPin"], letter, pin):
                continue
            condition = rule["condition"]
            if not condition_holds(condition, value):
                state.fired = False
                continue
            if condition["type"] == "CHANGED":  # on every change
                self.remember(project, target, state, value)
            elif state.fired:
                continue
            state.fired = True
            devices = project.selected(target)
            for action in rule["actions"]:
                if action_valid(action):
                    self.run_action(project, devices, action, ID_EVENTOR, value)

    def remember(self, project: Project, target: int, state: RuleState, value: str) -> None:
        """The text that CHANGED compares with outlives a restart, a kill too: one journal record a second."""
        state.rule["condition"]["value"] = value
        account = project.account
        if state.batch is account.ledger.operations:  # not yet written: the last text counts
            state.record[-1] = value
        else:
            state.record = ["c", account.email, account.app, project.id, target, state.index, value]
            state.batch = account.ledger.operations
            state.batch.append(state.record)
        project.touched()

    # -- actions (spec 08 §8.5) --------------------------------------------------------------------------------------

    def run_action(
        self, project: Project, devices: list[Device], action: Document, id: int, value: Optional[str]
    ) -> None:
        """One valid action; `/pin/` in messages is the value that fired the rule (a time rule has none)."""
        self.server.stats.commands[Command.EVENTOR] += 1
        kind = action["type"]
        if kind == "SETPIN":
            stream = action["pin"]
            own = LETTERS[stream["pinType"]]
            shown = "a" if stream.get("pwmMode") else own
            self.write_pin(devices, shown, own, stream["pin"], action.get("value", ""), id)
        elif kind == "SET_PROP":
            self.set_property(project, devices, action, id)
        else:
            message = action["message"] if value is None else action["message"].replace("/pin/", value)
            MESSAGE_ACTIONS[kind](self, project, action, message)

    def write_pin(self, devices: list[Device], shown: str, own: str, pin: int, value: str, id: int) -> None:
        """The server's own write: boards, apps, model; no rules, no history (spec 08 §6)."""
        body = value_body(shown, pin, value)
        data = encode(body)
        to_hardware(devices, Command.HARDWARE, id, data)
        for device in devices:
            to_apps(device.project, Command.HARDWARE, id, prefixed(device, body))
            try:
                set_value(device.project, device.id, own, pin, value)
            except ValueError as problem:
                log.debug(f"a rule's value was refused by a widget: {problem}")

    def set_property(self, project: Project, devices: list[Device], action: Document, id: int) -> None:
        names = ENUMS["Property"].split()
        if action.get("property") not in names:
            return
        name, pin, value = PROPERTY_LABELS[names.index(action["property"])], action["pin"]["pin"], action["value"]
        for device in devices:
            try:
                project.set_property(device.id, pin, name, value)
            except ValueError as problem:
                log.debug(f"a rule's property was refused: {problem}")
                continue
            to_apps(project, Command.SET_WIDGET_PROPERTY, id, prefixed(device, f"{pin}\0{name}\0{value}"))

    def send_push(self, project: Project, _action: Document, message: str) -> None:
        if len(message) <= PUSH_LENGTH:
            self.server.messengers.push(project, message)

    def send_mail(self, project: Project, action: Document, message: str) -> None:
        """To the mail widget's receiver or the account; over the daily limit it is noted, not sent."""
        messengers, account = self.server.messengers, project.account
        receiver = (project.find("EMAIL") or {}).get("to") or account.email
        if not valid_email(receiver):
            messengers.note(account, "mail", masked(receiver), "not an address")
        elif not messengers.may_mail(account):
            messengers.note(account, "mail", masked(receiver), "daily limit reached")
        else:
            messengers.limited_mail(account, receiver, action.get("subject", ""), message, False)

    def send_tweet(self, project: Project, _action: Document, message: str) -> None:
        widget, messengers = project.find("TWITTER"), self.server.messengers
        if widget is not None and len(message) <= TWEET_LENGTH and messengers.tweeter.authorized(widget):
            messengers.tweet(project.account, widget, message)

    # -- alarms: one heap, one timer of the loop (spec 08 §9) ----------------------------------------------------------

    def set_alarms(self, old: Optional[Rules], new: Rules, since: int) -> None:
        """Those that were there before keep their moment, also when it is just now."""
        before = {a.key: a for a in old.alarms} if old is not None else {}
        for alarm in new.alarms:
            same = before.get(alarm.key)
            if same is not None and (same.seconds, same.days, same.zone) == (alarm.seconds, alarm.days, alarm.zone):
                alarm.due = same.due
            else:
                alarm.due = alarm.next_due(since)
            self.push_alarm(alarm)
        for alarm in before.values():
            self.forget(alarm)
        self.wake_at_next()

    def push_alarm(self, alarm: Alarm) -> None:
        if alarm.due:
            self.sequence += 1
            heapq.heappush(self.heap, (alarm.due, self.sequence, alarm))

    def forget(self, alarm: Alarm) -> None:
        """Takes an alarm out; the heap is cleaned when half of it is dead."""
        alarm.project = None
        self.dead += 1
        if self.dead > 100 and self.dead * 2 > len(self.heap):
            self.heap = [entry for entry in self.heap if entry[2].project is not None]
            heapq.heapify(self.heap)
            self.dead = 0

    def wake_at_next(self) -> None:
        """Sets the one timer to the earliest alarm."""
        while self.heap and self.heap[0][2].project is None:
            heapq.heappop(self.heap)
            self.dead -= 1
        due = self.heap[0][0] if self.heap else 0
        if due != self.wake_at:
            if self.wake_timer is not None:
                self.wake_timer.cancel()
            self.wake_at = due
            self.wake_timer = self.loop.call_at_wall(due, self.run_due) if due else None
        if due and self.clock_timer is None:
            self.clock_timer = self.loop.call_later(CLOCK_CHECK_SECONDS, self.look_at_clock)

    def run_due(self) -> None:
        """Runs what is due, at most TIMERS_A_TURN at once. What is later than CATCH_UP_MS is left to its next day."""
        now = self.loop.now_ms
        self.wake_at, self.wake_timer = 0, None
        for _ in range(TIMERS_A_TURN):
            if not self.heap or self.heap[0][0] > now:
                break
            due, _, alarm = heapq.heappop(self.heap)
            project = alarm.project
            if project is None:
                self.dead -= 1
                continue
            in_time = now - due <= CATCH_UP_MS
            alarm.due = alarm.next_due(due if in_time else now - CATCH_UP_MS)
            self.push_alarm(alarm)
            if in_time and project.active:
                self.mark(project, due)
                self.loop._call(alarm.fire)
        self.wake_at_next()

    def mark(self, project: Project, due: int) -> None:
        """Notes in the account (and the journal) up to when its timers ran, so that a restart runs none twice."""
        account = project.account
        if account.document.get("timersRan") != due:
            account.document["timersRan"] = due
            account.ledger.operations.append(["t", account.email, account.app, project.id, due])
            account.ledger.touched.add(account)
            account.ledger.wake()

    def run_time_rule(self, project: Project, eventor: Document, rule: Document) -> None:
        devices = project.selected(eventor.get("deviceId", 0))
        for action in rule.get("actions", ()):
            if action_valid(action):
                self.run_action(project, devices, action, ID_TIMER, None)

    def skew(self) -> int:
        return int(self.loop.now_ms - self.loop.now * 1000)

    def look_at_clock(self) -> None:
        """Finds out that a zone has another offset now, and brings the documents up to date; and that the clock was set
        back, and sets anew what was due far in the future."""
        self.clock_timer = None
        for tz, offset in self.offsets.items():
            now = zone_offset(tz, self.loop.now_ms)
            if now != offset:
                self.offsets[tz] = now
                for _, _, alarm in self.heap:
                    if alarm.trigger is not None and alarm.zone is tz and alarm.project is not None:
                        self.local_time(alarm.project, alarm.trigger, tz, None)
                        alarm.project.modified()
        before, self.clock = self.clock, self.skew()
        if before - self.clock > CLOCK_WAS_WRONG_MS:
            alarms = [entry[2] for entry in self.heap if entry[2].project is not None]
            self.heap, self.dead = [], 0
            for alarm in alarms:
                alarm.due = alarm.next_due(self.loop.now_ms)
                self.push_alarm(alarm)
        self.wake_at_next()

    # -- webhooks (spec 08 §7) ---------------------------------------------------------------------------------------

    @staticmethod
    def hook_of(rules: Rules, target: int, letter: str, pin: int) -> Optional[HookState]:
        """The first webhook of that pin, in widget order."""
        return next((h for h in rules.hooks if one_pin_matches(h.widget, target, letter, pin)), None)

    def call_hook(
        self, project: Project, hook: HookState, target: int, letter: str, pin: int, value: str, origin: Any
    ) -> None:
        """One call, if the clock of the connection and the failure limit allow."""
        settings, now = self.settings, self.loop.now
        pause = settings.webhooks_min_interval_ms / 1000
        if pause and origin.webhook_at and now - origin.webhook_at < pause:
            return
        origin.webhook_at = now
        if settings.webhooks_max_failures and hook.failures >= settings.webhooks_max_failures:
            return
        widget, email = hook.widget, project.account.email
        url = fill_hook(widget.get("url") or "", value, email, self.loop.now_ms)
        if url[:4].lower() != "http" or hook.waiting >= HOOK_QUEUE:
            return
        headers = hook_headers(widget)
        body = b""
        if "Content-Type" in headers and widget.get("body"):
            body = encode(fill_hook(widget["body"], value, email, self.loop.now_ms))
        call = (widget.get("method") or "GET", url, headers, body, settings, hook.failures > 0)

        def done(result: Any, error: Optional[BaseException]) -> None:
            hook.waiting -= 1
            self.hook_done(project, hook, target, letter, pin, result, error)

        hook.waiting += 1
        self.server.stats.commands[Command.WEB_HOOKS] += 1
        if not self.server.messengers.outbox.put(hook, send_hook, call, done, project.account, 1, True):
            hook.waiting -= 1

    def hook_done(
        self,
        project: Project,
        hook: HookState,
        target: int,
        letter: str,
        pin: int,
        result: Any,
        error: Optional[BaseException],
    ) -> None:
        """Counts failures; a good answer with a body goes to the board, to nobody else."""
        if error is not None or result[0] not in (200, 201, 202, 204, 302):
            hook.failures += 1
            if log.debugging:
                log.debug(
                    f"webhook of project {project.id}: " + (f"status {result[0]}" if error is None else why_not(error))
                )
            if hook.failures == self.settings.webhooks_max_failures:
                log.info(f"a webhook of {project.account.email} failed {hook.failures} times: off until it is saved")
            return
        hook.failures = 0
        device = project.devices.get(target)
        if result[1] and device is not None:
            to_hardware((device,), Command.HARDWARE, ID_EVENTOR, encode(f"{letter}w\0{pin}\0") + result[1])

    # -- reading widgets (spec 08 §9.4) ------------------------------------------------------------------------------

    def joined(self, account: Account) -> None:
        """An app or a board of that account came online, or a project was started."""
        if self.reading and any(p.runtime is not None and p.runtime.readers for p in account.projects.values()):
            self.wake_reading()

    def wake_reading(self) -> None:
        """Looks at the next tick what is to be read."""
        self.read_at(self.loop.now_ms + 1)

    def read_at(self, ms: int) -> None:
        """Sets the timer to the first tick (n × 1000 + 400 ms of the clock) from that moment on."""
        tick = -((READING_OFFSET_MS - ms) // 1000) * 1000 + READING_OFFSET_MS
        when = self.loop.now + (tick - self.loop.now_ms + 1) / 1000
        timer = self.reading_timer
        if timer is None or timer.fn is None or timer.when > when + 0.1:
            if timer is not None:
                timer.cancel()
            self.reading_timer = self.loop.call_at(when, self.read)

    def read(self) -> None:
        """One tick, by its nominal time: asks whoever is due, then sleeps until the next one is; when nothing can be
        read, until somebody comes online."""
        nominal = (self.loop.now_ms + 100 - READING_OFFSET_MS) // 1000 * 1000 + READING_OFFSET_MS
        following = 0
        for project, rules in list(self.reading.items()):
            account = project.account
            if account.hardware and project.active and (account.apps or self.settings.reading_without_app):
                for reader in rules.readers:
                    due = self.read_widget(project, reader, nominal)
                    if due and (not following or due < following):
                        following = due
        if following:
            self.read_at(max(following, nominal + 1000))

    def read_widget(self, project: Project, reader: Poller, nominal: int) -> int:
        """Asks the boards that are due; when the next one is (ms), 0 when none is online."""
        following = 0
        for device in reader.devices(project):
            if not device.sessions:
                continue
            last = reader.last.get(device.id, 0)
            if nominal >= last + reader.period or last > nominal:
                last = reader.last[device.id] = nominal
                for body in reader.bodies:
                    to_hardware((device,), Command.HARDWARE, ID_READING, body, False)
            due = last + reader.period
            if not following or due < following:
                following = due
        return following

    # -- devices that go offline (spec 02 §12) -----------------------------------------------------------------------

    def device_offline(self, device: Device, still_connected: bool) -> None:
        """A connection of the device ended, and its status is up to date. Another one lives: nobody needs to know."""
        project = device.project
        if still_connected or not project.active or project.account.removed:
            return
        widget = project.find("NOTIFICATION") or {}
        delay = widget.get("notifyWhenOfflineIgnorePeriod", 0) if widget.get("notifyWhenOffline") else 0
        waiting = self.offline_timers.pop(device, None)
        if waiting is not None:
            waiting.cancel()
        if delay > 0:
            self.offline_timers[device] = self.loop.call_later(delay / 1000, self.still_offline, device)
        else:
            self.tell_offline(device, bool(widget.get("notifyWhenOffline")))

    def still_offline(self, device: Device) -> None:
        """The grace period is over."""
        self.offline_timers.pop(device, None)
        project = device.project
        if device.online or project.devices.get(device.id) is not device or not project.active:
            return
        self.tell_offline(device, bool((project.find("NOTIFICATION") or {}).get("notifyWhenOffline")))

    def tell_offline(self, device: Device, push: bool) -> None:
        project = device.project
        if not project.document.get("isNotificationsOff"):
            to_apps(project, Command.DEVICE_OFFLINE, 0, device.prefix)
        if push and not getattr(self.server, "stopping", False):
            text = self.settings.push_offline_body.replace("{DEVICE_NAME}", device.name or "device")
            self.server.messengers.push(project, text)


MESSAGE_ACTIONS: dict[str, Callable[[Automation, Project, Document, str], None]] = {
    "NOTIFY": Automation.send_push,
    "MAIL": Automation.send_mail,
    "TWIT": Automation.send_tweet,
}


def replay_changed(project: Project, _target: int, index: int, value: str) -> None:
    """Journal record "c": the text a CHANGED condition saw last."""
    rules = (project.find("EVENTOR") or {}).get("rules", [])
    if index < len(rules) and rules[index].get("condition", {}).get("type") == "CHANGED":
        rules[index]["condition"]["value"] = value


def replay_timers(project: Project, due: int) -> None:
    """Journal record "t": up to when the account's timers ran."""
    project.account.document["timersRan"] = due


# -- what a webhook sends, and where it may go -------------------------------------------------------------------------

HOOK_QUEUE = 10  # calls of one webhook that may wait
HOOK_SECONDS, HOOK_SECONDS_AGAIN = 60.0, 10.0  # for a call; for one whose last call failed
OWN_HEADERS = frozenset(("content-length", "transfer-encoding", "connection", "expect", "upgrade"))
# Never a goal: "this network", link-local (metadata services of clouds live there) and its kin, multicast, broadcast.
FORBIDDEN_NETWORKS = [
    "0.0.0.0/8", "169.254.0.0/16", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.0/4", "240.0.0.0/4",
    "::", "fe80::/10", "fd00:ec2::254", "ff00::/8",
]  # fmt: skip
HOME_NETWORKS = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15",
                 "192.0.0.0/24", "::1", "fc00::/7", "fec0::/10"]  # fmt: skip


def fill_hook(text: str, value: str, email: str, now_ms: int) -> str:
    """Replaces the placeholders of a webhook's URL or body, all of them everywhere (spec 08 §7.2)."""
    text = text.replace("/pin/", value)
    parts = full_split(value)
    if len(parts) <= 10:
        for index, part in enumerate(parts):
            text = text.replace(f"/pin[{index}]/", part)
    text = text.replace("%s", value)
    if "/datetime_iso/" in text:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms / 1000))
        text = text.replace("/datetime_iso/", f"{stamp}.{now_ms % 1000:03}Z")
    for name in ("{device_owner_email}", "device_owner_email"):
        text = replace_word(text, name, email)
    return text


def replace_word(text: str, word: str, by: str) -> str:
    """Replaces an ASCII word, given in small letters, in any spelling."""
    small = "".join(c.lower() if c.isascii() else c for c in text)  # as long as the text
    out, start = [], 0
    while (at := small.find(word, start)) >= 0:
        out += [text[start:at], by]
        start = at + len(word)
    return "".join(out) + text[start:]


def hook_headers(widget: Document) -> dict[str, str]:
    """The configured headers, literally; what would break the request is left out."""
    out: dict[str, str] = {}
    for header in widget.get("headers", ()):
        name, value = header.get("name"), header.get("value")
        if not name or value is None or name.lower() in OWN_HEADERS or not value.isprintable():
            continue
        if all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name):
            out[name] = (
                "text/plain; charset=UTF-8" if name == "Content-Type" and value.lower() == "text/plain" else value
            )
    return out


def send_hook(
    method: str, url: str, headers: dict[str, str], body: bytes, settings: Settings, again: bool
) -> tuple[int, Optional[bytes]]:
    """Net thread. Errors: Undelivered."""

    def vet(address: str, port: int, path: str) -> None:
        vet_goal(settings, address, port, path)

    limit = settings.webhooks_max_response_kb * 1024
    return fetch(method, url, headers, body, limit, HOOK_SECONDS_AGAIN if again else HOOK_SECONDS, 5.0, vet)


def vet_goal(settings: Settings, address: str, port: int, path: str) -> None:
    """Whether a webhook may call that address. Errors: Undelivered."""
    address = plain_address(address.partition("%")[0])
    if address_in(address, FORBIDDEN_NETWORKS):
        raise Undelivered("webhooks may not call that address")
    if not settings.webhooks_private_networks and address_in(address, HOME_NETWORKS):
        raise Undelivered("webhooks may not call addresses of the local network (webhooks.private_networks)")
    ports = (settings.ports_http, settings.ports_https, settings.ports_admin_legacy, settings.ports_app_tls_legacy)
    if port in ports and own_address(address):
        goal = plain_path(path)
        if goal.startswith((settings.admin_path.lower(), "/metrics")):
            raise Undelivered("webhooks may not call this server's own administration")


def plain_address(address: str) -> str:
    """The IPv4 address inside an IPv6 one: mapped (::ffff:…), NAT64 (64:ff9b::…) or 6to4 (2002:…)."""
    if ":" in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
        if raw[:12] in (b"\0" * 10 + b"\xff\xff", b"\0d\xff\x9b" + b"\0" * 8) or raw[:12] == b"\0" * 12 and raw[12]:
            return socket.inet_ntop(socket.AF_INET, raw[12:])
        if raw[:2] == b"\x20\x02":
            return socket.inet_ntop(socket.AF_INET, raw[2:6])
    return address


def own_address(address: str) -> bool:
    """Whether it is an address of this machine: only then can a socket be bound to it."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def plain_path(path: str) -> str:
    """A path as a server may end up reading it: decoded, without `//`, `.` and `..`, in small letters."""
    text = path.partition("?")[0]
    for _ in range(3):
        data = encode(text)
        out = bytearray()
        at = 0
        while at < len(data):
            pair = data[at + 1 : at + 3]
            if data[at] == 0x25 and len(pair) == 2 and HEX_DIGITS.issuperset(pair):
                out.append(int(pair, 16))
                at += 2
            else:
                out.append(data[at])
            at += 1
        text = out.decode("utf-8", "replace")
    kept: list[str] = []
    for part in text.lower().replace("\\", "/").split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


REPLAY["c"] = replay_changed
REPLAY["t"] = replay_timers


# -- 9b Reports --------------------------------------------------------------------------------------------------------
# Tables of the history, zipped, mailed and kept for download: on demand, or daily, weekly, monthly by the wall clock of
# a time zone (spec 05 §8). The report objects live in the REPORT widget's document; here are their timers and what
# makes them: one after the other, in a net thread, streamed into the zip; a month of minutes is never text in memory.

REPORT_PAUSE_MS = 60_000  # between two exports of a report
REPORT_DAYS = {"DAILY": 1, "WEEKLY": 7, "MONTHLY": 30}
REPORT_POINTS = {"MINUTE": (0, 1440), "HOURLY": (1, 24), "DAILY": (2, 1)}  # index into HISTORY_PERIODS, points a day
REPORT_WORDS = {"ONE_TIME": "One time", "DAILY": "Daily", "WEEKLY": "Weekly", "MONTHLY": "Monthly"}
REPORT_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTH_ENDS = {"FIRST": "first", "LAST": "last"}
NOT_IN_NAMES = frozenset('\\/:*?"<>| ')


class ReportExpired(DocumentError):
    """A report with an end date has had its last run."""


# -- when --------------------------------------------------------------------------------------------------------------


def local_time(ms: int, tz: Any) -> Any:
    """The datetime of a timestamp in a zone; what is no date becomes the first or last one."""
    from datetime import datetime

    return datetime.fromtimestamp(min(max(ms, 0), LAST_MS) / 1000, tz)


def next_run(report: Document, now_ms: int) -> int:
    """When a periodic report is due next, ms, later than `now_ms` (spec 05 §8.1): the wall-clock time of `atTime` in
    the report's zone, also across a change to or from summer time. Errors: ReportExpired; DocumentError, no weekday."""
    from datetime import datetime, timedelta

    kind, tz = report["reportType"], zone(report.get("tzName"))
    at = local_time(kind["atTime"], tz).time().replace(microsecond=0)
    day = local_time(now_ms, tz).date()
    custom = kind.get("durationType") == "CUSTOM"
    if custom:
        start = local_time(kind["startTs"], tz).date()
        if _ms(datetime.combine(start, datetime.min.time(), tz)) > now_ms:
            day = start
    for candidate in _candidates(kind, day):
        due = _ms(datetime.combine(candidate, at, tz))
        if due > now_ms:
            break
    if custom:
        end = local_time(kind["endTs"], tz).date() + timedelta(days=1)
        if due >= _ms(datetime.combine(end, datetime.min.time(), tz)):
            raise ReportExpired("Report is expired.")
    return due


def _ms(moment: Any) -> int:
    return int(moment.timestamp()) * 1000


def _candidates(kind: Document, day: Any) -> Iterator[Any]:
    """The dates a report may run on, in order: the one of `day`'s own day, week or month, then the next ones."""
    from datetime import timedelta

    if kind["type"] == "MONTHLY":
        first = day.replace(day=1)
        while True:
            following = (first + timedelta(days=32)).replace(day=1)
            yield first if kind.get("dayOfMonth") != "LAST" else following - timedelta(days=1)
            first = following
    step = 1
    if kind["type"] == "WEEKLY":
        if not 1 <= kind["dayOfTheWeek"] <= 7:
            raise DocumentError("no such day of the week")
        step = 7
        day += timedelta(days=(kind["dayOfTheWeek"] - 1 - day.weekday()) % 7)
    while True:
        yield day
        day += timedelta(days=step)


def is_periodic(report: Document) -> bool:
    return (report.get("reportType") or {}).get("type") in REPORT_DAYS


def valid_report(report: Document) -> bool:
    """Whether a report may be kept and run (spec 04 §14.12)."""
    kind = report.get("reportType")
    if kind is None or not report.get("reportSources"):
        return False
    recipients = [part.strip() for part in report.get("recipients", "").strip().split(",")]
    if not 1 <= len(recipients) <= 5 or not all(map(valid_email, recipients)):
        return False
    if kind["type"] == "ONE_TIME":
        return bool(kind["rangeMillis"] >= DAY_MS)
    return bool(kind["startTs"] <= kind["endTs"])


class Reports:
    """Timers and runs of all reports."""

    def __init__(self, server: Any) -> None:
        self.server, self.loop = server, server.loop
        self.started = False
        # (account, project, report) -> timer, when it is due, when it was set
        self.timers: dict[tuple[str, int, int], tuple[Timer, int, int]] = {}
        self.queue: deque[tuple[Project, int, Callable[[Optional[Document]], object]]] = deque()
        self.running: Optional[tuple[Project, int]] = None
        self.made = 0  # since the start, for the statistics

    # -- scheduling --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Schedules all reports; runs those that were missed (spec 05 §8.2)."""
        if self.loop.now_ms < CLOCK_NOT_SET:
            self.loop.call_at_wall(CLOCK_NOT_SET, self.start)
            return
        self.started = True
        for account in self.server.accounts.values():
            for project in account.projects.values():
                for report in project_reports(project):
                    self._take_up(project, report)
        self.loop.call_later(3600.0, self._review)

    def project_changed(self, project: Project) -> None:
        """Reports that came or went with a whole project or widget: planned, or planned no more."""
        if not self.started:
            return
        reports = {r["id"]: r for r in project_reports(project)}
        mine = (project.account.user_name, project.id)
        for key in [k for k in self.timers if k[:2] == mine and k[2] not in reports]:
            self.timers.pop(key)[0].cancel()
        for report in reports.values():
            planned = self._key(project, report["id"]) in self.timers or self.waits(project, report["id"])
            if not planned and is_periodic(report) and report["isActive"] and valid_report(report):
                if report.get("lastRunResult") != "EXPIRED":
                    shown = report["nextReportAt"]  # the app's document stays as it came
                    self.schedule(project, report, self.loop.now_ms)
                    report["nextReportAt"] = shown

    def _take_up(self, project: Project, report: Document) -> None:
        if not (is_periodic(report) and report["isActive"] and valid_report(report)):
            return
        if 0 < report["nextReportAt"] < self.loop.now_ms and report.get("lastRunResult") != "EXPIRED":
            self.run(project, report["id"])
        else:
            self.schedule(project, report, self.loop.now_ms)

    def schedule(self, project: Project, report: Document, now_ms: int) -> None:
        """Sets nextReportAt and the timer of an active report; an expired one gets EXPIRED as its result."""
        self.cancel(project, report["id"])
        try:
            due = next_run(report, now_ms)
        except ReportExpired:
            report["lastRunResult"] = "EXPIRED"
            return
        except (DocumentError, OverflowError) as problem:
            report["lastRunResult"] = "ERROR"
            log.warning(f"report {report.get('name') or report['id']} of {project.account.email}: {problem}")
            return
        report["nextReportAt"] = due
        timer = self.loop.call_at_wall(due, self._due, project, report["id"], due)
        self.timers[self._key(project, report["id"])] = (timer, due, self.loop.now_ms)

    @staticmethod
    def _key(project: Project, report_id: int) -> tuple[str, int, int]:
        return project.account.user_name, project.id, report_id

    def cancel(self, project: Project, report_id: int) -> None:
        entry = self.timers.pop(self._key(project, report_id), None)
        if entry is not None:
            entry[0].cancel()

    def project_removed(self, project: Project) -> None:
        for key in [k for k in self.timers if k[:2] == (project.account.user_name, project.id)]:
            self.timers.pop(key)[0].cancel()

    def _due(self, project: Project, report_id: int, due: int) -> None:
        self.timers.pop(self._key(project, report_id), None)
        report = find_report(project, report_id)
        if report is not None and is_periodic(report) and report["isActive"]:
            self.run(project, report_id, planned=due)

    def _review(self) -> None:
        """Each hour: what was planned by a clock that has been set back meanwhile is planned anew."""
        self.loop.call_later(3600.0, self._review)
        now = self.loop.now_ms
        for name, project_id, report_id in [key for key, (_, _, at) in self.timers.items() if at > now + HOUR_MS]:
            for account in self.server.accounts.values():
                project = account.projects.get(project_id)
                report = find_report(project, report_id) if project is not None else None
                if account.user_name == name and project is not None and report is not None:
                    self.schedule(project, report, now)

    # -- running -----------------------------------------------------------------------------------------------------

    def run(
        self,
        project: Project,
        report_id: int,
        done: Optional[Callable[[Optional[Document]], object]] = None,
        planned: int = 0,
    ) -> None:
        """Makes a report as soon as those before it are made; done(report), or done(None) when it has gone. Without
        `done` it is a periodic run, and the next one is scheduled after it."""

        def after(report: Optional[Document]) -> None:
            if done is not None:
                done(report)
            elif report is not None and report["isActive"] and is_periodic(report):
                self.schedule(project, report, max(self.loop.now_ms, planned))

        self.queue.append((project, report_id, after))
        self._next()

    def waits(self, project: Project, report_id: int) -> bool:
        """Whether a report is being made or is going to be."""
        return self.running == (project, report_id) or any(job[:2] == (project, report_id) for job in self.queue)

    def _next(self) -> None:
        if self.running is not None or not self.queue:
            return
        project, report_id, after = self.queue.popleft()
        self.running = (project, report_id)
        report = find_report(project, report_id)
        if report is None or project.account.projects.get(project.id) is not project:
            self._finished(None, after)
            return
        plan = report_plan(self.server, project, report, self.loop.now_ms)

        def made(name: Optional[str], problem: Optional[Exception]) -> None:
            self._made(project, report, name, problem, after)

        if not self.loop.submit("net", make_report, plan, done=made):
            made(None, OSError(errno.EAGAIN, "the server is too busy"))

    def _made(
        self, project: Project, report: Document, name: Optional[str], problem: Optional[Exception], after: Any
    ) -> None:
        if problem is not None:
            log.error(f"report {report.get('name') or report['id']} of {project.account.email}: {problem}")
            self._note(project, report, "ERROR", after)
        elif name is None:
            self._note(project, report, "NO_DATA", after)
        elif not self.server.settings.mail_host:
            self._note(project, report, "OK", after)  # it can be downloaded all the same
        else:
            title, body = report_mail(self.server, report, name)
            self.server.messengers.mail(
                report["recipients"], title, body, html=True, account=project.account,
                done=lambda sent: self._note(project, report, "OK" if sent else "ERROR", after),
            )  # fmt: skip

    def _note(self, project: Project, report: Document, result: str, after: Any) -> None:
        report["lastReportAt"] = self.loop.now_ms
        report["lastRunResult"] = result
        self.made += 1
        self._finished(report, after)
        project.account.save_soon()  # else a kill would have it run again

    def _finished(self, report: Optional[Document], after: Callable[[Optional[Document]], object]) -> None:
        self.running = None
        after(report)
        self.loop.soon(self._next)

    # -- downloads ---------------------------------------------------------------------------------------------------

    def list(self, device: Device) -> list[Document]:
        """The reports of a device's project that can be downloaded, newest first: name (the path is `/` + name),
        report, date, size in bytes, made (ms)."""
        project = device.project
        folder = csv_folder(self.server.settings)
        found = []
        for name in list_folder(folder):
            owner, *rest = name.rsplit("_", 3)
            if len(rest) != 3 or owner != report_owner(project.account) or not rest[2].startswith(f"{project.id}-"):
                continue
            try:
                status = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            made = int(status.st_mtime * 1000)
            found.append({"name": name, "report": int(rest[0]), "date": rest[1], "size": status.st_size, "made": made})
        return sorted(found, key=lambda entry: -int(entry["made"]))


def project_reports(project: Project) -> list[Document]:
    """The reports of the project's first REPORT widget."""
    widget = project.find("REPORT")
    reports: list[Document] = widget.get("reports", []) if widget is not None else []
    return reports


def find_report(project: Project, report_id: int) -> Optional[Document]:
    return next((report for report in project_reports(project) if report["id"] == report_id), None)


def report_owner(account: Account) -> str:
    """How the names of an account's reports begin."""
    return safe_name(f"{account.email}_{account.app}")


def download_url(server: Any, name: str) -> str:
    """The link to a file of the CSV folder (spec 05 §7.1)."""
    settings = server.settings
    if settings.ports_http or settings.server_links_on_port_80:
        port = "" if settings.server_links_on_port_80 else f":{settings.ports_http}"
        return f"http://{server.host}{port}/{name}"
    return f"https://{server.host}:{settings.ports_https}/{name}"


# -- the mail ----------------------------------------------------------------------------------------------------------


def report_mail(server: Any, report: Document, name: str) -> tuple[str, str]:
    """Subject and HTML body (spec 05 §8.4)."""
    word = REPORT_WORDS[report["reportType"]["type"]]
    title = f"Your {word.lower()} {report.get('name') or 'Report'} is ready"
    values = {"DYNAMIC_SECTION": report_section(report), "DOWNLOAD_URL": download_url(server, name)}
    return title, server.messengers.text("static/report-email.html", {}, values)


def report_section(report: Document) -> str:
    """`Report name: Daily<br>Period: Daily, at 10:30` and what else its type says; HTML."""
    kind, tz = report["reportType"], zone(report.get("tzName"))
    text = f"Report name: {escape_html(report.get('name') or 'Report')}<br>Period: {REPORT_WORDS[kind['type']]}"
    if kind["type"] == "ONE_TIME":
        return text
    text += f", at {local_time(kind['atTime'], tz):%H:%M}"
    if kind["type"] == "WEEKLY":
        text += f" every {REPORT_WEEKDAYS[(kind['dayOfTheWeek'] - 1) % 7]}"
    elif kind["type"] == "MONTHLY":
        text += f" at the {MONTH_ENDS[kind.get('dayOfMonth', 'FIRST')]} day of every month"
    if kind.get("durationType") == "CUSTOM":
        dates = [local_time(kind[name], tz).date().isoformat() for name in ("startTs", "endTs")]
        text += f"<br>Start date: {dates[0]}<br>End date: {dates[1]}<br>"
    return text


# -- the zip -----------------------------------------------------------------------------------------------------------


class ReportPlan:
    """What a report is made of, gathered in the loop for the thread that makes it.

    rows: per data stream its device (name or None, id), label or "", "v5" and history file.
    """

    __slots__ = ("path", "output", "format", "tz", "title", "count", "since", "rows")

    def __init__(self) -> None:
        self.path = self.output = self.format = self.title = ""
        self.tz: Any = None
        self.count = self.since = 0
        self.rows: list[tuple[Optional[str], int, str, str, str]] = []


def report_plan(server: Any, project: Project, report: Document, now_ms: int) -> ReportPlan:
    """The plan of a report for the days before now (spec 05 §8.3). Errors: OSError."""
    kind, plan = report["reportType"], ReportPlan()
    days = kind["rangeMillis"] // DAY_MS if kind["type"] == "ONE_TIME" else REPORT_DAYS[kind["type"]]
    index, points = REPORT_POINTS[report.get("granularityType", "MINUTE")]
    since = now_ms - days * DAY_MS
    plan.count, plan.since = days * points, since - since % HISTORY_PERIODS[index][1]
    plan.tz = zone(report.get("tzName"))
    plan.output, plan.format = report.get("reportOutput", ""), report.get("format", "TS")
    plan.title = for_name(report.get("name") or "Report")
    today = local_time(now_ms, plan.tz).date().isoformat()
    name = f"{report_owner(project.account)}_{report['id']}_{today}_{project.id}-{new_token().replace('_', '-')}.zip"
    plan.path = os.path.join(csv_folder(server.settings), name)
    for source in report.get("reportSources", ()):
        for device_id in source.get("deviceIds", ()):
            device = project.devices.get(device_id)
            for stream in source.get("reportDataStreams", ()):
                pin = stream_pin(stream)
                if stream.get("isSelected") and pin and "pinType" in stream:
                    path = server.history.path(project.account.folder_name, project.id, device_id, pin, index)
                    row = (device.name if device is not None else None, device_id, stream.get("label", ""), pin, path)
                    plan.rows.append(row)
    return plan


def for_name(text: str) -> str:
    """A text as part of a file name."""
    return "".join(c for c in text if c not in NOT_IN_NAMES and c >= " ")[:16]


def for_csv(text: str) -> str:
    """A text as a CSV field (spec 05 §8.3)."""
    text = text.replace('"', '""')
    return f'"{text}"' if any(c in text for c in ',;"\r\n') else text


def pin_name(label: str, pin: str) -> str:
    return "".join(c for c in label if c.isascii() and c.isalnum())[:16] or pin


def time_format(name: str, tz: Any) -> Callable[[int], str]:
    """How a report writes a timestamp in ms."""
    from datetime import datetime

    def simple(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, tz).strftime("%Y-%m-%d %H:%M:%S")

    def instant(ms: int) -> str:
        text = datetime.fromtimestamp(ms / 1000, tz).isoformat(timespec="seconds")
        return text[:-6] + "Z" if text.endswith("+00:00") else text

    def instant_zone(ms: int) -> str:
        moment = datetime.fromtimestamp(ms / 1000, tz)
        return f"{moment:%Y-%m-%dT%H:%M:%S}{moment.tzname()}"

    return {"ISO_SIMPLE": simple, "ISO_INSTANT": instant, "ISO_INSTANT_Z": instant_zone}.get(name, str)


def report_lines(plan: ReportPlan, path: str, middle: str) -> Iterator[bytes]:
    """`time,` + middle + `value` per record of a history file, UTF-16, some hundred at a time."""
    show = time_format(plan.format, plan.tz)
    data = read_history(path, plan.count)
    for at in range(0, len(data), 512 * RECORD.size):
        records = RECORD.iter_unpack(data[at : at + 512 * RECORD.size])
        lines = [f"{show(ts)},{middle}{java_double(value)}\n" for value, ts in records if plan.since <= ts < LAST_MS]
        if lines:
            yield "".join(lines).encode("utf-16-be", "replace")


def make_report(plan: ReportPlan) -> Optional[str]:
    """Writes the zip; gives its name, None when there was nothing to tell. Worker thread. Errors: OSError."""
    import zipfile

    os.makedirs(os.path.dirname(plan.path), exist_ok=True)
    temporary = plan.path + ".tmp"
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            anything = REPORT_WRITERS.get(plan.output, write_per_pin)(plan, archive)
        if not anything:
            return None
        os.replace(temporary, plan.path)
    finally:
        remove_file(temporary)
    return os.path.basename(plan.path)


class ReportEntry:
    """One file of the zip, begun with a byte order mark when its first line comes."""

    __slots__ = ("archive", "name", "file")

    def __init__(self, archive: Any, name: str) -> None:
        self.archive, self.name = archive, name
        self.file: Any = None

    def write(self, data: bytes) -> None:
        if self.file is None:
            self.file = self.archive.open(self.name, "w")
            self.file.write(b"\xfe\xff")
        self.file.write(data)

    def close(self, empty: bool = False) -> bool:
        """Whether it has any lines; `empty`: it is there all the same."""
        if self.file is not None:
            self.file.close()
        elif empty:
            self.archive.writestr(self.name, b"")
        return self.file is not None


def write_per_pin(plan: ReportPlan, archive: Any) -> bool:
    """`<device>_<id>_<pin>.csv` with `time,value`, for pins that have lines."""
    seen: set[str] = set()
    anything = False
    for device, device_id, label, pin, path in plan.rows:
        entry = ReportEntry(archive, f"{for_name(device or '')}_{device_id}_{pin_name(label, pin)}.csv")
        if entry.name in seen:
            log.warning(f"report {plan.title}: two pins would be {entry.name}, the later one is left out")
            continue
        for lines in report_lines(plan, path, ""):
            entry.write(lines)
        if entry.close():
            seen.add(entry.name)
            anything = True
    return anything


def write_per_device(plan: ReportPlan, archive: Any) -> bool:
    """`<device>_<id>.csv` with `time,pin,value`, also for devices without any lines."""
    anything = False
    for device_id in dict.fromkeys(row[1] for row in plan.rows):
        rows = [row for row in plan.rows if row[1] == device_id]
        entry = ReportEntry(archive, f"{for_name(rows[0][0] or '')}_{device_id}.csv")
        for _, _, label, pin, path in rows:
            for lines in report_lines(plan, path, for_csv(label[:16] or pin) + ","):
                entry.write(lines)
        anything |= entry.close(empty=True)
    return anything


def write_merged(plan: ReportPlan, archive: Any) -> bool:
    """`<report>.csv` with `time,pin,device,value`."""
    entry = ReportEntry(archive, f"{plan.title}.csv")
    for device, device_id, label, pin, path in plan.rows:
        middle = f"{for_csv(label[:16] or pin)},{for_csv(device or str(device_id))},"
        for lines in report_lines(plan, path, middle):
            entry.write(lines)
    return entry.close(empty=True)


REPORT_WRITERS: dict[str, Callable[[ReportPlan, Any], bool]] = {
    "CSV_FILE_PER_DEVICE": write_per_device,
    "MERGED_CSV": write_merged,
}


# ======================================================================================================================
# 10. Hardware
# ======================================================================================================================
# What boards say, one handler per command (spec 02). handler(session, id, body) → None (silence), a status or a body.
# Knows nothing of HTTP; a WebSocket on /websockets is just another stream.

# -- 10a Connections and values ----------------------------------------------------------------------------------------

HARDWARE_HANDLERS: dict[int, Callable[..., Any]] = {}


def hardware(command: int) -> Callable[[Any], Any]:
    """Registers the handler of a hardware command."""

    def register(fn: Any) -> Any:
        HARDWARE_HANDLERS[command] = fn
        return fn

    return register


def idle_limit(seconds: int) -> int:
    """After how many silent seconds a board with that heartbeat is closed: ceil(2.3 n), 0 stays 0 (spec 01 §12.1)."""
    return -(-seconds * 23 // 10)


class HardwareSession(Session):
    """One connection of a board: 5-byte frames over TCP, TLS or WebSocket."""

    __slots__ = ("device", "bridges", "notified", "webhook_at")

    def __init__(self, server: Server, stream: Any) -> None:
        super().__init__(server, stream)
        self.device: Optional[Device] = None
        self.bridges: Optional[dict[str, Device]] = None  # bridge pin → target
        self.notified: Optional[dict[str, float]] = None  # kind of message → when the last one was let through
        self.webhook_at = 0.0
        stream.set_idle(idle_limit(server.settings.timeouts_hardware_idle_s))

    def send(self, command: int, id: int, body: bytes) -> None:
        self.stream.write(pack_hw(command, id, body))

    def status(self, id: int, status: int) -> None:
        self.stream.write(pack_hardware_header(0, id, status))

    # Hot path. Per value of a plain pin: one header, two slices, one look-up, and two list entries when an app looks on.
    # Measured with the C load generator, one core of x86 at 3 GHz: see the table of tests/bench.py in the README.
    def received(self, data: bytes) -> None:  # noqa: C901 - flat on purpose
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        if self.busy:
            self.buffer = data
            return
        end_of_data = len(data)
        at = values = 0
        unpack, find = HARDWARE_HEADER.unpack_from, data.find
        relay: list[bytes] = []
        ledger = self.server.ledger
        unsettled = ledger.unsettled
        routes, pack, head = self.hot()
        extra = len(head)
        while end_of_data - at >= 5:
            command, id, size = unpack(data, at)
            start = at + 5
            end = start + size
            if command == 20 and end <= end_of_data:  # HARDWARE
                cut = find(b"\0", start + 3, end)
                route = routes.get(data[start:cut]) if cut > 0 else None
                if route is not None and cut + 1 < end:
                    values += 1
                    at = end
                    if route.plain:
                        route.pending = data[cut + 1 : end]
                        if not route.waiting:
                            route.waiting = True
                            unsettled.append(route)
                    else:
                        if relay and route.watched:
                            self.relay(relay)
                            relay = []
                        taken = self.take(route, id, data[cut + 1 : end])
                        unsettled = ledger.unsettled
                        if not taken:
                            continue
                    if pack is not None:
                        relay.append(pack(20, id, extra + size, head))
                        relay.append(data[start:end])
                    continue
            if command == 0:
                end = start
            elif command >= 100:
                self.stream.close()
                at = end_of_data
                break
            if end > end_of_data:
                break
            if relay:
                self.relay(relay)
                relay = []
            at = end
            self.handle(command, id, data[start:end])
            if self.busy or self.stream.closing:
                break
            unsettled = ledger.unsettled
            routes, pack, head = self.hot()
            extra = len(head)
        if relay:
            self.relay(relay)
        if values:
            self.counted(values)
        if at < end_of_data:
            self.buffer = data[at:] if at else data

    def hot(self) -> tuple[dict[bytes, Route], Optional[Callable[..., bytes]], bytes]:
        """What the loop above needs to know: the routes, and how a value is wrapped for the apps that look on."""
        device = self.device
        if device is None or self.quota.over(self.server.loop.now_ms, self.server.settings.limits_messages_per_s):
            return {}, None, b""  # every frame takes the slow way, which may drop it
        project = device.project
        if not (project.active and project.account.apps):
            return device.routes, None, b""
        length = len(device.prefix)
        return device.routes, APP_RELAY.get(length) or app_relay(length), device.prefix + b"\0"

    def counted(self, values: int) -> None:
        if values:
            self.quota.count += values
            self.server.stats.commands[Command.HARDWARE] += values
            self.server.stats.messages += values

    def relay(self, parts: list[bytes]) -> None:
        """Sends apps what was gathered: (header with prefix, body) pairs."""
        assert self.project is not None and self.account is not None
        blob = b"".join(parts)
        for app in tuple(self.account.apps):  # flush() may find that one is gone, and take it off the list
            if app.share is not None and app.share is not self.project:
                continue
            stream = app.stream
            if stream.pending() > OUTPUT_LIMIT // 2:
                stream.flush()
                if stream.pending() > OUTPUT_LIMIT:
                    continue  # does not read: the newest value is what counts, and it re-syncs
            if app.framing == "tls":
                stream.write(blob)
            else:
                for head, body in zip(parts[::2], parts[1::2]):
                    app.send(Command.HARDWARE, head[1] << 8 | head[2], head[7:] + body)

    def take(self, route: Route, id: int, value: bytes) -> bool:
        """A value of a pin that does more than keep its last value. False when a widget refused it."""
        text = value.decode("utf-8", "replace")
        now_ms = self.server.loop.now_ms
        try:
            route.record(text, now_ms)
            route.set(text, now_ms)
        except ValueError:
            self.status(id, Status.ILLEGAL_COMMAND)
            return False
        assert route.device is not None
        route.device.document["dataReceivedAt"] = now_ms
        if route.watched:
            self.server.automation.on_value(route.project, route.target, route.letter, route.pin, text, self)
        return True

    def handle(self, command: int, id: int, body: bytes) -> None:
        """One whole frame, the slow way."""
        if self.over_quota(id):
            return
        self.quota.count += 1
        self.server.stats.commands[command] += 1
        self.server.stats.messages += 1
        if self.device is None:
            if command not in (Command.LOGIN, Command.HARDWARE_LOGIN):
                if log.debugging:
                    log.debug(f"{self.peer}: command {command} before the login")
                self.stream.close()
                return
        elif command == 0:
            return
        handler = HARDWARE_HANDLERS.get(command)
        if handler is not None:
            self.dispatch(handler, command, id, body)

    # -- presence ----------------------------------------------------------------------------------------------------

    def join(self, device: Device, id: int) -> None:
        """The login worked (spec 02 §1)."""
        project = device.project
        self.device, self.project, self.account = device, project, project.account
        device.sessions.append(self)
        project.account.hardware.append(self)
        self.status(id, OK)
        if project.active:
            send_pin_modes(project, device, self)
        to_apps(project, Command.HARDWARE_CONNECTED, id, device.prefix)
        mark_online(self.server, device, self.peer)
        self.server.automation.joined(project.account)
        log.info(f"{project.account.email} hardware joined.")

    def leave(self) -> None:
        """Off the lists, once; then the offline processing (spec 02 §12)."""
        device, account = self.device, self.account
        if self.gone or device is None or account is None:
            self.gone = True
            return
        self.gone = True
        if self in device.sessions:
            device.sessions.remove(self)
        if self in account.hardware:
            account.hardware.remove(self)
        mark_offline(self.server, device)

    def closed(self) -> None:
        self.leave()


APP_RELAY: dict[int, Callable[..., bytes]] = {}


def app_relay(length: int) -> Callable[..., bytes]:
    """The packer of an app frame's header with a prefix of that many bytes and its NUL."""
    pack = APP_RELAY[length] = struct.Struct(f">BHI{length + 1}s").pack
    return pack


def mark_online(server: Server, device: Device, peer: str) -> None:
    """Status and times of a device that came (spec 02 §1 step 5)."""
    document = device.document
    document["status"] = "ONLINE"
    document["connectTime"] = server.loop.now_ms
    if not document.get("firstConnectTime"):
        document["firstConnectTime"] = server.loop.now_ms
    if server.settings.data_store_ip:
        document["lastLoggedIP"] = peer
    server.ledger.presence.add(device.project.account)


def mark_offline(server: Server, device: Device) -> None:
    """Status and time of a device that went, unless another connection of it lives; then whoever wants to know."""
    still = device.online
    if not still:
        device.document["status"] = "OFFLINE"
        device.document["disconnectTime"] = server.loop.now_ms
        server.ledger.presence.add(device.project.account)
    server.automation.device_offline(device, still)


def device_write(
    server: Server, device: Device, letter: str, pin: int, value: str, id: int, body: bytes, origin: Any
) -> None:
    """A value as if its device had sent it: history, model, rules, apps (spec 02 §2). Errors: ValueError."""
    now_ms = server.loop.now_ms
    project = device.project
    route = project.route(device.id, letter, pin)
    route.record(value, now_ms)
    route.set(value, now_ms)
    device.document["dataReceivedAt"] = now_ms
    if route.watched:
        server.automation.on_value(project, device.id, letter, pin, value, origin)
    if project.active:
        to_apps(project, Command.HARDWARE, id, b"%s\0%s" % (device.prefix, body))


def parse_write(text: str, least: int = 4) -> Optional[tuple[str, int, str]]:
    """(letter, pin, value) of a write, None for another operation. Errors: Refused(ILLEGAL_COMMAND), ValueError."""
    if len(text) < least:
        raise Refused(Status.ILLEGAL_COMMAND)
    if text[1] != "w":
        return None
    parts = split3(text)
    letter = text[0].lower()
    if len(parts) < 3 or not parts[2] or letter not in PIN_TYPES:
        raise Refused(Status.ILLEGAL_COMMAND)
    return letter, parse_pin(parts[1]), parts[2]


@hardware(Command.HARDWARE)
def on_write(session: HardwareSession, id: int, body: bytes) -> None:
    """A value (spec 02 §2); from the second one of a pin on, received() takes it itself."""
    write = parse_write(body.decode("utf-8", "replace"))
    if write is None:
        return
    letter, pin, value = write
    device = session.device
    assert device is not None
    device_write(session.server, device, letter, pin, value, id, body, session)
    prefix = f"{letter}w\0{pin}".encode()
    if body.startswith(prefix + b"\0"):
        device.routes[prefix] = device.project.route(device.id, letter, pin)


# -- 10b Commands ------------------------------------------------------------------------------------------------------


@hardware(Command.LOGIN)
@hardware(Command.HARDWARE_LOGIN)
def on_hardware_login(session: HardwareSession, id: int, body: bytes) -> Optional[int]:
    """A token, blanks trimmed (spec 02 §1)."""
    server = session.server
    if session.device is not None:
        return Status.USER_ALREADY_REGISTERED
    token = body.decode("utf-8", "replace").strip("".join(map(chr, range(33))))
    device = server.device_of_token(token)
    if device is not None:
        session.join(device, id)
        return None
    if len(token) == 32 and "\0" not in token and server.database is not None:
        return server.database.redirect(session, token, id)  # type: ignore[no-any-return]
    if log.debugging:
        log.debug(f"{session.peer}: token not known")
    return Status.INVALID_TOKEN


@hardware(Command.PING)
def on_ping(session: HardwareSession, _id: int, _body: bytes) -> Optional[int]:
    return None if session.stream.congested else OK


@hardware(Command.HARDWARE_SYNC)
def on_sync(session: HardwareSession, id: int, body: bytes) -> None:
    """Stored values, all of them or those of some pins (spec 02 §3)."""
    device = session.device
    assert device is not None
    project = device.project
    if not body:
        for widget in project.widgets:
            send_bodies(session, id, hardware_sync(project, widget, device.id))
        for _, letter, pin, name, value in project.stored(device.id):
            if not name:
                send_bodies(session, id, [value_body(letter, pin, v) for v in stored_values(value)])
        return
    words = full_split(body.decode("utf-8", "replace"))
    letter = words[0][:1].lower() if words else ""
    if len(words) < 2 or letter not in PIN_TYPES:
        raise Refused(Status.ILLEGAL_COMMAND)
    if words[0][1:2] != "r":
        return
    for word in words[1:]:
        send_bodies(session, id, pin_sync(project, device.id, letter, parse_pin(word)))


def pin_sync(project: Project, device_id: int, letter: str, pin: int) -> list[str]:
    """What a board is told of one pin: the first widget's value, else what is stored."""
    widget = project.find_by_pin(device_id, letter, pin)
    if widget is not None:
        return hardware_sync(project, widget, device_id)
    value = project.account.storage.get(f"{project.id}-{device_id}-{letter}{pin}")
    return [] if value is None else [value_body(letter, pin, v) for v in stored_values(value)]


def send_bodies(session: HardwareSession, id: int, bodies: Iterable[str]) -> None:
    for body in bodies:
        data = encode(body)
        if len(data) <= MAX_HARDWARE_BODY:
            session.send(Command.HARDWARE, id, data)


@hardware(Command.BRIDGE)
def on_bridge(session: HardwareSession, id: int, body: bytes) -> Optional[int]:
    """Device to device (spec 02 §4): `64\\0i\\0token` ties a bridge pin to a device, `64\\0vw\\01\\0255` goes to it."""
    parts = split3(body.decode("utf-8", "replace"))
    if len(parts) < 3:
        return Status.ILLEGAL_COMMAND
    if session.bridges is None:
        session.bridges = {}
    if parts[1].startswith("i"):
        target = session.server.tokens.get(parts[2]) if len(parts[2]) == 32 else None
        if len(session.bridges) > 100 or target is None or target.project.account is not session.account:
            return Status.NOT_ALLOWED
        session.bridges[parts[0]] = target
        return OK
    target = session.bridges.get(parts[0])
    if target is None or session.server.tokens.get(target.token or "") is not target:  # never tied, or gone since
        return Status.NOT_ALLOWED
    data = body[body.find(b"\0", 1) + 1 :]
    reached = 0
    for other in list(target.sessions):
        if other is not session and not other.stream.congested:
            other.send(Command.BRIDGE, id, data)
            reached += 1
    if not reached:
        session.status(id, Status.DEVICE_NOT_IN_NETWORK)
    write = parse_write(data.decode("utf-8", "replace"))
    if write is not None:
        letter, pin, value = write
        device_write(session.server, target, letter, pin, value, id, data, session)
    return None


# Keys of the info frame → fields of hardwareInfo (spec 02 §5.1); the later ones only where the earlier key is absent.
INFO_FIELDS = (
    ("fw", "version"), ("mcu", "version"), ("ver", "blynkVersion"), ("blynk", "blynkVersion"), ("dev", "boardType"),
    ("cpu", "cpuType"), ("con", "connectionType"), ("build", "build"), ("tmpl", "templateId"),
)  # fmt: skip
INFO_WORDS = frozenset("ver fw h-beat buff-in dev cpu con tmpl build fw-type mcu ncp blynk".split())


@hardware(Command.BLYNK_INTERNAL)
def on_internal(session: HardwareSession, id: int, body: bytes) -> Optional[int]:
    """Device info, clock, and what only the library cares about (spec 02 §5)."""
    words = full_split(body.decode("utf-8", "replace"))
    if not words or not words[0]:
        return Status.ILLEGAL_COMMAND
    if words[0] in INFO_WORDS:
        return on_device_info(session, words)
    answer = {"rtc": tell_rtc, "utc": tell_utc}.get(words[0])
    text = answer(session, words) if answer is not None else None
    if text and not session.stream.congested:
        session.send(Command.BLYNK_INTERNAL, id, encode(text))
    return None


def on_device_info(session: HardwareSession, words: list[str]) -> int:
    server, device = session.server, session.device
    assert device is not None
    pairs = dict(zip(words[::2], words[1::2]))
    info: Document = {}
    for key, field in INFO_FIELDS:
        if pairs.get(key):
            info.setdefault(field, pairs[key])
    info["heartbeatInterval"] = beat = number_or(pairs.get("h-beat", "0"), -1)
    buffer = number_or(pairs.get("buff-in", "0"), 0)
    info["buffIn"] = buffer if buffer > 0 else 250
    idle = server.settings.timeouts_hardware_idle_s
    if idle and beat > 0 and beat != idle:
        session.stream.set_idle(idle_limit(min(beat, 86_400)))
    url = server.ota.pending(device, pairs.get("build"))
    if url:
        session.send(Command.BLYNK_INTERNAL, ID_TIMER, b"ota\0" + url.encode("ascii", "replace"))
    if device.document.get("hardwareInfo") != info:
        device.document["hardwareInfo"] = info
        device.project.modified()
    return OK


def number_or(text: str, otherwise: int) -> int:
    try:
        return parse_int(text)
    except ValueError:
        return otherwise


def tell_rtc(session: HardwareSession, _words: list[str]) -> Optional[str]:
    """`rtc\\0seconds`, the local time of the project's first RTC widget; without one no answer (spec 02 §5.2)."""
    assert session.project is not None
    widget = session.project.find("RTC")
    if widget is None:
        return None
    return f"rtc\0{local_seconds(widget.get('tzName'), session.server.loop.now_ms / 1000)}"


def tell_utc(session: HardwareSession, words: list[str]) -> Optional[str]:
    """What newer libraries ask for: `utc\\0time`, `iso`, `tz_name`, `tz`."""
    from datetime import datetime, timedelta, timezone

    assert session.project is not None
    what = words[1] if len(words) > 1 else ""
    now_ms = session.server.loop.now_ms
    name = (session.project.find("RTC") or {}).get("tzName") or "UTC"
    if what == "time":
        return f"utc\0time\0{now_ms}"
    if what == "tz_name":
        return f"utc\0tz_name\0{name}"
    now = datetime.fromtimestamp(now_ms / 1000, zone(name))
    if what == "iso":
        return f"utc\0iso\0{now.astimezone(timezone.utc).isoformat(timespec='milliseconds')}"
    if what == "tz":
        minutes, saving = (int((d or timedelta()).total_seconds()) // 60 for d in (now.utcoffset(), now.dst()))
        return f"utc\0tz\0{minutes}\0{saving}"
    return None


@hardware(Command.SET_WIDGET_PROPERTY)
def on_property(session: HardwareSession, id: int, body: bytes) -> Optional[int]:
    """`pin\\0property\\0value`, virtual pins only (spec 02 §10)."""
    device = session.device
    assert device is not None
    parts = split3(body.decode("utf-8", "replace"))
    if len(parts) < 3 or not parts[1] or not parts[2]:
        return Status.ILLEGAL_COMMAND_BODY
    if not device.project.active:
        return None
    if parts[1] not in PROPERTY_LABELS:
        return Status.ILLEGAL_COMMAND_BODY
    device.project.set_property(device.id, parse_pin(parts[0]), parts[1], parts[2])
    to_apps(device.project, Command.SET_WIDGET_PROPERTY, id, b"%s\0%s" % (device.prefix, body))
    return OK


# -- 10c Messages that boards send (spec 02 §6–9) ----------------------------------------------------------------------
# Checks in the order of the specification: text, widget, then the clock of that kind on this connection.


def too_soon(session: HardwareSession, kind: str) -> bool:
    """Whether this connection let a message of that kind through less than `notifications.min_interval_s` ago; if not,
    the clock starts anew."""
    if session.notified is None:
        session.notified = {}
    now = session.server.loop.now
    last = session.notified.get(kind)
    if last is not None and now - last < session.server.settings.notifications_min_interval_s:
        return True
    session.notified[kind] = now
    return False


def message_text(body: bytes, most: int) -> str:
    """The text of a push, tweet or SMS. Errors: Refused(NOTIFICATION_INVALID_BODY)."""
    text = body.decode("utf-8", "replace")
    if not 0 < len(text) <= most:
        raise Refused(Status.NOTIFICATION_INVALID_BODY)
    return text


def answer_later(session: HardwareSession, id: int) -> Callable[[bool], object]:
    """done(ok) for the messengers: OK or NOTIFICATION_ERROR, if the board is still there."""

    def done(ok: bool) -> None:
        if not session.gone:
            session.status(id, OK if ok else Status.NOTIFICATION_ERROR)

    return done


@hardware(Command.EMAIL)
def on_mail(session: HardwareSession, id: int, body: bytes) -> None:
    """`to\\0subject\\0text` or `subject\\0text` (spec 02 §6, 08 §2.5); answered when the mail server has it."""
    server, device = session.server, session.device
    assert device is not None
    project, messengers = device.project, server.messengers
    widget, account = project.find("EMAIL"), project.account
    if widget is None or not project.active:
        raise Refused(Status.NOT_ALLOWED)
    if not body:
        raise Refused(Status.ILLEGAL_COMMAND)
    if not messengers.may_mail(account):
        raise Refused(Status.QUOTA_LIMIT)
    parts = full_split(body.decode("utf-8", "replace"))
    if len(parts) < 2:
        raise Refused(Status.ILLEGAL_COMMAND)
    if too_soon(session, "mail"):
        raise Refused(Status.QUOTA_LIMIT)
    to, subject, text = parts if len(parts) == 3 else (account.email, parts[0], parts[1])
    vendor = server.settings.server_vendor_email

    def filled(line: str) -> str:
        return line.replace("{VENDOR_EMAIL}", vendor).replace("{DEVICE_OWNER_EMAIL}", account.email)

    receiver = widget.get("to") or filled(to)
    if not valid_email(receiver):
        raise Refused(Status.ILLEGAL_COMMAND)
    name = device.name or ""
    subject, text = (filled(line.replace("{DEVICE_NAME}", name)) for line in (subject, text))
    html = widget.get("contentType") != "TEXT_PLAIN"
    messengers.limited_mail(account, receiver, subject, text, html, answer_later(session, id))


@hardware(Command.PUSH_NOTIFICATION)
def on_push(session: HardwareSession, _id: int, body: bytes) -> int:
    """A text to everybody who follows the project (spec 02 §7); answered before it is delivered."""
    device = session.device
    assert device is not None
    text = message_text(body, PUSH_LENGTH)
    project, messengers = device.project, session.server.messengers
    if not project.active:
        return Status.NO_ACTIVE_DASHBOARD
    widget = project.find("NOTIFICATION")
    if widget is None or not messengers.reaches(project, widget):
        return Status.NOTIFICATION_NOT_AUTHORIZED
    if too_soon(session, "push"):
        return Status.QUOTA_LIMIT
    text = text.replace("{DEVICE_NAME}", device.name or "")
    if not 0 < len(text) <= PUSH_LENGTH:
        return Status.NOTIFICATION_INVALID_BODY
    messengers.push(project, text)
    return OK


@hardware(Command.TWEET)
def on_tweet(session: HardwareSession, id: int, body: bytes) -> None:
    """A post in the name of the widget's user (spec 02 §8); answered when it is out."""
    device = session.device
    assert device is not None
    text = message_text(body, TWEET_LENGTH)
    project, messengers = device.project, session.server.messengers
    widget = project.find("TWITTER")
    if widget is None or not project.active or not messengers.tweeter.authorized(widget):
        raise Refused(Status.NOTIFICATION_NOT_AUTHORIZED)
    if too_soon(session, "tweet"):
        raise Refused(Status.QUOTA_LIMIT)
    messengers.tweet(project.account, widget, text, answer_later(session, id))


@hardware(Command.SMS)
def on_sms(session: HardwareSession, _id: int, body: bytes) -> int:
    """A text to the widget's number (spec 02 §9); OK once it is on its way."""
    device = session.device
    assert device is not None
    text = message_text(body, SMS_LENGTH)
    project = device.project
    widget = project.find("SMS")
    if widget is None or not project.active or not widget.get("to"):
        return Status.NOTIFICATION_NOT_AUTHORIZED
    if too_soon(session, "sms"):
        return Status.QUOTA_LIMIT
    sent = session.server.messengers.sms(project.account, widget["to"], text)
    return OK if sent else Status.NOTIFICATION_ERROR


# ======================================================================================================================
# 11. App
# ======================================================================================================================
# What apps ask, one handler per command, for owners and guests of a shared project (spec 03, 03a, 03b).
# handler(session, id, body) → None (silence), a status or a body. Knows nothing of HTTP; /dashws is just another framing.

# -- 11a Connections and dispatch --------------------------------------------------------------------------------------

APP_HANDLERS: dict[int, Callable[..., Any]] = {}
GUEST_HANDLERS: dict[int, Callable[..., Any]] = {}
LOGIN_HANDLERS: dict[int, Callable[..., Any]] = {}


def app(command: int, shared: bool = False, before_login: bool = False) -> Callable[[Any], Any]:
    """Registers the handler of an app command; shared: guests may use it too; before_login: only before the login."""

    def register(fn: Any) -> Any:
        if before_login:
            LOGIN_HANDLERS[command] = fn
        else:
            APP_HANDLERS[command] = fn
            if shared:
                GUEST_HANDLERS[command] = fn
        return fn

    return register


class AppSession(Session):
    """One connection of an app: 7-byte frames over TLS, or `/dashws` messages (framing "ws").

    share: the project a guest is bound to, None for the owner."""

    __slots__ = ("share", "os", "version", "framing", "registered", "handlers", "messages", "webhook_at", "needed")

    def __init__(self, server: Server, stream: Any, framing: str = "tls") -> None:
        super().__init__(server, stream)
        self.share: Optional[Project] = None
        self.os, self.version = "", 0
        self.framing = framing
        self.registered = False
        self.handlers = LOGIN_HANDLERS
        self.messages: Optional[deque[bytes]] = None  # of /dashws, while an answer is being worked out
        self.webhook_at = 0.0
        self.needed = 0  # bytes of the frame that is arriving
        stream.set_idle(server.settings.timeouts_app_idle_s)

    def send(self, command: int, id: int, body: bytes) -> None:
        if self.framing == "tls":
            self.stream.write(pack_app_header(command, id & 0xFFFF, len(body)) + body)
        else:
            self.stream.write(pack_dashws(command, id, body))

    def status(self, id: int, status: int) -> None:
        self.stream.write(pack_app_header(0, id & 0xFFFF, status))  # the same bytes in both framings

    def received(self, data: bytes) -> None:
        if self.framing != "tls":
            return self.message(data)
        if self.buffer:
            # A long frame arrives in pieces: they are only joined, not looked at, until it may be whole.
            data = self.buffer + data if len(self.buffer) < 65536 else self._gather(data)
            if len(data) < self.needed:
                self.buffer = data
                return
            self.buffer = b""  # a handler that answers at once comes by here again
        at, size_of_data = 0, len(data)
        self.needed = 0
        while size_of_data - at >= 7 and not self.busy and not self.stream.closing:
            command, id, size = APP_HEADER.unpack_from(data, at)
            end = at + 7 if command == 0 else at + 7 + size
            most = MAX_LOGIN_BODY if self.account is None else MAX_APP_BODY
            if command >= 100 or (command and size > most):
                self.stream.close()
                break
            if end > size_of_data:
                self.needed = end - at
                break
            body = bytes(data[at + 7 : end])
            at = end
            self.handle(command, id, body)
        self.buffer = data[at:]

    def _gather(self, data: bytes) -> Any:
        buffer: Any = self.buffer
        if not isinstance(buffer, bytearray):
            buffer = bytearray(buffer)
        buffer += data
        return buffer

    def message(self, data: bytes) -> None:
        """One message of /dashws is one command; what is malformed is ignored (spec 01 §11.3)."""
        waiting = self.messages
        if data:
            if self.busy or waiting:
                if waiting is None:
                    waiting = self.messages = deque()
                waiting.append(data)
            else:
                self.one_message(data)
        while waiting and not self.busy:
            self.one_message(waiting.popleft())

    def one_message(self, data: bytes) -> None:
        if len(data) >= 3 and data[0] < 100 and not self.stream.closing:
            command, id = DASHWS_HEADER.unpack_from(data)
            self.handle(command, id, b"" if command == 0 else data[3:])

    def handle(self, command: int, id: int, body: bytes) -> None:
        if self.over_quota(id):
            return
        self.quota.count += 1
        stats = self.server.stats
        stats.commands[command] += 1
        stats.messages += 1
        handler = self.handlers.get(command)
        if handler is not None:
            self.dispatch(handler, command, id, body)
        elif self.account is None:
            if log.debugging:
                log.debug(f"{self.peer}: command {command} before the login")
            self.stream.close()

    # -- presence ----------------------------------------------------------------------------------------------------

    def join(self, account: Account, share: Optional[Project], id: int) -> None:
        """The login worked (spec 03a §2.6, §2.10)."""
        self.account, self.share = account, share
        self.handlers = APP_HANDLERS if share is None else GUEST_HANDLERS
        account.apps.append(self)
        self.status(id, OK)
        if share is None:
            notify_hardware(account, b"acon")
        self.server.automation.joined(account)
        log.info(f"{account.email} {account.app} {'app' if share is None else 'guest'} joined.")

    def leave(self) -> None:
        account = self.account
        if self.gone or account is None:
            self.gone = True
            return
        self.gone = True
        if self in account.apps:
            account.apps.remove(self)
        if not account.removed:
            notify_hardware(account, b"adis")

    def closed(self) -> None:
        self.leave()

    # -- what handlers ask -------------------------------------------------------------------------------------------

    @property
    def owner(self) -> Account:
        """The account of a logged-in session."""
        assert self.account is not None
        return self.account

    def project_of(self, text: str) -> Project:
        """The project of an id. Errors: ValueError, Refused(ILLEGAL_COMMAND); NOT_ALLOWED for a guest elsewhere."""
        number = parse_int(text)
        project = self.owner.projects.get(number)
        if self.share is not None and project is not self.share:
            raise Refused(Status.NOT_ALLOWED)
        if project is None:
            raise Refused(Status.ILLEGAL_COMMAND)
        return project


def words_of(body: bytes, least: int, split: Callable[[str], list[str]] = full_split) -> list[str]:
    """The parts of a body, at least so many. Errors: Refused(ILLEGAL_COMMAND)."""
    words = split(body.decode("utf-8", "replace"))
    if len(words) < least:
        raise Refused(Status.ILLEGAL_COMMAND)
    return words


def split_target(text: str) -> tuple[str, Optional[str]]:
    """`1-200000` → ("1", "200000"); without a dash the second is None. The search starts at index 1."""
    at = text.find("-", 1)
    return (text, None) if at < 0 else (text[:at], text[at + 1 :])


def to_others(session: AppSession, project: Optional[Project], command: int, id: int, body: bytes) -> None:
    """To the account's other apps: the owner's, and guests of that project (None: all guests) (spec 03a §5.4)."""
    for other in session.owner.apps:
        if other is not session and not other.stream.congested:
            if other.share is None or project is None or other.share is project:
                other.send(command, id, body)


def send_sync(session: AppSession, project: Project, target: int = -1) -> None:
    for command, body in project_sync(project, target):
        session.send(command, ID_SYNC, encode(body))


def sync_all(session: AppSession, project: Project, target: int = -1) -> None:
    """The state to every app that sees the project, this one included."""
    for other in session.owner.apps:
        if other is session or (other.share is None or other.share is project) and not other.stream.congested:
            send_sync(other, project, target)


# -- 11b Before the login ----------------------------------------------------------------------------------------------

OUTDATED_VERSION = 10_101  # 1.1.1
OUTDATED_TEXT = (
    b"Your app is outdated. Please update to the latest app version. Ignoring this notice may affect your projects."
)


def version_number(text: str) -> int:
    """`2.27.0` → 22700; 0 when it is no version (spec 03a §2.4)."""
    parts = text.split(".")
    try:
        return parse_int(parts[0]) * 10_000 + parse_int(parts[1]) * 100 + parse_int(parts[2]) if len(parts) == 3 else 0
    except ValueError:
        return 0


@app(Command.REGISTER, before_login=True)
def on_register(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`email\\0hash\\0app` (spec 03a §2.5). A second account on one connection is refused and ends it."""
    server = session.server
    if session.registered:
        session.status(id, Status.NOT_ALLOWED)
        session.close()
        return None
    if not server.may_register():
        return Status.NOT_ALLOWED
    email, sent, app_name = words_of(body, 3, split3)
    email = email.strip().lower()
    if not valid_identity(email, app_name):
        return Status.ILLEGAL_COMMAND
    allowed = server.settings.limits_allowed_users
    if allowed and email not in (a.lower() for a in allowed):
        return Status.NOT_ALLOWED
    if server.account(email, app_name) is not None:
        return Status.USER_ALREADY_REGISTERED
    session.wait()

    def hashed(stored: Optional[str]) -> None:
        if stored is None:
            session.status(id, Status.SERVER_ERROR)
        elif server.account(email, app_name) is not None:  # registered twice at once
            session.status(id, Status.USER_ALREADY_REGISTERED)
        else:
            account = server.new_account(email, app_name, stored)
            first_project_of_app(server, account)
            session.registered = True
            session.status(id, OK)
            if app_name == "Blynk":
                server.messengers.greet(account)
        session.proceed()

    server.hash_password(sent, hashed)
    return None


def valid_identity(email: str, app_name: str) -> bool:
    """Whether an account may be called so: both become one file name, `email.app.user`, which must be nobody else's (no dot
    in the app's name) and leave room for the marks of temporary files and backups."""
    plain = app_name.isascii() and all(c.isalnum() or c in "-_ " for c in app_name)
    return plain and 0 < len(app_name) <= 100 and valid_email(email) and len(encode(f"{email}.{app_name}.user")) <= 230


@app(Command.LOGIN, before_login=True)
@app(Command.HARDWARE_LOGIN, before_login=True)
def on_app_login(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`email\\0hash[\\0os\\0version[\\0app]]` (spec 03a §2.6)."""
    server = session.server
    words = words_of(body, 2)
    email, sent = words[0].lower(), words[1]
    named = len(words) == 5
    if named and words[4] == "facebook":
        return Status.NOT_ALLOWED  # that needs Facebook; a local server has no business there
    account = server.account(email, words[4] if named else "Blynk")
    if account is None:
        if log.debugging:
            log.debug(f"{session.peer}: no such user")
        return Status.USER_NOT_REGISTERED
    if not account.document.get("pass"):
        return Status.FACEBOOK_USER_LOGIN_WITH_PASS
    session.os = words[2] if len(words) >= 4 else ""
    session.version = version_number(words[3]) if len(words) >= 4 else 0
    session.wait()

    def verified(right: bool) -> None:
        if not session.gone:
            if not right or account.removed:
                session.status(id, Status.USER_NOT_AUTHENTICATED)
            else:
                logged_in(session, account, id)
        session.proceed()

    server.verify_password(account, sent, session.peer, verified)
    return None


def logged_in(session: AppSession, account: Account, id: int) -> None:
    server = session.server
    document = account.document
    if not document.get("region"):
        document["region"] = server.settings.server_region
    if server.settings.data_store_ip:
        document["lastLoggedIP"] = session.peer
    document["lastLoggedAt"] = server.loop.now_ms
    server.ledger.presence.add(account)
    session.join(account, None, id)
    if session.version == OUTDATED_VERSION:
        session.send(Command.OUTDATED_APP_NOTIFICATION, id, OUTDATED_TEXT)


@app(Command.SHARE_LOGIN, before_login=True)
def on_share_login(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`email\\0shareToken[\\0os\\0version]` (spec 03a §2.10)."""
    words = words_of(body, 2)
    project = session.server.shares.get(words[1])
    if project is None or project.account.email != words[0].lower() or not project.document["isShared"]:
        return Status.NOT_ALLOWED
    session.os = words[2] if len(words) >= 4 else ""
    session.version = version_number(words[3]) if len(words) >= 4 else 0
    session.join(project.account, project, id)
    return None


@app(Command.GET_SERVER, before_login=True)
def on_get_server(session: AppSession, id: int, body: bytes) -> Any:
    """The host an app is to connect to (spec 03a §2.8)."""
    email, app_name = words_of(body, 2, split2)
    if not app_name or len(app_name) > 100:
        return Status.ILLEGAL_COMMAND
    email = email.strip().lower()
    if not valid_email(email):
        return Status.ILLEGAL_COMMAND_BODY
    server = session.server
    if server.database is not None and server.account(email, app_name) is None:
        session.wait()

        def found(host: Optional[str]) -> None:
            session.send(Command.GET_SERVER, id, (host or server.host).encode("ascii", "replace"))
            session.proceed()

        if not server.database.server_of(email, app_name, found):
            found(None)
        return None
    return server.host.encode("ascii", "replace")


@app(Command.LOGOUT, shared=True)
def on_logout(session: AppSession, id: int, body: bytes) -> None:
    """Drops push tokens, of one phone or of all, and ends the connection (spec 03a §2.7)."""
    session.status(id, OK)
    uid = body.decode("utf-8", "replace")
    account = session.owner
    if uid or session.share is None:
        for project in account.projects.values() if session.share is None else (session.share,):
            widget = project.find("NOTIFICATION")
            for name in ("androidTokens", "iOSTokens") if widget is not None else ():
                tokens = widget.get(name)  # type: ignore[union-attr]
                if tokens and (not uid or uid in tokens):
                    set_or_drop(widget, name, {k: v for k, v in tokens.items() if uid and k != uid})  # type: ignore[arg-type]
                    account.save_soon()
    session.close()


@app(Command.PING, shared=True)
def on_app_ping(session: AppSession, _id: int, _body: bytes) -> Optional[int]:
    return None if session.stream.congested else OK


# -- 11c Profile and projects (spec 03a §4) ----------------------------------------------------------------------------


@app(Command.LOAD_PROFILE_GZIPPED, shared=True)
def on_load_profile(session: AppSession, id: int, body: bytes) -> Any:
    """zlib of the profile (empty body) or of one project; a guest gets what is shared with him."""
    account = session.owner
    if session.share is not None:
        shared = session.share
        if body:
            session.project_of(body.decode("utf-8", "replace"))
        view = public_view(shared.document)
        return pack_json(view if body else {"dashBoards": [view]})
    if not body:
        return pack_json(account.profile())
    words = full_split(body.decode("utf-8", "replace"))
    if len(words) == 1:
        return pack_json(session.project_of(words[0]).document)
    if len(words) < 3:
        return Status.ILLEGAL_COMMAND
    return published_project(session, id, Command.LOAD_PROFILE_GZIPPED, words[0], None)


def pack_json(document: Any) -> bytes:
    """zlib of a document as apps see it: what the rules remember of a zone's offset is not theirs."""
    head, *rest = to_json(document).split(',"savedOffset":')  # inside a text its quotes would be escaped
    return zlib.compress(encode(head + "".join(part.lstrip("-0123456789") for part in rest)))


def checked_json(session: AppSession, text: str, limit_kb: int) -> str:
    """A document of acceptable size. Errors: Refused."""
    if not text:
        raise Refused(Status.ILLEGAL_COMMAND)
    if len(text) > limit_kb << 10:
        raise Refused(Status.NOT_ALLOWED)
    return text


@app(Command.CREATE_DASH)
def on_create_project(session: AppSession, _id: int, body: bytes) -> int:
    """`[no_token\\0]json` (spec 03a §4.3)."""
    server, account = session.server, session.owner
    text = body.decode("utf-8", "replace")
    bare = text.startswith("no_token")
    if bare:
        text = text.partition("\0")[2]
    document = read_document("PROJECT", checked_json(session, text, server.settings.limits_profile_kb))
    if len(account.projects) >= server.settings.limits_dashboards:
        return Status.QUOTA_LIMIT
    if document["id"] in account.projects:
        return Status.NOT_ALLOWED
    server.add_project(account, document, tokens=not bare)
    return OK


@app(Command.UPDATE_DASH)
def on_update_project(session: AppSession, _id: int, body: bytes) -> int:
    """The whole project but devices, tags and state (spec 03a §4.4)."""
    text = checked_json(session, body.decode("utf-8", "replace"), session.server.settings.limits_profile_kb)
    raw = parse_json(text)
    if raw is None:
        return Status.ILLEGAL_COMMAND
    if isinstance(raw, dict) and raw.get("widgets", ()) is None:
        return Status.ILLEGAL_COMMAND_BODY
    new = read_document("PROJECT", raw)
    project = session.project_of(str(new["id"]))
    old_tokens = project.find("NOTIFICATION")
    for name, *_ in fields_of("SETTINGS"):
        set_or_drop(project.document, name, new.get(name))
    set_or_drop(project.document, "widgets", new.get("widgets"))
    take_unknown(project.document, new, "PROJECT")
    tokens = project.find("NOTIFICATION")
    if old_tokens is not None and tokens is not None:
        for name in ("androidTokens", "iOSTokens"):
            set_or_drop(tokens, name, old_tokens.get(name))
    for widget in project.widgets:
        project.forget_pins(widget, properties=False)
    project.changed()
    project.modified()
    return OK


@app(Command.UPDATE_PROJECT_SETTINGS)
def on_project_settings(session: AppSession, _id: int, body: bytes) -> int:
    """Nine fields; what is missing is reset (spec 03a §4.5)."""
    head, text = words_of(body, 2, split2)
    text = checked_json(session, text, session.server.settings.limits_widget_kb)
    project = session.project_of(head)
    new = read_document("SETTINGS", text)
    for name, *_ in fields_of("SETTINGS"):
        set_or_drop(project.document, name, new.get(name))
    take_unknown(project.document, new, "PROJECT", "SETTINGS")
    project.changed()
    project.modified()
    return OK


@app(Command.DELETE_DASH)
def on_delete_project(session: AppSession, id: int, body: bytes) -> None:
    """Connections end, history goes, then OK (spec 03a §4.6)."""
    server = session.server
    project = session.project_of(body.decode("utf-8", "replace"))
    server.refund(project.account, project.price())
    session.wait()

    def gone(error: Optional[Exception]) -> None:
        session.status(id, OK)
        session.proceed()

    server.remove_project(project, gone)


@app(Command.ACTIVATE_DASHBOARD)
def on_activate(session: AppSession, id: int, body: bytes) -> None:
    """Play (spec 03a §4.7): pin modes to the boards, the state to every app."""
    project = session.project_of(body.decode("utf-8", "replace"))
    project.document["isActive"] = True
    project.changed()
    project.modified()
    quiet = project.document["isNotificationsOff"]
    if any(device.sessions for device in project.devices.values()):
        for device in project.devices.values():
            modes = encode(pin_modes(project, device.id))
            if modes and not device.buffer_fits(len(modes)):
                session.status(id, Status.DEVICE_NOT_IN_NETWORK)
            elif modes:
                if not to_hardware((device,), Command.HARDWARE, 1, modes) and not quiet:
                    session.status(1, Status.DEVICE_NOT_IN_NETWORK)
            elif not device.sessions and not quiet:
                session.status(1, Status.DEVICE_NOT_IN_NETWORK)
        session.status(id, OK)
    else:
        session.status(id, OK if quiet else Status.DEVICE_NOT_IN_NETWORK)
    to_others(session, project, Command.ACTIVATE_DASHBOARD, id, body)
    sync_all(session, project)


@app(Command.DEACTIVATE_DASHBOARD)
def on_deactivate(session: AppSession, id: int, body: bytes) -> int:
    """Stop: one project, or all with an empty body (spec 03a §4.8)."""
    project = session.project_of(body.decode("utf-8", "replace")) if body else None
    for one in (project,) if project is not None else session.owner.projects.values():
        one.document["isActive"] = False
        one.changed()
        one.modified()
    to_others(session, project, Command.DEACTIVATE_DASHBOARD, id, body)
    return OK


# -- 11d Pins (spec 03a §5) --------------------------------------------------------------------------------------------


@app(Command.HARDWARE, shared=True)
def on_app_write(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`1-0\\0vw\\05\\0123` to a device, tag or selector; `vu` moves a selector. Silence on success (spec 03a §5.1–5.3)."""
    head, *rest = split2(body.decode("utf-8", "replace"))
    dash, target_text = split_target(head)
    project = session.project_of(dash)
    if not project.active:
        return None
    if session.share is not None and not project.document["isShared"]:
        return Status.NOT_ALLOWED
    target = parse_int(target_text) if target_text is not None else 0
    device_ids = project.target_ids(target)
    if not device_ids:
        return None
    text = rest[0] if rest else ""
    if len(text) < 2:
        return Status.ILLEGAL_COMMAND
    if text[1] == "u":
        return move_selector(session, project, id, body, text)
    if text[1] != "w":
        return None
    parts = split3(text)
    letter = text[0].lower()
    if len(parts) < 3:
        return Status.ILLEGAL_COMMAND_BODY
    if letter not in PIN_TYPES:
        return Status.ILLEGAL_COMMAND
    pin, value = parse_pin(parts[1]), parts[2]
    for device_id in device_ids:
        set_value(project, device_id, letter, pin, value)
    if FIRST_TAG_ID <= target < FIRST_SELECTOR_ID:
        set_value(project, target, letter, pin, value)  # a tag's own widgets
    to_others(session, project, Command.APP_SYNC, id, body)
    devices = project.selected(target)
    if not to_hardware(devices, Command.HARDWARE, id, body[body.index(b"\0", 1) + 1 :]):
        if not project.document["isNotificationsOff"]:
            session.status(id, Status.DEVICE_NOT_IN_NETWORK)
    automation = session.server.automation
    if project.route(target, letter, pin).watched:
        automation.on_value(project, target, letter, pin, value, session)
    return None


def move_selector(session: AppSession, project: Project, id: int, body: bytes, text: str) -> Optional[int]:
    """`vu\\0selector\\0device`: another device is shown (spec 03a §5.3)."""
    parts = split3(text)
    if len(parts) < 3:
        return Status.ILLEGAL_COMMAND
    widget_id, device_id = parse_int(parts[1], 64), parse_int(parts[2])
    widget = next((w for w in project.widgets if w["id"] == widget_id), None)
    if widget is None:
        return Status.ILLEGAL_COMMAND
    if widget["type"] != "DEVICE_SELECTOR":
        return None
    widget["value"] = device_id
    project.changed()
    project.modified()
    session.status(id, OK)
    to_others(session, project, Command.APP_SYNC, id, body)
    sync_all(session, project, device_id)
    return None


@app(Command.APP_SYNC, shared=True)
def on_app_sync(session: AppSession, id: int, body: bytes) -> None:
    """OK, then the state (spec 03a §5.7)."""
    dash, target = split_target(body.decode("utf-8", "replace"))
    project = session.project_of(dash)
    wanted = parse_int(target) if target is not None else -1
    session.status(id, OK)
    send_sync(session, project, wanted)


@app(Command.HARDWARE_RESEND_FROM_BLUETOOTH)
def on_bluetooth(session: AppSession, _id: int, body: bytes) -> Optional[int]:
    """A value the app got by radio: as if the device had sent it, but nobody is told (spec 03a §5.8)."""
    text = body.decode("utf-8", "replace")
    if len(text) < 8:
        return Status.ILLEGAL_COMMAND
    head, *rest = split2(text)
    dash, device_text = split_target(head)
    project = session.project_of(dash)
    if device_text is None or not rest or len(rest[0]) < 2:
        return Status.ILLEGAL_COMMAND
    write = parse_write(rest[0], 2)
    device = project.devices.get(parse_int(device_text))
    if device is None:
        return Status.ILLEGAL_COMMAND
    if write is None:
        return None
    letter, pin, value = write
    now_ms = session.server.loop.now_ms
    route = project.route(device.id, letter, pin)
    route.record(value, now_ms)
    route.set(value, now_ms)
    if route.watched:
        session.server.automation.on_value(project, device.id, letter, pin, value, session)
    return None


@app(Command.SET_WIDGET_PROPERTY)
def on_app_property(session: AppSession, _id: int, body: bytes) -> int:
    """`dash\\0widget\\0property\\0value`, four parts exactly (spec 03a §5.9)."""
    words = full_split(body.decode("utf-8", "replace"))
    if len(words) != 4 or not words[2] or not words[3]:
        return Status.ILLEGAL_COMMAND_BODY
    project = session.project_of(words[0])
    widget = project.widget(parse_int(words[1], 64))
    if widget is None:
        return Status.ILLEGAL_COMMAND
    if words[2] not in PROPERTY_LABELS or not set_widget_property(widget, words[2], words[3]):
        return Status.ILLEGAL_COMMAND_BODY
    project.modified()
    return OK


# -- 11e Widgets and tiles (spec 03b §3–4) -----------------------------------------------------------------------------


def read_widget(session: AppSession, text: str) -> Document:
    """A widget the app sent. Errors: Refused, DocumentError."""
    if len(text) > session.server.settings.limits_widget_kb << 10:
        raise Refused(Status.NOT_ALLOWED)
    return read_document("WIDGET", text)


def check_size(widget: Document) -> None:
    if widget["width"] < 1 or widget["height"] < 1:
        raise Refused(Status.NOT_ALLOWED)


@app(Command.CREATE_WIDGET)
def on_create_widget(session: AppSession, _id: int, body: bytes) -> int:
    """`dash\\0json`, or `dash\\0tiles\\0template\\0json` for a widget inside a template."""
    words = words_of(body, 2)
    parse_int(words[0])
    inside = len(words) == 4
    ids = [parse_int(w, 64) for w in words[1:3]] if inside else []
    text = words[3] if inside else words[1]
    if len(text) > session.server.settings.limits_widget_kb << 10:
        return Status.NOT_ALLOWED
    project = session.project_of(words[0])
    widget = read_widget(session, text)
    check_size(widget)
    if any(w["id"] == widget["id"] for w, _ in project.all_widgets()):
        return Status.NOT_ALLOWED
    template = find_template(project, *ids)[1] if inside else None
    session.server.charge(project.account, widget_price(widget))
    holder = project.document if template is None else template
    set_or_drop(holder, "widgets", [*holder.get("widgets", ()), widget])
    project.forget_pins(widget)
    project.changed()
    project.modified()
    return OK


def find_template(project: Project, tiles_id: int, template_id: int) -> tuple[Document, Document]:
    """(tiles widget, template). Errors: Refused(ILLEGAL_COMMAND)."""
    tiles = find_tiles(project, tiles_id)
    for template in tiles.get("templates", ()):
        if template["id"] == template_id:
            return tiles, template
    raise Refused(Status.ILLEGAL_COMMAND)


def find_tiles(project: Project, tiles_id: int) -> Document:
    widget = next((w for w in project.widgets if w["id"] == tiles_id), None)
    if widget is None or widget["type"] != "DEVICE_TILES":
        raise Refused(Status.ILLEGAL_COMMAND)
    return widget


def holder_of(project: Project, widget_id: int) -> tuple[Document, int, Optional[Document]]:
    """(what holds the widget, its index there, the template if it is one): top level first, then the templates.
    Errors: Refused(ILLEGAL_COMMAND)."""
    holders: list[tuple[Document, Optional[Document]]] = [(project.document, None)]
    holders += [(t, t) for w in project.widgets for t in templates_of(w)]
    for holder, template in holders:
        for index, widget in enumerate(holder.get("widgets", ())):
            if widget["id"] == widget_id:
                return holder, index, template
    raise Refused(Status.ILLEGAL_COMMAND)


@app(Command.UPDATE_WIDGET)
def on_update_widget(session: AppSession, _id: int, body: bytes) -> int:
    """`dash\\0json`: replaced, with what spec 03b §3.2 says is kept."""
    head, text = words_of(body, 2, split2)
    if not text:
        return Status.ILLEGAL_COMMAND
    parse_int(head)
    if len(text) > session.server.settings.limits_widget_kb << 10:
        return Status.NOT_ALLOWED
    project = session.project_of(head)
    widget = read_widget(session, text)
    check_size(widget)
    holder, index, template = holder_of(project, widget["id"])
    old = holder["widgets"][index]
    if old["type"] != widget["type"]:
        return Status.ILLEGAL_COMMAND
    carry_over(old, widget)
    holder["widgets"][index] = widget
    restart_histories(project, old, widget)
    if widget["type"] == "TABS":
        remove_tabs(session, project, holder, max(0, len(widget.get("tabs", ())) - 1))
    project.forget_pins(widget)
    project.changed()
    project.modified()
    return OK


def restart_histories(project: Project, old: Document, widget: Document) -> None:
    """A changed map or advanced LCD begins its list with the value it kept (spec 04 §17.3)."""
    if widget["type"] == "MAP" and old.get("value") and same_pin(old, widget):
        project.history_of(widget, project.pools["MAP"]).append(widget["value"])
    elif widget["type"] == "LCD" and widget.get("advancedMode"):
        kept = [s["value"] for s in old.get("pins", ()) if s.get("value")]
        for stream in widget.get("pins", ()):
            if stream.get("value") in kept:
                project.history_of(widget, project.pools["LCD"]).append(stream["value"])


@app(Command.DELETE_WIDGET)
def on_delete_widget(session: AppSession, _id: int, body: bytes) -> int:
    """`dash\\0widget`; its price comes back (spec 03b §3.3)."""
    head, number = words_of(body, 2, split2)
    project = session.project_of(head)
    holder, index, template = holder_of(project, parse_int(number, 64))
    widgets = list(holder["widgets"])
    widget = widgets.pop(index)
    session.server.refund(project.account, widget_price(widget))
    set_or_drop(holder, "widgets", widgets)
    if widget["type"] == "TABS":
        remove_tabs(session, project, holder, 0)
    project.forget_pins(widget, template)
    project.changed()
    project.modified()
    return OK


def remove_tabs(session: AppSession, project: Project, holder: Document, last: int) -> None:
    """Widgets on tabs that are no more go, their prices come back (spec 03b §3.4)."""
    gone = [w for w in holder.get("widgets", ()) if w.get("tabId", 0) > last]
    if gone:
        session.server.refund(project.account, sum(widget_price(w) for w in gone))
        set_or_drop(holder, "widgets", [w for w in holder["widgets"] if w.get("tabId", 0) <= last])


@app(Command.GET_WIDGET)
def on_get_widget(session: AppSession, _id: int, body: bytes) -> Any:
    """`dash\\0widget`, top level only, without secrets (spec 03b §3.5)."""
    head, number, *_ = words_of(body, 2)
    project = session.project_of(head)
    widget_id = parse_int(number, 64)
    widget = next((w for w in project.widgets if w["id"] == widget_id), None)
    if widget is None:
        return Status.ILLEGAL_COMMAND
    return to_json(public_widget(widget))


@app(Command.CREATE_TILE_TEMPLATE)
def on_create_template(session: AppSession, _id: int, body: bytes) -> int:
    """`dash\\0tiles\\0json` (spec 03b §4)."""
    project, tiles, template = template_request(session, body)
    if any(t["id"] == template["id"] for t in tiles.get("templates", ())):
        return Status.NOT_ALLOWED
    template.setdefault("templateId", f"TMPL{template['id']}")
    if "pin" in template:
        template["pin"] = template.pop("pin")  # stays the last property
    tiles["templates"] = [*tiles.get("templates", ()), template]
    rebuild_tiles(tiles, template, None)
    project.forget_pins(tiles)
    project.changed()
    project.modified()
    return OK


@app(Command.UPDATE_TILE_TEMPLATE)
def on_update_template(session: AppSession, _id: int, body: bytes) -> int:
    project, tiles, template = template_request(session, body)
    templates = tiles.get("templates", [])
    index = next((i for i, t in enumerate(templates) if t["id"] == template["id"]), None)
    if index is None:
        return Status.ILLEGAL_COMMAND
    old = templates[index]
    set_or_drop(template, "widgets", old.get("widgets"))
    templates[index] = template
    rebuild_tiles(tiles, template, old)
    for tile in tiles.get("tiles", ()):
        project._forget(tile.get("pin", {}), [tile["deviceId"]], True)
    project.changed()
    project.modified()
    return OK


def template_request(session: AppSession, body: bytes) -> tuple[Project, Document, Document]:
    """(project, tiles widget, template sent). Errors: Refused, DocumentError, ValueError."""
    head, number, text = words_of(body, 3, split3)
    if not text:
        raise Refused(Status.ILLEGAL_COMMAND)
    project = session.project_of(head)
    tiles = find_tiles(project, parse_int(number, 64))
    return (
        project,
        tiles,
        read_document("TEMPLATE", checked_json(session, text, session.server.settings.limits_widget_kb)),
    )


def rebuild_tiles(tiles: Document, template: Document, old: Optional[Document]) -> None:
    """One tile per device of the changed template, the others as they were (spec 04 §14.2)."""
    stream = template.get("pin")
    if old is not None and stream is not None:
        if old.get("deviceIds", []) == template.get("deviceIds", []) and old.get("pin") == stream:
            return
    before = tiles.get("tiles", [])
    after: list[Document] = []
    for one in tiles.get("templates", ()):
        if one["id"] != template["id"]:
            after += [t for t in before if t["templateId"] == one["id"]]
            continue
        for device_id in template.get("deviceIds", ()):
            tile: Document = {"deviceId": device_id, "templateId": template["id"]}
            if stream is not None:
                tile["pin"] = copy_document(stream)
                for was in before:
                    pin = was.get("pin", {})
                    if was["templateId"] == template["id"] and was["deviceId"] == device_id and has_pin(pin):
                        if stream_matches(tile["pin"], LETTERS[pin["pinType"]], pin["pin"]):
                            set_or_drop(tile["pin"], "value", pin.get("value"))
                            break
            after.append(tile)
    set_or_drop(tiles, "tiles", after)


@app(Command.DELETE_TILE_TEMPLATE)
def on_delete_template(session: AppSession, _id: int, body: bytes) -> int:
    head, tiles_id, number = words_of(body, 3, split3)
    project = session.project_of(head)
    tiles, template = find_template(project, parse_int(tiles_id, 64), parse_int(number, 64))
    session.server.refund(project.account, sum(widget_price(w) for w in template.get("widgets", ())))
    for widget in template.get("widgets", ()):
        project.forget_pins(widget, template)
    set_or_drop(tiles, "templates", [t for t in tiles["templates"] if t is not template])
    set_or_drop(tiles, "tiles", [t for t in tiles.get("tiles", ()) if t["templateId"] != template["id"]])
    project.changed()
    project.modified()
    return OK


# -- 11f Devices, tags, tokens (spec 03b §5–6, 03a §7) -----------------------------------------------------------------

DEVICE_UPDATES = ("name", "vendor", "boardType", "address", "connectionType", "iconName", "isUserIcon")


def device_request(session: AppSession, body: bytes) -> tuple[Project, Document]:
    """(project, device sent), a valid one: a board and a name of at most 50. Errors: Refused, DocumentError."""
    head, text = words_of(body, 2, split2)
    if not text:
        raise Refused(Status.ILLEGAL_COMMAND)
    project = session.project_of(head)
    document = read_document("DEVICE", text)
    if "boardType" not in document or len(document.get("name", "")) > 50:
        raise Refused(Status.ILLEGAL_COMMAND)
    return project, document


@app(Command.CREATE_DEVICE)
def on_create_device(session: AppSession, _id: int, body: bytes) -> Any:
    server = session.server
    head, text = words_of(body, 2, split2)
    if not text:
        return Status.ILLEGAL_COMMAND
    if len(session.project_of(head).document.get("devices", ())) > server.settings.limits_devices:
        return Status.NOT_ALLOWED
    project, document = device_request(session, body)
    if document["id"] in project.devices:
        return Status.NOT_ALLOWED
    status = document["status"]  # a client may say so; the next login or start knows better
    erase_device(document)
    document["status"] = status
    device = server.add_device(project, document)
    server.assign_token(device, new_token())
    project.changed()
    project.account.modified()
    return device_json(device.document)


@app(Command.UPDATE_DEVICE)
def on_update_device(session: AppSession, _id: int, body: bytes) -> int:
    project, document = device_request(session, body)
    device = project.devices.get(document["id"])
    if device is None:
        return Status.ILLEGAL_COMMAND_BODY
    for name in DEVICE_UPDATES:
        set_or_drop(device.document, name, document.get(name))
    take_unknown(device.document, document, "DEVICE")
    project.modified()
    return OK


@app(Command.DELETE_DEVICE)
def on_delete_device(session: AppSession, id: int, body: bytes) -> None:
    """Connections end, history goes, then OK (spec 03b §5)."""
    head, number = words_of(body, 2, split2)
    project = session.project_of(head)
    device = project.devices.get(parse_int(number))
    if device is None:
        raise Refused(Status.ILLEGAL_COMMAND)
    session.wait()

    def gone(_error: Optional[Exception]) -> None:
        session.status(id, OK)
        session.proceed()

    session.server.remove_device(device, gone)


@app(Command.GET_DEVICES, shared=True)
def on_get_devices(session: AppSession, _id: int, body: bytes) -> str:
    """The devices of a project; a guest does not see their tokens."""
    project = session.project_of(body.decode("utf-8", "replace"))
    devices = [device_status(d) for d in project.document.get("devices", ())]
    if session.share is not None:
        for device in devices:
            device.pop("token", None)
    return to_json(devices)


@app(Command.MOBILE_GET_DEVICE)
def on_get_device(session: AppSession, _id: int, body: bytes) -> Any:
    head, number = words_of(body, 2, split2)
    device = session.project_of(head).devices.get(parse_int(number))
    return Status.ILLEGAL_COMMAND_BODY if device is None else device_json(device.document)


@app(Command.GET_PROVISION_TOKEN)
def on_provision(session: AppSession, _id: int, body: bytes) -> Any:
    """A token that makes the device join when it first logs in, within seven days (spec 03b §5.2)."""
    project, document = device_request(session, body)
    if document["id"] in project.devices:
        return Status.NOT_ALLOWED
    erase_device(document)
    token = session.server.provide(project, document)
    return device_json({**document, "token": token}).encode("ascii", "replace")


@app(Command.REFRESH_TOKEN)
def on_refresh_token(session: AppSession, _id: int, body: bytes) -> Any:
    """`dash[\\0device]`: a new token, the old one's holder is cut off (spec 03a §7.1)."""
    head, *rest = words_of(body, 1, split2)
    project = session.project_of(head)
    device = project.devices.get(parse_int(rest[0]) if rest else 0)
    if device is None:
        return Status.ILLEGAL_COMMAND_BODY
    token = new_token()
    session.server.assign_token(device, token)
    close_sessions(device.sessions)
    project.account.modified()
    return token


@app(Command.ASSIGN_TOKEN)
def on_assign_token(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dash\\0flashedToken`: needs the database (spec 03b §5.3)."""
    head, token = words_of(body, 2, split2)
    project = session.project_of(head)
    server = session.server
    database = server.database

    def found(row: Optional[Document]) -> None:
        there = row is not None and session.owner.projects.get(project.id) is project
        device = project.devices.get(row["device"]) if there and row is not None else None
        if row is None or row["activated"] or device is None:
            session.status(id, Status.NOT_ALLOWED)
            return

        def activated(right: bool) -> None:
            if right:
                server.assign_token(device, token)
                project.account.modified()
            session.status(id, OK if right else Status.NOT_ALLOWED)

        if not database.activate_flashed(token, row["app"], activated):
            session.status(id, Status.SERVER_ERROR)

    if database is None or not database.find_flashed(token, found):
        return Status.NOT_ALLOWED
    return None


def tag_request(session: AppSession, body: bytes) -> tuple[Project, Document]:
    """(project, tag sent), a valid one (spec 03b §6). Errors: Refused, DocumentError."""
    head, text = words_of(body, 2, split2)
    if not text:
        raise Refused(Status.ILLEGAL_COMMAND)
    project = session.project_of(head)
    tag = read_document("TAG", text)
    if not 1 <= len(tag.get("name", "")) <= 40 or tag["id"] < FIRST_TAG_ID or len(tag.get("deviceIds", ())) > 25:
        raise Refused(Status.ILLEGAL_COMMAND)
    return project, tag


@app(Command.CREATE_TAG)
def on_create_tag(session: AppSession, _id: int, body: bytes) -> Any:
    project, tag = tag_request(session, body)
    tags = project.document.get("tags", [])
    if any(t["id"] == tag["id"] or t.get("name") == tag["name"] for t in tags):
        return Status.ILLEGAL_COMMAND
    project.document["tags"] = [*tags, tag]
    project.changed()
    project.modified()
    return to_json(tag)


@app(Command.UPDATE_TAG)
def on_update_tag(session: AppSession, _id: int, body: bytes) -> int:
    project, tag = tag_request(session, body)
    stored = project.tag(tag["id"])
    if stored is None:
        return Status.ILLEGAL_COMMAND
    stored["name"] = tag["name"]
    set_or_drop(stored, "deviceIds", tag.get("deviceIds"))
    take_unknown(stored, tag, "TAG")
    project.changed()
    project.modified()
    return OK


@app(Command.DELETE_TAG)
def on_delete_tag(session: AppSession, _id: int, body: bytes) -> int:
    head, number = words_of(body, 2, split2)
    project = session.project_of(head)
    tag = project.tag(parse_int(number))
    if tag is None:
        return Status.ILLEGAL_COMMAND
    set_or_drop(project.document, "tags", [t for t in project.document["tags"] if t is not tag])
    project.changed()
    project.modified()
    return OK


@app(Command.GET_TAGS)
def on_get_tags(session: AppSession, _id: int, body: bytes) -> str:
    return to_json(session.project_of(body.decode("utf-8", "replace")).document.get("tags", []))


PHONES_LIMIT = 100  # push tokens a widget keeps of each system; the oldest go
PUSH_TOKEN_LENGTH = 4096  # characters of a token and its phone's id


@app(Command.ADD_PUSH_TOKEN, shared=True)
def on_push_token(session: AppSession, _id: int, body: bytes) -> int:
    """`dash\\0uid\\0token`, kept by the phone's system (spec 03a §7.4)."""
    head, uid, token = words_of(body, 3, split3)
    project = session.project_of(head)
    widget = project.find("NOTIFICATION")
    if widget is None or len(uid) + len(token) > PUSH_TOKEN_LENGTH:
        return Status.NOT_ALLOWED
    name = {"android": "androidTokens", "ios": "iOSTokens"}.get(session.os.lower())
    if name is not None:
        others = [pair for pair in widget.get(name, {}).items() if pair[0] != uid]
        widget[name] = dict([*others, (uid, token)][-PHONES_LIMIT:])
        project.account.save_soon()
    return OK


# -- 11g Sharing and energy (spec 03a §6–8) ----------------------------------------------------------------------------

SHARE_PRICE = 1000


def shared_project(session: AppSession, body: bytes) -> Project:
    """Here a number that is none is NOT_ALLOWED."""
    text = body.decode("utf-8", "replace")
    try:
        parse_int(text)
    except ValueError:
        raise Refused(Status.NOT_ALLOWED) from None
    return session.project_of(text)


@app(Command.GET_SHARE_TOKEN)
def on_share_token(session: AppSession, _id: int, body: bytes) -> str:
    """The project's share token, made at the first request."""
    server = session.server
    project = shared_project(session, body)
    token = project.document.get("sharedToken")
    if not token:
        server.charge(project.account, SHARE_PRICE)
        token = server.share(project)
    return str(token)


@app(Command.REFRESH_SHARE_TOKEN)
def on_refresh_share_token(session: AppSession, id: int, body: bytes) -> str:
    """A new token; guests with the old one are told and cut off."""
    project = shared_project(session, body)
    token = session.server.share(project)
    for guest in [a for a in session.owner.apps if a.share is project]:
        guest.status(id, Status.NOT_ALLOWED)
        close_sessions((guest,))
    return token


@app(Command.SHARING)
def on_sharing(session: AppSession, id: int, body: bytes) -> int:
    """`dash\\0on` or `off`."""
    words = words_of(body, 2)
    project = session.project_of(words[0])
    project.document["isShared"] = words[1] == "on"
    project.modified()
    to_others(session, project, Command.SHARING, id, body)
    return OK


@app(Command.GET_ENERGY)
def on_get_energy(session: AppSession, _id: int, _body: bytes) -> str:
    energy = session.owner.document["energy"]
    return str(max(energy, 100_000) if session.server.settings.limits_energy == "unlimited" else energy)


def plausible_transaction(text: str) -> bool:
    """Whether a purchase could have that id (spec 03a §7.3); nobody checks more."""
    parts = text.split(".")
    forged = len(text) == 36 and len(parts) == 2 and len(parts[0]) == 19 and len(parts[1]) == 16
    return bool(text) and not text.startswith("com.blynk.energy") and not forged


@app(Command.ADD_ENERGY)
def on_add_energy(session: AppSession, _id: int, body: bytes) -> int:
    """`amount\\0transactionId`."""
    amount_text, *rest = split2(body.decode("utf-8", "replace"))
    if not rest:
        return Status.NOT_ALLOWED
    amount = parse_int(amount_text)
    if not plausible_transaction(rest[0]):
        return Status.NOT_ALLOWED
    account = session.owner
    account.add_energy(amount)
    if session.server.database is not None and rest[0] not in ("AdColonyAward", "homeScreen"):
        session.server.database.purchase(account.email, amount, rest[0])
    return OK


@app(Command.REDEEM)
def on_redeem(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """A code for energy: needs the database."""
    database, account = session.server.database, session.owner

    def redeemed(status: int, energy: int) -> None:
        if energy:
            account.add_energy(energy)
        session.status(id, status)

    if database is None or not database.redeem(body.decode("utf-8", "replace"), account.email, redeemed):
        return Status.NOT_ALLOWED
    return None


# -- 11h Exported apps and clones (spec 03b §8) ------------------------------------------------------------------------

APP_LIMIT = 25


def app_request(session: AppSession, body: bytes) -> Document:
    """A valid exported app ("face"). Errors: Refused, DocumentError."""
    text = checked_json(session, body.decode("utf-8", "replace"), session.server.settings.limits_widget_kb)
    raw = parse_json(text)
    face = read_document("APP", raw)
    if not (face.get("theme") and face.get("provisionType") and face.get("name")) or raw.get("projectIds") is None:
        raise Refused(Status.NOT_ALLOWED)
    return face


@app(Command.CREATE_APP)
def on_create_app(session: AppSession, _id: int, body: bytes) -> Any:
    face = app_request(session, body)
    account = session.owner
    if len(account.apps_made) > APP_LIMIT:
        return Status.NOT_ALLOWED
    letters = "abcdefghijklmnopqrstuvwxyz"
    face = {"id": "blynk" + "".join(letters[b % 26] for b in os.urandom(8)), **{k: face[k] for k in face if k != "id"}}
    account.apps_made.append(face)
    account.modified()
    return to_json(face)


@app(Command.UPDATE_APP)
def on_update_app(session: AppSession, _id: int, body: bytes) -> int:
    face = app_request(session, body)
    account = session.owner
    stored = next((a for a in account.apps_made if a.get("id") == face.get("id")), None)
    if stored is None:
        return Status.NOT_ALLOWED
    stored.clear()
    stored.update(face)
    account.modified()
    return OK


@app(Command.DELETE_APP)
def on_delete_app(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """Its projects go too, without a refund; refused while somebody uses it."""
    server, account = session.server, session.owner
    name = body.decode("utf-8", "replace")
    face = next((a for a in account.apps_made if a.get("id") == name), None)
    if face is None or any(a.app == name for a in server.accounts.values()):
        return Status.NOT_ALLOWED
    account.apps_made.remove(face)
    account.modified()
    projects = [account.projects[i] for i in dict.fromkeys(face.get("projectIds", ())) if i in account.projects]
    session.wait()

    def next_one(_error: Optional[Exception] = None) -> None:
        if projects:
            server.remove_project(projects.pop(), next_one, history=False)
        else:
            session.status(id, OK)
            session.proceed()

    next_one()
    return None


@app(Command.UPDATE_FACE)
def on_update_face(session: AppSession, _id: int, body: bytes) -> int:
    """Children of a project take over its looks (spec 03b §8.4, 04 §17.4)."""
    server, account = session.server, session.owner
    parent = session.project_of(body.decode("utf-8", "replace"))
    children = {p.id for p in account.projects.values() if p.document["parentId"] == parent.id}
    faces = {a.get("id") for a in account.apps_made if children.intersection(a.get("projectIds", ()))}
    if not faces:
        return Status.NOT_ALLOWED
    for other in list(server.accounts.values()):
        if other is account or other.app in faces:
            for project in other.projects.values():
                if project.document["parentId"] == parent.id and project is not parent:
                    update_face(parent, project)
                    if other is not account:
                        close_sessions(other.apps)
    return OK


def update_face(parent: Project, child: Project) -> None:
    for name, *_ in fields_of("SETTINGS"):
        set_or_drop(child.document, name, parent.document.get(name))
    set_or_drop(child.document, "tags", copy_document(parent.document.get("tags")))
    old = {w["id"]: w for w in reversed(child.widgets)}
    widgets = [public_widget(w) for w in parent.widgets]
    for widget in widgets:
        if widget_type(widget).base in "SRM" or widget["type"] in ("REPORT", "DEVICE_TILES"):
            erase_widget(widget)
        was = old.get(widget["id"])
        if was is not None and was["type"] == widget["type"]:
            restore_face_widget(was, widget)
        widget["isDefaultColor"] = False
    set_or_drop(child.document, "widgets", widgets)
    child.changed()
    child.modified()


def restore_face_widget(was: Document, widget: Document) -> None:
    """What a child's widget keeps when the parent's replaces it (updateValue of spec 04)."""
    kind = widget["type"]
    if kind == "DEVICE_TILES":
        set_or_drop(widget, "tiles", was.get("tiles"))
        devices = {t["id"]: t.get("deviceIds") for t in templates_of(was)}
        for template in templates_of(widget):
            set_or_drop(template, "deviceIds", devices.get(template["id"]))
    elif kind == "TIMER":
        if same_pin(was, widget):
            set_or_drop(widget, "value", was.get("value"))
            for name in ("startTime", "stopTime"):
                if was[name] != -1:
                    widget[name] = was[name]
    elif kind == "TIME_INPUT":
        for name in (
            ("value", "startAt", "stopAt", "tzName", "days") if "value" in was and same_pin(was, widget) else ()
        ):
            set_or_drop(widget, name, was.get(name))
    elif kind == "EMAIL":
        set_or_drop(widget, "to", was.get("to"))
        set_or_drop(widget, "contentType", was.get("contentType"))
    elif kind == "RTC":
        set_or_drop(widget, "tzName", was.get("tzName"))
    elif kind not in ("NOTIFICATION", "REPORT"):
        carry_over(was, widget)


def first_project_of_app(server: Server, account: Account) -> None:
    """Who registers under an exported app's id gets a clone of its project (spec 03b §8.6, 04 §17.5)."""
    if account.app == "Blynk":
        return
    for owner in server.accounts.values():
        face = next((a for a in owner.apps_made if a.get("id") == account.app), None)
        if face is None or face.get("isMultiFace"):
            continue
        source = owner.projects.get(next(iter(face.get("projectIds", ())), -1))
        if source is None:
            return
        document = public_view(source.document)
        document = read_document("PROJECT", {**document, "id": 1}, lenient=True)
        now_ms = server.loop.now_ms
        document.update(isActive=True, createdAt=now_ms, updatedAt=now_ms)
        assigned = {w.get("deviceId", 0) for w in document.get("widgets", ()) if widget_type(w).base in "SRM"}
        set_or_drop(document, "devices", [d for d in document.get("devices", ()) if d["id"] in assigned])
        for widget in document.get("widgets", ()):
            erase_widget(widget)
        server.add_project(account, document, tokens=face["provisionType"] == "DYNAMIC", charge=False)
        return


def clone_of(project: Project) -> Document:
    """What a clone code stands for: no secrets, no values."""
    document = public_view(project.document)
    for widget in document.get("widgets", ()):
        erase_widget(widget)
    return document


def valid_clone_token(text: str) -> bool:
    """Clone tokens become file names: exactly 32 characters of the token alphabet."""
    return len(text) == 32 and text.isascii() and all(c.isalnum() or c in "-_" for c in text)


@app(Command.GET_CLONE_CODE)
def on_clone_code(session: AppSession, id: int, body: bytes) -> None:
    project = session.project_of(body.decode("utf-8", "replace"))
    session.wait()

    def kept(token: Optional[str]) -> None:
        if token is None:
            session.status(id, Status.SERVER_ERROR)
        else:
            session.send(Command.GET_CLONE_CODE, id, token.encode())
        session.proceed()

    session.server.keep_clone(clone_of(project), kept)


@app(Command.GET_PROJECT_BY_CLONE_CODE)
def on_project_by_clone_code(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`code` shows the project, `code\\0new` makes one of it (spec 03b §8.7)."""
    token, *new = words_of(body, 1)
    if not valid_clone_token(token):
        return Status.SERVER_ERROR
    session.wait()

    def found(text: Optional[str]) -> None:
        if text is None:
            session.status(id, Status.SERVER_ERROR)
        elif not new:
            session.send(Command.GET_PROJECT_BY_CLONE_CODE, id, zlib.compress(encode(text)))
        else:
            session.dispatch(lambda s, i, b: project_from_clone(s, text), Command.GET_PROJECT_BY_CLONE_CODE, id, b"")
        session.proceed()

    session.server.find_clone(token, found)
    return None


def project_from_clone(session: AppSession, text: str) -> Any:
    server, account = session.server, session.owner
    try:
        document = read_document("PROJECT", text, lenient=True)
    except DocumentError:
        return Status.SERVER_ERROR
    if len(account.projects) >= server.settings.limits_dashboards:
        return Status.QUOTA_LIMIT
    document.update(id=free_project_id(account), isPreview=False, parentId=-1, isShared=False)
    project = server.add_project(account, document)
    return pack_json(project.document)


def free_project_id(account: Account) -> int:
    """One more than the highest, as long as that fits 32 bits; else the lowest that is free."""
    highest: int = max(account.projects, default=0)
    if highest < (1 << 31) - 1:
        return highest + 1
    return next(i for i in range(1, len(account.projects) + 2) if i not in account.projects)


@app(Command.GET_PROJECT_BY_TOKEN)
def on_project_by_token(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """A published project by a flashed token: needs the database (spec 03b §8.5)."""
    return published_project(session, id, Command.GET_PROJECT_BY_TOKEN, body.decode("utf-8", "replace"))


def published_project(
    session: AppSession, id: int, command: int, token: str, unknown: Optional[int] = Status.NOT_ALLOWED
) -> Optional[int]:
    """The project a flashed token was made for, without secrets and values; `unknown` answers for an unknown token."""
    server = session.server

    def found(row: Optional[Document]) -> None:
        if row is None and unknown is None:
            return
        owner = next((a for a in server.accounts.values() if row is not None and a.email == row["email"]), None)
        project = owner.projects.get(row["project"]) if owner is not None and row is not None else None
        if project is None:
            session.status(id, Status.NOT_ALLOWED)
        else:
            session.send(command, id, pack_json(clone_of(project)))

    if server.database is None or not server.database.find_flashed(token, found):
        return unknown
    return None


# -- 11i Mail that the app asks for (spec 03a §2.9, 03b §7) ------------------------------------------------------------


def answer_mail(session: AppSession, id: int, failed: int = Status.NOTIFICATION_ERROR) -> Callable[[bool], object]:
    """done(ok) for the messengers: OK, or `failed`."""

    def done(ok: bool) -> None:
        if not session.gone:
            session.status(id, OK if ok else failed)

    return done


@app(Command.EMAIL)
def on_mail_tokens(session: AppSession, id: int, body: bytes) -> None:
    """The tokens of a project or device, or a template id, to the account's own address (spec 03b §7.1)."""
    words = words_of(body, 1)
    if words[0] == "template":
        return mail_template_id(session, id, words)
    project = session.project_of(words[0])
    devices = list(project.devices.values())
    if len(words) == 2:
        device = project.devices.get(parse_int(words[1]))
        devices = [device] if device is not None else []
        if device is None or not device.token:
            raise Refused(Status.ILLEGAL_COMMAND_BODY)
    name = project.name or "New Project"
    if len(devices) == 1:
        if not devices[0].token:
            raise Refused(Status.ILLEGAL_COMMAND_BODY)
        subject = f"Auth Token for {name} project and device {devices[0].name or 'New Device'}"
        text = f"Auth Token : {devices[0].token}\n"
    else:
        subject = f"Auth Tokens for {name} project and {len(devices)} devices"
        text = "".join(f"Auth Token for device '{d.name or 'New Device'}' : {d.token or ''}\n" for d in devices)
    messengers, account = session.server.messengers, session.owner
    text += messengers.text("single_token_mail_body.txt", {})
    messengers.mail(account.email, subject, text, done=answer_mail(session, id), account=account)
    return None


def mail_template_id(session: AppSession, id: int, words: list[str]) -> None:
    """`template\\0dash\\0tiles\\0template`."""
    if len(words) < 4:
        raise Refused(Status.ILLEGAL_COMMAND)
    project = session.project_of(words[1])
    tiles_id, template_id = parse_int(words[2], 64), parse_int(words[3], 64)
    tiles = next((w for w in project.widgets if w["id"] == tiles_id and w["type"] == "DEVICE_TILES"), None)
    templates = tiles.get("templates", ()) if tiles is not None else ()
    template = next((t for t in templates if t["id"] == template_id), None)
    if template is None:
        raise Refused(Status.ILLEGAL_COMMAND)
    messengers, account = session.server.messengers, session.owner
    values = {"template_name": template.get("name", ""), "template_id": template.get("templateId", "")}
    text = messengers.text("template_id_mail.html", values)
    subject = f"Template ID for {values['template_name']}"
    messengers.mail(account.email, subject, text, True, done=answer_mail(session, id), account=account)


@app(Command.EMAIL_QR)
def on_mail_qr(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dash\\0app`: tokens for the devices of an app of one's own, as QR codes (spec 03b §7.2). Needs the database,
    which knows the tokens that were flashed."""
    words = words_of(body, 2)
    project, account, server = session.project_of(words[0]), session.owner, session.server
    made = next((a for a in account.apps_made if a.get("id") == words[1]), None)
    static = made is not None and made.get("provisionType") == "STATIC"
    if made is None or static and not project.devices:
        return Status.ILLEGAL_COMMAND_BODY
    if server.database is None or not server.messengers.mailer.ready():
        return Status.NOTIFICATION_ERROR
    names = {d.id: d.name or "New Device" for d in project.devices.values()} if static else {-1: ""}
    tokens = {device_id: new_token() for device_id in names}

    def stored(ok: bool) -> None:
        if not ok:
            answer_mail(session, id)(False)
            return
        pictures = []
        for device_id, token in tokens.items():
            picture = qr_png(token)
            if picture is not None:
                pictures.append((f"{token}_{project.id}_{device_id}.png", "image/png", picture))
        table = "".join(f"{token},{device_id},{project.id}\n" for device_id, token in tokens.items())
        pictures.append(("tokens.csv", "text/csv", table.encode()))
        which = "static" if static else "dynamic"
        lines = "".join(f"<br>{escape_html(names[i])}: {token}" for i, token in tokens.items()) if static else ""
        values = {"project_name": project.name or "New Project"}
        text = server.messengers.text(f"{which}_provisioning_mail.html", values, {"DYNAMIC_SECTION": lines})
        subject = f"{made.get('name', '')} - App details"
        server.messengers.mail(
            account.email, subject, text, True, pictures, done=answer_mail(session, id), account=account
        )

    rows = [(token, words[1], account.email, project.id, device_id) for device_id, token in tokens.items()]
    if not server.database.insert_flashed(rows, stored):
        return Status.NOTIFICATION_ERROR
    return None


# -- a forgotten password (spec 03a §2.9) ------------------------------------------------------------------------------


@app(Command.RESET_PASSWORD, before_login=True)
def on_reset_password(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`start\\0email\\0app`, `verify\\0token`, `reset\\0token\\0hash`; anything else is not answered."""
    words = full_split(body.decode("utf-8", "replace"))
    step = RESET_STEPS.get(words[0] if words else "")
    return step(session, id, words) if step is not None else None


def start_reset(session: AppSession, id: int, words: list[str]) -> Optional[int]:
    """Mails a link with a token that is good for 45 minutes. Without mail the administrator reads it in the log."""
    if len(words) < 3:
        return Status.ILLEGAL_COMMAND
    server, email = session.server, words[1].strip().lower()
    account = server.account(email, words[2]) if valid_email(email) else None
    if account is None:
        return Status.ILLEGAL_COMMAND
    tokens = server.reset_tokens
    waiting = any(entry[:2] == (email, words[2]) for entry in tokens.pool.values())
    token = tokens.new(email, words[2])  # forgets those that are too old
    if token is None:
        return Status.NOT_ALLOWED
    if waiting:
        tokens.drop(token)
        return Status.NOT_ALLOWED
    messengers, settings = server.messengers, server.settings
    if not messengers.mailer.ready():
        log.warning(f"{email} asks to reset the password of app {words[2]}; mail is not set up. The code is {token}")
        return OK
    query = f"restore?token={token}&email={percent(email)}"
    url = f"http://{settings.server_restore_host or server.host}/restore?token={token}&email={email}"
    picture = qr_png(f"{words[2].lower()}://{query}")
    pictures = [("resetPassQr.png", "image/png", picture)] if picture is not None else []
    text = messengers.text("static/reset/reset-email-app.html", {"EMAIL": email}, {"RESET_URL": url})
    subject = f"Password restoration for your {settings.server_product_name} account."
    answer = answer_mail(session, id, Status.SERVER_ERROR)

    def done(ok: bool) -> None:
        if not ok:
            server.reset_tokens.drop(token)
        answer(ok)

    messengers.mail(email, subject, text, True, pictures, done=done, account=account)
    return None


def verify_reset(session: AppSession, _id: int, words: list[str]) -> int:
    if len(words) < 2:
        return Status.ILLEGAL_COMMAND
    return OK if session.server.reset_tokens.find(words[1]) is not None else Status.NOT_ALLOWED


def finish_reset(session: AppSession, id: int, words: list[str]) -> Optional[int]:
    """Sets the new password (a hash, as the app makes it); who is logged in stays so."""
    if len(words) < 3:
        return Status.ILLEGAL_COMMAND
    server = session.server
    found = server.reset_tokens.find(words[1])
    if found is None:
        return Status.NOT_ALLOWED
    account = server.account(*found)
    if account is None:
        return Status.SERVER_ERROR
    server.reset_tokens.drop(words[1])
    session.wait()

    def done() -> None:
        if not session.gone:
            session.status(id, OK)
        session.proceed()
        confirm_reset(server, account)

    server.set_password(account, words[2], done)
    return None


def confirm_reset(server: Server, account: Account) -> None:
    """Tells the owner that the password is a new one."""
    messengers, product = server.messengers, server.settings.server_product_name
    if messengers.mailer.ready():
        text = messengers.text("static/reset/reset-email-app-confirmation.html", {"EMAIL": account.email})
        messengers.mail(account.email, f"Your new password on {product}", text, True, account=account)


RESET_STEPS: dict[str, Callable[[AppSession, int, list[str]], Optional[int]]] = {
    "start": start_reset,
    "verify": verify_reset,
    "reset": finish_reset,
}


# -- 11j Graphs and reports (spec 03b §9, §10, §5.1) -------------------------------------------------------------------


def graph_of(session: AppSession, words: list[str]) -> tuple[Project, Document, Optional[int]]:
    """Project, graph and target of `dashId[-targetId]\\0widgetId`. Errors: ValueError, Refused."""
    dash, target = split_target(words[0])
    project = session.project_of(dash)
    widget = project.widget(parse_int(words[1], 64))
    if widget is None or widget["type"] != "ENHANCED_GRAPH":
        raise Refused(Status.ILLEGAL_COMMAND)
    override = parse_int(target) if target is not None else -1
    return project, widget, override if override != -1 else None


def answer_history(
    session: AppSession, command: int, id: int, failed: int
) -> Callable[[Any, Optional[Exception]], object]:
    """done(result, error) for a worker: bytes are the reply, None is NO_DATA, anything else OK; errors are `failed`."""

    def done(result: Any, problem: Optional[Exception]) -> None:
        if problem is not None:
            log.error(f"command {command} of {session.owner.email}: {problem}")
            session.status(id, failed)
        elif isinstance(result, bytes):
            session.send(command, id, result)
        else:
            session.status(id, OK if result is not None else Status.NO_DATA)

    return done


@app(Command.GET_ENHANCED_GRAPH_DATA, shared=True)
def on_graph(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dashId[-targetId]\\0widgetId\\0PERIOD[\\0page]` → zlib of the records (spec 03b §9.1)."""
    words = words_of(body, 3)
    project, widget, target = graph_of(session, words)
    if not widget.get("dataStreams"):
        return Status.NO_DATA
    page = max(parse_int(words[3]), 0) if len(words) == 4 else 0
    if words[2] not in GRAPH_PERIODS:
        return Status.ILLEGAL_COMMAND
    server = session.server
    plan = server.history.graph_plan(project, widget, target, words[2], page)
    done = answer_history(session, Command.GET_ENHANCED_GRAPH_DATA, id, Status.SERVER_ERROR)
    return None if server.loop.submit("disk", graph_bytes, project.id, plan, done=done) else Status.SERVER_ERROR


@app(Command.DELETE_ENHANCED_GRAPH_DATA)
def on_delete_graph(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dashId[-targetId]\\0widgetId[\\0streamIndex]`: what the graph shows is deleted, or one stream of it
    (spec 03b §9.2)."""
    words = words_of(body, 2, split3)
    project, widget, target = graph_of(session, words)
    streams = widget.get("dataStreams", [])
    if len(words) == 3 and words[2].isascii() and words[2].isdigit() and int(words[2]) < len(streams):
        streams = [streams[int(words[2])]]
    chosen_pins = []
    for stream in streams:
        name = stream_pin(stream.get("pin"))
        devices = project.selected(stream.get("targetId", 0) if target is None else target)
        if not name:
            continue
        if not devices:
            raise Refused(Status.ILLEGAL_COMMAND)
        chosen_pins.append((devices[0].id, name))
    return delete_pins(session, id, project, chosen_pins)


def delete_pins(session: AppSession, id: int, project: Project, pins: list[tuple[int, str]]) -> Optional[int]:
    """Deletes the history of (device, "v5") pairs, then answers OK."""
    if not pins:
        return OK
    device_id, name = pins[-1]
    history, folder = session.server.history, session.owner.folder_name
    for other, other_name in pins[:-1]:
        if not history.delete(folder, project.id, other, [other_name]):
            return Status.SERVER_ERROR
    done = answer_history(session, Command.DELETE_ENHANCED_GRAPH_DATA, id, Status.ILLEGAL_COMMAND)
    return None if history.delete(folder, project.id, device_id, [name], done) else Status.SERVER_ERROR


@app(Command.DELETE_DEVICE_DATA, shared=True)
def on_delete_device_data(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dashId-deviceId[\\0v4\\0a7…]` or `dashId-*` (spec 03b §5.1)."""
    words = words_of(body, 1)
    dash, device = split_target(words[0])
    project = session.project_of(dash)
    if session.share is not None:
        report = project.find("REPORT")
        if report is None:
            return Status.ILLEGAL_COMMAND
        if not report.get("allowEndUserToDeleteDataOn"):
            return Status.NOT_ALLOWED
    if device is None:
        return Status.ILLEGAL_COMMAND
    device_id = None if device == "*" else parse_int(device)
    pins = None
    if len(words) > 1 and device_id is not None:
        pins = [f"{word[:1].lower()}{parse_pin(word[1:])}" for word in words[1:]]
        if not all(pin[0] in PIN_TYPES for pin in pins):
            return Status.ILLEGAL_COMMAND
    done = answer_history(session, Command.DELETE_DEVICE_DATA, id, Status.ILLEGAL_COMMAND)
    history = session.server.history
    folder = session.owner.folder_name
    return None if history.delete(folder, project.id, device_id, pins, done) else Status.SERVER_ERROR


@app(Command.EXPORT_GRAPH_DATA)
def on_export_graph(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dashId[-targetId]\\0widgetId` → a mail with links to the graph's CSV files (spec 05 §7.1)."""
    project, widget, target = graph_of(session, words_of(body, 2))
    server, account = session.server, session.owner
    jobs = []
    for stream in widget.get("dataStreams", ()):
        name = stream_pin(stream.get("pin"))
        own = stream.get("targetId", 0) if target is None else target
        if name and (ids := export_ids(project, own)):
            device = project.devices.get(own)
            jobs.append((own, ids, name, (device.name if device is not None else None) or project.name or ""))
    title = f"History graph data for project {project.name or ''}"

    def export() -> Optional[list[str]]:
        links = []
        for own, ids, name, owner in jobs:
            try:
                file = server.history.export_csv(account.email, account.folder_name, project.id, own, ids, name)
            except OSError as problem:
                log.error(f"export of {name} of {account.email}: {problem.strerror}: {problem.filename}")
                continue
            if file is not None:
                links.append(f'<a href="{download_url(server, file)}">{escape_html(owner)} {name}</a><br>')
        return links or None

    def done(links: Optional[list[str]], problem: Optional[Exception]) -> None:
        if problem is not None or links is None:
            session.status(id, Status.NOTIFICATION_ERROR if problem is not None else Status.NO_DATA)
            return
        text = f"<html><body>{''.join(links)}</body></html>"
        server.messengers.mail(account.email, title, text, True, done=answer_mail(session, id), account=account)

    return None if server.loop.submit("net", export, done=done) else Status.NOTIFICATION_ERROR


def export_ids(project: Project, target: int) -> list[int]:
    """The devices a graph export covers: one, or all of a selector; tags are not expanded."""
    if target < FIRST_TAG_ID:
        return [target] if target in project.devices else []
    if target < FIRST_SELECTOR_ID:
        return []
    selector = project.widget(target)
    return list(selector.get("deviceIds", ())) if selector is not None else []


# -- reports -----------------------------------------------------------------------------------------------------------


def report_widget(session: AppSession, text: str) -> tuple[Project, Document]:
    """A project and its REPORT widget. Errors: ValueError, Refused(ILLEGAL_COMMAND)."""
    project = session.project_of(text)
    widget = project.find("REPORT")
    if widget is None:
        raise Refused(Status.ILLEGAL_COMMAND)
    return project, widget


def planned_report(session: AppSession, report: Document) -> Document:
    """A report that was sent, checked and with its next run (spec 03b §10). Errors: Refused(ILLEGAL_COMMAND),
    DocumentError when it is over already."""
    if not valid_report(report):
        raise Refused(Status.ILLEGAL_COMMAND)
    if is_periodic(report):
        try:
            report["nextReportAt"] = next_run(report, session.server.loop.now_ms)
        except OverflowError as problem:
            raise DocumentError(str(problem)) from None
    return report


def keep_reports(project: Project, widget: Document, reports: list[Document]) -> None:
    set_or_drop(widget, "reports", reports)
    project.modified()
    project.account.modified()


@app(Command.CREATE_REPORT)
def on_create_report(session: AppSession, id: int, body: bytes) -> str:
    """`dashId\\0reportJson` → the report as it is kept."""
    server, words = session.server, words_of(body, 2, split2)
    if not words[1]:
        raise Refused(Status.ILLEGAL_COMMAND)
    project, widget = report_widget(session, words[0])
    reports = widget.get("reports", [])
    if len(reports) >= server.settings.limits_reports:
        raise Refused(Status.ILLEGAL_COMMAND)
    report = read_document("REPORT", words[1])
    if any(other["id"] == report["id"] for other in reports):
        raise Refused(Status.ILLEGAL_COMMAND)
    server.charge(session.owner, REPORT_PRICE)
    try:
        planned_report(session, report)
    except (Refused, DocumentError):
        server.refund(session.owner, REPORT_PRICE)
        raise
    keep_reports(project, widget, [*reports, report])
    if is_periodic(report) and report["isActive"]:
        server.reports.schedule(project, report, server.loop.now_ms)
    return to_json(report)


@app(Command.UPDATE_REPORT)
def on_update_report(session: AppSession, id: int, body: bytes) -> str:
    """`dashId\\0reportJson`: the report of that id is replaced and planned anew."""
    server, words = session.server, words_of(body, 2, split2)
    if not words[1]:
        raise Refused(Status.ILLEGAL_COMMAND)
    project, widget = report_widget(session, words[0])
    report = read_document("REPORT", words[1])
    reports = widget.get("reports", [])
    if find_report(project, report["id"]) is None:
        raise Refused(Status.ILLEGAL_COMMAND)
    planned_report(session, report)
    server.reports.cancel(project, report["id"])
    if report.get("lastRunResult") == "EXPIRED":
        del report["lastRunResult"]
    keep_reports(project, widget, [report if other["id"] == report["id"] else other for other in reports])
    if is_periodic(report) and report["isActive"]:
        server.reports.schedule(project, report, server.loop.now_ms)
    return to_json(report)


@app(Command.DELETE_REPORT)
def on_delete_report(session: AppSession, id: int, body: bytes) -> int:
    """`dashId\\0reportId`; its price comes back."""
    words = words_of(body, 2, split2)
    project, widget = report_widget(session, words[0])
    report_id = parse_int(words[1])
    if find_report(project, report_id) is None:
        return Status.ILLEGAL_COMMAND
    session.server.reports.cancel(project, report_id)
    keep_reports(project, widget, [report for report in widget["reports"] if report["id"] != report_id])
    session.server.refund(session.owner, REPORT_PRICE)
    return OK


@app(Command.EXPORT_REPORT)
def on_export_report(session: AppSession, id: int, body: bytes) -> Optional[int]:
    """`dashId\\0reportId`: makes the report now, once a minute at most → the report with its result."""
    server, words = session.server, words_of(body, 2, split2)
    project, _ = report_widget(session, words[0])
    report = find_report(project, parse_int(words[1]))
    if report is None or not valid_report(report):
        return Status.ILLEGAL_COMMAND
    if report["lastReportAt"] + REPORT_PAUSE_MS > server.loop.now_ms or server.reports.waits(project, report["id"]):
        return Status.QUOTA_LIMIT

    def done(made: Optional[Document]) -> None:
        if made is None:
            session.status(id, Status.ILLEGAL_COMMAND)
        else:
            session.send(Command.EXPORT_REPORT, id, encode(to_json(made)))

    server.reports.run(project, report["id"], done)
    return None


# ======================================================================================================================
# 12. Web
# ======================================================================================================================
# Everything behind an HTTP request line, on both ports (spec 06): requests in, routed one by one, answered in order.
# 12a connections, routes, WebSockets; 12b the REST interface of devices; 12c pages and files; 12d administration;
# 12e firmware; 12f the MQTT port. Handlers are `handler(connection, request) -> WebReply`, or LATER when a worker must
# be waited for, who then calls connection.answer(reply). Knows the hub and the model; never waits.

HTTP_HEAD_SECONDS = 30.0  # to send the head of a request, from its first byte (spec 06 §1.1)
HTTP_IDLE_GRACE = 5.0  # a client that uses a connection again after just that time must not find it closed
HTTP_BODY_SECONDS = 30.0  # to send a body, plus what its length takes at HTTP_BODY_RATE
HTTP_BODY_RATE = 4096  # bytes a second: half of what the slowest modem does
HTTP_LINGER_SECONDS = 1.0  # after a refusal what still comes is thrown away, or the answer would be lost with a reset
HTTP_BODIES_LIMIT = 16 << 20  # bytes of unfinished bodies all connections together may hold
HTTP_PIPELINE_LIMIT = 65_536  # bytes of further requests that may wait while one is being answered

JSON_TYPE = "application/json;charset=utf-8"
TEXT_TYPE = "text/plain;charset=utf-8"
HTML_TYPE = "text/html;charset=utf-8"

# What a page may do: nothing from elsewhere, no script in the page itself. Pictures and videos of widgets may come from
# anywhere, and the app speaks to its server by WebSocket.
PAGE_POLICY = (
    b"content-security-policy: default-src 'self'; img-src * data: blob:; media-src * data: blob:; "
    b"connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'\r\n"
    b"x-frame-options: DENY\r\nreferrer-policy: same-origin\r\n"
)
CORS_FIELDS = (
    b"access-control-allow-methods: GET, PUT, POST, DELETE, OPTIONS\r\n"
    b"access-control-allow-headers: content-type\r\naccess-control-max-age: 3600\r\n"
)
NO_STORE = b"cache-control: no-store\r\n"
HTTP_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HTTP_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# What a path may hold (spec 06 §1.6); anything else matches no route.
PATH_CHARACTERS = b"/0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_%-.~!$&'()*+,;=:[]@"
KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


def http_date(seconds: float) -> str:
    """Seconds since 1970 -> "Sun, 06 Nov 1994 08:49:37 GMT", whatever the locale."""
    t = time.gmtime(seconds)
    day, month = HTTP_DAYS[t.tm_wday], HTTP_MONTHS[t.tm_mon - 1]
    return f"{day}, {t.tm_mday:02} {month} {t.tm_year} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"


class WebReply:
    """An answer. kind: content type, "" for none; fields: further header lines, each with its line end; shared: any
    page on the web may read it; file: (open binary file, bytes to send) instead of a body."""

    __slots__ = ("status", "kind", "body", "fields", "shared", "file")

    def __init__(
        self, status: int, kind: str = "", body: bytes = b"", fields: bytes = b"", shared: bool = True
    ) -> None:
        self.status, self.kind, self.body, self.fields, self.shared = status, kind, body, fields, shared
        self.file: Optional[tuple[Any, int]] = None


class WebRefusal(Exception):
    """A handler ends here: `reply` is the answer."""

    def __init__(self, reply: WebReply) -> None:
        self.reply = reply


def web_text(status: int, text: str) -> WebReply:
    return WebReply(status, TEXT_TYPE, encode(text))


def web_json(text: str, shared: bool = True) -> WebReply:
    """200 with a JSON text; what is not `shared` is never kept by a cache."""
    return WebReply(200, JSON_TYPE, encode(text), b"" if shared else NO_STORE, shared)


def redirect(location: str, status: int = 301, fields: bytes = b"") -> WebReply:
    return WebReply(status, "", b"", http_field("location", location) + fields)


OK_REPLY = WebReply(200)
PREFLIGHT = WebReply(204, "", b"", CORS_FIELDS)
NOT_FOUND = WebReply(404)
BROKEN = WebReply(500, TEXT_TYPE)
LATER = WebReply(0)  # the handler will call connection.answer()
HANG_UP = WebReply(0)  # the connection is closed without a word


class WebRoute:
    """kind "device" (REST, any page may read it, a wrong method is 404), "page" or "admin"; streams: the handler is
    called with the head and gives an object with write(bytes), end() -> WebReply, abort()."""

    __slots__ = ("methods", "pattern", "kind", "where", "streams", "handler")

    def __init__(
        self, methods: str, pattern: str, kind: str, where: str, streams: bool, handler: Callable[..., Any]
    ) -> None:
        self.methods = tuple(methods.split())
        self.pattern, self.kind, self.where, self.streams, self.handler = pattern, kind, where, streams, handler


WEB_ROUTES: list[WebRoute] = []


def web_route(
    methods: str, pattern: str, kind: str = "page", where: str = "both", streams: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers handler(connection, request). pattern: "/a/{x}/b", each {…} becomes one of request.arguments; kind
    "admin": below the admin path, TLS only, for allowed addresses. where: "both", "plain" or "tls"."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        WEB_ROUTES.append(WebRoute(methods, pattern, kind, where, streams, handler))
        return handler

    return register


class RouteNode:
    __slots__ = ("words", "any", "routes")

    def __init__(self) -> None:
        self.words: dict[str, RouteNode] = {}
        self.any: Optional[RouteNode] = None
        self.routes: list[WebRoute] = []

    def add(self, segments: list[str], route: WebRoute) -> None:
        node = self
        for segment in segments:
            if segment[:1] == "{":
                node.any = node.any or RouteNode()
                node = node.any
            else:
                node = node.words.setdefault(segment, RouteNode())
        node.routes.append(route)

    def find(
        self, segments: list[str], at: int = 0, arguments: tuple[str, ...] = ()
    ) -> tuple[list[WebRoute], tuple[str, ...]]:
        """The routes of a path and its arguments; a word goes before {…}."""
        if at == len(segments):
            return self.routes, arguments
        segment = segments[at]
        node = self.words.get(segment)
        if node is not None:
            found = node.find(segments, at + 1, arguments)
            if found[0] or self.any is None:
                return found
        if self.any is not None and segment:
            return self.any.find(segments, at + 1, (*arguments, segment))
        return [], ()


class Web:
    """What the connections share: routes, heads of answers for this second, sizes. One per server."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.loop = server.loop
        self.admin_path = server.settings.admin_path.rstrip("/") or "/admin"
        self.plain, self.tls = RouteNode(), RouteNode()
        for route in WEB_ROUTES:
            pattern = (self.admin_path if route.kind == "admin" else "") + route.pattern
            segments = (pattern.rstrip("/") if route.kind == "admin" else pattern)[1:].split("/")
            if route.where != "plain":
                self.tls.add(segments, route)
            if route.where != "tls" and route.kind != "admin":
                self.plain.add(segments, route)
        self.special = ("/static", "/websocket", "/.well-known/", self.admin_path)
        self.heads: dict[tuple[int, str, bool, bool], bytes] = {}
        self.heads_second = 0
        self.bodies = 0  # bytes of unfinished bodies
        self.reset_tokens = ResetTokens(server)
        self.ota = Ota(server)
        self.admin = Admin(server)

    def start(self) -> None:
        """Called when the store is loaded. What a kill left of uploads and back-ups goes."""
        self.reset_tokens.load()
        store = self.server.store
        for folder in (store.folder, store.path(*OTA_FOLDER)):
            for name in list_folder(folder):
                if name.startswith((".backup-", ".upload-")):
                    remove_file(os.path.join(folder, name))

    def stop(self) -> None:
        """Called before the store closes."""
        self.reset_tokens.save()

    def find(self, request: HttpRequest, stream: Any) -> WebRoute:
        """The route of a request (spec 06 §1.5), for every request anew. Raises WebRefusal when there is none."""
        path, method, secure = request.path, request.method, stream.secure
        if path.startswith(self.special) or path.endswith((".gz", ".zip")) or path == "/dashws":
            route = self._special(request, path, stream)
            if route is not None:
                return route
        if method not in KNOWN_METHODS:
            raise WebRefusal(WebReply(501))
        if path.encode("latin-1").translate(None, PATH_CHARACTERS):
            raise WebRefusal(NOT_FOUND)
        routes, request.arguments = (self.tls if secure else self.plain).find(path[1:].split("/"))
        wanted = "GET" if method == "HEAD" else method
        for route in routes:
            if wanted in route.methods:
                return route
        if not routes:
            return self._page(request)
        raise WebRefusal(self._no_method(routes, method))

    def _special(self, request: HttpRequest, path: str, stream: Any) -> Optional[WebRoute]:
        if path.startswith("/websocket") or path == "/dashws":
            return WEBSOCKET_ROUTE
        admin = self.admin_path
        if stream.secure and path.startswith(admin) and path[len(admin) : len(admin) + 1] in ("", "/"):
            if not address_in(stream.peer, self.server.settings.admin_allowed_ips):
                log.warning(f"{stream.peer} may not open the admin page: admin.allowed_ips")
                raise WebRefusal(HANG_UP)
            return None
        if path.startswith("/.well-known/"):
            return None
        if path.startswith("/static") or path.endswith((".gz", ".zip")):
            return FILE_ROUTE if request.method in ("GET", "HEAD") else METHOD_ROUTE
        return None

    def _page(self, request: HttpRequest) -> WebRoute:
        """No route: a file of the browser app, or nothing."""
        last = request.path.rpartition("/")[2]
        if request.method in ("GET", "HEAD") and last.rpartition(".")[2] in WEB_ENDINGS:
            return WEB_FILE_ROUTE
        if request.method == "OPTIONS" and request.target == "*":
            raise WebRefusal(WebReply(204, "", b"", b"allow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n"))
        raise WebRefusal(NOT_FOUND)

    @staticmethod
    def _no_method(routes: list[WebRoute], method: str) -> WebReply:
        """The path is known, the method is not: 404 where the Java server had it so, 405 on pages (spec 06 §1.6)."""
        if routes[0].kind == "device":
            return PREFLIGHT if method == "OPTIONS" else NOT_FOUND
        if routes[0].kind == "admin":
            return NOT_FOUND
        allowed = ", ".join([*(m for route in routes for m in route.methods), "OPTIONS"])
        return WebReply(204 if method == "OPTIONS" else 405, "", b"", http_field("allow", allowed))

    def head(self, reply: WebReply, keep_alive: bool) -> bytes:
        """The header of an answer without its length; made once a second for each kind."""
        second = self.loop.now_ms // 1000
        if second != self.heads_second:
            self.heads_second = second
            self.heads.clear()
        key = (reply.status, reply.kind, keep_alive, reply.shared)
        head = self.heads.get(key)
        if head is None:
            head = http_status_line(reply.status) + (
                b"connection: keep-alive\r\n" if keep_alive else b"connection: close\r\n"
            )
            if reply.kind:
                head += http_field("content-type", reply.kind) + b"x-content-type-options: nosniff\r\n"
            if reply.shared:
                head += b"access-control-allow-origin: *\r\n"
            head += http_field("date", http_date(second)) + b"server: blynk-pi\r\n"
            self.heads[key] = head
        return head


class HttpConnection:
    """One HTTP client. Requests are answered in their order; while one waits for a worker the next ones wait."""

    __slots__ = (
        "server", "web", "stream", "parser", "request", "route", "refusal", "sink", "parts", "held", "busy", "skipping",
        "ending", "ended_by_peer", "sending", "timer", "waits_for", "early",
    )  # fmt: skip

    def __init__(self, server: Any, stream: Any) -> None:
        self.server, self.stream = server, stream
        self.web: Web = server.web
        self.parser = HttpParser(max_body=server.settings.http_max_request_size)
        self.request: Any = None
        self.route: Any = None  # None: `refusal` is the answer, once the body has been read
        self.refusal: Any = None
        self.sink: Any = None  # takes the body of the request when it goes to disk
        self.parts: list[bytes] = []  # the body so far
        self.held = 0  # bytes of it
        self.busy = False  # a handler said LATER, or a file is being sent
        self.skipping = False  # the body was refused and is thrown away
        self.ending = False  # answered, closing: what comes is thrown away
        self.ended_by_peer = False
        self.sending = False  # a file
        self.timer: Any = None
        self.waits_for = ""
        self.early: Optional[WebReply] = None  # the answer of a handler that had it before it could say LATER
        stream.protocol = self
        stream.set_idle(server.settings.timeouts_http_idle_s + HTTP_IDLE_GRACE)

    # -- what the stream calls ---------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self.ending:
            return
        self.parser.feed(data)
        if not self.busy:
            self._advance()
        if len(self.parser.buffer) > HTTP_PIPELINE_LIMIT and self.stream is not None:
            self.stream.pause()

    def ended(self) -> bool:
        """The client will send nothing more; True when it still waits for an answer."""
        self.ended_by_peer = True
        return self.busy or self.stream.pending() > 0

    def closed(self) -> None:
        self._wait_for("")
        self._drop_body()
        self.ending = True
        self.stream = None

    def drained(self) -> None:
        if self.sending:
            self.sending = self.busy = False
            if self.ending or self.ended_by_peer:
                self.stream.close()
                return
            self._resume()
        elif self.ended_by_peer and not self.busy:
            self.stream.close()
        elif self.parser.buffer and not self.busy and not self.ending:
            self.stream.resume()
            self._advance()

    # -- requests ----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Takes what has come as far as it goes."""
        try:
            while not self.busy and not self.ending and not self.stream.congested:
                if self.skipping:
                    if not self.parser.skip_body():
                        break
                    self.skipping = False
                event = self.parser.next()
                if event is None:
                    break
                if type(event) is bytes:
                    self._body(event)
                else:
                    self._request(event)
        except HttpError as problem:
            self._fail(problem)
        if not self.ending:
            self._watch()

    def _request(self, request: Any) -> None:
        self._wait_for("")
        self.request = request
        web = self.web
        try:
            route: Any = web.find(request, self.stream)
            self.route = route
        except WebRefusal as answer:
            route = self.route = None
            self.refusal = answer.reply
            if answer.reply is HANG_UP:
                self._send(HANG_UP)
                return
        streams = route is not None and route.streams
        if not request.length and not streams:
            self._dispatch()
            return
        settings = self.server.settings
        limit = settings.http_upload_max_size if streams else settings.http_max_request_size
        self.parser.max_body = limit
        if request.length > limit or web.bodies > HTTP_BODIES_LIMIT:
            self._refuse_body(413 if request.length > limit else 503)
            return
        if streams:
            self._open_sink()
            if self.sink is None:
                return
            if not request.length:
                self._dispatch()
                return
        if request.expects_continue and not self.parser.buffer:
            self.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _open_sink(self) -> None:
        reply = self._call(self.route.handler)
        if not isinstance(reply, WebReply):
            self.sink = reply
        elif reply is HANG_UP or self.request.expects_continue:
            self.request.keep_alive = False
            self._send(reply)
            self._linger()
        else:
            self._send(reply)  # refused before its body: read over it, so that the client sees why
            self.skipping = self.parser.in_body

    def _refuse_body(self, status: int) -> None:
        """Too long: said at once; the body is read over, so that the client sees the answer and not a reset."""
        if self.request.expects_continue or not self.request.keep_alive or self.request.length < 0:
            self.request.keep_alive = False
            self._send(WebReply(status))
            self._linger()
        else:
            self._send(WebReply(status))
            self.skipping = True

    def _body(self, piece: bytes) -> None:
        if not piece:
            self._dispatch()
        elif self.sink is not None:
            self.sink.write(piece)
        elif self.route is not None:
            self.parts.append(piece)
            self.held += len(piece)
            self.web.bodies += len(piece)

    def _drop_body(self) -> None:
        self.web.bodies -= self.held
        self.held = 0
        self.parts = []
        if self.sink is not None:
            self.sink.abort()
            self.sink = None

    def _dispatch(self) -> None:
        """The request is whole."""
        if self.route is None:
            reply: Any = self.refusal
        elif self.sink is not None:
            sink, self.sink = self.sink, None
            reply = self._call(lambda connection, request: sink.end())
        else:
            if self.parts:
                self.request.body = b"".join(self.parts)
                self._drop_body()
            reply = self._call(self.route.handler)
        if self.ending:  # the client is gone, or the stream is a WebSocket now
            return
        if reply is LATER:
            reply, self.early = self.early, None
        if reply is None:
            self.busy = True
            self.stream.set_idle(0)
        else:
            self._send(reply)

    def _call(self, handler: Callable[..., Any]) -> Any:
        try:
            return handler(self, self.request)
        except WebRefusal as answer:
            return answer.reply
        except HttpError as problem:
            return web_text(problem.status, str(problem))
        except Exception:
            log.exception(f"while answering {self.request.method} {self.route.pattern}")
            return BROKEN

    # -- answers -----------------------------------------------------------------------------------------------------

    def answer(self, reply: WebReply) -> None:
        """The answer of a handler that said LATER. The client may be gone: then nothing happens."""
        if self.stream is None or self.ending:
            if reply.file is not None:
                reply.file[0].close()
            return
        if not self.busy:
            self.early = reply
            return
        self.busy = False
        self._send(reply)
        if not self.busy:
            self._resume()

    def _resume(self) -> None:
        """Goes on with the requests that came meanwhile."""
        stream = self.stream
        if stream is None or self.ending:
            return
        if self.ended_by_peer and not self.parser.buffer:
            stream.close()
            return
        stream.set_idle(self.server.settings.timeouts_http_idle_s + HTTP_IDLE_GRACE)
        stream.resume()
        if self.parser.buffer:
            self._advance()

    def _send(self, reply: WebReply) -> None:
        stream, request = self.stream, self.request
        if reply is HANG_UP:
            self.ending = True
            stream.abort()
            return
        keep_alive = request.keep_alive
        head = self.web.head(reply, keep_alive)
        body = reply.body
        if reply.file is not None:
            self._send_file(head, reply)
            return
        if reply.status == 204 or reply.status == 304:
            if reply.status == 204:  # has no length, and simple clients then wait for the end of the connection
                keep_alive, head = False, self.web.head(reply, False)
            stream.write(head + reply.fields + b"\r\n")
        elif request.method == "HEAD":
            stream.write(b"%bcontent-length: %d\r\n%b\r\n" % (head, len(body), reply.fields))
        else:
            stream.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (head, len(body), reply.fields, body))
        if not keep_alive:
            self.ending = True
            if not self.parser.in_body:
                stream.close()

    def _send_file(self, head: bytes, reply: WebReply) -> None:
        file, length = reply.file  # type: ignore[misc]
        self.stream.write(b"%bcontent-length: %d\r\n%b\r\n" % (head, length, reply.fields))
        if not self.request.keep_alive:
            self.ending = True
        if self.request.method == "HEAD" or not length:
            file.close()
            if self.ending:
                self.stream.close()
            return
        self.busy = self.sending = True
        self.stream.set_idle(0)
        self.stream.send_file(file, length)

    def _fail(self, problem: HttpError) -> None:
        """The client broke the rules: one answer, then the end."""
        if log.debugging:
            log.debug(f"bad request from {self.stream.peer}: {problem}")
        self._drop_body()
        reply = WebReply(problem.status)
        self.stream.write(self.web.head(reply, False) + b"content-length: 0\r\n\r\n")
        self._linger()

    def _linger(self) -> None:
        """Closes a moment later; until then what the client still sends is thrown away."""
        self.ending = True
        self.parser.buffer.clear()
        self._wait_for("end")

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self.busy:
            self._wait_for("")
        elif self.parser.in_body:
            self._wait_for("body")
        else:
            self._wait_for("head" if self.parser.buffer and not self.stream.congested else "")

    def _wait_for(self, what: str) -> None:
        if what == self.waits_for:
            return
        self.waits_for = what
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if what:
            seconds = HTTP_HEAD_SECONDS if what == "head" else HTTP_LINGER_SECONDS
            if what == "body":
                length = self.request.length
                seconds = (
                    HTTP_BODY_SECONDS + min(length if length > 0 else 1 << 40, self.parser.max_body) / HTTP_BODY_RATE
                )
            self.timer = self.web.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self.timer = None
        if self.stream is None:
            return
        if self.waits_for == "end":
            self.stream.close()
        elif not self.skipping:
            self._fail(HttpError(408, "request took too long"))
        else:
            self.stream.close()


# -- WebSockets --------------------------------------------------------------------------------------------------------
# A request for `/websockets` or `/dashws` turns its stream over to a WebSocketConnection, which is the protocol of the
# stream and, for the session behind it, the stream (spec 01 §11).


class WebSocketConnection:
    """Carries the frames of a hardware session (binary messages are its byte stream) or an app session (one message,
    one command). Towards the session it looks like a Stream."""

    __slots__ = ("server", "stream", "codec", "session", "app", "said_goodbye", "protocol")

    def __init__(self, server: Any, stream: Any, app: bool) -> None:
        self.server, self.stream, self.app = server, stream, app
        # Browsers send a whole project as one frame, and pages cannot choose; boards keep to 64 KiB (spec 01 §11).
        longest = (server.settings.limits_profile_kb << 10) + WS_MAX_FRAME if app else WS_MAX_FRAME
        self.codec = WebSocketCodec(longest, longest)
        self.said_goodbye = False
        self.session: Any = None
        self.protocol: Any = None

    def open(self, rest: bytes) -> None:
        """The stream is ours; `rest` came behind the request."""
        self.stream.protocol = self
        self.stream.set_idle(0)
        self.session = AppSession(self.server, self, framing="ws") if self.app else HardwareSession(self.server, self)
        if rest:
            self.received(rest)

    # -- what the stream calls

    def received(self, data: bytes) -> None:
        codec = self.codec
        codec.feed(data)
        try:
            while True:
                event = codec.next()
                if event is None:
                    return
                opcode, payload = event
                if opcode == WS_BINARY:
                    self.session.received(payload)
                elif opcode == WS_PING:
                    self.stream.write(ws_frame(WS_PONG, payload))
                elif opcode == WS_CLOSE:
                    self._goodbye(payload)
                    return
        except WebSocketError as problem:
            if log.debugging:
                log.debug(f"websocket of {self.stream.peer}: {problem}")
            codec.closed = True
            self._goodbye(problem.code.to_bytes(2, "big"))

    def closed(self) -> None:
        session, self.session = self.session, None
        self.codec.closed = True
        if session is not None:
            session.closed()

    def drained(self) -> None:
        drained = getattr(self.session, "drained", None)
        if drained is not None:
            drained()

    def _goodbye(self, payload: bytes) -> None:
        if not self.said_goodbye and not self.stream.closed:
            self.said_goodbye = True
            self.stream.write(ws_frame(WS_CLOSE, payload))
        self.stream.close()

    # -- what the session calls

    def write(self, data: bytes) -> None:
        if not self.said_goodbye:
            self.stream.write(ws_frame(WS_BINARY, data))

    def close(self) -> None:
        self.codec.closed = True
        self._goodbye(b"\x03\xe8Bye")

    def abort(self) -> None:
        self.stream.abort()

    def set_idle(self, seconds: float) -> None:
        self.stream.set_idle(seconds)

    def pause(self) -> None:
        self.stream.pause()

    def resume(self) -> None:
        self.stream.resume()

    def pending(self) -> int:
        return self.stream.pending()  # type: ignore[no-any-return]

    def flush(self) -> None:
        self.stream.flush()

    @property
    def out(self) -> bytearray:
        return self.stream.out  # type: ignore[no-any-return]

    @property
    def peer(self) -> str:
        return self.stream.peer  # type: ignore[no-any-return]

    @property
    def secure(self) -> bool:
        return self.stream.secure  # type: ignore[no-any-return]

    @property
    def local_port(self) -> int:
        return self.stream.local_port  # type: ignore[no-any-return]

    @property
    def loop(self) -> Any:
        return self.stream.loop

    @property
    def congested(self) -> bool:
        return self.stream.congested  # type: ignore[no-any-return]

    @property
    def closing(self) -> bool:
        return self.said_goodbye or self.stream.closing


def _upgrade(connection: HttpConnection, request: HttpRequest) -> Any:
    """`/websockets`, `/websocket` and what lies below them: a board; `/dashws`: an app. Others 404 (spec 01 §11.2)."""
    app = request.path == "/dashws"
    words = request.path.split("/", 2)
    if not app and words[1] not in ("websockets", "websocket"):
        return NOT_FOUND
    if request.method != "GET":
        request.keep_alive = False
        return NOT_FOUND if app else WebReply(403)
    if "upgrade" not in request.headers:
        return NOT_FOUND if app else WebReply(426, "", b"", b"upgrade: websocket\r\n")
    try:
        accept = ws_handshake(request)
    except HttpError as problem:
        return WebReply(problem.status, "", b"", b"sec-websocket-version: 13\r\n" if problem.status == 426 else b"")
    stream, rest = connection.stream, bytes(connection.parser.buffer)
    connection.closed()  # the stream is no longer its
    stream.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nserver: blynk-pi\r\n"
        + http_field("sec-websocket-accept", accept)
        + b"\r\n"
    )
    WebSocketConnection(connection.server, stream, app).open(rest)
    return LATER


WEBSOCKET_ROUTE = WebRoute("GET", "/websockets", "page", "both", False, _upgrade)
METHOD_ROUTE = WebRoute(
    "GET", "/static", "page", "both", False, lambda c, r: WebReply(405, "", b"", b"allow: GET, HEAD\r\n")
)


# -- 12b The REST interface of devices ---------------------------------------------------------------------------------
# `/{token}/…`, on both ports (spec 06 §3). First the body is read, then the token, then the rest: so the errors come
# in the order the Java server gave them (§1.7). A handler gets (connection, request, device, body).

INVALID_TOKEN_REPLY = web_text(400, "Invalid token.")
WRONG_PIN = web_text(400, "Wrong pin format.")
NO_SUCH_PIN = web_text(400, "Requested pin doesn't exist in the app.")
NO_VALUES = web_text(400, "No pin for update provided.")
NOT_ACTIVE = web_text(400, "Project is not active.")
TRUE_REPLY, FALSE_REPLY = web_json("true"), web_json("false")
# Properties that GET …/update/{pin} can set, in the order they are looked for (spec 06 §3.9).
HTTP_PROPERTIES = (
    "label color onBackColor offBackColor onColor offColor onLabel offLabel labels min max isOnPlay url urls step"
    " valueFormatting suffix maximumFractionDigits opacity scale rotation"
).split()


def device_route(
    method: str, pattern: str, counter: str, shape: Optional[Callable[[Any], Any]] = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers handler(connection, request, device, body) -> WebReply; counter: its name in the statistics (spec 06
    §1.8); shape makes the handler's body of the request's JSON."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        def answer(connection: HttpConnection, request: HttpRequest) -> Any:
            server = connection.server
            body = json_body(request, shape) if shape is not None else None
            device = server.device_of_token(request.arguments[0])
            if device is None:
                return INVALID_TOKEN_REPLY
            server.stats.count("total")
            server.stats.count(counter)
            server.stats.messages += 1
            if server.ledger.unsettled:
                server.ledger.settle()
            return handler(connection, request, device, body)

        web_route(method, pattern, kind="device")(answer)
        return handler

    return register


def json_body(request: HttpRequest, shape: Callable[[Any], Any]) -> Any:
    """The body as the handler wants it. Raises WebRefusal with the texts of spec 06 §1.7."""
    if "application/json" not in request.headers.get("content-type", ""):
        raise WebRefusal(web_text(500, "Unexpected content type. Expecting application/json."))
    text = request.body.decode("utf-8", "replace")
    try:
        value = parse_json(text.lstrip("\ufeff"))
        if value is None and shape is not object_of_texts:
            raise WebRefusal(BROKEN)
        return shape(value)
    except (ValueError, OverflowError):
        raise WebRefusal(web_text(500, "Error parsing body param. " + text)) from None


def json_text(value: Any) -> str:
    """A scalar as Java reads it into a text."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        raise ValueError("not a scalar")
    return json.dumps(value)


def list_of_texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return [json_text(v) for v in value]


def list_of_points(value: Any) -> list[tuple[int, str]]:
    """[{"timestamp": ms, "value": text}] -> [(ms, text)]"""
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise ValueError("not a list of objects")
    points = []
    for point in value:
        stamp = point.get("timestamp", 0)
        if isinstance(stamp, bool) or not isinstance(stamp, (int, float, str)):
            raise ValueError("timestamp is no number")
        points.append((int(stamp), json_text(point.get("value"))))
    return points


def object_of_texts(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return {k: json_text(v) for k, v in value.items() if v is not None}


def http_pin(text: str) -> tuple[str, int]:
    """`V5` -> ("v", 5). Raises WebRefusal(400 Wrong pin format.)"""
    letter = text[:1].lower()
    try:
        if letter not in PIN_TYPES:
            raise ValueError
        return letter, parse_pin(text[1:])
    except ValueError:
        raise WebRefusal(WRONG_PIN) from None


# -- reading


@device_route("GET", "/{token}/project", "getProject")
def http_project(connection: HttpConnection, _request: HttpRequest, device: Device, _body: None) -> WebReply:
    view = http_view(device.project.document, connection.server.settings.http_project_shows_push_tokens)
    return web_json(to_json(view))


@device_route("GET", "/{token}/isHardwareConnected", "isHardwareConnected")
def http_hardware_connected(
    _connection: HttpConnection, _request: HttpRequest, device: Device, _body: None
) -> WebReply:
    return TRUE_REPLY if device.online else FALSE_REPLY


@device_route("GET", "/{token}/isAppConnected", "isAppConnected")
def http_app_connected(_connection: HttpConnection, _request: HttpRequest, device: Device, _body: None) -> WebReply:
    return TRUE_REPLY if device.project.active and device.project.account.apps else FALSE_REPLY


@device_route("GET", "/{token}/get/{pin}", "getPinData")
@device_route("GET", "/{token}/pin/{pin}", "getPinData")
def http_get(_connection: HttpConnection, request: HttpRequest, device: Device, _body: None) -> WebReply:
    """The value of a pin (spec 06 §3.4)."""
    letter, pin = http_pin(request.arguments[1])
    project = device.project
    widget = project.find_by_pin(device.id, letter, pin)
    if widget is None:
        stored = project.account.storage.get(f"{project.id}-{device.id}-{letter}{pin}")
        if stored is None:
            return NO_SUCH_PIN
        values = stored["values"] if isinstance(stored, dict) else stored.split("\0") if stored else []
    elif widget["type"] == "DEVICE_TILES":
        tile = matching_tile(widget, device.id, letter, pin)
        value = tile["pin"].get("value") if tile is not None else None
        return NO_SUCH_PIN if value is None else web_json(value)
    else:
        values = widget_values(project, widget)
    if len(values) == 1 and values[0].isalnum() and values[0].isascii():  # nothing to escape: the usual case
        return WebReply(200, JSON_TYPE, f'["{values[0]}"]'.encode())
    return web_json(to_json(values))


def widget_values(project: Project, widget: Document) -> list[str]:
    """What a widget shows, as a list of texts."""
    row = widget_type(widget)
    if row.accept in ("terminal", "map"):
        return list(project.history_of(widget))
    if row.base == "M":
        streams = widget.get("pins", [])
        if is_split(widget):
            return [stream.get("value", "") for stream in streams]
        first = streams[0] if streams else {}
        value = first.get("value", "") if has_pin(first) else ""
        return value.split("\0") if value else []
    value = widget.get("value")
    return [] if value is None else [value]


@device_route("GET", "/{token}/rtc", "getPinData")
def http_rtc(connection: HttpConnection, _request: HttpRequest, device: Device, _body: None) -> WebReply:
    widget = device.project.find("RTC")
    if widget is None:
        return web_text(400, "Requested rtc not exists in app.")
    return web_json(f"[{local_seconds(widget.get('tzName'), connection.server.loop.now_ms / 1000)}]")


@device_route("GET", "/{token}/notifications", "getProject")
def http_notifications(_connection: HttpConnection, _request: HttpRequest, device: Device, _body: None) -> WebReply:
    """What was sent for the account, and what was not and why: the last 100, oldest first."""
    return web_json(to_json(list(device.project.account.notifications)), shared=False)


@device_route("GET", "/{token}/reports", "getHistoryPinData")
def http_reports(connection: HttpConnection, _request: HttpRequest, device: Device, _body: None) -> WebReply:
    """The reports made for the project that can still be downloaded."""
    return web_json(to_json(connection.server.reports.list(device)), shared=False)


@device_route("GET", "/{token}/qr", "qr")
def http_qr(connection: HttpConnection, _request: HttpRequest, device: Device, _body: None) -> WebReply:
    """A picture that hides a clone code (spec 06 §3.6): answered when the code can be fetched."""
    server = connection.server
    settings = server.settings
    port = 443 if settings.server_links_on_port_80 else settings.ports_https

    def kept(token: Optional[str]) -> None:
        text = f"blynk://token/clone/{token}?server={server.host}&port={port}"
        if token is None or not server.loop.submit("net", qr_png, text, done=done):
            connection.answer(BROKEN)

    def done(picture: Optional[bytes], _problem: Optional[Exception]) -> None:
        if picture is None:
            connection.answer(web_text(501, "QR codes need the package 'segno': pip install segno"))
        else:
            connection.answer(WebReply(200, "image/png", picture))

    server.keep_clone(clone_of(device.project), kept)
    return LATER


@device_route("GET", "/{token}/data/{pin}", "getHistoryPinData")
def http_history(connection: HttpConnection, request: HttpRequest, device: Device, _body: None) -> WebReply:
    """The minutes of a pin as a gzipped CSV, by way of a redirect (spec 06 §3.7)."""
    letter, pin = http_pin(request.arguments[1])
    server = connection.server

    def done(name: Optional[str], problem: Optional[Exception]) -> None:
        if problem is not None:
            log.error(f"history of {letter}{pin} cannot be exported: {problem}")
            connection.answer(web_text(400, "Error getting pin data."))
        elif name is None:
            connection.answer(web_text(400, "No data."))
        else:
            connection.answer(redirect("/" + name))

    return (
        LATER if server.loop.submit("net", server.history.http_csv, device, letter, pin, done=done) else WebReply(503)
    )


# -- writing


@device_route("GET", "/{token}/update/{pin}", "updatePinData")
def http_update_by_get(connection: HttpConnection, request: HttpRequest, device: Device, _body: None) -> WebReply:
    """`?value=…` writes, `?label=…` sets a property; HEAD does neither."""
    if request.method == "HEAD":
        return NOT_FOUND
    query = parse_query(request.query)
    values = query.get("value")
    if values is not None:
        return write_values(connection, request, device, values)
    for name in HTTP_PROPERTIES:
        if name in query:
            return http_property(device, request.arguments[1], name, query[name][0])
    return web_text(400, "Wrong request format.")


@device_route("PUT", "/{token}/update/{pin}", "updatePinData", list_of_texts)
@device_route("PUT", "/{token}/pin/{pin}", "updatePinData", list_of_texts)
def http_update(connection: HttpConnection, request: HttpRequest, device: Device, values: list[str]) -> WebReply:
    return write_values(connection, request, device, values)


def write_values(connection: HttpConnection, request: HttpRequest, device: Device, values: list[str]) -> WebReply:
    """Values to the project, the board and the apps, in the order of spec 06 §3.8."""
    if not values:
        return NO_VALUES
    letter, pin = http_pin(request.arguments[1])
    project = device.project
    text = values[0] if len(values) == 1 else "\0".join(values)
    route = project.route(device.id, letter, pin)
    server = connection.server
    now_ms = server.loop.now_ms
    try:
        route.record(text, now_ms)
        route.set(text, now_ms)
    except ValueError:
        return BROKEN
    device.document["dataReceivedAt"] = now_ms
    body = widget_body(project, device.id, letter, pin) or value_body(letter, pin, text)
    if route.watched:
        server.automation.on_value(project, device.id, letter, pin, text, "http")
    deliver(device, body)
    return OK_REPLY


def deliver(device: Device, body: str) -> None:
    """To the board, online or not, and to the apps that look on."""
    data = encode(body)
    to_hardware((device,), Command.HARDWARE, ID_HTTP, data)
    if device.project.active:
        to_apps(device.project, Command.HARDWARE, ID_HTTP, b"%s\0%s" % (device.prefix, data))


def widget_body(project: Project, device_id: int, letter: str, pin: int) -> Optional[str]:
    """What the first widget of the pin tells the board of its value (spec 06 §3.8 step 3)."""
    widget = project.find_by_pin(device_id, letter, pin)
    if widget is None:
        return None
    row = widget_type(widget)
    if row.accept == "terminal":
        return next(iter(sync_last(project, widget, device_id)), None)
    if row.base == "M":
        streams = widget.get("pins", [])
        if is_split(widget):
            return next((stream_body(s) for s in streams if stream_matches(s, letter, pin)), None)
        body = stream_body(streams[0]) if streams else None
        if body is None:
            return None
        return "\0".join([body, *(s["value"] for s in streams[1:] if has_pin(s) and s.get("value"))])
    return stream_body(widget, row.own_letter) if row.base in "SR" else None


def http_property(device: Device, pin_text: str, name: str, text: str) -> WebReply:
    """A widget's property, told to the apps (spec 06 §3.9)."""
    project = device.project
    if not project.active:
        return NOT_ACTIVE
    letter, pin = http_pin(pin_text)
    widgets = [w for w in project.widgets if widget_matches(w, device.id, letter, pin)]
    if not widgets:
        return web_text(400, "No widget for SetWidgetProperty command.")
    if not all(supports_property(w, name) for w in widgets):
        return web_text(400, "Error setting widget property.")
    try:
        if letter == "v":
            project.set_property(device.id, pin, name, text)
        else:
            for widget in widgets:
                set_widget_property(widget, name, text)
            project.modified()
    except ValueError:
        return BROKEN
    body = encode(f"{pin}\0{name}\0{text}")
    to_apps(project, Command.SET_WIDGET_PROPERTY, ID_HTTP, b"%s\0%s" % (device.prefix, body))
    return OK_REPLY


@device_route("PUT", "/{token}/extra/pin/{pin}", "updatePinData", list_of_points)
def http_extra(
    connection: HttpConnection, request: HttpRequest, device: Device, points: list[tuple[int, str]]
) -> WebReply:
    """Values with their own times: all into the history, the first one to the project (spec 06 §3.10)."""
    if not points:
        return NO_VALUES
    letter, pin = http_pin(request.arguments[1])
    project = device.project
    route = project.route(device.id, letter, pin)
    for stamp, text in points:
        if 0 <= stamp < 1 << 53:
            route.record(text, stamp)
    text = points[0][1]
    try:
        route.set(text, connection.server.loop.now_ms)
    except ValueError:
        return BROKEN
    bound = project.find_by_pin(device.id, letter, pin) is not None
    body = widget_body(project, device.id, letter, pin) if bound else value_body(letter, pin, text)
    if body is not None:
        deliver(device, body)
    return OK_REPLY


# -- messages


@device_route("POST", "/{token}/notify", "notify", object_of_texts)
def http_notify(connection: HttpConnection, _request: HttpRequest, device: Device, body: dict[str, str]) -> WebReply:
    """A push to everybody who follows the project (spec 06 §3.11)."""
    text = body.get("body", "")
    if not 0 < len(text) <= 255:
        return web_text(400, "Body is empty or larger than 255 chars.")
    project, messengers = device.project, connection.server.messengers
    if not project.active:
        return NOT_ACTIVE
    widget = project.find("NOTIFICATION")
    if widget is None:
        return web_text(400, "No notification widget.")
    if not messengers.reaches(project, widget):
        return web_text(400, "Notification widget not initialized.")
    messengers.push(project, text)
    return OK_REPLY


@device_route("POST", "/{token}/email", "email", object_of_texts)
def http_email(connection: HttpConnection, _request: HttpRequest, device: Device, body: dict[str, str]) -> WebReply:
    """A plain mail, within the account's daily limit (spec 06 §3.12, 08 §2.6)."""
    project, messengers = device.project, connection.server.messengers
    if not project.active:
        return NOT_ACTIVE
    if project.find("EMAIL") is None:
        return web_text(400, "No email widget.")
    to, subject = body.get("to", ""), body.get("subj", "")
    if not to or not subject:
        return web_text(400, "Email body is wrong. Missing or empty fields 'to', 'subj'.")
    if not all(valid_email(part.strip()) for part in to.split(",")):
        return web_text(400, f"{to} email has not valid format.")
    if not messengers.may_mail(project.account):
        return web_text(400, "The daily limit of mails is reached.")
    messengers.limited_mail(project.account, to, subject, body.get("title", ""), False)
    return OK_REPLY


# -- 12c Pages and files -----------------------------------------------------------------------------------------------
# `/`, static files, exports, password reset, clones, the certificate, /health and /metrics (spec 06 §5–7). Pages are
# files in web/; the server runs without them.

STATIC_TYPES = {
    "ico": "image/x-icon", "js": "application/javascript", "css": "text/css", "png": "image/png",
    "gz": "application/x-gzip", "zip": "application/zip", "bin": "application/octet-stream", "svg": "image/svg+xml",
    "json": "application/json", "webmanifest": "application/manifest+json", "txt": "text/plain;charset=utf-8",
    "woff2": "font/woff2", "jpg": "image/jpeg", "webp": "image/webp", "map": "application/json",
    "crt": "application/x-x509-ca-cert",
}  # fmt: skip
WEB_ENDINGS = frozenset(("html", *STATIC_TYPES)) - {"gz", "zip", "bin", "crt", "map"}
STATIC_NAMES = {  # names clients ask for -> where they lie in web/
    "admin.html": "admin/admin.html",
    "login.html": "admin/login.html",
    "favicon.ico": "admin/favicon.ico",
}
COMPRESSED_ENDINGS = frozenset(("js", "css", "html", "svg", "json", "webmanifest"))
COMPRESSED_FOLDER = "web-gz"  # in the data folder
SMALLEST_COMPRESSED = 600  # bytes; below it a copy saves less than a packet
SMALL_FILE = 65_536  # read at once; longer ones are sent piece by piece
RESET_MINUTES = 45
RESET_TOKENS_KEPT = 1000
RESET_TOKENS_EACH = 10  # of one account at a time
RESET_FILE = "tokens_pool_temp.json"
TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
DISK_FULL_BYTES = 2 << 20  # less room than this is as good as none
FILE_NOT_FOUND = web_text(404, "Failure: 404 Not Found\r\n")


def web_folder() -> str:
    """Beside the program, or where a package was installed."""
    folder = os.path.join(PROGRAM_FOLDER, "web")
    return folder if os.path.isdir(folder) else os.path.join(sys.prefix, "share", "blynk-pi", "web")


def web_base(server: Any) -> str:
    """`http://host:port` of the plain port, as links have it."""
    settings = server.settings
    port = "" if settings.server_links_on_port_80 or settings.ports_http in (0, 80) else f":{settings.ports_http}"
    return f"http://{server.host}{port}"


def html_reply(text: str, status: int = 200) -> WebReply:
    return WebReply(status, HTML_TYPE, encode(text), PAGE_POLICY + NO_STORE)


# -- files


def static_folders(server: Any) -> list[str]:
    """Where `/static/…` lies, first one first: the operator's own, firmware, an old server's, ours (spec 06 §6.1)."""
    own = os.path.abspath("static-override")
    return [own, server.store.path("static"), os.path.join(PROGRAM_FOLDER, "static"), web_folder()]


def safe_path(path: str) -> Optional[str]:
    """The path of a URI, decoded, or None when it could leave its folder (spec 06 §6.1)."""
    for text in (path, percent_decode(path)):
        if text[:1] != "/" or text[-1:] == "." or any(bad in text for bad in ("/.", "./", ".\\", "\\", "//", "\0")):
            return None
        if any(c in text for c in '<>&":') or not text.isprintable():
            return None
    return text[1:]


def find_file(folders: Iterable[str], name: str) -> Optional[str]:
    """The first regular file of that name that really lies in its folder (a link out of it does not count)."""
    for folder in folders:
        path = os.path.join(folder, *name.split("/"))
        try:
            if os.path.isfile(path):
                real, root = os.path.realpath(path), os.path.realpath(folder)
                if real.startswith(root + os.sep):
                    return real
        except (OSError, ValueError):
            pass
    return None


def serve_static(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """`/static/…`, and exports by their ending."""
    server = connection.server
    name = safe_path(request.path)
    if name is None:
        return FILE_NOT_FOUND
    if name.endswith((".gz", ".zip")) and not name.startswith("static/"):
        return (
            FILE_NOT_FOUND
            if "/" in name
            else file_reply(server, request, find_file([csv_folder(server.settings)], name))
        )
    if not name.startswith("static/"):
        return FILE_NOT_FOUND
    name = name[7:]
    return file_reply(server, request, find_file(static_folders(server), STATIC_NAMES.get(name, name)))


def serve_web_file(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """A file of the browser app at its own path: `/view.js`. Unknown: 404 without a body, like any unknown path."""
    name = safe_path(request.path)
    path = find_file([web_folder()], name) if name is not None else None
    return NOT_FOUND if path is None else file_reply(connection.server, request, path)


FILE_ROUTE = WebRoute("GET", "/static", "page", "both", False, serve_static)
WEB_FILE_ROUTE = WebRoute("GET", "/", "page", "both", False, serve_web_file)


@web_route("GET", "/favicon.ico")
def favicon(connection: HttpConnection, request: HttpRequest) -> WebReply:
    folder = web_folder()
    path = find_file([folder], "favicon.ico") or find_file([folder], STATIC_NAMES["favicon.ico"])
    return file_reply(connection.server, request, path)


def file_reply(server: Any, request: HttpRequest, path: Optional[str], kind: str = "") -> WebReply:
    """A file with its validators: 200, 304, 206 or 416 (RFC 9110 §13, §14)."""
    if path is None:
        return FILE_NOT_FOUND
    try:
        file = open(path, "rb")
        facts = os.fstat(file.fileno())
    except OSError:
        return FILE_NOT_FOUND
    kind = kind or STATIC_TYPES.get(path.rpartition(".")[2].lower(), "text/html")
    size, modified = facts.st_size, http_date(int(facts.st_mtime))
    tag = f'"{facts.st_mtime_ns:x}-{size:x}"'
    root = os.path.realpath(web_folder()) + os.sep
    if path.startswith(root):  # the browser app: asked for again each time, so that its modules fit together
        fresh = "cache-control: no-cache\r\nvary: accept-encoding\r\n"
        if path == root + "sw.js":
            fresh += "service-worker-allowed: /\r\n"
        if path == root + "index.html":  # for the links to the other port, and the lines for sketches
            fresh += f"x-blynk-ports: {server.settings.ports_http} {server.settings.ports_https}\r\n"
        packed = _compressed(server, request, path, path[len(root) :], facts) if size >= SMALLEST_COMPRESSED else None
        if packed is not None:
            file.close()
            file, size = packed
            tag = tag[:-1] + '-gz"'
            fresh += "content-encoding: gzip\r\n"
    else:
        fresh = f"expires: {http_date(server.loop.now_ms // 1000 + 60)}\r\ncache-control: private, max-age=60\r\n"
    fields = f"etag: {tag}\r\nlast-modified: {modified}\r\n{fresh}accept-ranges: bytes\r\n".encode("ascii")
    if kind == "text/html":
        kind = HTML_TYPE
        fields += PAGE_POLICY
    if _unchanged(request, tag, modified):
        file.close()
        return WebReply(304, "", b"", fields)
    status, start, length = 200, 0, size
    part = _asked_range(request, size, tag, modified)
    if part is not None:
        start, length = part
        if length <= 0:
            file.close()
            return WebReply(416, "", b"", b"content-range: bytes */%d\r\n" % size)
        status = 206
        fields += b"content-range: bytes %d-%d/%d\r\n" % (start, start + length - 1, size)
    reply = WebReply(status, kind, b"", fields)
    file.seek(start)
    if length <= SMALL_FILE:
        with file:
            reply.body = file.read(length)
    else:
        reply.file = (file, length)
    return reply


def _compressed(server: Any, request: HttpRequest, path: str, name: str, facts: Any) -> Optional[tuple[Any, int]]:
    """The gzipped copy of a file of the app: (open file, length), when the client takes one. A copy lies in the data
    folder with the times of its file; the first that asks gets the file as it is, and a worker makes the copy."""
    accepted = request.headers.get("accept-encoding", "").replace(" ", "").lower()
    if "gzip" not in accepted or "gzip;q=0" in accepted or path.rpartition(".")[2] not in COMPRESSED_ENDINGS:
        return None
    copy = server.store.path(COMPRESSED_FOLDER, name.replace("/", "-") + ".gz")
    try:
        file = open(copy, "rb")
        found = os.fstat(file.fileno())
        if found.st_mtime_ns // 1000 == facts.st_mtime_ns // 1000:
            return file, found.st_size
        file.close()
    except OSError:
        pass
    server.loop.submit("disk", _compress, path, copy, facts.st_mtime_ns)
    return None


def _compress(path: str, copy: str, modified_ns: int) -> None:
    """In a worker. A full or read-only disk: there is no copy, and the app travels as it is."""
    import gzip

    try:
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        with open(path, "rb") as source, open(copy + ".tmp", "wb") as target:
            target.write(gzip.compress(source.read(), 9, mtime=0))
        os.utime(copy + ".tmp", ns=(modified_ns, modified_ns))
        os.replace(copy + ".tmp", copy)
    except OSError as error:
        log.debug(f"no compressed copy of {path}: {error}")


def _unchanged(request: HttpRequest, tag: str, modified: str) -> bool:
    tags = request.headers.get("if-none-match")
    if tags is not None:
        return tags == "*" or tag in [t.strip().rpartition("W/")[2] for t in tags.split(",")]
    return request.headers.get("if-modified-since") == modified


def _asked_range(request: HttpRequest, size: int, tag: str, modified: str) -> Optional[tuple[int, int]]:
    """(start, length) of the one range that is asked for; length 0: there is no such part; None: the whole file."""
    text = request.headers.get("range", "")
    if text[:6].lower() != "bytes=" or "," in text or request.headers.get("if-range", tag) not in (tag, modified):
        return None
    first, dash, last = text[6:].strip().partition("-")
    if (
        not dash
        or not all(t.isascii() and t.isdigit() and len(t) < 19 for t in (first, last) if t)
        or not (first or last)
    ):
        return None
    if not first:  # the last so many bytes
        length = min(int(last), size)
        return size - length, length
    start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if last and int(last) < start:
        return None
    return start, end - start + 1


# -- pages

SMALL_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Blynk server</title>
<h1>Blynk server</h1>
<p>This is blynk-pi, a server for Blynk boards and apps. It is running.</p>
<ul><li>Boards: host <b>{host}</b>, port <b>{http}</b>.
<li>App: host <b>{host}</b>, port <b>{https}</b>.
<li><a href="https://{host}:{https}{admin}">Administration</a>
<li><a href="/blynk.crt">Certificate of this server</a></ul>
<p>The pages of the browser app are not installed: they belong in <code>web/</code> beside the program.</p>
</html>"""


@web_route("GET", "/")
def front_page(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """The browser app; without its files a page that says what this is. On the TLS port whoever does not ask for a
    page, as a browser does, is sent to the administration as the Java server did."""
    server = connection.server
    if connection.stream.secure and "text/html" not in request.headers.get("accept", ""):
        return redirect(server.web.admin_path)
    path = find_file([web_folder()], "index.html")
    if path is not None:
        return file_reply(server, request, path)
    settings = server.settings
    names = {
        "host": server.host,
        "http": settings.ports_http,
        "https": settings.ports_https,
        "admin": settings.admin_path,
    }
    return html_reply(SMALL_PAGE.format(**{k: escape_html(str(v)) for k, v in names.items()}))


@web_route("GET", "/.well-known/acme-challenge/{name}", where="plain")
def acme_challenge(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """certbot's answers; the folder may be its webroot or the challenge folder itself."""
    folder, name = connection.server.settings.acme_challenge_folder, request.arguments[0]
    if not folder or not TOKEN_CHARACTERS.issuperset(name):
        return NOT_FOUND
    path = find_file([os.path.join(folder, ".well-known", "acme-challenge"), folder], name)
    return NOT_FOUND if path is None else file_reply(connection.server, request, path, "text/html")


@web_route("GET", "/blynk.crt")
def certificate_file(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """The server's certificate, for trusting it on a phone or in a sketch. Only CERTIFICATE blocks: a file may hold
    the key too."""
    blocks = []
    pairs = connection.server.certificates.pairs
    try:
        with open(pairs[0][0], encoding="latin-1") as file:
            text = file.read(1 << 20)
    except (OSError, IndexError):
        return NOT_FOUND
    for part in text.split("-----BEGIN CERTIFICATE-----")[1:]:
        blocks.append(
            "-----BEGIN CERTIFICATE-----"
            + part.partition("-----END CERTIFICATE-----")[0]
            + "-----END CERTIFICATE-----\n"
        )
    disposition = b'content-disposition: attachment; filename="blynk.crt"\r\n'
    return WebReply(200, STATIC_TYPES["crt"], "".join(blocks).encode("latin-1"), disposition) if blocks else NOT_FOUND


@web_route("GET", "/health")
def health(connection: HttpConnection, _request: HttpRequest) -> WebReply:
    """200 {"status":"ok"}, or 503 with what is wrong."""
    problems = server_problems(connection.server)
    if not problems:
        return WebReply(200, JSON_TYPE, b'{"status":"ok"}', NO_STORE)
    return WebReply(503, JSON_TYPE, encode(to_json({"status": "failing", "problems": problems})), NO_STORE)


def server_problems(server: Any) -> list[str]:
    """One line for each thing that keeps the server from doing its work."""
    problems = list(server.health.values())
    free = free_bytes(server)
    if free is not None and free < DISK_FULL_BYTES:
        problems.append(f"disk full: {free // 1024} KB left for {server.store.folder}")
    return problems


def free_bytes(server: Any) -> Optional[int]:
    try:
        facts = os.statvfs(server.store.folder)
        return facts.f_bavail * facts.f_frsize
    except (OSError, AttributeError):  # Windows has none
        return None


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


@web_route("GET", "/metrics")
def metrics(connection: HttpConnection, _request: HttpRequest) -> WebReply:
    """Prometheus text, for the addresses that may open the admin page."""
    server = connection.server
    if not address_in(connection.stream.peer, server.settings.admin_allowed_ips):
        return HANG_UP
    accounts = server.accounts.values()
    free = free_bytes(server)
    rows: list[tuple[str, str, str, Any]] = [
        ("resident_memory_bytes", "gauge", "memory of the process", resident_bytes()),
        ("uptime_seconds", "gauge", "time since the start", (server.loop.now_ms - server.started_ms) // 1000),
        ("connections", "gauge", "open connections of every kind", len(server.loop.streams)),
        ("accounts", "gauge", "accounts", len(server.accounts)),
        ("apps_online", "gauge", "logged-in app connections", sum(len(a.apps) for a in accounts)),
        ("devices_online", "gauge", "logged-in hardware connections", sum(len(a.hardware) for a in accounts)),
        (
            "devices",
            "gauge",
            "devices of all projects",
            sum(len(p.devices) for a in accounts for p in a.projects.values()),
        ),
        ("messages_total", "counter", "messages of boards, apps and HTTP clients", server.stats.messages),
        ("disk_free_bytes", "gauge", "room for the data folder", -1 if free is None else free),
        ("problems", "gauge", "what keeps the server from doing its work", len(server_problems(server))),
    ]
    lines = []
    for name, kind, text, value in rows:
        lines.append(f"# HELP blynk_{name} {text}\n# TYPE blynk_{name} {kind}\nblynk_{name} {value}\n")
    for kind, pool in server.loop.pools.items():
        lines.append(
            f'blynk_jobs_done_total{{kind="{kind}"}} {pool.done_count}\n'
            f'blynk_jobs_waiting{{kind="{kind}"}} {len(pool.jobs)}\n'
        )
    return WebReply(200, "text/plain; version=0.0.4; charset=utf-8", "".join(lines).encode(), NO_STORE, shared=False)


# -- password reset (spec 06 §5)


class ResetTokens:
    """Tokens that allow to set a new password, for 45 minutes; the app's RESET_PASSWORD uses the same pool. Kept in
    memory, over a restart in <data>/data/tokens_pool_temp.json."""

    __slots__ = ("server", "pool")

    def __init__(self, server: Any) -> None:
        self.server = server
        self.pool: dict[str, tuple[str, str, int]] = {}  # token -> (email, app, until ms)

    def new(self, email: str, app: str, long: bool = False) -> Optional[str]:
        """A token of 32 characters (64 when long); None when the account has too many already."""
        self._drop_old()
        if sum(1 for e, a, _ in self.pool.values() if e == email and a == app) >= RESET_TOKENS_EACH:
            return None
        while len(self.pool) >= RESET_TOKENS_KEPT:
            del self.pool[next(iter(self.pool))]
        token = new_token() + (new_token() if long else "")
        self.pool[token] = (email, app, self.server.loop.now_ms + RESET_MINUTES * 60_000)
        return token

    def find(self, token: str) -> Optional[tuple[str, str]]:
        """(email, app) of a token that is still good."""
        self._drop_old()
        entry = self.pool.get(token)
        return None if entry is None else entry[:2]

    def drop(self, token: str) -> None:
        self.pool.pop(token, None)

    def _drop_old(self) -> None:
        now_ms = self.server.loop.now_ms
        for token in [t for t, entry in self.pool.items() if entry[2] <= now_ms]:
            del self.pool[token]

    def load(self) -> None:
        """What the last stop kept, the Java server's too."""
        java = self.server.store.path("data", "tokens_pool_temp.bin")
        for token, row in read_java_tokens(java).items():
            self.pool[token] = (row["email"], row["appName"], int(row["expireAt"]))
        path = self.server.store.path("data", RESET_FILE)
        try:
            with open(path, encoding="utf-8") as file:
                stored = json.load(file)
            self.pool.update({str(t): (str(e), str(a), int(until)) for t, (e, a, until) in stored.items()})
            os.remove(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError) as problem:
            log.warning(f"{path} cannot be read: {problem}; password resets must be asked for again")
        self._drop_old()

    def save(self) -> None:
        self._drop_old()
        if self.pool:
            try:
                write_file(self.server.store.path("data", RESET_FILE), encode(to_json(self.pool)))
            except OSError as problem:
                log.error(f"password reset tokens cannot be kept: {problem.strerror}")


def read_form(request: HttpRequest) -> dict[str, list[str]]:
    """The fields of a form. Raises WebRefusal when it is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise WebRefusal(BROKEN)
    return parse_query(request.body.decode("latin-1"))


def first_of(fields: dict[str, list[str]], name: str, otherwise: Any = None) -> Any:
    return fields[name][0] if name in fields else otherwise


def is_reset_token(token: str) -> bool:
    return len(token) in (32, 64) and TOKEN_CHARACTERS.issuperset(token)


@web_route("POST", "/resetPassword")
def reset_password(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """Mails a link to /landing."""
    server = connection.server
    form = read_form(request)
    given = first_of(form, "email", "null")
    email, app = given.strip().lower(), first_of(form, "appName", "Blynk")
    if not valid_email(email):
        return web_text(400, f"{given} email has not valid format.")
    account = server.account(email, app)
    if account is None:
        return web_text(400, "Sorry, this account does not exist.")
    token = server.web.reset_tokens.new(email, app, long=True)
    if token is None:
        return web_text(429, "Too many resets were asked for. Please try again later.")
    messengers, product = server.messengers, server.settings.server_product_name
    url = f"{web_base(server)}/landing?token={token}"
    body = messengers.text("static/reset/reset-email.html", {}, {"RESET_URL": url})

    def done(sent: bool) -> None:
        if sent:
            connection.answer(WebReply(200, JSON_TYPE, b"Email was sent."))
        else:
            connection.answer(web_text(400, "Error sending reset email."))

    messengers.mail(email, f"Password reset request for the {product} app.", body, True, done=done, account=account)
    return LATER


def reset_page(name: str, values: dict[str, str]) -> WebReply:
    """A page of web/reset with its {PLACEHOLDERS}, escaped for HTML."""
    path = find_file([web_folder()], f"reset/{name}")
    if path is None:
        return web_text(501, "The page is not installed: it belongs in web/reset beside the program.")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        text = text.replace("{" + key + "}", escape_html(value))
    return html_reply(text)


@web_route("GET", "/landing")
def reset_landing(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """The page that asks for the new password."""
    server = connection.server
    token = first_of(parse_query(request.query), "token")
    if token is None:
        return BROKEN
    entry = server.web.reset_tokens.find(token)
    if entry is None:
        return web_text(400, "Your token was not found or it is outdated. Please try again.")
    if not is_reset_token(token):
        return web_text(400, "Invalid request parameters.")
    return reset_page("landing.html", {"TOKEN": token, "EMAIL": entry[0]})


@web_route("GET", "/restore")
def reset_restore(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """Where the app's reset mail leads: opens the app, or sets the password right here."""
    server = connection.server
    query = parse_query(request.query)
    token, email = first_of(query, "token", ""), first_of(query, "email", "")
    if not is_reset_token(token) or (email and not valid_email(email)):
        return web_text(400, "Invalid request parameters.")
    host = server.settings.server_restore_host
    link = (f"http://{host}/" if host else "blynk://") + f"restore?token={token}&email={percent(email)}"
    landing = f"/landing?token={token}"
    return reset_page("restore.html", {"LINK": link, "LANDING": landing, "EMAIL": email})


@web_route("POST", "/updatePassword")
def reset_update(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """The new password, hashed as the app hashes it (spec 03a §2.2)."""
    server = connection.server
    form = read_form(request)
    token, password = first_of(form, "token", ""), first_of(form, "password", "")
    entry = server.web.reset_tokens.find(token)
    if entry is None:
        return web_text(400, "Invalid token. Please repeat all steps.")
    account = server.account(*entry)
    if account is None:
        return NOT_FOUND
    if not 0 < len(password) <= 255:
        return web_text(400, "Invalid request parameters.")
    server.web.reset_tokens.drop(token)

    def done(*_result: Any) -> None:
        connection.answer(web_text(200, "Password was successfully reset."))

    server.set_password(account, password, done)
    return LATER


@web_route("GET", "/{token}/clone", kind="device")
def cloned_project(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """The project behind a QR picture or a clone code (spec 06 §5)."""
    server, token = connection.server, request.arguments[0]

    def found(text: Optional[str]) -> None:
        connection.answer(web_json(text) if text is not None else web_text(500, "Requested QR not found."))

    server.find_clone(token, found)
    return LATER


# -- 12d Administration ------------------------------------------------------------------------------------------------
# `/admin…` (spec 06 §8): on the TLS port, for allowed addresses, with a cookie that other sites cannot use. No answer
# holds a password or its hash. The page itself is web/admin.

SESSION_DAYS = 30
SESSIONS_KEPT = 100
ADMIN_FIELDS = NO_STORE
# Names of the command counters, as the statistics of the Java server have them (spec 06 §8.6).
COMMAND_COUNTERS = (
    ("response", 0), ("redeem", 3), ("hardwareConnected", 4), ("register", 1), ("login", 2), ("hardwareLogin", 29),
    ("loadProfile", 24), ("appSync", 25), ("sharing", 26), ("getToken", 5), ("ping", 6), ("activate", 7),
    ("deactivate", 8), ("refreshToken", 9), ("getGraphData", 60), ("exportGraphData", 28), ("setWidgetProperty", 19),
    ("bridge", 15), ("hardware", 20), ("getSharedDash", 10), ("getShareToken", 30), ("refreshShareToken", 31),
    ("shareLogin", 32), ("createProject", 21), ("updateProject", 22), ("deleteProject", 23), ("hardwareSync", 16),
    ("internal", 17), ("sms", 18), ("tweet", 12), ("email", 13), ("push", 14), ("addPushToken", 27),
    ("createWidget", 33), ("updateWidget", 34), ("deleteWidget", 35), ("createDevice", 42), ("updateDevice", 43),
    ("deleteDevice", 44), ("getDevices", 45), ("createTag", 46), ("updateTag", 47), ("deleteTag", 48),
    ("getTags", 49), ("addEnergy", 37), ("getEnergy", 36), ("getServer", 40), ("connectRedirect", 41),
    ("webSockets", 52), ("eventor", 53), ("webhooks", 54),
)  # fmt: skip
HTTP_COUNTERS = (
    "isHardwareConnected isAppConnected getPinData updatePinData email notify getProject qr getHistoryPinData total"
).split()
CONFIG_FILES = (
    "server.properties", "mail.properties", "gcm.properties", "db.properties", "twitter4j.properties",
    "single_token_mail_body.txt",
)  # fmt: skip
CONFIG_SECTIONS = {"mail.properties": ("mail",), "gcm.properties": ("push",), "twitter4j.properties": ("twitter",)}
# What may change while the server runs (spec 06 §8.5): these are read when they are needed.
LIVE_SECTIONS = ("timeouts", "http", "limits", "notifications", "webhooks", "reading")
HIDDEN_WORDS = ("password", "secret", "token", "api_key", "nexmo_key", "consumer_key", "apprise_urls")
MASKED = "***"


class AdminSession:
    __slots__ = ("account", "until_ms")

    def __init__(self, account: Account, until_ms: int) -> None:
        self.account, self.until_ms = account, until_ms


class Admin:
    """Who is logged in. Sessions live in memory; a restart ends them."""

    __slots__ = ("server", "sessions")

    def __init__(self, server: Any) -> None:
        self.server = server
        self.sessions: dict[str, AdminSession] = {}

    def log_in(self, account: Account) -> str:
        """A new session; its id is 36 characters, like a UUID."""
        now_ms = self.server.loop.now_ms
        for key in [k for k, s in self.sessions.items() if s.until_ms <= now_ms]:
            del self.sessions[key]
        while len(self.sessions) >= SESSIONS_KEPT:
            del self.sessions[next(iter(self.sessions))]
        word = os.urandom(16).hex()
        key = f"{word[:8]}-{word[8:12]}-4{word[13:16]}-a{word[17:20]}-{word[20:]}"
        self.sessions[key] = AdminSession(account, now_ms + SESSION_DAYS * 86_400_000)
        return key

    def session_of(self, request: HttpRequest) -> Optional[AdminSession]:
        """The session of a request's cookie, unless another site had the browser send it."""
        session = self.sessions.get(cookie_of(request))
        if session is None or session.until_ms <= self.server.loop.now_ms:
            return None
        account = session.account
        if account.removed or not account.document.get("isSuperAdmin") or not same_site(request):
            return None
        return session

    def end_sessions(self, account: Account, but: Optional[AdminSession] = None) -> None:
        for key in [k for k, s in self.sessions.items() if s.account is account and s is not but]:
            del self.sessions[key]

    def account_replaced(self, old: Account, new: Account) -> None:
        for session in self.sessions.values():
            if session.account is old:
                session.account = new

    # -- firmware orders: Basic authentication, or the page's session

    def has_credentials(self, request: HttpRequest) -> bool:
        return basic_credentials(request) is not None or self.session_of(request) is not None

    def authorize(
        self,
        connection: HttpConnection,
        request: HttpRequest,
        done: Callable[[Optional[str], Optional[WebReply]], object],
    ) -> None:
        """Calls done(e-mail, None) for the administrator, done(None, refusal) for others (spec 06 §4), also at once."""
        credentials = basic_credentials(request)
        if credentials is None:
            session = self.session_of(request)
            done(session.account.email if session else None, None if session else NOT_FOUND)
            return
        email, password = credentials

        def verified(right: bool) -> None:
            done(email if right else None, None if right else web_text(403, "Authentication failed."))

        self.verify(connection, email, java_password(password, email), verified)

    def verify(self, connection: HttpConnection, email: str, sent: str, done: Callable[[bool], object]) -> None:
        """Whether that is the super admin's password; done(bool) comes in a later turn."""
        server = self.server
        account = server.account(email, "Blynk")
        if account is None or not account.document.get("isSuperAdmin"):
            server.loop.soon(done, False)
            return
        server.verify_password(account, sent, connection.stream.peer, done)


def cookie_of(request: HttpRequest, name: str = "session") -> str:
    for pair in request.headers.get("cookie", "").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return ""


def same_site(request: HttpRequest) -> bool:
    """False when a browser says that another site made it send this (the cookie is SameSite=Strict besides)."""
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.lower() == "https://" + headers.get("host", "").lower()


def basic_credentials(request: HttpRequest) -> Optional[tuple[str, str]]:
    """(e-mail in lower case, password) of the Authorization header, None when there is none that can be read."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        return None
    return (user.strip().lower(), password) if colon else None


def session_cookie(value: str, seconds: int, now_ms: int) -> bytes:
    expires = http_date(now_ms / 1000 + seconds)
    return http_field(
        "set-cookie",
        f"session={value}; Max-Age={seconds}; Expires={expires}; Path=/; HttpOnly; Secure; SameSite=Strict",
    )


def admin_route(methods: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers handler(connection, request, session); without a session the answer is 404 (spec 06 §8.2)."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        def answer(connection: HttpConnection, request: HttpRequest) -> Any:
            session = connection.web.admin.session_of(request)
            if session is None:
                return NOT_FOUND
            if connection.server.ledger.unsettled:
                connection.server.ledger.settle()
            return handler(connection, request, session)

        web_route(methods, pattern, kind="admin")(answer)
        return handler

    return register


def admin_json(value: Any, total: Optional[int] = None) -> WebReply:
    fields = ADMIN_FIELDS + (b"" if total is None else b"x-total-count: %d\r\n" % total)
    return WebReply(200, JSON_TYPE, encode(to_json(value)), fields, False)


def admin_done() -> WebReply:
    return WebReply(200, "", b"", ADMIN_FIELDS, False)


def admin_error(text: str, status: int = 400) -> WebReply:
    return WebReply(status, TEXT_TYPE, encode(text), ADMIN_FIELDS, False)


def admin_body(request: HttpRequest) -> Document:
    """The JSON object of a request. Raises WebRefusal."""
    body = json_body(request, lambda value: value)
    if not isinstance(body, dict):
        raise WebRefusal(admin_error("Error parsing body param.", 500))
    return body


# -- login -------------------------------------------------------------------------------------------------------------


@web_route("GET", "/", kind="admin")
def admin_page(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """The admin page for who is logged in, else the login page."""
    name = "admin.html" if connection.web.admin.session_of(request) is not None else "login.html"
    path = find_file([web_folder()], f"admin/{name}")
    if path is None:
        return web_text(501, "The admin page is not installed: it belongs in web/admin beside the program.")
    with open(path, encoding="utf-8") as file:
        page = file.read().replace("{ADMIN}", escape_html(connection.web.admin_path))
    reply = html_reply(page)
    reply.shared = False
    return reply


@web_route("POST", "/login", kind="admin")
def admin_login(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """Always a redirect to the page; the cookie makes the difference (spec 06 §8.2)."""
    web, server = connection.web, connection.server
    form = read_form(request)
    email, sent = first_of(form, "email", "").strip().lower(), first_of(form, "password", "")
    if not same_site(request):
        return NOT_FOUND

    def verified(right: bool) -> None:
        fields = NO_STORE
        account = server.account(email, "Blynk")
        if right and account is not None:
            log.info(f"{email} logged in on the admin page from {connection.stream.peer if connection.stream else '-'}")
            fields += session_cookie(web.admin.log_in(account), SESSION_DAYS * 86_400, server.loop.now_ms)
        else:
            log.warning(f"a login on the admin page failed ({connection.stream.peer if connection.stream else '-'})")
        reply = redirect(web.admin_path, fields=fields)
        reply.shared = False
        connection.answer(reply)

    web.admin.verify(connection, email, sent, verified)
    return LATER


@web_route("POST", "/logout", kind="admin")
def admin_logout(connection: HttpConnection, request: HttpRequest) -> WebReply:
    if not same_site(request):
        return NOT_FOUND
    connection.web.admin.sessions.pop(cookie_of(request), None)
    reply = redirect(connection.web.admin_path, fields=NO_STORE + session_cookie("", 0, connection.server.loop.now_ms))
    reply.shared = False
    return reply


# -- lists (spec 06 §8.3)


def list_query(request: HttpRequest) -> dict[str, str]:
    return {name: values[0] for name, values in parse_query(request.query).items()}


def sorted_rows(rows: list[Document], query: dict[str, str]) -> list[Document]:
    """Sorted by a field of texts or numbers. Raises WebRefusal for another field."""
    field = query.get("_sortField")
    if not field or not rows:
        return rows
    values = [row.get(field) for row in rows]
    if not any(isinstance(v, (str, int, float)) for v in values):
        raise WebRefusal(BROKEN)
    numbers = all(
        isinstance(v, (int, float)) or v is None or isinstance(v, str) and v.isascii() and v[v[:1] == "-" :].isdigit()
        for v in values
    )

    def key(row: Document) -> Any:
        value = row.get(field)
        if numbers:
            return float(value or 0)
        return "" if value is None else str(value)

    return sorted(rows, key=key, reverse=query.get("_sortDir", "desc").lower() != "asc")


def paged(rows: list[Document], query: dict[str, str]) -> list[Document]:
    try:
        page, each = max(1, int(query.get("_page", "1"))), max(0, int(query.get("_perPage", "30")))
    except ValueError:
        raise WebRefusal(BROKEN) from None
    return rows[(page - 1) * each : page * each]


def filter_of(query: dict[str, str], name: str) -> str:
    """The text of `_filters={"name":"part"}`."""
    try:
        filters = json.loads(query.get("_filters") or "{}")
    except ValueError:
        raise WebRefusal(BROKEN) from None
    return str(filters.get(name) or "") if isinstance(filters, dict) else ""


def pair_list(counts: dict[str, int], request: HttpRequest) -> WebReply:
    rows = [{"name": name, "count": count} for name, count in counts.items()]
    return admin_json(sorted_rows(rows, list_query(request)))


# -- users (spec 06 §8.4)


def user_view(account: Account) -> Document:
    """The user object without what nobody needs to see."""
    out = account.user_document()
    for name in ("pass", "journal"):
        out.pop(name, None)
    return out


def account_of_id(server: Any, text: str) -> Optional[Account]:
    """The account of `<email>-<app>`, split at the last dash; raw, then percent-decoded."""
    for form in (text, percent_decode(text)):
        email, _, app = form.rpartition("-")
        account: Optional[Account] = server.account(email, app)
        if account is not None:
            return account
    return None


@admin_route("GET", "/users")
def admin_users(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    query = list_query(request)
    part = filter_of(query, "name")
    accounts = {a.user_name: a for a in connection.server.accounts.values() if part in a.email}
    heads = [
        {**{k: v for k, v in a.document.items() if k not in ("pass", "journal", "profile")}, "id": n}
        for n, a in accounts.items()
    ]
    chosen_rows = paged(sorted_rows(heads, query), query)
    return admin_json([user_view(accounts[row["id"]]) for row in chosen_rows], len(heads))


@admin_route("GET", "/users/{id}")
def admin_user(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    account = account_of_id(connection.server, request.arguments[0])
    return NOT_FOUND if account is None else admin_json(user_view(account))


@admin_route("GET", "/users/names/getAll")
def admin_user_names(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    return admin_json([{"email": a.email, "appName": a.app} for a in connection.server.accounts.values()])


def may_be_token(server: Any, token: str) -> bool:
    return 0 < len(token) <= 64 and token.isascii() and token.isprintable() and server.device_of_token(token) is None


@admin_route("GET", "/users/token/assign")
def admin_assign_token(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    server, query = connection.server, list_query(request)
    device = server.tokens.get(query.get("old", ""))
    if device is None:
        return admin_error("This token not exists.")
    return _give_token(server, device, query.get("new", ""))


@admin_route("GET", "/users/token/force")
def admin_force_token(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    server, query = connection.server, list_query(request)
    account = server.account(query.get("email", ""), query.get("app", "Blynk"))
    if account is None:
        return admin_error("No user with such email.")
    try:
        device = account.projects[parse_int(query.get("dashId", ""))].devices[parse_int(query.get("deviceId", ""))]
    except (KeyError, ValueError):
        return BROKEN
    return _give_token(server, device, query.get("new", ""))


def _give_token(server: Any, device: Device, token: str) -> WebReply:
    if not may_be_token(server, token):
        return admin_error("This token cannot be used.")
    server.assign_token(device, token)
    device.project.modified()
    return admin_done()


@admin_route("PUT", "/users/{id}")
def admin_put_user(connection: HttpConnection, request: HttpRequest, session: AdminSession) -> WebReply:
    """Replaces a user object; without `pass` the password stays (spec 06 §8.4)."""
    server = connection.server
    account = account_of_id(server, request.arguments[0])
    body = admin_body(request)
    if account is None:
        return BROKEN
    try:
        document = read_document("USER", body)
    except DocumentError:
        raise WebRefusal(admin_error("Error parsing body param.", 500)) from None
    email = document["email"] = str(document.get("email") or account.email).strip().lower()
    document["appName"] = document.get("appName") or account.app
    stored = account.document.get("pass", "")
    given = document.get("pass")
    if given == stored:
        given = None
    if email != account.email and not given:
        return admin_error("You need also change password when changing email.")
    if not valid_identity(email, document["appName"]):
        return admin_error("Wring email address.")
    other = server.account(email, document["appName"])
    if other is not None and other is not account:
        return admin_error("There is such a user already.")

    def hashed(made: Optional[str]) -> None:
        if made is None:
            connection.answer(BROKEN)
            return
        document["pass"] = made
        new = replace_account(server, account, document)
        connection.web.admin.account_replaced(account, new)
        if given:
            connection.web.admin.end_sessions(new, session)
        connection.answer(admin_json(user_view(new)))

    if given:
        java = server.settings.data_password_storage == "mixed" and bool(stored) and not stored.startswith("scrypt$")
        server.hash_password(java_password(given, email), hashed, java)
    else:
        server.loop.soon(hashed, stored)
    return LATER


def replace_account(server: Any, old: Account, document: Document) -> Account:
    """Puts a new user object in the place of an account: tokens are known anew, live connections go on on it, those
    whose project or device is gone end. With another e-mail the old user goes as if deleted."""
    server.ledger.settle()
    document["lastModifiedTs"] = server.loop.now_ms
    for name in ("region", "timersRan"):
        if name in old.document:
            document.setdefault(name, old.document[name])
    document.pop("id", None)
    new = Account(server.ledger, document)
    new.mails, new.mails_since, new.notifications = old.mails, old.mails_since, old.notifications
    apps, boards = old.apps, old.hardware
    old.apps, old.hardware = [], []
    for project in old.projects.values():
        for device in project.devices.values():
            device.sessions = []
    server.forget_account(old)
    server.accounts[new.email, new.app] = new
    for project in new.projects.values():
        for device in project.devices.values():
            if not device.token or device.token in server.tokens:
                server.assign_token(device, new_token())
    server.index(new)
    rebind_sessions(old, new, apps, boards)
    for project in new.projects.values():
        server.automation.project_changed(project)
    if (new.email, new.app) != (old.email, old.app):
        server.store.move_to_deleted(old, lambda _moved: None)
        server.history.delete(old.folder_name)
        if server.database is not None:
            server.database.user_deleted(old.email, old.app)
    new.modified()
    return new


def rebind_sessions(old: Account, new: Account, apps: list[Any], boards: list[Any]) -> None:
    for session in apps:
        share = None if session.share is None else new.projects.get(session.share.id)
        if session.share is not None and share is None:
            session.close()
        else:
            session.account, session.share = new, share
            new.apps.append(session)
    for session in boards:
        project = new.projects.get(session.device.project.id)
        device = None if project is None else project.devices.get(session.device.id)
        if device is None:
            session.close()
            continue
        session.account, session.project, session.device, session.bridges = new, project, device, None
        new.hardware.append(session)
        device.sessions.append(session)
        device.document["status"] = "ONLINE"


@admin_route("DELETE", "/users/{id}")
def admin_delete_user(connection: HttpConnection, request: HttpRequest, session: AdminSession) -> WebReply:
    account = account_of_id(connection.server, request.arguments[0])
    if account is None:
        return NOT_FOUND
    if account is session.account:
        return admin_error("You cannot delete yourself.")
    connection.server.remove_account(account, lambda done: connection.answer(admin_done() if done else NOT_FOUND))
    return LATER


# -- configuration (spec 06 §8.5)


@admin_route("GET", "/config")
def admin_config_list(_connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    query = list_query(request)
    rows = sorted_rows([{"name": name} for name in CONFIG_FILES], query)
    return admin_json(paged(rows, query), len(CONFIG_FILES))


def masked_setting(settings: Settings, section: str, key: str) -> Any:
    """The value of a setting as it may be shown."""
    value = getattr(settings, f"{section}_{key}")
    if value and any(word in key for word in HIDDEN_WORDS):
        return MASKED
    if isinstance(value, str) and "://" in value and any(c in value for c in "@?{"):
        return value.partition("://")[0] + "://" + MASKED  # addresses of gateways may hold their key
    return value


def config_text(settings: Settings, name: str) -> str:
    """Settings in force as the lines of an old properties file."""
    wanted = CONFIG_SECTIONS.get(name)
    lines = []
    for section, key, _kind, _default, _allowed, legacy, _help in SETTINGS:
        others = any(section in sections for sections in CONFIG_SECTIONS.values())
        if legacy and (section in wanted if wanted else not others and section not in ("sms", "database")):
            value = masked_setting(settings, section, key)
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            lines.append(f"{legacy[0]}={text.lower() if isinstance(value, bool) else text}\n")
    return "".join(lines)


@admin_route("GET", "/config/{name}")
def admin_config(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    name = request.arguments[0]
    if name not in CONFIG_FILES or name == "db.properties":
        return WebReply(400, shared=False)
    if name.endswith(".txt"):
        body = connection.server.messengers.text(name, {})
    else:
        body = config_text(connection.server.settings, name)
    return admin_json({"name": name, "body": body})


@admin_route("PUT", "/config/{name}")
def admin_put_config(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    """What can change at run time does, until the next start; nothing is written."""
    name, body = request.arguments[0], admin_body(request)
    if name not in CONFIG_FILES:
        return WebReply(400, shared=False)
    text = str(body.get("body") or "")
    if name == "single_token_mail_body.txt":
        connection.server.messengers.texts.pop(name, None)
        MAIL_TEXTS[name] = text
    elif name == "server.properties":
        merge_settings(connection.server.settings, text)
    return admin_json(body)


def merge_settings(settings: Settings, text: str) -> None:
    """`key=value` lines into the settings that are read while the server runs. Raises WebRefusal for a wrong value."""
    rows = {key: row for row in SETTINGS if row[0] in LIVE_SECTIONS for key in row[5]}
    changes = []
    for line in text.splitlines():
        key, mark, value = line.strip().partition("=")
        row = rows.get(key.strip())
        if mark and row is not None and key[:1] != "#" and value.strip() != MASKED:
            cast, check = SETTING_KINDS[row[2]]
            try:
                changes.append((f"{row[0]}_{row[1]}", check(cast(value.strip()), row[4])))
            except ValueError as problem:
                raise WebRefusal(admin_error(f"{key.strip()} = {value.strip()}: must be {problem}")) from None
    for name, value in changes:
        setattr(settings, name, value)


# -- statistics (spec 06 §8.6)


def stats_document(server: Any) -> Document:
    """The statistics object of the admin page and the log (spec 05 §9.1)."""
    stats, pools = server.stats, server.loop.pools
    accounts = list(server.accounts.values())
    now_ms = server.loop.now_ms
    changes = [
        max([a.document["lastModifiedTs"], *(p.document["updatedAt"] for p in a.projects.values())]) for a in accounts
    ]
    io: Document = {}
    for name, pool in (
        ("messaging", pools["net"]), ("history", pools["disk"]), ("db", None), ("reporting", None), ("getServer", None)
    ):  # fmt: skip
        io[f"{name}ActiveTasks"] = pool.active if pool is not None else 0
        io[f"{name}ExecutedTasks"] = pool.done_count if pool is not None else 0
    commands = {name: stats.commands[number] for name, number in COMMAND_COUNTERS}
    commands["appTotal"] = stats.names.get("appTotal", 0)
    commands["mqttTotal"] = stats.names.get("mqttTotal", 0)
    return {
        "commands": commands,
        "http": {name: stats.names.get(name, 0) for name in HTTP_COUNTERS},
        "ioStat": {
            **io,
            "reportsActive": int(server.reports.running is not None),
            "reportsExecuted": server.reports.made,
            "reportsFutureMapSize": len(server.reports.timers),
        },
        "memoryStat": {"heapBytes": resident_bytes(), "directBytes": 0},
        "oneMinRate": int(stats.rate),
        "registrations": len(accounts),
        "active": sum(1 for t in changes if now_ms - t < 86_400_000),
        "activeWeek": sum(1 for t in changes if now_ms - t < 7 * 86_400_000),
        "activeMonth": sum(1 for t in changes if now_ms - t < 30 * 86_400_000),
        "connected": sum(1 for a in accounts if a.apps and a.hardware),
        "onlineApps": sum(1 for a in accounts if a.apps),
        "totalOnlineApps": sum(len(a.apps) for a in accounts),
        "onlineHards": sum(1 for a in accounts if a.hardware),
        "totalOnlineHards": sum(len(a.hardware) for a in accounts),
    }


def tally(names: Iterable[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        if name is not None and name != "":
            counts[str(name)] = counts.get(str(name), 0) + 1
    return counts


def all_projects(server: Any) -> Iterator[Project]:
    for account in server.accounts.values():
        yield from account.projects.values()


def all_devices(server: Any) -> Iterator[Device]:
    for project in all_projects(server):
        yield from project.devices.values()


def webhook_hosts(server: Any) -> Iterator[str]:
    for project in all_projects(server):
        for widget in project.widgets:
            if widget["type"] == "WEBHOOK" and "://" in widget.get("url", ""):
                yield widget["url"].partition("://")[2].partition("/")[0].rpartition("@")[2]


def profile_sizes(server: Any) -> dict[str, int]:
    return {a.file_name: len(encode(to_json(a.profile()))) for a in server.accounts.values()}


def filled_cells(server: Any) -> Iterator[int]:
    for project in all_projects(server):
        yield sum(w["width"] * w["height"] for w in project.widgets)


def info_of(server: Any, name: str) -> Iterator[Any]:
    for device in all_devices(server):
        yield (device.document.get("hardwareInfo") or {}).get(name)


STATISTICS: dict[str, Callable[[Any], dict[str, int]]] = {
    "/stats/messages": lambda server: stats_document(server)["commands"],
    "/stats/widgets": lambda server: tally(w["type"] for p in all_projects(server) for w in p.widgets),
    "/stats/projectsPerUser": lambda server: tally(len(a.projects) for a in server.accounts.values()),
    "/stats/boards": lambda server: tally(d.document.get("boardType") for d in all_devices(server)),
    "/stats/facebookLogins": lambda server: tally(
        "facebook" if a.document.get("isFacebookUser") else "Blynk" for a in server.accounts.values()
    ),
    "/stats/filledSpace": lambda server: tally(filled_cells(server)),
    "/stats/userProfileSize": profile_sizes,
    "/stats/webHookHosts": lambda server: tally(webhook_hosts(server)),
    "/hardwareInfo/blynkVersion": lambda server: tally(info_of(server, "blynkVersion")),
    "/hardwareInfo/cpuType": lambda server: tally(info_of(server, "cpuType")),
    "/hardwareInfo/connectionType": lambda server: tally(info_of(server, "connectionType")),
    "/hardwareInfo/boards": lambda server: tally(info_of(server, "boardType")),
}


def _statistic(pattern: str, count: Callable[[Any], dict[str, int]]) -> None:
    @admin_route("GET", pattern)
    def answer(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
        return pair_list(count(connection.server), request)


for _pattern, _count in STATISTICS.items():
    _statistic(_pattern, _count)


@admin_route("GET", "/stats/realtime")
def admin_realtime(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    return admin_json([stats_document(connection.server)])


@admin_route("GET", "/stats/requestsPerUser")
def admin_rates(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    rows = []
    for account in connection.server.accounts.values():
        app_rate, hard_rate = (
            int(sum(s.quota.rate for s in sessions)) for sessions in (account.apps, account.hardware)
        )
        if app_rate or hard_rate:
            rows.append({"name": account.email, "appRate": app_rate, "hardRate": hard_rate})
    return admin_json(sorted_rows(rows, list_query(request)))


@admin_route("GET", "/stats/ips")
def admin_ips(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    query = list_query(request)
    part = filter_of(query, "ip")
    rows: list[Document] = []
    for account in connection.server.accounts.values():
        for kind, sessions in (("app", account.apps), ("hard", account.hardware)):
            for session in sessions:
                if part in session.peer:
                    rows.append({"id": len(rows), "name": account.user_name, "ip": session.peer, "type": kind})
    return admin_json(sorted_rows(rows, query))


# -- what our own page asks besides


@admin_route("GET", "/api/state")
def admin_state(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    """The server at a glance."""
    server = connection.server
    accounts = server.accounts.values()
    streams = server.loop.streams
    return admin_json(
        {
            "version": __version__,
            "python": sys.version.split()[0],
            "host": server.host,
            "ports": {name: getattr(server.settings, f"ports_{name}") for name in ("http", "https", "mqtt")},
            "now": server.loop.now_ms,
            "started": server.started_ms,
            "memory": resident_bytes(),
            "connections": len(streams),
            "tls": sum(1 for s in streams if s.secure),
            "apps": sum(len(a.apps) for a in accounts),
            "boards": sum(len(a.hardware) for a in accounts),
            "accounts": len(accounts),
            "projects": sum(len(a.projects) for a in accounts),
            "devices": sum(1 for _ in all_devices(server)),
            "messages": server.stats.messages,
            "rate": server.stats.rate,
            "folder": server.store.folder,
            "diskFree": free_bytes(server),
            "problems": server_problems(server),
        }
    )


@admin_route("GET", "/api/accounts")
def admin_accounts(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    rows = []
    for account in connection.server.accounts.values():
        devices = [d for p in account.projects.values() for d in p.devices.values()]
        document = account.document
        rows.append(
            {
                "id": account.user_name, "email": account.email, "app": account.app,
                "admin": bool(document.get("isSuperAdmin")), "energy": document.get("energy", 0),
                "projects": len(account.projects), "devices": len(devices), "online": sum(d.online for d in devices),
                "apps": len(account.apps), "lastLogin": document.get("lastLoggedAt", 0),
                "lastIp": document.get("lastLoggedIP", ""),
            }
        )  # fmt: skip
    return admin_json(rows)


@admin_route("GET", "/api/devices")
def admin_devices(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    rows = []
    for device in all_devices(connection.server):
        document, project = device.document, device.project
        info = document.get("hardwareInfo") or {}
        seen = max(document.get(name) or 0 for name in ("connectTime", "disconnectTime", "dataReceivedAt"))
        rows.append(
            {
                "account": project.account.user_name, "project": project.name or "New Project", "projectId": project.id,
                "id": device.id, "name": device.name or "New Device", "board": document.get("boardType", ""),
                "online": device.online, "seen": seen, "ip": document.get("lastLoggedIP", ""),
                "library": info.get("blynkVersion", ""), "firmware": info.get("version", ""),
                "build": info.get("build", ""),
                "connection": info.get("connectionType", ""), "ota": document.get("deviceOtaInfo"),
            }
        )  # fmt: skip
    return admin_json(rows)


@admin_route("GET", "/api/log")
def admin_log(_connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    return admin_json(list(log.recent))


@admin_route("GET", "/api/settings")
def admin_settings(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    """Every setting in force, secrets masked."""
    settings = connection.server.settings
    rows = []
    for section, key, _kind, default, _allowed, _legacy, text in SETTINGS:
        value = getattr(settings, f"{section}_{key}")
        usual = list(default) if isinstance(default, tuple) else default
        shown = masked_setting(settings, section, key)
        rows.append({"section": section, "key": key, "value": shown, "default": value == usual, "help": text})
    return admin_json({"files": settings.files, "warnings": settings.warnings, "settings": rows})


@admin_route("POST", "/api/accounts")
def admin_create_account(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    """{"email", "password", "app"}: a new account; the password comes in clear, over TLS."""
    server, body = connection.server, admin_body(request)
    email, password = str(body.get("email") or "").strip().lower(), str(body.get("password") or "")
    app_name = str(body.get("app") or "Blynk")
    if not valid_identity(email, app_name):
        return admin_error("That is no e-mail address.")
    if not password:
        return admin_error("The password is empty.")
    if server.account(email, app_name) is not None:
        return admin_error("There is such an account already.")

    def hashed(stored: Optional[str]) -> None:
        if stored is None:
            connection.answer(BROKEN)
        elif server.account(email, app_name) is not None:
            connection.answer(admin_error("There is such an account already."))
        else:
            server.new_account(email, app_name, stored)
            connection.answer(admin_done())

    server.hash_password(java_password(password, email), hashed)
    return LATER


@admin_route("POST", "/api/accounts/{id}/password")
def admin_change_password(connection: HttpConnection, request: HttpRequest, session: AdminSession) -> WebReply:
    server = connection.server
    account = account_of_id(server, request.arguments[0])
    password = str(admin_body(request).get("password") or "")
    if account is None:
        return NOT_FOUND
    if not password:
        return admin_error("The password is empty.")

    def done(*_result: Any) -> None:
        connection.web.admin.end_sessions(account, session)
        connection.answer(admin_done())

    server.set_password(account, java_password(password, account.email), done)
    return LATER


@admin_route("POST", "/api/accounts/{id}/energy")
def admin_change_energy(connection: HttpConnection, request: HttpRequest, _session: AdminSession) -> WebReply:
    account = account_of_id(connection.server, request.arguments[0])
    energy = admin_body(request).get("energy")
    if account is None:
        return NOT_FOUND
    if type(energy) is not int or not 0 <= energy < 1 << 31:
        return admin_error("Energy is a number from 0 to 2147483647.")
    account.document["energy"] = energy
    account.modified()
    return admin_done()


@admin_route("GET", "/api/backup")
def admin_backup(connection: HttpConnection, _request: HttpRequest, _session: AdminSession) -> WebReply:
    """A back-up of the data folder as it is now, to keep elsewhere."""
    server = connection.server
    path = server.store.path(f".backup-{new_token()}.tmp")

    def made(_lines: Any, problem: Optional[Exception]) -> None:
        if problem is not None:
            log.error(f"back-up for the admin page: {problem}")
            connection.answer(admin_error(f"The back-up cannot be made: {problem}", 503))
            return
        day = time.strftime("%Y-%m-%d", time.localtime(server.loop.now_ms / 1000))
        fields = http_field("content-disposition", f'attachment; filename="blynk-backup-{day}.tar.gz"') + NO_STORE
        reply = WebReply(200, STATIC_TYPES["gz"], b"", fields, False)
        file = open(path, "rb")
        try:
            os.remove(path)  # it lives until it is sent
        except OSError:
            pass  # not on Windows: the next start cleans up
        reply.file = (file, os.fstat(file.fileno()).st_size)
        connection.answer(reply)

    backup_running(server, path, made)
    return LATER


# -- 12e Firmware ------------------------------------------------------------------------------------------------------
# `/admin/ota/…` (spec 06 §4): the administrator uploads a firmware, boards are told where it is, at once or when
# they report another build. Uploads go to disk as they come, in <data>/static/ota; boards fetch them from there, piece
# by piece, with plain HTTP.

OTA_FOLDER = ("static", "ota")
OTA_CHUNK = 65_536  # bytes given to the disk at once
OTA_WAITING = 4  # chunks that may wait for the disk; then the client has to
OTA_HEADER_LIMIT = 8192  # of one part of the form
BUILD_MARK = b"\0build\0"


class FormFile:
    """Takes the first file out of a multipart/form-data body: feed(bytes) gives the bytes of the file among them.

    filename: None until its part began; done: it has ended. Errors: HttpError(400).
    """

    __slots__ = ("mark", "buffer", "filename", "done", "in_file")

    def __init__(self, boundary: str) -> None:
        self.mark = b"\r\n--" + boundary.encode("latin-1", "replace")
        self.buffer = bytearray(b"\r\n")  # so that the first boundary looks like the others
        self.filename: Optional[str] = None
        self.done = self.in_file = False

    def feed(self, data: bytes) -> bytes:
        if self.done:
            return b""
        self.buffer += data
        while not self.in_file:
            if not self._next_part():
                return b""
        at = self.buffer.find(self.mark)
        if at >= 0:
            self.done = True
            piece = bytes(self.buffer[:at])
            self.buffer.clear()
            return piece
        safe = max(0, len(self.buffer) - len(self.mark))  # the rest may be the beginning of the boundary
        piece = bytes(self.buffer[:safe])
        del self.buffer[:safe]
        return piece

    def _next_part(self) -> bool:
        """Reads on to the content of the next part that is a file; False: more bytes are needed."""
        buffer = self.buffer
        at = buffer.find(self.mark)
        if at < 0:
            del buffer[: max(0, len(buffer) - len(self.mark))]
            return False
        end = buffer.find(b"\r\n\r\n", at + len(self.mark))
        if end < 0:
            del buffer[:at]
            if len(buffer) > OTA_HEADER_LIMIT:
                raise HttpError(400, "part header too long")
            return False
        head = bytes(buffer[at + len(self.mark) : end]).decode("utf-8", "replace")
        del buffer[: end + 2]  # one line end stays: the content may be empty
        if "filename=" in head.lower():
            del buffer[:2]
            self.filename = header_parameter(head, "filename") or ""
            self.in_file = True
        return True


def header_parameter(text: str, name: str) -> Optional[str]:
    """`…; boundary="x"` -> x"""
    at = text.lower().find(name + "=")
    if at < 0:
        return None
    rest = text[at + len(name) + 1 :]
    if rest[:1] == '"':
        return rest[1:].partition('"')[0]
    return rest.replace("\r", ";").partition(";")[0].strip()


def find_build(path: str) -> Optional[str]:
    """The build text of a firmware: between `\\0build\\0` and the next NUL (spec 06 §4.2). Worker thread."""
    tail = b""
    with open(path, "rb") as file:
        while True:
            block = file.read(OTA_CHUNK)
            if not block:
                return None
            data = tail + block
            at = data.find(BUILD_MARK)
            if at >= 0:
                text = data[at + len(BUILD_MARK) :] + file.read(128)
                build, end, _ = text.partition(b"\0")
                return build.decode("utf-8", "replace") if end and len(build) <= 100 else None
            tail = data[-len(BUILD_MARK) + 1 :]


class FirmwareUpload:
    """The body of POST /admin/ota/start on its way to the disk. Nothing is written before the sender is known to be the
    administrator; who is not gets his answer when he has sent it all."""

    __slots__ = (
        "connection", "server", "request", "form", "admin", "refusal", "chunk", "waiting", "path", "file", "ended",
        "broken",
    )  # fmt: skip

    def __init__(self, connection: HttpConnection, request: HttpRequest) -> None:
        self.connection, self.server, self.request = connection, connection.server, request
        self.form = FormFile(header_parameter(request.headers.get("content-type", ""), "boundary") or "\0")
        self.admin: Optional[str] = None  # e-mail, once the password was found right
        self.refusal: Optional[WebReply] = None
        self.chunk = bytearray()
        self.waiting = 0  # chunks given to the disk and not yet written
        self.path = self.server.store.path(*OTA_FOLDER, f".upload-{new_token()}")
        self.file: Any = None
        self.ended = False
        self.broken: Optional[Exception] = None
        self.server.web.admin.authorize(connection, request, self._authorized)

    def _authorized(self, email: Optional[str], refusal: Optional[WebReply]) -> None:
        self.admin, self.refusal = email, refusal
        if self.connection.stream is not None and not self.ended:
            self.connection.stream.resume()
        self._step()

    # -- what the connection calls

    def write(self, piece: bytes) -> None:
        if self.refusal is not None or self.broken is not None:
            return
        self.chunk += self.form.feed(piece)
        self._step()

    def end(self) -> WebReply:
        self.ended = True
        self._step()
        return LATER

    def abort(self) -> None:
        """The client went away."""
        self.refusal = NOT_FOUND
        self.chunk.clear()
        self.server.loop.submit("disk", self._forget)

    # -- to the disk

    def _step(self) -> None:
        if self.refusal is not None:
            self.chunk.clear()
        elif self.admin is None or self.waiting >= OTA_WAITING:
            if not self.ended and self.connection.stream is not None:
                self.connection.stream.pause()
            return
        elif len(self.chunk) >= OTA_CHUNK or (self.ended and self.chunk):
            data, self.chunk = bytes(self.chunk), bytearray()
            self.waiting += 1
            if not self.server.loop.submit("disk", self._write, data, done=self._written):
                self._written(None, OSError(errno.EAGAIN, "the disk is busy"))
        if self.ended and not self.waiting and not self.chunk:
            self.ended = False  # once
            self.server.loop.soon(self._finish)

    def _write(self, data: bytes) -> None:
        if self.file is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.file = open(self.path, "wb")
        self.file.write(data)

    def _written(self, _result: Any, problem: Optional[Exception]) -> None:
        self.waiting -= 1
        if problem is not None and self.broken is None:
            self.broken = problem
            log.error(f"firmware upload: {getattr(problem, 'strerror', None) or problem}")
        if not self.ended and self.connection.stream is not None and self.waiting < OTA_WAITING:
            self.connection.stream.resume()
        self._step()

    def _forget(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
            try:
                os.remove(self.path)
            except OSError:
                pass

    def _finish(self) -> None:
        """All is on disk: the name, the build, and who is to get it."""
        reply = self.refusal or (BROKEN if self.broken is not None else None)
        if reply is None and (self.form.filename is None or not self.form.done):
            reply = web_text(500, "Can't find binary data in request.")
        order = None
        if reply is None:
            try:
                order = self.server.web.ota.order_for(parse_query(self.request.query), str(self.admin))
            except WebRefusal as refusal:
                reply = refusal.reply
        if reply is not None:
            self.server.loop.submit("disk", self._forget)
            self.connection.answer(reply)
            return
        name = firmware_name(self.form.filename or "")

        def done(build: Optional[str], problem: Optional[Exception]) -> None:
            if problem is not None or order is None:
                log.error(f"firmware upload: {problem}")
                self.connection.answer(BROKEN)
            else:
                self.connection.answer(order(f"/static/ota/{name}", build))

        if not self.server.loop.submit("disk", self._keep, name, done=done):
            self.connection.answer(WebReply(503))

    def _keep(self, name: str) -> Optional[str]:
        """Worker thread: gives the file its name and looks for its build."""
        if self.file is None:
            self._write(b"")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.file = None
        final = os.path.join(os.path.dirname(self.path), name)
        os.replace(self.path, final)
        return find_build(final)


def firmware_name(filename: str) -> str:
    """A name nobody can guess, with the harmless part of the ending of the client's."""
    dot, ending = filename.rpartition(".")[1:]
    ending = "".join(c for c in ending if c.isascii() and c.isalnum())[:10]
    return f"FUp_{int.from_bytes(os.urandom(12), 'big')}_upload{'.' + ending if dot and ending else ''}"


class Ota:
    """Which firmware waits for whom: one order for all, one for each user; in memory only (spec 06 §4.2)."""

    __slots__ = ("server", "for_all", "for_users")

    def __init__(self, server: Any) -> None:
        self.server = server
        self.for_all: Optional[tuple[str, str, str, int, str]] = None  # build, path, by, at ms, project name
        self.for_users: dict[tuple[str, str], tuple[str, str, str, int, str]] = {}

    def pending(self, device: Device, build: Optional[str]) -> Optional[str]:
        """The URL of a firmware that waits for a device with this build, which is noted in the device; or None. Called
        when it reports itself (spec 06 §4.3)."""
        if not build or (self.for_all is None and not self.for_users):
            return None
        account = device.project.account
        for order in (self.for_all, self.for_users.get((account.email, account.app))):
            if order is None or order[0] == build:
                continue
            if order[4] and order[4].lower() != (device.project.name or "").lower():
                continue
            self.note(device, order[2], order[3])
            return web_base(self.server) + order[1]
        return None

    def note(self, device: Device, by: str, at_ms: int) -> None:
        now_ms = self.server.loop.now_ms
        device.document["deviceOtaInfo"] = {"otaInitiatedBy": by, "otaInitiatedAt": at_ms, "otaUpdateAt": now_ms}
        device.project.modified()

    def stop(self) -> None:
        self.for_all = None
        self.for_users.clear()

    def start_device(self, device: Device, path: str, by: str) -> None:
        """Tells the board at once."""
        body = f"ota\0{web_base(self.server)}{path}".encode("ascii", "replace")
        to_hardware((device,), Command.BLYNK_INTERNAL, ID_TIMER, body, fit=False)
        self.note(device, by, self.server.loop.now_ms)

    def online_device(self, token: str) -> Device:
        """The device of a token with a board connected. Raises WebRefusal."""
        device: Optional[Device] = self.server.device_of_token(token)
        if device is None:
            raise WebRefusal(INVALID_TOKEN_REPLY)
        if not device.online:
            account = device.project.account
            known = account.apps or account.hardware
            raise WebRefusal(web_text(400, "No device in session." if known else "Device wasn't connected yet."))
        return device

    def order_for(self, query: dict[str, list[str]], by: str) -> Callable[[str, Optional[str]], WebReply]:
        """What to do with the stored file: a function of its path and build that gives the reply. Raises WebRefusal."""
        token, user, project = (first_of(query, name, "") for name in ("token", "user", "project"))
        if token:
            device = self.online_device(token)

            def tell(path: str, _build: Optional[str]) -> WebReply:
                self.start_device(device, path, by)
                return WebReply(200, JSON_TYPE, path.encode(), b"", False)

            return tell
        key = (user.strip().lower(), first_of(query, "appName", "Blynk"))
        if user and self.server.account(*key) is None:
            raise WebRefusal(web_text(400, "Requested user not found."))

        def remember(path: str, build: Optional[str]) -> WebReply:
            if not build:
                return BROKEN
            order = (build, path, by, self.server.loop.now_ms, project)
            if user:
                self.for_users[key] = order
            else:
                self.for_all = order
            return WebReply(200, JSON_TYPE, path.encode(), b"", False)

        return remember


@web_route("POST", "/ota/start", kind="admin", streams=True)
def ota_upload(connection: HttpConnection, request: HttpRequest) -> Any:
    if not connection.server.web.admin.has_credentials(request):
        return NOT_FOUND
    return FirmwareUpload(connection, request)


@web_route("GET", "/ota/start", kind="admin")
def ota_start(connection: HttpConnection, request: HttpRequest) -> WebReply:
    """Announces a file that is there already to the board of a token (spec 06 §4.1)."""
    server = connection.server

    def authorized(email: Optional[str], refusal: Optional[WebReply]) -> None:
        if refusal is not None:
            connection.answer(refusal)
            return
        query = parse_query(request.query)
        token, name = first_of(query, "token"), first_of(query, "fileName", "firmware_ota.bin")
        try:
            if token is None:
                raise WebRefusal(BROKEN)
            device = server.web.ota.online_device(token)
            if safe_path("/" + name) is None or not name.isascii():
                raise WebRefusal(web_text(400, "Wrong file name."))
            server.web.ota.start_device(device, f"/static/ota/{name}", device.project.account.email)
            connection.answer(WebReply(200, shared=False))
        except WebRefusal as answer:
            connection.answer(answer.reply)

    server.web.admin.authorize(connection, request, authorized)
    return LATER


@web_route("GET", "/ota/stop", kind="admin")
def ota_stop(connection: HttpConnection, request: HttpRequest) -> WebReply:
    def authorized(_email: Optional[str], refusal: Optional[WebReply]) -> None:
        if refusal is None:
            connection.server.web.ota.stop()
        connection.answer(refusal or WebReply(200, shared=False))

    connection.server.web.admin.authorize(connection, request, authorized)
    return LATER


# -- 12f MQTT ----------------------------------------------------------------------------------------------------------
# Boards that speak MQTT (spec 01 §10): user name = e-mail of the account, password = device token. What they publish
# to `hardware` ("vw 5 123") is a value. Ours beyond the Java server: a board that subscribes to `hardware` gets what
# the app writes, in the same form; QoS 1 and 2 are acknowledged; a board that connects so is online, and its values
# count for rules.

MQTT_TOPIC = "hardware"
MQTT_CONNECT_SECONDS = 20.0
MQTT_UNRELEASED = 100  # messages of QoS 2 whose release is waited for
MQTT_ACCEPTED, MQTT_WRONG_PROTOCOL, MQTT_BAD_LOGIN = 0, 1, 4


class MqttConnection(HardwareSession):
    """A board on the MQTT port: a hardware session with another wire form."""

    __slots__ = ("codec", "subscribed", "qos", "next_id", "received_ids")

    def __init__(self, server: Any, stream: Any) -> None:
        super().__init__(server, stream)
        stream.protocol = self
        stream.set_idle(MQTT_CONNECT_SECONDS)
        self.codec = MqttCodec()
        self.subscribed = b""  # the topic as the board spells it, once it has subscribed
        self.qos = 0
        self.next_id = 0
        self.received_ids: set[int] = set()  # of QoS 2, until released

    # -- towards the board

    def send(self, command: int, id: int, body: bytes) -> None:
        """Values reach a board that has subscribed; it has no words for the other commands."""
        if command != Command.HARDWARE or not self.subscribed:
            return
        if self.qos:
            self.next_id = self.next_id % 65535 + 1
        text = body.replace(b"\0", b" ")
        self.stream.write(mqtt_publish(self.subscribed, text, self.qos, self.next_id if self.qos else 0))

    def status(self, id: int, status: int) -> None:
        """MQTT has no answer to a value."""

    # -- from the board

    def received(self, data: bytes) -> None:
        codec = self.codec
        codec.feed(data)
        try:
            while not self.stream.closing:
                packet = codec.next()
                if packet is None:
                    break
                self.packet(packet)
        except MqttError as problem:
            if log.debugging:
                log.debug(f"MQTT of {self.peer}: {problem}")
            self.stream.close()

    def packet(self, packet: tuple[Any, ...]) -> None:
        kind = packet[0]
        if self.device is None:
            if kind == MQTT_CONNECT:
                self.connect(*packet[1:])
            else:
                self.stream.close()
            return
        handler = MQTT_HANDLERS.get(kind)
        if handler is not None:
            handler(self, *packet[1:])

    def connect(
        self, name: str, level: int, _client_id: str, user: Optional[str], password: Optional[str], keep_alive: int
    ) -> None:
        server = self.server
        if (name, level & 127) not in MQTT_PROTOCOLS:
            self.refuse(MQTT_WRONG_PROTOCOL)
            return
        device = server.device_of_token(password or "")
        if device is None or not user or user.strip().lower() != device.project.account.email.lower():
            if log.debugging:
                log.debug(f"MQTT of {self.peer}: wrong user or token")
            self.refuse(MQTT_BAD_LOGIN)
            return
        idle = server.settings.timeouts_hardware_idle_s
        self.stream.set_idle(max(keep_alive * 1.5, idle) if idle or keep_alive else 0)
        self.stream.write(mqtt_connack(MQTT_ACCEPTED))
        server.stats.count("mqttTotal")
        self.join(device, 65535)

    def refuse(self, code: int) -> None:
        self.stream.write(mqtt_connack(code))
        self.stream.close()

    def publish(self, topic: str, payload: bytes, qos: int, packet_id: int, _retain: bool) -> None:
        if qos == 2:
            self.stream.write(mqtt_ack(MQTT_PUBREC, packet_id))
            if packet_id in self.received_ids:
                return
            if len(self.received_ids) >= MQTT_UNRELEASED:
                self.received_ids.clear()
            self.received_ids.add(packet_id)
        self.server.stats.count("mqttTotal")
        self.server.stats.messages += 1
        if topic.lower() == MQTT_TOPIC:
            self.value(payload.replace(b" ", b"\0"), packet_id or 65535)
        if qos == 1:
            self.stream.write(mqtt_ack(MQTT_PUBACK, packet_id))

    def value(self, body: bytes, id: int) -> None:
        """`vw\\05\\0123`: as from any board; what is no write is only shown to the apps."""
        device = self.device
        assert device is not None
        text = body.decode("utf-8", "replace")
        if len(text) < 4:
            return
        if self.server.ledger.unsettled:
            self.server.ledger.settle()
        body = encode(text)
        try:
            write = parse_write(text)
            if write is None:
                if device.project.active:
                    to_apps(device.project, Command.HARDWARE, id, b"%s\0%s" % (device.prefix, body))
            else:
                device_write(self.server, device, *write, id, body, self)
        except (Refused, ValueError):
            if log.debugging:
                log.debug(f"MQTT of {self.peer}: no value: {text[:40]!r}")

    def subscribe(self, packet_id: int, topics: list[tuple[str, int]]) -> None:
        codes = []
        for topic, qos in topics:
            if topic.lower() in (MQTT_TOPIC, "#", "+"):
                self.subscribed = topic.encode() if topic.lower() == MQTT_TOPIC else MQTT_TOPIC.encode()
                self.qos = min(qos, 1)
                codes.append(self.qos)
            else:
                codes.append(0x80)
        self.stream.write(mqtt_suback(packet_id, codes))

    def unsubscribe(self, packet_id: int, topics: list[str]) -> None:
        if any(topic.lower() in (MQTT_TOPIC, "#", "+") for topic in topics):
            self.subscribed = b""
        self.stream.write(mqtt_ack(MQTT_UNSUBACK, packet_id))

    def release(self, packet_id: int) -> None:
        self.received_ids.discard(packet_id)
        self.stream.write(mqtt_ack(MQTT_PUBCOMP, packet_id))

    def ping(self) -> None:
        self.stream.write(mqtt_packet(MQTT_PINGRESP, b""))

    def disconnect(self) -> None:
        self.stream.close()


MQTT_HANDLERS: dict[int, Callable[..., None]] = {
    MQTT_PUBLISH: MqttConnection.publish,
    MQTT_SUBSCRIBE: MqttConnection.subscribe,
    MQTT_UNSUBSCRIBE: MqttConnection.unsubscribe,
    MQTT_PUBREL: MqttConnection.release,
    MQTT_PINGREQ: MqttConnection.ping,
    MQTT_DISCONNECT: MqttConnection.disconnect,
}


# ======================================================================================================================
# 13. LAN
# ======================================================================================================================
# Where this server can be reached: addresses and host name; the certificates of the TLS ports, own ones made with the
# openssl program; the announcement by mDNS. Slow things (making a key, the zeroconf package) happen in threads of
# their own, and the plain ports never wait for them.

OPENSSL_MISSING = (
    "the openssl program is not on this machine, so there is no certificate and TLS connections are refused; the plain "
    "ports are served. Install openssl (Debian: sudo apt install openssl), or set tls.cert and tls.key"
)
ACME_CERTIFICATE, ACME_KEY = "fullchain.crt", "privkey.pem"  # what the Java server's ACME client left (spec 07 §6.1)
OWN_CERTIFICATES_END = 2524608000  # 2050-01-01: the last day that certificates write with a year of two digits

# Best first. The RSA key exchange at the end is what boards with axTLS (ESP8266) know; Python's own list leaves it out.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:!aNULL:!eNULL:!PSK:!SRP"
TLS_VERSIONS = {"1.0": "TLSv1", "1.1": "TLSv1_1", "1.2": "TLSv1_2", "1.3": "TLSv1_3"}

# What OpenSSL says, and what to do about it. The first word that occurs in its message counts.
TLS_PROBLEMS = (
    ("KEY_VALUES_MISMATCH", "the private key does not belong to the certificate"),
    ("EE_KEY_TOO_SMALL", "its key is too short: make one of RSA 2048 bits or EC P-256"),
    ("MD_TOO_WEAK", "it is signed with an outdated method: make one with SHA-256"),
    ("BAD_DECRYPT", "tls.key_password is not the password of the private key"),
    ("BAD_PASSWORD_READ", "the private key is encrypted: set tls.key_password"),
    ("NO_START_LINE", "it holds no certificate or no private key in PEM form (-----BEGIN …)"),
    ("PEM", "it holds no certificate or no private key in PEM form (-----BEGIN …), or tls.key_password is wrong"),
)

# --- addresses --------------------------------------------------------------------------------------------------------

SIOCGIFADDR = 0xC0206921 if sys.platform == "darwin" else 0x8915
VIRTUAL_INTERFACES = ("lo", "docker", "veth", "br-", "virbr", "ifb", "dummy", "awdl", "utun")


def interface_addresses() -> list[tuple[str, str]]:
    """(interface, IPv4 address) of each interface that has one, in the system's order. Windows: names are ""."""
    if sys.platform == "win32":
        try:
            found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        except OSError:
            return []
        return [("", address) for address in dict.fromkeys(str(row[4][0]) for row in found)]
    import fcntl

    addresses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no address
            addresses.append((name, socket.inet_ntoa(answer[20:24])))
    return addresses


def lan_addresses() -> list[str]:
    """IPv4 addresses that other hosts may use: no loopback, no container bridges; link-local ones only if alone."""
    found = interface_addresses()
    real = [a for name, a in found if not a.startswith("127.") and not (name and name.startswith(VIRTUAL_INTERFACES))]
    return [a for a in real if not a.startswith("169.254.")] or real


def default_route_address() -> str:
    """The source address of the default route, or "". A connected UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # TEST-NET-1: never a host of this network
            address = str(sock.getsockname()[0])
        except OSError:
            return ""
    return "" if address == "0.0.0.0" else address


def detect_host(settings: Settings) -> str:
    """The host in links and QR codes (spec 07 §5.4): the setting, the address of an interface with the set prefix, the
    default route's address, any other, else 127.0.0.1."""
    if settings.server_host:
        return str(settings.server_host)
    prefix = settings.server_interface
    usable = [(n, a) for n, a in interface_addresses() if not a.startswith(("127.", "169.254."))]
    matching = [address for name, address in usable if prefix and name.startswith(prefix)]
    return (matching[:1] or [default_route_address()])[0] or (lan_addresses() or ["127.0.0.1"])[0]


def host_name() -> str:
    """The first label of this host's name, in the letters a DNS name may have."""
    name = socket.gethostname().partition(".")[0].lower()
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c == "-")).strip("-") or "blynk"


# --- certificates -----------------------------------------------------------------------------------------------------


def make_tls_context(pairs: list[tuple[str, str]], password: str, min_version: str) -> ssl.SSLContext:
    """A server context with each (certificate file, key file or "" when both are in one). Raises OSError, ssl.SSLError.

    An EC and an RSA pair live side by side: OpenSSL takes the EC one (its signature costs a Pi a tenth) for whoever
    knows it. TLS 1.3 tickets are off: they save no key exchange, and each costs memory while it is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old = min_version in ("1.0", "1.1")  # the library's security level 1 and up have no signature for them
    context.set_ciphers(CIPHERS + (":@SECLEVEL=0" if old else ""))
    if min_version:
        import warnings

        with warnings.catch_warnings():  # the operator knows that 1.0 is old
            warnings.simplefilter("ignore")
            context.minimum_version = getattr(ssl.TLSVersion, TLS_VERSIONS[min_version])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    for cert, key in pairs:
        context.load_cert_chain(cert, key or None, lambda: password)  # a callable: never a prompt on the terminal
    return context


def explain_tls_problem(error: Exception) -> str:
    """One line for what load_cert_chain raised."""
    if isinstance(error, ssl.SSLError):
        text = str(error).upper().replace(" ", "_")
        return next((advice for word, advice in TLS_PROBLEMS if word in text), str(error))
    if isinstance(error, PermissionError):
        return "this user may not read it (Debian: sudo chgrp, then chmod g+r, or copy it)"
    return getattr(error, "strerror", None) or str(error)


class Certificates:
    """The TLS context of the moment: `context` (None until there is one) for each new connection.

    start() raises SettingsError when certificate files were given and cannot be used. on_ready() is called in the loop
    once, when the first context is there. Files are looked at every tls.reload_check_s and at reload(); connections
    keep the context they began with.
    """

    def __init__(self, server: Any) -> None:
        self.settings, self.loop = server.settings, server.loop
        self.folder = os.path.join(self.settings.data_folder, "tls")
        self.context: Optional[ssl.SSLContext] = None
        self.on_ready: Optional[Callable[[], object]] = None
        self.pairs: list[tuple[str, str]] = []
        self.stamp: object = None
        self.failed_stamp: object = None
        self.timer: Optional[Timer] = None
        self.making = False
        self.stopped = False
        self.told = ""

    def start(self) -> None:
        self.pairs = self._wanted()
        if self.pairs:
            try:
                self._load()
            except (OSError, ValueError) as error:
                raise SettingsError(self._problem(error)) from None
        else:
            self._load_own()
        self._check_later()

    def stop(self) -> None:
        self.stopped = True
        if self.timer is not None:
            self.timer.cancel()

    def reload(self) -> None:
        """Takes changed files up; SIGHUP calls it. A file that is broken leaves everything as it is."""
        self.pairs = self._wanted()
        if not self.pairs:
            self._load_own()
            return
        stamp = self._stamp()
        if stamp == self.stamp:
            return
        try:
            self._load()
            log.info(f"certificate loaded again: {self.pairs[0][0]}")
        except (OSError, ValueError) as error:
            if stamp == self.failed_stamp or stamp is None:  # not just between two files that are being replaced
                self._tell(f"{self._problem(error)}; the certificate from before stays in use")
            self.failed_stamp = stamp

    def _check_later(self) -> None:
        if not self.stopped:
            self.timer = self.loop.call_later(self.settings.tls_reload_check_s, self._check)

    def _check(self) -> None:
        try:
            self.reload()
        finally:
            self._check_later()

    def _wanted(self) -> list[tuple[str, str]]:
        """The operator's files (spec 07 §6.1), or none: own ones are to be used."""
        if os.path.isfile(ACME_CERTIFICATE) and os.path.isfile(ACME_KEY):
            return [(os.path.abspath(ACME_CERTIFICATE), os.path.abspath(ACME_KEY))]
        if self.settings.tls_cert:
            return [(self.settings.tls_cert, self.settings.tls_key)]
        return []

    def _stamp(self) -> object:
        """Changes when a file changes; None when one is not there."""
        try:
            stats = [os.stat(path) for pair in self.pairs for path in pair if path]
        except OSError:
            return None
        return [(s.st_mtime_ns, s.st_size, s.st_ino) for s in stats]

    def _load(self) -> None:
        stamp = self._stamp()
        settings = self.settings
        self.context = make_tls_context(self.pairs, settings.tls_key_password, settings.tls_min_version)
        self.stamp, self.failed_stamp, self.told = stamp, None, ""
        on_ready, self.on_ready = self.on_ready, None
        if on_ready is not None:
            on_ready()

    def _problem(self, error: Exception) -> str:
        """`file: what is wrong`, with the file that it is about."""
        for path in [path for pair in self.pairs for path in pair if path]:
            try:
                with open(path, "rb"):
                    pass
            except OSError as unreadable:
                return f"{path}: cannot be used for TLS: {explain_tls_problem(unreadable)}"
        return f"{' with '.join(filter(None, self.pairs[0]))}: cannot be used for TLS: {explain_tls_problem(error)}"

    def _tell(self, line: str) -> None:
        """Logs an error once, not at every check."""
        if line != self.told:
            self.told = line
            log.error(line)

    # -- own certificates --------------------------------------------------------------------------------------------

    def _load_own(self) -> None:
        """Loads what is in <data>/tls and has the rest made; a broken or outdated pair is set aside."""
        if self.making:
            return
        have, missing = [], []
        for kind in MAKE_KEY:
            pair = (os.path.join(self.folder, f"{kind}.crt"), os.path.join(self.folder, f"{kind}.key"))
            if self._usable(pair):
                have.append(pair)
            else:
                missing.append(kind)
        self.pairs = have
        if have and self._stamp() != self.stamp:
            try:
                self._load()
            except (OSError, ValueError) as error:
                self._tell(self._problem(error))
        if missing:
            self.making = True
            threading.Thread(target=self._make, args=(missing,), name="blynk-tls", daemon=True).start()

    def _usable(self, pair: tuple[str, str]) -> bool:
        if not all(map(os.path.isfile, pair)):
            return False
        try:
            make_tls_context([pair], "", "")
            if certificate_facts(pair[0]).get("ends", OWN_CERTIFICATES_END) > self.loop.now_ms / 1000 + 86400:
                return True
            problem = "it has expired"
        except (OSError, ValueError) as error:
            problem = explain_tls_problem(error)
        log.warning(f"{pair[0]}: {problem}; it is set aside as {pair[0]}.old, a new one is made")
        try:
            os.replace(pair[0], pair[0] + ".old")
        except OSError:
            pass
        return False

    def _make(self, kinds: list[str]) -> None:
        """In a thread: EC first, so that TLS is there soon; RSA takes a Pi Zero half a minute."""
        problem = ""
        for kind in kinds:
            try:
                make_certificate(self.folder, kind, certificate_names(self.settings))
            except FileNotFoundError:
                problem = OPENSSL_MISSING
            except OSError as error:
                problem = f"{self.folder}: no certificate could be made: {error.strerror or error}"
            self.loop.from_thread(self._made, problem, problem or kind == kinds[-1])
            if problem:
                break

    def _made(self, problem: str, last: object) -> None:
        self.making = not last
        if self.stopped:
            return
        if problem:
            self._tell(problem)
        elif not self._wanted():
            self.pairs = [(p, p[:-3] + "key") for p in self._own_files()]
            try:
                self._load()
            except (OSError, ValueError) as error:
                self._tell(self._problem(error))

    def _own_files(self) -> list[str]:
        paths = [os.path.join(self.folder, name) for name in ("ec.crt", "rsa.crt")]
        return [path for path in paths if os.path.isfile(path)]


def certificate_names(settings: Settings) -> list[str]:
    """The subjectAltName entries of an own certificate: this host's names and addresses (spec 07 §6.1)."""
    name = host_name()
    names = [f"DNS:{n}" for n in (name, f"{name}.local", "blynk.local", "localhost")]
    if settings.server_host:
        is_address = parse_network(settings.server_host) is not None
        names.append(f"IP:{settings.server_host}" if is_address else f"DNS:{settings.server_host}")
    names += [f"IP:{address}" for address in ["127.0.0.1", "::1", *lan_addresses()]]
    return [n for n in dict.fromkeys(names) if all(c.isascii() and (c.isalnum() or c in ".:-") for c in n)]


CERTIFICATE_REQUEST = """[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
[subject]
CN = {name}
O = blynk-pi
[extensions]
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyEncipherment,keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {names}
"""
MAKE_KEY = {"ec": "ecparam -name prime256v1 -genkey -noout -out", "rsa": "genrsa -out"}  # the file, then:
MAKE_KEY_END = {"ec": [], "rsa": ["2048"]}


def make_certificate(folder: str, kind: str, names: list[str]) -> None:
    """Makes <folder>/<kind>.key (0600) and <kind>.crt, self-signed. Blocks; raises OSError, and FileNotFoundError when
    there is no openssl program.

    The end is a fixed day, so that a Pi without a clock, which thinks it is 1970, makes a lasting certificate as well.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    work = os.path.join(folder, f".new-{kind}-{os.getpid()}.")
    request, key, cert, messages = (work + ending for ending in ("cnf", "key", "crt", "log"))
    days = max(3650, int(OWN_CERTIFICATES_END - time.time()) // 86400)
    try:
        with open(request, "w", encoding="ascii") as file:
            file.write(CERTIFICATE_REQUEST.format(name=names[0].partition(":")[2][:64], names=",".join(names)))
        os.close(os.open(key, os.O_CREAT | os.O_WRONLY, 0o600))
        run_openssl([*MAKE_KEY[kind].split(), key, *MAKE_KEY_END[kind]], messages)
        sign = ["req", "-new", "-x509", "-sha256", "-days", str(days), "-config", request, "-key", key, "-out", cert]
        run_openssl(sign, messages)
        os.chmod(key, 0o600)
        for path, name in ((key, f"{kind}.key"), (cert, f"{kind}.crt")):
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(path, os.path.join(folder, name))
    finally:
        for path in (request, key, cert, messages):
            try:
                os.unlink(path)
            except OSError:
                pass


def run_openssl(arguments: list[str], messages: str) -> None:
    """Runs openssl and waits. What it prints goes to the file `messages`; its last line is the OSError of a failure."""
    command = ["openssl", *arguments]
    if hasattr(os, "posix_spawnp"):  # half a megabyte cheaper than the subprocess module
        to_file = (os.POSIX_SPAWN_OPEN, 1, messages, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        process = os.posix_spawnp("openssl", command, os.environ, file_actions=[to_file, (os.POSIX_SPAWN_DUP2, 1, 2)])
        code = os.waitpid(process, 0)[1]
    else:
        import subprocess

        with open(messages, "wb") as file:
            code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if code:
        with open(messages, encoding="utf-8", errors="replace") as text:
            lines = [line.strip() for line in text if line.strip()]
        raise OSError(0, f"openssl {arguments[0]}: {lines[-1] if lines else f'it ended with {code}'}")


def certificate_facts(path: str) -> dict[str, Any]:
    """{"ends": Unix time, "names": [...], "subject": text} of the first certificate in a PEM file; {} when Python's ssl
    module cannot tell. Raises OSError, ssl.SSLError."""
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decode is None:
        return {}
    facts = decode(path)
    return {
        "ends": certificate_time(facts["notAfter"]),
        "names": [value for _, value in facts.get("subjectAltName", ())],
        "subject": next((value for part in facts["subject"] for key, value in part if key == "commonName"), ""),
    }


def certificate_time(text: str) -> int:
    """`Dec 31 15:21:11 2049 GMT` -> Unix time (what the ssl module has for it would load a megabyte)."""
    month, day, clock, year, _ = text.split()
    # The year begins in March here: the leap day is its last.
    months = int(year) * 12 + "JanFebMarAprMayJunJulAugSepOctNovDec".index(month) // 3 - 2
    y, m = months // 12, months % 12
    days = y * 365 + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 + int(day) - 719469
    hours, minutes, seconds = map(int, clock.split(":"))
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


# --- announcement by mDNS ---------------------------------------------------------------------------------------------

ANNOUNCE_AFTER_SECONDS = 3  # the server is up first
NETWORK_CHECK_SECONDS = 30
AVAHI_SERVICE_FILE = "/etc/avahi/services/blynk-pi.service"
ZEROCONF_MISSING = (
    "the server is not announced in the LAN: the zeroconf package is not installed (pip install zeroconf, or "
    'apt install python3-zeroconf, or see `blynk_pi.py avahi-service`); discovery.mode = "off" ends this line'
)


def announced_services(settings: Settings) -> list[tuple[str, int, dict[str, str]]]:
    """(service type, port, TXT record) of each port that is on: what bridges, boards and browsers look for."""
    ports = {"http": str(settings.ports_http), "tls": str(settings.ports_https)}
    text = {"version": __version__, **{key: port for key, port in ports.items() if port != "0"}, "path": "/"}
    services = (
        ("_blynk._tcp", settings.ports_http),
        ("_blynk-tls._tcp", settings.ports_https),
        ("_http._tcp", settings.ports_http),
    )
    return [(kind, port, text) for kind, port in services if port]


def mdns_lookup(name: str, seconds: float = 0.7) -> set[str]:
    """IPv4 addresses that hosts in the LAN answer for `name` ("blynk.local"). Blocks so long. A question from another
    port than 5353 is answered to that port (RFC 6762 §6.7), so this needs no package and disturbs no responder."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    found: set[str] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for address in lan_addresses() or ["127.0.0.1"]:
            try:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
                sock.sendto(question, ("224.0.0.251", 5353))
            except OSError:
                continue  # an interface without multicast
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                found |= mdns_addresses(sock.recv(9000), name)
            except (OSError, ValueError, IndexError, struct.error):
                continue
    return found


def mdns_addresses(packet: bytes, name: str) -> set[str]:
    """The A records for `name` in an mDNS answer. Raises IndexError, ValueError, struct.error for a broken packet."""
    _, _, questions, answers, _, more = struct.unpack_from("!HHHHHH", packet)
    place, found = 12, set()
    for i in range(questions + answers + more):
        owner, place = mdns_name(packet, place)
        if i < questions:
            place += 4
            continue
        kind, _, _, length = struct.unpack_from("!HHIH", packet, place)
        place += 10
        data, place = packet[place : place + length], place + length
        if kind == 1 and len(data) == 4 and owner.lower() == name.lower():
            found.add(socket.inet_ntoa(data))
    return found


def mdns_name(packet: bytes, place: int) -> tuple[str, int]:
    """A possibly compressed name at `place`, and where the packet goes on."""
    labels: list[str] = []
    after = 0
    for _ in range(128):
        size = packet[place]
        if size == 0:
            return ".".join(labels), after or place + 1
        if size & 0xC0:
            after = after or place + 2
            place = (size & 0x3F) << 8 | packet[place + 1]
        else:
            labels.append(packet[place + 1 : place + 1 + size].decode("utf-8", "replace"))
            place += 1 + size
    raise ValueError("a name that never ends")


class Announcer:
    """Announces the server with the zeroconf package while discovery.mode is "zeroconf".

    start() and stop() are called in the loop. The package is loaded, and works, in threads of its own; the loop only
    compares the set of addresses every half minute, and has the announcement made anew when it changed.
    """

    def __init__(self, server: Any) -> None:
        self.settings, self.loop = server.settings, server.loop
        self.addresses: list[str] = []  # what is announced now, or being announced
        self.zeroconf: Any = None
        self.services: list[Any] = []
        self.thread: Optional[threading.Thread] = None
        self.timer: Optional[Timer] = None
        self.stopped = False
        self.lock = threading.Lock()
        self.gone = threading.Event()

    def start(self) -> None:
        if self.settings.discovery_mode == "off":
            return
        if os.path.exists(AVAHI_SERVICE_FILE):
            log.info(f"the avahi daemon announces this server ({AVAHI_SERVICE_FILE})")
            return
        self.timer = self.loop.call_later(ANNOUNCE_AFTER_SECONDS, self._check)

    def _check(self) -> None:
        """Every half minute; Wi-Fi may come later than the boot."""
        if self.stopped:
            return
        self.timer = self.loop.call_later(NETWORK_CHECK_SECONDS, self._check)
        addresses = self._reachable()
        if addresses == self.addresses or (self.thread is not None and self.thread.is_alive()):
            return
        self.addresses = addresses
        self.thread = threading.Thread(target=self._announce, args=(addresses,), name="blynk-mdns", daemon=True)
        self.thread.start()

    def _reachable(self) -> list[str]:
        """The addresses to announce: those of the LAN on which the ports listen."""
        listen = self.settings.server_listen
        return sorted(a for a in lan_addresses() if listen in ("", "0.0.0.0", "::", a))

    def _announce(self, addresses: list[str]) -> None:
        """In a thread: withdraws the old announcement and makes the new one."""
        try:
            with self.lock:
                self._withdraw()
                if addresses and not self.stopped:
                    self._register(addresses)
                self.gone.set()
        except ImportError:
            self.loop.from_thread(self._missing)
        except Exception as error:  # the package raises a good many kinds
            self.loop.from_thread(log.warning, f"the server could not be announced in the LAN: {error!r}")

    def _missing(self) -> None:
        log.info(ZEROCONF_MISSING)
        self.stopped = True

    def _register(self, addresses: list[str]) -> None:
        import zeroconf

        name = self.settings.discovery_name or host_name()
        host = "blynk.local." if not mdns_lookup("blynk.local") - set(addresses) else f"{host_name()}.local."
        self.zeroconf = zeroconf.Zeroconf(interfaces=addresses, ip_version=zeroconf.IPVersion.V4Only)
        raw = [socket.inet_aton(address) for address in addresses]
        for kind, port, text in announced_services(self.settings):
            service = zeroconf.ServiceInfo(
                f"{kind}.local.", f"{name}.{kind}.local.", port, 0, 0, text, host, addresses=raw
            )
            if not self.stopped:
                self.zeroconf.register_service(service, allow_name_change=True)  # takes a second or two
        self.loop.from_thread(log.info, f"announced in the LAN as {name}, {host[:-1]} ({', '.join(addresses)})")

    def _withdraw(self) -> None:
        if self.zeroconf is not None:
            engine, self.zeroconf = self.zeroconf, None
            engine.unregister_all_services()  # says goodbye, thrice, in a quarter of a second
            self.gone.set()
            engine.close()

    def stop(self) -> None:
        """Says goodbye on the net, which takes a quarter of a second."""
        self.stopped = True
        if self.timer is not None:
            self.timer.cancel()
        if self.thread is not None:
            self.gone.clear()
            threading.Thread(target=self._announce, args=([],), name="blynk-mdns", daemon=True).start()
            self.gone.wait(0.7)


def avahi_service(settings: Settings) -> str:
    """An avahi service file: the announcement without any memory of ours."""
    lines = [
        '<?xml version="1.0" standalone="no"?>',
        '<!DOCTYPE service-group SYSTEM "avahi-service.dtd">',
        "<service-group>",
        f'  <name replace-wildcards="yes">{xml_text(settings.discovery_name) or "%h"}</name>',
    ]
    for kind, port, text in announced_services(settings):
        lines += ["  <service>", f"    <type>{kind}</type>", f"    <port>{port}</port>"]
        lines += [f"    <txt-record>{key}={xml_text(value)}</txt-record>" for key, value in text.items()]
        lines.append("  </service>")
    return "\n".join([*lines, "</service-group>"]) + "\n"


def xml_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# ======================================================================================================================
# 14. Server
# ======================================================================================================================
# Puts the rooms together: ports, start, stop, and what several rooms do to accounts and tokens. Then sub-commands, main().

# -- 14a The server ----------------------------------------------------------------------------------------------------

PROVISION_MS = 7 * 86_400_000
RESERVED_FILES = 64  # descriptors beyond the connections
UNLIMITED_ENERGY = 100_000


class Greeter:
    """A connection that has not yet shown which protocol it speaks: five bytes decide (spec 01 §2)."""

    __slots__ = ("server", "stream", "start")

    def __init__(self, server: Server, stream: Stream) -> None:
        self.server, self.stream, self.start = server, stream, b""
        stream.protocol = self
        stream.set_idle(10 if stream.secure else DETECTION_SECONDS)  # a handshake has ten seconds

    def secured(self) -> None:
        self.stream.set_idle(DETECTION_SECONDS)

    def received(self, data: bytes) -> None:
        data = self.start + data
        if len(data) < 5:
            self.start = data
            return
        server, stream = self.server, self.stream
        kind = detect(data, stream.secure)
        protocol: Any
        if kind == "http":
            protocol = HttpConnection(server, stream)
        elif kind == "hardware":
            protocol = HardwareSession(server, stream)
        else:
            protocol = AppSession(server, stream)
        stream.protocol = protocol
        protocol.received(data)

    def closed(self) -> None:
        pass


class FailedLogins:
    """So many wrong passwords per account and address within a window, then a pause; a success clears (DESIGN §7)."""

    __slots__ = ("settings", "loop", "failures")
    MOST = 10_000  # remembered pairs; the oldest go

    def __init__(self, settings: Settings, loop: Loop) -> None:
        self.settings, self.loop = settings, loop
        self.failures: dict[tuple[str, str], list[float]] = {}

    def blocked(self, name: str, address: str) -> bool:
        times = self.failures.get((name, address))
        if not times or len(times) < self.settings.limits_failed_logins > 0:
            return False
        if self.settings.limits_failed_logins <= 0:
            return False
        if self.loop.now - times[-1] >= self.settings.limits_failed_logins_pause_s:
            del self.failures[name, address]
            return False
        return True

    def failed(self, name: str, address: str) -> None:
        key = (name, address)
        since = self.loop.now - self.settings.limits_failed_logins_window_s
        times = [t for t in self.failures.pop(key, ()) if t > since]
        times.append(self.loop.now)
        self.failures[key] = times[-self.settings.limits_failed_logins or -1 :]
        while len(self.failures) > self.MOST:
            del self.failures[next(iter(self.failures))]

    def succeeded(self, name: str, address: str) -> None:
        self.failures.pop((name, address), None)


class Server:
    """One data folder, its accounts and ports. Making one opens nothing; run() does."""

    def __init__(self, settings: Settings, loop: Optional[Loop] = None) -> None:
        self.settings = settings
        self.loop = loop or Loop(net_threads=settings.notifications_workers)
        self.loop.max_connections = settings.limits_connections
        self.host: str = settings.server_host or detect_host(settings)
        self.started_ms = self.loop.now_ms
        self.stopping = False
        self.accounts: dict[tuple[str, str], Account] = {}
        self.tokens: dict[str, Device] = {}
        self.shares: dict[str, Project] = {}
        self.provisional: dict[str, tuple[Project, Document, int]] = {}  # token → project, device, when it expires
        self.health: dict[str, str] = {}  # present problems, for /health and the admin page
        self.stats = Stats()
        self.ledger = Ledger(
            self.loop,
            {
                "TERMINAL": settings.pools_terminal,
                "MAP": settings.pools_map,
                "LCD": settings.pools_lcd,
                "TABLE": settings.pools_table,
            },
        )
        self.loop.end_of_turn.append(self._settle)
        self.failed_logins = FailedLogins(settings, self.loop)
        self.registrations, self.registrations_since = 0, self.loop.now
        self.database: Any = open_database(self)
        self.history = History(self)
        self.store = Store(self)
        self.messengers = Messengers(self)
        self.automation = Automation(self)
        self.reports = Reports(self)
        self.web = Web(self)
        self.ota, self.reset_tokens = self.web.ota, self.web.reset_tokens
        self.certificates = Certificates(self)
        self.announcer = Announcer(self)
        self.control = Control(self)
        ledger = self.ledger
        ledger.series_for = self.history.series_for
        ledger.record_raw = self.history.raw
        ledger.raw_on = settings.raw_data_store != "off"
        ledger.watches = self.automation.watches
        ledger.project_changed = self._project_changed

    def _project_changed(self, project: Project) -> None:
        self.automation.project_changed(project)
        self.reports.project_changed(project)

    def _settle(self) -> None:
        if self.ledger.unsettled:
            self.ledger.settle()

    # -- accounts ----------------------------------------------------------------------------------------------------

    def account(self, email: str, app_name: str) -> Optional[Account]:
        return self.accounts.get((email, app_name))

    def new_account(self, email: str, app_name: str, stored_password: str, administrator: bool = False) -> Account:
        """Makes an account; it is on disk within a second."""
        energy = self.settings.limits_energy
        document = read_document(
            "USER",
            {
                "name": email, "email": email, "appName": app_name, "region": self.settings.server_region,
                "ip": self.host, "pass": stored_password, "lastModifiedTs": self.loop.now_ms,
                "energy": UNLIMITED_ENERGY if energy == "unlimited" else energy, "isSuperAdmin": administrator,
                "profile": {},
            },
        )  # fmt: skip
        account = self.accounts[email, app_name] = Account(self.ledger, document)
        account.modified()
        return account

    def index(self, account: Account) -> None:
        """Enters tokens and share tokens of an account that was loaded."""
        for project in account.projects.values():
            for device in project.devices.values():
                if device.token:
                    self.tokens[device.token] = device
            token = project.document.get("sharedToken")
            if token:
                self.shares[token] = project

    def remove_account(self, account: Account, done: Callable[[bool], object]) -> None:
        """Out of memory, its file to deleted/, its history away, its connections closed; done(False) when there was no
        file to move: nothing is changed then."""

        def moved(there: bool) -> None:
            if not there:
                done(False)
                return
            self.forget_account(account)
            if self.database is not None:
                self.database.user_deleted(account.email, account.app)
            if not self.history.delete(account.folder_name, done=lambda *_: done(True)):
                done(True)

        self.store.when_saved(lambda: self.store.move_to_deleted(account, moved))

    def forget_account(self, account: Account) -> None:
        account.removed = True
        self.accounts.pop((account.email, account.app), None)
        self.ledger.settle()
        for project in account.projects.values():
            self._unlist(project)
        close_sessions([*account.apps, *account.hardware])
        self.ledger.structural.discard(account)
        self.ledger.touched.discard(account)
        self.ledger.presence.discard(account)

    def may_register(self) -> bool:
        """Counts an attempt to register; False beyond the hourly limit, which lets limit + 1 through."""
        if self.loop.now - self.registrations_since >= 3600:
            self.registrations, self.registrations_since = 0, self.loop.now
        if self.registrations > self.settings.limits_registrations_per_hour:
            return False
        self.registrations += 1
        return True

    # -- passwords ---------------------------------------------------------------------------------------------------

    def hash_password(self, sent: str, done: Callable[[Optional[str]], object], java: bool = False) -> None:
        """done(what is to be stored for the hash an app sends); None when too many wait (spec 07 §11 data)."""
        if java or self.settings.data_password_storage == "java":
            done(sent)
        elif not self.loop.submit("crypto", hash_password, sent, done=lambda stored, _problem: done(stored)):
            done(None)

    def verify_password(self, account: Account, sent: str, peer: str, done: Callable[[bool], object]) -> None:
        """done(whether it is the account's password); slow for accounts made here, and limited per address."""
        name, stored = account.user_name, account.document.get("pass") or ""
        guard = self.failed_logins
        if not stored or guard.blocked(name, peer):
            if log.debugging:
                log.debug(f"{peer}: too many wrong passwords for {name}")
            done(False)
            return

        def checked(right: Any, _problem: Optional[Exception]) -> None:
            if guard.blocked(name, peer):
                right = False  # others, sent at the same time, have failed too often: this one must not be a guess
            if right is True:
                guard.succeeded(name, peer)
                if self.settings.data_password_storage == "scrypt" and not stored.startswith("scrypt$"):
                    self.set_password(account, sent, lambda *_: None)
            else:
                guard.failed(name, peer)
                if log.debugging:
                    log.debug(f"{peer}: wrong password for {name}")
            done(right is True)

        if not stored.startswith("scrypt$"):
            checked(check_password(sent, stored), None)
        elif not self.loop.submit("crypto", check_password, sent, stored, done=checked):
            done(False)

    def set_password(self, account: Account, sent: str, done: Callable[..., object]) -> None:
        """Stores what an app would send as the account's password; done() when it is in force. Accounts of the Java
        server keep its form unless the operator decided otherwise."""
        was = account.document.get("pass") or ""
        java = self.settings.data_password_storage == "mixed" and bool(was) and not was.startswith("scrypt$")

        def hashed(stored: Optional[str]) -> None:
            if stored is not None:
                account.document["pass"] = stored
                account.modified()
            done()

        self.hash_password(sent, hashed, java)

    # -- energy ------------------------------------------------------------------------------------------------------

    def charge(self, account: Account, price: int) -> None:
        """Takes energy. Errors: Refused(ENERGY_LIMIT); only users of the standard app are refused (spec 03a §8)."""
        if self.settings.limits_energy == "unlimited" or not price:
            return
        if price > account.document["energy"] and account.app == "Blynk":
            raise Refused(Status.ENERGY_LIMIT)
        account.add_energy(-price)

    def refund(self, account: Account, price: int) -> None:
        if self.settings.limits_energy != "unlimited" and price:
            account.add_energy(price)

    # -- projects, devices, tokens -----------------------------------------------------------------------------------

    def add_project(self, account: Account, document: Document, tokens: bool = True, charge: bool = True) -> Project:
        """A project an app sent joins the account: paid for, devices erased and given tokens; without `tokens` they get
        none and the widgets forget their values (spec 03a §4.3). Errors: Refused(ENERGY_LIMIT)."""
        for name in PRIVATE_PROJECT:
            document.pop(name, None)
        if charge and document["parentId"] == -1:
            self.charge(account, sum(widget_price(w) for w in document.get("widgets", ())))
        if not document["createdAt"]:
            document["createdAt"] = self.loop.now_ms
        for device in document.get("devices", ()):
            erase_device(device)
        if not tokens:
            for widget in document.get("widgets", ()):
                erase_widget(widget)
        project = account.add_project(document)
        if tokens:
            for device in project.devices.values():
                self.assign_token(device, new_token())
        project.changed()
        account.modified()
        return project

    def _unlist(self, project: Project) -> None:
        """Tokens, share token, announced devices and rules of a project that goes."""
        gone = [d.token for d in project.devices.values() if d.token and self.tokens.pop(d.token, None) is not None]
        if self.database is not None:
            self.database.tokens_removed(gone)
        self.shares.pop(project.document.get("sharedToken", ""), None)
        for token in [t for t, (owner, _, _) in self.provisional.items() if owner is project]:
            del self.provisional[token]
        self.automation.project_removed(project)
        self.reports.project_removed(project)

    def remove_project(
        self, project: Project, done: Callable[[Optional[Exception]], object], history: bool = True
    ) -> None:
        """Connections end and are processed, guests are told, history goes, then done(error) (spec 03a §4.6)."""
        account = project.account
        self.ledger.settle()
        for device in project.devices.values():
            close_sessions(device.sessions)
        for guest in [a for a in account.apps if a.share is project]:
            guest.status(0, Status.NOT_ALLOWED)
            close_sessions((guest,))
        account.projects.pop(project.id, None)
        self._unlist(project)
        for key in [k for k in account.storage if k.startswith(f"{project.id}-")]:
            del account.storage[key]
        account.modified()
        if not history or not self.history.delete(
            account.folder_name, project.id, done=lambda _count, problem: done(problem)
        ):
            done(None)

    def add_device(self, project: Project, document: Document) -> Device:
        project.document["devices"] = [*project.document.get("devices", ()), document]
        device = project.devices[document["id"]] = Device(project, document)
        return device

    def remove_device(self, device: Device, done: Callable[[Optional[Exception]], object]) -> None:
        """The device leaves everything that names it (spec 03b §5), then its history goes, then done(error)."""
        project = device.project
        account = project.account
        self.ledger.settle()
        close_sessions(device.sessions)
        self.drop_token(device)
        project.devices.pop(device.id, None)
        document = project.document
        set_or_drop(document, "devices", [d for d in document["devices"] if d is not device.document])
        for widget in project.widgets:
            if widget.get("deviceId") == device.id and widget_type(widget).base in "SRM":
                erase_widget(widget, project)
            self._remove_from_widget(widget, device.id)
        for tag in document.get("tags", ()):
            set_or_drop(tag, "deviceIds", [i for i in tag.get("deviceIds", ()) if i != device.id])
        for key in [k for k in account.storage if k.startswith(f"{project.id}-{device.id}-")]:
            del account.storage[key]
        project.changed()
        project.modified()
        account.modified()
        if not self.history.delete(
            account.folder_name, project.id, device.id, done=lambda _count, problem: done(problem)
        ):
            done(None)

    @staticmethod
    def _remove_from_widget(widget: Document, device_id: int) -> None:
        kind = widget["type"]
        holders = []
        if kind == "DEVICE_SELECTOR":
            holders = [widget]
        elif kind == "DEVICE_TILES":
            set_or_drop(widget, "tiles", [t for t in widget.get("tiles", ()) if t["deviceId"] != device_id])
            holders = widget.get("templates", [])
        elif kind == "REPORT":
            holders = [s for report in widget.get("reports", ()) for s in report.get("reportSources", ())]
        for holder in holders:
            if device_id in holder.get("deviceIds", ()):
                set_or_drop(holder, "deviceIds", [i for i in holder["deviceIds"] if i != device_id])

    def assign_token(self, device: Device, token: str) -> None:
        """The device gets a token; the old one is invalid at once."""
        self.drop_token(device)
        device.document["token"] = token
        self.tokens[token] = device
        if self.database is not None:
            project = device.project
            self.database.token_assigned(token, project.account.email, project.id, device.id)

    def drop_token(self, device: Device) -> None:
        token = device.document.pop("token", None)
        if token and self.tokens.get(token) is device:
            del self.tokens[token]
            if self.database is not None:
                self.database.tokens_removed([token])

    def close_device(self, device: Device) -> None:
        close_sessions(device.sessions)

    def provide(self, project: Project, document: Document) -> str:
        """A token for a device that joins when it first logs in; memory only, seven days (spec 03b §5.2)."""
        now_ms = self.loop.now_ms
        for token in [t for t, (_, _, expires) in self.provisional.items() if expires <= now_ms]:
            del self.provisional[token]
        if len(self.provisional) >= 10_000:
            raise Refused(Status.NOT_ALLOWED)
        token = new_token()
        self.provisional[token] = (project, document, now_ms + PROVISION_MS)
        if self.database is not None:
            self.database.token_assigned(token, project.account.email, project.id, document["id"])
        return token

    def device_of_token(self, token: str) -> Optional[Device]:
        """The device of a token; one that was only announced joins its project now."""
        device = self.tokens.get(token)
        if device is not None:
            return device
        announced = self.provisional.pop(token, None)
        if announced is None:
            return None
        project, document, expires = announced
        if expires <= self.loop.now_ms or document["id"] in project.devices:
            return None
        device = self.add_device(project, document)
        self.assign_token(device, token)
        project.changed()
        project.account.modified()
        return device

    def share(self, project: Project) -> str:
        """A new share token; the old one is invalid at once."""
        self.shares.pop(project.document.get("sharedToken", ""), None)
        token = project.document["sharedToken"] = new_token()
        self.shares[token] = project
        project.modified()
        project.account.modified()
        return token

    # -- clones ------------------------------------------------------------------------------------------------------

    def keep_clone(self, document: Document, kept: Callable[[Optional[str]], object]) -> None:
        """Keeps a project under a new token, in the database or in clone/; kept(token), None when it failed."""
        token, text = new_token(), to_json(document)
        if self.database is not None and self.database.connected:
            if not self.database.insert_clone(token, text, lambda right: kept(token if right else None)):
                kept(None)
            return
        path = self.store.path("clone", token)

        def done(_result: Any, problem: Optional[Exception]) -> None:
            if problem is not None:
                log.error(f"a clone cannot be kept: {problem}")
            kept(None if problem is not None else token)

        if not self.loop.submit("disk", write_file, path, encode(text), done=done):
            kept(None)

    def find_clone(self, token: str, found: Callable[[Optional[str]], object]) -> None:
        """found(text of the project), None when nobody knows the token."""

        def read() -> Optional[str]:
            try:
                with open(self.store.path("clone", token), encoding="utf-8") as file:
                    return file.read(self.settings.limits_profile_kb << 12)
            except OSError:
                return None

        def from_file(text: Optional[str] = None) -> None:
            if text is not None:
                found(text)
            elif not valid_clone_token(token) or not self.loop.submit("disk", read, done=lambda t, _: found(t)):
                found(None)

        if self.database is None or not self.database.find_clone(token, from_file):
            from_file()

    # -- start -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT. The exit code: 0, 1 when the start failed, 2 for wrong settings."""
        try:
            self.start()
        except (StoreError, StartError, SettingsError) as problem:
            print(f"blynk_pi: {problem}", file=sys.stderr, flush=True)
            self.abandon()
            return 2 if isinstance(problem, SettingsError) else 1
        self.loop.run()
        self.shutdown()
        return self.exit_code

    def start(self) -> None:
        settings = self.settings
        try:
            log.setup(settings.log_level, settings.log_folder, settings.log_max_mb, settings.log_files)
        except OSError as problem:
            raise StartError(f"log folder {settings.log_folder}: {problem.strerror}") from None
        for line in settings.warnings:
            log.warning(line)
        self.loop.max_connections = raise_file_limit(settings.limits_connections)
        self.store.open()
        self.load()
        self.listen()
        self.certificates.on_ready = self.listen_tls
        self.certificates.start()
        if self.certificates.context is not None:
            self.listen_tls()
        self.store.start()
        self.history.start()
        self.automation.start()
        self.reports.start()
        self.web.start()
        if self.database is not None:
            self.database.start()
        self.control.start()
        self.announcer.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.loop.from_thread(self.stop))
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: self.loop.from_thread(self.certificates.reload))
        print("\n".join(start_lines(self)), flush=True)
        self.first_administrator()
        self.each_period()
        notify_service("READY=1")
        self.watchdog()

    def load(self) -> None:
        if self.settings.restore:
            if self.database is None:
                raise StartError("-restore needs the database: enable it and install its driver")
            try:
                for document in self.database.restore_users():
                    account = Account(self.ledger, self.store.migrate(document))
                    self.accounts[account.email, account.app] = account
                    account.modified()
            except Exception as problem:
                raise StartError(f"Error restoring data from DB! {problem}") from None
        else:
            self.store.load()
        for account in self.accounts.values():
            self.index(account)

    def listen(self) -> None:
        """Opens the plain ports. Errors: StartError that names the port."""
        settings = self.settings
        self.open_port("ports.http", settings.ports_http, self.greet)
        self.open_port("ports.hardware_plain_legacy", settings.ports_hardware_plain_legacy, self.greet)
        self.open_port("ports.mqtt", settings.ports_mqtt, self.greet_mqtt)

    def listen_tls(self) -> None:
        """Opens the TLS ports, once there is a certificate."""
        settings = self.settings
        ports = (
            ("ports.https", settings.ports_https),
            ("ports.hardware_tls_legacy", settings.ports_hardware_tls_legacy),
            ("ports.app_tls_legacy", settings.ports_app_tls_legacy),
            ("ports.admin_legacy", settings.ports_admin_legacy),
        )
        if any(listener.tls is not None for listener in self.loop.listeners):
            return
        try:
            for key, port in ports:
                self.open_port(key, port, self.greet, lambda: self.certificates.context)
        except StartError as problem:
            if not self.loop.running:
                raise
            print(f"blynk_pi: {problem}", file=sys.stderr, flush=True)
            self.health["ports"] = str(problem)
            self.exit_code = 1
            self.loop.stop()

    def open_port(
        self, key: str, port: int, greet: Callable[[Stream], object], tls: Optional[Callable[[], Any]] = None
    ) -> None:
        if not port:
            return
        try:
            self.loop.listen(self.settings.server_listen, port, greet, tls)
        except (OSError, OverflowError) as problem:
            error = problem if isinstance(problem, OSError) else OSError(0, str(problem))
            raise StartError(explain_port_problem(key, port, error)) from None

    def greet(self, stream: Stream) -> None:
        limit = self.settings.limits_connections_per_address
        if limit and self.strangers(stream.peer) >= limit:
            stream.abort()
            return
        Greeter(self, stream)

    def strangers(self, peer: str) -> int:
        """How many connections of an address have not logged in."""
        return sum(
            1
            for s in self.loop.streams
            if s.peer == peer and getattr(s.protocol, "account", None) is None and s.protocol
        )

    def greet_mqtt(self, stream: Stream) -> None:
        stream.protocol = MqttConnection(self, stream)

    def first_administrator(self) -> None:
        """Without any super admin one is made, its password shown once (spec 07 §5.3)."""
        if any(a.document.get("isSuperAdmin") for a in self.accounts.values()):
            return
        email, password = self.settings.admin_email.lower(), self.settings.admin_password
        made_up = not password
        if made_up:
            letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
            password = "".join(letters[int.from_bytes(os.urandom(4), "big") % len(letters)] for _ in range(24))
        print("\n".join(admin_lines(self, password, made_up)), flush=True)

        def hashed(stored: Optional[str]) -> None:
            account = self.account(email, "Blynk")
            if stored is None:
                return
            if account is None:
                self.new_account(email, "Blynk", stored, administrator=True)
            else:
                account.document["isSuperAdmin"] = True
                account.document["pass"] = stored
                account.modified()

        self.hash_password(java_password(password, email), hashed)

    def each_period(self) -> None:
        """Counters begin anew; the database gets them first."""
        if self.database is not None:
            self.database.stats(stats_document(self))
        seconds = max(1.0, self.settings.log_stats_period_ms / 1000)
        self.stats.reset(seconds)
        self.loop.call_later(seconds, self.each_period)

    def watchdog(self) -> None:
        """Tells systemd that the loop turns, twice per period."""
        period = os.environ.get("WATCHDOG_USEC", "")
        if period.isdigit() and int(period):
            notify_service("WATCHDOG=1")
            self.loop.call_later(int(period) / 2e6, self.watchdog)

    # -- stop --------------------------------------------------------------------------------------------------------

    exit_code = 0

    def stop(self) -> None:
        self.stopping = True
        self.loop.stop()

    def abandon(self) -> None:
        """The start failed: nothing stays open."""
        self.certificates.stop()
        self.control.stop()
        self.loop.close()
        if self.store.lock is not None:
            self.store.lock.release()

    def shutdown(self) -> None:
        """Stops listening, closes connections, saves; within two seconds (spec 08 §11)."""
        self.stopping = True
        notify_service("STOPPING=1")
        log.info("stopping")
        self.announcer.stop()
        self.control.stop()
        self.certificates.stop()
        for listener in list(self.loop.listeners):
            listener.close()
        for account in list(self.accounts.values()):
            close_sessions([*account.hardware, *account.apps])
        for stream in list(self.loop.streams):
            stream.close()
        end = self.loop.monotonic() + 0.5
        while self.loop.streams and self.loop.monotonic() < end:
            self.loop.run_once(0.05)
        for stream in list(self.loop.streams):
            stream.abort()
        self.web.stop()
        self.history.stop()
        self.store.close()
        if self.database is not None:
            self.database.stop()
        log.info("stopped")


class StartError(Exception):
    """The server cannot start; the text is the line for the user."""


def raise_file_limit(connections: int) -> int:
    """As many descriptors as connections are allowed, where the system lets us. Returns how many connections fit:
    without descriptors left nothing could be saved."""
    try:
        import resource
    except ImportError:
        return min(connections, 512 - RESERVED_FILES)  # Windows: select() takes no more
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        most = soft
    if most < wanted:
        log.debug(f"only {most} files may be open: fewer connections than limits.connections")
    return max(most - RESERVED_FILES, most // 2)


def notify_service(state: str) -> None:
    """A word to systemd (sd_notify), when it started us so."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as problem:
        log.debug(f"systemd is not told {state}: {problem}")


# -- 14b Sub-commands and the control socket ---------------------------------------------------------------------------
# `blynk_pi.py passwd EMAIL` and its like. Those that touch accounts are asked of the running server through a socket in
# the data folder; with none running they are done on the folder itself, under its lock, by the same functions.
# A request is one JSON line {"command", "arguments", "input"}, the answer one line {"lines": […]} or {"error": "…"}.

CONTROL_SOCKET, CONTROL_FILE = "control.sock", "control.json"
CONTROL_REQUEST_LIMIT = 65536
LOCAL_SOCKETS = hasattr(socket, "AF_UNIX") and os.name != "nt"


class CommandError(Exception):
    """A sub-command cannot be done; the text is the line for the user."""


# -- what the server does when it is asked: f(server, words, input, reply); reply(lines, error="") now or later --------

if TYPE_CHECKING:
    Reply = Callable[..., object]


def find_account(server: Any, words: list[str]) -> Any:
    """The account of `EMAIL [APP]`; without APP the only one of that e-mail."""
    if not words:
        raise CommandError("an e-mail address is needed")
    email = words[0].lower()
    found = [account for key, account in sorted(server.accounts.items()) if key[0].lower() == email]
    if len(words) > 1:
        found = [account for account in found if account.app == words[1]]
    if not found:
        raise CommandError(f"there is no account {' '.join(words)}: `users` lists them")
    if len(found) > 1:
        apps = ", ".join(account.app for account in found)
        raise CommandError(f"{email} has accounts of several apps: add one of {apps}")
    return found[0]


def control_ping(server: Any, words: list[str], text: str, reply: Reply) -> None:
    reply([str(os.getpid())])


def control_users(server: Any, words: list[str], text: str, reply: Reply) -> None:
    rows = [("e-mail", "app", "projects", "devices", "online", "")]
    for _, account in sorted(server.accounts.items()):
        devices = [device for project in account.projects.values() for device in project.devices.values()]
        online = sum(device.online for device in devices)
        role = "administrator" if account.document.get("isSuperAdmin") else ""
        rows.append((account.email, account.app, str(len(account.projects)), str(len(devices)), str(online), role))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    reply(["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0])).rstrip() for row in rows])


def control_token(server: Any, words: list[str], text: str, reply: Reply) -> None:
    account = find_account(server, words)
    lines = []
    for project in account.projects.values():
        for device in project.devices.values():
            lines += [f"{project.name}, {device.name or 'New Device'} (device {device.id})", f"token {device.token}"]
    if not lines:
        raise CommandError(f"{account.email} has no device yet: make a project in the app")
    reply([f"host {server.host}", *lines])


def control_passwd(server: Any, words: list[str], text: str, reply: Reply) -> None:
    account = find_account(server, words)
    if not text:
        raise CommandError("the password is empty")
    done = f"the password of {account.email} ({account.app}) is changed"
    server.set_password(account, java_password(text, account.email), lambda *_: reply([done]))


def control_save(server: Any, words: list[str], text: str, reply: Reply) -> None:
    """Everything of now is on the disk when the answer comes."""
    server.store.when_saved(lambda: reply(["saved"]))


CONTROL_COMMANDS: dict[str, Callable[[Any, list[str], str, Any], None]] = {
    "ping": control_ping,
    "users": control_users,
    "token": control_token,
    "passwd": control_passwd,
    "save": control_save,
}


def control_answer(server: Any, request: Any, reply: Callable[[dict[str, Any]], object]) -> None:
    """Does what a request asks for; reply gets {"lines": [...]} or {"error": text}, once."""

    def answer(lines: list[str], error: str = "") -> None:
        reply({"error": error} if error else {"lines": lines})

    try:
        words = [str(word) for word in request.get("arguments", [])]
        CONTROL_COMMANDS[request["command"]](server, words, str(request.get("input", "")), answer)
    except CommandError as error:
        reply({"error": str(error)})
    except (KeyError, AttributeError, TypeError):
        reply({"error": "the running server does not know this command: is it of another version?"})


# -- the socket --------------------------------------------------------------------------------------------------------


class ControlSession:
    """One request, one answer."""

    __slots__ = ("server", "stream", "secret", "waiting")

    def __init__(self, server: Any, stream: Stream, secret: str) -> None:
        self.server, self.stream, self.secret, self.waiting = server, stream, secret, b""
        stream.protocol = self
        stream.set_idle(10)

    def received(self, data: bytes) -> None:
        self.waiting += data
        line, end, _ = self.waiting.partition(b"\n")
        if not end:
            if len(self.waiting) > CONTROL_REQUEST_LIMIT:
                self.stream.abort()
            return
        self.waiting = b""
        try:
            request = json.loads(line)
            known = not self.secret or equal(str(request["secret"]), self.secret)
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        if not known:
            self.stream.abort()
            return
        self.stream.set_idle(0)
        control_answer(self.server, request, self.answer)

    def answer(self, document: dict[str, Any]) -> None:
        self.stream.write(json.dumps(document).encode() + b"\n")
        self.stream.close()

    def closed(self) -> None:
        self.waiting = b""


class Control:
    """The control socket of a running server: <data>/control.sock, 0600. Where there are no local sockets (Windows), or
    the path is too long for one, a loopback port with a secret, both in <data>/control.json, 0600."""

    def __init__(self, server: Any) -> None:
        self.server, self.loop = server, server.loop
        self.folder: str = server.settings.data_folder
        self.sock: Optional[socket.socket] = None
        self.secret = ""
        self.path = ""

    def start(self) -> None:
        """Called under the folder's lock, so what lies there is left over. No socket is a warning, not an error."""
        for name in (CONTROL_SOCKET, CONTROL_FILE):
            try:
                os.unlink(os.path.join(self.folder, name))
            except OSError:
                pass
        try:
            self.sock = self._local() or self._loopback()
            self.sock.setblocking(False)
            self.loop.selector.register(self.sock, EVENT_READ, self._acceptable)
        except OSError as error:
            self.sock = None
            log.warning(f"{self.folder}: no control socket, sub-commands cannot reach this server: {error}")

    def _local(self) -> Optional[socket.socket]:
        self.path = os.path.join(self.folder, CONTROL_SOCKET)
        if not LOCAL_SOCKETS:
            return None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Never open to others, not even for a moment. The umask is the whole process's, and another thread may be making
        # a folder just now: the owner's rights stay in it.
        mask = os.umask(0o077)
        try:
            sock.bind(self.path)
            os.chmod(self.path, 0o600)
            sock.listen(8)
        except OSError:  # path too long, or a file system without sockets
            sock.close()
            return None
        finally:
            os.umask(mask)
        return sock

    def _loopback(self) -> socket.socket:
        self.path = os.path.join(self.folder, CONTROL_FILE)
        sock = socket.create_server(("127.0.0.1", 0), backlog=8)
        self.secret = new_token()
        document = {"port": sock.getsockname()[1], "secret": self.secret}
        write_file(self.path, json.dumps(document).encode())
        return sock

    def _acceptable(self, _events: int) -> None:
        try:
            sock, _ = self.sock.accept()  # type: ignore[union-attr]
        except OSError:
            return
        sock.setblocking(False)
        ControlSession(self.server, Stream(self.loop, sock, "control", 0, False), self.secret)

    def stop(self) -> None:
        if self.sock is None:
            return
        try:
            self.loop.selector.unregister(self.sock)
        except (KeyError, ValueError):
            pass
        self.sock.close()
        self.sock = None
        try:
            os.unlink(self.path)
        except OSError:
            pass


def ask_server(folder: str, command: str, arguments: list[str], text: str = "") -> Optional[dict[str, Any]]:
    """The running server's answer, or None when no server runs on this folder. Errors: CommandError."""
    request: dict[str, Any] = {"command": command, "arguments": arguments, "input": text}
    sock = None
    try:
        path = os.path.join(folder, CONTROL_FILE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
            request["secret"] = document["secret"]
            sock = socket.create_connection(("127.0.0.1", document["port"]), 5)
        elif LOCAL_SOCKETS:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(os.path.join(folder, CONTROL_SOCKET))
        else:
            return None
        sock.settimeout(600)
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile("rb") as stream:
            answer = json.loads(stream.readline() or b'{"error": "the server stopped before it answered"}')
    except PermissionError:
        raise CommandError(f"no right to talk to the server on {folder}: be its user (sudo -u … ) or root") from None
    except (FileNotFoundError, ConnectionError):
        return None
    except OSError as error:
        if "too long" in str(error):
            return None
        raise CommandError(f"the running server does not answer: {error}") from None
    except (ValueError, KeyError):
        raise CommandError(f"{folder}: the running server is of another version") from None
    finally:
        if sock is not None:
            sock.close()
    return dict(answer)


# -- the command line's side -------------------------------------------------------------------------------------------


def do_command(settings: Settings, command: str, arguments: list[str], text: str = "") -> list[str]:
    """Through the running server, else on the folder. The lines to print. Errors: CommandError."""
    need_folder(settings)
    answer = ask_server(settings.data_folder, command, arguments, text)
    if answer is None:
        answer = do_offline(settings, {"command": command, "arguments": arguments, "input": text})
    if "error" in answer:
        raise CommandError(str(answer["error"]))
    return [str(line) for line in answer["lines"]]


def need_folder(settings: Settings) -> None:
    folder = settings.data_folder
    if not os.path.isdir(folder):
        raise CommandError(f"there is no data folder {folder or '(none given)'}: add the server's --data FOLDER")


def become_owner(folder: str) -> None:
    """Root acts as the folder's owner: files it made would be closed to the server."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        status = os.stat(folder)
        if status.st_uid:
            os.setgroups([])
            os.setgid(status.st_gid)
            os.setuid(status.st_uid)


def do_offline(settings: Settings, request: dict[str, Any]) -> dict[str, Any]:
    """The same on the folder itself: a server that opens no port, for as long as one request takes."""
    become_owner(settings.data_folder)
    log.level = log.LEVELS["error"]
    server = Server(settings)
    answers: list[dict[str, Any]] = []
    try:
        server.store.open()
    except StoreError as error:
        raise CommandError(str(error)) from None
    try:
        server.store.load()
        control_answer(server, request, answers.append)
        end = time.monotonic() + 600
        while not answers and time.monotonic() < end:
            server.loop.run_once(1.0)
    finally:
        server.store.close()
    return answers[0] if answers else {"error": "it took too long"}


def run_command(settings: Settings) -> int:
    """Runs the sub-command of the command line; the exit code: 0 done, 1 not."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return COMMANDS[settings.command](settings, settings.arguments) or 0
    except (CommandError, SettingsError) as error:
        print(f"{settings.command}: {error}", file=sys.stderr)
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def run_help(settings: Settings, words: list[str]) -> None:
    print(help_text(words[0] if words else ""), end="")


def run_version(settings: Settings, words: list[str]) -> None:
    print(f"blynk-pi {__version__}")


def run_users(settings: Settings, words: list[str]) -> None:
    print("\n".join(do_command(settings, "users", words)))


def run_passwd(settings: Settings, words: list[str]) -> None:
    if not words:
        raise CommandError("an e-mail address is needed: passwd EMAIL [APP]")
    if sys.stdin.isatty():
        import getpass

        text = getpass.getpass(f"new password of {words[0]}: ")
        if text != getpass.getpass("once more: "):
            raise CommandError("the two are not the same; nothing is changed")
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    print("\n".join(do_command(settings, "passwd", words, text)))


def run_token(settings: Settings, words: list[str]) -> None:
    lines = do_command(settings, "token", words)
    host = lines.pop(0).partition(" ")[2]
    for title, token in zip(lines[::2], lines[1::2]):
        token = token.partition(" ")[2]
        print(f"{title}\n    {sketch_line(token, host, settings.ports_http)}")
        print_qr(token)


def sketch_line(token: str, host: str, port: int) -> str:
    return f'Blynk.begin("{token}", ssid, pass, "{host}", {port});'


def print_qr(text: str) -> None:
    """A QR code in the terminal, where there is one and segno is installed."""
    if not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        return
    sys.stdout.flush()
    segno.make(text, micro=False).terminal(compact=True)


def run_avahi_service(settings: Settings, words: list[str]) -> None:
    print(avahi_service(settings), end="")


def run_check_mail(settings: Settings, words: list[str]) -> int:
    lines = check_mail(settings, words[0] if words else "")
    print("\n".join(lines))
    return 0 if lines[-1].startswith("ok") else 1


def run_backup(settings: Settings, words: list[str]) -> None:
    """In this process, with this user's rights; a running server only puts on disk what it has in memory."""
    if len(words) != 1:
        raise CommandError("a file to write is needed: backup FILE")
    need_folder(settings)
    ask_server(settings.data_folder, "save", [])
    try:
        print("\n".join(make_backup(settings.data_folder, words[0])))
    except BackupError as error:
        raise CommandError(f"{words[0]}: {error}") from None


def run_restore(settings: Settings, words: list[str]) -> None:
    if not words:
        raise CommandError("a backup is needed: restore FILE [EMAIL]")
    if not settings.data_folder:
        raise CommandError("say where to put it: --data FOLDER")
    folder, _ = choose_data_folder(settings)
    become_owner(folder)
    try:
        lock = FolderLock(folder)
    except StoreError as error:
        raise CommandError(f"{error} (sudo systemctl stop blynk-pi)") from None
    try:
        print("\n".join(restore_backup(folder, words[0], words[1].lower() if len(words) > 1 else None)))
    except BackupError as error:
        raise CommandError(f"{words[0]}: {error}") from None
    finally:
        lock.release()


# -- doctor: one line each, and what to do -----------------------------------------------------------------------------


def run_doctor(settings: Settings, words: list[str]) -> int:
    """Prints `ok` and `!!` lines; the exit code is 1 when there is a `!!`."""
    bad = 0
    for check in DOCTOR_CHECKS:
        try:
            for fine, text in check(settings):
                bad += not fine
                print(f"{'ok' if fine else '!!'}  {text}")
        except (CommandError, OSError) as error:
            bad += 1
            print(f"!!  {error}")
    return 1 if bad else 0


def server_runs(settings: Settings) -> int:
    """The process id of the server that runs on the data folder, or 0."""
    answer = ask_server(settings.data_folder, "ping", []) if os.path.isdir(settings.data_folder) else None
    return int(answer["lines"][0]) if answer and "lines" in answer else 0


def check_program(settings: Settings) -> Iterator[tuple[bool, str]]:
    yield True, f"blynk-pi {__version__}, Python {sys.version.split()[0]}"
    for path in settings.files:
        yield True, f"settings of {path}"
    for line in settings.warnings:
        yield False, line


def check_folder(settings: Settings) -> Iterator[tuple[bool, str]]:
    folder = settings.data_folder
    if not os.path.isdir(folder):
        yield False, f"data folder {folder or 'not given'}: it is not there; add the server's --data FOLDER"
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield False, f"data folder {folder}: this user may not write there; be the server's user (sudo -u …) or root"
        return
    yield True, f"data folder {folder}"
    names = [name for name in os.listdir(folder) if name.endswith(".user")]
    loose = [name for name in names if os.name != "nt" and os.stat(os.path.join(folder, name)).st_mode & 0o077]
    if loose:
        yield False, f"{len(loose)} account files can be read by others: chmod go-rwx '{folder}'/*.user"
    broken = [name for name in os.listdir(folder) if ".corrupt" in name]
    if broken:
        yield False, f"{len(broken)} account files were broken and set aside: look at {folder}/{broken[0]}"


def check_disk(settings: Settings) -> Iterator[tuple[bool, str]]:
    if not hasattr(os, "statvfs") or not os.path.isdir(settings.data_folder):
        return
    disk = os.statvfs(settings.data_folder)
    free = disk.f_bavail * disk.f_frsize >> 20
    if disk.f_flag & os.ST_RDONLY:
        yield False, "disk: it is mounted read-only, often the sign of a worn SD card: look at `dmesg`"
    elif free < 100 or disk.f_files and disk.f_favail < 1000:
        yield False, f"disk: {free} MB are free: make room"
    else:
        yield True, f"disk: {free} MB are free"


def check_ports(settings: Settings) -> Iterator[tuple[bool, str]]:
    process = server_runs(settings)
    yield True, f"the server runs (process {process})" if process else "the server does not run on this folder"
    for key, port in open_ports(settings):
        if process:
            fine = port_answers(settings, port)
            yield fine, f"port {port} ({key}) " + ("is served" if fine else "does not answer: look at the server's log")
        else:
            problem = port_problem(settings, key, port)
            yield not problem, problem or f"port {port} ({key}) is free"


def open_ports(settings: Settings) -> list[tuple[str, int]]:
    ports = [(f"ports.{row[1]}", getattr(settings, f"ports_{row[1]}")) for row in SETTINGS if row[0] == "ports"]
    return [(key, port) for key, port in ports if port]


def port_answers(settings: Settings, port: int) -> bool:
    host = settings.server_listen
    try:
        socket.create_connection((host if host not in ("", "0.0.0.0", "::") else "127.0.0.1", port), 3).close()
        return True
    except OSError:
        return False


def port_problem(settings: Settings, key: str, port: int) -> str:
    """Why the port could not be opened, or ""."""
    host = settings.server_listen
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        return ""
    except OSError as error:
        return explain_port_problem(key, port, error)


def explain_port_problem(key: str, port: int, error: OSError) -> str:
    """One line for a port that could not be opened: the port, who holds it, what to do."""
    option = {"ports.http": ", or choose another: --http-port", "ports.https": ", or choose another: --https-port"}
    advice = option.get(key, f", or choose another: {key}")
    if error.errno == errno.EADDRINUSE:
        holder = who_holds(port)
        return f"port {port} ({key}) is in use by {holder or 'another program'}: stop that one{advice}"
    if error.errno == errno.EACCES:
        return f"port {port} ({key}): ports below 1024 are for root: use the service of the README{advice}"
    return f"port {port} ({key}) cannot be opened: {error.strerror or error}"


def who_holds(port: int) -> str:
    """The process that listens on a TCP port, "java (process 812)"; "" when it cannot be found out (Linux only)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file]
        except OSError:
            continue
        inodes |= {f"socket:[{row[9]}]" for row in rows[1:] if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    for process in filter(str.isdigit, os.listdir("/proc") if inodes else ()):
        try:
            names = os.listdir(f"/proc/{process}/fd")
            if any(os.readlink(f"/proc/{process}/fd/{name}") in inodes for name in names):
                with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
                    words = file.read().split("\0")
                scripts = [word for word in words[1:] if word.endswith((".py", ".jar"))]
                return f"{os.path.basename((scripts or words)[0])} (process {process})"
        except OSError:
            continue  # it has ended, or is another user's
    return "another user's program (`sudo ss -ltnp` names it)" if inodes else ""


def check_certificate(settings: Settings) -> Iterator[tuple[bool, str]]:
    folder = os.path.join(settings.data_folder, "tls")
    own = [os.path.join(folder, f"{kind}.crt") for kind in MAKE_KEY]
    paths = [settings.tls_cert] if settings.tls_cert else [path for path in own if os.path.isfile(path)]
    if os.path.isfile(ACME_CERTIFICATE) and os.path.isfile(ACME_KEY):
        paths = [os.path.abspath(ACME_CERTIFICATE)]
    if not paths:
        fine = any(os.access(os.path.join(f, "openssl"), os.X_OK) for f in os.get_exec_path())
        yield fine, "certificate: made at the first start" if fine else f"certificate: {OPENSSL_MISSING}"
    for path in paths:
        key = settings.tls_key if path == settings.tls_cert else path[:-3] + "key"
        if path.endswith(ACME_CERTIFICATE):
            key = os.path.abspath(ACME_KEY)
        try:
            make_tls_context([(path, key)], settings.tls_key_password, settings.tls_min_version)
            facts = certificate_facts(path)
        except (OSError, ValueError) as error:
            yield False, f"certificate {path}: {explain_tls_problem(error)}"
            continue
        days = int(facts.get("ends", OWN_CERTIFICATES_END) - time.time()) // 86400
        missing = [a for a in lan_addresses() if a not in facts.get("names", [a])] if path in own else []
        if days < 14:
            yield False, f"certificate {path}: it ends in {days} days: renew it"
        elif missing:
            text = f"it does not name {', '.join(missing)}; if a client minds, delete {folder} and start again"
            yield True, f"certificate {path}: {days} days left; {text}"
        else:
            yield True, f"certificate {path}: {days} days left"


def check_clock(settings: Settings) -> Iterator[tuple[bool, str]]:
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    advice = "set it, or let `timedatectl set-ntp true` do it; timers and history go by it"
    if time.localtime().tm_year < 2025:
        yield False, f"clock: {now} cannot be: {advice}"
    elif os.path.isdir("/run/systemd/timesync") and not os.path.exists("/run/systemd/timesync/synchronized"):
        yield False, f"clock: {now}, not set from the network yet: {advice}"
    else:
        yield True, f"clock: {now}"


def check_zones(settings: Settings) -> Iterator[tuple[bool, str]]:
    try:
        import zoneinfo

        zoneinfo.ZoneInfo("Europe/Berlin")
        yield True, "time zone data is there"
    except Exception:  # ZoneInfoNotFoundError, or a broken data set
        yield False, "time zone data is missing, so timers go by UTC: sudo apt install tzdata (or pip install tzdata)"


def check_network(settings: Settings) -> Iterator[tuple[bool, str]]:
    ours = lan_addresses()
    yield bool(ours), f"addresses: {', '.join(ours)}" if ours else "no address in any network: connect cable or Wi-Fi"
    yield True, f"links and QR codes name {detect_host(settings)} (server.host)"
    if settings.discovery_mode == "off":
        yield True, "mDNS: off (discovery.mode)"
        return
    import importlib.util

    if not os.path.exists(AVAHI_SERVICE_FILE) and importlib.util.find_spec("zeroconf") is None:
        yield False, f"mDNS: {ZEROCONF_MISSING}"
        return
    found = mdns_lookup("blynk.local")
    others = found - set(ours)
    if others:
        yield False, f"mDNS: blynk.local is {', '.join(sorted(others))}, another server: use {host_name()}.local"
    elif found:
        yield True, "mDNS: blynk.local is this server"
    else:
        yield (
            not server_runs(settings),
            "mDNS: nobody answers for blynk.local"
            + (": is UDP port 5353 blocked?" if server_runs(settings) else ", since the server does not run"),
        )


def check_mail_settings(settings: Settings) -> Iterator[tuple[bool, str]]:
    text = "`blynk_pi.py check-mail` tries it" if settings.mail_host else "mail.host is empty, so none are sent"
    yield True, f"mail: {text}"


DOCTOR_CHECKS = (
    check_program,
    check_folder,
    check_disk,
    check_ports,
    check_certificate,
    check_clock,
    check_zones,
    check_network,
    check_mail_settings,
)
COMMANDS: dict[str, Callable[[Settings, list[str]], Optional[int]]] = {
    "help": run_help,
    "version": run_version,
    "passwd": run_passwd,
    "users": run_users,
    "token": run_token,
    "doctor": run_doctor,
    "check-mail": run_check_mail,
    "avahi-service": run_avahi_service,
    "backup": run_backup,
    "restore": run_restore,
}


# -- what the console shows at the start (spec 07 §5.2, §5.3) ----------------------------------------------------------


def start_lines(server: Any) -> list[str]:
    """What a newcomer needs, and no more. Scripts look for "successfully started."."""
    settings = server.settings
    lines = ["", f"Blynk Server {__version__} successfully started."]
    if settings.log_folder:
        lines.append(f"All server output is stored in folder '{os.path.abspath(settings.log_folder)}' file.")
    host = server.host
    lines.append("")
    if settings.ports_http:
        lines.append("  in the sketch   " + sketch_line("your token", host, settings.ports_http))
    if settings.ports_https:
        lines.append(f"  in the app      custom server {host}, port {settings.ports_https}")
        lines.append(f"  administration  {admin_url(server)}")
    lines += [f"  data            {os.path.abspath(settings.data_folder)}", ""]
    return lines


def admin_url(server: Any) -> str:
    settings = server.settings
    port = "" if settings.ports_https == 443 or settings.server_links_on_port_80 else f":{settings.ports_https}"
    return f"https://{server.host}{port}{settings.admin_path}"


def admin_lines(server: Any, password: str, made_up: bool) -> list[str]:
    """Shown once, when the first administrator is made."""
    lines = ["Admin password not specified. Random password generated."] if made_up else []
    return [
        *lines,
        f"Your Admin url is {admin_url(server)}",
        f"Your Admin login email is {server.settings.admin_email}",
        f"Your Admin password is {password}",
    ]


# -- 14c main() --------------------------------------------------------------------------------------------------------


def main(argv: Optional[list[str]] = None) -> int:
    """`blynk_pi.py [options]` or a sub-command. Returns the exit code."""
    try:
        settings = load_settings(sys.argv[1:] if argv is None else argv, PROGRAM_FOLDER)
    except SettingsError as problem:
        print(f"blynk_pi: {problem}", file=sys.stderr)
        return 2
    if settings.command:
        return run_command(settings)
    try:
        for line in choose_data_folder(settings)[1]:
            print(line, flush=True)
    except SettingsError as problem:
        print(f"blynk_pi: {problem}", file=sys.stderr)
        return 2
    return Server(settings).run()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the loop was there to stop
        sys.exit(130)
