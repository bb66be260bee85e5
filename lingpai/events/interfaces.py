"""Events and their deliveries as values, and what this domain asks of others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

EventType: TypeAlias = Literal[
    "backend.down",
    "backend.up",
    "journal.damaged",
    "key.leaked",
    "limit.threshold",
    "usage.delayed",
]
"""Every type there is, ``<thing>.<what happened>``."""

EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventType)
TEST_TYPE: Final = "webhook.test"
"""Sent on request to try a webhook; never stored."""

Subject: TypeAlias = tuple[str, str]
"""Kind and id of the key, user, project or model that an event is about."""

DeliveryState: TypeAlias = Literal["waiting", "delivered", "given_up"]


class SubjectOwners(Protocol):
    """Who may see an event: the owner of its subject, or everybody with a role in the project that it is about."""

    def owners(self, subjects: Collection[Subject]) -> Mapping[Subject, str]:
        """The user ids of the subjects' owners; a subject of nobody in particular (a model, a project) is left out. Blocks."""

    def projects(self, user_id: str) -> Collection[str]:
        """The ids of the projects that a user has a role in now. Blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How far an event has come on its way to one webhook. Times are Unix seconds.

    `next_at` is None once it is delivered or given up; `last_status` is None when the last attempt got no answer, and
    `last_error` then says why.
    """

    webhook: str
    state: DeliveryState
    attempts: int
    next_at: float | None
    last_at: float | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at `occurred_at` (Unix seconds), in a sentence (`message`) and in figures (`data`).

    `subject` is what it is about, None for the whole server; `user_id` owns the subject and may see the event.
    """

    id: str
    type: str
    occurred_at: float
    message: str
    data: Mapping[str, Any]
    subject: Subject | None = None
    user_id: str | None = None
    deliveries: tuple[Delivery, ...] = ()
