"""A setpoint of joints that moves within everything: box, cone, speeds and accelerations of tool and joints, ranges.

Where joints are what is sent, the tool's way is what follows from them. So a motion is made only together with a way to
brake after it, to rest, of which every step was found to keep every limit; and where there is no such motion the one
that was found before is braked. By induction no sequence of targets leaves any limit (fail-safe motions, Pek and
Althoff, 2021). A way past a singularity, where joints would have to turn faster than they may, is gone slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np

from drivers import quats
from drivers.braking import EXACT, Motion, Mover, cross, speed_to_stop
from robot_rl.geometry import quat_inverse, quat_product, unit_quat

SHARES = (1.0, 0.6, 0.3, 0.1, 0.02)  # of a wanted change of motion, that are tried
EASE = 0.97  # share of the tool's limits that is aimed at: the rest is for ways that are not quite straight
BRAKES = (0.97, 0.6)  # shares of the hardest braking that are tried
ASIDE = 0.2  # of its way may the tool go aside in a period, where joints do not lead straight on
ROUGH = 1e-4  # nearer to where it shall be [m], [rad], a pose counts as reached


class Kinematics(Protocol):
    """Forward and inverse kinematics of one arm."""

    def pose(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tool's position (3,) [m] and quaternion (4,) xyzw for joints (n,) [rad]."""

    def poses(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for many: (k, 3) and (k, 4) for (k, n)."""

    def nearer(
        self, position: np.ndarray, turn: np.ndarray, joints: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Joints (n,) [rad] from `low` to `high`, near `joints`, that bring the tool there, or nearer to it."""


@dataclass(frozen=True)
class Way:
    """The next k periods of a motion."""

    joints: np.ndarray  # (k, n) [rad]
    steps: np.ndarray  # (k, n) [rad]
    positions: np.ndarray  # (k, 3) of the tool [m]
    turns: np.ndarray  # (k, 4)
    velocities: np.ndarray  # (k, 3) [m/s]
    turnings: np.ndarray  # (k, 3) [rad/s]

    def after(self, k: int) -> Way:
        """What is left of it after k periods."""
        return Way(*(getattr(self, field.name)[k:] for field in fields(self)))


@dataclass(frozen=True)
class JointMotion(Motion):
    """A motion of joints, the tool's by forward kinematics, and how it is braked."""

    joints: np.ndarray  # (n,) [rad]
    step: np.ndarray  # (n,) of the last period [rad]
    brake: Way | None = None  # from here to rest; None: it rests
    reason: str = ""  # see `hindered`
    offset: tuple[np.ndarray, np.ndarray] = (np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))  # from the kinematics' tool

    @property
    def rests(self) -> bool:
        """Whether it stands still, but for rounding."""
        return self.brake is None and super().rests

    def at_rest(self) -> JointMotion:
        """The same place, without motion."""
        return replace(
            self, velocity=np.zeros(3), turning=np.zeros(3), step=np.zeros_like(self.step), brake=None, reason=""
        )

    @property
    def hindered(self) -> str:
        """Which joint kept it from going where it was asked to."""
        return self.reason


class JointMover:
    """The limits, and the steps of one period that keep them: like `Mover`, which has those of the tool.

    `low` and `high` (n,) are the joints' ranges [rad], `speed` (n,) [rad/s] and `acceleration` [rad/s^2] their limits.
    """

    def __init__(
        self,
        tool: Mover,
        kinematics: Kinematics,
        ranges: tuple[np.ndarray, np.ndarray],
        speed: np.ndarray,
        acceleration: float,
    ) -> None:
        self._tool, self._kinematics, self.period = tool, kinematics, tool.period
        self._guide = tool.eased(EASE)
        self._low, self._high = ranges
        self._step, self._change = speed * tool.period, acceleration * tool.period**2
        self._acceleration = acceleration
        self.low, self.high, self.inside, self.tilt_of = tool.low, tool.high, tool.inside, tool.tilt_of
        self.ways_to_rest = tool.ways_to_rest

    def begin(self, position: np.ndarray, turn: np.ndarray, joints: np.ndarray) -> JointMotion:
        """At rest at `joints` (n,), where the tool was measured at a pose.

        By how little it was measured elsewhere than the kinematics say, that much the setpoint is from here on too.
        """
        here, faces = self._kinematics.pose(joints)
        back = quat_inverse(faces)
        offset = _turned(back, position - here), unit_quat(quat_product(back, turn))
        (position,), (turn,) = self._poses(joints[None], offset)
        still = np.zeros(3)
        return JointMotion(position, turn, still, still, joints.copy(), np.zeros_like(joints), offset=offset)

    def towards(
        self, motion: Motion, position: np.ndarray, turn: np.ndarray, staying: bool
    ) -> tuple[JointMotion, bool]:
        """One period on the way to a pose inside, and whether the limits kept it from arriving; see `Mover`."""
        assert isinstance(motion, JointMotion)
        wanted, late = self._guide.towards(self._guided(motion), *self._guide.inside(position, turn), staying)
        step, reason = self._wanted_step(motion, wanted)
        brake = np.zeros_like(step) if motion.brake is None else motion.brake.steps[0]
        step = brake + self._allowed_share(motion, brake, step) * (step - brake)
        for share in SHARES:
            moved = self._with_brake(motion, brake + share * (step - brake), along=share == SHARES[0])
            if moved is not None:
                return replace(moved, reason=reason), late or bool(reason) or share < 1
        return replace(self.braked(motion), reason=reason), True

    def braked(self, motion: Motion) -> JointMotion:
        """One period of the braking that was found when the motion was made."""
        assert isinstance(motion, JointMotion)
        return motion.at_rest() if motion.brake is None else self._begun(motion.brake, motion.offset)

    @staticmethod
    def _begun(way: Way, offset: tuple[np.ndarray, np.ndarray]) -> JointMotion:
        """The first period of `way`; the others are how it is braked."""
        brake = way.after(1) if len(way.joints) > 1 else None
        first = (way.positions[0], way.turns[0], way.velocities[0], way.turnings[0], way.joints[0], way.steps[0])
        return JointMotion(*first, brake, offset=offset)

    def _poses(self, joints: np.ndarray, offset: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        (here, faces), (away, turn) = self._kinematics.poses(joints), offset
        turns = quats.product(faces, turn)
        return here + quats.turned(faces, away), turns / np.sqrt((turns**2).sum(1, keepdims=True))

    def _guided(self, motion: JointMotion) -> Motion:
        """The tool's motion, from a hair inside, where all ways along a wall are inside too."""
        return Motion(*self._guide.inside(motion.position, motion.turn), motion.velocity, motion.turning)

    def _joints_at(
        self, pose: Motion, joints: np.ndarray, offset: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joints near `joints` that bring the tool to or towards it; and which go as far as they can still stop."""
        away, turn = offset
        faces = quat_product(pose.turn, quat_inverse(turn))
        low, high = joints - self._way_left(joints - self._low), joints + self._way_left(self._high - joints)
        found = self._kinematics.nearer(pose.position - _turned(faces, away), faces, joints, low, high)
        return found, (found <= low) | (found >= high)

    def _way_left(self, room: np.ndarray) -> np.ndarray:
        """How far (n,) joints may go in a period and still stop within `room` (n,), which is not above 1 rad."""
        near = np.clip(room, 0.0, 1.0).tolist()
        return self.period * np.array([speed_to_stop(d, self._acceleration, self.period) for d in near])

    def _wanted_step(self, motion: JointMotion, wanted: Motion) -> tuple[np.ndarray, str]:
        """Of the joints (n,), towards a pose, slower where one is too fast; and what hinders them."""
        found, ends = self._joints_at(wanted, motion.joints, motion.offset)
        step = found - motion.joints
        times, reason = np.abs(step) / self._step, ""
        if (most := times.max()) > 1:
            step, reason = step / most, f"joint {int(times.argmax()) + 1} turns no faster"
        joints = motion.joints + step
        (position,), (turn,) = self._poses(joints[None], motion.offset)
        way, gone = wanted.position - motion.position, position - motion.position
        aside = gone - way * (gone @ way / max(way @ way, EXACT**2))
        short = np.abs(position - wanted.position).max() > ROUGH or 1 - abs(turn @ wanted.turn) > ROUGH**2
        if short and not reason:
            reason = (
                f"joint {int(ends.argmax()) + 1} is at the end of its range" if ends.any() else "no joints reach it"
            )
        if aside @ aside > (ASIDE * math.sqrt(way @ way) + ASIDE * ROUGH) ** 2:
            return np.zeros_like(step), reason or "no joints lead straight there"
        return step, reason

    def _allowed_share(self, motion: JointMotion, brake: np.ndarray, step: np.ndarray) -> float:
        """How far one may go from the braked step towards `step`, by the joints' accelerations."""
        way, before = step - brake, motion.step - brake
        room = np.where(way > 0, before + self._change, self._change - before)
        moving = np.abs(way) > EXACT * EXACT
        return float(np.clip((room[moving] / np.abs(way[moving])).min(initial=1.0), 0.0, 1.0))

    def _way(self, motion: JointMotion, joints: np.ndarray) -> Way | None:
        """The motions of the next periods, at `joints` (k, n); None: one of them leaves a limit of tool or joints."""
        low, high = np.minimum(self._low, motion.joints), np.maximum(self._high, motion.joints)  # there is a way back
        if (joints < low - EXACT).any() or (joints > high + EXACT).any():
            return None
        steps = np.diff(np.vstack([motion.joints, joints]), axis=0)
        changes = np.diff(np.vstack([motion.step, steps]), axis=0)
        if (np.abs(steps) > self._step + EXACT).any() or (np.abs(changes) > self._change + EXACT).any():
            return None
        positions, turns = self._poses(joints, motion.offset)
        velocities = np.diff(np.vstack([motion.position, positions]), axis=0) / self.period
        before = np.vstack([motion.turn, turns[:-1]])
        turnings = quats.vectors(quats.product(turns, before * quats.BACK)) / self.period
        if not self._tool.keeps(
            positions, turns, np.vstack([motion.velocity, velocities]), np.vstack([motion.turning, turnings])
        ):
            return None
        return Way(joints, steps, positions, turns, velocities, turnings)

    def _with_brake(self, motion: JointMotion, step: np.ndarray, along: bool) -> JointMotion | None:
        """The motion after `step` (n,), and how it is braked: straight for the joints, or `along` the tool's way."""
        first = self._way(motion, (motion.joints + step)[None])
        if first is None:
            return None
        moved = self._begun(first, motion.offset)
        if not step.any():
            return moved
        hardest = min(self._tool.hardest(moved), self._change / float(np.abs(step).max()), 1.0)
        for share in BRAKES:
            brake = self._way(moved, self._straight(moved, share * hardest))
            if brake is not None:
                return replace(moved, brake=brake)
        brake = self._along(moved) if along else None
        return None if brake is None else replace(moved, brake=brake)

    @staticmethod
    def _straight(motion: JointMotion, less: float) -> np.ndarray:
        """Joints (k, n) on the way to rest, each step shorter by the share `less` of the first."""
        shares = np.maximum(1.0 - less * np.arange(1, math.ceil(1.0 / less) + 1), 0.0)
        return motion.joints + np.cumsum(shares)[:, None] * motion.step

    def _along(self, motion: JointMotion) -> Way | None:
        """To rest on the way on which the tool goes straight on, and slower."""
        tool, joints = self._guided(motion), [motion.joints]
        while not tool.rests:
            tool = self._guide.braked(tool)
            joints.append(joints[-1] if tool.rests else self._joints_at(tool, joints[-1], motion.offset)[0])
        return self._way(motion, np.array(joints[1:])) if len(joints) > 1 else None


def _turned(turn: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` (3,) turned by a unit quaternion (4,)."""
    once = cross(turn[:3], vector)
    return vector + 2 * (turn[3] * once + cross(turn[:3], once))
