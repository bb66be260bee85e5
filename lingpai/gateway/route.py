"""Step 3: which model, on which backend, and may this principal call it?"""

from typing import TYPE_CHECKING

from lingpai.errors import LingpaiError
from lingpai.wire import tasks

if TYPE_CHECKING:
    from lingpai.catalog.interfaces import Model
    from lingpai.gateway.exchange import Exchange


def route(exchange: "Exchange") -> None:
    """Fill `exchange.model` and `exchange.model_name`.

    Raises LingpaiError `model_not_found` (with the nearest names), `model_not_allowed`, `unsupported_task`, or
    `model_loading` and `backend_unavailable` while the backend is not there.
    """
    catalog, account = exchange.gateway.catalog, exchange.account
    if account.catalog_version != catalog.version:
        account.models.clear()
        account.catalog_version = catalog.version
    name = exchange.model_in_path or exchange.request.model or ""
    model = account.models.get(name)
    if model is None:
        model = _find(exchange, name)
        if name:
            account.models[name] = model
    exchange.model = model
    exchange.model_name = name or model.id
    wanted = exchange.endpoint.tasks
    if wanted is not None and model.task not in wanted and model.is_task_certain:
        raise _wrong_task(exchange, model)
    state = model.backend.state
    if state != "ready":
        raise _not_ready(model, state)


def _find(exchange: "Exchange", name: str) -> "Model":
    catalog, principal = exchange.gateway.catalog, exchange.account.principal
    model = catalog.find(name) if name else catalog.default_for(exchange.endpoint.tasks)
    if model is None:
        raise _not_found(exchange, name)
    if not (principal.may_call(model.id) or (name and principal.may_call(name))):
        raise LingpaiError(
            "model_not_allowed",
            f"This key may not call `{name or model.id}`. `GET /v1/models` lists the models it may call.",
            param="model",
        )
    return model


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
    better = {
        tasks.CHAT: "/v1/chat/completions",
        tasks.COMPLETION: "/v1/completions",
        tasks.EMBEDDING: "/v1/embeddings",
    }.get(model.task, f"/api/v1/models/{model.id}/inference")
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
