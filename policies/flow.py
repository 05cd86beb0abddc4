"""Flow policy: straight paths from noise to action chunks, followed by Euler or Heun steps.

Rectified flow (Liu et al. 2022, 2209.03003), equation (1): minimise |v(x_t, t) - (x_1 - x_0)|^2 with
x_t = (1 - t) x_0 + t x_1, x_0 noise, x_1 data. Sampling integrates dx = v dt from 0 to 1: the noise determines
the chunk. Where its beginning is committed already, the estimate x_1 = x + (1 - t) v is guided by that at each step
(real-time chunking, 2506.07339; see `ChunkNet.guided`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from policies.chunk_net import BackboneConfig, ChunkNet, begun
from policies.mlp import MlpConfig
from policies.vision import VisionConfig
from robot_rl.types import RobotRLError, Spec


@dataclass(frozen=True)
class FlowConfig:
    """Rectified-flow policy."""

    horizon: int = 16
    """actions in a chunk"""
    n_obs: int = 2
    """observations of history it sees"""
    steps: int = 10
    """integration steps of a sample"""
    solver: Literal["euler", "heun"] = "euler"
    """Heun halves the error at twice the cost"""
    backbone: BackboneConfig = field(default_factory=MlpConfig)
    """network that predicts the velocity"""
    vision: VisionConfig | None = None
    """how it sees the pictures of all cameras; None: it goes by the state alone"""
    state: tuple[str, ...] | None = None
    """channels of the state that it sees, each by its name or the beginning of it; None: all"""

    def build(self, spec: Spec) -> FlowPolicy:
        """An untrained policy for the worlds of `spec`."""
        return FlowPolicy(spec, self)


class FlowPolicy(nn.Module):
    """See the module's docstring; implements `Policy`."""

    def __init__(self, spec: Spec, config: FlowConfig) -> None:
        super().__init__()
        if config.steps < 1:
            raise RobotRLError(f"flow needs at least 1 integration step, not {config.steps}")
        self.spec, self.config, self.horizon, self.n_obs = spec, config, config.horizon, config.n_obs
        self.net = ChunkNet(spec, config)
        self.n_seen, self.sees_images = self.net.n_seen, self.net.vision is not None

    @property
    def vision(self) -> nn.Module | None:
        """Its eyes, "image/<camera>" (B, To, H, W, 3) to features (B, To, F); None: it sees the state alone."""
        return self.net.vision

    def fit(self, state: np.ndarray, action: np.ndarray) -> None:
        """Set the normalisers from all states (N, S) and actions (N, A) of the data."""
        self.net.fit(state, action)

    def look(self, obs: dict[str, Tensor]) -> Tensor:
        """Rows (B, To, S + F) that can stand for "state" and pictures wherever the policy is asked or trained again."""
        return self.net.look(obs)

    def normalise(self, state: Tensor) -> Tensor:
        """Rows (..., S + F) as the policy goes by them, (..., D); what refines the policy does so too."""
        return self.net.normalise(state)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean squared velocity error of an observation (see `sample`) and "action" (B, H, A)."""
        data = self.net.action(batch["action"])
        noise = torch.randn_like(data)
        t = torch.rand(len(data), device=data.device, dtype=data.dtype)
        x = torch.lerp(noise, data, t[:, None, None])
        return (self.net(x, t, self.net.condition(batch)) - (data - noise)).square().mean()

    @torch.no_grad()
    def sample(self, obs: dict[str, Tensor], noise: Tensor | None = None, committed: Tensor | None = None) -> Tensor:
        """Actions (B, H, A) in [-1, 1] for "state" (B, To, S) and pictures; the same noise gives the same chunk.

        It begins with `committed` (B, n, A) in [-1, 1], n <= H, where given, and goes on from it. Raises `RobotRLError`
        where a shape is wrong, or the committed actions are not finite.
        """
        cond, x = self.net.condition(obs), self.net.noise_like(obs, noise)
        committed = self.net.committed_like(obs, committed)
        dt = 1.0 / self.config.steps
        for i in range(self.config.steps):
            t = torch.full((len(x),), i * dt, device=x.device, dtype=x.dtype)
            velocity = self._velocity(x, t, cond, committed)
            at_end = i + 1 == self.config.steps  # there the estimate is x itself: nothing to guide
            if self.config.solver == "heun" and (committed is None or not at_end):
                velocity = 0.5 * (velocity + self._velocity(x + dt * velocity, t + dt, cond, committed))
            x = x + dt * velocity
        return begun(self.net.actions(x), committed)

    def _velocity(self, x: Tensor, t: Tensor, cond: Tensor, committed: Tensor | None) -> Tensor:
        if committed is None:
            return self.net(x, t, cond)
        rest = (1.0 - t)[:, None, None]
        return (self.net.guided(lambda x: x + rest * self.net(x, t, cond), x, committed) - x) / rest
