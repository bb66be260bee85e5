"""The bodies of ``/api/v1/audit``."""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, Field
from sqlalchemy import Row


class CredentialView(BaseModel):
    """By what an actor is known."""

    kind: str = Field(
        description="`key`, `client`, `token` (of no client), `session` or `admin_socket`.", examples=["key"]
    )
    id: str | None = Field(description="Its public id; null for the admin socket.")


class ActorView(BaseModel):
    """Who did it."""

    kind: str = Field(
        description="`user`, `server`, `command` (run on the data directory) or `unknown` (nobody signed in)."
    )
    id: str | None
    name: str | None
    credential: CredentialView | None


class TargetView(BaseModel):
    """What it was done to."""

    kind: str = Field(examples=["key"])
    id: str
    name: str | None


class AuditRecordView(BaseModel):
    """One record of the audit trail."""

    number: int = Field(description="1, 2, 3, … without gaps.")
    time: str
    action: str = Field(description="`<noun>.<verb>`.", examples=["key.create"])
    result: Literal["done", "refused", "failed"]
    reason: str | None = Field(
        description="Why it was refused or failed; for a refusal the code of the error."
    )
    actor: ActorView
    target: TargetView
    project_id: str | None
    before: dict[str, Any] | None = Field(description="What changed, as it was.")
    after: dict[str, Any] | None = Field(description="What changed, as it is.")
    address: str | None
    user_agent: str | None
    request_id: str | None
    previous: str = Field(description="The hash of the record before this one.")
    hash: str = Field(description="SHA-256 of this record, in hex.")

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """What administrators see of a row of audit_records."""
        return cls(**json.loads(row.line), hash=row.hash)
