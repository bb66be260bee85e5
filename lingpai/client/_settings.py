"""Where the server is and who is calling: arguments, else the environment."""

import os
from dataclasses import dataclass, field
from typing import Final

from lingpai.client._address import DEFAULT_SERVER, normalize_server
from lingpai.client._errors import CredentialError

SERVER_VARIABLE: Final = "LINGPAI_SERVER"
KEY_VARIABLE: Final = "LINGPAI_API_KEY"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The server's root address and the key; an empty key means that none is sent."""

    server: str
    api_key: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}


def read_settings(server: str | None, api_key: str | None) -> ClientSettings:
    """Arguments win, then LINGPAI_SERVER and LINGPAI_API_KEY, then this machine's usual address and no key.

    Raises `AddressError` or `CredentialError`.
    """
    address = server if server is not None else os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER
    key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE, "")
    # Sent as it is, a line break would be refused deep inside the HTTP library, with the key in its message.
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise CredentialError(
            "The API key contains a blank, a line break or a character that no key has."
            f" Set {KEY_VARIABLE} to the key alone; `lingpai doctor` shows what is wrong with it."
        )
    return ClientSettings(normalize_server(address), key)
