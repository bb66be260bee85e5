"""HTTP message signatures (RFC 9421): components of a message, and the signature base that is made of them.

Pure: nothing here knows keys or policies. Signers and verifiers build the base with the same functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote

from lingpai.wire.structured_fields import (
    InnerList,
    Item,
    StructuredFieldError,
    parse_dictionary,
    parse_item,
    parse_list,
    serialize_bare_item,
    serialize_dictionary,
    serialize_list,
    serialize_member,
)

MOST_QUERY_PARAMETERS: Final = 1000
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

    fields: tuple[tuple[str, str], ...]
    method: str = ""
    scheme: str = "https"
    authority: str = ""
    target: str = "/"
    status: int | None = None
    request: "Message | None" = None

    def values(self, name: str) -> list[str]:
        """The values of all fields called `name` (in lower case), without white space around them."""
        return [value.strip(" \t") for found, value in self.fields if found.lower() == name]

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
        lines.append((identifier, component_value(message, item)))
    return [*lines, ('"@signature-params"', serialize_member(signature_input))]


def component_value(message: Message, component: Item) -> str:
    """The value of one component (sections 2.1 and 2.2). Raises ComponentError."""
    identifier, name = serialize_member(component), component.value
    if type(name) is not str or not name or name != name.lower():
        raise ComponentError(identifier, "a component is a string in lower case")
    parameters = dict(component.parameters)
    if wrong := [flag for flag in _FLAGS if parameters.get(flag, True) is not True]:
        raise ComponentError(identifier, f"`{wrong[0]}` takes no value")
    if parameters.pop("req", False):  # section 2.4
        if message.request is None:
            raise ComponentError(identifier, "`req` is for the signature of a response")
        message = message.request
    if name.startswith("@"):
        value = _derived(message, name, parameters, identifier)
    else:
        value = _field(message, name, parameters, identifier)
    if not value.isascii() or "\n" in value or "\r" in value:
        raise ComponentError(identifier, "its value is not one line of ASCII; cover such a field with `;bs`")
    return value


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
    if unknown := sorted(set(parameters) - allowed):
        raise ComponentError(identifier, f"a derived component takes no `{unknown[0]}`")
    if name == "@status":
        if message.status is None:
            raise ComponentError(identifier, "only a response has a status")
        return f"{message.status:03d}"
    if message.status is not None:
        raise ComponentError(identifier, "a response has it from its request only: add `;req`")
    if name == "@query-param":
        return _query_parameter(message, parameters.get("name"), identifier)
    scheme = message.scheme.lower()
    authority = normal_authority(message.authority, scheme)
    path, query = split_target(message.target)
    values = {
        "@method": message.method,
        "@target-uri": f"{scheme}://{authority}{path or '/'}{query}",
        "@authority": authority,
        "@scheme": scheme,
        "@request-target": message.target,
        "@path": path or "/",
        "@query": query or "?",
    }
    if name not in values:
        raise ComponentError(identifier, "there is no such derived component")
    return values[name]


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
    if unknown := sorted(set(parameters) - _FIELD_PARAMETERS):
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
