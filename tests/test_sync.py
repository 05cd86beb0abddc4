"""Streams brought to one moment: what was put in comes out at its stamp, and nothing is made up beyond the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from drivers.sync import Stream, arm_at, common_moment
from robot_rl.types import ArmState, RobotRLError

stamps = st.lists(st.integers(0, 1000).map(lambda i: i / 10), min_size=1, max_size=30, unique=True)


class AfterAll:
    """Implements `Clocks`: no stamp is of its future."""

    def now(self):
        return math.inf

    def steady(self):
        return 0.0


def filled(times, length=64, latency=0.0):
    stream = Stream("test", length, latency, AfterAll())
    for stamp in times:
        stream.add(stamp, stamp)
    return stream


@given(stamps, st.floats(-10, 110), st.integers(2, 40), st.floats(0, 0.5))
def test_readings_come_out_as_they_went_in_newest_of_them_kept_and_the_nearest_is_nearest(times, moment, length, late):
    stream = filled(sorted(times), length, late)
    kept = np.array(sorted(times)[-length:])
    assert len(stream) == len(kept) and stream.newest == kept[-1] - late
    stamp, value = stream.nearest(moment)
    assert stamp == value - late and abs(stamp - moment) == np.abs(kept - late - moment).min()
    for time in kept:
        before, after, share = stream.around(time - late)
        assert time == (after if share == 1.0 else before)
    before, after, share = stream.around(moment)
    inside = min(max(moment, kept[0] - late), kept[-1] - late)
    assert before + share * (after - before) - late == pytest.approx(inside, abs=1e-6)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_only_newer_readings_are_kept_and_the_others_are_counted(times):
    stream = filled(times)
    kept = []
    for time in times:
        if math.isfinite(time) and (not kept or time > kept[-1]):
            kept.append(time)
    assert stream.dropped == len(times) - len(kept) and stream.newest == (kept[-1] if kept else -math.inf)


@given(st.floats(0, 1), st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_an_arm_between_two_readings_turns_the_short_way_and_moves_in_proportion(share, quats):
    turns = [
        np.array(q) / np.linalg.norm(q)
        for q in (np.array(quats[:4]) + [0, 0, 0, 2], np.array(quats[4:]) - [0, 0, 0, 2])
    ]
    arm = Stream("arm", 4, latency=0.1)
    for i, turn in enumerate(turns):
        arm.add(i, ArmState(float(i), np.full(3, i), turn, np.full(7, -i), 1.0 - i, np.full(6, 2.0 * i)))
    moment = share - 0.1
    state = arm_at(arm, moment)
    assert state.stamp == pytest.approx(moment) and state.gripper == pytest.approx(1 - share)
    np.testing.assert_allclose(state.position, share, atol=1e-9)
    np.testing.assert_allclose(state.joints, -share, atol=1e-9)
    truth = Slerp([0, 1], Rotation.from_quat(turns))(share)
    assert (Rotation.from_quat(state.turn) * truth.inv()).magnitude() < 1e-6


def test_the_common_moment_is_that_of_the_slowest_and_an_empty_stream_is_named():
    fast, slow, silent = filled([0.0, 0.1, 0.2]), filled([0.0, 0.1], latency=0.03), Stream("left camera", 4)
    assert common_moment([fast, slow]) == pytest.approx(0.07)
    assert common_moment([fast, silent]) == -math.inf
    with pytest.raises(RobotRLError, match="'left camera' has delivered nothing"):
        silent.nearest(0.0)
    for wrong in ((1, 0.0), (4, -0.1), (4, math.nan)):
        with pytest.raises(RobotRLError, match="length of 2"):
            Stream("x", *wrong)
