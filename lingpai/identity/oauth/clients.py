"""The rules of OAuth clients. Who may see, make and change which one follows from roles in projects, as with keys (`roles`)."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lingpai.errors import LingpaiError
from lingpai.identity import restrictions
from lingpai.identity.credential_service import CredentialService
from lingpai.identity.finding import find_client, find_person, find_project, find_user, standing_to
from lingpai.identity.interfaces import KeyState, Use
from lingpai.identity.key_secrets import secret_columns
from lingpai.identity.key_states import KeyFilter
from lingpai.identity.oauth.client_store import SqlClientStore
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX, GRANTS, Client, CreatedClient, Grant
from lingpai.identity.oauth.schemas import (
    ClientCreate,
    ClientUpdate,
    ClientView,
    SecretRotation,
)
from lingpai.identity.oauth.token_store import SqlTokenStore
from lingpai.identity.rights import (
    already_exists,
    check_may_change,
    check_may_enable,
    check_may_rotate,
    check_may_with_key,
    visible_user,
)
from lingpai.identity.roles import KeyAction
from lingpai.identity.rotation import overlap_s
from lingpai.identity.signing.store import SqlSigningKeyStore
from lingpai.identity.store import Position
from lingpai.ids import mint_credential
from lingpai.principal import Principal
from lingpai.storage.trail import Deed, changed

DEFAULT_GRANTS: Final[tuple[Grant, ...]] = ("client_credentials",)
NOUN: Final = "client"


class Clients(CredentialService):
    """Clients, made and changed by whoever may. All methods block.

    Errors are LingpaiError: ``not_found``, ``already_exists``, ``invalid_request``, ``insufficient_scope``,
    ``model_not_allowed``.
    """

    noun = NOUN
    _store = SqlClientStore()
    _tokens = SqlTokenStore()

    def create(self, caller: Principal, body: ClientCreate) -> CreatedClient:
        """Make a client for the caller or, by an administrator, for anybody. Its secret is in the answer and nowhere else.

        It belongs to a project in which its owner has a role that makes keys; those of administrators to any.
        """
        name = restrictions.checked_name(body.name)
        grants = _checked_grants(body.grants if body.grants is not None else DEFAULT_GRANTS, body.public)
        _check_may_grant(caller, grants)
        self._minting.begin(caller)
        minted = mint_credential("cs-lp-")
        began = time.monotonic()
        with self._database.write() as connection:
            owner = find_user(
                connection, body.user or caller.user_id, only=visible_user(caller), param="user"
            )
            project = self._rules.project_of_new(connection, caller, owner, body.project, trail=self._trail)
            row = {
                "id": minted.id,
                "name": name,
                "user_id": owner.id,
                "project_id": project.id,
                "grants": grants,
                "token_lifetime_s": body.token_lifetime_s,
                **({} if body.public else secret_columns(minted, self._peppers)),
                **self._rules.of_new(caller, body, owner=owner, project=project),
            }
            try:
                self._store.insert(connection, row)
            except IntegrityError as exc:
                raise already_exists(NOUN, name) from exc
            client = find_client(connection, CLIENT_ID_PREFIX + minted.id)
            self._note(connection, caller, "client.create", None, client)
        self._on_change("client", client.client_id, began)
        return CreatedClient(client, None if body.public else minted.token)

    def list(
        self,
        caller: Principal,
        *,
        user: str | None = None,
        name: str | None = None,
        search: str | None = None,
        project: str | None = None,
        scope: str | None = None,
        state: KeyState | None = None,
        after: Position | None = None,
        limit: int = 50,
    ) -> list[Client]:
        """Up to `limit` of the clients that `caller` sees, oldest first; only those that fit everything given."""
        restrictions.check_scope_filter(scope)
        with self._database.read() as connection:
            wanted = KeyFilter(
                name=name,
                search=search,
                user_id=user and find_person(connection, user, caller=caller, param="user").id,
                project_id=project and find_project(connection, project, caller=caller, param="project").id,
                scope=scope,
                state=state,
                now=self.clock(),
            )
            return self._store.page(connection, wanted, caller=caller, after=after, limit=limit)

    def get(self, caller: Principal, reference: str) -> Client:
        """The client with this id, or with this name: the caller's own, or the only one that they see."""
        with self._database.read() as connection:
            return find_client(connection, reference, caller=caller)

    def update(self, caller: Principal, reference: str, body: ClientUpdate) -> Client:
        """Change a client, and with it all of its tokens, from the next call on."""
        began = time.monotonic()
        with self._database.write() as connection:
            client = find_client(connection, reference, caller=caller)
            values = self._changes(connection, caller, client, body)
            try:
                if values:
                    self._store.update(connection, client.id, values)
            except IntegrityError as exc:
                raise already_exists(NOUN, body.name or "") from exc
            updated = find_client(connection, client.client_id)
            self._trail.record(connection, caller, _change(client, updated))
        self._on_change("client", client.client_id, began)
        return updated

    def rotate(self, caller: Principal, reference: str, body: SecretRotation) -> CreatedClient:
        """Give a client another secret; the present one works until the overlap is over, one before it ends now."""
        self._minting.begin(caller)
        began = time.monotonic()
        with self._database.write() as connection:
            client = find_client(connection, reference, caller=caller)
            check_may_rotate(caller, standing_to(connection, caller, client), client)
            if client.is_public:
                raise LingpaiError(
                    "invalid_request", "A public client has no secret, so there is none to rotate."
                )
            secret = mint_credential("cs-lp-", public_id=client.id)
            columns, seconds = secret_columns(secret, self._peppers), overlap_s(client, body.overlap)
            self._store.rotate(connection, client.id, columns, now=self.clock(), overlap_s=seconds)
            changed = find_client(connection, client.client_id)
            self._note(connection, caller, "client.rotate", client, changed)
        self._on_change("client", client.client_id, began)
        return CreatedClient(changed, secret.token)

    def delete(self, caller: Principal, reference: str) -> None:
        """Delete a client and all of its tokens for good; its name stays for the sake of usage reports."""
        began = time.monotonic()
        with self._database.write() as connection:
            client = find_client(connection, reference, caller=caller)
            check_may_with_key(caller, standing_to(connection, caller, client), KeyAction.SWITCH_OFF, client)
            wiped = {"secret_hmac": None, "old_secret_hmac": None, "old_expires_at": None}
            self._store.update(connection, client.id, {"deleted_at": self.clock(), **wiped})
            SqlSigningKeyStore().delete_of_deleted(connection)
            self._tokens.delete_of_client(connection, client.id, now=self.clock())
            self._note(connection, caller, "client.delete", client, None)
        self._on_change("client", client.client_id, began)

    def touch(self, uses: Sequence[Use]) -> None:
        """Note when and from where tokens of clients were last used."""
        if uses:
            with self._database.write(durable=False) as connection:
                self._store.touch(connection, uses)

    def _changes(
        self, connection: Connection, caller: Principal, client: Client, body: ClientUpdate
    ) -> dict[str, Any]:
        standing = standing_to(connection, caller, client)
        if body.disabled is False:
            check_may_enable(caller, standing, client)
        owner = find_user(connection, client.user_id, only=None)
        values = self._rules.changes(caller, client, body, owner=owner)
        if body.name is not None:
            values["name"] = restrictions.checked_name(body.name)
        if body.grants is not None:
            values["grants"] = _checked_grants(body.grants, client.is_public)
            _check_may_grant(caller, set(values["grants"]) - set(client.grants))
        if "token_lifetime_s" in body.model_fields_set:
            values["token_lifetime_s"] = body.token_lifetime_s
        if body.disabled is False:
            values["disabled_because"] = None
        check_may_change(caller, standing, client, replace(client, **values))
        return values

    def _note(
        self,
        connection: Connection,
        caller: Principal,
        action: str,
        before: Client | None,
        after: Client | None,
    ) -> None:
        client = after or before
        assert client is not None  # noqa: S101  something was done to one
        self._trail.record(
            connection,
            caller,
            Deed(
                action=action,
                target_kind=NOUN,
                target_id=client.client_id,
                target_name=client.name,
                project_id=client.project_id,
                before=None if before is None else ClientView.of(before).model_dump(),
                after=None if after is None else ClientView.of(after).model_dump(),
            ),
        )


def _change(before: Client, after: Client) -> Deed:
    """A client was changed, disabled or enabled."""
    views = ClientView.of(before).model_dump(), ClientView.of(after).model_dump()
    return changed(NOUN, after.client_id, *views, name=after.name, project_id=after.project_id)


def _check_may_grant(caller: Principal, grants: Collection[Grant]) -> None:
    # RFC 9700 section 2.4 forbids it, and `oauth.password_grant` does not bind registered clients.
    if "password" in grants and not caller.is_admin:
        raise LingpaiError(
            "insufficient_scope",
            "Only administrators may let a client use `password`. Choose `client_credentials`, or ask one.",
            "grants",
        )


def _checked_grants(grants: Sequence[Grant], is_public: bool) -> tuple[Grant, ...]:
    if not grants:
        raise LingpaiError(
            "invalid_request",
            f"A client needs at least one grant. Grants are: {', '.join(GRANTS)}.",
            "grants",
        )
    if is_public and "client_credentials" in grants:  # RFC 6749 section 4.4
        raise LingpaiError(
            "invalid_request",
            "A public client has no secret, so it cannot get tokens by `client_credentials`. Choose `password` and "
            "`refresh_token`, or make a client with a secret.",
            "grants",
        )
    return tuple(sorted(set(grants)))
