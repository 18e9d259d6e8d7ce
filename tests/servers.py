"""A server of this checkout as a process of its own, on free ports and a folder of its own, for tests and bench.

    server = Server(folder, limits_devices=3)       settings by their names in blynk.toml: section_key
    server.start()
    hw = server.hardware(token)
    server.stop()                                   SIGTERM; must exit with 0 within two seconds

Standard library only.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

from clients import OK, TIMEOUT, App, AppWebSocket, Hardware, Http, connect, connect_tls, new_email, until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "blynk_pi.py")
HOST = "127.0.0.1"
STOP_WITHIN = 2.0  # seconds from SIGTERM to the exit; more is a failure

SECTIONS = (
    "server",
    "ports",
    "timeouts",
    "tls",
    "acme",
    "data",
    "log",
    "http",
    "limits",
    "discovery",
    "pools",
    "notifications",
    "webhooks",
    "reading",
    "admin",
    "mail",
    "sms",
    "push",
    "twitter",
    "database",
    "raw_data",
    "legacy",
)

# What every server of the tests has; a test overrides what it is about. `folder` is the server's own temporary folder.
DEFAULTS = {
    "server_host": HOST,
    "server_listen": HOST,
    "discovery_mode": "off",
    "admin_password": "admin",
    "limits_registrations_per_hour": 1000000,
}


def distribution_python():
    """The python3 a user of the README has: outside any virtual environment."""
    return os.path.realpath(sys.executable)


def free_ports(count):
    """Ports below those the system gives to outgoing connections: nobody takes one in between."""
    held = []
    while len(held) < count:
        try:
            held.append(socket.create_server((HOST, random.randrange(15_000, 32_000))))
        except OSError:
            continue
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def section_and_key(name):
    for section in SECTIONS:
        if name.startswith(section + "_"):
            return section, name[len(section) + 1 :]
    raise KeyError(f"{name}: no such section in blynk.toml")


def toml_of(settings):
    """The text of a blynk.toml: numbers, booleans, texts and lists are written the same way in JSON."""
    sections = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            sections.setdefault(name, {}).update(value)
        else:
            section, key = section_and_key(name)
            sections.setdefault(section, {})[key] = value
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def rss_kb_of(pid):
    """Resident memory of a process in KiB (Linux)."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def cpu_seconds_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    """One server process. `folder`: where its data, settings and log go. Settings: see DEFAULTS."""

    def __init__(
        self,
        folder,
        python=None,
        program=PROGRAM,
        arguments=(),
        config=None,
        environment=None,
        piped=False,
        **settings,
    ):
        self.folder = str(folder)
        self.data = os.path.join(self.folder, "data")
        self.config = config or os.path.join(self.folder, "blynk.toml")
        self.log_path = os.path.join(self.folder, "output.log")
        self.python, self.program = python or sys.executable, program
        self.arguments, self.environment = list(arguments), environment
        self.piped = piped  # its output goes through a pipe, for when it cannot write files
        self.settings = dict(DEFAULTS, **settings)
        self.process = None
        self.checked = 0  # how much of the log has been looked at for tracebacks
        os.makedirs(self.data, exist_ok=True)
        http, https, mqtt = free_ports(3)
        for name, port in (("ports_http", http), ("ports_https", https), ("ports_mqtt", mqtt)):
            self.settings.setdefault(name, port)
        self.settings.setdefault("data_csv_folder", os.path.join(self.folder, "csv"))
        self.http_port, self.https_port = self.settings["ports_http"], self.settings["ports_https"]
        self.mqtt_port = self.settings["ports_mqtt"]
        if config is None:
            self.write_settings()

    def write_settings(self, **changes):
        """Writes blynk.toml; with changes: for the next start."""
        self.settings.update(changes)
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(toml_of(self.settings))

    # the process

    def command(self):
        return [self.python, self.program, "--data", self.data, "--config", self.config, *self.arguments]

    def launch(self):
        """Starts the process and does not wait for anything."""
        with open(self.log_path, "ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.piped else output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
            )
        if self.piped:
            threading.Thread(target=self._copy_output, args=(self.process.stdout,), daemon=True).start()

    def _copy_output(self, pipe):
        with open(self.log_path, "ab", buffering=0) as output:
            while data := os.read(pipe.fileno(), 65536):
                output.write(data)
        pipe.close()

    def start(self, tls=True):
        """Starts the process and waits until it listens, on the TLS port too. Returns itself."""
        self.launch()
        try:
            self.wait_listening(tls)
        except BaseException:  # nothing stays behind, also when the user has had enough
            self.kill()
            raise
        return self

    def wait_listening(self, tls=True, timeout=30):
        try:
            until(lambda: self._accepts(connect, self.http_port), timeout, f"listening on {self.http_port}")
            if tls:
                until(lambda: self._accepts(connect_tls, self.https_port), timeout, f"TLS on {self.https_port}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.log()[-3000:]}") from None

    def _accepts(self, how, port):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}")
        try:
            how(HOST, port).close()
            return True
        except OSError:
            return False

    def stop(self, within=STOP_WITHIN):
        """SIGTERM; the exit must be orderly and in time."""
        self.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        try:
            code = self.process.wait(max(TIMEOUT, within))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop:\n{self.log()[-3000:]}") from None
        took = time.monotonic() - began
        assert code == 0, f"exit code {code}:\n{self.log()[-3000:]}"
        assert took <= within * (4 if os.environ.get("CI") else 1), f"the stop took {took:.1f} s"

    def kill(self):
        """SIGKILL: what a pulled plug does to the process."""
        self.process.kill()
        self.process.wait()

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def finish(self):
        """The end of a test: stop it if it still runs, and look for tracebacks."""
        if self.running:
            self.stop(TIMEOUT)
        self.check_log()

    @property
    def pid(self):
        return self.process.pid

    def rss_kb(self):
        return rss_kb_of(self.pid)

    def cpu_seconds(self):
        return cpu_seconds_of(self.pid)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def check_log(self):
        """No traceback since the last look: whatever a peer sends, the server's own code must not fail."""
        text = self.log()
        fresh, self.checked = text[self.checked :], len(text)
        at = fresh.find("Traceback (most recent call last)")
        assert at < 0, f"the server logged a traceback:\n{fresh[max(0, at - 300) : at + 3000]}"

    # its peers

    def app(self, email=None, password="pw", app="Blynk", register=True, **login):
        """An app that is logged in, to a new account when no address is given."""
        peer = App(HOST, self.https_port)
        if email is None:
            email = new_email()
            if register:
                code = peer.register(email, password, app)
                assert code == OK, f"REGISTER: {code}"
        code = peer.login(email, password, app, **login)
        assert code == OK, f"LOGIN: {code}"
        return peer

    def app_websocket(self, email, password="pw", tls=True):
        peer = AppWebSocket(HOST, self.https_port if tls else self.http_port, tls)
        code = peer.login(email, password)
        assert code == OK, f"LOGIN: {code}"
        return peer

    def guest(self, email, share_token):
        """An app logged in with a share token."""
        peer = App(HOST, self.https_port)
        code = peer.share_login(email, share_token)
        assert code == OK, f"SHARE_LOGIN: {code}"
        return peer

    def hardware(self, token=None, tls=False, websocket=False):
        """A board, logged in when a token is given."""
        return Hardware(HOST, self.https_port if tls else self.http_port, token, tls, websocket)

    def unknown(self):
        """An app connection that has not logged in."""
        return App(HOST, self.https_port)

    def http(self, tls=False):
        return Http(HOST, self.https_port if tls else self.http_port, tls)

    def get(self, path):
        """One GET on a connection of its own."""
        with self.http() as user:
            return user.get(path)
