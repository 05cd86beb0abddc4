"""Silence, stamps of the future, clocks that step, on any stream: what is seen is fresh, or the arm is held and told.

F36, F40, F46, F47 of docs/faults.md, without ROS; those over DDS are in tests/ros/test_stream_faults.py.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import opencv_camera
from drivers.arm_listener import ArmReadings
from drivers.check import Endpoint, Heard, absent, commands_wrong, streams_wrong
from drivers.graph import listeners, only_looks
from drivers.health import HealthLimits, Level, StreamHealth, camera_limits
from drivers.named_numbers import NamedNumbers
from drivers.observer import Observer, oldest
from drivers.opencv_camera import OpencvCamera
from drivers.recorder import RecorderNode
from drivers.robot_file import CameraFile, ControllerFile
from drivers.sync import Stream
from robot_rl.types import RobotRLError
from tests.lockstep import DOWN, MIDDLE, ROBOT

EPOCH = 1.7e9
TICK, PERIOD = 0.01, 0.05  # of the arm, of the policy [s]
AGE = ROBOT.limits.age
SEES = replace(ROBOT, wrench="wrench", cameras={"wrist": CameraFile("wrist", 1, 1, rate=30.0)})
NAMES = [*SEES.joints, "finger"]


class World:
    """Implements `Clocks`; what robot, camera and tracker say under a clock that may step."""

    def __init__(self, robot=SEES):
        self.robot, self.time, self.step = robot, 0.0, 0.0
        self.arm = ArmReadings(robot, self)
        self.camera = Stream("wrist", 8, 0.0, self)
        self.tracker = Stream("tracker", 400, 0.0, self)
        self.watch = Observer(robot, self.arm.readings, {"tracker": self.tracker}, {"wrist": self.camera})
        self.due = dict.fromkeys(("pose", "joints", "fingers", "wrench", "tracker", "wrist"), 0.0)
        self.every = {**dict.fromkeys(self.due, TICK), "tracker": 0.02, "wrist": 1 / 30, "fingers": 1 / 30}
        self.wrong = {}  # what is done to a stream's stamps; None: it is silent

    def now(self):
        return EPOCH + self.time + self.step

    def steady(self):
        return 5.0 + self.time

    def run(self, seconds):
        end = self.time + seconds
        while (due := min(self.due.values())) <= end:
            name = min(self.due, key=lambda name: self.due[name])
            self.time, self.due[name] = max(self.time, due), due + self.every[name]
            self.say(name)
        self.time = end

    def header(self, stamp, frame="base"):
        if not math.isfinite(stamp):
            return SimpleNamespace(stamp=SimpleNamespace(sec=stamp, nanosec=0), frame_id=frame)
        sec, nanosec = divmod(round(max(stamp, 0.0) * 1e9), 10**9)
        return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=frame)

    def say(self, name):
        fault = self.wrong.get(name, lambda stamp: stamp)
        if fault is None:
            return
        stamp, t = fault(self.now() - 0.002), self.time
        if name == "pose":
            self.arm.take_pose(pose(self.header(stamp), MIDDLE + [0, 0, 1e-4 * t]))
        elif name == "joints":
            self.arm.take_joints(numbers(self.header(stamp), SEES.joints, [t] * 7))
        elif name == "fingers":
            self.arm.take_joints(numbers(self.header(stamp), ["finger"], [0.04]))
        elif name == "wrench":
            self.feel([0, 0, 1.0])
        elif name == "tracker":
            self.tracker.add(stamp, {"cube_x": t})
        else:
            self.camera.add(stamp, np.full((1, 1, 3), round(t * 30) % 256, np.uint8))

    def feel(self, force):
        """A wrench without a stamp, as some sensors send it."""
        force, torque = SimpleNamespace(**dict(zip("xyz", force, strict=True))), SimpleNamespace(x=0.0, y=0.0, z=0.0)
        wrench = SimpleNamespace(force=force, torque=torque)
        self.arm.take_wrench(SimpleNamespace(header=self.header(0.0), wrench=wrench))

    def seen(self):
        """When what an observation shows was true, by its parts [s]; None: the arm is held, and it is told why."""
        if self.arm.problem or self.watch.silent(self.now()):
            return None
        obs = self.watch.observe()
        picture = int(obs["image/wrist"][0, 0, 0])
        back = (round(self.time * 30) - picture) % 256
        return {"joints": float(obs["state"][9]), "tracker": float(obs["state"][-1]), "wrist": self.time - back / 30}


def numbers(header, names, positions):
    return SimpleNamespace(header=header, name=list(names), position=list(positions))


def pose(header, position):
    x, y, z = (float(v) for v in position)
    turn = SimpleNamespace(**dict(zip("xyzw", DOWN, strict=True)))
    return SimpleNamespace(
        header=header, pose=SimpleNamespace(position=SimpleNamespace(x=x, y=y, z=z), orientation=turn)
    )


STAMPED = ["pose", "joints", "fingers", "tracker", "wrist"]
OFFSETS = st.sampled_from([3600.0, 1.0, 0.3, 0.05, 0.021, 0.015, -0.015, -0.1, -0.19, -0.3, -10.0, -3600.0])
FAULTS = st.one_of(
    st.just(("silent", 0.0)),
    st.just(("zero", 0.0)),
    st.just(("stands", 0.0)),
    st.just(("nan", 0.0)),
    st.tuples(st.just("offset"), OFFSETS),
    st.tuples(st.just("once"), OFFSETS),
    st.tuples(st.just("shuffled"), st.sampled_from([0.03, 0.3])),
    st.tuples(st.just("clock"), OFFSETS),
)


def disturb(world, name, kind, size):
    """Begin a fault."""
    random = np.random.default_rng(0)
    if kind == "clock":
        world.step += size
        return
    standing, first = world.now(), iter([size])
    world.wrong[name] = {
        "silent": None,
        "zero": lambda stamp: 0.0,
        "stands": lambda stamp: standing,
        "nan": lambda stamp: math.nan,
        "offset": lambda stamp: stamp + size,
        "once": lambda stamp: stamp + next(first, 0.0),
        "shuffled": lambda stamp: stamp - random.uniform(0, size),
    }[kind]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STAMPED), FAULTS, st.floats(0.05, 0.6)), min_size=1, max_size=3))
def test_fault_f40_what_is_seen_is_fresh_or_it_is_told_and_all_is_well_soon_after_any_fault_of_a_stamp(faults):
    world = World()
    world.run(1.0)
    assert world.seen() is not None
    for name, (kind, size), seconds in faults:
        disturb(world, name, kind, size)
        for _ in range(round(seconds / PERIOD)):
            world.run(PERIOD)
            for part, at in (world.seen() or {}).items():
                assert world.time - at <= AGE + PERIOD, f"{part} is {world.time - at:.3f} s old, untold"
        world.wrong.pop(name, None)
    world.run(AGE + 0.01)
    seen = world.seen()
    assert seen is not None, world.arm.problem or world.watch.silent(world.now())
    for name, period in (("joints", 1 / 30), ("tracker", 0.02), ("wrist", 1 / 30)):
        # One moment of all: the arm's is that of its fingers, and the slowest stream's.
        assert world.time - seen[name] <= 2 * period + 1 / 30, f"{name} lags by {world.time - seen[name]:.3f} s"


@pytest.mark.parametrize(
    ("name", "kind", "size", "words"),
    [
        (
            "wrist",
            "offset",
            0.3,
            "'wrist' is .* old: .*stamped 0.30 s in the future: compare the two computers' clocks",
        ),
        ("tracker", "offset", 1.0, "'tracker' is .* old: .*stamped 1.00 s in the future"),
        ("wrist", "zero", 0.0, "'wrist' is .* old: its readings have no stamps; let the driver fill header.stamp"),
        ("wrist", "stands", 0.0, "'wrist' is .* old: its stamps stand still"),
        ("wrist", "offset", -10.0, "'wrist' is .* old: its last reading is stamped 10.0. s ago, before the one"),
        ("wrist", "silent", 0.0, "'wrist' is 0.2. s old$"),
        ("joints", "offset", 0.3, "joint_states: joint1, joint2, joint3 and 4 more is .* stamped 0.30 s in the future"),
        ("fingers", "silent", 0.0, "joint_states: finger is 0.2. s old"),
        ("pose", "offset", 2.0, "current_pose is .* old: its last reading is stamped 2.00 s in the future"),
    ],
)
def test_fault_f40_what_lies_or_falls_silent_is_named_within_0_2_s_of_its_last_good_word(name, kind, size, words):
    world = World()
    world.run(1.0)
    disturb(world, name, kind, size)
    begin = world.time
    while not (said := world.arm.problem or world.watch.silent(world.now())):
        world.run(0.005)
        assert world.time < begin + 0.5
    assert world.time - begin <= AGE + 0.01
    world.run(0.02)
    said = "\n".join([world.arm.problem, world.watch.silent(world.now())])
    assert re.search(words, said, re.MULTILINE), said


def test_fault_f40_one_picture_of_the_future_costs_one_picture():
    world, lags = World(), []
    world.run(1.0)
    disturb(world, "wrist", "once", 3600.0)
    for _ in range(100):
        world.run(0.01)
        lags.append((world.time - world.seen()["wrist"]) * 30)
    assert max(lags) <= 2.5 and world.camera.dropped == 1


def test_fault_f40_a_camera_that_is_unplugged_after_a_stamp_just_ahead_is_noticed_by_its_arrival():
    world = World()
    world.run(1.0)
    disturb(world, "wrist", "offset", 0.02)
    world.run(0.5)
    assert world.seen() is not None, "clocks differ a little"
    world.wrong["wrist"] = None
    world.run(AGE - 0.05)
    assert world.camera.wrong(AGE) == ""
    world.step = -(AGE - 0.05)  # the stamps' clock goes back meanwhile, so that no stamp shows it
    world.run(0.1)
    assert world.camera.wrong(AGE).startswith("the stream 'wrist' is silent for 0.2")


@pytest.mark.parametrize("step", [-3600.0, -10.0, -0.5, 0.5, 3600.0])
def test_fault_f40_when_the_clock_of_all_steps_the_streams_go_on_with_their_next_readings(step):
    world = World()
    world.run(1.0)
    world.step = step
    assert world.seen() is None, "what is known is of another time"
    world.run(0.1)
    assert world.seen() is not None and world.time - world.seen()["wrist"] < 0.08


# --- F36: the wrench, and the parts of the arm's state


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 200.0), min_size=1, max_size=30), st.integers(1, 7), st.integers(0, 10**6))
def test_fault_f36_the_strongest_wrench_between_two_ticks_is_what_a_tick_sees(forces, per_tick, seed):
    world = World()
    world.run(0.1)
    world.arm.sample()
    turns = np.random.default_rng(seed).normal(size=(len(forces), 3))
    for k in range(0, len(forces), per_tick):
        felt = forces[k : k + per_tick]
        for force, way in zip(felt, turns[k:], strict=False):
            world.feel(force * way / np.linalg.norm(way))
        assert np.linalg.norm(world.arm.newest.wrench[:3]) == pytest.approx(max(felt), abs=1e-9)
        assert np.linalg.norm(world.arm.sample().wrench[:3]) == pytest.approx(max(felt), abs=1e-9)
    assert np.linalg.norm(world.arm.sample().wrench[:3]) == pytest.approx(felt[-1], abs=1e-9), "else the last"


def test_fault_f36_a_wrench_that_is_no_number_stays_one_until_a_tick_saw_it():
    world = World()
    world.run(0.1)
    world.feel([math.nan, 0.0, 0.0])
    assert "wrench is no finite number" in world.arm.problem
    world.feel([0.0, 0.0, 1.0])
    assert world.arm.problem == "" and np.isnan(world.arm.sample().wrench).any()
    assert np.isfinite(world.arm.sample().wrench).all()


def test_fault_f36_a_wrench_counts_by_its_arrival_and_its_silence_stops_what_is_known_of_the_arm():
    world = World()
    world.wrong["wrench"] = None
    world.run(0.5)
    assert world.arm.problem == "nothing came yet on wrench" and not len(world.arm.readings)
    del world.wrong["wrench"]
    world.run(0.1)
    assert world.arm.problem == "" and len(world.arm.readings)
    world.wrong["wrench"] = None
    world.run(AGE + 0.01)
    assert "the wrench on wrench is silent for 0.2" in world.arm.problem
    newest = world.arm.readings.newest
    world.run(0.3)
    assert world.arm.readings.newest == newest and "wrench" in world.watch.silent(world.now())


# --- F47: numbers that come in parts


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=8, max_size=8), st.lists(st.integers(0, 2), min_size=3, max_size=60))
def test_fault_f47_parts_are_merged_by_name_and_as_old_as_the_oldest(part_of, order):
    world = World()
    merged = NamedNumbers("joint_states", NAMES, world)
    last = {}
    for k, part in enumerate(order):
        world.time = 0.01 * (k + 1)
        here = [name for name, its in zip(NAMES, part_of, strict=True) if its == part]
        if not here:
            continue
        assert merged.take(numbers(world.header(world.now()), here[::-1], [k] * len(here)))
        last |= dict.fromkeys(here, (k, world.now()))
    assert merged.values == {name: value for name, (value, _) in last.items()}
    assert merged.missing == [name for name in NAMES if name not in last]
    if last:
        assert merged.stamp() == pytest.approx(min(stamp for _, stamp in last.values()), abs=1e-6)
    oldest_part = {n for n in last if last[n][1] == min(s for _, s in last.values())}
    if not merged.missing and (wrong := merged.wrong(0.1)):
        assert len(set(part_of)) == 1 or any(name in wrong for name in oldest_part)


def test_fault_f47_an_arm_and_fingers_that_publish_apart_lose_nothing_and_a_part_that_is_gone_is_named():
    world = World()
    kept = world.arm.readings.add
    added = []
    world.arm.readings.add = lambda stamp, state: added.append(kept(stamp, state)) or added[-1]
    world.run(3.0)
    assert all(added) and len(added) > 80 and world.arm.readings.dropped == 0
    assert world.arm.newest.joints[0] == pytest.approx(world.time, abs=0.011), "the newest of each part"
    world.wrong["joints"] = None
    world.run(0.25)
    assert world.arm.problem.startswith("joint_states: joint1, joint2, joint3 and 4 more is 0.2")


def test_fault_f47_names_without_positions_are_named_and_not_guessed():
    world = World()
    world.wrong["joints"] = None
    world.arm.take_joints(numbers(world.header(world.now()), SEES.joints, [0.0] * 6))
    assert world.arm.numbers.refused == "a message has 7 names and 6 positions"
    world.run(0.1)
    assert "joint_states lacks joint1" in world.arm.problem
    for _ in range(30):
        world.run(0.01)
        world.arm.take_joints(numbers(world.header(world.now()), NAMES, [0.0] * 7))
    assert "joint_states" in world.arm.problem


def test_names_without_end_do_not_fill_the_memory():
    world = World()
    merged = NamedNumbers("joint_states", NAMES, world)
    for k in range(2000):
        world.time += 0.001
        merged.take(numbers(world.header(world.now()), [f"n{k}", "joint1"], [0.0, 0.0]))
    assert len(merged.values) <= 500 and len(merged._parts) <= 501 and "more than 500 names" in merged.malformed


def test_names_without_end_that_are_all_refused_do_not_fill_the_memory():
    world = World()
    merged = NamedNumbers("joint_states", NAMES, world)
    for k in range(2000):
        merged.take(numbers(world.header(world.now() + 3600), [f"n{k}"], [0.0]))
    assert not merged.values and len(merged._parts) <= 501 and "in the future" in merged.wrong(0.2)


def test_fingers_without_a_number_do_not_end_the_recorders_thread():
    recorder = SimpleNamespace(_opening=0.5)
    RecorderNode._take_gripper(recorder, numbers(World().header(0.0), [], []))
    assert recorder._opening == 0.5


POSE, TWIST = "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/TwistStamped"


def test_fault_f47_the_topic_that_was_meant_is_named_first_and_a_wrong_type_with_both():
    there = {t: [Endpoint("/n", POSE)] for t in ("/setpoint", "/a", "/b", "/c", "/d", "/e", "/f", "/zz")}
    said = absent("/current_pose", POSE, {**there, "/curent_pose": [Endpoint("/driver", POSE)]}, "publishes", "name it")
    assert "nobody publishes /current_pose" in said and "; there is /curent_pose (geometry_msgs/msg/PoseStamped" in said
    wrong = {"/twist": [Endpoint("/joy", "geometry_msgs/msg/Twist")]}
    assert (
        absent("/twist", TWIST, wrong, "publishes", "")
        == f"/twist is geometry_msgs/msg/Twist by /joy, and must be {TWIST}"
    )


# --- F46: who listens; and what is too slow


@pytest.mark.parametrize(
    "node",
    ["/rosbag2_recorder", "/fr3/recorder", "/view", "/check", "/_ros2cli_4711", "/foxglove_bridge", "/rqt_gui_9",
     "/rviz2", "/plotjuggler", "/rerun_bridge", "/my_bag_recorder", "/RosbagRecorder", "/pose_logger", "/a_collect"],
)  # fmt: skip
def test_fault_f46_who_only_records_or_shows_is_no_controller(node):
    found = listeners([Endpoint(node, POSE)], POSE)
    assert only_looks(node) and not found.controllers
    assert f"nobody listens on /target_pose: is the controller active?; {node} only records" in found.wrong(
        "/target_pose", POSE
    )
    named = listeners([Endpoint(node, POSE)], POSE, node.rsplit("/", 1)[-1])
    assert named.controllers == (node,) and named.wrong("/target_pose", POSE) == ""


@pytest.mark.parametrize(
    "node", ["/controller_manager", "/cartesian_controller", "/sim_robot", "/test", "/servo_node", "/ur/bagger_driver"]
)
def test_fault_f46_who_may_be_a_controller_counts_unless_the_file_names_another(node):
    assert listeners([Endpoint(node, POSE), Endpoint("/recorder", POSE)], POSE).controllers == (node,)
    other = listeners([Endpoint(node, POSE)], POSE, "cartesian")
    assert "the node 'cartesian' does not listen" in other.wrong("/t", POSE, "cartesian") and node in other.lookers
    wrong = listeners([Endpoint(node, TWIST)], POSE).wrong("/t", POSE)
    assert f"{node} ({TWIST}) wants another type" in wrong
    nameless = listeners([Endpoint("/_NODE_NAME_UNKNOWN_", POSE)], POSE)
    assert not nameless.controllers and "name is not known yet" in nameless.wrong("/t", POSE)


def test_fault_f46_check_says_so_too():
    robot = replace(SEES, controller=ControllerFile("cartesian_impedance", "target_pose", "cartesian"))
    there = {
        "/target_pose": [Endpoint("/rosbag2_recorder", POSE)],
        "/g": [Endpoint("/g", "std_msgs/msg/Float64MultiArray")],
    }
    said = list(commands_wrong(ROBOT, ("/target_pose", "/g"), {}, there))
    assert len(said) == 1 and "/rosbag2_recorder only records or shows it" in said[0]
    said = list(
        commands_wrong(robot, ("/target_pose", "/g"), {}, {**there, "/target_pose": [Endpoint("/other", POSE)]})
    )
    assert len(said) == 1 and "the node 'cartesian' does not listen on /target_pose" in said[0]


def heard_camera(rate, latency, seconds=10.0):
    limits = replace(camera_limits(30.0), window=seconds)
    heard = Heard("cameras.wrist", "/wrist", "sensor_msgs/msg/Image", StreamHealth(limits), oldest=oldest(SEES))
    for k in range(int(seconds * rate)):
        image = np.full((4, 4, 3), 100 + k % 50, np.uint8)
        heard.add(k / rate, k / rate + latency, k / rate + latency, k, image)
    return heard


@settings(max_examples=25, deadline=None)
@given(st.floats(4.5, 40.0), st.floats(0.0, 0.08))
def test_fault_f46_check_holds_a_camera_to_the_rule_by_which_deploy_holds_the_arm(rate, latency):
    """The share of the time that it tells is that in which an `Observer` calls the stream too old to act on."""
    heard, world = heard_camera(rate, latency), World()
    stream, late, k = Stream("wrist", 8, 0.0, world), [], 0
    for tick in range(1, 10_000):
        world.time = 0.001 * tick
        while k / rate + latency <= world.time:
            stream.add(EPOCH + k / rate, k)
            k += 1
        late.append(bool(stream.wrong(oldest(SEES))))
    share = float(np.mean(late[int(1000 * (latency + 1 / rate)) :]))
    said = heard.held()
    assert bool(said) == (share > 0.02) or share == pytest.approx(0.02, abs=0.01)
    if said:
        assert float(said.split(": ")[-1].split(" %")[0]) == pytest.approx(100 * share, abs=3)


def test_fault_f46_a_camera_of_6_hz_is_a_problem_with_both_numbers_and_one_of_30_hz_is_none():
    level, text = heard_camera(6.0, 0.03).verdict(10.0)
    assert level == Level.ERROR and text.startswith("6.0 Hz, and 30 Hz were asked for: its readings become 0.20 s old")
    assert heard_camera(30.0, 0.03).verdict(10.0)[0] == Level.OK


def test_fault_f40_check_counts_the_stamps_that_are_left_out():
    heard = heard_camera(30.0, 0.03, 2.0)
    heard.add(3602.0, 2.03, 2.03, 61, np.zeros((4, 4, 3), np.uint8) + np.uint8(100))
    heard.add(2.03, 2.06, 2.06, 62, np.zeros((4, 4, 3), np.uint8) + np.uint8(101))
    level, text = heard.verdict(2.06)
    assert level == Level.WARN and text == "1 of 62 stamps are up to 3599.97 s in the future"


def test_fault_f47_check_takes_parts_for_one_stream_and_two_of_a_kind_for_two():
    def joints(part):
        health = StreamHealth(HealthLimits(100.0, frozen=np.inf))
        heard = Heard("joint_states", "/joint_states", "sensor_msgs/msg/JointState", health, part=frozenset(part))
        heard.shared = True
        for k in range(200):
            heard.add(k / 100, k / 100 + 0.001, k / 100, None)
        return heard

    two = {"/joint_states": [Endpoint("/arm", "x"), Endpoint("/hand", "x")]}
    apart = [joints(SEES.joints), joints(["finger"])]
    assert not list(streams_wrong(apart, two, 2.0))
    for both in ([joints(SEES.joints)], [joints(SEES.joints), joints(NAMES)]):
        assert [t for _, t in streams_wrong(both, two, 2.0)] == [
            "2 publish on /joint_states: /arm, /hand; one of them has to go"
        ]


class Usb2:
    """Implements what is used of `cv2.VideoCapture`: a camera that gives 30 Hz in MJPG, and 6 Hz in YUYV."""

    def __init__(self, *_, compresses=True, tells=True):
        self.compresses, self.tells = compresses, tells
        self.asked = {cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV")}
        self.released = False

    def isOpened(self):  # noqa: N802
        return True

    def set(self, what, value):
        if what == cv2.CAP_PROP_FOURCC and not self.compresses:
            return False
        self.asked[what] = value
        return True

    def get(self, what):
        if what == cv2.CAP_PROP_FPS:
            plain = self.asked[cv2.CAP_PROP_FOURCC] != cv2.VideoWriter.fourcc(*"MJPG")
            return 0.0 if not self.tells else 6.0 if plain else 30.0
        return float(self.asked[what])

    def grab(self):
        return True

    def retrieve(self):
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self):
        self.released = True


@pytest.fixture
def v4l2(tmp_path, monkeypatch):
    (tmp_path / "video0").touch()
    monkeypatch.setattr(opencv_camera, "DEVICES", tmp_path)

    def plug(**how):
        device = Usb2(**how)
        monkeypatch.setattr(opencv_camera.cv2, "VideoCapture", lambda *_: device)
        return device

    return plug


def test_fault_f46_a_v4l2_camera_is_asked_for_mjpg_size_and_rate(v4l2):
    device = v4l2()
    OpencvCamera("0", 48, 64, 30.0).close()
    asked = [cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS]
    assert [device.asked[what] for what in asked] == [64, 48, 30.0]
    assert device.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter.fourcc(*"MJPG") and device.released


def test_fault_f46_a_rate_that_the_driver_does_not_give_is_named_with_what_it_gives(v4l2):
    device = v4l2(compresses=False)
    with pytest.raises(
        RobotRLError, match="gives 6 Hz in YUYV, and 30 Hz were asked for.*does not give MJPG, so USB 3"
    ):
        OpencvCamera("0", 48, 64, 30.0)
    assert device.released
    with pytest.raises(RobotRLError, match="gives 30 Hz in MJPG, and 15 Hz were asked for"):
        v4l2()
        OpencvCamera("0", 48, 64, 15.0)
    v4l2(tells=False)
    OpencvCamera("0", 48, 64, 30.0).close()  # a driver that says nothing is believed, and measured
