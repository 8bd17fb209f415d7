"""The contract of ``session-history``: everything that the author of a provider or a wrapper imports."""

from session_history_hooks.errors import (
    ConfigurationError,
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
from session_history_hooks.log import Appended, Conflict, Entry, Head, Log, Position, Snapshot, select_seqs
from session_history_hooks.provider import SessionHistoryProvider
from session_history_hooks.spec import (
    OpenInner,
    ProviderOptions,
    ProviderSpec,
    WrapperOptions,
    WrapperSpec,
    hookimpl,
    hookspec,
    session_history_providers,
    session_history_wrappers,
)

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
    "OpenInner",
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
    "WrapperOptions",
    "WrapperSpec",
    "check_key",
    "hookimpl",
    "hookspec",
    "select_seqs",
    "session_history_providers",
    "session_history_wrappers",
]
