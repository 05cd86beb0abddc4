"""A setpoint that moves within a box, a cone, a speed and an acceleration, and can always stop inside them.

A motion is made only if braking after it, straight on and as hard as is allowed, ends inside the box, and inside the
cone. The braked motion is then allowed one period later too, so there always is one: by induction no sequence of
targets leaves box, cone, speed or acceleration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from robot_rl.geometry import (
    angle_between,
    quat_from_vector,
    quat_inverse,
    quat_product,
    unit_quat,
    vector_from_quat,
)

EXACT = 1e-9  # rounding is no excess [m], [rad], [m/s]
INNER = 1e-6  # [m], [rad]
HALVINGS = 14  # of the way between a braked and a wanted velocity


@dataclass(frozen=True)
class Motion:
    """Where a setpoint is, and how it moves. Base frame; replaced whole, so that a step can be taken back."""

    position: np.ndarray  # (3,) [m]
    turn: np.ndarray  # (4,) xyzw
    velocity: np.ndarray  # (3,) [m/s]
    turning: np.ndarray  # (3,) [rad/s]

    @property
    def rests(self) -> bool:
        """Whether it stands still, but for rounding."""
        return bool(np.abs(self.velocity).max() < 1e-6 and np.abs(self.turning).max() < 1e-6)

    def at_rest(self) -> Motion:
        """The same place, without motion."""
        return replace(self, velocity=np.zeros(3), turning=np.zeros(3))

    @property
    def hindered(self) -> str:
        """What of the arm kept it from going where it was asked to; "": nothing."""
        return ""


class Mover:
    """The limits, and the steps of one `period` [s] that keep them. See `GateLimits` for the limits."""

    def __init__(
        self,
        box: tuple[np.ndarray, np.ndarray],
        axis: np.ndarray,
        tilt: float,
        speeds: tuple[float, float],
        accelerations: tuple[float, float],
        period: float,
    ) -> None:
        (self.low, self.high), self.axis, self.tilt, self.period = box, axis, tilt, period
        self._speed, self._turn_speed = speeds
        self._acceleration, self._turn_acceleration = accelerations
        self._cosine = math.cos(tilt)

    @property
    def limits(self) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, float, tuple, tuple, float]:
        """What it was made of."""
        speeds, accelerations = (self._speed, self._turn_speed), (self._acceleration, self._turn_acceleration)
        return (self.low, self.high), self.axis, self.tilt, speeds, accelerations, self.period

    def eased(self, share: float) -> Mover:
        """The same with a `share` of speeds and accelerations, and a hair less of box and cone."""
        box = self.low + INNER, self.high - INNER
        speeds = share * self._speed, share * self._turn_speed
        accelerations = share * self._acceleration, share * self._turn_acceleration
        return Mover(box, self.axis, self.tilt - INNER, speeds, accelerations, self.period)

    def keeps(
        self, positions: np.ndarray, turns: np.ndarray, velocities: np.ndarray, turnings: np.ndarray, slack: float = 0.0
    ) -> bool:
        """Whether a way is within all limits, but for `slack`: poses (k, 3), (k, 4), velocities (k + 1, 3)."""
        T = self.period
        if (positions < self.low - slack).any() or (positions > self.high + slack).any():
            return False
        for rates, fastest, hardest in (
            (velocities, self._speed, self._acceleration),
            (turnings, self._turn_speed, self._turn_acceleration),
        ):
            changes = np.diff(rates, axis=0)
            if (rates[1:] ** 2).sum(1).max() > (fastest + slack) ** 2:
                return False
            if (changes**2).sum(1).max() > (hardest * T + slack) ** 2:
                return False
        x, y, z, w = turns.T
        up = np.stack([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)], axis=1) @ self.axis
        return bool(up.min() >= self._cosine - slack)

    def ways_to_rest(self, motion: Motion) -> tuple[float, float]:
        """How far `motion` goes on while it brakes, and a period more [m], [rad]."""
        speed, spin, T = _length(motion.velocity), _length(motion.turning), self.period
        return speed * (0.5 * speed / self._acceleration + T), spin * (0.5 * spin / self._turn_acceleration + T)

    def hardest(self, motion: Motion) -> float:
        """The largest share of its velocities that one period of braking may take off `motion`."""
        linear = self._acceleration * self.period / max(_length(motion.velocity), EXACT)
        return min(linear, self._turn_acceleration * self.period / max(_length(motion.turning), EXACT))

    def begin(self, position: np.ndarray, turn: np.ndarray, joints: np.ndarray) -> Motion:
        """At rest at a pose; `joints` are not looked at."""
        return Motion(np.array(position, float), unit_quat(turn), np.zeros(3), np.zeros(3))

    def tilt_of(self, turn: np.ndarray) -> float:
        """The angle of the tool's z axis from the cone's middle [rad]."""
        return math.acos(min(max(float(_tool_axis(turn) @ self.axis), -1.0), 1.0))

    def inside(self, position: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest pose inside box and cone."""
        position = np.minimum(np.maximum(position, self.low), self.high)
        excess = self.tilt_of(turn) - self.tilt
        if excess <= 0:
            return position, turn
        about = cross(_tool_axis(turn), self.axis)
        if (length := math.sqrt(about @ about)) < EXACT:  # upside down: any way back is as short
            about = cross(self.axis, np.eye(3)[np.abs(self.axis).argmin()])
            length = math.sqrt(about @ about)
        back = quat_from_vector(about / length * (excess + EXACT))
        return position, unit_quat(quat_product(back, turn))

    def towards(self, motion: Motion, position: np.ndarray, turn: np.ndarray, staying: bool) -> tuple[Motion, bool]:
        """One period on the way to a pose inside, and whether the limits kept it from arriving.

        `staying`: the pose is where to stop; else it is passed through.
        """
        T = self.period
        move = (position - motion.position) / T
        velocity = _next(
            motion.velocity, move, self._speed, self._acceleration, T, staying, lambda v: self._ends_in_box(motion, v)
        )
        roll = vector_from_quat(quat_product(turn, quat_inverse(motion.turn))) / T
        moved, late = self._rolled(motion, velocity, roll, staying)
        if late:  # the shortest way may lead out of the cone and back, and then ends at its side
            other, _ = self._rolled(motion, velocity, self._swing_and_twist(motion.turn, turn) / T, staying)
            moved = min(moved, other, key=lambda m: angle_between(turn, m.turn))
        return moved, late or bool(np.abs(velocity - move).max() > 1e-6)

    def _rolled(self, motion: Motion, velocity: np.ndarray, roll: np.ndarray, staying: bool) -> tuple[Motion, bool]:
        turning = _next(
            motion.turning, roll, self._turn_speed, self._turn_acceleration, self.period, staying,
            lambda w: self._ends_in_cone(motion, w),
        )  # fmt: skip
        return self._moved(motion, velocity, turning), bool(np.abs(turning - roll).max() > 1e-6)

    def _swing_and_twist(self, turn: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The way (3,) that takes the tool's axis along a great circle, which stays in the cone, and turns about it."""
        axis, wanted = _tool_axis(turn), _tool_axis(goal)
        normal = cross(axis, wanted)
        sine = math.sqrt(normal @ normal)
        swing = normal * (math.atan2(sine, float(axis @ wanted)) / sine) if sine > EXACT else np.zeros(3)
        rest = quat_product(goal, quat_inverse(quat_product(quat_from_vector(swing), turn)))
        return swing + axis * float(vector_from_quat(rest) @ wanted)

    def braked(self, motion: Motion) -> Motion:
        """One period of braking."""
        velocity = motion.velocity - _capped(motion.velocity, self._acceleration * self.period)
        turning = motion.turning - _capped(motion.turning, self._turn_acceleration * self.period)
        return self._moved(motion, velocity, turning)

    def _moved(self, motion: Motion, velocity: np.ndarray, turning: np.ndarray) -> Motion:
        position = motion.position + velocity * self.period
        position = np.minimum(np.maximum(position, self.low), self.high)  # rounding alone is clipped
        turn = unit_quat(quat_product(quat_from_vector(turning * self.period), motion.turn))
        return Motion(position, turn, velocity, turning)

    def _ends_in_box(self, motion: Motion, velocity: np.ndarray) -> bool:
        """Whether moving so for a period and braking then ends in the box. It is convex: so does all between."""
        speed = math.sqrt(velocity @ velocity)
        if speed == 0.0:
            return True
        end = motion.position + velocity * (_way(speed, self._acceleration, self.period) / speed)
        return bool((end >= self.low - EXACT).all() and (end <= self.high + EXACT).all())

    def _ends_in_cone(self, motion: Motion, turning: np.ndarray) -> bool:
        """The same of the tool's axis, which goes round in a circle: at every period until it rests."""
        speed = math.sqrt(turning @ turning)
        if speed == 0.0:
            return True
        about, tool = turning / speed, _tool_axis(motion.turn)
        along, across = tool @ self.axis, cross(about, tool) @ self.axis
        middle = (about @ tool) * (about @ self.axis)
        angle = 0.0
        while speed > 0:
            angle += speed * self.period
            speed -= self._turn_acceleration * self.period
            if middle + (along - middle) * math.cos(angle) + across * math.sin(angle) < self._cosine - EXACT:
                return False
        return True


def _next(
    velocity: np.ndarray,
    wanted: np.ndarray,
    speed: float,
    acceleration: float,
    period: float,
    staying: bool,
    ends_well: Callable[[np.ndarray], bool],
) -> np.ndarray:
    """The velocity (3,) nearest to `wanted` that is allowed after `velocity`; `staying`: and can stop at its end."""
    fast = math.sqrt(wanted @ wanted)
    fastest = min(speed, speed_to_stop(fast * period, acceleration, period)) if staying else speed
    if fast > fastest:
        wanted = wanted * (fastest / fast)
    wanted = velocity + _capped(wanted - velocity, acceleration * period)
    if ends_well(wanted):
        return wanted
    braked = velocity - _capped(velocity, acceleration * period)
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if ends_well(braked + middle * (wanted - braked)):
            low = middle
        else:
            high = middle
    return braked + low * (wanted - braked)


def _way(speed: float, acceleration: float, period: float) -> float:
    """How far one gets at `speed` for a period and, from then on, slower by the same amount each period."""
    less = acceleration * period
    more = math.ceil(speed / less - EXACT) - 1  # periods after this one that still move
    return period * ((more + 1) * speed - less * more * (more + 1) / 2)


def speed_to_stop(distance: float, acceleration: float, period: float) -> float:
    """The inverse of `_way`."""
    less = acceleration * period
    more = math.floor((math.sqrt(1 + 8 * distance / (period * less)) - 1) / 2)
    return (distance / period + less * more * (more + 1) / 2) / (more + 1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `np.cross` of (3,), at a tenth of its time."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _length(vector: np.ndarray) -> float:
    return math.sqrt(vector @ vector)


def _capped(vector: np.ndarray, most: float) -> np.ndarray:
    length = math.sqrt(vector @ vector)
    return vector if length <= most else vector * (most / length)


def _tool_axis(turn: np.ndarray) -> np.ndarray:
    """The tool's z axis in the base's frame (3,)."""
    x, y, z, w = turn.tolist()
    return np.array([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
