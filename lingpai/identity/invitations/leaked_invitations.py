"""The finder of leaked invitations: whoever has one can set the password of its user."""

from sqlalchemy import Connection

from lingpai.identity.interfaces import LEAKED
from lingpai.identity.invitations.store import SqlInvitationStore, StoredInvitation
from lingpai.identity.key_secrets import stored_token_secret
from lingpai.identity.leaks import Leak
from lingpai.identity.peppers import Peppers
from lingpai.ids import credential_id
from lingpai.storage.trail import Deed, Trail


class LeakedInvitations:
    """The finder of invitations (`in-lp-`)."""

    def __init__(self, peppers: Peppers, *, trail: Trail) -> None:
        self._peppers = peppers
        self._trail = trail
        self._store = SqlInvitationStore()

    def works(self, connection: Connection, token: bytes, *, now: float) -> bool:
        """See `lingpai.identity.leaks.Finder`."""
        return self._find(connection, token, now) is not None

    def end(self, connection: Connection, token: bytes, *, now: float) -> Leak | None:
        """See `lingpai.identity.leaks.Finder`."""
        invitation = self._find(connection, token, now)
        if invitation is None:
            return None
        self._store.delete(connection, invitation.id)
        deed = Deed(
            action="invitation.delete",
            target_kind="invitation",
            target_id=invitation.id,
            target_name=invitation.user_name,
            reason=LEAKED,
        )
        self._trail.record(connection, None, deed)
        return Leak(
            kind="invitation",
            id=invitation.id,
            what=f"The invitation of `{invitation.user_name}`",
            done="It is withdrawn. Ask an administrator for another one.",
            about=("user", invitation.user_id),
        )

    def tell(self, leak: Leak, began: float) -> None:
        """See `lingpai.identity.leaks.Finder`. Nothing of an invitation is in memory."""

    def _find(self, connection: Connection, token: bytes, now: float) -> StoredInvitation | None:
        """Of a disabled user, too: it works as soon as somebody enables them."""
        id_ = credential_id(token)
        found = None if id_ is None else self._store.find(connection, id_, of_disabled=True)
        is_right = stored_token_secret(found, self._peppers).match(token, self._peppers) is not None
        return found if found is not None and is_right and now < found.expires_at else None
