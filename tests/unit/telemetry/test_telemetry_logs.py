"""Logs: credentials are masked, and nothing that a caller wrote can forge a line."""

import contextlib
import io
import json
import logging
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lingpai.ids import mint_credential
from lingpai.telemetry.logs import current_request, mask, set_up_logging

PREFIXES = ("sk-lp-", "at-lp-", "rt-lp-", "cs-lp-", "ss-lp-", "in-lp-", "sg-lp-")
MINTED = [mint_credential(prefix).token for prefix in PREFIXES]
KEYS = st.sampled_from(MINTED)
AROUND = st.text(max_size=10) | st.sampled_from(
    ["key=", "'", '"', "b'", "\\n", "%3D", "_", "https://h/?k=", "\n", "x"]
)


class Log:
    """Sets logging up as the server does, and answers what is written to standard error."""

    def __call__(self, message, *args, format_="text", level="info", name="lingpai.test", **kwargs) -> str:
        root, ours = logging.getLogger(), logging.getLogger("lingpai")
        before = (root.handlers[:], root.level, ours.level)
        try:
            with contextlib.redirect_stderr(io.StringIO()) as output:
                set_up_logging(level=level, format_=format_)
                logging.getLogger(name).info(message, *args, **kwargs)
            return output.getvalue()
        finally:
            logging.captureWarnings(capture=False)
            root.handlers[:] = before[0]
            root.setLevel(before[1])
            ours.setLevel(before[2])


logged = Log()


# -- mask


@settings(deadline=None)
@given(AROUND, KEYS, AROUND)
@example("\\n", mint_credential("sk-lp-").token, "")
@example("%3D", mint_credential("sk-lp-").token, "")
@example("", mint_credential("sk-lp-").token, "_")
def test_credential_is_masked_wherever_it_stands(before, key, after):
    """Also behind an escape such as `\\n` in the repr of some bytes, and behind a percent-encoded `=`."""
    masked = mask(before + key + after)

    assert key[18:40] not in masked
    assert f"{key[:6]}[hidden]" in masked


@pytest.mark.parametrize("length", [30, 45, 60, 66])
def test_part_of_a_credential_is_masked(length):
    """The log shows the first 500 bytes of a backend's answer, which may end inside a key."""
    key = mint_credential("sk-lp-").token

    assert key[18:length] not in mask(f"api_key={key[:length]}")


def test_jwt_is_masked_wherever_it_stands():
    jwt = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.eyJpc3MiOiJodHRwczovL3gifQ.c2ln-bmF0_dXJl"

    assert (
        mask(f"token={jwt}, and {jwt.rpartition('.')[0]}. is none")
        == "token=eyJ[hidden], and eyJ[hidden] is none"
    )


def test_all_credentials_of_a_line_are_masked():
    one, two = mint_credential("sk-lp-").token, mint_credential("at-lp-").token

    assert mask(f"{one} {two},{one}") == "sk-lp-[hidden] at-lp-[hidden],sk-lp-[hidden]"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("authorization: Bearer abcdefgh12345", "authorization: Bearer [hidden]"),
        ("BEARER\tsk-proj-0123456789", "BEARER\t[hidden]"),
        ('{"Authorization": "bearer abc.def-ghi_jkl=="}', '{"Authorization": "bearer [hidden]"}'),
        ("Bearer realm", "Bearer realm"),
        ("the bearer of this", "the bearer of this"),
    ],
)
def test_foreign_credentials_are_known_by_the_word_before_them(text, masked):
    assert mask(text) == masked


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="-")))
def test_text_without_credentials_stays_as_it_is(text):
    assert mask(text) == text or "bearer" in text.lower()


# -- lines


@settings(deadline=None)
@given(st.text())
@example("a\nERROR forged")
@example("a\r\nERROR forged")
@example("a\x85ERROR forged")
@example("a\u2028ERROR forged\u2029ERROR")
@example("\x1b[2K\x1b[1A")
@example("\x9b2K")
def test_no_text_can_forge_a_line_or_move_the_cursor(text):
    """Every line but the first is indented, and no control character gets through, those of C1 included."""
    written = logged("%s", text).removesuffix("\n")

    first, *rest = written.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d .* INFO +lingpai\.test  ", first)
    assert all(line.startswith("    ") for line in rest)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", written)


def test_text_line_has_time_level_logger_and_message():
    line = logged("model %s is ready", "acme/shout")

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    lingpai\.test  model acme/shout is ready\n", line
    )


def test_traceback_is_readable_and_masked():
    key = mint_credential("sk-lp-").token
    try:
        raise ValueError(f"bad key {key}")
    except ValueError:
        written = logged("failed", exc_info=True)

    assert "    Traceback (most recent call last):" in written
    assert "ValueError: bad key sk-lp-[hidden]" in written
    assert key not in written


def test_tabs_and_chinese_pass():
    assert logged("a\t令牌").endswith("  a\t令牌\n")


# -- JSON


def test_json_line_is_one_object():
    entry = json.loads(logged('say "%s"', "a\nb\u2028", format_="json"))

    assert entry["message"] == 'say "a\nb\u2028"'
    assert (entry["level"], entry["logger"]) == ("info", "lingpai.test")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", entry["time"])


def test_json_message_of_several_lines_is_one_line():
    written = logged("a\nb\r\nc", format_="json")

    assert written.count("\n") == 1
    assert "\r" not in written


def test_json_exception_is_a_field_and_masked():
    key = mint_credential("sk-lp-").token
    try:
        raise ValueError(key)
    except ValueError:
        entry = json.loads(logged("failed with %s", key, exc_info=True, format_="json"))

    assert entry["message"] == "failed with sk-lp-[hidden]"
    assert "ValueError: sk-lp-[hidden]" in entry["exception"]


# -- levels


def test_level_is_for_our_loggers_and_others_speak_from_warning_on():
    assert logged("x", level="info") != ""
    assert logged("x", level="warning") == ""
    assert logged("x", level="debug", name="httpx2") == ""


def test_setting_up_replaces_the_handlers_there_were():
    set_up_twice = logged("a", level="info") + logged("b", level="info")

    assert len(set_up_twice.splitlines()) == 2


# -- fields and the request id


@pytest.mark.parametrize("format_", ["text", "json"])
@pytest.mark.parametrize(
    "hostile",
    [
        "a\nERROR forged",
        'a" status=200 key="admin',
        "\x1b]0;title\x07",
        "\x9b31m",
        "\u202egnp.exe",
        "\u2028",
        "\ud800",
        "",
        "x=y",
    ],
)
def test_hostile_field_stays_one_value_in_one_line(hostile, format_):
    written = logged("call", extra={"fields": {"model": hostile, "status": 429}}, format_=format_)

    assert len(written.splitlines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", written)
    if format_ == "json":
        assert json.loads(written)["model"] == hostile
        assert json.loads(written)["status"] == 429
    else:
        (value,) = re.findall(r' model=("(?:[^"\\]|\\.)*"|[^\s"=]+) status=429\n$', written)
        assert value.startswith('"')


def test_plain_field_needs_no_quotes():
    assert logged("call", extra={"fields": {"ms": 1.5, "model": "acme/写"}}).endswith(
        "call ms=1.5 model=acme/写\n"
    )


@pytest.mark.parametrize("format_", ["text", "json"])
def test_fields_are_masked(format_):
    key = mint_credential("sk-lp-").token

    written = logged("call", extra={"fields": {"name": f"my {key}"}}, format_=format_)

    assert key[18:40] not in written


def test_field_cannot_replace_what_every_line_has():
    entry = json.loads(logged("call", extra={"fields": {"level": "none", "time": "x"}}, format_="json"))

    assert entry["level"] == "info"
    assert entry["time"] != "x"


@pytest.mark.parametrize("how", ["extra", "context"])
def test_request_id_is_on_the_line(how):
    token = current_request.set("req_1" if how == "context" else "")
    try:
        extra = {"request_id": "req_1"} if how == "extra" else None
        text, entry = logged("it broke", extra=extra), logged("it broke", extra=extra, format_="json")
    finally:
        current_request.reset(token)

    assert text.endswith("it broke (req_1)\n")
    assert json.loads(entry)["request_id"] == "req_1"


def test_request_id_that_the_message_names_is_not_repeated():
    assert logged("call req_1 failed", extra={"request_id": "req_1"}).count("req_1") == 1


def test_line_about_no_request_has_no_id():
    assert "request_id" not in json.loads(logged("started", format_="json"))


# -- what cannot be written


def test_line_that_cannot_be_made_shows_nothing_of_its_arguments():
    key = mint_credential("sk-lp-").token

    written = logged("%d calls", key)

    assert "could not be written" in written
    assert key[18:40] not in written


@pytest.mark.parametrize("format_", ["text", "json"])
def test_endless_message_is_cut(format_):
    assert len(logged("x" * 1_000_000, format_=format_)) < 70_000
