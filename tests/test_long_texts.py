"""Texts of any length over the network: what goes into words, statuses and reasons is cut, and nothing else changes."""

from __future__ import annotations

from types import SimpleNamespace as Fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.arm_listener import ArmReadings
from drivers.authority import Authority
from drivers.message_hands import TwistHand
from drivers.messages import frame_of, status_of, status_wrong
from drivers.named_numbers import NamedNumbers
from drivers.sound import NAME, SENTENCE, excerpt
from robot_rl.types import RobotRLError
from tests.lockstep import ROBOT

LONG = "x" * 5_000_000
SHORT = 2 * SENTENCE  # no words that are made of it are longer


@given(st.text(), st.integers(1, 50))
def test_an_excerpt_is_one_printable_line_of_bounded_length_that_begins_as_the_text(text, most):
    cut = excerpt(text, most)
    assert len(cut) <= most + len(f"... ({len(text)} characters)") and cut.isprintable()
    if text.isprintable() and len(text) <= most:
        assert cut == text
    assert all(a == b or not b.isprintable() for a, b in zip(cut, text[:most], strict=False))


def message(**fields):
    return Fields(header=Fields(frame_id="base", stamp=Fields(sec=1, nanosec=0)), **fields)


def test_fault_f39a_a_frame_of_5_mb_is_named_in_a_line():
    readings, pose = ArmReadings(ROBOT), message()
    pose.header.frame_id = LONG
    readings.take_pose(pose)
    assert "is in the frame 'xxx" in readings.problem and "(5000000 characters)" in readings.problem
    assert len(readings.problem) < SHORT
    hand = TwistHand("twist:stick", np.ones(6), "base")
    hand.hear(0.0, LONG, np.zeros(6))
    assert "frame" in hand.dead_man.hint and len(hand.dead_man.hint) < SHORT


@pytest.mark.parametrize("frame", ["", "tool", ROBOT.base_frame + "\n", ROBOT.base_frame + LONG])
def test_a_frame_that_only_looks_like_the_robots_is_another(frame):
    readings, pose = ArmReadings(ROBOT), message()
    pose.header.frame_id = frame
    readings.take_pose(pose)
    assert "is in the frame" in readings.problem


def test_fault_f39a_joint_names_of_5_mb_or_many_long_ones_are_named_in_a_line():
    numbers = NamedNumbers("joint_states", ("finger",))
    assert not numbers.take(message(name=[LONG], position=[0.0]))
    assert "a name of 5000000 characters" in numbers.wrong(0.2) and not numbers.values
    readings = ArmReadings(ROBOT)
    readings.take_joints(message(name=[f"{i:03d}{'n' * 240}" for i in range(400)], position=[0.0] * 400))
    readings._pose = Fields(wrong=lambda *_: "")
    assert "lacks" in readings.problem and len(readings.problem) < SHORT


def test_fault_f39a_a_status_of_5_mb_is_read_cut_and_an_encoding_too():
    pairs = [Fields(key="holder", value=LONG), Fields(key=LONG, value="1"), Fields(key="lease", value="9" * 5_000_000)]
    values, stopped = status_of(Fields(message=LONG, values=pairs * 1000))
    assert len(stopped) < SHORT and sum(map(len, (*values, *values.values()))) < 4 * SHORT
    wrong = status_wrong(values, ("holder", "lease"))
    assert "its lease is no number" in wrong and len(wrong) < SHORT
    for opening in (LONG, "1" * 5_000_000):
        assert len(status_wrong({"opening": opening}, ())) < SHORT
    with pytest.raises(RobotRLError) as error:
        frame_of(message(encoding=LONG, height=1, width=1, step=3, data=b"123"))
    assert len(str(error.value)) < SHORT


def test_fault_f39a_whatever_is_the_reason_the_latch_keeps_a_line():
    authority = Authority(("policy",), 0.2, 0)
    authority.stop(LONG + "\n\x1b[2J")
    assert authority.latched and len(authority.reason) < SHORT and authority.reason.startswith("x" * NAME)
