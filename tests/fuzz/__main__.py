"""The long campaign: ``python -m tests.fuzz [--frames N] [--seed S] [BENCH ...]``; exit status 1 where one breaks.

Compiled by default.  With ``NUMBA_BOUNDSCHECK=1`` compiled code checks every index (set COLO_CACHE_DIR to a folder of
its own then); with ``NUMBA_DISABLE_JIT=1`` the same runs as plain Python.
"""

from __future__ import annotations

import argparse
import sys
import time

import structlog

from tests.fuzz.benches import BENCHES, campaign
from tests.fuzz.mutate import recorded, seeds


def main() -> int:
    """Run the campaign; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--frames", type=int, default=10_000_000, help="mutated frames in all (10 million)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, default=200_000, help="frames for a bench before a fresh one is taken")
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, []], help=f"one of {', '.join(BENCHES)} (all)")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    names = given.bench or list(BENCHES)
    corpus = seeds() + recorded()
    total = dict.fromkeys(names, 0)
    started = time.monotonic()
    number = given.seed
    while sum(total.values()) < given.frames:
        name = min(names, key=lambda n: total[n])
        try:
            total[name] += campaign(name, corpus, min(given.round, given.frames - sum(total.values())), number)
        except BaseException:
            print(f"broken: python -m tests.fuzz --seed {number} --frames {given.round} {name}", file=sys.stderr)
            raise
        number += 1
        print(f"{sum(total.values()):,} frames, {time.monotonic() - started:.0f} s, last {name}", flush=True)
    print("sound: " + ", ".join(f"{name} {n:,}" for name, n in total.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
