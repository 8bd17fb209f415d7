"""Writes of entries and heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from session_history.providers.redis import scripts
from session_history.providers.redis.answers import conflict_of
from session_history.providers.redis.codec import decode_head, encode_entry, encode_head
from session_history.providers.redis.commands import Argument
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.pieces import Pieces, Upload
from session_history.providers.redis.reading import Reader
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import DONE, REPLAYED, UNCHANGED
from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Position,
    SessionKey,
    Snapshot,
    StoreFull,
    Unavailable,
)

PORTION_BYTES, PORTION_ENTRIES = 2**20, 250
"""The most that one script restores. Other clients wait while a script runs."""


class Writer:
    """Changes sessions."""

    def __init__(self, options: RedisOptions, keys: Keys, runner: ScriptRunner, pieces: Pieces, reader: Reader) -> None:
        self._runner = runner
        self._keys = keys
        self._pieces = pieces
        self._reader = reader
        self._name = options.redacted_url
        self._waits = int(options.wait_replicas > 0)
        self._ttl_us = (options.ttl or 0) * 1_000_000

    async def append(
        self, key: SessionKey, entry: Entry, at: Position, tail_origin: str | None, snapshot: Snapshot | None
    ) -> Appended:
        upload = Upload.of(entry, at.seq + 1)
        try:
            answer = await self._pieces.run(
                scripts.APPEND,
                key,
                key.user_id.encode(),
                entry.id.encode(),
                encode_entry(entry, upload and upload.stub),
                at.generation,
                at.seq,
                _origin_argument(tail_origin),
                entry.origin,
                int(entry.bookkeeping),
                self._ttl_us,
                self._waits,
                *_snapshot_arguments(snapshot),
                *map(str.encode, entry.keys),
                uploads=[upload] if upload else (),
            )
        except StoreFull:
            replay = await self._reader.find(key, entry.id, at.generation)
            if replay is None:
                raise
            self._require_no_replicas()
            return replay
        if answer[0] == UNCHANGED:
            raise conflict_of(answer, key)
        return Appended(Position(int(answer[1]), int(answer[2])), replayed=answer[0] == REPLAYED)

    def _require_no_replicas(self) -> None:
        if self._waits:
            raise Unavailable(
                f"{self._name}: the entry is stored, but the server is out of memory, so replication is unconfirmed;"
                " safe to retry"
            )

    async def renew(self, key: SessionKey, at: Position, tail_origin: str | None) -> bool:
        place = (at.generation, at.seq, _origin_argument(tail_origin))
        answer = await self._runner.run_on_session(scripts.RENEW, key, *place)
        return bool(answer[0] == DONE)

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        upload = Upload.of(entry, at.seq)
        answer = await self._pieces.run(
            scripts.REWRITE,
            key,
            entry.id.encode(),
            entry.origin,
            upload.stub.encode() if upload else entry.payload,
            at.generation,
            at.seq,
            rewrite_id,
            last_rewrite_id,
            *_snapshot_arguments(snapshot),
            uploads=[upload] if upload else (),
            more_keys=[self._keys.pieces(key, at.seq)],
        )
        head = decode_head(answer[1], key)
        if answer[0] == UNCHANGED or head is None:
            raise Conflict(head)
        return head

    async def restore(self, head: Head, entries: Sequence[Entry], first: int, behind: str) -> bool:
        """Restore a tombstone, or entries in portions."""
        written = False
        for portion in _portions(entries) if entries else [entries]:
            stop = first + len(portion)
            if portion:
                head = replace(head, tail=replace(head.tail, seq=stop - 1), tail_origin=portion[-1].origin)
            written |= await self._restore(head, portion, first, behind)
            first, behind = stop, head.tail_origin
        return written

    async def _restore(self, head: Head, entries: Sequence[Entry], first: int, behind: str) -> bool:
        uploads = [Upload.of(entry, seq) for seq, entry in enumerate(entries, first)]
        answer = await self._pieces.run(
            scripts.RESTORE,
            head.key,
            head.key.user_id.encode(),
            self._ttl_us,
            self._waits,
            first,
            behind,
            encode_head(head),
            *(encode_entry(entry, upload and upload.stub) for entry, upload in zip(entries, uploads, strict=True)),
            uploads=[upload for upload in uploads if upload],
        )
        if answer[0] == UNCHANGED:
            raise conflict_of(answer, head.key)
        return bool(answer[0] == DONE)


def _origin_argument(origin: str | None) -> str:
    """Return what scripts take for the origin of the tail; ``None`` for any."""
    return "" if origin is None else f"={origin}"


def _snapshot_arguments(snapshot: Snapshot | None) -> Sequence[Argument]:
    return (snapshot.seq, snapshot.origin, snapshot.summary) if snapshot else ("", "", "")


def _portions(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield neighbours that one call restores."""
    start = size = 0
    for place, entry in enumerate(entries):
        size += len(entry.payload)
        if place > start and (size > PORTION_BYTES or place - start == PORTION_ENTRIES):
            yield entries[start:place]
            start, size = place, len(entry.payload)
    yield entries[start:]
