"""The logs of one session, and what a read of them shows: written once more, without the code of the library."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from histories.history import FOREVER, SILENT, Attempt, EntryFacts, History, Operation, StoredLog


@dataclass
class Shown:
    """A turn as a read shows it.

    :ivar first: seq of its first entry.
    """

    first: int
    turn_id: str | None
    status: str | None
    texts: list[str] = field(default_factory=list)
    free: bool = False

    @property
    def is_final(self) -> bool:
        """Tell whether no other attempt can take the place of the turn."""
        return not self.free and self.status != "interrupted"


@dataclass
class Placed:
    """An entry at its place in a log, with the time of its append."""

    entry: EntryFacts
    invoked: int
    returned: int


@dataclass
class Life:
    """A generation of a session.

    :ivar entries: those that are known to be there, by seq.
    :ivar doubtful: appends of unknown outcome, by seq.
    """

    entries: dict[int, Placed] = field(default_factory=dict)
    doubtful: defaultdict[int, list[Placed]] = field(default_factory=lambda: defaultdict(list))

    @property
    def tail(self) -> int:
        return max(self.entries, default=0)

    def is_known(self, seq: int) -> bool:
        """Tell whether all entries up to one are known."""
        return all(each in self.entries for each in range(1, seq + 1))

    def upto(self, seq: int) -> list[tuple[int, EntryFacts]]:
        return [(each, self.entries[each].entry) for each in range(1, seq + 1) if each in self.entries]

    def title(self, seq: int) -> str | None:
        titles = [entry.title for _, entry in self.upto(seq) if entry.title != SILENT]
        return titles[-1] if titles else None

    def turns(self, seq: int) -> list[Shown]:
        """Return the turns of the log up to an entry, each at the place of its first entry."""
        turns: dict[int, Shown] = {}
        for at, entry in self.upto(seq):
            if entry.author == "turn" and entry.first is not None:
                turn = turns.setdefault(entry.first, Shown(entry.first, None, None))
                turn.texts += entry.texts
                turn.status = entry.status
                turn.free = not entry.answered or turn.turn_id not in {None, entry.turn_id}
            elif entry.texts:
                by_turn = entry.author == "turn"
                status = entry.status if by_turn else None
                free = by_turn and not entry.answered
                turns[at] = Shown(at, entry.turn_id, status, list(entry.texts), free)
        return list(turns.values())


def for_model(turns: Sequence[Shown], turn_id: str | None) -> list[Shown]:
    """Return the turns that a model sees: no failed one, and no attempt that another one replaced."""
    replaced = {turn_id} | {turn.turn_id for turn in turns if turn.is_final}
    kept = []
    for turn in reversed(turns):
        is_own = turn.turn_id == turn_id is not None
        if turn.is_final:
            kept += [] if is_own else [turn]
        elif turn.status != "failed" and (turn.turn_id is None or turn.turn_id not in replaced):
            kept.append(turn)
            replaced.add(turn.turn_id)
    return kept[::-1]


def texts(turns: Iterable[Shown]) -> list[str]:
    return [text for turn in turns for text in turn.texts]


def is_history(life: Life, seq: int, shown: list[str], turn_id: str | None, last_turns: int | None) -> bool:
    """Tell whether a turn that read the log up to an entry gets to see these messages."""
    turns = life.turns(seq)
    if last_turns is None:
        return texts(for_model(turns, turn_id)) == shown
    for first in reversed(range(len(turns) + 1)):
        window = for_model(turns[first:], turn_id)
        if texts(window) == shown and (len(window) >= last_turns or not first):
            return True
        if len(window) > 2 * last_turns:
            return False
    return False


class Lives:
    """The generations of one session, from what its authors noted and what was read below the service.

    :ivar places: generation and seq of each entry that is known to be there, by its origin.
    """

    def __init__(self, history: History, session: str, operations: Sequence[Operation]) -> None:
        self.lives: defaultdict[int, Life] = defaultdict(Life)
        self.places: dict[str, tuple[int, int]] = {}
        self.flaws: list[str] = []
        self._attempts = [attempt for operation in operations for attempt in operation.attempts]
        self._by_origin: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt in self._attempts:
            self._by_origin[attempt.entry.origin].append(attempt)
        self._place_log(history.base.logs.get(session, StoredLog()), is_base=True)
        for attempt in self._attempts:
            if attempt.outcome == "ok":
                self._place(attempt.entry, attempt.at)
        for backup in history.backups:
            self._place_log(backup.logs.get(session, StoredLog()))
        self._place_log(history.final.logs.get(session, StoredLog()))
        self._place_seen(operations)
        self._place_gaps()

    def _place_log(self, log: StoredLog, *, is_base: bool = False) -> None:
        for seq, entry in enumerate(log.entries, start=1):
            at = log.generation, seq
            if is_base:
                self._by_origin[entry.origin].append(Attempt(entry, at, 0, 0, "ok"))
            if entry.origin not in self._by_origin:
                self.flaws.append(f"phantom entry: nobody appended {entry} at {at}")
                self._by_origin[entry.origin].append(Attempt(entry, at, 0))
            author = self._by_origin[entry.origin][0].entry
            if author.content != entry.content:
                self.flaws.append(f"changed entry: {entry} is stored, {author} was appended")
            self._place(author, at)

    def _place(self, entry: EntryFacts, at: tuple[int, int]) -> None:
        generation, seq = at
        placed = self.lives[generation].entries.setdefault(seq, self._timed(entry, at))
        if placed.entry.origin != entry.origin:
            self.flaws.append(f"two entries at one position: {placed.entry} and {entry} at {at}")
        elif self.places.setdefault(entry.origin, at) != at:
            self.flaws.append(f"doubled entry: {entry} stands at {self.places[entry.origin]} and at {at}")

    def _timed(self, entry: EntryFacts, at: tuple[int, int]) -> Placed:
        """Return an entry with the time from the first append of it to the first answer."""
        same = [attempt for attempt in self._by_origin[entry.origin] if attempt.at == at]
        if not same:
            self.flaws.append(f"misplaced entry: nobody appended {entry} at {at}")
            return Placed(entry, 0, FOREVER)
        if all(attempt.outcome == "conflict" for attempt in same):
            self.flaws.append(f"refused entry: the append of {entry} at {at} was a conflict, and it is there")
        returned = min((attempt.returned for attempt in same if attempt.outcome == "ok"), default=FOREVER)
        return Placed(entry, min(attempt.invoked for attempt in same), returned)

    def _place_seen(self, operations: Iterable[Operation]) -> None:
        """Place the appends of unknown outcome of which a read saw that they are there."""
        places = {at[2]: tuple(at[:2]) for operation in operations if (at := operation.facts.get("at"))}
        origins = {operation.facts.get("origin") for operation in operations} | places.keys()
        for origin, attempts in list(self._by_origin.items()):
            open_ones = [each for each in attempts if each.outcome in {"unknown", "replayed"}]
            possible = {each.at for each in open_ones} if origin not in self.places else set()
            if origin in origins and (len(possible) == 1 or places.get(origin) in possible):
                self._place(attempts[0].entry, places.get(origin) or min(possible))
            elif possible:
                for each in open_ones:
                    placed = Placed(each.entry, each.invoked, FOREVER)
                    self.lives[each.at[0]].doubtful[each.at[1]].append(placed)

    def _place_gaps(self) -> None:
        """Place the appends of unknown outcome behind which others stand: a log has no gaps."""
        for generation, life in self.lives.items():
            for seq in range(1, life.tail):
                if seq in life.entries:
                    continue
                doubtful = {
                    placed.entry.origin: placed
                    for placed in life.doubtful[seq]
                    if placed.entry.origin not in self.places
                }
                if len(doubtful) == 1:
                    [placed] = doubtful.values()
                    self._place(placed.entry, (generation, seq))
                elif not doubtful:
                    self.flaws.append(f"gap: nobody appended an entry at {(generation, seq)}")
