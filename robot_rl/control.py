"""The one place where actions in [-1, 1] become metres, radians and pixels, for simulation and robot alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_rl.types import Channel, RobotRLError


def to_physical(action: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """(..., A) in [-1, 1] to the units of `channels`: -1 is each channel's low, +1 its high."""
    low, high = bounds(channels)
    return low + (np.asarray(action, np.float64) + 1.0) * 0.5 * (high - low)


def to_unit(value: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """The inverse of `to_physical`; values outside a channel's range land outside [-1, 1]."""
    low, high = bounds(channels)
    return 2.0 * (np.asarray(value, np.float64) - low) / (high - low) - 1.0


def reexpressed(action: np.ndarray, was: Sequence[Channel], channels: Sequence[Channel]) -> np.ndarray:
    """Actions (..., A) of the ranges of `was` in those of `channels`, which hold them: they ask for the same."""
    if tuple((c.low, c.high) for c in was) == tuple((c.low, c.high) for c in channels):
        return action
    return np.clip(to_unit(to_physical(action, was), channels), -1.0, 1.0).astype(np.float32)


def bounds(channels: Sequence[Channel]) -> tuple[np.ndarray, np.ndarray]:
    """(A,) lows and highs in the channels' units; raises where a range is empty or not finite."""
    for c in channels:
        if not (np.isfinite(c.low) and np.isfinite(c.high) and c.low < c.high):
            raise RobotRLError(
                f"action channel '{c.name}' has the range [{c.low}, {c.high}] {c.unit}: low must be below high"
            )
    return np.array([c.low for c in channels]), np.array([c.high for c in channels])


def hold(channels: Sequence[Channel], last: np.ndarray) -> np.ndarray:
    """The action (A,) that moves nothing: no motion on channels with "delta" in their name, elsewhere that of `last`.

    `last` (A,) is what was executed last: a position stays where it is, a gripper as closed as it was told to be.
    """
    still = to_unit(np.zeros(len(channels)), channels)
    return np.where(["delta" in c.name for c in channels], still, last).astype(np.float32)


def checked(action: np.ndarray, size: int) -> np.ndarray:
    """`action` as (A,) float32 clipped to [-1, 1]; raises when its shape is wrong or it is not finite."""
    action = np.asarray(action, np.float32)
    if action.shape != (size,):
        raise RobotRLError(f"the action has shape {action.shape}; this world takes ({size},)")
    if not np.isfinite(action).all():
        raise RobotRLError(f"the action holds NaN or infinity: {action}; nothing was executed")
    return np.clip(action, -1.0, 1.0)
