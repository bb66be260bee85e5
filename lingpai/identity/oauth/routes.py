"""The addresses of the authorization server, and what the OpenAPI document says of them."""

from typing import Any, Final

from fastapi import APIRouter, Security
from fastapi.openapi.models import HTTPBase as HTTPBaseModel
from fastapi.security.base import SecurityBase
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lingpai.identity.oauth.metadata import (
    KEY_SET_PATH,
    authorization_server,
    check_issuer_path,
    protected_resource,
)
from lingpai.identity.oauth.server import AuthorizationServer
from lingpai.web.auth import open_route
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.query import any_query

_WHY_OPEN: Final = "clients authenticate in the request itself (RFC 6749 section 2.3)"
_METADATA: Final = "metadata is public (RFC 8414 section 3, RFC 9728 section 3)"
# Keys are published an hour before they sign: nobody may keep this for longer than that.
_CACHED: Final = {"cache-control": "public, max-age=300"}

_STRING: Final = {"type": "string"}
_CLIENT: Final = {
    "client_id": {"type": "string", "description": "Where HTTP Basic does not carry the client."},
    "client_secret": {"type": "string", "format": "password"},
}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _STRING, "error_description": _STRING},
    "examples": [{"error": "invalid_grant", "error_description": "The refresh token is unknown."}],
}
_TOKENS: Final = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in", "scope"],
    "properties": {
        "access_token": _STRING,
        "token_type": {"type": "string", "const": "Bearer"},
        "expires_in": {"type": "integer", "description": "Seconds."},
        "scope": {"type": "string", "description": "Scopes with blanks between them."},
        "refresh_token": _STRING,
    },
}
_INTROSPECTION: Final = {
    "type": "object",
    "required": ["active"],
    "properties": {
        "active": {"type": "boolean"},
        "scope": _STRING,
        "client_id": _STRING,
        "username": _STRING,
        "token_type": _STRING,
        "exp": {"type": "integer"},
        "iat": {"type": "integer"},
        "sub": _STRING,
        "iss": _STRING,
        "jti": _STRING,
    },
}
_GRANT_FIELDS: Final = {
    "grant_type": {"type": "string", "examples": ["client_credentials"]},
    "scope": {"type": "string", "examples": ["model:inference"]},
    "username": _STRING,
    "password": {"type": "string", "format": "password"},
    "refresh_token": _STRING,
    **_CLIENT,
}
_GRANT: Final = {"grant_type": "client_credentials", "scope": "model:inference"}
_TOKEN: Final = {"token": "at-lp-…"}
_TOKEN_FIELDS: Final = {"token": _STRING, "token_type_hint": _STRING, **_CLIENT}


class ClientScheme(SecurityBase):
    """Says in the OpenAPI document how clients authenticate; who they are, the endpoints find out themselves."""

    scheme_name = "client"
    model = HTTPBaseModel(
        scheme="basic",
        description="`client_id` and `client_secret` by HTTP Basic, or as fields of the form (RFC 6749 section 2.3.1).",
    )

    async def __call__(self, request: Request) -> None:
        """Do nothing."""


def oauth_routes(server: AuthorizationServer) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["oauth"])

    @router.post("/oauth/token", **_described(_GRANT_FIELDS, ["grant_type"], _TOKENS, _GRANT))
    @router.post("/api/v1/token", **_described(_GRANT_FIELDS, ["grant_type"], _TOKENS, _GRANT))
    @any_query("unknown parameters of a token request are ignored (RFC 6749 section 3.2)")
    @open_route(_WHY_OPEN)
    async def token(request: Request) -> Response:
        """Get tokens: `client_credentials`, `refresh_token` or `password` (RFC 6749)."""
        return await server.token(request)

    @router.post("/oauth/revoke", **_described(_TOKEN_FIELDS, ["token"], None, _TOKEN))
    @open_route(_WHY_OPEN)
    async def revoke(request: Request) -> Response:
        """Revoke a token of one's own; with a refresh token all tokens of that sign-in (RFC 7009)."""
        return await server.revoke(request)

    @router.post("/oauth/introspect", **_described(_TOKEN_FIELDS, ["token"], _INTROSPECTION, _TOKEN))
    @open_route(_WHY_OPEN)
    async def introspect(request: Request) -> Response:
        """Ask whether a token is good, and for what (RFC 7662)."""
        return await server.introspect(request)

    @router.get("/.well-known/oauth-authorization-server")
    @open_route(_METADATA)
    async def authorization_server_metadata() -> JSONResponse:
        """What this authorization server offers (RFC 8414)."""
        return JSONResponse(authorization_server(server.issuer(), server.settings), headers=_CACHED)

    @router.get("/.well-known/oauth-authorization-server/{path:path}", responses=ERROR_RESPONSES)
    @open_route(_METADATA)
    async def authorization_server_metadata_below(path: str) -> JSONResponse:
        """The same for an issuer that has a path, which is put behind the well-known one (RFC 8414 section 3.1)."""
        check_issuer_path(server.issuer(), path)
        return JSONResponse(authorization_server(server.issuer(), server.settings), headers=_CACHED)

    @router.get("/.well-known/oauth-protected-resource")
    @open_route(_METADATA)
    async def protected_resource_metadata() -> JSONResponse:
        """Whose tokens open this server (RFC 9728)."""
        return JSONResponse(protected_resource(server.issuer(), ""), headers=_CACHED)

    @router.get("/.well-known/oauth-protected-resource/{path:path}", responses=ERROR_RESPONSES)
    @open_route(_METADATA)
    async def protected_resource_metadata_below(path: str) -> JSONResponse:
        """Whose tokens open what lies below a path (RFC 9728 section 3.1)."""
        return JSONResponse(protected_resource(server.issuer(), path), headers=_CACHED)

    @router.get(KEY_SET_PATH)
    @open_route("keys to verify with are public (RFC 7517 section 5)")
    async def key_set() -> JSONResponse:
        """The public keys of JWT access tokens (RFC 7517): the one that signs, the next one, and those before."""
        return JSONResponse(await server.key_set(), headers=_CACHED)

    return router


def _described(
    fields: dict[str, Any], required: list[str], answer: dict[str, Any] | None, example: dict[str, str]
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": required,
        "properties": fields,
        "additionalProperties": _STRING,  # ignored (RFC 6749 section 3.2)
    }
    refusals = {
        status: {"description": description, "content": {"application/json": {"schema": _ERROR}}}
        for status, description in (
            ("400", "Refused; `error` says why (RFC 6749 section 5.2)."),
            ("401", "The client is unknown, or its secret is wrong."),
            ("429", "Too many failures; `Retry-After` says when to come again."),
        )
    }
    success: dict[str, Any] = {"description": "Done."}
    if answer is not None:
        success |= {"content": {"application/json": {"schema": answer}}}
    return {
        "response_class": Response,
        "dependencies": [Security(ClientScheme())],
        "responses": {200: success, **refusals},
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {"application/x-www-form-urlencoded": {"schema": schema, "example": example}},
            },
            "security": [{}],  # beside the client: the built-in public one has nothing to show
        },
    }
