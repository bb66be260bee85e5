"""Where events are sent: the webhooks of the settings, checked at start."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from lingpai.errors import did_you_mean
from lingpai.events.interfaces import EVENT_TYPES
from lingpai.events.settings import WebhookSettings
from lingpai.events.signing import signing_keys

_MOST_HOST_CHARACTERS: Final = 50


class WebhookSettingsError(Exception):
    """A webhook cannot be used. The message names the key, and shows no secret; the server must not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One webhook. `name` is its host and a digest of its address, as the address itself may hold a secret."""

    name: str
    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    types: frozenset[str]

    def wants(self, type_: str) -> bool:
        """Whether events of this type are sent there; without `types` all are."""
        return not self.types or type_ in self.types


def endpoints_from(
    settings: Sequence[WebhookSettings], environment: Mapping[str, str]
) -> tuple[Endpoint, ...]:
    """The webhooks of the settings, with their secrets from the environment. Raises WebhookSettingsError."""
    endpoints: dict[str, Endpoint] = {}
    for number, webhook in enumerate(settings):
        where = f"events.webhooks[{number}]"
        name = _checked_name(webhook.url, f"{where}.url")
        if name in endpoints:
            raise WebhookSettingsError(f"`{where}.url`: there is a webhook with this address already.")
        endpoints[name] = Endpoint(
            name=name,
            url=webhook.url,
            keys=_keys(webhook.secret_env, environment, f"{where}.secret_env"),
            types=_checked_types(webhook.types, f"{where}.types"),
        )
    return tuple(endpoints.values())


def recipients(endpoints: Sequence[Endpoint]) -> dict[str, tuple[str, ...]]:
    """The names of the webhooks that want each type of event."""
    return {
        type_: tuple(endpoint.name for endpoint in endpoints if endpoint.wants(type_))
        for type_ in EVENT_TYPES
    }


def _checked_name(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        host, is_plain = parts.hostname, parts.port is None or parts.port > 0
    except ValueError:
        host, is_plain = None, False
    is_clean = url.isascii() and url.isprintable() and " " not in url
    if not (is_clean and is_plain and host and parts.scheme in {"http", "https"}) or parts.fragment:
        raise WebhookSettingsError(f"`{where}` must be an address such as https://host/path.")
    if parts.username is not None:
        raise WebhookSettingsError(
            f"`{where}` cannot hold a user name or password: the signature is the proof."
        )
    return f"{host[:_MOST_HOST_CHARACTERS]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _keys(variable: str, environment: Mapping[str, str], where: str) -> tuple[bytes, ...]:
    # An empty or short secret lets anybody sign (CVE-2026-41432), so it stops the start rather than the signing.
    try:
        return signing_keys(environment.get(variable, ""))
    except ValueError as error:
        raise WebhookSettingsError(
            f"`{where}`: the environment variable {variable} holds no usable secret: {error}. "
            f'Set one before the server starts: export {variable}="whsec_$(openssl rand -base64 32)"'
        ) from None


def _checked_types(types: Sequence[str], where: str) -> frozenset[str]:
    for type_ in types:
        if type_ not in EVENT_TYPES:
            raise WebhookSettingsError(
                f"`{where}`: there is no event `{type_}`.{did_you_mean(type_, EVENT_TYPES)}"
                f" Events are: {', '.join(EVENT_TYPES)}."
            )
    return frozenset(types)
