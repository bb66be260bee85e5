"""Projects: a personal one for every user, and every key in one."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(32), nullable=False),
        sa.Column("is_personal", sa.Boolean, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_projects_owner_id_users"),
    )
    op.create_index(
        "uq_projects_personal_of_owner",
        "projects",
        ["owner_id"],
        unique=True,
        sqlite_where=sa.text("is_personal"),
        postgresql_where=sa.text("is_personal"),
    )
    op.create_index("ix_projects_created_at_id", "projects", ["created_at", "id"])
    op.execute(
        "INSERT INTO projects (id, name, owner_id, is_personal, limits, created_at) "
        "SELECT 'prj_' || replace(id, 'usr_', ''), name, id, true, '[]', created_at FROM users"
    )
    # Nullable: the release before writes no value. SQLite copies the table for the sake of the foreign key.
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("project_id", sa.String(32), nullable=True))
        batch.create_foreign_key("fk_api_keys_project_id_projects", "projects", ["project_id"], ["id"])
    op.execute(
        "UPDATE api_keys SET project_id = "
        "(SELECT id FROM projects WHERE owner_id = api_keys.user_id AND is_personal)"
    )
    op.create_index("ix_api_keys_project_id_created_at_id", "api_keys", ["project_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_api_keys_project_id_created_at_id", "api_keys")
    with op.batch_alter_table("api_keys") as batch:
        batch.drop_constraint("fk_api_keys_project_id_projects", type_="foreignkey")
        batch.drop_column("project_id")
    op.drop_table("projects")
