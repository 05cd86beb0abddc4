"""What the robot's topics say of an arm, put together as one `ArmState`; by the arm node, and by whoever drives it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.messages import pose_of, stamp_of
from drivers.robot_file import RobotFile
from drivers.sync import Stream
from robot_rl.types import ArmState

if TYPE_CHECKING:
    from rclpy.node import Node

HISTORY = 400  # readings that are kept


class ArmReadings:
    """Puts joint states, pose and wrench of the robot's file together; its `readings` grow with every pose."""

    def __init__(self, robot: RobotFile) -> None:
        self._robot = robot
        self.readings: Stream[ArmState] = Stream("arm", HISTORY, robot.arm_latency)
        self.numbers: Stream[dict[str, float]] = Stream("joint_states", HISTORY, robot.arm_latency)
        self.problem = f"nothing came yet on {robot.pose} and {robot.joint_states}"  # why there is no reading
        self.heard = -np.inf  # when a pose came, by the steady clock [s]
        self._joints: dict[str, float] = {}
        self._joints_stamp = np.nan
        self._wrench = np.full(6, np.nan) if robot.wrench else np.zeros(6)

    def forget(self) -> None:
        """All readings are of another time: the clock stepped."""
        self.readings.clear()
        self.numbers.clear()
        self._joints, self._joints_stamp = {}, np.nan
        self.problem = f"nothing came on {self._robot.pose} since the clock stepped"

    def take_joints(self, message: Any) -> None:
        """A sensor_msgs/JointState."""
        self._joints = dict(zip(message.name, message.position, strict=False))
        self._joints_stamp = stamp_of(message.header)
        self.numbers.add(self._joints_stamp, self._joints)

    def take_wrench(self, message: Any) -> None:
        """A geometry_msgs/WrenchStamped."""
        force, torque = message.wrench.force, message.wrench.torque
        self._wrench = np.array([force.x, force.y, force.z, torque.x, torque.y, torque.z])

    def take_pose(self, message: Any) -> None:
        """A geometry_msgs/PoseStamped of the tool."""
        robot, stamp = self._robot, stamp_of(message.header)
        self.problem = self._wrong(message.header.frame_id)
        if self.problem:
            return
        position, turn = pose_of(message)
        joints = np.array([self._joints[name] for name in robot.joints])
        fingers = robot.gripper
        opening = (self._joints[fingers.joint] - fingers.closed) / (fingers.open - fingers.closed)
        stamp = min(stamp, self._joints_stamp)  # as old as its oldest part
        if self.readings.add(stamp, ArmState(stamp, position, turn, joints, opening, self._wrench)):
            self.heard = time.monotonic()

    def _wrong(self, frame: str) -> str:
        robot = self._robot
        if frame != robot.base_frame:
            return f"{robot.pose} is in the frame '{frame}', the robot's file says '{robot.base_frame}'"
        if not self._joints:
            return f"nothing came yet on {robot.joint_states}"
        if missing := [name for name in (*robot.joints, robot.gripper.joint) if name not in self._joints]:
            return f"{robot.joint_states} lacks {', '.join(missing)}; it has {', '.join(self._joints)}"
        if np.isnan(self._wrench).any():
            return f"nothing finite came yet on {robot.wrench}"
        return ""


class ArmListener(ArmReadings):
    """The same, from a node's subscriptions."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from geometry_msgs.msg import PoseStamped, WrenchStamped
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import JointState

        super().__init__(robot)
        topics = [(JointState, robot.joint_states, self.take_joints), (PoseStamped, robot.pose, self.take_pose)]
        if robot.wrench:
            topics.append((WrenchStamped, robot.wrench, self.take_wrench))
        for kind, topic, take in topics:
            callbacks = told_of_qos(node, topic)
            node.create_subscription(kind, topic, take, qos_profile_sensor_data, event_callbacks=callbacks)


def told_of_qos(node: Node, topic: str) -> Any:
    """Event callbacks that say in the log why a publisher is not heard, and what to change."""
    from rclpy.event_handler import SubscriptionEventCallbacks
    from rclpy.qos import qos_policy_name_from_kind

    def refused(event: Any) -> None:
        name, policy = node.resolve_topic_name(topic), qos_policy_name_from_kind(event.last_policy_kind)
        node.get_logger().error(
            f"a publisher of {name} is not heard: its QoS policy {policy} offers less than is asked for. "
            f"Let it publish reliable and volatile, without a deadline; `ros2 topic info -v {name}` names it."
        )

    return SubscriptionEventCallbacks(incompatible_qos=refused)
