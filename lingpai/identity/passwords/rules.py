"""Which passwords are accepted (OWASP ASVS 5.0, section 6.2; NIST SP 800-63B, section 3.1.1.2), and their one form.

Length counts and nothing else does: no rules of composition, no expiry, no hints. Whatever is accepted is used whole.
"""

import unicodedata
from typing import Final, NoReturn

from lingpai.errors import LingpaiError
from lingpai.identity.passwords.common import folded, is_common

RECOMMENDED_LENGTH: Final = 15
MAX_BYTES: Final = 1024
"""Of a password in UTF-8. It bounds what a request can cost; any 256 characters fit."""

_PRODUCT: Final = "lingpai"
_ENDS: Final = "0123456789!?.,;:-_+*#@$%&/()= "
"""What people put around a word to make a password of it, and programs that guess do as well."""


def normalised(password: str) -> bytes:
    """The form that is hashed, so that the same keystrokes give the same password on every device.

    The OpaqueString profile of RFC 8265, section 4.2.2: spaces of other scripts become the ASCII one, then Unicode
    Normalization Form C; upper and lower case stay. In UTF-8.
    """
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", spaced).encode()


def check_new_password(password: str, *, user_name: str, least: int, param: str = "password") -> None:
    """Raise LingpaiError (invalid_request), which names `param`, unless `password` may become that of `user_name`.

    `least` is the fewest characters (code points of the normalised form). The message never repeats the password.
    """
    encoded = normalised(password)
    text = encoded.decode()
    _check_form(text, len(encoded), least, param)
    core = folded(text).strip(_ENDS)
    names = {folded(name).strip(_ENDS) for name in (user_name, user_name.partition("@")[0], _PRODUCT)}
    if core and core in names:
        _refuse(param, "The password is the user's name, or that of this product, with little around it.")
    if not core and len(set(text)) <= 2:
        _refuse(param, "The password repeats one or two characters. Choose another one.")
    if is_common(text) or is_common(core):
        _refuse(
            param,
            "This password is among the most common ones, or one of them with little around it: what attackers try"
            " first. Choose another one.",
        )


def _check_form(text: str, size: int, least: int, param: str) -> None:
    if len(text) < least:
        _refuse(
            param,
            f"The password has {len(text)} characters; {least} are the fewest, and {RECOMMENDED_LENGTH} or more are"
            " recommended. A few words that do not belong together are easy to remember.",
        )
    if size > MAX_BYTES:
        _refuse(param, f"The password has {size} bytes; {MAX_BYTES} are the most.")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Cn"} for character in text):
        # RFC 8265, section 4.2.1 (FreeformClass): what no keyboard sends alike everywhere
        _refuse(param, "The password holds control characters. Use visible ones and blanks.")


def _refuse(param: str, message: str) -> NoReturn:
    raise LingpaiError("invalid_request", message, param)
