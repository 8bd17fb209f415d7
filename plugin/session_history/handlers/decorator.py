"""``@with_session_history``: a turn around a handler. A skin over :meth:`SessionHistoryService.turn`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Literal, Protocol, TypeVar, overload

from session_history.errors import InvalidMessage
from session_history.handlers.signature import AnyIdentity, Call, Calls, Input
from session_history.records.messages import Message, Role, StoredMessage, freeze, text_message
from session_history.records.values import plain
from session_history.service import SessionHistoryService, check_service, configured_service
from session_history.turns.lifecycle import Concurrent, check_concurrent
from session_history.turns.turn import Turn
from session_history.view import budget
from session_history.view.budget import TokenBudget

M = TypeVar("M")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
Y = TypeVar("Y", bound=str | Message | Mapping[str, Any] | list[Any] | None)
R = TypeVar("R", bound=str | Message | Mapping[str, Any] | list[Any] | None)
R_co = TypeVar("R_co", covariant=True)


class Handler(Protocol[R_co]):
    """How a decorated handler is called; further arguments go to the handler."""

    def __call__(
        self,
        new: Input,
        /,
        *arguments: Any,
        user_id: str,
        session_id: str,
        turn_id: str | None = None,
        **keywords: Any,
    ) -> R_co: ...


class Method(Protocol[S_contra, R_co]):
    """A decorated method; calling it with its owner is what ``classmethod`` does."""

    def __get__(self, instance: S_contra | None, owner: type[Any] | None = None, /) -> Handler[R_co]: ...

    def __call__(
        self,
        owner: S_contra,
        new: Input,
        /,
        *arguments: Any,
        user_id: str,
        session_id: str,
        turn_id: str | None = None,
        **keywords: Any,
    ) -> R_co: ...


class RequestHandler(Protocol[A_contra, R_co]):
    """How a handler with ``identify`` is called."""

    def __call__(self, request: A_contra, /, *arguments: Any, **keywords: Any) -> R_co: ...


class Decorator(Protocol[M]):
    """Decorates functions and methods that take messages."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[list[M], ...], AsyncIterator[Y]], /
    ) -> Handler[AsyncGenerator[Y, None]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[list[M], ...], Coroutine[Any, Any, R]], /
    ) -> Handler[Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[S, list[M], ...], AsyncIterator[Y]], /
    ) -> Method[S, AsyncGenerator[Y, None]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[S, list[M], ...], Coroutine[Any, Any, R]], /
    ) -> Method[S, Coroutine[Any, Any, R]]: ...


class RequestDecorator(Protocol[A_contra, M]):
    """Decorates functions that take messages and are called with a request."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[list[M], ...], AsyncIterator[Y]], /
    ) -> RequestHandler[A_contra, AsyncGenerator[Y, None]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[list[M], ...], Coroutine[Any, Any, R]], /
    ) -> RequestHandler[A_contra, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[S, list[M], ...], AsyncIterator[Y]], /
    ) -> Callable[..., AsyncGenerator[Y, None]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[S, list[M], ...], Coroutine[Any, Any, R]], /
    ) -> Callable[..., Coroutine[Any, Any, R]]: ...


@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: None = None,
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
    slot: str | None = None,
    concurrent: Concurrent = "keep",
    native: Literal[False] = False,
) -> Decorator[Message]: ...
@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: None = None,
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
    slot: str | None = None,
    concurrent: Concurrent = "keep",
    native: Literal[True],
) -> Decorator[dict[str, Any]]: ...
@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: Callable[[A], AnyIdentity] | Callable[Concatenate[A, ...], AnyIdentity],
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
    slot: str | None = None,
    concurrent: Concurrent = "keep",
    native: Literal[False] = False,
) -> RequestDecorator[A, Message]: ...
@overload
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: Callable[[A], AnyIdentity] | Callable[Concatenate[A, ...], AnyIdentity],
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
    slot: str | None = None,
    concurrent: Concurrent = "keep",
    native: Literal[True],
) -> RequestDecorator[A, dict[str, Any]]: ...
def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    identify: Callable[..., AnyIdentity] | None = None,
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
    slot: str | None = None,
    concurrent: Concurrent = "keep",
    native: bool = False,
) -> Any:
    """Give a handler the history of its session, and store what the turn says.

    The handler is a coroutine function or an async generator function, plain or a method (its first parameter is
    then ``self`` or ``cls``). It is called with the new input first, and ``user_id=``, ``session_id=`` and maybe
    ``turn_id=``; it receives history + input as a list of messages in place of the input. Parameters called
    ``turn``, ``user_id``, ``session_id`` and ``turn_id`` are filled if it has them; any other argument passes.

    It returns, or yields, text, messages, lists of them or ``None``; the caller gets them unchanged. A repeated
    ``turn_id`` gives the recorded answer in the same shape, without calling the handler.

    :param service: where to keep history; without it the one that the runtime config asks for, on first use.
    :param identify: maps another call shape to an :class:`Identity`. It gets the arguments of the call; messages
        take the place of the first of them, which the handler may still have as a parameter called ``request``.
    :param last_turns: see :meth:`SessionHistoryService.turn`.
    :param token_budget: see :meth:`SessionHistoryService.turn`.
    :param slot: see :meth:`SessionHistoryService.turn`.
    :param concurrent: see :meth:`SessionHistoryService.turn`.
    :param native: messages are any JSON objects, and text becomes ``{"role": …, "content": text}``.
    :raises ValueError: ``last_turns`` is no number of turns, or was given beside ``token_budget``.
    :raises TurnIdReused: when called with the id of a turn that had another input.
    """
    _insist_usable(service, identify)
    budget.size(last_turns, token_budget)
    check_concurrent(concurrent)

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(handler, (classmethod, staticmethod)):
            raise TypeError(f"put @{type(handler).__name__} above @with_session_history")
        options = {
            "last_turns": last_turns,
            "token_budget": token_budget,
            "slot": slot,
            "concurrent": concurrent,
            "native": native,
        }
        around = _Around(service, handler, Calls(handler, identify), options)
        if inspect.isasyncgenfunction(handler):
            return around.dressed(around.streaming())
        if inspect.iscoroutinefunction(handler):
            return around.dressed(around.answering())
        raise TypeError(f"{handler!r} is no async function: write async def, or decorate its async __call__")

    return decorate


def _insist_usable(service: object, identify: object) -> None:
    if callable(service) and not (isinstance(service, type) and issubclass(service, SessionHistoryService)):
        raise TypeError("write @with_session_history() or @with_session_history(service), with the parentheses")
    check_service(service)
    if inspect.iscoroutinefunction(identify):
        raise TypeError("identify must be an ordinary function, not an async one")


@dataclass(frozen=True, slots=True)
class _Around:
    """One decorated handler."""

    service: SessionHistoryService | None
    handler: Callable[..., Any]
    calls: Calls
    options: dict[str, Any]

    def dressed(self, wrapper: Callable[..., Any]) -> Callable[..., Any]:
        wrapper = wraps(self.handler)(wrapper)
        wrapper.__signature__ = self.calls.signature  # type: ignore[attr-defined]
        return wrapper

    def answering(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def wrapper(*arguments: Any, **keywords: Any) -> Any:
            call = self.calls.read(arguments, keywords)
            async with self._turn(call) as turn:
                messages = self._messages(turn, call)
                answer = None
                if turn._record is None:
                    answer = await self.calls.invoke(self.handler, call, messages, turn)
                    turn._take_answer(answer)
            # Looked at again: another run of the same turn may have been recorded meanwhile.
            return answer if turn._record is None else turn._replay()

        return wrapper

    def streaming(self) -> Callable[..., AsyncGenerator[Any, None]]:
        async def wrapper(*arguments: Any, **keywords: Any) -> AsyncGenerator[Any, None]:
            call = self.calls.read(arguments, keywords)
            async with self._turn(call) as turn:
                messages = self._messages(turn, call)
                if turn._record is None:
                    async with aclosing(self.calls.invoke(self.handler, call, messages, turn)) as items:
                        async for item in items:
                            turn._take_streamed(item)
                            yield item
                    return
            for item in _items(turn._replay()):
                yield item

        return wrapper

    def _turn(self, call: Call) -> AbstractAsyncContextManager[Turn[Any]]:
        service = self.service if self.service is not None else configured_service()
        user_id, session_id, _, turn_id = call.identity
        return service.turn(user_id, session_id, turn_id=turn_id, **self.options)

    def _messages(self, turn: Turn[Any], call: Call) -> list[Any]:
        """History and input, as the handler gets them."""
        new = _input(call.identity.input, native=self.options["native"])
        turn._take_input(new)
        return turn._for_handler(new)


def _input(value: Input, *, native: bool) -> list[StoredMessage]:
    if isinstance(value, bytes) or not isinstance(value, (str, Message, dict, Sequence)):
        raise InvalidMessage(
            "the input", f"must be text, a Message, a dict or a list of them, not {type(value).__name__}"
        )
    if isinstance(value, str):
        return freeze(text_message(Role.USER, plain(value), native=native), native=native)
    return freeze(value, native=native)


def _items(answer: Any) -> list[Any]:
    """The items of a stream; a handler that returned its answer when it was recorded may stream by now."""
    if isinstance(answer, list):
        return answer
    return [] if answer is None else [answer]
