"""Tests of start, stop, and the provider's repr."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from session_history_hooks import (
    Appended,
    Conflict,
    Durability,
    Position,
    Restorable,
    Searchable,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    Unavailable,
    Users,
    ability,
)
from session_history_hooks.testing.restorable_logs import made
from session_history_hooks.testing.subject import KEY, Connect, Subject, append, entry, fill, opened, read, rewrite


class UnknownAbility:
    """An ability of a later version."""


class LifecycleContract(Subject):
    """Start, stop, and data that outlives a connection."""

    async def test_second_start_and_second_stop_do_nothing(self, connect: Connect) -> None:
        provider = connect()
        await provider.start()
        await provider.start()
        assert await provider.health() is True
        await fill(provider, 1)
        await provider.stop()
        await provider.stop()
        assert await provider.health() is False

    async def test_calls_without_start_raise_unavailable(self, connect: Connect) -> None:
        provider = connect()
        await check_closed(provider)
        async with opened(lambda: provider):
            await fill(provider, 1)
        await check_closed(provider)

    async def test_stopped_provider_can_be_started_again(self, connect: Connect) -> None:
        provider = connect()
        for number in range(1, 4):
            async with opened(lambda: provider):
                assert await provider.health() is True
                log = await provider.read(KEY)
                tail = log.head.tail if log else Position(0, 0)
                assert tail.seq in {0, number - 1}
                assert (await provider.append(KEY, entry(number), at=tail)).replayed is False

    async def test_acknowledged_entries_outlive_the_connection(self, connect: Connect) -> None:
        first = connect()
        if first.limits.durability is Durability.PROCESS:
            pytest.skip("the provider claims durability PROCESS: its data ends with its process")
        await first.start()
        await fill(first, 3)
        await first.delete(SessionKey("user", "never"))
        before = await read(first)
        await first.stop()
        second = connect()
        await second.start()
        assert await read(second) == before
        assert await append(second, 4) == Appended(Position(0, 4), replayed=False)
        await second.stop()

    async def test_provider_works_in_one_event_loop_after_another(self, connect: Connect) -> None:
        provider = connect()
        await provider.start()
        for number in range(1, 4):
            await asyncio.to_thread(asyncio.run, append(provider, number))
        assert (await read(provider)).head.tail == Position(0, 3)
        await asyncio.to_thread(asyncio.run, provider.stop())

    async def test_provider_has_the_abilities_that_it_claims(self, connect: Connect) -> None:
        """Also before its start; another ability, perhaps of a later version, is ``None``."""
        assert [kind for kind in self.abilities if ability(connect(), kind) is None] == []
        assert ability(connect(), UnknownAbility) is None

    async def test_repr_and_errors_show_no_payload(self, provider: SessionHistoryProvider) -> None:
        secret = b"hunter2"
        said = replace(entry(1, secret), text=secret.decode())
        await provider.append(KEY, said, at=Position(0, 0), snapshot=Snapshot(1, "o1", secret))
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, replace(said, id="e2"), at=Position(0, 0))
        for shown in (await read(provider), conflict.value, said, provider):
            assert "hunter2" not in repr(shown) + str(shown)


async def check_closed(provider: SessionHistoryProvider) -> None:
    """Check that every method raises ``Unavailable``."""
    assert await provider.health() is False
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "read": lambda: provider.read(KEY),
        "append": lambda: provider.append(KEY, entry(1), at=Position(0, 0)),
        "renew": lambda: provider.renew(KEY, at=Position(0, 1)),
        "rewrite": lambda: rewrite(provider, 1),
        "store_info": provider.store_info,
        "list": lambda: provider.list(KEY.user_id, limit=1),
        "delete": lambda: provider.delete(KEY),
        "delete_user": lambda: provider.delete_user(KEY.user_id),
    }
    for name, call in (calls | ability_calls(provider)).items():
        try:
            await call()
        except Unavailable:
            continue
        pytest.fail(f"{name} of a provider that is not started must raise Unavailable")


def ability_calls(provider: SessionHistoryProvider) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return a call of each method of the provider's abilities."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {}
    if users := ability(provider, Users):
        calls["list_users"] = lambda: users.list_users(limit=1)
        calls["list_tombstones"] = lambda: users.list_tombstones(KEY.user_id, limit=1)
    if restorable := ability(provider, Restorable):
        calls["restore"] = lambda: restorable.restore(*made(1))
    if searchable := ability(provider, Searchable):
        calls["search"] = lambda: searchable.search(KEY.user_id, ["word"], limit=1)
    return calls
