"""Recordings of a robot's topics as episodes, by the robot's YAML file: rosbag2 folders, .mcap and .db3; without ROS.

The bag is played under a clock of its own into the streams that the recorder node has, and the same rules cut it: an
episode begins with a new lease in `arm_status`, and ends with it, with `world/success`, at the time limit, or where a
stream falls silent. A bag without `arm_status` is one episode. The recorder's marks are services, which no bag holds.

What was asked of the arm is the arm node's `setpoint` and `setpoint_gripper`; where those are not there, what the
controller of the robot's file and its gripper were told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drivers import bag_bounds
from drivers.actions import action_of
from drivers.arm_listener import HISTORY, ArmReadings
from drivers.messages import frame_of, one_number, sound_pose_of, stamp_of, status_of, status_wrong
from drivers.named_numbers import NamedNumbers, names_of
from drivers.observer import Named, Observer, Ticker
from drivers.robot_file import RobotFile
from drivers.sync import Stream
from drivers.take import Lease, Take, lease_in, marked
from robot_rl import bounded_yaml
from robot_rl.formats import guard
from robot_rl.formats.paths import require_contained
from robot_rl.types import Episode, RobotRLError, Target

POSE, JOINTS, WRENCH = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState", "geometry_msgs/msg/WrenchStamped"
IMAGE, BOOL, NUMBERS = "sensor_msgs/msg/Image", "std_msgs/msg/Bool", "std_msgs/msg/Float64MultiArray"
STATUS = "diagnostic_msgs/msg/DiagnosticStatus"
ENDINGS = (".mcap", ".db3")

Topics = dict[str, tuple[str, Callable[[Any], None]]]  # name -> type, and what takes its messages


def is_bag(path: Path) -> bool:
    """Whether `path` looks like one."""
    return path.suffix in ENDINGS or (path / "metadata.yaml").is_file()


def episodes(path: Path, robot: RobotFile, name: str) -> Iterator[Episode]:
    """The episodes in the bag at `path` of the robot of the file `name`, one at a time.

    Raises where the bag is damaged, lacks a topic, or holds another robot's; the message says what it has.
    """
    with _opened(path) as reader:
        player = Player(reader, robot, str(path))
        count = 0
        for episode in player.episodes():
            count += 1
            episode.meta |= {"robot": name, "bag": str(path)}
            yield episode
        if not count:
            raise RobotRLError(f"{path} holds no episode of the robot {name}: {player.problem}")


class Player:
    """Implements `Clock`, by the times at which messages were recorded: sleeping plays the bag."""

    def __init__(self, reader: Any, robot: RobotFile, name: str) -> None:
        self._opening, self._time, self._why = np.nan, -np.inf, ""
        self.robot, self.arm, self.success = robot, ArmReadings(robot, self), False
        self.setpoints = self._stream("setpoint", 0.0)
        self.lease = Lease(name="before the bag")  # so that one that has begun already counts
        self.observer = Observer(robot, self.arm.readings, *self._streams())
        self._messages = self._played(reader, self._chosen(reader, name))
        self._next = next(self._messages, None)

    @property
    def problem(self) -> str:
        """Why there was no episode."""
        silent = self.observer.silent(self._time)
        why = self.arm.problem or self._why or silent
        return why or f"nobody commanded the arm ({self.lease.why})"

    def now(self) -> float:
        """[s]"""
        return self._time

    def steady(self) -> float:
        """The bag's time, which is that of receiving: it does not step [s]."""
        return self._time

    def stepped(self) -> float:
        """Never [s]."""
        return 0.0

    def sleep_until(self, moment: float) -> None:
        """Play everything that was recorded up to then."""
        while self._next is not None and self._next[0] <= moment + 1e-9:
            self._step()
        self._time = max(self._time, moment)

    def episodes(self) -> Iterator[Episode]:
        """All that there are."""
        seen = 0
        while self._next is not None:
            self._step()
            lease = self.lease
            if lease.source and lease.number != seen and not self._wrong():
                seen = lease.number
                episode = self._episode(lease)
                if episode is not None:
                    yield episode

    def _episode(self, lease: Lease) -> Episode | None:
        """One, from now on."""
        ticker = Ticker(self, 1.0 / self.robot.rate)
        ticker.begin()
        take = Take(self.observer.observe(), self.arm.readings.last, lease)
        take.missed = self._time - lease.since
        unsolved, ended, aborted, mark = not self.success, "", "", False
        while not ended:
            ticker.wait()
            over = not self.lease.source or self.lease.number != take.lease.number
            if self._next is None:
                ended = "the bag ended"
            elif over and not self.observer.silent(self._time):
                ended = self.lease.why or "another lease began"
            elif wrong := self._wrong():
                ended = aborted = wrong
            else:
                action = action_of(self.setpoints.last, take.here, self.observer.spec.action)
                take.add(action, self.lease.source, self.observer.observe(), self.arm.readings.last)
                mark = unsolved and self.success
                ended = "the world said success" if mark else ""
                ended = ended or ("the time limit" if len(take) >= self.observer.spec.max_steps else "")
            unsolved |= not self.success
        if not len(take):
            self._why = ended
            return None
        episode = take.episode({"late": ticker.late, "ended": ended, "aborted": aborted})
        return marked(episode, "success") if mark else episode

    def _wrong(self) -> str:
        """Why nothing can be recorded now."""
        self._why = self.observer.silent(self._time) or self.setpoints.wrong(self.robot.limits.age)
        return self._why

    def _streams(self) -> tuple[dict[str, Stream[Named]], dict[str, Stream[np.ndarray]]]:
        robot = self.robot
        used = {g.source for g in robot.state} - {"position", "rot6d", "joints"}
        sensors: dict[str, Stream[Named]] = {
            n: self._stream(n, s.latency) for n, s in robot.sensors.items() if n in used
        }
        if "joint_states" in used:
            sensors["joint_states"] = self.arm.numbers
        seen = {n: c for n, c in robot.cameras.items() if c.observed}
        return sensors, {n: self._stream(n, c.latency, 8) for n, c in seen.items()}

    def _stream(self, name: str, latency: float, length: int = HISTORY) -> Stream[Any]:
        return Stream(name, length, latency, self, self.robot.limits.ahead)

    def _topics(self) -> Topics:
        """What a bag must hold of the robot."""
        robot, arm = self.robot, self.arm
        topics: Topics = {robot.joint_states: (JOINTS, arm.take_joints), robot.pose: (POSE, arm.take_pose)}
        if robot.gripper.joint_states:
            topics[robot.gripper.joint_states] = (JOINTS, arm.take_fingers)
        if robot.wrench:
            topics[robot.wrench] = (WRENCH, arm.take_wrench)
        for name, stream in self.observer.sensors.items():
            if name != "joint_states":
                topic = robot.sensors[name].topic
                merged = NamedNumbers(topic, names_of(robot, name), self, robot.limits.ahead)
                topics[topic] = (JOINTS, partial(merged.feed, stream))
        for name, pictures in self.observer.cameras.items():
            topics[robot.cameras[name].topic] = (IMAGE, _pictures_into(pictures))
        return topics

    def _asked(self, held: set[str]) -> Topics:
        """What says what was asked of the arm; `held` are the bag's topics."""
        robot = self.robot
        told: Topics = {"setpoint_gripper": (JOINTS, self._take_gripper), "setpoint": (POSE, self._take_setpoint)}
        if "setpoint" in held or robot.controller.profile != "cartesian_impedance":
            return told
        if robot.controller.topic not in held:
            return told
        return {
            robot.gripper.topic: (NUMBERS, self._take_fingers),
            robot.controller.topic: (POSE, self._take_setpoint),
        }

    def _chosen(self, reader: Any, path: str) -> dict[str, Callable[[Any], None]]:
        """Who takes the messages of the bag's topics; raises where one is missing or of another type."""
        types = {c.topic: c.msgtype for c in reader.connections}
        room = self._namespace(types, path)
        held = {topic.removeprefix(room) for topic in types if topic.startswith(room)}
        needed = {**self._topics(), **self._asked(held)}
        has = f"; it has {', '.join(f'{t} ({kind})' for t, kind in sorted(types.items()))}"
        if missing := [topic for topic in needed if topic not in held]:
            raise RobotRLError(f"{path} lacks the topics {', '.join(room + t for t in missing)}{has}")
        optional: Topics = {"arm_status": (STATUS, self._take_status), "world/success": (BOOL, self._take_success)}
        wanted = {**needed, **{t: v for t, v in optional.items() if t in held}}
        for topic, (kind, _) in wanted.items():
            if types[room + topic] != kind:
                raise RobotRLError(f"{path}: {room + topic} is {types[room + topic]}, and {kind} is read{has}")
        if "arm_status" not in held:
            print(f"{path}: there is no {room}arm_status, so who commanded is not known: it is read as one episode")
            self.lease = Lease(1, "the bag", "the bag")
        return {room + topic: take for topic, (_, take) in wanted.items()}

    def _namespace(self, types: dict[str, str], path: str) -> str:
        """The prefix of the robot's topics in the bag, with its slash."""
        rooms = [t.removesuffix(self.robot.pose) for t in types if t.endswith(f"/{self.robot.pose}")]
        if len(rooms) == 1:
            return rooms[0]
        why = f"several robots: {', '.join(rooms)}" if rooms else f"no topic {self.robot.pose}"
        raise RobotRLError(f"{path} holds {why}; it has {', '.join(sorted(types))}. Name another file with --robot")

    def _played(self, reader: Any, takes: dict[str, Callable[[Any], None]]) -> Iterator[tuple[float, Any, Any]]:
        chosen = [c for c in reader.connections if c.topic in takes]
        for connection, moment, raw in reader.messages(chosen):
            yield moment * 1e-9, takes[connection.topic], reader.deserialize(raw, connection.msgtype)

    def _step(self) -> None:
        """Play one message."""
        assert self._next is not None
        moment, take, message = self._next
        self._time = max(self._time, moment)
        take(message)
        self._next = next(self._messages, None)

    def _take_gripper(self, message: Any) -> None:
        if np.isfinite(opening := one_number(message.position)):
            self._opening = opening

    def _take_fingers(self, message: Any) -> None:
        fingers = self.robot.gripper
        if np.isfinite(position := one_number(message.data)):
            self._opening = (position - fingers.closed) / (fingers.open - fingers.closed)

    def _take_setpoint(self, message: Any) -> None:
        stamp, pose = stamp_of(message.header), sound_pose_of(message)
        if np.isfinite(self._opening) and pose is not None:
            self.setpoints.add(stamp, Target(stamp, *pose, self._opening, ""))

    def _take_status(self, message: Any) -> None:
        said, stopped = status_of(message)
        if status_wrong(said, ("holder", "lease")):  # old bags have no more
            return
        self.lease = self.lease.then(stopped, said["holder"], lease_in(said), self._time)

    def _take_success(self, message: Any) -> None:
        self.success = message.data


def _pictures_into(stream: Stream[np.ndarray]) -> Callable[[Any], None]:
    def take(message: Any) -> None:
        frame = frame_of(message)
        stream.add(frame.stamp, frame.image)

    return take


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A reader of the bag; raises where it is damaged."""
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.rosbag2 import ReaderError
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise RobotRLError(f"bags need rosbags: pip install 'robot-rl[bags]' ({error})") from error
    if path.is_dir():
        require_contained(path)
    if (about := path / "metadata.yaml").is_file():
        bounded_yaml.require_bounded(about, "the bag's", times=20)
    bag_bounds.require_bounded(path)
    try:
        with (
            guard.reading(f"the bag {path}", (AnyReaderError, ReaderError, OSError)),
            AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader,
        ):
            bag_bounds.require_plain_messages(reader, path)
            yield reader
    except (AnyReaderError, ReaderError, OSError) as error:
        raise RobotRLError(f"the bag {path} cannot be read ({error}): {bag_bounds.MEND}") from error
