"""The authorization server without sockets: everything from the form to the database is real, and the test moves the clock."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from identity_fakes import DEFAULT_LIMITS, Clock, validate_limit
from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.responses import Response

from lingpai.identity.interfaces import User
from lingpai.identity.keyring import Keyring
from lingpai.identity.known_ids import KnownIds, LookUps
from lingpai.identity.oauth.client_authentication import ClientAuthenticator
from lingpai.identity.oauth.client_store import SqlClientIds, SqlClientReader
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.oauth.introspection import Introspection
from lingpai.identity.oauth.jwt_tokens import JwtTokens
from lingpai.identity.oauth.known_clients import KnownClients
from lingpai.identity.oauth.schemas import ClientCreate, ClientUpdate
from lingpai.identity.oauth.server import AuthorizationServer
from lingpai.identity.oauth.settings import OAuthSettings
from lingpai.identity.oauth.token_request import Parts
from lingpai.identity.oauth.token_store import SqlTokenIds, SqlTokenStore
from lingpai.identity.oauth.tokens import TokenMint
from lingpai.identity.peppers import Peppers
from lingpai.identity.schemas import UserCreate, UserUpdate
from lingpai.identity.service import Users
from lingpai.identity.store import SqlCredentialStore
from lingpai.identity.token_ids import TokenIds
from lingpai.principal import Principal
from lingpai.secrets.token_keys import TokenKeys
from lingpai.storage.database import Database
from lingpai.storage.group_commit import GroupCommit
from lingpai.storage.sealing import RootKeys, Sealer
from lingpai.storage.trail import Deed, NoTrail

HERE = "127.0.0.1"


@dataclass
class Program:
    """A client as its owner knows it."""

    id: str
    secret: str | None = field(repr=False)


@dataclass
class Answer:
    """What an endpoint answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Deeds(list[Deed]):
    """Fulfils `Trail`: keeps what is recorded."""

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        self.append(deed)

    def of(self, action: str) -> list[Deed]:
        return [deed for deed in self if deed.action == action]


class CountingReader(SqlClientReader):
    """Says how often it was asked."""

    asked = 0

    def client(self, id_: str) -> Any:
        self.asked += 1
        return super().client(id_)


class Stage:
    """The server, its database, and the ways to talk to both."""

    def __init__(
        self, database: Database, clock: Clock, *, peppers: Peppers | None = None, **settings: Any
    ) -> None:
        self.database = database
        self.clock = clock
        self.peppers = peppers or Peppers({1: b"p" * 32})
        self.settings = OAuthSettings(**settings)
        self.deeds = Deeds()
        self.passwords: dict[str, str] = {}
        self.monotonic = Clock()
        self.monotonic.now = 1000.0
        self._runner = asyncio.Runner()
        self._build()
        self.users.ensure_admin()
        self.admin = self.users.local_administrator()

    def _build(self) -> None:
        shared: dict[str, Any] = {"on_change": self._on_change, "validate_limit": validate_limit}
        self.client_ids, self.token_ids = KnownIds(), TokenIds()
        self.token_keys = TokenKeys(self.database, Sealer(RootKeys({1: b"r" * 32})), clock=self.clock)
        self.jwts = JwtTokens(
            self.token_keys,
            issuer=lambda: self.server.issuer(),  # noqa: PLW0108  built below, with these
            clock=self.clock,
        )
        self.keyring = Keyring(
            SqlCredentialStore(self.database), self.peppers, known_tokens=self.token_ids, jwts=self.jwts
        )
        self.users = Users(
            self.database, default_limits=DEFAULT_LIMITS, clock=self.clock, trail=NoTrail(), **shared
        )
        self.clients = Clients(
            self.database,
            peppers=self.peppers,
            default_limits=(),
            trail=self.deeds,
            clock=self.clock,
            **shared,
        )
        self.reader = CountingReader(self.database)
        self.known = KnownClients(
            self.reader, self.peppers, generation=lambda: self.keyring.changes, ids=self.client_ids
        )
        self.commit = GroupCommit(self.database)
        self.server = AuthorizationServer(
            authenticator=ClientAuthenticator(
                self.known, LookUps(), same_network=str, clock=self.clock, monotonic=self.monotonic
            ),
            parts=Parts(
                mint=TokenMint(self.peppers, self.settings),
                jwts=self.jwts,
                is_known_token=self.token_ids.is_known,
                database=self.database,
                commit=self.commit.run,
                trail=self.deeds,
                passwords=self,
                on_revoked=self._forget_tokens,
            ),
            database=self.database,
            known_tokens=self.token_ids,
            settings=self.settings,
            address="http://127.0.0.1:8741",
            clock=self.clock,
        )
        self.server._introspection = Introspection(self.database, monotonic=self.monotonic)
        self.client_ids.fill(SqlClientIds(self.database), pause=lambda _: None)
        self.token_ids.renew(SqlTokenIds(self.database))

    def restart(self) -> None:
        """Whatever is in memory is lost."""
        self.commit.close()
        self._build()

    def close(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "lingpai-key-ids":
                thread.join(10)
        self.commit.close()
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    # -- what the application does between the parts

    def _on_change(self, kind: str, id_: str, began: float) -> None:
        if kind == "client":
            self.client_ids.add(id_.removeprefix("cl-lp-"))
        getattr(self.keyring, f"forget_{kind}")(id_)

    def _forget_tokens(self, ids: Sequence[str]) -> None:
        for each in ids:
            self.keyring.forget_token(each)

    async def verify(self, name: str, password: str, *, address: str) -> User:
        """Fulfils `PasswordCheck`."""
        if self.passwords.get(name) != password:
            raise OAuthError("invalid_grant", "The user name or the password is wrong.")
        user = self.users.get(self.admin, name)
        if user.disabled_at is not None:
            raise OAuthError("invalid_grant", "The user name or the password is wrong.")
        return user

    # -- people and programs

    def person(self, name: str, **fields: Any) -> str:
        self.users.create(self.admin, UserCreate(name=name, **fields))
        self.passwords[name] = f"{name}s long password"
        return name

    def change_person(self, name: str, **fields: Any) -> None:
        self.users.update(self.admin, name, UserUpdate(**fields))

    def program(self, name: str, **fields: Any) -> Program:
        made = self.clients.create(self.admin, ClientCreate(name=name, **fields))
        return Program(made.client.client_id, made.secret)

    def change_program(self, program: Program, **fields: Any) -> None:
        self.clients.update(self.admin, program.id, ClientUpdate(**fields))

    # -- endpoints

    async def post(
        self,
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]],
        form: Mapping[str, str],
        *,
        program: Program | None = None,
        basic: tuple[str, str] | None = None,
        address: str = HERE,
        scheme: str = "http",
        headers: Sequence[tuple[bytes, bytes]] = ((b"host", b"127.0.0.1"),),
    ) -> Answer:
        if program is not None:
            form = {**form, "client_id": program.id}
            form |= {} if program.secret is None else {"client_secret": program.secret}
        headers = [
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"user-agent", b"tests"),
            *headers,
        ]
        if basic is not None:
            encoded = base64.b64encode(":".join(basic).encode())
            headers.append((b"authorization", b"Basic " + encoded))
        body = urlencode(form).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "scheme": scheme,
            "headers": headers,
            "query_string": b"",
            "client": (address, 1) if address else None,
            "state": {} if address else {"is_local": True},  # the administration socket
        }
        response = await endpoint(Request(scope, receive))
        return Answer(response.status_code, dict(response.headers), bytes(response.body))

    def token(self, grant_type: str, form: Mapping[str, str] | None = None, **options: Any) -> Answer:
        fields = {"grant_type": grant_type, **(form or {})}
        return self.run(self.post(self.server.token, fields, **options))

    def sign_in(self, name: str, program: Program | None = None, **form: str) -> Any:
        fields = {"username": name, "password": self.passwords[name], **form}
        answer = self.token("password", fields, program=program)
        assert answer.status == 200, answer.body
        return answer.json

    def refresh(self, refresh_token: str, program: Program | None = None, **form: str) -> Answer:
        return self.token("refresh_token", {"refresh_token": refresh_token, **form}, program=program)

    def revoke(self, token: str, program: Program | None = None) -> Answer:
        return self.run(self.post(self.server.revoke, {"token": token}, program=program))

    def introspect(self, token: str, program: Program) -> Answer:
        return self.run(self.post(self.server.introspect, {"token": token}, program=program))

    # -- what others see

    def principal(self, token: str) -> Principal | None:
        """Who calls with an access token, asked as the gateway asks; None for nobody, or nobody who may do anything."""
        raw = token.encode()
        found = self.keyring.find(raw)
        if found is None and not self.keyring.is_known_garbage(raw):
            found = self.keyring.load(raw)
            self.keyring.remember(raw, found)
        if found is None or found.disabled or self.clock() >= (found.expires_at or self.clock() + 1):
            return None
        return found

    def count(self, table: str, where: str = "1") -> int:
        with self.database.read() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {where}")).scalar_one())

    def delete_expired(self) -> int:
        """Until nothing is left to delete; how many transactions that took."""
        for transactions in range(1, 10_000):
            with self.database.write() as connection:
                if not SqlTokenStore().delete_expired(connection, now=self.clock()):
                    return transactions
        raise AssertionError("it never ends")
