"""The contract suite: everything that a provider must do, with one test for each promise."""

from __future__ import annotations

from typing import ClassVar

import pytest

from session_history_hooks.testing.appending import AppendingContract
from session_history_hooks.testing.claims import ClaimsContract
from session_history_hooks.testing.claims_table import ClaimsTableContract
from session_history_hooks.testing.concurrency import ConcurrencyContract
from session_history_hooks.testing.deleting import DeletingContract
from session_history_hooks.testing.lifecycle import LifecycleContract
from session_history_hooks.testing.listing import ListingContract
from session_history_hooks.testing.processes import ProcessesContract
from session_history_hooks.testing.reading import ReadingContract
from session_history_hooks.testing.retrying import RetryingContract
from session_history_hooks.testing.rewriting import RewritingContract


class ProviderContract(
    AppendingContract,
    RetryingContract,
    ReadingContract,
    DeletingContract,
    RewritingContract,
    ClaimsContract,
    ListingContract,
    ConcurrencyContract,
    ProcessesContract,
    LifecycleContract,
    ClaimsTableContract,
):
    """The contract of :class:`~session_history_hooks.SessionHistoryProvider`.

    A subclass has a fixture ``connect``, see :data:`~session_history_hooks.testing.Connect`.
    """

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.asyncio
