"""A decorated query handler of an unmodified ``AgentApp``, called through its HTTP API."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg
from agentscope_runtime.engine.runner import Runner

from runtimes.agentscope_runtime.suite.serving import Event, Reader, app_of, ask, body, served, stop, texts
from session_history import InMemorySessionHistoryService, SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import InvalidKey
from session_history.records.record import Record, Status
from session_history.runtimes.agentscope_runtime import FORMAT, with_session_history
from session_history.view.shapes import UNKNOWN_OUTCOME
from session_history_hooks import SessionKey
from support import json_lines, same


def said(text: str, msg_id: str = "m1") -> Msg:
    msg = Msg("friday", [{"type": "text", "text": text}], "assistant", timestamp="2026-01-01 00:00:00.000")
    msg.id = msg_id
    return msg


def calling(*call_ids: str) -> Msg:
    uses = [{"type": "tool_use", "id": call_id, "name": "weather", "input": {"city": "Rome"}} for call_id in call_ids]
    return Msg("friday", uses, "assistant")


def result(call_id: str, output: str = "sunny") -> Msg:
    return Msg("system", [{"type": "tool_result", "id": call_id, "name": "weather", "output": output}], "system")


class Handler:
    """Yields what it is given for each request in turn, and remembers what it saw."""

    def __init__(self, *answers: list[Any]) -> None:
        self.seen: list[list[Msg]] = []
        self._answers = iter(answers)

    @property
    def told(self) -> list[list[str]]:
        return [texts(msgs) for msgs in self.seen]

    def decorated(self, service: SessionHistoryService, **options: Any) -> Callable[..., Any]:
        return with_session_history(service, **options)(self.plain())

    def plain(self) -> Callable[..., Any]:
        async def query(runner: Any, msgs: list[Msg], request: Any = None, **_: Any) -> AsyncIterator[Any]:
            self.seen.append(msgs)
            for item in next(self._answers):
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, asyncio.Event):
                    await item.wait()
                else:
                    yield item

        return query


async def records(
    service: SessionHistoryService, user: str = "ada", session: str = "first"
) -> list[tuple[Status | None, list[str]]]:
    """Return status and messages of each turn of the log."""
    key = SessionKey(user, session)
    log = await service.provider.read(key)
    found = [Record.decode(entry.payload, key, seq) for seq, entry in enumerate(log.entries if log else (), 1)]
    assert {message.format for record in found for message in record.messages} <= {FORMAT}
    return [(record.status, texts([Msg.from_dict(m.value) for m in record.messages])) for record in found]


async def native(service: SessionHistoryService) -> list[dict[str, Any]]:
    session = await service.get_session("ada", "first", native=True)
    assert session is not None
    return session.messages


def last(events: list[Event]) -> Event:
    assert events[-1]["object"] == "response"
    return events[-1]


class TestRemembering:
    async def test_second_request_sees_the_first(self, service: SessionHistoryService) -> None:
        handler = Handler([(said("Hel"), False), (said("Hello"), True)], [(said("Again", "m2"), True)])
        async with served(handler.decorated(service)) as client:
            await ask(client, "hi")
            await ask(client, "and again")
        assert handler.told == [["user: hi"], ["user: hi", "friday: Hello", "user: and again"]]
        assert {type(msg) for msg in handler.seen[1]} == {Msg}
        assert [msg.id for msg in handler.seen[1][:2]] == [handler.seen[0][0].id, "m1"]
        assert await records(service) == [
            (Status.COMPLETED, ["user: hi", "friday: Hello"]),
            (Status.COMPLETED, ["user: and again", "friday: Again"]),
        ]

    async def test_a_turn_holds_the_newest_version_of_each_message(self, service: SessionHistoryService) -> None:
        handler = Handler(
            [
                (said("o", "one"), False),
                (said("t", "two"), False),
                (said("one", "one"), True),
                (said("tw", "two"), False),
                (said("three", "three"), True),
                (said("two", "two"), True),
            ]
        )
        async with served(handler.decorated(service)) as client:
            await ask(client, "count")
        expected = ["user: count", "friday: one", "friday: two", "friday: three"]
        assert await records(service) == [(Status.COMPLETED, expected)]

    async def test_a_message_that_grows_in_place_is_kept_as_it_was_yielded(
        self, service: SessionHistoryService
    ) -> None:
        @with_session_history(service)
        async def query(runner: Any, msgs: list[Msg], request: Any = None, **_: Any) -> AsyncIterator[Any]:
            msg = said("")
            for text in ("a", "ab", "abc"):
                msg.content[0]["text"] = text
                yield msg, False
            msg.content[0]["text"] = "never yielded"

        async with served(query) as client:
            await ask(client, "spell")
        assert await records(service) == [(Status.COMPLETED, ["user: spell", "friday: abc"])]

    async def test_users_with_one_session_id_are_apart(self, service: SessionHistoryService) -> None:
        handler = Handler(*([(said(f"answer {n}", f"m{n}"), True)] for n in range(3)))
        async with served(handler.decorated(service)) as client:
            await ask(client, "I am Ada", user="ada", session="same")
            await ask(client, "I am Bob", user="bob", session="same")
            await ask(client, "Who am I?", user="ada", session="same")
        assert handler.told[1:] == [["user: I am Bob"], ["user: I am Ada", "friday: answer 0", "user: Who am I?"]]

    async def test_ids_that_a_request_lacks_are_the_runtimes_own(self, service: SessionHistoryService) -> None:
        handler = Handler(*([(said("yes", f"m{n}"), True)] for n in range(3)))
        async with served(handler.decorated(service)) as client:
            begun = last(await ask(client, "begin", user=None, session=None))["session_id"]
            await ask(client, "another", user=None, session=None)
            await ask(client, "go on", user=None, session=begun)
        assert handler.told[1:] == [["user: another"], ["user: begin", "friday: yes", "user: go on"]]
        assert len(await records(service, begun, begun)) == 2

    async def test_handler_with_last_turns_gets_a_window(self, service: SessionHistoryService) -> None:
        handler = Handler(*([(said(f"a{n}", f"m{n}"), True)] for n in range(3)))
        async with served(handler.decorated(service, last_turns=1)) as client:
            for n in range(3):
                await ask(client, f"q{n}")
        assert handler.told[2] == ["user: q1", "friday: a1", "user: q2"]

    async def test_another_app_on_the_same_file_continues(self, tmp_path: Path) -> None:
        for expected in (["user: hi"], ["user: hi", "friday: Hello", "user: hi"]):
            handler = Handler([(said("Hello"), True)])
            async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
                async with served(handler.decorated(service)) as client:
                    await ask(client, "hi")
            assert handler.told == [expected]

    async def test_messages_of_ours_are_shown_as_the_runtime_reads_them(self, service: SessionHistoryService) -> None:
        session = await service.create_session("ada", "first")
        data = {"call_id": "c", "name": "weather", "arguments": '{"city": "Rome"}'}
        call = {"type": "plugin_call", "role": "assistant", "content": [{"type": "data", "data": data}]}
        await service.append_message(session, [{"role": "system", "content": "Be kind."}, call])
        handler = Handler([(said("Hello"), True)])
        async with served(handler.decorated(service)) as client:
            assert last(await ask(client, "hi"))["status"] == "completed"
        system, use, made_up, new = handler.seen[0]
        assert texts([system, new]) == ["system: Be kind.", "user: hi"]
        assert use.content == [{"type": "tool_use", "id": "c", "name": "weather", "input": {"city": "Rome"}}]
        assert made_up.content[0]["output"] == UNKNOWN_OUTCOME

    async def test_a_session_of_the_removed_service_goes_on(self, service: SessionHistoryService) -> None:
        """Its messages, nulls included, with two calls at once, of which the second one has no result."""
        session = await service.create_session("ada", "first")
        nothing = {"sequence_number": None, "error": None, "code": None, "usage": None, "metadata": None}
        blank = {"object": "content", "status": None, "error": None, "index": None, "delta": False, "msg_id": None}

        def old(kind: str, role: str, **content: Any) -> dict[str, Any]:
            return {"id": f"msg_{kind}", "type": kind, "role": role, **nothing, "content": [{**blank, **content}]}

        def data(**data: Any) -> dict[str, Any]:
            return {"type": "data", "data": {"name": "weather", **data}}

        await service.append_message(
            session,
            [
                old("message", "user", type="text", text="Rome and Oslo?"),
                old("reasoning", "assistant", type="text", text="hm"),
                old("plugin_call", "assistant", **data(call_id="a", arguments='{"city": "Rome", "day": null}')),
                old("plugin_call", "assistant", **data(call_id="b", arguments={"city": "Oslo", "day": None})),
                old("plugin_call_output", "system", **data(call_id="a", output="sunny")),
            ],
        )
        handler = Handler([(said("Hello"), True)])
        async with served(handler.decorated(service)) as client:
            await ask(client, "and?")
        asked, thought, first, sunny, second, unknown, _ = (msg.content[0] for msg in handler.seen[0])
        assert asked == {"type": "text", "text": "Rome and Oslo?"}
        assert thought == {"type": "thinking", "thinking": "hm"}
        assert (first["id"], first["input"]) == ("a", {"city": "Rome", "day": None})
        assert (second["id"], second["input"]) == ("b", {"city": "Oslo", "day": None})
        assert (sunny["id"], sunny["output"]) == ("a", "sunny")
        assert (unknown["id"], unknown["output"]) == ("b", UNKNOWN_OUTCOME)
        assert [message["role"] for message in await OpenAIChatFormatter().format(handler.seen[0])] == [
            *("user", "assistant", "tool", "assistant", "tool", "user")
        ]

    async def test_messages_unknown_to_the_runtime_are_shown_as_text(self, service: SessionHistoryService) -> None:
        session = await service.create_session("ada", "first")
        await service.append_message(session, {"role": "narrator", "content": "Once upon a time"})
        session = await service.get_session("ada", "first", native=True)
        assert session is not None
        others = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": []}]
        await service.append_message(session, others)
        handler = Handler([(said("Hello"), True)])
        async with served(handler.decorated(service)) as client:
            assert last(await ask(client, "hi"))["status"] == "completed"
        assert texts(handler.seen[0]) == [
            "narrator: Once upon a time",
            "user: hi",
            'assistant: {"role":"assistant","content":null,"tool_calls":[]}',
            "user: hi",
        ]
        assert [msg.role for msg in handler.seen[0]] == ["assistant", "user", "assistant", "user"]


class TestVerbatim:
    async def test_messages_of_the_corpus_come_back_equal(self, service: SessionHistoryService, shared: Path) -> None:
        rows = [
            row["messages"]
            for row in json_lines(shared / "data/agentscope-msgs/sessions.jsonl")
            if row["format"] == "agentscope.msg.v1"
        ]
        assert len(rows) >= 5
        for number, values in enumerate(rows):
            mine = {"session": f"s{number}"}
            handler = Handler([(Msg.from_dict(value), True) for value in values], [])
            async with served(handler.decorated(service)) as client:
                await ask(client, "hi", **mine)
                await ask(client, "again", **mine)
            assert same([msg.to_dict() for msg in handler.seen[1][1:-1]], values)
            session = await service.get_session("ada", f"s{number}", native=True)
            assert session is not None
            assert same(session.messages[1:-1], values)

    async def test_every_attribute_of_a_message_comes_back(self, service: SessionHistoryService) -> None:
        msg = Msg("friday", "plain", "assistant", {"a": [1, None]}, invocation_id="call 7")
        msg.usage = {"input_tokens": 3}
        bare = Msg("friday", "bare", "assistant", timestamp="t")
        bare.metadata = None  # as ReActAgent does
        bare.id = bare.timestamp = ""
        handler = Handler([(msg, True), (bare, True)], [])
        async with served(handler.decorated(service)) as client:
            await ask(client, "hi")
            await ask(client, "again")
        _, first, second, _ = handler.seen[1]
        assert vars(first) == vars(msg)
        assert vars(second) == vars(bare)

    async def test_the_handler_may_change_what_it_gets(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def query(runner: Any, msgs: list[Msg], request: Any = None, **_: Any) -> AsyncIterator[Any]:
            seen.append(texts(msgs))
            for msg in msgs:
                msg.content[0]["text"] = "changed"
            yield said("yes", f"m{len(msgs)}"), True

        seen: list[list[str]] = []
        async with served(query) as client:
            await ask(client, "one")
            await ask(client, "two")
        assert seen == [["user: one"], ["user: one", "friday: yes", "user: two"]]

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), "\ud800"])
    async def test_message_that_cannot_be_stored_as_it_is_is_stored_with_a_marker(
        self, service: SessionHistoryService, value: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = said("Hello", "m2")
        answer.metadata = {"value": value}
        async with served(Handler([(said("one"), True), (answer, True)]).decorated(service)) as client:
            await ask(client, "hi")  # the runtime itself may fail to hand the value on
        ((status, told),) = await records(service)
        assert status in {Status.COMPLETED, Status.INTERRUPTED}
        assert told == ["user: hi", "friday: one", "friday: Hello"]
        assert "messages[2].metadata.value" in caplog.text

    @pytest.mark.parametrize("item", ["text", (), ("text", True), said("bare")])
    async def test_answer_of_another_shape_is_refused(self, service: SessionHistoryService, item: Any) -> None:
        async with served(Handler([item]).decorated(service)) as client:
            failed = last(await ask(client, "hi"))
        assert failed["status"] == "failed"
        assert "the handler's answer must be" in failed["error"]["message"]


class TestCallers:
    STREAM = (
        (said("H"), False),
        (said("Hello"), False),
        (said("Hello"), True),
        (Msg("friday", [{"type": "thinking", "thinking": "hm"}, *calling("c").content], "assistant"), True),
        (result("c"), False),
        (result("c", "very sunny"), True),
        (said("Sunny.", "m2"), True),
    )

    @pytest.mark.parametrize("ending", [[], [RuntimeError("the model is down")]])
    async def test_the_events_are_those_without_the_decorator(
        self, service: SessionHistoryService, ending: list[Any]
    ) -> None:
        streams = []
        for handler in (
            Handler([*self.STREAM, *ending]).plain(),
            Handler([*self.STREAM, *ending]).decorated(service),
        ):
            async with served(handler) as client:
                streams.append(anonymous(await ask(client, "hi")))
        assert streams[0] == streams[1]
        assert len(streams[0]) > 15

    async def test_the_other_protocols_of_the_app(self, service: SessionHistoryService) -> None:
        handler = Handler([(said("Hello"), True)])
        async with served(handler.decorated(service)) as client:
            request = {"model": "any", "input": "hi", "stream": True}
            answer = await client.post("/compatible-mode/v1/responses", json=request)
            assert "Hello" in answer.text
        assert handler.told == [["user: hi"]]

    async def test_arguments_that_the_app_injects(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def query(
            runner: Any, msgs: list[Msg], response: Any, request: Any = None, **_: Any
        ) -> AsyncIterator[Any]:
            """Docs of the handler."""
            seen.append((runner, response.session_id, request.session_id))
            yield said("yes"), True

        seen: list[Any] = []
        assert inspect.isasyncgenfunction(query)
        assert query.__doc__ == "Docs of the handler."
        assert list(inspect.signature(query).parameters) == ["runner", "msgs", "response", "request", "_"]
        async with served(query) as client:
            await ask(client, "hi")
        assert [(isinstance(runner, Runner), *ids) for runner, *ids in seen] == [(True, "first", "first")]


def anonymous(events: list[Event]) -> list[Event]:
    """Events without times, and with ids that the runtime makes up counted in their order."""
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        return names.setdefault(match.group(), f"id {len(names)}")

    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name, json.dumps(events))
    return json.loads(re.sub(r'("(?:created|completed)_at":) \d+', r"\1 0", text))


class TestEnding:
    async def test_handler_error_is_a_failed_turn(self, service: SessionHistoryService) -> None:
        handler = Handler([(said("Hel"), False), RuntimeError("the model is down")], [(said("Hello", "m2"), True)])
        async with served(handler.decorated(service)) as client:
            failed = last(await ask(client, "hi"))
            await ask(client, "hi again")
        assert failed["status"] == "failed"
        assert "the model is down" in failed["error"]["message"]
        assert handler.told[1] == ["user: hi again"]
        assert (await records(service))[0] == (Status.FAILED, ["user: hi", "friday: Hel"])

    async def test_client_that_leaves_interrupts_the_turn(self, service: SessionHistoryService) -> None:
        handler = Handler([(said("Hel"), False), asyncio.Event()], [(said("Yes", "m2"), True)])
        app = app_of(handler.decorated(service))
        async with app.router.lifespan_context(app):
            reader = Reader(app, body("hi"))
            await reader.read_until("Hel")
            await reader.leave()
            assert await records(service) == [(Status.INTERRUPTED, ["user: hi", "friday: Hel"])]
            await Reader(app, body("still there?")).end()
        assert handler.told[1] == ["user: hi", "friday: Hel", "user: still there?"]

    async def test_stop_of_the_runtime_interrupts_the_turn(self, service: SessionHistoryService) -> None:
        handler = Handler([(said("Hel"), False), asyncio.Event()], [(said("Yes", "m2"), True)])
        app = app_of(handler.decorated(service))
        async with app.router.lifespan_context(app):
            reader = Reader(app, body("hi"))
            await reader.read_until("Hel")
            await stop(app)
            await reader.end()
            assert await records(service) == [(Status.INTERRUPTED, ["user: hi", "friday: Hel"])]
            await Reader(app, body("still there?")).end()
        assert handler.told[1] == ["user: hi", "friday: Hel", "user: still there?"]

    async def test_stop_before_the_first_message_keeps_the_input(self, service: SessionHistoryService) -> None:
        started = asyncio.Event()

        @with_session_history(service)
        async def query(runner: Any, msgs: list[Msg], request: Any = None, **_: Any) -> AsyncIterator[Any]:
            started.set()
            await asyncio.Event().wait()
            yield said("never"), True

        app = app_of(query)
        async with app.router.lifespan_context(app):
            reader = Reader(app, body("hi"))
            await started.wait()
            await stop(app)
            await reader.end()
        assert await records(service) == [(Status.INTERRUPTED, ["user: hi"])]

    async def test_consumer_that_leaves_early_interrupts_the_turn(self, service: SessionHistoryService) -> None:
        closed = []

        @with_session_history(service)
        async def query(runner: Any, msgs: list[Msg], request: Any = None, **_: Any) -> AsyncIterator[Any]:
            try:
                yield said("Hel"), False
                yield said("Hello"), True
            finally:
                closed.append(True)

        request = SimpleNamespace(user_id="ada", session_id="first")
        async with aclosing(query(None, msgs=[Msg("user", "hi", "user")], request=request)) as items:
            async for _ in items:
                break
        assert closed == [True]
        assert await records(service) == [(Status.INTERRUPTED, ["user: hi", "friday: Hel"])]

    async def test_stop_of_the_service_interrupts_the_turn(self, tmp_path: Path) -> None:
        service = SqliteSessionHistoryService(tmp_path / "history.db")
        more = asyncio.Event()
        app = app_of(Handler([(said("Hel"), False), more, (said("Hello"), True)]).decorated(service))
        async with app.router.lifespan_context(app):
            reader = Reader(app, body("hi"))
            await reader.read_until("Hel")
            await service.stop()
            more.set()
            await reader.end()
        assert "stopped during the turn" in reader.text
        assert "Hello" not in reader.text
        async with service:
            assert await records(service) == [(Status.INTERRUPTED, ["user: hi", "friday: Hel"])]

    async def test_request_in_a_deleted_session_fails(self, service: SessionHistoryService) -> None:
        await service.create_session("ada", "first")
        await service.delete_session("ada", "first")
        handler = Handler([])
        async with served(handler.decorated(service)) as client:
            failed = last(await ask(client, "hi"))
        assert failed["status"] == "failed"
        assert "was deleted" in failed["error"]["message"]
        assert handler.seen == []

    @pytest.mark.parametrize("request_", [None, SimpleNamespace(user_id=None, session_id="s")])
    async def test_request_without_a_user_fails(self, service: SessionHistoryService, request_: Any) -> None:
        query = Handler([]).decorated(service)
        with pytest.raises(InvalidKey):
            await anext(query(None, msgs=[], request=request_))


class TestToolCalls:
    async def test_call_without_a_result_gets_one(self, service: SessionHistoryService) -> None:
        call = calling("a", "b")
        handler = Handler(
            [(call, True), (result("a"), True), asyncio.Event()],
            [(said("Sorry"), True)],
            [],
        )
        app = app_of(handler.decorated(service))
        async with app.router.lifespan_context(app):
            reader = Reader(app, body("weather?"))
            await reader.read_until("sunny")
            await reader.leave()
            await Reader(app, body("go on")).end()
            await Reader(app, body("and on")).end()
        _, asked, known, unknown, new = handler.seen[1]
        assert (asked.id, asked.content) == (call.id, call.content)
        assert known.content[0]["output"] == "sunny"
        assert (unknown.role, unknown.name) == ("system", "system")
        assert unknown.content == [{"type": "tool_result", "id": "b", "name": "weather", "output": UNKNOWN_OUTCOME}]
        assert texts([new]) == ["user: go on"]
        assert [vars(msg) for msg in handler.seen[2][:4]] == [vars(msg) for msg in handler.seen[1][:4]]
        assert [message["role"] for message in await OpenAIChatFormatter().format(handler.seen[2])] == [
            *("user", "assistant", "tool", "tool", "user", "assistant", "user")
        ]
        assert [message["role"] for message in await native(service)][:4] == ["user", "assistant", "system", "user"]

    async def test_result_sent_by_the_client_reaches_its_call(self, service: SessionHistoryService) -> None:
        handler = Handler([(calling("a"), True)], [(said("Sunny"), True)])
        output = [{"type": "data", "data": {"call_id": "a", "name": "weather", "output": "sunny"}}]
        sent = {"role": "tool", "type": "plugin_call_output", "content": output}
        async with served(handler.decorated(service)) as client:
            await ask(client, "weather?")
            await client.post("/process", json={**body(""), "input": [sent]})
        asked = handler.seen[1]
        assert [[block["type"] for block in msg.content] for msg in asked] == [["text"], ["tool_use"], ["tool_result"]]
        assert asked[2].content[0]["output"] == "sunny"

    async def test_a_failed_turn_in_which_a_tool_did_something_is_shown(self, service: SessionHistoryService) -> None:
        handler = Handler(
            [(calling("a"), True), (result("a", "booked"), True), (calling("b"), True), RuntimeError("down")],
            [(said("Done"), True)],
        )
        async with served(handler.decorated(service)) as client:
            await ask(client, "book two")
            await ask(client, "and?")
        outputs = [block.get("output") for msg in handler.seen[1] for block in msg.content]
        assert outputs == [None, None, "booked", None, UNKNOWN_OUTCOME, None]


class TestDecorating:
    def test_decoration_of_another_function_raises_type_error(self) -> None:
        async def coroutine(runner: Any, msgs: Any, request: Any) -> None: ...
        def generator(runner: Any, msgs: Any, request: Any) -> Any:
            yield

        for handler in (coroutine, generator, staticmethod(Handler([]).plain()), 5):
            with pytest.raises(TypeError, match="not an async generator function"):
                with_session_history(InMemorySessionHistoryService())(handler)  # type: ignore[type-var]

    def test_decoration_without_parentheses_raises_type_error(self) -> None:
        with pytest.raises(TypeError, match="with the parentheses"):
            with_session_history(Handler([]).plain())  # type: ignore[arg-type]

    def test_decoration_with_a_wrong_window_raises_value_error(self) -> None:
        with pytest.raises(ValueError, match="last_turns"):
            with_session_history(last_turns=-1)
