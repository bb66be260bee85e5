"""Is this the password of that user? Asked by whoever signs people in: sessions, and the password grant of OAuth.

Who is unknown, disabled or without a password, and who sends a wrong one, get the same answer after the same work: one
query, one argon2id, one record (OWASP ASVS 5.0, 6.3.8).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.passwords.devices import Devices
from lingpai.identity.passwords.dummies import Dummies
from lingpai.identity.passwords.hashing import HashingPool
from lingpai.identity.passwords.reports import ThrottleReports
from lingpai.identity.passwords.rules import check_new_password, normalised
from lingpai.identity.passwords.store import PasswordAccount, SqlPasswordStore
from lingpai.identity.passwords.throttle import Origin, Throttle, Wait
from lingpai.identity.settings import IdentitySettings
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

logger = logging.getLogger("lingpai.identity")

NetworkOf = Callable[[str], str | None]
"""Which network stands for an address; None where nobody in particular comes from there, such as this machine."""

LEARN_EVERY_S: Final = 3600.0
MOST_LEARNED: Final = 10_000
"""How many hashes are looked at, once an hour, to learn which parameters users have."""
MOST_CHECKS_PER_ACCOUNT: Final = 4
"""Passwords of one account (apart: from one familiar place) that are checked at a time: nobody fills the queue alone."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody is signed in. `retry_after_s` is None for `wrong`: another password may be tried at once."""

    reason: Literal["wrong", "throttled", "busy"]
    retry_after_s: int | None = None

    def error(self) -> LingpaiError:
        """What the management API answers. It never tells whether there is such a user."""
        if self.reason == "wrong":
            return LingpaiError(
                "invalid_credentials",
                "The name or the password is wrong, or this user cannot sign in. After several failures you have to"
                " wait; an administrator can send a new invitation: `lingpai users invite NAME`.",
            )
        wait = {"retry-after": str(self.retry_after_s)}
        if self.reason == "busy":
            message = f"Too many people are signing in at this moment. Try again in {self.retry_after_s} s."
            return LingpaiError("server_busy", message, headers=wait)
        message = (
            f"Too many attempts to sign in have failed. Try again in {self.retry_after_s} s. API keys and sessions work"
            " meanwhile, and so does signing in on a device where you did before."
        )
        return LingpaiError("rate_limit_exceeded", message, headers=wait)


@dataclass(frozen=True, slots=True)
class _Attempt:
    name: str
    password: bytes = field(repr=False)
    origin: Origin
    account: PasswordAccount | None
    network: str | None

    @property
    def lane(self) -> str:
        """Attempts in one lane make each other wait: those of strangers none of the owner's from where they are known."""
        return self.origin.familiar or f"account {self.name}"

    @property
    def refused_because(self) -> str:
        """For the audit trail, which administrators read, and nobody else."""
        if self.account is None:
            return "no such user"
        if self.account.user.disabled_at is not None:
            return "the user is disabled"
        return "the user has no password" if self.account.hash is None else "wrong password"


class Passwords:
    """Checks passwords. Belongs to the event loop."""

    def __init__(
        self,
        database: Database,
        *,
        settings: IdentitySettings,
        pool: HashingPool,
        devices: Devices,
        dummies: Dummies,
        network_of: NetworkOf,
        trail: Trail,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is Unix seconds; `monotonic` is never set back."""
        self._database = database
        self._settings = settings
        self._pool = pool
        self._devices = devices
        self._dummies = dummies
        self._learned_at = float("-inf")
        self.network_of = network_of
        self._trail = trail
        self._clock = clock
        self._monotonic = monotonic
        self._throttle = Throttle(settings)
        self._reports = ThrottleReports()
        self._store = SqlPasswordStore()
        self._under_way: dict[str, int] = {}

    async def verify(
        self, name: str, password: str, address: str, *, device: str | None = None
    ) -> User | Refusal:
        """The user who has this name and password, or why nobody is signed in.

        `address` is where the caller comes from; `device` is the device cookie of a browser that has one. A success is not
        recorded here, as it is part of what is given for it. Raises what the database raises.
        """
        network = self.network_of(address)
        account = await asyncio.to_thread(self._find, name, network)
        attempt = _Attempt(
            name, normalised(password), self._origin(name, network, account, device), account, network
        )
        wait = self._begin(attempt)
        if wait is not None:
            await self._report(attempt, wait)
            return Refusal("throttled", wait.seconds)
        try:
            is_right = await self._is_right(attempt)
        except LingpaiError:  # the pool is full
            self._throttle.abandoned(attempt.origin, self._monotonic())
            return Refusal("busy", 2)
        if not is_right or account is None:
            await asyncio.to_thread(self._record_failure, attempt)
            return Refusal("wrong")
        self._throttle.succeeded(attempt.origin, self._monotonic())
        await self._keep(attempt, account)
        return account.user

    def check_new(self, password: str, *, user_name: str, param: str = "password") -> None:
        """Raise LingpaiError (invalid_request) unless this may become the password of `user_name`. Blocks for some ms."""
        check_new_password(
            password, user_name=user_name, least=self._settings.password_min_length, param=param
        )

    async def hash(self, password: str) -> str:
        """The hash of a password that `check_new` accepts. Raises LingpaiError (server_busy)."""
        return await asyncio.wrap_future(self._pool.hash(normalised(password)))

    def hash_blocking(self, password: str) -> str:
        """`hash` for worker threads."""
        return self._pool.hash(normalised(password)).result()

    def forget_failures(self, name: str) -> None:
        """The user has a new password: what was tried against the old one does not count any more."""
        self._throttle.forget_account(name)

    def _find(self, name: str, network: str | None) -> PasswordAccount | None:
        with self._database.read() as connection:
            if self._monotonic() - self._learned_at >= LEARN_EVERY_S:
                self._learned_at = self._monotonic()
                self._dummies.learn(self._store.hashes(connection, MOST_LEARNED))
            return self._store.find(connection, name, network)

    def _origin(
        self, name: str, network: str | None, account: PasswordAccount | None, device: str | None
    ) -> Origin:
        known = self._devices.recognise(device, name)
        if known is not None:
            return Origin(name, network, f"device {known}")
        if account is not None and account.is_known_place:
            return Origin(name, network, f"place {account.user.id} {network}")
        return Origin(name, network)

    def _begin(self, attempt: _Attempt) -> Wait | None:
        if self._under_way.get(attempt.lane, 0) >= MOST_CHECKS_PER_ACCOUNT:
            return Wait(1, "account")
        return self._throttle.begin(attempt.origin, self._monotonic())

    async def _is_right(self, attempt: _Attempt) -> bool:
        account = attempt.account
        self._under_way[attempt.lane] = self._under_way.get(attempt.lane, 0) + 1
        try:
            stored = account.hash if account is not None else None
            # Who has no password is compared with one that nobody knows, so that both take the same time. It is made for
            # everybody: that takes time as well.
            dummy = self._dummies.hash_for(attempt.name)
            compared = stored or dummy
            is_right = await asyncio.wrap_future(self._pool.is_right(compared, attempt.password))
        finally:
            self._under_way[attempt.lane] -= 1
            if not self._under_way[attempt.lane]:
                del self._under_way[attempt.lane]
        return is_right and stored is not None and account is not None and account.user.disabled_at is None

    async def _keep(self, attempt: _Attempt, account: PasswordAccount) -> None:
        """Note from where the user signed in, and hash the password anew when the parameters have grown."""
        renewed: str | None = None
        if account.hash is not None and self._pool.is_outdated(account.hash):
            try:
                renewed = await asyncio.wrap_future(self._pool.hash(attempt.password))
            except LingpaiError:  # the pool is full: next time
                logger.info("the password of %s will be hashed anew at the next sign-in", account.user.id)
        if renewed is not None or attempt.network is not None:
            await asyncio.to_thread(self._write_what_is_kept, attempt, account, renewed)

    def _write_what_is_kept(self, attempt: _Attempt, account: PasswordAccount, renewed: str | None) -> None:
        user_id = account.user.id
        with self._database.write() as connection:
            if renewed is not None and account.hash is not None:
                self._store.replace_hash(connection, user_id, old=account.hash, new=renewed)
            if attempt.network is not None:
                self._store.note_place(connection, user_id, attempt.network, self._clock())

    # -- the audit trail

    def _record_failure(self, attempt: _Attempt) -> None:
        with self._database.write() as connection:
            self._record(connection, attempt.account, "failed", attempt.refused_because)

    async def _report(self, attempt: _Attempt, wait: Wait) -> None:
        reason = self._reports.reason(attempt.name, wait, self._monotonic())
        if reason is not None:
            await asyncio.to_thread(self._record_refusal, attempt, reason)

    def _record_refusal(self, attempt: _Attempt, reason: str) -> None:
        with self._database.write() as connection:
            self._record(connection, attempt.account, "refused", reason)

    def _record(
        self,
        connection: Connection,
        account: PasswordAccount | None,
        result: Literal["failed", "refused"],
        reason: str,
    ) -> None:
        # The name of a user who does not exist is left out: people type passwords where their names belong.
        known = account.user if account is not None else None
        deed = Deed(
            action="user.sign_in",
            target_kind="user",
            target_id=known.id if known else "",
            target_name=known.name if known else "",
            result=result,
            reason=reason,
        )
        self._trail.record(connection, None, deed)
