"""Cameras that OpenCV opens: V4L2 ones and video files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2

from drivers.camera import LiveCamera
from robot_rl.types import Frame, RobotRLError

DEVICES = Path("/dev")
MJPG = "MJPG"
NEARLY = 0.05  # share by which a rate may differ from the one asked for: 29.97 Hz is 30


class OpencvCamera(LiveCamera):
    """A V4L2 camera by index or path, or a video file, which is played at `rate` [Hz] and over again.

    Stamped by the system's clock [s] when it is grabbed: exposure and transfer are before that, see `latency`.
    """

    def __init__(self, source: str, height: int, width: int, rate: float) -> None:
        if rate <= 0:
            raise RobotRLError(f"camera {source}: a rate of {rate} Hz takes no pictures")
        super().__init__(lambda: _Capture(source, height, width, rate))


class _Capture:
    def __init__(self, source: str, height: int, width: int, rate: float) -> None:
        self._source, self._count = source, 0
        path = DEVICES / f"video{source}" if source.isdigit() else Path(source)
        self._is_device = path.is_relative_to(DEVICES)
        _require_readable(path, self._is_device)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2 if self._is_device else cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise RobotRLError(f"camera {source} does not open: another program may have it, or it is no video")
        if self._is_device:
            self._ask_for(height, width, rate)
        self._require_size(height, width)
        if self._is_device:
            self._require_rate(rate)
        self._period, self._due = 1 / rate, time.monotonic()

    def wait(self) -> Frame:
        """The next picture; a file's when it is due."""
        if not self._is_device:
            self._keep_time()
        if not self._capture.grab() and not self._rewound():
            raise RobotRLError(f"camera {self._source} is lost: is it still plugged in?")
        stamp = time.time()
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise RobotRLError(f"camera {self._source} sent a picture that cannot be decoded")
        self._count += 1
        return Frame(stamp, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self._count)

    def close(self) -> None:
        """Give it back."""
        self._capture.release()

    def _ask_for(self, height: int, width: int, rate: float) -> None:
        """Compressed pictures first: of plain ones USB carries few. A driver takes what it can, and says nothing."""
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*MJPG))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FPS, rate)

    @property
    def _format(self) -> str:
        """How its pictures come, four letters: MJPG, YUYV ..."""
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24))
        return letters if letters.isalnum() else f"format {code:#x}"

    def _require_rate(self, rate: float) -> None:
        """As the driver says; 0 where it does not. What really comes is measured by health.py and `robot-rl check`."""
        its_rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        if its_rate > 0 and abs(its_rate - rate) > NEARLY * rate:
            its_format = self._format
            self.close()
            plain = "" if its_format == MJPG else f" It does not give {MJPG}, so USB 3 or a smaller size may help."
            raise RobotRLError(
                f"camera {self._source} gives {its_rate:g} Hz in {its_format}, and {rate:g} Hz were asked for: change "
                f"the camera's rate in the robot's file.{plain}"
            )

    def _require_size(self, height: int, width: int) -> None:
        its_width, its_height = (
            int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if (its_width, its_height) != (width, height):
            self.close()
            raise RobotRLError(
                f"camera {self._source} gives {its_width} x {its_height} pixels, and {width} x {height} were asked "
                "for: change the camera's height and width in the robot's file"
            )

    def _keep_time(self) -> None:
        self._due = max(self._due + self._period, time.monotonic())
        time.sleep(max(0.0, self._due - time.monotonic()))

    def _rewound(self) -> bool:
        return not self._is_device and self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0) and self._capture.grab()


def _require_readable(path: Path, is_device: bool) -> None:
    if not path.exists():
        there = ", ".join(sorted(str(p) for p in DEVICES.glob("video*"))) or "none"
        raise RobotRLError(f"there is no camera or video {path}; the cameras here: {there}")
    if not os.access(path, os.R_OK | os.W_OK if is_device else os.R_OK):
        remedy = "`sudo usermod -aG video $USER` and log in again, or a udev rule with GROUP and MODE"
        raise RobotRLError(f"{path} may not be opened: {remedy if is_device else 'chmod a+r it'}")
