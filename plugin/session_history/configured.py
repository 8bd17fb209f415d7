"""The service that the runtime configuration names."""

from __future__ import annotations

import threading
from functools import cache

from session_history.service import SessionHistoryService

_lock = threading.Lock()


def configured_service() -> SessionHistoryService:
    """Return the one service of this process that the runtime configuration names; it is made on first use.

    :raises ConfigurationError: see :meth:`SessionHistoryService.from_config`.
    """
    with _lock:  # threads that come first at once must not get a service each
        return _configured_service()


@cache
def _configured_service() -> SessionHistoryService:
    return SessionHistoryService.from_config()
