"""What a recorder makes: an episode while it runs, the lease that it belongs to, the mark that it is given. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from drivers.servo import HOMING
from robot_rl.types import ArmState, Episode, Obs

Mark = Literal["", "success", "failure", "discard"]


@dataclass(frozen=True)
class Lease:
    """Who commands the arm, as its node said last."""

    number: int = 0  # of the leases of sources that began under our eyes
    name: str = ""  # the node's own number
    source: str = ""  # that commands; "": none does
    why: str = "the arm's node says nothing"  # none does
    since: float = 0.0  # when it was first seen, by the steady clock [s]

    def then(self, stopped: str, holder: str, name: str, now: float) -> Lease:
        """The lease after the status of `now` [s]. One that the first status shows began unseen: it does not count."""
        source = "" if holder == HOMING or stopped else holder
        why = stopped or ("" if source else f"'{holder}' commands it")
        if source and self.name and (name != self.name or not self.source):
            return Lease(self.number + 1, name, source, why, now)
        return replace(self, name=name, source=source, why=why)


def lease_in(said: dict[str, str]) -> str:
    """The number of the lease that an episode is of, in the values of a status: whoever takes over in it helps."""
    return said.get("armed as", said["lease"])  # bags of before have no other number


class Take:
    """An episode while it is recorded. `here` is where the arm was measured at the last observation."""

    def __init__(self, first: Obs, here: ArmState, lease: Lease) -> None:
        self.lease, self.here, self.missed = lease, here, time.monotonic() - lease.since
        self.late_before = 0  # late ticks of earlier episodes
        self.unsolved = False  # it was, at some moment
        self.drops = 0  # ticks at which a stream had nothing new
        self.bytes = 0
        self._observations: list[Obs] = []
        self._actions: list[np.ndarray] = []
        self._intervened: list[bool] = []
        self._see(first)

    def __len__(self) -> int:
        return len(self._actions)

    def add(self, action: np.ndarray, source: str, obs: Obs, here: ArmState) -> None:
        """What `source` had the arm do (A,), and what was seen after it."""
        before, self.here = self._observations[-1], here
        self.drops += any(obs[key] <= before[key] for key in obs if key.startswith("stamp/"))
        self._actions.append(action)
        self._intervened.append(source != self.lease.source)
        self._see(obs)

    def episode(self, meta: dict[str, Any]) -> Episode:
        """All of it, without a mark."""
        action, reward = np.stack(self._actions), np.zeros(len(self), np.float32)
        cut = (np.abs(action[:, :-1]) >= 1.0).any(1)  # the gripper is at an end of its range in any case
        seen = {key: np.stack([obs[key] for obs in self._observations]) for key in self._observations[0]}
        own = {"source": self.lease.source, "lease": self.lease.name, "drops": self.drops, "mark": ""}
        own |= {"steps at the action's limit": int(cut.sum()), "missed at its beginning [s]": round(self.missed, 3)}
        intervened = np.array(self._intervened, bool)
        return Episode(seen, action, reward, reward.copy(), intervened, False, True, meta={**own, **meta})

    def _see(self, obs: Obs) -> None:
        self._observations.append(obs)
        self.bytes += sum(value.nbytes for value in obs.values())


def marked(episode: Episode, mark: Mark) -> Episode:
    """It ended there, with the task solved or spoiled for good."""
    reward = np.zeros(len(episode), np.float32)
    reward[-1] = mark == "success"
    meta = {**episode.meta, "mark": mark}
    return replace(episode, reward=reward, score=reward.copy(), terminated=True, truncated=False, meta=meta)
