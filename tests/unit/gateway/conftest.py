"""A gateway whose every seam is a fake, and a way to make a call on it."""

import asyncio
import json
import time

import pytest
from gateway_fakes import (
    FakeBook,
    FakeCounter,
    FakeFront,
    FakeJobs,
    FakeJournal,
    FakeKeys,
    FakeLimiter,
    FakeLink,
    FakeMeter,
    model,
    principal,
)
from gateway_limits import VirtualClock, loader, real_limiter

from lingpai.catalog.service import Catalog
from lingpai.gateway.authenticate import Account, Authenticator
from lingpai.gateway.call_limits import CallLimits
from lingpai.gateway.gateway import Gateway
from lingpai.gateway.settings import GatewaySettings
from lingpai.gateway.signed import SignedCalls
from lingpai.identity.known_ids import LookUps
from lingpai.jobs.runner import JobRunner
from lingpai.telemetry.metrics import CallMetrics

KEY = b"sk-lp-known"


class Stage:
    """A gateway, what stands around it, and calls on it."""

    def __init__(self, loop, *, limiter=None, load_meters=None, **settings):
        self.keys = FakeKeys()
        self.journal = FakeJournal()
        self.limiter = FakeLimiter() if limiter is None else limiter
        self.book = FakeBook()
        self.let_go = []
        self.counter = FakeCounter()
        self.meter = FakeMeter()
        self.link = FakeLink()
        self.is_loading = False
        jobs = FakeJobs(loop)
        authenticator = Authenticator(self.keys, None, jobs=JobRunner())
        self.gateway = Gateway(
            settings=GatewaySettings(**settings),
            loop=loop,
            catalog=Catalog(),
            authenticator=authenticator,
            signed_calls=SignedCalls(None, authenticator, jobs=jobs, look_ups=LookUps()),
            limiter=self.limiter,
            rate_limit_headers=lambda meters, now: b"x-ratelimit-limit-requests: 5\r\n",
            journal=self.journal,
            metrics=CallMetrics(),
            is_loading=lambda: self.is_loading,
            call_limits=CallLimits(
                self.book,
                load_meters,
                let_go=self.let_go.append,
                generation=lambda: self.keys.generation,
                jobs=jobs,
            ),
            counter=self.counter,
            jobs=jobs,
        )
        self.allow(principal(), meters=(self.meter,))

    def allow(self, caller, *, meters=(), key=KEY):
        caller.account = Account(caller, meters)
        self.keys.known[key] = caller
        return caller

    def allow_local(self, caller):
        """Who calls through the admin socket."""
        caller.account = Account(caller, ())
        self.gateway.authenticator._local = self.keys.generation, caller
        return caller

    def serve(self, *models):
        for each in models:
            self.gateway.catalog.replace(each.backend, models)
            self.gateway._links[each.backend.name] = self.link

    def serve_only(self, *models):
        """The same, after all that was served until now is gone."""
        for each in self.gateway.catalog.models():
            self.gateway.catalog.remove(each.backend)
        self.serve(*models)

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
def limited(make_stage):
    """A stage with the real engine of limits, and one chat model on it."""
    limiter = real_limiter()
    stage = make_stage(limiter=limiter, load_meters=loader(limiter).load)
    stage.allow(principal())
    stage.serve(model())
    return stage


@pytest.fixture
def clock(limited, monkeypatch):
    """The time of `limited`, which stands still unless the test moves it; the loop's goes on."""
    clock = VirtualClock()
    monkeypatch.setattr(time, "time", clock)
    limited.limiter._clock = clock
    return clock


@pytest.fixture
def served(stage):
    """A stage with one chat model on it."""
    stage.serve(model())
    return stage
