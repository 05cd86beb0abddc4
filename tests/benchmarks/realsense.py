"""Two RealSense cameras through the real library, for long: `python tests/benchmarks/realsense.py [--minutes 10]`.

The devices are librealsense's own software devices, 640 x 480 at 30 Hz, each shown pictures by a thread; one number in
a hundred is left out, as a busy USB loses pictures. Told at the end: pictures that came, numbers that are missing
beside those left out, ages on arrival, memory early and at the end. Then one camera freezes, which must be noticed by
its age within the gate's 0.2 s, is unplugged, and comes back.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from drivers.realsense import RealSenseCamera  # noqa: E402
from tests.test_cameras import SoftRealSense  # noqa: E402

HEIGHT, WIDTH, RATE, LEFT_OUT, OLD = 480, 640, 30.0, 100, 0.2


class Shown:
    """A device, and a thread that shows it pictures."""

    def __init__(self, serial: str) -> None:
        self.serial, self.soft = serial, SoftRealSense(serial, HEIGHT, WIDTH)
        self.frozen, self._ended = False, threading.Event()
        images = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)
        self._thread = threading.Thread(target=self._run, args=(images,), daemon=True)
        self._thread.start()

    def replug(self) -> None:
        """Another device of the same number."""
        self.soft = SoftRealSense(self.serial, HEIGHT, WIDTH)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self, images: np.ndarray) -> None:
        number, due = 0, time.monotonic()
        while not self._ended.wait(max(due - time.monotonic(), 0.0)):
            due, number = due + 1 / RATE, number + 1
            if number % LEFT_OUT and not self.frozen:
                self.soft.show(images[number % len(images)], number, 1000.0 * time.time())


class Reader:
    """What a camera gives."""

    def __init__(self, camera: RealSenseCamera) -> None:
        self.camera, self.ages, self.came, self.missing = camera, list[float](), 0, 0
        self.newest, self._number = time.time(), 0

    def read(self) -> None:
        if (frame := self.camera.read()) is None:
            return
        if self._number and frame.number > self._number:
            self.missing += sum(n % LEFT_OUT > 0 for n in range(self._number + 1, frame.number))
        self.newest, self._number, self.came = frame.stamp, frame.number, self.came + 1
        self.ages.append(time.time() - frame.stamp)


def main() -> None:
    """Both cameras for as long as asked, then the faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    devices = [Shown("111"), Shown("222")]
    plugged = list(devices)
    readers = [
        Reader(RealSenseCamera(d.serial, HEIGHT, WIDTH, RATE, lambda: [p.soft.device for p in plugged]))
        for d in devices
    ]
    run_for(readers, 60.0 * min(given.minutes / 5, 1.0))
    first = memory()
    run_for(readers, 60.0 * given.minutes * (1 - 1 / max(given.minutes, 5)))
    for device, reader in zip(devices, readers, strict=True):
        median, late = 1000 * np.percentile(reader.ages, [50, 99])
        print(f"{device.serial}: {reader.came} pictures, {reader.missing} lost, age {median:.1f} / {late:.1f} ms")
    print(f"memory {first:.1f} MB after the beginning, {memory():.1f} MB at the end ({memory() / first - 1:+.2%})")
    faults(devices[0], readers, plugged)
    for device, reader in zip(devices, readers, strict=True):
        reader.camera.close()
        device.close()


def run_for(readers: list[Reader], seconds: float) -> None:
    """Read as a policy does that looks every 5 ms."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for reader in readers:
            reader.read()
        time.sleep(0.005)


def faults(device: Shown, readers: list[Reader], plugged: list[Shown]) -> None:
    """Freeze, unplug, plug in."""
    frozen, device.frozen = time.time(), True
    while time.time() - readers[0].newest <= OLD:
        run_for(readers, 0.005)
    print(f"frozen: too old {1000 * (time.time() - frozen):.0f} ms after the last picture could have come")
    plugged.remove(device)
    while not readers[0].camera.lost:
        run_for(readers, 0.01)
    print(f"unplugged: '{readers[0].camera.lost}'")
    device.replug()
    plugged.append(device)
    back, came, device.frozen = time.time(), readers[0].came, False
    while readers[0].came == came:
        run_for(readers, 0.01)
    print(f"plugged in: pictures after {time.time() - back:.1f} s, {readers[0].camera.reconnects} reconnection")


def memory() -> float:
    """Of this process [MB]."""
    return float(psutil.Process().memory_info().rss / 1e6)


if __name__ == "__main__":
    main()
