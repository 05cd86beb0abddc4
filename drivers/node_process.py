"""What every node's process does: start ROS, spin, and end in order when it is asked to."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from drivers import interrupts
from drivers.ros_arguments import declare, place, require_known, said_once, split_ros_arguments, told_in_a_line
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

__all__ = [
    "declare",
    "end_ros",
    "init_ros",
    "make_node",
    "place",
    "room_for_pictures",
    "spin",
    "split_ros_arguments",
    "start_ros",
]

LOOK = 0.05  # how often a signal is looked for [s]: an arm on its way home shall have braked within 0.2 s of it
PATIENCE = 5.0  # with DDS, when a process ends [s]
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor>
      <transport_id>memory</transport_id><type>SHM</type><segment_size>16777216</segment_size>
    </transport_descriptor>
    <transport_descriptor><transport_id>network</transport_id><type>UDPv4</type></transport_descriptor>
  </transport_descriptors>
  <participant profile_name="pictures" is_default_profile="true">
    <rtps>
      <userTransports><transport_id>memory</transport_id><transport_id>network</transport_id></userTransports>
      <useBuiltinTransports>false</useBuiltinTransports>
    </rtps>
  </participant>
</profiles>
"""


def start_ros(arguments: list[str] | None = None) -> Callable[[], bool]:
    """Initialise rclpy; returns what says whether SIGINT or SIGTERM came. Raises where there is no ROS, or it says no.

    `arguments` are ROS's, those of the command line where not given. The handlers are ours: rclpy's end its context at
    once, and then the arm cannot be brought to rest any more.
    """
    asked = interrupts.listen()
    init_ros(arguments)
    return asked


def init_ros(arguments: list[str] | None = None) -> None:
    """The same, without the signals."""
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        raise RobotRLError(f"this needs ROS 2: source its setup, or `pip install 'robot-rl[ros]'`: {error}") from error
    given = split_ros_arguments(sys.argv[1:])[1] if arguments is None else arguments
    require_known(given)
    with told_in_a_line(), said_once():
        rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)


def make_node(name: str) -> Node:
    """A node; raises where the command line gives it a name or a parameter that cannot be."""
    import rclpy

    with told_in_a_line():
        return rclpy.create_node(name)


@contextmanager
def room_for_pictures() -> Iterator[None]:
    """The first node made within gets shared memory of 16 MB from Fast DDS, unless the user has settings of their own.

    The default, 0.5 MB, is less than one picture of 640 x 480: on a busy machine more than half of them are lost.
    """
    if any(name in os.environ for name in PROFILE_VARIABLES):
        yield
        return
    with NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(PROFILE)
        file.flush()
        os.environ[PROFILE_VARIABLES[0]] = file.name
        try:
            yield
        finally:
            del os.environ[PROFILE_VARIABLES[0]]


def spin(node: Node, until: Callable[[], bool], then: Callable[[], bool] = lambda: True, patience: float = 0.0) -> None:
    """Spin until the one, and on until the other is true too or `patience` [s] is over; then end ROS here."""
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not until():
        executor.spin_once(timeout_sec=LOOK)
    end = time.monotonic() + patience
    while not then() and time.monotonic() < end:
        executor.spin_once(timeout_sec=LOOK)
    executor.shutdown()
    end_ros(node)


def end_ros(node: Node) -> None:
    """Destroy the last node and end ROS in this process; after 5 s the process ends without it, with 1 and a traceback.

    Fast DDS 2.14 can lock itself up in there where others leave in the same moment, holding Python and one core for
    ever. Signals are remembered to the end: a second one is mostly ros2 launch's, see interrupts.py.
    """
    import rclpy

    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    node.destroy_node()
    rclpy.try_shutdown()
    faulthandler.cancel_dump_traceback_later()
