"""People sign in: passwords, sessions, invitations. Projects have members and can be deleted; keys say more of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("password_hash", sa.String(255)))
    op.add_column("users", sa.Column("password_changed_at", sa.Double))
    op.add_column("users", sa.Column("deleted_at", sa.Double))
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("secret_hmac", sa.LargeBinary, nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_seen_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("address", sa.String(45)),
        sa.Column("user_agent", sa.String(200)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_table(
        "sign_in_places",
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("network", sa.String(45), nullable=False),
        sa.Column("last_used_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sign_in_places_user_id_users"),
        sa.PrimaryKeyConstraint("user_id", "network", name="pk_sign_in_places"),
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("secret_hmac", sa.LargeBinary, nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_invitations_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("user_id", name="uq_invitations_user_id"),
    )
    op.create_table(
        "project_members",
        sa.Column("project_id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_project_members_project_id_projects"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_project_members_user_id_users"),
        sa.PrimaryKeyConstraint("project_id", "user_id", name="pk_project_members"),
        sa.CheckConstraint("role IN ('admin', 'member', 'viewer')", name="ck_project_members_role_is_known"),
    )
    op.create_index("ix_project_members_user_id", "project_members", ["user_id"])
    op.execute(
        "INSERT INTO project_members (project_id, user_id, role, created_at) "
        "SELECT id, owner_id, 'admin', created_at FROM projects"
    )
    # Whoever has a key in somebody else's project goes on using it.
    op.execute(
        "INSERT INTO project_members (project_id, user_id, role, created_at) "
        "SELECT api_keys.project_id, api_keys.user_id, 'member', min(api_keys.created_at) "
        "FROM api_keys JOIN projects ON projects.id = api_keys.project_id "
        "WHERE api_keys.deleted_at IS NULL AND api_keys.user_id <> projects.owner_id AND NOT projects.is_personal "
        "GROUP BY api_keys.project_id, api_keys.user_id"
    )
    # A personal project has exactly its owner: others' keys move to their own.
    op.execute(
        "UPDATE api_keys SET project_id = "
        "(SELECT id FROM projects WHERE is_personal AND owner_id = api_keys.user_id) "
        "WHERE EXISTS (SELECT 1 FROM projects WHERE id = api_keys.project_id AND is_personal "
        "AND owner_id <> api_keys.user_id)"
    )
    op.add_column("projects", sa.Column("deleted_at", sa.Double))
    op.add_column("api_keys", sa.Column("disabled_because", sa.String(64)))
    op.add_column("api_keys", sa.Column("old_created_at", sa.Double))
    op.add_column("api_keys", sa.Column("old_last_used_at", sa.Double))
    op.add_column("api_keys", sa.Column("secret_last_used_at", sa.Double))


def downgrade() -> None:
    op.drop_column("api_keys", "secret_last_used_at")
    op.drop_column("api_keys", "old_last_used_at")
    op.drop_column("api_keys", "old_created_at")
    op.drop_column("api_keys", "disabled_because")
    op.drop_column("projects", "deleted_at")
    op.drop_table("project_members")
    op.drop_table("invitations")
    op.drop_table("sign_in_places")
    op.drop_table("sessions")
    op.drop_column("users", "deleted_at")
    op.drop_column("users", "password_changed_at")
    op.drop_column("users", "password_hash")
