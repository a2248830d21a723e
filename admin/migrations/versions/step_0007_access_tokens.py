"""Access tokens, the number of their last edit, the ledger of their quotas, and the lock of those who write it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
CredentialId = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INDICES = {
    "access_tokens": (
        ["created_at", "id"],
        ["ws_id", "created_at", "id"],
        ["email", "created_at", "id"],
        ["state", "created_at", "id"],
        ["revision"],
    ),
    "token_quota_logs": (
        ["token", "created_at"],
        ["request_id", "action", "execution_success"],
        ["created_at"],
    ),
}


def table(name: str, *columns: sa.Column[Any], key: tuple[str, ...], unique: tuple[str, ...] = ()) -> None:
    constraints: list[sa.Constraint] = [sa.PrimaryKeyConstraint(*key, name=f"pk_{name}")]
    if unique:
        constraints.append(sa.UniqueConstraint(*unique, name=f"uq_{name}_{'_'.join(unique)}"))
    op.create_table(name, *columns, *constraints, if_not_exists=True, **MYSQL)


def indices(connection: sa.Connection) -> None:
    """MySQL knows no CREATE INDEX IF NOT EXISTS."""
    for name, wanted in INDICES.items():
        there = {index["name"] for index in sa.inspect(connection).get_indexes(name)}
        for columns in wanted:
            index = f"ix_{name}_{'_'.join(columns)}"
            if index not in there:
                op.create_index(index, name, columns)


def upgrade() -> None:
    table(
        "access_tokens",
        sa.Column("id", CredentialId, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("shown", sa.String(32), nullable=False),
        sa.Column("ws_id", sa.String(255), nullable=False),
        sa.Column("email", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("quota_type", sa.String(16), nullable=False),
        sa.Column("unit", sa.String(16)),
        sa.Column("total", sa.BigInteger),
        sa.Column("remaining", sa.BigInteger),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("synced_at", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("per_minute", sa.Integer, nullable=False),
        sa.Column("per_second", sa.Integer, nullable=False),
        sa.Column("concurrent", sa.Integer, nullable=False),
        sa.Column("routes", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("networks", sa.Text, nullable=False),
        sa.Column("refunds", sa.Integer, nullable=False),
        sa.Column("on_store_outage", sa.String(16), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        key=("id",),
        unique=("digest",),
    )
    table(
        "access_tokens_revision",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        key=("id",),
    )
    table(
        "token_quota_logs",
        sa.Column("id", RowId, nullable=False, autoincrement=True),
        sa.Column("token", CredentialId, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("ws_id", sa.String(255), nullable=False),
        sa.Column("email", sa.String(255), nullable=False),
        sa.Column("quota_before", sa.BigInteger, nullable=False),
        sa.Column("quota_after", sa.BigInteger, nullable=False),
        sa.Column("quota_change", sa.BigInteger, nullable=False),
        sa.Column("total_after", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("unit", sa.String(16)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("execution_success", sa.Integer),
        sa.Column("execution_error_type", sa.String(64)),
        sa.Column("execution_error_message", sa.Text),
        sa.Column("usage_mark", sa.String(16)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        key=("id",),
        unique=("token", "sequence"),
    )
    connection = op.get_bind()
    indices(connection)
    number = sa.table("access_tokens_revision", sa.column("id", sa.Integer), sa.column("number", sa.BigInteger))
    if connection.scalar(sa.select(number.c.id)) is None:
        op.bulk_insert(number, [{"id": 1, "number": 0}])
    locks = sa.table("locks", sa.column("name", sa.String))
    if connection.scalar(sa.select(locks.c.name).where(locks.c.name == "ledger")) is None:
        op.bulk_insert(locks, [{"name": "ledger"}])


def downgrade() -> None:
    for name in ("token_quota_logs", "access_tokens_revision", "access_tokens"):
        op.drop_table(name)
    op.execute("DELETE FROM locks WHERE name = 'ledger'")
