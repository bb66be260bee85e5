"""Who can be limited, across domains: keys, clients, users and projects of identity, models of the catalog, users on models."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select, tuple_

from lingpai.catalog.service import Catalog
from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import ApiKey, Project, User
from lingpai.identity.member_store import projects_of
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.interfaces import CLIENT_ID_PREFIX, Client
from lingpai.identity.oauth.schemas import ClientUpdate
from lingpai.identity.oauth.tables import clients
from lingpai.identity.projects import Projects
from lingpai.identity.schemas import KeyUpdate, ProjectUpdate, UserUpdate
from lingpai.identity.service import Keys, Users
from lingpai.identity.tables import api_keys, projects, users
from lingpai.names import Names
from lingpai.principal import Principal
from lingpai.quotas.book import BookEntry, LimitBook, user_on
from lingpai.quotas.interfaces import Subject, SubjectKind
from lingpai.quotas.subjects import (
    EACH_USER,
    LISTED_KINDS,
    CallSubjects,
    KnownModel,
    LimitedSubject,
    Position,
    Wanted,
)
from lingpai.storage.database import Database


class ServedModels:
    """Fulfils quotas' `ModelDirectory` with the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def named(self, name: str) -> KnownModel | None:
        """The model with this id or alias."""
        model = self._catalog.find(name)
        if model is None:
            return None
        return KnownModel(model.id, "" if model.price is None else model.price.currency)

    def nearest(self, name: str, *, may_see: Callable[[str], bool]) -> str:
        """A sentence with the nearest of the ids that may be seen and a leading blank, or nothing."""
        seen = [model.id for model in self._catalog.models() if may_see(model.id)]
        return self._catalog.nearest(name, among=seen)


class Subjects:
    """Fulfils quotas' `SubjectDirectory` with identity's keys, clients, users and projects and the book's models. All methods block."""

    def __init__(
        self,
        database: Database,
        *,
        keys: Keys,
        clients: Clients,
        users: Users,
        projects: Projects,
        book: LimitBook,
        models: ServedModels,
    ) -> None:
        self._database = database
        self._names = Names(database)
        self._keys = keys
        self._clients = clients
        self._users = users
        self._projects = projects
        self._book = book
        self._models = models

    def find(self, caller: Principal, kind: SubjectKind, reference: str) -> LimitedSubject:
        """The one that `caller` sees. Raises LingpaiError `not_found`."""
        if kind == "key":
            return self._limited("key", self._keys.get(caller, reference))
        if kind == "client":
            return self._limited("client", self._clients.get(caller, reference))
        if kind == "user":
            return self._limited("user", self._users.get(caller, reference))
        if kind == "project":
            return self._limited("project", self._projects.get(caller, reference))
        if kind == "model":
            return self._of_entries([self._book.find(("model", self._model_id(caller, reference)))])[0]
        return self._user_on_model(caller, reference)

    def page(
        self, caller: Principal, wanted: Wanted, *, after: Position | None, most: int
    ) -> list[LimitedSubject]:
        """Up to `most` of those that `caller` sees and that have limits, in the order of `LISTED_KINDS`."""
        found: list[LimitedSubject] = []
        for kind in LISTED_KINDS if after is None else LISTED_KINDS[LISTED_KINDS.index(after.kind) :]:
            if wanted.kind not in {None, kind}:
                continue
            position = after if after is not None and after.kind == kind else None
            if kind in {"model", "user_model"}:
                found += self._page_of_book(caller, kind, wanted, position, most - len(found))
            else:
                found += self._page_of_rows(caller, kind, wanted, position, most - len(found))
            if len(found) >= most:
                break
        return found

    def of_own_call(self, caller: Principal) -> CallSubjects:
        """Everybody whose limits a call with the credential of `caller` counts against."""
        return CallSubjects(
            key=self._row("key", caller.key_id),
            client=self._row("client", caller.client_id),
            user=self._limited_row("user", caller.user_id),
            project=self._row("project", caller.project_id),
            may_call=caller.may_call,
        )

    def of_key(self, caller: Principal, key: str) -> CallSubjects:
        """Everybody whose limits a call with this key counts against. Raises LingpaiError `not_found`."""
        found = self._keys.get(caller, key)
        _check_sees_all_of(caller, found, "key")
        return self._of_credential(found, key=self._limited("key", found))

    def of_client(self, caller: Principal, client: str) -> CallSubjects:
        """Everybody whose limits a call of this client's own counts against. Raises LingpaiError `not_found`."""
        found = self._clients.get(caller, client)
        _check_sees_all_of(caller, found, "client")
        return self._of_credential(found, client=self._limited("client", found))

    def replace_limits(self, caller: Principal, subject: Subject, limits: tuple[str, ...]) -> None:
        """Store other limits of a key, client, user or project."""
        kind, id_ = subject
        written = list(limits) or ["none"]
        if kind == "key":
            self._keys.update(caller, id_, KeyUpdate(limits=written))
        elif kind == "client":
            self._clients.update(caller, id_, ClientUpdate(limits=written))
        elif kind == "user":
            self._users.update(caller, id_, UserUpdate(limits=written))
        else:
            self._projects.update(caller, id_, ProjectUpdate(limits=written))

    # -- keys, clients, users, projects

    def _of_credential(
        self,
        found: ApiKey | Client,
        *,
        key: LimitedSubject | None = None,
        client: LimitedSubject | None = None,
    ) -> CallSubjects:
        return CallSubjects(
            key=key,
            client=client,
            user=self._limited_row("user", found.user_id),
            # Whoever may see the credential may see what stops it, even if the project is somebody else's.
            project=self._row("project", found.project_id),
            may_call=Principal(found.user_id, found.user_name, "member", models=found.models).may_call,
        )

    def _limited(self, kind: SubjectKind, row: ApiKey | Client | User | Project | Row[Any]) -> LimitedSubject:
        limits = tuple(row.limits)
        is_default = kind != "project" and bool(limits) and limits == self._users.default_limits
        return LimitedSubject(
            kind=kind,
            id=CLIENT_ID_PREFIX + row.id if kind == "client" else row.id,
            name=row.name,
            limits=limits,
            source="default" if is_default else "set",
            created_at=row.created_at,
        )

    def _row(self, kind: SubjectKind, id_: str | None) -> LimitedSubject | None:
        return self._limited_row(kind, id_) if id_ else None

    def _limited_row(self, kind: SubjectKind, id_: str) -> LimitedSubject:
        with self._database.read() as connection:
            row = connection.execute(_rows_of(kind, id_)).one_or_none()
        if row is None:  # deleted since the caller was recognised
            raise LingpaiError("not_found", f"There is no {kind} `{id_}` any more.")
        return self._limited(kind, row)

    def _page_of_rows(
        self, caller: Principal, kind: SubjectKind, wanted: Wanted, after: Position | None, most: int
    ) -> list[LimitedSubject]:
        id_ = getattr(wanted, kind)
        if id_ is None and not wanted.is_everything:
            return []
        table = _TABLES[kind]
        query = _rows_of(kind, id_).where(func.json_array_length(table.c.limits) > 0)
        if not caller.is_admin:
            query = query.where(_is_seen_by(caller.user_id, kind))
        if wanted.search is not None:
            query = query.where(table.c.name.icontains(wanted.search, autoescape=True))
        if after is not None:
            query = query.where(
                tuple_(table.c.created_at, table.c.id) > (after.created_at, _stored(after.id))
            )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(table.c.created_at, table.c.id).limit(most))
            return [self._limited(kind, row) for row in rows]

    # -- models

    def _model_id(self, caller: Principal, reference: str) -> str:
        """An administrator may set limits for a model that is still to come; for others it does not exist."""
        known = self._models.named(reference)
        if known is not None and caller.may_call(known.id):
            return known.id
        if not caller.is_admin:
            near = self._models.nearest(reference, may_see=caller.may_call)
            raise LingpaiError("not_found", f"There is no model `{reference}`.{near}", param="model")
        return reference if known is None else known.id

    def _user_on_model(self, caller: Principal, reference: str) -> LimitedSubject:
        user, _, model = reference.partition(" ")
        model_id = self._model_id(caller, model)
        if user == EACH_USER:
            return self._of_entries([self._book.find(user_on(EACH_USER, model_id))])[0]
        return self._of_entries([self._book.for_user(self._users.get(caller, user).id, model_id)])[0]

    def _page_of_book(
        self, caller: Principal, kind: SubjectKind, wanted: Wanted, after: Position | None, most: int
    ) -> list[LimitedSubject]:
        entries = self._book.entries("model" if kind == "model" else "user_model")
        chosen = (entry for entry in entries if after is None or entry.subject[1] > after.id)
        shown = (entry for entry in chosen if _is_wanted(entry, wanted) and _may_see(caller, entry))
        if wanted.search is None:
            return self._of_entries(list(islice(shown, most)))
        text = wanted.search.casefold()
        return [each for each in self._of_entries(list(shown)) if text in each.name.casefold()][:most]

    def _of_entries(self, entries: Sequence[BookEntry]) -> list[LimitedSubject]:
        users_on_models = [entry for entry in entries if entry.subject[0] == "user_model"]
        names = self._names.user_names({_user_and_model(entry)[0] for entry in users_on_models} - {EACH_USER})
        return [_limited_by_book(entry, names, self._is_served) for entry in entries]

    def _is_served(self, model_id: str) -> bool:
        known = self._models.named(model_id)
        return known is not None and known.id == model_id


_TABLES: dict[str, Any] = {"key": api_keys, "client": clients, "user": users, "project": projects}


def _is_seen_by(user_id: str, kind: SubjectKind) -> ColumnElement[bool]:
    """Themselves, the projects they have a role in, their own keys and clients and those of these projects."""
    if kind == "user":
        return users.c.id == user_id
    if kind == "project":
        return projects.c.id.in_(projects_of(user_id))
    columns = _TABLES[kind].c
    is_seen: ColumnElement[bool] = (columns.user_id == user_id) | columns.project_id.in_(projects_of(user_id))
    return is_seen


def _check_sees_all_of(caller: Principal, found: ApiKey | Client, noun: str) -> None:
    """Its owner's own limits would show what they use in projects that are none of the caller's business."""
    if not caller.is_admin and found.user_id != caller.user_id:
        raise LingpaiError(
            "insufficient_scope",
            f"`{found.name}` is a {noun} of `{found.user_name}`: only they and administrators see all that holds it back.",
            noun,
        )


def _rows_of(kind: SubjectKind, id_: str | None) -> Select[Any]:
    table = _TABLES[kind]
    query = select(table.c.id, table.c.name, table.c.limits, table.c.created_at).where(
        table.c.deleted_at.is_(None)
    )
    return query if id_ is None else query.where(table.c.id == _stored(id_))


def _stored(id_: str) -> str:
    """An id as the tables have it: that of a client is kept without its prefix, which no other id begins with."""
    return id_.removeprefix(CLIENT_ID_PREFIX)


def _user_and_model(entry: BookEntry) -> tuple[str, str]:
    user_id, _, model_id = entry.subject[1].partition(" ")
    return user_id, model_id


def _is_wanted(entry: BookEntry, wanted: Wanted) -> bool:
    if wanted.is_everything:
        return True
    if entry.subject[0] == "model":
        return entry.subject[1] == wanted.model
    user_id, model_id = _user_and_model(entry)
    if wanted.model is None:
        return user_id == wanted.user
    return model_id == wanted.model and (wanted.user is None or user_id in {wanted.user, EACH_USER})


def _may_see(caller: Principal, entry: BookEntry) -> bool:
    if caller.is_admin:
        return True
    if entry.subject[0] == "model":
        return caller.may_call(entry.subject[1])
    user_id, model_id = _user_and_model(entry)
    return user_id in {caller.user_id, EACH_USER} and caller.may_call(model_id)


def _limited_by_book(
    entry: BookEntry, names: Mapping[str, str], is_served: Callable[[str], bool]
) -> LimitedSubject:
    """Its name says so where no model has the id: an alias may have been meant, for which limits never hold."""
    kind, name = entry.subject
    model_id = name
    if kind == "user_model":
        user_id, model_id = _user_and_model(entry)
        name = f"{'each user' if user_id == EACH_USER else names.get(user_id, user_id)} on {model_id}"
    if not is_served(model_id):
        name += " (no model has this id now)"
    return LimitedSubject(
        kind=kind,
        id=entry.subject[1],
        name=name,
        limits=entry.limits,
        source=entry.source,
        is_for_each_user=entry.is_for_each_user,
    )
