"""How a setpoint is told to the controller that moves the arm: one class a profile of the robot's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from drivers.messages import pose_msg, stamp_msg
from drivers.robot_file import RobotFile
from robot_rl.geometry import quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState, Target

if TYPE_CHECKING:
    from rclpy.node import Node

GAIN = 5.0  # by which a twist closes what is left to the setpoint [1/s]
POINT = 2.0  # servo periods in which a joint trajectory's point shall be reached


class Controller(Protocol):
    """Publishes setpoints."""

    publisher: Any

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """Go to `target`, which is at `joints` (n,) [rad] where there is inverse kinematics."""


class CartesianImpedance:
    """PoseStamped, as crisp's CartesianController takes it; it keeps the last one for ever."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from geometry_msgs.msg import PoseStamped

        self._frame = robot.base_frame
        self.publisher = node.create_publisher(PoseStamped, robot.controller.topic, 1)

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        self.publisher.publish(pose_msg(now, self._frame, target.position, target.turn))


class JointTrajectory:
    """A trajectory of one point for joint_trajectory_controller (`allow_trajectory_replacement`); it holds the last."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from trajectory_msgs.msg import JointTrajectory as Message

        self._names, self._ahead = list(robot.joints), POINT / robot.servo_rate
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


class ForwardCommand:
    """Joint positions for forward_command_controller, which holds the last for ever."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from std_msgs.msg import Float64MultiArray

        self.publisher = node.create_publisher(Float64MultiArray, robot.controller.topic, 1)

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        from std_msgs.msg import Float64MultiArray

        assert joints is not None
        self.publisher.publish(Float64MultiArray(data=joints.tolist()))


class ServoTwist:
    """Velocities towards the setpoint, for MoveIt Servo, which stops by itself 0.1 s after the last."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from geometry_msgs.msg import TwistStamped

        self._frame, self._limits = robot.base_frame, robot.limits
        self.publisher = node.create_publisher(TwistStamped, robot.controller.topic, 1)

    def send(self, target: Target, joints: np.ndarray | None, state: ArmState, now: float) -> None:
        """See `Controller`."""
        from geometry_msgs.msg import TwistStamped

        linear, angular = twist_towards(target, state, self._limits.speed, self._limits.turn_speed)
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = stamp_msg(now), self._frame
        message.twist.linear.x, message.twist.linear.y, message.twist.linear.z = linear.tolist()
        message.twist.angular.x, message.twist.angular.y, message.twist.angular.z = angular.tolist()
        self.publisher.publish(message)


def twist_towards(target: Target, state: ArmState, speed: float, turn_speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Velocities (3,) [m/s] and (3,) [rad/s] that close the way to `target`, no faster than given."""
    away = GAIN * (target.position - state.position)
    turned = GAIN * vector_from_quat(quat_product(target.turn, quat_inverse(unit_quat(state.turn))))
    slow = [
        v * min(1.0, most / max(float(np.linalg.norm(v)), 1e-12)) for v, most in ((away, speed), (turned, turn_speed))
    ]
    return slow[0], slow[1]


def controller_for(node: Node, robot: RobotFile) -> Controller:
    """The controller of the robot's file."""
    kinds: dict[str, Any] = {
        "cartesian_impedance": CartesianImpedance,
        "joint_trajectory": JointTrajectory,
        "forward_command": ForwardCommand,
        "servo_twist": ServoTwist,
    }
    return kinds[robot.controller.profile](node, robot)
