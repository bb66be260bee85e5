"""``/api/v1/clients``. Wherever an id stands, a name that only one visible client has will do."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from lingpai.identity.list_filters import NameFilter, ScopeFilter, Search, StateFilter
from lingpai.identity.oauth.clients import Clients
from lingpai.identity.oauth.schemas import (
    ClientCreate,
    ClientUpdate,
    ClientView,
    CreatedClientView,
    SecretRotation,
)
from lingpai.identity.references import ClientReference
from lingpai.identity.scopes import Scope
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import (
    DEFAULT_LIMIT,
    CursorParameter,
    LimitParameter,
    Page,
    page_of,
    place_of,
    when_made,
)

UserFilter = Annotated[
    str | None, Query(max_length=64, description="Only the clients of this user (name or id).")
]
ProjectFilter = Annotated[
    str | None, Query(max_length=64, description="Only the clients of this project (name or id).")
]


def client_routes(clients: Clients) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/v1/clients", tags=["clients"], responses=ERROR_RESPONSES)

    @router.post("", status_code=201)
    def create_client(
        body: ClientCreate, response: Response, caller: Annotated[Principal, require(Scope.CLIENTS_WRITE)]
    ) -> CreatedClientView:
        """Make a client. This answer is the only place where its secret appears."""
        response.headers["cache-control"] = "no-store"
        return CreatedClientView.of_created(clients.create(caller, body))

    @router.get("")
    def list_clients(
        *,
        caller: Annotated[Principal, require(Scope.CLIENTS_READ)],
        user: UserFilter = None,
        name: NameFilter = None,
        search: Search = None,
        project: ProjectFilter = None,
        scope: ScopeFilter = None,
        state: StateFilter = None,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[ClientView]:
        """List clients, oldest first: all for an administrator, for everybody else their own and those of their projects."""
        found = clients.list(
            caller,
            user=user,
            name=name,
            search=search,
            project=project,
            scope=scope,
            state=state,
            after=place_of(cursor),
            limit=limit + 1,
        )
        return page_of(found, limit, view=ClientView.of, place=when_made)

    @router.get("/{id}")
    def get_client(
        id: ClientReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.CLIENTS_READ)],
    ) -> ClientView:
        """Show one client."""
        return ClientView.of(clients.get(caller, id))

    @router.patch("/{id}")
    def update_client(
        id: ClientReference,  # noqa: A002  the name on the wire
        body: ClientUpdate,
        caller: Annotated[Principal, require(Scope.CLIENTS_WRITE)],
    ) -> ClientView:
        """Change a client. Its tokens obey the change from the next call on."""
        return ClientView.of(clients.update(caller, id, body))

    @router.post("/{id}/rotate")
    def rotate_client(
        id: ClientReference,  # noqa: A002  the name on the wire
        body: SecretRotation,
        response: Response,
        caller: Annotated[Principal, require(Scope.CLIENTS_WRITE)],
    ) -> CreatedClientView:
        """Replace the secret. The present one goes on working for the overlap; tokens stay."""
        response.headers["cache-control"] = "no-store"
        return CreatedClientView.of_created(clients.rotate(caller, id, body))

    @router.delete("/{id}", status_code=204)
    def delete_client(
        id: ClientReference,  # noqa: A002  the name on the wire
        caller: Annotated[Principal, require(Scope.CLIENTS_WRITE)],
    ) -> None:
        """Delete a client and its tokens for good. Usage reports go on showing its name."""
        clients.delete(caller, id)

    return router
