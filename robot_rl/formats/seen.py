"""Channels of a recording that tells no limits: their range is the one seen in it, and marked so (`Channel.seen`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_rl.types import Channel, RobotRLError

LARGEST = 1e30  # what no robot measures, and float32 still holds
STILL = 1e-5  # of its size, or of 1 where that is smaller: a channel that moves by less does not move


def odd(values: np.ndarray) -> str:
    """What keeps `values` from being a recording, in words."""
    return f"numbers beyond {LARGEST:g}" if np.isfinite(values).all() else "NaN or infinity"


class Ranges:
    """The least and the greatest value of every channel, gathered from one episode after the other."""

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self._low = self._high = np.empty(0)

    def add(self, names: Sequence[str], values: np.ndarray, where: str) -> None:
        """Take in values (N, D) of the channels `names`; raises where those before had others."""
        if len(values) == 0:
            raise RobotRLError(f"{where} is empty: its arrays have no rows; remove it")
        if self.names is None:
            self.names, self._low, self._high = list(names), values.min(0), values.max(0)
        elif self.names != list(names):
            odd = [n for n in names if n not in self.names] + [n for n in self.names if n not in names]
            raise RobotRLError(
                f"{where} holds other numbers ({len(names)}) than what was recorded before it ({len(self.names)}): "
                f"{', '.join(odd[:6])}; split the recording, or leave it out"
            )
        self._low = np.minimum(self._low, values.min(0))
        self._high = np.maximum(self._high, values.max(0))

    def channels(self) -> tuple[Channel, ...]:
        """One that never moved gets 1 to either side."""
        low, high = self._low.astype(np.float64), self._high.astype(np.float64)
        still = high - low <= STILL * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        bounds = zip(self.names or [], (low - still).tolist(), (high + still).tolist(), strict=True)
        return tuple(Channel(name, "", a, b, seen=True) for name, a, b in bounds)
