"""The node that only watches: whoever commands the arm, person or policy, what is seen and asked becomes episodes.

    python -m drivers.recorder --robot ROBOT.yaml --out STORE [--ros-args -p free_gib:=1.0 ...]

An episode begins when `arm_status` shows a new lease of a source, and ends with that lease, at the time limit, or when
it is marked: `recorder/success` and `recorder/failure` end it, `recorder/discard` forgets it (std_srvs/Trigger); where
none runs they mean the last one, until the next begins. `world/success` of a simulation marks success by itself. An
action is what the arm node really asked of the arm (its `setpoint`) between two observations, counted from where the
arm was measured at the first. An episode is stored as soon as it ends, so a kill costs the running one at most; run
again with the same STORE to go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers import interrupts, robot_file
from drivers.actions import action_of
from drivers.arm_listener import HISTORY
from drivers.messages import one_number, sound_pose_of, stamp_of, status_of, status_wrong
from drivers.node_process import declare, end_ros, make_node, place, split_ros_arguments, start_ros
from drivers.observer import Clock, Observer, Ticker
from drivers.robot_file import RobotFile
from drivers.ros_robot import RosClock, RosStreams, spin_in_thread
from drivers.subscriptions import NodeClocks
from drivers.sync import Stream
from drivers.take import Lease, Mark, Take, lease_in, marked
from robot_rl.episodes import GIB, EpisodeStore
from robot_rl.types import Episode, Obs, RobotRLError, Target

if TYPE_CHECKING:
    from rclpy.node import Node

MARKS: tuple[Mark, ...] = ("success", "failure", "discard")
LOOK = 0.01  # how often a new lease is looked for [s]
PATIENCE = 1.0  # for the first setpoint of a lease [s]
LATE = 0.5  # a beginning that comes so long after that of its lease is told [s]
STATUS = 0.5  # period [s]


class Recorder:
    """Makes episodes and stores them, a `turn` at a time. Other threads only tell it the `lease` and ask for a mark.

    `free` bytes stay free on the disk. `solved()` is what a simulated world says; `asked()` whether to end.
    """

    def __init__(
        self,
        observer: Observer,
        setpoints: Stream[Target],
        clock: Clock,
        store: EpisodeStore,
        log: Any,
        *,
        free: float,
        solved: Callable[[], bool],
        asked: Callable[[], bool],
        meta: dict[str, Any],
    ) -> None:
        self.observer, self.setpoints, self.clock, self.store = observer, setpoints, clock, store
        self.lease = Lease()
        self.take: Take | None = None  # the running episode
        self.error = ""  # why the last episode was not recorded to its end
        self.beats: deque[float] = deque(maxlen=40)  # of recording, by the steady clock [s]
        self._log, self._free, self._solved, self._asked, self._meta = log, free, solved, asked, meta
        self._ticker = Ticker(clock, 1.0 / observer.spec.rate)
        self._asked_for: deque[Mark] = deque()  # and not done yet
        self._seen = 0  # the number of the last lease that had its chance
        self._last: Episode | None = None  # to which a mark may still be given
        self._stored = False  # it is

    def ask(self, mark: Mark) -> str:
        """Mark the running episode, or the last one, at the next turn; says which. Raises where there is none."""
        if self.take is None and self._last is None:
            raise RobotRLError(f"there is no episode to mark: '{mark}' goes to a running one, or to the one just ended")
        self._asked_for.append(mark)
        return f"{mark}: the {'last' if self.take is None else 'running'} episode"

    def turn(self) -> None:
        """One period of the episode; or, where none runs, a moment of waiting for one."""
        if step := self.clock.stepped():
            self.observer.forget()
            self.setpoints.clear()
            if self.take is not None:
                self._end(self.take, self._next_mark(), f"the clock stepped by {step:+.2f} s", aborted=True)
                return
        if self.take is not None:
            self._record(self.take)
            return
        mark = self._next_mark()
        if mark and self._last is not None:
            self._amend(self._last, mark)
        lease = self.lease
        told = not self.setpoints.wrong(self.observer.robot.limits.age, self.clock.now())
        told |= time.monotonic() > lease.since + PATIENCE
        if lease.source and lease.number != self._seen and told:
            self._begin(lease)
        else:
            time.sleep(LOOK)

    def close(self) -> None:
        """Store the running episode, as far as it went."""
        if self.take is not None:
            self._end(self.take, self._next_mark(), "the recorder was ended", aborted=True)

    @property
    def words(self) -> str:
        """What it is about."""
        take, lease = self.take, self.lease
        if take is not None:
            return f"recording '{take.lease.source}'"
        had = f"'{lease.source}' has had its episode, or was armed before the recorder looked; release and arm it again"
        return f"waiting: {had if lease.source else lease.why}"

    @property
    def rate(self) -> float:
        """Of the recent ticks [Hz]; 0 where there are none."""
        beats = list(self.beats)
        return (len(beats) - 1) / (beats[-1] - beats[0]) if len(beats) > 1 else 0.0

    def _next_mark(self) -> Mark:
        return self._asked_for.popleft() if self._asked_for else ""

    def _begin(self, lease: Lease) -> None:
        self._seen, self._last, self.error = lease.number, None, self._wrong(0)
        if not self.error:
            self.take = self._first(lease)
        if self.error:
            self._log.error(f"the lease {lease.name} of '{lease.source}' is not recorded: {self.error}")

    def _first(self, lease: Lease) -> Take | None:
        self.beats.clear()
        self._ticker.begin()
        obs = self._observe()
        if obs is None:
            return None
        take = Take(obs, self.observer.readings.last, lease)
        take.late_before, take.unsolved = self._ticker.late, not self._solved()
        if take.missed > LATE:
            self._log.warning(f"the first {take.missed:.1f} s of lease {lease.name} were missed")
        self._log.info(f"recording '{lease.source}', lease {lease.name}")
        return take

    def _record(self, take: Take) -> None:
        self._ticker.wait()
        if self._asked():
            return
        mark, lease = self._next_mark(), self.lease
        over = not lease.source or lease.number != take.lease.number
        if over and not self.observer.silent(self.clock.now()):  # else that is why the arm was stopped
            self._end(take, mark, lease.why or "another lease began")
        elif wrong := self._wrong(take.bytes) or self._add(take, lease.source):
            self._end(take, mark, wrong, aborted=True)
        elif mark or (take.unsolved and self._solved()):
            self._end(take, mark or "success", "it was marked" if mark else "the world said success")
        elif len(take) >= self.observer.spec.max_steps:
            self._end(take, mark, "the time limit")
        take.unsolved |= not self._solved()

    def _add(self, take: Take, source: str) -> str:
        """One step; why there can be none."""
        action = action_of(self.setpoints.last, take.here, self.observer.spec.action)
        obs = self._observe()
        if obs is None:
            return self.error
        take.add(action, source, obs, self.observer.readings.last)
        self.beats.append(time.monotonic())
        return ""

    def _observe(self) -> Obs | None:
        try:
            return self.observer.observe()
        except RobotRLError as error:
            self.error = str(error)
            return None

    def _wrong(self, held: int) -> str:
        """Why nothing can be recorded now, with `held` bytes still to be stored."""
        if silent := self.observer.silent(self.clock.now()):
            return silent
        if silent := self.setpoints.wrong(self.observer.robot.limits.age, self.clock.now()):
            return f"the arm's node tells no setpoint: {silent}"
        if lacking := self.store.lacks_room(self._free, held):
            return f"{lacking} (free_gib)"
        return ""

    def _end(self, take: Take, mark: Mark, ended: str, *, aborted: bool = False) -> None:
        self.take = None
        if mark == "discard" or not len(take):
            self._log.info(f"lease {take.lease.name}: nothing is kept of {len(take)} steps, {mark or ended}")
            return
        if aborted:
            self.error = ended
            self._log.error(f"recording stopped after {len(take)} steps: {ended}")
        late = self._ticker.late - take.late_before
        meta = {"late": late, "ended": ended, "aborted": ended if aborted else "", **self._meta}
        episode = take.episode(meta)
        self._last = marked(episode, mark) if mark else episode
        self._store(self._last)

    def _store(self, episode: Episode) -> None:
        try:
            index, self._stored = self.store.append(episode), True
        except (RobotRLError, OSError) as error:
            self._stored, self.error = False, str(error)
            self._log.error(f"the last episode is not stored; mark it to try again: {error}")
            return
        words = f"{len(episode)} steps, {episode.meta['mark'] or 'no mark'}, ended by: {episode.meta['ended']}"
        self._log.info(f"episode {index}: {words}")

    def _amend(self, episode: Episode, mark: Mark) -> None:
        """Give the last episode its mark. Only a kill between the two lines that store it anew would lose it."""
        if self._stored:
            self.store.truncate(len(self.store) - 1)
            self._stored = False
        if mark == "discard":
            self._last = None
            self._log.info(f"the last episode was discarded; {len(self.store)} are stored")
            return
        self._last = marked(episode, mark)
        self._store(self._last)


class RecorderNode:
    """Joins topics and services to a `Recorder`."""

    def __init__(self, node: Node, robot: RobotFile, store: EpisodeStore, name: str, asked: Callable[[], bool]) -> None:
        streams = RosStreams(node, robot)
        self.node, self._opening = node, np.nan
        self._setpoints = Stream[Target]("setpoint", HISTORY, 0.0, NodeClocks(node), robot.limits.ahead)
        clock = RosClock(node, woken=lambda: asked() or not self.recorder.lease.source)
        self.recorder = Recorder(
            streams.observer(), self._setpoints, clock, store, node.get_logger(), free=self._declare() * GIB,
            solved=lambda: streams.success, asked=asked, meta={"robot": name},
        )  # fmt: skip
        self._connect()
        # The first line of a node's log takes up to a second on a busy machine: it shall not fall into an episode.
        node.get_logger().info(f"{store.path} holds {len(store)} episodes")

    def publish_status(self) -> None:
        """What is recorded, and how well."""
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

        recorder, take = self.recorder, self.recorder.take
        age = recorder.observer.age(recorder.clock.now())
        values = {
            "state": "waiting" if take is None else "recording", "episodes": len(recorder.store),
            "steps": 0 if take is None else len(take), "rate [Hz]": f"{0.0 if take is None else recorder.rate:.1f}",
            "age [s]": f"{age:.3f}", "drops": 0 if take is None else take.drops,
        }  # fmt: skip
        level = DiagnosticStatus.ERROR if recorder.error else DiagnosticStatus.OK
        status = DiagnosticStatus(level=level, name="recorder", message=recorder.error or recorder.words)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self._status.publish(status)

    def _declare(self) -> float:
        from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor

        about = "GiB that stay free on the disk of the store: recording stops before; read at the start"
        scale = FloatingPointRange(from_value=0.1, to_value=1e9, step=0.0)
        descriptor = ParameterDescriptor(description=about, floating_point_range=[scale], read_only=True)
        return float(declare(self.node, "free_gib", 1.0, descriptor))

    def _connect(self) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseStamped
        from rclpy.clock import Clock
        from rclpy.clock_type import ClockType
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger

        node = self.node
        node.create_subscription(JointState, "setpoint_gripper", self._take_gripper, 10)
        node.create_subscription(PoseStamped, "setpoint", self._take_setpoint, 10)
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 10)
        for mark in MARKS:
            node.create_service(Trigger, f"recorder/{mark}", partial(self._answer, mark))
        self._status = node.create_publisher(DiagnosticStatus, "recorder/status", 1)
        node.create_timer(STATUS, self.publish_status, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _take_gripper(self, message: Any) -> None:
        if np.isfinite(opening := one_number(message.position)):  # raised here it would end the thread that spins
            self._opening = opening

    def _take_setpoint(self, message: Any) -> None:
        stamp, pose = stamp_of(message.header), sound_pose_of(message)
        if np.isfinite(self._opening) and pose is not None:
            self._setpoints.add(stamp, Target(stamp, *pose, self._opening, ""))

    def _take_status(self, message: Any) -> None:
        said, stopped = status_of(message)
        if status_wrong(said):
            return
        lease = self.recorder.lease.then(stopped, said["holder"], lease_in(said), time.monotonic())
        self.recorder.lease = lease

    def _answer(self, mark: Mark, _request: Any, response: Any) -> Any:
        try:
            response.success, response.message = True, self.recorder.ask(mark)
        except RobotRLError as error:
            response.success, response.message = False, str(error)
        return response


def run(robot: RobotFile, name: str, store: EpisodeStore, asked: Callable[[], bool]) -> None:
    """Record until `asked()`."""
    with ExitStack() as stack:
        stack.callback(end_ros, node := make_node("recorder"))
        recorder = RecorderNode(node, robot, store, name, asked).recorder
        stack.callback(spin_in_thread(node))
        while not asked():
            recorder.turn()
        recorder.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is asked to end."""
    interrupts.listen()
    own, ros = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", type=place, required=True, help="the robot's YAML file")
    parser.add_argument("--out", type=place, required=True, help="the store of episodes; one that is there goes on")
    given = parser.parse_args(own)
    try:
        robot = robot_file.load(given.robot)
        asked = start_ros(ros)  # what it refuses is told before a store is made
        with EpisodeStore.begun(given.out, robot.spec()) as store:
            run(robot, given.robot.name, store, asked)
    except RobotRLError as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
