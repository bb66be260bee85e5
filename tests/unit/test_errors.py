"""The catalogue of errors and the help in their messages."""

import re
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.errors import CATALOGUE, LingpaiError, did_you_mean


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_entry_is_fit_for_clients_and_documentation(entry):
    """SDKs retry 408 and 409, so these never stand for something permanent."""
    assert re.fullmatch(r"[a-z_]+", entry.code)
    assert CATALOGUE[entry.code] is entry
    assert HTTPStatus(entry.status) not in (HTTPStatus.CONFLICT, HTTPStatus.REQUEST_TIMEOUT)
    assert 400 <= entry.status < 600
    assert entry.meaning.endswith(".")
    assert (entry.type == "server_error") == (entry.status >= 500)


def test_error_is_openais_object_with_all_four_keys():
    error = LingpaiError("model_not_found", "No such model.", param="model")

    assert error.status == 404
    assert error.body() == {
        "error": {
            "message": "No such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_param_is_null_when_no_field_is_to_blame():
    assert LingpaiError("internal_error", "x").body()["error"]["param"] is None


def test_error_can_be_raised_and_reads_as_its_message():
    with pytest.raises(LingpaiError, match=r"^Wait\.$") as caught:
        raise LingpaiError("rate_limit_exceeded", "Wait.", headers={"retry-after": "1"})

    assert caught.value.headers == {"retry-after": "1"}


@pytest.mark.parametrize(
    ("wrong", "known", "sentence"),
    [
        ("gpt-4", ["gpt-4o", "llama"], " Did you mean `gpt-4o`?"),
        ("shout", ["acme/shout", "acme/whisper"], " Did you mean `acme/shout`?"),
        ("ACME/SHOUT", ["acme/shout"], " Did you mean `acme/shout`?"),
        ("other/shout", ["acme/shout"], " Did you mean `acme/shout`?"),
        ("zzz", ["gpt-4o"], ""),
        ("", ["gpt-4o"], ""),
        ("anything", [], ""),
    ],
)
def test_nearest_names_are_suggested(wrong, known, sentence):
    assert did_you_mean(wrong, known) == sentence


def test_several_near_names_are_all_named_nearest_first():
    assert did_you_mean("qwen3", ["qwen3:14b", "qwen3:8b", "mistral"]) == (
        " Did you mean `qwen3:8b` or `qwen3:14b`?"
    )


def test_no_more_names_than_asked_for():
    known = [f"model-{number}" for number in range(20)]

    assert did_you_mean("model", known).count("`") == 2 * 3
    assert did_you_mean("model", known, most=1).count("`") == 2


def test_names_in_their_own_spelling_are_suggested():
    assert did_you_mean("qwen/qwen3-32b", ["Qwen/Qwen3-32B"]) == " Did you mean `Qwen/Qwen3-32B`?"


NAMES = st.text(alphabet=st.characters(exclude_characters="`"), max_size=20)


@settings(deadline=None)
@given(NAMES, st.lists(NAMES, max_size=5))
def test_only_known_names_are_suggested_each_once(wrong, known):
    suggested = re.findall(r"`(.*?)`", did_you_mean(wrong, known), re.DOTALL)

    assert set(suggested) <= set(known)
    assert len(suggested) == len(set(suggested)) <= 3
