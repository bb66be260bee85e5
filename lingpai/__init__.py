"""Lingpai: put models behind API keys, exact limits and usage.

What programs use is here: the client, and what a file with models needs. Each name is loaded when it is first used,
so that `import lingpai` costs nothing and loads no server code.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lingpai.authoring import Batch, Context, InputError, Message, Usage, model
    from lingpai.client import (
        AddressError,
        APIError,
        AsyncClient,
        AuthenticationError,
        Client,
        ClientError,
        CredentialError,
        InvalidRequestError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        Result,
        ServerError,
        ServerUnreachableError,
        UnexpectedAnswerError,
    )
    from lingpai.media import Audio, File, Image

__version__ = "0.1.0"

__all__ = [
    "APIError",
    "AddressError",
    "AsyncClient",
    "Audio",
    "AuthenticationError",
    "Batch",
    "Client",
    "ClientError",
    "Context",
    "CredentialError",
    "File",
    "Image",
    "InputError",
    "InvalidRequestError",
    "Message",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "Result",
    "ServerError",
    "ServerUnreachableError",
    "UnexpectedAnswerError",
    "Usage",
    "model",
]

_AUTHORING = frozenset({"Batch", "Context", "InputError", "Message", "Usage", "model"})
_MEDIA = frozenset({"Audio", "File", "Image"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lingpai' has no attribute {name!r}")
    return getattr(import_module(_home_of(name)), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _home_of(name: str) -> str:
    if name in _MEDIA:
        return "lingpai.media"
    return "lingpai.authoring" if name in _AUTHORING else "lingpai.client"
