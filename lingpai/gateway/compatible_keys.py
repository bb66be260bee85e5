"""A key's own limits in the shapes of OpenRouter and New API, for the programs that ask there (wire.md W16).

Both know one amount without a window. What they get is the limit with the least left, counted in requests.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES

Describe = Callable[[tuple[Any, ...], float], Any]
_NO_STORE = {"cache-control": "no-store"}


def compatible_key_routes(describe: Describe, clock: Callable[[], float]) -> APIRouter:
    """`GET /api/v1/key` and `GET /api/usage/token`."""
    router = APIRouter(tags=["keys"], responses=ERROR_RESPONSES)

    def tightest(caller: Principal) -> dict[str, Any] | None:
        limits = describe(caller.account.meters, clock())
        return min(limits, key=lambda limit: limit["remaining"], default=None)

    @router.get("/api/v1/key", summary="What is left of this key, as OpenRouter says it")
    async def like_openrouter(caller: Annotated[Principal, require(ANY)]) -> JSONResponse:
        limit = tightest(caller)
        data = {
            "label": caller.key_name,
            "limit": limit and limit["used"] + limit["remaining"],
            "limit_remaining": limit and limit["remaining"],
            "limit_reset": limit and limit["limit"],
            "usage": limit["used"] if limit else 0,
            "expires_at": None if caller.expires_at is None else _iso(caller.expires_at),
            "is_free_tier": False,
        }
        return JSONResponse({"data": data}, headers=_NO_STORE)

    @router.get("/api/usage/token", summary="What is left of this key, as New API says it")
    async def like_new_api(caller: Annotated[Principal, require(ANY)]) -> JSONResponse:
        limit = tightest(caller)
        used, left = (limit["used"], limit["remaining"]) if limit else (0, 0)
        data = {
            "object": "token_usage",
            "name": caller.key_name,
            "total_granted": used + left,
            "total_used": used,
            "total_available": left,
            "unlimited_quota": limit is None,
            "model_limits": dict.fromkeys(caller.models, True),
            "model_limits_enabled": bool(caller.models),
            "expires_at": int(caller.expires_at or 0),
        }
        return JSONResponse({"code": True, "message": "ok", "data": data}, headers=_NO_STORE)

    return router


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
