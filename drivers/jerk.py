"""A setpoint that also keeps its jerk: as in braking.py, and its acceleration changes by no more than so much a period.

Straight braking does not do then: whoever accelerates towards a wall goes on doing so for a while. So each motion is
made only together with the periods of a braking after it, to rest, each of which was found to keep box, cone, speeds,
accelerations and jerks; where there is no such motion, the braking that was found before is gone on with. By induction
no sequence of targets leaves any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from drivers.braking import Motion, Mover
from robot_rl.geometry import quat_from_vector, quat_inverse, quat_product, unit_quat, vector_from_quat

LONGEST = 1000  # periods of a braking
SHARES = (1.0, 0.7, 0.4, 0.2, 0.1, 0.0)  # of a wanted velocity, that are tried
LAST = len(SHARES) - 1
BEYOND = (1e-5, 1e-4)  # so far a braking may end beyond the goal [m], [rad]
Pose = tuple[np.ndarray, np.ndarray]  # position (3,) [m], quaternion xyzw (4,)
EASE = 0.9  # share of the hardest stop that a way to a goal reckons with
NONE = 1e6  # more jerk than any limits of acceleration allow [m/s^3], [rad/s^3]


@dataclass(frozen=True)
class JerkMotion(Motion):
    """A motion, its accelerations of the last period, and how it is braked."""

    push: np.ndarray  # (3,) [m/s^2]
    roll: np.ndarray  # (3,) [rad/s^2]
    brake: tuple[JerkMotion, ...] = ()  # the motions of the periods from here to rest

    @property
    def rests(self) -> bool:
        """Whether it stands still, but for rounding."""
        return not self.brake and super().rests

    def at_rest(self) -> JerkMotion:
        """The same place, without motion."""
        still = np.zeros(3)
        return JerkMotion(self.position, self.turn, still, still, still, still)


class JerkMover(Mover):
    """The limits, with jerks [m/s^3] and [rad/s^3], and the steps of one period that keep them."""

    def __init__(self, tool: Mover, jerks: tuple[float, float]) -> None:
        super().__init__(*tool.limits)
        self._jerk, self._turn_jerk = (min(jerk or NONE, NONE) for jerk in jerks)

    def begin(self, position: np.ndarray, turn: np.ndarray, joints: np.ndarray) -> JerkMotion:
        """At rest at a pose; `joints` are not looked at."""
        still = np.zeros(3)
        return JerkMotion(np.array(position, float), unit_quat(turn), still, still, still, still)

    def towards(self, motion: Motion, position: np.ndarray, turn: np.ndarray, staying: bool) -> tuple[JerkMotion, bool]:
        """One period on the way to a pose inside, and whether the limits kept it from arriving; see `Mover`.

        It could always stop there: to pass through, and not beyond, one would have to know how it goes on. So on a way
        at speed v the setpoint lags by v (v / acceleration + acceleration / jerk) / 2.
        """
        assert isinstance(motion, JerkMotion)
        T = self.period
        move = (position - motion.position) / T
        velocity = self._within_walls(motion, self._wanted(move, False))
        ways = [vector_from_quat(quat_product(turn, quat_inverse(motion.turn)))]
        if self.tilt > 0 and np.linalg.norm(ways[0]) > 0:
            ways.append(self._swing_and_twist(motion.turn, turn))
        for way in ways:
            moved = self._stoppable(motion, (position, turn), velocity, self._wanted(way / T, True))
            if moved is not None:
                late = np.abs(moved.velocity - move).max() > 1e-6 or np.abs(moved.turning - way / T).max() > 1e-6
                return moved, bool(late)
        return self.braked(motion), True

    def _stoppable(
        self, motion: JerkMotion, goal: Pose, velocity: np.ndarray, turning: np.ndarray
    ) -> JerkMotion | None:
        """As near to these velocities as leaves a braking within the limits that goes no farther than the goal.

        What has been accelerated goes on for a while: without looking at where the braking ends, a setpoint would
        swing about its goal. None: there is no such motion but the braking that was found before.
        """
        shares = [0, 0]  # of SHARES: of the velocity, of the turning
        while shares != [LAST, LAST]:
            moved = self._steered(motion, SHARES[shares[0]] * velocity, SHARES[shares[1]] * turning)
            brake = self._braking(moved) if self._keeps_all(motion, [moved]) else None
            beyond = [True, True] if brake is None else self._beyond(motion, (brake or (moved,))[-1], goal)
            if brake is not None and not any(beyond):
                return replace(moved, brake=brake)
            if all(much == LAST for much, too_far in zip(shares, beyond, strict=True) if too_far):
                return None
            shares = [min(much + too_far, LAST) for much, too_far in zip(shares, beyond, strict=True)]
        return None

    def _beyond(self, motion: Motion, end: Motion, goal: Pose) -> list[bool]:
        """Whether a braking ends beyond the goal, seen from where it begins: its place, its turn."""
        ways = goal[0] - motion.position, vector_from_quat(quat_product(goal[1], quat_inverse(motion.turn)))
        left = goal[0] - end.position, vector_from_quat(quat_product(goal[1], quat_inverse(end.turn)))
        return [float(w @ v) < -much * math.sqrt(w @ w) for w, v, much in zip(ways, left, BEYOND, strict=True)]

    def ways_to_rest(self, motion: Motion) -> tuple[float, float]:
        """See `Mover`; the acceleration takes its time."""
        linear, angular = super().ways_to_rest(motion)
        speed, spin = math.sqrt(motion.velocity @ motion.velocity), math.sqrt(motion.turning @ motion.turning)
        more = 0.5 * speed * self._acceleration / self._jerk, 0.5 * spin * self._turn_acceleration / self._turn_jerk
        return linear + more[0], angular + more[1]

    def braked(self, motion: Motion) -> JerkMotion:
        """One period of the braking that was found when the motion was made."""
        assert isinstance(motion, JerkMotion)
        return replace(motion.brake[0], brake=motion.brake[1:]) if motion.brake else motion.at_rest()

    def _wanted(self, move: np.ndarray, turns: bool) -> np.ndarray:
        """The velocity (3,) along `move` (3,), which would arrive at once, from which one can stop at its end."""
        speed, hardest, jerk = self._speed, self._acceleration, self._jerk
        if turns:
            speed, hardest, jerk = self._turn_speed, self._turn_acceleration, self._turn_jerk
        fast = math.sqrt(move @ move)
        speed = min(speed, speed_to_stop(fast * self.period, hardest, jerk))
        return move if fast <= speed else move * (speed / fast)

    def _within_walls(self, motion: Motion, velocity: np.ndarray) -> np.ndarray:
        """No faster towards a wall than one can stop before it."""
        room = np.where(velocity > 0, self.high - motion.position, motion.position - self.low)
        most = [speed_to_stop(max(d, 0.0), self._acceleration, self._jerk) for d in room.tolist()]
        return np.clip(velocity, -np.array(most), most)

    def _steered(self, motion: JerkMotion, velocity: np.ndarray, turning: np.ndarray) -> JerkMotion:
        """A period later, on the way to velocities (3,) within accelerations and jerks; maybe outside the box.

        Nothing is clipped at the box: that would be a jerk which nobody found, and hide that the way leaves the box.
        """
        T = self.period
        push = _steer(velocity - motion.velocity, motion.push, self._acceleration, self._jerk, T)
        roll = _steer(turning - motion.turning, motion.roll, self._turn_acceleration, self._turn_jerk, T)
        velocity, turning = motion.velocity + push * T, motion.turning + roll * T
        turn = unit_quat(quat_product(quat_from_vector(turning * T), motion.turn))
        return JerkMotion(motion.position + velocity * T, turn, velocity, turning, push, roll)

    def _braking(self, motion: JerkMotion) -> tuple[JerkMotion, ...] | None:
        """The motions from `motion` to rest; None: one of them leaves a limit."""
        ends, still = [motion], np.zeros(3)
        while not _still(ends[-1]):
            if len(ends) > LONGEST:
                return None
            ends.append(self._steered(ends[-1], still, still))
        return tuple(ends[1:]) if len(ends) == 1 or self._keeps_all(motion, ends[1:]) else None

    def _keeps_all(self, before: JerkMotion, way: list[JerkMotion]) -> bool:
        positions, turns = np.array([m.position for m in way]), np.array([m.turn for m in way])
        velocities = np.array([m.velocity for m in (before, *way)])
        return self.keeps(positions, turns, velocities, np.array([m.turning for m in (before, *way)]), slack=1e-9)


def speed_to_stop(distance: float, acceleration: float, jerk: float) -> float:
    """The speed [m/s] from which one comes to rest within `distance` [m], but for a margin."""
    d = EASE * distance
    if d < acceleration**3 / jerk**2:  # the hardest braking is never reached
        return (d * d * jerk) ** (1 / 3)
    ramp = acceleration / jerk
    return 0.5 * acceleration * (math.sqrt(ramp * ramp + 8 * d / acceleration) - ramp)


def _steer(change: np.ndarray, push: np.ndarray, most: float, jerk: float, period: float) -> np.ndarray:
    """The acceleration (3,) of the next period that brings about a `change` (3,) of velocity, and ends with none."""
    far = math.sqrt(change @ change)
    hard = min(most, far / period, jerk * (math.sqrt(0.25 * period**2 + 2 * far / jerk) - 0.5 * period))
    wanted = change * (hard / far) if far > 0 else np.zeros(3)
    less = wanted - push
    size, step = math.sqrt(less @ less), jerk * period
    return wanted if size <= step else push + less * (step / size)


def _still(motion: JerkMotion) -> bool:
    rates = max(np.abs(motion.velocity).max(), np.abs(motion.turning).max())
    return bool(rates < 1e-9 and max(np.abs(motion.push).max(), np.abs(motion.roll).max()) < 1e-6)
