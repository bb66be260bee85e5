"""The worker runtime, called over its Unix socket as the gateway calls it."""

import base64
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

APP = """
import asyncio, dataclasses, threading, time
import lingpai.authoring as lp

@lp.model("acme/shout", task="text-generation", aliases=["shout"])
def shout(prompt: str, *, times: int = 1) -> str:
    return (prompt.upper() + "! ") * times

@lp.model("acme/parrot", task="chat")
async def parrot(messages: list[lp.Message], *, max_tokens: int = 256):
    words = messages[-1].text.split()
    for word in words[:max_tokens]:
        yield word + " "
    if len(words) > max_tokens:
        yield {"finish_reason": "length"}

@lp.model("acme/several", task="chat")
def several(messages, *, n: int = 1):
    return f"{n} at once"

@lp.model("acme/counted", task="chat")
def counted(messages):
    return {"text": "ok", "usage": {"prompt_tokens": 7, "completion_tokens": 2}}

@lp.model("acme/threads", task="chat")
def threads(messages):
    '''A generator in one thread.'''
    for _ in range(3):
        yield str(threading.get_ident()) + " "

@lp.model("acme/failing", task="chat")
async def failing(messages: list[lp.Message]):
    match messages[-1].text:
        case "at once": raise RuntimeError("secret detail")
        case "input": raise lp.InputError("Say something else.", param="messages")
        case "number": yield 5
        case "exit": raise SystemExit(3)
        case "cancelled": raise asyncio.CancelledError
    yield "some "
    raise RuntimeError("secret detail")

@lp.model("acme/quoting", task="generic")
def quoting(value):
    raise ValueError(f"cannot answer {value.pop('text')!r}")

@lp.model("acme/quoting-all", task="generic", batch=lp.Batch(max_size=2, max_wait_ms=10_000))
def quoting_all(values):
    raise ValueError(f"cannot answer {values}")

@lp.model("acme/stuck", task="chat")
async def stuck(messages: list[lp.Message]):
    try:
        yield "begun"
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("saw the cancellation")
        raise
    finally:
        print("async generator closed")

@lp.model("acme/endless", task="chat")
def endless(messages):
    try:
        while True:
            time.sleep(0.01)
            yield "more "
    finally:
        print("sync generator closed")

@lp.model("acme/waiting")
async def waiting(value):
    print("waiting for", value)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("waiting was cancelled")
        raise

@lp.model("acme/embed", task="embedding")
class Embed:
    def load(self, context):
        self.device = context.device
    def __call__(self, texts: list[str], *, dimensions: int = 2):
        return [[float(len(text))] + [0.5] * (dimensions - 1) for text in texts]

@lp.model("acme/embed-one", task="embedding")
def embed_one(text: str):
    return Array([len(text), 1])

@lp.model("acme/embed-tokens", task="embedding")
def embed_tokens(texts: list[str | list[int]]):
    return [[1.0] for _ in texts]

@lp.model("acme/embed-broken", task="embedding")
def embed_broken(texts: list[str]):
    return [[1.0]]

class Array:
    def __init__(self, values): self.values = values
    def tolist(self): return self.values

@lp.model("acme/mood", task="sentiment-classification")
async def mood(text: str):
    return {"bad": 0.25, "good": Array(0.75)}

@dataclasses.dataclass
class Point:
    x: float
    y: float

@lp.model("acme/mirror")
def mirror(point: Point):
    return Point(point.y, point.x)

@lp.model("acme/rows")
def rows(values: list[int]):
    return sum(values)

@lp.model("acme/raw")
def raw(value, *, key: str = "value"):
    if value == "stop": raise StopIteration
    if value == "object": return object()
    return {key: value}

running = 0
@lp.model("acme/two-at-once", concurrency=2)
def two_at_once(value):
    global running
    running += 1
    seen = running
    time.sleep(0.05)
    running -= 1
    return seen
"""

HELLO = [{"role": "user", "content": "hello big world"}]


@pytest.fixture(scope="module")
def worker(serve, write_app):
    return serve(write_app("python_app.py", APP))


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def error_of(response, status, code):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


def test_the_ready_line_describes_the_models(worker):
    models = {model["id"]: model for model in worker.ready["models"]}

    assert models["acme/shout"]["task"] == "completion"
    assert models["acme/shout"]["aliases"] == ["shout"]
    assert models["acme/shout"]["parameters"]["properties"] == {"times": {"type": "integer", "default": 1}}
    assert models["acme/parrot"]["streams"] is True
    assert models["acme/threads"]["description"] == "A generator in one thread."
    assert models["acme/mood"]["task"] == "text-classification"


def test_health(worker):
    assert worker.client.get("/healthz").json() == {"status": "ok"}


def test_a_chat_completion_has_openais_shape(worker):
    body = worker.post("/v1/chat/completions", model="acme/parrot", messages=HELLO).json()

    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert isinstance(body["created"], int)
    assert body["model"] == "acme/parrot"
    message = {"role": "assistant", "content": "hello big world "}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9, "estimated": True}


def test_a_chat_stream_has_one_role_one_end_and_no_usage_unless_asked(worker):
    *data, done = worker.events("/v1/chat/completions", model="acme/parrot", messages=HELLO)
    chunks = [json.loads(each) for each in data]

    assert done == "[DONE]"
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "hello "},
        {"content": "big "},
        {"content": "world "},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)


def test_the_usage_chunk_comes_when_asked_for(worker):
    options = {"include_usage": True}
    *_, usage, done = worker.events(
        "/v1/chat/completions", model="acme/parrot", messages=HELLO, stream_options=options
    )

    assert done == "[DONE]"
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"]["total_tokens"] == 9


def test_the_stream_carries_the_headers_that_keep_proxies_from_buffering(worker):
    response = worker.post("/v1/chat/completions", model="acme/parrot", messages=HELLO, stream=True)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"


def test_content_may_come_in_parts(worker):
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "parts"}]
    body = worker.post(
        "/v1/chat/completions", model="acme/parrot", messages=[{"role": "user", "content": parts}]
    )

    assert body.json()["choices"][0]["message"]["content"] == "hello parts "


def test_the_function_says_when_it_was_cut_short(worker):
    body = worker.post(
        "/v1/chat/completions", model="acme/parrot", messages=HELLO, max_completion_tokens=2
    ).json()

    assert body["choices"][0]["message"]["content"] == "hello big "
    assert body["choices"][0]["finish_reason"] == "length"


def test_usage_that_the_function_reports_is_not_marked_as_estimated(worker):
    body = worker.post("/v1/chat/completions", model="acme/counted", messages=HELLO).json()

    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def test_a_sync_generator_stays_in_one_thread(worker):
    text = worker.text("/v1/chat/completions", model="acme/threads", messages=HELLO)

    assert len(text.split()) == 3
    assert len(set(text.split())) == 1


def test_a_completion_answers_each_prompt(worker):
    body = worker.post("/v1/completions", model="shout", prompt=["a", "b"], times=2).json()

    assert body["object"] == "text_completion"
    assert body["model"] == "shout"
    assert [choice["text"] for choice in body["choices"]] == ["A! A! ", "B! B! "]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]


def test_a_completion_streams(worker):
    assert worker.text("/v1/completions", model="acme/shout", prompt="hey") == "HEY! "


def test_a_chat_model_completes_and_a_completion_model_chats(worker):
    assert worker.text("/v1/completions", model="acme/parrot", prompt="one two") == "one two "
    messages = [{"role": "system", "content": "be loud"}, *HELLO]
    assert (
        worker.text("/v1/chat/completions", model="acme/shout", messages=messages)
        == "BE LOUD\n\nHELLO BIG WORLD! "
    )


@pytest.mark.parametrize("stream", [False, True])
def test_more_answers_than_the_model_gives_are_refused(worker, stream):
    chat = {"model": "acme/parrot", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    completion = {"model": "acme/shout", "prompt": "hi", "stream": stream}

    for path, fields in (("/v1/chat/completions", chat), ("/v1/completions", completion)):
        error = error_of(worker.post(path, **fields, n=2), 400, "invalid_request")
        assert (error["param"], error["message"]) == ("n", "This model gives one answer; leave `n` out.")


@pytest.mark.parametrize("n", [None, 1])
def test_one_answer_is_what_a_model_gives(worker, n):
    messages = [{"role": "user", "content": "hi"}]
    response = worker.post("/v1/chat/completions", model="acme/parrot", messages=messages, n=n)

    assert response.status_code == 200
    assert "x-lingpai-dropped-params" not in response.headers


def test_a_function_that_takes_n_is_given_it(worker):
    messages = [{"role": "user", "content": "hi"}]
    response = worker.post("/v1/chat/completions", model="acme/several", messages=messages, n=2)

    assert response.json()["choices"][0]["message"]["content"] == "2 at once"


def test_parameters_without_effect_are_told(worker):
    fields = {"temperature": 0.5, "seed": None, "bad\r\nname": 1, "user": "me"}
    response = worker.post("/v1/chat/completions", model="acme/parrot", messages=HELLO, **fields)

    assert response.headers["x-lingpai-dropped-params"] == "temperature, user"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {}, "messages"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": "hi"}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": 1}]}, "messages[0].role"),
        ("/v1/chat/completions", {"messages": HELLO, "stream": "yes"}, "stream"),
        ("/v1/chat/completions", {"messages": HELLO, "stream_options": 1}, "stream_options"),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": "few"}, "max_tokens"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": [1, 2]}, "prompt"),
        ("/v1/inference", {}, "input"),
        ("/v1/inference", {"input": 5}, "input"),
        ("/v1/inference", {"input": []}, "input"),
        ("/v1/inference", {"input": "hi", "parameters": []}, "parameters"),
        ("/v1/inference", {"input": "hi", "parameters": {"max_tokes": 3}}, "parameters.max_tokes"),
        ("/v1/predict", {}, "input_data"),
    ],
)
def test_input_that_does_not_fit_is_refused_by_name(worker, path, fields, param):
    error = error_of(worker.post(path, model="acme/parrot", **fields), 400, "invalid_request")

    assert error["param"] == param


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "invalid_json"),
        (b'{"model": 1e999}', "invalid_json"),
        (b"[1]", "invalid_request"),
        (b'{"model": 5}', "invalid_request"),
        (b"{}", "invalid_request"),
    ],
)
def test_a_broken_body_is_the_callers_fault(worker, body, code):
    error_of(worker.client.post("/v1/chat/completions", content=body), 400, code)


def test_an_unknown_model_names_the_nearest(worker):
    error = error_of(worker.post("/v1/chat/completions", model="acme/parot"), 404, "model_not_found")

    assert "`acme/parrot`" in error["message"]


def test_a_wrong_endpoint_names_the_right_one(worker):
    error = error_of(
        worker.post("/v1/chat/completions", model="acme/embed", messages=HELLO), 400, "unsupported_task"
    )
    assert "/v1/embeddings" in error["message"]
    error_of(worker.post("/v1/embeddings", model="acme/parrot", input="a"), 400, "unsupported_task")


def test_unknown_addresses_and_methods(worker):
    error_of(worker.post("/nowhere"), 404, "not_found")
    error_of(worker.client.get("/v1/predict"), 405, "method_not_allowed")


@pytest.mark.parametrize("what", ["at once", "number", "exit", "cancelled"])
def test_a_failure_of_the_models_code_is_a_500_without_details(worker, what):
    messages = [{"role": "user", "content": what}]
    for stream in (False, True):
        response = worker.post("/v1/chat/completions", model="acme/failing", messages=messages, stream=stream)
        error_of(response, 500, "model_error")
        assert "secret" not in response.text


def test_the_traceback_of_a_failure_is_printed_with_the_request_id(worker):
    messages = [{"role": "user", "content": "at once"}]
    worker.client.post(
        "/v1/chat/completions",
        json={"model": "acme/failing", "messages": messages},
        headers={"x-request-id": "req_test_1"},
    )

    log = worker.log.read_text()
    assert "ERROR call req_test_1 to /v1/chat/completions failed" in log
    assert "secret detail" in log
    assert "engines/calls.py" not in log


def test_a_failure_is_printed_without_what_the_caller_sent(worker):
    """Though the function has taken it out of what it was given."""
    sent = {"text": "Where is it? quoted-canary-5a1e"}
    error_of(worker.post("/v1/inference", model="acme/quoting", input=sent), 500, "model_error")

    log = worker.log.read_text()
    assert "ValueError: what it says repeats what a caller sent, or may do so, and is left out" in log
    assert "canary" not in log


def test_a_failure_of_a_batch_is_printed_without_what_any_caller_sent(worker):
    """Of either call the log would tell what the other one sent."""

    def call(text):
        return worker.post("/v1/inference", model="acme/quoting-all", input=text)

    with ThreadPoolExecutor(2) as pool:
        for response in pool.map(call, ["Mine, batched-canary-5a1e", "Theirs, batched-canary-5a1f"]):
            error_of(response, 500, "model_error")

    log = worker.log.read_text()
    assert "its batch failed, as told above: ValueError." in log
    assert "canary" not in log


def test_an_input_error_of_the_models_code_is_a_400(worker):
    messages = [{"role": "user", "content": "input"}]
    response = worker.post("/v1/chat/completions", model="acme/failing", messages=messages)

    error = error_of(response, 400, "invalid_request")
    assert (error["message"], error["param"]) == ("Say something else.", "messages")


def test_a_failure_in_mid_stream_is_an_error_event_without_done(worker):
    messages = [{"role": "user", "content": "go"}]
    *_, piece, error = worker.events("/v1/chat/completions", model="acme/failing", messages=messages)

    assert json.loads(piece)["choices"][0]["delta"] == {"content": "some "}
    assert json.loads(error)["error"]["code"] == "model_error"


@pytest.mark.parametrize(
    ("model", "traces"),
    [
        ("acme/stuck", ["saw the cancellation", "async generator closed"]),
        ("acme/endless", ["sync generator closed"]),
    ],
)
def test_a_caller_who_leaves_a_stream_stops_the_function(worker, model, traces):
    fields = {"model": model, "messages": HELLO, "stream": True}
    with worker.client.stream("POST", "/v1/chat/completions", json=fields) as response:
        next(response.iter_lines())

    wait_until(lambda: all(trace in worker.log.read_text() for trace in traces))


def test_a_caller_who_leaves_while_waiting_cancels_an_async_function(worker):
    body = b'{"model": "acme/waiting", "input": "leaver"}'
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(worker.log.with_suffix(".sock")))
    connection.sendall(
        b"POST /v1/inference HTTP/1.1\r\nhost: w\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    wait_until(lambda: "waiting for leaver" in worker.log.read_text())

    connection.close()

    wait_until(lambda: "waiting was cancelled" in worker.log.read_text())


def test_sync_calls_beyond_the_concurrency_queue(worker):
    seen = []

    def call():
        seen.append(worker.post("/v1/predict", model="acme/two-at-once", input_data=0).json())

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 6
    assert max(seen) == 2


def test_embeddings_are_numbers_in_order(worker):
    body = worker.post("/v1/embeddings", model="acme/embed", input=["a", "bbb"]).json()

    assert body["object"] == "list"
    assert body["data"] == [
        {"object": "embedding", "index": 0, "embedding": [1.0, 0.5]},
        {"object": "embedding", "index": 1, "embedding": [3.0, 0.5]},
    ]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2, "estimated": True}


def test_embeddings_come_as_base64_of_little_endian_float32(worker):
    body = worker.post("/v1/embeddings", model="acme/embed", input="four", encoding_format="base64").json()

    assert struct.unpack("<2f", base64.b64decode(body["data"][0]["embedding"])) == (4.0, 0.5)


def test_dimensions_are_honoured_where_the_function_knows_them(worker):
    body = worker.post("/v1/embeddings", model="acme/embed", input="a", dimensions=3).json()

    assert len(body["data"][0]["embedding"]) == 3
    response = worker.post("/v1/embeddings", model="acme/embed-one", input="a", dimensions=3)
    assert error_of(response, 400, "invalid_request")["param"] == "dimensions"


def test_a_function_of_one_text_is_called_per_text_and_may_return_arrays(worker):
    body = worker.post("/v1/embeddings", model="acme/embed-one", input=["a", "bb"]).json()

    assert [each["embedding"] for each in body["data"]] == [[1, 1], [2, 1]]


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_with_langchains_switch_unless_the_function_reads_them(worker, tokens):
    error = error_of(worker.post("/v1/embeddings", model="acme/embed", input=tokens), 400, "invalid_request")
    assert "check_embedding_ctx_length=False" in error["message"]

    body = worker.post("/v1/embeddings", model="acme/embed-tokens", input=tokens).json()
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


@pytest.mark.parametrize("value", ["", [], [""], ["a", ""], None, 5, {}, ["a", 1], [[]], [["a"]]])
def test_empty_and_mixed_embedding_input_is_refused(worker, value):
    error = error_of(worker.post("/v1/embeddings", model="acme/embed", input=value), 400, "invalid_request")

    assert error["param"] == "input"


def test_an_unknown_encoding_is_refused(worker):
    response = worker.post("/v1/embeddings", model="acme/embed", input="a", encoding_format="float16")

    assert error_of(response, 400, "invalid_request")["param"] == "encoding_format"


def test_a_missing_vector_is_the_models_fault(worker):
    error_of(worker.post("/v1/embeddings", model="acme/embed-broken", input=["a", "b"]), 500, "model_error")


@pytest.mark.parametrize(
    ("model", "value", "output"),
    [
        ("acme/shout", "hi", {"text": "HI! "}),
        ("acme/shout", ["a", "b"], [{"text": "A! "}, {"text": "B! "}]),
        ("acme/shout", {"prompt": "hi"}, {"text": "HI! "}),
        ("acme/parrot", "hi you", {"text": "hi you "}),
        ("acme/parrot", HELLO, {"text": "hello big world "}),
        ("acme/parrot", {"messages": HELLO}, {"text": "hello big world "}),
        ("acme/embed", "four", [[4.0, 0.5]]),
        ("acme/embed", ["a", "bb"], [[1.0, 0.5], [2.0, 0.5]]),
        ("acme/mood", "x", [{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}]),
        ("acme/mirror", {"x": 1, "y": 2}, {"x": 2.0, "y": 1.0}),
        ("acme/mirror", [{"x": 1, "y": 2}], [{"x": 2.0, "y": 1.0}]),
        ("acme/rows", [1, 2, 3], 6),
        ("acme/rows", [[1, 2], [3]], [3, 3]),
        ("acme/raw", {"a": 1}, {"value": {"a": 1}}),
        ("acme/raw", [1, "b"], [{"value": 1}, {"value": "b"}]),
    ],
)
def test_inference_answers_by_task_and_a_list_is_a_batch(worker, model, value, output):
    body = worker.post("/v1/inference", model=model, input=value).json()

    assert body["output"] == output
    assert set(body) == {"task", "output", "usage"}
    assert (
        body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    )


def test_a_batch_item_that_does_not_fit_is_named(worker):
    response = worker.post("/v1/inference", model="acme/mirror", input=[{"x": 1, "y": 2}, {"x": 1}])

    assert error_of(response, 400, "invalid_request")["param"] == "input[1]"


def test_inference_takes_parameters(worker):
    body = worker.post("/v1/inference", model="acme/raw", input=1, parameters={"key": "k"}).json()

    assert body["output"] == {"k": 1}


def test_predict_answers_what_the_function_returned(worker):
    assert worker.post("/v1/predict", model="acme/raw", input_data=[1, 2]).json() == {"value": [1, 2]}
    assert worker.post("/v1/predict", model="acme/shout", input_data="hi").json() == "HI! "


@pytest.mark.parametrize("value", ["stop", "object"])
def test_what_cannot_be_answered_is_the_models_fault(worker, value):
    error_of(worker.post("/v1/predict", model="acme/raw", input_data=value), 500, "model_error")


def test_a_single_model_needs_no_name(serve, write_app):
    worker = serve(
        write_app("single.py", "def predict(input_data):\n    return {'prediction': input_data}\n")
    )

    assert worker.ready["models"][0]["id"] == "local/predict"
    assert worker.post("/v1/predict", input_data="x").json() == {"prediction": "x"}
