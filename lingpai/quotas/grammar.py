"""How limits are written: ``AMOUNT [UNIT] / WINDOW [@ TIMEZONE] [wait DURATION]``, or ``N concurrent [wait DURATION]``.

Units are requests (also when none is given), tokens, USD and CNY; ``2000/day@Asia/Shanghai``, ``10/1s``,
``100k tokens/day``, ``0.5 USD/1h``, ``8 concurrent wait 30s``. Case and blanks do not matter. `str` of a `Limit` is the
canonical spelling: no unit for requests, no ``k`` or ``M``, no zone for UTC, and the largest whole unit of a duration
(``10/60s`` becomes ``10/1m``).
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final, NoReturn, cast, get_args
from zoneinfo import available_timezones

from lingpai.errors import did_you_mean
from lingpai.prices import NANO
from lingpai.quotas.amounts import MONEY, MONEY_DECIMALS, Unit, amount_text, amount_words, money
from lingpai.quotas.windows import CalendarUnit, CalendarWindow, Duration, Window, time_zone

# Integers of HTTP's structured fields have 15 digits (RFC 9651 section 3.3.1); headers show money in millionths.
MAX_AMOUNT: Final = 10**15 - 1
MAX_MONEY: Final = (10**9 - 1) * NANO
MAX_DURATION_S: Final = 366 * 86_400
MAX_WAIT_S: Final = 600
EXAMPLES: Final = (
    "Write AMOUNT/WINDOW, for example `2000/day@Asia/Shanghai`, `10/1s`, `100000 tokens/day`, `5 USD/month` "
    "or `8 concurrent`."
)

_MAX_LENGTH: Final = 100
_FLAGS: Final = re.ASCII | re.IGNORECASE
_AMOUNT: Final = r"(?P<amount>[0-9.]+)(?:(?P<scale>[km])(?![a-z]))?"
_LIMIT: Final = re.compile(
    _AMOUNT + r" *(?P<unit>[a-z]+)? */ *(?P<window>[a-z0-9 ]+?) *(?:@ *(?P<zone>[^ ]+))?", _FLAGS
)
_CONCURRENT: Final = re.compile(_AMOUNT + r" *concurrent(?: +(?:requests?|calls?))?", _FLAGS)
_PAUSE: Final = r"wait *[:=]? *(?P<{0}>[0-9]{{1,9}} *[a-z]+)"
_WITH_WAIT: Final = re.compile(
    r"(?P<limit>[^()]*?)(?: " + _PAUSE.format("plain") + r"| ?\( *" + _PAUSE.format("bracketed") + r" *\))",
    _FLAGS,
)
_DURATION: Final = re.compile(r"([0-9]{1,9}) *([smhd])")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SCALES: Final = {"k": 1000, "m": 1_000_000}
_UNITS: Final[dict[str, Unit]] = {
    "request": "requests",
    "requests": "requests",
    "token": "tokens",
    "tokens": "tokens",
    "usd": "USD",
    "cny": "CNY",
}
# Names that zone files carry beside the places: another meaning on every machine, or seconds that POSIX time lacks.
_NOT_A_PLACE: Final = ("localtime", "posixrules", "Factory", "posix/", "right/")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of `unit` per `window`; money in nano, and no window for concurrent requests.

    `wait_s`: how long a call may queue for room before it is refused; 0 refuses at once.
    """

    amount: int
    window: Window | None
    unit: Unit = "requests"
    wait_s: float = 0

    @property
    def words(self) -> str:
        """For sentences: ``2000 requests per day``."""
        amount = amount_words(self.amount, self.unit)
        return amount if self.window is None else f"{amount} per {self.window.words}"

    def __str__(self) -> str:
        number = amount_text(self.amount, self.unit)
        amount = number if self.unit == "requests" else f"{number} {self.unit}"
        limit = amount if self.window is None else f"{amount}/{self.window}"
        return f"{limit} wait {Duration(int(self.wait_s))}" if self.wait_s else limit


@lru_cache(maxsize=4096)  # a million keys share a handful of limits, and then also the objects
def parse_limit(text: str) -> Limit:
    """The limit that `text` spells.

    Raises `ValueError`, and nothing else, with a sentence that says what is wrong and shows what is right.
    """
    limit, wait_s = _split_wait(text, _tidy(text))
    match = _CONCURRENT.fullmatch(limit)
    if match is not None:
        return Limit(_amount(text, match, "concurrent"), None, "concurrent", wait_s)
    match = _LIMIT.fullmatch(limit)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a limit. {EXAMPLES}")
    unit = _unit(text, match["unit"])
    window = _window(text, match["window"].casefold(), match["zone"])
    return Limit(_amount(text, match, unit), window, unit, wait_s)


def canonical_limit(text: str) -> str:
    """The canonical spelling of the limit `text`. Raises `ValueError` as `parse_limit` does."""
    return str(parse_limit(text))


def _tidy(text: str) -> str:
    return " ".join(text.split()) if len(text) <= _MAX_LENGTH else ""


def _split_wait(text: str, tidy: str) -> tuple[str, int]:
    match = _WITH_WAIT.fullmatch(tidy)
    if match is None:
        return tidy, 0
    duration = _DURATION.fullmatch((match["plain"] or match["bracketed"]).casefold())
    seconds = 0 if duration is None else int(duration[1]) * _SECONDS[duration[2]]
    if not 1 <= seconds <= MAX_WAIT_S:
        raise ValueError(
            f"The wait in {_quoted(text)} must be between 1s and {MAX_WAIT_S // 60}m, for example `10/1s wait 5s`."
        )
    return match["limit"].rstrip(), seconds


def _unit(text: str, unit: str | None) -> Unit:
    if unit is None:
        return "requests"
    known = _UNITS.get(unit.casefold())
    if known is not None:
        return known
    if unit.casefold() == "concurrent":
        _refuse_window_of_concurrent(text)
    raise ValueError(
        f"{_quoted(text)} counts {_quoted(unit)}, which is unknown; limits count requests, tokens, USD or CNY. {EXAMPLES}"
    )


def _refuse_window_of_concurrent(text: str) -> NoReturn:
    raise ValueError(
        f"{_quoted(text)} gives a window to concurrent requests, which are counted at every moment. "
        "Write `8 concurrent`."
    )


def _amount(text: str, match: re.Match[str], unit: Unit) -> int:
    amount = _nano(text, match["amount"]) if unit in MONEY else _whole(text, match)
    if match["scale"] and unit in MONEY:
        amount *= _SCALES[match["scale"].casefold()]
    if amount < 1:
        raise ValueError(
            f"The amount in {_quoted(text)} must be {'more than 0' if unit in MONEY else 'at least 1'}. "
            "To allow no calls at all, disable the key."
        )
    most = MAX_MONEY if unit in MONEY else MAX_AMOUNT
    if amount > most:
        raise ValueError(
            f"The amount in {_quoted(text)} is too large; the most is {amount_text(most, unit)}."
        )
    return amount


def _nano(text: str, digits: str) -> int:
    try:
        return money(digits)
    except ValueError as exc:
        raise ValueError(
            f"The amount in {_quoted(text)} must be a decimal number with at most {MONEY_DECIMALS} decimals. {EXAMPLES}"
        ) from exc


def _whole(text: str, match: re.Match[str]) -> int:
    digits, scale = match["amount"], match["scale"]
    if scale and re.fullmatch(r"[0-9]+\.[0-9]+", digits, re.ASCII):
        scaled = Decimal(digits) * _SCALES[scale.casefold()]
        if scaled == scaled.to_integral_value():
            return int(scaled)
    if not digits.isdigit():
        raise ValueError(f"The amount in {_quoted(text)} must be a whole number. {EXAMPLES}")
    return int(digits) * (_SCALES[scale.casefold()] if scale else 1)


def _window(text: str, window: str, zone: str | None) -> Window:
    unit = window.removesuffix("s")
    if unit in get_args(CalendarUnit):
        return CalendarWindow(cast("CalendarUnit", unit), "UTC" if zone is None else _zone_name(zone))
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
