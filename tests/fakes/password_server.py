"""`lingpai serve` in which people have the passwords that LINGPAI_TEST_PASSWORDS names, as JSON: name to password.

All else is the product's: only what stands at the seam `PasswordCheck` is replaced.
"""

import asyncio
import dataclasses
import json
import os
import sys

from lingpai.cli import main
from lingpai.domains import Domains
from lingpai.errors import LingpaiError
from lingpai.identity.interfaces import User
from lingpai.identity.oauth.errors import OAuthError
from lingpai.identity.service import Users
from lingpai.serving import process
from lingpai.serving.options import ServeOptions

VARIABLE = "LINGPAI_TEST_PASSWORDS"


class WrittenPasswords:
    """Fulfils `PasswordCheck`."""

    def __init__(self, users: Users, passwords: dict[str, str]) -> None:
        self._users = users
        self._passwords = passwords

    async def verify(self, name: str, password: str, *, address: str) -> User:
        user = await asyncio.to_thread(self._user, name)
        if user is None or user.disabled_at is not None or self._passwords.get(name) != password:
            raise OAuthError("invalid_grant", "The user name or the password is wrong.")
        return user

    def _user(self, name: str) -> User | None:
        try:
            return self._users.get(self._users.local_administrator(), name)
        except LingpaiError:
            return None


_open = Domains.__init__


def _with_passwords(domains: Domains, *arguments, **options) -> None:
    _open(domains, *arguments, **options)
    passwords = WrittenPasswords(domains.users, json.loads(os.environ[VARIABLE]))
    domains.authorization.parts = dataclasses.replace(domains.authorization.parts, passwords=passwords)


def _serve_here(options: ServeOptions) -> None:
    """Stay in this program, where the seam is replaced."""
    sys.exit(process.run(options))


if __name__ == "__main__":
    Domains.__init__ = _with_passwords
    ServeOptions.become_server = _serve_here
    sys.exit(main())
