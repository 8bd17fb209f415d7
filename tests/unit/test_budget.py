"""Windows: a number of turns, or as many as fit into a budget of tokens, against a model that looks at everything."""

from __future__ import annotations

import dataclasses
import itertools
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
from session_history.records.record import Author, HistoryStart, MessageRef, Record, Status
from session_history.view.assembly import TurnView, assemble, for_model, messages_of, with_refs
from session_history.view.budget import BudgetedWindow
from session_history.view.repair import repaired
from session_history.view.selection import newest, own_history, steady
from unit.conversations_of_shapes import CONVERSATIONS
from unit.validators import SHAPES, flaws

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
    lambda found, status, turn_id: Record(
        Author.TURN, 0, tuple(said(size, role) for size, role in found), status=status, turn_id=turn_id
    ),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["user", "assistant", "tool"])), min_size=1, max_size=5),
    statuses,
    st.sampled_from([None, "t", "v"]),
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


def size_of(messages: list[StoredMessage]) -> int:
    return sum(tokens(message.value) for message in messages)


def messages_that_fit(turns: list[TurnView], budget: int) -> list[StoredMessage]:
    """The model: try every window of whole turns, the largest first, and then every cut of the newest turn."""
    for start in range(len(turns)):
        if size_of(messages_of(turns[start:])) <= budget:
            return messages_of(turns[start:])
    return messages_of_a_cut(turns[-1].messages, budget) if turns else []


def messages_of_a_cut(messages: list[StoredMessage], budget: int) -> list[StoredMessage]:
    """Return the input, if it fits, and the most of the newest messages; no result without what is ahead of it."""
    inputs = list(itertools.takewhile(lambda message: message.role == "user", messages))
    inputs = inputs if size_of(inputs) <= budget else []
    for start in range(len(inputs), len(messages)):
        if (start == 0 or messages[start].role != "tool") and size_of(inputs + messages[start:]) <= budget:
            return inputs + messages[start:]
    return inputs


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
    expected = messages_that_fit(visible, budget)
    window = BudgetedWindow(TokenBudget(budget, tokens), turn_id).newest(shown)
    if window is None:
        assert expected == messages_of(visible)
    else:
        assert messages_of(window) == expected
        assert [message for _, message in with_refs(window)] == expected
        hidden = sum(len(turn.hidden) for turn in window)
        assert len(window) < len(visible) or hidden
        assert hidden + len(expected) == sum(len(turn.messages) for turn in window)
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
        assert messages_of(window) == messages_that_fit(everything, budget)


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
        while len(expected) > 1 and sum(tokens(message) for messages in expected for message in messages) > budget:
            expected.pop(0)
        while expected and sum(map(tokens, expected[0])) > budget:
            expected[0].pop(0)  # all of it is input
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


async def test_newest_turn_of_plain_appends_is_cut(service: SessionHistoryService) -> None:
    session = await service.create_session("u", "s")
    await service.append_message(session, {"role": "user", "content": "q"})
    for number in range(60):
        await service.append_message(session, {"role": "assistant", "content": str(number)})
    for tokens_there_are in (0, 1, 60, 61):
        async with service.turn(*HERE, token_budget=TokenBudget(tokens_there_are, lambda _: 1)) as turn:
            texts = [message.text for message in turn.history]
            newest_texts = [str(number) for number in range(60)][61 - tokens_there_are :]
            assert texts == (["q", *newest_texts] if tokens_there_are else [])


async def test_decorated_handler_gets_the_turns_that_fit(service: SessionHistoryService) -> None:
    @with_session_history(service, token_budget=TokenBudget(4, lambda message: len(message["content"][0]["text"])))
    async def handler(messages: list[Message]) -> str:
        return str(len(messages))

    assert [await handler("q", **NAMES) for _ in range(4)] == ["1", "3", "3", "3"]  # the input counts, too
    assert await handler("a long question", **NAMES) == "1"
    assert await handler("q", **NAMES) == "2"  # the answer to it


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


def test_input_counts_against_the_budget_first() -> None:
    turns = put_together([Record(Author.TURN, 0, (said(2),), status=Status.COMPLETED) for _ in range(3)])
    counted: list[int] = []

    def count(message: Json) -> int:
        counted.append(1)
        return tokens(message)

    window = BudgetedWindow(TokenBudget(6, count), None, input=[said(1), said(1)])
    assert window.newest(turns) == turns[1:]
    assert window.newest(turns) == turns[1:]
    assert len(counted) == 5
    assert BudgetedWindow(TokenBudget(6, tokens), None, input=[said(7)]).newest(turns) == []
    assert BudgetedWindow(TokenBudget(6, tokens), None).newest(turns) is None


CALL = {"role": "assistant", "content": None, "tokens": 1, "tool_calls": [{"id": "a"}, {"id": "b"}]}


def result(call_id: str) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": "done", "tokens": 1}


@pytest.mark.parametrize(
    ("budget", "shown"),
    [(0, []), (1, ["q"]), (2, ["q", "end"]), (4, ["q", "end"]), (5, ["q", "call", "b", "a", "end"]), (7, None)],
)
def test_cut_of_the_newest_turn_keeps_calls_and_results_together(budget: int, shown: list[str] | None) -> None:
    names = ["q", "so", "hm", "call", "b", "a", "end"]
    values: list[Json] = [
        {"role": "user", "tokens": 1},
        *({"role": "assistant", "tokens": 1, "n": n} for n in "ab"),
        CALL,
        result("b"),
        result("a"),
    ]
    messages = [StoredMessage(NATIVE, value) for value in [*values, {"role": "assistant", "tokens": 1}]]
    (turn,) = put_together([Record(Author.TURN, 0, tuple(messages), status=Status.INTERRUPTED)])
    window = BudgetedWindow(TokenBudget(budget, tokens), None).newest([turn])
    if shown is None:
        assert window is None
        return
    assert window is not None
    assert [names[messages.index(message)] for message in messages_of(window)] == shown
    for cut in window:
        assert cut.messages == turn.messages
        assert cut.refs() == turn.refs()
        assert len(cut.hidden) == len(names) - len(shown)


@pytest.mark.parametrize("name", SHAPES)
def test_cut_of_any_shape_passes_the_validator_of_its_api(name: str) -> None:
    conversation = [StoredMessage(NATIVE, message) for message in CONVERSATIONS[name]]
    (turn,) = put_together([Record(Author.TURN, 0, tuple(conversation), status=Status.COMPLETED)])
    for budget in range(len(conversation)):
        window = BudgetedWindow(TokenBudget(budget, lambda _: 1), None).newest([turn])
        assert window is not None
        assert len(messages_of(window)) <= budget
        shown, repairs = repaired(messages_of(window))
        assert flaws(name, [message.value for message in shown]) == []
        assert not {"result left out", "reasoning left out"} & {each.kind for each in repairs}


async def test_huge_newest_turn_shows_its_question_and_newest_messages(service: SessionHistoryService) -> None:
    answer: list[Json] = [{"role": "assistant", "content": "x" * 100}, CALL, result("a"), result("b")]
    question = {"role": "user", "content": "q"}
    async with service.turn(*HERE, native=True) as turn:
        turn.add([question, *answer])
    budget = TokenBudget(20, lambda message: len(message["content"] or ""))
    async with service.turn(*HERE, native=True, token_budget=budget) as turn:
        assert turn.history == [question, *answer[1:]]
        assert turn.repairs == []


def test_agents_own_history_of_a_cut_turn_begins_at_its_first_shown_message() -> None:
    blocks = [{"type": "text", "text": text} for text in "abc"]
    messages = [StoredMessage(NATIVE, {"role": "assistant", "content": blocks, "n": n}) for n in range(4)]
    (turn,) = put_together([Record(Author.TURN, 0, tuple(messages), status=Status.COMPLETED)])
    start = HistoryStart(MessageRef(1, 1), 2)
    shown = own_history([turn], start)
    assert [message.value["n"] for _, message in shown] == [1, 2, 3]
    assert shown[0][1].value["content"] == blocks[2:]
    cut = dataclasses.replace(turn, hidden=range(3))
    assert own_history([cut], start) == [(MessageRef(1, 3), messages[3])]
    cut = dataclasses.replace(turn, hidden=range(2, 4))
    assert [message.value["content"] for _, message in own_history([cut], start)] == [blocks[2:]]


def one_each(_: Json) -> int:
    return 1


@pytest.mark.parametrize(
    ("options", "omitted"),
    [
        ({}, 0),
        ({"token_budget": TokenBudget(100, one_each)}, 0),
        ({"token_budget": TokenBudget(4, one_each)}, 4),
        ({"token_budget": TokenBudget(1, one_each)}, 7),
        ({"token_budget": TokenBudget(0, one_each)}, 9),
        ({"token_budget": TokenBudget(3, one_each), "input": "q"}, 6),
        ({"token_budget": TokenBudget(3, one_each), "input": [{"role": "user", "content": "q"}] * 4}, 9),
        ({"last_turns": 2}, 4),
        ({"last_turns": 0}, 9),
    ],
)
async def test_turn_tells_how_many_messages_its_window_leaves_out(
    service: SessionHistoryService, options: Any, omitted: int
) -> None:
    for number in range(4):
        async with service.turn(*HERE) as turn:
            turn.add([{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a"}])
    with pytest.raises(RuntimeError):
        async with service.turn(*HERE) as turn:
            turn.add({"role": "user", "content": "fails"})
            raise RuntimeError
    async with service.turn(*HERE, **options) as turn:
        assert turn.omitted == omitted
