"""One rule for every device: when what it reports counts as a person's hand.

A hand counts only while reports come: `QUIET` after the newest one the dead-man is up, whatever it said. And it counts
only if the dead-man was seen up, with all that has a rest at rest, since the beginning, since the last silence in the
hand and since the last report that cannot be believed. So nothing begins to move because a device starts, wakes up or
comes back with its stick pushed or its button down. See docs/teleop.md.
"""

from __future__ import annotations

import numpy as np

from drivers.teleop import HAND, DeviceSilent

QUIET = 0.25  # without a report nobody holds the dead-man [s]; with a period of control that is within 0.3 s
LET_GO = "let go, then hold again"


class DeadMan:
    """What one device reports, and what of it counts. Times are of the steady clock [s].

    `speaks_at_rest`: it goes on reporting while nobody touches it, so that any silence is one, and not only that of a
    device in somebody's hand.
    """

    def __init__(self, name: str, *, speaks_at_rest: bool) -> None:
        self.hint = ""  # why a dead-man that is held does not count, and what to do; "": it does, or it is up
        self._name, self._speaks_at_rest = name, speaks_at_rest
        self._ready, self._lost, self._why = False, "", ""
        self._heard = -np.inf
        self._motion: np.ndarray | None = None  # while the dead-man is held, and counts

    @property
    def ready(self) -> bool:
        """It would count now, if it is held."""
        return self._ready

    @property
    def held(self) -> bool:
        """The dead-man is, and it counts."""
        return self._motion is not None

    def report(self, at: float, held: bool, motion: np.ndarray, not_at_rest: str = "") -> None:
        """Take what the device said at `at`: its dead-man, its motion (6,) in [-1, 1], and what is not at rest."""
        self.watch(at)
        self._heard = max(self._heard, at)
        if motion.shape != (HAND - 1,) or not (np.abs(motion) <= 1.0 + 1e-6).all():  # false for NaN too
            self.doubt("a number that is none, or beyond 1")
            return
        self.hint = ""
        if not held:
            self._motion, self._lost = None, ""
            self._ready, self._why = self._ready or not not_at_rest, not_at_rest
            self.hint = not_at_rest if not self._ready else ""
        elif self._ready:
            self._motion = np.clip(motion, -1.0, 1.0)
        else:
            self.hint = f"{self._why or f'{self._name} was not yet seen with the dead-man up'}: {LET_GO}"

    def doubt(self, why: str) -> None:
        """What it said cannot be believed: nobody holds the dead-man until it was let go."""
        self._ready, self._motion, self._why = False, None, f"{self._name}: {why}"
        self.hint = f"{self._why}: {LET_GO}"

    def lose(self, why: str) -> None:
        """The same; and if somebody holds it, the arm shall hold too, not only the hand: see `DeviceSilent`."""
        lost = self.held
        self.doubt(why)
        if lost:
            self._lost = f"{why}; {LET_GO}"

    def motion(self, now: float) -> np.ndarray | None:
        """(6,) in [-1, 1]; None: the dead-man is up. Raises `DeviceSilent` from a loss in the hand until it is up."""
        self.watch(now)
        if self._lost:
            raise DeviceSilent(self._lost)
        return self._motion

    def watch(self, now: float) -> None:
        """Notice a silence until `now`, whatever is reported after it."""
        silent = now - self._heard
        if silent > QUIET and self.held:
            self.lose(f"nothing came on {self._name} for {silent:.2f} s")
        elif silent > QUIET and self._speaks_at_rest and self._ready:
            self.doubt(f"it was silent for {silent:.1f} s")


class Presses:
    """Which buttons went down, from one report to the next; what is down in a first report was not pressed."""

    def __init__(self) -> None:
        self._down: frozenset[int] | None = None

    def __call__(self, down: frozenset[int]) -> frozenset[int]:
        """Those that went down since the report before."""
        before, self._down = self._down, down
        return frozenset() if before is None else down - before

    def forget(self) -> None:
        """Nobody knows what was before the next report."""
        self._down = None
