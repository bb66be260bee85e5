"""`lingpai usage rebuild`: the repair of the sums that reports and limits are made of."""

import time
from dataclasses import asdict
from typing import Annotated, Final

from cyclopts import Parameter

from lingpai.audit.service import SqlTrail
from lingpai.cli.database import open_database
from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import Cell, print_json
from lingpai.cli.tables import print_table
from lingpai.cli.times import local_zone, shown_in_zone
from lingpai.errors import LingpaiError
from lingpai.metering.rebuild import BucketRepair, Rebuild, RebuildReport
from lingpai.terminal import say
from lingpai.web.origin import command_origin, current_origin
from lingpai.web.periods import iso_utc, parse_moment, parse_zone

_TELL_EVERY_S: Final = 5.0


def rebuild(
    *,
    since: Annotated[
        str | None, Parameter(help="From when: 7d, 12h, or a date (else everything there are records of).")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Work the sums out anew from the records, and repair what differs.

    It works on the data directory, whether or not a server runs on it; what the server has in memory stays until its
    next start. Sums of records that retention has deleted are left alone.
    """
    if options.server is not None:
        raise UsageError(
            "The repair works on the data directory. Run it on the server's machine, with --data."
        )
    start = _moment(since)
    database = open_database(options)
    current_origin.set(command_origin())
    try:
        report = Rebuild(database, trail=SqlTrail(database), on_progress=_Progress()).run(start)
    except LingpaiError as error:
        raise CommandError(error.message) from error
    finally:
        database.close()
    _print(report, options)


def _moment(since: str | None) -> float:
    if since is None:
        return 0.0
    try:
        return parse_moment(since, now=time.time(), zone=parse_zone(local_zone()), param="--since")
    except LingpaiError as error:
        raise UsageError(error.message) from error


def _print(report: RebuildReport, options: Options) -> None:
    if options.as_json:
        print_json(
            {
                **asdict(report),
                "since": iso_utc(report.since),
                "repaired": [_body(each) for each in report.repaired],
            }
        )
        return
    if report.repaired:
        rows = [line for repair in report.repaired for line in _lines(repair)]
        print_table(("from", "sum", "was", "is"), rows, right=("was", "is"))
    say(
        f"{len(report.repaired)} of {report.buckets} quarters of an hour repaired,"
        f" {report.marks_repaired} places in the records found anew."
    )


def _body(repair: BucketRepair) -> dict[str, object]:
    return {**asdict(repair), "bucket_start": iso_utc(repair.bucket_start)}


def _lines(repair: BucketRepair) -> list[tuple[Cell, ...]]:
    begin = shown_in_zone(iso_utc(repair.bucket_start), local_zone())
    if not repair.before:  # the sums were right in all, but stood with others
        return [(begin, f"{repair.groups} groups", None, None)]
    return [
        (begin, name.replace("_", " "), repair.before[name], repair.after[name]) for name in repair.before
    ]


class _Progress:
    """Says every few seconds how far it is."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            say(f"{done} of {of} quarters of an hour compared …")
