"""A person's tool: says why the arm is stopped, asks in the terminal, and resets it, so that it may be armed again.

    python -m drivers.reset_arm [--ros-args -r __ns:=/left ...]

Nothing moves by it and nobody gets a lease; but a program that waits for it may go on at once. It needs a terminal,
since nobody but a person shall re-arm a stopped arm: no program of this project calls the service `reset`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drivers.messages import status_of
from drivers.node_process import end_ros, make_node, split_ros_arguments, start_ros
from drivers.sound import SENTENCE, excerpt
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

WORD = "reset"  # that has to be typed
PATIENCE = 5.0  # with the arm's node [s]


def main(arguments: list[str] | None = None) -> int:
    """Ask and reset; 0: nothing is left to be reset, 1: the person did not want it, 2: it could not be."""
    own, ros = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    if own:
        print(__doc__)
        return 0 if own in (["-h"], ["--help"]) else 2
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("reset_arm: this asks a person, in a terminal, and there is none here", file=sys.stderr)
        return 2
    try:
        asked = start_ros(ros)
        node = make_node("reset_arm")
        try:
            return _reset(node, asked)
        finally:
            end_ros(node)
    except RobotRLError as error:
        print(f"reset_arm: {error}", file=sys.stderr)
        return 2


def _reset(node: Node, asked: Callable[[], bool]) -> int:
    from diagnostic_msgs.msg import DiagnosticStatus
    from std_srvs.srv import Trigger

    heard: list[Any] = []
    node.create_subscription(DiagnosticStatus, "arm_status", heard.append, 1)
    client = node.create_client(Trigger, "reset")
    _spin(node, lambda: bool(heard) and client.service_is_ready(), asked, "the arm's node says nothing here")
    values, stopped = status_of(heard[-1])
    if values.get("needs reset") != "True":
        print(f"the arm needs no reset: {stopped or values.get('holder', '') + ' commands it'}")
        return 0
    print(f"the arm is stopped: {stopped}")
    print("Is the cause gone, and is everybody out of its reach? Programs that wait may move it at once.")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ours would let it go on reading
    try:
        answer = input(f"Type '{WORD}' to let it be armed again, anything else to leave it stopped: ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip() != WORD or asked():
        print("it stays stopped")
        return 1
    shown, said = heard[-1].message, len(heard)
    _spin(node, lambda: len(heard) > said + 1, asked, "the arm's node says nothing any more")  # not what had waited
    if heard[-1].message != shown:
        raise RobotRLError(f"something else happened meanwhile, so it stays stopped: {status_of(heard[-1])[1]}")
    future = client.call_async(Trigger.Request())
    _spin(node, future.done, asked, "the arm's node did not answer")
    if not future.result().success:
        raise RobotRLError(excerpt(future.result().message, SENTENCE))
    print(excerpt(future.result().message, SENTENCE))
    return 0


def _spin(node: Node, until: Callable[[], bool], asked: Callable[[], bool], otherwise: str) -> None:
    import rclpy

    end = time.monotonic() + PATIENCE
    while not until():
        if time.monotonic() > end or asked():
            raise RobotRLError(f"{otherwise}, as {node.get_namespace()}: is it running, and in this namespace?")
        rclpy.spin_once(node, timeout_sec=0.05)


if __name__ == "__main__":
    sys.exit(main())
