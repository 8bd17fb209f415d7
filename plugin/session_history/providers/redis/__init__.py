"""A store in Redis or Valkey, single or cluster: any number of hosts, processes and event loops."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal

from session_history.providers.redis import scripts
from session_history.providers.redis.calls import Calls
from session_history.providers.redis.connections import Word
from session_history.providers.redis.examination import introduce
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.loops import Loops
from session_history.providers.redis.options import SCHEMES, RedisOptions, checked
from session_history.providers.redis.packing import (
    living_head,
    packed_entry,
    unpacked_entries,
    unpacked_head,
)
from session_history.providers.redis.scripts import CORRUPT, DONE, NOTHING, REPLAYED
from session_history.providers.redis.servers import Servers
from session_history.providers.redis.windows import PAGE, Window
from session_history_hooks import (
    Appended,
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
    ProviderSpec,
    SessionKey,
    Snapshot,
    StoreFull,
    Unavailable,
    hookimpl,
    select_seqs,
)

BATCH = 100
"""The most sessions that one script deletes: others wait while it runs."""


class RedisProvider:
    """Keeps sessions in Redis 7.0 or newer, or in Valkey.

    :param url: see :class:`RedisOptions`.
    :param prefix: what the names of all keys begin with; without braces.
    :param timeout: seconds for which a call is tried before the store counts as unavailable.
    :param ttl: seconds after its last append for which a session is kept; ``None`` = for ever. An append stores it.
    :param durability: what is claimed: ``"process"`` = an acknowledged append is in the memory of the server;
        ``"host"`` = in an append-only file of the server, with ``appendfsync`` ``no`` or ``always``; ``"disk"`` = with
        ``always``. Start sees to it.
    :param wait_replicas: how many replicas are to confirm an append before it is acknowledged.
    :param wait_timeout: seconds for which they are waited for, 1 if not given, after which the append is of unknown
        outcome.
    :param max_connections: of each event loop, to each server.
    :param ssl_ca_certs: file of the authorities to trust, instead of the system's; for ``rediss``, as the next three.
    :param ssl_certfile: file of the client's own certificate.
    :param ssl_keyfile: file of its key.
    :param ssl_cert_reqs: ``"none"`` trusts whoever answers; ``"required"`` if not given.
    :raises ConfigurationError: an option that can not be.

    All sessions of a user are in one slot of a cluster. Connections do not survive a fork: start the provider after it.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sh",
        timeout: float = 5.0,
        ttl: int | None = None,
        durability: Durability | Literal["process", "host", "disk"] = Durability.PROCESS,
        wait_replicas: int = 0,
        wait_timeout: float | None = None,
        max_connections: int = 32,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_cert_reqs: Literal["required", "none"] | None = None,
    ) -> None:
        given = {
            "url": url,
            "prefix": prefix,
            "timeout": timeout,
            "ttl": ttl,
            "durability": durability,
            "wait_replicas": wait_replicas,
            "wait_timeout": wait_timeout,
            "max_connections": max_connections,
            "ssl_ca_certs": ssl_ca_certs,
            "ssl_certfile": ssl_certfile,
            "ssl_keyfile": ssl_keyfile,
            "ssl_cert_reqs": ssl_cert_reqs,
        }
        self._options = checked({name: value for name, value in given.items() if value is not None})
        self._keys = Keys(self._options.prefix)
        self._calls = Calls(self._options, self._keys, self._servers)
        self._ttl_us = (self._options.ttl or 0) * 1_000_000
        self._loops: Loops | None = None
        self._limits = Limits(
            # A round figure above any real turn: while a server takes in an entry, all who use it wait.
            entry_bytes=16 * 2**20,
            summary_bytes=2**20,
            # What a list of Redis holds, https://redis.io/docs/latest/develop/data-types/lists/
            entries=2**32 - 1,
            page=PAGE,
            remembered_ids=None,
            durability=self._options.durability,
            atomic_head=True,
        )

    def __repr__(self) -> str:
        return f"RedisProvider({self._options.shown!r})"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        if self._is_open:
            return
        loops = Loops(self._options)
        try:
            servers = await loops.servers()
            await introduce(servers, self._options)
        except BaseException:
            await loops.close()
            raise
        if self._is_open:
            await loops.close()  # another start was faster
            return
        await self.stop()
        self._loops = loops

    async def stop(self) -> None:
        loops, self._loops = self._loops, None
        if loops is not None:
            await loops.close()

    @property
    def _is_open(self) -> bool:
        return self._loops is not None and not self._loops.inherited

    async def health(self) -> bool:
        try:
            return await (await self._servers()).ping()
        except Exception:
            return False

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        window = Window.around(last=last, before=before, after=after)
        answer, raws = await self._calls.look(key, window, entry_id)
        head = unpacked_head(answer[1], key)
        if head is None:
            return None
        tail = head.tail.seq
        if before is not None and before > tail + 1:
            # Nobody asks for what is beyond the tail, unless the session was begun anew.
            return await self.read(key, last=last, after=after, entry_id=entry_id)
        seqs = select_seqs(tail, PAGE, last=last, before=before, after=after)
        entries = _entries(raws, window, seqs, head)
        return Log(head, seqs.start if entries else tail + 1, entries, _found(answer[3:], key))

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        try:
            answer = await self._calls.session(
                scripts.APPEND,
                key,
                key.user_id.encode(),
                entry.id.encode(),
                packed_entry(entry),
                at.generation,
                at.seq,
                self._ttl_us,
                int(self._options.wait_replicas > 0),
                *_cover(snapshot),
            )
        except StoreFull:
            replay = await self._replay(key, entry.id, at.generation)
            if replay is None:
                raise
            return replay
        if answer[0] == NOTHING:
            raise Conflict(unpacked_head(answer[1], key), recreated=answer[2:] == [1])
        return Appended(Position(int(answer[1]), int(answer[2])), replayed=answer[0] == REPLAYED)

    async def _replay(self, key: SessionKey, entry_id: str, generation: int) -> Appended | None:
        """What the script would say of an entry that it stored before, if it did: a full server does not run it."""
        log = await self.read(key, last=0, entry_id=entry_id)
        if log is None or log.match is None or log.head.tail.generation != generation:
            return None
        if self._options.wait_replicas:
            raise Unavailable(
                f"{self._options.shown}: the entry is stored, but without memory the server does not ask its replicas;"
                " tried again, it will be found by its id"
            )
        return Appended(Position(log.head.tail.generation, log.match[0]), replayed=True)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        answer = await self._calls.session(scripts.RENEW, key, at.generation, at.seq)
        return bool(answer[0] == DONE)

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        self._limits.check(entry, snapshot)
        answer = await self._calls.session(
            scripts.REWRITE,
            key,
            entry.id.encode(),
            packed_entry(entry),
            at.generation,
            at.seq,
            rewrites,
            _mark(),
            *_cover(snapshot),
        )
        head = unpacked_head(answer[1], key)
        if answer[0] == NOTHING or head is None:
            raise Conflict(head)
        return head

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        behind = ListingCursor.decode(cursor) if cursor is not None else None
        place: Sequence[Word] = (-behind.active_us, behind.session_id.encode()) if behind else ()
        answer = await self._calls.user(scripts.LIST, self._keys.of_user(user_id), min(limit, PAGE), *place)
        names, heads = answer[1][::2], answer[1][1::2]
        page = tuple(living_head(raw, user_id, name) for name, raw in zip(names, heads, strict=True))
        return Page(page, _cursor(*answer[2:]))

    async def delete(self, key: SessionKey) -> bool:
        [outcome] = await self._delete(key.user_id, [key.session_id.encode()])
        if outcome == CORRUPT:
            raise Corrupt(f"{key} can not be deleted: its head is missing or unreadable")
        return outcome == DONE

    async def delete_user(self, user_id: str) -> int:
        names = await self._sessions(user_id)
        outcomes: list[int] = []
        for start in range(0, len(names), BATCH):
            outcomes += await self._delete(user_id, names[start : start + BATCH])
        if CORRUPT in outcomes:
            raise Corrupt(f"{outcomes.count(CORRUPT)} sessions could not be deleted: their heads are unreadable")
        return outcomes.count(DONE)

    async def _sessions(self, user_id: str) -> Sequence[bytes]:
        """All of a user, in portions, since others wait while the server looks them up."""
        heads = self._keys.of_user(user_id)[:1]
        names: dict[bytes, None] = {}
        cursor, least = b"0", 0
        while True:
            begins = cursor == b"0"
            _, found, cursor, total = await self._calls.user(scripts.SESSIONS, heads, cursor)
            least = total if begins else min(least, total)  # what begins meanwhile need not be found
            names |= dict.fromkeys(found)
            # To another server, or after a restart, the cursor means something else: then it begins again.
            if cursor == b"0" and len(names) >= least:
                return list(names)

    async def _delete(self, user_id: str, names: Sequence[bytes]) -> Sequence[int]:
        keys = [*self._keys.of_user(user_id), *(key for name in names for key in self._keys.of_session(user_id, name))]
        answer: Sequence[int] = await self._calls.user(scripts.DELETE, keys, _mark(), *names)
        return answer[1:]

    async def _servers(self) -> Servers:
        """Those of the running event loop."""
        if self._loops is None:
            raise Unavailable(f"{self._options.shown} is not open: the service was stopped, or never started")
        if self._loops.inherited:
            raise Unavailable(
                f"{self._options.shown} was open when this process was forked; open it after the fork, or spawn"
            )
        return await self._loops.servers()


def _cover(snapshot: Snapshot | None) -> Sequence[Word]:
    return (snapshot.seq, snapshot.entry_id.encode(), snapshot.summary) if snapshot else ()


def _mark() -> bytes:
    """By it a call that is tried again, since its answer was lost, knows what it has done itself."""
    return os.urandom(8)


def _entries(raws: Sequence[bytes], window: Window | None, seqs: range, head: Head) -> tuple[Entry, ...]:
    if not seqs:
        return ()
    part = window.cut(seqs, head.tail.seq, len(raws)) if window else None
    if part is None:
        raise Corrupt(f"{head.key} lacks some of its entries {seqs[0]} to {seqs[-1]}")
    return unpacked_entries(raws[part], head.key)


def _found(answer: Sequence[bytes], key: SessionKey) -> tuple[int, Entry] | None:
    return (int(answer[0]), unpacked_entries(answer[1:], key)[0]) if answer else None


def _cursor(session_id: bytes | None = None, score: bytes = b"") -> str | None:
    """Behind the last session that was looked at; a score may be written with an exponent."""
    return ListingCursor(-int(float(score)), session_id.decode()).encode() if session_id is not None else None


def _open(options: RedisOptions) -> RedisProvider:
    return RedisProvider(**options.model_dump(exclude_unset=True))


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    for scheme in SCHEMES:
        yield ProviderSpec(scheme, RedisOptions, _open)
