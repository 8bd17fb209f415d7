"""Windows: a number of turns, or as many as fit into a budget of tokens, against a model that looks at everything."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_history import (
    InMemorySessionHistoryService,
    Message,
    SessionHistoryService,
    TokenBudget,
    with_session_history,
)
from session_history.records.messages import NATIVE, StoredMessage
from session_history.records.record import Author, Record, Status
from session_history.view.assembly import TurnView, assemble, for_model, messages_of
from session_history.view.budget import BudgetedWindow
from session_history.view.selection import newest, steady

Json = dict[str, Any]

HERE = ("u", "s")
NAMES = {"user_id": "u", "session_id": "s"}


def tokens(message: Json) -> int:
    found: int = message["tokens"]
    return found


def said(size: int, role: str = "user") -> StoredMessage:
    return StoredMessage(NATIVE, {"role": role, "tokens": size})


sizes = st.lists(st.integers(0, 5), min_size=1, max_size=3)
statuses = st.sampled_from([Status.COMPLETED, Status.FAILED, Status.INTERRUPTED])
turn_records = st.builds(
    lambda found, status, turn_id, role: Record(
        Author.TURN, 0, tuple(said(size, role) for size in found), status=status, turn_id=turn_id
    ),
    sizes,
    statuses,
    st.sampled_from([None, "t", "v"]),
    st.sampled_from(["user", "tool"]),
)
append_records = st.builds(
    lambda found, role: Record(Author.APPEND, 0, tuple(said(size, role) for size in found)),
    sizes,
    st.sampled_from(["user", "assistant"]),
)
changes = st.just(Record(Author.SESSION, 0, changes={"title": "t"}))
logs = st.lists(st.one_of(turn_records, append_records, changes), max_size=12)


def put_together(records: list[Record], first: int = 1) -> list[TurnView]:
    return assemble(list(enumerate(records, start=1))[first - 1 :])


def whole_turns_that_fit(turns: list[TurnView], budget: int) -> list[TurnView]:
    """The model: try every window, the largest first."""
    for start in range(len(turns) + 1):
        if sum(tokens(message.value) for message in messages_of(turns[start:])) <= budget:
            return turns[start:]
    raise AssertionError


def test_first_turn_of_a_log_without_a_user_message_is_whole() -> None:
    created = Record(Author.SESSION, 0, changes={"title": "t"})
    shown = assemble([(1, created), (2, Record(Author.APPEND, 0, (said(1, "assistant"),)))])
    assert [turn.whole for turn in shown] == [True]


@given(logs, st.integers(0, 30), st.sampled_from([None, "t"]))
def test_budgeted_window_holds_the_newest_turns_that_fit(
    records: list[Record], budget: int, turn_id: str | None
) -> None:
    shown = put_together(records)
    visible = for_model(shown, turn_id)
    expected = whole_turns_that_fit(visible, budget)
    window = BudgetedWindow(TokenBudget(budget, tokens), turn_id).newest(shown)
    if window is None:
        assert expected == visible
    else:
        assert window == expected
        assert len(window) < len(visible)
        assert for_model(window, turn_id) == window


@given(logs, st.integers(0, 30), st.data())
def test_window_of_a_part_of_the_log_is_that_of_the_log_or_none(
    records: list[Record], budget: int, data: st.DataObject
) -> None:
    nameless = [dataclasses.replace(record, turn_id=None) for record in records]
    first = data.draw(st.integers(1, len(nameless) + 1))
    spending = BudgetedWindow(TokenBudget(budget, tokens), None)
    window = spending.newest(put_together(nameless, first))
    if window is not None:
        everything = for_model(put_together(nameless), None)
        assert messages_of(window) == messages_of(whole_turns_that_fit(everything, budget))


@given(logs, st.integers(0, 6))
def test_window_of_a_number_of_turns_is_that_of_the_log_or_none(records: list[Record], count: int) -> None:
    shown = put_together(records)
    exact = newest(shown, count)
    window = shown[max(0, len(shown) - count) :]
    if exact is None:
        assert len(shown) <= count or not all(turn.whole for turn in window)
    else:
        assert exact == window
    steady_window = steady(shown, len(shown), count=count)
    visible = for_model(shown, None)
    if steady_window is None:
        assert len(visible) < 2 * count or not all(turn.whole for turn in shown)
    elif count:
        kept = [turn for turn in steady_window if turn in visible]
        assert steady_window == shown[len(shown) - len(steady_window) :]
        assert (len(shown) - len(steady_window)) % max(1, count // 2) == 0
        assert len(kept) >= count


@given(st.lists(st.tuples(sizes, statuses), max_size=60), st.integers(0, 60))
async def test_turn_history_holds_the_turns_that_fit(turns: list[tuple[list[int], Status]], budget: int) -> None:
    errors = {Status.FAILED: ZeroDivisionError, Status.INTERRUPTED: TimeoutError}
    expected: list[list[Json]] = []
    async with InMemorySessionHistoryService() as service:
        for number, (found, status) in enumerate(turns):
            messages = [{"role": "user", "tokens": size, "turn": number} for size in found]
            try:
                async with service.turn(*HERE, native=True) as turn:
                    turn.add(messages)
                    if status is not Status.COMPLETED:
                        raise errors[status]
            except (ZeroDivisionError, TimeoutError):
                pass
            expected += [] if status is Status.FAILED else [messages]
        while sum(tokens(message) for messages in expected for message in messages) > budget:
            expected.pop(0)
        async with service.turn(*HERE, native=True, token_budget=TokenBudget(budget, tokens)) as turn:
            assert turn.history == [message for messages in expected for message in messages]


async def fill(service: SessionHistoryService, turns: int) -> None:
    for number in range(turns):
        async with service.turn(*HERE) as turn:
            turn.add([{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}])


async def test_budgeted_turn_reads_as_far_as_needed_and_counts_each_message_once(
    service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(service, 100)
    counted: list[str] = []
    entries: list[int] = []
    read = service.provider.read

    async def watched(*arguments: Any, **keywords: Any) -> Any:
        log = await read(*arguments, **keywords)
        entries.append(len(log.entries) if log else 0)
        return log

    def count(message: Json) -> int:
        counted.append(message["content"])
        return 1

    monkeypatch.setattr(service.provider, "read", watched)
    async with service.turn(*HERE, token_budget=TokenBudget(9, count)) as turn:
        assert [message.text for message in turn.history][::2] == ["q96", "q97", "q98", "q99"]
    assert sum(entries) < 30
    assert len(counted) == 10
    counted.clear()
    async with service.turn(*HERE, token_budget=TokenBudget(100, count)) as turn:
        assert len(turn.history) == 100
    assert len(counted) == len(set(counted)) == 102
    assert sum(entries) < 150


async def test_turn_of_plain_appends_counts_as_a_whole(service: SessionHistoryService) -> None:
    session = await service.create_session("u", "s")
    await service.append_message(session, {"role": "user", "content": "q"})
    for number in range(60):
        await service.append_message(session, {"role": "assistant", "content": str(number)})
    for tokens_there_are, seen in ((60, 0), (61, 61)):
        async with service.turn(*HERE, token_budget=TokenBudget(tokens_there_are, lambda _: 1)) as turn:
            assert len(turn.history) == seen


async def test_decorated_handler_gets_the_turns_that_fit(service: SessionHistoryService) -> None:
    @with_session_history(service, token_budget=TokenBudget(4, lambda message: len(message["content"][0]["text"])))
    async def handler(messages: list[Message]) -> str:
        return str(len(messages))

    assert [await handler("q", **NAMES) for _ in range(4)] == ["1", "3", "5", "5"]
    await handler("a long question", **NAMES)
    assert await handler("q", **NAMES) == "1"


@pytest.mark.parametrize("wrong", [1.0, True, None, "5", -1])
async def test_counter_with_a_wrong_result_raises_before_the_handler_runs(
    service: SessionHistoryService, wrong: Any
) -> None:
    @with_session_history(service, token_budget=TokenBudget(4, lambda _: wrong))
    async def handler(messages: list[Message]) -> str:
        return str(len(messages))

    assert await handler("secret", **NAMES) == "1"
    with pytest.raises(ValueError, match="the count of a TokenBudget must return") as raised:
        await handler("q", **NAMES)
    assert "secret" not in str(raised.value)
    session = await service.get_session("u", "s")
    assert session is not None
    assert len(session.messages) == 2


def test_budget_with_wrong_values_is_refused() -> None:
    for wrong in (-1, 1.5, True, None, "5"):
        with pytest.raises(ValueError, match="tokens must be a whole number"):
            TokenBudget(wrong, tokens)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="count must be an ordinary function"):
        TokenBudget(5, 5)  # type: ignore[arg-type]


async def test_budget_and_number_of_turns_together_are_refused(service: SessionHistoryService) -> None:
    budget = TokenBudget(5, tokens)
    for options in ({"last_turns": 5}, {"last_turns": 0}):
        with pytest.raises(ValueError, match="not both"):
            service.turn(*HERE, token_budget=budget, **options)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="not both"):
            with_session_history(service, token_budget=budget, **options)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="must be a TokenBudget, not int"):
        service.turn(*HERE, token_budget=5)  # type: ignore[call-overload]
