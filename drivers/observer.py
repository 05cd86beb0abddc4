"""What is seen of a robot, and when: observations of the newest moment that all streams have reached, at a fixed rate.

Pure, under any clock. Whoever acts on a robot and whoever only records it see it through these.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from drivers.robot_file import RobotFile, StateGroup
from drivers.sync import Stream, arm_at, common_moment
from robot_rl.geometry import matrix_from_quat, quat_product, rot6d_from_matrix
from robot_rl.types import ArmState, Obs, RobotRLError

Named = dict[str, float]  # numbers of one reading of a sensor, by their names
LATE = 0.1  # of a period; a tick that begins later than that is late
PATIENCE = 5.0  # for the first readings [s]


def oldest(robot: RobotFile) -> float:
    """So old may an observation be when it is acted on [s]: what comes of it is followed until the next, a period
    later, and refused from `limits.age` on, where the arm holds."""
    return robot.limits.age - 1.0 / robot.rate


class Clock(Protocol):
    """The time of the stamps, which may step, for ages; and one that never does, for durations."""

    def now(self) -> float:
        """The time of the stamps [s]."""

    def steady(self) -> float:
        """A time that passes evenly and never steps [s]; at a simulator's pace where the stamps are a simulator's."""

    def stepped(self) -> float:
        """By how much the time of the stamps stepped since the last call [s]; 0: it did not."""

    def sleep_until(self, moment: float) -> None:
        """Return when `steady` is `moment` [s], or at once where that is past."""


class Ticker:
    """Ticks every `period` [s], steadily; missed ones are left out, so that none is made up for in a hurry."""

    def __init__(self, clock: Clock, period: float) -> None:
        self._clock, self._period, self._tick = clock, period, -math.inf
        self.ticks, self.late = 0, 0
        self.overruns: deque[float] = deque(maxlen=10_000)  # how much later than due each tick began [s]

    def begin(self) -> None:
        """The first tick is now."""
        self._tick = self._clock.steady()

    def wait(self) -> None:
        """Until the next tick."""
        self._tick += self._period
        over = self._clock.steady() - self._tick
        self.ticks += 1
        if over > LATE * self._period:
            self.late += 1
            self._tick += math.ceil(over / self._period) * self._period
        self._clock.sleep_until(self._tick)
        self.overruns.append(max(self._clock.steady() - self._tick, 0.0))


class Observer:
    """A robot's streams as observations: the arm's `readings`, and its file's sensors and cameras by their names."""

    def __init__(
        self,
        robot: RobotFile,
        readings: Stream[ArmState],
        sensors: Mapping[str, Stream[Named]] | None = None,
        cameras: Mapping[str, Stream[np.ndarray]] | None = None,
    ) -> None:
        self.robot, self.spec, self.readings = robot, robot.spec(), readings
        self.sensors, self.cameras = dict(sensors or {}), dict(cameras or {})
        self._require_streams()
        self.streams: list[Stream] = [readings, *self.sensors.values(), *self.cameras.values()]

    def observe(self) -> Obs:
        """The observation of the newest common moment; raises where it lacks a part, or one is not as the file says."""
        moment = common_moment(self.streams)
        arm = arm_at(self.readings, moment)
        named = {name: stream.nearest(moment)[1] for name, stream in self.sensors.items()}
        parts = [self._numbers(group, arm, named) for group in self.robot.state]
        obs: Obs = {"state": np.concatenate(parts).astype(np.float32), "stamp/state": np.array(moment, np.float64)}
        if bad := [c.name for c, v in zip(self.spec.state, obs["state"], strict=True) if not np.isfinite(v)]:
            raise RobotRLError(f"the state's {', '.join(bad)} is no finite number")
        for camera in self.spec.cameras:
            stamp, image = self.cameras[camera.name].nearest(moment)
            if image.shape != camera.shape or image.dtype != camera.dtype:
                wanted = f"the robot's file says {camera.shape} {camera.dtype}"
                raise RobotRLError(f"the pictures of '{camera.name}' are {image.shape} {image.dtype}, {wanted}")
            obs[f"image/{camera.name}"], obs[f"stamp/image/{camera.name}"] = image, np.array(stamp, np.float64)
        return obs

    def forget(self) -> None:
        """Forget all readings, whose stamps are of before the clock stepped."""
        for stream in self.streams:
            stream.clear()

    def age(self, now: float) -> float:
        """How old what `observe` would give is `now` [s]."""
        return now - common_moment(self.streams)

    def silent(self, now: float, age_limit: float | None = None) -> str:
        """Which stream is older `now` [s] than its limit, by stamp or arrival, or of the future, and why, in words.

        The limit is the robot's where none is given. "": none is; the oldest is named first.
        """
        limit = self.robot.limits.age if age_limit is None else age_limit
        for stream in sorted(self.streams, key=lambda stream: stream.newest):
            if wrong := stream.wrong(limit, now):
                return wrong
        return ""

    def await_readings(self, clock: Clock) -> None:
        """Wait for readings of every stream from after this call; raises where none come."""
        since, begin, real = clock.now(), clock.steady(), time.monotonic()
        while common_moment(self.streams) < since:
            # A simulator's clock may stand still meanwhile.
            if clock.steady() > begin + PATIENCE or time.monotonic() > real + PATIENCE:
                silent = [s.name + (s.refused and f" ({s.refused})") for s in self.streams if s.newest < since]
                raise RobotRLError(f"nothing new comes from {', '.join(silent)}; `robot-rl check` says what is there")
            clock.sleep_until(clock.steady() + 0.01)

    def _numbers(self, group: StateGroup, arm: ArmState, named: Mapping[str, Named]) -> np.ndarray:
        """The channels of one group of the state."""
        place = self.robot.base
        if group.source == "position":
            turned = matrix_from_quat(np.array(place.turn)) @ arm.position
            return np.array(place.position) + turned
        if group.source == "rot6d":
            return rot6d_from_matrix(matrix_from_quat(quat_product(np.array(place.turn), arm.turn)))
        if group.source == "joints":
            return arm.joints
        numbers, wanted = named[group.source], group.names or group.channels
        if missing := [name for name in wanted if name not in numbers]:
            raise RobotRLError(f"'{group.source}' lacks {', '.join(missing)}; it has {', '.join(numbers)}")
        return np.array([numbers[name] for name in wanted])

    def _require_streams(self) -> None:
        needed = {g.source for g in self.robot.state} - {"position", "rot6d", "joints"}
        if missing := (needed - set(self.sensors)) | ({c.name for c in self.spec.cameras} - set(self.cameras)):
            raise RobotRLError(f"this robot's state needs streams that are not there: {', '.join(sorted(missing))}")
