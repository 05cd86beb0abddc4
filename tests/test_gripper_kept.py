"""What fingers hold is not let go: over stops, arming, homing and hand-overs they are told what was asked of them last.

The law: no opening that is sent is above the one before unless a source asked for it, and nothing is sent to them
before somebody asked at all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.gate import Gate
from drivers.gripper import REPEAT, GripperTopic
from drivers.robot_file import GripperFile
from drivers.servo import HOMING, Servo
from robot_rl import control
from robot_rl.types import RobotRLError, Target
from tests.lockstep import DOWN, MIDDLE, ROBOT, Bench

PART = 0.45  # the opening at which a part stops the fingers
SOURCES = ("teleop", "policy")


class Gripped(Bench):
    """A bench whose fingers close on a part as wide as `PART`; `told` is all that they were told."""

    def __init__(self, robot=ROBOT):
        self.told, self.asked = [], []
        super().__init__(robot)

    def measure(self):
        if self.rulings and self.rulings[-1].sent.gripper is not None:
            self.told.append(self.rulings[-1].sent.gripper)
        self.opening = max(self.told[-1], PART) if self.told else PART
        super().measure()

    def ask(self, opening, source="policy"):
        """One wish for the pose where the setpoint is."""
        gate = self.servo.gate
        here = gate.setpoint if gate._motion is not None else None
        position = MIDDLE if here is None else here.position
        before = gate.opening
        heard = self.servo.offer(Target(self.time, position, DOWN, opening, source), self.now(), self.time)
        if heard and opening is not None:
            self.asked.append((before, min(max(opening, 0.0), 1.0)))
        self.sleep_until(self.time + self.period)

    def rest(self):
        self.sleep_until(self.time + 0.5)

    def arm(self, source):
        try:
            self.servo.arm(source, self.state(), self.now(), self.steady())
        except RobotRLError:
            return  # it still moves, or somebody else holds it
        self.sleep_until(self.time + self.period)

    def stopped_and_reset(self):
        self.servo.stop("a person said stop")
        self.rest()
        self.reset()

    def let_go(self):
        for source in (*SOURCES, HOMING):
            self.servo.release(source)

    def slow_down(self):
        """As the arm node does when its `speed_scale` is changed."""
        if self.servo.gate.rests:
            old = self.servo.gate
            gate = Gate(old.limits, ROBOT.arm_limits, self.period, opening=old.opening)
            self.servo = Servo(gate, 1.0 / ROBOT.rate, SOURCES, np.array(ROBOT.home), self.servo.authority)


EVENTS = st.one_of(
    st.tuples(st.just("arm"), st.sampled_from([*SOURCES, HOMING])),
    st.tuples(st.just("ask"), st.one_of(st.none(), st.floats(-0.5, 1.5)), st.sampled_from(SOURCES)),
    st.tuples(st.sampled_from(["stop", "stopped_and_reset", "let_go", "rest", "slow_down"])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=25))
def test_fault_f42_no_opening_that_is_sent_rises_unless_a_source_asked_for_it(events):
    bench = Gripped()
    for name, *more in [("arm", "policy"), *events]:
        asked, told = len(bench.asked), len(bench.told)
        if name == "stop":
            bench.servo.stop("a person said stop")
        else:
            getattr(bench, name)(*more)
        new = bench.told[max(told - 1, 0) :]
        rose = [b for a, b in zip(new, new[1:], strict=False) if b > a]
        wanted = {opening for _, opening in bench.asked[asked:]}
        assert set(rose) <= wanted, f"{name} {more}: {new}"
        if not bench.asked:
            assert not bench.told, "nobody asked anything of them yet"


@pytest.mark.parametrize("then", ["arm policy", "arm homing", "teleop", "slow_down", "stop"])
def test_fault_f42_what_is_held_stays_held(then):
    bench = Gripped()
    bench.arm("policy")
    bench.ask(0.0)
    assert bench.told[-1] == 0.0 and bench.state().gripper == PART
    if then == "teleop":
        bench.ask(None, "teleop")
    else:
        bench.stopped_and_reset()
        if then == "slow_down":
            bench.slow_down()
        if then != "stop":
            bench.arm(then.split()[-1] if "arm" in then else "policy")
    bench.rest()
    assert set(bench.told) == {0.0}


def test_at_the_very_first_nothing_is_sent_to_the_fingers_until_somebody_asks():
    bench = Gripped()
    bench.arm(HOMING)
    bench.rest()
    bench.stopped_and_reset()
    bench.arm("policy")
    for _ in range(5):
        bench.ask(None)
    assert bench.told == [] and bench.rulings[-1].sent.gripper is None and bench.servo.gate.opening is None
    bench.ask(0.3)
    assert bench.told == [0.3]


def test_no_number_for_the_fingers_is_still_refused():
    bench = Gripped()
    bench.arm("policy")
    for bad in (np.nan, np.inf):
        bench.ask(bad)
        assert bench.rulings[-1].verdict == "rejected" and "gripper" in bench.rulings[-1].reason
    assert bench.told == []


def holding(robot=ROBOT, opening=None):
    bench = Gripped(robot)
    if opening is not None:
        bench.arm("policy")
        bench.ask(opening)
        bench.hold()
        bench.rest()
    return bench, bench.env()


def test_an_episode_that_only_holds_asks_nothing_of_fingers_that_nobody_told_anything():
    bench, env = holding()
    env.reset(0)
    for _ in range(5):
        env.stay()
        env.step(control.hold(env.spec.action, env.executed))
    assert bench.told == [] and env.executed[-1] == pytest.approx(1 - 2 * PART)
    action = control.hold(env.spec.action, env.executed)
    action[-1] = 1.0
    env.step(action)
    assert bench.told[-1] == 0.0


def test_the_next_episode_begins_with_what_the_last_one_asked_and_not_with_what_is_measured():
    bench, env = holding(opening=0.0)
    assert bench.state().gripper == PART
    env.reset(0)
    for _ in range(5):
        env.stay()
    assert env.executed[-1] == 1.0 and set(bench.told) == {0.0}


@pytest.mark.parametrize("start, opening", [("open", 1.0), ("closed", 0.0)])
def test_an_episode_asks_for_the_start_that_the_file_says_and_homing_does_not(start, opening):
    bench, env = holding(replace(ROBOT, gripper=replace(ROBOT.gripper, start=start)), opening=0.2)
    bench.arm(HOMING)
    bench.rest()
    assert set(bench.told) == {0.2}
    bench.let_go()
    bench.rest()
    env.reset(0)
    for _ in range(3):
        env.stay()
    assert bench.told[-1] == opening and env.executed[-1] == 1 - 2 * opening


def test_positions_on_a_topic_are_sent_again_only_while_somebody_asks(monkeypatch):
    pytest.importorskip("std_msgs")
    sent = []

    class Node:
        def create_publisher(self, _kind, _topic, _depth):
            return self

        def publish(self, message):
            sent.append(message.data[0])

    gripper = GripperTopic(Node(), GripperFile("finger", 0.0, 1.0))
    for k in range(250):
        gripper.send(0.0, 0.01 * k)
    assert len(sent) == 3
    gripper.send(0.0, 100.0)  # armed anew: what they hold is not said again before somebody could ask
    assert len(sent) == 3
    for k in range(1, 150):
        gripper.send(0.0, 100.0 + 0.01 * k)
    assert len(sent) == 4
    gripper.send(1.0, 100.0 + 2 * REPEAT)
    assert sent[-1] == 1.0
