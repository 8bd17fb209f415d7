"""Records and summaries of which a part is damaged: each is read rightly, or refused with an error that says so."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from session_history import SessionHistoryService
from session_history.errors import SessionHistoryError, Unavailable
from session_history.providers.memory import MemoryProvider
from session_history.records.messages import NATIVE, StoredMessage
from session_history.records.record import (
    Author,
    Continuation,
    HistoryStart,
    MessageRef,
    Record,
    Revision,
    Slot,
    Status,
)
from session_history.records.summary import SessionSummary
from session_history_hooks import Entry, Position, SessionKey, Snapshot

KEY = SessionKey("u", "s")

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 7, 2**31, 2**63, 2**64, 10**30, 1.5, -0.5, 1e300, "", "x", "user", "open", [], [1],
    [0, 0], [[]], [None], ["x", "y"], {}, {"a": 1}, {"role": "user", "content": "x"}, [[["x"]]],
)  # fmt: skip

MESSAGES = (
    StoredMessage(NATIVE, {"role": "user", "content": "Hello", "id": "m1"}),
    StoredMessage(NATIVE, {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}),
)

RECORDS = (
    Record(Author.SESSION, 0, changes={"title": "t", "metadata": {"a": [1]}}),
    Record(Author.APPEND, 1, MESSAGES),
    Record(
        Author.TURN,
        2,
        MESSAGES,
        status=Status.COMPLETED,
        inputs=(MessageRef(0, 0),),
        shape=["text"],
        answer=(MessageRef(0, 1),),
        turn_id="t1",
        slots={"agent": Slot({"a": 1}, 0, HistoryStart(MessageRef(1, 0), 1), MessageRef(0, 1))},
    ),
    Record(
        Author.TURN,
        3,
        MESSAGES[1:],
        status=Status.OPEN,
        inputs=(MessageRef(3, 0),),
        continues=Continuation(3, 3),
        revisions=(Revision(MessageRef(3, 1), 1, MESSAGES[1]),),
        turn_id="t1",
    ),
)

SUMMARY = SessionSummary("t", {"a": 1}, 1, 2, 1_700_000_000_000_000, plain=True, slots={"agent": 3})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each value within a document, and to the document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a document with another value at a path."""
    if not path:
        return value
    changed = document.copy()
    changed[path[0]] = with_value(document[path[0]], path[1:], value)
    return changed


def without(document: Any, path: tuple[Any, ...]) -> Any:
    """Return a document without the value at a path."""
    changed = document.copy()
    if len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = without(document[path[0]], path[1:])
    return changed


def damaged(data: bytes) -> list[bytes]:
    """Return bytes with another value at each place, without each value, cut off, and with flipped bits."""
    document = json.loads(data)
    paths = list(places(document))
    chance = random.Random(len(data))
    found = [json.dumps(with_value(document, path, value)).encode() for path in paths for value in VALUES]
    found += [json.dumps(without(document, path)).encode() for path in paths if path]
    found += [data[:end] for end in range(0, len(data), 3)]
    for _ in range(300):
        place = chance.randrange(len(data))
        found.append(data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :])
    found += [b"\xff" + data, data + data, b"[" * 99_999, b'"\\ud800"', b"NaN", b"1e999"]
    found.append(data.replace(b"1", b"9" * 5000))
    return found


@pytest.mark.parametrize("record", RECORDS, ids=["session", "append", "turn", "part"])
def test_decode_of_a_damaged_record_raises_only_our_errors(record: Record) -> None:
    for data in damaged(replace(record, lease=30.0).encode()):
        with suppress(SessionHistoryError):
            decoded = Record.decode(data, KEY, 4)
            SUMMARY.with_record(4, decoded).encode()
        with suppress(SessionHistoryError):
            Record.decode_all([data, record.encode()], KEY, 4)


def test_decode_of_a_damaged_summary_raises_only_our_errors() -> None:
    for data in damaged(replace(SUMMARY, lease=30.0).encode()):
        with suppress(SessionHistoryError):
            SessionSummary.decode(data, KEY).with_record(4, RECORDS[2]).encode()


@pytest.mark.parametrize("number", range(len(RECORDS)), ids=["session", "append", "turn", "part"])
async def test_session_with_a_damaged_record_is_read_or_refused_with_our_error(number: int) -> None:
    """A listing shows the session in any case, or names it."""
    chance = random.Random(number)
    for data in chance.sample(damaged(RECORDS[number].encode()), 100):
        payloads = [record.encode() for record in RECORDS]
        payloads[number] = data
        async with SessionHistoryService(MemoryProvider()) as service:
            for seq, payload in enumerate(payloads):
                await service.provider.append(KEY, Entry(f"t{seq - 1}", payload), at=Position(0, seq))
            await use(service)


async def test_session_with_a_damaged_summary_is_used_as_one_without() -> None:
    for data in random.Random(1).sample(damaged(SUMMARY.encode()), 100):
        async with SessionHistoryService(MemoryProvider()) as service:
            entry = Entry("t1", RECORDS[2].encode(), origin="o")
            await service.provider.append(KEY, entry, at=Position(0, 0), snapshot=Snapshot(1, "o", data))
            await use(service)


async def use(service: SessionHistoryService) -> None:
    """Make the calls of the service. An error that is not ours, or that blames the connection, escapes."""
    listed = await service.list_sessions("u")
    assert {session.id for session in listed} | set(listed.unreadable) == {"s"}
    for native in (False, True):
        with refusals():
            await service.get_session("u", "s", native=native)
    with refusals():
        await service.get_session("u", "s", last_turns=1)
    for turn_id in ("t1", "new"):
        with refusals():
            said = MESSAGES[0].value
            async with service.turn("u", "s", turn_id=turn_id, slot="agent", native=True, input=said) as turn:
                turn.add({"role": "assistant", "content": "x"})
    with refusals():
        await service.update_session("u", "s", title="new")


@contextmanager
def refusals() -> Iterator[None]:
    """Suppress errors that say what is damaged."""
    try:
        yield
    except Unavailable:
        raise
    except SessionHistoryError:
        pass
