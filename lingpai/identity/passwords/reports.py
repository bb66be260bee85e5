"""Which refusals of the throttle are worth a record: enough to see an attack, too few to drown the audit trail in it."""

from collections import OrderedDict
from typing import Final

from lingpai.identity.passwords.throttle import Wait

EVERY_S: Final = 60.0
MOST_PER_ROUND: Final = 30
_MOST_ACCOUNTS: Final = 1000
_WORDS: Final = {
    "account": "too many failures for this account",
    "address": "too many failures from this address",
    "server": "too many failures on this server",
}


class ThrottleReports:
    """One record a minute for each account, thirty a minute for all; the next one says how many were left out."""

    def __init__(self) -> None:
        self._told: OrderedDict[int, float] = (
            OrderedDict()
        )  # by hash: names may be passwords in the wrong field
        self._round_began = float("-inf")
        self._in_round = 0
        self._left_out = 0

    def reason(self, account: str, wait: Wait, now: float) -> str | None:
        """The reason that the record of this refusal gives; None when it gets no record of its own."""
        if now - self._round_began >= EVERY_S:
            self._round_began, self._in_round = now, 0
        is_told = now - self._told.get(hash(account), float("-inf")) < EVERY_S
        if is_told or self._in_round >= MOST_PER_ROUND:
            self._left_out += 1
            return None
        self._note(account, now)
        left_out, self._left_out = self._left_out, 0
        more = f"; {left_out} more refusals since the last record" if left_out else ""
        return f"{_WORDS[wait.because]}{more}"

    def _note(self, account: str, now: float) -> None:
        self._in_round += 1
        self._told[hash(account)] = now
        self._told.move_to_end(hash(account))
        if len(self._told) > _MOST_ACCOUNTS:
            self._told.popitem(last=False)
