"""The tables: checks before their use, and statements that make and upgrade them."""

from __future__ import annotations

from typing import NamedTuple

from session_history.providers.postgresql.connection import Connection, Row
from session_history_hooks import ConfigurationError, Corrupt, IncompatibleStore, StoreReadOnly

LOCK = int.from_bytes(b"SHLG")
"""The key of the advisory lock under which tables are made. The lock ends with its transaction."""

_TAKE_LOCK = f"SELECT pg_advisory_xact_lock({LOCK})"

PERIOD_BITS = 30
"""A period of activity is 2**30 microseconds, 18 minutes: see :func:`_first`."""

MAX_SEQ = 2**31 - 1
"""The largest number in the column ``seq``."""

HEAD = "session_history_head"
ENTRY = "session_history_entry"
STORE = "session_history_store"
SCHEMA = "session_history_schema"

COLUMNS = {
    SCHEMA: {"version"},
    STORE: {"incarnation", "shard_number", "shard_count"},
    HEAD: {
        "log", "user_id", "session_id", "generation", "seq", "tail_origin", "deleted", "heartbeat", "rewrite_id",
        "active_us", "changed_us", "period", "snapshot_seq", "snapshot_origin", "summary",
    },
    ENTRY: {"log", "seq", "part", "bookkeeping", "id", "origin", "payload"},
}  # fmt: skip
"""Columns that this version needs. A newer version may have added others."""

_SERVER = """WITH path AS (
        SELECT coalesce(replace(part[1], '""', '"'), lower(part[2] COLLATE "C")) AS name, place FROM
            regexp_matches(current_setting('search_path'), '"((?:[^"]|"")*)"|([^",\\s]+)', 'g')
            WITH ORDINALITY AS parts (part, place)
    ), first AS (
        SELECT oid, nspname FROM path JOIN pg_catalog.pg_namespace
            ON nspname = CASE name WHEN '$user' THEN current_user ELSE name END ORDER BY place LIMIT 1
    )
    SELECT coalesce($1, current_schema()) AS schema,
    EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = coalesce($1, current_schema())) AS there,
    (SELECT nspname FROM first WHERE $1 IS NULL AND NOT has_schema_privilege(oid, 'USAGE')) AS skipped,
    current_setting('server_encoding') AS encoding,
    current_setting('transaction_read_only') = 'on' AS read_only,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync"""
"""PostgreSQL skips a schema of the search path that the user may not use, without an error: see ``skipped``."""

_TABLES = """SELECT c.relname::text AS name,
    array(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    has_table_privilege(c.oid, 'SELECT') AND (c.relname = $3 OR has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) AS allowed,
    row_security_active(c.oid) AS filtered
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2::text[])"""


class Tables(NamedTuple):
    """The quoted names of the tables of a schema."""

    head: str
    entry: str
    store: str
    schema: str

    @classmethod
    def of(cls, schema: str) -> Tables:
        quoted = schema.replace('"', '""')
        return cls(*(f'"{quoted}".{name}' for name in (HEAD, ENTRY, STORE, SCHEMA)))


class Installed(NamedTuple):
    """The tables of a schema that exist already.

    :ivar version: their version; 0 = there are no tables.
    """

    schema: str
    version: int

    @property
    def missing(self) -> tuple[str, ...]:
        """The statements that upgrade the tables to the newest version."""
        tables = Tables.of(self.schema)
        steps = migrations(tables)
        return tuple(
            statement
            for version, statements in enumerate(steps[self.version :], start=self.version + 1)
            for statement in (*statements, f"INSERT INTO {tables.schema} (version) VALUES ({version})")
        )

    @property
    def script(self) -> tuple[str, ...]:
        """The same as a transaction for an administrator. Its lock lets one migration run at a time."""
        return ("BEGIN", _TAKE_LOCK, *self.missing, "COMMIT") if self.missing else ()


def migrations(tables: Tables) -> tuple[tuple[str, ...], ...]:
    """Return the statements that lead from each version to the next.

    They only add tables and columns, so that a process of an older version can continue.
    """
    return (_first(tables),)


def _first(tables: Tables) -> tuple[str, ...]:
    """Return the statements that make the tables.

    User and session ids are text that compares by code point. Other ids and origins are bytes: an id may hold NUL.

    The server makes the incarnation. So a script that an administrator runs on two databases makes two stores.

    Each append changes a head. PostgreSQL leaves the indexes unchanged only if no indexed column has changed. So the
    index for the listing contains the period of the last activity, and not the activity. The listing sorts the few
    sessions of a period.

    The column ``log`` is unique, since a copy of a database may count its logs from the start again.
    """
    return (
        f"""CREATE TABLE {tables.schema} (
    version integer PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
)""",
        f"""CREATE TABLE {tables.store} (
    incarnation uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    shard_number integer,
    shard_count integer
)""",
        f"INSERT INTO {tables.store} DEFAULT VALUES",
        f"""CREATE TABLE {tables.head} (
    log        bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_id    text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    seq        integer NOT NULL,
    tail_origin bytea NOT NULL,
    deleted    boolean NOT NULL,
    heartbeat  bigint NOT NULL,
    rewrite_id bytea NOT NULL,
    active_us  bigint NOT NULL,
    changed_us bigint NOT NULL,
    period     bigint GENERATED ALWAYS AS (active_us >> {PERIOD_BITS}) STORED,
    snapshot_seq bigint,
    snapshot_origin bytea,
    summary    bytea,
    PRIMARY KEY (user_id, session_id)
)""",
        f"CREATE INDEX session_history_listing ON {tables.head} (user_id, period DESC) WHERE NOT deleted",
        f"CREATE INDEX session_history_tombstone ON {tables.head} (user_id, session_id) WHERE deleted",
        *_entry_table(tables),
    )


def _entry_table(tables: Tables) -> tuple[str, ...]:
    """Return the statements that make the table of entries and their keys.

    The row of an entry is part 0, and the others have only an id, a key each. So a look-up of an id or a key is one
    access to one index, and an entry without keys costs nothing more.

    That index is not unique: a restored log may hold an id twice. The lock of the head keeps appends from it.

    A planner that has seen only short logs takes any index on ``log`` for as good as the best, and reads a long log
    whole. So it is told that a log has 20 rows.

    A payload is encoded already, so it is not compressed. Up to the size of a page, it stays in its row: a read of
    several entries then needs no extra access for each.
    """
    return (
        f"""CREATE TABLE {tables.entry} (
    log     bigint NOT NULL,
    seq     integer NOT NULL,
    part    smallint NOT NULL,
    bookkeeping boolean,
    id      bytea NOT NULL,
    origin  bytea,
    payload bytea,
    PRIMARY KEY (log, seq, part)
) WITH (toast_tuple_target = 8160)""",
        f"ALTER TABLE {tables.entry} ALTER COLUMN payload SET STORAGE EXTERNAL",
        f"ALTER TABLE {tables.entry} ALTER COLUMN log SET (n_distinct = -0.05)",
        f"CREATE INDEX session_history_entry_id ON {tables.entry} (log, id)",
    )


async def prepare(connection: Connection, database: str, *, schema: str | None, migrate: bool, durable: bool) -> str:
    """Check the server, make or upgrade the tables, and return the name of their schema.

    :param database: its URL without user, password and settings.
    :param schema: ``None`` = the first of the search path.
    :param migrate: make or upgrade tables; else they must be up to date.
    :param durable: the server must be set to write before it answers.
    :raises ConfigurationError: the schema does not exist, the server is not durable, tables are missing and
        ``migrate`` is off, or row-level security may hide rows.
    :raises IncompatibleStore: the tables belong to another application, or to a newer version.
    :raises StoreReadOnly: this user may not write, or the server is read-only.
    """
    server = await _server(connection, database, schema)
    _require_durable(server, database, durable=durable)
    if server["read_only"]:
        raise StoreReadOnly(f"{database} is read-only: a standby, or a server that is set to read-only")
    installed = await _installed(connection, database, server["schema"])
    if installed.missing and not migrate:
        raise ConfigurationError(
            f"{database}: schema {installed.schema!r} has version {installed.version} of the tables instead of "
            f"{len(migrations(Tables.of(installed.schema)))}, and migrate is off. Let an administrator run what "
            "provider.migration() returns, or start a service with migrate on"
        )
    if installed.missing:
        await _migrate(connection, database, installed.schema)
    return installed.schema


async def examine(connection: Connection, database: str, *, schema: str | None) -> Installed:
    """Return the tables that exist, without changing anything. For errors see :func:`prepare`."""
    server = await _server(connection, database, schema)
    return await _installed(connection, database, server["schema"])


async def _server(connection: Connection, database: str, schema: str | None) -> Row:
    [server] = await connection.fetch(_SERVER, schema)
    if server["skipped"]:
        raise StoreReadOnly(
            f"{database}: this user has no USAGE on schema {server['skipped']!r}, the first of the search path. "
            "Grant it, or name another schema"
        )
    if not server["there"]:
        raise ConfigurationError(
            f"{database} has no schema {schema!r}" if schema else f"{database} has an empty search path"
        )
    if server["encoding"] != "UTF8":
        raise ConfigurationError(f"{database} has the encoding {server['encoding']}; use a database with UTF8")
    return server


def _require_durable(server: Row, database: str, *, durable: bool) -> None:
    off = [name for name in ("synchronous_commit", "fsync") if server[name] == "off"]
    if durable and off:
        are = "are off. Turn them" if len(off) > 1 else "is off. Turn it"
        raise ConfigurationError(
            f"{database} answers before it has written: {' and '.join(off)} {are} on, or set durability=host"
        )


async def _installed(connection: Connection, database: str, schema: str) -> Installed:
    rows = await connection.fetch(_TABLES, schema, list(COLUMNS), SCHEMA)
    tables = {row["name"]: set(row["columns"]) for row in rows}
    if not tables:
        return Installed(schema, 0)
    names = ", ".join(sorted(tables))
    if not COLUMNS[SCHEMA] <= tables.get(SCHEMA, set()):
        raise IncompatibleStore(f"{database}: schema {schema!r} has tables of another application: {names}")
    if not all(row["allowed"] for row in rows):
        raise StoreReadOnly(f"{database}: this user may not read and write all of {names}")
    if filtered := [row["name"] for row in rows if row["filtered"]]:
        raise ConfigurationError(
            f"{database}: row-level security may hide rows of {' and '.join(sorted(filtered))} from this user, and "
            "their sessions would seem not to exist. Turn it off for these tables, or give the user BYPASSRLS"
        )
    version = await _version(connection, database, schema)
    for name, columns in COLUMNS.items():
        if lacking := columns - tables.get(name, set()):
            raise Corrupt(f"{database}: {name} is missing, or lacks {', '.join(sorted(lacking))}")
    return Installed(schema, version)


async def _version(connection: Connection, database: str, schema: str) -> int:
    tables = Tables.of(schema)
    [[version]] = await connection.fetch(f"SELECT max(version) FROM {tables.schema}")
    newest = len(migrations(tables))
    if not version:
        raise Corrupt(f"{database}: {SCHEMA} names no version")
    if version > newest:
        raise IncompatibleStore(
            f"{database} has schema version {version}; this version of session-history knows {newest}. Upgrade it."
        )
    return int(version)


async def _migrate(connection: Connection, database: str, schema: str) -> None:
    async with connection.transaction():
        # CREATE TABLE fails if two processes run it at once, with errors that differ by version of the server.
        await connection.driver.execute(_TAKE_LOCK)
        # Another process may have migrated before this one got the lock.
        for statement in (await _installed(connection, database, schema)).missing:
            await connection.driver.execute(statement)
