"""Payloads that are too large for one row. Readers ignore their chunks until an entry names them."""

from __future__ import annotations

from session_history.providers.tablestore import decoding, keys, rows
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.rows import Chunks
from session_history.providers.tablestore.state import TornReadError
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import SessionKey


class ChunkStore:
    """Writes, reads and deletes chunks."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def store(self, key: SessionKey, generation: int, payload: bytes) -> Chunks | None:
        """Store a payload in chunks. Return ``None`` if it fits into a row, and store nothing."""
        if len(payload) <= rows.CELL_BYTES:
            return None
        chunks = Chunks.new(len(payload))
        backoff = Backoff()
        for index in range(chunks.count):
            item = rows.put_chunk(key, generation, chunks, index, payload)
            while await self._table.write([item]) != [Outcome.DONE]:
                await backoff.wait("the outcome of a write of a large payload is unknown")
        return chunks

    async def load(self, key: SessionKey, chunks: Chunks) -> bytes:
        """Read a payload.

        :raises TornReadError: another payload has replaced this one.
        """
        found = await self._table.rows(
            keys.primary_key(key, chunks.number(0)),
            keys.primary_key(key, chunks.number(chunks.count)),
            limit=chunks.count,
            backward=True,
        )
        payload = b"".join(map(decoding.read_chunk, found.rows))
        if len(payload) != chunks.size:
            raise TornReadError
        return payload

    async def delete(self, key: SessionKey, *payloads: Chunks | None) -> None:
        numbers = [chunks.number(index) for chunks in {*payloads} if chunks for index in range(chunks.count)]
        await self._table.delete([rows.delete(keys.primary_key(key, number)) for number in numbers])
