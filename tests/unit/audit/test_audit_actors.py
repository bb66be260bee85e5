"""By what records know who did something."""

import pytest

from lingpai.audit.actors import actor_of
from lingpai.principal import Principal
from lingpai.web.origin import Origin


@pytest.mark.parametrize(
    ("ids", "kind", "id_"),
    [
        ({"key_id": "key_1"}, "key", "key_1"),
        ({"client_id": "cli_1", "token_id": "tok_1"}, "client", "cli_1"),
        ({"token_id": "tok_1"}, "token", "tok_1"),
        ({"session_id": "ses_1"}, "session", "ses_1"),
        ({}, "admin_socket", None),
    ],
)
def test_credential_is_named_as_what_it_is(ids: dict[str, str], kind: str, id_: str | None) -> None:
    actor = actor_of(Principal("usr_1", "ada", "member", **ids), Origin(kind="socket"))

    assert actor.fields()["credential"] == {"id": id_, "kind": kind}
