"""Pictures of other projects' recordings as ours: uint8 RGB or depth in mm, of the size that is asked for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
from PIL import Image

from robot_rl import memory
from robot_rl.formats import guard
from robot_rl.formats.account import Account
from robot_rl.types import CameraSpec, RobotRLError

MOST_PIXELS = 2**26  # of one picture
COPIES = 2  # of an episode's pictures at a time: as they are, and as the store writes them


def sized(camera: CameraSpec, side: int | None) -> CameraSpec:
    """`camera` as it is stored: its pictures made `side` pixels high and wide, where a side is asked for."""
    if side is None:
        return camera
    if not 1 <= side <= 4096:
        raise RobotRLError(f"--image-size {side}: 1 to 4096 pixels can be stored")
    return replace(camera, height=side, width=side)


def chosen(there: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raise where a camera is asked for that the recording does not have."""
    if unknown := [name for name in names if name not in there]:
        raise RobotRLError(f"{where} has no camera '{', '.join(unknown)}'; it has: {', '.join(there) or 'none'}")
    if len(set(names)) != len(names):
        raise RobotRLError(f"--cameras {' '.join(names)} names a camera twice")


def gathered(
    found: Iterable[np.ndarray], count: int, camera: CameraSpec, where: str, account: Account | None = None
) -> np.ndarray:
    """`count` pictures, each (h, w, c), one after the other as (count, H, W, C) of `camera`, made to its size.

    The memory for them is asked for first; no more than one picture is held beside them. `account` tells where their
    sizes differ; in an array or a video they cannot.
    """
    size = COPIES * count * int(np.prod(camera.shape)) * camera.dtype.itemsize
    memory.require(size, f"{where}: {count} pictures of '{camera.name}' (smaller ones with --image-size)")
    rows, at = np.empty((count, *camera.shape), camera.dtype), 0
    for picture in islice(found, count):
        if account is not None:
            account.picture(camera, picture.shape, where)
        rows[at] = _fitted(picture, camera, f"{where}: picture {at}")
        at += 1
    if at < count:
        raise RobotRLError(f"{where}: there are {at} of {count} pictures of '{camera.name}'; copy or download it again")
    return rows


def _fitted(picture: np.ndarray, camera: CameraSpec, where: str) -> np.ndarray:
    """One picture as `camera` gives it: grey becomes RGB, its size that of the camera."""
    if picture.ndim == 2:
        picture = picture[..., None]
    if camera.depth != (picture.dtype == np.uint16 and picture.shape[-1] == 1):
        kind = "depth of 16 bits" if camera.depth else "colours of 8 bits"
        raise RobotRLError(f"{where} of '{camera.name}' is {picture.dtype} {picture.shape}, not {kind}")
    if not camera.depth and (picture.dtype != np.uint8 or picture.shape[-1] not in (1, 3, 4)):
        raise RobotRLError(f"{where} of '{camera.name}' is {picture.dtype} {picture.shape}, not (h, w, 3) uint8")
    if not camera.depth:
        picture = picture[..., :3] if picture.shape[-1] >= 3 else np.repeat(picture, 3, -1)
    if picture.shape != camera.shape:
        kind_of = cv2.INTER_NEAREST if camera.depth else cv2.INTER_AREA  # a mean of depths is a place where nothing is
        picture = cv2.resize(np.ascontiguousarray(picture), (camera.width, camera.height), interpolation=kind_of)
    return picture.reshape(camera.shape)


def decoded(data: bytes, where: str) -> np.ndarray:
    """A picture in a file's bytes (PNG, JPEG): (h, w, 3) uint8 RGB, (h, w, 1) uint8 grey or uint16 depth."""
    with guard.reading(where):
        width, height = Image.open(io.BytesIO(data)).size  # read from its header: what it would take is known before
        if width * height > MOST_PIXELS:
            raise RobotRLError(
                f"{where} is said to have {width} x {height} pixels; more than {MOST_PIXELS} are not read"
            )
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise RobotRLError(f"{where} cannot be decoded as a picture; copy or download it again")
        if picture.ndim == 2:
            return picture[..., None]
        return np.ascontiguousarray(picture[..., 2::-1])  # OpenCV's BGR(A)
