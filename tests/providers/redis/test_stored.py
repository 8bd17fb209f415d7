"""Keys in the store: their contents, damage, deletes and expiry."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from redis.crc import key_slot

from providers.redis.support import CHANGED, EXPIRES, expire, started, stored_keys, until
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history import Session, SessionHistoryService
from session_history.errors import SessionDeleted
from session_history.log.session_log import SessionLog
from session_history.providers.redis import RedisProvider
from session_history.providers.redis.commands import Argument
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import SCAN_SESSIONS, Script
from session_history.records.messages import NEUTRAL, StoredMessage
from session_history.records.record import Author, Record, Status
from session_history_hooks import (
    Appended,
    Conflict,
    Corrupt,
    Entry,
    Head,
    IncompatibleStore,
    LimitExceeded,
    Page,
    Position,
    SessionKey,
    Snapshot,
)
from session_history_hooks.testing.subject import KEY, append, entry, fill, read

# Keys and their contents


@pytest.mark.parametrize("lost", ["heads", "entries", "ids"])
async def test_session_with_an_evicted_key_is_corrupt(
    server: ValkeyServer, provider: RedisProvider, prefix: str, lost: str
) -> None:
    await fill(provider, 3)
    with server.client() as client:
        client.delete(stored_keys(server, prefix)[lost])
    for at in (Position(0, 0), Position(0, 3)):
        with pytest.raises(Corrupt):
            await provider.append(KEY, entry(4), at=at)
    with pytest.raises(Corrupt):
        await provider.read(KEY, last=1)
    if lost == "heads":
        assert await provider.list(KEY.user_id, limit=1) == Page((), unreadable=(KEY,))
    assert await provider.delete(KEY) is True
    assert stored_keys(server, prefix).keys() == {"tombstones"}


async def test_listing_with_an_evicted_index_names_the_sessions(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    await fill(provider, 1)
    with server.client() as client:
        client.delete(stored_keys(server, prefix)["index"])
    assert await provider.list(KEY.user_id, limit=1) == Page((), unreadable=(KEY,))
    await append(provider, 2)
    assert await provider.delete_user(KEY.user_id) == 1


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (b"", Corrupt),
        (b"\x01", Corrupt),
        (b"\x01" + b"\xff" * 200, Corrupt),
        (b"\x00" * 200, Corrupt),
        (b"\x02" + b"\x00" * 200, IncompatibleStore),  # of a newer format
    ],
)
async def test_unreadable_head_fails_calls_and_is_kept(
    server: ValkeyServer, provider: RedisProvider, prefix: str, found: bytes, error: type[Exception]
) -> None:
    await fill(provider, 1)
    with server.client() as client:
        heads = stored_keys(server, prefix)["heads"]
        client.hset(heads, KEY.session_id, found)
        calls: list[Callable[[], Any]] = [
            lambda: provider.read(KEY),
            lambda: append(provider, 2),
        ]
        for call in calls:
            with pytest.raises(error):
                await call()
        assert await provider.list(KEY.user_id, limit=1) == Page((), unreadable=(KEY,))
        assert client.hget(heads, KEY.session_id) == found


async def test_key_of_another_program_is_kept(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await fill(provider, 1)
    with server.client() as client:
        heads = stored_keys(server, prefix)["heads"]
        client.delete(heads)
        client.set(heads, "theirs")
        with pytest.raises(IncompatibleStore):
            await append(provider, 2)
        with pytest.raises(IncompatibleStore):
            await provider.read(KEY)
        assert client.get(heads) == b"theirs"


@pytest.mark.parametrize("part", ["index", "tombstones"])
async def test_key_of_another_program_fails_a_call_before_it_writes(
    server: ValkeyServer, prefix: str, part: str
) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:
        await fill(provider, 1)
        with server.client() as client:
            theirs = stored_keys(server, prefix)[part]
            client.delete(theirs)
            client.set(theirs, "theirs")
            before = {name: client.dump(name) for name in stored_keys(server, prefix).values()}
            for call in (append(provider, 2), provider.delete(KEY), provider.delete_user(KEY.user_id)):
                with pytest.raises(IncompatibleStore):
                    await call
            assert {name: client.dump(name) for name in stored_keys(server, prefix).values()} == before


async def test_cut_off_entry_is_corrupt(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await fill(provider, 1)
    with server.client() as client:
        for damage in (b"", b"\0\0\0\x09e1", b"\0\0\0\x02\xff\xff"):
            client.lset(stored_keys(server, prefix)["entries"], 0, damage)
            with pytest.raises(Corrupt):
                await provider.read(KEY)


async def test_names_of_keys_do_not_contain_ids(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    odd = [
        SessionKey("*", "?"),
        SessionKey("{x}", "[a-z]*"),
        SessionKey("a}b{", "\\*"),
        SessionKey("*\r\nFLUSHALL", "x"),
    ]
    for key in odd:
        await provider.append(key, entry(1), at=Position(0, 0))
    for key in odd:
        assert [head.key for head in (await provider.list(key.user_id, limit=9)).heads] == [key]
    with server.client(decode_responses=True) as client:
        stored = list(client.scan_iter(f"{prefix}:*"))
    assert len(stored) == 5 * len(odd)
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:{}") for name in stored
    )
    assert await provider.delete_user("*") == 1
    assert len((await provider.list("{x}", limit=9)).heads) == 1


async def test_keys_of_a_user_share_one_slot(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix, ttl=60) as provider:
        for session in "abc":
            await provider.append(SessionKey("u", session), entry(1), at=Position(0, 0))
    stored: set[bytes] = set()
    for server in cluster.masters():
        with server.client() as client:
            stored |= set(client.scan_iter(f"{prefix}:*"))
    assert len(stored) == 3 + 2 * 3
    assert len({key_slot(name) for name in stored}) == 1


async def test_sessions_of_one_moment_are_listed_in_code_point_order(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    sessions = ["Z", "a", "ab", "é", "\uff5e", "\U0001f600", "a" + "\x01"]
    for session in sessions:
        await provider.append(SessionKey("u", session), entry(1), at=Position(0, 0))
    moment = 1_700_000_000_000_000
    with server.client() as client:
        client.zadd(stored_keys(server, prefix)["index"], dict.fromkeys(sessions, -moment))
    for limit in (1, 2, 3, 9):
        shown: list[str] = []
        cursor = None
        while True:
            page = await provider.list("u", limit=limit, cursor=cursor)
            shown += [head.key.session_id for head in page.heads]
            cursor = page.cursor
            if cursor is None or len(shown) > len(sessions):
                break
        assert shown == sorted(sessions)


async def test_numbers_beyond_a_double_change_no_session(provider: RedisProvider) -> None:
    await fill(provider, 1)
    for at in (Position(2**53, 0), Position(2**53 + 1, 1), Position(2**70, 1), Position(-1, 1), Position(0, -1)):
        with pytest.raises(Conflict):
            await provider.append(KEY, entry(2), at=at)
    for at in (Position(0, 2**53), Position(0, 2**70)):
        with pytest.raises((Conflict, LimitExceeded)):
            await provider.append(KEY, entry(2), at=at)
    for last, before, after in ((2**70, 2**70, -(2**70)), (2**70, None, None), (None, 2**70, 0), (1, -(2**70), None)):
        entries = (await read(provider, last=last, before=before, after=after)).entries
        assert entries == (() if before and before < 0 else (entry(1),))
    assert (await read(provider, after=2**70)).entries == ()


async def create_many(provider: RedisProvider) -> int:
    """Create more sessions of one user than a call looks up or deletes. Return their number."""
    keys = [SessionKey("user", f"s{number}") for number in range(350)]
    await asyncio.gather(*(provider.append(key, entry(1), at=Position(0, 0)) for key in keys))
    return len(keys)


async def test_large_deletes_block_the_server_only_briefly(own_server: ValkeyServer) -> None:
    async with started(own_server.url) as provider:
        await fill(provider, 100)
        many = await create_many(provider)
        with own_server.client() as client:
            client.config_set("slowlog-log-slower-than", 200_000)
            client.slowlog_reset()
            client.config_resetstat()
            assert await provider.delete(KEY) is True
            assert await provider.delete_user("user") == many
            assert client.slowlog_get() == []
            done = client.info("commandstats")
            assert "cmdstat_del" not in done, "UNLINK frees memory in the background"
            assert done["cmdstat_unlink"]["calls"] == many + 1
            assert "cmdstat_hkeys" not in done
            assert done["cmdstat_evalsha"]["calls"] == 1 + done["cmdstat_hscan"]["calls"] + 4, "batches of a hundred"
            assert done["cmdstat_hscan"]["calls"] > 2
            assert client.dbsize() == 1
        assert (await provider.list("user", limit=9)).heads == ()


async def test_delete_user_finds_all_sessions_despite_a_foreign_cursor(
    provider: RedisProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that restarted, or another server, reads a cursor differently."""
    many = await create_many(provider)
    run, cursors = ScriptRunner.run_on_user, []

    async def misled(
        runner: ScriptRunner, script: Script, keys: Sequence[bytes], *arguments: Argument
    ) -> Sequence[Any]:
        if script is SCAN_SESSIONS:
            cursors.append(arguments[0])
            if len(cursors) == 2:
                arguments = (2**9 - 1,)  # the last position, for any size of the hash
        return await run(runner, script, keys, *arguments)

    monkeypatch.setattr(ScriptRunner, "run_on_user", misled)
    assert await provider.delete_user("user") == many
    assert cursors[0] == b"0" in cursors[1:]


async def test_delete_user_ends_while_new_sessions_keep_beginning(
    provider: RedisProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = await create_many(provider)
    run, begun = ScriptRunner.run_on_user, 0

    async def busy(runner: ScriptRunner, script: Script, keys: Sequence[bytes], *arguments: Argument) -> Sequence[Any]:
        nonlocal begun
        if script is SCAN_SESSIONS:
            for _ in range(20):
                begun += 1
                assert begun < 2000, "the scan starts again and again"
                await provider.append(SessionKey("user", f"new{begun}"), entry(1), at=Position(0, 0))
        return await run(runner, script, keys, *arguments)

    monkeypatch.setattr(ScriptRunner, "run_on_user", busy)
    assert many <= await provider.delete_user("user") <= many + begun
    assert all(head.key.session_id.startswith("new") for head in (await provider.list("user", limit=1000)).heads)


async def test_page_of_a_listing_holds_at_most_eight_mebibytes(provider: RedisProvider) -> None:
    sessions = [f"s{number:02}" for number in range(20)]
    summary = b"c" * provider.limits.summary_bytes
    for session in sessions:
        await provider.append(
            SessionKey("user", session), entry(1), at=Position(0, 0), snapshot=Snapshot(1, "e1", summary)
        )
    pages = [await provider.list("user", limit=1000)]
    while cursor := pages[-1].cursor:
        pages.append(await provider.list("user", limit=1000, cursor=cursor))
    assert [len(page.heads) for page in pages] == [7, 7, 6]
    assert [head.key.session_id for page in pages for head in page.heads] == sessions[::-1]


# Sessions that expire


async def test_keys_of_a_session_expire_together(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=100) as provider:
        await fill(provider, 1)
        with server.client() as client:
            ends = {part: client.pexpiretime(name) for part, name in stored_keys(server, prefix).items()}
            assert ends["entries"] == ends["ids"]
            assert ends["heads"] == ends["index"] == ends["entries"] + 1000
            assert ends["tombstones"] == ends["entries"] + 7 * 86_400_000
            assert 0 <= ends["entries"] - (await read(provider)).head.active_us / 1000 - 100_000 < 2
            await append(provider, 2)
            later = {part: client.pexpiretime(name) for part, name in stored_keys(server, prefix).items()}
            assert all(later[part] > ends[part] for part in ends)
            await provider.append(SessionKey("user", "other"), entry(1), at=Position(0, 0))
            async with started(server.url, prefix=prefix, ttl=1) as short:
                await short.append(SessionKey("user", "short"), entry(1), at=Position(0, 0))
            assert client.pexpiretime(stored_keys(server, prefix)["heads"]) >= later["heads"]
            async with started(server.url, prefix=prefix) as forever:
                await append(forever, 3)
            assert client.pexpiretime(stored_keys(server, prefix)["heads"]) == -1


async def test_clock_that_was_ahead_does_not_prolong_a_session(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=100) as provider:
        await fill(provider, 1)
        ahead = (await read(provider)).head.active_us + 3_600_000_000
        with server.client() as client:
            heads = stored_keys(server, prefix)["heads"]
            head = client.hget(heads, KEY.session_id)
            client.hset(heads, KEY.session_id, head[:CHANGED] + struct.pack(">d", ahead) + head[EXPIRES:])
            await append(provider, 2)
            assert (await read(provider)).head.active_us == ahead + 1
            assert client.pttl(stored_keys(server, prefix)["entries"]) <= 100_000
            [expires] = struct.unpack(">d", client.hget(heads, KEY.session_id)[EXPIRES : EXPIRES + 8])
            assert expires < ahead


@pytest.mark.parametrize("long_ago", [False, True])
async def test_expired_session_is_missing_and_refuses_its_old_writers(
    server: ValkeyServer, prefix: str, long_ago: bool
) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:
        await fill(provider, 2)
        other = SessionKey("user", "other")
        await provider.append(other, entry(1), at=Position(0, 0))
        expire(server, prefix, long_ago=long_ago)
        assert await provider.read(KEY) is None
        assert await provider.renew(KEY, at=Position(0, 2)) is False
        assert (await provider.list("user", limit=9)).heads == ()
        assert await provider.delete(other) is False
        with pytest.raises(Conflict) as conflict:
            await append(provider, 3)
        assert conflict.value.head is None
        # The new session has as many entries as the old one. Still it refuses an append of the old one.
        again = await provider.append(KEY, Entry("n1", b"new"), at=Position(0, 0))
        assert again == Appended(Position(1, 1), replayed=False)
        assert await provider.append(KEY, Entry("n1", b"new"), at=Position(0, 0)) == Appended(Position(1, 1), True)
        await provider.append(KEY, Entry("n2", b"new"), at=Position(1, 1))
        for at in (Position(0, 2), Position(0, 0)):
            with pytest.raises(Conflict) as conflict:
                await provider.append(KEY, entry(3), at=at)
            assert conflict.value.head == (await read(provider)).head
        assert [each.id for each in (await read(provider)).entries] == ["n1", "n2"]


async def is_missing(provider: RedisProvider) -> bool:
    return await provider.read(KEY) is None


async def test_later_appends_remove_the_heads_of_expired_sessions(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:
        for number in range(7):
            await provider.append(SessionKey("user", f"old{number}"), entry(1), at=Position(0, 0))
        expire(server, prefix)
        page = await provider.list("user", limit=1)
        assert (page.heads, page.cursor) == ((), None)
        await provider.append(SessionKey("user", "new"), entry(1), at=Position(0, 0))
        with server.client() as client:
            assert client.hkeys(stored_keys(server, prefix)["heads"]) == [b"new"]
            assert client.zrange(stored_keys(server, prefix)["index"], 0, -1) == [b"new"]
            assert client.hlen(stored_keys(server, prefix)["tombstones"]) == 8 + 1, "and the id of the user"
        assert [head.key.session_id for head in (await provider.list("user", limit=9)).heads] == ["new"]


async def test_appends_without_ttl_remove_the_heads_of_expired_sessions(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as short, started(server.url, prefix=prefix) as forever:
        await fill(short, 1)
        await forever.append(SessionKey("user", "kept"), entry(1), at=Position(0, 0))
        expire(server, prefix)
        await forever.append(SessionKey("user", "kept"), entry(2), at=Position(0, 1))
        with server.client() as client:
            assert client.hkeys(stored_keys(server, prefix)["heads"]) == [b"kept"]


async def test_session_that_gets_a_ttl_leaves_no_head_behind(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix) as forever, started(server.url, prefix=prefix, ttl=60) as short:
        await append(forever, 1)
        await append(short, 2)
        with server.client() as client:
            ends = {part: client.pexpiretime(name) for part, name in stored_keys(server, prefix).items()}
        assert ends["heads"] == ends["index"] == ends["entries"] + 1000


async def test_turn_re_creates_an_expired_session(server: ValkeyServer, prefix: str) -> None:
    async with (
        SessionHistoryService.from_url(server.url, prefix=prefix, ttl=1) as service,
        started(server.url, prefix=prefix) as provider,
    ):
        for generation in range(2):
            async with service.turn("user", "session") as turn:
                assert turn.history == []
                turn.add({"role": "user", "content": "Hello"})
            await until(lambda: is_missing(provider))
            with server.client() as client:
                tombstone = client.hget(stored_keys(server, prefix)["tombstones"], "session")
            assert struct.unpack(">BBddd", tombstone[:26])[2] == generation


@pytest.mark.parametrize("long_ago", [False, True])
async def test_concurrent_first_turns_in_an_expired_session_are_both_kept(
    server: ValkeyServer, prefix: str, long_ago: bool
) -> None:
    async with (
        SessionHistoryService.from_url(server.url, prefix=prefix, ttl=60) as one,
        SessionHistoryService.from_url(server.url, prefix=prefix, ttl=60) as two,
    ):
        for name in ("user", "other"):
            await one.append_message(await one.create_session(name, "session"), {"role": "user", "content": "Hello"})
        expire(server, prefix, long_ago=long_ago)
        for first, second, name in ((one, one, "user"), (one, two, "other")):
            async with first.turn(name, "session") as this, second.turn(name, "session") as that:
                assert this.history == that.history == []
                this.add({"role": "user", "content": "one"})
                that.add({"role": "user", "content": "two"})
            assert (await session_of(one, name)).turns == 2


async def test_first_turns_that_end_at_once_in_an_expired_session_are_both_kept(
    server: ValkeyServer, prefix: str
) -> None:
    """The second one waits for the first in this process, and meets a life of the session that it did not see begin."""
    async with SessionHistoryService.from_url(server.url, prefix=prefix, ttl=60) as service:
        await service.append_message(await service.create_session("u", "session"), {"role": "user", "content": "Hello"})
        expire(server, prefix, long_ago=False)
        all_open = asyncio.Barrier(3)

        async def say(text: str) -> None:
            async with service.turn("u", "session") as turn:
                assert turn.history == []
                turn.add({"role": "user", "content": text})
                await all_open.wait()

        await asyncio.gather(*map(say, ("one", "two", "three")))
        assert (await session_of(service, "u")).turns == 3


async def test_first_turn_does_not_revive_a_re_created_and_deleted_session(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:
        log = SessionLog(provider)
        await append(provider, 1)
        expire(server, prefix)
        await provider.append(KEY, entry(1), at=Position(0, 0))
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, entry(2), at=Position(0, 0))
        assert conflict.value.recreated is True
        await provider.delete(KEY)
        await provider.append(KEY, entry(1), at=Position(2, 0))
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, entry(2), at=Position(0, 0))
        assert conflict.value.recreated is False
        with pytest.raises(SessionDeleted):
            await add(log, "late", said("late"))
        assert (await read(provider)).head.tail == Position(2, 1)


async def add(log: SessionLog, entry_id: str, record: Record) -> Head | None:
    """Append a record as an author that saw no session."""
    return (await log.append(KEY, Entry(entry_id, record.encode()), record, known=None)).head


def said(text: str) -> Record:
    return Record(Author.TURN, base=0, messages=(StoredMessage(NEUTRAL, {"role": "user", "content": text}),))


@pytest.mark.parametrize("long_ago", [False, True])
async def test_delete_is_remembered_when_the_next_generation_expires(
    server: ValkeyServer, prefix: str, long_ago: bool
) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:
        log = SessionLog(provider)
        await add(log, "first", said("first"))
        await provider.delete(KEY)
        await provider.append(KEY, entry(1), at=Position(1, 0))
        with pytest.raises(SessionDeleted):
            await add(log, "late", said("late"))
        for life in (2, 3):
            expire(server, prefix, long_ago=long_ago)
            assert (await provider.append(KEY, entry(life), at=Position(0, 0))).position == Position(life, 1)
            with pytest.raises(SessionDeleted):
                await add(log, "late", said("late"))
            assert (await read(provider)).entries == (entry(life),)


Interrupt = Callable[[], Awaitable[object]]


async def append_two(provider: RedisProvider, first: Record, interrupt: Interrupt) -> Head:
    """Append two records at once, and let something happen between them. Return the head after the second.

    The log remembers the head of the first record as long as the second one waits.
    """
    log = SessionLog(provider)
    append = provider.append

    async def interrupted(key: SessionKey, entry: Entry, **options: Any) -> Appended:
        appended = await append(key, entry, **options)
        if entry.id == "first":
            await interrupt()
        return appended

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(provider, "append", interrupted)
        _, head = await asyncio.gather(
            add(log, "first", first),
            add(log, "third", said("third")),
        )
    assert head is not None
    return head


@pytest.mark.parametrize("long_ago", [False, True])
async def test_first_turn_follows_a_session_that_expired_and_was_re_created(
    server: ValkeyServer, prefix: str, long_ago: bool
) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:

        async def expire_and_re_create() -> None:
            expire(server, prefix, long_ago=long_ago)
            await provider.append(KEY, Entry("theirs", said("second").encode()), at=Position(0, 0))

        head = await append_two(provider, said("first"), expire_and_re_create)
        assert head.tail == Position(1, 2)
        await provider.delete(KEY)
        with pytest.raises(SessionDeleted):
            await add(SessionLog(provider), "fourth", said("fourth"))


async def test_first_turn_follows_a_session_whose_exclusive_turn_expired(server: ValkeyServer, prefix: str) -> None:
    leased = Record(Author.TURN, base=0, status=Status.OPEN, lease=60.0)
    async with started(server.url, prefix=prefix, ttl=60) as provider:

        async def expire_and_re_create() -> None:
            expire(server, prefix)
            await provider.append(KEY, Entry("theirs", said("second").encode()), at=Position(0, 0))

        assert (await append_two(provider, leased, expire_and_re_create)).tail == Position(1, 2)


async def test_tombstone_of_a_session_without_ttl_does_not_expire(server: ValkeyServer, prefix: str) -> None:
    other = SessionKey("user", "other")
    async with started(server.url, prefix=prefix) as forever, started(server.url, prefix=prefix, ttl=60) as short:
        await append(forever, 1)
        await short.append(other, entry(1), at=Position(0, 0))
        with server.client() as client:
            assert client.pttl(stored_keys(server, prefix)["tombstones"]) > 0
            await short.delete(KEY)
            assert client.pttl(stored_keys(server, prefix)["tombstones"]) == -1
            await short.append(other, entry(2), at=Position(0, 1))
            assert client.pttl(stored_keys(server, prefix)["tombstones"]) == -1


async def session_of(service: SessionHistoryService, user: str) -> Session[Any]:
    session = await service.get_session(user, "session")
    assert session is not None
    return session


async def has_only_tombstones(server: ValkeyServer, prefix: str) -> bool:
    return stored_keys(server, prefix).keys() == {"tombstones"}


async def test_tombstone_outlives_expired_sessions(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as long, started(server.url, prefix=prefix, ttl=1) as short:
        await fill(long, 1)
        await long.delete(KEY)
        await short.append(SessionKey("user", "other"), entry(1), at=Position(0, 0))
        await until(partial(has_only_tombstones, server, prefix))
        assert (await read(long)).head.deleted
        with pytest.raises(Conflict):
            await append(long, 2)
        assert (await long.append(KEY, entry(1), at=Position(1, 0))).position == Position(1, 1)
