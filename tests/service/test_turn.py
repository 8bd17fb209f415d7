"""One turn is one entry, however it ends."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from session_history import (
    Message,
    SessionHistoryService,
    SqliteSessionHistoryService,
    Turn,
    with_session_history,
)
from session_history.errors import (
    InvalidKey,
    InvalidMessage,
    LimitExceeded,
    NotStorable,
    SessionDeleted,
    TurnClosed,
    Unavailable,
)
from session_history.providers.memory import MemoryProvider
from session_history_hooks import SessionHistoryProvider, SessionKey


def said(user: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def provider(service: SessionHistoryService) -> SessionHistoryProvider:
    return service.provider


async def shown(service: SessionHistoryService, **options: Any) -> list[str]:
    async with service.turn("u", "s", **options) as turn:
        return [message.text for message in turn.history]


async def recorded(service: SessionHistoryService) -> list[str]:
    session = await service.get_session("u", "s")
    assert session is not None
    return [message.text for message in session.messages]


async def entries(service: SessionHistoryService) -> int:
    log = await provider(service).read(SessionKey("u", "s"), last=0)
    return log.head.tail.seq if log else 0


class TestCompleted:
    @pytest.mark.every_store
    async def test_completed_turn_is_one_entry(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s") as turn:
            assert (turn.user_id, turn.session_id, turn.history, turn.recorded) == ("u", "s", [], None)
            turn.add(said("q", "a"))
            turn.add(Message(role="assistant", content="more"))
            assert [message.text for message in turn.messages] == ["q", "a", "more"]
            assert await recorded(service) == []
        assert await recorded(service) == ["q", "a", "more"]
        assert await entries(service) == 1

    async def test_completed_turn_is_in_the_history_of_the_next(self, service: SessionHistoryService) -> None:
        for number in range(3):
            async with service.turn("u", "s") as turn:
                assert len(turn.history) == 2 * number
                assert all(type(message) is Message for message in turn.history)
                turn.add(said(f"q{number}", f"a{number}"))
        assert await shown(service) == ["q0", "a0", "q1", "a1", "q2", "a2"]

    async def test_turn_without_messages_writes_nothing(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s", turn_id="t"):
            pass
        assert await entries(service) == 0

    async def test_native_turn_returns_dicts_verbatim(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s", native=True) as turn:
            turn.add({"anything": [1, 2.0, None]})
        async with service.turn("u", "s", native=True) as turn:
            assert repr(turn.history) == "[{'anything': [1, 2.0, None]}]"

    async def test_added_messages_are_copied_and_checked_at_once(self, service: SessionHistoryService) -> None:
        message: dict[str, Any] = {"role": "user", "content": "before"}
        async with service.turn("u", "s") as turn:
            turn.add(message)
            message["content"] = "after"
            for bad in (5, "text", [message, {"content": 1}], [message, {"role": "user", "content": 1}]):
                with pytest.raises(InvalidMessage):
                    turn.add(bad)  # type: ignore[arg-type]
            with pytest.raises(NotStorable):
                turn.add([message, {"role": "user", "content": [], "when": {1, 2}}])
        assert await recorded(service) == ["before"]

    async def test_changed_history_changes_no_stored_message(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s") as turn:
            turn.add(said("q", "a"))
        async with service.turn("u", "s") as turn:
            turn.history[0].content = None
            turn.history.clear()
        assert await shown(service) == ["q", "a"]

    async def test_add_after_the_end_raises_turn_closed(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s") as turn:
            turn.add(said("q", "a"))
        with pytest.raises(TurnClosed):
            turn.add(said("late", "late"))
        assert await recorded(service) == ["q", "a"]

    @pytest.mark.every_store
    async def test_concurrent_turns_are_both_kept(self, service: SessionHistoryService) -> None:
        async def talk(name: str) -> None:
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": f"{name}?"})
                await asyncio.sleep(0.01)
                turn.add({"role": "assistant", "content": f"{name}!"})

        await asyncio.gather(*(talk(name) for name in "abcdefgh"))
        stored = await recorded(service)
        assert len(stored) == 16
        assert [text[0] for text in stored[::2]] == [text[0] for text in stored[1::2]]

    async def test_turn_that_is_too_large_raises_limit_exceeded(self, service: SessionHistoryService) -> None:
        with pytest.raises(LimitExceeded):
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": "x" * (64 * 2**20 + 1)})
        assert await entries(service) == 0


class TestNotCompleted:
    @pytest.mark.every_store
    async def test_failed_turn_is_kept_and_not_shown(self, service: SessionHistoryService) -> None:
        with pytest.raises(ZeroDivisionError) as error:
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": "q"})
                1 / 0  # noqa: B018
        assert not hasattr(error.value, "__notes__")
        assert await recorded(service) == ["q"]
        assert await shown(service) == []

    @pytest.mark.parametrize(
        "result",
        [
            {"role": "tool", "content": "booked"},
            {"type": "function_call_output", "output": "booked"},
            {"role": "user", "content": [{"type": "tool_result", "content": "booked"}]},
        ],
    )
    async def test_failed_turn_with_a_tool_result_is_shown(
        self, service: SessionHistoryService, result: dict[str, Any]
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            async with service.turn("u", "s", native=True) as turn:
                turn.add([{"role": "user", "content": "book it"}, result])
                1 / 0  # noqa: B018
        assert len(await shown(service)) == 2

    @pytest.mark.parametrize("times", [1, 3])
    async def test_cancelled_turn_keeps_its_messages(self, service: SessionHistoryService, times: int) -> None:
        async def talk() -> None:
            async with service.turn("u", "s") as turn:
                turn.add(said("q", "half an ans"))
                begun.set()
                await asyncio.sleep(60)

        begun = asyncio.Event()
        task = asyncio.create_task(talk())
        await begun.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await shown(service) == ["q", "half an ans"]

    async def test_turn_cancelled_while_it_is_stored_is_kept(self, service: SessionHistoryService) -> None:
        async def talk(text: str, ended: asyncio.Event) -> None:
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": text})
                ended.set()

        for patience in range(12):
            ended = asyncio.Event()
            task = asyncio.create_task(talk(f"q{patience}", ended))
            await ended.wait()
            for _ in range(patience):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await shown(service) == [f"q{number}" for number in range(12)]

    async def test_turn_that_times_out_is_interrupted(self, service: SessionHistoryService) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), service.turn("u", "s") as turn:
                turn.add(said("outer", "…"))
                await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            async with service.turn("u", "s") as turn, asyncio.timeout(0.05):
                turn.add(said("inner", "…"))
                await asyncio.sleep(60)
        assert await shown(service) == ["outer", "…", "inner", "…"]

    async def test_failed_turn_takes_no_place_in_a_window(self, service: SessionHistoryService) -> None:
        for number in range(12):
            async with service.turn("u", "s") as turn:
                turn.add(said(f"q{number}", f"a{number}"))
            with pytest.raises(ZeroDivisionError):
                async with service.turn("u", "s") as turn:
                    turn.add({"role": "user", "content": "lost"})
                    1 / 0  # noqa: B018
        for count in (1, 2, 4, 12):
            window = await shown(service, last_turns=count)
            assert "lost" not in window
            assert 2 * count <= len(window) <= 3 * count

    async def test_turn_in_a_deleted_session_raises_session_deleted(self, service: SessionHistoryService) -> None:
        await service.create_session("u", "s")
        await service.delete_session("u", "s")
        with pytest.raises(SessionDeleted):
            async with service.turn("u", "s"):
                pytest.fail("the body ran")

    @pytest.mark.parametrize("born", [True, False])
    @pytest.mark.parametrize("again", [True, False])
    async def test_turn_in_a_session_deleted_meanwhile_raises_session_deleted(
        self, service: SessionHistoryService, born: bool, again: bool
    ) -> None:
        if born:
            await service.create_session("u", "s")
        with pytest.raises(SessionDeleted):
            async with service.turn("u", "s") as turn:
                turn.add(said("q", "a"))
                if not born:
                    await service.create_session("u", "s")
                await service.delete_session("u", "s")
                if again:
                    await service.create_session("u", "s")
        session = await service.get_session("u", "s")
        assert (session.messages if session else None) == ([] if again else None)

    async def test_turn_in_a_session_that_the_store_lost_raises_session_deleted(self) -> None:
        provider, empty = MemoryProvider(), MemoryProvider()
        await empty.start()
        async with SessionHistoryService(provider) as service:
            await service.create_session("u", "s")
            with pytest.raises(SessionDeleted, match="not in the store any more"):
                async with service.turn("u", "s") as turn:
                    turn.add(said("q", "a"))
                    provider.read, provider.append = empty.read, empty.append  # type: ignore[method-assign]
            async with service.turn("u", "s") as turn:
                turn.add(said("q2", "a2"))
            assert await shown(service) == ["q2", "a2"]

    async def test_error_of_the_turn_is_raised_when_the_store_fails_too(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture
    ) -> None:
        await service.create_session("u", "s")
        with caplog.at_level(logging.ERROR, "session_history"), pytest.raises(ZeroDivisionError) as error:
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": "hunter2"})
                await service.delete_session("u", "s")
                1 / 0  # noqa: B018
        assert "SessionDeleted" in error.value.__notes__[0]
        assert "SessionDeleted" in caplog.text
        assert "hunter2" not in caplog.text + error.value.__notes__[0]

    async def test_store_that_fails_at_the_end_raises(self, service: SessionHistoryService) -> None:
        with pytest.raises(Unavailable):
            async with service.turn("u", "s") as turn:
                turn.add(said("q", "a"))
                provider(service).append = unreachable  # type: ignore[method-assign]


class TestShutdown:
    def test_event_loop_that_ends_waits_for_turns_being_stored(self, tmp_path: Path) -> None:
        service = SqliteSessionHistoryService(tmp_path / "h.db")
        other = sqlite3.connect(tmp_path / "h.db", isolation_level=None, check_same_thread=False)

        async def talk(number: int) -> None:
            async with service.turn("u", f"s{number % 3}") as turn:
                turn.add({"role": "user", "content": f"q{number}"})

        async def leave_early() -> None:
            await service.start()
            other.execute("BEGIN IMMEDIATE")
            tasks.extend(asyncio.create_task(talk(number)) for number in range(10))
            await asyncio.sleep(0.2)
            threading.Timer(0.3, other.execute, ["COMMIT"]).start()

        async def stored() -> list[str]:
            sessions = [await service.get_session("u", f"s{number}") for number in range(3)]
            await service.stop()
            return sorted(message.text for session in sessions if session for message in session.messages)

        tasks: list[asyncio.Task[None]] = []
        asyncio.run(leave_early())
        other.close()
        assert all(task.cancelled() for task in tasks)
        assert asyncio.run(stored()) == [f"q{number}" for number in range(10)]

    async def test_stop_logs_the_turns_it_could_not_store(self, service: SessionHistoryService) -> None:
        with pytest.raises(Unavailable, match="could not be stored"):
            async with service.turn("u", "s") as turn:
                turn.add(said("q", "a"))
                provider(service).append = unreachable  # type: ignore[method-assign]
                await service.stop()

    async def test_cancellation_is_raised_after_a_failed_save(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def slowly(*arguments: Any, **options: Any) -> Any:
            saving.set()
            await asyncio.sleep(0.05)
            raise Unavailable("no network")

        async def talk(error: Exception | None) -> None:
            with suppress(Unavailable, ZeroDivisionError):
                async with service.turn("u", "s") as turn:
                    turn.add(said("q", "a"))
                    provider(service).append = slowly  # type: ignore[method-assign]
                    if error:
                        raise error
            pytest.fail("the cancellation was swallowed")

        for error in (None, ZeroDivisionError()):
            saving = asyncio.Event()
            task = asyncio.create_task(talk(error))
            await saving.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del provider(service).append
        assert "could not be stored" in caplog.text

    def test_turn_suspended_in_a_closed_loop_is_stored_by_stop(self, tmp_path: Path) -> None:
        service = SqliteSessionHistoryService(tmp_path / "h.db")

        async def talk() -> None:
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": "q"})
                await asyncio.get_running_loop().create_future()

        loop = asyncio.new_event_loop()
        left = talk()
        loop.create_task(left)  # noqa: RUF006 - the loop closes with the task in it
        loop.run_until_complete(asyncio.sleep(0.3))
        loop.close()
        # Python logs a task that is destroyed while it waits, as the collector does here.
        loop.set_exception_handler(lambda *_: None)
        left.close()
        began = time.monotonic()
        asyncio.run(service.stop())
        assert time.monotonic() - began < 5
        assert asyncio.run(SqliteSessionHistoryService(tmp_path / "h.db").get_session("u", "s")).messages[0].text == "q"  # type: ignore[union-attr]

    async def test_turn_that_is_loaded_during_a_stop_raises_unavailable(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def talk() -> None:
            async with service.turn("u", "s"):
                pytest.fail("the turn began after the stop")

        real = provider(service).read

        async def slowly(key: SessionKey, **options: Any) -> Any:
            log = await real(key, **options)
            await asyncio.sleep(0.05)
            return log

        await service.create_session("u", "s")
        monkeypatch.setattr(provider(service), "read", slowly)
        loading = asyncio.create_task(talk())
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await service.stop()
        with pytest.raises(Unavailable, match="stopped"):
            await loading

    async def test_pieces_after_a_stop_raise_unavailable_without_an_input(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def stream(messages: list[Message]) -> AsyncIterator[str]:
            await service.stop()
            yield "late"

        with pytest.raises(Unavailable, match="was stopped during the turn"):
            assert [piece async for piece in stream([], user_id="u", session_id="s")]

    @pytest.mark.parametrize("answer", ["text", {"role": "assistant"}, [Message(role="assistant")]])
    async def test_answer_after_a_stop_raises_unavailable(self, service: SessionHistoryService, answer: Any) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> Any:
            await service.stop()
            return answer

        @with_session_history(service)
        async def stream(messages: list[Message]) -> AsyncIterator[Any]:
            await service.stop()
            yield answer

        with pytest.raises(Unavailable, match="was stopped during the turn"):
            await handler("q", user_id="u", session_id="s")
        await service.start()
        with pytest.raises(Unavailable, match="was stopped during the turn"):
            assert [piece async for piece in stream("q", user_id="u", session_id="s")]
        await service.start()
        with pytest.raises(Unavailable, match="was stopped during the turn"):
            async with service.turn("u", "s") as turn:
                await service.stop()
                turn.add({"role": "user", "content": "late"})
        await service.start()
        assert await recorded(service) == ["q", "q"]


class TestRepeated:
    @pytest.mark.every_store
    async def test_repeated_turn_id_is_stored_once(self, service: SessionHistoryService) -> None:
        for _ in range(3):
            async with service.turn("u", "s", turn_id="t") as turn:
                before = turn.recorded
                turn.add(said("q", "a"))
        assert before is not None
        assert [message.text for message in before] == ["q", "a"]
        assert await recorded(service) == ["q", "a"]
        assert await entries(service) == 1

    async def test_turn_id_far_back_is_found(self, service: SessionHistoryService) -> None:
        for number in range(30):
            async with service.turn("u", "s", turn_id=f"t{number}") as turn:
                turn.add(said(f"q{number}", f"a{number}"))
        async with service.turn("u", "s", turn_id="t3", last_turns=2) as turn:
            assert turn.recorded is not None
            assert turn.recorded[0].text == "q3"

    async def test_turn_id_belongs_to_its_session_and_generation(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s", turn_id="t") as turn:
            turn.add(said("q", "a"))
        for user, session in (("u", "s2"), ("v", "s")):
            async with service.turn(user, session, turn_id="t") as turn:
                assert turn.recorded is None
        await service.delete_session("u", "s")
        await service.create_session("u", "s")
        async with service.turn("u", "s", turn_id="t") as turn:
            assert turn.recorded is None

    @pytest.mark.every_store
    async def test_concurrent_turns_with_one_id_store_one_answer(self, service: SessionHistoryService) -> None:
        async def talk(number: int) -> Turn:
            async with service.turn("u", "s", turn_id="t") as turn:
                turn.add(said("q", f"a{number}"))
                await asyncio.sleep(0.01)
            return turn

        turns = await asyncio.gather(*(talk(number) for number in range(6)))
        stored = await recorded(service)
        assert len(stored) == 2
        lost = [turn for turn in turns if turn.recorded is not None]
        assert len(lost) == 5
        assert {turn.recorded[1].text for turn in lost if turn.recorded} == {stored[1]}

    async def test_failed_turn_runs_again_under_its_id(self, service: SessionHistoryService) -> None:
        with pytest.raises(ZeroDivisionError):
            async with service.turn("u", "s", turn_id="t") as turn:
                turn.add({"role": "user", "content": "q"})
                1 / 0  # noqa: B018
        async with service.turn("u", "s", turn_id="t") as turn:
            assert turn.recorded is None
            turn.add(said("q", "a"))
        assert await shown(service) == ["q", "a"]

    @pytest.mark.parametrize("said_before", ["", "half an ans"])
    async def test_interrupted_stream_repeats_its_answer_or_runs_again(
        self, service: SessionHistoryService, said_before: str
    ) -> None:
        calls = []

        @with_session_history(service)
        async def handler(messages: list[Message]) -> AsyncIterator[str]:
            calls.append([message.text for message in messages])
            if said_before:
                yield said_before
            await asyncio.sleep(0 if len(calls) > 1 else 60)
            yield "whole"

        async def ask() -> list[str]:
            return [piece async for piece in handler("q", user_id="u", session_id="s", turn_id="t")]

        task = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await ask() == ([said_before] if said_before else ["whole"])
        assert calls == [["q"]] * (1 if said_before else 2)
        assert await shown(service) == ["q", said_before or "whole"]

    async def test_interrupted_turn_runs_again_and_is_shown_once(self, service: SessionHistoryService) -> None:
        with pytest.raises(TimeoutError):
            async with service.turn("u", "s", turn_id="t") as turn, asyncio.timeout(0.01):
                turn.add({"role": "user", "content": "Pay"})
                await asyncio.sleep(60)
        assert await shown(service) == ["Pay"]
        async with service.turn("u", "s", turn_id="t") as turn:
            assert (turn.recorded, turn.history) == (None, [])
            turn.add(said("Pay", "Paid"))
        assert await shown(service) == ["Pay", "Paid"]

    async def test_interrupted_turn_with_a_tool_result_stays_shown_when_it_runs_again(
        self, service: SessionHistoryService
    ) -> None:
        with pytest.raises(TimeoutError):
            async with service.turn("u", "s", turn_id="t") as turn:
                turn.add([{"role": "user", "content": "Book"}, {"role": "tool", "content": "booked"}])
                raise TimeoutError
        async with service.turn("u", "s", turn_id="t") as turn:
            assert [message.text for message in turn.history] == ["Book", "booked"]

    @pytest.mark.parametrize("turn_id", ["", " ", "a\0", "\ud800", "x" * 513, 5])
    async def test_turn_with_an_unfit_id_raises_invalid_key(self, service: SessionHistoryService, turn_id: Any) -> None:
        with pytest.raises(InvalidKey, match="turn_id"):
            service.turn("u", "s", turn_id=turn_id)


class TestWindow:
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
    async def test_window_start_moves_in_steps(self, service: SessionHistoryService, count: int) -> None:
        starts = []
        for number in range(4 * count):
            async with service.turn("u", "s", last_turns=count) as turn:
                window = [message.text for message in turn.history]
                assert min(number, count) <= len(window) / 2 <= max(1, count, 1.5 * count)
                assert window == [f"{kind}{n}" for n in range(number - len(window) // 2, number) for kind in "qa"]
                starts.append(window[0] if window else "q0")
                turn.add(said(f"q{number}", f"a{number}"))
        moves = sum(one != next_one for one, next_one in pairwise(starts))
        assert moves <= 3 * count / max(1, count // 2)

    async def test_turn_with_last_turns_0_has_no_history(self, service: SessionHistoryService) -> None:
        async with service.turn("u", "s") as turn:
            turn.add(said("q", "a"))
        assert await shown(service, last_turns=0) == []
        with pytest.raises(ValueError, match="last_turns"):
            service.turn("u", "s", last_turns=-1)

    async def test_window_reads_only_a_margin_beyond_its_turns(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(60):
            async with service.turn("u", "s") as turn:
                turn.add(said(f"q{number}", f"a{number}"))
        read: list[int] = []
        real = provider(service).read

        async def counted(key: SessionKey, **options: Any) -> Any:
            log = await real(key, **options)
            read.append(len(log.entries) if log else 0)
            return log

        monkeypatch.setattr(provider(service), "read", counted)
        reader = SessionHistoryService(provider(service))
        await shown(reader, last_turns=4)
        await shown(reader, last_turns=4)
        assert read == [10, 0], "the second window was known already"


async def unreachable(*arguments: Any, **options: Any) -> Any:
    raise Unavailable("no network")


class TestStop:
    async def test_stream_left_before_a_stop_is_stored(self, tmp_path: Path) -> None:
        for hold in (True, False):
            async with SqliteSessionHistoryService(tmp_path / f"{hold}.db") as service:

                @with_session_history(service)
                async def storyteller(messages: list[Message]) -> AsyncIterator[str]:
                    for piece in ("Once ", "upon ", "a time"):
                        yield piece

                stream = storyteller("A story!", user_id="u", session_id="s")
                async for piece in stream:
                    if piece == "upon ":
                        break
                if not hold:
                    del stream
            async with SqliteSessionHistoryService(tmp_path / f"{hold}.db") as service:
                assert await shown(service) == ["A story!", "Once upon "]

    @pytest.mark.every_store
    async def test_open_turns_are_stored_as_interrupted_and_raise_unavailable(
        self, service: SessionHistoryService
    ) -> None:
        async def talk(number: int) -> None:
            async with service.turn("u", "s") as turn:
                turn.add(said(f"q{number}", "half"))
                begun.release()
                await asyncio.sleep(0.1)
                with suppress(TurnClosed):
                    turn.add({"role": "assistant", "content": "late"})

        begun = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(talk(number)) for number in range(5)]
        for _ in tasks:
            await begun.acquire()
        await service.stop()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == [
            "the service was stopped during the turn, which is stored as interrupted"
        ] * 5
        await service.start()
        assert sorted(await shown(service)) == sorted([f"q{number}" for number in range(5)] + ["half"] * 5)

    @pytest.mark.every_store
    async def test_stop_waits_for_turns_being_stored(self, service: SessionHistoryService) -> None:
        async def talk(number: int) -> None:
            async with service.turn("u", "s") as turn:
                turn.add({"role": "user", "content": f"q{number}"})

        tasks = [asyncio.create_task(talk(number)) for number in range(20)]
        for _ in range(200):
            await asyncio.sleep(0)
            if any(task.done() for task in tasks):
                break
        await service.stop()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await service.start()
        stored = await shown(service)
        # Each is acknowledged and stored, or was refused before it began, or is stored and says that it was stopped.
        for number, outcome in enumerate(outcomes):
            assert outcome is None or isinstance(outcome, Unavailable)
            if outcome is None:
                assert f"q{number}" in stored
        assert len(stored) == len(set(stored))
