"""A store in Redis or Valkey, single or cluster, for any number of hosts, processes and event loops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from session_history.providers.common.loops import LoopLocal
from session_history.providers.common.options import validated
from session_history.providers.redis import scripts
from session_history.providers.redis.answers import entries_of, match_of, page_of
from session_history.providers.redis.client import Client
from session_history.providers.redis.codec import decode_head, encode_entry
from session_history.providers.redis.commands import Argument, new_call_id
from session_history.providers.redis.deletion import Deletion
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.list_range import PAGE, ListRange
from session_history.providers.redis.options import SCHEMES, RedisOptions
from session_history.providers.redis.runner import ScriptRunner
from session_history.providers.redis.scripts import DONE, REPLAYED, UNCHANGED
from session_history.providers.redis.startup_checks import check_store
from session_history_hooks import (
    Appended,
    Conflict,
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


class RedisProvider:
    """Keeps sessions in Redis 7.0 or newer, or in Valkey.

    :param url: see :class:`RedisOptions`.
    :param prefix: the first part of the names of all keys; without braces.
    :param timeout: seconds after which a call that keeps failing raises ``Unavailable``.
    :param ttl: seconds after its last append for which a session is kept; ``None`` = without end. An append stores it.
    :param durability: the claim: ``"process"`` = an acknowledged append is in the memory of the server; ``"host"`` = in
        an append-only file of the server, with ``appendfsync`` ``no`` or ``always``; ``"disk"`` = with ``always``.
        ``start`` checks the server's settings.
    :param wait_replicas: number of replicas that must confirm an append before it is acknowledged.
    :param wait_timeout: seconds to wait for them, 1 if not given. After that the append raises ``Unavailable``.
    :param max_connections: connections of each event loop to each server.
    :param ssl_ca_certs: file of the authorities to trust, instead of the system's. This option and the next three
        require ``rediss``.
    :param ssl_certfile: file of the client's own certificate.
    :param ssl_keyfile: file of the key of that certificate.
    :param ssl_cert_reqs: ``"none"`` trusts any server; ``"required"`` if not given.
    :raises ConfigurationError: an option is not valid.

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
        self._options = validated(RedisOptions, {name: value for name, value in given.items() if value is not None})
        self._keys = Keys(self._options.prefix)
        self._runner = ScriptRunner(self._options, self._keys, self._client)
        self._deletion = Deletion(self._runner, self._keys)
        self._ttl_us = (self._options.ttl or 0) * 1_000_000
        self._clients: LoopLocal[Client] | None = None
        self._limits = _limits(self._options.durability)

    def __repr__(self) -> str:
        return f"RedisProvider({self._options.redacted_url!r})"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        if self._is_open:
            return
        name, close_timeout = self._options.redacted_url, self._options.timeout + 1
        clients = LoopLocal(name, lambda: Client(self._options), close_timeout=close_timeout)
        try:
            await check_store(await clients.get(), self._options)
        except BaseException:
            await clients.close()
            raise
        if self._is_open:
            await clients.close()  # another start was faster
            return
        await self.stop()
        self._clients = clients

    async def stop(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.close()

    @property
    def _is_open(self) -> bool:
        return self._clients is not None and not self._clients.guard.inherited

    async def _client(self) -> Client:
        if self._clients is None:
            raise Unavailable(f"{self._options.redacted_url} is not open: the service was stopped, or never started")
        return await self._clients.get()

    async def health(self) -> bool:
        try:
            return await (await self._client()).ping()
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
        fetched = ListRange.covering(last=last, before=before, after=after)
        answer, raws = await self._runner.read(key, fetched, entry_id)
        head = decode_head(answer[1], key)
        if head is None:
            return None
        tail = head.tail.seq
        if before is not None and before > tail + 1:
            # The range was too short. A reader names a seq beyond the tail only if the session was re-created.
            return await self.read(key, last=last, after=after, entry_id=entry_id)
        seqs = select_seqs(tail, PAGE, last=last, before=before, after=after)
        entries = entries_of(raws, fetched, seqs, head)
        return Log(head, seqs.start if entries else tail + 1, entries, match_of(answer[3:], key))

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        try:
            answer = await self._runner.run_on_session(
                scripts.APPEND,
                key,
                key.user_id.encode(),
                entry.id.encode(),
                encode_entry(entry),
                at.generation,
                at.seq,
                self._ttl_us,
                int(self._options.wait_replicas > 0),
                *_snapshot_arguments(snapshot),
            )
        except StoreFull:
            replay = await self._find_replay(key, entry.id, at.generation)
            if replay is None:
                raise
            return replay
        if answer[0] == UNCHANGED:
            raise Conflict(decode_head(answer[1], key), recreated=answer[2:] == [1])
        return Appended(Position(int(answer[1]), int(answer[2])), replayed=answer[0] == REPLAYED)

    async def _find_replay(self, key: SessionKey, entry_id: str, generation: int) -> Appended | None:
        """Return the answer to a repeated append that a full server refused to look up, or ``None`` if it is new."""
        log = await self.read(key, last=0, entry_id=entry_id)
        if log is None or log.match is None or log.head.tail.generation != generation:
            return None
        if self._options.wait_replicas:
            raise Unavailable(
                f"{self._options.redacted_url}: the entry is stored, but the server is out of memory, so replication"
                " is unconfirmed; safe to retry"
            )
        return Appended(Position(log.head.tail.generation, log.match[0]), replayed=True)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        answer = await self._runner.run_on_session(scripts.RENEW, key, at.generation, at.seq)
        return bool(answer[0] == DONE)

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        self._limits.check(entry, snapshot)
        answer = await self._runner.run_on_session(
            scripts.REWRITE,
            key,
            entry.id.encode(),
            encode_entry(entry),
            at.generation,
            at.seq,
            rewrites,
            new_call_id(),
            *_snapshot_arguments(snapshot),
        )
        head = decode_head(answer[1], key)
        if answer[0] == UNCHANGED or head is None:
            raise Conflict(head)
        return head

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        start: Sequence[Argument] = ()
        if cursor is not None:
            last = ListingCursor.decode(cursor)
            start = (-last.active_us, last.session_id.encode())
        answer = await self._runner.run_on_user(scripts.LIST, self._keys.of_user(user_id), min(limit, PAGE), *start)
        return page_of(answer, user_id)

    async def delete(self, key: SessionKey) -> bool:
        return await self._deletion.delete_session(key)

    async def delete_user(self, user_id: str) -> int:
        return await self._deletion.delete_user(user_id)


def _limits(durability: Durability) -> Limits:
    return Limits(
        # A round figure above any real turn. While a server receives an entry, all its other clients wait.
        entry_bytes=16 * 2**20,
        summary_bytes=2**20,
        # The most elements of a list: https://redis.io/docs/latest/develop/data-types/lists/
        entries=2**32 - 1,
        page=PAGE,
        remembered_ids=None,
        durability=durability,
        atomic_head=True,
    )


def _snapshot_arguments(snapshot: Snapshot | None) -> Sequence[Argument]:
    return (snapshot.seq, snapshot.entry_id.encode(), snapshot.summary) if snapshot else ()


def _open(options: RedisOptions) -> RedisProvider:
    return RedisProvider(**options.model_dump(exclude_unset=True))


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    for scheme in SCHEMES:
        yield ProviderSpec(scheme, RedisOptions, _open)
