"""What is seen of a robot, and when."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from drivers.observer import Observer, Ticker
from drivers.robot_file import CameraFile
from drivers.sync import Stream
from robot_rl.types import RobotRLError
from tests.lockstep import ROBOT, Bench

PERIOD = 1.0 / ROBOT.rate


def observer(bench, **cameras):
    return Observer(bench.robot, bench.readings, {"tracker": bench.tracker}, cameras)


def test_it_names_the_oldest_stream_when_it_is_too_old():
    bench = Bench()
    watch = observer(bench)
    assert watch.silent(bench.now()) == "" and watch.age(bench.now()) == pytest.approx(0.0)
    bench.silent = {"tracker"}
    bench.sleep_until(bench.time + 0.3)
    assert watch.silent(bench.now()) == "the stream 'tracker' is 0.30 s old"
    assert watch.age(bench.now()) == pytest.approx(0.3, abs=0.011)


def test_a_stream_that_never_came_is_infinitely_old():
    bench = Bench()
    watch = Observer(ROBOT, bench.readings, {"tracker": Stream("tracker", 5)})
    assert watch.age(bench.now()) == math.inf and "tracker" in watch.silent(bench.now())


def test_it_waits_for_readings_from_after_the_call():
    bench = Bench()
    begin = bench.now()
    observer(bench).await_readings(bench)
    assert begin <= bench.readings.newest < begin + 0.1


def test_names_that_a_sensor_lacks_are_told():
    bench = Bench()
    bench.sleep_until(bench.time + 0.01)
    bench.tracker.add(bench.time + 1e-3, {"mug_x": 0.0})
    bench.readings.add(bench.time + 1e-3, replace(bench.state(), stamp=bench.time + 1e-3))
    with pytest.raises(RobotRLError, match="'tracker' lacks cube_x; it has mug_x"):
        observer(bench).observe()


def test_a_picture_is_the_nearest_and_of_the_size_that_the_file_says():
    bench = Bench(replace(ROBOT, cameras={"wrist": CameraFile("wrist/image", 2, 3)}))
    pictures: Stream[np.ndarray] = Stream("wrist", 8)
    for k in range(4):
        pictures.add(100.0 + 0.033 * k, np.full((2, 3, 3), k, np.uint8))
    bench.sleep_until(100.07)
    obs = observer(bench, wrist=pictures).observe()
    assert obs["image/wrist"][0, 0, 0] == 2 and obs["stamp/image/wrist"] == pytest.approx(100.066)
    pictures.add(100.2, np.zeros((4, 3, 3), np.uint8))
    bench.sleep_until(100.3)
    with pytest.raises(RobotRLError, match="pictures of 'wrist' are .*file says .2, 3, 3. uint8"):
        observer(bench, wrist=pictures).observe()


def test_ticks_lie_on_a_grid_and_the_missed_ones_are_left_out():
    bench = Bench()
    ticker = Ticker(bench, PERIOD)
    ticker.begin()
    begin = bench.time
    times = []
    for busy in (0.0, 0.5, 2.3, 0.0):  # periods
        bench.sleep_until(bench.time + busy * PERIOD)
        ticker.wait()
        times.append((bench.time - begin) / PERIOD)
    np.testing.assert_allclose(times, [1, 2, 5, 6], atol=1e-6)
    assert (ticker.ticks, ticker.late) == (4, 1) and max(ticker.overruns) < 1e-6
