"""Playing chunks by the clock: while one runs the next is planned, and spliced in by time, never by index.

Action k of a chunk is due one `period` after action k - 1, and the first at the moment `start` of the observation that
the chunk was planned from. When the plan is there, some of its actions are past: those are not executed. How many is
measured for each chunk, never estimated (an estimate that is wrong once makes the arm jump). Over the next `blend`
periods old and new are mixed, so that the arm does not feel the seam. Past the last action there is none: hold.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from robot_rl.types import RobotRLError

ROUNDING = 1e-6  # of a period


@dataclass(frozen=True)
class Seam:
    """Where one chunk took over from another."""

    delay: float  # from the chunk's observation to its arrival [s]
    skipped: int  # of its actions, past already
    jump: np.ndarray  # (A,) its first executed action less what the old chunk would have done; 0 where there was none


class Track:
    """The actions ahead, one each `period` [s]; of several chunks, the newest."""

    def __init__(self, period: float, blend: int = 0) -> None:
        if not (math.isfinite(period) and period > 0) or blend < 0:
            raise RobotRLError(f"a track needs a period above 0 s and a blend of 0 periods at least: {period}, {blend}")
        self.period, self.blend = period, blend
        self._start = -math.inf
        self._actions: np.ndarray | None = None  # (h, A)
        self.seams: deque[Seam] = deque(maxlen=1000)  # the last ones

    def clear(self, now: float) -> None:
        """Forget what is ahead, and take no plan from an observation up to `now`: a person took over, or let go."""
        self._start, self._actions = now, None

    def add(self, start: float, actions: np.ndarray, now: float) -> bool:
        """Splice in a chunk (h, A) that arrives at `now`; whether it was taken.

        Not taken: one planned from no newer observation than the present one, or from one of the future; and one whose
        actions are all past.
        """
        if not self._start < start <= now + ROUNDING * self.period:
            return False
        old, begun = self.ahead(start, len(actions)), (now - start) / self.period
        skipped = math.ceil(begun - ROUNDING)  # the one whose period has begun goes on being the old chunk's
        if skipped > len(old):
            skipped = self._index(start, now)  # where there is none, it begins at once
        if skipped >= len(actions):
            return False
        mixed = np.array(actions, np.float64)
        for k, before in enumerate(old[: skipped + self.blend]):
            share = max(k - skipped + 1, 0) / (self.blend + 1)
            mixed[k] = (1 - share) * before + share * mixed[k]
        jump = actions[skipped] - old[skipped] if skipped < len(old) else np.zeros(actions.shape[1])
        self.seams.append(Seam(now - start, skipped, np.asarray(jump, np.float64)))
        self._start, self._actions = start, mixed
        return True

    def at(self, time: float) -> np.ndarray | None:
        """The action (A,) that is due at `time` [s]; None: hold."""
        if self._actions is None or time < self._start - ROUNDING * self.period:
            return None
        index = self._index(self._start, time)
        return self._actions[index] if index < len(self._actions) else None

    def ahead(self, start: float, count: int) -> np.ndarray:
        """The actions (n, A) due from `start` on, at most `count`: what a plan made now will have to go on from."""
        if self._actions is None:
            return np.zeros((0, 0))
        return self._actions[self._index(self._start, max(start, self._start)) :][:count]

    def left(self, now: float) -> float:
        """For how long there are actions [s]."""
        return 0.0 if self._actions is None else max(self._start + len(self._actions) * self.period - now, 0.0)

    def _index(self, start: float, time: float) -> int:
        return math.floor((time - start) / self.period + ROUNDING)
