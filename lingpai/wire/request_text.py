"""A request as somebody has written it down: raw HTTP/1.1, or what `curl -v` shows of it."""

import re
from dataclasses import dataclass, field
from typing import Final

from lingpai.wire.message_signatures import Message

MOST_FIELDS: Final = 100
_MOST_DIGITS: Final = 15
_REQUEST_LINE: Final = re.compile(r"([A-Za-z]+) (\S+)(?: HTTP/[0-9.]+)?")
_CURL_LINE: Final = re.compile(rb"^> ?", re.MULTILINE)
_CURL_TLS: Final = re.compile(rb"^\* .*(?:SSL connection|ALPN|TLS)", re.MULTILINE)


class RequestTextError(ValueError):
    """The text is no request; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class WrittenRequest:
    """A request, and its body, or None where the text does not have it. `head` is the text without the body."""

    message: Message
    body: bytes | None = field(repr=False)
    head: bytes = field(repr=False)


def read_request(text: bytes) -> WrittenRequest:
    """The request in `text`. Raises RequestTextError.

    Lines may end as they do in files. What `curl -v` shows has no body; of a raw request with Content-Length the body is
    cut there, because editors put a line break behind it.
    """
    is_curl = any(line.startswith(b"> ") for line in text.splitlines())
    if is_curl:
        scheme = "https" if _CURL_TLS.search(text) else "http"
        return WrittenRequest(_read_head(_lines_of_curl(text), scheme), None, text)
    head, body = _split(text)
    message = _read_head(head.splitlines(), "https")
    if message.value("transfer-encoding") is not None:
        return WrittenRequest(message, None, head)  # what is there is its framing, too
    length = message.value("content-length")
    if length is not None and length.isdecimal():
        if len(length) > _MOST_DIGITS:  # Python refuses to read thousands of them
            raise RequestTextError("its Content-Length is more than any body can have")
        body = body[: int(length)]
    return WrittenRequest(message, body, head)


def _lines_of_curl(text: bytes) -> list[bytes]:
    """The last request that curl has sent: before it may have been one that was redirected or asked for credentials."""
    lines: list[bytes] = []
    for line in text.splitlines():
        if not line.startswith(b">"):
            continue
        shown = _CURL_LINE.sub(b"", line, count=1)
        if lines and _REQUEST_LINE.fullmatch(shown.decode("latin-1").strip()):
            lines = []
        if shown.strip():
            lines.append(shown)
    return lines


def _split(text: bytes) -> tuple[bytes, bytes]:
    found = re.search(rb"\r?\n\r?\n", text)
    return (text, b"") if found is None else (text[: found.start()], text[found.end() :])


def _read_head(lines: list[bytes], scheme: str) -> Message:
    first = lines[0].decode("latin-1").strip() if lines else ""
    request_line = _REQUEST_LINE.fullmatch(first)
    if request_line is None:
        raise RequestTextError(
            f"it does not begin with a request line such as `POST /v1/embeddings HTTP/1.1`: {first[:80]!r}"
        )
    if len(lines) > MOST_FIELDS + 1:
        raise RequestTextError(f"it has more than {MOST_FIELDS} headers")
    fields = tuple(_field(line.decode("latin-1")) for line in lines[1:] if line.strip())
    host = next((value for name, value in fields if name == "host"), "")
    return Message(
        method=request_line[1].upper(), target=request_line[2], scheme=scheme, authority=host, fields=fields
    )


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise RequestTextError(f"this is no header: {line[:80]!r}")
    return name.lower(), value.strip()
