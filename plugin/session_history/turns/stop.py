"""The end of a service: its open turns are stored as interrupted."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from session_history.errors import SessionHistoryError, Unavailable
from session_history.log.session_log import RETRY_TIMEOUT
from session_history.records.record import Status
from session_history.turns.lifecycle import OpenTurn, OpenTurns, log_unsaved

logger: logging.Logger = logging.getLogger("session_history")

_POLL_INTERVAL = 0.005
"""Seconds between two looks at turns that are being stored, perhaps by another event loop."""


async def interrupt_all(turns: OpenTurns) -> None:
    """Store the turns that are open, and wait for those that are being stored."""
    deadline = time.monotonic() + RETRY_TIMEOUT
    going_on = [opened for opened in turns.unfinished() if opened.draft.status is None]
    endings = [asyncio.ensure_future(_interrupt(turns, opened)) for opened in going_on]
    if endings:
        await asyncio.wait(endings, timeout=RETRY_TIMEOUT)
    while turns.unfinished() and time.monotonic() < deadline:  # noqa: ASYNC110 - an Event belongs to one loop
        await asyncio.sleep(_POLL_INTERVAL)


async def _interrupt(turns: OpenTurns, opened: OpenTurn[Any]) -> None:
    stopped = Unavailable("the service was stopped during the turn, which is stored as interrupted")
    try:
        opened.on_stop(stopped)
    except Exception as error:  # of the driver: what it added until then is stored
        logger.error("%s: a callback at the stop raised %s", opened.key, type(error).__name__)
    opened.draft.stop_error = stopped
    try:
        await turns.end(opened, Status.INTERRUPTED)
    except SessionHistoryError as lost:
        opened.draft.stop_error = Unavailable("the service was stopped during the turn, which could not be stored")
        opened.draft.stop_error.__cause__ = lost
        log_unsaved(opened.key, lost, opened.draft.stop_error)
