"""Targets: what `lingpai serve TARGET …` names, turned into backends, and their models put into the catalog.

A target is a Python file or module (served by a worker process), an http(s) address (an OpenAI-compatible origin), or
`ollama`. Without any, the demonstration models are served.
"""

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from lingpai.backends.openai import (
    BackendAwayError,
    BackendError,
    BackendRefusesError,
    FoundModel,
    OpenAIBackend,
    ollama_backend,
    openai_backend,
)
from lingpai.backends.worker import Worker, WorkerStartError
from lingpai.catalog.interfaces import Backend, Model
from lingpai.catalog.service import Catalog
from lingpai.errors import did_you_mean
from lingpai.metering.counting import FileTokenizer, TokenizerError
from lingpai.prices import parse_price
from lingpai.quotas.book import ModelLimits
from lingpai.settings import ModelSettings
from lingpai.storage.sealing import SealError

log = logging.getLogger("lingpai.targets")

DEMONSTRATION: Final = "lingpai.demo"
DEMONSTRATION_NAME: Final = "demonstration"
REFRESH_S: Final = 60.0
T = TypeVar("T")
OnHealth = Callable[[Backend, str | None], None]
ReadKey = Callable[[], str | None]
"""Gives the provider's key that is kept with a target; blocks, and may raise SealError."""
_LATER: Final = {
    "hf:": "Hugging Face models cannot be served by name in this version. Write a few lines around one: examples/minilm.py.",
    "ms:": "ModelScope models cannot be served by name in this version. Write a few lines around one: examples/minilm.py.",
}


class TargetError(Exception):
    """A target cannot be served. The message says why and what to try."""


class OriginUnreachableError(TargetError):
    """An origin does not answer, or not as it should; that may change by itself."""


@dataclass(slots=True)
class ServedTarget:
    """One target and its backend."""

    settings: ModelSettings
    backend: Backend
    is_loading: bool = True
    models: list[Model] | None = None
    """As put into the catalog; None until then, for a target may turn out to have none."""
    tokenizers: Mapping[str, object] = field(default_factory=dict)
    """By path."""


class Fleet:
    """All backends of one server: starts them, keeps the catalog true to them, and stops them."""

    def __init__(
        self, catalog: Catalog, *, socket_folder: Path, environment: Mapping[str, str],
        on_progress: Callable[[str], None] = lambda _: None, on_removed: Callable[[Backend], None] = lambda _: None,
        on_replaced: Callable[[Backend], None] = lambda _: None,
        load_tokenizer: Callable[[Path], object] = FileTokenizer, on_health: OnHealth = lambda _, __: None,
    ) -> None:  # fmt: skip
        """`on_replaced` hears of a backend whose process was replaced by another one at the same address.

        `on_health` hears of a backend why it is away, or None when it is there; again and again, changed or not.
        """
        self._catalog = catalog
        self._socket_folder = socket_folder
        self._environment = environment
        self._on_progress = on_progress
        self._on_removed = on_removed
        self._on_replaced = on_replaced
        self._load_tokenizer = load_tokenizer
        self._on_health = on_health
        self._served: dict[str, ServedTarget] = {}
        self._given_up: set[str] = set()

    @property
    def is_loading(self) -> bool:
        """Whether some target's models are still to come."""
        return any(served.is_loading for served in self._served.values())

    def served(self) -> list[ServedTarget]:
        """All targets, in the order they were added."""
        return list(self._served.values())

    async def add(
        self, settings: ModelSettings, *, is_awaited: bool = True, read_key: ReadKey | None = None
    ) -> list[Model]:
        """Serve a target; returns its models once they can be called.

        `is_awaited` says whether the server counts as not ready until then; `read_key` gives the provider's key where
        the settings name none. Raises TargetError, and then nothing of the target stays.
        """
        api_key = await self._api_key(settings, read_key)
        if settings.target in self._served:
            raise TargetError(f"`{settings.target}` is served already.")
        served = ServedTarget(settings, self._make_backend(settings, api_key), is_loading=is_awaited)
        self._served[settings.target] = served
        try:
            served.tokenizers = await asyncio.to_thread(self._load_tokenizers, settings)
            models = await self._start(served)
        except BaseException:
            del self._served[settings.target]
            raise
        self._publish(served, models)
        return [model for model in self._catalog.models() if model.backend is served.backend]

    async def add_patiently(self, settings: ModelSettings, *, read_key: ReadKey | None = None) -> None:
        """Serve a target that may not be there yet: try until it is. For targets that nobody watches being added."""
        self._given_up.discard(settings.target)
        while settings.target not in self._served and settings.target not in self._given_up:
            try:
                await self.add(settings, is_awaited=False, read_key=read_key)
            except TargetError as error:
                log.warning("target %s: %s Trying again in %g s.", settings.target, error, REFRESH_S / 4)
                await asyncio.sleep(REFRESH_S / 4)

    def give_up(self, target: str) -> None:
        """Do not try any longer to serve a target that is not there."""
        self._given_up.add(target)

    async def check_key(self, target: str, api_key: str) -> None:
        """Ask the origin of `target`, and nobody else, for its models with this key. Raises TargetError when it refuses.

        One that is away, or answers something else, says nothing about the key.
        """
        try:
            await openai_backend(target, api_key=api_key).discover()
        except BackendRefusesError as error:
            raise TargetError(f"{error} Nothing was changed.") from error
        except BackendError as error:
            log.info("target %s: the new key could not be tried: %s", target, error)

    def use_key(self, target: str, api_key: str | None) -> Backend | None:
        """Send this key, or none, to the origin of `target` from now on.

        Returns its backend; None when it is not served, or has its key from the environment, which goes first.
        """
        served = self._served.get(target)
        if served is None or not isinstance(served.backend, OpenAIBackend) or served.settings.api_key_env:
            return None
        served.backend.use_key(api_key)
        return served.backend

    async def remove(self, target: str) -> None:
        """Stop serving a target. Raises KeyError when it is not served."""
        served = self._served.pop(target)
        self._catalog.remove(served.backend)
        if isinstance(served.backend, Worker):
            await served.backend.stop()
        self._on_removed(served.backend)

    async def refresh(self, only: Collection[str] | None = None) -> None:
        """Ask every origin, or only those of these names, which models it has now."""
        for served in self.served():
            backend = served.backend
            if isinstance(backend, OpenAIBackend) and (only is None or backend.name in only):
                await self._ask_again(served, backend)

    async def _ask_again(self, served: ServedTarget, backend: OpenAIBackend) -> None:
        why: str | None = None
        try:
            found = await backend.discover()
        except BackendError as error:
            log.warning("backend %s: %s", backend.name, error)
            # One that answers something else is there, and may well answer calls.
            why = str(error) if isinstance(error, BackendAwayError) else None
        else:
            self._publish(served, found)
        if self._served.get(served.settings.target) is served:  # not removed meanwhile
            self._on_health(backend, why)

    async def stop(self) -> None:
        """Stop all workers."""
        workers = [served.backend for served in self.served() if isinstance(served.backend, Worker)]
        await asyncio.gather(*(worker.stop() for worker in workers))

    def _make_backend(self, settings: ModelSettings, api_key: str | None) -> OpenAIBackend | Worker:
        target = settings.target
        for prefix, explanation in _LATER.items():
            if target.startswith(prefix):
                raise TargetError(explanation)
        try:
            if target == "ollama":
                return self._named_apart(ollama_backend())
            if target.startswith(("http://", "https://")):
                return self._named_apart(openai_backend(target, name=settings.name, api_key=api_key))
        except BackendError as error:
            raise TargetError(str(error)) from error
        name = settings.name or Path(target.partition(":")[0]).stem.rpartition(".")[2]
        number = sum(isinstance(served.backend, Worker) for served in self._served.values())
        return Worker(
            target,
            socket_path=self._socket_folder / f"{number}-{os.urandom(3).hex()}.sock",
            name=self._unused_name(name),
            log=log,
            on_state=partial(self._worker_changed, target),
            on_replaced=self._on_replaced,
            on_progress=self._on_progress,
        )

    def _worker_changed(self, target: str, state: str) -> None:
        """A worker that was restarted may serve other models than before."""
        served = self._served.get(target)
        if served is None or served.is_loading or not isinstance(served.backend, Worker):
            return
        if state == "ready":
            self._publish(served, _worker_models(served.backend))
            self._on_health(served.backend, None)
        elif state == "restarting":
            self._on_health(served.backend, "Its process ended or hung, and is started again.")

    async def _start(self, served: ServedTarget) -> list[FoundModel] | list[Model]:
        backend = served.backend
        try:
            if isinstance(backend, Worker):
                await backend.start()
                return _worker_models(backend)
            if isinstance(backend, OpenAIBackend):
                return await backend.discover()
        except WorkerStartError as error:
            raise TargetError(str(error)) from error
        except BackendError as error:
            advice = " Start Ollama with `ollama serve`, or say where it is in OLLAMA_HOST."
            is_ollama = served.settings.target == "ollama"
            raise OriginUnreachableError(f"{error}{advice if is_ollama else ''}") from error
        raise TypeError(backend)

    def _load_tokenizers(self, settings: ModelSettings) -> dict[str, object]:
        paths = {path for path in (settings.tokenizer, *settings.tokenizers.values()) if path is not None}
        try:
            return {path: self._load_tokenizer(Path(path)) for path in paths}
        except TokenizerError as error:
            raise TargetError(str(error)) from error

    def _publish(self, served: ServedTarget, found: Iterable[FoundModel | Model]) -> None:
        settings, backend = served.settings, served.backend
        offered = list(found)
        models = [
            _as_operator_says(model if isinstance(model, Model) else _model(model, backend), served)
            for model in offered
            if not settings.only or model.id in settings.only
        ]
        served.is_loading = False
        if models != served.models:
            served.models = models
            _warn_of_names_without_model(settings, {model.id for model in offered})
            order = [other.backend for other in self._served.values()]
            for model in self._catalog.replace(backend, models, order=order):
                log.warning(
                    "model %s of %s is left out: another backend offers the same id",
                    model.id,
                    model.backend.name,
                )

    async def _api_key(self, settings: ModelSettings, read_key: ReadKey | None) -> str | None:
        if settings.api_key_env is None:
            return None if read_key is None else await self._kept_key(read_key)
        key = self._environment.get(settings.api_key_env, "").strip()
        if not key:
            raise TargetError(
                f"The environment variable {settings.api_key_env} (key of {settings.target}) is not set."
            )
        return key

    async def _kept_key(self, read_key: ReadKey) -> str | None:
        try:
            return await asyncio.to_thread(read_key)
        except SealError as error:
            raise TargetError(str(error)) from error

    def _named_apart(self, backend: OpenAIBackend) -> OpenAIBackend:
        backend.name = self._unused_name(backend.name)  # connections, with prefix and key, are kept by name
        return backend

    def _unused_name(self, name: str) -> str:
        taken = {served.backend.name for served in self._served.values()}
        number, candidate = 2, name
        while candidate in taken:
            candidate, number = f"{name}-{number}", number + 1
        return candidate


def _warn_of_names_without_model(settings: ModelSettings, offered: set[str]) -> None:
    """Names in lingpai.toml that mean nothing are most likely mistyped."""
    known = offered | set(settings.rename.values())
    meant: dict[str, Iterable[str]] = {
        "only": settings.only,
        "rename": settings.rename,
        "aliases": settings.aliases.values(),
        "prices": settings.prices,
        "model_limits": settings.model_limits,
        "model_user_limits": settings.model_user_limits,
        "tokenizers": settings.tokenizers,
    }
    for key, names in meant.items():
        for name in names:
            if name not in known:
                log.warning(
                    "%s: `%s` names no model: %s.%s", settings.target, key, name, did_you_mean(name, known)
                )


def _model(found: FoundModel, backend: Backend) -> Model:
    return Model(
        id=found.id,
        task=found.task,
        backend=backend,
        upstream_name=found.id,
        is_task_certain=found.is_task_certain,
        created=found.created,
    )


def _worker_models(worker: Worker) -> list[Model]:
    return [
        Model(
            id=model.id,
            task=model.task,
            backend=worker,
            upstream_name=model.id,
            description=model.description or "",
            aliases=tuple(model.aliases),
            parameters=model.parameters,
            input=model.input,
            output=model.output,
            created=int(time.time()),
        )
        for model in worker.models
    ]


def _as_operator_says(model: Model, served: ServedTarget) -> Model:
    """The model with the names, the task, the price and the limits that lingpai.toml gives it."""
    settings = served.settings
    id_ = settings.rename.get(model.id, model.id)
    names = (id_, model.id)
    aliases = tuple(alias for alias, meant in settings.aliases.items() if meant in names)
    price = _for_model(settings.prices, names, settings.price)
    tokenizer = _for_model(settings.tokenizers, names, settings.tokenizer)
    return dataclasses.replace(
        model,
        id=id_,
        task=settings.task or model.task,
        aliases=model.aliases + aliases,
        is_task_certain=model.is_task_certain or settings.task is not None,
        price=None if price is None else parse_price(price),
        limits=_for_model(settings.model_limits, names, settings.limits),
        user_limits=_for_model(settings.model_user_limits, names, settings.user_limits),
        default_max_tokens=settings.default_max_tokens,
        tokenizer=None if tokenizer is None else served.tokenizers[tokenizer],
    )


def _for_model(table: Mapping[str, T], names: Iterable[str], otherwise: T) -> T:
    """What `table` says under one of a model's names, ours first."""
    return next((table[name] for name in names if name in table), otherwise)


class CatalogLimits:
    """The limits that lingpai.toml gives to the models that are there (quotas' ConfiguredLimits)."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def find(self, model_id: str) -> ModelLimits:
        """Those of one model; none for a model that is not there."""
        model = self._catalog.find(model_id)
        return ModelLimits() if model is None else ModelLimits(model.limits, model.user_limits)

    def model_ids(self) -> list[str]:
        """The models that have any."""
        return [model.id for model in self._catalog.models() if model.limits or model.user_limits]
