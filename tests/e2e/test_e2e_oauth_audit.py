"""What the OAuth endpoints refuse is in the audit trail: which client or, where none is known, from which address, and why."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.oauth_server import ALIAS, INTROSPECT, REVOKE, TOKEN, Client, OAuthServer, soon
from tests.e2e.raw_http import RawAnswer, get
from tests.e2e.waiting import wait_until
from tests.secrets_scan import SCAN

GRANT = {"grant_type": "client_credentials"}
PASSWORD = "quiet ferry of the audit trail"
WRONG = "wrong ferry of the audit trail"
ALL = ["client_credentials", "password", "refresh_token"]
Found = tuple[str, str, str, int, list[str]]
"""Who was refused, why, on which route, how often, and what they named."""

SCAN.secrets.add("password", WRONG)


class Case:
    """One caller, at an address of its own."""

    def __init__(self, server: OAuthServer, number: int) -> None:
        self.server = server
        self.address = f"203.0.113.{number}"
        self.name = f"case-{number}"
        self.form_seen: list[str] = []

    def client(self, **fields: Any) -> Client:
        return self.server.make_client(self.name, **fields)

    def send(
        self, fields: dict[str, str], client: Client | None = None, path: str = TOKEN, secret: str = ""
    ) -> RawAnswer:
        self.form_seen += [value for name, value in fields.items() if name not in ("grant_type", "client_id")]
        basic = None if client is None else (client.id, secret or client.secret)
        forwarded = (f"x-forwarded-for: {self.address}", "x-forwarded-proto: https")
        return self.server.form(path, fields, basic=basic, headers=forwarded)

    def change(self, client: Client, **fields: Any) -> None:
        self.server.admin("PATCH", f"/api/v1/clients/{client.id}", fields)


def wrong_secret(case: Case) -> list[Found]:
    client, other = case.client(), case.server.make_client(f"{case.name} other")
    for path in (TOKEN, TOKEN, TOKEN, ALIAS, REVOKE, INTROSPECT):
        secret = client.secret[:-4] + ("aaaa" if client.secret[-4:] != "aaaa" else "bbbb")
        assert case.send({**GRANT, "token": "x"}, client, path, secret).status == 401
        assert case.send({**GRANT, "token": "x"}, client, path, other.secret).status == 401
    why = "invalid_client: The client is unknown or its secret is wrong."
    return [
        ("unknown", why, "POST /api/v1/token", 2, []),
        ("unknown", why, "POST /oauth/introspect", 2, []),
        ("unknown", why, "POST /oauth/revoke", 2, []),
        ("unknown", why, "POST /oauth/token", 6, []),
    ]


def disabled_client(case: Case) -> list[Found]:
    client = case.client()
    case.change(client, disabled=True)
    assert case.send(GRANT, client).status == 401
    assert case.send(GRANT, client).status == 401
    why = "invalid_client: The client cannot be used (disabled). Ask an administrator."
    return [(f"admin by client {client.id}", why, "POST /oauth/token", 2, [])]


def expired_client(case: Case) -> list[Found]:
    client = case.client(expires_at=soon())
    wait_until(lambda: case.send(GRANT, client).status == 401)
    why = "invalid_client: The client has expired. Make a new one."
    return [(f"admin by client {client.id}", why, "POST /oauth/token", 1, [])]


def expired_token(case: Case) -> list[Found]:
    """The same client's end is that of its tokens; here it is a request of the management API that is refused."""
    client = case.client(expires_at=soon())
    token = case.server.token(client)["access_token"]
    forwarded = (f"x-forwarded-for: {case.address}",)

    def ask() -> RawAnswer:
        return get(case.server.port, "/v1/key", key=token, headers=forwarded)

    wait_until(lambda: ask().status == 401)
    assert ask().error["code"] == "token_expired"
    return [(f"admin by client {client.id}", "token_expired", "GET /v1/key", 2, [])]


def forbidden_address(case: Case) -> list[Found]:
    client = case.client(allowed_ips=["198.51.100.0/24"])
    assert case.send(GRANT, client).json["error"] == "unauthorized_client"
    why = "unauthorized_client: The client may not be used from your address."
    return [(f"admin by client {client.id}", why, "POST /oauth/token", 1, [])]


def grant_refused(case: Case) -> list[Found]:
    client = case.client()
    form = {"grant_type": "password", "username": "alice", "password": PASSWORD}
    assert case.send(form, client).json["error"] == "unauthorized_client"
    why = "unauthorized_client: The client may not use password. An administrator can allow it."
    return [(f"admin by client {client.id}", why, "POST /oauth/token", 1, [])]


def scope_refused(case: Case) -> list[Found]:
    client = case.client(scopes=["model:inference"])
    for scope in ("usage:read", "no-such-scope", WRONG.replace(" ", "-")):
        assert case.send({**GRANT, "scope": scope}, client).json["error"] == "invalid_scope"
    who = f"admin by client {client.id}"
    return [
        (who, "invalid_scope", "POST /oauth/token", 2, []),
        (who, "invalid_scope: The scope usage:read cannot be had here.", "POST /oauth/token", 1, []),
    ]


def password_grant_closed(case: Case) -> list[Found]:
    form = {"grant_type": "password", "username": "alice", "password": PASSWORD}
    assert case.send(form).json["error"] == "unauthorized_client"
    why = (
        "unauthorized_client: User name and password get no token here (see the setting oauth.password_grant). "
        "Use an API key, or a client with client_credentials."
    )
    return [("unknown", why, "POST /oauth/token", 1, [])]


def wrong_password(case: Case) -> list[Found]:
    client = case.client(grants=ALL)
    public = case.server.make_client(f"{case.name} public", public=True, grants=["password", "refresh_token"])
    form = {"grant_type": "password", "username": "alice", "password": WRONG}
    for _ in range(2):
        assert case.send(form, client).json["error"] == "invalid_grant"
    assert case.send({**form, "client_id": public.id}).json["error"] == "invalid_grant"
    why = "invalid_grant: The user name or the password is wrong, or this user cannot sign in."
    return [
        (f"admin by client {client.id}", why, "POST /oauth/token", 2, []),
        # Anybody can say that they are a public client.
        ("unknown", why, "POST /oauth/token", 1, [public.id]),
    ]


def unknown_refresh_token(case: Case) -> list[Found]:
    client = case.client(grants=ALL)
    form = {"grant_type": "refresh_token", "refresh_token": "rt-lp-nonsense"}
    assert case.send(form, client).json["error"] == "invalid_grant"
    why = "invalid_grant: The refresh token is unknown, expired, revoked or of another client. Sign in again."
    return [(f"admin by client {client.id}", why, "POST /oauth/token", 1, [])]


def mistake(case: Case) -> list[Found]:
    client = case.client()
    assert case.send({}, client).json["error"] == "invalid_request"
    assert case.send({"grant_type": "nonsense"}, client).json["error"] == "unsupported_grant_type"
    assert case.send(GRANT, client).status == 200
    return []


def guesses(case: Case) -> list[Found]:
    statuses: Counter[int] = Counter()
    while statuses[429] < 3:
        number = sum(statuses.values())
        assert number < 500
        statuses[case.send({**GRANT, "client_id": f"cl-lp-{number}"}).status] += 1
    why = (
        "invalid_client: The client is unknown, or has a secret: send that by HTTP Basic or as client_secret."
    )
    return [
        ("unknown", why, "POST /oauth/token", statuses[401], []),
        ("unknown", "temporarily_unavailable: too many failed attempts", "POST /oauth/token", 3, []),
    ]


CASES: list[Callable[[Case], list[Found]]] = [
    wrong_secret, disabled_client, expired_client, expired_token, forbidden_address, grant_refused, scope_refused,
    password_grant_closed, wrong_password, unknown_refresh_token, mistake, guesses,
]  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, list[Found], list[Any]]]:
    """What each case did, what must be recorded of it, and what is, once the server has stopped."""
    config = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    server = OAuthServer(tmp_path_factory.mktemp("oauth-audit"), people={"alice": PASSWORD}, config=config)
    server.start()
    outcomes = {}
    try:
        for number, play in enumerate(CASES, 1):
            case = Case(server, number)
            outcomes[play.__name__] = case, play(case)
    finally:
        server.stop()
    with closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as connection:
        lines = connection.execute("SELECT line FROM audit_records WHERE action = 'access.refuse'")
        records = [json.loads(line) for (line,) in lines]
    return {
        name: (case, expected, [each for each in records if each["address"] == case.address])
        for name, (case, expected) in outcomes.items()
    }


@pytest.mark.parametrize("play", CASES)
def test_refusal_is_recorded(played: dict[str, Any], play: Callable[[Case], list[Found]]) -> None:
    case, expected, records = played[play.__name__]

    found = []
    for record in records:
        actor, after = record["actor"], record["after"]
        who = actor["kind"]
        if actor["credential"] is not None:
            who = f"{actor['name']} by {actor['credential']['kind']} {actor['credential']['id']}"
        found.append((who, record["reason"], record["target"]["id"], after["count"], after["references"]))
        assert (record["result"], record["target"]["kind"]) == ("refused", "route")
        assert record["request_id"].startswith("req_")
    assert sorted(found) == sorted(expected)
    text = json.dumps(records)
    secret = [value for value in case.form_seen if value not in ("x", "usage:read")]
    assert not [value for value in secret if value in text]
