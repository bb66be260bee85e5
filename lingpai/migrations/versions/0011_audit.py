"""The audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXED = ("time", "action", "actor_id", "actor_name", "credential", "target_id", "target_name")


def upgrade() -> None:
    op.create_table(
        "audit_records",
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("result", sa.String(16), nullable=False),
        sa.Column("actor_id", sa.String(64)),
        sa.Column("actor_name", sa.String(128)),
        sa.Column("credential", sa.String(64)),
        sa.Column("target_kind", sa.String(16)),
        sa.Column("target_id", sa.String(300)),
        sa.Column("target_name", sa.String(300)),
        sa.Column("project_id", sa.String(32)),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_records"),
    )
    for column in INDEXED:
        op.create_index(f"ix_audit_records_{column}", "audit_records", [column])
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_checkpoints"),
    )
    if op.get_bind().dialect.name == "sqlite":
        _create_triggers()


def _create_triggers() -> None:
    for table in ("records", "checkpoints"):
        for verb in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER audit_{table}_no_{verb} BEFORE {verb.upper()} ON audit_{table} "
                f"BEGIN SELECT RAISE(ABORT, 'audit_{table} is only ever added to'); END"
            )
    op.execute(
        "CREATE TRIGGER audit_records_in_order BEFORE INSERT ON audit_records "
        "WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM audit_records) "
        "BEGIN SELECT RAISE(ABORT, 'audit_records are numbered 1, 2, 3, …'); END"
    )
    op.execute(
        "CREATE TRIGGER audit_checkpoints_in_order BEFORE INSERT ON audit_checkpoints "
        "WHEN NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_checkpoints) "
        "BEGIN SELECT RAISE(ABORT, 'audit_checkpoints are in the order of numbers'); END"
    )


def downgrade() -> None:
    op.drop_table("audit_checkpoints")
    op.drop_table("audit_records")
