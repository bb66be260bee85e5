"""What changes about a client, a user or a token is obeyed by the next call; and who guesses secrets learns nothing."""

import random
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import numpy as np
import pytest

from lingpai.ids import mint_credential
from tests.e2e.conftest import MakeServer
from tests.e2e.oauth_server import FORM, MODEL, REVOKE, TOKEN, Client, OAuthServer, is_oauth_error
from tests.e2e.raw_http import RawConnection, chat, get, post_bytes

GRANTS = ["client_credentials", "password", "refresh_token"]
PAIRS = 1200
ATTEMPTS = 3


@pytest.fixture
def client(oauth: OAuthServer, key_name: str) -> Client:
    return oauth.make_client(key_name, grants=GRANTS, scopes=["model:inference", "keys:read"])


def change(oauth: OAuthServer, client: Client, **fields) -> None:
    oauth.admin("PATCH", f"/api/v1/clients/{client.id}", fields)


def refusal(oauth: OAuthServer, token: str) -> tuple[int, str]:
    answer = oauth.call(token)
    return answer.status, "" if answer.status == 200 else answer.error["code"]


class Talk:
    """A connection on which a program calls with the same token again and again."""

    def __init__(self, oauth: OAuthServer, token: str) -> None:
        self._connection = RawConnection(oauth.port)
        self._request = post_bytes("/v1/chat/completions", chat("hello", model=MODEL), key=token)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def status(self) -> int:
        self._connection.send(self._request)
        return self._connection.read_answer().status


def test_rfc7009_s2_1_revoked_token_is_refused_on_the_connection_that_used_it(
    oauth: OAuthServer, client: Client
):
    """Also where the server remembers who calls on that connection."""
    token = oauth.token(client)["access_token"]
    with Talk(oauth, token) as talk:
        assert [talk.status(), talk.status()] == [200, 200]

        oauth.form(REVOKE, {"token": token, **client.form})

        assert talk.status() == 401


def test_disabled_client_is_refused_and_comes_back(oauth: OAuthServer, client: Client):
    """All of its tokens, and its asking for others, on the next call; enabled again they work."""
    tokens = [oauth.token(client)["access_token"], oauth.sign_in("alice", client)["access_token"]]
    with Talk(oauth, tokens[0]) as talk:
        assert talk.status() == 200

        change(oauth, client, disabled=True)

        assert talk.status() == 401
        assert [refusal(oauth, token) for token in tokens] == [(401, "key_disabled")] * 2
        answer = oauth.form(TOKEN, {"grant_type": "client_credentials", **client.form})
        assert is_oauth_error(answer, 401, "invalid_client")

        change(oauth, client, disabled=False)
        assert talk.status() == 200
        assert [refusal(oauth, token)[0] for token in tokens] == [200, 200]


def test_disabled_user_is_refused(oauth: OAuthServer, client: Client):
    """A user's tokens through any client stop with the user; the client's own do not."""
    through, alone = oauth.sign_in("alice", client), oauth.sign_in("alice")
    own = oauth.token(client)["access_token"]
    assert refusal(oauth, through["access_token"]) == refusal(oauth, alone["access_token"]) == (200, "")

    oauth.admin("PATCH", "/api/v1/users/alice", {"disabled": True})
    try:
        for tokens, asking in ((through, client), (alone, None)):
            assert refusal(oauth, tokens["access_token"]) == (401, "key_disabled")
            assert is_oauth_error(oauth.refresh(tokens["refresh_token"], asking), 400, "invalid_grant")
        assert refusal(oauth, own) == (200, "")
    finally:
        oauth.admin("PATCH", "/api/v1/users/alice", {"disabled": False})


def test_deleted_client_is_refused(oauth: OAuthServer, client: Client):
    """With all that it had, for good."""
    tokens = [oauth.token(client)["access_token"], oauth.sign_in("alice", client)["access_token"]]
    assert [refusal(oauth, token)[0] for token in tokens] == [200, 200]

    oauth.admin("DELETE", f"/api/v1/clients/{client.id}")

    assert [refusal(oauth, token)[0] for token in tokens] == [401, 401]
    answer = oauth.form(TOKEN, {"grant_type": "client_credentials", **client.form})
    assert is_oauth_error(answer, 401, "invalid_client")


def test_rfc9700_s2_3_lost_scope_is_refused_and_a_new_one_is_not_given(oauth: OAuthServer, client: Client):
    """A token never has more than its client has now, nor more than it was given."""
    token = oauth.token(client, scope="model:inference")["access_token"]
    assert refusal(oauth, token) == (200, "")

    change(oauth, client, scopes=["keys:read", "usage:read"])

    assert refusal(oauth, token) == (403, "insufficient_scope")
    assert get(oauth.port, "/api/v1/keys", key=token).status == 403
    change(oauth, client, scopes=["model:inference", "keys:read"])
    assert refusal(oauth, token) == (200, "")


def test_address_rule_is_obeyed(oauth: OAuthServer, client: Client):
    """A client that may come from elsewhere only has tokens of which the same is true."""
    tokens = [oauth.token(client)["access_token"], oauth.sign_in("alice", client)["access_token"]]
    with Talk(oauth, tokens[0]) as talk:
        assert talk.status() == 200

        change(oauth, client, allowed_ips=["10.0.0.0/8"])

        assert talk.status() == 403
        assert [refusal(oauth, token) for token in tokens] == [(403, "ip_not_allowed")] * 2
        answer = oauth.form(TOKEN, {"grant_type": "client_credentials", **client.form})
        assert is_oauth_error(answer, 400, "unauthorized_client")

        change(oauth, client, allowed_ips=["127.0.0.0/8"])
        assert talk.status() == 200


def test_model_rule_is_obeyed(oauth: OAuthServer, client: Client):
    """A client's list of models is that of its tokens."""
    token = oauth.token(client)["access_token"]
    assert refusal(oauth, token) == (200, "")

    change(oauth, client, models=["acme/*"])

    assert refusal(oauth, token) == (403, "model_not_allowed")


def test_limit_of_a_client_holds_for_all_of_its_tokens(oauth: OAuthServer, client: Client):
    """Another token is no way round a limit."""
    change(oauth, client, limits=["3/day"])

    statuses = [refusal(oauth, oauth.token(client)["access_token"])[0] for _ in range(5)]

    assert statuses == [200, 200, 200, 429, 429]


def test_expiry_of_a_client_is_that_of_its_tokens(oauth: OAuthServer, client: Client):
    """Bringing a client's end forward ends what is out."""
    token = oauth.token(client)["access_token"]
    assert refusal(oauth, token) == (200, "")

    change(oauth, client, expires_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1)))
    time.sleep(1.1)

    assert refusal(oauth, token) == (401, "token_expired")


def test_rotated_secret_leaves_tokens_alone(oauth: OAuthServer, client: Client):
    """Another secret, the same client."""
    token = oauth.token(client)["access_token"]

    made = oauth.admin("POST", f"/api/v1/clients/{client.id}/rotate", {"overlap": "0s"})

    assert refusal(oauth, token) == (200, "")
    assert is_oauth_error(
        oauth.form(TOKEN, {"grant_type": "client_credentials", **client.form}), 401, "invalid_client"
    )
    assert oauth.token(Client(client.id, made["client_secret"]))


def test_changed_lifetime_is_that_of_new_tokens(oauth: OAuthServer, client: Client):
    """A client may have its own, and lose it again."""
    change(oauth, client, token_lifetime_s=60)
    assert oauth.token(client)["expires_in"] == 60

    change(oauth, client, token_lifetime_s=None)
    assert oauth.token(client)["expires_in"] == 3600


def test_rfc9700_s2_4_member_cannot_let_a_client_take_passwords(oauth: OAuthServer):
    """RFC 9700 section 2.4 forbids the grant; that an administrator allows it is what keeps it from being a trap."""
    key = oauth.make_key("bobs", user="bob", scopes=["clients:read", "clients:write", "model:inference"])
    made = post_bytes("/api/v1/clients", {"name": "trap", "grants": ["password"], "public": True}, key=key)
    plain = post_bytes("/api/v1/clients", {"name": "plain"}, key=key)
    with RawConnection(oauth.port) as connection:
        connection.send(made)
        refused = connection.read_answer()
        connection.send(plain)
        own = connection.read_answer()
        widened = post_bytes("/x", {"grants": ["password", "client_credentials"]}, key=key)
        path = f"PATCH /api/v1/clients/{own.json['client_id']} ".encode()
        connection.send(widened.replace(b"POST /x ", path, 1))
        changed = connection.read_answer()

    assert (own.status, refused.status, changed.status) == (201, 403, 403)
    assert refused.error["param"] == changed.error["param"] == "grants"


@pytest.fixture
def attacked(make_server: MakeServer, tmp_path) -> Iterator[OAuthServer]:
    server = OAuthServer(tmp_path / "attacked", people={}).start()
    yield server
    server.stop()


def test_rfc6749_s2_3_1_right_secret_passes_while_others_guess(attacked: OAuthServer):
    """From the very address of those who guess; they are told to wait, in RFC 6749's form."""
    client = attacked.make_client("victim")
    wrong = {"grant_type": "client_credentials", "client_id": client.id}

    answers = []
    for _ in range(60):
        guess = mint_credential("cs-lp-", public_id=client.id[6:]).token
        answers.append(attacked.form(TOKEN, wrong | {"client_secret": guess}))
        if len(answers) % 10 == 0:
            assert attacked.token(client)

    assert answers[0].status == 401
    assert is_oauth_error(answers[-1], 429, "temporarily_unavailable")
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_unknown_client_and_wrong_secret_take_the_same_time(attacked: OAuthServer, new_seed: int):
    """Of two answers, one to each, nobody can say better than by chance which took longer (three tries, because of noise)."""
    dice = random.Random(new_seed)
    client = attacked.make_client("timed")
    assert attacked.token(client)
    separations = []
    for _ in range(ATTEMPTS):
        separations.append(separation(*timed(attacked, client, dice)))
        if separations[-1] < 0.06:
            return
    raise AssertionError(f"they can be told apart: {separations}")


def timed(server: OAuthServer, client: Client, dice: random.Random) -> tuple[list[float], list[float]]:
    """Seconds for answers to an unknown client, and to a wrong secret, in random order on one connection."""
    times: dict[bool, list[float]] = {True: [], False: []}
    order = [True, False] * PAIRS
    dice.shuffle(order)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for is_known in order:
            minted = mint_credential("cs-lp-", public_id=client.id[6:] if is_known else None)
            fields = {
                "grant_type": "client_credentials",
                "client_id": f"cl-lp-{minted.id}",
                "client_secret": minted.token,
            }
            request = post_bytes(TOKEN, urlencode(fields).encode(), content_type=FORM)
            began = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            times[is_known].append(time.perf_counter() - began)
    return times[False], times[True]


def separation(first: list[float], second: list[float]) -> float:
    """How far from chance (0) to certain (0.5) the guess is which of two times is of which kind (Mann-Whitney)."""
    together = np.argsort(np.argsort(np.concatenate([first, second])))
    rank_sum = float(together[: len(first)].sum()) - len(first) * (len(first) - 1) / 2
    return abs(rank_sum / (len(first) * len(second)) - 0.5)
