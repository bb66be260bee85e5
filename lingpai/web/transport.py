"""How a request came: over TLS, from this machine, or in clear text from elsewhere.

Decided by the connection (or what a declared proxy says of it) and never by `request.url`, which the Host header writes.
"""

import ipaddress
from typing import Literal

from starlette.requests import Request

Transport = Literal["tls", "loopback", "clear"]

_FORWARDED = (
    "cf-connecting-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)
"""What proxies add. One that adds none of these and writes Host anew cannot be told from a program on this machine."""


def transport_of(request: Request) -> Transport:
    """`tls`; `loopback` in clear text between this machine and itself, or over the admin socket; else `clear`."""
    if request.scope["scheme"] == "https":
        return "tls"
    return "loopback" if is_from_this_machine(request) else "clear"


def is_from_this_machine(request: Request) -> bool:
    """Whether a program on this machine asks for itself, and asks for this machine.

    A proxy here comes from loopback too, for somebody else, and so does a page whose name was bent to 127.0.0.1 (DNS
    rebinding): the headers of the first and the Host of the second tell.
    """
    if getattr(request.state, "is_local", False):
        return True
    if any(name in request.headers for name in _FORWARDED):
        return False
    return is_loopback(host_of(request)) and request.client is not None and is_loopback(request.client.host)


def host_of(request: Request) -> str:
    """The name or address in the Host header, without port and brackets."""
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own address, or `localhost`."""
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
