"""The tables `users`, `projects`, `project_members` and `api_keys`. Times are seconds since 1970 in UTC; lists are JSON arrays of strings."""

from typing import Final

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
)

from lingpai.storage.metadata import metadata, partial_index

users: Final = Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column(
        "role",
        String(16),
        CheckConstraint("role IN ('admin', 'member')", name="role_is_known"),
        nullable=False,
    ),
    Column("limits", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("disabled_at", Double),
    Column("password_hash", String(255)),  # argon2id in PHC form; NULL: no password can sign in
    Column("password_changed_at", Double),
    Column("deleted_at", Double),  # the row stays, because usage and audit go on showing who it was
)

projects: Final = Table(
    "projects",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("owner_id", String(32), ForeignKey("users.id"), nullable=False),
    Column("is_personal", Boolean, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),  # the row stays, because usage goes on showing its name
    partial_index(
        "uq_projects_personal_of_owner",
        "owner_id",
        is_unique=True,
        where="is_personal",
    ),
    Index("ix_projects_created_at_id", "created_at", "id"),
)

project_members: Final = Table(
    "project_members",
    metadata,
    Column("project_id", String(32), ForeignKey("projects.id"), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id"), primary_key=True),
    Column(
        "role",
        String(16),
        CheckConstraint("role IN ('admin', 'member', 'viewer')", name="role_is_known"),
        nullable=False,
    ),
    Column("created_at", Double, nullable=False),
    Index("ix_project_members_user_id", "user_id"),
)

# A deleted key stays, without its secret, because usage goes on showing its name.
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", String(12), primary_key=True),  # the public id inside the credential
    Column("name", String(64), nullable=False),
    Column("user_id", String(32), ForeignKey("users.id"), nullable=False),
    # NULL: made by a release that knew no projects; such a key counts as one of its owner's personal project.
    Column("project_id", String(32), ForeignKey("projects.id")),
    Column("secret_hmac", LargeBinary),
    Column("pepper_version", Integer, nullable=False),
    Column("hint", String(16), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("allowed_ips", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("disabled_at", Double),
    Column("disabled_because", String(64)),  # NULL: somebody wanted it so
    Column("deleted_at", Double),
    Column("last_used_at", Double),
    Column("last_used_ip", String(45)),
    # The secret before the last rotation, which works until `old_expires_at`.
    Column("old_secret_hmac", LargeBinary),
    Column("old_pepper_version", Integer),
    Column("old_hint", String(16)),
    Column("old_created_at", Double),
    Column("old_expires_at", Double),
    Column("old_last_used_at", Double),
    Column("rotated_at", Double),
    Column("secret_last_used_at", Double),  # of the present secret, once there was another one
    Column("signature_required", Boolean),  # NULL: no
    CheckConstraint("(deleted_at IS NULL) = (secret_hmac IS NOT NULL)", name="deleted_key_has_no_secret"),
    partial_index(
        "uq_api_keys_live_name_of_user",
        "user_id",
        "name",
        is_unique=True,
        where="deleted_at IS NULL",
    ),
    Index("ix_api_keys_created_at_id", "created_at", "id"),
    Index("ix_api_keys_project_id_created_at_id", "project_id", "created_at", "id"),
)
