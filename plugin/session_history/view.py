"""What is shown of a log: pure functions over its entries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from session_history.card import beginnings
from session_history.errors import InvalidCursor
from session_history.messages import Stored
from session_history.record import Author, Record, Status

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a turn begins: the seq of an entry and the index of a message in it."""

    seq: int
    index: int

    def cursor(self, generation: int) -> str:
        return f"{generation}.{self.seq}.{self.index}"

    @staticmethod
    def of_cursor(cursor: str) -> tuple[int, Place]:
        """Generation and place. :raises InvalidCursor: not made by :meth:`cursor`."""
        match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        if match is None:
            raise InvalidCursor("not a cursor of a session")
        generation, seq, index = map(int, match.groups())
        return generation, Place(seq, index)


@dataclass(slots=True)
class Shown:
    """A turn, or what can be seen of it.

    :ivar whole: its beginning is here; else it may have begun before the stretch that was read.
    :ivar turn_id: the id that its caller gave it.
    """

    place: Place
    status: Status | None
    whole: bool
    messages: list[Stored] = field(default_factory=list, repr=False)
    turn_id: str | None = None

    @property
    def is_for_models(self) -> bool:
        """Whether a model gets to see it: a failed one only if a tool had done something by then."""
        return self.status is not Status.FAILED or self.acted

    @property
    def acted(self) -> bool:
        """Whether a tool had done something in it."""
        return any(map(_is_tool_result, self.messages))


def turns(entries: Iterable[tuple[int, Record]]) -> list[Shown]:
    """Put turns together from a stretch of the log, ascending."""
    shown: list[Shown] = []
    plain = False
    for seq, record in entries:
        if record.by is Author.TURN and record.messages:
            shown.append(Shown(Place(seq, 0), record.status, True, list(record.messages), record.turn_id))
            plain = False
        elif record.messages:
            _add_plain(shown, seq, record, plain=plain)
            plain = True
    return shown


def _add_plain(shown: list[Shown], seq: int, record: Record, *, plain: bool) -> None:
    known = bool(shown) or seq == 1
    starts = set(beginnings(record, plain=plain))
    for index, message in enumerate(record.messages):
        if index in starts:
            shown.append(Shown(Place(seq, index), None, known or message.role in {"user", None}))
            known = True
        shown[-1].messages.append(message)


def ahead_of(shown: Sequence[Shown], place: Place) -> list[Shown]:
    """The turns that begin before a place."""
    return [turn for turn in shown if turn.place < place]


def newest(shown: Sequence[Shown], count: int) -> list[Shown] | None:
    """The newest ``count`` turns, cut exactly; ``None`` if the stretch does not hold them whole.

    An empty window, too, is only known to lie behind something once a turn is in sight.
    """
    if count == 0:
        return [] if shown else None
    window = list(shown[-count:])
    return window if len(window) == count and all(turn.whole for turn in window) else None


def steady(shown: Sequence[Shown], count: int, begun: int) -> list[Shown] | None:
    """A window whose first turn moves only now and then, so that prompt caches stay warm.

    It begins at a turn whose ordinal is a multiple of ``max(1, count // 2)`` and holds ``count`` to 1.5
    ``count`` turns that are for the model.

    :param begun: how many turns ever began, the last of them at the end of ``shown``.
    :returns: ``None`` if the stretch is too short.
    """
    if count == 0:
        return []
    step = max(1, count // 2)
    kept = 0
    for behind, turn in enumerate(reversed(shown), start=1):
        kept += turn.is_for_models
        if kept >= count and (begun - behind) % step == 0 and turn.whole:
            return list(shown[-behind:])
    return None


def for_model(shown: Sequence[Shown], turn_id: str | None) -> list[Shown]:
    """The turns that a model gets to see.

    A turn that was tried again under its id is left out, unless a tool had done something in it.

    :param turn_id: the id of the turn that is about to begin.
    """
    kept = []
    tried_again = {turn_id}
    for turn in reversed(shown):
        repeated = turn.turn_id is not None and turn.turn_id in tried_again
        if turn.is_for_models and (turn.acted or not repeated):
            kept.append(turn)
        tried_again.add(turn.turn_id)
    return kept[::-1]


def flat(shown: Iterable[Shown]) -> list[Stored]:
    return [message for turn in shown for message in turn.messages]


def _is_tool_result(message: Stored) -> bool:
    kinds = [message.value.get("type"), *(_kind(part) for part in _parts(message))]
    return message.role == "tool" or any(isinstance(kind, str) and _names_result(kind) for kind in kinds)


def _names_result(kind: str) -> bool:
    """``function_call_output`` and the like (OpenAI, AgentScope Runtime), ``tool_result`` (Anthropic, AgentScope)."""
    return kind.endswith(("_output", "tool_result"))


def _parts(message: Stored) -> list[Any]:
    content = message.value.get("content")
    return content if isinstance(content, list) else []


def _kind(part: Any) -> object:
    return part.get("type") if isinstance(part, dict) else None
