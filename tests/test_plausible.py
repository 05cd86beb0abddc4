"""Numbers of a robot's file in wrong units, parts that contradict one another, and keys without any effect.

The law: whatever number of a file that loads is a thousand times larger or smaller, it is refused by its name, unless
`plausible` names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from drivers import plausible
from drivers.gate import GateLimits
from drivers.robot_file import load
from robot_rl.types import RobotRLError
from tests.ros.rig import ROBOT
from tests.test_robot_file import CAMERA, PARAMS, changed

FILES = sorted(PARAMS.glob("*.yaml"))
DEFAULTS = GateLimits((0.3, -0.3, 0.1), (0.7, 0.3, 0.6))
ANGLES = {"turn_speed": 34.4, "turn_acceleration": 344.0, "lead_turn": 22.9, "near_turn": 11.5, "tilt": 28.6}


def numbers(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each number, or to each list of numbers."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from numbers(value, (*way, key))
    elif isinstance(data, list) and not all(isinstance(v, (int, float)) for v in data):
        for i, value in enumerate(data):
            yield from numbers(value, (*way, i))
    elif isinstance(data, list) or (isinstance(data, (int, float)) and not isinstance(data, bool)):
        yield way


def scaled(value: Any, factor: float) -> Any:
    if isinstance(value, list):
        return [scaled(v, factor) for v in value]
    times = value * factor
    return int(times) if isinstance(value, int) and times == int(times) else times


def complete(data: dict[str, Any]) -> dict[str, Any]:
    """With every limit and rate that the file leaves to its default."""
    unused = {"joint_margin", "joint_speed", "joint_acceleration"} | (
        set() if data.get("wrench") else {"force", "torque"}
    )
    limits = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(DEFAULTS).items() if k not in unused}
    return {"rate": 20, "servo_rate": 100, **data, "limits": {**limits, **data["limits"]}}


def cases() -> list[Any]:
    made = []
    sources = {file.stem: yaml.safe_load(file.read_text()) for file in FILES if file.stem != "sim_panda_lift"} | {
        "rig": ROBOT
    }
    for name, data in sources.items():
        whole = complete(data)
        for way in numbers(whole):
            ends = way[-1] in ("low", "high") and way[0] == "state"
            if ends and way[-1] == "high":
                continue  # together with the low
            made.append(pytest.param(whole, way, id=f"{name}-{'.'.join(map(str, way))}"))
    return made


@pytest.mark.parametrize("data, way", cases())
def test_fault_f43_a_thousand_times_or_a_thousandth_is_refused(tmp_path, data, way):
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    load(file)  # as it is
    for factor in (1000.0, 1e-3):
        copy = yaml.safe_load(file.read_text())
        *through, last = way
        place = copy
        for key in through:
            place = place[key]
        for key in [last, "high"] if last == "low" else [last]:
            place[key] = scaled(place[key], factor)
        if place[last] == scaled(place[last], 2.0):
            continue  # nothing but zeros
        other = tmp_path / "other.yaml"
        other.write_text(yaml.safe_dump(copy))
        with pytest.raises(RobotRLError) as error:
            load(other)
        named = {str(key).replace("_high", "").replace("_low", "") for key in way} - {"limits", "state", "cameras"}
        assert str(error.value).startswith(str(other)) and any(part in str(error.value) for part in named)


SEEN = {"age": 200, "speed": 250, "acceleration": 2000, "force": 40000, "near": 20, "lead": 100, "ahead": 20}


@pytest.mark.parametrize("name, value", [*SEEN.items(), *ANGLES.items()])
def test_fault_f43_limits_in_wrong_units_are_refused_with_the_unit(tmp_path, name, value):
    with pytest.raises(RobotRLError) as error:
        changed(tmp_path, {f"limits.{name}": value}, of="fr3")
    said = str(error.value)
    if name == "tilt":  # the gate itself
        assert "tilt goes up to pi / 2" in said
        return
    unit = plausible.LIMITS[name].unit
    meant = unit.replace("rad", "degrees") if name in ANGLES else f"m{unit}"
    assert f"limits.{name} is {value:g} {unit}: a plausible value is " in said and f"is that {meant}?" in said


WRONG = {
    "actions in millimetres": ({"move": 10}, "by its move and turn an action goes up to 17.321 m"),
    "latency in milliseconds": ({"arm_latency": 30}, "arm_latency is 30 s.*is that ms"),
    "fingers in millimetres": ({"gripper.open": 80}, "gripper.open is 80 m or rad.*is that mm"),
    "a camera's rate": ({"cameras.wrist.rate": 0.03}, "cameras.wrist.rate is 0.03 Hz"),
    "state in millimetres": ({"state.0.low": [-1000] * 3, "state.0.high": [1000] * 3}, r"state.0.low is -1000 m"),
    "joints in degrees": ({"state.3.low": [-170] * 7, "state.3.high": [170] * 7}, r"state.3.low is -170 rad"),
    "home outside": ({"home": [0.2, 0, 0.4, 1, 0, 0, 0]}, "home .* is outside the box"),
    "home at the edge": ({"home": [0.302, 0, 0.4, 1, 0, 0, 0]}, "at the edge of the box.*5 mm inside"),
    "home upside down": ({"home": [0.4, 0, 0.4, 0, 0, 0, 1]}, "home is tilted by 3.14 rad"),
    "near beyond lead": ({"limits.lead": 0.018}, "limits.near 0.02 m is beyond limits.lead 0.018"),
    "near_turn beyond": ({"limits.lead_turn": 0.06}, "limits.near_turn 0.1 rad is beyond"),
    "never stops": ({"limits.speed": 1.5, "limits.acceleration": 0.5}, "stops after 2.25 m, and the box is 0.35"),
    "turns on": ({"limits.turn_speed": 4, "limits.turn_acceleration": 2}, "stops after 4.00 rad"),
    "age below a period": ({"limits.age": 0.05}, "limits.age 0.05 s is below 1.4 periods"),
    "ahead beyond age": ({"limits.age": 0.08, "limits.ahead": 0.09}, "limits.ahead 0.09 s"),
    "latency beyond age": ({"arm_latency": 0.3}, "arm_latency 0.3 s is no shorter than limits.age"),
    "camera too slow": ({"cameras.wrist.rate": 4}, "cameras.wrist get 0.25 s old at 4 Hz"),
    "one serial": ({"cameras.side.device": "realsense:000000000001"}, "'side' and 'wrist' are one device"),
    "one serial, other zeros": ({"cameras.side.device": "realsense:1"}, "are one device"),
    "one device": (
        {"cameras.side.device": "opencv:/dev/video0", "cameras.wrist.device": "opencv:0"},
        "are one device",
    ),
    "one topic": ({"pose": "joint_states"}, "joint_states and pose share the topic"),
    "sensors on one topic": (
        {"sensors": {"a": {"topic": "o"}, "b": {"topic": "o"}}},
        "sensors.a.topic and sensors.b.topic share",
    ),
    "a camera on a sensor's": ({"sensors": {"a": {"topic": "wrist/image_raw"}}}, "share the topic"),
    "the node's own topic": ({"controller.topic": "setpoint"}, "'setpoint' is a topic or service of the arm's node"),
    "a source's topic": ({"controller.topic": "policy/target_pose"}, "of the arm's node"),
    "no topic's name": ({"pose": "my pose"}, "'my pose' is no name for a topic"),
    "box not seen": ({"state.0.high": [0.6, 1, 1]}, "state.0 goes from.*and the box is"),
    "fingers not seen": ({"state.2.high": [0.03]}, "for fr3_finger_joint1, and the gripper"),
    "half a rot6d": ({"state.1.low": [0] * 6, "state.1.high": [1] * 6}, "rot6d, whose numbers go from -1"),
    "joints elsewhere": ({"state.3.low": [3] * 7, "state.3.high": [6] * 7}, "where no joint of FR3 comes"),
    "position in mm": ({"state.0.unit": "mm"}, "state.0 is in m, as all of 'position' is"),
    "finger is a joint": ({"gripper.joint": "fr3_joint1"}, "'fr3_joint1' is one of the arm's"),
    "no effort": ({"gripper.profile": "gripper_command"}, "gripper.effort is missing"),
    "effort to no effect": ({"gripper.effort": 20}, "gripper.effort has no effect"),
    "joint_speed to no effect": ({"limits.joint_speed": 0.5}, "limits.joint_speed has no effect"),
    "joint_margin to no effect": ({"limits.joint_margin": 0.2}, "limits.joint_margin has no effect"),
    "force to no effect": ({"wrench": ""}, "limits.force has no effect without `wrench`"),
    "shadows to no effect": ({"cameras.wrist.shadows": False}, "cameras.wrist.shadows has no effect"),
    "names to no effect": ({"state.0.names": ["a", "b", "c"]}, "state.0.names has no effect"),
    "raises nothing": ({"plausible": {"limits.speed": 2.0}}, "raises nothing by limits.speed"),
    "raises what is plausible": (
        {"plausible": {"limits.speed": 1.0}, "limits.speed": 2.0},
        "raises nothing by limits.speed",
    ),
    "raises another": ({"plausible": {"limits.force": 900}, "limits.speed": 2.0}, "limits.speed is 2 m/s"),
    "raises too little": ({"plausible": {"limits.speed": 1.8}, "limits.speed": 2.0}, "limits.speed is 2 m/s"),
    "raises too far": ({"plausible": {"limits.speed": 250}, "limits.speed": 250}, "no arm has that"),
    "raises an unknown": ({"plausible": {"limits.sped": 2.0}}, "no number of this robot; did you mean 'limits.speed'"),
}  # fmt: skip


@pytest.mark.parametrize("changes, message", WRONG.values(), ids=WRONG)
def test_fault_f43_what_cannot_be_is_named(tmp_path, changes, message):
    with pytest.raises(RobotRLError, match=message):
        changed(tmp_path, changes, of="fr3")


def test_a_base_that_nothing_is_seen_by_has_no_effect(tmp_path):
    data = {**ROBOT, "base": {"position": [1, 0, 0]}}
    data["state"] = [{"source": "joints", "channels": [f"q{i}" for i in range(7)]}]
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(RobotRLError, match="base has no effect"):
        load(file)


def test_a_file_may_mean_more_by_name(tmp_path):
    more = {"limits.speed": 3.0, "limits.force": 800.0, "limits.acceleration": 40.0}
    assert changed(tmp_path, {**more, "plausible": more}, of="fr3").limits.speed == 3.0
    slow = {"limits.turn_speed": 0.01, "plausible": {"limits.turn_speed": 0.01}}
    assert changed(tmp_path, slow, of="fr3").limits.turn_speed == 0.01


def test_every_limit_has_a_range_of_its_own():
    assert {*vars(DEFAULTS)} - {"box_low", "box_high", "axis"} <= {*plausible.LIMITS}
    assert all(math.isfinite(r.high) and r.high > r.low for r in plausible.LIMITS.values())


def test_one_device_may_be_a_camera_of_colours_and_one_of_depth(tmp_path):
    both = {"cameras.side": {**CAMERA, "topic": "d", "device": "realsense:000000000001", "depth": True}}
    assert changed(tmp_path, both, of="fr3").cameras["side"].depth


def test_what_is_told_says_how_it_may_be_meant(tmp_path):
    with pytest.raises(RobotRLError, match=re.escape("`plausible: {limits.speed: ...}`")):
        changed(tmp_path, {"limits.speed": 3.0}, of="fr3")
