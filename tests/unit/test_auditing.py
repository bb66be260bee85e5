"""The trail of a whole server: its own life, refusals on management routes and model calls, and what is not recorded."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

import lingpai
from lingpai.audit.checkpoints import kept_outside
from lingpai.audit.database_verification import verify_database
from lingpai.audit.keys import FILE, read_keys
from lingpai.audit.signing import PublicKeys, public_keys
from lingpai.errors import LingpaiError
from lingpai.identity.schemas import KeyCreate, KeyUpdate, UserCreate
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.ids import mint_credential
from lingpai.quotas.settings import LimitsSettings
from lingpai.settings import ModelSettings, ServerSettings, Settings
from lingpai.targets import DEMONSTRATION, DEMONSTRATION_NAME
from lingpai.wire.request_signing import RequestSigner, hmac_sha256
from tests.in_process import InProcessServer

SETTINGS = Settings(server=ServerSettings(port=0))
DEMO = (ModelSettings(target=DEMONSTRATION, name=DEMONSTRATION_NAME),)
CHAT = "/v1/chat/completions"
Story = Callable[[InProcessServer, httpx2.AsyncClient], Awaitable[None]]


def play(folder: Path, story: Story, targets: tuple[ModelSettings, ...] = ()) -> list[dict[str, Any]]:
    """Run a server while `story` goes on; the records that there are in the end."""

    async def run() -> None:
        server = InProcessServer(folder, SETTINGS, targets)
        await server.start()
        await asyncio.sleep(0.05)  # until it runs, it can neither be stopped nor reloaded
        try:
            base = f"http://127.0.0.1:{server.port}"
            async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
                await story(server, client)
        finally:
            await server.stop()

    asyncio.run(run())
    return records_in(folder)


def records_in(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "data" / "lingpai.db")) as connection:
        rows = connection.execute("SELECT line FROM audit_records ORDER BY number")
        return [json.loads(line) for (line,) in rows]


def verify(folder: Path) -> Any:
    data = folder / "data"
    keys = PublicKeys(public_keys(read_keys(data / FILE)).values())
    outside = [json.loads(path.read_bytes()) for path in kept_outside(data)]
    return verify_database(data / "lingpai.db", keys, outside)


def refusals(records: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [
        (record["reason"], record["target"]["id"], record["after"]["count"])
        for record in records
        if record["action"] == "access.refuse"
    ]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def nothing(*_: Any) -> None:
    """A story in which nothing happens."""


async def make_key(server: InProcessServer, **fields: Any) -> tuple[str, str]:
    """The id and the credential of a new key."""
    domains = server.application.domains
    body = KeyCreate(name=fields.pop("name", "k"), limits=["none"], **fields)
    made = await asyncio.to_thread(domains.keys.create, server.application.local_administrator, body)
    return made.key.id, made.token


# -- the server's life


def test_the_first_start_and_the_stop_are_recorded_and_signed(tmp_path: Path) -> None:
    records = play(tmp_path, nothing)

    assert [(record["action"], record["actor"]["kind"]) for record in records] == [
        ("user.create", "server"),
        ("project.create", "server"),
        ("key.create", "user"),
        ("server.start", "server"),
        ("server.stop", "server"),
    ]
    assert records[3]["after"]["version"] == lingpai.__version__
    report = verify(tmp_path)
    assert (report.is_intact, report.signed_up_to) == (True, 5)


def test_a_restart_goes_on_with_the_chain(tmp_path: Path) -> None:
    play(tmp_path, nothing)
    records = play(tmp_path, nothing)

    assert [record["action"] for record in records[5:]] == ["server.start", "server.stop"]
    assert verify(tmp_path).checkpoints == 2


def test_a_cut_trail_is_told_at_the_next_start_in_the_log_and_in_the_trail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    play(tmp_path, nothing)
    with closing(sqlite3.connect(tmp_path / "data" / "lingpai.db")) as connection:
        for table in ("records", "checkpoints"):
            connection.execute(f"DROP TRIGGER audit_{table}_no_delete")
            connection.execute(f"DELETE FROM audit_{table} WHERE number > 3")
        connection.commit()

    records = play(tmp_path, nothing)

    assert "the audit trail is not the one that was signed" in caplog.text
    assert (records[3]["action"], records[3]["result"]) == ("audit.mismatch", "failed")
    assert not verify(tmp_path).is_intact


def test_new_settings_are_recorded_before_they_are_taken_over(tmp_path: Path) -> None:
    new = replace(
        SETTINGS,
        limits=LimitsSettings(default=("5/day",)),
        metering=replace(SETTINGS.metering, fsync="never"),
    )

    async def story(server: InProcessServer, _: Any) -> None:
        reloaded = await server.application.reload(new)
        assert reloaded is not None

    record = next(each for each in play(tmp_path, story) if each["action"] == "settings.reload")

    assert record["before"] == {"limits.default": ["2000/day@Asia/Shanghai"]}
    assert record["after"] == {"limits.default": ["5/day"], "waiting": ["metering.fsync"]}


def test_settings_that_cannot_be_recorded_are_not_taken_over(tmp_path: Path) -> None:
    async def story(server: InProcessServer, _: Any) -> None:
        application = server.application
        with application.domains.database.write() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        with pytest.raises(LingpaiError):
            await application.reload(replace(SETTINGS, limits=LimitsSettings(default=("5/day",))))
        assert application.domains.users.default_limits == ("2000/day@Asia/Shanghai",)

    play(tmp_path, story)


def test_a_server_whose_trail_cannot_be_written_serves_models_and_records_its_start_later(
    tmp_path: Path,
) -> None:
    play(tmp_path, nothing)
    with closing(sqlite3.connect(tmp_path / "data" / "lingpai.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )

    async def story(server: InProcessServer, client: httpx2.AsyncClient) -> None:
        assert (await client.get("/readyz")).status_code == 200
        with server.application.domains.database.write() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        await server.application.auditing._look()

    assert [record["action"] for record in play(tmp_path, story, DEMO)[5:]] == ["server.start", "server.stop"]


# -- refusals


def test_refusals_by_policy_on_management_routes_are_recorded(tmp_path: Path) -> None:
    async def story(server: InProcessServer, client: httpx2.AsyncClient) -> None:
        application = server.application
        await asyncio.to_thread(
            application.domains.users.create, application.local_administrator, UserCreate(name="bob")
        )
        await make_key(server, name="admins")
        _, poor = await make_key(server, name="poor")
        _, bobs = await make_key(
            server, name="bobs", user="bob", scopes=["keys:read", "keys:write"], models=["a/*"]
        )
        _, away = await make_key(server, name="away", allowed_ips=["203.0.113.0/24"], scopes=["keys:read"])
        id_, off = await make_key(server, name="off", scopes=["keys:read"])
        off_body = KeyUpdate(disabled=True)
        await asyncio.to_thread(
            application.domains.keys.update, application.local_administrator, id_, off_body
        )
        for _ in range(3):
            assert (await client.get("/api/v1/keys", headers=bearer(poor))).status_code == 403
            assert (await client.get("/api/v1/keys/admins", headers=bearer(bobs))).status_code == 404
        body = {"name": "x", "scopes": ["keys:read"], "models": ["b/c"]}
        assert (await client.post("/api/v1/keys", json=body, headers=bearer(bobs))).status_code == 403
        assert (
            await client.post("/api/v1/users", json={"name": "x"}, headers=bearer(bobs))
        ).status_code == 403
        assert (await client.get("/api/v1/keys", headers=bearer(away))).status_code == 403
        assert (await client.get("/api/v1/keys", headers=bearer(off))).status_code == 401

    records = play(tmp_path, story)

    assert refusals(records) == [
        ("insufficient_scope", "GET /api/v1/keys", 3),
        ("not_found", "GET /api/v1/keys/{id}", 3),
        ("model_not_allowed", "POST /api/v1/keys", 1),
        ("insufficient_scope", "POST /api/v1/users", 1),
        ("ip_not_allowed", "GET /api/v1/keys", 1),
        ("key_disabled", "GET /api/v1/keys", 1),
    ]
    looked_for = next(record for record in records if record["reason"] == "not_found")
    assert looked_for["after"]["references"] == ["admins"]
    assert (looked_for["actor"]["name"], looked_for["address"]) == ("bob", "127.0.0.1")
    assert looked_for["request_id"].startswith("req_")


def test_refusals_of_sessions_signatures_and_unknown_callers_are_recorded(tmp_path: Path) -> None:
    password = "quiet orchard of the audit trail"

    async def story(server: InProcessServer, client: httpx2.AsyncClient) -> None:
        domains, admin = server.application.domains, server.application.local_administrator
        hash_ = await asyncio.to_thread(
            domains.people.password_changes.hash_for_new_user, admin, "bob", password
        )
        bob = UserCreate(name="bob")
        await asyncio.to_thread(partial(domains.users.create, admin, bob, password_hash=hash_))
        await make_key(server, name="admins")
        sign_in = {"name": "bob", "password": password}
        session = (await client.post("/api/v1/sessions", json=sign_in)).json()
        ours = {"sec-fetch-site": "same-origin", "x-lingpai-csrf": session["csrf_token"]}
        assert (await client.get("/api/v1/keys/admins")).status_code == 404
        user = {"name": "eve"}
        assert (await client.post("/api/v1/users", json=user, headers=ours)).status_code == 403
        assert (await client.post("/api/v1/keys", json={"name": "k"})).status_code == 403
        theirs = {"sec-fetch-site": "cross-site"}
        assert (await client.get("/api/v1/keys", headers=theirs)).status_code == 403
        client.cookies.clear()
        for _ in range(3):
            answer = await client.post("/api/v1/sessions", json=sign_in, headers=theirs)
            assert answer.status_code == 403
        elsewhere = {"x-forwarded-for": "203.0.113.9"}
        assert (await client.post("/api/v1/sessions", json=sign_in, headers=elsewhere)).status_code == 403

        signed_only, token = await make_key(server, name="signed", signature_required=True)
        body = SigningKeyCreate(name="one", algorithm="hmac-sha256")
        made = await asyncio.to_thread(domains.signing_keys.create, admin, signed_only, body)
        sign = hmac_sha256(made.secret or "")
        signer = RequestSigner(made.key.id, "hmac-sha256", sign)
        url = f"{client.base_url}/api/v1/keys".replace("//api", "/api")
        host = {"host": url.split("/")[2]}
        signed = signer.sign("GET", url, host)
        assert (await client.get("/api/v1/keys", headers=signed)).status_code == 403
        again = await client.get("/api/v1/keys", headers=signed)
        assert again.json()["error"]["code"] == "signature_invalid"
        other = RequestSigner(made.key.id, "hmac-sha256", lambda _: b"0" * 32).sign("GET", url, host)
        forged = await client.get("/api/v1/keys", headers=other)
        assert forged.json()["error"]["code"] == "signature_invalid"
        call = {"model": "lingpai/eliza", "messages": [{"role": "user", "content": "hello"}]}
        forged = await client.post(CHAT, json=call, headers=other)
        assert forged.json()["error"]["code"] == "signature_invalid"
        for _ in range(2):
            assert (await client.get("/api/v1/keys", headers=bearer(token))).status_code == 401
            assert (await client.post(CHAT, json=call, headers=bearer(token))).status_code == 401

    records = play(tmp_path, story, DEMO)

    def who(actor: dict[str, Any]) -> str:
        credential = actor["credential"]
        return actor["kind"] if credential is None else f"{actor['name']} by {credential['kind']}"

    found = [
        (who(record["actor"]), record["reason"], record["target"]["id"], record["after"]["count"])
        for record in records
        if record["action"] == "access.refuse"
    ]
    assert sorted(found) == sorted(
        [
            ("bob by session", "not_found", "GET /api/v1/keys/{id}", 1),
            ("bob by session", "insufficient_scope", "POST /api/v1/users", 1),
            ("bob by session", "csrf_refused", "POST /api/v1/keys", 1),
            ("bob by session", "csrf_refused", "GET /api/v1/keys", 1),
            ("unknown", "csrf_refused", "POST /api/v1/sessions", 3),
            ("unknown", "tls_required", "POST /api/v1/sessions", 1),
            ("admin by key", "insufficient_scope", "GET /api/v1/keys", 1),
            ("admin by key", "signature_invalid", "GET /api/v1/keys", 1),
            ("unknown", "signature_invalid", "GET /api/v1/keys", 1),
            ("unknown", "signature_invalid", CHAT, 1),
            ("admin by key", "signature_required", "GET /api/v1/keys", 2),
            ("admin by key", "signature_required", CHAT, 2),
        ]
    )
    assert {record["address"] for record in records if record["reason"] == "csrf_refused"} == {"127.0.0.1"}


def test_refusals_by_policy_on_model_calls_are_recorded(tmp_path: Path) -> None:
    async def story(server: InProcessServer, client: httpx2.AsyncClient) -> None:
        application = server.application
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        keys = {
            "model_not_allowed": await make_key(server, name="narrow", models=["acme/*"]),
            "insufficient_scope": await make_key(server, name="reader", scopes=["keys:read"]),
            "ip_not_allowed": await make_key(server, name="away", allowed_ips=["203.0.113.0/24"]),
            "key_disabled": await make_key(server, name="off"),
            "key_expired": await make_key(server, name="old", expires_at=soon),
        }
        body = KeyUpdate(disabled=True)
        off = keys["key_disabled"][0]
        await asyncio.to_thread(application.domains.keys.update, application.local_administrator, off, body)
        await asyncio.sleep(1.1)
        call = {"model": "lingpai/eliza", "messages": [{"role": "user", "content": "hello"}]}
        for code, (_, token) in keys.items():
            for _ in range(5):
                answer = await client.post(CHAT, json=call, headers=bearer(token) | {"user-agent": "test/1"})
                assert answer.json()["error"]["code"] == code

    records = play(tmp_path, story, DEMO)

    assert refusals(records) == [
        ("model_not_allowed", "lingpai/eliza", 5),
        ("insufficient_scope", CHAT, 5),
        ("ip_not_allowed", CHAT, 5),
        ("key_disabled", CHAT, 5),
        ("key_expired", CHAT, 5),
    ]
    record = next(each for each in records if each["reason"] == "model_not_allowed")
    assert (record["address"], record["user_agent"]) == ("127.0.0.1", "test/1")
    assert record["actor"]["name"] == "admin"


def test_unknown_keys_and_mistakes_leave_no_record_and_are_counted(tmp_path: Path) -> None:
    seen: list[str] = []

    async def story(server: InProcessServer, client: httpx2.AsyncClient) -> None:
        _, good = await make_key(server, name="good", scopes=["keys:read", "model:inference"])
        call = {"model": "lingpai/eliza", "messages": [{"role": "user", "content": "hello"}]}
        for token in ("nonsense", "nonsense", mint_credential("sk-lp-").token):
            assert (await client.post(CHAT, json=call, headers=bearer(token))).status_code == 401
            assert (await client.get("/api/v1/keys", headers=bearer(token))).status_code == 401
        assert (await client.get("/api/v1/keys/none", headers=bearer(good))).status_code == 404
        assert (
            await client.post(CHAT, json={**call, "model": "no/such"}, headers=bearer(good))
        ).status_code == 404
        assert (await client.get("/nowhere", headers=bearer(good))).status_code == 404
        seen.extend((await client.get("/metrics")).text.splitlines())

    records = play(tmp_path, story, DEMO)

    assert refusals(records) == []
    assert "lingpai_unknown_credentials_total 6.0" in seen
    assert "lingpai_refusals_dropped_total 0.0" in seen
