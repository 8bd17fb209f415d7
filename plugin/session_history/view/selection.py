"""Windows: which turns of a session are read or shown. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from session_history.records.messages import StoredMessage
from session_history.records.record import HistoryStart, MessageRef
from session_history.view.assembly import TurnView, for_model, with_refs

FARTHEST = 1000
"""The most turns that are looked at for a window of a few: nearly all of them are such as no model sees."""


def ahead_of(turns: Sequence[TurnView], ref: MessageRef) -> list[TurnView]:
    """Return the turns that begin before a message."""
    return [turn for turn in turns if turn.start < ref]


def newest(turns: Sequence[TurnView], count: int) -> list[TurnView] | None:
    """Return exactly the newest ``count`` turns.

    :returns: ``None`` if the turns at hand do not tell: one of the window is not whole, or none lies before it.
    """
    window = list(turns[-count:]) if count else []
    return window if len(turns) > count and all(turn.whole for turn in window) else None


def steady(
    turns: Sequence[TurnView], turn_count: int, *, count: int, turn_id: str | None = None
) -> list[TurnView] | None:
    """Return a window whose first turn seldom moves, so that prompt caches stay warm.

    It begins at a turn whose ordinal is a multiple of ``max(1, count // 2)``, and holds ``count`` to 1.5 ``count``
    turns that the model sees.

    :param turn_count: how many turns ever began, the last of them at the end of ``turns``.
    :param turn_id: see :func:`session_history.view.assembly.for_model`.
    :returns: ``None`` if there are too few turns at hand.
    """
    if count == 0:
        return []
    step = max(1, count // 2)
    visible = for_model(turns, turn_id)
    kept, ahead = 0, turn_count
    for number, turn in enumerate(reversed(turns), start=1):
        newest, ahead = ahead, ahead - (turn.run.turns if turn.run else 1)
        kept += kept < len(visible) and turn is visible[-1 - kept]
        # Of the ordinals of a turn, or of a run, one is a multiple of the step.
        if kept >= count and turn.whole and (newest - 1) // step * step >= ahead:
            return list(turns[-number:])
    if len(turns) >= max(FARTHEST, 8 * count):
        return [turn for turn in turns if turn.whole]
    return None


def since(turns: Sequence[TurnView], start: HistoryStart, base: int, own_seq: int) -> list[TurnView] | None:
    """Return the turns from the one on in which an agent's own history begins.

    :param base: seq of the newest entry that the agent's state covers. Turns that others continued since are included,
        also if they began earlier.
    :param own_seq: seq of an entry of the agent's own turn.
    :returns: ``None`` if there are too few turns at hand.
    """
    if not (turns and turns[0].whole and turns[0].start <= min(start.ref, MessageRef(base + 1, 0))):
        return None
    first = next((index for index in reversed(range(len(turns))) if turns[index].contains(start.ref)), None)
    if first is None:
        return None
    others = (index for index, turn in enumerate(turns) if turn.newest_seq > base and not turn.has_entry(own_seq))
    return list(turns[min(first, next(others, first)) :])


def own_history(turns: Sequence[TurnView], start: HistoryStart) -> list[tuple[MessageRef, StoredMessage]]:
    """Return the messages of turns without those that an agent keeps only in its summary, each with its reference.

    All messages are returned if the turns begin ahead of the agent's own history, since others wrote there.
    """
    messages = with_refs(turns)
    refs = turns[0].refs() if turns else []
    if start.ref not in refs:
        return messages
    earlier = set(refs[: refs.index(start.ref)])
    own = [(ref, message) for ref, message in messages if ref not in earlier]
    if own and own[0][0] == start.ref:  # it may be hidden
        return [*_without_blocks(start.skip, *own[0]), *own[1:]]
    return own


def _without_blocks(skip: int, ref: MessageRef, message: StoredMessage) -> list[tuple[MessageRef, StoredMessage]]:
    """Return a message without its first blocks; nothing if no block is left."""
    if not skip:
        return [(ref, message)]
    left = message.value["content"][skip:]
    return [(ref, StoredMessage(message.format, message.value | {"content": left}))] if left else []
