"""Folding, paging and rebasing, where the service alone does not get to see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.opening import rewrite, say
from session_history import SessionHistoryService, with_session_history
from session_history.errors import Conflict, Corrupt, IncompatibleStore, SessionDeleted, Unavailable
from session_history.log.reader import Reader
from session_history.log.session_log import SessionLog
from session_history.providers.memory import MemoryProvider
from session_history.records.messages import NEUTRAL, StoredMessage
from session_history.records.record import Author, MessageRef, Record, Status
from session_history.records.summary import SessionSummary
from session_history.records.values import decode, encode
from session_history.view.assembly import TurnView, assemble
from session_history.view.selection import newest, steady
from session_history_hooks import Entry, Position, SessionHistoryProvider, SessionKey, Snapshot

KEY = SessionKey("u", "s")


def message(text: str) -> StoredMessage:
    roles = {"q": "user", "a": "assistant", "t": "tool"}
    value = {"content": text}
    return StoredMessage(NEUTRAL, {"role": roles[text[0]], **value} if text[0] in roles else value)


def record(*texts: str, by: Author = Author.TURN, status: Status | None = None, **changes: Any) -> Record:
    return Record(by, base=0, messages=tuple(map(message, texts)), status=status, changes=changes)


async def store(provider: SessionHistoryProvider, *records: Record, cards: bool = False) -> None:
    """Append records as a writer would that hands no folds in."""
    log = await provider.read(KEY, last=0)
    at = log.head.tail if log else Position(0, 0)
    summary = SessionSummary()
    for each in records:
        entry = Entry(f"e{at.seq + 1}", each.encode(), origin=f"o{at.seq + 1}")
        summary = summary.with_record(at.seq + 1, each)
        cover = Snapshot(at.seq + 1, entry.origin, summary.encode()) if cards else None
        at = (await provider.append(KEY, entry, at=at, snapshot=cover)).position


@pytest.fixture
async def service() -> AsyncIterator[SessionHistoryService]:
    async with SessionHistoryService(MemoryProvider()) as made:
        yield made


class TestStaleFolds:
    RECORDS = (
        record(by=Author.SESSION, title="one", metadata={"a": 1}),
        record("q1", "a1"),
        record("q2", by=Author.APPEND),
        record(by=Author.SESSION, title="two"),
        record("a2", "q3", by=Author.APPEND),
        record("q4", "a4", status=Status.FAILED),
    )

    async def check(self, service: SessionHistoryService) -> None:
        session = await service.get_session("u", "s")
        listed = (await service.list_sessions("u"))[0]
        assert session is not None
        for each in (session, listed):
            assert (each.title, each.metadata, each.turns) == ("two", {"a": 1}, 4)

    @pytest.mark.parametrize("covered", range(7))
    async def test_summary_is_rebuilt_from_the_end_of_its_snapshot(
        self, service: SessionHistoryService, covered: int
    ) -> None:
        await store(service.provider, *self.RECORDS[:covered], cards=True)
        await store(service.provider, *self.RECORDS[covered:])
        await self.check(service)
        session = await service.get_session("u", "s")
        assert session is not None
        await service.append_message(session, {"role": "user", "content": "q5"})
        log = await service.provider.read(KEY)
        assert log is not None
        assert log.head.current_snapshot is not None
        assert SessionSummary.decode(log.head.current_snapshot.summary, KEY).turns == 5

    async def test_snapshot_of_another_log_is_ignored(self, service: SessionHistoryService) -> None:
        await store(service.provider, *self.RECORDS[:3])
        wrong = Snapshot(2, "another-origin", SessionSummary(title="wrong", turns=99).encode())
        await rewrite(service.provider, KEY, 1, None, wrong)
        await store(service.provider, *self.RECORDS[3:])
        await self.check(service)

    async def test_stale_snapshot_with_an_unreadable_summary_is_ignored(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture
    ) -> None:
        await store(service.provider, *self.RECORDS[:3])
        wrong = Snapshot(3, "o3", b'{"v":99}')
        await rewrite(service.provider, KEY, 1, None, wrong)
        await store(service.provider, *self.RECORDS[3:])
        await self.check(service)
        assert "rebuilt from the log" in caplog.text

    async def test_summary_of_a_log_longer_than_a_page_is_rebuilt(self, service: SessionHistoryService) -> None:
        await store(service.provider, *(record(f"q{number}", f"a{number}") for number in range(2500)))
        listed = (await service.list_sessions("u"))[0]
        assert listed.turns == 2500
        session = await service.get_session("u", "s")
        assert session is not None
        assert [each.text for each in session.messages[::2]] == [f"q{number}" for number in range(2500)]

    async def test_entries_before_the_snapshot_are_not_read(self, service: SessionHistoryService) -> None:
        await store(service.provider, *(record(f"q{number}") for number in range(50)), cards=True)
        await store(service.provider, record("q50"))
        asked: list[dict[str, Any]] = []
        real = service.provider.read

        async def counted(key: SessionKey, **options: Any) -> Any:
            asked.append(options)
            return await real(key, **options)

        service.provider.read = counted  # type: ignore[method-assign]
        await service.list_sessions("u")
        assert [options.get("after") for options in asked] == [None, 50]


class TestCards:
    def test_changes_between_plain_appends_do_not_end_a_turn(self) -> None:
        records = [
            record("q1", by=Author.APPEND),
            record(by=Author.SESSION, title="x"),
            record("a1", by=Author.APPEND),
            record("t1", by=Author.APPEND),
        ]
        summary = SessionSummary().with_records(enumerate(records, start=1))
        assert (summary.turns, summary.messages, summary.title) == (1, 3, "x")

    def test_turn_ends_the_turn_of_plain_appends(self) -> None:
        records = [record("q1", by=Author.APPEND), record("q2"), record("a1", by=Author.APPEND)]
        summary = SessionSummary().with_records(enumerate(records, start=1))
        assert summary.turns == 3

    @pytest.mark.parametrize("data", [b"", b"x", b"[]", b"5", b"{}", b'{"v":1,"nonsense":2}', b"\xff"])
    def test_unreadable_summary_or_record_raises_corrupt(self, data: bytes) -> None:
        with pytest.raises(Corrupt, match="summary of SessionKey"):
            SessionSummary.decode(data, KEY)
        with pytest.raises(Corrupt, match="entry 7 of SessionKey"):
            Record.decode(data, KEY, 7)

    @pytest.mark.parametrize(
        "summary", [b'{"v":1,"title":5}', b'{"v":1,"metadata":[]}', b'{"v":1,"turns":"x"}', b'{"v":1,"plain":1}']
    )
    def test_summary_with_values_of_other_types_raises_corrupt(self, summary: bytes) -> None:
        with pytest.raises(Corrupt):
            SessionSummary.decode(summary, KEY)

    @pytest.mark.parametrize("runs", ['[["f",[5]]]', '[["f",["x",{}]]]', "[5]", "null"])
    def test_record_with_wrong_messages_raises_corrupt(self, runs: str) -> None:
        data = f'{{"v":1,"by":"turn","base":0,"at":1,"runs":{runs}}}'.encode()
        whole = record("q").encode()
        with pytest.raises(Corrupt, match="entry 7"):
            Record.decode(data, KEY, 7)
        with pytest.raises(Corrupt, match="entry 2"):
            Record.decode_all([whole, data, whole], KEY, 1)

    async def test_recorded_answer_that_lacks_a_message_raises_corrupt(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Any]) -> str:
            return "a"

        broken = record("q", "a", status=Status.COMPLETED)
        broken.inputs = (MessageRef(0, 0),)
        broken.shape = ["text", "text"]
        for name, answer in (("t1", (7,)), ("t2", (1,))):
            broken.answer = tuple(MessageRef(0, offset) for offset in answer)
            key = SessionKey("u", name)
            await service.provider.append(key, Entry("t", broken.encode()), at=Position(0, 0))
            with pytest.raises(Corrupt, match="lacks a message"):
                await handler({"role": "user", "content": "q"}, user_id="u", session_id=name, turn_id="t")

    def test_record_of_a_newer_version_raises_incompatible_store(self) -> None:
        with pytest.raises(IncompatibleStore):
            SessionSummary.decode(b'{"v":2}', KEY)
        with pytest.raises(IncompatibleStore):
            Record.decode(b'{"v":2}', KEY, 1)

    def test_record_comes_back_equal(self) -> None:
        full = Record(
            Author.TURN,
            base=3,
            messages=(message("q"), StoredMessage("x/1", {"b": 1, "a": [2.0]}), StoredMessage("x/1", {}), message("a")),
            changes={"title": None},
            status=Status.INTERRUPTED,
            inputs=(MessageRef(0, 0),),
            shape=["text", None],
            answer=(MessageRef(0, 3), MessageRef(2, 1)),
            turn_id="t",
        )
        assert Record.decode(full.encode(), KEY, 1) == full
        least = Record(Author.SESSION, base=0)
        assert Record.decode(least.encode(), KEY, 1) == least


class TestTurns:
    def shown(self, *records: Record, first: int = 1) -> list[tuple[list[str], bool]]:
        return [
            ([each.value["content"] for each in turn.messages], turn.whole)
            for turn in assemble(enumerate(records, start=first))
        ]

    def test_turns_from_the_beginning_are_whole(self) -> None:
        records = [record("a0", by=Author.APPEND), record("q1", "a1"), record("a2", "q3", by=Author.APPEND)]
        assert self.shown(*records) == [(["a0"], True), (["q1", "a1"], True), (["a2"], True), (["q3"], True)]

    def test_first_turn_from_the_middle_may_be_torn(self) -> None:
        torn = record("a2", "q3", by=Author.APPEND)
        assert self.shown(torn, first=5) == [(["a2"], False), (["q3"], True)]
        assert self.shown(record("q1"), torn, first=5) == [(["q1"], True), (["a2"], True), (["q3"], True)]

    def test_messages_without_a_role_are_one_turn_an_append(self) -> None:
        records = [record("x1", "y1", by=Author.APPEND), record("x2", "y2", by=Author.APPEND)]
        assert self.shown(*records, first=5) == [(["x1", "y1"], True), (["x2", "y2"], True)]

    def test_window_does_not_begin_with_a_torn_turn(self) -> None:
        torn = assemble(enumerate([record("a1", by=Author.APPEND), record("q2", "a2")], start=5))
        assert newest(torn, 2) is None
        assert steady(torn, 2, count=2) is None
        assert self.texts(newest(torn, 1)) == self.texts(steady(torn, 2, count=1)) == [["q2", "a2"]]

    def texts(self, window: list[TurnView] | None) -> list[list[str]]:
        assert window is not None
        return [[each.value["content"] for each in turn.messages] for turn in window]


class TestRebase:
    async def test_append_that_always_conflicts_raises_unavailable(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store(service.provider, record("q1"))
        log = await service.provider.read(KEY, last=0)
        assert log is not None

        async def overtaken(*arguments: Any, **options: Any) -> Any:
            raise Conflict(log.head)

        monkeypatch.setattr(service.provider, "append", overtaken)
        monkeypatch.setattr("session_history.log.session_log.RETRY_TIMEOUT", 0.05)
        with pytest.raises(Unavailable, match="other writers"):
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": "q2"})

    async def test_appends_of_one_event_loop_do_not_conflict(self, tmp_path: Path) -> None:
        service = SessionHistoryService.from_url(f"sqlite:///{tmp_path / 'h.db'}")
        async with service:
            session = await service.create_session("u", "s")
            attempts = 0
            real = service.provider.append

            async def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal attempts
                attempts += 1
                return await real(*arguments, **options)

            service.provider.append = counted  # type: ignore[method-assign]
            await asyncio.gather(
                *(service.append_message(session, {"role": "user", "content": "x"}) for _ in range(32))
            )
        assert attempts == 32

    async def test_turns_of_several_event_loops_are_all_kept(self, tmp_path: Path) -> None:
        service = SessionHistoryService.from_url(f"sqlite:///{tmp_path / 'h.db'}")

        async def talk(name: str) -> None:
            for number in range(10):
                async with service.turn("u", "s") as turn:
                    turn.add({"role": "user", "content": f"{name}{number}"})

        async with service:
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, talk(name)) for name in "abcd"))
            window = await Reader(SessionLog(service.provider)).newest(KEY, None)
        assert window.summary.turns == 40


@pytest.mark.parametrize("head", ["the tail", 5, Position(0, 1)])
def test_conflict_without_a_head_raises_type_error(head: Any) -> None:
    with pytest.raises(TypeError, match="takes the current Head"):
        Conflict(head)


@pytest.mark.parametrize(
    "damage",
    [{"base": None}, {"base": "1"}, {"at": 1.5}, {"at": []}, {"inputs": 3}, {"inputs": -1}, {"inputs": 10**15}],
)
def test_record_with_a_damaged_number_is_corrupt(damage: dict[str, Any]) -> None:
    document = decode(record("q", "a", status=Status.COMPLETED).encode()) | damage
    with pytest.raises(Corrupt):
        Record.decode(encode(document, "record"), KEY, 1)


async def test_delete_between_two_reads_of_a_session_raises_session_deleted(
    service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(service, "q1")
    log = SessionLog(service.provider)
    head = await log.head(KEY)
    assert head is not None
    await say(service, "q2")
    holds = SessionLog.holds

    async def deleting_first(self: SessionLog, key: SessionKey, seq: int, origin: str) -> bool:
        await service.delete_session("u", "s")
        return await holds(self, key, seq, origin)

    monkeypatch.setattr(SessionLog, "holds", deleting_first)
    with pytest.raises(SessionDeleted):
        await log.read_again(KEY, head, before=2)
