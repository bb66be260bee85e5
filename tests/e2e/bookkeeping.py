"""Do the books agree? What callers saw, what the usage records say, and what the limits count."""

import collections
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.load import Sent
from tests.e2e.raw_http import get

Record = dict[str, Any]

_COLUMN = {"requests": "charged", "tokens": "charged_tokens", "USD": "charged_cost", "CNY": "charged_cost"}
_NANO = 10**9


def check_each_call_once(records: Sequence[Record], calls: Iterable[Sent]) -> None:
    """Every answered call has one record that says the same status, and every record has a call that was sent.

    A record whose answer never arrived must come from the address of a connection that ended in the midst of a call:
    one record at most for each of those.
    """
    doubled = [
        id_ for id_, count in collections.Counter(each["request_id"] for each in records).items() if count > 1
    ]
    assert doubled == []
    recorded = {each["request_id"]: each for each in records}
    known: dict[str, Sent] = {}
    unheard: set[str] = set()
    for call in calls:
        if call.request_id:
            known[call.request_id] = call
        elif call.is_recordable:
            unheard.add(call.address)
        if call.is_answered and call.is_recordable:
            assert call.request_id in recorded, call
            assert recorded[call.request_id]["status"] == call.status, (call, recorded[call.request_id])
    invented = [
        each
        for each in records
        if each["request_id"] in known and not known[each["request_id"]].is_recordable
    ]
    assert invented == []
    orphans = [each["client_address"] for each in records if each["request_id"] not in known]
    assert len(orphans) == len(set(orphans))
    assert set(orphans) <= unheard


def limits_of(server: LingpaiServer, key: str, model: str) -> list[dict[str, Any]]:
    """The limits that a call of the key named `key` to `model` meets."""
    answer = server.admin("GET", f"/api/v1/limits/explain?key={key}&model={model}")
    return [row for row in answer["data"] if row["applies"]]


def amount_of(row: dict[str, Any]) -> Decimal:
    """The amount of a limit, without its unit."""
    return Decimal(row["limit"].partition("/")[0].partition(" ")[0])


def check_counters(
    server: LingpaiServer, keys: dict[str, str], model: str, records: Sequence[Record]
) -> list[dict[str, Any]]:
    """What each limit counts is the sum of the records of its subject, is within it, and nothing is reserved.

    `keys` are tokens by name. The caller's own view (``/v1/key``) says the same. The limits, of all keys.
    """
    seen = []
    for name, token in keys.items():
        rows = limits_of(server, name, model)
        own = {
            (row["limit"], str(row["used"])) for row in get(server.port, "/v1/key", key=token).json["limits"]
        }
        for row in rows:
            assert not Decimal(str(row["reserved"])), row
            assert Decimal(str(row["used"])) == charged_to(row, records), row
            assert Decimal(str(row["used"])) <= amount_of(row), row
            if row["subject"] == "key":
                assert (row["limit"], str(row["used"])) in own, (row, own)
        seen += rows
    return seen


def charged_to(row: dict[str, Any], records: Sequence[Record]) -> Decimal:
    """What the records say was taken from a limit that never starts anew while the test runs."""
    unit = row["unit"]
    if unit == "concurrent":
        return Decimal(0)
    of_subject = [each for each in records if _is_of(row, each)]
    if unit in ("USD", "CNY"):
        nano = sum(each["charged_cost"] for each in of_subject if each["currency"] == unit)
        return Decimal(nano) / _NANO
    return Decimal(sum(each[_COLUMN[unit]] for each in of_subject))


def _is_of(row: dict[str, Any], record: Record) -> bool:
    ids = {
        "key": record["key_id"],
        "user": record["user_id"],
        "project": record["project_id"],
        "model": record["model"],
        "user_model": f"{record['user_id']} {record['model']}",
    }
    return bool(ids[row["subject"]] == row["id"])


def wait_until_free(server: LingpaiServer, key: str, model: str, seconds: float = 5) -> list[dict[str, Any]]:
    """Wait until no limit of the key holds anything; the limits then."""
    deadline = time.monotonic() + seconds
    while True:
        rows = limits_of(server, key, model)
        held = [
            row
            for row in rows
            if Decimal(str(row["reserved"])) or (row["unit"] == "concurrent" and row["used"])
        ]
        if not held:
            return rows
        assert time.monotonic() < deadline, held
        time.sleep(0.02)
