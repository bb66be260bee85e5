"""Signed checkpoints: what the last record's hash was at a time. From then on nobody without the key can rewrite history.

The newest one is also kept outside of the database, and said in the log: were the end of the trail cut off together with
its checkpoints, these would still tell of it.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from lingpai.audit.canonical import time_text
from lingpai.audit.files import replace_durably
from lingpai.audit.store import SqlAuditStore, Tail
from lingpai.storage.database import Database

log = logging.getLogger("lingpai.audit")

FOLDER: Final = "audit"
FILE: Final = "checkpoint.json"
KEPT_PATTERN: Final = "checkpoint*.json"


class Sign(Protocol):
    """`Signer.sign`."""

    def __call__(self, statement: dict[str, Any], /) -> str: ...


class Checkpoints:
    """Writes checkpoints. All methods block; call them one at a time."""

    def __init__(
        self,
        database: Database,
        store: SqlAuditStore,
        folder: Path,
        *,
        sign: Sign,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is for the newest checkpoint outside of the database; it is made when it is needed."""
        self._database = database
        self._store = store
        self._path = folder / FILE
        self._sign = sign
        self._clock = clock
        self._newest: int | None = None

    def write(self) -> bool:
        """Sign the end of the trail if there is anything new. Returns whether there was.

        Raises AuditKeyError, OSError or what the database raises; the next time will do.
        """
        tail = self._store.tail()
        if self._newest is None:
            self._newest = self._store.newest_checkpoint()
        if tail is None or tail.number <= self._newest:
            return False
        line = self._sign(_statement(tail, self._clock()))
        self._store.add_checkpoint(tail.number, line)
        self._newest = tail.number
        # Else, after a power failure, the file could tell of records that never reached the disk.
        self._database.force_to_disk()
        replace_durably(self._path, f"{line}\n".encode())
        log.info("audit checkpoint %d: %s", tail.number, line)
        return True

    def lost(self) -> str | None:
        """What the checkpoint outside says that the database does not; None when they agree, or there is none.

        The file is set aside under another name then, so that what is written from now on does not hide it.
        """
        try:
            number, hash_ = _read(self._path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            return f"{self._path} cannot be read: {error}"
        found = self._store.hash_at(number)
        if found == hash_:
            return None
        self._path.replace(self._path.with_name(f"checkpoint-{number}-{hash_[:12]}.json"))
        state = "it is missing" if found is None else "it is another one"
        return f"record {number} was signed with the hash {hash_}, and {state} in the database"


def kept_outside(data: Path) -> list[Path]:
    """The checkpoints outside of the database of a data directory, those that were set aside included."""
    return sorted((data / FOLDER).glob(KEPT_PATTERN))


def _statement(tail: Tail, now: float) -> dict[str, Any]:
    return {"hash": tail.hash, "number": tail.number, "time": time_text(now), "type": "checkpoint"}


def _read(path: Path) -> tuple[int, str]:
    found = json.loads(path.read_bytes())
    return int(found["number"]), str(found["hash"])
