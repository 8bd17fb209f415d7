"""What is read of a session: windows of turns, put together from its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from session_history.errors import Corrupt, InvalidCursor
from session_history.log.cache import EntryRange
from session_history.log.session_log import SessionLog
from session_history.records.record import HistoryStart, MessageRef, Record, Slot, Status
from session_history.records.summary import SessionSummary
from session_history.view import assembly as view
from session_history.view.budget import Size, Spending, TokenBudget
from session_history_hooks import Head, Log, SessionKey

MARGIN = 4
"""Entries read beyond a window's turns: some entries hold no messages."""

SPENT_ON = 16
"""Turns that are read at first for a budget, or for an agent's own history: nobody knows how many they are."""

Choice = Callable[[Sequence[view.TurnView], int], Sequence[view.TurnView] | None]
"""Picks a window of the turns read so far, given how many ever began; ``None`` asks for more."""


class StoredState(NamedTuple):
    """A state as the log keeps it.

    :ivar seq: that of its entry.
    :ivar base: what the entry's author had seen.
    """

    seq: int
    base: int
    slot: Slot

    @property
    def begin(self) -> HistoryStart | None:
        """Where the agent's own history begins."""
        begin = self.slot.begin
        return begin and begin._replace(place=self._absolute(begin.place))

    @property
    def pending(self) -> MessageRef | None:
        """The message in which the agent waits for somebody."""
        return self.slot.pending and self._absolute(self.slot.pending)

    def _absolute(self, place: MessageRef) -> MessageRef:
        return place if place.seq else MessageRef(self.seq, place.message)


@dataclass(frozen=True, slots=True)
class Window:
    """Turns of a session and where its log stood when they were read.

    :ivar head: ``None`` for a session never seen.
    :ivar turns: ascending.
    :ivar behind: where the window begins, if there are older turns ahead of it.
    :ivar found: the record of the entry id that was asked for.
    :ivar kept: the state that was asked for.
    """

    head: Head | None
    summary: SessionSummary = field(default_factory=SessionSummary)
    turns: Sequence[view.TurnView] = ()
    behind: MessageRef | None = None
    found: Record | None = None
    kept: StoredState | None = None

    @property
    def earlier(self) -> str | None:
        """The cursor for what lies before the window."""
        if self.behind is None or self.head is None:
            return None
        return self.behind.cursor(self.head.tail.generation)


class Windows:
    """Reads windows of the sessions of a log."""

    def __init__(self, log: SessionLog) -> None:
        self._log = log

    async def newest(self, key: SessionKey, count: int | None) -> Window:
        """The newest ``count`` turns; without a count all of them."""
        return await self._newest(key, count, _exactly(count))

    async def before(self, key: SessionKey, cursor: str, count: int | None) -> Window:
        """The ``count`` turns just ahead of a cursor; without a count all of them.

        :raises InvalidCursor: it is none, or of an earlier life of the session.
        """
        generation, place = MessageRef.of_cursor(cursor)
        log = await self._log.provider.read(key, last=_entries(count), before=place.seq + 1)
        if log is None or log.head.deleted:
            return Window(log.head if log else None)
        if generation != log.head.tail.generation:
            raise InvalidCursor("the session was deleted since the cursor was made")
        stretch = EntryRange.of(log)
        window, _ = await self._fill(key, stretch, await self._log.summary(key, log.head), None, _exactly(count), place)
        return window

    async def for_turn(self, key: SessionKey, size: Size, turn_id: str | None, slot: str | None = None) -> Window:
        """What a model gets to see before a turn, and what this turn recorded before.

        :param size: a number of turns makes a window that serves prompt caches, see
            :func:`session_history.view.assembly.steady`.
        :param slot: the agent whose state is to be read, too. The window begins where its own history does.
        """
        if size is None:
            window = await self._newest(key, SPENT_ON if slot else None, None, turn_id, slot)
        elif isinstance(size, TokenBudget):
            window = await self._newest(key, SPENT_ON, Spending(size, turn_id).newest, turn_id, slot)
        else:
            steady = partial(view.steady, count=size, turn_id=turn_id)
            window = await self._newest(key, size + size // 2, steady, turn_id, slot)
        turns = view.for_model(window.turns, turn_id)
        pending = window.kept.pending if window.kept else None
        if pending is not None and not any(turn.holds(pending) for turn in turns):
            turns = [*await self._holding(key, pending), *turns]
        return replace(window, turns=turns)

    async def _holding(self, key: SessionKey, place: MessageRef) -> Sequence[view.TurnView]:
        """The turn that holds a message."""
        _, tail = await self._tail(key, None, None)
        while tail is not None and not tail.begins_the_log:
            if any(turn.whole and turn.holds(place) for turn in tail.turns):
                break
            tail = await self._earlier(key, tail, 2 * len(tail.entries))
        return [turn for turn in tail.turns if turn.holds(place)] if tail else []

    async def _newest(
        self,
        key: SessionKey,
        count: int | None,
        choose: Choice | None,
        entry_id: str | None = None,
        slot: str | None = None,
    ) -> Window:
        tails = self._log.tails
        log, tail = await self._tail(key, _entries(count), entry_id)
        if log is None or log.head.deleted or tail is None:
            return Window(log.head if log else None)
        summary = await self._log.summary(key, tail.head)
        kept = await self._kept(key, tail, slot, summary.slots.get(slot, 0)) if slot else None
        if kept and kept.begin:
            choose = partial(_shorter, choose, kept, kept.begin)
        # An agent is to see what others added to old turns: all that was read is looked at.
        window, filled = await self._fill(key, tail, summary, None if slot else _entries(count), choose, None)
        if filled is not tail:
            tails.keep(key, filled)
        return replace(window, found=_found(log) if log.match else None, kept=kept)

    async def _kept(self, key: SessionKey, tail: EntryRange, slot: str, seq: int) -> StoredState | None:
        """The state that stands in an entry; ``None`` for seq 0."""
        if seq == 0:
            return None
        stretch = tail
        if seq < tail.first:
            stretch = EntryRange.of(await self._log.read_again(key, tail.head, last=1, before=seq + 1))
        records = [record for each, record in stretch.entries if each == seq]
        if not records or slot not in records[0].slots:
            raise Corrupt(f"entry {seq} of {key} does not hold the state that the summary names")
        return StoredState(seq, records[0].base, records[0].slots[slot])

    async def _tail(
        self, key: SessionKey, last: int | None, entry_id: str | None
    ) -> tuple[Log | None, EntryRange | None]:
        """The newest entries of a log: those that this process knows, and what came since."""
        tails, read = self._log.tails, self._log.provider.read
        known = tails.get(key)
        if known is not None and known.reaches(last):
            log = await read(key, after=known.head.tail.seq, entry_id=entry_id)
            tail = known.followed_by(log) if log else None
            # It is not the same entry where, for example, a backup was put in place of the store.
            if tail and (tail.stands_at(known.head) or await self._log.holds(key, *known.end)):
                tail = tail.cut(last)
                tails.keep(key, tail)
                return log, tail
        log = await read(key, last=last, entry_id=entry_id)
        if log is None or log.head.deleted:
            tails.drop(key)
            return log, None
        tail = EntryRange.of(log)
        tails.keep(key, tail)
        return log, tail

    async def _fill(
        self,
        key: SessionKey,
        stretch: EntryRange,
        summary: SessionSummary,
        take: int | None,
        choose: Choice | None,
        place: MessageRef | None,
    ) -> tuple[Window, EntryRange]:
        """Look at more and more turns, and page backwards, until the window is full or the log begins.

        :param take: how many of the newest turns to look at first; ``None``: all that are here.
        :param place: only turns ahead of it.
        :returns: the window, and all that was read for it.
        """
        head = stretch.head
        while True:
            turns = stretch.turns if place is None else view.ahead_of(stretch.turns, place)
            shown = turns[-take:] if take else list(turns)
            all_of_it = stretch.begins_the_log and len(shown) == len(turns)
            window = choose(shown, summary.turns) if choose else None
            if window is not None or all_of_it:
                window = shown if window is None else window
                if stretch.last < head.tail.seq and any(turn.status is Status.OPEN for turn in window):
                    stretch = await self._later(key, stretch)
                    continue
                behind = _begin(window, place, head) if len(window) < len(turns) else None
                return Window(head, summary, window, behind), stretch
            if len(shown) < len(turns):
                take = 2 * len(shown)
            else:
                # Twice as many each time, so that looking at them again costs little.
                stretch = await self._earlier(key, stretch, 2 * len(stretch.entries) if choose else None)
                take = None

    async def _later(self, key: SessionKey, stretch: EntryRange) -> EntryRange:
        """A stretch and all that came behind it: what is left open in it may have been ended there."""
        while stretch.last < stretch.head.tail.seq:
            page = await self._log.read_again(key, stretch.head, after=stretch.last, before=stretch.head.tail.seq + 1)
            stretch = stretch.continued_by(page)
        return stretch

    async def _earlier(self, key: SessionKey, stretch: EntryRange, count: int | None) -> EntryRange:
        """Page backwards until a stretch has so many entries, or ``None``: all that there are."""
        while not stretch.begins_the_log and (count is None or len(stretch.entries) < count):
            page = self._log.provider.limits.page
            last = page if count is None else min(page, count - len(stretch.entries))
            stretch = stretch.preceded_by(
                await self._log.read_again(key, stretch.head, last=last, before=stretch.first)
            )
        return stretch


def _entries(turns: int | None) -> int | None:
    """How many entries to read for so many turns."""
    return None if turns is None else turns + MARGIN


def _exactly(count: int | None) -> Choice | None:
    return None if count is None else lambda shown, _: view.newest(shown, count)


def _shorter(
    choose: Choice | None, kept: StoredState, begin: HistoryStart, shown: Sequence[view.TurnView], begun: int
) -> Sequence[view.TurnView] | None:
    """What is chosen, or what an agent keeps, whichever is shorter."""
    windows = [view.since(shown, begin, kept.base, kept.seq), choose(shown, begun) if choose else None]
    return min((window for window in windows if window is not None), key=len, default=None)


def _begin(window: Sequence[view.TurnView], place: MessageRef | None, head: Head) -> MessageRef:
    """Where a window begins, also an empty one."""
    return window[0].place if window else place or MessageRef(head.tail.seq + 1, 0)


def _found(log: Log) -> Record:
    assert log.match is not None
    seq, entry = log.match
    return Record.decode(entry.payload, log.head.key, seq)
