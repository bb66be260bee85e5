"""``GET /api/v1/usage/journal``: whether the records are on their way, and what of them could not be read."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from lingpai.errors import LingpaiError
from lingpai.metering.journal_state import read_journal_state
from lingpai.metering.lag import JournalLag
from lingpai.metering.schemas import DamageBody, JournalBody
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.periods import iso_utc


def journal_routes(database: Database, lag: JournalLag, is_healthy: Callable[[], bool]) -> APIRouter:
    """The router."""
    router = APIRouter(tags=["usage"], responses=ERROR_RESPONSES)

    @router.get("/api/v1/usage/journal")
    async def journal(caller: Annotated[Principal, require("usage:read")], response: Response) -> JournalBody:
        """How the way of the usage records is: what waits, and what was damaged. For administrators."""
        if not caller.is_admin:
            raise LingpaiError("insufficient_scope", "The state of the journal is for administrators.")
        response.headers["cache-control"] = "no-store"
        state = await run_in_threadpool(read_journal_state, database)
        return JournalBody(
            is_healthy=is_healthy(),
            waiting_records=lag.records(),
            waiting_bytes=lag.bytes(),
            kept_since=iso_utc(state.kept_since) if state.kept_since else None,
            damage=[
                DamageBody(found_at=iso_utc(row.found_at), segment=row.segment, description=row.description)
                for row in state.damage
            ],
            damage_count=state.damage_count,
        )

    return router
