"""Gradient steps a second alone and beside busy processes: `python tests/benchmarks/busy_machine.py [--seconds 5]`.

A critic step (5 heads of 256, batch 256) with one and with two threads, as OpenMP's threads wait when nothing is said
(they spin) and as robot-rl has them wait (they sleep: `robot_rl/start.py`). Each cell is a process of its own; two
rounds, the better one counts. Nothing else should run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPIN = "while True: pass"
WAYS = {"spin": {}, "sleep": {"OMP_WAIT_POLICY": "PASSIVE"}}


def steps(seconds: float, threads: int) -> float:
    """Gradient steps a second in this process."""
    import torch

    from robot_rl.agents.engine import CriticEnsemble, adamw, descend

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    critic = CriticEnsemble(5, 38, 256)
    optimizer = adamw(critic, 3e-4)
    state, action, target = torch.randn(256, 31), torch.rand(256, 7), torch.rand(256)
    done, begin = -5, 0.0  # the first ones warm up
    while done < 0 or time.perf_counter() - begin < seconds:
        begin = time.perf_counter() if done == 0 else begin
        descend(optimizer, critic.loss(state, action, target))
        done += 1
    return done / (time.perf_counter() - begin)


def measured(seconds: float, threads: int, way: str, busy: int) -> float:
    """The same in a fresh process, beside `busy` others."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment |= WAYS[way] | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--seconds", str(seconds), "--threads", str(threads)]
    try:
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=0, help="measure in this process, and print the number only")
    asked = parser.parse_args()
    if asked.threads:
        print(steps(asked.seconds, asked.threads))
        return
    print(f"{os.cpu_count()} cores | threads | waiting | alone | beside one busy process | beside two")
    for threads in (1, 2):
        for way in WAYS:
            best = [max(measured(asked.seconds, threads, way, busy) for _ in range(2)) for busy in (0, 1, 2)]
            print(f"| {threads} | {way} | " + " | ".join(f"{number:.1f}" for number in best), flush=True)


if __name__ == "__main__":
    main()
