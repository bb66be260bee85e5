"""Tokens that are out: people see which programs have signed in for them or get tokens of their clients, and end them."""

import time
from collections.abc import Callable
from typing import Final

from lingpai.errors import LingpaiError
from lingpai.identity.finding import find_user
from lingpai.identity.interfaces import OnChange
from lingpai.identity.oauth.interfaces import LiveToken, LiveTokenKind
from lingpai.identity.oauth.live_token_store import Place, SqlLiveTokenStore, Wanted
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.rights import visible_user
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

_TARGETS: Final[dict[LiveTokenKind, str]] = {"family": "family", "access_token": "token"}


class LiveTokens:
    """Administrators see and end everybody's, others their own. All methods block.

    Errors are LingpaiError: ``not_found`` for what is not there, has ended, or is somebody else's.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is told, after the commit, of each access token that has ended (kind `token`)."""
        self._database = database
        self._on_change = on_change
        self._trail = trail
        self._clock = clock
        self._store = SqlLiveTokenStore()
        self._tokens = SqlTokenStore()

    def list(
        self,
        caller: Principal,
        *,
        user: str | None = None,
        client: str | None = None,
        kind: LiveTokenKind | None = None,
        after: Place | None = None,
        limit: int = 50,
    ) -> list[LiveToken]:
        """Up to `limit` of what `caller` sees, of one user, client (names or ids) or kind if given.

        Families first, then access tokens that clients got without a sign-in that can be refreshed.
        """
        own = visible_user(caller)
        with self._database.read() as connection:
            user_id = own if user is None else find_user(connection, user, only=own, param="user").id
            client_ids = None
            if client is not None:
                client_ids = self._store.clients_called(connection, client, user_id=own)
                if not client_ids:
                    raise LingpaiError("not_found", f"There is no client `{client}`.", "client")
            wanted = Wanted(user_id=user_id, client_ids=client_ids, kind=kind)
            return self._store.page(connection, wanted, after=after, now=self._clock(), limit=limit)

    def revoke(self, caller: Principal, id_: str) -> None:
        """End a family with all of its tokens, or one access token. The next call with any of them is refused."""
        began = time.monotonic()
        now = self._clock()
        with self._database.write() as connection:
            token = self._store.find(connection, id_, user_id=visible_user(caller), now=now)
            if token is None:
                raise LingpaiError(
                    "not_found",
                    f"There is no token `{id_}`, or it has ended. `GET /api/v1/tokens` lists those that are out.",
                )
            if token.kind == "family":
                gone = self._tokens.revoke_family(connection, token.id, now=now, because="ended by its owner")
            else:
                gone = self._tokens.delete_access_token(connection, token.id)
            self._trail.record(
                connection,
                caller,
                Deed(
                    action="token.revoke",
                    target_kind=_TARGETS[token.kind],
                    target_id=token.id,
                    target_name=token.user_name,
                    before={"client_id": token.client_id, "scopes": list(token.scopes)},
                ),
            )
        for each in gone:
            self._on_change("token", each, began)
