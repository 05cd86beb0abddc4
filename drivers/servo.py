"""Beside the controller: the wishes of one source at a time, brought to the servo rate, through the gate. Pure.

Sources are in order of right of way: as soon as one says something it takes over from those behind it, a person from
the policy. When it falls silent the arm holds, and it must be armed again: nobody takes over by being the only one
left. What was planned from an observation before the hand-over is never played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from drivers.gate import Gate, Ruling
from robot_rl.geometry import quat_from_vector, quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, RobotRLError, Target

HOMING = "homing"  # the arm's own source
SHARE = 0.5  # of the gate's speeds, on the way home


@dataclass(frozen=True)
class Path:
    """From one pose to another, evenly."""

    start: Target
    end: Target
    begin: float  # by the steady clock [s]
    duration: float  # [s]

    def at(self, time: float) -> Target:
        """The pose at `time` by the steady clock [s]; the end's, bit for bit, from there on."""
        share = (time - self.begin) / self.duration
        return self.end if share >= 1.0 else between(self.start, self.end, max(share, 0.0))


def between(start: Target, end: Target, share: float) -> Target:
    """`end`, but for its pose: that lies at `share` in [0, 1] of the way from `start`."""
    way = vector_from_quat(quat_product(unit_quat(end.turn), quat_inverse(unit_quat(start.turn))))
    turn = unit_quat(quat_product(quat_from_vector(share * way), unit_quat(start.turn)))
    return replace(end, position=start.position + share * (end.position - start.position), turn=turn)


class Servo:
    """Rules on one setpoint a `tick`. `period` [s]: so long does a wish take to be reached; mostly a source's own."""

    def __init__(self, gate: Gate, period: float, sources: Sequence[str], home: np.ndarray | None = None) -> None:
        if HOMING in sources or not sources or len(set(sources)) < len(sources):
            raise RobotRLError(f"the sources need names of their own, other than '{HOMING}': {tuple(sources)}")
        self.gate, self.period, self.sources = gate, period, tuple(sources)
        self._home = home
        self.leases = 0  # how often somebody was let command
        self._path: Path | None = None  # that is followed
        self._wish: Target | None = None  # not ruled on yet
        self._since, self._fresh = (
            -np.inf,
            True,
        )  # the hand-over, by the stamps [s]; and whether nothing was wished for since

    def arm(self, source: str, state: ArmState, now: float, steady: float) -> None:
        """From now on `source` commands; an arm that was stopped begins anew from where it is measured."""
        if source not in (*self.sources, HOMING):
            raise RobotRLError(f"'{source}' may not command this arm; {', '.join(self.sources)} may")
        if source == HOMING and self._home is None:
            raise RobotRLError("this robot's file says no home")
        age, limits = now - state.stamp, self.gate.limits
        if not -limits.ahead <= age <= limits.age:
            raise RobotRLError(f"the arm cannot be armed: what is known of it is {age:.2f} s old")
        if self.gate.stopped:
            self.gate.arm(state, source, steady)
        self._hand_over(source, now)
        self.leases += 1
        if source == HOMING:
            self._go_home(steady)

    def stop(self, reason: str) -> None:
        """For good: brake, and hold the measured pose."""
        self.gate.stop(reason)

    def offer(self, target: Target) -> bool:
        """A source's newest wish; whether it will be ruled on."""
        holder = self.gate.holder
        if target.source not in self.sources or self.gate.stopped:
            return False
        if self._wish is not None:  # whoever takes over with it holds the arm already
            holder = self._wish.source
        if target.source != holder and not self._goes_before(target.source, holder):
            return False
        if not target.stamp > self._since:  # of NaN too: from before the hand-over
            return False
        self._wish = target
        return True

    def tick(self, state: ArmState, now: float, steady: float, quiet: bool = False) -> Ruling | None:
        """The ruling on the setpoint of this moment, a servo period after the last; None: there is nothing to send.

        `now` and `steady` as in `Gate.check`. `quiet`: the holder or the arm missed a word, so the setpoint brakes and
        rests until they speak again.
        """
        if self.gate.rests:
            return None
        wish, self._wish = self._wish, None
        if wish is not None and not self.gate.stopped:
            if self._fresh or wish.source != self.gate.holder:
                self._hand_over(wish.source, now)  # so that it is measured by where the arm is
                self._fresh = False
            if self.gate.refuses(wish, state, now):
                return self.gate.check(wish, state, now, steady)  # counts it, and brakes
            self._path = Path(self.gate.setpoint, wish, steady, self._duration(wish))
        if quiet and self._path is not None and not self.gate.stopped:
            self._path = replace(self._path, begin=self._path.begin + self.gate.period)  # time stands still on it too
            here = replace(self.gate.setpoint, stamp=self._path.end.stamp if self.commanded else state.stamp)
            return self.gate.check(here, state, now, steady)
        return self.gate.check(self._ahead(state, steady), state, now, steady)

    @property
    def commanded(self) -> bool:
        """Whether the holder, which is one of the sources, has wished for something since it took over."""
        return self._path is not None and self.gate.holder != HOMING

    def is_home(self, steady: float) -> bool:
        """Whether the way home is over."""
        return (
            self._path is not None and self.gate.holder == HOMING and steady >= self._path.begin + self._path.duration
        )

    def _goes_before(self, source: str, holder: str) -> bool:
        rank = len(self.sources) - 1 if holder == HOMING else self.sources.index(holder)
        return self.sources.index(source) < rank

    def _duration(self, wish: Target) -> float:
        """Its period; or as long as it takes at full speed, where the setpoint has to catch up."""
        away, turned = self.gate.way_to(wish)
        return max(self.period, away / self.gate.limits.speed, turned / self.gate.limits.turn_speed)

    def _hand_over(self, source: str, now: float) -> None:
        self.gate.lease(source)
        self._path, self._wish, self._since, self._fresh = None, None, now, True

    def _ahead(self, state: ArmState, steady: float) -> Target:
        """What the holder wants at this moment; before its first wish: to stay."""
        if self._path is None:
            return replace(self.gate.setpoint, stamp=state.stamp)
        target = self._path.at(steady + self.gate.period)  # where it is sent now, it is at the next tick
        return replace(target, stamp=state.stamp) if target.source == HOMING else target  # it plans from no observation

    def _go_home(self, steady: float) -> None:
        assert self._home is not None
        start = self.gate.setpoint
        end = replace(start, position=self._home[:3].copy(), turn=unit_quat(self._home[3:]), gripper=1.0)
        self._path = Path(start, end, steady, self._duration(end) / SHARE)
