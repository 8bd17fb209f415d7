"""The cost of statements on PostgreSQL: round trips, plans and index updates."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import cached_property
from typing import Any

import pytest

from providers.postgresql.support import (
    OnServer,
    create_schema,
    fill_sessions,
    open_provider_of,
)
from servers.postgresql import Server
from servers.proxy import Proxy
from session_history.providers.postgresql import PAGE_BYTES, PostgresqlProvider
from session_history.providers.postgresql.schema import Tables
from session_history.providers.postgresql.statements import Span, Statements
from session_history_hooks import Position, SessionKey
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, read, rewrite

LONG = "'u1', 's1'"
"""The session that :func:`fill_tables` makes long."""


class TestCost(OnServer):
    """Round trips, plans and index updates."""

    async def test_read_append_renew_and_rewrite_take_one_round_trip_each(
        self, server: Server, proxy: Proxy, proxied: str
    ) -> None:
        schema = await create_schema(server.url())
        async with open_provider_of(proxied, schema) as provider:
            await fill(provider, 2)
            requests: list[int] = []
            for number, last in ((3, ""), (5, "r3")):
                for call in (
                    append(provider, number, covering(number)),
                    provider.append(KEY, replace(entry(number + 1), keys=(f"k{number}",)), at=Position(0, number)),
                    read(provider, last=20, entry_id="e1"),
                    read(provider, after=number, entry_id="k3"),
                    read(provider),
                    provider.renew(KEY, at=Position(0, number + 1)),
                    rewrite(provider, 1, rewrite_id=f"r{number}", last=last),
                ):
                    proxy.requests = 0
                    await call
                    requests.append(proxy.requests)
            assert requests[7:] == [1] * 7, "the first calls have prepared their statements"
            assert proxy.connections == 1

    async def test_delete_takes_four_round_trips(self, server: Server, proxy: Proxy, proxied: str) -> None:
        schema = await create_schema(server.url())
        async with open_provider_of(proxied, schema) as provider:
            for user in ("warm", "u"):
                await fill_sessions(provider, user, [1, 5, 2, 40])
                proxy.requests = 0
                assert await provider.delete(SessionKey(user, "s3")) is True
                one = proxy.requests
                assert await provider.delete_user(user) == 3
                all_others = proxy.requests - one
                assert await provider.delete_user(user) == 0
                nothing = proxy.requests - one - all_others
            assert (one, all_others, nothing) == (4, 4, 4)

    @pytest.mark.usefixtures("provider")
    async def test_read_of_a_range_in_a_long_log_reads_only_that_range(self, admin: Any, schema: str) -> None:
        await fill_tables(admin, schema)
        sql = Statements(Tables.of(schema), PAGE_BYTES)
        for reads, span, low in (
            (sql.reads, Span.LAST, 1),
            (sql.reads, Span.NEWEST, 1),
            (sql.reads, Span.OLDEST, 101),
            (sql.full_pages, Span.NEWEST, 1),
            (sql.full_pages, Span.OLDEST, 101),
        ):
            values = f"{LONG}, {low}, {2**31 - 1}, 20"
            assert rows_read(await explain(admin, reads[span, False], values), "entry") == 20
            matched = await explain(admin, reads[span, True], f"{values}, 'e7'")
            assert rows_read(matched, "entry") == 22, "also the row that has the id, and the entry"

    @pytest.mark.usefixtures("provider")
    async def test_look_up_of_ids_in_a_long_log_reads_only_rows_that_have_them(self, admin: Any, schema: str) -> None:
        await fill_tables(admin, schema)
        sql = Statements(Tables.of(schema), PAGE_BYTES)
        append = f"NULL, NULL, NULL, 'new', '', {LONG}, 'o', false, 0, 2000, false, 0, 'o', true"
        assert rows_read(await explain(admin, sql.append, append), "entry") == 0
        keyed = await explain(admin, sql.append_with_keys, f"{append}, '{{k1,k2,k3,k4,k5,k6,k7,k8,k9}}'")
        assert rows_read(keyed, "entry") == 0
        find = await explain(admin, sql.find, f"{LONG}, '{{k1,e7,k2,k3,k4,k5,k6,k7,e9}}'")
        assert round(rows_read(find, "entry")) == 2

    async def test_page_with_large_entries_reads_only_what_it_returns(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        for seq in range(6):
            await provider.append(KEY, entry(seq + 1, bytes([seq]) * 2**20), at=Position(0, seq))
        pages = Statements(Tables.of(schema), 3 * 2**20).full_pages
        for span in (Span.NEWEST, Span.OLDEST):
            plan = await explain(admin, pages[span, False], f"'{KEY.user_id}', '{KEY.session_id}', 1, {2**31 - 1}, 200")
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 60, "their lengths need no read of them"
            rows = await admin.fetch(pages[span, False], KEY.user_id, KEY.session_id, 1, 2**31 - 1, 200)
            assert sum(row[5] is not None for row in rows if row[0] == 1) == 3

    async def test_page_takes_a_second_round_trip_only_for_entries_that_it_may_have_no_room_for(
        self, server: Server, proxy: Proxy, proxied: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.PAGE_BYTES", 1000)
        schema = await create_schema(server.url())
        async with open_provider_of(proxied, schema) as provider:
            sizes = [100, 100, 100, 501, 100, 400, 100, 100]
            for number, size in enumerate(sizes, start=1):
                await provider.append(KEY, entry(number, bytes(size)), at=Position(0, number - 1))
            for _ in range(2):
                found = []
                for before, after in ((4, None), (4, 0), (None, None), (None, 0), (5, 3), (None, 7), (None, 8)):
                    proxy.requests = 0
                    log = await read(provider, before=before, after=after, entry_id="e2")
                    assert log.match == (2, entry(2, bytes(100)))
                    found.append((log.first, len(log.entries), proxy.requests))
            assert found == [(1, 3, 1), (1, 3, 1), (5, 4, 2), (1, 5, 2), (4, 1, 1), (8, 1, 1), (9, 0, 1)]
            await provider.append(KEY, entry(9, bytes(2000)), at=Position(0, 8))
            for after in (None, 8):
                assert [each.id for each in (await read(provider, after=after)).entries] == ["e9"]
            assert [each.id for each in (await read(provider, after=7)).entries] == ["e8"]

    @pytest.mark.usefixtures("provider")
    async def test_every_statement_uses_an_index(self, admin: Any, schema: str) -> None:
        await fill_tables(admin, schema)
        sql = Statements(Tables.of(schema), PAGE_BYTES)
        names = [name for name, each in vars(Statements).items() if isinstance(each, cached_property)]
        assert {"append", "list", "delete_session"} < set(names)
        names = [name for name in names if name not in {"takes_writes", "require_room", "info", "take_shard"}]
        for statement in (*(getattr(sql, name) for name in names), *sql.reads.values(), *sql.full_pages.values()):
            nulls = ", ".join(["NULL"] * len((await admin.prepare(statement)).get_parameters()))
            await admin.execute(f"PREPARE planned AS {statement}")
            plan = "\n".join(row[0] for row in await admin.fetch(f"EXPLAIN EXECUTE planned ({nulls})"))
            await admin.execute("DEALLOCATE planned")
            assert "Seq Scan on session_history_" not in plan, f"{statement}: {plan}"

    @pytest.mark.usefixtures("provider")
    async def test_list_of_users_or_tombstones_reads_no_other_heads(self, admin: Any, schema: str) -> None:
        await fill_tables(admin, schema)
        await admin.execute(
            f"UPDATE {schema}.session_history_head SET deleted = true WHERE user_id = 'u7' AND log % 200 = 7"
        )
        sql = Statements(Tables.of(schema), PAGE_BYTES)
        assert rows_read(await explain(admin, sql.list_users, "'u', 50"), "head") <= 51
        assert rows_read(await explain(admin, sql.list_tombstones, "'u7', '', 9"), "head") == 9
        assert rows_read(await explain(admin, sql.list_tombstones, "'u8', '', 9"), "head") == 0

    async def test_append_updates_no_index_of_heads(self, home: str, schema: str, admin: Any) -> None:
        async with open_provider_of(home, schema) as provider:
            await fill(provider, 100)
        for _ in range(100):  # The server counts when the connection ends.
            updated, hot = await admin.fetchrow(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
                " WHERE schemaname = $1 AND relname = 'session_history_head'",
                schema,
            )
            if updated == 99:
                break
            await asyncio.sleep(0.02)
        assert updated == 99
        assert hot >= 90


async def fill_tables(admin: Any, schema: str) -> None:
    """Insert many sessions of 100 users with one entry each, and make one of them long."""
    await admin.execute(
        f"""SET search_path TO {schema};
        INSERT INTO session_history_head
            (user_id, session_id, generation, seq, tail_origin, deleted, heartbeat, rewrite_id, active_us, changed_us)
            SELECT 'u' || i % 100, 's' || i, 0, 1, 'o', false, 0, '', i, i FROM generate_series(1, 20000) i;
        INSERT INTO session_history_entry
            SELECT log, 1, 0, false, decode(md5(session_id), 'hex'), 'o', 'x' FROM session_history_head;
        UPDATE session_history_head SET seq = 2000 WHERE session_id = 's1';
        INSERT INTO session_history_entry SELECT log, i, 0, false, convert_to('e' || i, 'UTF8'), 'o', 'x'
            FROM session_history_head, generate_series(2, 2000) i WHERE session_id = 's1';
        ANALYZE session_history_head, session_history_entry;
        SET plan_cache_mode TO force_generic_plan"""
    )


async def explain(admin: Any, statement: str, values: str) -> dict[str, Any]:
    """Run a statement and undo it. Return its plan, with what each node did."""
    await admin.execute(f"BEGIN; PREPARE planned AS {statement}")
    [[plan]] = await admin.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE planned ({values})")
    await admin.execute("DEALLOCATE planned; ROLLBACK")
    found: dict[str, Any] = json.loads(plan)[0]["Plan"]
    return found


def rows_read(plan: dict[str, Any], table: str) -> float:
    """Return how many rows of a table the scans of a plan have read."""
    rows = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    own = rows if "Scan" in plan["Node Type"] and plan.get("Relation Name") == f"session_history_{table}" else 0
    return float(own + sum(rows_read(each, table) for each in plan.get("Plans", ())))
