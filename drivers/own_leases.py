"""What one program was given of an arm and has to give back, whichever word of the arm's node comes late. Pure.

The node answers `arm` with the number of a lease, tells the newest number in every status, and takes a release or a
fault of whoever holds: it does not ask for which lease. So a program may give back a lease that it knows to be the
newest, as of a moment ago. One that hung waits for the words that come from then on, since somebody else may have been
armed meanwhile, and what had waited for it is of before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock

SURE = 0.05  # after so long of hearing again what is heard is of now [s]


@dataclass(frozen=True)
class Debt:
    """A lease that is not wanted any more."""

    holder: str
    lease: int
    fault: str = ""
    """why the arm shall be stopped for good; "": it is only given back"""


class OwnLeases:
    """Knows the newest lease, and what is to be given back. Times are the steady clock's [s]; a word is news for
    `lately`."""

    def __init__(self, lately: float) -> None:
        self._lately, self._newest = lately, 0
        self._since, self._heard = -math.inf, -math.inf  # it speaks without a pause since, and spoke last
        self._over = False  # nobody holds the newest one any more
        self._debts: list[Debt] = []
        self._lock = Lock()  # from the thread that plays, from a transition's, and from the one that spins

    def hear(self, lease: int, held: bool, at: float) -> None:
        """The arm's node says that `lease` is its newest, and whether somebody has it."""
        with self._lock:
            if not at - self._heard < self._lately:
                self._since = at
            self._heard = at
            if lease >= self._newest:
                self._newest, self._over = lease, not held

    def forget(self) -> None:
        """The arm's node was started anew: what another one gave is nobody's."""
        with self._lock:
            self._newest, self._heard, self._over, self._debts = 0, -math.inf, False, []

    def owe(self, debt: Debt) -> None:
        """It is to be given back as soon as that may be."""
        with self._lock:
            self._debts.append(debt)

    def due(self, at: float) -> list[Debt]:
        """What is to be given back now; each is said once, and those that are over never."""
        with self._lock:
            debts = [d for d in self._debts if d.lease > self._newest or (d.lease == self._newest and not self._over)]
            known = at - self._heard < self._lately and self._heard - self._since >= SURE
            due = [d for d in debts if known and d.lease == self._newest]
            self._debts = [d for d in debts if d not in due]
        return due
