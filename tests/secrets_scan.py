"""Whether the tests left a secret anywhere: in a log, a database, a journal, an error, a metric or an export.

Helpers tell `SCAN` what was used (`SCAN.secrets`) and where it must not be: folders, read at the end, and texts such as
error answers. tests/conftest.py runs the scan after the last test and fails the session when it finds something, or when
a whole run left nothing to read of one of `KINDS`.

Two things need no telling. Every folder of pytest's `tmp_path` is read, and any credential of ours is known by its
checksum. A word with "canary" in it, in a request or in the arguments of a command, is a prompt that must not be found
again.
"""

import base64
import fnmatch
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import numpy as np

from lingpai.ids import credential_id

# Places that hold a secret on purpose, by the end of their path or the id of their test, and why.
ALLOWED = {
    "*/secrets/pepper.json": "the peppers' own place, mode 0600",
    "*/secrets/root.json": "the root keys' own place, mode 0600",
    "*/secrets/*.json.draft": "left by a server that was killed while it made a pepper or root key, mode 0600",
    "*/secrets/audit.json": "the place of the keys that sign the audit trail, mode 0600",
    "*/site-packages/*": "installed packages",
    "*/planted/*": "made-up keys that `lingpai keys scan` is to find",
}
# The one place where a server shows a key: the first start's output. Only the first such line of a file may.
_FIRST_KEY = re.compile(rb"shown only now\.[^\n]*\n\s+export LINGPAI_API_KEY=(\S+)")
# Commands that are there to show one secret, once, by the beginning of that secret.
_SHOWN_BY = {
    ("keys", "create"): b"sk-lp-",
    ("keys", "rotate"): b"sk-lp-",
    ("keys", "signing-keys", "create"): b"sg-lp-",
    ("clients", "create"): b"cs-lp-",
    ("clients", "signing-keys", "create"): b"sg-lp-",
    ("clients", "rotate"): b"cs-lp-",
    ("token",): b"at-lp-",
    ("users", "invite"): b"in-lp-",
}
# Commands that show what a model answered, which may be the prompt that the command was given.
_ANSWERED_BY = {("run",), ("chat",)}

ERROR_ANSWERS = "answer "  # how the place of a text begins that is one
# What a whole run of the tests must have left, by the names of files.
KINDS = {
    "log": ("stderr.txt", "*.log"),
    "database": ("lingpai.db",),
    "journal": ("*.journal",),
    "metrics": ("*-metrics.txt",),
    "export of usage as CSV": ("*-usage.csv",),
    "export of usage as JSON lines": ("*-usage.jsonl",),
    "export of requests as CSV": ("*-requests.csv",),
    "export of requests as JSON lines": ("*-requests.jsonl",),
    "list of keys": ("*-keys.json",),
    "list of clients": ("*-clients.json",),
    "list of audit records": ("*-audit.json",),
    "export of audit records as CSV": ("*-audit.csv",),
    "list of events": ("*-events.json",),
    "list of requests": ("*-requests.json",),
    "list of sessions": ("*-sessions.json",),
}

SHORTEST = 12  # a shorter text would be found by chance
SHORTEST_PASSWORD = 8  # who has to type one chooses no longer
_LONGEST = 256  # of a longer text the beginning is enough
_BLOCK = 8 << 20
_OVERLAP = 4096  # more than any form of a text of _LONGEST bytes
_SHOWN_PER_PLACE = 5

_OURS = re.compile(rb"-lp-[0-9A-Za-z]{61}")
_JWT = re.compile(rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{40,}")
_WEBHOOK_SECRET = re.compile(rb"whsec_[0-9A-Za-z+/]{32,}={0,2}")
_PEPPER = re.compile(rb"[0-9a-f]{64,}")
_CANARY = re.compile(rb"[\w.-]{0,64}canary[\w.-]{0,64}")
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PEPPER")
_SECRET_FILES = ("secrets/pepper.json", "secrets/root.json")
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def credentials_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and text of every API key, token and client secret in `data`: form and checksum are right."""
    for match in _OURS.finditer(data):
        start = match.start() - 2
        if start >= 0 and credential_id(data[start : match.end()]) is not None:
            yield start, data[start : match.end()]


def forms_of(text: bytes) -> Iterator[bytes]:
    """`text` and how it looks in JSON, in a URL, in hex, and in the base64 of something that it is part of."""
    yield text
    yield text.hex().encode()
    yield from _base64_forms(text)
    with suppress(UnicodeDecodeError):
        decoded = text.decode()
        yield json.dumps(decoded)[1:-1].encode()
        yield quote(decoded, safe="").encode()
        yield quote_plus(decoded).encode()


def _base64_forms(text: bytes) -> Iterator[bytes]:
    """The characters that depend on `text` alone, for each of the three places where it may begin in a group."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text)
        inner = encoded[(8 * before + 5) // 6 : 8 * (before + len(text)) // 6]
        yield inner
        yield inner.translate(_TO_URL_SAFE)


class Secrets:
    """What must not be found, in all its forms, and what kind of secret each is."""

    def __init__(self) -> None:
        self.needles: dict[bytes, str] = {}

    def add(self, kind: str, text: str | bytes) -> None:
        """Add a text; too short ones are left out."""
        data = text.encode() if isinstance(text, str) else text
        shortest = SHORTEST_PASSWORD if kind == "password" else SHORTEST
        if len(data) >= shortest and data[:_LONGEST] not in self.needles:
            self.needles.update(dict.fromkeys(forms_of(data[:_LONGEST]), kind))

    def add_credentials(self, text: str | bytes) -> None:
        """Add the halves of the secret of each credential in `text`, and the signatures of JWTs: the whole is found by its
        form anyway.
        """
        data = text.encode() if isinstance(text, str) else text
        for _, token in credentials_in(data):
            secret = token[18:61]
            for half in (secret[:21], secret[21:]):
                self.add("part of a key or token", half)
        for match in _JWT.finditer(data):
            self.add("signature of a JWT", match[0].rpartition(b".")[2])

    def add_prompts(self, body: bytes) -> None:
        """Add the words with "canary" in them."""
        for word in prompts_in(body):
            self.add("prompt", word)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Add provider keys, webhook secrets, peppers and passwords, known by the names of their variables."""
        for name, value in environment.items():
            if _SECRET_NAME.search(name.upper()):
                self.add_credentials(value)
                self.add_webhook_secrets(value)
                self.add(_kind_by_name(name.upper()), value)

    def add_webhook_secrets(self, text: str) -> None:
        for secret in text.split():
            if secret.startswith("whsec_"):
                self.add("webhook secret", secret.removeprefix("whsec_").rstrip("="))

    def add_pepper(self, content: bytes) -> None:
        """Add the peppers of a pepper file, or the root keys of theirs."""
        for digits in _PEPPER.findall(content):
            self.add("pepper", digits)
            self.add("pepper", bytes.fromhex(digits.decode()))


def prompts_in(text: bytes) -> set[bytes]:
    """The words with "canary" in them."""
    return set(_CANARY.findall(text)) if b"canary" in text else set()  # most have none, and some are large


def _kind_by_name(variable: str) -> str:
    """What kind of secret a variable of the environment holds."""
    if "PEPPER" in variable:
        return "pepper"
    return "password" if "PASSWORD" in variable else "provider key"


def without_what_is_shown(arguments: Sequence[str], stdin: str, output: str) -> bytes:
    """A command's output without the one secret that it is there to show, or its own prompt, which a model may repeat."""
    data = output.encode("utf-8", "surrogateescape")
    if any(tuple(arguments[: len(each)]) == each for each in _ANSWERED_BY):
        for prompt in prompts_in(" ".join((*arguments, stdin)).encode()):
            data = data.replace(prompt, b"[prompt]")
    for command, prefix in _SHOWN_BY.items():
        if tuple(arguments[: len(command)]) == command:
            shown = (token for _, token in credentials_in(data) if token.startswith(prefix))
            data = data.replace(next(shown, b"[none]"), b"[shown]", 1)
    return data


class Search:
    """All needles at once: a table says of every eight bytes whether a needle may begin with them."""

    def __init__(self, needles: Mapping[bytes, str]) -> None:
        self._kinds = needles
        self._by_head: dict[bytes, list[bytes]] = defaultdict(list)
        for needle in needles:
            self._by_head[needle[:8]].append(needle)
        self._may_begin = np.zeros(1 << 22, bool)
        self._may_begin[_slots(b"".join(self._by_head), 0)] = True

    def find(self, data: bytes) -> Iterator[tuple[int, str]]:
        """Where in `data` a secret begins, and its kind."""
        for offset, _ in credentials_in(data):
            yield offset, "key or token"
        for match in _JWT.finditer(data):
            yield match.start(), "JWT"
        for match in _WEBHOOK_SECRET.finditer(data):
            yield match.start(), "webhook secret"
        for shift in range(8):
            hits = np.flatnonzero(self._may_begin[_slots(data, shift)])
            yield from self._verified(data, [index * 8 + shift for index in hits.tolist()])

    def _verified(self, data: bytes, offsets: list[int]) -> Iterator[tuple[int, str]]:
        for offset in offsets:
            for needle in self._by_head.get(data[offset : offset + 8], ()):
                if data.startswith(needle, offset):
                    yield offset, self._kinds[needle]


def _slots(data: bytes, shift: int) -> np.ndarray:
    """The place in the table of each eight bytes of `data`, from `shift` on."""
    count = max(0, len(data) - shift) // 8
    words = np.frombuffer(data[: shift + 8 * count], "<u8", offset=shift) if count else np.empty(0, "<u8")
    return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(42)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A secret that is where it must not be. Never the secret itself."""

    place: str
    offset: int
    kind: str

    def __str__(self) -> str:
        return f"{self.place}, byte {self.offset}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was looked at and found."""

    findings: tuple[Finding, ...]
    files: int
    texts: int
    needles: int
    missing: tuple[str, ...]
    """Of which kinds there was nothing to read."""

    @property
    def summary(self) -> str:
        return (
            f"No secret in {self.files} files and {self.texts} texts; {self.needles} forms were looked for."
        )

    @property
    def report(self) -> list[str]:
        """A line for each finding, a few of each place."""
        by_place: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            by_place[finding.place].append(finding)
        lines = []
        for place, found in by_place.items():
            lines += [str(each) for each in found[:_SHOWN_PER_PLACE]]
            if len(found) > _SHOWN_PER_PLACE:
                lines.append(f"{place}: {len(found) - _SHOWN_PER_PLACE} more")
        return lines


class SecretsScan:
    """The secrets that were used, and the places where they must not be."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        self._folders: set[Path] = set()
        self._taken: set[Path] = set()
        self._texts: dict[bytes, str] = {}

    def watch(self, folder: Path) -> None:
        """Read all files of `folder` when the scan runs."""
        self._folders.add(folder.resolve())

    def take(self, folder: Path) -> None:
        """Read all files of `folder` when the scan runs, and delete them after that instead of now."""
        self.watch(folder)
        self._taken.add(folder)

    def note(self, place: str, text: str | bytes) -> None:
        """Look through a text that is in no file. Of equal ones the first is kept."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if data:
            self._texts.setdefault(data, place)

    def run(self) -> Outcome:
        """Look for everything everywhere."""
        files = sorted({path for folder in self._folders for path in _files(folder)})
        for path in files:
            if any(path.match(name) for name in _SECRET_FILES):
                self.secrets.add_pepper(path.read_bytes())
        search = Search(self.secrets.needles)
        findings = set(_in_texts(search, self._texts))
        for path in files:
            if not _is_allowed(str(path)):
                findings.update(_in_file(search, path))
        missing = tuple(_missing(files, self._texts.values()))
        for folder in self._taken:
            shutil.rmtree(
                folder, ignore_errors=True
            )  # a killed server leaves helpers that end a moment later
        return Outcome(
            tuple(sorted(findings)), len(files), len(self._texts), len(self.secrets.needles), missing
        )


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in ("site-packages", "__pycache__")]
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _missing(files: Iterable[Path], texts: Iterable[str]) -> Iterator[str]:
    """The kinds of which there is no file, or empty ones only, and "error answer" when no text is one."""
    names = {path.name for path in files if _size(path)}
    for kind, patterns in KINDS.items():
        if not any(fnmatch.filter(names, pattern) for pattern in patterns):
            yield kind
    if not any(place.startswith(ERROR_ANSWERS) for place in texts):
        yield "error answer"


def _size(path: Path) -> int:
    """Zero for what went away or is closed to us."""
    with suppress(FileNotFoundError, PermissionError):
        return path.stat().st_size
    return 0


def _is_allowed(place: str) -> bool:
    return any(fnmatch.fnmatchcase(place, pattern) for pattern in ALLOWED)


def _in_texts(search: Search, texts: Mapping[bytes, str]) -> Iterator[Finding]:
    for data, place in texts.items():
        if not _is_allowed(place):
            yield from (Finding(place, offset, kind) for offset, kind in search.find(data))


def _in_file(search: Search, path: Path) -> Iterator[Finding]:
    shown = range(0)
    for begin, data in _blocks(path):
        if begin == 0 and (first := _FIRST_KEY.search(data)):
            shown = range(*first.span(1))
        for offset, kind in search.find(data):
            if begin + offset not in shown:
                yield Finding(str(path), begin + offset, kind)


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The file in blocks that overlap, each with its offset. A file that went away or is closed to us has none."""
    with suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
        offset, tail = 0, b""
        while block := file.read(_BLOCK):
            yield offset - len(tail), tail + block
            offset += len(block)
            tail = block[-_OVERLAP:]


# One for the session: servers are started by fixtures and by tests, in many modules.
SCAN = SecretsScan()
