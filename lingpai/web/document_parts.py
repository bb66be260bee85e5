"""What holds for many operations of the OpenAPI document at once: how to authenticate, and what is refused.

Added when the document is made, because FastAPI describes one scheme per dependency, and every route would have to repeat
the refusals.
"""

from typing import Any, Final

from lingpai.errors import CATALOGUE

Fields = dict[str, Any]

_MANAGEMENT: Final = "/api/v1/"
_KEY: Final = "apiKey"

_SCHEMES: Final[Fields] = {
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-lingpai",
        "description": "The cookie of a session (`POST /api/v1/sessions`), set over TLS. On this machine without TLS it is "
        "called `lingpai-session`.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "x-lingpai-csrf",
        "description": "The `csrf_token` of the session, with everything but GET and HEAD.",
    },
}
_TOKEN_ENDPOINT: Final = "/oauth/token"  # noqa: S105  an address
_ALIAS: Final = "/api/v1/token"

_REFUSALS: Final = {
    "Unauthorized": (
        "missing_api_key",
        "No credential was sent, or it is unknown, expired, revoked or disabled.",
        "No API key was sent. Send the header `Authorization: Bearer sk-lp-…`; make a key with `lingpai keys create NAME`.",
    ),
    "Forbidden": (
        "insufficient_scope",
        "The caller is known, and may not do this, or not from here.",
        "This needs the scope `keys:write`, and the key has `model:inference`. Ask an administrator for one.",
    ),
    "NotFound": (
        "not_found",
        "There is no such thing, or it is somebody else's.",
        "There is no key `laptop`. `GET /api/v1/keys` lists yours.",
    ),
    "TooManyRequests": (
        "rate_limit_exceeded",
        "Too often. `Retry-After` says when to come again.",
        "Too many unknown keys came from your address. Try again in 3 s.",
    ),
    "Unavailable": (
        "storage_unavailable",
        "Nothing was done: the database or the audit trail cannot be written, or the server is stopping.",
        "The database cannot be written now, so nothing was changed. Try again; tell the operator.",
    ),
}
"""By the name of the response: the code of an example, when it comes, and the example's message."""


def complete(document: Fields) -> None:
    """Describe all ways to authenticate and the refusals of each operation, in the document that FastAPI has made."""
    components = document["components"]
    schemes = components["securitySchemes"]
    scopes = sorted(_scopes(document))
    schemes.update(_SCHEMES)
    schemes["accessToken"] = _oauth2(scopes)
    components["responses"] = {name: _refusal(*refusal) for name, refusal in _REFUSALS.items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            required = next((each[_KEY] for each in operation.get("security", []) if _KEY in each), None)
            if required is not None:
                operation["security"] += _other_ways(path, method, required)
            for name in _refused(path, is_open=required is None):
                status = str(CATALOGUE[_REFUSALS[name][0]].status)
                operation["responses"].setdefault(status, {"$ref": f"#/components/responses/{name}"})


def _other_ways(path: str, method: str, scopes: list[str]) -> list[Fields]:
    """Beside an API key: an access token, and for management a session."""
    ways: list[Fields] = [{"accessToken": scopes}]
    if path.startswith(_MANAGEMENT):
        ways.append({"session": []} if method == "get" else {"session": [], "csrf": []})
    return ways


def _refused(path: str, *, is_open: bool) -> list[str]:
    """The refusals that an operation may answer. Those of OAuth and of metadata say themselves what they do."""
    if not is_open:
        return [name for name in _REFUSALS if name != "NotFound" or "{" in path]
    is_managed = path.startswith(_MANAGEMENT) and path != _ALIAS
    return ["TooManyRequests", "Unavailable"] if is_managed else []


def _refusal(code: str, when: str, message: str) -> Fields:
    entry = CATALOGUE[code]
    error = {"message": message, "type": entry.type, "param": None, "code": code}
    content = {"schema": {"$ref": "#/components/schemas/ErrorBody"}, "example": {"error": error}}
    return {"description": when, "content": {"application/json": content}}


def _oauth2(scopes: list[str]) -> Fields:
    said = dict.fromkeys(scopes, "")
    return {
        "type": "oauth2",
        "description": "An access token: `Authorization: Bearer at-lp-…`, in the place of an API key.",
        "flows": {
            "clientCredentials": {"tokenUrl": _TOKEN_ENDPOINT, "scopes": said},
            "password": {"tokenUrl": _TOKEN_ENDPOINT, "refreshUrl": _TOKEN_ENDPOINT, "scopes": said},
        },
    }


def _scopes(document: Fields) -> set[str]:
    return {
        scope
        for operations in document["paths"].values()
        for operation in operations.values()
        for way in operation.get("security", [])
        for scope in way.get(_KEY, [])
    }
