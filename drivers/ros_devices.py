"""Devices whose publisher is somebody else's: a joystick, a twist, a leader arm. Each has a node of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from drivers.robot_file import RobotFile
from drivers.subscriptions import listen, why_silent
from drivers.teleop import DeadZone, DeviceLost, Event, Toggle
from robot_rl import control
from robot_rl.geometry import quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import RobotRLError, Spec

QUIET = 0.3  # a publisher that is silent for so long holds no dead-man any more [s]
LOST = 1.0  # ... and is gone
PATIENCE = 10.0  # for its first message [s]
SLOWEST = (0.003, 0.002)  # share of the largest motion at which a twist begins, and below which it ends
NEAR, NEAR_TURN = 0.05, 0.3  # the leader must be so near to engage [m], [rad]
BUTTONS: dict[int, Event] = {7: "start", 3: "success", 2: "failure", 1: "discard", 6: "pause"}


class Listener:
    """A node that spins in a thread, and the last message of each topic with its age."""

    def __init__(self, **topics: tuple[str, Any]) -> None:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from drivers.ros_robot import spin_in_thread

        if not rclpy.ok():
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("teleop_device")
        self.last: dict[str, Any] = {}
        self._at: dict[str, float] = {}
        self._topics = {key: topic for key, (topic, _) in topics.items()}
        self._kinds = {key: kind for key, (_, kind) in topics.items()}
        for key, (topic, kind) in topics.items():
            listen(self.node, kind, topic, self._take(key), 10)
        self._end = spin_in_thread(self.node)

    def age(self, key: str) -> float:
        """Since its last message came, by the steady clock [s]; inf before there is one."""
        return time.monotonic() - self._at.get(key, -np.inf)

    def require(self, key: str) -> None:
        """Wait for a first message; raises where none comes."""
        begin = time.monotonic()
        while key not in self._at:
            if time.monotonic() > begin + PATIENCE:
                why = why_silent(self.node, self._kinds[key], self._topics[key])
                self.close()
                raise RobotRLError(f"nothing came on {self._topics[key]}: {why}")
            time.sleep(0.02)

    def alive(self, key: str) -> None:
        """Raise `DeviceLost` where it fell silent."""
        if self.age(key) > LOST:
            raise DeviceLost(f"nothing came on {self._topics[key]} for {self.age(key):.1f} s")

    def warn(self, text: str) -> None:
        """At most once a second."""
        self.node.get_logger().warning(text, throttle_duration_sec=1.0)

    def close(self) -> None:
        """End it."""
        self._end()
        self.node.destroy_node()

    def _take(self, key: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            self.last[key], self._at[key] = message, time.monotonic()

        return take


class Joy:
    """Implements `Device` by sensor_msgs/Joy of an Xbox-like pad. Let joy_node repeat (autorepeat_rate, 20 Hz)."""

    keys = (
        "hold button {button} to move    left stick  x and y    right, left trigger  up, down    right stick  turn "
        "about z and y    button 0  fingers\nbutton 7 start   3 success   2 failure   1 discard   6 pause"
    )

    def __init__(self, topic: str, button: int = 5) -> None:
        from sensor_msgs.msg import Joy as Message

        self.name, self.keys, self._button = f"joy:{topic}", self.keys.format(button=button), button
        self._listener = Listener(joy=(topic, Message))
        self._listener.require("joy")
        self._zone, self._grip, self._down = DeadZone(), Toggle(), set[int]()
        self._events: list[Event] = []

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        pressed, axes = self._look()
        motion = self._zone(axes)
        return np.append(motion, self._grip.closed) if self._button in pressed else None

    def events(self) -> list[Event]:
        """See `Device`."""
        self._look()
        events, self._events = self._events, []
        return events

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        self._grip.follow(closed)

    def close(self) -> None:
        """See `Device`."""
        self._listener.close()

    def _look(self) -> tuple[set[int], np.ndarray]:
        """The buttons that are down, and what the axes say (6,)."""
        self._listener.alive("joy")
        message = self._listener.last["joy"]
        pressed = {i for i, down in enumerate(message.buttons) if down}
        self._events += [BUTTONS[i] for i in sorted(pressed - self._down) if i in BUTTONS and i != self._button]
        self._down = pressed
        self._grip.press(0 in pressed)
        axes = np.append(np.asarray(message.axes, float), np.zeros(6))[:6]
        if not np.isfinite(axes).all():
            self._listener.warn(f"{self.name}: an axis is no number; nobody holds the dead-man")
            return set(), np.zeros(6)
        return pressed, np.array([axes[1], axes[0], 0.5 * (axes[2] - axes[5]), 0.0, axes[4], axes[3]])


class Twist:
    """Implements `Device` by geometry_msgs/TwistStamped in m/s and rad/s: who is silent has let the dead-man go."""

    keys = "a twist moves the tool in the base's frame; silence holds"

    def __init__(self, topic: str, spec: Spec, frame: str) -> None:
        from geometry_msgs.msg import TwistStamped

        self.name, self._frame = f"twist:{topic}", frame
        self._listener, self._closed = Listener(twist=(topic, TwistStamped)), -1.0
        self._largest = largest_of(spec) * spec.rate
        self._zone = DeadZone(*SLOWEST)

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        if self._listener.age("twist") > QUIET:
            return None
        message = self._listener.last["twist"]
        linear, angular = message.twist.linear, message.twist.angular
        speed = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        if wrong := self._wrong(message.header.frame_id, speed):
            self._listener.warn(f"{self.name}: {wrong}; nobody holds the dead-man")
            return None
        motion = np.clip(speed / self._largest, -1.0, 1.0)
        self._zone(motion)  # as it is meant, where it is meant at all
        return np.append(motion, self._closed) if self._zone.moves else None

    def events(self) -> list[Event]:
        """None: the terminal's keys start and mark."""
        return []

    def fingers(self, closed: float) -> None:
        """A twist has none: they stay."""
        self._closed = closed

    def close(self) -> None:
        """See `Device`."""
        self._listener.close()

    def _wrong(self, frame: str, speed: np.ndarray) -> str:
        if not np.isfinite(speed).all():
            return "the twist is no number"
        if frame not in ("", self._frame):
            return f"the twist is in the frame '{frame}', not '{self._frame}'"
        return ""


class Leader:
    """Implements `Device` by the joints of a leader arm like the robot: its tool is where the robot's shall be.

    The dead-man is std_msgs/Bool on TOPIC/held (a pedal); silence lets go. It engages only where both tools are near.
    """

    keys = "hold the pedal (TOPIC/held) and lead; bring the leader near the arm first"

    def __init__(self, topic: str, spec: Spec, robot: RobotFile) -> None:
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool

        from drivers.arm_listener import ArmListener
        from drivers.kinematics import from_file

        if robot.kinematics is None:
            raise RobotRLError("a leader arm needs `kinematics` in the robot's file: where its tool is, is computed")
        self.name, self._robot, self._largest = f"leader:{topic}", robot, largest_of(spec)
        self._kinematics = from_file(robot.kinematics)
        self._listener = Listener(leader=(topic, JointState), held=(f"{topic}/held", Bool))
        self._listener.require("leader")
        self._arm = ArmListener(self._listener.node, robot)
        self._engaged, self._closed = False, -1.0

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._listener.alive("leader")
        held = self._listener.age("held") < QUIET and self._listener.last["held"].data
        if not held or not len(self._arm.readings):
            self._engaged = False
            return None
        way = self._way()
        if way is None or not (self._engaged or self._is_near(way)):
            return None
        self._engaged = True
        return np.append(np.clip(way / self._largest, -1.0, 1.0), self._fingers())

    def events(self) -> list[Event]:
        """None: the terminal's keys start and mark."""
        return []

    def fingers(self, closed: float) -> None:
        """Where the leader has no fingers, they stay."""
        self._closed = closed

    def close(self) -> None:
        """See `Device`."""
        self._listener.close()

    def _way(self) -> np.ndarray | None:
        """From the robot's tool to the leader's (6,) [m], [rad]."""
        message, here = self._listener.last["leader"], self._arm.readings.last
        named = dict(zip(message.name, message.position, strict=False))
        joints = np.array([named.get(name, np.nan) for name in self._robot.joints])
        if not np.isfinite(joints).all():
            self._listener.warn(
                f"{self.name}: joints are missing or no number; it wants {', '.join(self._robot.joints)}"
            )
            return None
        position, turn = self._kinematics.pose(joints)
        turned = vector_from_quat(quat_product(turn, quat_inverse(unit_quat(here.turn))))
        return np.concatenate([position - here.position, turned])

    def _is_near(self, way: np.ndarray) -> bool:
        far, turned = float(np.linalg.norm(way[:3])), float(np.linalg.norm(way[3:]))
        if far <= NEAR and turned <= NEAR_TURN:
            return True
        self._listener.warn(
            f"{self.name}: the leader is {far:.2f} m and {turned:.2f} rad from the arm; it engages within {NEAR} m and "
            f"{NEAR_TURN} rad"
        )
        return False

    def _fingers(self) -> float:
        message, fingers = self._listener.last["leader"], self._robot.gripper
        named = dict(zip(message.name, message.position, strict=False))
        at = named.get(fingers.joint, np.nan)
        if not np.isfinite(at):
            return self._closed
        return float(np.clip(1.0 - 2.0 * (at - fingers.closed) / (fingers.open - fingers.closed), -1.0, 1.0))


def largest_of(spec: Spec) -> np.ndarray:
    """(6,) What a hand of 1 moves in a step [m], [rad]; inf where the actions turn nothing."""
    _, high = control.bounds(spec.action)
    by_name = {channel.name: value for channel, value in zip(spec.action, high, strict=True)}
    ends = ("_delta_x", "_delta_y", "_delta_z", "_delta_rx", "_delta_ry", "_delta_rz")
    return np.array([next((v for n, v in by_name.items() if n.endswith(end)), np.inf) for end in ends])
