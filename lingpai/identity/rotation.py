"""A new secret for a key, while the one before it goes on working for a time: programs change over one by one."""

import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.finding import find_key, standing_to
from lingpai.identity.interfaces import ApiKey, CreatedKey, OnChange
from lingpai.identity.key_secrets import secret_columns
from lingpai.identity.minting import UNBOUNDED, Minting
from lingpai.identity.peppers import Peppers
from lingpai.identity.rights import Credential, check_may_rotate
from lingpai.identity.schemas import KeyRotate, KeyView
from lingpai.identity.store import SqlKeyStore
from lingpai.ids import MintedCredential, mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

_DEFAULT_OVERLAP_S: Final = 86_400


class KeyRotation:
    """Rotates keys. All methods block."""

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        peppers: Peppers,
        trail: Trail,
        minting: Minting = UNBOUNDED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is told of a key after its secret changed."""
        self._database = database
        self._on_change = on_change
        self._peppers = peppers
        self._trail = trail
        self._minting = minting
        self.clock = clock
        self._store = SqlKeyStore()

    def rotate(self, caller: Principal, reference: str, body: KeyRotate) -> CreatedKey:
        """Give a key a new secret, hashed under the newest pepper; id, limits, rights and usage stay.

        The secret before it works until the overlap is over, and not longer than the key. One that was still left from an
        earlier rotation ends at once, so there are never more than two. Raises LingpaiError: ``not_found``,
        ``insufficient_scope`` for who may not have this key's secret, ``invalid_request``, ``rate_limit_exceeded``.
        """
        self._minting.begin(caller)
        began = time.monotonic()
        with self._database.write() as connection:
            key = find_key(connection, reference, caller=caller)
            check_may_rotate(caller, standing_to(connection, caller, key), key)
            now = self.clock()
            _check_is_not_over(key, now)
            old_expires_at = now + overlap_s(key, body.overlap)
            minted = mint_credential("sk-lp-", public_id=key.id)
            self._store.update(connection, key.id, self._rotated(connection, key, minted, old_expires_at))
            rotated = find_key(connection, key.id)
            self._trail.record(connection, caller, _deed(key, rotated, now))
        self._on_change("key", key.id, began)
        return CreatedKey(rotated, minted.token)

    def _rotated(
        self, connection: Connection, key: ApiKey, minted: MintedCredential, old_expires_at: float
    ) -> dict[str, Any]:
        now = self.clock()
        row = self._store.secrets(connection, key.id)
        return {
            **secret_columns(minted, self._peppers),
            "rotated_at": now,
            "secret_last_used_at": None,
            "old_secret_hmac": row.secret_hmac if old_expires_at > now else None,
            "old_pepper_version": row.pepper_version,
            "old_hint": row.hint,
            "old_created_at": key.secret.created_at,
            "old_expires_at": min(old_expires_at, key.expires_at or old_expires_at),
            "old_last_used_at": key.secret.last_used_at,
        }


def _deed(before: ApiKey, after: ApiKey, now: float) -> Deed:
    return Deed(
        action="key.rotate",
        target_kind="key",
        target_id=before.id,
        target_name=before.name,
        project_id=before.project_id or None,
        before=KeyView.of(before, now=now).model_dump(),
        after=KeyView.of(after, now=now).model_dump(),
    )


def _check_is_not_over(key: ApiKey, now: float) -> None:
    if key.expires_at is not None and key.expires_at <= now:
        raise LingpaiError(
            "invalid_request", f"`{key.name}` has expired, so it needs no new secret. Make a new key instead."
        )


def overlap_s(credential: Credential, text: str | None) -> float:
    """How many seconds the present secret of a key or client goes on working, if `text` is what was asked for.

    Raises LingpaiError (invalid_request).
    """
    if credential.is_leaked and text is None:
        return 0
    overlap = _DEFAULT_OVERLAP_S if text is None else restrictions.checked_overlap(text)
    if credential.is_leaked and overlap:
        raise LingpaiError(
            "invalid_request",
            f"`{credential.name}` was reported as leaked: its present secret must end at once. Send `0s`.",
            param="overlap",
        )
    return overlap
