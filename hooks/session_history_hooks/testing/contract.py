"""The contract suite: everything that a provider must do, with one test for each promise."""

from __future__ import annotations

from typing import ClassVar

import pytest

from session_history_hooks.testing.activity import ActivityContract
from session_history_hooks.testing.appending import AppendingContract
from session_history_hooks.testing.claims import ClaimsContract
from session_history_hooks.testing.claims_table import ClaimsTableContract
from session_history_hooks.testing.concurrency import ConcurrencyContract
from session_history_hooks.testing.deleting import DeletingContract
from session_history_hooks.testing.entry_keys import EntryKeysContract
from session_history_hooks.testing.identity import IdentityContract
from session_history_hooks.testing.lifecycle import LifecycleContract
from session_history_hooks.testing.listing import ListingContract
from session_history_hooks.testing.origins import OriginsContract
from session_history_hooks.testing.paging import PagingContract
from session_history_hooks.testing.processes import ProcessesContract
from session_history_hooks.testing.reading import ReadingContract
from session_history_hooks.testing.refusing import RefusingContract
from session_history_hooks.testing.restoring import RestoringContract
from session_history_hooks.testing.restoring_refusals import RestoringRefusalsContract
from session_history_hooks.testing.retrying import RetryingContract
from session_history_hooks.testing.rewriting import RewritingContract
from session_history_hooks.testing.searching import SearchableContract
from session_history_hooks.testing.users import UsersContract


class ProviderContract(
    AppendingContract,
    OriginsContract,
    ActivityContract,
    EntryKeysContract,
    RefusingContract,
    RetryingContract,
    ReadingContract,
    DeletingContract,
    RewritingContract,
    ClaimsContract,
    PagingContract,
    ListingContract,
    IdentityContract,
    UsersContract,
    RestoringContract,
    RestoringRefusalsContract,
    SearchableContract,
    ConcurrencyContract,
    ProcessesContract,
    LifecycleContract,
    ClaimsTableContract,
):
    """The contract of :class:`~session_history_hooks.SessionHistoryProvider`.

    A subclass has a fixture ``connect``, see :data:`~session_history_hooks.testing.Connect`, and names the abilities of
    its provider: ``abilities = (Users, Restorable)``.
    """

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.asyncio
