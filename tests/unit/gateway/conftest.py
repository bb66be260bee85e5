"""A gateway whose every seam is a fake, and a way to make a call on it."""

import asyncio
import json

import pytest
from gateway_fakes import FakeFront, FakeJournal, FakeKeys, FakeLimiter, FakeLink, model, principal

from lingpai.catalog.service import Catalog
from lingpai.gateway.authenticate import Account, Authenticator
from lingpai.gateway.gateway import Gateway
from lingpai.gateway.settings import GatewaySettings
from lingpai.jobs.runner import JobRunner
from lingpai.telemetry.metrics import CallMetrics

KEY = b"sk-lp-known"


class Stage:
    """A gateway, what stands around it, and calls on it."""

    def __init__(self, loop, **settings):
        self.keys = FakeKeys()
        self.journal = FakeJournal()
        self.limiter = FakeLimiter()
        self.link = FakeLink()
        self.is_loading = False
        self.gateway = Gateway(
            settings=GatewaySettings(**settings),
            loop=loop,
            catalog=Catalog(),
            authenticator=Authenticator(self.keys, None, jobs=JobRunner()),
            limiter=self.limiter,
            rate_limit_headers=lambda meters, now: b"x-ratelimit-limit-requests: 5\r\n",
            journal=self.journal,
            metrics=CallMetrics(),
            is_loading=lambda: self.is_loading,
        )
        self.allow(principal(), meters=("meter",))

    def allow(self, caller, *, meters=(), key=KEY):
        caller.account = Account(caller, meters)
        self.keys.known[key] = caller
        return caller

    def serve(self, *models):
        for each in models:
            self.gateway.catalog.replace(each.backend, models)
            self.gateway._links[each.backend.name] = self.link

    def open(self, path=b"/v1/chat/completions", *, front=None, key=KEY, headers=()):
        """The call of a request whose head has come."""
        front = front or FakeFront()
        fields = [(b"host", b"h"), *headers]
        if key is not None:
            fields.append((b"authorization", b"Bearer " + key))
        call = self.gateway.open(front, path, fields, dict(fields))
        if call is not None and not front.ended:
            front.call = call
        return call

    def call(self, path=b"/v1/chat/completions", body=None, **options):
        """The call of a whole request."""
        if body is None:
            body = {"model": "acme/chat", "messages": [{"role": "user", "content": "hi"}]}
        call = self.open(path, **options)
        call.body_part(body if isinstance(body, bytes) else json.dumps(body).encode())
        call.body_complete()
        return call

    @property
    def sent(self):
        """Path and parsed body of what went to the backend."""
        ((path, body),) = self.link.sent
        return path, json.loads(body)


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def make_stage(loop):
    stages = []

    def make(**settings):
        stages.append(Stage(loop, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        stage.gateway.authenticator.close()


@pytest.fixture
def stage(make_stage):
    return make_stage()


def answer(call, body, *, status=200, headers=()):
    """The backend's whole unary answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    call.response_started(status, {b"content-type": b"application/json", **dict(headers)})
    if data:
        call.response_data(data)
    call.upstream = None
    call.response_finished()


def error_of(front):
    return json.loads(front.body)["error"]


@pytest.fixture(name="answer")
def _answer():
    return answer


@pytest.fixture(name="error_of")
def _error_of():
    return error_of


@pytest.fixture
def front():
    return FakeFront()


@pytest.fixture
def served(stage):
    """A stage with one chat model on it."""
    stage.serve(model())
    return stage
