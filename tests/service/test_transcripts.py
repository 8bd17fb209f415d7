"""Clients that send the whole transcript with every turn: nothing is stored twice, an edited transcript is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from session_history import SessionHistoryService, TokenBudget, with_session_history
from session_history.errors import TranscriptEdited, TurnIdReused

pytestmark = pytest.mark.every_store

HERE = {"user_id": "u", "session_id": "s"}

Json = dict[str, Any]


class Chat:
    """A client like useChat: it sends all that it knows, with ids of its own for the answers."""

    def __init__(self, service: SessionHistoryService, **options: Any) -> None:
        self.messages: list[Json] = []
        self.asked = 0
        self.seen: list[list[Json]] = []

        @with_session_history(service, native=True, **options)  # type: ignore[untyped-decorator]
        async def handler(messages: list[Json]) -> str:
            self.seen.append(messages)
            return f"answer {len(self.seen)}"

        self.handler = handler

    async def ask(self, text: str, **call: Any) -> None:
        self.asked += 1
        self.messages.append(ui(f"u{self.asked}", "user", text))
        answer: Any = await self.handler(list(self.messages), **HERE, **call)
        self.messages.append(ui(f"a{self.asked}", "assistant", answer))


def ui(name: str, role: str, text: str) -> Json:
    return {"id": name, "role": role, "parts": [{"type": "text", "text": text}]}


def texts(messages: list[Json]) -> list[str]:
    return [message["content"] if "content" in message else message["parts"][0]["text"] for message in messages]


async def stored(service: SessionHistoryService) -> list[str]:
    session = await service.get_session("u", "s", native=True)
    return texts(session.messages) if session else []


EXPECTED = [text for number in range(1, 6) for text in (f"question {number}", f"answer {number}")]


@pytest.mark.parametrize("options", [{}, {"last_turns": 2}], ids=["whole", "window"])
async def test_whole_transcript_of_five_turns_makes_ten_messages(
    service: SessionHistoryService, options: Json, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Chat(service, **options)
    for number in range(1, 6):
        await chat.ask(f"question {number}")
    assert await stored(service) == EXPECTED
    assert texts(chat.seen[1]) == EXPECTED[:3]
    assert texts(chat.seen[-1])[-1] == "question 5"
    assert len(texts(chat.seen[-1])) == len(set(texts(chat.seen[-1])))
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "question" not in warnings[0].getMessage()


async def test_only_new_messages_are_stored_as_they_are(service: SessionHistoryService) -> None:
    chat = Chat(service)
    for number in range(1, 6):
        chat.messages.clear()
        await chat.ask(f"question {number}", turn_id=f"t{number}")
    assert len(await stored(service)) == 10


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda messages: messages[0]["parts"][0].update(text="edited"), "input[0]"),
        (lambda messages: messages[2]["parts"][0].update(text="edited"), "input[2]"),
        (lambda messages: messages[3]["parts"][0].update(text="another answer"), "input[4]"),
        (lambda messages: messages.pop(2), "input[3]"),
        (lambda messages: messages.insert(2, ui("x", "user", "inserted")), "input[3]"),
        (lambda messages: messages.__delitem__(slice(4, None)), "input[2]"),
    ],
    ids=["first", "middle", "answer", "removed", "inserted", "back to an older turn"],
)
async def test_edited_transcript_is_refused_before_the_handler_runs(
    service: SessionHistoryService, edit: Any, path: str
) -> None:
    chat = Chat(service)
    for number in range(1, 4):
        await chat.ask(f"question {number}")
    edit(chat.messages)
    with pytest.raises(TranscriptEdited) as refused:
        await chat.ask("question 4")
    assert refused.value.path == path
    assert "question" not in str(refused.value)
    assert len(chat.seen) == 3
    assert await stored(service) == EXPECTED[:6]


@pytest.mark.parametrize("answer_id", ["a1", "another id"])
async def test_transcript_without_anything_new_is_refused(service: SessionHistoryService, answer_id: str) -> None:
    chat = Chat(service)
    await chat.ask("question 1")
    with pytest.raises(TranscriptEdited):
        await chat.handler([chat.messages[0], ui(answer_id, "assistant", "answer 1")], **HERE)
    assert len(chat.seen) == 1
    assert await stored(service) == EXPECTED[:2]


async def test_regenerate_is_refused(service: SessionHistoryService) -> None:
    chat = Chat(service)
    await chat.ask("question 1")
    with pytest.raises(TranscriptEdited):
        await chat.handler(chat.messages[:1], **HERE)
    assert await stored(service) == EXPECTED[:2]


async def test_client_without_the_partial_answer_goes_on(service: SessionHistoryService) -> None:
    chat = Chat(service)
    await chat.ask("question 1")
    del chat.messages[1:]  # the answer was lost with the connection
    await chat.ask("question 2")
    assert await stored(service) == EXPECTED[:4]


async def test_client_fields_of_a_known_message_do_not_matter(service: SessionHistoryService) -> None:
    chat = Chat(service)
    await chat.ask("question 1")
    chat.messages[0]["createdAt"] = "2026-11-30"
    await chat.ask("question 2")
    assert await stored(service) == EXPECTED[:4]


async def test_message_that_comes_back_with_the_result_of_a_tool_of_the_client_takes_the_place_of_the_first(
    service: SessionHistoryService,
) -> None:
    part = {"type": "tool-pay", "toolCallId": "c", "state": "input-available", "input": {}}
    asked = {"id": "m", "role": "assistant", "parts": [part]}
    paid = {**asked, "parts": [{**part, "state": "output-available", "output": "paid"}]}
    seen: list[list[Json]] = []

    @with_session_history(service, native=True)
    async def handler(messages: list[Json]) -> Json:
        seen.append(messages)
        return asked if len(seen) == 1 else ui("m2", "assistant", "done")

    question = ui("u0", "user", "pay")
    await handler([question], **HERE)
    await handler([question, paid], **HERE)
    await handler([question, paid, ui("m2", "assistant", "done"), ui("u1", "user", "thanks")], **HERE)
    assert seen[1] == [question, paid]
    assert seen[2] == [question, paid, ui("m2", "assistant", "done"), ui("u1", "user", "thanks")]


async def test_changed_tool_part_of_a_known_message_is_refused(service: SessionHistoryService) -> None:
    part = {"type": "tool-pay", "toolCallId": "c", "state": "input-available", "input": {}}
    message = {"id": "m", "role": "assistant", "parts": [part]}
    async with service.turn("u", "s", native=True) as turn:
        turn.add([ui("u0", "user", "pay"), message])
    paid = {**message, "parts": [{**part, "state": "output-available", "output": "paid", "toolCallId": "other"}]}
    with pytest.raises(TranscriptEdited):
        async with service.turn("u", "s", native=True, input=[ui("u0", "user", "pay"), paid]):
            pytest.fail("the turn was opened")


async def test_repeat_of_a_turn_with_a_transcript_gets_its_answer(service: SessionHistoryService) -> None:
    chat = Chat(service)
    for number in range(1, 4):
        await chat.ask(f"question {number}", turn_id=f"t{number}")
    for number in range(1, 4):
        transcript = chat.messages[: 2 * number - 1]
        again: Any = await chat.handler(transcript, **HERE, turn_id=f"t{number}")
        assert again == f"answer {number}"
    with pytest.raises(TurnIdReused):
        await chat.handler([*chat.messages[:2], ui("u2", "user", "other")], **HERE, turn_id="t2")
    assert await stored(service) == EXPECTED[:6]


async def test_transcript_that_a_turn_adds_first_is_not_stored_twice(service: SessionHistoryService) -> None:
    transcript: list[Json] = []
    for number in range(1, 6):
        transcript.append(ui(f"u{number}", "user", f"question {number}"))
        async with service.turn("u", "s", native=True) as turn:
            turn.add(transcript)
            answer = ui(f"a{number}", "assistant", f"answer {number}")
            turn.add(answer)
        transcript.append(answer)
    assert await stored(service) == EXPECTED
    transcript[0]["parts"][0]["text"] = "edited"
    async with service.turn("u", "s", native=True) as turn:
        with pytest.raises(TranscriptEdited):
            turn.add(transcript)
    assert await stored(service) == EXPECTED


@pytest.mark.parametrize("declared", [True, False], ids=["input", "added"])
async def test_retry_of_a_failed_turn_in_which_a_tool_ran_may_bring_its_input_again(
    service: SessionHistoryService, declared: bool
) -> None:
    paid = {"id": "a1", "role": "assistant", "parts": [{"type": "tool-pay", "toolCallId": "c", "output": "paid"}]}

    async def attempt(answer: Json, error: Exception | None = None) -> None:
        question = ui("u1", "user", "pay")
        options: Any = {"input": question} if declared else {}
        async with service.turn("u", "s", native=True, turn_id="t", **options) as turn:
            if not declared:
                turn.add(question)
            turn.add(answer)
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        await attempt(paid, ZeroDivisionError())
    await attempt(ui("a2", "assistant", "You had paid."))
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    assert [message["id"] for message in session.messages] == ["u1", "a1", "u1", "a2"]


async def test_messages_without_ids_are_always_new(service: SessionHistoryService) -> None:
    for _ in range(2):
        async with service.turn("u", "s", native=True, input=[{"role": "user", "content": "same"}]):
            pass
    assert await stored(service) == ["same", "same"]


CALL: Json = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "pay", "arguments": "{}"}}],
}
RESULT: Json = {"role": "tool", "tool_call_id": "c", "content": "charged 5 EUR"}


async def messages_of(service: SessionHistoryService) -> list[Json]:
    session = await service.get_session("u", "s", native=True)
    return session.messages if session else []


async def test_client_without_the_results_of_tools_goes_on(service: SessionHistoryService) -> None:
    async with service.turn("u", "s", native=True, input=[ui("u1", "user", "pay")]) as turn:
        turn.add([CALL, RESULT, {"role": "assistant", "content": "It is\n\npaid."}])
    transcript = [ui("u1", "user", "pay"), ui("a1", "assistant", "It is paid."), ui("u2", "user", "thanks")]
    async with service.turn("u", "s", native=True, input=transcript):
        pass
    assert (await messages_of(service))[-2:] == [{"role": "assistant", "content": "It is\n\npaid."}, transcript[-1]]


async def test_result_of_a_tool_of_the_client_is_kept(service: SessionHistoryService) -> None:
    async with service.turn("u", "s", native=True, input=[ui("u1", "user", "pay")]) as turn:
        turn.add(CALL)
    result = {**RESULT, "id": "r1"}
    async with service.turn("u", "s", native=True, input=[ui("u1", "user", "pay"), {**CALL, "id": "a1"}, result]):
        pass
    assert await messages_of(service) == [ui("u1", "user", "pay"), CALL, result]


async def test_result_that_the_client_put_into_its_own_version_of_an_answer_is_not_dropped_silently(
    service: SessionHistoryService,
) -> None:
    part = {"type": "tool-pay", "toolCallId": "c", "state": "input-available", "input": {}}
    async with service.turn("u", "s", native=True, input=[ui("u1", "user", "pay")]) as turn:
        turn.add({"role": "assistant", "parts": [part]})
    done = {"id": "a1", "role": "assistant", "parts": [{**part, "state": "output-available", "output": "paid"}]}
    with pytest.raises(TranscriptEdited):
        async with service.turn("u", "s", native=True, input=[ui("u1", "user", "pay"), done]):
            pytest.fail("the turn was opened")


@pytest.mark.parametrize("error", [RuntimeError, TimeoutError], ids=["failed", "cut"])
@pytest.mark.parametrize("turn_id", [None, "t"])
async def test_question_is_asked_again_after_a_turn_with_an_effect(
    service: SessionHistoryService, error: type[Exception], turn_id: str | None
) -> None:
    errors = [error()]

    @with_session_history(service, native=True, on_repeat="rerun")
    async def handler(messages: list[Json]) -> Any:
        yield CALL
        yield RESULT
        if errors:
            raise errors.pop()
        yield "paid"

    async def ask(*messages: Json) -> None:
        identity = {**HERE, "turn_id": turn_id} if turn_id and len(messages) == 1 else HERE
        assert [item async for item in handler(list(messages), **identity)][-1] == "paid"

    question = ui("u1", "user", "pay")
    with pytest.raises(error):
        await ask(question)
    await ask(question)
    if turn_id:
        await ask(question)  # the recorded answer
    asked = [question, CALL, RESULT]
    answered = [*asked, *asked, {"role": "assistant", "content": "paid"}]
    assert await messages_of(service) == answered
    await ask(question, ui("a1", "assistant", "paid"), ui("u2", "user", "again"))
    assert (await messages_of(service))[len(answered)] == ui("u2", "user", "again")


async def test_repeat_of_a_turn_whose_question_was_in_the_session_gets_its_answer(
    service: SessionHistoryService,
) -> None:
    question = [ui("u1", "user", "pay")]
    with pytest.raises(TimeoutError):
        async with service.turn("u", "s", native=True, input=question):
            raise TimeoutError
    for _ in range(2):
        async with service.turn("u", "s", native=True, input=question, turn_id="t") as turn:
            turn.add({"role": "assistant", "content": "paid"})
    assert turn.recorded == [{"role": "assistant", "content": "paid"}]


async def test_ids_that_an_sdk_repeats_lose_nothing(service: SessionHistoryService) -> None:
    said = []
    for number in range(3):
        question = {"role": "user", "content": f"question {number}"}
        answer = {"id": "__fake_id__", "type": "message", "role": "assistant", "content": "OK"}
        async with service.turn("u", "s", native=True) as turn:
            turn.add([question, answer])
        said += [question, answer]
    assert await messages_of(service) == said


async def test_answer_with_a_known_id_and_another_text_is_kept(service: SessionHistoryService) -> None:
    said = []
    for number in range(3):
        answers = [
            {"id": "same", "role": "assistant", "content": f"answer {number}"},
            {"id": f"new {number}", "role": "assistant", "content": "more"},
        ]
        async with service.turn("u", "s", native=True) as turn:
            turn.add([{"role": "user", "content": "q"}, *answers])
        said += [{"role": "user", "content": "q"}, *answers]
    assert await messages_of(service) == said


@pytest.mark.parametrize("tokens", [30, 100, 300])
async def test_transcript_of_a_client_is_not_stored_twice_with_a_budget(
    service: SessionHistoryService, tokens: int
) -> None:
    budget = TokenBudget(tokens, lambda message: len(texts([message])[0]))
    chat = Chat(service, token_budget=budget)
    for number in range(1, 6):
        await chat.ask(f"question {number}")
    assert await stored(service) == EXPECTED
    assert all(sum(map(len, texts(seen))) <= tokens for seen in chat.seen)
    assert tokens < 100 or len(chat.seen[-1]) > 3


async def test_client_with_the_answer_of_another_attempt_goes_on(service: SessionHistoryService) -> None:
    question = ui("u1", "user", "pay")
    for error, text in ((TimeoutError, "one"), (RuntimeError, "two")):
        with pytest.raises(error):
            async with service.turn("u", "s", native=True, input=[question]) as turn:
                turn.add({"role": "assistant", "content": text})
                raise error
    transcript = [question, ui("a1", "assistant", "two"), ui("u2", "user", "go on")]
    async with service.turn("u", "s", native=True, input=transcript) as turn:
        pass
    assert turn.messages == transcript[-1:]
