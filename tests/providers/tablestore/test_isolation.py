"""Any text is an id on Tablestore, and no id, cursor or position leads to the data of another user or session.

The tests of the service run on many more strings and conversations, on other stores. These strings are the ones that
could confuse a key of Tablestore.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.tablestore.support import assert_only_tombstones, connect_to, row_numbers, service_on
from servers.tablestore import TablestoreServer
from session_history import SessionHistoryService
from session_history.errors import Conflict, SessionHistoryError
from session_history_hooks import Entry, ListingCursor, Position, SessionHistoryProvider, SessionKey
from session_history_hooks.testing.subject import opened, read

NASTY = [
    # special values and syntax of Tablestore and of other stores
    "INF_MIN", "INF_MAX", "AUTO_INCREMENT", "None", "null", "true", "NaN", "0", "-1", "01", "1.0",
    "9223372036854775807",
    "'", '"', "' OR 1=1 --", "%", "_", "*", "?", "\\", "/", "../..", "a/b", "a:b", "{a}", "${a}", "<a>", "&amp;",
    # white space and control characters
    "\x01", "a\x1f", "\x7f", "a\tb", "a\nb", "a\r\nb", " a", "a ", "a\u00a0", "\ufeffa", "a\u200b", "\u202ea",
    # texts that look alike
    "a", "A", "\u0430", "\uff41", "\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a", "\ufb01", "fi", "\u00df", "ss",
    # the order of UTF-8 and the order of UTF-16 differ
    "\uffff", "\uff5e", "\U0001f600", "\U0010ffff", "\ud7ff", "\ue000",
    # the longest ids
    "a" * 512, "\u00fc" * 256, "\U0001f600" * 128,
    "\u4f1a\u8bdd", "\u0645\u0631\u062d\u0628\u0627", "\U0001f469\u200d\U0001f4bb",
]  # fmt: skip

SOME = NASTY[::11]


@pytest.fixture
async def provider(server: TablestoreServer) -> AsyncIterator[SessionHistoryProvider]:
    async with opened(connect_to(server)) as provider:
        yield provider


@pytest.fixture
async def service(server: TablestoreServer) -> AsyncIterator[SessionHistoryService]:
    async with service_on(server) as service:
        yield service


# Ids


async def begin(provider: SessionHistoryProvider, keys: list[SessionKey]) -> None:
    """Append an entry to each session, whose id and payload name the session."""
    for key in keys:
        await provider.append(key, entry_of(key), at=Position(0, 0))


def entry_of(key: SessionKey) -> Entry:
    return Entry(key.session_id, repr((key.user_id, key.session_id)).encode(), origin="o")


async def assert_only(provider: SessionHistoryProvider, keys: list[SessionKey]) -> None:
    for user_id in {key.user_id for key in keys}:
        listed = (await provider.list(user_id, limit=1000)).heads
        assert sorted(head.key.session_id for head in listed) == sorted(
            key.session_id for key in keys if key.user_id == user_id
        )
    for key in keys:
        log = await read(provider, key, entry_id=key.session_id)
        assert (log.entries, log.match) == ((entry_of(key),), (1, entry_of(key)))


async def test_every_text_is_an_id_of_its_own(server: TablestoreServer, provider: SessionHistoryProvider) -> None:
    users = [SessionKey(text, "s") for text in NASTY]
    sessions = [SessionKey("one user", text) for text in NASTY]
    pairs = [SessionKey(user, session) for user in SOME for session in SOME if session != "s"]
    keys = list(dict.fromkeys([*users, *sessions, *pairs]))
    await begin(provider, keys)
    async with opened(connect_to(server)) as other:
        await assert_only(other, keys)
    for user_id in NASTY[::2]:
        await provider.delete_user(user_id)
    await assert_only(provider, [key for key in keys if key.user_id not in NASTY[::2]])


async def test_delete_user_keeps_neighbours_in_key_order(provider: SessionHistoryProvider) -> None:
    users = ["a", "a\x01", "a ", "aa", "a\U0010ffff", "A", "`", "b", "\u007f", "ä"]
    sessions = ["\x01", "\U0010ffff" * 128, "é"]
    await begin(provider, [SessionKey(user_id, session_id) for user_id in users for session_id in sessions])
    for count, deleted in enumerate(users, start=1):
        assert await provider.delete_user(deleted) == len(sessions)
        for number, user_id in enumerate(users):
            listed = (await provider.list(user_id, limit=9)).heads
            assert sorted(head.key.session_id for head in listed) == ([] if number < count else sorted(sessions))


async def test_messages_come_back_to_another_process(server: TablestoreServer, service: SessionHistoryService) -> None:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": text, text: {text: [text, 1, 1.5, None, True]}} for text in NASTY
    ]
    async with service.turn("u", "s", turn_id="t", native=True) as turn:
        turn.add(said)
    async with service_on(server) as other:
        session = await other.get_session("u", "s", native=True)
        assert session is not None
        assert session.messages == said
        assert await other.delete_user("u") == 1
    assert_only_tombstones(server)


# Cursors

CURSORS = [
    ListingCursor(active_us, session_id)
    for active_us in (0, 1, 2**31, 2**53 + 1, 2**63 - 1)
    for session_id in ("0", "4", "\x01", "~", "s" * 512, "\U0010ffff" * 128, "theirs", "INF_MAX", "%", "'")
]


async def test_forged_cursor_shows_own_sessions_only(provider: SessionHistoryProvider) -> None:
    mine = [SessionKey("mine", f"{number}") for number in range(5)]
    theirs = [SessionKey("theirs", f"{number}") for number in range(5)]
    for key in (key for pair in zip(mine, theirs, strict=True) for key in pair):
        await begin(provider, [key])
    for cursor in CURSORS:
        shown = (await provider.list("mine", limit=9, cursor=cursor.encode())).heads
        assert [head.key for head in shown] == ([] if cursor.active_us < 10**15 else mine[::-1])
    for head in (await provider.list("theirs", limit=9)).heads:
        for session_id in (head.key.session_id, "\x01"):
            cursor = ListingCursor(head.active_us, session_id)
            shown = (await provider.list("mine", limit=9, cursor=cursor.encode())).heads
            assert {each.key for each in shown} <= set(mine)


# Positions


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 10**30])
async def test_position_beyond_the_limits_reaches_nothing(
    server: TablestoreServer, provider: SessionHistoryProvider, number: int
) -> None:
    """Generation and seq share a column, whose highest value is the number of the head."""
    key, other = SessionKey("u", "s"), SessionKey("u", "t")
    for seq in range(3):
        await provider.append(key, Entry(f"e{seq}", b"payload"), at=Position(0, seq))
    before = await read(provider, key)
    rows = row_numbers(server)
    for at in (Position(number, 0), Position(0, number), Position(number, number), Position(number, 3)):
        for where in (key, other):
            with pytest.raises(SessionHistoryError):
                await provider.append(where, Entry("x", b"x"), at=at)
            with pytest.raises(Conflict):
                await provider.rewrite(
                    where, Entry("e1", b"x"), at=at, rewrite_id="r1", last_rewrite_id="", snapshot=None
                )
            assert await provider.renew(where, at=at) is False
    for names in ("last", "before", "after", "before last", "after last"):
        window: dict[str, Any] = dict.fromkeys(names.split(), number)
        log = await read(provider, key, **window)
        assert log.head == before.head
        assert log.entries == (() if "after" in names else before.entries)
        assert await provider.read(other, **window) is None
    assert row_numbers(server) == rows
