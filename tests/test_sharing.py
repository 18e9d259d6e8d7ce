"""Who hears what: two apps, a browser tab, a guest, boards of two projects, and the app and board of a stranger, all
online at once (spec 03a §3, §5.4, §6; 01 §13). For each command: what each of them is told, and that the rest hear
nothing."""

import json
import shutil
import tempfile
import zlib

import pytest
from clients import ILLEGAL_COMMAND, NOT_ALLOWED, OK, App, until, widget
from servers import HOST, Server

IDS = 500  # the message id of what is sent


class Street:
    """anna's account: apps `A` and `B` (a browser tab), guest `G` of project 1, boards `H` (project 1, device 0), `K`
    (project 1, device 1) and `P` (project 2). A stranger's account with the same ids: app `X`, guest `Y`, board `Z`."""

    def __init__(self, server):
        self.server = server
        self.peers = {"A": server.app(), "X": server.app()}
        for owner in "AX":
            app = self.peers[owner]
            for project in (1, 2):
                app.make_project(project, devices=2, isAppConnectedOn=project == 1)
        a, x = self.peers["A"], self.peers["X"]
        self.emails = {"A": a.email, "X": x.email}
        self.shares = {name: self.share(app) for name, app in (("A", a), ("X", x))}
        self.peers["B"] = server.app_websocket(a.email)
        self.peers["G"] = server.guest(a.email, self.shares["A"])
        self.peers["Y"] = server.guest(x.email, self.shares["X"])
        self.tokens = {
            "H": a.token(1, 0),
            "K": a.token(1, 1),
            "P": a.token(2, 0),
            "Z": x.token(1, 0),
        }
        for name, token in self.tokens.items():
            self.peers[name] = server.hardware(token)
        self.hush()

    @staticmethod
    def share(app):
        token = app.ask("GET_SHARE_TOKEN", 1).decode()
        assert app.ask("SHARING", 1, "on") == OK
        return token

    def hush(self):
        """Takes whatever is under way to anybody."""
        for _ in range(2):
            for peer in self.peers.values():
                peer.drain()

    def heard(self, last=None):
        """name -> texts of the frames each peer has received since; the PINGs of all, `last` first, come before."""
        names = [*([last] if last else []), *(n for n in self.peers if n != last)]
        for name in names:
            self.peers[name].ping()
        told = {}
        for name in names:
            frames = self.peers[name].drain()
            if frames:
                told[name] = [self.words(f) for f in frames]
        return told

    @staticmethod
    def words(frame):
        if frame.command == "RESPONSE":
            return f"{frame.code}" + ("" if frame.id == IDS else f" #{frame.id}")
        body = frame.text if frame.body[:1] != b"\x78" else "(zlib)"
        return " ".join(filter(None, (frame.command, body if len(body) < 100 else "(long)"))) + (
            "" if frame.id == IDS else f" #{frame.id}"
        )

    def tell(self, name, command, *fields):
        self.peers[name].command(command, *fields, id=IDS)
        return self.heard(name)


@pytest.fixture(scope="module")
def busy_server(certificate):
    path = tempfile.mkdtemp(prefix="bp-")
    server = Server(path, limits_messages_per_s=100000, **certificate).start()
    yield server
    server.finish()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def _street(busy_server):
    street = Street(busy_server)
    yield street
    for peer in street.peers.values():
        peer.close()


@pytest.fixture
def street(_street, busy_server):
    yield _street
    _street.hush()
    busy_server.check_log()


def everybody(text, *names):
    return {name: [text] for name in names}


# Who says what, and what each hears of it. What is not listed hears nothing. Nothing here changes what the next finds,
# but for values.
CASES = [
    # values
    ("A", "HARDWARE 1-0 vw 5 1", {**everybody("APP_SYNC 1-0 vw 5 1", "B", "G"), "H": ["HARDWARE vw 5 1"]}),
    ("B", "HARDWARE 1-0 vw 5 2", {**everybody("APP_SYNC 1-0 vw 5 2", "A", "G"), "H": ["HARDWARE vw 5 2"]}),
    ("G", "HARDWARE 1-0 vw 5 3", {**everybody("APP_SYNC 1-0 vw 5 3", "A", "B"), "H": ["HARDWARE vw 5 3"]}),
    ("G", "HARDWARE 1-1 vw 5 3", {**everybody("APP_SYNC 1-1 vw 5 3", "A", "B"), "K": ["HARDWARE vw 5 3"]}),
    ("G", "HARDWARE 2-0 vw 5 3", {"G": ["6"]}),
    ("G", "HARDWARE 9-0 vw 5 3", {"G": ["6"]}),
    ("A", "HARDWARE 2-0 vw 5 4", {**everybody("APP_SYNC 2-0 vw 5 4", "B"), "P": ["HARDWARE vw 5 4"]}),
    ("A", "HARDWARE 2-1 vw 5 4", {**everybody("APP_SYNC 2-1 vw 5 4", "B"), "A": ["7"]}),
    ("A", "HARDWARE 1-0 vr 5", {}),
    ("A", "HARDWARE 1-0 pm 5 out", {}),
    ("H", "HARDWARE vw 5 6", everybody("HARDWARE 1-0 vw 5 6", "A", "B", "G")),
    ("K", "HARDWARE dw 5 1", everybody("HARDWARE 1-1 dw 5 1", "A", "B", "G")),
    ("P", "HARDWARE vw 5 6", everybody("HARDWARE 2-0 vw 5 6", "A", "B")),
    ("Z", "HARDWARE vw 5 6", everybody("HARDWARE 1-0 vw 5 6", "X", "Y")),
    ("X", "HARDWARE 1-0 vw 5 7", {"Y": ["APP_SYNC 1-0 vw 5 7"], "Z": ["HARDWARE vw 5 7"]}),
    ("A", "HARDWARE_RESEND_FROM_BLUETOOTH 1-0 vw 9 1", {}),
    ("G", "HARDWARE_RESEND_FROM_BLUETOOTH 1-0 vw 9 1", {}),
    ("H", "HARDWARE_SYNC vr 77", {}),
    # properties
    (
        "H",
        "SET_WIDGET_PROPERTY 5 label x",
        {**everybody("SET_WIDGET_PROPERTY 1-0 5 label x", "A", "B", "G"), "H": ["200"]},
    ),
    ("A", "SET_WIDGET_PROPERTY 1 3 label x", {"A": ["200"]}),
    ("G", "SET_WIDGET_PROPERTY 1 3 label x", {}),
    # states
    ("A", "DEACTIVATE_DASHBOARD 1", {"A": ["200"], **everybody("DEACTIVATE_DASHBOARD 1", "B", "G")}),
    ("H", "HARDWARE vw 5 8", {}),
    ("H", "SET_WIDGET_PROPERTY 5 label y", {}),
    ("A", "HARDWARE 1-0 vw 5 8", {}),
    ("G", "HARDWARE 1-0 vw 5 8", {}),
    ("G", "ACTIVATE_DASHBOARD 1", {}),
    ("A", "DEACTIVATE_DASHBOARD 2", {"A": ["200"], "B": ["DEACTIVATE_DASHBOARD 2"]}),
    ("B", "DEACTIVATE_DASHBOARD", {"B": ["200"], **everybody("DEACTIVATE_DASHBOARD", "A", "G")}),
    ("A", "SHARING 1 off", {"A": ["200"], **everybody("SHARING 1 off", "B", "G")}),
    ("A", "SHARING 1 on", {"A": ["200"], **everybody("SHARING 1 on", "B", "G")}),
    ("A", "SHARING 2 off", {"A": ["200"], "B": ["SHARING 2 off"]}),
    ("X", "SHARING 1 off", {"X": ["200"], "Y": ["SHARING 1 off"]}),
    ("X", "SHARING 1 on", {"X": ["200"], "Y": ["SHARING 1 on"]}),
    # what only the asking app hears of
    ("A", "PING", {"A": ["200"]}),
    ("G", "PING", {"G": ["200"]}),
    ("A", "GET_ENERGY", {"A": ["GET_ENERGY 100000"]}),
    ("A", "LOAD_PROFILE_GZIPPED", {"A": ["LOAD_PROFILE_GZIPPED (zlib)"]}),
    ("G", "LOAD_PROFILE_GZIPPED", {"G": ["LOAD_PROFILE_GZIPPED (zlib)"]}),
    ("G", "LOAD_PROFILE_GZIPPED 1", {"G": ["LOAD_PROFILE_GZIPPED (zlib)"]}),
    ("G", "LOAD_PROFILE_GZIPPED 2", {"G": ["6"]}),
    ("G", "LOAD_PROFILE_GZIPPED x", {"G": ["2"]}),
    ("A", 'CREATE_WIDGET 1 {"id":70,"type":"TEXT","width":1,"height":1}', {"A": ["200"]}),
    ("A", 'UPDATE_WIDGET 1 {"id":70,"type":"TEXT","width":2,"height":1}', {"A": ["200"]}),
    ("B", "DELETE_WIDGET 1 70", {"B": ["200"]}),
    ("A", 'CREATE_TAG 2 {"id":100001,"name":"t"}', {"A": ['CREATE_TAG {"id":100001,"name":"t"}']}),
    ("A", "DELETE_TAG 2 100001", {"A": ["200"]}),
    ("A", 'CREATE_DASH {"id":8}', {"A": ["200"]}),
    ("A", 'UPDATE_DASH {"id":8,"name":"x"}', {"A": ["200"]}),
    ("A", "DELETE_DASH 8", {"A": ["200"]}),
    ("A", 'CREATE_DEVICE 2 {"id":7,"boardType":"ESP8266"}', {"A": ["CREATE_DEVICE (long)"]}),
    ("A", "DELETE_DEVICE 2 7", {"A": ["200"]}),
    ("A", "TRACK_DEVICE 1-0", {}),
    ("A", "RESOLVE_EVENT 1-0 x", {}),
    ("A", "CMD99 x", {}),
    ("A", "HARDWARE_LOG_EVENT x", {}),
    ("A", "CONNECT_REDIRECT x", {}),
    ("A", "LOGIN x y", {}),
    ("A", "REGISTER x y z", {}),
    ("A", "SHARE_LOGIN x y", {}),
    ("A", "GET_SERVER a@b.c Blynk", {}),
    ("A", "BRIDGE 64 vw 1 1", {}),
    ("A", "HARDWARE_CONNECTED 1-0", {}),
    ("G", "RESET_PASSWORD verify x", {}),
]


def fields_of(text):
    command, _, body = text.partition(" ")
    if body.startswith("{"):
        return command, [body.encode()]
    head, brace, rest = body.partition(" {")
    return command, [*head.split(" "), "{" + rest] if brace else [body] if body else []


def number_or_name(command):
    return int(command[3:]) if command.startswith("CMD") else command


def test_who_hears_what(street):
    a = street.peers["A"]
    assert a.ask("CREATE_WIDGET", 1, widget("LED", 3, 200)) == OK
    street.hush()
    for name, text, expected in CASES:
        command, fields = fields_of(text)
        assert street.tell(name, number_or_name(command), *fields) == expected, (name, text)
    for project in (1, 2):
        a.activate(project)


GUESTS_MAY_NOT = """REDEEM x|ACTIVATE_DASHBOARD 1|DEACTIVATE_DASHBOARD|REFRESH_TOKEN 1|EMAIL 1|SET_WIDGET_PROPERTY 1 3 label x
CREATE_DASH {"id":9}|UPDATE_DASH {"id":1}|DELETE_DASH 1|SHARING 1 off|EXPORT_GRAPH_DATA 1 9|GET_SHARE_TOKEN 1
REFRESH_SHARE_TOKEN 1|CREATE_WIDGET 1 {"id":9,"width":1,"height":1}|UPDATE_WIDGET 1 {"id":3,"type":"LED","width":1,"height":1}
DELETE_WIDGET 1 3|GET_ENERGY|ADD_ENERGY 5 id|UPDATE_PROJECT_SETTINGS 1 {}|ASSIGN_TOKEN 1 x
CREATE_DEVICE 1 {"id":9,"boardType":"ESP8266"}|UPDATE_DEVICE 1 {"id":0,"boardType":"ESP8266"}|DELETE_DEVICE 1 0
CREATE_TAG 1 {"id":100000,"name":"x"}|UPDATE_TAG 1 {"id":100000,"name":"x"}|DELETE_TAG 1 100000|GET_TAGS 1
MOBILE_GET_DEVICE 1 0|UPDATE_FACE 1|CREATE_APP {"name":"x"}|UPDATE_APP {"name":"x"}|DELETE_APP x|GET_PROJECT_BY_TOKEN x
EMAIL_QR 1 x|DELETE_ENHANCED_GRAPH_DATA 1 9|GET_CLONE_CODE 1|GET_PROJECT_BY_CLONE_CODE x
HARDWARE_RESEND_FROM_BLUETOOTH 1-0 vw 1 1|CREATE_TILE_TEMPLATE 1 5 {"id":1}|UPDATE_TILE_TEMPLATE 1 5 {"id":1}
DELETE_TILE_TEMPLATE 1 5 1|GET_WIDGET 1 3|GET_PROVISION_TOKEN 1 {"id":9,"boardType":"ESP8266"}|CREATE_REPORT 1 {"id":1}
UPDATE_REPORT 1 {"id":1}|DELETE_REPORT 1 1|EXPORT_REPORT 1 1|RESET_PASSWORD start x y""".replace("\n", "|").split("|")


def test_a_guest_is_not_answered_what_guests_may_not_ask(street):
    a, before = street.peers["A"], street.peers["A"].profile()
    for text in GUESTS_MAY_NOT:
        command, fields = fields_of(text)
        assert street.tell("G", command, *fields) == {}, text
    assert a.profile() == before


def test_every_command_with_a_handler_is_either_for_guests_or_tried_above():
    import blynk_pi

    tried = {blynk_pi.Command.__dict__[text.split()[0]] for text in GUESTS_MAY_NOT}
    assert tried == set(blynk_pi.APP_HANDLERS) - set(blynk_pi.GUEST_HANDLERS) | {blynk_pi.Command.RESET_PASSWORD}


def test_nothing_a_guest_gets_has_a_secret_in_it(street):
    a, guest = street.peers["A"], street.peers["G"]
    a.add_widget(1, widget("NOTIFICATION", 71, androidTokens={"phone": "secret-1"}, iOSTokens={"phone": "secret-2"}))
    a.add_widget(1, widget("TWITTER", 72, token="secret-3", secret="secret-4", username="secret-5"))
    inner = [widget("TWITTER", 75, token="secret-6")]
    a.add_widget(1, widget("DEVICE_TILES", 73, templates=[{"id": 1, "mode": "PAGE", "widgets": inner}]))
    answers = [guest.ask("LOAD_PROFILE_GZIPPED"), guest.ask("LOAD_PROFILE_GZIPPED", 1)]
    texts = [zlib.decompress(answer).decode() for answer in answers] + [guest.ask("GET_DEVICES", 1).decode()]
    secrets = [*street.tokens.values(), *street.shares.values(), "secret-", street.emails["X"]]
    for text in texts:
        assert not [secret for secret in secrets if secret in text]
    profile = json.loads(texts[0])
    assert list(profile) == ["dashBoards"] and [p["id"] for p in profile["dashBoards"]] == [1]
    assert profile["dashBoards"][0] == json.loads(texts[1])
    for id in (71, 72, 73):
        assert a.ask("DELETE_WIDGET", 1, id) == OK


def test_a_guest_stays_within_the_shared_project(street):
    guest, before = street.peers["G"], street.peers["A"].profile()
    for command, body in (
        ("APP_SYNC", "2"),
        ("APP_SYNC", "2-0"),
        ("GET_DEVICES", "2"),
        ("DELETE_DEVICE_DATA", "2-0"),
        ("DELETE_DEVICE_DATA", "2-*"),
        ("ADD_PUSH_TOKEN", "2 uid token"),
        ("GET_ENHANCED_GRAPH_DATA", "2 1 DAY"),
        ("HARDWARE", "2-0 vw 1 1"),
        ("HARDWARE", "2 vu 200000 1"),
    ):
        assert guest.ask(command, body) == NOT_ALLOWED, command
    assert guest.ask("DELETE_DEVICE_DATA", "1-0") == ILLEGAL_COMMAND  # no report widget
    assert guest.ask("GET_DEVICES", "x") == ILLEGAL_COMMAND
    assert street.peers["A"].profile() == before


def test_a_guest_moves_the_selector_of_the_project_and_all_who_see_it_are_told(street):
    a = street.peers["A"]
    for project in (1, 2):
        a.add_widget(project, widget("DEVICE_SELECTOR", 200000, value=0, deviceIds=[0, 1]))
    a.send("1-1 vw 60 sixty")
    street.hush()
    told = street.tell("G", "HARDWARE", "1", "vu", 200000, 1)
    sync = [text for text in told["G"] if text != "200"]
    assert told["G"][0] == "200" and "APP_SYNC 1-1 vw 60 sixty #1111" in sync
    assert not any(text.split()[1].startswith("1-0") for text in sync)
    for name in "AB":
        assert told[name][0] == "APP_SYNC 1 vu 200000 1" and told[name][1:] == sync
    assert sorted(told) == ["A", "B", "G"]
    told = street.tell("A", "HARDWARE", "2", "vu", 200000, 1)
    assert sorted(told) == ["A", "B"]
    for project in (1, 2):
        assert a.ask("DELETE_WIDGET", project, 200000) == OK


def test_an_activation_syncs_all_who_see_the_project_and_nobody_else(street):
    a = street.peers["A"]
    a.add_widget(1, widget("LED", 74, 13, "DIGITAL"))
    street.peers["H"].send("dw 13 1")
    street.hush()
    told = street.tell("B", "ACTIVATE_DASHBOARD", "1")
    assert told["H"] == ["HARDWARE pm 13 in #1"]
    assert told["B"][0] == "200" and told["A"][0] == told["G"][0] == "ACTIVATE_DASHBOARD 1"
    assert told["A"][1:] == told["B"][1:] == told["G"][1:]
    assert "APP_SYNC 1-0 dw 13 1 #1111" in told["A"]
    assert sorted(told) == ["A", "B", "G", "H"]
    told = street.tell("A", "ACTIVATE_DASHBOARD", "2")
    assert "G" not in told and "H" not in told
    assert a.ask("DELETE_WIDGET", 1, 74) == OK


def test_app_sync_is_for_the_one_who_asks(street):
    for name in "ABG":
        told = street.tell(name, "APP_SYNC", "1-1")
        assert list(told) == [name] and told[name][0] == "200"


def test_boards_that_come_and_go_are_told_to_those_who_see_their_project(street):
    for name, place, who in (("H", "1-0", "ABG"), ("P", "2-0", "AB"), ("Z", "1-0", "XY")):
        street.peers[name].close()
        del street.peers[name]
        for app in who:
            street.peers[app].expect(place, "DEVICE_OFFLINE", id=0)
        assert street.heard() == {}
        street.peers[name] = street.server.hardware(street.tokens[name])
        assert street.heard() == {app: [f"HARDWARE_CONNECTED {place} #1"] for app in who}


def test_boards_hear_of_apps_that_come_and_go_where_the_project_wants_it(street):
    again = street.server.app(street.emails["A"])
    assert street.heard() == {name: ["BLYNK_INTERNAL acon #7777"] for name in "HK"}
    again.close()
    for name in "HK":
        street.peers[name].expect("adis", "BLYNK_INTERNAL", id=7777)
    guest = street.server.guest(street.emails["A"], street.shares["A"])
    assert street.heard() == {}  # guests are not announced
    guest.close()
    for name in "HK":
        street.peers[name].expect("adis", "BLYNK_INTERNAL", id=7777)
    assert street.heard() == {}


def test_logging_out_ends_one_connection_and_forgets_one_phone_or_all(street):
    a = street.peers["A"]
    for project in (1, 2):
        a.add_widget(project, widget("NOTIFICATION", 76))

    def phones(project):
        shown = next(w for w in a.project(project)["widgets"] if w["id"] == 76)
        return sorted({**shown.get("androidTokens", {}), **shown.get("iOSTokens", {})})

    for uid in ("one", "two", "three"):
        for project in (1, 2):
            assert a.ask("ADD_PUSH_TOKEN", project, uid, "t") == OK
    for uid, left in (("two", ["one", "three"]), ("none", ["one", "three"])):
        leaving = street.server.app(street.emails["A"], os="iOS")
        assert leaving.ask("LOGOUT", uid) == OK
        leaving.closed()
        assert phones(1) == phones(2) == left
    for uid, first in (("", ["one", "three"]), ("three", ["one"])):
        guest = street.server.guest(street.emails["A"], street.shares["A"])
        assert guest.ask("LOGOUT", *([uid] if uid else [])) == OK
        guest.closed()
        assert (phones(1), phones(2)) == (first, ["one", "three"])  # of the shared project only
    leaving = street.server.app(street.emails["A"])
    assert leaving.ask("LOGOUT") == OK
    assert phones(1) == phones(2) == []
    for project in (1, 2):
        assert a.ask("DELETE_WIDGET", project, 76) == OK


def test_a_share_token_lets_in_only_with_the_owners_address_while_sharing_is_on(street):
    server, token = street.server, street.shares["A"]
    for email, sent in (
        (street.emails["X"], token),
        (street.emails["A"], street.shares["X"]),
        (street.emails["A"], ""),
        (street.emails["A"], street.tokens["H"]),
        ("nobody@example.com", token),
    ):
        with server.unknown() as guest:
            code = guest.share_login(email, sent)
            assert code == NOT_ALLOWED
            assert guest.share_login(street.emails["A"].upper(), token) == OK  # the same connection may try again
    with server.unknown() as guest:
        assert guest.ask("SHARE_LOGIN", street.emails["A"]) == ILLEGAL_COMMAND
        assert guest.ask("SHARE_LOGIN", street.emails["A"], token) == OK
        assert guest.ask("GET_DEVICES", 1) != NOT_ALLOWED


def test_a_new_token_throws_out_the_guests_of_that_project_only(street):
    a, server = street.peers["A"], street.server
    other_share = a.ask("GET_SHARE_TOKEN", 2).decode()
    assert a.ask("UPDATE_PROJECT_SETTINGS", 2, {"name": "Two", "isShared": True}) == OK
    other = server.guest(street.emails["A"], other_share)
    street.hush()
    id = a.command("REFRESH_SHARE_TOKEN", "1")
    street.peers["G"].expect_status(NOT_ALLOWED, id)
    street.peers["G"].closed()
    del street.peers["G"]
    street.shares["A"] = a.take(lambda f: f.command == "REFRESH_SHARE_TOKEN").text
    other.ping()
    assert server.unknown().share_login(street.emails["A"], street.shares["A"]) == OK
    street.peers["G"] = server.guest(street.emails["A"], street.shares["A"])
    other.close()
    for name in "HK":
        street.peers[name].expect("adis", "BLYNK_INTERNAL")


def test_a_deleted_project_ends_its_guests_and_boards(street):
    a, server = street.peers["A"], street.server
    a.make_project(3, devices=1, isShared=True)
    token = a.ask("GET_SHARE_TOKEN", 3).decode()
    guest, board = server.guest(street.emails["A"], token), server.hardware(a.token(3, 0))
    street.hush()
    guest.drain()
    told = street.tell("A", "DELETE_DASH", "3")
    assert told.pop("A") == ["DEVICE_OFFLINE 3-0 #0", "200"]
    assert told.pop("B") == ["DEVICE_OFFLINE 3-0 #0"]
    guest.expect("3-0", "DEVICE_OFFLINE")
    guest.expect_status(NOT_ALLOWED)
    guest.closed()
    board.closed()
    told.pop("H", None), told.pop("K", None)  # adis of the guest
    assert told == {}
    assert server.unknown().share_login(street.emails["A"], token) == NOT_ALLOWED


def test_a_guest_may_delete_data_where_the_report_widget_says_so(street):
    a, guest = street.peers["A"], street.peers["G"]
    a.add_widget(1, widget("REPORT", 77))
    assert guest.ask("DELETE_DEVICE_DATA", "1-0") == NOT_ALLOWED
    assert a.ask("UPDATE_WIDGET", 1, widget("REPORT", 77, allowEndUserToDeleteDataOn=True)) == OK
    assert guest.ask("DELETE_DEVICE_DATA", "1-0 v1") == OK
    assert guest.ask("DELETE_DEVICE_DATA", "1") == ILLEGAL_COMMAND
    assert a.ask("DELETE_WIDGET", 1, 77) == OK


def test_a_guest_cannot_flood_the_owners_document(street):
    a, guest = street.peers["A"], street.peers["G"]
    a.add_widget(1, widget("NOTIFICATION", 78))
    assert guest.ask("ADD_PUSH_TOKEN", "1", "uid", "x" * 5000) == NOT_ALLOWED
    for n in range(105):
        guest.command("ADD_PUSH_TOKEN", "1", f"uid{n}", "t")
    guest.drain()
    shown = next(w for w in a.project(1)["widgets"] if w["id"] == 78)
    assert list(shown["androidTokens"]) == [f"uid{n}" for n in range(5, 105)]
    assert a.ask("DELETE_WIDGET", 1, 78) == OK


def test_an_app_that_does_not_read_is_spared_broadcasts_and_the_others_get_them(street):
    deaf = App(HOST, street.server.https_port)
    assert deaf.login(street.emails["A"]) == OK
    street.hush()
    board = street.peers["H"]
    text = "x" * 60000
    for _ in range(60):  # far more than sockets hold: what it does not take is dropped
        board.command("HARDWARE", f"vw\x005\0{text}", id=IDS)
        board.ping()
        for name in "ABG":
            street.peers[name].drain()
    told = street.tell("B", "ACTIVATE_DASHBOARD", "2")
    assert told["A"][0] == "ACTIVATE_DASHBOARD 2" and "200" in told["B"]
    assert street.server.rss_kb() < 150_000
    deaf.close()
    until(lambda: any(f.text == "adis" for f in street.peers["K"].drain()), what="the end of the deaf app")
