"""The bodies of ``/api/v1/audit``."""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "number": 42,
                    "time": "2026-11-20T08:00:00.123Z",
                    "action": "key.update",
                    "result": "done",
                    "reason": None,
                    "actor": {
                        "kind": "user",
                        "id": "usr_4fK3a9Zq1LmN",
                        "name": "alice",
                        "credential": {"kind": "key", "id": "9Qm2x7RtYb0c"},
                    },
                    "target": {"kind": "key", "id": "Ab3dE5gH7jK9", "name": "laptop"},
                    "project_id": "prj_7HsK2nQw5TzX",
                    "before": {"limits": ["500/day"]},
                    "after": {"limits": ["5000/day"]},
                    "address": "203.0.113.7",
                    "user_agent": "curl/8.14.1",
                    "request_id": "req_6ac1f0b3a1b2c3d4e5f600000001",
                    "previous": "c0ffee" * 10 + "c0ff",
                    "hash": "decade" * 10 + "deca",
                }
            ]
        }
    )

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
