"""The rules for what is written about keys, projects and users: names, models, limits, networks, expiry.

Each function returns the canonical form, or raises LingpaiError (invalid_request) that names the field and says how to
write it.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Final, NoReturn

from lingpai.errors import LingpaiError, did_you_mean
from lingpai.identity.interfaces import ValidateLimit
from lingpai.identity.scopes import ALL_SCOPES
from lingpai.principal import Network

MAX_NAME_LENGTH: Final = 64
MAX_MODEL_LENGTH: Final = 200
UNLIMITED: Final = "none"

_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_LIFETIME_S: Final = 100 * 366 * 86_400
_MAX_OVERLAP_S: Final = 30 * 86_400
_LIKE_A_CREDENTIAL: Final = re.compile(r"(?:at|cl|cs|rt|sk)-lp-", re.IGNORECASE)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def checked_name(name: str) -> str:
    """A key's or project's name: 1 to 64 printable characters, no slash (names stand in addresses), no blank at either end."""
    _check_text(name, param="name", most=MAX_NAME_LENGTH)
    if name != name.strip() or "/" in name or name in {".", ".."}:
        _refuse("name", "The name cannot contain `/`, begin or end with a blank, or be `.` or `..`.")
    return name


def checked_user_name(name: str) -> str:
    """A user's name: a letter or digit, then up to 63 letters, digits and ``. _ - @ +``."""
    _check_text(name, param="name", most=MAX_NAME_LENGTH)
    if not re.fullmatch(r"[^\W_][\w.@+-]*", name):
        _refuse(
            "name",
            "A user name is made of letters, digits and `. _ - @ +`, and begins with a letter or digit.",
        )
    if _LIKE_A_CREDENTIAL.match(name):
        # Where the token endpoint is told a name, it must be clear who is meant (RFC 9700 section 4.15).
        _refuse("name", "No user name begins as clients, keys and tokens do. Choose one that does not.")
    return name


def checked_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Known scopes, sorted, at least one."""
    for scope in scopes:
        if scope not in ALL_SCOPES:
            known = ", ".join(sorted(ALL_SCOPES))
            _refuse(
                "scopes",
                f"There is no scope `{scope}`.{did_you_mean(scope, ALL_SCOPES)} Scopes are: {known}.",
            )
    if not scopes:
        _refuse("scopes", "A key needs at least one scope; `model:inference` lets it call models.")
    return tuple(sorted(set(scopes)))


def check_scope_filter(scope: str | None) -> None:
    """Refuse a list of what holds a scope that does not exist; it would be empty without saying why."""
    if scope is not None and scope not in ALL_SCOPES:
        _refuse("scope", f"There is no scope `{scope}`.{did_you_mean(scope, ALL_SCOPES)}")


def checked_models(models: Sequence[str]) -> tuple[str, ...]:
    """Model ids and patterns. Whether such models exist does not matter: they may come later."""
    for model in models:
        _check_text(model, param="models", most=MAX_MODEL_LENGTH)
        if any(character.isspace() for character in model) or "*" in model[:-1]:
            _refuse(
                "models",
                f"`{model}` is no model id. Write `owner/name`, or `owner/*` for all of an owner's models.",
            )
    return _unique(models)


def checked_limits(limits: Sequence[str], validate: ValidateLimit) -> tuple[str, ...]:
    """Limits in canonical form; ``none`` alone gives no limits."""
    if [limit.strip().lower() for limit in limits] == [UNLIMITED]:
        return ()
    canonical = []
    for limit in limits:
        if limit.strip().lower() == UNLIMITED:
            _refuse("limits", "`none` means unlimited and cannot stand beside other limits.")
        try:
            canonical.append(validate(limit))
        except ValueError as exc:
            raise LingpaiError("invalid_request", str(exc), param="limits") from exc
    return _unique(canonical)


def checked_networks(networks: Sequence[str]) -> tuple[str, ...]:
    """Networks in canonical CIDR form; a bare address is a network of one."""
    return _unique(str(_network(text)) for text in networks)


def checked_expiry(text: str, *, now: float) -> float:
    """The instant meant by an ISO date (its first instant in UTC) or an ISO date and time with offset; not in the past."""
    try:
        moment = _moment(text).timestamp()
    except (ValueError, OverflowError):
        _refuse(
            "expires_at",
            "Write a date such as `2027-01-01` (the key stops at its first instant, 00:00 UTC), "
            "or a date and time with offset such as `2027-01-01T08:00:00+08:00`.",
        )
    if moment > now + _MAX_LIFETIME_S:
        _refuse(
            "expires_at", "That is more than 100 years from now. Leave it out for a key that never expires."
        )
    if moment <= now:
        _refuse("expires_at", "That time has passed already. A key must expire in the future, or never.")
    return moment


def checked_lifetime(text: str, *, now: float) -> float:
    """The instant that lies ``90d``, ``12h``, ``30m`` or ``2w`` after `now`."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([mhdw])\s*", text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _MAX_LIFETIME_S:
        _refuse(
            "expires_in", "Write a whole number and a unit: `30m`, `12h`, `90d` or `2w`; 100 years at most."
        )
    return now + seconds


def checked_overlap(text: str) -> float:
    """The seconds that a rotated secret goes on working: ``0s``, ``30m``, ``24h``, ``7d``; 30 days at most."""
    match = re.fullmatch(r"([0-9]{1,7})([smhd])", text.strip())
    seconds = int(match[1]) * ({"s": 1} | _SECONDS)[match[2]] if match else -1
    if not 0 <= seconds <= _MAX_OVERLAP_S:
        _refuse(
            "overlap",
            "Write a whole number and a unit, such as `24h`, `30m`, `7d` or `0s` for no overlap; 30 days at most.",
        )
    return float(seconds)


def _check_text(text: str, *, param: str, most: int) -> None:
    if not text:
        _refuse(param, "It cannot be empty.")
    if len(text) > most:
        _refuse(param, f"It has {len(text)} characters; {most} is the most.")
    # C*: control, format (they hide or reverse text), surrogates, unassigned; Zl, Zp: line separators
    if any(unicodedata.category(character)[0] == "C" or character in "\u2028\u2029" for character in text):
        _refuse(param, "It holds control or invisible characters. Use visible ones only.")


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text.strip(), strict=True)
    except ValueError:
        _refuse("allowed_ips", _what_is_wrong_with(text))
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = ipaddress.IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        _refuse("allowed_ips", f"Write IPv4 networks as such: `{address}/{network.prefixlen - 96}`.")
    if "%" in text:
        _refuse("allowed_ips", f"`{text}` names an interface of this machine. Leave out what follows `%`.")
    return network


def _what_is_wrong_with(text: str) -> str:
    try:
        corrected = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return f"`{text[:60]}` is no address or network. Write `203.0.113.7`, `203.0.113.0/24` or `2001:db8::/32`."
    return f"`{text}` has bits set behind its prefix. Write the network `{corrected}`, or the address alone."


def _moment(text: str) -> datetime:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the offset is missing")
    return moment


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _refuse(param: str, message: str) -> NoReturn:
    raise LingpaiError("invalid_request", message, param=param) from None
