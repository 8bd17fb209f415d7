"""Tests with several processes on one store. They skip a provider that claims durability PROCESS."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from session_history_hooks import Durability, Position
from session_history_hooks.testing.subject import (
    Connect,
    Subject,
    append,
    append_all,
    covering,
    opened,
    read,
    watch_appends,
)

PROCESS_TIMEOUT = 60
"""Seconds after which a process counts as hanging, and is killed."""

FRESH: SpawnContext = multiprocessing.get_context("spawn")
"""Makes processes that are no forks of this one: connections and threads do not survive a fork."""


class ProcessesContract(Subject):
    """Races between processes, and the abrupt exit of a process."""

    @pytest.fixture
    def shared(self, connect: Connect) -> Connect:
        """The fixture ``connect``, if other processes can use it."""
        if connect().limits.durability is Durability.PROCESS:
            pytest.skip("the provider claims durability PROCESS: its data ends with its process")
        try:
            pickle.dumps(connect)
        except Exception:
            pytest.fail(
                "`connect` cannot be pickled for other processes: return functools.partial(MyProvider, …), not a lambda"
            )
        return connect

    async def test_writers_in_several_processes_lose_no_entry(self, shared: Connect) -> None:
        written = [[f"p{writer}.{number}" for number in range(16)] for writer in range(3)]
        await run_together(append_all_in_process, [(shared, names) for names in written])
        async with opened(shared) as provider:
            stored = [each.id for each in (await read(provider, last=49)).entries]
        assert sorted(stored) == sorted(name for names in written for name in names)
        for names in written:
            assert [name for name in stored if name in names] == names

    async def test_appends_of_one_id_by_several_processes_store_it_once(self, shared: Connect) -> None:
        names = [f"e{number}" for number in range(1, 17)]
        await run_together(append_all_in_process, [(shared, names)] * 3)
        async with opened(shared) as provider:
            assert [each.id for each in (await read(provider, last=49)).entries] == names

    async def test_reader_never_sees_half_an_append_of_another_process(self, shared: Connect) -> None:
        async with opened(shared) as provider:
            if not provider.limits.atomic_head:
                pytest.skip("the provider does not claim an atomic head")
            writing = asyncio.create_task(run_together(append_with_snapshots_in_process, [(shared, 60)]))
            await watch_appends(provider, writing.done)
            await writing
            assert (await read(provider, last=0)).head.tail == Position(0, 60)

    @pytest.mark.parametrize("exits", [3])
    async def test_acknowledged_entries_outlive_an_abrupt_exit(self, shared: Connect, exits: int) -> None:
        for number in range(1, exits + 1):
            receiver, sender = FRESH.Pipe(duplex=False)
            process = FRESH.Process(target=append_and_exit, args=(shared, number * 5 - 4, sender))
            process.start()
            sender.close()
            await join(process)
            acknowledged = [receiver.recv() for _ in range(5)]
            async with opened(shared) as provider:
                log = await read(provider)
            assert [each.id for each in log.entries[-5:]] == acknowledged
            assert log.head.tail == Position(0, number * 5)


async def run_together(work: Any, arguments: Sequence[tuple[object, ...]]) -> None:
    """Run ``work`` in one process for each tuple of arguments; all begin at the same time.

    :param work: a function of a module, called with a barrier and the arguments.
    """
    barrier = FRESH.Barrier(len(arguments))
    processes = [FRESH.Process(target=work, args=(barrier, *each)) for each in arguments]
    for process in processes:
        process.start()
    await asyncio.gather(*(join(process) for process in processes))
    assert [process.exitcode for process in processes] == [0] * len(processes), "a process failed: see its output"


async def join(process: BaseProcess) -> None:
    await asyncio.to_thread(process.join, PROCESS_TIMEOUT)
    if process.exitcode is None:
        process.kill()
        pytest.fail("a process hangs")


def append_all_in_process(barrier: Any, connect: Connect, names: Sequence[str]) -> None:
    async def run() -> None:
        async with opened(connect) as provider:
            await asyncio.to_thread(barrier.wait, PROCESS_TIMEOUT)
            await append_all(provider, names)

    asyncio.run(run())


def append_with_snapshots_in_process(barrier: Any, connect: Connect, count: int) -> None:
    async def run() -> None:
        async with opened(connect) as provider:
            await asyncio.to_thread(barrier.wait, PROCESS_TIMEOUT)
            for number in range(1, count + 1):
                await append(provider, number, covering(number))

    asyncio.run(run())


def append_and_exit(connect: Connect, first: int, sender: Connection) -> None:
    """Append five entries, report each of them, and exit without closing anything."""

    async def run() -> None:
        provider = connect()
        await provider.start()
        for number in range(first, first + 5):
            await append(provider, number)
            sender.send(f"e{number}")
        os._exit(0)

    asyncio.run(run())
