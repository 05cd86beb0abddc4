"""Damaged recordings by the thousand: every one is read or refused by RobotRLError, within memory and time.

    PYTHONPATH=. python tests/benchmarks/fuzz_imports.py --inputs 2000 --seed 0

Prints a line a kind of recording (lerobot, hdf5, zarr); exits with 1 where anything else came of one.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzzing import SOURCES, fuzz

MOST = 2.0  # GiB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(SOURCES))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sound = True
    for kind in arguments.kinds:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = fuzz(kind, arguments.inputs, arguments.seed, Path(folder))
        for text in tally.broken[:20]:
            print(text)
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        sound &= not tally.broken and gib <= MOST
        print(
            f"{kind:<8} {arguments.inputs} inputs, seed {arguments.seed}: {tally.read} read, {tally.refused} refused, "
            f"{len(tally.broken)} otherwise; at most {gib:.2f} GiB, {time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
