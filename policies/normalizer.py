"""Min-max normalisation that lives inside the policy, so that a checkpoint needs nothing beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.types import Channel, RobotRLError

MIN_RANGE = 0.005  # of a channel's own range: a joint that hardly moved in the data must not blow up its sensor noise
# The least range whatever the data show and the Spec says, in a channel's unit: what sensors do while nothing moves.
LEAST = {"m": 1e-3, "rad": 5e-3, "px": 1.0, "N": 0.5, "Nm": 0.05, "1": 5e-3}
LEAST_UNKNOWN = 5e-3  # of a channel without a known unit, as imported ones are
ROUNDING = 64 * float(np.finfo(np.float32).eps)  # of the values' size: float32 tells no finer steps apart


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

        No range is smaller than `min_range`, a share of the channel's own where somebody declared it, nor than what
        its unit says: a range that was only seen in the data is no floor for them. So every half-range is above 0.
        """
        bad = ~np.isfinite(data).all(0)
        if bad.any():
            names = [c.name for c, b in zip(channels, bad, strict=True) if b]
            raise RobotRLError(f"the data hold NaN or infinity in {names}; run `robot-rl inspect` on the store")
        low, high = data.min(0).astype(np.float64), data.max(0).astype(np.float64)  # float32 may not hold their sum
        size = np.maximum(np.abs(low), np.abs(high))
        floor = np.maximum([least_range(c, min_range) for c in channels], ROUNDING * size)
        self.centre.copy_(torch.as_tensor((high + low) / 2))
        self.half_range.copy_(torch.as_tensor(np.maximum(high - low, floor) / 2))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in the data's units to about [-1, 1]."""
        return (x - self.centre) / self.half_range

    def inverse(self, x: Tensor) -> Tensor:
        """The inverse of `forward`."""
        return x * self.half_range + self.centre


def least_range(channel: Channel, share: float = MIN_RANGE) -> float:
    """The smallest range, in the channel's unit, that its values are stretched from; above 0."""
    declared = 0.0 if channel.seen else share * (channel.high - channel.low)
    return max(declared if np.isfinite(declared) else 0.0, LEAST.get(channel.unit, LEAST_UNKNOWN))
