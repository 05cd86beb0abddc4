"""A stream's health: what is wrong is found in time, whatever the clocks do, and what is well is left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.health import HealthLimits, Level, StreamHealth, camera_limits, digest, joint_limits
from robot_rl.types import RobotRLError

EPOCH = 1.8e9  # the stamps' clock is far from the steady one
RATE = 30.0
anything = st.floats(allow_nan=True, allow_infinity=True)


def picture(number, light=100):
    return np.full((48, 64, 3), light, np.uint8) + np.uint8(number % 50)


class Feed:
    """A camera and two clocks; `latency` is from stamp to arrival."""

    def __init__(self, rate=RATE, latency=0.02, limits=None):
        self.health = StreamHealth(limits or camera_limits(rate))
        self.period, self.latency = 1 / rate, latency
        self.steady, self.clock, self.number = 100.0, EPOCH, 0

    def pass_time(self, seconds):
        self.steady += seconds
        self.clock += seconds

    def send(self, image=None, *, late=0.0, steps=1):
        self.pass_time(steps * self.period)
        self.number += steps
        image = picture(self.number) if image is None else image
        self.health.add(self.clock - self.latency - late, self.steady, number=self.number, image=image)

    def run(self, seconds, **how):
        for _ in range(round(seconds / self.period)):
            self.send(**how)

    def verdict(self):
        return self.health.verdict(self.clock, self.steady)

    def until(self, level, word, **how):
        """The time until the verdict has that level and word, looking after every reading [s]."""
        start = self.steady
        while True:
            self.send(**how)
            its_level, text = self.verdict()
            if its_level == level and word in text:
                return self.steady - start
            assert self.steady < start + 3, (its_level, text)


@given(st.floats(5, 120), st.floats(0, 0.08), st.floats(1, 4))
def test_a_regular_stream_is_well_and_its_numbers_are_right(rate, latency, seconds):
    feed = Feed(rate, latency)
    feed.run(seconds)
    assert feed.verdict()[0] == Level.OK
    assert feed.health.rate == pytest.approx(rate, rel=1e-3) and feed.health.jitter < 1e-6
    assert feed.health.drops == 0 and feed.health.age(feed.clock) == pytest.approx(latency, abs=1e-5)


@given(st.lists(st.booleans(), min_size=2, max_size=50))
def test_every_reading_that_is_missing_between_the_first_and_the_last_is_counted(kept):
    health, arrived = StreamHealth(camera_limits(RATE)), [i for i, keep in enumerate(kept) if keep]
    for i in arrived:
        health.add(EPOCH + i / RATE, i / RATE, number=i)
    between = arrived[-1] - arrived[0] + 1 if arrived else 0
    assert health.drops == between - len(arrived)


@given(st.floats(0, 10), anything)
def test_silence_is_stale_beyond_its_limit_whatever_the_other_clock_says(silence, now):
    feed = Feed()
    feed.run(1)
    level, _ = feed.health.verdict(now, feed.steady + silence)
    assert (level == Level.STALE) == (feed.steady + silence - feed.steady > 0.2)


@given(st.lists(st.tuples(anything, st.floats(0, 1)), min_size=1, max_size=30), anything)
def test_nothing_but_a_finite_fresh_stamp_is_well(readings, now):
    health, steady = StreamHealth(camera_limits(RATE)), 0.0
    for stamp, pause in readings:
        steady += pause
        health.add(stamp, steady)
    level, text = health.verdict(now, steady)
    assert text and all(isinstance(value, float) for value in health.values(now).values())
    if not -0.02 <= now - readings[-1][0] <= 0.2:
        assert level == Level.ERROR


def test_before_anything_has_come_it_is_stale():
    assert StreamHealth(HealthLimits()).verdict(EPOCH, 0.0) == (Level.STALE, "nothing has come yet")


@given(st.floats(20, 90), st.floats(0, 0.05))
def test_fault_f10_a_frozen_picture_is_found_within_200_ms_and_forgiven_with_the_next_one(rate, latency):
    feed = Feed(rate, latency)
    feed.run(1)
    stuck = picture(0, light=200)
    assert 0.15 < feed.until(Level.ERROR, "frozen", image=stuck) - 1 / rate <= 0.2
    feed.send()
    assert feed.verdict()[0] == Level.OK


def test_fault_f10_a_black_picture_is_an_error_within_200_ms_but_not_one_that_flickers():
    feed, noise = Feed(), np.random.default_rng(0)
    feed.run(1)
    feed.send(image=np.zeros((48, 64, 3), np.uint8))
    feed.send()
    assert feed.verdict()[0] == Level.OK
    start = feed.steady
    while feed.verdict()[0] == Level.OK:
        feed.send(image=noise.integers(0, 4, (48, 64, 3), np.uint8))
    assert feed.verdict() == (Level.ERROR, "black picture: is the lens covered?") and feed.steady - start <= 0.2 + 0.034


def test_fault_f10_old_future_and_standing_stamps_are_errors_at_once_or_when_they_are_too_old():
    for late, word in ((1.0, "1.02 s old"), (-1.0, "in the future")):
        feed = Feed()
        feed.run(1)
        assert feed.until(Level.ERROR, word, late=late) == pytest.approx(1 / RATE)
    feed = Feed()
    feed.run(1)
    standing = feed.clock - feed.latency
    for _ in range(7):
        feed.send(late=feed.clock + feed.period - feed.latency - standing)
    level, text = feed.verdict()
    assert level == Level.ERROR and "stand still" in text


@pytest.mark.parametrize("step", [-2.0, 2.0])
def test_fault_f10_a_stepping_clock_is_an_error_until_the_stamps_have_stepped_too(step):
    feed = Feed()
    feed.run(1)
    feed.clock += step
    assert feed.verdict()[0] == Level.ERROR
    feed.run(0.1)
    assert feed.verdict()[0] == Level.OK


def test_fault_f10_one_of_three_is_a_warning_that_says_so():
    feed = Feed()
    feed.run(1)
    feed.until(Level.WARN, "lost", steps=3)
    feed.run(3, steps=3)
    level, text = feed.verdict()
    assert level == Level.WARN and "10.0 Hz" in text and feed.health.drops == 2 * (len(feed.health._arrivals) - 1)


def test_fault_f10_a_camera_that_stops_is_stale_after_200_ms_and_well_after_its_return():
    feed = Feed()
    feed.run(1)
    feed.pass_time(0.15)
    assert feed.verdict()[0] == Level.WARN
    feed.pass_time(0.06)
    assert feed.verdict()[0] == Level.STALE
    feed.pass_time(8)
    feed.number = 0
    feed.run(1)
    assert feed.verdict()[0] == Level.OK


def test_fault_f11_joint_states_at_30_hz_are_a_warning():
    feed = Feed(30, 0.0, joint_limits(1000))
    feed.run(1)
    level, text = feed.verdict()
    assert level == Level.WARN and "30.0 Hz, and 1000 Hz" in text


def test_jitter_is_seen():
    health, random = StreamHealth(camera_limits(RATE)), np.random.default_rng(0)
    for i in range(60):
        steady = i / RATE + random.uniform(0, 0.03)
        health.add(EPOCH + i / RATE, steady)
    level, text = health.verdict(EPOCH + 2, steady)
    assert level == Level.WARN and "jitter" in text and 0.01 < health.jitter < 0.03


@given(st.integers(1, 400), st.integers(1, 400))
def test_copies_have_one_digest_and_noise_another(height, width):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    assert digest(image) == digest(image.copy()) != digest(image + np.uint8(1))


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rates_that_are_none_are_refused(rate):
    for limits in (camera_limits, joint_limits):
        with pytest.raises(RobotRLError, match="rate"):
            limits(rate)
