"""The connections of a PostgreSQL provider: their number, their event loops, cancelled calls, prepared statements."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any

import pytest

from providers.postgresql.support import (
    OnServer,
    backends_waiting_for_lock,
    busy,
    connections,
    create_schema,
    locked,
    on_each_connection,
    open_provider_of,
    provider_of,
    until,
    until_connections,
)
from servers.postgresql import Server
from servers.proxy import Mishap, Proxy
from session_history.providers.postgresql import PAGE_BYTES, PostgresqlProvider
from session_history.providers.postgresql.connection import Connection, statement_name
from session_history.providers.postgresql.pool import Pool
from session_history.providers.postgresql.schema import Tables
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import Appended, Entry, Position, Unavailable
from session_history_hooks.testing.subject import KEY, append, fill, read


class TestCancelledCalls(OnServer):
    async def test_append_that_is_cancelled_while_it_connects_is_dropped(
        self, pools: list[Pool], server: Server, proxy: Proxy, proxied: str
    ) -> None:
        schema = await create_schema(server.url())
        async with open_provider_of(proxied, schema, pool_size=1, timeout=30.0) as provider:
            await append(provider, 1)
            pools[0].terminate_idle()
            proxy.mishaps = repeat(Mishap.HALF_OPEN)
            tasks, logins = asyncio.all_tasks(), proxy.connections
            appending = asyncio.create_task(append(provider, 2))
            await until(lambda: proxy.connections > logins)
            appending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await appending
            await until(lambda: asyncio.all_tasks() <= tasks)
            proxy.mishaps = repeat(None)
            assert (await read(provider)).head.tail == Position(0, 1)

    async def test_append_that_is_cancelled_while_it_waits_for_a_connection_is_dropped(
        self, pools: list[Pool], home: str, schema: str
    ) -> None:
        async with open_provider_of(home, schema, pool_size=1) as provider:
            await append(provider, 1)
            async with busy(pools[0]):
                tasks = asyncio.all_tasks()
                calls = [asyncio.create_task(append(provider, 2)) for _ in range(20)]
                await asyncio.sleep(0.01)
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)
                for _ in range(3):
                    await asyncio.sleep(0)
                assert asyncio.all_tasks() <= tasks
            assert (await read(provider)).head.tail == Position(0, 1)

    async def test_append_that_is_cancelled_while_it_runs_is_finished(
        self, home: str, named: str, name: str, schema: str, admin: Any
    ) -> None:
        async with open_provider_of(named, schema, pool_size=1) as provider:
            await append(provider, 1)
            async with locked(home, schema):
                appending = asyncio.create_task(append(provider, 2))
                [backend] = await backends_waiting_for_lock(admin)
                appending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await appending
                assert await backends_waiting_for_lock(admin) == [backend]
            assert (await read(provider)).head.tail == Position(0, 2)
            backends = await admin.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = $1", name)
            assert [row["pid"] for row in backends] == [backend], "the connection is used again"

    async def test_error_of_a_cancelled_append_is_not_logged(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        gc.collect()  # Collects errors of earlier tests, which the driver may have left.
        caplog.clear()
        await fill(provider, 1)
        tasks = asyncio.all_tasks()
        async with locked(home, schema):
            calls = [
                asyncio.create_task(provider.append(KEY, Entry(f"r{rival}", b""), at=Position(0, 1)))
                for rival in range(3)
            ]
            await backends_waiting_for_lock(admin, 3)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            calls.clear()
            del call
        await until(lambda: asyncio.all_tasks() <= tasks)
        gc.collect()
        assert (await read(provider)).head.tail == Position(0, 2), "two of them met a conflict"
        assert "never retrieved" not in caplog.text

    async def test_many_cancelled_calls_leave_no_connection(
        self, named: str, name: str, schema: str, admin: Any
    ) -> None:
        async with open_provider_of(named, schema, pool_size=3) as provider:
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


class TestStop(OnServer):
    async def test_stop_waits_for_calls_that_run(self, home: str, schema: str, admin: Any) -> None:
        provider = provider_of(home, schema)
        await provider.start()
        await append(provider, 1)
        async with locked(home, schema):
            appending = asyncio.create_task(append(provider, 2))
            await backends_waiting_for_lock(admin)
            stopping = asyncio.create_task(provider.stop())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="not open"):
                await provider.read(KEY)
            assert not stopping.done()
        await stopping
        assert (await appending).position == Position(0, 2)

    async def test_stop_that_is_cancelled_leaves_no_connection(
        self, home: str, named: str, name: str, schema: str, admin: Any
    ) -> None:
        provider = provider_of(named, schema)
        await provider.start()
        await append(provider, 1)
        await asyncio.gather(*(read(provider) for _ in range(4)))
        async with locked(home, schema):
            appending = asyncio.create_task(append(provider, 2))
            await backends_waiting_for_lock(admin)
            stopping = asyncio.create_task(provider.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            await until_connections(admin, name, 1)
        assert (await appending).position == Position(0, 2)
        await until_connections(admin, name, 0)

    async def test_stop_in_one_event_loop_closes_the_connections_of_another(
        self, named: str, name: str, schema: str, admin: Any
    ) -> None:
        provider = provider_of(named, schema)
        await provider.start()
        await append(provider, 1)
        await asyncio.to_thread(asyncio.run, provider.stop())
        await until_connections(admin, name, 0)

    async def test_stop_while_the_event_loop_of_a_thread_ends_leaves_no_connection(
        self, home: str, named: str, name: str, schema: str, admin: Any
    ) -> None:
        provider = provider_of(named, schema, timeout=30.0)
        calling = threading.Event()

        async def call_and_leave() -> None:
            assert await provider.health()
            call = asyncio.create_task(append(provider, 2))
            await until(lambda: len(asyncio.all_tasks()) == 3)
            calling.set()
            await until(lambda: len(asyncio.all_tasks()) > 3)  # The stop has come.
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


class TestEventLoops(OnServer):
    async def test_event_loops_that_end_leave_no_connection(
        self, named: str, name: str, schema: str, admin: Any
    ) -> None:
        loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

        async def call(work: Coroutine[Any, Any, object]) -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            await work

        async with open_provider_of(named, schema) as provider:
            for number in range(1, 6):
                await asyncio.to_thread(asyncio.run, call(append(provider, number)))
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, call(read(provider))) for _ in range(4)))
            gc.collect()
            await until_connections(admin, name, 1)
            assert [loop() for loop in loops] == [None] * 9

    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio and the driver warn of such loops
    async def test_event_loops_that_are_closed_without_asyncio_run_leave_no_connection(
        self, named: str, name: str, schema: str, admin: Any
    ) -> None:
        provider = provider_of(named, schema)
        await asyncio.to_thread(asyncio.run, provider.start())
        gc.disable()  # It would close the connections too, some time later.
        try:
            for _ in range(5):
                await asyncio.to_thread(run_in_loop_that_is_only_closed, partial(provider.read, KEY))
            await until_connections(admin, name, 1)
            await provider.stop()
            await until_connections(admin, name, 0)
        finally:
            gc.enable()
            del provider
            gc.collect()

    def test_forked_process_is_refused_and_leaves_the_parents_connections(self, home: str, schema: str) -> None:
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


class TestPreparedStatements(OnServer):
    async def test_prepared_statements_that_a_pooler_dropped_are_replaced_with_one_warning(
        self, pools: list[Pool], home: str, schema: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_provider_of(home, schema) as provider:
            await append(provider, 1)
            await append(provider, 2)
            for number in range(3, 7):
                await on_each_connection(pools[0], 1, "DEALLOCATE ALL")  # Another client of the pooler does this.
                await append(provider, number)
            await provider.delete(KEY)
            warnings = [record for record in caplog.records if "prepared statements" in record.getMessage()]
            assert len(warnings) == 1
            assert (await read(provider)).head.deleted

    async def test_prepared_statement_of_another_client_with_the_same_name_does_no_harm(
        self, pools: list[Pool], home: str, schema: str
    ) -> None:
        prepared = []

        async def prepare(connection: Connection) -> None:
            statement = Statements(Tables.of(schema), PAGE_BYTES).append
            prepared.append(await connection.driver.prepare(statement, name=statement_name(statement)))

        async with open_provider_of(home, schema) as provider:
            await append(provider, 1)
            await pools[0].run(prepare, idempotent=False)
            assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)
            assert len((await read(provider)).entries) == 2

    async def test_name_of_a_prepared_statement_is_a_digest_of_its_text(
        self, pools: list[Pool], home: str, schema: str
    ) -> None:
        async with open_provider_of(home, schema) as provider:
            await append(provider, 1)
            prepared = await pools[0].run(
                lambda connection: connection.driver.fetch(
                    "SELECT name, statement FROM pg_prepared_statements WHERE name <> ''"
                ),
                idempotent=True,
            )
            assert len(prepared) >= 3
            for name, statement in prepared:
                assert name == f"session_history_{hashlib.sha256(statement.encode()).hexdigest()[:32]}"

    async def test_calls_succeed_after_the_type_of_a_column_has_changed(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 2)
        await read(provider)
        await admin.execute(f"ALTER TABLE {schema}.session_history_head ALTER heartbeat TYPE integer")
        assert (await read(provider)).head.tail == Position(0, 2)
        await append(provider, 3)


def run_in_loop_that_is_only_closed(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())
    loop.close()
