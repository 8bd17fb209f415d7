"""The processes of :mod:`.writing`, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from torture.manifest import Manifest

PROCESSES = 2
PATIENCE = 60.0
"""Seconds until something is acknowledged, after which the writers count as hanging."""


class Writers:
    """Two processes that append to one store; the manifest of what they said is theirs together."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.manifest = folder / "manifest"
        self._folder = folder
        self.running: dict[subprocess.Popen[bytes], str] = {}
        """The oldest first, with their names."""

    def __enter__(self) -> Self:
        try:
            for _ in range(PROCESSES):
                self.start()
            self._wait(self._all_have_acknowledged)  # a provider that starts does not wait for an absent server
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = any(process.poll() is not None for process in self.running)
        self._kill_all()
        assert error is not None or not ended, f"a writer ended by itself:\n{self.said()}"

    def start(self) -> None:
        name = uuid4().hex[:8]
        command = [sys.executable, "-m", "torture.writing", self.url, str(self.manifest), name]
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self._folder / "writers.log").open("ab") as log:
            process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stdout=log, stderr=log
            )
        self.running[process] = name

    def kill_one(self) -> None:
        process = next(iter(self.running))
        assert process.poll() is None, f"a writer ended by itself:\n{self.said()}"
        self._kill(process)

    def wait_until_something_is_acknowledged(self) -> None:
        before = Manifest.read(self.manifest).count
        self._wait(lambda: Manifest.read(self.manifest).count > before)

    def _all_have_acknowledged(self) -> bool:
        return set(self.running.values()) <= Manifest.read(self.manifest).writers

    def _wait(self, done: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not done():
            assert time.monotonic() < began + PATIENCE, f"the writers hang:\n{self.said()}"
            assert all(process.poll() is None for process in self.running), f"a writer ended:\n{self.said()}"
            time.sleep(0.02)

    def _kill_all(self) -> None:
        for process in list(self.running):
            self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        del self.running[process]
        process.kill()
        process.wait()

    def said(self) -> str:
        with suppress(FileNotFoundError):
            return (self._folder / "writers.log").read_text()[-3000:]
        return ""
