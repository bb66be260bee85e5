"""Calls leave nothing behind that only the garbage collector could free: it runs rarely, and floods would fill memory."""

import gc
import weakref

import pytest
from gateway_fakes import STREAM

from lingpai.errors import LingpaiError


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def is_freed(calls) -> bool:
    """Whether the last call in `calls` is gone as soon as nobody holds it."""
    reference = weakref.ref(calls.pop())
    return reference() is None


@pytest.mark.usefixtures("without_collector")
def test_refused_call_is_freed_at_once(served):
    calls = [served.call(headers=[(b"x-api-key", b"another")])]

    assert is_freed(calls)


@pytest.mark.usefixtures("without_collector")
def test_call_with_an_unknown_key_is_freed_at_once(served):
    served.keys.garbage.add(b"sk-lp-unknown")
    calls = [served.call(key=b"sk-lp-unknown")]

    assert is_freed(calls)


@pytest.mark.usefixtures("without_collector")
def test_call_whose_limits_cannot_be_loaded_is_freed_at_once(served, front):
    calls = [served.open(front=front)]
    calls[0].limits_loaded(None, LingpaiError("storage_unavailable", "The limits cannot be checked now."))
    front.call = None

    assert is_freed(calls)


@pytest.mark.usefixtures("without_collector")
def test_answered_call_is_freed_at_once(served, answer):
    calls = [served.call()]
    answer(calls[0], {"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})

    assert is_freed(calls)


@pytest.mark.usefixtures("without_collector")
def test_call_whose_caller_left_is_freed_at_once(served, front):
    calls = [served.call(body=STREAM, front=front)]
    front.call = None
    calls[0].caller_left()
    served.link.sent.clear()

    assert is_freed(calls)
