"""Query handlers of an ``AgentApp`` remember: agentscope-runtime, which is being retired, and agentscope 1.x.

.. code-block:: python

    @app.query(framework="agentscope")
    @with_session_history()
    async def query(self, msgs, request: AgentRequest | None = None, **kwargs):
        agent = ReActAgent(...)  # a new one for every request: the history is its memory
        async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
            yield msg, last

Whose session it is, the runtime says: a request without a ``session_id`` gets a new one, which the response names, and
one without a ``user_id`` belongs to a user of the same name as its session. Clients send what is new, not the whole
conversation.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import wraps
from importlib import import_module
from typing import Any, Final, TypeVar, cast

from pydantic_core import to_json

from session_history.errors import InvalidMessage, MissingDriver
from session_history.handlers import decorator
from session_history.records.messages import NEUTRAL, Message, StoredMessage, TextContent, freeze
from session_history.records.values import copied
from session_history.service import SessionHistoryService, configured_service
from session_history.turns.turn import Turn
from session_history.view import budget
from session_history.view.budget import TokenBudget
from session_history.view.repair import repaired

FORMAT: Final = "agentscope.msg/1"
"""Format of a ``Msg`` of agentscope 1.x: what its ``to_dict()`` gives, and whatever else was set on it."""

H = TypeVar("H", bound=Callable[..., AsyncIterator[Any]])


def with_session_history(
    service: SessionHistoryService | None = None,
    *,
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
) -> Callable[[H], H]:
    """Give a query handler the history of its session ahead of its ``msgs``, and store what the turn says.

    The handler is an async generator function that yields ``(msg, last)``, where a ``Msg`` may come again and again
    with more in it. Its callers get the same. Messages of the request, and the last that was seen of each ``Msg``, are
    one turn: completed, failed when the handler raises, interrupted when it is cancelled, stopped or left early.

    :param service: where to keep history; without it the one that the runtime config asks for, on first use.
    :param last_turns: see :meth:`SessionHistoryService.turn`.
    :param token_budget: see :meth:`SessionHistoryService.turn`.
    :raises MissingDriver: agentscope-runtime is not installed, or not with agentscope 1.x.
    :raises ValueError: ``last_turns`` is no number of turns, or was given beside ``token_budget``.
    """
    decorator._insist_usable(service, None)
    budget.size(last_turns, token_budget)

    def decorate(handler: H) -> H:
        if not inspect.isasyncgenfunction(handler):
            raise TypeError(f"{handler!r} is no async generator function: a query handler yields (msg, last)")
        msgs_of = _Msgs()

        @wraps(handler)
        async def wrapper(runner: Any, *, msgs: Any, request: Any, **keywords: Any) -> AsyncGenerator[Any, None]:
            keeper = service if service is not None else configured_service()
            user_id, session_id = getattr(request, "user_id", None), getattr(request, "session_id", None)
            # What is no id raises InvalidKey.
            async with keeper.turn(
                cast("str", user_id),
                cast("str", session_id),
                last_turns=last_turns,
                token_budget=token_budget,
                native=True,
            ) as turn:
                new = msgs_of.freeze(msgs, "the input")
                turn._take_input(new)
                # Repaired when all are Msgs: others may call twice and answer then, here a call is answered at once.
                turn._repaired = repaired([*map(msgs_of.converted, turn._said), *new])
                shown = [msgs_of.thaw(message) for message in turn._repaired[0]]
                answer = _Answer(turn, msgs_of)
                async with aclosing(handler(runner, msgs=shown, request=request, **keywords)) as items:
                    async for item in items:
                        answer.take(item)
                        yield item

        return cast("H", wrapper)

    return decorate


class _Answer:
    """What a handler yields: of each message the newest version, where its first one stood."""

    def __init__(self, turn: Turn[Any], msgs_of: _Msgs) -> None:
        self._turn = turn
        self._msgs_of = msgs_of
        self._places: dict[str, int] = {}

    def take(self, item: object) -> None:
        if not isinstance(item, tuple) or not item:
            raise InvalidMessage("the handler's answer", f"must be (msg, last), not {type(item).__name__}")
        (stored,) = self._msgs_of.freeze([item[0]], "the handler's answer")
        name = item[0].id
        if name in self._places:
            self._turn._insist_open()
            self._turn._draft.revise(self._places[name], stored)
        else:
            self._turn._push_answer([stored])
            self._places[name] = len(self._turn._messages) - 1


class _Msgs:
    """From ``Msg`` to what is stored, and back."""

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
        """Copies to be stored.

        :raises InvalidMessage: something is no ``Msg``.
        :raises NotStorable: something would not come back equal.
        """
        if not isinstance(msgs, list) or not all(isinstance(msg, self._runtime.Msg) for msg in msgs):
            raise InvalidMessage(path, "must be of agentscope's Msg; other frameworks have no messages of this kind")
        return [StoredMessage(FORMAT, kept.value) for kept in freeze([_value(msg) for msg in msgs], native=True)]

    def converted(self, message: StoredMessage) -> StoredMessage:
        """A message of any format as one of this; what the runtime can not read becomes text with a role."""
        if message.format == FORMAT:
            return message
        return StoredMessage(FORMAT, _value(self._read(message) or self._text(message)))

    def thaw(self, message: StoredMessage) -> Any:
        """What the handler gets."""
        msg = self._runtime.Msg.from_dict(message.value)
        vars(msg).update(copied(message.value))
        return msg

    def _read(self, message: StoredMessage) -> Any:
        """A message of ours, which has the shape of the runtime's."""
        if message.format != NEUTRAL:
            return None
        try:
            theirs = self._runtime.Message.model_validate(Message.read(message.value).model_dump(exclude_none=True))
            return self._runtime.message_to_agentscope_msg(theirs)
        except Exception:  # of many kinds, from an assertion on
            return None

    def _text(self, message: StoredMessage) -> Any:
        read = Message.read(message.value)
        parts = [part.text if isinstance(part, TextContent) else to_json(part).decode() for part in read.content or ()]
        blocks = [{"type": "text", "text": text} for text in parts or [to_json(message.value).decode()]]
        return self._runtime.Msg(read.role, blocks, "user" if read.role == "user" else "assistant")


def _value(msg: Any) -> dict[str, Any]:
    told: dict[str, Any] = msg.to_dict()
    return told | {name: value for name, value in vars(msg).items() if name not in told and value is not None}
