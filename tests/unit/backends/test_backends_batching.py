"""Calls that are put together."""

import asyncio
import threading
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from lingpai.authoring import Batch, InputError, Usage
from lingpai.backends.engines.batching import BatchRunner
from lingpai.backends.engines.calls import Bounds, ModelCodeError
from lingpai.backends.engines.told_usage import begin_request, told_usage
from lingpai.backends.engines.values import ResultError
from lingpai.errors import LingpaiError


def batched(function, *, max_size=8, max_wait_ms=10.0, **bounds):
    batch = Batch(max_size=max_size, max_wait_ms=max_wait_ms)
    return BatchRunner(function, batch, bounds=Bounds(**bounds), name="acme/x")


@pytest.fixture
def seen():
    """The batches that the function was called with."""
    return []


@pytest.fixture
def double(seen):
    async def double(values, **parameters):
        seen.append((list(values), parameters) if parameters else list(values))
        await asyncio.sleep(0.01)
        return [2 * value for value in values]

    return double


def together(*calls):
    async def story():
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)

    return asyncio.run(story())


def test_calls_are_put_together_until_a_batch_is_full(double, seen):
    runner = batched(double, max_size=3, max_wait_ms=60_000, concurrency=2)

    results = together(*(lambda n=n: runner.value(n, {}) for n in range(6)))

    assert results == [0, 2, 4, 6, 8, 10]
    assert seen == [[0, 1, 2], [3, 4, 5]]


def test_a_batch_that_does_not_fill_runs_when_its_first_call_has_waited(double, seen):
    runner = batched(double, max_wait_ms=500)

    async def late():
        await asyncio.sleep(0)
        return await runner.value(2, {})

    began = time.monotonic()
    assert together(lambda: runner.value(1, {}), late) == [2, 4]
    assert seen == [[1, 2]]
    assert time.monotonic() - began >= 0.5


def test_only_calls_with_equal_parameters_share_a_batch(double, seen):
    runner = batched(double, concurrency=9)
    parameters = [{"k": 1}, {"k": 2}, {"k": 1}, {"k": 1.0}, {"k": True}, {"k": "1"}]

    together(*(lambda n=n, p=p: runner.value(n, p) for n, p in enumerate(parameters)))

    assert sorted(values for values, _ in seen) == [[0, 2], [1], [3], [4], [5]]
    assert ([0, 2], {"k": 1}) in seen


def test_parameters_that_cannot_be_compared_share_with_nobody(double, seen):
    runner = batched(double, concurrency=9)

    together(*(lambda n=n: runner.value(n, {"k": object()}) for n in range(2)))

    assert [values for values, _ in seen] == [[0], [1]]


def test_while_a_batch_runs_the_next_one_grows(seen):
    may_end = threading.Event()

    def held(values):
        seen.append(list(values))
        may_end.wait(5)
        return values

    async def story():
        runner = batched(held, max_wait_ms=0)
        calls = [asyncio.create_task(runner.value(0, {}))]
        while not seen:
            await asyncio.sleep(0.001)
        for n in range(1, 6):
            calls.append(asyncio.create_task(runner.value(n, {})))
            await asyncio.sleep(0.005)  # its time is up, but the only place is taken
        may_end.set()
        await asyncio.gather(*calls)

    asyncio.run(story())

    assert seen == [[0], [1, 2, 3, 4, 5]]


def test_groups_take_turns_so_that_a_busy_one_holds_up_nobody(double, seen):
    runner = batched(double, max_size=2, max_wait_ms=0)
    busy = [lambda n=n: runner.value(n, {"k": "busy"}) for n in range(8)]

    together(*busy, lambda: runner.value(99, {"k": "quiet"}))

    order = [parameters["k"] for _, parameters in seen]
    assert order.index("quiet") <= 2
    assert order.count("busy") == 4


def test_a_request_with_several_payloads_gives_all_of_them_at_once_and_keeps_the_order(double, seen):
    runner = batched(double, max_size=4, max_wait_ms=60_000, concurrency=2)

    results = together(lambda: runner.values([5, 3, 4], {}), lambda: runner.values([1], {}))

    assert results == [[10, 6, 8], [2]]
    assert seen == [[5, 3, 4, 1]]


def test_a_request_larger_than_a_batch_takes_several(double, seen):
    runner = batched(double, max_size=4)

    assert together(lambda: runner.values(list(range(10)), {})) == [[2 * n for n in range(10)]]
    assert [len(values) for values in seen] == [4, 4, 2]


def test_an_exception_in_the_list_is_that_items_alone():
    def picky(values):
        outcomes = {"bad": InputError("Not this."), "worse": ValueError("why"), "good": "fine"}
        return [outcomes[value] for value in values]

    runner = batched(picky)

    results = together(*(lambda v=v: runner.value(v, {}) for v in ("good", "bad", "worse", "good")))

    assert [results[0], results[3]] == ["fine", "fine"]
    assert isinstance(results[1], InputError)
    assert isinstance(results[2], ModelCodeError)
    assert str(results[2].__cause__) == "why"
    assert not results[2].is_repeated
    assert results[2].payloads == ["good", "bad", "worse", "good"]


def test_of_a_request_with_several_payloads_the_bad_one_is_named():
    runner = batched(
        lambda values: [InputError("Not this.") if value == "bad" else value for value in values]
    )

    (error,) = together(lambda: runner.values(["good", "bad", "good"], {}, field="input"))

    assert (error.message, error.param) == ("Not this.", "input[1]")


def test_an_exception_fails_the_calls_of_that_batch_only():
    async def failing(values):
        if "bad" in values:
            raise ValueError("why")
        return values

    runner = batched(failing, max_size=2, concurrency=2)

    results = together(*(lambda v=v: runner.value(v, {}) for v in ("good", "bad", "fine", "also")))

    assert results[2:] == ["fine", "also"]
    assert all(isinstance(error, ModelCodeError) for error in results[:2])
    assert [error.is_repeated for error in results[:2]] == [False, True]
    assert [error.payloads for error in results[:2]] == [["good", "bad"]] * 2
    assert results[0] is not results[1]


def test_an_input_error_that_is_raised_for_several_calls_is_not_blamed_on_them():
    def accusing(values):
        raise InputError("Somebody's fault.")

    async def story():
        runner = batched(accusing)
        alone = await asyncio.gather(runner.value(1, {}), return_exceptions=True)
        shared = await asyncio.gather(*(runner.value(n, {}) for n in range(2)), return_exceptions=True)
        return alone + shared

    alone, *shared = asyncio.run(story())

    assert isinstance(alone, InputError)
    assert all(isinstance(error, ModelCodeError) for error in shared)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1], "returned 1 results for a batch of 2"),
        ([1, 2, 3], "returned 3 results for a batch of 2"),
        (None, "returned NoneType for a batch"),
        ("ab", "returned str for a batch"),
        ({1: 2, 3: 4}, "returned dict for a batch"),
        (([1, 2], Usage()), "return a list of (result, lp.Usage(…))"),
    ],
)
def test_anything_but_a_list_of_the_same_length_is_the_models_fault_for_all(returned, message):
    runner = batched(lambda values: returned)

    results = together(*(lambda n=n: runner.value(n, {}) for n in range(2)))

    for error in results:
        assert isinstance(error, ResultError)
        assert message in str(error)


def test_an_array_is_a_list_of_its_rows():
    class Array:
        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def __iter__(self):
            return iter(self.rows)

        def tolist(self):
            return self.rows

    runner = batched(lambda values: Array([[value, 1] for value in values]))

    assert together(*(lambda n=n: runner.value(n, {}) for n in range(2))) == [[0, 1], [1, 1]]


def test_a_caller_who_leaves_before_the_batch_runs_is_taken_out(double, seen):
    async def story():
        runner = batched(double, max_wait_ms=30)
        leaver, stayer = (asyncio.create_task(runner.value(n, {})) for n in range(2))
        await asyncio.sleep(0)
        leaver.cancel()
        return await stayer

    assert asyncio.run(story()) == 2
    assert seen == [[1]]


def test_when_everybody_has_left_nothing_runs(double, seen):
    async def story():
        runner = batched(double, max_wait_ms=5)
        calls = [asyncio.create_task(runner.value(n, {})) for n in range(3)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.sleep(0.02)
        return await runner.value(7, {})

    assert asyncio.run(story()) == 14
    assert seen == [[7]]


def test_a_caller_who_leaves_a_running_batch_disturbs_nobody_and_the_last_one_cancels_it():
    ends = []

    async def long(values):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            ends.append(values)
            raise
        return values

    async def story():
        runner = batched(long, max_size=2, max_wait_ms=0)
        leaver, stayer = (asyncio.create_task(runner.value(n, {})) for n in range(2))
        await asyncio.sleep(0.02)
        leaver.cancel()
        assert await stayer == 1
        assert ends == []

        leavers = [asyncio.create_task(runner.value(n, {})) for n in range(2)]
        await asyncio.sleep(0.02)
        for each in leavers:
            each.cancel()
        await asyncio.sleep(0.02)
        assert ends == [[0, 1]]
        assert await runner.value(5, {}) == 5

    asyncio.run(story())


def test_a_cancellation_that_the_authors_code_lets_escape_leaves_nobody_waiting():
    async def cancelled(values):
        raise asyncio.CancelledError

    (error,) = together(lambda: batched(cancelled).value(1, {}))

    assert isinstance(error, ModelCodeError)


def test_the_queue_is_bounded_and_a_request_enters_whole_or_not_at_all():
    release = threading.Event()

    def blocked(values):
        release.wait(5)
        return values

    async def story():
        runner = batched(blocked, max_size=2, max_wait_ms=0, max_queue=3)
        running = asyncio.create_task(runner.values([1, 2], {}))
        await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(runner.values(payloads, {})) for payloads in ([3, 4], [5, 6])]
        await asyncio.sleep(0)
        with pytest.raises(LingpaiError, match="busy: 4 calls wait already") as refused:
            await runner.value(7, {})
        release.set()
        return refused.value, await asyncio.gather(running, *waiting)

    error, results = asyncio.run(story())

    assert error.status == 503
    assert error.headers["retry-after"] == "1"
    assert results == [[1, 2], [3, 4], [5, 6]]


def test_a_batch_that_takes_too_long_is_given_up_for_all_its_callers():
    async def slow(values):
        await asyncio.sleep(10)

    runner = batched(slow, timeout_s=0.05)

    results = together(*(lambda n=n: runner.value(n, {}) for n in range(2)))

    assert [error.code for error in results] == ["backend_timeout"] * 2


def test_each_item_may_tell_its_usage():
    def telling(values):
        return [(value, Usage(prompt_tokens=value)) for value in values]

    async def request(runner, payloads):
        begin_request()
        values = await runner.values(payloads, {})
        return values, told_usage()["prompt_tokens"]

    async def story():
        runner = batched(telling)
        return await asyncio.gather(request(runner, [1, 2]), request(runner, [4]))

    assert asyncio.run(story()) == [([1, 2], 3), ([4], 4)]


def test_a_text_comes_as_one_piece(double):
    async def story():
        async with aclosing(batched(double).pieces("ab", {})) as pieces:
            return [piece async for piece in pieces]

    assert asyncio.run(story()) == ["abab"]


# -- in a worker


APP = """
import lingpai.authoring as lp

sizes = []

@lp.model("acme/embed", task="embedding", batch=lp.Batch(max_size=64, max_wait_ms=30))
def embed(texts: list[str]):
    sizes.append(len(texts))
    return [[float(len(text)), float(len(texts))] for text in texts]

@lp.model("acme/unannotated", task="embedding", batch=True)
def unannotated(texts):
    return [[float(len(text))] for text in texts]

@lp.model("acme/upper", task="text-generation", batch=lp.Batch(max_wait_ms=1))
async def upper(prompts: list[str], *, mark: str = "!"):
    return [prompt.upper() + mark for prompt in prompts]

@lp.model("acme/even", batch=lp.Batch(max_wait_ms=1))
def even(numbers: list[int]):
    return [n if n % 2 == 0 else lp.InputError(f"{n} is odd") for n in numbers]
"""


@pytest.fixture(scope="module")
def worker(serve, write_app):
    return serve(write_app("batch_models.py", APP))


def test_embeddings_of_one_request_are_one_batch(worker):
    body = worker.post("/v1/embeddings", model="acme/embed", input=["a", "bbb", "cc"]).json()

    assert [each["embedding"] for each in body["data"]] == [[1.0, 3.0], [3.0, 3.0], [2.0, 3.0]]


def test_a_batch_function_needs_no_annotation(worker):
    body = worker.post("/v1/embeddings", model="acme/unannotated", input=["a", "bbb"]).json()

    assert [each["embedding"] for each in body["data"]] == [[1.0], [3.0]]


def test_a_text_model_may_take_batches(worker):
    body = worker.post("/v1/completions", model="acme/upper", prompt=["a", "b"], mark="?").json()

    assert [choice["text"] for choice in body["choices"]] == ["A?", "B?"]
    assert worker.text("/v1/completions", model="acme/upper", prompt="stream") == "STREAM!"


def test_one_bad_item_of_a_batch_is_a_400_that_names_it(worker):
    assert worker.post("/v1/inference", model="acme/even", input=[2, 4]).json()["output"] == [2, 4]

    response = worker.post("/v1/inference", model="acme/even", input=[2, 3])

    assert response.status_code == 400
    assert response.json()["error"]["message"] == "3 is odd"
    assert response.json()["error"]["param"] == "input[1]"


@pytest.fixture(scope="module")
def example(serve):
    return serve(str(Path(__file__).parents[3] / "examples" / "batching.py"))


def test_the_example_tells_its_usage_and_blames_one_text_only(example):
    fine = example.post("/v1/embeddings", input=["hello there", "one two three"]).json()
    assert fine["data"][0]["embedding"][4] == pytest.approx(3 / 11)
    assert fine["usage"]["prompt_tokens"] == 5
    assert "estimated" not in fine["usage"]

    error = example.post("/v1/embeddings", input=["fine", "x" * 1001]).json()["error"]
    assert (error["message"], error["param"]) == ("A text may have 1000 characters.", "input[1]")
