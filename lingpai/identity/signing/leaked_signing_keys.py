"""The finder of leaked secrets of signing keys: the signing key is deleted; what it signs for goes on."""

import hmac
from typing import Final, Literal

from sqlalchemy import Connection

from lingpai.identity.interfaces import LEAKED, ApiKey, OnChange
from lingpai.identity.leaks import Leak
from lingpai.identity.oauth.client_store import SqlClientStore
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.signing.interfaces import Sealer, SigningKey
from lingpai.identity.signing.schemas import SigningKeyView
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.signing.tables import SEALED_SECRETS
from lingpai.identity.store import SqlKeyStore
from lingpai.ids import credential_id
from lingpai.storage.trail import Deed, Trail

_KINDS: Final[dict[str, Literal["client", "key"]]] = {"client": "client", "key": "key"}


class LeakedSigningKeys:
    """The finder of HMAC secrets (`sg-lp-`). Of an Ed25519 key the server has nothing that could leak."""

    def __init__(self, sealer: Sealer, *, on_change: OnChange, trail: Trail) -> None:
        """`on_change` is told of the key or client whose signing key is gone."""
        self._sealer = sealer
        self._on_change = on_change
        self._trail = trail
        self._store = SqlSigningKeyStore()

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """See `lingpai.identity.leaks.Finder`."""
        return self._find(connection, token, now) is not None

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `lingpai.identity.leaks.Finder`."""
        key = self._find(connection, token, now)
        owner = None if key is None else _owner(connection, key)
        if key is None or owner is None:
            return None
        self._store.delete(connection, key.id)
        kind, owner_id = ("client", owner.client_id) if isinstance(owner, Client) else ("key", owner.id)
        deed = Deed(
            action="signing_key.delete",
            target_kind="signing_key",
            target_id=key.id,
            target_name=key.name,
            project_id=owner.project_id or None,
            before={kind: owner_id, **SigningKeyView.of(key).model_dump()},
            reason=LEAKED,
        )
        self._trail.record(connection, None, deed)
        return Leak(
            kind="signing_key",
            id=key.id,
            what=f"The secret of signing key `{key.name}` of {kind} `{owner.name}` of `{owner.user_name}`",
            done="The signing key is deleted. Make another one; what else that can call with works on.",
            about=(kind, owner_id),
        )

    def tell(self, leak: Leak, began: float) -> None:
        """See `lingpai.identity.leaks.Finder`."""
        if leak.about is not None:
            kind, owner_id = leak.about
            self._on_change(_KINDS[kind], owner_id, began)

    def _find(self, connection: Connection, token: bytes, now: float) -> SigningKey | None:
        id_ = credential_id(token)
        stored = None if id_ is None else self._store.find(connection, f"sgn_{id_}")
        if stored is None or stored.sealed_secret is None:
            return None
        try:
            secret = self._sealer.open(SEALED_SECRETS.purpose, stored.key.id, stored.sealed_secret)
        except ValueError:  # nobody can sign with it either
            return None
        is_over = stored.key.expires_at is not None and now >= stored.key.expires_at
        return stored.key if hmac.compare_digest(secret, token) and not is_over else None


def _owner(connection: Connection, key: SigningKey) -> ApiKey | Client | None:
    if key.client_id is not None:
        return next(iter(SqlClientStore().find(connection, key.client_id)), None)
    return next(iter(SqlKeyStore().find(connection, key.key_id or "")), None)
