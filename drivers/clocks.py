"""Two clocks: that of the stamps, which may be set anew at any time, and a steady one by which durations are counted.

The stamps' clock is the system's, which a time server or a person sets, or a simulator's (`use_sim_time`), which runs
at any pace, stands still, and begins anew. Against the steady clock its steps are found. Pure, but for the reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

STEP = 0.02  # what is less is drift, and the time between two looks [s]
TOGETHER = 0.002  # two clocks are read within so long of each other [s]
FASTEST = 20.0  # no simulator runs so many times faster than real time
FORGOTTEN = 1.0  # so old is a sure look at most that a doubtful one is compared with [s]: clocks drift
PIECE = 0.5  # [s]; a simulator's time comes in pieces, no larger than that


class StepWatch:
    """Says when the stamps' clock stepped by more than `least` [s]; `simulated`: it is a simulator's."""

    def __init__(self, least: float, simulated: bool = False) -> None:
        self._least, self._simulated = least, simulated
        self._last: tuple[float, float, float] | None = None

    def look(self, now: float, steady: float, doubt: float = 0.0) -> float:
        """By how much it stepped since the last look [s], 0 where it did not.

        `now` and `steady` were read within `doubt` of each other [s]: a thread may be held up between the two. What one
        look cannot tell for that, the next one does.
        """
        before = self._last
        if before is None or (self._simulated and before[0] == 0.0):  # 0: no simulated time came yet
            self._last = now, steady, doubt
            return 0.0
        step = self._step(now - before[0], steady - before[1], doubt + before[2])
        if step or doubt <= max(before[2], TOGETHER) or steady - before[1] > FORGOTTEN:
            self._last = now, steady, doubt
        return step

    def _step(self, passed: float, elapsed: float, doubt: float) -> float:
        if not self._simulated:
            return passed - elapsed if abs(passed - elapsed) > self._least + doubt else 0.0
        if passed < -self._least:
            return passed
        return passed - elapsed if passed > PIECE + FASTEST * (elapsed + doubt) else 0.0


def read_together(now: Callable[[], float], tries: int = 5) -> tuple[float, float, float]:
    """`now()`, the steady clock, and how far apart they were read [s]: again where the thread was held up between."""
    for _ in range(tries):
        before, stamp = time.monotonic(), now()
        after = time.monotonic()
        if after - before < TOGETHER:
            break
    return stamp, after, after - before


class SimulatedTime:
    """A simulator's time without its steps: it goes on at the simulator's pace, whatever that clock is set to."""

    def __init__(self) -> None:
        self._steps = StepWatch(0.0, simulated=True)
        self._time, self._now = 0.0, 0.0
        self._lock = Lock()

    def read(self, now: float, steady: float) -> float:
        """The time [s], where the simulator's clock shows `now`; never less than before."""
        with self._lock:
            if not self._steps.look(now, steady) and self._now > 0.0:
                self._time += now - self._now
            self._now = now
            return self._time
