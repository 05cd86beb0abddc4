"""Min-max normalisation that lives inside the policy, so that a checkpoint needs nothing beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.types import Channel, RobotRLError

MIN_RANGE = 0.005  # of a channel's own range: a joint that hardly moved in the data must not blow up its sensor noise


class Normalizer(nn.Module):
    """Maps each channel's range in the data to [-1, 1]; a channel that never moved maps to 0."""

    centre: torch.Tensor
    half_range: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("half_range", torch.ones(size))

    def fit(self, data: np.ndarray, channels: tuple[Channel, ...], min_range: float = MIN_RANGE) -> None:
        """Learn the ranges of `data` (N, D); raises on NaN, naming the channel.

        `min_range` is the smallest range used, as a share of the channel's own: it guards against zero variance.
        """
        bad = ~np.isfinite(data).all(0)
        if bad.any():
            names = [c.name for c, b in zip(channels, bad, strict=True) if b]
            raise RobotRLError(f"the data hold NaN or infinity in {names}; run `robot-rl inspect` on the store")
        low, high = data.min(0), data.max(0)
        floor = min_range * np.array([c.high - c.low for c in channels])
        self.centre.copy_(torch.as_tensor((high + low) / 2))
        self.half_range.copy_(torch.as_tensor(np.maximum(high - low, floor) / 2))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in the data's units to about [-1, 1]."""
        return (x - self.centre) / self.half_range

    def inverse(self, x: Tensor) -> Tensor:
        """The inverse of `forward`."""
        return x * self.half_range + self.centre
