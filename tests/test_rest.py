"""The REST interface as boards, scripts and curl use it (spec 06 §3). The recorded conversations have the common cases;
here is what they leave out."""

import json
import os
import shutil
import subprocess
import zlib

import pytest
from clients import OK, http_raw, widget
from servers import HOST


@pytest.fixture
def web(server):
    with server.http() as user:
        yield user


def curl(*arguments):
    """What curl prints."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    return subprocess.run([program, "-sS", *arguments], capture_output=True, text=True, timeout=20, check=True).stdout


def test_curl_writes_and_reads_on_both_ports(server, house):
    board = house.hardware()
    url, token = f"http://{HOST}:{server.http_port}", house.tokens[0]
    assert curl(f"{url}/{token}/update/v5?value=21.5") == ""
    board.expect("vw 5 21.5", id=111)
    house.app.expect("1-0 vw 5 21.5", id=111)
    assert curl(f"{url}/{token}/get/v5") == '["21.5"]'
    secure = f"https://{HOST}:{server.https_port}"
    header = ("-H", "Content-Type: application/json")
    assert curl("-k", "-X", "PUT", *header, "-d", '["1","2"]', f"{secure}/{token}/update/v5") == ""
    board.expect("vw 5 1 2", id=111)
    assert curl("-k", f"{secure}/{token}/get/v5") == '["1","2"]'
    assert "200" in curl("-o", os.devnull, "-w", "%{http_code}", f"{url}/{token}/isHardwareConnected")


def test_values_come_back_as_valid_json_whatever_they_hold(web, house):
    token = house.tokens[0]
    for value in ('say "hi"', "back\\slash", "tab\tline\n", "ä☀🙂", "<script>", " "):
        assert web.put(f"/{token}/update/v9", [value]).status == 200
        assert web.get(f"/{token}/get/v9").json() == [value]


def test_old_spelling_of_get_still_works(web, house):
    token = house.tokens[0]
    web.put(f"/{token}/pin/v3", ["7"])
    assert web.get(f"/{token}/pin/v3").json() == ["7"]


def test_head_reads_and_never_writes(web, house):
    token = house.tokens[0]
    web.put(f"/{token}/update/v3", ["7"])
    answer = web.request("HEAD", f"/{token}/get/v3")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "5")
    assert web.request("HEAD", f"/{token}/update/v3?value=8").status == 404
    assert web.get(f"/{token}/get/v3").json() == ["7"]


def test_another_site_may_ask_whether_it_may(web, house):
    answer = web.request("OPTIONS", f"/{house.tokens[0]}/update/v1", headers={"Origin": "http://elsewhere"})
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "content-type"


@pytest.mark.parametrize(
    "path", ["/{}/get/v1/", "//{}/get/v1", "/{}//get/v1", "/{}/get/v1/x", "/{}/nothing", "/{}", "/{}/GET/v1"]
)
def test_paths_that_are_no_route(web, house, path):
    answer = web.get(path.format(house.tokens[0]))
    assert (answer.status, answer.body) == (404, b"")


def test_methods_nobody_knows(server):
    assert b" 501 " in http_raw(HOST, server.http_port, b"CONNECT a:1 HTTP/1.1\r\n\r\n")
    assert b" 501 " in http_raw(HOST, server.http_port, b"TRACE / HTTP/1.1\r\n\r\n")


def test_a_wrong_body_is_told_before_a_wrong_token(web):
    assert web.put("/nope/update/v1", "x", {"Content-Type": "text/plain"}).text.startswith("Unexpected content type")
    assert web.put("/nope/update/v1", "x", {"Content-Type": "application/json"}).text == "Error parsing body param. x"
    deep = "[" * 100000
    assert web.put("/nope/update/v1", deep, {"Content-Type": "application/json"}).status == 500


def test_json_is_read_leniently(web, house):
    token, kind = house.tokens[0], {"Content-Type": "application/json; charset=utf-8"}
    assert web.put(f"/{token}/update/v1", '[1, 2.50, true, null, "x"] and more', kind).status == 200
    assert web.get(f"/{token}/get/v1").json() == ["1", "2.5", "true", "null", "x"]
    answer = web.put(f"/{token}/update/v1", "null", kind)
    assert (answer.status, answer.body) == (500, b"")
    assert web.put(f"/{token}/update/v1", '[["1"]]', kind).status == 500
    assert web.put(f"/{token}/extra/pin/v1", '[{"value":"4"}]', kind).status == 200
    assert web.get(f"/{token}/get/v1").json() == ["4"]
    for stamp in ("1e999", "Infinity", '"x"', "[]", "true", "9" * 5000):
        body = '[{"timestamp":%s,"value":"4"}]' % stamp
        assert web.put(f"/{token}/extra/pin/v1", body, kind).status == 500, stamp


def test_a_tile_shows_its_bare_value(web, house):
    house.app.add_widget(
        1,
        widget("DEVICE_TILES", 5, templates=[{"id": 1, "mode": "PAGE", "deviceIds": [0], "widgets": []}],
               tiles=[{"deviceId": 0, "templateId": 1, "pin": {"pin": 5, "pinType": "VIRTUAL"}}]),
    )  # fmt: skip
    token = house.tokens[0]
    web.put(f"/{token}/update/v5", ["25"])
    answer = web.get(f"/{token}/get/v5")
    assert answer.text == "25"


def test_terminal_and_map_give_their_lines(web, house):
    house.app.add_widget(1, widget("TERMINAL", 5, 1))
    house.app.add_widget(1, widget("MAP", 6, 2))
    token, board = house.tokens[0], house.hardware()
    for line in ("a", 'b "c"'):
        board.send("vw", 1, line)
        board.send("vw", 2, line)
    board.ping()
    assert web.get(f"/{token}/get/v1").json() == ["a", 'b "c"']
    assert web.get(f"/{token}/get/v2").json() == ["a", 'b "c"']


def test_a_value_a_widget_refuses_changes_nothing(web, house):
    house.app.add_widget(1, widget("TIME_INPUT", 5, 1))
    answer = web.put(f"/{house.tokens[0]}/update/v1", ["x", "y", "UTC"])
    assert (answer.status, answer.body) == (500, b"")
    assert web.get(f"/{house.tokens[0]}/get/v1").json() == []


def test_project_hides_secrets(web, house):
    house.app.add_widget(1, {**widget("NOTIFICATION", 5), "androidTokens": {"u": "phone"}})
    document = web.get(f"/{house.tokens[0]}/project").json()
    text = json.dumps(document)
    assert document["id"] == 1
    assert house.tokens[0] not in text
    assert "phone" not in text
    assert "lastLoggedIP" not in text


def test_qr_leads_to_a_clone(server, web, house):
    pytest.importorskip("segno")
    answer = web.get(f"/{house.tokens[0]}/qr")
    assert answer.headers["content-type"] == "image/png"
    width = int.from_bytes(answer.body[16:20], "big")
    assert answer.body[:8] == b"\x89PNG\r\n\x1a\n"
    assert width >= 125
    assert zlib.crc32(answer.body[12:29]) == int.from_bytes(answer.body[29:33], "big")
    (token,) = os.listdir(os.path.join(server.data, "clone"))[:1]
    assert web.get(f"/{token}/clone").json()["id"] == 1


def test_without_segno_the_answer_names_it(make_server, tmp_path):
    (tmp_path / "segno.py").write_text("raise ImportError\n")
    server = make_server(environment={**os.environ, "PYTHONPATH": str(tmp_path)})
    app = server.app()
    app.make_project()
    answer = server.get(f"/{app.token()}/qr")
    assert answer.status == 501
    assert "segno" in answer.text


def test_history_is_downloaded_by_way_of_a_redirect(server, web, house):
    assert web.get(f"/{house.tokens[0]}/data/v1").text == "No data."


def test_notifications_of_an_account_are_listed(web, house):
    assert web.get(f"/{house.tokens[0]}/notifications").json() == []


def test_counters_count_only_what_had_a_token(server, web, house):
    assert web.get("/nope/get/v1").status == 400
    assert web.get(f"/{house.tokens[0]}/rtc").status == 400
    assert house.app.ask("PING") == OK
