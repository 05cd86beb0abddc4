"""Choosing the most familiar: of N chunks the one that is most like what was demonstrated. No reward, no critic.

TACO (2512.02834) counts by coin flips (CFN, 2306.03186): each demonstrated (observation, chunk) x is given d random
coins c in {-1, 1}; a network f with a fixed random prior learns them by regression. Where an x was seen n times its
coins average out, so that |f(x)|^2 / d is about 1 / n, and where nothing was seen the prior keeps it near 1:

    pseudo-count(x) = d / |f(x)|^2,    a = argmax pseudo-count(s, a_i) over a_i ~ base(s)

What differs from the paper: x is the normalised observation history and the executed part of the chunk, not features
inside a large policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl import ranges
from robot_rl.agents.engine import adamw, descend, generator, layer_norm_mlp, learned, restore
from robot_rl.agents.frozen import Frozen, FrozenConfig, committed, in_rows, looked
from robot_rl.replay import Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy


@dataclass(frozen=True)
class TacoConfig:
    """Choice among chunks by pseudo-count (TACO). Learns from demonstrations alone: `--steps 0 --offline-updates N`."""

    execute: int = 8
    """actions of each chunk that are executed before the next decision"""
    candidates: int = 8
    """chunks of the base to choose from"""
    coins: int = 20
    """coins of each demonstrated step"""
    width: int = 256
    """units of the hidden layers"""
    batch: int = 256
    """steps in a gradient step"""
    learning_rate: float = 1e-3
    """of AdamW"""

    def build(self, policy: Policy) -> Taco:
        """The agent that chooses among chunks of `policy`."""
        return Taco(policy, self)


class Taco:
    """Implements `Agent`. Before its first update it acts as the base, bit for bit."""

    def __init__(self, policy: Policy, config: TacoConfig) -> None:
        ranges.require(config)
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.base = Frozen(policy, FrozenConfig(config.execute))
        inlet = policy.n_obs * policy.n_seen + config.execute * len(policy.spec.action)
        self.counter = layer_norm_mlp(inlet, config.width, config.coins)  # begins at 0: all is new
        self.prior = layer_norm_mlp(inlet, config.width, config.coins).requires_grad_(False)
        nn.init.normal_(self.prior[-1].get_parameter("weight"))
        self.prior_scale = nn.BatchNorm1d(config.coins, affine=False, momentum=0.05).eval()
        self.optimizer = adamw(self.counter, config.learning_rate)
        self.updates, self._random = 0, generator()
        self._coins: tuple[Tensor, Tensor] | None = None  # demonstrated steps (N, X), their coins (N, d)

    def twin(self) -> Taco:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base = self.base.twin()
        return twin

    def reset(self, seed: int | None = None) -> None:
        """The seed fixes the noise of the episode."""
        self.base.reset(seed)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """The most familiar (execute, A) of the candidates."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Taco], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        if first.updates == 0:
            return first.base.decide_all([player.base for player in players], obs, explore=explore, rows=rows)
        n = first.config.candidates
        history = looked(first.policy, obs, rows).repeat_interleave(n, 0)
        noise = torch.cat([player.base.noise(n) for player in players])
        judged = in_rows(first._judged, max(rows, n), history, noise, *committed(obs, n)).unflatten(0, (-1, n))
        best = judged[..., -1].argmin(1)
        chunks = judged[torch.arange(len(players)), best, :-1].unflatten(1, (first.config.execute, -1))
        return [Decision(chunk) for chunk in chunks.numpy()]

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """It remembers nothing."""
        return {}

    def update(self, replay: Replay) -> Metrics:
        """One step of regression onto the coins of demonstrated steps."""
        self._coins = self._coins or self._tossed(replay)
        steps, coins = self._coins
        index = torch.randint(len(steps), (self.config.batch,), generator=self._random)
        self.prior_scale.train()
        loss = (self.flips(steps[index]) - coins[index]).square().mean()
        self.prior_scale.eval()
        descend(self.optimizer, loss)
        self.updates += 1
        return {"coin_loss": loss.item()}

    def flips(self, x: Tensor) -> Tensor:
        """f(x): (B, d). The mean of its squares is 1 over the pseudo-count."""
        return self.counter(x) + self.prior_scale(self.prior(x))

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, counter and random generator."""
        return learned(self, LEARNED)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        restore(self, LEARNED, state)
        self.prior_scale.eval()

    def _tossed(self, replay: Replay) -> tuple[Tensor, Tensor]:
        """Every demonstrated step once, and its coins: the same whenever learning starts or resumes."""
        random = torch.Generator().manual_seed(0)
        windows = replay.demos.worth_imitating(self.config.execute, self.n_obs)
        x = torch.cat([self.policy.normalise(windows["state"]).flatten(1), windows["action"].flatten(1)], -1)
        return x, 2.0 * torch.randint(2, (len(x), self.config.coins), generator=random) - 1

    def _judged(self, history: Tensor, noise: Tensor, *begun: Tensor) -> Tensor:
        """(B, h * A + 1): the base's chunk of `noise`, and how new it is; see `committed`."""
        chunk = self.base.policy.sample({"state": history}, noise, *begun)[:, : self.config.execute].flatten(1)
        x = torch.cat([self.policy.normalise(history).flatten(1), chunk], -1)
        return torch.cat([chunk, self.flips(x).square().mean(-1, keepdim=True)], -1)


LEARNED = ("counter", "prior", "prior_scale", "optimizer")
