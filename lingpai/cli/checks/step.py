"""One step of a check-up and its outcome."""

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Step:
    """What was looked at, how it is, and what to do about it (nothing when it is fine)."""

    name: str
    state: State
    detail: str
    todo: str | None = None

    def as_json(self) -> dict[str, str | None]:
        fields = asdict(self)
        fields["next_step"] = fields.pop("todo")
        return fields


def ok(name: str, detail: str) -> Step:
    return Step(name, "ok", detail)


def failed(name: str, detail: str, todo: str) -> Step:
    return Step(name, "failed", detail, todo)


def warning(name: str, detail: str, todo: str) -> Step:
    return Step(name, "warning", detail, todo)


def skipped(name: str, detail: str) -> Step:
    return Step(name, "skipped", detail)
