"""The server's peppers: secrets outside the database without which the stored HMACs of credentials verify nothing."""

import hmac
from typing import ClassVar, Final

from lingpai.storage.versioned_secrets import SecretKind, VersionedSecrets

PEPPER: Final = SecretKind(
    name="pepper", field="peppers", variable="LINGPAI_PEPPER", loss="no existing key works"
)


class Peppers(VersionedSecrets):
    """All pepper versions. New credentials use the newest; one made under an older version verifies while it is held."""

    kind: ClassVar = PEPPER

    __slots__ = ()

    def hmac(self, token: bytes, version: int) -> bytes:
        """HMAC-SHA-256 of the whole `token` under the pepper of `version`. Raises KeyError for an unknown version."""
        return hmac.digest(self.value(version), token, "sha256")
