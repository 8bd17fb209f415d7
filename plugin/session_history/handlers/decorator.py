"""``@with_session_history``: a turn around a handler."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from functools import wraps
from typing import Any, Concatenate, Literal, Protocol, TypeVar, overload

from typing_extensions import Unpack

from session_history.configured import configured_service
from session_history.errors import InvalidMessage
from session_history.handlers.protocols import Decorator, RequestDecorator
from session_history.handlers.signature import AnyIdentity, HandlerCall, HandlerSignature
from session_history.records.messages import Message, thaw
from session_history.service import SessionHistoryService, check_service
from session_history.turns.input import Input
from session_history.turns.options import TurnPolicies
from session_history.turns.recorder import TurnRecorder
from session_history.turns.turn import Turn, check_options

A = TypeVar("A")

Recorder = TurnRecorder[Any]
Identify = Callable[[A], AnyIdentity] | Callable[Concatenate[A, ...], AnyIdentity]


OnReplay = Callable[[Turn[Any], Any], Any]


class HandlerOptions(TurnPolicies, total=False):
    """Options of :func:`with_session_history`: those of a turn, but what a call names."""

    on_replay: OnReplay | None


@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: None = None,
    native: Literal[False] = False,
    **options: Unpack[HandlerOptions],
) -> Decorator[Message]: ...
@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: None = None,
    native: Literal[True],
    **options: Unpack[HandlerOptions],
) -> Decorator[dict[str, Any]]: ...
@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: Identify[A],
    native: Literal[False] = False,
    **options: Unpack[HandlerOptions],
) -> RequestDecorator[A, Message]: ...
@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: Identify[A],
    native: Literal[True],
    **options: Unpack[HandlerOptions],
) -> RequestDecorator[A, dict[str, Any]]: ...
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: Callable[..., AnyIdentity] | None = None,
    native: bool = False,
    on_replay: OnReplay | None = None,
    **options: Any,
) -> Any:
    """Give a handler the history of its session, and store what the turn says.

    The handler is a coroutine function or an async generator function, plain or a method (its first parameter is
    then ``self`` or ``cls``). It is called with the new input first, and ``user_id=``, ``session_id=`` and maybe
    ``turn_id=``. It receives history and input as a list of messages in place of the input. Parameters called
    ``turn``, ``user_id``, ``session_id`` and ``turn_id`` are filled in. All other arguments pass through.

    It returns, or yields, text, messages, lists of them or ``None``; the caller gets them unchanged. A repeated
    ``turn_id`` gives the recorded answer in the same shape, without calling the handler.

    :param service: where to keep history; without it the one that the runtime config names, on first use.
    :param identify: maps another call shape to an :class:`Identity`. It gets the arguments of the call. The messages
        take the place of the first one, which the handler may still have as a parameter called ``request``.
    :param native: messages are any JSON objects, and text becomes ``{"role": …, "content": text}``.
    :param on_replay: called with the turn and the recorded answer, in place of the handler. The caller gets what it
        returns. ``turn.recorded_status`` tells a whole answer from one that was interrupted.
    :param options: ``last_turns``, ``token_budget``, ``slot``, ``concurrent``, ``patience``, ``durable``,
        ``on_repeat``, ``alternate``: see :meth:`SessionHistoryService.turn`.
    :raises ValueError: an option has a wrong value.
    :raises TurnIdReused: when called with the id of a turn that had another input.
    """
    check_decorated(service)
    for name, function in {"identify": identify, "on_replay": on_replay}.items():
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{name} must be an ordinary function, not an async one")
    for name in options.keys() - HandlerOptions.__annotations__.keys():
        raise TypeError(f"with_session_history() got an unexpected keyword argument {name!r}")
    check_options(**options)

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(handler, (classmethod, staticmethod)):
            raise TypeError(f"put @{type(handler).__name__} above @with_session_history")
        signature = HandlerSignature(handler, identify)
        driver = _HandlerDriver(service, signature, on_replay, {"native": native, **options})
        if inspect.isasyncgenfunction(handler):
            wrapper: Callable[..., Any] = streaming(driver)
        elif inspect.iscoroutinefunction(handler):
            wrapper = answering(driver)
        else:
            raise TypeError(f"{handler!r} is not an async function: write async def, or decorate its async __call__")
        wrapper = wraps(handler)(wrapper)
        wrapper.__signature__ = signature.signature  # type: ignore[attr-defined]
        return wrapper

    return decorate


def check_decorated(service: object) -> None:
    """Check what a decorator was given. :raises TypeError: not a service, but the handler itself, for example."""
    if callable(service) and not (isinstance(service, type) and issubclass(service, SessionHistoryService)):
        raise TypeError("write @with_session_history() or @with_session_history(service), with the parentheses")
    check_service(service)


class Driver(Protocol):
    """Drives the turns of one handler: the steps in which handlers of different runtimes differ."""

    def read(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Read a call of the decorated handler; the other methods get what it returns."""

    def open(self, call: Any, /) -> AbstractAsyncContextManager[Recorder]: ...

    def prompt(self, call: Any, recorder: Recorder, /) -> list[Any]:
        """Return history and input as the handler gets them."""

    def invoke(self, call: Any, messages: list[Any], recorder: Recorder, /) -> Any:
        """Call the handler: return its coroutine or its generator."""

    def record(self, call: Any, recorder: Recorder, item: object, /) -> None:
        """Record an item that the handler yielded."""

    def replay(self, recorder: Recorder, /) -> Any:
        """Return what the caller of a repeated turn gets."""


class _HandlerDriver:
    """Drives the turns of a handler that takes messages of ours."""

    def __init__(
        self,
        service: SessionHistoryService | None,
        signature: HandlerSignature,
        on_replay: OnReplay | None,
        options: dict[str, Any],
    ) -> None:
        self._service = service
        self._on_replay = on_replay
        self._options = options
        self._native: bool = options["native"]
        self.read = signature.read
        self._invoke = signature.invoke

    def open(self, call: HandlerCall) -> AbstractAsyncContextManager[Recorder]:
        service = self._service if self._service is not None else configured_service()
        user_id, session_id, new, turn_id = call.identity
        return service.record_turn(user_id, session_id, input=_given(new), turn_id=turn_id, **self._options)

    def prompt(self, call: HandlerCall, recorder: Recorder) -> list[Any]:  # noqa: ARG002 - see Driver
        return thaw(recorder.prompt(recorder.input), native=self._native)

    def invoke(self, call: HandlerCall, messages: list[Any], recorder: Recorder) -> Any:
        return self._invoke(call, messages, recorder.turn)

    def record(self, call: HandlerCall, recorder: Recorder, item: object) -> None:  # noqa: ARG002 - see Driver
        recorder.add_piece(item)

    def replay(self, recorder: Recorder) -> Any:
        answer = recorder.replay()
        return answer if self._on_replay is None else self._on_replay(recorder.turn, answer)


def answering(driver: Driver) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a coroutine function around a handler that returns its answer."""

    async def wrapper(*arguments: Any, **keywords: Any) -> Any:
        call = driver.read(arguments, keywords)
        answer = None
        async with driver.open(call) as recorder:
            messages = driver.prompt(call, recorder)
            if not recorder.is_replay:
                answer = await driver.invoke(call, messages, recorder)
                recorder.add_answer(answer)
        # Asked again: another run of the same turn may have been stored first.
        return driver.replay(recorder) if recorder.is_replay else answer

    return wrapper


def streaming(driver: Driver) -> Callable[..., AsyncGenerator[Any, None]]:
    """Return an async generator function around a handler that yields its answer."""

    async def wrapper(*arguments: Any, **keywords: Any) -> AsyncGenerator[Any, None]:
        call = driver.read(arguments, keywords)
        async with driver.open(call) as recorder:
            messages = driver.prompt(call, recorder)
            if not recorder.is_replay:
                async with aclosing(driver.invoke(call, messages, recorder)) as items:
                    async for item in items:
                        driver.record(call, recorder, item)
                        yield item
                        recorder.enter()  # perhaps another task consumes the rest
                return
        for item in _items(driver.replay(recorder)):
            yield item

    return wrapper


def _given(value: Input) -> Input:
    """Return the input of a call. :raises InvalidMessage: it is ``None``."""
    if value is None:
        raise InvalidMessage("the input", "must be text, a Message, a dict or a list of them, not NoneType")
    return value


def _items(answer: Any) -> list[Any]:
    """Return the items of a stream. The handler may have returned its answer when it was recorded."""
    if isinstance(answer, list):
        return answer
    return [] if answer is None else [answer]
