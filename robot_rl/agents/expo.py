"""Editing and choosing: a small edit policy, and the best of edited and unedited chunks, in acting and in the backup.

EXPO (2507.07986): the base goes on learning by imitation alone; an edit policy, SAC within a narrow box, moves each of
its chunks towards higher value; what is done is the best of N chunks and their N edits,

    a = argmax Q(s, .) over {a_i, clip(a_i + e_i)},  a_i ~ base(s),  e_i ~ edit(s, a_i)
    y = sum_{k<h} gamma^k r_{t+k} + gamma^h max over the candidates at s_{t+h} of min Q' of a random pair of heads

What differs from the paper: the base imitates demonstrations, a human's steps and successful episodes, not failures
too; an edit is one offset for all actions of a chunk, as noise drawn anew for each averages out; the candidates of the
backup are drawn from the base once, when an episode is stored, and edited anew at each gradient step, as the base
changes slowly and sampling it is what costs; the discount counts control steps; targets are clipped to [0, 1];
time-outs bootstrap.
"""

from __future__ import annotations

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
    scales,
)
from robot_rl.agents.frozen import Frozen, FrozenConfig, committed, in_rows, looked, looked_along
from robot_rl.agents.student import Student
from robot_rl.replay import Batch, Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy


@dataclass(frozen=True)
class ExpoConfig:
    """Edit policy and best of 2N candidates (EXPO)."""

    execute: int = 8
    """actions of each chunk that are executed before the next decision"""
    candidates: int = 4
    """chunks of the base, each judged as it is and edited"""
    scale: float = 0.03
    """largest edit of each action dimension, held for a whole chunk, over which it adds up: of edits of 0.1 the critic,
    which has seen none, chooses those that lead away (docs/results.md, section 8)"""
    gripper_scale: float = 0.03
    """the same of a gripper's channels"""
    gamma: float = 0.99
    """discount of one control step"""
    heads: int = 5
    """critics in the ensemble"""
    width: int = 256
    """units of the hidden layers"""
    batch: int = 256
    """chunks in a gradient step"""
    demo_share: float = 0.5
    """share of demonstrations in each batch"""
    critic_only: int = 2000
    """gradient steps of the critic before edit policy and choice begin; until then the base acts alone"""
    actor_every: int = 4
    """critic steps to one step of the edit policy and one of the base's imitation"""
    learning_rate: float = 3e-4
    """of AdamW, for critics and edit policy"""
    base_learning_rate: float = 3e-4
    """of the base's imitation"""
    decay: float = 0.9995
    """of the moving average of the base's weights, which acts"""
    temperature: float = 0.01
    """weight of the edits' entropy at first; it is tuned towards `target_entropy`"""
    target_entropy: float = -1.0
    """entropy of an edit per dimension, in units of its scale [nat]; uniform edits have 0.69"""
    tau: float = 0.005
    """share by which the target critics follow at each step"""

    def build(self, policy: Policy) -> Expo:
        """The agent that edits `policy` and chooses among its chunks."""
        return Expo(policy, self)


class Expo:
    """Implements `Agent`. Until its critic-only phase is over it acts as the base, bit for bit."""

    def __init__(self, policy: Policy, config: ExpoConfig) -> None:
        ranges.require(config)
        self.config, self.policy, self.n_obs = config, policy, policy.n_obs
        self.student = Student(policy, config.base_learning_rate, config.decay)
        self.base = Frozen(self.student.averaged, FrozenConfig(config.execute))
        D, channels = policy.n_seen, policy.spec.action
        self._dim, self._edits = config.execute * len(channels), len(channels)
        self.edit = SquashedGaussian(D + self._dim, config.width, len(channels), scales(config, channels))
        self.critic = CriticEnsemble(config.heads, D + self._dim, config.width)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.temperature = Temperature(config.temperature, config.target_entropy * len(channels))
        self.student_optimizer = self.student.optimizer
        self.edit_optimizer = adamw(self.edit, config.learning_rate)
        self.critic_optimizer = adamw(self.critic, config.learning_rate)
        self.temperature_optimizer = adamw(self.temperature, config.learning_rate)
        self.updates = 0
        self._random = generator()

    def twin(self) -> Expo:
        """Another player of the same weights, with an episode of its own."""
        twin = copy(self)
        twin.base = self.base.twin()
        return twin

    def reset(self, seed: int | None = None) -> None:
        """The seed fixes the noise of the episode."""
        self.base.reset(seed)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """The best chunk (execute, A) of the candidates; edits are drawn when exploring, else their middle."""
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    @torch.no_grad()
    def decide_all(players: Sequence[Expo], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation; see `Frozen.decide_all`."""
        first = players[0]
        if first.updates <= first.config.critic_only:
            return first.base.decide_all([player.base for player in players], obs, explore=explore, rows=rows)
        n = first.config.candidates
        history = looked(first.policy, obs, rows).repeat_interleave(n, 0)
        noise = torch.cat([player.base.noise(n) for player in players])
        draws = torch.cat([torch.randn(n, first._edits, generator=player.base.exploration) for player in players])
        given = (history, noise, draws * explore, *committed(obs, n))
        chosen = in_rows(first._judged, max(rows, n), *given)  # each row: two chunks, two values
        chunks, values = chosen.split([2 * first._dim, 2], -1)
        best = values.reshape(len(players), 2 * n).argmax(1)
        chunks = chunks.reshape(len(players), 2 * n, first.config.execute, -1)
        return [Decision(chunk) for chunk in chunks[torch.arange(len(players)), best].numpy()]

    @torch.no_grad()
    def value(self, obs: Obs, actions: np.ndarray) -> float:
        """What the critics expect of the chunk `actions` (h, A)."""
        state = self.policy.normalise(looked(self.policy, [obs], 1)[:, -1])
        return float(self.critic(state, torch.from_numpy(actions).flatten()[None]).mean())

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """Chunks that the base might start at each observation: "candidates" (T + 1, N * h * A)."""
        self.base.reset(episode.meta.get("seed") or 0)
        history = np.maximum(np.arange(len(episode) + 1)[:, None] + np.arange(1 - self.n_obs, 1), 0)
        repeated = torch.from_numpy(looked_along(self.policy, episode)[history]).repeat_interleave(
            self.config.candidates, 0
        )
        return {"candidates": self.base.plan(repeated).reshape(len(history), -1).numpy()}

    def update(self, replay: Replay) -> Metrics:
        """One critic step; at every `actor_every`-th, past the critic-only phase, also edit policy and base."""
        c, p = self.config, self.policy
        batch = replay.sample(c.batch, c.demo_share, c.execute, c.gamma, self._random, history=1)
        batch["state"], batch["next/state"] = (p.normalise(batch[key]) for key in ("state", "next/state"))
        metrics = self._critic_step(batch)
        self.updates += 1
        if self.updates > c.critic_only and self.updates % c.actor_every == 0:
            metrics |= self._edit_step(batch)
            windows = replay.imitation(c.batch, p.horizon, p.n_obs, self._random)
            metrics["imitation_loss"] = self.student.step(windows, self._random)
        follow(self.target, self.critic, c.tau)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Networks, base, temperature, optimisers, counter and random generator."""
        return learned(self, LEARNED)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        restore(self, LEARNED, state)

    def _critic_step(self, batch: Batch) -> Metrics:
        target = self._td_target(batch)
        loss = self.critic.loss(batch["state"], batch["chunk"].flatten(1), target)
        descend(self.critic_optimizer, loss)
        return {"critic_loss": loss.item(), "q": target.mean().item()}

    @torch.no_grad()
    def _td_target(self, batch: Batch) -> Tensor:
        """(B,): the best of the candidates, edited and not, at the end of the chunk."""
        chunks = batch["next/extra/candidates"].unflatten(1, (-1, self._dim))  # (B, N, h * A)
        n = chunks.shape[1]
        state = batch["next/state"].repeat_interleave(n, 0)
        edited = self._edited(state, chunks.flatten(0, 1), self._normal(len(state)))[0].view_as(chunks)
        both = torch.cat([chunks, edited], 1).flatten(0, 1)
        q = self.target.lowest(batch["next/state"].repeat_interleave(2 * n, 0), both, self._random)
        return (batch["reward"] + batch["discount"] * q.view(-1, 2 * n).amax(1)).clamp(0.0, 1.0)

    def _edit_step(self, batch: Batch) -> Metrics:
        chunk = batch["extra/candidates"][:, : self._dim]
        edited, log_density = self._edited(batch["state"], chunk, self._normal(len(chunk)))
        loss = (self.temperature() * log_density - self.critic(batch["state"], edited).mean(0)).mean()
        descend(self.edit_optimizer, loss)
        descend(self.temperature_optimizer, self.temperature.loss(log_density))
        size = (edited - chunk).abs().mean().item()
        return {"actor_loss": loss.item(), "edit": size, "entropy": -log_density.mean().item()}

    def _edited(self, state: Tensor, chunk: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks (B, h * A) in the box, their gradients straight through its walls; log densities (B,) of the edits."""
        edit, log_density = self.edit(torch.cat([state, chunk], -1), draws)
        full = chunk + edit.repeat(1, self.config.execute)
        return full + (full.clamp(-1.0, 1.0) - full).detach(), log_density

    def _judged(self, history: Tensor, noise: Tensor, draws: Tensor, *begun: Tensor) -> Tensor:
        """(B, 2 * h * A + 2): the base's chunk of `noise`, its edit, and the values of both; see `committed`."""
        chunk = self.base.policy.sample({"state": history}, noise, *begun)[:, : self.config.execute].flatten(1)
        state = self.policy.normalise(history[:, -1])
        edited, _ = self._edited(state, chunk, draws)
        for ahead in begun:  # it was edited when it was planned
            n = min(ahead[0].numel(), self._dim)
            edited[:, :n] = chunk[:, :n]
        values = [self.critic(state, c).mean(0)[:, None] for c in (chunk, edited)]
        return torch.cat([chunk, edited, *values], -1)

    def _normal(self, n: int) -> Tensor:
        return torch.randn(n, self._edits, generator=self._random)


LEARNED = (
    "student", "edit", "critic", "target", "temperature",
    "student_optimizer", "edit_optimizer", "critic_optimizer", "temperature_optimizer",
)  # fmt: skip
