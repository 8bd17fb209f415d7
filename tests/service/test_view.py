"""The history of a turn in the shapes of many APIs: an effect is never forgotten, and a flaw is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from session_history import SessionHistoryService, TokenBudget
from unit.conversations_of_shapes import CONVERSATIONS, INPUTS
from unit.test_effects import EFFECTS, HARMLESS
from unit.validators import SHAPES, flaws

Json = dict[str, Any]

pytestmark = pytest.mark.every_store

QUESTION = {"role": "user", "content": "q"}


async def say(service: SessionHistoryService, messages: list[Json], error: type[Exception] | None = None) -> None:
    try:
        async with service.turn("u", "s", native=True) as turn:
            turn.add(messages)
            if error is not None:
                raise error
    except (ZeroDivisionError, TimeoutError):
        assert error is not None


async def history(service: SessionHistoryService, **options: Any) -> list[Json]:
    async with service.turn("u", "s", native=True, **options) as turn:
        shown: list[Json] = turn.history
        return shown


@pytest.mark.parametrize("name", ["bedrock result", "gemini result", "langchain result", "ai sdk ui", "hosted mcp"])
async def test_failed_turn_in_which_a_tool_ran_is_in_the_next_history(
    service: SessionHistoryService, name: str
) -> None:
    await say(service, [QUESTION, *HARMLESS.values()], ZeroDivisionError)
    assert await history(service) == []
    await say(service, [QUESTION, EFFECTS[name]], ZeroDivisionError)
    async with service.turn("u", "s", native=True) as turn:
        assert QUESTION in turn.history
        told = turn.history == [QUESTION, EFFECTS[name]]
        assert told or any(repair.kind == "result left out" for repair in turn.repairs)


@pytest.mark.parametrize("name", SHAPES)
async def test_history_of_an_interrupted_turn_passes_the_validator_of_its_api(
    service: SessionHistoryService, name: str
) -> None:
    conversation = CONVERSATIONS[name]
    again = [
        {**message, "id": f"again {message['id']}"} if "id" in message else message for message in conversation[:3]
    ]
    stored = [*conversation[:-1], *again, INPUTS[name]]
    await say(service, conversation[:-1], TimeoutError)
    await say(service, again, TimeoutError)
    await say(service, [INPUTS[name]])
    async with service.turn("u", "s", native=True) as turn:
        assert flaws(name, turn.history) == []
        assert turn.history[-1] == INPUTS[name] or name == "bedrock"
        assert bool(turn.repairs) == bool(flaws(name, stored))
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    assert session.messages == stored


@pytest.mark.parametrize("name", SHAPES)
async def test_huge_newest_turn_is_cut_to_a_history_that_its_api_accepts(
    service: SessionHistoryService, name: str
) -> None:
    conversation = CONVERSATIONS[name]
    await say(service, conversation)
    for tokens in range(1, len(conversation)):
        shown = await history(service, token_budget=TokenBudget(tokens, lambda _: 1))
        assert flaws(name, shown) == []
    assert shown[0] == conversation[0]
