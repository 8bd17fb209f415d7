"""``make torture``: kill what can be killed, and see that what was acknowledged is there.

Each round is a blow at a random moment: a writing process, a server, a primary or a master of a cluster is killed
with SIGKILL while two processes with six tasks each append to three sessions. After every round the log of each
session is compared with a manifest that the writers keep outside.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from session_history import SessionHistoryService
from torture.manifest import Manifest, flaws, logs
from torture.scenarios import ONE_BLOW, SCENARIOS, Scenario, Scene
from torture.writers import Writers


def one_round(scene: Scene, writers: Writers) -> float:
    """Seconds from the blow until the writers go on."""
    time.sleep(random.uniform(0.05, 0.6))
    began = time.monotonic()
    scene.blow(writers)
    writers.wait_until_something_is_acknowledged()
    return time.monotonic() - began


async def look(url: str, manifest: Manifest) -> dict[str, list[str]]:
    async with SessionHistoryService.from_url(url) as service:
        return await logs(service, manifest)


def torture(name: str, scenario: Scenario, rounds: int) -> list[str]:
    """Return the flaws after a number of rounds."""
    recoveries: list[float] = []
    wrong: dict[str, None] = {}  # what is lost once is found after each later round, too
    acknowledged = doubtful = 0
    lives = rounds if name in ONE_BLOW else 1
    for _ in range(lives):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            folder.chmod(0o755)
            with scenario(folder) as scene:
                for _ in range(rounds // lives):
                    with Writers(scene.url, folder) as writers:
                        recoveries.append(one_round(scene, writers))
                    manifest = Manifest.read(folder / "manifest")
                    found = flaws(manifest, asyncio.run(look(scene.url, manifest)), lossy=scene.lossy)
                    wrong |= dict.fromkeys(found)
                acknowledged += manifest.count
                doubtful += sum(map(len, manifest.attempted.values())) - manifest.count
    print(
        f"{name:<30} {rounds:>3} blows, {acknowledged:>6,} turns acknowledged, {doubtful:>4} in doubt;"
        f" goes on after {sorted(recoveries)[len(recoveries) // 2]:.2f} s, {max(recoveries):.2f} s at worst:"
        f" {'; '.join(wrong) or 'nothing lost, doubled, reordered or torn'}",
        flush=True,
    )
    return list(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="blows of each scenario")
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], help="all by default")
    given = parser.parse_args()
    wrong = [torture(name, SCENARIOS[name], given.rounds) for name in given.scenarios or SCENARIOS]
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
