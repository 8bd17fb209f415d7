"""Query handlers of an ``AgentApp`` with a memory: agentscope-runtime, which is being retired, and agentscope 1.x.

.. code-block:: python

    @app.query(framework="agentscope")
    @with_session_history()
    async def query(self, msgs, request: AgentRequest | None = None, **kwargs):
        agent = ReActAgent(...)  # a new one for every request: the history is its memory
        async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
            yield msg, last

The runtime names user and session: a request without a ``session_id`` gets a new one, which the response names; one
without a ``user_id`` belongs to a user of the same name as its session. Clients send what is new, not the whole
conversation.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from typing import Any, Final, TypeVar, cast

from pydantic_core import to_json

from session_history.configured import configured_service
from session_history.errors import InvalidMessage, MissingDriver
from session_history.handlers.decorator import Recorder, check_decorated, streaming
from session_history.log.reader import window_size
from session_history.records.markers import Marker
from session_history.records.messages import NEUTRAL, Message, StoredMessage, TextContent, freeze
from session_history.records.salvage import salvaged
from session_history.service import SessionHistoryService
from session_history.view.budget import TokenBudget

FORMAT: Final = "agentscope.msg/1"
"""Format of a ``Msg`` of agentscope 1.x: the result of its ``to_dict()``, and all else that was set on it."""

H = TypeVar("H", bound=Callable[..., AsyncIterator[Any]])


def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
) -> Callable[[H], H]:
    """Give a query handler the history of its session ahead of its ``msgs``, and store what the turn says.

    The handler is an async generator function that yields ``(msg, last)``, where a ``Msg`` may come again and again
    with more in it. Its callers get the same. The messages of the request, and the newest version of each ``Msg``, are
    one turn: completed, failed when the handler raises, interrupted when it is cancelled, stopped or left early.

    :param service: where to keep history; without it the one that the runtime config names, on first use.
    :param last_turns: see :meth:`SessionHistoryService.turn`.
    :param token_budget: see :meth:`SessionHistoryService.turn`.
    :raises MissingDriver: agentscope-runtime is not installed, or not with agentscope 1.x.
    :raises ValueError: ``last_turns`` is not a number of turns, or was given beside ``token_budget``.
    """
    check_decorated(service)
    window_size(last_turns, token_budget)

    def decorate(handler: H) -> H:
        if not inspect.isasyncgenfunction(handler):
            raise TypeError(f"{handler!r} is not an async generator function: a query handler yields (msg, last)")
        driver = _QueryDriver(service, handler, {"last_turns": last_turns, "token_budget": token_budget})
        return cast("H", wraps(handler)(streaming(driver)))

    return decorate


@dataclass(frozen=True, slots=True)
class _Query:
    """A call of a query handler by the runtime.

    :ivar indexes: the index in the turn of each ``Msg`` that was yielded, by its id.
    """

    runner: Any
    msgs: Any = field(repr=False)
    request: Any = field(repr=False)
    keywords: dict[str, Any] = field(repr=False)
    indexes: dict[str, int] = field(default_factory=dict)


class _QueryDriver:
    """Drives the turns of a query handler: see :class:`session_history.handlers.decorator.Driver`."""

    def __init__(
        self, service: SessionHistoryService | None, handler: Callable[..., Any], window: dict[str, Any]
    ) -> None:
        self._service = service
        self._handler = handler
        self._window = window
        self._msgs = _Msgs()

    def read(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> _Query:
        return self._query(*arguments, **keywords)

    @staticmethod
    def _query(runner: Any, *, msgs: Any, request: Any, **keywords: Any) -> _Query:
        return _Query(runner, msgs, request, keywords)

    def open(self, query: _Query) -> AbstractAsyncContextManager[Recorder]:
        service = self._service if self._service is not None else configured_service()
        user_id, session_id = getattr(query.request, "user_id", None), getattr(query.request, "session_id", None)
        # A missing id raises InvalidKey.
        new = self._msgs.freeze(query.msgs, "the input")
        return service.record_turn(
            cast("str", user_id), cast("str", session_id), input=new, native=True, **self._window
        )

    def prompt(self, query: _Query, recorder: Recorder) -> list[Any]:  # noqa: ARG002 - see Driver
        # Repaired as Msgs: their rules are stricter, since a call is answered before the next one.
        return list(map(self._msgs.thaw, recorder.prompt(recorder.input, convert=self._msgs.converted)))

    def invoke(self, query: _Query, messages: list[Any], recorder: Recorder) -> Any:  # noqa: ARG002 - see Driver
        return self._handler(query.runner, msgs=messages, request=query.request, **query.keywords)

    def record(self, query: _Query, recorder: Recorder, item: object) -> None:
        """Record a ``Msg``, or a later version of it in the place of the first."""
        if not isinstance(item, tuple) or not item:
            raise InvalidMessage("the handler's answer", f"must be (msg, last), not {type(item).__name__}")
        message, markers = self._msgs.produced(item[0], f"messages[{len(recorder.messages)}]")
        recorder.note_markers(markers)
        msg_id = item[0].id
        if msg_id in query.indexes:
            recorder.revise(query.indexes[msg_id], message)
        else:
            query.indexes[msg_id] = recorder.add([message], answer=True)

    def replay(self, recorder: Recorder) -> Any:
        return recorder.replay()


class _Msgs:
    """Conversion from ``Msg`` to stored messages, and back."""

    def __init__(self) -> None:
        try:
            self._runtime: Any = import_module("agentscope_runtime.adapters.agentscope.message")
        except ImportError as error:
            raise MissingDriver(
                "agentscope-runtime or its agentscope 1.x is not installed: "
                "pip install 'session-history[agentscope-runtime]'",
                name=error.name,
            ) from error

    def freeze(self, msgs: object, path: str) -> list[StoredMessage]:
        """Return copies to be stored.

        :raises InvalidMessage: something is not a ``Msg``.
        :raises NotStorable: something would not come back equal.
        """
        if not isinstance(msgs, list):
            raise InvalidMessage(path, f"must be a list of agentscope's Msg, not {type(msgs).__name__}")
        for msg in msgs:
            self._require_msg(msg, path)
        return [StoredMessage(FORMAT, kept.value) for kept in freeze([_value(msg) for msg in msgs], native=True)]

    def produced(self, msg: Any, path: str) -> tuple[StoredMessage, list[Marker]]:
        """Return what a handler yielded as it can be stored, and what it lacks.

        :raises InvalidMessage: it is not a ``Msg``.
        """
        self._require_msg(msg, "the handler's answer")
        value, markers = salvaged(_value(msg), path)
        return StoredMessage(FORMAT, value), markers

    def _require_msg(self, msg: object, path: str) -> None:
        if not isinstance(msg, self._runtime.Msg):
            raise InvalidMessage(path, "must be of agentscope's Msg; other frameworks have no messages of this kind")

    def converted(self, message: StoredMessage) -> StoredMessage:
        """Return a message of any format as a ``Msg``; one that the runtime cannot read becomes text with a role."""
        if message.format == FORMAT:
            return message
        return StoredMessage(FORMAT, _value(self._read(message) or self._text(message)))

    def thaw(self, message: StoredMessage) -> Any:
        """Return the ``Msg`` that the handler gets."""
        msg = self._runtime.Msg.from_dict(message.value)
        vars(msg).update(message.to_dict())
        return msg

    def _read(self, message: StoredMessage) -> Any:
        """Return a neutral message as the runtime's own, which has the same shape; ``None`` for any other."""
        if message.format != NEUTRAL:
            return None
        try:
            theirs = self._runtime.Message.model_validate(Message.read(message.value).model_dump(exclude_none=True))
            return self._runtime.message_to_agentscope_msg(theirs)
        except Exception:  # it raises many kinds of errors, assertions among them
            return None

    def _text(self, message: StoredMessage) -> Any:
        read = Message.read(message.value)
        parts = [part.text if isinstance(part, TextContent) else to_json(part).decode() for part in read.content or ()]
        blocks = [{"type": "text", "text": text} for text in parts or [to_json(message.value).decode()]]
        return self._runtime.Msg(read.role, blocks, "user" if read.role == "user" else "assistant")


def _value(msg: Any) -> dict[str, Any]:
    told: dict[str, Any] = msg.to_dict()
    return told | {name: value for name, value in vars(msg).items() if name not in told and value is not None}
