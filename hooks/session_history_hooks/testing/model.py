"""The model of a store, with which the state machine compares a provider: a dict of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from session_history_hooks import Appended, Entry, Head, Log, Position, SessionKey, Snapshot


@dataclass(frozen=True)
class Refused:
    """The outcome of a call that raises a Conflict.

    :ivar keys: the conflict's keys.
    """

    keys: tuple[str, ...] = ()


@dataclass
class ModelSession:
    """A session in the model.

    :ivar active_us: the time in the head that was last seen; likewise ``changed_us``.
    :ivar unseen: for each append and delete since then, whether it changes ``active_us``.
    """

    generation: int = 0
    deleted: bool = False
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None
    rewrite_id: str = ""
    active_us: int = 0
    changed_us: int = 0
    unseen: list[bool] = field(default_factory=list)

    @property
    def tail(self) -> Position:
        return Position(self.generation, len(self.entries))

    @property
    def tail_origin(self) -> str:
        return self.entries[-1].origin if self.entries else ""

    def seq_of(self, name: str) -> int | None:
        """Return the seq of the newest entry with this id or key."""
        for seq in range(len(self.entries), 0, -1):
            if name in names_of(self.entries[seq - 1]):
                return seq
        return None

    def ends_at(self, at: Position, tail_origin: str | None) -> bool:
        return not self.deleted and self.tail == at and tail_origin in (None, self.tail_origin)

    def is_tombstone(self, head: Head) -> bool:
        """Return whether this session is the tombstone with this head. Its times were seen."""
        known = (self.deleted, self.generation, self.active_us, self.changed_us)
        return known == (head.deleted, head.tail.generation, head.active_us, head.changed_us)

    def takes(self, head: Head, entries: Sequence[Entry], behind: str) -> bool:
        """Return whether a restore of these entries is no conflict here."""
        ahead = head.tail.seq - len(entries)
        if self.deleted:
            return not ahead and head.tail.generation + head.deleted > self.generation
        life = (head.deleted, head.tail.generation, head.rewrite_id)
        origins = [*[behind][:ahead], *(entry.origin for entry in entries)]
        stored = self.entries[max(ahead - 1, 0) :]
        return (
            life == (False, self.generation, self.rewrite_id)
            and ahead <= len(self.entries)
            and all(old.origin == new for old, new in zip(stored, origins, strict=False))
        )

    def next_life(self, at: Position, *, deleted: bool = False) -> ModelSession:
        """Return the tombstone of this session, or the generation that begins at ``at``."""
        return ModelSession(at.generation, deleted, [], None, "", self.active_us, self.changed_us, self.unseen)

    def append(self, entry: Entry, snapshot: Snapshot | None) -> Appended:
        self.unseen.append(not (self.entries and entry.bookkeeping))
        self.entries.append(replace(entry, text=None))
        self.snapshot = snapshot or self.snapshot
        return Appended(self.tail, replayed=False)

    def check_head(self, head: Head) -> None:
        assert (head.tail, head.deleted) == (self.tail, self.deleted)
        assert (head.rewrite_id, head.snapshot) == (self.rewrite_id, self.snapshot)
        assert head.tail_origin == self.tail_origin
        self.check_times(head)

    def check_times(self, head: Head) -> None:
        """Check the times of a head against those of the one before, and keep them."""
        changed_us = self.changed_us
        if True in self.unseen:
            later = self.unseen[::-1].index(True)  # bookkeeping since the newest activity
            assert head.active_us >= changed_us + len(self.unseen) - later
            changed_us = head.active_us + later
        else:
            later = len(self.unseen)
            assert head.active_us == self.active_us
            changed_us += later
        assert head.changed_us >= changed_us if later else head.changed_us == changed_us
        self.active_us, self.changed_us = head.active_us, head.changed_us
        self.unseen = []

    def check_entries(self, log: Log, seqs: range) -> None:
        assert log.entries == tuple(self.entries[seq - 1] for seq in seqs)
        assert log.first == (seqs[0] if seqs else len(self.entries) + 1)

    def check_match(self, log: Log, name: str | None) -> None:
        seq = self.seq_of(name) if name is not None else None
        assert log.match == ((seq, self.entries[seq - 1]) if seq else None)


class Model:
    """The sessions and tombstones that a store must have.

    :ivar remembered: the provider's ``limits.remembered_ids``.
    """

    def __init__(self, remembered: int | None) -> None:
        self.sessions: dict[SessionKey, ModelSession] = {}
        self.remembered = remembered

    def append(
        self, key: SessionKey, entry: Entry, at: Position, tail_origin: str | None, snapshot: Snapshot | None
    ) -> Appended | Refused:
        session = self.sessions.get(key)
        if session is None or session.deleted:
            if at != Position(session.generation + 1 if session else 0, 0):
                return Refused()
            session = self.sessions[key] = (session or ModelSession()).next_life(at)
            return session.append(entry, snapshot)
        if at.generation != session.generation:
            return Refused()
        if seq := session.seq_of(entry.id):
            return Appended(Position(session.generation, seq), replayed=True)
        keys = tuple(name for name in entry.keys if session.seq_of(name))
        if keys or not session.ends_at(at, tail_origin):
            return Refused(keys)
        return session.append(entry, snapshot)

    def renew(self, key: SessionKey, at: Position, tail_origin: str | None) -> bool:
        session = self.sessions.get(key)
        return session is not None and session.ends_at(at, tail_origin)

    def rewrite(self, key: SessionKey, entry: Entry, at: Position, rewrite_id: str, last: str) -> bool:
        """Rewrite an entry, and return whether the provider returns the head."""
        session = self.sessions.get(key)
        if session is None or session.deleted or session.generation != at.generation:
            return False
        if session.rewrite_id == rewrite_id:
            return True
        old = session.entries[at.seq - 1] if 0 < at.seq <= len(session.entries) else None
        if old is None or (old.id, old.origin, session.rewrite_id) != (entry.id, entry.origin, last):
            return False
        session.entries[at.seq - 1] = replace(old, payload=entry.payload)
        session.rewrite_id, session.snapshot = rewrite_id, None
        return True

    def delete(self, key: SessionKey) -> bool:
        session = self.sessions.get(key)
        if session is None or session.deleted:
            return False
        session.unseen.append(True)
        self.sessions[key] = session.next_life(session.tail, deleted=True)
        return True

    def delete_user(self, user_id: str) -> int:
        return sum(self.delete(key) for key in list(self.sessions) if key.user_id == user_id)

    def restore(self, head: Head, entries: Sequence[Entry], behind: str) -> bool | Refused:
        """Restore entries. The times of the session that stands there were seen."""
        session = self.sessions.get(head.key, ModelSession(generation=-1, deleted=True))
        if head.deleted and session.is_tombstone(head):
            return False
        if not session.takes(head, entries, behind):
            return Refused()
        missing = entries[len(session.entries) - head.tail.seq + len(entries) :]
        if entries and not missing:
            return False
        kept = [*session.entries, *(replace(entry, text=None) for entry in missing)]
        self.sessions[head.key] = ModelSession(
            *(head.tail.generation, head.deleted, kept, head.snapshot, head.rewrite_id),
            *(head.active_us, head.changed_us),
        )
        return True

    def keys_of(self, user_id: str, *, deleted: bool) -> set[SessionKey]:
        """Return the sessions or the tombstones of a user."""
        return {key for key, each in self.sessions.items() if key.user_id == user_id and each.deleted is deleted}

    def position(self, key: SessionKey, offset: int, generation_offset: int) -> Position:
        """Return the position of the next append, moved by these offsets."""
        known = self.sessions.get(key)
        if known is None:
            return Position(max(0, generation_offset), max(0, offset))
        generation = known.generation + (1 if known.deleted else 0) + generation_offset
        return Position(max(0, generation), max(0, len(known.entries) + offset))

    def forgotten(self, key: SessionKey, *names: str) -> bool:
        """Return whether one of these names is older than the ids that the provider claims to remember."""
        session = self.sessions.get(key)
        if session is None or self.remembered is None:
            return False
        oldest = min((session.seq_of(name) or len(session.entries) + 1 for name in names), default=1)
        newer = sum(len(names_of(entry)) for entry in session.entries[oldest - 1 :])
        return oldest <= len(session.entries) and newer > self.remembered

    def check_head(self, head: Head | None, key: SessionKey) -> None:
        session = self.sessions.get(key)
        assert (head is None) == (session is None)
        if head is not None and session is not None:
            assert head.key == key
            session.check_head(head)


def names_of(entry: Entry) -> tuple[str, ...]:
    """Return the id and the keys of an entry."""
    return (entry.id, *entry.keys)


def changed(head: Head, entries: list[Entry], behind: str, change: str) -> tuple[Head, list[Entry], str]:
    """Return the arguments of a restore with one change."""
    match change:
        case "generation":
            head = replace(head, tail=replace(head.tail, generation=head.tail.generation + 1))
        case "rewrite_id" if entries:
            head = replace(head, rewrite_id="other")
        case "origin" if entries:
            entries = [*entries[:-1], replace(entries[-1], origin="other")]
            head = replace(head, tail_origin="other", snapshot=None)
        case "behind" if behind:
            behind = "other"
        case "id":
            entries = [replace(entry, id=entries[0].id, keys=()) for entry in entries]
    return head, entries, behind
