"""Tests of session keys and of listings."""

from __future__ import annotations

import asyncio
import time

import pytest

from session_history_hooks import Appended, InvalidCursor, Position, SessionHistoryProvider, SessionKey
from session_history_hooks.testing.subject import KEY, Connect, Subject, entry, fill, opened, read

LOOK_ALIKES = [
    SessionKey("a", "b:c"),
    SessionKey("a:b", "c"),
    SessionKey("a", "b/c"),
    SessionKey("a/b", "c"),
    SessionKey("a", "*"),
    SessionKey("*", "a"),
    SessionKey("a%", "_"),
    SessionKey("a", "%"),
    SessionKey("a'", '"'),
    SessionKey("a\n", "\t b"),
    SessionKey("a", "é"),
    SessionKey("a", "e\u0301"),
    SessionKey("A", "e\u0301"),
    SessionKey("{a}", "[b]"),
    SessionKey("会话", "历史"),
    SessionKey("u" * 512, "s" * 512),
]
"""Keys that a store may confuse with each other."""

INVALID_CURSORS = ["", " ", "x", "e30=", "bnVsbA==", "WzEsMl0=", "'; --", "\0", "é", "A" * 5000]


class ListingContract(Subject):
    """Look-alike keys, pages and cursors."""

    async def test_look_alike_keys_are_different_sessions(self, provider: SessionHistoryProvider) -> None:
        for number, key in enumerate(LOOK_ALIKES):
            appended = await provider.append(key, entry(number), at=Position(0, 0))
            assert appended == Appended(Position(0, 1), replayed=False), key
        for number, key in enumerate(LOOK_ALIKES):
            assert (await read(provider, key)).entries == (entry(number),)
        for user in {key.user_id for key in LOOK_ALIKES}:
            shown = [key for page in await list_pages(provider, 99, user=user) for key in page]
            assert sorted(shown) == sorted(key for key in LOOK_ALIKES if key.user_id == user)

    async def test_delete_leaves_sessions_with_look_alike_keys(self, provider: SessionHistoryProvider) -> None:
        for number, key in enumerate(LOOK_ALIKES):
            await provider.append(key, entry(number), at=Position(0, 0))
        for number, key in enumerate(LOOK_ALIKES):
            assert await provider.delete(key) is True
            alive = [other for other in LOOK_ALIKES if not (await read(provider, other)).head.deleted]
            assert alive == LOOK_ALIKES[number + 1 :]

    async def test_listing_is_ordered_by_newest_activity(self, provider: SessionHistoryProvider) -> None:
        keys = await create_sessions(provider, 5)
        await provider.append(keys[1], entry(2), at=Position(0, 1))
        await provider.delete(keys[3])
        shown = [key for page in await list_pages(provider, 9) for key in page]
        assert shown == [keys[1], keys[4], keys[2], keys[0]]
        for head in (await provider.list(KEY.user_id, limit=9)).heads:
            assert head == (await read(provider, head.key)).head

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
    async def test_pages_show_every_session_once(self, provider: SessionHistoryProvider, limit: int) -> None:
        keys = await create_sessions(provider, 7)
        pages = await list_pages(provider, limit)
        assert [key for page in pages for key in page] == keys[::-1]
        assert max(map(len, pages)) <= limit

    async def test_page_size_may_change_between_pages(self, provider: SessionHistoryProvider) -> None:
        keys = await create_sessions(provider, 9)
        first = await provider.list(KEY.user_id, limit=2)
        second = await provider.list(KEY.user_id, limit=1, cursor=first.cursor)
        rest = await list_pages(provider, 4, cursor=second.cursor)
        shown = [head.key for head in first.heads + second.heads] + [key for page in rest for key in page]
        assert shown == keys[::-1]

    async def test_sessions_of_one_microsecond_are_listed_once_each(
        self, provider: SessionHistoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moment = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: moment)  # Only a store that uses this process's clock sees it.
        keys = await create_sessions(provider, 7, names="gbdface")  # An index by name has another order.
        for limit in (1, 2, 3, 7):
            pages = await list_pages(provider, limit)
            assert sorted(key for page in pages for key in page) == sorted(keys)

    async def test_cursor_works_on_any_connection_and_more_than_once(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            keys = await create_sessions(one, 5)
            cursor = (await one.list(KEY.user_id, limit=2)).cursor
            for provider in (one, other, one):
                pages = await list_pages(provider, 2, cursor=cursor)
                assert [key for page in pages for key in page] == keys[2::-1]

    async def test_cursor_works_after_its_session_was_deleted_or_changed(
        self, provider: SessionHistoryProvider
    ) -> None:
        keys = await create_sessions(provider, 5)
        deleted, changed = await provider.list(KEY.user_id, limit=1), await provider.list(KEY.user_id, limit=2)
        await provider.delete(keys[4])
        await provider.append(keys[3], entry(2), at=Position(0, 1))
        for first, rest in ((deleted, {*keys[:3]}), (changed, {*keys[:3]})):
            shown = [key for page in await list_pages(provider, 2, cursor=first.cursor) for key in page]
            assert len(shown) == len(set(shown))
            assert rest <= set(shown) <= {*keys[:4]} - {head.key for head in first.heads}

    async def test_changed_session_is_listed_at_most_once_and_others_exactly_once(
        self, provider: SessionHistoryProvider
    ) -> None:
        keys = await create_sessions(provider, 9)
        first = await provider.list(KEY.user_id, limit=4)
        on_first_page, not_yet_listed = first.heads[1].key, keys[0]
        await provider.append(on_first_page, entry(2), at=Position(0, 1))
        await provider.append(not_yet_listed, entry(2), at=Position(0, 1))
        await provider.delete(keys[1])
        await provider.append(SessionKey(KEY.user_id, "new"), entry(1), at=Position(0, 0))
        rest = [key for page in await list_pages(provider, 4, cursor=first.cursor) for key in page]
        shown = [head.key for head in first.heads] + rest
        assert len(shown) == len(set(shown))
        assert set(keys) - {on_first_page, not_yet_listed, keys[1]} <= set(shown)

    async def test_recreated_session_is_listed_once(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        await provider.delete(KEY)
        await provider.append(KEY, entry(2), at=Position(1, 0))
        assert [head.tail for head in (await provider.list(KEY.user_id, limit=9)).heads] == [Position(1, 1)]

    async def test_cursor_of_one_user_never_shows_sessions_of_another(self, provider: SessionHistoryProvider) -> None:
        await create_sessions(provider, 3)
        other = SessionKey("other", "theirs")
        await provider.append(other, entry(1), at=Position(0, 0))
        cursor = (await provider.list(KEY.user_id, limit=1)).cursor
        assert cursor is not None
        assert {head.key for head in (await provider.list("other", limit=9, cursor=cursor)).heads} <= {other}

    @pytest.mark.parametrize("cursor", INVALID_CURSORS)
    async def test_invalid_cursor_is_refused(self, provider: SessionHistoryProvider, cursor: str) -> None:
        await create_sessions(provider, 2)
        with pytest.raises(InvalidCursor):
            await provider.list(KEY.user_id, limit=1, cursor=cursor)


async def create_sessions(provider: SessionHistoryProvider, count: int, names: str = "0123456789") -> list[SessionKey]:
    """Create sessions of one user, and return their keys, oldest first."""
    keys = [SessionKey(KEY.user_id, f"s{name}") for name in names[:count]]
    for key in keys:
        await provider.append(key, entry(1), at=Position(0, 0))
        await asyncio.sleep(0.001)  # Their activities must differ.
    return keys


async def list_pages(
    provider: SessionHistoryProvider, limit: int, cursor: str | None = None, user: str = KEY.user_id
) -> list[list[SessionKey]]:
    """Return the keys of each page, from the cursor to the last page."""
    pages: list[list[SessionKey]] = []
    while True:
        assert len(pages) < 50, "the cursors never end"
        page = await provider.list(user, limit=limit, cursor=cursor)
        pages.append([head.key for head in page.heads])
        if page.cursor is None:
            return pages
        cursor = page.cursor
