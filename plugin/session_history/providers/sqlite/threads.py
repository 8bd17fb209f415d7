"""Threads that own a connection, so that no work of SQLite's happens on an event loop."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from session_history.providers.sqlite.file import connect, examine, identity, prepare, rollback, translate
from session_history.providers.sqlite.turnstile import Turnstile
from session_history_hooks import SessionHistoryError, Unavailable

T = TypeVar("T")

BATCH = 256
"""The most jobs in one transaction: enough to share an fsync widely, few enough to let others in."""


class Task(Generic[T]):
    """A job that waits for its thread, and the future of whoever waits for its outcome."""

    def __init__(self, job: Callable[[sqlite3.Connection], T]) -> None:
        self.job = job
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()


class ConnectionThread:
    """Runs jobs on one connection, in the order they came, taking all that wait at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._tasks: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._open = True
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"session-history {type(self).__name__}", daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Block until the connection is open.

        :raises SessionHistoryError: it could not be opened.
        """
        self._ready.result()

    def submit(self, job: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue a job for the event loop that runs; its outcome, or the error it raised, is in the future."""
        if os.getpid() != self._pid:
            raise Unavailable(f"{self._path} was open when this process was forked; open it after the fork, or spawn")
        task = Task(job)
        with self._door:
            if not self._open:
                raise Unavailable(f"{self._path} is closed")
            self._tasks.put(task)
        return task.future

    @property
    def alive(self) -> bool:
        """Whether it takes jobs, and its thread was not lost in a fork."""
        return self._open and self._thread.is_alive()

    def close(self) -> None:
        """Finish what waits, close the connection and block until that is done."""
        with self._door:
            if self._open:
                self._open = False
                self._tasks.put(None)
        if os.getpid() == self._pid:
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._translated():
                connection = self._connect()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        with closing(connection):
            self._ready.set_result(None)
            batch: list[Task[Any]] = []
            try:
                while batch := self._take():
                    self._serve(connection, batch)
            finally:
                self._abandon(batch)

    def _abandon(self, batch: list[Task[Any]]) -> None:
        """Leave nobody waiting, whatever ended the thread."""
        with self._door:
            self._open = False
            self._tasks.put(None)
        while waiting := self._take():
            batch = batch + waiting
        answer([(task, Unavailable(f"the thread of {self._path} has ended")) for task in batch])

    def _take(self) -> list[Task[Any]]:
        """All tasks that wait, at least one; none when the thread is to end."""
        batch: list[Task[Any]] = []
        while len(batch) < BATCH:
            try:
                task = self._tasks.get(block=not batch)
            except queue.Empty:
                break
            if task is None:
                if batch:
                    self._tasks.put(None)
                break
            if not task.future.cancelled():
                batch.append(task)
        return batch

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self._path) from None  # the driver's own text may show content

    def _error(self, error: BaseException) -> BaseException:
        """Our error for each who waits: one object for all would mix their notes and tracebacks."""
        return translate(error, self._path) if isinstance(error, sqlite3.Error) else error

    def _connect(self) -> sqlite3.Connection:
        raise NotImplementedError

    def _serve(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        raise NotImplementedError


class Reader(ConnectionThread):
    """Runs every job in a snapshot of its own."""

    def __init__(self, path: Path, *, patience: float) -> None:
        self._patience = patience
        super().__init__(path)

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, timeout=self._patience, mode="rw")
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _serve(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        for task in batch:
            answer([(task, self._look(connection, task))])

    def _look(self, connection: sqlite3.Connection, task: Task[T]) -> T | BaseException:
        try:
            with self._translated():
                return self._snapshot(connection, task)
        except BaseException as error:
            return error

    @staticmethod
    def _snapshot(connection: sqlite3.Connection, task: Task[T]) -> T:
        connection.execute("BEGIN")
        try:
            return task.job(connection)
        finally:
            rollback(connection)


class Writer(ConnectionThread):
    """Runs the jobs that wait in one transaction and answers them after its COMMIT: they share its fsync."""

    def __init__(self, path: Path, *, synchronous: str, patience: float) -> None:
        self._synchronous = synchronous
        self._patience = patience
        self._turnstile = Turnstile()
        super().__init__(path)

    def _connect(self) -> sqlite3.Connection:
        examine(self._path, self._patience)
        connection = connect(self._path, timeout=self._patience)
        try:
            prepare(connection, self._path, synchronous=self._synchronous, patience=self._patience)
            self._identity = identity(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _serve(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        try:
            outcomes = self._commit(connection, batch)
        except _NotCommittedError:
            # One job may have spoilt it for all. An append that was committed after all finds its own id.
            for task in batch:
                self._serve_alone(connection, task)
        except BaseException as error:
            answer([(task, self._error(error)) for task in batch])
        else:
            answer(list(zip(batch, outcomes, strict=True)))

    def _serve_alone(self, connection: sqlite3.Connection, task: Task[Any]) -> None:
        try:
            [outcome] = self._commit(connection, [task])
        except _NotCommittedError as error:
            outcome = error.cause
        except BaseException as error:
            outcome = self._error(error)
        answer([(task, outcome)])

    def _commit(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> list[Any]:
        try:
            self._turnstile.enter(connection, self._patience)
        except BaseException:
            rollback(connection)
            raise
        try:
            with self._translated():
                self._insist_same_file()
                outcomes = [_outcome(task, connection) for task in batch]
                connection.execute("COMMIT")
        except BaseException as error:
            with self._translated():
                rollback(connection)
            raise _NotCommittedError(error) from error
        if not all(isinstance(outcome, SessionHistoryError) for outcome in outcomes):
            # Who only learned of a conflict tries again at once: it is that one's turn.
            self._turnstile.leave()
        return outcomes

    def _insist_same_file(self) -> None:
        """A file that was deleted or replaced still takes what is written, and loses it."""
        if not self.still_there:
            raise Unavailable(f"{self._path} was deleted or replaced since it was opened; start the service anew")

    @property
    def still_there(self) -> bool:
        """Whether the file is the one that was opened."""
        try:
            return identity(self._path) == self._identity
        except OSError:
            return False


class _NotCommittedError(Exception):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


def _outcome(task: Task[Any], connection: sqlite3.Connection) -> Any:
    """What the job returned; what it refused is an outcome too, since it refuses before it writes."""
    try:
        return task.job(connection)
    except SessionHistoryError as refusal:
        return refusal


Answer = tuple[Task[Any], Any]
"""A task, and what its job returned, or the error that is to be raised instead."""


def answer(answers: list[Answer]) -> None:
    """Hand outcomes over to those who wait, to all of an event loop at once: each call wakes the loop up."""
    loops = {task.loop for task, _ in answers}
    for loop in loops:
        with suppress(RuntimeError):  # the loop was closed; nobody waits there any more
            loop.call_soon_threadsafe(_deliver, [each for each in answers if each[0].loop is loop])


def _deliver(answers: list[Answer]) -> None:
    for task, outcome in answers:
        if task.future.done():
            continue
        if isinstance(outcome, BaseException):
            task.future.set_exception(outcome)
        else:
            task.future.set_result(outcome)
