"""Restores on PostgreSQL that fail, or take long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from providers.postgresql.support import OnOwnServer, fail_statements, hurried, open_provider_of
from providers.postgresql.test_timeouts import slow_down
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import Conflict, SessionKey, Unavailable
from session_history_hooks.testing.subject import append, fill, read

COPY = SessionKey("copy", "s")


class TestRestoring(OnOwnServer):
    async def test_restore_that_the_server_refuses_writes_nothing(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 3)
        log = await read(provider)
        copy = replace(log.head, key=COPY)
        await fail_statements(admin, schema, "57014", times=1)
        with pytest.raises(Unavailable, match="57014"):
            await provider.restore(copy, log.entries)
        assert await provider.read(COPY) is None
        assert await provider.restore(copy, log.entries) is True
        assert (await read(provider, COPY)).entries == log.entries

    async def test_restore_that_is_a_conflict_keeps_its_connection(
        self, named: str, name: str, schema: str, admin: Any
    ) -> None:
        backends = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{name}'"
        async with open_provider_of(named, schema, pool_size=1) as provider:
            await fill(provider, 2)
            log = await read(provider)
            before = await admin.fetch(backends)
            with pytest.raises(Conflict):
                await provider.restore(replace(log.head, rewrite_id="r"), log.entries)
            await append(provider, 3)
            assert await admin.fetch(backends) == before

    async def test_restore_may_take_a_timeout_for_each_step(self, home: str, schema: str, admin: Any) -> None:
        async with hurried(home, schema, timeout=1.5) as provider:
            await fill(provider, 3)
            log = await read(provider)
            await slow_down(admin, schema, f"INSERT ON {schema}.session_history_head", 1.0)
            await slow_down(admin, schema, f"INSERT ON {schema}.session_history_entry", 0.3)
            copy = replace(log.head, key=COPY)
            assert await provider.restore(copy, log.entries) is True
            assert (await read(provider, COPY)).entries == log.entries
