"""Writes of entries and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from session_history.providers.redis import scripts
from session_history.providers.redis.answers import conflict_of
from session_history.providers.redis.codec import decode_head, encode_entry, encode_head
from session_history.providers.redis.commands import Argument
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.pieces import INLINE_BYTES, Pieces, Upload, portions
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

PORTION_BYTES = 2**20
"""The most that one script restores. Other clients wait while a script runs."""

LEAST_BYTES = 2**12
"""The bytes that count at least for an entry, since a small entry takes time, too."""


class Writer:
    """Changes sessions."""

    def __init__(self, options: RedisOptions, keys: Keys, runner: ScriptRunner, pieces: Pieces, reader: Reader) -> None:
        self._runner = runner
        self._keys = keys
        self._pieces = pieces
        self._reader = reader
        self._options = options
        self._waits = _flag(options.wait_replicas)
        self._ttl_us = b"%d" % ((options.ttl or 0) * 1_000_000)

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
                entry.origin.encode(),
                _flag(entry.bookkeeping),
                self._ttl_us,
                self._waits,
                *_snapshot_arguments(snapshot),
                *map(str.encode, entry.keys),
                upload=upload,
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
        if self._options.wait_replicas:
            raise Unavailable(
                f"{self._options.redacted_url}: the entry is stored, but the server is out of memory, so replication is"
                " unconfirmed; safe to retry"
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
            upload=upload,
            more_keys=[self._keys.pieces(key, at.seq)],
        )
        head = decode_head(answer[1], key)
        if answer[0] == UNCHANGED or head is None:
            raise Conflict(head)
        return head

    async def restore(self, head: Head, entries: Sequence[Entry], first: int, behind: str) -> bool:
        """Restore entries in portions, or a tombstone."""
        if head.deleted:
            return await self._restore_tombstone(head)
        written = False
        for portion in portions(entries, _weight, PORTION_BYTES):
            stop = first + len(portion)
            part = replace(head, tail=replace(head.tail, seq=stop - 1), tail_origin=portion[-1].origin)
            written |= await self._restore(part, portion, first, behind)
            first, behind = stop, part.tail_origin
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
            upload=next(filter(None, uploads), None),
        )
        return _was_restored(answer, head.key)

    async def _restore_tombstone(self, head: Head) -> bool:
        arguments = (head.key.user_id.encode(), self._ttl_us, self._waits, encode_head(head))
        answer = await self._runner.run_on_session(scripts.RESTORE_TOMBSTONE, head.key, *arguments)
        return _was_restored(answer, head.key)


def _was_restored(answer: Sequence[Any], key: SessionKey) -> bool:
    if answer[0] == UNCHANGED:
        raise conflict_of(answer, key)
    return bool(answer[0] == DONE)


def _flag(value: int) -> bytes:
    return b"1" if value else b"0"


def _origin_argument(origin: str | None) -> bytes:
    """Return what scripts take for the origin of the tail; ``None`` for any."""
    return b"" if origin is None else b"=" + origin.encode()


def _snapshot_arguments(snapshot: Snapshot | None) -> Sequence[Argument]:
    return (snapshot.seq, snapshot.origin.encode(), snapshot.summary) if snapshot else (b"", b"", b"")


def _weight(entry: Entry) -> int:
    """Return the bytes that count for an entry in a portion, so that at most one entry of a portion is large."""
    size = len(entry.payload)
    return max(size, LEAST_BYTES) if size <= INLINE_BYTES else PORTION_BYTES
