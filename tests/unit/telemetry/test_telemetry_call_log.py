"""The call log: one line per call, with what a usage record has, and nothing of what was said."""

import contextlib
import io
import json
import logging
from types import SimpleNamespace

import pytest

from lingpai.telemetry.call_log import CallLog
from lingpai.telemetry.logs import set_up_logging

RECORD = SimpleNamespace(
    request_id="req_1",
    key_id="4fK",
    client_id="",
    user_id="usr_1",
    project_id="prj_1",
    model="acme/shout",
    endpoint="chat.completions",
    status=200,
    end_reason="complete",
    duration_ms=12.3456,
    prompt_tokens=5,
    completion_tokens=7,
    client_address="203.0.113.7",
)


@pytest.fixture
def written():
    """What `work` writes to a log set up as the server does it."""

    def written(work, *, format_="json", level="info"):
        loggers = [logging.getLogger(name) for name in (None, "lingpai", "lingpai.calls")]
        before = [(logger.handlers[:], logger.level) for logger in loggers]
        try:
            with contextlib.redirect_stderr(io.StringIO()) as output:
                set_up_logging(level=level, format_=format_)
                work(CallLog())
            return output.getvalue()
        finally:
            logging.captureWarnings(capture=False)
            for logger, (handlers, level_before) in zip(loggers, before, strict=True):
                logger.handlers[:] = handlers
                logger.setLevel(level_before)

    return written


def test_call_is_one_json_object(written):
    entry = json.loads(written(lambda log: log.write(RECORD)))

    entry.pop("time")
    assert entry == {
        "level": "info",
        "logger": "lingpai.calls",
        "message": "call req_1",
        "request_id": "req_1",
        "status": 200,
        "end": "complete",
        "ms": 12.3,
        "endpoint": "chat.completions",
        "model": "acme/shout",
        "key": "4fK",
        "client": "",
        "token": "",
        "user": "usr_1",
        "project": "prj_1",
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "address": "203.0.113.7",
    }


def test_call_is_one_line_of_text(written):
    line = written(lambda log: log.write(RECORD), format_="text")

    assert line.endswith(
        "INFO    lingpai.calls  call req_1 status=200 end=complete ms=12.3 endpoint=chat.completions "
        'model=acme/shout key=4fK client="" token="" user=usr_1 project=prj_1 prompt_tokens=5 completion_tokens=7 address=203.0.113.7\n'
    )


def test_refusal_of_somebody_unknown_is_a_line_too(written):
    entry = json.loads(
        written(
            lambda log: log.write_refused(
                "req_2", status=401, endpoint="embeddings", duration_ms=0.04, address="203.0.113.7"
            )
        )
    )

    assert (entry["request_id"], entry["status"], entry["end"]) == ("req_2", 401, "refused")


def test_lines_that_were_asked_for_come_at_any_level(written):
    assert written(lambda log: log.write(RECORD), level="error") != ""


def test_hostile_model_name_stays_in_its_line(written):
    hostile = SimpleNamespace(**{**vars(RECORD), "model": 'x\nERROR forged status=200 "'})

    line = written(lambda log: log.write(hostile), format_="text")

    assert len(line.splitlines()) == 1
    assert 'model="x\\nERROR forged status=200 \\""' in line
