"""Runs of plans: each way to take a turn, and each thing that may befall it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from driver import values
from driver.books import Act, Book, Flaw, require
from driver.dialects import Json
from driver.plans import Plan
from driver.values import Deviation
from session_history import SessionHistoryService, StoredMessage, Turn, TurnRecorder, with_session_history
from session_history.errors import LimitExceeded, NotStorable, SessionBusy, Unavailable
from session_history.records.messages import NATIVE

SOON = 3.0
"""Seconds in which what must happen at once has happened, on a busy machine."""


class Broken(Exception):
    """The error that a handler raises."""


@dataclass
class Run:
    """The outcome of a turn.

    :ivar handed: what was handed over, and taken.
    :ivar expected: all messages of the turn, as they were handed over.
    :ivar also: deviations that are no part of a message.
    :ivar entered: the body ran.
    :ivar left: the consumer left the stream.
    :ivar returning: acts that a handler returned.
    :ivar answer: what the caller got.
    :ivar stored: how many acts an acknowledged checkpoint holds.
    """

    plan: Plan
    handed: list[Act] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    also: list[Deviation] = field(default_factory=list)
    turn: Turn[Json] | None = None
    entered: bool = False
    left: bool = False
    returning: list[Act] | None = None
    returned: Any = None
    answer: Any = None
    error: BaseException | None = None
    stored: int = 0
    state: str | None = None
    nested: Run | None = None
    pieces: list[str] = field(default_factory=list)
    histories: list[list[Json]] = field(default_factory=list)
    refused: list[BaseException] = field(default_factory=list)

    def hand(self, act: Act) -> None:
        self.handed.append(act)
        self.expected += act.messages

    def end_text(self) -> None:
        if self.pieces:
            self.expected.append({"role": "assistant", "content": "".join(self.pieces)})
            self.pieces = []

    @property
    def is_replay(self) -> bool:
        return self.turn is not None and self.turn.recorded is not None


Disturb = Callable[[Run], Awaitable[None]]


class Runner:
    """Runs plans.

    :param services: on one store.
    :param dropped: returns a further service on the store of one, which is never stopped.
    """

    def __init__(
        self, services: list[SessionHistoryService], dropped: Callable[[SessionHistoryService], SessionHistoryService]
    ) -> None:
        self.services = services
        self._dropped = dropped
        self._kept: list[object] = []  # so that nothing ends a dropped turn

    async def run(self, plan: Plan) -> Run:
        """Take a turn. Its error is kept."""
        run = Run(plan)
        task = asyncio.ensure_future(self._take(run))
        try:
            if plan.end.endswith("from outside"):
                await self._end_from_outside(run, task)
            else:
                await task
        except Flaw:
            raise
        except (Exception, asyncio.CancelledError) as error:
            run.error = error
        run.end_text()
        if run.returning is not None and not isinstance(run.error, Unavailable):
            self._take_returned(run)
        return run

    async def _end_from_outside(self, run: Run, task: asyncio.Task[None]) -> None:
        is_memory = "memory" in repr(self.services[0]).lower()
        for _ in range(run.plan.loops if is_memory else 1):
            await asyncio.sleep(0 if is_memory else run.plan.loops / 10_000)
        if run.plan.end.startswith("times out"):
            await asyncio.wait_for(task, 0.0005)
        else:
            task.cancel()
            await task

    async def _take(self, run: Run) -> None:
        way = run.plan.way
        service = self.services[run.plan.service]
        if run.plan.end == "is dropped":
            await self._drop(run, self._dropped(service))
        elif way == "handler":
            await self._call(run, service)
        elif way == "stream":
            await self._stream(run, service)
        elif way == "turn":
            async with service.turn(native=True, **self._opening(run.plan)) as turn:
                await self._in_turn(run, turn)
        else:
            async with service.record_turn(**self._opening(run.plan)) as recorder:
                await self._record(run, recorder)

    @staticmethod
    def _who(plan: Plan) -> dict[str, str]:
        return {"user_id": plan.book.user, "session_id": plan.book.session}

    def _opening(self, plan: Plan) -> dict[str, Any]:
        """Return the arguments that open the turn."""
        return {**self._who(plan), **plan.options, **({} if plan.input is None else {"input": plan.input})}

    # Decorated handlers

    async def _call(self, run: Run, service: SessionHistoryService) -> None:
        plan = run.plan
        options = {name: value for name, value in plan.options.items() if name != "turn_id"}

        @with_session_history(service, native=True, **options)  # type: ignore[untyped-decorator]
        async def handler(messages: list[Json], turn: Turn[Json]) -> Any:
            self._enter(run, turn, messages)
            await self._add(run, turn, range(plan.returned))
            await self._reach(run, range(plan.returned, len(plan.acts) + 1))
            run.returning = plan.acts[plan.returned :]
            run.returned = self._answer(run)
            return run.returned

        run.answer = await handler(plan.input, **self._who(plan), turn_id=plan.turn_id)

    @staticmethod
    def _answer(run: Run) -> Any:
        """Return acts in one of the shapes of an answer."""
        acts, style = run.returning or [], run.plan.style
        if len(acts) == 1 and acts[0].text is not None and style < 3:
            return acts[0].text
        messages = [message for act in acts for message in act.messages]
        if style == 3:
            return tuple(messages)
        if style == 4:
            return [act.messages for act in acts]
        return messages[0] if len(messages) == 1 and style == 5 else messages

    def _take_returned(self, run: Run) -> None:
        first = len(run.expected)
        for act in run.returning or ():
            run.hand(act)
        if isinstance(run.returned, str):
            run.expected[-1] = {"role": "assistant", "content": run.returned}
        if isinstance(run.returned, tuple):
            run.also.append(Deviation(f"messages[{first}]", "tuple", "converted"))

    async def _stream(self, run: Run, service: SessionHistoryService) -> None:
        plan = run.plan
        options = {name: value for name, value in plan.options.items() if name != "turn_id"}

        @with_session_history(service, native=True, **options)  # type: ignore[untyped-decorator]
        async def handler(messages: list[Json], turn: Turn[Json]) -> AsyncIterator[Any]:
            self._enter(run, turn, messages)
            for index, act in enumerate(plan.acts):
                await self._reach(run, [index])
                for item in self._items(act, plan.style):
                    yield item
            await self._reach(run, [len(plan.acts)])

        stream = handler(plan.input, **self._who(plan), turn_id=plan.turn_id)
        run.answer = []
        received = 0
        async with aclosing(stream):
            async for item in stream:
                run.answer.append(item)
                if run.entered and not run.is_replay:
                    received = self._receive(run, item, received)
                if plan.end == "is left" and received >= plan.cut:
                    run.left = True
                    break

    @staticmethod
    def _items(act: Act, style: int) -> list[Any]:
        if act.text is not None and style < 3:
            return [act.text[:2], "", act.text[2:]]
        return [act.messages] if style == 4 else act.messages

    def _receive(self, run: Run, item: Any, received: int) -> int:
        """Note an item of a stream, which the consumer has now; return how many acts are complete."""
        act = run.plan.acts[received]
        if isinstance(item, str):
            run.pieces += [item] if item else []
            if "".join(run.pieces) == act.text:
                run.handed.append(act)
                return received + 1
            return received
        run.end_text()
        messages = item if isinstance(item, list) else [item]
        run.expected += messages
        if messages[-1] is not act.messages[-1]:
            return received
        run.handed.append(act)
        return received + 1

    # Contexts

    def _enter(self, run: Run, turn: Turn[Json], messages: list[Json]) -> None:
        run.turn = turn
        run.histories.append(messages)
        run.plan.book.check_tokens(messages, f"history of {run.plan}")
        run.plan.book.check_tokens(turn.repairs and [str(turn.repairs)], f"repairs of {run.plan}")
        if turn.recorded is None:
            run.entered = True
            if run.plan.input is not None:
                given = run.plan.input if isinstance(run.plan.input, list) else [run.plan.input]
                run.expected += [{"role": "user", "content": g} if isinstance(g, str) else g for g in given]
        if "slot" in run.plan.options:
            self._state(run, turn)

    def _state(self, run: Run, turn: Turn[Json]) -> None:
        """Read the state, and set another one."""
        book = run.plan.book
        book.check_tokens(turn.state, f"state of {run.plan}")
        require(
            turn.state is None or turn.state["n"] in book.states, f"{run.plan}: the state is not one of this session"
        )
        if run.plan.style == 0:
            with self._refusal(run, NotStorable, "state.when"):
                turn.state = {"when": (1,)}
        if not run.is_replay:
            run.state = book.token()
            book.states.append(run.state)
            turn.state = {"n": run.state}

    def _refusal(self, run: Run, error: type[Exception], path: str | None) -> Refused:
        return Refused(run, error, path)

    async def _in_turn(self, run: Run, turn: Turn[Json]) -> None:
        self._enter(run, turn, turn.history)
        if run.is_replay:
            return
        plan = run.plan
        if plan.first is not None:
            self._add_first(run, turn)
        await self._add(run, turn, range(len(plan.acts) + 1))

    def _add_first(self, run: Run, turn: Turn[Json]) -> None:
        plan = run.plan
        assert plan.first is not None
        if plan.refusal is None:
            turn.add(plan.first.messages)
            run.hand(plan.first)
            return
        with self._refusal(run, plan.refusal.error, plan.refusal.path):
            turn.add(plan.first.messages[0])

    async def _add(self, run: Run, turn: Turn[Json], indexes: range) -> None:
        for index in indexes:
            await self._reach(run, [index])
            if index < len(run.plan.acts):
                act = run.plan.acts[index]
                turn.add(act.messages[0] if len(act.messages) == 1 and run.plan.style % 2 else act.messages)
                run.hand(act)
                require(len(turn.messages) == len(run.expected), f"{run.plan}: a message was not added")

    async def _record(self, run: Run, recorder: TurnRecorder[Json]) -> None:
        self._enter(run, recorder.turn, recorder.turn.history)
        if run.is_replay:
            run.answer = recorder.replay() if run.plan.input is not None else None
            return
        plan = run.plan
        if plan.first is not None and plan.refusal is None:
            recorder.add(list(map(_message, plan.first.messages)))
            run.hand(plan.first)
        for index, act in enumerate(plan.acts):
            await self._reach(run, [index])
            await self._record_act(run, recorder, act)
            if index in plan.checkpoints:
                await recorder.checkpoint()
                run.stored = len(run.handed)
        await self._reach(run, [len(plan.acts)])

    async def _record_act(self, run: Run, recorder: TurnRecorder[Json], act: Act) -> None:
        style = run.plan.style
        if act.text is not None and style < 2:
            for piece in (act.text[:1], act.text[1:]):
                recorder.add_piece(piece)
                run.pieces.append(piece)
            run.handed.append(act)
            return
        run.end_text()
        if act.draft is not None and style != 5:
            at = recorder.add([_message(act.draft)], answer=style == 3)
            run.expected.append(act.draft)
            if style == 4:
                await recorder.checkpoint()
                run.stored = len(run.handed)
            await asyncio.sleep(0)
            recorder.revise(at, _message(act.messages[0]))
            run.expected[-1] = act.messages[0]
            run.handed.append(act)
        elif style == 3:
            for message in act.messages:
                recorder.add_piece(message)
            run.hand(act)
        else:
            recorder.add(list(map(_message, act.messages)), answer=style == 2)
            run.hand(act)

    async def _drop(self, run: Run, service: SessionHistoryService) -> None:
        """Take a turn of which nobody ends anything, as if the process had died."""
        if run.plan.way == "turn":
            context: Any = service.turn(native=True, **self._opening(run.plan))
        else:
            context = service.record_turn(**self._opening(run.plan))
        self._kept += [service, context]
        opened = await context.__aenter__()
        with suppress(Dropped):
            await (self._in_turn if run.plan.way == "turn" else self._record)(run, opened)

    # What befalls a turn

    async def _reach(self, run: Run, indexes: Any) -> None:
        for index in indexes:
            await asyncio.sleep(0)
            if index == run.plan.cut:
                await self._disturb(run)

    async def _disturb(self, run: Run) -> None:
        plan = run.plan
        service = self.services[plan.service]
        match plan.end:
            case "raises":
                raise Broken
            case "times out":
                raise TimeoutError
            case "is cancelled":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            case "is stopped":
                await service.stop()
                await service.start()
            case "is deleted":
                await self._delete(service, plan.book)
            case "is dropped":
                raise Dropped
            case "nests":
                await self._nest(run)

    @staticmethod
    async def _delete(service: SessionHistoryService, book: Book) -> None:
        book.deleted = True
        try:
            await service.delete_session(book.user, book.session)
        except Unavailable:  # the service was stopped
            book.is_unsure = True
            raise

    async def _nest(self, run: Run) -> None:
        inner = run.plan.nested
        assert inner is not None
        async with asyncio.timeout(20.0):
            nested = await self.run(inner)
        if run.plan.is_exclusive:
            require(
                isinstance(nested.error, SessionBusy) and nested.error.own,
                f"{inner} in an exclusive turn ended with {nested.error!r}",
            )
        run.nested = nested
        gc.collect(0)


class Dropped(BaseException):
    """The process is gone."""


class Refused:
    """Expects an error, with its path, and without content.

    :ivar path: ``None`` for an error of sizes.
    """

    def __init__(self, run: Run, error: type[Exception], path: str | None) -> None:
        self._run = run
        self._error = error
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, Unavailable):
            return False
        check_refusal(self._run, error, self._error, self._path)
        return True


def check_refusal(run: Run, error: BaseException | None, expected: type[Exception], path: str | None) -> None:
    require(isinstance(error, expected), f"{run.plan}: {expected.__name__} of {path} was due, not {error!r}")
    assert error is not None
    run.refused.append(error)
    if path is not None:
        require(getattr(error, "path", None) == path, f"{run.plan}: the error names {str(error)!r}, not {path}")
        require(str(error).startswith(path), f"{run.plan}: {str(error)!r} does not begin with {path}")
    else:
        require(isinstance(error, LimitExceeded) and error.what in str(error), f"{run.plan}: {error!r} names no limit")


def _message(value: Json) -> StoredMessage:
    return StoredMessage(NATIVE, value)


def check_markers(run: Run, messages: list[str]) -> int:
    """Check that markers, and warnings, say all that is not kept as it was; return how many there are.

    :param messages: what was logged.
    """
    turn = run.turn
    assert turn is not None
    kept = turn.messages
    require(len(kept) == len(run.expected), f"{run.plan}: {len(kept)} messages are kept of {len(run.expected)}")
    found: set[Deviation] = set(run.also)
    for index, (given, stored) in enumerate(zip(run.expected, kept, strict=True)):
        found.update(_deviations_of_message(run, given, stored, f"messages[{index}]"))
    listed = {(marker.path, marker.type, marker.kind) for marker in turn.markers}
    large = [path for path, _, how in listed if how == "too large"]
    for path, kind, how in found:
        is_listed = (
            any(one.startswith(path) or path.startswith(one) for one in large)
            if kind is None
            else (path, kind, how) in listed
        )
        require(is_listed, f"{run.plan}: no marker says that {path} of type {kind} is {how}; there are {listed}")
    if not any(how == "too large" for _, _, how in listed):
        more = listed - {tuple(each) for each in found}
        require(not more, f"{run.plan}: markers say {more} of what is kept as it was")
    for marker in turn.markers[:20]:
        require(any(str(marker) in message for message in messages), f"{run.plan}: no warning says {marker}")
    return len(turn.markers)


def _deviations_of_message(run: Run, given: Any, stored: Any, path: str) -> list[Deviation]:
    try:
        return values.deviations(given, stored, path)
    except values.Mismatch as mismatch:
        if ", too large: " in (values.marker_text(stored.get("content")) or ""):
            return [Deviation(path, "dict", "too large")]
        raise Flaw(f"{run.plan}: {mismatch}") from mismatch


def texts_of(acts: list[Act]) -> list[str]:
    return [text for act in acts for text in act.texts]


def book_of(run: Run) -> Book:
    return run.plan.book
