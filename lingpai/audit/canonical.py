"""The one spelling of a record: what is hashed, signed and exported.

It is that of RFC 8785 (JSON Canonicalization Scheme) for the values that records have: UTF-8, fields sorted, no blanks.
There are no floating-point numbers, whose spelling would depend on who writes them.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

FIRST_PREVIOUS: Final = "0" * 64
"""What stands for the hash before the first record."""


def canonical(value: Mapping[str, Any]) -> str:
    """`value`, made of what `plain` gives, as one line without its end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def hash_of(line: str) -> str:
    """SHA-256 of a line in UTF-8, in hex."""
    return hashlib.sha256(line.encode()).hexdigest()


def plain(value: Any) -> Any:
    """`value` made of mappings with text keys, lists, texts, integers, booleans and None.

    A float that is a whole number becomes an integer, any other its text. Text that is no valid Unicode is made so.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    if isinstance(value, dict | Mapping):
        return {_text(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        in_order = value if isinstance(value, list | tuple) else sorted(value, key=str)
        return [plain(each) for each in in_order]
    return _text(str(value))


def time_text(time: float) -> str:
    """`time` (Unix seconds) to the millisecond, as ``2026-11-20T08:00:00.123Z``."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_in(text: str) -> float:
    """Unix seconds of what `time_text` wrote. Raises ValueError for anything else."""
    if not text.endswith("Z"):
        raise ValueError("a time of the trail is in UTC and ends with Z")
    return datetime.fromisoformat(text).timestamp()


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
