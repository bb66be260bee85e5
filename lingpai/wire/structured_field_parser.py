"""Reads structured fields (RFC 9651, section 4.2), strictly: what is not exactly one is refused."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, NoReturn

from lingpai.wire.structured_fields import (
    BareItem,
    Date,
    DisplayString,
    InnerList,
    Item,
    Member,
    Parameters,
    StructuredFieldError,
    Token,
)

_KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]*")
_TOKEN: Final = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
_NUMBER: Final = re.compile(r"-?(?:([0-9]{1,12})\.([0-9]{1,3})|([0-9]{1,15}))(?![0-9.])")
_NUMBER_STARTS: Final = "-0123456789"
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BYTES: Final = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_USUAL: Final = re.compile(r'"([ !#-\[\]-~]*)"|(-?[0-9]{1,15})(?![0-9.])')
"""A string without escapes, or an integer."""
_PARAMETER: Final = re.compile(r"; *([a-z*][a-z0-9_.*-]*)(=?)")
_CLOSING: Final = re.compile(r" *(\)?)")
_BETWEEN_ITEMS: Final = (" ", ")")
_DISPLAY_STRING: Final = re.compile(r'%"((?:[ !#$&-~]|%[0-9a-f]{2})*)"')
_BOOLEAN: Final = re.compile(r"\?([01])")
_ESCAPED: Final = re.compile(r"\\(.)")
_BLANKS: Final = (" ", "\t")
_SPACES: Final = re.compile(r" *")
_OPTIONAL_WHITESPACE: Final = re.compile(r"[ \t]*")


def parse_dictionary(text: str, *, unique_keys: bool = False) -> dict[str, Member]:
    """The members of a Dictionary (RFC 9651, section 4.2.2), in their order; of a repeated key the last value.

    With `unique_keys` a repeated key is refused, in the dictionary and among parameters: where a signature hangs on it,
    two readers must not disagree on which one counts. Raises StructuredFieldError.
    """
    return _Parser(text, unique_keys=unique_keys).dictionary()


def parse_list(text: str) -> tuple[Member, ...]:
    """The members of a List (section 4.2.1). Raises StructuredFieldError."""
    return _Parser(text).list_()


def parse_item(text: str) -> Item:
    """An Item (section 4.2.3). Raises StructuredFieldError."""
    return _Parser(text).lone_item()


class _Parser:
    """Reads one field from its beginning to its end."""

    def __init__(self, text: str, *, unique_keys: bool = False) -> None:
        self._text = text
        self._unique_keys = unique_keys
        self._place = _SPACES.match(text).end()  # type: ignore[union-attr]  # it matches anything

    def dictionary(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        while self._has_more():
            key = self._match(_KEY, "a key")[0]
            self._check_is_new(key, members)
            if self._takes("="):
                members[key] = self._member()
            else:
                members[key] = Item(True, self._parameters())
            self._next_member()
        return members

    def list_(self) -> tuple[Member, ...]:
        members: list[Member] = []
        while self._has_more():
            members.append(self._member())
            self._next_member()
        return tuple(members)

    def lone_item(self) -> Item:
        item = self._item()
        self._skip(_SPACES)
        if self._has_more():
            self._fail("nothing may follow the value")
        return item

    def _next_member(self) -> None:
        """What stands behind a member: nothing, or a comma and another member."""
        self._skip(_OPTIONAL_WHITESPACE)
        if not self._has_more():
            return
        if not self._takes(","):
            self._fail("a comma is missing")
        self._skip(_OPTIONAL_WHITESPACE)
        if not self._has_more():
            self._fail("nothing follows the comma")

    def _member(self) -> Member:
        return self._inner_list() if self._takes("(") else self._item()

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        while not self._match(_CLOSING, "")[1]:
            if not self._has_more():
                self._fail("a parenthesis is not closed")
            items.append(self._item())
            if not self._text.startswith(_BETWEEN_ITEMS, self._place):
                self._fail("a blank is missing between two items")
        return InnerList(tuple(items), self._parameters())

    def _item(self) -> Item:
        return Item(self._bare_item(), self._parameters())

    def _parameters(self) -> Parameters:
        parameters: dict[str, BareItem] = {}
        while self._text.startswith(";", self._place):
            key, has_value = self._match(_PARAMETER, "the name of a parameter").groups()
            self._check_is_new(key, parameters)
            parameters[key] = self._bare_item() if has_value else True
        return parameters

    def _check_is_new(self, key: str, present: Mapping[str, object]) -> None:
        if self._unique_keys and key in present:
            self._fail(f"`{key}` comes twice")

    def _bare_item(self) -> BareItem:
        usual = _USUAL.match(self._text, self._place)  # nearly every value of a signature, in one go
        if usual is not None:
            self._place = usual.end()
            return usual[1] if usual[2] is None else int(usual[2])
        first = self._peek()
        if first and first in _NUMBER_STARTS:
            return self._number()
        reader = _READERS.get(first)
        return reader(self) if reader is not None else Token(self._match(_TOKEN, "a value")[0])

    def _string(self) -> str:
        text: str = self._match(_STRING, "a string")[1]
        return _ESCAPED.sub(r"\1", text) if "\\" in text else text

    def _boolean(self) -> bool:
        return self._match(_BOOLEAN, "a boolean")[1] == "1"

    def _number(self) -> int | Decimal:
        found = self._match(_NUMBER, "a number")
        return Decimal(found[0]) if found[1] is not None else int(found[0])

    def _date(self) -> Date:
        self._place += 1
        value = self._number()
        if isinstance(value, Decimal):
            self._fail("a date has no fraction")
        return Date(value)

    def _byte_sequence(self) -> bytes:
        encoded = self._match(_BYTES, "a byte sequence")[1]
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            self._fail("a byte sequence is not base64")
        # Section 4.2.7 lets a reader be strict: one value has one spelling, so that no bit of a signature is loose.
        if base64.b64encode(data).decode() != encoded:
            self._fail("the last bits of a byte sequence must be zero")
        return data

    def _display_string(self) -> DisplayString:
        escaped = self._match(_DISPLAY_STRING, "a display string")[1]
        data = re.sub(rb"%([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), escaped.encode())
        try:
            return DisplayString(data.decode())
        except UnicodeDecodeError:
            self._fail("a display string is not UTF-8")

    def _has_more(self) -> bool:
        return self._place < len(self._text)

    def _peek(self) -> str:
        return self._text[self._place : self._place + 1]

    def _takes(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._place += 1
        return True

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if self._text[self._place : self._place + 1] in _BLANKS:
            self._match(pattern, "")

    def _match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self._text, self._place)
        if found is None:
            self._fail(f"{what} is missing or malformed")
        self._place = found.end()
        return found

    def _fail(self, why: str) -> NoReturn:
        raise StructuredFieldError(f"{why} (character {self._place + 1})")


_READERS: Final[Mapping[str, Callable[[_Parser], BareItem]]] = {
    '"': _Parser._string,
    ":": _Parser._byte_sequence,
    "?": _Parser._boolean,
    "@": _Parser._date,
    "%": _Parser._display_string,
}
