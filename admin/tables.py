"""What the database holds. Every statement of the control plane is made of these tables; `migrations/` creates them.

Times are integers: milliseconds since 1970 in UTC. JSON is text that msgspec wrote: PostgreSQL would reorder it in a
type of its own, and nothing here asks SQL to look inside. Text compares byte by byte on all databases (`utf8mb4_bin`,
"C", SQLite's BINARY), so `/A` and `/a` are two prefixes and pages have one order.
"""

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.dialects import mysql

from admin.rules.route_specs import PREFIX_LENGTH_MAX


class Encrypted(NamedTuple):
    """A column of secrets (`secrets.py`). `purpose` is the word that the purpose of each begins with."""

    table: Table
    column: str
    purpose: str


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
CredentialId = UpstreamName = String(64).with_variant(String(64, collation="C"), "postgresql")
# MySQL's TEXT ends at 64 KB.
LongText = Text().with_variant(mysql.LONGTEXT(), "mysql")
# MySQL's BLOB ends at 64 KB.
Packed = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")
# SQLite numbers rows by itself only where the type is spelled INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")

# Rows that stand for nothing but their own lock: who changes the configuration holds `config` until its transaction
# ends. A lock on the newest version would not do: PostgreSQL, once it has waited, gives the row that was newest before.
# `events` is held by who takes events from the stream, `ledger` by who takes changes of quotas from theirs.
locks = Table("locks", metadata, Column("name", String(64), primary_key=True), **MYSQL)

# `spec` is the route without what equals its default; `target` is where it leads, to be searched: the target that is in
# the spec too, or `upstream NAME` and its base.
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

# `spec` is the upstream with all its backends, without what equals defaults.
upstreams = Table(
    "upstreams",
    metadata,
    Column("name", UpstreamName, primary_key=True),
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

# A series is a route that was counted: a prefix and the authority of its target. `digest` names it in a text of bounded
# length, since the two together may be longer than a key of MySQL. Rows are never changed or removed.
statistics_series = Table(
    "statistics_series",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("prefix", LongText, nullable=False),
    Column("authority", LongText, nullable=False),
    **MYSQL,
)

# What was counted in a period (`rules/periods.py`) that began at `start_s` (Unix time): of one series, or, as series 0,
# of all. `counts` is a RouteCounts without its names, in msgpack; `requests`, `errors` and `last_at` are what SQL is
# asked for. The key finds the rows of a bucket, and by a list of starts those of a series.
statistics = Table(
    "statistics",
    metadata,
    Column("period_s", Integer, primary_key=True, autoincrement=False),
    Column("start_s", BigInteger, primary_key=True, autoincrement=False),
    Column("series", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("counts", Packed, nullable=False),
    **MYSQL,
)

# The last delta of each worker that is in `statistics`, so that none counts twice.
statistics_workers = Table(
    "statistics_workers",
    metadata,
    Column("worker", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    **MYSQL,
)

# Events that will never be in SQL. `last_id` is the stream's id of the last one, where it was seen, so that none counts
# twice.
events_dropped = Table(
    "events_dropped",
    metadata,
    Column("kind", String(64), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("events", BigInteger, nullable=False),
    Column("last_id", String(64), nullable=False),
    **MYSQL,
)

# Credentials, above all the keys of the key pool. `digest` is the SHA-256 of the secret, so that none is there twice.
# `search` is what a search looks through, in lower case: one column, and in SQLite an index with all that a list can be
# narrowed by, which is read to its end in 20 ms with 100,000 rows.
# `version` is that of its last change that workers are to know of; counts are none. `banned_at` to `ban_status` mirror
# a ban of all models, whose truth is in Redis; times are milliseconds, `banned_until` of a ban that ended by itself
# just lies in the past. `tokens_used` and `tokens_total` are what the provider said last, at `tokens_at`, of a period
# from `tokens_begin` to `tokens_end`; `tokens_error` is why it said nothing at `tokens_error_at`, if that was later.
credentials = Table(
    "credentials",
    metadata,
    Column("id", CredentialId, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("secret", Text, nullable=False),
    Column("masked", String(32), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("pool_group", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("notes", Text, nullable=False),
    Column("search", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),
    Column("requests", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("last_error", String(64)),
    Column("last_error_status", Integer),
    Column("last_error_at", BigInteger),
    Column("last_test_at", BigInteger),
    Column("last_test_result", String(16), nullable=False),
    Column("banned_at", BigInteger),
    Column("ban_cause", String(32)),
    Column("banned_until", BigInteger),
    Column("ban_status", Integer),
    Column("tokens_used", BigInteger),
    Column("tokens_total", BigInteger),
    Column("tokens_at", BigInteger),
    Column("tokens_begin", BigInteger),
    Column("tokens_end", BigInteger),
    Column("tokens_error", String(64)),
    Column("tokens_error_at", BigInteger),
    Index(None, "created_at", "id"),
    Index(None, "status", "created_at", "id", "banned_until"),
    Index(None, "pool_group", "created_at", "id", "status", "banned_until"),
    Index(None, "provider", "created_at", "id"),
    Index(None, "banned_until"),
    Index(None, "version", "id"),
    Index(
        "ix_credentials_search",
        *("created_at", "id", "status", "banned_until", "pool_group", "provider", "search"),
    ).ddl_if(dialect="sqlite"),
    **MYSQL,
)

# One row: the number of the last change of credentials, and since when its numbers count (milliseconds since 1970).
# What is published with another time is published anew. `forgotten` is up to which change tombstones are gone. Who
# changes credentials in a way that workers are to know of counts up first, and so holds the row until the transaction
# ends. Numbers are committed in their order therefore: whoever looks for later ones than he knows misses none.
credentials_version = Table(
    "credentials_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("forgotten", BigInteger, nullable=False),
    **MYSQL,
)

# Credentials that were removed, by the change that did so, until every publisher will have told it.
credentials_gone = Table(
    "credentials_gone",
    metadata,
    Column("id", CredentialId, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("removed_at", BigInteger, nullable=False),
    Index(None, "version"),
    **MYSQL,
)

# A mirror of the bans for one model each. Times in milliseconds since 1970.
credential_bans = Table(
    "credential_bans",
    metadata,
    Column("credential", CredentialId, primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("cause", String(32), nullable=False),
    Column("banned_at", BigInteger, nullable=False),
    Column("banned_until", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    **MYSQL,
)

# What was asked with a credential in a day or an hour that began at `start_s` (Unix time); with the empty id, with all.
credential_statistics = Table(
    "credential_statistics",
    metadata,
    Column("period_s", Integer, primary_key=True, autoincrement=False),
    Column("start_s", BigInteger, primary_key=True, autoincrement=False),
    Column("credential", CredentialId, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    **MYSQL,
)

# What providers said of a credential's balance in a day that began at `start_s` (Unix time): the last reading, at `at`
# (milliseconds), and how much was used between readings of that day (`spent`); with the empty id, of all credentials.
balance_readings = Table(
    "balance_readings",
    metadata,
    Column("start_s", BigInteger, primary_key=True, autoincrement=False),
    Column("credential", CredentialId, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("used", BigInteger),
    Column("total", BigInteger),
    Column("spent", BigInteger, nullable=False),
    Index(None, "credential", "start_s"),
    **MYSQL,
)

# The last delta of each worker that is in `credentials`, as `statistics_workers`.
credential_workers = Table(
    "credential_workers",
    metadata,
    Column("worker", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    **MYSQL,
)

# Where the OAuth credential's chain stands (`rules/oauth.py`): one row. Times in milliseconds since 1970. `chain` and
# `spent` (with spaces between) are digests of refresh tokens; the two tokens are encrypted.
oauth_tokens = Table(
    "oauth_tokens",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("refresh_token", LongText),
    Column("access_token", LongText),
    Column("expires_at", BigInteger, nullable=False),
    Column("refreshed_at", BigInteger, nullable=False),
    Column("chain", String(64), nullable=False),
    Column("spent", LongText, nullable=False),
    **MYSQL,
)

# Access tokens, which clients of the relay present. `digest` is the SHA-256 of the text, which is nowhere; `shown` is
# its beginning and end. Amounts are of `unit`, null where only time ends a token (as `total` and `remaining` then are).
# `remaining`, `total` and `sequence` follow the counter in Redis, by the ledger: up to its change number `sequence`, as
# of `synced_at`. `routes`, `models` and `networks` are JSON lists; 0 is no bound. `revision` is that of the last edit.
access_tokens = Table(
    "access_tokens",
    metadata,
    Column("id", CredentialId, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("shown", String(32), nullable=False),
    Column("ws_id", String(255), nullable=False),
    Column("email", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("quota_type", String(16), nullable=False),
    Column("unit", String(16)),
    Column("total", BigInteger),
    Column("remaining", BigInteger),
    Column("sequence", BigInteger, nullable=False),
    Column("synced_at", BigInteger),
    Column("expires_at", BigInteger),
    Column("per_minute", Integer, nullable=False),
    Column("per_second", Integer, nullable=False),
    Column("concurrent", Integer, nullable=False),
    Column("routes", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("networks", Text, nullable=False),
    Column("refunds", Integer, nullable=False),
    Column("on_store_outage", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Index(None, "created_at", "id"),
    Index(None, "ws_id", "created_at", "id"),
    Index(None, "email", "created_at", "id"),
    Index(None, "state", "created_at", "id"),
    Index(None, "revision"),
    **MYSQL,
)

# One row: the number of the last edit of access tokens. Who edits one counts up first, and so holds the row until the
# transaction ends: as with `credentials_version`, whoever looks for later numbers than he knows misses none.
access_tokens_revision = Table(
    "access_tokens_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    **MYSQL,
)

# The ledger: one row for each change of an access token's counter, `sequence` without gaps. `execution_success` and
# what stands beside it tell how a request ended, once it has; `usage_mark` what its amount rests on.
token_quota_logs = Table(
    "token_quota_logs",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("token", CredentialId, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("ws_id", String(255), nullable=False),
    Column("email", String(255), nullable=False),
    Column("quota_before", BigInteger, nullable=False),
    Column("quota_after", BigInteger, nullable=False),
    Column("quota_change", BigInteger, nullable=False),
    Column("total_after", BigInteger, nullable=False),
    Column("action", String(16), nullable=False),
    Column("unit", String(16)),
    Column("request_id", String(128)),
    Column("execution_success", Integer),
    Column("execution_error_type", String(64)),
    Column("execution_error_message", Text),
    Column("usage_mark", String(16)),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("token", "sequence"),
    Index(None, "token", "created_at"),
    # An outcome looks for what is open of a request's id, of which its client may have made the id of all its requests.
    Index(None, "request_id", "action", "execution_success"),
    Index(None, "created_at"),
    **MYSQL,
)

# Where the rows of a token in the ledger begin: behind the change of this number, which left `balance`, the quota being
# `total` then. All up to it were removed as too old. Without a row here, they begin with the token.
token_quota_carried = Table(
    "token_quota_carried",
    metadata,
    Column("token", CredentialId, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    **MYSQL,
)

# All columns of secrets: what a rotation of the key (`rotation.py`) writes anew.
ENCRYPTED: tuple[Encrypted, ...] = (
    Encrypted(credentials, "secret", "credential"),
    Encrypted(oauth_tokens, "refresh_token", "oauth:refresh"),
    Encrypted(oauth_tokens, "access_token", "oauth:access"),
)
