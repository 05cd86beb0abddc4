"""What became of the goals of an action: read, told, and sent again where that may help."""

from __future__ import annotations

import pytest

from drivers.check import Endpoint
from drivers.check_gripper import action_wrong
from drivers.gripper import DISCOVERY, LOOK, TRIES, GripperAction
from tests.test_gripper import Server
from tests.test_robot_file import changed

ABORTED, CANCELED, SUCCEEDED = 6, 5, 4
NAME = "/gripper/cmd"


class Rig:
    """A gripper whose ticks come every 10 ms; `answers` says how each goal ends."""

    def __init__(self, *ends):
        self.server, self.time, self.ends = Server(), 100.0, list(ends)
        self.gripper = GripperAction(self.server, lambda opening: opening, NAME)

    def tick(self, opening=None, seconds=0.01):
        for _ in range(round(seconds / 0.01)):
            self.time += 0.01
            before = len(self.server.log)
            if opening is None:
                self.gripper.watch(self.time)
            else:
                self.gripper.send(opening, self.time)
            if len(self.server.log) > before:
                self.server.answer()
                self._end()

    def _end(self):
        if self.server.log[-1] == "cancel" or not self.ends:
            return
        self.gripper.watch(self.time)  # which asks for the result
        status, fields = self.ends.pop(0)
        if status:
            self.server.end(status, **fields)


@pytest.mark.parametrize(
    "status, fields, how",
    [
        (ABORTED, {}, "was aborted"),
        (CANCELED, {}, "was cancelled by somebody else"),
        (SUCCEEDED, {"reached_goal": False}, "ended short of it"),
    ],
)
def test_fault_f45_a_goal_that_comes_to_nothing_is_told_and_tried_three_times(status, fields, how):
    rig = Rig(*[(status, fields)] * 10)
    rig.tick(0.0, 0.1)
    assert rig.gripper.problem == (
        f"the fingers do not obey: the goal 0.00 (0 closed, 1 open) of {NAME} {how}, tried 1 of {TRIES} times"
    )
    rig.tick(0.0, 10.0)
    assert rig.server.log == [0.0] * TRIES and "given up after 3" in rig.gripper.problem
    rig.tick(1.0, 0.1)  # another wish is another matter
    assert rig.server.log == [0.0] * TRIES + [1.0]
    rig.tick(1.0, 10.0)
    rig.gripper.begin()  # and so is a person who arms it anew
    rig.tick(1.0, 0.1)
    assert rig.server.log == [0.0] * TRIES + [1.0] * (TRIES + 1)


def test_fault_f45_what_succeeds_at_last_is_no_problem_any_more():
    rig = Rig((ABORTED, {}), (SUCCEEDED, {"reached_goal": True}))
    rig.tick(0.0, 3.0)
    assert rig.server.log == [0.0, 0.0] and rig.gripper.problem == ""


@pytest.mark.parametrize("status, told", [(ABORTED, True), (SUCCEEDED, False)])
def test_fault_f45_fingers_that_stall_on_a_part_are_left_alone(status, told):
    rig = Rig((status, {"stalled": True, "reached_goal": False}))
    rig.tick(0.0, 5.0)
    assert rig.server.log == [0.0] and ("stalled" in rig.gripper.problem) == told


def test_fault_f45_a_goal_without_a_result_is_told():
    rig = Rig((0, {}))
    rig.tick(0.0, 4.9)
    assert rig.gripper.problem == ""
    rig.tick(0.0, 0.5)
    assert "runs for 5 s without a result" in rig.gripper.problem and rig.server.log == [0.0]


def test_fault_f45_results_are_read_while_the_arm_rests_and_nothing_is_sent():
    rig = Rig((0, {}))
    rig.tick(0.0, 0.1)
    rig.server.end(ABORTED)
    rig.tick(None, 5.0)
    assert "was aborted, tried 1 of 3" in rig.gripper.problem and rig.server.log == [0.0]


def test_fault_f45_a_server_that_goes_is_told_and_the_next_one_is_asked_anew():
    rig = Rig()
    rig.tick(0.0, DISCOVERY + LOOK + 0.1)
    assert rig.server.log == [0.0]
    rig.server.ready = False
    rig.tick(0.0, LOOK + 0.02)
    assert rig.gripper.problem == f"there is no server of the action {NAME}: is the gripper's driver running?"
    rig.tick(0.0, 3.0)
    assert rig.server.log == [0.0]
    rig.server.ready = True
    rig.tick(0.0, 1.0)
    assert rig.server.log == [0.0, 0.0] and rig.gripper.problem == ""


def test_a_server_that_is_not_there_yet_is_told_once_it_would_have_been_found():
    rig = Rig()
    rig.server.ready = False
    rig.tick(None, DISCOVERY)
    assert rig.gripper.problem == ""
    rig.tick(None, 2 * LOOK)
    assert "no server" in rig.gripper.problem


def test_fault_f45_check_looks_for_the_action_and_not_for_a_topic(tmp_path):
    changes = {"gripper.profile": "gripper_command", "gripper.topic": "gripper/cmd", "gripper.effort": 20}
    robot, kind = changed(tmp_path, changes, of="fr3"), "control_msgs/action/GripperCommand"
    arm = {NAME: [Endpoint("/arm_node", kind)]}
    assert not list(action_wrong(robot, NAME, {NAME: [Endpoint("/franka_gripper", kind)]}, arm))
    (nobody,) = action_wrong(robot, NAME, {}, {})
    assert nobody.startswith(f"nobody offers the action {NAME} ({kind})")
    other = [Endpoint("/driver", "control_msgs/action/ParallelGripperCommand")]
    (wrong,) = action_wrong(robot, NAME, {NAME: other}, {})
    assert "is control_msgs/action/ParallelGripperCommand by /driver, and must be" in wrong
    (elsewhere,) = action_wrong(robot, NAME, {"/fr3/gripper/cmd": [Endpoint("/fr3/franka_gripper", kind)]}, {})
    assert "/fr3/gripper/cmd" in elsewhere and "__ns:=/fr3" in elsewhere
    two = {NAME: [Endpoint("/arm_node", kind), Endpoint("/moveit", kind)]}
    (both,) = action_wrong(robot, NAME, {NAME: [Endpoint("/franka_gripper", kind)]}, two)
    assert "/arm_node, /moveit send goals" in both
    assert not list(action_wrong(changed(tmp_path, {}, of="fr3"), NAME, {}, {}))
