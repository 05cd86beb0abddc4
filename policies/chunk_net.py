"""What diffusion and flow share: a backbone over chunks, the observation it sees, and the normaliser inside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from policies.mlp import MlpConfig
from policies.normalizer import Normalizer
from policies.transformer import TransformerConfig
from policies.unet import UnetConfig
from robot_rl.types import Channel, RobotRLError, Spec

MIN_ACTION_RANGE = 0.05  # as in ResFiT (2509.19301): 0.1 of the span of 2 that actions live in
BackboneConfig = UnetConfig | MlpConfig | TransformerConfig


class ChunkNet(nn.Module):
    """Predicts something chunk-shaped from a noisy chunk, its time and the observation history."""

    def __init__(self, spec: Spec, backbone: BackboneConfig, horizon: int, n_obs: int) -> None:
        super().__init__()
        if horizon < 1 or n_obs < 1:
            raise RobotRLError(f"horizon and n_obs must be at least 1, not {horizon} and {n_obs}")
        self.spec, self.horizon, self.n_obs = spec, horizon, n_obs
        self.state, self.action = Normalizer(len(spec.state)), Normalizer(len(spec.action))
        self.backbone = backbone.build(horizon, len(spec.action), n_obs * len(spec.state))

    def fit(self, state: np.ndarray, action: np.ndarray) -> None:
        """Set the normalisers from all states (N, S) and actions (N, A) of the data."""
        self.state.fit(state, self.spec.state)
        unit = tuple(Channel(c.name, "1", -1.0, 1.0) for c in self.spec.action)
        self.action.fit(action, unit, min_range=MIN_ACTION_RANGE)

    def condition(self, obs: dict[str, Tensor]) -> Tensor:
        """ "state" (B, To, S) to (B, To * S), normalised."""
        state = obs["state"]
        expected = (self.n_obs, len(self.spec.state))
        if tuple(state.shape[1:]) != expected:
            raise RobotRLError(f"the policy sees states (B, {expected[0]}, {expected[1]}), not {tuple(state.shape)}")
        return self.state(state).flatten(1)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (B, H, A) normalised, t (B,) in [0, 1], cond (B, D) to (B, H, A)."""
        return self.backbone(x, t, cond)

    def noise_like(self, obs: dict[str, Tensor], noise: Tensor | None) -> Tensor:
        """`noise` checked, or standard normal noise (B, H, A) where None."""
        state = obs["state"]
        shape = (len(state), self.horizon, len(self.spec.action))
        if noise is None:
            return torch.randn(shape, device=state.device, dtype=state.dtype)
        if tuple(noise.shape) != shape:
            raise RobotRLError(f"the noise must be {shape}, not {tuple(noise.shape)}")
        return noise

    def actions(self, x: Tensor) -> Tensor:
        """Normalised chunk to actions (B, H, A) in [-1, 1]."""
        return self.action.inverse(x).clamp(-1.0, 1.0)
