"""Who calls through a proxy: X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239).

Each proxy adds, on the right, the address it was called from; whatever stands further left came in with the request, and
anybody can write there. So the list is read from the right, and only as far as each writer is a declared proxy: the
caller is the first address that is none.

One of the two forms is read, the one that the proxies are said to write. Reading both would let callers choose: most
proxies write one and hand the other through as it came.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from lingpai.lane.calls import Headers

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]

MAX_HOPS: Final = 32
"""How many addresses are read, from the right. Chains are short; a head may hold thousands."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NODE: Final = re.compile(rb"([0-9.]{7,15})(?::[0-9]{1,5})?|\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")
_BARE_IPV6: Final = re.compile(rb"[0-9A-Fa-f:.]{2,45}")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7239, section 4. Quoted strings without escapes: an address has no use for them.
_PAIR: Final = re.compile(rb"(%b)=(?:(%b)|\"([^\"\\]*)\")" % (_TOKEN, _TOKEN))
_SCHEMES: Final = {b"http": "http", b"https": "https"}


class Caller(NamedTuple):
    """Who sent a request that a proxy has passed on."""

    address: str
    scheme: str
    """`http` or `https`, as the caller used it; empty when the proxy does not say."""


class Proxies:
    """The declared proxies: whose word about callers is taken."""

    def __init__(self, networks: Iterable[str] = (), *, header: ForwardedHeader = "x-forwarded-for") -> None:
        """`networks` are addresses and networks (CIDR). Raises ValueError for what is none, or names everybody."""
        self.networks: tuple[_Network, ...] = tuple(map(_network, networks))
        self.header = header.encode()

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __contains__(self, address: str) -> bool:
        """Whether `address` is that of a declared proxy; False for what is no address."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def caller(self, proxy: str, headers: Headers) -> Caller:
        """Who sent a request that came from `proxy`, which is a declared one.

        What cannot be understood ends the reading: the last address that a proxy vouched for counts, which is that of
        `proxy` itself if there is none.
        """
        values = [value for name, value in headers if name == self.header]
        hops = b",".join(values).rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
        if self.header == b"forwarded":
            return self._forwarded(proxy, hops)
        # Not one per hop: a proxy replaces it, or adds its own on the right.
        schemes = [value for name, value in headers if name == b"x-forwarded-proto"]
        scheme = schemes[-1].rpartition(b",")[2].strip().lower() if schemes else b""
        address = proxy
        for hop in reversed(hops):
            found = node_address(hop.strip(b" \t"))
            if not found:
                break
            address = found
            if address not in self:
                break
        return Caller(address, _SCHEMES.get(scheme, ""))

    def _forwarded(self, proxy: str, hops: list[bytes]) -> Caller:
        caller = Caller(proxy, "")
        for hop in reversed(hops):
            pairs = _pairs(hop)
            found = node_address(pairs.get(b"for", b""))
            if not found:
                break
            caller = Caller(found, _SCHEMES.get(pairs.get(b"proto", b"").lower(), ""))
            if found not in self:
                break
        return caller


def node_address(node: bytes) -> str:
    """The address in `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:1234`.

    In its usual form, an IPv4 address inside an IPv6 one as what it is. Empty for anything else, such as `unknown` and
    the names that RFC 7239, section 6.3 lets proxies invent.
    """
    match = _NODE.fullmatch(node)
    if match is not None:
        text, is_ipv6 = match[1] or match[2], match[1] is None
    elif _BARE_IPV6.fullmatch(node):
        text, is_ipv6 = node, True
    else:
        return ""
    address = _parsed(text.decode())
    # In brackets, or bare with colons, only an IPv6 address makes sense; one that was mapped has become IPv4.
    return "" if address is None or is_ipv6 != (b":" in text) else str(address)


def _pairs(element: bytes) -> dict[bytes, bytes]:
    """The parameters of one forwarded-element by lower-case name; none when it is not one (RFC 7239, section 4)."""
    pairs: dict[bytes, bytes] = {}
    for part in element.split(b";"):
        match = _PAIR.fullmatch(part.strip(b" \t"))
        if match is None or match[1].lower() in pairs:
            return {}
        pairs[match[1].lower()] = match[2] or match[3] or b""
    return pairs


@lru_cache(maxsize=4096)
def _parsed(address: str) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _network(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no address and no network such as 10.0.0.0/8 or 2001:db8::/32 ({error})."
        ) from error
    if network.prefixlen == 0:
        raise ValueError(f"{text!r} names everybody, so that every caller could choose an address.")
    return network
