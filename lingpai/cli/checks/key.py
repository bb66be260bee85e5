"""Is the key in LINGPAI_API_KEY well-formed and accepted, and what does it open. The key itself is never shown."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lingpai.cli.checks.step import Step, failed, ok, skipped, warning
from lingpai.cli.times import shown_time
from lingpai.client import AuthenticationError, Client, ClientError, PermissionDeniedError
from lingpai.ids import CHECKSUM_LENGTH, ID_LENGTH, SECRET_LENGTH, credential_id

VARIABLE: Final = "LINGPAI_API_KEY"
SOON: Final = timedelta(days=7)

_KINDS: Final = {"sk-lp-": "an API key", "at-lp-": "an access token"}
_WRONG_KINDS: Final = {
    "rt-lp-": "a refresh token",
    "cs-lp-": "a client secret",
    "ss-lp-": "the session of a browser",
    "in-lp-": "an invitation",
    "sg-lp-": "a signing secret",
}
_TODO: Final = {
    "key_disabled": "An administrator can enable it: lingpai keys enable NAME.",
    "signature_required": "Programs have to sign with it: docs/guides/signing.md.",
}
_LENGTH: Final = 6 + ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH


def check_form(key: str | None) -> Step:
    """Whether `key` can be a key at all, found out without asking anybody."""
    if not key:
        todo = f"Put your key there: export {VARIABLE}=sk-lp-…"
        return failed("key", f"{VARIABLE} is {'empty' if key == '' else 'not set'}", todo)
    wrapping = _wrapping(key)
    if wrapping is not None:
        detail, todo = wrapping
        return failed("key", detail, todo)
    fault = None if is_jwt(key) else what_is_wrong(key)  # the signature is for the server to verify
    if fault is not None:
        return failed("key", fault, "Copy the key again, or make a new one: lingpai keys create NAME.")
    return ok("key", f"well-formed ({_KINDS.get(key[:6], 'an access token, a JWT')})")


def _wrapping(key: str) -> tuple[str, str] | None:
    """What was pasted along with the key, and what to do; None when nothing was."""
    bare = key.strip()
    if bare != key:
        what = "a line break" if "\n" in key or "\r" in key else "a blank"
        return (
            f"there is {what} before or after it",
            f"Remove it: export {VARIABLE}=$(printf %s \"${VARIABLE}\" | tr -d '[:space:]')",
        )
    if bare.lower().startswith(("bearer", "authorization")):
        return "it begins with the header's words", f"Put only what follows `Bearer ` into {VARIABLE}."
    if bare[0] in "\"'“”‘’`" or bare[-1] in "\"'“”‘’`":
        return "there are quotation marks around it", f"Remove them from the value of {VARIABLE}."
    return None


def what_is_wrong(key: str) -> str | None:
    """Why `key` is not a credential of ours, or None when its form and checksum are right."""
    if "…" in key or key.endswith("..."):
        return "it is the hint that lists show, not the key"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "it contains a blank or a character that no key has"
    if key[:6] in _WRONG_KINDS:
        return f"it is {_WRONG_KINDS[key[:6]]}, not a key"
    if key[:6] not in _KINDS:
        return "it does not begin with sk-lp-: is it the key of another service?"
    if len(key) != _LENGTH:
        return f"it has {len(key)} characters instead of {_LENGTH}: {'a part is missing' if len(key) < _LENGTH else 'something was added'}"
    return None if credential_id(key.encode()) else "its checksum is wrong: a character was mistyped"


def is_jwt(key: str) -> bool:
    """Whether `key` has the form of a JWT: three parts, of which the first is a JSON object in base64url."""
    return key.startswith("eyJ") and key.count(".") == 2


def check_acceptance(client: Client) -> Iterator[Step]:
    """Whether the server takes the key, when it ends, what is left, and which models it opens."""
    try:
        own = client.key()
    except AuthenticationError as exc:
        todo = _TODO.get(exc.code or "", "Is it a key of this server? Ask for a new one.")
        yield failed("accepted", f"the server refuses the key: {exc}", todo)
        return
    except PermissionDeniedError as exc:
        yield failed("accepted", str(exc), "Use it from an allowed address, or have the key's rules changed.")
        return
    except ClientError as exc:
        yield failed("accepted", str(exc), "Try again; if it stays, look at the server's log.")
        return
    yield ok("accepted", f"key {own.get('name')} of user {own.get('user')}")
    yield check_expiry(own.get("expires_at"), now=datetime.now(UTC))
    yield check_limits(own.get("limits") or [])
    yield check_models(client)


def check_expiry(expires_at: str | None, *, now: datetime) -> Step:
    """Whether the key ends within a week."""
    if not expires_at:
        return ok("expiry", "never")
    try:
        left = datetime.fromisoformat(expires_at) - now
    except (ValueError, TypeError):
        return skipped("expiry", f"{expires_at} is not a time")
    shown = str(shown_time(expires_at, now=now))
    if left < SOON:
        return warning("expiry", shown, "Make a new key before then: lingpai keys create NAME.")
    return ok("expiry", shown)


def check_limits(limits: list[dict[str, Any]]) -> Step:
    """Whether something is left of every limit."""
    for limit in limits:
        if limit.get("remaining") == 0:
            detail = f"{limit['limit']} of the {limit.get('subject', 'key')} is used up"
            return warning("limits", detail, f"It resets at {shown_time(limit.get('resets_at'))}.")
    parts = [f"{limit.get('remaining')} left of {limit['limit']}" for limit in limits]
    return ok("limits", "; ".join(parts) or "none")


def check_models(client: Client) -> Step:
    """Whether any model can be seen."""
    try:
        models = client.models()
    except ClientError as exc:
        return failed("models", str(exc), "Look at the server's log.")
    if not models:
        return warning(
            "models",
            "no model is visible to the key",
            "Add one (`lingpai models add`) or allow it on the key.",
        )
    names = ", ".join(model["id"] for model in models[:3])
    return ok("models", f"{len(models)} visible: {names}{', …' if len(models) > 3 else ''}")
