"""Setpoints stay within the lead of the arm; an arm that lags or sags is followed, one that stands still is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.gate import Gate, GateLimits
from robot_rl.geometry import quat_from_vector, quat_product
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, RobotRLError, Target

LIMITS = GateLimits((0.0, -0.5, 0.0), (1.0, 0.5, 1.0))
PANDA, DOWN, MIDDLE = arm_limits("Panda"), np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.3, 0.0, 0.4])
PERIOD = 0.01


def measured(position, stamp, turn=DOWN):
    return ArmState(stamp, np.array(position, float), turn, np.zeros(7), 1.0, np.zeros(6))


def driven(arm_of, speed=0.25, seconds=2.0, delay=0.0, turning=0.0, limits=LIMITS):
    """Setpoints (k, 3), places of the arm (k, 3) and the gate; `arm_of(setpoint, arm)` is the arm a period later."""
    gate = Gate(limits, PANDA, PERIOD)
    gate.arm(measured(MIDDLE, 0.0), "policy", 0.0)
    arm, wish, sent, places, late = MIDDLE, MIDDLE, [], [], [MIDDLE] * (round(delay / PERIOD) + 1)
    for tick in range(1, round(seconds / PERIOD)):
        now, wish = tick * PERIOD, wish + [speed * PERIOD, 0.0, 0.0]
        turn = quat_product(quat_from_vector(np.array([0.0, 0.0, turning * now])), DOWN)
        ruling = gate.check(
            Target(now, wish, turn, 1.0, "policy"), measured(late[-1 - round(delay / PERIOD)], now), now, now
        )
        sent.append(ruling.sent.position)
        arm = arm_of(sent[-1], arm)
        late.append(arm)
        places.append(arm)
        if gate.stopped:
            break
    return np.array(sent), np.array(places), gate


def lagging(seconds, sag=0.0):
    share = 1 - np.exp(-PERIOD / seconds)
    return lambda setpoint, arm: arm + share * (setpoint - [0.0, 0.0, sag] - arm)


@pytest.mark.parametrize("lag", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("sag", [0.0, 0.02])
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_fault_f38_an_arm_that_lags_and_sags_is_not_stopped_nor_held_up(lag, sag, delay):
    sent, places, gate = driven(lagging(lag, sag), delay=delay)
    assert not gate.stopped
    assert sent[-1][0] - MIDDLE[0] == pytest.approx(0.25 * 2.0, abs=0.03)
    assert np.linalg.norm(sent - places, axis=1).max() <= LIMITS.lead


def test_fault_f38_one_that_lags_too_far_is_gone_before_slower_and_not_stopped():
    sent, places, gate = driven(lagging(1.0), seconds=3.0, limits=GateLimits(LIMITS.box_low, LIMITS.box_high, lead=0.1))
    assert np.linalg.norm(sent - places, axis=1).max() <= LIMITS.lead + 0.002
    assert not gate.stopped or "ahead of the setpoint" in gate.stopped  # a source that does not wait


@pytest.mark.parametrize("speed", [0.05, 0.15, 0.25])
def test_fault_f38_one_that_stands_still_stops_the_gate_at_the_lead(speed):
    sent, _, gate = driven(lambda setpoint, arm: arm, speed=speed, seconds=6.0)
    assert gate.stopped and np.linalg.norm(sent - MIDDLE, axis=1).max() <= LIMITS.lead + 1e-9
    waited = np.flatnonzero(np.linalg.norm(sent - MIDDLE, axis=1) > 0.97 * LIMITS.lead)
    assert len(waited) * PERIOD <= 1.0


def test_fault_f38_one_that_is_pushed_away_and_held_there_stops_it_within_a_second():
    _, places, gate = driven(lambda setpoint, arm: np.array([0.3, 0.18, 0.4]), speed=0.0)
    assert "does not follow: it is 0.1" in gate.stopped and len(places) * PERIOD <= 1.5


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([20.0, 50.0, 100.0, 500.0]), st.floats(0.0, 0.19), st.integers(0, 60), st.floats(0.02, 0.24),
    st.floats(0.0, 0.5), st.booleans(),
)  # fmt: skip
def test_fault_f34_armed_anew_with_late_readings_the_setpoint_goes_on_without_a_jump(
    rate, late, brakes, speed, pause, stops
):
    """At any time after a motion, by readings up to 0.19 s old, after a pause: what is sent never jumps."""
    period, sent = 1.0 / rate, [MIDDLE, MIDDLE]
    gate = Gate(LIMITS, PANDA, period)
    gate.arm(measured(MIDDLE, 0.0), "policy", 0.0)
    now, wish = 0.0, MIDDLE

    def state():
        k = max(len(sent) - 1 - round(late / period), 0)
        return measured(sent[k], now - late)

    for tick in range(round(0.5 / period) + brakes):
        now, wish = now + period, wish + [speed * period, 0.0, 0.0]
        if tick == round(0.5 / period) and stops:
            gate.stop("somebody says so")
        sent.append(gate.check(Target(now, wish, DOWN, 1.0, "policy"), state(), now, now).sent.position)
    now += pause
    gate.reset()
    moving = np.linalg.norm(sent[-1] - sent[-2]) > 1e-6 * period
    silent = pause + period > max(0.2, 5 * period) + 1e-6
    try:
        gate.arm(state(), "policy", now)
    except RobotRLError as error:
        assert "still moves" in str(error) and moving and not pause > 5 * period + 0.2
        return
    now += period
    here = state()
    sent.append(gate.check(Target(now, here.position, DOWN, 1.0, "policy"), here, now, now).sent.position)
    step, before = np.linalg.norm(sent[-1] - sent[-2]), 0.0 if silent or not moving else speed * period
    assert step <= before + LIMITS.acceleration * period**2 + 1e-9


def test_fault_f34_an_arm_that_sags_keeps_its_setpoint_when_it_is_armed_anew():
    """What its controller holds; to begin where it hangs would let it sink once more each time."""
    gate = Gate(LIMITS, PANDA, PERIOD)
    low = MIDDLE - [0.0, 0.0, 0.02]
    gate.arm(measured(MIDDLE, 0.0), "policy", 0.0)
    gate.check(Target(0.01, MIDDLE, DOWN, 1.0, "policy"), measured(MIDDLE, 0.01), 0.01, 0.01)
    gate.stop("somebody says so")
    for tick in range(2, 50):
        held = gate.check(
            Target(0.0, MIDDLE, DOWN, 1.0, "policy"), measured(low, tick * 0.01), tick * 0.01, tick * 0.01
        )
    gate.reset()
    gate.arm(measured(low - [0.0, 0.0, 0.02], 5.0), "policy", 5.0)
    np.testing.assert_allclose(gate.setpoint.position, held.sent.position, atol=1e-12)
    gate.stop("it was carried elsewhere")
    gate.reset()
    gate.arm(measured(MIDDLE + [0.2, 0.1, 0.0], 9.0), "policy", 9.0)
    np.testing.assert_allclose(gate.setpoint.position, MIDDLE + [0.2, 0.1, 0.0])
