"""Users change their passwords, and the operator on the server's own machine sets them; administrators invite."""

import asyncio
import time
from collections.abc import Callable

from lingpai.errors import LingpaiError
from lingpai.identity.finding import find_user
from lingpai.identity.interfaces import OnChange, RevokesTokens, User
from lingpai.identity.passwords.service import Passwords, Refusal
from lingpai.identity.passwords.store import SqlPasswordStore
from lingpai.identity.rights import visible_user
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.sessions.interfaces import NewSession
from lingpai.identity.sessions.service import Sessions
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail


class PasswordChanges:
    """Gives users new passwords. With the old one end all sessions and refresh tokens (RFC 9700, section 2.2.2)."""

    def __init__(
        self,
        database: Database,
        *,
        passwords: Passwords,
        sessions: Sessions,
        tokens: RevokesTokens,
        on_change: OnChange,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._sessions = sessions
        self._tokens = tokens
        self._on_change = on_change
        self._trail = trail
        self._clock = clock
        self._ender = SessionEnder(trail)

    async def change(
        self,
        caller: Principal,
        reference: str,
        *,
        password: str,
        current: str | None,
        address: str,
        user_agent: str,
        device: str | None,
    ) -> NewSession | None:
        """Give a user a new password. A caller who came with a session gets a new one, as the present one ends too.

        Oneself needs the `current` password; the operator who calls through the admin socket needs none; everybody else
        is refused. Raises LingpaiError.
        """
        user = await asyncio.to_thread(self._user, caller, reference)
        if not caller.is_local:
            await self._check_is_oneself(caller, user, current, address, device)
        await asyncio.to_thread(self._passwords.check_new, password, user_name=user.name)
        hash_ = await self._passwords.hash(password)
        made = await asyncio.to_thread(self._write, caller, user, hash_, address, user_agent)
        self._passwords.forget_failures(user.name)
        return made

    def hash_for_new_user(self, caller: Principal, name: str, password: str | None) -> str | None:
        """The hash of the password that a new user begins with; None without one. Blocks.

        Raises LingpaiError unless `caller` is the operator on the admin socket, and the password is acceptable.
        """
        if password is None:
            return None
        if not caller.is_local:
            raise LingpaiError(
                "insufficient_scope",
                "Nobody sets the password of somebody else. Make the user without one and invite them:"
                " `lingpai users invite NAME`.",
                "password",
            )
        self._passwords.check_new(password, user_name=name)
        return self._passwords.hash_blocking(password)

    def _user(self, caller: Principal, reference: str) -> User:
        with self._database.read() as connection:
            return find_user(connection, reference, only=visible_user(caller))

    async def _check_is_oneself(
        self, caller: Principal, user: User, current: str | None, address: str, device: str | None
    ) -> None:
        if user.id != caller.user_id:
            raise LingpaiError(
                "insufficient_scope",
                "Nobody sets the password of somebody else. Invite them to choose a new one:"
                f" `lingpai users invite {user.name}`.",
            )
        if current is None:
            raise LingpaiError(
                "invalid_request", "Send your present password as `current_password`.", "current_password"
            )
        found = await self._passwords.verify(user.name, current, address, device=device)
        if isinstance(found, Refusal):
            raise found.error()

    def _write(
        self, caller: Principal, user: User, hash_: str, address: str, user_agent: str
    ) -> NewSession | None:
        began = time.monotonic()
        made: NewSession | None = None
        with self._database.write() as connection:
            before = find_user(connection, user.id, only=None)
            if before.password_changed_at != user.password_changed_at:
                raise LingpaiError(
                    "invalid_credentials", "The password was changed in this moment by another."
                )
            SqlPasswordStore().set_hash(connection, user.id, hash_, self._clock())
            self._tokens.revoke_of_user(connection, user.id, "password changed")
            self._ender.end_of_user(connection, caller, user.id, "password changed")
            deed = Deed(
                action="user.set_password", target_kind="user", target_id=user.id, target_name=user.name
            )
            self._trail.record(connection, caller, deed)
            if caller.session_id is not None:
                now_is = find_user(connection, user.id, only=None)
                made = self._sessions.start(connection, now_is, address=address, user_agent=user_agent)
        self._on_change("user", user.id, began)
        return made
