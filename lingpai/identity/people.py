"""How people sign in, put together: passwords, sessions, invitations, and leaving."""

import time
from collections.abc import Callable
from typing import Final

from lingpai.identity.interfaces import OnChange, RevokesTokens
from lingpai.identity.invitations.service import Invitations
from lingpai.identity.passwords.changing import PasswordChanges
from lingpai.identity.passwords.devices import Devices
from lingpai.identity.passwords.dummies import Dummies
from lingpai.identity.passwords.hashing import HashingPool
from lingpai.identity.passwords.revocation import SqlTokenRevoker
from lingpai.identity.passwords.service import NetworkOf, Passwords
from lingpai.identity.peppers import Peppers
from lingpai.identity.removal import UserRemoval
from lingpai.identity.service import ADMIN_NAME
from lingpai.identity.sessions.memory import SessionMemory
from lingpai.identity.sessions.service import Sessions
from lingpai.identity.settings import IdentitySettings
from lingpai.storage.database import Database
from lingpai.storage.trail import Trail

CLEAN_EVERY_S: Final = 3600.0


class People:
    """The parts, and what they share. `close` lets go of the threads."""

    def __init__(
        self,
        database: Database,
        *,
        settings: IdentitySettings,
        peppers: Peppers,
        network_of: NetworkOf,
        generation: Callable[[], int],
        on_change: OnChange,
        trail: Trail,
        tokens: RevokesTokens | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`generation` grows with every change to a key, user or project; `tokens` are revoked with a password and by signing out everywhere."""
        revoker = tokens or SqlTokenRevoker(clock)
        self.settings = settings
        self.devices = Devices(peppers)
        self._pool = HashingPool(settings)
        self.passwords = Passwords(
            database,
            settings=settings,
            pool=self._pool,
            devices=self.devices,
            dummies=Dummies(settings, peppers),
            network_of=network_of,
            trail=trail,
            clock=clock,
            monotonic=monotonic,
        )
        self.sessions = Sessions(
            database,
            settings=settings,
            peppers=peppers,
            memory=SessionMemory(generation, monotonic=monotonic),
            network_of=network_of,
            tokens=revoker,
            on_change=on_change,
            trail=trail,
            clock=clock,
        )
        self.invitations = Invitations(
            database,
            settings=settings,
            peppers=peppers,
            sessions=self.sessions,
            tokens=revoker,
            on_change=on_change,
            trail=trail,
            clock=clock,
        )
        self.password_changes = PasswordChanges(
            database,
            passwords=self.passwords,
            sessions=self.sessions,
            tokens=revoker,
            on_change=on_change,
            trail=trail,
            clock=clock,
        )
        self.removal = UserRemoval(
            database, operator=ADMIN_NAME, on_change=on_change, trail=trail, clock=clock
        )

    def remove_expired(self) -> None:
        """Remove sessions and invitations whose time is over. Blocks."""
        while self.sessions.remove_expired() or self.invitations.remove_expired():
            pass

    def close(self) -> None:
        """Let go of the threads that hash passwords."""
        self._pool.close()
