"""What the worker tells the operator of failed calls, and how long other calls wait for it."""

import asyncio
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lingpai import authoring as lp
from lingpai.backends.engines import asgi
from lingpai.backends.engines.asgi import WorkerApp
from lingpai.backends.engines.models import Models, load_model
from lingpai.wire.media import data_url, encode_base64

NAME = "alice-smith-1980"


def reports_of(
    function: Callable[..., Any], bodies: Sequence[Any], tmp_path: Path, **options: Any
) -> list[str]:
    """What is told of one call per body, all of them at once."""
    reports: list[str] = []

    async def call(app: WorkerApp, body: bytes) -> None:
        parts = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else await asyncio.Future()

        async def send(_: Any) -> None:
            pass

        await app({"path": "/v1/inference", "method": "POST", "headers": []}, receive, send)

    async def story() -> None:
        served = functools.wraps(function)(functools.partial(function))  # which can be a model several times
        definition = lp.model("acme/tested", task="generic", **options)(served).__lingpai_model__
        app = WorkerApp(Models([await load_model(definition, tmp_path)]), report=reports.append)
        encoded = [json.dumps({"input": body}).encode() for body in bodies]
        await asyncio.gather(*(call(app, body) for body in encoded))

    asyncio.run(story())
    return reports


def look_up(value: Any) -> Any:
    return {}[next(iter(value))]


def refuse(value: Any) -> Any:
    raise ValueError(f"bad {value}")


def refuse_bytes(value: bytes) -> Any:
    raise ValueError(f"bad {value!r}")


@pytest.mark.parametrize(
    ("function", "sent"),
    [
        (look_up, {NAME: 1}), (refuse, {NAME: 1}), (refuse, 4111111111111111), (refuse_bytes, encode_base64(NAME.encode())),
        (refuse_bytes, data_url(NAME.encode(), "text/plain")),
    ],
)  # fmt: skip
def test_what_a_caller_sent_is_not_told(function, sent, tmp_path):
    (report,) = reports_of(function, [sent], tmp_path)

    assert "smith" not in report
    assert "4111" not in report
    assert f"in {function.__name__}" in report


def test_what_an_exception_says_is_told_when_it_is_the_authors_own(tmp_path):
    def fail(value: dict[str, int], *, top_words: int = 3) -> Any:
        raise ValueError("top_words must be less than 100")

    (report,) = reports_of(fail, [{NAME: 1, "input": 1}], tmp_path)

    assert "top_words must be less than 100" in report


def test_a_fault_of_ours_is_told_without_what_it_says(tmp_path, monkeypatch):
    async def faulty(request: Any, reply: Any) -> None:
        raise LookupError(request.fields["input"])

    monkeypatch.setattr(asgi, "ENDPOINTS", {"/v1/inference": faulty})

    (report,) = reports_of(refuse, [NAME], tmp_path)

    assert "smith" not in report
    assert "LookupError: what it says is left out" in report
    assert "in faulty" in report


def fail_together(values: list[str]) -> Any:
    raise ValueError("why not? " * 400)


def fail_each(values: list[str]) -> Any:
    return [ValueError(f"number {number} of them failed") for number, _ in enumerate(values)]


@pytest.mark.parametrize("function", [fail_together, fail_each])
@pytest.mark.parametrize("length", [1500, 60_000])
def test_other_calls_wait_briefly_for_a_batch_that_fails(function, length, tmp_path):
    """All in all, calls and tracebacks included, it takes about 0.1 s on a machine of today."""
    sent = [f"{number} " + "word by word " * (length // 13) for number in range(64)]
    began = time.process_time()

    reports = reports_of(function, sent, tmp_path, batch=lp.Batch(max_size=64, max_wait_ms=5000))

    assert time.process_time() - began < 1.0
    assert len(reports) == 64


def test_failures_of_a_batch_are_told_whole_as_long_as_little_was_sent(tmp_path):
    reports = reports_of(fail_each, ["a b", "c d"], tmp_path, batch=lp.Batch(max_size=2, max_wait_ms=5000))

    assert ["1 of them failed" in report for report in reports].count(True) == 1
    assert ["0 of them failed" in report for report in reports].count(True) == 1
