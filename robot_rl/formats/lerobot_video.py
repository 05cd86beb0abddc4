"""The pictures of one episode in a LeRobot video, which may hold many episodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from robot_rl.formats import guard, pictures
from robot_rl.types import CameraSpec, RobotRLError


def film(
    file: Path, begin: float, rate: float, length: int, where: str, camera: CameraSpec, size: tuple[int, int]
) -> np.ndarray:
    """`length` pictures (N, H, W, 3) uint8 RGB of `camera` from the moment `begin` [s] on; every one must be there.

    They are decoded and made to the camera's size one by one; `size` is the height and width that meta/ tells.
    """
    guard.require_file(file)
    return pictures.gathered(_frames(file, begin, rate, length, where, size), length, camera, where)


def _frames(
    file: Path, begin: float, rate: float, length: int, where: str, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    found = 0
    for moment, picture in _decoded(file, begin, where, size):
        off = moment - begin - found / rate
        if off < -0.5 / rate and not found:
            continue
        if abs(off) > 0.5 / rate:
            raise RobotRLError(f"{where}: picture {found} is {off:+.3f} s off; convert the video again")
        yield picture.to_ndarray(format="rgb24")
        found += 1
    raise RobotRLError(f"{where}: the video ends after {found} of {length} pictures; download it again")


def _decoded(file: Path, begin: float, where: str, size: tuple[int, int]) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every frame from the key frame before `begin` on, and its moment [s]."""
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise RobotRLError(f"{where}: the file holds no video; copy or download it again")
            stream = container.streams.video[0]
            there = (stream.codec_context.height, stream.codec_context.width)
            if there != size:
                raise RobotRLError(f"{where}: its pictures are {there}, meta/info.json says {size}; convert it anew")
            stream.thread_type = "AUTO"
            if stream.time_base:
                container.seek(int(begin / stream.time_base), stream=stream)  # to the key frame before it
            for frame in container.decode(stream):
                if frame.time is not None:
                    yield frame.time, frame
    except (OSError, IndexError, ValueError, OverflowError, av.error.FFmpegError) as error:
        raise RobotRLError(f"{where}: the video cannot be decoded ({error}); copy or download it again") from error
