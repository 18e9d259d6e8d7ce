"""The short round that every Python from 3.9 to 3.13 makes: nothing but pytest and the standard library is needed."""

import subprocess
import sys

from clients import OK
from servers import PROGRAM, Server


def test_the_module_can_be_imported_and_has_a_version():
    import blynk_pi

    assert blynk_pi.__version__.count(".") == 2


def test_version_and_help_are_told_without_starting_anything():
    import blynk_pi

    done = subprocess.run([sys.executable, PROGRAM, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and blynk_pi.__version__ in done.stdout
    done = subprocess.run([sys.executable, PROGRAM, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--data" in done.stdout


def test_a_board_an_app_and_curl_share_a_pin_and_a_restart_keeps_it(make_server, certificate):
    server = make_server()
    app = server.app()
    app.make_project(1)
    token = app.token(1, 0)
    hw = server.hardware(token)
    app.expect("1-0", "HARDWARE_CONNECTED")
    hw.send("vw 5 123")
    app.expect("1-0 vw 5 123")
    app.send("1-0 vw 6 7")
    hw.expect("vw 6 7")
    assert server.get(f"/{token}/get/V5").json() == ["123"]
    assert server.get(f"/{token}/update/V7?value=on").status == 200
    hw.expect("vw 7 on", id=111)
    app.expect("1-0 vw 7 on")
    server.stop()
    server.start()
    hw = server.hardware(token)
    assert sorted(hw.sync()) == ["vw 5 123", "vw 6 7", "vw 7 on"]
    again = server.app(app.email)
    assert again.project(1)["name"] == "Project 1"


def test_boards_speak_over_tls_and_websockets_too(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    token = app.token()
    for i, how in enumerate([{"tls": True}, {"websocket": True}, {"tls": True, "websocket": True}]):
        hw = server.hardware(token, **how)
        app.expect("1-0", "HARDWARE_CONNECTED")
        hw.send(f"vw 1 {i}")
        app.expect(f"1-0 vw 1 {i}")
        app.send(f"1-0 vw 2 {i}")
        hw.expect(f"vw 2 {i}")
        hw.close()
        app.expect("1-0", "DEVICE_OFFLINE")
    tab = server.app_websocket(app.email)
    assert tab.project(1)["name"] == "Project 1"


def test_the_first_start_makes_a_certificate_of_its_own_and_the_next_finds_it(folder):
    server = Server(folder)  # no certificate given
    certificates = set()
    for _ in range(2):
        server.start()
        with server.unknown() as peer:
            certificates.add(peer.sock.getpeercert(binary_form=True))
        assert server.app().ask("PING") == OK
        server.stop()
    assert len(certificates) == 1
    server.check_log()
