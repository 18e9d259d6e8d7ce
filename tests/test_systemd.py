"""The service units: accepted by systemd, closed as far as the programs allow, and spoken to as they promise."""

import os
import re
import shutil
import socket
import subprocess

import pytest
from boards import program
from servers import ROOT

FOLDER = os.path.join(ROOT, "systemd")
UNITS = ["blynk-pi.service", "blynk-ser.service", "blynk-ser@.service"]
NEWER_KEYS = ("RestartSteps", "RestartMaxDelaySec")  # known from systemd 254 on, ignored with a word before


def analyze(*arguments):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, env=dict(os.environ, LC_ALL="C.UTF-8")
    )


def unit_text(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


def setting(name, key):
    return re.findall(rf"^{key}=(.*)$", unit_text(name), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_the_unit(unit):
    done = analyze("verify", os.path.join(FOLDER, unit))
    complaints = [line for line in done.stderr.splitlines() if not any(key in line for key in NEWER_KEYS)]
    assert done.returncode == 0 and not complaints, done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_closed(unit, capsys):
    done = analyze("security", "--offline=true", "--no-pager", os.path.join(FOLDER, unit))
    match = re.search(r"Overall exposure level for (\S+): ([0-9.]+)", done.stdout)
    assert match, done.stdout + done.stderr
    with capsys.disabled():
        print(f"\nsystemd-analyze security {unit}: {match.group(2)}")
    assert float(match.group(2)) < 2.0


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_comes_back_and_is_bounded(unit):
    assert setting(unit, "Restart") == ["always"] and setting(unit, "RestartSec")
    assert setting(unit, "StartLimitIntervalSec") == ["0"]
    assert setting(unit, "Type") == ["notify"] and setting(unit, "WatchdogSec")
    assert setting(unit, "MemoryMax") and setting(unit, "DynamicUser") == ["yes"]


def test_the_server_has_its_state_directory():
    assert setting("blynk-pi.service", "StateDirectory") == ["blynk-pi"]
    assert setting("blynk-pi.service", "ExecStart") == ["/usr/bin/python3 /opt/blynk-pi/blynk_pi.py --data %S/blynk-pi"]


@pytest.mark.parametrize("unit", UNITS[1:])
def test_the_bridges_options_exist(unit):
    _, program_path, *arguments = setting(unit, "ExecStart")[0].split()
    assert os.path.basename(program_path) == "blynk-ser.py"
    program().read_command_line(arguments)


def test_the_udev_rule_starts_the_template_for_the_boards_that_the_program_knows():
    text = unit_text("99-blynk-ser.rules")
    assert 'ENV{SYSTEMD_WANTS}+="blynk-ser@%k.service"' in text and 'ENV{ID_MM_DEVICE_IGNORE}="1"' in text
    active = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for vendor, product, _name, kind, _native in program().BOARDS:
        lines = [line for line in text.splitlines() if f"{vendor:04x}" in line and "GOTO" in line]
        assert lines, f"{vendor:04x} is missing"
        if kind == "board":
            assert f"{vendor:04x}" in active
        else:  # a converter may be a Zigbee stick: only on request
            assert f"{vendor:04x}" not in active and any(f"{product:04x}" in line for line in lines)


def test_the_server_tells_systemd_readiness_life_and_end(make_server, folder):
    path = os.path.join(folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(path)
        inbox.settimeout(10)
        environment = dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC="400000")
        server = make_server(environment=environment)
        seen = [inbox.recv(200).decode() for _ in range(4)]
        assert any("READY=1" in text for text in seen)
        assert sum("WATCHDOG=1" in text for text in seen) >= 2
        server.stop()
        while "STOPPING=1" not in inbox.recv(200).decode():
            pass
