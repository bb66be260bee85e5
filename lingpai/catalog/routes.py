"""`/v1/models` for every client, `/api/v1/models` for operators."""

from collections.abc import Awaitable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from lingpai.catalog.interfaces import Model
from lingpai.catalog.schemas import (
    Checked,
    CheckRequest,
    CheckStep,
    ModelPage,
    ModelPages,
    NewTarget,
    anthropic_list,
    openai_list,
    openai_model,
)
from lingpai.catalog.service import Catalog
from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.web.auth import ANY, require
from lingpai.web.errors import ERROR_RESPONSES

ModelReference = Annotated[
    str, Path(description="The model's id or an alias, with its slashes.", examples=["lingpai/eliza"])
]
NO_STORE = {"cache-control": "no-store"}


class Targets(Protocol):
    """Adding and removing what is served (app.py passes it in)."""

    def add(
        self, caller: Principal, target: str, *, is_local: bool, api_key: str | None = None
    ) -> Awaitable[list[Model]]:
        """Serve `target`, with the provider's key for it, now and after the next start.

        Raises LingpaiError `invalid_request`.
        """

    def remove(self, caller: Principal, model: Model) -> Awaitable[None]:
        """Stop serving the target that `model` came from. Raises LingpaiError when it cannot be removed here."""

    def remove_kept(self, caller: Principal, target: str) -> Awaitable[bool]:
        """Forget a target that was added at run time but serves nothing now. False when there is none."""

    def check(self, caller: Principal, model: Model) -> Awaitable[list[dict[str, Any]]]:
        """Try `model` out step by step: `name`, `ok`, `ms`, `detail` of each step."""


def client_routes(catalog: Catalog) -> APIRouter:
    """The list that every client asks for first."""
    router = APIRouter(tags=["models"], responses=ERROR_RESPONSES)

    @router.get("/v1/models", summary="List the models that this key may call")
    async def list_models(request: Request, caller: Annotated[Principal, require(ANY)]) -> Response:
        models = [model for model in catalog.models() if caller.may_call(model.id)]
        is_anthropic = "anthropic-version" in request.headers
        return JSONResponse(anthropic_list(models) if is_anthropic else openai_list(models), headers=NO_STORE)

    @router.get("/v1/models/{id:path}", summary="One model")
    async def show_model(id: str, caller: Annotated[Principal, require(ANY)]) -> Response:  # noqa: A002  the wire name
        model = catalog.find(id)
        if model is None or not (caller.may_call(model.id) or caller.may_call(id)):
            raise _not_found(catalog, id, caller)
        return JSONResponse({**openai_model(model), "id": id}, headers=NO_STORE)

    return router


def management_routes(catalog: Catalog, targets: Targets) -> APIRouter:
    """What operators do with models."""
    router = APIRouter(prefix="/api/v1/models", tags=["models"], responses=ERROR_RESPONSES)

    @router.get("", summary="List all models with their state")
    async def list_all(caller: Annotated[Principal, require("models:read")]) -> ModelPages:
        """All that the caller may call, with where they run, their parameters, prices and limits."""
        return ModelPages(
            data=[ModelPage.of(model) for model in catalog.models() if caller.may_call(model.id)]
        )

    @router.post("", status_code=201, summary="Serve a target")
    async def add(
        body: NewTarget, request: Request, caller: Annotated[Principal, require("models:write")]
    ) -> ModelPages:
        """Serve the models of a target, now and after the next start; the answer lists them."""
        require_admin(caller)
        is_local = bool(getattr(request.state, "is_local", False))
        models = await targets.add(caller, body.target, is_local=is_local, api_key=plain_key(body.api_key))
        return ModelPages(data=[ModelPage.of(model) for model in models])

    @router.post("/check", summary="Try a model out")
    async def check(body: CheckRequest, caller: Annotated[Principal, require("models:write")]) -> Checked:
        """Reach the backend, then call the model with a short text, past all limits, if a text is what it takes."""
        require_admin(caller)  # it calls the model, past all limits
        model = _find(catalog, body.model, caller)
        steps = await targets.check(caller, model)
        return Checked(
            model=model.id,
            ok=all(step["ok"] for step in steps),
            steps=[CheckStep(**step) for step in steps],
        )

    @router.get("/{id:path}", summary="One model with its state")
    async def show(id: ModelReference, caller: Annotated[Principal, require("models:read")]) -> ModelPage:  # noqa: A002
        """Where it runs, its parameters, price and limits."""
        return ModelPage.of(_find(catalog, id, caller))

    @router.delete("/{id:path}", status_code=204, summary="Stop serving the target that a model came from")
    async def remove(id: ModelReference, caller: Annotated[Principal, require("models:write")]) -> None:  # noqa: A002
        """All models of that target go, also after the next start."""
        require_admin(caller)
        model = catalog.find(id)
        if model is None and await targets.remove_kept(caller, id):
            return
        await targets.remove(caller, _find(catalog, id, caller))

    return router


def _find(catalog: Catalog, name: str, caller: Principal) -> Model:
    model = catalog.find(name)
    if model is None or not caller.may_call(model.id):
        raise _not_found(catalog, name, caller)
    return model


def _not_found(catalog: Catalog, name: str, caller: Principal) -> LingpaiError:
    near = catalog.nearest(name, among=[model.id for model in catalog.models() if caller.may_call(model.id)])
    return LingpaiError(
        "model_not_found",
        f"There is no model `{name[:200]}`.{near} `GET /v1/models` lists the models.",
        param="model",
    )


def plain_key(api_key: SecretStr | None) -> str | None:
    """The key in a body, to be handed on and nowhere else."""
    return None if api_key is None else api_key.get_secret_value()


def require_admin(caller: Principal) -> None:
    """Refuse everybody else."""
    if not caller.is_admin:
        raise LingpaiError("insufficient_scope", "Only administrators add and remove models. Ask one.")
