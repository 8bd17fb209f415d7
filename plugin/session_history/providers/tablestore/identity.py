"""The row that tells a table from all others, also from an earlier one of the same name."""

from __future__ import annotations

from dataclasses import replace

from session_history.providers.tablestore import decoding, rows
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.keys import STORE
from session_history.providers.tablestore.rows import VERSION, StoreRow, random_id, unchanged
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Shard, StoreInfo, new_origin


async def identify(table: Table, shard: Shard | None = None) -> StoreInfo:
    """Return the identity of a table. Make it if the table has none, and record the shard if none is recorded."""
    backoff = Backoff()
    while True:
        row = await table.get(STORE)
        stored = decoding.read_store(row) if row else None
        if stored and (shard is None or stored.info.shard):
            return stored.info
        info = replace(stored.info if stored else StoreInfo(new_origin(), VERSION), shard=shard)
        item = rows.put_store(StoreRow(info, random_id()), unchanged(stored.etag if stored else None))
        if await table.write([item]) == [Outcome.DONE]:
            return info
        await backoff.wait("the outcome of a write is unknown, or another process identifies the store")
