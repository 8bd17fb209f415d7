"""The backups of ``docs/how-to/backup-and-restore.md`` on PostgreSQL: its commands are run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from contract.backups import check_backup_and_restore
from providers.postgresql.support import provider_of, shared_machine
from servers.postgresql import Server, running
from support import ROOT

PAGE = (ROOT / "docs" / "how-to" / "backup-and-restore.md").read_text(encoding="utf-8")

COMMANDS = re.findall(
    r"^ *```sh\n(.*?)^ *```", PAGE.split("## PostgreSQL")[1].split("\n## ")[0], re.MULTILINE | re.DOTALL
)


@pytest.fixture
def server() -> Iterator[Server]:
    with running(shared_machine(), "wal_level=replica") as server:
        yield server


def command(program: str) -> str:
    """Return the block of commands of the page that uses a program."""
    block: str
    [block] = [each for each in COMMANDS if program in each]
    return block


def run(block: str, folder: Path, server: Server) -> None:
    path = f"{server.machine.binaries}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DATABASE_URL": server.url()}
    done = subprocess.run(
        ["bash", "-euc", block], check=False, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def test_restore_of_a_dump_shows_each_session_up_to_the_backup(server: Server, tmp_path: Path) -> None:
    run('psql --command="CREATE SCHEMA app" "$DATABASE_URL"', tmp_path, server)
    back_up = partial(run, command("pg_dump "), tmp_path, server)
    restore = partial(run, command("pg_restore "), tmp_path, server)
    await check_backup_and_restore(partial(provider_of, server.url(), "app"), back_up, restore)


async def test_restore_of_a_base_backup_shows_each_session_up_to_the_backup(server: Server) -> None:
    machine, data = server.machine, server.data.with_suffix(".backup")

    def back_up() -> None:
        machine.run("pg_basebackup", "-D", data, "-d", server.url(), "-c", "fast", "--no-sync")

    def restore() -> None:
        server.stop()
        server.data = data
        server.start()

    await check_backup_and_restore(partial(provider_of, server.url(), None), back_up, restore)
