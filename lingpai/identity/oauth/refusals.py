"""Telling of what the OAuth endpoints refuse, so that it can be recorded: who asked, and which rule, never the form."""

from typing import Final

from starlette.requests import Request

from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.interfaces import Client
from lingpai.principal import Principal
from lingpai.web.refusals import tell_refusal

_POLICY: Final = frozenset({"invalid_client", "invalid_grant", "invalid_scope", "unauthorized_client"})
"""The errors of RFC 6749 section 5.2 that tell of a rule that somebody met, and not of a mistake in what they sent."""


def report_refusal(request: Request, error: OAuthError, client: Client | None) -> None:
    """Tell of `error`, if it is a refusal by policy or of who comes too often. `client` is the one that asked, if known.

    A client without a secret is not the actor, as anybody can say that they are it; its id is named.
    """
    if error.error not in _POLICY and not error.is_too_often:
        return
    detail = error.description
    if error.is_too_often:
        detail = "too many failed attempts"  # the description counts the seconds
    elif error.is_echo:
        detail = ""
    is_proven = client is not None and not client.is_public
    tell_refusal(
        request,
        error.error,
        _principal_of(client) if client is not None and is_proven else None,
        reference="" if client is None or is_proven else client.client_id,
        detail=detail,
    )


def _principal_of(client: Client) -> Principal:
    """The client as an actor: what it may do is asked nowhere."""
    return Principal(
        client.user_id,
        client.user_name,
        "member",
        project_id=client.project_id,
        client_id=client.client_id,
        client_name=client.name,
    )
