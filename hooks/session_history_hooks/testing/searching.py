"""Tests of the ability ``Searchable``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from session_history_hooks import (
    Conflict,
    Entry,
    InvalidCursor,
    Position,
    Restorable,
    Searchable,
    SearchHit,
    SessionHistoryProvider,
    SessionKey,
)
from session_history_hooks.testing.listing import INVALID_CURSORS
from session_history_hooks.testing.restorable_logs import COPY, made, restore, restore_all
from session_history_hooks.testing.subject import KEY, Connect, Subject, entry, opened, read, require

OTHER = SessionKey(KEY.user_id, "other")
"""Another session of the same user."""


class SearchableContract(Subject):
    """Words that are found, and words that are forgotten."""

    @pytest.fixture
    def searchable(self, provider: SessionHistoryProvider) -> Searchable:
        return require(provider, Searchable)

    async def test_appended_text_is_found(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            searchables = [require(provider, Searchable) for provider in (one, other)]
            assert await found(searchables[0], "red") == []
            await say(one, 1, "the red fox")
            await say(one, 2, None)
            await say(one, 3, "a fox")
            for searchable in searchables:
                assert await found(searchable, "red") == [hit(1)]
                assert await found(searchable, "fox") == [hit(3), hit(1)]

    async def test_entry_with_all_words_is_found(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        await say(provider, 1, "the red fox")
        await say(provider, 2, "the fox")
        assert await found(searchable, "fox", "the") == [hit(2), hit(1)]
        assert await found(searchable, "fox", "red") == [hit(1)]
        assert await found(searchable, "fox", "fox") == [hit(2), hit(1)]
        assert await found(searchable, "fox", "blue") == []
        assert await found(searchable, "the red") == []

    async def test_words_are_compared_exactly(self, provider: SessionHistoryProvider, searchable: Searchable) -> None:
        words = ["fox", "Fox", "foxes", "é", "e\u0301", "fox,", "狐狸", "狐", "100%", "f_x", "'", "*"]
        for number, word in enumerate(words, start=1):
            await say(provider, number, word)
        for number, word in enumerate(words, start=1):
            assert await found(searchable, word) == [hit(number)], word
        for word in ("fo", "%", "f", "f*", "FOX", "e", "_"):
            assert await found(searchable, word) == [], word

    async def test_newest_entry_is_found_first_across_sessions(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        for key, number in ((KEY, 1), (OTHER, 1), (KEY, 2), (OTHER, 2)):
            await say(provider, number, "word", key)
        expected = [hit(2, OTHER), hit(2), hit(1, OTHER), hit(1)]
        assert await found(searchable, "word") == expected
        assert await found(searchable, "word", session_id=OTHER.session_id) == expected[::2]
        assert await found(searchable, "word", session_id="nothing") == []

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 99])
    async def test_pages_have_every_hit_once(self, connect: Connect, limit: int) -> None:
        async with opened(connect) as one, opened(connect) as other:
            pages = [require(provider, Searchable) for provider in (one, other)]
            for number in range(1, 8):
                await say(one, number, f"word {number}")
            hits: list[SearchHit] = []
            cursor = None
            for searchable in pages * 10:
                page = await searchable.search(KEY.user_id, ["word"], limit=limit, cursor=cursor)
                assert len(page.hits) <= limit
                hits += page.hits
                cursor = page.cursor
                if cursor is None:
                    break
            assert hits == [hit(number) for number in range(7, 0, -1)]

    async def test_invalid_cursor_of_a_search_is_refused(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        await say(provider, 1, "word")
        for cursor in INVALID_CURSORS:
            with pytest.raises(InvalidCursor):
                await searchable.search(KEY.user_id, ["word"], limit=1, cursor=cursor)

    async def test_text_of_another_user_is_not_found(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        for user in ("user", "user2", "%", "*", "use"):
            await say(provider, 1, "word", SessionKey(user, "s"))
        for user in ("user", "user2", "%", "*", "use"):
            assert await found(searchable, "word", user=user) == [hit(1, SessionKey(user, "s"))]
            assert await found(searchable, "word", user=user, session_id="s") == [hit(1, SessionKey(user, "s"))]
        assert await found(searchable, "word", user="nobody") == []

    async def test_text_is_forgotten_with_its_session(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        for key in (KEY, OTHER):
            await say(provider, 1, "old word", key)
        await provider.delete(KEY)
        assert await found(searchable, "word") == [hit(1, OTHER)]
        new = replace(entry(2), text="new word")
        await provider.append(KEY, new, at=Position(1, 0))
        assert await found(searchable, "word") == [SearchHit(KEY, Position(1, 1), "o2"), hit(1, OTHER)]
        await provider.delete_user(KEY.user_id)
        assert await found(searchable, "word") == []

    async def test_rewrite_replaces_the_text(self, provider: SessionHistoryProvider, searchable: Searchable) -> None:
        for number in (1, 2, 3):
            await say(provider, number, "old word")
        await rewrite_text(provider, 1, "new word", "r1", "")
        await rewrite_text(provider, 2, None, "r2", "r1")
        assert await found(searchable, "word") == [hit(3), hit(1)]
        assert await found(searchable, "old") == [hit(3)]
        assert await found(searchable, "new") == [hit(1)]
        await rewrite_text(provider, 2, "other", "r2", "")  # A retry: the rewrite is not done again.
        with pytest.raises(Conflict):
            await rewrite_text(provider, 3, "other", "r3", "r1")
        assert await found(searchable, "other") == []
        assert await found(searchable, "old") == [hit(3)]

    async def test_text_of_an_append_that_stored_nothing_is_not_found(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        await say(provider, 1, "first", keys=("k1",))
        for lost, at in (
            (Entry("lost", b"", text="lost"), Position(0, 0)),
            (Entry("lost", b"", text="lost"), Position(1, 0)),
            (Entry("lost", b"", keys=("k1",), text="lost"), Position(0, 1)),
        ):
            with pytest.raises(Conflict):
                await provider.append(KEY, lost, at=at)
        again = await provider.append(KEY, replace(entry(1), text="lost"), at=Position(0, 1))
        assert again.replayed is True
        assert await found(searchable, "lost") == []
        assert await found(searchable, "first") == [hit(1)]

    async def test_hit_names_the_entry_that_a_read_returns(
        self, provider: SessionHistoryProvider, searchable: Searchable
    ) -> None:
        for number in range(1, 6):
            await say(provider, number, "word" if number == 3 else "else")
        (only,) = await found(searchable, "word")
        log = await read(provider, only.key, after=only.position.seq - 1, before=only.position.seq + 1)
        assert (log.head.tail.generation, log.first) == (only.position.generation, only.position.seq)
        assert log.entries == (entry(3),)
        assert log.entries[0].origin == only.origin

    async def test_restored_text_is_found(self, provider: SessionHistoryProvider, searchable: Searchable) -> None:
        restorable = require(provider, Restorable)
        head, entries = made(3)
        entries = tuple(replace(each, text=f"word {each.id}") for each in entries)
        for _ in range(2):  # A repeated restore does not double the words.
            await restore_all(restorable, head, entries, 2)
            assert await found(searchable, "word", user=COPY.user_id) == [hit(number, COPY) for number in (3, 2, 1)]
            assert await found(searchable, "e2", user=COPY.user_id) == [hit(2, COPY)]
        other = tuple(replace(each, origin="other", text="lost") for each in entries)
        with pytest.raises(Conflict):
            await restore(restorable, replace(head, tail_origin="other"), other)
        assert await found(searchable, "lost", user=COPY.user_id) == []


def hit(number: int, key: SessionKey = KEY) -> SearchHit:
    """The hit of entry ``number``, which stands at its number."""
    return SearchHit(key, Position(0, number), f"o{number}")


async def say(
    provider: SessionHistoryProvider,
    number: int,
    text: str | None,
    key: SessionKey = KEY,
    keys: tuple[str, ...] = (),
) -> None:
    """Append entry ``number`` with a text."""
    await provider.append(key, replace(entry(number), text=text, keys=keys), at=Position(0, number - 1))


async def rewrite_text(
    provider: SessionHistoryProvider, number: int, text: str | None, rewrite_id: str, last: str
) -> None:
    await provider.rewrite(
        KEY,
        replace(entry(number), text=text),
        at=Position(0, number),
        rewrite_id=rewrite_id,
        last_rewrite_id=last,
        snapshot=None,
    )


async def found(
    searchable: Searchable, *words: str, user: str = KEY.user_id, session_id: str | None = None
) -> Sequence[SearchHit]:
    """Return the hits of all pages."""
    hits: list[SearchHit] = []
    cursor = None
    for _ in range(100):
        page = await searchable.search(user, words, session_id=session_id, limit=5, cursor=cursor)
        hits += page.hits
        cursor = page.cursor
        if cursor is None:
            return hits
    pytest.fail("the cursors never end")
