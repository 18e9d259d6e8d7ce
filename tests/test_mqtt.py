"""Boards that speak MQTT (spec 01 §10), with paho-mqtt as the board, and the codec by itself."""

import queue

import pytest
from clients import OK, TIMEOUT, connect, until, widget
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import HOST

import blynk_pi
from blynk_pi import MqttCodec, MqttError

mqtt = pytest.importorskip("paho.mqtt.client")


class Board:
    """A paho client: connect(), write(), next()."""

    def __init__(self, server, user, token, protocol=mqtt.MQTTv311, keepalive=60):
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
        self.client.username_pw_set(user, token)
        self.events = queue.Queue()
        self.client.on_connect = lambda c, u, flags, reason, p: self.events.put(
            ("connected", reason.value, flags.session_present)
        )
        self.client.on_disconnect = lambda c, u, flags, reason, p: self.events.put(("disconnected", None, None))
        self.client.on_message = lambda c, u, m: self.events.put((m.topic, m.payload.decode(), m.qos))
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.events.put(
            ("subscribed", [code.value for code in codes], None)
        )
        self.client.on_unsubscribe = lambda c, u, mid, codes, p: self.events.put(("unsubscribed", None, None))
        self.client.connect(HOST, server.mqtt_port, keepalive=keepalive)
        self.client.loop_start()

    def next(self):
        return self.events.get(timeout=TIMEOUT)

    def write(self, text, qos=0, topic="hardware"):
        info = self.client.publish(topic, text, qos)
        info.wait_for_publish(TIMEOUT)
        return info.mid

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def board(server, house):
    """A board of device 0 that is connected; the app has seen it come."""
    board = Board(server, house.email.upper(), house.tokens[0])
    assert board.next() == ("connected", 0, False)
    house.app.expect("1-0", "HARDWARE_CONNECTED", id=65535)
    yield board
    board.close()


def test_a_device_is_online_while_it_is_connected(server, house, board):
    assert house.app.device()["status"] == "ONLINE"
    assert server.get(f"/{house.tokens[0]}/isHardwareConnected").text == "true"
    board.close()
    house.app.expect("1-0", "DEVICE_OFFLINE")
    assert house.app.device()["status"] == "OFFLINE"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_values_reach_app_and_project(server, house, board, qos):
    house.app.add_widget(1, widget("SLIDER", 5, 5))
    mid = board.write("vw 5 123", qos)
    house.app.expect("1-0 vw 5 123", id=mid if qos else 65535)
    assert house.app.widget(1, 5)["value"] == "123"
    board.write("vw 6 two words", qos, topic="Hardware")
    house.app.expect("1-0 vw 6 two words")
    assert server.get(f"/{house.tokens[0]}/get/v6").json() == ["two", "words"]


def test_two_devices_keep_their_values_apart(server, house, board):
    other = Board(server, house.email, house.tokens[1])
    assert other.next()[0] == "connected"
    board.write("vw 5 one")
    other.write("vw 5 two")
    house.app.expect("1-0 vw 5 one")
    house.app.expect("1-1 vw 5 two")
    assert server.get(f"/{house.tokens[0]}/get/v5").json() == ["one"]
    assert server.get(f"/{house.tokens[1]}/get/v5").json() == ["two"]
    other.close()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_board_that_subscribes_gets_what_the_app_writes(house, board, qos):
    board.client.subscribe("hardware", qos)
    assert board.next() == ("subscribed", [min(qos, 1)], None)
    for i in range(3):
        house.app.send("1-0", "vw", 7, f"value {i}")
        assert board.next() == ("hardware", f"vw 7 value {i}", min(qos, 1))
    board.client.unsubscribe("hardware")
    assert board.next()[0] == "unsubscribed"
    house.app.send("1-0 vw 7 x")
    house.app.ping()
    board.write("vw 8 1", 1)
    assert board.events.empty()


def test_other_topics_are_refused_and_ignored(house, board):
    board.client.subscribe("weather", 1)
    assert board.next() == ("subscribed", [128], None)
    board.write("vw 5 1", 1, topic="weather")
    house.app.silence()


@pytest.mark.parametrize("text", ["vw", "vw 5", "vw x 1", "xw 5 1", "vw 256 1", "", "v"])
def test_payloads_that_are_no_value_do_no_harm(house, board, text):
    board.write(text, 1)
    board.write("vw 1 fine", 1)
    house.app.expect("1-0 vw 1 fine")
    house.app.silence()


@pytest.mark.parametrize("who", ["wrong token", "wrong user", "no token"])
def test_wrong_logins_are_told_and_closed(server, house, who):
    user = "other@example.com" if who == "wrong user" else house.email
    token = {"wrong token": "0" * 32, "no token": ""}.get(who, house.tokens[0])
    board = Board(server, user, token)
    assert board.next()[:2] == ("connected", 134)  # bad user name or password
    assert board.next()[0] == "disconnected"
    board.close()


def test_mqtt_3_1_works_and_5_is_told_that_it_does_not(server, house):
    board = Board(server, house.email, house.tokens[0], mqtt.MQTTv31)
    assert board.next() == ("connected", 0, False)
    board.close()
    sock = connect(HOST, server.mqtt_port)
    sock.sendall(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00")
    assert sock.recv(100) == b"\x20\x02\x00\x01"
    assert sock.recv(100) == b""
    sock.close()


def connect_packet(user, token, keepalive=60):
    def field(text):
        return len(text).to_bytes(2, "big") + text.encode()

    body = b"\x00\x04MQTT\x04\xc2" + keepalive.to_bytes(2, "big") + field("id") + field(user) + field(token)
    return b"\x10" + bytes([len(body)]) + body


@pytest.fixture
def raw(server, house):
    sock = connect(HOST, server.mqtt_port)
    sock.sendall(connect_packet(house.email, house.tokens[0]))
    assert sock.recv(100) == b"\x20\x02\x00\x00"
    yield sock
    sock.close()


def test_pings_are_answered_with_pongs(raw):
    raw.sendall(b"\xc0\x00\xc0\x00")
    data = b""
    while len(data) < 4:
        data += raw.recv(10)
    assert data == b"\xd0\x00\xd0\x00"


def test_a_second_connect_is_ignored(raw, house):
    raw.sendall(connect_packet(house.email, "wrong") + b"\xc0\x00")
    assert raw.recv(10) == b"\xd0\x00"


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\xfc\x7f",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x30\x03\x00\x05a",
        b"\x30\x03\x00\x01#",
        b"\xf0\x00",
        b"\x20\x02\x00\x00",
        b"\x80\x02\x00\x01",
    ],
)
def test_malformed_packets_close_the_connection(raw, data):
    raw.sendall(data)
    assert raw.recv(10) == b""


def test_nothing_goes_before_the_login(server):
    sock = connect(HOST, server.mqtt_port)
    sock.sendall(b"\xc0\x00")
    assert sock.recv(10) == b""
    sock.close()


def test_disconnect_closes(raw):
    raw.sendall(b"\xe0\x00")
    assert raw.recv(10) == b""


def test_a_board_counts_as_one_for_rules_and_history(server, house, board):
    board.write("vw 9 4", 1)
    house.app.expect("1-0 vw 9 4")
    until(lambda: house.app.device()["dataReceivedAt"], what="dataReceivedAt")
    assert house.app.ask("PING") == OK


# -- the codec by itself ----------------------------------------------------------------------------------------------


def play(pieces):
    codec, seen = MqttCodec(), []
    try:
        for piece in pieces:
            codec.feed(piece)
            while (packet := codec.next()) is not None:
                seen.append(packet)
    except MqttError:
        seen.append("refused")
    return seen


CONVERSATION = (
    connect_packet("a@b.cc", "token")
    + b"\x32\x0b\x00\x08hardware\x00\x07"[:2]
    + b"\x00\x04abcd\x00\x07xyz"[:11]
    + b"\x30\x05\x00\x01thi"
    + b"\x82\x08\x00\x01\x00\x03a/b\x01"
    + b"\xa2\x07\x00\x02\x00\x03a/b"
    + b"\x40\x02\x00\x09\x62\x02\x00\x0a\xc0\x00\xe0\x00"
)


def test_every_split_gives_the_same_packets():
    whole = play([CONVERSATION])
    assert [packet[0] for packet in whole] == [1, 3, 3, 8, 10, 4, 6, 12, 14]
    assert whole[0] == (1, "MQTT", 4, "id", "a@b.cc", "token", 60)
    assert whole[1][1:] == ("abcd", b"xyz", 1, 7, False)
    assert whole[3] == (8, 1, [("a/b", 1)])
    assert play([bytes([b]) for b in CONVERSATION]) == whole
    for at in range(len(CONVERSATION)):
        assert play([CONVERSATION[:at], CONVERSATION[at:]]) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_in_no_splits_do_more_than_be_refused(pieces):
    assert play(pieces) == play([b"".join(pieces)])


def test_lengths_of_what_we_send():
    for size in (0, 127, 128, 16383, 16384):
        packet = blynk_pi.mqtt_packet(3, b"x" * size)
        codec = MqttCodec(max_packet=20000)
        codec.feed(packet.replace(b"x" * size, b"\x00\x01t" + b"x" * (size - 3)) if size > 3 else b"")
        assert size <= 3 or len(codec.next()[2]) == size - 3
