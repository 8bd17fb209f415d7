"""Every real conversation goes in turn by turn, in every way there is, and comes back as it was.

Run as a script, this file is the process that writes them to SQLite: ``python test_real_conversations.py SHARED DB``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from session_history import (
    InMemorySessionHistoryService,
    Message,
    SessionHistoryService,
    SqliteSessionHistoryService,
    with_session_history,
)
from session_history.errors import InvalidMessage
from support import json_lines, same

Json = dict[str, Any]

AT_ONCE = 32
WINDOW = 3
"""Turns. Of so few, the window that serves prompt caches moves with every turn and is no larger."""

NEUTRAL_FORMATS = ("agentscope.msg.v1", "agentscope.msg.v2", "agentscope-runtime.agent_request.input", "openai.chat")
"""Formats whose messages look much like the neutral one, which has the shape of AgentScope Runtime's."""


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


def read_conversations(shared: Path) -> list[Conversation]:
    files = sorted(shared.glob("data/*/sessions.jsonl"))
    return [conversation for file in files for conversation in read_folder(file)]


def read_folder(file: Path) -> Iterator[Conversation]:
    # The folder is part of the user's id: two data sets may have a user of one name.
    for row, way in zip(json_lines(file), cycle(WAYS), strict=False):
        user_id = f"{file.parent.name}/{row['user_id']}"
        yield Conversation(user_id, row["session_id"], row["format"], list(cut(row["messages"])), way)


def cut(messages: list[Json]) -> Iterator[list[Json]]:
    """Turns: from one message of the user to before the next; without such messages, two or three at a time."""
    users = [index for index, message in enumerate(messages) if message.get("role") == "user" and not answers(message)]
    starts = users[1:] if users else list(every_two_or_three(len(messages)))
    for start, stop in zip([0, *starts], [*starts, len(messages)], strict=True):
        yield messages[start:stop]


def answers(message: Json) -> bool:
    """Whether a message of the user holds results of tools, as Anthropic wants them."""
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") == "tool_result" for part in content)


def every_two_or_three(stop: int) -> Iterator[int]:
    sizes = cycle((2, 3))
    start = next(sizes)
    while start < stop:
        yield start
        start += next(sizes)


def input_and_answer(turn: list[Json]) -> tuple[list[Json], list[Json]]:
    """Where no user speaks, calls and their results are not torn apart."""
    roles = [message.get("role") for message in turn]
    if "user" not in roles:
        return (turn, []) if answers(turn[-1]) else (turn[:-1], turn[-1:])
    size = roles.index("user") + 1
    return turn[:size], turn[size:]


def window_before(conversation: Conversation, ordinal: int) -> list[Json]:
    return flat(conversation.turns[max(0, ordinal - WINDOW) : ordinal])


async def write_with_turn(service: SessionHistoryService, conversation: Conversation) -> None:
    for ordinal, messages in enumerate(conversation.turns):
        async with service.turn(conversation.user_id, conversation.session_id, native=True) as turn:
            written = flat(conversation.turns[:ordinal])
            assert len(turn.history) == len(written)
            assert same(turn.history[-WINDOW:], written[-WINDOW:])
            for message in messages:
                turn.add(message)


async def write_with_window(service: SessionHistoryService, conversation: Conversation) -> None:
    for ordinal, messages in enumerate(conversation.turns):
        async with service.turn(conversation.user_id, conversation.session_id, last_turns=WINDOW, native=True) as turn:
            assert same(turn.history, window_before(conversation, ordinal))
            turn.add(messages)


async def write_with_coroutine(service: SessionHistoryService, conversation: Conversation) -> None:
    @with_session_history(service, last_turns=WINDOW, native=True)
    async def handler(messages: list[Json], *, ordinal: int) -> list[Json]:
        new, answer = input_and_answer(conversation.turns[ordinal])
        assert same(messages, window_before(conversation, ordinal) + new)
        return answer

    for ordinal, turn in enumerate(conversation.turns):
        new, answer = input_and_answer(turn)
        names = {"user_id": conversation.user_id, "session_id": conversation.session_id}
        assert same(await handler(new, **names, ordinal=ordinal), answer)


async def write_with_generator(service: SessionHistoryService, conversation: Conversation) -> None:
    @with_session_history(service, last_turns=WINDOW, native=True)
    async def handler(messages: list[Json], *, ordinal: int) -> AsyncIterator[Json]:
        new, answer = input_and_answer(conversation.turns[ordinal])
        assert same(messages, window_before(conversation, ordinal) + new)
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
"""Dealt out to the conversations of each folder in turn."""


async def write(service: SessionHistoryService, conversations: list[Conversation]) -> None:
    await with_each(conversations, lambda conversation: WAYS[conversation.way](service, conversation))


async def with_each(conversations: list[Conversation], work: Callable[[Conversation], Awaitable[None]]) -> None:
    """Do the same with every conversation, a bounded number of them at once; an error names its conversation."""
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


async def write_to_sqlite(shared: Path, path: Path) -> None:
    async with SqliteSessionHistoryService(path) as service:
        await write(service, read_conversations(shared))


async def whole(service: SessionHistoryService, conversation: Conversation) -> list[Json]:
    session = await service.get_session(conversation.user_id, conversation.session_id, native=True)
    assert session is not None
    assert session.earlier is None
    return session.messages


async def pages(service: SessionHistoryService, conversation: Conversation) -> list[list[Json]]:
    """What one sees who scrolls back, window by window, in the order of the conversation."""
    seen: list[list[Json]] = []
    before: str | None = None
    while not seen or before is not None:
        session = await service.get_session(
            conversation.user_id, conversation.session_id, last_turns=WINDOW, before=before, native=True
        )
        assert session is not None
        assert session.messages
        seen.insert(0, session.messages)
        before = session.earlier
    return seen


def expected_pages(turns: list[list[Json]]) -> list[list[Json]]:
    stops = range(len(turns), 0, -WINDOW)
    return [flat(turns[max(0, stop - WINDOW) : stop]) for stop in reversed(stops)]


def turns_of_plain_appends(conversation: Conversation) -> int:
    """A message of the user begins a turn; so does the first of an append that has no role or follows nothing."""
    begun = 0
    for messages in conversation.turns:
        roles = [message.get("role") for message in messages]
        begun += roles.count("user") + (roles[0] is None or (roles[0] != "user" and not begun))
    return begun


@pytest.fixture(scope="module")
def conversations(shared: Path) -> list[Conversation]:
    found = read_conversations(shared)
    assert len({(conversation.user_id, conversation.session_id) for conversation in found}) == len(found) > 1000
    assert {conversation.way for conversation in found} == set(WAYS)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "sqlite"])
async def kept(
    request: pytest.FixtureRequest,
    shared: Path,
    conversations: list[Conversation],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SessionHistoryService]:
    """All conversations: in memory, or in a file that a process wrote which has ended."""
    path = tmp_path_factory.mktemp("conversations") / "history.db"
    if request.param == "sqlite":
        command = [sys.executable, "-W", "error", __file__, str(shared), str(path)]
        await asyncio.to_thread(subprocess.run, command, check=True)
        service: SessionHistoryService = SqliteSessionHistoryService(path)
    else:
        service = InMemorySessionHistoryService()
        await write(service, conversations)
    async with service:
        yield service


async def test_every_message_comes_back(kept: SessionHistoryService, conversations: list[Conversation]) -> None:
    async def check(conversation: Conversation) -> None:
        assert same(await whole(kept, conversation), conversation.messages)

    await with_each(conversations, check)


async def test_everything_can_be_read_as_messages(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        session = await kept.get_session(conversation.user_id, conversation.session_id)
        assert session is not None
        assert len(session.messages) == len(conversation.messages)
        assert {type(message) for message in session.messages} == {Message}

    await with_each(conversations, check)


async def test_turns_are_counted(kept: SessionHistoryService, conversations: list[Conversation]) -> None:
    async def check(conversation: Conversation) -> None:
        session = await kept.get_session(conversation.user_id, conversation.session_id, last_turns=0)
        assert session is not None
        assert session.messages == []
        plain = conversation.way == "append"
        assert session.turns == (turns_of_plain_appends(conversation) if plain else len(conversation.turns))

    await with_each(conversations, check)


async def test_windows_put_together_are_the_whole(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        windows = await pages(kept, conversation)
        assert same(flat(windows), conversation.messages)
        if conversation.way != "append":
            assert same(windows, expected_pages(conversation.turns))

    await with_each(conversations, check)


async def test_empty_window_says_that_something_lies_before_it(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        names = conversation.user_id, conversation.session_id
        nothing = await kept.get_session(*names, last_turns=0, native=True)
        assert nothing is not None
        assert nothing.earlier is not None
        everything = await kept.get_session(*names, before=nothing.earlier, native=True)
        assert everything is not None
        assert same(everything.messages, conversation.messages)

    await with_each(conversations[:20], check)


async def test_users_list_their_sessions_and_no_others(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    sessions: defaultdict[str, list[str]] = defaultdict(list)
    for conversation in conversations:
        sessions[conversation.user_id].append(conversation.session_id)
    for user_id, session_ids in sessions.items():
        listed = await kept.list_sessions(user_id)
        assert sorted(session.id for session in listed) == sorted(session_ids)
        assert {session.user_id for session in listed} == {user_id}
        assert all(session.messages == [] for session in listed)


async def test_listing_page_by_page(kept: SessionHistoryService, conversations: list[Conversation]) -> None:
    users = sorted({conversation.user_id for conversation in conversations})
    for user_id in users:
        listed, cursor = [], None
        while True:
            page = await kept.list_sessions(user_id, limit=7, cursor=cursor)
            listed += [session.id for session in page]
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(page) == 7
        assert listed == [session.id for session in await kept.list_sessions(user_id)]


def is_neutral(message: Json) -> bool:
    try:
        Message.model_validate(message)
    except ValidationError:
        return False
    return True


async def test_neutral_messages_come_back_verbatim(
    service: SessionHistoryService, conversations: list[Conversation]
) -> None:
    similar = [conversation for conversation in conversations if conversation.format in NEUTRAL_FORMATS]
    assert {conversation.format for conversation in similar} == set(NEUTRAL_FORMATS)

    async def check(conversation: Conversation) -> None:
        session = await service.create_session(conversation.user_id, conversation.session_id)
        neutral = [message for message in conversation.messages if is_neutral(message)]
        assert neutral
        for message in neutral:
            await service.append_message(session, message)
        assert {type(message) for message in session.messages} == {Message}
        assert same(await whole(service, conversation), neutral)

    await with_each(similar, check)


async def test_what_is_no_neutral_message_is_refused(
    service: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        session = await service.create_session(conversation.user_id, conversation.session_id)
        for message in conversation.messages:
            if not is_neutral(message):
                with pytest.raises(InvalidMessage):
                    await service.append_message(session, message)
        assert session.messages == []
        assert await whole(service, conversation) == []

    await with_each(conversations, check)


if __name__ == "__main__":
    asyncio.run(write_to_sqlite(Path(sys.argv[1]), Path(sys.argv[2])))
