"""The processes of :mod:`.writing`, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for _ in range(PROCESSES):
            self.start()
        self.wait_until_something_is_acknowledged()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._running:
            self.kill_one()

    def start(self) -> None:
        name = uuid4().hex[:8]
        command = [sys.executable, "-m", "torture.writing", self.url, str(self.manifest), name]
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self._folder / "writers.log").open("ab") as log:
            process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stdout=log, stderr=log
            )
        self._running.append(process)

    def kill_one(self) -> None:
        process = self._running.pop(0)
        assert process.poll() is None, f"a writer ended by itself:\n{self.said()}"
        process.kill()
        process.wait()

    def wait_until_something_is_acknowledged(self) -> float:
        """Seconds until the next acknowledgement."""
        began, before = time.monotonic(), Manifest.read(self.manifest).count
        while Manifest.read(self.manifest).count == before:
            assert time.monotonic() < began + PATIENCE, f"the writers hang:\n{self.said()}"
            assert all(process.poll() is None for process in self._running), f"a writer ended:\n{self.said()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def said(self) -> str:
        with suppress(FileNotFoundError):
            return (self._folder / "writers.log").read_text()[-3000:]
        return ""
