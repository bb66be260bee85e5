"""What the OAuth endpoints answer when they refuse: RFC 6749 section 5.2."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from lingpai.identity.oauth.interfaces import Client

ErrorName = Literal[
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_token_type",
]

_STATUS: Final[Mapping[str, int]] = {
    "invalid_client": 401,
    "server_error": 500,
    "temporarily_unavailable": 503,
}
_DESCRIPTION: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # section 5.2
NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}


@dataclass(slots=True, eq=False)
class OAuthError(Exception):
    """A refusal. `description` says what is wrong and what to do next, in ASCII without quotes and backslashes.

    `is_echo`: it repeats something that the caller wrote, so it is for them alone. `client` is the one that was refused
    although it is known, where that is found out while it authenticates.
    """

    error: ErrorName
    description: str
    headers: Mapping[str, str] = field(default_factory=dict)
    is_too_often: bool = False
    is_echo: bool = False
    client: Client | None = None

    def __post_init__(self) -> None:
        if not _DESCRIPTION.fullmatch(self.description):
            raise ValueError(f"not allowed in error_description: {self.description!r}")

    @property
    def status(self) -> int:
        """400, or what the kind of error asks for; 429 for those who come too often."""
        return 429 if self.is_too_often else _STATUS.get(self.error, 400)

    def body(self) -> dict[str, str]:
        """The JSON object of section 5.2."""
        return {"error": self.error, "error_description": self.description}

    def __str__(self) -> str:
        return self.description


def invalid_client(description: str) -> OAuthError:
    """401 with the challenge that section 5.2 asks for; the realm is required by RFC 7617 section 2."""
    challenge = 'Basic realm="lingpai", charset="UTF-8"'
    return OAuthError("invalid_client", description, headers={"www-authenticate": challenge})


def cannot_be_used(because: str) -> OAuthError:
    """The client that asks is off, and why."""
    return invalid_client(f"The client cannot be used ({because}). Ask an administrator.")


def too_often(wait_s: int, why: str = "Too many failed attempts came from your address.") -> OAuthError:
    """Too many failures have come from the caller's address, or from whom `why` says."""
    return OAuthError(
        "temporarily_unavailable",
        f"{why} Try again in {wait_s} s.",
        headers={"retry-after": str(wait_s)},
        is_too_often=True,
    )


def printable(text: str, *, most: int = 60) -> str:
    """What a description may repeat of what the caller wrote."""
    return re.sub(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]", "?", text[:most])
