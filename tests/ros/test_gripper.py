"""Goals of an action over DDS, between this process and a server that takes its time."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from drivers.gripper import GripperAction, goal_of
from drivers.robot_file import GripperFile

pytestmark = pytest.mark.timeout(60)


class Server:
    """Runs each goal until it is cancelled; `goals` and `cancelled` are what it was asked."""

    def __init__(self, node, kind):
        from rclpy.action import ActionServer, CancelResponse
        from rclpy.callback_groups import ReentrantCallbackGroup

        self.goals, self.cancelled, self.closed, self.kind = [], 0, False, kind
        self._server = ActionServer(
            node, kind, "fingers", self.run,
            cancel_callback=lambda _: CancelResponse.ACCEPT, callback_group=ReentrantCallbackGroup(),
        )  # fmt: skip

    def run(self, handle):
        self.goals.append(handle.request)
        while not handle.is_cancel_requested and not self.closed:
            time.sleep(0.01)
        if handle.is_cancel_requested:
            self.cancelled += 1
            handle.canceled()
        else:
            handle.succeed()
        return self.kind.Result()


@pytest.fixture
def serve(node):
    """`serve(kind)`: a server on a node of its own, spun in threads."""
    import rclpy
    from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

    other = rclpy.create_node("fingers", context=node.context)
    executor = MultiThreadedExecutor(3, context=node.context)
    executor.add_node(other)

    def spin():
        with suppress(ExternalShutdownException):
            executor.spin()

    thread, started = threading.Thread(target=spin, daemon=True), []

    def start(kind):
        started.append(Server(other, kind))
        thread.start()
        return started[-1]

    yield start
    for server in started:
        server.closed = True
    time.sleep(0.1)
    executor.shutdown(timeout_sec=2)
    other.destroy_node()


def fibonacci():
    """An action that ROS's wheels bring, in place of control_msgs' own."""
    from test_msgs.action import Fibonacci

    return Fibonacci, lambda opening: Fibonacci.Goal(order=round(100 * opening)), lambda goal: goal.order / 100


def gripper_command():
    actions = pytest.importorskip("control_msgs.action", reason="NOT TESTED: control_msgs is not installed")
    file = GripperFile("finger", 0.0, 0.04, "fingers", "gripper_command")
    make = partial(goal_of, actions.GripperCommand, file)
    return actions.GripperCommand, make, lambda goal: goal.command.position / 0.04


@pytest.mark.parametrize("action", [fibonacci, gripper_command])
def test_the_newest_wish_replaces_the_goal_that_runs_and_no_tick_waits(node, serve, wait_until, action):
    from rclpy.action import ActionClient

    kind, make, opening_of = action()
    server, client = serve(kind), ActionClient(node, kind, "fingers")
    gripper, longest = GripperAction(client, make), [0.0]

    def tick(opening):
        begin = time.monotonic()
        gripper.send(opening, begin)
        longest[0] = max(longest[0], time.monotonic() - begin)

    def asked(opening, count):
        tick(opening)
        return len(server.goals) == count

    wait_until(lambda: asked(1.0, 1), 20)
    for _ in range(20):
        wait_until(lambda: asked(1.0, 1), 1)
    wait_until(lambda: asked(0.0, 2), 5)
    wait_until(lambda: asked(0.5, 3), 5)
    assert [opening_of(goal) for goal in server.goals] == pytest.approx([1.0, 0.0, 0.5])
    wait_until(lambda: server.cancelled == 2, 2)  # and the last one runs on
    print(f"the longest call took {1000 * longest[0]:.1f} ms")
    assert longest[0] < 0.1
    client.destroy()
