"""Limits on every unit, set on everybody who can have one: what a developer with the stock SDK and an operator see."""

import datetime
import json
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import openai
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.e2e.conftest import MakeServer
from tests.e2e.limit_world import PROMPT, Caller, World
from tests.fakes.openai_engine import EngineCall, FakeEngine, completion

pytestmark = pytest.mark.usefixtures("no_window_ends")

SUBJECTS = ("key", "user", "project", "model", "user_model", "each user")
LIMITS = {
    "requests": "2/day@Asia/Kathmandu",
    "tokens": "60 tokens/week@America/St_Johns",
    "USD": "0.0003 USD/month@Pacific/Chatham",
    "CNY": "0.0003 CNY/hour@Asia/Shanghai",
}
TOKENS = 9  # of each call: the engine reports 5 of the prompt and 4 of the answer
PER_CALL = {"requests": 1, "tokens": TOKENS, "USD": Decimal("0.0000525"), "CNY": Decimal("0.000043")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.start(tmp_path_factory.mktemp("units"))
    yield world
    world.stop()


def calls_until_refused(caller: Caller) -> tuple[int, openai.RateLimitError]:
    for answered in range(50):
        refusal = caller.refusal()
        if refusal is not None:
            return answered, refusal
    raise AssertionError("never refused")


def row_of(caller: Caller, limit: str) -> dict[str, Any]:
    (row,) = (row for row in caller.explain()["data"] if row["limit"] == limit)
    return dict(row)


def amount_of(limit: str) -> Decimal:
    return Decimal(re.split(r"[ /]", limit)[0])


# -- each unit on each subject


@pytest.mark.parametrize("unit", LIMITS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_limit_on_anybody_counts_exactly_and_says_so(world: World, subject: str, unit: str):
    """The stock SDK raises RateLimitError with the whole story, and does not retry what is spent."""
    limit = LIMITS[unit]
    caller = world.caller(of="cny" if unit == "CNY" else "usd")
    caller.limit(subject, [limit])

    answered, refusal = calls_until_refused(caller)

    row = row_of(caller, limit)
    used = Decimal(str(row["used"]))
    assert answered >= 2
    assert used == answered * PER_CALL[unit] <= amount_of(limit)
    assert used + Decimal(str(row["remaining"])) == amount_of(limit)
    assert row["subject"] == ("user_model" if subject == "each user" else subject)
    check_refusal(refusal, caller, subject, limit)


def check_refusal(refusal: openai.RateLimitError, caller: Caller, subject: str, limit: str) -> None:
    body, headers = refusal.body, refusal.response.headers
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    assert body["code"] == refusal.code == "insufficient_quota"
    name = getattr(caller, subject, "")
    label = f"{subject} `{name}`" if name else f"user `{caller.user}` on model `{caller.model}`"
    assert f"for {label}" in body["message"]
    zone = limit.partition("@")[2]
    assert zone in body["message"]
    assert int(headers["retry-after"]) * 1000 >= int(headers["retry-after-ms"]) > 0
    assert headers["x-should-retry"] == "false"
    assert subject.replace("_", "-").replace("each user", "user-model") in headers["ratelimit-policy"]


HELD = {  # who else is held by a spent limit: another key of the user, another user on the model, the caller elsewhere
    "key": (False, False, True),
    "user": (True, False, True),
    "project": (True, False, True),
    "model": (True, True, False),
    "user_model": (True, False, False),
    "each user": (True, False, False),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_spent_limit_holds_those_it_is_for_and_nobody_else(world: World, subject: str):
    caller, other_user = world.caller(), world.caller()
    other_key = caller.with_key(f"{caller.key}-b")
    caller.limit(subject, ["2/day"])
    calls_until_refused(caller)

    held = (
        other_key.refusal() is not None,
        other_user.refusal(model=caller.model) is not None,
        caller.refusal(model=caller.spare) is not None,
    )

    assert held == HELD[subject]


def test_a_project_s_limit_spares_the_user_s_other_projects(world: World):
    caller = world.caller()
    elsewhere = caller.with_key(f"{caller.key}-own", project="")  # the personal one
    caller.limit("project", ["1/day"])
    calls_until_refused(caller)

    assert elsewhere.refusal() is None


@pytest.mark.parametrize("subject", SUBJECTS)
def test_owasp_api4_concurrent_calls_of_anybody_are_bounded(world: World, subject: str):
    """While one is under way the next is refused, to be tried again in a second; then there is room again."""
    caller = world.caller()
    caller.limit(subject, ["1 concurrent"])

    with world.held(caller):
        held = row_of(caller, "1 concurrent")
        refusal = caller.refusal()
    after = caller.refusal()

    assert refusal is not None
    assert refusal.code == "rate_limit_exceeded"
    assert "1 call is under way" in str(refusal.body)
    assert refusal.response.headers["retry-after"] == "1"
    assert "x-should-retry" not in refusal.response.headers
    assert (held["used"], held["resets_at"]) == (1, None)
    assert after is None
    assert row_of(caller, "1 concurrent")["used"] == 0


@pytest.mark.parametrize(
    ("limit", "of"),
    [("2/1s", "usd"), ("70 tokens/1s", "usd"), ("0.0006 USD/1s", "usd"), ("0.0006 CNY/1s", "cny")],
)
def test_smooth_rates_of_every_unit_come_back_by_themselves(world: World, limit: str, of: str):
    """Whoever waits as long as the refusal says gets through."""
    caller = world.caller(of=of)
    caller.limit("key", [limit])

    _, refusal = calls_until_refused(caller)
    headers = refusal.response.headers
    time.sleep(int(headers["retry-after-ms"]) / 1000)

    assert refusal.code == "rate_limit_exceeded"
    assert 0 < int(headers["retry-after-ms"]) <= 1000
    assert caller.refusal() is None


def test_the_sdk_waits_for_a_smooth_rate_by_itself(world: World):
    """Its own retries obey Retry-After: with them, the developer notices no refusal."""
    caller = world.caller()
    caller.limit("key", ["2/3s"])
    patient = caller.sdk.with_options(max_retries=3)

    answers = [
        patient.chat.completions.create(model=caller.model, messages=[{"role": "user", "content": PROMPT}])
        for _ in range(4)
    ]

    assert len(answers) == 4
    assert caller.world.server.admin("GET", f"/api/v1/usage?key={caller.key}")["data"][0]["refused"] > 0


@pytest.mark.parametrize(
    "zone", ["Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "Australia/Lord_Howe"]
)
def test_days_end_at_midnight_of_the_zone(world: World, zone: str):
    """Also where the clock differs by quarters of an hour."""
    caller = world.caller()
    caller.limit("key", [f"1/day@{zone}"])

    _, refusal = calls_until_refused(caller)

    now = datetime.datetime.now(ZoneInfo(zone))
    midnight = datetime.datetime.combine(
        now.date() + datetime.timedelta(days=1), datetime.time(), ZoneInfo(zone)
    )
    left = midnight.timestamp() - now.timestamp()
    assert int(refusal.response.headers["retry-after"]) == pytest.approx(left, abs=3)
    assert f"{midnight:%Y-%m-%d %H:%M} ({zone}" in str(refusal.body)


def test_a_call_that_can_never_fit_is_told_so(world: World):
    """Waiting would not help, so the message says what does."""
    caller = world.caller()
    caller.limit("key", ["10 tokens/minute"])

    refusal = caller.refusal()

    assert refusal is not None
    assert "can never admit this call" in str(refusal.body)
    assert "max_tokens" in str(refusal.body)
    assert refusal.response.headers["x-should-retry"] == "false"


# -- all together


EVERYBODY = {
    "key": ["1000 tokens/day", "50/hour"],
    "user": ["1 USD/month@Pacific/Chatham", "20/1m"],
    "project": ["100/day@Asia/Kathmandu", "2000 tokens/week"],
    "model": ["8 concurrent", "0.5 USD/day"],
    "user_model": ["3/day", "5000 tokens/1h"],
}


def limit_everybody(caller: Caller) -> None:
    for subject, limits in EVERYBODY.items():
        caller.limit(subject, limits)


def test_a_refusal_by_one_limit_takes_from_none_of_the_others(world: World):
    caller = world.caller()
    limit_everybody(caller)
    for _ in range(3):
        caller.call()
    before = caller.used()

    refusals = [caller.refusal() for _ in range(3)]

    assert [refusal.code for refusal in refusals if refusal is not None] == ["insufficient_quota"] * 3
    smooth = {"20/1m", "5000 tokens/1h"}  # these refill meanwhile
    after = caller.used()
    assert {k: v for k, v in after.items() if k not in smooth} == {
        k: v for k, v in before.items() if k not in smooth
    }
    assert all(after[limit] <= before[limit] for limit in smooth)
    assert before["1000 tokens/day"] == before["2000 tokens/week"] == 27
    assert before["1 USD/month@Pacific/Chatham"] == before["0.5 USD/day"] == "0.0001575"
    assert before["50/hour"] == before["100/day@Asia/Kathmandu"] == before["3/day"] == 3
    assert before["8 concurrent"] == 0


def test_what_was_used_outlives_kills_and_other_amounts(tmp_path: Path):
    """Every unit on everybody, over kill -9 and a restart, and with every amount changed up and down."""
    world = World.start(tmp_path)
    try:
        caller = world.caller()
        limit_everybody(caller)
        for _ in range(3):
            caller.call()
        counted = {k: v for k, v in caller.used().items() if "1m" not in k and "1h" not in k}

        world.server.keep_metrics()
        world.server.kill()
        world.server.start()
        after_kill = caller.used()
        for subject, limits in EVERYBODY.items():
            caller.limit(subject, [_times_two(limit) for limit in limits])
        doubled = caller.used()

        assert {limit: after_kill[limit] for limit in counted} == counted
        assert {_times_two(limit): used for limit, used in counted.items()}.items() <= doubled.items()
        caller = Caller(
            world, caller.user, caller.project, caller.model, caller.spare, caller.key,
            world.server.openai(caller.sdk.api_key),
        )  # fmt: skip
        assert [caller.refusal() is None for _ in range(4)] == [True, True, True, False]
        caller.limit("user_model", ["5/day"])
        assert row_of(caller, "5/day")["used"] == 6
        assert row_of(caller, "5/day")["remaining"] == 0
    finally:
        world.stop()


def _times_two(limit: str) -> str:
    amount = str(amount_of(limit))
    return limit.replace(amount, str(Decimal(amount) * 2).removesuffix(".0"), 1)


# -- explain


def test_explain_says_what_will_happen(world: World):
    """As many calls as are left are answered, and the limit that it calls the tightest is the one that refuses."""
    caller = world.caller()
    limit_everybody(caller)
    caller.call()
    before = caller.explain()

    answered, refusal = calls_until_refused(caller)
    after = caller.explain()

    tightest = before["tightest"]
    left = next(row["remaining"] for row in before["data"] if row["limit"] == tightest["limit"])
    assert (tightest["limit"], tightest["refuses"], left) == ("3/day", False, 2)
    assert answered == left
    assert after["tightest"] == {**tightest, "refuses": True}
    assert "user `" in str(refusal.body)
    assert after["summary"].startswith("Calls are refused now because of the limit of 3 requests per day")


def test_explain_is_the_same_in_api_json_and_table(world: World):
    caller = world.caller()
    limit_everybody(caller)
    caller.call()
    arguments = ("limits", "explain", caller.key, "--model", caller.model)

    from_api, from_cli = caller.explain(), world.server.cli_json(*arguments)
    shown = world.server.cli(*arguments)

    assert [_lasting(row) for row in from_cli["data"]] == [_lasting(row) for row in from_api["data"]]
    assert [row["subject"] for row in from_api["data"]] == [
        subject for subject, limits in EVERYBODY.items() for _ in limits
    ]
    lines = shown.stdout.splitlines()
    for row in from_api["data"]:
        assert any(
            row["limit"] in line and line.split()[0] == row["subject"].partition("_")[0] for line in lines
        ), row
    assert "3/day" in shown.stdout
    assert "The tightest is the limit of 3 requests per day" in shown.stderr
    assert "Traceback" not in shown.stderr


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what changes by itself from one moment to the next."""
    moving = {"resets_in_s"} if "/1" not in row["limit"] else {
        "resets_in_s", "resets_at", "used", "remaining", "why",
    }  # fmt: skip
    return {name: value for name, value in row.items() if name not in moving}


@pytest.mark.parametrize(("of", "why"), [("cny", "its price is in CNY"), ("free", "it has no price")])
def test_money_in_another_currency_does_not_count_and_says_so(world: World, of: str, why: str):
    """Nobody converts: a limit in dollars holds calls that are paid in dollars."""
    caller = world.caller(of=of)
    caller.limit("key", ["0.000001 USD/day", "100/day"])

    refusals = [caller.refusal() for _ in range(3)]

    row = row_of(caller, "0.000001 USD/day")
    shown = world.server.cli("limits", "explain", caller.key, "--model", caller.model).stdout
    assert refusals == [None] * 3
    assert (row["applies"], row["used"]) == (False, "0")
    assert why in row["why"]
    assert "does not count" in shown
    assert caller.explain()["tightest"]["limit"] == "100/day"


# -- what it cost, and how tokens were counted


def test_price_and_cost_are_exact_wherever_they_are_shown(world: World):
    """By call, by key, by project, by model; in both currencies; in JSON, CSV and tables."""
    dollars, yuan = world.caller(), world.caller(of="cny")
    for caller in (dollars, dollars, yuan):
        caller.call()
    server = world.server

    by_project = {row["project"]: row for row in server.cli_json("usage", "--by", "project")}
    (by_key,) = server.cli_json("usage", "--by", "key,model", "--key", yuan.key)
    calls = server.cli_json("requests", "list", "--key", dollars.key)
    shown = server.cli_json("requests", "show", calls[0]["id"])
    record = server.record_of(calls[0]["id"])

    assert by_project[dollars.project]["costs"] == {"USD": "0.000105"}
    assert by_project[dollars.project]["charged_costs"] == {"USD": "0.000105"}
    assert by_project[dollars.project]["charged_tokens"] == 2 * TOKENS
    assert (by_key["costs"], by_key["cost"], by_key["currency"]) == ({"CNY": "0.000043"}, 0.000043, "CNY")
    assert by_key["model"] == yuan.model
    assert [(call["cost"], call["currency"], call["charged_cost"]) for call in calls] == [
        ("0.0000525", "USD", "0.0000525")
    ] * 2
    assert shown == calls[0]
    assert (record["cost"], record["currency"], record["charged_cost"]) == (52_500, "USD", 52_500)
    assert "0.000105 USD" in server.cli("usage", "--by", "project").stdout
    assert "0.0000525,USD" in server.cli("requests", "export", "--key", dollars.key).stdout


def test_tokens_are_reported_counted_or_estimated(
    make_server: MakeServer, engine: FakeEngine, tmp_path: Path
):
    """As the backend says; else with the model's own tokenizer; else an estimate that is marked as one."""

    async def without_usage(call: EngineCall) -> None:
        answer = completion(call.json)
        del answer["usage"]
        await call.answer(answer)

    (tmp_path / "tokenizer.json").write_text(json.dumps(word_tokenizer()))
    config = (
        f'[[models]]\ntarget = "{engine.url}"\ntokenizers = {{ "fake/chat" = "{tmp_path}/tokenizer.json" }}\n'
    )
    server = make_server(config=config).start()
    sdk, script = server.openai(), engine.script(without_usage)
    messages = [{"role": "user", "content": "one two three four five six seven"}]

    def counted(model: str, **extra: str) -> tuple[str, int, int]:
        raw = sdk.chat.completions.with_raw_response.create(model=model, messages=messages, extra_body=extra)
        record = server.record_of(raw.headers["x-request-id"])
        return record["counted"], record["prompt_tokens"], record["completion_tokens"]

    reported = counted("fake/chat")
    with_tokenizer = counted("fake/chat", script=script)
    how, prompt, completed = counted("plain-chat:8b", script=script)

    assert reported == ("reported", 5, 4)
    assert with_tokenizer[0] == "counted"
    assert with_tokenizer[1] >= 7
    assert with_tokenizer[2] == 4  # `Good day to you`, a token to a word
    assert how == "estimated"
    assert 7 <= prompt <= 30
    assert 2 <= completed <= 10


def word_tokenizer() -> dict[str, Any]:
    """A `tokenizer.json` for which every word is one token."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return dict(json.loads(tokenizer.to_str()))
