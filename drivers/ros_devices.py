"""Devices whose publisher is somebody else's: a joystick, a twist, a leader arm. Each has a node of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivers.dead_man import QUIET
from drivers.message_hands import RESTS, JoyHand, LeaderHand, TwistHand
from drivers.messages import stamp_of
from drivers.named_numbers import malformed
from drivers.robot_file import RobotFile
from drivers.subscriptions import listen, why_silent
from drivers.teleop import DeviceLost, Event
from robot_rl import control
from robot_rl.types import RobotRLError, Spec

LOST = 1.0  # a publisher that is silent for so long is gone [s]
PATIENCE = 10.0  # for its first message [s]
AHEAD = 0.1  # a stamp may be so far in the future [s]
LEAP = 50  # messages that may be missing from one to the next
ALONE = 1.0  # after another publisher was heard nothing counts for so long [s]
WAITING = 64  # messages that wait for the next look


@dataclass(frozen=True)
class Said:
    """A message that may count."""

    at: float  # when it was said, by the steady clock [s]: when it came, less its age by its stamp
    message: Any
    trouble: str = ""  # why nothing of before it counts any more; the message is then none


class Listener:
    """A node that spins in a thread, and what came on each topic.

    What is older than `QUIET` by its stamp, or of the future, or has the stamp of one before, is not heard, as if it
    had never come; a message without a stamp is as old as its way through the middleware was long.
    """

    def __init__(self, **topics: tuple[str, Any]) -> None:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from drivers.ros_robot import spin_in_thread

        if not rclpy.ok():
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("teleop_device")
        self._at: dict[str, float] = {}  # when a message came last, whatever it was
        self._said = {key: deque[Said](maxlen=WAITING) for key in topics}
        self._stamps: dict[str, tuple[float, float]] = {}  # of the last message that was heard, and when it came
        self._numbers: dict[str, int] = {}  # the publisher's number of the last message
        self._alone = dict.fromkeys(topics, -np.inf)  # from when on one publisher alone was heard
        self._topics = {key: topic for key, (topic, _) in topics.items()}
        self._kinds = {key: kind for key, (_, kind) in topics.items()}
        for key, (topic, kind) in topics.items():
            listen(self.node, kind, topic, self._take(key), 10, informed=True)
        self._end = spin_in_thread(self.node)

    def take(self, key: str) -> list[Said]:
        """What came since the last call, in order."""
        said = self._said[key]
        return [said.popleft() for _ in range(len(said))]

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
        """At most once a second; "": nothing."""
        if text:
            self.node.get_logger().warning(text, throttle_duration_sec=1.0)

    def close(self) -> None:
        """End it."""
        self._end()
        self.node.destroy_node()

    def _take(self, key: str) -> Callable[..., None]:
        def take(message: Any, info: Any) -> None:
            now, clock = time.monotonic(), self.node.get_clock().now().nanoseconds * 1e-9
            self._at[key] = now
            if self._is_another(key, info, now):
                self._said[key].append(Said(now, None, self._others(key)))
            elif now >= self._alone[key] and (age := self._age(key, message, info, now, clock)) is not None:
                self._said[key].append(Said(now - age, message))

        return take

    def _is_another(self, key: str, info: Any, now: float) -> bool:
        """Not the publisher of the message before: each counts its own."""
        number = info.get("publication_sequence_number")
        if number is None:
            return False
        before = self._numbers.get(key)
        self._numbers[key] = number
        if before is None or before < number <= before + LEAP:
            return False
        self._alone[key] = now + ALONE
        return True

    def _others(self, key: str) -> str:
        topic = self._topics[key]
        names = sorted(f"{e.node_namespace.rstrip('/')}/{e.node_name}" for e in self._publishers(topic))
        return f"another publisher was heard on {topic}, where one alone may speak; there are {', '.join(names)}"

    def _publishers(self, topic: str) -> list[Any]:
        return list(self.node.get_publishers_info_by_topic(topic))

    def _age(self, key: str, message: Any, info: Any, now: float, clock: float) -> float | None:
        """Of a message when it came [s]; None: it is not heard."""
        stamp = stamp_of(message.header) if hasattr(message, "header") else 0.0
        way = (info["received_timestamp"] - info["source_timestamp"]) * 1e-9 if info.get("source_timestamp") else 0.0
        age, topic = clock - stamp if stamp else way, self._topics[key]
        if not -AHEAD <= age <= QUIET:
            self.warn(f"what comes on {topic} is stamped {age:.2f} s before it comes: let chrony set all clocks")
            return None
        last, came = self._stamps.get(key, (0.0, -np.inf))
        if 0.0 < stamp <= last and now - came <= QUIET:
            self.warn(f"the stamps on {topic} stand still, as where an old message is sent again")
            return None
        self._stamps[key] = stamp, now
        return max(age, 0.0)


class Joy:
    """Implements `Device` by sensor_msgs/Joy of an Xbox-like pad. Let joy_node repeat (autorepeat_rate, 20 Hz).

    Raises where no message comes, or where a trigger at rest cannot read `rest`.
    """

    keys = (
        "hold button {button} to move    left stick  x and y    right, left trigger  up, down    right stick  turn "
        "about z and y    button 0  fingers\nbutton 7 start   3 success   2 failure   1 discard   6 pause"
    )

    def __init__(self, topic: str, button: int = 5, rest: float = 1.0) -> None:
        from sensor_msgs.msg import Joy as Message

        if rest not in RESTS:
            raise RobotRLError(f"joy:{topic}: a trigger at rest reads 1, 0 or -1, not {rest:g}")
        self.name, self.keys = f"joy:{topic}", self.keys.format(button=button)
        self._hand = JoyHand(self.name, button, rest)
        self._listener = Listener(joy=(topic, Message))
        self._listener.require("joy")

    @property
    def hint(self) -> str:
        """See `hint_of`."""
        return self._hand.dead_man.hint

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._look()
        return self._hand.hand(time.monotonic())

    def events(self) -> list[Event]:
        """See `Device`."""
        self._look()
        events, self._hand.events = self._hand.events, []
        return events

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        self._hand.grip.follow(closed)

    def close(self) -> None:
        """See `Device`."""
        self._listener.close()

    def _look(self) -> None:
        for said in self._listener.take("joy"):
            if said.trouble:
                self._hand.dead_man.lose(said.trouble)
            else:
                self._hand.hear(said.at, said.message.axes, said.message.buttons)
        self._listener.warn(self.hint)
        self._listener.alive("joy")


class Twist:
    """Implements `Device` by geometry_msgs/TwistStamped in m/s and rad/s; zero lets the dead-man go, and silence."""

    keys = "a twist moves the tool in the base's frame; zero lets go, and silence holds the arm until there is a zero"

    def __init__(self, topic: str, spec: Spec, frame: str) -> None:
        from geometry_msgs.msg import TwistStamped

        self.name = f"twist:{topic}"
        self._hand = TwistHand(self.name, largest_of(spec) * spec.rate, frame)
        self._listener = Listener(twist=(topic, TwistStamped))

    @property
    def hint(self) -> str:
        """See `hint_of`."""
        return self._hand.dead_man.hint

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        for said in self._listener.take("twist"):
            if said.trouble:
                self._hand.dead_man.lose(said.trouble)
                continue
            linear, angular = said.message.twist.linear, said.message.twist.angular
            speed = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
            self._hand.hear(said.at, said.message.header.frame_id, speed)
        self._listener.warn(self.hint)
        return self._hand.hand(time.monotonic())

    def events(self) -> list[Event]:
        """None: the terminal's keys start and mark."""
        return []

    def fingers(self, closed: float) -> None:
        """A twist has none: they stay."""
        self._hand.closed = closed

    def close(self) -> None:
        """See `Device`."""
        self._listener.close()


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
        self.name, self._robot = f"leader:{topic}", robot
        self._hand, self._closed = LeaderHand(self.name, largest_of(spec)), -1.0
        self._kinematics = from_file(robot.kinematics)
        self._listener = Listener(leader=(topic, JointState), held=(f"{topic}/held", Bool))
        self._listener.require("leader")
        self._arm = ArmListener(self._listener.node, robot)

    @property
    def hint(self) -> str:
        """See `hint_of`."""
        return self._hand.hint

    def hand(self) -> np.ndarray | None:
        """See `Device`."""
        self._hear(self._listener.take("leader"))
        for said in self._listener.take("held"):
            if said.trouble:
                self._hand.dead_man.lose(said.trouble)
            else:
                self._hand.hear_pedal(said.at, said.message.data)
        self._listener.warn(self.hint)
        self._listener.alive("leader")
        now = time.monotonic()
        if now - self._arm.heard > QUIET or not len(self._arm.readings):
            return self._hand.hand(now, None, None)
        here = self._arm.readings.last
        return self._hand.hand(now, here.position, here.turn)

    def events(self) -> list[Event]:
        """None: the terminal's keys start and mark."""
        return []

    def fingers(self, closed: float) -> None:
        """Where the leader has no fingers, they stay."""
        self._closed = closed

    def close(self) -> None:
        """See `Device`."""
        self._listener.close()

    def _hear(self, came: list[Said]) -> None:
        """Of the leader's joints the newest."""
        for said in came:
            if said.trouble:
                self._hand.dead_man.lose(said.trouble)
            else:
                self._hand.beat(said.at)
        if not came or came[-1].trouble:
            return
        said = came[-1]
        if wrong := malformed(said.message):
            self._hand.dead_man.doubt(wrong)
            return
        named = dict(zip(said.message.name, said.message.position, strict=True))
        joints = np.array([named.get(name, np.nan) for name in self._robot.joints])
        if not np.isfinite(joints).all():
            self._hand.dead_man.doubt(f"joints are missing or no number; it wants {', '.join(self._robot.joints)}")
            return
        self._hand.closed = self._fingers(named)
        self._hand.hear(said.at, joints, *self._kinematics.pose(joints))

    def _fingers(self, named: dict[str, float]) -> float:
        fingers = self._robot.gripper
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
