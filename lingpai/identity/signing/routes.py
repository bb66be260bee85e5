"""``/api/v1/keys/{id}/signing-keys``, the same of clients, and ``/api/v1/signatures/explain``."""

import base64
import binascii
import time
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Response

from lingpai.errors import LingpaiError
from lingpai.identity.scopes import Scope
from lingpai.identity.signing.explain import Explanation, explain
from lingpai.identity.signing.schemas import (
    CreatedSigningKeyView,
    ExplainRequest,
    ExplanationView,
    SigningKeyCreate,
    SigningKeyView,
)
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.verifying import SigningKeyring
from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import Page
from lingpai.wire.request_text import RequestTextError, WrittenRequest, read_request

OwnerReference = Annotated[
    str, Path(description="For which key or client: its id, or a name that only one visible one has.")
]


def signing_key_routes(signing_keys: SigningKeys) -> APIRouter:
    """The routes of the signing keys of API keys."""
    return _routes(signing_keys, "/api/v1/keys", read=Scope.KEYS_READ, write=Scope.KEYS_WRITE)


def client_signing_key_routes(signing_keys: SigningKeys) -> APIRouter:
    """The routes of the signing keys of clients."""
    return _routes(signing_keys, "/api/v1/clients", read=Scope.CLIENTS_READ, write=Scope.CLIENTS_WRITE)


def _routes(signing_keys: SigningKeys, owners: str, *, read: Scope, write: Scope) -> APIRouter:
    router = APIRouter(
        prefix=f"{owners}/{{id}}/signing-keys", tags=["signed requests"], responses=ERROR_RESPONSES
    )

    @router.post("", status_code=201)
    def create_signing_key(
        id: OwnerReference,  # noqa: A002  the name on the wire
        body: SigningKeyCreate,
        response: Response,
        caller: Annotated[Principal, require(write)],
    ) -> CreatedSigningKeyView:
        """Make a key to sign requests with. Of hmac-sha256 this answer is the only place where the secret appears."""
        response.headers["cache-control"] = "no-store"
        return CreatedSigningKeyView.of_created(signing_keys.create(caller, id, body))

    @router.get("")
    def list_signing_keys(
        id: OwnerReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(read)],
    ) -> Page[SigningKeyView]:
        """List the signing keys of a key or client, oldest first: there are so few that all are on one page."""
        found = signing_keys.list(caller, id)
        return Page(data=[SigningKeyView.of(key) for key in found], next_cursor=None)

    @router.delete("/{signing_key}", status_code=204)
    def delete_signing_key(
        id: OwnerReference,  # noqa: A002  the name on the wire
        signing_key: Annotated[str, Path(description="The id of the signing key, `sgn_…`.", max_length=64)],
        caller: Annotated[Principal, require(write)],
    ) -> None:
        """Delete a signing key. Its signatures are refused from the next call on."""
        signing_keys.delete(caller, id, signing_key)

    return router


def explain_routes(signing_keys: SigningKeys, keyring: SigningKeyring) -> APIRouter:
    """The route that says why a signature is not accepted."""
    router = APIRouter(prefix="/api/v1/signatures", tags=["signed requests"], responses=ERROR_RESPONSES)

    def verified(caller: Principal, explanation: Explanation) -> bool | None:
        """Of keys that the caller may see only: what is anybody else's does not exist."""
        key_id, base, signature = explanation.key_id, explanation.base, explanation.signature
        if key_id is None or base is None or signature is None or not signing_keys.is_visible(caller, key_id):
            return None
        found = keyring.load(key_id)
        return None if found is None else found.verifies(base.encode("ascii"), signature)

    @router.post("/explain", summary="Why a signature is not accepted")
    def explain_signature(
        body: ExplainRequest, caller: Annotated[Principal, require(ANY)]
    ) -> ExplanationView:
        """Look at a signed request and name everything that is wrong with it. It is not made, and uses no nonce up."""
        written, now = _read(body), time.time()
        explanation = explain(written.message, written.body, now=now, signed_base=body.signature_base)
        return ExplanationView.of(explanation, verified=verified(caller, explanation), now=now)

    return router


def _read(body: ExplainRequest) -> WrittenRequest:
    try:
        written = read_request(body.request.encode())
    except RequestTextError as error:
        raise LingpaiError("invalid_request", f"The request cannot be read: {error}.", "request") from None
    if body.body_base64 is None:
        return written
    try:
        return replace(written, body=base64.b64decode(body.body_base64, validate=True))
    except (binascii.Error, ValueError):
        raise LingpaiError("invalid_request", "This is no base64.", "body_base64") from None
