"""What every node's process does: tell its own words from ROS's, spin, and end in order when it is asked to."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

LOOK = 0.1  # how often a signal is looked for [s]


def split_ros_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what is ROS's: from --ros-args on."""
    at = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    return arguments[:at], arguments[at:]


def start_ros(arguments: list[str] | None = None) -> Callable[[], bool]:
    """Initialise rclpy; returns what says whether SIGINT or SIGTERM came since.

    The handlers are ours: rclpy's end its context at once, and then the arm cannot be brought to rest any more.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: signals.append(received))
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    return lambda: bool(signals)


def spin(node: Node, until: Callable[[], bool], then: Callable[[], bool] = lambda: True, patience: float = 0.0) -> None:
    """Spin until the one, and on until the other is true too or `patience` [s] is over; then end ROS here."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not until():
        executor.spin_once(timeout_sec=LOOK)
    end = time.monotonic() + patience
    while not then() and time.monotonic() < end:
        executor.spin_once(timeout_sec=LOOK)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
