"""Structured fields (RFC 9651, which obsoletes RFC 8941): their values, and the one form in which each is written.

A List is a tuple of members, a Dictionary a dict in the order of its members; a member is an `Item` or an `InnerList`.
`structured_field_parser.py` reads them.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

MOST_DIGITS: Final = 15
_KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]*")
_TOKEN: Final = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")


class StructuredFieldError(ValueError):
    """The text is not the structured field it should be; the message says where and why."""


class Token(str):
    """A bare word, such as ``gzip``; `str` itself is a String, which stands in quotes."""

    __slots__ = ()


class Date(int):
    """A point in time in Unix seconds; written ``@1659578233`` (RFC 9651, section 3.3.7)."""

    __slots__ = ()


class DisplayString(str):
    """A string of any characters; written ``%"f%c3%bc"`` (RFC 9651, section 3.3.8)."""

    __slots__ = ()


BareItem = bool | int | Decimal | str | bytes
Parameters = Mapping[str, BareItem]


@dataclass(frozen=True, slots=True)
class Item:
    """A value and its parameters."""

    value: BareItem
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    """Items in parentheses, and the parameters of the whole."""

    items: tuple[Item, ...]
    parameters: Parameters = field(default_factory=dict)


Member = Item | InnerList


def serialize_dictionary(members: Mapping[str, Member]) -> str:
    """A Dictionary as text (section 4.1.2). Raises StructuredFieldError for what cannot be written."""
    return ", ".join(_dictionary_member(key, member) for key, member in members.items())


def serialize_list(members: Sequence[Member]) -> str:
    """A List as text (section 4.1.1). Raises StructuredFieldError for what cannot be written."""
    return ", ".join(serialize_member(member) for member in members)


def serialize_member(member: Member) -> str:
    """An Item or an Inner List with its parameters (sections 4.1.1.1 and 4.1.3). Raises StructuredFieldError."""
    if isinstance(member, Item):
        return serialize_bare_item(member.value) + serialize_parameters(member.parameters)
    inner = " ".join(serialize_member(item) for item in member.items)
    return f"({inner}){serialize_parameters(member.parameters)}"


def serialize_parameters(parameters: Parameters) -> str:
    """Parameters as text (section 4.1.1.2); true is written by its name alone. Raises StructuredFieldError."""
    written = []
    for key, value in parameters.items():
        _check_key(key)
        written.append(f";{key}" if value is True else f";{key}={serialize_bare_item(value)}")
    return "".join(written)


def serialize_bare_item(value: BareItem) -> str:
    """A value as text (section 4.1.3.1). Raises StructuredFieldError for what cannot be written."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return f"?{int(value)}"
    if isinstance(value, int):
        return f"@{_integer(int(value))}" if isinstance(value, Date) else _integer(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    return f":{base64.b64encode(value).decode()}:"


def _integer(value: int) -> str:
    if abs(value) >= 10**MOST_DIGITS:
        raise StructuredFieldError(f"{value} has more than {MOST_DIGITS} digits")
    return str(value)


def _decimal(value: Decimal) -> str:
    rounded = round(value, 3)
    if abs(rounded) >= 10**12:
        raise StructuredFieldError(f"{value} has more than 12 digits before its point")
    whole, _, fraction = f"{rounded:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def _text(value: str) -> str:
    if type(value) is str:
        return _string(value)
    if isinstance(value, DisplayString):
        return '%"' + "".join(_display_byte(each) for each in value.encode()) + '"'
    if _TOKEN.fullmatch(value) is None:
        raise StructuredFieldError(f"{str(value)!r} is no token")
    return str(value)


def _string(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise StructuredFieldError("a string holds a character that is not printable ASCII")
    if '"' in value or "\\" in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def _display_byte(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}"


def _dictionary_member(key: str, member: Member) -> str:
    _check_key(key)
    if isinstance(member, Item) and member.value is True:
        return key + serialize_parameters(member.parameters)
    return f"{key}={serialize_member(member)}"


def _check_key(key: str) -> None:
    if _KEY.fullmatch(key) is None:
        raise StructuredFieldError(f"{key!r} is no key")
