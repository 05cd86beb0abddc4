"""A robot's topics and services as what `RealEnv` needs: an arm, sensors, cameras, a clock, and how to begin.

Readings come in an executor's thread and are looked up in the loop's; nothing here waits for a message but `prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.arm_listener import HISTORY, ArmListener, told_of_qos
from drivers.messages import numbers_msg, pose_msg, stamp_of
from drivers.real_env import SOURCE, Named, RealEnv
from drivers.robot_file import RobotFile
from drivers.sync import Stream
from robot_rl.types import RobotRLError, Target

if TYPE_CHECKING:
    from rclpy.node import Node

ANSWER = 5.0  # time that a service has [s]
START = 20.0  # of the other nodes
COME_TO_REST = 5.0
WAY_HOME = 60.0
SETTLE = 0.2


class RosClock:
    """Implements `Clock` by the node's: the system's, or a simulator's with use_sim_time."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._simulated = node.get_parameter("use_sim_time").value

    def now(self) -> float:
        """[s]"""
        return self._clock.now().nanoseconds * 1e-9

    def sleep_until(self, moment: float) -> None:
        """Sleeps; a clock that stands still is looked at again every 5 ms."""
        while (left := moment - self.now()) > 0:
            time.sleep(min(left, 0.005) if self._simulated else left)


class RosArm:
    """Implements `Arm`: publishes to the arm node, and reads the robot's own topics."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger

        self._node, self._frame, self.listener = node, robot.base_frame, ArmListener(node, robot)
        self.readings = self.listener.readings
        self.stopped, self.status = "its node says nothing", dict[str, str]()
        self._status_at, self._lease = -np.inf, ""
        self._pose = node.create_publisher(PoseStamped, f"{SOURCE}/target_pose", 1)
        self._gripper = node.create_publisher(JointState, f"{SOURCE}/target_gripper", 1)
        self._services = {
            name: node.create_client(Trigger, name) for name in (f"{SOURCE}/arm", f"{SOURCE}/release", "homing/arm")
        }
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 1)

    def command(self, target: Target) -> None:
        """Send it; the gripper first, so that both are there when the pose is."""
        self._gripper.publish(numbers_msg(target.stamp, ["gripper"], np.array([target.gripper])))
        self._pose.publish(pose_msg(target.stamp, self._frame, target.position, target.turn))

    def hold(self) -> None:
        """Give the arm back to its node, which holds it."""
        self._lease = ""
        from std_srvs.srv import Trigger

        release = self._services[f"{SOURCE}/release"]
        if release.service_is_ready():
            release.call_async(Trigger.Request())

    def call(self, service: str) -> str:
        """Call a service of the arm node and wait for its words; raises with them where it refuses."""
        return call(self._services[service]).message

    def take(self) -> None:
        """Take command of the arm; whoever takes it later ends that."""
        self._lease = self.call(f"{SOURCE}/arm")

    def await_status(self, wanted: Callable[[], bool], patience: float, what: str) -> None:
        """Wait until a status that came after this call is as wanted; raises after `patience` [s]."""
        begin = time.monotonic()
        while not (self._status_at > begin and wanted()):
            if time.monotonic() > begin + patience:
                words = f"{self.stopped}; {self.listener.problem}".strip("; ")
                raise RobotRLError(f"the arm's node did not {what} within {patience:.0f} s: {words or self.status}")
            time.sleep(0.01)

    def _take_status(self, message: Any) -> None:
        self.stopped, self.status = message.message, {v.key: v.value for v in message.values}
        if not self.stopped and self._lease not in ("", self.status["lease"]):
            self.stopped = f"somebody else took command of it: '{self.status['holder']}'"
        self._status_at = time.monotonic()


class RosRobot:
    """All streams of a robot's file; `env` makes the world of it. An executor of its own spins in a thread."""

    def __init__(self, node: Node, robot: RobotFile) -> None:
        self.node, self.robot = node, robot
        self.clock, self.arm = RosClock(node), RosArm(node, robot)
        self.sensors: dict[str, Stream[Named]] = {"joint_states": self.arm.listener.numbers}
        self.cameras: dict[str, Stream[np.ndarray]] = {}
        self._success = False
        self._subscribe()

    def env(self, human: Callable[[], np.ndarray | None] = lambda: None) -> RealEnv:
        """The robot as an `Env`, judged by `world/success`."""
        used = {g.source for g in self.robot.state} - {"position", "rot6d", "joints"}
        return RealEnv(
            self.robot, self.arm, self.clock, prepare=self.prepare, judge=lambda: self._success, human=human,
            sensors={name: self.sensors[name] for name in used}, cameras=self.cameras,
        )  # fmt: skip

    def prepare(self, seed: int | None) -> None:
        """Come to rest, set a simulated world back, go home where there is one, and take command."""
        self.arm.await_status(lambda: self.arm.status["sees the arm"] == "True", START, "see the arm")
        self.arm.await_status(lambda: self.arm.status["rests"] == "True", COME_TO_REST, "come to rest")
        if self._reset.service_is_ready():
            self._reset_world(seed)
        if self.robot.home:
            self.arm.call("homing/arm")
            self.arm.await_status(lambda: self.arm.status["at home"] == "True", WAY_HOME, "come home")
        self.arm.take()
        self.arm.await_status(lambda: not self.arm.stopped, ANSWER, "obey")
        self._success = False

    def _reset_world(self, seed: int | None) -> None:
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue

        if seed is not None:
            value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
            call(self._seeds, parameters=[Parameter(name="seed", value=value)])
        call(self._reset)
        time.sleep(SETTLE)  # the arm's node shall not begin from a reading of before

    def _subscribe(self) -> None:
        from rcl_interfaces.srv import SetParameters
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, JointState
        from std_msgs.msg import Bool
        from std_srvs.srv import Trigger

        node, robot = self.node, self.robot
        for name, sensor in robot.sensors.items():
            numbers: Stream[Named] = Stream(name, HISTORY, sensor.latency)
            self.sensors[name] = numbers
            self._listen(JointState, sensor.topic, _numbers_into(numbers), qos_profile_sensor_data)
        for name, camera in robot.cameras.items():
            if camera.observed:
                pictures: Stream[np.ndarray] = Stream(name, 8, camera.latency)
                self.cameras[name] = pictures
                self._listen(Image, camera.topic, _pictures_into(pictures), qos_profile_sensor_data)
        self._reset = node.create_client(Trigger, "world/reset")
        self._seeds = node.create_client(SetParameters, "sim_robot/set_parameters")
        node.create_subscription(Bool, "world/success", self._take_success, 10)

    def _listen(self, kind: Any, topic: str, take: Callable[[Any], None], qos: Any) -> None:
        self.node.create_subscription(kind, topic, take, qos, event_callbacks=told_of_qos(self.node, topic))

    def _take_success(self, message: Any) -> None:
        self._success = message.data


def _numbers_into(stream: Stream[Named]) -> Callable[[Any], None]:
    def take(message: Any) -> None:
        stream.add(stamp_of(message.header), dict(zip(message.name, message.position, strict=False)))

    return take


def _pictures_into(stream: Stream[np.ndarray]) -> Callable[[Any], None]:
    from drivers.messages import frame_of

    def take(message: Any) -> None:
        frame = frame_of(message)
        stream.add(frame.stamp, frame.image)

    return take


def call(client: Any, **fields: Any) -> Any:
    """Call a service from a thread that does not spin; raises where it is silent or says no."""
    if not client.wait_for_service(ANSWER):
        raise RobotRLError(f"nobody offers the service {client.service_name}: is its node running, in this namespace?")
    future = client.call_async(client.srv_type.Request(**fields))
    end = time.monotonic() + ANSWER
    while not future.done():
        if time.monotonic() > end:
            raise RobotRLError(f"the service {client.service_name} did not answer within {ANSWER:.0f} s")
        time.sleep(0.002)
    answer = future.result()
    if getattr(answer, "success", True) is not True:
        raise RobotRLError(answer.message)
    return answer


def spin_in_thread(node: Node) -> Callable[[], None]:
    """Spin `node` beside the caller; returns what ends that."""
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = Thread(target=executor.spin, daemon=True)
    thread.start()

    def end() -> None:
        executor.shutdown()
        thread.join()

    return end
