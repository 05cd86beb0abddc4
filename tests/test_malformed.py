"""Messages that are empty, too short, of unequal lengths, no numbers: no callback of any node raises, nothing moves.

Each node is the real one, on fake topics; all that it subscribes to is fed, in any order. A callback that raised would
end the thread that spins, and with it every stream of its process.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from drivers.robot_file import CameraFile, KinematicsFile
from robot_rl.types import RobotRLError
from tests.benchmarks.fake_ros import FakeNode, Times
from tests.lockstep import DOWN, MIDDLE, ROBOT
from tests.lockstep import JOINTS as NAMES

pytest.importorskip("sensor_msgs")
ROUNDS = 40
SEES = replace(
    ROBOT,
    wrench="wrench",
    gripper=replace(ROBOT.gripper, joint_states="fingers"),
    cameras={"wrist": CameraFile("wrist", 4, 4), "deep": CameraFile("deep", 4, 4, depth=True)},
)
NUMBERS = (math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 0.0)
WORDS = ("", "x", "base", "joint1", "joint2", "finger", "cube_x", "holder", "lease", "opening", "rgb8", "32FC1", "1e9")


def malformed(kind, rng):
    """A message of `kind` with anything in its fields, but no wish that one could follow."""
    message = kind()
    for name, of in message.get_fields_and_field_types().items():
        before = getattr(message, name)
        if of.startswith("sequence<"):
            setattr(message, name, [value(of[9:-1], before, rng) for _ in range(rng.choice((0, 1, 2, 7, 9)))])
        elif "[" not in of:
            setattr(message, name, value(of, before, rng))
    return message


def value(of, before, rng):
    if of in ("double", "float"):
        number = rng.choice(NUMBERS)
        return number if of == "double" or abs(number) < 1e38 or not math.isfinite(number) else 1e38
    if of == "string":
        return rng.choice(WORDS)
    if of in ("boolean", "octet", "byte"):
        return rng.choice((True, False)) if of == "boolean" else bytes([rng.randrange(3)])
    if of.startswith(("int", "uint")):
        bits = int(of.removeprefix("u").removeprefix("int"))
        low, high = (0, 2**bits - 1) if of[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return rng.choice((0, 1, 4, low, high))
    if hasattr(before, "get_fields_and_field_types"):
        return malformed(type(before), rng)
    module, inner = of.split("/")
    return malformed(getattr(__import__(f"{module}.msg", fromlist=[inner]), inner), rng)


class Ros(FakeNode):
    """A node whose clock and log are there."""

    def get_name(self):
        return "node"

    def get_namespace(self):
        return "/"


def feed(node, after=lambda: None):
    """Everything to everyone; by turns with what is in order, so that there is something to spoil."""
    assert node.listens
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        for topic, kind, hear in rng.sample(node.listens, len(node.listens)):
            try:
                hear(malformed(kind, rng))
                after()
            except Exception as error:
                raise AssertionError(f"seed {seed}: a {kind.__name__} on {topic}: {error!r}") from error
            node.times.steady += 0.001


def say_how_the_arm_is(node, robot):
    """What is in order, of all its parts."""
    from geometry_msgs.msg import WrenchStamped

    from drivers.messages import numbers_msg, pose_msg

    now = node.times.now
    values = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8])
    node.heard[robot.joint_states](numbers_msg(now, list(NAMES), values))
    node.heard[robot.gripper.joint_states](numbers_msg(now, ["finger"], np.array([0.02])))
    node.heard[robot.pose](pose_msg(now, "base", MIDDLE, DOWN))
    node.heard["wrench"](WrenchStamped())


@pytest.fixture
def node(monkeypatch):
    times = Times()
    monkeypatch.setattr(time, "monotonic", lambda: times.steady)
    return Ros(times)


def test_fault_f47_the_arms_node_moves_nothing(node):
    from drivers.arm_node import ArmNode
    from drivers.messages import pose_msg

    arm = ArmNode(node, SEES)
    sent = node.publishers["target_pose"].sent

    def tick():
        node.times.steady += 0.005
        arm.tick()

    def armed():
        node.times.steady += 0.01
        say_how_the_arm_is(node, SEES)
        tick()
        if arm.authority.latched:
            node.services["reset"]()
        if not arm.authority.held:
            node.services["policy/arm"]()
        else:
            node.heard["policy/target_pose"](pose_msg(node.times.now, "base", MIDDLE, DOWN))

    for _ in range(10):
        armed()
    assert arm.authority.held
    seen = set()
    feed(node, lambda: (tick(), armed(), seen.add(arm.authority.state)))
    assert {"armed", "commanded"} <= seen, "else nothing could have moved"
    away = max(np.abs([m.pose.position.x, m.pose.position.y, m.pose.position.z] - MIDDLE).max() for m in sent)
    assert len(sent) > 100 and away < 1e-6


def test_fault_f47_the_simulated_arm_is_told_nothing_that_is_none(node):
    from drivers.sim_robot_node import SimRobotNode

    told = []
    world = SimpleNamespace(
        base_name="base", joint_names=[*NAMES, "finger"], camera_names=[], object_names=["cube_x"],
        command=lambda *pose: told.append(np.concatenate(pose)), grip=lambda opening: told.append([opening]),
    )  # fmt: skip
    SimRobotNode(node, replace(ROBOT, cameras={}), world)
    feed(node)
    assert told and all(np.isfinite(numbers).all() for numbers in told), "a single finite opening is in order"
    assert all(len(numbers) == 1 for numbers in told)


def test_fault_f47_who_drives_an_arm_goes_on(node):
    from drivers.ros_robot import RosRobot
    from robot_rl.types import Target

    robot = RosRobot(node, SEES, watched=True)
    env = robot.env()
    target = Target(node.times.now, MIDDLE, DOWN, 1.0, "policy")

    def look():
        arm, streams = robot.arm, robot.streams
        _ = arm.stopped, arm.latched, arm.commanded_opening, streams.listener.problem, env.pictures, env.lagging
        arm.command(target)
        try:
            env._observer.observe()
        except RobotRLError:
            return
        assert np.isfinite(env._observer.observe()["state"]).all()

    feed(node, look)
    assert not node.publishers["policy/target_pose"].sent


def test_fault_f47_a_recorder_keeps_nothing_that_is_none(node, tmp_path):
    from drivers.recorder import RecorderNode
    from robot_rl.episodes import EpisodeStore

    with EpisodeStore.create(tmp_path / "store", SEES.spec()) as store:
        recorder = RecorderNode(node, SEES, store, "robot.yaml", lambda: False)
        kept = recorder.recorder.setpoints

        def look():
            recorder.publish_status()
            assert not len(kept) or np.isfinite([*kept.last.position, *kept.last.turn, kept.last.gripper]).all()

        feed(node, look)


def test_fault_f47_a_viewer_shows_on(node):
    from drivers.live_view import connect

    numbers = []
    screen = SimpleNamespace(
        at=numbers.append, picture=lambda n, image: numbers.append(image.size),
        point=lambda n, at: numbers.extend(at), path=lambda n, points: numbers.extend(points.ravel()),
        pose=lambda n, p, q: None, numbers=lambda n, values: None, words=lambda n, text: None,
    )  # fmt: skip
    view = connect(node, SEES, screen)
    feed(node, view.show)
    assert np.isfinite(numbers).all()


def test_fault_f47_check_tells_it(node):
    from drivers import check
    from drivers.check_listener import CheckListener

    listener = CheckListener(node, SEES, 2.0)

    def look():
        steady = time.monotonic()
        check.table(listener.streams, steady)
        list(check.streams_wrong(listener.streams, {}, steady))
        list(check.arm_wrong(SEES, listener.measured, None))
        list(check.names_wrong(SEES, listener.streams))

    feed(node)
    look()


@pytest.mark.parametrize("device", ["joy", "twist", "leader"])
def test_fault_f37_a_device_moves_nothing(node, monkeypatch, device):
    import rclpy

    from drivers import ros_devices, ros_robot
    from drivers.teleop import DeviceLost

    monkeypatch.setattr(rclpy, "ok", lambda: True)
    monkeypatch.setattr(rclpy, "create_node", lambda _: node)
    monkeypatch.setattr(ros_robot, "spin_in_thread", lambda _: lambda: None)
    monkeypatch.setattr(ros_devices.Listener, "require", lambda *_: None)
    kinematics = KinematicsFile("robosuite:panda", NAMES, "right_hand", "link0")
    made = {
        "joy": lambda: ros_devices.Joy("topic"),
        "twist": lambda: ros_devices.Twist("topic", SEES.spec(), "base"),
        "leader": lambda: ros_devices.Leader("topic", SEES.spec(), replace(SEES, kinematics=kinematics)),
    }[device]()

    def look():
        made.events()
        try:
            hand = made.hand()
        except DeviceLost:
            return
        assert hand is None or not np.abs(hand[:6]).any()

    feed(node, look)
