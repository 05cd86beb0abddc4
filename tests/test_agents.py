"""Laws that every refiner keeps, whatever it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policies import checkpoint
from robot_rl.agents.corrections import CorrectionsConfig
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.expo import ExpoConfig
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.agents.rlpd import RlpdConfig
from robot_rl.agents.taco import TacoConfig
from robot_rl.checkpoints import load_agent, load_base, save_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.evaluate import evaluate
from robot_rl.refine import RefineConfig, labelled, refine
from robot_rl.replay import Replay
from robot_rl.rollout import rollout
from robot_rl.types import RobotRLError
from robot_rl.vector import episodes
from sim.human import HumanConfig, Watched
from sim.toy import ToyEnv, ToyOperator

SMALL = {"execute": 4, "width": 32, "batch": 32}
CRITICS = SMALL | {"heads": 3, "critic_only": 6}
AGENTS = {
    "residual": ResidualConfig(**CRITICS, actor_every=2),
    "residual of chunks": ResidualConfig(**CRITICS, actor_every=2, whole_chunks=True, candidates=3, bins=21),
    "dsrl": DsrlConfig(**CRITICS),
    "dsrl sac": DsrlConfig(**CRITICS, variant="sac"),
    "rlpd": RlpdConfig(**CRITICS),
    "corrections": CorrectionsConfig(execute=4, batch=32),
    "expo": ExpoConfig(**CRITICS, candidates=3, actor_every=2),
    "taco": TacoConfig(**SMALL, candidates=3),
}
every_agent = pytest.mark.parametrize("name", AGENTS)


@pytest.fixture
def policy(toy_policy):
    torch.manual_seed(0)
    return checkpoint.load(toy_policy)


def practised(agent, n=8, env=ToyEnv):
    """A replay of demonstrations and of the agent's own episodes."""
    replay = Replay()
    for seed in range(n):
        demo = rollout(ToyEnv(), ToyOperator(1.0), explore=False, seed=seed)
        replay.demos.add(replace(demo, extras=agent.label(demo)))
        own = rollout(env(), agent, explore=True, seed=100 + seed)
        replay.remember(own if own.extras else replace(own, extras=agent.label(own)))
    return replay


def trained(agent, replay, steps):
    for _ in range(steps):
        metrics = agent.update(replay)
        assert all(np.isfinite(value) for value in metrics.values())
    return agent


@every_agent
def test_before_its_first_update_it_is_the_base_bit_for_bit(name, policy):
    if name == "dsrl sac":
        pytest.skip("its noise must lie in the box from the start; test_dsrl.py says that the base survives that")
    agent, base = AGENTS[name].build(policy), FrozenConfig(4).build(policy)
    for seed in range(4):
        mine, its = (rollout(ToyEnv(), a, explore=False, seed=seed) for a in (agent, base))
        np.testing.assert_array_equal(mine.action, its.action)


@every_agent
def test_saved_and_loaded_it_acts_and_learns_the_same(name, policy, tmp_path):
    agent = AGENTS[name].build(policy)
    replay = practised(agent)
    save_agent(trained(agent, replay, 12), tmp_path / "agent.pt")
    again = load_agent(tmp_path / "agent.pt")
    assert again.config == agent.config
    for explore in (True, False):
        mine, its = (rollout(ToyEnv(), a, explore=explore, seed=5) for a in (agent, again))
        np.testing.assert_array_equal(mine.action, its.action)
    for _ in range(4):
        assert agent.update(replay) == again.update(replay)


@every_agent
def test_trained_it_acts_otherwise_than_its_base_and_stays_in_the_box(name, policy):
    agent, base = AGENTS[name].build(policy), FrozenConfig(4).build(policy)
    trained(agent, practised(agent), 30)
    episodes = [rollout(ToyEnv(), agent, explore=explore, seed=seed) for seed in range(3) for explore in (True, False)]
    assert all(np.abs(e.action).max() <= 1 and np.isfinite(e.action).all() for e in episodes)
    theirs = [rollout(ToyEnv(), base, explore=False, seed=seed) for seed in range(3)]
    assert any(len(e) != len(t) or (e.action != t.action).any() for e, t in zip(episodes[1::2], theirs, strict=True))


@pytest.mark.parametrize("name", ["residual", "residual of chunks", "dsrl", "expo"])
def test_its_value_of_a_chunk_is_what_its_critics_expect_and_changes_nothing(name, policy):
    agent = AGENTS[name].build(policy)
    trained(agent, practised(agent), 12)
    obs = {key: np.stack([value] * policy.n_obs) for key, value in ToyEnv().reset(3).items()}
    agent.reset(0)
    chunk = (agent.plan if name == "residual" else agent.decide)(obs, explore=False)
    chunk = chunk if name == "residual" else chunk.actions
    before, seen = repr(agent.state_dict()), torch.from_numpy(obs["state"])[None]
    value = agent.value(obs, chunk)
    assert repr(agent.state_dict()) == before and value == agent.value(obs, chunk) != agent.value(obs, -chunk)
    state = policy.normalise(seen).flatten(1) if name == "dsrl" else policy.normalise(seen[:, -1])
    done = agent.correct(obs, chunk[0], explore=False).actions if name == "residual" else chunk
    assert value == pytest.approx(agent.critic(state, torch.from_numpy(done).flatten()[None]).mean().item(), abs=1e-6)


@every_agent
def test_an_episode_depends_on_agent_and_seed_and_not_on_who_is_played_beside(name, policy):
    def player():
        return trained_once[0]

    agent = AGENTS[name].build(policy)
    trained_once = [trained(agent, practised(agent), 12)]
    alone = [next(episodes(ToyEnv, player, [seed], 1)) for seed in range(5)]
    for one, many in zip(alone, episodes(ToyEnv, player, range(5), 1), strict=True):
        np.testing.assert_allclose(one.action, many.action, rtol=0, atol=1e-6)  # some CPUs round by the batch


@every_agent
def test_it_learns_beside_a_human_whose_steps_are_stored_as_executed(name, policy):
    human = HumanConfig(skill=1.0, patience=3, help=0.3)
    watched = lambda: Watched(ToyEnv(), human, ToyOperator(1.0))  # noqa: E731
    agent = AGENTS[name].build(policy)
    replay = practised(agent, env=watched)
    own = sum(len(rollout(ToyEnv(), ToyOperator(1.0), explore=False, seed=seed)) for seed in range(8))
    assert replay.online.count("human") > 0 and len(replay.demos) == own + replay.online.count("human")
    trained(agent, replay, 12)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("residual", {"candidates": 0}),
        ("residual", {"n_step": 0}),
        ("residual", {"actor_every": 0}),
        ("residual", {"demo_share": 1.5}),
        ("residual", {"bins": -3}),
        ("expo", {"batch": 0}),
        ("dsrl", {"bound": 0.0}),
        ("rlpd", {"heads": 1}),
        ("rlpd", {"gripper_penalty": -0.1}),
        ("corrections", {"human_weight": -1.0}),
        ("corrections", {"decay": 1.0}),
        ("expo", {"candidates": 0}),
        ("expo", {"scale": 0.0}),
        ("taco", {"coins": 0}),
        ("taco", {"execute": 99}),
        ("taco", {"batch": 1}),
        ("residual", {"gamma": 1.5}),
        ("residual", {"gamma": -1.0}),
        ("residual", {"tau": 0.0}),
        ("residual", {"tau": 5.0}),
        ("residual", {"penalty": -1.0}),
        ("residual", {"critic_only": -5}),
        ("residual", {"scale": math.nan}),
        ("residual", {"width": 0}),
        ("residual", {"actor_learning_rate": -1e-4}),
        ("expo", {"scale": math.inf}),
        ("expo", {"base_learning_rate": 0.0}),
        ("rlpd", {"temperature": 0.0}),
        ("dsrl", {"bound": math.nan}),
        ("dsrl", {"target_entropy": 5.0}),
    ],
)
def test_senseless_settings_are_named(name, wrong, policy):
    with pytest.raises(RobotRLError, match=next(iter(wrong))):
        replace(AGENTS[name], **wrong).build(policy)


LEARNERS = {
    "residual of chunks": (
        ResidualConfig(4, 0.3, whole_chunks=True, candidates=4, bins=31, penalty=0.01, heads=4, width=64, batch=128,
                       critic_only=300, actor_learning_rate=3e-4, critic_learning_rate=1e-3),
        HumanConfig(), 15,
    ),
    "dsrl sac": (
        DsrlConfig("sac", 4, heads=4, width=64, batch=128, critic_only=300, learning_rate=1e-3), HumanConfig(), 8,
    ),
    "rlpd": (
        RlpdConfig(4, heads=4, width=64, batch=128, critic_only=300, learning_rate=1e-3), HumanConfig(), 15,
    ),
    "corrections": (
        CorrectionsConfig(4, batch=128, learning_rate=5e-4, decay=0.99), HumanConfig(1.0, patience=6, help=0.2), 15,
    ),
    "expo": (
        ExpoConfig(4, 4, 0.3, heads=4, width=64, batch=128, critic_only=300, learning_rate=1e-3), HumanConfig(), 15,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_in_the_toy_world(name, toy_demos, toy_policy, tmp_path):
    config, human, gain = LEARNERS[name]
    practice = RefineConfig(steps=3000, base_steps=500, first_updates=300, utd=1, threads=1)
    make_env = lambda: Watched(ToyEnv(), human, ToyOperator(human.skill)) if human.skill else ToyEnv()  # noqa: E731
    build = lambda: config.build(checkpoint.load(toy_policy))  # noqa: E731
    file = refine(tmp_path / "run", [toy_demos], make_env, build, practice, {"agent": config}, save_agent)
    before = evaluate(ToyEnv, partial(load_agent, toy_policy, 4), episodes=100)["summary"]["successes"]
    after = evaluate(ToyEnv, partial(load_agent, file), episodes=100)["summary"]["successes"]
    print(name, before, after)
    assert before <= 65 and after >= before + gain, (before, after)


def test_what_corrections_trained_is_a_base_like_any_other(policy, toy_policy, tmp_path):
    """A residual of zero on it is it; it is no longer the base from which it began."""
    agent = AGENTS["corrections"].build(policy)
    replay = practised(agent)
    for _ in range(30):
        agent.update(replay)
    save_agent(agent, tmp_path / "agent.pt")
    further = AGENTS["residual"].build(load_base(tmp_path / "agent.pt"))
    played = [rollout(ToyEnv(), who, explore=False, seed=3).action for who in (agent, further)]
    np.testing.assert_array_equal(*played)
    begun = rollout(ToyEnv(), FrozenConfig(4).build(load_base(toy_policy)), explore=False, seed=3)
    assert not np.array_equal(begun.action, played[0])


def test_who_acts_by_more_than_a_policy_is_no_base(policy, tmp_path):
    save_agent(AGENTS["residual"].build(policy), tmp_path / "agent.pt")
    with pytest.raises(RobotRLError, match="Residual, which acts by more .* distil"):
        load_base(tmp_path / "agent.pt")


def test_other_agents_practice_counts_beside_demonstrations(policy, toy_demos, tmp_path):
    """All episodes of all stores are learned from, failures too, each with what this agent has to say of it."""
    config = RefineConfig(steps=100, base_steps=50, first_updates=2, utd=0, threads=1)
    build = partial(AGENTS["residual"].build, policy)
    refine(tmp_path / "first", [toy_demos], ToyEnv, build, config, {}, save_agent)
    practice = tmp_path / "first" / "episodes"
    prior = labelled(build(), [toy_demos, practice])
    assert len(prior) == len(EpisodeStore.open(toy_demos)) + len(EpisodeStore.open(practice))
    assert not all(episode.success for episode in prior)
    assert all(episode.extras["base_action"].shape == (len(episode) + 1, 2) for episode in prior)
