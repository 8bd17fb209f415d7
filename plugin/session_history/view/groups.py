"""Groups of messages that a cut must not part: calls and all their results."""

from __future__ import annotations

from collections.abc import Sequence

from session_history.records.messages import StoredMessage
from session_history.view.shapes import Kind, Speaker, reading_of, speaker

_CALLS = {Kind.CALL, Kind.HOSTED_CALL}

_RESULTS = {Kind.RESULT, Kind.HOSTED_RESULT}


def group_starts(messages: Sequence[StoredMessage]) -> list[int]:
    """Return the index of the first message of each group: of calls with all their results, or of a single message."""
    joined: set[int] = set()
    calls: dict[str | None, int] = {}
    for index, reading in enumerate(map(reading_of, messages)):
        if reading is None:
            continue
        if all(part.kind is Kind.REASONING for part in reading.parts):
            joined.add(index + 1)  # an API refuses reasoning without what it led to
        if reading.speaker is Speaker.RESULTS:
            joined.add(index)
        for part in reading.parts:
            if part.kind in _CALLS:
                calls[part.call_id] = calls[part.name] = index
            elif part.kind in _RESULTS:
                joined.update(range(calls.get(part.call_id, index) + 1, index + 1))
    return [index for index in range(len(messages)) if index == 0 or index not in joined]


def input_count(messages: Sequence[StoredMessage]) -> int:
    """Return how many messages are input: those up to the first that is not of a user, developer or system."""
    for index, message in enumerate(messages):
        if speaker(message, reading_of(message)) is not Speaker.INPUT:
            return index
    return len(messages)
