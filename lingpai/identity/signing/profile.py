"""The profile: what a signature must look like to be accepted here (docs/decisions/0014-signed-requests.md).

RFC 9421 leaves it to each application which components, parameters and algorithms it wants (section 3.2.1), and warns
of those that want nothing: even an empty list of components verifies (section 7.2.1).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from lingpai.errors import LingpaiError
from lingpai.identity.signing.interfaces import SignedHead
from lingpai.wire.content_digest import ContentDigestError, parse_content_digest
from lingpai.wire.message_signatures import (
    ComponentError,
    Message,
    parse_signature,
    parse_signature_input,
    signature_base,
)
from lingpai.wire.request_signing import MOST_AGE_S, TAG, wanted_components
from lingpai.wire.structured_fields import InnerList, StructuredFieldError, serialize_member

MOST_INPUT_BYTES: Final = 2048
MOST_SIGNATURE_BYTES: Final = 512
MOST_COMPONENTS: Final = 32
NONCE_CHARACTERS: Final = (16, 128)
ALGORITHMS: Final = ("ed25519", "hmac-sha256")
ACCEPTED_COMPONENT_PARAMETERS: Final = frozenset({"bs", "name"})
PARAMETERS: Final = frozenset({"created", "expires", "nonce", "alg", "keyid", "tag"})
T = TypeVar("T")

KEY_ID: Final = re.compile(r"sgn_[0-9A-Za-z]{12}")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a signature is not accepted: the component or rule concerned, and a sentence for its maker."""

    rule: str
    message: str

    def error(self) -> LingpaiError:
        """The refusal."""
        return LingpaiError(
            "signature_invalid",
            f"{self.message} `lingpai doctor --signature` compares what you signed with what arrived.",
            param=self.rule,
        )


class FaultError(Exception):
    """Carries the fault that ends reading."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class SignatureFields:
    """The two fields of one signature, taken apart."""

    label: str
    covered: InnerList
    signature: bytes


def read_head(message: Message, *, now: float) -> SignedHead:
    """What the head of a signed request says. Raises LingpaiError `signature_invalid`, which names what is wrong."""
    try:
        fields = read_fields(message)
        fault = next(_faults_of_signature(message, fields.covered, now), None)
        if fault is not None:
            raise fault.error()
        digests = _digests(message)
        base = signature_base(message, fields.covered)
    except FaultError as error:
        raise error.fault.error() from None
    except ComponentError as error:
        raise component_fault(error).error() from None
    parameters = fields.covered.parameters
    return SignedHead(
        key_id=str(parameters["keyid"]),
        algorithm=str(parameters["alg"]) if "alg" in parameters else None,
        nonce=str(parameters["nonce"]),
        until=_until(fields.covered),
        base=base,
        signature=fields.signature,
        digests=digests,
    )


def has_content(message: Message) -> bool:
    """Whether the head announces a body (RFC 9112, section 6.3)."""
    return (
        message.value("content-length") not in (None, "0") or message.value("transfer-encoding") is not None
    )


def read_fields(message: Message) -> SignatureFields:
    """`Signature-Input` and `Signature`, which must hold one signature, the same. Raises FaultError."""
    inputs = _read(message, "signature-input", MOST_INPUT_BYTES, parse_signature_input)
    signatures = _read(message, "signature", MOST_SIGNATURE_BYTES, parse_signature)
    if len(inputs) != 1 or len(signatures) != 1:
        count = max(len(inputs), len(signatures))
        raise FaultError(
            Fault("signature-input", f"The request carries {count} signatures. Send exactly one.")
        )
    label = next(iter(inputs))
    if label not in signatures:
        raise FaultError(
            Fault("signature", f"Signature has no member `{label}`, which is the label in Signature-Input.")
        )
    return SignatureFields(label, inputs[label], signatures[label])


def faults(message: Message, covered: InnerList, *, now: float) -> Iterator[Fault]:
    """Everything about a signature that breaks the profile, the parameters first."""
    yield from _faults_of_signature(message, covered, now)
    try:
        _digests(message)
    except FaultError as error:
        yield error.fault


def component_faults(covered: InnerList) -> Iterator[Fault]:
    """Components that are not accepted here, whatever their value: building a base with them is not even tried.

    What needs a field to be parsed (`sf`, `key`) is work that anybody could have us do, many times over, before it is
    known who they are; and who covers a part of a field leaves the rest open.
    """
    if len(covered.items) > MOST_COMPONENTS:
        yield Fault("signature-input", f"The signature covers more than {MOST_COMPONENTS} components.")
    for item in covered.items:
        if not ACCEPTED_COMPONENT_PARAMETERS.issuperset(item.parameters):
            name = serialize_member(item)
            yield Fault(name, f"The signature covers {name}, and must cover the field as a whole.")


def component_fault(error: ComponentError) -> Fault:
    """A component that cannot be answered, as a fault."""
    return Fault(error.component, f"The signature covers {error.component}, and that cannot be: {error.why}.")


def covers(covered: InnerList) -> set[str]:
    """The components that are covered as they are: without parameters, which may leave a part out."""
    return {str(item.value) for item in covered.items if not item.parameters}


def _read(message: Message, name: str, most: int, parse: Callable[[str], dict[str, T]]) -> dict[str, T]:
    value = message.value(name)
    if value is None:
        raise FaultError(Fault(name, f"The request is signed in part: the header {_title(name)} is missing."))
    if len(value) > most:
        raise FaultError(Fault(name, f"{_title(name)} has {len(value)} characters; {most} is the most."))
    try:
        return parse(value)
    except StructuredFieldError as error:
        raise FaultError(Fault(name, f"{_title(name)} cannot be read: {error}.")) from None


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def _faults_of_signature(message: Message, covered: InnerList, now: float) -> Iterator[Fault]:
    yield from _parameter_faults(covered)
    yield from _time_faults(covered, now)
    yield from component_faults(covered)
    yield from _coverage_faults(message, covered)


def _parameter_faults(covered: InnerList) -> Iterator[Fault]:
    parameters = covered.parameters
    unknown = sorted(set(parameters) - PARAMETERS)
    if unknown:
        yield Fault(
            unknown[0], f"The signature has a parameter `{unknown[0][:40]}`, which is not known here."
        )
    if type(parameters.get("tag")) is not str or parameters["tag"] != TAG:
        yield Fault(
            "tag", f'The signature must have the parameter tag="{TAG}", so that it is good for nothing else.'
        )
    key_id = parameters.get("keyid")
    if type(key_id) is not str or KEY_ID.fullmatch(key_id) is None:
        yield Fault("keyid", "The parameter `keyid` must be the id of a signing key: `sgn_…`.")
    algorithm = parameters.get("alg", ALGORITHMS[0])
    if type(algorithm) is not str or algorithm not in ALGORITHMS:
        yield Fault("alg", f"The parameter `alg` must be {' or '.join(ALGORITHMS)}, or be left out.")
    nonce, (least, most) = parameters.get("nonce"), NONCE_CHARACTERS
    if type(nonce) is not str or not least <= len(nonce) <= most:
        yield Fault(
            "nonce",
            f"The parameter `nonce` must be a string of {least} to {most} characters, a new random one each time.",
        )


def _time_faults(covered: InnerList, now: float) -> Iterator[Fault]:
    """Section 2.3: both are integers, in Unix seconds."""
    created = covered.parameters.get("created")
    if type(created) is not int:
        yield Fault("created", "The parameter `created` must be the time of signing in whole Unix seconds.")
        return
    if abs(now - created) > MOST_AGE_S:
        yield Fault(
            "created",
            f"The signature was created {_ago(now - created)} by this server's clock; {MOST_AGE_S} s are allowed. "
            "Sign again, and set the clock if it is wrong.",
        )
    if "expires" not in covered.parameters:
        return
    expires = covered.parameters["expires"]
    if type(expires) is not int or not created < expires <= created + MOST_AGE_S:
        yield Fault(
            "expires",
            f"The parameter `expires` must be a whole number of Unix seconds, 1 to {MOST_AGE_S} after `created`.",
        )
    elif now >= expires:
        yield Fault("expires", f"The signature expired {_ago(now - expires)}. Sign again for every attempt.")


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds >= 0 else f"{-seconds:.0f} s in the future"


def _until(covered: InnerList) -> float:
    created, expires = covered.parameters["created"], covered.parameters.get("expires")
    if not isinstance(created, int):
        raise TypeError(created)  # `faults` has looked
    latest = float(created + MOST_AGE_S)
    return min(latest, float(expires)) if isinstance(expires, int) else latest


def _coverage_faults(message: Message, covered: InnerList) -> Iterator[Fault]:
    """Section 3.2.1: what this application requires. An empty list of components misses all of it (section 7.2.1)."""
    present, covered_names = message.names, covers(covered)
    for name in wanted_components(present, has_content=has_content(message)):
        if name not in covered_names:
            yield Fault(name, f'The signature does not cover "{name}", and it must.')
        elif not name.startswith("@") and name not in present:
            yield Fault(
                name, f"The request has a body and no {_title(name)}, which the signature must cover."
            )


def _digests(message: Message) -> dict[str, bytes]:
    digest = message.value("content-digest")
    if digest is None:
        return {}
    try:
        return parse_content_digest(digest)
    except ContentDigestError as error:
        raise FaultError(Fault("content-digest", f"Content-Digest cannot be used: {error}.")) from None
