"""`lingpai run` and `lingpai chat`: calling models from a shell."""

import json
import threading

import pytest

from tests.fakes.management_api import Answer, SlowStream, error, sse
from tests.fakes.terminal import Terminal


def test_run_prints_a_text_as_it_is(lingpai, api):
    outcome = lingpai("run", "acme/shout", "hi", "-p", "times=2", "-p", "style=loud")

    assert outcome.stdout == "HI!\n"
    assert api.last.path == "/api/v1/models/acme/shout/inference"
    assert api.last.body == {"input": "hi", "parameters": {"times": 2, "style": "loud"}}


def test_run_reads_stdin(lingpai, api):
    lingpai("run", "acme/shout", stdin="two\nlines\n")
    first = api.last.body
    lingpai("run", "acme/shout", "-", "--input-json", stdin='["a", "b"]')

    assert first == {"input": "two\nlines"}
    assert api.last.body == {"input": ["a", "b"]}


def test_run_json_is_the_whole_answer(lingpai, api):
    answer = json.loads(lingpai("run", "acme/shout", "hi", "--json").stdout)

    assert answer["request_id"] == "req_1"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 1}


def test_run_draws_labels_with_bars(lingpai, api):
    api.output = [{"label": "positive", "score": 0.75}, {"label": "negative", "score": 0.25}]

    lines = lingpai("run", "lingpai/sentiment", "好").stdout.splitlines()

    assert lines[1].split() == ["positive", "█" * 15, "0.7500"]


def test_run_shows_a_vector_in_short(lingpai, api):
    api.output = [[0.5, -0.25, 0.125] * 100]

    outcome = lingpai("run", "lingpai/hashing-embedding", "hi")

    assert outcome.stdout == "300 dimensions: 0.5000, -0.2500, 0.1250, 0.5000, -0.2500, 0.1250, …\n"


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(["hi", "-p", "times"], ""), (["{", "--input-json"], "")],
    ids=["parameter without a value", "broken JSON"],
)
def test_run_refuses_before_it_calls(lingpai, api, arguments, stdin):
    outcome = lingpai("run", "acme/shout", *arguments, stdin=stdin)

    assert outcome.returncode == 2
    assert api.requests == []


def test_run_refuses_input_that_is_not_text(lingpai, api):
    outcome = lingpai("run", "acme/shout", stdin=b"\xff\xfe\x00")

    assert outcome.returncode == 1
    assert "not text" in outcome.stderr


def test_run_on_a_remote_server_sends_the_key(lingpai, remote, signed_in):
    outcome = lingpai("run", "acme/shout", "hi", environment=signed_in)

    assert outcome.stdout == "HI!\n"


def test_run_shows_why_the_server_refused(lingpai, remote, signed_in):
    remote.faults["POST", "/api/v1/models/acme/shout/inference"] = error(
        429, "insufficient_quota", "The limit 2000/day@Asia/Shanghai is used up; it resets at 00:00."
    )

    outcome = lingpai("run", "acme/shout", "hi", environment=signed_in)

    assert outcome.returncode == 1
    assert "resets at 00:00" in outcome.stderr


def test_chat_answers_one_question(lingpai, api):
    outcome = lingpai("chat", "lingpai/eliza", "hi", "--system", "Be kind.")

    assert outcome.stdout == "Hello world\n"
    assert api.last.body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
    ]


def test_chat_takes_the_question_from_a_pipe(lingpai, api):
    lingpai("chat", "lingpai/eliza", stdin="hi\n")

    assert api.last.body["messages"] == [{"role": "user", "content": "hi"}]


def test_chat_json_is_the_whole_answer(lingpai, api):
    outcome = lingpai("chat", "lingpai/eliza", "hi", "--json")

    assert json.loads(outcome.stdout)["choices"][0]["message"]["content"] == "Hello world"


def test_chat_fails_when_the_answer_breaks_off(lingpai, api):
    api.stream = sse("Hel", end='data: {"error": {"message": "The model died.", "code": "model_error"}}\n\n')

    outcome = lingpai("chat", "lingpai/eliza", "hi")

    assert outcome.returncode == 1
    assert outcome.stdout.startswith("Hel")
    assert "The model died." in outcome.stderr


@pytest.fixture
def terminal(surroundings, api):
    person = Terminal("chat", "lingpai/eliza", environment=surroundings)
    yield person
    person.close()


def test_chat_is_a_conversation_on_a_terminal(terminal, api):
    """Earlier turns are sent along, /reset forgets them, an unknown command explains, Ctrl-D leaves."""
    terminal.wait_for("> ")
    for line in ("hi", "again", "/reset", "anew", "/nonsense"):
        terminal.type(f"{line}\n")
        terminal.wait_for("\r\n> ")
    shown = terminal.seen
    terminal.type("\x04")

    code = terminal.end()

    roles = [[message["role"] for message in request.body["messages"]] for request in api.requests]
    assert roles == [["user"], ["user", "assistant", "user"], ["user"]]
    assert "is no command" in shown
    assert code == 0


def test_chat_survives_a_rate_limit(terminal, api):
    api.faults["POST", "/v1/chat/completions"] = error(429, "rate_limit_exceeded", "Too fast; wait 1 s.")
    terminal.wait_for("> ")
    terminal.type("hi\n")
    terminal.wait_for("Too fast")
    api.faults.clear()
    terminal.wait_for("> ")
    terminal.type("hi\n")
    terminal.wait_for("Hello world")
    terminal.wait_for("\r\n> ")
    terminal.type("/exit\n")

    assert terminal.end() == 0


def test_chat_answers_cannot_steer_the_terminal(terminal, api):
    api.stream = sse("\x1b]0;owned\x07")
    terminal.wait_for("> ")
    terminal.type("hi\n")
    terminal.wait_for("\r\n> ")

    assert "\\x1b]0;owned\\x07" in terminal.seen


def test_ctrl_c_stops_the_answer_and_not_the_conversation(terminal, api):
    stopped = threading.Event()
    api.faults["POST", "/v1/chat/completions"] = Answer(
        body=SlowStream(sse("one ", end=""), stopped), headers={"content-type": "text/event-stream"}
    )
    terminal.wait_for("> ")
    terminal.type("hi\n")
    terminal.wait_for("one ")
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    terminal.wait_for("> ")
    api.faults.clear()
    terminal.type("next\n")
    terminal.wait_for("Hello world")

    assert stopped.wait(10), "the server saw that the caller left"
    assert [message["content"] for message in api.last.body["messages"]] == ["hi", "one ", "next"]


def test_deleting_a_key_asks_on_a_terminal(surroundings, api):
    api.add_key("my-app", last_used_at="2026-11-20T07:00:00Z")
    person = Terminal("keys", "delete", "my-app", environment=surroundings)
    person.wait_for("[y/N]")
    asked = person.seen
    person.type("n\n")
    code = person.end()
    person.close()

    assert "last used: 2026-11-20 15:00" in asked
    assert code == 1
    assert len(api.keys) == 1


@pytest.mark.parametrize(
    ("text", "status", "is_hinted"),
    [('["a", "b"]', 400, True), ("hello", 400, False), ('{"a": 1}', 429, False)],
)
def test_run_hints_at_input_that_was_meant_as_json(lingpai, api, text, status, is_hinted):
    fault = error(status, "invalid_request", "`input` does not fit.")
    api.faults["POST", "/api/v1/models/acme/shout/inference"] = fault

    outcome = lingpai("run", "acme/shout", text)

    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: `input` does not fit.")
    assert ("add --input-json" in outcome.stderr) is is_hinted


def test_an_error_after_half_an_answer_has_a_line_of_its_own(terminal, api):
    api.stream = sse("Hel", end='data: {"error": {"message": "The model died.", "code": "model_error"}}\n\n')
    terminal.wait_for("> ")
    terminal.type("hi\n")
    terminal.wait_for("The model died.")

    assert "Hel\r\n" in terminal.seen
