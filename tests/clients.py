"""The test clients: an app, a board, a browser tab and an HTTP user, written from the specification alone.

They share no code with the server, so that a mistake made once is not made twice. A test reads like the log of a
conversation:

    hw.send("vw 5 123")                       a board writes pin V5; blanks stand for the NUL between fields
    app.expect("1-0 vw 5 123")                the app must get that
    assert app.ask("DELETE_WIDGET", 1, 7) == OK
    hw.silence()                              nothing else came

How a body is written: one text: its blanks separate fields (`"vw 5 123"`), unless it has a NUL of its own. Several
arguments: the fields, taken as they are (`"vw", 5, "two words"`). A dict or a list: JSON. Bytes: as they are.

Nothing here sleeps to let the server catch up: every wait is for an event and ends at a deadline. Standard library
only.
"""

import base64
import hashlib
import http.client
import itertools
import json
import os
import select
import socket
import ssl
import struct
import time
import zlib
from typing import NamedTuple

TIMEOUT = float(os.environ.get("BLYNK_TEST_TIMEOUT", "10"))  # seconds until a test gives up waiting

COMMANDS = {
    "RESPONSE": 0,
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
COMMAND_NAMES = {number: name for name, number in COMMANDS.items()}

OK = 200
QUOTA_LIMIT = 1
ILLEGAL_COMMAND = 2
USER_NOT_REGISTERED = 3
USER_ALREADY_REGISTERED = 4
USER_NOT_AUTHENTICATED = 5
NOT_ALLOWED = 6
DEVICE_NOT_IN_NETWORK = 7
NO_ACTIVE_DASHBOARD = 8
INVALID_TOKEN = 9
ILLEGAL_COMMAND_BODY = 11
NOTIFICATION_INVALID_BODY = 13
NOTIFICATION_NOT_AUTHORIZED = 14
NOTIFICATION_ERROR = 15
NO_DATA = 17
SERVER_ERROR = 19
ENERGY_LIMIT = 21

PROBE_ID = 64999  # the message id of the PING that silence() and settle() send


def number_of(command):
    return command if isinstance(command, int) else COMMANDS[command]


def body_of(fields):
    """The bytes of a body; see the head of this file for the ways to write one."""
    if len(fields) == 1 and isinstance(fields[0], str):
        text = fields[0]
        return (text if "\0" in text else text.replace(" ", "\0")).encode()
    return b"\0".join(field_of(field) for field in fields)


def field_of(field):
    if isinstance(field, bytes):
        return field
    if isinstance(field, (dict, list)):
        return json.dumps(field, ensure_ascii=False).encode()
    return str(field).encode()


def password_hash(password, email):
    """What an app sends instead of the password (spec 03a §2.2)."""
    salt = hashlib.sha256(email.lower().encode()).digest()
    return base64.b64encode(hashlib.sha256(password.encode() + salt).digest()).decode()


_serial = itertools.count(1)


def new_email(name="user"):
    """An address no other test uses, also on a server that is shared with other test processes."""
    return f"{name}{next(_serial)}.{os.getpid()}.{time.time_ns() % 10**9}@example.com"


def widget(kind, id, pin=None, pin_type="VIRTUAL", device=0, **fields):
    """A widget document as an app makes it."""
    document = {"type": kind, "id": id, "x": 0, "y": 0, "width": 2, "height": 2, "deviceId": device, "isEnabled": True}
    if pin is not None:
        document.update(pinType=pin_type, pin=pin)
    document.update(fields)
    return document


def until(condition, timeout=None, what="the condition"):
    """Asks again and again until condition() is true; returns its value. For states that send no event."""
    end = time.monotonic() + (TIMEOUT if timeout is None else timeout)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"{what} did not come about in time")
        select.select([], [], [], 0.01)


# ---------------------------------------------------------------------------------------------------------------
# Sockets
# ---------------------------------------------------------------------------------------------------------------


def connect(host, port):
    sock = socket.create_connection((host, port), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def tls_context():
    """Boards and apps of this protocol pin or ignore the certificate; the tests ignore it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect_tls(host, port):
    return tls_context().wrap_socket(connect(host, port), server_hostname=host)


class WebSocket:
    """A client's end of a websocket that looks like a socket: sendall() sends one binary message, recv() takes one.

    recv() returns the payload of the next data message, b"" when the connection ended. `.closing` is the code of the
    close frame seen, if any.
    """

    def __init__(self, sock, host, path):
        self.sock, self.buffer, self.closing, self.path = sock, b"", None, path
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = self._until(b"\r\n\r\n").decode("latin-1")
        assert " 101 " in head.split("\r\n")[0], f"no websocket at {path}: {head!r}"
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        assert f"sec-websocket-accept: {accept.decode().lower()}" in head.lower(), head

    def _fill(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def _until(self, mark):
        self.sock.settimeout(TIMEOUT)
        while mark not in self.buffer:
            if not self._fill():
                raise AssertionError(f"the server closed the connection instead of opening a websocket at {self.path}")
        head, _, self.buffer = self.buffer.partition(mark)
        return head

    def send_frame(self, opcode, payload, final=True, mask=True):
        """One raw websocket frame; for tests of the framing itself."""
        head = bytes([opcode | (0x80 if final else 0)])
        size, bit = len(payload), 0x80 if mask else 0
        if size < 126:
            head += bytes([bit | size])
        elif size < 65536:
            head += struct.pack("!BH", bit | 126, size)
        else:
            head += struct.pack("!BQ", bit | 127, size)
        if mask:
            key = os.urandom(4)
            payload = bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))
            head += key
        self.sock.sendall(head + payload)

    def sendall(self, payload):
        self.send_frame(2, payload)

    def recv_frame(self):
        """(opcode, payload) of the next frame, None when the connection ended."""
        while True:
            frame = self._take()
            if frame:
                return frame
            if not self._fill():
                return None

    def _take(self):
        data = self.buffer
        if len(data) < 2:
            return None
        size, at = data[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < max(at, at + size):
            return None
        self.buffer = data[at + size :]
        return data[0] & 15, data[at : at + size]

    def recv(self, _size=0):
        while True:
            frame = self.recv_frame()
            if frame is None:
                return b""
            opcode, payload = frame
            if opcode in (0, 1, 2):
                return payload
            if opcode == 8:
                self.closing = int.from_bytes(payload[:2], "big") if payload else 1005

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)

    def pending(self):
        return 1 if self._complete() else 0

    def _complete(self):
        kept, frame = self.buffer, self._take()
        self.buffer = kept
        return frame is not None

    def close(self):
        self.sock.close()

    def shutdown(self, how):
        self.sock.shutdown(how)

    def fileno(self):
        return self.sock.fileno()


# ---------------------------------------------------------------------------------------------------------------
# Frames
# ---------------------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One frame received. For a RESPONSE `code` is the status and the body is empty."""

    command: str
    id: int
    body: bytes
    code: int = -1

    @property
    def text(self):
        """The body with blanks for NULs."""
        return self.body.decode("utf-8", "replace").replace("\0", " ")

    def __str__(self):
        return f"{self.command} #{self.id} {self.code if self.command == 'RESPONSE' else self.text}"


class Peer:
    """What an app and a board have in common: frames with ids, and an inbox of what came and was not taken yet."""

    header = ">BHH"

    def __init__(self, sock):
        self.sock, self.buffer, self.inbox, self.id, self.ended = sock, b"", [], 0, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # sending

    def pack(self, command, body, id):
        return struct.pack(self.header, number_of(command), id, len(body)) + body

    def command(self, command, *fields, id=None):
        """Sends a frame; without `id` the next one. Returns the id."""
        if id is None:
            self.id = self.id % 60000 + 1
            id = self.id
        self.sock.settimeout(TIMEOUT)
        self.sock.sendall(self.pack(command, body_of(fields) if fields else b"", id))
        return id

    def send(self, *fields, id=None):
        """A pin value: HARDWARE with that body."""
        return self.command("HARDWARE", *fields, id=id)

    def send_raw(self, data):
        self.sock.settimeout(TIMEOUT)
        self.sock.sendall(data)

    def respond(self, id, code):
        """A response frame from this side."""
        self.send_raw(struct.pack(self.header, 0, id, code))

    def ask(self, command, *fields, id=None):
        """Sends a command and returns what answers it: a status code, or the body (bytes) of the same command."""
        id = self.command(command, *fields, id=id)
        name = COMMAND_NAMES.get(number_of(command), str(command))
        frame = self.take(
            lambda f: f.id == id and f.command in ("RESPONSE", name), what=f"an answer to {name} #{id} {fields}"
        )
        return frame.code if frame.command == "RESPONSE" else frame.body

    # receiving

    def unpack(self):
        """Moves the complete frames of the buffer to the inbox."""
        size = struct.calcsize(self.header)
        at, buffer = 0, self.buffer
        while len(buffer) - at >= size:
            command, id, length = struct.unpack_from(self.header, buffer, at)
            if command == 0:
                self.inbox.append(Frame("RESPONSE", id, b"", length))
                at += size
                continue
            if len(buffer) - at < size + length:
                break
            body = buffer[at + size : at + size + length]
            self.inbox.append(Frame(COMMAND_NAMES.get(command, f"CMD{command}"), id, body))
            at += size + length
        self.buffer = buffer[at:]

    def receive(self, timeout):
        """Waits up to `timeout` seconds for more bytes; False when none came."""
        if self.ended:
            return False
        self.sock.settimeout(max(timeout, 0.001))
        try:
            data = self.sock.recv(65536)
        except (socket.timeout, ssl.SSLWantReadError):
            return False
        except OSError:  # reset, or TLS that ends without close_notify
            data = b""
        if not data:
            self.ended = True
            return False
        self.feed(data)
        return True

    def feed(self, data):
        self.buffer += data
        self.unpack()

    def take(self, wanted, timeout=None, what="the frame"):
        """The first frame for which wanted(frame) holds, taken out of the inbox; what came before it stays there."""
        end = time.monotonic() + (TIMEOUT if timeout is None else timeout)
        looked = 0
        while True:
            for i in range(looked, len(self.inbox)):
                if wanted(self.inbox[i]):
                    return self.inbox.pop(i)
            looked = len(self.inbox)
            left = end - time.monotonic()
            if left <= 0 or self.ended:
                why = "the server closed the connection" if self.ended else "in time"
                raise AssertionError(f"{what} did not come ({why}); the inbox: {[str(f) for f in self.inbox]}")
            self.receive(left)

    def expect(self, text, command="HARDWARE", id=None, timeout=None):
        """Waits for the frame of that command with that body (blanks for NULs) and takes it."""
        return self.take(
            lambda f: f.command == command and f.text == text.replace("\0", " ") and id in (None, f.id),
            timeout,
            f"{command} {text!r}" + (f" #{id}" if id is not None else ""),
        )

    def expect_status(self, code, id=None, timeout=None):
        """Waits for a RESPONSE with that code (to that id) and takes it."""
        return self.take(
            lambda f: f.command == "RESPONSE" and f.code == code and id in (None, f.id),
            timeout,
            f"RESPONSE {code}" + (f" #{id}" if id is not None else ""),
        )

    def next(self, timeout=None):
        """The very next frame, whatever it is."""
        return self.take(lambda f: True, timeout, "any frame")

    def ping(self):
        """PING, and wait for its OK: what was sent before has been dealt with."""
        self.command("PING", id=PROBE_ID)
        self.expect_status(OK, PROBE_ID)

    def silence(self, *after):
        """Nothing has arrived that was not taken. A PING on each of `after`, then on this connection, proves that the
        server is done with all that they had sent."""
        for peer in after:
            peer.ping()
        self.ping()
        assert not self.inbox, f"silence expected, but: {[str(f) for f in self.inbox]}"

    def quiet(self, seconds=0.3):
        """Nothing arrives for that long; for connections that may not PING."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.ended:
            self.receive(end - time.monotonic())
        assert not self.ended, "the server closed the connection"
        assert not self.inbox, f"silence expected, but: {[str(f) for f in self.inbox]}"

    def closed(self, timeout=None):
        """The server closes the connection, and nothing came before that was not taken."""
        end = time.monotonic() + (TIMEOUT if timeout is None else timeout)
        while not self.ended and time.monotonic() < end:
            self.receive(end - time.monotonic())
        assert self.ended, "the server did not close the connection"
        assert not self.inbox, f"before the close came: {[str(f) for f in self.inbox]}"

    def drain(self):
        """Takes and returns all that is there, after a PING round trip."""
        self.ping()
        frames, self.inbox = self.inbox, []
        return frames

    def close(self):
        self.sock.close()
        self.ended = True

    def reset(self):
        """Ends the connection as a pulled plug does: RST instead of FIN."""
        raw = self.sock.sock if isinstance(self.sock, WebSocket) else self.sock
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


# ---------------------------------------------------------------------------------------------------------------
# Boards
# ---------------------------------------------------------------------------------------------------------------


class Hardware(Peer):
    """A board: 5-byte headers over TCP, TLS or a websocket."""

    header = ">BHH"

    def __init__(self, host, port, token=None, tls=False, websocket=False):
        sock = connect_tls(host, port) if tls else connect(host, port)
        super().__init__(WebSocket(sock, host, "/websockets") if websocket else sock)
        if token is not None:
            code = self.login(token)
            assert code == OK, f"login of the board: {code}"

    def login(self, token, command="HARDWARE_LOGIN"):
        code = self.ask(command, token.encode(), id=1)
        self.id = max(self.id, 1)
        return code

    def sync(self, *pins):
        """HARDWARE_SYNC of all or of virtual pins; returns the texts that come back before the PING behind it."""
        id = self.command("HARDWARE_SYNC", *(("vr", *pins) if pins else ()))
        self.ping()
        values = [f.text for f in self.inbox if f.command == "HARDWARE" and f.id == id]
        self.inbox = [f for f in self.inbox if not (f.command == "HARDWARE" and f.id == id)]
        return values


# ---------------------------------------------------------------------------------------------------------------
# Apps
# ---------------------------------------------------------------------------------------------------------------


class App(Peer):
    """A phone: 7-byte headers over TLS."""

    header = ">BHI"

    def __init__(self, host, port):
        super().__init__(self.open(host, port))
        self.email = self.password = self.app = ""

    @staticmethod
    def open(host, port):
        return connect_tls(host, port)

    def register(self, email, password="pw", app="Blynk"):
        return self.ask("REGISTER", email, password_hash(password, email), app)

    def login(self, email, password="pw", app="Blynk", os="Android", version="2.27.0"):
        self.email, self.password, self.app = email, password, app
        return self.ask("LOGIN", email, password_hash(password, email), os, version, app)

    def share_login(self, email, token):
        return self.ask("SHARE_LOGIN", email, token, "Android", "2.27.0")

    def json(self, command, *fields):
        """Asks and decodes a JSON answer; a status code is an error."""
        answer = self.ask(command, *fields)
        assert isinstance(answer, bytes), f"{command} {fields} was answered with {answer}"
        return json.loads(answer)

    def profile(self):
        """The whole profile as an app loads it after its login."""
        return json.loads(zlib.decompress(self.ask("LOAD_PROFILE_GZIPPED")))

    def project(self, id=1):
        answer = self.ask("LOAD_PROFILE_GZIPPED", id)
        assert isinstance(answer, bytes), f"project {id}: {answer}"
        return json.loads(zlib.decompress(answer))

    def make_project(self, id=1, devices=1, widgets=(), active=True, **fields):
        """Creates a project with so many devices (or these device documents); returns its id."""
        if isinstance(devices, int):
            devices = [{"id": i, "name": f"Board {i}", "boardType": "ESP8266"} for i in range(devices)]
        document = {
            "id": id,
            "name": f"Project {id}",
            "isActive": active,
            "devices": devices,
            "widgets": list(widgets),
        }
        document.update(fields)
        code = self.ask("CREATE_DASH", document)
        assert code == OK, f"CREATE_DASH: {code}"
        return id

    def add_widget(self, project, document):
        code = self.ask("CREATE_WIDGET", project, document)
        assert code == OK, f"CREATE_WIDGET: {code}"

    def token(self, project=1, device=0):
        """The auth token of a device."""
        return self.json("MOBILE_GET_DEVICE", project, device)["token"]

    def device(self, project=1, device=0):
        return self.json("MOBILE_GET_DEVICE", project, device)

    def widget(self, project, id):
        return self.json("GET_WIDGET", project, id)

    def activate(self, project=1):
        return self.ask("ACTIVATE_DASHBOARD", project)

    def sync(self, project=1):
        """APP_SYNC; the texts of the state frames (id 1111) that follow its OK."""
        assert self.ask("APP_SYNC", str(project)) == OK
        self.ping()
        values = [f.text for f in self.inbox if f.id == 1111]
        self.inbox = [f for f in self.inbox if f.id != 1111]
        return values


class AppWebSocket(App):
    """A browser tab: 3-byte headers, one message a websocket frame (/dashws)."""

    def __init__(self, host, port, tls=True):
        self.tls = tls
        super().__init__(host, port)

    def open(self, host, port):
        return WebSocket(connect_tls(host, port) if self.tls else connect(host, port), host, "/dashws")

    def pack(self, command, body, id):
        return struct.pack(">BH", number_of(command), id) + body

    def respond(self, id, code):
        self.send_raw(struct.pack(">BHI", 0, id, code))

    def feed(self, data):
        command, id = struct.unpack_from(">BH", data)
        if command == 0:
            self.inbox.append(Frame("RESPONSE", id, b"", int.from_bytes(data[3:7], "big")))
        else:
            self.inbox.append(Frame(COMMAND_NAMES.get(command, f"CMD{command}"), id, data[3:]))


# ---------------------------------------------------------------------------------------------------------------
# HTTP
# ---------------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """An HTTP response; header names in lower case."""

    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Http:
    """An HTTP user with one connection that is kept alive."""

    def __init__(self, host, port, tls=False):
        if tls:
            self.connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=tls_context())
        else:
            self.connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def request(self, method, path, body=None, headers=None):
        """`body`: bytes, text, or something to send as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        if isinstance(body, str):
            body = body.encode()
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.connection.close()  # the kept-alive connection was idle for too long: once more
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def put(self, path, body=None, headers=None):
        return self.request("PUT", path, body, headers)

    def post(self, path, body=None, headers=None):
        return self.request("POST", path, body, headers)

    def close(self):
        self.connection.close()


def http_raw(host, port, data, tls=False):
    """Sends raw bytes and returns all that comes back until the server closes or nothing comes for half a second."""
    with connect_tls(host, port) if tls else connect(host, port) as sock:
        sock.sendall(data)
        sock.settimeout(0.5)
        answer = b""
        try:
            while True:
                piece = sock.recv(65536)
                if not piece:
                    return answer
                answer += piece
        except (socket.timeout, ConnectionResetError):
            return answer
