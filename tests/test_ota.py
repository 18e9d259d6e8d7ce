"""Firmware: uploaded by the administrator, told to boards at once or when they report another build (spec 06 §4)."""

import base64
import json
import os

import pytest
from clients import OK, connect_tls, http_raw, password_hash, until
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import HOST

import blynk_pi

BUILD = "Aug 14 2017 20:31:49"


def basic(password="admin", user="admin@blynk.cc"):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def multipart(content, filename="fw.bin", name="upfile"):
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + content + b"\r\n--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"}


def firmware(build=BUILD, size=1000):
    return os.urandom(size).replace(b"\0", b"x") + b"\0build\0" + build.encode() + b"\0" + os.urandom(size)


@pytest.fixture
def web(server):
    """An HTTPS user; the administrator's word is given with each request."""
    with server.http(tls=True) as user:
        yield user
        user.get("/admin/ota/stop", basic())


def upload(web, content, query="", **how):
    body, headers = multipart(content, **how)
    return web.post(f"/admin/ota/start{query}", body, {**headers, **basic()})


def info(board, build=None):
    """The board reports itself; the texts it is told before the OK."""
    words = ["ver", "1.3.2", "h-beat", "45"] + (["build", build] if build else [])
    id = board.command("BLYNK_INTERNAL", *words)
    board.expect_status(OK, id)
    told = [f.text for f in board.inbox if f.command == "BLYNK_INTERNAL"]
    board.inbox.clear()
    return told


def test_who_may_give_orders(web, server):
    assert web.get("/admin/ota/start?token=x").status == 404
    assert web.get("/admin/ota/start?token=x", {"Authorization": "Basic %%%"}).status == 404
    assert web.get("/admin/ota/start?token=x", {"Authorization": "Bearer abc"}).status == 404
    answer = web.get("/admin/ota/start?token=x", basic("wrong"))
    assert (answer.status, answer.text) == (403, "Authentication failed.")
    app = server.app()
    assert web.get("/admin/ota/start?token=x", basic("pw", app.email)).status == 403
    assert web.get("/admin/ota/start?token=x", basic()).text == "Invalid token."
    assert web.get("/admin/ota/start", basic()).status == 500


def test_an_upload_without_the_right_password_is_read_and_not_kept(web, server):
    body, headers = multipart(firmware(size=300_000))
    folder = os.path.join(server.data, "static", "ota")
    before = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    answer = web.post("/admin/ota/start", body, {**headers, **basic("wrong")})
    assert (answer.status, answer.text) == (403, "Authentication failed.")
    assert web.post("/admin/ota/start", body, headers).status == 404
    assert web.get("/admin/ota/stop", basic()).status == 200
    assert (set(os.listdir(folder)) if os.path.isdir(folder) else set()) == before


def test_a_firmware_for_a_user_reaches_his_boards_with_another_build(web, server, house):
    content = firmware(size=200_000)
    answer = upload(web, content, f"?user={house.email}")
    assert answer.status == 200
    path = answer.text
    url = f"http://{HOST}:{server.http_port}{path}"
    board = house.hardware()
    assert info(board) == []
    assert info(board, BUILD) == []
    assert info(board, "Jan  1 2017 00:00:00") == [f"ota {url}"]
    assert server.get(path).body == content
    assert server.get(path).headers["content-type"] == "application/octet-stream"
    device = house.app.device()
    assert device["deviceOtaInfo"]["otaInitiatedBy"] == "admin@blynk.cc"
    assert device["deviceOtaInfo"]["otaUpdateAt"] >= device["deviceOtaInfo"]["otaInitiatedAt"]
    stranger = server.app()
    stranger.make_project()
    other = server.hardware(stranger.token())
    assert info(other, "Jan  1 2017 00:00:00") == []
    web.get("/admin/ota/stop", basic())
    assert info(board, "Jan  1 2017 00:00:00") == []


def test_a_firmware_may_be_for_projects_of_one_name(web, house):
    assert upload(web, firmware(), f"?user={house.email}&project=Greenhouse").status == 200
    board = house.hardware()
    assert info(board, "old") == []
    assert upload(web, firmware(), f"?user={house.email}&project=PROJECT%201").status == 200
    assert len(info(board, "old")) == 1


def test_a_firmware_for_all(web, house):
    path = upload(web, firmware()).text
    (told,) = info(house.hardware(), "old")
    assert told.endswith(path)


def test_a_firmware_for_one_board_is_told_at_once(web, house):
    assert upload(web, firmware(), f"?token={house.tokens[0]}").text == "No device in session."
    board, other = house.hardware(), house.hardware(1)
    answer = upload(web, b"no build in it", f"?token={house.tokens[0]}", filename="evil.<script>.html")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert board.next().text.endswith(answer.text)
    other.silence()
    assert upload(web, b"", f"?token={house.tokens[0]}").status == 200


def test_announcing_a_file_that_is_there(web, server, house):
    board = house.hardware()
    assert web.get(f"/admin/ota/start?token={house.tokens[0]}", basic()).status == 200
    frame = board.next()
    assert (frame.id, frame.text) == (7777, f"ota http://{HOST}:{server.http_port}/static/ota/firmware_ota.bin")
    for name in ("../../etc/passwd", "a%0d%0ab", "%00"):
        assert web.get(f"/admin/ota/start?token={house.tokens[0]}&fileName={name}", basic()).status == 400
    board.silence()


def test_what_is_no_firmware(web, house):
    assert upload(web, firmware(), "?user=nobody@example.com").text == "Requested user not found."
    answer = upload(web, b"nothing of a build", f"?user={house.email}")
    assert (answer.status, answer.body) == (500, b"")
    answer = web.post("/admin/ota/start", b"just bytes", {**basic(), "Content-Type": "application/octet-stream"})
    assert (answer.status, answer.text) == (500, "Can't find binary data in request.")
    body = b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--XX--\r\n'
    answer = web.post("/admin/ota/start", body, {**basic(), "Content-Type": "multipart/form-data; boundary=XX"})
    assert answer.text == "Can't find binary data in request."
    assert web.post("/upload", *multipart(b"x")).status == 404
    assert web.post("/admin/ota/start", b"", basic()).text == "Can't find binary data in request."
    assert web.post("/admin/ota/start", b"").status == 404
    assert web.post("/admin/ota/start", b"", basic("wrong")).status == 403


def test_big_uploads_go_to_disk_and_are_bounded(make_server):
    server = make_server(http_upload_max_size=40_000_000)
    with server.http(tls=True) as web:
        web.get("/admin")
        before = server.rss_kb()
        content = firmware(size=15_000_000)
        answer = upload(web, content)
        assert answer.status == 200
        assert server.rss_kb() - before < 6000
        assert server.get(answer.text).body == content
        body, headers = multipart(b"x" * 41_000_000)
        assert web.post("/admin/ota/start", body, {**headers, **basic()}).status == 413
        assert os.listdir(os.path.join(server.data, "static", "ota")) == [os.path.basename(answer.text)]


def test_an_upload_that_breaks_off_leaves_nothing(server, web):
    folder = os.path.join(server.data, "static", "ota")
    before = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    body, headers = multipart(firmware(size=400_000))
    sock = connect_tls(HOST, server.https_port)
    lines = [f"{k}: {v}" for k, v in {**headers, **basic(), "Content-Length": len(body)}.items()]
    sock.sendall("\r\n".join(["POST /admin/ota/start HTTP/1.1", *lines, "", ""]).encode() + body[:500_000])
    until(lambda: os.path.isdir(folder) and set(os.listdir(folder)) - before, what="the temporary file")
    sock.close()
    until(lambda: set(os.listdir(folder)) == before, what="its removal")


def test_chunked_upload_with_curls_expectation(server):
    body, headers = multipart(firmware())
    lines = [
        f"{k}: {v}" for k, v in {**headers, **basic(), "Transfer-Encoding": "chunked", "Connection": "close"}.items()
    ]
    head = "\r\n".join(["POST /admin/ota/start?user=nobody@example.com HTTP/1.1", *lines, "", ""]).encode()
    answer = http_raw(HOST, server.https_port, head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), tls=True)
    assert answer.endswith(b"Requested user not found.")


def test_the_session_of_the_admin_page_counts_too(server, web, house):
    hashed = password_hash("admin", "admin@blynk.cc")
    answer = web.post("/admin/login", f"email=admin%40blynk.cc&password={hashed}".replace("+", "%2B").replace("=", "=", 1),
                      {"Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    body, headers = multipart(firmware())
    assert web.post(f"/admin/ota/start?user={house.email}", body, {**headers, **cookie}).status == 200
    crossed = {**headers, **cookie, "Sec-Fetch-Site": "cross-site"}
    assert web.post(f"/admin/ota/start?user={house.email}", body, crossed).status == 404
    json.dumps(answer.headers)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 60), max_size=20), st.booleans())
def test_the_file_of_a_form_comes_out_whole_however_it_was_cut(content, cuts, field_before):
    mark = b"\r\n--b0undary"
    if mark in b"\r\n" + content + b"\r\n":
        return
    body = b'preamble\r\n--b0undary\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' if field_before else b""
    body += (
        b'--b0undary\r\nContent-Disposition: form-data; filename="a.bin"\r\n\r\n' + content + b"\r\n--b0undary--\r\n"
    )
    form, out, at = blynk_pi.FormFile("b0undary"), b"", 0
    for cut in cuts:
        out += form.feed(body[at : at + cut])
        at += cut
    out += form.feed(body[at:])
    assert (form.done, form.filename, out) == (True, "a.bin", content)


@pytest.mark.parametrize("pad", [0, 65535 - 7, 65536 - 7, 65536 - 3, 65536, 65536 - 20])
def test_the_build_is_found_wherever_it_lies(tmp_path, pad):
    path = tmp_path / "fw.bin"
    path.write_bytes(b"x" * pad + b"\0build\0" + BUILD.encode() + b"\0" + b"y" * 100)
    assert blynk_pi.find_build(str(path)) == BUILD
    path.write_bytes(b"x" * pad + b"\0build\0" + b"z" * 1000)
    assert blynk_pi.find_build(str(path)) is None


def test_names_of_uploads_cannot_be_guessed_nor_abused():
    names = {blynk_pi.firmware_name(n) for n in ["a.bin"] * 50}
    assert len(names) == 50
    assert blynk_pi.firmware_name("x.b/../i\0n\r\n").endswith("_upload.in")
    assert blynk_pi.firmware_name("noending").endswith("_upload")
