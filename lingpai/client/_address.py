"""The server's address, as people paste it: with /v1, with a slash, or a whole endpoint."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from lingpai.client._errors import AddressError

DEFAULT_SERVER: Final = "http://127.0.0.1:8741"

# Where Lingpai's own paths begin; what stands before it is a prefix that a reverse proxy put there.
_OWN_PATH = re.compile(
    r"/(?:v1|api/v1|oauth|console|predict|healthz|readyz|metrics|docs|openapi\.json|\.well-known)(?:/|$)"
)
_LOCAL = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[?::1\]?)\Z", re.IGNORECASE)


def normalize_server(address: str) -> str:
    """The server's root, `scheme://host[:port][/prefix]`, from whatever was pasted; without a slash at the end.

    `https://h/v1`, `https://h/v1/chat/completions`, `https://h/console/` and `h:8741` all work. Without a scheme it
    is http for this machine and https for any other, so that a key does not travel in clear by mistake.
    Raises `AddressError` with a sentence when there is no host in it, or a user name or password.
    """
    text = address.strip().strip("\"'").rstrip("#")
    parts = _split(text if "://" in text else f"{_scheme_for(text)}://{text}", address)
    if parts.scheme not in {"http", "https"}:
        raise AddressError(f"The address {address!r} begins with {parts.scheme}://; use http:// or https://.")
    if "@" in parts.netloc:
        raise AddressError(
            "The address contains a user name or password; put the key into LINGPAI_API_KEY instead."
        )
    return f"{parts.scheme}://{parts.netloc}{_prefix(parts.path)}"


def is_local(server: str) -> bool:
    """Whether `server` (as `normalize_server` gives it) is on this machine."""
    return _LOCAL.match(urlsplit(server).hostname or "") is not None


def _split(text: str, address: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)  # .port checks the number
    except ValueError as exc:
        raise AddressError(f"The address {address!r} is not a URL: {exc}.") from exc
    if not has_host or re.search(r"\s", text):
        raise AddressError(
            f"The address {address!r} is not one like https://models.example or {DEFAULT_SERVER}."
        )
    return parts


def _scheme_for(text: str) -> str:
    host = re.split(r"[/?#]", text, maxsplit=1)[0]
    name = host if host.endswith("]") else re.sub(r":\d*\Z", "", host)
    return "http" if _LOCAL.match(name) else "https"


def _prefix(path: str) -> str:
    own = _OWN_PATH.search(path)
    return (path[: own.start()] if own else path).rstrip("/")
