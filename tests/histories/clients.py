"""The processes of :mod:`.client`, from outside."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from histories import client
from support import PRELOADED

END_TIMEOUT = 30.0
"""Seconds in which a client that is to end has to end."""

PROCESSES = multiprocessing.get_context("forkserver")
"""A server that has the modules of a client loaded already: a client that was killed is soon replaced."""

PROCESSES.set_forkserver_preload(PRELOADED)


@contextmanager
def tests_on_path() -> Iterator[None]:
    """Let the server of processes find the modules of the tests. It loads modules before it is told where they are."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [before])])
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        os.environ |= {"PYTHONPATH": before} if before is not None else {}


class Clients:
    """Processes that use one store. One that was killed is replaced by another one.

    :param order: what all of them are to do, see :mod:`.client`.
    :param folder: of their histories.
    :ivar running: the clients, each with its name.
    """

    def __init__(self, order: dict[str, Any], folder: Path, count: int) -> None:
        self.running: dict[ForkServerProcess, str] = {}
        self._order = order
        self._folder = folder
        self._started = 0
        for _ in range(count):
            self.start()

    def start(self) -> None:
        self._started += 1
        name = f"c{self._started}"
        order = {
            **self._order,
            "name": name,
            "file": str(self._history(name)),
            "log": str(self._folder / f"{name}.log"),
        }
        process = PROCESSES.Process(target=client.main, args=(order,), daemon=True)
        with tests_on_path():
            process.start()
        self.running[process] = name

    def wait_until_all_call(self) -> None:
        """Wait until each process has made a call, or one has ended by itself."""
        deadline = time.monotonic() + END_TIMEOUT
        while time.monotonic() < deadline and len(self.histories()) < self._started and not self.ended():
            time.sleep(0.02)

    def histories(self) -> list[Path]:
        return [each for each in self._folder.glob("*.history") if each.stat().st_size]

    def one(self, chance: random.Random) -> ForkServerProcess | None:
        living = [each for each in self.running if each.is_alive()]
        return chance.choice(living) if living else None

    def kill(self, process: ForkServerProcess) -> None:
        del self.running[process]
        process.kill()
        process.join()

    def jump_clock(self, process: ForkServerProcess) -> None:
        """Let the wall clock of a client jump, if the client has begun."""
        if self._history(self.running[process]) in self.histories():
            self._signal(process, signal.SIGUSR1)

    def ended(self) -> list[ForkServerProcess]:
        """Return the processes that ended by themselves."""
        return [process for process in self.running if not process.is_alive()]

    def end(self) -> list[str]:
        """Let the processes finish what they do; return what is wrong with how they end."""
        wrong = []
        for process in self.running:
            self._signal(process, signal.SIGTERM)
        deadline = time.monotonic() + END_TIMEOUT
        for process, name in self.running.items():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                self._signal(process, signal.SIGABRT)
                process.join()
                wrong.append(f"{name} hangs:\n{self._said(name)}")
            elif process.exitcode not in {0, -signal.SIGTERM}:  # one that has not begun yet dies of the signal
                wrong.append(f"{name} ended with {process.exitcode}:\n{self._said(name)}")
        self.running.clear()
        return wrong

    def kill_all(self) -> None:
        for process in list(self.running):
            self.kill(process)

    @staticmethod
    def _signal(process: ForkServerProcess, number: int) -> None:
        if process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def _history(self, name: str) -> Path:
        return self._folder / f"{name}.history"

    def _said(self, name: str) -> str:
        log = self._folder / f"{name}.log"
        return log.read_text()[-3000:] if log.exists() else ""
