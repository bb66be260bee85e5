"""Reading the trail: filters, search, pages."""

import pytest
from audit_world import ALICE, BOB
from sqlalchemy import event

from lingpai.audit import store as store_module
from lingpai.audit.canonical import time_in
from lingpai.audit.store import AuditFilter
from lingpai.storage.trail import Deed


@pytest.fixture
def filled(world):
    """1: alice makes k1 (ci); 2: bob makes k2; 3: alice is refused; 4: the server starts; 5: bob deletes k1."""
    deeds = [
        (ALICE, Deed(action="key.create", target_kind="key", target_id="k1", target_name="ci")),
        (BOB, Deed(action="key.create", target_kind="key", target_id="k2", after={"note": "100%_sure"})),
        (
            ALICE,
            Deed(
                action="access.refuse",
                target_kind="route",
                target_id="GET /x",
                result="refused",
                reason="not_found",
            ),
        ),
        (None, Deed(action="server.start", target_kind="server", target_id="server")),
        (BOB, Deed(action="key.delete", target_kind="key", target_id="k1", target_name="ci")),
    ]
    for caller, deed in deeds:
        world.trail.note(caller, deed)
    return world


def found(world, **wanted):
    return [row.number for row in world.store.page(AuditFilter(**wanted), limit=50).records]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"action": "key.create"}, [2, 1]),
        ({"actor": "usr_bob"}, [5, 2]),
        ({"actor": "bob"}, [5, 2]),
        ({"actor": "bobs"}, [5, 2]),
        ({"target": "k1"}, [5, 1]),
        ({"target": "ci"}, [5, 1]),
        ({"result": "refused"}, [3]),
        ({"search": "NOT_FOUND"}, [3]),
        ({"search": "100%_"}, [2]),
        ({"search": "%"}, [2]),
        ({"search": "ke%create"}, []),
        ({"search": "alices", "action": "key.create"}, [1]),
        ({"actor": "nobody"}, []),
        ({"actor": "bob", "target": "k1"}, [5]),
    ],
)
def test_filters_are_met_together(filled, wanted, numbers):
    assert found(filled, **wanted) == numbers


def test_times_bound_what_is_found(filled):
    times = [time_in(record["time"]) for record in filled.records()]

    assert found(filled, since=times[1], until=times[3]) == [3, 2]


@pytest.mark.parametrize("wanted", [{}, {"search": "key-"}, {"action": "key.create"}])
def test_pages_show_each_record_once(world, wanted):
    world.act(*(f"key-{number}" for number in range(25)))
    seen, before = [], None

    while True:
        page = world.store.page(AuditFilter(**wanted), limit=7, before=before)
        seen += [row.number for row in page.records]
        before = page.next_before
        if before is None:
            break

    assert seen == list(range(25, 0, -1))


def test_what_comes_meanwhile_moves_no_page(world):
    world.act("a", "b", "c")
    first = world.store.page(AuditFilter(), limit=2)
    world.act("d")

    second = world.store.page(AuditFilter(), limit=2, before=first.next_before)

    assert [row.number for row in (*first.records, *second.records)] == [3, 2, 1]


def test_a_search_among_very_many_answers_with_what_it_has_and_goes_on(world, monkeypatch):
    monkeypatch.setattr(store_module, "_STRETCH", 2)
    monkeypatch.setattr(store_module, "_MOST_STRETCHES", 3)
    world.act("needle", *(f"key-{number}" for number in range(9)))

    first = world.store.page(AuditFilter(search="needle"), limit=5)
    second = world.store.page(AuditFilter(search="needle"), limit=5, before=first.next_before)

    assert (first.records, first.next_before) == ([], 5)
    assert ([row.number for row in second.records], second.next_before) == ([1], None)


@pytest.mark.parametrize("wanted", [{"action": "a"}, {"actor": "a"}, {"target": "a"}])
def test_an_index_leads_to_what_is_filtered_by(world, wanted):
    world.act(*(f"key-{number}" for number in range(50)))
    statements = []
    event.listen(
        world.database._engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, *_: statements.append((statement, parameters)),
    )

    world.store.page(AuditFilter(**wanted), limit=5)

    statement, parameters = statements[-1]
    with world.database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert any(f"ix_audit_records_{next(iter(wanted))}" in row[3] for row in plan), plan


def test_an_empty_trail_has_an_empty_page(world):
    assert world.store.page(AuditFilter(), limit=5) == ([], None)
    assert list(world.store.all(AuditFilter(), last=0)) == []
    assert world.store.tail() is None
