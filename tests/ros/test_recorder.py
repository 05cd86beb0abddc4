"""The recorder beside a real arm node over real DDS: what it keeps, and what a kill or a full disk costs (F22)."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from drivers.messages import numbers_msg
from drivers.robot_file import load
from drivers.take import Lease
from robot_rl.episodes import EpisodeStore
from robot_rl.types import Episode
from tests.ros.rig import ROBOT, Rig, robot_yaml

pytestmark = pytest.mark.timeout(60)
NEVER = "it was never armed"


class Teleop(Rig):
    """A rig whose person demonstrates while a recorder watches."""

    def watch(self):
        from diagnostic_msgs.msg import DiagnosticStatus
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger

        self.objects = self.node.create_publisher(JointState, "objects", 10)
        self.tracks = self.node.create_timer(0.02, self.track)
        self.told, self.trigger = None, Trigger.Request()
        self.marks = {m: self.node.create_client(Trigger, f"recorder/{m}") for m in ("success", "discard")}
        self.node.create_subscription(DiagnosticStatus, "recorder/status", lambda m: setattr(self, "told", m), 1)
        self.until(lambda: self.told and NEVER in self.told.message, 20, "the recorder hears the arm's node")

    def track(self):
        self.objects.publish(numbers_msg(self.now(), ["cube"], [0.1]))

    def recorder(self, key):
        return next(v.value for v in self.told.values if v.key == key)

    def demonstrate(self, seconds, mark=""):
        """One lease; the mark is given while it runs."""
        self.until(lambda: self.recorder("state") == "waiting", 5, "it waits")
        self.arm("teleop")
        self.stroll(seconds, source="teleop")
        answer = self.marks[mark].call_async(self.trigger) if mark else None  # meanwhile the person goes on
        self.stroll(0.3, speed=0.0, source="teleop")
        assert not mark or "running" in answer.result().message
        self.call("teleop/release")

    def stored(self, episodes):
        self.until(lambda: self.recorder("episodes") == str(episodes), 5, f"{episodes} episodes are stored")


@pytest.fixture
def file(tmp_path):
    cube = {"source": "tracker", "channels": ["cube"], "low": [-2], "high": [2]}
    changes = {"state": [*ROBOT["state"], cube], "sensors": {"tracker": {"topic": "objects"}}}
    return robot_yaml(tmp_path / "robot.yaml", **changes)


@pytest.fixture
def start(spawn, file, tmp_path):
    return lambda *ros, out="store": spawn(
        "-m", "drivers.recorder", "--robot", file, "--out", tmp_path / out, *(["--ros-args", *ros] if ros else [])
    )


@pytest.fixture
def rig(node, file, spawn, start):
    """All is up; nobody commands yet."""
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Teleop(node, file)
    rig.process = start()
    rig.watch()
    yield rig
    rig.close()


def test_a_demonstration_is_kept_as_it_was_asked_and_seen(rig, tmp_path):
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Bool

    sent, fingers = [], rig.node.create_publisher(JointState, "teleop/target_gripper", 1)
    solved = rig.node.create_publisher(Bool, "world/success", 1)
    rig.node.create_subscription(PoseStamped, "setpoint", sent.append, 100)
    rig.arm("teleop")
    fingers.publish(JointState(position=[0.25]))
    rig.stroll(1.5, source="teleop")
    solved.publish(Bool(data=True))
    rig.stroll(0.8, source="teleop")
    assert not rig.stopped  # the arm is not disturbed
    rig.stored(1)
    episode = EpisodeStore.open(tmp_path / "store").read(0)
    T = len(episode)
    assert 15 <= T <= 40 and episode.obs["state"].shape == (T + 1, 4)
    assert episode.success and episode.terminated and not episode.truncated
    assert episode.reward.tolist() == [0.0] * (T - 1) + [1.0] and not episode.intervened.any()
    meta = episode.meta
    assert (meta["source"], meta["robot"], meta["mark"]) == ("teleop", "robot.yaml", "success")
    assert meta["lease"] == rig.value("lease")
    stamps = episode.obs["stamp/state"]
    assert meta["drops"] == np.sum(np.diff(stamps) <= 0) and (np.diff(stamps) >= 0).all()
    targets = episode.obs["state"][:-1, :3] + rig.robot.move * episode.action[:, :3]
    asked = np.array([[m.pose.position.x, m.pose.position.y, m.pose.position.z] for m in sent])
    assert np.ptp(asked[:, 1]) > 0.02
    at = np.array([m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in sent])
    nearest = asked[np.abs(at[None] - stamps[1:, None]).argmin(1)]
    assert np.median(np.abs(targets - nearest)) < 5e-4
    np.testing.assert_allclose(targets, nearest, atol=5e-3)  # 0.05 m/s times what a busy machine delays, and the lag
    assert np.abs(episode.action[:, 3:6]).max() < 1e-3
    assert episode.action[-1, 6] == pytest.approx(0.5, abs=1e-6)  # a quarter open


def test_marks_and_discards_go_to_the_running_episode_or_to_the_last(rig, tmp_path):
    answer = rig.call("recorder/success")
    assert not answer.success and "no episode to mark" in answer.message
    rig.demonstrate(0.5)
    rig.stored(1)
    store = EpisodeStore.open(tmp_path / "store")
    plain = store.read(0)
    assert plain.truncated and not plain.terminated and not plain.success and plain.meta["mark"] == ""
    assert plain.meta["ended"] == "'teleop' let go of it" and plain.meta["aborted"] == ""
    rig.call("recorder/failure")
    rig.until(lambda: "steps, failure" in rig.process.log.read_text(), 5, "it is marked")
    rig.demonstrate(0.5, "discard")
    rig.demonstrate(0.5, "success")
    rig.stored(2)
    rig.call("recorder/discard")  # after its end
    rig.stored(1)
    rig.until(lambda: not rig.call("recorder/discard").success, 3, "the one before is final")
    failed = store.read(0)
    assert failed.terminated and not failed.success and len(failed) == len(plain)


def test_fault_f22_a_kill_costs_the_running_episode_only_and_the_store_goes_on(rig, start, tmp_path):
    rig.demonstrate(0.4)
    rig.stored(1)
    rig.arm("teleop")
    rig.stroll(0.4, source="teleop")
    rig.process.send_signal(signal.SIGKILL)
    rig.process.wait()
    assert [len(e) > 0 for e in EpisodeStore.open(tmp_path / "store")] == [True]
    assert not rig.stopped
    rig.call("teleop/release")
    rig.told = None
    start()
    rig.until(lambda: rig.told and "let go of it" in rig.told.message, 20, "another one hears the arm's node")
    assert rig.recorder("episodes") == "1"
    rig.demonstrate(0.4)
    rig.stored(2)


def test_fault_f22_a_stream_that_falls_silent_ends_the_episode_and_it_is_kept(rig, tmp_path):
    rig.arm("teleop")
    rig.stroll(0.5, source="teleop")
    rig.tracks.cancel()
    rig.stroll(1.2, source="teleop")
    assert not rig.stopped  # it needs no tracker
    rig.until(lambda: "the stream 'tracker' is 0.2" in rig.told.message, 3, "an error that names the stream")
    assert rig.told.level == b"\2"
    rig.stored(1)
    episode = EpisodeStore.open(tmp_path / "store").read(0)
    assert len(episode) > 5 and episode.truncated and not episode.success and "tracker" in episode.meta["aborted"]


def test_fault_f22_a_full_disk_is_refused_and_the_arm_obeys_all_the_same(node, file, spawn, start):
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Teleop(node, file)
    process = start("-p", "free_gib:=1e9")
    rig.watch()
    rig.arm("teleop")
    rig.stroll(0.4, source="teleop")
    rig.until(lambda: "free_gib" in rig.told.message, 5, "it says why")
    assert rig.recorder("state") == "waiting" and rig.recorder("episodes") == "0"
    assert not rig.stopped and process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    rig.close()


def episode_of(spec):
    nothing = np.zeros(1, np.float32)
    obs = {"state": np.zeros((2, len(spec.state)), np.float32), "stamp/state": np.arange(2) / spec.rate}
    obs |= {f"image/{c.name}": np.zeros((2, *c.shape), c.dtype) for c in spec.cameras}
    action = np.zeros((1, len(spec.action)), np.float32)
    return Episode(obs, action, nothing, nothing, np.zeros(1, bool), False, True)


def test_a_store_of_another_robot_and_a_limit_that_is_none_are_refused(start, tmp_path):
    with_limit = start("-p", "free_gib:=-1.0")
    assert with_limit.wait(20) == 2 and "free_gib takes" in with_limit.log.read_text()
    other = replace(load(tmp_path / "robot.yaml"), rate=10.0).spec()
    with EpisodeStore.create(tmp_path / "other", other) as store:
        store.append(episode_of(other))
    process = start(out="other")
    assert process.wait(20) == 2
    assert "this run has 20.0" in process.log.read_text() and "has 10.0" in process.log.read_text()


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ([(NEVER, "", "0"), ("", "teleop", "1"), ("", "teleop", "1"), ("let go", "teleop", "1")], [0, 1, 1, 0]),
        ([("", "teleop", "4"), ("let go", "teleop", "4"), ("", "teleop", "5")], [0, 0, 1]),  # the first began unseen
        ([(NEVER, "", "0"), ("", "homing", "1"), ("", "teleop", "1")], [0, 0, 1]),  # taken over on the way home
        ([(NEVER, "", "0"), ("", "policy", "1"), ("", "teleop", "1"), ("", "policy", "2")], [0, 1, 1, 2]),
        ([(NEVER, "", "0"), ("", "policy", "1"), (NEVER, "", "0"), ("", "policy", "1")], [0, 1, 0, 2]),  # a new node
    ],
)
def test_a_lease_counts_when_it_was_seen_to_begin(said, numbers):
    lease, seen = Lease(), []
    for status in said:
        lease = lease.then(*status, time.monotonic())
        seen.append(lease.number if lease.source else 0)
    assert seen == numbers
