"""mosquitto's command-line programs as a board."""

import shutil
import subprocess

import pytest
from clients import until
from servers import HOST

pytestmark = pytest.mark.skipif(not shutil.which("mosquitto_pub"), reason="mosquitto-clients is not installed")


def test_mosquitto_pub_writes_a_value(server, house):
    arguments = ["-h", HOST, "-p", str(server.mqtt_port), "-u", house.email, "-P", house.tokens[0]]
    subprocess.run(["mosquitto_pub", *arguments, "-t", "hardware", "-m", "vw 5 77", "-q", "1"], check=True, timeout=20)
    house.app.expect("1-0 vw 5 77")
    refused = subprocess.run(
        ["mosquitto_pub", *arguments[:-1], "wrong", "-t", "hardware", "-m", "vw 5 78"],
        timeout=20,
        capture_output=True,
        check=False,
    )
    assert refused.returncode


def test_mosquitto_sub_hears_the_app(server, house):
    arguments = ["-h", HOST, "-p", str(server.mqtt_port), "-u", house.email, "-P", house.tokens[0]]
    command = ["mosquitto_sub", *arguments, "-t", "hardware", "-C", "1"]
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:

        def heard():
            house.app.send("1-0 vw 5 99")
            return listener.poll() is not None

        until(heard, what="the end of mosquitto_sub")
        assert listener.stdout.read() == "vw 5 99\n"
        assert listener.returncode == 0
    finally:
        listener.kill()
        listener.stdout.close()
