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
from lingpai.gateway.authenticate import LOCAL, Authenticator
from lingpai.gateway.signed import SignedCalls, SignedProof

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange
    from lingpai.principal import Principal

log = logging.getLogger("lingpai.gateway")

LOOK_EVERY_S = 0.5


Proof = bytes | SignedProof | None
"""What has proven whose a call is: its credential (`LOCAL` for who has none), or who signed it."""


class RevokedCalls:
    """Belongs to the event loop."""

    def __init__(self, authenticator: Authenticator, signed_calls: SignedCalls) -> None:
        self._authenticator = authenticator
        self._signed_calls = signed_calls
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
        # One caller's calls may have been proven in several ways, of which some still hold.
        by_proof: dict[Proof, list[Exchange]] = {}
        for principal, theirs in by_caller.items():
            if not self._authenticator.keys.holds(principal):
                for call in theirs:
                    by_proof.setdefault(_proof_of(call), []).append(call)
        ended = 0
        for proof, proven in by_proof.items():
            if proof != LOCAL:  # whoever runs the server
                ended += await self._end_of(proof, proven)
        self._seen = generation  # only now: when the database could not be asked, the next look asks again
        return ended

    async def _end_of(self, proof: Proof, calls: list["Exchange"]) -> int:
        """End those of the calls with one proof that would be refused now."""
        principal: Principal | None = None
        gone: LingpaiError | None = None
        try:
            principal = await self._prove_again(proof)
        except LingpaiError as error:
            if error.status >= 500:
                raise
            gone = error.with_traceback(None)
        ended = 0
        for call in calls:
            refusal = gone if principal is None else _refusal(call, principal)
            if refusal is not None and not call.is_over:
                log.info("call %s ends: %s", call.request_id.decode(), refusal.code)
                call.carry_on(partial(_end, call, refusal))
                ended += 1
        return ended

    async def _prove_again(self, proof: Proof) -> "Principal":
        """Whose call it would be if it began now. Raises LingpaiError: nobody's, or the database cannot be asked."""
        if isinstance(proof, SignedProof):
            return await self._signed_calls.prove_again(proof)
        if proof is None:
            raise authenticate.missing_key()
        principal = await self._authenticator.principal_for(proof)
        if principal is None:
            raise authenticate.unknown_key(proof)
        return principal


def _proof_of(call: "Exchange") -> Proof:
    if call.signed is not None:
        return call.signed.proof
    token = authenticate.read_credential(call.fields)
    return LOCAL if token is None and call.front.is_local else token


def _end(call: "Exchange", refusal: LingpaiError) -> None:
    # Charged like a caller who leaves: or disabling one's own key would make calls free that backends have begun.
    is_at_work = call.upstream is not None
    relay.cancel(call)
    settle.cut_off(call, refusal, is_charged=is_at_work)


def _refusal(call: "Exchange", principal: "Principal") -> LingpaiError | None:
    """Why the call would be refused if it began now; None when it would not."""
    if principal.signature_required and call.signed is None:
        return authenticate.signature_required()
    try:
        authenticate.check_may_call(principal, call.front.caller_address, time.time())
        if call.is_admitted:
            route.check_may_call(principal, call.model, call.model_name)
    except LingpaiError as error:
        return error.with_traceback(None)
    return None
