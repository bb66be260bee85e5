"""``/api/v1/limits``: who is limited, how far, and by what from now on; and what applies to a call.

The handlers are coroutines because meters belong to the event loop; what blocks goes to a thread.
"""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.quotas.explain import Explanation
from lingpai.quotas.schemas import ChangedLimits, LimitPage, NewLimits
from lingpai.quotas.service import Limits, is_about_itself
from lingpai.web.auth import ANY, insufficient_scope, require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.paging import DEFAULT_LIMIT, MAX_LIMIT, CursorParameter

READ: Final = "limits:read"

SubjectsParameter = Annotated[
    int, Query(ge=1, le=MAX_LIMIT, description="The most subjects to return, each with all of its limits.")
]
KeyFilter = Annotated[str | None, Query(max_length=200, description="This key's, by id or name.")]
ClientFilter = Annotated[str | None, Query(max_length=200, description="This OAuth client's, by id or name.")]
UserFilter = Annotated[
    str | None,
    Query(max_length=200, description="This user's, by id or name, those on single models included."),
]
ProjectFilter = Annotated[str | None, Query(max_length=200, description="This project's, by id or name.")]
ModelFilter = Annotated[
    str | None,
    Query(max_length=200, description="This model's, those of users on it (of `user`, if given) included."),
]
SubjectFilter = Annotated[
    Literal["key", "user", "project", "model", "user_model"] | None,
    Query(description="Only the limits of such subjects."),
]
Search = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=64,
        description="Only those of subjects with this text in their name, in either case. No character has a special meaning.",
    ),
]


def limit_routes(limits: Limits) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/v1/limits", tags=["limits"], responses=ERROR_RESPONSES)

    @router.get("")
    async def list_limits(
        *,
        caller: Annotated[Principal, require(READ)],
        key: KeyFilter = None,
        client: ClientFilter = None,
        user: UserFilter = None,
        project: ProjectFilter = None,
        model: ModelFilter = None,
        subject: SubjectFilter = None,
        search: Search = None,
        limit: SubjectsParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> LimitPage:
        """Every limit that the caller may see, with what is used and left and when it resets."""
        wanted = await limits.wanted(
            caller,
            key=key,
            client=client,
            user=user,
            project=project,
            model=model,
            kind=subject,
            search=search,
        )
        return await limits.page(caller, wanted, limit=limit, cursor=cursor)

    @router.put("")
    async def replace_limits(
        body: NewLimits, caller: Annotated[Principal, require("limits:write")]
    ) -> ChangedLimits:
        """Replaces the limits of one subject, from the next call on; what is used in a window that stays, stays used."""
        _check_may_write(caller)
        return await limits.replace(caller, body)

    @router.get("/explain")
    async def explain_limits(
        caller: Annotated[Principal, require(ANY)],
        key: Annotated[
            str | None,
            Query(max_length=200, description="Id or name; the credential that asks, when left out."),
        ] = None,
        client: Annotated[
            str | None, Query(max_length=200, description="Instead of a key: an OAuth client, by id or name.")
        ] = None,
        model: Annotated[str | None, Query(max_length=200, description="Id or alias.")] = None,
    ) -> Explanation:
        """What applies to a call: every limit, where it comes from, what is left, and which is tightest.

        Every key and every access token may ask about itself; about others only with the scope `limits:read`.
        """
        _check_may_ask(caller, key, client)
        return await limits.explain(caller, key=key, client=client, model=model)

    return router


def _check_may_ask(caller: Principal, key: str | None, client: str | None) -> None:
    """Raise LingpaiError unless the caller may ask about this key or client. Nobody needs a scope to ask about themselves."""
    if key is not None and client is not None:
        raise LingpaiError("invalid_request", "A call has a key or a client. Name one of both.", "client")
    if is_about_itself(caller, key, client):
        return
    if READ not in caller.scopes:
        raise insufficient_scope(READ, caller)
    if key is None and client is None:
        raise LingpaiError(
            "invalid_request",
            "Name the key that the call would be made with, or a client. `GET /api/v1/keys` lists the keys.",
            "key",
        )


def _check_may_write(caller: Principal) -> None:
    # A member who could change limits could lift the operator's.
    if not caller.is_admin:
        raise LingpaiError("insufficient_scope", "Only an administrator may change limits. Ask one to do it.")
