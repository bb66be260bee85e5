"""The whole life of tokens, played at random, against a model that is slow and plain to see through."""

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from identity_fakes import Clock
from oauth_stage import Program, Stage
from token_model import ACCESS_S, FAMILY_S, REFRESH_S, ModelClient, ModelFamily, ModelUser, TokenModel

from lingpai.identity.oauth.token_store import SqlTokenIds
from lingpai.storage.database import Database, sqlite_url

GRANTS = ["client_credentials", "password", "refresh_token"]
SCOPES = [("model:inference",), ("model:inference", "usage:read"), ("usage:read", "keys:read")]
ALL = frozenset({"model:inference", "usage:read", "keys:read"})
NAMES = ("one", "two")
PEOPLE = ("ida", "jan")

SETTINGS = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a failure is repeated by its seed; making it smaller would take minutes
    suppress_health_check=list(HealthCheck),
)

a_client = st.sampled_from([*NAMES, None])
a_name = st.sampled_from(NAMES)
a_person = st.sampled_from(PEOPLE)


class TokenLife(RuleBasedStateMachine):
    """Two registered clients and the built-in public one, two people, and everything that can happen to a token."""

    migrated: ClassVar[Path]

    @initialize(grace_s=st.sampled_from([0, 5, 10]), token_format=st.sampled_from(["opaque", "jwt"]))
    def begin(self, grace_s: float, token_format: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="token-life-"))
        shutil.copyfile(self.migrated, self.folder / "lingpai.db")
        self.database = Database(sqlite_url(self.folder / "lingpai.db"))
        self.clock = Clock()
        self.stage = Stage(
            self.database,
            self.clock,
            refresh_grace=grace_s,
            access_token_format=token_format,
            jwt_algorithm="EdDSA",
            access_token_lifetime=ACCESS_S,
            refresh_token_lifetime=REFRESH_S,
            refresh_family_lifetime=FAMILY_S,
        )
        self.model = TokenModel(grace_s, self.clock(), has_jwts=token_format == "jwt")
        self.people = {name: ModelUser(self.stage.person(name)) for name in PEOPLE}
        self.clients = {name: ModelClient(name, ALL) for name in NAMES}
        self.programs: dict[str | None, Program | None] = {None: None} | {
            name: self.stage.program(name, grants=GRANTS, scopes=sorted(ALL)) for name in NAMES
        }
        self.watcher = self.stage.program("watcher", scopes=["tokens:introspect"])
        for person, name in zip(PEOPLE, ("one", None), strict=True):
            self.sign_in(person, name)

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            self.stage.close()
            self.database.close()
            shutil.rmtree(self.folder)

    def client(self, name: str | None) -> ModelClient | None:
        return None if name is None else self.clients[name]

    def any_token(self, data: st.DataObject) -> str:
        """Any there ever was, rather a new one."""
        tokens = [*self.model.access, *self.model.refresh]
        return data.draw(st.sampled_from(tokens[-20:]), "token")

    # -- what happens

    @rule(person=a_person, name=a_client)
    def sign_in_rule(self, person: str, name: str | None) -> None:
        self.sign_in(person, name)

    def sign_in(self, person: str, name: str | None) -> None:
        user, client = self.people[person], self.client(name)
        fields = {"username": person, "password": self.stage.passwords[person]}
        answer = self.stage.token("password", fields, program=self.programs[name])
        if client is not None and client.is_disabled:
            assert answer.error == "invalid_client"
        elif user.is_disabled:
            assert answer.error == "invalid_grant"
        else:
            scopes = frozenset({"model:inference"}) if client is None else client.scopes
            assert set(answer.json["scope"].split()) == scopes
            self.model.signed_in(
                user, client, scopes, answer.json["access_token"], answer.json["refresh_token"]
            )

    @rule(name=a_name)
    def client_credentials(self, name: str) -> None:
        client = self.clients[name]
        answer = self.stage.token("client_credentials", program=self.programs[name])
        if client.is_disabled:
            assert answer.error == "invalid_client"
        else:
            self.model.given_to_client(client, answer.json["access_token"])

    def unused(self) -> list[str]:
        return [token for token, each in self.model.refresh.items() if each.used_at is None][-5:]

    def used(self) -> list[str]:
        return [token for token, each in self.model.refresh.items() if each.used_at is not None][-3:]

    @precondition(lambda self: self.unused())
    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.unused()), "refresh token")
        self.try_to_refresh(token, self.model.refresh[token].family.client)

    @precondition(lambda self: self.unused())
    @rule(data=st.data(), times=st.integers(2, 4))
    def refresh_again_and_again(self, data: st.DataObject, times: int) -> None:
        token = data.draw(st.sampled_from(self.unused()), "refresh token")
        for _ in range(times):
            self.try_to_refresh(token, self.model.refresh[token].family.client)
            token = self.model.refresh[token].successor or token

    @precondition(lambda self: self.used())
    @rule(data=st.data(), seconds=st.sampled_from([0, 0, 4, 5]))
    def use_again(self, data: st.DataObject, seconds: float) -> None:
        self.wait(seconds)
        token = data.draw(st.sampled_from(self.used()), "used refresh token")
        self.try_to_refresh(token, self.model.refresh[token].family.client)

    @precondition(lambda self: self.model.refresh)
    @rule(data=st.data(), thief=a_client)
    def refresh_anothers(self, data: st.DataObject, thief: str | None) -> None:
        token = data.draw(st.sampled_from(list(self.model.refresh)[-10:]), "refresh token")
        self.try_to_refresh(token, self.client(thief))

    def try_to_refresh(self, token: str, client: ModelClient | None) -> None:
        expected = self.model.outcome_of_refresh(token, client)

        answer = self.stage.refresh(token, self.programs[None if client is None else client.name])

        if expected in ("new", "again"):
            assert answer.status == 200, answer.body
            if expected == "again":
                assert answer.json["refresh_token"] == self.model.refresh[token].successor
            else:
                assert answer.json["refresh_token"] not in self.model.refresh
            self.model.refreshed(token, answer.json["access_token"], answer.json["refresh_token"])
        elif expected == "reuse":
            assert answer.error == "invalid_grant"
            self.model.reused(token)
        else:
            assert answer.status >= 400, expected
            assert answer.error == expected

    @precondition(lambda self: self.model.access)
    @rule(data=st.data(), is_own=st.booleans(), other=a_client)
    def revoke(self, data: st.DataObject, is_own: bool, other: str | None) -> None:
        token = self.any_token(data)
        of = self.model.access[token] if token in self.model.access else self.model.refresh[token].family
        client = of.client if is_own else self.client(other)
        answer = self.stage.revoke(token, self.programs[None if client is None else client.name])
        assert answer.status == (401 if client is not None and client.is_disabled else 200)
        self.model.revoked(token, client)

    @rule(name=a_name, is_disabled=st.sampled_from([False, False, True]))
    def disable_client(self, name: str, is_disabled: bool) -> None:
        program = self.programs[name]
        assert program is not None
        self.stage.change_program(program, disabled=is_disabled)
        self.clients[name].is_disabled = is_disabled

    @rule(name=a_person, is_disabled=st.sampled_from([False, False, True]))
    def disable_user(self, name: str, is_disabled: bool) -> None:
        self.stage.change_person(name, disabled=is_disabled)
        self.people[name].is_disabled = is_disabled

    @rule(name=a_name, scopes=st.sampled_from(SCOPES))
    def change_scopes(self, name: str, scopes: tuple[str, ...]) -> None:
        program = self.programs[name]
        assert program is not None
        self.stage.change_program(program, scopes=list(scopes))
        self.clients[name].scopes = frozenset(scopes)

    @rule(seconds=st.sampled_from([0.5, 1, 4, 5, 299, 300, 999, 1000, 4000]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.model.now = self.clock.now

    @rule()
    def restart(self) -> None:
        self.stage.restart()

    @rule()
    def delete_expired(self) -> None:
        self.stage.delete_expired()

    @rule()
    def renew_token_ids(self) -> None:
        for _ in range(2):
            self.stage.token_ids.renew(SqlTokenIds(self.stage.database))

    # -- what must hold, always

    @invariant()
    def calls_are_as_expected(self) -> None:
        if not hasattr(self, "stage"):
            return
        for token in list(self.model.access)[-15:]:
            principal = self.stage.principal(token)
            assert (None if principal is None else principal.scopes) == self.model.effective(token)

    @invariant()
    def each_sign_in_has_one_head(self) -> None:
        if not hasattr(self, "stage"):
            return
        families: list[ModelFamily] = []
        for each in self.model.refresh.values():
            if each.family not in families and self.model.now < each.family.ends_at:
                families.append(each.family)
        assert all(self.model.heads(family) == 1 for family in families)
        where = f"used_at IS NULL AND expires_at >= {self.model.now} "
        assert self.stage.count("refresh_tokens", where) <= len(families)

    @invariant()
    def introspection_is_as_expected(self) -> None:
        if not hasattr(self, "stage"):
            return
        for token in list(self.model.refresh)[-3:]:
            active = self.stage.introspect(token, self.watcher).json["active"]
            assert active == self.model.is_good_refresh_token(token)
        for token in list(self.model.access)[-3:]:
            told = self.stage.introspect(token, self.watcher).json
            effective = self.model.effective(token)
            assert told["active"] == (effective is not None)
            assert set(told.get("scope", "").split()) == (effective or set())


@pytest.mark.timeout(300)
def test_life_of_tokens(migrated_file: Path, new_seed: int):
    """Issue, refresh, reuse, revoke, expire, disable, narrow, restart, in any order: calls are as the model says."""
    TokenLife.migrated = migrated_file
    hypothesis.seed(new_seed)(TokenLife)

    run_state_machine_as_test(TokenLife, settings=SETTINGS)
