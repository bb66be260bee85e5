"""A key's limits as OpenRouter and New API say them."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lingpai.gateway.compatible_keys import compatible_key_routes
from lingpai.prices import NANO
from lingpai.principal import Principal
from lingpai.quotas.amounts import Amounts
from lingpai.quotas.description import describe
from lingpai.quotas.limiter import MemoryLimiter, limit_set

NOW = 1_795_161_600.0  # 2026-11-20 08:00 in UTC


class NothingUsed:
    def charged_since(self, subject, unit, since):
        return 0

    def charges_since(self, subject, unit, since):
        return []


def ask(path, *limits, used=None, **fields):
    """What the address answers to a key with `limits`, of which `used` is used."""
    limiter = MemoryLimiter(NothingUsed(), lambda: NOW)
    subject = ("key", "k1")
    meters = limiter.attach(subject, limits, limiter.read_history(subject, limits))
    if used is not None:
        limiter.reserve(limit_set(meters), NOW, used, used)
    caller = Principal("u1", "alice", "member", **{"key_id": "k1", "key_name": "ci", **fields})
    caller.account = SimpleNamespace(meters=meters)
    app = FastAPI()
    app.include_router(compatible_key_routes(describe, lambda: NOW))

    async def authenticate(request):
        return caller

    app.state.authenticate = authenticate
    answer = TestClient(app).get(path)
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()["data"]


def test_openrouter_gets_credits_where_there_is_a_limit_in_usd():
    data = ask(
        "/api/v1/key", "2000/day", "5 CNY/day", "5 USD/month", "9 USD/month@Asia/Shanghai", "8 concurrent",
        used=Amounts(usd=NANO // 2), expires_at=NOW + 3600,
    )  # fmt: skip

    assert data == {
        "label": "ci",
        "limit": 5.0,
        "limit_remaining": 4.5,
        "limit_reset": "monthly",
        "usage": 0.5,
        "expires_at": "2026-11-20T09:00:00Z",
        "is_free_tier": False,
    }


@pytest.mark.parametrize(("client", "label"), [("nightly", "nightly"), (None, "alice")])
def test_access_token_is_called_after_its_client_or_else_its_user(client, label):
    """Both kinds of programs want a text there."""
    token = {"key_id": None, "key_name": None, "token_id": "t1", "client_name": client}

    assert ask("/api/v1/key", "5/day", **token)["label"] == label
    assert ask("/api/usage/token", "5/day", **token)["name"] == label


@pytest.mark.parametrize(
    ("limits", "limit", "reset"),
    [
        (("2000/day@Asia/Shanghai wait 5s", "100000 tokens/day"), 2000, "daily"),
        (("10000/month", "7000/week", "9000/week@Asia/Shanghai"), 7000, "weekly"),
        (("10/1s", "5 CNY/day"), 10, None),
        (("100000 tokens/day",), 100_000, "daily"),
        (("8 concurrent", "5 CNY/day"), None, None),
        ((), None, None),
    ],
)
def test_openrouter_gets_requests_else_tokens_else_no_limit(limits, limit, reset):
    data = ask("/api/v1/key", *limits, used=Amounts(requests=4 if len(limits) == 3 else 0, concurrent=0))

    assert (data["limit"], data["limit_reset"]) == (limit, reset)


def test_new_api_gets_the_tightest_limit_in_requests():
    data = ask("/api/usage/token", "2000/day", "10/hour", "5 USD/month", used=Amounts(), models=("acme/*",))

    assert data == {
        "object": "token_usage",
        "name": "ci",
        "total_granted": 10,
        "total_used": 1,
        "total_available": 9,
        "unlimited_quota": False,
        "model_limits": {"acme/*": True},
        "model_limits_enabled": True,
        "expires_at": 0,
    }


@pytest.mark.parametrize("limit", ["5 USD/month", "5 CNY/month"])
def test_new_api_gets_its_own_units_for_money(limit):
    data = ask("/api/usage/token", limit, used=Amounts(usd=NANO, cny=NANO))

    assert (data["total_granted"], data["total_used"]) == (2_500_000, 500_000)


def test_new_api_without_a_limit_is_unlimited():
    data = ask("/api/usage/token", "8 concurrent")

    assert (data["unlimited_quota"], data["total_granted"]) == (True, 0)
