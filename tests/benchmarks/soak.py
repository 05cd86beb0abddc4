"""Simulated robot, arm node and policy for long: `python tests/benchmarks/soak.py AGENT --minutes 30`.

Prints, for each process, memory and open files at the end against those after a sixth of the time, and how far the
servo's ticks drifted from the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).parents[2]
ROBOT = ROOT / "launch/params/sim_panda_lift.yaml"
EVERY = 5.0  # [s]


def main() -> None:
    """Run, sample, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent", type=Path)
    parser.add_argument("--robot", type=Path, default=ROBOT)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, help="file for all samples, as JSON")
    given = parser.parse_args()
    os.environ.update(ROS_DOMAIN_ID="78", ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl", "PYTHONPATH": str(ROOT)}
    cli = [sys.executable, "-m", "robot_rl.cli"]
    words = {
        "simulate": [*cli, "simulate", "--robot", given.robot],
        "arm_node": [sys.executable, "-m", "drivers.arm_node", "--robot", given.robot],
        "deploy": [*cli, "deploy", "--robot", given.robot, "--agent", given.agent, "--episodes", "0", "--seed", "0"],
    }
    with open("soak.log", "w") as log:
        running = {n: subprocess.Popen(w, env=environment, stdout=log, stderr=log) for n, w in words.items()}
        try:
            samples = sample(running, given.minutes * 60)
        finally:
            for process in reversed(running.values()):
                process.send_signal(signal.SIGINT)
            for process in running.values():
                process.wait(30)
    if given.out is not None:
        given.out.write_text(json.dumps(samples))
    print(table(samples, list(words)))


def sample(running: dict[str, subprocess.Popen], seconds: float) -> list[dict[str, Any]]:
    """Every few seconds: time, memory [MB], open files, servo ticks."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticStatus

    rclpy.init()
    node = rclpy.create_node("soak")
    last: dict[str, str] = {}

    def take(message: Any) -> None:
        last.update({v.key: v.value for v in message.values}, at=str(time.monotonic()))

    node.create_subscription(DiagnosticStatus, "arm_status", take, 1)
    watched = {name: psutil.Process(process.pid) for name, process in running.items()}
    samples, end, due = [], time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
        if time.monotonic() < due or not last:
            continue
        due += EVERY
        for name, process in running.items():
            assert process.poll() is None, f"{name} ended; see soak.log"
        row: dict[str, Any] = {"at": float(last["at"]), "ticks": int(last["ticks"])}
        for name, process in watched.items():
            row[name] = {"mb": process.memory_info().rss / 2**20, "files": process.num_fds()}
        samples.append(row)
    rclpy.shutdown()
    return samples


def table(samples: list[dict[str, Any]], names: list[str]) -> str:
    """Medians of the twelfth after the first sixth, and of the last twelfth."""
    n = max(len(samples) // 12, 1)
    early, late = samples[2 * n : 3 * n], samples[-n:]
    lines = ["| process | memory after a sixth, at the end [MB] | growth | files |", "|---|---|---|---|"]
    for name in names:
        a, b = (float(np.median([row[name]["mb"] for row in rows])) for rows in (early, late))
        files = f"{early[0][name]['files']}, {late[-1][name]['files']}"
        lines.append(f"| {name} | {a:.1f}, {b:.1f} | {100 * (b / a - 1):+.2f} % | {files} |")
    first, last = samples[2 * n], samples[-1]
    rate = (last["ticks"] - first["ticks"]) / (last["at"] - first["at"])
    return "\n".join([*lines, f"servo ticks: {rate:.3f} a second over {last['at'] - first['at']:.0f} s"])


if __name__ == "__main__":
    main()
