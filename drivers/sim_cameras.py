"""The cameras of a simulated robot, in a process of their own: a picture takes longer than the arm's tick.

The simulation leaves its newest look (whatever a picture depends on, as numbers) in a slot, and never waits. The other
process, `publish`, takes what lies there, renders it, and publishes it with the stamp of the moment it shows. It ends
with the simulation; when it dies, that is said, and another one is started.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import parent_process
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from drivers import interrupts
from drivers.messages import image_msg
from drivers.node_process import end_ros, make_node, room_for_pictures, start_ros
from drivers.robot_file import CameraFile, RobotFile
from robot_rl.types import Frame, RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

AGAIN = 5.0  # from one start of the process to the next, at least [s]
END = 2.0  # time that it has to end by itself [s]
NICE = 10  # the arm's tick goes before pictures
LOOK = 0.005  # how often it is looked whether a picture is due [s]


class View(Protocol):
    """Renders a simulated world; see `RobotView` in sim/robot_world.py."""

    def show(self, look: np.ndarray) -> None: ...  # noqa: D102
    def image(self, camera: str, height: int, depth: bool = False) -> np.ndarray: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Slot:
    """The newest look (n,) and its stamp [s], shared by two processes. Neither waits for the other."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._numbers, self._lock = context.RawArray("d", size + 1), context.Lock()
        self._numbers[0] = -np.inf

    def put(self, stamp: float, look: np.ndarray) -> None:
        """Leave it; not where the other is just reading: the next one will do."""
        if self._lock.acquire(block=False):
            numbers = np.frombuffer(self._numbers)
            numbers[0], numbers[1:] = stamp, look
            self._lock.release()

    def get(self) -> tuple[float, np.ndarray] | None:
        """What lies there; None: nothing yet."""
        with self._lock:
            numbers = np.frombuffer(self._numbers).copy()
        return None if numbers[0] == -np.inf else (float(numbers[0]), numbers[1:])


class SimCameras:
    """The simulation's side: gives looks, and keeps the other process alive."""

    def __init__(self, node: Node, robot: RobotFile, make_view: Callable[[], View]) -> None:
        self._node, self._robot, self._make_view = node, robot, make_view
        self._process: Any = None
        self._slot, self._started = Slot(0), -np.inf

    def show(self, stamp: float, look: np.ndarray) -> None:
        """The world looks so at `stamp` [s]. At once."""
        if self._process is None or not self._process.is_alive():
            self._start(len(look))
        self._slot.put(stamp, look)

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(END)
        self._process.kill()
        self._process.join()

    def _start(self, size: int) -> None:
        if time.monotonic() < self._started + AGAIN:
            return
        if self._process is not None:
            how = f"ended with {self._process.exitcode}"
            self._node.get_logger().error(f"the simulated cameras' process {how}; it is started again")
        self._started, self._slot = time.monotonic(), Slot(size)  # who was killed may have left the old one locked
        context = multiprocessing.get_context("spawn")  # OpenGL's and DDS's threads do not survive a fork
        self._process = context.Process(target=publish, args=(self._robot, self._make_view, self._slot), daemon=True)
        with interrupts.kept_from_children():
            self._process.start()


def publish(robot: RobotFile, make_view: Callable[[], View], slot: Slot) -> None:
    """What the other process does, until it or its parent ends."""
    asked = start_ros()
    os.nice(NICE)
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa renders on all cores else, the arm's one too
    view = make_view()
    with room_for_pictures():
        node = make_node("sim_cameras")
    films = [_Film(node, name, camera) for name, camera in simulated(robot).items()]
    parent = parent_process()
    while not asked() and parent is not None and parent.is_alive():
        if (seen := slot.get()) is not None:
            for film in films:
                film.take(view, *seen)
        time.sleep(LOOK)
    view.close()
    end_ros(node)


class _Film:
    """One camera's pictures."""

    def __init__(self, node: Node, name: str, camera: CameraFile) -> None:
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image

        self._name, self._camera = name, camera
        self._number, self._due, self._stamp = 0, -np.inf, -np.inf
        self._publisher = node.create_publisher(Image, camera.topic, qos_profile_sensor_data)

    def take(self, view: View, stamp: float, look: np.ndarray) -> None:
        """Publish a picture of `look`, if one is due and there is something new to see."""
        if (now := time.monotonic()) < self._due or stamp == self._stamp:
            return
        self._due, self._stamp = max(self._due + 1.0 / self._camera.rate, now), stamp
        self._number += 1
        view.show(look)
        image = view.image(self._camera.device.partition(":")[2], self._camera.height, self._camera.depth)
        self._publisher.publish(image_msg(Frame(stamp, image, self._number), self._name))


def simulated(robot: RobotFile) -> dict[str, CameraFile]:
    """The cameras of the robot's file that a simulation shows; raises where one is none that it can."""
    found = {name: camera for name, camera in robot.cameras.items() if camera.device.startswith("sim:")}
    for name, camera in found.items():
        if camera.height != camera.width:
            raise RobotRLError(f"the simulated camera '{name}' takes square pictures: give it one height and width")
    return found
