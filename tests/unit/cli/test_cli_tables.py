"""Tables on terminals of all widths: nothing that people copy is folded."""

import io
import sys

import pytest

from lingpai.cli.clients import list_ as list_clients
from lingpai.cli.keys import list_ as list_keys
from lingpai.cli.limits import list_ as list_limits
from lingpai.cli.models import list_ as list_models
from lingpai.cli.options import Options
from lingpai.cli.requests import list_ as list_requests
from lingpai.cli.tables import drop, drop_empty, print_details, print_table, rename, swap
from lingpai.cli.tokens import list_ as list_tokens
from lingpai.cli.usage import usage
from tests.fakes.management_api import Answer

LIMIT = "2000/day@Asia/Shanghai"


class Screen(io.StringIO):
    """A terminal that keeps what it shows."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """Call something with a terminal of a width; the lines it shows come back."""

    def show(width, action, *arguments, **options):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        screen = Screen()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            action(*arguments, **options)
        return [
            line.replace("\x1b[1m", "").replace("\x1b[0m", "").rstrip()
            for line in screen.getvalue().splitlines()
        ]

    return show


@pytest.fixture
def here(api, tmp_path):
    """The server on this machine, for commands called in this process."""
    return Options(data=tmp_path / "data")


ROWS = [("alpha", 0, "one two"), ("beta", 0, "three four")]
HEADERS = ("name", "count of things", "words")


@pytest.mark.parametrize(
    ("width", "first", "second"),
    [
        (80, "name   count of things  words", "alpha                0  one two"),
        (28, "name   count  words", "alpha      0  one two"),
        (17, "name   words", "alpha  one two"),
        (5, "name", "alpha"),
    ],
)
def test_a_table_takes_only_the_steps_that_it_needs(shown, width, first, second):
    steps = [rename({"count of things": "count"}), drop_empty("count", "words"), drop("words")]

    lines = shown(width, print_table, HEADERS, ROWS, right=("count of things", "count"), narrower=steps)

    assert lines[:2] == [first, second]
    assert len(lines) == 3


def test_a_table_that_does_not_fit_runs_over_the_edge(shown):
    lines = shown(20, print_table, ("id", "limits"), [("lingpai/hashing-embedding", LIMIT)])

    assert lines[1] == f"lingpai/hashing-embedding  {LIMIT}"


def test_a_column_may_be_shown_in_fewer_words(shown):
    steps = [swap("words", ["1 2", "3 4"])]

    assert shown(30, print_table, HEADERS, ROWS, narrower=steps)[1].endswith("  1 2")


def test_only_sentences_are_folded_and_only_between_words(shown):
    lines = shown(
        40,
        print_table,
        ("id", "detail"),
        [("acme/shout", "It says what you say, but louder.")],
        prose="detail",
    )

    assert lines[1:] == ["acme/shout  It says what you say, but", "            louder."]


def test_details_are_folded_between_words_only(shown):
    lines = shown(30, print_details, {"name": "my-app", "limits": f"{LIMIT}, 10/1s, 500/hour@Europe/Berlin"})

    assert lines == [
        "name    my-app",
        f"limits  {LIMIT},",
        "        10/1s,",
        "        500/hour@Europe/Berlin",
    ]


def usage_row(**values):
    amounts = {"prompt_tokens": 1200, "completion_tokens": 33, "cost": 0.0, "errors": 0, "refused": 0}
    return {"key": "tour", "model": "lingpai/hashing-embedding", "requests": 3, **amounts, **values}


def headers_of_usage(shown, here, width):
    return shown(width, usage, by="key,model", options=here)[0].split()


def test_usage_goes_without_what_says_least(shown, api, here):
    """The bar first, then a cost that is 0, then long headers, then errors and refusals that did not happen."""
    api.usage = [usage_row()]
    long = ["prompt", "tokens", "completion", "tokens"]

    wide = headers_of_usage(shown, here, 140)
    middle = headers_of_usage(shown, here, 96)
    narrow = headers_of_usage(shown, here, 80)
    narrowest = headers_of_usage(shown, here, 50)

    assert wide == ["key", "model", "requests", "share", *long, "cost", "errors", "refused"]
    assert middle == ["key", "model", "requests", *long, "errors", "refused"]
    assert narrow == ["key", "model", "requests", "in", "out", "errors", "refused"]
    assert narrowest == ["key", "model", "requests", "in", "out"]


def test_usage_keeps_costs_errors_and_refusals_that_there_were(shown, api, here):
    api.usage = [usage_row(), usage_row(cost=0.5, errors=1, refused=2)]

    kept = headers_of_usage(shown, here, 40)

    assert kept == ["key", "model", "requests", "in", "out", "cost", "errors", "refused"]


def test_keys_fit_into_eighty_columns(shown, api, here):
    """The hint goes first, then dates give way to distances, then the id goes; names and limits stay whole."""
    api.add_key(
        "my-app", limits=[LIMIT], last_used_at="2020-01-01T00:00:00Z", expires_at="2099-01-01T00:00:00Z"
    )

    wide = shown(160, list_keys, options=here)
    narrow = shown(80, list_keys, options=here)

    assert wide[0].split() == ["name", "user", "id", "hint", "state", "limits", "expires", "last", "used"]
    assert narrow[0].split() == ["name", "user", "state", "limits", "expires", "last", "used"]
    assert len(narrow) == 2
    assert LIMIT in narrow[1]
    assert narrow[1].endswith("days ago")
    assert len(narrow[1]) <= 80


def test_clients_fit_into_eighty_columns_with_their_ids(shown, api, here):
    """Programs are set up with the id: hint, grants and limits go first."""
    api.add_client("nightly-reports", limits=[LIMIT], last_used_at="2020-01-01T00:00:00Z")

    wide = shown(200, list_clients, options=here)
    narrow = shown(80, list_clients, options=here)

    assert wide[0].split()[:6] == ["name", "user", "client", "id", "hint", "grants"]
    assert narrow[0].split() == ["name", "user", "client", "id", "state", "expires", "last", "used"]
    assert len(narrow) == 2
    assert api.clients["nightly-reports"]["client_id"] in narrow[1]
    assert len(narrow[1]) <= 80


def test_tokens_fit_into_eighty_columns_with_their_ids(shown, api, here):
    """Who looks at them wants to end one."""
    signed_in = {
        "address": "192.0.2.7",
        "user_agent": "python-requests/2.32",
        "refreshed_at": "2020-01-01T00:00:00Z",
    }
    api.add_token("fam_4fKx0aZ1bC2dE3fG", **signed_in)
    api.add_token("4fKx0aZ1bC2d")

    wide = shown(240, list_tokens, options=here)
    narrow = shown(80, list_tokens, options=here)

    assert wide[0].split() == [
        *("id", "kind", "client", "user", "scopes", "created", "refreshed", "expires", "address", "program"),
    ]
    assert narrow[0].split()[:4] == ["id", "kind", "client", "user"]
    assert narrow[1].startswith("fam_4fKx0aZ1bC2dE3fG")
    assert max(map(len, narrow)) <= 80


def test_calls_fit_into_eighty_columns_with_who_made_them(shown, api, here):
    """Key and client share a column; where nobody had a client, there is none."""
    call = {
        "started_at": "2026-11-20T16:00:00.123+08:00", "user": "alice", "model": "lingpai/eliza", "status": 200,
        "end_reason": "complete", "duration_ms": 1250.0, "prompt_tokens": 10, "completion_tokens": 20,
        "cost": None, "currency": None, "id": "req_a1b2c3d4e5f600000001",
    }  # fmt: skip
    by_key, by_client = {**call, "key": "laptop", "client": None}, {**call, "key": None, "client": "nightly"}
    path = ("GET", "/api/v1/requests")

    api.faults[path] = Answer(body={"data": [by_key, by_client], "next_cursor": None})
    wide, both = shown(200, list_requests, options=here), shown(80, list_requests, options=here)
    api.faults[path] = Answer(body={"data": [by_key], "next_cursor": None})
    keys = shown(80, list_requests, options=here)

    assert wide[0].split()[:3] == ["time", "key", "client"]
    assert both[0].split()[:2] == ["time", "by"]
    assert ("laptop" in both[1], "nightly" in both[2]) == (True, True)
    assert keys[0].split()[:2] == ["time", "key"]
    assert max(map(len, (*both, *keys))) <= 80


def test_limits_and_models_stay_on_their_lines(shown, api, here):
    state = {"used": 3, "remaining": 1997, "resets_at": "2099-01-01T00:00:00Z"}
    api.limits = [{"subject": "user", "name": "a-rather-long-name", "limit": LIMIT, **state}]

    limits = shown(80, list_limits, options=here)
    models = shown(60, list_models, options=here)

    assert len(limits) == 2
    assert limits[0].split() == ["subject", "name", "limit", "used", "left", "resets"]
    assert LIMIT in limits[1]
    assert models[1].split()[:3] == ["lingpai/eliza", "chat", "ready"]
