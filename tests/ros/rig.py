"""An arm node in a process of its own, and around it, in the test's process: the arm, who commands it, who watches."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from drivers.messages import numbers_msg, pose_msg, pose_of
from drivers.robot_file import load
from robot_rl.geometry import unit_quat

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
MIDDLE = np.array([0.5, 0.0, 0.3])
JOINTS = [f"joint{i}" for i in range(1, 8)]
READY = [0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8]
ROBOT = {
    "world": "bench", "arm": "Panda", "joints": JOINTS, "base_frame": "base",
    "gripper": {"joint": "finger", "closed": 0.0, "open": 0.04},
    "controller": {"profile": "cartesian_impedance", "topic": "target_pose"},
    "limits": {"box_low": [0.3, -0.3, 0.1], "box_high": [0.7, 0.3, 0.6], "near": 0.05, "near_turn": 0.2},
    "state": [{"source": "position", "channels": ["x", "y", "z"], "unit": "m", "low": [-2] * 3, "high": [2] * 3}],
    "move": 0.02, "turn": 0.1, "wrench": "wrench", "home": [*MIDDLE.tolist(), *DOWN.tolist()],
}  # fmt: skip
FOLLOWS = 0.2  # share of the way to its setpoint that the arm makes in 10 ms
HOLD = 0.2  # after a fault the setpoint has braked within so long [s]
SLOW = 0.01  # [m/s]
NEAR = 0.005  # so little does it then move, on to the measured pose [m]


def robot_yaml(path: Path, **changes: Any) -> Path:
    """ROBOT as a file."""
    path.write_text(yaml.safe_dump({**ROBOT, **changes}))
    return path


class Rig:
    """The arm's own topics at 100 Hz from a thread, and all setpoints that were ever sent to it."""

    def __init__(self, node: Any, file: Path, sources: tuple[str, ...] = ("policy", "teleop")) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseStamped, WrenchStamped
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import JointState
        from std_msgs.msg import UInt64

        self.node, self.robot = node, load(file)
        self.position, self.turn, self.force = MIDDLE.copy(), DOWN.copy(), 0.0
        self.names, self.values, self.frame = [*JOINTS, "finger"], [*READY, 0.04], "base"
        self.offset, self.publishes = 0.0, True  # of the stamps [s]
        self.setpoints: list[tuple[float, np.ndarray, np.ndarray]] = []  # received [s], position, turn
        self.status: Any = None
        self._pose = node.create_publisher(PoseStamped, "current_pose", qos_profile_sensor_data)
        self._joints = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._wrench = node.create_publisher(WrenchStamped, "wrench", qos_profile_sensor_data)
        self.wishes = {s: node.create_publisher(PoseStamped, f"{s}/target_pose", 1) for s in sources}
        self._heart = node.create_publisher(UInt64, "homing/heartbeat", 1)
        self.controller = node.create_subscription(PoseStamped, "target_pose", self._take, 100)
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 1)
        node.create_timer(0.01, self._publish)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def until(self, predicate, timeout: float, what: str):
        end = time.monotonic() + timeout
        while not (held := predicate()):
            assert time.monotonic() < end, f"not within {timeout} s: {what}; status {self.status}"
            time.sleep(0.005)
        return held

    def call(self, service: str) -> Any:
        from std_srvs.srv import Trigger

        client = self.node.create_client(Trigger, service)
        self.until(client.service_is_ready, 10, f"the service {service}")
        future = client.call_async(Trigger.Request())
        self.until(future.done, 5, f"an answer of {service}")
        return future.result()

    def reset(self) -> None:
        """As the person: nothing but this lets a stopped arm be armed again."""
        self.until(lambda: self.call("reset").success, 5, "the arm is reset")
        self.until(lambda: self.value("needs reset") == "False", 2, "a status that says so")

    def beat(self, lease: int) -> None:
        """The heart of homing's owner, once."""
        self._heart.publish(self._heart.msg_type(data=lease))

    def arm(self, source: str = "policy") -> None:
        """As soon as the node sees this arm."""
        self.until(lambda: self.status and self.value("sees the arm") == "True", 15, "the node sees the arm")
        self.until(lambda: self.call(f"{source}/arm").success, 10, "armed")
        self.until(lambda: not self.stopped, 2, "a status that says so")

    @property
    def stopped(self) -> str:
        return self.status.message

    def value(self, key: str) -> str:
        return next(v.value for v in self.status.values if v.key == key)

    def wish(self, position, turn=DOWN, source="policy", age=0.0, frame="base") -> None:
        self.wishes[source].publish(pose_msg(self.now() - age, frame, position, turn))

    def stroll(self, seconds: float, speed: float = 0.05, source: str = "policy") -> None:
        """Wishes at 20 Hz, up and down along y from where the setpoint is."""
        for k in range(round(seconds * 20)):
            way = speed * 0.05 * (k if k < seconds * 10 else seconds * 20 - k)
            self.wish(MIDDLE + [0, way, 0], source=source)
            time.sleep(0.05)

    def judge(self) -> None:
        """Of all setpoints, one after the other: finite, in the box, under the speed."""
        limits, period = self.robot.limits, 1.0 / self.robot.servo_rate
        if len(self.setpoints) < 2:
            return
        positions = np.array([p for _, p, _ in self.setpoints])
        turns = np.array([q for _, _, q in self.setpoints])
        assert np.isfinite(positions).all() and np.isfinite(turns).all()
        assert (positions >= np.array(limits.box_low) - 1e-9).all()
        assert (positions <= np.array(limits.box_high) + 1e-9).all()
        speeds = np.linalg.norm(np.diff(positions, axis=0), axis=1) / period
        assert speeds.max() <= limits.speed + 1e-6
        cosines = np.abs((turns[1:] * turns[:-1]).sum(1)).clip(0, 1)
        assert (2 * np.arccos(cosines)).max() / period <= limits.turn_speed + 1e-3

    def braked_since(self, since: float) -> float:
        """When, not before `since`, the setpoint was `SLOW` and from then on within `NEAR` [s]; inf: never."""
        late = [(when, position) for when, position, _ in self.setpoints if when > since - 0.05]
        times, positions = np.array([when for when, _ in late]), np.array([position for _, position in late])
        for k in range(1, len(late)):
            stays = np.linalg.norm(positions[k:] - positions[k], axis=1).max() < NEAR
            if stays and np.linalg.norm(positions[k] - positions[k - 1]) * self.robot.servo_rate < SLOW:
                return max(float(times[k]), since)
        return np.inf if late else since  # nothing is sent to an arm that rests

    def moved_last(self) -> float:
        """When the setpoint moved last [s]."""
        pairs = zip(self.setpoints, self.setpoints[1:], strict=False)
        moved = [b[0] for a, b in pairs if np.linalg.norm(a[1] - b[1]) > 1e-6]
        return moved[-1] if moved else -np.inf

    def _publish(self) -> None:
        if not self.publishes:
            return
        if self.setpoints:
            _, position, turn = self.setpoints[-1]
            self.position = self.position + FOLLOWS * (position - self.position)
            self.turn = unit_quat(self.turn + FOLLOWS * (turn - self.turn))
        stamp = self.now() + self.offset
        self._joints.publish(numbers_msg(stamp, self.names, np.array(self.values)))
        wrench = self._wrench.msg_type()
        wrench.wrench.force.z = self.force
        self._wrench.publish(wrench)
        self._pose.publish(pose_msg(stamp, self.frame, self.position, self.turn))

    def _take(self, message: Any) -> None:
        self.setpoints.append((time.monotonic(), *pose_of(message)))

    def _take_status(self, message: Any) -> None:
        self.status = message
