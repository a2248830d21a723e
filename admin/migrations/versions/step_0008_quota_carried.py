"""Where the ledger of a token begins whose oldest rows were removed."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
CredentialId = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "token_quota_carried",
        sa.Column("token", CredentialId, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_token_quota_carried"),
        if_not_exists=True,
        **MYSQL,
    )


def downgrade() -> None:
    op.drop_table("token_quota_carried")
