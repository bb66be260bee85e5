"""Limits that are set while calls are under way: they count those calls, as the records say it and no further."""

import asyncio
import math
import time
from dataclasses import replace

import pytest
from gateway_fakes import GOOD, FakeFront, model
from gateway_limits import PRICE, chat, limit

from lingpai.quotas.limiter import limit_set
from lingpai.quotas.loader import MeterLoader

KEY = ("key", "k1")


def used(prompt, completion):
    return {**GOOD, "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def set_limits(stage, calls, *limits, while_read=lambda: None, began=math.inf):
    """Set the limits of the key as the server does, and load them for the next call."""

    async def reached(mark):
        while_read()
        return True

    loader = MeterLoader(
        stage.limiter,
        mark=lambda: 0,
        reached=reached,
        under_way=lambda subject: stage.gateway.held_for(subject, calls),
    )
    loader.limits_changed(KEY, began=began)
    return stage.gateway.loop.run_until_complete(loader.load(KEY, limits, "key `k1`"))


@pytest.mark.parametrize("before", [(), ("5/day",), ("5 concurrent",), ("9000 tokens/hour",)])
@pytest.mark.parametrize("tokens", [(3, 4), (900, 90_000)])
def test_call_under_way_is_charged_to_limits_set_meanwhile(limited, answer, before, tokens):
    """Whether it was weighed when it began or not, and also when it used more than anybody thought."""
    limited.serve_only(model(price=PRICE))
    limit(limited, *before)
    call, _ = chat(limited)

    *_, day, money, rate = set_limits(
        limited, [call], *before, "100000 tokens/day", "1 USD/day", "100000 tokens/1h"
    )
    held = [day.reserved, money.reserved, rate.reserved]
    answer(call, used(*tokens))

    record = limited.journal.record
    assert held == [call.weight.most.tokens, call.weight.most.usd, call.weight.most.tokens]
    assert (day.used, money.used) == (record.charged_tokens, record.charged_cost)
    assert [day.reserved, money.reserved, rate.reserved] == [0, 0, 0]
    assert rate.used >= record.charged_tokens - 1000 * 60
    if sum(tokens) < 1000 or not before:
        assert record.charged_tokens == sum(tokens)


@pytest.mark.parametrize("before", [(), ("9/day",), ("9000 tokens/hour",), ("1000000 tokens/hour",)])
def test_calls_that_end_while_new_limits_are_read_count_with_all_that_they_used(limited, answer, before):
    """Here the history never has them: what they are charged is known from themselves."""
    limited.serve_only(model(price=PRICE))
    limit(limited, *before)
    calls = [chat(limited, max_tokens=100)[0] for _ in range(6)]

    def one_ends():
        answer(calls.pop(), used(10, 9000))

    *_, requests, day, money = set_limits(
        limited, calls, *before, "100/hour", "100000 tokens/day", "1 USD/day", while_read=one_ends
    )

    records = limited.journal.records[-1:]  # of those before, the history would tell
    assert [call.is_over for call in calls] == [False] * 3
    assert requests.used == 4
    assert day.used - day.reserved == sum(record.charged_tokens for record in records) > 100
    assert money.used - money.reserved == sum(record.charged_cost for record in records)


def test_calls_under_way_count_also_when_somebody_has_loaded_the_new_limits_before_the_change_was_told(
    limited, answer
):
    """And so does one that was let in by what that one has loaded; all of them settle what they hold."""
    limit(limited)
    calls = [chat(limited, max_tokens=100)[0] for _ in range(3)]
    began = time.monotonic()
    limit(limited, "9/day", "90000 tokens/day")  # as the first call after the commit does
    calls.append(chat(limited, max_tokens=100)[0])

    requests, tokens = set_limits(limited, calls, "9/day", "90000 tokens/day", began=began)
    before = requests.used, tokens.reserved
    for call in calls:
        answer(call, used(3, 4))

    assert before == (4, sum(call.weight.most.tokens for call in calls))
    assert [(meter.used, meter.reserved) for meter in (requests, tokens)] == [(4, 0), (28, 0)]


def test_call_under_way_takes_from_a_new_limit_no_more_than_there_is(limited, answer):
    limit(limited)
    call, _ = chat(limited)
    [day] = set_limits(limited, [call], "5000 tokens/day")

    answer(call, used(10, 90_000))

    assert day.used == limited.journal.record.charged_tokens == 5000


def test_call_that_fails_gives_a_new_limit_back_what_it_held(limited):
    limit(limited)
    call, _ = chat(limited)
    requests, tokens, places = set_limits(limited, [call], "5/day", "5000 tokens/day", "2 concurrent")
    held = (requests.used, tokens.used > 0, places.used)

    call.stop()

    assert held == (1, True, 0)
    assert (requests.used, tokens.used, places.used) == (0, 0, 0)


def test_call_that_would_be_refused_now_is_held_all_the_same(limited, answer):
    """The backend has it already, and may have answered it."""
    limit(limited)
    call, _ = chat(limited, n=5)
    limited.gateway.reconfigure(replace(limited.gateway.settings, max_choices=2))
    [day] = set_limits(limited, [call], "5000 tokens/day")

    answer(call, used(3, 4))

    assert day.used == limited.journal.record.charged_tokens == 7


def test_new_limits_hold_others_while_the_call_is_under_way(limited, answer):
    limit(limited)
    call, _ = chat(limited)
    meters = set_limits(limited, [call], f"{20_000} tokens/day")
    left = meters[0].remaining(call.started_at)
    limited.keys.known[b"sk-lp-known"].account.meters = meters
    limited.keys.known[b"sk-lp-known"].account.accesses.clear()
    limited.keys.known[b"sk-lp-known"].account.models.clear()

    other, front = chat(limited, max_tokens=left + 1, front=FakeFront())
    answer(call, used(3, 4))
    fitting, _ = chat(limited, max_tokens=left + 1)

    assert front.head["status"] == "429 Too Many Requests"
    assert fitting.is_admitted
    assert other.limits is not None
    assert limit_set(meters).weighs
    assert asyncio.all_tasks(limited.gateway.loop) == set()


def test_call_that_used_more_than_it_reserved_and_is_not_recorded_is_not_charged(limited, answer):
    """The excess is held until the record is written, like the rest."""
    meters = limit(limited, "5/day", "100000 tokens/day", "100000 tokens/1h", "2 concurrent")
    limited.journal.waits = True
    call, _ = chat(limited, max_tokens=10)
    answer(call, used(10, 5000))
    held = [meter.used for meter in meters]

    limited.journal.waiting.pop()(False)

    assert held == [1, 5010, 5010, 1]
    assert [(meter.used, meter.reserved) for meter in meters] == [(0, 0)] * 4
