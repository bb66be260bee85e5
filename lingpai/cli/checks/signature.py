"""Why is a signature not accepted: found out from the request alone, and with a server that can be asked from its key, too."""

import base64
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from lingpai.cli.checks.step import Step, failed, ok, skipped, warning
from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.server import Place, open_client
from lingpai.client import ClientError
from lingpai.identity.signing.explain import Difference, Explanation, explain
from lingpai.wire.message_signatures import Message
from lingpai.wire.request_text import RequestTextError, WrittenRequest, read_request

MOST_BYTES: Final = 700_000
CLOCK_TOLERANCE_S: Final = 30.0
_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """Where the request is, and where its body and what was signed, if those are elsewhere."""

    request: str
    body: Path | None = None
    signed_base: Path | None = None


class SignatureCheck:
    """Looks at one signed request."""

    def __init__(self, files: SignedFiles) -> None:
        self._files = files
        self.explanation: Explanation | None = None

    def steps(self, place: Place | None) -> Iterator[Step]:
        """What is found, the request itself first. `place` is a server to ask for what only it knows."""
        text = _read(self._files.request)
        try:
            written = self._with_body(read_request(text))
        except RequestTextError as error:
            yield failed("request", str(error), "Save it as raw HTTP/1.1, or what `curl -v` shows.")
            return
        yield ok("request", _summary(written))
        signed_base = None if self._files.signed_base is None else _text(self._files.signed_base)
        found = self.explanation = explain(
            written.message, written.body, now=time.time(), signed_base=signed_base
        )
        yield from _rules(found)
        yield _digest(written, found)
        yield from _base(found)
        if place is None:
            yield skipped(
                "key", "no server is named, so nobody knows whether the signature is one of its key"
            )
        else:
            yield from _ask(place, written)

    def as_json(self) -> dict[str, Any]:
        """The signature base and how what was signed differs, for programs."""
        found = self.explanation
        differences = None if found is None or found.differences is None else found.differences
        return {
            "signature_base": None if found is None else found.base,
            "differences": None
            if differences is None
            else [difference._asdict() for difference in differences],
        }

    def _with_body(self, written: WrittenRequest) -> WrittenRequest:
        if self._files.body is None:
            return written
        return replace(written, body=_read(str(self._files.body)))


def _rules(found: Explanation) -> Iterator[Step]:
    for fault in found.faults:
        yield failed(fault.rule, fault.message, "docs/guides/signing.md shows what is wanted.")
    if not found.faults:
        yield ok("rules", "the signature keeps to all of them")


def _digest(written: WrittenRequest, found: Explanation) -> Step:
    if any(fault.rule in {"content-digest", "content-length"} for fault in found.faults):
        return skipped("digest", "see above")
    if written.body is None:
        return skipped("digest", "the body is not known; give it with --body FILE")
    if written.message.value("content-digest") is None:
        return skipped("digest", "there is none") if written.body else ok("digest", "there is no body")
    return ok("digest", f"it is that of the {len(written.body)} bytes of the body")


def _base(found: Explanation) -> Iterator[Step]:
    if found.base is None:
        yield skipped("signature base", "it cannot be built")
    elif found.differences is None:
        yield skipped("signature base", "give what you signed with --signed-base FILE to have it compared")
    elif not found.differences:
        yield ok("signature base", "what you signed is what arrived")
    for difference in found.differences or ():
        yield failed(
            f"differs: {difference.component}", _shown(difference), "Sign what is sent, as it is sent."
        )


def _shown(difference: Difference) -> str:
    here, signed = (
        "no such line" if value is None else repr(value)[:_SHOWN]
        for value in (difference.here, difference.signed)
    )
    return f"arrived {here}, signed {signed}"


def _ask(place: Place, written: WrittenRequest) -> Iterator[Step]:
    try:
        with open_client(place) as client:
            told = client.request("POST", "/api/v1/signatures/explain", json=_question(written))
    except (CommandError, ClientError) as error:
        yield skipped("key", f"the server cannot be asked: {error}")
        return
    yield _clock(told)
    yield _verdict(told)


def _question(written: WrittenRequest) -> dict[str, str]:
    """The body goes apart, for it may be no text."""
    question = {"request": written.head.decode("utf-8", errors="replace")}
    if written.body is not None:
        question["body_base64"] = base64.b64encode(written.body).decode()
    return question


def _clock(told: Mapping[str, Any]) -> Step:
    apart = time.time() - told["server_time"]
    if abs(apart) > CLOCK_TOLERANCE_S:
        return warning("clock", f"this machine is {apart:+.0f} s off the server's clock", "Set the clock.")
    return ok("clock", "this machine and the server agree")


def _verdict(told: Mapping[str, Any]) -> Step:
    if told["verified"] is None:
        return skipped("key", "the server knows no such signing key of yours")
    if told["verified"]:
        return ok("key", "the signature is one of its key over the signature base below")
    return failed(
        "key",
        "the signature is not one of its key over the signature base below",
        "Compare the base with what you signed (--signed-base); if it is the same, the key or secret is another.",
    )


def _summary(written: WrittenRequest) -> str:
    message: Message = written.message
    body = "body not known" if written.body is None else f"{len(written.body)} bytes of body"
    return f"{message.method} {message.target}, {len(message.fields)} headers, {body}"


def _read(place: str) -> bytes:
    try:
        if place == "-":
            return sys.stdin.buffer.read(MOST_BYTES)
        with Path(place).open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}.") from error


def _text(path: Path) -> str:
    return _read(str(path)).decode("utf-8", errors="replace")
