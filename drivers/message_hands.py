"""Hands from messages, of a joystick, of a twist and of a leader arm. Pure: numbers and moments in, no middleware."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drivers.dead_man import QUIET, DeadMan, Presses
from drivers.sound import excerpt
from drivers.teleop import HAND, DeadZone, DeviceLost, Event, Toggle
from robot_rl.geometry import quat_inverse, quat_product, unit_quat, vector_from_quat

BUTTONS: dict[int, Event] = {7: "start", 3: "success", 2: "failure", 1: "discard", 6: "pause"}
AXES = 6  # of a joystick that are read
TRIGGERS = {2: "left", 5: "right"}
RESTS = (1.0, 0.0, -1.0)  # that a trigger may have
RESTED = 0.1  # share of its way at which a trigger counts as let go
SLOWEST = (0.003, 0.002)  # share of the largest motion at which a twist begins, and below which it ends
FASTEST = 5.0  # times the largest motion: no hand means more, but another unit
NEAR, NEAR_TURN = 0.05, 0.3  # the leader must be so near to engage [m], [rad]
QUICK, QUICK_TURN = 2.0, 8.0  # no person leads faster [m/s], [rad/s]; beyond, and by more than `NEAR`, it jumped
STILL = 0.5  # joints that are the same number by number for so long are not read any more, where the arm follows [s]
NOTHING = np.zeros(HAND - 1)


class JoyHand:
    """Of sensor_msgs/Joy: `button` is the dead-man, and a trigger that nobody touches reads `rest`.

    Drivers report 0 for an axis that was not touched since they began, and a trigger rests at 1: so both triggers must
    have been seen at rest, with the dead-man up, before anything moves.
    """

    def __init__(self, name: str, button: int, rest: float) -> None:
        self.dead_man, self.grip = DeadMan(name, speaks_at_rest=True), Toggle()
        self.events: list[Event] = []
        self._button, self._rest = button, rest
        self._zone, self._presses = DeadZone(), Presses()
        self._heard, self._sizes = -np.inf, (0, 0)

    def hear(self, at: float, axes: Sequence[float], buttons: Sequence[int]) -> None:
        """Take the axes and buttons of a message that was sent at `at` [s]."""
        if at - self._heard > QUIET:
            self._presses.forget()
        self._heard = at
        if wrong := self._wrong(axes, buttons):
            self._presses.forget()
            self.dead_man.doubt(wrong)
            return
        down = frozenset(i for i, pressed in enumerate(buttons) if pressed)
        pressed = self._presses(down)
        self.events += [BUTTONS[i] for i in sorted(pressed) if i in BUTTONS and i != self._button]
        self.grip.press(0 in pressed)
        motion = self._zone(self._motion(axes))
        self.dead_man.report(at, self._button in down, motion, self._not_at_rest(axes))

    def hand(self, now: float) -> np.ndarray | None:
        """See `Device`."""
        motion = self.dead_man.motion(now)
        return None if motion is None else np.append(motion, self.grip.closed)

    def _wrong(self, axes: Sequence[float], buttons: Sequence[int]) -> str:
        sizes, before = (len(axes), len(buttons)), self._sizes
        if len(axes) < AXES or len(buttons) <= self._button:
            return (
                f"it has {len(axes)} axes and {len(buttons)} buttons; wanted are {AXES} axes, and button "
                f"{self._button} as the dead-man"
            )
        self._sizes = sizes
        if before not in (sizes, (0, 0)):
            return f"it had {before[0]} axes and {before[1]} buttons, and now {sizes[0]} and {sizes[1]}"
        if not (np.abs(np.asarray(axes, float)) <= 1.001).all():  # false for NaN too
            return f"an axis is no number of -1 to 1: {list(axes)}"
        return "" if set(buttons) <= {0, 1} else f"a button is neither 0 nor 1: {list(buttons)}"

    def _pull(self, value: float) -> float:
        return abs(self._rest - value) / (1.0 + abs(self._rest))

    def _motion(self, axes: Sequence[float]) -> np.ndarray:
        lift = self._pull(axes[5]) - self._pull(axes[2])
        return np.clip([axes[1], axes[0], lift, 0.0, axes[4], axes[3]], -1.0, 1.0)

    def _not_at_rest(self, axes: Sequence[float]) -> str:
        pulled = [f"{TRIGGERS[i]} trigger, axis {i}, reads {axes[i]:.2f}" for i in TRIGGERS if self._is_pulled(axes[i])]
        if not pulled:
            return ""
        return f"the {' and the '.join(pulled)}; at rest it is {self._rest:g}: pull it, and let it go"

    def _is_pulled(self, value: float) -> bool:
        return self._pull(value) > RESTED


class TwistHand:
    """Of geometry_msgs/TwistStamped in the `frame`: a twist that moves is the dead-man held, and zero lets go of it.

    `largest` (6,) is the speed of a hand of 1 [m/s], [rad/s].
    """

    def __init__(self, name: str, largest: np.ndarray, frame: str) -> None:
        self.dead_man, self.closed = DeadMan(name, speaks_at_rest=False), -1.0
        self._largest, self._frame, self._zone = largest, frame, DeadZone(*SLOWEST)

    def hear(self, at: float, frame: str, speed: np.ndarray) -> None:
        """Take the `speed` (6,) of a message that was sent at `at` [s]."""
        if wrong := self._wrong(frame, speed):
            self.dead_man.doubt(wrong)
            return
        motion = np.clip(speed / self._largest, -1.0, 1.0)
        self._zone(motion)  # as it is meant, where it is meant at all
        self.dead_man.report(at, self._zone.moves, motion if self._zone.moves else NOTHING)

    def hand(self, now: float) -> np.ndarray | None:
        """See `Device`."""
        motion = self.dead_man.motion(now)
        return None if motion is None else np.append(motion, self.closed)

    def _wrong(self, frame: str, speed: np.ndarray) -> str:
        if not np.isfinite(speed).all():
            return "the twist is no number"
        if frame not in ("", self._frame):
            return f"the twist is in the frame '{excerpt(frame)}', not '{self._frame}'"
        if (np.abs(speed) > FASTEST * self._largest).any():
            return f"the twist asks for {np.abs(speed).max():.3g}; metres and radians a second are wanted"
        return ""


class LeaderHand:
    """Of a leader arm's tool and a pedal: the hand is the way from the robot's tool to the leader's.

    `largest` (6,) is what a hand of 1 moves in a step [m], [rad]. It engages only where both tools are near, and lets
    go where the leader jumps, or is not read any more while the arm follows.
    """

    def __init__(self, name: str, largest: np.ndarray) -> None:
        self.dead_man, self.closed = DeadMan(name, speaks_at_rest=False), -1.0
        self.engaged = False
        self._name, self._largest, self._far = name, largest, ""
        self._at = self._posed = -np.inf  # when the leader spoke, and when its joints were whole
        self._changed = -np.inf  # ... and when they last changed
        self._joints = np.zeros(0)
        self._pose: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def hint(self) -> str:
        """Why it does not engage."""
        return self.dead_man.hint or self._far

    def hear_pedal(self, at: float, down: bool) -> None:
        """The pedal at `at` [s]."""
        if not down:
            self.engaged, self._far = False, ""
        self.dead_man.report(at, down, NOTHING)

    def beat(self, at: float) -> None:
        """The leader spoke at `at` [s], whatever it said."""
        self._watch(at)
        self._at = at

    def hear(self, at: float, joints: np.ndarray, position: np.ndarray, turn: np.ndarray) -> None:
        """The leader at `at` [s]: its joints [rad], its tool's position (3,) [m] and quaternion in the base's frame."""
        if self._pose is not None and (jump := self._jump(at, position, turn)):
            self.dead_man.lose(jump)
        self.beat(at)
        if not np.array_equal(joints, self._joints):
            self._joints, self._changed = joints, at
        self._posed, self._pose = at, (position, turn)

    def hand(self, now: float, position: np.ndarray | None, turn: np.ndarray | None) -> np.ndarray | None:
        """See `Device`; of an arm whose tool is at `position` (3,) [m], `turn` (4,); None: nobody knows where it is."""
        try:
            motion = self._led(now, position, turn)
        except DeviceLost:
            self.engaged = False
            raise
        self.engaged = motion is not None
        return None if motion is None else np.append(motion, self.closed)

    def _led(self, now: float, position: np.ndarray | None, turn: np.ndarray | None) -> np.ndarray | None:
        self._watch(now)
        if self._pose is None or position is None or turn is None:
            return None
        way = np.concatenate([self._pose[0] - position, _between(turn, self._pose[1])])
        far, turned = _lengths(way)
        near = far <= NEAR and turned <= NEAR_TURN
        if self.engaged and not near and now - self._changed > STILL:
            self.dead_man.lose(f"the joints of {self._name} stand still since {now - self._changed:.1f} s")
        held, self._far = self.dead_man.motion(now) is not None, ""
        if held and not (near or self.engaged):
            self._far = f"the leader is {far:.2f} m and {turned:.2f} rad from the arm; it engages within {NEAR} m and "
            self._far += f"{NEAR_TURN} rad"
            return None
        return np.clip(way / self._largest, -1.0, 1.0) if held else None

    def _watch(self, now: float) -> None:
        if now - self._at > QUIET and self.dead_man.held:
            self.dead_man.lose(f"nothing came on {self._name} for {now - self._at:.2f} s")

    def _jump(self, at: float, position: np.ndarray, turn: np.ndarray) -> str:
        assert self._pose is not None
        gone, turned = _lengths(np.concatenate([position - self._pose[0], _between(self._pose[1], turn)]))
        took = max(at - self._posed, 0.0)
        if gone <= NEAR + QUICK * took and turned <= NEAR_TURN + QUICK_TURN * took:
            return ""
        return f"{self._name} jumped by {gone:.2f} m and {turned:.2f} rad"


def _between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The rotation vector (3,) from one quaternion to the other [rad]."""
    return vector_from_quat(quat_product(other, quat_inverse(unit_quat(one))))


def _lengths(way: np.ndarray) -> tuple[float, float]:
    return float(np.linalg.norm(way[:3])), float(np.linalg.norm(way[3:]))
