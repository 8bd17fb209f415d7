"""PgBouncer in transaction pooling in front of a server, if ``SESSION_HISTORY_TEST_PGBOUNCER`` names the program.

No wheel contains PgBouncer, so CI runs without it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.ports import free_port
from servers.postgresql import PASSWORD, START_TIMEOUT, USER, Server

PROGRAM = os.environ.get("SESSION_HISTORY_TEST_PGBOUNCER")

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 8
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits, options
"""
"""The server has fewer connections than there are clients, so that clients share connections."""


@contextmanager
def pooled(server: Server, program: str) -> Iterator[str]:
    """Run PgBouncer, and yield the URL of a database behind it."""
    folder, port = server.machine.folder, free_port()
    users, settings, log = (folder / f"pgbouncer.{name}" for name in ("users", "ini", "log"))
    _write(users, f'"{USER}" "{PASSWORD}"\n')
    _write(settings, SETTINGS.format(server=server, port=port, users=users))
    process = server.machine.spawn(program, "--quiet", settings, log=log)
    try:
        _wait_until_it_listens(process, port, log)
        yield server.url().replace(f":{server.port}/", f":{port}/")
    finally:
        process.kill()
        process.wait()


def _write(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o644)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not _listens(port):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
