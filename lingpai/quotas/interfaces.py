"""What quotas ask of the other parts, and what they call the one who is limited."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from lingpai.principal import Principal

SubjectKind: TypeAlias = Literal["key", "user"]
Subject: TypeAlias = tuple[SubjectKind, str]
"""Who is limited: the kind and the identifier."""


class UsageHistory(Protocol):
    """The requests that were charged so far. Blocking; called from worker threads, never from the event loop.

    A request's time is the `now` with which it was admitted; the usage record must carry the same value, or a window
    rebuilt after a restart could differ by the requests at its edge. Requests that were given back do not count.
    """

    def requests_since(self, subject: Subject, since: float) -> int:
        """How many requests of `subject` were charged at `since` (Unix seconds) or later."""
        ...

    def request_times_since(self, subject: Subject, since: float) -> list[float]:
        """When the requests of `subject` charged at `since` or later were admitted, earliest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedSubject:
    """A key or user as the limits API shows it; `limits` are the strings the operator wrote."""

    kind: SubjectKind
    id: str
    name: str
    limits: tuple[str, ...]

    @property
    def subject(self) -> Subject:
        return self.kind, self.id

    @property
    def label(self) -> str:
        """For sentences: key `ci`."""
        return f"{self.kind} `{self.name}`"


class SubjectDirectory(Protocol):
    """Looks up who is limited. Blocking; called from worker threads.

    A caller sees what its role allows: administrators everything, members their own user and its keys. The rest does
    not exist for them (`not_found`).
    """

    def find(self, caller: Principal, kind: SubjectKind, id_or_name: str) -> LimitedSubject:
        """The key or user with that id or unique name. Raises LingpaiError `not_found`."""
        ...

    def all(self, caller: Principal) -> list[LimitedSubject]:
        """Every key and user that the caller sees and that has limits."""
        ...

    def replace_limits(self, caller: Principal, subject: Subject, limits: tuple[str, ...]) -> LimitedSubject:
        """Stores `limits` (canonical; none = unlimited) in place of the subject's, and makes them known to the gateway."""
        ...
