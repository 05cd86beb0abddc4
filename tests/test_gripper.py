"""Fingers by an action: one goal at a time, the newest, and never a wait. Over DDS: tests/ros/test_gripper.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from drivers.gripper import GripperAction, goal_of, gripper_for, position_of
from drivers.robot_file import GripperFile
from robot_rl.types import RobotRLError
from tests.test_robot_file import changed

FINGERS = GripperFile(
    "finger", closed=0.8, open=0.0, topic="gripper/gripper_cmd", profile="gripper_command", effort=5.0
)


class Server:
    """An action's client whose answers come when the test says so; `log` is what it was asked."""

    def __init__(self):
        self.log, self.answers, self.ready = [], [], True

    def server_is_ready(self):
        return self.ready

    def send_goal_async(self, goal):
        return self._asked(goal)

    def cancel_goal_async(self):
        return self._asked("cancel")

    def get_result_async(self):
        self.result = Answer()
        return self.result

    def end(self, status, **fields):
        self.result.value = SimpleNamespace(status=status, result=SimpleNamespace(**fields))

    def _asked(self, what):
        self.log.append(what)
        self.answers.append(Answer())
        return self.answers[-1]

    def answer(self, accepted=True):
        taken = SimpleNamespace(cancel_goal_async=self.cancel_goal_async, get_result_async=self.get_result_async)
        cancelled = self.log[-1] == "cancel"
        taken.accepted = accepted
        self.answers[-1].value = SimpleNamespace(goals_canceling=[]) if cancelled else taken


class Answer:
    value = None

    def done(self):
        return self.value is not None

    def result(self):
        return self.value


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def send(server):
    """`send(opening)` for one servo tick after another."""
    gripper, ticks = GripperAction(server, lambda opening: opening), []

    def tick(opening, count=1):
        for _ in range(count):
            ticks.append(opening)
            gripper.send(opening, 100.0 + 0.01 * len(ticks))

    return tick


def test_the_same_wish_is_one_goal_however_often_it_is_made(server, send):
    send(1.0, 50)
    server.answer()
    send(1.0, 300)
    send(0.99, 10)  # no other one
    assert server.log == [1.0]


def test_another_wish_cancels_what_runs_and_only_then_is_sent_the_newest(server, send):
    send(1.0)
    server.answer()
    send(0.0, 5)
    assert server.log == [1.0, "cancel"]
    send(0.4, 5)
    server.answer()
    send(0.4, 5)
    assert server.log == [1.0, "cancel", 0.4]


def test_a_goal_that_is_over_is_not_cancelled(server, send):
    send(1.0)
    server.answer()
    send(1.0)
    server.end(4)
    send(0.0)
    assert server.log == [1.0, 0.0]


def test_a_wish_that_nobody_took_is_made_again_once_a_second(server, send):
    server.ready = False
    send(1.0, 10)
    assert not server.log
    server.ready = True
    send(1.0)
    server.answer(accepted=False)
    send(1.0, 90)
    assert server.log == [1.0]
    send(1.0, 20)
    assert server.log == [1.0, 1.0]
    send(1.0, 80)  # and where no answer comes at all
    assert server.log == [1.0, 1.0]
    send(1.0, 20)
    assert len(server.log) == 3


def test_each_action_has_goals_of_its_own():
    def kind():
        return SimpleNamespace(Goal=lambda: SimpleNamespace(command=SimpleNamespace()))

    goal = goal_of(kind(), FINGERS, 0.25)
    assert (goal.command.position, goal.command.max_effort) == (pytest.approx(0.6), 5.0)
    newer = GripperFile("finger", 0.8, 0.0, profile="parallel_gripper_command", effort=4.0)
    goal = goal_of(kind(), newer, 1.0)
    assert (goal.command.name, goal.command.position, goal.command.effort) == (["finger"], [0.0], [4.0])
    assert position_of(FINGERS, 0.0) == 0.8


def test_without_control_msgs_the_arm_is_not_started_and_the_package_is_named(tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.setitem(__import__("sys").modules, "control_msgs.action", None)
    robot = changed(
        tmp_path, {"gripper.profile": "gripper_command", "gripper.topic": "gripper/cmd", "gripper.effort": 5}
    )
    with pytest.raises(RobotRLError, match=r"GripperCommand needs control_msgs.*apt install ros-"):
        gripper_for(None, robot)


def test_an_action_that_is_too_new_is_named(tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.setitem(__import__("sys").modules, "control_msgs.action", SimpleNamespace(GripperCommand=object))
    robot = changed(tmp_path, {"gripper.profile": "parallel_gripper_command", "gripper.effort": 5})
    with pytest.raises(RobotRLError, match="no ParallelGripperCommand yet"):
        gripper_for(None, robot)
