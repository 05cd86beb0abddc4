"""How good demonstrations are: how much of them is waiting, how smooth they are, where they begin, which stand out.

Everything is counted in spans: 1 is the way that a channel of the state makes in the whole store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.types import Episode, Spec

IDLE = 0.1  # spans a second: a step is idle in which no channel moves faster
ODD = 5.0  # robust standard deviations from the median, from which on an episode is worth a second look
ENOUGH = 8  # episodes; of fewer none stands out
SHOWN = 5  # episodes to look at
ALIKE = 0.2  # of the spread of its starts: a channel that ends within so little comes to rest at one place


@dataclass(frozen=True)
class Quality:
    """Of every episode, in the order of `numbers`."""

    numbers: np.ndarray  # (n,) which episodes
    length: np.ndarray  # (n,) [s]
    idle: np.ndarray  # (n,) share of the steps
    jerk: np.ndarray  # (n,) root mean square [spans/s^3]
    start: np.ndarray  # (n,) from its first observation to the nearest one of another episode [spans per channel, RMS]
    spread: float  # of the starts: how much of the states they take, mean over the channels, 0 to 1

    def lines(self) -> list[str]:
        """The summary for people."""
        parts = {"idle": 100 * self.idle, "jerk": self.jerk}
        told = {
            key: f"{v.min():.3g} / {np.median(v):.3g} / {v.max():.3g} (min / median / max)" for key, v in parts.items()
        }
        return [
            f"idle        {told['idle']} % of an episode's steps",
            f"jerk        {told['jerk']} spans/s^3, where a span is all that a channel of the state does here",
            f"starts      spread over {self.spread:.0%} of the states; to the nearest other start it is "
            f"{np.median(self.start):.3g} spans on the median, {self.start.max():.3g} at most",
        ]

    def outliers(self) -> list[str]:
        """Which episodes are worth a second look, the oddest first, and why."""
        if len(self.numbers) < ENOUGH:
            return []
        kinds = {
            "length [s]": self.length,
            "idle share": self.idle,
            "jerk": self.jerk,
            "distance of the start": self.start,
        }
        odd = {name: oddness(values) for name, values in kinds.items()}
        worst = np.max(list(odd.values()), axis=0)
        chosen = [i for i in np.argsort(-worst, kind="stable") if worst[i] > ODD]
        told = []
        for i in chosen[:SHOWN]:
            why = [f"{n} {v[i]:.3g} (median {np.median(v):.3g})" for n, v in kinds.items() if odd[n][i] > ODD]
            told.append(f"episode {self.numbers[i]}: {', '.join(why)}")
        return [*told, f"... and {len(chosen) - SHOWN} more"] if len(chosen) > SHOWN else told


def quality(episodes: Mapping[int, Episode], rate: float) -> Quality:
    """Of sound episodes by their numbers, of a store of `rate` [Hz]; there is one at least."""
    every = np.concatenate([e.obs["state"] for e in episodes.values()]).astype(np.float64)
    low, span = every.min(0), np.ptp(every, axis=0)
    moves = span > 0
    states = [(e.obs["state"].astype(np.float64) - low)[:, moves] / span[moves] for e in episodes.values()]
    starts = np.stack([s[0] for s in states])
    return Quality(
        numbers=np.array(list(episodes)),
        length=np.array([len(s) - 1 for s in states]) / rate,
        idle=np.array([_idle(s, rate) for s in states]),
        jerk=np.array([_jerk(s, rate) for s in states]),
        start=_nearest(starts),
        spread=float(np.ptp(starts, axis=0).mean()) if moves.any() else 0.0,
    )


def no_success(spec: Spec, episodes: Sequence[Episode]) -> list[str]:
    """Where no episode is a success, a line that says so, and why it may be."""
    if not episodes or any(e.success for e in episodes):
        return []
    told = {str(e.meta["success_from"]) for e in episodes if "success_from" in e.meta}
    why = []
    if told == {""}:
        why.append("the recording says nothing of success")
    elif told:
        why.append(f"what was recorded of it ({', '.join(sorted(told - {''}))}) never says so")
    if (best := max(float(e.score.max()) for e in episodes)) > 0:
        why.append(f"the best score is {best:.3g}, and 1 is success: the threshold may be too high")
    if rests := _rests(spec, episodes):
        why.append(f"most end near {', '.join(rests)}: that may be the goal of another task than {spec.world}'s")
    return [
        f"none of {len(episodes)} episodes is a success, and refiners need some ({'; '.join(why) or 'all failed'}). "
        "Check the goal, the threshold and the convention of the rewards"
    ]


def _rests(spec: Spec, episodes: Sequence[Episode]) -> list[str]:
    """Channels that end about alike in most episodes, and do not begin so."""
    if len(episodes) < ENOUGH:
        return []
    ends, starts = (np.stack([e.obs["state"][i] for e in episodes]).astype(np.float64) for i in (-1, 0))
    spread, before = (1.4826 * np.median(np.abs(v - np.median(v, 0)), 0) for v in (ends, starts))
    alike = np.flatnonzero((before > 0) & (spread < ALIKE * before))
    chosen = sorted(alike[np.argsort(spread[alike] / before[alike], kind="stable")][:SHOWN])
    return [f"{spec.state[i].name} {np.median(ends[:, i]):.4g}" for i in chosen]


def oddness(values: np.ndarray) -> np.ndarray:
    """(n,) how many robust standard deviations each lies from the median; 0 where more than half are equal."""
    off = np.abs(values - np.median(values))
    scale = 1.4826 * np.median(off)  # of a normal distribution, its standard deviation
    return off / scale if scale > 0 else np.zeros(len(values))


def _idle(state: np.ndarray, rate: float) -> float:
    return float(np.mean(np.abs(np.diff(state, axis=0)).max(1, initial=0.0) * rate < IDLE))


def _jerk(state: np.ndarray, rate: float) -> float:
    third = np.diff(state, n=3, axis=0) * rate**3
    return float(np.sqrt(np.mean(third**2))) if third.size else 0.0


def _nearest(starts: np.ndarray) -> np.ndarray:
    """(n,) of every row the distance to the nearest other one; 0 where there is no other."""
    if len(starts) < 2 or starts.shape[1] == 0:
        return np.zeros(len(starts))
    found = []
    for i, row in enumerate(starts):
        distance = np.sqrt(np.mean((starts - row) ** 2, axis=1))
        found.append(np.delete(distance, i).min())
    return np.array(found)
