from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from drivers.robot_file import RobotFile, load
from robot_rl.types import RobotRLError
from sim.robosuite_env import RobosuiteConfig

PARAMS = Path(__file__).parents[1] / "launch" / "params"
CAMERA = {"topic": "wrist/image_raw", "height": 480, "width": 640}


def changed(tmp_path: Path, changes: dict[str, object], of: str = "sim_panda_lift") -> RobotFile:
    """The robot of that file, with other values where keys joined by dots lead; None takes a key away."""
    data = yaml.safe_load((PARAMS / f"{of}.yaml").read_text())
    for path, value in changes.items():
        *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
        place = data
        for key in way:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    return load(file)


def test_the_simulated_robot_is_the_world_that_policies_were_trained_in():
    env = RobosuiteConfig("Lift").build()
    env.close()
    assert load(PARAMS / "sim_panda_lift.yaml").spec() == env.spec


@pytest.mark.parametrize("name, arm, joint", [("fr3", "FR3", "fr3_joint1"), ("ur5e", "UR5e", "shoulder_pan_joint")])
def test_real_robots_are_slow_and_see(name, arm, joint):
    robot = load(PARAMS / f"{name}.yaml")
    assert (robot.arm, robot.joints[0]) == (arm, joint)
    assert robot.limits.speed == 0.25
    assert [(c.name, c.height, c.width) for c in robot.spec().cameras] == [("side", 480, 640), ("wrist", 480, 640)]
    assert {camera.rate for camera in robot.cameras.values()} == {30.0}
    assert len(robot.spec().state) == 3 + 6 + 1 + len(robot.joints)


def test_every_key_is_read(tmp_path):
    """A key that `load` forgot would be refused as unknown, one that it dropped would be lost here."""
    turned, down = [0.0, 0.0, 0.6, 0.8], [0.6, 0.8, 0.0, 0.0]
    new = {
        "world": "fr3:press", "rate": 10, "servo_rate": 200, "max_steps": 7, "move": 0.005, "turn": 0.01,
        "home": [0.5, 0.1, 0.3, *down], "joint_states": "js", "pose": "p", "wrench": "w", "base_frame": "b",
        "arm_latency": 0.01, "command_latency": 0.02, "base": {"position": [1, 2, 0], "turn": turned},
        "state.0.low": [-4] * 3, "state.0.high": [4] * 3, "plausible": {"limits.beyond": 0.6}, "limits.beyond": 0.6,
        "controller": {"profile": "joint_trajectory", "topic": "t"},
        "gripper": {"joint": "j", "closed": 1, "open": 0, "topic": "g", "profile": "gripper_command", "effort": 5,
                    "start": "open"},
        "kinematics": {
            "model": "m", "joints": list("abcdefg"), "tool": "t", "base": "b", "offset": [0, 0, 0.1], "gated": True
        },
        "sensors": {"objects": {"topic": "o", "latency": 0.03}},
        "cameras": {"eye": {**CAMERA, "device": "sim:e", "rate": 15, "latency": 0.04, "shadows": False, "depth": True}},
        "limits.lead": 0.05, "controller.node": "n", "gripper.joint_states": "gj",
    }  # fmt: skip
    robot = changed(tmp_path, new, of="fr3")
    assert (robot.world, robot.rate, robot.servo_rate, robot.max_steps) == ("fr3:press", 10, 200, 7)
    assert (robot.move, robot.turn, robot.home) == (0.005, 0.01, (0.5, 0.1, 0.3, *down))
    assert (robot.joint_states, robot.pose, robot.wrench, robot.base_frame) == ("js", "p", "w", "b")
    assert (robot.arm_latency, robot.command_latency, robot.limits.lead) == (0.01, 0.02, 0.05)
    assert (robot.base.position, robot.base.turn) == ((1, 2, 0), tuple(turned))
    assert vars(robot.controller) == {**new["controller"], "node": "n"}
    assert vars(robot.gripper) == {**new["gripper"], "joint_states": "gj"} and robot.plausible == new["plausible"]
    assert vars(robot.kinematics) == {**new["kinematics"], "joints": tuple("abcdefg"), "offset": (0, 0, 0.1)}
    assert vars(robot.sensors["objects"]) == new["sensors"]["objects"]
    assert vars(robot.cameras["eye"]) == {**new["cameras"]["eye"], "observed": True}


def test_the_spec_leaves_out_what_policies_do_not_see(tmp_path):
    robot = changed(tmp_path, {"cameras.side.observed": False, "turn": 0.0}, of="fr3")
    assert [camera.name for camera in robot.spec().cameras] == ["wrist"]
    assert [channel.name for channel in robot.spec().action] == [*(f"eef_delta_{a}" for a in "xyz"), "gripper"]


NAN = float("nan")
WRONG = {
    "typo": ({"servo_rat": 1}, "servo_rat.*did you mean 'servo_rate'"),
    "typo inside": ({"limits.spede": 1}, "spede.*did you mean 'speed'"),
    "typo in a list": ({"state.0.chanels": []}, "chanels.*did you mean 'channels'"),
    "typo in a camera": ({"cameras.wrist": {**CAMERA, "devise": ""}}, "devise.*did you mean 'device'"),
    "unlike any": ({"5": 1}, "5"),
    "missing": ({"arm": None}, '"arm"'),
    "missing inside": ({"limits.box_low": None}, '"limits.box_low"'),
    "a word for a number": ({"rate": "fast"}, '"rate".*fast'),
    "true for a number": ({"rate": True}, '"rate".*True'),
    "a number for numbers": ({"limits.box_low": 3}, '"limits.box_low"'),
    "too few numbers": ({"limits.box_low": [0, 0]}, '"limits.box_low"'),
    "words for numbers": ({"state.0.low": ["a", "b", "c"]}, '"state.low"'),
    "a word for words": ({"joints": "panda_joint1"}, '"joints"'),
    "keys for a list": ({"state": {"a": 1}}, "robot.yaml"),
    "unknown profile": ({"controller.profile": "impedance"}, '"controller.profile".*impedance'),
    "unknown arm": ({"arm": "KUKA"}, "KUKA.*known are"),
    "millimetres": ({"limits.box_high": [800, 350, 450]}, "box reaches 800 m; are those millimetres"),
    "home in millimetres": ({"home": [500, 0, 300, 0, 0, 0, 1]}, "home reaches 500 m"),
    "limit nan": ({"limits.speed": NAN}, "speed is nan"),
    "limit negative": ({"limits.speed": -0.25}, "speed is -0.25"),
    "rate nan": ({"rate": NAN}, "rate is nan"),
    "rate 0": ({"rate": 0}, "rate is 0"),
    "gripper nan": ({"gripper.closed": NAN}, "gripper.closed is nan"),
    "base nan": ({"base.position": [NAN, 0, 0]}, "base.position.0 is nan"),
    "infinite range": ({"state.0.low": [float("-inf")] * 3}, "state.0.low.0 is -inf"),
    "latency negative": ({"sensors.objects.latency": -0.1}, "sensors.objects.latency is -0.1"),
    "camera of no height": ({"cameras.wrist": {**CAMERA, "height": 0}}, "cameras.wrist.height is 0"),
    "no quaternion": ({"home": [0.5, 0, 0.3, 0, 0, 0, 0]}, "quaternion of its home has length 0"),
    "half a home": ({"home": [0.5, 0, 0.3]}, "home has 3 numbers"),
    "gripper that does not move": ({"gripper.open": 0.0}, "closed and open at 0"),
    "servo slower than policy": ({"servo_rate": 10}, "servo_rate 10.0 is below"),
    "actions beyond near": ({"limits.near": 0.02}, "by near 0.02"),
    "too few joints": ({"joints": ["a"]}, "names 1 joints, and Panda has 7"),
    "a joint twice": ({"joints": ["a"] * 7}, "joint 'a' twice"),
    "absolute topic": ({"pose": "/current_pose"}, "'/current_pose' is absolute"),
    "absolute topic of a camera": ({"cameras.wrist": {**CAMERA, "topic": "/image"}}, "'/image' is absolute"),
    "empty topic": ({"pose": ""}, "topics is empty"),
    "unknown source": ({"state.0.source": "positon"}, "'positon' is none of.*'position'"),
    "a sensor named as a source": ({"sensors.joints": {"topic": "x"}}, "sensor 'joints' needs another name"),
    "a channel twice": ({"state.2.channels": ["cube_pos_x"] * 2}, "'cube_pos_x' twice"),
    "group too small": ({"state.0.channels": ["x"]}, "'position' has 1 channels: it needs 3"),
    "too few names": ({"state.2.names": ["a"]}, "needs 2 names"),
    "too few lows": ({"state.0.low": [-1]}, "needs 3 lows and highs"),
    "low above high": ({"state.0.low": [3, 3, 3]}, "low below its high"),
    "no state": ({"state": []}, "no channels"),
    "cameras on one topic": ({"cameras": {"a": CAMERA, "b": CAMERA}}, "share the topic"),
    "camera's name": ({"cameras.my eye": CAMERA}, "'my eye' needs a name"),
    "camera's device": ({"cameras.wrist": {**CAMERA, "device": "relsense:1"}}, "'relsense:1': none of realsense:"),
}


@pytest.mark.parametrize("changes, message", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(RobotRLError, match=message) as error:
        changed(tmp_path, changes)
    assert str(error.value).startswith(str(tmp_path / "robot.yaml"))


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\x00"], ids=["empty", "a list", "torn", "binary"])
def test_a_file_that_is_none(tmp_path, text):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    with pytest.raises(RobotRLError, match=re.escape(str(file))):
        load(file)
    with pytest.raises(RobotRLError, match="cannot be read"):
        load(tmp_path / "absent.yaml")


def test_a_controller_that_takes_joints_needs_gated_kinematics(tmp_path):
    by_joints = {"controller": {"profile": "forward_command", "topic": "arm/commands"}}
    for kinematics in ({"kinematics": None}, {"kinematics.gated": False}):
        with pytest.raises(RobotRLError, match="needs gated `kinematics`"):
            changed(tmp_path, {**by_joints, **kinematics})
    assert changed(tmp_path, {**by_joints, "kinematics.gated": True}).controller.profile == "forward_command"


def test_a_command_cannot_be_ahead_of_its_own_period(tmp_path):
    with pytest.raises(RobotRLError, match="command_latency"):
        changed(tmp_path, {"command_latency": 0.05})
