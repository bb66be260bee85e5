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


class KeptTrail(list[tuple[Principal | None, Deed]]):
    """An audit trail: who did what, in order, each in a transaction that was open. With `is_full` it fails as a full disk would."""

    is_full = False

    @property
    def deeds(self) -> list[Deed]:
        return [deed for _, deed in self]

    @property
    def callers(self) -> list[Principal | None]:
        return [caller for caller, _ in self]

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        """Keep a deed."""
        assert connection.in_transaction()
        if self.is_full:
            raise OSError("no space left on device")
        self.append((caller, deed))

    def said(self) -> list[tuple[str, str, str | None]]:
        """Action, result and reason of each."""
        return [(deed.action, deed.result, deed.reason) for deed in self.deeds]


def network_of(address: str) -> str | None:
    """Stands for the lane's: the address itself, but none for this machine."""
    return None if address in {"", "127.0.0.1", "testclient"} else address


def validate_limit(text: str) -> str:
    """Stands for the grammar of limits, which belongs to another domain."""
    canonical = text.replace(" ", "")
    if not re.fullmatch(r"\d+/\w+(@[\w/]+)?", canonical):
        raise ValueError(f"`{text}` is no limit. Write `2000/day@Asia/Shanghai`.")
    return canonical
