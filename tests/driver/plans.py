"""Plans of turns, drawn at random: the messages, the way of the call, and the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import nan
from random import Random
from typing import Any

from driver import values
from driver.books import Act, Book
from driver.dialects import Json, Saying, Tool, UIMessages
from session_history import TokenBudget
from session_history.errors import InvalidMessage, LimitExceeded, NotStorable

WAYS = ("handler", "stream", "turn", "recorder")

TEXTS = {"openai.chat", "openai.responses", "neutral", "anthropic", "agentscope.1", "ai-sdk.model", "langchain"}
"""Shapes in which plain text may stand."""

ENDS = {
    "returns": 8.0,
    "raises": 3.0,
    "is cancelled": 2.0,
    "is cancelled from outside": 3.0,
    "times out": 1.0,
    "times out from outside": 1.0,
    "is left": 3.0,
    "is stopped": 0.6,
    "is deleted": 0.6,
    "nests": 1.5,
    "is dropped": 1.0,
}
"""What befalls a turn, with its weight."""

BLANKS = ("", " ", "\n\t ", None)

UNSTORABLE: list[tuple[Any, str]] = [
    (datetime(2026, 11, 30, tzinfo=UTC), ""),
    (nan, ""),
    ((1, 2), ""),
    (b"\xff", ""),
    (1 << 9000, ""),
    ("\ud800", ""),
    ({1: 2}, ""),
    ([1, {"x": {2}}], "[1].x"),
    (values.Int64(1), ""),
    ({"a b": values.Mood.GOOD}, "['a b']"),
]
"""Values that an input must not hold, each with the rest of the path to its flaw."""


@dataclass
class Refusal:
    """An input that must be refused before the handler runs."""

    error: type[Exception]
    path: str | None


@dataclass
class Plan:
    """A turn to take.

    :ivar cut: the act ahead of which it happens.
    :ivar options: of the turn.
    :ivar input: what is declared as the input; ``None`` for none.
    :ivar first: what the turn adds itself as its input.
    :ivar returned: the act from which on a handler returns them; those ahead it adds to its turn.
    :ivar loops: how often the event loop runs until a cancellation from outside; or a share of some milliseconds.
    :ivar repeats: the plan whose turn id it has.
    :ivar is_other: it repeats a turn id with another input.
    """

    number: int
    book: Book
    batch: int
    service: int
    way: str
    end: str
    cut: int
    acts: list[Act]
    input: Any = None
    first: Act | None = None
    question: Act | None = None
    options: dict[str, Any] = field(default_factory=dict)
    returned: int = 0
    style: int = 0
    loops: int = 0
    refusal: Refusal | None = None
    repeats: Plan | None = None
    is_other: bool = False
    nested: Plan | None = None
    waits: list[Tool] = field(default_factory=list)
    answered: list[Tool] = field(default_factory=list)
    checkpoints: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        what = f"{self.way} that {self.end} at act {self.cut} of {len(self.acts)}"
        more = " repeats" if self.repeats else ""
        return f"turn {self.number} of {self.book.mark} ({self.book.name}): {what}{more}; {options}"

    @property
    def is_exclusive(self) -> bool:
        return self.options.get("concurrent") in {"queue", "reject"}

    @property
    def turn_id(self) -> str | None:
        found: str | None = self.options.get("turn_id")
        return found


class Planner:
    """Draws plans.

    :param entry_limit: the bytes of an entry, if they are few.
    :param services: how many services there are.
    """

    def __init__(self, random: Random, *, entry_limit: int | None, services: int) -> None:
        self.random = random
        self.entry_limit = entry_limit
        self._services = services
        self._number = 0

    def plan(self, book: Book, batch: int, *, is_alone: bool) -> Plan:
        """Return a plan for a session. :param is_alone: nothing else happens in this batch."""
        random = self.random
        self._number += 1
        way = random.choice(WAYS)
        plan = Plan(self._number, book, batch, random.randrange(self._services), way, self._end(book, way), 0, [])
        plan.options = self._options()
        plan.style = random.randrange(6)
        plan.loops = random.randrange(40)
        repeated = random.choice(list(book.ids.values()))[1] if book.ids and random.random() < 0.25 else None
        self._ask(plan, repeated, is_alone=is_alone)
        plan.acts = self.acts(book)
        if plan.end == "returns" and is_alone and random.random() < 0.15:
            self._let_wait(plan)
        plan.cut = random.randint(0, len(plan.acts))
        plan.returned = random.randint(0, len(plan.acts))
        plan.checkpoints = {index for index in range(len(plan.acts)) if random.random() < 0.25}
        if plan.end == "is dropped":
            plan.options["concurrent"] = "keep"  # else the session is locked for the time of a lease
        if plan.end == "nests":
            plan.nested = self._nested(plan)
        return plan

    def _end(self, book: Book, way: str) -> str:
        ends = {
            end: weight
            for end, weight in ENDS.items()
            if not (end == "is left" and way != "stream")
            and not (end == "is dropped" and way not in {"turn", "recorder"})
            and not (end == "is deleted" and not any(told.texts or told.tools for told in book.told))
        }
        return self.random.choices(list(ends), list(ends.values()))[0]

    def _options(self) -> dict[str, Any]:
        random = self.random
        options: dict[str, Any] = {}
        if random.random() < 0.4:
            options["concurrent"] = random.choice(["queue", "reject", "queue"])
            options["patience"] = random.choice([0.0, 0.05, 20.0, 20.0])
        if random.random() < 0.2:
            options["alternate"] = True
        window = random.random()
        if window < 0.25:
            options["last_turns"] = random.choice([0, 1, 1, 2, 3, 5])
        elif window < 0.4:
            options["token_budget"] = TokenBudget(random.choice([0, 1, 2, 3, 5, 9, 20]), lambda _: 1)
        if random.random() < 0.25:
            options["slot"] = "agent"
        return options

    # The input

    def _ask(self, plan: Plan, repeated: Plan | None, *, is_alone: bool) -> None:
        random, book = self.random, plan.book
        if repeated is not None:
            self._repeat(plan, repeated)
        elif book.waiting and is_alone and random.random() < 0.8:
            plan.answered = book.waiting
            messages = book.dialect.results(book.waiting, f"m{plan.number}.late")
            plan.question = Act(messages, list(book.waiting))
            self._declare(plan, messages)
        else:
            self._say(plan)
        if plan.input is not None and plan.refusal is None:
            if random.random() < 0.3:
                plan.options["durable"] = True
            if repeated is None and random.random() < 0.4:
                plan.options["turn_id"] = f"t{plan.number}"
                if random.random() < 0.3:
                    plan.options["on_repeat"] = "rerun"

    def _repeat(self, plan: Plan, repeated: Plan) -> None:
        plan.repeats = repeated
        plan.options["turn_id"] = repeated.turn_id
        plan.input, plan.question = repeated.input, repeated.question
        if self.random.random() < 0.4:
            plan.options["on_repeat"] = "rerun"
        if self.random.random() < 0.2:
            plan.is_other = True
            plan.input, plan.question = self._question(plan)

    def _say(self, plan: Plan) -> None:
        random = self.random
        if random.random() < 0.08:
            self._say_nonsense(plan)
            return
        said, act = self._question(plan)
        plan.question = act
        if plan.way in {"handler", "stream"} or random.random() < 0.5:
            plan.input = said
        elif random.random() < 0.9:
            plan.first = act

    def _question(self, plan: Plan) -> tuple[Any, Act]:
        random, book = self.random, plan.book
        token = book.token()
        if book.shape in TEXTS and random.random() < 0.3:
            return token, Act([{"role": "user", "content": token}], texts=[token])
        message = book.dialect.question(token, f"m{plan.number}.q")
        messages = [message]
        if random.random() < 0.15:
            more = book.token()
            messages.append(book.dialect.question(more, f"m{plan.number}.q2"))
            return messages, Act(messages, texts=[token, more])
        return random.choice([message, messages]), Act(messages, texts=[token])

    def _declare(self, plan: Plan, messages: list[Json]) -> None:
        if plan.way in {"handler", "stream"} or self.random.random() < 0.5:
            plan.input = messages
        else:
            plan.first = plan.question

    def _say_nonsense(self, plan: Plan) -> None:
        """Plan an input that must be refused."""
        random, book = self.random, plan.book
        question = book.dialect.question(book.token(), f"m{plan.number}.q")
        kind = random.randrange(5)
        if kind == 0:
            plan.input, path = random.choice([(5, "the input"), (b"text", "the input"), ([5], "messages[0]")])
            plan.refusal = Refusal(InvalidMessage, path)
        elif kind == 1:
            plan.input = f"{book.token()} \ud800"
            plan.refusal = Refusal(NotStorable, "message.content")
        elif kind == 2 and self.entry_limit:
            plan.input = book.token() + "x" * 3 * self.entry_limit
            plan.refusal = Refusal(LimitExceeded, None)
        else:
            value, rest = random.choice(UNSTORABLE)
            bad = {**question, "metadata": {"it": value}}
            one = random.random() < 0.5
            plan.input = bad if one else [question, bad]
            plan.refusal = Refusal(NotStorable, f"{'message' if one else 'messages[1]'}.metadata.it{rest}")
        if (
            plan.way == "turn"
            and book.dialect.has_roles
            and isinstance(plan.input, (dict, list))
            and random.random() < 0.5
        ):
            plan.first, plan.input = Act([plan.input]), None  # the turn itself refuses it

    # What the model and the tools say

    def acts(self, book: Book) -> list[Act]:
        random = self.random
        acts: list[Act] = []
        for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
            acts += self._step(book)
        if random.random() < 0.85:
            token = book.token()
            said = book.dialect.said(Saying(text=token, reasoning=random.random() < 0.2), self._name())
            is_text = len(said) == 1 and book.shape in TEXTS
            acts.append(Act(said, texts=[token], text=token if is_text else None))
        return acts

    def _name(self) -> str:
        return f"m{self._number}.{self.random.randrange(1 << 40)}"

    def _step(self, book: Book) -> list[Act]:
        """Return what a model says with calls, and their results; the latter may lack some, or come in parts."""
        random, dialect = self.random, book.dialect
        tools = [self._tool(book) for _ in range(random.choice([1, 1, 2, 3]))]
        if self.entry_limit and random.random() < 0.06:  # none of them is large, but all together
            tools += [self._tool(book, is_plain=True) for _ in range(30)]
            for tool in tools[-30:]:
                tool.output = f"{book.token()}{'x' * (self.entry_limit // 20)}"
        saying = Saying(calls=list(tools), reasoning=random.random() < 0.4)
        texts = []
        if random.random() < 0.5:
            saying.text = random.choice(BLANKS) if random.random() < 0.4 else book.token()
            texts = [saying.text] if saying.text and saying.text.strip() else []
        if dialect.has_hosted and random.random() < 0.35:
            saying.hosted = [self._tool(book)]
            saying.with_hosted_results = random.random() < 0.75
        if random.random() < 0.15:
            odd_part = random.choice(values.PARTS)
            is_part = dialect.holds_extra_parts
            saying.extra = odd_part(book.token()) if is_part else values.value(random, book.token(), 0.6)
        name = self._name()
        if isinstance(dialect, UIMessages):
            answered = [tool for tool in tools if random.random() < 0.9]
            return [
                Act([dialect.message(saying, answered, name)], answered, texts, draft=dialect.message(saying, [], name))
            ]
        said = Act(dialect.said(saying, name), saying.handed, texts)
        random.shuffle(tools)
        answered = [tool for tool in tools if random.random() < 0.95]
        parts = [answered[:1], answered[1:]] if random.random() < 0.15 else [answered]
        results = [Act(dialect.results(part, f"{name}.r{index}"), part) for index, part in enumerate(parts) if part]
        return self._split([said, *results])

    def _split(self, acts: list[Act]) -> list[Act]:
        """Return acts of which some are parted into single messages."""
        found = []
        for act in acts:
            if len(act.messages) > 1 and self.random.random() < 0.5:
                for message in act.messages:
                    held = str(message.get("call_id", message.get("tool_call_id", message)))
                    tools = [tool for tool in act.tools if tool.id in held]
                    texts = [text for text in act.texts if text in str(message.get("content"))]
                    found.append(Act([message], tools, texts))
            else:
                found.append(act)
        return found

    def _tool(self, book: Book, *, is_plain: bool = False) -> Tool:
        random = self.random
        book.minted += 1
        name = f"c{book.generation}x{book.minted}e"
        output = values.value(random, book.token(), 0.0 if is_plain else 0.35)
        if self.entry_limit and not is_plain and random.random() < 0.12:
            huge = book.token() + "x" * random.choice([self.entry_limit // 3, self.entry_limit, 3 * self.entry_limit])
            rows = [f"{book.token()}{row}" for row in range(random.choice([10, self.entry_limit // 8]))]
            output = random.choice([huge, {"rows": rows}, {"a": huge, "b": output}, [huge, huge]])
        return Tool(name, name, output)

    def _let_wait(self, plan: Plan) -> None:
        """Let the turn end in calls whose results come with the next input."""
        if isinstance(plan.book.dialect, UIMessages):
            return
        tools = [self._tool(plan.book, is_plain=True) for _ in range(self.random.choice([1, 2]))]
        said = plan.book.dialect.said(Saying(calls=tools), self._name())
        plan.acts = [*plan.acts, Act(said)]
        plan.waits = tools

    def _nested(self, outer: Plan) -> Plan:
        book = outer.book
        self._number += 1
        plan = Plan(self._number, book, outer.batch, outer.service, "turn", "returns", 0, self.acts(book))
        plan.input, plan.question = self._question(plan)
        plan.options = {"concurrent": self.random.choice(["keep", "queue", "reject"]), "patience": 5.0}
        if not outer.is_exclusive:
            plan.options["concurrent"] = "keep"
        plan.cut = len(plan.acts)
        return plan

    def plan_to_kill(self, book: Book, batch: int) -> Plan:
        """Return a durable plan for another process, which dies in it. All it says is plain JSON."""
        self._number += 1
        plan = Plan(self._number, book, batch, 0, "recorder", "is killed", 0, [])
        plan.input, plan.question = self._question(plan)
        tool = Tool(
            f"c{book.generation}k{self._number}e", f"c{book.generation}k{self._number}e", {"paid": book.token()}
        )
        dialect, name = book.dialect, self._name()
        said = dialect.said(Saying(calls=[tool]), name)
        if isinstance(dialect, UIMessages):
            plan.acts = [Act([dialect.message(Saying(calls=[tool]), [tool], name)], [tool])]
        else:
            plan.acts = [Act(said), Act(dialect.results([tool], f"{name}.r"), [tool])]
        plan.cut = self.random.randint(0, len(plan.acts))
        return plan
