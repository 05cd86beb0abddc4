"""Resuming: a run killed at any moment ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import checkpoint
from robot_rl.agents.residual import ResidualConfig
from robot_rl.apart import act
from robot_rl.checkpoints import save_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.judged import Judged
from robot_rl.refine import Learning, RefineConfig, labelled, refine
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv

CONFIG = RefineConfig(steps=700, base_steps=150, first_updates=40, utd=1, threads=1)
AGENT = ResidualConfig(execute=4, heads=3, width=32, batch=32, critic_only=60, actor_every=2)
RUN = """
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.checkpoints import save_agent
from robot_rl.pretrain import PretrainConfig, pretrain
from robot_rl.refine import refine
from sim.toy import ToyEnv
from tests.test_refine import AGENT, CONFIG, built
verb, out, demos, base = sys.argv[1], *map(Path, sys.argv[2:])
if verb.startswith("refine"):
    config = replace(CONFIG, overlap=verb == "refine overlapped")
    refine(out, [demos], ToyEnv, partial(built, base), config, {"agent": AGENT}, save_agent)
else:
    config = PretrainConfig(steps=400, warmup=20, batch=32, save_every=25)
    pretrain(out, demos, FlowConfig(horizon=8, backbone=MlpConfig(32, 1, dropout=0.1)), config, checkpoint.save)
"""
ROOT = Path(__file__).parents[1]


def built(policy):
    return AGENT.build(checkpoint.load(policy))


def start(verb, out, demos, base):
    command = [sys.executable, "-c", textwrap.dedent(RUN), verb, str(out), str(demos), str(base)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def same(first, second):
    """Whether two nested states are equal to the last bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize("verb", ["pretrain", "refine", "refine overlapped"])
def test_a_run_killed_at_random_moments_equals_the_straight_run(verb, toy_demos, toy_policy, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(verb, straight, toy_demos, toy_policy).wait() == 0
    rng, kills = np.random.default_rng(0), 0
    for _ in range(4):
        process = start(verb, killed, toy_demos, toy_policy)
        while not (killed / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.02)
        try:
            process.wait(rng.uniform(0.0, 4.0) if kills else 0.3)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start(verb, killed, toy_demos, toy_policy).wait() == 0
    assert kills >= 1
    assert (straight / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    ends = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (straight, killed)]
    assert same(*ends)
    if verb.startswith("refine"):
        stores = [EpisodeStore.open(run / "episodes") for run in (straight, killed)]
        assert len(stores[0]) == len(stores[1]) == ends[0]["episodes"]
        for first, second in zip(*stores, strict=True):
            np.testing.assert_array_equal(first.action, second.action)


def run(out, demos, policy, config=CONFIG, env=ToyEnv):
    loaded = checkpoint.load(policy)
    return refine(out, [demos], env, lambda: AGENT.build(loaded), config, {"agent": AGENT}, save_agent)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, toy_demos, toy_policy):
    out = tmp_path_factory.mktemp("refine") / "run"
    run(out, toy_demos, toy_policy)
    return out


def test_gradient_steps_are_the_update_to_data_ratio_times_steps(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    store = EpisodeStore.open(finished / "episodes")
    assert [row["step"] for row in rows] == np.cumsum([len(e) for e in store]).tolist()
    for row in rows:
        due = 0 if row["step"] < CONFIG.base_steps else CONFIG.first_updates + row["step"] - CONFIG.base_steps
        assert row["updates"] == due
    assert rows[-1]["step"] >= CONFIG.steps > rows[-2]["step"]


def test_overlapped_practice_acts_as_learned_one_episode_earlier(finished, toy_demos, toy_policy, tmp_path):
    config = replace(CONFIG, overlap=True)
    refine(tmp_path / "run", [toy_demos], ToyEnv, partial(built, toy_policy), config, {"agent": AGENT}, save_agent)
    inline, overlapped = (EpisodeStore.open(run / "episodes") for run in (finished, tmp_path / "run"))
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    learned = next(i for i, row in enumerate(rows) if row["updates"])  # by the end of this episode
    for i in range(learned + 1):
        np.testing.assert_array_equal(inline[i].action, overlapped[i].action)
    assert not np.array_equal(inline[learned + 1].action, overlapped[learned + 1].action), "still the warm-up's noise"
    late = overlapped[learned + 1]
    difference = np.abs(late.action - np.clip(late.extras["base_action"][:-1], -1, 1))
    assert 0 < difference.max() <= AGENT.warm_up_noise + 1e-6


def test_only_the_base_acts_before_the_first_update(finished):
    store = EpisodeStore.open(finished / "episodes")
    first = store[0]
    difference = np.abs(first.action - np.clip(first.extras["base_action"][:-1], -1, 1))
    assert 0 < difference.max() <= AGENT.warm_up_noise + 1e-6


def stamps(store):
    """When each file of a store was last written, its writer's lock apart."""
    return {f: f.stat().st_mtime_ns for f in store.rglob("*") if f.is_file() and f.name != ".lock"}


def test_a_finished_run_is_left_alone(finished, toy_demos, toy_policy):
    before = stamps(finished / "episodes")
    run(finished, toy_demos, toy_policy)
    assert stamps(finished / "episodes") == before


def test_a_folder_of_another_config_is_refused_and_untouched(finished, toy_demos, toy_policy):
    before = (finished / "config.json").read_text()
    with pytest.raises(RobotRLError, match=r"refine.utd: 7 here, 1 there"):
        run(finished, toy_demos, toy_policy, RefineConfig(**{**vars(CONFIG), "utd": 7}))
    assert (finished / "config.json").read_text() == before


def test_demonstrations_of_another_world_are_refused(tmp_path, toy_demos, toy_policy):
    from sim.pusht import PushTConfig

    with pytest.raises(RobotRLError, match=r"world: .*toy"):
        run(tmp_path / "run", toy_demos, toy_policy, env=PushTConfig().build)


def test_lost_episodes_are_noticed(tmp_path, toy_demos, toy_policy):
    out = tmp_path / "run"
    run(out, toy_demos, toy_policy)
    with EpisodeStore.create(out / "episodes", ToyEnv().spec) as store:
        store.truncate(3)
    with pytest.raises(RobotRLError, match="lost episodes"):
        run(out, toy_demos, toy_policy)


@pytest.mark.parametrize("overlap", [False, True])
def test_an_episode_that_was_stored_is_kept_and_learned_from_first(overlap, toy_demos, toy_policy, tmp_path):
    """A person's steps cannot be played again, so a run that is stopped while it learns throws none away."""
    config, straight, stopped = replace(CONFIG, overlap=overlap, steps=400), tmp_path / "straight", tmp_path / "stopped"

    def go(out):
        refine(out, [toy_demos], ToyEnv, partial(built, toy_policy), config, {"agent": AGENT}, save_agent)

    go(straight)
    for most in (0, 4, 3):  # episodes that are learned from before somebody presses Ctrl-C
        with pytest.MonkeyPatch.context() as patch:
            learn, calls = Learning.learn, []

            def interrupted(self, *given, learn=learn, calls=calls, most=most):
                calls.append(1)
                if len(calls) > most:
                    raise KeyboardInterrupt
                return learn(self, *given)

            patch.setattr(Learning, "learn", interrupted)
            with pytest.raises(KeyboardInterrupt):
                go(stopped)
        stored = {f: t for f, t in stamps(stopped / "episodes").items() if f.parent.name != "episodes"}
    go(stopped)
    after = stamps(stopped / "episodes")
    assert stored and all(after[file] == time for file, time in stored.items())
    assert same(*(torch.load(out / "checkpoint.pt", weights_only=True) for out in (straight, stopped)))
    assert (straight / "metrics.jsonl").read_text() == (stopped / "metrics.jsonl").read_text()


def test_what_an_actor_played_is_not_wiped_by_another_role(tmp_path, toy_demos, toy_policy):
    config = replace(CONFIG, lead=CONFIG.steps)
    act(tmp_path / "run", [toy_demos], ToyEnv, partial(built, toy_policy), config, {"agent": AGENT})
    before = stamps(tmp_path / "run" / "episodes")
    with pytest.raises(RobotRLError, match="go on with --role actor and learner"):
        run(tmp_path / "run", toy_demos, toy_policy, config)
    assert stamps(tmp_path / "run" / "episodes") == before


def test_practice_of_another_reward_convention_is_refused(tmp_path, toy_demos, toy_policy):
    for name, rewarded in {"graded": lambda s: s.score, "-1/0": lambda s: s.reward - 1}.items():

        class Other(ToyEnv):
            def step(self, action, rewarded=rewarded):
                step = super().step(action)
                return replace(step, reward=float(rewarded(step)))

        with pytest.raises(RobotRLError, match="practice gave the rewards .* a reward must be 0, or 1 at a success"):
            run(tmp_path / name, toy_demos, toy_policy, env=Other)
    with pytest.raises(RobotRLError, match="the judge said 0.7"):
        run(tmp_path / "judged", toy_demos, toy_policy, env=lambda: Judged(ToyEnv(), lambda obs: 0.7))


def test_practice_in_which_nothing_would_be_learned_is_refused(tmp_path, toy_demos, toy_policy):
    with pytest.raises(RobotRLError, match="of 100 steps the base alone would play all, as base_steps is 150"):
        run(tmp_path / "run", toy_demos, toy_policy, replace(CONFIG, steps=100))


def test_demonstrations_without_a_seed_get_noise_of_their_own(toy_demos, toy_policy, tmp_path):
    demo = EpisodeStore.open(toy_demos).read(0)
    with EpisodeStore.create(tmp_path / "twice", ToyEnv().spec) as store:
        for _ in range(2):
            store.append(replace(demo, meta={**demo.meta, "seed": None}))
    first, second = labelled(built(toy_policy), [tmp_path / "twice"])
    assert not np.array_equal(first.extras["base_action"], second.extras["base_action"])


def test_no_demonstrations_is_an_error(tmp_path, toy_policy):
    EpisodeStore.create(tmp_path / "empty", ToyEnv().spec).close()
    with pytest.raises(RobotRLError, match="no demonstrations"):
        run(tmp_path / "run", tmp_path / "empty", toy_policy)
