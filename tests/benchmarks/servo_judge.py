"""What was sent to a controller, judged from the limits alone: it shares no code with the gate and what is around it.

One `Judge` sees, servo period by servo period, what the arm's node published, what it had been told of the arm, and
what was done to it. It counts what breaks a law, by the law's name:

- not finite; outside the box; beyond the cone; speed, acceleration and jerk of the setpoint and of its turn; where it
  was silent it begins from rest where it ended, and it ends at rest;
- it begins elsewhere only where it was silent or stopped, and at the measured pose;
- joints: range, step, change of step; and the setpoint is where they bring the tool;
- twists: speed, acceleration; zero on a state that is no number or old; and the last one that was sent is zero;
- a setpoint farther from the measured arm than the lead for more than a second, though nobody stopped it;
- the gripper between closed and open.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SLACK = 1e-6  # [m], [rad] and their like a second
EDGE = 0.009, 0.02  # between a measured pose just outside and the nearest one inside [m], [rad]
ALONE = 3  # periods without a twist, after which the one before must have been zero


@dataclass
class Seen:
    """One period. Poses are positions (3,) with quaternions xyzw (4,); None where nothing was published."""

    setpoint: tuple[np.ndarray, np.ndarray] | None
    joints: np.ndarray | None
    twist: tuple[np.ndarray, np.ndarray] | None
    gripper: float | None
    measured: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    """the newest pose and joints that were delivered, where they were numbers"""
    sound: bool
    """the newest reading that was delivered is all numbers, and not old"""
    stopped: bool
    scale: float
    """of the speeds"""


@dataclass
class Judge:
    """The limits as plain numbers, and what broke them."""

    limits: Any
    period: float
    fastest: np.ndarray
    """of the joints, by their maker [rad/s]"""
    ranges: tuple[np.ndarray, np.ndarray]
    tool: Any = None
    """forward kinematics of joints, where those are sent"""
    found: Counter[str] = field(default_factory=Counter)
    periods: int = 0
    setpoints: int = 0
    cuts: int = 0
    """twists that were zero at once"""
    _last: tuple[np.ndarray, np.ndarray] | None = None
    _rates: tuple[np.ndarray, np.ndarray] | None = None
    """of the last period; None: of one that was not seen"""
    _pushes: tuple[np.ndarray, np.ndarray] | None = None
    """changes of the rates, likewise"""
    _joints: np.ndarray | None = None
    _steps: np.ndarray | None = None
    _twist: tuple[np.ndarray, np.ndarray] = (np.zeros(3), np.zeros(3))
    _alone: int = 0
    _silent: bool = True
    _stopped: bool = True
    _ahead: float = 0.0

    def see(self, now: Seen) -> None:
        """Judge one period."""
        self.periods += 1
        if now.gripper is not None and not -SLACK <= now.gripper <= 1 + SLACK:
            self.found["gripper"] += 1
        self._see_setpoint(now)
        if now.joints is not None:
            self._see_joints(now.joints, now)
        self._see_twist(now)
        self._see_lead(now)
        self._silent, self._stopped = now.setpoint is None, now.stopped

    def forget(self) -> None:
        """A new node: it cannot know what the one before sent, and that one, killed, could not brake."""
        self._last = self._rates = self._pushes = self._joints = self._steps = None
        self._twist, self._silent = (np.zeros(3), np.zeros(3)), True

    def _see_setpoint(self, now: Seen) -> None:
        if now.setpoint is None:
            if (
                not self._silent
                and self._rates
                and _size(self._rates[0]) > self.limits.acceleration * self.period + SLACK
            ):
                self.found["ends while it moves"] += 1
            if not self._silent and self._pushes:
                self._see_jerks((np.zeros(3), np.zeros(3)))
            self._rates = self._pushes = np.zeros(3), np.zeros(3)
            return
        position, quaternion = now.setpoint
        self.setpoints += 1
        if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
            self.found["not finite"] += 1
            return
        c, turn = self.limits, quaternion
        x, y, z, w = turn
        axis = np.array([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
        if (position < np.array(c.box_low) - 1e-9).any() or (position > np.array(c.box_high) + 1e-9).any():
            self.found["outside the box"] += 1
        if math.acos(min(max(float(axis @ np.array(c.axis)), -1.0), 1.0)) > c.tilt + SLACK:
            self.found["beyond the cone"] += 1
        if self._last is not None and self._begins_anew(position, turn, now):
            self._last = self._rates = self._pushes = self._joints = self._steps = None
        if self._last is not None:
            self._see_rates(position, turn, now.scale)
        else:
            self._rates = self._pushes = None
        self._last = position, turn

    def _begins_anew(self, position: np.ndarray, turn: np.ndarray, now: Seen) -> bool:
        """Whether the setpoint begins at the measured pose, as it may where its controller cannot hold the last."""
        assert self._last is not None
        if not (self._silent or (self._stopped and not now.stopped)) or now.measured is None:
            return False
        (there, facing, _), step = now.measured, 2 * self.period**2
        near = _size(position - there) < step * self.limits.acceleration + SLACK + EDGE[0]
        return near and _size(_turned(turn, facing)) < step * self.limits.turn_acceleration + SLACK + EDGE[1]

    def _see_rates(self, position: np.ndarray, turn: np.ndarray, scale: float) -> None:
        assert self._last is not None
        c, T = self.limits, self.period
        rates = (position - self._last[0]) / T, _turned(turn, self._last[1]) / T
        last = self._rates or rates
        for name, rate, before, fastest, hardest in (
            ("", rates[0], last[0], c.speed, c.acceleration),
            ("turn ", rates[1], last[1], c.turn_speed, c.turn_acceleration),
        ):
            if _size(rate) > scale * fastest + SLACK:
                self.found[f"{name}speed"] += 1
            if _size(rate - before) > hardest * T + 3 * SLACK:
                self.found[f"{name}acceleration"] += 1
        pushes = (rates[0] - last[0]) / T, (rates[1] - last[1]) / T
        if self._rates is not None:
            self._see_jerks(pushes)
        self._rates, self._pushes = rates, pushes if self._rates is not None else None

    def _see_jerks(self, pushes: tuple[np.ndarray, np.ndarray]) -> None:
        jerks = self.limits.jerk, self.limits.turn_jerk
        for name, push, before, most in zip(("", "turn "), pushes, self._pushes or pushes, jerks, strict=True):
            if most and _size(push - before) > most * self.period + SLACK / self.period:
                self.found[f"{name}jerk"] += 1

    def _see_joints(self, joints: np.ndarray, now: Seen) -> None:
        c, T, (low, high) = self.limits, self.period, self.ranges
        if not np.isfinite(joints).all():
            self.found["joints not finite"] += 1
            return
        before = self._joints
        step = np.zeros(len(joints)) if before is None else joints - before
        if before is not None:
            farthest = np.minimum(low + c.joint_margin, before), np.maximum(high - c.joint_margin, before)
            if (joints < farthest[0] - SLACK).any() or (joints > farthest[1] + SLACK).any():
                self.found["joint range"] += 1
        if (np.abs(step) > c.joint_speed * self.fastest * T + SLACK).any():
            self.found["joint speed"] += 1
        last = step if self._steps is None else np.zeros_like(step) if self._silent else self._steps
        if (np.abs(step - last) > c.joint_acceleration * T**2 + SLACK).any():
            self.found["joint acceleration"] += 1
        self._joints, self._steps = joints, None if before is None else step
        if self.tool is not None and now.setpoint is not None:
            position, turn = self.tool(joints)
            apart = _size(_turned(now.setpoint[1], turn.as_quat()))
            if np.abs(position - now.setpoint[0]).max() > 1e-6 or apart > 1e-6:
                self.found["setpoint is not where the joints are"] += 1

    def _see_twist(self, now: Seen) -> None:
        if now.twist is None:
            self._alone += 1
            if self._alone == ALONE and any(part.any() for part in self._twist):
                self.found["the last twist is not zero"] += 1
            return
        self._alone = 0
        moves = any(part.any() for part in now.twist)
        if not all(np.isfinite(part).all() for part in now.twist):
            self.found["twist not finite"] += 1
            return
        if moves and not now.sound:
            self.found["twist on an unsound or old state"] += 1
        c = self.limits
        hard = False
        for name, rate, before, fastest, hardest in (
            ("twist speed", now.twist[0], self._twist[0], c.speed, c.acceleration),
            ("twist turn speed", now.twist[1], self._twist[1], c.turn_speed, c.turn_acceleration),
        ):
            if _size(rate) > now.scale * fastest + SLACK:
                self.found[name] += 1
            if _size(rate - before) > hardest * self.period + SLACK:
                hard = True
        if hard and moves:
            self.found["twist acceleration"] += 1
        self.cuts += hard and not moves
        self._twist = now.twist

    def _see_lead(self, now: Seen) -> None:
        if now.setpoint is None or now.measured is None or now.stopped:
            self._ahead = 0.0
            return
        c, (there, facing, _) = self.limits, now.measured
        away = _size(now.setpoint[0] - there)
        turned = _size(_turned(now.setpoint[1], facing))
        far = away > c.lead + 0.002 or turned > c.lead_turn + 0.01
        self._ahead = self._ahead + self.period if far else 0.0
        if self._ahead > 1.0:
            self.found["ahead of the arm for more than a second"] += 1
            self._ahead = 0.0


def _size(vector: np.ndarray) -> float:
    return math.sqrt(float(vector @ vector))


def _turned(turn: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The rotation (3,), axis times angle, from one unit quaternion xyzw to another."""
    (x, y, z, w), (a, b, c, d) = turn.tolist(), before.tolist()
    v = np.array([d * x - w * a + z * b - y * c, d * y - w * b + x * c - z * a, d * z - w * c + y * a - x * b])
    sine, cosine = _size(v), w * d + x * a + y * b + z * c
    if cosine < 0:
        v, cosine = -v, -cosine
    return v * (2 * math.atan2(sine, cosine) / sine if sine > 1e-12 else 2.0)
