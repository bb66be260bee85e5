"""Credentials move to the newest pepper when they are presented, because only then we hold what must be hashed."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Table, bindparam, func, select, update

from lingpai.identity.oauth.tables import access_tokens, clients, refresh_tokens
from lingpai.identity.peppers import Peppers
from lingpai.identity.sessions.tables import invitations, sessions
from lingpai.identity.tables import api_keys
from lingpai.storage.database import Database

MOST_WAITING: Final = 100_000


@dataclass(frozen=True, slots=True)
class StoredHmacs:
    """Where HMACs of credentials are: a pair of columns, and until when each counts."""

    table: Table
    hmac_column: str
    version_column: str
    what: str
    """For people, in the plural: `API keys`."""
    ends_column: str | None = None
    """The credential is worth nothing after the time in this column, for good; None: it may come back."""

    def count(self, connection: Connection, now: float) -> Mapping[int, int]:
        """How many of them need each version of the pepper."""
        columns = self.table.c
        version = columns[self.version_column]
        query = select(version, func.count()).where(columns[self.hmac_column].is_not(None)).group_by(version)
        if self.ends_column is not None:
            query = query.where(columns[self.ends_column] > now)
        return {int(number): int(rows) for number, rows in connection.execute(query)}


API_KEYS: Final = StoredHmacs(api_keys, "secret_hmac", "pepper_version", "API keys")
OLD_API_KEYS: Final = StoredHmacs(
    api_keys, "old_secret_hmac", "old_pepper_version", "API keys before their rotation", "old_expires_at"
)
CLIENT_SECRETS: Final = StoredHmacs(clients, "secret_hmac", "pepper_version", "client secrets")
OLD_CLIENT_SECRETS: Final = StoredHmacs(
    clients, "old_secret_hmac", "old_pepper_version", "client secrets before their rotation", "old_expires_at"
)
# The others end by themselves and are not moved.
PEPPER_USES: Final = (
    API_KEYS,
    OLD_API_KEYS,
    CLIENT_SECRETS,
    OLD_CLIENT_SECRETS,
    StoredHmacs(access_tokens, "secret_hmac", "pepper_version", "access tokens", "expires_at"),
    StoredHmacs(refresh_tokens, "secret_hmac", "pepper_version", "refresh tokens", "expires_at"),
    StoredHmacs(sessions, "secret_hmac", "pepper_version", "sessions", "expires_at"),
    StoredHmacs(invitations, "secret_hmac", "pepper_version", "invitations", "expires_at"),
)


@dataclass(frozen=True, slots=True)
class _Move:
    old_hmac: bytes
    new_hmac: bytes
    version: int


class Rehashes:
    """The HMACs that are to be replaced: noted by look-ups, written in batches. Any thread may use it.

    What is noted when the process is killed is noted again the next time the credential is presented.
    """

    def __init__(self, database: Database, peppers: Peppers) -> None:
        self._database = database
        self._peppers = peppers
        self._lock = threading.Lock()
        self._moves: dict[tuple[StoredHmacs, str], _Move] = {}

    def note(self, place: StoredHmacs, id_: str, token: bytes, *, version: int, stored: bytes) -> None:
        """`token`, whose HMAC `stored` was made under `version`, has just proved to be right.

        Nothing happens when that is the newest version. Only HMACs are kept until `write`, never the credential.
        """
        newest = self._peppers.newest_version
        if version >= newest or len(self._moves) >= MOST_WAITING:
            return
        move = _Move(stored, self._peppers.hmac(token, newest), newest)
        with self._lock:
            self._moves[place, id_] = move

    def write(self) -> int:
        """Write what was noted; returns how many HMACs that were. Blocks. One that has changed since stays as it is.

        When the database fails, nothing is lost and the next call tries again.
        """
        with self._lock:
            moves = dict(self._moves)
        if not moves:
            return 0
        with self._database.write() as connection:
            for place in {place for place, _ in moves}:
                self._write(
                    connection, place, {id_: move for (of, id_), move in moves.items() if of == place}
                )
        with self._lock:
            for key, move in moves.items():
                if self._moves.get(key) == move:
                    del self._moves[key]
        return len(moves)

    def _write(self, connection: Connection, place: StoredHmacs, moves: Mapping[str, _Move]) -> None:
        columns = place.table.c
        statement = (
            update(place.table)
            .where(columns.id == bindparam("of"), columns[place.hmac_column] == bindparam("old"))
            .values({place.hmac_column: bindparam("new"), place.version_column: bindparam("under")})
        )
        rows = [
            {"of": id_, "old": move.old_hmac, "new": move.new_hmac, "under": move.version}
            for id_, move in moves.items()
            if move.version in self._peppers  # it may have been retired since, because no row needed it
        ]
        if rows:
            connection.execute(statement, rows)
