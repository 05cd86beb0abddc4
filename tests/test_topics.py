"""Topics of a robot's file: no two that mean different things are one, and none is anybody else's."""

from __future__ import annotations

import itertools
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from drivers import consistent
from robot_rl.types import RobotRLError
from tests.test_robot_file import CAMERA, changed

WHOLE = {
    "wrench": "wrench",
    "gripper.joint_states": "fingers",
    "cameras": {name: {**CAMERA, "topic": f"{name}/image_raw"} for name in ("wrist", "front")},
    "sensors": {name: {"topic": f"{name}/numbers"} for name in ("scale", "tracker")},
}
FIELDS = (
    "joint_states", "gripper.joint_states", "pose", "wrench", "controller.topic", "gripper.topic",
    "cameras.wrist.topic", "cameras.front.topic", "sensors.scale.topic", "sensors.tracker.topic",
)  # fmt: skip


def refusal(tmp_path: Path, changes: dict[str, Any]) -> str:
    try:
        changed(tmp_path, {**deepcopy(WHOLE), **changes}, "fr3")
    except RobotRLError as error:
        return str(error)
    return ""


def test_the_file_that_these_are_about_has_all_of_these_topics_and_loads(tmp_path):
    assert refusal(tmp_path, {}) == ""


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(FIELDS, 2)))
def test_fault_f43_any_two_topics_that_are_one_are_refused_with_the_names_of_both(tmp_path, one, two):
    said = refusal(tmp_path, {one: "same", two: "same"})
    assert one in said and two in said and "'same'" in said, said


OURS = [f"{source}/{what}" for source in ("policy", "teleop") for what in ("target_pose", "fault", "plan")]
TAKEN = (*consistent.OURS, *consistent.SYSTEM, *OURS, "homing/heartbeat")


@pytest.mark.parametrize(("field", "topic"), list(zip(itertools.cycle(FIELDS), TAKEN, strict=False)))
def test_fault_f43_no_topic_is_one_of_ours_or_of_ros_itself(tmp_path, field, topic):
    said = refusal(tmp_path, {field: topic})
    assert field in said and f"'{topic}'" in said, said
