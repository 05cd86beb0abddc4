"""Silence, lying stamps, parts that come apart, listeners, topics of a wrong name, over DDS: F36, F40, F46, F47."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest

from drivers.messages import image_msg, numbers_msg, pose_msg
from drivers.robot_file import load
from robot_rl.types import Frame
from tests.ros.rig import HOLD, JOINTS, READY, ROBOT, Rig, robot_yaml

pytestmark = pytest.mark.timeout(60)
AGE = 0.2


class Parts(Rig):
    """A rig whose topics can fall silent, lie or come apart, each for itself."""

    silent: set[str] = set()
    apart = 0  # the fingers have messages of their own, one of so many of the arm's; 0: they come with the arm's
    _beat = 0

    def _publish(self) -> None:
        self._beat += 1
        if self.setpoints:
            self.position = self.position + 0.2 * (self.setpoints[-1][1] - self.position)
        stamp = self.now()
        if "joints" not in self.silent:
            together = slice(0, 7 if self.apart else 8)
            self._joints.publish(numbers_msg(stamp, self.names[together], np.array(self.values[together])))
        if self.apart and self._beat % self.apart == 0 and "fingers" not in self.silent:
            self._joints.publish(numbers_msg(stamp, ["finger"], np.array([0.04])))
        if "wrench" not in self.silent:
            self.feel(self.force)
        if "pose" not in self.silent:
            self._pose.publish(pose_msg(stamp, self.frame, self.position, self.turn))

    def feel(self, newtons: float) -> None:
        """Without a stamp."""
        wrench = self._wrench.msg_type()
        wrench.wrench.force.z = newtons
        self._wrench.publish(wrench)

    def braked(self, since: float, what: str) -> None:
        """The setpoint braked soon after `since` and stays; the time is printed."""
        time.sleep(HOLD + 0.425)
        took = self.braked_since(since) - since
        print(f"HELD {what}: braked {1000 * took:.0f} ms after; {self.stopped}")
        assert took <= HOLD and self.stopped


@pytest.fixture
def rig(node, file, arm_node):
    rig = Parts(node, file)
    rig.silent = set()
    yield rig
    rig.close()
    rig.judge()


@pytest.fixture
def elsewhere(domain):
    """A node as in another process: in one, DDS takes one type a topic."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    made = []

    def create(name):
        made.append(rclpy.create_node(name, context=context))
        return made[-1]

    yield create
    for other in made:
        other.destroy_node()
    context.try_shutdown()


def test_fault_f36_a_wrench_or_joints_that_fall_silent_stop_the_arm_which_is_not_armed_without_them(rig):
    for part, named in (("wrench", "wrench"), ("joints", "joint_states"), ("pose", "current_pose")):
        rig.arm()
        rig.stroll(0.4, speed=0.15)
        since = time.monotonic()
        rig.silent = {part}
        rig.stroll(0.3, speed=0.15)
        rig.braked(since, part)
        assert named in rig.stopped
        answer = rig.call("policy/arm")
        assert not answer.success and named in answer.message
        rig.silent = set()
        rig.reset()


def test_fault_f36_a_blow_of_300_n_between_two_poses_stops_and_so_does_a_wrench_that_is_no_number(rig):
    for newtons, words in ((300.0, "300 N"), (math.nan, "wrench")):
        rig.arm()
        rig.stroll(0.3)
        since = time.monotonic()
        rig.feel(newtons)
        rig.feel(0.0)  # at once it is over
        rig.stroll(0.3)
        rig.braked(since, f"a wrench of {newtons}")
        assert words in rig.stopped
        rig.feel(0.0)
        rig.reset()


def test_fault_f47_fingers_that_publish_apart_are_merged_and_named_when_they_are_gone(rig):
    rig.apart = 3
    time.sleep(0.3)
    rig.arm()
    begun = len(rig.setpoints)
    rig.stroll(2.0, speed=0.1)
    assert not rig.stopped, rig.stopped
    assert np.ptp([p[1] for _, p, _ in rig.setpoints[begun:]]) > 0.05, "it moved, and was not held"
    since, rig.silent = time.monotonic(), {"fingers"}
    for _ in range(50):
        rig.wish(rig.setpoints[-1][1])
        time.sleep(0.02)
        if rig.stopped:
            break
    print(f"HELD fingers: stopped within {1000 * (time.monotonic() - since):.0f} ms; {rig.stopped}")
    assert "joint_states: finger is 0.2" in rig.stopped and time.monotonic() - since < 0.4, "age, a tick, and a status"


def test_fault_f46_a_recorder_is_no_controller_and_the_controller_is_named(rig, node, elsewhere):
    from geometry_msgs.msg import Pose, PoseStamped

    rig.until(lambda: rig.status and rig.value("sees the arm") == "True", 15, "the node sees the arm")
    node.destroy_subscription(rig.controller)
    looker = elsewhere("rosbag2_recorder")
    looker.create_subscription(PoseStamped, "target_pose", print, 10)
    other = elsewhere("controller_of_poses")
    said = rig.until(lambda: "records" in (text := rig.call("policy/arm").message) and text, 5, "named")
    assert "nobody listens on /target_pose: is the controller active?; /rosbag2_recorder only records" in said
    looker.destroy_node()
    time.sleep(0.1)
    other.create_subscription(Pose, "target_pose", print, 10)
    rig.until(lambda: "/controller_of_poses (geometry_msgs/msg/Pose) wants" in rig.call("policy/arm").message, 3, "too")
    rig.controller = node.create_subscription(PoseStamped, "target_pose", rig._take, 100)
    rig.arm()
    assert rig.value("controller") == "/test"
    other.destroy_node()
    looker = elsewhere("rosbag2_recorder")
    looker.create_subscription(PoseStamped, "target_pose", print, 10)
    node.destroy_subscription(rig.controller)
    # Named too, where the graph of the arm's node shows it by then.
    rig.until(lambda: "nobody listens on /target_pose" in rig.stopped, 1.5, "stopped, as only the recorder is left")


def test_fault_f47_a_misspelt_topic_and_a_wrong_type_are_told_within_10_s(node, spawn, tmp_path, wait_until, elsewhere):
    from geometry_msgs.msg import Pose, PoseStamped, Twist, TwistStamped
    from sensor_msgs.msg import Joy

    from drivers.subscriptions import listen

    begin = time.monotonic()
    arm = spawn("-m", "drivers.arm_node", "--robot", robot_yaml(tmp_path / "robot.yaml", wrench="force"))
    node.create_publisher(PoseStamped, "curent_pose", 1)
    node.create_publisher(Pose, "force", 1)
    node.create_publisher(Twist, "policy/target_pose", 1)
    other, told = elsewhere("hand"), {}
    other.create_publisher(Twist, "twist", 1)
    other.create_publisher(Joy, "pad/joy", 1)
    for topic, kind in (("twist", TwistStamped), ("joy", Joy), ("well", Joy)):
        listen(node, kind, topic, print, 1, missing=lambda why, topic=topic: told.update({topic: why}))
    well = other.create_publisher(Joy, "well", 1)
    words = [
        "nothing came on /current_pose: nobody publishes /current_pose (geometry_msgs/msg/PoseStamped); there is "
        "/curent_pose (geometry_msgs/msg/PoseStamped by /test)",
        "nothing came on /force: /force is geometry_msgs/msg/Pose by /test, and must be geometry_msgs/msg/Wrench",
        "nothing came on /policy/target_pose: /policy/target_pose is geometry_msgs/msg/Twist by /test, and must be",
        "nothing came on /joint_states: nobody publishes /joint_states",
    ]

    def all_told():
        well.publish(Joy())
        return {"twist", "joy"} <= set(told) and all(text in arm.log.read_text() for text in words)

    wait_until(all_told, 10.0)
    print(f"TOLD within {time.monotonic() - begin:.1f} s of the start")
    assert "geometry_msgs/msg/Twist by /hand, and must be geometry_msgs/msg/TwistStamped" in told["twist"]
    assert "there is /pad/joy" in told["joy"] and "well" not in told
    assert "teleop/target_pose" not in arm.log.read_text(), "one that need not be there"


class Seen:
    """What a policy's process hears of a robot with a camera and a tracker; each picture and number says when."""

    def __init__(self, node, file):
        from geometry_msgs.msg import PoseStamped
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, JointState

        from drivers.ros_robot import RosStreams

        self.robot = load(file)
        self.streams = RosStreams(node, self.robot)
        self.watch, self.node = self.streams.observer(), node
        self.offset, self.silent, self.begin = {}, set(), time.monotonic()
        self.out = {
            "pose": node.create_publisher(PoseStamped, "current_pose", qos_profile_sensor_data),
            "joints": node.create_publisher(JointState, "joint_states", qos_profile_sensor_data),
            "tracker": node.create_publisher(JointState, "objects", qos_profile_sensor_data),
            "wrist": node.create_publisher(Image, "wrist/image_raw", qos_profile_sensor_data),
        }
        for name, period in (("pose", 0.01), ("joints", 0.01), ("tracker", 0.02), ("wrist", 1 / 30)):
            node.create_timer(period, lambda name=name: self.say(name))

    def time(self):
        return time.monotonic() - self.begin

    def now(self):
        return self.node.get_clock().now().nanoseconds * 1e-9

    def say(self, name):
        if name in self.silent:
            return
        offset = self.offset.get(name, 0.0)
        if callable(offset):
            offset = offset()
        stamp, t = self.now() + offset, self.time()
        if name == "pose":
            self.out[name].publish(pose_msg(stamp, "base", np.array([0.5, 0, 0.3]), np.array([1.0, 0, 0, 0])))
        elif name == "joints":
            self.out[name].publish(numbers_msg(stamp, [*JOINTS, "finger"], np.array([*READY, 0.04])))
        elif name == "tracker":
            self.out[name].publish(numbers_msg(stamp, ["cube"], np.array([t])))
        else:
            image = np.frombuffer(np.int32([round(1000 * t)] * 3).tobytes(), np.uint8).reshape(2, 2, 3)
            self.out[name].publish(image_msg(Frame(stamp, image, 0), "wrist"))

    def lag(self):
        """Of the picture and of the tracker that are seen [s]; None: the arm is held."""
        if self.watch.silent(self.now()):
            return None
        obs = self.watch.observe()
        taken = np.frombuffer(obs["image/wrist"].tobytes(), np.int32)[0] / 1000
        return self.time() - taken, self.time() - float(obs["state"][-1])


@pytest.fixture
def seen(node, tmp_path):
    cube = {"source": "tracker", "channels": ["cube"], "low": [-100.0], "high": [100.0]}
    camera = {"wrist": {"topic": "wrist/image_raw", "height": 2, "width": 2}}
    changes = {"state": [*ROBOT["state"], cube], "sensors": {"tracker": {"topic": "objects"}}, "cameras": camera}
    return Seen(node, robot_yaml(tmp_path / "robot.yaml", wrench="", **changes))


def test_fault_f40_lying_stamps_are_left_out_or_named_and_what_is_seen_stays_fresh(seen, wait_until):
    def watched(seconds):
        """The largest lags, how long nothing was seen, and why."""
        lags, held, why, end = [(0.0, 0.0)], 0.0, "", time.monotonic() + seconds
        while time.monotonic() < end:
            wait_until(lambda: True, 1)
            begin = time.monotonic()
            while time.monotonic() < begin + 0.01:
                wait_until(iter([False, True]).__next__, 1)
            lag = seen.lag()
            if lag is None:
                held, why = held + time.monotonic() - begin, seen.watch.silent(seen.now())
            else:
                lags.append(lag)
        return np.max(lags, axis=0), held, why

    wait_until(lambda: seen.lag() is not None, 10)
    once = iter([3600.0])
    seen.offset["wrist"] = lambda: next(once, 0.0)
    (picture, tracker), held, _ = watched(1.0)
    print(
        f"HELD one picture of the future: never; the picture lags by {1000 * picture:.0f} ms at most, {held:.2f} s held"
    )
    assert picture < 0.2 and tracker < 0.2 and held < 0.1
    for name, offset, words in (
        ("wrist", 0.3, "the stream 'wrist' is .* s old: its last reading is stamped 0.[23]. s in the future"),
        ("tracker", 1.0, "the stream 'tracker' is .* s old: its last reading is stamped (0.9.|1.0.) s in the future"),
    ):
        seen.offset = {name: offset}
        begin = time.monotonic()
        wait_until(lambda: seen.lag() is None, 0.3)
        took = time.monotonic() - begin
        said = seen.watch.silent(seen.now())
        print(f"HELD {name} {offset} s ahead: after {1000 * took:.0f} ms; {said}")
        assert re.search(words, said), said
        seen.offset = {}
        wait_until(lambda: seen.lag() is not None, 0.3)
    seen.silent = {"wrist"}
    begin = time.monotonic()
    wait_until(lambda: seen.lag() is None, 0.3)
    print(f"HELD camera unplugged: after {1000 * (time.monotonic() - begin):.0f} ms; {seen.watch.silent(seen.now())}")
    assert "'wrist'" in seen.watch.silent(seen.now())


CHECK = """
import sys
from pathlib import Path
from drivers import check_listener, robot_file
text, ready = check_listener.run(robot_file.load(Path(sys.argv[1])), 3.0)
print(text)
sys.exit(not ready)
"""


def test_fault_f46_check_refuses_a_camera_of_6_hz_with_both_numbers_and_takes_fingers_apart(node, spawn, tmp_path):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64MultiArray

    cameras = {n: {"topic": f"{n}/image_raw", "height": 2, "width": 2} for n in ("wrist", "side")}
    file = robot_yaml(tmp_path / "robot.yaml", cameras=cameras, home=[])
    rig = Parts(node, file)
    rig.silent, rig.apart = set(), 3
    fingers = node.create_subscription(Float64MultiArray, "gripper_position_controller/commands", print, 1)
    noise = np.random.default_rng(0)
    for name, rate in (("wrist", 6.0), ("side", 30.0)):
        out = node.create_publisher(Image, f"{name}/image_raw", qos_profile_sensor_data)

        def take(out=out):
            out.publish(image_msg(Frame(rig.now() - 0.02, noise.integers(80, 120, (2, 2, 3), np.uint8), 0), ""))

        node.create_timer(1 / rate, take)
    process = spawn("-c", CHECK, file)
    code, said = process.wait(30), process.log.read_text()
    problems = [line for line in said.splitlines() if line.startswith("PROBLEM")]
    print("\n".join(problems))
    assert code == 1 and len(problems) == 1 and "cameras.wrist: 6." in problems[0], said
    assert "30 Hz were asked for" in problems[0] and "the arm is held" in problems[0]
    assert "joint_states (finger)" in said and "lost" not in said
    assert fingers is not None
    rig.close()
