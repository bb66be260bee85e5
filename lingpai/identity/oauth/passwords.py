"""Passwords as the grant `password` asks for them."""

from typing import Protocol

from lingpai.identity.interfaces import User
from lingpai.identity.oauth.errors import OAuthError, too_often
from lingpai.identity.passwords.service import Refusal


class Passwords(Protocol):
    """Checks passwords (`identity.passwords.service.Passwords`)."""

    async def verify(self, name: str, password: str, address: str) -> User | Refusal: ...


class CheckedPasswords:
    """Fulfils `token_request.PasswordCheck`."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def verify(self, name: str, password: str, *, address: str) -> User:
        """The user. Raises OAuthError: invalid_grant for whatever is wrong, temporarily_unavailable for who must wait."""
        outcome = await self._passwords.verify(name, password, address)
        if isinstance(outcome, User):
            return outcome
        wait_s = outcome.retry_after_s or 1
        if outcome.reason == "throttled":
            raise too_often(wait_s)
        if outcome.reason == "busy":
            raise OAuthError(
                "temporarily_unavailable",
                f"Too many people are signing in at this moment. Try again in {wait_s} s.",
                headers={"retry-after": str(wait_s)},
            )
        raise OAuthError(
            "invalid_grant", "The user name or the password is wrong, or this user cannot sign in."
        )
