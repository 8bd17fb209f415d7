"""Tests of the ability ``Users``."""

from __future__ import annotations

import pytest

from session_history_hooks import Head, InvalidCursor, Position, SessionHistoryProvider, SessionKey, Users
from session_history_hooks.testing.listing import INVALID_CURSORS, LOOK_ALIKES, list_pages
from session_history_hooks.testing.subject import Connect, Subject, entry, opened, read, require


class UsersContract(Subject):
    """Walks through all users, and through the tombstones of one."""

    @pytest.fixture
    def users(self, provider: SessionHistoryProvider) -> Users:
        return require(provider, Users)

    async def test_store_without_sessions_has_no_users(self, provider: SessionHistoryProvider, users: Users) -> None:
        assert await walk_users(users, 5) == set()
        await provider.read(SessionKey("nobody", "s"))
        await provider.delete(SessionKey("nobody", "s"))
        await provider.delete_user("nobody")
        await provider.renew(SessionKey("nobody", "s"), at=Position(0, 1))
        assert await walk_users(users, 5) == set()
        assert await walk_tombstones(users, "nobody", 5) == {}

    @pytest.mark.parametrize("limit", [1, 2, 7, 100])
    async def test_every_user_is_listed_at_any_limit(
        self, provider: SessionHistoryProvider, users: Users, limit: int
    ) -> None:
        names = {f"user {number}" for number in range(7)}
        for name in names:
            for session in ("a", "b"):
                await provider.append(SessionKey(name, session), entry(1), at=Position(0, 0))
        assert await walk_users(users, limit) == names

    async def test_look_alike_users_are_all_listed(self, provider: SessionHistoryProvider, users: Users) -> None:
        for key in LOOK_ALIKES:
            await provider.append(key, entry(1), at=Position(0, 0))
        for limit in (1, 3, 99):
            assert await walk_users(users, limit) == {key.user_id for key in LOOK_ALIKES}

    async def test_users_with_only_tombstones_are_listed(self, provider: SessionHistoryProvider, users: Users) -> None:
        for name in ("alive", "deleted", "forgotten"):
            for session in ("a", "b"):
                await provider.append(SessionKey(name, session), entry(1), at=Position(0, 0))
        for session in ("a", "b"):
            await provider.delete(SessionKey("deleted", session))
        await provider.delete_user("forgotten")
        for limit in (1, 2, 9):
            assert await walk_users(users, limit) == {"alive", "deleted", "forgotten"}
        await provider.append(SessionKey("deleted", "a"), entry(1), at=Position(1, 0))
        assert await walk_users(users, 9) == {"alive", "deleted", "forgotten"}

    async def test_users_and_tombstones_are_found_on_any_connection(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            for number in range(6):
                await one.append(SessionKey(f"u{number}", "s"), entry(1), at=Position(0, 0))
                await one.delete(SessionKey(f"u{number}", "s"))
            seen: set[str] = set()
            cursor = None
            for provider in [one, other] * 25:
                page = await require(provider, Users).list_users(limit=2, cursor=cursor)
                seen |= set(page.user_ids)
                cursor = page.cursor
                if cursor is None:
                    break
            assert cursor is None
            assert seen == {f"u{number}" for number in range(6)}
            assert len(await walk_tombstones(require(other, Users), "u3", 2)) == 1

    async def test_user_who_was_there_all_the_time_is_listed_though_others_come_and_go(
        self, provider: SessionHistoryProvider, users: Users
    ) -> None:
        names = [f"user {number}" for number in range(9)]
        for name in names:
            await provider.append(SessionKey(name, "s"), entry(1), at=Position(0, 0))
        first = await users.list_users(limit=3)
        for number, name in enumerate(names):
            await provider.append(SessionKey(f"new {number}", "s"), entry(1), at=Position(0, 0))
            await provider.append(SessionKey(name, "other"), entry(1), at=Position(0, 0))
            await provider.delete(SessionKey(name, "s"))
        rest = await walk_users(users, 2, first.cursor) if first.cursor is not None else set()
        assert set(names) <= {*first.user_ids, *rest} <= {*names, *(f"new {number}" for number in range(9))}

    @pytest.mark.parametrize("limit", [1, 2, 99])
    async def test_tombstones_are_the_heads_of_deleted_sessions(
        self, provider: SessionHistoryProvider, users: Users, limit: int
    ) -> None:
        keys = [SessionKey("user", name) for name in ("a", "A", "b:c", "é", "e\u0301", "会话", "alive")]
        for key in [*keys, SessionKey("user2", "a"), SessionKey("%", "a"), SessionKey("use", "ra")]:
            await provider.append(key, entry(1), at=Position(0, 0))
        for key in keys[:-1]:
            await provider.delete(key)
        await provider.append(keys[0], entry(1), at=Position(1, 0))
        await provider.append(keys[1], entry(1), at=Position(1, 0))
        await provider.delete(keys[1])
        await provider.delete(SessionKey("user2", "a"))
        expected = {key: (await read(provider, key)).head for key in keys[1:-1]}
        assert await walk_tombstones(users, "user", limit) == expected
        assert expected[keys[1]].tail == Position(1, 0)
        assert len(await walk_tombstones(users, "user2", limit)) == 1
        for other in ("%", "use", "*"):
            assert await walk_tombstones(users, other, limit) == {}

    async def test_page_of_tombstones_holds_at_most_the_claimed_number(
        self, provider: SessionHistoryProvider, users: Users
    ) -> None:
        claimed = provider.limits.page
        if claimed > 100:
            pytest.skip(f"{claimed} sessions are many to delete in a test")
        keys = [SessionKey("user", f"s{number}") for number in range(claimed + 2)]
        for key in keys:
            await provider.append(key, entry(1), at=Position(0, 0))
            await provider.delete(key)
        assert len((await users.list_tombstones("user", limit=len(keys))).heads) <= claimed
        assert set(await walk_tombstones(users, "user", len(keys))) == {*keys}

    async def test_tombstones_are_no_part_of_the_listing(self, provider: SessionHistoryProvider, users: Users) -> None:
        keys = [SessionKey("user", f"s{number}") for number in range(6)]
        for key in keys:
            await provider.append(key, entry(1), at=Position(0, 0))
        for key in keys[::2]:
            await provider.delete(key)
        assert {key for page in await list_pages(provider, 2) for key in page} == {*keys[1::2]}
        assert set(await walk_tombstones(users, "user", 2)) == {*keys[::2]}

    async def test_invalid_cursor_of_users_or_tombstones_is_refused(
        self, provider: SessionHistoryProvider, users: Users
    ) -> None:
        await provider.append(SessionKey("user", "s"), entry(1), at=Position(0, 0))
        await provider.delete(SessionKey("user", "s"))
        for cursor in INVALID_CURSORS:
            with pytest.raises(InvalidCursor):
                await users.list_users(limit=1, cursor=cursor)
            with pytest.raises(InvalidCursor):
                await users.list_tombstones("user", limit=1, cursor=cursor)


async def walk_users(users: Users, limit: int, cursor: str | None = None) -> set[str]:
    """Return the users of all pages."""
    found: set[str] = set()
    for _ in range(1000):
        page = await users.list_users(limit=limit, cursor=cursor)
        assert type(page.user_ids) is tuple
        assert len(page.user_ids) <= limit
        found |= set(page.user_ids)
        cursor = page.cursor
        if cursor is None:
            return found
    pytest.fail("the cursors never end")


async def walk_tombstones(users: Users, user_id: str, limit: int) -> dict[SessionKey, Head]:
    """Return the tombstones of all pages."""
    found: dict[SessionKey, Head] = {}
    cursor = None
    for _ in range(1000):
        page = await users.list_tombstones(user_id, limit=limit, cursor=cursor)
        assert len(page.heads) <= limit
        assert all(head.deleted and head.key.user_id == user_id for head in page.heads)
        found |= {head.key: head for head in page.heads}
        cursor = page.cursor
        if cursor is None:
            return found
    pytest.fail("the cursors never end")
