"""Two clocks: that of the stamps, which may be set anew at any time, and a steady one by which durations are counted.

The stamps' clock is the system's, which a time server or a person sets, or a simulator's (`use_sim_time`), which runs
at any pace, stands still, and begins anew. Against the steady clock its steps are found. Pure, but for the reading.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock

STEP = 0.02  # what is less is drift, and the time between two looks [s]
TOGETHER = 0.002  # two clocks are read within so long of each other [s]
FASTEST = 20.0  # no simulator runs so many times faster than real time
RECENT, FEW = 0.25, 4  # a pace is that of so long [s], and of so many changes at least
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


class Pace:
    """How fast a simulator's clock runs against the steady one, and in what pieces its time comes."""

    def __init__(self) -> None:
        self._changes: deque[tuple[float, float]] = deque()  # of the steady clock and of the simulator's [s]
        self._looked = 0.0

    def look(self, now: float, steady: float) -> None:
        """The simulator's clock shows `now`; where it began anew, so does this."""
        self._looked, changes = steady, self._changes
        if now == 0.0 or (changes and now == changes[-1][1]):
            return
        if changes and now < changes[-1][1]:
            changes.clear()
        changes.append((steady, now))
        while len(changes) > FEW and steady - changes[1][0] > RECENT:
            changes.popleft()

    def gap(self, period: float) -> float:
        """What passes in real time between two words, of who says one each `period` of the simulator's time [s]."""
        if len(self._changes) < FEW:
            return math.inf if self._stands > RECENT else 0.0
        return max(period / self._pace if self._pace > 0 else math.inf, self._piece, self._stands)

    def words(self, period: float, longest: float) -> str:
        """Why that is more than `longest` [s]; "": it is not."""
        if self.gap(period) <= longest:
            return ""
        if not self._changes:
            return "no time comes on /clock"
        if self._stands > max(longest, self._piece):
            return f"/clock stands still for {self._stands:.2f} s"
        if period / self._pace > longest:
            return f"/clock runs at {self._pace:.2g} of real time"
        return f"the time on /clock comes every {self._piece:.2f} s only"

    @property
    def _pace(self) -> float:
        (begin, first), (end, last) = self._changes[0], self._changes[-1]
        return (last - first) / (end - begin) if end > begin else 1.0

    @property
    def _piece(self) -> float:
        return (self._changes[-1][0] - self._changes[0][0]) / (len(self._changes) - 1)

    @property
    def _stands(self) -> float:
        return self._looked - self._changes[-1][0] if self._changes else math.inf


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
