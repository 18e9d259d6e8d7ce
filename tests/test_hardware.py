"""What boards do (spec 02), beyond the recorded conversations: presence, fan-out, sync, bridge, info, properties."""

import struct
import time

import pytest
from clients import (
    DEVICE_NOT_IN_NETWORK,
    ILLEGAL_COMMAND,
    ILLEGAL_COMMAND_BODY,
    INVALID_TOKEN,
    NOT_ALLOWED,
    OK,
    new_email,
    until,
    widget,
)

INFO = "ver 0.6.1 h-beat 10 buff-in 256 dev ESP8266 build Jan"


# ---------------------------------------------------------------------------------------------------------------
# Login and presence
# ---------------------------------------------------------------------------------------------------------------


def test_a_token_may_have_blanks_around_it(house):
    hw = house.server.hardware()
    assert hw.login(f" \r\n{house.tokens[0]}\0\n") == OK


@pytest.mark.parametrize("token", ["", "x", "x" * 31, "x" * 32, "x" * 33, "ü" * 16, "a\0b", "x" * 5000])
def test_a_wrong_token_is_told_so_and_may_be_corrected(house, token):
    hw = house.server.hardware()
    assert hw.login(token) == INVALID_TOKEN
    assert hw.login(house.tokens[0]) == OK


def test_the_login_is_answered_with_its_own_id(house):
    hw = house.server.hardware()
    hw.command("HARDWARE_LOGIN", house.tokens[0].encode(), id=77)
    hw.expect_status(OK, 77)
    house.app.expect("1-0", "HARDWARE_CONNECTED", id=77)


def test_the_app_sees_when_a_board_came_and_went(house):
    hw = house.hardware()
    device = house.app.device(1, 0)
    assert device["status"] == "ONLINE"
    assert abs(device["connectTime"] / 1000 - time.time()) < 60
    assert device["firstConnectTime"] == device["connectTime"]
    hw.close()
    house.app.expect("1-0", "DEVICE_OFFLINE", id=0)
    device = house.app.device(1, 0)
    assert device["status"] == "OFFLINE"
    assert device["disconnectTime"] >= device["connectTime"]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_end_of_a_connection_is_known_before_the_next_command_is_answered(house, end):
    hw = house.hardware()
    getattr(hw, end)()
    house.app.expect("1-0", "DEVICE_OFFLINE")
    assert house.app.ask("ACTIVATE_DASHBOARD", 1) == DEVICE_NOT_IN_NETWORK


def test_while_a_second_connection_lives_the_device_is_online(house):
    first, second = house.hardware(), house.hardware()
    first.close()
    second.send("vw 1 1")
    house.app.expect("1-0 vw 1 1")
    house.app.silence()
    assert house.app.device()["status"] == "ONLINE"
    second.close()
    house.app.expect("1-0", "DEVICE_OFFLINE")


def test_both_connections_of_a_device_get_what_the_app_writes(house):
    first, second = house.hardware(), house.hardware()
    house.app.send("1-0 vw 3 9", id=44)
    first.expect("vw 3 9", id=44)
    second.expect("vw 3 9", id=44)


def test_a_new_token_ends_the_old_connections(house):
    hw = house.hardware()
    token = house.app.ask("REFRESH_TOKEN", 1, 0).decode()
    assert len(token) == 32 and token != house.tokens[0]
    hw.closed()
    house.app.expect("1-0", "DEVICE_OFFLINE")
    assert house.server.hardware().login(house.tokens[0]) == INVALID_TOKEN
    assert house.server.hardware().login(token) == OK


# ---------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------


def test_a_value_reaches_every_app_of_the_account_and_no_other(house):
    second, stranger = house.second_app(), house.server.app()
    stranger.make_project(1)
    hw = house.hardware()
    second.expect("1-0", "HARDWARE_CONNECTED")
    hw.send("vw 5 1 2 3", id=300)
    house.app.expect("1-0 vw 5 1 2 3", id=300)
    second.expect("1-0 vw 5 1 2 3", id=300)
    hw.silence()
    stranger.silence()


@pytest.mark.parametrize(
    "sent, kept",
    [
        ("vw 5 1", "vw 5 1"),
        ("Vw 5 1", "vw 5 1"),
        ("dw 13 0", "dw 13 0"),
        ("aw 17 1023", "aw 17 1023"),
        ("vw 007 x", "vw 7 x"),
        ("vw +7 y", "vw 7 y"),
        ("vwx 8 z", "vw 8 z"),
    ],
)
def test_a_write_is_forwarded_as_it_was_sent_and_kept_under_its_pin(house, sent, kept):
    hw = house.hardware()
    hw.send(sent)
    house.app.expect(f"1-0 {sent}")
    assert kept in hw.sync()


@pytest.mark.parametrize("body", ["vr 5 1", "ar 1 2", "pm 1 out", "vm 1 2", "VW 5 1", "vW 5 1", "v 5 123", "    "])
def test_what_is_not_a_write_is_ignored(house, body):
    hw = house.hardware()
    hw.command("HARDWARE", body.encode() if not body.strip() else body)
    hw.silence()
    house.app.silence()


@pytest.mark.parametrize("body", ["", "v", "vw", "vw 5", "vw 5 ", "vw  5"])
def test_a_write_that_lacks_something_is_illegal(house, body):
    hw = house.hardware()
    assert hw.ask("HARDWARE", body) == ILLEGAL_COMMAND
    house.app.silence()


def test_a_write_to_a_project_that_is_not_active_is_kept_but_not_shown(house):
    hw = house.hardware()
    assert house.app.ask("DEACTIVATE_DASHBOARD", 1) == OK
    hw.send("vw 5 hidden")
    hw.silence()
    house.app.silence()
    assert hw.sync(5) == ["vw 5 hidden"]


def test_bytes_that_are_no_text_become_question_marks_of_unicode(house):
    hw = house.hardware()
    hw.send(b"vw\x005\x00a\xff\xfeb")
    house.app.expect("1-0 vw 5 a\ufffd\ufffdb")


def test_thousands_of_writes_at_once_arrive_in_order(make_server):
    server = make_server(limits_messages_per_s=1000000)
    app = server.app()
    app.make_project(1)
    hw = server.hardware(app.token())
    app.expect("1-0", "HARDWARE_CONNECTED")
    count = 3000
    hw.send_raw(b"".join(hw.pack("HARDWARE", b"vw\x005\x00%d" % i, 1 + i % 60000) for i in range(count)))
    for i in range(count):
        frame = app.next()
        assert frame.text == f"1-0 vw 5 {i}"
    assert hw.sync(5) == [f"vw 5 {count - 1}"]


def test_a_long_value_is_not_sent_to_a_board_that_said_how_much_it_can_take(house):
    hw = house.hardware()
    assert hw.ask("BLYNK_INTERNAL", "ver 0.6.1 buff-in 12") == OK
    house.app.send("1-0 vw 1 12")
    hw.expect("vw 1 12")
    house.app.send("1-0 vw 1 123", id=50)
    house.app.expect_status(DEVICE_NOT_IN_NETWORK, 50)
    hw.silence()


def test_without_an_announcement_250_characters_fit(house):
    hw = house.hardware()
    fits, too_long = "x" * (250 - 5), "x" * (251 - 5)
    house.app.send("1-0", "vw", "1", fits)
    hw.expect(f"vw 1 {fits}")
    house.app.send("1-0", "vw", "1", too_long, id=50)
    house.app.expect_status(DEVICE_NOT_IN_NETWORK, 50)
    hw.silence()


def test_an_id_of_zero_never_reaches_a_board(house):
    hw = house.hardware()
    house.app.send("1-0 vw 1 5", id=0)
    frame = hw.take(lambda f: f.text == "vw 1 5")
    assert frame.id == 1


def test_pin_modes_follow_the_login(house):
    house.app.add_widget(1, widget("BUTTON", 1, 2, "DIGITAL"))
    house.app.add_widget(1, widget("GAUGE", 2, 7, "DIGITAL"))
    house.app.add_widget(1, widget("BUTTON", 3, 4, "VIRTUAL"))
    hw = house.hardware()
    hw.expect("pm 2 out 7 in", id=1)
    hw.silence()


# ---------------------------------------------------------------------------------------------------------------
# Sync
# ---------------------------------------------------------------------------------------------------------------


def test_sync_returns_widgets_first_and_stored_pins_after_them(house):
    house.app.add_widget(1, widget("SLIDER", 1, 3, value="77"))
    hw = house.hardware()
    hw.send("vw 9 stored")
    assert hw.sync() == ["vw 3 77", "vw 9 stored"]
    assert hw.sync(9, 3) == ["vw 9 stored", "vw 3 77"]
    assert hw.sync(200) == []


def test_sync_of_one_device_does_not_tell_another_devices_values(house):
    first, second = house.hardware(0), house.hardware(1)
    first.send("vw 1 mine")
    first.ping()
    assert second.sync() == []
    assert first.sync() == ["vw 1 mine"]


def test_a_widget_without_sync_output_hides_the_storage(house):
    hw = house.hardware()
    hw.send("vw 9 stored")
    house.app.add_widget(1, widget("VIDEO", 1, 9))
    assert hw.sync(9) == []


@pytest.mark.parametrize("body", ["vr", "v", "xr 1", "vr 1 256", "vr x"])
def test_a_sync_that_makes_no_sense_is_illegal(house, body):
    hw = house.hardware()
    id = hw.command("HARDWARE_SYNC", body)
    hw.expect_status(ILLEGAL_COMMAND, id)


def test_a_sync_of_many_pins_stops_at_the_wrong_one(house):
    hw = house.hardware()
    hw.send("vw 1 a")
    hw.send("vw 2 b")
    id = hw.command("HARDWARE_SYNC", "vr 1 999 2")
    assert hw.next().text == "vw 1 a"
    hw.expect_status(ILLEGAL_COMMAND, id)
    hw.silence()


# ---------------------------------------------------------------------------------------------------------------
# Bridge
# ---------------------------------------------------------------------------------------------------------------


def test_a_bridge_carries_a_value_to_the_other_board_and_to_the_app(house):
    first, second = house.hardware(0), house.hardware(1)
    assert first.ask("BRIDGE", f"64 i {house.tokens[1]}") == OK
    first.command("BRIDGE", "64 vw 1 255", id=60)
    second.expect("vw 1 255", "BRIDGE", id=60)
    house.app.expect("1-1 vw 1 255", id=60)
    first.silence()
    assert second.sync(1) == ["vw 1 255"]


def test_a_bridge_to_a_sleeping_board_keeps_the_value_for_it(house):
    first = house.hardware(0)
    assert first.ask("BRIDGE", f"64 i {house.tokens[1]}") == OK
    assert first.ask("BRIDGE", "64 vw 1 7") == DEVICE_NOT_IN_NETWORK
    house.app.expect("1-1 vw 1 7")
    assert house.hardware(1).sync(1) == ["vw 1 7"]


def test_a_bridge_belongs_to_one_connection_and_one_account(house):
    first = house.hardware(0)
    assert first.ask("BRIDGE", "64 vw 1 1") == NOT_ALLOWED
    stranger = house.server.app()
    stranger.make_project(1)
    assert first.ask("BRIDGE", f"64 i {stranger.token()}") == NOT_ALLOWED
    assert first.ask("BRIDGE", "64 i " + "x" * 32) == NOT_ALLOWED
    assert first.ask("BRIDGE", "64 i") == ILLEGAL_COMMAND
    assert first.ask("BRIDGE", f"64 i {house.tokens[1]}") == OK
    assert house.hardware(0).ask("BRIDGE", "64 vw 1 1") == NOT_ALLOWED


def test_a_connection_has_101_bridges_and_no_more(house):
    hw = house.hardware(0)
    for pin in range(101):
        assert hw.ask("BRIDGE", f"{pin} i {house.tokens[1]}") == OK
    assert hw.ask("BRIDGE", f"200 i {house.tokens[1]}") == NOT_ALLOWED


# ---------------------------------------------------------------------------------------------------------------
# Internal
# ---------------------------------------------------------------------------------------------------------------


def test_device_info_is_kept_with_the_device(house):
    hw = house.hardware()
    assert hw.ask("BLYNK_INTERNAL", INFO) == OK
    info = house.app.device()["hardwareInfo"]
    assert info["blynkVersion"] == "0.6.1"
    assert info["boardType"] == "ESP8266"
    assert info["heartbeatInterval"] == 10
    assert info["buffIn"] == 256
    assert hw.ask("BLYNK_INTERNAL", "ver 1.0.0") == OK
    info = house.app.device()["hardwareInfo"]
    assert info["blynkVersion"] == "1.0.0" and "boardType" not in info and info["buffIn"] == 250


def test_a_new_librarys_info_frame_counts_as_one(house):
    hw = house.hardware()
    assert hw.ask("BLYNK_INTERNAL", "mcu 1.2.3 fw-type TMPL1 build Jan blynk 1.3.2 h-beat 45 buff-in 1024") == OK
    assert house.app.device()["hardwareInfo"]["heartbeatInterval"] == 45


@pytest.mark.parametrize("body", ["acon", "adis", "ota", "meta", "dbg", "vfs", "zzz"])
def test_internal_words_that_mean_nothing_here_are_ignored(house, body):
    hw = house.hardware()
    hw.command("BLYNK_INTERNAL", body)
    hw.silence()


def test_an_empty_internal_frame_is_illegal(house):
    assert house.hardware().ask("BLYNK_INTERNAL") == ILLEGAL_COMMAND


def test_rtc_tells_the_time_of_the_widgets_zone(house):
    hw = house.hardware()
    hw.command("BLYNK_INTERNAL", "rtc sync")
    hw.silence()  # no such widget yet
    house.app.add_widget(1, widget("RTC", 1, tzName="Asia/Kathmandu"))
    answer = hw.ask("BLYNK_INTERNAL", "rtc sync").decode()
    word, seconds = answer.split("\0")
    assert word == "rtc"
    assert abs(int(seconds) - (time.time() + 5.75 * 3600)) < 60


def test_a_board_learns_that_an_app_came_and_went(server):
    app = server.app()
    app.make_project(1, isAppConnectedOn=True)
    hw = server.hardware(app.token())
    second = server.app(app.email)
    hw.expect("acon", "BLYNK_INTERNAL", id=7777)
    second.close()
    hw.expect("adis", "BLYNK_INTERNAL", id=7777)


# ---------------------------------------------------------------------------------------------------------------
# Properties
# ---------------------------------------------------------------------------------------------------------------


def test_a_property_changes_the_widget_and_the_app_sees_it(house):
    house.app.add_widget(1, widget("GAUGE", 1, 5))
    hw = house.hardware()
    assert hw.ask("SET_WIDGET_PROPERTY", "5", "label", "Living room", id=70) == OK
    house.app.expect("1-0 5 label Living room", "SET_WIDGET_PROPERTY", id=70)
    assert hw.ask("SET_WIDGET_PROPERTY", "5 color #23C48E") == OK
    document = house.app.widget(1, 1)
    assert document["label"] == "Living room"
    assert document["color"] == 600084223
    assert hw.ask("SET_WIDGET_PROPERTY", "5 min x") == ILLEGAL_COMMAND
    assert hw.ask("SET_WIDGET_PROPERTY", "5 nonsense x") == ILLEGAL_COMMAND_BODY
    assert hw.ask("SET_WIDGET_PROPERTY", "300 label x") == ILLEGAL_COMMAND


def test_a_property_of_a_pin_without_widget_waits_for_one(house):
    hw = house.hardware()
    assert hw.ask("SET_WIDGET_PROPERTY", "9", "label", "Later") == OK
    house.app.expect("1-0 9 label Later", "SET_WIDGET_PROPERTY")
    assert "1-0 9 label Later" in house.app.sync()
    assert hw.sync() == []  # properties are for apps


# ---------------------------------------------------------------------------------------------------------------
# Housekeeping
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"hello", b"\0" * 10])
def test_ping_is_answered_whatever_it_carries(house, body):
    hw = house.hardware()
    assert hw.ask("PING", body) == OK


def test_a_heartbeat_longer_than_the_setting_is_respected(make_server):
    server = make_server(timeouts_hardware_idle_s=1)
    app = server.app()
    app.make_project(1, devices=2)
    short, long = server.hardware(app.token(1, 0)), server.hardware(app.token(1, 1))
    assert long.ask("BLYNK_INTERNAL", "ver 1.0 h-beat 60") == OK
    began = time.monotonic()
    short.closed(8)
    took = time.monotonic() - began
    assert 2.5 <= took <= 4.5, f"ceil(1 × 2.3) = 3 s, not {took:.1f}"
    long.silence()


def test_deleting_the_project_closes_its_boards(house):
    hw = house.hardware()
    id = house.app.command("DELETE_DASH", 1)
    hw.closed()
    house.app.expect("1-0", "DEVICE_OFFLINE")
    house.app.expect_status(OK, id)
    house.app.silence()
    assert house.server.hardware().login(house.tokens[0]) == INVALID_TOKEN


def test_a_board_keeps_talking_while_its_project_is_changed(house):
    hw = house.hardware()
    project = house.app.project(1)
    project["widgets"] = [widget("SLIDER", 9, 5)]
    assert house.app.ask("UPDATE_DASH", project) == OK
    hw.send("vw 5 31")
    house.app.expect("1-0 vw 5 31")
    assert house.app.widget(1, 9)["value"] == "31"
    assert house.app.ask("DELETE_WIDGET", 1, 9) == OK
    hw.send("vw 5 32")
    house.app.expect("1-0 vw 5 32")
    assert hw.sync(5) == ["vw 5 32"]


def test_the_same_address_under_two_app_names_is_two_accounts(server):
    email = new_email()
    accounts = []
    for name in ("Blynk", "other"):
        app = server.unknown()
        assert app.register(email, "pw", name) == OK
        assert app.login(email, "pw", name) == OK
        app.make_project(1)
        accounts.append(app)
    hw = server.hardware(accounts[0].token())
    accounts[0].expect("1-0", "HARDWARE_CONNECTED")
    hw.send("vw 1 1")
    accounts[0].expect("1-0 vw 1 1")
    accounts[1].silence()


def test_a_frame_of_a_length_that_never_comes_does_not_block_others(house):
    stuck = house.hardware(0)
    stuck.send_raw(struct.pack(">BHH", 20, 5, 1000) + b"vw")
    hw = house.hardware(1)
    hw.send("vw 1 1")
    house.app.expect("1-1 vw 1 1")


def test_when_a_board_is_gone_without_a_word_the_idle_deadline_ends_it(make_server):
    server = make_server(timeouts_hardware_idle_s=1)
    app = server.app()
    app.make_project(1)
    hw = server.hardware(app.token())
    app.expect("1-0", "HARDWARE_CONNECTED")
    app.expect("1-0", "DEVICE_OFFLINE", timeout=8)
    until(lambda: app.device()["status"] == "OFFLINE")
    hw.closed(1)
