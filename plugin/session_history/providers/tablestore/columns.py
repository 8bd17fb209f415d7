"""The columns of a table, named here and nowhere else.

Their names are short because Tablestore stores, sends and bills the name of a column with every row.
The page ``docs/reference/tablestore.md`` shows which row has which column.
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

ORIGIN = "o"
"""The origin of an entry; in a head, the origin of the newest entry."""
CHANGED_US = "t"
"""Microseconds: when an entry was appended; in a head, the last append or the delete. A restored entry has none."""
ETAG = "x"
"""A random number that each write of a row changes. Conditional writes compare it."""

# Heads

GENERATION = "g"
"""The generation of a session. A chunk has it as well."""
SEQ = "n"
"""The seq of the newest entry."""
RECENCY = "r"
"""The negative of the last activity in microseconds, by which the index orders sessions. A tombstone has none."""
ACTIVE_US = "a"
"""The last activity in the head of a tombstone. No other row has this column."""
HEARTBEAT = "h"
ID_DIGESTS = "d"
"""Digests of the ids and keys of the newest entries."""
ID_COUNTS = "dc"
"""For each of these entries, how many digests it has. Without this column each has one."""
RESTORED_SEQ = "rs"
"""The seq of the newest entry that was restored."""
SNAPSHOT_SEQ = "sn"
SNAPSHOT_ORIGIN = "so"
SUMMARY = "sm"

# Heads and entries that were rewritten

REWRITE_ID = "w"
"""The id of the newest rewrite."""
PREVIOUS_REWRITE_ID = "wp"
"""The newest rewrite of the session at the time of this rewrite."""

# Entries

ENTRY_ID = "i"
KEYS = "k"
"""The further ids of an entry, as a JSON array."""
BOOKKEEPING = "b"

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

# The row of the store

INCARNATION = "in"
SHARD = "sh"
SHARD_COUNT = "sc"

# What reads ask for

WITHOUT_PAYLOAD = [
    LAYOUT_VERSION, ORIGIN, CHANGED_US, ETAG, GENERATION, SEQ, RECENCY, ACTIVE_US, HEARTBEAT, ID_DIGESTS, ID_COUNTS,
    RESTORED_SEQ, SNAPSHOT_SEQ, SNAPSHOT_ORIGIN, SUMMARY, REWRITE_ID, PREVIOUS_REWRITE_ID, ENTRY_ID, KEYS, BOOKKEEPING,
    CHUNKS, CHUNKS_SIZE, REPLACED_CHUNKS, REPLACED_SIZE,
]  # fmt: skip
"""All that a head or an entry has, except the payload."""

INDEXED = [
    LAYOUT_VERSION, GENERATION, SEQ, ORIGIN, CHANGED_US, HEARTBEAT, REWRITE_ID, SNAPSHOT_SEQ, SNAPSHOT_ORIGIN, SUMMARY,
]  # fmt: skip
"""The columns of a head that a listing shows. The index holds them besides its keys."""

OF_TOMBSTONE = [LAYOUT_VERSION, GENERATION, SEQ, ORIGIN, CHANGED_US, RECENCY, ACTIVE_US, HEARTBEAT, REWRITE_ID]
"""The columns of a tombstone that a list of tombstones shows. A row with a recency is another one."""
