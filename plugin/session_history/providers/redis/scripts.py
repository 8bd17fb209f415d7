"""The scripts that the server runs, each one atomic step. Their texts are in the folder ``lua``.

The keys of a user, all in one slot of a cluster:

==============  ==========  =========================================================================
``heads``       hash        session id -> head, of live sessions
``index``       sorted set  session id, by ``-active_us``; sessions of one moment in the order of their bytes
``tombstones``  hash        session id -> tombstone, of sessions that were deleted or may expire
==============  ==========  =========================================================================

The keys of a session:

===========  ====  =====================================================
``entries``  list  the entries, seq 1 first
``ids``      hash  entry id -> seq
===========  ====  =====================================================

See :mod:`~session_history.providers.redis.codec` for heads, tombstones and entries. A number in Lua is a double, exact
up to 2**53. Lua compares strings by the locale, so the scripts compare bytes one by one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

CORRUPT, UNCHANGED, DONE, REPLAYED = -1, 0, 1, 2
"""The first element of an answer. After ``CORRUPT`` come the flaw and the damaged bytes."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the digest by which ``EVALSHA`` calls it."""

    text: str = field(repr=False)
    sha1: str

    @classmethod
    def load(cls, name: str, flags: str = "") -> Script:
        """Read a script from its file. The text of ``prelude`` comes before it."""
        text = f"#!lua {flags}".strip() + "\n" + _text("prelude") + "\n" + _text(name)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    return (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


READ = Script.load("read", "flags=no-writes")
APPEND = Script.load("append")
RENEW = Script.load("renew")
REWRITE = Script.load("rewrite")
DELETE = Script.load("delete", "flags=allow-oom")
SCAN_SESSIONS = Script.load("scan_sessions", "flags=no-writes")
LIST = Script.load("list", "flags=no-writes")
