"""Learning from corrections: the base goes on imitating what a human did when it went wrong, and its own successes.

HG-DAgger (1810.02890) aggregates the steps at which the human took over; Hi-ORS (2510.26406) keeps of the policy's own
episodes those that were rewarded. Both are imitation: there is no critic, and nothing that could overestimate.

    loss = imitation loss on the union of demonstrations, own successes and the human's steps, each step weighted

What differs: weights are how often a step is drawn; of an episode in which a human helped, the human's steps count,
and where it succeeded the robot's after the last help; a moving average of the weights acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robot_rl import ranges
from robot_rl.agents.engine import generator, learned, restore
from robot_rl.agents.frozen import Frozen, FrozenConfig
from robot_rl.agents.student import Student
from robot_rl.replay import Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy


@dataclass(frozen=True)
class CorrectionsConfig:
    """Imitating corrections and own successes (HG-DAgger, Hi-ORS)."""

    execute: int = 8
    """actions of each chunk that are executed before the next decision"""
    human_weight: float = 2.0
    """how often a human's step is drawn, against one of a demonstration"""
    success_weight: float = 1.0
    """how often a step of an own successful episode is drawn, against one of a demonstration"""
    batch: int = 128
    """windows in a gradient step"""
    learning_rate: float = 3e-4
    """of AdamW"""
    decay: float = 0.9995
    """of the moving average of the weights, which acts"""

    def build(self, policy: Policy) -> Corrections:
        """The agent that goes on training a copy of `policy`."""
        return Corrections(policy, self)


class Corrections:
    """Implements `Agent`. Before its first update it acts as the base, bit for bit."""

    def __init__(self, policy: Policy, config: CorrectionsConfig) -> None:
        ranges.require(config)
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.student = Student(policy, config.learning_rate, config.decay)
        self.optimizer = self.student.optimizer
        self.base = Frozen(self.student.averaged, FrozenConfig(config.execute))
        self.updates, self._random = 0, generator()

    def twin(self) -> Corrections:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base = self.base.twin()
        return twin

    def reset(self, seed: int | None = None) -> None:
        """The seed fixes the noise of the episode."""
        self.base.reset(seed)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """A chunk (execute, A)."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(
        players: Sequence[Corrections], obs: Sequence[Obs], *, explore: bool, rows: int = 1
    ) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        return Frozen.decide_all([player.base for player in players], obs, explore=explore, rows=rows)

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """It remembers nothing: executed actions are all it learns from."""
        return {}

    def update(self, replay: Replay) -> Metrics:
        """One imitation step."""
        c, p = self.config, self.policy
        windows = replay.imitation(
            c.batch,
            p.horizon,
            p.n_obs,
            self._random,
            success_weight=c.success_weight,
            human_weight=c.human_weight,
        )
        self.updates += 1
        return {"imitation_loss": self.student.step(windows, self._random)}

    def state_dict(self) -> dict[str, Any]:
        """Both copies of the policy, optimiser, counter and random generator."""
        return learned(self, LEARNED)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        restore(self, LEARNED, state)


LEARNED = ("student", "optimizer")
