"""Times as people read them, and the machine's own time zone."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lingpai.cli.failures import UsageError

LOCALTIME: Final = Path("/etc/localtime")

_DURATION = re.compile(r"[1-9]\d*\s*[smhdw]")
_ZONE = re.compile(r"UTC|[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){1,2}")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def local_zone(environment: Mapping[str, str] = os.environ, localtime: Path = LOCALTIME) -> str:
    """The machine's IANA zone name: from TZ, else from where /etc/localtime points, else UTC."""
    zone = environment.get("TZ", "").removeprefix(":")
    if zone.startswith("/"):
        return _zone_of(zone) or "UTC"
    if zone:
        return zone if _ZONE.fullmatch(zone) else "UTC"
    return _zone_of(str(localtime.resolve())) or "UTC"


def _zone_of(path: str) -> str | None:
    _, found, zone = path.partition("zoneinfo/")
    zone = zone.removeprefix("posix/").removeprefix("right/")
    return zone if found and _ZONE.fullmatch(zone) else None


def expiry_fields(text: str | None) -> dict[str, str]:
    """`--expires` as the API wants it: `expires_in` for a duration, `expires_at` for a date or time."""
    if text is None:
        return {}
    value = text.strip()
    if _DURATION.fullmatch(value):
        return {"expires_in": value.replace(" ", "")}
    if _is_date(value):
        return {"expires_at": value}
    raise UsageError(f"--expires {text!r} is neither a duration (90d, 12h) nor a date (2027-01-31).")


def new_expiry(text: str) -> str | None:
    """`--expires` of something that is there already: the date or time it ends, None for `never`.

    A duration counts from now, by this machine's clock.
    """
    value = text.strip()
    if value.lower() == "never":
        return None
    fields = expiry_fields(value)
    if "expires_at" in fields:
        return fields["expires_at"]
    count, unit = fields["expires_in"][:-1], fields["expires_in"][-1]
    try:
        moment = datetime.now(UTC) + timedelta(seconds=int(count) * _SECONDS[unit])
    except OverflowError as exc:
        raise UsageError(f"--expires {text!r} is too far away. Use never for no end.") from exc
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _is_date(text: str) -> bool:
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            read(text)
        except ValueError:
            continue
        return True
    return False


def shown_time(iso: str | None, *, now: datetime | None = None) -> str | None:
    """An ISO time as `2026-11-20 16:00 (3 hours ago)` in local time; unchanged when it is not one."""
    if not iso:
        return None
    try:
        moment = datetime.fromisoformat(iso).astimezone()
    except ValueError:
        return iso
    distance = moment - (now or datetime.now(UTC))
    return f"{moment:%Y-%m-%d %H:%M} ({shown_distance(distance)})"


def shown_ago(iso: str | None) -> str | None:
    """An ISO time as its distance alone, such as `3 hours ago`; unchanged when it is not one."""
    moment = _read(iso)
    return iso if moment is None else shown_distance(moment - datetime.now(UTC))


def is_past(iso: str | None) -> bool:
    """Whether an ISO time has passed; no time never does."""
    moment = _read(iso)
    return moment is not None and moment <= datetime.now(UTC)


def shown_in_zone(iso: str | None, zone: str, *, latest: datetime | None = None) -> str | None:
    """An ISO time as `2026-11-20 16:00` in an IANA zone, not later than `latest`; unchanged when that cannot be said."""
    moment = _read(iso)
    try:
        place = ZoneInfo(zone)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return iso
    if moment is None:
        return iso
    return f"{min(moment, latest or moment).astimezone(place):%Y-%m-%d %H:%M}"


def _read(iso: str | None) -> datetime | None:
    """The moment that an ISO time with its offset names; None for anything else."""
    try:
        moment = datetime.fromisoformat(iso or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def shown_distance(distance: timedelta) -> str:
    """`in 3 hours`, `2 days ago`, `now`: the largest unit that fits, rounded down."""
    seconds = int(abs(distance.total_seconds()))
    for size, name in _UNITS:
        count = seconds // size
        if count:
            amount = f"{count} {name}{'s' if count > 1 else ''}"
            return f"in {amount}" if distance > timedelta() else f"{amount} ago"
    return "now"
