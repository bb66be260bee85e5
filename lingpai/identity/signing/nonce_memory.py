"""Which nonces have been used, in memory: bounded, and each forgotten when its signature could not be accepted any more."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal

FINGERPRINT_BYTES: Final = 12
_BUCKET_S: Final = 60

Answer = Literal["new", "used", "forgotten", "full", "full_for_user"]


def fingerprint(key_id: str, nonce: str) -> int:
    """96 bits that stand for a nonce of a key: among a million, two are the same once in 10^17 servers."""
    hashed = blake2b(f"{key_id}\0{nonce}".encode(), digest_size=FINGERPRINT_BYTES)
    return int.from_bytes(hashed.digest())


@dataclass(slots=True)
class _Bucket:
    """The nonces that are remembered until the same minute."""

    nonces: set[int] = field(default_factory=set)
    by_user: dict[str, int] = field(default_factory=dict)


class NonceMemory:
    """Belongs to one thread. A nonce takes about 100 bytes."""

    def __init__(self, *, most: int, most_per_user: int) -> None:
        """Remember `most` nonces, and no more than `most_per_user` of one user, so that none can crowd out the others."""
        self._most = most
        self._most_per_user = most_per_user
        self._buckets: dict[int, _Bucket] = {}
        self.forgotten_until = 0.0
        """Nonces of signatures that were good until then, or shorter, may have been forgotten."""

    def __len__(self) -> int:
        return sum(len(bucket.nonces) for bucket in self._buckets.values())

    def ask(self, user_id: str, mark: int, until: float) -> Answer:
        """Whether a nonce (by its fingerprint) can be taken; `add` takes it."""
        if until <= self.forgotten_until:
            return "forgotten"
        if any(mark in bucket.nonces for bucket in self._buckets.values()):
            return "used"
        if len(self) >= self._most:
            return "full"
        own = sum(bucket.by_user.get(user_id, 0) for bucket in self._buckets.values())
        return "full_for_user" if own >= self._most_per_user else "new"

    def add(self, user_id: str, mark: int, until: float) -> None:
        """Remember a nonce until `until`."""
        bucket = self._buckets.setdefault(int(until // _BUCKET_S), _Bucket())
        bucket.nonces.add(mark)
        if user_id:
            bucket.by_user[user_id] = bucket.by_user.get(user_id, 0) + 1

    def forget(self, now: float) -> None:
        """Let go of what cannot be asked for any more. Should the clock go back, it is `forgotten` and not `new`."""
        for minute in [each for each in self._buckets if (each + 1) * _BUCKET_S <= now]:
            del self._buckets[minute]
            self.forgotten_until = max(self.forgotten_until, float((minute + 1) * _BUCKET_S))
