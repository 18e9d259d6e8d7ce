# ruff: noqa: F401, F811  (fixtures are imported by name)
"""Blynk.NCP: a microcontroller of our own, written from the protocol's description alone, against blynk-ser.py --ncp.

mcu.call(NCP_PING)                        a call, its RESULT checked; calls that come meanwhile are served
mcu.oneway("virtualWrite", 1, b"42")
mcu.expect_state(5); mcu.expect_pin(4, b"77")
"""

import base64
import hashlib
import os
import queue
import random
import socket
import struct
import threading
import time
import zlib

import pytest
from boards import Bridge, Cable, RawServer, place, program
from clients import until, widget
from servers import HOST

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
pytest.importorskip("serial")

INVOKE, RESULT, ONEWAY = 0x67BC, 0xA512, 0x1CF3
TEMPLATE = "TMPL0vFkFmJM7"

# name: uid, arguments, result (both in struct's letters; s a string, x a binary, ? a Bool)
CALLS = {
    "ping": (0x0101, "", ""),
    "reboot": (0x0102, "", "?"),
    "hasUID": (0x0103, "H", "?"),
    "setUartBaudRate": (0x0201, "I", "?"),
    "initUserButton": (0x0211, "H?", "?"),
    "initLED": (0x0221, "H?", "?"),
    "initRGB": (0x0222, "HHH?", "?"),
    "initARGB": (0x0223, "HBB", "?"),
    "setLedBrightness": (0x0224, "B", "?"),
    "getWiFiMAC": (0x0231, "", "s?"),
    "getEthernetMAC": (0x0232, "", "s?"),
    "initialize": (0x0301, "ss", "?"),
    "setVendorPrefix": (0x0302, "s", "?"),
    "setVendorServer": (0x0303, "s", "?"),
    "setFirmwareInfo": (0x0304, "ssss", "?"),
    "getNcpVersion": (0x0305, "", "s?"),
    "getState": (0x0306, "", "B"),
    "getHotspotName": (0x0307, "", "s?"),
    "virtualWrite": (0x0311, "Hx", None),
    "syncAll": (0x0312, "", None),
    "syncVirtual": (0x0313, "x", None),
    "setProperty": (0x0314, "Hsx", None),
    "beginGroup": (0x0315, "q", None),
    "endGroup": (0x0316, "", None),
    "logEvent": (0x0317, "ss", None),
    "resolveEvent": (0x0318, "s", None),
    "resolveAllEvents": (0x0319, "s", None),
    "setMetadata": (0x031A, "ss", None),
    "configStart": (0x0321, "", "?"),
    "configStop": (0x0322, "", "?"),
    "configReset": (0x0323, "", "?"),
    "isConfigured": (0x0324, "", "?"),
    "setConfigTimeout": (0x0325, "H", "?"),
    "setConfigSkipLimit": (0x0326, "B", "?"),
    "factoryReset": (0x0331, "", "?"),
    "factoryTestWiFi": (0x0332, "ss", "hB"),
    "factoryTestWiFiAP": (0x0333, "H", "B"),
    "factoryTestConnect": (0x033A, "", "B"),
    "otaUpdateStart": (0x0341, "H", "?"),
    "otaUpdateGetCRC32": (0x0342, "", "I?"),
    "otaUpdateGetMD5": (0x0343, "", "x?"),
    "otaUpdateGetSHA256": (0x0344, "", "x?"),
    "otaUpdatePrefetch": (0x0345, "", "B"),
    "otaUpdateSuspend": (0x0346, "H", "?"),
    "setTime": (0x0351, "q", "?"),
    "getTime": (0x0352, "", "sqhsB?"),
    "getLocationInfo": (0x0353, "", "ssss?"),
}


def crc8(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 7 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def framed(payload):
    out = b"\xaa"
    for byte in payload + bytes([crc8(payload)]):
        out += bytes([0xCC, byte ^ 0xFF]) if byte in b"\x11\x13\xaa\xbb\xcc" else bytes([byte])
    return out + b"\xbb"


def packed(kinds, values):
    out = b""
    for kind, value in zip(kinds, values):
        if kind == "s":
            out += value.encode() + b"\0"
        elif kind == "x":
            out += struct.pack("<H", len(value)) + value
        else:
            out += struct.pack("<" + kind, value)
    return out


def unpacked(kinds, data):
    values = []
    for kind in kinds:
        if kind == "s":
            text, _, data = data.partition(b"\0")
            values.append(text.decode())
        elif kind == "x":
            (size,) = struct.unpack_from("<H", data)
            values.append(data[2 : 2 + size])
            data = data[2 + size :]
        else:
            size = struct.calcsize("<" + kind)
            values.append(struct.unpack("<" + kind, data[:size])[0])
            data = data[size:]
    assert not data, f"more than {kinds}: {data!r}"
    return values


class Mcu:
    """The microcontroller's side. `ring`: its receive buffer drops what comes when it is full and it reads one frame in
    `busy` seconds; without, it reads at once."""

    def __init__(self, cable, ring=0, busy=0.0):
        self.cable, self.sock = cable, cable.end
        self.frames, self.id = queue.Queue(), 0
        self.states, self.pins, self.events = [], [], []
        self.serve = {0x0181: lambda data: b"", 0x0183: lambda data: b"\1", 0x0182: lambda data: b"\1"}
        self.raw = bytearray()
        self.deaf = False
        self.ring, self.busy, self.overruns = ring, busy, 0
        self.running = True
        self.held = bytearray()
        self.arrived = threading.Condition()
        threading.Thread(target=self._receive, daemon=True).start()
        threading.Thread(target=self._decode, daemon=True).start()

    def close(self):
        self.running = False
        with self.arrived:
            self.arrived.notify_all()

    def _receive(self):
        while self.running:
            try:
                self.sock.settimeout(0.2)
                data = self.sock.recv(4096)
            except socket.timeout:
                continue
            except OSError:
                return
            if not data:
                return
            with self.arrived:
                self.raw += data
                for byte in data:
                    if self.ring and len(self.held) >= self.ring:
                        self.overruns += 1
                    else:
                        self.held.append(byte)
                self.arrived.notify_all()

    def _decode(self):
        inside = escaped = False
        frame = bytearray()
        while self.running:
            with self.arrived:
                if not self.held:
                    self.arrived.wait(0.2)
                if not self.held:
                    continue
                byte = self.held.pop(0)
            if not inside:
                inside = byte == 0xAA
                frame, escaped = bytearray(), False
            elif byte == 0xBB:
                inside = False
                assert frame, "an empty frame would crash the driver"
                if crc8(frame[:-1]) == frame[-1]:
                    self.frames.put(bytes(frame[:-1]))
                    if self.busy:
                        time.sleep(self.busy)
            elif byte == 0xCC:
                escaped = True
            else:
                frame.append(byte ^ 0xFF if escaped else byte)
                escaped = False

    def send(self, payload):
        self.sock.sendall(framed(payload))

    def oneway(self, name, *values):
        uid, kinds, _ = CALLS[name]
        self.send(struct.pack("<HH", ONEWAY, uid) + packed(kinds, values))

    def invoke(self, uid, data=b"", timeout=2.0):
        """(status, result bytes) of a call; what comes meanwhile is served. TimeoutError when nothing comes."""
        self.id = (self.id + 1) & 0xFFFF
        id = self.id
        self.send(struct.pack("<HHH", INVOKE, uid, id) + data)
        end = time.monotonic() + timeout
        while True:
            result = self._next(end)
            if result is None:
                raise TimeoutError(f"{uid:04x}")
            if result[0] == id:
                return result[1], result[2]

    def call(self, name, *values, timeout=2.0):
        """The result values of a call that must succeed; one value alone, none as None."""
        uid, kinds, results = CALLS[name]
        status, data = self.invoke(uid, packed(kinds, values), timeout)
        assert status == 0, f"{name}: status {status:02x}"
        found = unpacked(results or "", data)
        return found[0] if len(found) == 1 else found or None

    def _next(self, end):
        """Serves frames until a RESULT comes (id, status, data) or the time is over (None)."""
        while True:
            left = end - time.monotonic()
            try:
                payload = self.frames.get(timeout=max(left, 0.001))
            except queue.Empty:
                return None
            result = self._take(payload)
            if result:
                return result

    def _take(self, payload):
        (operation,) = struct.unpack_from("<H", payload)
        if operation == RESULT:
            id, status = struct.unpack_from("<HB", payload, 2)
            return id, status, payload[5:]
        (uid,) = struct.unpack_from("<H", payload, 2)
        if operation == ONEWAY:
            data = payload[4:]
            if uid == 0x0411:
                self.states.append(data[0])
            elif uid == 0x0412:
                pin, size = struct.unpack_from("<HH", data)
                assert len(data) == 4 + size
                self.pins.append((pin, data[4:]))
            elif uid == 0x0421:
                self.events.append(data[0])
        elif operation == INVOKE and not self.deaf:
            (id,) = struct.unpack_from("<H", payload, 4)
            handler = self.serve.get(uid)
            if handler is not None:
                answer = handler(payload[6:])
                if answer is not None:
                    self.send(struct.pack("<HHB", RESULT, id, 0) + answer)
        return None

    def until(self, condition, what, timeout=10.0):
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            assert left > 0, f"{what} did not come; states {self.states}, pins {self.pins}, events {self.events}"
            self._next(time.monotonic() + min(left, 0.1))

    def listen(self, seconds):
        """Serves what comes for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._next(end)

    def expect_state(self, state, timeout=10.0):
        self.until(lambda: state in self.states, f"state {state}", timeout)
        del self.states[: self.states.index(state) + 1]

    def expect_pin(self, pin, value, timeout=10.0):
        self.until(lambda: (pin, value) in self.pins, f"V{pin} {value!r}", timeout)
        self.pins.remove((pin, value))

    def expect_event(self, event, timeout=10.0):
        self.until(lambda: event in self.events, f"event {event}", timeout)
        self.events.remove(event)

    def bring_up(self, version="1.0.0", build="Jan  1 2026", kind="sensor"):
        """What the Arduino driver does at start, without the change of speed."""
        self.call("ping", timeout=2.0)
        self.call("getNcpVersion")
        self.call("setConfigTimeout", 1800)
        assert self.call("setFirmwareInfo", kind, version, build, "1.3.2") is True
        assert self.call("initialize", TEMPLATE, "QPower") is True


@pytest.fixture
def ncp(place):
    """start(port, *options, cable options …) → (mcu, bridge)."""

    def start(port, *arguments, cable=None, ring=0, busy=0.0, token="t" * 32):
        cable = place.keep(cable or Cable(place.folder, baud=1_000_000))
        options = ["--ncp", "-c", cable.path, "-s", f"{HOST}:{port}", *arguments]
        if token:
            options += ["--token", token]
        place.bridge = place.keep(Bridge(*options))
        place.bridge.expect("port open")
        mcu = place.keep(Mcu(cable, ring, busy))
        mcu.expect_event(1)  # it told us that it has started
        return mcu, place.bridge

    return start


@pytest.fixture
def alone(ncp):
    """An NCP whose server does not exist."""
    return ncp(1)


# ---------------------------------------------------------------------------------------------------------------
# The link layer
# ---------------------------------------------------------------------------------------------------------------


def test_the_checksum_is_the_one_of_the_description():
    assert crc8(b"123456789") == 0xF4 == program().crc8(b"123456789")


EXAMPLES = [
    ("aa bc 67 01 01 01 00 4f bb", "aa 12 a5 01 00 00 2c bb"),
    ("aa bc 67 01 01 cc ee 00 18 bb", "aa 12 a5 cc ee 00 00 8e bb"),
    ("aa bc 67 01 02 03 00 00 c2 01 00 33 bb", "aa 12 a5 03 00 00 01 ef bb"),
    (
        "aa bc 67 01 03 06 00 54 4d 50 4c 30 76 46 6b 46 6d 4a 4d 37 00 51 50 6f 77 65 72 00 68 bb",
        "aa 12 a5 06 00 00 01 a1 bb",
    ),
]


@pytest.mark.parametrize("asked, answered", EXAMPLES)
def test_the_examples_of_the_description(alone, asked, answered):
    mcu, _ = alone
    mcu.raw.clear()
    mcu.sock.sendall(bytes.fromhex(asked))
    mcu.until(lambda: bytes.fromhex(answered) in mcu.raw, answered)


def test_an_unknown_method_gets_status_13(alone):
    mcu, _ = alone
    assert mcu.invoke(0x0999)[0] == 0x13
    mcu.id = 8
    mcu.raw.clear()
    mcu.invoke(0x0777)
    assert bytes.fromhex("aa 12 a5 09 00 cc ec 04 bb") in mcu.raw


@pytest.mark.parametrize(
    "damaged",
    [
        framed(b"\xbc\x67\x01\x01\x05\x00")[:-2] + b"\x00\xbb",  # wrong checksum
        framed(b"\xbc\x67\x01\x01\x05\x00")[:-4],  # cut short, the next one begins
        b"\xaa\xbb",  # empty
        b"\xaa\x00\xbb",
        b"\xaa\xcc\xbb",
        b"\xaa" + b"x" * 9000,  # no end in sight
        b"boot message\r\n\x00\xff\xcc\xcc",
        b"\xbb\xbb\xbb",
        framed(b"\x01"),
        framed(b"\xbc\x67\x01"),  # an INVOKE without its id
        framed(struct.pack("<HHHB", RESULT, 0, 77, 0)),
        framed(struct.pack("<H", 0xD674) + b"reserved"),
    ],
)
def test_broken_frames_are_forgotten_in_silence(alone, damaged):
    mcu, _ = alone
    mcu.raw.clear()
    mcu.sock.sendall(damaged)
    mcu.call("ping")
    assert mcu.raw == framed(struct.pack("<HHB", RESULT, mcu.id, 0))


def test_bytes_reserved_for_flow_control_are_taken_unescaped():
    payload = b"\x11\x13" + b"\xbc\x67"
    raw = b"\xaa" + payload + bytes([crc8(payload)]) + b"\xbb"
    assert program().NcpReader().feed(raw) == [payload]


def test_frames_are_found_however_the_bytes_are_cut():
    payloads = [bytes(range(n, n + 40)) for n in (0, 120, 170)] + [b"\xaa\xbb\xcc\x11\x13"]
    stream = b"noise" + b"".join(map(framed, payloads))
    for size in range(1, len(stream)):
        reader = program().NcpReader()
        assert reader.feed(stream[:size]) + reader.feed(stream[size:]) == payloads


def test_our_frames_are_theirs():
    for payload in (bytes(range(256)), b"\0" * 9, b"\xaa\xbb\xcc"):
        assert program().ncp_frame(payload) == framed(payload)


def test_arguments_must_fit(alone):
    mcu, _ = alone
    assert mcu.invoke(0x0103, b"\x01")[0] == 0x15  # missing
    assert mcu.invoke(0x0103, b"\x01\x01\x01")[0] == 0x15  # surplus
    assert mcu.invoke(0x0301, b"no end")[0] == 0x15
    assert mcu.invoke(0x0101, b"surplus")[0] == 0  # after an argument-less method it is accepted


def test_a_oneway_method_can_be_invoked_and_a_method_with_a_result_not_sent_one_way(alone):
    mcu, _ = alone
    assert mcu.invoke(0x031A, b"serial\x0042\x00") == (0, b"")
    mcu.raw.clear()
    mcu.send(struct.pack("<HH", ONEWAY, 0x0306))
    mcu.call("ping")
    assert mcu.raw == framed(struct.pack("<HHB", RESULT, mcu.id, 0))


def test_has_uid_knows_what_is_served(alone):
    mcu, _ = alone
    assert all(mcu.call("hasUID", uid) for uid, _, _ in CALLS.values())
    assert mcu.call("hasUID", 0x0999) is False


# ---------------------------------------------------------------------------------------------------------------
# Every method
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, values, answer",
    [
        ("ping", (), None),
        ("reboot", (), True),
        ("setUartBaudRate", (100,), False),
        ("setUartBaudRate", (5_000_000,), False),
        ("initUserButton", (0, True), False),
        ("initLED", (2, False), False),
        ("initRGB", (1, 2, 3, False), False),
        ("initARGB", (1, 0, 8), False),
        ("setLedBrightness", (128,), False),
        ("initialize", ("", "nameless"), False),
        ("setVendorPrefix", ("ACME",), True),
        ("setVendorServer", ("blynk.example.com",), True),
        ("setFirmwareInfo", ("sensor", "1.0", "today", "1.3.2"), True),
        ("getState", (), 10),
        ("getHotspotName", (), ["", False]),
        ("configStart", (), False),
        ("configStop", (), False),
        ("configReset", (), False),  # the token is pinned by the command line
        ("isConfigured", (), True),
        ("setConfigTimeout", (1800,), True),
        ("setConfigTimeout", (59,), False),
        ("setConfigTimeout", (3601,), False),
        ("setConfigSkipLimit", (0,), True),
        ("setConfigSkipLimit", (4,), False),
        ("setConfigSkipLimit", (10,), True),
        ("factoryReset", (), False),
        ("factoryTestWiFiAP", (6,), 3),
        ("factoryTestWiFiAP", (15,), 2),
        ("factoryTestWiFi", ("", "pw"), [0, 2]),
        ("factoryTestWiFi", ("not the one we are on", "pw"), [0, 4]),
        ("factoryTestConnect", (), 6),
        ("otaUpdateStart", (1024,), False),
        ("otaUpdateGetCRC32", (), [0, False]),
        ("otaUpdateGetMD5", (), [b"", False]),
        ("otaUpdateGetSHA256", (), [b"", False]),
        ("otaUpdatePrefetch", (), 2),
        ("otaUpdateSuspend", (60,), True),
        ("otaUpdateSuspend", (65000,), False),
        ("setTime", (1719835200000,), True),
        ("setTime", (0,), False),
        ("setTime", (4200000000000,), False),
    ],
)
def test_each_method_answers_before_initialize(alone, name, values, answer):
    assert alone[0].call(name, *values, timeout=10) == answer


def test_each_one_way_method_is_taken(alone):
    mcu, bridge = alone
    mcu.bring_up()
    for name, values in [
        ("virtualWrite", (1, b"hello")),
        ("virtualWrite", (300, b"no such pin")),
        ("virtualWrite", (1, b"")),
        ("syncAll", ()),
        ("syncVirtual", (b"1\x002",)),
        ("setProperty", (3, "color", b"#FF0000")),
        ("beginGroup", (0,)),
        ("endGroup", ()),
        ("logEvent", ("alarm", "too hot")),
        ("resolveEvent", ("alarm",)),
        ("resolveAllEvents", ("alarm",)),
        ("setMetadata", ("serial", "42")),
    ]:
        mcu.oneway(name, *values)
    mcu.call("ping")
    assert "V300" in bridge.log


def test_macs_are_those_of_this_computer_or_honestly_none(alone):
    for name in ("getWiFiMAC", "getEthernetMAC"):
        address, known = alone[0].call(name)
        assert known == bool(address)
        assert not address or (len(address) == 17 and address == address.upper())


def test_the_hotspot_name_has_the_prefix_and_the_template_name(alone):
    mcu, _ = alone
    mcu.call("setVendorPrefix", "ACME")
    mcu.bring_up()
    name, known = mcu.call("getHotspotName")
    assert known and name.startswith("ACME QPower-")


def test_the_factory_test_reaches_the_configured_server(ncp, server):
    mcu, _ = ncp(server.http_port)
    assert mcu.call("factoryTestConnect", timeout=10) == 1
    mcu.bring_up()
    assert mcu.call("factoryTestConnect", timeout=10) == 2  # configured: too late for a factory test


def test_a_led_of_the_computer_shows_the_state(ncp, house, place):
    led = os.path.join(place.folder, "led")
    os.mkdir(led)
    mcu, _ = ncp(house.server.http_port, "--ncp-led", led, token=house.tokens[0])
    assert mcu.call("initLED", 2, False) is True
    mcu.bring_up()
    mcu.expect_state(5)
    assert open(os.path.join(led, "brightness")).read() == "1"


# ---------------------------------------------------------------------------------------------------------------
# Online
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def online(ncp, house):
    """A board that is online at the real server: (mcu, app, bridge)."""
    mcu, bridge = ncp(house.server.http_port, token=house.tokens[0])
    mcu.bring_up()
    mcu.expect_state(5)
    house.app.expect("1-0", "HARDWARE_CONNECTED")
    return mcu, house.app, bridge


def test_a_board_comes_online_and_values_go_both_ways(online):
    mcu, app, _ = online
    assert mcu.call("getState") == 5
    mcu.oneway("virtualWrite", 5, b"123")
    app.expect("1-0 vw 5 123")
    mcu.oneway("virtualWrite", 2, b"1\x002")
    app.expect("1-0 vw 2 1 2")
    app.send("1-0 vw 4 77")
    mcu.expect_pin(4, b"77")


def test_the_server_knows_what_the_board_is(online):
    _, app, _ = online
    info = app.device()["hardwareInfo"]
    assert info["boardType"] == "MCU via NCP" and info["version"] == "1.0.0"
    assert info["blynkVersion"] == "1.3.2" and info["templateId"] == TEMPLATE
    assert info["build"] == "Jan  1 2026" and info["heartbeatInterval"] == 30


def test_properties_and_sync(online):
    mcu, app, _ = online
    app.add_widget(1, widget("SLIDER", 7, 3, value="42"))
    mcu.oneway("setProperty", 3, "color", b"#FF0000")
    app.expect("1-0 3 color #FF0000", "SET_WIDGET_PROPERTY")
    mcu.oneway("syncVirtual", b"3")
    mcu.expect_pin(3, b"42")
    mcu.oneway("syncAll")
    mcu.expect_pin(3, b"42")


def test_a_long_value_goes_both_ways_and_a_longer_one_is_dropped(online):
    mcu, app, bridge = online
    mcu.oneway("virtualWrite", 5, b"x" * 1400)
    app.expect("1-0 vw 5 " + "x" * 1400)
    app.send("1-0", "vw", 6, "y" * 1400)
    mcu.expect_pin(6, b"y" * 1400)


def test_a_value_over_the_boards_limit_is_dropped_and_said(ncp):
    server = RawServer()
    mcu, bridge = ncp(server.port, "--ncp-max-frame", 256)
    mcu.bring_up()
    sock, _ = server.accept_login()
    mcu.expect_state(5)
    for value in (b"z" * 300, b"z" * 200):
        body = b"vw\0006\0" + value
        sock.sendall(struct.pack(">BHH", 20, 1, len(body)) + body)
    mcu.expect_pin(6, b"z" * 200)
    assert "more than the board takes" in bridge.log
    server.close()


def test_forty_values_reach_a_board_with_a_ring_of_64_bytes(ncp, house):
    mcu, _ = ncp(house.server.http_port, ring=64, busy=0.02, token=house.tokens[0])
    mcu.bring_up()
    mcu.expect_state(5)
    for n in range(40):
        house.app.send(f"1-0 vw {n} {n}")
    for n in range(40):
        mcu.expect_pin(n, str(n).encode(), 20)
    assert not mcu.pins, "doubled"


def test_a_board_that_does_not_read_for_a_while_gets_the_values_afterwards(online):
    mcu, app, _ = online
    mcu.deaf = True  # it does not answer the fence
    for n in range(5):
        app.send(f"1-0 vw {n} {n}")
    mcu.listen(2.5)
    mcu.deaf = False
    mcu.pins.clear()
    app.send("1-0 vw 9 9")
    mcu.expect_pin(9, b"9")


def test_a_debug_ping_through_pin_255(online):
    mcu, app, _ = online
    app.send("1-0", "vw", 255, "mcu ping")
    mcu.listen(0.5)
    app.expect("1-0 vw 255 mcu ping OK")
    assert (255, b"mcu ping") not in mcu.pins


def test_a_restarted_board_is_told_the_state_again(online):
    mcu, app, _ = online
    mcu.states.clear()
    mcu.bring_up()
    mcu.expect_state(5)


def test_new_firmware_info_is_passed_on(online):
    mcu, app, _ = online
    mcu.call("setFirmwareInfo", "sensor", "2.0.0", "Feb  2 2026", "1.3.2")
    until(lambda: app.device()["hardwareInfo"]["version"] == "2.0.0")


def test_pings_keep_the_device_online_and_reboot_takes_it_off(online):
    mcu, app, _ = online
    mcu.states.clear()
    assert mcu.call("reboot") is True
    app.expect("1-0", "DEVICE_OFFLINE")
    assert mcu.call("getState") == 10
    mcu.listen(0.3)
    assert not mcu.states and not mcu.events, "an event here would send Zephyr round in circles"
    mcu.bring_up()
    mcu.expect_state(5)


def test_the_board_is_told_when_the_program_ends(online):
    mcu, app, bridge = online
    mcu.events.clear()
    bridge.stop()
    mcu.expect_event(1)
    app.expect("1-0", "DEVICE_OFFLINE")


def test_an_unplugged_board_is_offline_at_once(online):
    mcu, app, bridge = online
    mcu.cable.unplug()
    app.expect("1-0", "DEVICE_OFFLINE")
    mcu.cable.plug()
    bridge.expect("port open")
    mcu.bring_up()
    mcu.expect_state(5)


def test_configuration_mode_drops_the_session_until_it_is_left(online):
    mcu, app, _ = online
    assert mcu.call("configStart") is True
    mcu.expect_state(2)
    app.expect("1-0", "DEVICE_OFFLINE")
    assert mcu.call("configStop") is True
    mcu.expect_state(5)


def test_a_refused_token_is_an_error_state(ncp, server):
    mcu, bridge = ncp(server.http_port, token="x" * 32)
    mcu.bring_up()
    mcu.expect_state(12)
    bridge.expect("not accepted by")
    assert mcu.call("getState") == 12


def test_a_token_that_appears_in_the_settings_file_provisions_the_board(ncp, house, place):
    path = os.path.join(place.folder, "ser.ini")
    with open(path, "w") as file:
        file.write("[DEFAULT]\n")
    mcu, _ = ncp(house.server.http_port, "--config", path, token="")
    mcu.bring_up()
    mcu.expect_state(2)
    assert mcu.call("isConfigured") is False
    assert mcu.call("configReset") is True
    with open(path, "w") as file:
        file.write(f"[ncp:{TEMPLATE}]\ntoken = {house.tokens[0]}\n")
    mcu.expect_state(5)
    mcu.expect_event(20)
    assert mcu.call("isConfigured") is True


def test_no_server_is_state_4_and_values_wait_for_it(ncp, make_server):
    server = make_server()
    app = server.app()
    app.make_project(1)
    mcu, bridge = ncp(server.http_port, token=app.token())
    mcu.bring_up()
    mcu.expect_state(5)
    server.stop()
    mcu.expect_state(4)
    for n in range(3):
        mcu.oneway("virtualWrite", 7, str(n).encode())
    mcu.oneway("virtualWrite", 8, b"eight")
    mcu.call("ping")
    server.start()
    app = server.app(app.email, register=False)
    mcu.expect_state(5, 40)
    mcu.oneway("virtualWrite", 9, b"nine")
    app.expect("1-0 vw 9 nine")


def test_an_unknown_host_is_state_3(place, ncp):
    cable = place.keep(Cable(place.folder, "ttyV9"))
    bridge = place.keep(Bridge("--ncp", "-c", cable.path, "-s", "no-such-host.invalid", "--token", "t" * 32))
    bridge.expect("port open")
    mcu = place.keep(Mcu(cable))
    mcu.bring_up()
    mcu.expect_state(3, 20)


def test_a_redirect_is_followed(ncp, house):
    server = RawServer()
    mcu, _ = ncp(server.port, token=house.tokens[0])
    mcu.bring_up()
    body = f"{HOST}\0{house.server.http_port}".encode()
    server.accept_login(struct.pack(">BHH", 41, 1, len(body)) + body)
    mcu.expect_state(5)
    house.app.expect("1-0", "HARDWARE_CONNECTED")
    server.close()


def frames_on(sock):
    """Every frame that comes: (command, body)."""
    buffer = b""
    while True:
        while len(buffer) >= 5 and len(buffer) >= 5 + struct.unpack_from(">H", buffer, 3)[0]:
            (size,) = struct.unpack_from(">H", buffer, 3)
            yield buffer[0], buffer[5 : 5 + size]
            buffer = buffer[5 + size :]
        buffer += sock.recv(4096)


def test_what_the_server_gets_for_each_one_way_call(ncp):
    server = RawServer()
    mcu, _ = ncp(server.port)
    mcu.bring_up()
    sock, _ = server.accept_login()
    mcu.expect_state(5)
    frames = frames_on(sock)
    command, info = next(frames)
    assert command == 17 and info.startswith(b"ver\0001.3.2\0fw\0001.0.0\0") and b"\0h-beat\00030\0" in info
    calls = [
        (("virtualWrite", 1, b"hello"), (20, b"vw\0001\0hello")),
        (("syncAll",), (16, b"")),
        (("syncVirtual", b"1\x002"), (16, b"vr\0001\0002")),
        (("setProperty", 3, "color", b"#FF0000"), (19, b"3\0color\0#FF0000")),
        (("logEvent", "alarm", "too hot"), (64, b"alarm\0too hot")),
        (("logEvent", "alarm", ""), (64, b"alarm")),
        (("setMetadata", "serial", "42"), (17, b"meta\0set\0serial\00042")),
    ]
    for call, frame in calls:
        mcu.oneway(*call)
        assert next(frames) == frame
    mcu.oneway("beginGroup", 0)
    for n in range(3):
        mcu.oneway("virtualWrite", n, b"1")
    mcu.call("ping")
    sock.settimeout(0.1)
    with pytest.raises(socket.timeout):
        sock.recv(1)
    sock.settimeout(10)
    mcu.oneway("endGroup")
    assert sock.recv(4096).count(b"vw\0") == 3  # in one piece
    server.close()


def test_events_can_become_notifications(ncp):
    server = RawServer()
    mcu, _ = ncp(server.port, "--ncp-events", "push")
    mcu.bring_up()
    sock, _ = server.accept_login()
    mcu.expect_state(5)
    frames = frames_on(sock)
    next(frames)
    mcu.oneway("logEvent", "alarm", "too hot")
    assert next(frames) == (14, b"too hot")
    server.close()


def test_quota_exceeded_slows_the_values_down(ncp):
    server = RawServer()
    mcu, bridge = ncp(server.port)
    mcu.bring_up()
    sock, _ = server.accept_login()
    mcu.expect_state(5)
    frames = frames_on(sock)
    next(frames)
    sock.sendall(struct.pack(">BHH", 0, 5, 1))
    bridge.expect("slowing down")
    for n in range(10):
        mcu.oneway("virtualWrite", 1, str(n).encode())
    mcu.oneway("virtualWrite", 2, b"last")
    values = []
    while not values or values[-1] != b"vw\0002\0last":
        values.append(next(frames)[1])
    assert b"vw\0001\0009" in values and len(values) <= 4
    server.close()


# ---------------------------------------------------------------------------------------------------------------
# Speed
# ---------------------------------------------------------------------------------------------------------------


def slow_line(place):
    """A line of 38400 baud on which bytes of another speed come out wrong."""
    return Cable(place.folder, baud=38400, own_speed=True)


def change_speed(mcu, speed):
    """The driver's steps: ask, switch, 20 ms, ping."""
    assert mcu.call("setUartBaudRate", speed) is True
    mcu.cable.baud = speed
    time.sleep(0.02)
    mcu.call("ping", timeout=0.1)


def test_the_speed_is_raised(place, ncp):
    mcu, _ = ncp(1, cable=slow_line(place))
    for speed in (115200, 230400, 57600):
        change_speed(mcu, speed)
        assert mcu.cable.port_speed() == speed
    mcu.bring_up()


def test_a_speed_that_is_not_understood_is_given_up(place, ncp):
    mcu, _ = ncp(1, cable=slow_line(place))
    assert mcu.call("setUartBaudRate", 230400) is True  # and then the board stays at the old one, silent
    until(lambda: mcu.cable.port_speed() == 230400)
    until(lambda: mcu.cable.port_speed() == 38400, 6)
    mcu.call("ping")


def find_speed(mcu, seconds=10):
    """The driver's search: its speeds in turn, three pings each; True when one is answered."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for speed in (38400, 115200, 57600):
            mcu.cable.baud = speed
            for _ in range(3):
                try:
                    mcu.call("ping", timeout=0.1)
                    return True
                except TimeoutError:
                    pass
    return False


def test_a_board_that_resets_at_another_speed_is_found(place, ncp):
    mcu, _ = ncp(1, cable=slow_line(place))
    change_speed(mcu, 57600)
    assert find_speed(mcu)


def test_a_running_board_at_another_speed_is_found_by_a_new_bridge(place):
    cable = place.keep(slow_line(place))
    place.keep(Bridge("--ncp", "-c", cable.path, "-s", f"{HOST}:1", "--token", "t" * 32)).expect("port open")
    cable.baud = 57600
    mcu = place.keep(Mcu(cable))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            mcu.call("ping", timeout=0.1)
            break
        except TimeoutError:
            continue
    else:
        raise AssertionError("not found")


def test_reboot_goes_back_to_the_first_speed(place, ncp):
    mcu, _ = ncp(1, cable=slow_line(place))
    change_speed(mcu, 115200)
    mcu.call("reboot")
    mcu.cable.baud = 38400
    time.sleep(0.02)
    mcu.call("ping")


# ---------------------------------------------------------------------------------------------------------------
# Time and place
# ---------------------------------------------------------------------------------------------------------------


def test_time_and_place_come_from_the_settings_file(ncp, place):
    path = os.path.join(place.folder, "ser.ini")
    with open(path, "w") as file:
        file.write(f"[ncp:{TEMPLATE}]\ntimezone = Europe/Kyiv\nlatitude = 50.45\nlongitude = 30.52\n")
    mcu, _ = ncp(1, "--config", path)
    mcu.bring_up()
    lat, lon, zone, rule, known = mcu.call("getLocationInfo")
    assert (lat, lon, zone, known) == ("50.45", "30.52", "Europe/Kyiv", True)
    assert rule.startswith("EET-2EEST,M3.5.0")
    mcu.call("setTime", int(time.time() * 1000))
    text, utc, offset, name, dst, known = mcu.call("getTime")
    assert known and abs(utc / 1000 - time.time()) < 5
    assert (offset, name, dst, text[-6:]) in ((120, "EET", 3, "+02:00"), (180, "EEST", 2, "+03:00"))


def test_the_times_of_the_description():
    ser = program()
    place = ser.Place({"timezone": "Europe/Kyiv"})
    if not place.rule:
        pytest.skip("no time zone data here")
    assert place.time_values(1719824400000) == ("2024-07-01T12:00:00+03:00", 1719824400000, 180, "EEST", 2)
    tokyo = ser.Place({"timezone": "Asia/Tokyo"})
    assert tokyo.time_values(1719824400000)[2:] == (540, "JST", 1)
    nowhere = ser.Place({"timezone": "No/Where"})
    assert nowhere.time_values(1719824400000) == ("2024-07-01T09:00:00+00:00", 1719824400000, 0, "UTC", 0)


def test_a_new_place_in_the_settings_file_is_announced(ncp, place):
    path = os.path.join(place.folder, "ser.ini")
    with open(path, "w") as file:
        file.write(f"[ncp:{TEMPLATE}]\ntimezone = Asia/Tokyo\n")
    mcu, _ = ncp(1, "--config", path)
    mcu.bring_up()
    mcu.listen(2.5)
    mcu.events.clear()
    with open(path, "w") as file:
        file.write(f"[ncp:{TEMPLATE}]\ntimezone = Europe/Kyiv\n")
    mcu.expect_event(22)
    assert mcu.call("getLocationInfo")[2] == "Europe/Kyiv"


# ---------------------------------------------------------------------------------------------------------------
# Firmware of the board
# ---------------------------------------------------------------------------------------------------------------

TAG = b"blnkinf\0mcu\x002.0.0\0fw-type\0sensor\0build\0Feb  2 2026\0blynk\x001.3.2\0\0"


class Loader:
    """The board's part in an update; hooks let it misbehave."""

    def __init__(self, mcu, bridge, chunk=1024):
        self.mcu, self.bridge, self.chunk = mcu, bridge, chunk
        self.image, self.offers, self.cancelled = b"", [], False
        self.accept, self.finished = True, None
        self.on_write = lambda offset, data: True
        mcu.serve.update({0x0441: self._offered, 0x0442: self._write, 0x0443: self._finish, 0x0444: self._cancel})
        self.wants_start = False

    def _offered(self, data):
        self.offers.append(unpacked("sIsss", data))
        self.wants_start = self.accept
        return bytes([self.accept])

    def _write(self, data):
        offset, chunk, crc = unpacked("IxI", data)
        assert zlib.crc32(chunk) == crc
        verdict = self.on_write(offset, chunk)
        if verdict is True:
            if offset != len(self.image):
                return b"\0"
            self.image += chunk
        elif verdict == "stored, not answered":
            self.image += chunk
            return None
        elif verdict is None:
            return None
        return bytes([verdict])

    def _finish(self, data):
        """The driver asks for the digests while its own finish is being waited for."""
        md5, known = self.mcu.call("otaUpdateGetMD5")
        assert known and md5 == hashlib.md5(self.image).digest()
        assert self.mcu.call("otaUpdateGetSHA256") == [hashlib.sha256(self.image).digest(), True]
        crc, known = self.mcu.call("otaUpdateGetCRC32")
        self.finished = known and crc == zlib.crc32(self.image)
        return bytes([self.finished])

    def _cancel(self, data):
        self.cancelled = True
        return b""

    def run(self, timeout=20):
        """Until the update is over, however."""
        end = time.monotonic() + timeout
        while self.finished is None and not self.cancelled and time.monotonic() < end:
            if self.wants_start:
                self.wants_start = False
                assert self.mcu.call("otaUpdatePrefetch") == 1
                assert self.mcu.call("otaUpdateStart", self.chunk) is True
            self.mcu.listen(0.02)
        return self.finished


class Updates:
    """A server that offers firmware which `web_hook` serves."""

    def __init__(self, ncp, web_hook):
        self.ncp, self.web_hook, self.server = ncp, web_hook, RawServer()
        self.sock = None

    def start(self, image, *arguments, chunk=1024, cable=None):
        """A board that is online and is offered the image: its Loader."""
        self.web_hook.answers(200, image)
        mcu, bridge = self.ncp(self.server.port, *arguments, cable=cable)
        loader = Loader(mcu, bridge, chunk)
        mcu.bring_up()
        self.accept(mcu)
        self.offer()
        return loader

    def accept(self, mcu):
        self.sock, _ = self.server.accept_login()
        mcu.expect_state(5)

    def offer(self):
        self.send(17, f"ota\0{self.web_hook.url}/static/ota/firmware.bin".encode())

    def send(self, command, body):
        self.sock.sendall(struct.pack(">BHH", command, 7777, len(body)) + body)


@pytest.fixture
def update(ncp, web_hook):
    updates = Updates(ncp, web_hook)
    yield updates
    updates.server.close()


IMAGE = random.Random(1).randbytes(5000) + TAG + random.Random(2).randbytes(5000)


def test_a_firmware_is_written_and_checked(update):
    loader = update.start(IMAGE)
    assert loader.run() is True
    assert loader.image == IMAGE
    assert loader.offers == [["firmware.bin", len(IMAGE), "sensor", "2.0.0", "Feb  2 2026"]]
    loader.mcu.bring_up(version="2.0.0", build="Feb  2 2026")
    loader.bridge.expect("board runs 2.0.0 now")


def test_a_firmware_uploaded_to_the_real_server_reaches_the_board(online, house):
    mcu, _, bridge = online
    loader = Loader(mcu, bridge)
    head = '--XX\r\nContent-Disposition: form-data; name="upfile"; filename="fw.bin"\r\n'
    body = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + IMAGE + b"\r\n--XX--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    headers["Authorization"] = "Basic " + base64.b64encode(b"admin@blynk.cc:admin").decode()
    with house.server.http(tls=True) as web:
        answer = web.post(f"/admin/ota/start?token={house.tokens[0]}", body, headers)
        assert answer.status == 200, answer.text
    assert loader.run() is True
    assert loader.image == IMAGE
    mcu.states.clear()
    mcu.bring_up(version="2.0.0", build="Feb  2 2026")
    bridge.expect("board runs 2.0.0 now")
    mcu.expect_state(5)


def test_an_unwanted_firmware_is_not_sent(update):
    loader = update.start(IMAGE)
    loader.accept = False
    loader.mcu.until(lambda: loader.offers, "the offer")
    loader.bridge.expect("board does not want it")
    update.offer()
    loader.mcu.listen(0.5)
    assert len(loader.offers) == 1
    assert loader.mcu.call("otaUpdateStart", 1024) is False


def test_a_firmware_of_another_type_is_refused_unless_forced(update):
    loader = update.start(IMAGE.replace(b"sensor", b"boiler"))
    loader.bridge.expect("refused (--ota-force)")
    assert loader.offers == []


def test_four_failed_writes_are_repeated_and_five_end_it(update):
    loader = update.start(IMAGE)
    failures = [4]

    def fail(offset, data):
        if offset == 2048 and failures[0]:
            failures[0] -= 1
            return False
        return True

    loader.on_write = fail
    assert loader.run() is True and loader.image == IMAGE


def test_five_failed_writes_cancel_the_update(update):
    loader = update.start(IMAGE)
    loader.on_write = lambda offset, data: offset != 2048
    loader.run()
    assert loader.cancelled
    loader.bridge.expect("cancelled")
    loader.mcu.call("ping")


@pytest.mark.slow
def test_a_chunk_whose_result_is_lost_is_not_written_twice(update):
    loader = update.start(IMAGE)
    lost = []

    def lose(offset, data):
        if offset == 3072 and not lost:
            lost.append(offset)
            return "stored, not answered"
        return True

    loader.on_write = lose
    assert loader.run(30) is True and loader.image == IMAGE


def test_a_checksum_that_does_not_fit_rejects_the_file(update):
    loader = update.start(IMAGE)

    def spoil(offset, data):
        if offset == 1024:
            loader.image += bytes(len(data))
            return 1
        return True

    loader.on_write = spoil

    def finish(data):
        loader.finished = loader.mcu.call("otaUpdateGetCRC32")[0] == zlib.crc32(loader.image)
        return bytes([loader.finished])

    loader.mcu.serve[0x0443] = finish
    assert loader.run() is False
    loader.bridge.expect("rejects the file")


def test_values_wait_while_a_firmware_is_written(update):
    loader = update.start(IMAGE)

    def value_meanwhile(offset, data):
        update.send(20, b"vw\0004\0%d" % offset)
        assert not loader.mcu.pins
        return True

    loader.on_write = value_meanwhile
    assert loader.run() is True
    loader.mcu.listen(0.2)
    assert not loader.mcu.pins  # the board restarts: it will ask for what it needs


def test_a_small_board_gets_small_chunks(update):
    loader = update.start(IMAGE[:3000], "--ncp-max-frame", 256)
    sizes = set()
    loader.on_write = lambda offset, data: sizes.add(len(data)) or True
    assert loader.run() is True
    assert max(sizes) == 256 - 17


def test_the_board_can_suspend_the_update(update):
    loader = update.start(IMAGE)
    times = []
    loader.on_write = lambda offset, data: times.append(time.monotonic()) or True
    loader.mcu.until(lambda: loader.offers, "the offer")
    loader.wants_start = False
    assert loader.mcu.call("otaUpdateStart", 1024) is True
    assert loader.mcu.call("otaUpdateSuspend", 1) is True
    assert loader.run() is True and loader.image == IMAGE
    assert max(b - a for a, b in zip(times, times[1:])) > 0.8


def test_a_suspended_update_resumes_on_request(update):
    loader = update.start(IMAGE)
    loader.mcu.until(lambda: loader.offers, "the offer")
    loader.wants_start = False
    assert loader.mcu.call("otaUpdateStart", 1024) is True
    assert loader.mcu.call("otaUpdateSuspend", 3600) is True
    loader.mcu.listen(0.3)
    assert len(loader.image) <= 1024
    assert loader.mcu.call("otaUpdateSuspend", 0) is True
    assert loader.run() is True and loader.image == IMAGE


def test_an_unplugged_board_ends_the_update_and_the_next_one_works(update):
    loader = update.start(IMAGE)
    loader.on_write = lambda offset, data: True if offset < 2048 else None
    loader.mcu.until(lambda: loader.offers, "the offer")
    loader.wants_start = False
    loader.mcu.call("otaUpdateStart", 1024)
    loader.mcu.until(lambda: len(loader.image) >= 2048, "two chunks")
    loader.mcu.cable.unplug()
    loader.bridge.expect("board gone")
    loader.mcu.cable.plug()
    loader.bridge.expect("port open")
    loader.mcu.bring_up()
    update.accept(loader.mcu)
    loader.image, loader.on_write = b"", lambda offset, data: True
    update.offer()
    assert loader.run() is True and loader.image == IMAGE


@pytest.mark.slow
def test_an_update_survives_a_line_that_flips_bits(update, place):
    chance = random.Random(3)
    cable = Cable(place.folder, baud=1_000_000)

    def spoil(data, to_board):
        data = bytearray(data)
        for index in range(len(data)):
            if chance.random() < 1e-4:
                data[index] ^= 1 << chance.randrange(8)
        return bytes(data)

    loader = update.start(IMAGE, chunk=128, cable=cable)
    cable.spoil = spoil
    end = time.monotonic() + 90
    while loader.finished is None and time.monotonic() < end and not loader.cancelled:
        try:
            loader.run(5)
        except (TimeoutError, AssertionError):
            loader.wants_start = not loader.image
    assert loader.finished is True and loader.image == IMAGE


@pytest.mark.slow
def test_a_dead_board_goes_offline_and_can_come_back(online):
    mcu, app, bridge = online
    mcu.deaf = True
    app.expect("1-0", "DEVICE_OFFLINE", timeout=70)
    bridge.expect("board does not answer")
    mcu.deaf = False
    mcu.bring_up()
    mcu.expect_state(5)
