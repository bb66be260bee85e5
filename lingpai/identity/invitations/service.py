"""The rules of invitations: made by administrators, shown once, used once, and only for a few days (ASVS 5.0, 6.4.1).

Accepting one sets the password of its user, ends what was there before (sessions, tokens) and signs them in. This is also
how an administrator resets a password, which they neither set nor see.
"""

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.identity.finding import find_user
from lingpai.identity.interfaces import OnChange, RevokesTokens, User
from lingpai.identity.invitations.store import SqlInvitationStore, StoredInvitation
from lingpai.identity.passwords.store import SqlPasswordStore
from lingpai.identity.peppers import Peppers
from lingpai.identity.rights import check_is_admin, visible_user
from lingpai.identity.sessions.ending import SessionEnder
from lingpai.identity.sessions.interfaces import NewSession
from lingpai.identity.sessions.service import Sessions
from lingpai.identity.settings import IdentitySettings
from lingpai.ids import credential_id, mint_credential
from lingpai.principal import Principal
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail

_NO_HMAC: Final = bytes(32)
_REMOVED_AT_A_TIME: Final = 500


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation just made and its secret, which exists nowhere else."""

    user: User
    expires_at: float
    token: str = field(repr=False)


class Invitations:
    """All invitations. All methods block. Errors are LingpaiError: ``not_found``, ``invalid_invitation`` and others."""

    def __init__(
        self,
        database: Database,
        *,
        settings: IdentitySettings,
        peppers: Peppers,
        sessions: Sessions,
        tokens: RevokesTokens,
        on_change: OnChange,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._settings = settings
        self._peppers = peppers
        self._sessions = sessions
        self._tokens = tokens
        self._on_change = on_change
        self._trail = trail
        self._clock = clock
        self._store = SqlInvitationStore()
        self._ender = SessionEnder(trail)

    def make(self, caller: Principal, reference: str) -> NewInvitation:
        """Invite a user, instead of any earlier invitation. Their password, if they have one, works until they accept."""
        minted, version = mint_credential("in-lp-"), self._peppers.newest_version
        with self._database.write() as connection:
            user = self._user(connection, caller, reference, "invite users")
            if user.disabled_at is not None:
                raise LingpaiError(
                    "invalid_request",
                    f"`{user.name}` is disabled. Enable them first: `lingpai users enable NAME`.",
                )
            now = self._clock()
            row = {
                "id": minted.id,
                "secret_hmac": self._peppers.hmac(minted.token.encode(), version),
                "pepper_version": version,
                "user_id": user.id,
                "created_at": now,
                "expires_at": now + self._settings.invitation_lifetime_s,
            }
            self._store.insert(connection, row)
            self._trail.record(connection, caller, _deed("create", minted.id, user.name))
        return NewInvitation(user, now + self._settings.invitation_lifetime_s, minted.token)

    def withdraw(self, caller: Principal, reference: str) -> None:
        """Take back the invitation of a user. Raises LingpaiError (not_found) when there is none."""
        with self._database.write() as connection:
            user = self._user(connection, caller, reference, "take invitations back")
            found = self._store.of_user(connection, user.id)
            if found is None:
                raise LingpaiError("not_found", f"`{user.name}` has no invitation.")
            self._store.delete(connection, found.id)
            self._trail.record(connection, caller, _deed("delete", found.id, user.name))

    def find(self, token: str) -> StoredInvitation:
        """The invitation with this secret. Raises LingpaiError (invalid_invitation) when it is none, or none any more."""
        with self._database.read() as connection:
            return self._valid(connection, token)

    def accept(
        self, token: str, password_hash: str, *, address: str, user_agent: str
    ) -> tuple[User, NewSession]:
        """Use the invitation up, give its user this password and sign them in. All of it happens, or nothing.

        Of several who accept the same invitation at a time, one succeeds. Raises LingpaiError (invalid_invitation).
        """
        began = time.monotonic()
        with self._database.write() as connection:
            invitation = self._valid(connection, token)
            if not self._store.delete(connection, invitation.id):
                raise invalid_invitation()
            user = find_user(connection, invitation.user_id, only=None)
            caller = Principal(user.id, user.name, user.role)
            SqlPasswordStore().set_hash(connection, user.id, password_hash, self._clock())
            self._tokens.revoke_of_user(connection, user.id, "invitation accepted")
            self._ender.end_of_user(connection, caller, user.id, "invitation accepted")
            self._trail.record(connection, caller, _deed("accept", invitation.id, user.name))
            user = find_user(connection, user.id, only=None)
            session = self._sessions.start(connection, user, address=address, user_agent=user_agent)
        self._on_change("user", user.id, began)
        return user, session

    def remove_expired(self) -> int:
        """Remove those whose time is over. Returns how many."""
        with self._database.write() as connection:
            over = self._store.over(connection, self._clock(), _REMOVED_AT_A_TIME)
            for invitation in over:
                self._store.delete(connection, invitation.id)
                deed = _deed("expire", invitation.id, invitation.user_name)
                self._trail.record(connection, None, deed)
        return len(over)

    def _valid(self, connection: Connection, token: str) -> StoredInvitation:
        encoded = token.encode()
        invitation_id = credential_id(encoded) if token.startswith("in-lp-") else None
        if invitation_id is None:
            raise invalid_invitation()
        found = self._store.find(connection, invitation_id)
        version, stored = self._peppers.newest_version, _NO_HMAC
        if found is not None and found.pepper_version in self._peppers:
            version, stored = found.pepper_version, found.secret_hmac
        # One HMAC and one comparison in every case, so that timing does not tell which ids exist.
        is_right = hmac.compare_digest(self._peppers.hmac(encoded, version), stored)
        if not is_right or found is None or self._clock() >= found.expires_at:
            raise invalid_invitation()
        return found

    def _user(self, connection: Connection, caller: Principal, reference: str, action: str) -> User:
        user = find_user(connection, reference, only=visible_user(caller))
        check_is_admin(caller, action)
        return user


def invalid_invitation() -> LingpaiError:
    """One answer for all that is wrong with an invitation."""
    return LingpaiError(
        "invalid_invitation",
        "The invitation is mistyped, has expired, or was used already. Ask an administrator for a new one:"
        " `lingpai users invite NAME`.",
    )


def _deed(verb: str, invitation_id: str, user_name: str) -> Deed:
    return Deed(
        action=f"invitation.{verb}",
        target_kind="invitation",
        target_id=invitation_id,
        target_name=user_name,
    )
