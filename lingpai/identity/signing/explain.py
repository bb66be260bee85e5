"""What is wrong with a signature: everything at once, and beside it the signature base as it is built here.

Pure, and without any key: the command line does the same alone that the server does when it is asked.
"""

from dataclasses import dataclass
from typing import NamedTuple

from lingpai.identity.signing.profile import (
    Fault,
    FaultError,
    component_fault,
    component_faults,
    faults,
    has_content,
    read_fields,
)
from lingpai.wire.content_digest import ContentDigestError, check_content_digest, parse_content_digest
from lingpai.wire.message_signatures import ComponentError, Message, base_lines


class Difference(NamedTuple):
    """A line of the signature base that is another one for the signer; None where one of both has no such line."""

    component: str
    here: str | None
    signed: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say of a signed request.

    `base` is the signature base as it is built here, or None when it cannot be. `differences` compares it with what the
    signer says to have signed; None when they did not say.
    """

    faults: tuple[Fault, ...]
    key_id: str | None
    created: int | None
    base: str | None
    differences: tuple[Difference, ...] | None
    signature: bytes | None


def explain(
    message: Message, body: bytes | None, *, now: float, signed_base: str | None = None
) -> Explanation:
    """Look at a signed request. `body` is None where it is not known; `signed_base` is what its signer signed."""
    try:
        fields = read_fields(message)
    except FaultError as error:
        return Explanation((error.fault,), None, None, None, None, None)
    found = list(faults(message, fields.covered, now=now))
    lines: list[tuple[str, str]] | None = None
    if next(component_faults(fields.covered), None) is None:
        try:
            lines = base_lines(message, fields.covered)
        except ComponentError as error:
            found.append(component_fault(error))
    if body is not None and not any(fault.rule == "content-digest" for fault in found):
        found += _body_faults(message, body)
    key_id, created = (fields.covered.parameters.get(name) for name in ("keyid", "created"))
    return Explanation(
        faults=tuple(found),
        key_id=key_id if isinstance(key_id, str) else None,
        created=created if type(created) is int else None,
        base=None if lines is None else "\n".join(f"{identifier}: {value}" for identifier, value in lines),
        differences=None if lines is None or signed_base is None else compare(lines, signed_base),
        signature=fields.signature,
    )


def compare(lines: list[tuple[str, str]], signed_base: str) -> tuple[Difference, ...]:
    """Where the signature base of the signer differs from ours, line by line and in our order; first theirs that are ours."""
    theirs = [_taken_apart(line) for line in signed_base.rstrip("\r\n").split("\n")]
    signed, here = dict(theirs), dict(lines)
    differences = [
        Difference(component, value, signed.get(component))
        for component, value in lines
        if signed.get(component) != value
    ]
    differences += [
        Difference(component, None, value) for component, value in theirs if component not in here
    ]
    order, their_order = [component for component, _ in lines], [component for component, _ in theirs]
    if not differences and order != their_order:
        differences.append(Difference("the order of the lines", ", ".join(order), ", ".join(their_order)))
    return tuple(differences)


def _taken_apart(line: str) -> tuple[str, str]:
    """Identifier and value; what ends with a carriage return shows it, because that is a usual mistake."""
    end = line.find('"', 1)
    colon = line.find(": ", end)
    return (line, "") if colon < 0 else (line[:colon], line[colon + 2 :])


def _body_faults(message: Message, body: bytes) -> list[Fault]:
    length, digest = message.value("content-length"), message.value("content-digest")
    if length is not None and length.isdecimal() and int(length) != len(body):
        return [
            Fault(
                "content-length",
                f"Content-Length says {length}, and the body has {len(body)} bytes: "
                "it was changed, or saved in part, after it was signed.",
            )
        ]
    if digest is None:
        return [] if not body or has_content(message) else [_undigested()]
    try:
        check_content_digest(parse_content_digest(digest), body)
    except ContentDigestError as error:
        return [Fault("content-digest", f"Content-Digest does not fit the body: {error}.")]
    return []


def _undigested() -> Fault:
    return Fault("content-digest", "The request has a body, and no Content-Digest that the signature covers.")
