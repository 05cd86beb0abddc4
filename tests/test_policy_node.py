"""What the policy node's transitions do, without ROS: nothing that ends playing goes unsaid, and the arm is held."""

from __future__ import annotations

import pytest

from drivers.policy_node import PolicyRunner
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
