"""Pictures, sound and files inside a request: found where a request has them, and taken out of its text.

Only what stands in a part of a message that says so (`"type": "image_url"` and its like) is a medium, and only if it is
base64 or an address: whatever else stands there is text, so that no text is passed off as a picture.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgspec

TOKENS_PER_MEDIUM: Final = 1_500
"""What an image, a sound or a file counts: about what the larger vision models make of a large picture."""
_BYTES_PER_TOKEN: Final = 4
MAX_ADDRESS_BYTES: Final = 2048
MAX_MEDIA: Final = 2000
"""No request has so many; if one does, every object in it counts as one, which takes no time to find out."""

_FIELD_OF: Final = {
    "image_url": "image_url", "input_image": "image_url", "audio_url": "audio_url", "input_audio": "input_audio",
    "video_url": "video_url", "input_video": "video_url", "file": "file", "input_file": "file_data", "image": "image",
    "audio": "audio", "video": "video",
}  # fmt: skip
"""The type of a part, and where its medium is."""
_DATA_URL: Final = re.compile(rb'data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,"\\]*)*;base64,', re.ASCII)
_DATA_VALUE: Final = re.compile(
    rb':\s*"(data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[^;,"\\]*)*;base64,[A-Za-z0-9+/=_-]*)"', re.ASCII
)
_ADDRESS: Final = re.compile(rb"https?://[!-~]+", re.ASCII)
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_"
_TEXT_TYPES: Final = (b"text/", b"application/json", b"application/xml")


class _Item(msgspec.Struct):
    """A message, or a part of one."""

    type: Any = None
    content: msgspec.Raw = msgspec.Raw()
    image_url: msgspec.Raw = msgspec.Raw()
    audio_url: msgspec.Raw = msgspec.Raw()
    video_url: msgspec.Raw = msgspec.Raw()
    input_audio: msgspec.Raw = msgspec.Raw()
    file: msgspec.Raw = msgspec.Raw()
    file_data: msgspec.Raw = msgspec.Raw()
    image: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()
    video: msgspec.Raw = msgspec.Raw()


_MEDIA: Final = tuple(sorted({*_FIELD_OF.values()}))


class _Source(msgspec.Struct):
    url: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    file_data: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_BODY: Final = msgspec.json.Decoder(_Body)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ITEM: Final = msgspec.json.Decoder(_Item)
_SOURCE: Final = msgspec.json.Decoder(_Source)


class Media(NamedTuple):
    """The request without its media, how many those were, and the tokens they count."""

    text: bytes
    number: int = 0
    tokens: int = 0


Medium = tuple[bytes, int]
"""What of a medium is no text, as it stands between quotes (empty: nothing), and how many tokens it counts."""


def without_media(body: bytes, *, is_text: bool = True) -> Media:
    """`body`, a JSON object, with the media in it emptied.

    `is_text` says whether the model reads text. One that does not gets its data URLs under names of its own, so there
    each of them is a medium.
    """
    if not is_text:
        return _cut(body, ((match[1], _tokens(match[1])) for match in _DATA_VALUE.finditer(body)))
    if body.count(b"[") < 2:
        return Media(body)
    try:
        fields = _BODY.decode(body)
        found = chain(_in_items(bytes(fields.messages)), _in_input(bytes(fields.input)))
        media = list(islice(found, MAX_MEDIA + 1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        media = None  # what cannot be read may be anything
    if media is None or len(media) > MAX_MEDIA:
        number = body.count(b"{")
        return Media(body, number, number * TOKENS_PER_MEDIUM)
    return _cut(body, media)


def file_tokens(media_type: str | None, data: bytes) -> int:
    """What a file in a form counts: a text by its length, anything else like a medium."""
    kind = (media_type or "").encode()
    if kind.startswith(_TEXT_TYPES) or (kind.partition(b"/")[0] not in _KINDS and _is_text(data)):
        return max(len(data) // _BYTES_PER_TOKEN, TOKENS_PER_MEDIUM)
    return TOKENS_PER_MEDIUM


_KINDS: Final = (b"image", b"audio", b"video")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _in_input(value: bytes) -> Iterator[Medium]:
    """A worker's input: messages, an object with messages, or the parts of one message."""
    if value.startswith(b"{"):
        value = bytes(_BODY.decode(value).messages)
    yield from _in_items(value)


def _in_items(value: bytes) -> Iterator[Medium]:
    """Media in a list of messages or of parts, in order."""
    if not value.startswith(b"["):
        return
    for raw in _LIST.decode(value):
        item = bytes(raw)
        if item.startswith(b"{"):
            fields = _ITEM.decode(item)
            content = bytes(fields.content)
            if content.startswith(b"["):
                for part in _LIST.decode(content):
                    if bytes(part).startswith(b"{"):
                        yield from _in_part(_ITEM.decode(part))
            yield from _in_part(fields)


def _in_part(part: _Item) -> Iterator[Medium]:
    """The media of one part. Engines find some by the field alone, so each field that is there counts."""
    expected = _FIELD_OF.get(part.type) if isinstance(part.type, str) else None
    for name in _MEDIA:
        value = bytes(getattr(part, name))
        if value not in _NOTHING:
            text = _payload(value) if expected in (name, None) and part.type in (None, *_FIELD_OF) else b""
            yield text, _tokens(text)


_NOTHING: Final = (b"", b"null")


def _payload(value: bytes) -> bytes:
    """The string, between its quotes, that is the medium in a part's field; empty when there is none."""
    if value.startswith(b"{"):
        source = _SOURCE.decode(value)
        value = next(filter(None, map(bytes, (source.url, source.data, source.file_data))), b"")
    text = value[1:-1] if value.startswith(b'"') else b""
    plain = text.replace(b"\\/", b"/")  # as some write it
    if _ADDRESS.fullmatch(plain):
        return text if len(text) <= MAX_ADDRESS_BYTES else b""
    match = _DATA_URL.match(plain)
    payload = plain if match is None else plain[match.end() :]
    return text if payload and not payload.translate(None, _BASE64) else b""


def _cut(body: bytes, media: Iterable[Medium]) -> Media:
    """`body` without `media`, which are found in it one after the other."""
    kept: list[bytes] = []
    done = number = tokens = 0
    for text, each in media:
        number, tokens = number + 1, tokens + each
        at = body.find(b'"%b"' % text, done) if text else -1
        if at >= 0:  # else it stays a text
            kept.append(body[done : at + 1])
            done = at + 1 + len(text)
    return Media(b"".join([*kept, body[done:]]) if kept else body, number, tokens)


def _tokens(text: bytes) -> int:
    match = _DATA_URL.match(text[:200].replace(b"\\/", b"/"))
    if match is not None and (match[1] or b"").lower().startswith(_TEXT_TYPES):
        return max(len(text) * 3 // 4 // _BYTES_PER_TOKEN, TOKENS_PER_MEDIUM)
    return TOKENS_PER_MEDIUM
