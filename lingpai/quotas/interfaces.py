"""What quotas ask of the other parts, and what they call the one who is limited."""

from typing import Literal, Protocol, TypeAlias

from lingpai.quotas.amounts import Unit

SubjectKind: TypeAlias = Literal["key", "client", "user", "project", "model", "user_model"]
Subject: TypeAlias = tuple[SubjectKind, str]
"""Who is limited: the kind and the identifier. A user on a model is identified by both ids with one blank between."""


class UsageHistory(Protocol):
    """What was charged so far. Blocking; called from worker threads, never from the event loop.

    A call's time is the `now` with which it was admitted; the usage record must carry the same value, or a window
    rebuilt after a restart could differ by the calls at its edge. What was given back does not count. `unit` is any but
    `concurrent`; money is in nano.
    """

    def charged_since(self, subject: Subject, unit: Unit, since: float) -> int:
        """How much of `unit` was charged for the calls that `subject` made at `since` (Unix seconds) or later."""
        ...

    def charges_since(self, subject: Subject, unit: Unit, since: float) -> list[tuple[float, int]]:
        """When the calls admitted at `since` or later that were charged took it, earliest first, and how much each.

        Requests are taken when a call is admitted. Of tokens and money the last may be taken when it ends, so that is
        their time; it may be told too late, but not too early.
        """
        ...
