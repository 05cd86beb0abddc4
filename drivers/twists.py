"""Velocities to a setpoint for a controller that takes them, such as MoveIt Servo; none on a word that is not of now.

A setpoint that is held says the same for ever and no harm is done; a velocity that is held drives the arm into the
table. So every twist is within the speeds, changes no faster than the accelerations, and is zero at once where what was
measured is no number, is old, or stands still while the arm is being moved. Pure.
"""

from __future__ import annotations

import math

import numpy as np

from drivers.gate import GateLimits
from drivers.sound import length, state_late, state_wrong
from robot_rl.geometry import angle_between, quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, Target

GAIN = 5.0  # by which a twist closes what is left to the setpoint [1/s]
FROZEN = 0.25  # so long must an arm have been moved, before its pose counts as standing still [s]
MOVED = (0.015, 0.06)  # and by so much [m], [rad]
STILL = (0.002, 0.01)  # less is no motion [m], [rad]
ZEROS = 0.5  # for so long a zero is repeated [s]

Twist = tuple[np.ndarray, np.ndarray]  # (3,) [m/s] and (3,) [rad/s]


class Twists:
    """The next twist of every `period` [s], for an arm of `n` joints; set `limits` to those that hold now."""

    def __init__(self, limits: GateLimits, n: int, period: float) -> None:
        self.limits, self.period, self._n = limits, period, n
        self.problem = ""  # why nothing but zeros is sent until the setpoint rests
        self._last: Twist = np.zeros(3), np.zeros(3)
        self._zeros = math.inf  # that were sent after the last motion
        self._start: ArmState | None = None  # since which `_asked` is counted
        self._asked, self._ticks = (0.0, 0.0), 0  # how far the arm was asked to go since then [m], [rad]

    @property
    def resting(self) -> bool:
        """Whether the last twist that was sent is zero, or none was."""
        return not any(part.any() for part in self._last)

    def cut(self, reason: str) -> None:
        """Nothing but zeros, from now until the setpoint rests."""
        self.problem = self.problem or reason

    def towards(self, target: Target, state: ArmState, now: float) -> Twist:
        """The twist that leads to `target` from where the arm is measured; `now` by the stamps [s]."""
        c = self.limits
        if wrong := state_wrong(state, self._n) or state_late(state, now, c.age, c.ahead) or self._frozen(state):
            self.cut(wrong)
        if self.problem:
            return self._sent(np.zeros(3), np.zeros(3))
        roll = vector_from_quat(quat_product(target.turn, quat_inverse(unit_quat(state.turn))))
        linear = _paced(target.position - state.position, c.speed, c.acceleration)
        angular = _paced(roll, c.turn_speed, c.turn_acceleration)
        return self._sent(*self._eased(linear, angular))

    def rest(self) -> Twist | None:
        """The twist where there is nothing to go to; None: zero was said often enough."""
        cut, self.problem, self._start = self.problem, "", None
        if self._zeros * self.period >= ZEROS:
            return None
        return self._sent(np.zeros(3), np.zeros(3)) if cut else self._sent(*self._eased(np.zeros(3), np.zeros(3)))

    def _eased(self, linear: np.ndarray, angular: np.ndarray) -> Twist:
        """As near to it as the accelerations allow after the last one."""
        c, (before, turned) = self.limits, self._last
        most = c.acceleration * self.period, c.turn_acceleration * self.period
        return before + _capped(linear - before, most[0]), turned + _capped(angular - turned, most[1])

    def _sent(self, linear: np.ndarray, angular: np.ndarray) -> Twist:
        self._last = linear, angular
        self._zeros = self._zeros + 1 if self.resting else 0
        gone = length(linear) * self.period, length(angular) * self.period
        self._asked, self._ticks = (self._asked[0] + gone[0], self._asked[1] + gone[1]), self._ticks + 1
        return linear, angular

    def _frozen(self, state: ArmState) -> str:
        """Whether the measured pose stands still though the arm was moved since it last went anywhere."""
        start = self._start
        if start is None or _went(start, state):
            self._start, self._asked, self._ticks = state, (0.0, 0.0), 0
            return ""
        seconds = self._ticks * self.period
        if seconds < FROZEN or (self._asked[0] < MOVED[0] and self._asked[1] < MOVED[1]):
            return ""
        return f"the measured pose stands still, though the arm was moved for {seconds:.2f} s"


def _went(before: ArmState, state: ArmState) -> bool:
    turned = angle_between(unit_quat(state.turn), unit_quat(before.turn))
    return length(state.position - before.position) > STILL[0] or turned > STILL[1]


def _paced(way: np.ndarray, speed: float, acceleration: float) -> np.ndarray:
    """The velocity (3,) along `way` (3,) that is within `speed`, and from which one can stop at its end."""
    far = length(way)
    return way * (min(GAIN * far, speed, math.sqrt(2 * acceleration * far)) / max(far, 1e-12))


def _capped(vector: np.ndarray, most: float) -> np.ndarray:
    return vector * min(1.0, most / max(length(vector), 1e-12))
