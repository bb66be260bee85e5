"""The server's peppers: secrets outside the database without which the stored HMACs of credentials verify nothing.

They are versioned. New credentials use the newest version; a credential made under an older one verifies as long as
that version is kept.
"""

import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PEPPER_BYTES: Final = 32
_PART: Final = re.compile(r"\s*(?:([0-9]{1,6}):)?((?:[0-9a-fA-F]{2}){32,})\s*")


class PepperError(Exception):
    """The peppers cannot be used; the message says why and what to do. The server must not start."""


class Peppers:
    """All pepper versions. Neither `repr` nor an exception ever shows one."""

    __slots__ = ("_by_version", "newest_version")

    def __init__(self, by_version: Mapping[int, bytes]) -> None:
        """Raise PepperError when there is none or one is shorter than 32 bytes."""
        if not by_version or min(by_version) < 1:
            raise PepperError("there must be at least one pepper, and versions count from 1")
        for version, pepper in by_version.items():
            if len(pepper) < PEPPER_BYTES:
                raise PepperError(f"pepper version {version} is shorter than {PEPPER_BYTES} bytes")
        self._by_version = dict(by_version)
        self.newest_version = max(by_version)

    def __repr__(self) -> str:
        return f"Peppers(versions={sorted(self._by_version)})"

    def __contains__(self, version: int) -> bool:
        return version in self._by_version

    def hmac(self, token: bytes, version: int) -> bytes:
        """HMAC-SHA-256 of the whole `token` under the pepper of `version`. Raises KeyError for an unknown version."""
        return hmac.digest(self._by_version[version], token, "sha256")


def peppers_from_text(text: str) -> Peppers:
    """Peppers from an environment variable: 64 or more hex digits, or several as ``1:HEX,2:HEX``.

    Raises PepperError when the text is anything else; the message does not repeat it.
    """
    by_version: dict[int, bytes] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or int(match[1] or 1) in by_version:
            raise PepperError(
                "LINGPAI_PEPPER must be at least 64 hex digits (`openssl rand -hex 32` makes them), "
                "or several such as `1:HEX,2:HEX` with the newest having the highest number"
            )
        by_version[int(match[1] or 1)] = bytes.fromhex(match[2])
    return Peppers(by_version)


def peppers_from_file(path: Path) -> Peppers:
    """The peppers in `path`, made with one random pepper when it does not exist.

    The file gets mode 0600 and its folder 0700. Raises PepperError when others than the owner may read the file, or
    when it is not what this function wrote.
    """
    if not path.exists():
        _create(path)
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise PepperError(
                f"{path} can be read by others, so its secret is no secret. Run: chmod 600 {path}"
            )
        content = file.read()
    return Peppers(_parse(content, path))


def _parse(content: bytes, path: Path) -> dict[int, bytes]:
    try:
        return {
            int(version): bytes.fromhex(pepper) for version, pepper in json.loads(content)["peppers"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        # `from None`: the exception would show the file's content
        raise PepperError(
            f"{path} is damaged. Restore it from a backup: without it no existing key works."
        ) from None


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    content = json.dumps({"peppers": {"1": secrets.token_hex(PEPPER_BYTES)}})
    try:
        _write_durably(draft, content.encode())
        os.link(draft, path)  # unlike a rename, this does not replace what another process made meanwhile
    except FileExistsError:
        return
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _write_durably(path: Path, content: bytes) -> None:
    # Losing the pepper loses every key, so it must be on the disk before the first key is made.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
