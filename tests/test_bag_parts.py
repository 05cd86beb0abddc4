"""Bags of arms whose fingers publish apart, and of clocks that lie: nothing is lost that the recorder would keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2", reason="pip install 'robot-rl[bags]'")
from drivers import bag  # noqa: E402
from robot_rl.types import RobotRLError  # noqa: E402
from tests.lockstep import JOINTS, MIDDLE, ROBOT  # noqa: E402
from tests.test_bag import Bag, converted  # noqa: E402


def recorded(path, *, apart, ahead=()):
    """Two seconds; `apart`: the fingers at 33 Hz by themselves. Stamps of the moments `ahead` are an hour late."""
    book = Bag(path)
    honest = book.header
    book.status("never", "", "0")
    for k in range(200):
        if k == 1:
            book.status()
        book.header = lambda frame, k=k: later(book, honest, frame) if k in ahead else honest(frame)
        if apart:
            book.numbers("joint_states", JOINTS, [0.001 * k] * 7)
            if k % 3 == 0:
                book.numbers("joint_states", ["finger"], [0.04])
        else:
            book.numbers("joint_states", [*JOINTS, "finger"], [*[0.001 * k] * 7, 0.04])
        book.header = honest
        book.numbers("objects", ["cube_x"], [0.01 * k])
        book.pose("current_pose", MIDDLE + [0.001 * k, 0, 0])
        book.numbers("setpoint_gripper", ["gripper"], [0.25])
        book.pose("setpoint", MIDDLE + [0.001 * k, 0.005, 0])
        book.time = round(book.time + 0.01, 6)
    return book.close()


def later(book, honest, frame):
    book.time += 3600.0
    header = honest(frame)
    book.time -= 3600.0
    return header


def test_fault_f47_a_bag_whose_fingers_come_apart_becomes_the_episode_that_it_is_together(tmp_path):
    (together,) = converted(recorded(tmp_path / "together", apart=False))
    (apart,) = converted(recorded(tmp_path / "apart", apart=True))
    assert abs(len(together) - len(apart)) <= 1 and len(apart) >= 35 and not apart.meta["aborted"]
    assert (np.diff(apart.obs["stamp/state"]) > 0).all() and apart.meta["drops"] == 0
    joints = apart.obs["state"][:, 9]
    assert np.abs(joints - 0.1 * (apart.obs["stamp/state"] - 100.0)).max() < 0.0021, "those of that moment"


def test_fault_f47_a_gripper_with_a_topic_of_its_own_is_read_there(tmp_path):
    book = Bag(tmp_path / "bag")
    book.status()
    for k in range(100):
        book.numbers("joint_states", JOINTS, [0.001 * k] * 7)
        book.numbers("gripper/joint_states", ["finger"], [0.02])
        book.numbers("objects", ["cube_x"], [0.0])
        book.pose("current_pose", MIDDLE)
        book.numbers("setpoint_gripper", ["gripper"], [0.25])
        book.pose("setpoint", MIDDLE)
        book.time = round(book.time + 0.01, 6)
    robot = replace(ROBOT, gripper=replace(ROBOT.gripper, joint_states="gripper/joint_states"))
    path = book.close()
    (episode,) = bag.episodes(path, robot, "robot.yaml")
    assert len(episode) >= 15
    with pytest.raises(RobotRLError, match="joint_states lacks finger; it has joint1"):
        converted(path)


def test_fault_f40_one_stamp_of_the_future_in_a_bag_costs_one_reading_and_many_end_the_episode_by_name(tmp_path):
    (episode,) = converted(recorded(tmp_path / "one", apart=False, ahead={60}))
    assert len(episode) >= 35 and not episode.meta["aborted"]
    (cut,) = converted(recorded(tmp_path / "many", apart=False, ahead=set(range(60, 200))))
    assert len(cut) < 20 and "stamped 3600.00 s in the future" in cut.meta["aborted"]


def test_fault_f47_a_bag_whose_messages_lack_positions_says_so(tmp_path):
    book = Bag(tmp_path / "bag")
    book.status()
    for _ in range(100):
        book.numbers("joint_states", [*JOINTS, "finger"], [0.1] * 7)
        book.numbers("objects", ["cube_x"], [0.0])
        book.pose("current_pose", MIDDLE)
        book.numbers("setpoint_gripper", ["gripper"], [0.25])
        book.pose("setpoint", MIDDLE)
        book.time = round(book.time + 0.01, 6)
    with pytest.raises(RobotRLError, match="joint_states .*8 names and 7 positions"):
        list(bag.episodes(book.close(), ROBOT, "robot.yaml"))
