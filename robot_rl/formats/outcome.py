"""What a recording's rewards say of success: one rule for all formats.

Read are 0 and 1 (1 is success), and -1 and 0 (0 is success, -1 a step on the way). The convention is that of the whole
recording, as an episode of zeros alone is a failure in one and a success in the other. An episode ends at its first
success, as it does in our worlds: what was recorded beyond is cut. Other rewards do not say what success is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from robot_rl.formats.account import Account
from robot_rl.types import RobotRLError

REMEDY = "Convert it, or import without success: --ignore-rewards"


@dataclass(frozen=True)
class Outcome:
    """Of one episode, up to its first success."""

    reward: np.ndarray  # (T,) float32, 1 at success
    score: np.ndarray  # (T,) float32 in [0, 1]
    terminated: bool

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True)
class Judge:
    """How a recording tells success."""

    key: str  # of its rewards; "" where it has none: no episode is a success
    lowest: float = 0.0  # the reward of a step on the way: 0, or -1

    @classmethod
    def of(cls, key: str, rewards: Iterable[np.ndarray], where: str, account: Account) -> Judge:
        """Learn the convention from the rewards (N,) of every episode; raises where it is none of the two."""
        seen, first = set[float](), list[float]()
        for values in (np.asarray(v, np.float64).reshape(-1) for v in rewards):
            seen |= set(np.unique(values)[:4].tolist()) | set(np.unique(values)[-1:].tolist())
            first += values[:1].tolist() if len(values) > 1 else []
        if not seen <= {0.0, 1.0} and not seen <= {-1.0, 0.0}:
            raise RobotRLError(
                f"{where}: {key} spans [{min(seen):.4g}, {max(seen):.4g}]; only 0 and 1 (1 is success) and -1 and 0 "
                f"(0 is success) say when a task is done. {REMEDY}"
            )
        lowest = -1.0 if -1.0 in seen else 0.0
        if first and 2 * sum(value - lowest > 0.5 for value in first) > len(first):
            raise RobotRLError(
                f"{where}: {key} is {lowest + 1:g} from the first step on, which does not say when the task was done. "
                f"{REMEDY}"
            )
        if lowest:
            account.note(f"{key} is -1 on the way and 0 at success; it was made 0 and 1")
        return cls(key, lowest)

    def outcome(self, rewards: np.ndarray, account: Account, score: np.ndarray | None = None) -> Outcome:
        """Of the rewards (T,) of every action; `score` (T,) in [0, 1] where progress is graded too."""
        return cut_at_success(np.asarray(rewards, np.float64).reshape(-1) - self.lowest > 0.5, account, score)


def none(length: int) -> Outcome:
    """Of an episode of `length` actions of which nothing is told."""
    return Outcome(np.zeros(length, np.float32), np.zeros(length, np.float32), False)


def cut_at_success(success: np.ndarray, account: Account, score: np.ndarray | None = None) -> Outcome:
    """Of an episode that was a success (T,) bool after each action; the first one ends it."""
    length = int(np.argmax(success)) + 1 if success.any() else len(success)
    account.cut(len(success) - length)
    reward = success[:length].astype(np.float32)
    graded = reward if score is None else np.asarray(score, np.float32)[:length]
    return Outcome(reward, graded.copy(), bool(reward[-1] > 0))
