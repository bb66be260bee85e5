"""What happens between a check and the write that relies on it, and what never gets as far as the write lock."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from oauth_stage import Stage

from lingpai.ids import mint_credential
from lingpai.storage.sealing import SealError

GRANTS = ["client_credentials", "password", "refresh_token"]


def before_each_write(stage: Stage, do: Callable[[], object]) -> None:
    """Have something happen after all checks, when a write is about to begin."""
    run = stage.commit.run

    async def commit(job: Any, then: Any = None) -> Any:
        await asyncio.to_thread(do)
        return await run(job, then)

    stage.server.parts = replace(stage.server.parts, commit=commit)


@pytest.mark.parametrize("change", ["disabled", "deleted"])
def test_client_that_ends_in_between_gets_no_token(stage: Stage, change: str):
    """Its tokens ended with it, and one that came after that would work again as soon as it is enabled."""
    program = stage.program("ci")

    def end() -> None:
        if change == "disabled":
            stage.change_program(program, disabled=True)
        else:
            stage.clients.delete(stage.admin, program.id)

    before_each_write(stage, end)

    answer = stage.token("client_credentials", program=program)

    assert (answer.status, answer.error) == (401, "invalid_client")
    assert change in answer.json["error_description"]
    assert stage.count("access_tokens") == 0


def test_client_that_ends_in_between_refreshes_nothing(stage: Stage):
    stage.person("ida")
    program = stage.program("app", grants=GRANTS)
    tokens = stage.sign_in("ida", program)
    before_each_write(stage, lambda: stage.change_program(program, disabled=True))

    assert stage.refresh(tokens["refresh_token"], program).error == "invalid_grant"
    assert stage.count("refresh_tokens", "used_at IS NOT NULL") == 0


def test_made_up_tokens_do_not_queue_for_the_write_lock(stage: Stage):
    """Anybody can make well-formed ones, without being known."""
    writes: list[None] = []
    before_each_write(stage, lambda: writes.append(None))

    for prefix in ("at-lp-", "rt-lp-"):
        assert stage.revoke(mint_credential(prefix).token).status == 200  # type: ignore[arg-type]  # a prefix
    assert stage.refresh(mint_credential("rt-lp-").token).error == "invalid_grant"

    assert writes == []


def test_made_up_jwts_are_not_verified(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """A signature takes longer than knowing that no token has such an id."""
    jwt = Stage(stage.database, stage.clock, access_token_format="jwt", jwt_algorithm="EdDSA")
    try:
        program = jwt.program("resource server", scopes=["tokens:introspect"])
        good = jwt.token("client_credentials", program=program).json["access_token"]
        verified: list[bytes] = []
        verify = jwt.jwts.verified_id
        monkeypatch.setattr(jwt.jwts, "verified_id", lambda token: verified.append(token) or verify(token))
        made_up = "eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiJhYmNkZWZnaGlqa2wifQ.AAAA"

        assert jwt.revoke(made_up, program).status == 200
        assert jwt.introspect(made_up, program).json == {"active": False}
        assert verified == []
        assert jwt.introspect(good, program).json["active"] is True
        assert verified == [good.encode()]
    finally:
        jwt.close()


def test_refresh_token_is_not_used_up_when_nothing_can_be_signed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """Who is told to come again must not be taken for a thief when they do."""
    jwt = Stage(stage.database, stage.clock, access_token_format="jwt", jwt_algorithm="EdDSA")
    try:
        jwt.person("ida")
        tokens = jwt.sign_in("ida")

        def fail(_: str) -> None:
            raise SealError("the root key is another one")

        with monkeypatch.context() as patch:
            patch.setattr(jwt.token_keys, "current", fail)
            answer = jwt.refresh(tokens["refresh_token"])
            assert (answer.status, answer.error) == (503, "temporarily_unavailable")

        assert jwt.refresh(tokens["refresh_token"]).status == 200
    finally:
        jwt.close()
