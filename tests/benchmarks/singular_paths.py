"""Tool paths past singularities: `python tests/benchmarks/singular_paths.py --paths 10000 --seed 0`.

Each begins near a singular pose of a Panda or a UR5e (elbow straight, wrist aligned, hand above the shoulder, or the
joints anywhere), and its wishes lead straight through it at up to full speed, turning; some are broken off by a stop or
by wishes that are no numbers. What is sent is judged from the limits alone: every step of every joint, its change, the
joints' ranges, and the tool by forward kinematics of the joints that were sent.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import mujoco
import numpy as np
import robosuite
from scipy.spatial.transform import Rotation

from drivers.gate import Gate, GateLimits
from drivers.kinematics import MujocoKinematics
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, Target

MODELS = Path(robosuite.__file__).parent / "models/assets/robots"
PERIOD, TICKS = 0.02, 60
ARMS = {
    "Panda": ("panda", [f"joint{i}" for i in range(1, 8)], "link0"),
    "UR5e": (
        "ur5e", [*(f"{j}_joint" for j in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3"))],
        "base",
    ),
}  # fmt: skip
LIMITS = GateLimits(
    (-2.0, -2.0, -2.0), (2.0, 2.0, 2.0), tilt=np.pi / 2, lead=0.5, lead_turn=2.0, near=0.05, near_turn=0.5
)


class Arm:
    """A gate's kinematics and, beside them, MuJoCo's own for the judge."""

    def __init__(self, name: str) -> None:
        folder, joints, base = ARMS[name]
        self.name, self.joints, self.base = name, tuple(joints), base
        path = MODELS / folder / "robot.xml"
        self.kinematics, self.limits = MujocoKinematics(path, joints, "right_hand", base), arm_limits(name)
        self._model = mujoco.MjModel.from_xml_path(str(path))
        self._data = mujoco.MjData(self._model)
        self._at = [self._model.joint(joint).qposadr[0] for joint in joints]
        self._tool, self._base = self._model.body("right_hand").id, self._model.body(base).id

    def pose(self, joints: np.ndarray) -> tuple[np.ndarray, Rotation]:
        """Of the tool in the base's frame."""
        self._data.qpos[self._at] = joints
        mujoco.mj_forward(self._model, self._data)
        turns = Rotation.from_quat(np.roll(self._data.xquat, -1, axis=1))
        back = turns[self._base].inv()
        return back.apply(self._data.xpos[self._tool] - self._data.xpos[self._base]), back * turns[self._tool]


def singular(name: str, rng: np.random.Generator) -> np.ndarray:
    """Joints (n,) at or near a singularity, inside their ranges."""
    low, high = np.array(arm_limits(name).low) + 0.15, np.array(arm_limits(name).high) - 0.15
    joints = rng.uniform(np.maximum(low, -2.5), np.minimum(high, 2.5))
    kind, off = rng.integers(4), rng.normal(0, 0.05)
    if name == "UR5e":
        joints[{0: 2, 1: 4, 2: 4, 3: 2}[int(kind)]] = off
    elif kind == 0:
        joints[3] = high[3] - abs(off)
    elif kind == 1:
        joints[[2, 4]] = off
    elif kind == 2:
        joints[1], joints[5] = off, min(max(off, low[5]), high[5])
    return np.clip(joints, low, high)


def drive(name: str, arm: Arm, rng: np.random.Generator) -> tuple[np.ndarray, list[Target], np.ndarray, Counter[str]]:
    """One path: joints (k, n) that were sent, setpoints, the straight way's places (k, 3), and what was ruled."""
    joints = singular(name, rng)
    position, turn = arm.kinematics.pose(joints)
    axis = Rotation.from_quat(turn).apply([0.0, 0.0, 1.0])
    limits = GateLimits(**{**vars(LIMITS), "axis": tuple(axis / np.linalg.norm(axis)), "tilt": 1.5})
    gate, told = Gate(limits, arm.limits, PERIOD, arm.kinematics), Counter[str]()
    gate.arm(ArmState(0.0, position, turn, joints, 1.0, np.zeros(6)), "policy", 0.0)
    way = rng.normal(size=3)
    way *= rng.uniform(0.3, 1.0) * limits.speed * PERIOD / np.linalg.norm(way)
    roll = rng.normal(0, 1, 3) * rng.choice([0.0, 0.3]) * limits.turn_speed * PERIOD
    ends, sent, setpoints, places = rng.integers(20, 2 * TICKS), [joints], [gate.setpoint], [position]
    for tick in range(1, TICKS + 1):
        now = tick * PERIOD
        wish = position + tick * way * (np.nan if rng.random() < 0.03 else 1.0)
        facing = (Rotation.from_rotvec(tick * roll) * Rotation.from_quat(turn)).as_quat()
        if tick == ends:
            gate.stop("the path ends")
        here = gate.setpoint
        state = ArmState(now, here.position, here.turn, gate.joints, 1.0, np.zeros(6))
        ruling = gate.check(Target(now, wish, facing, 1.0, "policy"), state, now, now)
        told[ruling.verdict] += 1
        sent.append(gate.joints)
        setpoints.append(ruling.sent)
        places.append(position + tick * way)
    return np.array(sent), setpoints, np.array(places), told


def judge(arm: Arm, sent: np.ndarray, setpoints: list[Target]) -> Counter[str]:
    """Violations of what was sent, by kind; from the limits alone."""
    found, steps = Counter[str](), np.diff(sent, axis=0)
    fastest = LIMITS.joint_speed * np.array(arm.limits.speed) * PERIOD
    found["joint speed"] = int((np.abs(steps) > fastest + 1e-8).any(1).sum())
    changes = np.diff(np.vstack([np.zeros(sent.shape[1]), steps]), axis=0)
    found["joint acceleration"] = int((np.abs(changes) > LIMITS.joint_acceleration * PERIOD**2 + 1e-8).any(1).sum())
    low, high = np.array(arm.limits.low) + LIMITS.joint_margin, np.array(arm.limits.high) - LIMITS.joint_margin
    found["joint range"] = int(((sent < low - 1e-8) | (sent > high + 1e-8)).any(1).sum())
    poses = [arm.pose(joints) for joints in sent]
    positions, turns = np.array([p for p, _ in poses]), Rotation.concatenate([r for _, r in poses])
    apart = np.abs(positions - [s.position for s in setpoints]).max(1)
    turned = (turns * Rotation.from_quat([s.turn for s in setpoints]).inv()).magnitude()
    found["setpoint is not where the joints are"] = int(((apart > 1e-7) | (turned > 1e-6)).sum())
    velocity = np.diff(np.vstack([positions[:1], positions]), axis=0) / PERIOD
    turning = np.vstack([np.zeros(3), (turns[1:] * turns[:-1].inv()).as_rotvec() / PERIOD])
    for kind, rates, speed, hardest in (
        ("tool", velocity, LIMITS.speed, LIMITS.acceleration),
        ("turn", turning, LIMITS.turn_speed, LIMITS.turn_acceleration),
    ):
        found[f"{kind} speed"] = int((np.linalg.norm(rates, axis=1) > speed + 1e-6).sum())
        pushed = np.linalg.norm(np.diff(rates, axis=0), axis=1) / PERIOD
        found[f"{kind} acceleration"] = int((pushed > hardest + 1e-4).sum())
    return +found


def run(paths: int, seed: int) -> tuple[Counter[str], Counter[str], np.ndarray, float]:
    """Violations, verdicts, how far (k,) setpoints were from their straight ways [m], seconds of the CPU a command."""
    arms, rng = {name: Arm(name) for name in ARMS}, np.random.default_rng(seed)
    found, told, aside, begin = Counter[str](), Counter[str](), [], time.process_time()
    spent = 0.0
    for k in range(paths):
        name = list(ARMS)[k % len(ARMS)]
        begin = time.process_time()
        sent, setpoints, places, verdicts = drive(name, arms[name], rng)
        spent += time.process_time() - begin
        found += judge(arms[name], sent, setpoints)
        told += verdicts
        line = places[-1] - places[0]
        line /= np.linalg.norm(line)
        away = np.array([s.position for s in setpoints]) - places[0]
        aside.append(np.linalg.norm(away - np.outer(away @ line, line), axis=1).max())
    return found, told, np.array(aside), spent / (paths * TICKS)


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    found, told, aside, spent = run(asked.paths, asked.seed)
    print(f"{asked.paths} paths, {sum(told.values())} commands: {dict(told)}; {1e3 * spent:.2f} ms each")
    parts = ", ".join(f"{q} % {1e3 * np.percentile(aside, q):.2f} mm" for q in (50, 90, 99, 100))
    print(f"farthest from the straight way: {parts}")
    print(f"violations: {dict(found) or 0}")


if __name__ == "__main__":
    main()
