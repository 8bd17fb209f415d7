"""The tables: whose they are, and how they are made and upgraded."""

from __future__ import annotations

from typing import NamedTuple

from session_history.providers.postgresql.link import Link, Row
from session_history_hooks import ConfigurationError, Corrupt, IncompatibleStore, StoreReadOnly

LOCK = int.from_bytes(b"SHLG")
"""Names the lock under which tables are made: "session history log". It ends with its transaction."""

_ALONE = f"SELECT pg_advisory_xact_lock({LOCK})"

PERIOD_BITS = 30
"""A period of activity is 2**30 microseconds, 18 minutes: see :func:`_first`."""

HEAD = "session_history_head"
ENTRY = "session_history_entry"
SCHEMA = "session_history_schema"

COLUMNS = {
    SCHEMA: {"version"},
    HEAD: {
        "log", "user_id", "session_id", "generation", "seq", "tail_id", "deleted", "heartbeat", "rewrites", "active_us",
        "period", "snapshot_seq", "snapshot_id", "summary",
    },
    ENTRY: {"log", "seq", "id", "payload"},
}  # fmt: skip
"""What this version needs. A newer one may have added more."""

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
"""Whoever may not use a schema of the search path is given the next one, without a word."""

_TABLES = """SELECT c.relname::text AS name,
    array(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    has_table_privilege(c.oid, 'SELECT') AND (c.relname = $3 OR has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) AS allowed,
    row_security_active(c.oid) AS filtered
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2::text[])"""


class Tables(NamedTuple):
    """How the tables of a schema are called in a statement."""

    head: str
    entry: str
    schema: str

    @classmethod
    def of(cls, schema: str) -> Tables:
        quoted = schema.replace('"', '""')
        return cls(*(f'"{quoted}".{name}' for name in (HEAD, ENTRY, SCHEMA)))


class Found(NamedTuple):
    """:ivar version: of the tables that are there; 0 = there are none."""

    schema: str
    version: int

    @property
    def missing(self) -> tuple[str, ...]:
        """The statements that lead to the newest version."""
        tables = Tables.of(self.schema)
        steps = migrations(tables)
        return tuple(
            statement
            for version, statements in enumerate(steps[self.version :], start=self.version + 1)
            for statement in (*statements, f"INSERT INTO {tables.schema} (version) VALUES ({version})")
        )

    @property
    def script(self) -> tuple[str, ...]:
        """The same for somebody else to run: all of it is done or nothing, and by one at a time."""
        return ("BEGIN", _ALONE, *self.missing, "COMMIT") if self.missing else ()


def migrations(tables: Tables) -> tuple[tuple[str, ...], ...]:
    """Statements that lead from one version to the next. They only add, so that an older process can go on."""
    return (_first(tables),)


def _first(tables: Tables) -> tuple[str, ...]:
    """Keys are text that compares by code point; ids of entries are bytes, since they may hold NUL.

    Each append changes a head. PostgreSQL then leaves the indexes alone only if no column of theirs has changed, so the
    listing has an index over the period of the last activity, not over the activity itself; the few sessions of one
    period are sorted.

    A log is unique, since a copy of a database may count them from the start again.

    A payload is encoded already, so it is not compressed, and up to a page in size it stays in its row: a window of
    them is then read without a detour for each.
    """
    return (
        f"""CREATE TABLE {tables.schema} (
    version integer PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
)""",
        f"""CREATE TABLE {tables.head} (
    log        bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_id    text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    seq        integer NOT NULL,
    tail_id    bytea NOT NULL,
    deleted    boolean NOT NULL,
    heartbeat       bigint NOT NULL,
    rewrites      bigint NOT NULL,
    active_us  bigint NOT NULL,
    period     bigint GENERATED ALWAYS AS (active_us >> {PERIOD_BITS}) STORED,
    snapshot_seq   bigint,
    snapshot_id    bytea,
    summary       bytea,
    PRIMARY KEY (user_id, session_id)
)""",
        f"CREATE INDEX session_history_listing ON {tables.head} (user_id, period DESC) WHERE NOT deleted",
        f"""CREATE TABLE {tables.entry} (
    log     bigint NOT NULL,
    seq     integer NOT NULL,
    id      bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (log, seq)
) WITH (toast_tuple_target = 8160)""",
        f"ALTER TABLE {tables.entry} ALTER COLUMN payload SET STORAGE EXTERNAL",
        f"CREATE UNIQUE INDEX session_history_entry_id ON {tables.entry} (log, id)",
    )


async def prepare(link: Link, place: str, *, schema: str | None, migrate: bool, durable: bool) -> str:
    """Make the schema ours, at the newest version; the name of it.

    :param schema: ``None`` = the first of the search path.
    :param migrate: make or upgrade tables; else they must be there.
    :param durable: the server must be set to write before it answers.
    :raises ConfigurationError: it can not be there, tables are missing that must not be made, or rows may be hidden.
    :raises IncompatibleStore: the tables are somebody else's, or newer than we are.
    :raises StoreReadOnly: this user may not write, or nobody may.
    """
    server = await _server(link, place, schema)
    _insist_durable(server, place, durable=durable)
    if server["read_only"]:
        raise StoreReadOnly(f"{place} can only be read: a standby, or set to read only")
    found = await _found(link, place, server["schema"])
    if found.missing and not migrate:
        raise ConfigurationError(
            f"{place}: schema {found.schema!r} has version {found.version} of our tables, not "
            f"{len(migrations(Tables.of(found.schema)))}, and migrate is off. An administrator must run what "
            "provider.migration() returns, or a service with migrate on must start"
        )
    if found.missing:
        await _migrate(link, place, found.schema)
    return found.schema


async def examine(link: Link, place: str, *, schema: str | None) -> Found:
    """What is there. Changes nothing; for errors see :func:`prepare`."""
    server = await _server(link, place, schema)
    return await _found(link, place, server["schema"])


async def _server(link: Link, place: str, schema: str | None) -> Row:
    [server] = await link.fetch(_SERVER, schema)
    if server["skipped"]:
        raise StoreReadOnly(
            f"{place}: this user has no USAGE on schema {server['skipped']!r}, the first of the search path. "
            "Grant it, or name another schema"
        )
    if not server["there"]:
        raise ConfigurationError(f"{place} has no schema {schema!r}" if schema else f"{place} has an empty search path")
    if server["encoding"] != "UTF8":
        raise ConfigurationError(f"{place} has the encoding {server['encoding']}; it takes UTF8")
    return server


def _insist_durable(server: Row, place: str, *, durable: bool) -> None:
    off = [name for name in ("synchronous_commit", "fsync") if server[name] == "off"]
    if durable and off:
        are = "are off. Turn them" if len(off) > 1 else "is off. Turn it"
        raise ConfigurationError(
            f"{place} answers before it has written: {' and '.join(off)} {are} on, or say durability=host"
        )


async def _found(link: Link, place: str, schema: str) -> Found:
    rows = await link.fetch(_TABLES, schema, list(COLUMNS), SCHEMA)
    tables = {row["name"]: set(row["columns"]) for row in rows}
    if not tables:
        return Found(schema, 0)
    if not COLUMNS[SCHEMA] <= tables.get(SCHEMA, set()):
        raise IncompatibleStore(f"{place}: schema {schema!r} has somebody else's tables: {', '.join(sorted(tables))}")
    if not all(row["allowed"] for row in rows):
        raise StoreReadOnly(f"{place}: this user may not read and write all of {', '.join(sorted(tables))}")
    if filtered := [row["name"] for row in rows if row["filtered"]]:
        raise ConfigurationError(
            f"{place}: row-level security may hide rows of {' and '.join(sorted(filtered))} from this user, which "
            "would read as sessions never seen. Turn it off for these tables, or give the user BYPASSRLS"
        )
    version = await _version(link, place, schema)
    for name, columns in COLUMNS.items():
        lacking = columns - tables.get(name, set())
        if lacking:
            raise Corrupt(f"{place}: {name} is missing, or lacks {', '.join(sorted(lacking))}")
    return Found(schema, version)


async def _version(link: Link, place: str, schema: str) -> int:
    tables = Tables.of(schema)
    [[version]] = await link.fetch(f"SELECT max(version) FROM {tables.schema}")
    newest = len(migrations(tables))
    if not version:
        raise Corrupt(f"{place}: {SCHEMA} names no version")
    if version > newest:
        raise IncompatibleStore(
            f"{place} has schema version {version}; this version of session-history knows {newest}. Upgrade it."
        )
    return int(version)


async def _migrate(link: Link, place: str, schema: str) -> None:
    async with link.transaction():
        # Two that make a table at once fail in ways that differ by version: so one after the other.
        await link.connection.execute(_ALONE)
        # Looked at again under the lock: another process may have been faster.
        for statement in (await _found(link, place, schema)).missing:
            await link.connection.execute(statement)
