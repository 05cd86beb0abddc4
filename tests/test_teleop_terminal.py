"""A person at a real pseudo-terminal drives the MuJoCo arm, and what was recorded can be learned from."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.collect import collect
from robot_rl.episodes import EpisodeStore
from robot_rl.pretrain import PretrainConfig, pretrain
from sim.robosuite_env import RobosuiteConfig
from sim.worlds import operator_for
from tests.terminal import ROOT, Typed, help_once


def test_three_episodes_by_keyboard_load_and_train(tmp_path):
    store = tmp_path / "mine"
    collect = ("collect", "--out", store, "--device", "keyboard", "--episodes", 3, "--keep-failures")
    with closing(Typed(*collect)) as typed:
        at = typed.until("WAITING: 0 of 3", 90)
        typed.press("w")  # nothing moves before a start
        for number, (motion, mark) in enumerate([("w", "y"), ("r", "n"), ("a", "y")]):
            typed.press("\n")
            at = typed.until("move to begin", 10, at)
            at = typed.until("ends it", 5, at, keep=motion)
            at = typed.until(r" (1[5-9]|[2-9]\d) steps", 10, at, keep=motion)
            typed.press(mark)
            at = typed.until(f"{number + 1} of 3", 10, at)
        assert typed.wait(60) == 0, typed.shown
    episodes = list(EpisodeStore.open(store))
    assert [e.meta["mark"] for e in episodes] == ["success", "failure", "success"]
    assert [e.success for e in episodes] == [True, False, True] and all(e.terminated for e in episodes)
    for episode, (channel, way) in zip(episodes, [(0, 1), (2, 1), (1, 1)], strict=True):
        moved = episode.obs["state"][-1, :3] - episode.obs["state"][0, :3]
        assert moved[channel] * way > 0.01 and np.abs(np.delete(moved, channel)).max() < 0.5 * moved[channel]
        stamps = episode.obs["stamp/state"]
        np.testing.assert_allclose(np.diff(stamps), 0.05, atol=1e-6)
        assert not episode.intervened.any() and episode.meta["actor"] == "person"
    config = PretrainConfig(steps=5, batch=8, warmup=1, save_every=5)
    file = pretrain(tmp_path / "run", (store,), FlowConfig(horizon=8, backbone=MlpConfig(width=16, depth=1)), config,
                    checkpoint.save)  # fmt: skip
    assert checkpoint.load(file).spec == EpisodeStore.open(store).spec


def test_a_person_helps_while_a_policy_practises_and_the_refiner_learns_from_it(lift_policy, tmp_path):
    world, out = RobosuiteConfig("Lift", max_steps=40), tmp_path / "run"
    spec = checkpoint.load(lift_policy).spec
    demos = collect(tmp_path / "demos", spec, world.build, partial(operator_for, spec, 1.0), episodes=1)
    words = ("--steps", 100, "--base-steps", 20, "--first-updates", 3, "--utd", 0.2, "--hopeless", 0, "--evaluate", 0)
    first = help_once("refine", "--out", out, "--policy", lift_policy, "--demos", demos, *words)
    episodes = list(EpisodeStore.open(out / "episodes"))
    late = [other.intervened[8:].any() for other in episodes[1:]]  # a key counts for 0.25 s
    assert not any(late)
    rows = [row for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "length" in row]
    assert [row["intervened"] for row in rows] == [episode.intervened.sum() for episode in episodes]
    assert rows[0]["intervention_rate"] == pytest.approx(first.intervened.mean())


def test_a_session_killed_at_random_moments_loses_no_stored_episode(tmp_path):
    """A few of the hundred that the benchmark makes."""
    command = [sys.executable, "tests/benchmarks/kill_collector.py", tmp_path / "store", "--times", "4", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout and "none of them lost or damaged" in done.stdout
