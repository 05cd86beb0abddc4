"""How a setpoint is told to the controller that moves the arm: one class a profile of the robot's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from drivers.gate import GateLimits
from drivers.messages import pose_msg, stamp_msg
from drivers.robot_file import RobotFile
from drivers.twists import Twist, Twists
from robot_rl.types import ArmState, Target

if TYPE_CHECKING:
    from rclpy.node import Node

POINT = 2.0  # servo periods in which a joint trajectory's point shall be reached


class Controller(Protocol):
    """Publishes setpoints."""

    publisher: Any
    limits: GateLimits
    """that hold now; of speeds that the controller is told"""

    @property
    def problem(self) -> str:
        """Why the arm has to stop; "": it has not."""

    @property
    def resting(self) -> bool:
        """Whether what was sent last moves nothing any more."""

    def rest(self, now: float) -> None:
        """There is no setpoint to be sent: see to it that what was sent last moves nothing."""

    def cut(self, reason: str) -> None:
        """What is known of the arm is not of now: nothing may move by it."""

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """Go to `target`, which is at `joints` (n,) [rad] where there is inverse kinematics."""


class Holding:
    """A controller that holds the setpoint that it was sent last, so that nothing has to be said when it rests."""

    problem, resting = "", True

    def rest(self, now: float) -> None:
        """See `Controller`."""

    def cut(self, reason: str) -> None:
        """See `Controller`."""


class CartesianImpedance(Holding):
    """PoseStamped, as crisp's CartesianController takes it; it keeps the last one for ever."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from geometry_msgs.msg import PoseStamped

        self._frame, self.limits = robot.base_frame, robot.limits
        self.publisher = node.create_publisher(PoseStamped, robot.controller.topic, 1)

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        self.publisher.publish(pose_msg(now, self._frame, target.position, target.turn))


class JointTrajectory(Holding):
    """A trajectory of one point for joint_trajectory_controller (`allow_trajectory_replacement`); it holds the last."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from trajectory_msgs.msg import JointTrajectory as Message

        self._names, self._ahead, self.limits = list(robot.joints), POINT / robot.servo_rate, robot.limits
        self.publisher = node.create_publisher(Message, robot.controller.topic, 1)

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        from builtin_interfaces.msg import Duration
        from trajectory_msgs.msg import JointTrajectory as Message
        from trajectory_msgs.msg import JointTrajectoryPoint

        assert joints is not None
        point = JointTrajectoryPoint(positions=joints.tolist())
        point.time_from_start = Duration(sec=0, nanosec=int(self._ahead * 1e9))
        self.publisher.publish(Message(joint_names=self._names, points=[point]))  # no stamp: from now on


class ForwardCommand(Holding):
    """Joint positions for forward_command_controller, which holds the last for ever."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from std_msgs.msg import Float64MultiArray

        self.limits = robot.limits
        self.publisher = node.create_publisher(Float64MultiArray, robot.controller.topic, 1)

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        from std_msgs.msg import Float64MultiArray

        assert joints is not None
        self.publisher.publish(Float64MultiArray(data=joints.tolist()))


class ServoTwist:
    """Velocities towards the setpoint, for MoveIt Servo, which stops by itself 0.1 s after the last; see twists.py."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from geometry_msgs.msg import TwistStamped

        self._frame, self._twists = robot.base_frame, Twists(robot.limits, len(robot.joints), 1.0 / robot.servo_rate)
        self.publisher = node.create_publisher(TwistStamped, robot.controller.topic, 1)

    @property
    def limits(self) -> GateLimits:
        """See `Controller`."""
        return self._twists.limits

    @limits.setter
    def limits(self, limits: GateLimits) -> None:
        self._twists.limits = limits

    @property
    def problem(self) -> str:
        """See `Controller`."""
        return self._twists.problem

    @property
    def resting(self) -> bool:
        """See `Controller`."""
        return self._twists.resting

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        self._publish(self._twists.towards(target, state, now), now)

    def rest(self, now: float) -> None:
        """See `Controller`."""
        if (twist := self._twists.rest()) is not None:
            self._publish(twist, now)

    def cut(self, reason: str) -> None:
        """See `Controller`."""
        self._twists.cut(reason)

    def _publish(self, twist: Twist, now: float) -> None:
        from geometry_msgs.msg import TwistStamped

        linear, angular = twist
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = stamp_msg(now), self._frame
        message.twist.linear.x, message.twist.linear.y, message.twist.linear.z = linear.tolist()
        message.twist.angular.x, message.twist.angular.y, message.twist.angular.z = angular.tolist()
        self.publisher.publish(message)


def controller_for(node: Node, robot: RobotFile) -> Controller:
    """The controller of the robot's file."""
    kinds: dict[str, Any] = {
        "cartesian_impedance": CartesianImpedance,
        "joint_trajectory": JointTrajectory,
        "forward_command": ForwardCommand,
        "servo_twist": ServoTwist,
    }
    return kinds[robot.controller.profile](node, robot)
