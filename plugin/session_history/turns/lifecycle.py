"""The turns of a service: how one is opened, and how it is stored however it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, get_args

from session_history.errors import Conflict, SessionBusy, SessionDeleted, SessionHistoryError, Unavailable
from session_history.log.reader import Windows
from session_history.log.session_log import POLL_INTERVAL, RETRY_TIMEOUT, SessionLog
from session_history.records.record import Status
from session_history.turns.turn import M, Turn
from session_history.view.budget import Size
from session_history_hooks import SessionKey, check_key

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("session_history")

_LOOK_AGAIN = 0.005
"""Seconds between two looks at turns that are being stored, perhaps by another event loop."""

Concurrent = Literal["keep", "reject", "queue"]
"""What becomes of turns of one session that go on at once: both are kept, in the order in which they end; or the later
one is rejected; or it waits for the earlier one."""

INTERRUPTIONS = (asyncio.CancelledError, GeneratorExit, TimeoutError, KeyboardInterrupt, SystemExit)
"""What ends a turn from outside: its partial answer counts. Any other exception is the handler's failure."""


class OpenTurn(Generic[M]):
    """Loads a session, hands out the turn, and stores what the turn said. The data path of every skin.

    :param turns: the turns that are open, this one included while it is.
    :ivar outcome: how the turn stands after a body that ended well.
    """

    outcome: Status = Status.COMPLETED

    def __init__(
        self,
        log: SessionLog,
        windows: Windows,
        key: SessionKey,
        turns: Turns,
        *,
        turn_id: str | None,
        size: Size,
        native: bool,
        slot: str | None,
        concurrent: Concurrent,
    ) -> None:
        self._log = log
        self._windows = windows
        self._key = key
        self._turns = turns
        self._turn_id = check_key("turn_id", turn_id) if turn_id is not None else None
        self._size = size
        self._native = native
        self._slot = check_key("slot", slot) if slot is not None else None
        self._concurrent = check_concurrent(concurrent)
        self._turn: Turn[M] | None = None

    async def __aenter__(self) -> Turn[M]:
        while True:
            self._turn = turn = await self._read()
            if self._concurrent == "keep" or turn._record is not None or await self._claims(turn):
                return turn

    async def _read(self) -> Turn[M]:
        await self._turns.ready()
        window = await self._windows.for_turn(self._key, self._size, self._turn_id, self._slot)
        await self._turns.ready()  # it may have been stopped meanwhile
        if window.head is not None and window.head.deleted:
            raise SessionDeleted(self._key)
        turn: Turn[M] = Turn(self._log, self._key, self._turn_id, window, native=self._native, slot=self._slot)
        self._turns.add(turn)
        return turn

    async def _claims(self, turn: Turn[M]) -> bool:
        """Whether the session belongs to the turn alone from now on; else it is to be read anew."""
        try:
            await run_to_completion(turn._claim)
        except asyncio.CancelledError as cancelled:
            await self._turns.end_early(turn, Status.INTERRUPTED, cancelled)
            raise
        except SessionBusy:
            if self._concurrent == "reject":
                raise
            await asyncio.sleep(POLL_INTERVAL)
        except Conflict:
            pass
        finally:
            if turn._lease is None:
                self._turns.discard(turn)
        return turn._lease is not None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        turn = self._turn
        assert turn is not None
        if error is not None:
            status = Status.INTERRUPTED if isinstance(error, INTERRUPTIONS) else Status.FAILED
            await self._turns.end_early(turn, status, error)
        elif turn._cut_off is not None and turn._messages:
            raise turn._cut_off
        else:
            await self._turns.end(turn, self.outcome)

    async def checkpoint(self, status: Status = Status.OPEN) -> None:
        """Store what the turn said so far, also if the caller is cancelled meanwhile.

        :param status: how the turn stands.
        :raises ValueError: its caller gave the turn an id: a repeat would not find what was stored so far.
        """
        turn = self._turn
        assert turn is not None
        if turn._given_id is not None:
            raise ValueError("a turn with an id is stored at once, at its end")
        turn._insist_open()
        await run_to_completion(lambda: turn._store(status))


class Turns:
    """The turns of a service that are not stored yet.

    :param ready: makes sure that the service may be used.
    """

    def __init__(self, ready: Callable[[], Awaitable[None]]) -> None:
        self.ready = ready
        self._open: set[Turn[Any]] = set()

    def add(self, turn: Turn[Any]) -> None:
        self._open.add(turn)

    def discard(self, turn: Turn[Any]) -> None:
        self._open.discard(turn)

    async def end(self, turn: Turn[Any], status: Status) -> None:
        """Store a turn, unless it has ended; also if the caller is cancelled meanwhile."""
        if turn._status is None and _a_loop_is_running():
            turn._close(status)
            await run_to_completion(lambda: self._store(turn, status))

    async def end_early(self, turn: Turn[Any], status: Status, error: BaseException) -> None:
        """Store a turn that did not end well. The error that ended it goes on, whatever becomes of this."""
        try:
            await self.end(turn, status)
        except SessionHistoryError as lost:
            _tell_of_loss(turn, lost, error)
        except asyncio.CancelledError as cancelled:
            if isinstance(cancelled.__cause__, SessionHistoryError):
                _tell_of_loss(turn, cancelled.__cause__, error)
            raise

    async def interrupt_all(self) -> None:
        """End what is open: a stream that nobody closed would otherwise be lost. Wait for what is being stored."""
        deadline = time.monotonic() + RETRY_TIMEOUT
        endings = [asyncio.ensure_future(self._cut_off(turn)) for turn in list(self._open) if turn._status is None]
        if endings:
            await asyncio.wait(endings, timeout=RETRY_TIMEOUT)
        while self._open and time.monotonic() < deadline:  # noqa: ASYNC110 - an Event belongs to one loop
            await asyncio.sleep(_LOOK_AGAIN)

    async def _cut_off(self, turn: Turn[Any]) -> None:
        stopped = Unavailable("the service was stopped during the turn, which is stored as interrupted")
        turn._last_words(stopped)
        turn._cut_off = stopped
        try:
            await self.end(turn, Status.INTERRUPTED)
        except SessionHistoryError as lost:
            turn._cut_off = Unavailable("the service was stopped during the turn, which could not be stored")
            turn._cut_off.__cause__ = lost
            _tell_of_loss(turn, lost, turn._cut_off)

    async def _store(self, turn: Turn[Any], status: Status) -> None:
        try:
            await turn._store(status)
        finally:
            turn._end_lease()
            self.discard(turn)


async def run_to_completion(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Finish work although the caller is cancelled meanwhile; the cancellation goes on afterwards.

    If the work failed, too, its error is the cancellation's cause. A loop that shuts down cancels the work itself, too:
    it is then done again, once.

    :param work: doing it twice must be the same as doing it once.
    """
    cancelled: asyncio.CancelledError | None = None
    for _ in range(2):
        task = asyncio.ensure_future(work())
        # If this is dropped before the work is done, nobody asks for the work's error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if not task.cancelled():
            break
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


def check_concurrent(concurrent: Concurrent) -> Concurrent:
    if concurrent not in get_args(Concurrent):
        raise ValueError(f"concurrent must be one of {', '.join(map(repr, get_args(Concurrent)))}")
    return concurrent


def _a_loop_is_running() -> bool:
    """Python may end what was left suspended when its loop is closed. Then ``stop()`` stores the turn."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tell_of_loss(turn: Turn[Any], lost: SessionHistoryError, error: BaseException) -> None:
    logger.error("a turn of %s could not be stored: %r", turn._key, lost)
    error.add_note(f"session-history: the turn could not be stored: {lost!r}")
