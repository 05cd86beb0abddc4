"""What cameras of ours share: the thread that waits for pictures, and looks for a lost device again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Protocol

from robot_rl.types import Frame, RobotRLError

BACK_OFF = (0.5, 5.0)  # first and longest wait before a lost camera is looked for again [s]


class OpenedDevice(Protocol):
    """A camera that is streaming, read and closed by one thread."""

    def wait(self) -> Frame | None:
        """The next picture, or None: none has come in a while; `RobotRLError` when the device is lost."""

    def close(self) -> None:
        """Give it back."""


class LiveCamera:
    """A `Camera` whose device is waited for in a thread, and looked for again when it is lost.

    `open_device` raises `RobotRLError` where there is none; the first time, that reaches the caller.
    """

    def __init__(self, open_device: Callable[[], OpenedDevice], back_off: tuple[float, float] = BACK_OFF) -> None:
        self._open_device, self._back_off = open_device, back_off
        self.reconnects = 0
        self.lost = ""
        """why there are no pictures at the moment; "" while there are"""
        self.on_frame: Callable[[], object] = _nothing
        """called by the thread when `read` has something new"""
        self._frame: Frame | None = None
        self._lock, self._closed = Lock(), Event()
        self._thread = Thread(target=self._run, args=(open_device(),), daemon=True)
        self._thread.start()

    def read(self) -> Frame | None:
        """The newest picture, none twice; None: none has come since. At once."""
        with self._lock:
            frame, self._frame = self._frame, None
        return frame

    def close(self) -> None:
        """Stop, and give the device back; one that hangs is left to the end of the process."""
        self._closed.set()
        self._thread.join(timeout=1.0)

    def _run(self, device: OpenedDevice | None) -> None:
        while device is not None:
            try:
                self._stream(device)
            except RobotRLError as error:
                self.lost = str(error)
            finally:
                device.close()
            device = self._reopened()

    def _stream(self, device: OpenedDevice) -> None:
        while not self._closed.is_set():
            if (frame := device.wait()) is None:
                continue
            with self._lock:
                self._frame = frame
            self.lost = ""
            self.on_frame()

    def _reopened(self) -> OpenedDevice | None:
        """The device, whenever it comes back; None: the camera was closed meanwhile."""
        pause, longest = self._back_off
        while not self._closed.wait(pause):
            with suppress(RobotRLError):
                device = self._open_device()
                self.reconnects += 1
                return device
            pause = min(2 * pause, longest)
        return None


def _nothing() -> None:
    pass
