"""May a reading be believed to be of the time that it says? By two clocks, as either alone fails open.

Stamps are compared with the clock they were made by, which may step, stand still, or be another computer's; arrivals
with a steady one, which does neither. A stamp of the future is refused, else everything after it would count as older
than it; where the clock itself was set back, what was kept before is of a time that has not come, and is forgotten.
Pure.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from statistics import median
from typing import Literal, Protocol

AHEAD = 0.02  # so far in the future may a stamp lie [s]: clocks differ a little
LAST = 7  # gaps that a usual one is found from
NEW = 0.2  # share of the last gap in the usual one
CLOCKS = "compare the two computers' clocks"
Admission = Literal["kept", "anew", "refused"]  # "anew": kept, and all before it are to be forgotten


class Clocks(Protocol):
    """What stamps and arrivals are compared with."""

    def now(self) -> float:
        """The time of the stamps [s]."""

    def steady(self) -> float:
        """A time that never steps, and goes on where that of the stamps stands still [s]."""


class SystemClocks:
    """Implements `Clocks` by this computer's own."""

    def now(self) -> float:
        """Since 1970 [s]."""
        return time.time()

    def steady(self) -> float:
        """[s]"""
        return time.monotonic()


SYSTEM = SystemClocks()


class StampMonitor:
    """Judges the stamps of one publisher. Not locked: whoever shares it between threads does that."""

    def __init__(self, clocks: Clocks = SYSTEM, ahead: float = AHEAD) -> None:
        self.clocks, self.ahead = clocks, ahead
        self.newest = -math.inf  # the stamp of the last that was kept [s]
        self.arrived = -math.inf  # when it came, by the steady clock [s]
        self._gaps = deque[float](maxlen=LAST)  # between the last that were kept [s]
        self.gap = 0.0  # usually between two that were kept [s]; 0: there were no two
        self._until = -math.inf  # stamps up to this one are of a time that is over [s]
        self.refused = ""  # why the last that came was not kept, in words; "": it was
        self.counts: Counter[str] = Counter()  # of those refused, by kind: "future", "order", "number"

    def admit(self, stamp: float) -> Admission:
        """Whether a reading stamped `stamp` [s] that comes now is kept."""
        now = self.clocks.now()
        if not math.isfinite(stamp):
            return self._refuse("number", f"its last reading is stamped {stamp}")
        if stamp > now + self.ahead:
            return self._refuse("future", f"its last reading is stamped {stamp - now:.2f} s in the future: {CLOCKS}")
        if stamp <= self._until:
            return self._refuse("order", "its last reading is of before the clock was set back")
        anew = self.newest > now + self.ahead  # the clock was set back since
        if stamp <= self.newest and not anew:
            return self._refuse("order", _not_newer(stamp, self.newest, now))
        steady = self.clocks.steady()
        if math.isfinite(gap := steady - self.arrived):
            self._gaps.append(gap)
            self.gap += (NEW if self.gap else 1.0) * (gap - self.gap)
        self.newest, self.arrived, self.refused = stamp, steady, ""
        return "anew" if anew else "kept"

    @property
    def usual(self) -> float:
        """The median of the last gaps [s], which one pause does not change; 0 where there are too few."""
        return median(self._gaps) if len(self._gaps) >= LAST // 2 else 0.0

    def forget(self, until: float = -math.inf) -> None:
        """The last reading is of another time: as if nothing had come yet. So is what is stamped up to `until` [s]."""
        self.newest, self.arrived, self._until = -math.inf, -math.inf, until

    def wrong(self, limit: float, now: float | None = None, latency: float = 0.0) -> str:
        """Why nothing may be moved by the last reading, in words that go on from its name; "": nothing is wrong.

        It is too old where its stamp, less `latency`, or its arrival is more than `limit` [s] ago; `now` [s] is the
        clocks' where not given.
        """
        why = f": {self.refused}" if self.refused else ""
        if self.newest == -math.inf:
            return f"has said nothing yet{why}"
        age = (self.clocks.now() if now is None else now) - self.newest
        if age < -self.ahead:
            return f"is stamped {-age:.2f} s in the future: {CLOCKS}"
        if age + latency > limit:
            return f"is {age + latency:.2f} s old{why}"
        silent = self.clocks.steady() - self.arrived
        return f"is silent for {silent:.2f} s{why}" if silent > limit else ""

    def _refuse(self, kind: str, words: str) -> Admission:
        self.counts[kind] += 1
        self.refused = words
        return "refused"


def _not_newer(stamp: float, newest: float, now: float) -> str:
    if stamp == 0.0:
        return "its readings have no stamps; let the driver fill header.stamp when it acquires them"
    if stamp == newest:
        return "its stamps stand still"
    return f"its last reading is stamped {now - stamp:.2f} s ago, before the one that it followed: {CLOCKS}"
