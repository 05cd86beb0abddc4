"""The states of authority.py on the servo that moves: homing has an owner, and no setpoint moves that nobody means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drivers.authority import FIRST_WORD, HOMING
from drivers.gate import Gate
from drivers.servo import ARRIVE, Servo
from robot_rl.types import RobotRLError, Target
from tests import lockstep
from tests.lockstep import DOWN, MIDDLE, ROBOT, Bench, with_limits

T, PERIOD, LIMITS = 1.0 / ROBOT.servo_rate, 1.0 / ROBOT.rate, ROBOT.limits
BRAKING = LIMITS.speed / LIMITS.acceleration
AWAY = MIDDLE + [0.15, 0.1, -0.1]


def on_the_way_home(seconds=1.0, beats=True):
    bench = Bench()
    bench.position, bench.beats = AWAY.copy(), beats
    bench.measure()
    bench.sleep_until(bench.time + T)
    bench.servo.arm(HOMING, bench.state(), bench.time, bench.time)
    bench.sleep_until(bench.time + seconds)
    return bench


def way(bench, since=0):
    sent = np.array([r.sent.position for r in bench.rulings[since:]])
    return float(np.linalg.norm(np.diff(sent, axis=0), axis=1).sum()) if len(sent) > 1 else 0.0


def braked_after(bench, since):
    """How long after `since` the setpoint was slow and from then on stayed where it was [s]."""
    sent = [r.sent.position for r in bench.rulings]
    moving = [k for k in range(since, len(sent)) if np.linalg.norm(sent[k] - sent[k - 1]) / T > 0.01]
    return T * (moving[-1] - since + 1) if moving else 0.0


def test_fault_f32_armed_once_and_no_heartbeat_nothing_moves_and_at_last_it_is_stopped():
    bench = on_the_way_home(FIRST_WORD - 1, beats=False)
    assert way(bench) < 1e-9 and not bench.stopped
    bench.sleep_until(bench.time + 2)
    assert way(bench) < 1e-9 and "no heartbeat" in bench.stopped and bench.servo.authority.latched


def test_fault_f32_homing_whose_owner_falls_silent_is_stopped_for_good():
    bench = on_the_way_home()
    assert way(bench) > 0.05
    bench.beats, since = False, len(bench.rulings)
    bench.sleep_until(bench.time + 3.0)
    assert "homing's owner" in bench.stopped and bench.servo.authority.latched
    assert braked_after(bench, since) <= LIMITS.age + BRAKING + 2 * T
    assert bench.servo.gate.rests and not bench.servo.is_home(bench.state(), bench.time)


def test_fault_f32_a_released_homing_brakes_at_once_and_may_be_armed_again():
    bench = on_the_way_home()
    since = len(bench.rulings)
    assert bench.servo.release(HOMING)
    bench.sleep_until(bench.time + 2.0)
    assert braked_after(bench, since) <= BRAKING + 2 * T and not bench.servo.authority.latched
    bench.servo.arm(HOMING, bench.state(), bench.time, bench.time)
    bench.sleep_until(bench.time + 4.0)
    assert bench.servo.is_home(bench.state(), bench.time)


def test_a_heart_of_another_lease_does_not_beat_for_this_one():
    bench = on_the_way_home()
    bench.beats = False
    for k in range(40):
        assert not bench.servo.beat(bench.servo.leases - 1 - k, bench.time)
        bench.sleep_until(bench.time + T)
    assert "homing's owner" in bench.stopped


def test_fault_f38_an_arm_that_does_not_get_home_is_not_at_home_and_is_stopped_by_name():
    bench = on_the_way_home(0.0)
    bench.measure = lambda: bench.readings.add(bench.time, type(bench.state())(  # as in e-stop: it stays
        bench.time, AWAY.copy(), DOWN.copy(), np.zeros(7) + bench.time, 1.0, np.zeros(6)))  # fmt: skip
    while not bench.stopped:
        bench.sleep_until(bench.time + T)
        assert not bench.servo.is_home(bench.state(), bench.time)
    assert bench.time < 100 + 4 + ARRIVE + 1
    assert bench.servo.authority.latched


def test_fault_f44_leases_and_the_latch_outlive_a_servo_of_another_speed():
    bench = on_the_way_home()
    lease = bench.servo.leases
    bench.servo.stop("somebody called stop")
    gate = Gate(LIMITS, ROBOT.arm_limits, T)
    again = Servo(gate, PERIOD, bench.servo.sources, np.array(ROBOT.home), bench.servo.authority)
    with pytest.raises(RobotRLError, match="somebody called stop.*reset_arm"):
        again.arm("policy", bench.state(), bench.time, bench.time)
    again.gate.reset()
    again.arm("policy", bench.state(), bench.time, bench.time)
    assert again.leases == lease + 1


def test_stopped_in_the_moment_of_a_hand_over_the_setpoint_brakes_all_the_same():
    bench = on_the_way_home()
    here = bench.servo.gate.setpoint.position
    assert bench.servo.offer(Target(bench.time, here, DOWN, 1.0, "teleop"), bench.now(), bench.time)
    bench.servo.stop("somebody called stop")  # before the tick that would have ruled on the wish
    since = len(bench.rulings)
    bench.sleep_until(bench.time + 0.5)
    assert len(bench.rulings) > since and braked_after(bench, since) <= BRAKING + 2 * T


class Moves(RuleBasedStateMachine):
    """Whatever is asked in whatever order: the setpoint speeds up only for a living holder that has said something."""

    def __init__(self):
        super().__init__()
        self.bench, self.spoke, self.seen, self.lease = Bench(), -np.inf, 0, 0
        self.bench.beats = False
        self.speed = 0.0

    def tick(self, ticks):
        """The bench's time passes, and every setpoint is judged."""
        bench = self.bench
        for _ in range(ticks):
            before = len(bench.rulings)
            bench.sleep_until(bench.time + T)
            sent = [r.sent.position for r in bench.rulings[max(before - 1, 0) :]]
            moved = np.linalg.norm(sent[-1] - sent[-2]) / T if len(sent) > 1 else 0.0
            authority = bench.servo.authority
            followed = authority.state == "commanded" and bench.time - self.spoke <= LIMITS.age + 2 * T
            # Stopped and braked, it goes once to where the arm was measured, which is behind it.
            to_the_arm = not authority.held and getattr(bench.servo.gate, "_held", None) is not None
            assert followed or to_the_arm or moved <= self.speed + 1e-6, (authority.state, moved, self.speed)
            self.speed = moved

    @rule(source=st.sampled_from(["teleop", "policy", HOMING]))
    def arm(self, source):
        bench, authority = self.bench, self.bench.servo.authority
        latched, held, lease = authority.latched, authority.held and authority.holder, bench.servo.leases
        try:
            bench.servo.arm(source, bench.state(), bench.time, bench.time)
        except RobotRLError:
            assert bench.servo.leases == lease
            return
        order = ["teleop", "policy", HOMING]
        assert not latched and bench.servo.leases == lease + 1
        assert not held or order.index(source) < order.index(held)
        if not held:
            self.speed, self.bench.rulings[:] = 0.0, []  # it begins anew from where it is measured

    @rule(source=st.sampled_from(["teleop", "policy"]), along=st.floats(-0.01, 0.01), ticks=st.integers(1, 8))
    def wish(self, source, along, ticks):
        bench = self.bench
        if bench.servo.gate._motion is not None:
            target = bench.servo.gate.setpoint.position + [along, 0, 0]
            if bench.servo.offer(Target(bench.time, target, DOWN, 1.0, source), bench.now(), bench.time):
                self.spoke = bench.time
        self.tick(ticks)

    @rule(old=st.booleans(), ticks=st.integers(1, 10))
    def beat(self, old, ticks):
        if self.bench.servo.beat(self.bench.servo.leases - old, self.bench.time):
            assert not old
            self.spoke = self.bench.time
        self.tick(ticks)

    @rule(source=st.sampled_from(["teleop", "policy", HOMING]))
    def release(self, source):
        self.bench.servo.release(source)

    @rule()
    def stop(self):
        self.bench.servo.stop("somebody called stop")
        assert self.bench.servo.authority.latched

    @rule(ticks=st.integers(1, 60))
    def wait(self, ticks):
        self.tick(ticks)

    @rule()
    def reset(self):
        before = len(self.bench.rulings)
        if self.bench.servo.gate.rests:  # as the arm's node demands
            self.bench.reset()
        assert len(self.bench.rulings) == before and self.bench.servo.leases >= self.lease

    @invariant()
    def leases_only_rise(self):
        assert self.bench.servo.leases >= self.lease
        self.lease = self.bench.servo.leases


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_person_who_takes_a_moving_arm_that_lags_gets_it_and_it_brakes(monkeypatch):
    """Until the person's first wish it only stays: that is no first target, however far behind the arm is."""
    monkeypatch.setattr(lockstep, "FOLLOWS", 0.05)
    bench = Bench(with_limits(near=0.036))
    servo, wish = bench.servo, bench.position
    servo.arm("policy", bench.state(), bench.now(), bench.steady())
    for _ in range(12):
        wish = wish + [0.0, 0.0125, 0.0]
        servo.offer(Target(bench.now(), wish, bench.turn, None, "policy"), bench.now(), bench.time)
        bench.sleep_until(bench.time + 0.05)
    assert np.linalg.norm(servo.gate.setpoint.position - bench.position) > 0.04
    servo.arm("teleop", bench.state(), bench.now(), bench.steady())
    bench.sleep_until(bench.time + 1.0)
    assert servo.authority.state == "armed" and np.linalg.norm(servo.gate.setpoint.position - bench.position) < 1e-3
