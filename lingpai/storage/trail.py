"""What is worth a record in the audit trail, and who keeps it. This is all that domains know of `lingpai.audit`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from sqlalchemy import Connection

from lingpai.principal import Principal

UNKNOWN_CREDENTIAL: Final = "invalid_api_key"
"""The code of refusals that are only counted: anybody can send any number of keys that are none."""

POLICY_CODES: Final = frozenset(
    {
        UNKNOWN_CREDENTIAL,
        "csrf_refused",
        "insufficient_scope",
        "ip_not_allowed",
        "key_disabled",
        "key_expired",
        "model_not_allowed",
        "not_found",
        "signature_invalid",
        "signature_required",
        "tls_required",
        "token_expired",
    }
)
"""The codes of `lingpai.errors` that tell of a rule that somebody met, and not of a mistake in what they sent."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRefusal:
    """A request that met a rule: one of `POLICY_CODES`, or of the OAuth endpoints' own codes. What is refused again and again is recorded once, with a count.

    `target_kind` and `target_id` say what was wanted, in few different forms (a route's pattern, a model); `reference`
    is the name or id that the caller wrote, if any; `detail` says which rule it was where the code is of several, in few
    different sentences, of which none repeats what the caller sent. `caller` is None where nobody has proven who they are.
    """

    caller: Principal | None
    code: str
    target_kind: str
    target_id: str
    reference: str = ""
    detail: str = ""
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class Trail(Protocol):
    """Keeps records of deeds."""

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        """Write a record in the transaction of the change itself, so that what cannot be recorded does not happen.

        `caller` is None where nobody is known: somebody who could not sign in, or the server itself. From where the
        call came, and its request id, are taken from the context. Raises LingpaiError `storage_unavailable`, which must
        end the transaction.
        """

    def note(self, caller: Principal | None, deed: Deed) -> None:
        """Write a record of something that changes no row, in a transaction of its own. Blocks; raises the same.

        Call it before the deed: what cannot be recorded must not happen.
        """


class NoTrail:
    """Keeps nothing: for parts that are used alone."""

    def record(self, connection: Connection, caller: Principal | None, deed: Deed) -> None:
        """Do nothing."""

    def note(self, caller: Principal | None, deed: Deed) -> None:
        """Do nothing."""


def created(
    noun: str, id_: str, after: Mapping[str, Any], *, name: str = "", project_id: str | None = None
) -> Deed:
    """The deed of making something: `after` is all of it, as the API shows it."""
    return Deed(
        action=f"{noun}.create",
        target_kind=noun,
        target_id=id_,
        target_name=name,
        project_id=project_id,
        after=after,
    )


def deleted(
    noun: str, id_: str, before: Mapping[str, Any], *, name: str = "", project_id: str | None = None
) -> Deed:
    """The deed of deleting something: `before` is all of it, as the API showed it."""
    return Deed(
        action=f"{noun}.delete",
        target_kind=noun,
        target_id=id_,
        target_name=name,
        project_id=project_id,
        before=before,
    )


def changed(
    noun: str,
    id_: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    name: str = "",
    project_id: str | None = None,
) -> Deed:
    """The deed of changing something: of `before` and `after` only the fields that differ are kept.

    A field `disabled` that differs makes it `<noun>.disable` or `<noun>.enable`. Where nothing differs, both are empty:
    somebody asked for what was so already.
    """
    differing = [field for field in after if before.get(field) != after[field]]
    verb = "update"
    if "disabled" in differing:
        verb = "disable" if after["disabled"] else "enable"
    return Deed(
        action=f"{noun}.{verb}",
        target_kind=noun,
        target_id=id_,
        target_name=name,
        project_id=project_id,
        before={field: before.get(field) for field in differing},
        after={field: after[field] for field in differing},
    )
