"""Which addresses a model may be sent to fetch from: those of the public internet, and nothing else.

A worker that fetches what a caller names can reach what the caller cannot: this host, its network, the cloud's
metadata service. So every address that a name stands for is looked at, in every form that hides another one.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL: Final = 2000
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NEVER_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "168.63.129.16/32",  # Azure's own services for each machine, its metadata among them
        "192.0.0.0/24",  # IETF protocol assignments; some of them count as global
        "192.88.99.0/24",  # relays of 6to4, deprecated (RFC 7526)
    )
)
_NEVER_V6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "fec0::/10",  # site-local, deprecated (RFC 3879), and still routed inside of some networks
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""What `is_global` lets through, in some versions of Python or in all, although nobody on the internet is there."""
_HOST: Final = re.compile(
    r"(?=.{1,253}\.?\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{1,63}\.?", re.ASCII
)
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]*|\d+)\Z", re.ASCII)
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f\\]")
_ANY_PORT: Final = 9
_WELL_KNOWN_PORTS: Final = 1024
_WEB_PORTS: Final = (80, 443)


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An http(s) URL taken apart; `target` is its path and query as they go into the request line."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == (443 if self.scheme == "https" else 80)
        return host if is_default else f"{host}:{self.port}"


def read_url(url: str) -> WebAddress:
    """`url` taken apart. Raises ValueError, fit for the caller, for everything two readers could read differently.

    That is: other schemes, a user name, control characters and backslashes, numbers that are not a plain dotted
    address (``2130706433``, ``0x7f.1``, ``0177.0.0.1``), names that are no host name. Ports below 1024 belong to
    other services than the web's 80 and 443.
    """
    if len(url) > MAX_URL or _UNFIT.search(url):
        raise ValueError(f"expected an address of up to {MAX_URL} characters, without blanks and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower()
    except ValueError as error:
        raise ValueError("expected an http(s) address") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("expected an http(s) address")
    if "@" in parts.netloc:
        raise ValueError("an address must not carry a user name")
    _check_host(host, is_bracketed="[" in parts.netloc)
    port = port if port is not None else 443 if parts.scheme == "https" else 80
    if port < _WELL_KNOWN_PORTS and port not in _WEB_PORTS:
        raise ValueError(f"port {port} is not fetched from")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return WebAddress(parts.scheme, host, port, target)


def is_public(address: Address) -> bool:
    """Whether `address` is one of the public internet, and so are all that it carries inside."""
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    never = _NEVER_V4 if isinstance(address, ipaddress.IPv4Address) else _NEVER_V6
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback)
        and not any(address in network for network in never)
    )


def is_own_address(address: Address) -> bool:
    """Whether `address` is one of this host's, public ones included. Nothing is sent to find out.

    The system chooses from where to reach an address, and reaches its own from themselves.
    """
    inner = _embedded(address)
    if inner is not None:
        return is_own_address(inner)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _ANY_PORT))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False  # no way there: whoever connects next finds that out


def _embedded(address: Address) -> Address | None:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 one: where packets to it end up."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


def _check_host(host: str, *, is_bracketed: bool) -> None:
    if is_bracketed:
        if "%" in host:
            raise ValueError("an address must not name a network interface")
        ipaddress.IPv6Address(host)  # raises ValueError
        return
    if not host.isascii():
        raise ValueError("write the host's name in ASCII (xn--…)")
    if not _HOST.fullmatch(host):
        raise ValueError(f"`{host[:100]}` is not the name of a host")
    # The URL standard takes any name that ends in a number for an IPv4 address, in whatever notation.
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise ValueError(f"`{host[:100]}` is not a plain IPv4 address") from error
