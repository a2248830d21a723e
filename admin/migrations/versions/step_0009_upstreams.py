"""Upstreams of several backends."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
UpstreamName = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "upstreams",
        sa.Column("name", UpstreamName, nullable=False),
        sa.Column("spec", LongText, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_upstreams"),
        if_not_exists=True,
        **MYSQL,
    )


def downgrade() -> None:
    op.drop_table("upstreams")
