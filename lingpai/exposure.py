"""How callers reach the server: over TLS, through declared proxies, or in clear text where nobody else listens."""

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lingpai.jobs.runner import JobRunner
from lingpai.lane.arrivals import Arrivals
from lingpai.lane.forwarded import Proxies
from lingpai.lane.tls import ServerTls, TlsError, TlsFiles
from lingpai.process_setup import StartError
from lingpai.settings import ServerSettings
from lingpai.telemetry.metrics import CallMetrics

log = logging.getLogger("lingpai.app")

STRICT_TRANSPORT: Final = "max-age=63072000"
"""Two years, as Mozilla's profile has it: browsers do not go back to clear text (RFC 6797)."""

LOOK_S: Final = 2.0
"""How often the certificate's files are looked at."""


def tls_files(settings: ServerSettings) -> TlsFiles | None:
    """The files that TLS needs; None where there is no certificate. Raises StartError when one is missing."""
    certificate, key, authorities = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None:
        if authorities is not None or settings.tls_client_certificates != "off":
            raise StartError(
                "`server.tls_client_ca` and `server.tls_client_certificates` are for TLS: set `server.tls_cert` and `server.tls_key`."
            )
        return None
    if certificate is None or key is None:
        missing = "tls_cert" if certificate is None else "tls_key"
        raise StartError(f"`server.{missing}` is missing: TLS needs a certificate and its private key.")
    if (authorities is None) != (settings.tls_client_certificates == "off"):
        raise StartError(
            "Client certificates need both `server.tls_client_ca`, the authorities that they come from, and "
            "`server.tls_client_certificates`, which is `optional` or `required`."
        )
    return TlsFiles(
        Path(certificate).expanduser(),
        Path(key).expanduser(),
        None if authorities is None else Path(authorities).expanduser(),
        settings.tls_client_certificates,
    )


def server_tls(settings: ServerSettings) -> ServerTls | None:
    """TLS as the settings want it; None where they name no certificate. Raises StartError."""
    files = tls_files(settings)
    try:
        return None if files is None else ServerTls(files)
    except TlsError as error:
        raise StartError(str(error)) from error


def measure_tls(metrics: CallMetrics, tls: ServerTls, arrivals: Callable[[], Arrivals]) -> None:
    """The figures of /metrics about TLS."""
    metrics.gauge(
        "lingpai_tls_certificate_expiry_timestamp_seconds",
        "Until when the certificate in use is valid, in seconds since 1970.",
        lambda: tls.validity.ends_at,
    )
    metrics.gauge(
        "lingpai_tls_handshakes", "Connections whose TLS handshake is not done.", lambda: len(arrivals())
    )
    metrics.counter(
        "lingpai_tls_handshakes_failed",
        "TLS handshakes since the start that came to nothing.",
        lambda: arrivals().failed,
    )


def watch_tls(jobs: JobRunner, tls: ServerTls) -> None:
    """Look after the certificate's files from now on."""

    async def look() -> None:
        await asyncio.to_thread(tls.look, time.time())

    jobs.every(LOOK_S, "watch the TLS certificate", look, first_after=0.0)


def declared_proxies(settings: ServerSettings) -> Proxies:
    """The proxies whose word about callers is taken. The settings have been checked."""
    return Proxies(settings.trusted_proxies, header=settings.forwarded_header)


def check_exposure(listener: socket.socket, settings: ServerSettings) -> None:
    """Refuse to listen in clear text where keys and prompts could be read on their way. Raises StartError.

    RFC 6749, section 3.2 wants TLS for tokens; behind a proxy, the proxy speaks it.
    """
    address = ipaddress.ip_address(str(listener.getsockname()[0]).partition("%")[0])
    if address.is_loopback or settings.tls_cert is not None:
        return
    if settings.insecure:
        log.warning("listening on %s in clear text: keys and prompts can be read on their way", settings.host)
        return
    proxies = declared_proxies(settings).networks
    if any(not network.is_loopback for network in proxies):
        return
    here = " The declared proxies are all on this machine: for those, listen on 127.0.0.1." if proxies else ""
    raise StartError(
        f"Listening on {settings.host} in clear text would let everybody on the way read keys and prompts.{here} "
        "Either use TLS, `--tls-cert FILE --tls-key FILE`; or put a proxy that does in front, and name its address in "
        '`server.trusted_proxies` (such as ["10.0.0.2"]); or, in a network where nobody else listens, say `--insecure`. '
        "docs/guides/tls.md shows each."
    )
