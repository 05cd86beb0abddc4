"""Beside the controller: the wishes of one source at a time, brought to the servo rate, through the gate. Pure.

Who may command, and what follows on silence, release, stop and reset, is authority.py's state model, which this obeys.
What was planned from an observation before a hand-over is never played. Homing is followed while its owner's heartbeat
is heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from drivers.authority import HOMING, Authority
from drivers.gate import Gate, Ruling
from drivers.sound import target_wrong
from drivers.stamps import CLOCKS
from robot_rl.geometry import angle_between, quat_from_vector, quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, RobotRLError, Target

SHARE = 0.5  # of the speeds and accelerations of the gate, on the way home
ARRIVE = 3.0  # so long after its setpoint the arm has to be home [s]: soft controllers creep


@dataclass(frozen=True)
class Path:
    """From one pose to another, evenly; over the first `ramp` [s] ever faster, so that nobody has to catch up."""

    start: Target
    end: Target
    begin: float  # by the steady clock [s]
    duration: float  # without a ramp [s]
    ramp: float = 0.0

    @property
    def over(self) -> float:
        """When it is, by the steady clock [s]."""
        return self.begin + self.duration + 0.5 * self.ramp

    def at(self, time: float) -> Target:
        """The pose at `time` by the steady clock [s]; the end's, bit for bit, from there on."""
        passed = max(time - self.begin, 0.0)
        slow = min(passed, self.ramp)
        share = (passed - slow + (0.5 * slow * slow / self.ramp if slow else 0.0)) / self.duration
        return self.end if share >= 1.0 else between(self.start, self.end, share)


def between(start: Target, end: Target, share: float) -> Target:
    """`end`, but for its pose: that lies at `share` in [0, 1] of the way from `start`."""
    way = vector_from_quat(quat_product(unit_quat(end.turn), quat_inverse(unit_quat(start.turn))))
    turn = unit_quat(quat_product(quat_from_vector(share * way), unit_quat(start.turn)))
    return replace(end, position=start.position + share * (end.position - start.position), turn=turn)


class Servo:
    """Rules on one setpoint a `tick`. `period` [s]: so long does a wish take to be reached; mostly a source's own.

    `authority` says who may command; its own begins with this servo. One that outlives it keeps stops and leases.
    """

    def __init__(
        self, gate: Gate, period: float, sources: Sequence[str], home: np.ndarray | None = None,
        authority: Authority | None = None,
    ) -> None:  # fmt: skip
        if not sources:
            raise RobotRLError(f"the sources need names of their own, other than '{HOMING}': {tuple(sources)}")
        self.authority = gate.authority = authority or Authority(sources, gate.limits.age)
        self.gate, self.period, self.sources = gate, period, tuple(sources)
        self._home = home
        self._path: Path | None = None  # that is followed
        self._wish: Target | None = None  # not ruled on yet
        self.since = -np.inf  # the hand-over, by the stamps [s]: no wish from before it is taken
        self._fresh = True  # nothing was ruled on since
        self.not_taken = ""  # why the last wish that was offered did not take the arm over

    @property
    def leases(self) -> int:
        """The number of the newest lease."""
        return self.authority.lease

    def arm(self, source: str, state: ArmState, now: float, steady: float) -> None:
        """Give `source` a lease; raises where it may not have one. One that obeyed nobody begins where it is measured.

        Homing waits for the first heartbeat of its owner.
        """
        self.authority.watch(steady)
        if wrong := self.authority.refuses(source):
            raise RobotRLError(wrong)
        if source == HOMING and self._home is None:
            raise RobotRLError("this robot's file says no home")
        age, limits = now - state.stamp, self.gate.limits
        if not -limits.ahead <= age <= limits.age:
            raise RobotRLError(f"the arm cannot be armed: what is known of it is {age:.2f} s old")
        if self.authority.held:
            self.gate.lease(source, steady)
        else:
            self.gate.arm(state, source, steady)
        self._hand_over(now)

    def release(self, source: str) -> bool:
        """`source` lets go; whether it held the arm. The setpoint brakes, and a program may arm it again."""
        return self.authority.release(source)

    def stop(self, reason: str) -> None:
        """For good: brake, and hold the measured pose, until a person has reset it."""
        self.gate.stop(reason)

    def beat(self, lease: int, steady: float) -> bool:
        """A heartbeat of homing's owner, whose `lease` it is; whether it counts. The first one begins the way home."""
        counts = self.authority.beat(lease, steady)
        if counts and self._path is None:
            self._go_home(steady)
        return counts

    def offer(self, target: Target, now: float, steady: float) -> bool:
        """A source's newest wish; whether it will be ruled on. `not_taken` says why it did not take the arm over."""
        self.not_taken = ""
        if target.source not in self.sources:
            return False
        if not target.stamp > self.since:  # of NaN too: from before the hand-over
            return False
        if target.source != self.authority.holder and (wrong := self._hopeless(target, now)):
            self.not_taken = wrong if self.authority.interrupts(target.source) else ""
            return False
        lease = self.leases
        if not self.authority.hear(target.source, steady):
            return False
        self._wish, self._fresh = target, self._fresh or lease != self.leases
        return True

    def tick(self, state: ArmState, now: float, steady: float, quiet: bool = False) -> Ruling | None:
        """The ruling on the setpoint of this moment, a servo period after the last; None: there is nothing to send.

        `now` and `steady` as in `Gate.check`. `quiet`: the holder or the arm missed a word, so the setpoint brakes and
        rests until they speak again.
        """
        self.authority.watch(steady)
        self._watch_home(state, steady)
        if self.gate.rests:
            self.gate.look(state, now)
            return None
        wish, self._wish = self._wish, None
        if wish is not None and not self.gate.stopped:
            if self._fresh:
                self._hand_over(now)  # so that it is measured by where the arm is
                self._fresh = False
            if self.gate.refuses(wish, state, now):
                return self.gate.check(wish, state, now, steady)  # counts it, and brakes
            self._path = Path(self.gate.setpoint, wish, steady, self._duration(wish))
        if quiet and self._path is not None and not self.gate.stopped:
            here = replace(self.gate.setpoint, stamp=self._path.end.stamp if self.commanded else state.stamp)
            if self.commanded:  # time stands still on the way too
                self._path = replace(self._path, begin=self._path.begin + self.gate.period)
            else:
                self._go_home(steady + self.gate.period)  # anew, from wherever the setpoint is then
            return self.gate.check(here, state, now, steady)
        if self._path is not None and self.gate.waits:  # for the arm, or for a joint: time stands still on the way
            self._path = replace(self._path, begin=self._path.begin + self.gate.period)
        return self.gate.check(self._ahead(state, steady), state, now, steady)

    def _hopeless(self, wish: Target, now: float) -> str:
        """Why the gate would reject it whatever the arm does, a period from now at the latest: it takes no arm."""
        if wrong := target_wrong(wish):
            return wrong
        limits, age = self.gate.limits, now - wish.stamp
        if -limits.ahead <= age <= limits.age - self.gate.period:
            return ""
        return f"it comes from an observation {age:.3f} s old: {CLOCKS}"

    @property
    def commanded(self) -> bool:
        """Whether the holder, which is one of the sources, has wished for something since it took over."""
        return self._path is not None and self.gate.holder != HOMING

    def is_home(self, state: ArmState, steady: float) -> bool:
        """Whether the way home is over, and the arm is measured as near to it as a first target has to be to the arm.

        Farther away the next source would not begin where it expects to.
        """
        left = self._left(state, steady)
        return left is not None and left[0] <= self.gate.limits.near and left[1] <= self.gate.limits.near_turn

    def _left(self, state: ArmState, steady: float) -> tuple[float, float] | None:
        """What the measured arm lacks to the end of the way home [m], [rad]; None: it is not over."""
        path = self._path
        if path is None or not self.authority.held or self.gate.holder != HOMING or steady < path.over:
            return None
        return float(np.linalg.norm(path.end.position - state.position)), angle_between(
            path.end.turn, unit_quat(state.turn)
        )

    def _watch_home(self, state: ArmState, steady: float) -> None:
        """Stop an arm that has not come home long after its setpoint: in e-stop, in a reflex, held by something."""
        left = self._left(state, steady)
        if left is None or self.is_home(state, steady):
            return
        assert self._path is not None
        if (late := steady - self._path.over) > ARRIVE:
            self.stop(
                f"it did not get home: {late:.1f} s after its setpoint it is {left[0]:.3f} m and {left[1]:.2f} rad away"
            )

    def _duration(self, wish: Target) -> float:
        """Its period; or as long as it takes at full speed, where the setpoint has to catch up."""
        away, turned = self.gate.way_to(wish)
        return max(self.period, away / self.gate.limits.speed, turned / self.gate.limits.turn_speed)

    def _hand_over(self, now: float) -> None:
        self.gate.begin_anew()
        self._path, self._wish, self.since, self._fresh = None, None, now, True

    def _ahead(self, state: ArmState, steady: float) -> Target:
        """What the holder wants at this moment; to stay before its first wish, and where nobody holds."""
        if self._path is None or self.gate.stopped:
            return replace(self.gate.setpoint, stamp=state.stamp)
        target = self._path.at(steady + self.gate.period)  # where it is sent now, it is at the next tick
        return replace(target, stamp=state.stamp) if target.source == HOMING else target  # it plans from no observation

    def _go_home(self, steady: float) -> None:
        assert self._home is not None
        start = self.gate.setpoint
        end = replace(start, position=self._home[:3].copy(), turn=unit_quat(self._home[3:]))  # as its fingers are
        limits, (away, turned), duration = self.gate.limits, self.gate.way_to(end), self._duration(end) / SHARE
        ramp = max(away / limits.acceleration, turned / limits.turn_acceleration) / (SHARE * duration)
        self._path = Path(start, end, steady, duration, ramp)
