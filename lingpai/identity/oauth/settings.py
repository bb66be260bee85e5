"""Section `[oauth]`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

DAY_S = 86_400
MAX_JWT_LIFETIME_S = 300  # revoking one does not reach the servers that verify it by themselves
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthSettings:
    """How long tokens live, and which ways to get one are open."""

    issuer: str | None = field(
        default=None,
        metadata={
            "help": "The address under which callers know this server, such as `https://models.example`; default: the one it listens on."
        },
    )
    access_token_lifetime: Annotated[int, Meta(ge=5, le=DAY_S)] = field(
        default=3600,
        metadata={"help": "Seconds an access token lives. Stock clients renew one a minute before its end."},
    )
    refresh_token_lifetime: Annotated[int, Meta(ge=60, le=400 * DAY_S)] = field(
        default=30 * DAY_S, metadata={"help": "Seconds after which an unused refresh token ends."}
    )
    refresh_family_lifetime: Annotated[int, Meta(ge=60, le=4000 * DAY_S)] = field(
        default=365 * DAY_S,
        metadata={"help": "Seconds after signing in when refreshing ends, however often it was done."},
    )
    refresh_grace: Annotated[float, Meta(ge=0, le=10)] = field(
        default=0.0,
        metadata={
            "help": "Seconds in which a refresh token just used gives the same successor again, for clients that lost the "
            "answer; 0: using one twice ends all tokens of that sign-in."
        },
    )
    access_token_format: Literal["opaque", "jwt"] = field(
        default="opaque",
        metadata={
            "help": "What access tokens are: random text that only this server knows, or JWTs (RFC 9068), which other servers "
            "verify by themselves and so go on accepting, for as long as they live, when they are revoked here."
        },
    )
    jwt_algorithm: Literal["EdDSA", "RS256"] = field(
        default="RS256",
        metadata={
            "help": "How JWTs are signed: `RS256`, which every library can verify, or `EdDSA` (Ed25519), faster and shorter."
        },
    )
    jwt_lifetime: Annotated[int, Meta(ge=5, le=MAX_JWT_LIFETIME_S)] = field(
        default=MAX_JWT_LIFETIME_S,
        metadata={
            "help": "Seconds a JWT lives at the most, whatever `access_token_lifetime` and the client say."
        },
    )
    password_grant: Literal["loopback", "on", "off"] = field(
        default="loopback",
        metadata={
            "help": "Whether user name and password get a token without a registered client: only from this machine, from everywhere, or not."
        },
    )

    @property
    def has_jwts(self) -> bool:
        """Whether new access tokens are JWTs."""
        return self.access_token_format == "jwt"  # noqa: S105  a setting, not a token

    def __post_init__(self) -> None:
        """Raise ValueError for an issuer that RFC 8414 section 2 does not allow."""
        if self.issuer is not None and not _is_issuer(self.issuer):
            raise ValueError(
                f"`oauth.issuer`: {self.issuer!r} cannot be an issuer. Write the address as callers know it, without query "
                "and fragment, such as `https://models.example`; http is for this machine only."
            )


def _is_issuer(address: str) -> bool:
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and host in _THIS_MACHINE)
    is_plain = not any(each in address for each in "?#@\\ ") and address.isascii() and address.isprintable()
    return bool(host) and is_safe and is_plain
