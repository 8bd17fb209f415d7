"""The checker: a pure function from a history to the flaws in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from histories.history import FOREVER, History, Operation, Position, StoredLog
from histories.model import Life, Lives, Shown, is_history, texts

INFINITY = float("inf")

ANY = 1 << 62
"""A generation behind all others."""

LIVING = float(1 << 62)
"""A seq behind all entries of a life, and ahead of its end."""

NEVER: Position = (-1, 0)


@dataclass(frozen=True)
class Flaw:
    """A promise that was broken, and the calls that show it."""

    rule: str
    told: str
    calls: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.rule}: {self.told}", *self.calls])


@dataclass
class Event:
    """The knowledge that one call gives of where a log stood between two times.

    :ivar low: the log stood here or further when the call returned.
    :ivar high: the log had not gone further than this when the call was made.
    :ivar gone: the session was deleted at some time between.
    :ivar life: the generation that was deleted; ``None`` for that of which it is known that it was there before.
    :ivar before: the event that tells the most of those that had returned when this call was made.
    """

    kind: str
    operation: Operation | None
    invoked: int
    returned: int
    low: Position = NEVER
    high: Position = (ANY, INFINITY)
    gone: bool = False
    life: int | None = None
    before: Event | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        return (str(self.operation),) if self.operation else ()


def check(history: History, *, lease_seconds: float = 1.0) -> list[Flaw]:
    """Return the flaws of a history.

    :param lease_seconds: the time to live of an exclusive turn without a heartbeat.
    """
    flaws = []
    for session in history.sessions():
        flaws += SessionCheck(history, session, round(lease_seconds * 1e9)).check()
    return flaws


@dataclass
class SessionCheck:
    """The check of one session."""

    history: History
    session: str
    lease: int
    flaws: list[Flaw] = field(default_factory=list)

    def check(self) -> list[Flaw]:
        everything = self.history.operations.values()
        self.operations = [each for each in everything if each.session == self.session]
        self.listings = [each for each in everything if each.do == "list" and each.outcome == "ok"]
        self.model = Lives(self.history, self.session, [*self.operations, *self._listed()])
        for told in self.model.flaws:
            rule, _, rest = told.partition(": ")
            self._flaw(rule, rest)
        self._check_stored()
        self._check_answers()
        self._check_lives()
        self._check_exclusive()
        self._sweep(list(self._events()))
        return self.flaws

    def _flaw(self, rule: str, told: str, *operations: Operation) -> None:
        self.flaws.append(Flaw(rule, f"{self.session}: {told}", tuple(map(str, operations))))

    def _listed(self) -> list[Operation]:
        """Return each listing as a read of this session; of one that lacks the session, as of one that is gone."""
        found = []
        for each in self.listings:
            facts = each.facts["listed"].get(self.session)
            read = Operation(each.name, "list", self.session, each.invoked, each.returned, "ok")
            read.facts = facts or {"gone": True}
            found.append(read)
        return found

    # What was acknowledged is stored, once and whole

    def _check_stored(self) -> None:
        final = self.history.final.logs.get(self.session)
        last = final.generation if final else INFINITY
        by_op: defaultdict[str, list[tuple[tuple[int, int], tuple[str, ...]]]] = defaultdict(list)
        for generation, life in self.model.lives.items():
            for seq, placed in sorted(life.entries.items()):
                by_op[placed.entry.op].append(((generation, seq), placed.entry.texts))
        for operation in self.operations:
            self._check_entries(operation, by_op[operation.name])
            for attempt in operation.attempts:
                if attempt.outcome == "ok" and attempt.at[0] >= last and final is not None:
                    self._check_final(operation, attempt.at, attempt.entry.origin, final)

    def _check_final(self, operation: Operation, at: tuple[int, int], origin: str, final: StoredLog) -> None:
        if final.deleted and at[0] == final.generation:
            return
        entries = final.entries if at[0] == final.generation else ()
        if len(entries) < at[1] or entries[at[1] - 1].origin != origin:
            self._flaw("lost entry", f"what was acknowledged at {at} is not there in the end", operation)

    def _check_entries(self, operation: Operation, stored: list[tuple[tuple[int, int], tuple[str, ...]]]) -> None:
        found = [text for _, entry in stored for text in entry]
        if len(set(found)) < len(found):
            self._flaw("doubled", f"stored twice, at {[at for at, _ in stored]}", operation)
        told = operation.facts.get("texts", [])
        if operation.do in {"turn", "append"}:
            is_new = operation.outcome == "ok" and operation.recorded is None
            if is_new and found != told:
                self._flaw("lost turn", f"acknowledged, but {found} is stored of {told}", operation)
            may_begin = operation.facts.get("durable") or operation.facts.get("checkpoint")
            if len([entry for _, entry in stored if entry]) > 1 and not may_begin:
                self._flaw("torn turn", f"it stands in several entries, {stored}", operation)
            if operation.outcome == "refused" and found and not may_begin:
                self._flaw("refused turn", f"refused, but {found} is stored", operation)
        if operation.do == "turn" and operation.facts.get("durable") and operation.entered != FOREVER:
            is_late = not any(each.outcome == "ok" and each.returned <= operation.entered and each.entry.texts
                              for each in operation.attempts)  # fmt: skip
            doubt = any(each.outcome in {"unknown", "replayed"} for each in operation.attempts)
            if is_late and not doubt and operation.facts.get("recorded") is None and "texts" in operation.facts:
                self._flaw("late input", "the input of a durable turn was not stored before its body", operation)

    # A turn is answered once, and a repeat gets that answer

    def _check_answers(self) -> None:
        answers = []
        for generation, life in self.model.lives.items():
            seen: dict[str, int] = {}
            for seq, placed in sorted(life.entries.items()):
                entry = placed.entry
                if entry.author == "turn" and entry.turn_id is not None and entry.answered:
                    if entry.turn_id in seen:
                        told = f"{entry.turn_id} was answered at {(generation, seen[entry.turn_id])} and {seq}"
                        self._flaw("answered twice", told)
                    seen[entry.turn_id] = seq
                    first = entry.first or seq
                    turn = [each.texts for each in life.turns(seq) if each.first == first]
                    answers.append((entry.turn_id, placed.invoked, turn[0] if turn else []))
        for operation in self.operations:
            recorded, turn_id = operation.recorded, operation.facts.get("turn_id")
            if operation.do == "turn" and recorded is not None:
                fitting = [each for each in answers if each[0] == turn_id and each[1] < operation.returned]
                if recorded not in [each[2] for each in fitting]:
                    told = f"the repeat got {recorded}; recorded is {[each[2] for each in fitting]}"
                    self._flaw("other answer", told, operation)

    # Deletes and generations

    def _check_lives(self) -> None:
        creates = {each.name for each in self.operations if each.do == "create"}
        base = self.history.base.logs.get(self.session, StoredLog())
        for generation, life in self.model.lives.items():
            first = life.entries.get(1)
            is_new = generation > base.generation or (generation == base.generation and base.deleted)
            if first and is_new and generation > 0 and first.entry.op not in creates:
                self._flaw("resurrection", f"generation {generation} was not begun by create_session: {first.entry}")
        for operation in self.operations:
            known = self._life_known(operation)
            for attempt in operation.attempts:
                placed = self.model.places.get(attempt.entry.origin)
                if known is not None and placed and placed[0] != known:
                    told = f"it read generation {known} and was stored at {placed}"
                    self._flaw("other life", told, operation)

    def _life_known(self, operation: Operation) -> int | None:
        """Return the generation that a turn or an append knew; ``None`` if that is not known."""
        if operation.do == "turn" and operation.entered != FOREVER:
            origin = operation.facts.get("origin")
            place = self.model.places.get(origin) if origin else (0, 0)
            return place[0] if place else None
        if operation.do == "append":
            at = operation.facts.get("read_at")
            return at[0] if at and at[2] in self.model.places else None
        return None

    # Exclusive turns

    def _check_exclusive(self) -> None:
        done = []
        for operation in self.operations:
            if operation.do != "turn" or not operation.is_exclusive or operation.facts.get("recorded") is not None:
                continue
            if operation.error == "TurnOvertaken":
                self._check_overtaken(operation)
            if operation.outcome == "ok" and operation.recorded is None and operation.attempts:
                self._check_alone(operation)
                done.append(operation)
        done.sort(key=lambda each: each.entered)
        for one, other in pairwise(done):
            if other.entered < one.left and self._generation(one) == self._generation(other):
                self._flaw("overlap", "the bodies of two exclusive turns ran at once", one, other)

    def _generation(self, operation: Operation) -> int:
        return max(attempt.at[0] for attempt in operation.attempts if attempt.outcome != "conflict")

    def _check_alone(self, operation: Operation) -> None:
        """Check that the entries of an exclusive turn stand directly behind what it read, and behind each other."""
        placed = [self.model.places[each.entry.origin] for each in operation.attempts
                  if each.entry.origin in self.model.places]  # fmt: skip
        if not placed:
            return
        origin = operation.facts.get("origin")
        read = self.model.places.get(origin, (0, 0)) if origin else (placed[0][0], 0)
        seqs = sorted({seq for _, seq in placed})
        life = self.model.lives[placed[0][0]]
        between = [seq for seq in range(read[1] + 1, seqs[-1]) if seq not in seqs]
        others = [seq for seq in between if seq in life.entries]
        if others:
            self._flaw("not alone", f"entries {others} of others stand between what it read and its end", operation)

    def _check_overtaken(self, operation: Operation) -> None:
        """Check that a turn which counted as dead sent no heartbeat for the time to live of its lease."""
        signs = [(each.invoked, each.returned) for each in operation.attempts if each.outcome == "ok"]
        if len(signs) != len([each for each in operation.attempts if each.outcome != "conflict"]):
            return  # it is not known whether its last entry holds a lease
        signs = sorted([*signs, *operation.heartbeats])
        ends = [returned for _, returned in signs[1:]] + [operation.returned]
        gaps = [end - invoked for (invoked, _), end in zip(signs, ends, strict=True)]
        if signs and max(gaps) < self.lease:
            told = f"a turn was overtaken that sent a heartbeat every {max(gaps) / 1e9:.2f} s"
            self._flaw("living owner overtaken", told, operation)

    # Reads and real time

    def _events(self) -> Iterator[Event]:
        base, final = self.history.base, self.history.final
        yield self._dump_event("begin", base.logs.get(self.session), base.invoked, base.returned)
        for backup in self.history.backups:
            yield self._dump_event("backup", backup.logs.get(self.session), backup.invoked, backup.returned)
        if self.session in final.logs:
            yield self._dump_event("end", final.logs[self.session], final.invoked, final.returned)
        by_name = {each.name: each for each in self.operations}
        for generation, life in self.model.lives.items():
            for seq, placed in life.entries.items():
                at, ahead = (generation, seq), (generation, seq - 0.5)
                yield Event("append", by_name.get(placed.entry.op), placed.invoked, placed.returned, at, ahead)
        for operation in [*self.operations, *self._listed()]:
            yield from self._call_events(operation)

    @staticmethod
    def _dump_event(kind: str, log: StoredLog | None, invoked: int, returned: int) -> Event:
        at = (log or StoredLog()).position
        return Event(kind, None, invoked, returned, at, at)

    def _call_events(self, operation: Operation) -> Iterator[Event]:
        invoked, returned = operation.invoked, operation.returned
        life = self._life_known(operation)
        if operation.error == "SessionDeleted" and (operation.do != "append" or life is not None):
            yield Event("gone", operation, invoked, returned, gone=True, life=life)
        if operation.facts.get("gone"):
            yield Event("gone", operation, invoked, returned, gone=True)
        elif operation.do == "delete" and operation.outcome == "ok":
            yield Event("delete", operation, invoked, returned, gone=True)
        elif operation.error == "SessionExists":
            attempts = [each for other in self.operations for each in other.attempts if each.invoked < returned]
            begun = [
                self.history.base.logs.get(self.session, StoredLog()).generation,
                *(each.at[0] for each in attempts),
            ]
            yield Event("exists", operation, invoked, returned, high=(max(begun), LIVING))
        elif operation.do == "turn" and operation.entered != FOREVER:
            at = self._place_of(operation, operation.facts.get("origin"))
            if at is not None:
                self._check_history(operation, at)
                yield Event("read", operation, invoked, operation.entered, at, at)
        elif "at" in operation.facts:
            found = operation.facts["at"]
            at = self._place_of(operation, found and found[2], found)
            if at is not None:
                self._check_read(operation, at)
                self._check_own(operation, at)
                yield Event("read", operation, invoked, returned, at, at)

    def _place_of(self, operation: Operation, origin: str | None, told: list[int] | None = None) -> Position | None:
        """Return where a log stood when it was read, by the origin of its newest entry."""
        if not origin:
            return NEVER
        at = self.model.places.get(origin)
        if at is None or (told and tuple(told[:2]) != at):
            self._flaw("phantom read", f"it read an entry that stands at {at} and has the origin {origin}", operation)
            return None
        return at

    def _check_history(self, operation: Operation, at: Position) -> None:
        life, seq = self._life(at)
        shown, facts = operation.facts["history"], operation.facts
        if life.is_known(seq) and not is_history(life, seq, shown, facts.get("turn_id"), facts.get("last_turns")):
            self._flaw("wrong history", f"{self._diagnosis(shown, at)}, at {at}", operation)

    def _check_read(self, operation: Operation, at: Position) -> None:
        life, seq = self._life(at)
        if not life.is_known(seq):
            return
        facts, turns = operation.facts, life.turns(seq)
        if facts["title"] != life.title(seq):
            self._flaw("wrong title", f"the title at {at} is {life.title(seq)}", operation)
        if facts["turns"] != len(turns):
            self._flaw("wrong count", f"{len(turns)} turns began up to {at}", operation)
        if operation.do != "read":
            return
        end = self._page_end(operation, turns)
        if end is None:
            return
        begin = 0 if facts.get("last_turns") is None else max(0, end - facts["last_turns"])
        operation.facts["first"] = turns[begin].first if begin < len(turns) else None
        if facts["texts"] != texts(turns[begin:end]):
            self._flaw("wrong read", f"{self._diagnosis(facts['texts'], at)}, at {at}", operation)

    def _check_own(self, operation: Operation, at: Position) -> None:
        """Check that the result of a call shows what the call itself stored."""
        own = [place for each in operation.attempts if (place := self.model.places.get(each.entry.origin))]
        if operation.do != "list" and own and max(own) > at:
            self._flaw("old result", f"it stored an entry at {max(own)}, and shows the session at {at}", operation)

    def _page_end(self, operation: Operation, turns: list[Shown]) -> int | None:
        """Return the index of the first turn behind a page; ``None`` if the page ahead is of another era."""
        before = operation.facts.get("page_before")
        if before is None:
            return len(turns)
        ahead = self.history.operations.get(before)
        if ahead is None or "first" not in ahead.facts:
            return None
        first = ahead.facts["first"]
        return next((index for index, turn in enumerate(turns) if turn.first == first), len(turns))

    def _life(self, at: Position) -> tuple[Life, int]:
        return (self.model.lives[int(at[0])], int(at[1])) if at[0] >= 0 else (Life(), 0)

    def _diagnosis(self, shown: list[str], at: Position) -> str:
        """Return in one word how a read differs from the log."""
        lives = {
            generation
            for generation, life in self.model.lives.items()
            for placed in life.entries.values()
            if any("/" in text and text in shown for text in placed.entry.texts)
        }
        life, seq = self._life(at)
        there = {text for _, entry in life.upto(seq) for text in entry.texts}
        if len(lives) > 1:
            return f"the lives {sorted(lives)} are mixed"
        if lives and int(at[0]) not in lives:
            return f"another life is shown, {lives}"
        if len(set(shown)) < len([text for text in shown if "/" in text]):
            return "something is shown twice"
        if any("/" in text and text not in there for text in shown):
            return "something is shown that stands behind"
        if there - set(shown):
            return "something is missing, torn or in another order"
        return "it is in another order"

    def _sweep(self, events: list[Event]) -> None:
        """Go through all calls and returns in time, and compare each call with what was known when it was made."""
        newest: Event = Event("begin", None, 0, 0)
        moments = [(event.invoked, 0, index) for index, event in enumerate(events)]
        moments += [(event.returned, 1, index) for index, event in enumerate(events) if event.returned < FOREVER]
        for _, is_return, index in sorted(moments):
            event = events[index]
            if not is_return:
                event.before = newest
                if newest.low > event.high:
                    self._tell(newest, event)
                continue
            assert event.before is not None
            if event.gone:
                self._check_gone(event, event.before)
                life = event.before.low[0] if event.life is None else event.life
                event.low = (life, INFINITY) if life >= 0 else NEVER
            if event.low > newest.low:
                newest = event

    def _check_gone(self, event: Event, before: Event) -> None:
        is_older = event.life is not None and event.life < before.low[0]
        if event.kind == "delete" or is_older or before.low[0] < 0 or before.low[1] == INFINITY:
            return
        deletes = [each for each in self.operations if each.do == "delete"]
        if not any(each.invoked < event.returned and each.returned > before.invoked for each in deletes):
            told = f"it was there at {before.low}, nobody deleted it, and it is gone"
            self._add(Flaw("gone", f"{self.session}: {told}", before.calls + event.calls))

    def _tell(self, before: Event, event: Event) -> None:
        known, found = before.low, event.high
        told = f"{before.kind} at {known} had returned before {event.kind} at {found} was called"
        rule = {
            ("append", "append"): "reordered",
            ("read", "append"): "phantom read of the future",
            ("append", "read"): "stale read",
            ("read", "read"): "read went backwards",
        }.get((before.kind, event.kind), f"{event.kind} after {before.kind}")
        if known[1] == INFINITY and event.kind in {"read", "append"}:
            rule = f"{event.kind} after delete"
        self._add(Flaw(rule, f"{self.session}: {told}", before.calls + event.calls))

    def _add(self, flaw: Flaw) -> None:
        self.flaws.append(flaw)
