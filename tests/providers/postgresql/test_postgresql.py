"""Runs of the contract suite on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import settings

from providers.postgresql.support import OnServer, home_url, new_schema, open_provider_of
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import Conflict, Position, Restorable, SessionKey, Shard, Users
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from session_history_hooks.testing.subject import KEY, append, covering, entry, read, rewrite


def new_store() -> Connect:
    url = home_url()
    return partial(PostgresqlProvider, url, schema=new_schema(url), durability="host")


class TestPostgresql(ProviderContract):
    abilities = (Users, Restorable)

    @pytest.fixture
    def connect(self) -> Connect:
        return new_store()


TestPostgresqlAtRandom = provider_machine(new_store).TestCase
TestPostgresqlAtRandom.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


class TestWithoutStatementCache(OnServer):
    """The cache changes only the way that a statement is sent, so one call of each kind is enough."""

    async def test_each_call_without_statement_cache_works(self, home: str, schema: str) -> None:
        async with open_provider_of(home, schema, statement_cache=False) as provider:
            for number in range(1, 4):
                await append(provider, number, covering(number))
            assert (await append(provider, 3, covering(3))).replayed
            assert await provider.renew(KEY, at=Position(0, 3)) is True
            await rewrite(provider, 2, snapshot=covering(3))
            log = await read(provider)
            assert log.entries == (entry(1), entry(2, b"new"), entry(3))
            assert (await read(provider, last=1, entry_id="e2")).match == (2, entry(2, b"new"))
            assert (await read(provider, after=2)).entries == (entry(3),)
            assert (await read(provider, after=2, entry_id="e1")).match == (1, entry(1))
            assert [head.key for head in (await provider.list(KEY.user_id, limit=9)).heads] == [KEY]
            assert (await provider.store_info(shard=Shard(1, 2))).shard == Shard(1, 2)
            assert await provider.delete(KEY) is True
            assert [head.key for head in (await provider.list_tombstones(KEY.user_id, limit=9)).heads] == [KEY]
            assert (await provider.list_users(limit=9)).user_ids == (KEY.user_id,)
            await provider.append(KEY, replace(entry(1), keys=("k1", "k2")), at=Position(1, 0))
            with pytest.raises(Conflict):
                await provider.append(KEY, replace(entry(2), keys=("k1", "k3")), at=Position(1, 1))
            assert await provider.restore(replace(log.head, key=SessionKey("copy", "s")), log.entries) is True
            await provider.append(SessionKey(KEY.user_id, "other"), entry(1), at=Position(0, 0))
            assert await provider.delete_user(KEY.user_id) == 2
            assert (await read(provider)).head.deleted
