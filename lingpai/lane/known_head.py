"""Heads of messages that are known already: what the parser has made of one is true of the next that begins alike."""

import re
from typing import Final

MOST_LESSONS_IN_VAIN: Final = 8
"""How many heads to learn that never come again, before most are left alone."""
LESSON_EVERY: Final = 64
"""From then on, one of so many messages is learned: times change."""
MOST_DIGITS: Final = 6

_LENGTH: Final = re.compile(rb"(?<=\r\ncontent-length: )([0-9]{1,6})(?=\r\n)", re.IGNORECASE)


class KnownHead:
    """The last head of a connection that was learned, so that a message that begins alike need not be parsed.

    Programs write the heads of one connection alike but for the digits of Content-Length. A message is taken for known
    only if it is there as a whole and nothing but it: such a head, and a body as long as the digits say. Whoever writes
    a head must be asked whether what was made of it then is true now; here only bytes are compared.
    """

    __slots__ = ("_after", "_before", "_in_vain")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._in_vain = 0

    def learn(self, message: bytes) -> bool:
        """Take the head of a message that was parsed. Answers whether it is known now: it is one whole message."""
        self._in_vain += 1
        if self._in_vain > MOST_LESSONS_IN_VAIN and self._in_vain % LESSON_EVERY:
            return False
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
