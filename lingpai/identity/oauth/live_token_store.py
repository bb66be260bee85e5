"""The SQL of tokens that are out. Every function works in the caller's transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal_column, or_, select, tuple_

from lingpai.identity.member_store import projects_of
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX, LiveToken, LiveTokenKind
from lingpai.identity.oauth.tables import access_tokens, clients, refresh_tokens, token_families
from lingpai.identity.scopes import effective_scopes
from lingpai.identity.tables import users

LIVE_KINDS: Final[tuple[LiveTokenKind, ...]] = ("family", "access_token")
"""The order of lists."""


class Place(NamedTuple):
    """Where a page ended: the last item's kind, the end of its row's life (unix seconds) and its id."""

    kind: LiveTokenKind
    ends_at: float
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tokens: those of one user, of some clients (their ids without the prefix), of one kind; None: of all."""

    user_id: str | None = None
    client_ids: tuple[str, ...] | None = None
    kind: LiveTokenKind | None = None


_WHOSE: Final = (
    users.c.name.label("user_name"),
    users.c.role,
    clients.c.name.label("client_name"),
    clients.c.scopes.label("client_scopes"),
)
# A family that can be refreshed has one refresh token that was not used yet; it was made at the last refresh.
_LAST_ACCESS: Final = (
    select(func.max(access_tokens.c.expires_at))
    .where(access_tokens.c.family_id == token_families.c.id)
    .scalar_subquery()
)
_FAMILIES: Final = (
    select(
        token_families,
        refresh_tokens.c.created_at.label("refreshed_at"),
        refresh_tokens.c.expires_at.label("refresh_expires_at"),
        _LAST_ACCESS.label("access_expires_at"),
        *_WHOSE,
    )
    .join_from(token_families, users, users.c.id == token_families.c.user_id)
    .outerjoin(clients, clients.c.id == token_families.c.client_id)
    .outerjoin(
        refresh_tokens,
        and_(refresh_tokens.c.family_id == token_families.c.id, refresh_tokens.c.used_at.is_(None)),
    )
    .where(token_families.c.revoked_at.is_(None))
)
_ACCESS_TOKENS: Final = (
    select(access_tokens, *_WHOSE)
    .join_from(access_tokens, users, users.c.id == access_tokens.c.user_id)
    .outerjoin(clients, clients.c.id == access_tokens.c.client_id)
)
# Spelled so that SQLite does not take the index of families, in which all of these are one heap without an order.
_IS_ALONE: Final = func.coalesce(access_tokens.c.family_id, "") == literal_column("''")


class SqlLiveTokenStore:
    """Families and access tokens that have not ended. `user_id` restricts what is seen to one user's; None sees all."""

    def page(
        self, connection: Connection, wanted: Wanted, *, after: Place | None, now: float, limit: int
    ) -> list[LiveToken]:
        """Up to `limit`: families first, then access tokens that belong to none; of each, those that live longest first."""
        found: list[LiveToken] = []
        for kind in LIVE_KINDS if after is None else LIVE_KINDS[LIVE_KINDS.index(after.kind) :]:
            if wanted.kind not in {None, kind}:
                continue
            place = after if after is not None and after.kind == kind else None
            query = _page(kind, wanted, place, now).limit(limit - len(found))
            found += [_READ[kind](row) for row in connection.execute(query)]
            if len(found) >= limit:
                break
        return found

    def find(self, connection: Connection, id_: str, *, user_id: str | None, now: float) -> LiveToken | None:
        """The family or access token with this id, also an access token that belongs to a family."""
        for kind, query in (("family", _FAMILIES), ("access_token", _ACCESS_TOKENS)):
            table = _TABLES[kind]
            conditions = [table.c.id == id_, _is_live(kind, now)]
            if user_id is not None:
                conditions.append(table.c.user_id == user_id)
            row = connection.execute(query.where(*conditions)).first()
            if row is not None:
                return _READ[kind](row)
        return None

    def clients_called(
        self, connection: Connection, reference: str, *, user_id: str | None
    ) -> tuple[str, ...]:
        """The ids, without prefix, of the client with this id or of all of that name.

        With `user_id` only those that belong to the user or to the user's projects, or have signed the user in.
        """
        columns = clients.c
        id_ = reference.removeprefix(CLIENT_ID_PREFIX) if reference.startswith(CLIENT_ID_PREFIX) else None
        query = select(columns.id).where(
            or_(columns.id == id_, columns.name == reference), columns.deleted_at.is_(None)
        )
        if user_id is not None:
            used = select(token_families.c.client_id).where(token_families.c.user_id == user_id)
            in_projects = columns.project_id.in_(projects_of(user_id))
            query = query.where(or_(columns.user_id == user_id, in_projects, columns.id.in_(used)))
        return tuple(connection.scalars(query))


def _page(kind: LiveTokenKind, wanted: Wanted, after: Place | None, now: float) -> Select[Any]:
    columns = _TABLES[kind].c
    query = _FAMILIES if kind == "family" else _ACCESS_TOKENS.where(_IS_ALONE)
    query = query.where(_is_live(kind, now))
    if wanted.user_id is not None:
        query = query.where(columns.user_id == wanted.user_id)
    if wanted.client_ids is not None:
        query = query.where(columns.client_id.in_(wanted.client_ids))
    if after is not None:
        query = query.where(tuple_(columns.expires_at, columns.id) < (after.ends_at, after.id))
    return query.order_by(columns.expires_at.desc(), columns.id.desc())


def _is_live(kind: str, now: float) -> ColumnElement[bool]:
    if kind == "access_token":
        return access_tokens.c.expires_at > now
    can_go_on = or_(refresh_tokens.c.expires_at > now, now < _LAST_ACCESS)
    return and_(token_families.c.expires_at > now, can_go_on)


def _family(row: Row[Any]) -> LiveToken:
    return LiveToken(
        kind="family",
        refreshed_at=row.refreshed_at if (row.refreshed_at or 0.0) > row.created_at else None,
        expires_at=max(row.refresh_expires_at or 0.0, row.access_expires_at or 0.0),
        address=row.address,
        user_agent=row.user_agent,
        **_shared(row),
    )


def _access_token(row: Row[Any]) -> LiveToken:
    return LiveToken(kind="access_token", expires_at=row.expires_at, **_shared(row))


def _shared(row: Row[Any]) -> dict[str, Any]:
    scopes = frozenset(row.scopes)
    if row.client_id is not None:
        scopes &= frozenset(row.client_scopes)
    return {
        "id": row.id,
        "client_id": None if row.client_id is None else CLIENT_ID_PREFIX + row.client_id,
        "client_name": row.client_name,
        "user_id": row.user_id,
        "user_name": row.user_name,
        "scopes": tuple(sorted(effective_scopes(scopes, row.role))),
        "created_at": row.created_at,
        "ends_at": row.expires_at,
    }


_TABLES: Final[dict[str, Any]] = {"family": token_families, "access_token": access_tokens}
_READ: Final[dict[str, Callable[[Row[Any]], LiveToken]]] = {"family": _family, "access_token": _access_token}
