"""Microseconds of one call of the command gate, without inverse kinematics: `python tests/benchmarks/gate.py`."""

from __future__ import annotations

import time

import numpy as np

from drivers.gate import Gate, GateLimits
from robot_rl.geometry import quat_from_vector, quat_product
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, Target

PERIOD, CALLS = 0.01, 20_000
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


def main() -> None:
    """A smooth path, and one that is clipped at a wall and at the cone at every call."""
    for name, reach, roll in (("under all limits", 0.05, 0.1), ("at a wall and at the cone's side", 0.22, 0.55)):
        gate, now, spent = Gate(GateLimits((0.2, -0.2, 0.1), (0.7, 0.2, 0.6)), arm_limits("Panda"), PERIOD), 0.0, []
        position, turn = np.array([0.45, 0.0, 0.3]), DOWN
        gate.arm(ArmState(0.0, position, turn, np.zeros(7), 1.0, np.zeros(6)), "policy", 0.0)
        verdicts: dict[str, int] = {}
        for _ in range(CALLS):
            now += PERIOD
            swing = np.sin(0.8 * now)
            wanted = quat_product(quat_from_vector(np.array([roll * swing, 0.0, 0.0])), DOWN)
            target = Target(now, np.array([0.45, reach * swing, 0.3]), wanted, 1.0, "policy")
            state = ArmState(now, position, turn, np.zeros(7), 1.0, np.zeros(6))
            start = time.perf_counter()
            ruling = gate.check(target, state, now, now)
            spent.append(1e6 * (time.perf_counter() - start))
            verdicts[ruling.verdict] = verdicts.get(ruling.verdict, 0) + 1
            assert ruling.sent is not None
            position, turn = ruling.sent.position, ruling.sent.turn
        print(f"{name}: median {np.median(spent):.0f} us, p99 {np.percentile(spent, 99):.0f} us, {verdicts}")


if __name__ == "__main__":
    main()
