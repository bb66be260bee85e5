"""Reports of leaked credentials, taken whether the database can be written or not: what works of them ends when it can.

Were it answered that the database is full or locked, the answer would tell which credentials work: only for those anything
is written.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import OperationalError

from lingpai.errors import LingpaiError
from lingpai.identity.leaks import LeakReports
from lingpai.identity.oauth.jwt_tokens import PREFIX

log = logging.getLogger("lingpai.identity")

MOST_WAITING: Final = 1000
_AGAIN_AFTER_S: Final = 2.0
_PUBLIC: Final = len("sk-lp-") + 12
_MOST_NAMED: Final = 10


class LeakQueue:
    """Belongs to the event loop. One report is written at a time, so that those that wait keep one thread at the most."""

    def __init__(
        self, reports: LeakReports, *, most: int = MOST_WAITING, again_after_s: float = _AGAIN_AFTER_S
    ) -> None:
        """At most so many working credentials wait; garbage never does."""
        self._reports = reports
        self._most = most
        self._again_after_s = again_after_s
        self._waiting: set[bytes] = set()
        self._writing = asyncio.Lock()

    async def take(self, tokens: Sequence[bytes]) -> None:
        """End those of `tokens` that work; returns when that is done, however long the database cannot be written.

        Run it as a job. Raises sqlalchemy.exc.OperationalError when the database cannot even be read, whatever the tokens are.
        """
        working = await asyncio.to_thread(self._reports.working, tokens)
        new = [token for token in working if token not in self._waiting]
        if len(self._waiting) + len(new) > self._most:
            log.error("too many leaked credentials wait to be ended; not taken: %s", _names(new))
            return
        self._waiting.update(new)
        try:
            await self._end(new)
        finally:
            self._waiting.difference_update(new)

    async def _end(self, tokens: Sequence[bytes]) -> None:
        has_told = False
        while tokens:
            try:
                async with self._writing:
                    await asyncio.to_thread(self._reports.end, tokens)
            except (OperationalError, OSError, LingpaiError) as error:
                if not has_told:
                    why = getattr(error, "orig", error)
                    log.warning(
                        "leaked credentials wait to be ended until the database can be written: %s (%s)",
                        _names(tokens),
                        why,
                    )
                has_told = True
                await asyncio.sleep(self._again_after_s)
            else:
                if has_told:
                    log.info("the leaked credentials that waited have been ended: %s", _names(tokens))
                return


def _names(tokens: Sequence[bytes]) -> str:
    """What is public of them: kind and id."""
    names = [
        "a JWT" if token.startswith(PREFIX.encode()) else token[:_PUBLIC].decode()
        for token in tokens[:_MOST_NAMED]
    ]
    more = len(tokens) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
