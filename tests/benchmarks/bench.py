"""Every benchmark in one run: a table of ratios, and `bench.json`. Run it by `make bench`, on a quiet machine.

Ours and the peer's take turns, so that a machine whose speed drifts is as unfair to both. A ratio is the peer's time
over ours: above 1 we are quicker.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def turns(functions: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Seconds for one unit of each function's work, the median over `rounds`; a function returns its units."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            units = function()
            if round_:  # the first only warms up
                seconds[name].append((time.perf_counter() - start) / units)
    return {name: statistics.median(values) for name, values in seconds.items()}


def row(name: str, ours: float, peer: float, unit: str = "ms", factor: float = 1e3) -> Row:
    """A line of the table from two times in seconds."""
    return {"name": name, "ours": ours * factor, "peer": peer * factor, "unit": unit, "ratio": peer / ours}


def main() -> None:
    """Run the parts named on the command line, or all."""
    import learner
    import policy
    import simulation

    parts = {"simulation": simulation.rows, "learner": learner.rows, "policy": policy.rows}
    rows: list[Row] = []
    print(f"{'':64} {'ours':>10} {'peer':>10} {'':4} {'ratio':>7}")
    for name in sys.argv[1:] or parts:
        for r in parts[name]():
            print(f"{r['name']:64} {r['ours']:10.3f} {r['peer']:10.3f} {r['unit']:4} {r['ratio']:7.2f}", flush=True)
            rows.append(r)
    Path("bench.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
