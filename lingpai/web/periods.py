"""Time as the reader of a usage report writes it: zones, durations, dates."""

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from lingpai.errors import LingpaiError, did_you_mean

_DURATION: Final = re.compile(r"(\d{1,6})\s*([mhdw])", re.IGNORECASE)
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_zone(name: str) -> ZoneInfo:
    """The IANA time zone `name`. Raises LingpaiError (invalid_request, param ``tz``)."""
    try:
        return ZoneInfo(name)
    except (
        ZoneInfoNotFoundError,
        ValueError,
        OSError,
    ) as exc:  # OSError: the name of a folder such as "Asia"
        near = did_you_mean(
            name[:100], (zone for zone in available_timezones() if not zone.startswith("Etc/"))
        )
        message = f"There is no such time zone. Write an IANA name such as `Asia/Shanghai` or `UTC`.{near}"
        raise LingpaiError("invalid_request", message, param="tz") from exc


def parse_moment(text: str, *, now: float, zone: ZoneInfo, param: str) -> float:
    """The unix time that `text` means. Raises LingpaiError (invalid_request) that names `param`.

    A duration (``7d``, ``12h``, ``30m``, ``2w``) is that long before `now`; a day is 24 hours. A date is its first
    moment in `zone`. A date and time without an offset is in `zone`; one that a clock change repeats is the earlier.
    """
    duration = _DURATION.fullmatch(text.strip())
    if duration is not None:
        return max(0.0, now - int(duration[1]) * _SECONDS[duration[2].lower()])
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return max(0.0, moment.timestamp())
    except (ValueError, OverflowError) as exc:
        message = f"`{param}` is neither a duration nor a date. Write `7d`, `12h`, `30m`, `2026-11-20` or `2026-11-20T15:00`."
        raise LingpaiError("invalid_request", message, param=param) from exc


def day_of(bucket: int, zone: ZoneInfo) -> str:
    """The day in `zone` that the bucket belongs to: ``2026-11-20``."""
    return datetime.fromtimestamp(bucket, zone).date().isoformat()


def hour_of(bucket: int, zone: ZoneInfo) -> str:
    """The hour in `zone` that the bucket belongs to, with the offset then in force: ``2026-11-20T15:00+08:00``.

    An hour that a clock change repeats is two hours with different offsets.
    """
    text = datetime.fromtimestamp(bucket, zone).isoformat(timespec="minutes")
    return (
        f"{text[:14]}00{text[16:]}"  # not replace(minute=0), which may cross a clock change of half an hour
    )


def iso_utc(seconds: float) -> str:
    """`seconds` since 1970 as the management API writes times: ``2026-11-20T08:00:00Z``."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_in_zone(seconds: float, zone: ZoneInfo) -> str:
    """`seconds` since 1970 to the millisecond in `zone`: ``2026-11-20T16:00:00.123+08:00``; UTC is written ``Z``."""
    text = datetime.fromtimestamp(seconds, zone).isoformat(timespec="milliseconds")
    return f"{text[:-6]}Z" if text.endswith("+00:00") and zone.key == "UTC" else text
