"""Sub-commands, with a running server and without one; the control socket; what the console shows at the start."""

import errno
import json
import os
import pty
import re
import shutil
import socket
import stat
import subprocess
import sys
import time

import pytest
from clients import OK, until
from servers import PROGRAM, ROOT, free_ports

import blynk_pi

JAVA_DATA = os.path.join(ROOT, "tests", "fixtures", "java-data")
ANNA_TOKEN = "3eR4e86e58jZFLnOV6CiywmWxIeifaaL"


def run(*words, data=None, typed=None, config="", code=0, **how):
    """Runs blynk_pi.py with a sub-command -> (stdout, stderr); settings of this machine do not interfere."""
    command = [sys.executable, PROGRAM, *words, *(["--data", str(data)] if data else [])]
    command += ["--config", str(config)] if config else []
    done = subprocess.run(command, input=typed or "", capture_output=True, text=True, timeout=60, **how)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def java_folder(folder):
    """A data folder as the Java server left it, with no server on it."""
    path = os.path.join(folder, "data")
    shutil.copytree(JAVA_DATA, path)
    return path


# ----------------------------------------------------------------------------------------------------------------------
# users, token, passwd
# ----------------------------------------------------------------------------------------------------------------------


def test_users_without_a_server(java_folder):
    out, _ = run("users", data=java_folder)
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:2] == ["e-mail", "app"]
    assert ["anna@example.com", "Blynk", "3", "5", "0"] in rows
    assert ["admin@blynk.cc", "Blynk", "0", "0", "0", "administrator"] in rows


def test_users_of_a_running_server_says_who_is_online(make_server):
    server = make_server()
    app = server.app()
    app.make_project(1, devices=2)
    board = server.hardware(app.token(1, 0))
    out, _ = run("users", data=server.data)
    assert [app.email, "Blynk", "1", "2", "1"] in [line.split() for line in out.splitlines()]
    board.close()


def test_token_prints_the_line_for_the_sketch(java_folder):
    out, _ = run("token", "anna@example.com", "--http-port", "8085", data=java_folder)
    assert "House, Hub (device 0)" in out
    assert f'Blynk.begin("{ANNA_TOKEN}", ssid, pass, "' in out and '", 8085);' in out
    assert out.count("Blynk.begin") == 5
    out, _ = run("token", "CLARA@example.com", data=java_folder)
    assert "Gärten 花園, Fühler Δ (device 0)" in out
    _, err = run("token", "admin@blynk.cc", data=java_folder, code=1)
    assert err == "token: admin@blynk.cc has no device yet: make a project in the app\n"


def test_token_in_a_terminal_has_a_qr_code(java_folder):
    pytest.importorskip("segno")
    main, other = pty.openpty()
    command = [sys.executable, PROGRAM, "token", "clara@example.com", "--data", java_folder]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=other, stderr=other)
    os.close(other)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError as end:  # Linux's way to say that nobody holds the other side any more
            assert end.errno == errno.EIO
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert process.wait(20) == 0
    text = shown.decode()
    assert "Blynk.begin(" in text and sum(text.count(block) for block in "█▀▄") > 100


def test_passwd_without_a_server(make_server, java_folder):
    out, _ = run("passwd", "anna@example.com", data=java_folder, typed="neu und geheim\n")
    assert out == "the password of anna@example.com (Blynk) is changed\n"
    server = make_server(data=java_folder)
    assert server.unknown().login("anna@example.com", "neu und geheim") == OK
    assert server.unknown().login("anna@example.com", "anna-secret") != OK


def test_passwd_through_the_running_server(make_server):
    server = make_server()
    email = server.app().email
    run("passwd", email, data=server.data, typed="another\n")
    assert server.unknown().login(email, "another") == OK
    assert server.unknown().login(email, "pw") != OK
    server.stop()
    server.start()
    assert server.unknown().login(email, "another") == OK


def test_passwd_in_a_terminal_asks_twice_and_shows_nothing(java_folder):
    for second, code in (("secret", 0), ("secrets", 1)):
        main, other = pty.openpty()
        command = [sys.executable, PROGRAM, "passwd", "anna@example.com", "--data", java_folder]
        process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, start_new_session=True)
        os.close(other)
        shown = read_until(main, b"new password of anna@example.com: ")
        os.write(main, b"secret\n")
        shown += read_until(main, b"once more: ")
        os.write(main, second.encode() + b"\n")
        shown += read_until(main, b"changed")
        ended = process.wait(20)
        os.close(main)  # not before: its last words would have nowhere to go
        assert ended == code
        assert b"secret" not in shown
        assert (b"(Blynk) is changed" in shown) == (code == 0) and (b"nothing is changed" in shown) == (code == 1)


def read_until(fd, mark):
    shown = b""
    while mark not in shown:
        shown += os.read(fd, 4096)
    return shown


def test_what_cannot_be_done_is_one_line(java_folder, folder):
    cases = [
        (("passwd",), "passwd: an e-mail address is needed: passwd EMAIL [APP]"),
        (("passwd", "anna@example.com"), "passwd: the password is empty"),
        (("passwd", "nobody@example.com"), "passwd: there is no account nobody@example.com: `users` lists them"),
        (
            ("token", "anna@example.com", "NoApp"),
            "token: there is no account anna@example.com NoApp: `users` lists them",
        ),
        (("token",), "token: an e-mail address is needed"),
        (("backup",), "backup: a file to write is needed: backup FILE"),
        (("restore",), "restore: a backup is needed: restore FILE [EMAIL]"),
    ]
    for words, line in cases:
        assert run(*words, data=java_folder, code=1) == ("", line + "\n")
    _, err = run("users", data=f"{folder}/nowhere", code=1)
    assert err == f"users: there is no data folder {folder}/nowhere: add the server's --data FOLDER\n"
    assert not os.path.exists(f"{folder}/nowhere")
    assert "add the server's --data FOLDER" in run("users", code=1, cwd=folder)[1]


def test_an_account_of_two_apps_has_to_be_named_with_its_app(java_folder):
    with open(f"{java_folder}/ben@example.com.blynkddrzfynk.user") as file:
        document = json.load(file)
    document["appName"] = "Blynk"
    with open(f"{java_folder}/ben@example.com.Blynk.user", "w") as file:
        json.dump(document, file)
    _, err = run("passwd", "ben@example.com", data=java_folder, typed="x\n", code=1)
    assert err == "passwd: ben@example.com has accounts of several apps: add one of Blynk, blynkddrzfynk\n"
    out, _ = run("passwd", "ben@example.com", "blynkddrzfynk", data=java_folder, typed="x\n")
    assert "ben@example.com (blynkddrzfynk)" in out


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root")
def test_root_leaves_the_files_to_their_owner(java_folder):
    for path, folders, names in os.walk(java_folder):
        for name in [".", *folders, *names]:
            os.chown(os.path.join(path, name), 12345, 12345)
    os.chmod(os.path.dirname(java_folder), 0o755)
    run("passwd", "anna@example.com", data=java_folder, typed="x\n")
    for path, _, names in os.walk(java_folder):
        assert {os.stat(os.path.join(path, name)).st_uid for name in names} <= {12345}


# ----------------------------------------------------------------------------------------------------------------------
# The control socket
# ----------------------------------------------------------------------------------------------------------------------


def test_the_control_socket_is_for_the_owner_and_goes_with_the_server(make_server):
    server = make_server()
    path = os.path.join(server.data, "control.sock")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert blynk_pi.ask_server(server.data, "ping", []) == {"lines": [str(server.pid)]}
    server.stop()
    assert not os.path.exists(path)
    assert blynk_pi.ask_server(server.data, "ping", []) is None


def test_a_socket_left_by_a_killed_server_is_no_server(make_server):
    server = make_server()
    until(lambda: os.path.exists(os.path.join(server.data, "admin@blynk.cc.Blynk.user")), 20)
    server.kill()
    assert os.path.exists(os.path.join(server.data, "control.sock"))
    assert blynk_pi.ask_server(server.data, "ping", []) is None
    assert "admin@blynk.cc" in run("users", data=server.data)[0]  # on the folder
    server.start()
    assert blynk_pi.ask_server(server.data, "ping", []) == {"lines": [str(server.pid)]}


@pytest.mark.parametrize(
    "request_line",
    [b"\n", b"garbage\n", b"[1]\n", b"{}\n", b'{"command": "nonsense"}\n', b'{"command": 7, "arguments": 3}\n']
    + [b"[" * 60000 + b"\n", b"\xff\xfe\n", b"x" * 100000, b'{"command": "users"'],
)
def test_nonsense_on_the_control_socket_does_no_harm(server, request_line):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.path.join(server.data, "control.sock"))
        sock.settimeout(20)
        sock.sendall(request_line)
        if request_line.endswith(b"\n"):
            answer = sock.makefile("rb").readline()
            assert answer == b"" or "error" in json.loads(answer)
    assert blynk_pi.ask_server(server.data, "ping", []) == {"lines": [str(server.pid)]}


def test_where_the_path_is_too_long_a_loopback_port_with_a_secret_serves(make_server, folder):
    deep = os.path.join(folder, "d" * 100)
    server = make_server(start=False)
    server.data = deep
    server.start()
    path = os.path.join(deep, "control.json")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert "admin@blynk.cc" in run("users", data=deep)[0]
    with open(path) as file:
        port = json.load(file)["port"]
    for secret in ("", "wrong"):
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            sock.sendall(json.dumps({"command": "users", "secret": secret}).encode() + b"\n")
            assert sock.recv(100) == b""
    server.stop()
    assert not os.path.exists(path)


# ----------------------------------------------------------------------------------------------------------------------
# backup, restore, check-mail, avahi-service, help
# ----------------------------------------------------------------------------------------------------------------------


def test_backup_of_a_running_server_and_restore(make_server, folder):
    server = make_server()
    app = server.app()
    app.make_project(1, devices=1)
    board = server.hardware(app.token())
    app.expect("1-0", "HARDWARE_CONNECTED")
    board.send("vw", "5", "123")
    app.expect("1-0 vw 5 123")
    file = os.path.join(folder, "b.tar.gz")
    out, _ = run("backup", file, data=server.data)
    assert file in out
    _, err = run("restore", file, data=server.data, code=1)
    assert "is in use by another server" in err
    server.stop()
    fresh = os.path.join(folder, "fresh")
    run("restore", file, data=fresh)
    copy = make_server(start=False)
    copy.data = fresh
    copy.start()
    again = copy.app(app.email)
    assert again.project(1)["id"] == 1
    assert json.loads(copy.get(f"/{app_token(again)}/get/v5").text) == ["123"]


def app_token(app):
    return app.token(1, 0)


def test_a_backup_that_cannot_be_written_or_read_is_one_line(java_folder, folder):
    _, err = run("backup", f"{folder}/none/b.tar.gz", data=java_folder, code=1)
    assert err.startswith(f"backup: {folder}/none/b.tar.gz: ") and err.count("\n") == 1
    with open(f"{folder}/b", "w") as file:
        file.write("no archive")
    _, err = run("restore", f"{folder}/b", data=f"{folder}/x", code=1)
    assert err.startswith(f"restore: {folder}/b: ") and err.count("\n") == 1


def test_check_mail_says_what_is_missing(folder):
    out, _ = run("check-mail", code=1, cwd=folder)
    assert "mail.host" in out


def test_avahi_service_is_printed(folder):
    out, _ = run("avahi-service", "--http-port", "8085")
    assert out.startswith("<?xml") and "<port>8085</port>" in out


def test_help_and_version():
    out, _ = run("--help")
    assert "doctor" in out and "--http-port" in out
    assert run("--help", "settings")[0] == blynk_pi.settings_text()
    assert run("--version")[0] == f"blynk-pi {blynk_pi.__version__}\n"


def test_a_closed_pipe_is_no_mistake(java_folder):
    command = f"{sys.executable} {PROGRAM} --help settings | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert done.stdout.startswith("# Settings of blynk-pi") and done.stderr == ""


# ----------------------------------------------------------------------------------------------------------------------
# doctor
# ----------------------------------------------------------------------------------------------------------------------


def doctor(server=None, code=None, **how):
    """{first words: whole line} of what doctor says."""
    words = ["--config", server.config, "--data", server.data] if server else []
    command = [sys.executable, PROGRAM, "doctor", *words, *how.pop("words", ())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **how)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert all(line[:4] in ("ok  ", "!!  ") for line in lines), done.stdout
    assert done.returncode == int(any(line.startswith("!!") for line in lines))
    return lines


def line_with(lines, word):
    return next((line for line in lines if word in line), "")


def test_doctor_on_a_running_server(make_server):
    server = make_server()
    lines = doctor(server)
    assert line_with(lines, "the server runs") == f"ok  the server runs (process {server.pid})"
    for key in ("ports.http", "ports.https", "ports.mqtt"):
        assert line_with(lines, f"({key})").endswith("is served") and line_with(lines, f"({key})").startswith("ok")
    assert line_with(lines, "certificate").startswith("ok") and "days left" in line_with(lines, "certificate")
    assert line_with(lines, "data folder") == f"ok  data folder {server.data}"
    assert re.search(r"ok  disk: \d+ MB are free", "\n".join(lines))
    assert line_with(lines, "time zone data") == "ok  time zone data is there"
    assert line_with(lines, "mDNS") == "ok  mDNS: off (discovery.mode)"


def test_doctor_says_who_holds_a_port_and_what_is_wrong_with_the_certificate(make_server, tmp_path):
    server = make_server(start=False, tls_cert="", tls_key="")
    with socket.create_server(("127.0.0.1", server.http_port)):
        line = line_with(doctor(server), "(ports.http)")
        assert line.startswith(f"!!  port {server.http_port} (ports.http) is in use by ")
        assert f"(process {os.getpid()})" in line and "--http-port" in line
    assert "made at the first start" in line_with(doctor(server), "certificate")
    (tmp_path / "broken.pem").write_text("x")
    server.write_settings(tls_cert=str(tmp_path / "broken.pem"), tls_key=str(tmp_path / "broken.pem"))
    assert "holds no certificate" in line_with(doctor(server), "certificate")


def test_doctor_minds_rights_clock_and_openssl(java_folder, folder):
    os.chmod(f"{java_folder}/anna@example.com.Blynk.user", 0o644)
    words = ["--data", java_folder]
    assert "chmod go-rwx" in line_with(doctor(words=words), "can be read by others")
    line = line_with(doctor(words=words, env={"PATH": folder}), "certificate")
    assert line.startswith("!!") and "apt install openssl" in line
    assert "is not there" in line_with(doctor(words=["--data", f"{folder}/none"]), "data folder")


def test_who_holds_a_port_that_nobody_holds():
    (port,) = free_ports(1)
    assert blynk_pi.who_holds(port) == ""


# ----------------------------------------------------------------------------------------------------------------------
# The start
# ----------------------------------------------------------------------------------------------------------------------


def test_the_first_start_shows_what_a_newcomer_needs(make_server):
    server = make_server(admin_password="")
    text = until(lambda: "Your Admin password is" in server.log() and server.log(), 20)
    assert f"\nBlynk Server {blynk_pi.__version__} successfully started.\n" in text
    assert f'Blynk.begin("your token", ssid, pass, "127.0.0.1", {server.http_port});' in text
    assert f"custom server 127.0.0.1, port {server.https_port}" in text
    assert f"data            {server.data}" in text
    assert "Admin password not specified. Random password generated.\n" in text
    assert f"Your Admin url is https://127.0.0.1:{server.https_port}/admin\n" in text
    assert "Your Admin login email is admin@blynk.cc\n" in text
    password = re.search(r"Your Admin password is ([A-Za-z0-9]{24})\n", text)[1]
    until(lambda: server.unknown().login("admin@blynk.cc", password) == OK, 20)
    server.stop()
    server.start()
    assert server.log().count("Your Admin password is") == 1


def test_the_log_folder_is_named_in_the_words_scripts_look_for(make_server, tmp_path):
    server = make_server(log_folder=str(tmp_path / "logs"))
    assert f"successfully started.\nAll server output is stored in folder '{tmp_path}/logs' file.\n" in server.log()


def test_a_busy_port_names_the_port_and_who_holds_it(make_server):
    server = make_server(start=False)
    for key, port in (("ports.http", server.http_port), ("ports.https", server.https_port)):
        with socket.create_server(("127.0.0.1", port)):
            server.launch()
            assert server.process.wait(20) == 1
        text = server.log()
        assert f"port {port} ({key}) is in use by " in text and f"(process {os.getpid()})" in text


def test_a_second_server_on_the_folder_does_not_start(make_server):
    server = make_server()
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"is in use by another server (process {server.pid})" in done.stderr and done.stderr.count("\n") == 1
    assert blynk_pi.ask_server(server.data, "ping", []) == {"lines": [str(server.pid)]}  # the first one's socket stands


def test_tls_comes_a_moment_after_the_plain_ports_at_the_first_start(make_server):
    server = make_server(start=False, tls_cert="", tls_key="")
    server.start()
    assert server.unknown().register("a@example.com") == OK  # over TLS
    until(lambda: sorted(os.listdir(f"{server.data}/tls")) == ["ec.crt", "ec.key", "rsa.crt", "rsa.key"], 30)


def test_sighup_takes_up_a_new_certificate(make_server, tmp_path):
    from test_lan import make_pair

    cert, key = make_pair(tmp_path / "pem")
    server = make_server(tls_cert=cert, tls_key=key)
    app = server.app()
    make_pair(tmp_path / "pem", subject="/CN=second")
    server.process.send_signal(1)

    def subject():
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.https_port}"]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    until(lambda: "CN = second" in subject(), 20)
    app.ping()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 2
