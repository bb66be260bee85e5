"""`lingpai keys scan` and `lingpai keys report-leaked`: keys, tokens and secrets where they should not be."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from lingpai.cli.failures import FAILED, OK, CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import print_json
from lingpai.cli.scanning import Found, scan_paths
from lingpai.cli.server import connect
from lingpai.cli.tables import drop, print_table
from lingpai.identity.oauth.jwt_tokens import find_jwts
from lingpai.ids import find_credentials
from lingpai.terminal import say

PATH: Final = "/api/v1/keys/leaked"
_MOST_PER_REPORT: Final = 100
_MOST_BYTES_PER_REPORT: Final = 60_000
"""Of 65,536 that the server takes; the rest is for quotes and commas."""
_MOST_BYTES: Final = 100_000_000
# A server takes ten reports at once, and then one per second, of one address.
_FREE_REPORTS: Final = 8
_REPORT_INTERVAL_S: Final = 1.1


def scan(
    paths: Annotated[tuple[Path, ...], Parameter(help="Files and folders to look through.")],
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON for programs.")] = False,
) -> int:
    """Find keys, tokens and client secrets of any Lingpai server in files; exit code 1 when there are any.

    A checksum in every key makes it exact. No key is printed, only enough to recognise it. Folders are looked through
    whole, hidden files too; links are not followed. No server is asked.
    """
    unreadable: list[str] = []
    found = list(scan_paths(paths, on_unreadable=lambda path, why: unreadable.append(f"{path}: {why}")))
    for complaint in unreadable:
        say(f"Not looked at: {complaint}")
    if as_json:
        print_json([_as_json(each) for each in found])
    elif found:
        headers = ("where", "kind", "hint", "id")
        print_table(headers, [_row(each) for each in found], narrower=(drop("id"), drop("kind")))
    places = len({each.path for each in found})
    say(
        f"{len(found)} found in {places} file{'' if places == 1 else 's'}." if found else "Nothing was found."
    )
    return FAILED if found or unreadable else OK


def report_leaked(*, options: Options = NO_OPTIONS) -> None:
    """Report the keys, tokens and other secrets in a text on stdin as leaked: those that work end at once.

    Their owners are told; nobody is told which ones those were. It takes no key of one's own.
    """
    tokens = _tokens_on_stdin()
    with connect(options, is_open=True) as client:
        for number, part in enumerate(_parts(tokens)):
            if number >= _FREE_REPORTS:
                time.sleep(_REPORT_INTERVAL_S)
            client.request("POST", PATH, json={"keys": part})
    if options.as_json:
        print_json({"reported": len(tokens)})
    say(f"Reported {len(tokens)}. Those that worked do not any more.")


def _tokens_on_stdin() -> list[str]:
    if sys.stdin.isatty():
        raise UsageError("Give the text with the keys on stdin: `lingpai keys report-leaked < FILE`.")
    text = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise CommandError(f"That is more than {_MOST_BYTES:,} bytes. Give it in parts.")
    found = sorted([*find_credentials(text), *find_jwts(text)])
    tokens = list(dict.fromkeys(token.decode() for _, token in found))
    if not tokens:
        raise CommandError("There is no key with the right form and checksum in it, and no JWT of a Lingpai.")
    return tokens


def _parts(tokens: Sequence[str]) -> Iterator[list[str]]:
    part, size = list[str](), 0
    for token in tokens:
        if len(part) == _MOST_PER_REPORT or size + len(token) > _MOST_BYTES_PER_REPORT:
            yield part
            part, size = [], 0
        part.append(token)
        size += len(token)
    yield part


def _row(found: Found) -> tuple[str, ...]:
    return f"{found.path}:{found.line}", found.kind, found.hint, found.id


def _as_json(found: Found) -> dict[str, str | int]:
    return {
        "path": str(found.path),
        "line": found.line,
        "kind": found.kind,
        "hint": found.hint,
        "id": found.id,
    }
