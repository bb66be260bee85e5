"""What can go wrong when talking to a Lingpai server.

The tree::

    ClientError                   everything below
    ├─ AddressError               the server's address is not one
    ├─ CredentialError            there is no key, or what there is cannot be one
    ├─ ServerUnreachableError     no connection, or it broke, or it took too long
    ├─ UnexpectedAnswerError      something answered, but not as Lingpai does; or a stream ended half-way
    └─ APIError                   the server said no: status, code, param, request_id
       ├─ InvalidRequestError     400 and every 4xx without a class of its own
       ├─ AuthenticationError     401  missing, wrong, expired or disabled key
       ├─ PermissionDeniedError   403  the key may not do this
       ├─ NotFoundError           404  no such model, key, user, address
       ├─ RateLimitError          429  `code` tells too fast from a spent quota; `retry_after` in seconds
       └─ ServerError             5xx

How to catch them::

    try:
        answer = lp.run("acme/shout", "hi")
    except RateLimitError as error:
        time.sleep(error.retry_after or 1)
    except ClientError as error:
        print(error)                     # says what is wrong and what to do next
"""

import ssl
from collections.abc import Mapping
from typing import Any

import httpx2

_WRONG_NAME = (62, 64)
_HAS_EXPIRED = 10
# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL


class ClientError(Exception):
    """Everything the client raises on purpose."""


class AddressError(ClientError):
    """The server's address cannot be understood."""


class CredentialError(ClientError):
    """No key was given where one is needed, or the one given cannot be sent."""


class ServerUnreachableError(ClientError):
    """There is no answer: name, connection, TLS, time-out, or the connection broke."""


class UnexpectedAnswerError(ClientError):
    """The answer is not one that Lingpai gives (a proxy's page, another program), or it ended too early."""


class APIError(ClientError):
    """The server answered with an error. `message` says what is wrong and what to do next."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequestError(APIError):
    """400, and every 4xx that has no class of its own."""


class AuthenticationError(APIError):
    """401: the key is missing, wrong, expired or disabled."""


class PermissionDeniedError(APIError):
    """403: the key is good but may not do this."""


class NotFoundError(APIError):
    """404: there is no such thing, or it belongs to somebody else."""


class RateLimitError(APIError):
    """429: `code` is `rate_limit_exceeded` (wait `retry_after` seconds) or `insufficient_quota` (wait for the reset)."""


class ServerError(APIError):
    """5xx: the server, or the model behind it, failed."""


_CLASSES: Mapping[int, type[APIError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}


def error_from_response(response: httpx2.Response) -> ClientError:
    """The exception for an answer with an error status; the body must have been read.

    An answer without OpenAI's error object is not Lingpai's and gives an `UnexpectedAnswerError`.
    """
    error = _error_object(response)
    if error is None and "speaks TLS" in response.text[:100]:
        return UnexpectedAnswerError(
            f"{response.request.url.host} speaks TLS there: use https://, not http://."
        )
    if error is None:
        return UnexpectedAnswerError(
            f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
            " in a form that is not Lingpai's. Is the address right?"
        )
    return _api_error(error, status=response.status_code, headers=response.headers)


def error_from_event(error: Any, *, headers: Mapping[str, str]) -> APIError:
    """The exception for an error object that arrives in the middle of a stream (the status was 200 by then)."""
    if not isinstance(error, dict):
        error = {"message": str(error)}
    return _api_error(error, status=500, headers=headers)


def error_from_transport(error: httpx2.HTTPError, *, server: str) -> ServerUnreachableError:
    """The exception for a call that got no answer from `server`."""
    if isinstance(error, httpx2.ConnectTimeout):
        return ServerUnreachableError(f"{server} did not accept the connection in time.")
    if isinstance(error, httpx2.TimeoutException):
        return ServerUnreachableError(f"{server} did not answer in time.")
    if (tls := _tls_error(error)) is not None:
        return ServerUnreachableError(_explain_tls(tls, server))
    if isinstance(error, httpx2.ConnectError):
        return ServerUnreachableError(f"Cannot connect to {server}: {error}.")
    return ServerUnreachableError(f"The connection to {server} broke: {error or type(error).__name__}.")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _explain_tls(error: ssl.SSLError, server: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"There is no TLS to be had at {server}: {error.reason or error}. Does it speak http:// on this port?"
    problem = f"The certificate of {server} is not trusted: {error.verify_message.rstrip('.')}."
    if error.verify_code in _WRONG_NAME:
        return f"{problem} Use the name that stands in the certificate."
    if error.verify_code == _HAS_EXPIRED:
        return f"{problem} Whoever runs the server has to renew it."
    return f"{problem} If an authority of your own has signed it, name that one's certificate in LINGPAI_CA_FILE."


def _error_object(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except ValueError:  # also a body that is not UTF-8
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) and isinstance(error.get("message"), str) else None


def _api_error(error: dict[str, Any], *, status: int, headers: Mapping[str, str]) -> APIError:
    kind = _CLASSES.get(status) or (ServerError if status >= 500 else InvalidRequestError)
    return kind(
        str(error.get("message") or "The server gave no reason."),
        status=status,
        code=error.get("code"),
        param=error.get("param"),
        request_id=headers.get("x-request-id"),
        retry_after=_retry_after(headers),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
    return None
