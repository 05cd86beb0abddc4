"""From camera to command over real DDS, without inference: what the bridge itself costs.

    python tests/benchmarks/bridge_latency.py [--nice 0 -10] [--seconds 20]

Each in a process of its own: two cameras of 640 x 480 at 30 Hz (the camera node, with a drawn picture for a device), an
arm's joint states and pose at 100 Hz, a policy that takes no time (`RosRobot`; it looks for a new picture of the first
camera every 1 ms, makes an observation and commands at once), the arm node (with a stopwatch where wishes come in), and
what a controller receives. Each wish lies 10 um beyond the one before, so every setpoint says which wish it answers;
the robot's file has the policy at 100 Hz, so that a wish is reached in one servo period and not spread over several.

A picture counts from the moment that its camera node gets it. In what is left the servo has a share by design: at
100 Hz it ticks every 10 ms and takes then what came since, so a wish waits for 0 to 10 ms, 5 on average. That is the
price of setpoints at even intervals; `servo_rate` of the robot's file sets it. `--apart` lets the second
camera be late: an observation is of the newest moment that all streams have reached, so it waits for that picture.

Loaded: two processes, a session each, keep two cores busy at nice 0. The bridge has a session of its own, as under a
launch file. `--nice` is that of its processes, and of its session: where Linux groups sessions (autogroup), the nice
levels of processes count among those of one session only. Below 0 it needs root. The load average tells what else ran.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from drivers import arm_node  # noqa: E402
from drivers.camera import LiveCamera  # noqa: E402
from drivers.camera_node import CameraNode  # noqa: E402
from drivers.messages import numbers_msg, pose_msg  # noqa: E402
from drivers.node_process import room_for_pictures, spin, start_ros  # noqa: E402
from drivers.robot_file import load  # noqa: E402
from drivers.ros_arm import call  # noqa: E402
from drivers.ros_robot import RosRobot, spin_in_thread  # noqa: E402
from robot_rl.types import Frame, RobotRLError, Target  # noqa: E402
from tests.ros.rig import DOWN, JOINTS, MIDDLE, READY, robot_yaml  # noqa: E402

CAMERAS, RATE, HEIGHT, WIDTH = ("camera0", "camera1"), 30.0, 480, 640
STATES = 100.0  # readings of the arm [Hz]
STEP = 1e-5  # from a wish to the next [m]
TRIES = 5  # to take command of the arm
LOOK = 0.001  # how often the policy looks for a picture [s]
WARM_UP = 2.0  # of discovery and first allocations, left out [s]
BUSY = "while True: pass"
SPANS = ("picture -> observation", "picture -> arm node", "picture -> setpoint", "wish -> setpoint")


def main() -> None:
    """The table, or one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of every row")
    parser.add_argument("--nice", type=int, nargs="+", default=[0], help="of the bridge's processes")
    parser.add_argument("--plain", action="store_true", help="with Fast DDS's own settings, not those of camera_node")
    parser.add_argument("--apart", type=float, default=0.0, help="the second camera after the first [ms]")
    parser.add_argument("--role", choices=["bridge", *CAMERAS, *ROLES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role is None:
        _table(given)
    elif given.role == "bridge":
        _bridge(given)
    else:
        measured = _camera(given) if given.role in CAMERAS else ROLES[given.role](given)
        (given.folder / f"{given.role}.json").write_text(json.dumps(measured))


def _table(given: argparse.Namespace) -> None:
    print(f"{len(CAMERAS)} x {WIDTH}x{HEIGHT} at {RATE:g} Hz for {given.seconds:g} s a row; median / p99 in ms\n")
    print(f"| cores | nice | load average | {' | '.join(SPANS)} | pictures answered | stops |")
    print("|---|---|---|" + "---|" * len(SPANS) + "---|---|")
    for nice in given.nice:
        for busy in (0, 2):
            with TemporaryDirectory() as folder:
                _run(given, nice, busy, Path(folder))
                spans, answered, stops = _spans(Path(folder))
            shown = " | ".join(f"{np.median(s):.1f} / {np.percentile(s, 99):.1f}" for s in 1000 * spans.T)
            load = f"{'loaded' if busy else 'idle'} | {nice} | {os.getloadavg()[0]:.1f}"
            print(f"| {load} | {shown} | {answered:.1%} | {stops} |", flush=True)


def _run(given: argparse.Namespace, nice: int, busy: int, folder: Path) -> None:
    """Let all processes run; each leaves its times in `folder`."""
    camera = {"height": HEIGHT, "width": WIDTH, "rate": RATE}
    cameras = {name: {**camera, "topic": f"{name}/color"} for name in CAMERAS}
    robot_yaml(folder / "robot.yaml", wrench="", home=[], rate=100.0, servo_rate=100.0, cameras=cameras)
    domain = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 101), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    start = partial(subprocess.Popen, env=domain | os.environ, stdout=sys.stderr, start_new_session=True)
    with _ended([start([sys.executable, "-c", BUSY]) for _ in range(busy)]):
        bridge = start([*_words(given), f"--nice={nice}", "--folder", str(folder), "--role", "bridge"])
        with _ended([bridge]):
            if bridge.wait(given.seconds + 150):
                sys.exit("the bridge failed; see above")


def _bridge(given: argparse.Namespace) -> None:
    """All of its processes, at its nice level."""
    os.setpriority(os.PRIO_PROCESS, 0, given.nice[0])
    if (session := Path("/proc/self/autogroup")).exists() and given.nice[0]:
        session.write_text(str(given.nice[0]))
    words = [*_words(given), "--folder", str(given.folder), "--role"]
    with _ended([subprocess.Popen([*words, role]) for role in (*CAMERAS, "arm", "arm_node", "controller")]):
        subprocess.run([*words, "policy"], check=True, timeout=given.seconds + 120)


def _words(given: argparse.Namespace) -> list[str]:
    words = [sys.executable, __file__, "--seconds", str(given.seconds), "--apart", str(given.apart)]
    return [*words, *(["--plain"] if given.plain else [])]


@contextmanager
def _ended(processes: list[subprocess.Popen]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(20)


def _spans(folder: Path) -> tuple[np.ndarray, float, int]:
    """SPANS (n, 4) [s] of every wish that was answered, the share of pictures that were, and the stops of the arm."""
    rows, stops = json.loads((folder / "policy.json").read_text())
    heard, answered = (dict(json.loads((folder / f"{n}.json").read_text())) for n in ("arm_node", "controller"))
    spans = np.array(
        [
            (made - stamp, heard[n] - stamp, answered[n] - stamp, answered[n] - made)
            for n, stamp, made in rows
            if n in heard and n in answered
        ]
    )
    pictures = 1 + round((rows[-1][1] - rows[0][1]) * RATE)
    return spans, len(spans) / pictures, stops


class _Drawn:
    """A device: implements `OpenedDevice`. All of them take pictures at the same moments, `apart` [s] later."""

    def __init__(self, apart: float) -> None:
        self._apart, self._number = apart, 0
        self._images = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)

    def wait(self) -> Frame:
        left = -(time.time() - self._apart) % (1 / RATE)
        time.sleep(left if left > 0.2 / RATE else left + 1 / RATE)  # none twice
        self._number += 1
        return Frame(time.time(), self._images[self._number % len(self._images)], self._number)

    def close(self) -> None:
        pass


def _camera(given: argparse.Namespace) -> None:
    import rclpy

    robot, asked = load(given.folder / "robot.yaml"), start_ros()
    with nullcontext() if given.plain else room_for_pictures():
        node = rclpy.create_node(given.role)
    camera = LiveCamera(lambda: _Drawn(1e-3 * given.apart if given.role == CAMERAS[1] else 0.0))
    CameraNode(node, given.role, robot.cameras[given.role], camera, f"{given.role}_optical_frame")

    def closed() -> bool:
        camera.close()
        return True

    spin(node, asked, closed)


def _arm(_given: argparse.Namespace) -> None:
    """It stands where it is, and says so."""
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import JointState

    asked = start_ros()
    node = rclpy.create_node("arm")
    joints = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    pose = node.create_publisher(PoseStamped, "current_pose", qos_profile_sensor_data)

    def publish() -> None:
        now = time.time()
        joints.publish(numbers_msg(now, [*JOINTS, "finger"], np.array([*READY, 0.04])))
        pose.publish(pose_msg(now, "base", MIDDLE, DOWN))

    node.create_timer(1 / STATES, publish)
    spin(node, asked)


def _arm_node(given: argparse.Namespace) -> list[tuple[int, float]]:
    """The arm node itself; when each wish came there."""
    heard: dict[int, float] = {}
    take = arm_node.ArmNode._take

    def timed(self: arm_node.ArmNode, source: str, message: Any) -> None:
        heard.setdefault(_number(message), time.time())
        take(self, source, message)

    arm_node.ArmNode._take = timed
    arm_node.main(["--robot", str(given.folder / "robot.yaml")])
    return list(heard.items())


def _controller(_given: argparse.Namespace) -> list[tuple[int, float]]:
    """When the first setpoint came that answers each wish."""
    import rclpy
    from geometry_msgs.msg import PoseStamped

    asked, answered = start_ros(), dict[int, float]()
    node = rclpy.create_node("controller")
    node.create_subscription(
        PoseStamped, "target_pose", lambda message: answered.setdefault(_number(message), time.time()), 100
    )
    spin(node, asked)
    return list(answered.items())


def _policy(given: argparse.Namespace) -> tuple[list[tuple[int, float, float]], int]:
    """Of every wish its number, the stamp of its picture, and when it was sent; and how often the arm stopped."""
    import rclpy

    start_ros()
    node = rclpy.create_node("policy")
    end_spinning = spin_in_thread(node)
    robot, rows, stops = RosRobot(node, load(given.folder / "robot.yaml"), waits=False), [], 0
    _take_command(robot)
    observer, camera = robot.streams.observer(), CAMERAS[0]
    observer.await_readings(robot.clock)
    number, seen, begin = 0, time.time(), time.time()
    while time.time() < begin + WARM_UP + given.seconds:
        if robot.arm.stopped:
            print(f"stopped: {robot.arm.stopped}", file=sys.stderr)
            stops += 1
            _take_command(robot)
        if observer.cameras[camera].newest > seen and (obs := observer.observe())[f"stamp/image/{camera}"] > seen:
            made, number, seen = time.time(), number + 1, obs[f"stamp/image/{camera}"].item()
            robot.arm.command(Target(seen, MIDDLE + [0.0, number * STEP, 0.0], DOWN, 1.0, "policy"))
            rows.append((number, seen, made))
        time.sleep(LOOK)
    end_spinning()
    rclpy.shutdown()
    return [row for row in rows if row[2] > begin + WARM_UP], stops


def _take_command(robot: RosRobot) -> None:
    """Where the machine is too busy for it, again; not for ever."""
    from std_srvs.srv import Trigger

    for _ in range(TRIES):
        try:
            call(robot.node.create_client(Trigger, "reset"))  # as the person would, who sees that nothing is wrong
            return robot.prepare(None)
        except RobotRLError as error:
            print(f"again: {error}", file=sys.stderr)
    raise RobotRLError(f"the arm could not be taken in {TRIES} tries")


def _number(message: Any) -> int:
    return round((message.pose.position.y - MIDDLE[1]) / STEP)


ROLES = {"arm": _arm, "arm_node": _arm_node, "controller": _controller, "policy": _policy}

if __name__ == "__main__":
    main()
