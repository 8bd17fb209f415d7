"""The life of a turn: how it is opened, and how it is stored however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Generic, TypeVar

from session_history.errors import Conflict, SessionBusy, SessionDeleted, SessionHistoryError
from session_history.log.reader import Reader, TurnWindow
from session_history.log.session_log import SessionLog
from session_history.log.waiting import Place
from session_history.records.messages import StoredMessage, check_fits
from session_history.records.record import Status, new_id
from session_history.turns.draft import Draft
from session_history.turns.shield import wait_shielded
from session_history.turns.turn import M, Prompt, SlotState, Turn, TurnRequest
from session_history.turns.writer import Writer
from session_history.view.transcript import recorded_part, unsaid
from session_history_hooks import SessionKey

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

logger: logging.Logger = logging.getLogger("session_history")

INTERRUPTIONS = (asyncio.CancelledError, GeneratorExit, TimeoutError, KeyboardInterrupt, SystemExit)
"""The exceptions that end a turn from outside: its partial answer counts. Any other one is the handler's failure."""


_entered: ContextVar[tuple[Writer, ...]] = ContextVar("session_history_exclusive_turns", default=())
"""Writers of exclusive turns that were opened in this context, or in the one that it was copied from."""


def enter(writer: Writer) -> None:
    """Note that the running task is in the exclusive turn of a writer. The note is void once the turn has ended."""
    _entered.set((*(each for each in _entered.get() if each.is_exclusive and each is not writer), writer))


def own_writer(log: SessionLog, key: SessionKey) -> Writer | None:
    """Return the writer of the exclusive turn of a session that the running task is in: it must not wait for it."""
    for writer in _entered.get():
        if writer.holds(log, key):
            return writer
    return None


class OpenTurn(Generic[M]):
    """The parts of a turn that is going on.

    :ivar outcome: how the turn stands if its body ends well.
    :ivar is_claiming: a claim of the session's lease is under way.
    :ivar on_stop: called with the error, if the service is stopped before the turn ends.
    """

    def __init__(self, log: SessionLog, reader: Reader, request: TurnRequest, window: TurnWindow) -> None:
        turn_id = request.turn_id if request.turn_id is not None else new_id()
        self.key: SessionKey = request.key
        self.native: bool = request.native
        self.window: TurnWindow = window
        self.outcome: Status = Status.COMPLETED
        self.is_claiming: bool = False
        self.on_stop: Callable[[BaseException], None] = lambda _: None
        self.draft: Draft = Draft(
            turn_id=request.turn_id,
            base=window.tail_seq,
            state_seq=window.state.seq if window.state else 0,
            native=request.native,
        )
        self.writer: Writer = Writer(
            log,
            reader,
            request.key,
            self.draft,
            head=window.head,
            recorded=window.recorded,
            answer_id=window.answer_id or turn_id,
            is_named=request.turn_id is not None,
            slot=request.slot,
        )
        self.prompt: Prompt = Prompt(window, alternate=request.alternate)
        self.state: SlotState = SlotState(request.slot, window, self.draft)
        self.turn: Turn[M] = Turn(
            request.key,
            turn_id,
            native=request.native,
            prompt=self.prompt,
            state=self.state,
            draft=self.draft,
            writer=self.writer,
        )

    def take_input(self, given: Sequence[StoredMessage]) -> bool:
        """Add the input without what the session has already; return whether it has a part of it.

        :raises TurnIdReused: the turn was recorded with another input.
        :raises TranscriptEdited: the input repeats the session's messages, but not as they are.
        """
        recorded = self.writer.recorded
        new = (
            recorded_part(given, recorded.inputs)
            if recorded
            else unsaid(given, self.window.turns, self.turn.id, earlier=self.window.turns_read)
        )
        self.draft.add_input(new)
        if recorded:
            self.writer.require_same_input(is_whole=bool(new))
        return len(new) < len(given)


class TurnContext(AbstractAsyncContextManager[T_co]):
    """Loads a session, hands out the turn, and stores what the turn said.

    :param turns: the open turns of the service.
    :param handle: makes what the context hands out: the :class:`Turn` for users, a recorder for drivers.
    """

    def __init__(
        self,
        log: SessionLog,
        reader: Reader,
        turns: OpenTurns,
        request: TurnRequest,
        handle: Callable[[OpenTurn[Any]], T_co],
    ) -> None:
        self._log = log
        self._reader = reader
        self._turns = turns
        self._request = request
        self._handle = handle
        self._opened: OpenTurn[Any] | None = None

    async def __aenter__(self) -> T_co:
        """Open the turn.

        :raises SessionBusy: another turn goes on for too long; or the running task is in an exclusive turn of the
            session.
        :raises LimitExceeded: the input is larger than an entry.
        """
        if self._request.messages:
            check_fits(self._request.messages, self._log.provider.limits.entry_bytes)
        if own_writer(self._log, self._request.key) is not None:
            raise SessionBusy(self._request.key, own=True)
        opened = await self._open_alone()
        try:
            await self._begin(opened)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self._handle(opened)

    async def _open_alone(self) -> OpenTurn[Any]:
        """Open the turn, and claim the session's lease if the turn is to be exclusive."""
        if self._request.concurrent != "queue":
            return await self._open_in_place(None)
        with Place(self._log.line(self._request.key), self._request.patience) as place:
            return await self._open_in_place(place)

    async def _open_in_place(self, place: Place | None) -> OpenTurn[Any]:
        while True:
            opened = self._opened = await self._open()
            is_shared = self._request.concurrent == "keep" or opened.writer.recorded is not None
            if is_shared or await self._claim(opened, place):
                return opened

    async def _begin(self, opened: OpenTurn[Any]) -> None:
        """Take the input, and store it now if the turn is durable."""
        request = self._request
        if opened.writer.is_exclusive:
            enter(opened.writer)
        if request.messages and opened.take_input(request.messages):
            opened.writer.warn_of_transcript()
        if request.durable and opened.writer.recorded is None:
            await run_to_completion(lambda: opened.writer.store(Status.OPEN))

    async def _open(self) -> OpenTurn[Any]:
        request = self._request
        await self._turns.ready()
        rerun = request.on_repeat == "rerun"
        window = await self._reader.for_turn(
            request.key, request.size, request.turn_id, request.slot, input=request.messages, rerun=rerun
        )
        await self._turns.ready()  # the service may have been stopped meanwhile
        if window.head is not None and window.head.deleted:
            raise SessionDeleted(request.key)
        opened: OpenTurn[Any] = OpenTurn(self._log, self._reader, request, window)
        self._turns.add(opened)
        return opened

    async def _claim(self, opened: OpenTurn[Any], place: Place | None) -> bool:
        """Claim the session's lease; return whether that worked. If not, the session is read again.

        :param place: that of a turn which waits for others.
        """
        try:
            if place is None or await place.come_forward(opened.window.head):
                await self._take_lease(opened)
            if place is not None and opened.writer.is_exclusive:
                place.succeed()
        except asyncio.CancelledError as cancelled:
            await self._turns.end_early(opened, Status.INTERRUPTED, cancelled)
            raise
        except SessionBusy:
            if place is None or not await self._wait_for_release(place):
                raise
        except Conflict:
            if place is not None:
                place.lose_race()
                if not await self._wait_for_release(place):
                    raise SessionBusy(self._request.key) from None
        finally:
            if not opened.writer.is_exclusive:
                self._turns.discard(opened)
        return opened.writer.is_exclusive

    async def _take_lease(self, opened: OpenTurn[Any]) -> None:
        await self._turns.ready()  # a stop that has begun does not wait for this claim
        opened.is_claiming = True
        try:
            await run_to_completion(opened.writer.claim)
        finally:
            opened.is_claiming = False

    async def _wait_for_release(self, place: Place) -> bool:
        """Wait until another turn does not have the session any more; return whether there was time for that."""
        while await place.wait_to_look():
            await self._turns.ready()
            if not await self._log.is_busy(self._request.key):
                return True
        return False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened = self._opened
        assert opened is not None
        if error is not None:
            status = Status.INTERRUPTED if isinstance(error, INTERRUPTIONS) else Status.FAILED
            await self._turns.end_early(opened, status, error)
        elif opened.draft.stop_error is not None and opened.draft.messages:
            raise opened.draft.stop_error
        else:
            await self._turns.end(opened, opened.outcome)


class OpenTurns:
    """The turns of a service that are not stored yet.

    :param ready: checks that the service may be used.
    """

    def __init__(self, ready: Callable[[], Awaitable[None]]) -> None:
        self.ready = ready
        self._open: set[OpenTurn[Any]] = set()

    def add(self, opened: OpenTurn[Any]) -> None:
        self._open.add(opened)

    def discard(self, opened: OpenTurn[Any]) -> None:
        self._open.discard(opened)

    async def end(self, opened: OpenTurn[Any], status: Status) -> None:
        """Store a turn, unless it has ended. It is stored also if the caller is cancelled meanwhile."""
        if opened.draft.status is None and _is_loop_running():
            opened.draft.close(status)
            await run_to_completion(lambda: self._store(opened, status))

    async def end_early(self, opened: OpenTurn[Any], status: Status, error: BaseException) -> None:
        """Store a turn that did not end well. The error that ended it goes on, also if the turn cannot be stored."""
        try:
            await self.end(opened, status)
        except SessionHistoryError as lost:
            log_unsaved(opened.key, lost, error)
        except asyncio.CancelledError as cancelled:
            if isinstance(cancelled.__cause__, SessionHistoryError):
                log_unsaved(opened.key, cancelled.__cause__, error)
            raise

    def unfinished(self) -> list[OpenTurn[Any]]:
        """Return the turns that are open, and those that are being stored."""
        return list(self._open)

    async def _store(self, opened: OpenTurn[Any], status: Status) -> None:
        try:
            await opened.writer.store(status)
        finally:
            opened.writer.end_lease()
            if not opened.is_claiming:  # a stop waits for the claim, to give up its lease
                self.discard(opened)


async def run_to_completion(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Finish work although the caller is cancelled meanwhile; then let the cancellation go on.

    If the work failed, too, its error is the cancellation's cause. An event loop that shuts down cancels the work
    itself, too: then it is done again, once.

    :param work: may be done twice with the effect of once.
    """
    cancelled: asyncio.CancelledError | None = None
    for _ in range(2):
        task = asyncio.ensure_future(work())
        # If this coroutine is dropped before the work is done, nobody asks for the work's error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not task.done():
            try:
                await (asyncio.wait([task]) if cancelled is None else wait_shielded(task))
            except asyncio.CancelledError as error:
                cancelled = error
        if not task.cancelled():
            break
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


def _is_loop_running() -> bool:
    """Tell whether a loop runs. Python may close a coroutine after its loop; then ``stop()`` stores the turn."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def log_unsaved(key: SessionKey, lost: SessionHistoryError, error: BaseException) -> None:
    """Tell that a turn is lost, in the log and in the error with which it ended."""
    logger.error("a turn of %s could not be stored: %r", key, lost)
    error.add_note(f"session-history: the turn could not be stored: {lost!r}")
