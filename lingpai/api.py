"""The ASGI side of a server: everything that is not a model call, and the document of it all."""

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from fastapi import Depends, FastAPI
from starlette.requests import Request

import lingpai
from lingpai import model_operations
from lingpai.answer_examples import add_answer_examples
from lingpai.auditing import Auditing
from lingpai.catalog import routes as catalog_routes
from lingpai.catalog import target_routes
from lingpai.catalog.service import Catalog
from lingpai.domains import Domains
from lingpai.events import routes as event_routes
from lingpai.exposure import declared_proxies
from lingpai.gateway import authenticate
from lingpai.gateway import routes as gateway_routes
from lingpai.gateway.authenticate import Account, has_doubled_credential, read_credential
from lingpai.gateway.compatible_keys import compatible_key_routes
from lingpai.gateway.gateway import Gateway
from lingpai.gateway.signed import is_signed
from lingpai.identity import routes as identity_routes
from lingpai.identity import secret_routes as key_secret_routes
from lingpai.identity.invitations.routes import invitation_routes
from lingpai.identity.member_routes import member_routes
from lingpai.identity.oauth.client_routes import client_routes
from lingpai.identity.oauth.live_token_routes import live_token_routes
from lingpai.identity.oauth.routes import oauth_routes
from lingpai.identity.passwords.routes import password_routes
from lingpai.identity.sessions.authentication import signed_in
from lingpai.identity.sessions.routes import session_routes
from lingpai.identity.signing.routes import client_signing_key_routes, explain_routes, signing_key_routes
from lingpai.jobs.runner import JobRunner
from lingpai.lane.doorman import network_of
from lingpai.metering import journal_routes, request_routes
from lingpai.metering import routes as metering_routes
from lingpai.metering.journal import Journal
from lingpai.metering.lag import JournalLag
from lingpai.principal import Principal
from lingpai.quotas import routes as quota_routes
from lingpai.quotas.description import describe
from lingpai.quotas.loader import MeterLoader
from lingpai.quotas.service import Limits
from lingpai.secrets import routes as secret_routes
from lingpai.settings import Settings
from lingpai.targets import Fleet
from lingpai.telemetry.metrics import CallMetrics, render
from lingpai.web import document_parts
from lingpai.web.auth import check_open_query
from lingpai.web.document import serve_document
from lingpai.web.errors import install_error_handlers
from lingpai.web.heads import HeadsFirst
from lingpai.web.health import health_routes

_ABOUT: Final = (
    "Model calls are as OpenAI's clients make them, at `/v1/…`; what manages keys, users, limits and usage is at `/api/v1/…`."
    " Send `Authorization: Bearer` with an API key (`sk-lp-…`, made with `lingpai keys create NAME`) or an access token"
    " (`at-lp-…`, from `/oauth/token`). Management needs a key with the scope that the operation names."
)


class Parts(Protocol):
    """What the routes need of a server (`lingpai.app.Application`)."""

    settings: Settings
    domains: Domains
    auditing: Auditing
    catalog: Catalog
    fleet: Fleet
    gateway: Gateway
    meters: MeterLoader[Any]
    metrics: CallMetrics
    journal: Journal
    jobs: JobRunner
    lag: JournalLag
    local_administrator: Principal

    def not_ready_because(self) -> str | None:
        """Why calls cannot be answered now; None when they can."""
        ...

    async def all_recorded(self) -> bool:
        """Wait, within bounds, until everything answered is in the database; False if it is not."""
        ...


class _Api(FastAPI):
    """Its document has examples of the answers, every way to authenticate, and the refusals of each operation."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            add_answer_examples(document)
            document_parts.complete(document)
        return super().openapi()


def build_api(parts: Parts) -> FastAPI:
    """The application with all routes of `parts`."""
    app = _Api(title="Lingpai", description=_ABOUT, version=lingpai.__version__, openapi_url=None)
    app.state.authenticate = _authenticator(parts)
    app.state.on_refusal = parts.auditing.refusals.note
    for router in _routers(parts):
        app.include_router(router, dependencies=[Depends(check_open_query)])
    serve_document(app)
    app.add_middleware(HeadsFirst)
    install_error_handlers(app)
    return app


def _routers(parts: Parts) -> list[Any]:
    domains = parts.domains
    limits = Limits(
        domains.subjects,
        domains.models,
        domains.book,
        parts.meters.load,
        generation=lambda: domains.keyring.generation,
    )
    targets = model_operations.TargetOperations(
        parts.fleet, domains.targets, parts.gateway, trail=domains.trail
    )
    return [
        # First: routes are tried in turn, and these are asked most often.
        oauth_routes(domains.authorization),
        health_routes(
            not_ready_because=parts.not_ready_because,
            metrics=lambda: render(parts.metrics),
            metrics_token=parts.settings.server.metrics_token,
            is_proxy=declared_proxies(parts.settings.server).__contains__,
        ),
        catalog_routes.client_routes(parts.catalog),
        gateway_routes.documented_calls(),
        gateway_routes.key_routes(describe, time.time),
        compatible_key_routes(describe, time.time),
        key_secret_routes.leak_routes(domains.leaks, parts.jobs, network_of=network_of),
        key_secret_routes.rotation_routes(domains.rotation),
        identity_routes.key_routes(domains.keys),
        signing_key_routes(domains.signing_keys),
        client_signing_key_routes(domains.client_signing_keys),
        explain_routes(domains.signing_keys, domains.signing_keyring),
        client_routes(domains.clients),
        live_token_routes(domains.live_tokens),
        identity_routes.user_routes(domains.users, domains.people),
        password_routes(domains.people),
        invitation_routes(domains.people),
        session_routes(domains.people),
        identity_routes.project_routes(domains.projects),
        member_routes(domains.members),
        quota_routes.limit_routes(limits),
        metering_routes.usage_routes(domains.usage_report, parts.all_recorded, domains.names),
        request_routes.request_routes(domains.requests, parts.all_recorded, domains.names, time.time),
        journal_routes.journal_routes(domains.database, parts.lag, lambda: parts.journal.healthy),
        event_routes.event_routes(domains.events, domains.webhooks, trail=domains.trail),
        parts.auditing.routes(),
        secret_routes.secret_routes(domains.secrets.service),
        catalog_routes.management_routes(parts.catalog, targets),
        target_routes.target_routes(targets),
    ]


def _authenticator(parts: Parts) -> Callable[[Request], Any]:
    async def authenticate_request(request: Request) -> Principal:
        """Who calls a route that is not a model call."""
        headers = request.headers.raw
        if has_doubled_credential(headers):
            raise authenticate.doubled_credential()
        if authenticate.has_credential_in_address(b"?" + request.scope["query_string"]):
            raise authenticate.credential_in_address()
        if is_signed(headers):
            return await parts.gateway.signed_calls.authenticate(request)
        token = read_credential(dict(headers))
        caller = await signed_in(request, parts.domains.people.sessions, has_credential=token is not None)
        if caller is not None:
            caller.account = caller.account or Account(caller, ())  # it manages; it does not call models
            return caller
        if token is None:
            if getattr(request.state, "is_local", False):
                request.state.caller = parts.local_administrator
                return parts.local_administrator
            raise authenticate.missing_key()
        address = request.client.host if request.client else ""
        gateway = parts.gateway
        principal = await gateway.authenticator.principal_for(token, gateway.look_ups, address)
        if principal is None:
            raise authenticate.unknown_key(token)
        request.state.caller = principal  # refusals from here on are recorded as theirs
        if principal.signature_required:
            raise authenticate.signature_required()
        authenticate.check_principal(principal, address, time.time())
        return principal

    return authenticate_request
