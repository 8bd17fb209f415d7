"""``python -m servers.tablestore --port 0`` prints the end point and serves until the standard input ends."""

from __future__ import annotations

import argparse
import sys

from .server import TablestoreServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="servers.tablestore")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--instance", default="inst")
    parser.add_argument("--access-key-id", default="ak")
    parser.add_argument("--access-key-secret", default="sk")
    chosen = parser.parse_args()
    with TablestoreServer(chosen.instance, chosen.access_key_id, chosen.access_key_secret, port=chosen.port) as server:
        print(server.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
