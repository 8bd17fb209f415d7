"""Reading of a session: windows and pages of turns, put together from its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from session_history.errors import Corrupt, InvalidCursor
from session_history.log.cache import EntryRange
from session_history.log.cursor import Cursor
from session_history.log.recorded import RecordedTurn, StoredState
from session_history.log.session_log import SessionLog
from session_history.log.turn_parts import TurnParts
from session_history.records.messages import StoredMessage
from session_history.records.record import HistoryStart, MessageRef, Record, Status
from session_history.records.summary import NEAR, SessionSummary
from session_history.records.values import check_count
from session_history.view import selection
from session_history.view.assembly import TurnView, for_model
from session_history.view.budget import BudgetedWindow, TokenBudget
from session_history_hooks import Head, Log, SessionKey

MARGIN = 4
"""Entries read beyond a window's turns, since some entries hold no messages."""

FIRST_TURNS = 16
"""Turns that are read at first where their number is not known: for a budget, or for an agent's own history."""

WindowSize = int | TokenBudget | None
"""The size of a window: a number of turns, a number of tokens, or ``None`` for the whole session."""

Chooser = Callable[[Sequence[TurnView], int], Sequence[TurnView] | None]
"""Picks a window from the turns at hand, given how many ever began; ``None`` asks for more turns."""


def window_size(last_turns: int | None, token_budget: TokenBudget | None) -> WindowSize:
    """Return the size that was given.

    :raises ValueError: two were given, or ``last_turns`` is not a number of turns.
    :raises TypeError: ``token_budget`` is not a budget.
    """
    check_count("last_turns", last_turns)
    if token_budget is None:
        return last_turns
    if not isinstance(token_budget, TokenBudget):
        raise TypeError(f"token_budget must be a TokenBudget, not {type(token_budget).__name__}")
    if last_turns is not None:
        raise ValueError("give last_turns or token_budget, not both")
    return token_budget


@dataclass(frozen=True, slots=True)
class TurnWindow:
    """Turns of a session, and where its log stood when they were read.

    :ivar head: ``None`` for a session never seen.
    :ivar turns: ascending.
    :ivar start: the message at which the window begins, if older turns lie before it.
    :ivar recorded: the turn of the id that was asked for, if it was answered before.
    :ivar state: the state that was asked for.
    :ivar answer_id: the id of the entry that answers the turn, if it runs again.
    :ivar read: all turns that were read for the window, if it does not hold all of the session's.
    :ivar chosen: those that were chosen of them, failed ones included.
    :ivar turn_id: see :func:`session_history.view.assembly.for_model`.
    """

    head: Head | None
    summary: SessionSummary = field(default_factory=SessionSummary)
    turns: Sequence[TurnView] = ()
    start: MessageRef | None = None
    recorded: RecordedTurn | None = None
    state: StoredState | None = None
    answer_id: str | None = None
    read: Sequence[TurnView] = ()
    chosen: Sequence[TurnView] = ()
    turn_id: str | None = None

    def turns_read(self) -> Sequence[TurnView]:
        """Return all turns at hand that the model may see, also those ahead of the window."""
        return for_model(self.read, self.turn_id)

    @property
    def omitted(self) -> int:
        """Return how many messages of the session the window leaves out. Failed turns among its own do not count."""
        if not self.read:
            return 0
        within = [turn for turn in self.read if self.chosen and turn.start >= self.chosen[0].start]
        hidden = sum(len(turn.hidden) for turn in self.chosen)
        return max(0, self.summary.messages - sum(turn.message_count for turn in within) + hidden)

    @property
    def tail_seq(self) -> int:
        return self.head.tail.seq if self.head else 0

    @property
    def earlier(self) -> str | None:
        """Return the cursor for the turns before the window."""
        if self.start is None or self.head is None:
            return None
        return Cursor.of(self.start, self.head).encode()


class Reader:
    """Reads windows of the sessions of a log."""

    def __init__(self, log: SessionLog) -> None:
        self._log = log
        self._parts = TurnParts(log)

    async def newest(self, key: SessionKey, count: int | None) -> TurnWindow:
        """Read the newest ``count`` turns; ``None``: all of them."""
        return await self._newest(key, count, _exactly(count), for_turn=False)

    async def before(self, key: SessionKey, cursor: str, count: int | None) -> TurnWindow:
        """Read the ``count`` turns just ahead of a cursor; ``None``: all of them.

        :raises InvalidCursor: not a cursor, or the session is not the one any more in which it was made.
        """
        end, generation, tail, origin = Cursor.decode(cursor)
        # With the entries behind it among which turns of the page may go on, see TurnParts.
        last = None if count is None else count + MARGIN + NEAR
        log = await self._log.provider.read(key, last=last, before=end.seq + 1 + NEAR)
        if log is None or log.head.deleted:
            return TurnWindow(log.head if log else None)
        if generation != log.head.tail.generation:
            raise InvalidCursor("the session was deleted since the cursor was made")
        if not await self._log.continues(key, log.head, tail, origin):
            raise InvalidCursor("the store lost this session since the cursor was made; read the session again")
        summary = await self._log.summary(key, log.head)
        window, _ = await self._fill(key, EntryRange.of(log), summary, _exactly(count), end=end)
        return window

    async def for_turn(
        self,
        key: SessionKey,
        size: WindowSize,
        turn_id: str | None,
        slot: str | None = None,
        *,
        input: Sequence[StoredMessage] = (),  # noqa: A002 - the field's word
        rerun: bool = False,
    ) -> TurnWindow:
        """Read what a model gets to see before a turn, and what a turn of this id recorded before.

        :param size: a number of turns makes a window that suits prompt caches, see
            :func:`session_history.view.selection.steady`.
        :param slot: the agent whose state is read, too. The window begins where the agent's own history does.
        :param input: what the model gets behind the history. It counts to a budget.
        :param rerun: a turn of this id that was interrupted is to run again.
        """
        if size is None:
            window = await self._newest(key, FIRST_TURNS if slot else None, None, turn_id, slot)
        elif isinstance(size, TokenBudget):
            window = await self._newest(
                key, FIRST_TURNS, BudgetedWindow(size, turn_id, input=input).newest, turn_id, slot
            )
        else:
            steady = partial(selection.steady, count=size, turn_id=turn_id)
            window = await self._newest(key, size + size // 2, steady, turn_id, slot)
        if rerun and window.recorded and window.recorded.status is Status.INTERRUPTED:
            window = replace(window, recorded=None, answer_id=window.recorded.rerun_id)
        turns = for_model(window.turns, turn_id)
        pending = window.state.pending if window.state else None
        if pending is not None and window.head and not any(turn.contains(pending) for turn in turns):
            turns = [*await self._parts.turn_with(pending, window.head, window.summary), *turns]
        return replace(window, turns=turns, turn_id=turn_id)

    async def recorded_turn(self, key: SessionKey, head: Head, seq: int, record: Record) -> RecordedTurn:
        """Return the turn that an entry answers.

        :param record: that of the entry at ``seq``.
        """
        if record.continues is None:
            messages = {MessageRef(0, index): message for index, message in enumerate(record.messages)}
            return RecordedTurn.of(record, messages, key)
        turn = await self._parts.turn_of(seq, record, head, await self._log.summary(key, head))
        messages = dict(zip(turn.refs(), turn.messages, strict=True))
        resolved = replace(
            record,
            inputs=tuple(ref.resolved(seq) for ref in record.inputs),
            answer=tuple(ref.resolved(seq) for ref in record.answer),
        )
        return RecordedTurn.of(resolved, messages, key)

    async def _newest(
        self,
        key: SessionKey,
        count: int | None,
        choose: Chooser | None,
        entry_id: str | None = None,
        slot: str | None = None,
        *,
        for_turn: bool = True,
    ) -> TurnWindow:
        cache = self._log.cache
        log, tail = await self._tail(key, _entry_count(count), entry_id)
        if log is None or log.head.deleted or tail is None:
            return TurnWindow(log.head if log else None)
        if tail.summary is None:
            tail = replace(tail, summary=await self._log.summary(key, tail.head))
        summary = tail.summary
        assert summary is not None
        runs = summary.long_runs if for_turn and summary.unseen else ()
        seen = tail.without(runs) if runs else tail
        state = await self._state(key, tail, slot, summary.slots.get(slot, 0)) if slot else None
        if state and state.start:
            choose = partial(_shorter, choose, state, state.start)
        # An agent sees what others added to old turns, so all that was read is looked at.
        window, filled = await self._fill(key, seen, summary, choose, take=None if slot else _entry_count(count))
        cache.keep(key, tail if filled.skipped else replace(filled, unseen=()) if runs else filled)
        recorded = await self._recorded(key, log) if log.match else None
        return replace(window, recorded=recorded, state=state) if recorded or state else window

    async def _recorded(self, key: SessionKey, log: Log) -> RecordedTurn:
        """Return the newest answer under the id that was asked for: an interrupted turn may have run again."""
        assert log.match is not None
        seq, entry = log.match
        while True:
            recorded = await self.recorded_turn(key, log.head, seq, Record.decode(entry.payload, key, seq))
            rerun_id = f"rerun {entry.origin}"
            again = await self._log.find(key, rerun_id) if recorded.status is Status.INTERRUPTED else None
            if again is None:
                return replace(recorded, rerun_id=rerun_id)
            _, seq, entry = again

    async def _state(self, key: SessionKey, tail: EntryRange, slot: str, seq: int) -> StoredState | None:
        """Return the state that an entry holds; ``None`` for seq 0."""
        if seq == 0:
            return None
        entries = tail
        if seq < tail.first:
            entries = EntryRange.of(await self._log.read_again(key, tail.head, last=1, before=seq + 1))
        records = [record for each, record in entries.entries if each == seq]
        if not records or slot not in records[0].slots:
            raise Corrupt(f"entry {seq} of {key} does not hold the state that the summary names")
        return StoredState.of(seq, records[0].base, records[0].slots[slot])

    async def _tail(
        self, key: SessionKey, last: int | None, entry_id: str | None
    ) -> tuple[Log | None, EntryRange | None]:
        """Read the newest entries of a log: those that the cache has, and what came since."""
        cache, read = self._log.cache, self._log.provider.read
        cached = cache.get(key)
        if cached is not None and cached.has(last):
            log = await read(key, after=cached.head.tail.seq, entry_id=entry_id)
            tail = cached.followed_by(log) if log else None
            # After the restore of a backup, for example, it may be another entry.
            if log and tail and (not log.entries or await self._log.holds(key, *cached.end)):
                return log, tail.trimmed(last)
        log = await read(key, last=last, entry_id=entry_id)
        if log is None or log.head.deleted:
            cache.drop(key)
            return log, None
        return log, EntryRange.of(log)

    async def _fill(
        self,
        key: SessionKey,
        entries: EntryRange,
        summary: SessionSummary,
        choose: Chooser | None,
        *,
        take: int | None = None,
        end: MessageRef | None = None,
    ) -> tuple[TurnWindow, EntryRange]:
        """Look at more and more turns, and page backwards, until the window is full or the log begins.

        :param take: how many of the newest turns to look at first; ``None``: all at hand.
        :param end: only turns ahead of this message.
        :returns: the window, and all entries that were read for it.
        """
        head = entries.head
        while True:
            turns = entries.turns if end is None else selection.ahead_of(entries.turns, end)
            seen = turns[-take:] if take else list(turns)
            is_all = entries.begins_log and len(seen) == len(turns)
            window = choose(seen, summary.turns) if choose else None
            if window is not None or is_all:
                window = seen if window is None else window
                start = _start(window, end, head) if len(window) < len(turns) else None
                if entries.last < head.tail.seq:
                    window = [await self._parts.continued(turn, entries, summary) for turn in window]
                read = () if is_all and window is seen else seen
                return TurnWindow(head, summary, window, start, read=read, chosen=window), entries
            if len(seen) < len(turns):
                take = 2 * len(seen)
            else:
                # Twice as many each time, so that looking at them again costs little.
                wanted = max(2 * len(entries.entries), FIRST_TURNS)
                entries = await self._earlier(key, entries, wanted if choose else None)
                take = None

    async def _earlier(self, key: SessionKey, entries: EntryRange, count: int | None) -> EntryRange:
        """Page backwards until there are ``count`` entries; ``None``: all that the log has."""
        while not entries.begins_log and (count is None or len(entries.entries) < count):
            most = self._log.provider.limits.page
            # Without a number of entries the provider returns as many as its page can hold.
            last = None if count is None else min(most, count - len(entries.entries))
            page = await self._log.read_again(key, entries.head, last=last, before=entries.first)
            entries = entries.preceded_by(page)
        return entries


def _entry_count(turns: int | None) -> int | None:
    """Return how many entries to read for so many turns."""
    return None if turns is None else turns + MARGIN


def _exactly(count: int | None) -> Chooser | None:
    return None if count is None else lambda turns, _: selection.newest(turns, count)


def _shorter(
    choose: Chooser | None, state: StoredState, start: HistoryStart, turns: Sequence[TurnView], turn_count: int
) -> Sequence[TurnView] | None:
    """Choose the shorter one of a window and an agent's own history."""
    windows = [
        selection.since(turns, start, state.base, state.seq),
        choose(turns, turn_count) if choose else None,
    ]
    return min((window for window in windows if window is not None), key=len, default=None)


def _start(window: Sequence[TurnView], end: MessageRef | None, head: Head) -> MessageRef:
    """Return where a window begins, also an empty one."""
    return window[0].start if window else end or MessageRef(head.tail.seq + 1, 0)
