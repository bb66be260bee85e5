"""Reports of leaked signing secrets, sessions, invitations and JWTs: what works ends, and nothing else changes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from identity_fakes import Changes, Clock, KeptTrail
from oauth_stage import Stage

from lingpai import ids
from lingpai.identity.interfaces import LEAKED
from lingpai.identity.invitations.leaked_invitations import LeakedInvitations
from lingpai.identity.leaks import Leak, LeakReports, credentials_in
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.leaked_tokens import LeakedJwts
from lingpai.identity.oauth.schemas import ClientCreate
from lingpai.identity.people import People
from lingpai.identity.peppers import Peppers
from lingpai.identity.schemas import KeyCreate, UserCreate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.sessions.leaked_sessions import LeakedSessions
from lingpai.identity.settings import IdentitySettings
from lingpai.identity.signing.leaked_signing_keys import LeakedSigningKeys
from lingpai.identity.signing.schemas import SigningKeyCreate
from lingpai.identity.signing.service import SigningKeys
from lingpai.identity.signing.verifying import SigningKeyring
from lingpai.ids import mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer

DAY = 86_400.0
SEALER = Sealer(RootKeys({1: b"r" * 32}))
HMAC = SigningKeyCreate(name="build server", algorithm="hmac-sha256")


class World:
    """Credentials of every kind, and reports of them."""

    def __init__(
        self, database: Database, clock: Clock, *, keys: Keys, clients: Clients, users: Users, people: People,
        peppers: Peppers, settings: IdentitySettings,
    ) -> None:  # fmt: skip
        self.database, self.clock = database, clock
        self.keys, self.clients, self.users, self.people = keys, clients, users, people
        self.admin: Principal = users.local_administrator()
        self.alice = users.create(self.admin, UserCreate(name="alice"))
        self.trail, self.changes, self.told = KeptTrail(), Changes(), list[Leak]()
        shared: dict[str, Any] = {"on_change": self.changes, "sealer": SEALER, "clock": clock}
        self.key_signing = SigningKeys(database, trail=KeptTrail(), **shared)
        self.client_signing = SigningKeys(database, of="client", trail=KeptTrail(), **shared)
        self.ended: list[str] = []
        finders: dict[str, Any] = {
            "sg-lp-": LeakedSigningKeys(SEALER, on_change=self.changes, trail=self.trail),
            "ss-lp-": LeakedSessions(
                peppers, idle_s=settings.session_idle_s, on_ended=self._forget, trail=self.trail
            ),
            "in-lp-": LeakedInvitations(peppers, trail=self.trail),
        }
        self.reports = LeakReports(database, finders, on_leak=self.told.append, clock=clock)

    def _forget(self, ids_: Any) -> None:
        self.ended += ids_
        self.people.sessions.forget(ids_)

    def report(self, *tokens: str) -> None:
        self.reports.take([token.encode() for token in tokens])

    def signing_secret(self, **fields: Any) -> str:
        key = self.keys.create(self.admin, KeyCreate(name=f"app-{len(self.changes)}"))
        body = HMAC.model_copy(update=fields)
        return str(self.key_signing.create(self.admin, key.key.id, body).secret)

    def session(self) -> str:
        return self.people.sessions.sign_in(self.alice, address="203.0.113.7", user_agent="Firefox").token

    def invitation(self) -> str:
        return self.people.invitations.make(self.admin, "alice").token

    def is_signed_in(self, token: str) -> bool:
        return asyncio.run(self.people.sessions.caller_of(token.encode(), "203.0.113.7")) is not None

    def count(self, table: str) -> int:
        with self.database.read() as connection:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@pytest.fixture
def world(
    *, database: Database, clock: Clock, keys: Keys, clients: Clients, users: Users, people: People,
    peppers: Peppers, identity_settings: IdentitySettings,
) -> World:  # fmt: skip
    return World(
        database, clock, keys=keys, clients=clients, users=users, people=people, peppers=peppers,
        settings=identity_settings,
    )  # fmt: skip


def with_wrong_secret(token: str) -> str:
    """The same kind and id with another secret, and a checksum that is right."""
    body = f"{token[:18]}{mint_credential('sk-lp-').token[18:61]}"
    return body + ids._checksum(body.encode())


class TestSigningKeys:
    def test_signing_key_of_a_key_is_deleted_and_its_owner_told(self, world: World) -> None:
        secret, other = world.signing_secret(), world.signing_secret()
        kept = f"sgn_{other[6:18]}"
        key_id = world.keys.get(world.admin, "app-0").id
        del world.changes[:]

        world.report(secret)

        assert world.key_signing.list(world.admin, key_id) == []
        assert SigningKeyring(world.database, SEALER).load(f"sgn_{secret[6:18]}") is None
        assert SigningKeyring(world.database, SEALER).load(kept) is not None
        assert world.changes == [("key", key_id)]
        [leak] = world.told
        assert (leak.kind, leak.id, leak.about) == ("signing_key", f"sgn_{secret[6:18]}", ("key", key_id))
        assert leak.what == "The secret of signing key `build server` of key `app-0` of `admin`"
        [(caller, deed)] = world.trail
        assert (caller, deed.action, deed.target_id, deed.reason) == (
            None, "signing_key.delete", f"sgn_{secret[6:18]}", LEAKED
        )  # fmt: skip
        assert deed.before is not None
        assert deed.before["key"] == key_id

    def test_signing_key_of_a_client_is_deleted_and_the_client_told_of(self, world: World) -> None:
        client = world.clients.create(world.admin, ClientCreate(name="nightly")).client
        secret = str(world.client_signing.create(world.admin, client.client_id, HMAC).secret)
        del world.changes[:]

        world.report(secret)

        assert world.client_signing.list(world.admin, client.client_id) == []
        assert world.changes == [("client", client.client_id)]
        assert [leak.about for leak in world.told] == [("client", client.client_id)]

    def test_expired_signing_key_is_passed_over(self, world: World) -> None:
        secret = world.signing_secret(expires_in="1h")
        world.clock.now += 3600

        world.report(secret)

        assert (world.told, world.trail.deeds, world.count("signing_keys")) == ([], [], 1)


class TestSessions:
    def test_session_ends_and_the_others_of_its_user_stay(self, world: World) -> None:
        token, other = world.session(), world.session()
        assert world.is_signed_in(token)

        world.report(token)

        assert not world.is_signed_in(token), "what is in memory is forgotten, too"
        assert world.is_signed_in(other)
        assert world.ended == [token[6:18]]
        assert world.told == [
            Leak(
                kind="session",
                id=token[6:18],
                what=f"Session `{token[6:18]}` of `alice`",
                done="It has ended. Sign in again.",
                about=("user", world.alice.id),
            )
        ]
        [deed] = world.trail.deeds
        assert (deed.action, deed.target_id, deed.reason) == ("session.end", token[6:18], LEAKED)

    def test_session_that_nobody_used_for_long_is_passed_over(self, world: World) -> None:
        token = world.session()
        world.clock.now += 30 * DAY

        world.report(token)

        assert (world.told, world.trail.deeds) == ([], [])


class TestInvitations:
    def test_invitation_is_withdrawn(self, world: World) -> None:
        token = world.invitation()

        world.report(token)

        assert world.count("invitations") == 0
        [leak] = world.told
        assert (leak.kind, leak.id, leak.about) == ("invitation", token[6:18], ("user", world.alice.id))
        [deed] = world.trail.deeds
        assert (deed.action, deed.target_name, deed.reason) == ("invitation.delete", "alice", LEAKED)

    def test_invitation_of_a_disabled_user_is_withdrawn_as_well(self, world: World) -> None:
        token = world.invitation()
        world.users.update(world.admin, "alice", UserUpdate(disabled=True))

        world.report(token)

        assert world.count("invitations") == 0

    def test_expired_invitation_is_passed_over(self, world: World) -> None:
        token = world.invitation()
        world.clock.now += 30 * DAY

        world.report(token)

        assert (world.told, world.trail.deeds) == ([], [])


@pytest.mark.parametrize("kind", ["signing_key", "session", "invitation"])
class TestEveryKind:
    @pytest.fixture
    def token(self, world: World, kind: str) -> str:
        make = {
            "signing_key": world.signing_secret, "session": world.session, "invitation": world.invitation
        }  # fmt: skip
        return make[kind]()

    def test_second_report_tells_nobody_again(self, world: World, token: str, kind: str) -> None:
        for _ in range(2):
            world.report(token)

        assert ([leak.kind for leak in world.told], len(world.trail)) == ([kind], 1)

    def test_wrong_secret_and_unknown_id_change_nothing_and_wait_for_nobody(
        self, world: World, token: str
    ) -> None:
        prefix: Any = token[:6]
        del world.changes[:]

        with world.database.write():
            world.report(with_wrong_secret(token), mint_credential(prefix).token)

        assert (world.told, world.trail.deeds, list(world.changes)) == ([], [], [])
        world.report(token)
        assert len(world.told) == 1, "it went on working"

    def test_what_cannot_be_recorded_does_not_happen(self, world: World, token: str) -> None:
        del world.changes[:]
        world.trail.is_full = True

        with pytest.raises(OSError, match="no space"):
            world.report(token)

        world.trail.is_full = False
        assert (world.told, list(world.changes), world.ended) == ([], [], [])
        world.report(token)
        assert len(world.told) == 1, "it went on working"


class TestJwts:
    @pytest.fixture(params=["EdDSA", "RS256"])
    def stage(self, database: Database, clock: Clock, request: Any) -> Iterator[Stage]:
        stage = Stage(database, clock, access_token_format="jwt", jwt_algorithm=request.param)
        yield stage
        stage.close()

    @pytest.fixture
    def told(self) -> list[Leak]:
        return []

    @pytest.fixture
    def report(self, stage: Stage, told: list[Leak], trail: KeptTrail) -> Callable[[str], None]:
        finder = LeakedJwts(stage.jwts, stage.peppers, on_change=stage._on_change, trail=trail)
        reports = LeakReports(stage.database, {"eyJ": finder}, on_leak=told.append, clock=stage.clock)
        return lambda text: reports.take(credentials_in(text.encode()))

    def test_token_is_revoked_and_the_keyring_knows(
        self, stage: Stage, report: Callable[[str], None], told: list[Leak], trail: KeptTrail
    ) -> None:
        program = stage.program("nightly")
        token, other = [
            stage.token("client_credentials", program=program).json["access_token"] for _ in range(2)
        ]
        token_id = stage.jwts.verified_id(token.encode())
        assert stage.principal(token) is not None

        for _ in range(2):
            report(f'Authorization: Bearer {token}", then {token}.')

        assert stage.principal(token) is None
        assert stage.principal(other) is not None
        assert [(leak.kind, leak.id, leak.about) for leak in told] == [
            ("access_token", token_id, ("client", program.id))
        ]
        assert [(deed.action, deed.target_id, deed.reason) for deed in trail.deeds] == [
            ("token.revoke", token_id, LEAKED)
        ]

    def test_wrong_signature_changes_nothing_and_waits_for_nobody(
        self, stage: Stage, report: Callable[[str], None], told: list[Leak]
    ) -> None:
        program = stage.program("nightly")
        token, other = [
            stage.token("client_credentials", program=program).json["access_token"] for _ in range(2)
        ]
        forged = ".".join([*token.split(".")[:2], other.split(".")[2]])
        assert credentials_in(forged.encode()) == [forged.encode()]

        with stage.database.write():
            report(forged)

        assert told == []
        assert stage.principal(token) is not None

    def test_expired_token_is_passed_over(
        self, stage: Stage, report: Callable[[str], None], told: list[Leak]
    ) -> None:
        token = stage.token("client_credentials", program=stage.program("nightly")).json["access_token"]
        stage.clock.now += stage.settings.jwt_lifetime

        report(token)

        assert told == []

    def test_jwts_of_others_are_no_credentials_of_ours(self, stage: Stage) -> None:
        token = stage.token("client_credentials", program=stage.program("nightly")).json["access_token"]
        header, claims, signature = token.split(".")
        others = [
            f"eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.{claims}.{signature}",  # {"alg":"EdDSA","typ":"JWT"}
            f"{header}.eyJqdGkiOiJ4In0.{signature}",  # {"jti":"x"}
            f"x{token}",
            f"{header}.{claims}.{signature[:80]}",
        ]

        assert credentials_in(" ".join([*others, token]).encode()) == [token.encode()]


def test_text_made_up_to_be_slow_is_read_once(elapsed: Callable[[Callable[[], object]], float]) -> None:
    texts = [b"eyJ" * 21_000, b"eyJa." * 13_000, b"eyJa.eyJa." * 6_500, b"eyJ" + b"a" * 65_000 + b"."]

    took = [elapsed(lambda text=text: credentials_in(text)) for text in texts]  # type: ignore[misc]

    assert max(took) < 0.1, took


@pytest.fixture
def elapsed() -> Callable[[Callable[[], object]], float]:
    """The least of three times, as others use the processor, too."""

    def measure(work: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return min(times)

    return measure
