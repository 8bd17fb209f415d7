"""Types of decorated handlers: what type checkers tell of ``@with_session_history``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Concatenate, Protocol, TypeVar, overload

from session_history.records.messages import Message
from session_history.turns.input import Input

M = TypeVar("M")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
A_contra = TypeVar("A_contra", contravariant=True)
Y = TypeVar("Y", bound=str | Message | Mapping[str, Any] | list[Any] | None)
R = TypeVar("R", bound=str | Message | Mapping[str, Any] | list[Any] | None)
R_co = TypeVar("R_co", covariant=True)


class Handler(Protocol[R_co]):
    """A decorated handler. Further arguments go to the handler."""

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
    """A decorated method. ``classmethod`` calls it with its owner."""

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
    """A decorated handler with ``identify``."""

    def __call__(self, request: A_contra, /, *arguments: Any, **keywords: Any) -> R_co: ...


class Decorator(Protocol[M]):
    """A decorator of functions and methods that take messages."""

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
    """A decorator of functions that take messages and are called with a request."""

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
