"""Statistics, how far each worker's are in, what was dropped of the event stream, and the lock of those who take it."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
Packed = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")
RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def table(name: str, *columns: sa.Column[Any], key: tuple[str, ...], unique: tuple[str, ...] = ()) -> None:
    constraints: list[sa.Constraint] = [sa.PrimaryKeyConstraint(*key, name=f"pk_{name}")]
    if unique:
        constraints.append(sa.UniqueConstraint(*unique, name=f"uq_{name}_{'_'.join(unique)}"))
    op.create_table(name, *columns, *constraints, if_not_exists=True, **MYSQL)


def upgrade() -> None:
    table(
        "statistics_series",
        sa.Column("id", RowId, nullable=False, autoincrement=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("prefix", LongText, nullable=False),
        sa.Column("authority", LongText, nullable=False),
        key=("id",),
        unique=("digest",),
    )
    table(
        "statistics",
        sa.Column("period_s", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("start_s", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("series", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("counts", Packed, nullable=False),
        key=("period_s", "start_s", "series"),
    )
    table(
        "statistics_workers",
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        key=("worker",),
    )
    table(
        "events_dropped",
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("last_id", sa.String(64), nullable=False),
        key=("kind", "reason"),
    )
    connection = op.get_bind()
    locks = sa.table("locks", sa.column("name", sa.String))
    if connection.scalar(sa.select(locks.c.name).where(locks.c.name == "events")) is None:
        op.bulk_insert(locks, [{"name": "events"}])


def downgrade() -> None:
    for name in ("events_dropped", "statistics_workers", "statistics", "statistics_series"):
        op.drop_table(name)
    op.execute("DELETE FROM locks WHERE name = 'events'")
