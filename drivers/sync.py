"""Stamped readings of several streams, brought to one moment.

As UMI does (2402.10329, section III-B): each stream's latency is taken off its stamps, the moment of an observation is
the newest that all streams have reached, images are the nearest to it and the arm is interpolated to it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from drivers.stamps import AHEAD, SYSTEM, Clocks, StampMonitor
from robot_rl.geometry import quat_from_vector, quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, RobotRLError

T = TypeVar("T")


class Stream(Generic[T]):
    """The last `length` readings of one stream, oldest first; `latency` [s] is what its stamps come too late by.

    Stamps are judged by `clocks` when they come: see stamps.py. One more than `ahead` [s] in the future is refused.
    """

    def __init__(
        self, name: str, length: int, latency: float = 0.0, clocks: Clocks = SYSTEM, ahead: float = AHEAD
    ) -> None:
        if length < 2 or not (math.isfinite(latency) and latency >= 0):
            raise RobotRLError(
                f"stream '{name}' needs a length of 2 and a latency of 0 s at least: {length}, {latency}"
            )
        self.name, self.latency = name, latency
        self.dropped = 0  # readings that were refused
        self._stamps: deque[float] = deque(maxlen=length)
        self._values: deque[T] = deque(maxlen=length)
        self._monitor = StampMonitor(clocks, ahead)
        self._lock = Lock()  # readings come in one thread and are looked up in another
        self.explain: Callable[[], str] = lambda: ""
        """what whoever fills it knows of why nothing new comes, in words"""

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp: float, value: T) -> bool:
        """Keep a reading of the moment `stamp` [s], unless it is of the future or not newer than the last; whether."""
        with self._lock:
            admission = self._monitor.admit(stamp)
            if admission == "refused":
                self.dropped += 1
                return False
            if admission == "anew":
                self._stamps.clear()
                self._values.clear()
            self._stamps.append(stamp - self.latency)
            self._values.append(value)
        return True

    def clear(self) -> None:
        """Forget all readings: their stamps are of another time."""
        with self._lock:
            self._stamps.clear()
            self._values.clear()
            self._monitor.forget()

    def refuse(self, why: str) -> None:
        """Remember why there is nothing new to keep, in words, until there is."""
        with self._lock:
            self._monitor.refused = why

    @property
    def refused(self) -> str:
        """Why the last that came was not kept, or why nothing comes, as far as it is known; "": all is well."""
        return self._monitor.refused or self.explain()

    def wrong(self, limit: float, now: float | None = None) -> str:
        """Why nothing may be moved by its last reading, in words: it is older than `limit` [s], by stamp or arrival, or
        of the future; "": nothing is wrong. `now` [s] is the clocks' where not given."""
        with self._lock:
            wrong = self._monitor.wrong(limit, now, self.latency)
        if not wrong:
            return ""
        why = "" if self._monitor.refused else self.explain()
        return f"the stream '{self.name}' {wrong}" + (f": {why}" if why else "")

    @property
    def newest(self) -> float:
        """The stamp of the last reading [s]; -inf before there is one, so that it counts as stale."""
        with self._lock:
            return self._stamps[-1] if self._stamps else -math.inf

    @property
    def last(self) -> T:
        """The last reading."""
        return self.nearest(math.inf)[1]

    def nearest(self, moment: float) -> tuple[float, T]:
        """The reading whose stamp is nearest to `moment` [s], with it."""
        with self._lock:
            before, after, _ = self._about(moment)
            best = before if moment - self._stamps[before] <= self._stamps[after] - moment else after
            return self._stamps[best], self._values[best]

    def around(self, moment: float) -> tuple[T, T, float]:
        """The readings before and after `moment` [s], and how far between them it lies, in [0, 1]; never beyond."""
        with self._lock:
            before, after, share = self._about(moment)
            return self._values[before], self._values[after], share

    def _about(self, moment: float) -> tuple[int, int, float]:
        if not self._stamps:
            raise RobotRLError(f"stream '{self.name}' has delivered nothing yet")
        after = min(bisect_left(self._stamps, moment), len(self._stamps) - 1)
        before = max(after - 1, 0) if self._stamps[after] > moment else after
        gap = self._stamps[after] - self._stamps[before]
        share = (moment - self._stamps[before]) / gap if gap > 0 else 0.0
        return before, after, min(max(share, 0.0), 1.0)


def common_moment(streams: Iterable[Stream[T]]) -> float:
    """The newest moment that every stream has reached [s]; -inf while one has delivered nothing."""
    return min(stream.newest for stream in streams)


def arm_at(stream: Stream[ArmState], moment: float) -> ArmState:
    """The arm at `moment` [s]: numbers in proportion, the rotation along the shortest way."""
    a, b, share = stream.around(moment)
    stamp = min(max(moment, a.stamp - stream.latency), b.stamp - stream.latency)
    return ArmState(
        stamp,
        _between(a.position, b.position, share),
        _turned(a.turn, b.turn, share),
        _between(a.joints, b.joints, share),
        float(a.gripper + share * (b.gripper - a.gripper)),
        _between(a.wrench, b.wrench, share),
    )


def _between(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return a + share * (b - a)


def _turned(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    way = vector_from_quat(quat_product(b, quat_inverse(a)))
    return unit_quat(quat_product(quat_from_vector(share * way), a))
