"""Peppers and root keys: numbered secrets in a file, and the rows that need them."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.secrets.interfaces import Kind, SecretVersion, State, VersionUses
from lingpai.storage.versioned_secrets import FixedSecretsError, SecretError, VersionedSecrets

NOTICED_AFTER_S: Final = 30.0
"""Every server on the same file uses a new version after that long (they look every few seconds)."""
_ADVICE: Final = {
    "pepper": "API keys and client secrets move to the newest pepper when they are used; delete those that nobody uses.",
    "root": "They are sealed anew in the background; `lingpai secrets list` shows how many are left.",
}


class NumberedSecrets:
    """Fulfils `ManagedSecrets`."""

    def __init__(
        self,
        kind: Kind,
        secrets: VersionedSecrets,
        uses: Sequence[VersionUses],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kind: Kind = kind
        self._secrets = secrets
        self._uses = tuple(uses)
        self._clock = clock

    def versions(self, connection: Connection) -> list[SecretVersion]:
        """Those that are held, and those that are not but that something needs (their place says `missing`)."""
        held = self._secrets.versions()
        needed = self._needed(connection)
        return [
            SecretVersion(
                kind=self._kind,
                version=str(version),
                state=self._state(version),
                place=self._secrets.place if version in held else "missing",
                created_at=held.get(version),
                uses=needed.get(version, {}),
            )
            for version in sorted(held.keys() | needed.keys())
        ]

    def rotate(self, connection: Connection, *, leaked: bool) -> list[SecretVersion]:
        """Make a version and use it from now on. Raises LingpaiError."""
        if leaked:
            raise LingpaiError(
                "invalid_request",
                "`leaked` is for signing keys. Rotate without it; if somebody may have copied the database too, replace"
                " the credentials and provider keys themselves.",
                param="leaked",
            )
        try:
            version = str(self._secrets.rotate())
        except SecretError as error:
            raise LingpaiError("invalid_request", str(error), param="kind") from error
        except OSError as error:
            raise self._unwritable(error) from error
        return [each for each in self.versions(connection) if each.version == version]

    def retire(self, connection: Connection, version: str) -> None:
        """Take a version away. Raises LingpaiError while anything needs it, or another server may still use it."""
        number = self._held_number(version)
        self._check_not_in_use(number)
        needed = self._needed(connection).get(number)
        if needed:
            listed = ", ".join(f"{what}: {count}" for what, count in needed.items())
            raise LingpaiError(
                "invalid_request",
                f"The {self._secrets.kind.name} {number} is still needed ({listed}). {_ADVICE[self._kind]}",
                param="version",
            )
        try:
            self._secrets.retire(number)
        except FixedSecretsError as error:
            raise LingpaiError("invalid_request", f"Nothing needs it. {error}", param="version") from error
        except SecretError as error:
            raise LingpaiError("invalid_request", str(error), param="version") from error
        except OSError as error:
            raise self._unwritable(error) from error

    def _state(self, version: int) -> State:
        newest = self._secrets.newest_version
        if version == newest:
            return "current"
        return "next" if version > newest and version in self._secrets else "old"

    def _held_number(self, version: str) -> int:
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 7 else 0
        if number not in self._secrets:
            raise LingpaiError(
                "not_found",
                f"There is no {self._secrets.kind.name} `{version[:40]}`. `lingpai secrets list` shows what there is.",
                param="version",
            )
        return number

    def _check_not_in_use(self, number: int) -> None:
        newest = self._secrets.newest_version
        if number == newest:
            raise LingpaiError(
                "invalid_request",
                f"The {self._secrets.kind.name} {number} is the one in use. Make a new one first:"
                f" `lingpai secrets rotate {self._kind}`.",
                param="version",
            )
        age = self._clock() - (self._secrets.versions().get(newest) or 0.0)
        if 0 <= age < NOTICED_AFTER_S:
            raise LingpaiError(
                "invalid_request",
                f"The {self._secrets.kind.name} {newest} was made just now, and another server may not have noticed."
                f" Try again in {NOTICED_AFTER_S - age:.0f} s.",
                param="version",
            )

    def _needed(self, connection: Connection) -> dict[int, dict[str, int]]:
        needed: dict[int, dict[str, int]] = {}
        for uses in self._uses:
            for version, count in uses.count(connection, self._clock()).items():
                needed.setdefault(version, {})[uses.what] = count
        return needed

    def _unwritable(self, error: OSError) -> LingpaiError:
        return LingpaiError(
            "storage_unavailable",
            f"The {self._secrets.kind.name} file cannot be written ({error.strerror or type(error).__name__}), so"
            " nothing was changed. Look at the disk and the rights of the folder `secrets`.",
        )
