"""What is stored of a credential's secrets, and whether a text is one of them.

A key or client has one secret, and after a rotation the one before it for a while.
"""

import hmac
import logging
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Row

from lingpai.identity.peppers import Peppers
from lingpai.ids import MintedCredential

logger = logging.getLogger("lingpai.identity")

_NO_HMAC: Final = bytes(32)  # what no credential has

Match = Literal["present", "old"]


def secret_columns(minted: MintedCredential, peppers: Peppers) -> dict[str, Any]:
    """What is stored of a new secret of a key or client: its HMAC under the newest pepper, and what it is recognised by."""
    version = peppers.newest_version  # asked once: another one may become the newest at any time
    return {
        "secret_hmac": peppers.hmac(minted.token.encode(), version),
        "pepper_version": version,
        "hint": minted.hint,
    }


@dataclass(frozen=True, slots=True)
class StoredHmac:
    """The HMAC of a credential, under the pepper of this version."""

    version: int
    hmac: bytes


@dataclass(frozen=True, slots=True, repr=False)
class StoredSecrets:
    """The HMACs of both secrets; where there is none, one that no credential has."""

    present: StoredHmac
    old: StoredHmac

    def can_be_compared(self, peppers: Peppers) -> bool:
        """Whether the peppers are still there; else what was read may have moved to others since."""
        return self.present.version in peppers and self.old.version in peppers

    def match(self, token: bytes, peppers: Peppers) -> Match | None:
        """Which of the secrets `token` has; None when neither. The old one may have expired.

        Two HMACs and two comparisons in every case, so that timing tells neither which ids exist nor which were rotated.
        """
        is_present, is_old = [_is_secret(token, stored, peppers) for stored in (self.present, self.old)]
        if is_present:
            return "present"
        return "old" if is_old else None


def stored_secrets(row: Row[Any] | None, peppers: Peppers) -> StoredSecrets:
    """The secrets in the row of a key or client (None: of none), as far as their peppers are there."""
    if row is None:
        return StoredSecrets(_nothing(peppers), _nothing(peppers))
    return StoredSecrets(
        _stored(row.id, row.secret_hmac, row.pepper_version, peppers),
        _stored(row.id, row.old_secret_hmac, row.old_pepper_version, peppers),
    )


def stored_token_secret(row: Any | None, peppers: Peppers) -> StoredSecrets:
    """The secret of what has but one: an access or refresh token, a session, an invitation (None: of nothing).

    `row` has `id`, `secret_hmac` and `pepper_version`.
    """
    if row is None:
        return StoredSecrets(_nothing(peppers), _nothing(peppers))
    return StoredSecrets(_stored(row.id, row.secret_hmac, row.pepper_version, peppers), _nothing(peppers))


def _is_secret(token: bytes, stored: StoredHmac, peppers: Peppers) -> bool:
    try:
        return hmac.compare_digest(peppers.hmac(token, stored.version), stored.hmac)
    except KeyError:  # that pepper was retired since
        return False


def _stored(key_id: str, stored: bytes | None, version: int | None, peppers: Peppers) -> StoredHmac:
    if stored is None or version is None:
        return _nothing(peppers)
    if not peppers.learn(version):
        logger.warning("credential %s was made with pepper version %d, which is missing", key_id, version)
        return _nothing(peppers)
    return StoredHmac(version, stored)


def _nothing(peppers: Peppers) -> StoredHmac:
    return StoredHmac(peppers.newest_version, _NO_HMAC)
