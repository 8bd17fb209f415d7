"""Which part of a list to ask for, before its length is known."""

from __future__ import annotations

from typing import NamedTuple

PAGE = 1000

FARTHEST = 2**53
"""No list is longer, and no number further from zero means anything else."""


class Window(NamedTuple):
    """Places in a list as ``LRANGE`` has them: from 0, both inclusive; from the end if negative."""

    start: int
    stop: int

    @classmethod
    def around(cls, *, last: int | None, before: int | None, after: int | None) -> Window | None:
        """All that a read can return, as long as ``before`` is not beyond the tail; ``None`` if that is nothing."""
        most = PAGE if last is None else last
        behind = 0 if after is None else max(0, min(after, FARTHEST))
        if most <= 0 or (before is not None and before <= behind + 1):
            return None
        forwards = after is not None and last is None
        if before is None or before > FARTHEST:
            # The newest of a few are asked for; of many, what is behind `after` may be less.
            return cls(behind, behind + most - 1) if forwards else cls(-most if most <= PAGE else behind, -1)
        start = behind if forwards else max(behind, before - 1 - most)
        return cls(start, min(before - 2, start + most - 1))

    def cut(self, seqs: range, tail: int, found: int) -> slice | None:
        """What of the answer are the entries ``seqs``; ``None`` if it does not hold them.

        :param tail: the length of the list.
        :param found: the length of the answer.
        """
        first = self.start if self.start >= 0 else max(0, tail + self.start)
        place = seqs.start - 1 - first
        return slice(place, place + len(seqs)) if place >= 0 and place + len(seqs) <= found else None
