"""Check the links and the names of a built site, offline: ``python -m website FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from website import links, names


def main(root: Path) -> int:
    found = [*links.flaws(root), *names.flaws(root)]
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{root}: {len(found)} flaws of links and names")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
