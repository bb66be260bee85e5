"""Records: numbered without gaps, chained, part of the change they tell of, and free of secrets."""

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from audit_world import ALICE, BOB, NOW, Clock
from sqlalchemy.exc import IntegrityError

from lingpai.audit.canonical import FIRST_PREVIOUS, canonical, hash_of
from lingpai.audit.service import SqlTrail
from lingpai.errors import LingpaiError
from lingpai.ids import mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database, sqlite_url
from lingpai.storage.trail import Deed
from lingpai.telemetry.logs import current_request
from lingpai.web.origin import Origin, command_origin, current_origin

INSERT_BEHIND_A_GAP = (
    "INSERT INTO audit_records SELECT 9, time, action, result, actor_id, actor_name, credential, target_kind, target_id,"
    " target_name, project_id, line, hash FROM audit_records WHERE number = 2"
)
DEED = Deed(action="key.create", target_kind="key", target_id="k1", target_name="ci", project_id="prj_1")


@pytest.fixture
def request_from():
    """Sets where the present request comes from."""
    tokens = []

    def come(origin, request_id="req_1"):
        tokens.append((current_origin, current_origin.set(origin)))
        tokens.append((current_request, current_request.set(request_id)))

    yield come
    for variable, token in reversed(tokens):
        variable.reset(token)


def test_a_record_says_who_did_what_to_what_from_where(world, request_from):
    request_from(Origin(kind="network", address="203.0.113.7", user_agent="curl/8"))

    world.trail.note(ALICE, DEED)

    assert world.records() == [
        {
            "number": 1,
            "time": "2026-11-18T11:06:41.000Z",
            "type": "record",
            "previous": FIRST_PREVIOUS,
            "action": "key.create",
            "result": "done",
            "reason": None,
            "actor": {
                "kind": "user",
                "id": "usr_alice",
                "name": "alice",
                "credential": {"kind": "key", "id": "alices"},
            },
            "target": {"kind": "key", "id": "k1", "name": "ci"},
            "project_id": "prj_1",
            "before": None,
            "after": None,
            "address": "203.0.113.7",
            "user_agent": "curl/8",
            "request_id": "req_1",
        }
    ]


@pytest.mark.parametrize(
    ("caller", "origin", "actor"),
    [
        (BOB, Origin(kind="network"), ("user", "bob", {"kind": "key", "id": "bobs"})),
        (
            Principal("usr_app", "ops", "member", client_id="cl_1"),
            Origin(kind="network"),
            ("user", "ops", {"kind": "client", "id": "cl_1"}),
        ),
        (
            Principal("usr_admin", "admin", "admin"),
            Origin(kind="socket"),
            ("user", "admin", {"kind": "admin_socket", "id": None}),
        ),
        (None, None, ("server", None, None)),
        (None, Origin(kind="network", address="::1"), ("unknown", None, None)),
        (None, Origin(kind="command", user="root"), ("command", "root", None)),
    ],
)
def test_an_actor_is_a_user_a_command_the_server_or_unknown(world, request_from, caller, origin, actor):
    if origin is not None:
        request_from(origin)

    world.trail.note(caller, DEED)

    found = world.records()[0]["actor"]
    assert (found["kind"], found["name"], found["credential"]) == actor


def test_who_runs_a_command_has_a_name():
    assert command_origin().user


def test_each_record_holds_the_hash_of_the_one_before(world):
    world.act("a", "b", "c")

    records = world.records()

    hashes = [hash_of(canonical(record)) for record in records]
    assert [record["previous"] for record in records] == [FIRST_PREVIOUS, *hashes[:2]]
    assert [record["number"] for record in records] == [1, 2, 3]


def test_a_record_goes_with_its_change(world):
    def change():
        with world.database.write() as connection:
            world.trail.record(connection, ALICE, DEED)
            raise RuntimeError

    world.act("a")
    with pytest.raises(RuntimeError):
        change()
    world.act("b")

    assert [record["target"]["id"] for record in world.records()] == ["a", "b"]
    assert world.verify().is_intact


def test_fifty_threads_make_one_chain_without_gaps(world):
    start = threading.Barrier(50)

    def act(number):
        start.wait(20)
        world.act(*(f"{number}-{turn}" for turn in range(4)))

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(act, range(50)))

    report = world.verify()
    assert (report.is_intact, report.records, report.last) == (True, 200, 200)
    assert len({record["target"]["id"] for record in world.records()}) == 200


def test_two_processes_databases_make_one_chain(world):
    """Such as a server, and a command that works on its data directory."""
    other_database = Database(sqlite_url(world.path))
    other = SqlTrail(other_database, clock=Clock(NOW))

    for _ in range(5):
        world.trail.note(ALICE, DEED)
        other.note(BOB, DEED)
    other_database.close()

    assert [record["actor"]["name"] for record in world.records()] == ["alice", "bob"] * 5
    assert world.verify().is_intact


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET result = 'failed'",
        "DELETE FROM audit_records",
        "INSERT OR REPLACE INTO audit_records SELECT * FROM audit_records WHERE number = 2",
        INSERT_BEHIND_A_GAP,
        "UPDATE audit_checkpoints SET line = ''",
        "DELETE FROM audit_checkpoints",
        "INSERT OR REPLACE INTO audit_checkpoints SELECT * FROM audit_checkpoints",
    ],
)
def test_the_database_lets_the_trail_only_grow(world, statement):
    world.act("a", "b")
    world.checkpoints.write()

    with pytest.raises(IntegrityError), world.database.write() as connection:
        connection.exec_driver_sql(statement)


def test_what_cannot_be_recorded_is_refused_and_undone(world, caplog):
    with world.database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name)")
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )

    def change():
        with world.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES ('a')")
            world.trail.record(connection, ALICE, DEED)

    with pytest.raises(LingpaiError, match="cannot be recorded") as refused:
        change()

    assert (refused.value.code, refused.value.status) == ("storage_unavailable", 503)
    assert "no room" in caplog.text
    with world.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar() == 0


def test_a_locked_database_refuses(world, monkeypatch):
    monkeypatch.setattr("lingpai.storage.database.BUSY_TIMEOUT_S", 0.05)
    database = Database(sqlite_url(world.path))
    with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(LingpaiError) as refused:
            SqlTrail(database).note(ALICE, DEED)

    assert refused.value.status == 503
    database.close()


def test_no_credential_is_recorded_wherever_somebody_put_it(world, request_from):
    token = mint_credential("sk-lp-").token
    request_from(Origin(kind="network", user_agent=f"Bearer {token}"))

    world.trail.note(
        ALICE,
        Deed(
            action="key.create", target_kind="key", target_id=token, target_name=token, reason=f"no {token}"
        ),
    )

    assert token[6:] not in json.dumps(world.records())
    assert "sk-lp-[hidden]" in json.dumps(world.records())


@pytest.mark.parametrize(
    "text", ["\ud800", "\x00\x1b[2J", "令牌\u2028", "'; DROP TABLE audit_records; --", "x" * 5000]
)
def test_any_text_can_be_recorded_and_verified(world, request_from, text):
    request_from(Origin(kind="network", address=None, user_agent=text))

    world.trail.note(
        ALICE,
        Deed(
            action="key.create",
            target_kind="key",
            target_id=text,
            reason=text,
            after={"name": text, text: 0.5},
        ),
    )

    assert world.verify().is_intact
    assert world.verify_export(world.export()).is_intact
