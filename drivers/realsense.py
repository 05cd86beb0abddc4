"""RealSense cameras: their colour or their depth stream, through pyrealsense2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np

from drivers.camera import BACK_OFF, LiveCamera
from robot_rl.depth import millimetres
from robot_rl.types import Frame, RobotRLError

SILENCE = 3.0  # a camera that streams and shows nothing for so long is lost [s]; the first picture may take two
PATIENCE = 0.1  # one wait for a picture [s]


class RealSenseCamera(LiveCamera):
    """The camera of that serial number, or the only one where it is ""; its colours, or its `depth`.

    Stamped with the moment of exposure on the system's clock [s], where the camera keeps that time (`global_time`),
    else with that of arrival. `devices` lists what is plugged in, as pyrealsense2 devices.
    """

    def __init__(
        self,
        serial: str,
        height: int,
        width: int,
        rate: float,
        devices: Callable[[], Iterable[Any]] | None = None,
        back_off: tuple[float, float] = BACK_OFF,
        depth: bool = False,
    ) -> None:
        self._rs = _library()
        self._devices = devices or (lambda: self._rs.context().query_devices())
        self._mode = height, width, rate, depth
        self.serial = serial
        super().__init__(self._open, back_off)

    def _open(self) -> _Stream:
        try:
            device = _chosen(self._rs, self._devices(), self.serial)
            self.serial = _serial_of(self._rs, device)  # after a replug it must be the same one
            return _Stream(self._rs, device, *self._mode)
        except RuntimeError as error:
            raise RobotRLError(f"a RealSense camera does not start: {error}; does another program have it?") from error


class _Stream:
    """One camera's sensor that is streaming into a queue of one picture, the newest."""

    def __init__(self, rs: ModuleType, device: Any, height: int, width: int, rate: float, depth: bool) -> None:
        self._rs, self._name = rs, f"RealSense {_serial_of(rs, device)}"
        self._device = device  # the sensor lives no longer than its device
        self._depth = depth
        self._sensor, profile = self._find(height, width, rate)
        self._queue = rs.frame_queue(1)
        if self._sensor.supports(rs.option.global_time_enabled):
            self._sensor.set_option(rs.option.global_time_enabled, 1)
        self._sensor.open(profile)
        self._sensor.start(self._queue)
        self._last = time.monotonic()

    def wait(self) -> Frame | None:
        """The next picture, or None: none in 0.1 s; an error when none has come for `SILENCE`."""
        try:
            came, frame = self._queue.try_wait_for_frame(int(1000 * PATIENCE))
            arrival = time.time()
            if came:
                self._last = time.monotonic()
                return Frame(self._stamp(frame, arrival), self._image(frame), frame.get_frame_number())
        except RuntimeError as error:
            raise RobotRLError(f"{self._name} is lost: {error}") from error
        if time.monotonic() - self._last > SILENCE:
            raise RobotRLError(f"{self._name} is lost: no picture for {SILENCE:g} s; is it still plugged in?")
        return None

    def close(self) -> None:
        """Give it back; one that is unplugged can refuse, and is gone all the same."""
        for end in (self._sensor.stop, self._sensor.close):
            with suppress(RuntimeError):
                end()

    def _image(self, frame: Any) -> np.ndarray:
        """A copy: the library uses the frame's memory again."""
        if not self._depth:
            return np.array(frame.get_data())
        return millimetres(np.asarray(frame.get_data()) * frame.as_depth_frame().get_units())

    def _stamp(self, frame: Any, arrival: float) -> float:
        """Of hardware_clock only the camera knows the zero."""
        on_its_own = frame.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock
        return arrival if on_its_own else frame.get_timestamp() / 1000

    def _find(self, height: int, width: int, rate: float) -> tuple[Any, Any]:
        offered, kind = set(), "depth" if self._depth else "color"
        stream, form = getattr(self._rs.stream, kind), self._rs.format.z16 if self._depth else self._rs.format.rgb8
        for sensor in self._device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != stream or profile.format() != form:
                    continue
                video = profile.as_video_stream_profile()
                mode = (video.width(), video.height(), video.fps())
                if mode == (width, height, rate):
                    return sensor, profile
                offered.add(mode)
        modes = ", ".join(f"{w}x{h} at {fps}" for w, h, fps in sorted(offered)) or "none"
        raise RobotRLError(
            f"{self._name} has no {kind} stream of {width}x{height} at {rate:g} Hz. It has: {modes}; "
            "on a USB 2 port or cable there are fewer"
        )


def _library() -> ModuleType:
    try:
        import pyrealsense2 as rs
    except ImportError as error:
        raise RobotRLError(
            f"RealSense cameras need `pip install 'robot-rl[realsense]'`, and on Debian "
            f"`apt install libusb-1.0-0`: {error}"
        ) from error
    return rs


def _chosen(rs: ModuleType, devices: Iterable[Any], serial: str) -> Any:
    by_serial = {_serial_of(rs, device): device for device in devices}
    there = ", ".join(sorted(by_serial)) or "none (look at `lsusb`, and at librealsense's udev rules)"
    if serial and serial not in by_serial:
        raise RobotRLError(f"there is no RealSense camera {serial}; the serial numbers here: {there}")
    if not serial and len(by_serial) != 1:
        raise RobotRLError(f"say which RealSense camera, `device: realsense:SERIAL`; those here: {there}")
    return by_serial[serial] if serial else next(iter(by_serial.values()))


def _serial_of(rs: ModuleType, device: Any) -> str:
    try:
        return str(device.get_info(rs.camera_info.serial_number))
    except RuntimeError:  # it is being unplugged, or is in recovery
        return "without a serial number"
