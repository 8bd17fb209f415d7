"""Conversations in the shapes of many APIs, written turn by turn in every way, come back unchanged."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import ValidationError

from service.conversations import WAYS, WINDOW, Conversation, Json, flat, read_conversations, with_each, write
from session_history import InMemorySessionHistoryService, Message, SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import InvalidMessage
from support import TESTS, same

NEUTRAL_FORMATS = ("agentscope.msg.v1", "agentscope.msg.v2", "agentscope-runtime.agent_request.input", "openai.chat")
"""Formats with many messages that :class:`Message` accepts."""


async def whole(service: SessionHistoryService, conversation: Conversation) -> list[Json]:
    session = await service.get_session(conversation.user_id, conversation.session_id, native=True)
    assert session is not None
    assert session.earlier is None
    return session.messages


async def pages(service: SessionHistoryService, conversation: Conversation) -> list[list[Json]]:
    """Return the windows from the newest to the beginning of the session, oldest first."""
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
    """Return the number of turns that plain appends of this conversation make.

    A message of the user begins a turn. So does an append whose first message has no role, and the first append.
    """
    begun = 0
    for messages in conversation.turns:
        roles = [message.get("role") for message in messages]
        begun += roles.count("user") + (roles[0] is None or (roles[0] != "user" and not begun))
    return begun


@pytest.fixture(scope="module")
def conversations(shared: Path) -> list[Conversation]:
    found = read_conversations(shared)
    assert len({(conversation.user_id, conversation.session_id) for conversation in found}) == len(found) > 50
    assert {conversation.way for conversation in found} == set(WAYS)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "sqlite"])
async def kept(
    request: pytest.FixtureRequest,
    shared: Path,
    conversations: list[Conversation],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SessionHistoryService]:
    """All conversations, in memory or in a file that another process has written."""
    path = tmp_path_factory.mktemp("conversations") / "history.db"
    if request.param == "sqlite":
        command = [sys.executable, "-W", "error", "-m", "programs.conversations", str(shared), str(path)]
        await asyncio.to_thread(subprocess.run, command, cwd=TESTS, check=True)
        service: SessionHistoryService = SqliteSessionHistoryService(path)
    else:
        service = InMemorySessionHistoryService()
        await write(service, conversations)
    async with service:
        yield service


async def test_every_message_comes_back_verbatim(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        assert same(await whole(kept, conversation), conversation.messages)

    await with_each(conversations, check)


async def test_every_message_converts_to_a_neutral_message(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        session = await kept.get_session(conversation.user_id, conversation.session_id)
        assert session is not None
        assert len(session.messages) == len(conversation.messages)
        assert {type(message) for message in session.messages} == {Message}

    await with_each(conversations, check)


async def test_session_counts_its_turns(kept: SessionHistoryService, conversations: list[Conversation]) -> None:
    async def check(conversation: Conversation) -> None:
        session = await kept.get_session(conversation.user_id, conversation.session_id, last_turns=0)
        assert session is not None
        assert session.messages == []
        plain = conversation.way == "append"
        assert session.turns == (turns_of_plain_appends(conversation) if plain else len(conversation.turns))

    await with_each(conversations, check)


async def test_windows_put_together_are_the_whole_session(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
    async def check(conversation: Conversation) -> None:
        windows = await pages(kept, conversation)
        assert same(flat(windows), conversation.messages)
        if conversation.way != "append":
            assert same(windows, expected_pages(conversation.turns))

    await with_each(conversations, check)


async def test_empty_window_has_a_cursor_to_all_messages(
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


async def test_users_list_only_their_own_sessions(
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


async def test_pages_of_a_listing_are_the_whole_listing(
    kept: SessionHistoryService, conversations: list[Conversation]
) -> None:
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


async def test_append_of_another_shape_raises_invalid_message(
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
