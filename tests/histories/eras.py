"""Runs of clients and a nemesis on a store, and the histories that they leave."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from histories.arenas import ARENAS, Arena
from histories.checker import Flaw, check
from histories.clients import Clients
from histories.history import FOREVER, Dump, EntryFacts, History, Pen, StoredLog, lines_of
from histories.nemesis import Nemesis
from histories.observed import Observed, facts_of
from histories.operations import Caller
from session_history import SessionHistoryService
from session_history_hooks import SessionHistoryProvider, SessionKey

CALM = 0.4
"""The most seconds between two faults."""


@dataclass
class Plan:
    """How clients use a store.

    :ivar seconds: how long an era lasts.
    :ivar restores: the share of eras after which a backup is restored.
    :ivar bug: a planted bug, see :mod:`.bugs`.
    """

    seconds: float = 10.0
    clients: int = 4
    tasks: int = 3
    sessions: int = 4
    restores: float = 0.3
    faults: bool = True
    bug: str = ""


@dataclass
class Report:
    """What was done and seen."""

    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    eras: int = 0
    flaws: list[Flaw] = field(default_factory=list)

    def add(self, history: History) -> None:
        self.eras += 1
        for operation in history.operations.values():
            self.operations[f"{operation.do} {operation.outcome}"] += 1
            self.reads += operation.do in {"read", "list"} and operation.outcome == "ok"
            self.reads += operation.do == "turn" and operation.entered != FOREVER

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        calls = sum(self.operations.values())
        unknown = sum(count for name, count in self.operations.items() if name.endswith("unknown"))
        return (
            f"{calls:,} calls, {unknown:,} of unknown outcome, {self.reads:,} reads checked, in {self.eras} eras;"
            f" {sum(self.faults.values()):,} faults ({faults or 'none'}): {len(self.flaws)} flaws"
        )


async def stored_log(provider: SessionHistoryProvider, key: SessionKey) -> StoredLog:
    """Read a log below the service."""
    entries: list[EntryFacts] = []
    while True:
        log = await provider.read(key, after=len(entries))
        if log is None:
            return StoredLog()
        if log.head.deleted:
            return StoredLog(log.head.tail.generation, deleted=True)
        entries += [facts_of(entry, key, seq) for seq, entry in enumerate(log.entries, start=log.first)]
        if len(entries) >= log.head.tail.seq:
            return StoredLog(log.head.tail.generation, False, tuple(entries))


async def look(arena: Arena, user: str, sessions: list[str], pen: Pen) -> Dump:
    """Read all there is, through a service that knows nothing, and below it."""
    async with SessionHistoryService.from_url(arena.direct_url) as service:
        watched = SessionHistoryService(Observed(service.provider, pen))
        await Caller(watched, pen, f"end{time.monotonic_ns()}", user, sessions, "").look()
        invoked = time.monotonic_ns()
        logs = {session: await stored_log(service.provider, SessionKey(user, session)) for session in sessions}
        return Dump(invoked, time.monotonic_ns(), logs)


class Eras:
    """Eras of a store: from one restore to the next, or with new sessions."""

    def __init__(self, arena: Arena, plan: Plan, seed: int, report: Report) -> None:
        self._arena = arena
        self._plan = plan
        self._random = random.Random(seed)
        self._report = report
        self._base = Dump(0, 0, {})
        self._user = ""

    def run_one(self) -> list[Flaw]:
        """Run an era, check its history, and return the flaws."""
        is_new = not self._base.logs
        if is_new:
            self._user = f"user {self._random.randrange(1 << 32)}"
        sessions = [f"s{number}" for number in range(self._plan.sessions)]
        restores = self._arena.restore is not None and self._random.random() < self._plan.restores
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            history, wrong = self._record(folder, sessions, restores=restores)
            self._base = history.backups[0] if restores and history.backups else Dump(0, 0, {})
        flaws = [*wrong, *check(history)]
        if history.backups:
            [backup] = history.backups
            self._base = Dump(0, 0, backup.logs)
        self._report.add(history)
        self._report.flaws += flaws
        return flaws

    def _record(self, folder: Path, sessions: list[str], *, restores: bool) -> tuple[History, list[Flaw]]:
        history = History(base=self._base)
        order = {
            "url": self._arena.url, "user": self._user, "sessions": sessions, "seed": self._random.random(),
            "tasks": self._plan.tasks, "bug": self._plan.bug, "environment": self._arena.environment,
        }  # fmt: skip
        clients = Clients(order, folder, self._plan.clients)
        try:
            clients.wait_until_all_call()
            saved = self._harm(clients, backs_up=restores)
            wrong = [Flaw("client", text) for text in clients.end()]
        finally:
            clients.kill_all()
        pen = Pen(folder / "end.history")
        history.final = asyncio.run(look(self._arena, self._user, sessions, pen))
        for file in clients.histories():
            history.add(lines_of(file))
        if saved is not None:
            assert self._arena.restore is not None
            self._arena.restore()
            self._report.faults["restore"] += 1
            nowhere = Pen(folder / "restored")
            logs = asyncio.run(look(self._arena, self._user, sessions, nowhere)).logs
            history.backups.append(Dump(*saved, logs))
        return history, wrong

    def _harm(self, clients: Clients, *, backs_up: bool) -> tuple[int, int] | None:
        """Do harm for the time of an era. Return when a backup was made."""
        nemesis = Nemesis(self._arena, clients, self._random)
        began = time.monotonic()
        backup_time = began + self._random.uniform(0.2, 0.8) * self._plan.seconds
        saved = None
        while (now := time.monotonic()) < began + self._plan.seconds and not clients.ended():
            time.sleep(self._random.uniform(0, CALM))
            if backs_up and saved is None and now > backup_time:
                assert self._arena.back_up is not None
                invoked = time.monotonic_ns()
                self._arena.back_up()
                saved = invoked, time.monotonic_ns()
            if self._plan.faults:
                nemesis.act()
        nemesis.calm()
        self._report.faults += nemesis.done
        return saved


@contextmanager
def eras(name: str, plan: Plan, seed: int) -> Iterator[tuple[Eras, Report]]:
    """Run a store for eras."""
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        with ARENAS[name](folder) as arena:
            os.environ.update(arena.environment)
            yield Eras(arena, plan, seed, report), report


def run(
    name: str, plan: Plan, seed: int, *, seconds: float, progress: Callable[[Report], None] = lambda _: None
) -> Report:
    """Run eras on a store for some time, or until one has a flaw."""
    deadline = time.monotonic() + seconds
    with eras(name, plan, seed) as (run, report):
        while True:
            flaws = run.run_one()
            progress(report)
            if flaws or time.monotonic() > deadline:
                return report
