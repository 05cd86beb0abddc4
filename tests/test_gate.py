"""The command gate: whatever goes in, what comes out is finite, in the box and slow; and it stops when it should."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from drivers.braking import Mover
from drivers.gate import Gate, GateLimits
from robot_rl.geometry import angle_between, quat_from_vector, quat_product, unit_quat
from robot_rl.robots import ARMS, ArmLimits, arm_limits
from robot_rl.types import ArmState, RobotRLError, Target

LOW, HIGH = np.array([0.2, -0.3, 0.05]), np.array([0.7, 0.3, 0.6])
LIMITS = GateLimits(tuple(LOW), tuple(HIGH))
PERIOD = 0.02
DOWN = np.array([1.0, 0.0, 0.0, 0.0])  # half a turn about x: the tool looks down
PANDA = arm_limits("Panda")
HOME = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8])
STILL = np.zeros(6)


def measured(position=(0.45, 0.0, 0.3), turn=DOWN, stamp=0.0, wrench=STILL, gripper=1.0):
    return ArmState(stamp, np.array(position, float), np.array(turn, float), HOME, gripper, np.array(wrench))


def wanted(position=(0.45, 0.0, 0.3), turn=DOWN, stamp=0.0, gripper=1.0, source="policy"):
    return Target(stamp, np.array(position, float), np.array(turn, float), gripper, source)


def armed(limits=LIMITS, period=PERIOD, state=None, **more):
    gate = Gate(limits, PANDA, period, **more)
    gate.arm(state or measured(), "policy", 0.0)
    return gate


class Watch:
    """Keeps the setpoints, and says of all of them whether they keep the limits, one after the other."""

    def __init__(self, gate, period=PERIOD):
        self.positions, self.turns, self.period = [gate._motion.position] * 2, [gate._motion.turn] * 2, period

    def see(self, sent):
        assert (sent.gripper is None or 0.0 <= sent.gripper <= 1.0) and np.isfinite(sent.stamp)
        self.positions.append(sent.position)
        self.turns.append(sent.turn)

    @property
    def position(self):
        return self.positions[-1]

    @property
    def speed(self):
        return np.linalg.norm(self.positions[-1] - self.positions[-2]) / self.period

    def judge(self, limits=LIMITS):
        positions, turns = np.array(self.positions), np.array(self.turns)
        assert np.isfinite(positions).all() and np.isfinite(turns).all()
        assert (positions >= LOW).all() and (positions <= HIGH).all()
        rotations = Rotation.from_quat(turns)
        assert np.arccos(np.clip(-rotations.as_matrix()[:, 2, 2], -1, 1)).max() <= limits.tilt + 1e-6
        velocity = np.diff(positions, axis=0) / self.period
        turning = (rotations[1:] * rotations[:-1].inv()).as_rotvec() / self.period
        for rate, fastest, hardest in (
            (velocity, limits.speed, limits.acceleration),
            (turning, limits.turn_speed, limits.turn_acceleration),
        ):
            assert np.linalg.norm(rate, axis=1).max() <= fastest + 1e-6
            assert np.linalg.norm(np.diff(rate, axis=0), axis=1).max() <= hardest * self.period + 1e-6


def anything(rng, gate, now):
    """A command of any kind: sensible, at the limits, far out, malformed, late."""
    motion, kind = gate._motion, rng.integers(16)
    reach = rng.choice([0.001, 0.005, 0.01, 0.1])
    position = motion.position + rng.normal(0, reach, 3)
    turn = quat_product(quat_from_vector(rng.normal(0, rng.choice([0.005, 0.02, 0.3]), 3)), motion.turn)
    stamp, gripper, source = now - rng.uniform(0, 0.05), rng.uniform(-0.5, 1.5), "policy"
    if kind == 0:
        position = rng.uniform(LOW - 0.1, HIGH + 0.1)
    if kind == 1:
        position[rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
    if kind == 2:
        turn = turn * rng.choice([np.nan, 0.0, 0.9, -1.0])
    if kind == 3:
        stamp = rng.choice([now - 1.0, now + 1.0, np.nan])
    if kind == 4:
        position, turn = position[: rng.integers(3)], turn.astype(np.float32)
    if kind == 5:
        gripper, source = rng.choice([np.nan, 5.0]), rng.choice(["policy", "teleop"])
    if kind > 8:  # on and on
        position = motion.position + motion.velocity * PERIOD
        turn, gripper = quat_product(quat_from_vector(motion.turning * PERIOD), motion.turn), gate._gripper
    return Target(stamp, position, turn, gripper, source)


def test_whatever_goes_in_what_comes_out_keeps_every_limit():
    """100,000 commands: at the walls and in the middle, armed again whenever the gate has stopped."""
    rng, verdicts = np.random.default_rng(0), {}
    gate, now = armed(), 0.0
    watch = Watch(gate)
    for tick in range(100_000):
        now += PERIOD
        position = watch.position + rng.normal(0, 0.002, 3)
        state = measured(
            position, watch.turns[-1], now, wrench=STILL if rng.random() < 0.999 else [60.0, 0, 0, 0, 0, 0]
        )
        target = anything(rng, gate, now)
        if tick % 400 < 200:  # straight at a wall and into the cone's side, as fast as goes
            way = 0.9 * LIMITS.speed * PERIOD * np.sign(np.sin(tick // 400 * np.array([1.0, 2.0, 3.0])))
            roll = 0.9 * LIMITS.turn_speed * PERIOD * np.array([np.cos(tick // 400), np.sin(tick // 400), 0.0])
            turn = quat_product(quat_from_vector(roll), watch.turns[-1])
            target = Target(now, watch.position + way / np.sqrt(3), turn, 1.0, "policy")
        ruling = gate.check(target, state, now, now)
        verdicts[ruling.verdict] = verdicts.get(ruling.verdict, 0) + 1
        assert (ruling.reason == "") == (ruling.verdict == "sent")
        if ruling.sent is not None:
            watch.see(ruling.sent)
        if gate.stopped and gate._held is not None and gate._motion.rests and rng.random() < 0.1:
            watch.judge()
            assert gate.reset()
            gate.arm(measured(watch.position, watch.turns[-1], now), "policy", now)
            watch = Watch(gate)
    watch.judge()
    assert min(verdicts[v] for v in ("sent", "clipped", "rejected", "stopped")) > 500, verdicts


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_was_sent_is_sent_again_as_it_is(seed):
    rng, now = np.random.default_rng(seed), 0.0
    gate = armed()
    for _ in range(20):
        now += PERIOD
        state = measured(gate._motion.position, gate._motion.turn, now)
        target = anything(rng, gate, now)
        before = copy.deepcopy(gate)
        ruling = gate.check(target, state, now, now)
        if ruling.verdict in ("sent", "clipped"):
            again = before.check(ruling.sent, state, now, now)
            assert again.verdict == "sent", again.reason
            np.testing.assert_allclose(again.sent.position, ruling.sent.position, atol=1e-9)
            assert angle_between(again.sent.turn, ruling.sent.turn) < 1e-7
            assert again.sent.gripper == ruling.sent.gripper


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*(st.floats(lo, hi) for lo, hi in zip(LOW, HIGH, strict=True))),
    st.floats(-0.45, 0.45),
    st.sampled_from([0.004, 0.01, 0.02, 0.05]),
)
def test_a_place_to_stop_at_is_reached_and_kept(goal, roll, period):
    """From any motion: also from one that is too fast to stop in time."""
    limits = GateLimits(tuple(LOW), tuple(HIGH))
    mover = Mover((LOW, HIGH), np.array([0, 0, -1.0]), limits.tilt, (0.25, 0.6), (2.0, 6.0), period)
    gate = armed(limits, period)
    motion = replace(gate._motion, velocity=np.array([0.2, -0.1, 0.0]), turning=np.array([0.3, 0.0, 0.0]))
    turn = quat_product(quat_from_vector(np.array([roll, 0.0, 0.0])), DOWN)
    for _ in range(math.ceil(8 / period)):
        motion, _ = mover.towards(motion, np.array(goal), turn, staying=True)
    assert np.linalg.norm(motion.position - goal) < 1e-6 and angle_between(motion.turn, turn) < 1e-6
    assert np.linalg.norm(motion.velocity) < 1e-3 and np.linalg.norm(motion.turning) < 1e-3


def test_a_path_under_the_limits_passes_unchanged():
    gate = armed()
    for tick in range(1, 300):
        now = tick * PERIOD
        position = np.array([0.45 + 0.1 * (1 - math.cos(now)), 0.0, 0.3])
        ruling = gate.check(wanted(position, stamp=now), measured(position, stamp=now), now, now)
        assert ruling.verdict == "sent" and np.allclose(ruling.sent.position, position, atol=1e-12)


def test_nothing_moves_before_it_is_armed_and_only_its_holder_commands():
    gate = Gate(LIMITS, PANDA, PERIOD)
    ruling = gate.check(wanted(), measured(), 0.0, 0.0)
    assert ruling.verdict == "stopped" and ruling.sent is None and "never armed" in ruling.reason
    gate.arm(measured(), "teleop", 0.0)
    ruling = gate.check(wanted(), measured(), 0.0, 0.0)
    assert ruling.sent is None and "'teleop' commands the arm, not 'policy'" in ruling.reason
    gate.lease("policy", 0.0)
    assert gate.check(wanted(), measured(), 0.0, 0.0).verdict == "sent"
    assert not gate.stopped


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (measured((0.9, 0.0, 0.3)), "outside the box"),
        (measured(turn=unit_quat(np.array([1.0, 0.4, 0.0, 0.4]))), "tilted"),
        (measured((math.nan, 0.0, 0.3)), "position"),
        (replace(measured(), joints=HOME[:6]), "7 joints"),
        (measured(wrench=[50.0, 0, 0, 0, 0, 0]), "50 N"),
        (measured(turn=0.5 * DOWN), "quaternion"),
        (measured(gripper=math.nan), "gripper"),
        (measured(stamp=math.nan), "stamp"),
    ],
)
def test_it_is_not_armed_where_there_is_no_place_to_begin(state, named):
    gate = Gate(LIMITS, PANDA, PERIOD)
    with pytest.raises(RobotRLError, match=named):
        gate.arm(state, "policy", 0.0)
    assert gate.stopped


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"position": np.array([math.nan, 0.0, 0.3])}, "position is not 3 finite"),
        ({"position": np.zeros(2)}, "position"),
        ({"position": [0.45, 0.0, 0.3]}, "position"),
        ({"position": np.array([np.inf, 0.0, 0.3], np.float16)}, "position"),
        ({"turn": np.array([1.0, 0.0, 0.0, np.inf])}, "turn"),
        ({"turn": 0.9 * DOWN}, "length 0.9"),
        ({"gripper": math.nan}, "gripper"),
        ({"gripper": "open"}, "gripper"),
        ({"gripper": 10**400}, "gripper"),
        ({"stamp": np.timedelta64(1)}, "stamp"),
        ({"stamp": math.nan}, "stamp"),
        ({"stamp": 9.7}, "observation 0.300 s old"),
        ({"stamp": 10.1}, "observation -0.100 s old"),
        ({"position": np.array([0.45, 0.03, 0.3])}, "0.030 m and 0.00 rad from the measured pose"),
        ({"turn": quat_product(quat_from_vector(np.array([0.0, 0.0, 0.2])), DOWN)}, "0.20 rad from the measured"),
    ],
)
def test_a_command_that_is_wrong_is_rejected_by_name_and_the_next_right_one_is_sent(change, named):
    gate, state = armed(), measured(stamp=10.0)
    right = wanted(stamp=10.0)
    ruling = gate.check(replace(right, **change), state, 10.0, 10.0)
    assert ruling.verdict == "rejected" and named in ruling.reason
    np.testing.assert_array_equal(ruling.sent.position, state.position)
    assert gate.check(right, state, 10.0, 10.0).verdict == "sent"


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (wanted((0.45, 0.0, 0.30 + 0.012)), "it would take 0.60 m/s"),
        (wanted((0.45, 0.0, 0.30 + 0.11)), "0.110 m and 0.00 rad ahead of the setpoint"),
        (wanted(turn=quat_product(quat_from_vector(np.array([0.0, 0.0, 0.5])), DOWN)), "0.50 rad ahead"),
        (wanted(turn=quat_product(quat_from_vector(np.array([0.0, 0.0, 0.03])), DOWN)), "1.50 rad/s"),
        (wanted((0.45, 0.0, -0.01)), "0.060 m outside the box"),
        (wanted(turn=quat_product(quat_from_vector(np.array([1.1, 0.0, 0.0])), DOWN)), "tilted by 1.10 rad"),
    ],
)
def test_what_is_far_out_is_rejected_and_what_is_a_little_is_clipped(target, named):
    gate = armed()
    gate.check(wanted(), measured(), 0.0, 0.0)
    assert named in gate.check(target, measured(), 0.0, 0.0).reason


def test_a_setpoint_that_has_to_accelerate_may_lag_behind_its_target():
    """A path that begins at 90 % of the speed: 0.225 m/s from rest takes 6 periods, and 1 cm is caught up later."""
    gate, position = armed(), np.array([0.45, 0.0, 0.3])
    for tick in range(1, 50):
        now, position = tick * PERIOD, position + [0.0045, 0.0, 0.0]
        ruling = gate.check(wanted(position, stamp=now), measured(position, stamp=now), now, now)
        assert ruling.verdict in ("clipped", "sent"), ruling.reason
    assert ruling.verdict == "sent"


def test_the_same_rotation_by_the_other_quaternion_is_no_motion():
    gate = armed()
    assert gate.check(wanted(turn=-DOWN), measured(), 0.0, 0.0).verdict == "sent"
    assert gate._motion.rests


def test_three_wrong_commands_in_a_row_stop_it_for_good_and_a_reset_mends_it():
    gate = armed()
    bad = wanted((math.nan, 0, 0))
    verdicts = [gate.check(command, measured(), 0.0, 0.0).verdict for command in (bad, wanted(), bad, bad, bad)]
    assert verdicts == ["rejected", "sent", "rejected", "rejected", "stopped"]
    ruling = gate.check(wanted(), measured(), 0.0, 0.0)
    assert ruling.verdict == "stopped" and "3 commands in a row" in ruling.reason and "position" in ruling.reason
    with pytest.raises(RobotRLError, match="only a person"):
        gate.arm(measured(), "policy", 0.0)
    assert gate.reset() and gate.stopped and not gate.reset()
    gate.arm(measured(), "policy", 0.0)
    assert gate.check(wanted(), measured(), 0.0, 0.0).verdict == "sent"


def test_a_fifth_of_a_seconds_commands_wrong_stops_it_and_a_tenth_does_not():
    for every, stops in ((4, True), (10, False)):
        gate = armed()
        for tick in range(100):
            now = tick * PERIOD
            target = wanted(stamp=now) if tick % every else wanted(stamp=now - 1.0)
            gate.check(target, measured(stamp=now), now, now)
        assert bool(gate.stopped) == stops


def test_force_and_a_stale_arm_stop_it_and_the_first_reason_stays():
    gate = armed()
    assert "50 N" in gate.check(wanted(), measured(wrench=[0, 0, 50, 0, 0, 0]), 0.0, 0.0).reason
    assert "50 N" in gate.check(wanted(), measured(wrench=[0, 0, 0, 0, 0, 9]), 0.0, 0.0).reason
    gate = armed()
    assert "0.500 s old" in gate.check(wanted(stamp=0.5), measured(), 0.5, 0.5).reason
    gate.stop("somebody pressed the button")
    assert "0.500 s old" in gate.stopped


def test_stopped_in_motion_it_brakes_goes_to_the_measured_pose_and_does_not_sink_with_a_sagging_arm():
    gate = armed()
    watch, now, position = Watch(gate), 0.0, np.array([0.45, 0.0, 0.3])
    for _ in range(40):
        now += PERIOD
        position = position + [0.0045, 0.0, 0.0]
        watch.see(gate.check(wanted(position, stamp=now), measured(watch.position, stamp=now), now, now).sent)
    assert watch.speed > 0.2
    gate.stop("the test says so")
    ticks, lag = 0, np.array([-0.004, 0.0, -0.002])
    while watch.speed > 0 and ticks < 100:
        now, ticks = now + PERIOD, ticks + 1
        watch.see(gate.check(wanted(position, stamp=now), measured(watch.position + lag, stamp=now), now, now).sent)
    assert ticks * PERIOD <= 0.2, "a hold within 200 ms"
    for _ in range(200):
        now += PERIOD
        watch.see(gate.check(wanted(position, stamp=now), measured(watch.position + lag, stamp=now), now, now).sent)
    came_to_rest = watch.position
    for _ in range(500):
        now += PERIOD
        ruling = gate.check(wanted(position, stamp=now), measured(watch.position + lag, stamp=now), now, now)
        assert ruling.verdict == "stopped"
        watch.see(ruling.sent)
    np.testing.assert_allclose(watch.position, came_to_rest, atol=1e-9)
    watch.judge()


@pytest.mark.parametrize(
    "state", [measured((0.0, 0.0, 0.0)), measured((math.nan, 0.0, 0.3)), measured(turn=0.0 * DOWN)]
)
def test_stopped_because_the_measurement_is_nonsense_it_holds_where_it_is(state):
    gate = armed()
    for _ in range(100):
        sent = gate.check(wanted(), replace(state, stamp=-1.0), 0.0, 0.0).sent
        np.testing.assert_array_equal(sent.position, [0.45, 0.0, 0.3])
        np.testing.assert_array_equal(sent.turn, DOWN)


def run(gate, way, ticks, now=0.0, lag=0.0):
    """Drive by `way` (3,) a period; the last time and setpoint."""
    position, sent = gate._motion.position, None
    for _ in range(ticks):
        now, position = now + PERIOD, position + np.array(way)
        sent = gate.check(wanted(position, stamp=now), measured(gate._motion.position + lag, stamp=now), now, now).sent
    return now, sent


def test_stopped_by_a_stale_arm_it_does_not_go_back_to_where_the_arm_was():
    gate = armed()
    now, sent = run(gate, [0.0045, 0.0, 0.0], 20)
    frozen, ahead = measured(sent.position, stamp=now), sent.position
    xs = []
    for _ in range(80):
        now, ahead = now + PERIOD, ahead + [0.0045, 0.0, 0.0]
        xs.append(gate.check(wanted(ahead, stamp=now), frozen, now, now).sent.position[0])
    assert "s old" in gate.stopped and xs[-1] == max(xs)


def test_after_a_silence_the_setpoint_starts_from_rest_and_nobody_arms_a_moving_one():
    gate = armed()
    now, sent = run(gate, [0.0045, 0.0, 0.0], 20)
    with pytest.raises(RobotRLError, match="still moves"):
        gate.arm(measured(sent.position, stamp=now), "policy", now)
    now += 5.0
    again = gate.check(wanted(sent.position, stamp=now), measured(sent.position, stamp=now), now, now).sent
    assert np.linalg.norm(again.position - sent.position) <= LIMITS.acceleration * PERIOD**2 + 1e-9
    gate.arm(measured(sent.position, stamp=now + 1.0), "policy", now + 1.0)


def test_a_foreign_source_moves_nothing_but_does_not_hide_a_force():
    gate = armed()
    now, _ = run(gate, [0.0045, 0.0, 0.0], 10)
    before = gate._motion
    foreign = wanted(before.position, stamp=now, source="teleop")
    ruling = gate.check(foreign, measured(before.position, stamp=now, wrench=[60.0, 0, 0, 0, 0, 0]), now, now)
    assert ruling.sent is None and "60 N" in gate.stopped and gate._motion is before
    assert gate.check(foreign, measured(before.position, stamp=now), now, now).sent is None and gate._motion is before


def test_arrays_that_the_caller_uses_again_change_nothing():
    gate, buffer = armed(), np.array([0.45, 0.0, 0.3])
    gate.check(Target(0.0, buffer, DOWN, 1.0, "policy"), measured(), 0.0, 0.0).sent.position[:] = 9.0
    buffer[0] += 0.09
    assert "4.50 m/s" in gate.check(Target(PERIOD, buffer, DOWN, 1.0, "policy"), measured(), PERIOD, PERIOD).reason


def test_an_arm_that_hangs_below_its_setpoint_can_be_handed_over():
    gate = armed()
    now, sent = run(gate, [0.0, 0.0, 0.001], 10)
    now, low = now + 1.0, sent.position - [0.0, 0.0, 0.015]
    gate.lease("teleop", 0.0)
    ruling = gate.check(wanted(low, stamp=now, source="teleop"), measured(low, stamp=now), now, now)
    assert ruling.verdict == "clipped" and ruling.sent is not None


@pytest.mark.parametrize("twist", [-0.25, 0.0, 0.25])
@pytest.mark.parametrize("lean", [0.45, 0.5, 0.52])
def test_a_hand_that_leans_at_the_cones_side_goes_round_and_is_not_stuck(lean, twist):
    """The shortest turn leads out of the cone there."""
    gate, watch = armed(), None
    turned = lambda *v: quat_from_vector(np.array(v))  # noqa: E731
    for tick in range(1, 600):
        now = tick * PERIOD
        reach, t = min(lean, 0.1 * now), max(now - 6.0, 0.0)
        turn = quat_product(
            turned(0, 0, 0.25 * t), quat_product(turned(reach, 0, 0), quat_product(DOWN, turned(0, 0, twist * t)))
        )
        watch = watch or Watch(gate)
        ruling = gate.check(wanted(turn=turn, stamp=now), measured(turn=gate._motion.turn, stamp=now), now, now)
        assert ruling.verdict in ("sent", "clipped"), (now, ruling.reason)
        watch.see(ruling.sent)
    watch.judge()
    for _ in range(300):
        now += PERIOD
        gate.check(wanted(turn=turn, stamp=now), measured(turn=gate._motion.turn, stamp=now), now, now)
    assert angle_between(gate._motion.turn, gate._mover.inside(LOW, turn)[1]) < 1e-3


def test_an_arm_or_a_target_upside_down_makes_nothing_nan():
    """The way back into the cone has no direction of its own there."""
    up = np.array([0.0, 0.0, 0.0, 1.0])
    gate = armed(replace(LIMITS, tilt=1.5))
    assert gate.check(wanted(turn=up), measured(), 0.0, 0.0).verdict == "rejected" and gate._motion.rests
    gate.stop("the test says so")
    watch = Watch(gate)
    for _ in range(500):
        watch.see(gate.check(wanted(), measured(turn=up), 0.0, 0.0).sent)
    watch.judge(replace(LIMITS, tilt=1.5))
    mover = gate._mover
    for turn in (up, np.array([0.0, 0.0, 1.0, 0.0])):
        position, upright = mover.inside(np.array([0.45, 0.0, 0.3]), turn)
        assert mover.tilt_of(upright) == pytest.approx(1.5, abs=1e-6) and np.isfinite(position).all()


def test_the_gripper_toggles_once_in_its_dead_time_and_stays_in_range():
    gate = armed()
    sent = [gate.check(wanted(gripper=g, stamp=t), measured(stamp=t), t, t).sent.gripper for t, g in
            [(0.0, 1.0), (0.02, -3.0), (0.04, 1.0), (0.3, 0.9), (0.54, 0.8), (0.56, 0.2)]]  # fmt: skip
    assert sent == [1.0, 0.0, 0.0, 0.0, 0.8, 0.8]
    assert armed().check(wanted(gripper=1), measured(), 0.0, 0.0).verdict == "sent", "a whole number is a number"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"speed": math.nan}, "speed"),
        ({"speed": -0.1}, "speed"),
        ({"age": 0.0}, "age"),
        ({"box_low": (0.2, -0.3)}, "box_low"),
        ({"box_high": (0.2, 0.3, 0.6)}, "box is empty"),
        ({"axis": (0.0, 0.0, -2.0)}, "axis"),
        ({"tilt": 1.6}, "tilt"),
        ({"lead": math.inf}, "lead"),
        ({"joint_speed": 1.1}, "joint_speed"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(change, named):
    with pytest.raises(RobotRLError, match=named):
        replace(LIMITS, **change)
    with pytest.raises(RobotRLError, match="period"):
        Gate(LIMITS, PANDA, 0.0)


@pytest.mark.parametrize("name", ARMS)
def test_each_arms_figures_make_sense(name):
    arm = arm_limits(name)
    assert len(arm.low) == (6 if name.startswith("UR") else 7) and max(arm.speed) < 6 and arm.source
    with pytest.raises(RobotRLError, match="low below"):
        replace(arm, low=arm.high)
    with pytest.raises(RobotRLError, match="as many"):
        replace(arm, speed=arm.speed[1:])


def test_an_unknown_arm_is_named_beside_those_that_are_known():
    with pytest.raises(RobotRLError, match="'Puma'.*FR3"):
        arm_limits("Puma")
    assert isinstance(arm_limits("FR3"), ArmLimits)
