"""Who did it, as records name them."""

from dataclasses import dataclass
from typing import Any, Literal

from lingpai.principal import Principal
from lingpai.web.origin import Origin

ActorKind = Literal["user", "unknown", "server", "command"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A user; somebody unknown who sent a request; the server itself; or who ran a command on the data directory.

    `credential_kind` says by what they are known (`key`, `client`, `token`, `session`, `admin_socket`), `credential` is its public id.
    """

    kind: ActorKind
    id: str | None = None
    name: str | None = None
    credential_kind: str | None = None
    credential: str | None = None

    def fields(self) -> dict[str, Any]:
        """How a record shows them."""
        credential = None
        if self.credential_kind is not None:
            credential = {"id": self.credential, "kind": self.credential_kind}
        return {"credential": credential, "id": self.id, "kind": self.kind, "name": self.name}


def actor_of(caller: Principal | None, origin: Origin | None) -> Actor:
    """Who `caller` is, having come from `origin` (None: what is done comes from no request)."""
    if caller is not None:
        kind, credential = _credential(caller, origin)
        return Actor("user", caller.user_id, caller.user_name, kind, credential)
    if origin is None:
        return Actor("server")
    if origin.kind == "command":
        return Actor("command", name=origin.user)
    return Actor("unknown")


def _credential(caller: Principal, origin: Origin | None) -> tuple[str | None, str | None]:
    if caller.key_id is not None:
        return "key", caller.key_id
    if caller.client_id is not None:
        return "client", caller.client_id
    if caller.token_id is not None:
        return "token", caller.token_id
    if caller.session_id is not None:
        return "session", caller.session_id
    return ("admin_socket" if origin is not None else None), None
