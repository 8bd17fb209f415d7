"""Runs of clients and a nemesis on a store, and the histories that they leave."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from histories import client
from histories.arenas import ARENAS, Arena
from histories.checker import Flaw, check
from histories.clients import Clients
from histories.history import FOREVER, Dump, EntryFacts, History, Pen, StoredLog, lines_of
from histories.nemesis import Nemesis
from histories.observed import Observed, facts_of
from histories.operations import Caller
from histories.splitting import split
from session_history import SessionHistoryService
from session_history_hooks import SessionHistoryProvider, SessionKey

CALM = 0.4
"""The most seconds between two faults."""


@dataclass
class Plan:
    """The use that clients make of a store.

    :ivar seconds: how long an era lasts.
    :ivar restores: the share of eras in which a backup is restored.
    :ivar live: the share of restores while clients go on, of a store that allows it.
    :ivar bug: a planted bug, see :mod:`.bugs`.
    :ivar keep: the folder for the histories of an era with a flaw. They cannot be made again: processes race.
    """

    seconds: float = 10.0
    clients: int = 4
    tasks: int = 3
    sessions: int = 4
    restores: float = 0.3
    live: float = 0.5
    faults: bool = True
    bug: str = ""
    keep: Path | None = None


@dataclass
class Report:
    """Counts of all that was done and seen."""

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


async def dump(url: str, user: str, sessions: list[str]) -> Dump:
    """Read all logs below the service."""
    async with SessionHistoryService.from_url(url) as service:
        invoked = time.monotonic_ns()
        logs = {session: await stored_log(service.provider, SessionKey(user, session)) for session in sessions}
        return Dump(invoked, time.monotonic_ns(), logs)


async def look(url: str, user: str, sessions: list[str], pen: Pen) -> None:
    """Read all sessions through a service that knows nothing of them."""
    async with SessionHistoryService.from_url(url) as service:
        watched = SessionHistoryService(Observed(service.provider, pen))
        await Caller(watched, pen, f"end{time.monotonic_ns()}", user, sessions, "").look()


class Restore(StrEnum):
    """When a backup is restored."""

    NEVER = "never"
    AFTERWARDS = "after all clients have ended"
    LIVE = "while clients go on"


@dataclass
class Times:
    """When a backup was made, and when it was restored while clients went on."""

    backup: tuple[int, int] | None = None
    restore: tuple[int, int] | None = None


class Eras:
    """Eras of a store: from one restore to the next, or with new sessions."""

    def __init__(self, arena: Arena, plan: Plan, seed: int, report: Report) -> None:
        self._arena = arena
        self._plan = plan
        self._random = random.Random(seed)
        self._report = report
        self._base = Dump(0, 0, {})
        self._user = ""
        self._sessions = [f"s{number}" for number in range(plan.sessions)]

    def run_one(self) -> list[Flaw]:
        """Run clients, check their history, and return the flaws."""
        if not self._base.logs:
            self._user = f"user {self._random.randrange(1 << 32)}"
        with tempfile.TemporaryDirectory() as temporary:
            histories, flaws = self._record(Path(temporary), self._way())
            for history in histories:
                flaws += check(history, lease_seconds=client.LEASE_SECONDS)
                self._report.add(history)
            if flaws and self._plan.keep:
                shutil.copytree(temporary, self._plan.keep, dirs_exist_ok=True)
        self._report.flaws += flaws
        return flaws

    def _way(self) -> Restore:
        if self._arena.restore is None or self._random.random() >= self._plan.restores:
            return Restore.NEVER
        return (
            Restore.LIVE if self._arena.restore_live and self._random.random() < self._plan.live else Restore.AFTERWARDS
        )

    def _record(self, folder: Path, way: Restore) -> tuple[list[History], list[Flaw]]:
        """Run clients; return their history, before and after a restore, and what is wrong with how they ended."""
        order = {
            "url": self._arena.url, "user": self._user, "sessions": self._sessions, "seed": self._random.random(),
            "tasks": self._plan.tasks, "bug": self._plan.bug, "environment": self._arena.environment,
        }  # fmt: skip
        clients = Clients(order, folder, self._plan.clients)
        try:
            clients.wait_until_all_call()
            times = self._harm(clients, way)
            wrong = [Flaw("client", text) for text in clients.end()]
        finally:
            clients.kill_all()
        asyncio.run(look(self._arena.direct_url, self._user, self._sessions, Pen(folder / "end.history")))
        history = History(base=self._base, final=self._dump(self._arena.direct_url))
        for file in clients.histories():
            history.add(lines_of(file))
        return self._eras_of(history, times), wrong

    def _eras_of(self, history: History, times: Times) -> list[History]:
        """Return a history as two, if a backup was restored while clients went on; else restore one that was made."""
        self._base = Dump(0, 0, {})
        if times.backup is None:
            return [history]
        assert self._arena.opened_backup
        if times.restore is None:
            self._restore(self._arena.restore)
            logs = self._dump(self._arena.direct_url).logs
            history.backups.append(Dump(*times.backup, logs))
            self._base = Dump(0, 0, logs)
            return [history]
        with self._arena.opened_backup() as url:
            return list(split(history, *times.restore, Dump(*times.backup, self._dump(url).logs)))

    def _dump(self, url: str) -> Dump:
        return asyncio.run(dump(url, self._user, self._sessions))

    def _restore(self, restore: Callable[[], int] | None) -> tuple[int, int]:
        assert restore
        self._report.faults["restore"] += 1
        return restore(), time.monotonic_ns()

    def _harm(self, clients: Clients, way: Restore) -> Times:
        """Do harm for the time of an era; make and restore a backup meanwhile, if the way is such."""
        nemesis = Nemesis(self._arena, clients, self._random)
        began, seconds = time.monotonic(), self._plan.seconds
        backup_time = began + self._random.uniform(0.2, 0.4 if way is Restore.LIVE else 0.8) * seconds
        restore_time = began + self._random.uniform(0.4, 0.7) * seconds
        times = Times()
        while (now := time.monotonic()) < began + seconds and not clients.ended():
            time.sleep(self._random.uniform(0, CALM))
            if way is not Restore.NEVER and times.backup is None and now > backup_time:
                times.backup = self._back_up()
            elif way is Restore.LIVE and times.backup and times.restore is None and now > restore_time:
                times.restore = self._restore(self._arena.restore_live)
            elif self._plan.faults:
                nemesis.act()
        nemesis.calm()
        if way is not Restore.NEVER and times.backup is None:  # the last fault took long
            times.backup = self._back_up()
        self._report.faults += nemesis.done
        return times

    def _back_up(self) -> tuple[int, int]:
        assert self._arena.back_up
        began = time.monotonic_ns()
        self._arena.back_up()
        return began, time.monotonic_ns()


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
