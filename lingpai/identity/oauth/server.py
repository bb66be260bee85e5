"""The authorization server: every endpoint that speaks RFC 6749's dialect goes through here.

It reads the request, finds out which client asks, and lets the flow of the grant answer. Each flow is a file of its own.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from lingpai.errors import LingpaiError
from lingpai.identity.oauth import client_credentials, password
from lingpai.identity.oauth.client_authentication import Asking, ClientAuthenticator
from lingpai.identity.oauth.errors import NO_STORE, OAuthError, printable
from lingpai.identity.oauth.form import MAX_BODY_BYTES, check_address, read_form
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.introspection import Introspection
from lingpai.identity.oauth.jwt_tokens import Claims
from lingpai.identity.oauth.refresh_token import RefreshFlow
from lingpai.identity.oauth.refusals import report_refusal
from lingpai.identity.oauth.revocation import revoke
from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.identity.oauth.token_request import GrantFlow, Parts, TokenRequest
from lingpai.identity.oauth.tokens import KnownTokens
from lingpai.storage.sealing import SealError
from lingpai.telemetry.logs import current_request
from lingpai.web.transport import is_from_this_machine, transport_of

logger = logging.getLogger("lingpai.identity.oauth")


class Database(Protocol):
    """Where tokens are read (`storage.Database`)."""

    def read(self) -> Any: ...


@dataclass(slots=True, kw_only=True)
class AuthorizationServer:
    """The endpoints' work. `known_tokens` hears of every access token that is given out."""

    authenticator: ClientAuthenticator
    parts: Parts
    database: Database
    known_tokens: KnownTokens
    settings: OAuthSettings
    address: str = ""
    """Where the server listens, such as `http://127.0.0.1:8741`: what it is known by unless the settings say otherwise."""
    clock: Callable[[], float] = time.time
    _refresh: RefreshFlow = field(init=False)
    _introspection: Introspection = field(init=False)

    def __post_init__(self) -> None:
        self._refresh = RefreshFlow(self.settings.refresh_grace)
        self._introspection = Introspection(self.database)

    def issuer(self) -> str:
        """The address that the server is known by (RFC 8414 section 2), without a slash at its end."""
        return (self.settings.issuer or self.address).rstrip("/")

    def reconfigure(self, settings: OAuthSettings) -> None:
        """Go by other settings from the next request on."""
        self.settings = settings
        self.parts.mint.reconfigure(settings)
        self._refresh = RefreshFlow(settings.refresh_grace)

    async def prepare(self) -> None:
        """Publish the key that will sign JWTs, if the settings ask for them, before the first one is out."""
        if self.settings.has_jwts:
            await asyncio.to_thread(self.parts.jwts.make_key, self.settings.jwt_algorithm)

    async def key_set(self) -> dict[str, Any]:
        """The keys that verify JWTs from here (RFC 7517 section 5)."""
        return await asyncio.to_thread(self.parts.jwts.key_set)

    @property
    def grants(self) -> dict[str, GrantFlow]:
        """The flow of each grant that is open to anybody."""
        return {
            "client_credentials": client_credentials.grant,
            "password": password.grant,
            "refresh_token": self._refresh.grant,
        }

    async def token(self, request: Request) -> Response:
        """The token endpoint (RFC 6749 section 3.2)."""
        return await self._answered(request, self._token)

    async def revoke(self, request: Request) -> Response:
        """The revocation endpoint (RFC 7009)."""
        return await self._answered(request, self._revoke)

    async def introspect(self, request: Request) -> Response:
        """The introspection endpoint (RFC 7662)."""
        return await self._answered(request, self._introspect)

    async def _token(self, request: TokenRequest) -> dict[str, Any]:
        grant = request.form.get("grant_type")
        if grant is None:
            raise OAuthError("invalid_request", "The parameter grant_type is missing.")
        flow = self.grants.get(grant)
        if flow is None:
            raise OAuthError(
                "unsupported_grant_type",
                f"There is no grant {printable(grant)} here. There are: {', '.join(sorted(self.grants))}.",
            )
        if grant == "password":
            self._check_password_grant(request)
        # First: a refresh token shall not be used up for an access token that cannot be signed.
        signer = await self._signer() if self.settings.has_jwts else None
        granted = await flow(request, self.parts)
        if granted.claims is not None:
            signer = signer or await self._signer()  # the settings have changed meanwhile
            granted = replace(granted, access_token=await asyncio.to_thread(signer, granted.claims))
        self.known_tokens.add(granted.access_token_id)
        return granted.body()

    async def _signer(self) -> Callable[[Claims], str]:
        return await asyncio.to_thread(self.parts.jwts.signer, self.settings.jwt_algorithm)

    def _check_password_grant(self, request: TokenRequest) -> None:
        """Without a registered client it is open as the settings say; with one, if an administrator allows it.

        In either case passwords come as they do to the sign-in page, and never in clear text from elsewhere (section 10.3).
        """
        allowed = self.settings.password_grant
        if request.client is None and (allowed == "off" or (allowed == "loopback" and not request.is_local)):
            raise OAuthError(
                "unauthorized_client",
                "User name and password get no token here (see the setting oauth.password_grant). "
                "Use an API key, or a client with client_credentials.",
            )
        if request.transport == "clear":
            raise OAuthError(
                "invalid_request",
                "The password came in clear text: whoever listened has it now, so change it. Send passwords over TLS, or "
                "from a program on the server's own machine.",
            )

    async def _revoke(self, request: TokenRequest) -> None:
        await revoke(request, self.parts)

    async def _introspect(self, request: TokenRequest) -> dict[str, Any]:
        return await self._introspection.answer(request, self.parts, self.issuer())

    async def _answered(
        self, request: Request, handle: Callable[[TokenRequest], Awaitable[dict[str, Any] | None]]
    ) -> Response:
        client: Client | None = None
        try:
            asked = await self._read(request)
            client = asked.client
            body = await handle(asked)
        except OAuthError as error:
            report_refusal(request, error, client or error.client)
            return JSONResponse(error.body(), error.status, {**NO_STORE, **error.headers})
        except ClientDisconnect:  # in the middle of the body; nobody reads this
            return Response(status_code=400)
        except (LingpaiError, SQLAlchemyError, SealError):
            # Locked, away, full or broken, what was done cannot be recorded, or the root key does not open the key that
            # signs; no wish of a caller's brings it about.
            logger.exception("request %s failed: the database cannot be used", current_request.get())
            away = OAuthError(
                "temporarily_unavailable", "The database cannot be used now. Try again; tell the operator."
            )
            return JSONResponse(away.body(), away.status, {**NO_STORE, "retry-after": "5"})
        return Response(headers=NO_STORE) if body is None else JSONResponse(body, headers=NO_STORE)

    async def _read(self, request: Request) -> TokenRequest:
        check_address(request.scope["query_string"])
        form = read_form(await _body(request), request.headers.get("content-type", ""))
        address = request.client.host if request.client else ""
        asking = await self._asking(request, form, address)
        return TokenRequest(
            form=form,
            asking=asking,
            address=address,
            transport=transport_of(request),
            is_local=is_from_this_machine(request),
            user_agent=request.headers.get("user-agent", ""),
            now=self.clock(),
        )

    async def _asking(self, request: Request, form: Mapping[str, str], address: str) -> Asking:
        authorization = [value for name, value in request.scope["headers"] if name == b"authorization"]
        return await self.authenticator.authenticate(authorization, form, address)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise OAuthError("invalid_request", f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return body
