"""One seed for every episode of every purpose, so that no evaluation ever starts where something was learned."""

from __future__ import annotations

from typing import Literal

from robot_rl.types import RobotRLError

PURPOSES = ("collect", "refine", "evaluate", "distil")
MOST_SEEDS, MOST_EPISODES = 1_000, 1_000_000


def episode_seed(purpose: Literal["collect", "refine", "evaluate", "distil"], seed: int, index: int) -> int:
    """A different number for each purpose, seed below 1,000 and episode below 1,000,000; it fits 32 bits."""
    if not (0 <= seed < MOST_SEEDS and 0 <= index < MOST_EPISODES):
        raise RobotRLError(f"seed {seed} must lie below {MOST_SEEDS}, and episode {index} below {MOST_EPISODES}")
    return (PURPOSES.index(purpose) * MOST_SEEDS + seed) * MOST_EPISODES + index
