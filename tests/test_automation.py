"""What the server does by itself (spec 08 §6–9, 02 §12, §13.3–13.4): rules, timers, webhooks, reading widgets, offline
notices. Values and answers travel through the real process; clocks that tests move belong to a real Server on a loop
with false clocks."""

import contextlib
import datetime
import os
import socket
import threading
import time

import pytest
from clients import OK, until, widget
from desk import Clock

import blynk_pi

EVENTOR, HOOK = 70, 71  # ids of the widgets these tests add


def stream(pin, kind="VIRTUAL", **more):
    return {"pin": pin, "pinType": kind, **more}


def setpin(pin, value, kind="VIRTUAL", **more):
    return {"type": "SETPIN", "pin": stream(pin, kind, **more), "value": value, "setPinType": "CUSTOM"}


def rule(pin, kind, *actions, active=True, **fields):
    """A pin rule: when pin's value meets the condition of that kind."""
    condition = {"type": kind, **fields}
    return {"triggerPin": stream(pin), "condition": condition, "actions": list(actions), "isActive": active}


def time_rule(when, *actions, days=(1, 2, 3, 4, 5, 6, 7), zone="UTC", active=True):
    trigger = {"id": 1, "days": list(days), "time": when, "tzName": zone}
    return {"triggerTime": trigger, "actions": list(actions), "isActive": active}


def eventor(*rules, device=0):
    return widget("EVENTOR", EVENTOR, device=device, rules=list(rules))


def hook(pin, url, device=0, id=HOOK, **fields):
    return widget("WEBHOOK", id, pin, device=device, url=url, **fields)


def second_of_day(ahead):
    return (int(time.time()) + ahead) % 86400


def on_disk(server, text):
    """Whether a file of the data folder has these bytes."""
    for entry in os.scandir(server.data):
        with contextlib.suppress(OSError):  # a file that was just renamed
            if entry.is_file() and entry.name[0] != "." and text in open(entry, "rb").read():
                return True
    return False


class Home:
    """An account with project 1 on a server of the test's own, one board."""

    def __init__(self, server, *widgets, devices=1, **fields):
        self.server, self.app = server, server.app()
        self.app.make_project(1, devices=devices, widgets=widgets, **fields)
        self.tokens = [self.app.token(1, n) for n in range(devices)]
        self.email = self.app.email

    def hardware(self, device=0):
        board = self.server.hardware(self.tokens[device])
        self.app.expect(f"1-{device}", "HARDWARE_CONNECTED")
        return board

    def add(self, document):
        self.app.add_widget(1, document)


# ---------------------------------------------------------------------------------------------------------------
# Rules on values
# ---------------------------------------------------------------------------------------------------------------

CONDITIONS = [
    # condition, a value it does not hold for, one that it holds for
    ({"type": "GT", "value": 10}, "10", "10.5"),
    ({"type": "GTE", "value": 10}, "9.99", "10"),
    ({"type": "LT", "value": -1}, "-1", "-1.5"),
    ({"type": "LTE", "value": 10}, "1e2", "1e1"),
    ({"type": "EQ", "value": 5}, "5.1", "5.0"),
    ({"type": "NEQ", "value": 5}, "5", "6"),
    ({"type": "BETWEEN", "left": 1, "right": 3}, "1", "2"),
    ({"type": "NOT_BETWEEN", "left": 1, "right": 3}, "2", "3"),
    ({"type": "STR_EQUAL", "value": "open"}, "Open", "open"),
    ({"type": "STR_NOT_EQUAL", "value": "open"}, "open", "shut"),
]


@pytest.mark.parametrize("condition, misses, holds", CONDITIONS, ids=[c[0]["type"] for c in CONDITIONS])
def test_a_rule_fires_once_each_time_its_condition_becomes_true(house, condition, misses, holds):
    house.app.add_widget(1, eventor({**rule(1, "GT", setpin(2, "hit")), "condition": condition}))
    hw = house.hardware()
    for value, fires in ((misses, False), (holds, True), (holds, False), (misses, False), (holds, True)):
        hw.send("vw", 1, value)
        if fires:
            hw.expect("vw 2 hit", id=888)
            house.app.expect("1-0 vw 2 hit", id=888)
        house.app.expect(f"1-0 vw 1 {value}")
    house.app.silence(hw)
    hw.silence()


@pytest.mark.parametrize("kind", ["GT", "GTE", "LT", "LTE", "EQ", "BETWEEN"])
def test_a_text_is_never_a_number(house, kind):
    house.app.add_widget(1, eventor(rule(1, kind, setpin(2, "x"), value=0, left=-9, right=9)))
    hw = house.hardware()
    for text in ("warm", "5 C", "0x10", "1,5", " 3", "nan"):
        hw.send("vw", 1, text)
    hw.send(b"vw\x001\x001\x002")
    hw.silence()


@pytest.mark.parametrize("kind", ["NEQ", "NOT_BETWEEN"])
def test_a_text_is_not_that_number(house, kind):
    house.app.add_widget(1, eventor(rule(1, kind, setpin(2, "x"), value=0, left=-9, right=9)))
    hw = house.hardware()
    hw.send("vw 1 warm")
    hw.expect("vw 2 x", id=888)


def test_changed_fires_on_every_change(house):
    house.app.add_widget(1, eventor(rule(1, "CHANGED", setpin(2, "new"))))
    hw = house.hardware()
    for value, fires in (("1", True), ("2", True), ("3", True), ("3", False), ("4", True)):
        hw.send("vw", 1, value)
        if fires:
            hw.expect("vw 2 new", id=888)
        hw.silence()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_changed_has_seen_last_survives(make_server, end):
    server = make_server()
    home = Home(server, eventor(rule(1, "CHANGED", setpin(2, "new"))))
    with home.hardware() as hw:
        hw.send("vw 1 7")
        hw.expect("vw 2 new", id=888)
    wanted = home.tokens[0].encode(), b'"v1","7"'
    until(lambda: all(on_disk(server, text) for text in wanted), what="the account and the value on the disk")
    getattr(server, end)()
    server.start()
    hw = server.hardware(home.tokens[0])
    hw.send("vw 1 7")
    hw.silence()
    hw.send("vw 1 8")
    hw.expect("vw 2 new", id=888)


def test_changed_costs_one_journal_record_a_second(machine):
    m = machine("2027-06-01 12:00", eventor(rule(1, "CHANGED", setpin(2, "x"))))
    project, automation = m.account.projects[1], m.server.automation
    for round_ in range(2):
        m.server.ledger.operations.clear()
        m.settle()
        for n in range(50):
            automation.on_value(project, 0, "v", 1, f"{round_}.{n}", "http")
        records = [record for record in m.server.ledger.operations if record[0] == "c"]
        assert [record[-1] for record in records] == [f"{round_}.49"]
    m.stop()


def test_rules_hear_apps_and_http_but_not_themselves(house):
    rules = rule(1, "GT", setpin(2, "a"), value=5), rule(2, "STR_EQUAL", setpin(3, "never"), value="a")
    house.app.add_widget(1, eventor(*rules))
    hw = house.hardware()
    house.app.send("1-0 vw 1 6")
    hw.expect("vw 1 6")
    hw.expect("vw 2 a", id=888)
    house.app.send("1-0 vw 1 0")
    hw.expect("vw 1 0")
    assert house.server.get(f"/{house.tokens[0]}/update/V1?value=7").status == 200
    hw.expect("vw 2 a", id=888)
    hw.expect("vw 1 7", id=111)
    house.app.command("HARDWARE_RESEND_FROM_BLUETOOTH", "1-0 vw 1 0")
    house.app.command("HARDWARE_RESEND_FROM_BLUETOOTH", "1-0 vw 1 8")
    hw.expect("vw 2 a", id=888)
    hw.silence(house.app)


def test_a_rule_of_a_tag_writes_to_all_its_devices(house):
    house.app.json("CREATE_TAG", 1, {"id": 100000, "name": "Both", "deviceIds": [0, 1]})
    house.app.add_widget(1, eventor(rule(1, "GT", setpin(2, "a"), value=5), device=100000))
    one, two = house.hardware(0), house.hardware(1)
    house.app.send("1-100000 vw 1 6")
    for n, board in enumerate((one, two)):
        board.expect("vw 1 6")
        board.expect("vw 2 a", id=888)
        house.app.expect(f"1-{n} vw 2 a", id=888)
    one.send("vw 1 7")  # a value of one device is not one of the tag
    one.silence()


def test_a_stopped_project_has_no_rules_and_an_inactive_rule_none_either(house):
    house.app.add_widget(
        1, eventor(rule(1, "GT", setpin(2, "a"), value=5), rule(3, "GT", setpin(4, "b"), active=False))
    )
    hw = house.hardware()
    assert house.app.ask("DEACTIVATE_DASHBOARD", 1) == OK
    hw.send("vw 1 6")
    hw.send("vw 3 6")
    hw.silence()
    house.app.activate()
    hw.send("vw 3 7")
    hw.send("vw 1 7")
    hw.expect("vw 2 a", id=888)
    hw.silence()


def test_a_pwm_pin_is_written_as_analog_and_triggers_as_analog(house):
    fade = {**rule(1, "GT", setpin(5, "200", "DIGITAL", pwmMode=True), value=0)}
    fade["triggerPin"] = stream(3, "DIGITAL", pwmMode=True)
    house.app.add_widget(1, eventor(fade))
    hw = house.hardware()
    hw.expect("pm 5 out")
    hw.send("aw 3 1")
    hw.expect("aw 5 200", id=888)


def test_invalid_actions_are_left_out_and_the_others_run_in_order(house):
    actions = (
        {"type": "SETPIN", "pin": stream(-1), "value": "x"},
        {"type": "SETPIN", "pin": stream(4)},
        {"type": "NOTIFY", "message": ""},
        {"type": "NOTIFY", "message": "nobody is there to hear it"},
        {"type": "SET_PROP", "pin": stream(6), "property": "COLOR", "value": "no colour"},
        {"type": "SET_PROP", "pin": stream(6), "property": "MIN", "value": "nothing"},
        setpin(2, "first"),
        setpin(3, "second"),
    )
    house.app.add_widget(1, eventor(rule(1, "GT", *actions, value=5)))
    house.app.add_widget(1, widget("SLIDER", 5, 6))
    hw = house.hardware()
    hw.send("vw 1 6")
    assert hw.next().text == "vw 2 first"
    assert hw.next().text == "vw 3 second"
    house.app.expect("1-0 vw 2 first")
    house.app.expect("1-0 vw 3 second")
    house.app.expect("1-0 vw 1 6")
    house.app.silence()
    assert house.app.widget(1, 5)["min"] == 0


def test_a_rule_sets_a_property(house):
    action = {"type": "SET_PROP", "pin": stream(6), "property": "ON_LABEL", "value": "An"}
    stored = {"type": "SET_PROP", "pin": stream(9), "property": "LABEL", "value": "Hall"}
    house.app.add_widget(1, widget("BUTTON", 5, 6))
    house.app.add_widget(1, eventor(rule(1, "GT", action, stored, value=5)))
    hw = house.hardware()
    hw.send("vw 1 6")
    house.app.expect("1-0 6 onLabel An", "SET_WIDGET_PROPERTY", id=888)
    house.app.expect("1-0 9 label Hall", "SET_WIDGET_PROPERTY", id=888)
    assert house.app.widget(1, 5)["onLabel"] == "An"
    assert "1-0 9 label Hall" in house.app.sync()


def messages(kind="pin"):
    """The three actions that leave the house."""
    return (
        {"type": "NOTIFY", "message": "push /pin/!"},
        {"type": "MAIL", "subject": "subject /pin/", "message": "mail /pin/, /pin/"},
        {"type": "TWIT", "message": "tweet /pin/"},
    )


def outside(mailbox, web_hook):
    """Settings of a server whose pushes, tweets and mails arrive at the test's own servers."""
    return {
        **mailbox.settings,
        "push_ntfy_url": web_hook.url,
        "push_ntfy_topic": "home",
        "twitter_mastodon_url": web_hook.url,
        "twitter_mastodon_token": "t",
    }


SERVICES = (widget("NOTIFICATION", 80), widget("EMAIL", 81, to="me@example.com"), widget("TWITTER", 82))


def arrived(web_hook, count=2):
    return {r.path: r.text for r in (web_hook.next() for _ in range(count))}


def test_a_rule_pushes_mails_and_tweets_with_the_value_in_it(make_server, mailbox, web_hook):
    server = make_server(**outside(mailbox, web_hook))
    home = Home(server, *SERVICES, eventor(rule(1, "GT", *messages(), value=5)))
    hw = home.hardware()
    hw.send("vw", 1, "6")
    assert arrived(web_hook) == {"/home": "push 6!", "/api/v1/statuses": "status=tweet%206"}
    mail = mailbox.next_to("me@example.com")
    assert (mail["Subject"], mail.get_content().strip()) == ("subject /pin/", "mail 6, 6")
    assert mail.get_content_type() == "text/plain"


def test_a_value_with_signs_is_put_into_the_message_as_it_is(make_server, web_hook):
    server = make_server(push_ntfy_url=web_hook.url + "/direct")
    home = Home(server, widget("NOTIFICATION", 80), eventor(rule(1, "CHANGED", messages()[0])))
    hw = home.hardware()
    hw.send("vw", 1, r"$1 \0 °C")
    assert web_hook.next().text == r"push $1 \0 °C!"


def test_beyond_the_daily_limit_mails_are_dropped_and_the_other_actions_run(make_server, mailbox):
    server = make_server(**mailbox.settings, notifications_mails_per_day=1)
    home = Home(server, eventor(rule(1, "CHANGED", messages()[1], setpin(2, "on"))))
    hw = home.hardware()
    for n in range(4):
        hw.send("vw", 1, n)
        hw.expect("vw 2 on", id=888)
    assert [mailbox.next_to(home.email).get_content().strip() for _ in range(3)][1:] == ["mail 0, 0", "mail 1, 1"]
    hw.silence()
    assert mailbox.empty()
    log = server.get(f"/{home.tokens[0]}/notifications").json()
    assert [entry["result"] for entry in log][-2:] == ["daily limit reached"] * 2 or "daily" in str(log)


# ---------------------------------------------------------------------------------------------------------------
# Webhooks
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hooked(make_server, web_hook):
    """make(*widgets, **settings): a Home on a server that calls as often as it likes."""

    def make(*widgets, **settings):
        settings.setdefault("webhooks_min_interval_ms", 0)
        home = Home(make_server(**settings), *widgets)
        home.hw = home.hardware()
        return home

    return make


def test_the_answer_of_a_webhook_goes_to_the_board_only(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/x?v=/pin/"))
    web_hook.answers(200, "dänke")
    home.hw.send("vw 1 5")
    home.app.expect("1-0 vw 1 5")
    call = web_hook.next()
    assert (call.method, call.path, call.body) == ("GET", "/x?v=5", b"")
    assert "user-agent" not in call.headers
    home.hw.expect("vw 1 dänke", id=888)
    home.app.silence()
    assert "1-0 vw 1 5" in home.app.sync()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_body_is_sent_when_its_type_is_given(hooked, web_hook, method):
    headers = [{"name": "Content-Type", "value": "application/json"}, {"name": "X-Key", "value": "/pin/"}]
    document = hook(1, web_hook.url + "/a", method=method, headers=headers, body='{"v":"/pin/"}')
    home = hooked(document, {**document, "id": 72, "pin": 2, "headers": [{"name": "X-Key", "value": "b"}]})
    home.hw.send("vw 1 5")
    call = web_hook.next()
    assert (call.method, call.text) == (method, '{"v":"5"}')
    assert (call.headers["content-type"], call.headers["x-key"]) == ("application/json", "/pin/")
    home.hw.send("vw 2 5")
    assert web_hook.next().body == b""


def test_every_placeholder_is_replaced_everywhere(hooked, web_hook):
    body = "/pin[0]/-/pin[1]/-/pin[0]/-/pin[2]/ %s /datetime_iso/ device_owner_email {DEVICE_OWNER_EMAIL}"
    headers = [{"name": "Content-Type", "value": "text/plain"}]
    home = hooked(
        hook(1, web_hook.url + "/a b/%s?/pin[1]/&/pin[7]/&%41%zz&ü", method="POST", headers=headers, body=body)
    )
    home.hw.send(b"vw\x001\x00x y\x00\xc3\xa4")
    call = web_hook.next()
    assert call.path == "/a%20b/x%20y%00%C3%A4?%C3%A4&/pin%5B7%5D/&%41%25zz&%C3%BC"
    start, stamp, *emails = call.text.rsplit(" ", 3)
    assert start == "x y-ä-x y-/pin[2]/ x y\0ä"
    assert datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ")
    assert emails == [home.email, home.email]
    assert call.headers["content-type"].lower() == "text/plain; charset=utf-8"


def test_headers_that_would_break_the_request_are_left_out(hooked, web_hook):
    pairs = [
        ("Content-Length", "999"),
        ("Transfer-Encoding", "chunked"),
        ("A b", "c"),
        ("X", "a\r\nEvil: 1"),
        ("Y", "ok"),
    ]
    headers = [{"name": name, "value": value} for name, value in pairs]
    home = hooked(hook(1, web_hook.url, method="POST", headers=headers))
    home.hw.send("vw 1 5")
    call = web_hook.next()
    assert call.headers["content-length"] == "0"
    assert not {"transfer-encoding", "a b", "x", "evil"} & set(call.headers)
    assert call.headers["y"] == "ok"


def test_each_connection_may_call_once_in_the_interval(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/{}".format("/pin/")), webhooks_min_interval_ms=3_600_000)
    other = home.hardware()
    for board, value in ((home.hw, "1"), (home.hw, "2"), (other, "3"), (other, "4")):
        board.send("vw", 1, value)
        board.ping()
    home.app.send("1-0 vw 1 5")
    home.app.send("1-0 vw 1 6")
    home.app.ping()
    assert sorted(web_hook.next().path[-1] for _ in range(3)) == ["1", "3", "5"]
    assert web_hook.empty()


def test_a_webhook_that_keeps_failing_is_off_until_it_is_saved(hooked, web_hook):
    document = hook(1, web_hook.url + "/%s")
    home = hooked(document, webhooks_max_failures=2)
    home.hw.send("vw 1 1")
    web_hook.next()
    web_hook.answers(500)
    for value in (2, 3):
        home.hw.send("vw", 1, value)
        web_hook.next()
    until(lambda: "off until it is saved" in home.server.log(), what="the end of the webhook")
    home.hw.send("vw 1 4")
    home.hw.ping()
    web_hook.answers(200)
    assert home.app.ask("UPDATE_WIDGET", 1, document) == OK
    home.hw.send("vw 1 5")
    assert web_hook.next().path == "/5"
    assert web_hook.empty()


def test_a_good_answer_clears_the_failures(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/%s"), webhooks_max_failures=2)
    for value, status in enumerate((500, 200, 500, 204, 500, 302, 500, 201, 404, 202)):
        web_hook.answers(status, b"" if status == 204 else b"x")
        home.hw.send("vw", 1, value)
        assert web_hook.next().path == f"/{value}"
        if 200 <= status < 400 and status != 204:
            home.hw.expect("vw 1 x", id=888)


def test_redirects_are_not_followed(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/from"))
    web_hook.answers(302, "moved", Location=web_hook.url + "/to")
    home.hw.send("vw 1 1")
    assert web_hook.next().path == "/from"
    home.hw.expect("vw 1 moved", id=888)
    assert web_hook.empty()


def test_too_long_an_answer_is_dropped(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/%s"), webhooks_max_response_kb=1)
    web_hook.answers(200, "x" * 1025)
    home.hw.send("vw 1 1")
    web_hook.next()
    web_hook.answers(200, "fits")
    home.hw.send("vw 1 2")
    home.hw.expect("vw 1 fits", id=888)
    home.hw.silence()


def test_what_the_board_cannot_hold_is_not_sent(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/%s"))
    home.hw.command("BLYNK_INTERNAL", "ver 1 buff-in 20")
    web_hook.answers(200, "x" * 30)
    home.hw.send("vw 1 1")
    web_hook.next()
    web_hook.answers(200, "short")
    home.hw.send("vw 1 2")
    home.hw.expect("vw 1 short", id=888)


def test_a_stopped_project_calls_and_http_writes_do_not(hooked, web_hook):
    home = hooked(hook(1, web_hook.url + "/%s"))
    assert home.app.ask("DEACTIVATE_DASHBOARD", 1) == OK
    assert home.server.get(f"/{home.tokens[0]}/update/V1?value=9").status == 200
    home.hw.expect("vw 1 9", id=111)
    home.hw.send("vw 1 1")
    assert web_hook.next().path == "/1"
    assert web_hook.empty()


@pytest.mark.parametrize(
    "url", ["", "ftp://127.0.0.1/", "httpx", "http://", "http://127.0.0.1:0/", "http://[::1", "/pin/"]
)
def test_a_bad_url_is_not_called(hooked, url):
    home = hooked(hook(1, url))
    home.hw.send("vw 1 1")
    home.app.expect("1-0 vw 1 1")
    home.hw.silence()


def test_private_addresses_can_be_forbidden(hooked, web_hook):
    home = hooked(
        hook(1, web_hook.url),
        hook(2, web_hook.url.replace("127.0.0.1", "localhost"), id=72),
        hook(3, web_hook.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"), id=73),
        hook(4, web_hook.url.replace("127.0.0.1", "2130706433"), id=74),
        webhooks_private_networks=False,
        log_level="debug",
    )
    for pin in (1, 2, 3, 4):
        home.hw.send("vw", pin, 1)
    until(lambda: home.server.log().count("webhook of project 1: webhooks may not call") == 4, what="four refusals")
    assert web_hook.empty()


def test_metadata_addresses_and_the_own_administration_are_never_called(hooked):
    home = hooked(log_level="debug")
    port, tls = home.server.http_port, home.server.https_port
    urls = [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://0.0.0.0:1/",
        "http://[::ffff:169.254.169.254]/",
        f"http://127.0.0.1:{port}/admin/users",
        f"https://127.0.0.2:{tls}/%61dmin/users",
        f"https://127.0.0.1:{tls}/x/..//ADMIN",
        f"http://localhost:{port}/metrics",
    ]
    for n, url in enumerate(urls):
        home.add(hook(n, url, id=200 + n))
        home.hw.send("vw", n, 1)
    until(lambda: home.server.log().count("webhooks may not call") == len(urls), what="all refusals")


def test_what_this_server_serves_to_everybody_may_be_called(hooked):
    home = hooked()
    home.add(hook(1, f"http://127.0.0.1:{home.server.http_port}/health"))
    home.hw.send("vw 1 1")
    frame = home.hw.take(lambda f: f.id == 888)
    assert "status" in frame.text


# ---------------------------------------------------------------------------------------------------------------
# Nothing waits for a dead server
# ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tar_pit():
    """A port that accepts and never says a word; gives (port, list of the sockets that came)."""
    came, pit = [], socket.create_server(("127.0.0.1", 0))

    def accept():
        with contextlib.suppress(OSError):
            while True:
                came.append(pit.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield pit.getsockname()[1], came
    finally:
        pit.close()
        for sock in came:
            sock.close()


def test_while_every_network_worker_hangs_values_logins_and_the_disk_go_on(make_server):
    with tar_pit() as (mute, came):
        server = make_server(
            mail_host="127.0.0.1", mail_port=mute, mail_auth=False, mail_security="none", webhooks_min_interval_ms=0
        )  # fmt: skip
        home = Home(server, eventor(rule(1, "CHANGED", messages()[1])), hook(2, f"http://127.0.0.1:{mute}/"))
        hw = home.hardware()
        for n in range(20):  # the greeting holds one worker, the webhook the other
            hw.send("vw", 1, n)
            hw.send("vw", 2, n)
        until(lambda: len(came) >= 2, what="both workers stuck")
        slowest = 0
        for n in range(200):
            began = time.monotonic()
            hw.send("vw", 3, n)
            home.app.expect(f"1-0 vw 3 {n}")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2, "a value waited"
        server.app().close()  # registers and logs in: two password hashes
        until(lambda: on_disk(server, b'"v3","199"'), what="the value on the disk")
        assert len(came) == 2
        server.stop()  # nor does the end


def test_a_dead_mail_server_holds_up_mails_only(make_server, web_hook):
    with tar_pit() as (mute, came):
        server = make_server(
            mail_host="127.0.0.1", mail_port=mute, mail_auth=False, mail_security="none", push_ntfy_url=web_hook.url
        )  # fmt: skip
        home = Home(server, widget("NOTIFICATION", 80), eventor(rule(1, "CHANGED", messages()[1], messages()[0])))
        hw = home.hardware()
        for n in range(5):
            hw.send("vw", 1, n)
        assert [web_hook.next().text for _ in range(5)] == [f"push {n}!" for n in range(5)]
        assert len(came) == 1


# ---------------------------------------------------------------------------------------------------------------
# Timers in the real process
# ---------------------------------------------------------------------------------------------------------------


def test_a_timer_writes_to_the_devices_of_its_target_and_wakes_no_rule(house):
    app = house.app
    app.json("CREATE_TAG", 1, {"id": 100000, "name": "Both", "deviceIds": [0, 1]})
    app.add_widget(1, eventor(rule(5, "STR_EQUAL", setpin(9, "never"), value="on")))
    one = house.hardware(0)
    at = second_of_day(2)
    app.add_widget(1, widget("TIMER", 8, 5, device=100000, startTime=at, startValue="on"))
    one.expect("vw 5 on", id=7777)
    app.expect("1-0 vw 5 on", id=7777)
    app.expect("1-1 vw 5 on", id=7777)
    assert {"1-0 vw 5 on", "1-1 vw 5 on"} <= set(app.sync())
    one.silence()


def test_a_timer_in_a_tile_template_reaches_the_tiles_devices(house):
    app = house.app
    app.add_widget(1, widget("DEVICE_TILES", 6))
    timer = widget("TIMER", 61, 5, startTime=second_of_day(3), startValue="on")
    template = {
        "id": 1, "mode": "PAGE", "name": "T", "deviceIds": [1], "pin": stream(20), "widgets": [timer],
    }  # fmt: skip
    assert app.ask("CREATE_TILE_TEMPLATE", 1, 6, template) == OK
    two = house.hardware(1)
    two.expect("vw 5 on", id=7777)
    app.expect("1-1 vw 5 on", id=7777)
    app.silence()


def test_a_time_rule_does_all_that_a_pin_rule_does(make_server, mailbox, web_hook):
    server = make_server(**outside(mailbox, web_hook))
    home = Home(server, *SERVICES, widget("BUTTON", 5, 6))
    hw = home.hardware()
    property_action = {"type": "SET_PROP", "pin": stream(6), "property": "LABEL", "value": "Night"}
    home.add(eventor(time_rule(second_of_day(2), setpin(2, "on"), property_action, *messages())))
    hw.expect("vw 2 on", id=7777)
    home.app.expect("1-0 vw 2 on", id=7777)
    home.app.expect("1-0 6 label Night", "SET_WIDGET_PROPERTY", id=7777)
    assert arrived(web_hook) == {"/home": "push /pin/!", "/api/v1/statuses": "status=tweet%20%2Fpin%2F"}
    assert mailbox.next_to("me@example.com").get_content().strip() == "mail /pin/, /pin/"


def test_a_deleted_timer_is_silent_and_a_changed_one_has_its_new_time(house):
    app, hw = house.app, house.hardware()
    app.add_widget(1, widget("TIMER", 8, 5, startTime=second_of_day(2), startValue="gone"))
    app.add_widget(1, widget("TIMER", 9, 6, startTime=second_of_day(2), startValue="old"))
    assert app.ask("DELETE_WIDGET", 1, 8) == OK
    moved = widget("TIMER", 9, 6, startTime=second_of_day(4), startValue="new")
    assert app.ask("UPDATE_WIDGET", 1, moved) == OK
    hw.expect("vw 6 new", id=7777)
    hw.silence()


# ---------------------------------------------------------------------------------------------------------------
# Reading widgets
# ---------------------------------------------------------------------------------------------------------------


def test_each_device_of_a_tag_is_asked_and_each_tile_once_a_second(house):
    app = house.app
    app.json("CREATE_TAG", 1, {"id": 100000, "name": "Both", "deviceIds": [0, 1]})
    app.add_widget(1, widget("GAUGE", 5, 7, device=100000, frequency=60000))
    app.add_widget(1, widget("DEVICE_TILES", 6))
    inner = widget("LABELED_VALUE_DISPLAY", 61, 8, frequency=60000), widget("SLIDER", 62, 9, frequency=1000)
    template = {"id": 1, "mode": "PAGE", "name": "T", "deviceIds": [1], "pin": stream(20), "widgets": list(inner)}
    assert app.ask("CREATE_TILE_TEMPLATE", 1, 6, template) == OK
    one, two = house.hardware(0), house.hardware(1)
    one.expect("vr 7", id=7778)
    two.expect("vr 7", id=7778)
    for _ in range(2):
        two.expect("vr 8", id=7778)
    one.silence()
    assert not [f for f in two.drain() if f.text != "vr 8"]


def test_nobody_is_asked_without_an_app_unless_the_settings_say_so(make_server):
    server = make_server(reading_without_app=True)
    home = Home(server, widget("GAUGE", 5, 7, frequency=1000))
    hw = home.hardware()
    home.app.close()
    for _ in range(3):
        hw.expect("vr 7", id=7778)


def test_asking_starts_with_the_app_and_stops_with_the_project(house):
    house.app.add_widget(1, widget("GAUGE", 5, 7, frequency=1000))
    hw = house.hardware()
    hw.expect("vr 7", id=7778)
    assert house.app.ask("DEACTIVATE_DASHBOARD", 1) == OK
    hw.drain()
    hw.quiet(1.2)
    house.app.activate()
    hw.expect("vr 7", id=7778)
    house.app.close()
    until(lambda: not house.server.get(f"/{house.tokens[0]}/isAppConnected").json(), what="the app gone")
    hw.drain()
    hw.quiet(1.2)
    house.second_app()
    hw.expect("vr 7", id=7778)


# ---------------------------------------------------------------------------------------------------------------
# Devices that go offline
# ---------------------------------------------------------------------------------------------------------------


def offline_home(make_server, web_hook, **fields):
    server = make_server(push_ntfy_url=web_hook.url, push_offline_body="{DEVICE_NAME} is gone.")
    return Home(server, widget("NOTIFICATION", 80, notifyWhenOffline=True, **fields))


def test_a_device_that_stays_away_is_told_by_push(make_server, web_hook):
    home = offline_home(make_server, web_hook)
    home.hardware().close()
    home.app.expect("1-0", "DEVICE_OFFLINE", id=0)
    assert web_hook.next().text == "Board 0 is gone."


def test_with_a_grace_period_a_device_that_comes_back_is_not_told(make_server, web_hook):
    home = offline_home(make_server, web_hook, notifyWhenOfflineIgnorePeriod=600)
    for _ in range(3):  # it flaps: only the last time counts
        home.hardware().close()
    hw = home.hardware()
    home.app.quiet(0.9)
    hw.close()
    home.app.expect("1-0", "DEVICE_OFFLINE", id=0)
    assert web_hook.next().text == "Board 0 is gone."
    home.app.silence()
    assert web_hook.empty()


def test_the_push_is_sent_though_the_project_wants_no_notices(make_server, web_hook):
    home = offline_home(make_server, web_hook)
    settings = {"name": "Project 1", "isNotificationsOff": True}
    assert home.app.ask("UPDATE_PROJECT_SETTINGS", 1, settings) == OK
    home.hardware().close()
    assert web_hook.next().text == "Board 0 is gone."
    home.app.silence()


def test_stopping_the_server_pushes_nothing(make_server, web_hook):
    home = offline_home(make_server, web_hook)
    board = home.hardware()
    home.server.stop()
    board.close()
    assert web_hook.empty()


def test_a_stopped_project_tells_nobody(make_server, web_hook):
    home = offline_home(make_server, web_hook)
    hw = home.hardware()
    assert home.app.ask("DEACTIVATE_DASHBOARD", 1) == OK
    hw.close()
    until(lambda: home.app.device()["status"] == "OFFLINE", what="offline")
    home.app.silence()
    assert web_hook.empty()


# ---------------------------------------------------------------------------------------------------------------
# False clocks
# ---------------------------------------------------------------------------------------------------------------

DAY, HOUR, MINUTE = 86_400_000, 3_600_000, 60_000


def moment(text):
    """Milliseconds of a UTC time such as "2027-03-28 05:30"."""
    return int(datetime.datetime.fromisoformat(text + "+00:00").timestamp() * 1000)


def of_day(text):
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


class TimeMachine:
    """A real Server without ports on a loop whose clocks the test moves. fired: (wall ms, pin, value) of each write."""

    def __init__(self, folder, start, clock=None):
        self.folder, self.clock, self.fired = str(folder), clock or Clock(moment(start)), []
        self.clocked = 0
        self.start()

    def start(self):
        settings = blynk_pi.Settings()
        settings.data_folder, settings.discovery_mode = self.folder, "off"
        clock = self.clock
        self.loop = blynk_pi.Loop(monotonic=lambda: clock.seconds, wall=lambda: clock.ms / 1000)
        self.server = blynk_pi.Server(settings, self.loop)
        self.server.store.open()
        self.server.load()
        self.server.store.start()
        self.server.automation.start()
        self.account = self.server.account("a@example.com", "Blynk")
        if self.account is None:
            self.account = self.server.new_account("a@example.com", "Blynk", "x")
        self.watch()

    def watch(self):
        if not self.account.apps:
            session = blynk_pi.AppSession(self.server, Screen(self))
            session.account = self.account
            self.account.apps.append(session)

    def project(self, *widgets):
        document = {"id": 1, "isActive": True, "devices": [{"id": 0, "boardType": "ESP8266"}], "widgets": list(widgets)}
        return self.server.add_project(self.account, blynk_pi.read_document("PROJECT", document))

    @property
    def rules(self):
        return self.account.projects[1].find("EVENTOR")["rules"]

    def now(self):
        return self.clock.ms

    def until(self, text):
        """Lets time pass as it does for a process that sleeps until its loop has something to do."""
        end, turns = moment(text), 0
        while self.clock.ms < end:
            nap = min(self.loop._timeout(), (end - self.clock.ms) / 1000)
            self.clock.pass_by(max(1, round(nap * 1000)))
            self.loop.run_once(0)
            turns += 1
        return turns

    def set_to(self, text):
        """Somebody sets the clock."""
        self.clock.set_to(moment(text))

    def settle(self):
        """What has happened is on the disk."""
        saved = []
        self.server.store.when_saved(lambda: saved.append(1))
        until(lambda: self.loop.run_once(0.01) or saved, what="the save")

    def stop(self):
        self.loop.run_once(0)
        self.server.store.close()
        self.loop.close()

    def kill(self):
        """The process is gone; the disk has what was written."""
        self.settle()
        self.server.store.lock.release()
        self.loop.close()

    def times(self):
        return [
            datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).strftime("%m-%d %H:%M:%S")
            for ms, _ in self.fired
        ]


class Screen:
    """The far end of an app's connection: notes when which write was shown."""

    congested = closing = closed = False
    peer = "screen"

    def __init__(self, machine):
        self.machine = machine

    def set_idle(self, _seconds):
        pass

    def write(self, data):
        if data[0] == 20:
            self.machine.fired.append((self.machine.clock.ms, data[7:].decode().replace("\0", " ")))


@pytest.fixture
def machine(folder):
    made = []

    def make(start, *widgets):
        machine = TimeMachine(folder, start)
        made.append(machine)
        if widgets:
            machine.project(*widgets)
        return machine

    yield make
    for machine in made:
        machine.loop.close() if machine.loop.selector.get_map() is not None else None


def berlin(text, *days):
    return eventor(time_rule(of_day(text), setpin(1, "on"), days=days or range(1, 8), zone="Europe/Berlin"))


def test_a_time_rule_keeps_its_local_time_when_summer_comes(machine):
    m = machine("2027-03-27 06:00", berlin("06:30"))  # 07:30 in winter
    m.until("2027-03-30 12:00")
    assert m.times() == ["03-27 06:30:00", "03-28 05:30:00", "03-29 05:30:00", "03-30 05:30:00"]
    assert m.rules[0]["triggerTime"]["time"] == of_day("05:30"), "apps read the document as of today"
    m.stop()


def test_and_when_winter_comes_also_over_a_restart(machine):
    m = machine("2027-10-30 05:00", berlin("05:30"))  # 07:30 in summer
    m.until("2027-10-30 12:00")
    m.stop()
    m.clock.pass_by(DAY)
    m.start()
    m.until("2027-11-01 12:00")
    assert m.times() == ["10-30 05:30:00", "11-01 06:30:00"]
    assert m.rules[0]["triggerTime"]["time"] == of_day("06:30")
    m.stop()


def test_a_rule_that_is_saved_again_means_what_the_app_shows(machine):
    m = machine("2027-03-26 12:00", berlin("06:30", 1, 5))  # Mondays and Fridays at 07:30
    stale = dict(m.rules[0]["triggerTime"])
    m.until("2027-03-28 12:00")  # summer has come, the rule has not run since
    shown = m.rules[0]["triggerTime"]
    assert (shown["time"], shown["savedOffset"]) == (of_day("05:30"), 7200)
    project = m.account.projects[1]

    def save(**trigger):
        new = time_rule(0, setpin(1, "on"), days=(1, 5), zone="Europe/Berlin")
        new["triggerTime"].update(trigger)
        project.document["widgets"] = [blynk_pi.read_document("WIDGET", eventor(new))]
        project.changed()
        return m.rules[0]["triggerTime"]["time"]

    for trigger in (dict(shown), stale):  # as it is, or from a page that has been open since winter
        project.find("EVENTOR")["rules"] = [{**m.rules[0], "triggerTime": dict(shown)}]
        project.changed()
        assert save(**trigger) == of_day("05:30")
    assert save(time=of_day("06:00")) == of_day("06:00")  # a phone drops the field
    assert save(**{**stale, "time": of_day("09:15")}) == of_day("09:15")  # edited: today's offset
    m.until("2027-03-30 00:00")
    assert m.times() == ["03-29 09:15:00"]
    m.stop()


def test_a_local_time_that_the_clock_leaps_over_comes_once(machine):
    m = machine("2027-03-27 00:00", berlin("01:30"))  # 02:30; on the 28th the clock goes from 02:00 to 03:00
    m.until("2027-03-29 12:00")
    assert m.times() == ["03-27 01:30:00", "03-28 01:30:00", "03-29 00:30:00"]
    m.stop()


def test_a_local_time_that_comes_twice_counts_once(machine):
    m = machine("2027-10-30 00:00", berlin("00:30"))  # 02:30; on the 31st the clock goes from 03:00 back to 02:00
    m.until("2027-11-01 12:00")
    assert m.times() == ["10-30 00:30:00", "10-31 00:30:00", "11-01 01:30:00"]
    m.stop()


def test_the_day_of_the_week_is_that_of_the_zone(machine):
    rule_ = time_rule(of_day("22:30"), setpin(1, "on"), days=[1], zone="Asia/Tokyo")  # 07:30 there, the next day
    m = machine("2027-06-05 00:00", eventor(rule_))
    m.until("2027-06-15 00:00")
    assert m.times() == ["06-06 22:30:00", "06-13 22:30:00"]  # Sundays in UTC, Mondays in Tokyo
    m.stop()


def test_the_leap_day_is_a_day(machine):
    timer = widget("TIMER", 8, 5, startTime=of_day("12:00"), startValue="on")
    m = machine("2028-02-27 13:00", timer, berlin("11:00", 2))  # Tuesday the 29th
    m.until("2028-03-02 00:00")
    assert m.times() == ["02-28 12:00:00", "02-29 11:00:00", "02-29 12:00:00", "03-01 12:00:00"]
    m.stop()


def noon(**fields):
    return widget("TIMER", 8, 5, startTime=of_day("12:00"), startValue="on", **fields)


def test_a_small_step_of_the_clock_loses_nothing_and_doubles_nothing(machine):
    m = machine("2027-06-01 11:59", noon())
    m.until("2027-06-01 11:59:58")
    m.set_to("2027-06-01 12:00:04")
    m.until("2027-06-01 12:01")
    m.set_to("2027-06-01 11:59:30")
    m.until("2027-06-02 12:30")
    assert len(m.fired) == 2
    assert m.times()[1] == "06-02 12:00:00"
    m.stop()


def test_what_a_leap_of_the_clock_skips_is_lost_and_the_next_day_comes(machine):
    m = machine("2027-06-01 11:00", noon())
    m.until("2027-06-01 11:30")
    m.set_to("2027-06-01 15:00")
    m.until("2027-06-02 12:30")
    assert m.times() == ["06-02 12:00:00"]
    m.stop()


def test_an_hour_set_back_runs_nothing_twice(machine):
    m = machine("2027-06-01 11:59", noon())
    m.until("2027-06-01 12:30")
    m.set_to("2027-06-01 11:30")
    m.until("2027-06-02 12:30")
    assert m.times() == ["06-01 12:00:00", "06-02 12:00:00"]
    m.stop()


def test_a_clock_that_was_years_ahead_does_not_silence_the_timers(machine):
    m = machine("2036-01-01 11:00", noon())
    m.until("2036-01-01 11:30")
    m.set_to("2027-06-01 11:00")  # the network is up
    m.until("2027-06-01 12:30")
    assert m.times() == ["06-01 12:00:00"]
    m.stop()


def test_a_clock_that_was_years_behind_does_not_fire_all_that_was_skipped(machine):
    m = machine("2020-01-01 00:00", noon())
    m.until("2020-01-01 00:01")
    m.set_to("2027-06-01 11:00")
    m.until("2027-06-01 12:30")
    assert m.times() == ["06-01 12:00:00"]
    m.stop()


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("gone", ["11:59:58", "12:00:01"])
def test_a_restart_around_the_moment_fires_once(machine, end, gone):
    m = machine("2027-06-01 11:59", noon())
    m.until(f"2027-06-01 {gone}")
    getattr(m, end)()
    m.clock.pass_by(5000)
    m.start()
    m.until("2027-06-01 12:10")
    assert len(m.fired) == 1
    m.until("2027-06-02 12:10")
    assert len(m.fired) == 2
    m.stop()


def test_what_was_due_while_the_server_was_off_for_longer_is_lost(machine):
    m = machine("2027-06-01 11:59", noon())
    m.until("2027-06-01 11:59:30")
    m.stop()
    m.clock.pass_by(60_000)
    m.start()
    m.until("2027-06-01 13:00")
    assert m.fired == []
    m.stop()


def test_an_edit_of_the_project_neither_loses_nor_doubles_a_timer(machine):
    m = machine("2027-06-01 11:59", noon(), berlin("12:00"))
    project = m.account.projects[1]
    for text in ("11:59:59", "12:00:00", "12:00:01", "12:00:05"):
        m.until(f"2027-06-01 {text}")
        project.changed()
        m.loop.run_once(0)
    assert sorted(text for _, text in m.fired) == ["1-0 vw 1 on", "1-0 vw 5 on"]
    m.stop()


def test_a_timer_made_just_after_its_second_waits_for_tomorrow(machine):
    m = machine("2027-06-01 12:00:05", noon())
    m.until("2027-06-01 13:00")
    assert m.fired == []
    m.stop()


def test_ten_thousand_timers_wake_the_loop_no_more_than_ten(machine, folder):
    def turns(count):
        path = os.path.join(folder, str(count))
        os.mkdir(path)
        m = TimeMachine(path, "2027-06-01 12:00")
        timers = [
            widget("TIMER", n, n % 256, startTime=of_day("13:00") + n % 3600, startValue="on") for n in range(count)
        ]
        m.project(*timers)
        m.settle()
        m.loop.run_once(0)
        naps = m.until("2027-06-01 12:30")
        fired = len(m.fired)
        pushed = m.server.automation.sequence
        m.until("2027-06-01 14:00:01")
        assert len(m.fired) == count
        assert (fired, pushed) == (0, count)
        m.stop()
        return naps

    assert turns(10_000) == turns(10)


def test_an_alarm_of_an_unknown_zone_is_one_of_utc(machine):
    m = machine("2027-06-01 11:00", eventor(time_rule(of_day("12:00"), setpin(1, "on"), zone="Mars/Olympus")))
    m.until("2027-06-01 12:30")
    assert m.times() == ["06-01 12:00:00"]
    m.stop()


def test_a_removed_project_fires_no_more(machine):
    m = machine("2027-06-01 11:00", noon())
    gone = []
    m.server.remove_project(m.account.projects[1], gone.append)
    until(lambda: m.loop.run_once(0.01) or gone, what="the removal")
    m.until("2027-06-01 12:30")
    assert m.fired == []
    assert m.server.automation.heap == []
    m.stop()
