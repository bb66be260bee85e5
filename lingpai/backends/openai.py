"""Backends that speak OpenAI's API: engines on this machine (vLLM, llama.cpp, SGLang, Ollama, …) and providers.

A backend is asked for its models once at start and then every minute; model calls themselves go through the lane.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx2

from lingpai.telemetry.tls import client_context, no_tls_context

DISCOVERY_TIMEOUT_S: Final = 10.0
MAX_LIST_BYTES: Final = 16 * 1024 * 1024
OLLAMA_ADDRESS: Final = "http://127.0.0.1:11434"


class BackendError(Exception):
    """A backend cannot be used. The message tells the operator why and what to try."""


class BackendRefusesError(BackendError):
    """An origin wants another credential, or one at all."""


class BackendAwayError(BackendError):
    """Nothing answers at the backend's address; that may change by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """One model that a backend offers."""

    id: str
    task: str
    is_task_certain: bool
    created: int = 0


@dataclass(slots=True, kw_only=True)
class OpenAIBackend:
    """An HTTP origin with OpenAI's routes below `path_prefix`. Fulfils the catalog's `Backend`."""

    name: str
    host: str
    port: int
    is_tls: bool
    path_prefix: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_ollama: bool = False
    kind: Literal["openai"] = "openai"
    socket_path: None = None
    state: Literal["ready"] = "ready"
    """Always: whether the origin is there shows with each call, and a call costs nothing when it is not."""
    retry_after: float = 2.0
    replicas: tuple[()] = ()
    is_replicated: bool = False

    def pick(self, _: object) -> "OpenAIBackend":
        """Itself: an origin has no replicas that we know of."""
        return self

    def use_key(self, api_key: str | None) -> None:
        """Send this key, or none, from now on; calls under way go on with what they were sent with."""
        self.headers = _credential(api_key)

    @property
    def origin(self) -> str:
        """Scheme, host and port, as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"

    async def discover(self) -> list[FoundModel]:
        """The models that the origin lists. Raises BackendError with advice when there is no list to be had,
        BackendAwayError when nothing answers.

        An origin pasted without `/v1` is tried with it first, one pasted with another path also with `/v1` added.
        """
        async with httpx2.AsyncClient(
            headers=dict(self.headers),
            verify=client_context() if self.is_tls else no_tls_context(),
            timeout=DISCOVERY_TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
        ) as client:
            problems = []
            for prefix in dict.fromkeys((self.path_prefix, f"{self.path_prefix}/v1")):
                answer = await self._get(client, f"{self.origin}{prefix}/models")
                if answer.status_code == 200:
                    self.path_prefix = prefix
                    found = _read_list(answer, self.origin)
                    return await self._ask_ollama(client, found) if self.is_ollama else found
                problems.append(f"{prefix}/models answered {answer.status_code}")
                if answer.status_code in (401, 403):
                    raise BackendRefusesError(self._explain_refusal(answer.status_code))
            raise BackendError(
                f"{self.origin} does not list models: {', '.join(problems)}. "
                "Is this the address of an OpenAI-compatible server? It usually ends in /v1."
            )

    def _explain_refusal(self, status: int) -> str:
        if self.headers:
            return f"{self.origin} refuses the key that it was sent ({status})."
        return (
            f"{self.origin} refuses to list its models without a key ({status}). Give its key: "
            "`lingpai models add TARGET --api-key-stdin`, or api_key_env in [[models]] of lingpai.toml."
        )

    async def _get(self, client: httpx2.AsyncClient, url: str) -> httpx2.Response:
        try:
            return await client.get(url)
        except httpx2.TimeoutException as error:
            raise BackendAwayError(
                f"{self.origin} did not answer within {DISCOVERY_TIMEOUT_S:g} s."
            ) from error
        except httpx2.HTTPError as error:
            raise BackendAwayError(
                f"Nothing answers at {self.origin} ({error}). Is the server running there?"
            ) from error

    async def _ask_ollama(self, client: httpx2.AsyncClient, models: list[FoundModel]) -> list[FoundModel]:
        """The same models with the tasks that Ollama itself knows (`/api/show`, field `capabilities`)."""
        certain = []
        for model in models:
            try:
                answer = await client.post(f"{self.origin}/api/show", json={"model": model.id})
                capabilities = answer.json().get("capabilities") or []
            except (httpx2.HTTPError, ValueError, AttributeError, RecursionError):
                capabilities = []
            if not isinstance(capabilities, list):
                capabilities = []
            task = (
                "embedding"
                if "embedding" in capabilities
                else "chat"
                if "completion" in capabilities
                else model.task
            )
            certain.append(
                FoundModel(id=model.id, task=task, is_task_certain=bool(capabilities), created=model.created)
            )
        return certain


def openai_backend(address: str, *, name: str | None = None, api_key: str | None = None) -> OpenAIBackend:
    """A backend for an address as people paste it: with or without `/v1`, with a trailing slash, a full endpoint URL.

    Raises BackendError when it is not an http(s) address.
    """
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        raise BackendError(f"`{address}` is not an http:// or https:// address.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError(f"`{address}` is not an http:// or https:// address.")
    if parts.username or parts.password:
        raise BackendError(
            "An address must not carry a password. Give a key with `lingpai models add TARGET --api-key-stdin`, "
            "or api_key_env in [[models]] of lingpai.toml."
        )
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise BackendError(f"`{address}` has a port that is not a number from 1 to 65535.") from None
    path = re.sub(r"/(chat/completions|completions|embeddings|models)$", "", parts.path.rstrip("/"))
    backend = OpenAIBackend(
        name=name or f"{parts.hostname}:{port}",
        host=parts.hostname,
        port=port,
        is_tls=parts.scheme == "https",
        path_prefix=path or "/v1",
        headers=_credential(api_key),
    )
    try:
        httpx2.URL(f"{backend.origin}{backend.path_prefix}").raw_host.decode("ascii").encode("idna")
    except (httpx2.InvalidURL, ValueError):  # a host that is no domain name (RFC 5891), control characters
        raise BackendError(f"`{address}` is not an http:// or https:// address.") from None
    return backend


def _credential(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def ollama_backend() -> OpenAIBackend:
    """Ollama on this machine, where `OLLAMA_HOST` or its usual port says."""
    address = os.environ.get("OLLAMA_HOST", "").strip() or OLLAMA_ADDRESS
    if "://" not in address:
        address = f"http://{address}" if ":" in address else f"http://{address}:11434"
    # Ollama listens on 0.0.0.0 when told so, but that is no address to connect to.
    backend = openai_backend(address.replace("//0.0.0.0", "//127.0.0.1"), name="ollama")
    backend.path_prefix = "/v1"
    backend.is_ollama = True
    return backend


def _read_list(answer: httpx2.Response, origin: str) -> list[FoundModel]:
    try:
        if len(answer.content) > MAX_LIST_BYTES:
            raise ValueError("too long")
        items = answer.json()["data"] or []
        return [_found(item) for item in items if isinstance(item, dict) and _is_fit_id(item.get("id"))]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackendError(f"{origin} answered something that is not a list of models.") from error


def _is_fit_id(id_: Any) -> bool:
    """Whether a model's id can stand in answers, records and logs: a short, printable text that UTF-8 can hold."""
    return isinstance(id_, str) and 0 < len(id_) <= 200 and id_.isprintable()


def _found(item: dict[str, Any]) -> FoundModel:
    created = item.get("created")
    return FoundModel(
        id=item["id"],
        task=guess_task(item["id"]),
        is_task_certain=False,
        created=created if isinstance(created, int) and not isinstance(created, bool) else 0,
    )


_GUESSES: Final = (
    (re.compile(r"rerank", re.IGNORECASE), "rerank"),
    (re.compile(r"embed|minilm|(^|[/-])(bge|gte|e5)-", re.IGNORECASE), "embedding"),
    (re.compile(r"whisper|asr|transcri", re.IGNORECASE), "automatic-speech-recognition"),
    (re.compile(r"(^|[/-])tts", re.IGNORECASE), "text-to-speech"),
    (re.compile(r"dall-e|flux|stable-diffusion|sdxl|gpt-image", re.IGNORECASE), "text-to-image"),
)


def guess_task(model_id: str) -> str:
    """The task that a model's name suggests; `chat` when it suggests nothing."""
    for pattern, task in _GUESSES:
        if pattern.search(model_id):
            return task
    return "chat"
