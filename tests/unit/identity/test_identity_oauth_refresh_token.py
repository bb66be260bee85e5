"""Refreshing, with a clock that moves: rotation, reuse, grace, ends (RFC 6749 section 6, RFC 9700 section 4.14)."""

import asyncio

import pytest
from identity_fakes import Clock
from oauth_stage import Program, Stage

from lingpai.identity.oauth.refresh_token import RefreshFlow
from lingpai.identity.oauth.settings import DAY_S
from lingpai.identity.peppers import Peppers
from lingpai.storage.database import Database

GRANTS = ["client_credentials", "password", "refresh_token"]


@pytest.fixture
def agent(stage: Stage) -> Program:
    stage.person("gina")
    return stage.program("agent", grants=GRANTS, scopes=["model:inference", "usage:read"])


def allow_grace(stage: Stage, seconds: float) -> None:
    stage.server._refresh = RefreshFlow(seconds)


def test_rfc9700_s4_14_2_unused_refresh_token_expires(stage: Stage, clock: Clock, agent: Program):
    """A refresh token that nobody uses ends after the time in the settings."""
    tokens = stage.sign_in("gina", agent)

    clock.now += 30 * DAY_S

    assert stage.refresh(tokens["refresh_token"], agent).error == "invalid_grant"


def test_rfc9700_s4_14_2_used_in_time_it_goes_on_until_the_familys_end(
    stage: Stage, clock: Clock, agent: Program
):
    """Each use gives another thirty days, and none more than a year from signing in (ASVS 10.4.8)."""
    tokens = stage.sign_in("gina", agent)
    began = clock.now
    while clock.now + 29 * DAY_S < began + 365 * DAY_S:
        clock.now += 29 * DAY_S
        tokens = stage.refresh(tokens["refresh_token"], agent).json

    clock.now = began + 365 * DAY_S - 60
    last = stage.refresh(tokens["refresh_token"], agent).json

    assert last["expires_in"] == 60
    clock.now += 60
    assert stage.refresh(last["refresh_token"], agent).error == "invalid_grant"
    assert stage.principal(last["access_token"]) is None


def test_access_token_never_outlives_its_sign_in(database: Database, clock: Clock):
    """What is answered as good is there for as long as it was said, although old families are deleted."""
    stage = Stage(database, clock, refresh_family_lifetime=600, access_token_lifetime=3600)
    try:
        stage.person("gina")
        tokens = stage.sign_in("gina")
        assert tokens["expires_in"] == 600

        clock.now += 599
        stage.delete_expired()
        stage.restart()
        assert stage.principal(tokens["access_token"]) is not None

        clock.now += 2
        stage.delete_expired()
        assert stage.count("token_families") == stage.count("access_tokens") == 0
    finally:
        stage.close()


def test_reuse_is_recorded_with_what_it_ended(stage: Stage, agent: Program):
    """The audit trail says whose sign-in ended and why, and shows no token."""
    first = stage.sign_in("gina", agent)
    second = stage.refresh(first["refresh_token"], agent).json

    stage.refresh(first["refresh_token"], agent)

    (deed,) = stage.deeds.of("token.reuse")
    assert (deed.target_kind, deed.target_name, deed.result) == ("family", "gina", "refused")
    assert deed.after == {"refresh_token": first["refresh_token"][6:18], "revoked_access_tokens": 2}
    for token in (*first.values(), *second.values()):
        assert str(token) not in repr(stage.deeds) or not str(token).startswith(("at-lp-", "rt-lp-"))


def test_each_use_is_recorded(stage: Stage, agent: Program):
    """Which token came out of which sign-in is in the trail."""
    tokens = stage.sign_in("gina", agent)
    refreshed = stage.refresh(tokens["refresh_token"], agent, scope="usage:read").json

    (signed_in,), (refreshing,) = stage.deeds.of("token.issue"), stage.deeds.of("token.refresh")
    assert refreshing.target_id == refreshed["access_token"][6:18]
    assert refreshing.after is not None
    assert signed_in.after is not None
    assert refreshing.after["family"] == signed_in.after["family"]
    assert refreshing.after["scopes"] == ["usage:read"]
    assert refreshing.after["client_id"] == agent.id


def test_reuse_is_known_after_the_tokens_own_end(stage: Stage, clock: Clock, agent: Program):
    """A thief who waits until the used token would have expired ends the sign-in all the same."""
    first = stage.sign_in("gina", agent)
    clock.now += 20 * DAY_S
    second = stage.refresh(first["refresh_token"], agent).json
    clock.now += 15 * DAY_S

    stage.refresh(first["refresh_token"], agent)

    assert stage.refresh(second["refresh_token"], agent).error == "invalid_grant"
    assert len(stage.deeds.of("token.reuse")) == 1


def test_reuse_of_what_has_ended_ends_nothing_again(stage: Stage, agent: Program):
    """The first reuse is the one that is recorded."""
    first = stage.sign_in("gina", agent)
    stage.refresh(first["refresh_token"], agent)

    for _ in range(3):
        assert stage.refresh(first["refresh_token"], agent).error == "invalid_grant"

    assert len(stage.deeds.of("token.reuse")) == 1


@pytest.mark.parametrize(("after_s", "is_graced"), [(0, True), (4.9, True), (5, False), (60, False)])
def test_grace_ends(stage: Stage, clock: Clock, agent: Program, after_s: float, is_graced: bool):
    """Within the time in the settings the same successor comes again; afterwards it is reuse."""
    allow_grace(stage, 5)
    first = stage.sign_in("gina", agent)
    second = stage.refresh(first["refresh_token"], agent).json

    clock.now += after_s
    again = stage.refresh(first["refresh_token"], agent)

    if is_graced:
        assert again.json["refresh_token"] == second["refresh_token"]
        assert again.json["access_token"] != second["access_token"]
    else:
        assert again.error == "invalid_grant"
    assert stage.refresh(second["refresh_token"], agent).status == (200 if is_graced else 400)


def test_grace_is_for_those_who_came_earlier_and_are_written_later(
    stage: Stage, clock: Clock, agent: Program
):
    """Of two at the same time, the one that is written second may have come first: it is in the grace period, too."""
    allow_grace(stage, 5)
    first = stage.sign_in("gina", agent)
    second = stage.refresh(first["refresh_token"], agent).json

    clock.now -= 0.004
    again = stage.refresh(first["refresh_token"], agent)

    assert again.json["refresh_token"] == second["refresh_token"]


def test_grace_is_over_when_the_sign_in_is(database: Database, clock: Clock):
    """A repeat after the family's end gives nothing any more."""
    stage = Stage(database, clock, refresh_grace=10, refresh_family_lifetime=100)
    try:
        stage.person("gina")
        first = stage.sign_in("gina")
        clock.now += 98
        assert stage.refresh(first["refresh_token"]).status == 200

        clock.now += 3

        assert stage.refresh(first["refresh_token"]).error == "invalid_grant"
    finally:
        stage.close()


def test_grace_gives_the_same_successor_after_a_restart_and_another_pepper(
    stage: Stage, clock: Clock, agent: Program
):
    """The successor's secret is made anew from what is stored, under the pepper it was made with."""
    allow_grace(stage, 5)
    first = stage.sign_in("gina", agent)
    second = stage.refresh(first["refresh_token"], agent).json

    stage.peppers = Peppers({1: b"p" * 32, 2: b"q" * 32})
    stage.restart()
    allow_grace(stage, 5)

    assert stage.refresh(first["refresh_token"], agent).json["refresh_token"] == second["refresh_token"]


def test_pepper_that_becomes_the_newest_meanwhile_harms_no_successor(
    stage: Stage, agent: Program, monkeypatch: pytest.MonkeyPatch
):
    """The version that a secret is made under is the one that is stored with it, whatever happens in between."""
    allow_grace(stage, 5)
    first = stage.sign_in("gina", agent)
    rotating = _RotatingPeppers({1: b"p" * 32, 2: b"q" * 32})
    monkeypatch.setattr(stage.server.parts.mint, "_peppers", rotating)

    second = stage.refresh(first["refresh_token"], agent).json
    again = stage.refresh(first["refresh_token"], agent).json

    assert again["refresh_token"] == second["refresh_token"]
    assert stage.refresh(second["refresh_token"], agent).status == 200


class _RotatingPeppers(Peppers):
    """The newest is another one each time that somebody asks."""

    @property
    def newest_version(self) -> int:
        self._turn = 3 - getattr(self, "_turn", 1)
        return self._turn

    @newest_version.setter
    def newest_version(self, _: int) -> None:
        pass

    __slots__ = ("_turn",)


@pytest.mark.parametrize("grace_s", [0, 5])
def test_many_at_once_have_one_successor(stage: Stage, agent: Program, grace_s: float):
    """In one group commit, too: the first wins, and the others are reuse, or get the same."""
    allow_grace(stage, grace_s)
    tokens = stage.sign_in("gina", agent)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    async def all_at_once():
        asking = [stage.post(stage.server.token, form, program=agent) for _ in range(50)]
        return await asyncio.gather(*asking)

    answers = stage.run(all_at_once())

    good = [answer.json for answer in answers if answer.status == 200]
    assert len({each["refresh_token"] for each in good}) == 1
    assert len(good) == (50 if grace_s else 1)
    assert {answer.error for answer in answers if answer.status != 200} <= {"invalid_grant"}
    assert stage.count("refresh_tokens", "used_at IS NULL") == 1
    assert len(stage.deeds.of("token.reuse")) == (0 if grace_s else 1)


def test_disabled_user_cannot_refresh_and_can_again(stage: Stage, agent: Program):
    """A disabled user's refresh tokens are refused and not used up."""
    tokens = stage.sign_in("gina", agent)

    stage.change_person("gina", disabled=True)
    during = stage.refresh(tokens["refresh_token"], agent)
    stage.change_person("gina", disabled=False)

    assert during.error == "invalid_grant"
    assert stage.refresh(tokens["refresh_token"], agent).status == 200


def test_user_who_lost_a_role_has_tokens_that_lost_it(stage: Stage):
    """An administrator who is one no more refreshes to what a member may do."""
    stage.person("hana", role="admin")
    client = stage.program("admins", grants=GRANTS, scopes=["model:inference", "users:write"])
    tokens = stage.sign_in("hana", client)
    assert tokens["scope"] == "model:inference users:write"

    stage.change_person("hana", role="member")

    assert stage.refresh(tokens["refresh_token"], client).json["scope"] == "model:inference"


@pytest.mark.parametrize(
    "wrong", ["x", "rt-lp-", "at-lp-" + "0" * 61, "rt-lp-" + "0" * 61, "令牌", "rt-lp-" + "é" * 61]
)
def test_what_is_no_refresh_token_is_invalid_grant(stage: Stage, agent: Program, wrong: str):
    """Whatever its form, and without touching the database."""
    assert stage.refresh(wrong, agent).error == "invalid_grant"


def test_access_token_does_not_refresh(stage: Stage, agent: Program):
    """The wrong one of the two is refused, and nothing is revoked."""
    tokens = stage.sign_in("gina", agent)

    assert stage.refresh(tokens["access_token"], agent).error == "invalid_grant"
    assert stage.refresh(tokens["refresh_token"], agent).status == 200
