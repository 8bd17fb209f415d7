"""Blocks of the language ``py`` that need names or a server which a page cannot give: the tests give them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import asyncpg

from docs.examples import run, scripted_model
from servers.postgresql import running, servers
from session_history import SqliteSessionHistoryService, TablestoreSessionHistoryService
from support import ROOT

DOCS = ROOT / "docs"


def block(page: str, beginning: str) -> str:
    """Return the block that begins with these words."""
    found = re.search(rf"^```py\n({re.escape(beginning)}.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def test_example_of_the_tablestore_page_makes_a_service() -> None:
    names: dict[str, Any] = {"key_id": "a-key", "secret": "a-secret"}
    await run(block("reference/tablestore.md", "from session_history import Tablestore"), names)
    assert isinstance(names["service"], TablestoreSessionHistoryService)


async def test_example_of_the_postgresql_page_prints_the_migration() -> None:
    code = block("reference/postgresql.md", "from session_history.providers.postgresql")
    with servers() as machine, running(machine) as server:
        owner = await asyncpg.connect(server.url())
        await owner.execute("CREATE SCHEMA app")
        await owner.close()
        printed = await run(code.replace("postgresql://owner@db.example.com/history", server.url()), {})
    assert [printed[0], printed[-1]] == ["BEGIN;", "COMMIT;"]
    assert any("app" in line for line in printed)


async def test_agent_of_the_migration_page_keeps_its_conversation(tmp_path: Path, monkeypatch: Any) -> None:
    from agentscope.message import UserMsg

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": scripted_model()}
    await run(block("how-to/migration.md", "from agentscope.agent import Agent"), names)
    await names["agent"].reply(UserMsg("ada", "Hello"))
    assert isinstance(names["service"], SqliteSessionHistoryService)
    session: Any = await names["service"].get_session("ada", "s1", native=True)
    assert [message["role"] for message in session.messages] == ["user", "assistant"]
    await names["service"].stop()
