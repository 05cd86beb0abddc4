"""A simulated arm and its sensors on the robot's own topics, in real time; `robot-rl simulate` starts it.

It takes what a Cartesian impedance controller and a gripper's controller take, and publishes what their robot would.
Beside that, what only a simulator can: `world/reset` (std_srvs/Trigger) starts the world anew with the parameter
`seed`, which then counts on; `world/success` (std_msgs/Bool) says whether the task is solved. Its cameras are in a
process of their own (sim_cameras.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from drivers.messages import numbers_msg, one_number, pose_msg, sound_pose_of, stamp_msg
from drivers.node_process import declare, make_node, spin, start_ros
from drivers.robot_file import RobotFile
from drivers.sim_cameras import SimCameras, View, simulated
from robot_rl.types import ArmState, RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

CATCH_UP = 5  # periods that may be made up for; beyond, simulated time falls behind the clock


class World(Protocol):
    """A simulated robot; see `sim/robot_world.py`."""

    base_name: str
    joint_names: list[str]
    object_names: list[str]
    camera_names: list[str]

    def reset(self, seed: int | None) -> None: ...  # noqa: D102
    def command(self, position: np.ndarray, turn: np.ndarray) -> None: ...  # noqa: D102
    def grip(self, opening: float) -> None: ...  # noqa: D102
    def advance(self, seconds: float) -> None: ...  # noqa: D102
    def joints(self) -> np.ndarray: ...  # noqa: D102
    def objects(self) -> np.ndarray: ...  # noqa: D102
    def state(self, stamp: float, closed: float, opened: float) -> ArmState: ...  # noqa: D102
    def succeeded(self) -> bool: ...  # noqa: D102
    def look(self) -> np.ndarray: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class SimRobotNode:
    """Drives a `World` at the servo's rate, by the steady clock."""

    def __init__(
        self, node: Node, robot: RobotFile, world: World, seed: int = 0, cameras: SimCameras | None = None
    ) -> None:
        from rclpy.clock import Clock
        from rclpy.clock_type import ClockType

        self._require(robot, world)
        self.node, self.robot, self.world = node, robot, world
        self.period = 1.0 / robot.servo_rate
        self._due = time.monotonic()
        self._cameras = cameras
        self._declare(seed)
        self._connect()
        node.create_timer(self.period, self.tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def topics(self) -> list[str]:
        """The names, with their namespace, of what is published at the servo's rate."""
        named = [self._joints, self._pose, self._objects, self._success]
        return [publisher.topic_name for publisher in named + ([self._wrench] if self.robot.wrench else [])]

    def tick(self) -> None:
        """Let the world catch up with the clock, and say how it is."""
        late = time.monotonic() - self._due
        steps = min(int(late / self.period) + 1, CATCH_UP)
        self._due += self.period * (steps if steps < CATCH_UP else int(late / self.period) + 1)
        for _ in range(steps):
            self.world.advance(self.period)
        self.publish()

    def publish(self) -> None:
        """Joint states, wrench, pose, objects, success; and to the cameras, how all looks."""
        from std_msgs.msg import Bool

        now, robot = self.node.get_clock().now().nanoseconds * 1e-9, self.robot
        state = self.world.state(now, robot.gripper.closed, robot.gripper.open)
        self._joints.publish(numbers_msg(now, self.world.joint_names, self.world.joints()))
        if robot.gripper.joint_states:
            self._fingers.publish(numbers_msg(now, self.world.joint_names, self.world.joints()))
        if robot.wrench:
            self._wrench.publish(self._wrench_msg(now, state.wrench))
        self._pose.publish(pose_msg(now, robot.base_frame, state.position, state.turn))
        self._objects.publish(numbers_msg(now, self.world.object_names, self.world.objects()))
        self._success.publish(Bool(data=self.world.succeeded()))
        if self._cameras is not None:
            self._cameras.show(now, self.world.look())

    def _reset(self, _request: Any, response: Any) -> Any:
        from rclpy.parameter import Parameter

        seed = self.node.get_parameter("seed").value
        self.world.reset(seed)
        self.node.set_parameters([Parameter("seed", value=seed + 1)])
        response.success, response.message = True, f"start {seed}"
        return response

    def _take(self, message: Any) -> None:
        if message.header.frame_id == self.robot.base_frame and (pose := sound_pose_of(message)) is not None:
            self.world.command(*pose)

    def _take_gripper(self, message: Any) -> None:
        fingers = self.robot.gripper
        if math.isfinite(position := one_number(message.data)):
            self.world.grip((position - fingers.closed) / (fingers.open - fingers.closed))

    def _wrench_msg(self, now: float, wrench: np.ndarray) -> Any:
        from geometry_msgs.msg import WrenchStamped

        message = WrenchStamped()
        message.header.stamp, message.header.frame_id = stamp_msg(now), self.robot.base_frame
        force, torque = message.wrench.force, message.wrench.torque
        force.x, force.y, force.z, torque.x, torque.y, torque.z = wrench.tolist()
        return message

    def _declare(self, seed: int) -> None:
        from rcl_interfaces.msg import IntegerRange, ParameterDescriptor

        whole = IntegerRange(from_value=0, to_value=2**31 - 1, step=1)
        about = "of the next start of the world"
        declare(self.node, "seed", seed, ParameterDescriptor(description=about, integer_range=[whole]))

    def _connect(self) -> None:
        from geometry_msgs.msg import PoseStamped, WrenchStamped
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool, Float64MultiArray
        from std_srvs.srv import Trigger

        node, robot = self.node, self.robot
        self._joints = node.create_publisher(JointState, robot.joint_states, 10)
        if robot.gripper.joint_states:
            self._fingers = node.create_publisher(JointState, robot.gripper.joint_states, 10)
        self._pose = node.create_publisher(PoseStamped, robot.pose, 10)
        if robot.wrench:
            self._wrench = node.create_publisher(WrenchStamped, robot.wrench, 10)
        objects = robot.sensors.get("objects")
        self._objects = node.create_publisher(JointState, objects.topic if objects else "objects", 10)
        self._success = node.create_publisher(Bool, "world/success", 10)
        node.create_subscription(PoseStamped, robot.controller.topic, self._take, 1)
        node.create_subscription(Float64MultiArray, robot.gripper.topic, self._take_gripper, 1)
        node.create_service(Trigger, "world/reset", self._reset)

    @staticmethod
    def _require(robot: RobotFile, world: World) -> None:
        if robot.controller.profile != "cartesian_impedance":
            raise RobotRLError(f"the simulated arm takes poses, not the profile {robot.controller.profile}")
        if robot.base_frame != world.base_name:
            raise RobotRLError(f"the simulated arm's base is '{world.base_name}', the file says '{robot.base_frame}'")
        if missing := {*robot.joints, robot.gripper.joint} - set(world.joint_names):
            raise RobotRLError(f"the simulated arm lacks {', '.join(missing)}; it has {', '.join(world.joint_names)}")
        views = {camera.device.partition(":")[2] for camera in simulated(robot).values()}
        if missing := views - set(world.camera_names):
            known = ", ".join(world.camera_names)
            raise RobotRLError(f"the simulated world lacks the camera {', '.join(sorted(missing))}; it has {known}")


def run(robot: RobotFile, world: World, seed: int, make_view: Callable[[], View]) -> None:
    """Spin the node until it is asked to end; `make_view`, in another process, makes what renders the cameras."""
    asked = start_ros()
    node = make_node("sim_robot")
    cameras = SimCameras(node, robot, make_view) if simulated(robot) else None
    simulated_robot = SimRobotNode(node, robot, world, seed, cameras)
    topics = ", ".join(simulated_robot.topics)
    print(f"simulate: ready: {robot.world}, its topics {topics} at {robot.servo_rate:g} Hz; Ctrl-C ends it", flush=True)

    def closed() -> bool:
        if cameras is not None:
            cameras.close()
        return True

    spin(node, asked, closed)
    world.close()
