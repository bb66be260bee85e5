"""Signing in with a password: scopes, families, and what stands in the form (RFC 6749 section 4.3)."""

import base64
from collections.abc import Callable

import pytest
from oauth_stage import Program, Stage

from lingpai.identity.interfaces import User
from lingpai.identity.passwords.store import SqlPasswordStore

GRANTS = ["password", "refresh_token"]


@pytest.fixture
def agent(stage: Stage) -> Program:
    stage.person("nia")
    return stage.program("agent", grants=GRANTS, scopes=["model:inference", "usage:read", "users:write"])


def test_rfc9700_s2_3_token_has_what_both_client_and_user_may(stage: Stage, agent: Program):
    """A member gets no administrator's scope through any client."""
    assert stage.sign_in("nia", agent)["scope"] == "model:inference usage:read"


def test_administrator_gets_all_that_the_client_may(stage: Stage, agent: Program):
    stage.person("olga", role="admin")

    assert stage.sign_in("olga", agent)["scope"] == "model:inference usage:read users:write"


def test_without_a_client_more_must_be_asked_for(stage: Stage):
    """By default a person's token calls models; with `scope` it does whatever the role allows, and no more."""
    stage.person("nia")
    form = {"username": "nia", "password": stage.passwords["nia"]}

    assert stage.token("password", form).json["scope"] == "model:inference"
    assert stage.token("password", form | {"scope": "keys:write"}).json["scope"] == "keys:write"
    assert stage.token("password", form | {"scope": "users:write"}).error == "invalid_scope"


@pytest.mark.parametrize(
    "form", [{}, {"username": "nia"}, {"password": "x"}, {"username": "", "password": "x"}]
)
def test_missing_name_or_password_is_invalid_request(stage: Stage, form: dict[str, str]):
    assert stage.token("password", form).error == "invalid_request"


@pytest.mark.parametrize("name", ["nia", "nobody", "Nia", "nia ", "cl-lp-nia", "n\x00ia", "尼娅"])
def test_rfc6749_s4_3_2_wrong_password_and_unknown_user_are_answered_alike(stage: Stage, name: str):
    stage.person("nia")

    answer = stage.token("password", {"username": name, "password": "wrong"})

    assert (answer.status, answer.json) == (
        400,
        {"error": "invalid_grant", "error_description": "The user name or the password is wrong."},
    )


def test_user_in_basic_may_name_a_public_client(stage: Stage):
    """The article's form, through a registered client without a secret."""
    stage.person("nia")
    public = stage.program("public", public=True, grants=GRANTS)

    answer = stage.token("password", {"client_id": public.id}, basic=("nia", stage.passwords["nia"]))

    assert answer.status == 200
    principal = stage.principal(answer.json["access_token"])
    assert principal is not None
    assert (principal.user_name, principal.client_id) == ("nia", public.id)


def test_user_in_basic_cannot_name_a_client_with_a_secret(stage: Stage, agent: Program):
    """Nobody passes for a client by its id."""
    answer = stage.token("password", {"client_id": agent.id}, basic=("nia", stage.passwords["nia"]))

    assert answer.error == "invalid_client"


def test_password_with_colons_and_percent_signs_is_taken_as_it_is(stage: Stage):
    """RFC 7617 section 2: only the first colon divides, and nothing in a user's password is decoded (security.md D3)."""
    stage.person("nia")
    stage.passwords["nia"] = "a:b%20+c:密码"

    assert stage.token("password", basic=("nia", stage.passwords["nia"])).status == 200


def latin_1(user_pass: str) -> list[tuple[bytes, bytes]]:
    """The headers of a library that writes Basic as `requests` does."""
    encoded = base64.b64encode(user_pass.encode("latin-1"))
    return [(b"host", b"127.0.0.1"), (b"authorization", b"Basic " + encoded)]


def test_password_of_a_user_in_basic_may_be_latin_1(stage: Stage):
    """RFC 7617 section 2 leaves the encoding open; what can be UTF-8 is that."""
    stage.person("nia")
    stage.passwords["nia"] = "nias päss: wörd"

    assert stage.token("password", headers=latin_1("nia:nias päss: wörd")).status == 200
    assert stage.token("password", basic=("nia", "nias päss: wörd")).status == 200
    wrong = stage.token("password", headers=latin_1("nia:nias pässword"))
    assert (wrong.status, wrong.error) == (400, "invalid_grant")
    assert stage.token("password", headers=latin_1("nia, nias päss")).error == "invalid_client"


def test_client_in_basic_must_be_utf_8(stage: Stage, agent: Program):
    """Nothing is tried for clients: not in another grant, nor beside a user in the body, nor by a client's id."""
    user = {"username": "nia", "password": stage.passwords["nia"]}

    answers = [
        stage.token("client_credentials", headers=latin_1(f"{agent.id}:sécret")),
        stage.token("password", user, headers=latin_1("nia:sécret")),
        stage.token("password", headers=latin_1(f"{agent.id}:sécret")),
    ]

    assert [(each.status, each.error) for each in answers] == [(401, "invalid_client")] * 3
    assert all("UTF-8" in each.json["error_description"] for each in answers)


def test_sign_in_keeps_from_where_it_came(stage: Stage, agent: Program):
    """A list of sign-ins has something to show; what is too long is cut."""
    stage.sign_in("nia", agent)

    assert stage.count("token_families", "address = '127.0.0.1' AND user_agent = 'tests'") == 1


def test_sign_in_without_refresh_ends_with_its_access_token(stage: Stage):
    """It can be ended before, but does not stay behind for a year."""
    stage.person("nia")
    once = stage.program("once", grants=["password"])

    tokens = stage.sign_in("nia", once)

    assert "refresh_token" not in tokens
    assert stage.count("token_families", f"expires_at = {stage.clock() + 3600}") == 1


def during_the_check(stage: Stage, monkeypatch: pytest.MonkeyPatch, happens: Callable[[User], None]) -> None:
    """Let something happen after the password was found right and before the tokens are written."""
    check = stage.verify

    async def slow(name: str, password: str, *, address: str) -> User:
        user = await check(name, password, address=address)
        happens(user)
        return user

    monkeypatch.setattr(stage, "verify", slow)


def test_rfc9700_s2_2_2_password_that_was_changed_in_between_gets_no_tokens(
    stage: Stage, agent: Program, monkeypatch: pytest.MonkeyPatch
):
    """The change ends what the old password gave; nothing from it may begin after that."""

    def change(user: User) -> None:
        with stage.database.write() as connection:
            SqlPasswordStore().set_hash(connection, user.id, "$argon2id$new", stage.clock())
        stage.clock.now += 1

    during_the_check(stage, monkeypatch, change)
    form = {"username": "nia", "password": stage.passwords["nia"]}

    answers = [stage.token("password", form, program=program) for program in (agent, None)]

    assert [(each.status, each.error) for each in answers] == [(400, "invalid_grant")] * 2
    assert stage.count("token_families") == stage.count("access_tokens") == 0


def test_user_who_was_disabled_in_between_gets_no_tokens(
    stage: Stage, agent: Program, monkeypatch: pytest.MonkeyPatch
):
    during_the_check(stage, monkeypatch, lambda _: stage.change_person("nia", disabled=True))

    answer = stage.token("password", {"username": "nia", "password": stage.passwords["nia"]}, program=agent)

    assert (answer.status, answer.error) == (400, "invalid_grant")
    assert stage.count("token_families") == stage.count("access_tokens") == 0
