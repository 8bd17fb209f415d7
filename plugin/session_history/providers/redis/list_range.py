"""Ranges of a list, chosen before its length is known."""

from __future__ import annotations

from typing import NamedTuple

PAGE = 1000
"""The most entries that a read returns."""

MAX_INDEX = 2**53
"""An index that no list has."""


class ListRange(NamedTuple):
    """Two indexes as ``LRANGE`` takes them: both inclusive, the first element is 0, the last element is -1."""

    start: int
    stop: int

    @classmethod
    def covering(cls, *, last: int | None, before: int | None, after: int | None) -> ListRange | None:
        """Return a range with all that a read can return, or ``None`` if it returns no entries.

        The range is too short if ``before`` is beyond the tail.
        """
        count = PAGE if last is None else last
        skipped = 0 if after is None else max(0, min(after, MAX_INDEX))
        if count <= 0 or (before is not None and before <= skipped + 1):
            return None
        oldest_first = after is not None and last is None
        if before is None or before > MAX_INDEX:
            if oldest_first:
                return cls(skipped, skipped + count - 1)
            # Of more than a page, the entries behind `after` may be fewer than the newest `count`.
            return cls(-count if count <= PAGE else skipped, -1)
        start = skipped if oldest_first else max(skipped, before - 1 - count)
        return cls(start, min(before - 2, start + count - 1))

    def slice_of(self, seqs: range, tail: int, found: int) -> slice | None:
        """Return where the entries ``seqs`` stand in the answer, or ``None`` if it lacks some of them.

        :param tail: the length of the list.
        :param found: the length of the answer.
        """
        first = self.start if self.start >= 0 else max(0, tail + self.start)
        place = seqs.start - 1 - first
        return slice(place, place + len(seqs)) if place >= 0 and place + len(seqs) <= found else None
