import logging

import pytest

from lingpai.backends.worker_output import (
    BURST,
    LONGEST_LINE,
    NOTICE_EVERY_S,
    RATE,
    LevelReader,
    LineSplitter,
    WorkerOutput,
    escaped,
)


def test_lines_come_out_when_they_end():
    splitter = LineSplitter()

    assert splitter.feed(b"one\ntw") == ["one"]
    assert splitter.feed(b"o\n\n") == ["two", ""]


def test_a_line_that_never_ended_comes_out_at_the_end():
    splitter = LineSplitter()
    splitter.feed(b"last words")

    assert splitter.end() == ["last words"]
    assert splitter.end() == []


def test_long_lines_are_cut_and_marked():
    splitter = LineSplitter()
    splitter.feed(b"x" * LONGEST_LINE)

    (line, following) = splitter.feed(b"xxx\nshort\n")

    assert line == "x" * LONGEST_LINE + " … (cut)"
    assert following == "short"


def test_control_characters_cannot_forge_a_line():
    splitter = LineSplitter()

    lines = splitter.feed("\x1b[2Kfine\x07\u2028ERROR forged \u202e\tend\n".encode())

    assert lines == ["\\x1b[2Kfine\\x07\\u2028ERROR forged \\u202e\tend"]


def test_of_a_progress_bar_the_last_state_stays():
    assert LineSplitter().feed(b"10%\r50%\r100%\r\n") == ["100%"]


def test_bytes_that_are_no_text_are_shown_as_escapes():
    assert LineSplitter().feed(b"\xff\xfe ok\n") == ["\\xff\\xfe ok"]


def test_ordinary_text_stays_as_it_is():
    assert escaped("令牌 – ok 👍") == "令牌 – ok 👍"


def levels(*lines):
    reader = LevelReader()
    return [logging.getLevelName(reader.read(line)[0]) for line in lines]


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_a_record_keeps_its_level_and_loses_the_word_for_it(level):
    assert LevelReader().read(f"{level} acme.model: low on memory") == (
        getattr(logging, level),
        "acme.model: low on memory",
    )


def test_a_failed_call_is_an_error():
    line = "ERROR call req_1 to /v1/embeddings failed: Traceback (most recent call last):"

    assert LevelReader().read(line) == (logging.ERROR, line.removeprefix("ERROR "))


@pytest.mark.parametrize("line", ["loaded", "ERROR", "ERROR but not a record", "errors: 3", "  indented", ""])
def test_what_is_merely_printed_is_info(line):
    assert LevelReader().read(line) == (logging.INFO, line)


def test_what_is_indented_or_empty_continues_the_record_before():
    assert levels("WARNING m: two", "  lines", "", "\tand more", "printed", "  too") == [
        *["WARNING"] * 4,
        *["INFO"] * 2,
    ]


def test_a_traceback_continues_the_record_before_up_to_its_exception():
    lines = [
        "ERROR m: it failed",
        "Traceback (most recent call last):",
        '  File "app.py", line 1, in f',
        "KeyError: 'x'",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "app.py", line 3, in f',
        "ValueError: y",
        "printed",
    ]

    assert levels(*lines) == ["ERROR"] * 10 + ["INFO"]


def test_a_printed_traceback_is_info():
    assert levels("Traceback (most recent call last):", "  File", "KeyError: 1") == ["INFO"] * 3


class Clock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


LINE = b"x" * 999 + b"\n"


def texts(lines):
    return [text for _, text in lines]


def test_a_burst_of_output_is_logged_and_what_goes_on_and_on_is_left_out(clock):
    output = WorkerOutput(clock)

    logged = [line for _ in range(5000) for line in texts(output.feed(LINE))]

    assert 900 * 1000 < sum(map(len, logged)) < BURST
    assert logged[-1] == "… it prints more than 64 kB a second; what is too much is left out"
    assert output.is_too_much


def test_when_the_flood_is_over_it_is_told_how_much_was_left_out(clock):
    output = WorkerOutput(clock)
    output.feed(LINE * 2000)
    output.feed(b"left out\nand the begin")
    clock.now += 3 * BURST / RATE

    assert texts(output.feed(b"ning of a line\nwhole\n")) == ["… 22 bytes of output were left out", "whole"]
    assert not output.is_too_much


def test_a_flood_that_does_not_end_is_told_of_now_and_then(clock):
    output = WorkerOutput(clock)
    notices = 0
    for _ in range(300):
        clock.now += 0.1
        notices += sum("prints more" in text for text in texts(output.feed(LINE * 1000)))

    assert notices == 30 / NOTICE_EVERY_S


def test_what_was_left_out_at_the_end_is_told_too(clock):
    output = WorkerOutput(clock)
    output.feed(LINE * 2000)
    output.feed(b"last words")

    assert texts(output.end()) == ["… 10 bytes of output were left out"]


def test_the_last_lines_are_kept(clock):
    output = WorkerOutput(clock)
    output.feed(b"".join(b"%d\n" % number for number in range(100)))

    assert list(output.last_lines) == [str(number) for number in range(80, 100)]
