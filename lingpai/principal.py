"""Who is calling: decided once per request, carried everywhere."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any, Literal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Role = Literal["admin", "member"]


@dataclass(slots=True, eq=False)
class Principal:
    """A key (or the local administrator), its owner and its project, with everything that restricts a call.

    Restrictions are the strings the operator wrote (limits in the grammar of docs/concepts.md); an empty `models`,
    `allowed_ips` or limit tuple does not restrict. `client_id` is None unless the call comes from a registered client.
    """

    user_id: str
    user_name: str
    role: Role
    key_id: str | None = None
    key_name: str | None = None
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
    expires_at: float | None = None
    created_at: float = 0.0
    disabled: bool = False
    signature_required: bool = False
    """Whether the key is for signed requests only."""
    last_used_at: float = field(default=0.0, compare=False)
    last_used_ip: str | None = field(default=None, compare=False)
    account: Any = field(default=None, repr=False)
    """The gateway's slot: what it worked out for this principal once (meters, models). Lives and dies with it."""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    def may_call(self, model_id: str) -> bool:
        """Whether the key's model list allows `model_id`; ``owner/*`` allows all of an owner's models."""
        return not self.models or any(_matches(pattern, model_id) for pattern in self.models)

    def may_come_from(self, address: str) -> bool:
        """Whether the key's address rules allow `address`. An IPv4 address mapped into IPv6 counts as IPv4."""
        if not self.allowed_ips:
            return True
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self.allowed_ips)


def _matches(pattern: str, model_id: str) -> bool:
    return model_id == pattern or (pattern.endswith("*") and model_id.startswith(pattern[:-1]))
