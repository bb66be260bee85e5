"""A key's own limits in the shapes of OpenRouter and New API, for the programs that ask there (wire.md W16).

Both know one amount; a key here may have several limits, in several units. What they get is the limit with the
smallest share left of the unit that means most to them:

- OpenRouter counts credits in USD, so a limit in USD goes first, then requests, then tokens. Its `limit_reset` is
  `daily`, `weekly`, `monthly` or null, for windows that it does not know.
- New API counts whole units of its own, 500,000 to the USD, so requests go first, then tokens, then USD, then CNY
  with as many units.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES
from lingpai.web.periods import iso_utc
from lingpai.web.query import any_query

Describe = Callable[[tuple[Any, ...], float], Any]

NEW_API_UNITS: Final = 500_000

_NO_STORE: Final = {"cache-control": "no-store"}
_UNITS_OF_OPENROUTER: Final = ("USD", "requests", "tokens")
_UNITS_OF_NEW_API: Final = ("requests", "tokens", "USD", "CNY")
_RESETS: Final = {"day": "daily", "week": "weekly", "month": "monthly"}


def compatible_key_routes(describe: Describe, clock: Callable[[], float]) -> APIRouter:
    """`GET /api/v1/key` and `GET /api/usage/token`."""
    router = APIRouter(tags=["keys"], responses=ERROR_RESPONSES)

    def chosen(caller: Principal, units: Sequence[str]) -> dict[str, Any] | None:
        return choose(describe(caller.account.meters, clock()), units)

    @router.get("/api/v1/key", summary="What is left of this key, as OpenRouter says it")
    @any_query("it answers programs that were written for OpenRouter")
    async def like_openrouter(caller: Annotated[Principal, require(ANY)]) -> JSONResponse:
        limit = chosen(caller, _UNITS_OF_OPENROUTER)
        used, left = (_number(limit["used"]), _number(limit["remaining"])) if limit else (0, None)
        data = {
            "label": caller.key_name or caller.client_name or caller.user_name,
            "limit": None if left is None else round(used + left, 9),
            "limit_remaining": left,
            "limit_reset": _reset(limit["limit"]) if limit else None,
            "usage": used,
            "expires_at": None if caller.expires_at is None else iso_utc(caller.expires_at),
            "is_free_tier": False,
        }
        return JSONResponse({"data": data}, headers=_NO_STORE)

    @router.get("/api/usage/token", summary="What is left of this key, as New API says it")
    async def like_new_api(caller: Annotated[Principal, require(ANY)]) -> JSONResponse:
        limit = chosen(caller, _UNITS_OF_NEW_API)
        used, left = (_new_api_units(limit, "used"), _new_api_units(limit, "remaining")) if limit else (0, 0)
        data = {
            "object": "token_usage",
            "name": caller.key_name or caller.client_name or caller.user_name,
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


def choose(limits: Sequence[dict[str, Any]], units: Sequence[str]) -> dict[str, Any] | None:
    """Of `limits` (as `describe` gives them) the tightest of the first of `units` that there is; None if there is none."""
    for unit in units:
        of_unit = [limit for limit in limits if limit["unit"] == unit]
        if of_unit:
            return min(of_unit, key=_share_left)
    return None


def _share_left(limit: dict[str, Any]) -> float:
    used, left = _number(limit["used"]), _number(limit["remaining"])
    return left / (used + left) if left else 0.0


def _number(quantity: int | str) -> int | float:
    """Money comes as decimal text, and OpenRouter's programs want numbers; nothing is computed from them here."""
    return float(quantity) if isinstance(quantity, str) else quantity


def _new_api_units(limit: dict[str, Any], field: str) -> int:
    amount = Decimal(limit[field])
    return int(amount * NEW_API_UNITS if limit["unit"] in {"USD", "CNY"} else amount)


def _reset(limit: str) -> str | None:
    """OpenRouter's word for the window of a limit such as ``5 USD/month@Asia/Shanghai``."""
    window = limit.partition("/")[2].partition(" ")[0].partition("@")[0]
    return _RESETS.get(window)
