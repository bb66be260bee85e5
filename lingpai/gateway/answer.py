"""How an answer looks: status line, headers, body, as one run of bytes."""

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.ids import new_request_id

STATUS_LINE: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
    for status in range(200, 600)
    for phrase in [HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"]
}

EXPOSED_HEADERS: Final = (
    "x-request-id, request-id, openai-processing-ms, retry-after, retry-after-ms, x-should-retry, ratelimit, "
    "ratelimit-policy, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-lingpai-dropped-params"
)
"""What scripts in a browser may read of an answer (Access-Control-Expose-Headers)."""


class DateLine:
    """The `date` header line, made anew when the second changes (RFC 9110, section 6.6.1).

    With it come lines that every answer has, which so cost a call nothing: what a model says is not to be taken for
    another type than it has, and, with TLS, the policy `strict_transport` (RFC 6797, section 7.1; the administration socket
    then has it, too, but there are no browsers on it).
    """

    def __init__(self, *, strict_transport: str | None = None) -> None:
        policy = strict_transport and f"strict-transport-security: {strict_transport}\r\n"
        self._also = f"x-content-type-options: nosniff\r\n{policy or ''}".encode()
        self._second = 0
        self._line = b""

    def at(self, now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second = second
            self._line = b"date: %b\r\n%b" % (formatdate(second, usegmt=True).encode(), self._also)
        return self._line


class CrossOrigin:
    """The header lines that let pages of other origins read an answer (Fetch standard, section 3.3)."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._expose = b"access-control-expose-headers: %b\r\n" % EXPOSED_HEADERS.encode()

    def lines(self, origin: bytes) -> bytes:
        """Header lines for a request with this Origin."""
        if self._any:
            return b"access-control-allow-origin: *\r\n" + self._expose
        if origin in self._origins:
            return b"access-control-allow-origin: %b\r\nvary: origin\r\n%b" % (origin, self._expose)
        return b""


def header_lines(headers: dict[str, str]) -> bytes:
    """`headers` as lines. Line breaks cannot get in: they would begin a header of somebody else's choice."""
    return b"".join(
        b"%b: %b\r\n"
        % (name.encode("latin-1"), value.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace"))
        for name, value in headers.items()
    )


_CODES: Final = {
    413: "request_too_large",
    431: "headers_too_large",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "server_busy",
}


def malformed(status: int, message: str, date_line: DateLine) -> bytes:
    """A whole answer to something that is not proper HTTP, or too much; the connection closes after it."""
    code = _CODES.get(status, "invalid_request")
    body = msgspec.json.encode(LingpaiError(code, message).body())
    request_id = new_request_id()
    head = (
        b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n"
        b"x-request-id: %b\r\nrequest-id: %b\r\n%bconnection: close\r\n\r\n"
    )
    retry = b"retry-after: 1\r\n" if status in (429, 503) else b""
    date = date_line.at(time.time())
    return head % (STATUS_LINE[status], date, len(body), request_id, request_id, retry) + body
