"""The parameters of an OAuth request: an HTML form in the body, each parameter once (RFC 6749 sections 3.2 and 4, appendix B)."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from lingpai.identity.oauth.errors import OAuthError

MAX_BODY_BYTES: Final = 64 * 1024
_MOST_FIELDS: Final = 50
_FORM: Final = "application/x-www-form-urlencoded"
_NEVER_IN_ADDRESS: Final = frozenset(
    {
        "client_assertion",
        "client_id",
        "client_secret",
        "grant_type",
        "password",
        "refresh_token",
        "scope",  # left out in silence, it would give a token that can do more than was asked for
        "token",
        "token_type_hint",
        "username",
    }
)


def read_form(body: bytes, content_type: str) -> Mapping[str, str]:
    """The parameters in `body`; those without a value count as not sent. Raises OAuthError invalid_request."""
    if content_type.partition(";")[0].strip().lower() != _FORM:
        raise OAuthError("invalid_request", f"Send the parameters as a form: Content-Type: {_FORM}.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except ValueError as error:  # UnicodeDecodeError among them
        raise OAuthError(
            "invalid_request",
            f"The body is no form in UTF-8 with at most {_MOST_FIELDS} fields.",
        ) from error
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form:  # section 3.2
            raise OAuthError("invalid_request", "A parameter is repeated. Send each parameter once.")
        form[name] = value
    return {name: value for name, value in form.items() if value}


def check_address(query: bytes) -> None:
    """Refuse parameters in the address, where logs would keep them (section 2.3.1). Raises OAuthError invalid_request."""
    names = {name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
    if not names.isdisjoint(_NEVER_IN_ADDRESS):
        raise OAuthError(
            "invalid_request",
            "Parameters stand in the address, which logs keep. Send them in the body, and replace any secret among them.",
        )
