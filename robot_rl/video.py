"""Frames to an mp4 file that every browser plays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from robot_rl.types import RobotRLError

# crf 20 is visually lossless; faststart puts the index first, so that a browser shows the first frame at once.
QUALITY = {"crf": "20", "preset": "veryfast"}
CONTAINER = {"movflags": "+faststart"}


def write_video(path: Path | str, frames: Sequence[np.ndarray], rate: float, options: dict[str, str] = QUALITY) -> None:
    """Write frames, each (H, W, 3) uint8 RGB, at `rate` [Hz] as H.264 in mp4; `path` appears whole or not at all.

    Odd sizes grow by one pixel: the format halves the colour resolution and needs even ones. `options` are x264's.
    """
    _check(path, frames, rate)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with av.open(str(temporary), "w", format="mp4", options=CONTAINER) as file:
            _encode(file, frames, rate, options)
        os.replace(temporary, path)
    except (OSError, av.error.FFmpegError) as error:
        raise RobotRLError(f"the video {path} could not be written ({error}): check the free space there") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check(path: Path | str, frames: Sequence[np.ndarray], rate: float) -> None:
    if len(frames) == 0:
        raise RobotRLError(f"there are no frames to make the video {path} of")
    if not 0 < rate <= 1000:
        raise RobotRLError(f"the video {path} cannot play at {rate} Hz: the rate must lie in (0, 1000]")
    height, width = frames[0].shape[:2]
    for i, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
            raise RobotRLError(
                f"frame {i} of {path} is {frame.dtype} {frame.shape}; it must be uint8 ({height}, {width}, 3)"
            )


def _encode(
    file: av.container.OutputContainer, frames: Sequence[np.ndarray], rate: float, options: dict[str, str]
) -> None:
    height, width = frames[0].shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    stream = file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options=options)
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    for frame in frames:
        picture = av.VideoFrame.from_ndarray(np.pad(frame, pad, mode="edge"), format="rgb24")
        file.mux(stream.encode(picture))
    file.mux(stream.encode())  # what the encoder still holds back
