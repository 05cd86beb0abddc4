"""A person demonstrates on the simulated robot over DDS: a twist moves it, the keys of a terminal mark the episodes."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from robot_rl.episodes import EpisodeStore
from tests.terminal import Typed

pytestmark = pytest.mark.timeout(240)
ROBOT = Path(__file__).parents[2] / "launch/params/sim_panda_lift.yaml"
CLI = ("-m", "robot_rl.cli")


class Stick:
    """Publishes TwistStamped at 50 Hz from a thread while `speed` (3,) [m/s] is set; it lets go with a zero."""

    def __init__(self, node):
        from geometry_msgs.msg import TwistStamped

        self._publisher, self.speed, self._end = node.create_publisher(TwistStamped, "stick", 10), None, False
        self._before = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._end:
            speed, before = self.speed, self._before
            if speed is not None or before is not None:
                message = self._publisher.msg_type()
                linear = message.twist.linear
                linear.x, linear.y, linear.z = map(float, speed or (0, 0, 0))
                self._publisher.publish(message)
            self._before = speed
            time.sleep(0.02)

    def close(self):
        self._end = True
        self._thread.join()


def said(process, words):
    return len(re.findall(words, process.log.read_text()))


def test_a_twist_and_keys_record_episodes_on_the_robot(spawn, node, wait_until, tmp_path):
    store = tmp_path / "mine"
    spawn(*CLI, "simulate", "--robot", ROBOT)
    arm = spawn("-m", "drivers.arm_node", "--robot", ROBOT)
    where = ("--robot", ROBOT, "--device", "twist:stick")
    collect = ("collect", "--out", store, *where, "--episodes", 2, "--max-steps", 400)
    with closing(Typed(*collect)) as typed, closing(Stick(node)) as stick:
        at = typed.until("WAITING: 0 of 2", 120)
        stick.speed = (0.1, 0, 0)
        time.sleep(1.0)
        assert not said(arm, "teleop/arm")  # nothing moves before a start
        for number, speed in enumerate([(0, 0.4, 0), (0, 0, 0.4)]):
            stick.speed = None
            typed.press("\n")
            at = typed.until("move to begin", 20, at)
            assert said(arm, r"teleop/arm: \d") == number + 1
            stick.speed = (np.nan, 0, 0)
            time.sleep(0.5)  # no number moves nothing, and what comes after it must begin from rest
            stick.speed = (0, 0, 0)
            time.sleep(0.2)
            stick.speed = speed
            at = typed.until(r"RECORDING.* (1[5-9]|[2-9]\d) steps", 20, at)
            stick.speed = None  # a zero is the dead-man let go, and silence after it
            at = typed.until("free", 5, at)
            typed.press("y")
            at = typed.until(f"{number + 1} of 2", 20, at)
        assert typed.wait(60) == 0, typed.shown
    assert said(arm, "policy/arm: ") == 0
    episodes = list(EpisodeStore.open(store))
    assert [e.meta["mark"] for e in episodes] == ["success"] * 2
    for episode, axis in zip(episodes, (1, 2), strict=True):
        moved = episode.obs["state"][-1, :3] - episode.obs["state"][0, :3]
        assert moved[axis] > 0.03 and np.abs(np.delete(moved, axis)).max() < 0.5 * moved[axis]
        assert np.median(episode.action[:12, axis]) > 0.1
        assert (np.diff(episode.obs["stamp/state"]) > 0).all() and episode.meta["device"] == "twist:stick"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_up_ends_the_episode_and_not_the_arm(spawn, node, wait_until, small_disk):
    store, ballast = small_disk / "mine", small_disk / "ballast"
    spawn(*CLI, "simulate", "--robot", ROBOT)
    arm = spawn("-m", "drivers.arm_node", "--robot", ROBOT)
    where = ("--robot", ROBOT, "--device", "twist:stick", "--free-gib", 0.1)
    with closing(Typed("collect", "--out", store, *where, "--episodes", 2)) as typed, closing(Stick(node)) as stick:
        at = typed.until("WAITING: 0 of 2", 120)
        typed.press("\n")
        at = typed.until("move to begin", 20, at)
        stick.speed = (0, 0, 0)
        time.sleep(0.2)
        stick.speed = (0, 0, 0.1)
        at = typed.until(r"RECORDING.* 1\d steps", 20, at)
        ballast.write_bytes(bytes(210 * 2**20))  # somebody else's
        at = typed.until("are to stay free: success, failure or discard", 10, at)
        stick.speed = None
        typed.press("y")
        at = typed.until("episode 0 stored: success", 10, at)
        typed.press("\n")
        at = typed.until("WAITING: 1 of 2.*are to stay", 10, at)
        ballast.unlink()
        typed.press("\n")
        at = typed.until("move to begin", 20, at)  # the arm was held meanwhile, and obeys again
        typed.press("q")
        assert typed.wait(60) == 0, typed.shown
    assert said(arm, r"teleop/arm: \d") == 2 and arm.poll() is None
    (episode,) = EpisodeStore.open(store)
    assert len(episode) >= 10 and episode.meta["mark"] == "success"
    assert episode.obs["state"][-1, 2] > episode.obs["state"][0, 2] + 0.005


def test_a_person_takes_over_from_a_policy_and_the_mask_says_when(spawn, node, wait_until, lift_policy, tmp_path):
    store, robot = tmp_path / "episodes", tmp_path / "robot.yaml"
    robot.write_text(ROBOT.read_text().replace("max_steps: 100", "max_steps: 600"))
    spawn(*CLI, "simulate", "--robot", robot)
    arm = spawn("-m", "drivers.arm_node", "--robot", robot)
    wait_until(lambda: node.count_publishers("current_pose"), 150)
    deploy = ("deploy", "--robot", robot, "--agent", lift_policy, "--seed", 0, "--out", store, "--teleop", "keyboard")
    with closing(Typed(*deploy)) as typed:
        at = typed.until(r"CORRECTING.* ([3-9]\d) steps", 120)
        at = typed.until(r"HELD \| taken over in (1[5-9]|[2-9]\d) of", 20, at, keep="r")
        at = typed.until(r"free \| taken over", 5, at)
        typed.read(0.5)  # the policy goes on
        typed.press("y")
        typed.until(r"success after \d+ steps, taken over in \d+ of them", 20, at)
        assert typed.wait(30) == 0, typed.shown
    assert said(arm, "policy/arm: ") == 1
    (episode,) = EpisodeStore.open(store)
    mine = np.flatnonzero(episode.intervened)
    assert episode.success and not episode.meta["aborted"] and mine[0] >= 29 and mine[-1] < len(episode) - 3
    assert len(mine) >= 15 and np.median(episode.action[mine, 2]) > 0.05 > np.median(episode.action[: mine[0], 2])
