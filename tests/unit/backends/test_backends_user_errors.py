"""What the operator is told of an exception in an author's code: all of it, but never what a caller sent."""

import pytest

from lingpai.backends.engines.repeating import Sent
from lingpai.backends.engines.user_errors import authors_traceback, our_traceback, reason

PROMPT = "Who is Ilse Quant, and where?"


def fail(said: str) -> None:
    raise ValueError(f"cannot answer: {said}")


def fail_because(said: str) -> None:
    try:
        fail(said)
    except ValueError as error:
        raise RuntimeError("the model failed") from error


def fail_meanwhile(said: str) -> None:
    try:
        fail(said)
    except ValueError:
        raise RuntimeError("the model failed")  # noqa: B904  the context is what is tested


def fail_together(said: str) -> None:
    raise ExceptionGroup("two of two", [KeyError("key"), ValueError(said)])


def fail_with_a_note(said: str) -> None:
    error = ValueError("why")
    error.add_note(f"the prompt was {said}")
    raise error


def fail_to_parse(said: str) -> None:
    compile(said, "<prompt>", "eval")


FAILURES = [fail, fail_because, fail_meanwhile, fail_together, fail_with_a_note, fail_to_parse]


def error_of(failure, said: str = PROMPT) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever it is
        failure(said)
    return caught.value


@pytest.mark.parametrize("failure", FAILURES)
def test_traceback_is_as_python_prints_it(failure):
    text = authors_traceback(error_of(failure))

    assert "Ilse Quant" in text
    assert f"in {failure.__name__}" in text


@pytest.mark.parametrize("failure", FAILURES)
def test_traceback_is_left_without_what_a_caller_sent(failure):
    """Classes and lines of code stay, of causes too."""
    error = error_of(failure)

    text = authors_traceback(error, sent=Sent([{"input": PROMPT}]))

    assert "Ilse" not in text
    assert f"in {failure.__name__}" in text
    assert text.endswith(
        f"{type(error).__name__}: what it says repeats what a caller sent, or may do so, and is left out"
    )
    assert "    compile(said" in text or "    raise " in text


def test_traceback_stays_whole_when_nothing_is_repeated():
    error = error_of(fail_because, "no memory")

    assert authors_traceback(error, sent=Sent([{"input": PROMPT}])) == authors_traceback(error)


def test_causes_are_told_in_the_order_in_which_they_came():
    text = authors_traceback(error_of(fail_because), sent=Sent([PROMPT]))

    assert text.index("ValueError: ") < text.index("That led to this:") < text.index("RuntimeError: ")


def test_causes_that_go_round_in_a_circle_have_an_end():
    first, second = ValueError(PROMPT), RuntimeError("why")
    first.__cause__, second.__cause__ = second, first

    assert authors_traceback(first, sent=Sent([PROMPT])).count("That led to this:") == 1


def test_what_was_sent_is_looked_through_once_for_all_causes():
    looked = []

    class Counted(Sent):
        def is_repeated_in(self, messages):
            looked.append(messages)
            return super().is_repeated_in(messages)

    authors_traceback(error_of(fail_because), sent=Counted(["something else"]))

    assert [len(messages) for messages in looked] == [2]


def test_more_causes_than_are_looked_at_are_told_without_messages():
    error = ValueError(PROMPT)
    for number in range(30):
        cause, error = error, RuntimeError(number)
        error.__cause__ = cause

    assert "Ilse" not in authors_traceback(error, sent=Sent([PROMPT]))


def test_reason_is_the_first_line():
    assert reason(error_of(fail)) == f"ValueError: cannot answer: {PROMPT}"


@pytest.mark.parametrize("failure", FAILURES)
def test_a_fault_of_ours_is_told_without_what_it_says(failure):
    text = our_traceback(error_of(failure))

    assert "Ilse" not in text
    assert f"in {failure.__name__}" in text
    assert text.endswith(": what it says is left out")
