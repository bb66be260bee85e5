"""Is it Lingpai that answers, can models be called, and do the clocks agree."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2

from lingpai.cli.checks.step import Step, failed, ok, skipped, warning
from lingpai.client import Client, ServerUnreachableError

CLOCK_TOLERANCE_S: Final = 30.0


def check_health(client: Client) -> Iterator[Step]:
    """Asks `/healthz` and `/readyz`; stops when something else than Lingpai answers."""
    try:
        answer = client.response("GET", "/healthz")
    except ServerUnreachableError as exc:
        detail = f"no answer to GET /healthz: {exc}"
        yield failed("Lingpai", detail, "Look at the server's log; is something else listening on that port?")
        return
    if not is_lingpai(answer):
        detail = f"GET /healthz answered {answer.status_code}, and not as Lingpai does"
        todo = "Check host and port; behind a reverse proxy, check where it forwards to."
        yield failed("Lingpai", f"{detail} (Server: {answer.headers.get('server', 'unknown')})", todo)
        return
    yield ok("Lingpai", "a Lingpai server answers")
    yield _ready(client)
    yield check_clock(answer.headers.get("date"), now=datetime.now(UTC))


def is_lingpai(answer: httpx2.Response) -> bool:
    """Whether Lingpai answered: it says its name, or the request id has our form."""
    says_so = "lingpai" in answer.headers.get("server", "").lower() or "lingpai" in answer.text[:1000].lower()
    return answer.is_success and (says_so or answer.headers.get("x-request-id", "").startswith("req_"))


def _ready(client: Client) -> Step:
    try:
        answer = client.response("GET", "/readyz")
    except ServerUnreachableError as exc:
        return failed("ready", f"no answer to GET /readyz: {exc}", "Look at the server's log.")
    if answer.is_success:
        return ok("ready", "models can be called")
    todo = "Wait if models are still loading, else look at the server's log and at `lingpai models list`."
    return failed("ready", _reason(answer), todo)


def _reason(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"GET /readyz answered {answer.status_code}"


def check_clock(date: str | None, *, now: datetime) -> Step:
    """The difference between this machine's clock and the Date header (whole seconds)."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return skipped("clock", "the answer has no usable Date header")
    difference = (now - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))).total_seconds()
    if abs(difference) <= CLOCK_TOLERANCE_S:
        return ok("clock", "agrees with the server's")
    direction = "ahead of" if difference > 0 else "behind"
    detail = f"this machine is {abs(difference):.0f} s {direction} the server"
    return warning("clock", detail, "Let both synchronize their time (NTP); expiry dates depend on it.")
