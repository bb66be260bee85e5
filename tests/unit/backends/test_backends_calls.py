"""Functions of all kinds, bounded in number and time."""

import asyncio
import threading
import time
from contextlib import aclosing

import pytest

from lingpai.authoring import InputError, Usage
from lingpai.backends.engines import calls
from lingpai.backends.engines.calls import Bounds, FunctionRunner, ModelCodeError
from lingpai.backends.engines.told_usage import begin_request, told_usage
from lingpai.errors import LingpaiError


def runner(function, **bounds):
    return FunctionRunner(function, bounds=Bounds(**bounds), name="acme/x")


async def pieces_of(a_runner):
    async with aclosing(a_runner.pieces(0, {})) as pieces:
        return [piece async for piece in pieces]


async def in_time(value):
    return value


def sync_sleep(_):
    time.sleep(0.3)


async def async_sleep(_):
    await asyncio.sleep(30)


def sync_stream(_):
    yield "begun"
    time.sleep(0.3)
    yield "late"


async def async_stream(_):
    yield "begun"
    await asyncio.sleep(30)


@pytest.mark.parametrize("function", [sync_sleep, async_sleep, sync_stream, async_stream])
@pytest.mark.parametrize("way", ["value", "pieces"])
def test_a_call_ends_when_its_time_is_up(function, way):
    async def story():
        slow = runner(function, timeout_s=0.05)
        with pytest.raises(LingpaiError) as caught:
            await (slow.value(0, {}) if way == "value" else pieces_of(slow))
        assert (caught.value.code, caught.value.status) == ("backend_timeout", 504)
        assert caught.value.message == "`acme/x` did not answer within 0.05 s."

    asyncio.run(story())


def test_the_time_begins_when_a_call_has_its_turn():
    def slow(_):
        time.sleep(0.1)
        return "done"

    async def story():
        one_at_a_time = runner(slow, timeout_s=1.0)
        assert await asyncio.gather(*(one_at_a_time.value(0, {}) for _ in range(12))) == ["done"] * 12

    asyncio.run(story())


def test_a_time_out_of_the_authors_own_code_is_the_models_fault():
    async def impatient(_):
        raise TimeoutError("of its own")

    async def story():
        with pytest.raises(ModelCodeError):
            await runner(impatient, timeout_s=5).value(0, {})

    asyncio.run(story())


def test_a_thread_keeps_its_place_until_it_is_really_done():
    async def story():
        busy = runner(sync_sleep, timeout_s=0.05, max_queue=0)
        with pytest.raises(LingpaiError, match="did not answer"):
            await busy.value(0, {})

        with pytest.raises(LingpaiError, match="is busy"):
            await busy.value(0, {})

        await asyncio.sleep(0.4)
        with pytest.raises(LingpaiError, match="did not answer"):
            await busy.value(0, {})

    asyncio.run(story())


def test_a_thread_that_does_not_end_is_told(monkeypatch):
    monkeypatch.setattr(calls, "OVERRUN_GRACE_S", 0.05)
    told = []

    async def story():
        stuck = runner(sync_sleep, timeout_s=0.05, on_overrun=lambda *what: told.append(what))
        with pytest.raises(LingpaiError):
            await stuck.value(0, {})
        assert told == []
        await asyncio.sleep(0.1)

    asyncio.run(story())

    assert told == [("acme/x", 0.1)]


def test_a_call_whose_caller_has_left_is_told_too_when_it_does_not_end(monkeypatch):
    monkeypatch.setattr(calls, "OVERRUN_GRACE_S", 0.05)
    told = []

    async def story():
        stuck = runner(sync_sleep, timeout_s=0.05, on_overrun=lambda *what: told.append(what))
        call = asyncio.create_task(stuck.value(0, {}))
        await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.sleep(0.15)

    asyncio.run(story())

    assert told == [("acme/x", 0.1)]


def test_an_async_function_is_held_back_only_when_that_was_asked_for():
    async def most_at_once(**bounds):
        running, most = 0, 0

        async def count(_):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        bounded = runner(count, **bounds)
        await asyncio.gather(*(bounded.value(0, {}) for _ in range(9)))
        return most

    assert asyncio.run(most_at_once()) == 9
    assert asyncio.run(most_at_once(concurrency=2)) == 2


def test_a_stream_holds_its_place_to_the_end():
    async def story():
        one = runner(async_stream, concurrency=1, max_queue=0)
        async with aclosing(one.pieces(0, {})) as pieces:
            assert await anext(pieces) == "begun"
            with pytest.raises(LingpaiError, match="is busy"):
                await anext(one.pieces(0, {}))
        async with aclosing(one.pieces(0, {})) as pieces:
            assert await anext(pieces) == "begun"

    asyncio.run(story())


def test_values_are_made_one_after_the_other_and_in_order():
    async def story():
        threads = runner(lambda value: (value, threading.get_ident()), concurrency=4)
        return await threads.values([3, 1, 2], {})

    values = asyncio.run(story())

    assert [value for value, _ in values] == [3, 1, 2]


@pytest.mark.parametrize(
    ("payloads", "own", "param"), [([1, 0], None, "input[1]"), ([0], None, "input"), ([1, 0], "x", "x")]
)
def test_an_input_error_says_which_of_several_payloads_it_is_about(payloads, own, param):
    def picky(value):
        if not value:
            raise InputError("Not this one.", param=own)

    async def story():
        with pytest.raises(InputError, match=r"Not this one\.") as caught:
            await runner(picky).values(payloads, {}, field="input")
        return caught.value.param

    assert asyncio.run(story()) == param


USAGE = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3, reasoning_tokens=1)
SHOWN = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def returns_usage(_):
    return "text", USAGE


async def yields_usage(_):
    yield "te"
    yield "xt"
    yield USAGE


def yields_usage_in_a_thread(_):
    yield "text"
    yield USAGE


@pytest.mark.parametrize("function", [returns_usage, yields_usage, yields_usage_in_a_thread])
def test_usage_that_a_function_tells_is_kept_apart_from_its_answer(function):
    async def story():
        begin_request()
        assert await runner(function).value(0, {}) == "text"
        assert told_usage() == SHOWN
        *pieces, last = await pieces_of(runner(function))
        assert "".join(pieces) == "text"
        assert last == {"text": "", "usage": SHOWN}

    asyncio.run(story())


def test_usage_adds_up_over_a_request_and_counts_for_nothing_with_a_gap():
    def tells(value):
        return ("x", USAGE) if value else "x"

    async def story(payloads):
        begin_request()
        await runner(tells).values(payloads, {})
        return told_usage()

    assert asyncio.run(story([1, 1]))["total_tokens"] == 14
    assert asyncio.run(story([1, 0])) is None
    assert asyncio.run(story([0])) is None


def test_what_was_told_for_one_request_is_not_anothers():
    async def request(function):
        begin_request()
        await asyncio.sleep(0)
        await runner(function).value(0, {})
        return told_usage()

    async def story():
        return await asyncio.gather(request(returns_usage), request(in_time), request(returns_usage))

    assert asyncio.run(story()) == [SHOWN, None, SHOWN]


# -- in a worker


APP = """
import time
import lingpai.authoring as lp

@lp.model("acme/one-at-a-time", max_queue=0)
def one_at_a_time(seconds: float):
    time.sleep(seconds)

@lp.model("acme/impatient", task="chat", timeout_s=0.2)
def impatient(messages):
    yield "begun"
    time.sleep(0.4)
    yield "late"

@lp.model("acme/counting", task="chat")
async def counting(messages):
    yield "one "
    yield lp.Usage(prompt_tokens=4, completion_tokens=1, cached_tokens=2)
"""

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def worker(serve, write_app):
    return serve(write_app("bounded_models.py", APP))


def test_a_full_queue_is_a_503_with_retry_after(worker):
    fields = {"model": "acme/one-at-a-time", "input_data": 0.5}
    running = threading.Thread(target=worker.post, args=("/v1/predict",), kwargs=fields)
    running.start()
    time.sleep(0.2)

    response = worker.post("/v1/predict", **fields)

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "backend_unavailable"
    assert response.headers["retry-after"] == "1"
    running.join()


def test_a_time_out_in_mid_stream_is_its_last_event(worker):
    *_, piece, error = worker.events("/v1/chat/completions", model="acme/impatient", messages=HELLO)

    assert "begun" in piece
    assert "backend_timeout" in error


def test_usage_that_a_stream_yields_is_reported_and_not_estimated(worker):
    body = worker.post("/v1/chat/completions", model="acme/counting", messages=HELLO).json()
    assert body["choices"][0]["message"]["content"] == "one "
    assert body["usage"]["total_tokens"] == 5
    assert "estimated" not in body["usage"]

    options = {"include_usage": True}
    *_, usage, _ = worker.events(
        "/v1/chat/completions", model="acme/counting", messages=HELLO, stream_options=options
    )
    assert '"prompt_tokens":4' in usage
    assert "estimated" not in usage
