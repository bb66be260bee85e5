"""Is the server's address right, and can it be reached: name, connection, TLS."""

import socket
import ssl
import urllib.request
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from lingpai.cli.checks.step import Step, failed, ok, skipped, warning
from lingpai.client import CA_VARIABLE, ServerUnreachableError, is_local, trusting_context

TIMEOUT_S = 5.0


def check_address(server: str) -> Iterator[Step]:
    """The way to `server` (normalized) in the order of its layers; stops at the first that is broken."""
    parts = urlsplit(server)
    yield _address(server, parts)
    proxy = _proxy_for(parts)
    if proxy is not None and not is_local(server):
        yield skipped(
            "connection", f"calls go through the proxy {proxy}, which looks the name up and connects"
        )
        return
    for check in (_name, _connection, _tls):
        step = check(parts)
        if step is not None:
            yield step
            if step.state == "failed":
                return


def _address(server: str, parts: SplitResult) -> Step:
    if parts.scheme == "http" and not is_local(server):
        return warning(
            "address",
            f"{server} is not encrypted: everybody on the way can read the key",
            "Use https:// if you can.",
        )
    return ok("address", server)


def _name(parts: SplitResult) -> Step:
    host = str(parts.hostname)
    try:
        found = socket.getaddrinfo(host, _port(parts), type=socket.SOCK_STREAM)
    except OSError as exc:
        return failed(
            "name", f"{host}: {exc.strerror or exc}", "Check the host's spelling and this machine's DNS."
        )
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return ok("name", f"{host} is {', '.join(addresses)}")


def _connection(parts: SplitResult) -> Step:
    target = f"{parts.hostname} port {_port(parts)}"
    try:
        with socket.create_connection((str(parts.hostname), _port(parts)), TIMEOUT_S):
            return ok("connection", target)
    except ConnectionRefusedError:
        todo = "Start the server there with `lingpai serve`, or correct the port."
        return failed("connection", f"{target}: nothing listens there", todo)
    except OSError as exc:
        todo = "A firewall may be between; also check the host and the port."
        return failed("connection", f"{target}: {exc.strerror or exc}", todo)


def _tls(parts: SplitResult) -> Step | None:
    if parts.scheme != "https":
        return None
    host = str(parts.hostname)
    try:
        with (
            socket.create_connection((host, _port(parts)), TIMEOUT_S) as plain,
            trusting_context().wrap_socket(plain, server_hostname=host) as secure,
        ):
            return ok("TLS", f"{secure.version()}, the certificate is trusted")
    except ssl.SSLCertVerificationError as exc:
        todo = f"Correct the certificate, or name the authority that has signed it in {CA_VARIABLE}."
        return failed("TLS", f"the certificate is not trusted: {exc.verify_message}", todo)
    except ServerUnreachableError as exc:
        return failed("TLS", str(exc), f"Correct {CA_VARIABLE}.")
    except ssl.SSLError as exc:
        return failed(
            "TLS", f"no TLS there: {exc.reason or exc}", "Does the server speak http:// on this port?"
        )
    except OSError as exc:
        return failed(
            "TLS",
            f"the connection broke: {exc.strerror or exc}",
            "Does the server speak http:// on this port?",
        )


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _proxy_for(parts: SplitResult) -> str | None:
    if urllib.request.proxy_bypass(str(parts.hostname)):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    # A proxy's address may carry a password.
    return urlsplit(proxy).netloc.rpartition("@")[2] or proxy if proxy else None
