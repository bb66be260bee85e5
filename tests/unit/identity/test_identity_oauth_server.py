"""The endpoints' own work: whatever the database does is answered in RFC 6749's form, and settings are obeyed."""

import dataclasses
import logging
import sqlite3

import pytest
from identity_fakes import Clock
from oauth_stage import Program, Stage
from sqlalchemy import exc

from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.ids import mint_credential

GRANTS = ["client_credentials", "password", "refresh_token"]
FAILURES = {
    "locked": exc.OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked")),
    "away": exc.OperationalError("SELECT", {}, sqlite3.OperationalError("unable to open database file")),
    "broken": exc.DatabaseError("SELECT", {}, sqlite3.DatabaseError("database disk image is malformed")),
    "overrun": exc.TimeoutError("QueuePool limit of size 8 overflow 40 reached"),
    "gone in between": exc.IntegrityError(
        "INSERT", {}, sqlite3.IntegrityError("FOREIGN KEY constraint failed")
    ),
}


@pytest.fixture
def agent(stage: Stage) -> Program:
    stage.person("mia")
    return stage.program("agent", grants=GRANTS)


def break_commits(stage: Stage, failure: Exception) -> None:
    async def fails(*_: object) -> None:
        raise failure

    stage.server.parts = dataclasses.replace(stage.server.parts, commit=fails)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_database_that_cannot_be_used_is_503(
    stage: Stage, agent: Program, failure: Exception, caplog: pytest.LogCaptureFixture
):
    """Every endpoint that writes says when to come again, and the operator finds the cause in the log."""
    tokens = stage.sign_in("mia", agent)
    break_commits(stage, failure)

    for answer in (
        stage.token("client_credentials", program=agent),
        stage.refresh(tokens["refresh_token"], agent),
        stage.revoke(tokens["access_token"], agent),
    ):
        assert (answer.status, answer.error) == (503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["cache-control"] == "no-store"
    assert str(failure.__class__.__name__) in caplog.text
    assert agent.secret is not None
    assert agent.secret not in caplog.text
    caplog.clear()


def test_client_that_cannot_be_read_is_503(
    stage: Stage, agent: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Not 401: a client whose secret is right must not take it for wrong."""
    monkeypatch.setattr(stage.reader, "client", _fails)

    assert stage.token("client_credentials", program=agent).status == 503
    caplog.clear()


def _fails(_: str) -> None:
    raise FAILURES["locked"]


@pytest.mark.parametrize(
    ("address", "is_open"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True), ("", True),
     ("192.0.2.7", False), ("::ffff:192.0.2.7", False), ("::1:2", False), ("::127.0.0.1", False),
     ("1.127.0.0", False), ("127.evil.example", False), ("2001:db8::1", False)],
)  # fmt: skip
def test_rfc9700_s2_4_password_grant_without_a_client_is_for_this_machine(
    stage: Stage, address: str, is_open: bool
):
    """By default nobody else sends passwords (security.md D2)."""
    stage.person("mia")
    form = {"username": "mia", "password": stage.passwords["mia"]}

    answer = stage.token("password", form, address=address)

    assert answer.status == (200 if is_open else 400)
    assert is_open or answer.error == "unauthorized_client"


@pytest.mark.parametrize(
    ("setting", "here", "elsewhere"), [("off", 400, 400), ("loopback", 200, 400), ("on", 200, 200)]
)
def test_rfc9700_s2_4_password_grant_is_as_the_settings_say(
    stage: Stage, setting: str, here: int, elsewhere: int
):
    """From the next request on, and told in the metadata."""
    stage.person("mia")
    form = {"username": "mia", "password": stage.passwords["mia"]}

    stage.server.reconfigure(OAuthSettings(password_grant=setting))  # type: ignore[arg-type]

    assert stage.token("password", form).status == here
    assert stage.token("password", form, address="192.0.2.7", scheme="https").status == elsewhere


def test_rfc9700_s2_4_registered_client_may_take_passwords_from_everywhere(stage: Stage, agent: Program):
    """Over TLS, where an administrator allowed it; others may not, wherever they are."""
    form = {"username": "mia", "password": stage.passwords["mia"]}
    other = stage.program("other")

    away = stage.token("password", form, program=agent, address="192.0.2.7", scheme="https")
    assert away.status == 200
    assert stage.token("password", form, program=other).error == "unauthorized_client"


def test_settings_that_change_hold_for_new_tokens(stage: Stage, clock: Clock, agent: Program):
    """Tokens that are out keep their end."""
    before = stage.token("client_credentials", program=agent).json

    stage.server.reconfigure(OAuthSettings(access_token_lifetime=60))
    after = stage.token("client_credentials", program=agent).json

    assert (before["expires_in"], after["expires_in"]) == (3600, 60)
    clock.now += 61
    assert stage.principal(before["access_token"]) is not None
    assert stage.principal(after["access_token"]) is None


def test_client_may_have_a_lifetime_of_its_own(stage: Stage):
    brief = stage.program("brief", token_lifetime_s=120)

    assert stage.token("client_credentials", program=brief).json["expires_in"] == 120


def test_every_token_that_is_given_out_is_recorded_and_none_is_shown(stage: Stage, agent: Program):
    """The trail has who got what, when it was revoked, and nothing that anybody could use."""
    own = stage.token("client_credentials", program=agent).json
    tokens = stage.sign_in("mia", agent)
    stage.revoke(own["access_token"], agent)
    stage.revoke(tokens["refresh_token"], agent)
    stage.revoke(tokens["refresh_token"], agent)

    assert [deed.action for deed in stage.deeds][1:] == [
        "token.issue", "token.issue", "token.revoke", "token.revoke",
    ]  # fmt: skip
    for token in (own["access_token"], tokens["access_token"], tokens["refresh_token"]):
        assert token[18:61] not in repr(stage.deeds)


def test_what_cannot_be_recorded_does_not_happen(
    stage: Stage, agent: Program, monkeypatch: pytest.MonkeyPatch, caplog
):
    """No token without its record: the trail writes in the same transaction (security.md 1.11, fail closed)."""

    def fails(*_: object) -> None:
        raise FAILURES["broken"]

    monkeypatch.setattr(type(stage.deeds), "record", fails)

    assert stage.token("client_credentials", program=agent).status == 503
    assert stage.count("access_tokens") == 0
    caplog.clear()


def test_rfc7662_s2_1_introspection_of_what_there_is_not_is_bounded(stage: Stage, agent: Program):
    """RFC 7662 section 2.1: a client that scans for tokens is slowed down, and still hears of good ones."""
    good = stage.token("client_credentials", program=agent).json["access_token"]

    answers = [stage.introspect(mint_credential("at-lp-").token, agent) for _ in range(1005)]

    assert [answer.status for answer in answers] == [200] * 1000 + [429] * 5
    assert answers[-1].error == "temporarily_unavailable"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert stage.introspect(good, agent).json["active"] is True
    other = stage.program("other")
    assert stage.introspect(mint_credential("at-lp-").token, other).json == {"active": False}


def test_rfc9700_s4_9_3_debug_log_shows_no_secret(
    stage: Stage, agent: Program, caplog: pytest.LogCaptureFixture
):
    """At the most talkative level as well."""
    caplog.set_level(logging.DEBUG)
    tokens = stage.sign_in("mia", agent)
    stage.refresh(tokens["refresh_token"], agent)
    stage.refresh(tokens["refresh_token"], agent)

    logging.getLogger("lingpai.identity.oauth").debug("what is logged is kept")

    assert "what is logged is kept" in caplog.text
    for secret in (tokens["access_token"], tokens["refresh_token"], agent.secret, stage.passwords["mia"]):
        assert str(secret) not in caplog.text


def test_switching_a_client_off_and_on_is_recorded_as_that(stage: Stage, agent: Program) -> None:
    """As with keys: what differs, before and after, and nothing else."""
    stage.change_program(agent, disabled=True)
    stage.change_program(agent, disabled=False)
    stage.change_program(agent, name="renamed")

    kept = [deed for deed in stage.deeds if deed.target_id == agent.id and deed.action != "client.create"]
    assert [(deed.action, deed.before, deed.after) for deed in kept] == [
        (
            "client.disable",
            {"disabled": False, "disabled_because": None},
            {"disabled": True, "disabled_because": "disabled"},
        ),
        (
            "client.enable",
            {"disabled": True, "disabled_because": "disabled"},
            {"disabled": False, "disabled_because": None},
        ),
        ("client.update", {"name": "agent"}, {"name": "renamed"}),
    ]
