"""Who may command the arm: the state model of stop, arm, lease, homing and reset. Pure; the gate and the servo obey it.

| state | the setpoint | left by |
|---|---|---|
| `idle`: never armed, let go by its holder, or reset | brakes, then rests | `arm` by a program or a person; a stop |
| `armed`: the holder has a lease, and has said nothing yet | stays | the holder's first word; a release; a stop |
| `commanded`: the holder is followed | moves | a release; a stop |
| `stopped`: latched | brakes, then rests | `reset`, which only a person calls: to `idle` |

A word of a source is a wish, a word of homing is its owner's heartbeat. Whoever is silent for too long is stopped.
While somebody holds the arm only a source that goes before may take it, by `arm` or by a word; homing is last, and is
not ended by words of the last source, whose programs call it. Every change of holder is a new lease with a higher
number. Any event not named changes nothing. docs/robot.md draws it, and tests/test_authority.py enumerates it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from drivers.sound import SENTENCE, excerpt
from robot_rl.types import RobotRLError

State = Literal["idle", "armed", "commanded", "stopped"]
HOMING = "homing"  # the arm's own source, after all others
FIRST_WORD = 10.0  # so long may a new holder say nothing [s]: it plans, loads, waits for a hand
REMEDY = "only a person may change that, once it is safe: `python -m drivers.reset_arm`, or the service `reset`"


class Authority:
    """One holder at a time, its lease, and why nobody holds. `steady` is the steady clock's time [s].

    `sources` are in order of right of way; where none are given, whoever is armed last holds. `age`: the longest
    silence of a holder that commands [s]. `lease`: the number that the first lease follows.
    """

    def __init__(self, sources: Sequence[str] = (), age: float = math.inf, lease: int = 0) -> None:
        if HOMING in sources or len(set(sources)) < len(sources):
            raise RobotRLError(f"the sources need names of their own, other than '{HOMING}': {tuple(sources)}")
        self.sources, self.age, self.lease = tuple(sources), age, lease
        self.armed_as = lease  # the number of the last lease that began by `arm`, and not by right of way
        self.state: State = "idle"
        self.reason = "it was never armed"  # why nobody may command; "": the holder may
        self.holder = ""  # the last one, where nobody holds
        self.explain: Callable[[], str] = lambda: ""
        """what whoever watches knows of why a holder is silent, in words"""
        self._heard = -math.inf  # when the holder got its lease or said its last word [s]

    @property
    def latched(self) -> bool:
        """Whether nobody may arm it until a person has reset it."""
        return self.state == "stopped"

    @property
    def held(self) -> bool:
        """Whether somebody has a lease."""
        return self.state in ("armed", "commanded")

    def silence(self, steady: float) -> float:
        """How long the holder has said nothing [s]; 0 where nobody holds."""
        return steady - self._heard if self.held else 0.0

    def refuses(self, source: str) -> str:
        """Why `source` may not be armed now; "": it may."""
        if self.sources and source not in (*self.sources, HOMING):
            return f"'{source}' may not command this arm; {', '.join(self.sources)} may"
        if self.latched:
            return f"the arm is stopped: {self.reason}; {REMEDY}"
        if self.sources and self.held and not self._goes_before(source):
            return f"'{self.holder}' commands the arm already; `{self.holder}/release` ends that"
        return ""

    def arm(self, source: str, steady: float) -> None:
        """Give `source` a lease; raises where it may not have one."""
        if wrong := self.refuses(source):
            raise RobotRLError(wrong)
        self._give(source, steady)
        self.armed_as = self.lease

    def hear(self, source: str, steady: float) -> bool:
        """A word of `source`; whether it is the holder, by now."""
        if not self.held:
            return False
        if source != self.holder:
            if not self.interrupts(source):
                return False
            self._give(source, steady)
        self.state, self._heard = "commanded", steady
        return True

    def interrupts(self, source: str) -> bool:
        """Whether a word of `source` takes the arm from its holder; from homing not of the last source, whose programs
        homing is for."""
        if not self.held or source not in self.sources:
            return False
        return self._goes_before(source) and not (self.holder == HOMING and source == self.sources[-1])

    def beat(self, lease: int, steady: float) -> bool:
        """A heartbeat of the owner of homing, for `lease`; whether it counts."""
        return self.holder == HOMING and lease == self.lease and self.hear(HOMING, steady)

    def watch(self, steady: float) -> None:
        """Stop where the holder is silent; to be called at every tick, whatever else happens."""
        silence = self.silence(steady)
        if self.state == "commanded" and silence > self.age:
            whose = "the heartbeat of homing's owner" if self.holder == HOMING else f"'{self.holder}'"
            why = f": {known}" if (known := self.explain()) else ""
            self.stop(f"{whose} is silent for {silence:.2f} s{why}")
        elif self.state == "armed" and silence > FIRST_WORD:
            what = f"no heartbeat on {HOMING}/heartbeat" if self.holder == HOMING else "nothing"
            self.stop(f"'{self.holder}' was armed, and {what} came from it for {silence:.0f} s")

    def release(self, source: str) -> bool:
        """`source` lets go; whether it held the arm. It may be armed again by a program."""
        if not self.held or source != self.holder:
            return False
        self.state, self.reason = "idle", f"'{source}' let go of it"
        return True

    def stop(self, reason: str) -> None:
        """For good, until `reset`. The first reason stays."""
        if not self.latched:
            self.state, self.reason = "stopped", excerpt(reason, SENTENCE) or "for no reason that was given"

    def add(self, reason: str) -> None:
        """What a person who is to reset it has to know beside the first reason."""
        if self.latched and reason not in self.reason:
            self.reason = f"{reason}; before that: {self.reason}"

    def reset(self) -> bool:
        """A person says that the arm may be armed again; whether it was latched. Nothing else changes."""
        if not self.latched:
            return False
        self.state, self.reason = "idle", "it was reset, and nobody has armed it since"
        return True

    def _give(self, source: str, steady: float) -> None:
        self.state, self.reason, self.holder, self._heard = "armed", "", source, steady
        self.lease += 1

    def _goes_before(self, source: str) -> bool:
        """Whether `source` may take the arm from its holder by being armed."""
        ranks = [*self.sources, HOMING]
        return source in ranks and self.holder in ranks and ranks.index(source) < ranks.index(self.holder)
