"""The one name of each error, in tracebacks, in pickles and in other processes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback

import pytest

import session_history_hooks
from session_history import errors
from session_history.errors import (
    AgentBusy,
    BackupExists,
    ConfigurationError,
    Conflict,
    Corrupt,
    IncompatibleStore,
    InvalidCursor,
    InvalidKey,
    InvalidMessage,
    LimitExceeded,
    MissingDriver,
    NotStorable,
    PluginError,
    SessionBusy,
    SessionDeleted,
    SessionExists,
    SessionHistoryError,
    SessionNotFound,
    StoreFull,
    StoreReadOnly,
    TranscriptEdited,
    TurnClosed,
    TurnIdReused,
    TurnOvertaken,
    Unavailable,
    UnknownScheme,
    UnknownWrapper,
    Unsupported,
)
from session_history.providers.memory import MemoryProvider
from session_history_hooks import Head, Position, SessionKey

KEY = SessionKey("u", "s")
HEAD = Head(
    KEY,
    Position(0, 1),
    "origin",
    deleted=False,
    heartbeat=0,
    rewrite_id="",
    active_us=1,
    changed_us=1,
    snapshot=None,
)
ERRORS: list[SessionHistoryError] = [
    BackupExists("x"),
    ConfigurationError("x"),
    Conflict(HEAD, keys=("k",), recreated=True),
    Corrupt("x"),
    IncompatibleStore("x"),
    InvalidCursor("x"),
    InvalidKey("user_id", "is odd"),
    InvalidMessage("messages[0]", "is odd"),
    LimitExceeded("entry bytes", 2, 1),
    MissingDriver("x", name="asyncpg"),
    NotStorable("messages[0]", "is odd"),
    PluginError("x"),
    AgentBusy(KEY),
    SessionBusy(KEY, own=True),
    SessionDeleted(KEY, traceless=True),
    SessionExists(KEY),
    SessionHistoryError("x"),
    SessionNotFound(KEY),
    StoreFull("x"),
    StoreReadOnly("x"),
    TranscriptEdited("input[0]"),
    TurnClosed("x"),
    TurnIdReused(KEY),
    TurnOvertaken(KEY),
    Unavailable("x"),
    UnknownScheme("x", ("memory",)),
    UnknownWrapper("x", ()),
    Unsupported("x"),
]


def name_of(error: SessionHistoryError) -> str:
    return type(error).__name__


def run(code: str, data: bytes = b"") -> str:
    """Return what a new process prints."""
    ended = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, timeout=60)
    return ended.stdout.decode()


def test_list_of_errors_is_complete() -> None:
    assert sorted(map(name_of, ERRORS)) == sorted(errors.__all__)


@pytest.mark.parametrize("error", ERRORS, ids=name_of)
def test_error_shows_the_module_that_users_import(error: SessionHistoryError) -> None:
    name = f"session_history.errors.{name_of(error)}"
    assert repr(type(error)) == f"<class '{name}'>"
    assert traceback.format_exception_only(error)[0].startswith(f"{name}: ")


@pytest.mark.parametrize("error", ERRORS, ids=name_of)
def test_error_survives_pickling_and_copying(error: SessionHistoryError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(error, protocol)
        assert b"session_history.errors" in pickled
        assert b"session_history_hooks.errors" not in pickled
        for again in (pickle.loads(pickled), copy.copy(error)):
            assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_error_is_unpickled_in_a_process_without_any_import() -> None:
    code = (
        "import pickle, sys; errors = pickle.load(sys.stdin.buffer)\n"
        "import session_history_hooks\n"
        "assert all(isinstance(error, session_history_hooks.SessionHistoryError) for error in errors)\n"
        "for error in errors: print(type(error).__module__, type(error).__name__, error)"
    )
    expected = [f"session_history.errors {name_of(error)} {error}" for error in ERRORS]
    assert run(code, pickle.dumps(ERRORS)).splitlines() == expected


def test_error_pickled_by_the_contract_without_the_service_is_unpickled() -> None:
    code = (
        "import pickle, sys; from session_history_hooks import Conflict, Unavailable\n"
        "pickled = pickle.dumps([Unavailable('x'), Conflict(None)], 0).decode()\n"
        "assert 'session_history' not in sys.modules\n"
        "assert len(pickle.loads(pickled.encode())) == 2\n"
        "assert 'session_history' not in sys.modules\n"
        "print(pickled, end='')"
    )
    unavailable, conflict = pickle.loads(run(code).encode())
    assert (type(unavailable), str(unavailable), type(conflict)) == (Unavailable, "x", Conflict)


def test_contract_and_service_have_the_same_errors() -> None:
    for name in set(errors.__all__) & set(session_history_hooks.__all__):
        assert getattr(errors, name) is getattr(session_history_hooks, name)


async def test_error_that_a_provider_raises_shows_the_module_that_users_import() -> None:
    with pytest.raises(ConnectionError) as raised:
        await MemoryProvider().read(KEY)
    assert traceback.format_exception_only(raised.value)[0].startswith("session_history.errors.Unavailable: ")
