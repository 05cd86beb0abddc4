"""Reinforcement learning with prior data: SAC beside demonstrations, and a discrete critic for the gripper.

RLPD (2302.02948) with what HIL-SERL (2410.21845) adds for arms; half of each batch are demonstrations and human steps:

    arm      y = sum_{k<n} gamma^k r_{t+k} + gamma^n min Q'(s_{t+n}, a'),  a' ~ actor; no entropy in the backup
    gripper  y = sum_{k<n} gamma^k (r_{t+k} - penalty * toggled_{t+k})
                 + gamma^n Q'_g(s_{t+n}, argmax_g Q_g(s_{t+n}, g)),
             g in {open, close} for each gripper: a double DQN, and the penalty is in every one of its steps

Every step is decided by itself. The base policy, where there is one that does something, only plays until the
critic-only phase is over (warm start, WSRL 2412.07762); the actor starts from nothing.

What differs from HIL-SERL: there is no third choice to stay (0 is that in simulation, but half open on a robot), who
says the same again stays; n-step returns; heads drawn in pairs (REDQ); whether the fingers toggled is read from the
commands, at which a human's count too; values are clipped to [0, 1], the gripper's to [-1, 1]; time-outs bootstrap.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_rl import ranges
from robot_rl.agents.engine import (
    CriticEnsemble,
    SquashedGaussian,
    Temperature,
    adamw,
    descend,
    follow,
    generator,
    learned,
    restore,
)
from robot_rl.agents.frozen import Frozen, FrozenConfig, in_rows, looked
from robot_rl.replay import Batch, Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy


@dataclass(frozen=True)
class RlpdConfig:
    """SAC beside demonstrations (RLPD, HIL-SERL)."""

    execute: int = 8
    """actions of each of the base's chunks that are executed, as long as it plays"""
    warm_start: bool = True
    """the base plays until the critic-only phase is over; else the actor does from the first step"""
    gripper_penalty: float = 0.02
    """taken from the gripper's reward whenever its command changes between open and close"""
    gamma: float = 0.99
    """discount of one control step"""
    n_step: int = 3
    """rewards summed before bootstrapping"""
    heads: int = 10
    """critics in the ensemble"""
    width: int = 256
    """units of the hidden layers"""
    batch: int = 256
    """transitions in a gradient step"""
    demo_share: float = 0.5
    """share of demonstrations and human steps in each batch"""
    critic_only: int = 2000
    """gradient steps of the critics before the actor moves"""
    actor_every: int = 2
    """critic steps to one actor step"""
    learning_rate: float = 3e-4
    """of AdamW, for all networks"""
    temperature: float = 0.01
    """weight of the entropy at first; it is tuned towards `target_entropy`"""
    target_entropy: float = -0.5
    """entropy of the arm's action per dimension [nat]; uniform actions have 0.69"""
    tau: float = 0.005
    """share by which the target critics follow at each step"""

    def build(self, policy: Policy) -> Rlpd:
        """The agent that learns in the world of `policy`, which plays until it does."""
        return Rlpd(policy, self)


class Rlpd:
    """Implements `Agent`. With a warm start it acts as the base, bit for bit, until its critic-only phase is over."""

    def __init__(self, policy: Policy, config: RlpdConfig) -> None:
        ranges.require(config)
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.base = Frozen(policy, FrozenConfig(config.execute))
        D, grippers = policy.n_seen, ["gripper" in c.name for c in policy.spec.action]
        self._arm, self._fingers = np.flatnonzero(~np.array(grippers)), np.flatnonzero(grippers)
        options = list(itertools.product((-1.0, 1.0), repeat=len(self._fingers)))
        self._options = torch.tensor(options)  # (2^G, G): what the grippers can be told
        self.actor = SquashedGaussian(D, config.width, len(self._arm), 1.0)
        self.critic = CriticEnsemble(config.heads, D + len(self._arm), config.width)
        self.gripper = CriticEnsemble(2, D + len(self._fingers), config.width)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.gripper_target = deepcopy(self.gripper).requires_grad_(False)
        self.temperature = Temperature(config.temperature, config.target_entropy * len(self._arm))
        self.actor_optimizer = adamw(self.actor, config.learning_rate)
        self.critic_optimizer = adamw(self.critic, config.learning_rate)
        self.gripper_optimizer = adamw(self.gripper, config.learning_rate)
        self.temperature_optimizer = adamw(self.temperature, config.learning_rate)
        self.updates = 0
        self._random = generator()

    def twin(self) -> Rlpd:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base = self.base.twin()
        return twin

    def reset(self, seed: int | None = None) -> None:
        """The seed fixes the exploration of the episode."""
        self.base.reset(seed)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """One action (1, A), drawn from the actor when exploring, else its middle."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Rlpd], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        if first.config.warm_start and first.updates <= first.config.critic_only:
            return first.base.decide_all([player.base for player in players], obs, explore=explore, rows=rows)
        state = first.policy.normalise(looked(first.policy, obs, rows)[:, -1])
        n = len(first._arm)
        draws = torch.cat([torch.randn(1, n, generator=player.base.exploration) for player in players]) * explore
        action = np.zeros((len(players), 1, n + len(first._fingers)), np.float32)
        action[:, 0, first._arm] = in_rows(lambda s, e: first.actor(s, e)[0], rows, state, draws).numpy()
        action[:, 0, first._fingers] = in_rows(first._best_fingers, rows, state).numpy()
        return [Decision(a) for a in action]

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """Whether a gripper was told otherwise than it was told last: "toggled" (T + 1,)."""
        toggled = np.zeros((len(episode) + 1, len(self._fingers)), np.float32)
        for i, finger in enumerate(self._fingers):
            told = np.flatnonzero(episode.action[:, finger])  # 0 tells neither
            signs = np.sign(episode.action[told, finger])
            toggled[told[1:], i] = signs[1:] != signs[:-1]
        return {"toggled": toggled.sum(1)}

    def update(self, replay: Replay) -> Metrics:
        """One step of both critics; every `actor_every`-th also an actor step, once the critic-only phase is over."""
        c = self.config
        batch = replay.sample(c.batch, c.demo_share, c.n_step, c.gamma, self._random, summed="toggled")
        batch["state"], batch["next/state"] = (self.policy.normalise(batch[key]) for key in ("state", "next/state"))
        metrics = self._critic_step(batch)
        if len(self._fingers):
            metrics |= self._gripper_step(batch)
        self.updates += 1
        if self.updates > c.critic_only and self.updates % c.actor_every == 0:
            metrics |= self._actor_step(batch)
        follow(self.target, self.critic, c.tau)
        follow(self.gripper_target, self.gripper, c.tau)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Networks, temperature, optimisers, counter and random generator."""
        return learned(self, LEARNED)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        restore(self, LEARNED, state)

    def _critic_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        loss = self.critic.loss(batch["state"], batch["action"][:, self._arm], target)
        descend(self.critic_optimizer, loss)
        return {"critic_loss": loss.item(), "q": target.mean().item()}

    @torch.no_grad()
    def _td_target(self, batch: Batch) -> Tensor:
        """(B,), by the minimum over a random pair of target heads."""
        action, _ = self.actor(batch["next/state"], self._normal(len(batch["next/state"])))
        q = self.target.lowest(batch["next/state"], action, self._random)
        return (batch["reward"] + batch["discount"] * q).clamp(0.0, 1.0)

    def _gripper_step(self, batch: Batch) -> Metrics:
        target = self._gripper_td_target(batch)
        loss = self.gripper.loss(batch["state"], batch["action"][:, self._fingers].sign(), target)
        descend(self.gripper_optimizer, loss)
        return {"gripper_loss": loss.item()}

    @torch.no_grad()
    def _gripper_td_target(self, batch: Batch) -> Tensor:
        """(B,): double DQN, less the penalty wherever the fingers toggled."""
        best = self._best_fingers(batch["next/state"])
        q = self.gripper_target(batch["next/state"], best).amin(0)
        reward = batch["reward"] - self.config.gripper_penalty * batch["sum/toggled"]
        return (reward + batch["discount"] * q).clamp(-1.0, 1.0)

    def _best_fingers(self, state: Tensor) -> Tensor:
        """(B, G): of the options the one with the highest value."""
        n = len(self._options)
        q = self.gripper(state.repeat_interleave(n, 0), self._options.repeat(len(state), 1)).mean(0)
        return self._options[q.view(-1, n).argmax(1)]

    def _actor_step(self, batch: Batch) -> Metrics:
        action, log_density = self.actor(batch["state"], self._normal(len(batch["state"])))
        loss = (self.temperature() * log_density - self.critic(batch["state"], action).mean(0)).mean()
        descend(self.actor_optimizer, loss)
        descend(self.temperature_optimizer, self.temperature.loss(log_density))
        return {"actor_loss": loss.item(), "entropy": -log_density.mean().item()}

    def _normal(self, n: int) -> Tensor:
        return torch.randn(n, len(self._arm), generator=self._random)


LEARNED = (
    "actor", "critic", "target", "gripper", "gripper_target", "temperature",
    "actor_optimizer", "critic_optimizer", "gripper_optimizer", "temperature_optimizer",
)  # fmt: skip
