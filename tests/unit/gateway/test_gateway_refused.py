"""Calls that met a rule of their key are told of: who wanted what, from where."""

from types import SimpleNamespace

import pytest

from lingpai.errors import LingpaiError
from lingpai.gateway.refused import report
from lingpai.principal import Principal
from lingpai.storage.trail import PolicyRefusal

BOB = Principal("usr_bob", "bob", "member", key_id="bobs")
NO = LingpaiError("model_not_allowed", "no")


def told(*, principal=BOB, request=None, model_in_path=None, address="203.0.113.7", fields=None, error=NO):
    found = []
    report(
        SimpleNamespace(
            principal=principal,
            request=request,
            model_in_path=model_in_path,
            endpoint=SimpleNamespace(path="/v1/chat/completions"),
            fields=fields or {},
            front=SimpleNamespace(caller_address=address),
            request_id=b"req_1",
            gateway=SimpleNamespace(on_refusal=found.append),
        ),
        error,
    )
    [refusal] = found
    return refusal


def test_a_call_is_told_with_its_model_and_circumstances():
    found = told(request=SimpleNamespace(model="acme/chat"), fields={b"user-agent": b"curl/8"})

    assert found == PolicyRefusal(
        caller=BOB,
        code="model_not_allowed",
        target_kind="model",
        target_id="acme/chat",
        address="203.0.113.7",
        user_agent="curl/8",
        request_id="req_1",
    )


def test_a_model_in_the_path_goes_first():
    assert told(model_in_path="acme/path", request=SimpleNamespace(model="x")).target_id == "acme/path"


@pytest.mark.parametrize("request_", [None, SimpleNamespace(model=None), SimpleNamespace()])
def test_a_call_whose_model_is_not_known_yet_is_told_with_its_endpoint(request_):
    found = told(request=request_)

    assert (found.target_kind, found.target_id) == ("endpoint", "/v1/chat/completions")


def test_what_a_caller_wrote_is_bounded():
    found = told(model_in_path="x" * 10_000, fields={b"user-agent": b"\xff" * 10_000})

    assert (len(found.target_id), len(found.user_agent or "")) == (300, 200)


def test_a_call_through_the_socket_has_no_address():
    assert told(address="").address is None


def test_all_unknown_credentials_are_one_and_the_same():
    """They come in floods, and are only counted."""
    unknown = LingpaiError("invalid_api_key", "no")
    assert told(principal=None, error=unknown) is told(principal=None, error=unknown)


def test_a_signature_that_is_none_is_told_with_the_address_it_came_from():
    found = told(principal=None, error=LingpaiError("signature_invalid", "no"))

    assert (found.caller, found.code, found.address) == (None, "signature_invalid", "203.0.113.7")
