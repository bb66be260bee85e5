"""The limits of models, and of users on models, in memory: asked when a key first calls a model, never more often.

There are two sources. `[[models]]` in lingpai.toml says what holds from the start; what administrators set at run time
is kept in the database and goes first, subject by subject. Limits can be set for one user of a model, or for each
user (`*`) separately; what is set for one user replaces what is set for each.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from lingpai.principal import Principal
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.subjects import EACH_USER, LimitSource

CallLimits: TypeAlias = tuple[Subject, tuple[str, ...], str]
"""Who is limited, by what, and how messages call them: what `MeterLoader.load` takes."""


class ModelLimits(NamedTuple):
    """What the settings say of one model: limits that all its callers share, and those of each user of it."""

    model: tuple[str, ...] = ()
    each_user: tuple[str, ...] = ()


class ConfiguredLimits(Protocol):
    """The limits in lingpai.toml, by model. Does not block."""

    def find(self, model_id: str) -> ModelLimits:
        """Those of one model; none for a model that is not there."""
        ...

    def model_ids(self) -> Iterable[str]:
        """The models that have any."""
        ...


class NothingConfigured:
    """Settings without limits of models."""

    def find(self, model_id: str) -> ModelLimits:  # noqa: ARG002  the protocol's form
        return ModelLimits()

    def model_ids(self) -> Iterable[str]:
        return ()


class LimitStore(Protocol):
    """Where limits set at run time are kept. Blocking."""

    def all(self) -> Mapping[Subject, tuple[str, ...]]:
        """Everything that is kept."""
        ...

    def replace(self, subject: Subject, limits: tuple[str, ...] | None, *, caller: Principal | None) -> None:
        """Keep these limits, of which there may be none; None forgets what was kept. Atomic. `caller` wants it."""
        ...


@dataclass(frozen=True, slots=True)
class BookEntry:
    """What holds for one subject. `is_for_each_user` says that it was set for each user of the model."""

    subject: Subject
    limits: tuple[str, ...]
    source: LimitSource
    is_for_each_user: bool = False


class LimitBook:
    """All limits of models and of users on models. Belongs to the event loop; `find` and `entries` may be called anywhere.

    `version` grows with every change, so that others may keep what they derived. What the settings say of a model
    comes and goes with the model: whoever keeps something looks at the catalog's version, too.
    """

    def __init__(
        self,
        store: LimitStore,
        *,
        configured: ConfiguredLimits | None = None,
        on_change: Callable[[Subject], None] = lambda _: None,
    ) -> None:
        """Start empty; `load` reads what is kept. `on_change` is told of a subject (`*` included) right after a change."""
        self.version = 0
        self._store = store
        self._configured = configured or NothingConfigured()
        self._on_change = on_change
        self._kept: Mapping[Subject, tuple[str, ...]] = {}
        self._turn = asyncio.Lock()

    def load(self) -> None:
        """Read everything that is kept. Blocks: at start, before there are calls."""
        self._kept = self._store.all()
        self.version += 1

    def for_call(self, user_id: str, model_id: str, *, user_name: str = "") -> tuple[CallLimits, ...]:
        """The limits of the model, then those of the user on it, for a call of this user to this model.

        Both are always there, with no limits when there are none: loading none lets go of the meters of limits that
        were taken away, which would else come back without the calls made meanwhile. `user_name` is for messages.
        """
        model = self.find(("model", model_id))
        own = self.for_user(user_id, model_id)
        user = f"user `{user_name or user_id}` on model `{model_id}`"
        return ((model.subject, model.limits, f"model `{model_id}`"), (own.subject, own.limits, user))

    def find(self, subject: Subject) -> BookEntry:
        """What was set for exactly this subject (`*` for each user), at run time or in the settings; maybe nothing."""
        kept = self._kept.get(subject)
        if kept is not None:
            return BookEntry(subject, kept, "set")
        return BookEntry(subject, self._configured_for(subject), "settings")

    def for_user(self, user_id: str, model_id: str) -> BookEntry:
        """What holds for one user on a model: set for this user, else set for each."""
        subject = user_on(user_id, model_id)
        kept = self._kept.get(subject)
        if kept is not None:
            return BookEntry(subject, kept, "set")
        each = self.find(user_on(EACH_USER, model_id))
        return BookEntry(subject, each.limits, each.source, is_for_each_user=True)

    def entries(self, kind: Literal["model", "user_model"]) -> list[BookEntry]:
        """Every subject of a kind for which limits are set, in the order of ids."""
        subjects = {subject for subject in self._kept if subject[0] == kind}
        for model_id in self._configured.model_ids():
            subjects.add(("model", model_id) if kind == "model" else user_on(EACH_USER, model_id))
        found = map(self.find, sorted(subjects))
        return [entry for entry in found if entry.limits]

    async def replace(
        self, subject: Subject, limits: tuple[str, ...] | None, *, caller: Principal | None
    ) -> None:
        """Set the limits (canonical) of a model or of a user on one; they hold from the next call on.

        An empty tuple says that there is none, whatever the settings or `*` say; None goes back to what these say.
        """
        async with self._turn:  # so that memory sees changes in the order of the database
            await asyncio.to_thread(self._store.replace, subject, limits, caller=caller)
            others = {other: kept for other, kept in self._kept.items() if other != subject}
            # A new mapping, because threads may be looking at the one before.
            self._kept = others if limits is None else {**others, subject: limits}
            self.version += 1
            self._on_change(subject)

    def _configured_for(self, subject: Subject) -> tuple[str, ...]:
        kind, id_ = subject
        if kind == "model":
            return self._configured.find(id_).model
        user_id, _, model_id = id_.partition(" ")
        return self._configured.find(model_id).each_user if user_id == EACH_USER else ()


def user_on(user_id: str, model_id: str) -> Subject:
    """The subject that is a user on a model; `EACH_USER` for each user separately."""
    return "user_model", f"{user_id} {model_id}"
