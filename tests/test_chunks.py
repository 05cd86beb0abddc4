"""Chunks played by the clock: nothing late is executed, the newest plan counts, and the seam is as smooth as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.chunks import Track
from robot_rl.types import RobotRLError

PERIOD = 0.05


def path(start, length, offset=0.0):
    """A chunk of one dimension whose actions say when they are due, in periods."""
    return (np.arange(length) + round(start / PERIOD) + offset)[:, None]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 14), st.integers(1, 16)), min_size=1, max_size=8))
def test_what_is_played_is_due_and_of_the_newest_plan_that_came_in_time(plans):
    """(periods between observations, delay in periods, length): the reference looks at all plans at every tick."""
    starts = np.cumsum([gap for gap, _, _ in plans]) * PERIOD
    arrivals = sorted(
        (start + delay * PERIOD, start, length) for start, (_, delay, length) in zip(starts, plans, strict=True)
    )
    track, taken = Track(PERIOD), []
    for tick in range(round(starts[-1] / PERIOD) + 32):
        now = tick * PERIOD
        while arrivals and arrivals[0][0] <= now + 1e-9:
            _, start, length = arrivals.pop(0)
            late = now > start + (length - 0.5) * PERIOD
            older = any(other >= start for other, _ in taken)
            assert track.add(start, path(start, length), now) == (not late and not older)
            if not late and not older:
                taken.append((start, length))
        action = track.at(now)
        start, length = taken[-1] if taken else (math.inf, 0)
        if start <= now + 1e-9 and tick < round(start / PERIOD) + length:
            assert action is not None and action[0] == tick
            assert track.left(now) == pytest.approx((round(start / PERIOD) + length - tick) * PERIOD)
        else:
            assert action is None and track.left(now) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.245, 0.4])
@pytest.mark.parametrize("blend", [0, 1, 4])
def test_the_delay_is_measured_and_the_seam_takes_no_larger_steps_than_it_must(delay, blend):
    track, played = Track(PERIOD, blend), []
    track.add(0.0, path(0.0, 16), 0.0)
    for tick in range(16):
        now = tick * PERIOD
        if tick == 2 + math.ceil(delay / PERIOD):
            assert track.add(0.1, path(0.1, 16, offset=3.0), 0.1 + delay)
        played.append(track.at(now + 1e-9)[0])
    seam = track.seams[-1]
    assert seam.delay == pytest.approx(delay) and seam.skipped == math.ceil(delay / PERIOD - 1e-6) and seam.jump == 3.0
    assert np.diff(played).max() <= 1.0 + 3.0 / (blend + 1) + 1e-9 and played[-1] == 15 + 3.0
    assert len(track.seams) == 2 and track.seams[0].jump == 0.0


def test_what_a_plan_must_go_on_from_and_what_clear_forgets():
    track = Track(PERIOD)
    assert track.at(0.0) is None and track.ahead(0.0, 4).size == 0
    track.add(0.0, path(0.0, 8), 0.0)
    assert track.ahead(0.2, 3)[:, 0].tolist() == [4, 5, 6] and track.ahead(0.35, 3)[:, 0].tolist() == [7]
    assert not track.add(1.0, path(1.0, 8), 0.5), "from an observation that is still to come"
    assert not track.add(math.nan, path(0.0, 8), 0.5)
    track.clear(0.1)
    assert track.at(0.1) is None and track.left(0.1) == 0.0
    assert not track.add(0.1, path(0.1, 8), 0.15), "seen before the hand-over"
    assert track.add(0.15, path(0.15, 8), 0.2) and track.at(0.2)[0] == 4
    for wrong in ((0.0, 0), (math.nan, 0), (0.05, -1)):
        with pytest.raises(RobotRLError, match="period above 0"):
            Track(*wrong)
