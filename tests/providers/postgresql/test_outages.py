"""PostgreSQL that is slow, gone, full or not as it was said to be."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any

import asyncpg
import pytest

from providers.postgresql.support import (
    OnOwnServer,
    OnServer,
    a_schema,
    connections,
    hurried,
    locked,
    provider_of,
    until_connections,
    waiting,
)
from servers.ports import free_port
from servers.postgresql import PASSWORD, USER, Machine, Server, replicated, running, servers
from servers.proxy import Mishap, Proxy
from session_history.config.registry import open_provider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.postgresql.errors import DRIVER_ERRORS
from session_history.providers.postgresql.link import Link
from session_history.providers.postgresql.rows import Rows
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Conflict,
    Durability,
    Entry,
    Position,
    SessionHistoryError,
    SessionKey,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, opened, read

WRITE = "target_session_attrs=read-write"
ANY = "target_session_attrs=any"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with servers() as machine:
        yield machine


@pytest.fixture(scope="module")
def fragile(machine: Machine) -> Iterator[Server]:
    """A server that tests may stop; they start it again."""
    with running(machine, "fsync=off", "full_page_writes=off") as server:
        yield server


class TestTime(OnServer):
    """What does not answer."""

    async def test_an_append_that_waits_too_long_is_taken_back(self, home: str, schema: str, admin: Any) -> None:
        async with hurried(provider_of(home, schema, pool_size=1)) as provider:
            await fill(provider, 1)
            async with locked(home, schema):
                with pytest.raises(Unavailable, match="did not answer in time"):
                    await append(provider, 2)
                assert not await admin.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            assert (await read(provider)).head.tail == Position(0, 1)
            assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_nobody_waits_for_a_connection_for_ever(self, home: str, schema: str) -> None:
        async with hurried(provider_of(home, schema, pool_size=1)) as provider:
            await fill(provider, 1)
            pool = provider._pool()
            held = await pool._take()
            for call in (provider.read(KEY), append(provider, 2)):
                with pytest.raises(Unavailable, match="all 1 connections of this event loop are in use"):
                    await call
            pool._give_back(held)
            assert (await read(provider)).head.tail == Position(0, 1)
            await append(provider, 2)

    async def test_a_server_that_is_frozen(self, fragile: Server) -> None:
        async with hurried(provider_of(fragile.url(), None)) as provider:
            tail = await anything(provider)
            fragile.freeze()
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
                fragile.thaw()
            assert (await provider.append(KEY, Entry("cold", b""), at=tail)).position == Position(0, tail.seq + 1)
            assert [each.id for each in (await read(provider, after=tail.seq)).entries] == ["cold"]

    async def test_a_server_that_freezes_in_a_transaction(self, fragile: Server) -> None:
        async with hurried(provider_of(fragile.url(), None)) as provider:
            tail = await anything(provider)
            async with locked(fragile.url(), "public"):
                deleting = asyncio.create_task(provider.delete(KEY))
                await asyncio.sleep(0.2)
                fragile.freeze()
                try:
                    with pytest.raises(Unavailable):
                        async with asyncio.timeout(5):
                            await deleting
                finally:
                    fragile.thaw()
            assert (await read(provider, last=0)).head.tail == tail

    async def test_a_server_that_is_at_work_on_a_delete_is_waited_for(self, home: str, schema: str, admin: Any) -> None:
        async with hurried(provider_of(home, schema), 2.5) as provider:
            await fill(provider, 12)
            provider._rows = Rows(schema, 2)
            await admin.execute(
                f"""CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql
                    AS $$ BEGIN PERFORM pg_sleep(0.25); RETURN NULL; END $$;
                CREATE TRIGGER slow AFTER DELETE ON {schema}.session_history_entry
                    FOR EACH ROW EXECUTE FUNCTION {schema}.slow()"""
            )
            assert await provider.delete(KEY) is True, "six steps, of half a second each"


class TestLoss(OnOwnServer):
    """Connections that break."""

    async def test_a_delete_of_a_user_that_broke_goes_on_where_it_was(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.rows.SESSIONS", 3)
        await five_sessions(provider)
        async with locked(home, schema, "session_id = 's4'"):
            deleting = asyncio.create_task(provider.delete_user("u"))
            [backend] = await waiting(admin)
            await admin.execute("SELECT pg_terminate_backend($1)", backend)
            with pytest.raises(Unavailable):
                await deleting
            assert len((await provider.list("u", limit=9)).heads) == 2
        assert await provider.delete_user("u") == 2

    async def test_a_delete_of_a_user_that_is_cancelled_ends_the_step_that_it_began(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.rows.SESSIONS", 3)
        await five_sessions(provider)
        async with locked(home, schema, "session_id = 's1'"):
            deleting = asyncio.create_task(provider.delete_user("u"))
            await waiting(admin)
            deleting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await deleting
        await until(lambda: not provider._pool()._tasks)
        assert len((await provider.list("u", limit=9)).heads) == 2

    async def test_an_append_whose_answer_is_lost_was_stored_once(
        self, proxy: Proxy, proxied: str, schema: str
    ) -> None:
        async with opened(lambda: provider_of(proxied, schema)) as provider:
            await fill(provider, 2)
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            appending = asyncio.create_task(append(provider, 3, covering(3)))
            await until(lambda: proxy.connections > 1)
            proxy.mishaps = repeat(None)
            assert await appending == Appended(Position(0, 3), replayed=True)
            log = await read(provider)
            assert log.entries == (entry(1), entry(2), entry(3))
            assert log.head.current_snapshot == covering(3)

    async def test_an_append_whose_outcome_can_not_be_learned(self, proxy: Proxy, proxied: str, schema: str) -> None:
        async with hurried(provider_of(proxied, schema)) as provider:
            await append(provider, 1)
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            with pytest.raises(Unavailable):
                await append(provider, 2)
            assert proxy.connections > 2, "it was tried more than once"
            proxy.mishaps = repeat(None)
            assert (await append(provider, 2)).position == Position(0, 2)

    async def test_connections_that_died_without_a_word(self, proxy: Proxy, proxied: str, schema: str) -> None:
        async with hurried(provider_of(proxied, schema)) as provider:
            await asyncio.gather(*(append(provider, 1) for _ in range(3)))
            assert proxy.connections == 3
            proxy.mute()
            assert (await append(provider, 2)).position == Position(0, 2)
            assert proxy.connections > 3

    async def test_what_may_not_be_done_twice_is_not(self, proxy: Proxy, proxied: str, schema: str) -> None:
        async with opened(lambda: provider_of(proxied, schema)) as provider:
            await fill(provider, 2)
            await provider.rewrite(KEY, Entry("e1", b"old"), at=Position(0, 1), rewrites=0, snapshot=None)
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            with pytest.raises(Unavailable):
                await provider.rewrite(KEY, Entry("e1", b"new"), at=Position(0, 1), rewrites=1, snapshot=None)
            assert proxy.connections == 1
            proxy.mishaps = repeat(None)
            head = (await read(provider)).head
            assert (head.rewrites, proxy.connections) == (2, 2)
            proxy.mishaps = repeat(Mishap.CUT_AFTER)
            for call, logins in ((provider.delete(KEY), 2), (provider.delete_user(KEY.user_id), 3)):
                with pytest.raises(Unavailable):
                    await call
                assert proxy.connections == logins
            proxy.mishaps = repeat(None)
            assert (await read(provider)).head == head, "its first statement is not yet the delete"

    async def test_a_client_that_is_gone_in_a_transaction_keeps_no_locks(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fill(provider, 1)
        monkeypatch.setattr("session_history.providers.postgresql.link.ABANDONED", 300)
        gone = Link(admin, caching=False)
        with pytest.raises(DRIVER_ERRORS):
            async with gone.transaction():
                await gone.fetch(f"SELECT FROM {schema}.session_history_head FOR UPDATE")
                assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_a_transaction_leaves_nothing_in_its_session(self, admin: Any) -> None:
        async with Link(admin, caching=False).transaction():
            assert await admin.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
        assert await admin.fetchval("SHOW idle_in_transaction_session_timeout") == "0"

    async def test_a_backend_that_is_terminated_in_the_middle_of_an_append(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any
    ) -> None:
        await fill(provider, 1)
        async with locked(home, schema):
            appending = asyncio.create_task(append(provider, 2))
            for _ in range(3):
                [backend] = await waiting(admin)
                await admin.execute("SELECT pg_terminate_backend($1)", backend)
                await another_waits(admin, backend)
        assert await appending == Appended(Position(0, 2), replayed=False)
        assert (await read(provider)).entries == (entry(1), entry(2))

    async def test_all_backends_are_terminated_between_two_calls(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{random.getrandbits(64)}"
        async with opened(lambda: provider_of(f"{home}?application_name={name}", schema)) as provider:
            await asyncio.gather(*(append(provider, 1) for _ in range(5)))
            assert await connections(admin, name) > 1
            terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
            await admin.execute(terminate, name)
            await asyncio.gather(*(append(provider, 2) for _ in range(5)))
            await admin.execute(terminate, name)
            await asyncio.sleep(0.1)
            assert await provider.delete(KEY) is True

    async def test_a_server_that_refuses_who_comes_back_is_quoted_at_once(self, fragile: Server) -> None:
        admin = await asyncpg.connect(fragile.url())
        await admin.execute("CREATE ROLE comer LOGIN PASSWORD 'first'; CREATE SCHEMA comer AUTHORIZATION comer")
        async with opened(lambda: provider_of(fragile.url(user="comer", password="first"), "comer")) as provider:
            await append(provider, 1)
            await admin.execute("ALTER ROLE comer PASSWORD 'second'")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'comer'")
            began = time.monotonic()
            with pytest.raises(Unavailable, match="28P01"):
                await provider.read(KEY)
            assert time.monotonic() - began < 3
            await admin.execute("ALTER ROLE comer PASSWORD 'first'")
            assert (await read(provider)).entries == (entry(1),)
        await admin.close()

    async def test_a_server_that_is_restarted(self, fragile: Server) -> None:
        async with hurried(provider_of(fragile.url(), None), 1.0) as provider:
            tail = await anything(provider)
            for end in (fragile.stop, fragile.kill):
                end()
                for call in (provider.read(KEY), provider.append(KEY, Entry("late", b""), at=tail)):
                    with pytest.raises(Unavailable):
                        await call
                assert await provider.health() is False
                fragile.start()
                assert await provider.health() is True
                tail = (await provider.append(KEY, Entry(f"after {end.__name__}", b""), at=tail)).position
            assert (await read(provider, last=0)).head.tail == tail

    async def test_a_restart_in_the_middle_of_turns_loses_and_doubles_nothing(self, fragile: Server) -> None:
        turns = 40

        async def insist(writer: int) -> None:
            tail = Position(0, 0)
            for number in range(turns):
                tail = await acknowledged(SessionKey("restart", f"w{writer}"), Entry(f"{number}", b"x"), tail)
                assert tail == Position(0, number + 1)
                await asyncio.sleep(0.01)

        async def acknowledged(key: SessionKey, entry: Entry, at: Position) -> Position:
            while True:
                try:
                    return (await provider.append(key, entry, at=at)).position
                except Unavailable:  # who was refused a connection learns it at once
                    await asyncio.sleep(0.02)

        async with opened(lambda: provider_of(fragile.url(), None, pool_size=4)) as provider:
            await asyncio.gather(*(provider.read(KEY) for _ in range(4)))
            writing = asyncio.gather(*(insist(writer) for writer in range(3)))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(fragile.restart)
            await writing
            for writer in range(3):
                entries = (await read(provider, SessionKey("restart", f"w{writer}"))).entries
                assert [each.id for each in entries] == [f"{number}" for number in range(turns)]

    @pytest.mark.parametrize("state", ["40001", "40P01"])
    async def test_what_was_undone_for_others_is_tried_again(
        self, provider: PostgresqlProvider, admin: Any, schema: str, state: str
    ) -> None:
        await fill(provider, 1)
        await refuse(admin, schema, state, times=3)
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_an_outcome_that_the_server_does_not_know(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 1)
        await refuse(admin, schema, "40003", times=2, at="DELETE ON session_history_entry")
        for _ in range(2):
            with pytest.raises(Unavailable, match="40003"):
                await provider.delete(KEY)
        assert await provider.delete(KEY) is True

    async def test_a_primary_that_has_become_read_only_is_left_by_all_connections(
        self, provider: PostgresqlProvider
    ) -> None:
        await asyncio.gather(*(append(provider, 1) for _ in range(4)))
        for link in provider._pool()._idle:
            await link.connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(StoreReadOnly):
            await append(provider, 2)
        assert (await append(provider, 2)).position == Position(0, 2)

    async def test_a_host_that_has_become_read_only_is_asked_last(self, server: Server, schema: str) -> None:
        with Proxy(server.port) as first, Proxy(server.port) as second:
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
            url = f"postgresql://{USER}:{PASSWORD}@{hosts}/postgres?sslmode=disable&{ANY}"
            async with opened(lambda: provider_of(url, schema, pool_size=2)) as provider:
                assert isinstance(provider, PostgresqlProvider)
                await asyncio.gather(*(append(provider, 1) for _ in range(2)))
                for link in provider._pool()._idle:
                    await link.connection.execute("SET default_transaction_read_only = on")
                outcomes = await asyncio.gather(*(append(provider, 2) for _ in range(2)), return_exceptions=True)
                assert [type(each) for each in outcomes] == [StoreReadOnly] * 2
                await append(provider, 2)
                assert (first.connections, second.connections) == (2, 1)

    async def test_a_host_that_does_not_answer_leaves_time_for_the_next(self, server: Server, schema: str) -> None:
        logins = 0

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal logins
            logins += 1
            await reader.read()
            writer.close()

        dead = await asyncio.start_server(swallow, "127.0.0.1")
        url = behind(dead, server)
        async with dead, opened(lambda: provider_of(url, schema, timeout=2.0)) as provider:
            assert isinstance(provider, PostgresqlProvider)
            await fill(provider, 1)
            provider._pool().abort()
            await append(provider, 2)
            assert logins == 1, "the host that answered is asked first"

    async def test_a_host_that_hangs_up_is_not_the_last_one(self, server: Server, schema: str) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.close()

        for tls in ("disable", "prefer"):
            empty = await asyncio.start_server(hang_up, "127.0.0.1")
            url = f"{behind(empty, server)}&sslmode={tls}"
            async with empty, opened(partial(provider_of, url, schema)) as provider:
                assert await provider.health()

    async def test_a_deadlock_is_not_the_callers_affair(self, home: str, schema: str, admin: Any) -> None:
        async with opened(
            lambda: provider_of(f"{home}?options=-c%20default_transaction_isolation%3Dserializable", schema)
        ) as provider:
            await asyncio.gather(*(append(provider, 1) for _ in range(8)))
            outcomes = await asyncio.gather(
                *(provider.append(KEY, Entry(f"r{rival}", b""), at=Position(0, 1)) for rival in range(8)),
                return_exceptions=True,
            )
            assert sum(isinstance(each, Appended) for each in outcomes) == 1
            assert sum(isinstance(each, Conflict) for each in outcomes) == 7


class TestPool(OnServer):
    """Connections: how many, whose, and for how long."""

    async def test_an_append_that_is_cancelled_while_it_logs_in_is_dropped(
        self, server: Server, proxy: Proxy, proxied: str
    ) -> None:
        schema = await a_schema(server.url())
        async with opened(lambda: provider_of(proxied, schema, pool_size=1, timeout=30.0)) as provider:
            assert isinstance(provider, PostgresqlProvider)
            await append(provider, 1)
            pool = provider._pool()
            pool.abort()
            proxy.mishaps = repeat(Mishap.HALF_OPEN)
            logins = proxy.connections
            appending = asyncio.create_task(append(provider, 2))
            await until(lambda: proxy.connections > logins)
            appending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await appending
            await until(lambda: not pool._tasks)
            proxy.mishaps = repeat(None)
            assert (await read(provider)).head.tail == Position(0, 1)

    async def test_a_storm_of_cancellations_leaves_no_connection_behind(
        self, home: str, schema: str, admin: Any
    ) -> None:
        name = f"n{random.getrandbits(64)}"
        async with opened(lambda: provider_of(f"{home}?application_name={name}", schema, pool_size=3)) as provider:
            for number in range(1, 41):
                calls: list[asyncio.Task[Any]] = [asyncio.create_task(provider.read(KEY)) for _ in range(6)]
                calls += [asyncio.create_task(append(provider, number))]
                await asyncio.sleep(random.choice([0, 0, 0.0005, 0.002]))
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                assert (await append(provider, number)).position == Position(0, number)
            assert await connections(admin, name) <= 3
            states = await admin.fetch("SELECT state FROM pg_stat_activity WHERE application_name = $1", name)
            assert {row["state"] for row in states} == {"idle"}
            await asyncio.gather(*(provider.read(KEY) for _ in range(20)))
        assert await connections(admin, name) == 0

    async def test_a_cancelled_append_runs_to_its_end(self, home: str, schema: str, admin: Any) -> None:
        provider = provider_of(home, schema, pool_size=1)
        async with opened(lambda: provider):
            await append(provider, 1)
            async with locked(home, schema):
                appending = asyncio.create_task(append(provider, 2))
                [backend] = await waiting(admin)
                appending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await appending
                assert await waiting(admin) == [backend]
            assert (await read(provider)).head.tail == Position(0, 2)
            assert [link.connection.get_server_pid() for link in provider._pool()._idle] == [backend]

    async def test_a_cancelled_append_that_waits_for_a_connection_is_dropped(self, home: str, schema: str) -> None:
        async with opened(lambda: provider_of(home, schema, pool_size=1)) as provider:
            assert isinstance(provider, PostgresqlProvider)
            await append(provider, 1)
            pool = provider._pool()
            held = await pool._take()
            calls = [asyncio.create_task(append(provider, 2)) for _ in range(20)]
            await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not pool._tasks
            pool._give_back(held)
            assert (await read(provider)).head.tail == Position(0, 1)

    async def test_what_fails_after_its_caller_was_cancelled_is_not_logged(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        gc.collect()  # of other tests, in which the driver may have left such a thing
        caplog.clear()
        await fill(provider, 1)
        async with locked(home, schema):
            calls = [
                asyncio.create_task(provider.append(KEY, Entry(f"r{rival}", b""), at=Position(0, 1)))
                for rival in range(3)
            ]
            await waiting(admin, 3)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            calls.clear()
        await until(lambda: not provider._pool()._tasks)
        gc.collect()
        assert (await read(provider)).head.tail == Position(0, 2), "two of them met a conflict"
        assert "never retrieved" not in caplog.text

    async def test_stop_finishes_what_was_begun(self, home: str, schema: str, admin: Any) -> None:
        provider = provider_of(home, schema)
        await provider.start()
        await append(provider, 1)
        async with locked(home, schema):
            appending = asyncio.create_task(append(provider, 2))
            await waiting(admin)
            stopping = asyncio.create_task(provider.stop())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="not open"):
                await provider.read(KEY)
            assert not stopping.done()
        await stopping
        assert (await appending).position == Position(0, 2)

    async def test_a_stop_that_is_cancelled_leaves_no_connection(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{random.getrandbits(64)}"
        provider = provider_of(f"{home}?application_name={name}", schema)
        await provider.start()
        await append(provider, 1)
        await asyncio.gather(*(read(provider) for _ in range(4)))
        async with locked(home, schema):
            appending = asyncio.create_task(append(provider, 2))
            await waiting(admin)
            stopping = asyncio.create_task(provider.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            await until_connections(admin, name, 1)
        assert (await appending).position == Position(0, 2)
        await until_connections(admin, name, 0)

    async def test_event_loops_that_end_leave_no_connections(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{random.getrandbits(64)}"
        async with opened(lambda: provider_of(f"{home}?application_name={name}", schema)) as provider:
            for number in range(1, 6):
                await asyncio.to_thread(asyncio.run, append(provider, number))
            gc.collect()
            await until_connections(admin, name, 1)
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, read(provider)) for _ in range(4)))
            await read(provider)
            assert isinstance(provider, PostgresqlProvider)
            assert len(provider._pools) <= 1 + 4

    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio and the driver complain of such loops
    async def test_event_loops_that_are_only_closed_leave_no_connections(
        self, home: str, schema: str, admin: Any
    ) -> None:
        name = f"n{random.getrandbits(64)}"
        provider = provider_of(f"{home}?application_name={name}", schema)
        await asyncio.to_thread(asyncio.run, provider.start())
        gc.disable()  # it would close them, too, some time later
        try:
            for _ in range(5):
                await asyncio.to_thread(in_a_loop_that_is_only_closed, partial(provider.read, KEY))
            await until_connections(admin, name, 1)
            await provider.stop()
            await until_connections(admin, name, 0)
        finally:
            gc.enable()
            del provider
            gc.collect()

    async def test_stop_in_one_event_loop_closes_the_connections_of_another(
        self, home: str, schema: str, admin: Any
    ) -> None:
        name = f"n{random.getrandbits(64)}"
        provider = provider_of(f"{home}?application_name={name}", schema)
        await provider.start()
        await append(provider, 1)
        await asyncio.to_thread(asyncio.run, provider.stop())
        await until_connections(admin, name, 0)

    async def test_a_stop_while_the_loop_of_a_thread_ends(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{random.getrandbits(64)}"
        provider = provider_of(f"{home}?application_name={name}", schema, timeout=30.0)
        calling = threading.Event()

        async def call_and_leave() -> None:
            assert await provider.health()
            call = asyncio.create_task(append(provider, 2))
            await until(lambda: len(asyncio.all_tasks()) == 3)
            calling.set()
            await until(lambda: len(asyncio.all_tasks()) > 3)  # the stop has come
            assert not call.done()

        await provider.start()
        await append(provider, 1)
        with ThreadPoolExecutor() as thread:
            async with locked(home, schema):
                leaving = thread.submit(asyncio.run, call_and_leave())
                await asyncio.to_thread(calling.wait, 30)
                await provider.stop()
            await asyncio.wrap_future(leaving)
        await until_connections(admin, name, 0)

    async def test_what_an_idle_connection_forgot_is_not_needed(
        self, provider: PostgresqlProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        await append(provider, 1)
        await append(provider, 2)
        for number in range(3, 7):
            for link in provider._pool()._idle:
                await link.connection.execute("DEALLOCATE ALL")  # what the next client of a pooler finds
            await append(provider, number)
        await provider.delete(KEY)
        told = [record for record in caplog.records if "prepared statements" in record.getMessage()]
        assert len(told) == 1
        assert (await read(provider)).head.deleted

    async def test_a_timeout_in_a_transaction_leaves_nothing_behind(self, home: str, schema: str, admin: Any) -> None:
        name = f"n{random.getrandbits(64)}"
        url = f"{home}?application_name={name}"
        async with hurried(provider_of(url, schema, pool_size=1)) as provider:
            await fill(provider, 1)
            async with locked(home, schema):
                with pytest.raises(Unavailable):
                    await provider.delete(KEY)
            assert not (await read(provider)).head.deleted
            states = await admin.fetch("SELECT state FROM pg_stat_activity WHERE application_name = $1", name)
            assert [row["state"] for row in states] == ["idle"]

    async def test_a_column_that_changed_its_type_is_read_anew(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 2)
        await read(provider)
        await admin.execute(f"ALTER TABLE {schema}.session_history_head ALTER heartbeat TYPE integer")
        assert (await read(provider)).head.tail == Position(0, 2)
        await append(provider, 3)

    async def test_a_statement_that_is_there_already_is_the_same_one(self, provider: PostgresqlProvider) -> None:
        await append(provider, 1)
        for link in provider._pool()._idle:
            link._prepared = {}  # as if another client of a pooler had prepared it
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)
        assert len((await read(provider)).entries) == 2

    async def test_the_name_of_a_statement_says_what_it_is(self, provider: PostgresqlProvider) -> None:
        await append(provider, 1)
        [link] = provider._pool()._idle
        prepared = await link.connection.fetch("SELECT name, statement FROM pg_prepared_statements WHERE name <> ''")
        assert len(prepared) >= 3
        for name, statement in prepared:
            assert name == f"session_history_{hashlib.sha256(statement.encode()).hexdigest()[:32]}"

    def test_a_fork(self, home: str, schema: str) -> None:
        code = (
            "import asyncio, gc, os, sys\n"
            "from session_history.providers.postgresql import PostgresqlProvider\n"
            "from session_history_hooks import SessionKey\n"
            "provider = PostgresqlProvider(sys.argv[1], schema=sys.argv[2], durability='host')\n"
            "async def use(*calls):\n"
            "    for call in calls:\n"
            "        try: await call()\n"
            "        except ConnectionError as error: print(type(error).__name__, 'fork' in str(error), flush=True)\n"
            "        else: print('fine', flush=True)\n"
            "read = lambda: provider.read(SessionKey('u', 's'))\n"
            "with asyncio.Runner() as runner:\n"
            "    runner.run(use(provider.start, read))\n"
            "    if not os.fork():\n"
            "        asyncio.set_event_loop(None)\n"
            "        asyncio.events._set_running_loop(None)\n"
            "        asyncio.run(use(read, provider.start, provider.stop, provider.start, read))\n"
            "        gc.collect()\n"
            "        os._exit(0)\n"
            "    os.wait()\n"
            "    runner.run(use(read, provider.stop))\n"
        )
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, home, schema], check=True, capture_output=True, text=True
        )
        expected = ["fine"] * 2 + ["Unavailable True"] * 2 + ["fine"] * 3 + ["fine"] * 2
        assert run.stdout.splitlines() == expected, run.stderr
        assert "lost" not in run.stderr, "the child has taken the connection from its parent"


class TestErrors(OnOwnServer):
    """What is raised, and what does not show."""

    async def test_who_may_not_connect(
        self, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = asyncio.BaseEventLoop.getaddrinfo

        async def look_up(loop: asyncio.BaseEventLoop, host: str, *args: Any, **options: Any) -> Any:
            if host == "nowhere.test":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return await found(loop, host, *args, **options)

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
        wrong = "s3same-open"
        cases = {
            server.url(password=wrong): (ConfigurationError, "refuses this user or password"),
            server.url(user="nobody", password=wrong): (ConfigurationError, "refuses this user or password"),
            server.url("nowhere"): (ConfigurationError, "has no database of this name; a URL without one"),
            f"postgresql://{USER}:{wrong}@127.0.0.1:{free_port()}/postgres": (Unavailable, "can not be reached"),
            f"postgresql://{USER}:{wrong}@nowhere.test/postgres": (Unavailable, "host name is unknown"),
            f"{server.url()}?sslmode=verify-full&sslrootcert=/nowhere": (ConfigurationError, "sslrootcert: /nowhere"),
            f"{server.url()}?sslmode=require&sslcert=/none": (ConfigurationError, "sslcert: /none can not be read"),
            f"{server.url()}?sslmode=require": (ConfigurationError, "has no TLS, and sslmode insists on it"),
            f"{server.url()}?target_session_attrs=standby": (Unavailable, "what target_session_attrs asks for"),
            f"{server.url()}?options=-c%20nonsense%3D1": (SessionHistoryError, None),
        }
        for url, (kind, text) in cases.items():
            provider = provider_of(url, None, timeout=2.0)
            with pytest.raises(kind, match=text) as caught:
                await provider.start()
            assert await provider.health() is False
            with pytest.raises(SessionHistoryError):
                await provider.migration()
            for secret in (wrong, PASSWORD):
                assert secret not in repr(provider) + repr(caught.value) + str(caught.value) + caplog.text
            assert (caught.value.__cause__, caught.value.__context__) == (None, None)

    async def test_a_password_that_is_refused_later(self, server: Server, admin: Any, schema: str) -> None:
        await admin.execute(f"CREATE ROLE rotated SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        async with opened(lambda: provider_of(server.url(user="rotated"), schema)) as provider:
            await fill(provider, 1)
            await admin.execute("ALTER ROLE rotated PASSWORD 'another'")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'")
            await asyncio.sleep(0.05)
            with pytest.raises(Unavailable, match="refuses this user or password"):
                await provider.read(KEY)
            await admin.execute(f"ALTER ROLE rotated PASSWORD '{PASSWORD}'")
            await append(provider, 2)

    @pytest.mark.parametrize(
        ("state", "error"),
        [
            ("53100", StoreFull),
            ("53200", Unavailable),
            ("25006", StoreReadOnly),
            ("42501", StoreReadOnly),
            ("57014", Unavailable),
            ("22000", Unavailable),
        ],
    )
    async def test_what_the_server_refuses(
        self, provider: PostgresqlProvider, admin: Any, schema: str, state: str, error: type[Exception]
    ) -> None:
        await fill(provider, 1)
        await refuse(admin, schema, state, times=1)
        with pytest.raises(error, match=state) as caught:
            await append(provider, 2)
        assert type(caught.value) is error
        assert "payload" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert (await read(provider)).head.tail == Position(0, 1)
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_a_server_that_can_only_be_read(self, home: str, schema: str) -> None:
        async with opened(lambda: provider_of(home, schema)) as provider:
            await fill(provider, 1)
        with pytest.raises(StoreReadOnly):
            await provider_of(f"{home}?options=-c%20default_transaction_read_only%3Don", schema).start()

    async def test_a_server_that_answers_before_it_has_written(self, server: Server, schema: str) -> None:
        with pytest.raises(ConfigurationError, match="synchronous_commit and fsync are off"):
            await provider_of(server.url(), schema, durability="disk").start()
        assert provider_of(server.url(), schema, durability="disk").limits.durability is Durability.DISK
        assert provider_of(server.url(), schema).limits.durability is Durability.HOST

    @pytest.mark.parametrize(
        ("url", "options", "text"),
        [
            ("mysql://h/db", {}, "a URL is needed"),
            ("postgresql://h/db#x", {}, "%23"),
            ("postgresql://h/db?nonsense=1", {}, "unknown setting 'nonsense'"),
            ("postgresql://h/db?channel_binding=require", {}, "channel_binding can be disable or prefer"),
            ("postgresql://h/db?host=a&host=b", {}, "twice"),
            ("postgresql://h/db?host", {}, "name=value"),
            ("postgresql://h/db?connect_timeout=soon", {}, "whole number"),
            ("postgresql://h/db?port=5433", {}, "leave the setting out: port"),
            ("postgresql://h/db?sslmode=verfy", {}, "sslmode must be one of disable, .*verify-full$"),
            ("postgresql://h/db?sslnegotiation=now", {}, "sslnegotiation must be one of postgres, direct"),
            ("postgresql://h/db?target_session_attrs=primry", {}, "target_session_attrs must be .*read-write"),
            ("postgresql://h:port/db", {}, "a port must be a number from 1 to 65535"),
            ("postgresql://h:1,[::1]:0/db", {}, "a port must be"),
            ("postgresql:///db?host=h,i&port=1,65536", {}, "a port must be"),
            ("postgresql://app:s@cret@h/d", {}, "percent-encoded"),
            ("postgresql://app:se/cret@h/d", {}, "percent-encoded"),
            ("postgresql://app:se?cret@h/d", {}, "percent-encoded"),
            ("postgresql://app:se?host=cret@h/d", {}, "percent-encoded"),
            ("postgresql://u:hunter2@h/db?user=x&password=y&dbname=z", {}, "setting out: user, password, dbname"),
            ("postgresql://h/db", {"pool_size": 0}, "pool_size"),
            ("postgresql://h/db", {"timeout": float("inf")}, "timeout"),
            ("postgresql://h/db", {"schema": "s" * 64}, "schema must be"),
            ("postgresql://h/db", {"schema": ""}, "schema must be"),
            ("postgresql://h/db", {"durability": "process"}, "durability"),
        ],
    )
    def test_options_that_can_not_be(self, url: str, options: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            PostgresqlProvider(url, **options)

    def test_a_url_keeps_its_settings_of_libpq(self) -> None:
        provider = open_provider(
            f"postgresql://u:{PASSWORD}@h:5433,i/db?sslmode=verify-full&sslrootcert=%2Fa%20b&application_name=x"
            "&channel_binding=prefer&connect_timeout=3&schema=s&pool_size=4&timeout=2.5&migrate=false",
            {"target_session_attrs": "read-write"},
        )
        assert isinstance(provider, PostgresqlProvider)
        settings = "sslmode=verify-full&sslrootcert=%2Fa+b&target_session_attrs=read-write&application_name=x"
        assert provider._address.dsns == tuple(
            f"postgresql://u:{PASSWORD}@{host}/db?{settings}" for host in ("h:5433", "i")
        )
        assert provider._address.connect_timeout == 3
        assert (provider._schema, provider._migrate) == ("s", False)
        pool = provider._new_pool()
        assert (pool.size, pool.timeout, pool.caching) == (4, 2.5, True)
        assert repr(provider) == "PostgresqlProvider('postgresql://h:5433,i/db', schema='s')"

    @pytest.mark.parametrize(
        ("url", "dsns"),
        [
            ("postgresql://h/", ["postgresql://h"]),
            ("postgresql:///", ["postgresql://"]),
            ("postgresql://h/?dbname=d&password=p", ["postgresql://h?dbname=d&password=p"]),
            ("postgres://h/d", ["postgres://h/d"]),
            ("postgres://h,[::1]:1/d", [f"postgres://h/d?{WRITE}", f"postgres://[::1]:1/d?{WRITE}"]),
            ("postgresql://h,i/d?target_session_attrs=any", [f"postgresql://{h}/d?{ANY}" for h in "hi"]),
            ("postgresql:///d?host=h,i", [f"postgresql:///d?host={h}&{WRITE}" for h in "hi"]),
            ("postgresql:///d?host=h,i&port=1", [f"postgresql:///d?host={h}&port=1&{WRITE}" for h in "hi"]),
            (
                "postgresql:///d?host=h,i&port=1,2",
                [f"postgresql:///d?host={h}&{WRITE}" for h in ("h&port=1", "i&port=2")],
            ),
            ("postgresql:///d?host=h,i&port=1,2,3", ["postgresql:///d?host=h%2Ci&port=1%2C2%2C3"]),
        ],
    )
    def test_hosts_and_databases_of_a_url(self, url: str, dsns: list[str]) -> None:
        assert PostgresqlProvider(url)._address.dsns == tuple(dsns)

    @pytest.mark.parametrize(
        "address",
        [
            "u:{}@h/db",
            "u:a/{}@h/db",
            "u:a@{}@h/db",
            "u:a?{}@h/db",
            "u:{}?options=x@h/db",
            "u:a?{}=x@h/db",
            "u:a?sslmode={}@h/db",
            "u:a?channel_binding={}@h/db",
            "u:a#{}@h/db",
            "u:a:{}@h/db",
            "h/db?user=u@s&password={}",
        ],
    )
    def test_a_password_does_not_show(self, address: str) -> None:
        url = f"postgresql://{address.format('hunter2')}"
        assert "hunter2" not in made(lambda: PostgresqlProvider(url))
        assert "hunter2" not in made(lambda: open_provider(url, {}))

    @pytest.mark.parametrize(
        ("query", "text"),
        [
            ("size=1", r"unknown option 'size': did you mean 'pool_size'\?$"),
            ("SSL-mode=require", r"unknown option 'SSL-mode': did you mean 'sslmode'"),
            ("ssl=true", "say sslmode=require, or sslmode=verify-full"),
            ("color=red", r"unknown option 'color'\. Options: .*passfile.*, schema, .*timeout"),
        ],
    )
    def test_an_unknown_option_is_named_with_what_is_like_it(self, query: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            open_provider(f"postgresql://h/db?{query}", {})

    @pytest.mark.parametrize("password", ["s@cret", "se/cret", "se?cret", "se?host=cret"])
    def test_a_password_that_is_not_encoded_is_told_so(self, password: str) -> None:
        with pytest.raises(ConfigurationError, match="percent-encoded"):
            open_provider(f"postgresql://app:{password}@h/d", {})

    def test_a_variable_that_can_not_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGTARGETSESSIONATTRS", "primry")
        with pytest.raises(ConfigurationError, match="PGTARGETSESSIONATTRS must be one of any, "):
            PostgresqlProvider("postgresql://h/d")

    def test_both_schemes_of_libpq(self) -> None:
        assert repr(open_provider("postgres://u@h/db", {})) == repr(open_provider("postgresql://u@h/db", {}))

    def test_a_driver_that_is_missing(self) -> None:
        code = (
            "import sys; sys.modules['asyncpg'] = None; from session_history.config.registry import open_provider;"
            "open_provider('postgresql://h/db', {})"
        )
        run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert "MissingDriver" in run.stderr
        assert "pip install 'session-history[postgresql]'" in run.stderr


class TestDurability:
    """What an acknowledged append survives."""

    async def test_a_crash(self, machine: Machine) -> None:
        with running(machine) as server:
            async with opened(lambda: provider_of(server.url(), None, durability="disk")) as provider:
                await fill(provider, 20)
                server.kill()
                server.start()
                assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 21))

    async def test_the_loss_of_the_primary(self, machine: Machine) -> None:
        with replicated(machine) as (primary, standby):
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            url = f"postgresql://{USER}:{PASSWORD}@{hosts}/postgres?target_session_attrs=read-write"
            with pytest.raises(StoreReadOnly):
                await provider_of(standby.url(), None).start()
            async with opened(lambda: provider_of(url, None, durability="disk")) as provider:
                await fill(provider, 50)
                primary.kill()
                standby.promote()
                assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 51))
                await append(provider, 51)

    async def test_what_the_standby_has_not_got_is_not_acknowledged(self, machine: Machine) -> None:
        other = SessionKey("other", "s")
        with replicated(machine) as (primary, standby):
            async with hurried(provider_of(primary.url(), None, durability="disk"), 1.0) as provider:
                await fill(provider, 1)
                await provider.append(other, entry(1), at=Position(0, 0))
                standby.freeze()
                try:
                    # The first of each is cut short in its wait for the standby, and can be found from then on.
                    for call in (
                        append(provider, 2),
                        append(provider, 2),
                        provider.delete(other),
                        provider.delete(other),
                        provider.delete_user(other.user_id),
                    ):
                        with pytest.raises(Unavailable):
                            await call
                finally:
                    standby.thaw()
                provider._pool().timeout = 30.0
                assert await append(provider, 2) == Appended(Position(0, 2), replayed=True)
                assert await provider.delete(other) is False
                primary.kill()
            standby.promote()
            async with opened(lambda: provider_of(standby.url(), None)) as survivor:
                assert (await read(survivor)).entries == (entry(1), entry(2))
                assert (await read(survivor, other)).head.deleted

    async def test_a_wait_for_the_standby_that_the_server_cuts_short_is_not_acknowledged(
        self, machine: Machine
    ) -> None:
        edited, deleted = SessionKey("u", "edited"), SessionKey("u", "deleted")
        with replicated(machine) as (primary, standby):
            admin = await asyncpg.connect(primary.url())
            async with opened(lambda: provider_of(primary.url(), None, durability="disk", timeout=30.0)) as provider:
                for key in (KEY, edited, deleted):
                    await provider.append(key, entry(1), at=Position(0, 0))
                standby.freeze()
                try:
                    for call in (
                        provider.rewrite(edited, Entry("e1", b"new"), at=Position(0, 1), rewrites=0, snapshot=None),
                        provider.delete(deleted),
                    ):
                        changing = asyncio.create_task(call)
                        await cut_wait_short(admin)
                        with pytest.raises(Unavailable, match="whether a standby has it"):
                            await changing
                    appending = asyncio.create_task(append(provider, 2))
                    for _ in range(3):
                        await cut_wait_short(admin)
                    assert not appending.done()
                finally:
                    standby.thaw()
                assert await appending == Appended(Position(0, 2), replayed=True)
                assert await provider.delete(deleted) is False
            await admin.close()


async def cut_wait_short(admin: Any) -> None:
    """Cancel the wait for the standby of whoever is in it."""
    for _ in range(1000):
        if await admin.fetch("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
            return
        await asyncio.sleep(0.005)
    pytest.fail("nobody waits for the standby")


def behind(first: asyncio.Server, second: Server) -> str:
    """The URL of two hosts."""
    hosts = f"127.0.0.1:{first.sockets[0].getsockname()[1]},127.0.0.1:{second.port}"
    return f"postgresql://{USER}:{PASSWORD}@{hosts}/postgres?{WRITE}"


def in_a_loop_that_is_only_closed(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())
    loop.close()


async def five_sessions(provider: PostgresqlProvider) -> None:
    for number in range(1, 6):
        await provider.append(SessionKey("u", f"s{number}"), entry(1), at=Position(0, 0))


async def anything(provider: Any) -> Position:
    """Append something, and say where it stands."""
    log = await provider.read(KEY, last=0)
    tail = log.head.tail if log else Position(0, 0)
    appended: Appended = await provider.append(KEY, Entry(f"any {tail.seq}", b""), at=tail)
    return appended.position


def made(make: Callable[[], object]) -> str:
    """What shows of a provider, or of the error that it can not be made."""
    try:
        return repr(make())
    except ConfigurationError as error:
        return repr(error)


async def until(so: Callable[[], bool]) -> None:
    for _ in range(6000):
        if so():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it does not come to pass")


async def another_waits(admin: Any, first: int) -> None:
    for _ in range(1000):
        if await waiting(admin) != [first]:
            return
        await asyncio.sleep(0.005)
    pytest.fail("nobody else waits")


async def refuse(
    admin: Any, schema: str, state: str, *, times: int, at: str = "INSERT ON session_history_entry"
) -> None:
    """Let the server raise an error the next so many times that this is to happen to a row."""
    await admin.execute(
        f"""CREATE SEQUENCE {schema}.refusals;
        CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('{schema}.refusals') <= {times} THEN
                RAISE EXCEPTION 'payload of %', NEW USING ERRCODE = '{state}';
            END IF;
            RETURN coalesce(NEW, OLD);
        END $$;
        SET search_path TO {schema};
        CREATE TRIGGER refusing BEFORE {at} FOR EACH ROW EXECUTE FUNCTION refuse();
        RESET search_path"""
    )
