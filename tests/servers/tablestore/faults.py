"""Failures on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["before", "after", "drop before", "drop after", "busy", "delay", "row before", "row after"]


@dataclass
class Faults:
    """
    before and after: OTSInternalServerError, nothing or everything of the request was applied, and the answer does
    not say which. drop before, drop after: the same, and the connection ends without an answer.
    busy: OTSServerBusy, nothing was applied, which the SDK repeats by itself.
    delay: the request waits, then it is applied and answered.
    row before, row after: as before and after, of one row of a BatchWriteRow, whose other rows are as always.
    """

    kinds: Sequence[Kind] = ("before", "after", "drop before", "drop after")
    share: float = 1.0  # of the requests that ``when`` holds for
    seed: int = 0
    when: Callable[[str, str], bool] = lambda _api, _table: True
    times: int | None = None  # faults at most
    delay: float = 0.1  # seconds
    injected: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next(self, api: str, table: str) -> Kind | None:
        kinds = [kind for kind in self.kinds if api == "BatchWriteRow" or not kind.startswith("row")]
        if not kinds or self.times == self.injected or not self.when(api, table):
            return None
        if self._random.random() >= self.share:
            return None
        self.injected += 1
        return self._random.choice(kinds)

    def row_of(self, rows: int) -> int:
        """The number of the row that fails."""
        return self._random.randrange(max(rows, 1))
