"""A backend's error, whatever its shape, in ours: the four keys clients expect, and a status that tells them truly."""

import re
from typing import Any

import msgspec

from lingpai.errors import LingpaiError

_MOST_MESSAGE = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def translate(
    status: int, body: bytes, *, retry_after: bytes | None, backend: str
) -> tuple[int, bytes, dict[str, str]]:
    """(status, body, headers) to answer with, for a backend's answer with `status` outside 200–299.

    What the caller can mend (most 4xx) keeps status and message; what only the operator can mend becomes a 502, so
    that a caller never takes the backend's "wrong key" for their own. A 5xx keeps no text: it may tell internals.
    """
    headers = {"retry-after": retry_after.decode("latin-1")} if retry_after else {}
    error = _own_error(status, headers, backend)
    if error is not None:
        return error.status, msgspec.json.encode(error.body()), headers
    found = _find_error(body)
    message = str(found.get("message") or f"The backend refused the request with status {status}.")[
        :_MOST_MESSAGE
    ]
    answer = {
        "message": message,
        "type": _text(found.get("type")) or "invalid_request_error",
        "param": _text(found.get("param")),
        "code": _text(found.get("code")) or "invalid_request",
    }
    return (400 if status == 409 else status), msgspec.json.encode({"error": answer}), headers


def _own_error(status: int, headers: dict[str, str], backend: str) -> LingpaiError | None:
    if status in (401, 403, 407):
        return LingpaiError(
            "backend_rejected_credentials",
            f"Backend `{backend}` refused the credentials that the server holds for it. Tell the operator.",
        )
    if status == 429:
        headers.setdefault("retry-after", "5")
        return LingpaiError(
            "backend_rate_limited",
            f"Backend `{backend}` limits its rate. Try again in {headers['retry-after']} s.",
        )
    if status in (408, 504):
        return LingpaiError("backend_timeout", f"Backend `{backend}` did not answer in time. Try again.")
    if status == 503:
        headers.setdefault("retry-after", "5")
        return LingpaiError(
            "backend_unavailable", f"Backend `{backend}` is not available now. Try again shortly."
        )
    if status >= 500 or status < 400:
        return LingpaiError(
            "backend_error",
            f"Backend `{backend}` failed with status {status}. Try again; if it stays, tell the operator.",
        )
    return None


def _find_error(body: bytes) -> dict[str, Any]:
    """The error's fields in OpenAI's, FastAPI's, Ollama's and ModelScope's shapes; a plain text is the message."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"message": _plain_text(body)}
    if not isinstance(answer, dict):
        return {}
    for name in ("error", "errors"):
        if isinstance(answer.get(name), dict):
            return dict(answer[name])
        if isinstance(answer.get(name), str):
            return {"message": answer[name]}
    detail = answer.get("detail", answer.get("message"))
    return (
        {"message": detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()}
        if detail
        else {}
    )


def _plain_text(body: bytes) -> str:
    """The body when it is text for people; nothing when it is compressed, an image or a web page."""
    try:
        # The end may be cut inside of a character; anywhere else, bad UTF-8 means that it is no text.
        text = body[:_MOST_MESSAGE].decode("utf-8", "ignore").strip()
        body.decode()
    except UnicodeDecodeError:
        return ""
    is_for_people = not text.startswith("<") and not _CONTROL.search(text)
    return text if is_for_people else ""


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:200]
