"""A backend's error becomes one of ours: whose fault it is decides the status, and nothing internal is told."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.errors import CATALOGUE
from lingpai.wire.backend_error import translate


def translated(status: int, body: bytes | dict = b"", retry_after: bytes | None = None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer, headers = translate(status, data, retry_after=retry_after, backend="gpu-1")
    return status, json.loads(answer)["error"], headers


# -- what the caller can mend keeps status and message


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422])
def test_what_the_caller_can_mend_keeps_status_and_message(status):
    answer = {"error": {"message": "too long", "type": "t", "param": "messages", "code": "c"}}

    assert translated(status, answer) == (
        status,
        {"message": "too long", "type": "t", "param": "messages", "code": "c"},
        {},
    )


def test_conflict_becomes_bad_request_because_clients_would_retry_it():
    assert translated(409, {"error": {"message": "m"}})[0] == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "OpenAI"}}, "OpenAI"),
        ({"error": "Ollama"}, "Ollama"),
        ({"errors": {"message": "ModelScope"}}, "ModelScope"),
        ({"errors": "text"}, "text"),
        ({"detail": "FastAPI"}, "FastAPI"),
        ({"message": "plain"}, "plain"),
        ({"object": "error", "message": "old vLLM", "type": "BadRequestError", "code": 400}, "old vLLM"),
        (b"  just text\n", "just text"),
        ("纯文本".encode(), "纯文本"),
    ],
)
def test_message_is_found_in_every_usual_shape(body, message):
    assert translated(400, body)[1]["message"] == message


def test_fastapis_list_of_faults_is_shown_as_it_is():
    body = {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}

    message = translated(422, body)[1]["message"]

    assert json.loads(message) == body["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"5", b"null", {"error": {}}, {"error": None}, {"detail": None}, {"error": []}],
)
def test_without_a_message_the_status_is_told(body):
    error = translated(404, body)[1]

    assert "404" in error["message"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        None,
        "invalid_request",
    )


def test_fields_of_other_types_become_text():
    error = translated(400, {"error": {"message": ["a"], "type": 1, "param": 2, "code": 404}})[1]

    assert (error["type"], error["param"], error["code"]) == ("1", "2", "404")
    assert isinstance(error["message"], str)


def test_long_texts_are_cut():
    error = translated(400, {"error": {"message": "x" * 100_000, "code": "c" * 1000}})[1]

    assert len(error["message"]) == 2000
    assert len(error["code"]) == 200


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"error": {"message": "\xff"}}', b'{"error": "\xe4\xb8"}'])
def test_body_that_is_not_utf_8_is_shown_as_far_as_it_goes(body):
    """JSON's decoder raises UnicodeDecodeError, which is no DecodeError: it must not get out."""
    status, error, _ = translated(400, body)

    assert status == 400
    assert error["message"]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 100_000])
def test_body_nested_beyond_reason_is_shown_as_text(body):
    status, error, _ = translated(400, body)

    assert status == 400
    assert error["message"]


# -- what only the operator can mend


@pytest.mark.parametrize("status", [401, 403, 407])
def test_wrong_key_for_the_backend_is_not_the_callers_wrong_key(status):
    status, error, _ = translated(status, {"error": {"message": "Incorrect API key provided: sk-abc"}})

    assert (status, error["code"]) == (502, "backend_rejected_credentials")
    assert "sk-abc" not in error["message"]
    assert "gpu-1" in error["message"]


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [
        (429, 429, "backend_rate_limited"),
        (408, 504, "backend_timeout"),
        (504, 504, "backend_timeout"),
        (503, 503, "backend_unavailable"),
        (500, 502, "backend_error"),
        (501, 502, "backend_error"),
        (599, 502, "backend_error"),
        (999, 502, "backend_error"),
        (301, 502, "backend_error"),
        (304, 502, "backend_error"),
    ],
)
def test_trouble_of_the_backend_gets_our_code_and_none_of_its_text(status, answered, code):
    status, error, _ = translated(status, {"error": {"message": "Traceback /srv/secret.py"}})

    assert (status, error["code"]) == (answered, code)
    assert "secret" not in error["message"]


# -- Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_passed_on_or_made_up(status):
    assert translated(status, retry_after=b"17")[2] == {"retry-after": "17"}
    assert translated(status)[2] == {"retry-after": "5"}


def test_no_retry_after_is_made_up_where_a_retry_is_useless():
    assert translated(400)[2] == {}


# -- what is no text for people


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b'{"error": {"message": "no"}}'),
        b"\x89PNG\r\n\x1a\n",
        b"<html><h1>Bad</h1></html>",
        b"a\x1b[2Jb",
    ],
    ids=["gzip", "image", "page", "terminal"],
)
def test_body_that_is_no_text_is_not_handed_on(body):
    status, error, _ = translated(422, body)

    assert (status, error["message"]) == (422, "The backend refused the request with status 422.")


def test_long_text_may_be_cut_inside_of_a_character():
    _, error, _ = translated(400, "令".encode() * 3000)

    assert set(error["message"]) == {"令"}


# -- always


@settings(deadline=None)
@given(
    st.integers(300, 999),
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "errors", "detail", "message", "type", "code"]), inner
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_a_backend_answers_the_caller_gets_an_error_with_four_keys(status, body):
    status, error, headers = translated(status, body)

    assert 400 <= status < 600
    assert status != 409
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["code"], str)
    assert status < 500 or CATALOGUE[error["code"]].status == status
    assert headers.keys() <= {"retry-after"}
