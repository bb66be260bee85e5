"""HTTP message signatures (RFC 9421): components of a message, and the signature base that is made of them.

Pure: nothing here knows keys or policies. Signers and verifiers build the base with the same functions.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote

from lingpai.wire.structured_field_parser import parse_dictionary, parse_item, parse_list
from lingpai.wire.structured_fields import (
    InnerList,
    Item,
    StructuredFieldError,
    serialize_bare_item,
    serialize_dictionary,
    serialize_list,
    serialize_member,
    serialize_parameters,
)

MOST_QUERY_PARAMETERS: Final = 100
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_FLAGS: Final = ("sf", "bs", "req", "tr")
_FIELD_PARAMETERS: Final = frozenset({*_FLAGS, "key"})
# Fields whose structure is known here, as `sf` needs it (section 2.1.1).
_DICTIONARIES: Final = frozenset(
    {
        "accept-signature",
        "content-digest",
        "priority",
        "repr-digest",
        "signature",
        "signature-input",
        "want-content-digest",
        "want-repr-digest",
    }
)
_LISTS: Final = frozenset({"accept-ch", "cache-status", "client-cert-chain", "proxy-status"})
_ITEMS: Final = frozenset({"client-cert"})


class ComponentError(ValueError):
    """A component cannot be answered. `component` is its identifier as it is written in the signature's input."""

    def __init__(self, component: str, why: str) -> None:
        super().__init__(f"{component}: {why}")
        self.component = component
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request, or with a `status` a response, as far as signatures are concerned.

    `target` is the request target as it stands in the request line. `fields` holds names in any case, in the order they
    came, and values as they were sent (latin-1, RFC 9110, section 5.5). `request` is what a response answers.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)  # credentials may be among them
    method: str = ""
    scheme: str = "https"
    authority: str = ""
    target: str = "/"
    status: int | None = None
    request: "Message | None" = None
    _by_name: dict[str, list[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.fields:
            self._by_name.setdefault(name.lower(), []).append(value.strip(" \t"))

    @property
    def names(self) -> Collection[str]:
        """The names of all fields, in lower case."""
        return self._by_name.keys()

    def values(self, name: str) -> list[str]:
        """The values of all fields called `name` (in lower case), without white space around them."""
        return self._by_name.get(name, [])

    def value(self, name: str) -> str | None:
        """The values of all fields called `name` as one (section 2.1), or None when there is no such field."""
        values = self.values(name)
        return ", ".join(values) if values else None


def parse_signature_input(value: str) -> dict[str, InnerList]:
    """The members of `Signature-Input` by label (section 4.1). Raises StructuredFieldError."""
    members = parse_dictionary(value, unique_keys=True)
    lists = {label: member for label, member in members.items() if isinstance(member, InnerList)}
    if len(lists) != len(members):
        raise StructuredFieldError("a member is no list of components in parentheses")
    return lists


def parse_signature(value: str) -> dict[str, bytes]:
    """The members of `Signature` by label (section 4.2). Raises StructuredFieldError."""
    found: dict[str, bytes] = {}
    for label, member in parse_dictionary(value, unique_keys=True).items():
        if not isinstance(member, Item) or not isinstance(member.value, bytes):
            raise StructuredFieldError(f"`{label}` is no byte sequence: write `{label}=:BASE64:`")
        found[label] = member.value
    return found


def signature_base(message: Message, signature_input: InnerList) -> bytes:
    """What is signed (section 2.5): a line per component, and the signature's parameters.

    Raises ComponentError for a component that is unknown, missing, repeated or cannot be had from `message`.
    """
    lines = [f"{identifier}: {value}" for identifier, value in base_lines(message, signature_input)]
    return "\n".join(lines).encode("ascii")


def base_lines(message: Message, signature_input: InnerList) -> list[tuple[str, str]]:
    """The lines of the signature base, each as identifier and value. Raises ComponentError."""
    lines: list[tuple[str, str]] = []
    seen: set[tuple[object, frozenset[tuple[str, object]]]] = set()
    for item in signature_input.items:
        identifier = serialize_member(item)
        same = (item.value, frozenset(item.parameters.items()))  # the order of parameters makes no difference
        if same in seen:
            raise ComponentError(identifier, "it is listed twice")
        seen.add(same)
        lines.append((identifier, _value(message, item, identifier)))
    listed = " ".join(identifier for identifier, _ in lines)
    return [*lines, ('"@signature-params"', f"({listed}){serialize_parameters(signature_input.parameters)}")]


def component_value(message: Message, component: Item) -> str:
    """The value of one component (sections 2.1 and 2.2). Raises ComponentError."""
    return _value(message, component, serialize_member(component))


def _value(message: Message, component: Item, identifier: str) -> str:
    name = component.value
    if type(name) is not str or not name or name != name.lower():
        raise ComponentError(identifier, "a component is a string in lower case")
    parameters: Mapping[str, object] = component.parameters
    if parameters:
        message, parameters = _source(message, parameters, identifier)
    if name.startswith("@"):
        value = _derived(message, name, parameters, identifier)
    else:
        value = _field(message, name, parameters, identifier)
    if not value.isascii() or "\n" in value or "\r" in value:
        raise ComponentError(identifier, "its value is not one line of ASCII; cover such a field with `;bs`")
    return value


def _source(
    message: Message, parameters: Mapping[str, object], identifier: str
) -> tuple[Message, Mapping[str, object]]:
    """The message that a component is of (section 2.4), and its other parameters."""
    if wrong := [flag for flag in _FLAGS if parameters.get(flag, True) is not True]:
        raise ComponentError(identifier, f"`{wrong[0]}` takes no value")
    if "req" not in parameters:
        return message, parameters
    if message.request is None:
        raise ComponentError(identifier, "`req` is for the signature of a response")
    return message.request, {name: value for name, value in parameters.items() if name != "req"}


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target; the query begins with its question mark, or is empty.

    A target in absolute form counts from where its path begins.
    """
    if "://" in target and not target.startswith("/"):
        rest = target.partition("://")[2]
        start = min((found for found in (rest.find("/"), rest.find("?")) if found >= 0), default=len(rest))
        target = rest[start:]
    path, mark, query = target.partition("?")
    return path, mark + query


def normal_authority(authority: str, scheme: str) -> str:
    """An authority in lower case and without the scheme's default port (section 2.2.3)."""
    return authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _derived(message: Message, name: str, parameters: Mapping[str, object], identifier: str) -> str:
    allowed = {"name"} if name == "@query-param" else set()
    if parameters and (unknown := sorted(set(parameters) - allowed)):
        raise ComponentError(identifier, f"a derived component takes no `{unknown[0]}`")
    if name == "@status":
        if message.status is None:
            raise ComponentError(identifier, "only a response has a status")
        return f"{message.status:03d}"
    if message.status is not None:
        raise ComponentError(identifier, "a response has it from its request only: add `;req`")
    if name == "@query-param":
        return _query_parameter(message, parameters.get("name"), identifier)
    read = _DERIVED.get(name)
    if read is None:
        raise ComponentError(identifier, "there is no such derived component")
    return read(message)


def _target_uri(message: Message) -> str:
    path, query = split_target(message.target)
    return f"{message.scheme.lower()}://{_authority(message)}{path or '/'}{query}"


def _authority(message: Message) -> str:
    return normal_authority(message.authority, message.scheme.lower())


_DERIVED: Final[Mapping[str, Callable[[Message], str]]] = {
    "@method": lambda message: message.method,
    "@target-uri": _target_uri,
    "@authority": _authority,
    "@scheme": lambda message: message.scheme.lower(),
    "@request-target": lambda message: message.target,
    "@path": lambda message: split_target(message.target)[0] or "/",
    "@query": lambda message: split_target(message.target)[1] or "?",
}


def _query_parameter(message: Message, name: object, identifier: str) -> str:
    """Section 2.2.8: decoded and encoded anew, so that one parameter has one spelling."""
    if type(name) is not str:
        raise ComponentError(identifier, 'say which parameter: `;name="…"`')
    query = split_target(message.target)[1].removeprefix("?")
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="replace", max_num_fields=MOST_QUERY_PARAMETERS
        )
    except ValueError as exc:
        raise ComponentError(
            identifier, f"the query has more than {MOST_QUERY_PARAMETERS} parameters"
        ) from exc
    found = [value for key, value in pairs if _form_encoded(key) == name]
    if len(found) != 1:
        raise ComponentError(identifier, f"the query has it {len(found)} times instead of once")
    return _form_encoded(found[0])


def _form_encoded(text: str) -> str:
    return quote(text, safe="*").replace("~", "%7E")


def _field(message: Message, name: str, parameters: Mapping[str, object], identifier: str) -> str:
    if parameters and (unknown := sorted(set(parameters) - _FIELD_PARAMETERS)):
        raise ComponentError(identifier, f"a field takes no `{unknown[0]}`")
    if "tr" in parameters:
        raise ComponentError(identifier, "trailers cannot be covered here: they come after the decision")
    values = message.values(name)
    if not values:
        raise ComponentError(identifier, "the message has no such field")
    if "bs" in parameters:
        return _wrapped(values, parameters, identifier)
    value = ", ".join(values)
    try:
        if "key" in parameters:
            return _dictionary_member(value, parameters["key"], identifier)
        return _strict(name, value, identifier) if "sf" in parameters else value
    except StructuredFieldError as exc:
        raise ComponentError(identifier, f"the field is not structured as it should be: {exc}") from exc


def _wrapped(values: list[str], parameters: Mapping[str, object], identifier: str) -> str:
    """Section 2.1.3: each line as a byte sequence."""
    if "sf" in parameters or "key" in parameters:
        raise ComponentError(identifier, "`bs` goes neither with `sf` nor with `key`")
    try:
        return ", ".join(serialize_bare_item(value.encode("latin-1")) for value in values)
    except UnicodeEncodeError as exc:
        raise ComponentError(identifier, "the field holds what no header can") from exc


def _dictionary_member(value: str, key: object, identifier: str) -> str:
    """Section 2.1.2."""
    member = parse_dictionary(value).get(key) if type(key) is str else None
    if member is None:
        raise ComponentError(identifier, "the field has no such member")
    return serialize_member(member)


def _strict(name: str, value: str, identifier: str) -> str:
    """Section 2.1.1: parsed and written anew."""
    if name in _DICTIONARIES:
        return serialize_dictionary(parse_dictionary(value))
    if name in _LISTS:
        return serialize_list(parse_list(value))
    if name in _ITEMS:
        return serialize_member(parse_item(value))
    raise ComponentError(identifier, "the structure of this field is not known here; leave `sf` out")
