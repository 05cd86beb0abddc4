"""What is said of the quality of demonstrations: laws of the measures, and that what stands out is named."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_rl.quality import oddness, quality
from robot_rl.types import Episode

RATE = 10.0


def episode(state: np.ndarray) -> Episode:
    T, none = len(state) - 1, np.zeros(len(state) - 1, np.float32)
    obs = {"state": np.asarray(state, np.float32), "stamp/state": np.arange(T + 1) / RATE}
    return Episode(obs, np.zeros((T, 2), np.float32), none, none, none > 0, False, True)


def reach(start: float, T: int = 30, wait: int = 0) -> np.ndarray:
    """From `start` to 1, after `wait` steps of standing still."""
    way = np.concatenate([np.zeros(wait), np.linspace(0, 1, T + 1 - wait)])
    return np.stack([start + (1 - start) * way, way**2], 1)


def store(n: int = 12) -> dict[int, Episode]:
    rng = np.random.default_rng(0)
    noise = 1e-4 * rng.normal(size=(n, 31, 2))
    return {i: episode(reach(0.02 * i + 0.01 * rng.uniform()) + noise[i]) for i in range(n)}


def test_standing_still_is_idle_and_constant_speed_has_no_jerk():
    still, moving = quality({0: episode(reach(0.0, wait=15)), 1: episode(reach(0.0))}, RATE).idle
    assert still == pytest.approx(0.5, abs=0.05) and moving == 0.0
    line = np.stack([np.linspace(0, 1, 31)] * 2, 1)
    assert quality({0: episode(line)}, RATE).jerk[0] == pytest.approx(0.0, abs=1e-3)
    t = np.linspace(0, 1, 31)[:, None]  # x = t^3 over 3 s: its third derivative is 6 / 27
    assert quality({0: episode(t**3)}, RATE).jerk[0] == pytest.approx(6 / 27, rel=1e-2)


@given(arrays(np.float32, (4, 9, 2), elements=st.floats(-1, 1, width=32)), st.floats(0.5, 100), st.floats(-5, 5))
def test_measures_do_not_depend_on_units_nor_on_where_zero_is(states, unit, zero):
    assume(np.ptp(states.reshape(-1, 2), axis=0).min() > 0.1)  # else its span would be rounding
    ours = quality(dict(enumerate(map(episode, states))), RATE)
    theirs = quality(dict(enumerate(episode(s * unit + zero) for s in states.astype(np.float64))), RATE)
    assert np.allclose(ours.jerk, theirs.jerk, rtol=1e-2, atol=0.5)
    assert np.allclose(ours.start, theirs.start, atol=1e-3) and 0.0 <= ours.spread <= 1.0
    assert ((ours.idle >= 0) & (ours.idle <= 1)).all()


def test_the_same_start_twice_has_no_distance_and_starts_spread_as_they_do():
    found = quality({0: episode(reach(0.0)), 1: episode(reach(0.0)), 2: episode(reach(0.5))}, RATE)
    assert found.start[:2].tolist() == [0.0, 0.0] and found.start[2] == pytest.approx(0.5 / np.sqrt(2), abs=1e-3)
    assert found.spread == pytest.approx(0.25)


@given(arrays(np.float64, 15, elements=st.floats(-1e3, 1e3)))
def test_half_of_all_are_never_odd(values):
    assert np.sum(oddness(values) > 1.0) <= len(values) // 2 + 1


def test_what_stands_out_is_named_with_its_reason():
    sound = store()
    assert quality(sound, RATE).outliers() == []
    shaky = reach(0.1)
    shaky[10:20, 0] += 0.1 * (-1.0) ** np.arange(10)
    far = quality(sound | {20: episode(shaky), 21: episode(reach(0.9))}, RATE)
    text = "\n".join(far.outliers())
    assert "episode 20: jerk" in text and "episode 21: " in text and "distance of the start" in text
    assert quality({0: sound[0], 1: episode(shaky)}, RATE).outliers() == []  # of two, neither


def test_an_episode_of_one_step_is_measured_too():
    found = quality({0: episode(np.zeros((2, 2))), 1: episode(np.ones((2, 2)))}, RATE)
    assert np.isfinite([found.jerk, found.idle, found.start, found.length]).all()
    assert len(found.lines()) == 3
