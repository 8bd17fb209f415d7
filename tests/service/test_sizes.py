"""Sizes: input is checked before the model, a large turn becomes several entries, a part that is too large a marker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.opening import names, opened, recorded, records, said, shown
from session_history import SessionHistoryService, Status, StoredMessage, with_session_history
from session_history.errors import LimitExceeded, Unavailable
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history.records.messages import NATIVE
from session_history_hooks import Appended, Entry, Limits, Position, SessionKey, Snapshot

LIMIT = 16_000
HERE = {"user_id": "u", "session_id": "s"}

Json = dict[str, Any]


class NarrowMemory(MemoryProvider):
    """A store with small entries, which dies before some append.

    :ivar left: how many appends it takes still.
    """

    left = 1_000_000

    @property
    def limits(self) -> Limits:
        return replace(super().limits, entry_bytes=LIMIT)

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        if not self.left:
            raise Unavailable("dead")
        self.left -= 1
        return await super().append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)


class NarrowSqlite(SqliteProvider):
    """A store with small entries."""

    @property
    def limits(self) -> Limits:
        return replace(super().limits, entry_bytes=LIMIT)


@pytest.fixture(params=["memory", "sqlite"])
async def narrow_service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionHistoryService]:
    provider = NarrowMemory() if request.param == "memory" else NarrowSqlite(tmp_path / "h.db")
    async with SessionHistoryService(provider) as service:
        yield service


def long(name: str, size: int = 5_000) -> StoredMessage:
    blocks = [{"type": "text", "id": name, "text": "x" * size}]
    return StoredMessage(NATIVE, {"role": "assistant", "content": blocks})


NAMES = [f"m{number}" for number in range(12)]


@pytest.mark.parametrize("concurrent", ["keep", "queue"])
async def test_turn_larger_than_an_entry_becomes_several_entries_of_one_turn(
    narrow_service: SessionHistoryService, concurrent: str
) -> None:
    async with opened(narrow_service, concurrent=concurrent) as recorder:
        recorder.add([said("q"), *map(long, NAMES)])
    written = [record for record in await records(narrow_service) if record.messages]
    assert len(written) > 3
    assert [record.status for record in written[:-1]] == [Status.OPEN] * (len(written) - 1)
    assert written[-1].status is Status.COMPLETED
    assert await recorded(narrow_service) == ["q", *NAMES]
    assert await shown(narrow_service, last_turns=1) == ["q", *NAMES]
    session = await narrow_service.get_session("u", "s")
    assert session is not None
    assert session.turns == 1
    async with opened(narrow_service, concurrent=concurrent) as recorder:  # the lease is free
        recorder.add([said("q2")])
    assert await recorded(narrow_service, last_turns=1) == ["q2"]


async def test_repeat_of_a_large_turn_gets_its_whole_answer(narrow_service: SessionHistoryService) -> None:
    calls = 0

    @with_session_history(narrow_service, native=True)
    async def handler(messages: list[Json]) -> list[Json]:
        nonlocal calls
        calls += 1
        return [long(name).value for name in NAMES]

    for _ in range(3):
        answer: Any = await handler("q", **HERE, turn_id="t")
        assert names(answer) == NAMES
    assert calls == 1


async def test_large_turn_of_which_the_end_is_missing_is_seen_as_interrupted() -> None:
    provider = NarrowMemory()
    provider.left = 2
    async with SessionHistoryService(provider) as service:
        with pytest.raises(Unavailable):
            async with opened(service, turn_id="t") as recorder:
                recorder.add([said("q"), *map(long, NAMES)])
        provider.left = 1_000_000
        seen = await shown(service)
        assert seen == ["q", *NAMES][: len(seen)]
        assert len(seen) > 1
        async with opened(service, turn_id="t") as recorder:
            assert not recorder.is_replay


async def test_revisions_of_a_large_turn_are_stored_in_parts(narrow_service: SessionHistoryService) -> None:
    async with opened(narrow_service) as recorder:
        recorder.add([said(name) for name in NAMES])
        await recorder.checkpoint()
        for index, name in enumerate(NAMES):
            recorder.revise(index, long(name))
        recorder.add([said("last")])
    assert await recorded(narrow_service) == [*NAMES, "last"]
    session = await narrow_service.get_session("u", "s", native=True)
    assert session is not None
    assert [len(message["content"][0]["text"]) for message in session.messages[:-1]] == [5_000] * len(NAMES)


async def test_message_that_grows_over_the_limit_in_steps_is_kept_whole(narrow_service: SessionHistoryService) -> None:
    blocks: list[Json] = []
    async with opened(narrow_service) as recorder:
        index = recorder.add([StoredMessage(NATIVE, {"role": "assistant", "content": []})])
        for name in NAMES:
            blocks = [*blocks, {"type": "text", "id": name, "text": "x" * 5_000}]
            recorder.revise(index, StoredMessage(NATIVE, {"role": "assistant", "content": blocks}))
            await recorder.checkpoint()
    assert recorder.turn.markers == []
    assert await recorded(narrow_service) == ["+".join(NAMES)]


@pytest.mark.parametrize(
    "huge",
    [
        {"role": "tool", "tool_call_id": "c", "content": "x" * 3 * LIMIT},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x" * 3 * LIMIT}]},
        {"type": "function_call_output", "call_id": "c", "output": "x" * 3 * LIMIT},
        {"role": "tool", "tool_call_id": "c", "content": {"rows": list(range(LIMIT))}},
        {"role": "tool", "tool_call_id": "c", **{f"k{number}": "x" * 20 for number in range(LIMIT // 10)}},
    ],
    ids=["text", "block", "item", "rows", "many small parts"],
)
async def test_result_above_the_limit_becomes_a_marker_and_the_next_turns_work(
    narrow_service: SessionHistoryService, huge: Json
) -> None:
    call = {"role": "assistant", "content": "I call"}
    async with narrow_service.turn("u", "s", native=True) as turn:
        turn.add([{"role": "user", "content": "q"}, call, huge, {"role": "assistant", "content": "done"}])
    assert [marker.kind for marker in turn.markers] == ["too large"]
    for _ in range(2):
        async with narrow_service.turn("u", "s", native=True) as turn:
            turn.add({"role": "user", "content": "next"})
    session = await narrow_service.get_session("u", "s", native=True)
    assert session is not None
    _, kept_call, marked, last, *_ = session.messages
    assert (kept_call, last) == (call, {"role": "assistant", "content": "done"})
    assert "too large" in str(marked)
    names = {"role", "type", "tool_call_id", "call_id"} & huge.keys()
    assert {name: marked[name] for name in names} == {name: huge[name] for name in names}


@pytest.mark.parametrize("role", ["user", "system"])
async def test_huge_results_that_are_added_alone_become_markers_in_any_role(
    narrow_service: SessionHistoryService, role: str
) -> None:
    block = {"type": "tool_result", "tool_use_id": "c", "id": "c", "content": "x" * 3 * LIMIT}
    async with narrow_service.turn("u", "s", native=True) as turn:
        turn.add({"role": role, "content": [block]})
    assert [marker.kind for marker in turn.markers] == ["too large"]
    session = await narrow_service.get_session("u", "s", native=True)
    assert session is not None
    assert session.messages[0]["content"][0]["tool_use_id"] == "c"


async def test_many_results_in_one_message_that_is_too_large_keep_their_calls(
    narrow_service: SessionHistoryService,
) -> None:
    calls: list[Json] = [{"type": "tool_use", "id": f"c{index:02}", "name": "f", "input": {}} for index in range(30)]
    results = [{"type": "tool_result", "tool_use_id": f"c{index:02}", "content": "x" * 700} for index in range(30)]
    async with narrow_service.turn("u", "s", native=True) as turn:
        turn.add([{"role": "user", "content": "q"}, {"role": "assistant", "content": calls}])
        turn.add({"role": "user", "content": results})
    assert 0 < len(turn.markers) < 30
    assert turn.markers[0].path == "messages[2].content[0].content"
    async with narrow_service.turn("u", "s", native=True) as turn:
        assert turn.repairs == []
        shown = turn.history[2]["content"]
    assert [block["tool_use_id"] for block in shown] == [block["tool_use_id"] for block in results]
    assert shown[-1] == results[-1]


async def test_huge_input_is_refused_before_the_handler_runs(narrow_service: SessionHistoryService) -> None:
    @with_session_history(narrow_service)
    async def handler(messages: list[Any]) -> str:
        pytest.fail("the handler was called")

    with pytest.raises(LimitExceeded):
        await handler("x" * 2 * LIMIT, **HERE)
    async with narrow_service.turn("u", "s") as turn:
        with pytest.raises(LimitExceeded):
            turn.add({"role": "user", "content": "x" * 2 * LIMIT})
    assert await recorded(narrow_service) == []


async def test_state_above_the_limit_is_left_out_and_the_messages_are_kept(
    narrow_service: SessionHistoryService,
) -> None:
    async with opened(narrow_service, slot="agent") as recorder:
        recorder.add([said("q")])
        recorder.save_state({"notes": "x" * 2 * LIMIT})
    assert recorder.turn.state_kept is False
    assert [marker.path for marker in recorder.turn.markers] == ["state"]
    assert await recorded(narrow_service) == ["q"]


async def test_failed_turn_larger_than_an_entry_keeps_its_status(narrow_service: SessionHistoryService) -> None:
    with suppress(RuntimeError):
        async with opened(narrow_service) as recorder:
            recorder.add([said("q"), *map(long, NAMES)])
            raise RuntimeError
    assert [record.status for record in await records(narrow_service)][-1] is Status.FAILED
    assert await shown(narrow_service) == []
    assert await recorded(narrow_service) == ["q", *NAMES]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x" * 2 * LIMIT}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "x" * 2 * LIMIT}]}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": "x" * 2 * LIMIT}}}]},
    ],
    ids=["anthropic", "bedrock", "gemini"],
)
async def test_large_result_in_a_message_of_the_user_becomes_a_marker(
    narrow_service: SessionHistoryService, message: Json
) -> None:
    async with narrow_service.turn("u", "s", native=True) as turn:
        turn.add({"role": "user", "content": "q"})
        turn.add(message)
        turn.add({"role": "assistant", "content": "done"})
    session = await narrow_service.get_session("u", "s", native=True)
    assert session is not None
    assert len(session.messages) == 3
    assert [marker.kind for marker in turn.markers] == ["too large"]


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ({"type": "image_url", "image_url": {"url": "x" * 2 * LIMIT}}, {"type", "text"}),
        ({"inlineData": {"mimeType": "image/png", "data": "x" * 2 * LIMIT}}, {"text"}),
    ],
    ids=["openai", "gemini"],
)
async def test_large_image_becomes_a_text_part(
    narrow_service: SessionHistoryService, part: Json, kept: set[str]
) -> None:
    key = "parts" if "inlineData" in part else "content"
    async with narrow_service.turn("u", "s", native=True) as turn:
        turn.add({"role": "assistant", key: [part]})
    session = await narrow_service.get_session("u", "s", native=True)
    assert session is not None
    assert set(session.messages[0][key][0]) == kept
    assert len(turn.markers) == 1


async def test_of_many_large_parts_only_as_many_give_way_as_must(narrow_service: SessionHistoryService) -> None:
    results = [{"type": "tool_result", "tool_use_id": f"c{number}", "content": "x" * 850} for number in range(20)]
    async with narrow_service.turn("u", "s", native=True) as turn:
        turn.add([{"role": "assistant", "content": "a"}, {"role": "user", "content": results}])
    session = await narrow_service.get_session("u", "s", native=True)
    assert session is not None
    kept = session.messages[1]["content"]
    assert [part["tool_use_id"] for part in kept] == [part["tool_use_id"] for part in results]
    assert len([part for part in kept if part in results]) >= 12
