"""Recorded conversations with the Java server, held again with this one (tests/replay/README.md)."""

import os
import subprocess
import sys

import pytest
from servers import HOST, Server, free_ports

REPLAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "replay")
MINUTE_LONG = ("app/39-graph-after-a-minute.txt", "http/31-admin-deletes-user.txt")  # they wait for a minute to pass


def scenarios(group):
    names = sorted(name for name in os.listdir(os.path.join(REPLAY, group)) if name.endswith(".txt"))
    return [f"{group}/{name}" for name in names if f"{group}/{name}" not in MINUTE_LONG]


def write_properties(path, ports, folder):
    """The settings of the recordings as one old properties file, with our ports and folders."""
    http, https, mqtt, smtp, push = ports
    ours = {
        "http.port": http,
        "https.port": https,
        "hardware.mqtt.port": mqtt,
        "listen.address": HOST,
        "data.folder": os.path.join(folder, "data"),
        "logs.folder": os.path.join(folder, "logs"),
        "mail.smtp.port": smtp,
        "gcm.server": f"http://{HOST}:{push}/fcm/send",
    }
    lines = []
    for name in ("server", "mail", "gcm"):
        with open(os.path.join(REPLAY, "config", f"{name}.properties")) as f:
            lines += [line.rstrip("\n") for line in f if line.split("=")[0] not in ours]
    lines += [f"{key}={value}" for key, value in ours.items()]
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A server with the settings of the recordings: (server, smtp port, push port)."""
    folder = str(tmp_path_factory.mktemp("replay"))
    ports = free_ports(5)
    config = os.path.join(folder, "server.properties")
    write_properties(config, ports, folder)
    server = Server(folder, config=config, ports_http=ports[0], ports_https=ports[1], ports_mqtt=ports[2]).start()
    yield server, ports[3], ports[4]
    server.finish()
    for name in os.listdir(os.path.join(folder, "logs")):
        with open(os.path.join(folder, "logs", name), errors="replace") as f:
            assert "Traceback (most recent call last)" not in f.read()


def play(recorded, files, jobs=8):
    server, smtp, push = recorded
    command = [
        *(sys.executable, os.path.join(REPLAY, "player.py"), "--jobs", str(jobs)),
        *("--http-port", str(server.http_port), "--tls-port", str(server.https_port)),
        *("--smtp-port", str(smtp), "--push-port", str(push)),
        *files,
    ]
    done = subprocess.run(command, cwd=REPLAY, capture_output=True, text=True, timeout=600)
    lines = done.stdout.splitlines()
    differs = [line for line in lines if not line.startswith("ok")]
    assert done.returncode == 0, "\n".join(differs) + done.stderr
    assert lines[-1] == f"{len(files)} passed, 0 failed", lines[-1]
    server.check_log()


@pytest.mark.parametrize("group", ["spine", "app", "http", "automation"])
def test_the_recorded_conversations_go_as_they_went(recorded, group):
    play(recorded, scenarios(group))


@pytest.mark.slow
def test_the_recorded_conversations_that_wait_a_minute_go_as_they_went(recorded):
    play(recorded, MINUTE_LONG, jobs=2)


@pytest.mark.slow
def test_conversations_can_be_played_again_on_the_same_server(recorded):
    play(recorded, scenarios("spine"))
    play(recorded, scenarios("spine"))
