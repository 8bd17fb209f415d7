"""The provider in memory, and its use after a fork."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable

import pytest

from providers.common.forking import holds_in_child
from session_history import InMemorySessionHistoryService, SessionHistoryService
from session_history.errors import Unavailable
from session_history.providers.memory import MemoryProvider
from session_history.wrappers.sharded import ShardedProvider
from session_history_hooks import Entry, Head, Position, Restorable, SessionKey, Users, ability

KEY = SessionKey("u", "s")
FORKED = r"^the memory store was open when this process was forked; .* start it after the fork, or use another store"


async def use(service: SessionHistoryService) -> int:
    """Append a message and return how many there are."""
    session = await service.get_session("u", "s")
    assert session is not None
    await service.append_message(session, {"role": "user", "content": "hi"})
    return len(session.messages)


def refuses(service: SessionHistoryService) -> bool:
    with pytest.raises(Unavailable, match=FORKED):
        asyncio.run(use(service))
    return True


@pytest.fixture
def service() -> SessionHistoryService:
    return InMemorySessionHistoryService()


def test_used_service_in_forked_process_raises_unavailable(service: SessionHistoryService) -> None:
    assert asyncio.run(use(service)) == 1
    assert holds_in_child(lambda: refuses(service))
    assert asyncio.run(use(service)) == 2


def test_turn_in_forked_process_raises_unavailable(service: SessionHistoryService) -> None:
    async def turn() -> None:
        async with service.turn("u", "s") as turn:
            turn.add({"role": "user", "content": "hi"})

    def refuses_turn() -> bool:
        with pytest.raises(Unavailable, match=FORKED):
            asyncio.run(turn())
        return True

    asyncio.run(turn())
    assert holds_in_child(refuses_turn)


def test_shards_in_forked_process_raise_unavailable() -> None:
    service = SessionHistoryService(ShardedProvider([MemoryProvider(), MemoryProvider()]))
    asyncio.run(use(service))
    assert holds_in_child(lambda: refuses(service))


def test_service_in_fork_of_fork_raises_unavailable(service: SessionHistoryService) -> None:
    asyncio.run(use(service))
    assert holds_in_child(lambda: holds_in_child(lambda: refuses(service)))


def test_every_call_in_forked_process_raises_unavailable() -> None:
    provider = MemoryProvider()
    entry = Entry("e", b"")

    async def fill() -> Head:
        await provider.start()
        await provider.append(KEY, entry, at=Position(0, 0))
        log = await provider.read(KEY)
        assert log
        return log.head

    head = asyncio.run(fill())
    users, restorable = ability(provider, Users), ability(provider, Restorable)
    assert users
    assert restorable
    calls: list[Callable[[], Awaitable[object]]] = [
        provider.start,
        provider.store_info,
        lambda: provider.read(KEY),
        lambda: provider.append(KEY, entry, at=Position(0, 0)),
        lambda: provider.renew(KEY, at=Position(0, 1)),
        lambda: provider.rewrite(KEY, entry, at=Position(0, 1), rewrite_id="r", last_rewrite_id="", snapshot=None),
        lambda: provider.list("u", limit=1),
        lambda: provider.delete(KEY),
        lambda: provider.delete_user("u"),
        lambda: users.list_users(limit=1),
        lambda: users.list_tombstones("u", limit=1),
        lambda: restorable.restore(head, [entry]),
    ]

    async def all_refuse() -> None:
        for call in calls:
            with pytest.raises(Unavailable, match=FORKED):
                await call()

    def check() -> bool:
        asyncio.run(all_refuse())
        return True

    assert holds_in_child(check)


def test_restart_in_forked_process_raises_unavailable(service: SessionHistoryService) -> None:
    """The sessions of before the stop are still in the provider."""

    async def use_and_stop() -> None:
        await use(service)
        await service.stop()

    async def restart() -> None:
        await service.stop()
        with pytest.raises(Unavailable, match=FORKED):
            await service.start()

    def check() -> bool:
        asyncio.run(restart())
        return True

    asyncio.run(use_and_stop())
    assert holds_in_child(check)


def test_health_in_forked_process_is_false(service: SessionHistoryService) -> None:
    asyncio.run(service.start())
    assert asyncio.run(service.health())
    assert holds_in_child(lambda: not asyncio.run(service.health()))
    assert holds_in_child(lambda: not asyncio.run(service.provider.health()))


def test_lock_that_a_thread_held_at_the_fork_does_not_block_the_child(service: SessionHistoryService) -> None:
    asyncio.run(use(service))
    provider = service.provider
    assert isinstance(provider, MemoryProvider)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with vars(provider)["_lock"]:
            held.set()
            done.wait()

    def refuses_at_once() -> bool:
        signal.alarm(20)  # ends the child if it waits
        return refuses(service)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert holds_in_child(refuses_at_once)
    finally:
        done.set()
        thread.join()


def test_service_not_started_before_the_fork_works_in_both_processes(service: SessionHistoryService) -> None:
    def check() -> bool:
        return [asyncio.run(use(service)) for _ in range(2)] == [1, 2]

    assert holds_in_child(check)
    assert check()


def test_service_made_in_forked_process_works_there(service: SessionHistoryService) -> None:
    asyncio.run(use(service))
    assert holds_in_child(lambda: asyncio.run(use(InMemorySessionHistoryService())) == 1)
