"""Response headers that say what is left: OpenAI's ``x-ratelimit-*`` and the IETF's ``ratelimit``.

Sent on every model call, admitted or refused:

- ``x-ratelimit-limit-requests``, ``-remaining-requests``, ``-reset-requests`` are about the tightest limit, the one
  with the smallest share left. The reset is OpenAI's duration text (``12ms``, ``6s``, ``9h3m0s``) until the whole
  amount is back.
- ``ratelimit-policy`` and ``ratelimit`` (draft-ietf-httpapi-ratelimit-headers) list all limits, named ``key-day``.
  ``t`` is the time until the whole amount is back, but until the next request may come once nothing is left, because
  a client must not find ``t`` later than ``retry-after``.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Final

from lingpai.quotas.meter import Meter

_LINES: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
    b"ratelimit-policy: %b\r\nratelimit: %b\r\n"
)


def rate_limit_headers(meters: Sequence[Meter], now: float) -> bytes:
    """Header lines, each ending in CRLF, with names in lower case; nothing when there are no `meters`."""
    if not meters:
        return b""
    tightest, least, wait, share = meters[0], 0, 0, 2.0
    policies, items = [], []
    for meter in meters:
        left, seconds = meter.left_and_wait(now)
        policies.append(meter.policy)
        items.append(meter.item % (left, seconds))
        if left / meter.amount < share:
            tightest, least, wait, share = meter, left, seconds, left / meter.amount
    reset = whole_seconds_text(wait) if least and wait > 1 else reset_text(tightest.resets_at(now) - now)
    return _LINES % (tightest.amount, least, reset, b", ".join(policies), b", ".join(items))


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
