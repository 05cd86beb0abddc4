"""Eighteen traps that others fell into, each as a test. Where each was seen: docs/traps.md."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.engine import CriticEnsemble
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.agents.rlpd import RlpdConfig
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.evaluate import evaluate
from robot_rl.geometry import matrix_from_rot6d
from robot_rl.promote import compare
from robot_rl.refine import Learning, RefineConfig, labelled, refine
from robot_rl.replay import Replay, Table
from robot_rl.rollout import rollout
from robot_rl.types import Channel, Episode, RobotRLError, Step
from sim.human import HumanConfig, Watched
from sim.robosuite_env import RobosuiteConfig
from sim.toy import ToyEnv, ToyOperator
from tests.test_agents import AGENTS, every_agent, practised, trained

BY_TD = [name for name in AGENTS if name not in ("corrections", "taco")]


@pytest.fixture
def policy(toy_policy):
    torch.manual_seed(0)
    return checkpoint.load(toy_policy)


def short_episode(agent, *, success, T=1):
    state, action = np.zeros((T + 1, 4), np.float32), np.zeros((T, 2), np.float32)
    reward = np.zeros(T, np.float32)
    reward[-1] = success
    episode = Episode({"state": state}, action, reward, reward, np.zeros(T, bool), success, not success)
    extras = agent.label(episode)
    if "decision" in extras:
        extras["decision"][0] = True
    return replace(episode, extras=extras)


@pytest.mark.parametrize("name", BY_TD)
def test_trap_01_a_time_out_bootstraps_and_success_does_not(name, policy):
    agent = AGENTS[name].build(policy)
    kind = "decision" if name == "dsrl sac" else "all"
    for success in (True, False):
        table = Table()
        table.add(short_episode(agent, success=success))
        batch = table.sample(8, 1, 0.9, torch.Generator(), history=policy.n_obs, kind=kind)
        agent.target.forward = lambda state, *_: torch.full((2, len(state)), 0.5)
        expected = 1.0 if success else 0.9 * 0.5
        torch.testing.assert_close(agent._td_target(batch), torch.full((8,), expected))


def test_trap_02_the_value_of_three_chunks_is_the_closed_form(policy):
    """gamma counts control steps: h steps discount by gamma^h, and a reward inside a chunk by its place in it."""
    agent = AGENTS["residual"].build(policy)
    replay, gamma, h = Replay(), 0.9, 4
    replay.online.add(short_episode(agent, success=True, T=3 * h - 1))  # the last chunk is cut short by success
    replay.online._columns["state"][: 3 * h, 0] = np.arange(3 * h)
    batch = replay.sample(2000, 0.0, h, gamma, torch.Generator().manual_seed(0))
    value = np.zeros(3 * h)
    for _ in range(5):
        now, then = batch["state"][:, 0].long().numpy(), batch["next/state"][:, 0].long().numpy()
        value[now] = batch["reward"].numpy() + batch["discount"].numpy() * value[then]
    steps_left = 3 * h - 2 - np.arange(3 * h - 1)
    np.testing.assert_allclose(value[:-1], gamma**steps_left, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.integers(0, 50),
    st.integers(0, 20),
    st.sampled_from([0.25, 1.0, 3.0]),
)
def test_trap_03_utd_is_gradient_steps_per_control_step(lengths, base_steps, first, utd):
    class Counting:
        made, policy = 0, FlowConfig(backbone=MlpConfig(8, 1)).build(ToyEnv().spec)

        def update(self, replay):
            self.made += 1
            return {}

    agent = Counting()
    config = RefineConfig(base_steps=base_steps, first_updates=first, utd=utd)
    learning, steps = Learning(agent, config, []), 0
    learning._require_some_success = lambda: None
    flat = short_episode(FrozenLabel(), success=True)
    for T in lengths:
        flags, state = np.zeros(T, bool), np.zeros((T + 1, 4), np.float32)
        played = replace(flat, obs={"state": state}, action=state[1:, :2], reward=state[1:, 0], intervened=flags)
        learning.take(played)
        learning.learn()
        steps += T
        assert agent.made == learning.updates
        assert agent.made == (first + int(utd * (steps - base_steps)) if steps >= base_steps else 0)


class FrozenLabel:
    def label(self, episode):
        return {}


def test_trap_04_the_step_counter_is_the_simulators(toy_demos, toy_policy, tmp_path):
    """Warm-up counts, and a chunk counts each of its actions."""
    made = [0]

    class Counted(ToyEnv):
        def step(self, action):
            made[0] += 1
            return super().step(action)

    config = RefineConfig(steps=300, base_steps=100, first_updates=2, utd=0.1, threads=1)
    build = lambda: AGENTS["residual of chunks"].build(checkpoint.load(toy_policy))  # noqa: E731
    refine(tmp_path / "run", [toy_demos], Counted, build, config, {}, save_agent)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["steps"] == made[0] >= 300


@every_agent
def test_trap_05_every_episode_begins_with_a_fresh_plan(name, policy):
    """After success and after a time-out in the middle of a chunk; while demonstrations are labelled, too."""
    agent = trained(built := AGENTS[name].build(policy), practised(built), 12)
    fresh = agent.twin()
    for before in (ToyEnv(max_steps=6), ToyEnv()):
        rollout(before, agent, explore=True, seed=0)
        mine, its = (rollout(ToyEnv(), a, explore=False, seed=1) for a in (agent, fresh))
        np.testing.assert_array_equal(mine.action, its.action)
        labels = agent.label(mine), fresh.label(mine)
        assert all((labels[0][key] == labels[1][key]).all() for key in labels[0])


@every_agent
def test_trap_06_what_is_stored_is_what_the_controller_was_sent(name, policy):
    sent = []

    class Recorded(ToyEnv):
        def step(self, action):
            step = super().step(action)
            sent.append(step.action)
            return step

    human = HumanConfig(skill=1.0, patience=3, help=0.3)
    agent = AGENTS[name].build(policy)
    trained(agent, practised(agent), 12)
    episode = rollout(Watched(Recorded(), human, ToyOperator(1.0)), agent, explore=True, seed=3)
    np.testing.assert_array_equal(episode.action, np.stack(sent))
    moved = np.diff(episode.obs["state"][:, :2], axis=0) / 0.1
    inside = (np.abs(episode.obs["state"][1:, :2]) < 1).all(1)
    np.testing.assert_allclose(moved[inside], episode.action[inside], atol=1e-4)


class Hands:
    """A world where a human takes over at given steps."""

    def __init__(self, steps):
        self.env, self.steps = ToyEnv(), steps
        self.spec = self.env.spec

    def reset(self, seed=None):
        self.t = 0
        return self.env.reset(seed)

    def step(self, action):
        human = self.t in self.steps
        step = self.env.step(np.array([0.1, 0.1], np.float32) if human else action)
        self.t += 1
        return Step(step.obs, step.action, 0.0, False, step.truncated, human, step.score)


def test_trap_07_a_hand_in_the_middle_of_a_chunk_ends_the_transition_and_the_plan(policy):
    config = replace(AGENTS["residual"], warm_up_noise=0.0)
    agent = config.build(policy)
    episode = rollout(Hands({5, 6}), agent, explore=False, seed=0)
    replay = Replay()
    replay.remember(episode)
    assert replay.online.count("human") == len(replay.demos) == 2
    batch = replay.online.sample(500, 4, 0.9, torch.Generator().manual_seed(0), history=1)
    states = episode.obs["state"]
    index = [int(np.flatnonzero((states == s.numpy()).all(1))[0]) for s in batch["state"]]
    after = [int(np.flatnonzero((states == s.numpy()).all(1))[0]) for s in batch["next/state"]]
    border = {**dict.fromkeys(range(5), 5), 5: 7, 6: 7}
    for t, then, discount in zip(index, after, batch["discount"], strict=True):
        assert then == min(t + 4, border.get(t, len(episode)))
        assert discount == pytest.approx(0.9 ** (then - t)), "it bootstraps"
    # The plan of step 4 is gone at step 7: the base is asked anew, with the noise that comes next.
    agent.base.reset(0)
    plans = [agent.base.plan(torch.from_numpy(states[None, [max(t - 1, 0), t]])) for t in (0, 4, 6, 7)]
    np.testing.assert_allclose(episode.extras["base_action"][7], plans[-1][0, 0], atol=1e-5)


def test_trap_08_an_action_means_the_same_direction_in_every_pose():
    """The hand moves along the axes of the base, also where it is turned; and back again by the opposite action."""
    env = RobosuiteConfig("Lift").build()
    names = [channel.name for channel in env.spec.state]
    hand = [names.index(f"robot0_eef_pos_{axis}") for axis in "xyz"]
    turn = [i for i, name in enumerate(names) if name.startswith("robot0_eef_rot6d")]
    rng = np.random.default_rng(0)
    for trial in range(4):
        env.reset(trial)
        wander = np.append(rng.uniform(-0.3, 0.3, 3), rng.uniform(-1, 1, 3))
        for _ in range(12):
            state = env.step(np.append(wander, -1.0)).obs["state"]
        for _ in range(6):
            state = env.step(np.append(np.zeros(6), -1.0)).obs["state"]
        frame = matrix_from_rot6d(state[turn])
        assert np.abs(frame - np.diag([1.0, -1.0, -1.0])).max() > 0.1, "the hand is turned"
        for axis in range(3):
            there = np.zeros(7)
            there[axis], there[6] = 0.5, -1.0
            moved = [state[hand]]
            for sign in (1.0, -1.0):
                for _ in range(4):
                    env.step(np.append(sign * there[:6], -1.0))
                for _ in range(8):
                    state = env.step(np.append(np.zeros(6), -1.0)).obs["state"]
                moved.append(state[hand])
            way = moved[1] - moved[0]
            assert way[axis] / np.linalg.norm(way) > 0.95, (axis, way)
            back = moved[2] - moved[1]
            assert back @ way < -0.9 * np.linalg.norm(back) * np.linalg.norm(way), (axis, way, back)
    env.close()


def test_trap_09_segments_of_a_human_keep_their_own_neighbours(policy):
    agent = AGENTS["dsrl"].build(policy)
    replay, episodes = Replay(), []
    for seed in range(4):
        episodes.append(rollout(Hands({2, 3, 9, 10, 20}), agent, explore=False, seed=seed))
        replay.remember(episodes[-1])
    rows = {tuple(s): (k, t) for k, e in enumerate(episodes) for t, s in enumerate(e.obs["state"])}
    batch = replay.demos.sample(400, 3, 0.9, torch.Generator().manual_seed(0), history=2)
    for i in range(400):
        (k, t), (k2, then) = rows[tuple(batch["state"][i].numpy())], rows[tuple(batch["next/state"][i].numpy())]
        assert k == k2 and episodes[k].intervened[t] and episodes[k].intervened[t:then].all() and then > t
        np.testing.assert_array_equal(batch["history"][i, 0], episodes[k].obs["state"][max(t - 1, 0)])


def test_trap_10_the_gripper_penalty_is_in_every_gradient_step():
    toy = ToyEnv().spec
    spec = replace(toy, action=(*toy.action, Channel("gripper", "1", -1.0, 1.0)))
    base = FlowConfig(horizon=4, backbone=MlpConfig(16, 1)).build(spec)
    base.fit(np.random.default_rng(0).normal(size=(50, 4)), np.array([[-1.0] * 3, [1.0] * 3]))
    agent = RlpdConfig(4, gripper_penalty=0.25, heads=2, width=16, batch=64, critic_only=3).build(base)
    action = np.zeros((20, 3), np.float32)
    action[:, 2] = np.repeat([-1, 1, 0, 1, -1], 4)
    zeros = np.zeros(20, np.float32)
    episode = Episode({"state": np.zeros((21, 4), np.float32)}, action, zeros, zeros, zeros.astype(bool), False, True)
    toggled = agent.label(episode)["toggled"]
    assert np.flatnonzero(toggled).tolist() == [4, 16], "opening and closing count, staying does not"
    replay = Replay()
    for table in (replay.demos, replay.online):
        table.add(replace(episode, extras={"toggled": toggled}))
    seen, honest = [], agent._gripper_td_target

    def spied(batch):
        target = honest(batch)
        without = honest({**batch, "sum/toggled": torch.zeros_like(batch["sum/toggled"])})
        seen.append((without - target, batch["sum/toggled"]))
        return target

    agent._gripper_td_target = spied
    for _ in range(8):
        agent.update(replay)
    sums = torch.cat([flags for _, flags in seen]).unique()
    assert len(seen) == 8 and len(sums) == 4, "none, now, a step later, two steps later"
    torch.testing.assert_close(sums, torch.tensor([0.0, 0.99**2, 0.99, 1.0]))
    for difference, flags in seen:
        assert flags.any()
        torch.testing.assert_close(difference, 0.25 * flags)
    told = agent.decide({"state": np.zeros((base.n_obs, 4), np.float32)}, explore=False).actions[0, 2]
    assert abs(told) == 1, "0 would half open a robot's"


def test_trap_11_other_reward_conventions_are_refused_and_values_fit_their_bins(toy_demos, toy_policy, tmp_path):
    good = EpisodeStore.open(toy_demos).read(0)
    T = len(good)
    for reward in (good.reward - 1, np.full(T, 0.5, np.float32), np.ones(T, np.float32)):
        with EpisodeStore.create(tmp_path / f"{reward[0]}", ToyEnv().spec) as store:
            store.append(replace(good, reward=reward.astype(np.float32)))
        agent = AGENTS["residual"].build(checkpoint.load(toy_policy))
        with pytest.raises(RobotRLError, match="episode 0 .* reward convention"):
            labelled(agent, [tmp_path / f"{reward[0]}"])
    critic = CriticEnsemble(2, 3, 8, bins=51)
    values = torch.linspace(0, 1, 33)
    centres = (critic.edges[1:] + critic.edges[:-1]) / 2
    torch.testing.assert_close(critic.smeared(values).sum(-1), torch.ones(33))
    torch.testing.assert_close(critic.smeared(values) @ centres, values, atol=2e-3, rtol=0), "also at both ends"


def test_trap_12_the_base_survives_the_bounded_noise(toy_policy):
    """Before anything is learned, noise from the untrained actor must serve as well as the base's own."""

    def steered():
        return DsrlConfig("sac", 4, heads=2, width=32).build(checkpoint.load(toy_policy))

    own = evaluate(ToyEnv, partial(load_agent, toy_policy, 4), episodes=100)["summary"]
    boxed = evaluate(ToyEnv, steered, episodes=100)["summary"]
    assert boxed["wilson_high"] >= own["wilson_low"] and boxed["wilson_low"] <= own["wilson_high"]


@every_agent
def test_trap_13_every_field_of_a_config_is_read(name, policy):
    config, read = AGENTS[name], set()

    class Watching(type(config)):
        def __getattribute__(self, key):
            read.add(key)
            return object.__getattribute__(self, key)

    values = {f.name: getattr(config, f.name) for f in fields(config)}
    agent = type(config).build(Watching(**values), policy)
    trained(agent, practised(agent), 12)
    rollout(ToyEnv(), agent, explore=False, seed=0)
    idle = {"dsrl sac": {"demo_share"}, "residual of chunks": {"n_step"}}.get(name, set())  # it is documented
    of_grippers = {"gripper_scale", "gripper_penalty"}  # the toy world has none
    assert set(values) - read - of_grippers <= idle, set(values) - read


@pytest.mark.parametrize("bound", [0.5, 2.5])
def test_trap_13_the_noise_bound_is_the_one_in_use(bound, policy):
    agent = DsrlConfig("sac", 4, bound, heads=2, width=16).build(policy)
    torch.nn.init.normal_(agent.actor.net[-1].weight, std=100.0)
    noise = rollout(ToyEnv(), agent, explore=True, seed=0).extras["noise"]
    assert 0.98 * bound < np.abs(noise).max() <= bound * (1 + 1e-6)


@every_agent
def test_trap_14_at_step_zero_it_is_its_base(name, policy, tmp_path):
    """Evaluated from its file. `dsrl sac` plays other noise, which trap 12 looks at."""
    save_agent(AGENTS[name].build(policy), tmp_path / "agent.pt")
    agent, base = load_agent(tmp_path / "agent.pt"), FrozenConfig(4).build(policy)
    mine, its = (rollout(ToyEnv(), a, explore=False, seed=2).action for a in (agent, base))
    assert (mine.shape == its.shape and (mine == its).all()) or name == "dsrl sac"


@every_agent
def test_trap_15_what_is_loaded_is_what_was_saved(name, policy, tmp_path):
    agent = AGENTS[name].build(policy)
    save_agent(trained(agent, practised(agent), 20), tmp_path / "agent.pt")
    told = [evaluate(ToyEnv, make, episodes=4)["episodes"] for make in (lambda: agent, partial(load_agent, tmp_path))]
    assert told[0] == told[1]


@every_agent
def test_trap_16_a_resumed_learner_goes_on_as_the_straight_one(name, toy_demos, toy_policy, tmp_path):
    """Replay, temperature, averages, optimisers, counters and random generators are all there again."""
    config = RefineConfig(base_steps=40, first_updates=10, utd=0.2)

    def learner():
        torch.manual_seed(0)
        agent = AGENTS[name].build(checkpoint.load(toy_policy))
        return Learning(agent, config, labelled(agent, [toy_demos]))

    def go_on(learning, store, start):
        for seed in range(start, start + 4):
            human = Watched(ToyEnv(), HumanConfig(1.0, patience=4, help=0.3), ToyOperator(1.0))
            episode = rollout(human, learning.agent, explore=True, seed=seed)
            episode = episode if episode.extras else replace(episode, extras=learning.agent.label(episode))
            store.append(episode)
            learning.take(episode)
            learning.learn()

    with EpisodeStore.create(tmp_path / "store", ToyEnv().spec) as store:
        straight = learner()
        go_on(straight, store, 0)
        torch.save(straight.state_dict(), tmp_path / "state.pt")
        resumed = learner()
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), store)
        go_on(straight, store, 4)
        again = EpisodeStore.open(store.path)
        with EpisodeStore.create(tmp_path / "other", ToyEnv().spec) as other:
            go_on(resumed, other, 4)
            assert all((again.read(4 + i).action == other.read(i).action).all() for i in range(4))
    assert straight.agent.update(straight.replay) == resumed.agent.update(resumed.replay)


WRITER = """
import sys
import numpy as np
from robot_rl.episodes import EpisodeStore
from robot_rl.rollout import rollout
from sim.toy import ToyEnv, ToyOperator
with EpisodeStore.create(sys.argv[1], ToyEnv().spec) as store:
    for seed in range(150):
        store.append(rollout(ToyEnv(), ToyOperator(0.5), explore=False, seed=seed))
"""


def test_trap_17_a_reader_beside_a_writer_sees_every_episode_once_and_whole(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "store")], cwd=Path(__file__).parents[1])
    while not (tmp_path / "store" / ".zattrs").exists():
        assert writer.poll() is None
    table, seeds = Table(), []
    for episode in EpisodeStore.open(tmp_path / "store").follow(poll=0.0, timeout=5):
        table.add(episode)
        seeds.append(episode.meta["seed"])
        batch = table.sample(32, 3, 0.9, torch.Generator().manual_seed(len(seeds)))
        assert torch.isfinite(batch["state"]).all()
    assert writer.wait() == 0 and seeds == list(range(150))


def test_trap_18_only_results_on_the_same_start_states_are_compared(toy_policy):
    play = partial(load_agent, toy_policy, 4)
    one, again, other = (evaluate(ToyEnv, play, episodes=5, seed=seed) for seed in (0, 0, 1))
    assert compare(one, again) == {"gained": 0, "lost": 0, "p": 1.0}
    with pytest.raises(RobotRLError, match="different start states"):
        compare(one, other)


def test_the_eighteen_are_all_here():
    found = {name[5:12] for name in globals() if name.startswith("test_trap_")}
    assert found == {f"trap_{i:02}" for i in range(1, 19)}
