"""The calls of the articles this product grew from, as they are written there (only address, names and keys changed)."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from requests import Session

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import note_error
from tests.e2e.stock_clients import requests_session
from tests.secrets_scan import SCAN

PREDICT = """
def predict(input_data):
    if input_data == "return a list":
        return [{"label": "a", "score": 1.0}]
    if input_data == "return a text":
        return "text"
    return {"prediction": str(input_data)[::-1], "length": len(input_data)}
"""
SENTIMENT = """
import lingpai as lp

@lp.model("damo/nlp_structbert_sentiment-classification_chinese-base", task="sentiment-classification")
def sentiment(text: str):
    return [{"label": "正面", "score": 0.9}, {"label": "负面", "score": 0.1}]

@lp.model("acme/fails", task="generic")
def fails(value):
    raise RuntimeError("a secret of the server")

@lp.model("acme/quotes", task="generic")
def quotes(value):
    raise ValueError(f"cannot answer {value!r}")
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    """A classifier with the platform's long id, and the demonstration models."""
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "damo.py").write_text(SENTIMENT)
    server = LingpaiServer(folder, "damo.py", "lingpai.demo").start()
    yield server
    server.stop()


@pytest.fixture
def key(service: LingpaiServer, key_name: str) -> str:
    return service.make_key(key_name)


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory):
    """The function of the article, served as the article does: alone."""
    folder = tmp_path_factory.mktemp("function")
    (folder / "app.py").write_text(PREDICT)
    server = LingpaiServer(folder, "app.py:predict").start()
    yield server
    server.stop()


@pytest.fixture
def function_key(function: LingpaiServer, key_name: str) -> str:
    return function.make_key(key_name)


@pytest.fixture(scope="module")
def requests() -> Iterator[Session]:
    """The library."""
    with requests_session() as session:
        yield session


def curl(*arguments: str) -> tuple[int, dict]:
    """Run curl; status and JSON of the answer."""
    SCAN.secrets.add_prompts(" ".join(arguments).encode())
    if shutil.which("curl") is None:
        pytest.fail("install curl: apt-get install curl")
    outcome = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}", *arguments],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    body, _, status = outcome.stdout.rpartition("\n")
    note_error(int(status), {}, body.encode())
    return int(status), json.loads(body)


# -- 0: a model platform's inference call


def test_inference_call_of_a_model_whose_id_has_a_slash(service, key, requests):
    """POST /api/v1/models/<id>/inference with a bearer token answers our five fields."""
    model_id = "damo/nlp_structbert_sentiment-classification_chinese-base"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    response = requests.post(
        f"{service.base}/api/v1/models/{model_id}/inference", headers=headers,
        json={"input": "Sample input data, seed-canary-3b7d"}, timeout=10,
    )  # fmt: skip

    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"request_id", "model", "task", "output", "usage"}
    assert answer["model"] == model_id
    assert answer["task"] == "text-classification"
    assert answer["output"] == [{"label": "正面", "score": 0.9}, {"label": "负面", "score": 0.1}]
    assert answer["request_id"] == response.headers["x-request-id"]


def test_inference_with_an_encoded_slash_and_a_batch(service, key, requests):
    """The slash may be percent-encoded, and a list is a batch."""
    response = requests.post(
        f"{service.base}/api/v1/models/lingpai%2Fsentiment/inference", headers={"Authorization": f"Bearer {key}"},
        json={"input": ["太好了, batch-canary-3b7d", "terrible batch-canary-3b7e"]}, timeout=10,
    )  # fmt: skip

    first, second = response.json()["output"]
    assert response.status_code == 200
    assert first[0]["label"] != second[0]["label"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("lingpai/eliza", dict), ("lingpai/hashing-embedding", list)],
)
def test_inference_output_is_typed_by_task(service, key, model, expected, requests):
    """Generation answers {"text"}, embedding answers vectors."""
    response = requests.post(
        f"{service.base}/api/v1/models/{model}/inference", headers={"Authorization": f"Bearer {key}"},
        json={"input": "I am sad, typed-canary-3b7d", "parameters": {}}, timeout=10,
    )  # fmt: skip

    output = response.json()["output"]
    assert isinstance(output, expected)
    assert output["text"] if expected is dict else isinstance(output[0], (float, list))


def test_owasp_api8_error_in_the_models_own_code_tells_the_caller_nothing_of_it(service, key, requests):
    """An exception in user code is a 500 model_error without its text; the traceback is in the log."""
    response = requests.post(
        f"{service.base}/api/v1/models/acme/fails/inference", headers={"Authorization": f"Bearer {key}"},
        json={"input": 1}, timeout=10,
    )  # fmt: skip

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "model_error"
    assert "secret of the server" not in response.text
    assert "a secret of the server" in service.stderr


def test_error_that_repeats_what_the_caller_sent_is_logged_without_it(service, key, requests):
    """The log names the class and the line of code; what was asked is in no log, whatever the exception says."""
    response = requests.post(
        f"{service.base}/api/v1/models/acme/quotes/inference", headers={"Authorization": f"Bearer {key}"},
        json={"input": "Who is it? raised-canary-3b7d"}, timeout=10,
    )  # fmt: skip

    assert response.status_code == 500
    assert "ValueError" in response.json()["error"]["message"]
    assert 'raise ValueError(f"cannot answer {value!r}")' in service.stderr
    assert "canary" not in response.text + service.stderr


# -- 1: one's own function behind keys


def test_predict_with_the_key_alone_in_authorization(function, function_key):
    """The article's curl: Authorization holds the key without Bearer, the answer is what the function returned."""
    status, answer = curl(
        "-X", "POST", f"{function.base}/predict", "-H", f"Authorization: {function_key}",
        "-H", "Content-Type: application/json", "-d", '{"input_data": "your input data, curl-canary-3b7d"}',
    )  # fmt: skip

    assert (status, answer) == (200, {"prediction": "d7b3-yranac-lruc ,atad tupni ruoy", "length": 33})


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
def test_predict_with_bearer_in_any_case(function, function_key, scheme):
    """With Bearer it works as well; the scheme's case does not matter."""
    status, answer = curl(
        f"{function.base}/predict",
        "-H",
        f"Authorization: {scheme}{function_key}",
        "--json",
        '{"input_data": "abc"}',
    )

    assert (status, answer["prediction"]) == (200, "cba")


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "X-Goog-Api-Key"])
def test_predict_with_other_key_headers(function, function_key, header):
    """Headers that other services' clients use hold the key, too."""
    status, answer = curl(
        f"{function.base}/predict", "-H", f"{header}: {function_key}", "--json", '{"input_data": "abc"}'
    )

    assert (status, answer["prediction"]) == (200, "cba")


@pytest.mark.parametrize(
    "arguments", [("-H", "Authorization: wrong"), ("-H", "Authorization: Bearer wrong"), ()]
)
def test_predict_with_a_wrong_key_or_none(function, arguments):
    """A wrong key and no key are 401 with a JSON text."""
    status, answer = curl(
        f"{function.base}/predict", *arguments, "--json", '{"input_data": "refused-canary-3b7d"}'
    )

    assert status == 401
    assert answer["error"]["message"]


@pytest.mark.parametrize("value", ["text", 5.5, [1, 2, 3], {"a": {"b": None}}, "汉字 \U0001f600"])
def test_predict_takes_any_json(function, function_key, value, requests):
    """Whatever JSON stands in input_data reaches the function."""
    response = requests.post(
        f"{function.base}/predict",
        json={"input_data": value},
        headers={"Authorization": function_key},
        timeout=10,
    )

    if isinstance(value, float):
        assert response.status_code == 500  # the article's function asks for a length
    else:
        assert response.json() == {"prediction": str(value)[::-1], "length": len(value)}


@pytest.mark.parametrize(
    ("asked", "returned"), [("return a list", [{"label": "a", "score": 1.0}]), ("return a text", "text")]
)
def test_predict_answers_unchanged_what_is_no_object(function, function_key, asked, returned, requests):
    """A function may return a list or a text; it is answered unchanged, too."""
    response = requests.post(
        f"{function.base}/predict",
        json={"input_data": asked},
        headers={"Authorization": function_key},
        timeout=10,
    )

    assert (response.status_code, response.json()) == (200, returned)


# -- 2: a text-generation service


def test_generate_with_the_article_s_fields(service, key, requests):
    """POST /api/v1/generate with prompt and max_length answers results with texts."""
    api_url = f"{service.base}/api/v1/generate"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = {"prompt": "I feel a bit lonely today, lonely-canary-3b7d", "max_length": 200}

    response = requests.post(api_url, headers=headers, json=data, timeout=10)

    assert response.status_code == 200
    assert response.json()["results"][0]["text"]


def test_generate_takes_other_names_for_its_parameters(service, key, requests):
    """max_new_tokens bounds the text as max_length does, and further parameters do no harm."""
    data = {
        "prompt": "I feel a bit lonely today, lonely-canary-3b7d", "max_new_tokens": 2, "temperature": 0.7, "top_p": 0.9, "top_k": 40,
        "stop": ["\n"], "repetition_penalty": 1.1,
    }  # fmt: skip

    response = requests.post(
        f"{service.base}/api/v1/generate", headers={"Authorization": f"Bearer {key}"}, json=data, timeout=10
    )

    assert response.status_code == 200
    assert len(response.json()["results"][0]["text"].split()) == 2


def test_generate_with_curl(service, key):
    """The same with curl, and a wrong key is a 401 with a reason."""
    body = '{"prompt": "Hello, generate-canary-3b7d", "max_length": 200}'

    status, answer = curl(
        f"{service.base}/api/v1/generate", "-H", f"Authorization: Bearer {key}", "--json", body
    )
    refused, error = curl(f"{service.base}/api/v1/generate", "-H", "Authorization: Bearer no", "--json", body)

    assert (status, bool(answer["results"][0]["text"])) == (200, True)
    assert (refused, error["error"]["code"]) == (401, "invalid_api_key")


# -- 3: a desktop client


def test_what_a_desktop_client_does(service, key, requests):
    """Fetch the model list, pick a model, check it, and chat in a stream."""
    headers = {
        "Authorization": f"Bearer {key}",
        "HTTP-Referer": "https://cherry-ai.com",
        "X-Title": "Cherry Studio",
    }

    listed = requests.get(f"{service.v1}/models", headers=headers, timeout=10).json()
    model = next(each["id"] for each in listed["data"] if each["id"] == "lingpai/eliza")
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hi, desktop-canary-3b7d"}],
        "stream": True,
        "temperature": 0.7,
    }
    with requests.post(
        f"{service.v1}/chat/completions", headers=headers, json=body, stream=True, timeout=10
    ) as response:
        lines = [line for line in response.iter_lines() if line]

    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == b"data: [DONE]"
    first = json.loads(lines[0].removeprefix(b"data: "))
    assert first["choices"][0]["delta"]["role"] == "assistant"


def test_what_is_left_of_the_day(service, key_name, requests):
    """2000 calls a day, reset at 00:00 UTC+8: /v1/key shows what is left and when it resets."""
    key = service.make_key(key_name, limits=["2000/day@Asia/Shanghai"])
    headers = {"Authorization": f"Bearer {key}"}
    requests.post(f"{service.base}/api/v1/generate", json={"prompt": "a"}, headers=headers, timeout=10)

    own = requests.get(f"{service.v1}/key", headers=headers, timeout=10).json()

    (limit,) = own["limits"]
    assert own["name"] == key_name
    assert (limit["limit"], limit["used"], limit["remaining"]) == ("2000/day@Asia/Shanghai", 1, 1999)
    assert limit["resets_at"].endswith("T16:00:00Z")
    assert 0 < limit["resets_in_s"] <= 86400


def test_services_author_s_call_without_a_model(service, key, requests):
    """{"prompt", "max_tokens"} without a model is answered by the default model, at both addresses (seeds.md 4)."""
    for path in ("/v1/completions", "/api/v1/generate"):
        response = requests.post(
            service.base + path, headers={"Authorization": f"Bearer {key}"},
            json={"prompt": "Hello", "max_tokens": 100}, timeout=10,
        )  # fmt: skip

        assert response.status_code == 200, response.text
