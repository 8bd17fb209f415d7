"""The scripts that the server runs, each one atomic step; their texts are in ``lua``.

The keys of a user, all in one slot of a cluster:

=========  ==========  ==============================================================================
``heads``  hash        session id -> head, of the sessions that live
``index``  sorted set  session id, by ``-active_us``: sessions of one moment stand in the order of their bytes
``graves`` hash        session id -> grave: what is left of a session that was deleted, or that may expire
=========  ==========  ==============================================================================

and of a session:

===========  ====  =====================================================
``entries``  list  the entries, seq 1 first
``ids``      hash  entry id -> seq
===========  ====  =====================================================

See :mod:`~session_history.providers.redis.packing` for heads, graves and entries. A number in Lua is a double, exact
up to 2**53, and Lua compares strings by the locale: bytes are compared one by one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

CORRUPT, NOTHING, DONE, REPLAYED = -1, 0, 1, 2
"""The first element of an answer. ``CORRUPT`` is followed by the flaw."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name that the server knows it by, once it has seen it."""

    text: str = field(repr=False)
    name: str

    @classmethod
    def of(cls, body: str, flags: str = "") -> Script:
        """:param body: the name of its file; ``prelude`` comes before it."""
        text = f"#!lua {flags}".strip() + "\n" + _text("prelude") + "\n" + _text(body)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    return (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


READ = Script.of("read", "flags=no-writes")
APPEND = Script.of("append")
RENEW = Script.of("renew")
REWRITE = Script.of("rewrite")
DELETE = Script.of("delete", "flags=allow-oom")
SESSIONS = Script.of("sessions", "flags=no-writes")
LIST = Script.of("list", "flags=no-writes")
