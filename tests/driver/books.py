"""Books: plain lists of all that was handed over in each session, and the check of a history against them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from driver.dialects import DIALECTS, Dialect, Json, Tool, results_in
from driver.values import Mismatch, deviations, marker_text
from unit.validators import flaws

TOKEN = re.compile('«([^»«"]*)\\.[0-9]+»')


class Flaw(AssertionError):
    """Something that must hold does not."""


def require(condition: object, flaw: str) -> None:
    if not condition:
        raise Flaw(flaw)


@dataclass
class Act:
    """Messages that are handed over at once.

    :ivar tools: calls whose results they hold.
    :ivar texts: tokens of what they say.
    :ivar text: their only text, if they are one message of text.
    :ivar draft: an earlier version of the only message.
    """

    messages: list[Any]
    tools: list[Tool] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    text: str | None = None
    draft: Json | None = None


@dataclass
class Told:
    """The part of a turn that was handed over and stored.

    :ivar batch: the turns of one batch went on at once.
    :ivar texts: tokens that the next history must hold.
    :ivar since: the batch of its oldest call; ``None`` for its own.
    """

    batch: int
    tools: list[Tool] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    since: int | None = None


@dataclass
class Book:
    """One session.

    :ivar told: by turn, as far as it must be in the next history.
    :ivar states: tokens of the states that were handed over.
    :ivar ids: how the turns ended whose ids are known, with their plans.
    :ivar waiting: calls whose results come with the next input.
    :ivar turns: how many turns were taken.
    :ivar deleted: it was deleted in the current batch.
    :ivar is_unsure: perhaps it was not.
    :ivar past: what was done, in words.
    """

    user: str
    session: str
    name: str
    generation: int = 1
    told: list[Told] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    ids: dict[str, tuple[str, Any]] = field(default_factory=dict)
    waiting: list[Tool] = field(default_factory=list)
    waiting_since: int = 0
    turns: int = 0
    deleted: bool = False
    is_unsure: bool = False
    minted: int = 0
    state: str | None = None
    past: list[str] = field(default_factory=list)

    @property
    def shape(self) -> str:
        return DIALECTS[self.name][0]

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.name][1]

    @property
    def mark(self) -> str:
        return f"{self.user}.{self.session}.{self.generation}"

    def token(self) -> str:
        """Return a text that nobody else says."""
        self.minted += 1
        return f"«{self.mark}.{self.minted}»"

    def begin_again(self) -> None:
        """Forget what was told: the session was deleted, and created again."""
        self.generation += 1
        self.told, self.states, self.ids, self.waiting, self.state = [], [], {}, [], None
        self.deleted = False

    # Checks

    def check_tokens(self, found: Any, where: str) -> None:
        """Check that no text of another session is in what belongs to this one."""
        foreign = {mark for mark in TOKEN.findall(_dump(found)) if mark != self.mark}
        require(not foreign, f"{where} of {self.mark} holds text of {sorted(foreign)}")

    def check_history(self, history: list[Json], where: str, *, turns: int | None = None) -> int:
        """Check a history that a model gets; return how many results were compared.

        :param turns: it has to hold only the newest so many turns; ``None`` for all.
        """
        self.check_tokens(history, where)
        try:
            wrong = flaws(self.shape, history)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise Flaw(f"{where} is no history of {self.shape}: {type(error).__name__} {error}") from error
        if history and isinstance(history[0].get("content"), str):  # a greeting has no shape, and may stay
            wrong = [flaw for flaw in wrong if not flaw.endswith("comes first")]
        require(not wrong, f"{where} is refused by the API of {self.shape}: {'; '.join(wrong[:4])}")
        self._check_texts(history, where, turns)
        return self._check_results(history, where, turns)

    def check_alternation(self, history: list[Json], where: str) -> None:
        """Check that the user never speaks twice in a row, in shapes that name him."""
        for one, other in pairwise(history):
            is_twice = one.get("role") == other.get("role") == "user"
            require(not is_twice, f"{where} of {self.mark} has neighbours of the user")

    def check_results(self, messages: list[Json], where: str) -> int:
        """Check that the messages of a log hold all results, perhaps one twice, as it was said. They may hold more."""
        self.check_tokens(messages, where)
        return self._check_results(messages, where, None, most=sys.maxsize)

    def _check_texts(self, history: list[Json], where: str, turns: int | None) -> None:
        dump = _dump(history)
        for told in self._newest(turns):
            for text in told.texts:
                require(text in dump, f"{where} lacks {text}")

    def _check_results(self, history: list[Json], where: str, turns: int | None, *, most: int = 1) -> int:
        found: dict[str, list[Any]] = {}
        for call_id, output in results_in(history):
            found.setdefault(call_id, []).append(output)
        required = {tool.id for told in self._newest(turns) for tool in told.tools}
        compared = 0
        for told in self.told:
            for tool in told.tools:
                outputs = found.get(tool.id, [])
                require(outputs or tool.id not in required, f"{where} lacks the result of {tool.id}")
                require(len(outputs) <= most, f"{where} has {len(outputs)} results of {tool.id}")
                for output in outputs:
                    _compare(tool, output, where)
                    compared += 1
        return compared

    def _newest(self, turns: int | None) -> Iterable[Told]:
        """Return what the newest turns told. Of turns that went on at once it needs all or none."""
        if turns is None:
            return self.told
        batches = [told.batch for told in self.told]
        return [told for told in self.told if sum(batch >= (told.since or told.batch) for batch in batches) <= turns]


def _compare(tool: Tool, output: Any, where: str) -> None:
    if ", too large: " in (marker_text(output) or ""):
        return
    try:
        deviations(tool.output, output, "output")
    except Mismatch as mismatch:
        raise Flaw(f"{where}, result of {tool.id}: {mismatch}") from mismatch


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
