"""mosquitto's command-line programs as a board."""

import shutil
import subprocess

import pytest
from servers import HOST

pytestmark = pytest.mark.skipif(not shutil.which("mosquitto_pub"), reason="mosquitto-clients is not installed")


def test_mosquitto_pub_writes_a_value(server, house):
    arguments = ["-h", HOST, "-p", str(server.mqtt_port), "-u", house.email, "-P", house.tokens[0]]
    subprocess.run(["mosquitto_pub", *arguments, "-t", "hardware", "-m", "vw 5 77", "-q", "1"], check=True, timeout=20)
    house.app.expect("1-0 vw 5 77")
    refused = subprocess.run(
        ["mosquitto_pub", *arguments[:-1], "wrong", "-t", "hardware", "-m", "vw 5 78"], timeout=20, capture_output=True, check=False
    )
    assert refused.returncode


def test_mosquitto_sub_hears_the_app(server, house):
    arguments = ["-h", HOST, "-p", str(server.mqtt_port), "-u", house.email, "-P", house.tokens[0]]
    listener = subprocess.Popen(
        ["mosquitto_sub", *arguments, "-t", "hardware", "-C", "1", "-d"], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        for line in listener.stdout:
            if "Subscribed" in line:
                house.app.send("1-0 vw 5 99")
            if line.strip() == "vw 5 99":
                break
        else:
            raise AssertionError("nothing was heard")
        assert listener.wait(20) == 0
    finally:
        listener.kill()
