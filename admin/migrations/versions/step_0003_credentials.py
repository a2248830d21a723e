"""Credentials with their counts and bans, the number of their last change, and the lock of those who change them."""

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
CredentialId = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
INDICES = {
    "credentials": (
        ["created_at", "id"],
        ["status", "created_at", "id", "banned_until"],
        ["pool_group", "created_at", "id", "status", "banned_until"],
        ["provider", "created_at", "id"],
        ["banned_until"],
        ["version", "id"],
    ),
    "credentials_gone": (["version"],),
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
        "credentials",
        sa.Column("id", CredentialId, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("masked", sa.String(32), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("pool_group", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("search", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("successes", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("last_error", sa.String(64)),
        sa.Column("last_error_status", sa.Integer),
        sa.Column("last_error_at", sa.BigInteger),
        sa.Column("last_test_at", sa.BigInteger),
        sa.Column("last_test_result", sa.String(16), nullable=False),
        sa.Column("banned_at", sa.BigInteger),
        sa.Column("ban_cause", sa.String(32)),
        sa.Column("banned_until", sa.BigInteger),
        sa.Column("ban_status", sa.Integer),
        sa.Column("tokens_used", sa.BigInteger),
        sa.Column("tokens_total", sa.BigInteger),
        key=("id",),
        unique=("digest",),
    )
    table(
        "credentials_version",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("forgotten", sa.BigInteger, nullable=False),
        key=("id",),
    )
    table(
        "credentials_gone",
        sa.Column("id", CredentialId, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("removed_at", sa.BigInteger, nullable=False),
        key=("id",),
    )
    table(
        "credential_bans",
        sa.Column("credential", CredentialId, nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("cause", sa.String(32), nullable=False),
        sa.Column("banned_at", sa.BigInteger, nullable=False),
        sa.Column("banned_until", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        key=("credential", "model"),
    )
    table(
        "credential_statistics",
        sa.Column("period_s", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("start_s", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("credential", CredentialId, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("successes", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        key=("period_s", "start_s", "credential"),
    )
    table(
        "credential_workers",
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        key=("worker",),
    )
    connection = op.get_bind()
    indices(connection)
    version = sa.table(
        "credentials_version",
        *(sa.column(name, sa.BigInteger) for name in ("id", "number", "made_at", "forgotten")),
    )
    if connection.scalar(sa.select(version.c.id)) is None:
        op.bulk_insert(version, [{"id": 1, "number": 0, "made_at": time.time_ns() // 1_000_000, "forgotten": 0}])


def downgrade() -> None:
    for name in (
        "credential_workers",
        "credential_statistics",
        "credential_bans",
        "credentials_gone",
        "credentials_version",
        "credentials",
    ):
        op.drop_table(name)
