"""An example of a provider: a folder of JSON files, one for each session.

It is small and correct, not fast. Its bounds:

- It does not scale. Each call reads the whole file of its session, an append writes the whole file, a listing reads
  all files of the user, and one lock covers the whole folder.
- It does not survive a power cut. An acknowledged append survives the end of the process, but no file is synced.
- It does not run on Windows, which has no ``flock``, or on a network file system, which may not support ``flock``.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from pydantic import ConfigDict, TypeAdapter, ValidationError, field_validator

from session_history_hooks import (
    Appended,
    ConfigurationError,
    Conflict,
    Corrupt,
    Durability,
    Entry,
    Head,
    Limits,
    ListingCursor,
    Log,
    Page,
    Position,
    ProviderOptions,
    ProviderSpec,
    SessionKey,
    Snapshot,
    Unavailable,
    hookimpl,
    select_seqs,
)

T = TypeVar("T")

LIMITS = Limits(
    entry_bytes=4 * 2**20,
    summary_bytes=2**16,
    entries=500,  # Each append writes the whole file.
    page=100,
    remembered_ids=None,
    durability=Durability.HOST,
    atomic_head=True,
)


@dataclass
class Session:
    """The content of a file."""

    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", extra="forbid")

    head: Head
    entries: list[Entry] = field(default_factory=list)

    def seq_of(self, entry_id: str | None) -> int | None:
        return next((seq for seq, entry in enumerate(self.entries, start=1) if entry.id == entry_id), None)


FORMAT = TypeAdapter(Session)


class FilesProvider:
    """Keeps each session in its own file below ``folder``. Any number of processes of one host may share the folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).absolute()
        self._thread: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"FilesProvider({os.fspath(self._folder)!r})"

    @property
    def limits(self) -> Limits:
        return LIMITS

    async def start(self) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{self._folder} cannot be created: {error.strerror}") from None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1)

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown)

    async def health(self) -> bool:
        return self._thread is not None and os.access(self._folder, os.W_OK)

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        def run() -> Log | None:
            session = self._load(key)
            if session is None:
                return None
            tail = len(session.entries)
            seqs = select_seqs(tail, LIMITS.page, last=last, before=before, after=after)
            entries = tuple(session.entries[seq - 1] for seq in seqs)
            seq = session.seq_of(entry_id)
            match = (seq, session.entries[seq - 1]) if seq else None
            return Log(session.head, seqs.start if entries else tail + 1, entries, match)

        return await self._in_thread(run)

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)

        def run() -> Appended:
            session = self._load(key)
            if session is None or session.head.deleted:
                return self._begin(key, session, entry, at, snapshot)
            tail = session.head.tail
            seq = session.seq_of(entry.id)
            if seq and at.generation == tail.generation:
                return Appended(Position(tail.generation, seq), replayed=True)
            if at != tail:
                raise Conflict(session.head)
            return self._push(session, entry, snapshot)

        return await self._in_thread(run)

    def _begin(
        self, key: SessionKey, tombstone: Session | None, entry: Entry, at: Position, snapshot: Snapshot | None
    ) -> Appended:
        if at != (Position(tombstone.head.tail.generation + 1, 0) if tombstone else Position(0, 0)):
            raise Conflict(tombstone.head if tombstone else None)
        active_us = tombstone.head.active_us if tombstone else 0
        session = Session(Head(key, at, "", deleted=False, heartbeat=0, rewrites=0, active_us=active_us, snapshot=None))
        return self._push(session, entry, snapshot)

    def _push(self, session: Session, entry: Entry, snapshot: Snapshot | None) -> Appended:
        session.entries.append(entry)
        tail = Position(session.head.tail.generation, len(session.entries))
        snapshot = snapshot or session.head.snapshot
        session.head = replace(
            session.head, tail=tail, tail_id=entry.id, active_us=_next_active_us(session), snapshot=snapshot
        )
        self._save(session)
        return Appended(tail, replayed=False)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        def run() -> bool:
            session = self._load(key)
            if session is None or session.head.deleted or session.head.tail != at:
                return False
            session.head = replace(session.head, heartbeat=session.head.heartbeat + 1)
            self._save(session)
            return True

        return await self._in_thread(run)

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        LIMITS.check(entry, snapshot)

        def run() -> Head:
            session = self._load(key)
            head = session.head if session else None
            if session is None or head is None or (head.tail.generation, head.rewrites) != (at.generation, rewrites):
                raise Conflict(head)
            if session.seq_of(entry.id) != at.seq:
                raise Conflict(head)
            session.entries[at.seq - 1] = entry
            session.head = replace(head, rewrites=rewrites + 1, snapshot=snapshot)
            self._save(session)
            return session.head

        return await self._in_thread(run)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        start = ListingCursor.decode(cursor) if cursor is not None else None

        def run() -> Page:
            heads = sorted((session.head for session in self._live_sessions(user_id)), key=_listing_order)
            if start is not None:
                heads = [head for head in heads if _listing_order(head) > (-start.active_us, start.session_id)]
            page = tuple(heads[: min(limit, LIMITS.page)])
            return Page(page, ListingCursor.behind(page[-1]).encode() if len(heads) > len(page) else None)

        return await self._in_thread(run)

    async def delete(self, key: SessionKey) -> bool:
        def run() -> bool:
            session = self._load(key)
            return session is not None and not session.head.deleted and self._write_tombstone(session)

        return await self._in_thread(run)

    async def delete_user(self, user_id: str) -> int:
        return await self._in_thread(lambda: sum(map(self._write_tombstone, [*self._live_sessions(user_id)])))

    def _write_tombstone(self, session: Session) -> bool:
        key, tail = session.head.key, Position(session.head.tail.generation, 0)
        head = Head(
            key, tail, "", deleted=True, heartbeat=0, rewrites=0, active_us=_next_active_us(session), snapshot=None
        )
        self._save(Session(head))
        return True

    async def _in_thread(self, job: Callable[[], T]) -> T:
        """Run a job in the provider's thread, under the lock of the folder."""

        def locked() -> T:
            with self._lock():
                return job()

        if self._thread is None:
            raise Unavailable(f"{self._folder} is not open: the provider was stopped or not yet started")
        return await asyncio.get_running_loop().run_in_executor(self._thread, locked)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with (self._folder / "lock").open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # Released when the file is closed or the process ends.
                yield
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be read or written: {error.strerror}") from None

    def _path(self, key: SessionKey) -> Path:
        """Return the file of a session. Its name is a digest, because an id may hold any character."""
        return self._folder / _digest(key.user_id) / f"{_digest(key.session_id)}.json"

    def _live_sessions(self, user_id: str) -> Iterator[Session]:
        sessions = map(_parsed, (self._folder / _digest(user_id)).glob("*.json"))
        return (session for session in sessions if not session.head.deleted)

    def _load(self, key: SessionKey) -> Session | None:
        path = self._path(key)
        return _parsed(path) if path.exists() else None

    def _save(self, session: Session) -> None:
        """Replace the file. A reader sees the old file or the new one, never a part."""
        path = self._path(session.head.key)
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(FORMAT.dump_json(session))
        new.replace(path)


def _parsed(path: Path) -> Session:
    try:
        return FORMAT.validate_json(path.read_bytes())
    except ValidationError:
        raise Corrupt(f"{path} is damaged") from None  # Pydantic's error would show content.


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _next_active_us(session: Session) -> int:
    """Return the time, but at least one microsecond after the session's last activity: a clock may go back."""
    return max(time.time_ns() // 1000, session.head.active_us + 1)


def _listing_order(head: Head) -> tuple[int, str]:
    return -head.active_us, head.key.session_id


class FilesOptions(ProviderOptions):
    """``files:///relative/folder`` or ``files:////absolute/folder``; there are no further options."""

    @field_validator("url")
    @classmethod
    def _names_a_folder(cls, url: str) -> str:
        if not url.startswith("files:///") or url == "files:///":
            raise ValueError("names no folder: write files:///history, or files:////var/lib/history")
        return url

    @property
    def folder(self) -> str:
        return unquote(self.url.removeprefix("files:///"))


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("files", FilesOptions, lambda options: FilesProvider(options.folder))
