"""What is shown of a log: pure functions over its entries."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.records.record import Author, Continuation, HistoryStart, MessageRef, Record, Revision, Status
from session_history.records.summary import beginnings


@dataclass(slots=True)
class TurnView:
    """A turn, or what can be seen of it.

    :ivar whole: its beginning is here; else it may have begun before the stretch that was read.
    :ivar turn_id: the id that its caller gave it.
    :ivar attempt: it left its id free for another attempt.
    :ivar parts: the seqs of its further entries, and the index of the message at which each begins.
    :ivar contested: seq of its newest entry whose author did not know all of it; 0 if there is none.
    """

    place: MessageRef
    status: Status | None
    whole: bool
    messages: list[StoredMessage] = field(default_factory=list, repr=False)
    turn_id: str | None = None
    attempt: bool = False
    parts: list[tuple[int, int]] = field(default_factory=list)
    contested: int = 0

    @property
    def acted(self) -> bool:
        """Whether a tool had done something in it."""
        return any(map(_is_tool_result, self.messages))

    @property
    def newest(self) -> int:
        """Seq of its newest entry."""
        return self.parts[-1][0] if self.parts else self.place.seq

    def holds(self, place: MessageRef) -> bool:
        """Whether a message that stands there is one of its own, if there is such a message."""
        return self.place <= place and self.has_entry(place.seq)

    def has_entry(self, seq: int) -> bool:
        return seq == self.place.seq or seq in dict(self.parts)

    def places(self) -> list[MessageRef]:
        """Where each of its messages stands."""
        entries = [(self.place.seq, 0), *self.parts]
        first = self.place.message  # only a turn of plain appends may begin in the midst of an entry
        ends = [begin for _, begin in self.parts] + [len(self.messages)]
        return [
            MessageRef(seq, first + index if seq == self.place.seq else index)
            for (seq, begin), end in zip(entries, ends, strict=True)
            for index in range(end - begin)
        ]


def turns(entries: Iterable[tuple[int, Record]], before: Sequence[TurnView] = ()) -> list[TurnView]:
    """Put turns together from a stretch of the log, in the order of their places.

    Those that are not whole come first: they began ahead of it, whatever came between their entries.

    :param before: those of the stretch ahead of it, if what follows was written by turns. They are not changed.
    """
    shown = list(before)
    plain = False
    begun = bool(before)
    for seq, record in entries:
        begun = begun or seq == 1
        if record.by is Author.TURN:
            if record.part is not None:
                _go_on(shown, seq, record, record.part)
            elif record.messages:
                shown.append(_begun(MessageRef(seq, 0), record))
            plain = plain and not record.messages
        elif record.messages:
            _add_plain(shown, seq, record, plain=plain, begun=begun)
            plain = True
        begun = begun or bool(record.messages)
    return shown


def _begun(place: MessageRef, record: Record, *, whole: bool = True) -> TurnView:
    return TurnView(place, record.status, whole, list(record.messages), record.turn_id, not record.keeps_its_id)


def _go_on(shown: list[TurnView], seq: int, record: Record, part: Continuation) -> None:
    """Add to a turn, or to what can be seen of it."""
    for index in reversed(range(len(shown))):
        turn = shown[index]
        if turn.place.seq == part.first:
            break
    else:
        turn = TurnView(MessageRef(part.first, 0), None, whole=False)
        index = bisect(shown, turn.place, key=lambda each: each.place)
        shown.insert(index, turn)
    known = part.newest == turn.newest and record.base >= turn.contested
    turn = shown[index] = replace(
        turn,
        status=record.status,
        attempt=not record.keeps_its_id,
        messages=[*turn.messages, *record.messages],
        parts=[*turn.parts, (seq, len(turn.messages))],
        contested=turn.contested if known else seq,
    )
    places = turn.places() if record.revisions else []
    for revision in record.revisions:
        if revision.place in places:
            at = places.index(revision.place)
            turn.messages[at] = _revised(turn.messages[at], revision, known=known)


def _revised(message: StoredMessage, revision: Revision, *, known: bool) -> StoredMessage:
    """A later version of a message.

    :param known: its author knew the one that is here. Else somebody else revised it at the same time: then nothing is
        taken away from it, and what it does not have is added.
    """
    old, new = message.value.get("content"), revision.message.value.get("content")
    if not isinstance(old, list) or not isinstance(new, list):
        return revision.message
    kept = old[: revision.kept] if known else old
    content = [*kept, *(block for block in new if known or not _has(old, block))]
    return StoredMessage(revision.message.format, {**revision.message.value, "content": content})


def _has(content: list[Any], block: Any) -> bool:
    """Whether a block is there. Of a call one version is enough; two results of it are two."""
    if block in content:
        return True
    name = _name(block)
    return name is not None and not _names_result(str(name[0])) and name in map(_name, content)


def _name(block: Any) -> tuple[object, object] | None:
    """Type and id of a block: a call and its result may share an id."""
    return (block.get("type"), block.get("id")) if isinstance(block, dict) and "id" in block else None


def _add_plain(shown: list[TurnView], seq: int, record: Record, *, plain: bool, begun: bool) -> None:
    """:param begun: there are messages ahead of these in the stretch, or the stretch begins the log."""
    starts = set(beginnings(record, plain=plain))
    for index, message in enumerate(record.messages):
        if index in starts:
            shown.append(TurnView(MessageRef(seq, index), None, begun or message.role in {"user", None}))
            begun = True
        elif index == 0:
            shown[-1].parts.append((seq, len(shown[-1].messages)))
        shown[-1].messages.append(message)


def ahead_of(shown: Sequence[TurnView], place: MessageRef) -> list[TurnView]:
    """The turns that begin before a place."""
    return [turn for turn in shown if turn.place < place]


def newest(shown: Sequence[TurnView], count: int) -> list[TurnView] | None:
    """The newest ``count`` turns, cut exactly.

    :returns: ``None`` if the stretch does not hold them whole, or does not tell whether something lies before them.
    """
    window = list(shown[-count:]) if count else []
    return window if len(shown) > count and all(turn.whole for turn in window) else None


def since(shown: Sequence[TurnView], begin: HistoryStart, base: int, own: int) -> list[TurnView] | None:
    """The turns from the one on in which an agent's own history begins.

    :param base: what its author had seen of the log. What others wrote since is shown, too, also ahead of it.
    :param own: seq of an entry of the author's own turn.
    :returns: ``None`` if the stretch is too short.
    """
    if not (shown and shown[0].whole and shown[0].place <= min(begin.place, MessageRef(base + 1, 0))):
        return None
    ends = range(len(shown), 0, -1)
    kept = next((end - 1 for end in ends if shown[end - 1].holds(begin.place)), None)
    if kept is None:
        return None
    others = (index for index, turn in enumerate(shown) if turn.newest > base and not turn.has_entry(own))
    return list(shown[min(kept, next(others, kept)) :])


def behind(shown: Sequence[TurnView], begin: HistoryStart) -> list[tuple[MessageRef, StoredMessage]]:
    """The messages of turns, each with its place, without what an agent keeps in its summary only.

    If others wrote ahead of where its history begins, all of it is there.
    """
    said = placed(shown)
    places = shown[0].places() if shown else []
    if begin.place not in places:
        return said
    first, rest = said[places.index(begin.place)], said[places.index(begin.place) + 1 :]
    return [*_without(begin.skip, *first), *rest]


def _without(skip: int, place: MessageRef, message: StoredMessage) -> list[tuple[MessageRef, StoredMessage]]:
    """A message without its first blocks; nothing if none are left."""
    if not skip:
        return [(place, message)]
    left = message.value["content"][skip:]
    return [(place, StoredMessage(message.format, message.value | {"content": left}))] if left else []


def steady(shown: Sequence[TurnView], begun: int, *, count: int, turn_id: str | None = None) -> list[TurnView] | None:
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


def for_model(shown: Sequence[TurnView], turn_id: str | None) -> list[TurnView]:
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


def placed(shown: Iterable[TurnView]) -> list[tuple[MessageRef, StoredMessage]]:
    """The messages of turns, each with its place."""
    return [each for turn in shown for each in zip(turn.places(), turn.messages, strict=True)]


def flat(shown: Iterable[TurnView]) -> list[StoredMessage]:
    return [message for turn in shown for message in turn.messages]


def _is_tool_result(message: StoredMessage) -> bool:
    kinds = [message.value.get("type"), *(_kind(part) for part in _parts(message))]
    return message.role == "tool" or any(isinstance(kind, str) and _names_result(kind) for kind in kinds)


def _names_result(kind: str) -> bool:
    """``function_call_output`` and the like (OpenAI, AgentScope Runtime), ``tool_result`` (Anthropic, AgentScope)."""
    return kind.endswith(("_output", "tool_result"))


def _parts(message: StoredMessage) -> list[Any]:
    content = message.value.get("content")
    return content if isinstance(content, list) else []


def _kind(part: Any) -> object:
    return part.get("type") if isinstance(part, dict) else None
