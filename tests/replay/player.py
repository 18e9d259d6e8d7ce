#!/usr/bin/env python3
"""Plays recorded conversations against a running Blynk server and says where the server differs.

    player.py --host 127.0.0.1 --http-port 8080 --tls-port 9443 [--group spine] [--record] [FILE or FOLDER ...]

A scenario is a text file that reads like the log of a conversation; README.md beside this file explains the
format. Every scenario makes its own accounts, so scenarios are independent and can be played again and again on
one server. With --record the expected lines are rewritten from what the server answered.

Standard library only, Python 3.9 or later.
"""

import argparse
import base64
import concurrent.futures
import email
import email.policy
import gzip
import hashlib
import http.server
import json
import os
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))

# ---------------------------------------------------------------------------------------------------------------
# Vocabulary: the numbers behind the words of a scenario
# ---------------------------------------------------------------------------------------------------------------

COMMANDS = {
    "REGISTER": 1,
    "LOGIN": 2,
    "REDEEM": 3,
    "HARDWARE_CONNECTED": 4,
    "PING": 6,
    "ACTIVATE_DASHBOARD": 7,
    "DEACTIVATE_DASHBOARD": 8,
    "REFRESH_TOKEN": 9,
    "TWEET": 12,
    "EMAIL": 13,
    "PUSH_NOTIFICATION": 14,
    "BRIDGE": 15,
    "HARDWARE_SYNC": 16,
    "BLYNK_INTERNAL": 17,
    "SMS": 18,
    "SET_WIDGET_PROPERTY": 19,
    "HARDWARE": 20,
    "CREATE_DASH": 21,
    "UPDATE_DASH": 22,
    "DELETE_DASH": 23,
    "LOAD_PROFILE_GZIPPED": 24,
    "APP_SYNC": 25,
    "SHARING": 26,
    "ADD_PUSH_TOKEN": 27,
    "EXPORT_GRAPH_DATA": 28,
    "HARDWARE_LOGIN": 29,
    "GET_SHARE_TOKEN": 30,
    "REFRESH_SHARE_TOKEN": 31,
    "SHARE_LOGIN": 32,
    "CREATE_WIDGET": 33,
    "UPDATE_WIDGET": 34,
    "DELETE_WIDGET": 35,
    "GET_ENERGY": 36,
    "ADD_ENERGY": 37,
    "UPDATE_PROJECT_SETTINGS": 38,
    "ASSIGN_TOKEN": 39,
    "GET_SERVER": 40,
    "CONNECT_REDIRECT": 41,
    "CREATE_DEVICE": 42,
    "UPDATE_DEVICE": 43,
    "DELETE_DEVICE": 44,
    "GET_DEVICES": 45,
    "CREATE_TAG": 46,
    "UPDATE_TAG": 47,
    "DELETE_TAG": 48,
    "GET_TAGS": 49,
    "MOBILE_GET_DEVICE": 50,
    "UPDATE_FACE": 51,
    "CREATE_APP": 55,
    "UPDATE_APP": 56,
    "DELETE_APP": 57,
    "GET_PROJECT_BY_TOKEN": 58,
    "EMAIL_QR": 59,
    "GET_ENHANCED_GRAPH_DATA": 60,
    "DELETE_ENHANCED_GRAPH_DATA": 61,
    "GET_CLONE_CODE": 62,
    "GET_PROJECT_BY_CLONE_CODE": 63,
    "HARDWARE_LOG_EVENT": 64,
    "HARDWARE_RESEND_FROM_BLUETOOTH": 65,
    "LOGOUT": 66,
    "CREATE_TILE_TEMPLATE": 67,
    "UPDATE_TILE_TEMPLATE": 68,
    "DELETE_TILE_TEMPLATE": 69,
    "GET_WIDGET": 70,
    "DEVICE_OFFLINE": 71,
    "OUTDATED_APP_NOTIFICATION": 72,
    "TRACK_DEVICE": 73,
    "GET_PROVISION_TOKEN": 74,
    "RESOLVE_EVENT": 75,
    "DELETE_DEVICE_DATA": 76,
    "CREATE_REPORT": 77,
    "UPDATE_REPORT": 78,
    "DELETE_REPORT": 79,
    "EXPORT_REPORT": 80,
    "RESET_PASSWORD": 81,
}
CODES = {
    "OK": 200,
    "QUOTA_LIMIT": 1,
    "ILLEGAL_COMMAND": 2,
    "USER_NOT_REGISTERED": 3,
    "USER_ALREADY_REGISTERED": 4,
    "USER_NOT_AUTHENTICATED": 5,
    "NOT_ALLOWED": 6,
    "DEVICE_NOT_IN_NETWORK": 7,
    "NO_ACTIVE_DASHBOARD": 8,
    "INVALID_TOKEN": 9,
    "ILLEGAL_COMMAND_BODY": 11,
    "NOTIFICATION_INVALID_BODY": 13,
    "NOTIFICATION_NOT_AUTHORIZED": 14,
    "NOTIFICATION_ERROR": 15,
    "NO_DATA": 17,
    "SERVER_ERROR": 19,
    "ENERGY_LIMIT": 21,
    "FACEBOOK_USER_LOGIN_WITH_PASS": 22,
}
COMMAND_NAME = {number: name for name, number in COMMANDS.items()}
CODE_NAME = {number: name for name, number in CODES.items()}
ZLIB_COMMANDS = {24, 58, 60, 63}  # to apps only; 60 is binary graph data, the others JSON
DOCUMENT_COMMANDS = {24, 58, 63, 70}  # documents of the app's making: recorded as json~
KINDS = ("app", "hardware", "hardware-tls", "app-ws", "hardware-ws", "hardware-wss", "http", "https")

PATTERNS = {  # ${:class} and ${?name:class}
    "any": r".*?",
    "some": r".+?",
    "token": r"[A-Za-z0-9_-]{32}",
    "int": r"-?\d+",
    "now": r"1\d{12}",
    "float": r"-?\d+(?:\.\d+)?(?:E-?\d+)?",
    "sec": r"1\d{9}",
    "word": r"[A-Za-z]+",
    "uuid": r"[0-9a-f-]{36}",
    "long-token": r"[A-Za-z0-9_-]{64}",
    "date": r"\d{4}-\d\d-\d\d",
}


class Mismatch(Exception):
    """The server did something else than the scenario says."""


class BadScenario(Exception):
    """The scenario file itself is wrong."""


def password_hash(password, address):
    salt = hashlib.sha256(address.lower().encode()).digest()
    return base64.b64encode(hashlib.sha256(password.encode() + salt).digest()).decode()


def visible(text):
    """Text as scenario files show it: NUL as \\0, line ends as \\n and \\r."""
    return text.replace("\0", "\\0").replace("\n", "\\n").replace("\r", "\\r")


def show(data):
    return visible(data.decode("utf-8", "backslashreplace"))


# ---------------------------------------------------------------------------------------------------------------
# Expected against received
# ---------------------------------------------------------------------------------------------------------------

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


def fill(text, variables):
    """Replaces ${name} by its value; patterns stay."""

    def value(match):
        name = match[1]
        if name[:1] in "?:":
            return match[0]
        if name not in variables:
            raise BadScenario(f"${{{name}}} has no value yet")
        return variables[name]

    return PLACEHOLDER.sub(value, text)


def match_text(expected, received, variables):
    """Whether `received` (visible text) is what `expected` says; remembers what ${?name} stands for."""
    pattern, at, names = "", 0, []
    for found in PLACEHOLDER.finditer(expected):
        pattern += re.escape(expected[at : found.start()])
        at, what = found.end(), found[1]
        if what.startswith("?"):
            name, _, kind = what[1:].partition(":")
            names.append((name, kind))
            pattern += f"({PATTERNS[kind or 'some']})"
        elif what.startswith(":"):
            names.append((None, what[1:]))
            pattern += f"({PATTERNS[what[1:] or 'any']})"
        else:
            pattern += re.escape(visible(fill(found[0], variables)))
    hit = re.fullmatch(pattern + re.escape(expected[at:]), received, re.S)
    if not hit:
        return False
    for (_name, kind), value in zip(names, hit.groups()):
        if kind == "now" and abs(int(value) / 1000 - time.time()) > 36 * 3600:
            return False
    variables.update((name, value) for (name, _), value in zip(names, hit.groups()) if name)
    return True


def neutral(value):
    return value is None or value is False or (value == 0 and not isinstance(value, bool)) or value in ("", [], {})


def match_json(expected, received, variables, form):
    """Structural comparison. form "": the same; "~": absent is the same as 0, false or empty; "+": at least this."""
    if isinstance(expected, dict):
        if not isinstance(received, dict):
            return False
        for key in received:
            if key not in expected and not (form == "+" or (form == "~" and neutral(received[key]))):
                return False
        for key, value in expected.items():
            if key in received:
                if not match_json(value, received[key], variables, form):
                    return False
            elif not (form == "~" and neutral(value)):
                return False
        return True
    if isinstance(expected, list):
        if not isinstance(received, list):
            return False
        if form == "+":
            return all(any(match_json(e, r, variables, form) for r in received) for e in expected)
        return len(expected) == len(received) and all(
            match_json(e, r, variables, form) for e, r in zip(expected, received)
        )
    if isinstance(expected, str) and "${" in expected:
        return not isinstance(received, (dict, list)) and match_text(expected, visible(str(received)), variables)
    if isinstance(expected, bool) or isinstance(received, bool):
        return expected is received
    return expected == received


def decode_graph(data):
    """Binary graph reply as text: the dashboard id, then per stream its points value@timestamp."""
    (dash,), at, streams = struct.unpack_from(">i", data), 4, []
    while at < len(data):
        (count,) = struct.unpack_from(">i", data, at)
        points = [struct.unpack_from(">dq", data, at + 4 + 16 * i) for i in range(count)]
        at += 4 + 16 * count
        streams.append("[" + " ".join(f"{value!r}@{ts}" for value, ts in points) + "]")
    return " ".join([str(dash)] + streams)


def match_body(expected, data, variables):
    """`expected` is the body text of a scenario line, `data` the bytes received."""
    form, _, rest = expected.partition(" ")
    if form.rstrip("~+") in ("zjson", "json"):
        try:
            received = json.loads(zlib.decompress(data) if form[0] == "z" else data)
        except (ValueError, zlib.error):
            return False
        return match_json(json.loads(rest), received, variables, form[-1] if form[-1] in "~+" else "")
    if form == "zgraph":
        try:
            return match_text(rest, decode_graph(zlib.decompress(data)), variables)
        except (zlib.error, struct.error):
            return False
    return match_text(expected, show(data), variables)


# ---------------------------------------------------------------------------------------------------------------
# Connections: everything that can receive something keeps it in `inbox`; `at` is the first not yet looked at
# ---------------------------------------------------------------------------------------------------------------


class Connection:
    """One socket of a scenario. Subclasses turn bytes into events (objects with show() and matches())."""

    def __init__(self, name, sock):
        self.name, self.sock, self.buffer = name, sock, b""
        self.inbox, self.at, self.id, self.open = [], 0, 0, True
        self.sock.setblocking(False)

    def write(self, data):
        self.sock.settimeout(5)
        try:
            self.sock.sendall(data)
        except OSError:
            self.open = False
        finally:
            self.sock.setblocking(False)

    def read(self):
        """Takes what has arrived; never waits."""
        while self.open:
            try:
                data = self.sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                data = b""
            if not data:
                self.open = False
                self.end()
                return
            self.buffer += data
            self.parse()

    def end(self):
        """The server has closed the connection."""

    def close(self):
        self.open = False
        try:
            self.sock.close()
        except OSError:
            pass


class Frame:
    """A protocol frame received: command, message id, body; for a response the code instead of the body."""

    def __init__(self, command, ident, body, to_app):
        self.command, self.id, self.body, self.to_app = command, ident, body, to_app

    def name(self):
        if self.command == 0:
            return CODE_NAME.get(self.body, f"CODE{self.body}")
        return COMMAND_NAME.get(self.command, f"CMD{self.command}")

    def show(self):
        if self.command == 0:
            return f"{self.name()} #{self.id}"
        body = self.body
        if self.to_app and self.command in ZLIB_COMMANDS:
            try:
                body = zlib.decompress(body)
                text = "zgraph " + decode_graph(body) if self.command == 60 else "zjson " + show(body)
            except zlib.error:
                text = show(body)
        else:
            text = show(body)
        return f"{self.name()} #{self.id}" + (f" {text}" if text else "")

    def matches(self, expected, variables):
        words = expected.split(" ", 2)
        if words[0] != self.name() or len(words) < 2 or not match_text(words[1], f"#{self.id}", variables):
            return False
        if self.command == 0:
            return len(words) == 2
        return match_body(words[2] if len(words) > 2 else "", self.body, variables)

    def record(self, pen):
        head = f"{self.name()} #{self.id}"
        if self.command == 0:
            return head
        data, form = self.body, ""
        if self.to_app and self.command in ZLIB_COMMANDS:
            data = zlib.decompress(data)
            if self.command == 60:
                return f"{head} zgraph {pen.text(decode_graph(data))}"
            form = "z"
        try:
            document = json.loads(data) if data[:1] in b"[{" and data else None
        except ValueError:
            document = None
        if document is None:
            return head + (f" {pen.text(show(data))}" if data else "")
        same = "~" if self.command in DOCUMENT_COMMANDS else ""
        return f"{head} {form}json{same} {pen.json(document)}"


class Protocol(Connection):
    """Blynk frames over TCP or TLS: header of 5 bytes for hardware, 7 for apps."""

    def __init__(self, name, sock, app):
        super().__init__(name, sock)
        self.app, self.header = app, struct.Struct(">BHI" if app else ">BHH")

    def send(self, command, ident, body):
        self.write(self.frame(command, ident, body))

    def frame(self, command, ident, body):
        return self.header.pack(command, ident, len(body)) + body

    def parse(self):
        while len(self.buffer) >= self.header.size:
            command, ident, length = self.header.unpack_from(self.buffer)
            size = self.header.size + (0 if command == 0 else length)
            if len(self.buffer) < size:
                return
            body = length if command == 0 else self.buffer[self.header.size : size]
            self.inbox.append(Frame(command, ident, body, self.app))
            self.buffer = self.buffer[size:]


class WebSocket(Connection):
    """Blynk frames in binary websocket messages: 3-byte header for apps (one message each), hardware as a stream."""

    def __init__(self, name, sock, app, path, host):
        super().__init__(name, sock)
        self.app, self.stream, self.upgraded = app, b"", False
        self.write(
            (
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )

    def send(self, command, ident, body):
        self.message(2, self.frame(command, ident, body))

    def frame(self, command, ident, body):
        if self.app:
            return struct.pack(">BH", command, ident) + body
        return struct.pack(">BHH", command, ident, len(body)) + body

    def message(self, opcode, payload):
        mask, size = os.urandom(4), len(payload)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
        else:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
        self.write(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def parse(self):
        if not self.upgraded:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            status = head.split(b"\r\n")[0].decode("latin-1").split(" ", 1)[-1]
            self.inbox.append(Note(f"UPGRADE {status}"))
            self.upgraded, self.buffer = True, rest
        while len(self.buffer) >= 2:
            opcode, size, at = self.buffer[0] & 15, self.buffer[1] & 127, 2
            if size == 126:
                size, at = int.from_bytes(self.buffer[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(self.buffer[2:10], "big"), 10
            if len(self.buffer) < at + size:
                return
            payload, self.buffer = self.buffer[at : at + size], self.buffer[at + size :]
            if opcode == 2:
                self.binary(payload)
            elif opcode != 9:
                self.inbox.append(
                    Note(
                        {1: "TEXT ", 8: "CLOSE ", 10: "PONG "}.get(opcode, f"OPCODE{opcode} ")
                        + (payload.hex() if opcode == 8 else show(payload))
                    )
                )

    def binary(self, payload):
        if self.app:
            command, ident = struct.unpack_from(">BH", payload)
            body = int.from_bytes(payload[3:], "big") if command == 0 else payload[3:]
            self.inbox.append(Frame(command, ident, body, True))
            return
        self.stream += payload
        while len(self.stream) >= 5:
            command, ident, length = struct.unpack_from(">BHH", self.stream)
            size = 5 + (0 if command == 0 else length)
            if len(self.stream) < size:
                return
            self.inbox.append(Frame(command, ident, length if command == 0 else self.stream[5:size], False))
            self.stream = self.stream[size:]


class Note:
    """Something received that is just a line of text."""

    def __init__(self, text):
        self.text = text.rstrip(" ")

    def show(self):
        return self.text

    def matches(self, expected, variables):
        return match_text(expected, self.text, variables)

    def record(self, pen):
        return pen.text(self.text)


class Reply:
    """An HTTP response: status, content type (without parameters, - if none), body."""

    SHOWN_HEADERS = ("location", "set-cookie", "x-total-count")

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        self.type = headers.get("content-type", "-").split(";")[0] or "-"
        if self.type == "application/x-gzip" and body:
            self.body = gzip.decompress(body)

    def show(self):
        text = show(self.body) if self.textual() else "bytes:" + self.body[:8].hex()
        return f"{self.status} {self.type}" + (f" {text}" if text else "")

    def textual(self):
        return self.type in (
            "-",
            "application/json",
            "text/plain",
            "text/html",
            "application/x-gzip",
            "application/javascript",
            "text/css",
        )

    def matches(self, expected, variables):
        words = expected.split(" ", 2)
        if words[0] != str(self.status) or (len(words) > 1 and words[1] != self.type):
            return False
        body = words[2] if len(words) > 2 else ""
        if body.startswith("bytes:"):
            return self.body.hex().startswith(body[6:])
        if body.startswith("~"):
            return match_text("${:any}" + body[1:] + "${:any}", show(self.body), variables)
        return match_body(body, self.body, variables)

    def record(self, pen):
        head, body = f"{self.status} {self.type}", ""
        if not self.textual():
            body = "bytes:" + self.body[:8].hex()
        elif self.type == "text/html" and len(self.body) > 200:
            body = "~"
        else:
            try:
                document = json.loads(self.body) if self.type == "application/json" else None
            except ValueError:
                document = None
            if isinstance(document, (dict, list)):
                body = ("json~ " if isinstance(document, dict) and "id" in document else "json ") + pen.json(document)
            else:
                body = pen.text(show(self.body))
        return head + (f" {body}" if body else ""), [
            f"{key}: {pen.text(self.headers[key])}" for key in self.SHOWN_HEADERS if key in self.headers
        ]


class Http(Connection):
    """A keep-alive HTTP connection; requests are written as they stand in the scenario."""

    def __init__(self, name, sock, host):
        super().__init__(name, sock)
        self.host, self.last = host, None

    def request(self, method, target, kind, body, headers):
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}"] + headers
        if kind:
            lines.append(f"Content-Type: {kind}")
        if kind or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body)}")
        self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def parse(self):
        while True:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            status = int(lines[0].split(" ")[1])
            length = headers.get("content-length")
            if status in (100, 304):
                length = 0
            if length is None and self.open:
                return  # ends with the connection
            length = len(rest) if length is None else int(length)
            if len(rest) < length:
                return
            self.inbox.append(Reply(status, headers, rest[:length]))
            self.buffer = rest[length:]

    def end(self):
        if self.buffer:
            self.parse()


class Watcher:
    """Where something arrives that the server sends to others: webhook calls, mails, pushes."""

    sock = None
    open = True

    def __init__(self, name):
        self.name, self.inbox, self.at = name, [], 0

    def read(self):
        pass

    def close(self):
        pass


class Call:
    """A webhook call received: method, path, content type, body."""

    def __init__(self, method, path, kind, body, headers):
        self.headers = {key.lower(): value for key, value in headers.items()}
        self.text = f"{method} {visible(path)} {kind or '-'} {show(body)}".rstrip(" ")

    show, matches, record = Note.show, Note.matches, Note.record


class Hook(Watcher):
    """A local HTTP server of the scenario's own. `answer` is what it says to the next calls."""

    def __init__(self, name):
        super().__init__(name)
        hook = self
        self.answer = (200, "text/plain", b"")

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hook.inbox.append(
                    Call(self.command, self.path, self.headers.get("Content-Type"), body, dict(self.headers))
                )
                status, kind, answer = hook.answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Mail:
    """A mail received: subject | content type | text."""

    def __init__(self, message):
        part = message.get_body(("html", "plain")) or message
        self.subject, self.type = str(message["Subject"]), part.get_content_type()
        self.body = visible(part.get_content().replace("\r\n", "\n")).strip()
        if self.body.endswith("\\n"):
            self.body = self.body[:-2]

    def show(self):
        return f"{self.subject} | {self.type} | {self.body}"

    def matches(self, expected, variables):
        subject, kind, body = (expected.split(" | ", 2) + ["~", "~"])[:3]
        if body.startswith("~"):
            body = "${:any}" + body[1:] + "${:any}"
        return (
            match_text(subject, self.subject, variables)
            and kind in ("~", self.type)
            and match_text(body, self.body, variables)
        )

    def record(self, pen):
        body = "~" if self.type == "text/html" else pen.text(self.body)
        return f"{pen.text(self.subject)} | {self.type} | {body}"


class Push:
    """A push request received, as JSON."""

    def __init__(self, document):
        self.document = document

    def show(self):
        return json.dumps(self.document, ensure_ascii=False)

    def matches(self, expected, variables):
        return match_json(json.loads(expected), self.document, variables, "")

    def record(self, pen):
        return pen.json(self.document)


class Post:
    """The SMTP and push sinks, shared by all scenarios: what arrives is delivered to who watches the address."""

    def __init__(self, smtp_port, push_port):
        self.boxes, self.lock, self.waiting = {}, threading.Lock(), {}
        if smtp_port:
            self.listen(smtp_port, self.smtp)
        if push_port:
            self.listen(push_port, self.push)

    def watch(self, address, watcher):
        with self.lock:
            self.boxes[address] = watcher
            watcher.inbox.extend(self.waiting.pop(address, []))

    def deliver(self, address, thing):
        with self.lock:
            if address in self.boxes:
                self.boxes[address].inbox.append(thing)
            else:
                self.waiting.setdefault(address, []).append(thing)

    @staticmethod
    def listen(port, talk):
        server = socket.create_server(("127.0.0.1", port), backlog=50)

        def accept():
            while True:
                client, _ = server.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def smtp(self, client):
        with client, client.makefile("rwb") as stream:

            def say(line):
                stream.write(line.encode() + b"\r\n")
                stream.flush()

            say("220 sink")
            receivers = []
            for line in stream:
                word = line[:4].upper().strip()
                if word in (b"EHLO", b"HELO"):
                    say("250 sink")
                elif word == b"RCPT":
                    receivers.append(re.search(rb"<([^>]*)>", line)[1].decode())
                    say("250 ok")
                elif word == b"DATA":
                    say("354 go on")
                    lines = []
                    for part in stream:
                        if part == b".\r\n":
                            break
                        lines.append(part[1:] if part.startswith(b"..") else part)
                    message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                    for receiver in receivers:
                        self.deliver(receiver, Mail(message))
                    receivers = []
                    say("250 ok")
                elif word == b"QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 ok")

    def push(self, client):
        with client, client.makefile("rwb") as stream:
            while True:
                line, length = stream.readline(), 0
                if not line:
                    return
                while line not in (b"\r\n", b""):
                    line = stream.readline()
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                document = json.loads(stream.read(length))
                self.deliver(document.get("to", ""), Push(document))
                answer = b'{"success":1,"failure":0}'
                stream.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(answer), answer)
                )
                stream.flush()


# ---------------------------------------------------------------------------------------------------------------
# Recording: received things as scenario lines, with placeholders for what varies
# ---------------------------------------------------------------------------------------------------------------


class Pen:
    def __init__(self, variables):
        self.variables, self.count = variables, 0

    def text(self, text):
        for name, value in sorted(self.variables.items(), key=lambda item: -len(item[1])):
            if len(value) >= 10 and value[0] != "{":
                text = text.replace(visible(value), f"${{{name}}}")
        port = self.variables["http_port"]
        text = re.sub(rf"(127\.0\.0\.1:){port}\b", r"\1${http_port}", text)
        text = re.sub(r"(?<![\w{:-])[A-Za-z0-9_-]{32}(?![\w-])", self.token, text)
        return re.sub(r"(?<!\d)1\d{12}(?!\d)", self.moment, text)

    def token(self, match):
        if "." in match[0] or match[0].isdigit():
            return match[0]
        self.count += 1
        while f"t{self.count}" in self.variables:
            self.count += 1
        self.variables[f"t{self.count}"] = match[0]
        return f"${{?t{self.count}:token}}"

    @staticmethod
    def moment(match):
        near = abs(int(match[0]) - time.time() * 1000) < 600_000
        return "${:now}" if near else match[0]

    def json(self, document):
        return json.dumps(self.walk(document), ensure_ascii=False, separators=(",", ":")).replace("\u007f", "\\u007f")

    def walk(self, value):
        if isinstance(value, dict):
            return {key: self.walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.walk(item) for item in value]
        if isinstance(value, str):
            return self.text(value) if "\0" not in value else value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value - time.time() * 1000) < 600_000:
            return "${:now}"
        return value


# ---------------------------------------------------------------------------------------------------------------
# Scenarios
# ---------------------------------------------------------------------------------------------------------------


class Line:
    def __init__(self, number, text):
        self.number, self.text, self.inner, self.kind = number, text, None, None


def parse_file(path):
    """The steps of a file. A block (either/or/end, unordered/end) is one step; its lines are in `inner`."""
    steps, block = [], None
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    number = 0
    while number < len(lines):
        text, start = lines[number], number + 1
        while text.endswith(" \\"):
            number += 1
            text = text[:-1] + lines[number].strip()
        number += 1
        word = text.split(" ")[0].rstrip(":")
        if word in ("either", "unordered") and block is None:
            block = Line(start, text)
            block.kind, block.inner, block.source = word, [[]], [text]
        elif block is not None:
            block.source.append(text)
            if word == "or":
                block.inner.append([])
            elif word == "end":
                steps.append(block)
                block = None
            elif text.strip() and not text.startswith("#"):
                block.inner[-1].append(Line(start, text.lstrip()))
        else:
            line = Line(start, text)
            line.source = lines[start - 1 : number]
            steps.append(line)
    if block is not None:
        raise BadScenario(f"line {block.number}: block without end")
    return steps


def is_expectation(line):
    return line.kind is not None or bool(re.match(r"\w+ (<|quiet\b|closed\b|header\b)", line.text))


class Scenario:
    """Plays (or records) one file."""

    def __init__(self, path, settings, post):
        self.path, self.settings, self.post = path, settings, post
        self.connections, self.accounts, self.step = {}, {}, 0
        unique = base64.b32encode(os.urandom(6)).decode().strip("=").lower()
        self.unique = unique
        self.variables = {
            "host": settings.host,
            "http_port": str(settings.http_port),
            "tls_port": str(settings.tls_port),
            "unique": unique,
        }

    # -- running ---------------------------------------------------------------------------------------------

    def skipped(self, steps):
        for line in steps:
            if line.text.startswith("needs "):
                wanted = line.text.split()[1]
                if not {"mail": self.settings.smtp_port, "push": self.settings.push_port}.get(wanted, True):
                    return wanted
        return None

    def play(self):
        steps = parse_file(self.path)
        try:
            for line in steps:
                if not line.text.strip() or line.text.startswith("#") or line.text.startswith("needs "):
                    continue
                self.step += 1
                self.now = line
                if is_expectation(line):
                    self.expect(line, self.settings.timeout)
                else:
                    self.act(line.text)
            self.step += 1
            self.pump(self.settings.settle)
            for connection in self.connections.values():
                if connection.at < len(connection.inbox):
                    raise Mismatch(
                        f"expected nothing more on {connection.name}, got {connection.inbox[connection.at].show()}"
                    )
        finally:
            self.close()

    def record(self):
        """Plays the file and writes it anew: expectations that hold stay as they are, others are replaced."""
        steps, out, at = parse_file(self.path), [], 0
        pen = Pen(self.variables)
        try:
            while at < len(steps):
                line = steps[at]
                at += 1
                if not line.text.strip() or line.text.startswith("#") or line.text.startswith("needs "):
                    out += line.source
                    continue
                if is_expectation(line):
                    continue  # one without an action before it
                self.now = line
                marks = {name: len(c.inbox) for name, c in self.connections.items()}
                was_open = {name for name, c in self.connections.items() if c.open}
                self.act(line.text)
                out += line.source
                begin = len(out)
                self.settle(self.settings.quiet)
                while at < len(steps) and is_expectation(steps[at]):
                    try:
                        self.expect(steps[at], 0.05)
                        out += steps[at].source
                    except Mismatch:
                        pass
                    at += 1
                self.pump(0.01)
                told = False
                for name, connection in list(self.connections.items()):
                    told = told or len(connection.inbox) > marks.get(name, 0)
                    for thing in connection.inbox[connection.at :]:
                        text = thing.record(pen)
                        text, headers = text if isinstance(text, tuple) else (text, [])
                        out.append(f"{name} < {text}")
                        out += [f"{name} header {header}" for header in headers]
                    connection.at = len(connection.inbox)
                    if not connection.open and name in was_open and connection.sock and not self.closed_by_us(name):
                        if f"{name} closed" not in [o[: len(name) + 7] for o in out[begin:]]:
                            out.append(f"{name} closed")
                        told = True
                sender = re.match(r"(\w+) >", line.text)
                if sender and not told and f"{sender[1]} quiet" not in out[begin:]:
                    out.append(f"{sender[1]} quiet")
        finally:
            self.close()
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("\n".join(out).rstrip("\n") + "\n")

    def closed_by_us(self, name):
        return getattr(self.connections[name], "mine", False)

    def close(self):
        for connection in self.connections.values():
            connection.close()

    # -- waiting ---------------------------------------------------------------------------------------------

    def pump(self, seconds):
        """Reads whatever arrives within that time, on all connections."""
        end = time.monotonic() + seconds
        while True:
            sockets = {c.sock: c for c in self.connections.values() if c.sock and c.open}
            left = end - time.monotonic()
            if not sockets:
                time.sleep(max(0, min(left, 0.05)))
            else:
                ready, _, _ = select.select(list(sockets), [], [], max(0, min(left, 0.05)))
                for sock in ready:
                    sockets[sock].read()
            if time.monotonic() >= end:
                return

    def total(self):
        return sum(len(c.inbox) + (not c.open) for c in self.connections.values())

    def settle(self, quiet):
        """Reads until nothing has arrived for `quiet` seconds."""
        before = -1
        while before != self.total():
            before = self.total()
            self.pump(quiet)

    def arrived(self, connection, timeout):
        """Whether something not yet looked at is there, waiting up to `timeout` for it."""
        end = time.monotonic() + timeout
        while connection.at >= len(connection.inbox):
            if time.monotonic() >= end or not connection.open:
                return False
            self.pump(0.005)
        return True

    # -- expectations ----------------------------------------------------------------------------------------

    def expect(self, line, timeout):
        if line.kind == "either":
            return self.expect_either(line, timeout)
        if line.kind == "unordered":
            return self.expect_unordered(line, timeout)
        name, word, rest = (line.text.split(" ", 2) + ["", ""])[:3]
        connection = self.connection(name)
        if word == "quiet":
            self.pump(int(rest or 300) / 1000)
            if connection.at < len(connection.inbox):
                raise Mismatch(f"expected silence on {name}, got {connection.inbox[connection.at].show()}")
        elif word == "closed":
            end = time.monotonic() + (int(rest) / 1000 if rest else max(timeout, 3))
            while connection.open and time.monotonic() < end:
                self.pump(0.01)
            if connection.at < len(connection.inbox):
                raise Mismatch(f"expected {name} to be closed, got {connection.inbox[connection.at].show()}")
            if connection.open:
                raise Mismatch(f"expected {name} to be closed, it stays open")
        elif word == "header":
            key, _, wanted = rest.partition(": ")
            last = connection.inbox[connection.at - 1]
            got = last.headers.get(key.lower(), "(absent)")
            if not match_text(wanted, got, self.variables):
                raise Mismatch(f"expected header {key}: {wanted}, got {got}")
        elif not self.arrived(connection, timeout):
            raise Mismatch(f"expected {name} < {rest}, got nothing" + ("" if connection.open else " (closed)"))
        else:
            thing = connection.inbox[connection.at]
            if not thing.matches(rest, self.variables):
                raise Mismatch(f"expected {name} < {rest}, got {thing.show()}")
            connection.at += 1
        return None

    def expect_either(self, line, timeout):
        start = {name: c.at for name, c in self.connections.items()}
        problems = []
        for alternative in line.inner:
            for name, at in start.items():
                self.connections[name].at = at
            try:
                for inner in alternative:
                    self.expect(inner, min(timeout, 1.5))
                return
            except Mismatch as problem:
                problems.append(str(problem))
        raise Mismatch(" / or ".join(problems))

    def expect_unordered(self, line, timeout):
        groups = {}
        for inner in line.inner[0]:
            name, _, rest = inner.text.split(" ", 2)
            groups.setdefault(name, []).append(rest)
        for name, wanted in groups.items():
            connection = self.connection(name)
            for _i in range(len(wanted)):
                if not self.arrived(connection, timeout):
                    raise Mismatch(f"expected {name} < {wanted[-1]}, got nothing")
                thing = connection.inbox[connection.at]
                hit = next((w for w in wanted if thing.matches(w, self.variables)), None)
                if hit is None:
                    raise Mismatch(f"expected {name} < one of {wanted}, got {thing.show()}")
                wanted.remove(hit)
                connection.at += 1
                if not wanted:
                    break

    # -- actions ---------------------------------------------------------------------------------------------

    def connection(self, name):
        if name not in self.connections:
            raise BadScenario(f"line {self.now.number}: no connection {name}")
        return self.connections[name]

    def act(self, text):
        first, word, rest = (text.split(" ", 2) + ["", ""])[:3]
        if hasattr(self, "do_" + first):
            getattr(self, "do_" + first)(text[len(first) :].strip())
        elif word in (">", ">>", "flood", "close", "answers", "ping", "sends", "text"):
            getattr(self, {">": "send", ">>": "send_hex", "sends": "send_raw", "close": "hang_up"}.get(word, word))(
                self.connection(first), rest
            )
        else:
            raise BadScenario(f"line {self.now.number}: {text}")

    def do_account(self, rest):
        """account NAME [app=APPNAME] [password=TEXT]"""
        name, *options = rest.split()
        options = dict(option.split("=", 1) for option in options)
        address = f"{name}-{self.unique}@example.com"
        password = options.get("password", "pw-" + name)
        self.accounts[name] = {"app": options.get("app", "Blynk"), "registered": False}
        self.variables.update(
            {f"{name}.mail": address, f"{name}.hash": password_hash(password, address), f"{name}.password": password}
        )

    def do_let(self, rest):
        name, _, value = rest.partition(" = ")
        self.variables[name] = fill(value, self.variables).replace("\\0", "\0")

    def do_hash(self, rest):
        """hash VAR ACCOUNT-OR-ADDRESS PASSWORD: the hash an app would send for that password; VAR.form for forms"""
        name, account, password = rest.split()
        digest = password_hash(password, self.variables.get(account + ".mail", account))
        self.variables[name] = digest
        self.variables[name + ".form"] = digest.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")

    def do_wait(self, rest):
        self.pump(int(rest) / 1000)

    def do_blob(self, rest):
        """blob VAR LENGTH: a text of that many letters"""
        name, length = rest.split()
        self.variables[name] = "x" * int(length)

    def do_second(self, rest):
        """second VAR N: the second of the UTC day in N seconds, as text"""
        name, ahead = rest.split()
        self.variables[name] = str((int(time.time()) + int(ahead)) % 86400)

    def do_until(self, rest):
        """until second FIRST LAST: waits till the second of the minute is in that range"""
        _, first, last = rest.split()
        while not int(first) <= time.time() % 60 <= int(last):
            self.pump(0.2)

    def do_open(self, rest):
        """open NAME KIND [path]"""
        name, kind, *path = rest.split()
        if kind not in KINDS:
            raise BadScenario(f"line {self.now.number}: kind {kind}")
        tls = kind in ("app", "hardware-tls", "app-ws", "hardware-wss", "https")
        port = self.settings.tls_port if tls else self.settings.http_port
        sock = socket.create_connection((self.settings.host, port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        host = f"{self.settings.host}:{port}"
        if kind.startswith("http"):
            made = Http(name, sock, host)
        elif "-ws" in kind:
            app = kind == "app-ws"
            made = WebSocket(name, sock, app, path[0] if path else "/dashws" if app else "/websockets", host)
        else:
            made = Protocol(name, sock, kind == "app")
        self.connections[name] = made

    def ask(self, connection, command, body, id=1, timeout=10):
        """For the short forms: sends, waits for the answer of that id, returns it (a Frame)."""
        connection.send(command, id, body.encode())
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.arrived(connection, 0.1):
                frame = connection.inbox[connection.at]
                if isinstance(frame, Frame) and frame.id == id and frame.command in (0, command):
                    connection.at += 1
                    return frame
                raise Mismatch(f"expected an answer on {connection.name}, got {frame.show()}")
            if not connection.open:
                break
        raise Mismatch(f"expected an answer on {connection.name}, got nothing")

    def do_app(self, rest):
        """app NAME ACCOUNT [OS VERSION]: opens an app connection, registers the account if need be, logs in"""
        name, account, *client = rest.split()
        system, version = client or ("Android", "2.27.0")
        self.do_open(f"{name} app")
        connection, owner = self.connections[name], self.accounts[account]
        address, digest = self.variables[account + ".mail"], self.variables[account + ".hash"]
        if not owner["registered"]:
            answer = self.ask(connection, 1, f"{address}\0{digest}\0{owner['app']}", 1)
            if answer.body != 200:
                raise Mismatch(f"expected OK to the registration, got {answer.show()}")
            owner["registered"] = True
        answer = self.ask(connection, 2, f"{address}\0{digest}\0{system}\0{version}\0{owner['app']}", 2)
        if answer.body != 200:
            raise Mismatch(f"expected OK to the login, got {answer.show()}")

    def do_hardware(self, rest):
        """hardware NAME TOKEN [tls|ws|wss]: opens a device connection and logs in (message id 1)"""
        name, token, *kind = rest.split()
        self.do_open(f"{name} hardware{'-' + kind[0] if kind else ''}")
        connection = self.connections[name]
        if kind and kind[0].startswith("ws"):
            if not self.arrived(connection, 5):
                raise Mismatch("expected a websocket upgrade, got nothing")
            connection.at += 1
        answer = self.ask(connection, 29, fill(token, self.variables), 1)
        if answer.body != 200:
            raise Mismatch(f"expected OK to the hardware login, got {answer.show()}")
        connection.id = 1

    def do_token(self, rest):
        """token VAR APP DASH DEVICE: asks for the device and keeps its token (message id 900)"""
        name, app, dash, device = rest.split()
        answer = self.ask(self.connection(app), 50, f"{dash}\0{device}", 900)
        if answer.command == 0:
            raise Mismatch(f"expected a device, got {answer.show()}")
        self.variables[name] = json.loads(answer.body)["token"]

    def do_serve(self, rest):
        hook = Hook(rest)
        self.connections[rest] = hook
        self.variables[rest + ".url"] = hook.url

    def do_mailbox(self, rest):
        """mailbox NAME ADDRESS"""
        name, address = rest.split()
        self.connections[name] = Watcher(name)
        self.post.watch(fill(address, self.variables), self.connections[name])

    def do_phone(self, rest):
        """phone NAME PUSHTOKEN"""
        name, token = rest.split()
        self.connections[name] = Watcher(name)
        self.post.watch(fill(token, self.variables), self.connections[name])

    def answers(self, hook, rest):
        status, kind, body = (rest.split(" ", 2) + ["", ""])[:3]
        hook.answer = (int(status), kind or "text/plain", body.replace("\\0", "\0").encode())

    def body(self, text):
        return fill(text, self.variables).replace("\\0", "\0").encode()

    def send(self, connection, rest):
        if isinstance(connection, Http):
            return self.send_http(connection, rest)
        word, _, body = rest.partition(" ")
        ident = None
        if body.startswith("#"):
            mark, _, body = body.partition(" ")
            ident = int(mark[1:])
        if ident is None:
            connection.id += 1
            ident = connection.id
        else:
            connection.id = ident
        if word in CODES:  # a response sent by us: header only
            head = connection.header if isinstance(connection, Protocol) else struct.Struct(">BHH")
            return connection.write(head.pack(0, ident, CODES[word]))
        command = COMMANDS[word] if word in COMMANDS else int(word[3:])
        return connection.send(command, ident, self.body(body))

    def send_http(self, connection, rest):
        """METHOD PATH [Header: value; …] [content/type body]"""
        method, target, tail = (rest.split(" ", 2) + ["", ""])[:3]
        headers, kind, body = [], "", b""
        if tail.startswith("["):
            inner, _, tail = tail[1:].partition("] ") if "] " in tail else (tail[1:-1], "", "")
            headers = [fill(h.strip(), self.variables) for h in inner.split(";; ")]
        if tail:
            kind, _, text = tail.partition(" ")
            body = self.body(text.replace("\\r\\n", "\r\n"))
            kind = "" if kind == "-" else kind
        connection.request(method, fill(target, self.variables), kind, body, headers)

    @staticmethod
    def send_hex(connection, rest):
        connection.write(bytes.fromhex(rest))

    def send_raw(self, connection, rest):
        connection.write(self.body(rest.replace("\\r", "\r").replace("\\n", "\n")))

    @staticmethod
    def text(connection, rest):
        connection.message(1, rest.encode())

    @staticmethod
    def ping(connection, rest):
        connection.message(9, rest.encode())

    def flood(self, connection, rest):
        """flood N COMMAND [body]: N frames in one write; as many OK answers are taken, others put up"""
        count, word, body = (rest.split(" ", 2) + [""])[:3]
        data = b""
        for _ in range(int(count)):
            connection.id += 1
            data += connection.frame(COMMANDS[word], connection.id, self.body(body))
        connection.write(data)
        left = int(count) if word == "PING" else 0
        while left and self.arrived(connection, 3):
            frame = connection.inbox[connection.at]
            if frame.name() != "OK":
                break
            connection.at += 1
            left -= 1

    def hang_up(self, connection, _):
        connection.mine = True
        connection.close()
        self.pump(0.15)  # the server notices it a moment later


# ---------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------


def find_files(arguments, group):
    places = arguments or [os.path.join(HERE, g) for g in ([group] if group else sorted(os.listdir(HERE)))]
    files = []
    for place in places:
        if os.path.isdir(place):
            for folder, _, names in sorted(os.walk(place)):
                files += [os.path.join(folder, n) for n in sorted(names) if re.match(r"\d\d+-.*\.txt$", n)]
        elif arguments:
            files.append(place)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="scenario files or folders (all groups)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--http-port", type=int, default=8080)
    parser.add_argument("--tls-port", type=int, default=9443)
    parser.add_argument("--group", help="a folder beside this program: spine, app, http, automation")
    parser.add_argument("--smtp-port", type=int, default=0, help="listen here for the server's mails (0: skip those)")
    parser.add_argument("--push-port", type=int, default=0, help="listen here for the server's pushes (0: skip those)")
    parser.add_argument("--jobs", type=int, default=4, help="scenarios played at a time (4)")
    parser.add_argument("--timeout", type=float, default=5, help="seconds to wait for what is expected (5)")
    parser.add_argument("--settle", type=float, default=0.2, help="seconds of silence at the end of a scenario")
    parser.add_argument("--quiet", type=float, default=0.35, help="seconds of silence that end a step when recording")
    parser.add_argument("--record", action="store_true", help="rewrite the expected lines from the answers")
    settings = parser.parse_args()
    post = Post(settings.smtp_port, settings.push_port)
    files = find_files(settings.files, settings.group)

    def run(path):
        scenario = Scenario(path, settings, post)
        try:
            wanted = scenario.skipped(parse_file(path))
            if wanted:
                return "skip", f"needs --{ {'mail': 'smtp', 'push': 'push'}[wanted] }-port"
            if settings.record:
                scenario.record()
                return "ok", "recorded"
            scenario.play()
            return "ok", ""
        except Mismatch as problem:
            return "differs", f"step {scenario.step} (line {scenario.now.number}), {problem}"
        except (BadScenario, OSError, KeyError, ValueError, json.JSONDecodeError) as problem:
            line = getattr(scenario, "now", None)
            return "differs", f"step {scenario.step} (line {line.number if line else '?'}), {problem!r}"

    counts = {"ok": 0, "differs": 0, "skip": 0}
    with concurrent.futures.ThreadPoolExecutor(settings.jobs) as pool:
        for path, (result, text) in zip(files, pool.map(run, files)):
            counts[result] += 1
            name = os.path.join(os.path.basename(os.path.dirname(os.path.abspath(path))), os.path.basename(path)[:-4])
            print(f"{result:8}{name}" + (f": {text}" if text else ""), flush=True)
    print(
        f"{counts['ok']} passed, {counts['differs']} failed" + (f", {counts['skip']} skipped" if counts["skip"] else "")
    )
    return 1 if counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
