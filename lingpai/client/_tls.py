"""Whom the client trusts: the system's authorities (or those of SSL_CERT_FILE), and those in LINGPAI_CA_FILE beside them."""

import os
import ssl
from typing import Final

import httpx2

from lingpai.client._errors import ServerUnreachableError

CA_VARIABLE: Final = "LINGPAI_CA_FILE"


def verification(server: str) -> ssl.SSLContext | bool:
    """What to give as `verify` for `server`. Raises `ServerUnreachableError` when the file cannot be used."""
    # A context takes longer to make than a call, and a server without TLS has no use for one.
    is_needed = server.startswith("https://") and os.environ.get(CA_VARIABLE)
    return trusting_context() if is_needed else True


def trusting_context() -> ssl.SSLContext:
    """A context that verifies certificates. Raises `ServerUnreachableError` as above."""
    context = httpx2.create_ssl_context()
    authorities = os.environ.get(CA_VARIABLE)
    if not authorities:
        return context
    try:
        context.load_verify_locations(authorities)
    except OSError as exc:  # ssl.SSLError is one
        raise ServerUnreachableError(
            f"{CA_VARIABLE} names {authorities}, which is no file with PEM certificates ({exc.strerror or exc})."
        ) from exc
    return context
