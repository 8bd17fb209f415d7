"""Conversations of ``corpora``, and the ways in which a session can be written turn by turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from session_history import SessionHistoryService, with_session_history
from session_history.records.messages import NATIVE, StoredMessage
from session_history.view.repair import repaired
from support import json_lines, same

Json = dict[str, Any]

AT_ONCE = 32
WINDOW = 3
"""Turns in a window. A window this small moves with every turn, so its exact content is known."""


@dataclass(frozen=True)
class Conversation:
    user_id: str
    session_id: str
    format: str
    turns: list[list[Json]]
    way: str

    @property
    def messages(self) -> list[Json]:
        return flat(self.turns)


def flat(turns: list[list[Json]]) -> list[Json]:
    return [message for turn in turns for message in turn]


def read_conversations(corpus: Path) -> list[Conversation]:
    files = sorted(corpus.glob("data/*/sessions.jsonl"))
    return [conversation for file in files for conversation in read_folder(file)]


def read_folder(file: Path) -> Iterator[Conversation]:
    # Two folders may have a user of the same name, so the folder is part of the user's id.
    for row, way in zip(json_lines(file), cycle(WAYS), strict=False):
        user_id = f"{file.parent.name}/{row['user_id']}"
        yield Conversation(user_id, row["session_id"], row["format"], list(cut(row["messages"])), way)


def cut(messages: list[Json]) -> Iterator[list[Json]]:
    """Yield the turns, each with one message of the user; without any, turns of two or three messages."""
    users = [index for index, message in enumerate(messages) if message.get("role") == "user" and not answers(message)]
    starts = users[1:] if users else list(every_two_or_three(len(messages)))
    for start, stop in zip([0, *starts], [*starts, len(messages)], strict=True):
        yield messages[start:stop]


def answers(message: Json) -> bool:
    """Return True if a message of the user holds results of tools, as in the APIs of Anthropic, Bedrock and Gemini."""
    parts = message.get("content", message.get("parts"))
    kinds = {"toolResult", "functionResponse", "function_response"}
    return isinstance(parts, list) and any(part.get("type") == "tool_result" or kinds & part.keys() for part in parts)


def every_two_or_three(stop: int) -> Iterator[int]:
    sizes = cycle((2, 3))
    start = next(sizes)
    while start < stop:
        yield start
        start += next(sizes)


def input_and_answer(turn: list[Json]) -> tuple[list[Json], list[Json]]:
    """Split a turn into its input and its answer. Without a user, tool calls stay with their results."""
    roles = [message.get("role") for message in turn]
    if "user" not in roles:
        return (turn, []) if answers(turn[-1]) else (turn[:-1], turn[-1:])
    size = roles.index("user") + 1
    return turn[:size], turn[size:]


def as_shown(messages: list[Json]) -> list[Json]:
    """Return messages as a turn shows them. Only a few conversations of the corpora hold what an API would refuse."""
    shown, _ = repaired([StoredMessage(NATIVE, message) for message in messages])
    return [message.value for message in shown]


def window_before(conversation: Conversation, ordinal: int) -> list[Json]:
    return flat(conversation.turns[max(0, ordinal - WINDOW) : ordinal])


async def write_with_turn(service: SessionHistoryService, conversation: Conversation) -> None:
    for ordinal, messages in enumerate(conversation.turns):
        async with service.turn(conversation.user_id, conversation.session_id, native=True) as turn:
            written = as_shown(flat(conversation.turns[:ordinal]))
            assert len(turn.history) == len(written)
            assert same(turn.history[-WINDOW:], written[-WINDOW:])
            for message in messages:
                turn.add(message)


async def write_with_window(service: SessionHistoryService, conversation: Conversation) -> None:
    for ordinal, messages in enumerate(conversation.turns):
        async with service.turn(conversation.user_id, conversation.session_id, last_turns=WINDOW, native=True) as turn:
            assert same(turn.history, as_shown(window_before(conversation, ordinal)))
            turn.add(messages)


async def write_with_coroutine(service: SessionHistoryService, conversation: Conversation) -> None:
    @with_session_history(service, last_turns=WINDOW, native=True)
    async def handler(messages: list[Json], *, ordinal: int) -> list[Json]:
        new, answer = input_and_answer(conversation.turns[ordinal])
        assert same(messages, as_shown(window_before(conversation, ordinal) + new))
        return answer

    for ordinal, turn in enumerate(conversation.turns):
        new, answer = input_and_answer(turn)
        names = {"user_id": conversation.user_id, "session_id": conversation.session_id}
        assert same(await handler(new, **names, ordinal=ordinal), answer)


async def write_with_generator(service: SessionHistoryService, conversation: Conversation) -> None:
    @with_session_history(service, last_turns=WINDOW, native=True)
    async def handler(messages: list[Json], *, ordinal: int) -> AsyncIterator[Json]:
        new, answer = input_and_answer(conversation.turns[ordinal])
        assert same(messages, as_shown(window_before(conversation, ordinal) + new))
        for message in answer:
            yield message

    for ordinal, turn in enumerate(conversation.turns):
        new, answer = input_and_answer(turn)
        names = {"user_id": conversation.user_id, "session_id": conversation.session_id}
        assert same([message async for message in handler(new, **names, ordinal=ordinal)], answer)


async def write_with_append(service: SessionHistoryService, conversation: Conversation) -> None:
    session = await service.get_session(conversation.user_id, conversation.session_id, native=True)
    assert session is not None
    for messages in conversation.turns:
        await service.append_message(session, messages)
    assert same(session.messages, conversation.messages)


WAYS: dict[str, Callable[[SessionHistoryService, Conversation], Awaitable[None]]] = {
    "turn": write_with_turn,
    "coroutine": write_with_coroutine,
    "turn with a window": write_with_window,
    "generator": write_with_generator,
    "append": write_with_append,
}
"""Every way to write a session. The conversations of a folder take them in rotation."""


async def write(service: SessionHistoryService, conversations: list[Conversation]) -> None:
    await with_each(conversations, lambda conversation: WAYS[conversation.way](service, conversation))


async def with_each(conversations: list[Conversation], work: Callable[[Conversation], Awaitable[None]]) -> None:
    """Do the work for every conversation, for :data:`AT_ONCE` of them at a time; an error names its conversation."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(conversation: Conversation) -> None:
        async with room:
            try:
                await work(conversation)
            except BaseException as error:
                error.add_note(f"{conversation.user_id} {conversation.session_id}, written with {conversation.way}")
                raise

    async with asyncio.TaskGroup() as group:
        for conversation in conversations:
            group.create_task(one(conversation))
