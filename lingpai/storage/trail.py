"""What is worth a record in the audit trail, and who keeps it. This is all that domains know of `lingpai.audit`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import Connection

from lingpai.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that was done, refused or failed. Nothing in it is secret.

    `action` is `<noun>.<verb>`, such as `key.create`; `before` and `after` hold what changed, as the API shows it, and
    None where there was nothing; `reason` says why something was refused or failed.
    """

    action: str
    target_kind: str
    target_id: str
    target_name: str = ""
    project_id: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    result: Literal["done", "refused", "failed"] = "done"
    reason: str | None = None


class Trail(Protocol):
    """Keeps records of deeds."""

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        """Write a record in the transaction of the change itself, so that what cannot be recorded does not happen.

        `caller` is None where nobody is known: somebody who could not sign in, or the server itself. From where the
        call came, and its request id, are taken from the context. Raises what the database raises.
        """


class NoTrail:
    """Keeps nothing: for parts that are used alone."""

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        """Do nothing."""
