"""A residual MLP over the flattened chunk: the fast backbone for low-dimensional states on a CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class MlpConfig:
    """Residual MLP over the whole chunk."""

    width: int = 512
    """units of every layer"""
    depth: int = 3
    """residual blocks of two layers each"""
    dropout: float = 0.0
    """share of hidden units dropped in training"""

    def build(self, horizon: int, action_dim: int, cond_dim: int) -> Mlp:
        """The network for chunks (B, horizon, action_dim) under a condition (B, cond_dim)."""
        return Mlp(self, horizon, action_dim, cond_dim)


class Mlp(nn.Module):
    """Chunk, time and condition in; chunk-shaped prediction out."""

    def __init__(self, config: MlpConfig, horizon: int, action_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(horizon * action_dim + cond_dim + TIME_DIM, config.width)
        self.blocks = nn.ModuleList([Block(config.width, config.dropout) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        self.outlet = nn.Linear(config.width, horizon * action_dim)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (B, H, A), t (B,) in [0, 1], cond (B, D) to (B, H, A)."""
        h = self.inlet(torch.cat([x.flatten(1), cond, time_features(t)], -1))  # (B, width)
        for block in self.blocks:
            h = block(h)
        return self.outlet(functional.silu(self.norm(h))).view_as(x)


class Block(nn.Module):
    """h + W2 silu(W1 silu(LayerNorm(h)))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) to (B, width)."""
        return h + self.second(self.dropout(functional.silu(self.first(functional.silu(self.norm(h))))))


TIME_DIM = 64


def time_features(t: Tensor, size: int = TIME_DIM) -> Tensor:
    """Sines and cosines of the time t (B,) in [0, 1], periods from 2 pi / 1000 to 2 pi: (B, size)."""
    frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), size // 2, device=t.device, dtype=t.dtype))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)
