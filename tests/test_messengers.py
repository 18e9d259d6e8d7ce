"""The messengers' room by itself (spec 08 §2–5): mail against a real SMTP server in all its moods, every push, SMS and
post channel against a real HTTP server, the HTTP client against raw sockets, the outbox on a real loop."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
from clients import until
from servers import HOST, free_ports

import blynk_pi


class Office:
    """A Server without ports on a loop that the test turns; its messengers are the object of these tests."""

    def __init__(self, folder, **settings):
        self.settings = blynk_pi.Settings()
        self.settings.data_folder, self.settings.discovery_mode = str(folder), "off"
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self.loop = blynk_pi.Loop(net_threads=self.settings.notifications_workers)
        self.server = blynk_pi.Server(self.settings, self.loop)
        self.account = self.server.new_account("a@example.com", "Blynk", "x")
        self.messengers = self.server.messengers

    def project(self, **notification):
        widgets = [{"id": 1, "type": "NOTIFICATION", "width": 1, "height": 1, **notification}]
        document = {"id": 1, "isActive": True, "widgets": widgets}
        return self.server.add_project(self.account, blynk_pi.read_document("PROJECT", document))

    def wait(self, condition, what="the result"):
        until(lambda: self.loop.run_once(0.01) or condition(), what=what)

    def mail(self, to="to@example.com", subject="s", body="t\n", **how):
        """Sends a mail and waits for what comes of it."""
        results = []
        self.messengers.mail(to, subject, body, done=results.append, account=self.account, **how)
        self.wait(lambda: results)
        return results[0]

    @property
    def log(self):
        return [(entry["kind"], entry["target"], entry["result"]) for entry in self.account.notifications]

    def logged(self, count=1):
        self.wait(lambda: len(self.log) >= count, f"{count} entries")
        return self.log

    def close(self):
        self.loop.close()


@pytest.fixture
def office(folder):
    made = []

    def make(**settings):
        made.append(Office(folder, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


# ---------------------------------------------------------------------------------------------------------------
# Mail
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def post_office(certificate):
    """make(**aiosmtpd options): an SMTP server with TLS and login (name "me", password "right"); gives its port and the
    mails it took."""
    pytest.importorskip("aiosmtpd")
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    running = []

    class Handler:
        def __init__(self):
            self.mails, self.answers = [], []

        async def handle_DATA(self, _server, _session, envelope):
            if self.answers:
                return self.answers.pop(0)
            self.mails.append(envelope)
            return "250 OK"

    def make(tls="", **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate["tls_cert"], certificate["tls_key"])

        def authenticator(_server, _session, _envelope, _mechanism, data):
            return AuthResult(success=(data.login, data.password) == (b"me", b"right"), handled=False)

        handler = Handler()
        (port,) = free_ports(1)
        kwargs = {"hostname": HOST, "port": port, "authenticator": authenticator, "auth_required": True, **options}
        if tls == "starttls":
            kwargs["tls_context"] = context
        elif tls == "tls":
            kwargs["ssl_context"] = context
        controller = Controller(handler, **kwargs)
        controller.start()
        running.append(controller)
        handler.port = port
        return handler

    yield make
    for controller in running:
        controller.stop()


LOGIN = {
    "mail_host": HOST,
    "mail_username": "me",
    "mail_password": "right",
    "mail_from": "{PRODUCT_NAME} <me@example.com>",
}


@pytest.mark.parametrize("security", ["starttls", "starttls-required", "tls", "none"])
def test_mail_goes_out_in_every_kind_of_connection(office, post_office, security):
    server = post_office(
        tls=security.partition("-")[0], **({"auth_require_tls": False} if security in ("none", "tls") else {})
    )
    it = office(**LOGIN, mail_port=server.port, mail_security=security, mail_verify_certificate=False)
    assert it.mail("one@example.com, two@example.com", "Grüße", "Zeile\n", html=True) is True
    (mail,) = server.mails
    assert mail.rcpt_tos == ["one@example.com", "two@example.com"]
    assert mail.mail_from == "me@example.com"
    message = __import__("email").message_from_bytes(mail.content, policy=__import__("email.policy").policy.default)
    assert message["Subject"] == "Grüße"
    assert message["From"] == "Blynk <me@example.com>"
    assert (message.get_content_type(), message.get_content().strip()) == ("text/html", "Zeile")
    assert it.log == [("mail", "o***@example.com,t***@example.com", "sent")]


def test_attachments_and_long_lines_arrive_whole(office, mailbox):
    it = office(**mailbox.settings)
    picture = os.urandom(5000)
    line = "x" * 3000 + " ü"
    assert it.mail(
        body=f"{line}\n.\n..\n", attachments=[("a.png", "image/png", picture), ("t.csv", "text/csv", b"1,2\n")]
    )
    mail = mailbox.next()
    parts = list(mail.iter_attachments())
    assert [(p.get_filename(), p.get_content_type()) for p in parts] == [("a.png", "image/png"), ("t.csv", "text/csv")]
    assert parts[0].get_content() == picture
    body = mail.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert body.rstrip("\n") == f"{line}\n.\n.."


def why(it):
    return it.log[-1][2]


WRONG = [
    # what is wrong, settings, the server, words of the explanation
    ("password", {"mail_password": "wrong"}, "starttls", "the login was refused"),
    ("certificate", {"mail_verify_certificate": True}, "starttls", "verify_certificate"),
    ("no starttls", {"mail_security": "starttls-required"}, "none", "does not offer STARTTLS"),
    ("plain on a tls port", {"mail_security": "starttls", "mail_connect_timeout_ms": 500}, "tls", "TLS"),
    ("tls on a plain port", {"mail_security": "tls"}, "none", 'mail.security = "starttls"'),
]


@pytest.mark.parametrize("settings, tls, words", [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_is_wrong_with_mail_is_said_in_plain_words(office, post_office, settings, tls, words):
    server = post_office(tls=tls, **({"auth_require_tls": False} if tls == "none" else {}))
    settings = {**LOGIN, "mail_port": server.port, "mail_verify_certificate": False, **settings}
    it = office(**settings)
    assert it.mail() is False
    assert words in why(it)
    assert "right" not in why(it).split() and "wrong" not in why(it).split()
    assert words in blynk_pi.check_mail(it.settings)[-1]


def test_a_host_that_does_not_exist_and_a_port_where_nobody_is(office):
    (port,) = free_ports(1)
    it = office(mail_host="no.such.host.invalid", mail_auth=False)
    assert it.mail() is False
    assert "host name no.such.host.invalid not found" in why(it)
    it.settings.mail_host, it.settings.mail_port = HOST, port
    assert it.mail() is False
    assert f"nobody listens at {HOST}:{port}" in why(it)


def test_a_server_that_never_answers_is_given_up(office):
    with socket.create_server((HOST, 0)) as pit:
        it = office(mail_host=HOST, mail_port=pit.getsockname()[1], mail_auth=False, mail_connect_timeout_ms=200)
        assert it.mail() is False
        assert "no answer from" in why(it)


def test_gmail_wants_an_app_password(office):
    it = office(mail_host="smtp.gmail.com")
    smtplib = pytest.importorskip("smtplib")
    error = smtplib.SMTPAuthenticationError(535, b"5.7.8 Username and Password not accepted")
    assert "app password" in str(it.messengers.mailer.undelivered(error))


@pytest.mark.parametrize("code, tries", [(451, 2), (550, 1)])
def test_a_passing_refusal_is_tried_again_and_a_final_one_not(office, post_office, monkeypatch, code, tries):
    monkeypatch.setattr(blynk_pi, "RETRY_SECONDS", (0.05, 0.05, 0.05))
    server = post_office(auth_required=False)
    server.answers = [f"{code} not now"]
    it = office(mail_host=HOST, mail_port=server.port, mail_auth=False, mail_from="me@example.com")
    assert it.mail(tries=4) is (tries == 2)
    assert len(server.mails) == tries - 1
    assert ("sent" if tries == 2 else "550 not now") in why(it)


def test_tries_are_bounded_and_who_waits_is_told_after_the_first(office, post_office, monkeypatch):
    monkeypatch.setattr(blynk_pi, "RETRY_SECONDS", (0.01, 0.01, 0.01))
    server = post_office(auth_required=False)
    server.answers = ["451 no"] * 10
    it = office(mail_host=HOST, mail_port=server.port, mail_auth=False, mail_from="me@example.com")
    assert it.mail() is False
    assert len(server.answers) == 9
    assert it.mail(tries=4) is False
    assert len(server.answers) == 5
    assert it.messengers.outbox.pending == 0


def test_mail_that_is_not_set_up_fails_at_once(office):
    it = office(mail_host="smtp.gmail.com")  # as the Java server's file has it: no password
    assert it.mail() is False
    assert it.log == [("mail", "t***@example.com", "not configured")]
    assert "mail.password is empty" in blynk_pi.check_mail(it.settings)[-1]
    it.settings.mail_host = ""
    assert "mail is off" in blynk_pi.check_mail(it.settings)[-1]


def test_check_mail_is_happy_when_mail_works(office, post_office):
    server = post_office(tls="starttls")
    it = office(**LOGIN, mail_port=server.port, mail_verify_certificate=False)
    assert blynk_pi.check_mail(it.settings)[-1].startswith("ok: ")
    assert blynk_pi.check_mail(it.settings, "to@example.com")[-1].startswith("ok: ")
    assert len(server.mails) == 1


def test_a_file_takes_the_place_of_a_text(folder, monkeypatch):
    monkeypatch.chdir(folder)
    os.makedirs("static/reset")
    with open("static/reset/reset-email.html", "w", encoding="utf-8") as file:
        file.write("<i>{PRODUCT_NAME}</i>\n{RESET_URL} {OTHER}")
    it = Office(folder, server_product_name="A & B")
    text = it.messengers.text("static/reset/reset-email.html", {}, {"RESET_URL": "http://x/?a=1&b=2"})
    assert text == "<i>A &amp; B</i>\nhttp://x/?a=1&b=2 {OTHER}\n"
    own = it.messengers.text("static/reset/reset-email-app-confirmation.html", {"EMAIL": "<a>@example.com"})
    assert "&lt;a&gt;@example.com" in own
    assert own.endswith("</p>\n")
    it.close()


def test_the_texts_that_are_a_contract(office):
    it = office()
    text = it.messengers.text("static/reset/reset-email.html", {})
    assert (
        "You recently made a request to reset your password for the Blynk app. "
        "To complete the process, click the link below."
    ) in text
    assert "If you did not request a password reset from Blynk, please ignore this message." in text
    assert it.messengers.text("single_token_mail_body.txt", {})[0] == "\n"


def test_the_daily_window(office):
    it = office(notifications_mails_per_day=2)
    account, messengers = it.account, it.messengers
    for allowed in (True, True, True, False):
        assert messengers.may_mail(account) is allowed
        if allowed:
            messengers.limited_mail(account, "x@example.com", "s", "t", False)
    it.loop.now += 86_399
    assert not messengers.may_mail(account)
    it.loop.now += 1
    assert messengers.may_mail(account)


# ---------------------------------------------------------------------------------------------------------------
# Push, SMS, posts
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("key") / "key.pem")
    subprocess.run(["openssl", "genrsa", "-out", path, "2048"], check=True, capture_output=True)
    return path


def test_fcm_v1_signs_in_and_pushes(office, folder, web_hook, key, monkeypatch):
    monkeypatch.setattr(blynk_pi, "FCM_URL", web_hook.url + "/v1/projects/{}/messages:send")
    path = os.path.join(folder, "account.json")
    with open(key) as file:
        account = {
            "project_id": "p 1",
            "client_email": "c@x",
            "private_key": file.read(),
            "token_uri": web_hook.url + "/token",
        }
    with open(path, "w") as file:
        json.dump(account, file)
    it = office(push_fcm_v1_account_file=path, push_server=web_hook.url + "/legacy")
    project = it.project(androidTokens={"a": "ta"}, iOSTokens={"i": "ti"}, priority="high")
    web_hook.answers(200, '{"access_token":"open sesame","expires_in":3600}')
    it.messengers.push(project, "hällo")
    it.logged(2)
    login, *pushes = (web_hook.next() for _ in range(3))
    form = urllib.parse.parse_qs(login.text)
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claims, signature = form["assertion"][0].split(".")
    decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))  # noqa: E731
    assert json.loads(decode(head)) == {"alg": "RS256", "typ": "JWT"}
    assert json.loads(decode(claims))["iss"] == "c@x"
    signed = os.path.join(folder, "signature")
    with open(signed, "wb") as file:
        file.write(decode(signature))
    check = ["openssl", "dgst", "-sha256", "-prverify", key, "-signature", signed]
    subprocess.run(check, input=f"{head}.{claims}".encode(), check=True, capture_output=True)
    messages = [json.loads(p.text)["message"] for p in pushes]
    assert {p.path for p in pushes} == {"/v1/projects/p%201/messages:send"}
    assert {p.headers["authorization"] for p in pushes} == {"Bearer open sesame"}
    assert [m["token"] for m in messages] == ["ta", "ti"]
    assert messages[0]["data"] == {"message": "hällo", "dashId": "1"}
    assert messages[0]["android"] == {"priority": "high"}
    assert messages[1]["notification"]["body"] == "hällo"
    assert web_hook.empty(), "one login serves all"
    web_hook.answers(404, '{"error":{"details":[{"errorCode":"UNREGISTERED"}]}}')
    it.messengers.push(project, "again")
    it.logged(4)
    assert "androidTokens" not in project.find("NOTIFICATION")


def test_the_key_of_fcm_is_on_the_disk_only_while_it_signs(key, folder, monkeypatch):
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr("tempfile.tempdir", None)
    with open(key, "rb") as file:
        assert len(blynk_pi.sign_rs256(file.read(), b"x")) == 256
    with pytest.raises(blynk_pi.Undelivered, match="private_key"):
        blynk_pi.sign_rs256(b"no key", b"x")
    assert os.listdir(folder) == []


def test_nexmo_as_the_java_server_calls_it(office, web_hook, monkeypatch):
    monkeypatch.setattr(blynk_pi, "NEXMO_URL", web_hook.url + "/sms/json")
    it = office(sms_nexmo_key="k", sms_nexmo_secret="s&s")
    web_hook.answers(200, '{"message-count":"1","messages":[{"status":"0"}]}')
    assert it.messengers.sms(it.account, "4917012345", "hällo") is True
    call = web_hook.next() if it.logged() else None
    assert (call.method, call.body) == ("POST", b"")
    query = urllib.parse.parse_qs(call.path.partition("?")[2])
    assert query == {
        "api_key": ["k"],
        "api_secret": ["s&s"],
        "from": ["Blynk"],
        "to": ["4917012345"],
        "text": ["hällo"],
    }
    web_hook.answers(200, '{"messages":[{"status":"4","error-text":"Bad Credentials"}]}')
    it.messengers.sms(it.account, "4917012345", "x")
    assert it.logged(2) == [("sms", "49***45", "sent"), ("sms", "49***45", "it said: Bad Credentials")]


def test_x_is_signed_in_the_name_of_the_user(office, web_hook, monkeypatch):
    monkeypatch.setattr(blynk_pi, "X_URL", web_hook.url + "/2/tweets")
    it = office(twitter_consumer_key="ck", twitter_consumer_secret="cs")
    web_hook.answers(201, '{"data":{"id":"1"}}')
    it.messengers.tweet(it.account, {"token": "ut", "secret": "us", "username": "me"}, "hällo")
    assert it.logged() == [("tweet", "me", "sent")]
    call = web_hook.next()
    assert json.loads(call.text) == {"text": "hällo"}
    pairs = dict(part.split("=", 1) for part in call.headers["authorization"][6:].split(", "))
    fields = {name: urllib.parse.unquote(value.strip('"')) for name, value in pairs.items()}
    signature = fields.pop("oauth_signature")
    quote = lambda text: urllib.parse.quote(text, safe="")  # noqa: E731
    pairs = "&".join(f"{quote(k)}={quote(v)}" for k, v in sorted(fields.items()))
    base = f"POST&{quote(web_hook.url + '/2/tweets')}&{quote(pairs)}"
    assert signature == base64.b64encode(hmac.new(b"cs&us", base.encode(), hashlib.sha1).digest()).decode()
    assert (fields["oauth_consumer_key"], fields["oauth_token"]) == ("ck", "ut")


def test_apprise_gets_its_urls_by_environment(office, folder, monkeypatch):
    program, out = os.path.join(folder, "apprise"), os.path.join(folder, "out")
    with open(program, "w") as file:
        file.write(f'#!/bin/sh\n(echo "$@"; echo "$APPRISE_URLS"; cat) > {out}\ntest -z "$FAIL"\n')
    os.chmod(program, os.stat(program).st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", folder + os.pathsep + os.environ["PATH"])
    it = office(push_apprise_urls=["json://secret@host", "mailto://x"])
    project = it.project()
    it.messengers.push(project, "it's $HOME")
    assert it.logged() == [("push", "apprise", "sent")]
    with open(out) as file:
        assert file.read() == "--title Blynk Notification\njson://secret@host mailto://x\nit's $HOME"
    monkeypatch.setenv("FAIL", "1")
    it.messengers.push(project, "x")
    assert it.logged(2)[1] == ("push", "apprise", "apprise failed with exit code 1")


def test_a_missing_program_is_named(office, folder, monkeypatch):
    monkeypatch.setenv("PATH", folder)
    it = office(push_apprise_urls=["json://x"])
    it.messengers.push(it.project(), "x")
    assert it.logged() == [("push", "apprise", "the apprise program is missing: apt install apprise")]


def test_a_legacy_gateways_other_errors_keep_the_phone(office, web_hook):
    it = office(push_server=web_hook.url)
    project = it.project(androidTokens={"a": "t"})
    web_hook.answers(200, '{"failure":1,"results":[{"error":"Unavailable"}]}')
    it.messengers.push(project, "x")
    assert it.logged()[0][2] == "it said: Unavailable"
    web_hook.answers(200, "no json at all")
    it.messengers.push(project, "x")
    assert it.logged(2)[1][2] == "sent"
    assert project.find("NOTIFICATION")["androidTokens"] == {"a": "t"}


# ---------------------------------------------------------------------------------------------------------------
# The outbox
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def outbox():
    loop = blynk_pi.Loop(net_threads=2)
    yield blynk_pi.Outbox(loop, 20, 2)
    loop.close()


def turn(outbox, condition):
    until(lambda: outbox.loop.run_once(0.01) or condition(), what="the outbox")


def test_a_lane_is_served_in_order_and_others_do_not_wait_for_it(outbox):
    gate, done = threading.Event(), []
    note = lambda name: lambda result, error: done.append(name)  # noqa: E731
    for n in range(3):
        assert outbox.put("slow", gate.wait, (5,), note(f"slow {n}"))
    for n in range(3):
        assert outbox.put("fast", int, (n,), note(f"fast {n}"))
    turn(outbox, lambda: len(done) == 3)
    assert done == ["fast 0", "fast 1", "fast 2"]
    gate.set()
    turn(outbox, lambda: len(done) == 6)
    assert done[3:] == ["slow 0", "slow 1", "slow 2"]
    assert (outbox.pending, outbox.running, outbox.lanes, outbox.owners) == (0, 0, {}, {})


def test_webhooks_leave_a_worker_to_the_others(outbox):
    gate, done = threading.Event(), []
    for n in range(5):
        outbox.put(("hook", n), gate.wait, (5,), lambda *_: None, yields=True)
    outbox.put("mail", int, (), lambda *_: done.append("mail"))
    turn(outbox, lambda: done)
    gate.set()
    turn(outbox, lambda: not outbox.pending)


def test_the_outbox_is_bounded_for_all_and_for_one(outbox):
    gate = threading.Event()
    outbox.limit = 200
    taken = [outbox.put("lane", gate.wait, (5,), lambda *_: None, owner="anna") for _ in range(60)]
    assert taken.count(True) == 50
    assert outbox.put("lane", int, (), lambda *_: None, owner="ben")
    outbox.limit = 51
    assert not outbox.put("lane", int, (), lambda *_: None, owner="carl")
    gate.set()
    turn(outbox, lambda: not outbox.pending)
    assert outbox.owners == {}


def test_an_error_of_ours_ends_the_errand_and_not_the_lane(outbox):
    done = []
    outbox.put("lane", int, ("x",), lambda result, error: done.append(type(error)))
    outbox.put("lane", int, ("7",), lambda result, error: done.append(result))
    turn(outbox, lambda: len(done) == 2)
    assert done == [ValueError, 7]


# ---------------------------------------------------------------------------------------------------------------
# The HTTP client
# ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def speaker(*pieces, pause=0.0, close=True):
    """An HTTP server of raw bytes: says the pieces to each connection. Gives (url, what it was asked)."""
    asked, listener = [], socket.create_server((HOST, 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                asked.append(sock.recv(65536))
                for piece in pieces:
                    sock.sendall(piece)
                    if pause:
                        time.sleep(pause)
                if close:
                    sock.close()
                else:
                    asked.append(sock)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}/x", asked
    finally:
        listener.close()


ANSWERS = [
    ("length", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!!"], (200, b"hello")),
    ("close", [b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo"], (200, b"hello")),
    (
        "chunks",
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"],
        (200, b"hello"),
    ),
    ("continue", [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n"], (201, b"")),
    ("nothing", [b"HTTP/1.1 204 No Content\r\n\r\n"], (204, b"")),
    ("long", [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"], (200, None)),
    ("long until close", [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 50], (200, None)),
    ("long chunks", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n"], (200, None)),
    ("byte by byte", [bytes((c,)) for c in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], (200, b"ok")),
]


@pytest.mark.parametrize("pieces, expected", [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS])
def test_answers_of_every_shape(pieces, expected):
    with speaker(*pieces) as (url, asked):
        assert blynk_pi.fetch("GET", url, {}, limit=10) == expected
        assert asked[0].startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:")


BROKEN = [
    b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000,
]  # fmt: skip


@pytest.mark.parametrize("answer", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_answer_is_an_error_in_words(answer):
    with speaker(answer) as (url, _), pytest.raises(blynk_pi.Undelivered):
        blynk_pi.fetch("GET", url, {}, limit=1000)


def test_the_deadline_holds_for_the_whole_call():
    drip = [b"HTTP/1.1 200 OK\r\n"] + [b"a: b\r\n"] * 50
    with speaker(*drip, pause=0.05) as (url, _):
        began = time.monotonic()
        with pytest.raises(blynk_pi.Undelivered, match="no answer in time"):
            blynk_pi.fetch("GET", url, {}, seconds=0.4)
        assert time.monotonic() - began < 2


def test_a_call_over_tls_checks_the_certificate(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate["tls_cert"], certificate["tls_key"])
    with socket.create_server((HOST, 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                context.wrap_socket(listener.accept()[0], server_side=True)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(blynk_pi.Undelivered, match="certificate"):
            blynk_pi.fetch("GET", f"https://{HOST}:{listener.getsockname()[1]}/", {})


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://h", (False, "h", 80, "/", "")),
        ("HTTPS://Host.Example:8443/a/b?c=d#e", (True, "Host.Example", 8443, "/a/b?c=d", "")),
        ("http://u:p@h/x", (False, "h", 80, "/x", "u:p")),
        ("http://h?a=b@c", (False, "h", 80, "/?a=b@c", "")),
        ("http://[::1]:81/", (False, "::1", 81, "/", "")),
        ("http://h/a b%20%zz[1]", (False, "h", 80, "/a%20b%20%25zz%5B1%5D", "")),
        ("http://bücher.example/ü", (False, "xn--bcher-kva.example", 80, "/%C3%BC", "")),
    ],
)
def test_urls(url, expected):
    assert blynk_pi.split_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", "h", "ftp://h", "http://", "http://:80", "http://h:0", "http://h:99999", "http://h:x", "http://a b/",
            "http://h\r\nX: y/", "http://h\\@evil/"],
)  # fmt: skip
def test_bad_urls(url):
    try:
        assert blynk_pi.split_url(url)[1] == "h"
    except ValueError:
        pass


@pytest.mark.parametrize(
    "address, plain",
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("64:ff9b::a00:1", "10.0.0.1"),
        ("2002:a00:1::", "10.0.0.1"),
        ("::10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("2a00:1450::1", "2a00:1450::1"),
    ],
)
def test_the_ipv4_address_inside(address, plain):
    assert blynk_pi.plain_address(address) == plain


@pytest.mark.parametrize(
    "path, plain",
    [
        ("/a/b?c", "/a/b"),
        ("/%61dmin/", "/admin"),
        ("/%2561dmin", "/admin"),
        ("//x/.././ADMIN", "/admin"),
        ("/x\\..\\admin", "/admin"),
    ],
)
def test_paths_as_a_server_may_read_them(path, plain):
    assert blynk_pi.plain_path(path) == plain


HEAVY = "smtplib email http urllib subprocess ipaddress tempfile datetime zoneinfo"


def test_nothing_heavy_is_loaded_before_it_is_needed():
    code = f"import sys; b = set(sys.modules); import blynk_pi; print((set(sys.modules) - b) & set({HEAVY.split()}))"
    root = os.path.dirname(os.path.abspath(blynk_pi.__file__))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
