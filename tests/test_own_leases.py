"""Whatever is late, an answer, a status, a release: what a program asked for and does not want any more is given back.

The arm's node is its real state model; between it and the program every word takes its time. A program that hangs hears
nothing meanwhile, and all of it afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.authority import Authority
from robot_rl.types import RobotRLError
from tests.benchmarks.fake_ros import FakeNode, Times
from tests.lockstep import ROBOT

pytest.importorskip("std_srvs")
AGE = 0.2


class Answer:
    """A future, as rclpy's."""

    def __init__(self):
        self.value, self.callbacks = None, []

    def done(self):
        return self.value is not None

    def result(self):
        return self.value

    def cancelled(self):
        return False

    def exception(self):
        return None

    def add_done_callback(self, then):
        then(self) if self.done() else self.callbacks.append(then)

    def come(self, value):
        self.value = value
        for then in self.callbacks:
            then(self)


class Wire:
    """The arm's state model at the other end of slow topics and services."""

    def __init__(self, monkeypatch, asks=0.001, answers=0.001, tells=0.001):
        from drivers.ros_arm import RosArm

        self.times, self.asks, self.answers, self.tells = Times(), asks, answers, tells
        self.authority = Authority(("teleop", "policy"), AGE, 1000)
        self.count = itertools.count()
        self.queue, self.hangs, self.others, self.offered = [], False, set(), True
        self.ended_by_us = []  # leases of others
        monkeypatch.setattr(time, "monotonic", lambda: self.times.steady)
        monkeypatch.setattr(time, "sleep", self.run)
        node = FakeNode(self.times)
        node.create_client = lambda _kind, name: SimpleNamespace(
            service_name=name, srv_type=SimpleNamespace(Request=SimpleNamespace), call_async=lambda _: self.ask(name),
            wait_for_service=lambda _: True, service_is_ready=lambda: self.offered or name.endswith("arm"),
        )  # fmt: skip
        self.ended = False
        listener = SimpleNamespace(readings=None, problem="")
        self.arm = RosArm(node, ROBOT, listener, "policy", lambda: self.ended)
        self.hear, self.fault = node.heard["arm_status"], node.publishers["policy/fault"]
        self.fault.publish = lambda message: self.later(self.asks, lambda: self.stop(message.data), away=True)
        self.tell()

    def later(self, delay, what, away=False):
        """`away`: at the arm's node, which does not hang when we do."""
        self.queue.append((self.times.steady + delay, next(self.count), what, away))

    def run(self, seconds):
        end = self.times.steady + seconds
        while due := sorted(item for item in self.queue if item[0] <= end and (item[3] or not self.hangs)):
            self.queue.remove(due[0])
            self.times.steady = max(self.times.steady, due[0][0])
            due[0][2]()
        self.times.steady = end
        self.authority.watch(end)

    def tell(self):
        a = self.authority
        a.watch(self.times.steady)
        said = {"holder": a.holder, "lease": a.lease, "rests": True, "at home": False, "sees the arm": True}
        said |= {"needs reset": a.latched, "started": 1000}
        values = [SimpleNamespace(key=k, value=str(v)) for k, v in said.items()]
        message = SimpleNamespace(values=values, message=a.reason)
        self.later(self.tells, lambda: self.hear(message))
        self.later(0.1, self.tell, away=True)

    def ask(self, name):
        future = Answer()

        def answer():
            holder, what = name.split("/")
            try:
                if what == "arm":
                    self.authority.arm(holder, self.times.steady)
                elif self.authority.release(holder) and self.authority.lease in self.others:
                    self.ended_by_us.append(self.authority.lease)
                said = SimpleNamespace(success=True, message=f"{self.authority.lease}; a hint")
            except RobotRLError as error:
                said = SimpleNamespace(success=False, message=str(error))
            self.later(self.answers, lambda: future.come(said))

        self.later(self.asks, answer, away=True)
        return future

    def stop(self, reason):
        if self.authority.lease in self.others:
            self.ended_by_us.append(self.authority.lease)
        if self.authority.holder == "policy" and self.authority.held:
            self.authority.stop(reason)

    def another(self):
        """A person resets the arm, where it is stopped, and somebody else of our name is armed."""
        self.authority.release(self.authority.holder)
        self.authority.reset()
        self.authority.arm("policy", self.times.steady)
        self.others.add(self.authority.lease)


ASKS = st.sampled_from([0.001, 0.02, 0.25, 0.6, 5.5])
ANSWERS = st.sampled_from([0.001, 0.02, 0.25, 0.6, 3.0])
TELLS = st.sampled_from([0.001, 0.05, 0.28, 1.0])


@settings(max_examples=100, deadline=None)
@given(ASKS, ANSWERS, TELLS, st.booleans(), st.booleans(), st.booleans())
def test_fault_f32_what_was_asked_for_is_given_back_whichever_word_is_late(asks, answers, tells, home, faulty, offered):
    with pytest.MonkeyPatch.context() as monkeypatch:
        wire = Wire(monkeypatch, asks, answers, tells)
        wire.run(2.0)
        wire.offered = offered
        wire.ended = home  # else that would be waited for
        with contextlib.suppress(RobotRLError):  # nobody answered in time
            wire.arm.go_home() if home else wire.arm.take()
        wire.arm.stop("a fault") if faulty and not home else wire.arm.hold()
        wire.run(0.4)
        wire.offered = True
        wire.run(2 * asks + answers + tells + 0.35)
        assert not wire.authority.held, "it would stay armed for 10 s, and latch then"
        latched = faulty and not home and wire.authority.reason == "a fault"
        assert latched or wire.authority.reason in ("'policy' let go of it", "'homing' let go of it")


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([0.001, 0.05]), st.floats(0.4, 3.0), st.booleans(), st.booleans())
def test_fault_f21_who_hung_gives_back_nothing_that_somebody_else_holds_by_now(tells, hung, faulty, early):
    with pytest.MonkeyPatch.context() as monkeypatch:
        wire = Wire(monkeypatch, tells=tells)
        wire.run(1.0)
        wire.arm.take()
        wire.run(0.0 if early else 0.3)
        wire.hangs = True
        wire.run(0.01)
        wire.another()
        wire.run(hung)
        wire.arm.stop("a fault") if faulty else wire.arm.hold()
        wire.hangs = False
        wire.run(2.0)
        assert not wire.ended_by_us and wire.authority.lease in wire.others and wire.authority.held


def test_an_arming_that_was_interrupted_is_given_back_when_its_answer_comes(monkeypatch):
    wire = Wire(monkeypatch, answers=1.0)
    wire.run(1.0)
    monkeypatch.setattr(wire.arm, "_beat", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        wire.arm.take()
    wire.arm.hold()
    wire.run(1.5)
    assert wire.authority.reason == "'policy' let go of it"
