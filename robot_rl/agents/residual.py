"""Residual off-policy RL: a small correction on every step of a frozen chunked policy, learned from sparse reward.

ResFiT (2509.19301): a = clip(a_base + scale * tanh(f(s, a_base)), -1, 1), f trained by TD3 with a REDQ ensemble that
judges the full action, Q(s, a), on half demonstrations and half own experience:

    y = sum_{k<n} gamma^k r_{t+k} + gamma^n min_{i in a random pair} Q'_i(s_{t+n}, a_base + residual + noise)

What differs from the paper: time-outs bootstrap (its code ends there); the base is replanned after every reset, also
while demonstrations are labelled, and after a human's step; the executed action is what is stored; the clip passes
gradients straight through, so that a saturated dimension can still be pulled back; the loss is the mean of squares over
heads; targets are clipped to [0, 1], the range of a sparse reward that ends the episode.

With `whole_chunks` the same is done to chunks of `execute` actions: the actor gives one offset for all actions of a
chunk when it is planned, the critic judges the chunk whole, and the backup spans it with gamma^h, which is exact since
nothing is decided in between (Q-chunking, 2507.07969). Exploration is such an offset too: noise drawn anew at each step
averages out along a chunk, and shows the critic nothing of where the actor is going (docs/results.md, section 8).
`candidates` chunks are then, or for single steps too, judged by the critic at test time.

Of pictures, actor and critics see the frozen base's features; or those of eyes of their own (`eyes`), as in ResFiT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl import ranges
from robot_rl.agents.engine import (
    CriticEnsemble,
    Eyes,
    adamw,
    descend,
    follow,
    generator,
    layer_norm_mlp,
    learned,
    restore,
    scales,
)
from robot_rl.agents.frozen import Frozen, FrozenConfig, in_rows, looked, looked_along
from robot_rl.replay import Batch, Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy


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
    """standard deviation of the noise on the residual, in acting and in targets; held for a whole chunk if chunks are
    judged whole, and then much less does as much"""
    warm_up_noise: float = 0.1
    """base-only roll-outs before the first update add uniform noise of this size, to show the critic what actions do;
    held in the same way"""
    gamma: float = 0.99
    """discount of one control step"""
    n_step: int = 5
    """rewards summed before bootstrapping; with whole chunks it is `execute`"""
    whole_chunks: bool = False
    """correct whole chunks of `execute` actions, by one offset for all, and judge them whole, not single steps"""
    eyes: Literal["base", "own"] = "base"
    """what actor and critics see of pictures: the frozen base's features, or those of eyes of their own, which begin as
    the base's and learn from the critic's loss alone, and cost an encoding of each picture at every step and update"""
    candidates: int = 1
    """plans of the base among which the critic chooses when not exploring (best of N; single steps: by the plan's first
    action); practice and backup know of one"""
    bins: int = 0
    """of the critics' histograms (HL-Gauss) over [0, 1]; 0: squared error"""
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
    ramp: int = 0
    """gradient steps after those in which the correction's bound grows from 0 to its scale: what is learned from little
    data can then do little harm (Policy Decorator, ICLR 2025)"""
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
        D, A = policy.n_seen, len(policy.spec.action)
        ranges.require(config)
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.base = Frozen(policy, FrozenConfig(config.execute))
        self.corrects_steps = not config.whole_chunks  # `plan` and `correct` then do in two parts what `decide` does
        self._span = config.execute if config.whole_chunks else 1  # actions that are corrected and judged together
        self.actor = layer_norm_mlp(D + self._span * A, config.width, A)
        self.critic = CriticEnsemble(config.heads, D + self._span * A, config.width, config.bins)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = adamw(self.actor, config.actor_learning_rate)
        self.eyes = Eyes(policy) if config.eyes == "own" else None
        self.learns_from_images = self.eyes is not None  # then its replay must keep them
        judging = self.critic if self.eyes is None else nn.ModuleList([self.critic, self.eyes])
        self.critic_optimizer = adamw(judging, config.critic_learning_rate)
        self._scale = scales(config, policy.spec.action)
        self.updates = 0
        self._random = generator()
        self._queue: deque[np.ndarray] = deque()

    def reset(self, seed: int | None = None) -> None:
        """Start an episode with a fresh plan; the seed fixes the base's noise and the exploration."""
        self.base.reset(seed)
        self._queue.clear()

    def twin(self) -> Residual:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base, twin._queue = self.base.twin(), deque()
        return twin

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """The next action (1, A) of the base's chunk, or the whole of it (h, A), corrected.

        Single steps remember "base_action" (1, A).
        """
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Residual], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        for player, seen in zip(players, obs, strict=True):
            if seen.get("intervened"):
                player._queue.clear()  # planned before a human acted
        idle = [i for i, player in enumerate(players) if not player._queue]
        if idle:
            plans = first._plans([players[i] for i in idle], [obs[i] for i in idle], explore, rows)
            for i, plan in zip(idle, plans, strict=True):
                players[i]._queue.extend(plan)
        base = torch.from_numpy(np.stack([[p._queue.popleft() for _ in range(first._span)] for p in players]))
        return first._corrected(players, obs, base, explore, rows)

    def plan(self, obs: Obs, *, explore: bool) -> np.ndarray:
        """The base's next chunk (h, A), uncorrected: what `decide` asks for when its last one is played."""
        with torch.no_grad():
            return self._plans([self], [obs], explore, 1)[0]

    def correct(self, obs: Obs, base_action: np.ndarray, *, explore: bool) -> Decision:
        """What `decide` makes at `obs` of one action (A,) of the base's chunk: (1, A), with "base_action" (1, A)."""
        base = torch.from_numpy(np.asarray(base_action, np.float32))[None, None]
        with torch.no_grad():
            return self._corrected([self], [obs], base, explore, 1)[0]

    def _corrected(
        self, players: Sequence[Residual], obs: Sequence[Obs], base: Tensor, explore: bool, rows: int
    ) -> list[Decision]:
        """The decisions of `players` on the base's actions (B, span, A)."""
        state = self._seen(obs, rows)
        residual = in_rows(self._residual, rows, state, base.flatten(1))
        if explore:
            residual = residual + torch.cat([player._exploration(1) for player in players])
        action = (base.flatten(1) + residual).clamp(-1.0, 1.0).view(base.shape).numpy()
        if self.config.whole_chunks:
            for chunk, seen in zip(action, obs, strict=True):
                ahead = seen.get("committed", chunk[:0])[: len(chunk)]
                chunk[: len(ahead)] = ahead  # it was corrected when it was planned
            return [Decision(a) for a in action]
        return [Decision(a, {"base_action": b}) for a, b in zip(action, base.numpy(), strict=True)]

    def _plans(self, players: list[Residual], obs: list[Obs], explore: bool, rows: int) -> list[np.ndarray]:
        """A plan (h, A) of the base for each player: its first one, or the one the critic likes best."""
        if explore or self.config.candidates == 1 or self.updates <= self.config.critic_only:
            decisions = self.base.decide_all([player.base for player in players], obs, explore=False, rows=rows)
            return [decision.actions for decision in decisions]
        state = self._seen(obs, rows)
        plans, values = [], []
        for _ in range(self.config.candidates):
            decisions = self.base.decide_all([player.base for player in players], obs, explore=False, rows=rows)
            plans.append(torch.from_numpy(np.stack([decision.actions for decision in decisions])))
            values.append(in_rows(self._value, rows, state, plans[-1][:, : self._span].flatten(1)))
        best = torch.stack(values).argmax(0)
        return list(torch.stack(plans)[best, torch.arange(len(players))].numpy())

    @torch.no_grad()
    def value(self, obs: Obs, actions: np.ndarray) -> float:
        """What the critics expect of the chunk `actions` (h, A); of single steps, of its first one when corrected."""
        state, action = self._seen([obs], 1), torch.from_numpy(actions[: self._span]).flatten()[None]
        return float(self._value(state, action) if self.corrects_steps else self.critic(state, action).mean())

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """What this agent would have remembered along someone else's episode: "base_action" (T + 1, A).

        The base is replanned at the episode's start and every `execute` steps, as it would be while acting; for whole
        chunks at every step, since any can be the first of one: (T + 1, h * A).
        """
        self.base.reset(episode.meta.get("seed") or 0)
        starts = np.arange(0, len(episode) + 1, self.config.execute // self._span)
        history = np.maximum(starts[:, None] + np.arange(1 - self.n_obs, 1), 0)
        chunks = self.base.plan(torch.from_numpy(looked_along(self.policy, episode)[history]))
        flat = chunks.flatten(1) if self.config.whole_chunks else chunks.flatten(0, 1)
        return {"base_action": flat[: len(episode) + 1].numpy()}

    def update(self, replay: Replay) -> Metrics:
        """One critic step; every `actor_every`-th also an actor step, once the critic-only phase is over."""
        c = self.config
        steps = c.execute if c.whole_chunks else c.n_step
        batch = replay.sample(c.batch, c.demo_share, steps, c.gamma, self._random, history=int(c.whole_chunks))
        batch["state"], batch["next/state"] = (self.policy.normalise(batch[key]) for key in ("state", "next/state"))
        if self.eyes is not None:
            batch["state"], batch["next/state"] = self.eyes.look(batch, self._random)
        if c.whole_chunks:
            batch["action"] = batch["chunk"].flatten(1)
        metrics = self._critic_step(batch)
        self.updates += 1
        if self.updates > c.critic_only and self.updates % c.actor_every == 0:
            metrics |= self._actor_step(batch)
        follow(self.target, self.critic, c.tau)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, counter and random generator."""
        return learned(self, self._learned)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        restore(self, self._learned, state)

    @property
    def _learned(self) -> tuple[str, ...]:
        return LEARNED if self.eyes is None else (*LEARNED, "eyes")

    def _seen(self, obs: Sequence[Obs], rows: int) -> Tensor:
        """(B, D): what actor and critics see of the newest observations."""
        newest = [{key: o[key][-1:] for key in o if key == "state" or key.startswith("image/")} for o in obs]
        seen = self.policy.normalise(looked(self.policy, newest, rows)[:, -1])
        if self.eyes is None:
            return seen
        keys = [key for key in newest[0] if key != "state"]
        pictures = [torch.from_numpy(np.concatenate([o[key] for o in newest])) for key in keys]
        eyes = self.eyes
        return in_rows(lambda s, *p: eyes(s, dict(zip(keys, p, strict=True))), rows, seen, *pictures)

    def _critic_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        loss = self.critic.loss(batch["state"], batch["action"], target)
        descend(self.critic_optimizer, loss)
        return {"critic_loss": loss.item(), "q": target.mean().item()}

    @torch.no_grad()
    def _td_target(self, batch: Batch) -> Tensor:
        """(B,), by the minimum over a random pair of target heads."""
        base = batch["next/extra/base_action"]
        noise = torch.randn(len(base), len(self._scale), generator=self._random) * self.config.exploration
        noise = noise.clamp(-NOISE_CLIP, NOISE_CLIP).repeat(1, self._span)
        residual = self._residual(batch["next/state"], base) + noise
        q = self.target.lowest(batch["next/state"], (base + residual).clamp(-1.0, 1.0), self._random)
        return (batch["reward"] + batch["discount"] * q).clamp(0.0, 1.0)

    def _actor_step(self, batch: Batch) -> Metrics:
        base, state = batch["extra/base_action"], batch["state"].detach()  # the critic alone trains the eyes
        residual = self._residual(state, base)
        full = base + residual
        full = full + (full.clamp(-1.0, 1.0) - full).detach()  # straight through the clip
        cost = (residual / self._scale.repeat(self._span).clamp(min=1e-9)).square().mean()
        loss = self.config.penalty * cost - self.critic(state, full).mean()
        descend(self.actor_optimizer, loss)
        return {"actor_loss": loss.item(), "residual": residual.abs().mean().item()}

    def _residual(self, state: Tensor, base: Tensor) -> Tensor:
        """(B, span * A): the actor's offset, on each action that is judged together."""
        past = self.updates - self.config.critic_only
        share = min(max(past / self.config.ramp, 0.0), 1.0) if self.config.ramp else 1.0
        offset = share * self._scale * torch.tanh(self.actor(torch.cat([state, base], -1)))
        return offset.repeat(1, self._span)

    def _value(self, state: Tensor, base: Tensor) -> Tensor:
        """(B,) of the base's actions once they are corrected."""
        return self.critic(state, (base + self._residual(state, base)).clamp(-1.0, 1.0)).mean(0)

    def _exploration(self, n: int) -> Tensor:
        """(n, span * A): likewise one offset."""
        shape = (n, len(self._scale))
        if self.updates == 0:
            noise = (2 * torch.rand(shape, generator=self.base.exploration) - 1) * self.config.warm_up_noise
        else:
            noise = torch.randn(shape, generator=self.base.exploration) * self.config.exploration
        return noise.repeat(1, self._span)


LEARNED = ("actor", "critic", "target", "actor_optimizer", "critic_optimizer")
