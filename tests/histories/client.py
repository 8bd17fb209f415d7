"""A process that calls a service at random until SIGTERM. SIGUSR1 lets its wall clock jump."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from histories.bugs import BUGS
from histories.history import Pen
from histories.observed import Observed
from histories.operations import Caller
from session_history import SessionHistoryService
from session_history.errors import SessionHistoryError
from session_history.log import leases, session_log, waiting

LEASE_SECONDS = 1.0
"""A short time to live, so that exclusive turns are really taken over."""

RETRY_TIMEOUT = 6.0
POLL_INTERVAL = 0.01

HOURS = 48


class JumpingClock:
    """The wall clock of a process, which jumps back and forth."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._real = time.time_ns
        self._offset = 0
        time.time_ns = lambda: self._real() + self._offset
        time.time = lambda: time.time_ns() / 1e9

    def jump(self) -> None:
        self._offset = self._random.randrange(-HOURS, HOURS) * 3600 * 10**9


def shorten_times() -> None:
    leases.LEASE_SECONDS = LEASE_SECONDS
    session_log.RETRY_TIMEOUT = RETRY_TIMEOUT
    waiting.POLL_INTERVAL = POLL_INTERVAL


async def call_until(stopped: asyncio.Event, caller: Caller) -> None:
    while not stopped.is_set():
        await caller.call_once()


async def started(service: SessionHistoryService) -> SessionHistoryService:
    """Start a service as soon as its store can be used."""
    while True:
        try:
            await service.start()
        except SessionHistoryError as error:
            print(f"cannot start yet: {error!r}", flush=True)
            await asyncio.sleep(0.05)
        else:
            return service


async def run(order: dict[str, Any]) -> None:
    pen = Pen(Path(order["file"]))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, JumpingClock(order["name"]).jump)
    opened = SessionHistoryService.from_url(order["url"])
    service = await started(SessionHistoryService(Observed(opened.provider, pen)))
    callers = [
        Caller(service, pen, f"{order['name']}.{task}", order["user"], order["sessions"], f"{order['seed']} {task}")
        for task in range(order["tasks"])
    ]
    await asyncio.gather(*(call_until(stopped, caller) for caller in callers))
    await service.stop()


def main(order: dict[str, Any]) -> None:
    """Follow an order.

    :param order: ``url``, ``user``, ``sessions``, ``tasks``, ``seed``, ``bug`` and ``environment``; the ``name`` of the
        client, and the paths of its history (``file``) and of its ``log``.
    """
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    os.environ.update(order["environment"])
    shorten_times()
    if order["bug"]:
        BUGS[order["bug"]]()
    asyncio.run(run(order))
