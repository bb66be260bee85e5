"""Who is calling: decided once per request, carried everywhere."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Role = Literal["admin", "member"]


@dataclass(slots=True, eq=False)
class Principal:
    """A key, access token or session (or the local administrator), its owner and project, with all that restricts a call.

    Restrictions are the strings the operator wrote (limits in the grammar of docs/concepts.md); an empty `models`,
    `allowed_ips` or limit tuple does not restrict. One of `key_id`, `token_id` and `session_id` is set, or none;
    `client_id` is, unless the token was given to a user without a registered client. `is_local` is whoever calls through
    the admin socket without a credential.
    """

    user_id: str
    user_name: str
    role: Role
    key_id: str | None = None
    key_name: str | None = None
    token_id: str | None = None
    scopes: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()
    allowed_ips: tuple[Network, ...] = ()
    key_limits: tuple[str, ...] = ()
    user_limits: tuple[str, ...] = ()
    project_id: str = ""
    project_name: str = ""
    project_limits: tuple[str, ...] = ()
    client_id: str | None = None
    client_name: str | None = None
    client_limits: tuple[str, ...] = ()
    session_id: str | None = None
    is_local: bool = False
    expires_at: float | None = None
    created_at: float = 0.0
    disabled: bool = False
    signature_required: bool = False
    """Whether the key, or the token's client, is for signed requests only."""
    last_used_at: float = field(default=0.0, compare=False)
    last_used_ip: str | None = field(default=None, compare=False)
    account: Any = field(default=None, repr=False)
    """The gateway's slot: what it worked out for this principal once (meters, models). Lives and dies with it."""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def credential_id(self) -> str | None:
        """The public id in the credential that the call came with."""
        return self.key_id or self.token_id

    @property
    def own_limits(self) -> tuple[str, ...]:
        """The limits of the credential itself, which another one made with it would multiply."""
        return self.key_limits + self.client_limits

    def may_call(self, model_id: str) -> bool:
        """Whether the key's model list allows `model_id`; ``owner/*`` allows all of an owner's models."""
        return not self.models or any(_matches(pattern, model_id) for pattern in self.models)

    def may_come_from(self, address: str) -> bool:
        """Whether the key's address rules allow `address`. An IPv4 address mapped into IPv6 counts as IPv4."""
        return not self.allowed_ips or is_within(address, self.allowed_ips)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether `address` lies in one of `networks`. An IPv4 address mapped into IPv6 counts as IPv4."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)


def _matches(pattern: str, model_id: str) -> bool:
    return model_id == pattern or (pattern.endswith("*") and model_id.startswith(pattern[:-1]))
