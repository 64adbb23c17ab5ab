"""`make fuzz`: damaged files for every reader, and how many were tried.

    python tests/fuzz/run.py --executions 500000 --jobs 2

Exits with 1 where anything is found; the inputs that did it are then in `tests/fuzz/corpus/`.
"""

import argparse
import math
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz_engine import fuzz
from fuzz_fixture import build
from fuzz_targets import TARGETS


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--executions", type=int, default=500_000, help="of all targets together")
    options.add_argument("--jobs", type=int, default=2, help="targets at a time")
    options.add_argument("--seed", type=int, default=0, help="another one tries other inputs")
    options.add_argument("--target", action="append", choices=TARGETS, help="only these")
    given = options.parse_args()
    names = given.target or list(TARGETS)
    shares = {name: TARGETS[name].share for name in names}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        with ThreadPoolExecutor(given.jobs) as pool:
            work = {
                name: pool.submit(
                    fuzz,
                    name,
                    math.ceil(given.executions * share / sum(shares.values())),
                    given.seed,
                    Path(folder),
                )
                for name, share in shares.items()
            }
            print(f"{'reader':20} {'executions':>10} {'refused':>10} {'seconds':>8} findings")
            total, found = 0, 0
            for name, task in work.items():
                result = task.result()
                total, found = total + result.executions, found + len(result.findings)
                print(
                    f"{name:20} {result.executions:10,} {result.refused:10,} "
                    f"{result.seconds:8.0f} {len(result.findings)}",
                    flush=True,
                )
                for what in sorted(set(result.findings)):
                    print(f"  {what}", flush=True)
    print(f"{total:,} executions in {time.monotonic() - begun:.0f} s: {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
