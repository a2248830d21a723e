"""What providers say of keys' balances: the last reading beside each credential, and one a day."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
CredentialId = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
COLUMNS: dict[str, type[sa.BigInteger] | sa.String] = {
    "tokens_at": sa.BigInteger,
    "tokens_begin": sa.BigInteger,
    "tokens_end": sa.BigInteger,
    "tokens_error": sa.String(64),
    "tokens_error_at": sa.BigInteger,
}
INDEX = "ix_balance_readings_credential_start_s"


def upgrade() -> None:
    """MySQL commits each statement by itself, and knows IF NOT EXISTS of tables alone."""
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("credentials")}
    for name, type_ in COLUMNS.items():
        if name not in there:
            op.add_column("credentials", sa.Column(name, type_))
    op.create_table(
        "balance_readings",
        sa.Column("start_s", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("credential", CredentialId, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger),
        sa.Column("total", sa.BigInteger),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("start_s", "credential", name="pk_balance_readings"),
        if_not_exists=True,
        **MYSQL,
    )
    if INDEX not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("balance_readings")}:
        op.create_index(INDEX, "balance_readings", ["credential", "start_s"])


def downgrade() -> None:
    op.drop_table("balance_readings")
    for name in reversed(COLUMNS):
        op.drop_column("credentials", name)
