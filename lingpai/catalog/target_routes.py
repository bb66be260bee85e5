"""``/api/v1/targets``: what was added at run time, and the providers' keys for it."""

from collections.abc import Awaitable, Sequence
from typing import Annotated, Protocol

from fastapi import APIRouter

from lingpai.catalog.interfaces import KeptTarget
from lingpai.catalog.routes import plain_key, require_admin
from lingpai.catalog.schemas import KeptTargets, KeptTargetView, TargetKey
from lingpai.principal import Principal
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES


class TargetKeys(Protocol):
    """The kept targets and their keys (app.py passes it in)."""

    def kept(self) -> Awaitable[Sequence[tuple[KeptTarget, Sequence[str] | None]]]:
        """Every kept target, and the ids of its models; None instead of them while it is not served."""

    def put_key(self, caller: Principal, target: str, api_key: str | None) -> Awaitable[None]:
        """Use this key, or none, for the calls of a kept target from now on.

        Raises LingpaiError: `not_found`, or `invalid_request` when the provider refuses the key.
        """


def target_routes(targets: TargetKeys) -> APIRouter:
    """What operators do with targets."""
    router = APIRouter(prefix="/api/v1/targets", tags=["models"], responses=ERROR_RESPONSES)

    @router.get("")
    async def list_targets(caller: Annotated[Principal, require("models:read")]) -> KeptTargets:
        """List the targets that were added at run time, served or not, with the ends of their keys."""
        require_admin(caller)
        return KeptTargets(data=[KeptTargetView.of(kept, models) for kept, models in await targets.kept()])

    @router.put("/key", status_code=204)
    async def put_key(body: TargetKey, caller: Annotated[Principal, require("models:write")]) -> None:
        """Replace the provider's key for a target, or remove it; calls from now on use the new one."""
        require_admin(caller)
        await targets.put_key(caller, body.target, plain_key(body.api_key))

    return router
