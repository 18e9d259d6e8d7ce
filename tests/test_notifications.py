"""Messages that boards send (spec 02 §6–9) and what the app asks to be mailed (03a §2.9, 03b §7): the order of the
checks, the answers, who gets what. The receiving ends are real SMTP and HTTP servers of the test."""

import re

import pytest
from clients import (
    ILLEGAL_COMMAND,
    ILLEGAL_COMMAND_BODY,
    NO_ACTIVE_DASHBOARD,
    NOT_ALLOWED,
    NOTIFICATION_ERROR,
    NOTIFICATION_INVALID_BODY,
    NOTIFICATION_NOT_AUTHORIZED,
    OK,
    QUOTA_LIMIT,
    SERVER_ERROR,
    USER_NOT_AUTHENTICATED,
    AppWebSocket,
    new_email,
    password_hash,
    until,
    widget,
)
from servers import HOST, free_ports

FAST = {"notifications_min_interval_s": 0}
NOTIFICATION = widget("NOTIFICATION", 80)


class Flat:
    """An account with an active project of one device on a server of the test's own."""

    def __init__(self, server, *widgets):
        self.server, self.app = server, server.app()
        self.email = self.app.email
        self.app.make_project(1, widgets=widgets)
        self.token = self.app.token()
        self.hw = server.hardware(self.token)
        self.app.expect("1-0", "HARDWARE_CONNECTED")

    def browser(self, os="Web"):
        tab = AppWebSocket(HOST, self.server.http_port, tls=False)
        assert tab.login(self.email, os=os) == OK
        return tab

    def log(self):
        return self.server.get(f"/{self.token}/notifications").json()


@pytest.fixture
def flat(make_server):
    def make(*widgets, **settings):
        return Flat(make_server(**{**FAST, **settings}), *widgets)

    return make


# ---------------------------------------------------------------------------------------------------------------
# Mail
# ---------------------------------------------------------------------------------------------------------------


def test_the_checks_of_a_mail_come_in_order(flat, mailbox):
    home = flat(**{**mailbox.settings, "notifications_min_interval_s": 3600})
    hw, app = home.hw, home.app
    assert hw.ask("EMAIL") == NOT_ALLOWED  # no widget
    app.add_widget(1, widget("EMAIL", 81))
    app.ask("DEACTIVATE_DASHBOARD", 1)
    assert hw.ask("EMAIL", "a@example.com", "s", "t") == NOT_ALLOWED
    app.activate()
    assert hw.ask("EMAIL") == ILLEGAL_COMMAND
    assert hw.ask("EMAIL", b"only a subject") == ILLEGAL_COMMAND
    assert hw.ask("EMAIL", "not an address", "s", "t") == ILLEGAL_COMMAND  # the clock has started all the same
    assert hw.ask("EMAIL", "s", "t") == QUOTA_LIMIT
    other = home.server.hardware(home.token)  # each connection has a clock of its own
    assert other.ask("EMAIL", "s", "t") == OK
    assert mailbox.next_to(home.email)["Subject"] == "Get started with Blynk"
    assert mailbox.next_to(home.email)["Subject"] == "s"


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_two_or_four_parts_go_to_the_owner_three_to_whom_they_name(flat, mailbox, parts):
    home = flat(widget("EMAIL", 81, contentType="TEXT_PLAIN"), **mailbox.settings)
    fields = {2: ("s", "t"), 3: ("to@example.com", "s", "t"), 4: ("s", "t", "x", "y")}[parts]
    assert home.hw.ask("EMAIL", *fields) == OK
    mail = mailbox.next_to("to@example.com" if parts == 3 else home.email)
    while mail["Subject"] != "s":
        mail = mailbox.next_to(home.email)
    assert (mail.get_content_type(), mail.get_content().strip()) == ("text/plain", "t")
    assert mail["From"] == "server@example.com"


def test_the_widgets_receiver_wins_and_placeholders_are_filled(flat, mailbox):
    home = flat(widget("EMAIL", 81, to="boss@example.com"), **mailbox.settings, server_vendor_email="v@example.com")
    assert (
        home.hw.ask("EMAIL", "x@example.com", "{DEVICE_NAME} ünd", "<b>{VENDOR_EMAIL} {DEVICE_OWNER_EMAIL}</b>") == OK
    )
    mail = mailbox.next_to("boss@example.com")
    assert mail["Subject"] == "Board 0 ünd"
    assert (mail.get_content_type(), mail.get_content().strip()) == ("text/html", f"<b>v@example.com {home.email}</b>")
    assert home.app.ask("UPDATE_WIDGET", 1, widget("EMAIL", 81)) == OK
    assert home.hw.ask("EMAIL", "{VENDOR_EMAIL}", "s", "t") == OK
    assert mailbox.next_to("v@example.com")["Subject"] == "s"


@pytest.mark.parametrize(
    "address", ["a@b.c,d@e.f", "a b@example.com", "a?@example.com", "a@example.com\r\nBcc: x@y.z", "@"]
)
def test_only_single_addresses_are_taken(flat, mailbox, address):
    home = flat(widget("EMAIL", 81), **mailbox.settings)
    assert home.hw.ask("EMAIL", address, "s", "t") == ILLEGAL_COMMAND


def test_a_subject_of_several_lines_stays_a_subject(flat, mailbox):
    home = flat(widget("EMAIL", 81), **mailbox.settings)
    assert home.hw.ask("EMAIL", "to@example.com", "a\r\nBcc: evil@example.com", "t") == OK
    mail = mailbox.next_to("to@example.com")
    assert mail["Subject"].split() == ["a", "Bcc:", "evil@example.com"]
    assert mail["Bcc"] is None
    assert mail.receivers == ["to@example.com"]


def test_the_daily_limit_lets_one_more_than_the_setting_through(flat, mailbox):
    home = flat(widget("EMAIL", 81), **mailbox.settings, notifications_mails_per_day=2)
    assert [home.hw.ask("EMAIL", "s", "t") for _ in range(4)] == [OK, OK, OK, QUOTA_LIMIT]


def test_without_a_mail_server_the_board_is_told(flat):
    home = flat(widget("EMAIL", 81))
    assert home.hw.ask("EMAIL", "s", "t") == NOTIFICATION_ERROR
    assert home.log()[-1]["result"] == "not configured"


def test_a_mail_that_is_refused_is_an_error_at_once_and_noted(flat, mailbox):
    class Grumpy:
        async def handle_RCPT(self, _server, _session, _envelope, _address, _options):
            return "550 no such user"

    mailbox.controller.handler.handle_RCPT = Grumpy().handle_RCPT
    home = flat(widget("EMAIL", 81), **mailbox.settings)
    assert home.hw.ask("EMAIL", "someone@example.com", "s", "t") == NOTIFICATION_ERROR
    entry = home.log()[-1]
    assert (entry["kind"], entry["target"]) == ("mail", "s***@example.com")
    assert "550 no such user" in entry["result"]


# ---------------------------------------------------------------------------------------------------------------
# Push
# ---------------------------------------------------------------------------------------------------------------


def test_the_checks_of_a_push_come_in_order(flat, web_hook):
    home = flat(push_server=web_hook.url + "/fcm/send", push_api_key="key", notifications_min_interval_s=3600)
    hw, app = home.hw, home.app
    assert hw.ask("PUSH_NOTIFICATION") == NOTIFICATION_INVALID_BODY
    assert hw.ask("PUSH_NOTIFICATION", b"x" * 256) == NOTIFICATION_INVALID_BODY
    app.ask("DEACTIVATE_DASHBOARD", 1)
    assert hw.ask("PUSH_NOTIFICATION", "hello") == NO_ACTIVE_DASHBOARD
    app.activate()
    assert hw.ask("PUSH_NOTIFICATION", "hello") == NOTIFICATION_NOT_AUTHORIZED
    app.add_widget(1, NOTIFICATION)
    assert hw.ask("PUSH_NOTIFICATION", "hello") == NOTIFICATION_NOT_AUTHORIZED
    assert app.ask("ADD_PUSH_TOKEN", 1, "uid", "phone") == OK
    assert hw.ask("PUSH_NOTIFICATION", b"{DEVICE_NAME}" + b"x" * 242) == OK
    assert hw.ask("PUSH_NOTIFICATION", "hello") == QUOTA_LIMIT
    assert home.server.hardware(home.token).ask("PUSH_NOTIFICATION", b"{DEVICE_NAME}" * 18 + b"x" * 21) == OK
    long_name = {"id": 0, "name": "n" * 30, "boardType": "ESP8266"}
    assert app.ask("UPDATE_DEVICE", 1, long_name) == OK
    third = home.server.hardware(home.token)
    assert third.ask("PUSH_NOTIFICATION", b"{DEVICE_NAME}" + b"x" * 240) == NOTIFICATION_INVALID_BODY
    assert third.ask("PUSH_NOTIFICATION", "hello") == QUOTA_LIMIT


def test_the_old_form_of_a_push_is_the_java_servers(flat, web_hook):
    home = flat(
        widget("NOTIFICATION", 80, androidTokens={"a": "t-a"}, iOSTokens={"i": "t-i"}, priority="high"),
        push_server=web_hook.url + "/fcm/send", push_api_key="secret", server_product_name="Home",
    )  # fmt: skip
    assert home.hw.ask("PUSH_NOTIFICATION", b"Yo {DEVICE_NAME}!") == OK
    first, second = web_hook.next(), web_hook.next()
    assert first.text == '{"to":"t-a","priority":"high","data":{"message":"Yo Board 0!","dashId":1}}'
    assert second.text == (
        '{"to":"t-i","priority":"high","notification":{"body":"Yo Board 0!","dashId":1,"sound":"default",'
        '"title":"Home Notification"}}'
    )
    assert first.headers["authorization"] == "key=secret"
    assert first.headers["content-type"] == "application/json; charset=utf-8"


def test_a_phone_that_is_not_registered_any_more_is_forgotten(flat, web_hook):
    home = flat(widget("NOTIFICATION", 80, androidTokens={"a": "t-a"}), push_server=web_hook.url)
    web_hook.answers(200, '{"failure":1,"results":[{"error":"NotRegistered"}]}')
    assert home.hw.ask("PUSH_NOTIFICATION", "x") == OK
    web_hook.next()
    until(lambda: home.hw.ask("PUSH_NOTIFICATION", "x") == NOTIFICATION_NOT_AUTHORIZED, what="the token gone")


def test_browsers_get_every_push_as_a_frame_and_phones_none(flat, web_hook):
    home = flat(NOTIFICATION)
    assert home.hw.ask("PUSH_NOTIFICATION", "nobody") == NOTIFICATION_NOT_AUTHORIZED
    tab, phone = home.browser(), home.browser("Android")
    other = home.server.app()
    assert home.hw.ask("PUSH_NOTIFICATION", "hällo") == OK
    tab.expect("hällo", "PUSH_NOTIFICATION")
    for peer in (phone, home.app, other, tab):
        peer.silence()
    assert home.log()[-1] | {"time": 0} == {"time": 0, "kind": "push", "target": "browser", "result": "sent"}


def test_ntfy_needs_no_phone(flat, web_hook):
    home = flat(
        widget("NOTIFICATION", 80, priority="high"), push_ntfy_url=web_hook.url, push_ntfy_topic="my topic",
        push_ntfy_token="tk", push_title="Würze",
    )  # fmt: skip
    assert home.hw.ask("PUSH_NOTIFICATION", "hällo") == OK
    call = web_hook.next()
    assert (call.method, call.path, call.text) == ("POST", "/my%20topic", "hällo")
    assert call.headers["authorization"] == "Bearer tk"
    assert (call.headers["priority"], call.headers["title"]) == ("high", "=?UTF-8?B?V8O8cnpl?=")


def test_a_push_gateway_that_fails_is_said_once_and_noted_each_time(flat, web_hook):
    home = flat(NOTIFICATION, push_ntfy_url=web_hook.url + "/secret-topic", push_ntfy_token="hidden")
    web_hook.answers(403)
    for _ in range(3):
        assert home.hw.ask("PUSH_NOTIFICATION", "private words") == OK
        web_hook.next()
    until(lambda: len(home.log()) == 3, what="three entries")
    assert {e["result"] for e in home.log()} == {"it answered 403"}
    text = home.server.log()
    assert text.count("ntfy: not delivered: it answered 403") == 1
    assert not [word for word in ("hidden", "private words", "secret-topic") if word in text]


def test_the_notification_log_keeps_the_last_hundred(flat, web_hook):
    home = flat(NOTIFICATION, push_ntfy_url=web_hook.url)
    for n in range(105):
        assert home.hw.ask("PUSH_NOTIFICATION", str(n)) == OK
    assert [web_hook.next().text for _ in range(105)] == [str(n) for n in range(105)]  # in order
    until(lambda: len(home.log()) == 100, what="a full log")


def test_http_notify_takes_the_same_way(flat, web_hook):
    home = flat(NOTIFICATION, push_ntfy_url=web_hook.url)
    with home.server.http() as user:
        assert user.post(f"/{home.token}/notify", {"body": "hello"}).status == 200
    assert web_hook.next().text == "hello"


# ---------------------------------------------------------------------------------------------------------------
# Tweets and SMS
# ---------------------------------------------------------------------------------------------------------------


def test_a_post_is_answered_when_it_is_out(flat, web_hook):
    home = flat(widget("TWITTER", 82), twitter_mastodon_url=web_hook.url, twitter_mastodon_token="t")
    assert home.hw.ask("TWEET") == NOTIFICATION_INVALID_BODY
    assert home.hw.ask("TWEET", b"x" * 141) == NOTIFICATION_INVALID_BODY
    web_hook.hold()
    id = home.hw.command("TWEET", b"Caf\xc3\xa9 & more")
    call = web_hook.next()
    home.hw.silence()
    web_hook.release()
    home.hw.expect_status(OK, id)
    assert (call.path, call.text, call.headers["authorization"]) == (
        "/api/v1/statuses", "status=Caf%C3%A9%20%26%20more", "Bearer t",
    )  # fmt: skip
    web_hook.answers(422)
    assert home.hw.ask("TWEET", "x") == NOTIFICATION_ERROR


def test_without_a_key_or_credentials_a_tweet_is_refused(flat):
    home = flat(widget("TWITTER", 82))
    assert home.hw.ask("TWEET", "x") == NOTIFICATION_NOT_AUTHORIZED
    home.app.ask("UPDATE_WIDGET", 1, widget("TWITTER", 82, token="a", secret="b"))
    assert home.hw.ask("TWEET", "x") == NOTIFICATION_ERROR
    home.app.ask("DEACTIVATE_DASHBOARD", 1)
    assert home.hw.ask("TWEET", "x") == NOTIFICATION_NOT_AUTHORIZED


def test_an_sms_goes_to_the_widgets_number(flat, web_hook):
    home = flat(widget("SMS", 83), sms_url=web_hook.url + "/send?to={to}&msg={text}")
    assert home.hw.ask("SMS") == NOTIFICATION_INVALID_BODY
    assert home.hw.ask("SMS", b"x" * 161) == NOTIFICATION_INVALID_BODY
    assert home.hw.ask("SMS", "x") == NOTIFICATION_NOT_AUTHORIZED
    home.app.ask("UPDATE_WIDGET", 1, widget("SMS", 83, to="+49 170 1234567"))
    assert home.hw.ask("SMS", b"too hot & w\xc3\xa4rm") == OK
    assert web_hook.next().path == "/send?to=%2B49%20170%201234567&msg=too%20hot%20%26%20w%C3%A4rm"
    until(home.log, what="an entry")
    assert home.log()[-1]["target"] == "+4***67"


def test_without_a_gateway_an_sms_is_an_error(flat):
    home = flat(widget("SMS", 83, to="1"))
    assert home.hw.ask("SMS", "x") == NOTIFICATION_ERROR


def test_each_kind_has_a_clock_of_its_own(flat, web_hook, mailbox):
    services = widget("SMS", 83, to="1"), widget("TWITTER", 82), widget("EMAIL", 81), NOTIFICATION
    home = flat(
        *services, **mailbox.settings, sms_url=web_hook.url, twitter_mastodon_url=web_hook.url,
        twitter_mastodon_token="t", push_ntfy_url=web_hook.url, notifications_min_interval_s=3600,
    )  # fmt: skip
    kinds = (("SMS", "x"), ("TWEET", "x"), ("EMAIL", "s t"), ("PUSH_NOTIFICATION", "x"))
    assert [home.hw.ask(*kind) for kind in kinds] == [OK] * 4
    assert [home.hw.ask(*kind) for kind in kinds] == [QUOTA_LIMIT] * 4


# ---------------------------------------------------------------------------------------------------------------
# Mail that the app asks for
# ---------------------------------------------------------------------------------------------------------------


def test_the_app_gets_tokens_and_template_ids_by_mail(make_server, mailbox):
    server = make_server(**mailbox.settings)
    app = server.app()
    app.make_project(1, widgets=[widget("DEVICE_TILES", 6)])
    assert "Welcome" in mailbox.next_to(app.email).get_content()
    template = {"id": 5, "mode": "PAGE", "name": "Lamp", "templateId": "TMPL9", "deviceIds": [], "pin": {"pin": 1}}
    assert app.ask("CREATE_TILE_TEMPLATE", 1, 6, template) == OK
    assert app.ask("EMAIL", 1) == OK
    text = mailbox.next_to(app.email).get_content().replace("\r", "")
    assert text.startswith(f"Auth Token : {app.token()}\n\nHow to")
    assert app.ask("EMAIL", "template", 1, 6, 5) == OK
    mail = mailbox.next_to(app.email)
    assert mail["Subject"] == "Template ID for Lamp"
    assert "TMPL9" in mail.get_content()
    for fields, code in (
        (("template", 1, 6, 7), ILLEGAL_COMMAND),
        (("template", 1, 6), ILLEGAL_COMMAND),
        ((2,), ILLEGAL_COMMAND),
        ((1, 9), ILLEGAL_COMMAND_BODY),
        ((1, "x"), ILLEGAL_COMMAND),
    ):
        assert app.ask("EMAIL", *fields) == code, fields


def test_without_mail_the_app_is_told(house):
    assert house.app.ask("EMAIL", 1) == NOTIFICATION_ERROR
    assert house.app.ask("EMAIL_QR", 1, "none") == ILLEGAL_COMMAND_BODY


def test_a_forgotten_password_by_mail(make_server, mailbox):
    server = make_server(**mailbox.settings)
    app = server.app()
    mailbox.next_to(app.email)
    stranger = server.unknown()
    assert stranger.ask("RESET_PASSWORD", "start", f" {app.email.upper()} ", "Blynk") == OK
    mail = mailbox.next_to(app.email)
    assert mail["Subject"] == "Password restoration for your Blynk account."
    text = mail.get_body(("html",)).get_content()
    token = re.search(r"/restore\?token=([\w-]{32})&email=" + re.escape(app.email), text)[1]
    assert stranger.ask("RESET_PASSWORD", "start", app.email, "Blynk") == NOT_ALLOWED
    assert stranger.ask("RESET_PASSWORD", "verify", token) == OK
    assert stranger.ask("RESET_PASSWORD", "reset", token, password_hash("new", app.email)) == OK
    assert mailbox.next_to(app.email)["Subject"] == "Your new password on Blynk"
    assert stranger.ask("RESET_PASSWORD", "reset", token, "x") == NOT_ALLOWED
    assert stranger.login(app.email, "pw") == USER_NOT_AUTHENTICATED
    assert stranger.login(app.email, "new") == OK


def test_a_reset_that_cannot_be_mailed_may_be_tried_again(make_server):
    (port,) = free_ports(1)
    server = make_server(mail_host=HOST, mail_port=port, mail_auth=False)
    app = server.app()
    stranger = server.unknown()
    for _ in range(2):
        assert stranger.ask("RESET_PASSWORD", "start", app.email, "Blynk") == SERVER_ERROR


def test_without_mail_the_administrator_finds_the_code_in_the_log(server):
    app = server.app()
    stranger = server.unknown()
    assert stranger.ask("RESET_PASSWORD", "start", app.email, "Blynk") == OK
    token = re.search(re.escape(app.email) + r" asks to reset .* The code is ([\w-]{32})", server.log())[1]
    assert stranger.ask("RESET_PASSWORD", "reset", token, password_hash("new", app.email)) == OK
    assert stranger.login(app.email, "new") == OK


@pytest.mark.parametrize(
    "fields, code",
    [
        (("start",), ILLEGAL_COMMAND),
        (("start", "nonsense", "Blynk"), ILLEGAL_COMMAND),
        (("start", new_email("nobody"), "Blynk"), ILLEGAL_COMMAND),
        (("verify",), ILLEGAL_COMMAND),
        (("verify", "x" * 32), NOT_ALLOWED),
        (("reset", "x" * 32), ILLEGAL_COMMAND),
        (("reset", "x" * 32, "hash"), NOT_ALLOWED),
    ],
)
def test_what_is_wrong_with_a_reset(server, fields, code):
    assert server.unknown().ask("RESET_PASSWORD", *fields) == code


def test_an_unknown_step_of_a_reset_is_not_answered(server):
    stranger = server.unknown()
    stranger.command("RESET_PASSWORD", "perhaps")
    stranger.command("RESET_PASSWORD")
    assert stranger.ask("GET_SERVER", "a@example.com", "Blynk")
    assert not stranger.inbox
