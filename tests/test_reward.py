"""A reward from pictures: what counts as success, how the threshold is chosen, and practice that goes by it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies import checkpoint
from policies import reward as reward_file
from policies.encoders import ConvConfig
from policies.reward import ClassifierConfig
from policies.vision import VisionConfig
from robot_rl import sealed
from robot_rl.collect import collect
from robot_rl.episodes import EpisodeStore
from robot_rl.judged import Judged
from robot_rl.reward import RewardConfig, _Pictures, in_words, labels, split, threshold, train
from robot_rl.rollout import rollout
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv, ToyOperator

EYES = VisionConfig(ConvConfig((8, 16, 16), (2, 2, 1), features=16), shift=1)
see_toy = partial(ToyEnv, image=True)


def touching():
    """The toy world, but success is what a picture can show: point and goal touch."""
    return Judged(ToyEnv(image=True), lambda obs: float(np.hypot(*(obs["state"][:2] - obs["state"][2:])) < 0.15))


class Scored:
    def __init__(self, highest_false):
        self.highest_false = highest_false


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.floats(0, 0.9))
def test_the_threshold_is_the_lowest_that_keeps_the_budget(highest, budget):
    at = threshold([Scored(h) for h in highest], budget)
    alarms = sum(h >= at for h in highest)
    assert alarms <= budget * len(highest)
    lower = max((h for h in highest if h < at), default=0.0)
    assert sum(h >= lower for h in highest) > budget * len(highest)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("judged") / "demos"
    return collect(out, see_toy().spec, touching, partial(ToyOperator, 0.4), episodes=50, keep_failures=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store):
    out = tmp_path_factory.mktemp("judged") / "reward"
    config = RewardConfig(steps=200, last=1, near=2, false_alarms=0.1)
    return out, train(out, (store,), None, ClassifierConfig(EYES), config, reward_file.save)


def test_the_split_is_by_episode_and_leaves_none_out(store):
    episodes = list(EpisodeStore.open(store))
    parts = split(episodes, RewardConfig(held_out=0.2))
    seeds = [[e.meta["seed"] for e in part] for part in parts]
    assert sorted(sum(seeds, [])) == sorted(e.meta["seed"] for e in episodes)
    assert len(seeds[1]) == len(seeds[2]) and len(seeds[0]) > 2 * len(seeds[1]) > 0
    label = labels(next(e for e in episodes if e.success and len(e) > 6), RewardConfig(last=2, near=3))
    assert list(label[-6:]) == [0, -1, -1, -1, 1, 1] and not label[:-5].any()
    failed = rollout(Judged(see_toy(), lambda obs: 0.0), ToyOperator(1.0), explore=False, seed=0)
    assert not labels(failed, RewardConfig()).any()


def test_half_of_what_it_learns_from_shows_success_and_a_quarter_deceives_the_guards(store):
    episodes, config = list(EpisodeStore.open(store))[:20], RewardConfig()
    for allowed in (lambda state: state[:, 0] > 0.2, lambda state: np.zeros(len(state), bool)):
        pictures = _Pictures(episodes, config, allowed)
        kinds = [rows.numpy() for rows in pictures._kinds]
        known = np.concatenate([y[y >= 0] for y in (labels(e, config) for e in episodes)])
        states = np.concatenate([e.obs["state"][labels(e, config) >= 0] for e in episodes])
        assert (known[kinds[1]] == 1).all() and (known[np.concatenate(kinds[::2])] == 0).all()
        if allowed(states).any():
            assert allowed(states[kinds[2]]).all() and 0 < len(kinds[2]) < len(kinds[0])
        seen, label = pictures.draw(40)
        assert label.sum() == 20 and len(seen["image/top"]) == 40


def test_several_stores_are_one(store, tmp_path):
    episodes = list(EpisodeStore.open(store))
    spec = EpisodeStore.open(store).spec
    for name, part in {"one": episodes[:30], "two": episodes[30:]}.items():
        with EpisodeStore.create(tmp_path / name, spec) as half:
            for episode in part:
                half.append(episode)
    config, how = RewardConfig(steps=3), (None, ClassifierConfig(EYES))
    together = train(tmp_path / "a", (tmp_path / "one", tmp_path / "two"), *how, config, reward_file.save)
    assert together == train(tmp_path / "b", (store,), *how, config, reward_file.save)


def test_it_sees_success_and_says_how_sure_that_is(trained):
    out, result = trained
    test, (low, high) = result["test"], result["test"]["precision_interval"]
    assert test["recall"] > 0.6 and test["precision"] > 0.6, result
    assert low <= test["precision"] <= high and json.loads((out / "reward.json").read_text())["test"]["claims"]
    assert result["chosen_on"]["claims"] - result["chosen_on"]["true_claims"] <= 0.1 * result["chosen_on"]["episodes"]


def test_who_has_seen_no_failure_is_told_what_that_leads_to(trained, store):
    _, result = trained
    assert result["failed_episodes"] == sum(not episode.success for episode in EpisodeStore.open(store)) == 0
    assert "--keep-failures" in in_words(result)
    assert "WARNING" not in in_words({**result, "failed_episodes": 1})


def test_saved_and_loaded_it_judges_the_same_and_guards_object(trained, store, tmp_path):
    classifier, episodes = reward_file.load(trained[0]), list(EpisodeStore.open(store))
    rows = [{k: v[-1] for k, v in e.obs.items()} for e in episodes]
    rewards = [classifier.reward(row) for row in rows]
    assert {0.0, 1.0} == set(rewards)
    guarded = replace(classifier.config, guards=("x>0.3",)).build(classifier.spec).eval()
    guarded.load_state_dict(classifier.state_dict())
    guarded.threshold = classifier.threshold
    reward_file.save(guarded, tmp_path / "guarded.pt")
    guarded = reward_file.load(tmp_path / "guarded.pt")
    assert [guarded.reward(row) for row in rows] == [
        r * (row["state"][0] > 0.3) for r, row in zip(rewards, rows, strict=True)
    ]
    for wrong in ("z>0", "x=3", "x>high"):
        with pytest.raises(RobotRLError, match="guard"):
            ClassifierConfig(EYES, guards=(wrong,)).build(classifier.spec)


def test_what_is_no_reward_is_named(toy_policy, tmp_path, trained):
    with pytest.raises(RobotRLError, match="robot-rl reward"):
        reward_file.load(toy_policy)
    with pytest.raises(RobotRLError, match="no checkpoint"):
        reward_file.load(tmp_path / "none.pt")
    data = torch.load(trained[0] / "reward.pt", weights_only=True)
    del data["weights"]["outlet.1.bias"]
    sealed.write(data, tmp_path / "torn.pt")
    with pytest.raises(RobotRLError, match=r"torn\.pt: weights\.outlet\.1\.bias is missing"):
        reward_file.load(tmp_path / "torn.pt")


def test_a_judged_world_ends_where_its_judge_says_and_only_there():
    operator = ToyOperator(1.0)
    own = rollout(see_toy(), operator, explore=False, seed=3)
    never = rollout(Judged(see_toy(), lambda obs: 0.0), operator, explore=False, seed=3)
    assert own.success and len(own) < len(never) == see_toy().spec.max_steps
    assert never.truncated and not never.terminated and not never.reward.any()
    np.testing.assert_array_equal(never.action[: len(own)], own.action)
    early = rollout(Judged(see_toy(), lambda obs: float(obs["state"][0] > -0.2)), operator, explore=False, seed=3)
    assert early.terminated and early.success and len(early) < len(own)
    assert early.obs["state"][-1, 0] > -0.2 and (early.obs["state"][:-1, 0] <= -0.2).all()


def test_too_few_successes_and_wrong_settings_are_named(store, tmp_path):
    with pytest.raises(RobotRLError, match="held_out is 0.7"):
        train(tmp_path / "a", (store,), None, ClassifierConfig(EYES), RewardConfig(held_out=0.7), reward_file.save)
    few = collect(tmp_path / "few", see_toy().spec, see_toy, partial(ToyOperator, 1.0), episodes=3)
    with pytest.raises(RobotRLError, match="too few"):
        train(tmp_path / "b", (few,), None, ClassifierConfig(EYES), RewardConfig(), reward_file.save)
    blind = collect(tmp_path / "blind", ToyEnv().spec, ToyEnv, partial(ToyOperator, 1.0), episodes=15)
    with pytest.raises(RobotRLError, match="needs a camera"):
        train(tmp_path / "c", (blind,), None, ClassifierConfig(EYES), RewardConfig(), reward_file.save)
    with pytest.raises(RobotRLError, match="do not describe the same"):
        train(tmp_path / "d", (store,), blind, ClassifierConfig(EYES), RewardConfig(), reward_file.save)


def test_practice_goes_by_the_classifier_and_a_blind_base_may_too(trained, store, toy_policy, tmp_path):
    from drivers.web_tls import WebConfig
    from robot_rl.cli import _practice
    from robot_rl.refine import RefineConfig
    from sim.human import HumanConfig

    make = _practice(toy_policy, RefineConfig(), HumanConfig(), None, None, trained[0], WebConfig())
    env, classifier = make(), reward_file.load(trained[0])
    episode = rollout(env, ToyOperator(1.0), explore=False, seed=1)
    assert "image/top" in episode.obs
    judged = [classifier.reward({k: v[t] for k, v in episode.obs.items()}) for t in range(1, len(episode) + 1)]
    np.testing.assert_array_equal(episode.reward, judged)
    assert not checkpoint.load(toy_policy).sees_images
