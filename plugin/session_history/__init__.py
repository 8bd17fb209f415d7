"""Session history for agent runtimes: load a conversation before a turn, append to it afterwards."""

from session_history.configured import configured_service
from session_history.errors import SessionHistoryError
from session_history.handlers.decorator import with_session_history
from session_history.handlers.signature import Identity
from session_history.presets import (
    InMemorySessionHistoryService,
    PostgresqlSessionHistoryService,
    RedisSessionHistoryService,
    SqliteSessionHistoryService,
    TablestoreSessionHistoryService,
    create_tablestore_client,
)
from session_history.records.markers import Marker
from session_history.records.messages import (
    Content,
    DataContent,
    ImageContent,
    Message,
    MessageInput,
    Role,
    StoredMessage,
    TextContent,
)
from session_history.records.record import HistoryStart, MessageRef, Status
from session_history.service import SessionHistoryService
from session_history.session import Session, SessionList
from session_history.turns.recorder import TurnRecorder
from session_history.turns.turn import Turn
from session_history.version import __version__
from session_history.view.budget import TokenBudget
from session_history.view.repair import Repair

__all__ = [
    "Content",
    "DataContent",
    "HistoryStart",
    "Identity",
    "ImageContent",
    "InMemorySessionHistoryService",
    "Marker",
    "Message",
    "MessageInput",
    "MessageRef",
    "PostgresqlSessionHistoryService",
    "RedisSessionHistoryService",
    "Repair",
    "Role",
    "Session",
    "SessionHistoryError",
    "SessionHistoryService",
    "SessionList",
    "SqliteSessionHistoryService",
    "Status",
    "StoredMessage",
    "TablestoreSessionHistoryService",
    "TextContent",
    "TokenBudget",
    "Turn",
    "TurnRecorder",
    "__version__",
    "configured_service",
    "create_tablestore_client",
    "with_session_history",
]
