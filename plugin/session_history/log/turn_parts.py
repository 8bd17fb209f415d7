"""The parts of one turn, wherever in the log they stand."""

from __future__ import annotations

from bisect import insort

from session_history.errors import Corrupt
from session_history.log.cache import EntryRange, NumberedRecord, numbered
from session_history.log.session_log import SessionLog
from session_history.records.record import Author, MessageRef, Record, Status
from session_history.records.summary import NEAR, SessionSummary
from session_history.view.assembly import TurnView, assemble
from session_history_hooks import Head


class TurnParts:
    """Finds the entries of a turn without a read of all that lies between them.

    An entry of a turn stands at most :data:`~session_history.records.summary.NEAR` entries behind another one of it,
    or the summary notes it.
    """

    def __init__(self, log: SessionLog) -> None:
        self._log = log

    async def continued(self, turn: TurnView, entries: EntryRange, summary: SessionSummary) -> TurnView:
        """Return a turn of a range with what continues it behind the range.

        :param summary: that of the range's head.
        """
        first = turn.start.seq
        is_noted = any(part.first == first and part.seq > entries.last for part in summary.late)
        is_near = turn.newest_seq > entries.last - NEAR
        if not turn.whole or not (is_noted or is_near or turn.status is Status.OPEN):
            return turn
        own = [each for each in entries.entries if _belongs(each, first)]
        found = await self._gathered(first, own, entries.last, entries.head, summary)
        return assemble(found[len(own) :], [turn])[0]

    async def turn_with(self, ref: MessageRef, head: Head, summary: SessionSummary) -> list[TurnView]:
        """Return the turn that holds a message, however far back; nothing if the log has no such turn."""
        found = await self._read(head, ref.seq, ref.seq)
        for seq, record in found:
            first = record.continues.first if record.continues else seq
            turns = assemble(await self._entries(first, head, summary, None))
            return [turn for turn in turns if turn.whole and turn.contains(ref)]
        return []

    async def turn_of(self, seq: int, record: Record, head: Head, summary: SessionSummary) -> TurnView:
        """Return the turn of an entry, up to this entry.

        :raises Corrupt: there is no such turn.
        """
        first = record.continues.first if record.continues else seq
        if not 0 < first <= seq:
            raise Corrupt(f"entry {seq} of {head.key} continues entry {first}, which cannot be")
        turns = assemble(await self._entries(first, head, summary, seq))
        turn = next((turn for turn in turns if turn.whole and turn.has_entry(seq)), None)
        if turn is None:
            raise Corrupt(f"entry {seq} of {head.key} continues entry {first}, with which no turn begins")
        return turn

    async def _entries(self, first: int, head: Head, summary: SessionSummary, end: int | None) -> list[NumberedRecord]:
        """Return the entries of the turn that begins with entry ``first``, and perhaps others between them."""
        found = await self._read(head, first, first)
        if found and found[0][1].by is Author.TURN:
            return await self._gathered(first, found, first, head, summary, end=end)
        return await self._read(head, first, head.tail.seq if end is None else end)  # plain appends name no turn

    async def _read(self, head: Head, first: int, last: int) -> list[NumberedRecord]:
        """Return the entries from ``first`` to ``last``."""
        found: list[NumberedRecord] = []
        while first <= last:
            page = await self._log.read_again(head.key, head, after=first - 1, before=last + 1)
            found += numbered(page)
            first += len(page.entries)
        return found

    async def _gathered(
        self,
        first: int,
        known: list[NumberedRecord],
        read: int,
        head: Head,
        summary: SessionSummary,
        *,
        end: int | None = None,
    ) -> list[NumberedRecord]:
        """Return the entries of the turn that begins with entry ``first``.

        :param known: those up to entry ``read``.
        :param end: seq of an entry of the turn, with which the search ends; without it, it reaches to the tail.
        """
        found = list(known)
        last = head.tail.seq if end is None else end
        noted = {part.seq for part in summary.late if part.first == first and read < part.seq <= last}
        places = sorted(noted | {seq for seq, _ in found[-1:]} | ({end} if end else set()))
        unnoted = 0 if summary.knows_parts_since(read) else summary.late[0].seq
        while places:
            place = places.pop(0)
            stop = min(max(place + NEAR, unnoted), last)
            begin = max(read + 1, place)
            new = [each for each in await self._read(head, begin, stop) if _belongs(each, first)]
            found += new
            for seq, _ in new:
                insort(places, seq)
            read = max(read, stop)
        return found


def _belongs(entry: NumberedRecord, first: int) -> bool:
    """Tell whether an entry is of the turn that begins with entry ``first``."""
    seq, record = entry
    return seq == first or (record.continues is not None and record.continues.first == first)
