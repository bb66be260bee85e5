"""The one place that knows the server's long-lived secrets: peppers, root keys, and the keys that sign tokens."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from lingpai.catalog.tables import SEALED_KEYS
from lingpai.identity.keyring import Keyring
from lingpai.identity.peppers import Peppers
from lingpai.identity.rehashing import PEPPER_USES, Rehashes
from lingpai.identity.signing.tables import SEALED_SECRETS
from lingpai.jobs.runner import JobRunner
from lingpai.secrets.interfaces import Kind, VersionUses
from lingpai.secrets.numbered import NumberedSecrets
from lingpai.secrets.resealing import Resealer
from lingpai.secrets.service import Secrets
from lingpai.secrets.tables import SEALED_PRIVATE_KEYS
from lingpai.secrets.token_keys import TokenKeys
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer
from lingpai.storage.trail import Trail
from lingpai.storage.versioned_secrets import SecretKind, VersionedSecrets

log = logging.getLogger("lingpai.secrets")

SEALED_COLUMNS: Final = (SEALED_KEYS, SEALED_SECRETS, SEALED_PRIVATE_KEYS)
_LOOK_FOR_NEW_S: Final = 5.0
_RESEAL_S: Final = 2.0
_LET_GO_S: Final = 1.0
_CLEAN_S: Final = 3600.0
_Secrets = TypeVar("_Secrets", bound=VersionedSecrets)


class ServerSecrets:
    """Opens the secrets of a server and builds what works with them. Raises SecretError or OSError."""

    def __init__(
        self, database: Database, *, data: Path, environment: Mapping[str, str], trail: Trail
    ) -> None:
        folder = data / "secrets"
        self.peppers = _open(Peppers, folder / "pepper.json", environment, PEPPER_USES, database)
        self.root_keys = _open(RootKeys, folder / "root.json", environment, SEALED_COLUMNS, database)
        self.sealer = Sealer(self.root_keys)
        self.token_keys = TokenKeys(database, self.sealer)
        self.rehashes = Rehashes(database, self.peppers)
        self._has_other_token_keys = False
        self._resealer = Resealer(database, self.sealer, SEALED_COLUMNS)
        self.service = Secrets(
            database,
            {
                "pepper": NumberedSecrets("pepper", self.peppers, PEPPER_USES),
                "root": NumberedSecrets("root", self.root_keys, SEALED_COLUMNS),
                "signing": self.token_keys,
            },
            trail=trail,
            on_change=self._changed,
        )

    def start(self, jobs: JobRunner, keyring: Keyring) -> None:
        """Begin what goes on in the background: noticing new versions, and moving what was made with old ones."""
        jobs.every(_LOOK_FOR_NEW_S, "look for new secrets", _in_thread(self.reread))
        jobs.every(_RESEAL_S, "seal values anew", _in_thread(self._resealer.run))
        jobs.every(_LET_GO_S, "load keys of an old pepper again", keyring.let_go_of_old_peppers)
        jobs.every(_LET_GO_S, "verify JWTs again", lambda: self._verify_jwts_again(keyring))
        jobs.every(_CLEAN_S, "remove ended signing keys", _in_thread(self.token_keys.remove_ended))

    def reread(self) -> None:
        """Take over versions that another process has made or retired. Blocks."""
        self.peppers.reread()
        self.root_keys.reread()

    def _changed(self, kind: Kind) -> None:
        if kind == "signing":
            self.token_keys.forget()
            self._has_other_token_keys = True  # told in a worker thread; the keyring is the event loop's

    def _verify_jwts_again(self, keyring: Keyring) -> None:
        if self._has_other_token_keys:
            self._has_other_token_keys = False
            keyring.forget_jwts()


def _open(
    kind: type[_Secrets],
    path: Path,
    environment: Mapping[str, str],
    uses: Sequence[VersionUses],
    database: Database,
) -> _Secrets:
    text = environment.get(kind.kind.variable)
    if text:
        held = kind.from_text(text)
        held.refuse_other_file(path)
        return held
    if not path.exists():
        _tell_of_loss(kind.kind, path, uses, database)
    return kind.from_file(path)


def _tell_of_loss(kind: SecretKind, path: Path, uses: Sequence[VersionUses], database: Database) -> None:
    """A new one is made, because it may be gone for good; whoever has a copy should know before they make new keys."""
    with database.read() as connection:
        needed = [use.what for use in uses if use.count(connection, time.time())]
    if needed:
        log.error(
            "%s is missing, so a new %s is made, and %s (needed by: %s). If you have a copy of the file, stop the server"
            " and put it back.",
            path, kind.name, kind.loss, ", ".join(needed),
        )  # fmt: skip


def _in_thread(work: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    return lambda: asyncio.to_thread(work)
