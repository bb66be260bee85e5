"""What the catalog needs to know of a backend, and what it says of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lingpai.prices import Price

BackendState = Literal["loading", "ready", "restarting", "unavailable", "stopped"]


class Backend(Protocol):
    """Where a model's calls go: an HTTP origin that speaks OpenAI, or a worker behind a Unix socket."""

    @property
    def name(self) -> str:
        """Unique among the backends, fit for logs and usage records."""
        ...

    @property
    def kind(self) -> Literal["openai", "worker"]: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def is_tls(self) -> bool: ...

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket to connect to instead of host and port."""
        ...

    @property
    def path_prefix(self) -> str:
        """What stands before `/chat/completions` (usually `/v1`)."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Sent with every call: the backend's own credential, above all. Never shown or logged."""
        ...

    @property
    def state(self) -> BackendState: ...

    @property
    def retry_after(self) -> float:
        """Seconds until another try makes sense while `state` is not "ready"."""
        ...

    @property
    def replicas(self) -> "Sequence[Backend]":
        """The processes of a local model, each with connections of its own; none for an origin."""
        ...

    @property
    def is_replicated(self) -> bool:
        """Whether there are several replicas, so that `pick` has to say which one gets a call."""
        ...

    def pick(self, busy: Callable[[Any], int]) -> "Backend":
        """The replica for one more call; `busy` counts the calls that a replica has."""
        ...


@dataclass(frozen=True, slots=True)
class KeptKey:
    """What may be shown of a provider's key: its end, and since when (Unix seconds) it is the one."""

    hint: str
    set_at: float


@dataclass(frozen=True, slots=True)
class KeptTarget:
    """A target that was added at run time (at `added_at`, Unix seconds)."""

    target: str
    added_at: float
    key: KeptKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Something callable by id."""

    id: str
    task: str
    backend: Backend
    upstream_name: str
    """What the backend calls it; equal to `id` unless the operator renamed it."""
    description: str = ""
    aliases: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the keyword parameters, for local models."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the payload, for local models."""
    output: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the answer's `output`, for local models."""
    is_task_certain: bool = True
    """False when the task was only guessed from the model's name."""
    created: int = 0
    price: Price | None = None
    limits: tuple[str, ...] = ()
    """Limits that all callers of the model share, as lingpai.toml gives them; others may be set at run time."""
    user_limits: tuple[str, ...] = ()
    """Limits that each user has on the model, as lingpai.toml gives them."""
    default_max_tokens: int | None = None
    """Longest answer of a call that names no length and has token or money limits; None: the server's default."""
    tokenizer: Any = None
    """The model's own tokenizer (metering's), when the operator gave one."""

    @property
    def owner(self) -> str:
        owner, slash, _ = self.id.partition("/")
        return owner if slash else self.backend.name
