"""Hashes of passwords that nobody has: what the passwords of unknown users are compared with, to take the same time.

When the parameters of argon2id have grown, the hashes of those who have not signed in since keep the old ones, and checking
them takes another time. So that this does not tell who exists, unknown names get old parameters as well: the same
share of them as of users, and always the same name the same.
"""

import secrets
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from lingpai.identity.passwords.hashing import SALT_BYTES, TAG_BYTES
from lingpai.identity.peppers import Peppers
from lingpai.identity.settings import IdentitySettings

_PURPOSE: Final = b"lingpai unknown user\0"
_RANGE: Final = 1 << 64


class Dummies:
    """One hash for each name. May be shared by threads."""

    def __init__(self, settings: IdentitySettings, peppers: Peppers) -> None:
        self._current = (
            f"m={settings.password_memory_kib},t={settings.password_passes},p={settings.password_lanes}"
        )
        self._peppers = peppers
        self._shares: list[tuple[float, str]] = []

    def learn(self, hashes: Iterable[str]) -> None:
        """Take over the parameters of these hashes of users."""
        costs = Counter(cost for hash_ in hashes if (cost := cost_of(hash_)))
        self._shares = list(_cumulated(costs, last=self._current))

    def hash_for(self, name: str) -> str:
        """A hash in PHC form that no password gives. The names of users may be asked for, too."""
        digest = self._peppers.hmac(_PURPOSE + name.encode(), self._peppers.newest_version)
        place = int.from_bytes(digest[:8], "big") / _RANGE
        cost = next((cost for limit, cost in self._shares if place < limit), self._current)
        salt, tag = (
            b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (SALT_BYTES, TAG_BYTES)
        )
        return f"$argon2id$v=19${cost}${salt}${tag}"


def cost_of(hash_: str) -> str | None:
    """The parameters in a hash in PHC form, such as ``m=19456,t=2,p=1``; None when it is none."""
    parts = hash_.split("$")
    return parts[3] if len(parts) == 6 and parts[1] == "argon2id" else None


def _cumulated(costs: Mapping[str, int], *, last: str) -> Iterable[tuple[float, str]]:
    """Where the share of each parameter ends, between 0 and 1: the present ones come last.

    So a name that has got them keeps them while more and more users do, as a user would.
    """
    total, sum_ = sum(costs.values()), 0
    for cost in sorted(costs, key=lambda cost: (cost == last, cost)):
        sum_ += costs[cost]
        yield sum_ / total, cost
