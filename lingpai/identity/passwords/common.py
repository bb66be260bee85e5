"""Passwords that attackers try first: the common and breached ones that ship with us (16,000, of eight characters or more).

Where the list comes from: `scripts/common_passwords.py`, and the licences beside it.
"""

import lzma
from pathlib import Path
from typing import Final

LIST: Final = Path(__file__).with_name("common-passwords.txt.xz")


def folded(password: str) -> str:
    """The form in which passwords are compared with the list: without the difference of upper and lower case."""
    return password.casefold()


def is_common(password: str) -> bool:
    """Whether `password` is on the list, however its letters are cased. Takes some milliseconds; needs no network.

    The list is read anew each time: passwords are set rarely, and memory is held for ever.
    """
    if "\n" in password:
        return False  # the list has one on each line
    return f"\n{folded(password)}\n".encode() in lzma.decompress(LIST.read_bytes())
