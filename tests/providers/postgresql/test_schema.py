"""The tables in PostgreSQL: migrations, tables of other applications, and rights."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from providers.postgresql.support import (
    OnOwnServer,
    OnServer,
    connections,
    create_schema,
    execute,
    open_provider_of,
    provider_of,
    until_connections,
)
from servers.postgresql import PASSWORD, Server
from session_history.config.registry import open_provider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.postgresql.schema import LOCK
from session_history_hooks import (
    ConfigurationError,
    Corrupt,
    IncompatibleStore,
    Position,
    Shard,
    StoreReadOnly,
)
from session_history_hooks.testing.subject import KEY, append, fill, opened, read

ALL = "SELECT, INSERT, UPDATE, DELETE"


class TestMigrations(OnServer):
    """Tables that are made, found or refused."""

    async def test_starts_at_once_make_one_set_of_tables(self, home: str, schema: str, admin: Any) -> None:
        options = quote("-c default_transaction_isolation=repeatable\\ read")
        url = f"{home}?options={options}"
        await admin.execute(f"SELECT pg_advisory_lock({LOCK})")
        starting = [asyncio.create_task(provider_of(url, schema).start()) for _ in range(3)]
        await until_blocked(admin, len(starting))
        await admin.execute(f"SELECT pg_advisory_unlock({LOCK})")
        await asyncio.gather(*starting)

    async def test_starts_at_once_of_one_provider_keep_one_connection(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{uuid4().hex}"
        provider = provider_of(f"{home}?application_name={name}", schema)
        await asyncio.gather(*(provider.start() for _ in range(5)))
        await fill(provider, 1)
        await asyncio.sleep(0.1)  # The server ends the connections that were closed.
        assert await connections(admin, name) == 1
        await provider.stop()

    async def test_start_that_is_cancelled_ends_at_once(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{uuid4().hex}"
        provider = provider_of(f"{home}?application_name={name}", schema)
        await admin.execute(f"SELECT pg_advisory_lock({LOCK})")
        starting = asyncio.create_task(provider.start())
        await until_blocked(admin, 1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
        await admin.execute(f"SELECT pg_advisory_unlock({LOCK})")
        await until_connections(admin, name, 0)
        assert "session_history_head" in await tables(admin, schema), "the migration ran to its end"
        async with opened(lambda: provider):
            await fill(provider, 1)

    async def test_migration_by_hand_makes_the_same_tables_as_start(self, home: str, schema: str, admin: Any) -> None:
        by_hand = open_provider(f"{home}?schema={schema}&migrate=false&durability=host", {})
        assert isinstance(by_hand, PostgresqlProvider)
        statements = await by_hand.migration()
        with pytest.raises(ConfigurationError, match=r"version 0 of the tables instead of 1, and migrate is off"):
            await by_hand.start()
        assert await tables(admin, schema) == []
        await execute(home, *statements[:-2])
        assert await by_hand.migration() == statements, "the interrupted transaction changed nothing"
        await execute(home, *statements)
        assert await by_hand.migration() == ()
        async with opened(lambda: by_hand) as provider:
            await fill(provider, 1)
        other = await create_schema(home)
        async with open_provider_of(home, other):
            pass
        assert await columns_and_indexes(admin, other) == await columns_and_indexes(admin, schema)

    async def test_migration_by_hand_waits_for_one_that_runs(self, home: str, schema: str, admin: Any) -> None:
        statements = await provider_of(home, schema).migration()
        await admin.execute(f"SELECT pg_advisory_lock({LOCK})")
        by_hand = asyncio.create_task(execute(home, *statements))
        await until_blocked(admin, 1)
        await admin.execute(f"SELECT pg_advisory_unlock({LOCK})")
        await by_hand
        async with open_provider_of(home, schema, migrate=False) as provider:
            await fill(provider, 1)

    async def test_start_without_schema_uses_the_first_of_the_search_path(
        self, home: str, schema: str, admin: Any
    ) -> None:
        options = quote(f"-c search_path={schema}")
        async with open_provider_of(f"{home}?options={options}", None) as provider:
            await fill(provider, 1)
        assert "session_history_head" in await tables(admin, schema)
        with pytest.raises(ConfigurationError, match="empty search path"):
            await provider_of(f"{home}?options={quote('-c search_path=nowhere')}", None).start()

    @pytest.mark.parametrize("schema", ['a "b" c', "Grün", "select"])
    async def test_schema_may_have_any_name(self, home: str, schema: str, admin: Any) -> None:
        quoted = schema.replace('"', '""')
        await admin.execute(f'DROP SCHEMA IF EXISTS "{quoted}" CASCADE; CREATE SCHEMA "{quoted}"')
        async with open_provider_of(home, schema) as provider:
            await fill(provider, 1)
        await admin.execute(f'DROP SCHEMA "{quoted}" CASCADE')

    async def test_schema_that_does_not_exist_raises_configuration_error(self, home: str) -> None:
        with pytest.raises(ConfigurationError, match="has no schema 'nowhere'"):
            await provider_of(home, "nowhere").start()

    @pytest.mark.parametrize(
        ("change", "error", "text"),
        [
            ("INSERT INTO session_history_schema VALUES (2)", IncompatibleStore, "has schema version 2"),
            ("DELETE FROM session_history_schema", Corrupt, "names no version"),
            ("DROP TABLE session_history_schema", IncompatibleStore, "tables of another application"),
            ("ALTER TABLE session_history_schema RENAME version TO v", IncompatibleStore, "another application"),
            ("DROP TABLE session_history_entry", Corrupt, "session_history_entry is missing"),
            ("DROP TABLE session_history_store", Corrupt, "session_history_store is missing"),
            (
                "ALTER TABLE session_history_head DROP COLUMN heartbeat",
                Corrupt,
                "session_history_head is missing, or lacks heartbeat",
            ),
        ],
    )
    async def test_tables_that_were_changed_are_refused(
        self, home: str, schema: str, change: str, error: type[Exception], text: str
    ) -> None:
        async with open_provider_of(home, schema):
            pass
        await execute(home, f"SET search_path TO {schema}", change)
        for provider in (provider_of(home, schema), provider_of(home, schema, migrate=False)):
            with pytest.raises(error, match=text):
                await provider.start()
            assert not await provider.health()

    async def test_stores_that_one_script_made_have_incarnations_of_their_own(
        self, home: str, schema: str, admin: Any
    ) -> None:
        statements = await provider_of(home, schema).migration()
        other = await create_schema(home)
        await execute(home, *statements)
        await execute(home, *(statement.replace(schema, other) for statement in statements))
        async with open_provider_of(home, schema) as one, open_provider_of(home, other) as two:
            assert (await one.store_info()).incarnation != (await two.store_info()).incarnation
            await admin.execute(f"DELETE FROM {schema}.session_history_store")
            with pytest.raises(Corrupt, match="session_history_store must have one row"):
                await one.store_info()

    async def test_column_of_a_newer_version_is_ignored(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 1)
        for table in ("head", "entry", "store"):
            await admin.execute(
                f"ALTER TABLE {schema}.session_history_{table} ADD COLUMN new integer NOT NULL DEFAULT 0"
            )
        await append(provider, 2)
        assert len((await read(provider)).entries) == 2
        assert (await provider.store_info(shard=Shard(0, 1))).shard == Shard(0, 1)


class TestRights(OnOwnServer):
    """Rights of roles, and encodings of databases."""

    async def test_start_on_tables_that_are_up_to_date_needs_no_right_to_make_them(
        self, server: Server, admin: Any
    ) -> None:
        schema = await create_schema(server.url())
        role = await create_role(admin)
        await admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        limited = server.url(user=role)
        with pytest.raises(StoreReadOnly, match="rights"):
            await provider_of(limited, schema).start()
        assert await tables(admin, schema) == []
        async with open_provider_of(server.url(), schema):
            pass
        with pytest.raises(StoreReadOnly, match="may not read and write"):
            await provider_of(limited, schema).start()
        for rights, table in (("SELECT", "schema"), *((ALL, table) for table in ("store", "head", "entry"))):
            await admin.execute(f"GRANT {rights} ON {schema}.session_history_{table} TO {role}")
        async with open_provider_of(limited, schema) as provider:
            await fill(provider, 2)
            assert (await provider.store_info(shard=Shard(0, 1))).shard == Shard(0, 1)
            await admin.execute(f"REVOKE INSERT ON {schema}.session_history_entry FROM {role}")
            with pytest.raises(StoreReadOnly, match="42501"):
                await append(provider, 3)
            assert (await read(provider)).head.tail == Position(0, 2)
            await admin.execute(f"GRANT INSERT ON {schema}.session_history_entry TO {role}")
            await admin.execute(f"REVOKE DELETE ON {schema}.session_history_entry FROM {role}")
            with pytest.raises(StoreReadOnly, match="42501"):
                await provider.delete(KEY)
            assert not (await read(provider)).head.deleted

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            *((name, "{}, public") for name in ("plain", 'a "b", c', "Grün", "ÄRGER", "$user")),
            ("plain", "{}"),
            ("plain", "nowhere,{},public"),
        ],
    )
    async def test_first_schema_of_the_search_path_without_usage_raises_store_read_only(
        self, server: Server, admin: Any, path: str, name: str
    ) -> None:
        role = await create_role(admin)
        schema = role if name == "$user" else f"{name}{uuid4().hex}"
        quoted = '"' + schema.replace('"', '""') + '"'
        public = await tables(admin, "public")
        await admin.execute(f"CREATE SCHEMA {quoted}")
        shown = '"$user"' if name == "$user" else quoted
        await admin.execute(
            f"ALTER ROLE {role} SET search_path = {path.format(shown)}; GRANT ALL ON SCHEMA public TO {role}"
        )
        limited = provider_of(server.url(user=role), None)
        for call in (limited.start, limited.migration):
            with pytest.raises(StoreReadOnly, match=f"no USAGE on schema {re.escape(repr(schema))}"):
                await call()
        assert await tables(admin, "public") == public
        await admin.execute(f"GRANT ALL ON SCHEMA {quoted} TO {role}")
        async with opened(lambda: limited) as provider:
            await fill(provider, 1)
        assert "session_history_head" in await tables(admin, schema)

    async def test_later_schema_of_the_search_path_without_usage_is_ignored(
        self, server: Server, admin: Any, schema: str
    ) -> None:
        role = await create_role(admin)
        await admin.execute(f"CREATE SCHEMA {role}_; GRANT ALL ON SCHEMA {schema} TO {role}")
        options = quote(f"-c search_path=$user,{schema.upper()},{role}_")
        async with open_provider_of(f"{server.url(user=role)}?options={options}", None):
            assert "session_history_head" in await tables(admin, schema)
        options = quote(f"-c search_path={role}_")
        async with open_provider_of(f"{server.url(user=role)}?options={options}", schema):
            pass

    @pytest.mark.parametrize("table", ["schema", "store", "head", "entry"])
    async def test_row_level_security_raises_configuration_error(self, server: Server, admin: Any, table: str) -> None:
        schema = await create_schema(server.url())
        async with open_provider_of(server.url(), schema) as provider:
            await fill(provider, 1)
        role = await create_role(admin)
        await admin.execute(
            f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};"
            f"ALTER TABLE {schema}.session_history_{table} ENABLE ROW LEVEL SECURITY"
        )
        limited = provider_of(server.url(user=role), schema)
        for call in (limited.start, limited.migration):
            with pytest.raises(
                ConfigurationError, match=f"row-level security may hide rows of session_history_{table}"
            ):
                await call()
        await admin.execute(f"ALTER ROLE {role} BYPASSRLS")
        async with opened(lambda: limited) as provider:
            assert len((await read(provider)).entries) == 1

    async def test_other_encoding_than_utf8_raises_configuration_error(self, server: Server, admin: Any) -> None:
        await admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
        for schema, text in (
            (None, "encoding LATIN1"),
            ("nowhere", "no schema 'nowhere'"),
            ("日本", "use a database with UTF8"),
        ):
            with pytest.raises(ConfigurationError, match=text):
                await provider_of(server.url("latin"), schema).start()


async def create_role(admin: Any) -> str:
    role = f"r{uuid4().hex}"
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    return role


async def until_blocked(admin: Any, count: int) -> None:
    """Wait until ``count`` backends wait for the lock under which tables are made."""
    for _ in range(500):
        if await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") >= count:
            return
        await asyncio.sleep(0.01)
    pytest.fail("nobody waits for the lock")


async def tables(admin: Any, schema: str) -> list[str]:
    rows = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema)
    return [row[0] for row in rows]


async def columns_and_indexes(admin: Any, schema: str) -> list[tuple[object, ...]]:
    columns = await admin.fetch(
        "SELECT table_name, column_name, data_type, collation_name, is_nullable FROM information_schema.columns"
        " WHERE table_schema = $1 ORDER BY 1, 2",
        schema,
    )
    indexes = await admin.fetch(
        "SELECT replace(indexdef, $1, '') FROM pg_indexes WHERE schemaname = $1 ORDER BY 1", schema
    )
    assert columns
    assert indexes
    return [tuple(row) for row in [*columns, *indexes]]
