"""What `robot-rl check` says of what it heard: each fault has its words, and a robot that is well has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drivers.check import (
    Endpoint,
    Heard,
    Measured,
    absent,
    arm_wrong,
    commands_wrong,
    in_words,
    names_wrong,
    streams_wrong,
    table,
)
from drivers.health import HealthLimits, Level, StreamHealth, camera_limits
from drivers.kinematics import MujocoKinematics
from drivers.robot_file import load
from sim.robosuite_env import RobosuiteConfig
from sim.robot_world import RobotWorld
from tests.ros.rig import JOINTS, READY, ROBOT, robot_yaml
from tests.test_kinematics import MODEL

POSE, IMAGE = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/Image"
DRIVER = {"/current_pose": [Endpoint("/driver", POSE)]}
PANDA = MujocoKinematics(MODEL, JOINTS, "right_hand", "link0", (0, 0, 0.097))


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return load(robot_yaml(tmp_path_factory.mktemp("check") / "robot.yaml"))


def measured(**changes):
    position, turn = PANDA.pose(np.array(READY))
    joints = dict(zip([*JOINTS, "finger"], [*READY, 0.04], strict=True))
    return replace(Measured(joints, "base", position, turn, np.zeros(6)), **changes)


def moved(**joints):
    return measured(joints={**measured().joints, **joints})


def stream(age=0.005, rate=100.0, kind=POSE, limits=None, images=None):
    """A pose of 2 s, or pictures."""
    heard = Heard("pose", "/current_pose", kind, StreamHealth(limits or HealthLimits(100.0, frozen=np.inf)))
    for k in range(int(2 * rate)):
        heard.add(k / rate, k / rate + age, k / rate, k, images[k % len(images)] if images else None)
    return heard


def errors(findings):
    return "\n".join(text for level, text in findings if level > Level.WARN)


def of_stream(heard, published=DRIVER):
    return "\n".join(text for _, text in streams_wrong([heard], published, 2.0))


def test_a_robot_that_is_well_is_ready(robot):
    findings = [*arm_wrong(robot, measured(), PANDA), *streams_wrong([stream()], DRIVER, 2.0)]
    assert findings == [] and in_words(findings) == "ready"


TURNED = np.array([0.0, 0.0, 1.0, 0.0])  # about z by pi: what a base that looks the other way makes of a pose
FAULTS = {
    "wrong frame": (measured(frame="world"), "in the frame 'world', the robot's file says base_frame 'base'"),
    "a joint missing": (
        measured(joints={n: q for n, q in measured().joints.items() if n != "joint3"}),
        "joint_states lacks joint3; it has joint1, joint2, joint4",
    ),
    "degrees": (
        measured(joints={n: np.degrees(q) if n != "finger" else q for n, q in measured().joints.items()}),
        "joints are in degrees: joint2 is at -17",
    ),
    "another arm": (moved(joint4=1.0), "outside the limits of Panda [rad]: joint4 is at 1.000, of -3.072 to -0.070"),
    "far beyond, and no degrees": (moved(joint1=400.0), "outside the limits of Panda"),
    "millimetres": (measured(position=np.array([500.0, 0, 300])), "500 m away: are those millimetres?"),
    "outside the box": (measured(position=np.array([0.5, 0.5, 0.3])), "outside the box; move it inside by hand"),
    "another tool": (measured(position=measured().position + [0, 0, 0.05]), "0.050 m and 0.00 rad from that of the"),
    "a base that looks back": (measured(position=measured().position * [-1, -1, 1]), "look at base_frame"),
    "a tool frame that is turned": (measured(turn=TURNED), "rad from that of the measured joints"),
    "pushed": (measured(wrench=np.array([0, 0, 90.0, 0, 0, 0])), "the tool feels 90 N"),
    "fingers in millimetres": (moved(finger=40.0), "finger is at 40, and closed is 0, open 0.04"),
    "a quaternion of zeros": (measured(turn=np.zeros(4)), "quaternion has not length 1"),
    "nan": (moved(joint1=np.nan), "joint1 is at nan"),
}


@pytest.mark.parametrize("fault, words", FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_with_the_arm_has_its_words(robot, fault, words):
    assert words in errors(arm_wrong(robot, fault, PANDA))


def test_the_simulated_arm_agrees_with_its_kinematics():
    """Those in the comment of sim_panda_lift.yaml."""
    world = RobotWorld(RobosuiteConfig("Lift").build())
    for seed in range(3):
        world.reset(seed)
        assert PANDA.disagreement(world.state(0.0, 0.0, 0.04), 1e-6, 1e-5) == ""
    world.close()


def test_a_joint_near_its_end_and_another_order_are_remarks(robot):
    near, unchecked = arm_wrong(robot, moved(joint4=-0.1), None)
    assert near == (Level.WARN, "within 0.1 rad of the end: joint4 is at -0.100, of -3.072 to -0.070; move it by hand")
    assert unchecked[0] == Level.WARN and "has no `kinematics`" in unchecked[1]
    backwards = measured(joints=dict(reversed(measured().joints.items())))
    assert [text for level, text in arm_wrong(robot, backwards, PANDA) if level == Level.WARN][0].startswith(
        "joint_states has another order"
    )


@pytest.mark.parametrize(
    "age, words",
    [
        (1.0, "pose: stamped 1.00 s old when they come: the clocks differ by about 1.00 s: run chrony"),
        (-0.5, "pose: stamped 0.50 s in the future when they come: the clocks differ by about 0.50 s"),
        (1.7e9, "pose: no stamps; let the driver fill header.stamp"),
        (-0.01, ""),
    ],
)
def test_clocks_that_differ_are_told_apart_from_small_differences(age, words):
    assert of_stream(stream(age)).startswith(words) and bool(of_stream(stream(age))) == bool(words)


def test_a_silent_slow_or_doubled_stream_is_named():
    silent = Heard("pose", "/current_pose", POSE, StreamHealth(HealthLimits()))
    assert "/driver publishes /current_pose, and nothing comes" in of_stream(silent)
    assert "pose: 20.0 Hz, and 100 Hz were asked for" in of_stream(stream(rate=20.0))
    twice = {"/current_pose": [Endpoint("/driver", POSE), Endpoint("/other", POSE)]}
    assert of_stream(stream(), twice) == "2 publish on /current_pose: /driver, /other; one of them has to go"
    assert "stream  topic          rate [Hz]" in table([stream()], 2.0) and "100.0" in table([stream()], 2.0)


def test_a_frozen_camera_is_one_unless_its_scene_is_rendered():
    still = [np.full((8, 8, 3), 100, np.uint8)]
    frozen = stream(rate=30.0, kind=IMAGE, limits=camera_limits(30.0), images=still)
    assert "frozen: the same picture" in of_stream(frozen) and "YES" in table([frozen], 2.0)
    rendered = replace(camera_limits(30.0), frozen=np.inf)
    assert of_stream(stream(rate=30.0, kind=IMAGE, limits=rendered, images=still)) == ""


def test_what_is_missing_is_named_with_what_is_there():
    there = {"/fr3/current_pose": [Endpoint("/fr3/driver", POSE)], "/tcp": [Endpoint("/other", POSE)]}
    said = absent("/current_pose", POSE, there, "publishes", "or name it")
    assert "/fr3/current_pose (geometry_msgs/msg/PoseStamped by /fr3/driver), /tcp" in said
    assert said.endswith("for that namespace say `--ros-args -r __ns:=/fr3`, and to ros2 launch namespace:=/fr3")
    assert absent("/current_pose", POSE, {"/tcp": there["/tcp"]}, "publishes", "or name it").endswith("or name it")
    other = {"/current_pose": [Endpoint("/driver", "geometry_msgs/msg/Pose")]}
    assert "is geometry_msgs/msg/Pose by /driver, and must be" in absent("/current_pose", POSE, other, "publishes", "")
    assert "nor anything like it" in absent("/current_pose", POSE, {}, "publishes", "or name it")


def test_only_one_arm_node_commands_and_somebody_listens(robot):
    topics = "/target_pose", "/gripper_position_controller/commands"
    listens = {t: [Endpoint("/c", k)] for t, k in zip(topics, (POSE, "std_msgs/msg/Float64MultiArray"), strict=True)}
    arm_node = {topics[0]: [Endpoint("/arm_node", POSE)]}
    assert not list(commands_wrong(robot, topics, arm_node, listens))
    nobody = "\n".join(commands_wrong(robot, topics, {}, {}))
    assert "nobody listens on /target_pose" in nobody and "nobody listens on /gripper" in nobody
    both = {topics[0]: [*arm_node[topics[0]], Endpoint("/teleop", POSE)]}
    assert "/arm_node, /teleop command /target_pose" in "\n".join(commands_wrong(robot, topics, both, listens))


def test_numbers_that_policies_see_and_no_message_brings(tmp_path):
    seen = {"source": "objects", "channels": ["cube_x", "cube_y"], "unit": "m", "low": [-1, -1], "high": [1, 1]}
    changes = {"state": [*ROBOT["state"], seen], "sensors": {"objects": {"topic": "objects"}}}
    robot = load(robot_yaml(tmp_path / "robot.yaml", **changes))
    heard = replace(stream(), name="sensors.objects", topic="/objects", numbers={"cube_x": 0.0, "cup": 1.0})
    assert errors(names_wrong(robot, [heard])) == "/objects lacks cube_y; it has cube_x, cup"
