"""The columns of a table, named here and nowhere else.

Their names are short because Tablestore stores, sends and bills the name of a column with every row.
The page ``docs/tablestore.md`` shows which row has which column.
"""

from __future__ import annotations

# The primary key

USER_ID = "u"
SESSION_ID = "s"
ROW_NUMBER = "q"
"""Tells the rows of a session apart, see :mod:`.keys`."""

# Every row

LAYOUT_VERSION = "v"

# Heads and entries

ENTRY_ID = "i"
"""The id of an entry; in a head, the id of the newest entry."""
ORIGIN = "o"
"""The origin of an entry; in a head, the origin of the newest entry."""
ACTIVE_US = "t"
"""Microseconds: when an entry was appended; in a head, the last activity."""
ETAG = "x"
"""A random number that each write of a row changes. Conditional writes compare it."""

# Heads

GENERATION = "g"
"""The generation of a session. A chunk has it as well."""
SEQ = "n"
"""The seq of the newest entry."""
RECENCY = "r"
"""The negative of ``ACTIVE_US``, by which the index orders sessions. A tombstone has none."""
HEARTBEAT = "h"
ID_DIGESTS = "d"
"""Digests of the newest entry ids."""
REWRITTEN_ETAG = "wx"
"""The etag of the entry that was rewritten last."""
SNAPSHOT_SEQ = "sn"
SNAPSHOT_ID = "si"
SUMMARY = "sm"

# Heads and entries that were rewritten

REWRITES = "w"
"""How often a session was rewritten; in an entry, the number of its last rewrite."""

# Entries and chunks

PAYLOAD = "p"

# Entries with a payload in chunks

CHUNKS = "c"
"""The id of the chunks that hold the payload."""
CHUNKS_SIZE = "z"
"""The bytes of the payload."""
REPLACED_CHUNKS = "rc"
"""The id of the chunks that a rewrite replaced."""
REPLACED_SIZE = "rz"

# What reads ask for

WITHOUT_PAYLOAD = [
    LAYOUT_VERSION, ENTRY_ID, ETAG, ORIGIN, ACTIVE_US, GENERATION, SEQ, HEARTBEAT, REWRITES, ID_DIGESTS, REWRITTEN_ETAG,
    RECENCY, SNAPSHOT_SEQ, SNAPSHOT_ID, SUMMARY,
]  # fmt: skip
"""All that a head has, and all that identifies an entry."""

INDEXED = [
    LAYOUT_VERSION, GENERATION, SEQ, ENTRY_ID, HEARTBEAT, REWRITES, SNAPSHOT_SEQ, SNAPSHOT_ID, SUMMARY,
]  # fmt: skip
"""The columns of a head that a listing shows. The index holds them besides its keys."""
