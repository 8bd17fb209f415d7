"""
A local server that speaks the protocol of Tablestore, for tests with the unmodified SDK.

It has tables, rows, conditions, batches, ranges, filters and secondary indexes; no transactions, search indexes,
streams or SQL. What it does not know it refuses. Taken on trust, since it was not tried on the real service: that

- a range whose ends are the same is refused, and so are two changes of a row in a batch;
- a table that is not ready or not there fails each row of a batch, not the batch;
- a page whose last row is the last of the range has no token;
- the whole key comes back with every row, whatever columns were asked for, and a filter sees no column of the key;
- values of different types are unequal and have no order;
- a value of another type than its defined column's is refused;
- a row without columns lives as long as one whose columns were written with it.
"""

from __future__ import annotations

from .faults import Faults
from .server import TablestoreServer

__all__ = ["Faults", "TablestoreServer"]
