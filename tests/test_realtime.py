"""An agent in real time: what is due is played, nothing is waited for, and the arm holds where there is nothing.

Most of it runs under a clock of its own: planning takes as much of the world's time as a test says.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import checkpoint
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.realtime import Realtime, RealtimeConfig
from robot_rl.rollout import rollout
from robot_rl.types import Channel, Decision, RobotRLError, Spec, Step
from sim.toy import ToyEnv

DELTAS = (Channel("eef_delta_x", "m", -0.05, 0.05), Channel("eef_delta_ry", "rad", -0.2, 0.2))
ACTION = (*DELTAS, Channel("gripper", "1", -1.0, 1.0))
PLAIN = RealtimeConfig(inpaint=False)


class World:
    """A clocked `Env` that records what it is asked; a human acts at the steps `human`, stamps jitter by `jitter`."""

    def __init__(self, rate=20.0, steps=60, human=(), jitter=0.0):
        self.spec = Spec("clock", "", (Channel("x", "m", -1, 1),), ACTION, (), rate, steps)
        self.time, self.asked, self.human, self.jitter = 0.0, [], set(human), jitter
        self._random = np.random.default_rng(0)

    def reset(self, seed=None):
        self.asked = []
        return self._obs()

    def step(self, action):
        self.asked.append((self.time, action))
        intervened = len(self.asked) - 1 in self.human
        self.time += 1.0 / self.spec.rate
        executed = np.array([0.0, 0.0, 0.77], np.float32) if intervened else action
        return Step(self._obs(), executed, 0.0, False, len(self.asked) == self.spec.max_steps, intervened)

    def _obs(self):
        stamp = self.time + self.jitter * self._random.uniform(-1, 1) / self.spec.rate
        return {"state": np.zeros(1, np.float32), "stamp/state": np.array(stamp)}


class Worker(Executor):
    """Plans take so many seconds of the world's time, one after another; for the first alone they may be waited for."""

    def __init__(self, world, delays):
        self.world, self.delays, self.free, self.took = world, iter(delays), 0.0, []

    def submit(self, plan, *given):
        worker, future = self, Future()
        delay = next(self.delays)
        due = self.free = max(self.free, self.world.time) + delay
        self.took.append(due - self.world.time)
        try:
            future.set_result(plan(*given))
        except ValueError as error:
            future.set_exception(error)

        class Later(Future):
            def done(self):
                return worker.world.time >= due - 1e-9

            def result(self, timeout=None):
                assert self.done() or len(worker.took) == 1, "waited for a plan under way"
                worker.world.time = max(worker.world.time, due)
                return future.result()

            def exception(self, timeout=None):
                return None

        return Later()


class Planner:
    """Action k of plan m (from 1) is (m / 1000, -m / 1000, k / 100); beside it "plan" m and "row" k are remembered."""

    n_obs = 1

    def __init__(self, rows=16, error_at=None):
        self.policy = SimpleNamespace(spec=World().spec)
        self.rows, self.seen, self.error_at = rows, [], error_at

    def at(self, rate):
        self.policy.spec = replace(self.policy.spec, rate=rate)
        return self

    def reset(self, seed=None):
        self.seen = []

    def decide(self, obs, *, explore):
        self.seen.append(obs)
        m, k = len(self.seen), np.arange(self.rows, dtype=np.float32)
        if m == self.error_at:
            raise ValueError("the network is gone")
        actions = np.stack([np.full(self.rows, m / 1000), np.full(self.rows, -m / 1000), k / 100], -1)
        return Decision(actions.astype(np.float32), {"plan": np.full(self.rows, m), "row": k})


def played(world):
    """(moment, plan, row) of each step; plan 0 where the arm held."""
    return [(when, round(a[0] * 1000), round(a[2] * 100)) for when, a in world.asked]


def realtime(agent, world, delays, config=PLAIN):
    return Realtime(agent.at(world.spec.rate), config, Worker(world, delays))


def forever(delay):
    return iter(lambda: delay, None)


def test_every_plan_is_told_with_the_stamp_of_its_observation_and_what_a_critic_expects():
    world, agent, heard = World(steps=40), Planner(), []
    tell = lambda *plan: heard.append(plan)  # noqa: E731
    rollout(world, Realtime(agent, PLAIN, Worker(world, forever(0.1)), tell), explore=False, seed=0)
    assert len(heard) == len(agent.seen) >= 3 and all(math.isnan(value()) for _, _, value in heard)
    agent.value = lambda obs, actions: float(actions[0, 0])
    rollout(world, Realtime(agent, PLAIN, Worker(world, forever(0.1)), tell), explore=False, seed=0)
    for m, (seen, (stamp, actions, value)) in enumerate(zip(agent.seen, heard[-len(agent.seen) :], strict=True), 1):
        assert stamp == seen["stamp/state"][-1] and actions.shape == (16, 3) and value() == pytest.approx(m / 1000)


# What an agent that answers at once does.


@pytest.mark.parametrize("config", [FrozenConfig(4), ResidualConfig(4), ResidualConfig(4, whole_chunks=True)], ids=str)
@pytest.mark.parametrize("inpaint", [False, True])
def test_an_agent_that_answers_at_once_plays_as_in_the_plain_loop_bit_for_bit(toy_policy, config, inpaint):
    policy = checkpoint.load(toy_policy)
    for explore in (False, True):
        agent = config.build(policy)
        plain = rollout(ToyEnv(), agent, explore=explore, seed=3)
        player = Realtime(agent, RealtimeConfig(inpaint=inpaint, replan=4), Worker(SimpleNamespace(time=0), forever(0)))
        other = rollout(ToyEnv(), player, explore=explore, seed=3)
        np.testing.assert_array_equal(plain.action, other.action)
        np.testing.assert_array_equal(plain.obs["state"], other.obs["state"])
        assert plain.extras.keys() == other.extras.keys()
        for key in plain.extras:
            np.testing.assert_array_equal(plain.extras[key], other.extras[key])
        assert player.seams()["starved"] == player.seams()["delay_p99"] == 0.0


@pytest.mark.parametrize(("replan", "every"), [(None, 14), (5, 5), (16, 16), (99, 16)])
def test_the_next_plan_is_started_when_so_many_actions_are_past(replan, every):
    world, agent = World(), Planner()
    rollout(world, realtime(agent, world, forever(0.0), RealtimeConfig(replan=replan)), explore=False)
    assert [round(o["stamp/state"][-1] * 20) for o in agent.seen] == list(range(0, 61, every))


# What is played when planning takes its time.


@settings(deadline=None, max_examples=60)
@given(
    delays=st.lists(st.floats(0.0, 1.2), min_size=70, max_size=70),
    rows=st.integers(2, 20),
    replan=st.one_of(st.none(), st.integers(1, 20)),
    rate=st.sampled_from([10.0, 20.0, 30.0]),
)
def test_each_action_is_due_by_its_plans_observation_and_remembered_beside_it(delays, rows, replan, rate):
    world, agent = World(rate), Planner(rows)
    player = realtime(agent, world, delays, RealtimeConfig(inpaint=False, replan=replan))
    episode = rollout(world, player, explore=False)
    still = delays[0]  # the first plan is waited for: on the track that is no time
    holds, newest = 0, 0
    for t, (when, plan, row) in enumerate(played(world)):
        if plan == 0:
            holds += 1
            assert row == round(100 * episode.action[t - 1][2]), "a gripper stays as it was told"
            continue
        seen = agent.seen[plan - 1]["stamp/state"][-1]
        assert row == round((when - seen - (still if plan == 1 else 0.0)) * rate) and row < rows
        assert plan >= newest and when >= seen + worker_delay(player, plan) - 1e-6
        assert episode.extras["plan"][t] == plan and episode.extras["row"][t] == row
        newest = plan
    numbers = player.seams()
    assert holds <= numbers["starved"] <= holds + 1  # the loop asks once more at the end, for what to remember
    assert played(world)[0][1:] == (1, 0)


def worker_delay(player, plan):
    return player._executor.took[plan - 1]


F09_DELAYS = (0.0, 0.05, 0.1, 0.245, 0.4, 0.8)


@pytest.mark.parametrize("rate", [10.0, 20.0, 30.0])
@pytest.mark.parametrize("jitter", [0.0, 0.5])
@pytest.mark.parametrize("delay", F09_DELAYS)
def test_fault_f09_slow_plans_after_a_cold_start_play_nothing_stale_and_skip_what_they_took(delay, jitter, rate):
    rows, random = 16, np.random.default_rng(7)
    delays = [0.7, *(delay * (1 + jitter * random.uniform(-1, 1)) for _ in range(300))]
    world, agent = World(rate, steps=200), Planner(rows)
    player = realtime(agent, world, delays, RealtimeConfig(inpaint=False, replan=2))
    rollout(world, player, explore=False)
    first = [row for _, plan, row in played(world) if plan == 1]
    assert first == list(range(len(first))) and len(first) >= 2, "the first chunk skips nothing after a cold start"
    for when, plan, row in played(world):
        seen = agent.seen[plan - 1]["stamp/state"][-1] if plan > 1 else math.inf
        assert plan < 2 or (row == round((when - seen) * rate) and when < seen + rows / rate - 1e-6)
    numbers = player.seams()
    if 2 * math.ceil(delay * (1 + jitter) * rate) <= rows:  # a chunk covers two plans: its own and the next
        assert numbers["starved"] == numbers["too_late"] == 0
        assert numbers["seams"] > 10
        ticks = math.ceil(delay * rate - 1e-6) / rate
        if jitter == 0.0:  # a plan that is there at once is played from the next tick, while there is another
            for name in ("delay_median", "delay_p99"):
                assert numbers[name] == pytest.approx(max(ticks, 1 / rate))
        else:
            assert 0.4 * delay < numbers["delay_median"] < numbers["delay_p99"] + 1e-9 < 1.5 * delay + 1 / rate + 1e-6
    if delay * (1 - jitter) > rows / rate:
        assert numbers["seams"] == 0 and numbers["too_late"] > 2 and numbers["starved"] > 150


@pytest.mark.parametrize("jitter", [0.1, 0.3])
def test_stamps_that_jitter_neither_repeat_nor_skip_an_action(jitter):
    world, agent = World(jitter=jitter, steps=100), Planner()
    rollout(world, realtime(agent, world, forever(0.12), RealtimeConfig(inpaint=False, replan=8)), explore=False)
    rows = [(plan, row) for _, plan, row in played(world)]
    for (plan, row), (following, there) in zip(rows[4:], rows[5:], strict=False):
        assert following != plan or there == row + 1


def test_where_no_action_is_due_the_arm_holds_with_its_gripper_as_it_was():
    world, agent = World(steps=30), Planner(rows=4)
    player = realtime(agent, world, forever(0.4))  # 8 ticks, of which at most one has an action
    episode = rollout(world, player, explore=False)
    assert [row for _, plan, row in played(world)[:4] if plan] == [0, 1, 2, 3]
    np.testing.assert_array_equal(episode.action[4:, :2], 0.0)
    np.testing.assert_allclose(episode.action[4:, 2], 0.03)
    assert player.seams()["starved"] == 27 and player.seams()["too_late"] == 3
    assert (episode.extras["plan"][4:] == 0).all()


# Seams.


@pytest.mark.parametrize("blend", [0, 3])
def test_the_old_chunk_goes_over_into_the_new_one_in_so_many_periods(blend):
    world, agent = World(steps=12), Planner()
    config = RealtimeConfig(blend=blend, inpaint=False, replan=5)
    episode = rollout(world, realtime(agent, world, forever(0.1), config), explore=False)
    shares = [(k + 1) / (blend + 1) for k in range(blend)] + [1.0] * (5 - blend)  # plan 2 arrives at tick 7
    np.testing.assert_allclose(episode.action[7:12, 0], [(1 + s) / 1000 for s in shares], atol=1e-6)
    assert episode.extras["plan"].tolist() == [1] * 7 + [2] * 5 + [3]


def test_jumps_are_reported_in_millimetres_and_radians():
    world, agent = World(steps=40), Planner()
    player = realtime(agent, world, forever(0.1), RealtimeConfig(inpaint=False, replan=8))
    rollout(world, player, explore=False)
    numbers = player.seams()
    assert numbers["seams"] == 4 and numbers["delay_median"] == pytest.approx(0.1)
    assert numbers["jump_mm"] == pytest.approx(1000 * 0.001 * 0.05) and numbers["jump_rad"] == pytest.approx(0.0002)


@pytest.mark.parametrize("inpaint", [True, False])
def test_a_plan_is_told_what_is_played_while_it_is_made(inpaint):
    world, agent = World(steps=40), Planner()
    rollout(world, realtime(agent, world, forever(0.2), RealtimeConfig(inpaint=inpaint, replan=6)), explore=False)
    assert "committed" not in agent.seen[0] and len(agent.seen) > 4
    for obs in agent.seen[1:]:
        assert ("committed" in obs) == inpaint
        if inpaint:
            tick = round((obs["stamp/state"][-1] - 0.2) * 20)
            while_made = [a for _, a in world.asked[tick : tick + 4]]
            assert obs["committed"].shape == (10, 3)
            np.testing.assert_array_equal(obs["committed"][: len(while_made)], while_made)


# A human beside the robot.


def test_fault_f16_what_was_planned_before_a_hand_over_is_never_played_after_it():
    hands = {20, 21, 22, 23, 35}
    world, agent = World(steps=60, human=hands), Planner()
    player = realtime(agent, world, forever(0.15), RealtimeConfig(inpaint=False, replan=4))
    episode = rollout(world, player, explore=False)
    let_go = [world.asked[t][0] + 0.05 for t in sorted(hands)]  # when the human's step was over
    for t, (when, plan, _) in enumerate(played(world)):
        before = [moment for moment in let_go if moment <= when + 1e-9]
        if plan and before:
            assert agent.seen[plan - 1]["stamp/state"][-1] > before[-1] + 1e-9, t
    assert episode.intervened.sum() == 5 and (episode.extras["plan"][28:35] > 0).all()
    assert player.seams()["starved"] == 2 * 3  # after each hand-over: until a plan from the next observation is there


def test_a_hold_after_a_human_keeps_the_gripper_as_the_human_left_it_where_the_loop_says_so():
    player = realtime(Planner(), World(), forever(0.0))
    obs = {"state": np.zeros((1, 1), np.float32), "stamp/state": np.zeros(1)}
    player.decide(obs, explore=False)
    after = {**obs, "stamp/state": np.array([0.05]), "intervened": np.array(True)}
    assert player.decide(after, explore=False).actions[0].tolist() == [0.0, 0.0, 0.0]
    executed = {**after, "executed": np.array([1.0, 1.0, 0.77], np.float32)}
    np.testing.assert_allclose(player.decide(executed, explore=False).actions[0], [0.0, 0.0, 0.77], atol=1e-6)


# An agent that corrects every step.


def test_a_residual_corrects_each_action_of_the_plan_at_the_newest_observation(toy_policy):
    agent = ResidualConfig(8, scale=0.3).build(checkpoint.load(toy_policy))
    plans, corrected, plan, correct = [], [], agent.plan, agent.correct

    def planning(obs, *, explore):
        plans.append((round(obs["stamp/state"][-1] * 10), plan(obs, explore=explore)))
        return plans[-1][1]

    def correcting(obs, base, *, explore):
        corrected.append(round(obs["stamp/state"][-1] * 10))
        return correct(obs, base, explore=explore)

    agent.plan, agent.correct = planning, correcting
    env = ToyEnv()
    world = SimpleNamespace(time=0.0)

    class Clocked(ToyEnv):
        def step(self, action):
            world.time += 0.1
            return super().step(action)

    env = Clocked()
    player = Realtime(agent, RealtimeConfig(replan=4), Worker(world, [0.0, *[0.2] * 20]))
    episode = rollout(env, player, explore=True, seed=1)
    base, arrivals = episode.extras["base_action"], [(start + 2 * (start > 0), start, chunk) for start, chunk in plans]
    assert corrected == list(range(len(episode) + 1)) and len(plans) > 3
    for t in range(len(episode)):
        _, start, chunk = [a for a in arrivals if a[0] <= t][-1]
        np.testing.assert_array_equal(base[t], chunk[t - start])
    assert 0 < np.abs(episode.action - base[:-1]).max() <= 0.1 + 1e-6  # the exploration of the warm-up
    for (_, earlier), (start, chunk) in zip(plans, plans[1:], strict=False):
        assert start and (chunk[:4] == earlier[4:]).all(), "the plan begins with what was committed"


def test_a_residual_that_has_no_action_to_correct_holds(toy_policy):
    policy = checkpoint.load(toy_policy)
    policy.spec = replace(policy.spec, action=DELTAS)
    agent, world = ResidualConfig(4).build(policy), SimpleNamespace(time=0.0)
    player = Realtime(agent, PLAIN, Worker(world, [0.0, math.inf]))
    episode = rollout(ToyEnv(), player, explore=True, seed=1)
    np.testing.assert_array_equal(episode.action[4:], 0.0)
    np.testing.assert_array_equal(episode.extras["base_action"][4:], 0.0)


# Threads and errors.


def planning_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("plan")]


def test_an_error_while_planning_is_the_next_decisions_and_no_thread_is_left():
    world = World(steps=40)
    for error_at in (1, 2):
        with (
            closing(Realtime(Planner(4, error_at), PLAIN)) as player,
            pytest.raises(ValueError, match="network is gone"),
        ):
            player.reset(0)
            for tick in range(40):
                stamps = {"state": np.zeros((1, 1)), "stamp/state": np.array([tick / world.spec.rate])}
                player.decide(stamps, explore=False)
                time.sleep(0.002)
        assert not planning_threads()


def test_reset_and_close_wait_until_no_plan_uses_the_agent():
    class Slow(Planner):
        begun, log = threading.Event(), []

        def decide(self, obs, *, explore):
            if self.seen:
                self.begun.set()
                time.sleep(0.1)
            self.log.append("planned")
            return super().decide(obs, explore=explore)

        def reset(self, seed=None):
            self.log.append("reset")
            super().reset(seed)

    agent = Slow(2)
    player = Realtime(agent, PLAIN)
    obs = {"state": np.zeros((1, 1)), "stamp/state": np.zeros(1)}
    for end, human in ((lambda: player.reset(1), False), (lambda: player.reset(1), True), (player.close, False)):
        player.reset(0)
        player.decide(obs, explore=False)
        player.decide({**obs, "stamp/state": np.full(1, 0.05)}, explore=False)  # starts a plan that takes long
        assert agent.begun.wait(10)
        agent.begun.clear()
        if human:  # who makes the plan stale, but not its thread free
            player.decide({**obs, "stamp/state": np.full(1, 0.1), "intervened": np.array(True)}, explore=False)
        end()
    one = ["reset", "planned", "planned"]
    assert agent.log == [*one, "reset", *one, "reset", *one] and not planning_threads()


def test_in_true_time_a_plan_that_takes_longer_than_a_period_keeps_nobody_waiting():
    class Slow(Planner):
        def decide(self, obs, *, explore):
            time.sleep(0.12)
            return super().decide(obs, explore=explore)

    class Paced(World):
        def step(self, action):
            time.sleep(max(0.0, 0.05 - (time.monotonic() - self.time)))
            self.time = time.monotonic() - 0.05  # World adds the period
            return super().step(action)

        def reset(self, seed=None):
            self.time = time.monotonic()
            return super().reset(seed)

    world = Paced(steps=30)
    with closing(Realtime(Slow(16), RealtimeConfig(inpaint=False, replan=4))) as player:
        rollout(world, player, explore=False)
    numbers = player.seams()
    assert numbers["seams"] >= 2 and numbers["delay_median"] >= 0.1 and numbers["starved"] < 10
    assert not planning_threads()


def test_what_cannot_be_played_in_real_time_is_named():
    with pytest.raises(RobotRLError, match="replan must be 1"):
        Realtime(Planner(), RealtimeConfig(replan=0))
    with pytest.raises(RobotRLError, match="blend of 0"):
        Realtime(Planner(), RealtimeConfig(blend=-1))
    for obs in ({}, {"stamp/state": np.array([math.nan])}):
        with pytest.raises(RobotRLError, match='"stamp/state"'):
            realtime(Planner(), World(), forever(0.0)).decide({"state": np.zeros((1, 1)), **obs}, explore=False)
    world = World()
    with pytest.raises(RobotRLError, match="plans single actions"):
        rollout(world, realtime(Planner(rows=1), world, forever(0.0)), explore=False)
