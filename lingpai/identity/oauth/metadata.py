"""What programs find out by themselves: RFC 8414 about the authorization server, RFC 9728 about what it protects."""

from typing import Any, Final
from urllib.parse import urlsplit

from lingpai.errors import LingpaiError
from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.identity.scopes import ALL_SCOPES

_AUTHENTICATION_METHODS: Final = ["client_secret_basic", "client_secret_post", "none"]
KEY_SET_PATH: Final = "/.well-known/jwks.json"
PROTECTED_PATHS: Final = ("", "v1", "api/v1")
"""Below these, seen from the issuer, lies what tokens open; the empty one is the whole server."""


def authorization_server(issuer: str, settings: OAuthSettings) -> dict[str, Any]:
    """RFC 8414 section 2: only what is really there. `issuer` is the server's address without a slash at its end."""
    grants = ["client_credentials", "refresh_token"]
    if settings.password_grant != "off":  # noqa: S105  a setting, not a password
        grants.insert(1, "password")
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth/token",
        "jwks_uri": f"{issuer}{KEY_SET_PATH}",
        "token_endpoint_auth_methods_supported": _AUTHENTICATION_METHODS,
        "grant_types_supported": grants,
        "response_types_supported": [],  # required by section 2; there is no authorization endpoint
        "scopes_supported": sorted(ALL_SCOPES),
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": _AUTHENTICATION_METHODS,
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": _AUTHENTICATION_METHODS[:2],
    }


def check_issuer_path(issuer: str, path: str) -> None:
    """Whether metadata about `issuer` belongs behind the well-known address at `path`: its own path (section 3.1).

    Raises LingpaiError `not_found` for any other one.
    """
    if urlsplit(issuer).path.strip("/") != path.strip("/"):
        raise LingpaiError("not_found", "No authorization server is known by that address.")


def protected_resource(issuer: str, path: str) -> dict[str, Any]:
    """RFC 9728 section 2. `path` is that of the resource, put behind the well-known address (section 3.1).

    `resource` is its whole address, because clients must compare it with the one that they use (section 3.3). Raises
    LingpaiError `not_found` for a path below which nothing is protected.
    """
    parts = urlsplit(issuer)
    base, path = parts.path.strip("/"), path.strip("/")
    if path not in {"/".join(filter(None, (base, below))) for below in PROTECTED_PATHS}:
        raise LingpaiError("not_found", "No protected resource lies at that address.")
    origin = f"{parts.scheme}://{parts.netloc}"
    return {
        "resource": f"{origin}/{path}" if path else origin,
        "authorization_servers": [issuer],
        "scopes_supported": sorted(ALL_SCOPES),
        "bearer_methods_supported": ["header"],
        "resource_name": "Lingpai",
    }
