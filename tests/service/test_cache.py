"""Tests of the cache: it is never older than the store, and users cannot change what it holds."""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.opening import fresh, rewrite
from session_history import Message, SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import Corrupt, SessionDeleted
from session_history.log.cache import _OVERHEAD as OVERHEAD
from session_history.log.cache import CAPACITY, SESSION_CAPACITY, EntryRange, TailCache
from session_history.log.reader import Reader
from session_history.log.session_log import SessionLog
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import probe, threads
from session_history.records.messages import NEUTRAL, StoredMessage
from session_history.records.record import Author, Record
from session_history.records.summary import SessionSummary
from session_history_hooks import Head, Position, SessionKey, Shard, StoreInfo

KEY = SessionKey("u", "s")


async def say(service: SessionHistoryService, text: str, **options: Any) -> list[str]:
    """One turn; what was shown before it."""
    async with service.turn("u", "s", **options) as turn:
        shown = [message.text for message in turn.history]
        turn.add({"role": "user", "content": text})
    return shown


async def seen(service: SessionHistoryService, **options: Any) -> list[str]:
    session = await service.get_session("u", "s", **options)
    return [message.text for message in session.messages] if session else []


@pytest.mark.every_store
async def test_turn_of_another_service_is_seen_at_once(pair: list[SessionHistoryService]) -> None:
    said: list[str] = []
    dice = random.Random(1)
    for number in range(60):
        service = dice.choice(pair)
        options: dict[str, Any] = dice.choice([{}, {"last_turns": 3}, {"turn_id": f"t{number}"}])
        shown = await say(service, f"q{number}", **options)
        assert shown == said[len(said) - len(shown) :]
        assert len(shown) >= (min(3, len(said)) if "last_turns" in options else len(said))
        said.append(f"q{number}")
        for each in pair:
            assert await seen(each) == said
            assert await seen(each, last_turns=2) == said[-2:]


@pytest.mark.every_store
async def test_re_created_session_shows_nothing_of_the_deleted_one(pair: list[SessionHistoryService]) -> None:
    one, other = pair
    for life in range(3):
        for number in range(4):
            await say(one, f"{life}.{number}")
        assert await seen(other) == [f"{life}.{number}" for number in range(4)]
        await other.delete_session("u", "s")
        assert await one.get_session("u", "s") is None
        await other.create_session("u", "s")
        # As long as the old life was, or longer: only the generation tells.
        for number in range(life % 2 * 4):
            await say(other, f"new {number}")
        assert await seen(one) == [f"new {number}" for number in range(life % 2 * 4)]
        await one.delete_session("u", "s")
        await one.create_session("u", "s")


async def say_and_erase(one: SessionHistoryService, other: SessionHistoryService) -> None:
    """Say three things through one service, and erase the second through the other one."""
    for text in ("a", "secret", "c"):
        await say(one, text)
    assert await seen(one) == ["a", "secret", "c"]
    log = await other.provider.read(KEY)
    assert log is not None
    erased = Record(Author.TURN, base=0, messages=(StoredMessage(NEUTRAL, {"role": "user", "content": "erased"}),))
    await rewrite(other.provider, KEY, 2, erased.encode(), log.head.snapshot)


@pytest.mark.every_store
async def test_rewritten_entry_is_read_again(pair: list[SessionHistoryService]) -> None:
    one, other = pair
    await say_and_erase(one, other)
    assert await seen(one) == ["a", "erased", "c"]
    assert await say(one, "d") == ["a", "erased", "c"]


@pytest.mark.every_store
async def test_rewritten_entry_is_read_again_also_behind_new_ones(pair: list[SessionHistoryService]) -> None:
    one, other = pair
    await say_and_erase(one, other)
    await say(other, "d")
    assert await seen(one) == ["a", "erased", "c", "d"]


@pytest.mark.every_store
async def test_session_that_grew_by_more_than_a_page_is_read_again(pair: list[SessionHistoryService]) -> None:
    one, other = pair
    await say(one, "first")
    assert await seen(one) == ["first"]
    session = await other.get_session("u", "s")
    assert session is not None
    for number in range(one.provider.limits.page + 5):
        await other.append_message(session, {"role": "user", "content": f"{number}"})
    assert await seen(one, last_turns=2) == [f"{number}" for number in range(1005)][-2:]
    assert len(await seen(one)) == 1006


def spoil(values: list[Any]) -> None:
    for value in values:
        if isinstance(value, Message):
            assert value.metadata is not None
            value.metadata["list"].append("spoilt")
            value.content = None
        else:
            value["metadata"]["list"].append("spoilt")
            value["content"] = "spoilt"


@pytest.mark.parametrize("native", [True, False])
async def test_changed_results_change_no_stored_message(service: SessionHistoryService, native: bool) -> None:
    said: dict[str, Any] = {"role": "user", "content": "q", "metadata": {"list": [{"deep": [1]}]}}

    async def messages() -> list[Any]:
        session = await service.get_session("u", "s", native=native)
        assert session is not None
        return session.messages

    session: Any = await service.get_session("u", "s", native=native)
    await service.append_message(session, said)
    spoil(session.messages)
    async with service.turn("u", "s", turn_id="t", native=native) as turn:
        spoil(turn.history)
        turn.add(said)
        spoil(turn.messages)
    spoil(await messages())
    async with service.turn("u", "s", turn_id="t", native=native) as again:
        assert again.recorded is not None
        spoil(again.recorded)
        spoil(again.history)
    spoil([said])
    for message in await messages():
        value = message if native else message.model_dump()
        assert value["metadata"] == {"list": [{"deep": [1]}]}
        assert "spoilt" not in str(value["content"])


async def test_store_replaced_while_closed_is_read_again(tmp_path: Path) -> None:
    """Such as a copy that went its own way, put in its place: its positions are there, and what stands there is not."""
    for name, turns in (("one", 3), ("two", 5)):
        service = SqliteSessionHistoryService(tmp_path / f"{name}.db")
        for number in range(turns):
            await say(service, f"{name} {number}")
        await service.stop()
    service = SqliteSessionHistoryService(tmp_path / "one.db")
    assert len(await seen(service)) == 3
    await service.stop()
    (tmp_path / "two.db").replace(tmp_path / "one.db")
    await service.start()
    assert await seen(service) == [f"two {number}" for number in range(5)]
    await service.stop()


async def test_read_during_a_stop_leaves_nothing_in_the_next_cache(tmp_path: Path) -> None:
    for name, turns in (("one", 3), ("two", 5)):
        service = SqliteSessionHistoryService(tmp_path / f"{name}.db")
        for number in range(turns):
            await say(service, f"{name} {number}")
        await service.stop()
    service = SqliteSessionHistoryService(tmp_path / "one.db")
    await service.start()
    reading = asyncio.create_task(seen(service))
    await asyncio.sleep(0)
    await service.stop()
    (tmp_path / "two.db").replace(tmp_path / "one.db")
    await service.start()
    await asyncio.gather(reading, return_exceptions=True)
    assert await seen(service) == [f"two {number}" for number in range(5)]
    await service.stop()


async def test_backup_restored_while_the_store_is_open_is_read_again(tmp_path: Path) -> None:
    async with (
        SqliteSessionHistoryService(tmp_path / "h.db") as one,
        SqliteSessionHistoryService(tmp_path / "h.db") as other,
    ):
        await say(one, "a")
        with closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
            with closing(sqlite3.connect(tmp_path / "h.db")) as store:
                store.backup(backup)
            await say(one, "b of old")
            assert await seen(one) == ["a", "b of old"]
            with closing(sqlite3.connect(tmp_path / "h.db")) as store:
                backup.backup(store)
        for text in ("b of new", "c of new"):
            await say(other, text)
        assert await seen(one) == ["a", "b of new", "c of new"]


@pytest.mark.parametrize("way", ["session", "user", "elsewhere"])
@pytest.mark.every_store
async def test_deleted_session_leaves_the_cache(pair: list[SessionHistoryService], way: str) -> None:
    one, other = pair
    before = held_in_memory()  # services of other tests may be left
    await say(one, "a")
    await say(one, "b")
    assert held_in_memory().keys() - before.keys()
    if way == "user":
        await one.delete_user("u")
    else:
        await (one if way == "session" else other).delete_session("u", "s")
    if way == "elsewhere":
        assert await one.get_session("u", "s") is None
    assert not held_in_memory().keys() - before.keys()


def test_fork_during_a_probe_does_not_hang(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys, threading, time\n"
        "from session_history import SqliteSessionHistoryService\n"
        "service = SqliteSessionHistoryService(sys.argv[1])\n"
        "async def talk():\n"
        "    for text in 'ab':\n"
        "        async with service.turn('u', 's') as turn: turn.add({'role': 'user', 'content': text})\n"
        "asyncio.run(talk())\n"
        "lock = service.provider._running().probe._lock\n"
        "def look():\n"
        "    with lock: time.sleep(2)\n"
        "threading.Thread(target=look).start()\n"
        "time.sleep(0.1); child = os.fork()\n"
        "try: asyncio.run(service.get_session('u', 's'))\n"
        "except ConnectionError as error: print('fork' in str(error), flush=True)\n"
        "if not child: os._exit(0)\n"
        "os.wait()\n"
    )
    # Newer Pythons warn of a fork in a process with threads, which is what this is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(tmp_path / "h.db")]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.stderr) == ("True\n", "")


async def test_store_opens_without_a_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("too many open files")

    monkeypatch.setattr(probe, "connect", fail)
    async with SqliteSessionHistoryService(tmp_path / "h.db") as service:
        await say(service, "a")
        assert await say(service, "b") == ["a"]


async def test_warm_turn_submits_no_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteSessionHistoryService(tmp_path / "h.db") as service:
        await say(service, "a")
        await say(service, "b")
        jobs: list[object] = []
        real = threads.Reader.submit

        def submit(reader: threads.Reader, job: Any) -> Any:
            jobs.append(job)
            return real(reader, job)

        monkeypatch.setattr(threads.Reader, "submit", submit)
        assert await say(service, "c") == ["a", "b"]
        assert jobs == []
        cold = fresh(service)
        await cold.start()
        jobs.clear()
        assert await say(cold, "d") == ["a", "b", "c"]
        assert len(jobs) == 1


async def test_probe_does_not_hold_the_wal(tmp_path: Path) -> None:
    """A read transaction that stays open would keep the WAL growing."""
    async with SqliteSessionHistoryService(tmp_path / "h.db") as service:
        for number in range(3):
            await say(service, f"{number}")
        with closing(sqlite3.connect(tmp_path / "h.db")) as other:
            blocked, frames, moved = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert (blocked, frames, moved) == (0, 0, 0)
        assert (tmp_path / "h.db-wal").stat().st_size == 0


async def test_damaged_head_raises_corrupt_in_a_warm_service(tmp_path: Path) -> None:
    async with SqliteSessionHistoryService(tmp_path / "h.db") as service:
        await say(service, "a")
        await say(service, "b")
        for column in ("seq", "heartbeat"):
            with closing(sqlite3.connect(tmp_path / "h.db", isolation_level=None)) as other:
                [value] = other.execute(f"SELECT {column} FROM head").fetchone()
                other.execute(f"UPDATE head SET {column} = 'x'")
                with pytest.raises(Corrupt):
                    await say(service, "c")
                other.execute(f"UPDATE head SET {column} = ?", (value,))
        assert await say(service, "c") == ["a", "b"]


async def test_event_loops_on_one_service_share_the_cache(tmp_path: Path) -> None:
    service = SqliteSessionHistoryService(tmp_path / "h.db")

    async def talk(name: str) -> None:
        for number in range(12):
            shown = await say(service, f"{name}{number}")
            mine = [text for text in shown if text.startswith(name)]
            assert mine == [f"{name}{earlier}" for earlier in range(number)]

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, talk(name)) for name in "abcd"))
    assert len(await seen(service)) == 48
    await service.stop()


def entry_range(first: int, last: int, size: int, key: SessionKey = KEY) -> EntryRange:
    head = Head(
        key,
        Position(0, last),
        f"o{last}",
        deleted=False,
        heartbeat=0,
        rewrite_id="",
        active_us=1,
        changed_us=1,
        snapshot=None,
    )
    return EntryRange(head, [(seq, Record(Author.TURN, base=0)) for seq in range(first, last + 1)], size)


async def test_large_summaries_count_in_the_cache(service: SessionHistoryService) -> None:
    for number in range(60):
        session = await service.create_session("u", f"s{number}", metadata={"much": "x" * 900_000})
        for _ in range(6):  # so that what is known of the session later does not begin with its metadata
            await service.append_message(session, {"role": "user", "content": "a"})
    reader = Reader(log := SessionLog(service.provider))
    for number in range(60):
        await reader.newest(SessionKey("u", f"s{number}"), 1)
    held = [log.cache.get(SessionKey("u", f"s{number}")) for number in range(60)]
    summaries = sum(len(tail.head.snapshot.summary) for tail in held if tail and tail.head.snapshot)
    assert 0 < summaries <= log.cache.size <= CAPACITY


def extend(cache: TailCache, old: Head, new: Head, size: int) -> None:
    cache.extend(KEY, old, new, Record(Author.TURN, base=0), size=size, summary=SessionSummary())


def held_in_memory() -> dict[int, EntryRange]:
    """Return the entries of sessions that this process keeps, each under its identity."""
    gc.collect()
    return {id(each): each for each in gc.get_objects() if isinstance(each, EntryRange) and each.entries}


class TestRoom:
    def test_least_recently_used_tail_goes_first(self) -> None:
        tails = TailCache()
        keys = [SessionKey("u", f"s{number}") for number in range(6)]
        for key in keys[:4]:
            tails.keep(key, entry_range(1, 3, SESSION_CAPACITY - OVERHEAD, key))
        assert tails.get(keys[0]) is not None
        tails.keep(keys[4], entry_range(1, 3, SESSION_CAPACITY - OVERHEAD, keys[4]))
        assert [tails.get(key) is not None for key in keys[:5]] == [True, False, True, True, True]
        assert tails.size == 4 * SESSION_CAPACITY <= CAPACITY

    def test_tail_that_grew_too_large_goes(self) -> None:
        tails = TailCache()
        tails.keep(KEY, entry_range(1, 3, SESSION_CAPACITY - OVERHEAD - 10))
        heads = [entry_range(1, seq, 0).head for seq in (3, 4, 5)]
        extend(tails, heads[0], heads[1], 10)
        assert tails.get(KEY) is not None
        extend(tails, heads[1], heads[2], 1)
        assert tails.get(KEY) is None
        assert tails.size == 0

    def test_extend_behind_a_gap_changes_nothing(self) -> None:
        tails = TailCache()
        tails.keep(KEY, entry_range(1, 3, 1))
        known = entry_range(1, 3, 1).head
        others = [
            entry_range(1, 4, 1).head,
            replace(known, tail=Position(1, 3)),
            replace(known, rewrite_id="r1"),
            replace(known, tail_origin="another"),
        ]
        for old in others:
            extend(tails, old, entry_range(1, 5, 1).head, 1)
            tail = tails.get(KEY)
            assert tail is not None
            assert len(tail.entries) == 3


class OtherStore(MemoryProvider):
    """Becomes another store, with the same sessions, as if a server with a copy of them took its place."""

    incarnation = "one"

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        return replace(await super().store_info(shard=shard), incarnation=self.incarnation)


@pytest.mark.parametrize("becomes", ["one", "two"])
async def test_another_incarnation_drops_what_is_known(becomes: str) -> None:
    store = OtherStore()
    before = held_in_memory()
    async with SessionHistoryService(store) as service:
        await say(service, "a")
        assert await seen(service) == ["a"]
        store.incarnation = becomes
        assert await service.health()
        assert bool(held_in_memory().keys() - before.keys()) is (becomes == "one")
        assert await seen(service) == ["a"]


@pytest.mark.parametrize("becomes", ["one", "two"])
async def test_session_of_another_incarnation_is_read_again_before_an_append(becomes: str) -> None:
    store = OtherStore()
    service = SessionHistoryService(store)
    held = await service.create_session("u", "s")
    await service.stop()
    store.incarnation = becomes
    await service.start()
    await service.delete_session("u", "s")
    await service.create_session("u", "s")
    append = service.append_message(held, {"role": "user", "content": "a"})
    if becomes == "two":  # there the deleted session is not known to be another one
        await append
        assert await seen(service) == ["a"]
    else:
        with pytest.raises(SessionDeleted):
            await append
    await service.stop()
