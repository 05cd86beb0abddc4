"""Steering by noise: reinforcement learning chooses the noise from which a frozen diffusion or flow policy samples.

DSRL (2506.15799): the base maps noise w to a chunk a = pi(s, w) and is never touched. Two variants:

    sac  Q(s, w) by TD on the noise that was chosen; nobody knows the noise of a demonstration or of a human's hand, so
         it learns from its own decisions alone
    na   ("noise-aliased")
         Q^A(s, a) by TD on executed chunks: y = sum_{k<h} gamma^k r_{t+k} + gamma^h min Q'^A(s_{t+h}, pi(s_{t+h}, w')),
                   w' from the actor; so demonstrations and corrections teach it too
         Q(s, w)   by regression onto Q^A(s, pi(s, w)): many noises give one chunk, and all of them learn from it

and in both pi^W(w|s), a squashed Gaussian in the box [-bound, bound], by SAC on Q(s, w).

What differs from the paper: no entropy in the backup; the discount counts control steps, not chunks; rewards are 0 and
1 and targets are clipped to [0, 1]; time-outs bootstrap; in `na` Q(s, w) learns from a mixture of normal, uniform and
the actor's noise, so that it is fitted where the actor asks, and every window of h executed actions is a chunk, not
only those planned as one; in `sac` the untrained actor's noise plays until the actor moves, so that what is stored lies
in the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, Literal

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
from robot_rl.agents.frozen import Frozen, FrozenConfig, committed, in_rows, looked
from robot_rl.replay import Batch, Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy, RobotRLError


@dataclass(frozen=True)
class DsrlConfig:
    """Latent-noise steering (DSRL)."""

    variant: Literal["na", "sac"] = "na"
    """na: judge executed chunks and learn the noise's value from that; sac: judge the noise itself"""
    execute: int = 8
    """actions of each chunk that are executed before the next decision"""
    bound: float = 1.5
    """noise lies in [-bound, bound] per dimension"""
    gamma: float = 0.99
    """discount of one control step"""
    heads: int = 4
    """critics in each ensemble"""
    width: int = 256
    """units of the hidden layers"""
    batch: int = 256
    """chunks in a gradient step"""
    demo_share: float = 0.5
    """share of demonstrations in each batch; `sac` cannot use them"""
    critic_only: int = 2000
    """gradient steps of the critics before the actor moves; until then the base acts with its own noise (`na`), or with
    the untrained actor's (`sac`)"""
    learning_rate: float = 3e-4
    """of AdamW, for all networks"""
    temperature: float = 0.01
    """weight of the entropy at first; it is tuned towards `target_entropy`"""
    target_entropy: float = 0.0
    """entropy of the noise per dimension, in units of the bound [nat]; uniform noise has 0.69"""
    tau: float = 0.005
    """share by which the target critics follow at each step"""

    def build(self, policy: Policy) -> Dsrl:
        """The agent that steers `policy`."""
        return Dsrl(policy, self)


class Dsrl:
    """Implements `Agent`. As `na` it acts as the base, bit for bit, until its actor moves."""

    def __init__(self, policy: Policy, config: DsrlConfig) -> None:
        ranges.require(config)
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.base = Frozen(policy, FrozenConfig(config.execute))
        seen, A = policy.n_obs * policy.n_seen, len(policy.spec.action)
        self._noise_dim = policy.horizon * A
        self.actor = SquashedGaussian(seen, config.width, self._noise_dim, config.bound)
        self.critic = CriticEnsemble(config.heads, seen + config.execute * A, config.width)
        self.noise_critic = CriticEnsemble(config.heads, seen + self._noise_dim, config.width)
        judged = self.critic if config.variant == "na" else self.noise_critic  # by TD
        self.target = deepcopy(judged).requires_grad_(False)
        self.temperature = Temperature(config.temperature, config.target_entropy * self._noise_dim)
        self.actor_optimizer = adamw(self.actor, config.learning_rate)
        self.critic_optimizer = adamw(self.critic, config.learning_rate)
        self.noise_critic_optimizer = adamw(self.noise_critic, config.learning_rate)
        self.temperature_optimizer = adamw(self.temperature, config.learning_rate)
        self.updates = 0
        self._random = generator()

    def twin(self) -> Dsrl:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base = self.base.twin()
        return twin

    def reset(self, seed: int | None = None) -> None:
        """The seed fixes the noise of the episode."""
        self.base.reset(seed)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """A chunk (execute, A) from chosen noise; exploring or not, the noise is drawn from the actor."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Dsrl], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        if first.config.variant == "na" and first.updates <= first.config.critic_only:
            return first.base.decide_all([player.base for player in players], obs, explore=explore, rows=rows)
        history = looked(first.policy, obs, rows)
        draws = torch.cat([torch.randn(1, first._noise_dim, generator=player.base.exploration) for player in players])
        noise = in_rows(lambda h, e: first.actor(first._seen(h), e)[0], rows, history, draws)
        chunks = in_rows(first._chunk, rows, history, noise, *committed(obs))
        chunks = chunks.unflatten(1, (first.config.execute, -1)).numpy()
        if first.config.variant == "na":
            return [Decision(chunk) for chunk in chunks]
        return [
            Decision(chunk, {"noise": w.repeat(len(chunk), 0), "decision": np.arange(len(chunk)) == 0})
            for chunk, w in zip(chunks, noise[:, None].numpy(), strict=True)
        ]

    @torch.no_grad()
    def value(self, obs: Obs, actions: np.ndarray) -> float:
        """What the critics expect of the chunk `actions` (h, A); NaN as `sac`, which judges noise alone."""
        if self.config.variant == "sac":
            return math.nan
        seen = self._seen(looked(self.policy, [obs], 1))
        return float(self.critic(seen, torch.from_numpy(actions).flatten()[None]).mean())

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """Nothing: `na` learns from executed actions, and `sac` cannot say which noise would have made them."""
        if self.config.variant == "na":
            return {}
        T = len(episode)
        return {"noise": np.zeros((T + 1, self._noise_dim), np.float32), "decision": np.zeros(T + 1, bool)}

    def update(self, replay: Replay) -> Metrics:
        """One step of the critics, and of the actor once the critic-only phase is over."""
        c = self.config
        if c.variant == "na":
            batch = replay.sample(c.batch, c.demo_share, c.execute, c.gamma, self._random, history=self.n_obs)
            metrics = self._critic_step(batch) | self._noise_critic_step(batch)
            follow(self.target, self.critic, c.tau)
        else:
            if not replay.online.count("decision"):
                raise RobotRLError(
                    "dsrl as sac learns from its own decisions alone, and there are none yet: leave out "
                    "--offline-updates, or use --agent.variant na"
                )
            batch = replay.online.sample(c.batch, c.execute, c.gamma, self._random, history=self.n_obs, kind="decision")
            metrics = self._noise_td_step(batch)
            follow(self.target, self.noise_critic, c.tau)
        self.updates += 1
        if self.updates > c.critic_only:
            metrics |= self._actor_step(batch)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Networks, temperature, optimisers, counter and random generator."""
        return learned(self, LEARNED)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        restore(self, LEARNED, state)

    def _critic_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        loss = self.critic.loss(self._seen(batch["history"]), batch["chunk"].flatten(1), target)
        descend(self.critic_optimizer, loss)
        return {"critic_loss": loss.item(), "q": target.mean().item()}

    @torch.no_grad()
    def _td_target(self, batch: Batch) -> Tensor:
        """(B,), by the minimum over a random pair of target heads."""
        seen = self._seen(batch["next/history"])
        noise, _ = self.actor(seen, self._normal(len(seen)))
        judged = self._chunk(batch["next/history"], noise) if self.config.variant == "na" else noise
        q = self.target.lowest(seen, judged, self._random)
        return (batch["reward"] + batch["discount"] * q).clamp(0.0, 1.0)

    def _noise_critic_step(self, batch: Batch) -> Metrics:
        seen = self._seen(batch["history"])
        with torch.no_grad():
            noise = self._mixture(seen)
            target = self.critic(seen, self._chunk(batch["history"], noise))
        loss = (self.noise_critic(seen, noise) - target).square().mean()
        descend(self.noise_critic_optimizer, loss)
        return {"noise_critic_loss": loss.item()}

    def _noise_td_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        loss = self.noise_critic.loss(self._seen(batch["history"]), batch["extra/noise"], target)
        descend(self.noise_critic_optimizer, loss)
        return {"noise_critic_loss": loss.item(), "q": target.mean().item()}

    def _actor_step(self, batch: Batch) -> Metrics:
        seen = self._seen(batch["history"])
        noise, log_density = self.actor(seen, self._normal(len(seen)))
        temperature = self.temperature()
        loss = (temperature * log_density - self.noise_critic(seen, noise).amin(0)).mean()
        descend(self.actor_optimizer, loss)
        descend(self.temperature_optimizer, self.temperature.loss(log_density))
        return {"actor_loss": loss.item(), "entropy": -log_density.mean().item(), "temperature": temperature.item()}

    def _seen(self, history: Tensor) -> Tensor:
        """(B, To, S) to (B, To * S), as the base sees it."""
        return self.policy.normalise(history).flatten(1)

    def _chunk(self, history: Tensor, noise: Tensor, *begun: Tensor) -> Tensor:
        """(B, h * A) that the base makes of `noise` (B, H * A) and would execute; see `committed`."""
        chunk = self.policy.sample({"state": history}, noise.unflatten(1, (self.policy.horizon, -1)), *begun)
        return chunk[:, : self.config.execute].flatten(1)

    def _mixture(self, seen: Tensor) -> Tensor:
        """Noise for a batch: a third normal, a third uniform in the box, a third the actor's."""
        n = len(seen)
        uniform = self.config.bound * (2 * torch.rand(n, self._noise_dim, generator=self._random) - 1)
        kinds = torch.stack([self._normal(n), uniform, self.actor(seen, self._normal(n))[0]])
        return kinds[torch.arange(n) % 3, torch.arange(n)]

    def _normal(self, n: int) -> Tensor:
        return torch.randn(n, self._noise_dim, generator=self._random)


LEARNED = (
    "actor", "critic", "target", "noise_critic", "temperature",
    "actor_optimizer", "critic_optimizer", "noise_critic_optimizer", "temperature_optimizer",
)  # fmt: skip
