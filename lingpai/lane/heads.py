"""The heads of requests: what is wrong with one, and one without its wish to upgrade."""

from typing import Final

import httptools

from lingpai.lane.calls import Headers

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100

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
