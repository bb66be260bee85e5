"""What is reserved for a call, and what the backend is told so that it stays within."""

import json

import pytest
from gateway_fakes import FakeBackend, model
from gateway_limits import PRICE, chat, limit
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.gateway.weigh import Answers, Weight, amounts, fit
from lingpai.prices import Price
from lingpai.quotas.amounts import Amounts
from lingpai.wire.prompt_size import PromptSize

TEXT_GENERATION = {"properties": {"max_tokens": {"type": "integer"}}}


def sent(stage):
    """Parsed body of the last request to the backend."""
    return json.loads(stage.link.sent[-1][1])


def test_call_without_weighing_limits_is_not_looked_into(limited):
    limit(limited, "5/day", "2 concurrent")

    call, _ = chat(limited)

    assert call.weight is None
    assert "max_tokens" not in sent(limited)


def test_backend_is_told_the_default_where_the_caller_names_no_length(limited):
    limit(limited, "100000 tokens/day")

    chat(limited)

    assert sent(limited)["max_tokens"] == 4096


def test_model_has_a_default_of_its_own(limited):
    limited.serve_only(model(default_max_tokens=100))
    limit(limited, "100000 tokens/day")

    chat(limited)

    assert sent(limited)["max_tokens"] == 100


def test_default_shrinks_with_what_is_left(limited):
    (meter,) = limit(limited, "200 tokens/day")

    call, _ = chat(limited)

    assert call.reserved.tokens == meter.reserved == 200
    assert 100 < sent(limited)["max_tokens"] < 200


def test_call_that_cannot_get_a_useful_answer_is_refused(limited, error_of):
    limit(limited, "20 tokens/day")

    _, front = chat(limited)

    assert error_of(front)["code"] == "insufficient_quota"
    assert limited.link.sent == []


def test_length_that_the_caller_names_is_kept_and_reserved(limited):
    limit(limited, "1000 tokens/day")

    call, _ = chat(limited, max_tokens=500)

    assert sent(limited)["max_tokens"] == 500
    assert 500 < call.reserved.tokens < 1000


def test_body_that_names_its_length_plainly_is_sent_as_it_came(limited):
    limit(limited, "100000 tokens/day")
    body = b'{"model" : "acme/chat", "max_tokens":500, "messages": [{"role":"user","content":"x"}]}'

    limited.call(body=body)

    assert limited.link.sent[-1][1] == body


def test_upper_bound_is_reserved_while_there_is_room_and_the_estimate_counts_when_there_is_not(limited):
    limit(limited, "1000 tokens/day")

    first, _ = chat(limited, max_tokens=500)
    second, _ = chat(limited, max_tokens=300)

    assert first.reserved == first.weight.most
    assert first.weight.least == first.weight.most
    assert second.weight.least.tokens < second.reserved.tokens < second.weight.most.tokens


def test_length_over_the_limit_is_refused_with_advice(limited, error_of):
    limit(limited, "1000 tokens/day")

    _, front = chat(limited, max_tokens=1000)

    assert "max_tokens" in error_of(front)["message"]
    assert front.head["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fields", "name", "length"),
    [
        ({"max_completion_tokens": 50}, "max_completion_tokens", 50),
        ({"max_new_tokens": 50}, "max_tokens", 50),
        ({"max_tokens": 10, "max_completion_tokens": 50}, "max_completion_tokens", 50),
        ({"max_tokens": 50.0}, "max_tokens", 50),
        ({"max_tokens": None}, "max_tokens", 4096),
        ({"maxTokens": 9_000_000}, "max_tokens", 4096),
        ({"n_predict": 50}, "max_tokens", 50),
        ({"n_predict": -1, "num_predict": "many", "max_output_tokens": 1e9}, "max_tokens", 4096),
        ({"max_tokens": 20, "n_predict": 50}, "max_tokens", 20),
        ({"max_tokens": 20, "options": {"num_predict": 50, "Max_Tokens": 9}}, "max_tokens", 20),
        ({"max_tokens": 20, "min_tokens": 21}, "max_tokens", 20),
    ],
)
def test_backend_reads_one_length_whatever_the_caller_wrote(limited, fields, name, length):
    """Two spellings could be weighed as one and run as the other."""
    limit(limited, "100000 tokens/day")

    chat(limited, **fields)

    told = sent(limited)
    assert told.keys() - {"model", "messages", "options"} == {name}
    assert told[name] == length
    assert told.get("options", {}) == {}


def test_repeated_length_is_weighed_as_it_is_sent(limited):
    limit(limited, "1000 tokens/day")
    body = (
        b'{"model":"acme/chat","messages":[{"role":"user","content":"x"}],"max_tokens":900,"max_tokens":10}'
    )

    call = limited.call(body=body)

    assert limited.link.sent[-1][1].count(b"max_tokens") == 1
    assert sent(limited)["max_tokens"] == 10
    assert call.weight.longest == 10


@pytest.mark.parametrize("name", ["o3-mini", "openai/o1", "gpt-5-mini"])
def test_models_that_refuse_max_tokens_get_their_own_word(limited, name):
    limited.serve_only(model(upstream_name=name))
    limit(limited, "100000 tokens/day")

    chat(limited)

    assert sent(limited)["max_completion_tokens"] == 4096
    assert "max_tokens" not in sent(limited)


def test_every_answer_is_reserved_for(limited):
    limit(limited, "100000 tokens/day")

    call, _ = chat(limited, max_tokens=100, n=5)

    assert call.weight.least.tokens >= 500
    assert call.weight.answers.choices == 5


def test_every_prompt_of_a_list_is_reserved_for(limited):
    limit(limited, "100000 tokens/day")

    call = limited.call(
        b"/v1/completions", {"model": "acme/chat", "prompt": ["a", "b", "c"], "max_tokens": 10, "best_of": 2}
    )

    assert call.weight.answers.choices == 6


def test_embedding_has_a_prompt_only(limited):
    limited.serve_only(model("acme/embed", "embedding"))
    limit(limited, "1000 tokens/day")

    call = limited.call(b"/v1/embeddings", {"model": "acme/embed", "input": "hello world"})

    assert call.weight.answers.choices == 0
    assert call.weight.least.tokens < 10
    assert "max_tokens" not in sent(limited)


@pytest.mark.parametrize("schema", [TEXT_GENERATION, {"additionalProperties": True}])
def test_worker_is_told_a_length_where_its_function_takes_one(limited, schema):
    limited.serve_only(model(backend=FakeBackend(kind="worker"), parameters=schema))
    limit(limited, "100000 tokens/day")

    limited.call(b"/api/v1/models/acme/chat/inference", {"input": "hi", "parameters": {"times": 2}})

    assert sent(limited)["parameters"] == {"times": 2, "max_tokens": 4096}


def test_worker_whose_function_takes_no_length_is_told_none(limited):
    limited.serve_only(model(backend=FakeBackend(kind="worker")))
    limit(limited, "100000 tokens/day")

    call, _ = chat(limited)

    assert "max_tokens" not in sent(limited)
    assert call.reserved.tokens > 4096


def test_money_bounds_the_length_too(limited):
    limited.serve_only(model(price=PRICE))
    (meter,) = limit(limited, "0.0005 USD/day")

    call, _ = chat(limited)

    told = sent(limited)["max_tokens"]
    assert meter.reserved == call.reserved.usd == 500_000
    assert PRICE.cost(call.weight.likely, told) <= 500_000 < PRICE.cost(call.weight.likely, told + 2)


@pytest.mark.parametrize("currency", [None, "CNY"])
def test_money_in_another_currency_does_not_count(limited, currency):
    price = None if currency is None else Price(input=1, output=1, cached_input=1, request=1, currency="CNY")
    limited.serve_only(model(price=price))
    limit(limited, "0.000000001 USD/day")

    call, front = chat(limited)

    assert (call.weight, front.sent) == (None, b"")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": -(10**30)}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "3"}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10_000_001}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1e400}, None),
        ({"max_completion_tokens": 10**40}, "max_completion_tokens"),
        ({"messages": [{}] * 101}, "messages"),
    ],
)
def test_numbers_that_are_none_are_refused_for_every_caller(make_stage, front, error_of, fields, param):
    stage = make_stage(max_messages=100)
    stage.serve(model())
    body = {"model": "acme/chat", "messages": [{"role": "user", "content": "x"}], **fields}

    stage.call(body=json.dumps(body).replace("Infinity", "1e999").encode(), front=front)

    assert front.head["status"] == "400 Bad Request"
    assert param is None or error_of(front)["param"] == param
    assert stage.link.sent == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (b"/v1/completions", {"prompt": "x", "best_of": 100}),
        (b"/api/v1/generate", {"prompt": "x", "n": 100}),
        (b"/api/v1/generate", {"prompt": "x", "max_length": -1}),
        (b"/api/v1/models/acme/chat/inference", {"input": "x", "parameters": {"n": 100}}),
    ],
)
def test_plain_endpoints_are_bounded_alike(served, front, path, body):
    served.call(path, {"model": "acme/chat", **body}, front=front)

    assert front.head["status"] == "400 Bad Request"
    assert served.link.sent == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"acme/chat","prompt":[1e999]}',
        b'{"model":"acme/chat","prompt":"x","user":1e999}',
        b'{"model":"acme/chat","prompt":"x","n":1e999}',
        b'{"model":"acme/chat","prompt":"x","best_of":{}}',
        b'{"model":"acme/chat","prompt":["\\ud800"]}',
        b'{"model":"acme/chat","prompt":[],"max_new_tokens":"x"}',
        b'{"model":"acme/chat","prompt":{"a":1},"max_tokens":5}',
    ],
)
def test_odd_bodies_are_no_fault_of_ours(limited, front, body):
    """What cannot be weighed is refused, or left to the backend to refuse."""
    (meter,) = limit(limited, "100000 tokens/day")

    call = limited.call(b"/v1/completions", body, front=front)

    assert front.head["status"] == "400 Bad Request" if front.sent else call.is_admitted
    assert meter.reserved == (0 if front.sent else call.reserved.tokens)


@given(
    price=st.none()
    | st.builds(
        Price,
        input=st.integers(0, 10**9),
        output=st.integers(0, 10**9),
        cached_input=st.integers(0, 10**9),
        request=st.integers(0, 10**9),
        currency=st.sampled_from(["USD", "CNY"]),
    ),
    prompt=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    longest=st.integers(1, 10**5),
    choices=st.integers(1, 64),
    share=st.floats(0, 1),
)
@settings(deadline=None, max_examples=300)
def test_backend_that_obeys_never_uses_more_than_was_granted(price, prompt, longest, choices, share):
    """Whatever lies between the least and the most is granted, of tokens and of money."""
    likely, spare = prompt
    least = amounts(price, likely, min(16, longest) * choices)
    most = amounts(price, likely + spare, longest * choices)
    granted = Amounts(*(low + int((high - low) * share) for low, high in zip(least, most, strict=True)))
    weight = Weight(
        least, most, PromptSize(likely, likely + spare), likely, Answers(None, choices, "max_tokens"), longest
    )

    told = json.loads(fit(weight, granted, price, b"{}"))["max_tokens"]

    used = Amounts(1, likely + told * choices)
    cost = 0 if price is None else price.cost(likely, told * choices)
    assert 1 <= told <= longest
    assert used.tokens <= granted.tokens
    assert cost <= max(granted.usd, granted.cny)


def test_length_that_is_said_once_leaves_the_body_as_it_is(limited):
    limit(limited, "100000 tokens/day")
    body = b'{"model":"acme/chat", "messages":[{"role":"user","content":"x"}], "max_tokens":10, "temperature":0.50}'

    limited.call(body=body)

    assert limited.link.sent[-1][1] == body


@pytest.mark.parametrize("blank", [b"\n", b" ", b"\t\r\n"])
def test_blanks_in_front_of_the_body_change_nothing(limited, blank):
    limit(limited, "100000 tokens/day")
    body = blank + b'{"model":"acme/chat","messages":[{"role":"user","content":"x"}]}'

    call = limited.call(body=body)

    assert call.weight.answers.choices == 1
    assert sent(limited)["max_tokens"] == 4096


@pytest.mark.parametrize("name", ["N", "Best_Of", "Messages", "Stream_Options", "N_Predict", "Max_Tokens"])
def test_what_another_case_would_hide_is_refused(limited, error_of, name):
    (meter,) = limit(limited, "100000 tokens/day")

    _, front = chat(limited, **{name: 1000})

    assert error_of(front)["param"] == name
    assert (limited.link.sent, meter.used) == ([], 0)


def test_prompt_is_weighed_as_it_is_sent(limited):
    """What stands in `parameters` is sent beside the prompt."""
    limit(limited, "100000 tokens/day")

    call = limited.call(
        b"/api/v1/models/acme/chat/inference",
        {"input": "x", "parameters": {"chat_template": "long text " * 500}},
    )

    assert call.weight.prompt.likely >= 1000


def test_prompts_given_as_vectors_have_answers_too(limited):
    limit(limited, "100000 tokens/day")

    call = limited.call(
        b"/v1/completions",
        {"model": "acme/chat", "prompt": ["a", "b"], "prompt_embeds": ["QUJD"] * 3, "max_tokens": 10},
    )

    assert call.weight.answers.choices == 5


def form(*parts):
    """A form with a file of each (type, bytes)."""
    pieces = [
        b'--b\r\nContent-Disposition: form-data; name="file%d"; filename="f"\r\nContent-Type: %b\r\n\r\n%b\r\n'
        % (number or 0, kind, data)
        for number, (kind, data) in enumerate(parts)
    ]
    return b"".join(pieces).replace(b'"file0"', b'"file"') + b"--b--\r\n"


@pytest.mark.parametrize(
    ("files", "tokens"),
    [
        ([(b"audio/wav", b"RIFF\xff")], 1500),
        ([(b"audio/wav", b"RIFF\xff"), (b"image/png", b"\xff")], 3000),
        ([(b"text/plain", b"long text " * 2000)], 5000),
        ([(b"application/octet-stream", b"long text " * 2000)], 5000),
    ],
)
def test_files_in_a_form_are_weighed(limited, files, tokens):
    limited.serve_only(model("acme/scribe", "automatic-speech-recognition"))
    (meter,) = limit(limited, "100000 tokens/day")

    call = limited.call(
        b"/v1/audio/transcriptions",
        form(*files),
        headers=[(b"content-type", b"multipart/form-data; boundary=b")],
    )

    assert tokens <= call.weight.least.tokens <= tokens + 200 + tokens // 4
    assert meter.reserved >= tokens
