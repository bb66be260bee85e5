"""`lingpai audit verify`: offline, with the data directory or with an exported file."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from lingpai.audit.chain import Finding, Report
from lingpai.audit.checkpoints import kept_outside
from lingpai.audit.database_verification import NoTrailError, verify_database
from lingpai.audit.file_verification import verify_file
from lingpai.audit.keys import FILE, AuditKeyError, read_keys
from lingpai.audit.signing import PublicKeys, public_from_text, public_keys
from lingpai.cli.failures import FAILED, OK, CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import print_json, print_line
from lingpai.cli.server import data_directory
from lingpai.terminal import say

_TELL_EVERY_S: Final = 5.0


def verify(
    file: Annotated[
        Path | None, Parameter(help="An exported JSON Lines file (else the data directory's database).")
    ] = None,
    /,
    *,
    key: Annotated[
        list[str] | None,
        Parameter(
            help="A public key to trust, as `lingpai audit keys` shows it, instead of the data directory's."
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, Parameter(help="A copy of DATA/audit/checkpoint.json that was kept elsewhere.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> int:
    """Verify that no record was changed, removed, inserted or moved.

    Works without a server and beside one. What is wrong is printed, a line for each finding, with the number and the time
    of the record and its line in the file; the exit code is 1 then.
    """
    if options.server is not None:
        raise UsageError("Verifying needs no server: name a file, or the data directory with --data.")
    data = data_directory(options)
    keys = _keys(data, key)
    if file is None:
        report = _verify_database(data, keys, checkpoint or [])
    elif checkpoint:
        raise UsageError("--checkpoint is for a database. An exported file holds its checkpoints.")
    else:
        report = _verify_file(file, keys)
    _print(report, options)
    return OK if report.is_intact else FAILED


def _keys(data: Path, texts: Sequence[str] | None) -> PublicKeys:
    if texts:
        try:
            return PublicKeys([public_from_text(text) for text in texts])
        except ValueError as error:
            raise UsageError("--key is not a public key as `lingpai audit keys` shows it.") from error
    try:
        return PublicKeys(public_keys(read_keys(data / FILE)).values())
    except (AuditKeyError, OSError) as error:
        raise CommandError(
            f"There is no key to verify signatures with: {error} Name the data directory with --data, or give the"
            " public key with --key (`lingpai audit keys` on the server shows it)."
        ) from error


def _verify_database(data: Path, keys: PublicKeys, copies: Sequence[Path]) -> Report:
    # Before the database is looked at: a checkpoint that is written meanwhile would be newer than what is seen of it.
    outside = [_statement(path) for path in (*kept_outside(data), *copies)]
    progress = _Progress("records")
    try:
        return verify_database(data / "lingpai.db", keys, outside, on_progress=progress)
    except NoTrailError as error:
        raise CommandError(str(error)) from error


def _statement(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CommandError(f"The checkpoint {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"{path} is no checkpoint.")
    return found


def _verify_file(path: Path, keys: PublicKeys) -> Report:
    progress = _Progress("bytes")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return verify_file(file, keys, on_progress=lambda done: progress(done, size))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error


def _print(report: Report, options: Options) -> None:
    if options.as_json:
        print_json({"intact": report.is_intact, **asdict(report)})
        return
    for finding in report.findings:
        print_line(_sentence(finding))
    if report.more_findings:
        print_line(f"… and {report.more_findings} more")
    say(_summary(report))


def _sentence(finding: Finding) -> str:
    place = [] if finding.line is None else [f"line {finding.line}"]
    if finding.number is not None:
        place.append(f"record {finding.number}" + (f" of {finding.time}" if finding.time else ""))
    return f"{', '.join(place)}: {finding.message}" if place else finding.message


def _summary(report: Report) -> str:
    checked = f"{report.records} records and {report.checkpoints} checkpoints checked"
    if not report.is_intact:
        found = len(report.findings) + report.more_findings
        return f"{checked}: {found} {'thing is' if found == 1 else 'things are'} not as written."
    unsigned = (report.last or 0) - report.signed_up_to
    if not unsigned:
        return f"{checked}: all is as it was written, and signed."
    if not report.signed_up_to:
        return f"{checked}: all is as it was written. Nothing is signed yet; a running server signs once a minute."
    return f"{checked}: all is as it was written. The last {unsigned} are not signed yet."


class _Progress:
    """Says every few seconds how far it is."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            say(f"{done:,} of {of:,} {self._what} checked …")
