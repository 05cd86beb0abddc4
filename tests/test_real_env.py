"""A robot as an Env, under a fake clock: one moment seen, what was executed stored, ticks kept, aborts named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl import control
from robot_rl.geometry import quat_inverse, quat_product, vector_from_quat
from robot_rl.rollout import rollout
from robot_rl.types import Decision, RobotRLError
from tests.lockstep import MIDDLE, ROBOT, Bench, with_limits

PERIOD = 1.0 / ROBOT.rate
REST = np.array([0, 0, 0, 0, 0, 0, -1.0], np.float32)


class Always:
    n_obs = 2

    def __init__(self, action):
        self.action = np.array(action, np.float32)

    def reset(self, seed=None):
        pass

    def decide(self, obs, *, explore):
        return Decision(self.action[None])


def test_every_step_takes_one_period_whatever_the_action():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    begin = bench.time
    for k in range(1, 21):
        env.step(np.random.default_rng(k).uniform(-0.2, 0.2, 7))
        assert bench.time == pytest.approx(begin + k * PERIOD, abs=1e-6)
    assert (env.ticks, env.late) == (20, 0)


def test_a_plan_is_shown_as_the_way_that_the_tool_would_go():
    bench, shown = Bench(), []
    env = bench.env(on_plan=lambda *plan: shown.append(plan))
    env.reset(0)
    actions = np.tile(REST, (3, 1))
    actions[:, 0], actions[2, 1] = 1.0, -0.5
    env.planned(bench.time, actions, 0.7)
    ((stamp, path, value),) = shown
    assert (stamp, value) == (bench.time, 0.7)
    np.testing.assert_allclose(path - bench.position, [[0.02, 0, 0], [0.04, 0, 0], [0.06, -0.01, 0]], atol=1e-9)


def test_a_late_tick_is_counted_and_never_made_up_for():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    begin = bench.time
    env.step(REST)
    bench.sleep_until(bench.time + 2.3 * PERIOD)  # the policy thinks
    env.step(REST)
    assert env.late == 1
    after = (bench.time - begin) / PERIOD
    assert after == pytest.approx(round(after), abs=1e-6)  # back on the grid
    env.step(REST)
    assert bench.time - begin == pytest.approx((after + 1) * PERIOD, abs=1e-6)


def test_an_observation_is_of_one_moment_that_all_streams_have_reached():
    bench = Bench(replace(ROBOT, arm_latency=0.02))
    env = bench.env()
    env.reset(0)
    step = env.step(REST)
    moment = step.obs["stamp/state"].item()
    assert moment == pytest.approx(bench.time - 0.02, abs=1e-6)  # the slowest stream's newest
    assert step.obs["state"][9] == pytest.approx(moment + 0.02, abs=1e-4)  # joints show the time they were measured at
    assert step.obs["state"][-1] == pytest.approx(0.001 * moment, abs=2e-5)  # the tracker shows its


def test_the_state_is_laid_out_as_the_file_says():
    bench = Bench(replace(ROBOT, base=replace(ROBOT.base, position=(1.0, 2.0, 3.0), turn=(0, 0, 1, 0))))
    obs = bench.env().reset(0)
    np.testing.assert_allclose(obs["state"][:3], [1.0 - MIDDLE[0], 2.0 - MIDDLE[1], 3.0 + MIDDLE[2]], atol=1e-6)
    np.testing.assert_allclose(obs["state"][3:9], [-1, 0, 0, 0, 1, 0], atol=1e-6)  # turned about z, and looking down


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7), st.sampled_from([0.01, 0.05, 0.25, 2.0]))
def test_the_stored_action_is_what_was_asked_of_the_arm_after_the_gate(action, speed):
    bench = Bench(with_limits(speed=speed, acceleration=100 * speed, turn_acceleration=60.0))
    env = bench.env()
    env.reset(0)
    for _ in range(3):
        here, sent = bench.state(), []
        command, bench.command = bench.command, lambda target, sent=sent: sent.append(target)
        step = env.step(np.array(action))
        bench.command = command
        delta = control.to_physical(step.action, env.spec.action)
        want = np.concatenate(
            [sent[0].position - here.position, vector_from_quat(quat_product(sent[0].turn, quat_inverse(here.turn)))]
        )
        unclipped = np.abs(control.to_unit(np.append(want, 0.0), env.spec.action)[:6]) <= 1
        np.testing.assert_allclose(delta[:6][unclipped], want[unclipped], atol=1e-6)
        opening = here.gripper if sent[0].gripper is None else sent[0].gripper  # None: asked to stay as they are
        assert 0.5 * (1 - delta[6]) == pytest.approx(opening, abs=1e-6)


def test_an_action_that_the_gate_lets_through_is_stored_bit_for_bit():
    bench = Bench(with_limits(speed=2.0, acceleration=100.0, turn_speed=6.0, turn_acceleration=600.0))
    env = bench.env()
    env.reset(0)
    action = np.array([0.1, -0.2, 0.3, 0.01, 0.02, -0.03, -1.0], np.float32)
    np.testing.assert_array_equal(env.step(action).action, action)


def test_a_person_acts_instead_and_the_mask_is_exact():
    bench = Bench()
    hands = iter([None, None, np.full(7, 0.1), np.full(7, 0.1), None])
    env = bench.env(human=lambda executed: next(hands))
    env.reset(0)
    steps = [env.step(REST) for _ in range(5)]
    assert [s.intervened for s in steps] == [False, False, True, True, False]
    assert steps[2].obs["state"][0] > steps[1].obs["state"][0]


def test_a_policy_moves_the_arm_and_success_ends_the_episode():
    bench = Bench()
    env = bench.env(judge=lambda: bench.position[0] > MIDDLE[0] + 0.02)
    episode = rollout(env, Always([0.5, 0, 0, 0, 0, 0, -1]), explore=False, seed=0)
    assert episode.success and episode.terminated and not episode.truncated and len(episode) < 50
    env = Bench().env()
    again = rollout(env, Always(REST), explore=False, seed=0)
    assert not again.success and again.truncated and len(again) == 50 and env.aborted == ""
    assert "let go" in bench.stopped  # between episodes nobody has to speak


@pytest.mark.parametrize("stream", ["arm", "tracker"])
def test_a_stream_that_falls_silent_ends_the_episode_with_its_name(stream):
    bench = Bench()
    env = bench.env()
    env.reset(0)
    env.step(REST)
    bench.silent = {stream}
    steps = [env.step(REST) for _ in range(5)]
    assert steps[-1].truncated and not steps[-1].terminated
    assert stream in env.aborted or "state" in env.aborted
    bench.sleep_until(bench.time + 1)
    assert bench.stopped


def test_a_strong_force_ends_the_episode():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    bench.wrench = np.array([0, 0, 90.0, 0, 0, 0])
    assert [env.step(REST).truncated for _ in range(2)][-1]
    assert "90 N" in env.aborted


def test_an_episode_can_be_ended_from_outside():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    env.interrupt("somebody left")
    assert env.step(REST).truncated and env.aborted == "somebody left" and "let go" in bench.stopped


def test_nothing_moves_where_a_stream_never_comes():
    bench = Bench()
    bench.silent = {"tracker"}
    with pytest.raises(RobotRLError, match="nothing new comes from tracker"):
        bench.env().reset(0)
    with pytest.raises(RobotRLError, match="streams that are not there: tracker"):
        bench.env(sensors={})


def test_an_action_that_is_no_number_moves_nothing():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    env.step(REST)
    before = bench.time
    with pytest.raises(RobotRLError, match="NaN"):
        env.step(np.full(7, np.nan))
    with pytest.raises(RobotRLError, match="shape"):
        env.step(np.zeros(3))
    assert bench.time == before


def test_fault_f03_a_state_that_is_no_number_is_named_and_the_arm_held():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    env.step(REST)
    bench.tracker.add(bench.time + 1e-3, {"cube_x": np.nan})
    bench.silent = {"tracker"}
    seen = env._last
    step = env.step(REST)
    assert step.truncated and not step.terminated and "cube" in env.aborted and "no finite number" in env.aborted
    assert step.obs is seen, "what was seen last, so that no policy is asked about what is no number"
    assert bench.servo.authority.latched and "cube" in bench.stopped


def test_a_state_that_is_no_number_while_the_arm_only_stays_stops_it_for_good_too():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    bench.tracker.add(bench.time + 1e-3, {"cube_x": np.nan})
    bench.silent = {"tracker"}
    env.stay()
    assert "no finite number" in env.aborted
    assert bench.servo.authority.latched and "cube" in bench.stopped


def test_without_turns_the_hand_keeps_its_rotation():
    bench = Bench(replace(ROBOT, turn=0.0))
    env = bench.env()
    env.reset(0)
    turn = bench.turn.copy()
    for _ in range(10):
        step = env.step(np.array([0.3, 0, 0, -1.0]))
    assert len(env.spec.action) == 4 and step.action.shape == (4,)
    np.testing.assert_allclose(bench.turn, turn, atol=1e-6)
