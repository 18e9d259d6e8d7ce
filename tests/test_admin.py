"""The administration: its API over the wire, and the page in a real Chromium (spec 06 §8)."""

import json
import re
import tarfile
import time
import urllib.parse

import pytest
from clients import (
    NOT_ALLOWED,
    OK,
    USER_NOT_AUTHENTICATED,
    USER_NOT_REGISTERED,
    http_raw,
    new_email,
    password_hash,
    until,
    widget,
)
from servers import HOST

ADMIN = "admin@blynk.cc"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def log_in(user, password="admin", email=ADMIN, **headers):
    """POST /admin/login; the answer."""
    body = urllib.parse.urlencode({"email": email, "password": password_hash(password, email)})
    return user.post("/admin/login", body, {**FORM, **headers})


class Desk:
    """The administrator's HTTPS connection, with his cookie."""

    def __init__(self, server, password="admin"):
        self.server, self.user = server, server.http(tls=True)
        # the account of a new server is made a moment after its ports are open
        cookie = until(lambda: log_in(self.user, password).headers.get("set-cookie"), what="the login")
        self.cookie = cookie.partition(";")[0]

    def ask(self, method, path, body=None, **headers):
        return self.user.request(method, "/admin" + path, body, {"Cookie": self.cookie, **headers})

    def get(self, path, **headers):
        return self.ask("GET", path, None, **headers)

    def json(self, path):
        answer = self.get(path)
        assert answer.status == 200, (path, answer)
        return answer.json()


@pytest.fixture
def desk(server):
    desk = Desk(server)
    yield desk
    desk.user.close()


# -- login ------------------------------------------------------------------------------------------------------------


def test_login_is_a_redirect_and_the_cookie_makes_the_difference(server):
    with server.http(tls=True) as user:
        wrong = log_in(user, "wrong")
        assert (wrong.status, wrong.headers["location"]) == (301, "/admin")
        assert "set-cookie" not in wrong.headers
        assert wrong.headers["cache-control"] == "no-store"
        app = server.app()
        ordinary = log_in(user, "pw", app.email)
        assert "set-cookie" not in ordinary.headers
        right = log_in(user)
        cookie = right.headers["set-cookie"]
        for word in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=2592000"):
            assert word in cookie
        assert re.match(r"session=[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12};", cookie)
        mine = {"Cookie": "a=b; " + cookie.partition(";")[0]}
        assert "admin.js" in user.get("/admin", mine).text
        page = user.get("/admin")
        assert "Use your Admin account to log in" in page.text
        assert page.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in page.headers
        out = user.post("/admin/logout", b"", mine)
        assert out.headers["set-cookie"].startswith("session=; Max-Age=0")
        assert user.get("/admin/users", mine).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users"), ("GET", "/users/a-Blynk"), ("PUT", "/users/a-Blynk"), ("DELETE", "/users/a-Blynk"),
        ("GET", "/users/names/getAll"), ("GET", "/users/token/assign"), ("GET", "/users/token/force"), ("GET", "/config"),
        ("GET", "/config/server.properties"), ("PUT", "/config/server.properties"), ("GET", "/stats/realtime"),
        ("GET", "/stats/ips"), ("GET", "/hardwareInfo/boards"), ("GET", "/api/state"), ("GET", "/api/accounts"),
        ("POST", "/api/accounts"), ("POST", "/api/accounts/a-Blynk/password"), ("GET", "/api/devices"), ("GET", "/api/log"),
        ("GET", "/api/settings"), ("GET", "/api/backup"), ("GET", "/nothing"),
    ],
)  # fmt: skip
def test_nothing_without_a_session(server, desk, method, path):
    with server.http(tls=True) as user:
        for headers in ({}, {"Cookie": "session=00000000-0000-4000-a000-000000000000"}, {"Cookie": "session="}):
            answer = user.request(method, "/admin" + path, None, headers)
            assert (answer.status, answer.body) == (404, b"")
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert desk.ask(method, path, None, **headers).status == 404


def test_the_pages_own_requests_pass(desk, server):
    own = {"Sec-Fetch-Site": "same-origin", "Origin": f"https://{HOST}:{server.https_port}"}
    assert desk.ask("GET", "/api/state", None, **own).status == 200
    assert desk.ask("GET", "/api/state", None, Origin=f"https://{HOST}:{server.https_port}").status == 200


def test_wrong_passwords_lock_out_also_the_right_one_for_a_while(make_server):
    server = make_server(limits_failed_logins=3, limits_failed_logins_pause_s=2)
    with server.http(tls=True) as user:
        for _ in range(3):
            assert "set-cookie" not in log_in(user, "wrong").headers
        assert "set-cookie" not in log_in(user).headers
        until(lambda: "set-cookie" in log_in(user).headers, 10, "the end of the pause")


def test_other_addresses_get_no_answer(make_server):
    server = make_server(admin_allowed_ips=["10.0.0.0/8"])
    for path in (b"/admin", b"/admin/users", b"/admin/ota/start"):
        assert http_raw(HOST, server.https_port, b"GET %b HTTP/1.1\r\n\r\n" % path, tls=True) == b""
    request = b"POST /admin/login HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
    assert http_raw(HOST, server.https_port, request, tls=True) == b""


def test_the_admin_path_can_be_elsewhere(make_server):
    server = make_server(admin_path="/keeper")
    with server.http(tls=True) as user:
        assert "Use your Admin account" in user.get("/keeper").text
        assert 'action="/keeper/login"' in user.get("/keeper").text
        assert user.get("/admin").status == 404


# -- users ------------------------------------------------------------------------------------------------------------


def test_no_answer_holds_a_password(desk, server):
    app = server.app()
    id = f"{app.email}-Blynk"
    texts = [
        desk.get(path).text
        for path in (
            "/users?_perPage=1000",
            f"/users/{id}",
            "/users/names/getAll",
            "/api/accounts",
            "/api/settings",
            "/config/server.properties",
            "/config/mail.properties",
        )
    ]
    texts.append(desk.ask("PUT", f"/users/{id}", json.loads(texts[1])).text)
    for text in texts:
        assert "scrypt$" not in text
        assert '"pass"' not in text
        assert password_hash("pw", app.email) not in text
    assert server.app(app.email).ask("PING") == OK  # a PUT without a password kept it


def test_users_are_listed_in_pages_sorted_and_filtered(desk, server):
    mark = str(time.time_ns())
    emails = sorted(f"u{i}.{mark}@example.com" for i in range(5))
    for email in emails:
        server.unknown().register(email)
    filters = urllib.parse.quote(json.dumps({"name": mark}))
    answer = desk.get(f"/users?_page=2&_perPage=2&_sortField=email&_sortDir=ASC&_filters={filters}")
    assert [user["email"] for user in answer.json()] == emails[2:4]
    assert answer.headers["x-total-count"] == "5"
    assert [u["email"] for u in desk.json(f"/users?_filters={filters}&_sortField=email&_sortDir=DESC")] == emails[::-1]
    assert desk.json(f"/users?_page=9&_filters={filters}") == []
    assert desk.get(f"/users?_filters={filters}&_sortField=profile").status == 500
    assert desk.get("/users?_page=x").status == 500
    assert desk.get("/users?_filters=%7B").status == 500
    assert desk.json(f"/users/{urllib.parse.quote(emails[0])}-Blynk")["email"] == emails[0]


def test_a_put_keeps_live_connections_on_the_new_object(desk, server, house):
    board = house.hardware()
    id = f"{house.email}-Blynk"
    document = desk.json(f"/users/{id}")
    document["profile"]["dashBoards"][0]["name"] = "Renamed"
    assert desk.ask("PUT", f"/users/{id}", document).status == 200
    board.send("vw 5 1")
    house.app.expect("1-0 vw 5 1")
    house.app.send("1-0 vw 5 2")
    board.expect("vw 5 2")
    assert house.app.project(1)["name"] == "Renamed"
    assert server.get(f"/{house.tokens[0]}/get/v5").json() == ["2"]
    assert server.get(f"/{house.tokens[0]}/isHardwareConnected").text == "true"


def test_a_put_with_another_address_needs_a_password(desk, server):
    app = server.app()
    app.make_project()
    token = app.token()
    id, fresh = f"{app.email}-Blynk", new_email("renamed")
    document = desk.json(f"/users/{id}")
    document["email"] = fresh
    answer = desk.ask("PUT", f"/users/{id}", document)
    assert (answer.status, answer.text) == (400, "You need also change password when changing email.")
    assert (
        desk.ask("PUT", f"/users/{id}", {**document, "pass": "new", "email": "nonsense"}).text == "Wring email address."
    )
    assert desk.ask("PUT", f"/users/{id}", {**document, "pass": "new"}).json()["id"] == f"{fresh}-Blynk"
    assert server.unknown().login(app.email) == USER_NOT_REGISTERED
    other = server.app(fresh, "new")
    assert other.token() == token
    assert desk.ask("PUT", "/users/nobody@example.com-Blynk", document).status == 500
    assert desk.ask("PUT", f"/users/{fresh}-Blynk", "nonsense", **{"Content-Type": "application/json"}).status == 500


def test_devices_that_a_put_leaves_out_are_closed(desk, house):
    board = house.hardware(1)
    id = f"{house.email}-Blynk"
    document = desk.json(f"/users/{id}")
    del document["profile"]["dashBoards"][0]["devices"][1]
    assert desk.ask("PUT", f"/users/{id}", document).status == 200
    board.closed()


def test_an_admin_who_renames_himself_stays_logged_in(make_server):
    server = make_server()
    desk = Desk(server)
    document = desk.json(f"/users/{ADMIN}-Blynk")
    document.update({"email": "keeper@example.com", "pass": "other"})
    assert desk.ask("PUT", f"/users/{ADMIN}-Blynk", document).status == 200
    assert desk.json("/users/names/getAll") == [{"email": "keeper@example.com", "appName": "Blynk"}]
    assert "set-cookie" in log_in(server.http(tls=True), "other", "keeper@example.com").headers


def test_deleting_an_account(desk, server):
    app = server.app()
    app.make_project()
    board = server.hardware(app.token())
    app.expect("1-0", "HARDWARE_CONNECTED")
    assert desk.ask("DELETE", f"/users/{app.email}-Blynk").status == 200
    board.closed()
    app.closed()
    assert server.unknown().login(app.email) == USER_NOT_REGISTERED
    assert desk.ask("DELETE", f"/users/{app.email}-Blynk").status == 404
    assert desk.ask("DELETE", f"/users/{ADMIN}-Blynk").status == 400


def test_tokens_are_given_by_hand(desk, server, house):
    board = house.hardware()
    new = "by-hand-" + str(time.time_ns())
    assert desk.get("/users/token/assign?old=nope&new=x").text == "This token not exists."
    assert desk.get(f"/users/token/assign?old={house.tokens[0]}&new={house.tokens[1]}").status == 400
    assert desk.get(f"/users/token/assign?old={house.tokens[0]}&new={new}").status == 200
    board.send("vw 1 1")
    house.app.expect("1-0 vw 1 1")
    assert server.get(f"/{new}/get/v1").json() == ["1"]
    assert server.get(f"/{house.tokens[0]}/get/v1").status == 400
    place = f"/users/token/force?email={house.email}&app=Blynk&new={new}2"
    assert desk.get(f"{place}&dashId=1&deviceId=0").status == 200
    assert desk.get(f"{place}3&dashId=9&deviceId=0").status == 500
    assert desk.get(f"{place}3&dashId=x&deviceId=0").status == 500
    assert desk.get("/users/token/force?email=nobody@example.com&app=Blynk").text == "No user with such email."
    assert server.get(f"/{new}2/get/v1").json() == ["1"]


# -- configuration and statistics -------------------------------------------------------------------------------------


def test_configuration_shows_what_is_in_force_and_takes_what_can_change(make_server):
    server = make_server(mail_password="secret-of-mail", mail_host="mail.example.com", admin_password="secret-admin")
    desk = Desk(server, "secret-admin")
    answer = desk.get("/config?_sortField=name&_sortDir=asc")
    assert answer.headers["x-total-count"] == "6"
    assert {"name": "server.properties"} in answer.json()
    body = desk.json("/config/server.properties")["body"]
    assert "user.devices.limit=50\n" in body
    mail = desk.json("/config/mail.properties")["body"]
    assert "mail.smtp.host=mail.example.com\n" in mail
    shown = body + mail + desk.get("/api/settings").text
    assert "secret-of-mail" not in shown
    assert "secret-admin" not in shown
    assert desk.get("/config/db.properties").status == 400
    assert desk.get("/config/other").status == 400
    changed = {"name": "server.properties", "body": "user.devices.limit=1\nhttp.port=1\n# comment\nnonsense\n"}
    assert desk.ask("PUT", "/config/server.properties", changed).json() == changed
    assert "user.devices.limit=1\n" in desk.json("/config/server.properties")["body"]
    assert f"http.port={server.http_port}\n" in desk.json("/config/server.properties")["body"]
    wrong = {"name": "server.properties", "body": "user.devices.limit=many"}
    assert "user.devices.limit" in desk.ask("PUT", "/config/server.properties", wrong).text
    app = server.app()
    app.make_project()
    answers = [app.ask("CREATE_DEVICE", 1, {"id": i, "name": "B", "boardType": "ESP8266"}) for i in (1, 2, 3)]
    assert answers[-1] == NOT_ALLOWED


STATISTICS = (
    "messages widgets projectsPerUser boards facebookLogins filledSpace userProfileSize webHookHosts requestsPerUser ips"
).split()


def test_statistics(desk, server, house):
    house.app.add_widget(1, widget("WEBHOOK", 1, 1, url="http://user:pw@hook.example.com:81/x", method="GET"))
    board = house.hardware()
    board.command("BLYNK_INTERNAL", "ver", "1.3.2", "h-beat", "45", "dev", "ESP8266", "cpu", "ESP", "con", "WIFI")
    board.expect_status(OK)
    for name in STATISTICS:
        for query in (
            "",
            "?_sortField=name&_sortDir=ASC",
            "?_sortField=count&_sortDir=DESC" if name not in ("ips", "requestsPerUser") else "",
        ):
            assert isinstance(desk.json(f"/stats/{name}{query}"), list), name
    assert {"name": "hook.example.com:81", "count": 1} in desk.json("/stats/webHookHosts")
    assert any(row["name"] == "1.3.2" for row in desk.json("/hardwareInfo/blynkVersion"))
    for name in ("cpuType", "connectionType", "boards"):
        assert desk.json(f"/hardwareInfo/{name}")
    (now,) = desk.json("/stats/realtime")
    assert now["totalOnlineHards"] >= 1
    assert now["totalOnlineApps"] >= 1
    assert now["memoryStat"]["heapBytes"] > 1 << 20
    assert set(now["http"]) >= {"total", "getPinData", "updatePinData"}
    assert set(now["commands"]) >= {"login", "hardware", "mqttTotal"}
    ips = desk.json("/stats/ips?_filters=" + urllib.parse.quote('{"ip":"127.0.0"}'))
    assert {"name": f"{house.email}-Blynk", "ip": HOST, "type": "hard"} in [
        {k: r[k] for k in ("name", "ip", "type")} for r in ips
    ]


def test_a_back_up_is_downloaded(desk, server, house, tmp_path):
    answer = desk.get("/api/backup")
    assert answer.status == 200
    assert "attachment" in answer.headers["content-disposition"]
    path = tmp_path / "backup.tar.gz"
    path.write_bytes(answer.body)
    with tarfile.open(path) as archive:
        assert any(house.email in name for name in archive.getnames())


# -- the page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture
def page():
    browser = pytest.importorskip("page")
    if not (browser.CHROMIUM and browser.DRIVER):
        pytest.skip("needs chromium and chromedriver")
    made = []

    def open_page(url):
        made.append(browser.Page(url))
        made[-1].driver.get(url)
        return made[-1]

    yield open_page
    for opened in made:
        opened.close()


def type_into(page, css, text):
    field = page.wait(css)
    field.clear()
    field.send_keys(text)


def press(page, text, inside="body"):
    def find():
        found = [
            b
            for b in page.find(f"{inside} button, {inside} a")
            if b.text == text and b.is_displayed() and b.is_enabled()
        ]
        return found and (found[0].click() or True)

    page.until(find, f"button {text!r}")


def log_in_page(page, password):
    type_into(page, "#login [name=email]", ADMIN)
    type_into(page, "#login [name=password]", password)
    press(page, "Log in", "#login")


def row_of(page, text):
    return page.until(
        lambda: next((row for row in page.find("tbody tr") if text in row.text), None), f"a row with {text}"
    )


def complaints(page):
    return [
        e
        for e in page.driver.get_log("browser")
        if e["level"] == "SEVERE" and "404" not in e["message"] and "400" not in e["message"]
    ]


def test_an_administrator_at_work(make_server, page):
    server = make_server(limits_failed_logins=4, limits_failed_logins_pause_s=60)
    app = server.app()
    app.make_project(1)
    admin = page(f"https://{HOST}:{server.https_port}/admin")
    assert admin.driver.title == "Blynk Administration"

    log_in_page(admin, "wrong")
    admin.until(lambda: "Wrong e-mail or password" in admin.find("#message")[0].text, "the refusal")
    log_in_page(admin, "admin")
    admin.until(lambda: admin.find("main[data-page=state]"), "the state")
    assert "MB" in admin.wait("#memory .value").text
    assert "Messages per second" in admin.wait("#rate").text
    assert admin.wait("#boards .value").text == "0"

    # a device comes online
    press(admin, "Devices", "#tabs")
    assert "offline" in row_of(admin, app.email).text
    board = server.hardware(app.token())
    board.command("BLYNK_INTERNAL", "ver", "1.3.2", "h-beat", "45", "build", "Aug 14 2017", "dev", "ESP8266")
    admin.until(
        lambda: (
            "online" in row_of(admin, app.email).text.split("\n")[0] and "Aug 14 2017" in row_of(admin, app.email).text
        ),
        "the device online",
    )
    press(admin, "State", "#tabs")
    admin.until(lambda: admin.find("#boards .value")[0].text == "1", "a board in the state")

    # an account is made, gets another password and energy, and goes
    press(admin, "Accounts", "#tabs")
    press(admin, "New account")
    email = new_email("made")
    type_into(admin, "dialog [name=email]", email)
    type_into(admin, "dialog [name=password]", "first")
    press(admin, "Create", "dialog")
    row_of(admin, email)
    assert server.unknown().login(email, "first") == OK
    next(b for b in row_of(admin, email).find_elements("tag name", "button") if b.text == "Password").click()
    type_into(admin, "dialog [name=password]", "second")
    press(admin, "Set", "dialog")
    admin.until(lambda: not admin.find("dialog[open]"), "the end of the dialog")
    assert server.unknown().login(email, "first") == USER_NOT_AUTHENTICATED
    assert server.unknown().login(email, "second") == OK
    next(b for b in row_of(admin, email).find_elements("tag name", "button") if b.text == "Energy").click()
    type_into(admin, "dialog [name=energy]", "4711")
    press(admin, "Set", "dialog")
    admin.until(lambda: "4711" in row_of(admin, email).text, "the energy")
    next(b for b in row_of(admin, email).find_elements("tag name", "button") if b.text == "Delete").click()
    press(admin, "Delete", "dialog")
    admin.until(lambda: not any(email in row.text for row in admin.find("tbody tr")), "the account gone")

    # log, settings
    press(admin, "Log", "#tabs")
    admin.until(lambda: "app joined" in admin.find("#log")[0].text, "the log")
    press(admin, "Settings", "#tabs")
    assert "limits.failed_logins" in row_of(admin, "limits.failed_logins").text
    assert "***" in row_of(admin, "admin.password").text
    assert not complaints(admin)

    # logged out, then locked out
    press(admin, "Log out", "header")
    for _ in range(4):
        log_in_page(admin, "wrong")
        admin.until(lambda: admin.find("#message") and admin.find("#message")[0].is_displayed(), "the refusal")
    log_in_page(admin, "admin")
    admin.until(lambda: admin.find("#message") and admin.find("#message")[0].is_displayed(), "locked out")
    assert not admin.find("#tabs")


def test_a_new_password_on_plain_http(make_server, mailbox, page):
    """The page hashes without crypto.subtle."""
    server = make_server(**mailbox.settings)
    email = server.app().email
    with server.http() as user:
        assert user.post("/resetPassword", f"email={urllib.parse.quote(email)}", FORM).status == 200
    mailbox.next_to(email)
    url = re.search(r"http://[\w.:]+/landing\?token=[\w-]{64}", mailbox.next_to(email).get_content()).group(0)
    opened = page(url)
    type_into(opened, "[name=first]", "pässword")
    type_into(opened, "[name=second]", "other")
    press(opened, "Set the password")
    opened.until(lambda: "differ" in opened.find("#message")[0].text, "the two differ")
    type_into(opened, "[name=second]", "pässword")
    press(opened, "Set the password")
    opened.until(lambda: "successfully reset" in opened.find("#message")[0].text, "success")
    assert server.unknown().login(email, "pässword") == OK
    assert not complaints(opened)
