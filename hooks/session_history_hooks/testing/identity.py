"""Tests of ``store_info``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from session_history_hooks import ConfigurationError, SessionHistoryProvider, Shard, StoreInfo
from session_history_hooks.testing.subject import Connect, Subject, fill, opened


class IdentityContract(Subject):
    """The incarnation of a store, its format, and its place among shards."""

    async def test_store_info_has_the_declared_types(self, provider: SessionHistoryProvider) -> None:
        info = await provider.store_info()
        assert isinstance(info, StoreInfo)
        assert type(info.incarnation) is str
        assert 1 <= len(info.incarnation) <= 512
        assert type(info.format) is int
        assert info.format >= 1
        assert info.shard is None

    async def test_store_info_is_the_same_on_every_connection(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            info = await one.store_info()
            assert await other.store_info() == info
            await fill(one, 2)
            assert await one.store_info() == await other.store_info() == info

    async def test_store_info_is_the_same_after_a_restart(self, connect: Connect) -> None:
        provider = connect()
        infos = []
        for each in (provider, provider, connect()):
            async with opened(lambda each=each: each) as again:  # type: ignore[misc]
                infos.append(await again.store_info())
        assert infos == [infos[0]] * 3

    async def test_store_info_is_the_same_for_connections_that_open_a_store_together(self, connect: Connect) -> None:
        providers = [connect() for _ in range(4)]
        await asyncio.gather(*(provider.start() for provider in providers))
        infos = await asyncio.gather(*(provider.store_info() for provider in providers))
        await asyncio.gather(*(provider.stop() for provider in providers))
        assert len(set(infos)) == 1

    async def test_first_claim_of_a_shard_is_kept(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            before = await one.store_info()
            with skipped_without_places():
                taken = await one.store_info(shard=Shard(1, 3))
            assert taken == StoreInfo(before.incarnation, before.format, Shard(1, 3))
            for shard in (Shard(1, 3), Shard(0, 3), Shard(1, 2), None):
                assert await other.store_info(shard=shard) == taken
                assert await one.store_info(shard=shard) == taken
            assert await other.store_info() == taken
        async with opened(connect) as again:
            assert await again.store_info(shard=Shard(0, 1)) == taken

    async def test_concurrent_claims_of_shards_let_one_win(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            claims = [provider.store_info(shard=Shard(n, 8)) for n, provider in enumerate([one, other] * 4)]
            with skipped_without_places():
                infos = await asyncio.gather(*claims)
            assert len(set(infos)) == 1
            assert infos[0].shard in {Shard(number, 8) for number in range(8)}
            assert await one.store_info() == await other.store_info() == infos[0]


@contextmanager
def skipped_without_places() -> Iterator[None]:
    """Skip the test of a store of several shards, which have their places already."""
    try:
        yield
    except ConfigurationError:
        pytest.skip("the provider cannot be a shard")
