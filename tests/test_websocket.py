"""The WebSocket codec by itself, as a table of cases numbered like the chapters of the Autobahn test suite:
1 framing, 2 ping and pong, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8, 7 closing; 9 limits."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blynk_pi import WebSocketCodec, WebSocketError, ws_close_frame, ws_frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x12\x34\x56\x78"


def frame(opcode, payload=b"", final=True, reserved=0, masked=True, form=0):
    """A frame of a client. form 2 or 8: the length in that many bytes, even when fewer would do."""
    size = len(payload)
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if form == 8 or (not form and size > 65535):
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    elif form == 2 or size > 125:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | size])
    if not masked:
        return head + payload
    return head + MASK + bytes(b ^ m for b, m in zip(payload, itertools.cycle(MASK)))


def play(pieces, **limits):
    """The messages that come out, and the close code of a refusal at the end."""
    codec, seen = WebSocketCodec(**limits), []
    try:
        for piece in pieces:
            codec.feed(piece)
            while (event := codec.next()) is not None:
                seen.append(event)
    except WebSocketError as problem:
        seen.append(problem.code)
    return seen


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


SIZES = (0, 125, 126, 127, 128, 65535, 65536)
EURO = "κόσμε€".encode()
FINE_CLOSES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CLOSES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)

CASES = {
    # 1 framing: texts and binaries of every form of length
    **{f"1.1.{i}": ([frame(TEXT, b"*" * n)], [(TEXT, b"*" * n)]) for i, n in enumerate(SIZES, 1)},
    **{f"1.2.{i}": ([frame(BINARY, b"\xfe" * n)], [(BINARY, b"\xfe" * n)]) for i, n in enumerate(SIZES, 1)},
    "1.3.1 two in one read": ([frame(TEXT, b"a") + frame(BINARY, b"b")], [(TEXT, b"a"), (BINARY, b"b")]),
    "1.3.2 length longer than it need be": ([frame(TEXT, b"a", form=2)], [1002]),
    "1.3.3 the same in eight bytes": ([frame(TEXT, b"a" * 200, form=8)], [1002]),
    "1.3.4 eight bytes with the highest bit": ([b"\x81\xff" + b"\x80" + b"\0" * 7 + MASK], [1002]),
    "1.3.5 no mask": ([frame(TEXT, b"a", masked=False)], [1002]),
    # 2 ping and pong
    "2.1 empty ping": ([frame(PING)], [(PING, b"")]),
    "2.3 ping with binary": ([frame(PING, b"\0\xff\xfe")], [(PING, b"\0\xff\xfe")]),
    "2.4 ping of 125": ([frame(PING, b"p" * 125)], [(PING, b"p" * 125)]),
    "2.5 ping of 126": ([frame(PING, b"p" * 126)], [1002]),
    "2.7 unsolicited pong": ([frame(PONG, b"x")], [(PONG, b"x")]),
    "2.10 ten pings": ([frame(PING, b"%d" % i) for i in range(10)], [(PING, b"%d" % i) for i in range(10)]),
    # 3 reserved bits
    **{
        f"3.{r} reserved bits {r}": ([frame(TEXT, b"a"), frame(TEXT, b"b", reserved=r)], [(TEXT, b"a"), 1002])
        for r in range(1, 8)
    },
    "3.8 on a control frame": ([frame(PING, reserved=4)], [1002]),
    # 4 opcodes nobody knows
    **{f"4.1.{op} opcode {op}": ([frame(op, b"x")], [1002]) for op in range(3, 8)},
    **{f"4.2.{op} opcode {op}": ([frame(op, b"x")], [1002]) for op in range(11, 16)},
    # 5 fragmentation
    "5.1 fragmented ping": ([frame(PING, b"a", final=False), frame(0, b"b")], [1002]),
    "5.2 fragmented pong": ([frame(PONG, b"a", final=False), frame(0, b"b")], [1002]),
    "5.3 text in two": ([frame(TEXT, b"a", final=False), frame(0, b"b")], [(TEXT, b"ab")]),
    "5.4 text in two, one read": ([frame(TEXT, b"a", final=False) + frame(0, b"b")], [(TEXT, b"ab")]),
    "5.6 ping between": (
        [frame(TEXT, b"a", final=False), frame(PING, b"p"), frame(0, b"b")],
        [(PING, b"p"), (TEXT, b"ab")],
    ),
    "5.9 continuation of nothing": ([frame(0, b"a")], [1002]),
    "5.12 unfinished continuation of nothing": ([frame(0, b"a", final=False)], [1002]),
    "5.15 after a whole message": (
        [frame(TEXT, b"a", final=False), frame(0, b"b"), frame(0, b"c", final=False)],
        [(TEXT, b"ab"), 1002],
    ),
    "5.18 new text inside": ([frame(TEXT, b"a", final=False), frame(TEXT, b"b")], [1002]),
    "5.19 five pieces and pings": (
        [frame(BINARY, b"1", final=False), frame(0, b"2", final=False), frame(PING, b"x"), frame(0, b"3", final=False),
         frame(0, b"4", final=False), frame(PING, b"y"), frame(0, b"5")],
        [(PING, b"x"), (PING, b"y"), (BINARY, b"12345")],
    ),
    "5.20 empty pieces": ([frame(TEXT, final=False), frame(0, final=False), frame(0)], [(TEXT, b"")]),
    # 6 UTF-8
    "6.1.1 empty": ([frame(TEXT)], [(TEXT, b"")]),
    "6.2.1 whole": ([frame(TEXT, EURO)], [(TEXT, EURO)]),
    "6.2.3 a piece for each byte": (
        [
            frame(TEXT, EURO[:1], final=False),
            *(frame(0, EURO[i : i + 1], final=False) for i in range(1, len(EURO) - 1)),
            frame(0, EURO[-1:]),
        ],
        [(TEXT, EURO)],
    ),
    "6.3.1 surrogate": ([frame(TEXT, b"a\xed\xa0\x80b")], [1007]),
    "6.4.1 wrong in the second piece: at once": (
        [frame(TEXT, b"a\xf4", final=False), frame(0, b"\x90\x80\x80", final=False)],
        [1007],
    ),
    "6.6.1 ends inside a character": ([frame(TEXT, b"\xce")], [1007]),
    "6.6.2 last piece ends inside": ([frame(TEXT, b"a", final=False), frame(0, b"\xce")], [1007]),
    "6.10 overlong": ([frame(TEXT, b"\xc0\xaf")], [1007]),
    "6.12 beyond unicode": ([frame(TEXT, b"\xf4\x90\x80\x80")], [1007]),
    "6.15 five byte form": ([frame(TEXT, b"\xf8\x88\x80\x80\x80")], [1007]),
    "6.20 bad text does not spoil a binary": ([frame(BINARY, b"\xff\xfe")], [(BINARY, b"\xff\xfe")]),
    # 7 closing
    "7.1.1 message, then close": ([frame(TEXT, b"a"), close(1000)], [(TEXT, b"a"), (CLOSE, b"\x03\xe8")]),
    "7.1.3 what follows a close is not read": ([close(1000) + frame(PING) + frame(TEXT, b"a")], [(CLOSE, b"\x03\xe8")]),
    "7.1.5 close inside a message": ([frame(TEXT, b"a", final=False), close(1000)], [(CLOSE, b"\x03\xe8")]),
    "7.3.1 empty": ([close()], [(CLOSE, b"")]),
    "7.3.2 one byte": ([frame(CLOSE, b"a")], [1002]),
    "7.3.4 with a reason": ([close(1000, b"bye")], [(CLOSE, b"\x03\xe8bye")]),
    "7.3.5 reason of 123": ([close(1000, b"r" * 123)], [(CLOSE, b"\x03\xe8" + b"r" * 123)]),
    "7.3.6 reason of 124": ([close(1000, b"r" * 124)], [1002]),
    "7.5.1 reason that is no UTF-8": ([close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80")], [1007]),
    **{f"7.7 code {c}": ([close(c)], [(CLOSE, c.to_bytes(2, "big"))]) for c in FINE_CLOSES},
    **{f"7.9 code {c}": ([close(c)], [1002]) for c in BAD_CLOSES},
    # 9 limits
    "9.1 longest frame and more": ([b"\x82\xff" + (65537).to_bytes(8, "big") + MASK], [1009]),
    "9.2 message longer than allowed": (
        [frame(BINARY, b"a" * 60000, final=False), frame(0, b"a" * 60000)],
        [1009],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    pieces, expected = CASES[case]
    assert play(pieces) == expected
    data = b"".join(pieces)
    if len(data) < 1000:
        assert play([data]) == expected
        assert play([bytes([b]) for b in data]) == expected


def test_a_message_of_many_frames_may_be_longer_than_a_frame():
    pieces = [frame(BINARY, b"a" * 65536, final=False), *[frame(0, b"b" * 65536, final=False)] * 3, frame(0)]
    assert play(pieces, max_message=5 * 65536) == [(BINARY, b"a" * 65536 + b"b" * 3 * 65536)]
    assert play(pieces, max_message=4 * 65536 - 1)[-1] == 1009


def test_what_we_send_is_unmasked_and_in_the_shortest_form():
    assert ws_frame(BINARY, b"ab") == b"\x82\x02ab"
    assert ws_frame(TEXT, b"a" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert ws_frame(BINARY, b"a" * 65536)[:10] == b"\x82\x7f" + (65536).to_bytes(8, "big")
    assert ws_close_frame(1000, "Bye") == b"\x88\x05\x03\xe8Bye"
    assert len(ws_close_frame(1000, "x" * 200)) == 2 + 125


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_in_no_splits_do_more_than_be_refused(pieces):
    whole = play([b"".join(pieces)])
    assert play(pieces) == whole
