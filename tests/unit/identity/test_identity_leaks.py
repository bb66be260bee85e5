"""Reports of leaked keys: what works ends, its owner hears of it, and who reports learns nothing."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from identity_fakes import NOW, Changes, Clock, KeptTrail
from starlette.testclient import TestClient

from lingpai.errors import LingpaiError
from lingpai.identity import secret_routes
from lingpai.identity.interfaces import LEAKED, CreatedKey
from lingpai.identity.keyring import Keyring
from lingpai.identity.leaks import Leak, LeakedKeys, LeakReports, credentials_in
from lingpai.identity.peppers import Peppers
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import KeyCreate, KeyRotate, KeyUpdate
from lingpai.identity.secret_routes import MOST_REPORT_BYTES, leak_routes
from lingpai.identity.service import Keys
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.store import SqlCredentialStore
from lingpai.ids import mint_credential
from lingpai.jobs.runner import JobRunner
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer
from lingpai.web.errors import install_error_handlers

PATH = "/api/v1/keys/leaked"


@pytest.fixture
def told() -> list[Leak]:
    return []


@pytest.fixture
def reports(
    database: Database,
    peppers: Peppers,
    changes: Changes,
    trail: KeptTrail,
    told: list[Leak],
    *,
    clock: Clock,
) -> LeakReports:
    keys = LeakedKeys(database, peppers, on_change=changes, trail=trail)
    return LeakReports(database, {"sk-lp-": keys}, on_leak=told.append, clock=clock)


@pytest.fixture
def made(keys: Keys, admin: Principal) -> CreatedKey:
    return keys.create(admin, KeyCreate(name="ci"))


def wrong_secret(created: CreatedKey) -> bytes:
    """The id of a key that exists with another secret, and a checksum that is right."""
    from lingpai import ids

    body = f"sk-lp-{created.key.id}{mint_credential('sk-lp-').token[18:61]}"
    return (body + ids._checksum(body.encode())).encode()


class TestReports:
    def test_key_is_disabled_and_everybody_who_must_know_is_told(
        self,
        reports: LeakReports,
        made: CreatedKey,
        keys: Keys,
        admin: Principal,
        told: list[Leak],
        *,
        trail: KeptTrail,
        changes: Changes,
        commits: list[float],
    ) -> None:
        del changes[:]

        reports.take([made.token.encode()])

        key = keys.get(admin, "ci")
        assert (key.disabled_at, key.disabled_because, key.is_leaked) == (NOW, LEAKED, True)
        assert changes == [("key", made.key.id)]
        assert changes.began[-1] <= commits[-1]
        assert told == [
            Leak(
                kind="key",
                id=made.key.id,
                what="Key `ci` of `admin`",
                done="It is disabled. Give it a new secret, and ask an administrator to enable it.",
            )
        ]
        [(caller, deed)] = trail
        assert caller is None
        assert (deed.action, deed.target_id, deed.reason) == ("key.disable", made.key.id, LEAKED)
        assert deed.before is not None
        assert deed.after is not None
        assert (deed.before["state"], deed.after["state"]) == ("active", "disabled")

    def test_what_does_not_work_changes_nothing(
        self,
        reports: LeakReports,
        made: CreatedKey,
        keys: Keys,
        admin: Principal,
        told: list[Leak],
        *,
        trail: KeptTrail,
        changes: Changes,
    ) -> None:
        keys.delete(admin, keys.create(admin, KeyCreate(name="gone")).key.id)
        others = [mint_credential(prefix).token.encode() for prefix in ("sk-lp-", "at-lp-", "cs-lp-")]
        del changes[:]

        reports.take([wrong_secret(made), *others])

        assert keys.get(admin, "ci").state(NOW) == "active"
        assert (told, trail, changes) == ([], [], [])

    def test_garbage_never_takes_the_write_lock(
        self, reports: LeakReports, made: CreatedKey, database: Database
    ) -> None:
        """Anybody may report, and only one at a time can write."""
        with database.write():
            reports.take([wrong_secret(made), mint_credential("sk-lp-").token.encode()])  # else it would wait

    def test_second_report_tells_nobody_again(
        self, reports: LeakReports, made: CreatedKey, told: list[Leak], trail: KeptTrail
    ) -> None:
        for _ in range(2):
            reports.take([made.token.encode()])

        assert (len(told), len(trail)) == (1, 1)

    def test_key_that_was_disabled_is_marked_so_that_nobody_enables_it(
        self, reports: LeakReports, made: CreatedKey, keys: Keys, admin: Principal
    ) -> None:
        keys.update(admin, "ci", KeyUpdate(disabled=True))

        reports.take([made.token.encode()])

        assert keys.get(admin, "ci").is_leaked

    def test_old_secret_alone_ends_while_the_present_one_works_on(
        self,
        reports: LeakReports,
        made: CreatedKey,
        rotation: KeyRotation,
        database: Database,
        peppers: Peppers,
        *,
        admin: Principal,
        told: list[Leak],
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate(overlap="24h"))

        for _ in range(2):
            reports.take([made.token.encode()])

        keyring = Keyring(SqlCredentialStore(database), peppers)
        assert keyring.load(made.token.encode()) is None
        present = keyring.load(new.token.encode())
        assert present is not None
        assert not present.disabled
        assert [leak.id for leak in told] == [made.key.id]

    def test_present_secret_takes_the_old_one_with_it(
        self, reports: LeakReports, made: CreatedKey, rotation: KeyRotation, keys: Keys, admin: Principal
    ) -> None:
        new = rotation.rotate(admin, "ci", KeyRotate(overlap="24h"))

        reports.take([new.token.encode()])

        assert len(keys.get(admin, "ci").secrets(NOW)) == 1
        assert keys.get(admin, "ci").is_leaked

    def test_leaked_key_is_enabled_with_another_secret_only(
        self, reports: LeakReports, made: CreatedKey, rotation: KeyRotation, keys: Keys, admin: Principal
    ) -> None:
        reports.take([made.token.encode()])

        with pytest.raises(LingpaiError, match="Give it a new one first"):
            keys.update(admin, "ci", KeyUpdate(disabled=False))
        with pytest.raises(LingpaiError, match="must end at once"):
            rotation.rotate(admin, "ci", KeyRotate(overlap="1h"))
        new = rotation.rotate(admin, "ci", KeyRotate())
        assert (len(new.key.secrets(NOW)), new.key.state(NOW)) == (1, "disabled")
        enabled = keys.update(admin, "ci", KeyUpdate(disabled=False))
        assert (enabled.state(NOW), enabled.disabled_because) == ("active", None)

    def test_signing_keys_of_a_leaked_key_are_gone(
        self, reports: LeakReports, made: CreatedKey, database: Database, trail: KeptTrail, admin: Principal
    ) -> None:
        """Whoever had the secret may have made one, and it would work as soon as the key has another secret."""
        sealer = Sealer(RootKeys({1: b"r" * 32}))
        signing = SigningKeys(database, on_change=lambda *_: None, sealer=sealer, trail=trail)
        thiefs = signing.create(admin, "ci", SigningKeyCreate(name="thief", algorithm="hmac-sha256"))

        reports.take([made.token.encode()])

        assert signing.list(admin, "ci") == []
        (deed,) = [deed for _, deed in trail if deed.action == "signing_key.delete"]
        assert (deed.target_id, deed.reason) == (thiefs.key.id, LEAKED)

    @pytest.mark.parametrize("is_leaked_first", [True, False])
    def test_next_secret_that_leaks_while_the_key_is_disabled_does_not_enable_it_either(
        self,
        reports: LeakReports,
        made: CreatedKey,
        rotation: KeyRotation,
        keys: Keys,
        clock: Clock,
        *,
        admin: Principal,
        is_leaked_first: bool,
    ) -> None:
        if is_leaked_first:
            reports.take([made.token.encode()])
        else:
            keys.update(admin, "ci", KeyUpdate(disabled=True))
        clock.now += 1
        new = rotation.rotate(admin, "ci", KeyRotate(overlap="0s"))
        clock.now += 1

        reports.take([new.token.encode()])

        with pytest.raises(LingpaiError, match="Give it a new one first"):
            keys.update(admin, "ci", KeyUpdate(disabled=False))


def test_credentials_are_found_by_form_and_checksum_each_once() -> None:
    one, two = (mint_credential(prefix).token for prefix in ("sk-lp-", "rt-lp-"))
    mistyped = one[:-1] + ("a" if one[-1] != "a" else "b")
    text = f'KEY="{one}" {mistyped}\n{two}, {one}x x{two} \xff'.encode("latin-1")

    assert credentials_in(text) == [one.encode(), two.encode()]


class TestRoute:
    @pytest.fixture
    def client(self, reports: LeakReports) -> Iterator[TestClient]:
        app = FastAPI()
        install_error_handlers(app)
        jobs = JobRunner()
        app.include_router(leak_routes(reports, jobs, network_of=str, answer_after_s=0.05))
        with TestClient(app) as client:
            yield client

    @pytest.mark.parametrize("as_text", [True, False])
    def test_answer_is_the_same_whatever_is_reported(
        self, client: TestClient, made: CreatedKey, keys: Keys, admin: Principal, *, as_text: bool
    ) -> None:
        def report(*tokens: str) -> tuple[int, str, dict[str, str]]:
            content: dict[str, Any] = {"json": {"keys": list(tokens)}}
            if as_text:
                text = "\n".join(f"export KEY='{token}'" for token in tokens)
                content = {"content": text, "headers": {"content-type": "text/plain; charset=utf-8"}}
            answer = client.post(PATH, **content)
            headers = {
                name: value
                for name, value in answer.headers.items()
                if name not in {"x-request-id", "request-id", "openai-processing-ms"}
            }
            return answer.status_code, answer.text, headers

        answers = [
            report(),
            report("nothing"),
            report(wrong_secret(made).decode()),
            report(mint_credential("sk-lp-").token),
            report(made.token),
            report(made.token),
        ]

        assert all(answer == answers[0] for answer in answers)
        assert answers[0][:2] == (202, '{"status":"received"}')
        assert keys.get(admin, "ci").is_leaked

    def test_no_key_is_in_any_log(
        self, client: TestClient, made: CreatedKey, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            client.post(PATH, json={"keys": [made.token]})
            client.post(PATH, json={"keys": [made.token, 5]})

        assert made.token[18:61] not in caplog.text

    @pytest.mark.parametrize(
        ("content", "type_", "status", "code"),
        [
            (b"{", "application/json", 400, "invalid_json"),
            (b"[" * 60_000, "application/json", 400, "invalid_json"),
            (b"[]", "application/json", 400, "invalid_request"),
            (b"{}", "application/json", 400, "invalid_request"),
            (b'{"keys": "sk-lp-x"}', "application/json", 400, "invalid_request"),
            (b'{"keys": [5]}', "application/json", 400, "invalid_request"),
            (b'{"keys": [], "owner": "me"}', "application/json", 400, "invalid_request"),
            (b'{"keys": ["\\ud800"]}', "application/json", 400, "invalid_request"),
            (b'{"keys": []}', "", 415, "unsupported_media_type"),
            (b"keys=", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
            (b"x" * (MOST_REPORT_BYTES + 1), "text/plain", 413, "request_too_large"),
        ],
    )
    def test_what_is_no_report_is_refused(
        self, client: TestClient, content: bytes, type_: str, status: int, code: str
    ) -> None:
        answer = client.post(PATH, content=content, headers={"content-type": type_})

        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    def test_answers_to_what_is_refused_do_not_repeat_it(self, client: TestClient, made: CreatedKey) -> None:
        for body in ({"keys": [made.token, 5]}, {"keys": made.token}, {made.token: 1, "keys": []}):
            answer = client.post(PATH, json=body)
            assert answer.status_code == 400
            assert made.token[18:61] not in answer.text

    def test_number_of_keys_is_bounded(self, client: TestClient) -> None:
        tokens = [mint_credential("sk-lp-").token for _ in range(101)]

        for content in (
            {"json": {"keys": tokens}},
            {"content": " ".join(tokens), "headers": {"content-type": "text/plain"}},
        ):
            assert client.post(PATH, **content).status_code == 400  # type: ignore[arg-type]
        assert client.post(PATH, json={"keys": tokens[:100]}).status_code == 202

    def test_rate_is_bounded_per_address(self, client: TestClient) -> None:
        answers = [client.post(PATH, json={"keys": []}) for _ in range(14)]

        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {202, 429}
        assert int(refused[0].headers["retry-after"]) >= 1


def test_answer_comes_at_its_time_whether_the_work_is_done_or_not() -> None:
    """A report that ends a hundred keys takes longer than one that ends none; the answer must not tell."""

    class SlowReports:
        def __init__(self, release: threading.Event) -> None:
            self.release = release
            self.taken = 0

        def working(self, tokens: object) -> list[bytes]:
            return [b"one"]

        def end(self, tokens: object) -> None:
            self.release.wait(5)
            self.taken += 1

    async def ask(reports: SlowReports) -> tuple[float, int]:
        app = FastAPI()
        install_error_handlers(app)
        jobs = JobRunner()
        router = leak_routes(reports, jobs, network_of=str, answer_after_s=0.3)  # type: ignore[arg-type]
        app.include_router(router)
        began = time.monotonic()
        with TestClient(app) as client:
            answer = await asyncio.to_thread(client.post, PATH, json={"keys": []})
            took, taken = time.monotonic() - began, reports.taken
            reports.release.set()
        assert answer.status_code == 202
        return took, taken

    ready = threading.Event()
    ready.set()
    at_once, done = asyncio.run(ask(SlowReports(ready)))
    late, not_done = asyncio.run(ask(SlowReports(threading.Event())))

    assert (done, not_done) == (1, 0)
    assert at_once >= 0.3, "it waits although everything is done"
    assert late >= 0.3
    assert secret_routes.ANSWER_AFTER_S > 0
