"""The shapes of ``/api/v1/events``."""

from typing import Any, Self

from pydantic import BaseModel, Field

from lingpai.events.interfaces import Delivery, DeliveryState, Event
from lingpai.events.service import iso_utc
from lingpai.events.webhooks import Trial


class DeliveryView(BaseModel):
    """How far an event has come on its way to one webhook."""

    webhook: str = Field(
        description="The host, and a digest of the address.", examples=["hooks.example-1f0c9a3b"]
    )
    state: DeliveryState
    attempts: int
    next_at: str | None = Field(description="When it is tried again.")
    last_at: str | None
    last_status: int | None = Field(description="null: there was no answer; `last_error` says why.")
    last_error: str | None

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """What administrators see of `delivery`."""
        return cls(
            webhook=delivery.webhook,
            state=delivery.state,
            attempts=delivery.attempts,
            next_at=_iso_or_none(delivery.next_at),
            last_at=_iso_or_none(delivery.last_at),
            last_status=delivery.last_status,
            last_error=delivery.last_error,
        )


class EventView(BaseModel):
    """Something that happened."""

    id: str
    type: str = Field(examples=["limit.threshold"])
    occurred_at: str
    message: str
    subject: str | None = Field(description="What it is about; null: the whole server.", examples=["key"])
    subject_id: str | None
    data: dict[str, Any] = Field(description="Figures; which ones depends on the type.")
    webhooks: list[DeliveryView] = Field(
        description="Where it was sent; empty for everybody but administrators."
    )

    @classmethod
    def of(cls, event: Event, *, is_admin: bool) -> Self:
        """What a caller sees of `event`."""
        kind, subject_id = event.subject or (None, None)
        deliveries = event.deliveries if is_admin else ()
        return cls(
            id=event.id,
            type=event.type,
            occurred_at=iso_utc(event.occurred_at),
            message=event.message,
            subject=kind,
            subject_id=subject_id,
            data=dict(event.data),
            webhooks=[DeliveryView.of(delivery) for delivery in deliveries],
        )


class TrialView(BaseModel):
    """What came of trying one webhook out."""

    webhook: str
    ok: bool = Field(description="Whether the receiver answered with a status from 200 to 299.")
    status: int | None = Field(description="null: there was no answer.")
    detail: str
    ms: float

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """What administrators see of `trial`."""
        answer = trial.answer
        return cls(
            webhook=trial.webhook,
            ok=answer.is_success,
            status=answer.status,
            detail=answer.words,
            ms=round(trial.milliseconds, 1),
        )


class TrialsAnswer(BaseModel):
    """What came of trying all webhooks out; empty when there are none."""

    data: list[TrialView]


def _iso_or_none(moment: float | None) -> str | None:
    return None if moment is None else iso_utc(moment)
