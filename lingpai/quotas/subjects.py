"""Who is limited, as the limits API shows it, and what quotas ask of the parts that know keys, users and models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from lingpai.principal import Principal
from lingpai.quotas.interfaces import Subject, SubjectKind

EACH_USER: Final = "*"
"""Stands for the user in limits that hold for each user of a model separately."""

LISTED_KINDS: Final[tuple[SubjectKind, ...]] = ("user", "key", "client", "project", "model", "user_model")
"""The order of lists."""

LimitSource: TypeAlias = Literal["set", "default", "settings"]
"""Where limits come from: set for this subject, `limits.default`, or `[[models]]` in lingpai.toml."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedSubject:
    """One who is limited; `limits` are canonical texts, and empty when there is no limit.

    `created_at` (Unix seconds; 0 for models) and `id` are the order within a kind. With `is_for_each_user` the limits
    were set for each user of a model, not for this one.
    """

    kind: SubjectKind
    id: str
    name: str
    limits: tuple[str, ...]
    source: LimitSource = "set"
    is_for_each_user: bool = False
    created_at: float = 0.0

    @property
    def subject(self) -> Subject:
        return self.kind, self.id

    @property
    def label(self) -> str:
        """For sentences: key `ci`; user `alice` on model `acme/shout`."""
        if self.kind != "user_model":
            return f"{self.kind} `{self.name}`"
        user, _, model = self.name.partition(" on ")
        return f"each user of model `{model}`" if self.is_everybody else f"user `{user}` on model `{model}`"

    @property
    def is_everybody(self) -> bool:
        """Whether this stands for each user of a model; what one of them used is counted under the user's own id."""
        return self.kind == "user_model" and self.id.startswith(f"{EACH_USER} ")


class Position(NamedTuple):
    """Where a page ended: the last subject's kind, creation and id."""

    kind: SubjectKind
    created_at: float
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose limits a list shows; ids, except `model`, which may be unknown. Nothing given: everybody's.

    Of these only those of one `kind`, and with `search` in their name, in either case.
    """

    key: str | None = None
    client: str | None = None
    user: str | None = None
    project: str | None = None
    model: str | None = None
    kind: SubjectKind | None = None
    search: str | None = None

    @property
    def is_everything(self) -> bool:
        return self.key is self.client is self.user is self.project is self.model is None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSubjects:
    """Whose limits a call with one credential counts against, those of the model aside.

    A call has a key, or a client whose access token it came with, or neither: a token that a user got without a
    registered client. `may_call` says whether the list of models of the key or client allows an id or alias.
    """

    key: LimitedSubject | None
    client: LimitedSubject | None
    user: LimitedSubject
    project: LimitedSubject | None
    may_call: Callable[[str], bool]

    @property
    def in_order(self) -> tuple[LimitedSubject, ...]:
        """Key, client, user, project; without those that there are not."""
        return tuple(
            subject for subject in (self.key, self.client, self.user, self.project) if subject is not None
        )

    @property
    def credential(self) -> str:
        """What the call is made with, to begin a sentence: Key `ci`."""
        if self.key is not None:
            return f"Key `{self.key.name}`"
        return f"A token of {(self.client or self.user).label}"


class SubjectDirectory(Protocol):
    """Looks up who is limited. Blocking; called from worker threads.

    A caller sees what its role allows: administrators everything, everybody else their own user, keys and clients, the
    projects they have a role in with their keys, and the models that their key may call. The rest does not exist for them: LingpaiError `not_found`.
    """

    def find(self, caller: Principal, kind: SubjectKind, reference: str) -> LimitedSubject:
        """The one with that id or unique name. A model need not exist; a user_model's reference is its id."""
        ...

    def page(
        self, caller: Principal, wanted: Wanted, *, after: Position | None, most: int
    ) -> list[LimitedSubject]:
        """Up to `most` of those that the caller sees and that have limits, in the order of `LISTED_KINDS`."""
        ...

    def of_own_call(self, caller: Principal) -> CallSubjects:
        """Everybody whose limits a call counts against that comes with the credential of `caller`."""
        ...

    def of_key(self, caller: Principal, key: str) -> CallSubjects:
        """Everybody whose limits a call with this key (id or name) counts against."""
        ...

    def of_client(self, caller: Principal, client: str) -> CallSubjects:
        """Everybody whose limits a call counts against that this client (id or name) makes on its own behalf."""
        ...

    def replace_limits(self, caller: Principal, subject: Subject, limits: tuple[str, ...]) -> None:
        """Stores `limits` (canonical; none = unlimited) of a key, client, user or project, and tells the gateway."""
        ...


Currency: TypeAlias = Literal["", "USD", "CNY"]


class KnownModel(NamedTuple):
    """A model that is served; `currency` is that of its price, and empty when it has none."""

    id: str
    currency: Currency = ""


class ModelDirectory(Protocol):
    """Which models there are. Does not block."""

    def named(self, name: str) -> KnownModel | None:
        """The model with that id or alias."""
        ...

    def nearest(self, name: str, *, may_see: Callable[[str], bool]) -> str:
        """A sentence with the nearest of the ids that may be seen and a leading blank, or nothing."""
        ...
