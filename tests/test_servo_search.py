"""What the arm's node publishes, whatever happens: a small adversarial search, and single faults at the publisher."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

from drivers import arm_node
from tests.benchmarks import servo_search
from tests.benchmarks.servo_judge import Judge, Seen
from tests.benchmarks.servo_search import PROFILES, World
from tests.benchmarks.singular_paths import Arm

pytest.importorskip("rclpy")
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


@lru_cache
def panda():
    return Arm("Panda")


class Calm(World):
    """A world in which nothing happens by itself; `lost` names the numbers that readings lack."""

    def __init__(self, profile, seed=0, **limits):
        self.limits, self.lost = limits, None
        super().__init__(np.random.default_rng(seed), profile, panda(), Counter())
        self.delay = 0

    def _robot(self):
        robot = super()._robot()
        near = robot.limits
        wide = {"box_low": tuple(self.position - 0.3), "box_high": tuple(self.position + 0.3), "age": 0.2}
        wide |= {"speed": 0.25, "turn_speed": 0.6, "acceleration": 2.0, "turn_acceleration": 6.0, "lead": 0.1}
        wide |= {"jerk": 0.0, "turn_jerk": 0.0}
        return replace(robot, limits=replace(near, **{**wide, **self.limits}), servo_rate=100.0)

    def _joints(self):
        return np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8])

    def _happen(self):
        pass

    def _wish(self):
        """Straight on, slowly."""
        if self.goal is not None and self.tick % 5 == 0:
            self.goal = self.goal + self.way * 0.05
            place, stamp = self.goal, self.times.now
            message = servo_search.pose_msg(stamp, "base", place, self.facing.as_quat())
            self.node.heard["policy/target_pose"](message, {"publication_sequence_number": None})

    def _lose(self, numbers):
        name, at, value = self.lost
        numbers[name][at] = value

    def begin(self, speed=0.1):
        """Moving along y."""
        self.run(5)
        with servo_search.frozen(self.times):
            self._arm("policy")
        self.way = np.array([0.0, speed, 0.0])
        assert not self.stopped
        self.run(50)
        assert not self.stopped and self.judge.setpoints > 20
        return self

    @property
    def stopped(self):
        return self.arm_node.servo.gate.stopped

    def again(self):
        """As a person and then the policy; whether it moves again."""
        with servo_search.frozen(self.times):
            assert self._call("reset")
            self._arm("policy")
        self.way = np.array([0.0, 0.05, 0.0])
        before = self.position.copy()
        self.run(50)
        return not self.stopped and np.linalg.norm(self.position - before) > 0.005


def test_nothing_that_breaks_a_law_is_found_in_a_small_search():
    """500,000 periods: `python tests/benchmarks/servo_search.py`; see docs/results.md, section 9."""
    found, did, judged = servo_search.search(2800, 5, world_periods=350)
    assert not found, found
    assert all(judged[f"{profile} setpoints"] > 40 for profile in PROFILES), judged
    assert did["reset: yes"] > 3 and min(did[v] for v in ("sent", "clipped", "stopped")) > 50, did


def test_the_judge_finds_each_breach():
    """It would be of no use if it found none."""
    limits = servo_search.World._robot(
        SimpleNamespace(
            rng=np.random.default_rng(0), turn=servo_search.Rotation.from_quat(DOWN),
            position=np.array([0.5, 0.0, 0.3]), joints_sent=False, profile="servo_twist", arm=panda(),
        )
    ).limits  # fmt: skip
    limits = replace(limits, jerk=0.0)
    here, still = np.array([0.5, 0.0, 0.3]), (np.zeros(3), np.zeros(3))

    def breaches(*changes, limits=limits):
        judge = Judge(limits, 0.01, np.ones(7), (-3 * np.ones(7), 3 * np.ones(7)), lambda q: panda().pose(q))
        seen = Seen((here, DOWN), None, still, 1.0, (here, DOWN, np.zeros(7)), True, False, 1.0)
        for change in ({}, {}, {}, *changes):
            judge.see(replace(seen, **change))
        return set(judge.found)

    way = np.array([0.01, 0.0, 0.0])
    assert breaches() == set()
    assert breaches({"setpoint": (here * np.nan, DOWN)}) == {"not finite"}
    assert {"outside the box", "speed"} <= breaches({"setpoint": (here + 1.0, DOWN)})
    assert "beyond the cone" in breaches({"setpoint": (here, np.array([0.0, 0.0, 0.0, 1.0]))})
    assert "acceleration" in breaches({"setpoint": (here + 0.1 * way, DOWN)})
    jerky = replace(limits, jerk=5.0)  # at 100 periods a second: the acceleration may change by 0.05 m/s^2 in one
    ramp = [{"setpoint": (here + [0.0, 0.0, 1e-6 * k], DOWN)} for k in (0.0, 1.0, 30.0, 90.0, 180.0)]
    assert "jerk" not in breaches(*ramp) and "jerk" in breaches(*ramp, limits=jerky)
    moving = [{"setpoint": (here + k * 0.2 * way, DOWN)} for k in range(6)]
    assert "ends while it moves" in breaches(*moving, {"setpoint": None})
    assert {"joint speed", "joint acceleration"} <= breaches(*[{"joints": q * np.ones(7)} for q in (0.0, 0.5, 0.0)])
    assert "joint range" in breaches({"joints": np.zeros(7)}, {"joints": 2.99 * np.ones(7)})
    assert "setpoint is not where the joints are" in breaches({"joints": np.zeros(7)})
    fast = (np.array([9.0, 0.0, 0.0]), np.zeros(3))
    assert {"twist speed", "twist acceleration"} <= breaches({"twist": fast})
    assert "twist on an unsound or old state" in breaches({"twist": (way, np.zeros(3)), "sound": False})
    assert "the last twist is not zero" in breaches({"twist": (way, way)}, *[{"twist": None}] * 5)
    assert "twist not finite" in breaches({"twist": (way * np.nan, way)})
    assert "ahead of the arm for more than a second" in breaches(*[{"measured": (here + 1, DOWN, np.zeros(7))}] * 120)
    assert breaches({"gripper": 2.0}) == {"gripper"}


@pytest.mark.parametrize("profile", PROFILES)
def test_fault_f35_no_number_of_the_state_that_is_none_moves_anything(profile):
    """NaN and inf in every field: all that is sent is finite, it brakes, and a twist is zero at once."""
    for name, at in (("p", 1), ("q", 3), ("j", 2), ("j", 7), ("w", 4)):
        for value in (np.nan, np.inf):
            world = Calm(profile).begin()
            world.lost, world.broken = (name, at, value), 10**6
            before = world.position.copy()
            world.run(1)
            assert world.stopped and ("finite" in world.stopped or "no number" in world.stopped), (name, world.stopped)
            world.run(60)
            assert not world.judge.found, (name, value, world.judge.found)
            assert np.linalg.norm(world.position - before) < (0.002 if profile == "servo_twist" else 0.05)


@pytest.mark.parametrize(("what", "most"), [("frozen", 0.05), ("silent", 0.03)])
def test_fault_f35_a_pose_that_stands_still_or_is_old_ends_the_twists(what, most):
    """Frozen with stamps that go on, which only the arm's motion shows; or no reading any more."""
    world = Calm("servo_twist").begin(0.1)
    before = world.position.copy()
    setattr(world, "frozen_for" if what == "frozen" else "silent", 10**6)
    world.run(200)
    assert world.stopped and not world.judge.found
    assert np.linalg.norm(world.position - before) < most
    assert world.arm_node.controller.resting and not world.node.publishers["sink"].sent


@pytest.mark.parametrize("jerk", [0.0, 10.0])
def test_twists_rest_when_the_node_is_asked_to_end(jerk):
    world = Calm("servo_twist", jerk=jerk).begin(0.1)
    world.arm_node.servo.stop("the node is shut down")
    periods = 0
    while not (world.arm_node.servo.gate.rests and world.arm_node.controller.resting):
        world.run(1)
        periods += 1
    assert periods < (60 if not jerk else 100) and not world.judge.found


@pytest.mark.parametrize("profile", ["cartesian_impedance", "servo_twist"])
@pytest.mark.parametrize("step", [-3600.0, -10.0, -0.05, 0.05, 0.3, 10.0, 3600.0])
def test_fault_f41_a_step_of_the_clock_is_named_and_the_arm_can_be_armed_2_s_later(profile, step):
    world = Calm(profile).begin()
    world.times.shift += step
    world.run(1)
    assert world.stopped == f"the clock stepped by {step:+.2f} s"
    world.run(200)
    assert not world.judge.found, world.judge.found
    assert world.again() and not world.judge.found


@pytest.mark.parametrize("step", [-0.03, -0.05, -0.1, 0.1])
def test_fault_f41_readings_on_their_way_look_no_younger_after_the_clock_was_set_back(step):
    """They took 0.12 s of the 0.14 s that are allowed; the readings after them take 0.16 s, and stop the arm."""
    world = Calm("servo_twist", age=0.14).begin(0.05)
    world.delay = 12
    with servo_search.frozen(world.times):
        world._call("stop")
    world.run(100)
    world.times.shift += step
    for tick in range(40):
        world.delay = 12 if tick < 8 else 16
        world.run(1)
        with servo_search.frozen(world.times):
            if world._call("reset"):
                world._arm("policy")
                world.way = np.array([0.0, 0.05, 0.0])
    assert not world.judge.found, world.judge.found


@pytest.mark.parametrize("step", [-0.019, 0.015])
def test_fault_f41_a_clock_that_is_slewed_stops_nothing(step):
    world = Calm("cartesian_impedance").begin()
    for _ in range(20):
        world.times.shift += step / 10
        world.run(5)
    assert not world.stopped and not world.judge.found


@pytest.mark.parametrize("profile", PROFILES)
def test_fault_f38_an_arm_that_stands_still_stops_the_setpoint_at_the_lead_and_is_not_flung_when_let_go(profile):
    """In an emergency stop, while targets go on at 0.2 m/s: within the lead, stopped by name, let go: no jump."""
    world = Calm(profile)
    world.sag = np.zeros(3)  # of the model; one that sags does so whenever it is let go
    world.begin(0.2)
    world.free, at = 10**6, world.position.copy()
    away, since = 0.0, 0
    while not world.stopped:
        world.run(1)
        since += 1
        away = max(away, float(np.linalg.norm(world.arm_node.servo.gate.setpoint.position - at)))
    assert "does not follow" in world.stopped or "stands still" in world.stopped or "lags" in world.stopped
    assert away <= world.robot.limits.lead + 0.002 and since * world.period < 2.0
    world.run(100)  # the setpoint comes back to the arm
    world.free, fastest = 0, 0.0
    for _ in range(100):
        before = world.position
        world.run(1)
        fastest = max(fastest, float(np.linalg.norm(world.position - before)) / world.period)
    assert fastest < 0.05 and not world.judge.found, (fastest, world.judge.found)
    assert world.again()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("source", ["policy", "homing"])
def test_fault_f31_arming_alone_moves_no_arm_whose_controller_was_started_anew(profile, silent, source):
    """It stands, or was guided, 6 cm from where its setpoint was left: within the lead, and nobody holds it there."""
    world = Calm(profile).begin()
    with servo_search.frozen(world.times):
        world._call("stop")
    world.run(200)
    world.silent = 30 if silent else 0
    joints = world.q + [0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    there = panda().pose(joints) if world.joints_sent else (world.position + [0.0, -0.06, 0.0], world.turn)
    (world.position, world.turn), world.q = there, joints
    world.target = joints if world.joints_sent else (world.position, world.turn.as_quat())
    world.run(40)
    with servo_search.frozen(world.times):
        assert world._call("reset") and world._call(f"{source}/arm")
    before = world.position.copy()
    world.run(100)
    assert np.linalg.norm(world.position - before) < (0.002 if world.joints_sent else 0.025), "but for its sag"


def test_fault_f31_a_stop_after_a_reset_is_not_undone_by_it_and_one_more_stop_is_told():
    """The node was held up meanwhile: both come at once, and rclpy serves first what was made first."""
    world = Calm("cartesian_impedance").begin()
    assert list(world.node.services).index("reset") < list(world.node.services).index("stop")
    with servo_search.frozen(world.times):
        world.arm_node.servo.stop("it was too fast")
        world.run(200)
        assert world._call("stop") and not world._call("reset")
        assert world.stopped == "somebody called stop; before that: it was too fast"
        world.run(60)
        assert world._call("reset")


@pytest.mark.parametrize("profile", ["cartesian_impedance", "joint_trajectory"])
@pytest.mark.parametrize("past", [0.004, 0.02])
def test_fault_f31_an_arm_that_was_braked_at_the_edge_can_be_reset_and_one_beyond_it_not(profile, past):
    """It hangs a little below its setpoint, which rests at the wall."""
    world = Calm(profile)
    world.sag = np.zeros(3)
    world.begin(0.05)
    low = world.robot.limits.box_low[1]
    while world.arm_node.servo.gate.setpoint.position[1] > low + 0.002:
        world.way = np.array([0.0, -0.1, 0.0])
        world.run(20)
    with servo_search.frozen(world.times):
        world._call("stop")
    world.run(150)
    world._read = lambda read=world._read: (setattr(world, "position", measured), read())
    measured = np.array([world.position[0], low - past, world.position[2]])
    if world.joints_sent:  # whose pose is measured for itself
        world.arm_node._kinematics = None
    world.run(100)
    with servo_search.frozen(world.times):
        assert world._call("reset") == (past < 0.005), world.stopped
        assert world._call("policy/arm") == (past < 0.005)
    assert (world.arm_node.servo.gate.setpoint.position >= world.robot.limits.box_low).all()


def test_fault_f13_who_is_refused_for_a_second_writer_has_the_one_that_holds_it_stopped(monkeypatch):
    """Else the refused program ends and lets go, and nothing of the second writer latches."""
    world = Calm("cartesian_impedance").begin()
    monkeypatch.setattr(arm_node, "publisher_names", lambda _, topic: ["/arm_node", "/other"][: 1 + ("sink" in topic)])
    with servo_search.frozen(world.times):
        assert not world._call("teleop/arm")
    assert "2 publish on sink: /arm_node, /other" in world.stopped and world.arm_node.authority.latched


def test_fault_f31_a_stopped_arm_does_not_go_to_a_pose_that_its_joints_contradict():
    """A second publisher, or an estimator's slip, 8 cm off, while it brakes."""
    world = Calm("joint_trajectory").begin(0.1)
    with servo_search.frozen(world.times):
        world._call("stop")
    far = 0.0
    at = world.arm_node.servo.gate.setpoint.position.copy()
    for _ in range(60):
        world.position = world.position + [0.0, 0.0, 0.08]  # what is told; the joints say where it is
        world.run(1)
        far = max(far, float(np.linalg.norm(world.arm_node.servo.gate.setpoint.position - at)))
    assert far < 0.03 and not world.judge.found


def test_a_reset_is_answered_before_the_first_reading_after_a_step_of_the_clock():
    """The wrench comes last, and brings no reading by itself: the service shall not end the node."""
    world = Calm("joint_trajectory").begin()
    world.times.shift += 10.0
    world.run(1)
    world.silent = 10**6
    world.run(60)
    node, stamp = world.node, world.times.now
    node.heard["joint_states"](servo_search.numbers_msg(stamp, [*world.arm.joints, "finger"], np.append(world.q, 1)))
    node.heard["current_pose"](servo_search.pose_msg(stamp, "base", world.position, world.turn.as_quat()))
    node.heard["wrench"](servo_search._wrench(stamp, np.zeros(6)))
    with servo_search.frozen(world.times):
        assert world._call("reset")


def test_a_node_that_fails_takes_its_last_twist_back(monkeypatch):
    world = Calm("servo_twist").begin(0.1)
    monkeypatch.setattr(arm_node.robot_file, "load", lambda _: world.robot)
    monkeypatch.setattr(arm_node, "start_ros", lambda _: lambda: False)
    monkeypatch.setattr(arm_node, "make_node", lambda _: world.node)
    monkeypatch.setattr(arm_node, "ArmNode", lambda *_: world.arm_node)
    monkeypatch.setattr(arm_node, "spin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        arm_node.main(["--robot", "robot.yaml"])
    assert np.abs(world.node.publishers["sink"].take().twist.linear.y) == 0.0
