"""Pictures, sound and other files as they stand in JSON: data URLs and base64, and what kind of file bytes are."""

import binascii
import re
from typing import Final

_DATA_URL: Final = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/", " \t\r\n=")

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF: Final = {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_BRANDS: Final = {
    b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heic",
    b"M4A ": "audio/mp4", b"M4B ": "audio/mp4",
}  # fmt: skip


def sniff(data: bytes) -> str | None:
    """The media type that the first bytes of `data` give away; None when they do not."""
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "video/mp4")
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def is_data_url(text: str) -> bool:
    """Whether `text` means to be a data URL (RFC 2397)."""
    return text[:5].lower() == "data:"


def read_data_url(text: str) -> tuple[bytes, str | None]:
    """The bytes and the media type in a base64 data URL. Raises ValueError when it is not one."""
    match = _DATA_URL.match(text)
    if match is None:
        raise ValueError("expected a data URL such as `data:image/png;base64,…`")
    return decode_base64(text[match.end() :]), match["type"]


def decode_base64(text: str) -> bytes:
    """The bytes in `text`: base64 of either alphabet (RFC 4648), padded or not. Raises ValueError."""
    plain = text.translate(_FROM_URL_SAFE)
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError as error:  # binascii.Error is one
        raise ValueError("expected base64, a data URL or an http(s) address") from error


def encode_base64(data: bytes) -> str:
    """`data` as base64 without line breaks."""
    return binascii.b2a_base64(data, newline=False).decode()


def data_url(data: bytes, media_type: str) -> str:
    """`data` as a data URL."""
    return f"data:{media_type};base64,{encode_base64(data)}"
