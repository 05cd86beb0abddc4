"""Rotations: quaternions are xyzw, matrices map tool to base, networks see the 6-D form (no Euler angles)."""

from __future__ import annotations

import numpy as np


def matrix_from_quat(quat: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) xyzw to rotation matrices (..., 3, 3); q and -q give the same matrix."""
    x, y, z, w = np.moveaxis(np.asarray(quat, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def rot6d_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) to (..., 6): the first two columns, one after the other (Zhou et al. 2019, 1812.07035)."""
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], -1)


def matrix_from_rot6d(rot6d: np.ndarray) -> np.ndarray:
    """(..., 6) to (..., 3, 3) by Gram-Schmidt; the inverse of `rot6d_from_matrix` on rotations."""
    a, b = np.asarray(rot6d, np.float64)[..., :3], np.asarray(rot6d, np.float64)[..., 3:]
    x = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b - (x * b).sum(-1, keepdims=True) * x
    y = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) to axis times angle (3,) [rad], angle in [0, pi]."""
    from_trace = np.clip((np.trace(matrix) - 1) / 2, -1, 1)
    angle = np.arccos(from_trace)
    skew = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    if angle < 1e-6:
        return 0.5 * skew
    if np.pi - angle < 1e-3:  # the skew part vanishes: take the axis from the symmetric part
        column = int(np.argmax(np.diag(matrix)))
        axis = (matrix + np.eye(3))[:, column]
        axis = axis / np.linalg.norm(axis)
        return angle * (axis if axis @ skew >= 0 else -axis)
    return angle / (2 * np.sin(angle)) * skew
