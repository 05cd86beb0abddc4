"""`robot-rl check` as a process of its own, around it a robot on real DDS: a good one is ready, each fault is named."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from drivers.kinematics import MujocoKinematics
from drivers.messages import image_msg
from robot_rl.geometry import quat_product
from robot_rl.types import Frame
from tests.ros.rig import JOINTS, READY, Rig, robot_yaml
from tests.test_kinematics import MODEL

SIZE = {"height": 12, "width": 16}
CAMERAS = {name: {"topic": f"{name}/image_raw", **SIZE, "observed": False} for name in ("wrist", "side")}
CAMERAS["side"]["device"] = "sim:side"
KINEMATICS = {"model": str(MODEL), "joints": JOINTS, "tool": "right_hand", "base": "link0", "offset": [0, 0, 0.097]}
CHECK = """
import sys
from pathlib import Path
from drivers import check_listener, robot_file
try:
    text, ready = check_listener.run(robot_file.load(Path(sys.argv[1])), float(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
print(text)
sys.exit(not ready)
"""


@pytest.fixture
def file(tmp_path):
    return robot_yaml(tmp_path / "robot.yaml", wrench="", home=[], cameras=CAMERAS, kinematics=KINEMATICS)


@pytest.fixture
def rig(node, file):
    """A robot without fault: its pose is that of its joints; a camera with noise, and a rendered one that stands."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64MultiArray

    made = Rig(node, file)
    kinematics = MujocoKinematics(MODEL, JOINTS, "right_hand", "link0", (0, 0, 0.097))
    made.position, made.turn = kinematics.pose(np.array(READY))
    made.fingers = node.create_subscription(Float64MultiArray, "gripper_position_controller/commands", print, 1)
    made.sees, noise = {"wrist", "side"}, np.random.default_rng(0)
    publishers = {n: node.create_publisher(Image, f"{n}/image_raw", qos_profile_sensor_data) for n in made.sees}

    def take_pictures():
        for name in made.sees:
            shape = (SIZE["height"], SIZE["width"], 3)
            moves = name == "wrist" and not made.frozen
            image = noise.integers(90, 110, shape, np.uint8) if moves else np.full(shape, 90, np.uint8)
            publishers[name].publish(image_msg(Frame(made.now() + made.offset, image, 0), name))

    made.frozen = False
    node.create_timer(1 / 30, take_pictures)
    yield made
    made.close()


@pytest.fixture
def checked(spawn, file):
    def check() -> tuple[int, str]:
        process = spawn("-c", CHECK, file, 2.5)
        code = process.wait(30)
        return code, process.log.read_text()

    return check


def test_a_good_robot_is_ready(rig, spawn, file):
    process = spawn("-m", "robot_rl.cli", "check", "--robot", file, "--seconds", 3)
    assert process.wait(60) == 0
    said = process.log.read_text()
    assert said.splitlines()[-1] == "ready" and "PROBLEM" not in said and "no arm_node is heard" in said
    assert not rig.setpoints, "nothing is published"


def test_faults_of_the_graph_are_named(rig, checked, node):
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data

    node.create_publisher(PoseStamped, "current_pose", 1)
    node.create_publisher(PoseStamped, "policy/target_pose", qos_profile_sensor_data)
    node.create_publisher(PoseStamped, "target_pose", 1)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(PoseStamped, "target_pose", print, latched)
    node.destroy_subscription(rig.fingers)
    code, said = checked()
    assert code == 1 and "not ready: 5 problems" in said
    assert "2 publish on /current_pose: /test, /test; one of them has to go" in said
    assert "/policy/target_pose: the QoS of /test does not match ours, Best effort publisher" in said
    assert "/target_pose: the QoS of /test does not match ours, Volatile publisher and transient local" in said
    assert "/test command /target_pose: only one arm_node may" in said
    assert "nobody listens on /gripper_position_controller/commands" in said


def test_faults_of_the_streams_are_named(rig, checked):
    rig.offset, rig.frozen, rig.frame, rig.sees = -1.5, True, "world", {"wrist"}
    rig.names = [name.replace("joint3", "elbow") for name in rig.names]
    code, said = checked()
    assert code == 1
    assert "the clocks differ by about 1.5" in said and "joint_states, pose, cameras.wrist: stamped" in said
    assert "current_pose is in the frame 'world', the robot's file says base_frame 'base'" in said
    assert "joint_states lacks joint3; it has joint1, joint2, elbow" in said
    assert "/test publishes /side/image_raw, and nothing comes" in said and "YES" in said


def test_a_base_that_looks_back_is_found_before_the_arm_moves_and_by_the_arm_node(rig, checked, spawn, file):
    """As between a UR's `base` and `base_link`, which are turned by pi about z."""
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig.position = rig.position * [-1, -1, 1]
    rig.turn = quat_product(np.array([0.0, 0.0, 1.0, 0.0]), rig.turn)
    code, said = checked()
    assert code == 1 and "from that of the measured joints" in said and "look at base_frame" in said
    rig.until(lambda: rig.status and rig.value("sees the arm") == "True", 15, "the node sees the arm")
    answer = rig.call("policy/arm")
    assert not answer.success and "from that of the measured joints" in answer.message


def test_it_ends_early_when_asked(rig, spawn, file):
    process = spawn("-c", CHECK, file, 60)
    rig.until(lambda: "check" in rig.node.get_node_names(), 30, "it listens")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130, "as the command line ends then"
    assert "Traceback" not in process.log.read_text()
