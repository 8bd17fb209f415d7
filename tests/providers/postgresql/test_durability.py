"""Acknowledged writes on PostgreSQL that survive a crash, and the loss of the primary."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from providers.postgresql.support import hurried, open_provider_of, provider_of, shared_machine
from servers.postgresql import PASSWORD, USER, replicated, running
from session_history_hooks import Appended, Position, SessionKey, StoreReadOnly, Unavailable
from session_history_hooks.testing.subject import KEY, append, entry, fill, read, rewrite


class TestDurability:
    async def test_acknowledged_entries_survive_a_crash_of_the_server(self) -> None:
        with running(shared_machine()) as server:
            async with open_provider_of(server.url(), None, durability="disk") as provider:
                await fill(provider, 20)
                server.kill()
                server.start()
                assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 21))

    async def test_acknowledged_writes_survive_the_loss_of_the_primary(self) -> None:
        other = SessionKey("other", "s")
        with replicated(shared_machine()) as (primary, standby):
            with pytest.raises(StoreReadOnly):
                await provider_of(standby.url(), None).start()
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            url = f"postgresql://{USER}:{PASSWORD}@{hosts}/postgres?target_session_attrs=read-write"
            async with open_provider_of(url, None, durability="disk", timeout=30.0) as provider:
                await fill(provider, 1)
                await provider.append(other, entry(1), at=Position(0, 0))
                restored = replace((await read(provider)).head, key=SessionKey("restored", "s"))
                async with hurried(primary.url(), None, durability="disk", timeout=1.0) as hasty:
                    standby.freeze()
                    try:
                        # Of two equal calls, the first waits in vain for the standby. The second finds its work done,
                        # and must wait too.
                        for call in (
                            append(hasty, 2),
                            append(hasty, 2),
                            hasty.delete(other),
                            hasty.delete(other),
                            hasty.delete_user(other.user_id),
                            hasty.restore(restored, [entry(1)]),
                            hasty.restore(restored, [entry(1)]),
                        ):
                            with pytest.raises(Unavailable):
                                await call
                    finally:
                        standby.thaw()
                assert await append(provider, 2) == Appended(Position(0, 2), replayed=True)
                assert await provider.delete(other) is False
                assert await provider.restore(restored, [entry(1)]) is False
                primary.kill()
                standby.promote()
                assert (await read(provider)).entries == (entry(1), entry(2))
                assert (await read(provider, other)).head.deleted
                assert (await read(provider, restored.key)).entries == (entry(1),)
                await append(provider, 3)

    async def test_write_whose_wait_for_the_standby_is_cancelled_is_not_acknowledged(self) -> None:
        deleted = SessionKey("u", "deleted")
        with replicated(shared_machine()) as (primary, standby):
            admin = await asyncpg.connect(primary.url())
            async with open_provider_of(primary.url(), None, durability="disk", timeout=30.0) as provider:
                for key in (KEY, deleted):
                    await provider.append(key, entry(1), at=Position(0, 0))
                restored = replace((await read(provider)).head, key=SessionKey("u", "restored"))
                standby.freeze()
                try:
                    for call in (provider.delete(deleted), provider.restore(restored, [entry(1)])):
                        writing = asyncio.create_task(call)
                        await cancel_wait_for_standby(admin)
                        with pytest.raises(Unavailable, match="whether a standby has it"):
                            await writing
                    writes = (asyncio.create_task(append(provider, 2)), asyncio.create_task(rewrite(provider, 1)))
                    for _ in range(6):
                        await cancel_wait_for_standby(admin)
                    assert not any(each.done() for each in writes)
                finally:
                    standby.thaw()
                assert await writes[0] == Appended(Position(0, 2), replayed=True)
                assert (await writes[1]).rewrite_id == "r1"
                assert await provider.delete(deleted) is False
                assert await provider.restore(restored, [entry(1)]) is False
            await admin.close()


async def cancel_wait_for_standby(admin: Any) -> None:
    """Cancel the statement of a backend that waits for the standby."""
    for _ in range(1000):
        if await admin.fetch("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
            return
        await asyncio.sleep(0.005)
    pytest.fail("no backend waits for the standby")
