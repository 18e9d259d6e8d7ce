"""What apps do (spec 03a), beyond the recorded conversations."""

import json
import zlib

import pytest
from clients import (
    DEVICE_NOT_IN_NETWORK,
    ILLEGAL_COMMAND,
    ILLEGAL_COMMAND_BODY,
    NOT_ALLOWED,
    OK,
    QUOTA_LIMIT,
    USER_ALREADY_REGISTERED,
    USER_NOT_AUTHENTICATED,
    USER_NOT_REGISTERED,
    new_email,
    password_hash,
    widget,
)

# ---------------------------------------------------------------------------------------------------------------
# Accounts
# ---------------------------------------------------------------------------------------------------------------


def test_the_hash_an_app_sends_is_the_documented_one():
    assert password_hash("1", "user@example.com") == "lzrpLkCfGLraaRJDA72qk57dwYgUQcoUXZTNuvnswfU="


def test_an_address_may_be_written_in_capitals(server):
    email = new_email("Mixed.Case")
    app = server.unknown()
    assert app.ask("REGISTER", f"  {email.upper()} ", password_hash("pw", email), "Blynk") == OK
    assert app.login(email.lower()) == OK
    again = server.unknown()
    assert again.login(email.upper()) == OK
    assert server.unknown().register(email) == USER_ALREADY_REGISTERED


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "a@",
        "@example.com",
        "a b@example.com",
        "a?b@example.com",
        "a@b@example.com",
        "x" * 250 + "@example.com",
    ],
)
def test_what_is_no_address_cannot_register(server, address):
    assert server.unknown().ask("REGISTER", address, "hash", "Blynk") == ILLEGAL_COMMAND


@pytest.mark.parametrize("address", ["../../x@example.com", "a/b@example.com", "a\\b@example.com", "..@example.com"])
def test_an_address_never_becomes_a_path(server, address):
    app = server.unknown()
    app.ask("REGISTER", address, "hash", "Blynk")
    app.ask("LOGIN", address, "hash", "Android", "2.27.0", "../../evil")
    for name in ("../evil", "a/b", "..", "a\0b"):
        server.unknown().ask("REGISTER", new_email(), "hash", name)
    assert server.app().ask("PING") == OK


def test_a_wrong_password_can_be_corrected_on_the_same_connection(server):
    email = new_email()
    app = server.unknown()
    assert app.login(email) == USER_NOT_REGISTERED
    assert app.register(email) == OK
    assert app.login(email, "wrong") == USER_NOT_AUTHENTICATED
    assert app.login(email) == OK


def test_ten_wrong_passwords_make_a_pause_for_that_address_only_after_them(make_server):
    server = make_server(limits_failed_logins=3, limits_failed_logins_window_s=60, limits_failed_logins_pause_s=2)
    owner = server.app()
    other = server.app()
    attacker = server.unknown()
    for _ in range(3):
        assert attacker.login(owner.email, "guess") == USER_NOT_AUTHENTICATED
    assert attacker.login(owner.email) != OK  # the right one, but too late
    assert server.unknown().login(other.email) == OK  # another account is not concerned
    assert owner.ask("PING") == OK


def test_a_new_accounts_profile_is_empty(server):
    app = server.app()
    assert app.profile().get("dashBoards", []) == []


def test_ids_of_answers_are_those_of_the_requests(server):
    app = server.app()
    for id in (0, 1, 999, 65535):
        app.command("PING", id=id)
        app.expect_status(OK, id)


def test_many_commands_in_one_write_are_answered_in_order(server):
    app = server.app()
    app.send_raw(b"".join(app.pack("PING", b"", id) for id in range(1, 90)))
    assert [app.next().id for _ in range(1, 90)] == list(range(1, 90))


# ---------------------------------------------------------------------------------------------------------------
# Projects
# ---------------------------------------------------------------------------------------------------------------


def test_a_project_comes_back_as_it_was_sent(server):
    app = server.app()
    document = {
        "id": 5,
        "name": "Gärten 花園",
        "createdAt": 12345,
        "theme": "BlynkLight",
        "color": -1,
        "keepScreenOn": True,
        "somethingNew": {"of": ["a", "newer", "app"]},
        "devices": [{"id": 0, "name": "Fühler", "boardType": "ESP8266", "futureField": 7}],
        "widgets": [widget("BUTTON", 1, 5, value="1", label="Ein"), widget("WIDGET_OF_2031", 2, 6, shine=9)],
        "tags": [{"id": 100000, "name": "all", "deviceIds": [0]}],
    }
    assert app.ask("CREATE_DASH", document) == OK
    project = app.project(5)
    for key in ("name", "createdAt", "theme", "keepScreenOn", "somethingNew", "tags"):
        assert project[key] == document[key], key
    assert project["widgets"][1]["shine"] == 9
    assert project["widgets"][1]["type"] == "WIDGET_OF_2031"
    assert project["devices"][0]["name"] == "Fühler"
    assert len(project["devices"][0]["token"]) == 32


@pytest.mark.parametrize(
    "body, code",
    [
        (b"", ILLEGAL_COMMAND),
        (b"{", ILLEGAL_COMMAND_BODY),
        (b"[]", ILLEGAL_COMMAND_BODY),
        (b"nonsense", ILLEGAL_COMMAND_BODY),
        (b'{"id":"x"}', ILLEGAL_COMMAND_BODY),
        (b'{"id":1,"widgets":7}', ILLEGAL_COMMAND_BODY),
        (b'{"id":1,"name":{"a":1}}', ILLEGAL_COMMAND_BODY),
        (b'{"id":1,"devices":[1]}', ILLEGAL_COMMAND_BODY),
        (b"[" * 5000, ILLEGAL_COMMAND_BODY),
        (b'{"id":' + b"9" * 400 + b"}", ILLEGAL_COMMAND_BODY),
        (b"\xff\xfe{}", ILLEGAL_COMMAND_BODY),
    ],
)
def test_a_project_that_is_none_is_refused_and_nothing_changes(server, body, code):
    app = server.app()
    assert app.ask("CREATE_DASH", body) == code
    assert app.profile().get("dashBoards", []) == []


def test_a_project_id_cannot_be_taken_twice(server):
    app = server.app()
    app.make_project(1)
    assert app.ask("CREATE_DASH", {"id": 1, "name": "again"}) == NOT_ALLOWED
    assert app.project(1)["name"] == "Project 1"


def test_the_limit_of_projects_is_the_settings(make_server):
    server = make_server(limits_dashboards=2)
    app = server.app()
    app.make_project(1)
    app.make_project(2)
    assert app.ask("CREATE_DASH", {"id": 3, "name": "x"}) == QUOTA_LIMIT


def test_a_share_token_in_a_created_project_is_dropped(server):
    app = server.app()
    app.make_project(1, isShared=True, sharedToken="x" * 32)
    assert server.unknown().share_login(app.email, "x" * 32) == NOT_ALLOWED


def test_an_update_keeps_devices_and_replaces_widgets(house):
    project = house.app.project(1)
    project["name"] = "Renamed"
    project["widgets"] = [widget("LED", 4, 8)]
    project["devices"] = []
    assert house.app.ask("UPDATE_DASH", project) == OK
    project = house.app.project(1)
    assert project["name"] == "Renamed"
    assert [w["id"] for w in project["widgets"]] == [4]
    assert [d["token"] for d in project["devices"]] == house.tokens


def test_another_app_of_the_account_sees_a_change_when_it_asks(house):
    second = house.second_app()
    house.app.add_widget(1, widget("LED", 4, 8))
    assert second.widget(1, 4)["type"] == "LED"
    second.silence()


def test_deactivating_tells_the_other_app(house):
    second = house.second_app()
    house.app.command("DEACTIVATE_DASHBOARD", "1", id=31)
    house.app.expect_status(OK, 31)
    second.expect("1", "DEACTIVATE_DASHBOARD", id=31)
    house.app.command("ACTIVATE_DASHBOARD", "1", id=32)
    house.app.expect_status(DEVICE_NOT_IN_NETWORK, 32)
    second.expect("1", "ACTIVATE_DASHBOARD", id=32)


def test_the_empty_load_and_the_load_of_one_project_agree(house):
    whole = house.app.profile()["dashBoards"][0]
    one = house.app.project(1)
    assert whole == one
    raw = house.app.ask("LOAD_PROFILE_GZIPPED", 1)
    assert raw[:2] == b"\x78\x9c" and json.loads(zlib.decompress(raw)) == one


# ---------------------------------------------------------------------------------------------------------------
# Widgets and devices
# ---------------------------------------------------------------------------------------------------------------


def test_a_widget_lives_from_creation_to_deletion(house):
    app = house.app
    app.add_widget(1, widget("SLIDER", 10, 5, label="Speed"))
    assert app.ask("CREATE_WIDGET", 1, widget("LED", 10, 6)) == NOT_ALLOWED
    assert app.ask("UPDATE_WIDGET", 1, widget("SLIDER", 10, 6, label="Faster")) == OK
    assert app.widget(1, 10)["label"] == "Faster" and app.widget(1, 10)["pin"] == 6
    assert app.ask("DELETE_WIDGET", 1, 10) == OK
    assert app.ask("DELETE_WIDGET", 1, 10) == ILLEGAL_COMMAND
    assert app.ask("GET_WIDGET", 1, 10) == ILLEGAL_COMMAND


@pytest.mark.parametrize(
    "body, code",
    [
        ("1", ILLEGAL_COMMAND),
        ("9 {}", ILLEGAL_COMMAND),
        ('1 {"id":1', ILLEGAL_COMMAND_BODY),
        ("x {}", ILLEGAL_COMMAND),
    ],
)
def test_a_widget_that_is_none_is_refused(house, body, code):
    assert house.app.ask("CREATE_WIDGET", body) == code
    assert house.app.project(1).get("widgets", []) == []


def test_a_widget_larger_than_allowed_is_refused(make_server):
    server = make_server(limits_widget_kb=1)
    app = server.app()
    app.make_project(1)
    assert app.ask("CREATE_WIDGET", 1, widget("TEXT", 1, label="x" * 2000)) == NOT_ALLOWED


def test_a_device_lives_from_creation_to_deletion(house):
    app = house.app
    made = app.json("CREATE_DEVICE", 1, {"id": 7, "name": "Shed", "boardType": "ESP8266"})
    hw = house.server.hardware(made["token"])
    app.expect("1-7", "HARDWARE_CONNECTED")
    assert app.ask("UPDATE_DEVICE", 1, {"id": 7, "name": "Barn", "boardType": "ESP8266"}) == OK
    assert app.device(1, 7)["name"] == "Barn"
    assert app.device(1, 7)["token"] == made["token"]
    hw.send("vw 1 still here")
    app.expect("1-7 vw 1 still here")
    assert app.ask("DELETE_DEVICE", 1, 7) == OK
    hw.closed()
    assert [d["id"] for d in app.json("GET_DEVICES", 1)] == [0, 1]


def test_the_limit_of_devices_is_the_settings_and_one(make_server):
    server = make_server(limits_devices=2)
    app = server.app()
    app.make_project(1, devices=1)
    codes = [app.ask("CREATE_DEVICE", 1, {"id": i, "name": "x", "boardType": "ESP8266"}) for i in range(1, 5)]
    assert [isinstance(code, bytes) for code in codes] == [True, True, False, False]
    assert codes[2] == codes[3] == NOT_ALLOWED


# ---------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------


def test_a_write_reaches_the_board_and_the_other_app(house):
    second, hw = house.second_app(), house.hardware()
    second.expect("1-0", "HARDWARE_CONNECTED")
    house.app.send("1-0 vw 5 1 2 3", id=90)
    hw.expect("vw 5 1 2 3", id=90)
    second.expect("1-0 vw 5 1 2 3", "APP_SYNC", id=90)
    house.app.silence()
    hw.silence()


def test_a_write_to_a_sleeping_board_is_kept_for_it(house):
    house.app.send("1-0 vw 5 later", id=90)
    house.app.expect_status(DEVICE_NOT_IN_NETWORK, 90)
    assert house.hardware().sync(5) == ["vw 5 later"]


def test_without_a_target_the_first_device_is_meant(house):
    hw = house.hardware()
    house.app.send("1 vw 5 1")
    hw.expect("vw 5 1")


@pytest.mark.parametrize(
    "body, code",
    [
        ("1-0 vw", ILLEGAL_COMMAND_BODY),
        ("1-0 vw 5", ILLEGAL_COMMAND_BODY),
        ("1-0 vw 256 1", ILLEGAL_COMMAND),
        ("1-0 xw 5 1", ILLEGAL_COMMAND),
        ("9-0 vw 5 1", ILLEGAL_COMMAND),
        ("x vw 5 1", ILLEGAL_COMMAND),
        ("1-x vw 5 1", ILLEGAL_COMMAND),
        ("99999999999 vw 5 1", ILLEGAL_COMMAND),
    ],
)
def test_a_write_that_makes_no_sense_is_refused(house, body, code):
    hw = house.hardware()
    assert house.app.ask("HARDWARE", body) == code
    hw.silence()


@pytest.mark.parametrize("body", ["1-0 vr 5", "1-0 pm 1 out", "1-77 vw 5 1", "1-100005 vw 5 1", "1-200005 vw 5 1"])
def test_reads_and_writes_to_nobody_are_silent(house, body):
    hw = house.hardware()
    house.app.command("HARDWARE", body)
    house.app.silence()
    hw.silence()


def test_a_tag_writes_to_all_its_devices(house):
    first, second = house.hardware(0), house.hardware(1)
    tag = house.app.json("CREATE_TAG", 1, {"id": 100000, "name": "both", "deviceIds": [0, 1]})
    house.app.send(f"1-{tag['id']} vw 5 1", id=90)
    first.expect("vw 5 1", id=90)
    second.expect("vw 5 1", id=90)
    house.app.silence()


def test_a_selector_writes_to_the_chosen_device(house):
    first, second = house.hardware(0), house.hardware(1)
    house.app.add_widget(1, widget("DEVICE_SELECTOR", 200000, value=0, deviceIds=[0, 1]))
    house.app.send("1-200000 vw 5 one")
    first.expect("vw 5 one")
    assert house.app.ask("HARDWARE", "1 vu 200000 1") == OK
    house.app.send("1-200000 vw 5 two")
    second.expect("vw 5 two")
    first.silence()


def test_app_sync_tells_every_kept_value(house):
    hw = house.hardware()
    house.app.add_widget(1, widget("SLIDER", 1, 3))
    for text in ("vw 3 30", "vw 9 90", "dw 2 1"):
        hw.send(text)
        house.app.expect(f"1-0 {text}")
    assert sorted(house.app.sync()) == ["1-0 dw 2 1", "1-0 vw 3 30", "1-0 vw 9 90"]
    assert house.app.sync("1-1") == []


def test_a_browser_tab_is_an_app_like_any_other(house):
    tab = house.server.app_websocket(house.email)
    plain = house.server.app_websocket(house.email, tls=False)
    hw = house.hardware()
    for peer in (tab, plain):
        peer.expect("1-0", "HARDWARE_CONNECTED")
    hw.send("vw 5 1")
    for peer in (tab, plain, house.app):
        peer.expect("1-0 vw 5 1")
    tab.send("1-0 vw 6 2", id=8)
    hw.expect("vw 6 2", id=8)
    house.app.expect("1-0 vw 6 2", "APP_SYNC", id=8)
    tab.close()
    plain.close()


def test_a_large_project_travels_both_ways_through_a_browser_tab(make_server):
    server = make_server(limits_profile_kb=256)
    tab = server.app_websocket(server.app().email)
    widgets = [widget("TEXT", i, label="x" * 1000) for i in range(200)]
    tab.make_project(1, widgets=widgets)
    assert [w["id"] for w in tab.project(1)["widgets"]] == list(range(200))


# ---------------------------------------------------------------------------------------------------------------
# Guests
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guest(house):
    token = house.app.ask("GET_SHARE_TOKEN", 1).decode()
    assert house.app.ask("SHARING", 1, "on") == OK
    guest = house.server.guest(house.email, token)
    house.peers.append(guest)
    return guest


def test_a_guest_sees_the_shared_project_without_its_secrets(house, guest):
    hw = house.hardware()
    guest.expect("1-0", "HARDWARE_CONNECTED")
    hw.send("vw 5 1")
    guest.expect("1-0 vw 5 1")
    profile = guest.profile()
    text = json.dumps(profile)
    assert [p["id"] for p in profile["dashBoards"]] == [1]
    assert not any(token in text for token in house.tokens)
    assert "sharedToken" not in text
    assert not any(token.encode() in guest.ask("GET_DEVICES", 1) for token in house.tokens)


def test_a_guest_sees_nothing_of_another_project(house, guest):
    house.app.make_project(2)
    hw = house.server.hardware(house.app.token(2, 0))
    hw.send("vw 5 secret")
    guest.silence(hw)
    for command, body in [
        ("LOAD_PROFILE_GZIPPED", "2"),
        ("APP_SYNC", "2"),
        ("GET_DEVICES", "2"),
        ("HARDWARE", "2-0 vw 5 1"),
        ("DELETE_DEVICE_DATA", "2-0"),
        ("ADD_PUSH_TOKEN", "2 uid token"),
    ]:
        assert guest.ask(command, body) == NOT_ALLOWED, command
    hw.silence()


def test_a_guest_writes_while_sharing_is_on(house, guest):
    hw = house.hardware()
    guest.send("1-0 vw 5 1", id=5)
    hw.expect("vw 5 1", id=5)
    house.app.expect("1-0 vw 5 1", "APP_SYNC", id=5)
    assert house.app.ask("SHARING", 1, "off") == OK
    assert guest.ask("HARDWARE", "1-0 vw 5 2") == NOT_ALLOWED
    hw.silence()


def test_a_guest_cannot_change_anything(house, guest):
    for command in ("CREATE_WIDGET", "DELETE_DASH", "UPDATE_DASH", "REFRESH_TOKEN", "CREATE_DASH", "GET_SHARE_TOKEN"):
        guest.command(command, "1", {"id": 1})
    guest.silence() if not guest.inbox else guest.expect("1 on", "SHARING")
    assert house.app.project(1)["name"] == "Project 1"


def test_a_new_share_token_ends_the_guests(house, guest):
    id = house.app.command("REFRESH_SHARE_TOKEN", "1")
    guest.expect_status(NOT_ALLOWED, id)
    guest.closed()


@pytest.mark.parametrize(
    ("address", "app_name"),
    [
        ("ann@mail.example", "org.Blynk"),  # with ann@mail.example.org there, both would be one file
        ("a" * 60 + "@" + ".".join(["b" * 60] * 2) + ".de", "x" * 90),  # no file system takes it
        ("ann@example.com", "ä"),
        ("ann@example.com", ""),
    ],
)
def test_a_name_that_cannot_be_a_file_of_its_own_is_refused(server, address, app_name):
    assert server.unknown().ask("REGISTER", address, "hash", app_name) == ILLEGAL_COMMAND


def test_before_the_login_no_frame_is_long(server):
    app = server.unknown()
    app.sock.sendall(bytes.fromhex("02000100020000"))  # a login of 128 KB is announced
    app.closed()
