"""Tests of what is stored: in any case what tools and models produce, and early what a reply answers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from agentscope.event import TextBlockDeltaEvent
from agentscope.message import AssistantMsg, Msg, TextBlock, ThinkingBlock, ToolResultBlock, ToolResultState, UserMsg
from agentscope.tool import ToolChunk, Toolkit
from pydantic import BaseModel

from runtimes.agentscope.support import (
    ALLOWED,
    SOON,
    Json,
    Part,
    Speaker,
    Tools,
    call,
    cancel,
    flaws,
    for_ever,
    function,
    image,
    leave,
    logged,
    reach,
    text,
    thought,
    ticks,
    told,
)
from session_history import SessionHistoryService, SqliteSessionHistoryService, StoredMessage
from session_history.errors import LimitExceeded, NotStorable, SessionBusy, Unavailable
from session_history.providers.memory import MemoryProvider
from session_history.records.markers import Marker
from session_history.records.record import MessageRef
from session_history.records.values import flaw_of
from session_history.runtimes.agentscope import FORMAT, SessionHistoryMiddleware, app_middlewares
from session_history.runtimes.agentscope.messages import restored
from session_history.runtimes.agentscope.produced import produced_block, produced_fields
from session_history.turns.recorder import TurnRecorder
from session_history_hooks import Limits
from support import PROGRAMS

CHILD = PROGRAMS / "agentscope_child.py"


class Thing:
    """No value of JSON."""

    def __repr__(self) -> str:
        raise RuntimeError("unreadable")


@dataclass
class Point:
    x: int


class Model(BaseModel):
    when: date


def endless() -> Json:
    value: Json = {}
    value["again"] = value
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


ODD: dict[str, tuple[Any, Any]] = {
    "number of numpy": (np.int64(3), 3),
    "bytes that are no UTF-8": (b"\xff\xfe", "[not stored: bytes, 2 bytes]"),
    "bytes": (b"abc", "[not stored: bytes, 3 bytes]"),
    "exception": (ValueError("no"), "[not stored: ValueError]"),
    "nan": (float("nan"), "nan"),
    "infinity": (float("inf"), "inf"),
    "date": (date(2026, 11, 30), "2026-11-30"),
    "decimal": (Decimal("1.50"), "1.50"),
    "uuid": (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "half a pair": ("a\ud800", "a\ufffd"),
    "tuple": ((1, 2), [1, 2]),
    "keys": ({1: "a"}, {"1": "a"}),
    "set": ({1}, [1]),
    "dataclass": (Point(1), {"x": 1}),
    "type": (int, "[not stored: type]"),
    "function": (deep, "[not stored: function]"),
}
"""Values that a tool may return, and what is stored of them."""

SAFE = {"text": "é", "numbers": [1, 2.5, True, None], "nested": {"a": [{"b": []}]}}


class Odd:
    """A tool that returns a value beside a text that can be stored."""

    def __init__(self, metadata: Any, said: str = "charged 5") -> None:
        self.metadata = metadata
        self.said = said
        self.ran = 0

    async def charge(self) -> ToolChunk:
        """Charges a card."""
        self.ran += 1
        return ToolChunk(content=[TextBlock(text=self.said)], metadata=self.metadata, state=ToolResultState.SUCCESS)

    def toolkit(self) -> Toolkit:
        return Toolkit([function(self.charge, permission=ALLOWED)])


CHARGED = ["q1", "call charge", "success: charged 5", "a1"]


def results(messages: list[Json]) -> list[Json]:
    return [block for message in messages for block in message["content"] if block["type"] == "tool_result"]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[TurnRecorder[Any]]:
    """Return the recorders of all turns."""
    made: list[TurnRecorder[Any]] = []
    init = TurnRecorder.__init__

    def noting(self: TurnRecorder[Any], *args: Any, **kwargs: Any) -> None:
        made.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(TurnRecorder, "__init__", noting)
    return made


@pytest.mark.every_store
class TestResults:
    @pytest.mark.parametrize("name", ODD)
    async def test_value_that_cannot_be_stored_is_marked(
        self,
        service: SessionHistoryService,
        save: str,
        name: str,
        turns: list[TurnRecorder[Any]],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        value, stored = ODD[name]
        odd = Odd({"rows": value, "safe": SAFE})
        speaker = Speaker(service, call("charge"), text("a1"), toolkit=odd.toolkit(), save=save)
        with caplog.at_level(logging.WARNING, logger="session_history"):
            await speaker.say("q1")
        messages = await logged(service)
        assert told(messages) == CHARGED
        assert results(messages)[0]["metadata"] == {"rows": stored, "safe": SAFE}
        (marker,) = turns[-1].turn.markers
        assert marker.path.startswith("messages[1].content[2].metadata.rows")
        warnings = [each.getMessage() for each in caplog.records if each.name == "session_history"]
        assert any(marker.path in warning and marker.type in warning for warning in warnings)
        other = Speaker(service, text("a2"), save=save)
        await other.say("q2")
        assert told(other.seen) == [*CHARGED, "q2"]

    @pytest.mark.parametrize(
        "metadata",
        [endless(), {"rows": deep(200)}, {"rows": Thing()}, {"rows": 2**9000}],
        ids=["endless", "deep", "object", "number"],
    )
    async def test_value_without_end_is_marked(self, service: SessionHistoryService, save: str, metadata: Json) -> None:
        speaker = Speaker(service, call("charge"), text("a1"), toolkit=Odd(metadata).toolkit(), save=save)
        await speaker.say("q1")
        messages = await logged(service)
        assert told(messages) == CHARGED
        assert "not stored" in str(results(messages)[0]["metadata"])

    async def test_result_that_agentscope_cannot_take_is_stored(
        self, service: SessionHistoryService, save: str
    ) -> None:
        """AgentScope raises an error after the tool ran."""
        odd = Odd({3: "keys of the metadata must be text"})
        speaker = Speaker(service, call("charge"), text("a2"), toolkit=odd.toolkit(), save=save)
        with pytest.raises(ExceptionGroup):
            await speaker.say("q1")
        assert told(await logged(service)) == CHARGED[:-1]
        await speaker.say("q2")
        assert told(speaker.seen) == [*CHARGED[:-1], "q2"]

    async def test_text_with_half_a_pair_is_stored(self, service: SessionHistoryService, save: str) -> None:
        """AgentScope cannot count its tokens, so an agent that goes on gets it as it is stored, too."""
        script: list[Part] = [thought("h\ud800", "signed"), text("a \udfff b")]
        speaker = Speaker(service, script, text("a2"), save=save)
        await speaker.say("q1")
        assert told(await logged(service)) == ["q1", "a \ufffd b"]
        await speaker.say("q2")
        assert told(speaker.seen) == ["q1", "a \ufffd b", "q2"]

    async def test_result_with_half_a_pair_is_stored(self, service: SessionHistoryService, save: str) -> None:
        """AgentScope cannot count its tokens, and fails after the tool ran."""
        odd = Odd({}, "charged \ud800")
        speaker = Speaker(service, call("charge"), text("a2"), toolkit=odd.toolkit(), save=save)
        with pytest.raises(ExceptionGroup):
            await speaker.say("q1")
        assert told(await logged(service)) == ["q1", "call charge", "success: charged \ufffd"]
        await speaker.say("q2")
        assert told(speaker.seen) == ["q1", "call charge", "success: charged \ufffd", "q2"]

    async def test_text_that_was_cut_in_half_a_pair_is_stored(self, service: SessionHistoryService, save: str) -> None:
        speaker = Speaker(service, [text("\ud83d\ude00"), for_ever()], save=save)
        await leave(speaker, "q1", lambda event: isinstance(event, TextBlockDeltaEvent))
        await ticks()
        assert told(await logged(service)) == ["q1", "\ufffd"]

    async def test_thought_with_odd_extras_is_stored(self, service: SessionHistoryService, save: str) -> None:
        block = ThinkingBlock.model_validate({"thinking": "Hm.", "signature": "s", "raw": b"\xff", "ids": (1, 2)})
        speaker = Speaker(service, [block, text("a1")], stream=False, save=save)
        await speaker.say("q1")
        (stored,) = [each for each in (await logged(service))[1]["content"] if each["type"] == "thinking"]
        assert (stored["raw"], stored["ids"], stored["signature"]) == ("[not stored: bytes, 1 bytes]", [1, 2], "s")

    async def test_observed_message_with_odd_metadata_is_stored(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = Speaker(service, text("a1"), save=save)
        await speaker.agent.observe(AssistantMsg("saturday", "a note", metadata={"at": np.float64(0.5), "o": Thing()}))
        await speaker.say("q1")
        messages = await logged(service)
        assert told(messages) == ["a note", "q1", "a1"]
        assert messages[0]["metadata"]["o"].startswith("[not stored: ")

    async def test_marked_result_is_not_asked_for_again(self, service: SessionHistoryService, save: str) -> None:
        odd = Odd({"rows": object()})
        speaker = Speaker(service, call("charge"), text("a1"), text("a2"), toolkit=odd.toolkit(), save=save)
        await speaker.say("q1")
        await speaker.say("q2")
        assert told(speaker.seen) == [*CHARGED, "q2"]
        assert odd.ran == 1
        assert await flaws(speaker.seen) == []

    async def test_storable_values_are_stored_as_they_are(
        self, service: SessionHistoryService, save: str, turns: list[TurnRecorder[Any]]
    ) -> None:
        speaker = Speaker(service, call("charge"), text("a1"), toolkit=Odd(SAFE).toolkit(), save=save)
        await speaker.say("q1")
        assert results(await logged(service))[0]["metadata"] == SAFE
        assert turns[-1].turn.markers == []


WRONG = [1, b"\xff", None, Thing(), "\ud800", [], {1: object()}, endless()]


class TestBlocks:
    """Any value in any field of a block is stored so that AgentScope can load it."""

    @pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
    @pytest.mark.parametrize(
        "block",
        [text("a"), thought("a", "s"), call("weather"), image("i"), ToolResultBlock(id="c", name="w", output="o")],
        ids=lambda block: block.type,
    )
    def test_block_with_a_wrong_value_in_any_field_can_be_loaded(self, block: Any, value: Any) -> None:
        for name in type(block).model_fields:
            odd = block.model_copy(deep=True)
            object.__setattr__(odd, name, value)
            stored, markers = produced_block(odd, "messages[0].content[0]")
            assert flaw_of(stored) is None
            assert markers or stored == block.model_dump(mode="json") | {name: value}
            (loaded,) = Msg.model_validate({"name": "f", "role": "assistant", "content": [stored]}).content
            if isinstance(block, ToolResultBlock) and name not in ("id", "type"):
                assert isinstance(loaded, ToolResultBlock)
                assert loaded.id == "c"

    @pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
    def test_message_with_a_wrong_value_in_any_field_can_be_loaded(self, value: Any) -> None:
        for name in Msg.model_fields.keys() - {"content"}:
            odd = AssistantMsg("friday", "a")
            object.__setattr__(odd, name, value)
            stored, _ = produced_fields(odd, "messages[0]")
            assert flaw_of(stored) is None
            Msg.model_validate(stored | {"content": []})

    def test_markers_name_path_and_type(self) -> None:
        block = ToolResultBlock(id="c", name="w", output="o", metadata={"a": [1, {"b": np.int64(3)}]})
        _, markers = produced_block(block, "messages[2].content[4]")
        assert markers == [Marker("messages[2].content[4].metadata.a[1].b", "numpy.int64", "converted")]


def test_message_that_became_one_marker_can_be_loaded() -> None:
    stored = AssistantMsg("friday", "a").model_dump(mode="json") | {"content": "[not stored: dict, too large]"}
    for _ in range(2):
        msg = restored(MessageRef(1, 0), StoredMessage(FORMAT, stored))
        assert [(block.type, block.id) for block in msg.content] == [("text", msg.id)]
        assert msg.get_text_content() == "[not stored: dict, too large]"


class Narrow(MemoryProvider):
    """A store with small entries."""

    @property
    def limits(self) -> Limits:
        return replace(super().limits, entry_bytes=20_000)


@pytest.fixture
async def narrow(save: str) -> Any:
    async with SessionHistoryService(Narrow()) as service:
        yield service


class TestRejected:
    """A refusal does no harm to later turns."""

    @pytest.mark.parametrize("metadata", [{"at": (1, 2)}, {"at": np.int64(1)}, {"at": float("nan")}, {"at": {1: 2}}])
    async def test_input_that_is_not_json_is_refused_with_its_path(
        self, service: SessionHistoryService, save: str, metadata: Json
    ) -> None:
        speaker = Speaker(service, text("a2"), save=save)
        with pytest.raises(NotStorable, match=r"metadata\.at"):
            await speaker.agent.reply(UserMsg("user", "q1", metadata=metadata))
        assert speaker.model.calls == []
        await speaker.say("q2")
        assert told(await logged(service)) == ["q2", "a2"]

    async def test_input_that_is_too_large_is_refused_before_the_model(
        self, narrow: SessionHistoryService, save: str
    ) -> None:
        speaker = Speaker(narrow, text("a2"), save=save)
        with pytest.raises(LimitExceeded):
            await speaker.say("x" * 30_000)
        assert speaker.model.calls == []
        await speaker.say("q2")
        assert told(await logged(narrow)) == ["q2", "a2"]

    @pytest.mark.parametrize("size", [30_000, 3_000_000])
    async def test_result_that_is_too_large_is_marked(
        self, narrow: SessionHistoryService, save: str, size: int
    ) -> None:
        odd = Odd({"rows": "x" * size})
        speaker = Speaker(narrow, call("charge"), text("a1"), text("a2"), toolkit=odd.toolkit(), save=save)
        await speaker.say("q1")
        messages = await logged(narrow)
        assert told(messages) == CHARGED
        assert "too large" in results(messages)[0]["metadata"]["rows"]
        await speaker.say("q2")
        again = Speaker(narrow, text("a3"), save=save)
        await again.say("q3")
        assert told(again.seen) == [*CHARGED, "q2", "a2", "q3"]

    async def test_result_of_many_parts_that_is_too_large_can_be_loaded(
        self, narrow: SessionHistoryService, save: str
    ) -> None:
        tools = Tools()
        script = [call("weather", city=f"{number} {'x' * 900}") for number in range(60)]
        speaker = Speaker(narrow, script, text("a1"), tools=tools, save=save)
        await speaker.say("q1")
        again = Speaker(narrow, text("a2"), save=save)
        await again.say("q2")
        assert await flaws(again.seen) == []
        assert told(again.seen)[0] == "q1"

    async def test_turn_that_the_store_refused_is_not_tried_again(
        self, service: SessionHistoryService, save: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also the first one of a session."""
        speaker = Speaker(service, text("a1"), text("a2"), save=save)
        with monkeypatch.context() as patched:

            async def refuse(*_: Any, **__: Any) -> Any:
                raise LimitExceeded("bytes of an entry", 22_000_000, 16_000_000)

            patched.setattr(service.provider, "append", refuse)
            with pytest.raises(LimitExceeded):
                await speaker.say("too large")
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        assert told(await logged(service))[:1] == ["q2"]


class TestDurable:
    @pytest.mark.every_store
    async def test_input_stands_in_the_store_while_the_model_is_called(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = Speaker(service, for_ever(), text("a2"), save=save, durable=True)
        await speaker.agent.observe(UserMsg("user", "a note"))
        messages: list[Msg] = [UserMsg("user", "q1"), UserMsg("user", [text("q2"), image("i")])]
        stream = speaker.agent.reply_stream(messages)
        await anext(stream)
        assert told(await logged(service)) == ["a note", "q1", "q2", "image"]
        other = Speaker(service, text("b1"), name="saturday")
        await other.say("q3")
        assert told(other.seen) == ["a note", "q1", "q2", "image", "q3"]
        await stream.aclose()

    @pytest.mark.every_store
    async def test_durable_reply_is_one_turn_and_holds_each_message_once(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = Speaker(service, call("weather", city="Rome"), text("a1"), text("a2"), save=save, durable=True)
        question = UserMsg("user", "q1")
        await speaker.agent.reply([question, question])
        await speaker.say("q2")
        session = await service.get_session("u", "s", native=True)
        assert session is not None
        assert told(session.messages) == ["q1", "call weather", "success: sunny in Rome", "a1", "q2", "a2"]
        assert session.turns == 2
        assert session.messages[0] == question.model_dump(mode="json")

    async def test_attachment_is_stored_as_the_agent_took_it(self, service: SessionHistoryService, save: str) -> None:
        speaker = Speaker(service, text("a1"), save=save, durable=True)
        speaker.model.formatter.input_types = ["text/plain"]
        await speaker.agent.reply(UserMsg("user", [image("i")]))
        (said, _) = await logged(service)
        assert [block["type"] for block in said["content"]] == ["text"]

    async def test_input_that_cannot_be_stored_calls_no_model(
        self, service: SessionHistoryService, save: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speaker = Speaker(service, text("never"), save=save, durable=True)

        async def unavailable(*_: Any, **__: Any) -> Any:
            raise Unavailable("the store is away")

        monkeypatch.setattr(service.provider, "append", unavailable)
        with pytest.raises(Unavailable):
            await speaker.say("q1")
        assert speaker.model.calls == []

    @pytest.mark.parametrize("durable", [True, False])
    async def test_killed_process_leaves_the_question(self, tmp_path: Path, save: str, *, durable: bool) -> None:
        path = tmp_path / "history.db"
        self.kill(path, durable=durable)
        expected = ["How is Rome?"] if durable else []
        async with SqliteSessionHistoryService(path) as service:
            assert told(await logged(service) if durable else []) == expected
            speaker = Speaker(service, text("a2"), save=save)
            await speaker.say("q2")
            assert told(speaker.seen) == [*expected, "q2"]
            assert told(await logged(service)) == [*expected, "q2", "a2"]

    def kill(self, path: Path, *, durable: bool) -> None:
        command = [sys.executable, "-W", "error", str(CHILD), str(path), "turn", "first", *["durable"] * durable]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            os.kill(process.pid, signal.SIGKILL)


class TestOptions:
    async def test_second_reply_waits_no_longer_than_its_patience(
        self, service: SessionHistoryService, save: str
    ) -> None:
        first = Speaker(service, for_ever(), save=save, concurrent="queue")
        reply = asyncio.create_task(first.say("q1"))
        await reach(first.model.waiting, reply)
        second = Speaker(service, text("never"), save=save, concurrent="queue", patience=0.1)
        async with asyncio.timeout(SOON):
            with pytest.raises(SessionBusy):
                await second.say("q2")
        assert second.model.calls == []
        await cancel(reply)

    @pytest.mark.parametrize("patience", [-1, float("inf"), "soon"])
    def test_wrong_patience_raises(self, service: SessionHistoryService, patience: Any) -> None:
        with pytest.raises(ValueError, match="patience"):
            SessionHistoryMiddleware(service, user_id="u", patience=patience)
        with pytest.raises(ValueError, match="patience"):
            app_middlewares(service, patience=patience)

    async def test_app_middlewares_are_durable(self, service: SessionHistoryService) -> None:
        made = await app_middlewares(service, durable=True, patience=1)("u", "friday", "s")
        speaker = Speaker(None, for_ever(), middlewares=made)
        stream = speaker.agent.reply_stream(UserMsg("user", "q1"))
        await anext(stream)
        assert told(await logged(service)) == ["q1"]
        await stream.aclose()
