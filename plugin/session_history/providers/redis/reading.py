"""Reads of sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from session_history.providers.redis.codec import Stub, decode_entries, decode_head
from session_history.providers.redis.list_range import PAGE, ListRange
from session_history.providers.redis.pieces import Pieces
from session_history.providers.redis.runner import ScriptRunner
from session_history_hooks import Appended, Corrupt, Entry, Head, Log, Position, SessionKey, select_seqs
from session_history_hooks.stored import checked_log

PAGE_BYTES = 64 * 2**20
"""The most bytes of payload that a read without ``last`` returns."""


class Reader:
    """Reads logs. An entry in pieces takes more round trips than the one for its log."""

    def __init__(self, runner: ScriptRunner, pieces: Pieces) -> None:
        self._runner = runner
        self._pieces = pieces

    async def read(
        self, key: SessionKey, *, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        lost: Mapping[int, Stub] = {}
        while True:
            log, stubs = await self._read(key, last, before, after, entry_id)
            payloads = await self._pieces.fetch(key, stubs) if stubs else {}
            if log is None or payloads is not None:
                return _completed(log, payloads) if log and payloads else log
            if stubs == lost:
                raise Corrupt(f"{key} lacks pieces of an entry")
            lost = stubs  # A delete or a rewrite may have removed the pieces since the log was read.

    async def find(self, key: SessionKey, entry_id: str, generation: int) -> Appended | None:
        """Return the position of an entry, as the answer to a repeated append."""
        answer, _ = await self._runner.read(key, None, entry_id)
        head = decode_head(answer[1], key)
        if head is None or head.tail.generation != generation or not answer[3:]:
            return None
        return Appended(Position(generation, int(answer[3])), replayed=True)

    async def _read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> tuple[Log | None, dict[int, Stub]]:
        """Return a log, and by seq the stubs of its entries whose payload is still to come."""
        fetched = ListRange.covering(last=last, before=before, after=after)
        answer, raws = await self._runner.read(key, fetched, entry_id)
        head = decode_head(answer[1], key)
        if head is None:
            return None, {}
        tail = head.tail.seq
        if before is not None and before > tail + 1:
            # The range was too short. A reader names a seq beyond the tail only if the session was re-created.
            return await self._read(key, last, None, after, entry_id)
        seqs = select_seqs(tail, PAGE, last=last, before=before, after=after)
        entries, stubs = _entries_of(raws, fetched, seqs, head)
        if stubs and last is None:
            page = _page(entries, stubs, seqs, oldest_first=after is not None)
            entries = entries[page.start - seqs.start : page.stop - seqs.start]
            seqs, stubs = page, {seq: stub for seq, stub in stubs.items() if seq in page}
        match = None
        if answer[3:]:
            seq = int(answer[3])
            [entry], stub = decode_entries(answer[4:], seq, key)
            if entry_id not in (entry.id, *entry.keys):
                raise Corrupt(f"{key} has an index of its entries that names the wrong one")
            match, stubs = (seq, entry), stubs | stub
        return checked_log(Log(head, seqs.start if entries else tail + 1, tuple(entries), match)), stubs


def _entries_of(
    raws: Sequence[bytes], fetched: ListRange | None, seqs: range, head: Head
) -> tuple[list[Entry], dict[int, Stub]]:
    """Return the entries ``seqs``, and by seq the stubs of those in pieces.

    :param raws: the elements of the range ``fetched``.
    :raises Corrupt: an entry is missing or unreadable.
    """
    if not seqs:
        return [], {}
    part = fetched.slice_of(seqs, head.tail.seq, len(raws)) if fetched else None
    if part is None:
        raise Corrupt(f"{head.key} lacks some of its entries {seqs[0]} to {seqs[-1]}")
    return decode_entries(raws[part], seqs.start, head.key)


def _page(entries: Sequence[Entry], stubs: Mapping[int, Stub], seqs: range, *, oldest_first: bool) -> range:
    """Return the seqs of the entries for which a page has room, but at least one."""
    sizes = [stubs[seq].size if seq in stubs else len(each.payload) for seq, each in zip(seqs, entries, strict=True)]
    totals = accumulate(sizes if oldest_first else reversed(sizes))
    count = max(1, sum(total <= PAGE_BYTES for total in totals))
    return seqs[:count] if oldest_first else seqs[-count:]


def _completed(log: Log, payloads: Mapping[int, bytes]) -> Log:
    """Return a log with these payloads, by seq."""

    def complete(seq: int, entry: Entry) -> Entry:
        return replace(entry, payload=payloads[seq]) if seq in payloads else entry

    entries = tuple(complete(seq, each) for seq, each in enumerate(log.entries, log.first))
    return replace(log, entries=entries, match=(log.match[0], complete(*log.match)) if log.match else None)
