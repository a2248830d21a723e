"""What the database holds. Every statement of the control plane is made of these tables; `migrations/` creates them.

Times are integers: milliseconds since 1970 in UTC. JSON is text that msgspec wrote: PostgreSQL would reorder it in a
type of its own, and nothing here asks SQL to look inside. Text compares byte by byte on all databases (`utf8mb4_bin`,
"C", SQLite's BINARY), so `/A` and `/a` are two prefixes and pages have one order.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql

from admin.rules.route_specs import PREFIX_LENGTH_MAX

# Named constraints can be changed by later migrations on every database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

Prefix = String(PREFIX_LENGTH_MAX).with_variant(String(PREFIX_LENGTH_MAX, collation="C"), "postgresql")
# MySQL's TEXT ends at 64 KB.
LongText = Text().with_variant(mysql.LONGTEXT(), "mysql")
# SQLite numbers rows by itself only where the type is spelled INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")

# Rows that stand for nothing but their own lock: who changes the configuration holds `config` until its transaction
# ends. A lock on the newest version would not do: PostgreSQL, once it has waited, gives the row that was newest before.
locks = Table("locks", metadata, Column("name", String(64), primary_key=True), **MYSQL)

# `spec` is the route without what equals its default; `target` is in it too, and stands here to be searched.
routes = Table(
    "routes",
    metadata,
    Column("prefix", Prefix, primary_key=True),
    Column("target", LongText, nullable=False),
    Column("spec", LongText, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    **MYSQL,
)

# 1, 2, 3, … without gaps. `changes` is a list of {kind, name, before, after}, `document` the whole after it.
config_versions = Table(
    "config_versions",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("created_at", BigInteger, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("summary", Text, nullable=False),
    Column("changes", LongText, nullable=False),
    Column("document", LongText, nullable=False),
    **MYSQL,
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("value", LongText, nullable=False),
    **MYSQL,
)

# Append-only: nothing updates a row.
admin_actions = Table(
    "admin_actions",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("address", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", LongText, nullable=False),
    Column("outcome", String(64), nullable=False),
    Index(None, "at"),
    Index(None, "actor", "id"),
    Index(None, "action", "id"),
    **MYSQL,
)
