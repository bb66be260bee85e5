"""``/api/v1/keys/{id}/signing-keys``."""

from typing import Annotated

from fastapi import APIRouter, Response

from lingpai.identity.scopes import Scope
from lingpai.identity.signing.schemas import CreatedSigningKeyView, SigningKeyCreate, SigningKeyView
from lingpai.identity.signing.service import SigningKeys
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import Page


def signing_key_routes(signing_keys: SigningKeys) -> APIRouter:
    """The routes of the signing keys of an API key, which is named by its id or name."""
    router = APIRouter(
        prefix="/api/v1/keys/{id}/signing-keys", tags=["signed requests"], responses=ERROR_RESPONSES
    )

    @router.post("", status_code=201)
    def create_signing_key(
        id: str,  # noqa: A002  the name on the wire
        body: SigningKeyCreate,
        response: Response,
        caller: Annotated[Principal, require(Scope.KEYS_WRITE)],
    ) -> CreatedSigningKeyView:
        """Make a key to sign requests with. Of hmac-sha256 this answer is the only place where the secret appears."""
        response.headers["cache-control"] = "no-store"
        return CreatedSigningKeyView.of_created(signing_keys.create(caller, id, body))

    @router.get("")
    def list_signing_keys(
        id: str,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.KEYS_READ)],
    ) -> Page[SigningKeyView]:
        """List the signing keys of an API key, oldest first: there are so few that all are on one page."""
        found = signing_keys.list(caller, id)
        return Page(data=[SigningKeyView.of(key) for key in found], next_cursor=None)

    @router.delete("/{signing_key}", status_code=204)
    def delete_signing_key(
        id: str,  # noqa: A002  the name on the wire
        signing_key: str,
        caller: Annotated[Principal, require(Scope.KEYS_WRITE)],
    ) -> None:
        """Delete a signing key. Its signatures are refused from the next call on."""
        signing_keys.delete(caller, id, signing_key)

    return router
