"""Response headers that say what is left: OpenAI's ``x-ratelimit-*`` and the IETF's ``ratelimit``.

Sent on every model call, admitted or refused:

- ``x-ratelimit-limit-requests``, ``-remaining-requests``, ``-reset-requests`` are about the tightest limit on requests,
  the one with the smallest share left; the same with ``tokens`` about the tightest limit on tokens. The reset is
  OpenAI's duration text (``12ms``, ``6s``, ``9h3m0s``) until the whole amount is back.
- ``ratelimit-policy`` and ``ratelimit`` (draft-ietf-httpapi-ratelimit-headers) list all limits, named ``key-day`` or
  ``key-day-tokens``. ``t`` is the time until the whole amount is back, but until the next request may come once
  nothing is left, because a client must not find ``t`` later than ``retry-after``. Money is counted in millionths,
  rounded down; concurrent requests have no ``w`` and no ``t``.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Final

from lingpai.quotas.amounts import UNITS
from lingpai.quotas.meter import HEADER_MONEY, Meter

_REQUESTS: Final = b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
_TOKENS: Final = _REQUESTS.replace(b"-requests:", b"-tokens:")
_ALL: Final = b"ratelimit-policy: %b\r\nratelimit: %b\r\n"
_LINES: Final = _REQUESTS + _ALL
_REQUESTS_INDEX: Final = UNITS.index("requests")
_TOKENS_INDEX: Final = UNITS.index("tokens")
_MONEY_INDEXES: Final = (UNITS.index("USD"), UNITS.index("CNY"))
_OPENAI_LINES: Final = {_REQUESTS_INDEX: _REQUESTS, _TOKENS_INDEX: _TOKENS}


def rate_limit_headers(meters: Sequence[Meter], now: float) -> bytes:
    """Header lines, each ending in CRLF, with names in lower case; nothing when there are no `meters`."""
    if not meters:
        return b""
    tightest, least, wait, share = meters[0], 0, 0, 2.0
    policies, items = [], []
    for meter in meters:
        if meter.index:
            return _of_several_units(meters, now)
        left, seconds = meter.left_and_wait(now)
        policies.append(meter.policy)
        items.append(meter.item % (left, seconds))
        if left / meter.amount < share:
            tightest, least, wait, share = meter, left, seconds, left / meter.amount
    reset = _reset(tightest, least, wait, now)
    return _LINES % (tightest.amount, least, reset, b", ".join(policies), b", ".join(items))


def _of_several_units(meters: Sequence[Meter], now: float) -> bytes:
    policies, items = [], []
    shares = {_REQUESTS_INDEX: 2.0, _TOKENS_INDEX: 2.0}
    lines = {_REQUESTS_INDEX: b"", _TOKENS_INDEX: b""}
    tightest: dict[int, tuple[Meter, int, int]] = {}
    for meter in meters:
        left, wait = meter.left_and_wait(now)
        index = meter.index
        policies.append(meter.policy)
        items.append(meter.item % (left // HEADER_MONEY if index in _MONEY_INDEXES else left, wait))
        if left / meter.amount < shares.get(index, 0.0):
            shares[index] = left / meter.amount
            tightest[index] = (meter, left, wait)
    for index, (meter, left, wait) in tightest.items():
        lines[index] = _OPENAI_LINES[index] % (meter.amount, left, _reset(meter, left, wait, now))
    return b"".join(lines.values()) + _ALL % (b", ".join(policies), b", ".join(items))


def _reset(meter: Meter, left: int, wait: int, now: float) -> bytes:
    """When the whole amount is back. `wait` says so as long as something is left, to the second."""
    return whole_seconds_text(wait) if left and wait > 1 else reset_text(meter.resets_at(now) - now)


def reset_text(seconds: float) -> bytes:
    """A duration as OpenAI writes it, rounded up: milliseconds below a second, whole seconds above."""
    if seconds > 0.999:
        return whole_seconds_text(ceil(seconds))
    return b"%dms" % ceil(seconds * 1000) if seconds > 0 else b"0s"


@lru_cache(maxsize=4096)
def whole_seconds_text(seconds: int) -> bytes:
    """A duration as OpenAI writes it: ``6s``, ``6m0s``, ``9h3m0s``."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
