"""A small transformer: one token an action, the condition and the time as two more tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policies.mlp import TIME_DIM, time_features
from robot_rl.types import RobotRLError


@dataclass(frozen=True)
class TransformerConfig:
    """Transformer encoder over the actions of the chunk."""

    width: int = 128
    """size of a token"""
    depth: int = 4
    """layers"""
    heads: int = 4
    """attention heads; must divide the width"""
    dropout: float = 0.0
    """share dropped in attention and feed-forward layers in training"""

    def build(self, horizon: int, action_dim: int, cond_dim: int) -> Transformer:
        """The network for chunks (B, horizon, action_dim) under a condition (B, cond_dim)."""
        if self.width % self.heads:
            raise RobotRLError(f"transformer width {self.width} is no multiple of its {self.heads} heads; change one")
        return Transformer(self, horizon, action_dim, cond_dim)


class Transformer(nn.Module):
    """Chunk, time and condition in; chunk-shaped prediction out."""

    def __init__(self, config: TransformerConfig, horizon: int, action_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.action_in = nn.Linear(action_dim, config.width)
        self.cond_in = nn.Linear(cond_dim, config.width)
        self.time_in = nn.Linear(TIME_DIM, config.width)
        self.position = nn.Parameter(torch.randn(horizon + 2, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.outlet = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, action_dim))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (B, H, A), t (B,) in [0, 1], cond (B, D) to (B, H, A)."""
        context = torch.stack([self.cond_in(cond), self.time_in(time_features(t))], 1)  # (B, 2, width)
        tokens = torch.cat([context, self.action_in(x)], 1) + self.position  # (B, 2 + H, width)
        return self.outlet(self.layers(tokens)[:, 2:])
