"""Calls one by one: in pages that no insert moves, through many millions of others, and all of them at once."""

import pytest
from sqlalchemy import event

from lingpai.metering import requests as requests_module
from lingpai.metering.interfaces import Visible
from lingpai.metering.requests import RequestFilter, SqlRequestStore

AT = 1_800_000_000.0


def request_id(made_at, number=1):
    return f"req_{int(made_at):08x}aaaaaaaaaaaa{number:08x}"


@pytest.fixture
def store(database):
    return SqlRequestStore(database)


@pytest.fixture
def load_named(load):
    """Loads a call for each number, ten seconds apart, with the changes that `change` makes of it."""
    return lambda numbers, change=lambda number: {}: load(
        *({"request_id": f"r{n}", "started_at": AT + 10 * n} | change(n) for n in numbers)
    )


def pages(store, wanted, limit):
    """The request ids of each page, to the end."""
    found, before = [], None
    while True:
        page = store.page(wanted, limit=limit, before=before)
        found.append([record.request_id for record in page.records])
        before = page.next_before
        if before is None:
            return found


def ids(store, **wanted):
    return [name for page in pages(store, RequestFilter(**wanted), 50) for name in page]


def test_the_newest_come_first_and_the_last_page_says_so(store, load_named):
    """No empty page at the end."""
    load_named(range(6))

    assert pages(store, RequestFilter(), 3) == [["r5", "r4", "r3"], ["r2", "r1", "r0"]]
    assert pages(store, RequestFilter(), 4) == [["r5", "r4", "r3", "r2"], ["r1", "r0"]]


def test_nothing_is_one_empty_page(store):
    """Also when filters leave nothing."""
    assert pages(store, RequestFilter(key_id="none"), 3) == [[]]


def test_calls_that_come_in_between_move_no_page(store, load_named):
    """A page continues behind the last call of the one before, whatever is new."""
    load_named(range(4))
    first = store.page(RequestFilter(), limit=2)
    load_named(range(4, 9))

    second = store.page(RequestFilter(), limit=2, before=first.next_before)

    assert [record.request_id for record in second.records] == ["r1", "r0"]


def test_a_call_that_arrives_late_is_new(store, load_named):
    """The order is that of arrival: a page that was read does not change."""
    load_named([5, 6, 0])

    assert ids(store) == ["r0", "r6", "r5"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"since": AT + 30, "until": AT + 60}, ["r5", "r4", "r3"]),
        ({"since": AT + 900}, ["r95", "r90"]),
        ({"key_id": "second"}, ["r90", "r4"]),
        ({"client_id": "app"}, ["r5", "r3"]),
        ({"user_id": "usr_bob"}, ["r3"]),
        ({"project_id": "prj_bob", "user_id": "usr_ada"}, []),
        ({"model": "other"}, ["r2"]),
        ({"status": (400, 499)}, ["r5", "r1"]),
        ({"status": (429, 429)}, ["r5"]),
        ({"end_reason": "refused"}, ["r5"]),
        ({"endpoint": "embeddings"}, ["r0"]),
        ({"request_id": "r4"}, ["r4"]),
    ],
)
def test_filters_narrow_the_list_and_the_export_alike(store, load_named, wanted, expected):
    """To the second, and together."""
    changes = {
        0: {"endpoint": "embeddings"},
        1: {"status": 404},
        2: {"model": "other"},
        3: {"user_id": "usr_bob", "project_id": "prj_bob", "client_id": "app"},
        4: {"key_id": "second"},
        5: {"status": 429, "end_reason": "refused", "client_id": "app"},
        90: {"key_id": "second"},
    }
    load_named([0, 1, 2, 3, 4, 5, 90, 95], lambda number: changes.get(number, {}))

    assert ids(store, **wanted) == expected
    exported = [record.request_id for chunk in store.all(RequestFilter(**wanted)) for record in chunk]
    assert exported == expected[::-1]


def test_few_calls_among_many_are_found_without_a_walk_through_all(store, load_named, monkeypatch):
    """The marks and roll-ups lead there: three stretches for three calls, each in a quarter of an hour of its own."""
    monkeypatch.setattr(requests_module, "_STRETCH", 50)
    looked_at = []
    read = requests_module._records_between

    def count(connection, wanted, start, end, **rest):
        looked_at.append((start, end))
        return read(connection, wanted, start, end, **rest)

    monkeypatch.setattr(requests_module, "_records_between", count)
    rare = {0: {"key_id": "rare"}, 500: {"key_id": "rare"}, 999: {"key_id": "rare"}}
    load_named(range(1000), lambda number: rare.get(number, {}))

    assert ids(store, key_id="rare") == ["r999", "r500", "r0"]
    assert len(looked_at) < 9


def test_a_page_ends_after_so_many_calls_looked_at_and_says_where_to_go_on(store, load_named, monkeypatch):
    """An answer in bounded time: short pages, and in the end all of it."""
    monkeypatch.setattr(requests_module, "_STRETCH", 10)
    monkeypatch.setattr(requests_module, "_MOST_STRETCHES", 2)
    load_named(range(100), lambda number: {"status": 500 if number % 40 == 0 else 200})

    found = pages(store, RequestFilter(status=(500, 500)), 10)

    assert [name for page in found for name in page] == ["r80", "r40", "r0"]
    assert [] in found


def test_one_call_is_found_by_its_id(store, load_named, monkeypatch):
    """However far back; another user's is not there."""
    monkeypatch.setattr(requests_module, "_STRETCH", 10)
    ids = [request_id(AT + 10 * number, number) for number in range(700)]
    load_named(range(700), lambda number: {"request_id": ids[number]})

    assert store.find(ids[3]).started_at == AT + 30
    assert store.find(ids[3], visible=Visible("usr_bob", ())) is None
    assert store.find(ids[3], visible=Visible("usr_bob", ("prj_other",))) is None
    assert store.find(request_id(AT, number=700)) is None


def test_id_of_an_older_version_is_looked_for_among_the_newest(store, load_named, monkeypatch):
    """It says nothing of its time, and to look through all of them would take too long."""
    monkeypatch.setattr(requests_module, "_STRETCH", 10)
    load_named(range(700))

    assert store.find("r690").started_at == AT + 6900
    assert store.find("r3") is None


def test_an_export_has_everything_once_and_leaves_out_what_comes_meanwhile(store, load_named):
    """Piece by piece, oldest first."""
    load_named(range(1203))
    chunks = store.all(RequestFilter())

    found = [record.request_id for record in next(chunks)]
    load_named(range(2000, 2003))
    found += [record.request_id for chunk in chunks for record in chunk]

    assert found == [f"r{number}" for number in range(1203)]


@pytest.mark.parametrize("wanted", [{}, {"since": AT}, {"user_id": "usr_ada"}])
def test_an_export_and_a_page_ask_once_where_calls_are(store, load_named, database, monkeypatch, wanted):
    """There may be tens of thousands of marks: not for each of thousands of pieces, nor for each stretch."""
    monkeypatch.setattr(requests_module, "_STRETCH", 10)
    load_named(range(200), lambda number: {"status": 500 if number == 0 else 200})
    asked = []

    @event.listens_for(database._engine, "before_cursor_execute")
    def note(_, cursor, statement, *rest):
        asked.append("usage_marks" in statement)

    assert sum(len(chunk) for chunk in store.all(RequestFilter(**wanted))) == 200
    assert sum(asked) == 1

    asked.clear()
    assert len(store.page(RequestFilter(status=(500, 500), **wanted), limit=5).records) == 1
    assert sum(asked) == 1


def test_request_is_looked_for_where_its_id_says(store, load, monkeypatch):
    """Not in all that was ever recorded: whoever asks for ids that are none would make the server read it all."""
    day = 86_400
    wanted = [request_id(AT + day * number) for number in range(5)]
    load(*({"request_id": wanted[number], "started_at": AT + day * number + 1} for number in range(5)))
    looked_at = []
    between = requests_module._records_between

    def note(connection, wanted, start, end, **options):
        looked_at.append((start, end))
        return between(connection, wanted, start, end, **options)

    monkeypatch.setattr(requests_module, "_records_between", note)
    monkeypatch.setattr(requests_module, "_STRETCH", 1)

    assert store.find(wanted[2]).started_at == AT + 2 * day + 1
    assert store.find(request_id(AT + day, number=7)) is None
    assert [
        record.request_id for record in store.page(RequestFilter(request_id=wanted[3]), limit=5).records
    ] == [wanted[3]]
    assert len(looked_at) <= 5


@pytest.mark.parametrize("late_s", [0, 100, 3 * 3600])
def test_request_whose_body_came_slowly_is_found(store, load, late_s):
    load({"request_id": request_id(AT), "started_at": AT + late_s})

    assert store.find(request_id(AT)).started_at == AT + late_s


def test_request_outside_of_the_time_asked_for_is_not_listed(store, load):
    load({"request_id": request_id(AT), "started_at": AT})
    wanted = RequestFilter(request_id=request_id(AT), since=AT + 10)

    assert store.page(wanted, limit=5).records == []
