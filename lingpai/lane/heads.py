"""The heads of messages: what is wrong with one, one without its wish to upgrade, and those that are known already."""

import re
from typing import Final

import httptools

from lingpai.lane.calls import Headers

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100

MOST_LESSONS_IN_VAIN: Final = 8
MOST_DIGITS: Final = 6
_LENGTH: Final = re.compile(rb"(?<=\r\ncontent-length: )([0-9]{1,6})(?=\r\n)", re.IGNORECASE)
_UPGRADING: Final = (b"upgrade", b"connection", b"http2-settings")


def problem_with_head(url: bytes, headers: Headers, *, version: str, received: int) -> tuple[int, str] | None:
    """Status and message of the refusal; None for a proper head. `received` bytes hold it, and maybe more."""
    if len(headers) > MAX_HEADERS:
        return 431, f"More than {MAX_HEADERS} headers. Send fewer."
    if received > MAX_HEAD_BYTES:
        size = sum(len(name) + len(value) + 4 for name, value in headers) + len(url)
        if size > MAX_HEAD_BYTES:
            return 431, f"The header block is over {MAX_HEAD_BYTES} bytes. Send fewer or shorter headers."
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts != 1 and (hosts or version == "1.1"):
        return 400, "A request needs exactly one Host header (RFC 9112, section 3.2)."
    return None


def without_upgrade(method: bytes, url: bytes, headers: Headers, *, version: str, keep_alive: bool) -> bytes:
    """The head as it would be if no upgrade had been asked for."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, url, version.encode())]
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines += [b"%b: %b\r\n" % item for item in headers if item[0] not in _UPGRADING]
    return b"".join([*lines, b"\r\n"])


def has_path(target: bytes) -> bool:
    """Whether a request target has a path: it is one, or an address with one (RFC 9112, section 3.2)."""
    try:
        path = httptools.parse_url(target).path
    except httptools.HttpParserInvalidURLError:
        return False
    return path is not None and path.isascii()


class KnownHead:
    """The head of the last message on a connection, so that the next one that begins alike need not be parsed.

    Programs write the heads of one connection alike but for the digits of Content-Length. A message is taken for known
    only if it is there as a whole and nothing but it: such a head, and a body as long as the digits say. What the parser
    made of the head is then true again. Whose heads always differ is not learned from for ever.
    """

    __slots__ = ("_after", "_before", "_in_vain")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._in_vain = 0

    def learn(self, message: bytes) -> bool:
        """Take the head of a message that was parsed. Answers whether it is known now: it is one whole message."""
        if self._in_vain >= MOST_LESSONS_IN_VAIN:
            return False
        self._in_vain += 1
        head = message[: message.find(b"\r\n\r\n") + 4]
        parts = _LENGTH.split(head)
        if len(parts) != 3 or not parts[1] or len(message) - len(head) != int(parts[1]):
            return False
        self._before, _, self._after = parts
        return True

    def body_of(self, message: bytes) -> bytes:
        """The body of a message with this head; empty when it has another, or is not whole, or more than one."""
        before, after = self._before, self._after
        if not before or not message.startswith(before):
            return b""
        start = len(before)
        end = message.find(b"\r", start, start + MOST_DIGITS + 1)
        digits = message[start:end]
        if end < 0 or not digits.isdigit() or not message.startswith(after, end):
            return b""
        body = message[end + len(after) :]
        if len(body) != int(digits):
            return b""
        self._in_vain = 0
        return body
