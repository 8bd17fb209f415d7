"""The driver: batches of random turns on one store, and what must hold after each."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import NoneType
from typing import Any

from driver.books import Book, Flaw, Told, require
from driver.dialects import DIALECTS
from driver.killing import kill
from driver.plans import Plan, Planner
from driver.runs import Broken, Run, Runner, check_markers, check_refusal, texts_of
from driver.stores import Store
from session_history import SessionHistoryService
from session_history.errors import SessionBusy, SessionDeleted, TurnIdReused, Unavailable

USERS = ("u0", "u1", "u2")
SESSIONS_PER_USER = 2
LIFE = 10
"""Turns of a session, after which another one takes its place."""

BATCH_TIMEOUT = 90.0
"""Seconds after which a batch counts as waiting without an end."""

Json = dict[str, Any]


@dataclass
class Report:
    """The account of a driver."""

    turns: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    results: int = 0
    markers: int = 0
    refusals: int = 0
    histories: int = 0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in self.outcomes.most_common())
        return (
            f"{self.turns:,} turns ({outcomes}); {self.histories:,} histories, {self.results:,} results compared,"
            f" {self.markers:,} markers, {self.refusals:,} refusals"
        )


class Log(logging.Handler):
    """Keeps what the library logs during a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Driver:
    """Takes random turns.

    :param seed: draws the same turns again. On a store with threads they may interleave otherwise.
    """

    def __init__(self, store: Store, seed: int, *, progress: Callable[[Report], None] = lambda _: None) -> None:
        self.report = Report()
        self._store = store
        self._random = Random(seed)
        self._planner = Planner(self._random, entry_limit=store.entry_limit, services=len(store.services))
        self._runner = Runner(store.services, store.another)
        self._books: list[Book] = []
        self._made: Counter[str] = Counter()
        self._log = Log()
        self._batch = 0
        self._progress = progress
        self.step = ""
        self.past: dict[str, list[str]] = {}

    async def drive(self, turns: int) -> Report:
        """Take turns, and check after each. :raises Flaw: something does not hold."""
        logger = logging.getLogger("session_history")
        logger.addHandler(self._log)
        propagates, logger.propagate = logger.propagate, False
        try:
            while self.report.turns < turns:
                self._batch += 1
                await self._take_batch()
                self._progress(self.report)
        finally:
            logger.removeHandler(self._log)
            logger.propagate = propagates
        return self.report

    async def _take_batch(self) -> None:
        self._log.messages.clear()
        plans = self._plans()
        self.step = f"batch {self._batch}:\n  " + "\n  ".join(map(str, plans))
        self.past = {plan.book.mark: plan.book.past for plan in plans}
        try:
            async with asyncio.timeout(BATCH_TIMEOUT):
                if self._store.url is not None and self._random.random() < self._store.kills:
                    await self._kill()
                runs = await asyncio.gather(*map(self._runner.run, plans))
        except TimeoutError:
            raise Flaw("a batch waits without an end") from None
        is_alone = len(runs) == 1 and runs[0].nested is None
        for run in runs:
            for each in (run.nested, run) if run.nested else (run,):
                self._settle(each, is_alone=is_alone)
        for book in {plan.book.mark: plan.book for plan in plans}.values():
            await self._check(book)
        for message in self._log.messages:
            require("«" not in message, f"the log holds content: {message}")

    # Plans

    def _plans(self) -> list[Plan]:
        random = self._random
        count = random.choices([1, 2, 3], [7, 2, 1])[0]
        books = [self._book() for _ in range(count)]
        if count > 1 and random.random() < 0.6:
            books = books[:1] * count
        plans = [self._planner.plan(book, self._batch, is_alone=count == 1) for book in books]
        first, *others = plans
        if others and self._store.shares_provider:
            for plan in plans:
                plan.end = "returns" if plan.end == "is stopped" else plan.end
        if others and others[0].book is first.book and first.turn_id is not None and random.random() < 0.4:
            others[0].options["turn_id"] = first.turn_id
            others[0].input, others[0].question, others[0].first = first.input, first.question, None
            others[0].refusal, others[0].repeats, others[0].is_other = None, first, first.is_other
            others[0].answered = first.answered
            if others[0].end == "is dropped":
                others[0].end = "returns"
        return plans

    def _book(self) -> Book:
        random = self._random
        self._books = [book for book in self._books if book.turns < LIFE]
        while len(self._books) < len(USERS) * SESSIONS_PER_USER:
            counts = Counter(book.user for book in self._books)
            user = min(USERS, key=lambda user: counts[user])
            self._made[user] += 1
            self._books.append(Book(user, f"s{self._made[user]}", random.choice(list(DIALECTS))))
        book = random.choice(self._books)
        book.turns += 1
        return book

    # What must hold

    def _settle(self, run: Run, *, is_alone: bool) -> None:
        """Note what a turn left, and check how it ended."""
        self.report.turns += 1
        plan, book = run.plan, run.plan.book
        outcome = self._outcome(run)
        self.report.outcomes[outcome] += 1
        other = " by another run" if run.entered and run.is_replay else ""
        book.past.append(f"{self._batch}: {plan}: {outcome}{other}")
        for error in [*run.refused, *([run.error] if run.error else [])]:
            notes = " ".join(getattr(error, "__notes__", []))
            require("«" not in f"{error} {error!r} {notes}", f"{plan}: the error holds content: {error!r}")
        self.report.refusals += len(run.refused)
        if outcome in {"completed", "failed", "interrupted", "stopped"} and run.turn is not None and not book.deleted:
            self._note(run, outcome)
            self.report.markers += check_markers(run, self._log.messages)
        elif outcome == "dropped":
            self._note_dropped(run)
        elif outcome == "replayed" and run.entered:  # the answer is another run's
            book.told.append(Told(plan.batch, [tool for act in run.handed for tool in act.tools]))
        elif outcome == "not begun" or (outcome == "id reused" and run.entered):
            book.told.append(Told(plan.batch))  # a part may be stored
        if is_alone:
            self._check_repeat(run, outcome)
        if plan.turn_id is not None and plan.input is not None and run.entered and not book.deleted:
            self._note_id(plan, outcome)

    @staticmethod
    def _note_id(plan: Plan, outcome: str) -> None:
        """Note how the turn of an id ended. A later attempt counts if it came further."""
        if outcome not in {"completed", "failed", "interrupted", "stopped"} or plan.turn_id is None:
            return
        is_unsure = outcome == "stopped" or (outcome == "interrupted" and plan.end.endswith("from outside"))
        status = "completed or interrupted" if is_unsure else outcome
        before = plan.book.ids.get(plan.turn_id, ("",))[0]
        rank = ["", "failed", "interrupted", "completed or interrupted", "completed"].index
        if before != "completed" and rank(status) >= rank(before):
            plan.book.ids[plan.turn_id] = (status, plan)

    def _outcome(self, run: Run) -> str:
        """Return how a turn ended. :raises Flaw: it must not end so."""
        plan, error = run.plan, run.error
        lost = [note for note in getattr(error, "__notes__", []) if "could not be stored" in note]
        if (
            plan.refusal is not None
            and plan.input is not None
            and not isinstance(error, (Unavailable, asyncio.CancelledError, TimeoutError))
        ):
            check_refusal(run, error, plan.refusal.error, plan.refusal.path)
            require(not run.entered, f"{plan}: the handler ran before its input was refused")
            return "refused"
        if isinstance(error, asyncio.CancelledError) and error.__cause__ is not None and run.entered:
            lost.append(repr(error.__cause__))
        if lost:
            require(plan.book.deleted, f"{plan} was lost: {lost}")
            return "deleted"
        if plan.end == "is dropped" and error is None:
            return "dropped"
        return self._ended(run)

    @staticmethod
    def _ended(run: Run) -> str:
        plan, error = run.plan, run.error
        if isinstance(error, (Broken, TimeoutError, asyncio.CancelledError, NoneType)) and run.is_replay:
            return "replayed"
        outcome = "completed" if run.entered else "replayed"
        match error:
            case None if run.left and run.entered:
                outcome = "interrupted"
            case Broken():
                outcome = "failed"
            case TimeoutError() | asyncio.CancelledError():
                outcome = "interrupted" if run.entered else "not begun"
            case SessionDeleted():
                require(plan.book.deleted, f"{plan}: {error!r}")
                outcome = "deleted"
            case SessionBusy():
                require(plan.is_exclusive or error.own, f"{plan}: {error!r}")
                outcome = "busy"
            case TurnIdReused():
                require(plan.repeats is not None, f"{plan}: {error!r}")
                outcome = "id reused"
            case Unavailable():
                require("stopped" in str(error), f"{plan}: {error!r}")
                is_stored = run.turn is not None and "stored as interrupted" in str(error)
                outcome = "stopped" if is_stored else "not begun"
            case Exception():
                raise Flaw(f"{plan} ended with {type(error).__name__}: {error}") from error
        return outcome

    def _note(self, run: Run, outcome: str) -> None:
        plan, book = run.plan, run.plan.book
        acts = list(run.handed)
        question = [plan.question] if plan.input is not None and plan.question is not None else []
        has_question = bool(question or (plan.first and plan.refusal is None))
        is_completed = outcome == "completed"
        told = Told(plan.batch, [tool for act in acts for tool in act.tools])
        told.tools += [tool for act in question for tool in act.tools if plan.answered]
        if is_completed and has_question:  # what the model says first may be left out
            told.texts = [*texts_of(question), *texts_of(acts)]
        if plan.answered:
            told.since = book.waiting_since
            book.waiting = []
        book.told.append(told)
        if plan.waits and is_completed:
            book.waiting, book.waiting_since = plan.waits, plan.batch

    def _note_dropped(self, run: Run) -> None:
        acts = run.handed[: run.stored]
        if not run.is_replay and not run.plan.book.deleted:
            run.plan.book.told.append(Told(run.plan.batch, [tool for act in acts for tool in act.tools]))

    def _check_repeat(self, run: Run, outcome: str) -> None:
        plan, book = run.plan, run.plan.book
        if plan.repeats is None or outcome not in {"completed", "failed", "interrupted", "replayed", "id reused"}:
            return
        before = book.ids.get(plan.turn_id or "", ("", None))[0]
        if plan.is_other and before == "completed":
            require(outcome == "id reused", f"{plan}: another input under a known id is {outcome}")
        elif before == "completed":
            require(not run.entered, f"{plan}: a turn that was answered ran again")
        elif before == "failed":
            require(outcome not in {"replayed", "id reused"}, f"{plan}: a turn that failed is {outcome}")
        elif before == "interrupted" and plan.options.get("on_repeat") == "rerun":
            require(outcome != "replayed", f"{plan}: an interrupted turn did not run again")
        if outcome == "replayed":
            book.check_tokens(run.answer, f"answer of {plan}")

    async def _check(self, book: Book) -> None:
        """Read a session in several ways, and check what is there."""
        service = self._random.choice(self._store.services)
        if book.is_unsure:
            book.is_unsure, book.deleted = False, await service.get_session(book.user, book.session) is None
        if book.deleted:
            await self._check_deleted(service, book)
            return
        self.report.histories += 1
        async with service.turn(book.user, book.session, native=True) as turn:
            self.report.results += book.check_history(turn.history, "the next history")
        choice = self._random.random()
        if choice < 0.3:
            await self._check_window(service, book)
        elif choice < 0.4:
            async with service.turn(book.user, book.session, native=True, alternate=True) as turn:
                book.check_history(turn.history, "the next history, merged")
                book.check_alternation(turn.history, "the next history, merged,")
        elif choice < 0.5:
            session = await service.get_session(book.user, book.session, native=True)
            require(session is not None, f"{book.mark} is gone")
            assert session is not None
            book.check_results(session.messages, "the session")
        elif choice < 0.55:
            await self._check_listing(service, book.user)

    async def _check_window(self, service: SessionHistoryService, book: Book) -> None:
        count = self._random.choice([1, 2, 3, 5])
        async with service.turn(book.user, book.session, native=True, last_turns=count) as turn:
            self.report.results += book.check_history(turn.history, f"a history of {count} turns", turns=count)

    async def _check_listing(self, service: SessionHistoryService, user: str) -> None:
        for session in await service.list_sessions(user):
            require(session.user_id == user, f"the sessions of {user} hold one of {session.user_id}")

    async def _check_deleted(self, service: SessionHistoryService, book: Book) -> None:
        try:
            async with service.turn(book.user, book.session, native=True):
                raise Flaw(f"{book.mark} was deleted, and takes a turn")
        except SessionDeleted:
            pass
        require(await service.get_session(book.user, book.session) is None, f"{book.mark} was deleted, and is read")
        await service.create_session(book.user, book.session)
        book.begin_again()
        await self._check(book)

    async def _kill(self) -> None:
        """Have another process take a turn, and die in it."""
        assert self._store.url is not None
        book = self._book()
        plan = self._planner.plan_to_kill(book, self._batch)
        self.step += f"\n  {plan}"
        handed = await kill(self._store.url, plan)
        self.report.turns += 1
        self.report.outcomes["killed"] += 1
        texts = texts_of([plan.question] if plan.question else [])
        told = Told(plan.batch, [tool for act in plan.acts[:handed] for tool in act.tools], texts)
        book.told.append(told)
        await self._check(book)


def show_progress(every: int) -> Callable[[Report], None]:
    """Return a function that prints a report now and then."""
    shown = 0

    def show(report: Report) -> None:
        nonlocal shown
        if report.turns >= shown + every:
            shown = report.turns
            print(f"  {report}", file=sys.stderr, flush=True)

    return show
