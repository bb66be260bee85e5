"""The audit trail of a server: its parts joined, its jobs, and the records of the server's own life."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy.exc import DBAPIError

import lingpai
from lingpai.audit.checkpoints import FOLDER, Checkpoints
from lingpai.audit.export import AuditExport
from lingpai.audit.keys import FILE, AuditKeyError, ensure_keys
from lingpai.audit.refusals import Refusals
from lingpai.audit.routes import audit_routes
from lingpai.audit.service import SqlTrail
from lingpai.audit.signer import Signer
from lingpai.audit.store import SqlAuditStore
from lingpai.errors import LingpaiError
from lingpai.jobs.runner import JobRunner
from lingpai.lane.doorman import network_of
from lingpai.reload import Reload
from lingpai.settings import Settings
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed
from lingpai.telemetry.metrics import CallMetrics

log = logging.getLogger("lingpai.audit")

CHECKPOINT_EVERY_S: Final = 60.0
_LOOK_EVERY_S: Final = 5.0


class Auditing:
    """Belongs to the event loop; what blocks goes to threads."""

    def __init__(self, database: Database, trail: SqlTrail, data: Path) -> None:
        """`data` is the data directory, which gets a signing key if it has none. Raises OSError."""
        ensure_keys(data / FILE)
        self._trail = trail
        self._store = SqlAuditStore(database)
        signer = Signer(data / FILE)
        self._checkpoints = Checkpoints(database, self._store, data / FOLDER, sign=signer.sign)
        self._export = AuditExport(self._store, sign=signer.sign)
        self.refusals = Refusals(database, trail, network_of=network_of)
        self._unsaid: list[Deed] = []
        self._is_started = False

    def routes(self) -> APIRouter:
        """``/api/v1/audit``."""
        return audit_routes(self._store, self._export, self._trail)

    def measure(self, metrics: CallMetrics) -> None:
        """Show what is counted and not recorded."""
        refusals = self.refusals
        metrics.counter(
            "lingpai_unknown_credentials",
            "Requests with a credential that is none.",
            lambda: refusals.unknown_credentials,
        )
        metrics.counter(
            "lingpai_refusals_dropped",
            "Refusals of which the audit trail has a count only.",
            lambda: refusals.dropped,
        )

    async def start(self, jobs: JobRunner) -> None:
        """Record that the server has started, and begin the jobs.

        Models are served even if nothing can be recorded now; administration is refused until it can.
        """
        self._is_started = True
        lost = await asyncio.to_thread(self._lost)
        if lost is not None:
            log.error("the audit trail is not the one that was signed: %s. See `lingpai audit verify`.", lost)
            self._unsaid.append(
                Deed(
                    action="audit.mismatch",
                    target_kind="trail",
                    target_id="audit",
                    result="failed",
                    reason=lost,
                )
            )
        started = {"version": lingpai.__version__, "pid": os.getpid()}
        self._unsaid.append(
            Deed(action="server.start", target_kind="server", target_id="server", after=started)
        )
        await self._say()
        jobs.every(_LOOK_EVERY_S, "record refusals", self._look)
        jobs.every(CHECKPOINT_EVERY_S, "sign the audit trail", self._sign)

    async def note_reload(self, old: Settings, reload: Reload) -> None:
        """Record new settings before they are taken over. Raises LingpaiError when that cannot be recorded."""
        deed = Deed(
            action="settings.reload",
            target_kind="settings",
            target_id="settings",
            before=_values(old, reload.changed),
            after={**_values(reload.settings, reload.changed), "waiting": list(reload.waiting)},
        )
        await asyncio.to_thread(self._trail.note, None, deed)

    async def close(self) -> None:
        """Record what is left, that the server has stopped, and sign the end of the trail."""
        if not self._is_started:
            return
        await self.refusals.write_all()
        self._unsaid.append(Deed(action="server.stop", target_kind="server", target_id="server"))
        await self._say()
        try:
            await self._sign()
        except (AuditKeyError, OSError, DBAPIError) as error:
            log.error("the end of the audit trail is not signed: %s", error)  # noqa: TRY400  the message says it all

    def _lost(self) -> str | None:
        try:
            return self._checkpoints.lost()
        except (OSError, DBAPIError) as error:
            return f"the checkpoint outside of the database cannot be looked after: {error}"

    async def _look(self) -> None:
        await self._say()
        await self.refusals.write_due()

    async def _sign(self) -> None:
        await asyncio.to_thread(self._checkpoints.write)

    async def _say(self) -> None:
        """Record what could not be recorded yet; the rest another time."""
        while self._unsaid:
            try:
                await asyncio.to_thread(self._trail.note, None, self._unsaid[0])
            except LingpaiError as error:
                log.error("%s cannot be recorded: %s", self._unsaid[0].action, error)  # noqa: TRY400  as above
                return
            del self._unsaid[0]


def _values(settings: Settings, keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of settings that a running server can take over, by ``section.key``; none of those is secret."""
    found = {}
    for name in keys:
        section, _, key = name.partition(".")
        found[name] = getattr(getattr(settings, section), key)
    return found
