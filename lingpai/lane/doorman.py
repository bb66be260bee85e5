"""The doorman: how many connections there may be, how many of them from one address, and who has to wait.

Nobody's work is ever ended to make room: when the house is full, the connections that have been idle for longest go,
and when none is idle the newcomer is turned away. Callers on this machine have no share, nor have declared proxies: they
speak for everybody who comes through them. Where a proxy says who calls, calls and offences count for that caller.

An address is whatever one customer of a provider has to themselves: a whole IPv4 address, but the first 64 bits of an
IPv6 one, for who has one of those has all that begin alike (RFC 6177, section 2).
"""

import heapq
import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from lingpai.lane.forwarded import Proxies

FREE_OFFENCES: Final = 500
OFFENCES_PER_S: Final = 100.0
SHARED_OFFENCES_PER_S: Final = 300.0
"""How many offences an address is forgiven at once, and per second ever after; this machine's own may be many callers."""
MOST_ADDRESSES: Final = 10_000
MOST_LINGERING: Final = 256
"""How many who were turned away may be listened to until they have read why; the rest are cut off."""
TRY_AGAIN_S: Final = 0.25
"""How long to believe that no connection is idle, before all of them are looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many there may be; 0 means no bound."""

    connections: int = 0
    connections_per_address: int = 0
    calls_per_address: int = 0


class Guest(Protocol):
    """A connection, as the doorman sees it."""

    peer_address: str
    """Who holds the connection; for a proxy, that is the proxy."""
    has_share: bool
    """Whether it was counted already, when it came and its TLS handshake was still to be made."""
    is_local: ClassVar[bool]

    def idle_time(self) -> float | None:
        """Since when the connection is idle, in loop time; None when closing it would end somebody's work."""

    def close_idle(self) -> None:
        """Make room."""


class Doorman:
    """One for all listeners of a process. Everything happens on the event loop."""

    def __init__(self, bounds: Bounds, proxies: Proxies | None = None) -> None:
        self.bounds = bounds
        self.proxies = proxies or Proxies()
        self.lingering = 0
        self.seen = self.turned_away = 0
        """How many came since the start, and how many of them were refused."""
        self._connections: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._offences: OrderedDict[str, float] = OrderedDict()
        self._room = 0
        self._full_until = 0.0

    # -- connections

    def admit(self, guest: Guest, guests: Iterable[Guest], count: int, now: float) -> tuple[int, str] | None:
        """Count a new connection, `count` with it, among `guests`; or the status and message to turn it away with."""
        self.seen += 1
        most = self.bounds.connections
        if most and count > most and not guest.is_local and not self._has_room(guest, guests, now):
            self.turned_away += 1
            if guest.has_share:
                self.give_share_back(guest.peer_address)
            return 503, "The server has as many connections as it can hold. Try again shortly."
        if guest.has_share or self.take_share(guest.peer_address):
            return None
        held = self._connections[network_of(guest.peer_address)]
        return 429, f"Your address has {held} connections open, which is its share. Use those."

    def leave(self, guest: Guest) -> None:
        """A connection that was admitted is gone."""
        self.give_share_back(guest.peer_address)

    def take_share(self, address: str) -> bool:
        """Count a connection from `address`; False, and one more turned away, if it has its share already."""
        if self.is_shared(address):
            return True
        address = network_of(address)
        share, held = self.bounds.connections_per_address, self._connections.get(address, 0)
        if share and held >= share:
            self.turned_away += 1
            return False
        self._connections[address] = held + 1
        return True

    def give_share_back(self, address: str) -> None:
        """The connection is gone, or will not be."""
        _count_down(self._connections, network_of(address))

    def is_shared(self, address: str) -> bool:
        """Whether whoever comes from `address` speaks for others: this machine, or a declared proxy."""
        return is_shared(address) or (bool(self.proxies) and address in self.proxies)

    def _has_room(self, newcomer: Guest, guests: Iterable[Guest], now: float) -> bool:
        if not self._room and now >= self._full_until:
            self._make_room(guest for guest in guests if guest is not newcomer)
            self._full_until = now + TRY_AGAIN_S
        if not self._room:
            return False
        self._room -= 1
        return True

    def _make_room(self, guests: Iterable[Guest]) -> None:
        """Close some of the idle ones at once: looking at all of them for each newcomer would be a way to stop us."""
        idle = [(since, number, guest) for number, guest in enumerate(guests) if (since := guest.idle_time())]
        for _, _, guest in heapq.nsmallest(max(1, self.bounds.connections // 64), idle):
            guest.close_idle()
            self._room += 1

    # -- calls

    def begin_call(self, address: str) -> bool:
        """Count a call, unless the address has its share under way."""
        if self.is_shared(address):
            return True
        address = network_of(address)
        share, under_way = self.bounds.calls_per_address, self._calls.get(address, 0)
        if share and under_way >= share:
            return False
        self._calls[address] = under_way + 1
        return True

    def end_call(self, address: str) -> None:
        """A call that was counted is over."""
        _count_down(self._calls, network_of(address))

    # -- offences

    def forgives(self, address: str, now: float) -> bool:
        """Whether an address that has sent something worthless goes unpunished this time (a leaky bucket)."""
        per_s = SHARED_OFFENCES_PER_S if self.is_shared(address) else OFFENCES_PER_S
        address = network_of(address)
        offences = self._offences
        free_at = max(offences.get(address, 0.0), now)
        if (free_at - now) * per_s > FREE_OFFENCES - 0.5:
            return False
        offences[address] = free_at + 1 / per_s
        offences.move_to_end(address)
        if len(offences) > MOST_ADDRESSES:
            offences.popitem(last=False)
        return True


def network_of(address: str) -> str:
    """What bounds are kept for: an IPv4 address as it is, also inside an IPv6 one; of other IPv6 addresses the /64.

    ``192.0.2.7``, ``2001:db8:0:1::/64``; this machine's ``::1`` and the empty address stay as they are.
    """
    if ":" not in address or address == "::1":
        return address
    try:
        whole = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(whole) >> 64 << 64, 64)))


def is_shared(address: str) -> bool:
    """Whether nobody in particular comes from there: this machine, or the administration socket."""
    return not address or address.startswith(("127.", "::ffff:127.")) or address == "::1"


def _count_down(counts: dict[str, int], address: str) -> None:
    count = counts.get(address, 0)
    if count > 1:
        counts[address] = count - 1
    elif count:
        del counts[address]
