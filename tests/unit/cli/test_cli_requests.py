"""`lingpai requests` and `lingpai usage rebuild`, as people and programs use them."""

import json

import pytest

from lingpai.cli import requests as requests_module
from lingpai.cli import usage_rebuild
from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import Options
from lingpai.cli.requests import Wishes, export, list_, show
from lingpai.cli.usage import shown_cost, total_of, usage
from lingpai.metering.loader import SqliteLoader
from lingpai.metering.records import UsageRecord
from lingpai.storage.database import Database, sqlite_url
from tests.fakes.management_api import Answer, error


def call(name, **changes):
    fields = {
        "id": name,
        "started_at": "2026-11-20T16:00:00.123+08:00",
        "key": "laptop",
        "client": None,
        "user": "ada",
        "model": "lingpai/eliza",
        "status": 200,
        "end_reason": "complete",
        "duration_ms": 1250.0,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cost": "0.0015",
        "currency": "USD",
    }
    return {**fields, **changes}


@pytest.fixture
def here(api, tmp_path, monkeypatch):
    """The options that lead to `api`."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    return Options(data=tmp_path / "data")


def answer_with(api, *calls, cursor=None):
    api.faults["GET", "/api/v1/requests"] = Answer(body={"data": list(calls), "next_cursor": cursor})


def test_list_shows_a_line_for_each_call(api, here, capsys):
    """And passes every filter on."""
    answer_with(api, call("req_1"), call("req_2", key=None, cost=None, currency=None))

    list_(
        wishes=Wishes(since="1h", status="4xx", project="team", end_reason="timeout"), limit=2, options=here
    )

    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [
        *(
            "2026-11-20",
            "16:00:00",
            "laptop",
            "–",
            "ada",
            "lingpai/eliza",
            "200",
            "complete",
            "1.25",
            "10",
            "20",
        ),
        *("0.0015", "USD", "req_1"),
    ]
    assert api.last.query == {
        "since": "1h",
        "status": "4xx",
        "project": "team",
        "end_reason": "timeout",
        "tz": "Asia/Shanghai",
        "limit": "2",
    }


def test_list_goes_through_pages_up_to_the_limit(api, here, capsys):
    """A page may be short and still not the last."""
    answer_with(api, call("req_1"), cursor="next")

    list_(limit=3, options=Options(as_json=True, data=here.data))

    assert len(json.loads(capsys.readouterr().out)) == 3
    assert api.last.query["cursor"] == "next"


def test_list_of_nothing_says_so(api, here, capsys):
    """On stderr; stdout is for data."""
    answer_with(api)

    list_(options=here)

    assert capsys.readouterr() == ("", "There are no such calls.\n")


def test_follow_shows_each_call_once_and_the_newest_last(api, here, capsys, monkeypatch):
    """Until it is interrupted."""
    answer_with(api, call("req_2"), call("req_1"))
    rounds = []

    def pause(seconds):
        rounds.append(seconds)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        answer_with(api, call("req_3"), call("req_2"), call("req_1"))

    monkeypatch.setattr(requests_module.time, "sleep", pause)

    with pytest.raises(KeyboardInterrupt):
        list_(follow=True, options=Options(as_json=True, data=here.data))

    shown = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["req_1", "req_2", "req_3"]


def test_show_has_everything(api, here, capsys):
    """One field to a line."""
    api.faults["GET", "/api/v1/requests/req_1"] = Answer(body=call("req_1", retries=2))

    show("req_1", options=here)

    out = capsys.readouterr().out
    assert "end reason" in out
    assert "retries" in out


def test_export_writes_the_whole_file_or_none(api, here, tmp_path, capfd):
    """Streamed; an error leaves no file behind."""
    api.faults["GET", "/api/v1/requests/export"] = Answer(body=["a"])
    export(output=tmp_path / "calls.csv", options=here)

    api.faults["GET", "/api/v1/requests/export"] = error(404, "not_found", "There is no such key.")
    with pytest.raises(CommandError, match="no such key"):
        export(file_format="jsonl", output=tmp_path / "other", options=here)

    assert json.loads((tmp_path / "calls.csv").read_text()) == ["a"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["calls.csv"]
    assert api.last.query["format"] == "jsonl"
    api.faults["GET", "/api/v1/requests/export"] = Answer(body=["a"])
    with pytest.raises(CommandError, match="cannot be written"):
        export(output=tmp_path / "missing" / "calls.csv", options=here)


def test_export_is_no_json_document(here):
    """It says what is meant."""
    with pytest.raises(UsageError, match="jsonl"):
        export(options=Options(as_json=True))


def test_usage_shows_costs_with_their_currency_and_adds_them_apart():
    """Exactly, as decimals."""
    rows = [
        {"requests": 1, "cost": 0.1, "costs": {"USD": "0.1"}},
        {"requests": 1, "cost": None, "costs": {"USD": "0.2", "CNY": "0.000000001"}},
    ]

    assert [shown_cost(row) for row in rows] == ["0.1 USD", "0.2 USD + 0.000000001 CNY"]
    assert shown_cost(total_of(rows, ["key"])) == "0.3 USD + 0.000000001 CNY"
    assert shown_cost({"cost": 0.0}) == 0.0


def test_usage_filters_and_groups_by_project(api, here, capsys):
    """As by key and user."""
    usage(by="project", project="team", csv=True, options=here)

    assert api.last.query["project"] == "team"
    assert capsys.readouterr().out.startswith("project,requests,")


@pytest.fixture
def data(tmp_path):
    """A data directory with a call whose sums are wrong."""
    directory = tmp_path / "offline"
    directory.mkdir()
    database = Database(sqlite_url(directory / "lingpai.db"))
    database.migrate()
    loader = SqliteLoader(directory / "lingpai.db")
    record = UsageRecord(
        *("req_1", "k", "u", "m", "b", "chat", "/", 1_800_000_000.0, None, 1.0, 1, 1, 0, 0),
        *("reported", 200, "complete", 1, 0, "::1"),
    )
    loader.load([record], (1, 1))
    loader.close()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE usage_rollups SET requests = 5")
    database.close()
    return directory


def test_rebuild_repairs_and_says_what_was_wrong(data, capsys):
    """For people and for programs; then there is nothing left to repair."""
    usage_rebuild.rebuild(options=Options(data=data, as_json=True))
    body = json.loads(capsys.readouterr().out)

    usage_rebuild.rebuild(since="2020-01-01", options=Options(data=data))

    (repair,) = body["repaired"]
    assert (repair["bucket_start"], repair["before"], repair["after"]) == (
        *("2027-01-15T08:00:00Z", {"requests": 5}, {"requests": 1}),
    )
    assert capsys.readouterr() == (
        *("", "0 of 1 quarters of an hour repaired, 0 places in the records found anew.\n"),
    )


def test_rebuild_shows_a_table(data, capsys):
    """What it was and what it is."""
    usage_rebuild.rebuild(options=Options(data=data))

    assert capsys.readouterr().out.splitlines()[1].split()[2:] == ["requests", "5", "1"]


def test_rebuild_says_what_it_needs(tmp_path, data):
    """A data directory of this release, and a moment."""
    for options, since, words in (
        (Options(data=tmp_path / "none"), None, "There is no"),
        (Options(server="http://127.0.0.1:1"), None, "data directory"),
        (Options(data=data), "soon", "neither a duration"),
    ):
        with pytest.raises(CommandError, match=words):
            usage_rebuild.rebuild(since=since, options=options)

    old = tmp_path / "old"
    old.mkdir()
    (old / "lingpai.db").touch()
    with pytest.raises(CommandError, match="older release"):
        usage_rebuild.rebuild(options=Options(data=old))
