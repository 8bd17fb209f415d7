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
    Log,
    Page,
    Position,
    ProviderOptions,
    ProviderSpec,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    check_origin,
    hookimpl,
    new_origin,
)
from session_history_hooks.rules import ends_at, find_replay, head_after, list_page, read_log, rewritten, tombstone_of

T = TypeVar("T")

LIMITS = Limits(
    entry_bytes=4 * 2**20,
    summary_bytes=2**16,
    entries=500,  # Each append writes the whole file.
    page=100,
    page_bytes=8 * 2**20,
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

    def seq_of(self, name: str | None) -> int | None:
        return next((seq for seq, each in enumerate(self.entries, 1) if name in (each.id, *each.keys)), None)


SESSION = TypeAdapter(Session)
INFO = TypeAdapter(StoreInfo)


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

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        def run() -> StoreInfo:
            path = self._folder / "store.json"
            old = _parsed(INFO, path) if path.exists() else None
            info = old or StoreInfo(new_origin(), 1)
            info = replace(info, shard=info.shard or shard)
            if info != old:
                _replace(path, INFO.dump_json(info))
            return info

        return await self._in_thread(run)

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
            match = session.seq_of(entry_id)
            return read_log(session.head, session.entries, match, LIMITS, last=last, before=before, after=after)

        return await self._in_thread(run)

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)

        def run() -> Appended:
            session = self._load(key)
            head = session.head if session else None
            replay = find_replay(head, entry, at, tail_origin, session.seq_of if session else lambda _: None)
            if replay is not None:
                return replay
            entries = session.entries if session else []  # A tombstone has none.
            new = Session(head_after(head, key, entry, snapshot), [*entries, replace(entry, text=None)])
            self._save(new)
            return Appended(new.head.tail, replayed=False)

        return await self._in_thread(run)

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        def run() -> bool:
            session = self._load(key)
            if session is None or session.head.deleted or not ends_at(session.head, at, tail_origin):
                return False
            self._save(replace(session, head=replace(session.head, heartbeat=session.head.heartbeat + 1)))
            return True

        return await self._in_thread(run)

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        LIMITS.check(entry, snapshot)
        check_origin("rewrite_id", rewrite_id)

        def run() -> Head:
            session = self._load(key)
            if session is None:
                raise Conflict(None)
            if session.head.rewrite_id != rewrite_id:
                old = session.entries[at.seq - 1] if 0 < at.seq <= len(session.entries) else None
                new = rewritten(session.head, old, entry, at, last_rewrite_id)
                session.entries[at.seq - 1] = replace(new, text=None)
                session.head = replace(session.head, rewrite_id=rewrite_id, snapshot=snapshot)
                self._save(session)
            return session.head

        return await self._in_thread(run)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        def run() -> Page:
            heads = (session.head for session in self._sessions(user_id))
            return list_page(heads, LIMITS.page, limit=limit, cursor=cursor)

        return await self._in_thread(run)

    async def delete(self, key: SessionKey) -> bool:
        def run() -> bool:
            session = self._load(key)
            return session is not None and self._delete(session)

        return await self._in_thread(run)

    async def delete_user(self, user_id: str) -> int:
        return await self._in_thread(lambda: sum(map(self._delete, [*self._sessions(user_id)])))

    def _delete(self, session: Session) -> bool:
        if session.head.deleted:
            return False
        self._save(Session(tombstone_of(session.head)))
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

    def _sessions(self, user_id: str) -> Iterator[Session]:
        return (_parsed(SESSION, path) for path in (self._folder / _digest(user_id)).glob("*.json"))

    def _load(self, key: SessionKey) -> Session | None:
        path = self._path(key)
        return _parsed(SESSION, path) if path.exists() else None

    def _save(self, session: Session) -> None:
        path = self._path(session.head.key)
        path.parent.mkdir(exist_ok=True)
        _replace(path, SESSION.dump_json(session))


def _replace(path: Path, content: bytes) -> None:
    """Replace a file. A reader sees the old file or the new one, never a part."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def _parsed(kind: TypeAdapter[T], path: Path) -> T:
    try:
        return kind.validate_json(path.read_bytes())
    except ValidationError:
        raise Corrupt(f"{path} is damaged") from None  # Pydantic's error would show content.


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class FilesOptions(ProviderOptions):
    """``files:///relative/folder`` or ``files:////absolute/folder``, without further options."""

    @field_validator("url")
    @classmethod
    def _names_a_folder(cls, url: str) -> str:
        if not url.startswith("files:///") or url == "files:///":
            raise ValueError("names no folder: write files:///history or files:////var/lib/history")
        return url

    @property
    def folder(self) -> str:
        return unquote(self.url.removeprefix("files:///"))


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("files", FilesOptions, lambda options: FilesProvider(options.folder))
