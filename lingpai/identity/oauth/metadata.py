"""What programs find out by themselves: RFC 8414 about the authorization server, RFC 9728 about what it protects."""

from typing import Any, Final

from lingpai.errors import LingpaiError
from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.identity.scopes import ALL_SCOPES

_AUTHENTICATION_METHODS: Final = ["client_secret_basic", "client_secret_post", "none"]
PROTECTED_PATHS: Final = ("", "v1", "api/v1")
"""Below these lies what tokens open; the empty one is the whole server."""


def authorization_server(issuer: str, settings: OAuthSettings) -> dict[str, Any]:
    """RFC 8414 section 2: only what is really there. `issuer` is the server's address without a slash at its end."""
    grants = ["client_credentials", "refresh_token"]
    if settings.password_grant != "off":  # noqa: S105  a setting, not a password
        grants.insert(1, "password")
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth/token",
        "token_endpoint_auth_methods_supported": _AUTHENTICATION_METHODS,
        "grant_types_supported": grants,
        "response_types_supported": [],  # required by section 2; there is no authorization endpoint
        "scopes_supported": sorted(ALL_SCOPES),
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": _AUTHENTICATION_METHODS,
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": _AUTHENTICATION_METHODS[:2],
    }


def protected_resource(issuer: str, path: str) -> dict[str, Any]:
    """RFC 9728 section 2: `resource` is the address that `path` stands for, as clients must compare it (section 3.3).

    Raises LingpaiError `not_found` for a path below which nothing is protected.
    """
    if path.strip("/") not in PROTECTED_PATHS:
        raise LingpaiError("not_found", "No protected resource lies at that address.")
    resource = f"{issuer}/{path.strip('/')}" if path.strip("/") else issuer
    return {
        "resource": resource,
        "authorization_servers": [issuer],
        "scopes_supported": sorted(ALL_SCOPES),
        "bearer_methods_supported": ["header"],
        "resource_name": "Lingpai",
    }
