"""Beside the controller: who commands, how wishes become setpoints, and what is never played."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.gate import Gate
from drivers.servo import HOMING, Servo, between
from robot_rl.geometry import angle_between, quat_from_vector, quat_product
from robot_rl.types import RobotRLError, Target
from tests.lockstep import DOWN, MIDDLE, ROBOT, Bench

T, PERIOD = 1.0 / ROBOT.servo_rate, 1.0 / ROBOT.rate
LIMITS = ROBOT.limits


def armed(source="policy"):
    bench = Bench()
    bench.servo.arm(source, bench.state(), bench.time, bench.time)
    bench.sleep_until(bench.time + 0.1)
    return bench


def wish(bench, offset=(0.0, 0.0, 0.0), source="policy", age=0.0, gripper=1.0, turn=DOWN):
    return Target(bench.time - age, MIDDLE + np.array(offset), turn, gripper, source)


def sent(bench):
    return np.array([ruling.sent.position for ruling in bench.rulings])


def test_whoever_says_what_the_setpoints_stay_finite_in_the_box_and_slow():
    """20,000 servo periods of wishes of any kind from anyone, armed again whenever the gate has stopped."""
    rng, bench = np.random.default_rng(0), armed()
    for _ in range(20_000):
        if rng.random() < 0.3:
            here, kind = bench.servo.gate.setpoint.position, rng.integers(10)
            offset = rng.normal(0, rng.choice([0.002, 0.01, 0.1]), 3)
            offset = [np.nan, 1e300, np.inf] if kind == 0 else offset
            spin = quat_from_vector(rng.normal(0, 0.02, 3))
            turn = quat_product(spin, bench.turn) * (rng.choice([0.9, np.nan, -1.0]) if kind == 1 else 1.0)
            stamp = bench.time - (rng.choice([-1.0, 1.0, np.nan]) if kind == 2 else rng.uniform(0, 0.1))
            source = rng.choice(["policy", "teleop", "stranger", HOMING], p=[0.8, 0.1, 0.05, 0.05])
            bench.command(Target(stamp, here + offset, turn, rng.uniform(-1, 2), str(source)))
        if bench.stopped and bench.servo.gate.rests:
            bench.reset()
            bench.servo.arm(rng.choice(["policy", "teleop", HOMING]), bench.state(), bench.time, bench.time)
            bench.rulings.append(None)  # the setpoint begins anew at the measured pose
        bench.sleep_until(bench.time + T)
    runs = np.split(np.array(bench.rulings, object), [i for i, r in enumerate(bench.rulings) if r is None])
    for run in runs:
        positions = np.array([r.sent.position for r in run if r is not None])
        if len(positions) < 3:
            continue
        assert np.isfinite(positions).all()
        assert (positions >= LIMITS.box_low).all() and (positions <= LIMITS.box_high).all()
        velocity = np.diff(positions, axis=0) / T
        assert np.linalg.norm(velocity, axis=1).max() <= LIMITS.speed + 1e-6
        assert np.linalg.norm(np.diff(velocity, axis=0), axis=1).max() <= LIMITS.acceleration * T + 1e-6
    assert len(runs) > 20 and bench.servo.gate.counts["sent"] > 0


def test_a_wish_is_reached_within_a_policy_period_and_kept():
    bench = armed()
    for k in range(1, 20):  # a steady way at 0.1 m/s
        bench.command(wish(bench, (0.1 * PERIOD * k, 0, 0)))
        bench.sleep_until(bench.time + PERIOD)
    speeds = np.diff(sent(bench)[:, 0]) / T
    assert speeds[-25:] == pytest.approx(0.1, abs=1e-3)  # even, with no stop at each wish
    for _ in range(6):  # it goes no farther
        bench.command(wish(bench, (0.1 * PERIOD * 20, 0, 0)))
        bench.sleep_until(bench.time + PERIOD)
    assert sent(bench)[-1] == pytest.approx(MIDDLE + [0.1 * PERIOD * 20, 0, 0], abs=1e-9)
    assert not bench.stopped


def test_a_setpoint_that_is_behind_catches_up_at_full_speed_and_what_is_too_far_is_rejected():
    bench = armed()
    for _ in range(20):
        bench.command(wish(bench, (0.04, 0, 0)))
        bench.sleep_until(bench.time + PERIOD)
    assert bench.servo.gate.counts["rejected"] == 0
    assert sent(bench)[-1] == pytest.approx(MIDDLE + [0.04, 0, 0], abs=1e-6)
    assert np.linalg.norm(np.diff(sent(bench), axis=0), axis=1).max() / T == pytest.approx(LIMITS.speed, rel=0.2)
    bench.command(wish(bench, (0.04 + 1.1 * LIMITS.lead, 0, 0)))
    bench.sleep_until(bench.time + T)
    assert "ahead of the setpoint" in bench.rulings[-1].reason


def test_between_two_poses_lies_the_shortest_way():
    start = Target(0.0, MIDDLE, DOWN, 1.0, "policy")
    end = Target(1.0, MIDDLE + 0.1, -quat_product(quat_from_vector(np.array([0, 0, 0.4])), DOWN), 0.0, "policy")
    assert angle_between(between(start, end, 0.25).turn, DOWN) == pytest.approx(0.1)
    np.testing.assert_allclose(between(start, end, 1.0).position, end.position)
    assert between(start, end, 0.0).stamp == 1.0 and between(start, end, 0.0).gripper == 0.0


def test_a_silent_source_is_stopped_and_nothing_moves_after():
    bench = armed()
    bench.command(wish(bench, (0.005, 0, 0)))
    bench.sleep_until(bench.time + 1.0)
    assert "'policy' is silent" in bench.stopped
    stopped_at = next(i for i, r in enumerate(bench.rulings) if r.verdict == "stopped")
    assert bench.rulings[stopped_at].raw.stamp > bench.time - 1.01
    count = len(bench.rulings)
    bench.sleep_until(bench.time + 1.0)
    assert len(bench.rulings) == count  # at rest there is nothing to send


@pytest.mark.parametrize("source", ["policy", HOMING])
def test_on_a_missed_word_the_setpoint_brakes_at_once_never_turns_back_and_goes_on_with_the_next(source):
    bench = Bench()
    bench.position = MIDDLE - [0.15, 0, 0]
    bench.measure()
    bench.sleep_until(bench.time + T)
    bench.servo.arm(source, bench.state(), bench.time, bench.time)
    for k in range(1, 15):  # at 0.2 m/s, or on the way home
        bench.command(wish(bench, (0.2 * PERIOD * k - 0.15, 0, 0)))
        bench.sleep_until(bench.time + PERIOD)
    speed = np.linalg.norm(sent(bench)[-1] - sent(bench)[-2]) / T
    assert speed > 0.1
    way = [
        bench.servo.tick(bench.state(), bench.time + k * T, bench.time + k * T, quiet=True).sent.position[0]
        for k in range(1, 15)
    ]
    moving = round(speed / LIMITS.acceleration / T) + 1
    steps = np.diff([sent(bench)[-1][0], *way])
    assert (steps >= -1e-9).all() and np.abs(steps[moving:]).max() < 1e-9, "braked at once, and stays"
    assert not bench.stopped
    bench.time += 14 * T
    bench.measure()
    bench.command(wish(bench, (way[-1] - MIDDLE[0] + 0.005, 0, 0)))
    bench.sleep_until(bench.time + 2 * PERIOD)
    assert not bench.stopped and bench.servo.gate.counts["rejected"] == 0
    assert sent(bench)[-1][0] > way[-1] + 0.003


def test_before_its_first_wish_a_source_may_take_its_time():
    bench = armed()
    bench.sleep_until(bench.time + 5.0)
    assert not bench.stopped
    np.testing.assert_allclose(sent(bench), np.tile(MIDDLE, (len(bench.rulings), 1)))


def test_one_wish_that_is_no_number_is_counted_once_and_brakes():
    bench = armed()
    for k in range(1, 10):
        bench.command(wish(bench, (0.1 * PERIOD * k, 0, 0) if k != 8 else (np.nan, 0, 0)))
        bench.sleep_until(bench.time + PERIOD)
    assert bench.servo.gate.counts["rejected"] == 1
    assert not bench.stopped
    assert np.isfinite(sent(bench)).all()


def test_a_person_goes_before_the_policy_and_never_the_other_way():
    bench = armed("policy")
    bench.command(wish(bench, (0.001, 0, 0)))
    bench.sleep_until(bench.time + PERIOD)
    bench.command(wish(bench, (0.0, 0.002, 0), "teleop"))
    bench.sleep_until(bench.time + PERIOD)
    assert bench.servo.gate.holder == "teleop"
    assert not bench.servo.offer(wish(bench), bench.now(), bench.time)
    bench.sleep_until(bench.time + 1.0)
    assert bench.stopped  # the person fell silent: nobody takes over by being the only one left
    assert not bench.servo.offer(wish(bench), bench.now(), bench.time)


def test_a_policy_that_speaks_after_a_person_in_the_same_period_does_not_drown_the_person():
    bench = armed("policy")
    bench.command(wish(bench))
    bench.sleep_until(bench.time + PERIOD)
    assert bench.servo.offer(wish(bench, (0, 0.002, 0), "teleop"), bench.now(), bench.time)
    assert not bench.servo.offer(wish(bench, (0.002, 0, 0)), bench.now(), bench.time)
    bench.sleep_until(bench.time + T)
    assert bench.servo.gate.holder == "teleop"


def test_what_was_planned_before_the_hand_over_is_never_played():
    bench = armed("teleop")
    bench.sleep_until(bench.time + 0.5)
    assert bench.servo.release("teleop")
    bench.sleep_until(bench.time + 0.5)
    bench.servo.arm("policy", bench.state(), bench.time, bench.time)
    assert not bench.servo.offer(wish(bench, age=0.01), bench.now(), bench.time)
    assert not bench.servo.offer(wish(bench, age=np.nan), bench.now(), bench.time)
    bench.sleep_until(bench.time + T)
    assert bench.servo.offer(wish(bench, (0.001, 0, 0)), bench.now(), bench.time)


def test_the_first_wish_after_a_hand_over_lies_near_the_measured_pose():
    bench = armed()
    bench.sleep_until(bench.time + 1.0)  # holding does not count as a wish
    bench.command(wish(bench, (0.06, 0, 0)))
    bench.sleep_until(bench.time + T)
    assert bench.rulings[-1].verdict == "rejected" and "first target" in bench.rulings[-1].reason


def test_first_wishes_that_are_too_far_stop_the_arm_in_the_end():
    bench = armed()
    for _ in range(4):
        bench.command(wish(bench, (0.06, 0, 0)))
        bench.sleep_until(bench.time + T)
    assert "in a row" in bench.stopped


def test_home_is_reached_at_half_speed_and_only_a_person_interrupts():
    bench = Bench()
    bench.position = MIDDLE + [0.15, 0.1, -0.1]
    bench.measure()
    bench.sleep_until(bench.time + T)
    bench.servo.arm(HOMING, bench.state(), bench.time, bench.time)
    bench.sleep_until(bench.time + 0.5)
    assert not bench.servo.offer(wish(bench), bench.now(), bench.time)
    assert not bench.servo.is_home(bench.state(), bench.time)
    bench.sleep_until(bench.time + 3.0)
    assert bench.servo.is_home(bench.state(), bench.time) and not bench.stopped
    assert bench.position == pytest.approx(MIDDLE, abs=1e-3)
    speeds = np.linalg.norm(np.diff(sent(bench), axis=0), axis=1) / T
    assert speeds.max() <= LIMITS.speed + 1e-6  # it has to catch up with its own way after the start
    assert np.median(speeds[speeds > 0]) == pytest.approx(0.5 * LIMITS.speed, rel=0.02)
    assert bench.servo.offer(wish(bench, source="teleop"), bench.now(), bench.time)
    bench.sleep_until(bench.time + T)
    assert bench.servo.gate.holder == "teleop"


def test_who_may_not_command_is_told_so():
    bench = Bench()
    with pytest.raises(RobotRLError, match="'stranger' may not command.*teleop, policy"):
        bench.servo.arm("stranger", bench.state(), bench.time, bench.time)
    gate = Gate(LIMITS, ROBOT.arm_limits, T)
    with pytest.raises(RobotRLError, match="no home"):
        Servo(gate, PERIOD, ("policy",)).arm(HOMING, bench.state(), bench.time, bench.time)
    for sources in ((), ("policy", "policy"), (HOMING, "policy")):
        with pytest.raises(RobotRLError, match="names of their own"):
            Servo(gate, PERIOD, sources)
