"""Cookies of sessions and devices, and the defence against pages of others that act in the user's name.

Over TLS the cookie is `__Host-lingpai`: Secure, HttpOnly, SameSite=Strict, for this host and all of its paths (OWASP ASVS
5.0, 3.3.1 to 3.3.4). In clear text there is one only between this machine and itself, `lingpai-session`, because browsers
take no Secure cookie there; from elsewhere signing in is refused.

A cookie comes along with every request that any page makes the browser send. So it counts only together with what such a
page cannot have (3.5.1, 3.5.3): for whatever changes something, the header `x-lingpai-csrf` with a value bound to the
session, and the browser's own word (`Sec-Fetch-Site`, else `Origin`) that the page is ours.
"""

import hmac
from base64 import urlsafe_b64encode
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from lingpai.errors import LingpaiError
from lingpai.web.transport import transport_of

CSRF_HEADER: Final = "x-lingpai-csrf"
SESSION_COOKIES: Final = {"tls": "__Host-lingpai", "loopback": "lingpai-session"}
DEVICE_COOKIES: Final = {"tls": "__Host-lingpai-device", "loopback": "lingpai-device"}
DEVICE_LIFETIME_S: Final = 400 * 86_400
"""As long as browsers keep a cookie at the most (RFC 6265bis, section 5.5)."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, section 9.2.1
_LONGEST: Final = 200


def session_cookie(request: Request) -> bytes | None:
    """The secret in the session cookie, or None when there is none that counts on this connection.

    Raises LingpaiError (ambiguous_credentials) for two of them: a neighbouring site may have set one.
    """
    found = _cookies(request, SESSION_COOKIES.get(transport_of(request)))
    if len(found) > 1:
        raise LingpaiError(
            "ambiguous_credentials",
            "The session cookie was sent twice. Delete this site's cookies and sign in.",
        )
    return found[0].encode() if found else None


def device_cookie(request: Request) -> str | None:
    """The device cookie, or None; nothing depends on it but how long a wrong password makes one wait."""
    found = _cookies(request, DEVICE_COOKIES.get(transport_of(request)))
    return found[0] if len(found) == 1 and len(found[0]) <= _LONGEST else None


def check_may_sign_in(request: Request) -> None:
    """Refuse passwords in clear text from elsewhere (`tls_required`), and sign-ins that pages of others start."""
    if transport_of(request) == "clear":
        raise LingpaiError(
            "tls_required",
            "Signing in needs TLS, or a browser on the server's own machine. Serve with `--tls-cert` and `--tls-key`, or"
            " declare the proxy in front that has TLS.",
        )
    if not _is_same_origin(request, needs_proof=False):
        raise _csrf_refused("A page of another origin cannot sign anybody in.")


def check_page(request: Request, token: bytes) -> None:
    """Refuse a request by cookie that a page of ours has not made: `csrf_refused`."""
    is_safe = request.method in _SAFE_METHODS
    if not _is_same_origin(request, needs_proof=not is_safe):
        raise _csrf_refused("The request does not come from a page of this server.")
    sent = request.headers.get(CSRF_HEADER, "")
    if not is_safe and not hmac.compare_digest(sent.encode(), csrf_token(token).encode()):
        raise _csrf_refused(
            f"Send the header `{CSRF_HEADER}` with the `csrf_token` of this session, which `GET /api/v1/sessions/current` shows."
        )


def csrf_token(token: bytes) -> str:
    """What a page sends in `x-lingpai-csrf`: bound to the session, whose secret is the key, and as long-lived as it."""
    return urlsafe_b64encode(hmac.digest(token, b"lingpai csrf", "sha256")).decode().rstrip("=")


def set_cookies(
    request: Request, response: Response, *, token: str, device: str | None, max_age: int
) -> None:
    """Give the browser its session, and the mark that `device` is: a new one, or None to keep what it has."""
    _set(request, response, SESSION_COOKIES, token, max_age)
    if device is not None:
        _set(request, response, DEVICE_COOKIES, device, DEVICE_LIFETIME_S)


def clear_session_cookie(request: Request, response: Response) -> None:
    """Take the session from the browser; the mark of the device stays."""
    _set(request, response, SESSION_COOKIES, "", 0)


def cookie_that_clears(request: Request) -> dict[str, str]:
    """The header that takes the session from the browser, for an answer that is an error."""
    response = Response()
    clear_session_cookie(request, response)
    return {"set-cookie": response.headers["set-cookie"]}


def _set(request: Request, response: Response, names: dict[str, str], value: str, max_age: int) -> None:
    transport = transport_of(request)
    response.set_cookie(
        names[transport],
        value,
        max_age=max_age,
        path="/",
        secure=transport == "tls",
        httponly=True,
        samesite="strict",
    )


def _cookies(request: Request, name: str | None) -> list[str]:
    pairs = (pair.partition("=") for each in request.headers.getlist("cookie") for pair in each.split(";"))
    return [found for key, _, value in pairs if key.strip() == name and (found := value.strip())]


def _is_same_origin(request: Request, *, needs_proof: bool) -> bool:
    """Whether the browser says that a page of ours asks. Programs say nothing, which is enough without `needs_proof`."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin" or (site == "none" and not needs_proof)
    origin = request.headers.get("origin")
    if origin is not None:
        return origin == f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    return not needs_proof


def _csrf_refused(message: str) -> LingpaiError:
    return LingpaiError("csrf_refused", message)
