"""Devices that have signed in before are known by a cookie that says so, and nothing else: it signs nobody in.

A device cookie names a device and the one account that signed in on it, under an HMAC with the server's pepper, so the
server need not remember it. While somebody guesses the password of that account from elsewhere, it lets its owner through
(`throttle`). Stolen, it gives an attacker as many guesses as a count of its own allows.
"""

import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

from lingpai.identity.peppers import Peppers
from lingpai.ids import random_base62

DEVICE_ID_LENGTH: Final = 22
_PURPOSE: Final = b"lingpai device"


@dataclass(frozen=True, slots=True)
class Devices:
    """Makes device cookies and recognises them."""

    peppers: Peppers

    def issue(self, user_name: str) -> str:
        """The cookie of a device on which `user_name` has just signed in."""
        version, device = self.peppers.newest_version, random_base62(DEVICE_ID_LENGTH)
        return f"{version}.{device}.{self._proof(version, device, user_name)}"

    def recognise(self, cookie: str | None, user_name: str) -> str | None:
        """The device's id, when `cookie` says that `user_name` has signed in on it; else None."""
        parts = (cookie or "").split(".")
        if len(parts) != 3 or not parts[0].isdecimal() or len(parts[0]) > 6 or not cookie:
            return None
        version, device, proof = int(parts[0]), parts[1], parts[2]
        if version not in self.peppers or len(device) != DEVICE_ID_LENGTH:
            return None
        is_right = hmac.compare_digest(self._proof(version, device, user_name).encode(), proof.encode())
        return device if is_right else None

    def _proof(self, version: int, device: str, user_name: str) -> str:
        # The id has a fixed length, so no name can move the border between the two.
        message = b"\0".join((_PURPOSE, device.encode(), user_name.encode()))
        return urlsafe_b64encode(self.peppers.hmac(message, version)).decode().rstrip("=")
