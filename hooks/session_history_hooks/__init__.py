"""The contract of ``session-history``: all that the author of a provider imports."""

from session_history_hooks.errors import (
    ConfigurationError,
    Conflict,
    Corrupt,
    IncompatibleStore,
    InvalidCursor,
    InvalidKey,
    LimitExceeded,
    SessionHistoryError,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)
from session_history_hooks.keys import KEY_BYTES, SessionKey, check_key
from session_history_hooks.limits import Durability, Limits
from session_history_hooks.listing import ListingCursor, Page
from session_history_hooks.log import Appended, Entry, Head, Log, Position, Snapshot, select_seqs
from session_history_hooks.provider import SessionHistoryProvider
from session_history_hooks.spec import ProviderOptions, ProviderSpec, hookimpl, hookspec, session_history_providers

__all__ = [
    "KEY_BYTES",
    "Appended",
    "ConfigurationError",
    "Conflict",
    "Corrupt",
    "Durability",
    "Entry",
    "Head",
    "IncompatibleStore",
    "InvalidCursor",
    "InvalidKey",
    "LimitExceeded",
    "Limits",
    "ListingCursor",
    "Log",
    "Page",
    "Position",
    "ProviderOptions",
    "ProviderSpec",
    "SessionHistoryError",
    "SessionHistoryProvider",
    "SessionKey",
    "Snapshot",
    "StoreFull",
    "StoreReadOnly",
    "Unavailable",
    "check_key",
    "hookimpl",
    "hookspec",
    "select_seqs",
    "session_history_providers",
]
