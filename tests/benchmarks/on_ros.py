"""The same checkpoint on ROS 2 and in the plain loop, on the same starts: `python tests/benchmarks/on_ros.py AGENT`.

On ROS 2: `robot-rl simulate`, the arm node and `robot-rl deploy`, each a process of its own, over DDS in real time.
Prints successes with Wilson intervals, late ticks and delays; takes about 5 s an episode.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from robot_rl.checkpoints import load_agent
from robot_rl.rollout import rollout
from robot_rl.statistics import wilson
from sim.worlds import of_spec

ROOT = Path(__file__).parents[2]
ROBOT = ROOT / "launch/params/sim_panda_lift.yaml"


def main() -> None:
    """Both, then a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent", type=Path)
    parser.add_argument("--robot", type=Path, default=ROBOT)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--words", default="", help="more words for deploy")
    given = parser.parse_args()
    printed = on_ros(given)
    won = int(re.findall(r"(\d+) of \d+ succeeded", printed)[-1])
    print(printed.strip())
    for name, successes in (("ROS 2", won), ("plain loop", in_the_plain_loop(given))):
        low, high = wilson(successes, given.episodes)
        print(f"{name}: {successes}/{given.episodes} ({100 * low:.0f}-{100 * high:.0f} %)")


def on_ros(given: argparse.Namespace) -> str:
    """What `deploy` prints."""
    environment = {
        "ROS_DOMAIN_ID": "77", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl",
        "PYTHONPATH": str(ROOT), **os.environ,
    }  # fmt: skip
    cli = [sys.executable, "-m", "robot_rl.cli"]
    others = [[*cli, "simulate"], [sys.executable, "-m", "drivers.arm_node"]]
    started = [subprocess.Popen([*words, "--robot", given.robot.resolve()], env=environment) for words in others]
    deploy = [*cli, "deploy", "--robot", given.robot.resolve(), "--agent", given.agent.resolve(), *given.words.split()]
    deploy += ["--episodes", str(given.episodes), "--seed", str(given.seed)]
    try:
        return subprocess.run(deploy, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(20)


def in_the_plain_loop(given: argparse.Namespace) -> int:
    """Successes in the checkpoint's own world."""
    agent = load_agent(given.agent)
    env = of_spec(agent.policy.spec).build()
    starts = range(given.seed, given.seed + given.episodes)
    won = sum(rollout(env, agent, explore=False, seed=seed).success for seed in starts)
    env.close()
    return won


if __name__ == "__main__":
    main()
