"""Routes, versions of the configuration, settings, actions of operators.

The tables are spelled out, not taken from `admin/tables.py`: a step stays what it was when that goes on.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Prefix = sa.String(512).with_variant(sa.String(512, collation="C"), "postgresql")
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def table(name: str, *columns: sa.Column[Any], key: str) -> None:
    constraint = sa.PrimaryKeyConstraint(key, name=f"pk_{name}")
    op.create_table(name, *columns, constraint, if_not_exists=True, **MYSQL)


def upgrade() -> None:
    table("locks", sa.Column("name", sa.String(64), nullable=False), key="name")
    table(
        "routes",
        sa.Column("prefix", Prefix, nullable=False),
        sa.Column("target", LongText, nullable=False),
        sa.Column("spec", LongText, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        key="prefix",
    )
    table(
        "config_versions",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("changes", LongText, nullable=False),
        sa.Column("document", LongText, nullable=False),
        key="number",
    )
    table(
        "settings",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("value", LongText, nullable=False),
        key="name",
    )
    table(
        "admin_actions",
        sa.Column("id", RowId, nullable=False, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("detail", LongText, nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        key="id",
    )
    # MySQL knows no CREATE INDEX IF NOT EXISTS.
    connection = op.get_bind()
    there = {index["name"] for index in sa.inspect(connection).get_indexes("admin_actions")}
    for columns in (["at"], ["actor", "id"], ["action", "id"]):
        name = "ix_admin_actions_" + "_".join(columns)
        if name not in there:
            op.create_index(name, "admin_actions", columns)
    locks = sa.table("locks", sa.column("name", sa.String))
    if connection.scalar(sa.select(locks.c.name).where(locks.c.name == "config")) is None:
        op.bulk_insert(locks, [{"name": "config"}])


def downgrade() -> None:
    for name in ("admin_actions", "settings", "config_versions", "routes", "locks"):
        op.drop_table(name)
