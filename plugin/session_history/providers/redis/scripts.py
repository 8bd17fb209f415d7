"""The scripts that the server runs, each one atomic step. Their texts are in the folder ``lua``.

The keys of a user, all in one slot of a cluster:

==============  ==========  =========================================================================
``heads``       hash        session id -> head, of live sessions
``index``       sorted set  session id, by ``-active_us``; sessions of one moment in the order of their bytes
``tombstones``  hash        session id -> tombstone, of sessions that were deleted or may expire; and the user's id
==============  ==========  =========================================================================

The keys of a session, in the same slot:

================  ====  ======================================================================================
``entries``       list  the entries, seq 1 first
``ids``           hash  id or key of an entry -> seq; and the seqs of the entries that ever stood in pieces
``pieces:seq``    hash  the payload of a large entry
``staged:id``     hash  a large payload that no entry has yet; the key expires
================  ====  ======================================================================================

The key ``store`` is a hash with the identity of the store.

See :mod:`~session_history.providers.redis.codec` for heads, tombstones and entries. A number in Lua is a double, exact
up to 2**53. Lua compares strings by the locale, so the scripts compare bytes one by one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

CORRUPT, UNCHANGED, DONE, REPLAYED, PIECES, UNSTAGED = -1, 0, 1, 2, 3, 4
"""The first element of an answer. After ``CORRUPT`` come the flaw and the damaged bytes.

After ``PIECES`` come the seqs of the session's large entries, and the script wrote nothing: it needs the keys of their
pieces. After ``UNSTAGED`` it wrote nothing since pieces of the new entries are not there.
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the digest by which ``EVALSHA`` calls it."""

    text: str = field(repr=False)
    sha1: str

    @classmethod
    def load(cls, *parts: str, flags: str = "") -> Script:
        """Read a script from the files of its parts. The text of ``prelude`` comes before them."""
        first = "#!lua" + (f" flags={flags}" if flags else "")
        return cls.of("\n".join((first, *map(_text, ("prelude", *parts)))))

    @classmethod
    def of(cls, text: str) -> Script:
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    return (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


MAY_WRITE = Script.of(f"#!lua\nreturn {DONE}")
"""Writes nothing, but its flags say that it may. So a server refuses it whenever it takes no writes."""

READ = Script.load("read", flags="no-writes")
APPEND = Script.load("pieces", "append", "storing")
RENEW = Script.load("renew")
REWRITE = Script.load("pieces", "entries", "rewrite")
RESTORE = Script.load("pieces", "entries", "restore", "storing")
RESTORE_TOMBSTONE = Script.load("restore_tombstone")
DELETE = Script.load("delete", flags="allow-oom")
LIST = Script.load("list", flags="no-writes")
SCAN_SESSIONS = Script.load("scan_sessions", flags="no-writes")
SCAN_TOMBSTONES = Script.load("scan_tombstones", flags="no-writes")
FIND_USER = Script.load("find_user", flags="no-writes")
STORE_INFO = Script.load("store_info", flags="allow-oom")
