"""The client SDK: call models on a Lingpai server from a program.

::

    from lingpai import Client

    with Client("https://models.example") as lp:      # LINGPAI_API_KEY has the key
        print(lp.run("acme/shout", "hi", times=2).output)
        for piece in lp.chat("acme/parrot", "hello", stream=True):
            print(piece, end="")
"""

from lingpai.client._address import DEFAULT_SERVER, is_local, normalize_server
from lingpai.client._calls import Result
from lingpai.client._client import AsyncClient, Client
from lingpai.client._errors import (
    AddressError,
    APIError,
    AuthenticationError,
    ClientError,
    CredentialError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    ServerUnreachableError,
    UnexpectedAnswerError,
)
from lingpai.client._tls import CA_VARIABLE, trusting_context

__all__ = [
    "CA_VARIABLE",
    "DEFAULT_SERVER",
    "APIError",
    "AddressError",
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "ClientError",
    "CredentialError",
    "InvalidRequestError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "Result",
    "ServerError",
    "ServerUnreachableError",
    "UnexpectedAnswerError",
    "is_local",
    "normalize_server",
    "trusting_context",
]
