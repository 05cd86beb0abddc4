"""A robot's topics and services as what `RealEnv` needs: an arm, sensors, cameras, a clock, and how to begin.

`RosStreams` is the part of it that only listens.

Readings come in an executor's thread and are looked up in the loop's; nothing here waits for a message but `prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.arm_listener import HISTORY, ArmListener
from drivers.assisted import Corrector
from drivers.messages import numbers_msg, path_msg, pose_msg
from drivers.named_numbers import NamedNumbers, names_of
from drivers.node_process import end_ros
from drivers.observer import Named, Observer
from drivers.real_env import RealEnv
from drivers.robot_file import RobotFile
from drivers.subscriptions import NodeClocks, listen
from drivers.sync import Stream
from drivers.teleop import nobody
from robot_rl.types import RobotRLError, Target

if TYPE_CHECKING:
    from rclpy.node import Node

LATELY = 0.3  # within so long a status of the arm's node is news [s]
ANSWER = 5.0  # time that a service has [s]
START = 20.0  # of the other nodes
COME_TO_REST = 5.0
WAY_HOME = 60.0
SETTLE = 0.2
SILENT = 1.0  # so long without a status, and the arm's node is gone [s]


class RosClock:
    """Implements `Clock` by the node's: the system's, or a simulator's with use_sim_time.

    A sleep ends early when `woken()`.
    """

    def __init__(self, node: Node, woken: Callable[[], bool] = lambda: False) -> None:
        self._clock, self._woken = node.get_clock(), woken
        self._longest = 0.005 if node.get_parameter("use_sim_time").value else 0.05

    def now(self) -> float:
        """[s]"""
        return self._clock.now().nanoseconds * 1e-9

    def sleep_until(self, moment: float) -> None:
        """Sleeps; a clock that stands still is looked at again every 5 ms."""
        while (left := moment - self.now()) > 0 and not self._woken():
            time.sleep(min(left, self._longest))


class RosArm:
    """Implements `Arm`: publishes to the arm node as `source`, and reads the robot's own topics."""

    def __init__(
        self, node: Node, robot: RobotFile, listener: ArmListener, source: str, ended: Callable[[], bool]
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseArray, PoseStamped
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger

        self._node, self._frame, self.listener, self._source = node, robot.base_frame, listener, source
        self.readings, self._ended = listener.readings, ended
        self._stopped, self.status = "its node says nothing", dict[str, str]()
        self._status_at, self._lease = -np.inf, ""
        self._pose = node.create_publisher(PoseStamped, f"{source}/target_pose", 1)
        self._gripper = node.create_publisher(JointState, f"{source}/target_gripper", 1)
        self._plan = node.create_publisher(PoseArray, f"{source}/plan", 1)
        self._value = node.create_publisher(JointState, f"{source}/value", 1)
        self._services = {
            name: node.create_client(Trigger, name) for name in (f"{source}/arm", f"{source}/release", "homing/arm")
        }
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 1)

    @property
    def stopped(self) -> str:
        """See `Arm`; its node tells ten times a second."""
        silent = time.monotonic() - self._status_at
        return self._stopped or (f"its node is silent for {silent:.1f} s" if silent > SILENT else "")

    def command(self, target: Target) -> None:
        """Send it; the gripper first, so that both are there when the pose is."""
        self._gripper.publish(numbers_msg(target.stamp, ["gripper"], np.array([target.gripper])))
        self._pose.publish(pose_msg(target.stamp, self._frame, target.position, target.turn))

    def show_plan(self, stamp: float, path: np.ndarray, value: Callable[[], float]) -> None:
        """Publish where the tool would go (h, 3) and what a critic expects, to whoever watches; nobody acts on it."""
        if self._plan.get_subscription_count():
            self._plan.publish(path_msg(stamp, self._frame, path))
        if self._value.get_subscription_count() and np.isfinite(number := value()):
            self._value.publish(numbers_msg(stamp, ["value"], np.array([number])))

    def hold(self) -> None:
        """Give the arm back to its node, which holds it; not where somebody else commands it by now.

        Who has heard nothing of late was the one that hung: its lease may be over, and its silence stopped the arm.
        """
        from std_srvs.srv import Trigger

        lease, self._lease = self._lease, ""
        release, heard = self._services[f"{self._source}/release"], time.monotonic() - self._status_at < LATELY
        if lease and heard and lease == self.status["lease"] and release.service_is_ready():
            release.call_async(Trigger.Request())

    def call(self, service: str) -> str:
        """Call a service of the arm node and wait for its words; raises with them where it refuses."""
        return call(self._services[service]).message

    def take(self) -> None:
        """Take command of the arm; whoever takes it later ends that."""
        self._lease = self.call(f"{self._source}/arm")

    def await_status(self, wanted: Callable[[], bool], patience: float, what: str) -> None:
        """Wait until a status that came after this call is as wanted; raises after `patience` [s], or when it ended."""
        begin = time.monotonic()
        while not (self._status_at > begin and wanted()):
            if self._ended():
                raise RobotRLError(f"the arm's node was not waited for any longer, to {what}")
            if time.monotonic() > begin + patience:
                words = f"{self.stopped}; {self.listener.problem}".strip("; ")
                raise RobotRLError(f"the arm's node did not {what} within {patience:.0f} s: {words or self.status}")
            time.sleep(0.01)

    def _take_status(self, message: Any) -> None:
        self._stopped, self.status = message.message, {v.key: v.value for v in message.values}
        if not self._stopped and self._lease not in ("", self.status["lease"]):
            self._stopped = f"somebody else took command of it: '{self.status['holder']}'"
        self._status_at = time.monotonic()


class RosStreams:
    """What a robot's topics say, as streams; it publishes nothing.

    Of the cameras those that policies see; where it is `watched` by a person, all.
    """

    def __init__(self, node: Node, robot: RobotFile, watched: bool = False) -> None:
        self.node, self.robot, self.listener, self._watched = node, robot, ArmListener(node, robot), watched
        self.sensors: dict[str, Stream[Named]] = {"joint_states": self.listener.numbers}
        self.cameras: dict[str, Stream[np.ndarray]] = {}  # that policies see
        self.shown: dict[str, Stream[np.ndarray]] = {}  # that a person sees
        self.success = False  # what a simulated world said last
        self._subscribe()

    @property
    def used(self) -> dict[str, Stream[Named]]:
        """The sensors that the robot's state is made of."""
        names = {g.source for g in self.robot.state} - {"position", "rot6d", "joints"}
        return {name: self.sensors[name] for name in names}

    def observer(self) -> Observer:
        """The streams as observations."""
        return Observer(self.robot, self.listener.readings, self.used, self.cameras)

    def _subscribe(self) -> None:
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, JointState
        from std_msgs.msg import Bool

        clocks, ahead, qos = NodeClocks(self.node), self.robot.limits.ahead, qos_profile_sensor_data
        for name, sensor in self.robot.sensors.items():
            numbers: Stream[Named] = Stream(name, HISTORY, sensor.latency, clocks, ahead)
            self.sensors[name] = numbers
            merged = NamedNumbers(sensor.topic, names_of(self.robot, name), clocks, ahead)
            take = partial(merged.feed, numbers)
            listen(self.node, JointState, sensor.topic, take, qos, missing=numbers.refuse)
        for name, camera in self.robot.cameras.items():
            if camera.observed or self._watched:
                pictures: Stream[np.ndarray] = Stream(name, 8, camera.latency, clocks, ahead)
                self.shown[name] = pictures
                if camera.observed:
                    self.cameras[name] = pictures
                show = _pictures_into(pictures, self.node)
                listen(self.node, Image, camera.topic, show, qos, missing=pictures.refuse)
        self.node.create_subscription(Bool, "world/success", self._take_success, 10)

    def _take_success(self, message: Any) -> None:
        self.success = message.data


class RosRobot:
    """A robot that `source` drives; `env` makes the world of it. Somebody spins its node in another thread.

    When `ended()`, an episode that waits for the arm's node is given up. `watched`: a person sees all its cameras.
    """

    def __init__(
        self, node: Node, robot: RobotFile, source: str = "policy", ended: Callable[[], bool] = lambda: False,
        watched: bool = False,
    ) -> None:  # fmt: skip
        from rcl_interfaces.srv import SetParameters
        from std_srvs.srv import Trigger

        self.node, self.robot, self.streams = node, robot, RosStreams(node, robot, watched)
        self.clock, self.arm = RosClock(node), RosArm(node, robot, self.streams.listener, source, ended)
        self._source = source
        self._reset = node.create_client(Trigger, "world/reset")
        self._seeds = node.create_client(SetParameters, "sim_robot/set_parameters")

    def env(self, aside: Corrector | None = None) -> RealEnv:
        """The robot as an `Env`, judged by `world/success`, and by the person `aside` it where there is one."""
        streams = self.streams

        def prepare(seed: int | None) -> None:
            if aside is not None:
                aside.begin()
            self.prepare(seed)

        def judge() -> bool:
            return streams.success or (aside is not None and aside.solved())

        env = RealEnv(
            self.robot, self.arm, self.clock, prepare=prepare, judge=judge, human=aside or nobody, source=self._source,
            sensors=streams.used, cameras=streams.cameras, shown=streams.shown, on_plan=self.arm.show_plan,
        )  # fmt: skip
        if aside is not None:
            aside.env = env
        return env

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
        self.streams.success = False

    def _reset_world(self, seed: int | None) -> None:
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue

        if seed is not None:
            value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
            call(self._seeds, parameters=[Parameter(name="seed", value=value)])
        call(self._reset)
        time.sleep(SETTLE)  # the arm's node shall not begin from a reading of before


def _pictures_into(stream: Stream[np.ndarray], node: Node) -> Callable[[Any], None]:
    from drivers.messages import frame_of

    def take(message: Any) -> None:
        try:
            frame = frame_of(message)
        except RobotRLError as error:  # raised here it would end the thread that spins, and with it all streams
            node.get_logger().error(f"{stream.name}: {error}", throttle_duration_sec=1.0)
            stream.refuse(str(error))
            return
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


@contextmanager
def driven(robot: RobotFile, source: str) -> Iterator[RealEnv]:
    """The robot as an `Env` that `source` commands; ROS is initialised, and is ended after the arm was let go."""
    import rclpy

    node = rclpy.create_node(f"{source}_collect")
    end_spinning = spin_in_thread(node)
    env = RosRobot(node, robot, source, watched=True).env()
    try:
        yield env
    finally:
        env.close()
        end_spinning()
        end_ros(node)


def connect(robot: RobotFile, aside: Callable[[], Corrector | None] = lambda: None) -> RealEnv:
    """The robot as an `Env` of this process, from now on until it ends."""
    import atexit

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("practice")
    atexit.register(end_ros, node)
    atexit.register(spin_in_thread(node))  # called before it
    person = aside()
    return RosRobot(node, robot, watched=person is not None).env(person)
