"""How an answer looks: lines that nobody can forge."""

import json
from email.utils import parsedate_to_datetime

import pytest

from lingpai.gateway.answer import STATUS_LINE, CrossOrigin, DateLine, header_lines, malformed


def test_status_lines_are_complete():
    assert STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    assert STATUS_LINE[429] == b"HTTP/1.1 429 Too Many Requests\r\n"
    assert all(STATUS_LINE[status].startswith(b"HTTP/1.1 %d " % status) for status in range(200, 600))


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\rx-evil: 1", "\r\n\r\nbody"])
def test_line_breaks_cannot_get_into_a_header(value):
    lines = header_lines({"retry-after": value})

    assert lines.count(b"\n") == lines.count(b"\r") == 1
    assert lines.endswith(b"\r\n")


def test_header_value_outside_latin_1_is_no_error():
    assert header_lines({"x": "模"}) == b"x: ?\r\n"


def test_date_line_is_the_date_and_made_anew_each_second():
    line = DateLine()

    first = line.at(1_795_000_000.1)

    date, *more = first.decode().strip().split("\r\n")
    assert parsedate_to_datetime(date[6:]).timestamp() == 1_795_000_000
    assert more == ["x-content-type-options: nosniff"]
    assert line.at(1_795_000_000.9) is first
    assert line.at(1_795_000_001.0) != first


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("*",), b"https://a.example", b"*"),
        (("https://a.example",), b"https://a.example", b"https://a.example"),
        (("https://a.example",), b"https://b.example", None),
        (("https://a.example",), b"https://a.example.evil", None),
        (("https://a.example",), b"null", None),
        ((), b"https://a.example", None),
    ],
)
def test_pages_of_allowed_origins_may_read_an_answer(origins, origin, allowed):
    lines = CrossOrigin(origins).lines(origin)

    if allowed is None:
        assert lines == b""
    else:
        assert b"access-control-allow-origin: " + allowed + b"\r\n" in lines
        assert b"retry-after" in lines
        assert (b"vary: origin" in lines) == (allowed != b"*")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (413, "request_too_large"),
        (429, "rate_limit_exceeded"),
        (431, "headers_too_large"),
        (503, "server_busy"),
    ],
)
def test_answer_to_what_is_no_http_is_an_error_like_any_other(status, code):
    head, _, body = malformed(status, "Send less.", DateLine()).partition(b"\r\n\r\n")

    error = json.loads(body)["error"]
    assert head.startswith(STATUS_LINE[status].strip())
    assert (error["code"], error["message"]) == (code, "Send less.")
    assert b"connection: close" in head
    assert (b"retry-after: 1" in head) == (status in (429, 503))
    assert b"content-length: %d" % len(body) in head
