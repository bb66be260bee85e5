"""How limits are written: ``AMOUNT [requests] / WINDOW [@ TIMEZONE]``, as in ``2000/day@Asia/Shanghai`` or ``10/1s``.

Case and blanks do not matter. `str` of a `Limit` is the canonical spelling: no unit, no blanks, no zone for UTC, and
the largest whole unit of a duration (``10/60s`` becomes ``10/1m``).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn, cast, get_args
from zoneinfo import available_timezones

from lingpai.errors import did_you_mean
from lingpai.quotas.windows import CalendarWindow, Duration, Unit, Window, time_zone

MAX_AMOUNT: Final = 10**15
MAX_DURATION_S: Final = 366 * 86_400
EXAMPLES: Final = "Write AMOUNT/WINDOW, for example `2000/day@Asia/Shanghai` or `10/1s`."

_MAX_LENGTH: Final = 100
_LIMIT: Final = re.compile(
    r"(?P<amount>[0-9.]+) *(?P<unit>[a-z]+)? */ *(?P<window>[a-z0-9 ]+?) *(?:@ *(?P<zone>[^ ]+))?",
    re.ASCII | re.IGNORECASE,
)
_CONCURRENT: Final = re.compile(r"[0-9]+ *concurrent( *requests)?", re.ASCII | re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]{1,9}) *([smhd])")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NOT_YET: Final = ("token", "tokens", "usd", "cny")
# Names that zone files carry beside the places: another meaning on every machine, or seconds that POSIX time lacks.
_NOT_A_PLACE: Final = ("localtime", "posixrules", "Factory", "posix/", "right/")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` requests per `window`."""

    amount: int
    window: Window

    @property
    def words(self) -> str:
        """For sentences: ``2000 requests per day``."""
        noun = "request" if self.amount == 1 else "requests"
        return f"{self.amount} {noun} per {self.window.words}"

    def __str__(self) -> str:
        return f"{self.amount}/{self.window}"


@lru_cache(maxsize=4096)  # a million keys share a handful of limits, and then also the objects
def parse_limit(text: str) -> Limit:
    """The limit that `text` spells.

    Raises `ValueError`, and nothing else, with a sentence that says what is wrong and shows what is right.
    """
    match = _LIMIT.fullmatch(_tidy(text))
    if match is None:
        _refuse_unknown_form(text)
    _check_unit(text, match["unit"])
    return Limit(_amount(text, match["amount"]), _window(text, match["window"].casefold(), match["zone"]))


def canonical_limit(text: str) -> str:
    """The canonical spelling of the limit `text`. Raises `ValueError` as `parse_limit` does."""
    return str(parse_limit(text))


def _tidy(text: str) -> str:
    return " ".join(text.split()) if len(text) <= _MAX_LENGTH else ""


def _refuse_unknown_form(text: str) -> NoReturn:
    if _CONCURRENT.fullmatch(_tidy(text)):
        _refuse_not_enforced(text)
    raise ValueError(f"{_quoted(text)} is not a limit. {EXAMPLES}")


def _check_unit(text: str, unit: str | None) -> None:
    if unit is None or unit.casefold() in {"request", "requests"}:
        return
    if unit.casefold() in _NOT_YET:
        _refuse_not_enforced(text)
    raise ValueError(
        f"{_quoted(text)} counts {_quoted(unit)}, which is unknown; limits count requests. {EXAMPLES}"
    )


def _refuse_not_enforced(text: str) -> NoReturn:
    raise ValueError(
        f"{_quoted(text)} cannot be set: only request limits are enforced by this version. {EXAMPLES}"
    )


def _amount(text: str, digits: str) -> int:
    if not digits.isdigit():
        raise ValueError(f"The amount in {_quoted(text)} must be a whole number. {EXAMPLES}")
    amount = int(digits)
    if amount < 1:
        raise ValueError(
            f"The amount in {_quoted(text)} must be at least 1. To allow no calls at all, disable the key."
        )
    if amount > MAX_AMOUNT:
        raise ValueError(f"The amount in {_quoted(text)} is too large; the most is {MAX_AMOUNT}.")
    return amount


def _window(text: str, window: str, zone: str | None) -> Window:
    unit = window.removesuffix("s")
    if unit in get_args(Unit):
        return CalendarWindow(cast("Unit", unit), "UTC" if zone is None else _zone_name(zone))
    duration = _DURATION.fullmatch(window)
    if duration is None:
        raise ValueError(
            f"{_quoted(window)} is not a window: use minute, hour, day, week or month, "
            f"or a duration such as 1s, 10m, 2h, 1d. {EXAMPLES}"
        )
    if zone is not None:
        raise ValueError(
            f"{_quoted(text)} gives a time zone to a duration, which follows no calendar. "
            f"Leave {_quoted('@' + zone)} out, or use minute, hour, day, week or month."
        )
    return Duration(_duration_seconds(text, int(duration[1]) * _SECONDS[duration[2]]))


def _duration_seconds(text: str, seconds: int) -> int:
    if not 1 <= seconds <= MAX_DURATION_S:
        raise ValueError(
            f"The duration in {_quoted(text)} must be between 1s and {MAX_DURATION_S // 86_400}d."
        )
    return seconds


def _zone_name(zone: str) -> str:
    """The IANA name that `zone` spells; the case may be wrong."""
    if _is_zone(zone):
        return "UTC" if zone in {"Etc/UTC", "Zulu", "Etc/Zulu", "UCT", "Etc/UCT"} else zone
    known = _zones_by_folded_name()
    name = known.get(zone.casefold())
    if name is None:
        raise ValueError(
            f"There is no time zone {_quoted(zone)}; use an IANA name such as `Asia/Shanghai` or `UTC`."
            f"{did_you_mean(zone, known.values())}"
        )
    return _zone_name(name)


def _is_zone(name: str) -> bool:
    if _ZONE.fullmatch(name) is None or name.startswith(_NOT_A_PLACE):
        return False
    try:
        time_zone(name)
    except (KeyError, OSError, ValueError):  # unknown; a folder such as `Asia`; not a zone file
        return False
    return True


@lru_cache(maxsize=1)
def _zones_by_folded_name() -> dict[str, str]:
    return {name.casefold(): name for name in sorted(available_timezones()) if _is_zone(name)}


def _quoted(text: str) -> str:
    """`text` for a message: short, and without characters that could forge a line of a log."""
    shown = text if len(text) <= 60 else text[:60] + "…"
    return (
        "`"
        + "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown
        )
        + "`"
    )
