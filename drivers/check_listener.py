"""Listens to all topics of a robot for a few seconds, and to who else is there; check.py judges. Publishes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers import check
from drivers.arm_listener import OFTEN
from drivers.arm_node import SOURCES
from drivers.check import Finding, Heard, Measured
from drivers.check_gripper import action_wrong, actions
from drivers.consistent import PATIENCE
from drivers.health import HealthLimits, Level, StreamHealth, camera_limits
from drivers.messages import frame_of, pose_of, stamp_of, status_of
from drivers.named_numbers import malformed
from drivers.node_process import LOOK, end_ros, make_node, room_for_pictures, start_ros
from drivers.observer import oldest
from drivers.robot_file import CameraFile, RobotFile
from drivers.sound import excerpt
from drivers.subscriptions import endpoint, name_of, quality
from robot_rl.types import CameraSpec, RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

DISCOVERY = 5.0  # nodes that are there may take so long to find one another [s]
OURS = ("/rosout", "/parameter_events")  # every node's


class CheckListener:
    """Subscribes to each stream of the robot's file; whoever spins `node` fills it."""

    def __init__(self, node: Node, robot: RobotFile, seconds: float) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseStamped, WrenchStamped
        from sensor_msgs.msg import Image, JointState

        self.node, self.robot, self._seconds = node, robot, seconds
        self.streams: list[Heard] = []
        self.measured = Measured()
        age = robot.limits.age
        arm = HealthLimits(robot.servo_rate, age / 2, age, ahead=robot.limits.ahead, frozen=inf)
        self._parts: dict[tuple[str, frozenset[str]], Heard] = {}
        self._hear("joint_states", JointState, robot.joint_states, arm, self._take_joints)
        if robot.gripper.joint_states:
            self._hear("gripper.joint_states", JointState, robot.gripper.joint_states, arm, self._take_joints)
        self._hear("pose", PoseStamped, robot.pose, arm, self._take_pose)
        if robot.wrench:
            self._hear("wrench", WrenchStamped, robot.wrench, arm, self._take_wrench)
        for name, sensor in robot.sensors.items():
            limits = replace(arm, rate=robot.rate)
            self._hear(f"sensors.{name}", JointState, sensor.topic, limits, _take_numbers)
        for name, camera in robot.cameras.items():
            limits = replace(_camera_limits(camera), ahead=robot.limits.ahead)
            self._hear(f"cameras.{name}", Image, camera.topic, limits, _take_picture(camera))
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 1)

    def now(self) -> float:
        """The time of the stamps [s]."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    @property
    def hears_all(self) -> bool:
        """Whether each stream has said something."""
        return all(heard.ages or heard.wrong for heard in self.streams)

    def _hear(
        self, name: str, kind: Any, topic: str, limits: HealthLimits, take: Callable[[Heard, Any], np.ndarray | None]
    ) -> None:
        """`take` keeps what it wants of a message, and returns the picture where it is one."""
        health = StreamHealth(replace(limits, window=self._seconds))
        first = Heard(name, self.node.resolve_topic_name(topic), name_of(kind), health)
        self._hold(first)
        self.streams.append(first)

        def came(message: Any, info: dict[str, Any]) -> None:
            steady, now = time.monotonic(), self.now()
            heard = self._part(first, message) if hasattr(message, "name") else first
            try:
                image = take(heard, message)
            except RobotRLError as error:
                heard.wrong = str(error)
                return
            stamp = now if name == "wrench" else stamp_of(message.header)  # wrenches count by arrival
            heard.add(stamp, now, steady, info["publication_sequence_number"], image)

        callback: Any = came  # rclpy's hints know of one argument, and it gives two to who takes two
        self.node.create_subscription(kind, topic, callback, quality(reliable=False))

    def _hold(self, heard: Heard) -> None:
        """Judge it by the rules of those who hold the arm: `deploy` what it sees, the arm's node what it moves by."""
        name, robot = heard.name, self.robot
        seen = {f"cameras.{n}" for n, camera in robot.cameras.items() if camera.observed}
        seen |= {f"sensors.{group.source}" for group in robot.state}
        if name in {"joint_states", "gripper.joint_states", "pose", *seen}:
            heard.oldest = oldest(robot)
        if name in ("joint_states", "pose", "wrench"):
            heard.patience = PATIENCE / robot.rate
        if name == "wrench":
            heard.often, heard.oldest = OFTEN / robot.rate, robot.limits.age

    def _part(self, first: Heard, message: Any) -> Heard:
        """What is heard on the topic of `first` of the names in `message`: fingers may publish apart from the arm."""
        part = frozenset(message.name)
        if not first.part:
            self._parts[first.topic, part], first.part = first, part
            self._slow(first)
        if (first.topic, part) not in self._parts:
            health = StreamHealth(replace(first.health.limits, rate=self.robot.servo_rate))
            made = Heard(first.name, first.topic, first.kind, health, part=part)
            self._hold(made)
            self._slow(made)
            self._parts[first.topic, part] = made
            self.streams.insert(self.streams.index(first) + 1, made)
            for other in (h for (topic, _), h in self._parts.items() if topic == first.topic):
                other.shared, other.health.counted = True, False  # the count is of all that one node publishes
        return self._parts[first.topic, part]

    def _slow(self, heard: Heard) -> None:
        """Whatever is no joint of the arm may come as seldom as the policy looks."""
        if not heard.part & set(self.robot.joints):
            heard.health.limits = replace(heard.health.limits, rate=self.robot.rate)
            heard.patience = inf
            if self.robot.gripper.joint in heard.part:
                heard.often = OFTEN / self.robot.rate

    def _take_joints(self, heard: Heard, message: Any) -> None:
        _take_numbers(heard, message)
        self.measured.joints |= heard.numbers

    def _take_pose(self, _heard: Heard, message: Any) -> None:
        frame = message.header.frame_id
        self.measured.frame = frame if frame == self.robot.base_frame else excerpt(frame)
        self.measured.position, self.measured.turn = pose_of(message)

    def _take_wrench(self, _heard: Heard, message: Any) -> None:
        force, torque = message.wrench.force, message.wrench.torque
        self.measured.wrench = np.array([force.x, force.y, force.z, torque.x, torque.y, torque.z])

    def _take_status(self, message: Any) -> None:
        values, stopped = status_of(message)
        self.measured.arm_node = stopped if values.get("sees the arm") == "True" else "it does not see the arm"


class Graph:
    """Who publishes and who listens, by topic; without `node` itself."""

    def __init__(self, node: Node) -> None:
        own = node.get_name(), node.get_namespace()
        topics = [topic for topic, _ in node.get_topic_names_and_types() if topic not in OURS]
        self.publishers, self.subscribers = (
            {t: found for t in topics if (found := [i for i in get(t) if (i.node_name, i.node_namespace) != own])}
            for get in (node.get_publishers_info_by_topic, node.get_subscriptions_info_by_topic)
        )
        self.published, self.heard = (
            {t: [endpoint(info) for info in infos] for t, infos in found.items()}
            for found in (self.publishers, self.subscribers)
        )

    def refused(self, topic: str, ours: Any, publishes: bool) -> Iterator[str]:
        """Who is on `topic` and cannot be matched with our profile `ours`, by which we publish or listen; and why."""
        from rclpy.qos import QoSCompatibility, qos_check_compatible

        for info in (self.subscribers if publishes else self.publishers).get(topic, []):
            pair = (ours, info.qos_profile) if publishes else (info.qos_profile, ours)
            verdict, reason = qos_check_compatible(*pair)
            if verdict == QoSCompatibility.ERROR:
                does = "listen best effort or reliable, and volatile" if publishes else "publish reliable and volatile"
                node, why = endpoint(info).node, reason.replace("ERROR: ", "").strip("; ")
                yield f"{topic}: the QoS of {node} does not match ours, {why}: let it {does}, without a deadline"


def run(robot: RobotFile, seconds: float) -> tuple[str, bool]:
    """Listen; the table with all that was found, and whether the robot is ready.

    `seconds` count from when all streams are heard, or from when 5 s did not suffice for that.
    """
    if not seconds > 0:
        raise RobotRLError(f"listening for {seconds} s hears nothing: take 2 s or more")
    kinematics = None
    if robot.kinematics is not None:
        from drivers.kinematics import from_file

        kinematics = from_file(robot.kinematics)
    asked = start_ros()
    with room_for_pictures():
        node = make_node("check")
    listener = CheckListener(node, robot, seconds)
    _listen(listener, seconds, asked)
    steady, graph = time.monotonic(), Graph(node)
    findings = [*check.arm_wrong(robot, listener.measured, kinematics), *_found(listener, graph, steady)]
    end_ros(node)
    if asked():
        raise KeyboardInterrupt
    text = f"{check.table(listener.streams, steady)}\n\n{check.in_words(findings)}"
    return text, all(level < Level.ERROR for level, _ in findings)


def _listen(listener: CheckListener, seconds: float, asked: Callable[[], bool]) -> None:
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(listener.node)
    end = time.monotonic() + DISCOVERY
    while time.monotonic() < end and not asked() and not listener.hears_all:
        executor.spin_once(timeout_sec=LOOK)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not asked():
        executor.spin_once(timeout_sec=LOOK)
    executor.shutdown()


def _found(listener: CheckListener, graph: Graph, steady: float) -> Iterator[Finding]:
    robot, resolve = listener.robot, listener.node.resolve_topic_name
    yield from check.streams_wrong(listener.streams, graph.published, steady)
    yield from check.names_wrong(robot, listener.streams)
    topics = resolve(robot.controller.topic), resolve(robot.gripper.topic)
    fingers = action_wrong(robot, topics[1], *actions(listener.node))
    commands = check.commands_wrong(robot, topics, graph.published, graph.heard)
    for wrong in (*commands, *fingers, *_refused(listener, graph)):
        yield Level.ERROR, wrong
    if (says := listener.measured.arm_node) is not None:
        yield (Level.ERROR if "not see" in says else Level.WARN), f"arm_node: {says or 'somebody commands the arm'}"
    else:
        yield Level.WARN, f"no arm_node is heard on {resolve('arm_status')}: nothing will move the arm before it runs"


def _refused(listener: CheckListener, graph: Graph) -> Iterator[str]:
    robot, resolve = listener.robot, listener.node.resolve_topic_name
    for heard in listener.streams:
        yield from graph.refused(heard.topic, quality(reliable=False), publishes=False)
    for topic in (robot.controller.topic, robot.gripper.topic):
        yield from graph.refused(resolve(topic), quality(reliable=True), publishes=True)
    for topic in (f"{source}/{what}" for source in SOURCES for what in ("target_pose", "target_gripper")):
        yield from graph.refused(resolve(topic), quality(reliable=True), publishes=False)


def _camera_limits(camera: CameraFile) -> HealthLimits:
    """Nothing may really move in a rendered scene, and it may be black."""
    limits = camera_limits(camera.rate)
    return replace(limits, frozen=inf) if camera.device.startswith("sim:") else limits


def _take_numbers(heard: Heard, message: Any) -> None:
    if wrong := malformed(message):
        raise RobotRLError(wrong)
    heard.numbers = dict(zip(message.name, message.position, strict=True))


def _take_picture(camera: CameraFile) -> Callable[[Heard, Any], np.ndarray]:
    def take(_heard: Heard, message: Any) -> np.ndarray:
        image = frame_of(message).image
        said = CameraSpec("", camera.height, camera.width, depth=camera.depth)
        if image.shape != said.shape or image.dtype != said.dtype:
            raise RobotRLError(
                f"pictures of {_kind_of(*image.shape)}, and the robot's file says {_kind_of(*said.shape)}: change one "
                "of them"
            )
        return image

    return take


def _kind_of(height: int, width: int, channels: int) -> str:
    return f"{width} x {height}, {'colour' if channels == 3 else 'depth'}"
