"""Models of one's own through a real server: batches, queues, time-outs, usage, schemas, and every task once."""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, post, post_bytes
from tests.e2e.waiting import wait_until
from tests.unit.backends.task_models import MODELS as TASK_MODELS
from tests.unit.backends.task_models import PNG_URL, WAV_URL

CHAT = "/v1/chat/completions"

MODELS = """
import asyncio
import itertools
import threading
import time
from pathlib import Path
import lingpai as lp

calls = itertools.count()

@lp.model("acme/vectors", task="embedding", batch=lp.Batch(max_size=4, max_wait_ms=1000))
def vectors(texts: list[str], *, scale: float = 1.0):
    "Answers the text's length, how many were called together, and the number of the call."
    number = next(calls)
    return [vector(text, len(texts), number, scale) for text in texts]

def vector(text, together, number, scale):
    if text == "bad":
        return lp.InputError("bad is no text")
    return [len(text) * scale, together, number], lp.Usage(prompt_tokens=len(text))

@lp.model("acme/slow-batch", task="generic", batch=lp.Batch(max_size=4, max_wait_ms=1000))
async def slow_batch(values: list[int]):
    Path("has-begun").touch()
    while Path("hold").exists():
        await asyncio.sleep(0.01)
    return [[value, len(values)] for value in values]

@lp.model("acme/queue", task="generic", concurrency=1, max_queue=1)
def queue(value: float):
    while Path("hold").exists():
        time.sleep(0.01)
    return value

peak = {"now": 0, "most": 0}
guard = threading.Lock()

@lp.model("acme/three", task="generic", concurrency=3)
def three(value: float):
    with guard:
        peak["now"] += 1
        peak["most"] = max(peak["most"], peak["now"])
    time.sleep(value)
    with guard:
        peak["now"] -= 1
    return peak["most"]

cancelled = []

@lp.model("acme/patient", task="generic", timeout_s=0.3)
async def patient(value: float):
    try:
        await asyncio.sleep(value)
    except asyncio.CancelledError:
        cancelled.append(value)
        raise
    return cancelled

@lp.model("acme/thread", task="generic", timeout_s=0.3)
def thread(value: float):
    time.sleep(value)
    return "done"

@lp.model("acme/dribble", task="chat", timeout_s=0.3)
async def dribble(messages: list[lp.Message]):
    for word in messages[-1].text.split():
        yield word + " "
        await asyncio.sleep(0.2)

@lp.model("acme/counted", task="chat")
async def counted(messages: list[lp.Message], *, max_tokens: int = 16):
    yield "some "
    yield "words"
    yield lp.Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=5, reasoning_tokens=3)

@lp.model("acme/shapes", task="text-classification")
def shapes(text: str, *, top_k: int = 2, labels: list[str] | None = None):
    "What a text is about."
    return [{"label": "a", "score": 0.5}] * top_k
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory):
    """A server with the models above, and models of every task."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "app.py").write_text(MODELS)
    (folder / "tasks.py").write_text(TASK_MODELS)
    server = LingpaiServer(folder, "app.py", "tasks.py").start()
    yield server
    server.stop()


@pytest.fixture
def together():
    """Calls at the same time; the answers in the order of the calls."""
    with ThreadPoolExecutor(16) as pool:

        def run(*calls) -> list[RawAnswer]:
            futures: list[Future[RawAnswer]] = [pool.submit(call) for call in calls]
            return [future.result() for future in futures]

        yield run


@pytest.fixture
def hold(local):
    """A file that keeps some of the models' calls from ending until it is removed."""
    file = local.folder / "hold"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def embed(server: LingpaiServer, *texts: str, key: str | None = None, **fields: Any):
    body = {"model": "acme/vectors", "input": list(texts), **fields}
    return lambda: post(server.port, "/v1/embeddings", body, key=key or server.key)


def vectors(answer: RawAnswer) -> list[list[float]]:
    assert answer.status == 200, answer.body
    assert [each["index"] for each in answer.json["data"]] == list(range(len(answer.json["data"])))
    return [each["embedding"] for each in answer.json["data"]]


def infer(server: LingpaiServer, model: str, value: Any, **fields: Any):
    body = {"input": value, **fields}
    return lambda: post(server.port, f"/api/v1/models/{model}/inference", body, key=server.key)


# -- batches


def test_callers_with_equal_parameters_share_one_call_of_the_function(local, together):
    one, two = together(embed(local, "a", scale=2.0), embed(local, "bcd", scale=2.0))

    (first,), (second,) = vectors(one), vectors(two)
    assert (first[0], second[0]) == (2.0, 6.0)
    assert first[1] == second[1] == 2
    assert first[2] == second[2]


def test_different_parameters_are_not_put_together(local, together):
    one, two = together(embed(local, "a", scale=2.0), embed(local, "a", scale=3.0))

    (first,), (second,) = vectors(one), vectors(two)
    assert (first[:2], second[:2]) == ([2.0, 1], [3.0, 1])


def test_full_batch_does_not_wait(local):
    """Four texts fill a batch: they are back long before its time is over, on average of several calls."""
    began = time.monotonic()
    for _ in range(5):
        vectors(embed(local, "a", "b", "c", "d")())

    assert time.monotonic() - began < 5 * 1.0


def test_bad_item_is_its_caller_s_alone(local, together):
    good, bad, listed = together(embed(local, "fine"), embed(local, "bad"), embed(local, "one", "bad"))

    assert vectors(good)[0][:2] == [4.0, 4]
    assert (bad.status, bad.error["param"], bad.error["message"]) == (400, "input", "bad is no text")
    assert (listed.status, listed.error["param"]) == (400, "input[1]")
    statuses = [local.record_of(each.headers["x-request-id"])["status"] for each in (good, bad, listed)]
    assert statuses == [200, 400, 400]


def test_long_list_keeps_its_order(local):
    texts = ["x" * length for length in (9, 2, 7, 1, 5, 3, 8, 4, 6, 2, 2)]

    found = vectors(embed(local, *texts)())

    assert [each[0] for each in found] == [len(text) for text in texts]


def test_callers_of_one_batch_are_each_recorded_with_their_own_tokens(local, together):
    one, two = together(embed(local, "abc"), embed(local, "de", "f"))

    assert vectors(one)[0][2] == vectors(two)[0][2]
    assert [answer.json["usage"]["prompt_tokens"] for answer in (one, two)] == [3, 3]
    for answer in (one, two):
        record = local.record_of(answer.headers["x-request-id"])
        assert (record["prompt_tokens"], record["counted"]) == (3, "reported")


def test_more_inputs_than_one_call_may_have_are_refused_at_once(local):
    """A body of a few megabytes can hold a million: each would be an entry in the queue, past its bound."""
    began = time.monotonic()
    million = embed(local, *["a"] * 900_000)()
    few_too_many = embed(local, *["a"] * 2049)()

    for answer in (million, few_too_many):
        assert answer.status == 400
        assert answer.error["param"] == "input"
        assert "`input` has over 2048 entries (`gateway.max_inputs`)" in answer.error["message"]
    assert time.monotonic() - began < 10
    assert len(vectors(embed(local, *["a"] * 2048)())) == 2048


@pytest.mark.parametrize("runs", [False, True], ids=["before-it-runs", "while-it-runs"])
def test_caller_who_leaves_disturbs_nobody(local, together, hold, runs):
    path = "/api/v1/models/acme/slow-batch/inference"
    has_begun = local.folder / "has-begun"
    has_begun.unlink(missing_ok=True)

    def leave() -> None:
        with RawConnection(local.port) as connection:
            connection.send(post_bytes(path, {"input": 0}, key=local.key))
            if runs:
                wait_until(has_begun.exists)
        hold.unlink()

    *answers, _ = together(infer(local, "acme/slow-batch", 1), infer(local, "acme/slow-batch", 2), leave)

    outputs = [answer.json["output"] for answer in answers]
    assert [value for value, _ in outputs] == [1, 2]
    assert all(count == 3 if runs else count >= 2 for _, count in outputs)


# -- how many at once


def test_full_queue_is_a_503_that_says_when(local, hold):
    """One runs, one waits; the others are told to come back, and so is their record."""
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(infer(local, "acme/queue", 0.0)) for _ in range(5)]
        wait_until(lambda: sum(call.done() for call in calls) == 3)
        hold.unlink()
    answers = [call.result() for call in calls]

    refused = [answer for answer in answers if answer.status == 503]
    assert [answer.status for answer in answers].count(200) == 2
    assert len(refused) == 3
    for answer in refused:
        assert answer.error["code"] == "backend_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
        assert "busy" in answer.error["message"]
        record = local.record_of(answer.headers["x-request-id"])
        assert (record["status"], record["charged"]) == (503, 0)


def test_concurrency_is_how_many_run_at_once(local, together):
    answers = together(*(infer(local, "acme/three", 0.4) for _ in range(7)))

    assert max(answer.json["output"] for answer in answers) == 3


# -- time


@pytest.mark.parametrize("model", ["acme/patient", "acme/thread"])
def test_call_that_takes_too_long_is_a_504_and_recorded_as_a_time_out(local, model):
    late = infer(local, model, 1.0)()
    time.sleep(0.8)  # a thread keeps its place until it is done
    quick = infer(local, model, 0.0)()

    assert (late.status, late.error["code"]) == (504, "backend_timeout")
    assert "0.3 s" in late.error["message"]
    assert quick.status == 200
    record = local.record_of(late.headers["x-request-id"])
    assert (record["status"], record["end_reason"], record["charged"]) == (504, "timeout", 0)


def test_late_asynchronous_call_is_cancelled(local):
    infer(local, "acme/patient", 7.0)()

    assert 7.0 in infer(local, "acme/patient", 0.0)().json["output"]


def test_stream_that_takes_too_long_ends_with_the_error(local):
    answer = post(local.port, CHAT, chat("a b c d e", model="acme/dribble", stream=True), key=local.key)

    assert answer.status == 200
    assert answer.chunks[-1]["error"]["code"] == "backend_timeout"
    assert "[DONE]" not in answer.events
    record = local.record_of(answer.headers["x-request-id"])
    assert record["end_reason"] == "timeout"
    assert record["completion_tokens"] > 0


# -- usage


@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_a_model_tells_is_answered_and_recorded(local, stream):
    fields = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = post(local.port, CHAT, chat(model="acme/counted", **fields), key=local.key)

    usage = answer.chunks[-1]["usage"] if stream else answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 7, 18)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 5}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}
    record = local.record_of(answer.headers["x-request-id"])
    counts = [record[f"{name}_tokens"] for name in ("prompt", "completion", "cached", "reasoning")]
    assert (counts, record["counted"]) == ([11, 7, 5, 3], "reported")


# -- what a model takes and gives


def test_model_page_has_the_schemas_of_the_function(local):
    page = local.admin("GET", "/api/v1/models/acme/shapes")
    shown = local.cli_json("models", "show", "acme/shapes")
    text = local.cli("models", "show", "acme/shapes").stdout

    assert page["parameters"]["properties"]["top_k"] == {"type": "integer", "default": 2}
    assert page["parameters"]["additionalProperties"] is False
    assert page["input"]["type"] == "string"
    assert page["output"]["items"]["properties"].keys() >= {"label", "score"}
    assert {name: shown[name] for name in ("input", "parameters", "output")} == {
        name: page[name] for name in ("input", "parameters", "output")
    }
    assert "top_k" in text
    assert "What a text is about." in text


def test_every_model_has_a_page(local):
    for model in local.admin("GET", "/api/v1/models")["data"]:
        assert model["parameters"]["type"] == "object", model["id"]
        assert model["input"] or model["task"] == "generic", model["id"]
        json.dumps(model["output"])


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": "a", "parameters": {"topk": 1}}, "parameters.topk", "Did you mean `top_k`?"),
        ({"input": "a", "parameters": {"top_k": "many"}}, "parameters.top_k", '"type":"integer"'),
        ({"input": 5}, "input", "expected `str`"),
        ({"input": ["a", 5]}, "input[1]", "expected `str`"),
        ({"parameters": {}}, "input", "missing"),
    ],
)
def test_error_names_the_field_and_the_nearest_name(local, body, param, said):
    answer = post(local.port, "/api/v1/models/acme/shapes/inference", body, key=local.key)

    assert (answer.status, answer.error["param"]) == (400, param)
    assert said in answer.error["message"]


ZERO = {"text": "a cat", "candidate_labels": ["cat", "car"]}
ASKED = {"image": PNG_URL, "question": "What?"}
CASES = [
    ("text/classify", "good", [{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}]),
    ("text/zero", ZERO, [{"label": "cat", "score": 0.3}, {"label": "car", "score": 0.3}]),
    ("text/entities", "Anna in Paris", None),
    ("text/answer", {"question": "who", "context": "it was me"}, [{"answer": "me", "score": 0.5, "start": 4, "end": 8}]),
    ("text/fill", "[MASK] cat", None),
    ("text/summary", "abcdef", {"text": "abc"}),
    ("text/rank", {"query": "a", "documents": ["b", "aa"]}, [{"index": 1, "score": 2.0}, {"index": 0, "score": 0.0}]),
    ("text/rows", [[1, 2], [3, 4]], [3.0, 7.0]),
    ("in/image", PNG_URL, None),
    ("image/boxes", PNG_URL, None),
    ("image/masks", PNG_URL, None),
    ("image/caption", PNG_URL, None),
    ("image/ask", ASKED, {"text": "What? image/png"}),
    ("image/paint", "a cat", None),
    ("in/mask", {"image": PNG_URL, "prompt": "more"}, [{"image": PNG_URL}]),
    ("sound/hear", WAV_URL, None),
    ("sound/say", "hello", None),
    ("sound/film", "a film", {"video": "data:video/mp4;base64,ZmlsbQ=="}),
    ("in/dict", {"b": 1, "a": 2}, ["a", "b"]),
    ("in/batched-texts", ["a", "bc"], [[1, 2], [2, 2]]),
    ("acme/counted", "hello", {"text": "some words"}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "value", "output"), CASES, ids=[case[0] for case in CASES])
def test_every_task_over_the_inference_endpoint(local, model, value, output):
    """Each answers, in the form of its task, with its task named, and is recorded under it."""
    answer = infer(local, model, value)()

    assert answer.status == 200, answer.body
    assert output is None or answer.json["output"] == output
    page = local.admin("GET", f"/api/v1/models/{model}")
    record = local.record_of(answer.headers["x-request-id"])
    assert answer.json["task"] == record["task"] == page["task"]


def test_translation_asks_for_its_parameter(local):
    missing = infer(local, "text/translate", "hi")()
    given = infer(local, "text/translate", "hi", parameters={"target": "de"})()

    assert (missing.status, missing.error["param"]) == (400, "parameters.target")
    assert given.json["output"] == {"text": "de: hi"}
