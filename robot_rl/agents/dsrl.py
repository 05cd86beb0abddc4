"""Steering by noise: reinforcement learning chooses the noise from which a frozen diffusion or flow policy samples.

DSRL-NA (2506.15799): the base maps noise w to a chunk a = pi(s, w) and is never touched. Three networks learn:

    Q^A(s, a)  by TD on executed chunks:  y = sum_{k<h} gamma^k r_{t+k} + gamma^h min Q'^A(s_{t+h}, pi(s_{t+h}, w')),
               w' from the actor; so demonstrations and corrections, whose noise nobody knows, teach it too
    Q^W(s, w)  by regression onto Q^A(s, pi(s, w)): many noises give one chunk, and all of them learn from it
    pi^W(w|s)  a squashed Gaussian in the box [-bound, bound], by SAC on Q^W

What differs from the paper: the discount counts control steps, not chunks; rewards are 0 and 1 and targets are clipped
to [0, 1]; time-outs bootstrap; Q^W learns from a mixture of normal, uniform and the actor's noise, so that it is fitted
where the actor asks; every window of h executed actions is a chunk, not only those that were planned as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.agents.critic import CriticEnsemble, descend, layer_norm_mlp
from robot_rl.agents.frozen import Frozen, FrozenConfig, in_rows
from robot_rl.replay import Batch, Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy, RobotRLError


@dataclass(frozen=True)
class DsrlConfig:
    """Latent-noise steering (DSRL-NA)."""

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
    """share of demonstrations in each batch"""
    critic_only: int = 2000
    """gradient steps of the critics before the actor moves; until then the base acts with its own noise"""
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


LOG_STD = (-5.0, 1.0)  # of the noise before it is squashed


class Dsrl:
    """Implements `Agent`. Until its actor moves it acts as the base, bit for bit."""

    def __init__(self, policy: Policy, config: DsrlConfig) -> None:
        if min(config.bound, config.temperature) <= 0 or config.heads < 2:
            raise RobotRLError(f"dsrl needs a bound and a temperature above 0 and at least 2 heads: {config}")
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.base = Frozen(policy, FrozenConfig(config.execute))
        seen, A = policy.n_obs * len(policy.spec.state), len(policy.spec.action)
        self._noise_dim = policy.horizon * A
        self.actor = layer_norm_mlp(seen, config.width, 2 * self._noise_dim)  # begins at w = bound * tanh(N(0, 1))
        self.critic = CriticEnsemble(config.heads, seen + config.execute * A, config.width)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.noise_critic = CriticEnsemble(config.heads, seen + self._noise_dim, config.width)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        rate = config.learning_rate
        self.actor_optimizer = torch.optim.AdamW(self.actor.parameters(), lr=rate, fused=True)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=rate, fused=True)
        self.noise_critic_optimizer = torch.optim.AdamW(self.noise_critic.parameters(), lr=rate, fused=True)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], lr=rate)
        self.updates = 0
        self._random = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # follows torch.manual_seed
        self._episode_random = torch.Generator()

    def twin(self) -> Dsrl:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base, twin._episode_random = self.base.twin(), torch.Generator()
        return twin

    def reset(self, seed: int | None = None) -> None:
        """The seed fixes the noise of the episode."""
        self.base.reset(seed)
        self._episode_random.seed() if seed is None else self._episode_random.manual_seed(seed + 1)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """A chunk (execute, A) from chosen noise; exploring or not, the noise is drawn from the actor."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Dsrl], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        if first.updates <= first.config.critic_only:
            return first.base.decide_all([player.base for player in players], obs, explore=explore, rows=rows)
        history = torch.from_numpy(np.stack([o["state"] for o in obs]))
        draws = torch.cat([torch.randn(1, first._noise_dim, generator=player._episode_random) for player in players])
        chunks = in_rows(lambda h, e: first._chunk(h, first._squashed(first._seen(h), e)[0]), rows, history, draws)
        return [Decision(chunk) for chunk in chunks.unflatten(1, (first.config.execute, -1)).numpy()]

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """It remembers nothing: executed actions are all it learns from."""
        return {}

    def update(self, replay: Replay) -> Metrics:
        """One step of both critics, and of the actor once the critic-only phase is over."""
        c = self.config
        batch = replay.sample(c.batch, c.demo_share, c.execute, c.gamma, self._random, history=self.n_obs)
        metrics = self._critic_step(batch) | self._noise_critic_step(batch)
        self.updates += 1
        if self.updates > c.critic_only:
            metrics |= self._actor_step(batch)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.critic.parameters()), c.tau)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Networks, temperature, optimisers, counter and random generator."""
        modules = {name: getattr(self, name).state_dict() for name in LEARNED}
        temperature = self.log_temperature.detach().clone()
        return {**modules, "log_temperature": temperature, "updates": self.updates, "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for name in LEARNED:
            getattr(self, name).load_state_dict(state[name])
        self.log_temperature.data.copy_(state["log_temperature"])
        self.updates = state["updates"]
        self._random.set_state(state["random"])

    def _critic_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        q = self.critic(self._seen(batch["history"]), batch["chunk"].flatten(1))  # (E, B)
        loss = (q - target).square().mean()
        descend(self.critic_optimizer, loss)
        return {"critic_loss": loss.item(), "q": q.mean().item()}

    @torch.no_grad()
    def _td_target(self, batch: Batch) -> Tensor:
        """(B,), by the minimum over a random pair of target heads."""
        seen = self._seen(batch["next/history"])
        noise, _ = self._squashed(seen, self._normal(len(seen)))
        pair = torch.randperm(self.config.heads, generator=self._random)[:2]
        q = self.target(seen, self._chunk(batch["next/history"], noise), pair).amin(0)
        return (batch["reward"] + batch["discount"] * q).clamp(0.0, 1.0)

    def _noise_critic_step(self, batch: Batch) -> Metrics:
        seen = self._seen(batch["history"])
        with torch.no_grad():
            noise = self._mixture(seen)
            target = self.critic(seen, self._chunk(batch["history"], noise))
        loss = (self.noise_critic(seen, noise) - target).square().mean()
        descend(self.noise_critic_optimizer, loss)
        return {"noise_critic_loss": loss.item()}

    def _actor_step(self, batch: Batch) -> Metrics:
        seen = self._seen(batch["history"])
        noise, log_density = self._squashed(seen, self._normal(len(seen)))
        temperature = self.log_temperature.exp()
        loss = (temperature.detach() * log_density - self.noise_critic(seen, noise).amin(0)).mean()
        descend(self.actor_optimizer, loss)
        surplus = -log_density.detach().mean() - self.config.target_entropy * self._noise_dim
        descend(self.temperature_optimizer, temperature * surplus)
        return {"actor_loss": loss.item(), "entropy": -log_density.mean().item(), "temperature": temperature.item()}

    def _seen(self, history: Tensor) -> Tensor:
        """(B, To, S) to (B, To * S), as the base sees it."""
        return self.policy.normalise(history).flatten(1)

    def _chunk(self, history: Tensor, noise: Tensor) -> Tensor:
        """(B, h * A) that the base makes of `noise` (B, H * A) and would execute."""
        chunk = self.policy.sample({"state": history}, noise.unflatten(1, (self.policy.horizon, -1)))
        return chunk[:, : self.config.execute].flatten(1)

    def _squashed(self, seen: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The actor's noise (B, H * A) for standard normal `draws`, and its log density (B,) in units of the bound."""
        mean, log_std = self.actor(seen).chunk(2, -1)
        log_std = log_std.clamp(*LOG_STD)
        raw = mean + log_std.exp() * draws
        normal = -0.5 * draws.square() - log_std - 0.5 * math.log(2 * math.pi)
        squash = 2 * (
            math.log(2) - raw - nn.functional.softplus(-2 * raw)
        )  # log(1 - tanh(raw)^2), without cancellation
        return self.config.bound * raw.tanh(), (normal - squash).sum(-1)

    def _mixture(self, seen: Tensor) -> Tensor:
        """Noise for a batch: a third normal, a third uniform in the box, a third the actor's."""
        n = len(seen)
        uniform = self.config.bound * (2 * torch.rand(n, self._noise_dim, generator=self._random) - 1)
        kinds = torch.stack([self._normal(n), uniform, self._squashed(seen, self._normal(n))[0]])
        return kinds[torch.arange(n) % 3, torch.arange(n)]

    def _normal(self, n: int) -> Tensor:
        return torch.randn(n, self._noise_dim, generator=self._random)


LEARNED = (
    "actor", "critic", "target", "noise_critic",
    "actor_optimizer", "critic_optimizer", "noise_critic_optimizer", "temperature_optimizer",
)  # fmt: skip
