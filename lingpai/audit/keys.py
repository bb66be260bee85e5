"""The file with the keys that sign the trail: ``{"keys": {"2": SEED}, "public": {"1": PUBLIC}}``, in hex.

The newest version signs. Of a version that was replaced only the public half is kept: it verifies what it has signed, and
nobody can sign with it any more. A key is any 32 random bytes (RFC 8032, section 5.1.5), so making one needs no library.
"""

import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lingpai.audit.files import create_durably, replace_durably

KEY_BYTES: Final = 32
FILE: Final = Path("secrets") / "audit.json"
"""Below the data directory."""


class AuditKeyError(Exception):
    """The keys cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """The seeds of private keys, and public keys whose private half is gone, by version."""

    seeds: Mapping[int, bytes] = field(repr=False)
    public: Mapping[int, bytes]

    @property
    def newest(self) -> bytes:
        """The seed that signs."""
        return self.seeds[max(self.seeds)]


def ensure_keys(path: Path) -> None:
    """Make the file with one new key unless it is there, with mode 0600 and durably. Raises OSError."""
    if not path.exists():
        create_durably(path, _content({1: secrets.token_bytes(KEY_BYTES)}, {}))


def read_keys(path: Path) -> KeyFile:
    """The keys in the file.

    Raises AuditKeyError when there is none, when others than its owner may read it, or when it is damaged.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise AuditKeyError(
                    f"{path} can be read by others, so its keys are no secret. Run: chmod 600 {path}"
                )
            content = file.read()
    except FileNotFoundError:
        if not path.parent.exists():
            raise AuditKeyError(
                f"There is no {path}, nor its folder. Is the data directory another one (--data)?"
            ) from None
        raise AuditKeyError(
            f"There is no {path}. Restore it from a backup; without its keys nothing that was signed can be verified."
        ) from None
    try:
        return _parse(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError):
        # `from None`: the exception would show the file's content
        raise AuditKeyError(
            f"{path} is damaged. Restore it from a backup: it verifies what was signed."
        ) from None


def write_keys(path: Path, keys: KeyFile) -> None:
    """Replace the file. Raises OSError."""
    replace_durably(path, _content(keys.seeds, keys.public))


def _parse(found: Any) -> KeyFile:
    seeds, public = (
        {int(version): bytes.fromhex(key) for version, key in found.get(name, {}).items()}
        for name in ("keys", "public")
    )
    if not seeds or any(len(key) != KEY_BYTES for key in (*seeds.values(), *public.values())):
        raise ValueError
    return KeyFile(seeds=seeds, public=public)


def _content(seeds: Mapping[int, bytes], public: Mapping[int, bytes]) -> bytes:
    found: dict[str, Any] = {"keys": {str(version): seed.hex() for version, seed in seeds.items()}}
    if public:
        found["public"] = {str(version): key.hex() for version, key in public.items()}
    return json.dumps(found).encode()
