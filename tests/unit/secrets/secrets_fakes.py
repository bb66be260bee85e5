"""A clock that the test moves, and rows that need versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from lingpai.principal import Principal
from lingpai.storage.trail import Deed

NOW = 1_795_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Uses:
    """Things that need versions, as the test says."""

    what: str = "API keys"
    counted: dict[int, int] = field(default_factory=dict)

    def count(self, connection: Connection, now: float) -> Mapping[int, int]:
        return self.counted


class Trail:
    """Keeps what was recorded."""

    def __init__(self) -> None:
        self.deeds: list[tuple[str, str]] = []
        self.fault: Exception | None = None

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        if self.fault is not None:
            raise self.fault
        self.deeds.append((deed.action, deed.target_id))


def error_of(caught: Any) -> tuple[str, str | None]:
    return caught.value.code, caught.value.param
