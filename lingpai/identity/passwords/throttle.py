"""The defence against guessing: how long an attempt to sign in has to wait. Nothing is ever locked.

Each attempt counts before its password is checked, so that a hundred at the same time are a hundred; one that succeeds is
taken back. Which counts an attempt belongs to:

- from a **familiar** device or place, where this account has signed in before: a count of its own, and no other. So nobody
  who hammers an account from elsewhere makes its owner wait.
- from anywhere else: the account's count, the address's, and the rate of the whole server. The account's is forgotten when
  somebody signs in from there; the address's is not, or an attacker would sign in to an account of their own in between.

The first few failures are free. Then the next attempt has to wait one second, two, four, up to a quarter of an hour, in
which about a hundred guesses a day are left. A count falls by itself, by one in an hour (of an address: in five minutes).

Memory is bounded: each kind of count is kept for the 20,000 that failed last, under hashes, because people type passwords
where their names belong. To push one out takes as many failures, which the rate of the whole server stretches to half an
hour and more.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Final

from lingpai.identity.settings import IdentitySettings

ACCOUNT_FORGETS_S: Final = 3600.0
ADDRESS_FORGETS_S: Final = 300.0
MOST_COUNTS: Final = 20_000
BURST_S: Final = 30.0
_MOST_DOUBLINGS: Final = 40
_NOTHING_S: Final = 1e-6


@dataclass(slots=True)
class _Count:
    failures: float
    since: float
    free_at: float


class FailureCounts:
    """How often something has failed, and when it may be tried again; of the `most` that failed last."""

    def __init__(self, *, free: int, longest_s: float, forgets_s: float, most: int = MOST_COUNTS) -> None:
        """`free` failures make nobody wait; one is forgotten every `forgets_s` seconds."""
        self._free = free
        self._longest_s = longest_s
        self._forgets_s = forgets_s
        self._most = most
        self._counts: OrderedDict[bytes, _Count] = OrderedDict()
        self._keyed_hash = blake2b(key=secrets.token_bytes(32), digest_size=16)

    def __len__(self) -> int:
        return len(self._counts)

    def wait_s(self, who: str, now: float) -> float:
        """Seconds until `who` may try again; 0 when they may now."""
        count = self._counts.get(self._index(who))
        return 0.0 if count is None else max(0.0, count.free_at - now)

    def begin(self, who: str, now: float) -> None:
        """Count an attempt as failed."""
        index = self._index(who)
        count = self._counts.pop(index, None)
        failures = 1.0 if count is None else self._remaining(count, now) + 1
        beyond = ceil(failures) - self._free
        wait = min(self._longest_s, 2.0 ** min(beyond, _MOST_DOUBLINGS)) if beyond >= 0 else 0.0
        self._counts[index] = _Count(failures, now, now + wait)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)

    def take_back(self, who: str, now: float) -> None:
        """The attempt that was counted last has not failed."""
        count = self._counts.get(self._index(who))
        if count is not None:
            count.failures = max(0.0, self._remaining(count, now) - 1)
            count.since = count.free_at = now  # whatever it had to wait for before was over when it began

    def forget(self, who: str) -> None:
        """Nothing is held against `who` any more."""
        self._counts.pop(self._index(who), None)

    def _remaining(self, count: _Count, now: float) -> float:
        return max(0.0, count.failures - (now - count.since) / self._forgets_s)

    def _index(self, who: str) -> bytes:
        keyed_hash = self._keyed_hash.copy()
        keyed_hash.update(who.encode())
        return keyed_hash.digest()


class FailureRate:
    """Failures of everybody together: so many a second, and `BURST_S` seconds' worth of them at once."""

    def __init__(self, per_s: float) -> None:
        self._interval = 1 / per_s
        self._free_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until there may be another one."""
        wait = self._free_at + self._interval - now - BURST_S
        return wait if wait > _NOTHING_S else 0.0

    def begin(self, now: float) -> None:
        """Count an attempt as failed."""
        self._free_at = max(self._free_at, now) + self._interval

    def take_back(self) -> None:
        """An attempt that was counted has not failed."""
        self._free_at -= self._interval


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose password is tried, and from where.

    `network` is None where nobody in particular comes from: this machine, behind whose proxy everybody may be. `familiar`
    names the device or place where the account has signed in before.
    """

    account: str
    network: str | None
    familiar: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """An attempt has to wait. `because` is `account`, `address` or `server`."""

    seconds: int
    because: str


class Throttle:
    """All counts of one server. Belongs to one thread: the event loop's. `now` is any clock that is never set back."""

    def __init__(self, settings: IdentitySettings) -> None:
        longest_s = settings.sign_in_max_wait_s
        of_account, of_address = settings.sign_in_failures_per_account, settings.sign_in_failures_per_address
        self._accounts = FailureCounts(free=of_account, longest_s=longest_s, forgets_s=ACCOUNT_FORGETS_S)
        self._familiar = FailureCounts(free=of_account, longest_s=longest_s, forgets_s=ACCOUNT_FORGETS_S)
        self._addresses = FailureCounts(free=of_address, longest_s=longest_s, forgets_s=ADDRESS_FORGETS_S)
        self._server = FailureRate(settings.sign_in_failures_per_s)

    def begin(self, origin: Origin, now: float) -> Wait | None:
        """Count an attempt as failed and let it happen (None), or say how long it has to wait."""
        waits = self._waits(origin, now)
        longest, because = max(waits)
        if longest > 0:
            return Wait(max(1, ceil(longest)), because)
        if origin.familiar is not None:
            self._familiar.begin(origin.familiar, now)
            return None
        self._accounts.begin(origin.account, now)
        self._server.begin(now)
        if origin.network is not None:
            self._addresses.begin(origin.network, now)
        return None

    def succeeded(self, origin: Origin, now: float) -> None:
        """The attempt that was counted last for `origin` gave the right password."""
        if origin.familiar is not None:
            self._familiar.forget(origin.familiar)
            return
        self._accounts.forget(origin.account)
        self._not_failed(origin, now)

    def abandoned(self, origin: Origin, now: float) -> None:
        """The attempt that was counted last for `origin` was never made, for the server's own reasons."""
        if origin.familiar is not None:
            self._familiar.take_back(origin.familiar, now)
            return
        self._accounts.take_back(origin.account, now)
        self._not_failed(origin, now)

    def forget_account(self, account: str) -> None:
        """Nothing is held against an account any more: its password is a new one."""
        self._accounts.forget(account)

    def _not_failed(self, origin: Origin, now: float) -> None:
        self._server.take_back()
        if origin.network is not None:
            self._addresses.take_back(origin.network, now)

    def _waits(self, origin: Origin, now: float) -> list[tuple[float, str]]:
        if origin.familiar is not None:
            return [(self._familiar.wait_s(origin.familiar, now), "account")]
        waits = [
            (self._accounts.wait_s(origin.account, now), "account"),
            (self._server.wait_s(now), "server"),
        ]
        if origin.network is not None:
            waits.append((self._addresses.wait_s(origin.network, now), "address"))
        return waits
