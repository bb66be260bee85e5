"""Reports of leaked tokens and client secrets: what works ends, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import pytest
from identity_fakes import Changes, KeptTrail
from oauth_stage import Program, Stage

from lingpai import ids
from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import LEAKED
from lingpai.identity.leaks import Leak, LeakReports
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.leaked_clients import LeakedClientSecrets
from lingpai.identity.oauth.leaked_tokens import LeakedAccessTokens, LeakedRefreshTokens
from lingpai.identity.oauth.schemas import ClientUpdate, SecretRotation
from lingpai.identity.peppers import Peppers
from lingpai.ids import mint_credential

GRANTS = ["client_credentials", "password", "refresh_token"]


class World:
    """The authorization server, and reports to it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.told: list[Leak] = []
        self.trail = KeptTrail()
        self.changes = Changes()
        parts: dict[str, Any] = {"on_change": self._on_change, "trail": self.trail}
        finders: dict[str, Any] = {
            "at-lp-": LeakedAccessTokens(stage.peppers, **parts),
            "rt-lp-": LeakedRefreshTokens(stage.peppers, **parts),
            "cs-lp-": LeakedClientSecrets(stage.peppers, **parts),
        }
        self.reports = LeakReports(stage.database, finders, on_leak=self.told.append, clock=stage.clock)

    def _on_change(self, kind: Any, id_: str, began: float) -> None:
        self.changes(kind, id_, began)
        self.stage._on_change(kind, id_, began)

    def report(self, *tokens: str | None) -> None:
        self.reports.take([str(token).encode() for token in tokens])

    def is_client_accepted(self, program: Program) -> bool:
        return self.stage.token("client_credentials", program=program).status == 200

    def client(self, program: Program) -> Client:
        return self.stage.clients.get(self.stage.admin, program.id)

    def rotate(self, program: Program, overlap: str | None = None) -> Program:
        made = self.stage.clients.rotate(self.stage.admin, program.id, SecretRotation(overlap=overlap))
        return Program(program.id, made.secret)

    def enable(self, program: Program) -> Client:
        return self.stage.clients.update(self.stage.admin, program.id, ClientUpdate(disabled=False))


@pytest.fixture
def world(stage: Stage) -> World:
    return World(stage)


def with_wrong_secret(token: str | None) -> str:
    """The same kind and id with another secret, and a checksum that is right."""
    body = f"{str(token)[:18]}{mint_credential('sk-lp-').token[18:61]}"
    return body + ids._checksum(body.encode())


class TestAccessTokens:
    def test_token_of_a_client_is_revoked_and_its_owner_told(self, world: World) -> None:
        program = world.stage.program("nightly")
        token, other = [
            world.stage.token("client_credentials", program=program).json["access_token"] for _ in range(2)
        ]
        assert world.stage.principal(token) is not None

        world.report(token)

        assert world.stage.principal(token) is None
        assert world.stage.introspect(token, program).json == {"active": False}
        assert world.stage.principal(other) is not None
        assert world.changes == [("token", token[6:18])]
        assert world.told == [
            Leak(
                kind="access_token",
                id=token[6:18],
                what=f"Access token `{token[6:18]}` of `admin`",
                done="It is revoked.",
                about=("client", program.id),
                tokens=(token[6:18],),
            )
        ]
        [(caller, deed)] = world.trail
        assert caller is None
        assert (deed.action, deed.target_kind, deed.target_id) == ("token.revoke", "token", token[6:18])
        assert deed.reason == LEAKED

    def test_token_of_a_sign_in_is_revoked_and_the_sign_in_goes_on(self, world: World) -> None:
        ida = world.stage.person("ida")
        tokens = world.stage.sign_in(ida)
        user_id = world.stage.users.get(world.stage.admin, ida).id

        world.report(tokens["access_token"])

        assert world.stage.principal(tokens["access_token"]) is None
        assert [leak.about for leak in world.told] == [("user", user_id)]
        assert world.stage.refresh(tokens["refresh_token"]).status == 200

    def test_expired_token_is_passed_over(self, world: World) -> None:
        program = world.stage.program("nightly", token_lifetime_s=60)
        token = world.stage.token("client_credentials", program=program).json["access_token"]
        world.stage.clock.now += 60

        world.report(token)

        assert (world.told, world.trail.deeds) == ([], [])


class TestRefreshTokens:
    def test_family_ends_with_all_of_its_tokens(self, world: World) -> None:
        ida = world.stage.person("ida")
        first = world.stage.sign_in(ida)
        second = world.stage.refresh(first["refresh_token"]).json
        other = world.stage.sign_in(ida)
        access = [first["access_token"], second["access_token"]]
        assert all(world.stage.principal(token) for token in access)

        world.report(second["refresh_token"])

        assert [world.stage.principal(token) for token in access] == [None, None]
        assert world.stage.refresh(second["refresh_token"]).error == "invalid_grant"
        assert set(world.changes) == {("token", token[6:18]) for token in access}
        assert world.stage.principal(other["access_token"]) is not None
        [leak] = world.told
        user_id = world.stage.users.get(world.stage.admin, ida).id
        assert (leak.kind, leak.id, leak.about) == (
            "refresh_token", second["refresh_token"][6:18], ("user", user_id)
        )  # fmt: skip
        [deed] = world.trail.deeds
        assert (deed.action, deed.target_kind, deed.reason) == ("token.revoke", "family", LEAKED)
        assert world.stage.count("token_families", f"revoked_because = '{LEAKED}'") == 1

    def test_used_token_ends_its_family_as_it_would_when_used_again(self, world: World) -> None:
        first = world.stage.sign_in(world.stage.person("ida"))
        second = world.stage.refresh(first["refresh_token"]).json

        world.report(first["refresh_token"])

        assert world.stage.principal(second["access_token"]) is None
        assert world.stage.refresh(second["refresh_token"]).error == "invalid_grant"

    def test_all_tokens_of_a_family_in_one_report_end_it_once(self, world: World) -> None:
        first = world.stage.sign_in(world.stage.person("ida"))
        second = world.stage.refresh(first["refresh_token"]).json

        world.report(second["refresh_token"], first["refresh_token"], first["access_token"])

        assert [leak.kind for leak in world.told] == ["refresh_token"]

    def test_token_of_a_family_that_has_ended_is_passed_over(self, world: World) -> None:
        ida = world.stage.person("ida")
        revoked, expired = world.stage.sign_in(ida), world.stage.sign_in(ida)
        world.stage.revoke(revoked["refresh_token"])
        world.report(revoked["refresh_token"])
        world.stage.clock.now += world.stage.settings.refresh_family_lifetime

        world.report(expired["refresh_token"])

        assert (world.told, world.trail.deeds) == ([], [])


class TestClientSecrets:
    def test_client_is_disabled_with_the_tokens_it_got_for_itself(self, world: World) -> None:
        program = world.stage.program("nightly", grants=GRANTS)
        own = world.stage.token("client_credentials", program=program).json["access_token"]
        signed_in = world.stage.sign_in(world.stage.person("ida"), program)

        world.report(program.secret)

        assert world.stage.token("client_credentials", program=program).error == "invalid_client"
        assert [world.stage.principal(token) for token in (own, signed_in["access_token"])] == [None, None]
        client = world.client(program)
        assert (client.disabled_at, client.disabled_because) == (world.stage.clock(), LEAKED)
        [leak] = world.told
        assert (leak.kind, leak.id, leak.about) == ("client_secret", program.id, ("client", program.id))
        assert leak.what == "The secret of client `nightly` of `admin`"
        [deed] = world.trail.deeds
        assert (deed.action, deed.target_id, deed.reason) == ("client.disable", program.id, LEAKED)
        assert deed.before is not None
        assert deed.after is not None
        assert (deed.before["disabled_because"], deed.after["disabled_because"]) == (None, LEAKED)

        new = self.enabled_again(world, program)
        assert world.is_client_accepted(new)
        assert world.stage.principal(own) is None, "who had the secret may have got it"
        assert world.stage.principal(signed_in["access_token"]) is not None

    def enabled_again(self, world: World, program: Program) -> Program:
        with pytest.raises(LingpaiError, match=f"lingpai clients rotate {program.id}"):
            world.enable(program)
        with pytest.raises(LingpaiError, match="must end at once"):
            world.rotate(program, "1h")
        world.stage.clock.now += 1
        new = world.rotate(program)
        assert world.client(program).old_hint is None
        assert world.client(program).is_leaked, "a new secret alone does not enable it"
        assert world.enable(program).disabled_because is None
        assert not world.is_client_accepted(program)
        return new

    def test_old_secret_ends_and_the_present_one_works_on(self, world: World) -> None:
        old = world.stage.program("nightly")
        new = world.rotate(old, "24h")
        token = world.stage.token("client_credentials", program=new).json["access_token"]
        assert world.is_client_accepted(old)

        for _ in range(2):
            world.report(old.secret)

        assert not world.is_client_accepted(old)
        assert world.is_client_accepted(new)
        assert world.stage.principal(token) is not None
        client = world.client(old)
        assert (client.disabled_because, client.old_hint, client.old_expires_at) == (None, None, None)
        assert [leak.kind for leak in world.told] == ["client_secret"]
        assert [deed.action for deed in world.trail.deeds] == ["client.end_old_secret"]

    def test_old_secret_after_its_overlap_is_passed_over(self, world: World) -> None:
        old = world.stage.program("nightly")
        world.rotate(old, "1h")
        world.stage.clock.now += 3600

        world.report(old.secret)

        assert (world.told, world.trail.deeds) == ([], [])

    def test_present_secret_takes_the_old_one_with_it(self, world: World) -> None:
        old = world.stage.program("nightly")
        new = world.rotate(old, "24h")

        world.report(new.secret)

        assert not world.is_client_accepted(old)
        assert world.client(new).old_hint is None

    def test_next_secret_that_leaks_before_the_client_is_enabled_counts_again(self, world: World) -> None:
        program = world.stage.program("nightly")
        world.report(program.secret)
        world.stage.clock.now += 1
        second = world.rotate(program)
        world.stage.clock.now += 1

        world.report(second.secret)

        assert len(world.told) == 2
        with pytest.raises(LingpaiError, match="Give it a new one first"):
            world.enable(program)

    def test_client_that_was_disabled_before_its_rotation_is_not_enabled_with_what_leaked(
        self, world: World
    ) -> None:
        program = world.stage.program("nightly")
        world.stage.change_program(program, disabled=True)
        world.stage.clock.now += 1
        new = world.rotate(program)
        world.stage.clock.now += 1

        world.report(new.secret)

        assert world.client(program).is_leaked
        with pytest.raises(LingpaiError, match="Give it a new one first"):
            world.enable(program)

    def test_client_that_somebody_disables_says_so(self, world: World) -> None:
        program = world.stage.program("nightly")

        world.stage.change_program(program, disabled=True)

        assert world.client(program).disabled_because == "disabled"
        assert world.enable(program).disabled_because is None


@pytest.fixture
def credentials(world: World) -> dict[str, Callable[[], str]]:
    """One of each kind that works."""
    program = world.stage.program("nightly")
    ida = world.stage.person("ida")
    return {
        "access_token": lambda: str(world.stage.sign_in(ida)["access_token"]),
        "refresh_token": lambda: str(world.stage.sign_in(ida)["refresh_token"]),
        "client_secret": lambda: str(program.secret),
    }


KINDS = ("access_token", "refresh_token", "client_secret")


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_second_report_tells_nobody_again(
        self, world: World, credentials: dict[str, Callable[[], str]], kind: str
    ) -> None:
        token = credentials[kind]()

        for _ in range(2):
            world.report(token)

        assert ([leak.kind for leak in world.told], len(world.trail)) == ([kind], 1)

    def test_wrong_secret_and_unknown_id_change_nothing_and_wait_for_nobody(
        self, world: World, credentials: dict[str, Callable[[], str]], kind: str
    ) -> None:
        """Anybody may report, and only one at a time can write."""
        token = credentials[kind]()
        prefix: Any = token[:6]

        with world.stage.database.write():
            world.report(with_wrong_secret(token), mint_credential(prefix).token)

        assert (world.told, world.trail.deeds, list(world.changes)) == ([], [], [])
        world.report(token)
        assert len(world.told) == 1, "it went on working"

    def test_unknown_id_costs_as_much_as_a_known_one(
        self, world: World, credentials: dict[str, Callable[[], str]], kind: str, monkeypatch: Any
    ) -> None:
        token = credentials[kind]()
        prefix: Any = token[:6]
        hmacs: list[int] = []
        of_pepper = Peppers.hmac

        def counted(peppers: Peppers, token: bytes, version: int) -> bytes:
            hmacs.append(version)
            return of_pepper(peppers, token, version)

        monkeypatch.setattr(Peppers, "hmac", counted)

        def cost(text: str) -> int:
            hmacs.clear()
            world.report(text)
            return len(hmacs)

        assert cost(with_wrong_secret(token)) == cost(mint_credential(prefix).token) == 2

    def test_what_cannot_be_recorded_does_not_happen(
        self, world: World, credentials: dict[str, Callable[[], str]], kind: str
    ) -> None:
        token = credentials[kind]()
        world.trail.is_full = True

        with pytest.raises(OSError, match="no space"):
            world.report(token)

        world.trail.is_full = False
        assert (world.told, list(world.changes)) == ([], [])
        world.report(token)
        assert len(world.told) == 1, "it went on working"
