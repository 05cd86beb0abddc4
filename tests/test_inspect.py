"""`inspect` counts right, warns of what it should and of nothing else, and leaves plots and a video."""

import re
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.episodes import EpisodeStore
from robot_rl.inspect import inspect
from robot_rl.rollout import rollout
from robot_rl.statistics import wilson
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv, ToyOperator
from tests.test_episodes import SPEC, make

PLOTS = ["actions.png", "lengths.png", "states.png"]


def store_of(path, spec, episodes):
    with EpisodeStore.create(path, spec) as store:
        for episode in episodes:
            store.append(episode)
    return path


def in_range(seed: int = 0):
    episode = make(seed=seed)
    episode.obs["state"] = np.tanh(episode.obs["state"])
    episode.reward[0] = 1.0  # a store without a success is warned of
    return episode


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662), (0, 0, 0, 1)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)  # 81 of 263: Newcombe 1998, table I


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_laws(trial):
    successes, n = trial
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))
    for p in (low, high):  # its definition: the chances whose z score for what was seen is the limit
        if 0 < p < 1:
            assert abs(successes / n - p) / np.sqrt(p * (1 - p) / n) == pytest.approx(1.959964, rel=1e-5)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(RobotRLError, match="11 successes in 10 trials"):
        wilson(11, 10)


def test_the_toy_store_is_told_and_nothing_is_warned_of(tmp_path):
    played = [rollout(ToyEnv(), ToyOperator(0.3), explore=False, seed=seed) for seed in range(12)]
    text = inspect(store_of(tmp_path / "store", ToyEnv().spec, played))
    lengths, successes = [len(e) for e in played], sum(e.success for e in played)
    assert 0 < successes < 12
    assert "world       toy, 10 Hz, at most 30 steps" in text
    assert "episodes    12" in text
    assert f"{sum(lengths)} (" in text
    assert f"{min(lengths)} / {np.median(lengths):g} / {max(lengths)} (min / median / max)" in text
    assert f"{successes} of 12: {successes / 12:.1%}, 95 % interval {wilson(successes, 12)[0]:.1%}" in text
    assert f"endings     {successes} terminated, {12 - successes} truncated" in text
    row = next(line for line in text.splitlines() if line.startswith("state goal_x"))
    goals = np.concatenate([e.obs["state"][:, 2] for e in played])
    numbers = [f"{v:.4g}" for v in (goals.min(), goals.mean(dtype=float), goals.max())]
    assert row.split() == ["state", "goal_x", "m", "-1", "to", "1", *numbers]
    assert "WARNING" not in text


def test_shares_and_shapes(tmp_path):
    episodes = [in_range(seed) for seed in range(2)]
    episodes[0].intervened[:], episodes[1].intervened[:] = False, np.arange(70) < 14
    text = inspect(store_of(tmp_path, SPEC, episodes))
    assert "human       10.0% of the steps, in 1 of 2 episodes" in text
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {"obs state float32 (T + 1, 3)", "action float32 (T, 2)", "extra base float64 (T + 1, 2)"} <= lines
    assert {"obs image/front uint8 (T + 1, 6, 8, 3)", "obs stamp/state float64 (T + 1)"} <= lines


def still(e):
    e.obs["state"][:, 1] = 0.25


def outside(e):
    e.obs["state"][7, 0] = -1.5


def saturated(e):
    e.action[:21, 1] = -1.0


def late(e):
    e.obs["stamp/state"][40:] += 0.3


def frozen(e):
    e.obs["stamp/state"][40] = e.obs["stamp/state"][39]


@pytest.mark.parametrize(
    ("spoil", "warning"),
    [
        (still, "state x1 is always 0.25"),
        (outside, r"state x0 leaves its range \[-1, 1\] m in 1.4% of the readings, by up to 0.5 m"),
        (saturated, "action dx1 is at the end of its range in 30.0% of the steps"),
        (late, r"stamp/state has gaps of up to 0.4 s at 10 Hz \(episode 0\); 1.4% of the periods"),
        (frozen, "stamp/state stands still or goes back in 1.4% of the periods"),
    ],
)
def test_warnings(tmp_path, spoil, warning):
    named = replace(
        SPEC,
        state=tuple(replace(c, name=f"x{i}") for i, c in enumerate(SPEC.state)),
        action=tuple(replace(c, name=f"dx{i}") for i, c in enumerate(SPEC.action)),
    )
    sound, episode = in_range(), in_range()
    spoil(episode)
    assert "WARNING" not in inspect(store_of(tmp_path / "sound", named, [sound]))
    text = inspect(store_of(tmp_path / "odd", named, [episode]))
    warnings = [line for line in text.splitlines() if "WARNING" in line]
    assert any(re.search(warning, line) for line in warnings), warnings


def test_plots_and_a_video_of_both_cameras(tmp_path):
    store = store_of(tmp_path / "store", SPEC, [in_range(seed) for seed in range(3)])
    text = inspect(store, tmp_path / "out", video_of=2)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*PLOTS, "episode_000002.mp4"])
    assert text.count("wrote ") == 4
    for name in PLOTS:
        picture = cv2.imread(str(tmp_path / "out" / name))
        assert picture.shape[0] > 100
        assert picture.std() > 10  # something is drawn
    with av.open(str(tmp_path / "out" / "episode_000002.mp4")) as file:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    assert len(frames) == 71
    assert frames[0].shape == (6, 12, 3)
    assert frames[0][:2, 8:].max() < 60  # the lower picture stands on black, the taller does not
    assert frames[0][:2, :8].mean() > 60


def test_a_store_without_images_says_so(tmp_path):
    played = rollout(ToyEnv(), ToyOperator(), explore=False, seed=0)
    text = inspect(store_of(tmp_path / "store", ToyEnv().spec, [played]), tmp_path / "out")
    assert "no video: this store has no cameras" in text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == PLOTS


def test_an_episode_that_is_not_there(tmp_path):
    with pytest.raises(RobotRLError, match="no episode 1 .* 0 to 0"):
        inspect(store_of(tmp_path / "store", SPEC, [in_range()]), tmp_path / "out", video_of=1)


def test_an_empty_store(tmp_path):
    text = inspect(store_of(tmp_path / "store", SPEC, []), tmp_path / "out")
    assert "episodes    0" in text
    assert not (tmp_path / "out").exists()


def test_damage_is_told_and_mended_when_asked(tmp_path):
    store = store_of(tmp_path / "store", SPEC, [in_range(seed) for seed in range(3)])
    (store / "000001" / "obs" / "image" / "front" / "2.0.0.0").write_bytes(b"")
    (store / "000002" / "action" / "0.0").unlink()
    text = inspect(store, tmp_path / "out", video_of=1)
    assert "WARNING  episode" in text
    assert "000002 is damaged" in text
    assert "episodes    2" in text  # without its images, episode 1 is still readable
    assert "no video: episode" in text
    mended = inspect(store, repair=True)
    assert "cut from 70 to 63 steps" in mended
    assert "episodes    2, 1 of them repaired" in mended
    assert "WARNING" not in mended
