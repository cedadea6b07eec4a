"""A hundred deaths: SIGKILL of the daemon at random moments over a crowd of processes and containers.

    python benchmarks/kill_storm.py [--kills 100] [--processes 10] [--containers 10] [--seed 1] [--warm]

Needs a Docker engine unless ``--containers 0``. Exits with 1 when a child was missing, doubled, changed or not ready.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.crash.storm import Storm, Wave, table
from tests.crash.world import World
from tests.support.docker_engine import trouble


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--containers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="fork daemons from one that has imported everything")
    chosen = parser.parse_args()
    if chosen.containers and (without := trouble()) is not None:
        print(without, file=sys.stderr)
        return 1
    began = time.monotonic()

    def tell(number: int, wave: Wave) -> None:
        words = "right" if wave.is_right else f"changed {wave.changed} missing {wave.missing}"
        words += f"; not ready at first: {', '.join(wave.unready)}" if wave.unready else ""
        print(
            f"{number:>4} {wave.moment}{' +keeper' if wave.with_keeper else '':<8} {wave.took_s:5.1f} s  {words}",
            flush=True,
        )

    with World(is_warm=chosen.warm) as world:
        waves = Storm(world, chosen.processes, chosen.containers, chosen.seed, tell).run(chosen.kills)
        twins = world.witnesses.twins()
    print("\n".join(table(waves)))
    wrong = sum(not wave.is_right for wave in waves)
    unready = sum(bool(wave.unready) for wave in waves)
    print(
        f"kill storm: {len(waves)} deaths over {chosen.processes} processes and {chosen.containers} containers: "
        f"{sum(twins.values())} twins, {wrong} deaths with something wrong, "
        f"{unready} after which a survivor was shown as not ready; {time.monotonic() - began:.0f} s"
    )
    return int(bool(wrong or twins or unready))


if __name__ == "__main__":
    sys.exit(main())
