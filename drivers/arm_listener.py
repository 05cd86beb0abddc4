"""What the robot's topics say of an arm, put together as one `ArmState`; by the arm node, and by whoever drives it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.messages import pose_of, stamp_of
from drivers.named_numbers import NamedNumbers, names_of
from drivers.robot_file import RobotFile
from drivers.sound import SENTENCE, excerpt
from drivers.stamps import SYSTEM, Clocks, StampMonitor
from drivers.subscriptions import NodeClocks, listen
from drivers.subscriptions import told_of_qos as told_of_qos
from drivers.sync import Stream
from robot_rl.types import ArmState

if TYPE_CHECKING:
    from rclpy.node import Node

HISTORY = 400  # readings that are kept
WRENCHES = 50  # that may wait to be looked at: of a sensor at 1 kHz, those of a pause of 50 ms
OFTEN = 0.7  # periods of the policy; a part that usually comes within so long is missed soon


class WrenchPeak:
    """The strongest of the wrenches since the last look; what is no number is stronger than all."""

    def __init__(self) -> None:
        self._peak: np.ndarray | None = None

    def add(self, wrench: np.ndarray) -> None:
        """(6,) [N], [Nm]."""
        peak = wrench if self._peak is None else self._peak
        self._peak = np.concatenate([_stronger(peak[:3], wrench[:3]), _stronger(peak[3:], wrench[3:])])

    def over(self, last: np.ndarray) -> np.ndarray:
        """The largest force (3,) and the largest torque (3,) since the last `clear`; `last` where none came."""
        return last if self._peak is None else self._peak

    def clear(self) -> None:
        """Begin anew."""
        self._peak = None


class ArmReadings:
    """Puts joint states, pose and wrench of the robot's file together; its `readings` grow with every pose.

    A reading is as old as its oldest part. A wrench counts by its arrival, as not every sensor stamps it; of those that
    came between two readings the strongest is kept.
    """

    def __init__(self, robot: RobotFile, clocks: Clocks = SYSTEM) -> None:
        self._robot, self._clocks, ahead = robot, clocks, robot.limits.ahead
        self.readings: Stream[ArmState] = Stream("arm", HISTORY, robot.arm_latency, clocks, ahead)
        self.numbers: Stream[dict[str, float]] = Stream("joint_states", HISTORY, robot.arm_latency, clocks, ahead)
        self.readings.explain = lambda: self.problem
        self.absent: dict[str, str] = {}  # why nothing comes on a topic, by its name in the robot's file
        self._joints = NamedNumbers(robot.joint_states, (*robot.joints, robot.gripper.joint), clocks, ahead)
        self._seen = NamedNumbers(robot.joint_states, names_of(robot, "joint_states"), clocks, ahead)
        self._pose, self._place = StampMonitor(clocks, ahead), (np.zeros(3), np.zeros(4))
        self._other_frame: str | None = None  # of the last pose, where it is not the one of the robot's file
        self._wrench, self._felt = StampMonitor(clocks, np.inf), np.zeros(6)  # stamped with its arrival
        self._peak, self._reading_peak = WrenchPeak(), WrenchPeak()

    @property
    def heard(self) -> float:
        """When all parts had come anew, by the steady clock [s].

        Fingers and wrenches that come seldom count only by their age, else the arm would brake between any two.
        """
        robot, joints, often = self._robot, self._joints, OFTEN / self._robot.rate
        came = [self._pose.arrived, joints.arrived(robot.joints)]
        if joints.gap((robot.gripper.joint,)) < often:
            came.append(joints.arrived((robot.gripper.joint,)))
        if robot.wrench and self._wrench.gap < often:
            came.append(self._wrench.arrived)
        return min(came)

    def seldom(self, longest: float, of_arm: bool | None = None) -> str:
        """Which parts usually come more than `longest` [s] apart, in words; "": none does. `of_arm`: of pose and
        joints only; or not of them, but of fingers and wrench."""
        robot, joints, gaps = self._robot, self._joints, dict[str, float]()
        if of_arm is not False:
            gaps |= {robot.pose: self._pose.usual, robot.joint_states: joints.usual(robot.joints)}
        if of_arm is not True:
            gaps[robot.gripper.joint_states or robot.gripper.joint] = joints.usual((robot.gripper.joint,))
            gaps |= {robot.wrench: self._wrench.usual} if robot.wrench else {}
        slow = [f"{name} comes at {1.0 / gap:.1f} Hz" for name, gap in gaps.items() if gap > longest]
        return " and ".join(slow) + f", and {1.0 / longest:.1f} Hz or more are needed" if slow else ""

    @property
    def problem(self) -> str:
        """Why the arm may not be moved by what is known of it, in words; "": nothing is wrong."""
        robot, limit, latency = self._robot, self._robot.limits.age, self._robot.arm_latency
        if self._other_frame is not None:
            return f"{robot.pose} is in the frame '{self._other_frame}', the robot's file says '{robot.base_frame}'"
        if wrong := self._pose.wrong(limit, None, latency):
            return f"{robot.pose} {wrong}{self._absent(robot.pose)}"
        if self._joints.values and (missing := self._joints.missing):
            has = excerpt(", ".join(self._joints.values), SENTENCE)
            topics = " and ".join(topic for topic in (robot.joint_states, robot.gripper.joint_states) if topic)
            return f"{topics} lacks {', '.join(missing)}; it has {has}{self._absent(robot.gripper.joint_states)}"
        if wrong := self._joints.wrong(limit, latency):
            return f"{wrong}{self._absent(robot.joint_states)}"
        return self._wrong_wrench(limit) if robot.wrench else ""

    @property
    def newest(self) -> ArmState:
        """The newest of each part, as old as the oldest of them, under the strongest wrench since the last `sample`."""
        return self._together(self._peak.over(self._felt))

    def sample(self) -> ArmState:
        """`newest`, and the next look begins."""
        state = self.newest
        self._peak.clear()
        return state

    def forget(self, now: float, step: float) -> None:
        """All readings are of another time: the stamps' clock, which shows `now`, stepped by `step` [s].

        Some may be on their way still. Where it was set back, by more than any may be old they come from the future;
        by less they would look younger than they are, until the clock shows again what it did.
        """
        limits = self._robot.limits
        until = now - step if -(limits.age + limits.ahead) <= step < 0 else -np.inf
        self.readings.clear()
        self.numbers.clear()
        self._joints.forget(until)
        self._seen.forget(until)
        self._pose.forget(until)

    def take_joints(self, message: Any) -> None:
        """A sensor_msgs/JointState, of all joints or of some."""
        self._seen.feed(self.numbers, message)
        if self._joints.take(message):
            self._put_together()

    def take_fingers(self, message: Any) -> None:
        """A sensor_msgs/JointState of the gripper's own topic."""
        if self._joints.take(message):
            self._put_together()

    def take_wrench(self, message: Any) -> None:
        """A geometry_msgs/WrenchStamped."""
        force, torque = message.wrench.force, message.wrench.torque
        self._felt = np.array([force.x, force.y, force.z, torque.x, torque.y, torque.z])
        self._wrench.admit(self._clocks.steady())
        self._peak.add(self._felt)
        self._reading_peak.add(self._felt)

    def take_pose(self, message: Any) -> None:
        """A geometry_msgs/PoseStamped of the tool."""
        frame = message.header.frame_id
        self._other_frame = None if frame == self._robot.base_frame else excerpt(frame)
        if self._other_frame is None and self._pose.admit(stamp_of(message.header)) != "refused":
            self._place = pose_of(message)
            self._put_together()

    def _put_together(self) -> None:
        """A reading, where the oldest part is newer than that of the last, or the clock was set back."""
        if self._stamp() - self.readings.latency == self.readings.newest:
            return
        if not self.problem and self.readings.add(self._stamp(), self._together(self._reading_peak.over(self._felt))):
            self._reading_peak.clear()

    def _stamp(self) -> float:
        return min(self._pose.newest, self._joints.stamp())

    def _together(self, wrench: np.ndarray) -> ArmState:
        numbers, fingers = self._joints.values, self._robot.gripper
        joints = np.array([numbers[name] for name in self._robot.joints])
        opening = (numbers[fingers.joint] - fingers.closed) / (fingers.open - fingers.closed)
        return ArmState(self._stamp(), *self._place, joints, opening, wrench)

    def _wrong_wrench(self, limit: float) -> str:
        topic, silent = self._robot.wrench, self._clocks.steady() - self._wrench.arrived
        if silent == np.inf:
            return f"nothing came yet on {topic}{self._absent(topic)}"
        if silent > limit:
            return f"the wrench on {topic} is silent for {silent:.2f} s"
        return "" if np.isfinite(self._felt).all() else f"the wrench on {topic} is no finite number: {self._felt}"

    def _absent(self, topic: str) -> str:
        return f": {why}" if (why := self.absent.get(topic)) else ""


class ArmListener(ArmReadings):
    """The same, from a node's subscriptions."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from geometry_msgs.msg import PoseStamped, WrenchStamped
        from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
        from sensor_msgs.msg import JointState

        super().__init__(robot, NodeClocks(node))
        every = QoSProfile(depth=WRENCHES, reliability=ReliabilityPolicy.BEST_EFFORT)
        topics = [
            (JointState, robot.joint_states, self.take_joints, qos_profile_sensor_data),
            (PoseStamped, robot.pose, self.take_pose, qos_profile_sensor_data),
        ]
        if robot.gripper.joint_states:
            topics.append((JointState, robot.gripper.joint_states, self.take_fingers, qos_profile_sensor_data))
        if robot.wrench:
            topics.append((WrenchStamped, robot.wrench, self.take_wrench, every))
        for kind, topic, take, qos in topics:
            listen(node, kind, topic, take, qos, missing=partial(self._is_absent, topic))

    def _is_absent(self, topic: str, why: str) -> None:
        self.absent[topic] = why


def _stronger(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if not np.isfinite(one).all():
        return one
    return one if np.linalg.norm(one) >= np.linalg.norm(other) else other
