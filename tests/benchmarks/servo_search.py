"""A search for a way to make the arm's node send what it must not: `python tests/benchmarks/servo_search.py`.

`--periods 500000 --seed 0`. The real node (drivers/arm_node.py) with its servo, gate, controllers and listener, on fake
topics and clocks, in worlds of random limits and rates, with each of the four profiles. Its arm follows with a lag,
sags, is stopped by its brakes, is let go, is pushed; its readings are late, lose numbers, go silent, freeze; the
stamps' clock steps by 0.02 s to an hour; policy and person wish sensible, far, wild and malformed things, take over,
let go, die; a person stops and resets; it goes home; it is slowed; the node is started anew. Joint profiles begin near
singularities, of a Panda and of a UR5e in turn; every other world of the others keeps limits of jerk too.
servo_judge.py, which knows the limits only, judges every period. Prints what was done and what broke a law.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.spatial.transform import Rotation

from drivers.arm_node import ArmNode
from drivers.gate import GateLimits
from drivers.messages import numbers_msg, pose_msg
from drivers.robot_file import ControllerFile, GripperFile, KinematicsFile, RobotFile, StateGroup
from robot_rl.types import RobotRLError
from tests.benchmarks.fake_ros import FakeNode, Times, frozen
from tests.benchmarks.servo_judge import Judge, Seen
from tests.benchmarks.singular_paths import ARMS, Arm, singular

PROFILES = ("cartesian_impedance", "joint_trajectory", "forward_command", "servo_twist")
JOINT_PROFILES = PROFILES[1:3]
STEPS = (0.02, 0.03, 0.05, 0.5, 10.0, 3600.0)
WORLD = 1500  # periods of one world
OUT = (np.nan, np.inf, -np.inf)


class World:
    """One robot, and everything that happens to it; `period` lets a servo period pass."""

    def __init__(self, rng: np.random.Generator, profile: str, arm: Arm, did: Counter[str]) -> None:
        self.rng, self.profile, self.arm, self.did, self.times = rng, profile, arm, did, Times()
        self.joints_sent = profile in JOINT_PROFILES
        self.q = self._joints()
        self.position, self.turn = arm.pose(self.q)
        self.robot = self._robot()
        self.period = 1.0 / self.robot.servo_rate
        maker = self.robot.arm_limits
        tool = arm.pose if self.joints_sent else None
        ranges = np.array(maker.low), np.array(maker.high)
        self.judge = Judge(self.robot.limits, self.period, np.array(maker.speed), ranges, tool)
        self.lag, self.sag = rng.uniform(0.02, 0.2), np.array([0.0, 0.0, rng.choice([0.0, 0.005, 0.02])])
        self.delay = int(rng.choice([0.0, 0.01, 0.06, 0.12, 0.17]) / self.period)  # of readings [periods]
        self.free, self.broken, self.silent, self.frozen_for = 0, 0, 0, 0  # for so many periods more
        self.queue: deque[tuple[float, np.ndarray, Rotation, np.ndarray]] = deque()
        self.measured: Any = None
        self.sound_stamp, self.is_sound = -np.inf, False
        self.scale, self.goal, self.way, self.beats = 1.0, None, np.zeros(3), False
        self.target: Any = None  # that the controller holds
        self.opening, self.tick = 1.0, 0
        self._start()

    def _joints(self) -> np.ndarray:
        """Where it begins."""
        if self.joints_sent:
            return singular(self.arm.name, self.rng)
        return np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8])

    def _robot(self) -> RobotFile:
        rng = self.rng
        axis = self.turn.apply([0.0, 0.0, 1.0])
        room = rng.uniform(0.03, 0.4, (2, 3))
        limits = GateLimits(
            tuple(self.position - room[0]), tuple(self.position + room[1]), axis=tuple(axis / np.linalg.norm(axis)),
            tilt=rng.uniform(0.2, 1.5), speed=rng.uniform(0.05, 0.5), turn_speed=rng.uniform(0.2, 1.2),
            acceleration=rng.uniform(0.5, 6.0), turn_acceleration=rng.uniform(1.0, 15.0), lead=rng.uniform(0.06, 0.2),
            lead_turn=rng.uniform(0.2, 0.6), near=0.05, near_turn=0.2, joint_acceleration=rng.uniform(4.0, 20.0),
            joint_speed=rng.uniform(0.2, 1.0), age=rng.uniform(0.1, 0.3),
        )  # fmt: skip
        home = self.position + rng.uniform(-0.1, 0.1, 3)
        home = np.clip(home, limits.box_low, limits.box_high)
        kinematics, arm = None, self.arm
        if self.joints_sent:
            kinematics = KinematicsFile(f"robosuite:{arm.name.lower()}", arm.joints, "right_hand", arm.base)
        elif rng.random() < 0.5:
            limits = replace(
                limits, jerk=rng.uniform(5.0, 200.0), turn_jerk=rng.choice([0.0, rng.uniform(10.0, 500.0)])
            )
        return RobotFile(
            world="search", arm=arm.name, joints=arm.joints, base_frame="base",
            gripper=GripperFile("finger", 0.0, 1.0), controller=ControllerFile(self.profile, "sink"), limits=limits,
            state=(StateGroup("position", ("x", "y", "z"), "m", (-2.0,) * 3, (2.0,) * 3),), move=0.02, turn=0.1,
            home=(*home, *self.turn.as_quat()), kinematics=kinematics, servo_rate=float(rng.choice([50, 100, 200])),
            wrench="wrench",
        )  # fmt: skip

    def _start(self) -> None:
        """A node; anew, where there was one."""
        self.node = FakeNode(self.times)
        with frozen(self.times), patch("drivers.kinematics.from_file", lambda _: self.arm.kinematics):  # read once
            self.arm_node = ArmNode(self.node, self.robot)
        self.scale = 1.0
        self.judge.forget()

    def run(self, periods: int) -> None:
        """So many periods."""
        with frozen(self.times):
            for _ in range(periods):
                self._happen()
                self._read()
                self._wish()
                self.arm_node.tick()
                self._look()
                self.times.steady += self.period
                self.tick += 1

    def _maybe(self, name: str, chance: float) -> bool:
        """Whether something happens, which would about `chance` times a second."""
        happens = bool(self.rng.random() < chance * self.period)
        self.did[name] += happens
        return happens

    def _call(self, service: str) -> bool:
        answer = self.node.services[service]()
        self.did[f"{service}: {'yes' if answer.success else 'no'}"] += 1
        return bool(answer.success)

    def _happen(self) -> None:
        rng, gate = self.rng, self.arm_node.servo.gate
        if self._maybe("clock steps", 0.05):
            self.times.shift += rng.choice([-1, 1]) * rng.choice(STEPS)
        if self._maybe("the arm stands", 0.05):
            self.free = int(rng.choice([0.3, 1.5, 3.0]) / self.period)
        if self._maybe("numbers are lost", 0.06):
            self.broken = int(rng.integers(1, 10))
        if self._maybe("readings are silent", 0.05):
            self.silent = int(rng.choice([0.05, 0.15, 0.5]) / self.period)
        if self._maybe("readings freeze", 0.04):
            self.frozen_for = int(rng.choice([0.05, 0.3, 1.0]) / self.period)
        if self._maybe("pushed", 0.04):
            self.position = self.position + rng.normal(0, 0.06, 3)
        if self._maybe("stop", 0.06):
            self._call("stop")
        if self._maybe("fault", 0.02) and "policy/fault" in self.node.heard:
            self.node.heard["policy/fault"](SimpleNamespace(data="it thinks so"))
        if self.arm_node.authority.latched and self._maybe("reset", 4.0):
            self._call("reset")
        if self._maybe("release", 0.05):
            self._call(f"{gate.holder or 'policy'}/release")
        if gate.stopped and self._maybe("arming", 5.0) or self._maybe("arming anyhow", 0.1):
            self._arm(str(rng.choice(["policy", "policy", "teleop", "homing"])))
        if self._maybe("speed is scaled", 0.1):
            scale = float(rng.uniform(0.1, 1.0))
            answer = self.node.set_parameters([SimpleNamespace(name="speed_scale", value=scale)])
            self.scale = scale if answer.successful else self.scale
        if self._maybe("the node is started anew", 0.01):
            self._start()
        if self._maybe("a silent source", 0.1):
            self.goal = None

    def _arm(self, source: str) -> None:
        if not self._call(f"{source}/arm"):
            return
        self.beats = source == "homing"
        self.source = "policy" if source == "homing" else source
        self.goal = self.position.copy()
        self.facing, self.way = self.turn, self._new_way()

    def _new_way(self) -> np.ndarray:
        way = self.rng.normal(size=3)
        return way / np.linalg.norm(way) * self.rng.uniform(0, 1.3) * self.scale * self.robot.limits.speed

    def _read(self) -> None:
        """Deliver a reading, as late as they are; the arm's truth is of now."""
        node = self.node
        if self.frozen_for:
            self.frozen_for -= 1
            at, turn, q = self.queue[-1][1:] if self.queue else (self.position, self.turn, self.q)
        else:
            at, turn, q = self.position, self.turn, self.q
        self.queue.append((self.times.now, at, turn, q))
        if len(self.queue) <= self.delay or self.silent:
            self.silent = max(self.silent - 1, 0)
            return
        while len(self.queue) > self.delay + 1:
            self.queue.popleft()
        stamp, at, turn, q = self.queue[0]
        numbers = {"p": at.copy(), "q": turn.as_quat(), "j": np.append(q, self.opening), "w": np.zeros(6)}
        if self.broken:
            self.broken -= 1
            self._lose(numbers)
        joints = numbers_msg(stamp, [*self.arm.joints, "finger"], numbers["j"])
        node.heard["joint_states"](joints)
        node.heard["wrench"](_wrench(stamp, numbers["w"]))
        node.heard["current_pose"](pose_msg(stamp, "base", numbers["p"], numbers["q"]))
        self.is_sound = all(np.isfinite(part).all() for part in numbers.values())
        self.sound_stamp = stamp
        if self.is_sound:
            self.measured = at, turn.as_quat(), q

    def _lose(self, numbers: dict[str, np.ndarray]) -> None:
        """One of a reading's numbers."""
        part = numbers[str(self.rng.choice(list(numbers)))]
        part[self.rng.integers(len(part))] = self.rng.choice(OUT)

    def _wish(self) -> None:
        """At the policy's rate: on along a way, far, wild or malformed."""
        rng, servo = self.rng, self.arm_node.servo
        if self.beats and self.tick % max(int(0.05 / self.period), 1) == 0:
            servo.beat(servo.leases, self.times.steady)
        if self.goal is None or self.tick % max(int(0.05 / self.period), 1):
            return
        self.goal = self.goal + self.way * 0.05
        if rng.random() < 0.1:
            self.way = self._new_way()
        if rng.random() < 0.3:
            self.goal = self.position + self.way * 0.05
        kind, place, stamp = rng.integers(60), self.goal, self.times.now - rng.uniform(0.0, 0.08)
        roll = rng.normal(0, 0.03, 3) * (rng.random() < 0.5)
        self.facing = Rotation.from_rotvec(roll) * self.facing
        quaternion = self.facing.as_quat()
        if kind == 0:
            place = place + rng.normal(0, 0.3, 3)
        elif kind == 1:
            place = np.where(rng.random(3) < 0.5, rng.choice([*OUT, 1e300]), place)
        elif kind == 2:
            quaternion = quaternion * rng.choice([0.0, 0.9, -1.0, np.nan])
        elif kind == 3:
            stamp += rng.choice([-1.0, 1.0, -100.0])
        elif kind == 4:
            self.facing = self.turn
        source = self.source if rng.random() < 0.98 else str(rng.choice(["policy", "teleop"]))
        message = pose_msg(max(stamp, 0.0), "base", place, quaternion)
        node = self.node
        node.heard[f"{source}/target_gripper"](numbers_msg(self.times.now, ["gripper"], rng.uniform(-0.5, 1.5, 1)))
        node.heard[f"{source}/target_pose"](message, {"publication_sequence_number": None})

    def _look(self) -> None:
        """At what was sent; and the arm goes after it."""
        node, gate = self.node, self.arm_node.servo.gate
        message, told = node.publishers["sink"].take(), node.publishers["setpoint"].take()
        fingers = node.publishers[self.robot.gripper.topic].take()
        node.publishers["setpoint_gripper"].sent.clear()
        node.publishers["arm_status"].sent.clear()
        setpoint = joints = twist = None
        if told is not None:
            setpoint = _pose(told)
        if message is not None:
            setpoint, joints, twist = self._sent(message, setpoint)
        age = self.times.now - self.sound_stamp
        limits = self.robot.limits
        sound = self.is_sound and -limits.ahead - 1e-6 <= age <= limits.age + 1e-6
        opening = None if fingers is None else float(fingers.data[0])
        self.opening = self.opening if opening is None else opening
        seen = Seen(setpoint, joints, twist, opening, self.measured, sound, bool(gate.stopped), self.scale)
        self.judge.see(seen)
        self._move(setpoint, joints, twist)

    def _sent(self, message: Any, setpoint: Any) -> tuple[Any, Any, Any]:
        if self.profile == "cartesian_impedance":
            return _pose(message), None, None
        if self.profile == "servo_twist":
            v, w = message.twist.linear, message.twist.angular
            return setpoint, None, (np.array([v.x, v.y, v.z]), np.array([w.x, w.y, w.z]))
        positions = message.points[0].positions if self.profile == "joint_trajectory" else message.data
        return setpoint, np.array(positions), None

    def _move(self, setpoint: Any, joints: Any, twist: Any) -> None:
        told = joints if self.joints_sent else setpoint
        self.target = self.target if told is None else told  # a controller holds it
        if self.free:  # in an emergency stop
            self.free -= 1
            return
        share = 1 - np.exp(-self.period / self.lag)
        if self.profile == "servo_twist":
            linear, angular = twist if twist is not None else (np.zeros(3), np.zeros(3))
            if np.isfinite(linear).all() and np.isfinite(angular).all():
                self.position = self.position + linear * self.period
                self.turn = Rotation.from_rotvec(angular * self.period) * self.turn
            return
        if self.joints_sent:
            if self.target is not None:
                self.q = self.q + share * (self.target - self.q)
                self.position, self.turn = self.arm.pose(self.q)
            return
        if self.target is not None:
            self.position = self.position + share * (self.target[0] - self.sag - self.position)
            turn = Rotation.from_quat(self.target[1])
            self.turn = Rotation.from_rotvec(share * (turn * self.turn.inv()).as_rotvec()) * self.turn


def _pose(message: Any) -> tuple[np.ndarray, np.ndarray]:
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])


def _wrench(stamp: float, numbers: np.ndarray) -> Any:
    from geometry_msgs.msg import WrenchStamped

    message = WrenchStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), int(stamp % 1 * 1e9)
    force, torque = message.wrench.force, message.wrench.torque
    force.x, force.y, force.z, torque.x, torque.y, torque.z = (float(v) for v in numbers)
    return message


def search(
    periods: int, seed: int, profiles: tuple[str, ...] = PROFILES, world_periods: int = WORLD
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """What broke a law, what was done, and how many periods and setpoints of each profile were judged."""
    arms = {name: Arm(name) for name in ARMS}
    found, did, judged = Counter[str](), Counter[str](), Counter[str]()
    worlds = -(-periods // world_periods)
    for k in range(worlds):
        profile = profiles[k % len(profiles)]
        joints_sent, world = profile in JOINT_PROFILES, None
        arm = arms["UR5e" if joints_sent and k // len(profiles) % 2 else "Panda"]
        while world is None:
            rng = np.random.default_rng([seed, k, did["impossible robots"]])
            try:
                world = World(rng, profile, arm, did)
            except RobotRLError:
                did["impossible robots"] += 1
        world.run(min(world_periods, periods - k * world_periods))
        judge = world.judge
        found += Counter({f"{profile}: {law}": n for law, n in judge.found.items()})
        if judge.found:
            did[f"worlds with violations: {k}"] += 1
        judged[profile] += judge.periods
        judged[f"{profile} setpoints"] += judge.setpoints
        judged["twists cut to zero"] += judge.cuts
        did.update({v: world.arm_node.servo.gate.counts[v] for v in ("sent", "clipped", "rejected", "stopped")})
    return found, did, judged


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--periods", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", choices=PROFILES, action="append")
    asked = parser.parse_args()
    begin = time.process_time()
    found, did, judged = search(asked.periods, asked.seed, tuple(asked.profile or PROFILES))
    spent = 1e3 * (time.process_time() - begin) / asked.periods
    print(f"{asked.periods} periods, {spent:.2f} ms of the CPU each: {dict(judged)}")
    print(f"done: {dict(sorted(did.items()))}")
    print(f"violations: {dict(found) or 0}")


if __name__ == "__main__":
    main()
