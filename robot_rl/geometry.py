"""Rotations: quaternions are xyzw, matrices map tool to base, networks see the 6-D form (no Euler angles)."""

from __future__ import annotations

import math

import numpy as np

BACK = np.array([-1.0, -1.0, -1.0, 1.0])


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


def quat_product(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The rotation (4,) that turns by `first`, then by `second`."""
    x2, y2, z2, w2 = second.tolist()  # plain floats: five times as fast
    x1, y1, z1, w1 = first.tolist()
    return np.array(
        [
            w2 * x1 + x2 * w1 + y2 * z1 - z2 * y1,
            w2 * y1 - x2 * z1 + y2 * w1 + z2 * x1,
            w2 * z1 + x2 * y1 - y2 * x1 + z2 * w1,
            w2 * w1 - x2 * x1 - y2 * y1 - z2 * z1,
        ]
    )


def unit_quat(quat: np.ndarray) -> np.ndarray:
    """A quaternion (4,) brought to length 1."""
    quat = np.asarray(quat, np.float64)
    return quat / math.sqrt(quat @ quat)


def quat_inverse(quat: np.ndarray) -> np.ndarray:
    """The rotation back, of a unit quaternion (4,)."""
    return quat * BACK


def quat_from_vector(vector: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) [rad] to a unit quaternion (4,)."""
    angle = math.sqrt(vector @ vector)
    scale = 0.5 if angle < 1e-8 else math.sin(angle / 2) / angle
    return np.append(vector * scale, math.cos(angle / 2))


def vector_from_quat(quat: np.ndarray) -> np.ndarray:
    """The inverse of `quat_from_vector`, for q and -q alike; angle in [0, pi]."""
    sign = math.copysign(1.0, quat[3])
    sine = math.sqrt(quat[:3] @ quat[:3])
    scale = 2.0 if sine < 1e-8 else 2 * math.atan2(sine, sign * quat[3]) / sine
    return sign * scale * quat[:3]


def angle_between(turn: np.ndarray, other: np.ndarray) -> float:
    """Between two unit quaternions (4,) [rad]; q and -q are the same rotation."""
    x, y, z, w = quat_product(turn, quat_inverse(other)).tolist()
    return 2 * math.atan2(math.sqrt(x * x + y * y + z * z), abs(w))
