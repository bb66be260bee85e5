"""The finder of leaked client secrets. A client whose present secret leaked is disabled; of two, an old one just ends."""

from sqlalchemy import Connection

from lingpai.identity.interfaces import LEAKED, OnChange
from lingpai.identity.key_secrets import Match, stored_secrets
from lingpai.identity.leaks import Leak
from lingpai.identity.oauth.client_store import NO_OLD_SECRET, SqlClientStore, client_of
from lingpai.identity.oauth.interfaces import Client
from lingpai.identity.oauth.schemas import ClientView
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.peppers import Peppers
from lingpai.ids import credential_id
from lingpai.storage.trail import Deed, Trail


class LeakedClientSecrets:
    """The finder of client secrets (`cs-lp-`)."""

    def __init__(self, peppers: Peppers, *, on_change: OnChange, trail: Trail) -> None:
        """`on_change` is told of each client that changed, and of each of its tokens that ended."""
        self._peppers = peppers
        self._on_change = on_change
        self._trail = trail
        self._store = SqlClientStore()
        self._tokens = SqlTokenStore()

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """See `lingpai.identity.leaks.Finder`."""
        return self._find(connection, token, now) is not None

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `lingpai.identity.leaks.Finder`. A client that is disabled already is marked, as keys are.

        The tokens that it got on its own behalf end: whoever had the secret may hold some, and they would work again as
        soon as it is enabled. Sign-ins stay, because nobody refreshes them without the new secret.
        """
        found = self._find(connection, token, now)
        if found is None:
            return None
        client, match = found
        if match == "old":
            self._store.update(connection, client.id, NO_OLD_SECRET)
            self._record(connection, client, "client.end_old_secret")
            return _leak(
                client,
                "It was the one before the last rotation; that has ended, and the present one works on.",
            )
        values = {"disabled_at": now, "disabled_because": LEAKED, **NO_OLD_SECRET}
        self._store.update(connection, client.id, values)
        gone = self._tokens.delete_own_of_client(connection, client.id)
        self._record(connection, client, "client.disable")
        return _leak(
            client,
            "The client is disabled. Give it a new secret, and ask an administrator to enable it.",
            tokens=tuple(gone),
        )

    def tell(self, leak: Leak, began: float) -> None:
        """See `lingpai.identity.leaks.Finder`."""
        self._on_change("client", leak.id, began)
        for each in leak.tokens:
            self._on_change("token", each, began)

    def _find(self, connection: Connection, token: bytes, now: float) -> tuple[Client, Match] | None:
        """The client of `token`, and which of its secrets that is; None when neither works, or it is reported already."""
        client_id = credential_id(token)
        row = None if client_id is None else self._store.row(connection, client_id)
        match = stored_secrets(row, self._peppers).match(token, self._peppers)
        if row is None or match is None:
            return None
        client = client_of(row)
        if match == "old":
            return (client, match) if now < (client.old_expires_at or 0.0) else None
        is_useless = client.needs_another_secret or now >= (client.expires_at or now + 1)
        return None if is_useless else (client, match)

    def _record(self, connection: Connection, client: Client, action: str) -> None:
        changed = self._store.row(connection, client.id)
        deed = Deed(
            action=action,
            target_kind="client",
            target_id=client.client_id,
            target_name=client.name,
            project_id=client.project_id,
            before=ClientView.of(client).model_dump(),
            after=None if changed is None else ClientView.of(client_of(changed)).model_dump(),
            reason=LEAKED,
        )
        self._trail.record(connection, None, deed)


def _leak(client: Client, done: str, *, tokens: tuple[str, ...] = ()) -> Leak:
    return Leak(
        kind="client_secret",
        id=client.client_id,
        what=f"The secret of client `{client.name}` of `{client.user_name}`",
        done=done,
        about=("client", client.client_id),
        tokens=tokens,
    )
