"""The catalogue of errors a caller can see.

Every entry has a stable code, the HTTP status, OpenAI's error type, and what the reader of the documentation should
know. The message of one occurrence says what is wrong and what to do next; details for the operator go to the log.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One kind of refusal: the wire code, its status, OpenAI's type and a line for the documentation."""

    code: str
    status: int
    type: str
    meaning: str


def _entry(code: str, status: int, type_: str, meaning: str) -> tuple[str, ErrorCode]:
    return code, ErrorCode(code, status, type_, meaning)


_INVALID = "invalid_request_error"
_AUTHENTICATION = "authentication_error"
_PERMISSION = "permission_error"

CATALOGUE: Final[Mapping[str, ErrorCode]] = dict([
    _entry("invalid_json", 400, _INVALID, "The body is not JSON. The message says where reading stopped."),
    _entry("invalid_request", 400, _INVALID, "A field is missing or has a wrong type or value; `param` names it."),
    _entry("ambiguous_credentials", 400, _INVALID, "The request carries more than one credential. Send exactly one."),
    _entry("context_length_exceeded", 400, _INVALID, "The input is longer than the model accepts. Shorten it."),
    _entry("missing_api_key", 401, _AUTHENTICATION, "No credential was sent. Send `Authorization: Bearer sk-lp-…`."),
    _entry("invalid_api_key", 401, _AUTHENTICATION, "The key is mistyped, unknown or deleted."),
    _entry("key_disabled", 401, _AUTHENTICATION, "The key or its owner is disabled. An administrator can enable it."),
    _entry("key_expired", 401, _AUTHENTICATION, "The key's expiry date has passed. Make a new one."),
    _entry("token_expired", 401, _AUTHENTICATION, "The access token has expired. Get a new one from `/oauth/token`."),
    _entry("invalid_credentials", 401, _AUTHENTICATION, "The name or password is wrong, or this user cannot sign in; the answer does not tell which."),
    _entry("session_ended", 401, _AUTHENTICATION, "The session in the cookie has ended. Sign in again."),
    _entry("invalid_invitation", 401, _AUTHENTICATION, "The invitation is mistyped, expired, or was used already. Ask an administrator for a new one."),
    _entry("csrf_refused", 403, _PERMISSION, "A page of another origin seems to act in the user's name. Send `x-lingpai-csrf`, from our own pages."),
    _entry("tls_required", 403, _PERMISSION, "Passwords and sessions travel over TLS only, or on the server's own machine."),
    _entry("signature_required", 401, _AUTHENTICATION, "The key is for signed requests only. Sign as docs/guides/signing.md shows."),
    _entry("signature_invalid", 401, _AUTHENTICATION, "The request's signature is not accepted; `param` names the component or rule that failed."),
    _entry("ip_not_allowed", 403, _PERMISSION, "The key may not be used from this address."),
    _entry("insufficient_scope", 403, _PERMISSION, "The key, or its owner's role, may not do this; the message says what it lacks."),
    _entry("model_not_allowed", 403, _PERMISSION, "The key may not call this model. `GET /v1/models` lists what it may."),
    _entry("metrics_not_allowed", 403, _PERMISSION, "Metrics are for the loopback address or their own token only."),
    _entry("not_found", 404, _INVALID, "Nothing is at this address, or it belongs to somebody else."),
    _entry("model_not_found", 404, _INVALID, "No such model. The message names the nearest ones."),
    _entry("method_not_allowed", 405, _INVALID, "The address exists but not for this method; see `Allow`."),
    _entry("already_exists", 400, _INVALID, "Something with that name exists already."),
    _entry("unsupported_media_type", 415, _INVALID, "The body must be JSON: `Content-Type: application/json`."),
    _entry("request_too_large", 413, _INVALID, "The body is larger than `gateway.max_body_bytes`."),
    _entry("headers_too_large", 431, _INVALID, "The header block is over 64 kB or has more than 100 headers."),
    _entry("unsupported_task", 400, _INVALID, "The model's task does not fit this endpoint. The message names one that does."),
    _entry("rate_limit_exceeded", 429, "rate_limit_error", "Too fast. Retry after `Retry-After`; SDKs do so on their own."),
    _entry("insufficient_quota", 429, "insufficient_quota", "The quota of this window is spent; retrying before the reset is useless."),
    _entry("backend_rate_limited", 429, "rate_limit_error", "The engine or provider behind the model limits us. Retry later."),
    _entry("internal_error", 500, "server_error", "A fault of Lingpai. The log has the details under the request id."),
    _entry("model_error", 500, "server_error", "The model's own code raised an error; the operator's log has the traceback."),
    _entry("backend_error", 502, "server_error", "The engine or provider behind the model failed or answered garbage."),
    _entry("backend_rejected_credentials", 502, "server_error", "The provider refused the key that Lingpai holds for it. Tell the operator."),
    _entry("backend_unavailable", 503, "server_error", "The engine, provider or worker cannot be reached. Retry after `Retry-After`."),
    _entry("model_loading", 503, "server_error", "The model is still loading. Retry after `Retry-After`."),
    _entry("storage_unavailable", 503, "server_error", "Usage, or the audit trail, cannot be written (disk full?), so the call or change is refused."),
    _entry("server_busy", 503, "server_error", "The server has as many connections, or bytes of requests and answers, as it can hold. Retry after `Retry-After`."),
    _entry("shutting_down", 503, "server_error", "The server is stopping. Retry; another one will answer."),
    _entry("backend_timeout", 504, "server_error", "The engine or provider did not answer in time."),
])  # fmt: skip


@dataclass(slots=True, eq=False)
class LingpaiError(Exception):
    """A refusal the caller sees.

    `code` is a key of `CATALOGUE`; `message` says what is wrong and what to do next; `param` names the field;
    `headers` go out with the answer (``Retry-After`` and the like, names in lower case).
    """

    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return CATALOGUE[self.code].status

    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error object: all four keys, `param` nullable."""
        entry = CATALOGUE[self.code]
        return {
            "error": {"message": self.message, "type": entry.type, "param": self.param, "code": entry.code}
        }

    def __str__(self) -> str:
        return self.message


def did_you_mean(wrong: str, known: Iterable[str], *, most: int = 3) -> str:
    """A sentence naming the nearest of `known`, with a leading blank, or nothing when none is near.

    Names are also compared by what follows the last slash, so that ``shout`` finds ``acme/shout``.
    """
    names = list(known)
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.rpartition("/")[2].casefold(), name)
    for name in names:
        folded[name.casefold()] = name
    near = difflib.get_close_matches(wrong.casefold(), folded, n=most, cutoff=0.5)
    near += difflib.get_close_matches(wrong.rpartition("/")[2].casefold(), folded, n=most, cutoff=0.6)
    unique = list(dict.fromkeys(folded[name] for name in near))[:most]
    return f" Did you mean {' or '.join(f'`{name}`' for name in unique)}?" if unique else ""
