"""Threads that own a connection each, so that SQLite never blocks an event loop."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from session_history.providers.common.forks import ForkGuard
from session_history.providers.sqlite.belonging import require_own_wal
from session_history.providers.sqlite.fairness import WriteFairness
from session_history.providers.sqlite.file import connect, examine, prepare, rollback, translate
from session_history.providers.sqlite.marks import MarkKeeper
from session_history.providers.sqlite.reserve import Reserve
from session_history.providers.sqlite.watch import FileWatch
from session_history_hooks import SessionHistoryError, StoreFull, Unavailable

T = TypeVar("T")

BATCH = 256
"""The most jobs in one transaction: many share an fsync, and other processes still get the lock often enough."""


class Task(Generic[T]):
    """A job for a thread, and the future of its caller.

    :ivar deletes: the job deletes content, so it may use the room that is kept for that.
    """

    def __init__(self, job: Callable[[sqlite3.Connection], T], *, deletes: bool) -> None:
        self.job = job
        self.deletes = deletes
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()


class ConnectionThread:
    """Runs jobs on one connection, in the order of their submission. Takes all waiting jobs at once."""

    def __init__(self, path: Path, guard: ForkGuard) -> None:
        self._path = path
        self._guard = guard
        self._tasks: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"session-history {type(self).__name__}", daemon=True)
        self._thread.start()

    def connect(self) -> sqlite3.Connection:
        """Open the connection, in the thread."""
        raise NotImplementedError

    def disconnect(self, connection: sqlite3.Connection) -> None:
        """Close the connection, in the thread."""
        connection.close()

    def serve(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        """Run the jobs of a batch and resolve their futures, in the thread."""
        raise NotImplementedError

    def wait_ready(self) -> None:
        """Block until the connection is open.

        :raises SessionHistoryError: it could not be opened.
        """
        self._ready.result()

    def submit(self, job: Callable[[sqlite3.Connection], T], *, deletes: bool = False) -> asyncio.Future[T]:
        """Queue a job. Return a future of the running event loop, for the job's result or error."""
        self._guard.require_own_process()
        task = Task(job, deletes=deletes)
        with self._lock:
            if not self._open:
                raise Unavailable(f"{self._path} is closed")
            self._tasks.put(task)
        return task.future

    @property
    def alive(self) -> bool:
        """True while the thread takes jobs. False in a forked process, which has no such thread."""
        return self._open and self._thread.is_alive()

    def close(self) -> None:
        """Finish the waiting jobs and close the connection. Block until both are done."""
        if self._guard.inherited:  # Checked before the lock, which another thread may have held during the fork.
            return
        with self._lock:
            if self._open:
                self._open = False
                self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._translated():
                connection = self.connect()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        batch: list[Task[Any]] = []
        try:
            while batch := self._next_batch():
                self.serve(connection, batch)
        finally:
            self._fail_waiting(batch)
            self.disconnect(connection)

    def _fail_waiting(self, batch: list[Task[Any]]) -> None:
        """Raise an error in all waiting callers after an unexpected end of the thread."""
        with self._lock:
            self._open = False
            self._tasks.put(None)
        while waiting := self._next_batch():
            batch = batch + waiting
        resolve([(task, Unavailable(f"the thread of {self._path} has ended")) for task in batch])

    def _next_batch(self) -> list[Task[Any]]:
        """Wait for a task and return it with all tasks behind it. Return no task when the thread should end."""
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
            raise translate(error, self._path) from None  # The driver's own text may show content.

    def _error(self, error: BaseException) -> BaseException:
        """Return an error for one caller. Callers that shared an object would share its notes and traceback."""
        return translate(error, self._path) if isinstance(error, sqlite3.Error) else error


class Reader(ConnectionThread):
    """Runs each job in a read transaction of its own."""

    def __init__(self, path: Path, guard: ForkGuard, watch: FileWatch, *, busy_timeout: float) -> None:
        self._watch = watch
        self._busy_timeout = busy_timeout
        super().__init__(path, guard)

    def connect(self) -> sqlite3.Connection:
        connection = connect(self._path, timeout=self._busy_timeout, mode="rw")
        connection.execute("PRAGMA query_only = ON")
        return connection

    def serve(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        for task in batch:
            resolve([(task, self._outcome(connection, task))])

    def _outcome(self, connection: sqlite3.Connection, task: Task[T]) -> T | BaseException:
        try:
            self._watch.require_in_place()
            with self._translated():
                return self._run_in_transaction(connection, task)
        except BaseException as error:
            return error

    @staticmethod
    def _run_in_transaction(connection: sqlite3.Connection, task: Task[T]) -> T:
        connection.execute("BEGIN")
        try:
            return task.job(connection)
        finally:
            rollback(connection)


class Writer(ConnectionThread):
    """Runs all jobs of a batch in one transaction and resolves them after its COMMIT, so that they share an fsync."""

    def __init__(
        self, path: Path, guard: ForkGuard, *, synchronous: str, busy_timeout: float, reserve: Reserve
    ) -> None:
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._reserve = reserve
        self._fairness = WriteFairness()
        super().__init__(path, guard)

    def connect(self) -> sqlite3.Connection:
        require_own_wal(self._path)
        examine(self._path, self._busy_timeout)
        connection = connect(self._path, timeout=self._busy_timeout)
        try:
            prepare(connection, self._path, synchronous=self._synchronous, busy_timeout=self._busy_timeout)
            self.watch: FileWatch = FileWatch(self._path)
            self._marks = MarkKeeper(
                connection, self.watch, synchronous=self._synchronous, busy_timeout=self._busy_timeout
            )
            self._marks.start()
        except BaseException:
            connection.close()
            raise
        return connection

    def disconnect(self, connection: sqlite3.Connection) -> None:
        self.watch.close()
        super().disconnect(connection)

    def serve(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        self._serve_together(connection, batch)
        self._marks.committed()  # The callers have their answers.

    def _serve_together(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> None:
        try:
            outcomes = self._commit(connection, batch)
        except _NotCommittedError:
            # One job may have failed the transaction of all. An append that was committed finds its own id again.
            for task in batch:
                self._serve_separately(connection, task)
        except BaseException as error:
            resolve([(task, self._error(error)) for task in batch])
        else:
            resolve(list(zip(batch, outcomes, strict=True)))

    def _serve_separately(self, connection: sqlite3.Connection, task: Task[Any]) -> None:
        outcome = self._commit_separately(connection, task)
        if isinstance(outcome, StoreFull) and task.deletes and self._reserve.release(connection):
            outcome = self._commit_separately(connection, task)
            self._reserve.keep()  # What the delete has left is for the next one.
        resolve([(task, outcome)])

    def _commit_separately(self, connection: sqlite3.Connection, task: Task[Any]) -> Any:
        """Return the result of a task, or its error."""
        try:
            [outcome] = self._commit(connection, [task])
        except _NotCommittedError as error:
            return error.cause
        except BaseException as error:
            return self._error(error)
        return outcome

    def _commit(self, connection: sqlite3.Connection, batch: list[Task[Any]]) -> list[Any]:
        try:
            self._fairness.begin(connection, self._busy_timeout)
        except BaseException:
            rollback(connection)
            raise
        try:
            with self._translated():
                self.watch.require_in_place()
                outcomes = [_outcome(task, connection) for task in batch]
                connection.execute("COMMIT")
        except BaseException as error:
            with self._translated():
                rollback(connection)
            raise _NotCommittedError(error) from error
        if not all(isinstance(outcome, SessionHistoryError) for outcome in outcomes):
            # A process that only met conflicts wrote nothing. It need not pause before it tries again.
            self._fairness.committed()
        return outcomes


class _NotCommittedError(Exception):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


def _outcome(task: Task[Any], connection: sqlite3.Connection) -> Any:
    """Return the result of a job, or the error with which it refused. A job refuses before it writes."""
    try:
        return task.job(connection)
    except SessionHistoryError as refusal:
        return refusal


Outcome = tuple[Task[Any], Any]
"""A task, and the result or the error for its caller."""


def resolve(outcomes: list[Outcome]) -> None:
    """Resolve the futures of tasks, all of one event loop at once, because each call wakes the loop up."""
    loops = {task.loop for task, _ in outcomes}
    for loop in loops:
        with suppress(RuntimeError):  # The loop was closed, and its callers are gone.
            loop.call_soon_threadsafe(_set_results, [each for each in outcomes if each[0].loop is loop])


def _set_results(outcomes: list[Outcome]) -> None:
    for task, outcome in outcomes:
        if task.future.done():
            continue
        if isinstance(outcome, BaseException):
            task.future.set_exception(outcome)
        else:
            task.future.set_result(outcome)
