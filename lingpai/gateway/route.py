"""Step 3: which model, on which backend, and may this principal call it?"""

from typing import TYPE_CHECKING

from lingpai.errors import LingpaiError
from lingpai.gateway.call_limits import ModelAccess
from lingpai.wire import tasks

if TYPE_CHECKING:
    from lingpai.catalog.interfaces import Model
    from lingpai.gateway.exchange import Exchange
    from lingpai.principal import Principal


def route(exchange: "Exchange") -> None:
    """Fill `exchange.model` and `exchange.model_name`, and `exchange.limits` unless they have to be loaded first.

    Raises LingpaiError `model_not_found` (with the nearest names), `model_not_allowed`, `unsupported_task`, or
    `model_loading` and `backend_unavailable` while the backend is not there.
    """
    gateway, account = exchange.gateway, exchange.account
    if (
        account.catalog_version != gateway.catalog.version
        or account.limits_version != gateway.call_limits.book.version
    ):
        _forget(exchange)
    name = exchange.model_in_path or exchange.request.model or ""
    access = account.models.get(name)
    if access is None:
        access = _find(exchange, name)
        if name:
            account.models[name] = access
    model = exchange.model = access.model
    exchange.model_name = name or model.id
    wanted = exchange.endpoint.tasks
    if wanted is not None and model.task not in wanted and model.is_task_certain:
        raise _wrong_task(exchange, model)
    state = model.backend.state
    if state != "ready":
        raise _not_ready(model, state)
    if access.limits is None:
        access.limits = gateway.call_limits.find(account, access)
    exchange.limits = access.limits


def _forget(exchange: "Exchange") -> None:
    """Models or limits are others now. Calls under way keep what they were admitted with."""
    account = exchange.account
    account.models.clear()
    account.accesses.clear()
    account.catalog_version = exchange.gateway.catalog.version
    account.limits_version = exchange.gateway.call_limits.book.version


def check_may_call(principal: "Principal", model: "Model", name: str) -> None:
    """Refuse a caller who may not call `model` by `name`. Raises LingpaiError `model_not_allowed`."""
    if not (principal.may_call(model.id) or (name and principal.may_call(name))):
        raise LingpaiError(
            "model_not_allowed",
            f"This key may not call `{name or model.id}`. `GET /v1/models` lists the models it may call.",
            param="model",
        )


def _find(exchange: "Exchange", name: str) -> ModelAccess:
    catalog, account = exchange.gateway.catalog, exchange.account
    principal = account.principal
    model = catalog.find(name) if name else catalog.default_for(exchange.endpoint.tasks)
    if model is None:
        raise _not_found(exchange, name)
    check_may_call(principal, model, name)
    access = account.accesses.get(model.id)
    if access is None:
        access = account.accesses[model.id] = ModelAccess(model)
    return access


def _not_found(exchange: "Exchange", name: str) -> LingpaiError:
    gateway, principal = exchange.gateway, exchange.account.principal
    if gateway.is_loading():
        return LingpaiError(
            "model_loading", f"Models are still loading{f', `{name}` is not there yet' if name else ''}. Try again shortly.",
            param="model", headers={"retry-after": "1"},
        )  # fmt: skip
    if not name:
        return LingpaiError(
            "model_not_found",
            "No model was named, and none here fits this endpoint. Name one in `model`.",
            param="model",
        )
    visible = [model.id for model in gateway.catalog.models() if principal.may_call(model.id)]
    near = gateway.catalog.nearest(name, among=visible)
    return LingpaiError(
        "model_not_found",
        f"There is no model `{name[:200]}`.{near} `GET /v1/models` lists the models.",
        param="model",
    )


def _wrong_task(exchange: "Exchange", model: "Model") -> LingpaiError:
    better = tasks.ADDRESSES.get(model.task, f"/api/v1/models/{model.id}/inference")
    return LingpaiError(
        "unsupported_task",
        f"`{model.id}` is a model for {model.task}; {exchange.endpoint.path} cannot call it. Use {better}.",
        param="model",
    )


def _not_ready(model: "Model", state: str) -> LingpaiError:
    wait = max(1, round(model.backend.retry_after))
    headers = {"retry-after": str(wait)}
    if state == "loading":
        return LingpaiError(
            "model_loading", f"`{model.id}` is still loading. Try again in {wait} s.", headers=headers
        )
    return LingpaiError(
        "backend_unavailable",
        f"`{model.id}` is not available now ({state}). Try again in {wait} s.",
        headers=headers,
    )
