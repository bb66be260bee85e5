from lingpai.backends.worker_output import LONGEST_LINE, LineSplitter, escaped


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
