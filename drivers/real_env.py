"""A robot as an `Env`: readings of one moment in, targets out, at a fixed rate. Pure: it runs under a fake clock too.

A step sends the target of its action, waits for the next tick, and observes. The observation is of the newest moment
that all streams have reached (sync.py); the target is counted from where the arm is measured when it is sent, as
robosuite counts its deltas. What a person does goes the same way and marks the step. What was really asked of the arm,
after the gate, is the step's action.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from drivers.gate import Gate, Kinematics, Ruling
from drivers.robot_file import RobotFile, StateGroup
from drivers.sync import Stream, arm_at, common_moment
from robot_rl import control
from robot_rl.geometry import (
    matrix_from_quat,
    quat_from_vector,
    quat_inverse,
    quat_product,
    rot6d_from_matrix,
    unit_quat,
    vector_from_quat,
)
from robot_rl.types import ArmState, Obs, RobotRLError, Step, Target

Named = dict[str, float]  # numbers of one reading of a sensor, by their names
SOURCE = "policy"
LATE = 0.1  # of a period; a tick that begins later than that is late
PATIENCE = 5.0  # for the first readings [s]


class Clock(Protocol):
    """The time of the stamps."""

    def now(self) -> float:
        """[s]"""

    def sleep_until(self, moment: float) -> None:
        """Return at `moment` [s], or at once where it is past."""


class Arm(Protocol):
    """An arm, or the node beside its controller. Nothing here blocks."""

    readings: Stream[ArmState]
    stopped: str  # why it obeys nobody; "": it obeys

    def command(self, target: Target) -> None:
        """Go there within a period."""

    def hold(self) -> None:
        """Stay; and obey nobody until the next episode is prepared."""


class RealEnv:
    """Implements `Env`; see the module's docstring.

    `prepare(seed)` brings scene and arm to a start: it resets a simulated world; on a robot it homes the arm and waits
    for the operator. `judge()` says whether the task is solved. `human()` gives an action (A,) in [-1, 1] while a
    person has the controls, else None.
    """

    def __init__(
        self,
        robot: RobotFile,
        arm: Arm,
        clock: Clock,
        *,
        prepare: Callable[[int | None], None],
        judge: Callable[[], bool],
        human: Callable[[], np.ndarray | None] = lambda: None,
        sensors: Mapping[str, Stream[Named]] | None = None,
        cameras: Mapping[str, Stream[np.ndarray]] | None = None,
        kinematics: Kinematics | None = None,
    ) -> None:
        self.spec, self.robot = robot.spec(), robot
        self._arm, self._clock = arm, clock
        self._prepare, self._judge, self._human = prepare, judge, human
        self._sensors, self._cameras = dict(sensors or {}), dict(cameras or {})
        self._require_streams()
        self._streams: list[Stream] = [arm.readings, *self._sensors.values(), *self._cameras.values()]
        self._period, self._kinematics = 1.0 / robot.rate, kinematics
        self.gate = self._new_gate()  # of this episode
        self._interrupted = ""
        self.aborted = ""  # why the last episode could not go on; "": it could
        self.ticks, self.late = 0, 0
        self.overruns: deque[float] = deque(maxlen=10_000)  # how much later than due each tick began [s]

    def reset(self, seed: int | None = None) -> Obs:
        """Prepare, and see where the arm is; raises where a stream stays silent or the arm may not begin there."""
        self._arm.hold()
        self._prepare(seed)
        self._await_readings()
        self.gate = self._new_gate()
        self.gate.arm(self._arm.readings.last, SOURCE)
        self._tick, self._steps, self.aborted = self._clock.now(), 0, ""
        self._last = self._observe()
        return self._last

    def step(self, action: np.ndarray) -> Step:
        """Ask for `action` (A,) in [-1, 1], or for what the person wants, for one period."""
        wanted = self._human()
        asked = control.checked(action if wanted is None else wanted, len(self.spec.action))
        executed = self._command(asked)
        self._wait()
        self._steps += 1
        if not self.aborted:
            self.aborted = self._interrupted or self._wrong()
        if self.aborted:
            self._arm.hold()
        else:
            self._last = self._observe()
        solved = not self.aborted and self._judge()
        over = self.aborted or self._steps >= self.spec.max_steps
        return Step(
            self._last, executed, float(solved), solved, bool(over) and not solved, wanted is not None, float(solved)
        )

    def interrupt(self, reason: str) -> None:
        """End the episode at its next step, from another thread; "" forgets it."""
        self._interrupted = reason

    def render(self) -> np.ndarray:
        """The newest picture of the first camera."""
        if not self._cameras:
            raise RobotRLError("this robot has no camera to look through")
        return next(iter(self._cameras.values())).last

    def close(self) -> None:
        """Hold the arm."""
        self._arm.hold()

    def _new_gate(self) -> Gate:
        return Gate(self.robot.limits, self.robot.arm_limits, self._period, self._kinematics)

    def _command(self, action: np.ndarray) -> np.ndarray:
        """Send the action's target through the gate; what was asked of the arm, as an action."""
        here, now = self._arm.readings.last, self._clock.now()
        target = self._target(action, here, self._last["stamp/state"].item())
        ruling = self.gate.check(target, here, now)
        if ruling.sent is not None:
            self._arm.command(ruling.sent)
        if ruling.verdict == "stopped":
            self.aborted = f"the gate stopped: {ruling.reason}"
        return action if ruling.verdict == "sent" else self._as_action(ruling, here)

    def _target(self, action: np.ndarray, here: ArmState, stamp: float) -> Target:
        delta = control.to_physical(action, self.spec.action)
        turn = unit_quat(here.turn)
        if self.robot.turn:
            turn = unit_quat(quat_product(quat_from_vector(delta[3:6]), turn))
        return Target(stamp, here.position + delta[:3], turn, 0.5 * (1.0 - float(delta[-1])), SOURCE)

    def _as_action(self, ruling: Ruling, here: ArmState) -> np.ndarray:
        """The inverse of `_target`, for what was sent; beyond [-1, 1] it is cut."""
        sent = self.gate.setpoint if ruling.sent is None else ruling.sent
        turned = vector_from_quat(quat_product(sent.turn, quat_inverse(unit_quat(here.turn))))
        parts = [sent.position - here.position, turned if self.robot.turn else np.zeros(0), [1.0 - 2.0 * sent.gripper]]
        return np.clip(control.to_unit(np.concatenate(parts), self.spec.action), -1.0, 1.0).astype(np.float32)

    def _wait(self) -> None:
        """Until the next tick; ticks that were missed are left out, so that none is made up for in a hurry."""
        self._tick += self._period
        over = self._clock.now() - self._tick
        self.ticks += 1
        if over > LATE * self._period:
            self.late += 1
            self._tick += math.ceil(over / self._period) * self._period
        self._clock.sleep_until(self._tick)
        self.overruns.append(max(self._clock.now() - self._tick, 0.0))

    def _wrong(self) -> str:
        """Why the episode cannot go on."""
        if self._arm.stopped:
            return f"the arm stopped: {self._arm.stopped}"
        age = self._clock.now() - common_moment(self._streams)
        if age > self.robot.limits.age:
            silent = min(self._streams, key=lambda stream: stream.newest)
            return f"the stream '{silent.name}' is {age:.2f} s old"
        return ""

    def _observe(self) -> Obs:
        moment = common_moment(self._streams)
        arm = arm_at(self._arm.readings, moment)
        readings = {name: stream.nearest(moment)[1] for name, stream in self._sensors.items()}
        parts = [self._numbers(group, arm, readings) for group in self.robot.state]
        obs: Obs = {"state": np.concatenate(parts).astype(np.float32), "stamp/state": np.array(moment, np.float64)}
        if bad := [c.name for c, v in zip(self.spec.state, obs["state"], strict=True) if not np.isfinite(v)]:
            raise RobotRLError(f"the state's {', '.join(bad)} is no finite number")
        for camera in self.spec.cameras:
            stamp, obs[f"image/{camera.name}"] = self._cameras[camera.name].nearest(moment)
            obs[f"stamp/image/{camera.name}"] = np.array(stamp, np.float64)
        return obs

    def _numbers(self, group: StateGroup, arm: ArmState, readings: Mapping[str, Named]) -> np.ndarray:
        """The channels of one group of the state."""
        place = self.robot.base
        if group.source == "position":
            turned = matrix_from_quat(np.array(place.turn)) @ arm.position
            return np.array(place.position) + turned
        if group.source == "rot6d":
            return rot6d_from_matrix(matrix_from_quat(quat_product(np.array(place.turn), arm.turn)))
        if group.source == "joints":
            return arm.joints
        numbers = readings[group.source]
        return np.array([numbers[name] for name in group.names or group.channels])

    def _await_readings(self) -> None:
        """Readings from after the preparation, of every stream."""
        since = self._clock.now()
        while common_moment(self._streams) < since:
            if self._clock.now() > since + PATIENCE:
                silent = [s.name for s in self._streams if s.newest < since]
                raise RobotRLError(f"nothing new comes from {', '.join(silent)}; `robot-rl check` says what is there")
            self._clock.sleep_until(self._clock.now() + 0.01)

    def _require_streams(self) -> None:
        needed = {g.source for g in self.robot.state} - {"position", "rot6d", "joints"}
        if missing := (needed - set(self._sensors)) | ({c.name for c in self.spec.cameras} - set(self._cameras)):
            raise RobotRLError(f"this robot's state needs streams that are not there: {', '.join(sorted(missing))}")
