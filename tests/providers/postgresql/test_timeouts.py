"""Calls on PostgreSQL that get no answer in time."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from providers.postgresql.support import OnServer, busy, fragile_server, hurried, locked, open_provider_of
from session_history.providers.postgresql.pool import Pool
from session_history_hooks import Appended, Entry, Position, Unavailable
from session_history_hooks.testing.subject import KEY, append, fill, read


class TestTimeouts(OnServer):
    async def test_append_that_waits_too_long_is_rolled_back(self, home: str, schema: str, admin: Any) -> None:
        async with hurried(home, schema, pool_size=1) as provider:
            await fill(provider, 1)
            async with locked(home, schema):
                with pytest.raises(Unavailable, match="did not answer in time"):
                    await append(provider, 2)
                assert not await admin.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            assert (await read(provider)).head.tail == Position(0, 1)
            assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_delete_that_waits_too_long_leaves_an_idle_connection(
        self, home: str, named: str, name: str, schema: str, admin: Any
    ) -> None:
        async with hurried(named, schema, pool_size=1) as provider:
            await fill(provider, 1)
            async with locked(home, schema):
                with pytest.raises(Unavailable):
                    await provider.delete(KEY)
            assert not (await read(provider)).head.deleted
            states = await admin.fetch("SELECT state FROM pg_stat_activity WHERE application_name = $1", name)
            assert [row["state"] for row in states] == ["idle"]

    async def test_call_without_a_free_connection_raises_unavailable(
        self, pools: list[Pool], home: str, schema: str
    ) -> None:
        async with open_provider_of(home, schema, pool_size=1, timeout=30.0) as provider:
            await fill(provider, 1)
            [pool] = pools
            async with busy(pool):
                pool.timeout = 0.5
                for call in (provider.read(KEY), append(provider, 2)):
                    with pytest.raises(Unavailable, match="all 1 connections of this event loop are in use"):
                        await call
                pool.timeout = 30.0
            assert (await read(provider)).head.tail == Position(0, 1)
            await append(provider, 2)

    async def test_calls_to_a_frozen_server_raise_unavailable(self) -> None:
        server = fragile_server()
        async with hurried(server.url(), None) as provider:
            tail = await append_next(provider)
            server.freeze()
            try:
                for call in (
                    provider.read(KEY),
                    provider.append(KEY, Entry("cold", b""), at=tail),
                    provider.list("u", limit=1),
                    provider.delete(KEY),
                ):
                    with pytest.raises(Unavailable):
                        async with asyncio.timeout(5):
                            await call
                assert await provider.health() is False
            finally:
                server.thaw()
            assert (await provider.append(KEY, Entry("cold", b""), at=tail)).position == Position(0, tail.seq + 1)
            assert [each.id for each in (await read(provider, after=tail.seq)).entries] == ["cold"]

    async def test_delete_on_a_server_that_freezes_in_its_transaction_changes_nothing(self) -> None:
        server = fragile_server()
        async with hurried(server.url(), None) as provider:
            tail = await append_next(provider)
            async with locked(server.url(), "public"):
                deleting = asyncio.create_task(provider.delete(KEY))
                await asyncio.sleep(0.2)
                server.freeze()
                try:
                    with pytest.raises(Unavailable):
                        async with asyncio.timeout(5):
                            await deleting
                finally:
                    server.thaw()
            assert (await read(provider, last=0)).head.tail == tail

    async def test_delete_may_take_a_timeout_for_each_step(
        self, home: str, schema: str, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.PAGE", 2)
        async with hurried(home, schema, timeout=2.5) as provider:
            await fill(provider, 12)
            await slow_down(admin, schema, f"DELETE ON {schema}.session_history_entry", 0.25)
            assert await provider.delete(KEY) is True, "six steps, of half a second each"


async def slow_down(admin: Any, schema: str, event: str, seconds: float) -> None:
    """Let the server take this time for each row."""
    name = f"{schema}.slow{uuid4().hex}"
    await admin.execute(
        f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
        CREATE TRIGGER slow AFTER {event} FOR EACH ROW EXECUTE FUNCTION {name}()"""
    )


async def append_next(provider: Any) -> Position:
    """Append an entry to a log of any length, and return the new tail."""
    log = await provider.read(KEY, last=0)
    tail = log.head.tail if log else Position(0, 0)
    appended: Appended = await provider.append(KEY, Entry(f"any {tail.seq}", b""), at=tail)
    return appended.position
