"""A decorated handler: how it is called, what it gets, what is kept."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from session_history import (
    Identity,
    Message,
    SessionHistoryService,
    TextContent,
    Turn,
    configured_service,
    with_session_history,
)
from session_history.configured import _configured_service
from session_history.errors import ConfigurationError, InvalidKey, InvalidMessage, SessionDeleted, TurnIdReused

HERE = {"user_id": "u", "session_id": "s"}


async def recorded(service: SessionHistoryService) -> list[str]:
    session = await service.get_session("u", "s")
    assert session is not None
    return [f"{message.role}: {message.text}" for message in session.messages]


async def native(service: SessionHistoryService) -> list[dict[str, Any]]:
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    return session.messages


class TestAnswering:
    async def test_history_and_input_come_first(self, service: SessionHistoryService) -> None:
        seen = []

        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            seen.append([message.text for message in messages])
            return f"answer {len(seen)}"

        assert await handler("one", **HERE) == "answer 1"
        assert await handler("two", **HERE) == "answer 2"
        assert seen == [["one"], ["one", "answer 1", "two"]]
        assert await recorded(service) == ["user: one", "assistant: answer 1", "user: two", "assistant: answer 2"]

    @pytest.mark.parametrize(
        "new",
        [
            "hi",
            {"role": "user", "content": "hi"},
            Message(role="user", content=[TextContent(text="hi")]),
            [{"role": "system", "content": "be kind"}, Message(role="user", content="hi")],
        ],
    )
    async def test_input_of_every_kind_becomes_messages(self, service: SessionHistoryService, new: Any) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> None:
            assert all(type(message) is Message for message in messages)
            assert messages[-1].text == "hi"

        await handler(new, **HERE)
        assert (await recorded(service))[-1] == "user: hi"

    @pytest.mark.parametrize(
        "answer",
        [
            None,
            "",
            "text",
            {"role": "assistant", "content": "dict", "extra": 1},
            Message(role="assistant", content="message", metadata={"a": 1}),
            [],
            ["text", {"role": "tool", "content": "x"}, Message(role="assistant", content="y"), None, ["z"]],
        ],
    )
    async def test_an_answer_passes_unchanged_and_repeats_in_its_shape(
        self, service: SessionHistoryService, answer: Any
    ) -> None:
        calls = []

        @with_session_history(service)
        async def handler(messages: list[Message], turn: Turn) -> Any:
            calls.append(len(messages))
            turn.add({"role": "tool", "content": "looked up"})
            return answer

        assert await handler("q", **HERE, turn_id="t") is answer
        before = await native(service)
        again = await handler("q", **HERE, turn_id="t")
        assert (type(again), again) == (type(answer), answer)
        assert calls == [1]
        assert await native(service) == before

    @pytest.mark.parametrize("answer", [5, (5, True), b"bytes", object(), [[5]], {"content": "no role"}])
    async def test_another_answer_is_an_error_and_a_failed_turn(
        self, service: SessionHistoryService, answer: Any
    ) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> Any:
            return answer

        with pytest.raises(InvalidMessage):
            await handler("q", **HERE)
        assert await recorded(service) == ["user: q"]
        async with service.turn("u", "s") as turn:
            assert turn.history == []

    async def test_an_error_passes_and_the_input_is_kept(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            if len(messages) == 1 and not working:
                raise ZeroDivisionError
            return "fine"

        working = False
        with pytest.raises(ZeroDivisionError):
            await handler("q", **HERE, turn_id="t")
        assert await recorded(service) == ["user: q"]
        working = True
        assert await handler("q", **HERE, turn_id="t") == "fine"

    async def test_a_handler_may_change_what_it_gets(self, service: SessionHistoryService) -> None:
        @with_session_history(service, native=True)
        async def handler(messages: list[dict[str, Any]], turn: Turn[dict[str, Any]]) -> str:
            messages[-1]["parts"].append("changed")
            turn.add({"role": "tool", "parts": []})
            turn.messages[-1]["parts"].append("changed")
            return "a"

        await handler({"role": "user", "parts": ["said"]}, **HERE, turn_id="t")
        assert [message.get("parts") for message in await native(service)] == [["said"], [], None]

    async def test_native_handler_gets_and_returns_dicts(self, service: SessionHistoryService) -> None:
        @with_session_history(service, native=True)
        async def handler(messages: list[dict[str, Any]]) -> dict[str, Any] | str:
            if len(messages) > 1:
                assert messages == [{"strange": 1}, {"stranger": 2.0}, {"role": "user", "content": "text"}]
                return "and text"
            return {"stranger": 2.0}

        assert await handler({"strange": 1}, **HERE) == {"stranger": 2.0}
        assert await handler("text", **HERE, turn_id="t") == await handler("text", **HERE, turn_id="t") == "and text"
        assert (await native(service))[-2:] == [
            {"role": "user", "content": "text"},
            {"role": "assistant", "content": "and text"},
        ]

    async def test_other_arguments_and_names(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(
            messages: list[Message],
            style: str,
            *more: int,
            turn: Turn,
            user_id: str,
            turn_id: str,
            loud: bool = False,
            **rest: int,
        ) -> str:
            assert turn.id == turn_id
            return f"{style} {more} {user_id} {loud} {rest}"

        assert await handler("q", "plain", 1, 2, **HERE, turn_id="t", loud=True, z=3) == "plain (1, 2) u True {'z': 3}"

    async def test_names_are_filled_also_if_the_call_leaves_them_out(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message], turn_id: str | None, turn: Turn, *more: int) -> str:
            return f"{turn_id} {turn.session_id} {more}"

        assert await handler("q", 1, 2, **HERE) == "None s (1, 2)"
        assert await handler("q", 1, 2, **HERE, turn_id="t") == "t s (1, 2)"

    async def test_a_second_parameter_may_be_called_input(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message], input: str) -> str:  # noqa: A002 - the point
            return input

        assert [await handler("q", "x", **HERE), await handler("q", input="y", **HERE)] == ["x", "y"]

    async def test_decorated_method_gets_self(self, service: SessionHistoryService) -> None:
        class Agent:
            name = "Bob"

            @with_session_history(service)
            async def answer(self, messages: list[Message]) -> str:
                return f"{self.name}: {messages[-1].text}"

            @with_session_history(service)
            async def stream(self, messages: list[Message]) -> AsyncIterator[str]:
                yield self.name

            @classmethod
            @with_session_history(service)
            async def of_class(cls, messages: list[Message]) -> str:
                return cls.name

            @staticmethod
            @with_session_history(service)
            async def of_nobody(messages: list[Message]) -> str:
                return "nobody"

        agent = Agent()
        assert await agent.answer("q", **HERE) == "Bob: q"
        assert [piece async for piece in agent.stream("q", **HERE)] == ["Bob"]
        assert await agent.of_class("q", **HERE) == "Bob"  # type: ignore[arg-type] # no descriptor can say this
        assert await agent.of_nobody("q", **HERE) == "nobody"

    async def test_handler_with_last_turns_gets_a_window(self, service: SessionHistoryService) -> None:
        @with_session_history(service, last_turns=2)
        async def handler(messages: list[Message]) -> str:
            return str(len(messages))

        assert [await handler("q", **HERE) for _ in range(7)] == ["1", "3", "5", "5", "5", "5", "5"]

    async def test_call_with_wrong_arguments_raises_type_error(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            pytest.fail("the handler was called")

        call: Any = handler
        calls: list[Any] = [
            ((), HERE),
            (("q",), {}),
            (("q",), {"user_id": "u"}),
            (("q", 1), HERE),
            (("q",), {**HERE, "x": 1}),
        ]
        for arguments, keywords in calls:
            with pytest.raises(TypeError, match=r"^handler\(\): "):
                await call(*arguments, **keywords)
        flaws: list[tuple[Any, str]] = [
            (5, "the input must be text, a Message, a dict or a list of them, not int"),
            (None, "not NoneType"),
            (b"q", "not bytes"),
            ([5], r"messages\[0\] must be a Message or a dict, not int"),
            ({"content": "no role"}, "role"),
            ({"role": "user", "content": 5}, "content must be text or a list of parts"),
        ]
        for bad, flaw in flaws:
            with pytest.raises(InvalidMessage, match=flaw):
                await call(bad, **HERE)
        with pytest.raises(InvalidKey):
            await call("q", user_id="", session_id="s")
        assert await recorded(service) == []

    async def test_call_in_a_deleted_session_raises_session_deleted(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            pytest.fail("the handler was called")

        await service.create_session("u", "s")
        await service.delete_session("u", "s")
        with pytest.raises(SessionDeleted):
            await handler("q", **HERE)


class TestTurnId:
    async def test_repeat_with_another_input_raises_turn_id_reused(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            return "a"

        await handler("q", **HERE, turn_id="t")
        others: list[Any] = ["Q", {"role": "system", "content": "q"}, [{"role": "user", "content": "q"}] * 2]
        for other in others:
            with pytest.raises(TurnIdReused):
                await handler(other, **HERE, turn_id="t")
        assert await recorded(service) == ["user: q", "assistant: a"]

    async def test_of_two_at_once_both_get_the_one_that_was_stored(self, service: SessionHistoryService) -> None:
        answers = iter("abcdef")

        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            answer = next(answers)
            await asyncio.sleep(0.01)
            return answer

        got = await asyncio.gather(*(handler("q", **HERE, turn_id="t") for _ in range(6)))
        assert len(set(got)) == 1
        assert await recorded(service) == ["user: q", f"assistant: {got[0]}"]

    async def test_a_turn_that_a_bare_turn_recorded_has_no_answer(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> str:
            return "a"

        async with service.turn("u", "s", turn_id="t") as turn:
            turn.add({"role": "user", "content": "q"})
        with pytest.raises(TurnIdReused):
            await handler("q", **HERE, turn_id="t")


class TestStreaming:
    async def test_pieces_pass_and_become_messages(self, service: SessionHistoryService) -> None:
        tool = {"role": "tool", "content": "x"}

        @with_session_history(service)
        async def handler(messages: list[Message]) -> AsyncIterator[Any]:
            yield "He"
            yield "llo"
            yield tool
            yield "!"
            yield None

        items = [item async for item in handler("q", **HERE, turn_id="t")]
        assert items == ["He", "llo", tool, "!", None]
        assert items[2] is tool
        assert await recorded(service) == ["user: q", "assistant: Hello", "tool: x", "assistant: !"]
        assert [item async for item in handler("q", **HERE, turn_id="t")] == ["Hello", tool, "!", None]

    async def test_message_added_during_a_stream_stands_where_it_was_added(
        self, service: SessionHistoryService
    ) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message], turn: Turn) -> AsyncIterator[str]:
            yield "Let me "
            yield "look."
            turn.add({"role": "tool", "content": "found"})
            yield "Done."

        assert [item async for item in handler("q", **HERE, turn_id="t")] == ["Let me ", "look.", "Done."]
        assert await recorded(service) == ["user: q", "assistant: Let me look.", "tool: found", "assistant: Done."]
        assert [item async for item in handler("q", **HERE, turn_id="t")] == ["Let me look.", "Done."]

    async def test_stream_without_pieces_stores_the_input(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> AsyncIterator[str]:
            return
            yield

        assert [item async for item in handler("q", **HERE, turn_id="t")] == []
        assert [item async for item in handler("q", **HERE, turn_id="t")] == []
        assert await recorded(service) == ["user: q"]

    @pytest.mark.every_store
    async def test_message_that_a_handler_adds_when_its_stream_is_left_is_stored(
        self, service: SessionHistoryService
    ) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message], turn: Turn) -> AsyncIterator[str]:
            try:
                yield "Once upon "
                yield "a time"
            finally:
                turn.add({"role": "assistant", "content": "The file is written."})

        stream: AsyncGenerator[str, None] = handler("q", **HERE)
        assert await anext(stream) == "Once upon "
        await stream.aclose()
        assert await recorded(service) == ["user: q", "assistant: Once upon ", "assistant: The file is written."]

    @pytest.mark.parametrize("way", ["aclose", "break and collect", "cancel", "throw"])
    async def test_stream_left_by_its_consumer_is_interrupted(self, service: SessionHistoryService, way: str) -> None:
        closed = []

        @with_session_history(service)
        async def handler(messages: list[Message]) -> AsyncIterator[str]:
            try:
                yield "Once upon "
                yield "a time"
                await asyncio.sleep(60)
            finally:
                closed.append(True)

        async def consume() -> None:
            stream: AsyncGenerator[str, None] = handler("q", **HERE)
            async for piece in stream:
                if piece == "a time":
                    if way == "aclose":
                        await stream.aclose()
                    elif way == "throw":
                        with pytest.raises(GeneratorExit):
                            await stream.athrow(GeneratorExit)
                    elif way == "cancel":
                        continue
                    return

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.2)
        if way == "cancel":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gc.collect()
        for _ in range(200):
            if closed and len(await recorded(service)) == 2:
                break
            await asyncio.sleep(0.01)
        assert closed == [True]
        assert await recorded(service) == ["user: q", "assistant: Once upon a time"]
        async with service.turn("u", "s") as turn:
            assert len(turn.history) == 2

    async def test_stream_with_an_error_is_a_failed_turn(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message]) -> AsyncIterator[str]:
            yield "half"
            raise ZeroDivisionError

        got = []
        with pytest.raises(ZeroDivisionError):
            async for piece in handler("q", **HERE):
                got.append(piece)
        assert got == ["half"]
        assert await recorded(service) == ["user: q", "assistant: half"]
        async with service.turn("u", "s") as turn:
            assert turn.history == []

    async def test_stream_with_a_wrong_piece_raises_invalid_message(self, service: SessionHistoryService) -> None:
        for bad in (5, b"bytes"):

            @with_session_history(service)
            async def handler(messages: list[Message], bad: Any = bad) -> AsyncIterator[Any]:
                yield "fine"
                yield bad

            with pytest.raises(ValueError, match=r"handler's answer"):
                [item async for item in handler("q", **HERE)]


@dataclass
class Request:
    who: str
    where: str
    text: str
    id: str | None = None


class TestIdentify:
    async def test_identify_reads_a_request(self, service: SessionHistoryService) -> None:
        @with_session_history(service, identify=lambda request: Identity(request.who, request.where, request.text))
        async def handler(messages: list[Message]) -> str:
            return messages[-1].text.upper()

        assert await handler(Request("u", "s", "hi")) == "HI"
        assert await recorded(service) == ["user: hi", "assistant: HI"]

    async def test_the_handler_may_have_the_request_and_the_rest(self, service: SessionHistoryService) -> None:
        def identify(request: Request, *, loud: bool = False) -> tuple[str, str, str, str | None]:
            return request.who, request.where, request.text, request.id

        @with_session_history(service, identify=identify)
        async def handler(messages: list[Message], turn: Turn, request: Request, *, loud: bool) -> AsyncIterator[str]:
            yield f"{request.id} {turn.id} {loud}"

        asked = Request("u", "s", "hi", "t")
        assert [item async for item in handler(asked, loud=True)] == ["t t True"]
        assert [item async for item in handler(asked, loud=False)] == ["t t True"]

    async def test_the_request_and_the_identity_beside_other_arguments(self, service: SessionHistoryService) -> None:
        @with_session_history(service, identify=lambda request, extra: Identity(request.who, request.where, "hi", "t"))
        async def handler(messages: list[Message], request: Request, user_id: str, extra: int, turn_id: str) -> str:
            return f"{request.text} {user_id} {extra} {turn_id}"

        assert await handler(Request("u", "s", "x"), 5) == "x u 5 t"

    @pytest.mark.parametrize("found", [None, {}, ("u", "s"), ("u", "s", "hi", None, 5), ["u", "s", "hi"]])
    async def test_identify_with_a_wrong_result_raises_type_error(
        self, service: SessionHistoryService, found: Any
    ) -> None:
        @with_session_history(service, identify=lambda request: found)
        async def handler(messages: list[Message]) -> str:
            pytest.fail("the handler was called")

        with pytest.raises(TypeError, match="must return an Identity"):
            await handler("request")

    @pytest.mark.parametrize("name", ["user_id", "session_id", "turn_id", "turn"])
    async def test_keyword_in_place_of_what_identify_says_is_refused(
        self, service: SessionHistoryService, name: str
    ) -> None:
        async def declares(
            messages: list[Message], user_id: str, session_id: str, turn_id: str | None = None, turn: Any = None
        ) -> str:
            return f"{user_id} {session_id} {turn_id} {turn.user_id}"

        async def takes_all(messages: list[Message], **extra: Any) -> str:
            return str(extra)

        for handler in (declares, takes_all):
            decorate: Any = with_session_history(service, identify=lambda request: Identity("u", "s", request))
            decorated = decorate(handler)
            with pytest.raises(TypeError, match=f"'{name}' is filled in by the decorator"):
                await decorated("q", **{name: "victim"})
            assert "victim" not in await decorated("q")

    async def test_keyword_for_identify_does_not_reach_the_handler(self, service: SessionHistoryService) -> None:
        def identify(request: str, *, session_id: str, **_: Any) -> Identity:
            return Identity("u", f"checked {session_id}", request)

        @with_session_history(service, identify=identify)
        async def handler(messages: list[Message], session_id: str, **extra: Any) -> str:
            return f"{session_id} {extra}"

        assert await handler("q", session_id="s", loud=True) == "checked s {'loud': True}"

    async def test_forged_turn_is_refused(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def handler(messages: list[Message], **extra: Any) -> str:
            return str(extra)

        with pytest.raises(TypeError, match="'turn' is filled in"):
            await handler("q", **HERE, turn="forged")
        assert await recorded(service) == []

    async def test_agentscope_runtimes_query_handlers(self, service: SessionHistoryService) -> None:
        def identify(msgs: list[dict[str, Any]], request: Request) -> Identity:
            return Identity(request.who, request.where, msgs)

        class App:
            @with_session_history(service, identify=identify)
            async def query(self, msgs: list[Message], request: Any = None, **keywords: Any) -> AsyncIterator[str]:
                yield f"{len(msgs)} {request.text}"

        stream = App().query([{"role": "user", "content": "q"}], request=Request("u", "s", "x"))
        assert [item async for item in stream] == ["1 x"]


class TestDecorating:
    async def test_the_kind_of_function_stays(self, service: SessionHistoryService) -> None:
        @with_session_history(service)
        async def answering(messages: list[Message], turn: Turn, mood: str = "calm") -> str:
            """Answers."""
            return ""

        @with_session_history(service)
        async def streaming(messages: list[Message]) -> AsyncIterator[str]:
            yield ""

        assert inspect.iscoroutinefunction(answering)
        assert inspect.isasyncgenfunction(streaming)
        assert answering.__name__ == "answering"  # type: ignore[attr-defined]
        assert answering.__doc__ == "Answers."
        parameters = list(inspect.signature(answering).parameters)
        assert parameters == ["messages", "mood", "user_id", "session_id", "turn_id"]

    def test_wrong_decoration_raises_type_error(self, service: SessionHistoryService) -> None:
        decorate: Any = with_session_history(service)
        for bad in (lambda messages: None, 5):
            with pytest.raises(TypeError):
                decorate(bad)

        async def nothing() -> None: ...

        async def by_keyword(*, messages: list[Message]) -> None: ...

        for without_messages in (nothing, by_keyword):
            with pytest.raises(TypeError, match="messages"):
                decorate(without_messages)
        bare: Any = with_session_history
        for no_service in ("sqlite:///h.db", object(), SessionHistoryService):
            with pytest.raises(TypeError, match="from_url"):
                bare(no_service)
        with pytest.raises(TypeError, match="parentheses"):
            bare(nothing)
        with pytest.raises(TypeError, match="put @classmethod above"):
            bare(service)(classmethod(nothing))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not an async one"):
            bare(service, identify=nothing)
        with pytest.raises(ValueError, match="last_turns"):
            bare(service, last_turns=-1)


class TestConfigured:
    @pytest.fixture(autouse=True)
    def _forget(self) -> Any:
        _configured_service.cache_clear()
        yield
        _configured_service.cache_clear()

    async def test_the_store_of_the_runtime_config_on_first_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @with_session_history()
        async def handler(messages: list[Message]) -> str:
            return str(len(messages))

        with pytest.raises(ConfigurationError, match="SESSION_HISTORY_URL"):
            await handler("q", **HERE)
        monkeypatch.setenv("SESSION_HISTORY_URL", f"sqlite:///{tmp_path / 'h.db'}")
        assert [await handler("q", **HERE) for _ in range(2)] == ["1", "3"]
        assert (tmp_path / "h.db").exists()
        assert configured_service() is configured_service()
        assert len(await recorded(configured_service())) == 4
        await configured_service().stop()
