"""Laws of playing in many processes: the same seeds give the same episodes, whatever is killed on the way."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.transformer import TransformerConfig
from policies.unet import UnetConfig
from robot_rl import checkpoints, vector, workers
from robot_rl.agents.frozen import in_rows
from robot_rl.agents.residual import ResidualConfig
from robot_rl.rollout import rollout
from robot_rl.types import Agent, RobotRLError
from sim.toy import ToyEnv, ToyOperator

SEEDS = list(range(100, 119))


def same(left, right) -> bool:
    return all(
        a.meta == b.meta
        and all(np.array_equal(a.obs[k], b.obs[k]) for k in a.obs)
        and np.array_equal(a.action, b.action)
        for a, b in zip(left, right, strict=True)
    )


def refined(policy: Path) -> Agent:
    """A residual agent that really corrects."""
    torch.manual_seed(0)
    agent = ResidualConfig(heads=2, width=16).build(checkpoints.load_agent(policy).policy)
    torch.nn.init.normal_(agent.actor[-1].weight)
    return agent


@pytest.fixture(params=["frozen", "residual"])
def make_agent(request, toy_policy):
    return partial(checkpoints.load_agent if request.param == "frozen" else refined, toy_policy)


def test_workers_and_worlds_change_speed_and_nothing_else(make_agent, monkeypatch):
    alone = list(vector.episodes(ToyEnv, make_agent, SEEDS, 1))
    assert [e.meta["seed"] for e in alone] == SEEDS
    assert same(alone, list(vector.episodes(ToyEnv, make_agent, SEEDS, 2)))
    assert same(alone[7:10], list(vector.episodes(ToyEnv, make_agent, SEEDS[7:10], 1))), "others do not matter"
    monkeypatch.setattr(vector, "EACH", 7)
    monkeypatch.setattr(vector, "RHYTHM", 3)
    assert same(alone, list(vector.episodes(ToyEnv, make_agent, SEEDS, 1)))


def test_one_row_at_a_time_is_the_plain_rollout(make_agent, monkeypatch):
    monkeypatch.setattr(vector, "ROWS", 1)
    agent, env = make_agent(), ToyEnv()
    plain = [rollout(env, agent, explore=False, seed=seed) for seed in SEEDS]
    played = list(vector.episodes(ToyEnv, make_agent, SEEDS, 1))
    assert same(plain, played)
    for a, b in zip(plain, played, strict=True):
        assert a.extras.keys() == b.extras.keys()
        assert all(np.array_equal(a.extras[key], b.extras[key]) for key in a.extras)


@pytest.mark.parametrize(
    "backbone", [MlpConfig(64, 2), TransformerConfig(), UnetConfig()], ids=lambda b: type(b).__name__
)
def test_who_shares_a_policy_call_changes_nothing(backbone):
    policy = FlowConfig(horizon=16, steps=2, backbone=backbone).build(ToyEnv().spec).eval()
    policy.fit(np.random.default_rng(0).normal(size=(50, 4)), np.random.default_rng(0).uniform(-1, 1, (50, 2)))
    state, noise = torch.randn(13, 2, 4), torch.randn(13, 16, 2)

    @given(st.lists(st.integers(0, 12), min_size=1, max_size=20))
    @settings(max_examples=10, deadline=None)
    def law(chosen):
        sample = in_rows(lambda s, n: policy.sample({"state": s}, n), 8, state[chosen], noise[chosen])
        assert torch.equal(sample, whole[chosen])

    whole = in_rows(lambda s, n: policy.sample({"state": s}, n), 8, state, noise)
    torch.testing.assert_close(whole, policy.sample({"state": state}, noise), atol=1e-4, rtol=1e-4)
    law()


def test_operators_play_in_workers_and_in_many_worlds():
    alone = list(workers.episodes(ToyEnv, ToyOperator, SEEDS, 1))
    assert [e.meta["seed"] for e in alone] == SEEDS
    assert same(alone, list(workers.episodes(ToyEnv, ToyOperator, SEEDS, 2)))
    assert same(alone, list(vector.episodes(ToyEnv, ToyOperator, SEEDS, 1)))


@dataclass
class Cursed(ToyEnv):
    """Kills or hangs its process in the middle of one seed's episode: the first `times` times."""

    flags: str = ""
    seed: int = SEEDS[4]
    times: int = 1
    hang: bool = False

    def reset(self, seed=None):
        self._at = seed
        return super().reset(seed)

    def step(self, action):
        if self._at == self.seed and self._steps == 2 and len(os.listdir(self.flags)) < self.times:
            Path(self.flags, str(len(os.listdir(self.flags)))).touch()
            time.sleep(60) if self.hang else os._exit(9)
        return super().step(action)


@pytest.fixture(params=["together", "whole"])
def play(request, toy_policy):
    """Two workers, by either of the two ways to use them."""
    if request.param == "together":
        return lambda make_env: list(vector.episodes(make_env, partial(checkpoints.load_agent, toy_policy), SEEDS, 2))
    return lambda make_env: list(workers.episodes(make_env, ToyOperator, SEEDS, 2))


def test_what_a_dead_worker_played_is_played_again(play, tmp_path):
    assert same(play(ToyEnv), play(partial(Cursed, flags=str(tmp_path), times=2)))
    assert len(list(tmp_path.iterdir())) == 2, "it did die"


def test_what_a_hanging_worker_played_is_played_again(play, tmp_path, monkeypatch):
    plain = play(ToyEnv)
    monkeypatch.setattr(workers, "PATIENCE", 25.0)
    assert same(plain, play(partial(Cursed, flags=str(tmp_path), hang=True)))
    assert len(list(tmp_path.iterdir())) == 1, "it did hang"


def test_a_seed_that_always_kills_its_worker_is_named(play, tmp_path):
    with pytest.raises(RobotRLError, match=rf"seed .*{SEEDS[4]}.* died.* 3 times"):
        play(partial(Cursed, flags=str(tmp_path), times=99))


def refused() -> ToyEnv:
    raise RobotRLError("there is no such world")


def test_what_the_user_can_mend_is_told_as_it_is(play):
    with pytest.raises(RobotRLError, match="there is no such world"):
        play(refused)


def stillborn() -> ToyEnv:
    os._exit(9)


def test_a_worker_that_dies_before_it_has_a_world_is_told(play):
    with pytest.raises(RobotRLError, match="died.*Use --workers 1"):
        play(stillborn)


def test_senseless_numbers_of_workers_are_told(toy_policy):
    with pytest.raises(RobotRLError, match="workers is 0; it must be at least 1"):
        list(workers.episodes(ToyEnv, ToyOperator, SEEDS, 0))
    cores = len(os.sched_getaffinity(0))
    with pytest.warns(UserWarning, match=rf"{cores + 1} workers share {cores} cores"):
        workers.require_workers(cores + 1)
