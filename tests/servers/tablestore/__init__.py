"""A local server that speaks the protocol of Tablestore, for tests with the unmodified SDK.

It has tables, rows, conditions, batches, ranges, filters and secondary indexes. It refuses everything else:
transactions, search indexes, streams and SQL. These rules were not tried on the real service:

- a range with equal ends is refused, and so are two changes of one row in a batch;
- if a table is missing or not ready, each row of a batch fails, not the batch;
- a page that ends with the last row of the range has no token;
- every row comes back with its whole key, for any columns that were asked for, and a filter sees no column of the key;
- values of different types are unequal and have no order;
- a value must have the type of its defined column;
- a row without columns expires like a row whose columns were written at the same time.
"""

from __future__ import annotations

from .faults import Faults
from .server import TablestoreServer

__all__ = ["Faults", "TablestoreServer"]
