"""What the tests of identity have in common: a clock, a listener, a stand-in for the grammar of limits."""

import re

from sqlalchemy import Connection

from lingpai.identity.interfaces import ChangeKind
from lingpai.principal import Principal
from lingpai.storage.trail import Deed

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
DEFAULT_LIMITS = ("2000/day@Asia/Shanghai",)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Changes(list[tuple[ChangeKind, str]]):
    """What the services reported, in order; `began` has when each of it began."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[float] = []

    def __call__(self, kind: ChangeKind, id_: str, began: float) -> None:
        self.append((kind, id_))
        self.began.append(began)


class Records(list[tuple[Principal | None, Deed]]):
    """An audit trail: who did what, in order. Each was recorded in a transaction that was open."""

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        assert connection.in_transaction()
        self.append((caller, deed))


def validate_limit(text: str) -> str:
    """Stands for the grammar of limits, which belongs to another domain."""
    canonical = text.replace(" ", "")
    if not re.fullmatch(r"\d+/\w+(@[\w/]+)?", canonical):
        raise ValueError(f"`{text}` is no limit. Write `2000/day@Asia/Shanghai`.")
    return canonical
