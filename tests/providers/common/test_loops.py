"""Resources of event loops that run, stand still, end and were closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from providers.common.forking import holds_in_child
from session_history.providers.common.loops import LoopLocal
from session_history_hooks import Unavailable

T = TypeVar("T")


class Pool:
    """Notes what happens to it, and where."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: list[str] = []
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def close(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await self.may_close.wait()
        self.events.append("close")

    async def abort(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.events.append("abort")

    async def let_close(self) -> None:
        self.may_close.set()
        await asyncio.sleep(0.01)

    def discard(self) -> None:
        self.events.append("discard")


class FailingPool(Pool):
    async def close(self) -> None:
        await super().close()
        raise OSError("the connection is lost")


def pools(kind: type[Pool] = Pool, close_timeout: float = 5.0) -> LoopLocal[Pool]:
    return LoopLocal("the store", kind, close_timeout=close_timeout)


class LoopInThread:
    """An event loop that ``asyncio.run`` runs in another thread."""

    def __init__(self) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._wait_for_end()))
        self._thread.start()
        self.loop = self._started.result(10)

    async def _wait_for_end(self) -> None:
        self._end = asyncio.Event()
        self._started.set_result(asyncio.get_running_loop())
        await self._end.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def end(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)


@contextmanager
def loop_in_thread() -> Iterator[LoopInThread]:
    other = LoopInThread()
    try:
        yield other
    finally:
        other.end()


async def test_get_twice_in_one_loop_returns_one_resource() -> None:
    local = pools()
    first, *others = await asyncio.gather(*(local.get() for _ in range(5)))
    assert all(other is first for other in others)
    await local.close()


async def test_get_in_two_loops_returns_two_resources() -> None:
    local = pools()
    here = await local.get()
    with loop_in_thread() as other:
        there = other.run(local.get())
        assert there is not here
        assert there.loop is other.loop
        await local.close()
        assert [here.events, there.events] == [["close", "abort"]] * 2


async def test_get_after_close_raises_unavailable() -> None:
    local = pools()
    await local.get()
    await local.close()
    with pytest.raises(Unavailable, match=r"^the store is not open"):
        await local.get()


async def test_close_twice_closes_once() -> None:
    local = pools()
    pool = await local.get()
    await local.close()
    await local.close()
    assert pool.events == ["close", "abort"]


def test_end_of_asyncio_run_aborts_the_resource() -> None:
    local = pools()
    pool = asyncio.run(local.get())
    assert pool.events == ["abort"]
    asyncio.run(local.close())
    assert pool.events == ["abort"]


def test_get_in_a_loop_whose_generators_were_closed_returns_a_new_resource() -> None:
    local = pools()
    with asyncio.Runner() as runner:
        pool = runner.run(local.get())
        runner.get_loop().run_until_complete(pool.loop.shutdown_asyncgens())
        with pytest.warns(ResourceWarning, match="was scheduled after loop.shutdown_asyncgens"):
            again = runner.run(local.get())
        assert again is not pool
        runner.run(local.close())


def test_get_after_a_loop_was_closed_without_ending_discards_its_resource() -> None:
    local = pools()
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(local.get())
    loop.close()
    asyncio.run(local.get())
    assert pool.events == ["discard"]


def test_close_after_a_loop_was_closed_without_ending_discards_its_resource() -> None:
    local = pools()
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(local.get())
    loop.close()
    asyncio.run(local.close())
    assert pool.events == ["discard"]


def test_close_while_another_loop_stands_still_aborts_when_it_runs_again() -> None:
    local = pools()
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(local.get())
    asyncio.run(local.close())
    assert pool.events == []
    loop.run_until_complete(asyncio.sleep(0.01))
    assert pool.events == ["abort"]
    loop.close()


async def test_close_waits_no_longer_than_its_timeout_for_another_loop() -> None:
    local = pools(close_timeout=0.05)
    with loop_in_thread() as other:
        pool = other.run(local.get())
        pool.may_close.clear()
        await asyncio.wait_for(local.close(), 5)
        other.run(asyncio.sleep(0.01))
        assert pool.events == ["abort"]
        other.run(pool.let_close())
        assert pool.events == ["abort", "close"]


async def test_close_while_another_loop_ends_raises_nothing() -> None:
    local = pools()
    with loop_in_thread() as other:
        pool = other.run(local.get())
        pool.may_close.clear()
        closing = asyncio.create_task(local.close())
        await asyncio.sleep(0.01)
        await asyncio.to_thread(other.end)
        await asyncio.wait_for(closing, 5)
        assert pool.events == ["abort"]


async def test_cancelled_close_aborts_the_resource() -> None:
    local = pools()
    pool = await local.get()
    pool.may_close.clear()
    closing = asyncio.create_task(local.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert pool.events == ["abort"]


async def test_close_that_fails_raises_and_aborts() -> None:
    local = pools(FailingPool)
    pool = await local.get()
    with pytest.raises(OSError, match="the connection is lost"):
        await local.close()
    assert pool.events == ["close", "abort"]


async def test_close_that_fails_in_another_loop_raises_nothing() -> None:
    local = pools(FailingPool)
    with loop_in_thread() as other:
        pool = other.run(local.get())
        await local.close()
        assert pool.events == ["close", "abort"]


async def test_get_during_close_from_another_thread_raises_unavailable() -> None:
    local = pools()
    with loop_in_thread() as other:
        await local.close()
        with pytest.raises(Unavailable, match=r"^the store is not open"):
            await asyncio.to_thread(other.run, local.get())


def test_fork_refuses_get_and_leaves_the_resources_alone() -> None:
    local = pools()
    with asyncio.Runner() as runner:
        pool = runner.run(local.get())

        async def use() -> bool:
            with pytest.raises(Unavailable, match="forked"):
                await local.get()
            await local.close()
            return local.guard.inherited and pool.events == []

        assert holds_in_child(lambda: asyncio.run(use()))
        assert runner.run(local.get()) is pool
        runner.run(local.close())
