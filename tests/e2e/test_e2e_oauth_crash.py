"""kill -9, callers who hang up, a database that cannot be used: no token is lost that was answered, none is made twice."""

import itertools
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.oauth_server import FORM, REVOKE, TOKEN, Client, OAuthServer, is_oauth_error
from tests.e2e.raw_http import RawAnswer, RawConnection, post_bytes
from tests.e2e.waiting import wait_until

GRANTS = ["client_credentials", "password", "refresh_token"]
KILLS = 20
SIGNED_IN = 4


@pytest.fixture
def server(tmp_path) -> Iterator[OAuthServer]:
    server = OAuthServer(tmp_path / "server", people={"erin": "erins long password"}).start()
    yield server
    server.stop()


def rows(server: OAuthServer, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{server.data}/lingpai.db?mode=ro", uri=True)) as connection:
        return connection.execute(statement, parameters).fetchall()


class SignedIn:
    """A program that refreshes as fast as it can, and remembers what it was answered last."""

    def __init__(self, server: OAuthServer, client: Client) -> None:
        self._server = server
        self._client = client
        self.sign_in()

    def sign_in(self) -> None:
        self.answered = self._server.sign_in("erin", self._client)
        self.refreshes = 0
        self.own: list[str] = []

    def run(self) -> None:
        """Until the server is gone, be it in the middle of an answer, which is none then."""
        own = {"grant_type": "client_credentials", **self._client.form}
        with suppress(OSError):
            while answer := self._answered(
                self._server.refresh, self.answered["refresh_token"], self._client
            ):
                self.answered = answer
                self.refreshes += 1
                if token := self._answered(self._server.form, TOKEN, own):
                    self.own.append(token["access_token"])

    def _answered(self, ask: Callable[..., RawAnswer], *arguments: Any) -> Any:
        """What was answered; None where the answer is cut off."""
        try:
            answer = ask(*arguments)
        except AssertionError as error:  # in the head
            assert "closed before" in str(error)  # noqa: PT017  anything else is a fault
            return None
        if not answer.is_complete:
            return None
        assert answer.status == 200, answer.body
        return answer.json

    def check(self) -> None:
        """After the kill: one head, all that was answered is there, and going on is possible or reported."""
        token = self.answered["refresh_token"]
        ((used_at, successor, heads),) = rows(
            self._server,
            "SELECT t.used_at, t.successor_id, (SELECT count(*) FROM refresh_tokens r"
            " WHERE r.family_id = t.family_id AND r.used_at IS NULL) FROM refresh_tokens t WHERE t.id = ?",
            token[6:18],
        )
        assert heads == 1
        assert [self._server.call(each).status for each in (self.answered["access_token"], *self.own)] == [
            200
        ] * (1 + len(self.own))
        answer = self._server.refresh(token, self._client)
        if used_at is None:
            assert answer.status == 200
            self.answered = answer.json
        else:  # the last use was on the disk already, and its answer never came
            assert rows(self._server, "SELECT used_at FROM refresh_tokens WHERE id = ?", successor) == [
                (None,)
            ]
            assert is_oauth_error(answer, 400, "invalid_grant")
            self.sign_in()
        self.own.clear()


@pytest.mark.slow
def test_kill_in_the_midst_of_refreshing(server: OAuthServer, new_seed: int):
    """Twenty times kill -9 while tokens are refreshed: never two heads, never an answered token that is not there."""
    dice = random.Random(new_seed)
    client = server.make_client("agent", grants=GRANTS)
    programs = [SignedIn(server, client) for _ in range(SIGNED_IN)]
    refreshes = 0
    for _ in range(KILLS):
        with ThreadPoolExecutor(SIGNED_IN) as pool:
            running = [pool.submit(each.run) for each in programs]
            time.sleep(dice.uniform(0.05, 0.4))
            server.kill()
            for each in running:
                each.result(20)
        server.start()
        refreshes += sum(each.refreshes for each in programs)
        for each in programs:
            each.check()

    assert refreshes > KILLS * SIGNED_IN


def test_callers_who_hang_up_while_their_token_is_written(server: OAuthServer):
    """A storm of them leaves nothing in the log, delays nobody for long, and mixes nothing up."""
    client = server.make_client("stormy", grants=GRANTS)
    body = urlencode({"grant_type": "client_credentials", **client.form}).encode()
    request = post_bytes(TOKEN, body, content_type=FORM)

    def hang_up(_: int) -> None:
        with RawConnection(server.port) as connection:
            connection.send(request)
            connection.reset()

    with ThreadPoolExecutor(16) as pool:
        storm = pool.map(hang_up, range(600))
        tokens = [server.token(client)["access_token"] for _ in range(30)]
        list(storm)

    assert [server.call(token).status for token in tokens] == [200] * 30
    assert [server.introspect(client, token)["client_id"] for token in tokens] == [client.id] * 30
    assert "Traceback" not in server.stderr


def test_who_hangs_up_while_revoking_has_revoked(server: OAuthServer):
    """A token that is in memory is refused although nobody waited for the answer to its revocation."""
    client = server.make_client("impatient", grants=GRANTS)
    for _ in range(30):
        token = server.token(client)["access_token"]
        assert server.call(token).status == 200

        revoke_and_hang_up(server, token, client)

        wait_until(lambda token=token: server.call(token).status == 401, "it still works")


def revoke_and_hang_up(server: OAuthServer, token: str, client: Client) -> None:
    """Until it has happened: a connection that is reset too early takes the request along."""
    body = urlencode({"token": token, **client.form}).encode()
    for attempt in range(100):
        with RawConnection(server.port) as connection:
            connection.send(post_bytes(REVOKE, body, content_type=FORM))
            time.sleep(attempt * 0.001)
            connection.reset()
        time.sleep(0.05)
        if rows(server, "SELECT count(*) FROM access_tokens WHERE id = ?", token[6:18]) == [(0,)]:
            return
    raise AssertionError("it was never revoked")


def test_storm_of_refreshes_that_nobody_waits_for(server: OAuthServer):
    """A refresh whose caller has gone happens as a whole or not at all: one head, whatever is asked afterwards."""
    client = server.make_client("lost", grants=GRANTS)
    for number in range(20):
        tokens = server.sign_in("erin", client)
        with RawConnection(server.port) as connection:
            fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **client.form}
            connection.send(post_bytes(TOKEN, urlencode(fields).encode(), content_type=FORM))
            time.sleep(number * 0.0005)
            connection.reset()

        statement = (
            "SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL AND family_id ="
            " (SELECT family_id FROM refresh_tokens WHERE id = ?)"
        )
        assert rows(server, statement, tokens["refresh_token"][6:18]) == [(1,)]


@pytest.mark.slow
def test_rfc7009_s2_2_1_locked_database_is_503_with_retry_after(server: OAuthServer):
    """While something else holds the database, tokens are refused in RFC 6749's form, and given as soon as it lets go."""
    client = server.make_client("patient", grants=GRANTS)
    token = server.token(client)["access_token"]
    with closing(sqlite3.connect(server.data / "lingpai.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(2) as pool:
            fields = {"grant_type": "client_credentials", **client.form}
            asked = [
                pool.submit(server.form, TOKEN, fields, timeout=40),
                pool.submit(server.form, REVOKE, {"token": token, **client.form}, timeout=40),
            ]
            assert server.call(token).status == 200  # calls with tokens in memory go on, and so does looking
            assert server.introspect(client, token)["active"] is True
            answers = [each.result(50) for each in asked]
        other.execute("ROLLBACK")

    for answer in answers:
        assert is_oauth_error(answer, 503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["cache-control"] == "no-store"
    assert server.token(client)
    assert server.call(token).status == 200


def test_tokens_wait_for_a_database_that_is_busy_for_a_moment(server: OAuthServer):
    """Half a second of somebody else's writing is nobody's error."""
    client = server.make_client("waits", grants=GRANTS)
    with closing(
        sqlite3.connect(server.data / "lingpai.db", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.5, other.execute, ["ROLLBACK"])
        release.start()
        with ThreadPoolExecutor(20) as pool:
            tokens = list(pool.map(lambda _: server.token(client)["access_token"], range(20)))
        release.join()

    assert len(set(tokens)) == 20
    assert all(server.call(token).status == 200 for token in tokens)


def test_answered_token_opens_at_once(server: OAuthServer):
    """A token works with the first call after it was answered, every time, also while others are made."""
    client = server.make_client("at once", grants=GRANTS)
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            server.token(client)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(others) for _ in range(4)]
        try:
            statuses = [server.call(server.token(client)["access_token"]).status for _ in range(150)]
        finally:
            stop.set()
        for each in running:
            each.result(20)

    assert [status for status, _ in itertools.groupby(statuses)] == [200]
