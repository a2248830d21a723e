"""Where the OAuth credential's chain of refresh tokens stands."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "oauth_tokens",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("refresh_token", LongText),
        sa.Column("access_token", LongText),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("refreshed_at", sa.BigInteger, nullable=False),
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("spent", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_tokens"),
        if_not_exists=True,
        **MYSQL,
    )


def downgrade() -> None:
    op.drop_table("oauth_tokens")
