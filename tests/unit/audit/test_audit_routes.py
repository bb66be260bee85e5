"""``/api/v1/audit``: lists, pages, exports, and what is refused."""

import asyncio
import csv
import io

import httpx2
import pytest
from audit_world import ALICE, NOW
from fastapi import FastAPI

from lingpai.audit.routes import audit_routes
from lingpai.principal import Principal
from lingpai.storage.trail import Deed
from lingpai.web.errors import install_error_handlers

MEMBER = Principal("usr_bob", "bob", "member", key_id="bobs", scopes=frozenset({"usage:read"}))


@pytest.fixture
def get(world):
    """Asks as an administrator unless told otherwise."""

    def request(path="", caller=ALICE, **parameters):
        async def ask():
            app = FastAPI()
            install_error_handlers(app)

            async def authenticate(_):
                return caller

            app.state.authenticate = authenticate
            app.include_router(audit_routes(world.store, world.exporting, world.trail, lambda: NOW + 100))
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get(f"/api/v1/audit{path}", params=parameters)

        return asyncio.run(ask())

    return request


def numbers(answer):
    return [record["number"] for record in answer.json()["data"]]


def test_a_record_is_shown_with_everything_it_says(world, get):
    world.trail.note(
        ALICE,
        Deed(
            action="key.update",
            target_kind="key",
            target_id="k1",
            target_name="ci",
            project_id="prj_1",
            before={"limits": []},
            after={"limits": ["5/day"]},
        ),
    )

    answer = get()

    [record] = answer.json()["data"]
    assert record == {
        **{name: value for name, value in world.records()[0].items() if name != "type"},
        "hash": world.store.tail().hash,
    }
    assert answer.headers["cache-control"] == "no-store"


def test_pages_follow_each_other(world, get):
    world.act(*(f"key-{number}" for number in range(5)))

    first = get(limit=3)
    second = get(limit=3, cursor=first.json()["next_cursor"])

    assert (numbers(first), numbers(second)) == ([5, 4, 3], [2, 1])
    assert second.json()["next_cursor"] is None


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"action": "key.create"}, [3, 2, 1]),
        ({"actor": "alice"}, [3, 2, 1]),
        ({"target": "b"}, [2]),
        ({"result": "failed"}, []),
        ({"since": "1h"}, [3, 2, 1]),
        ({"since": "98s"}, None),
        ({"until": "2026-11-18"}, []),
        ({"since": "2026-11-18T19:06:42", "tz": "Asia/Shanghai"}, [3, 2]),
        ({"search": "alices"}, [3, 2, 1]),
    ],
)
def test_filters_are_those_of_the_store(world, get, parameters, expected):
    world.act("a", "b", "c")

    answer = get(**parameters)

    if expected is None:
        assert answer.status_code == 400
    else:
        assert numbers(answer) == expected


@pytest.mark.parametrize("path", ["", "/export"])
@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"result": "maybe"}, "result"),
        ({"since": "yesterday"}, "since"),
        ({"tz": "Mars"}, "tz"),
        ({"search": "x" * 201}, "search"),
        ({"actor": ""}, "actor"),
    ],
)
def test_bad_parameters_are_named(get, path, parameters, param):
    answer = get(path, **parameters)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("cursor", ["x", "WzAuMCwgIngiXQ", "WzAuMCwgIi0xIl0"])
def test_a_cursor_that_is_none_of_ours_is_refused(get, cursor):
    answer = get(cursor=cursor)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


@pytest.mark.parametrize("path", ["", "/export"])
def test_only_who_has_the_scope_may_read(world, get, path):
    world.act("a")

    assert get(path, caller=MEMBER).json()["error"]["code"] == "insufficient_scope"


def test_an_export_can_be_verified_and_has_its_own_record(world, get):
    world.history()

    answer = get("/export")

    report = world.verify_export(answer.content)
    assert (report.is_intact, report.last) == (True, 13)
    assert world.records()[-1]["action"] == "audit.export"
    assert answer.headers["content-type"] == "application/jsonl; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="lingpai-audit.jsonl"'
    assert answer.headers["cache-control"] == "no-store"


def test_an_export_that_cannot_be_recorded_is_refused(world, get):
    world.history()
    with world.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )

    answer = get("/export")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")


def test_an_export_as_csv_has_what_fits(world, get):
    world.act("a", "b")

    answer = get("/export", format="csv", target="b", bom="true")

    assert answer.content.startswith("\ufeff".encode())
    [row] = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""))
    assert row["target_id"] == "b"
