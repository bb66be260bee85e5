"""``/api/v1/keys/{id}/rotate`` and ``/api/v1/keys/leaked``."""

import asyncio
import json
from collections.abc import Callable
from math import ceil
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from lingpai.errors import LingpaiError
from lingpai.identity.known_ids import LookUps
from lingpai.identity.leak_queue import LeakQueue
from lingpai.identity.leak_schemas import LEAK_REQUEST_BODY, LeakAnswer, LeakedKeysReport
from lingpai.identity.leaks import MOST_REPORTED, LeakReports, credentials_in
from lingpai.identity.references import KeyReference
from lingpai.identity.rotation import KeyRotation
from lingpai.identity.schemas import CreatedKeyView, KeyRotate
from lingpai.identity.scopes import Scope
from lingpai.jobs.runner import JobRunner
from lingpai.principal import Principal
from lingpai.web.auth import open_route, require
from lingpai.web.errors import ERROR_RESPONSES

MOST_REPORT_BYTES: Final = 65_536
ANSWER_AFTER_S: Final = 0.25
"""When a report is answered, whatever was in it: long enough to end a hundred keys in."""


def rotation_routes(rotation: KeyRotation) -> APIRouter:
    """The route that gives a key a new secret."""
    router = APIRouter(prefix="/api/v1/keys", tags=["keys"], responses=ERROR_RESPONSES)

    @router.post("/{id}/rotate")
    def rotate_key(
        id: KeyReference,  # noqa: A002  the name on the wire
        body: KeyRotate,
        response: Response,
        caller: Annotated[Principal, require(Scope.KEYS_WRITE)],
    ) -> CreatedKeyView:
        """Give a key a new secret; the present one works until the overlap is over.

        Id, rights, limits and usage stay. This answer is the only place where the new secret ever appears. Of an earlier
        rotation that is still under way, the older secret ends at once.
        """
        response.headers["cache-control"] = "no-store"
        return CreatedKeyView.of_created(rotation.rotate(caller, id, body), now=rotation.clock())

    return router


def leak_routes(
    reports: LeakReports,
    jobs: JobRunner,
    *,
    network_of: Callable[[str], str],
    answer_after_s: float = ANSWER_AFTER_S,
) -> APIRouter:
    """The route for reports of leaked credentials. `network_of` says which addresses are one caller's."""
    router = APIRouter(prefix="/api/v1/keys", tags=["keys"], responses=ERROR_RESPONSES)
    queue = LeakQueue(reports)
    rate = LookUps(per_s=1.0, burst=10, all_per_s=10.0, all_burst=100)

    @router.post("/leaked", status_code=202, openapi_extra={"requestBody": LEAK_REQUEST_BODY})
    @open_route(
        "whoever finds a credential where it should not be can report it; nobody learns whether it works"
    )
    async def report_leaked_keys(request: Request) -> LeakAnswer:
        """Report keys, tokens and other secrets that have become known to others.

        What works ends at once, and its owner is told: a key is disabled, and so is the client of a client secret; an access
        token is revoked; a refresh token ends with everything that came from the same sign-in; a signing key is deleted, a
        session ended, an invitation withdrawn. Of a secret that was rotated away and still works, only that ends. The answer is always the same, and takes the same time, whatever is reported.
        """
        loop = asyncio.get_running_loop()
        answer_at = loop.time() + answer_after_s
        if not getattr(request.state, "is_local", False):
            _check_rate(rate, network_of(request.client.host if request.client else ""), loop.time())
        tokens = _reported(request.headers.get("content-type"), await _bounded_body(request))
        work = jobs.start("end leaked credentials", queue.take(tokens))
        await asyncio.wait([work], timeout=max(0.0, answer_at - loop.time()))
        # Ready or not, valid or not: the same answer at the same time. What is left goes on in the background.
        await asyncio.sleep(max(0.0, answer_at - loop.time()))
        if work.done():
            work.result()  # raises when the database cannot be read, and then for garbage as well
        return LeakAnswer()

    return router


def _check_rate(rate: LookUps, network: str, now: float) -> None:
    wait_s = rate.wait_s(network, now)
    if wait_s:
        wait = max(1, ceil(wait_s))
        raise LingpaiError(
            "rate_limit_exceeded",
            f"Too many reports. Put up to {MOST_REPORTED} keys into one, and go on in {wait} s.",
            headers={"retry-after": str(wait)},
        )
    rate.failed(network, now)  # every report counts, as nobody may learn which ones were of use


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_REPORT_BYTES:
            raise LingpaiError(
                "request_too_large", f"A report may have {MOST_REPORT_BYTES} bytes. Send it in parts."
            )
    return bytes(body)


def _reported(content_type: str | None, body: bytes) -> list[bytes]:
    """The credentials in a report, JSON or text. Raises LingpaiError, which repeats none."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        tokens = credentials_in("\n".join(_keys_in(body)).encode())
    elif media_type.startswith("text/"):
        tokens = credentials_in(body)
    else:
        raise LingpaiError(
            "unsupported_media_type",
            'Send `{"keys": ["sk-lp-…"]}` as `application/json`, or text that contains them as `text/plain`.',
        )
    if len(tokens) > MOST_REPORTED:
        raise LingpaiError(
            "invalid_request", f"There are more than {MOST_REPORTED} keys in it. Send them in parts.", "keys"
        )
    return tokens


def _keys_in(body: bytes) -> list[str]:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        # `from None`: the exception would show what was sent
        raise LingpaiError("invalid_json", "The body is not JSON.") from None
    try:
        return LeakedKeysReport.model_validate(document).keys
    except ValidationError:
        # Nothing of it is repeated, not even the name of a field: all of it may be a secret.
        raise LingpaiError(
            "invalid_request",
            f'Send `{{"keys": ["sk-lp-…"]}}` with up to {MOST_REPORTED} texts and no other field.',
            "keys",
        ) from None
