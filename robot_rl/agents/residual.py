"""Residual off-policy RL: a small correction on every step of a frozen chunked policy, learned from sparse reward.

ResFiT (2509.19301): a = clip(a_base + scale * tanh(f(s, a_base)), -1, 1), f trained by TD3 with a REDQ ensemble that
judges the full action, Q(s, a), on half demonstrations and half own experience:

    y = sum_{k<n} gamma^k r_{t+k} + gamma^n min_{i in a random pair} Q'_i(s_{t+n}, a_base + residual + noise)

What differs from the paper: time-outs bootstrap (its code ends there); the base is replanned after every reset, also
while demonstrations are labelled; the executed action is what is stored; the clip passes gradients straight through,
so that a saturated dimension can still be pulled back; the loss is the mean of squares over heads; targets are clipped
to [0, 1], the range of a sparse reward that ends the episode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_rl.agents.critic import CriticEnsemble, descend, layer_norm_mlp
from robot_rl.agents.frozen import Frozen, FrozenConfig, in_rows
from robot_rl.replay import Batch, Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy, RobotRLError


@dataclass(frozen=True)
class ResidualConfig:
    """Residual off-policy RL (ResFiT)."""

    execute: int = 8
    """actions of each base chunk that are executed before the base is asked again"""
    scale: float = 0.2
    """largest correction of each action dimension"""
    gripper_scale: float = 0.2
    """the same of a gripper's channels; many grippers take only the sign of their command, and then nothing below 1 can
    turn a clear one of the base"""
    exploration: float = 0.05
    """standard deviation of the noise on the residual, in acting and in targets"""
    warm_up_noise: float = 0.1
    """base-only roll-outs before the first update add uniform noise of this size, to show the critic what actions do"""
    gamma: float = 0.99
    """discount of one control step"""
    n_step: int = 5
    """rewards summed before bootstrapping"""
    heads: int = 10
    """critics in the ensemble"""
    width: int = 256
    """units of the hidden layers of actor and critics"""
    batch: int = 256
    """transitions in a gradient step"""
    demo_share: float = 0.5
    """share of demonstrations in each batch"""
    critic_only: int = 2000
    """gradient steps of the critic before the actor moves"""
    actor_every: int = 4
    """critic steps to one actor step"""
    actor_learning_rate: float = 5e-5
    """of AdamW"""
    critic_learning_rate: float = 3e-4
    """of AdamW"""
    penalty: float = 0.1
    """weight of the mean squared residual, as a share of its scale, in the actor's loss: stay near the base where the
    critic sees no gain"""
    tau: float = 0.005
    """share by which the target critics follow at each step"""

    def build(self, policy: Policy) -> Residual:
        """The agent that refines `policy`."""
        return Residual(policy, self)


NOISE_CLIP = 0.3  # of the target smoothing (TD3, 1802.09477; the value is ResFiT's)


class Residual:
    """Implements `Agent`. Before its first update, and without exploration, it acts as the base, bit for bit."""

    def __init__(self, policy: Policy, config: ResidualConfig) -> None:
        S, A = len(policy.spec.state), len(policy.spec.action)
        if min(config.scale, config.gripper_scale) < 0 or config.heads < 2:
            raise RobotRLError(f"residual needs scales of at least 0 and at least 2 heads: {config}")
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.base = Frozen(policy, FrozenConfig(config.execute))
        self.actor = layer_norm_mlp(S + A, config.width, A)
        self.critic = CriticEnsemble(config.heads, S + A, config.width)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = torch.optim.AdamW(self.actor.parameters(), lr=config.actor_learning_rate, fused=True)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=config.critic_learning_rate, fused=True)
        scales = [config.gripper_scale if "gripper" in c.name else config.scale for c in policy.spec.action]
        self._scale = torch.tensor(scales)
        self.updates = 0
        self._random = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # follows torch.manual_seed
        self._episode_random = torch.Generator()
        self._queue: deque[np.ndarray] = deque()

    def reset(self, seed: int | None = None) -> None:
        """Start an episode with a fresh plan; the seed fixes the base's noise and the exploration."""
        self.base.reset(seed)
        self._episode_random.seed() if seed is None else self._episode_random.manual_seed(seed + 1)
        self._queue.clear()

    def twin(self) -> Residual:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base, twin._episode_random, twin._queue = self.base.twin(), torch.Generator(), deque()
        return twin

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """One action (1, A): the next of the base's chunk, corrected. Remembers "base_action" (1, A)."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Residual], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        idle = [i for i, player in enumerate(players) if not player._queue]
        if idle:
            plans = first.base.decide_all(
                [players[i].base for i in idle], [obs[i] for i in idle], explore=False, rows=rows
            )
            for i, plan in zip(idle, plans, strict=True):
                players[i]._queue.extend(plan.actions)
        base = torch.from_numpy(np.stack([player._queue.popleft() for player in players]))
        state = first.policy.normalise(torch.from_numpy(np.stack([o["state"][-1] for o in obs])))
        residual = in_rows(first._residual, rows, state, base)
        if explore:
            residual = residual + torch.cat([player._exploration(base[:1].shape) for player in players])
        action = (base + residual).clamp(-1.0, 1.0)
        return [
            Decision(a, {"base_action": b}) for a, b in zip(action[:, None].numpy(), base[:, None].numpy(), strict=True)
        ]

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """What this agent would have remembered along someone else's episode: "base_action" (T + 1, A).

        The base is replanned at the episode's start and every `execute` steps, as it would be while acting.
        """
        self.base.reset(episode.meta.get("seed") or 0)
        starts = np.arange(0, len(episode) + 1, self.config.execute)
        history = np.maximum(starts[:, None] + np.arange(1 - self.n_obs, 1), 0)
        chunks = self.base.plan(torch.from_numpy(episode.obs["state"][history]))
        return {"base_action": chunks.flatten(0, 1)[: len(episode) + 1].numpy()}

    def update(self, replay: Replay) -> Metrics:
        """One critic step; every `actor_every`-th also an actor step, once the critic-only phase is over."""
        c = self.config
        batch = replay.sample(c.batch, c.demo_share, c.n_step, c.gamma, self._random)
        batch["state"], batch["next/state"] = (self.policy.normalise(batch[key]) for key in ("state", "next/state"))
        metrics = self._critic_step(batch)
        self.updates += 1
        if self.updates > c.critic_only and self.updates % c.actor_every == 0:
            metrics |= self._actor_step(batch)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.critic.parameters()), c.tau)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, counter and random generator."""
        modules = {name: getattr(self, name).state_dict() for name in LEARNED}
        return {**modules, "updates": self.updates, "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for name in LEARNED:
            getattr(self, name).load_state_dict(state[name])
        self.updates = state["updates"]
        self._random.set_state(state["random"])

    def _critic_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        q = self.critic(batch["state"], batch["action"])  # (E, B)
        loss = (q - target).square().mean()
        descend(self.critic_optimizer, loss)
        return {"critic_loss": loss.item(), "q": q.mean().item()}

    @torch.no_grad()
    def _td_target(self, batch: Batch) -> Tensor:
        """(B,), by the minimum over a random pair of target heads."""
        base = batch["next/extra/base_action"]
        noise = torch.randn(base.shape, generator=self._random) * self.config.exploration
        residual = self._residual(batch["next/state"], base) + noise.clamp(-NOISE_CLIP, NOISE_CLIP)
        pair = torch.randperm(self.config.heads, generator=self._random)[:2]
        q = self.target(batch["next/state"], (base + residual).clamp(-1.0, 1.0), pair).amin(0)
        return (batch["reward"] + batch["discount"] * q).clamp(0.0, 1.0)

    def _actor_step(self, batch: Batch) -> Metrics:
        base = batch["extra/base_action"]
        residual = self._residual(batch["state"], base)
        full = base + residual
        full = full + (full.clamp(-1.0, 1.0) - full).detach()  # straight through the clip
        cost = (residual / self._scale.clamp(min=1e-9)).square().mean()
        loss = self.config.penalty * cost - self.critic(batch["state"], full).mean()
        descend(self.actor_optimizer, loss)
        return {"actor_loss": loss.item(), "residual": residual.abs().mean().item()}

    def _residual(self, state: Tensor, base: Tensor) -> Tensor:
        return self._scale * torch.tanh(self.actor(torch.cat([state, base], -1)))

    def _exploration(self, shape: torch.Size) -> Tensor:
        if self.updates == 0:
            return (2 * torch.rand(shape, generator=self._episode_random) - 1) * self.config.warm_up_noise
        return torch.randn(shape, generator=self._episode_random) * self.config.exploration


LEARNED = ("actor", "critic", "target", "actor_optimizer", "critic_optimizer")
