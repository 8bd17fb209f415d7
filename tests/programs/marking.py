"""Write to a file with marks, in short WALs, until killed: ``marking.py PATH SEED``."""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from pathlib import Path

from session_history.providers.sqlite.file import begin, connect, prepare
from session_history.providers.sqlite.marks import MarkKeeper
from session_history.providers.sqlite.watch import FileWatch

TIMEOUT = 30.0


def open_marked(path: Path) -> tuple[sqlite3.Connection, MarkKeeper]:
    connection = connect(path, timeout=TIMEOUT)
    prepare(connection, path, synchronous="NORMAL", busy_timeout=TIMEOUT)
    keeper = MarkKeeper(connection, FileWatch(path), synchronous="NORMAL", busy_timeout=TIMEOUT)
    keeper.start()
    return connection, keeper


def write(connection: sqlite3.Connection, keeper: MarkKeeper, dice: random.Random) -> None:
    begin(connection, TIMEOUT)
    connection.execute("CREATE TABLE IF NOT EXISTS data (k INTEGER PRIMARY KEY, value BLOB)")
    connection.execute("REPLACE INTO data VALUES (?, randomblob(?))", (dice.randrange(200), dice.randrange(20_000)))
    connection.execute("COMMIT")
    keeper.committed()
    time.sleep(dice.uniform(0, 0.004))  # SQLite gives the lock to others only in a pause.


def read_slowly(path: Path, dice: random.Random) -> None:
    """Hold a snapshot, which keeps checkpoints from their end."""
    reader = connect(path, timeout=TIMEOUT, mode="rw")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM head").fetchone()
    time.sleep(dice.uniform(0, 0.05))
    reader.close()


def main(path: Path, seed: int) -> None:
    dice = random.Random(seed)
    connection, keeper = open_marked(path)
    connection.execute(f"PRAGMA wal_autocheckpoint = {dice.choice([1, 5, 20, 100])}")
    print("open", flush=True)
    while True:
        write(connection, keeper, dice)
        if dice.random() < 0.02:
            read_slowly(path, dice)
        if dice.random() < 0.02:
            connection.close()
            connection, keeper = open_marked(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
