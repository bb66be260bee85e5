"""Forms with files: `multipart/form-data` (RFC 7578), read whole and written anew.

A form is never passed on as it came: what two readers could read differently (two fields of a name, odd quoting, text
before the first boundary) is refused here, and the backend gets a form of our own making. File names are labels; they
touch no file system.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from lingpai.errors import LingpaiError

MAX_PARTS: Final = 100
MAX_HEAD_BYTES: Final = 4096
"""The head of one part: a name, a file name and a type."""
MAX_TEXT_BYTES: Final = 1024 * 1024
"""A field that is not a file."""

_BOUNDARY: Final = re.compile(rb'(?i);\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))\s*(?:;|\Z)')
_BOUNDARY_CHARACTERS: Final = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PARAMETER: Final = re.compile(r';\s*([A-Za-z*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"\\]+))')
_PARAMETERS: Final = re.compile(rf"(?:{_PARAMETER.pattern}\s*)*")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_UNKNOWN_TYPE: Final = "application/octet-stream"
_MEDIA_TYPE: Final = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """One field: a text, or a file when `filename` is not None."""

    name: str
    data: bytes = field(repr=False)
    filename: str | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The fields in the order they came."""

    parts: tuple[Part, ...]

    def text(self, name: str) -> str | None:
        """The value of a text field; None when it is not there. Raises LingpaiError when it is a file."""
        part = self.part(name)
        if part is None:
            return None
        if part.filename is not None:
            raise LingpaiError("invalid_request", f"`{name}` must be a text field, not a file.", name)
        return part.data.decode()  # read_form has seen that it is UTF-8

    def part(self, name: str) -> Part | None:
        """The field called `name`; None when it is not there."""
        return next((part for part in self.parts if part.name == name), None)


def is_form(content_type: bytes | None) -> bool:
    """Whether a Content-Type announces a form with files."""
    return content_type is not None and content_type[:19].lower() == b"multipart/form-data"


def read_form(body: bytes, content_type: bytes) -> Form:
    """The fields in `body`. Raises LingpaiError `invalid_request` when it is not a form, or one of doubtful meaning.

    Names ending in `[]` may come several times; others only once.
    """
    delimiter = b"--" + _boundary(content_type)
    if not body.startswith(delimiter):
        raise _broken("it does not begin with its boundary")
    parts: list[Part] = []
    start = len(delimiter)
    while body[start : start + 2] != b"--":
        if len(parts) == MAX_PARTS:
            raise _broken(f"it has more than {MAX_PARTS} parts")
        end = body.find(b"\r\n" + delimiter, start)
        if end < 0:
            raise _broken("it does not end with its boundary")
        parts.append(_read_part(body, start, end))
        start = end + 2 + len(delimiter)
    if body[start + 2 :].strip(b"\r\n"):
        raise _broken("something stands behind its end")
    _refuse_repeated(parts)
    return Form(tuple(parts))


def write_form(parts: Iterable[Part]) -> tuple[bytes, bytes]:
    """The Content-Type and the body of a form. The boundary is random, so no file can hold it."""
    boundary = b"lingpai-" + secrets.token_hex(20).encode()
    pieces: list[bytes] = []
    for part in parts:
        pieces += (b"--", boundary, b"\r\n", _head(part), part.data, b"\r\n")
    pieces += (b"--", boundary, b"--\r\n")
    return b"multipart/form-data; boundary=" + boundary, b"".join(pieces)


def _boundary(content_type: bytes) -> bytes:
    match = _BOUNDARY.search(content_type)
    boundary = match and (match[1] or match[2])
    if not boundary or not _BOUNDARY_CHARACTERS.fullmatch(boundary):
        raise _broken("its Content-Type has no proper boundary")
    return boundary


def _read_part(body: bytes, start: int, end: int) -> Part:
    """The part between two places in `body`; its data is the only copy that is made."""
    most = min(end, start + 2 + MAX_HEAD_BYTES + 4)
    head_end = body.find(b"\r\n\r\n", start, most)
    if head_end < 0 or not body.startswith(b"\r\n", start):
        raise _broken(f"a part has no head, or one over {MAX_HEAD_BYTES} bytes")
    name, filename, media_type = _read_head(body[start + 2 : head_end])
    data = body[head_end + 4 : end]
    if filename is None:
        _check_text(name, data)
    return Part(name, data, filename, media_type)


def _read_head(head: bytes) -> tuple[str, str | None, str | None]:
    """Name, file name and media type in the head of a part."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise _broken("the head of a part is not UTF-8") from error
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or name.lower() in fields:
            raise _broken("the head of a part cannot be read")
        fields[name.lower()] = value.strip()
    if fields.get("content-transfer-encoding", "binary").lower() not in ("7bit", "8bit", "binary"):
        raise _broken("a part has a Content-Transfer-Encoding; send it as it is")
    name, filename = _disposition(fields.get("content-disposition", ""))
    media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    return name, filename, media_type if _MEDIA_TYPE.fullmatch(media_type) else None


def _disposition(value: str) -> tuple[str, str | None]:
    """Name and file name (RFC 7578, section 4.2)."""
    kind, semicolon, rest = value.partition(";")
    if kind.strip().lower() != "form-data" or not _PARAMETERS.fullmatch(semicolon + rest):
        raise _broken('a part needs `Content-Disposition: form-data; name="…"`')
    found = [(name.lower(), quoted or bare) for name, quoted, bare in _PARAMETER.findall(semicolon + rest)]
    values = dict(found)
    if len(values) != len(found) or not values.get("name"):
        raise _broken("a part has no name, or two")
    filename = values.get("filename")
    extended = values.get("filename*", "")
    if extended.lower().startswith("utf-8'"):  # RFC 5987; RFC 7578 does not want it, but clients send it
        filename = unquote(extended.split("'", 2)[-1])
    return _unescaped(values["name"]), None if filename is None else _label(_unescaped(filename))


def _unescaped(text: str) -> str:
    # Browsers write a quote as %22 (the URL standard's form encoding), curl as \".
    return re.sub(r"\\(.)", r"\1", text).replace("%22", '"').replace("%0D", "").replace("%0A", "")


def _label(filename: str) -> str:
    """A file name without directories and control characters."""
    return _CONTROLS.sub("", re.split(r"[/\\]", filename)[-1])[:200]


def _check_text(name: str, data: bytes) -> None:
    if len(data) > MAX_TEXT_BYTES:
        raise _broken(f"the field `{name[:60]}` is over {MAX_TEXT_BYTES} bytes; send it as a file")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise _broken(f"the field `{name[:60]}` is not UTF-8; send it as a file") from error


def _refuse_repeated(parts: list[Part]) -> None:
    names = [part.name.casefold() for part in parts if not part.name.endswith("[]")]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise LingpaiError(
            "invalid_request", f"The form has `{repeated[:60]}` twice. Send it once.", repeated[:60]
        )


def _head(part: Part) -> bytes:
    lines = f'Content-Disposition: form-data; name="{_quoted(part.name)}"'
    if part.filename is not None:
        lines += f'; filename="{_quoted(part.filename)}"\r\nContent-Type: {part.media_type or _UNKNOWN_TYPE}'
    return f"{lines}\r\n\r\n".encode()


def _quoted(text: str) -> str:
    return _CONTROLS.sub("", text).replace('"', "%22").replace("\\", "_")


def _broken(why: str) -> LingpaiError:
    return LingpaiError("invalid_request", f"The form cannot be read: {why}.")
