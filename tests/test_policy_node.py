"""What the policy node's transitions do, without ROS: nothing that ends playing goes unsaid, and the arm is held."""

from __future__ import annotations

from threading import Lock
from types import SimpleNamespace

import pytest

from drivers import policy_node
from drivers.policy_node import PolicyRunner
from drivers.ros_arm import RosArm
from robot_rl.types import RobotRLError
from tests.lockstep import ROBOT, Bench


def playing(error):
    def play(env, ended):
        raise error

    runner, bench = PolicyRunner(ROBOT, lambda: play), Bench()
    runner.env, runner._play = bench.env(), play
    bench.prepare(0)
    return runner, bench


def test_what_the_user_can_mend_is_told_and_the_arm_held():
    runner, bench = playing(RobotRLError("mend this"))
    runner._run()
    assert (runner.error, runner.finished, bench.stopped) == ("mend this", True, "mend this")


def test_what_was_given_up_because_it_was_asked_to_end_is_no_error():
    runner, bench = playing(RobotRLError("the arm's node was not waited for any longer"))
    runner._end.set()
    runner._run()
    assert (runner.error, runner.finished, "let go" in bench.stopped) == ("", False, True)


def test_fault_f08_any_other_exception_is_told_too_and_the_arm_held():
    runner, bench = playing(MemoryError("CUDA out of memory"))
    with pytest.raises(MemoryError):
        runner._run()
    assert (
        "CUDA out of memory" in runner.error
        and runner.finished
        and "CUDA" in bench.stopped
        and bench.servo.authority.latched
    )


def test_a_way_home_that_a_transition_ends_between_two_heartbeats_is_no_error():
    """The transition's thread lets go of the lease while the one that plays is about to publish it."""
    pytest.importorskip("std_msgs")
    arm, beats = object.__new__(RosArm), []
    arm._source, arm._lease, arm._homing, arm._letting_go = "policy", "", "7", Lock()
    arm._beaten, arm._heart = -float("inf"), SimpleNamespace(publish=lambda m: beats.append(m.data))
    arm._ended = lambda: bool(arm._let_go()) and False
    arm._beat()
    arm._beat()
    assert beats == [7]


class Made:
    """What `configure` makes, and what of it is there; the step `fails`."""

    def __init__(self, monkeypatch, fails, error):
        self.there, self.fails, self.error = set(), fails, error
        monkeypatch.setattr(policy_node, "make_node", self.make_node)
        monkeypatch.setattr(policy_node, "spin_in_thread", self.spin)
        monkeypatch.setattr(policy_node, "RosRobot", lambda *_, **__: self.step("robot") or self)

    def step(self, name):
        if name == self.fails:
            raise self.error

    def load(self):
        self.step("load")
        return lambda env, ended: None

    def make_node(self, name):
        self.step("node")
        self.there.add("node")
        return SimpleNamespace(destroy_node=lambda: self.there.remove("node"))

    def spin(self, node):
        self.step("spin")
        self.there.add("thread")

        def end():
            self.there.remove("thread")
            self.step("end of spinning")

        return end

    def env(self, aside):
        self.step("env")
        return Bench().env()


@pytest.mark.parametrize("error", [RobotRLError("mend this"), RuntimeError("no more threads"), KeyboardInterrupt()])
@pytest.mark.parametrize("fails", ["load", "node", "spin", "robot", "env"])
def test_fault_f39_a_configure_that_fails_at_any_step_leaves_nothing_behind(monkeypatch, fails, error):
    made = Made(monkeypatch, fails, error)
    runner = PolicyRunner(ROBOT, made.load)
    for _ in range(2):
        with pytest.raises(type(error)):
            runner.configure()
        assert not made.there, "it would listen beside the one that the next configure makes"
        runner.close()  # as `on_error` does
    made.fails = ""
    runner.configure()
    assert made.there == {"node", "thread"}
    made.fails, made.error = "end of spinning", RuntimeError("a callback failed")
    with pytest.raises(RuntimeError):
        runner.cleanup()
    runner.close()
    assert not made.there


@pytest.mark.parametrize("error", [RuntimeError("a callback failed"), KeyboardInterrupt()])
@pytest.mark.parametrize("dies", ["spin", "trigger_configure", "trigger_activate"])
def test_fault_f39_an_error_that_ends_the_process_lets_go_of_the_arm_before(monkeypatch, error, dies):
    came = []

    def die(*_):
        raise error

    def step(name):
        return die if name == dies else lambda *_: came.append(name)

    node = SimpleNamespace(trigger_configure=step("trigger_configure"), trigger_activate=step("trigger_activate"))
    monkeypatch.setattr(policy_node, "start_ros", lambda: lambda: False)
    monkeypatch.setattr(policy_node, "build", lambda _: node)
    monkeypatch.setattr(policy_node, "spin", step("spin"))
    monkeypatch.setattr(policy_node, "end_ros", lambda _: came.append("end ROS"))
    monkeypatch.setattr(PolicyRunner, "close", lambda _: came.append("let go"))
    with pytest.raises(type(error)):
        policy_node.run(ROBOT, lambda: None, autostart=True)
    assert came[-2:] == ["let go", "end ROS"]
