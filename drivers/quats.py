"""Many rotations at once: unit quaternions xyzw, as in robot_rl/geometry.py, in rows."""

from __future__ import annotations

import numpy as np

BACK = np.array([-1.0, -1.0, -1.0, 1.0])  # times this the inverse


def product(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The rotations (k, 4) that turn by `first` (k, 4) or (4,), then by `second`, likewise."""
    x2, y2, z2, w2 = second.T
    x1, y1, z1, w1 = first.T
    return np.stack(
        [
            w2 * x1 + x2 * w1 + y2 * z1 - z2 * y1,
            w2 * y1 - x2 * z1 + y2 * w1 + z2 * x1,
            w2 * z1 + x2 * y1 - y2 * x1 + z2 * w1,
            w2 * w1 - x2 * x1 - y2 * y1 - z2 * z1,
        ],
        axis=-1,
    )


def turned(turns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`vectors` (k, 3) or (3,), turned by `turns` (k, 4)."""
    x, y, z, w = turns.T
    a, b, c = np.broadcast_to(vectors, (len(turns), 3)).T
    u, v, s = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
    return np.stack([a + w * u + y * s - z * v, b + w * v + z * u - x * s, c + w * s + x * v - y * u], axis=-1)


def vectors(turns: np.ndarray) -> np.ndarray:
    """Axes times angles (k, 3) [rad], of `turns` (k, 4); angles in [0, pi]."""
    sign = np.where(turns[:, 3] < 0, -1.0, 1.0)
    sine = np.sqrt((turns[:, :3] ** 2).sum(1))
    small = sine < 1e-8
    scale = np.where(small, 2.0, 2 * np.arctan2(sine, sign * turns[:, 3]) / np.where(small, 1.0, sine))
    return (sign * scale)[:, None] * turns[:, :3]
