"""From camera to subscriber over real DDS: two cameras of 640 x 480 at 30 Hz, one process to another.

Run it by hand: python tests/benchmarks/camera_latency.py. Latency is from the moment before the picture becomes a
message to the moment after it is an array again, on the other side. Loaded: two processes keep two cores busy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from itertools import count

import numpy as np

from drivers.camera_node import room_for_pictures
from drivers.messages import frame_of, image_msg
from robot_rl.types import Frame

CAMERAS, RATE, HEIGHT, WIDTH = 2, 30.0, 480, 640
WARM_UP = 2.0  # of discovery and first allocations, left out [s]
BUSY = "while True: pass"


def main() -> None:
    """The table, or one side of the wire."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--plain", action="store_true", help="with Fast DDS's own settings, not those of camera_node")
    parser.add_argument("--role", choices=["table", "publish", "subscribe"], default="table")
    arguments = parser.parse_args()
    if arguments.role == "table":
        _table(arguments.plain, arguments.seconds)
    elif arguments.role == "subscribe":
        _with_node(_subscribe, arguments.seconds)
    else:
        with nullcontext() if arguments.plain else room_for_pictures():
            _with_node(_publish, arguments.seconds)


def _table(plain: bool, seconds: float) -> None:
    print(f"{CAMERAS} x {WIDTH}x{HEIGHT} at {RATE:g} Hz for {seconds:g} s; ms; load average {os.getloadavg()[0]:.1f}")
    print(f"{'cores':8}{'median':>8}{'p99':>8}{'longest':>9}{'arrived':>9}")
    for busy in (0, 2):
        numbers, late = np.array(_measured(plain, busy, seconds)).T
        late, share = 1000 * late, len(late) / (1 + np.ptp(numbers))
        shown = f"{np.median(late):8.1f}{np.percentile(late, 99):8.1f}{late.max():9.1f}{share:9.1%}"
        print(f"{'loaded' if busy else 'idle':8}{shown}", flush=True)


def _measured(plain: bool, busy: int, seconds: float) -> list[tuple[int, float]]:
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 101),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    start = partial(subprocess.Popen, env=environment)
    ours = [sys.executable, __file__, "--seconds", str(seconds), *(["--plain"] if plain else []), "--role"]
    helpers = [start([sys.executable, "-c", BUSY]) for _ in range(busy)] + [start([*ours, "publish"])]
    try:
        return json.loads(
            subprocess.run([*ours, "subscribe"], env=environment, stdout=subprocess.PIPE, check=True).stdout
        )
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()


def _with_node(work, seconds: float) -> None:
    import rclpy

    rclpy.init()
    work(rclpy.create_node(f"latency_{os.getpid()}"), seconds)
    rclpy.try_shutdown()


def _publish(node, _seconds: float) -> None:
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    image, sent = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), count()

    def send(publisher):
        publisher.publish(image_msg(Frame(time.time(), image, 0), str(next(sent))))

    for i in range(CAMERAS):
        node.create_timer(1 / RATE, partial(send, node.create_publisher(Image, f"camera{i}", qos_profile_sensor_data)))
    rclpy.spin(node)


def _subscribe(node, seconds: float) -> None:
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    late, first = [], []

    def receive(message):
        frame = frame_of(message)
        now = time.time()
        first.append(now) if not first else None
        if WARM_UP < now - first[0] <= WARM_UP + seconds:
            late.append((int(message.header.frame_id), now - frame.stamp))

    for i in range(CAMERAS):
        node.create_subscription(Image, f"camera{i}", receive, qos_profile_sensor_data)
    until = time.monotonic() + seconds + 15
    while time.monotonic() < until and not (first and time.time() - first[0] > WARM_UP + seconds):
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(late))


if __name__ == "__main__":
    main()
