"""A local server that speaks the protocol of Tablestore, for tests with the unmodified SDK."""

from __future__ import annotations

from .faults import Faults
from .server import TablestoreServer

__all__ = ["Faults", "TablestoreServer"]
