"""Several processes on one store. A provider that claims nothing beyond its process is not asked."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from session_history_hooks import Durability, Position
from session_history_hooks.testing.subject import Connect, Subject, append, covering, insist, look, opened, read

PATIENCE = 60
"""Seconds after which a process counts as hanging."""

SPAWN = multiprocessing.get_context("spawn")
"""Not a fork: connections and threads do not survive one."""


class ProcessesContract(Subject):
    """Races between processes, and what one that dies leaves behind."""

    @pytest.fixture
    def shared(self, connect: Connect) -> Connect:
        """``connect`` where other processes can use it."""
        if connect().limits.durability is Durability.PROCESS:
            pytest.skip("the provider claims nothing beyond its process")
        try:
            pickle.dumps(connect)
        except Exception:
            pytest.fail("other processes can not get `connect`: return functools.partial(MyProvider, …), not a lambda")
        return connect

    async def test_writers_in_several_processes_lose_nothing(self, shared: Connect) -> None:
        written = [[f"p{writer}.{number}" for number in range(16)] for writer in range(3)]
        await run_together(insisting, [(shared, names) for names in written])
        async with opened(shared) as provider:
            stored = [each.id for each in (await read(provider, last=49)).entries]
        assert sorted(stored) == sorted(name for names in written for name in names)
        for names in written:
            assert [name for name in stored if name in names] == names

    async def test_an_id_sent_by_several_processes_is_stored_once(self, shared: Connect) -> None:
        names = [f"e{number}" for number in range(1, 17)]
        await run_together(insisting, [(shared, names)] * 3)
        async with opened(shared) as provider:
            assert [each.id for each in (await read(provider, last=49)).entries] == names

    async def test_a_reader_never_sees_half_an_append_of_another_process(self, shared: Connect) -> None:
        async with opened(shared) as provider:
            if not provider.limits.atomic_head:
                pytest.skip("the provider does not claim that head and entry appear together")
            writing = asyncio.create_task(run_together(appending, [(shared, 60)]))
            await look(provider, writing.done)
            await writing
            assert (await read(provider, last=0)).head.tail == Position(0, 60)

    @pytest.mark.parametrize("deaths", [3])
    async def test_what_is_acknowledged_outlives_a_process_that_dies(self, shared: Connect, deaths: int) -> None:
        for death in range(1, deaths + 1):
            told, tell = SPAWN.Pipe(duplex=False)
            process = SPAWN.Process(target=dying, args=(shared, death * 5 - 4, tell))
            process.start()
            tell.close()
            await ended(process)
            acknowledged = [told.recv() for _ in range(5)]
            async with opened(shared) as provider:
                log = await read(provider)
            assert [each.id for each in log.entries[-5:]] == acknowledged
            assert log.head.tail == Position(0, death * 5)


async def run_together(work: Any, arguments: Sequence[tuple[object, ...]]) -> None:
    """Let processes do ``work`` that begin at the same time."""
    gate = SPAWN.Barrier(len(arguments))
    processes = [SPAWN.Process(target=work, args=(gate, *each)) for each in arguments]
    for process in processes:
        process.start()
    await asyncio.gather(*(ended(process) for process in processes))
    assert [process.exitcode for process in processes] == [0] * len(processes), "a process failed: see its output"


async def ended(process: BaseProcess) -> None:
    await asyncio.to_thread(process.join, PATIENCE)
    if process.exitcode is None:
        process.kill()
        pytest.fail("a process hangs")


def insisting(gate: Any, connect: Connect, names: Sequence[str]) -> None:
    async def insisted() -> None:
        async with opened(connect) as provider:
            await asyncio.to_thread(gate.wait, PATIENCE)
            await insist(provider, names)

    asyncio.run(insisted())


def appending(gate: Any, connect: Connect, count: int) -> None:
    async def appended() -> None:
        async with opened(connect) as provider:
            await asyncio.to_thread(gate.wait, PATIENCE)
            for number in range(1, count + 1):
                await append(provider, number, covering(number))

    asyncio.run(appended())


def dying(connect: Connect, first: int, tell: Connection) -> None:
    """Append five entries, say so, and end without any farewell."""

    async def died() -> None:
        provider = connect()
        await provider.start()
        for number in range(first, first + 5):
            await append(provider, number)
            tell.send(f"e{number}")
        os._exit(0)

    asyncio.run(died())
