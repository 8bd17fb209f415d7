"""Two findings on 6317dbe: a repeat sees its own turn as history, and a second resume forgets the first."""

from __future__ import annotations

from typing import Any

from session_history import SessionHistoryService, StoredMessage


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
