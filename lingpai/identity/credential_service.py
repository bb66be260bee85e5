"""What the services of keys and of clients are made of."""

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from lingpai.identity.credential_rules import CredentialRules
from lingpai.identity.interfaces import OnChange, ValidateLimit
from lingpai.identity.minting import UNBOUNDED, Minting
from lingpai.identity.peppers import Peppers
from lingpai.storage.database import Database
from lingpai.storage.trail import Trail


class CredentialService:
    """One kind of credential; `noun` is how messages call it."""

    noun: ClassVar[str]

    def __init__(
        self,
        database: Database,
        *,
        on_change: OnChange,
        peppers: Peppers,
        validate_limit: ValidateLimit,
        default_limits: Sequence[str],
        trail: Trail,
        minting: Minting = UNBOUNDED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`default_limits` are those of a new one for which none are given and whose owner and project have none."""
        self._database = database
        self._on_change = on_change
        self._peppers = peppers
        self._rules = CredentialRules(self.noun, validate_limit, default_limits, clock)
        self._trail = trail
        self._minting = minting
        self.clock = clock
        """Unix seconds: what the state of a credential is asked at."""

    def set_default_limits(self, limits: Sequence[str]) -> None:
        """Change the limits that new ones get when none are given."""
        self._rules.set_default_limits(limits)
