"""The five verbs and their kin, the same on every provider."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from pydantic import Field

from service.opening import opened, recorded, rewrite, said, say
from session_history import (
    DataContent,
    Identity,
    InMemorySessionHistoryService,
    Message,
    Role,
    Session,
    SessionHistoryService,
    SqliteSessionHistoryService,
    TextContent,
    configured_service,
)
from session_history.configured import _configured_service
from session_history.errors import (
    Conflict,
    Corrupt,
    InvalidCursor,
    InvalidKey,
    InvalidMessage,
    LimitExceeded,
    NotStorable,
    SessionDeleted,
    SessionExists,
    SessionHistoryError,
    SessionNotFound,
    Unavailable,
)
from session_history.providers.memory import MemoryProvider
from session_history_hooks import Appended, Entry, Log, Position, SessionKey, Snapshot

HELLO = {"role": "user", "content": "Hello"}
HELLO_MODEL = TextContent(text="hello")
HI = {"role": "assistant", "content": "Hi there!"}


async def texts(service: SessionHistoryService, user_id: str, session_id: str, **window: Any) -> list[str]:
    session = await service.get_session(user_id, session_id, **window)
    assert session is not None
    return [message.text for message in session.messages]


async def converse(service: SessionHistoryService, session_id: str, turns: int) -> None:
    for number in range(turns):
        async with service.turn("u", session_id) as turn:
            turn.add([{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}])


class TestCreate:
    async def test_create_without_an_id_makes_one(self, service: SessionHistoryService) -> None:
        made_up = [(await service.create_session("u", blank)).id for blank in (None, "", "  \t\n")]
        assert len(set(made_up)) == 3
        assert all(UUID(each).version == 4 for each in made_up)

    @pytest.mark.every_store
    async def test_native_session_takes_any_dict(self, service: SessionHistoryService) -> None:
        item = {"type": "reasoning", "encrypted_content": "…", "summary": []}
        for _ in range(2):  # The second one re-creates a deleted session.
            session = await service.create_session("u", "s", title="t", native=True)
            assert (session.title, session.messages) == ("t", [])
            await service.append_message(session, item)
            await service.append_message(session, [item])
            assert session.messages == [item, item]
            read = await service.get_session("u", "s", native=True)
            assert read is not None
            assert read.messages == [item, item]
            await service.delete_session("u", "s")

    async def test_session_that_is_not_native_takes_only_messages(self, service: SessionHistoryService) -> None:
        arguments: list[dict[str, Any]] = [{}, {"native": False}]
        for options in arguments:
            session = await service.create_session("u", **options)
            with pytest.raises(InvalidMessage):
                await service.append_message(session, {"type": "reasoning", "summary": []})

    @pytest.mark.every_store
    async def test_create_stores_title_and_metadata(self, service: SessionHistoryService) -> None:
        begun = await service.create_session("u", "s", title="旅行", metadata={"tags": ["a", 1, None]})
        read = await service.get_session("u", "s")
        listed = (await service.list_sessions("u"))[0]
        for session in (begun, read, listed):
            assert session is not None
            assert (session.id, session.user_id, session.messages) == ("s", "u", [])
            assert (session.title, session.metadata) == ("旅行", {"tags": ["a", 1, None]})

    async def test_create_of_an_existing_session_raises_session_exists(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s", title="first")
        await service.append_message(session, HELLO)
        with pytest.raises(SessionExists):
            await service.create_session("u", "s", title="second")
        read = await service.get_session("u", "s")
        assert read is not None
        assert (read.title, len(read.messages)) == ("first", 1)

    async def test_create_after_an_append_raises_session_exists(self, service: SessionHistoryService) -> None:
        await service.append_message(Session(id="s", user_id="u"), HELLO)
        with pytest.raises(SessionExists):
            await service.create_session("u", "s")

    @pytest.mark.every_store
    async def test_concurrent_creates_admit_one(self, service: SessionHistoryService) -> None:
        rivals = (service.create_session("u", "s", title=str(number)) for number in range(8))
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        assert sum(isinstance(outcome, Session) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, SessionExists) for outcome in outcomes) == 7

    async def test_session_has_times_of_creation_and_update(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        assert session.created_at is not None
        assert abs(datetime.now(UTC) - session.created_at) < timedelta(minutes=1)
        await service.append_message(session, HELLO)
        read = await service.get_session("u", "s")
        assert read is not None
        assert read.updated_at is not None
        assert read.created_at == session.created_at <= read.updated_at

    @pytest.mark.parametrize("metadata", [{"a": float("nan")}, {1: 2}, {"a": (1,)}])
    async def test_create_with_unstorable_values_creates_nothing(
        self, service: SessionHistoryService, metadata: Any
    ) -> None:
        with pytest.raises(NotStorable, match="metadata"):
            await service.create_session("u", "s", metadata=metadata)
        with pytest.raises(NotStorable, match="title"):
            await service.create_session("u", "s", title="\ud800")
        with pytest.raises(NotStorable, match="title"):
            await service.create_session("u", "s", title=5)  # type: ignore[call-overload]
        for no_dict in ("x", ["x"], 5):
            with pytest.raises(NotStorable, match="metadata must be a dict"):
                await service.create_session("u", "s", metadata=no_dict)  # type: ignore[call-overload]
        with pytest.raises(LimitExceeded, match="summary bytes"):
            await service.create_session("u", "s", metadata={"a": "x" * 2**21})
        assert await service.list_sessions("u") == []


class TestGet:
    async def test_get_of_a_session_never_seen_returns_an_empty_one(self, service: SessionHistoryService) -> None:
        session = await service.get_session("u", "s")
        assert session is not None
        assert (session.messages, session.turns, session.created_at) == ([], 0, None)
        assert await service.list_sessions("u") == []
        await service.create_session("u", "s")

    async def test_get_of_another_users_session_returns_an_empty_one(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s", title="mine")
        await service.append_message(session, HELLO)
        foreign, never = await service.get_session("v", "s"), await service.get_session("w", "s")
        assert foreign is not None
        assert never is not None
        assert foreign.model_dump(exclude={"user_id"}) == never.model_dump(exclude={"user_id"})
        for user in ("v", "w"):
            with pytest.raises(SessionNotFound):
                await service.update_session(user, "s", title="theirs")

    @pytest.mark.every_store
    async def test_get_of_a_deleted_session_returns_none(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s", title="old", metadata={"a": 1})
        await service.append_message(session, HELLO)
        await service.delete_session("u", "s")
        assert await service.get_session("u", "s") is None
        assert await service.get_session("u", "s", last_turns=1) is None
        await service.create_session("u", "s")
        again = await service.get_session("u", "s")
        assert again is not None
        assert (again.messages, again.title, again.metadata, again.turns) == ([], None, {}, 0)

    async def test_get_with_last_turns_returns_the_newest_turns(self, service: SessionHistoryService) -> None:
        await converse(service, "s", 30)
        assert await texts(service, "u", "s", last_turns=2) == ["q28", "a28", "q29", "a29"]
        assert await texts(service, "u", "s", last_turns=0) == []
        assert len(await texts(service, "u", "s", last_turns=30)) == 60
        assert len(await texts(service, "u", "s", last_turns=99)) == 60

    @pytest.mark.parametrize("size", [1, 3, 7, 25, 40])
    @pytest.mark.every_store
    async def test_pages_back_to_the_beginning_are_the_whole_session(
        self, service: SessionHistoryService, size: int
    ) -> None:
        await converse(service, "s", 25)
        await service.update_session("u", "s", title="in between")
        pages: list[str] = []
        before = None
        while True:
            session = await service.get_session("u", "s", last_turns=size, before=before)
            assert session is not None
            assert len(session.messages) <= 2 * size
            pages = [message.text for message in session.messages] + pages
            before = session.earlier
            if before is None:
                break
        assert pages == await texts(service, "u", "s")

    async def test_get_before_a_cursor_returns_all_earlier_messages(self, service: SessionHistoryService) -> None:
        await converse(service, "s", 10)
        newest = await service.get_session("u", "s", last_turns=3)
        assert newest is not None
        assert len(await texts(service, "u", "s", before=newest.earlier)) == 14

    @pytest.mark.every_store
    async def test_pages_part_the_turns_of_one_append(self, service: SessionHistoryService) -> None:
        session = await service.get_session("u", "s")
        assert session is not None
        await service.append_message(session, [{"role": "user", "content": f"q{number}"} for number in range(12)])
        page = await service.get_session("u", "s", last_turns=4)
        assert page is not None
        assert [message.text for message in page.messages] == ["q8", "q9", "q10", "q11"]
        assert await texts(service, "u", "s", last_turns=2, before=page.earlier) == ["q6", "q7"]

    async def test_cursor_holds_after_appends(self, service: SessionHistoryService) -> None:
        await converse(service, "s", 6)
        newest = await service.get_session("u", "s", last_turns=2)
        assert newest is not None
        await converse(service, "s", 2)
        assert await texts(service, "u", "s", last_turns=2, before=newest.earlier) == ["q2", "a2", "q3", "a3"]

    @pytest.mark.parametrize("cursor", ["", "x", "1.2", "1.2.3.4", "-1.0.0", "0.1.x", "9" * 40 + ".1.0", "٣.1.0"])
    async def test_get_with_a_wrong_cursor_raises_invalid_cursor(
        self, service: SessionHistoryService, cursor: str
    ) -> None:
        await converse(service, "s", 2)
        with pytest.raises(InvalidCursor):
            await service.get_session("u", "s", before=cursor)

    async def test_get_with_a_cursor_of_a_deleted_session_raises_invalid_cursor(
        self, service: SessionHistoryService
    ) -> None:
        await converse(service, "s", 3)
        newest = await service.get_session("u", "s", last_turns=1)
        assert newest is not None
        await service.delete_session("u", "s")
        await service.create_session("u", "s")
        with pytest.raises(InvalidCursor):
            await service.get_session("u", "s", before=newest.earlier)

    async def test_earlier_is_none_only_at_the_beginning(self, service: SessionHistoryService) -> None:
        await service.create_session("u", "s")
        for number in range(30):
            await service.update_session("u", "s", title=f"{number}")
        await converse(service, "s", 1)
        for options in ({"last_turns": 1}, {"last_turns": 2}, {}):
            session = await service.get_session("u", "s", **options)  # type: ignore[call-overload]
            assert session.earlier is None
        nothing = await service.get_session("u", "s", last_turns=0)
        assert nothing is not None
        assert await texts(service, "u", "s", before=nothing.earlier) == ["q0", "a0"]

    @pytest.mark.parametrize("count", [-1, True, 1.5, "3"])
    async def test_get_with_a_wrong_count_raises_value_error(self, service: SessionHistoryService, count: Any) -> None:
        with pytest.raises(ValueError, match="last_turns"):
            await service.get_session("u", "s", last_turns=count)
        with pytest.raises(ValueError, match="limit"):
            await service.list_sessions("u", limit=-5 if count is True else count)

    async def test_plain_appends_are_turns_from_one_user_message_to_the_next(
        self, service: SessionHistoryService
    ) -> None:
        session = await service.create_session("u", "s")
        for batch in (["s0", "q0"], ["a0"], ["a1", "q1", "a2"], ["q2"], ["a3"]):
            roles = {"s": "system", "q": "user", "a": "assistant"}
            await service.append_message(session, [{"role": roles[text[0]], "content": text} for text in batch])
        assert await texts(service, "u", "s", last_turns=1) == ["q2", "a3"]
        assert await texts(service, "u", "s", last_turns=2) == ["q1", "a2", "q2", "a3"]
        assert await texts(service, "u", "s", last_turns=3) == ["q0", "a0", "a1", "q1", "a2", "q2", "a3"]
        newest = await service.get_session("u", "s", last_turns=2)
        assert newest is not None
        assert newest.turns == 4
        assert await texts(service, "u", "s", last_turns=1, before=newest.earlier) == ["q0", "a0", "a1"]

    async def test_turn_of_many_plain_appends_is_shown_whole(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        await service.append_message(session, HELLO)
        for number in range(40):
            await service.append_message(session, {"role": "assistant", "content": str(number)})
        assert len(await texts(service, "u", "s", last_turns=1)) == 41


class TestAppend:
    @pytest.mark.every_store
    async def test_append_takes_messages_and_dicts_and_lists(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        await service.append_message(session, Message(role=Role.USER, content=[TextContent(text="1")]))
        await service.append_message(session, {"role": "assistant", "content": "2", "extra": {"kept": [True]}})
        await service.append_message(session, [{"role": "user", "content": "3"}, Message(role="tool", content="4")])
        await service.append_message(session, [])
        read = await service.get_session("u", "s")
        assert read is not None
        for each in (session, read):
            assert all(type(message) is Message for message in each.messages)
            assert [message.text for message in each.messages] == ["1", "2", "3", "4"]
        assert read.messages == session.messages
        assert read.messages[1].extra == {"kept": [True]}  # type: ignore[attr-defined]

    async def test_append_with_one_wrong_message_stores_none(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        for bad in (
            {"content": "no role"},
            {"role": 1},
            {"role": "user", "content": [{"no": "type"}]},
            5,
            "text",
            None,
        ):
            with pytest.raises(InvalidMessage, match=r"messages\[1\]"):
                await service.append_message(session, [HELLO, bad])  # type: ignore[list-item]
        with pytest.raises(NotStorable, match=r"messages\[1\]\.content\[0\]\.text holds a lone surrogate"):
            await service.append_message(session, [HELLO, Message(role="user", content="\udc00")])
        no_messages: list[Any] = ["text", b"bytes", 5, None]
        for bad in no_messages:
            with pytest.raises(InvalidMessage):
                await service.append_message(session, bad)
        assert session.messages == await _messages(service) == []

    async def test_append_that_is_too_large_raises_limit_exceeded(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        with pytest.raises(LimitExceeded, match="entry bytes"):
            await service.append_message(session, {"role": "user", "content": "x" * (64 * 2**20 + 1)})
        assert session.messages == await _messages(service) == []

    async def test_append_to_a_session_never_seen_creates_it(self, service: SessionHistoryService) -> None:
        session = await service.get_session("u", "s")
        assert session is not None
        await service.append_message(session, HELLO)
        await service.append_message(session, HI)
        assert await texts(service, "u", "s") == ["Hello", "Hi there!"]

    async def test_append_to_a_session_object_made_by_hand_works(self, service: SessionHistoryService) -> None:
        await converse(service, "s", 1)
        session: Session = Session(id="s", user_id="u")
        await service.append_message(session, HELLO)
        assert len(session.messages) == 1
        assert await texts(service, "u", "s") == ["q0", "a0", "Hello"]

    @pytest.mark.every_store
    async def test_append_after_delete_raises_session_deleted(self, service: SessionHistoryService) -> None:
        held = [await service.get_session("u", "s"), await service.create_session("u", "s")]
        held += [await service.get_session("u", "s"), (await service.list_sessions("u"))[0]]
        await service.delete_session("u", "s")
        held.append(Session(id="s", user_id="u"))
        for session in held:
            assert session is not None
            with pytest.raises(SessionDeleted):
                await service.append_message(session, HELLO)
            assert session.messages == []
        await service.create_session("u", "s")
        for session in held[1:4]:
            assert session is not None
            with pytest.raises(SessionDeleted):
                await service.append_message(session, HELLO)
        assert await _messages(service) == []

    @pytest.mark.every_store
    async def test_concurrent_appends_are_all_kept_whole(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        others = [await service.get_session("u", "s") for _ in range(4)]
        pairs = [[{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": f"{n}"}] for n in range(20)]
        holders = [session, *others]
        await asyncio.gather(
            *(service.append_message(holders[number % 5], pair) for number, pair in enumerate(pairs))  # type: ignore[arg-type]
        )
        stored = await texts(service, "u", "s")
        assert sorted(stored) == sorted(str(n) for n in range(20) for _ in range(2))
        assert stored[::2] == stored[1::2]

    async def test_appended_values_are_copied(self, service: SessionHistoryService) -> None:
        session = await service.get_session("u", "s", native=True)
        assert session is not None
        message: dict[str, Any] = {"role": "user", "parts": [1]}
        await service.append_message(session, message)
        message["parts"].append(2)
        session.messages[0]["parts"].append(3)
        read = await service.get_session("u", "s", native=True)
        assert read is not None
        assert read.messages == [{"role": "user", "parts": [1]}]

    async def test_native_values_come_back_verbatim(self, service: SessionHistoryService) -> None:
        values: list[dict[str, Any]] = [{}, {"z": 1, "a": [1.0, 1, True, None]}, {"role": 7, "content": {"x": "y"}}]
        session = await service.get_session("u", "s", native=True)
        assert session is not None
        await service.append_message(session, values)
        read = await service.get_session("u", "s", native=True)
        neutral = await service.get_session("u", "s")
        assert read is not None
        assert neutral is not None
        assert repr(read.messages) == repr(session.messages) == repr(values)
        assert [message.role for message in neutral.messages] == ["unknown"] * 3
        assert [message.content[0].data for message in neutral.messages] == values  # type: ignore[index,union-attr]

    @pytest.mark.every_store
    async def test_cancelled_append_ends_before_the_cancellation_is_raised(
        self, service: SessionHistoryService
    ) -> None:
        session = await service.create_session("u", "s")
        task = asyncio.create_task(service.append_message(session, HELLO))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [message.text for message in session.messages] == await texts(service, "u", "s")

    async def test_append_to_another_object_raises_type_error(self, service: SessionHistoryService) -> None:
        with pytest.raises(TypeError, match="Session"):
            await service.append_message("s", HELLO)  # type: ignore[arg-type]

    async def test_append_to_a_copy_with_another_identity_keeps_title_and_metadata(
        self, service: SessionHistoryService
    ) -> None:
        mine = await service.create_session("alice", "one", title="secret", metadata={"k": "alice"})
        await service.create_session("bob", "two", title="bob's")
        await service.append_message(mine.model_copy(update={"user_id": "bob", "id": "two", "messages": []}), HELLO)
        theirs = await service.get_session("bob", "two")
        assert theirs is not None
        assert (theirs.title, theirs.metadata, len(theirs.messages)) == ("bob's", {}, 1)

    @pytest.mark.parametrize("native", [False, True])
    @pytest.mark.parametrize(
        "copied", [copy.deepcopy, lambda session: pickle.loads(pickle.dumps(session))], ids=["deep copy", "pickle"]
    )
    async def test_session_object_survives_copy_and_pickle(
        self, service: SessionHistoryService, copied: Callable[[Session[Any]], Session[Any]], native: bool
    ) -> None:
        await converse(service, "s", 2)
        session: Session[Any] | None = await service.get_session("u", "s", native=native)
        assert session is not None
        other = copied(session)
        assert type(other) is type(session)
        assert other.model_dump() == session.model_dump()
        await service.append_message(other, HELLO)
        await service.append_message(session, HELLO)
        assert [len(each.messages) for each in (session, other)] == [5, 5]
        assert len(await texts(service, "u", "s")) == 6

    async def test_append_to_a_session_of_another_service_carries_nothing_over(
        self, service: SessionHistoryService
    ) -> None:
        async with InMemorySessionHistoryService() as other:
            session = await other.create_session("u", "s", title="other")
            await other.append_message(session, HELLO)
        await service.append_message(session, HI)
        read = await service.get_session("u", "s")
        assert read is not None
        assert (read.title, len(read.messages)) == (None, 1)

    async def test_enum_text_is_stored_as_its_value(self, service: SessionHistoryService) -> None:
        class Name(str, Enum):  # noqa: UP042 - str() of it shows the class
            U = "u"

        await service.create_session("u", "s")
        created = await service.create_session(Name.U, "s2")
        assert type(created.user_id) is str
        assert created.user_id == "u"
        assert len(await service.list_sessions(Name.U)) == 2
        assert await service.delete_user(Name.U) == 2
        assert await service.list_sessions("u") == []

    async def test_fields_of_a_message_subclass_are_stored(self, service: SessionHistoryService) -> None:
        class Note(TextContent):
            note: str = "kept"

        class UserMessage(Message):
            role: str = "user"
            tags: list[str] = Field(default_factory=list)
            tool_call_id: str = Field(default="t1", alias="toolCallId")

        message = UserMessage(content=[Note(text="hi")])
        message.tags.append("added")
        session = await service.get_session("u", "s", native=True)
        assert session is not None
        await service.append_message(session, message)
        assert session.messages == [
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi", "note": "kept"}],
                "tags": ["added"],
                "toolCallId": "t1",
            }
        ]

    async def test_changed_message_is_checked_again(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        message = Message(role="user", content="x")
        message.content = "hunter2"  # type: ignore[assignment]
        await service.append_message(session, message)
        assert session.messages[0].text == "hunter2"
        message.content = 5  # type: ignore[assignment]
        with pytest.raises(InvalidMessage, match=r"message\.content"):
            await service.append_message(session, message)
        holding = [
            Message(role="user", extra=HELLO_MODEL),
            Message(role="user", metadata={"a": HELLO_MODEL}),
            Message(role="user", content=[DataContent(data=(1, 2))]),
        ]
        for odd in holding:
            with pytest.raises(NotStorable):
                await service.append_message(session, odd)

    async def test_session_repr_shows_the_number_of_messages(self, service: SessionHistoryService) -> None:
        await converse(service, "s", 2)
        for session in (*await service.list_sessions("u"), await service.get_session("u", "s", last_turns=0)):
            assert repr(session) == "Session(id='s', user_id='u', turns=2, messages=0)"

    def test_session_repr_shows_no_content(self) -> None:
        secret = Message(role="user", content="hunter2", extra="hunter2", metadata={"a": "hunter2"})
        session = Session(id="s", user_id="u", messages=[secret], title="hunter2", metadata={"a": "hunter2"})
        for shown in (secret, secret.content, session, Identity("u", "s", "hunter2"), [secret]):
            rich = list(getattr(shown, "__rich_repr__", list)())
            assert "hunter2" not in f"{shown!r}{shown}{rich}"


class TestUpdate:
    async def test_update_changes_only_the_named_fields(self, service: SessionHistoryService) -> None:
        await service.create_session("u", "s", title="t", metadata={"a": 1})
        await converse(service, "s", 2)
        assert (await service.update_session("u", "s", title="new")).title == "new"
        updated = await service.update_session("u", "s", metadata={"b": 2})
        assert (updated.title, updated.metadata, updated.turns, updated.messages) == ("new", {"b": 2}, 2, [])
        assert (await service.update_session("u", "s", title=None)).title is None
        assert (await service.update_session("u", "s")).metadata == {"b": 2}
        assert (await service.update_session("u", "s", metadata=None)).metadata == {}
        assert len(await texts(service, "u", "s")) == 4

    async def test_update_is_no_activity(self, service: SessionHistoryService) -> None:
        for name in ("a", "b"):
            await service.create_session("u", name)
        before = await service.list_sessions("u")
        updated = await service.update_session("u", "a", title="x")
        after = await service.list_sessions("u")
        assert [session.id for session in after] == ["b", "a"]
        created, *times = (session.updated_at for session in (before[1], updated, after[1]))
        assert created is not None
        assert all(time is not None and time > created for time in times)

    async def test_update_of_a_missing_or_deleted_session_raises(self, service: SessionHistoryService) -> None:
        with pytest.raises(SessionNotFound) as missing:
            await service.update_session("u", "s", title="x")
        assert isinstance(missing.value, LookupError)
        await service.create_session("u", "s")
        await service.delete_session("u", "s")
        with pytest.raises(SessionDeleted):
            await service.update_session("u", "s", title="x")

    @pytest.mark.every_store
    async def test_concurrent_updates_and_appends_are_all_kept(self, service: SessionHistoryService) -> None:
        session = await service.create_session("u", "s")
        await asyncio.gather(
            *(service.update_session("u", "s", metadata={"n": n}) for n in range(5)),
            *(service.append_message(session, HELLO) for _ in range(5)),
            service.update_session("u", "s", title="t"),
        )
        read = await service.get_session("u", "s")
        assert read is not None
        assert (len(read.messages), read.turns, read.title) == (5, 5, "t")


class TestList:
    @pytest.mark.every_store
    async def test_pages_of_a_listing_hold_every_session_once(self, service: SessionHistoryService) -> None:
        for number in range(7):
            await service.create_session("u", f"s{number}", title=str(number))
            await asyncio.sleep(0.001)
        first = await service.list_sessions("u", limit=3)
        second = await service.list_sessions("u", limit=3, cursor=first.next_cursor)
        third = await service.list_sessions("u", limit=3, cursor=second.next_cursor)
        assert [[session.title for session in page] for page in (first, second, third)] == [
            ["6", "5", "4"],
            ["3", "2", "1"],
            ["0"],
        ]
        assert third.next_cursor is None
        everything = await service.list_sessions("u")
        assert (len(everything), everything.next_cursor) == (7, None)

    async def test_listing_may_be_longer_than_a_page_of_the_provider(self, service: SessionHistoryService) -> None:
        await asyncio.gather(*(service.create_session("u", f"s{number}") for number in range(1100)))
        assert len(await service.list_sessions("u")) == 1100
        assert len(await service.list_sessions("u", limit=1050)) == 1050

    async def test_list_with_a_wrong_cursor_raises_invalid_cursor(self, service: SessionHistoryService) -> None:
        with pytest.raises(InvalidCursor):
            await service.list_sessions("u", cursor="nonsense")
        with pytest.raises(InvalidKey):
            await service.list_sessions(" ")

    async def test_session_with_an_unreadable_summary_is_listed_without_title(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        provider = MemoryProvider()
        async with SessionHistoryService(provider) as service:
            await service.create_session("u", "good", title="good")
            await service.create_session("u", "healed", title="healed")
            key = SessionKey("u", "healed")
            log = await provider.read(key)
            assert log is not None
            await rewrite(provider, key, 1, None, Snapshot(1, log.head.tail_origin, b"?"))
            await provider.append(SessionKey("u", "bad"), Entry("e", b"hunter2"), at=Position(0, 0))
            listed = await service.list_sessions("u")
            titles = {session.id: session.title for session in listed}
            assert titles == {"good": "good", "healed": "healed", "bad": None}
            assert (listed.unreadable, listed.unnamed) == (("bad",), 0)
            assert "bad" in caplog.text
            assert "hunter2" not in caplog.text
            with pytest.raises(Corrupt):
                await service.get_session("u", "bad")

    @pytest.mark.every_store
    async def test_get_of_a_session_deleted_meanwhile_returns_none(self, service: SessionHistoryService) -> None:
        await asyncio.gather(*(converse(service, "s", 1) for _ in range(1100)))
        real = service.provider.read

        async def read_then_delete(*arguments: Any, **options: Any) -> Any:
            log = await real(*arguments, **options)
            await service.provider.delete(SessionKey("u", "s"))
            return log

        service.provider.read = read_then_delete  # type: ignore[method-assign]
        assert await SessionHistoryService(service.provider).get_session("u", "s") is None

    @pytest.mark.every_store
    async def test_get_of_a_session_re_created_meanwhile_shows_nothing_of_two_lives(
        self, pair: list[SessionHistoryService]
    ) -> None:
        reading, other = pair
        await converse(other, "s", 2)
        for number in range(8):  # behind the turns, so that the read needs a second page
            await other.update_session("u", "s", title=f"old {number}")
        real = reading.provider.read
        pages = 0

        async def read(*arguments: Any, **options: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 2:
                await other.delete_session("u", "s")
                await converse_again(other)
            return await real(*arguments, **options)

        async def converse_again(service: SessionHistoryService) -> None:
            reading.provider.read = real  # type: ignore[method-assign]
            await service.create_session("u", "s")
            await converse(service, "s", 14)

        reading.provider.read = read  # type: ignore[method-assign]
        assert await reading.get_session("u", "s", last_turns=1) is None
        assert pages == 2
        assert await texts(reading, "u", "s", last_turns=1) == ["q13", "a13"]


class TestDelete:
    async def test_delete_of_a_missing_session_does_nothing(self, service: SessionHistoryService) -> None:
        await service.delete_session("u", "never")
        session = await service.get_session("u", "never")
        assert session is not None
        await service.append_message(session, HELLO)

    @pytest.mark.every_store
    async def test_delete_user_deletes_all_sessions(self, service: SessionHistoryService) -> None:
        for user in ("u", "u", "v"):
            await service.create_session(user)
        assert await service.delete_user("u") == 2
        assert await service.delete_user("u") == 0
        assert len(await service.list_sessions("v")) == 1


class TestLifeCycle:
    @pytest.mark.parametrize("start", [True, False])
    async def test_stop_during_the_start_leaves_the_service_stopped(self, tmp_path: Path, start: bool) -> None:
        service = SqliteSessionHistoryService(tmp_path / "h.db")
        for _ in range(5):
            for ticks in range(4):
                beginning = service.start() if start else service.list_sessions("u")
                task = asyncio.ensure_future(beginning)
                for _ in range(ticks):
                    await asyncio.sleep(0)
                await service.stop()
                await asyncio.gather(task, return_exceptions=True)
                if ticks:
                    assert "stopped" in repr(service)
                    with pytest.raises(Unavailable, match="stopped"):
                        await service.list_sessions("u")
                await service.start()
                assert await service.list_sessions("u") == []
        await service.stop()

    def test_threads_share_the_configured_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", "memory://")
        for _ in range(50):
            _configured_service.cache_clear()
            with ThreadPoolExecutor(4, initializer=threading.Barrier(4).wait) as pool:
                found = list(pool.map(lambda _: configured_service(), range(4)))
            assert len(set(map(id, found))) == 1
        _configured_service.cache_clear()

    async def test_service_starts_by_itself_and_stays_stopped(self) -> None:
        service = InMemorySessionHistoryService()
        assert "new" in repr(service)
        await service.create_session("u", "s")
        assert await service.health() is True
        await service.stop()
        await service.stop()
        assert await service.health() is False
        with pytest.raises(Unavailable, match="stopped"):
            await service.get_session("u", "s")
        await service.start()
        assert await service.health() is True
        assert len(await service.list_sessions("u")) == 1

    @pytest.mark.parametrize("provider", [None, "sqlite:///h.db", object(), MemoryProvider])
    def test_service_with_another_object_as_provider_raises_type_error(self, provider: Any) -> None:
        with pytest.raises(TypeError, match="from_url"):
            SessionHistoryService(provider)

    async def test_error_has_the_base_class_and_a_builtin(self) -> None:
        from session_history import errors

        for name in errors.__all__:
            kind = getattr(errors, name)
            assert issubclass(kind, SessionHistoryError)
            if kind is not SessionHistoryError:
                bases = {base for base in kind.__mro__ if base.__module__ == "builtins"}
                assert bases - {Exception, BaseException, object}, name

    async def test_error_survives_pickling(self) -> None:
        import pickle

        key = SessionKey("u", "s")
        for error in (
            InvalidKey("user_id", "is odd"),
            LimitExceeded("x", 2, 1),
            SessionDeleted(key),
            SessionDeleted(key, traceless=True),
            NotStorable("a", "b"),
        ):
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again)) == (type(error), str(error))


async def _messages(service: SessionHistoryService) -> list[Message]:
    session = await service.get_session("u", "s")
    assert session is not None
    return session.messages


@pytest.mark.every_store
async def test_update_whose_answer_was_lost_returns_the_new_title(service: SessionHistoryService) -> None:
    await service.create_session("u", "s", title="old")
    provider = service.provider
    real = provider.append
    calls = 0

    async def lose_the_answer(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        await real(*arguments, **options)
        return await real(*arguments, **options)  # the provider tries again, and finds it

    provider.append = lose_the_answer  # type: ignore[method-assign]
    session = await service.update_session("u", "s", title="new")
    assert session.title == "new"
    assert calls == 1


@pytest.mark.every_store
async def test_append_behind_one_whose_answer_was_lost_goes_into_the_same_session(
    service: SessionHistoryService,
) -> None:
    await service.create_session("u", "s")
    await service.delete_session("u", "s")
    session = await service.create_session("u", "s")
    real = service.provider.append

    async def lose_the_answer(*arguments: Any, **options: Any) -> Any:
        service.provider.append = real  # type: ignore[method-assign]
        await real(*arguments, **options)
        return await real(*arguments, **options)  # the provider tries again, and finds it

    service.provider.append = lose_the_answer  # type: ignore[method-assign]
    await service.append_message(session, HELLO)
    await service.append_message(session, HI)
    assert [message.text for message in session.messages] == ["Hello", "Hi there!"]
    assert await texts(service, "u", "s") == ["Hello", "Hi there!"]


@pytest.mark.every_store
async def test_start_beside_a_stop_leaves_a_service_that_works(service: SessionHistoryService) -> None:
    await service.create_session("u", "s", title="kept")
    for _ in range(20):
        await asyncio.gather(service.stop(), service.start())
        async with service.turn("u", "s") as turn:
            turn.add({"role": "user", "content": "q"})
    session = await service.get_session("u", "s")
    assert session is not None
    assert session.turns == 20


@pytest.mark.every_store
async def test_turn_in_a_cancelled_scope_of_anyio_is_stored_without_spinning(service: SessionHistoryService) -> None:
    real = service.provider.append

    async def slow(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.5)
        return await real(*arguments, **options)

    service.provider.append = slow  # type: ignore[method-assign]
    with anyio.CancelScope() as scope:
        async with service.turn("u", "s") as turn:
            turn.add({"role": "user", "content": "q"})
            scope.cancel()
            began = time.process_time()
    assert time.process_time() - began < 0.25  # a loop that spins takes all of the half second
    session = await service.get_session("u", "s")
    assert session is not None
    assert [message.text for message in session.messages] == ["q"]


@pytest.mark.every_store
async def test_turns_at_once_in_a_session_that_expired_are_both_kept(service: SessionHistoryService) -> None:
    await say(service, "q0")
    await service.delete_session("u", "s")
    forget_tombstones(service)
    async with opened(service) as one, opened(service) as other:
        one.add([said("q1")])
        other.add([said("q2")])
        await asyncio.gather(one.checkpoint(), other.checkpoint())
    assert sorted(await recorded(service)) == ["q1", "q2"]


def forget_tombstones(service: SessionHistoryService) -> None:
    """Let the store forget deleted sessions but for their generation, as Redis does when they expire."""
    provider = service.provider
    read, append = provider.read, provider.append

    async def read_living(*arguments: Any, **options: Any) -> Log | None:
        log = await read(*arguments, **options)
        return None if log and log.head.deleted else log

    async def append_behind_expired(key: SessionKey, entry: Entry, *, at: Position, **options: Any) -> Appended:
        log = await read(key, last=0)
        assert log is not None
        if at == Position(0, 0):
            if not log.head.deleted:
                raise Conflict(log.head, recreated=True)
            at = Position(log.head.tail.generation + 1, 0)
        return await append(key, entry, at=at, **options)

    provider.read, provider.append = read_living, append_behind_expired  # type: ignore[method-assign]
