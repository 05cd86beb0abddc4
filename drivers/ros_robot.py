"""A robot's topics and services as what `RealEnv` needs: an arm, sensors, cameras, a clock, and how to begin.

`RosStreams` is the part of it that only listens.

Readings come in an executor's thread and are looked up in the loop's; nothing here waits for a message but `prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.arm_listener import HISTORY, ArmListener
from drivers.assisted import Corrector
from drivers.clocks import STEP, SimulatedTime, StepWatch, read_together
from drivers.named_numbers import NamedNumbers, names_of
from drivers.node_process import end_ros, init_ros, make_node
from drivers.observer import Named, Observer
from drivers.real_env import RealEnv
from drivers.robot_file import RobotFile
from drivers.ros_arm import ANSWER, LATELY, START, RosArm, call
from drivers.subscriptions import NodeClocks, listen
from drivers.sync import Stream
from drivers.teleop import nobody
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

COME_TO_REST = 5.0  # [s]
SETTLE = 0.2  # [s]
STANDS = 1.0  # a simulator's clock that does not move for so long stands still [s]


class RosClock:
    """Implements `Clock` by the node's: the system's, or a simulator's with use_sim_time, which ticks follow then.

    A sleep ends early when `woken()`.
    """

    def __init__(self, node: Node, woken: Callable[[], bool] = lambda: False) -> None:
        self._clock, self._woken = node.get_clock(), woken
        self._simulated = SimulatedTime() if node.get_parameter("use_sim_time").value else None
        self._longest = 0.005 if self._simulated else 0.05
        self._steps = StepWatch(STEP, simulated=self._simulated is not None)

    def now(self) -> float:
        """[s]"""
        return self._clock.now().nanoseconds * 1e-9

    def steady(self) -> float:
        """This computer's [s]; or a simulator's without its steps."""
        steady = time.monotonic()
        return steady if self._simulated is None else self._simulated.read(self.now(), steady)

    def stepped(self) -> float:
        """See `Clock`."""
        return self._steps.look(*read_together(self.now))

    def sleep_until(self, moment: float) -> None:
        """Sleeps; a simulator's clock that stands still is looked at again every 5 ms, and not waited for for ever."""
        seen, since = -np.inf, 0.0
        while (left := moment - (now := self.steady())) > 0 and not self._woken():
            if now != seen:
                seen, since = now, time.monotonic()
            elif self._simulated is not None and time.monotonic() > since + STANDS:
                return  # whoever waits sees then what is silent
            time.sleep(min(left, self._longest))


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
    `waits`: an episode begins when a person has reset an arm that is stopped for good; else it is an error.
    """

    def __init__(
        self, node: Node, robot: RobotFile, source: str = "policy", ended: Callable[[], bool] = lambda: False,
        watched: bool = False, waits: bool = True,
    ) -> None:  # fmt: skip
        from rcl_interfaces.srv import SetParameters
        from std_srvs.srv import Trigger

        self.node, self.robot, self.streams = node, robot, RosStreams(node, robot, watched)
        self.clock, self.arm = RosClock(node, ended), RosArm(node, robot, self.streams.listener, source, ended)
        self._source, self._waits = source, waits
        self._reset_world_client = node.create_client(Trigger, "world/reset")
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
        """Wait for a person where the arm is stopped for good; then come to rest, set a simulated world back, go home
        where there is one, and take command. Whatever is raised, the arm is given back.
        """
        while True:
            self.arm.await_permission(self._waits)
            try:
                self._begin(seed)
                return
            except BaseException as error:
                self.arm.hold()
                if not (self._waits and self._was_stopped(error)):
                    raise

    def _was_stopped(self, error: BaseException) -> bool:
        """Whether that is why it could not begin: its node's word may come after a service's that said no."""
        if not isinstance(error, RobotRLError):
            return False
        time.sleep(LATELY)
        return bool(self.arm.latched)

    def _begin(self, seed: int | None) -> None:
        self._await_sight()
        self.arm.await_status(lambda: self.arm.status["rests"] == "True", COME_TO_REST, "come to rest")
        if self._reset_world_client.service_is_ready():
            self._reset_world(seed)
            self._await_sight()  # a simulator that builds its world anew says nothing for long
        if self.robot.home:
            self.arm.go_home()
        self.arm.take()
        self.arm.await_status(lambda: not self.arm.stopped, ANSWER, "obey")
        self.streams.success = False

    def _await_sight(self) -> None:
        self.arm.await_status(lambda: self.arm.status["sees the arm"] == "True", START, "see the arm")

    def _reset_world(self, seed: int | None) -> None:
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue

        if seed is not None:
            value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
            call(self._seeds, parameters=[Parameter(name="seed", value=value)])
        call(self._reset_world_client)
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


def spin_in_thread(node: Node) -> Callable[[], None]:
    """Spin `node` beside the caller; returns what ends that."""
    from rclpy.executors import SingleThreadedExecutor

    executor, over = SingleThreadedExecutor(), Event()
    executor.add_node(node)

    def run() -> None:
        while not over.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads
        executor.shutdown()
        raise

    def end() -> None:  # shut down while it runs a callback, an executor would end that with a traceback
        over.set()
        executor.wake()
        thread.join()
        executor.shutdown()

    return end


@contextmanager
def driven(robot: RobotFile, source: str, ended: Callable[[], bool]) -> Iterator[RealEnv]:
    """The robot as an `Env` that `source` commands, for a person, who is told what has to be mended.

    ROS is initialised, and is ended after the arm was let go.
    """
    with ExitStack() as stack:
        stack.callback(end_ros, node := make_node(f"{source}_collect"))
        stack.callback(spin_in_thread(node))
        env = RosRobot(node, robot, source, ended, watched=True, waits=False).env()
        stack.callback(env.close)
        yield env


def connect(robot: RobotFile, aside: Callable[[], Corrector | None] = lambda: None) -> RealEnv:
    """The robot as an `Env` of this process, from now on until it ends."""
    import atexit

    init_ros()
    node = make_node("practice")
    atexit.register(end_ros, node)
    atexit.register(spin_in_thread(node))  # called before it
    person = aside()
    return RosRobot(node, robot, watched=person is not None).env(person)
