"""The rules of signing keys: who may make, see and delete them. Several may be there at a time, which is how one rotates.

Whoever holds a signing key of an API key can do what the key can, so making one needs all the rights of the key; for a
client, whose calls carry an access token as well, it needs as much.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.finding import find_client, find_key, standing_to
from lingpai.identity.interfaces import OnChange
from lingpai.identity.minting import UNBOUNDED, Minting
from lingpai.identity.oauth.client_store import SqlClientStore
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.rights import Credential, check_may_rotate, check_may_with_key
from lingpai.identity.roles import KeyAction
from lingpai.identity.signing.interfaces import CreatedSigningKey, Sealer, SigningKey
from lingpai.identity.signing.public_keys import PublicKeyError, parse_public_key
from lingpai.identity.signing.schemas import SigningKeyCreate, SigningKeyView
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.signing.tables import SEALED_SECRETS
from lingpai.identity.store import SqlKeyStore
from lingpai.ids import mint_credential, random_base62
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

MOST_PER_KEY: Final = 10


Owner = Literal["client", "key"]


class SigningKeys:
    """Signing keys of API keys, or those of clients. All methods block.

    Errors are LingpaiError: ``not_found``, ``invalid_request``, ``insufficient_scope``, ``model_not_allowed``.
    """

    def __init__(
        self,
        database: Database,
        *,
        of: Owner = "key",
        on_change: OnChange,
        sealer: Sealer,
        trail: Trail,
        minting: Minting = UNBOUNDED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Those `of` keys or of clients; `on_change` is told of the one whose signing keys have changed."""
        self._of: Owner = of
        self._database = database
        self._on_change = on_change
        self._sealer = sealer
        self._trail = trail
        self._minting = minting
        self._clock = clock
        self._store = SqlSigningKeyStore()

    def create(self, caller: Principal, reference: str, body: SigningKeyCreate) -> CreatedSigningKey:
        """Make a signing key for a key or client. Of HMAC the secret is in the answer and nowhere else."""
        material, secret = self._material(body)
        self._minting.begin(caller)
        began = time.monotonic()
        with self._database.write() as connection:
            owner = self._owner(connection, caller, reference)
            check_may_rotate(caller, standing_to(connection, caller, owner), owner)
            self._check_count(connection, owner)
            row = {
                **material,
                "name": restrictions.checked_name(body.name),
                f"{self._of}_id": owner.id,
                "created_at": self._clock(),
                "expires_at": self._expiry(body),
            }
            self._store.insert(connection, row)
            made = self._find(connection, owner, material["id"])
            self._record(connection, caller, owner, made, "create")
        self._on_change(self._of, _id_of(owner), began)
        return CreatedSigningKey(made, secret)

    def list(self, caller: Principal, reference: str) -> list[SigningKey]:
        """The signing keys of a key or client, oldest first."""
        with self._database.read() as connection:
            owner = self._owner(connection, caller, reference)
            return self._store.of_owner(connection, _id_of(owner))

    def delete(self, caller: Principal, reference: str, id_: str) -> None:
        """Delete a signing key: its signatures are refused from the next call on."""
        began = time.monotonic()
        with self._database.write() as connection:
            owner = self._owner(connection, caller, reference)
            check_may_with_key(caller, standing_to(connection, caller, owner), KeyAction.SWITCH_OFF, owner)
            found = self._find(connection, owner, id_)
            self._store.delete(connection, found.id)
            self._record(connection, caller, owner, found, "delete")
        self._on_change(self._of, _id_of(owner), began)

    def is_visible(self, caller: Principal, id_: str) -> bool:
        """Whether a signing key exists and belongs to a key or client that `caller` sees."""
        with self._database.read() as connection:
            found = self._store.find(connection, id_)
            if found is None:
                return False
            if found.key.client_id is not None:
                return bool(SqlClientStore().find(connection, found.key.client_id, caller=caller))
            return bool(SqlKeyStore().find(connection, found.key.key_id or "", caller=caller))

    def touch(self, uses: Sequence[tuple[str, float]]) -> None:
        """Note when signing keys (by id) were last used."""
        if uses:
            with self._database.write(durable=False) as connection:
                self._store.touch(connection, uses)

    def _owner(self, connection: Connection, caller: Principal, reference: str) -> Credential:
        find = find_key if self._of == "key" else find_client
        return find(connection, reference, caller=caller)

    def _material(self, body: SigningKeyCreate) -> tuple[dict[str, Any], str | None]:
        """The columns that hold the key itself, and the secret to show."""
        if body.algorithm == "ed25519":
            public_key = _public_key(body)
            return {"id": f"sgn_{random_base62(12)}", "algorithm": "ed25519", "public_key": public_key}, None
        if body.public_key is not None:
            raise LingpaiError(
                "invalid_request",
                "HMAC has no public key: leave it out, and the answer has the secret. Or use `ed25519`.",
                param="public_key",
            )
        minted = mint_credential("sg-lp-")
        id_ = f"sgn_{minted.id}"
        sealed = self._sealer.seal(SEALED_SECRETS.purpose, id_, minted.token.encode())
        return {"id": id_, "algorithm": "hmac-sha256", "sealed_secret": sealed}, minted.token

    def _expiry(self, body: SigningKeyCreate) -> float | None:
        now = self._clock()
        if body.expires_in is not None and body.expires_at is not None:
            raise LingpaiError(
                "invalid_request", "Send `expires_at` or `expires_in`, not both.", "expires_in"
            )
        if body.expires_in is not None:
            return restrictions.checked_lifetime(body.expires_in, now=now)
        return None if body.expires_at is None else restrictions.checked_expiry(body.expires_at, now=now)

    def _check_count(self, connection: Connection, owner: Credential) -> None:
        if len(self._store.of_owner(connection, _id_of(owner))) >= MOST_PER_KEY:
            raise LingpaiError(
                "invalid_request",
                f"`{owner.name}` has {MOST_PER_KEY} signing keys, which is the most. Delete those that are not used any more.",
            )

    def _find(self, connection: Connection, owner: Credential, id_: str) -> SigningKey:
        found = self._store.find(connection, id_)
        if found is None or found.key.owner_id != _id_of(owner):
            raise LingpaiError(
                "not_found",
                f"`{owner.name}` has no signing key `{id_}`. "
                f"`GET /api/v1/{self._of}s/{_id_of(owner)}/signing-keys` lists those it has.",
            )
        return found.key

    def _record(
        self, connection: Connection, caller: Principal, owner: Credential, made: SigningKey, verb: str
    ) -> None:
        shown = {self._of: _id_of(owner), **SigningKeyView.of(made).model_dump()}
        deed = Deed(
            action=f"signing_key.{verb}",
            target_kind="signing_key",
            target_id=made.id,
            target_name=made.name,
            project_id=owner.project_id or None,
            before=shown if verb == "delete" else None,
            after=shown if verb == "create" else None,
        )
        self._trail.record(connection, caller, deed)


def _id_of(owner: Credential) -> str:
    """What it is called on the wire."""
    return owner.client_id if isinstance(owner, Client) else owner.id


def _public_key(body: SigningKeyCreate) -> bytes:
    sent = body.public_key
    if sent is None:
        raise LingpaiError(
            "invalid_request",
            "Send the public key of your pair: `openssl genpkey -algorithm ed25519 -out key.pem`, then "
            "`openssl pkey -in key.pem -pubout`.",
            param="public_key",
        )
    try:
        return parse_public_key(sent if isinstance(sent, str) else json.dumps(sent))
    except PublicKeyError as error:
        raise LingpaiError(
            "invalid_request", f"The public key cannot be used: {error}.", "public_key"
        ) from None
