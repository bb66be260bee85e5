"""The SQL of tokens: what ends, what is deleted when, and how much at a time."""

import sqlite3

import pytest
from identity_fakes import Clock
from oauth_stage import Program, Stage
from sqlalchemy import event

from lingpai.identity.oauth import token_store
from lingpai.identity.oauth.settings import DAY_S
from lingpai.identity.oauth.token_store import SqlTokenIds, SqlTokenStore

GRANTS = ["client_credentials", "password", "refresh_token"]
TABLES = ("access_tokens", "refresh_tokens", "token_families")


@pytest.fixture
def agent(stage: Stage) -> Program:
    for name in ("kim", "lee"):
        stage.person(name)
    return stage.program("agent", grants=GRANTS)


def counts(stage: Stage) -> tuple[int, ...]:
    return tuple(stage.count(table) for table in TABLES)


def test_what_lives_is_not_deleted(stage: Stage, clock: Clock, agent: Program):
    """Until its end everything stays, used and revoked refresh tokens as well."""
    tokens = stage.sign_in("kim", agent)
    stage.refresh(tokens["refresh_token"], agent)
    stage.refresh(tokens["refresh_token"], agent)  # reuse: access tokens are deleted at once
    stage.token("client_credentials", program=agent)

    clock.now += 3599
    stage.delete_expired()

    assert counts(stage) == (1, 2, 1)


def test_expired_access_tokens_go(stage: Stage, clock: Clock, agent: Program):
    """Soon after their end, with the sign-in left as it is."""
    tokens = stage.sign_in("kim", agent)
    stage.token("client_credentials", program=agent)

    clock.now += 3601
    stage.delete_expired()

    assert counts(stage) == (0, 1, 1)
    assert stage.refresh(tokens["refresh_token"], agent).status == 200


def test_revoked_family_is_remembered_until_its_end(stage: Stage, clock: Clock, agent: Program):
    """So that its tokens go on being known as what they are; then nothing is left of it."""
    tokens = stage.sign_in("kim", agent)
    stage.revoke(tokens["refresh_token"], agent)

    clock.now += 364 * DAY_S
    stage.delete_expired()
    assert counts(stage) == (0, 1, 1)

    clock.now += 2 * DAY_S
    stage.delete_expired()
    assert counts(stage) == (0, 0, 0)


def test_deleting_takes_many_small_transactions(
    stage: Stage, clock: Clock, agent: Program, monkeypatch: pytest.MonkeyPatch
):
    """No transaction deletes more than some rows, however many one family has: nobody waits long for the lock."""
    monkeypatch.setattr(token_store, "_MOST_EXPIRED", 10)
    tokens = [stage.sign_in("kim", agent) for _ in range(8)]
    for _ in range(40):
        tokens[0] = stage.refresh(tokens[0]["refresh_token"], agent).json
    for _ in range(25):
        stage.token("client_credentials", program=agent)
    deleted: list[int] = []
    event.listen(
        stage.database._engine,
        "after_cursor_execute",
        lambda _, cursor, statement, *rest: (
            deleted.append(cursor.rowcount) if statement.startswith("DELETE") else None
        ),
    )

    clock.now += 400 * DAY_S
    transactions = stage.delete_expired()

    assert counts(stage) == (0, 0, 0)
    assert max(deleted) <= 10
    assert transactions > 7


def test_nothing_to_delete_takes_one_look(stage: Stage):
    assert stage.delete_expired() == 1


def test_expired_are_found_by_an_index(stage: Stage):
    """Looking for them reads none of those that live."""
    with sqlite3.connect(stage.database.path or "") as connection:
        for table in ("access_tokens", "token_families"):
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT id FROM {table} WHERE expires_at < 1"
            ).fetchall()
            assert "USING" in plan[0][3], plan
    connection.close()


def test_all_sign_ins_of_a_user_can_be_ended(stage: Stage, agent: Program):
    """With or without a client, with or without a refresh token; other users' and clients' own tokens stay."""
    once = stage.program("once", grants=["password"])
    of_kim = [stage.sign_in("kim", program) for program in (agent, None, once)]
    of_lee = stage.sign_in("lee", agent)
    own = stage.token("client_credentials", program=agent).json

    with stage.database.write() as connection:
        gone = SqlTokenStore().revoke_families_of_user(
            connection, stage.users.get(stage.admin, "kim").id, now=stage.clock(), because="password changed"
        )
    stage._forget_tokens(gone)

    assert {each["access_token"][6:18] for each in of_kim} == set(gone)
    assert [stage.principal(each["access_token"]) for each in of_kim] == [None] * 3
    assert stage.refresh(of_kim[0]["refresh_token"], agent).error == "invalid_grant"
    assert stage.principal(of_lee["access_token"]) is not None
    assert stage.principal(own["access_token"]) is not None


def test_ending_a_family_twice_keeps_the_first_reason(stage: Stage, agent: Program):
    tokens = stage.sign_in("kim", agent)
    stage.revoke(tokens["refresh_token"], agent)

    with stage.database.write() as connection:
        family = SqlTokenStore().refresh_token(connection, tokens["refresh_token"][6:18])
        assert family is not None
        SqlTokenStore().revoke_family(connection, family.family_id, now=1.0, because="later")

    assert stage.count("token_families", "revoked_because = 'revoked'") == 1


def test_deleted_client_leaves_no_token_that_works(stage: Stage, agent: Program):
    """Its access tokens are gone and its sign-ins have ended."""
    tokens = stage.sign_in("kim", agent)
    own = stage.token("client_credentials", program=agent).json
    assert stage.principal(own["access_token"]) is not None

    stage.clients.delete(stage.admin, agent.id)

    assert stage.principal(own["access_token"]) is None
    assert stage.principal(tokens["access_token"]) is None
    assert stage.count("token_families", "revoked_at IS NULL") == 0


def test_ids_are_those_of_all_access_tokens(stage: Stage, agent: Program):
    made = {stage.token("client_credentials", program=agent).json["access_token"][6:18] for _ in range(5)}
    source = SqlTokenIds(stage.database)

    assert set(source.key_ids()) == made
    assert source.count_keys() == 5
