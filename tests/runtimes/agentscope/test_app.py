"""AgentScope's own service app with our middleware, through its HTTP API. See ``agentscope_app.py``."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, ThinkingBlock, ToolCallBlock

from runtimes.agentscope.app import (
    PAUSE,
    Answer,
    Json,
    MessageRef,
    Script,
    ServiceApp,
    ToolBox,
    lines,
    running_app,
    weather_call,
)
from session_history import SqliteSessionHistoryService, configured_service
from session_history.configured import _configured_service
from session_history.runtimes.agentscope import app_middlewares
from unit.pairing import flaws

HELLO = ["ada: Hello", "Friday: Hi."]
ROME = 'weather{"city": "Rome"} rome'
CALL: Answer = ("Let me see.", weather_call("rome", "Rome"))
PARKED = ["ada: The weather in Rome?", "Friday: Let me see.", f"Friday: {ROME} asking"]
ANSWERED = [
    "ada: The weather in Rome?",
    "Friday: Let me see.",
    f"Friday: {ROME} finished",
    "Friday: rome success: Sunny in Rome.",
]


class Home:
    """A folder for the log and for the storage of the apps, and apps that run there one after the other.

    :ivar tools: what the agents of these apps can use.
    """

    def __init__(self, folder: Path, save: Literal["turn", "step"]) -> None:
        self.folder = folder
        self.tools = ToolBox()
        self._save = save

    @asynccontextmanager
    async def app(self, storage: str = "app") -> AsyncIterator[ServiceApp]:
        async with self._service() as service:
            middlewares = app_middlewares(service, save=self._save)
            async with running_app(self.folder / storage, middlewares=middlewares, tools=self.tools.tools) as app:
                yield app

    @asynccontextmanager
    async def app_without_us(self) -> AsyncIterator[ServiceApp]:
        async with running_app(self.folder / "app", tools=self.tools.tools) as app:
            yield app

    async def log(self, place: MessageRef) -> list[Json]:
        async with self._service() as service:
            session = await service.get_session(place.user_id, place.session_id, native=True)
            assert session is not None
            return session.messages

    def _service(self) -> SqliteSessionHistoryService:
        return SqliteSessionHistoryService(self.folder / "history.db")


@pytest.fixture(params=["turn", "step"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return Home(tmp_path, request.param)


@pytest.fixture
async def script() -> AsyncIterator[Callable[..., Script]]:
    """Makes scripts. In the end, all of their answers were asked for, and every call was one that an API takes."""
    made: list[Script] = []

    def make(*answers: Any) -> Script:
        made.append(Script(*answers))
        return made[-1]

    yield make
    for each in made:
        assert not each.answers
        for call in each.seen:
            assert len({msg.id for msg in call}) == len(call)
            assert flaws(await OpenAIChatFormatter().format(call)) == []


def told(messages: list[Json]) -> list[tuple[str, str, list[str]]]:
    """Return the part of a message that is the same in the app's storage and in the app's view."""
    return [(message["id"], message["role"], lines([message])) for message in messages]


def said(messages: list[Msg]) -> list[Json]:
    """Return content, speaker and ids of messages as JSON, without time and reason of their end."""
    return [msg.model_dump(mode="json", include={"id", "name", "role", "content"}) for msg in messages]


class TestHistory:
    async def test_every_call_of_the_model_sees_the_conversation_once(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Fine.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            for text in ("Hello", "How are you?", "Good night"):
                await chat.say(text)
        assert [lines(call) for call in model.seen] == [
            ["ada: Hello"],
            [*HELLO, "ada: How are you?"],
            [*HELLO, "ada: How are you?", "Friday: Fine.", "ada: Good night"],
        ]
        assert lines(await home.log(chat.place)) == [*lines(model.seen[-1]), "Friday: Bye."]

    async def test_the_log_holds_what_the_app_shows_and_what_it_keeps(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        thinking = ThinkingBlock.model_validate({"thinking": "A greeting.", "signature": "signed"})
        async with home.app() as app:
            chat = await app.new_chat("ada", script((thinking, "Hi", "."), "Fine."))
            await chat.say("Hello")
            await chat.say("How are you?")
            shown, kept = await chat.messages(), (await chat.state()).context
        log = await home.log(chat.place)
        assert said([Msg.model_validate(message) for message in log]) == said(kept)
        assert told(log) == told(shown)
        assert [message for message in log if message["role"] == "user"] == [shown[0], shown[2]]
        assert [block["signature"] for block in log[1]["content"] if block["type"] == "thinking"] == ["signed"]

    async def test_a_later_app_continues(self, home: Home, script: Callable[..., Script]) -> None:
        model = script("Hi.", "Fine.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        async with home.app() as app:
            await app.chat(chat.place).say("How are you?")
            shown = await app.chat(chat.place).messages()
        assert lines(model.seen[1]) == [*HELLO, "ada: How are you?"]
        assert told(await home.log(chat.place)) == told(shown)

    async def test_two_apps_on_one_storage_take_turns(self, home: Home, script: Callable[..., Script]) -> None:
        model = script("Hi.", "Fine.", "Bye.")
        async with home.app() as one, home.app() as other:
            chat = await one.new_chat("ada", model)
            await chat.say("Hello")
            await other.chat(chat.place).say("How are you?")
            await chat.say("Good night")
        assert lines(model.seen[2]) == [*HELLO, "ada: How are you?", "Friday: Fine.", "ada: Good night"]
        assert lines(await home.log(chat.place)) == [*lines(model.seen[2]), "Friday: Bye."]


class TestTheLogWins:
    async def test_an_app_without_its_storage_continues_from_the_log(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Fine.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        async with home.app(storage="empty") as app:
            chat = await app.same_chat(chat.place, model)
            assert await chat.messages() == []
            await chat.say("How are you?")
            await chat.say("Good night")
        assert lines(model.seen[1]) == [*HELLO, "ada: How are you?"]
        assert lines(model.seen[2]) == [*HELLO, "ada: How are you?", "Friday: Fine.", "ada: Good night"]
        assert lines(await home.log(chat.place)) == [*lines(model.seen[2]), "Friday: Bye."]

    async def test_an_app_on_a_backup_of_its_storage_continues_from_the_log(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Fine.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        shutil.copytree(home.folder / "app", home.folder / "backup")
        async with home.app() as app:
            await app.chat(chat.place).say("How are you?")
        async with home.app(storage="backup") as app:
            await app.chat(chat.place).say("Good night")
        assert lines(model.seen[2]) == [*HELLO, "ada: How are you?", "Friday: Fine.", "ada: Good night"]
        assert lines(await home.log(chat.place)) == [*lines(model.seen[2]), "Friday: Bye."]

    async def test_permission_rule_holds_in_an_app_without_its_storage(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script(weather_call("rome", "Rome"), "Sunny.", weather_call("oslo", "Oslo"), "Sunny, too.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.decide(await chat.say("The weather in Rome?"), confirmed=True, always=True)
        async with home.app(storage="empty") as app:
            chat = await app.same_chat(chat.place, model)
            reply = await chat.say("And in Oslo?")
        assert lines([reply])[-1] == "Friday: Sunny, too."
        assert home.tools.asked == ["Rome", "Oslo"]

    async def test_a_permission_mode_set_through_the_app_holds(self, home: Home, script: Callable[..., Script]) -> None:
        model = script("Hi.", weather_call("rome", "Rome"), "Sunny.", weather_call("oslo", "Oslo"))
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
            await chat.set_permissions("bypass")
            assert lines([await chat.say("The weather in Rome?")])[-1] == "Friday: Sunny."
            await chat.set_permissions("default")
            assert lines([await chat.say("And in Oslo?")]) == ['Friday: weather{"city": "Oslo"} oslo asking']
        assert home.tools.asked == ["Rome"]

    async def test_a_permission_mode_set_after_an_interruption_holds(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", ("I was", PAUSE), weather_call("rome", "Rome"))
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.set_permissions("bypass")
            await chat.say("Hello")
            message_id = await chat.send("Tell me a story")
            await model.pausing.wait()
            await chat.interrupt()
            await chat.replied(message_id)
            await chat.set_permissions("default")
            await chat.say("The weather in Rome?")
        assert home.tools.asked == []


class TestStorageThatIsAhead:
    async def test_turns_from_before_the_middleware_are_taken_over(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Fine.", "Bye.", "Again.")
        async with home.app_without_us() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
            await chat.say("How are you?")
        assert await home.log(chat.place) == []
        async with home.app() as app:
            await app.chat(chat.place).say("Good night")
            await app.chat(chat.place).say("Still here?")
            shown = await app.chat(chat.place).messages()
        assert lines(model.seen[2]) == [*HELLO, "ada: How are you?", "Friday: Fine.", "ada: Good night"]
        assert lines(model.seen[3]) == [*lines(model.seen[2]), "Friday: Bye.", "ada: Still here?"]
        assert told(await home.log(chat.place)) == told(shown)

    async def test_turns_while_the_middleware_was_off_are_taken_over(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Fine.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        async with home.app_without_us() as app:
            await app.chat(chat.place).say("How are you?")
        async with home.app() as app:
            await app.chat(chat.place).say("Good night")
            shown = await app.chat(chat.place).messages()
        assert lines(model.seen[2]) == [*HELLO, "ada: How are you?", "Friday: Fine.", "ada: Good night"]
        assert told(await home.log(chat.place)) == told(shown)

    async def test_a_reply_parked_before_the_middleware_is_confirmed_with_it(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script(weather_call("rome", "Rome"), "Sunny.")
        async with home.app_without_us() as app:
            chat = await app.new_chat("ada", model)
            parked = await chat.say("The weather in Rome?")
        async with home.app() as app:
            await app.chat(chat.place).decide(parked, confirmed=True)
            shown = await app.chat(chat.place).messages()
        assert home.tools.asked == ["Rome"]
        assert told(await home.log(chat.place)) == told(shown)


class TestConfirmation:
    async def test_a_parked_reply_is_confirmed_in_a_later_app_and_is_one_message(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script(CALL, "It is sunny.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            parked = await chat.say("The weather in Rome?")
        assert lines(await home.log(chat.place)) == PARKED
        assert home.tools.asked == []
        async with home.app() as app:
            chat = app.chat(chat.place)
            reply = await chat.decide(parked, confirmed=True)
            assert reply["finished_reason"] == "completed"
            await chat.say("Good night")
            shown, kept = await chat.messages(), (await chat.state()).context
        assert home.tools.asked == ["Rome"]
        assert lines(model.seen[1]) == ANSWERED
        assert lines(model.seen[2]) == [*ANSWERED, "Friday: It is sunny.", "ada: Good night"]
        log = await home.log(chat.place)
        assert [message["id"] for message in log][:2] == [shown[0]["id"], parked["id"]]
        assert told(log) == told(shown)
        assert said([Msg.model_validate(message) for message in log]) == said(kept)

    async def test_a_parked_reply_is_denied_in_a_later_app(self, home: Home, script: Callable[..., Script]) -> None:
        model = script(CALL, "As you wish.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            parked = await chat.say("The weather in Rome?")
        async with home.app() as app:
            await app.chat(chat.place).decide(parked, confirmed=False)
            shown = await app.chat(chat.place).messages()
        assert home.tools.asked == []
        assert "Friday: rome denied" in lines(model.seen[1])[-1]
        assert told(await home.log(chat.place)) == told(shown)

    async def test_a_parked_reply_that_the_app_forgot_is_confirmed(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", CALL, "It is sunny.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        shutil.copytree(home.folder / "app", home.folder / "backup")
        async with home.app() as app:
            parked = await app.chat(chat.place).say("The weather in Rome?")
        async with home.app(storage="backup") as app:
            chat = app.chat(chat.place)
            await chat.send_decision(parked, confirmed=True)
            await chat.until(lambda page: len(model.seen) == 3 and not page.running)
            await chat.say("Good night")
        assert home.tools.asked == ["Rome"]
        assert lines(model.seen[3]) == [*HELLO, *ANSWERED, "Friday: It is sunny.", "ada: Good night"]
        assert lines(await home.log(chat.place)) == [*lines(model.seen[3]), "Friday: Bye."]

    async def test_a_parked_reply_is_interrupted_in_a_later_app(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script(CALL, "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            parked = await chat.say("The weather in Rome?")
        async with home.app() as app:
            chat = app.chat(chat.place)
            await chat.interrupt()
            assert (await chat.changed(parked))["finished_reason"] == "interrupted"
            await chat.say("Good night")
            shown = await chat.messages()
        assert home.tools.asked == []
        assert lines(model.seen[1])[3].startswith("Friday: rome interrupted: ")
        assert told(await home.log(chat.place)) == told(shown)

    async def test_a_message_meanwhile_is_refused_and_the_parked_reply_can_still_be_confirmed(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script(CALL, "It is sunny.", "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            parked = await chat.say("The weather in Rome?")
            refusal = await chat.say("Are you there?")
            assert refusal["finished_reason"] == "error"
            await chat.decide(parked, confirmed=True)
            await chat.say("Good night")
        assert lines(model.seen[2]) == [*ANSWERED, "Friday: It is sunny.", "ada: Good night"]
        log = await home.log(chat.place)
        assert sorted(lines(log)) == sorted([*lines(model.seen[2]), "ada: Are you there?", "Friday: Bye."])
        assert len({message["id"] for message in log}) == len(log)


class TestFailures:
    async def test_an_interrupted_reply_is_kept_as_far_as_it_was_said(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", ("Once upon", PAUSE), "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
            message_id = await chat.send("Tell me a story")
            await model.pausing.wait()
            await chat.interrupt()
            assert (await chat.replied(message_id))["finished_reason"] == "interrupted"
            await chat.say("Good night")
            shown = await chat.messages()
        assert lines(model.seen[2]) == [*HELLO, "ada: Tell me a story", "Friday: Once upon", "ada: Good night"]
        assert told(await home.log(chat.place)) == told(shown)

    async def test_a_tool_that_is_interrupted_has_a_result(self, home: Home, script: Callable[..., Script]) -> None:
        model = script(("One moment.", ToolCallBlock(id="w", name="wait", input="{}")), "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.set_permissions("bypass")
            message_id = await chat.send("Wait")
            await home.tools.waiting.wait()
            await chat.interrupt()
            assert (await chat.replied(message_id))["finished_reason"] == "interrupted"
            await chat.say("Good night")
            shown = await chat.messages()
        seen = lines(model.seen[1])
        assert seen[:3] == ["ada: Wait", "Friday: One moment.", "Friday: wait{} w finished"]
        assert [line for line in seen if line.startswith("Friday: w ")] == [seen[3]]
        assert seen[3].startswith("Friday: w interrupted: ")
        assert told(await home.log(chat.place)) == told(shown)

    @pytest.mark.parametrize("said_before", [(), ("Well",)], ids=["at-once", "in-the-stream"])
    async def test_the_model_never_hears_again_of_a_message_at_which_it_failed(
        self, home: Home, script: Callable[..., Script], said_before: tuple[str, ...]
    ) -> None:
        model = script("Hi.", (*said_before, ConnectionError("the model is away")), "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
            assert (await chat.say("Tell me a story"))["finished_reason"] == "error"
            await chat.say("Good night")
        assert lines(model.seen[2]) == [*HELLO, "ada: Good night"]
        failed = ["ada: Tell me a story", *(f"Friday: {piece}" for piece in said_before)]
        assert lines(await home.log(chat.place)) == [*HELLO, *failed, "ada: Good night", "Friday: Bye."]

    async def test_an_app_that_is_stopped_while_the_model_runs_keeps_what_was_said(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", ("Once upon", PAUSE), "Bye.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
            await chat.send("Tell me a story")
            await model.pausing.wait()
        assert lines(await home.log(chat.place)) == [*HELLO, "ada: Tell me a story", "Friday: Once upon"]
        async with home.app() as app:
            await app.chat(chat.place).say("Good night")
        assert lines(model.seen[2]) == [*HELLO, "ada: Tell me a story", "Friday: Once upon", "ada: Good night"]


class TestApart:
    async def test_users_and_sessions_that_talk_at_once_stay_apart(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        models = {who: script("Hi.", f"Bye, {who}.") for who in ("first", "second", "bob")}
        async with home.app() as app:
            first = await app.new_chat("ada", models["first"])
            chats = {
                "first": first,
                "second": await app.another_chat(first.place, models["second"]),
                "bob": await app.new_chat("bob", models["bob"]),
            }
            for text in ("Hello", "Good night"):
                await asyncio.gather(*(chat.say(f"{text} {who}") for who, chat in chats.items()))
        for who, chat in chats.items():
            user = chat.place.user_id
            expected = [f"{user}: Hello {who}", "Friday: Hi.", f"{user}: Good night {who}"]
            assert lines(models[who].seen[1]) == expected
            assert lines(await home.log(chat.place)) == [*expected, f"Friday: Bye, {who}."]

    async def test_another_user_with_the_same_session_id_sees_nothing(
        self, home: Home, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Hi, Bob.")
        async with home.app() as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        async with home.app(storage="empty") as app:
            bobs = await app.same_chat(chat.place._replace(user_id="bob"), model)
            await bobs.say("Hello")
        assert lines(model.seen[1]) == ["bob: Hello"]
        assert lines(await home.log(chat.place)) == HELLO


class TestConfigured:
    @pytest.fixture(autouse=True)
    def _forget(self) -> Iterator[None]:
        _configured_service.cache_clear()
        yield
        _configured_service.cache_clear()

    async def test_app_is_configured_by_the_environment_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Script]
    ) -> None:
        model = script("Hi.", "Fine.")
        monkeypatch.setenv("SESSION_HISTORY_URL", f"sqlite:///{tmp_path / 'history.db'}")
        async with running_app(tmp_path / "app", middlewares=app_middlewares()) as app:
            chat = await app.new_chat("ada", model)
            await chat.say("Hello")
        async with running_app(tmp_path / "empty", middlewares=app_middlewares()) as app:
            await (await app.same_chat(chat.place, model)).say("How are you?")
        await configured_service().stop()
        assert lines(model.seen[1]) == [*HELLO, "ada: How are you?"]
        log = await Home(tmp_path, "turn").log(chat.place)
        assert lines(log) == [*lines(model.seen[1]), "Friday: Fine."]
