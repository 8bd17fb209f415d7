"""Failures that a test injects."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["before", "after", "drop before", "drop after", "refused", "delay", "row before", "row after"]


@dataclass
class Faults:
    """Requests that fail.

    - ``before`` and ``after``: the answer is OTSInternalServerError, which does not say if the request was applied.
      Before: nothing was applied. After: everything was.
    - ``drop before`` and ``drop after``: the same, but the connection ends without an answer.
    - ``refused``: the answer is the error ``code``, and nothing was applied. The SDK repeats OTSServerBusy by itself.
    - ``delay``: the request waits, then it is applied and answered.
    - ``row before`` and ``row after``: the same as before and after for one row of a BatchWriteRow. The other rows are
      applied and answered.

    :ivar share: the share of the requests that fail, among those for which ``when`` holds.
    :ivar when: called with the API and the table.
    :ivar times: the most faults.
    :ivar delay: seconds.
    :ivar injected: the number of faults so far.
    """

    kinds: Sequence[Kind] = ("before", "after", "drop before", "drop after")
    share: float = 1.0
    seed: int = 0
    when: Callable[[str, str], bool] = lambda _api, _table: True
    times: int | None = None
    delay: float = 0.1
    code: str = "OTSServerBusy"
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
        """Return the number of the row that fails."""
        return self._random.randrange(max(rows, 1))
