"""Ends calls under way whose caller may not make them any more: the key was revoked, its user disabled, a right taken.

A call that begins is checked anyway. This looks after those that are on their way when something changes, which may be
streams of many minutes. Looking costs nothing as long as nothing has changed.
"""

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from lingpai.errors import LingpaiError
from lingpai.gateway import authenticate, relay, route, settle
from lingpai.gateway.authenticate import Authenticator

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange
    from lingpai.principal import Principal

log = logging.getLogger("lingpai.gateway")

LOOK_EVERY_S = 0.5


class RevokedCalls:
    """Belongs to the event loop."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._seen = authenticator.keys.generation

    @property
    def has_news(self) -> bool:
        """Whether anything has changed since calls were looked at."""
        return self._authenticator.keys.generation != self._seen

    async def end(self, calls: Iterable["Exchange"]) -> int:
        """End those of `calls` that would be refused if they began now. Returns how many those were.

        Raises LingpaiError when the database cannot be asked; call it again then.
        """
        generation = self._authenticator.keys.generation
        by_caller: dict[Principal, list[Exchange]] = {}
        for call in calls:
            if call.is_body_complete and call.principal is not None:
                by_caller.setdefault(call.principal, []).append(call)
        ended = 0
        for principal, theirs in by_caller.items():
            if not self._authenticator.keys.holds(principal):
                ended += await self._end_of(theirs)
        self._seen = generation  # only now: when the database could not be asked, the next look asks again
        return ended

    async def _end_of(self, calls: list["Exchange"]) -> int:
        """End those of one caller's calls that would be refused now."""
        token = authenticate.read_credential(calls[0].fields)
        if token is None:
            return 0  # through the admin socket, by whoever runs the server
        principal = await self._authenticator.principal_for(token)
        ended = 0
        for call in calls:
            refusal = authenticate.unknown_key(token) if principal is None else _refusal(call, principal)
            if refusal is not None and not call.is_over:
                log.info("call %s ends: %s", call.request_id.decode(), refusal.code)
                call.carry_on(partial(_end, call, refusal))
                ended += 1
        return ended


def _end(call: "Exchange", refusal: LingpaiError) -> None:
    # Charged like a caller who leaves: or disabling one's own key would make calls free that backends have begun.
    is_at_work = call.upstream is not None
    relay.cancel(call)
    settle.cut_off(call, refusal, is_charged=is_at_work)


def _refusal(call: "Exchange", principal: "Principal") -> LingpaiError | None:
    """Why the call would be refused if it began now; None when it would not."""
    try:
        authenticate.check_may_call(principal, call.front.caller_address, time.time())
        if call.is_admitted:
            route.check_may_call(principal, call.model, call.model_name)
    except LingpaiError as error:
        return error.with_traceback(None)
    return None
