"""What operators do with models at run time: add a target, remove it, try a model out."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from lingpai.catalog.interfaces import KeptTarget, Model
from lingpai.catalog.store import SqlTargetStore
from lingpai.errors import LingpaiError
from lingpai.gateway.gateway import Gateway
from lingpai.lane.upstream import Failure, Upstream
from lingpai.principal import Principal
from lingpai.settings import ModelSettings
from lingpai.storage.trail import Deed, Trail
from lingpai.targets import Fleet, TargetError
from lingpai.wire import backend_error, inference, tasks

log = logging.getLogger("lingpai.models")

CHECK_TIMEOUT_S = 60.0
MOST_ANSWER_BYTES = 1024 * 1024
_SAMPLE = "Hello"
_NOT_CALLED = "not called: it needs an input of its own kind; try `lingpai run`"
_TAKES_TEXT = frozenset({
    "chat",
    "completion",
    "embedding",
    "summarization",
    "text-classification",
    "text-generation",
    "text-to-image",
    "text-to-speech",
    "text-to-video",
    "token-classification",
    "translation",
})  # fmt: skip
"""Tasks whose models can do something with any text at all."""


class TargetOperations:
    """Fulfils the catalog's `Targets` and `TargetKeys`."""

    def __init__(self, fleet: Fleet, store: SqlTargetStore, gateway: Gateway, *, trail: Trail) -> None:
        self._fleet = fleet
        self._store = store
        self._gateway = gateway
        self._trail = trail
        self._changing_key = asyncio.Lock()

    async def add(
        self, caller: Principal, target: str, *, is_local: bool, api_key: str | None = None
    ) -> list[Model]:
        """Serve `target` from now on. Python targets run code, so only the local administrator may name one.

        `api_key` is sent to this target and no other; without one, the key that is kept with the target is.
        """
        is_address = target.startswith(("http://", "https://"))
        is_origin = target == "ollama" or is_address
        if not (is_origin or is_local):
            raise LingpaiError(
                "insufficient_scope",
                "Python targets can be added on the server's own machine only: `lingpai models add` there.",
                param="target",
            )
        if api_key is not None and not is_address:
            raise LingpaiError(
                "invalid_request",
                "A key is sent to targets at an http:// or https:// address only. Leave it out.",
                param="api_key",
            )
        read_key = partial(self._store.read_key, target) if api_key is None else lambda: api_key
        # Kept, and recorded, before any of its code runs: what cannot be recorded must not happen. A key that replaces
        # another one is kept when it has proved to be good.
        is_kept = target in await asyncio.to_thread(self._store.all)
        is_served = any(served.settings.target == target for served in self._fleet.served())
        is_new = not is_served and not is_kept
        if is_new:
            await asyncio.to_thread(self._store.add, caller, target, api_key)
        try:
            models = await self._fleet.add(ModelSettings(target=target), read_key=read_key)
        except BaseException as error:
            if is_new:
                reason = f"it cannot be served: {error or type(error).__name__}"
                await asyncio.to_thread(partial(self._store.remove, caller, target, reason=reason))
            if isinstance(error, TargetError):
                raise LingpaiError("invalid_request", str(error), param="target") from error
            raise
        if api_key is not None and is_kept:
            await asyncio.to_thread(self._store.put_key, caller, target, api_key)
        return models

    async def kept(self) -> Sequence[tuple[KeptTarget, Sequence[str] | None]]:
        """Every kept target, and the ids of its models; None instead of them while it is not served."""
        kept = await asyncio.to_thread(self._store.kept)
        models = {
            served.settings.target: [model.id for model in served.models]
            for served in self._fleet.served()
            if served.models is not None
        }
        return [(each, models.get(each.target)) for each in kept]

    async def put_key(self, caller: Principal, target: str, api_key: str | None) -> None:
        """Use this key, or none, for the calls of a kept target; the provider is asked first whether it takes it."""
        async with self._changing_key:  # so that the last one in the database is the one that is sent
            if target not in await asyncio.to_thread(self._store.all):
                raise LingpaiError(
                    "not_found",
                    f"No target `{target[:200]}` was added at run time. `lingpai models targets` lists those that were;"
                    " those of lingpai.toml have their keys in `api_key_env`.",
                    param="target",
                )
            if api_key is not None:
                await self._check_key(target, api_key)
            await asyncio.to_thread(self._store.put_key, caller, target, api_key)
            backend = self._fleet.use_key(target, api_key)
            if backend is not None:
                self._gateway.renew_headers(backend)

    async def _check_key(self, target: str, api_key: str) -> None:
        if not target.startswith(("http://", "https://")):
            raise LingpaiError(
                "invalid_request",
                "A key is sent to targets at an http:// or https:// address only.",
                param="target",
            )
        try:
            await self._fleet.check_key(target, api_key)
        except TargetError as error:
            raise LingpaiError("invalid_request", str(error), param="api_key") from error

    async def remove(self, caller: Principal, model: Model) -> None:
        """Stop serving the target that `model` came from, if it was added at run time."""
        kept = await asyncio.to_thread(self._store.all)
        for served in self._fleet.served():
            if served.backend is model.backend:
                target = served.settings.target
                if target not in kept:
                    raise LingpaiError(
                        "invalid_request",
                        f"`{model.id}` comes from the command line or lingpai.toml ({target}). Remove it there and restart.",
                    )
                await asyncio.to_thread(self._store.remove, caller, target)
                await self._fleet.remove(target)
                return

    async def remove_kept(self, caller: Principal, target: str) -> bool:
        """Forget a kept target by its own name; a path loses its leading slash on the way here."""
        kept = await asyncio.to_thread(self._store.all)
        for name in (target, f"/{target}"):
            if name in kept:
                await asyncio.to_thread(self._store.remove, caller, name)
                self._fleet.give_up(name)
                return True
        return False

    async def check(self, caller: Principal, model: Model) -> list[dict[str, Any]]:
        """Reach the backend, then call the model with a short text, if a text is what it takes."""
        deed = Deed(action="model.check", target_kind="model", target_id=model.id)
        await asyncio.to_thread(self._trail.note, caller, deed)
        backend = model.backend
        state = {
            "name": "backend",
            "ok": backend.state == "ready",
            "ms": 0,
            "detail": f"{backend.name}: {backend.state}",
        }
        if not state["ok"]:
            return [state]
        if model.task not in _TAKES_TEXT:
            return [state, {"name": "call", "ok": True, "ms": 0, "detail": _NOT_CALLED}]
        started = time.monotonic()
        status, body = await self._call(model)
        step = {
            "name": "call",
            "ok": status == 200,
            "ms": round((time.monotonic() - started) * 1000),
            "detail": "answered" if status == 200 else _explain(model, status, body),
        }
        return [state, step]

    async def _call(self, model: Model) -> tuple[int, bytes]:
        try:
            path, body = inference.openai_request(
                model.task, model.upstream_name, _SAMPLE, _parameters(model)
            )
        except LingpaiError:
            path, body = b"/inference", {"model": model.upstream_name, "input": _SAMPLE, "parameters": {}}
        link = self._gateway.link(model.backend)
        answer = _Answer(asyncio.get_running_loop().create_future())
        link.send(path, inference.encode(body), answer, b"check")
        try:
            return await asyncio.wait_for(answer.future, CHECK_TIMEOUT_S)
        except TimeoutError:
            answer.is_over = True
            if answer.upstream is not None:
                answer.upstream.abort()
            return 0, b"no answer in time"


def _parameters(model: Model) -> dict[str, Any]:
    """A check asks for as little as there is."""
    return {"max_tokens": 1} if model.task in tasks.GENERATION else {}


def _explain(model: Model, status: int, body: bytes) -> str:
    """What went wrong, in the words a caller would hear: a backend's own text may tell what is nobody's business.

    A worker's words are ours: they name the exception, and never more.
    """
    if status == 0:
        return body.decode()
    if model.backend.kind == "worker" and (message := _own_message(body)):
        return f"status {status}: {message}"
    status, answer, _ = backend_error.translate(status, body, retry_after=None, backend=model.backend.name)
    return f"status {status}: {_own_message(answer)}"


def _own_message(body: bytes) -> str | None:
    """The message of an error in our own shape; None when `body` has another."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return None


class _Answer:
    """A receiver that collects one answer."""

    def __init__(self, future: "asyncio.Future[tuple[int, bytes]]") -> None:
        self.future = future
        self.upstream: Upstream | None = None
        self.retries = 0
        self.is_over = False
        self._status = 0
        self._parts: list[bytes] = []
        self._size = 0

    def response_started(self, status: int, headers: dict[bytes, bytes]) -> None:  # noqa: ARG002  the receiver's form
        self._status = status

    def response_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MOST_ANSWER_BYTES:
            self._parts.append(data)

    def response_quiet(self) -> None:
        pass

    def response_finished(self) -> None:
        self._settle(lambda: (self._status, b"".join(self._parts)))

    def response_broken(self, error: BaseException | None) -> None:
        log.error("an answer could not be read", exc_info=error)
        self._settle(lambda: (0, b"the answer could not be read; the log says why"))

    def response_failed(self, failure: Failure, detail: str) -> None:
        self._settle(lambda: (0, f"{failure.value}: {detail}".encode()))

    def _settle(self, result: Callable[[], tuple[int, bytes]]) -> None:
        if not self.future.done():
            self.future.set_result(result())
