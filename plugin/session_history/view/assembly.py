"""Turns, put together from the entries of a log. Pure functions."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.records.record import Author, Continuation, MessageRef, Record, Revision, Status
from session_history.records.summary import UnseenRun, turn_starts
from session_history.view.effects import is_harmless


@dataclass(slots=True)
class TurnView:
    """A turn, or the part of it that the entries at hand show.

    :ivar start: the first message of the turn.
    :ivar whole: the entries at hand include the beginning of the turn.
    :ivar turn_id: the id that the caller gave the turn.
    :ivar retryable: the turn has no answer, and its id is free for another attempt.
    :ivar continuations: for each further entry its seq and the index of the message at which it begins.
    :ivar concurrent_seq: seq of the newest entry whose author did not know all entries of the turn; 0 without one.
    :ivar hidden: the indexes of the messages that a window leaves out. ``messages`` and :meth:`refs` have them.
    :ivar run: the turns that this one, without messages, stands for.
    """

    start: MessageRef
    status: Status | None
    whole: bool
    messages: list[StoredMessage] = field(default_factory=list, repr=False)
    turn_id: str | None = None
    retryable: bool = False
    continuations: list[tuple[int, int]] = field(default_factory=list)
    concurrent_seq: int = 0
    hidden: range = range(0)
    run: UnseenRun | None = None

    @classmethod
    def standing_for(cls, run: UnseenRun) -> TurnView:
        """Return a failed turn in the place of a whole run of turns that no model sees."""
        return cls(MessageRef(run.first, 0), Status.FAILED, whole=True, retryable=True, run=run)

    @property
    def message_count(self) -> int:
        return self.run.messages if self.run else len(self.messages)

    @property
    def shown(self) -> Sequence[StoredMessage]:
        """Return the messages that are not hidden."""
        if not self.hidden:
            return self.messages
        return [*self.messages[: self.hidden.start], *self.messages[self.hidden.stop :]]

    @property
    def may_have_effect(self) -> bool:
        """Tell whether a tool may have run in the turn, see :mod:`session_history.view.effects`."""
        return not all(map(is_harmless, self.messages))

    @property
    def is_final(self) -> bool:
        """Tell whether no other attempt can take the place of the turn."""
        return not self.retryable and self.status is not Status.INTERRUPTED

    @property
    def newest_seq(self) -> int:
        return self.continuations[-1][0] if self.continuations else self.start.seq

    def contains(self, ref: MessageRef) -> bool:
        """Tell whether a message belongs to this turn, provided that it exists."""
        return self.start <= ref and self.has_entry(ref.seq)

    def has_entry(self, seq: int) -> bool:
        if self.run:
            return self.run.first <= seq <= self.run.last
        return seq == self.start.seq or seq in dict(self.continuations)

    def refs(self) -> list[MessageRef]:
        """Return a reference to each message."""
        entries = [(self.start.seq, 0), *self.continuations]
        first = self.start.offset  # only a turn of plain appends may begin in the midst of an entry
        ends = [begin for _, begin in self.continuations] + [len(self.messages)]
        return [
            MessageRef(seq, first + index if seq == self.start.seq else index)
            for (seq, begin), end in zip(entries, ends, strict=True)
            for index in range(end - begin)
        ]


def assemble(
    entries: Iterable[tuple[int, Record]], before: Sequence[TurnView] = (), skipped: Sequence[UnseenRun] = ()
) -> list[TurnView]:
    """Put turns together from neighbouring entries, in the order of their first messages.

    Turns that are not whole come first, since they began ahead of the entries.

    :param before: the turns of the entries just ahead, if turns wrote all of ``entries``. They are not changed.
    :param skipped: runs that the entries leave out, ascending.
    """
    turns = list(before)
    plain = False
    begun = bool(before)
    left = list(skipped)
    for seq, record in entries:
        while left and left[0].first < seq:
            run = left.pop(0)
            turns.append(TurnView.standing_for(run))
            plain, begun = plain and not run.messages, begun or bool(run.messages)
        begun = begun or seq == 1
        if record.by is Author.TURN:
            if record.continues is not None:
                _continue(turns, seq, record, record.continues)
            elif record.messages:
                turns.append(_begin(seq, record))
            plain = plain and not record.messages
        elif record.messages:
            _add_plain(turns, seq, record, plain=plain, begun=begun)
            plain = True
        begun = begun or bool(record.messages)
    return turns + list(map(TurnView.standing_for, left))


def _begin(seq: int, record: Record) -> TurnView:
    start = MessageRef(seq, 0)
    return TurnView(start, record.status, True, list(record.messages), record.turn_id, not record.is_answered)


def _continue(turns: list[TurnView], seq: int, record: Record, continues: Continuation) -> None:
    """Add an entry to its turn, or to the part of the turn that the entries at hand show."""
    for index in reversed(range(len(turns))):
        turn = turns[index]
        if turn.start.seq == continues.first:
            break
    else:
        turn = TurnView(MessageRef(continues.first, 0), None, whole=False)
        index = bisect(turns, turn.start, key=lambda each: each.start)
        turns.insert(index, turn)
    known = continues.newest == turn.newest_seq and record.base >= turn.concurrent_seq
    turn = turns[index] = replace(
        turn,
        status=record.status,
        # If another run ended a parked turn, the turn's own id has no answer.
        retryable=not record.is_answered or turn.turn_id not in {None, record.turn_id},
        messages=[*turn.messages, *record.messages],
        continuations=[*turn.continuations, (seq, len(turn.messages))],
        concurrent_seq=turn.concurrent_seq if known else seq,
    )
    refs = turn.refs() if record.revisions else []
    for revision in record.revisions:
        if revision.ref in refs:
            at = refs.index(revision.ref)
            turn.messages[at] = _revised(turn.messages[at], revision, known=known)


def _revised(message: StoredMessage, revision: Revision, *, known: bool) -> StoredMessage:
    """Return a later version of a message.

    :param known: the author of the revision knew this version. Else two authors revised the message at the same time:
        then nothing is taken away from it, and only what it lacks is added.
    """
    old, new = message.value.get("content"), revision.message.value.get("content")
    if not isinstance(old, list) or not isinstance(new, list):
        return revision.message
    kept = old[: revision.kept] if known else old
    content = [*kept, *(block for block in new if known or not _has_block(old, block))]
    return StoredMessage(revision.message.format, {**revision.message.value, "content": content})


def _has_block(content: list[Any], block: Any) -> bool:
    """Tell whether a block is there. One version of a call is enough; two results of a call are two blocks."""
    if block in content:
        return True
    name = _type_and_id(block)
    is_result = name is not None and str(name[0]).endswith(("_output", "tool_result"))
    return name is not None and not is_result and name in map(_type_and_id, content)


def _type_and_id(block: Any) -> tuple[object, object] | None:
    """Return what identifies a block: a call and its result may share an id."""
    return (block.get("type"), block.get("id")) if isinstance(block, dict) and "id" in block else None


def _add_plain(turns: list[TurnView], seq: int, record: Record, *, plain: bool, begun: bool) -> None:
    """Add the messages of a plain append.

    :param plain: the entry ahead is a plain append, too.
    :param begun: the entries at hand hold messages ahead of these, or begin the log.
    """
    starts = set(turn_starts(record, plain=plain))
    for index, message in enumerate(record.messages):
        if index in starts:
            turns.append(TurnView(MessageRef(seq, index), None, begun or message.role in {"user", None}))
            begun = True
        elif index == 0:
            turns[-1].continuations.append((seq, len(turns[-1].messages)))
        turns[-1].messages.append(message)


def for_model(turns: Sequence[TurnView], turn_id: str | None) -> list[TurnView]:
    """Return the turns that a model gets to see.

    Left out are failed turns, and attempts at a turn that another attempt followed or that was completed in the end.
    But a turn that may have had an effect stays, see :mod:`session_history.view.effects`.

    :param turn_id: the id of the turn that is about to begin.
    """
    interrupted = Status.INTERRUPTED
    if not any(
        [turn.retryable or turn.status is interrupted or turn.turn_id == turn_id is not None for turn in turns]  # noqa: C419 - a list is faster
    ):
        return list(turns)
    kept = []
    superseded = {turn_id} | {turn.turn_id for turn in turns if turn.is_final}
    for turn in reversed(turns):
        named = turn.turn_id is not None
        if turn.is_final:
            is_shown = not named or turn.turn_id != turn_id
        else:
            given_up = turn.status is Status.FAILED or (named and turn.turn_id in superseded)
            is_shown = not given_up or turn.may_have_effect
            if is_shown:
                superseded.add(turn.turn_id)
        if is_shown:
            kept.append(turn)
    return kept[::-1]


def with_refs(turns: Iterable[TurnView]) -> list[tuple[MessageRef, StoredMessage]]:
    """Return the messages of turns that are not hidden, each with its reference."""
    found: list[tuple[MessageRef, StoredMessage]] = []
    for turn in turns:
        pairs = zip(turn.refs(), turn.messages, strict=True)
        found += [pair for index, pair in enumerate(pairs) if index not in turn.hidden] if turn.hidden else pairs
    return found


def messages_of(turns: Iterable[TurnView]) -> list[StoredMessage]:
    """Return the messages of turns that are not hidden."""
    return [message for turn in turns for message in (turn.shown if turn.hidden else turn.messages)]
