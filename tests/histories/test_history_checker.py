"""The checker finds each kind of flaw in histories made by hand, and none in those that are right."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from histories.checker import check
from histories.history import Attempt, Dump, EntryFacts, History, Operation, StoredLog
from histories.splitting import split

S = "s"


class Story:
    """A history made by hand: each call takes one tick, and begins when the one before has returned.

    :ivar stored: the entries of the session's life so far, as the store has them.
    """

    def __init__(self) -> None:
        self.history = History()
        self.stored: list[EntryFacts] = []
        self.generation = 0
        self.deleted = False
        self._names = count(1)
        self.now = 0

    def call(self, do: str, *, takes: int = 10, begins: int | None = None, **facts: Any) -> Operation:
        invoked = self.now + 1 if begins is None else begins
        name = f"op{next(self._names)}"
        operation = Operation(name, do, S, invoked, invoked + takes, "ok", facts=facts)
        self.history.operations[name] = operation
        self.now = max(self.now, invoked + takes)
        return operation

    def create(self) -> Operation:
        if self.deleted:
            self.generation, self.deleted, self.stored = self.generation + 1, False, []
        operation = self.call("create")
        self._append(operation, EntryFacts(f"o-{operation.name}", "session", title=operation.name, answered=False,
                                           status=None, op=operation.name))  # fmt: skip
        operation.facts |= self.seen()
        return operation

    def turn(self, *, read: int | None = None, **facts: Any) -> Operation:
        """Run a turn. :param read: how many entries it saw; without it, all."""
        operation = self.call("turn", **{"concurrent": "keep", **facts})
        seen = len(self.stored) if read is None else read
        operation.facts |= {
            "origin": self.stored[seen - 1].origin if seen else None,
            "history": [text for entry in self.stored[:seen] for text in entry.texts],
            "recorded": None,
            "texts": [f"{facts.get('turn_id') or operation.name}?", f"{operation.name}/0"],
        }
        operation.entered, operation.left = operation.invoked + 2, operation.invoked + 6
        entry = EntryFacts(f"o-{operation.name}", texts=tuple(operation.facts["texts"]),
                           turn_id=facts.get("turn_id"), op=operation.name)  # fmt: skip
        self._append(operation, entry)
        return operation

    def append(self) -> Operation:
        operation = self.call("append", read_at=[self.generation, 0, None])
        operation.facts["texts"] = [f"{operation.name}?"]
        self._append(operation, EntryFacts(f"o-{operation.name}", "append", (f"{operation.name}?",), status=None,
                                           op=operation.name))  # fmt: skip
        return operation

    def repeat(self, turn: Operation) -> Operation:
        operation = self.call("turn", concurrent="keep", turn_id=turn.facts["turn_id"])
        operation.facts["recorded"] = list(turn.facts["texts"])
        return operation

    def read(self, count: int | None = None, **facts: Any) -> Operation:
        """Read the session. :param count: how many entries the read shows; without it, all."""
        if self.deleted:
            return self.call("read", gone=True)
        operation = self.call("read")
        shown = self.stored[: len(self.stored) if count is None else count]
        operation.facts |= {
            **self.seen(len(shown)),
            "texts": [text for entry in shown for text in entry.texts],
            **facts,
        }
        return operation

    def delete(self) -> Operation:
        self.deleted = True
        return self.call("delete")

    def seen(self, count: int | None = None) -> dict[str, Any]:
        shown = self.stored[: len(self.stored) if count is None else count]
        titles = [entry.title for entry in shown if entry.author == "session"]
        return {
            "at": [self.generation, len(shown), shown[-1].origin] if shown else None,
            "title": titles[-1] if titles else None,
            "turns": sum(entry.author != "session" for entry in shown),
        }

    def _append(self, operation: Operation, entry: EntryFacts) -> None:
        at = (self.generation, len(self.stored) + 1)
        operation.attempts.append(Attempt(entry, at, operation.invoked + 7, operation.invoked + 9, "ok"))
        self.stored.append(entry)

    def flaws(self) -> set[str]:
        """Return the rules that are broken."""
        log = StoredLog(self.generation, self.deleted, () if self.deleted else tuple(self.stored))
        self.history.final = Dump(self.now + 1, self.now + 2, {S: log})
        return {flaw.rule for flaw in check(self.history, lease_seconds=1)}


@pytest.fixture
def story() -> Story:
    return Story()


def test_history_without_a_flaw_passes(story: Story) -> None:
    story.read()
    story.create()
    one = story.turn(turn_id="t1")
    story.turn()
    story.read()
    story.repeat(one)
    story.delete()
    story.read()
    story.create()
    story.turn(concurrent="queue")
    story.read()
    assert story.flaws() == set()


def test_call_that_never_returned_may_be_stored_or_not(story: Story) -> None:
    for is_stored in (True, False):
        turn = story.turn()
        turn.outcome, turn.returned = "unknown", 1 << 62
        turn.attempts[0].outcome, turn.attempts[0].returned = "unknown", 1 << 62
        if not is_stored:
            story.stored.pop()
        story.read()
    assert story.flaws() == set()


def test_backup_may_lack_what_was_stored_while_it_was_made(story: Story) -> None:
    story.turn()
    began = story.now
    story.turn()
    story.history.backups.append(Dump(began, story.now, {S: StoredLog(0, False, tuple(story.stored[:1]))}))
    story.turn()
    assert story.flaws() == set()


# Each anomaly is a story with a flaw, and the rule that it breaks.


def acknowledged_turn_is_lost(story: Story) -> None:
    story.turn()
    story.turn()
    story.stored.pop()


def turn_was_never_appended(story: Story) -> None:
    story.turn().attempts.clear()
    story.stored.pop()


def session_is_lost(story: Story) -> None:
    story.turn()
    story.stored.clear()
    story.generation = -1


def life_is_lost(story: Story) -> None:
    story.turn()
    story.delete()
    story.create()
    story.generation, story.deleted = 0, True


def turn_is_doubled(story: Story) -> None:
    turn = story.turn()
    again = EntryFacts("again", texts=tuple(turn.facts["texts"]), op=turn.name)
    turn.attempts.append(Attempt(again, (0, 2), turn.invoked + 8, turn.invoked + 9, "ok"))
    story.stored.append(again)


def entry_is_doubled(story: Story) -> None:
    story.turn()
    story.stored.append(story.stored[0])


def turns_are_reordered(story: Story) -> None:
    one, other = story.turn(), story.turn()
    for turn, seq in ((one, 2), (other, 1)):
        turn.attempts[0].at = (0, seq)
        turn.facts |= {"origin": None, "history": []}
    story.stored.reverse()


def turn_is_torn(story: Story) -> None:
    turn = story.turn()
    whole = story.stored.pop()
    halves = [EntryFacts(f"half {number}", texts=(text,), op=turn.name) for number, text in enumerate(whole.texts)]
    turn.attempts = [
        Attempt(half, (0, seq), turn.invoked + 7, turn.invoked + 8, "ok") for seq, half in enumerate(halves, start=1)
    ]
    story.stored += halves


def read_shows_half_a_turn(story: Story) -> None:
    story.turn()
    story.read().facts["texts"].pop()


def stored_entry_is_changed(story: Story) -> None:
    story.turn()
    story.stored[0] = EntryFacts(story.stored[0].origin, texts=("op1?",), op="op1")


def entry_came_from_nowhere(story: Story) -> None:
    story.turn()
    story.stored.append(EntryFacts("nobody's", texts=("x?",)))


def two_entries_had_one_position(story: Story) -> None:
    story.turn()
    story.turn().attempts[0].at = (0, 1)
    story.stored.pop()


def conflict_is_stored(story: Story) -> None:
    story.turn().attempts[0].outcome = "conflict"


def refused_turn_is_stored(story: Story) -> None:
    story.turn().outcome = "refused"


def log_has_a_gap(story: Story) -> None:
    story.turn()
    turn = story.turn(read=0)
    turn.attempts[0].at = (0, 3)
    story.delete()


def read_is_stale(story: Story) -> None:
    story.turn()
    story.turn()
    story.read(1)


def read_shows_nothing_of_a_session(story: Story) -> None:
    story.turn()
    story.read(0)


def history_of_a_turn_is_stale(story: Story) -> None:
    story.turn()
    story.turn()
    story.turn(read=1)


def reads_go_backwards(story: Story) -> None:
    turn = story.turn()
    turn.returned = turn.attempts[0].returned = 1 << 62
    turn.outcome = turn.attempts[0].outcome = "unknown"
    story.read(1)
    story.read(0)


def read_shows_the_future(story: Story) -> None:
    begins = story.now + 1
    story.now += 20
    story.append()
    read = story.read(1)
    read.invoked, read.returned = begins, begins + 1


def window_lacks_a_turn(story: Story) -> None:
    for _ in range(3):
        story.turn()
    read = story.read(last_turns=2)
    read.facts["texts"] = read.facts["texts"][-2:]


def page_overlaps_the_one_before(story: Story) -> None:
    for _ in range(3):
        story.turn()
    first = story.read(last_turns=1)
    first.facts["texts"] = first.facts["texts"][-2:]
    second = story.read(last_turns=1, page_before=first.name)
    second.facts["texts"] = list(first.facts["texts"])


def read_shows_an_entry_that_nobody_wrote(story: Story) -> None:
    story.turn()
    story.read().facts["at"] = [0, 1, "nobody's"]


def title_is_old(story: Story) -> None:
    story.create()
    story.read(title=None)


def title_of_an_update_is_old(story: Story) -> None:
    story.create()
    update = story.call("title")
    before = story.seen()
    entry = EntryFacts("o-title", "session", title=update.name, status=None, answered=False, op=update.name)
    update.attempts.append(Attempt(entry, (0, 2), update.invoked + 1, update.invoked + 2, "ok"))
    story.stored.append(entry)
    update.facts |= before


def deleted_session_is_shown(story: Story) -> None:
    story.turn()
    story.read()
    story.delete()
    story.deleted = False
    story.read()
    story.deleted = True


def two_lives_are_mixed(story: Story) -> None:
    old = story.turn()
    story.delete()
    story.create()
    story.turn()
    read = story.read()
    read.facts["texts"] = old.facts["texts"] + read.facts["texts"]


def turn_in_flight_comes_back(story: Story) -> None:
    story.turn()
    old = story.stored[0].origin
    story.delete()
    story.create()
    turn = story.turn()
    turn.invoked, turn.entered, turn.facts["origin"] = 12, 13, old
    turn.facts["history"] = ["op1?", "op1/0"]


def turn_creates_a_deleted_session(story: Story) -> None:
    story.turn()
    story.delete()
    story.generation, story.deleted, story.stored = 1, False, []
    story.turn()


def session_vanishes_without_a_delete(story: Story) -> None:
    story.turn()
    story.call("read", gone=True)


def listing_lacks_a_session(story: Story) -> None:
    story.turn()
    story.call("list", listed={}).session = ""


def deleted_session_exists(story: Story) -> None:
    story.turn()
    story.read()
    story.delete()
    create = story.call("create")
    create.outcome, create.error = "refused", "SessionExists"


def exclusive_turns_overlap(story: Story) -> None:
    one, other = story.turn(concurrent="queue"), story.turn(concurrent="queue")
    one.left = other.entered + 1


def exclusive_turn_is_not_alone(story: Story) -> None:
    story.turn()
    story.turn()
    exclusive = story.turn(concurrent="reject")
    exclusive.facts |= {"origin": story.stored[0].origin, "history": ["op1?", "op1/0"]}
    exclusive.invoked, exclusive.entered = 13, 14


def living_owner_is_overtaken(story: Story) -> None:
    owner = story.turn(concurrent="queue", takes=2 * 10**9)
    story.stored.pop()
    claim = EntryFacts("claim", status="open", answered=False, lease=True, op=owner.name)
    story.stored.append(claim)
    owner.attempts = [Attempt(claim, (0, 1), owner.invoked, owner.invoked + 1, "ok")]
    owner.heartbeats = [(tick, tick + 1) for tick in range(0, owner.returned, 10**8)]
    owner.outcome, owner.error = "refused", "TurnOvertaken"


def repeat_gets_another_answer(story: Story) -> None:
    turn = story.turn(turn_id="t1")
    story.repeat(turn).facts["recorded"] = ["t1?", "other"]


def turn_is_answered_twice(story: Story) -> None:
    story.turn(turn_id="t1")
    second = story.turn(turn_id="t1")
    second.facts["history"] = []


def failed_turn_is_in_a_history(story: Story) -> None:
    story.turn()
    story.stored[0] = story.history.operations["op1"].attempts[0].entry = EntryFacts(
        "o-op1", texts=("op1?", "op1/0"), status="failed", answered=False, op="op1"
    )
    story.turn()


def input_of_a_durable_turn_comes_late(story: Story) -> None:
    story.turn(durable=True)


def backup_lacks_what_was_there_before_it(story: Story) -> None:
    story.turn()
    story.turn()
    story.history.backups.append(Dump(story.now, story.now + 1, {S: StoredLog(0, False, tuple(story.stored[:1]))}))


def backup_holds_what_came_after_it(story: Story) -> None:
    story.turn()
    made = story.now
    story.now += 5
    story.append()
    story.history.backups.append(Dump(made, made + 1, {S: StoredLog(0, False, tuple(story.stored))}))


def restored_entries_are_forgotten(story: Story) -> None:
    restored = EntryFacts("restored", texts=("before?", "before/0"))
    story.history.base = Dump(0, 0, {S: StoredLog(0, False, (restored,))})
    story.stored.append(restored)
    story.read(0)


ANOMALIES: dict[Callable[[Story], None], str] = {
    acknowledged_turn_is_lost: "lost entry",
    turn_was_never_appended: "lost turn",
    session_is_lost: "lost entry",
    life_is_lost: "lost entry",
    turn_is_doubled: "doubled",
    entry_is_doubled: "doubled entry",
    turns_are_reordered: "reordered",
    turn_is_torn: "torn turn",
    read_shows_half_a_turn: "wrong read",
    stored_entry_is_changed: "changed entry",
    entry_came_from_nowhere: "phantom entry",
    two_entries_had_one_position: "two entries at one position",
    conflict_is_stored: "refused entry",
    refused_turn_is_stored: "refused turn",
    log_has_a_gap: "gap",
    read_is_stale: "stale read",
    read_shows_nothing_of_a_session: "stale read",
    history_of_a_turn_is_stale: "stale read",
    reads_go_backwards: "read went backwards",
    read_shows_the_future: "phantom read of the future",
    window_lacks_a_turn: "wrong read",
    page_overlaps_the_one_before: "wrong read",
    read_shows_an_entry_that_nobody_wrote: "phantom read",
    title_is_old: "wrong title",
    title_of_an_update_is_old: "old result",
    deleted_session_is_shown: "read after delete",
    two_lives_are_mixed: "wrong read",
    turn_in_flight_comes_back: "other life",
    turn_creates_a_deleted_session: "resurrection",
    session_vanishes_without_a_delete: "gone",
    listing_lacks_a_session: "gone",
    deleted_session_exists: "exists after delete",
    exclusive_turns_overlap: "overlap",
    exclusive_turn_is_not_alone: "not alone",
    living_owner_is_overtaken: "living owner overtaken",
    repeat_gets_another_answer: "other answer",
    turn_is_answered_twice: "answered twice",
    failed_turn_is_in_a_history: "wrong history",
    input_of_a_durable_turn_comes_late: "late input",
    backup_lacks_what_was_there_before_it: "backup after append",
    backup_holds_what_came_after_it: "append after backup",
    restored_entries_are_forgotten: "read after begin",
}


@pytest.mark.parametrize(("anomaly", "rule"), ANOMALIES.items(), ids=lambda given: getattr(given, "__name__", ""))
def test_anomaly_is_found(story: Story, anomaly: Callable[[Story], None], rule: str) -> None:
    anomaly(story)
    assert rule in story.flaws()


# A backup is restored while processes go on


def restored(story: Story, tell: Callable[[Story], None]) -> set[str]:
    """Return the rules that are broken if a backup of one turn is restored, and the story goes on."""
    story.turn(turn_id="t1")
    backup = Dump(story.now, story.now + 1, {S: StoredLog(0, False, tuple(story.stored))})
    story.now += 2
    story.turn(turn_id="lost")
    began = story.now
    story.now += 10
    ended = story.now
    story.stored.pop()
    tell(story)
    final = Dump(story.now + 1, story.now + 2, {S: StoredLog(0, False, tuple(story.stored))})
    story.history.final = final
    return {flaw.rule for history in split(story.history, began, ended, backup) for flaw in check(history)}


def test_restored_past_may_go_on_in_another_way(story: Story) -> None:
    def tell(story: Story) -> None:
        story.read()
        story.turn(turn_id="lost")
        story.repeat(story.turn(turn_id="t2"))
        story.read()

    assert restored(story, tell) == set()


def test_read_of_the_lost_past_is_found(story: Story) -> None:
    def tell(story: Story) -> None:
        lost = story.history.operations["op2"]
        read = story.read()
        read.facts["texts"] += lost.facts["texts"]
        read.facts["at"] = [0, 2, "o-op2"]

    assert restored(story, tell) == {"phantom read"}


def test_lost_answer_in_a_repeat_is_found(story: Story) -> None:
    def tell(story: Story) -> None:
        story.repeat(story.history.operations["op2"])

    assert restored(story, tell) == {"other answer"}


def test_acknowledged_turn_that_began_before_the_restore_is_looked_for(story: Story) -> None:
    def tell(story: Story) -> None:
        turn = story.turn(durable=True)
        turn.invoked, turn.entered, turn.facts["origin"] = 5, 6, "o-op2"
        turn.attempts[0].entry = story.stored[-1] = EntryFacts("half", texts=("op3/0",), op="op3")

    assert restored(story, tell) == {"lost turn"}
