"""A server's long-lived secrets of one kind, in numbered versions: from a file of its own, or from the environment.

The highest version is used for everything new; the others stay as long as something that was made with them is to work.
In the environment another version can be marked, so that several servers can be told of a new one before any uses it.
A version is on the disk before it is used, and taken away after its last use, so a process that is killed in between
leaves nothing that does not work.
"""

import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from lingpai.storage.secret_files import (
    ExposedFileError,
    read_secret_file,
    replace_secret_file,
    sole_writer,
)

log = logging.getLogger("lingpai.secrets")

SECRET_BYTES: Final = 32
HIGHEST_VERSION: Final = 999_999
_PART: Final = re.compile(r"\s*(\*)?(?:([0-9]{1,6}):)?((?:[0-9a-fA-F]{2}){32,})\s*")

Signature = tuple[int, int, int]
"""Tells one content of a file from another: device-wide number, time of change, size."""
_GONE: Final[Signature] = (0, 0, 0)


class SecretError(Exception):
    """The secrets cannot be used or changed; the message says why and what to do, and never shows one."""


class FixedSecretsError(SecretError):
    """The secrets come from the environment, where a server cannot change them."""


@dataclass(frozen=True, slots=True)
class SecretKind:
    """What secrets of a kind are called."""

    name: str
    """In words and commands: `pepper`."""
    field: str
    """In the file: `peppers`."""
    variable: str
    """The environment variable that may hold them instead."""
    loss: str
    """What does not work without them, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class _Held:
    """All versions at one moment; replaced as a whole, because several threads read it."""

    by_version: Mapping[int, bytes] = field(repr=False)
    created_at: Mapping[int, float]
    newest: int
    signature: Signature | None = None


class VersionedSecrets:
    """All versions of one kind. Neither `repr` nor an exception ever shows one. Any thread may use it."""

    kind: ClassVar[SecretKind]

    __slots__ = ("_clock", "_held", "_path", "_refused")

    def __init__(
        self,
        by_version: Mapping[int, bytes],
        *,
        current: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take these, and use `current` (else the highest) for everything new.

        Raises SecretError when there is none or one is shorter than 32 bytes.
        """
        self._clock = clock
        self._path: Path | None = None
        self._refused: Signature | None = None
        self._held = self._checked(by_version, {}, current=current)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Those of an environment variable: 64 or more hex digits, or several as ``1:HEX,2:HEX``.

        ``*1:HEX,2:HEX`` knows version 2 but goes on using version 1. Raises SecretError when the text is anything else;
        the message does not repeat it.
        """
        by_version: dict[int, bytes] = {}
        marked: list[int] = []
        for part in text.split(","):
            match = _PART.fullmatch(part)
            if match is None or int(match[2] or 1) in by_version or (match[1] and marked):
                raise SecretError(
                    f"{cls.kind.variable} must be at least 64 hex digits (`openssl rand -hex 32` makes them), "
                    "or several such as `1:HEX,2:HEX` with the newest having the highest number"
                )
            version = int(match[2] or 1)
            by_version[version] = bytes.fromhex(match[3])
            marked += [version] if match[1] else []
        return cls(by_version, current=marked[0] if marked else None)

    @classmethod
    def from_file(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Those in `path`, which is made with one random secret when it does not exist.

        The file gets mode 0600 and its folder 0700. Raises SecretError when others than the owner may read the file, or
        when it is not what this class wrote; OSError when it cannot be read or made.
        """
        if not path.exists():
            with sole_writer(path.parent):
                if not path.exists():  # another process may have been first
                    first = {1: secrets.token_bytes(SECRET_BYTES)}
                    replace_secret_file(path, cls._written(first, {1: clock()}))
        made = cls.__new__(cls)
        made._clock, made._path, made._refused = clock, path, None
        made._held = made._read()
        return made

    def refuse_other_file(self, path: Path) -> None:
        """Raise SecretError when the file has another secret under a number that these have, too: one of them is wrong.

        A file that is not there, or cannot be used, is not needed and says nothing.
        """
        if not path.exists():
            return
        try:
            filed = type(self).from_file(path)
        except (OSError, SecretError):
            return
        for version in self._held.by_version:
            if version in filed and not hmac.compare_digest(self.value(version), filed.value(version)):
                name, variable = self.kind.name, self.kind.variable
                raise SecretError(
                    f"{variable} has another {name} {version} than {path}, and with a wrong one {self.kind.loss}."
                    f" Take the value from the file, as `{version}:HEX`; a new one gets the next number; or remove the"
                    " file if it is not this server's."
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(versions={sorted(self._held.by_version)})"

    def __contains__(self, version: int) -> bool:
        return version in self._held.by_version

    @property
    def newest_version(self) -> int:
        """The version that everything new is made with: the highest, unless the environment marks another one."""
        return self._held.newest

    @property
    def is_fixed(self) -> bool:
        """Whether they come from the environment, so that a running server cannot change them."""
        return self._path is None

    @property
    def place(self) -> str:
        """Where they come from, for people: a path or the name of a variable."""
        return self.kind.variable if self._path is None else str(self._path)

    def versions(self) -> dict[int, float | None]:
        """Every version and when it was made, the oldest first; None where that is not known."""
        held = self._held
        return {version: held.created_at.get(version) for version in sorted(held.by_version)}

    def value(self, version: int) -> bytes:
        """The secret itself. Raises KeyError for a version that is not held."""
        return self._held.by_version[version]

    def learn(self, version: int) -> bool:
        """Whether `version` is held. Reads the file again when it is not, because another process may have made it.

        Blocks. Costs a look at the file's times as long as the file stays the same.
        """
        return version in self or (self.reread() and version in self)

    def reread(self) -> bool:
        """Take over what the file holds now; False when that is nothing new.

        A file that cannot be used changes nothing and is told on the log.
        """
        path, before = self._path, self._held
        if path is None:
            return False
        signature = _signature(path)
        if signature in (before.signature, self._refused):
            return False
        try:
            held = self._read()
        except (OSError, SecretError) as error:
            self._refused = signature  # so that the log says it once
            name = self.kind.name
            log.error("the %s file was not read again, what was read before stays: %s", name, error)  # noqa: TRY400
            return False
        self._held, self._refused = held, None
        if held.by_version == before.by_version:
            return False
        log.info("the %s file now has the versions %s", self.kind.name, _listing(held.by_version))
        return True

    def rotate(self) -> int:
        """Make a new version, on the disk first and then in use; returns its number.

        Raises FixedSecretsError when they come from the environment, OSError when the file cannot be written.
        """
        path = self._changeable("rotate")
        with sole_writer(path.parent):
            held = self._read()
            version = held.newest + 1
            by_version = {**held.by_version, version: secrets.token_bytes(SECRET_BYTES)}
            replace_secret_file(path, self._written(by_version, {**held.created_at, version: self._clock()}))
            self._held = self._read()
        return version

    def retire(self, version: int) -> None:
        """Take a version away for good. Nothing may have been made with it that is still to work.

        Raises KeyError when it is not held, ValueError for the newest, else as `rotate`.
        """
        path = self._changeable("retire")
        with sole_writer(path.parent):
            held = self._read()
            if version == held.newest:
                raise ValueError("the newest version is in use")
            left = {number: value for number, value in held.by_version.items() if number != version}
            if len(left) == len(held.by_version):
                raise KeyError(version)
            replace_secret_file(path, self._written(left, held.created_at))
            self._held = self._read()

    def _changeable(self, wish: str) -> Path:
        if self._path is None:
            raise FixedSecretsError(self._advice(wish))
        return self._path

    def _advice(self, wish: str) -> str:
        kind = self.kind
        begin = f"The server has its {kind.field.replace('_', ' ')} from {kind.variable}, which only you can change. "
        if wish == "retire":
            return f"{begin}Take the version out of it and restart the server."
        known = list(self.versions())
        marks = {version: "*" if version == self.newest_version else "" for version in known}
        parts = ",".join([f"{known[-1] + 1}:NEW", *(f"{marks[version]}{version}:OLD" for version in known)])
        return (
            f"{begin}Make a new one with `openssl rand -hex 32`, set {kind.variable}={parts} (OLD: what is there now; *:"
            " the one in use) and restart the server; when all servers know it, take the * away and restart them again."
        )

    def _read(self) -> _Held:
        if self._path is None:
            raise TypeError("these come from no file")
        # The signature first: what changes in between is seen as a change the next time.
        signature = _signature(self._path)
        try:
            content = json.loads(read_secret_file(self._path))
            by_version = {
                int(version): bytes.fromhex(text) for version, text in content[self.kind.field].items()
            }
            created_at = {
                int(version): float(at) for version, at in (content.get("created_at") or {}).items()
            }
            return self._checked(by_version, created_at, signature=signature)
        except ExposedFileError as error:
            raise SecretError(str(error)) from error
        except (ValueError, TypeError, KeyError, AttributeError, SecretError):
            # `from None`: the exception would show the file's content
            raise SecretError(
                f"{self._path} is damaged. Restore it from a backup: without it {self.kind.loss}."
            ) from None

    @classmethod
    def _written(cls, by_version: Mapping[int, bytes], created_at: Mapping[int, float]) -> bytes:
        content: dict[str, Any] = {
            cls.kind.field: {str(version): value.hex() for version, value in sorted(by_version.items())},
            "created_at": {str(version): at for version, at in created_at.items() if version in by_version},
        }
        return json.dumps(content).encode()

    @classmethod
    def _checked(
        cls,
        by_version: Mapping[int, bytes],
        created_at: Mapping[int, float],
        *,
        current: int | None = None,
        signature: Signature | None = None,
    ) -> _Held:
        name = cls.kind.name
        if not by_version or min(by_version) < 1 or max(by_version) > HIGHEST_VERSION:
            raise SecretError(f"there must be at least one {name}, and versions count from 1")
        for version, value in by_version.items():
            if len(value) < SECRET_BYTES:
                raise SecretError(f"{name} version {version} is shorter than {SECRET_BYTES} bytes")
        return _Held(dict(by_version), dict(created_at), current or max(by_version), signature)


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError:
        return _GONE
    return status.st_ino, status.st_mtime_ns, status.st_size


def _listing(by_version: Mapping[int, bytes]) -> str:
    return ", ".join(map(str, sorted(by_version)))
