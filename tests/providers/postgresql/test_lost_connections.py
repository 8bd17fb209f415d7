"""Connections to PostgreSQL that break, and servers that restart."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest

from providers.postgresql.support import (
    OnOwnServer,
    backends_waiting_for_lock,
    connections,
    fail_statements,
    fragile_server,
    hurried,
    locked,
    on_each_connection,
    open_provider_of,
    until,
)
from providers.postgresql.test_timeouts import append_next
from servers.postgresql import PASSWORD, USER, Server
from servers.proxy import Mishap, Proxy
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.errors import DRIVER_ERRORS
from session_history.providers.postgresql.pool import Pool
from session_history_hooks import Appended, Conflict, Entry, Position, SessionKey, StoreReadOnly, Unavailable
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, read, rewrite


class TestCalls(OnOwnServer):
    """The effect of a lost connection on each kind of call."""

    async def test_append_whose_answer_is_lost_is_stored_once(self, proxy: Proxy, proxied: str, schema: str) -> None:
        async with open_provider_of(proxied, schema) as provider:
            await fill(provider, 2)
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            appending = asyncio.create_task(append(provider, 3, covering(3)))
            await until(lambda: proxy.connections > 1)
            proxy.mishaps = repeat(None)
            assert await appending == Appended(Position(0, 3), replayed=True)
            log = await read(provider)
            assert log.entries == (entry(1), entry(2), entry(3))
            assert log.head.current_snapshot == covering(3)

    async def test_append_whose_outcome_stays_unknown_raises_unavailable(
        self, proxy: Proxy, proxied: str, schema: str
    ) -> None:
        async with hurried(proxied, schema) as provider:
            await append(provider, 1)
            logins = proxy.connections
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            with pytest.raises(Unavailable):
                await append(provider, 2)
            assert proxy.connections > logins + 1, "it was tried more than once"
            proxy.mishaps = repeat(None)
            assert (await append(provider, 2)).position == Position(0, 2)

    async def test_append_on_a_connection_that_died_silently_is_tried_on_another(
        self, proxy: Proxy, proxied: str, schema: str
    ) -> None:
        async with hurried(proxied, schema) as provider:
            await asyncio.gather(*(append(provider, 1) for _ in range(3)))
            logins = proxy.connections
            proxy.mute()
            assert (await append(provider, 2)).position == Position(0, 2)
            assert proxy.connections > logins

    async def test_rewrite_whose_answer_is_lost_is_done_once(self, proxy: Proxy, proxied: str, schema: str) -> None:
        async with open_provider_of(proxied, schema) as provider:
            await fill(provider, 2)
            await rewrite(provider, 1, b"old")
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            rewriting = asyncio.create_task(rewrite(provider, 1, rewrite_id="r2", last="r1"))
            await until(lambda: proxy.connections > 1)
            proxy.mishaps = repeat(None)
            head = await rewriting
            assert head.rewrite_id == "r2"
            log = await read(provider)
            assert (log.head, log.entries) == (head, (entry(1, b"new"), entry(2)))

    async def test_delete_and_restore_are_not_repeated_after_a_lost_answer(
        self, proxy: Proxy, proxied: str, schema: str
    ) -> None:
        async with open_provider_of(proxied, schema) as provider:
            await fill(provider, 2)
            log = await read(provider)
            longer = replace(log.head, tail=Position(0, 3), tail_origin="o3")
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            for logins, call in enumerate(
                (
                    provider.delete(KEY),
                    provider.delete_user(KEY.user_id),
                    provider.restore(longer, [entry(3)], behind="o2"),
                ),
                start=1,
            ):
                with pytest.raises(Unavailable):
                    await call
                assert proxy.connections == logins
            proxy.mishaps = repeat(None)
            assert await read(provider) == log, "its first statement changes nothing yet"

    async def test_delete_of_a_user_keeps_its_finished_steps_when_its_connection_breaks(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.statements.DELETE_BATCH", 3)
        await fill_five_sessions(provider)
        async with locked(home, schema, "session_id = 's4'"):
            deleting = asyncio.create_task(provider.delete_user("u"))
            [backend] = await backends_waiting_for_lock(admin)
            await admin.execute("SELECT pg_terminate_backend($1)", backend)
            with pytest.raises(Unavailable):
                await deleting
            assert len((await provider.list("u", limit=9)).heads) == 2
        assert await provider.delete_user("u") == 2

    async def test_delete_of_a_user_that_is_cancelled_finishes_its_step_and_no_more(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.statements.DELETE_BATCH", 3)
        await fill_five_sessions(provider)
        tasks = asyncio.all_tasks()
        async with locked(home, schema, "session_id = 's1'"):
            deleting = asyncio.create_task(provider.delete_user("u"))
            await backends_waiting_for_lock(admin)
            deleting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await deleting
        await until(lambda: asyncio.all_tasks() <= tasks)
        assert len((await provider.list("u", limit=9)).heads) == 2

    async def test_delete_with_an_outcome_that_the_server_does_not_know_raises_unavailable(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 1)
        await fail_statements(admin, schema, "40003", times=2, at="DELETE ON session_history_entry")
        for _ in range(2):
            with pytest.raises(Unavailable, match="40003"):
                await provider.delete(KEY)
        assert await provider.delete(KEY) is True

    @pytest.mark.parametrize("state", ["40001", "40P01"])
    async def test_append_that_was_rolled_back_for_another_transaction_is_tried_again(
        self, provider: PostgresqlProvider, admin: Any, schema: str, state: str
    ) -> None:
        await fill(provider, 1)
        await fail_statements(admin, schema, state, times=3)
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_appends_at_once_with_serializable_isolation_meet_only_conflicts(
        self, home: str, schema: str
    ) -> None:
        url = f"{home}?options=-c%20default_transaction_isolation%3Dserializable"
        async with open_provider_of(url, schema) as provider:
            await asyncio.gather(*(append(provider, 1) for _ in range(8)))
            outcomes = await asyncio.gather(
                *(provider.append(KEY, Entry(f"r{rival}", b""), at=Position(0, 1)) for rival in range(8)),
                return_exceptions=True,
            )
            assert sum(isinstance(each, Appended) for each in outcomes) == 1
            assert sum(isinstance(each, Conflict) for each in outcomes) == 7


class TestTransactions(OnOwnServer):
    """Transactions whose client is gone, and the state that others leave."""

    async def test_transaction_of_a_client_that_is_gone_releases_its_locks(
        self, schema: str, provider: PostgresqlProvider, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fill(provider, 1)
        monkeypatch.setattr("session_history.providers.postgresql.connection.IDLE_TRANSACTION_MS", 300)
        gone = Connection(admin, statement_cache=False)
        with pytest.raises(DRIVER_ERRORS):
            async with gone.transaction():
                await gone.fetch(f"SELECT FROM {schema}.session_history_head FOR UPDATE")
                assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_transaction_leaves_no_setting_in_its_session(self, admin: Any) -> None:
        async with Connection(admin, statement_cache=False).transaction():
            assert await admin.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
        assert await admin.fetchval("SHOW idle_in_transaction_session_timeout") == "0"


class TestServers(OnOwnServer):
    """Backends that are terminated, servers that restart, and hosts that become read-only."""

    async def test_append_whose_backend_is_terminated_is_stored_once(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any
    ) -> None:
        await fill(provider, 1)
        async with locked(home, schema):
            appending = asyncio.create_task(append(provider, 2))
            for _ in range(3):
                [backend] = await backends_waiting_for_lock(admin)
                await admin.execute("SELECT pg_terminate_backend($1)", backend)
                await until_another_waits(admin, backend)
        assert await appending == Appended(Position(0, 2), replayed=False)
        assert (await read(provider)).entries == (entry(1), entry(2))

    async def test_calls_succeed_after_all_backends_were_terminated(
        self, named: str, name: str, schema: str, admin: Any
    ) -> None:
        async with open_provider_of(named, schema) as provider:
            await asyncio.gather(*(append(provider, 1) for _ in range(5)))
            assert await connections(admin, name) > 1
            terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
            await admin.execute(terminate, name)
            await asyncio.gather(*(append(provider, 2) for _ in range(5)))
            await admin.execute(terminate, name)
            await asyncio.sleep(0.1)
            assert await provider.delete(KEY) is True

    async def test_call_with_a_password_that_was_changed_raises_unavailable_at_once(
        self, server: Server, schema: str, name: str, admin: Any
    ) -> None:
        await admin.execute(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        async with open_provider_of(server.url(user=name), schema) as provider:
            await append(provider, 1)
            await admin.execute(f"ALTER ROLE {name} PASSWORD 'another'")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"refuses this user or password \(28P01\)"):
                await provider.read(KEY)
            assert time.monotonic() - began < 3
            await admin.execute(f"ALTER ROLE {name} PASSWORD '{PASSWORD}'")
            assert (await read(provider)).entries == (entry(1),)

    async def test_calls_succeed_after_the_server_was_restarted(self) -> None:
        server = fragile_server()
        async with hurried(server.url(), None, timeout=1.0) as provider:
            tail = await append_next(provider)
            for end in (server.stop, server.kill):
                end()
                for call in (provider.read(KEY), provider.append(KEY, Entry("late", b""), at=tail)):
                    with pytest.raises(Unavailable):
                        await call
                assert await provider.health() is False
                server.start()
                assert await provider.health() is True
                tail = (await provider.append(KEY, Entry(f"after {end.__name__} {tail.seq}", b""), at=tail)).position
            assert (await read(provider, last=0)).head.tail == tail

    async def test_appends_during_a_restart_are_stored_once_each(self) -> None:
        server, turns = fragile_server(), 40

        async def write(writer: int) -> None:
            tail = Position(0, 0)
            for number in range(turns):
                tail = await acknowledged(SessionKey("restart", f"w{writer}"), Entry(f"{number}", b"x"), tail)
                assert tail == Position(0, number + 1)
                await asyncio.sleep(0.01)

        async def acknowledged(key: SessionKey, entry: Entry, at: Position) -> Position:
            while True:
                try:
                    return (await provider.append(key, entry, at=at)).position
                except Unavailable:  # A refused connection is reported at once.
                    await asyncio.sleep(0.02)

        async with open_provider_of(server.url(), None, pool_size=4) as provider:
            await asyncio.gather(*(provider.read(KEY) for _ in range(4)))
            writing = asyncio.gather(*(write(writer) for writer in range(3)))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.restart)
            await writing
            for writer in range(3):
                entries = (await read(provider, SessionKey("restart", f"w{writer}"))).entries
                assert [each.id for each in entries] == [f"{number}" for number in range(turns)]

    async def test_append_on_a_connection_that_became_read_only_drops_all_connections(
        self, pools: list[Pool], home: str, schema: str
    ) -> None:
        async with open_provider_of(home, schema) as provider:
            await append(provider, 1)
            await on_each_connection(pools[0], 4, "SET default_transaction_read_only = on")
            with pytest.raises(StoreReadOnly):
                await append(provider, 2)
            assert (await append(provider, 2)).position == Position(0, 2)

    async def test_host_that_became_read_only_is_asked_last(
        self, pools: list[Pool], server: Server, schema: str
    ) -> None:
        with Proxy(server.port) as first, Proxy(server.port) as second:
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
            url = f"postgresql://{USER}:{PASSWORD}@{hosts}/postgres?sslmode=disable&target_session_attrs=any"
            async with open_provider_of(url, schema, pool_size=2) as provider:
                await append(provider, 1)
                await on_each_connection(pools[0], 2, "SET default_transaction_read_only = on")
                outcomes = await asyncio.gather(*(append(provider, 2) for _ in range(2)), return_exceptions=True)
                assert [type(each) for each in outcomes] == [StoreReadOnly] * 2
                await append(provider, 2)
                assert (first.connections, second.connections) == (2, 1)

    async def test_host_that_does_not_answer_leaves_time_for_the_next(
        self, pools: list[Pool], server: Server, schema: str
    ) -> None:
        logins = 0

        async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal logins
            logins += 1
            await reader.read()
            writer.close()

        dead = await asyncio.start_server(never_answer, "127.0.0.1")
        async with dead, open_provider_of(two_hosts(dead, server), schema, timeout=2.0) as provider:
            await fill(provider, 1)
            pools[0].terminate_idle()
            await append(provider, 2)
            assert logins == 1, "the host that answered is asked first"

    @pytest.mark.parametrize("sslmode", ["disable", "prefer"])
    async def test_host_that_closes_the_connection_is_followed_by_the_next(
        self, server: Server, schema: str, sslmode: str
    ) -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.close()

        empty = await asyncio.start_server(close, "127.0.0.1")
        url = f"{two_hosts(empty, server)}&sslmode={sslmode}"
        async with empty, open_provider_of(url, schema) as provider:
            assert await provider.health()


def two_hosts(first: asyncio.Server, second: Server) -> str:
    hosts = f"127.0.0.1:{first.sockets[0].getsockname()[1]},127.0.0.1:{second.port}"
    return f"postgresql://{USER}:{PASSWORD}@{hosts}/postgres?target_session_attrs=read-write"


async def fill_five_sessions(provider: PostgresqlProvider) -> None:
    for number in range(1, 6):
        await provider.append(SessionKey("u", f"s{number}"), entry(1), at=Position(0, 0))


async def until_another_waits(admin: Any, first: int) -> None:
    for _ in range(1000):
        if await backends_waiting_for_lock(admin) != [first]:
            return
        await asyncio.sleep(0.005)
    pytest.fail("no other backend waits")
