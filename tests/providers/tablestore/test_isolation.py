"""On Tablestore, too, any text is an id and leads to nobody else, and every real conversation comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import pytest_asyncio

from providers.tablestore.support import all_rows, assert_tombstones_alone, connect_to, names_of, service_on
from servers.tablestore import TablestoreServer
from service import test_nasty_strings as nasty
from service import conversations as written
from service import test_conversations as real
from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import Conflict, InvalidCursor, SessionHistoryError
from session_history_hooks import Entry, ListingCursor, Position, SessionKey
from session_history_hooks.testing.subject import opened
from support import json_lines

Check = Callable[[SessionHistoryService, list[written.Conversation]], Awaitable[None]]


@pytest.fixture(scope="module")
def server() -> Iterator[TablestoreServer]:
    with TablestoreServer() as server:
        yield server


@pytest.fixture
async def service() -> AsyncIterator[SessionHistoryService]:
    with TablestoreServer() as server:
        async with service_on(server) as service:
            yield service


def strings_of(shared: Path, folder: str) -> list[str]:
    return [line["s"] for line in json_lines(shared / "data" / folder / "strings.jsonl")]


def some_of(strings: list[str]) -> list[str]:
    """Of many, those next to each other that are easily confused, and some of all others."""
    if len(strings) < 1000:
        return strings
    alike = sorted(nasty.easily_confused(strings), key=lambda each: normalize("NFKC", each).casefold().strip())
    return list(dict.fromkeys([*alike[:500], *strings[:: len(strings) // 300]]))


@pytest.mark.parametrize("folder", ["naughty-strings", "unicode-strings"])
async def test_every_string_works_or_is_refused_as_on_sqlite(folder: str, shared: Path, tmp_path: Path) -> None:
    strings = some_of(strings_of(shared, folder))
    with TablestoreServer() as server:
        here = await nasty.outcomes_of(service_on(server), strings)
    there = await nasty.outcomes_of(SqliteSessionHistoryService(tmp_path / "history.db"), strings)
    print(folder, "-", nasty.summary(here))
    assert here == there
    assert len(nasty.worked(here)) > 100


async def test_naughty_strings_in_every_place(shared: Path, service: SessionHistoryService) -> None:
    await nasty.test_naughty_strings_in_every_place(strings_of(shared, "naughty-strings"), service)


async def test_naughty_users_with_sessions_of_one_name_have_their_own_each(
    shared: Path, service: SessionHistoryService
) -> None:
    strings = [each for each in strings_of(shared, "naughty-strings") if each.strip() and "\0" not in each]
    keys = [(user_id, "s") for user_id in strings]
    await nasty.begin_all(service, keys)
    await nasty.assert_only(service, keys)
    for user_id, _ in keys[::2]:
        assert await service.delete_user(user_id) == 1
    await nasty.assert_only(service, keys[1::2])


@pytest.mark.parametrize("alike", nasty.LOOKALIKES)
async def test_lookalikes_are_different_users_and_sessions(service: SessionHistoryService, alike: list[str]) -> None:
    await nasty.test_lookalikes_are_different_users_and_sessions(service, alike)


async def test_pairs_that_would_join_alike_are_different(service: SessionHistoryService) -> None:
    await nasty.test_pairs_that_would_join_alike_are_different(service)


async def test_deleting_a_user_goes_no_further(service: SessionHistoryService) -> None:
    """Its neighbours in the order of the keys, and itself up to the first and the last session."""
    users = ["a", "a\x01", "a ", "aa", "a\U0010ffff", "A", "`", "b", "\u007f", "ä"]
    sessions = ["\x01", "a", "\U0010ffff" * 128, "\uffff", "é"]
    for gone in users:
        keys = [(user_id, session_id) for user_id in users for session_id in sessions]
        for user_id, session_id in keys:
            await service.create_session(user_id, session_id)
        assert await service.delete_user(gone) == len(sessions)
        for user_id in users:
            listed = sorted(session.id for session in await service.list_sessions(user_id))
            assert listed == ([] if user_id == gone else sorted(sessions))
        for user_id in users:
            await service.delete_user(user_id)


# Cursors


async def test_foreign_cursors_show_own_sessions_and_messages_only(service: SessionHistoryService) -> None:
    await nasty.test_foreign_cursor_of_a_list_shows_own_sessions_only(service)
    await service.delete_user("mine")
    await service.delete_user("theirs")


async def test_foreign_cursor_of_a_session_shows_own_messages_only(service: SessionHistoryService) -> None:
    await nasty.test_foreign_cursor_of_a_session_shows_own_messages_only(service)


async def test_cursor_of_a_former_life_is_refused(service: SessionHistoryService) -> None:
    await nasty.test_cursor_of_a_former_life_is_refused(service)


EXTREMES = [
    ListingCursor(active_us, session_id)
    for active_us in (0, 1, 2**31, 2**53 + 1, 2**63 - 1)
    for session_id in ("0", "4", "\x01", "~", "s" * 512, "\U0010ffff" * 128, "theirs", "INF_MAX", "%", "'")
]


async def test_forged_cursors_show_own_sessions_only(service: SessionHistoryService) -> None:
    await nasty.fill_two_users(service)
    own = {session.id: session.updated_at for session in await service.list_sessions("mine")}
    for cursor in EXTREMES:
        shown = await nasty.listing_with(service, cursor.encode())
        assert shown == ([] if cursor.active_us < 10**15 else ["4", "3", "2", "1", "0"])
    theirs = (await service._provider.list("theirs", limit=9)).heads
    for head in theirs:
        behind = ListingCursor(head.active_us, head.key.session_id)
        assert set(await nasty.listing_with(service, behind.encode())) <= set(own)
        exactly = ListingCursor(head.active_us, "\x01")
        assert set(await nasty.listing_with(service, exactly.encode())) <= set(own)
    forged: Any
    for forged in nasty.FORGED_LISTINGS:
        with pytest.raises(InvalidCursor):
            await service.list_sessions("mine", limit=1, cursor=forged)


async def test_guessed_cursors_of_a_session_show_own_messages_only(service: SessionHistoryService) -> None:
    await nasty.fill_two_users(service)
    for generation in (0, 1, 2**31, 2**63):
        for seq in (0, 1, 3, 6, 7, 2**32 - 1, 2**32, 2**63 - 1, 10**17):
            for message in (0, 1, 2**63):
                texts = await nasty.scrolling_with(service, f"{generation}.{seq}.{message}")
                assert texts == [f"mine 0.{ordinal}" for ordinal in range(len(texts))]
                assert not texts or generation == 0


# Positions


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 10**30])
async def test_positions_beyond_all_that_fit_reach_nothing(number: int) -> None:
    """A generation and a seq share a column, and the head stands at the end of it."""
    key, other = SessionKey("u", "s"), SessionKey("u", "t")
    with TablestoreServer() as server:
        async with opened(connect_to(server)) as provider:
            for seq in range(3):
                await provider.append(key, Entry(f"e{seq}", b"payload"), at=Position(0, seq))
            before = await provider.read(key)
            rows = names_of(all_rows(server))
            for at in (Position(number, 0), Position(0, number), Position(number, number), Position(number, 3)):
                for where in (key, other):
                    with pytest.raises(SessionHistoryError):
                        await provider.append(where, Entry("x", b"x"), at=at)
                    with pytest.raises(Conflict):
                        await provider.rewrite(where, Entry("e1", b"x"), at=at, rewrites=0, snapshot=None)
                    assert await provider.renew(where, at=at) is False
            for names in ("last", "before", "after", "before last", "after last"):
                log = await provider.read(key, **asked(names, number))
                assert log is not None
                assert before is not None
                assert log.head == before.head
                assert log.entries == (() if "after" in names else before.entries)
                assert await provider.read(other, **asked(names, number)) is None
            assert names_of(all_rows(server)) == rows


def asked(names: str, number: int) -> dict[str, Any]:
    return dict.fromkeys(names.split(), number)


# Conversations


@pytest.fixture(scope="module")
def conversations(shared: Path) -> list[written.Conversation]:
    return written.read_conversations(shared)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept(
    server: TablestoreServer, conversations: list[written.Conversation]
) -> AsyncIterator[SessionHistoryService]:
    """All of them, as somebody sees them who has written none."""
    async with service_on(server) as writer:
        await written.write(writer, conversations)
    async with service_on(server) as service:
        yield service


@pytest.mark.parametrize(
    "check",
    [
        real.test_every_message_comes_back_verbatim,
        real.test_session_counts_its_turns,
        real.test_windows_put_together_are_the_whole_session,
        real.test_empty_window_has_a_cursor_to_all_messages,
        real.test_users_list_only_their_own_sessions,
        real.test_pages_of_a_listing_are_the_whole_listing,
    ],
    ids=lambda check: check.__name__,
)
async def test_conversations(
    check: Check, kept: SessionHistoryService, conversations: list[written.Conversation]
) -> None:
    await check(kept, conversations)


async def test_conversations_of_a_user_can_be_erased(
    kept: SessionHistoryService, server: TablestoreServer, conversations: list[written.Conversation]
) -> None:
    """The last: nothing is left of one user, all of the others, and in the end of nobody."""
    users = sorted({conversation.user_id for conversation in conversations})
    gone, others = users[0], users[1:]
    mine = sum(conversation.user_id == gone for conversation in conversations)
    before = [name for name in names_of(all_rows(server)) if name[0] != gone]
    assert await kept.delete_user(gone) == mine
    left = names_of(all_rows(server))
    assert [name for name in left if name[0] != gone] == before
    assert len(left) == len(before) + mine
    for user_id in others:
        await kept.delete_user(user_id)
    assert_tombstones_alone(server)
