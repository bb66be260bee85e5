"""Vectors in the form the caller asked for.

openai-python and -node ask for base64 by default (little-endian float32) and misread a list; other clients ask for
floats and cannot read base64. Backends do not always answer as they were asked.
"""

import base64
import struct
from typing import Any

import msgspec


class _Item(msgspec.Struct):
    embedding: msgspec.Raw


class _Answer(msgspec.Struct):
    data: list[_Item]


_PEEK = msgspec.json.Decoder(_Answer)


def floats_to_base64(vector: list[float]) -> str:
    """Little-endian float32, base64. Raises ValueError for what no float32 can hold."""
    try:
        packed = struct.pack(f"<{len(vector)}f", *vector)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"an embedding must be a list of numbers: {error}") from error
    return base64.b64encode(packed).decode()


def base64_to_floats(text: str) -> list[float]:
    """The reverse of `floats_to_base64`. Raises ValueError when the length is not a multiple of four bytes."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) % 4:
        raise ValueError("an embedding in base64 must hold whole float32 values")
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def match_encoding(body: bytes, encoding_format: str | None) -> bytes:
    """An embeddings answer whose vectors are in `encoding_format` (None means float), converted only if needed.

    Raises msgspec.DecodeError or ValueError when the answer is not an embeddings answer.
    """
    wants_text = encoding_format == "base64"
    items = _PEEK.decode(body).data
    if all(bytes(item.embedding).startswith(b'"') == wants_text for item in items):
        return body
    answer: dict[str, Any] = msgspec.json.decode(body)
    for item in answer["data"]:
        vector = item["embedding"]
        if isinstance(vector, str) and not wants_text:
            item["embedding"] = base64_to_floats(vector)
        elif isinstance(vector, list) and wants_text:
            item["embedding"] = floats_to_base64(vector)
    return msgspec.json.encode(answer)
