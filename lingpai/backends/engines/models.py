"""The models of one worker, loaded and ready to be called."""

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

from lingpai.authoring import Context, ModelDefinition, default_device
from lingpai.backends.engines.batching import BatchRunner
from lingpai.backends.engines.binding import CallSignature, parameters_schema, read_signature
from lingpai.backends.engines.calls import Bounds, FunctionRunner, OnOverrun, Runner
from lingpai.backends.engines.tasks import input_schema, output_schema
from lingpai.backends.engines.user_errors import TargetError, failure
from lingpai.errors import LingpaiError, did_you_mean

TEXT_TASKS: Final = frozenset({"chat", "completion", "summarization", "translation"})
"""Tasks whose models answer with text, on the chat and the completions endpoint alike."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that can be called."""

    definition: ModelDefinition
    signature: CallSignature
    """How one call looks: with `batch=`, the payload is one item of the function's list."""
    runner: Runner

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def task(self) -> str:
        return self.definition.task

    @property
    def takes_batches(self) -> bool:
        """Whether calls are put together, so that the payloads of one request had better be made at once."""
        return self.definition.batch is not None

    @property
    def takes_messages(self) -> bool:
        """Whether the payload is a list of messages; other text models get one string."""
        if self.signature.takes_messages:
            return True
        return self.task == "chat" and self.signature.payload is not str

    def description(self) -> dict[str, Any]:
        """What the supervisor and the catalogue are told."""
        return {
            "id": self.id,
            "task": self.task,
            "description": self.definition.description,
            "aliases": list(self.definition.aliases),
            "input": input_schema(self.signature, self.task),
            "parameters": parameters_schema(self.signature),
            "output": output_schema(self.task),
            "streams": self.runner.streams,
            "timeout_s": self.definition.timeout_s,
            "memory_mb": self.definition.memory_mb,
            "replicas": self.definition.replicas,
        }


class Models:
    """The worker's models by id and alias."""

    def __init__(self, models: Iterable[LoadedModel]) -> None:
        self.all = tuple(models)
        self._by_name = {name: model for model in self.all for name in (model.id, *model.definition.aliases)}

    def find(self, name: Any) -> LoadedModel:
        """The model called `name`; without a name the only one. Raises LingpaiError when there is none such."""
        if name is None and len(self.all) == 1:
            return self.all[0]
        if not isinstance(name, str):
            raise LingpaiError("invalid_request", "`model` must be the id of a model.", "model")
        model = self._by_name.get(name)
        if model is None:
            near = did_you_mean(name, self._by_name)
            raise LingpaiError("model_not_found", f"This worker has no model `{name}`.{near}", "model")
        return model


async def load_model(
    definition: ModelDefinition, cache_root: Path, *, on_overrun: OnOverrun = lambda _name, _seconds: None
) -> LoadedModel:
    """Instantiate and load what has to be; raises TargetError with the author's traceback when that fails."""
    function = await _callable(definition, cache_root)
    signature = read_signature(function, definition.id)
    if definition.batch is not None:
        signature = replace(signature, payload=_item_type(signature.payload, definition))
    definition = replace(definition, task=_settled_task(definition.task, signature))
    return LoadedModel(definition, signature, _runner(function, definition, on_overrun))


def _runner(function: Callable[..., Any], definition: ModelDefinition, on_overrun: OnOverrun) -> Runner:
    bounds = Bounds(
        concurrency=definition.concurrency,
        max_queue=definition.max_queue,
        timeout_s=definition.timeout_s,
        on_overrun=on_overrun,
    )
    if definition.batch is None:
        return FunctionRunner(function, bounds=bounds, name=definition.id)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TargetError(
            f"`{definition.id}` yields, but a function with batch= returns one list of results."
        )
    return BatchRunner(function, definition.batch, bounds=bounds, name=definition.id)


def _item_type(payload: Any, definition: ModelDefinition) -> Any:
    """What one call of a batch carries, from the annotation of the list."""
    if get_origin(payload) is Annotated:
        payload = get_args(payload)[0]
    if payload is Any or payload is list:
        return str if definition.task == "embedding" else Any
    origin = get_origin(payload)
    if isinstance(origin, type) and issubclass(list, origin) and issubclass(origin, Sequence):
        return get_args(payload)[0]
    raise TargetError(
        f"`{definition.id}` has batch=, so its first parameter must be annotated as a list of payloads, for instance "
        f"list[str], or not at all."
    )


def _settled_task(task: str, signature: CallSignature) -> str:
    if task != "text-generation":
        return task
    return "chat" if signature.takes_messages else "completion"


async def _callable(definition: ModelDefinition, cache_root: Path) -> Callable[..., Any]:
    if not isinstance(definition.served, type):
        return definition.served
    try:
        instance = definition.served()
        await _load(instance, definition, cache_root)
    except (Exception, SystemExit) as error:
        raise failure(definition.id, "could not be loaded", error) from error
    call = getattr(instance, "__call__", None)  # noqa: B004  the bound method itself is wanted
    if call is None:
        raise TargetError(f"`{definition.id}` is a class without `__call__`, so there is nothing to call.")
    return call  # type: ignore[no-any-return]  # of an object whose class is the author's


async def _load(instance: Any, definition: ModelDefinition, cache_root: Path) -> None:
    load = getattr(instance, "load", None)
    if load is None:
        return
    context = Context(
        model_id=definition.id,
        device=default_device(),
        logger=logging.getLogger(definition.id),
        cache_root=cache_root,
    )
    context.logger.setLevel(logging.INFO)
    result = load(context) if inspect.signature(load).parameters else load()
    if inspect.isawaitable(result):
        await result
