"""The HTTP/1.1 codec by itself: every split of the same bytes gives the same events, and what is wrong is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blynk_pi
from blynk_pi import HttpError, HttpParser, HttpRequest


def events(pieces, **limits):
    """What a parser makes of the pieces: (method, target, headers) per head, the joined body, "end" behind it."""
    parser, seen = HttpParser(**limits), []
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next()) is not None:
            if isinstance(event, HttpRequest):
                seen.append((event.method, event.target, event.headers, event.keep_alive, event.length))
            elif not event:
                seen.append("end")
            elif seen and isinstance(seen[-1], bytes):
                seen[-1] += event
            else:
                seen.append(event)
    return seen


def one(data, **limits):
    (event,) = events([data], **limits)
    return event


def refused(data, **limits):
    """The status the client is answered with."""
    with pytest.raises(HttpError) as refusal:
        events([data], **limits)
    return refusal.value.status


CONVERSATION = (
    b"GET /token/get/v5?a=1 HTTP/1.1\r\nHost: pi:8080\r\nX-Two: a\r\nx-two: b\r\n\r\n"
    b"PUT /token/update/v5 HTTP/1.1\r\nHost: pi\r\nContent-Length: 8\r\n\r\n"
    b'["21.5"]'
    b"\r\nPOST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;note=1\r\nabc\r\n0005\r\ndefgh\r\n0\r\nTrailer: y\r\n\r\n"
    b"GET /last HTTP/1.0\r\n\r\n"
)
EXPECTED = [
    ("GET", "/token/get/v5?a=1", {"host": "pi:8080", "x-two": "a, b"}, True, 0),
    ("PUT", "/token/update/v5", {"host": "pi", "content-length": "8"}, True, 8),
    b'["21.5"]',
    "end",
    ("POST", "/x", {"transfer-encoding": "chunked"}, True, -1),
    b"abcdefgh",
    "end",
    ("GET", "/last", {}, False, 0),
]


def test_every_split_of_a_conversation_gives_the_same_events():
    assert events([CONVERSATION]) == EXPECTED
    assert events([bytes([b]) for b in CONVERSATION]) == EXPECTED
    for at in range(len(CONVERSATION)):
        assert events([CONVERSATION[:at], CONVERSATION[at:]]) == EXPECTED


def test_a_board_that_ends_its_lines_with_lf_alone_is_understood():
    assert one(b"GET /t/get/v1 HTTP/1.1\nHost: pi\n\n")[:3] == ("GET", "/t/get/v1", {"host": "pi"})
    assert one(b"GET /t/get/v1 HTTP/1.1\nHost: pi\r\n\n")[2] == {"host": "pi"}
    two = b"GET /a HTTP/1.1\nA: b\n\nGET /c HTTP/1.1\r\n\r\n"
    for at in range(len(two)):
        assert [e[1] for e in events([two[:at], two[at:]])] == ["/a", "/c"]


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade, CLOSE\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", False),
    ],
)
def test_connection_header_of_both_versions(lines, keeps):
    assert one(lines + b"\r\n")[3] is keeps


def test_absolute_targets_are_brought_to_their_path_and_their_host_counts():
    assert one(b"GET http://pi:8080/a/b?c HTTP/1.1\r\nHost: other\r\n\r\n")[1:3] == ("/a/b?c", {"host": "pi:8080"})
    assert one(b"GET HTTPS://pi HTTP/1.1\r\n\r\n")[1] == "/"
    assert one(b"GET http://pi?x=1 HTTP/1.1\r\n\r\n")[1] == "/?x=1"
    assert one(b"OPTIONS * HTTP/1.1\r\n\r\n")[1] == "*"
    assert refused(b"GET * HTTP/1.1\r\n\r\n") == 400
    assert refused(b"GET pi/a HTTP/1.1\r\n\r\n") == 400


SMUGGLING = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Content-Length: 3\r\nContent-Length: 4",
    b"Content-Length: 3\r\nContent-Length: 3",
    b"Content-Length: 3, 3",
    b"Content-Length: +3",
    b"Content-Length: -3",
    b"Content-Length: 0x3",
    b"Content-Length: 3 4",
    b"Content-Length:",
    b"Content-Length: \xb2",
    b"Content-Length: 99999999999999999999",
    b"Content-Length : 3",
    b" Content-Length: 3",
    b"Host: a\r\n b",
    b"Host: a\r\n\tb",
    b"Host: a\r\nHost: b",
    b"Host: a b",
    b"Host: a/b",
    b"Host: a@b",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"X: a\rY: b",
    b"X: a\x00b",
    b"X: a\x7fb",
    b"X\x00: a",
    b"X(): a",
    b"\xc3\xa4: a",
    b": a",
    b"no colon",
]


@pytest.mark.parametrize("lines", SMUGGLING)
def test_what_two_servers_could_read_in_two_ways_is_refused(lines):
    assert refused(b"POST / HTTP/1.1\r\n" + lines + b"\r\n\r\nabc") == 400


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: identity", 501),
        (b"Transfer-Encoding: xchunked", 501),
        (b"Expect: something", 417),
        (b"A: " + b"a" * 8192, 431),
        (b"\r\n".join(b"A%d: 1" % i for i in range(101)), 431),
    ],
)
def test_refusals_of_the_header_have_their_own_status(lines, status):
    assert refused(b"POST / HTTP/1.1\r\n" + lines + b"\r\n\r\n") == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"G(T / HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET /\x01 HTTP/1.1", 400),
        (b"GET /" + b"a" * 4096 + b" HTTP/1.1", 414),
    ],
)
def test_request_lines_that_are_none(line, status):
    assert refused(line + b"\r\n\r\n") == status


def test_the_limits_hold_before_the_end_of_the_line_is_there():
    assert refused(b"GET /" + b"a" * 4200) == 414
    assert refused(b"GET / HTTP/1.1\r\nA: " + b"a" * 8300) == 431
    assert one(b"GET /" + b"a" * 4082 + b" HTTP/1.1\r\n\r\n")[1] == "/" + "a" * 4082
    assert refused(b"GET / HTTP/1.1\r\n\r\n" * 1, max_line=10) == 414


@pytest.mark.parametrize(
    "chunks",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabcX\r\n",
        b"123456789\r\n",
        b"3 3\r\nabc\r\n",
        b"3;" + b"a" * 300,
        b"3;a\x00\r\nabc\r\n",
    ],
)
def test_chunks_that_are_none(chunks):
    assert refused(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks) == 400


def test_chunks_may_not_be_longer_together_than_a_body():
    head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused(head + b"8\r\n12345678\r\n8\r\n12345678\r\n", max_body=15) == 413
    assert refused(head + b"ffffffff\r\n") == 413
    assert events([head + b"8\r\n12345678\r\n0\r\n\r\n"], max_body=8)[1] == b"12345678"


def test_a_refused_body_is_skipped_and_the_next_request_is_read():
    parser = HttpParser(max_body=10)
    parser.feed(b"PUT /a HTTP/1.1\r\nContent-Length: 30\r\n\r\n" + b"a" * 20)
    assert parser.next().length == 30
    assert not parser.skip_body()
    parser.feed(b"a" * 10 + b"GET /b HTTP/1.1\r\n\r\n")
    assert parser.skip_body()
    assert parser.next().target == "/b"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=12))
def test_no_bytes_in_no_splits_do_more_than_be_refused(pieces):
    try:
        whole = events([b"".join(pieces)])
    except HttpError as refusal:
        with pytest.raises(HttpError) as again:
            events(pieces)
        assert 400 <= refusal.status <= 505
        assert again.value.status == refusal.status
    else:
        assert events(pieces) == whole


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mangled_requests_do_no_more_either(data):
    text = bytearray(CONVERSATION)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        events([bytes(text)])
    except HttpError as refusal:
        assert refusal.status in (400, 413, 414, 417, 431, 501, 505)


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("value=1", {"value": ["1"]}),
        ("value=a%20b+c%2Bd", {"value": ["a b c+d"]}),
        ("a=1&b=2;a=3", {"a": ["1", "3"], "b": ["2"]}),
        ("value", {"value": [""]}),
        ("value=&&=x", {"value": [""], "": ["x"]}),
        ("v=%C3%A4", {"v": ["ä"]}),
        ("v=%zz%4", {"v": ["%zz%4"]}),
        ("v=%ff", {"v": ["\ufffd"]}),
        ("a=1=2", {"a": ["1=2"]}),
        (None, {}),
    ],
)
def test_query_parameters(query, values):
    assert blynk_pi.parse_query(query) == values


def test_more_query_parameters_than_1024_are_ignored():
    assert len(blynk_pi.parse_query("&".join(f"a{i}=1" for i in range(2000)))) == 1024


def test_a_header_value_of_ours_never_holds_a_line_break():
    assert blynk_pi.http_field("location", "/a") == b"location: /a\r\n"
    for value in ("/a\r\nSet-Cookie: x", "/a\nb", "/a\rb", "/a\0"):
        with pytest.raises(ValueError):
            blynk_pi.http_field("location", value)
