"""Turns as an adapter may drive them: lost acknowledgements, resumed turns, mixed answers, bad records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from session_history import SessionHistoryService, StoredMessage, TurnRecorder
from session_history.errors import Corrupt, NotStorable
from session_history.providers.memory import MemoryProvider
from session_history_hooks import Appended, Entry, Position, SessionKey, Snapshot

Recorder = TurnRecorder[dict[str, Any]]


class LossyStore(MemoryProvider):
    """Loses an acknowledgement, and asks again under the same id, as the providers of servers do."""

    loses_next = False
    acknowledges_late = False

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        appended = await super().append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)
        if self.loses_next:
            self.loses_next = False
            return await super().append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)
        if self.acknowledges_late:
            await asyncio.sleep(0.05)
        return appended


@pytest.fixture
def store() -> LossyStore:
    return LossyStore()


@pytest.fixture
async def lossy(store: LossyStore) -> AsyncIterator[SessionHistoryService]:
    async with SessionHistoryService(store) as service:
        yield service


def message(role: str, content: Any) -> StoredMessage:
    return StoredMessage.checked("parley.line/1", {"role": role, "content": content})


def contents(messages: Any) -> list[Any]:
    return [each["content"] for each in messages]


async def recorded(service: SessionHistoryService) -> list[Any]:
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    return contents(session.messages)


async def park(service: SessionHistoryService, **options: Any) -> None:
    async with service.record_turn("u", "s", native=True, **options) as recorder:
        recorder.add_input([message("user", "q")])
        recorder.add([message("assistant", "may I?")], answer=True)
        recorder.park()


class TestLostAcknowledgement:
    @pytest.mark.parametrize("concurrent", ["keep", "queue"])
    async def test_of_the_end_of_a_turn_with_id_and_checkpoint_stores_everything_once(
        self, lossy: SessionHistoryService, store: LossyStore, concurrent: Any
    ) -> None:
        async with lossy.record_turn(
            "u", "s", native=True, turn_id="t", concurrent=concurrent, slot="host"
        ) as recorder:
            recorder.add_input([message("user", "q")])
            await recorder.checkpoint()
            recorder.add([message("assistant", "a")], answer=True)
            recorder.save_state({"mood": "curious"})
            store.loses_next = True
        assert not store.loses_next
        assert await recorded(lossy) == ["q", "a"]
        assert recorder.turn.state_kept
        async with lossy.turn("u", "s", native=True, slot="host") as turn:
            assert contents(turn.history) == ["q", "a"]
            assert turn.state == {"mood": "curious"}

    def test_while_the_loop_shuts_down_stores_everything_once(self, store: LossyStore) -> None:
        service = SessionHistoryService(store)

        async def run() -> None:
            async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
                recorder.add_input([message("user", "q")])
                await recorder.checkpoint()
                recorder.add([message("assistant", "a")], answer=True)
                store.acknowledges_late = True

        async def main() -> None:
            task = asyncio.create_task(run())
            await asyncio.sleep(0.02)
            assert store.acknowledges_late
            assert not task.done()  # asyncio.run cancels it, and all that it waits for

        asyncio.run(main())
        store.acknowledges_late = False
        assert asyncio.run(recorded(service)) == ["q", "a"]


class TestMixedAnswer:
    async def test_message_added_behind_streamed_text_is_revised_by_its_index(
        self, service: SessionHistoryService
    ) -> None:
        async with service.record_turn("u", "s", native=True) as recorder:
            recorder.add_piece("Let me look.")
            index = recorder.add([message("assistant", "call")], answer=True)
            recorder.revise(index, message("assistant", "call, done"))
        assert await recorded(service) == ["Let me look.", "call, done"]

    async def test_answer_given_behind_streamed_text_is_replayed(self, service: SessionHistoryService) -> None:
        async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
            recorder.add_piece("thinking")
            recorder.add_answer("final")
        async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
            assert recorder.replay() == "final"

    async def test_input_added_in_two_calls_is_accepted_from_a_repeat(self, service: SessionHistoryService) -> None:
        for is_repeat in (False, True):
            async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
                recorder.add_input([message("system", "be kind")])
                recorder.add_input([message("user", "q")])
                assert recorder.is_replay == is_repeat
                if not is_repeat:
                    recorder.add_answer("a")


class TestUncheckedMessage:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), (1, 2), {1: 2}, object(), b"\xff", "\ud800"])
    async def test_unchecked_message_is_stored_with_a_marker(
        self, service: SessionHistoryService, value: object
    ) -> None:
        bad = StoredMessage("parley.line/1", {"role": "assistant", "content": value})
        async with service.record_turn("u", "s", native=True) as recorder:
            recorder.add_input([message("user", "q")])
            index = recorder.add([bad])
            recorder.revise(index, bad)
        assert {marker.path.partition(":")[0] for marker in recorder.turn.markers} == {"messages[1].content"}
        session = await SessionHistoryService(service.provider).get_session("u", "s", native=True)
        assert session is not None
        assert session.messages[0] == {"role": "user", "content": "q"}
        assert session.messages[1].keys() == {"role", "content"}

    async def test_unchecked_input_is_refused(self, service: SessionHistoryService) -> None:
        bad = StoredMessage("parley.line/1", {"role": "user", "content": {"when": {1, 2}}})
        with pytest.raises(NotStorable, match=r"messages\[0\]\.content\.when"):
            async with service.record_turn("u", "s", native=True, input=[bad]):
                pytest.fail("the turn was opened")
        async with service.record_turn("u", "s", native=True) as recorder:
            with pytest.raises(NotStorable):
                recorder.add_input([bad])
        assert await recorded(service) == []


class TestResumedTurn:
    async def test_input_added_before_the_resume_is_stored(self, service: SessionHistoryService) -> None:
        await park(service)
        async with service.record_turn("u", "s", native=True) as recorder:
            recorder.add_input([message("user", "yes")])
            with suppress(LookupError, RuntimeError, ValueError):  # to refuse it is right, too
                recorder.revise(recorder.resume(recorder.history[-1][0]), message("assistant", "may I? booked"))
        assert "yes" in await recorded(service)
        assert len(await recorded(service)) == 3

    async def test_attempt_with_an_id_that_was_cancelled_can_be_repeated(self, service: SessionHistoryService) -> None:
        await park(service)
        with pytest.raises(asyncio.CancelledError):
            async with service.record_turn("u", "s", native=True, turn_id="yes") as recorder:
                recorder.resume(recorder.history[-1][0])
                recorder.add([message("assistant", "working")])
                raise asyncio.CancelledError
        async with service.record_turn("u", "s", native=True, turn_id="yes") as recorder:
            history = {each.value["content"]: ref for ref, each in recorder.history}
            assert "may I?" in history
            recorder.resume(history["may I?"])
            recorder.add([message("assistant", "booked")], answer=True)
        async with service.turn("u", "s", native=True) as turn:
            assert {"q", "may I?", "booked"} <= set(contents(turn.history))

    async def test_repeat_of_a_resumed_turn_of_plain_appends_gets_its_answer(
        self, service: SessionHistoryService
    ) -> None:
        session = await service.get_session("u", "s", native=True)
        assert session is not None
        talk = [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "may I?")]
        await service.append_message(session, [message(*each).value for each in talk])
        async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
            recorder.resume(recorder.history[-1][0])
            recorder.add([message("assistant", "booked")], answer=True)
        async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
            assert contents(recorder.replay()) == ["booked"]

    async def test_tool_result_of_another_run_is_known_to_a_repeat_of_the_parked_turn(
        self, service: SessionHistoryService
    ) -> None:
        await park(service, turn_id="t")
        async with service.record_turn("u", "s", native=True) as recorder:
            recorder.resume(recorder.history[-1][0])
            call = {"id": "c", "type": "function", "function": {"name": "book", "arguments": "{}"}}
            recorder.add([StoredMessage.checked("x/1", {"role": "assistant", "content": "", "tool_calls": [call]})])
            recorder.add([StoredMessage.checked("x/1", {"role": "tool", "content": "booked", "tool_call_id": "c"})])
        async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
            assert recorder.is_replay or "booked" in contents(recorder.turn.history)


async def test_turn_whose_callback_raises_at_a_stop_is_stored_at_once(service: SessionHistoryService) -> None:
    def fail(_: BaseException) -> None:
        raise ZeroDivisionError

    async def drive() -> None:
        async with service.record_turn("u", "s", native=True) as recorder:
            recorder.add_input([message("user", "q")])
            recorder.on_stop(fail)
            await asyncio.Event().wait()

    task = asyncio.create_task(drive())
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await service.stop()
    task.cancel()
    await asyncio.wait([task])
    assert await recorded(SessionHistoryService(service.provider)) == ["q"]


@pytest.mark.parametrize("continues", [[1_000_000, 1_000_000], [3, 3], [0, 0], [-5, -5]])
async def test_repeat_of_a_turn_whose_record_names_a_wrong_first_entry_raises_corrupt(
    store: LossyStore, continues: list[int]
) -> None:
    service = SessionHistoryService(store)
    async with service.record_turn("u", "s", native=True, turn_id="t") as recorder:
        recorder.add_input([message("user", "q")])
        await recorder.checkpoint()
        recorder.add([message("assistant", "a")], answer=True)
    log = await store.read(SessionKey("u", "s"))
    assert log is not None
    at = Position(0, 0)
    for entry in log.entries:
        document = json.loads(entry.payload)
        if "continues" in document:
            document["continues"] = continues
        at = (
            await store.append(SessionKey("u", "bad"), Entry(entry.id, json.dumps(document).encode()), at=at)
        ).position
    with pytest.raises(Corrupt):
        async with service.record_turn("u", "bad", native=True, turn_id="t"):
            pass


def text(value: str) -> StoredMessage:
    content = [{"type": "text", "text": value}]
    return StoredMessage.checked("parley.line/1", {"role": "assistant", "content": content})


async def test_repeat_of_an_answered_turn_with_a_tool_result_has_only_what_came_before_as_history(
    service: SessionHistoryService,
) -> None:
    call: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function"}]}
    call["tool_calls"][0]["function"] = {"name": "book", "arguments": "{}"}
    for _ in range(2):
        async with service.turn("u", "s", native=True, turn_id="t") as turn:
            assert turn.history == []
            turn.add([call, {"role": "tool", "tool_call_id": "c", "content": "booked"}])


async def test_message_resumed_after_a_checkpoint_is_replaced_by_its_revision(service: SessionHistoryService) -> None:
    async with service.record_turn("u", "s", native=True) as recorder:
        recorder.add([text("one"), text("two")])
        recorder.park()
    async with service.record_turn("u", "s", native=True) as recorder:
        first, second = (ref for ref, _ in recorder.history)
        recorder.revise(recorder.resume(first), text("ONE"))
        await recorder.checkpoint()
        recorder.revise(recorder.resume(second), text("TWO"))
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    assert [each["content"][0]["text"] for each in session.messages] == ["ONE", "TWO"]
