"""Fixtures: real servers, a real mail server, a real HTTP receiver. No mocks.

server        the default server, one a test process: fast, shared; a test makes its own accounts on it
make_server   make_server(limits_devices=3) starts one with settings of its own; stopped at the end of the test
house         an account with an active project 1, two devices: .app .tokens .server
mailbox       an SMTP server that keeps what it is given
web_hook      an HTTP server that keeps what it is asked, and answers as it is told
"""

import email
import email.policy
import http.server
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading

import pytest
from clients import TIMEOUT
from servers import HOST, ROOT, Server, free_ports

if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow") or "slow" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


# ---------------------------------------------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for the test servers, made once: making one at every start would cost each test a second."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "30", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return {"tls_cert": str(cert), "tls_key": str(key)}


@pytest.fixture
def folder():
    """A short-named folder: a control socket's path must not be longer than 107 bytes."""
    path = tempfile.mkdtemp(prefix="bp-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def _shared_server(certificate):
    path = tempfile.mkdtemp(prefix="bp-")
    server = Server(path, **certificate).start()
    yield server
    try:
        server.finish()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def server(_shared_server):
    """The default server. A test must leave it running and its settings alone."""
    if not _shared_server.running:
        _shared_server.start()
    yield _shared_server
    assert _shared_server.running, f"the server died:\n{_shared_server.log()[-3000:]}"
    _shared_server.check_log()


@pytest.fixture
def make_server(certificate):
    """make_server(**settings) -> a started Server of its own. `start=False`: not yet started. Further arguments of
    Server (python, arguments, config …) go through; `data`: a folder to copy its data from."""
    made = []

    def make(start=True, data=None, **settings):
        path = tempfile.mkdtemp(prefix="bp-")
        made.append((None, path))
        if "config" not in settings and "tls_cert" not in settings:
            settings = dict(certificate, **settings)
        server = Server(path, **settings)
        made.append((server, path))
        if data:
            shutil.copytree(data, server.data, dirs_exist_ok=True)
        return server.start() if start else server

    yield make
    failures = []
    for server, _ in made:
        try:
            if server and server.process:
                server.finish()
        except AssertionError as failure:
            failures.append(failure)
    for _, path in made:
        shutil.rmtree(path, ignore_errors=True)
    if failures:
        raise failures[0]


class House:
    """An account with project 1, two devices and a second app's worth of room."""

    def __init__(self, server):
        self.server, self.app = server, server.app()
        self.app.make_project(1, devices=2)
        self.tokens = [self.app.token(1, 0), self.app.token(1, 1)]
        self.email = self.app.email
        self.peers = [self.app]

    def hardware(self, device=0, **how):
        """A board of device 0 or 1 that is logged in; the app has seen it come online."""
        board = self.server.hardware(self.tokens[device], **how)
        self.app.expect(f"1-{device}", "HARDWARE_CONNECTED")
        self.peers.append(board)
        return board

    def second_app(self):
        peer = self.server.app(self.email)
        self.peers.append(peer)
        return peer

    def close(self):
        for peer in self.peers:
            peer.close()


@pytest.fixture
def house(server):
    house = House(server)
    yield house
    house.close()


# ---------------------------------------------------------------------------------------------------------------
# What servers talk to
# ---------------------------------------------------------------------------------------------------------------


class Mailbox:
    """An SMTP server on a free port; `settings` are what a server needs to use it."""

    def __init__(self):
        from aiosmtpd.controller import Controller

        self.mails = queue.Queue()
        (self.port,) = free_ports(1)
        self.controller = Controller(self, hostname=HOST, port=self.port)
        self.controller.start()
        self.settings = {
            "mail_host": HOST,
            "mail_port": self.port,
            "mail_username": "server@example.com",
            "mail_password": "none",
            "mail_auth": False,
            "mail_security": "none",
        }

    async def handle_DATA(self, _server, _session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        mail.receivers = list(envelope.rcpt_tos)
        self.mails.put(mail)
        return "250 OK"

    def next(self, timeout=TIMEOUT):
        """The next mail: an email.message.EmailMessage, `.receivers` of its envelope added."""
        try:
            return self.mails.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("no mail came") from None

    def next_to(self, address, timeout=TIMEOUT):
        """The next mail to that address; others are dropped."""
        while True:
            mail = self.next(timeout)
            if address in mail.receivers:
                return mail

    def empty(self):
        return self.mails.empty()

    def close(self):
        self.controller.stop()


@pytest.fixture
def mailbox():
    pytest.importorskip("aiosmtpd")
    box = Mailbox()
    yield box
    box.close()


class Request:
    """A request that the web hook received; header names in lower case."""

    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def __repr__(self):
        return f"{self.method} {self.path} {self.body!r}"


class WebHook:
    """An HTTP server on a free port that keeps every request and answers as told."""

    def __init__(self):
        self.requests = queue.Queue()
        self.status, self.body, self.headers = 200, b"", {}
        self.gate = threading.Event()
        self.gate.set()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                headers = {k.lower(): v for k, v in self.headers.items()}
                hook.requests.put(Request(self.command, self.path, headers, body))
                hook.gate.wait(TIMEOUT)
                self.send_response(hook.status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(hook.body)))
                self.end_headers()
                self.wfile.write(hook.body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.url = f"http://{HOST}:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def answers(self, status, body=b"", **headers):
        """What it answers from now on."""
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.headers = headers

    def hold(self):
        """Lets requests wait for their answer until release()."""
        self.gate.clear()

    def release(self):
        self.gate.set()

    def next(self, timeout=TIMEOUT):
        """The next request it received."""
        try:
            return self.requests.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("no request came") from None

    def empty(self):
        return self.requests.empty()

    def close(self):
        self.gate.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def web_hook():
    hook = WebHook()
    yield hook
    hook.close()


@pytest.fixture(scope="session")
def java_data():
    """The folder that a Java server left behind (read only: copy it)."""
    return os.path.join(ROOT, "tests", "fixtures", "java-data")
