"""A million keys and what they used, written straight into the database of a stopped server."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from lingpai.identity.peppers import Peppers
from lingpai.ids import MintedCredential, mint_credential

USERS: Final = 1000

# Multiplying by an odd number modulo 2^48 scatters the ids like random ones and repeats none.
_FILLER_ID: Final = "printf('%012x', (n * 1099511628211) % 281474976710656)"
_NUMBERS: Final = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"

_LIMITS: Final = '["1000000000/month"]'

_ADD_RECORDS: Final = """
INSERT INTO usage_records
    (request_id, key_id, user_id, model, backend, task, endpoint, started_at, duration_ms, prompt_tokens,
     completion_tokens, cached_tokens, reasoning_tokens, counted, status, end_reason, charged, retries, client_address)
SELECT 'req_' || id, id, :user, :model, 'bench', 'chat', 'chat.completions',
    :since + (:until - :since) * (row_number() OVER () - 1) / (SELECT count(*) FROM api_keys),
    1, 10, 10, 0, 0, 'reported', 200, 'complete', 1, 0, '127.0.0.1'
FROM api_keys
"""
_BUCKET: Final = "CAST(started_at AS INTEGER) - CAST(started_at AS INTEGER) % 900"
_ADD_SUMS: Final = f"""
INSERT INTO usage_rollups
    SELECT {_BUCKET} AS bucket, key_id, user_id, '' AS client_id, project_id, model, task, count(*), 0, 0, sum(charged),
        sum(prompt_tokens), sum(completion_tokens), 0, 0, 0, 0, 0, 0, 0
    FROM usage_records GROUP BY bucket, key_id, user_id, project_id, model, task;
INSERT INTO usage_charges
    SELECT {_BUCKET} AS bucket, 'user', user_id, project_id, model, sum(charged), 0, 0, 0
    FROM usage_records GROUP BY bucket, user_id, project_id, model;
INSERT INTO usage_charges
    SELECT {_BUCKET} AS bucket, 'model', model, '', '', sum(charged), 0, 0, 0
    FROM usage_records GROUP BY bucket, model;
INSERT INTO usage_marks
    SELECT {_BUCKET} AS bucket, min(id), max(id) FROM usage_records GROUP BY bucket;
"""


def insert_keys(data: Path, template: str, *, real: int, filler: int) -> list[str]:
    """Add `real` working keys, whose credentials are returned, and `filler` rows like them with keys of nobody.

    Everything but what makes them different is copied from the key named `template`. The filler belongs to
    `USERS` further users.
    """
    with closing(sqlite3.connect(data / "lingpai.db")) as connection:
        connection.row_factory = sqlite3.Row
        key = dict(connection.execute("SELECT * FROM api_keys WHERE name = ?", [template]).fetchone())
        owner = dict(connection.execute("SELECT * FROM users WHERE id = ?", [key["user_id"]]).fetchone())
        minted = [mint_credential("sk-lp-") for _ in range(real)]
        peppers = Peppers.from_file(data / "secrets" / "pepper.json")
        version = key["pepper_version"]
        rows = [_real_row(key, each, peppers.hmac(each.token.encode(), version)) for each in minted]
        with connection:
            _insert(connection, "api_keys", rows)
            if filler:
                _add_users(connection, owner)
                _add_filler(connection, key, filler)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return [each.token for each in minted]


def insert_history(data: Path, template: str, *, model: str, since: float, until: float) -> int:
    """Let every key have called `model` once between two times (unix seconds); how many calls these are.

    They are all charged to the user of the key named `template`, as if the keys were that user's. Both this user and
    the model get limits of a month that are too large to refuse anything.
    """
    with closing(sqlite3.connect(data / "lingpai.db")) as connection, connection:
        user = connection.execute("SELECT user_id FROM api_keys WHERE name = ?", [template]).fetchone()[0]
        values = {"user": user, "model": model, "since": since, "until": until}
        connection.execute("UPDATE users SET limits = ? WHERE id = ?", [_LIMITS, user])
        connection.execute(
            "INSERT INTO limits (kind, id, limits, updated_at) VALUES ('model', ?, ?, ?)",
            [model, _LIMITS, until],
        )
        found = connection.execute(_ADD_RECORDS, values).rowcount
        connection.executescript(_ADD_SUMS)
    return found


def _real_row(template: dict[str, Any], minted: MintedCredential, hmac: bytes) -> dict[str, Any]:
    return template | {"id": minted.id, "name": minted.id, "secret_hmac": hmac, "hint": minted.hint}


def _add_users(connection: sqlite3.Connection, owner: dict[str, Any]) -> None:
    rows = [owner | {"id": f"usr_{n}", "name": f"user-{n}", "role": "member"} for n in range(USERS)]
    _insert(connection, "users", rows)


def _add_filler(connection: sqlite3.Connection, template: dict[str, Any], count: int) -> None:
    """SQLite makes these rows itself, which takes seconds where Python would take a minute."""
    different = {
        "id": _FILLER_ID,
        "name": "'key-' || n",
        "user_id": f"'usr_' || (n % {USERS})",
        "secret_hmac": "randomblob(32)",
        "created_at": "created_at + n / 1000.0",
    }
    columns = ", ".join(template)
    values = ", ".join(different.get(column, column) for column in template)
    connection.execute(
        f"INSERT INTO api_keys ({columns}) {_NUMBERS} SELECT {values} FROM numbers, api_keys WHERE id = ?",
        [count, template["id"]],
    )


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(rows[0])
    marks = ", ".join(f":{column}" for column in columns)
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
