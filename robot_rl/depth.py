"""Pictures of depth, (H, W, 1) uint16: distances along the camera's axis [mm], 0 where none was measured (REP 118)."""

from __future__ import annotations

import numpy as np

FARTHEST = np.iinfo(np.uint16).max  # [mm]
BLACK = 2000  # for people's eyes [mm]


def millimetres(metres: np.ndarray) -> np.ndarray:
    """Distances (H, W) [m] as such a picture; what is no number or negative was not measured."""
    known = np.nan_to_num(metres, nan=0.0, posinf=np.inf, neginf=0.0)
    return np.clip(np.rint(1000.0 * known), 0, FARTHEST).astype(np.uint16)[..., None]


def visible(image: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) uint8 RGB for people: a colour picture as it is; of depth (..., H, W, 1) the nearer, the brighter.

    From 2 m on it is black, and so is what was not measured.
    """
    if image.dtype != np.uint16:
        return image
    shade = 255 - np.minimum(image, BLACK).astype(np.uint32) * 255 // BLACK
    return np.repeat(np.where(image == 0, 0, shade).astype(np.uint8), 3, axis=-1)
