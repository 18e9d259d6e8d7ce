"""The web side on real sockets: connections, deadlines, files, pages, password reset (spec 06 §1, §5–7)."""

import contextlib
import gzip
import json
import os
import re
import shutil
import socket
import ssl
import time

import pytest
from clients import (
    OK,
    TIMEOUT,
    connect,
    connect_tls,
    http_raw,
    new_email,
    password_hash,
    until,
)
from servers import HOST, ROOT, free_ports

import blynk_pi


@pytest.fixture
def web(server):
    with server.http() as user:
        yield user


class Talker:
    """A raw connection: what is said, and the responses that come, one at a time."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""
        sock.settimeout(TIMEOUT)

    def say(self, data):
        self.sock.sendall(data)

    def response(self):
        """(status, headers, body) of the next response, None when the connection ended."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                assert not self.buffer
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            assert self._more(), "the connection ended inside a body"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(first.split()[1]), headers, body

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def ended(self):
        assert self.response() is None

    def close(self):
        self.sock.close()


@pytest.fixture
def talk(server):
    """talk(tls=False) opens a raw connection to the server."""
    made = []

    def open_one(tls=False):
        made.append(Talker((connect_tls if tls else connect)(HOST, server.https_port if tls else server.http_port)))
        return made[-1]

    yield open_one
    for talker in made:
        talker.close()


# -- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_many_pipelined_requests_are_answered_in_order(talk, house, tls):
    token, peer = house.tokens[0], talk(tls)
    peer.say(
        b"".join(
            b"GET /%b/update/v1?value=%d HTTP/1.1\r\n\r\nGET /%b/get/v1 HTTP/1.1\r\n\r\n"
            % (token.encode(), i, token.encode())
            for i in range(500)
        )
    )
    for i in range(500):
        assert peer.response()[0] == 200
        assert peer.response()[2] == b'["%d"]' % i


def test_answers_that_take_time_keep_their_place(talk, house):
    token, peer = house.tokens[0].encode(), talk()
    slow, quick = b"GET /%b/data/v1 HTTP/1.1\r\n\r\n" % token, b"GET /%b/isAppConnected HTTP/1.1\r\n\r\n" % token
    peer.say((slow + quick) * 20)
    for _ in range(20):
        assert peer.response()[2] == b"No data."
        assert peer.response()[2] == b"true"


def test_a_client_that_says_no_more_still_gets_its_answers(talk, house):
    token, peer = house.tokens[0].encode(), talk()
    peer.say(b"GET /%b/isAppConnected HTTP/1.1\r\n\r\nGET /%b/data/v1 HTTP/1.1\r\n\r\n" % (token, token))
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.response()[2] == b"true"
    assert peer.response()[2] == b"No data."
    peer.ended()


def test_a_client_that_does_not_read_holds_up_nobody(talk, house, server):
    token, peer = house.tokens[0].encode(), talk()
    peer.sock.settimeout(0.5)
    before = server.rss_kb()
    block = b"GET /%b/project HTTP/1.1\r\n\r\n" % token * 200
    try:
        for _ in range(2000):
            peer.sock.send(block)
    except (TimeoutError, socket.timeout):
        pass
    assert server.get(f"/{house.tokens[0]}/isAppConnected").text == "true"
    assert server.rss_kb() - before < 4000


def test_close_and_http_1_0_end_the_connection(talk, house):
    for lines in (b"HTTP/1.1\r\nConnection: close\r\n\r\n", b"HTTP/1.0\r\n\r\n"):
        peer = talk()
        peer.say(b"GET /%b/isAppConnected %b" % (house.tokens[0].encode(), lines))
        status, headers, body = peer.response()
        assert (status, headers["connection"], body) == (200, "close", b"true")
        peer.ended()


def test_expect_100_continue(talk, house):
    head = (
        b"PUT /%b/update/v1 HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: "
        % house.tokens[0].encode()
    )
    peer = talk()
    peer.say(head + b"5\r\n\r\n")
    assert peer.response()[0] == 100
    peer.say(b'["z"]')
    assert peer.response()[0] == 200
    peer.say(head + b"600000\r\n\r\n")
    assert peer.response()[0] == 413
    peer.ended()
    peer = talk()
    peer.say(b"PUT / HTTP/1.1\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n")
    assert peer.response()[0] == 417
    peer.ended()


def test_a_body_that_is_too_long_is_read_over_and_the_connection_lives(talk, house):
    peer = talk()
    peer.say(
        b"PUT /%b/update/v1 HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"
        % house.tokens[0].encode()
    )
    assert peer.response()[:2][0] == 413
    peer.say(b"x" * 2_000_000 + b"GET /%b/isAppConnected HTTP/1.1\r\n\r\n" % house.tokens[0].encode())
    assert peer.response()[2] == b"true"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345678\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n12345",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a, b\r\nHost: c\r\n\r\n",
    ],
)
def test_nothing_is_smuggled_behind_a_refused_request(server, house, request_bytes):
    hidden = b"GET /%b/update/v77?value=smuggled HTTP/1.1\r\nHost: x\r\n\r\n" % house.tokens[0].encode()
    answer = http_raw(HOST, server.http_port, request_bytes + hidden)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer
    assert server.get(f"/{house.tokens[0]}/get/v77").status == 400


def test_garbage_behind_a_good_request(server, house):
    good = b"GET /%b/isAppConnected HTTP/1.1\r\n\r\n" % house.tokens[0].encode()
    answer = http_raw(HOST, server.http_port, good + b"\x00\x01\x02\xff" * 20000)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1 ") == 2


def test_too_long_lines_and_headers(server):
    assert b" 414 " in http_raw(HOST, server.http_port, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n")
    assert b" 431 " in http_raw(HOST, server.http_port, b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n")
    assert b" 505 " in http_raw(HOST, server.http_port, b"GET / HTTP/3.0\r\n\r\n")


def test_a_thousand_connections_that_say_nothing(make_server):
    server = make_server()
    app = server.app()
    app.make_project()
    path = f"/{app.token()}/isAppConnected"
    assert server.get(path).text == "true"
    before = server.rss_kb()
    silent = [connect(HOST, server.http_port) for _ in range(900)]
    for i, sock in enumerate(silent):
        if i % 3 == 1:
            sock.sendall(b"GET /a HT")
        elif i % 3 == 2:
            sock.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 1000\r\n\r\nab")
    silent += [connect(HOST, server.https_port) for _ in range(100)]
    began = time.monotonic()
    assert server.get(path).text == "true"
    assert time.monotonic() - began < 2
    grown = server.rss_kb() - before
    print(f"1,000 silent connections: {grown} KB")
    assert grown < 10_000
    for sock in silent:
        sock.close()
    assert server.get(path).text == "true"


class Clock:
    """A monotonic clock that a test moves on."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def here(folder):
    """A server in this process whose clock the test moves: here(seconds) moves it and lets the loop turn."""
    settings = blynk_pi.Settings()
    settings.data_folder, settings.server_host, settings.server_listen = folder, HOST, HOST
    (settings.ports_http,) = free_ports(1)
    settings.ports_https = settings.ports_mqtt = 0
    clock = Clock()
    server = blynk_pi.Server(settings, blynk_pi.Loop(monotonic=clock))
    server.store.open()
    server.store.load()
    server.listen()

    def turn(seconds=0.0, port=settings.ports_http):
        clock.ahead += seconds
        for _ in range(5):
            server.loop.run_once(0.02)

    turn.port, turn.server = settings.ports_http, server
    yield turn
    server.loop.close()
    server.store.lock.release()


def say_here(here, sock, data):
    sock.sendall(data)
    here()


def status_here(sock):
    sock.settimeout(2)
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data.split(b"\r\n")[0]


def test_a_head_that_drips_is_given_thirty_seconds(here):
    sock = connect(HOST, here.port)
    here()
    say_here(here, sock, b"GET / HTTP")
    for _ in range(5):
        here(5)
        say_here(here, sock, b"/")
    here(4)
    assert len(here.server.loop.streams) == 1
    here(2)
    here(2)
    assert b" 408 " in status_here(sock)
    assert not here.server.loop.streams


def test_a_body_that_drips_is_given_what_its_length_takes(here):
    sock = connect(HOST, here.port)
    here()
    say_here(here, sock, b"PUT /a/update/v1 HTTP/1.1\r\nContent-Length: 40960\r\n\r\n")
    for _ in range(7):
        here(5)
        say_here(here, sock, b"x")
    assert len(here.server.loop.streams) == 1
    here(6)
    here(2)
    assert b" 408 " in status_here(sock)


def test_a_silent_connection_that_is_kept_alive_ends_after_a_minute(here):
    sock = connect(HOST, here.port)
    here()
    say_here(here, sock, b"GET /a/get/v1 HTTP/1.1\r\n\r\n")
    here(55)
    assert len(here.server.loop.streams) == 1
    here(11)
    assert not here.server.loop.streams
    assert b" 400 " in status_here(sock)


def test_unfinished_bodies_have_one_limit_together(here):
    here.server.web.bodies = blynk_pi.HTTP_BODIES_LIMIT + 1
    sock = connect(HOST, here.port)
    here()
    say_here(here, sock, b"PUT /a/update/v1 HTTP/1.1\r\nConnection: close\r\nContent-Length: 4000\r\n\r\n")
    here(2)
    assert b" 503 " in status_here(sock)


# -- files ------------------------------------------------------------------------------------------------------------

TRAVERSALS = [
    "/static/../../etc/passwd",
    "/static/./..././.../etc/passwd",
    "/static//...//...//etc/passwd",
    "/static/%2e%2e/%2e%2e/etc/passwd",
    "/static/..%2f..%2fetc/passwd",
    "/static/%2e%2e%2f%2e%2e%2fblynk_pi.py",
    "/static/..\\..\\etc\\passwd",
    "/static/..%5c..%5cetc",
    "/static/../blynk_pi.py",
    "/static/admin/../../blynk_pi.py",
    "/static/%00",
    "/static/admin.html%00.js",
    "/static/C:/windows/win.ini",
    "/static/.git/config",
    "/static",
    "/static/",
    "/staticx",
    "/static/admin",
    "/../blynk_pi.py.gz",
    "/%2e%2e/x.gz",
    "/a/b.gz",
    "//etc/x.gz",
    "/.well-known/acme-challenge/../../x",
    "/protocol.js/..",
    "/%2e%2e/blynk_pi.json",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_its_folder(server, path):
    answer = http_raw(HOST, server.http_port, f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]
    assert b"root:" not in answer


def test_a_link_out_of_the_folder_is_not_followed(server, web):
    folder = os.path.join(server.data, "static")
    os.makedirs(folder, exist_ok=True)
    os.symlink("/etc/passwd", os.path.join(folder, "passwd.txt"))
    assert web.get("/static/passwd.txt").status == 404


def test_validators_and_ranges_of_a_file(server, web):
    folder = os.path.join(server.data, "static")
    os.makedirs(folder, exist_ok=True)
    content = os.urandom(300_000)
    with open(os.path.join(folder, "big.bin"), "wb") as f:
        f.write(content)
    answer = web.get("/static/big.bin")
    assert answer.body == content
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "private, max-age=60"
    tag, modified = answer.headers["etag"], answer.headers["last-modified"]
    assert web.get("/static/big.bin", {"If-None-Match": tag}).status == 304
    assert web.get("/static/big.bin", {"If-None-Match": f'"x", W/{tag}'}).status == 304
    assert web.get("/static/big.bin", {"If-None-Match": '"x"', "If-Modified-Since": modified}).status == 200
    assert web.get("/static/big.bin", {"If-Modified-Since": modified}).status == 304
    for asked, part in (
        ("0-9", content[:10]),
        ("299990-", content[-10:]),
        ("-7", content[-7:]),
        ("5-999999", content[5:]),
    ):
        answer = web.get("/static/big.bin", {"Range": f"bytes={asked}"})
        assert (answer.status, answer.body) == (206, part)
    assert answer.headers["content-range"] == "bytes 5-299999/300000"
    answer = web.get("/static/big.bin", {"Range": "bytes=300000-"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */300000")
    for asked in ("bytes=0-1,3-4", "lines=1-2", "bytes=x-", "bytes=9-3", "bytes=-"):
        assert web.get("/static/big.bin", {"Range": asked}).status == 200
    assert web.get("/static/big.bin", {"Range": "bytes=0-9", "If-Range": '"old"'}).status == 200
    assert web.get("/static/big.bin", {"Range": "bytes=0-9", "If-Range": tag}).status == 206
    answer = web.request("HEAD", "/static/big.bin")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "300000", b"")
    assert web.get("/static/big.bin?x=1").status == 200


def test_a_big_file_is_not_held_in_memory(server, web):
    folder = os.path.join(server.data, "static")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "huge.bin"), "wb") as f:
        f.truncate(60_000_000)
    before = server.rss_kb()
    sock = connect(HOST, server.http_port)
    sock.sendall(b"GET /static/huge.bin HTTP/1.1\r\nConnection: close\r\n\r\n")
    total = 0
    while data := sock.recv(1 << 20):
        total += len(data)
        assert server.rss_kb() - before < 3000
    assert total > 60_000_000


def test_exports_are_found_by_their_ending(server, web):
    folder = server.settings["data_csv_folder"]
    os.makedirs(folder, exist_ok=True)
    with gzip.open(os.path.join(folder, "a@b.cc_1_0_v1_17.csv.gz"), "wb") as f:
        f.write(b"1.0,2,0\n")
    answer = web.get("/a@b.cc_1_0_v1_17.csv.gz")
    assert gzip.decompress(answer.body) == b"1.0,2,0\n"
    assert answer.headers["content-type"] == "application/x-gzip"
    missing = web.get("/nothing.csv.gz")
    assert (missing.status, missing.text) == (404, "Failure: 404 Not Found\r\n")


@pytest.mark.parametrize(
    "path", ["/favicon.ico", "/static/favicon.ico", "/static/admin.html", "/static/login.html", "/"]
)
@pytest.mark.parametrize("tls", [False, True])
def test_pages_that_clients_ask_for_by_name(server, path, tls):
    with server.http(tls) as user:
        assert user.get(path, {"Accept": "text/html,*/*"}).status == 200


@pytest.mark.parametrize("path", ["/", "/static/admin.html", "/static/login.html"])
def test_pages_have_security_headers(web, path):
    headers = web.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "referrer-policy" in headers
    assert headers["server"] == "blynk-pi"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])


def test_the_front_page_never_leads_elsewhere(server, web):
    assert web.get("/").status == 200
    with server.http(tls=True) as user:
        assert user.get("/", {"Accept": "text/html"}).status == 200
        assert user.get("/").headers["location"] == "/admin"  # what is no browser is led to the administration


@pytest.mark.parametrize(
    "path", ["/", "/static/admin.html", "/a.csv.gz", "/health", "/landing", "/.well-known/acme-challenge/x"]
)
def test_a_wrong_method_on_a_page_names_the_right_ones(web, path):
    answer = web.request("DELETE", path)
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]
    assert web.get("/updatePassword").status == 405


def test_pages_of_the_admin_are_not_on_the_plain_port(web):
    for path in ("/admin", "/admin/users", "/admin/ota/start", "/upload"):
        assert web.get(path).status == 404


# -- the server about itself ------------------------------------------------------------------------------------------


def test_health_and_metrics(server, web, house):
    answer = web.get("/health")
    assert (answer.status, answer.text) == (200, '{"status":"ok"}')
    answer = web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert int(values["blynk_apps_online"]) >= 1
    assert int(values["blynk_resident_memory_bytes"]) > 10_000_000


def test_metrics_are_for_the_addresses_of_the_administrator(make_server):
    server = make_server(admin_allowed_ips=["10.9.9.9"])
    assert http_raw(HOST, server.http_port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    assert http_raw(HOST, server.https_port, b"GET /admin HTTP/1.1\r\n\r\n", tls=True) == b""
    assert server.get("/health").status == 200


@pytest.mark.skipif(not hasattr(os, "geteuid") or not shutil.which("mount"), reason="needs mount")
def test_health_says_when_the_disk_is_full(make_server, tmp_path):
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("may not mount")
    try:
        server = make_server(start=False)
        server.data = str(small)
        server.start()
        with open(small / "filler", "wb", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(b"x" * 65536):
                pass
        answer = until(lambda: (a := server.get("/health")).status == 503 and a, what="503")
        assert "disk full" in answer.text
        os.remove(small / "filler")
        until(lambda: server.get("/health").status == 200, what="200")
        server.stop()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_the_certificate_can_be_had_and_not_its_key(make_server, certificate, tmp_path):
    both = tmp_path / "both.pem"
    text = open(certificate["tls_key"]).read() + open(certificate["tls_cert"]).read()
    both.write_text(text)
    server = make_server(tls_cert=str(both), tls_key=str(both))
    answer = server.get("/blynk.crt")
    assert ssl.PEM_cert_to_DER_cert(answer.text) == ssl.PEM_cert_to_DER_cert(open(certificate["tls_cert"]).read())
    assert "KEY" not in answer.text
    assert "attachment" in answer.headers["content-disposition"]


def test_certbot_finds_its_challenge(make_server, tmp_path):
    folder = tmp_path / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (folder / "abc-DEF_1").write_text("abc-DEF_1.key")
    (tmp_path / "secret").write_text("secret")
    server = make_server(acme_challenge_folder=str(tmp_path))
    assert server.get("/.well-known/acme-challenge/abc-DEF_1").text == "abc-DEF_1.key"
    assert server.get("/.well-known/acme-challenge/other").status == 404
    assert server.get("/.well-known/acme-challenge/..%2f..%2fsecret").status == 404
    with server.http(tls=True) as user:
        assert user.get("/.well-known/acme-challenge/abc-DEF_1").status == 404


# -- passwords --------------------------------------------------------------------------------------------------------


def form(**fields):
    import urllib.parse

    return urllib.parse.urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


def test_a_forgotten_password_is_set_anew_also_over_a_restart(make_server, mailbox):
    server = make_server(**mailbox.settings)
    email = new_email("forgot+me")
    assert server.unknown().register(email) == OK
    mailbox.next_to(email)
    with server.http() as user:
        answer = user.post("/resetPassword", *form(email=email.upper()))
        assert (answer.status, answer.text) == (200, "Email was sent.")
    mail = mailbox.next_to(email)
    assert mail["subject"] == "Password reset request for the Blynk app."
    url = re.search(r"http://[^\"\s]+/landing\?token=([A-Za-z0-9_-]{64})", mail.get_content())
    assert f":{server.http_port}/" in url.group(0)
    token = url.group(1)
    server.stop()
    server.start()
    with server.http() as user:
        page = user.get(f"/landing?token={token}")
        assert page.headers["content-type"].startswith("text/html")
        assert "content-security-policy" in page.headers
        assert token in page.text
        assert email in page.text
        hashed = password_hash("fresh", email)
        assert (
            user.post("/updatePassword", *form(token=token, password=hashed)).text == "Password was successfully reset."
        )
        assert user.post("/updatePassword", *form(token=token, password=hashed)).status == 400
        assert user.get(f"/landing?token={token}").status == 400
    assert server.unknown().login(email, "fresh") == OK


def test_reset_pages_refuse_what_is_no_token(web):
    assert web.get("/landing").status == 500
    assert web.get("/landing?token=<script>").text.startswith("Your token was not found")
    assert web.get("/restore?token=short").text == "Invalid request parameters."
    assert web.get("/restore?token=" + "a" * 32 + "&email=%3Cscript%3E").status == 400
    page = web.get("/restore?token=" + "a" * 32 + "&email=me%2Bx@example.com")
    assert page.status == 200
    assert "restore?token=" + "a" * 32 + "&amp;email=me%2Bx%40example.com" in page.text
    answer = web.post("/resetPassword", "{}", {"Content-Type": "application/json"})
    assert (answer.status, answer.body) == (500, b"")
    assert web.post("/resetPassword", *form(x="1")).text == "null email has not valid format."


def test_resets_of_one_account_are_limited(make_server, mailbox):
    server = make_server(**mailbox.settings)
    email = server.app().email
    with server.http() as user:
        statuses = [user.post("/resetPassword", *form(email=email)).status for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2


def test_a_header_cannot_be_injected(server, house):
    token = house.tokens[0].encode()
    for tail in (b"value=a%0d%0aSet-Cookie:%20x=1", b"value=%00", b"label=a%0d%0ab"):
        answer = http_raw(
            HOST, server.http_port, b"GET /%b/update/v1?%b HTTP/1.1\r\nConnection: close\r\n\r\n" % (token, tail)
        )
        assert b"set-cookie" not in answer.lower()


def test_no_page_names_a_foreign_site():
    for folder in ("admin", "reset"):
        for name in os.listdir(os.path.join(ROOT, "web", folder)):
            with open(os.path.join(ROOT, "web", folder, name), "rb") as f:
                text = f.read().decode("latin-1")
            foreign = [u for u in re.findall(r"https?://[^\s\"'`)]+", text) if "www.w3.org" not in u]
            assert not foreign, (name, foreign)
            assert " onclick=" not in text
            assert "<script>" not in text


def test_json_of_errors_is_plain_text_with_nosniff(web):
    answer = web.get("/<script>/get/v1".replace("<", "%3C").replace(">", "%3E"))
    assert answer.status == 400
    assert answer.headers["content-type"] == "text/plain;charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(web.get("/health").text)
