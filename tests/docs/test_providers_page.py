"""The claims tables of ``docs/reference/providers.md`` are those that the contract suite prints."""

from __future__ import annotations

import re

import pytest

from session_history.providers.memory import MemoryProvider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.providers.sqlite import SqliteProvider
from session_history.providers.tablestore import LIMITS, TablestoreProvider
from session_history_hooks import Limits
from session_history_hooks.testing.claims_table import claims_table
from support import ROOT

PAGE = (ROOT / "docs" / "reference" / "providers.md").read_text(encoding="utf-8")
CLAIMED: dict[type, Limits] = {
    MemoryProvider: MemoryProvider().limits,
    SqliteProvider: SqliteProvider("history.db").limits,
    PostgresqlProvider: PostgresqlProvider("postgresql://localhost").limits,
    RedisProvider: RedisProvider("redis://localhost").limits,
    TablestoreProvider: LIMITS,
}


@pytest.mark.parametrize("provider", CLAIMED, ids=lambda provider: provider.__name__)
def test_table_is_the_one_that_the_suite_prints(provider: type) -> None:
    *printed, _turn = claims_table(provider.__name__, CLAIMED[provider], "").splitlines()
    assert "\n".join(printed) + "\n\n- **A turn costs** " in PAGE


def test_page_has_one_table_for_each_provider() -> None:
    assert re.findall(r"^\| `(\w+)` \| \|$", PAGE, re.MULTILINE) == [provider.__name__ for provider in CLAIMED]
