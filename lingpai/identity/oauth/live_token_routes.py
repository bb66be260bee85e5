"""``/api/v1/tokens``: what is out, and ending it."""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from lingpai.errors import LingpaiError
from lingpai.identity.oauth.interfaces import LiveToken, LiveTokenKind
from lingpai.identity.oauth.live_token_store import LIVE_KINDS, Place
from lingpai.identity.oauth.live_tokens import LiveTokens
from lingpai.identity.schemas import utc_text, utc_text_or_none
from lingpai.identity.scopes import Scope
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    decode_cursor,
    page_of,
)

UserFilter = Annotated[
    str | None, Query(max_length=64, description="Only the tokens of this user (name or id).")
]
ClientFilter = Annotated[
    str | None, Query(max_length=64, description="Only tokens that this client got (id or name).")
]
KindFilter = Annotated[LiveTokenKind | None, Query(description="Only sign-ins, or only tokens of clients.")]


class LiveTokenView(BaseModel):
    """A sign-in with all tokens that came out of it, or one access token. Nothing here can be used to call anything."""

    id: str = Field(examples=["fam_4fKx0aZ1bC2dE3fG"])
    kind: LiveTokenKind = Field(
        description="`family`: a program that signed in for a user and can refresh; `access_token`: a single token."
    )
    client: str | None = Field(description="The client's name; null for the built-in public client.")
    client_id: str | None
    user: str = Field(description="For whom it acts.")
    scopes: list[str] = Field(description="What it can do now.")
    created_at: str
    refreshed_at: str | None = Field(description="When a family was refreshed last; null when it never was.")
    expires_at: str = Field(description="When it ends, unless a family is refreshed before.")
    address: str | None = Field(description="From where a family was signed in.")
    user_agent: str | None

    @classmethod
    def of(cls, token: LiveToken) -> Self:
        """What callers see of `token`."""
        fields: dict[str, Any] = {
            "id": token.id,
            "kind": token.kind,
            "client": token.client_name,
            "client_id": token.client_id,
            "user": token.user_name,
            "scopes": list(token.scopes),
            "created_at": utc_text(token.created_at),
            "refreshed_at": utc_text_or_none(token.refreshed_at),
            "expires_at": utc_text(token.expires_at),
            "address": token.address,
            "user_agent": token.user_agent,
        }
        return cls(**fields)


TokenId = Annotated[
    str, Path(description="The id of a sign-in (`fam_…`) or of an access token, as the list has it.")
]


def live_token_routes(tokens: LiveTokens) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"], responses=ERROR_RESPONSES)

    @router.get("")
    def list_tokens(
        *,
        caller: Annotated[Principal, require(Scope.TOKENS_READ)],
        user: UserFilter = None,
        client: ClientFilter = None,
        kind: KindFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[LiveTokenView]:
        """List what is out: programs that have signed in, then access tokens of clients; what lives longest comes first.

        An administrator sees everybody's, others what acts for themselves.
        """
        after = None if cursor is None else _place(cursor)
        found = tokens.list(caller, user=user, client=client, kind=kind, after=after, limit=limit + 1)
        return page_of(
            found, limit, view=LiveTokenView.of, place=lambda last: (last.ends_at, f"{last.kind} {last.id}")
        )

    @router.delete("/{id}", status_code=204)
    def revoke_token(
        id: TokenId,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.TOKENS_WRITE)],
    ) -> None:
        """End a sign-in with all of its tokens, or one access token, from the next call on."""
        tokens.revoke(caller, id)

    return router


def _place(cursor: str) -> Place:
    ends_at, place = decode_cursor(cursor)
    name, _, id_ = place.partition(" ")
    for kind in LIVE_KINDS:
        if kind == name:
            return Place(kind, ends_at, id_)
    raise LingpaiError(
        "invalid_request",
        "The cursor is not one of this list. Leave it out to start from the first page.",
        "cursor",
    )
