"""Cameras: what went into the device comes out of `read`, stamped and in RGB, and a lost one is found again.

RealSense ones are devices of the real library, made in software; OpenCV ones are a video file.
"""

from __future__ import annotations

import time
from itertools import pairwise

import cv2
import numpy as np
import pytest

from drivers import opencv_camera, realsense
from drivers.camera import LiveCamera
from drivers.messages import frame_of, image_msg, stamp_msg, stamp_of
from drivers.opencv_camera import OpencvCamera
from drivers.realsense import RealSenseCamera
from robot_rl.types import Frame, RobotRLError

HEIGHT, WIDTH = 48, 64
QUICK = (0.02, 0.05)


def wait_until(predicate, timeout=5.0):
    until = time.monotonic() + timeout
    while not (held := predicate()):
        assert time.monotonic() < until, "not in time"
        time.sleep(0.002)
    return held


class SoftRealSense:
    """A software device with one colour stream at 30 Hz, and a hand to show it pictures."""

    def __init__(self, serial, height=HEIGHT, width=WIDTH):
        self._height, self._width = height, width
        self.rs = pytest.importorskip("pyrealsense2")
        self.device, self.serial = self.rs.software_device(), serial
        self.device.register_info(self.rs.camera_info.serial_number, serial)
        self.device.register_info(self.rs.camera_info.name, "Software")
        self._sensor = self.device.add_sensor("RGB Camera")
        self._profile = self._sensor.add_video_stream(self._stream())

    def _stream(self):
        stream = self.rs.video_stream()
        stream.type, stream.fmt = self.rs.stream.color, self.rs.format.rgb8
        stream.width, stream.height, stream.fps, stream.bpp = self._width, self._height, 30, 3
        return stream

    def show(self, image, number, milliseconds, domain="global_time"):
        frame = self.rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp = image, 3 * self._width, 3
        frame.timestamp, frame.domain = milliseconds, getattr(self.rs.timestamp_domain, domain)
        frame.frame_number, frame.profile = number, self._profile.as_video_stream_profile()
        self._sensor.on_video_frame(frame)


def opened(*soft, serial="", **how):
    return RealSenseCamera(serial, HEIGHT, WIDTH, 30.0, lambda: [s.device for s in soft], **how)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("domain", ["global_time", "system_time"])
def test_realsense_pictures_come_out_as_they_went_in_with_stamp_in_seconds_and_number(domain):
    soft = SoftRealSense("1")
    camera = opened(soft)
    assert camera.read() is None
    for number in (7, 8, 12):
        soft.show(noise(number), number, 1.8e12 + number, domain)
        frame = wait_until(camera.read)
        assert frame.number == number and frame.stamp == pytest.approx(1.8e9 + number / 1000, abs=1e-6)
        assert frame.image.dtype == np.uint8 and np.array_equal(frame.image, noise(number))
        assert camera.read() is None, "none twice"
    camera.close()


def test_a_realsense_stamp_of_the_cameras_own_clock_is_replaced_by_the_arrival():
    soft = SoftRealSense("1")
    camera = opened(soft)
    before = time.time()
    soft.show(noise(0), 1, 12_345.0, "hardware_clock")
    assert before <= wait_until(camera.read).stamp <= time.time()
    camera.close()


def test_read_gives_the_newest_picture_and_never_blocks():
    soft = SoftRealSense("1")
    camera = opened(soft)
    start = time.perf_counter()
    assert camera.read() is None and time.perf_counter() - start < 0.05
    for number in range(1, 6):
        soft.show(noise(number), number, 1000.0 * number)
        time.sleep(0.05)
    assert camera.read().number == 5
    camera.close()


def test_realsense_cameras_are_chosen_by_serial_number():
    one, two = SoftRealSense("111"), SoftRealSense("222")
    with pytest.raises(RobotRLError, match="111, 222"):
        opened(one, two)
    with pytest.raises(RobotRLError, match="no RealSense camera 333.*111, 222"):
        opened(one, two, serial="333")
    with pytest.raises(RobotRLError, match="none"):
        opened()
    camera = opened(one, two, serial="222")
    two.show(noise(2), 1, 0.0)
    assert np.array_equal(wait_until(camera.read).image, noise(2))
    camera.close()


def test_a_realsense_mode_that_is_not_offered_is_refused_with_those_that_are():
    soft = SoftRealSense("1")
    with pytest.raises(RobotRLError, match="640x480 at 15 Hz. It has: 64x48 at 30"):
        RealSenseCamera("", 480, 640, 15.0, lambda: [soft.device])


def test_a_realsense_camera_that_another_has_is_refused():
    soft = SoftRealSense("1")
    camera = opened(soft)
    with pytest.raises(RobotRLError, match="does another program have it"):
        opened(soft)
    camera.close()


def test_fault_f10_an_unplugged_realsense_camera_is_found_again_and_no_other_takes_its_place(monkeypatch):
    monkeypatch.setattr(realsense, "SILENCE", 0.2)
    plugged = [SoftRealSense("1")]
    camera = RealSenseCamera("", HEIGHT, WIDTH, 30.0, lambda: [s.device for s in plugged], QUICK)
    plugged[0].show(noise(1), 500, 0.0)
    assert wait_until(camera.read) and not camera.lost
    plugged[:] = [SoftRealSense("2")]
    wait_until(lambda: "no picture for 0.2 s" in camera.lost)
    time.sleep(0.3)
    assert camera.read() is None and camera.reconnects == 0, "serial number 2 is another camera"
    plugged.append(SoftRealSense("1"))
    wait_until(lambda: camera.reconnects == 1)
    plugged[1].show(noise(3), 1, 0.0)
    assert np.array_equal(wait_until(camera.read).image, noise(3)) and not camera.lost
    camera.close()


def test_without_pyrealsense2_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyrealsense2", None)
    with pytest.raises(RobotRLError, match=r"robot-rl\[realsense\].*libusb-1.0-0"):
        RealSenseCamera("", HEIGHT, WIDTH, 30.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten pictures, each of one colour: red falls from 250 by 20, green is 40, blue rises from 0 by 20."""
    path = tmp_path_factory.mktemp("video") / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))
    for i in range(10):
        writer.write(np.full((HEIGHT, WIDTH, 3), (20 * i, 40, 250 - 20 * i), np.uint8))
    writer.release()
    return path


def taken(camera, n):
    frames = [wait_until(camera.read) for _ in range(n)]
    camera.close()
    return frames


def test_a_video_plays_in_rgb_at_its_rate_over_again_with_stamps_and_numbers(video):
    start = time.time()
    frames = taken(OpencvCamera(str(video), HEIGHT, WIDTH, 50.0), 15)
    for frame in frames:
        i = (frame.number - 1) % 10
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8
        assert np.abs(frame.image.mean((0, 1)) - [250 - 20 * i, 40, 20 * i]).max() < 5
    assert all(b.number > a.number and b.stamp > a.stamp for a, b in pairwise(frames))
    rate = (frames[-1].number - frames[0].number) / (frames[-1].stamp - frames[0].stamp)
    assert rate == pytest.approx(50, rel=0.2)
    assert start < frames[0].stamp < frames[-1].stamp < time.time()


def test_a_video_of_another_size_is_refused_with_both_sizes(video):
    with pytest.raises(RobotRLError, match="64 x 48 pixels, and 640 x 480"):
        OpencvCamera(str(video), 480, 640, 30.0)


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(tmp_path, monkeypatch):
    (tmp_path / "video3").touch()
    monkeypatch.setattr(opencv_camera, "DEVICES", tmp_path)
    with pytest.raises(RobotRLError, match="video0; the cameras here: .*video3"):
        OpencvCamera("0", HEIGHT, WIDTH, 30.0)
    monkeypatch.setattr(opencv_camera.os, "access", lambda path, mode: False)
    with pytest.raises(RobotRLError, match="usermod -aG video"):
        OpencvCamera("3", HEIGHT, WIDTH, 30.0)


def test_what_is_no_video_and_a_rate_that_is_none_are_refused(tmp_path, video):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(RobotRLError, match="does not open"):
        OpencvCamera(str(tmp_path / "x.mp4"), HEIGHT, WIDTH, 30.0)
    with pytest.raises(RobotRLError, match="rate of 0"):
        OpencvCamera(str(video), HEIGHT, WIDTH, 0.0)


class Flaky:
    """A device that is lost after three pictures."""

    def __init__(self, log):
        self.log, self.left = log, 3

    def wait(self):
        self.left -= 1
        if self.left < 0:
            raise RobotRLError("pulled out")
        return Frame(time.time(), noise(0), 3 - self.left)

    def close(self):
        self.log.append("closed")


def test_fault_f10_a_lost_camera_is_looked_for_with_back_off_until_it_is_there_and_closed_each_time():
    log, tries = [], []

    def open_device():
        tries.append(time.monotonic())
        if len(tries) in (2, 3, 4, 5):
            raise RobotRLError("not there")
        return Flaky(log)

    camera = LiveCamera(open_device, (0.02, 0.08))
    wait_until(lambda: camera.reconnects >= 2)
    camera.close()
    gaps = np.diff(tries[:6])
    assert all(gap >= least for gap, least in zip(gaps, (0.02, 0.04, 0.08, 0.08, 0.08), strict=False)), gaps
    assert log.count("closed") == len(tries) - 4, "whatever was opened was closed"


def test_a_device_that_is_missing_at_the_start_is_an_error_at_once():
    def open_device():
        raise RobotRLError("not there")

    with pytest.raises(RobotRLError, match="not there"):
        LiveCamera(open_device)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_pictures_survive_messages_and_padded_rows(encoding):
    pytest.importorskip("sensor_msgs.msg")
    frame = Frame(1.8e9 + 0.123456, noise(1), 3)
    message = image_msg(frame, "wrist")
    assert (message.header.frame_id, message.height, message.width, message.step) == ("wrist", HEIGHT, WIDTH, 192)
    padded = np.zeros((HEIGHT, 200), np.uint8)
    padded[:, :192] = (frame.image if encoding == "rgb8" else frame.image[..., ::-1]).reshape(HEIGHT, 192)
    message.encoding, message.step, message.data = encoding, 200, padded.tobytes()
    for back in (frame_of(image_msg(frame, "")), frame_of(message)):
        assert np.array_equal(back.image, frame.image) and back.stamp == pytest.approx(frame.stamp, abs=1e-6)


def test_messages_that_are_no_such_pictures_are_refused():
    pytest.importorskip("sensor_msgs.msg")
    for change, words in (
        ({"encoding": "mono8"}, "'mono8' are not read.*rgb8 or bgr8"),
        ({"step": 100}, "48 rows of 100 bytes for 64 pixels"),
        ({"height": 49}, "49 rows of 192 bytes for 64 pixels, and has 9216"),
    ):
        message = image_msg(Frame(0.0, noise(1), 0), "")
        for name, value in change.items():
            setattr(message, name, value)
        with pytest.raises(RobotRLError, match=words):
            frame_of(message)


def test_stamps_survive_messages_and_what_is_no_time_is_refused():
    messages = pytest.importorskip("std_msgs.msg")
    for seconds in (0.0, 1e-9, 0.9999999999, 1.5, 1.8e9 + 0.25, 2.0**31 - 1):
        assert stamp_of(messages.Header(stamp=stamp_msg(seconds))) == pytest.approx(seconds, abs=3e-7)
    for seconds in (-1.0, float("nan"), float("inf"), 2.0**31, 1.8e12):
        with pytest.raises(RobotRLError, match="stamp"):
            stamp_msg(seconds)
