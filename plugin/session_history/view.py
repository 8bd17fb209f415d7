"""What is shown of a log: pure functions over its entries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from session_history.card import beginnings
from session_history.errors import InvalidCursor
from session_history.messages import Stored
from session_history.record import Author, Record, Status

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")


class Place(NamedTuple):
    """Where a turn begins: the seq of an entry and the index of a message in it."""

    seq: int
    message: int

    def cursor(self, generation: int) -> str:
        return f"{generation}.{self.seq}.{self.message}"

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
    :ivar attempt: it left its id free for another attempt.
    """

    place: Place
    status: Status | None
    whole: bool
    messages: list[Stored] = field(default_factory=list, repr=False)
    turn_id: str | None = None
    attempt: bool = False

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
            shown.append(
                Shown(
                    Place(seq, 0), record.status, True, list(record.messages), record.turn_id, not record.keeps_its_id
                )
            )
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
    """The newest ``count`` turns, cut exactly.

    :returns: ``None`` if the stretch does not hold them whole, or does not tell whether something lies before them.
    """
    window = list(shown[-count:]) if count else []
    return window if len(shown) > count and all(turn.whole for turn in window) else None


def steady(shown: Sequence[Shown], begun: int, *, count: int, turn_id: str | None = None) -> list[Shown] | None:
    """A window whose first turn moves only now and then, so that prompt caches stay warm.

    It begins at a turn whose ordinal is a multiple of ``max(1, count // 2)`` and holds ``count`` to 1.5
    ``count`` turns that are for the model.

    :param begun: how many turns ever began, the last of them at the end of ``shown``.
    :param turn_id: see :func:`for_model`.
    :returns: ``None`` if the stretch is too short.
    """
    if count == 0:
        return []
    step = max(1, count // 2)
    visible = for_model(shown, turn_id)
    kept = 0
    for behind, turn in enumerate(reversed(shown), start=1):
        kept += kept < len(visible) and turn is visible[-1 - kept]
        if kept >= count and (begun - behind) % step == 0 and turn.whole:
            return list(shown[-behind:])
    return None


def for_model(shown: Sequence[Shown], turn_id: str | None) -> list[Shown]:
    """The turns that a model gets to see.

    Left out are failed turns, and attempts at a turn that another attempt followed or that was answered in the end,
    unless a tool had done something in them.

    :param turn_id: the id of the turn that is about to begin.
    """
    if not any([turn.attempt or turn.turn_id == turn_id is not None for turn in shown]):  # noqa: C419 - a list is faster
        return list(shown)
    kept = []
    superseded = {turn_id} | {turn.turn_id for turn in shown if not turn.attempt}
    for turn in reversed(shown):
        named = turn.turn_id is not None
        if turn.attempt:
            given_up = turn.status is Status.FAILED or (named and turn.turn_id in superseded)
            is_shown = not given_up or turn.acted
            superseded.add(turn.turn_id)
        else:
            is_shown = not named or turn.turn_id != turn_id
        if is_shown:
            kept.append(turn)
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
