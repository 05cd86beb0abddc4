"""Fingers over DDS: what they hold is kept by a real arm node, and an action that comes to nothing is told."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from drivers.check_gripper import actions
from drivers.gripper import TRIES, GripperAction
from tests.ros.rig import MIDDLE, Rig

pytestmark = pytest.mark.timeout(90)
PART = 0.45  # of the way from closed to open


def set_scale(rig, value):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    client = rig.node.create_client(SetParameters, "arm_node/set_parameters")
    rig.until(client.service_is_ready, 5, "parameters")
    number = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    future = client.call_async(SetParameters.Request(parameters=[Parameter(name="speed_scale", value=number)]))
    rig.until(future.done, 5, "an answer")
    assert future.result().results[0].successful


def go_home(rig):
    """As its owner: the arm moves while the heart beats."""
    rig.until(lambda: rig.status and rig.value("sees the arm") == "True", 15, "the node sees the arm")
    lease = rig.until(lambda: (answer := rig.call("homing/arm")).success and answer.message, 5, "armed").partition(";")[
        0
    ]

    def is_there():
        rig.beat(int(lease))
        return rig.value("at home") == "True"

    rig.until(is_there, 10, "at home")


def stop_and_reset(rig):
    """A person's stop, and the same person's reset."""
    rig.call("stop")
    rig.until(lambda: rig.value("rests") == "True", 5, "at rest")
    rig.reset()


def test_fault_f42_no_stop_and_no_way_home_opens_what_holds_a_part(node, file, arm_node):
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    rig, told = Rig(node, file), []
    rig.values[-1] = 0.04 * PART
    rig.until(lambda: rig.status and "nobody listens on gripper" in rig.value("fingers"), 10, "nobody is there: told")
    node.create_subscription(Float64MultiArray, rig.robot.gripper.topic, lambda m: told.append(m.data[0]), 10)
    hand = node.create_publisher(JointState, "policy/target_gripper", 1)
    rig.until(lambda: rig.value("fingers") == "", 5, "somebody is there")
    go_home(rig)  # the first arming of the node's life
    stop_and_reset(rig)
    assert not told and rig.value("opening") == "", "nobody asked anything of them"
    rig.arm()
    rig.wish(MIDDLE)
    hand.publish(JointState(position=[0.0]))
    rig.stroll(0.4)
    assert told[-1] == 0.0
    for source in ("policy", "homing", "teleop"):
        stop_and_reset(rig)
        if source == "policy":
            set_scale(rig, 0.5)
        if source == "homing":
            go_home(rig)
        else:
            rig.arm(source)
            rig.stroll(0.3, source=source)
    assert set(told) == {0.0} and rig.value("opening") == "0.0"
    rig.close()


class Aborts:
    """A server of Fibonacci, in place of control_msgs' actions, that takes each goal and aborts it."""

    def __init__(self, context):
        import rclpy
        from rclpy.action import ActionServer
        from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
        from test_msgs.action import Fibonacci

        self.goals, self.node = [], rclpy.create_node("fingers", context=context)
        self.server = ActionServer(self.node, Fibonacci, "fingers", self._run)
        self.executor = MultiThreadedExecutor(2, context=context)
        self.executor.add_node(self.node)

        def spin():
            with suppress(ExternalShutdownException):
                self.executor.spin()

        threading.Thread(target=spin, daemon=True).start()

    def _run(self, handle):
        from test_msgs.action import Fibonacci

        self.goals.append(handle.request.order)
        handle.abort()
        return Fibonacci.Result()

    def close(self):
        self.executor.shutdown(timeout_sec=2)
        self.server.destroy()
        self.node.destroy_node()


def test_fault_f45_an_aborted_goal_and_a_server_that_goes_are_told_within_a_second(node, wait_until):
    from rclpy.action import ActionClient
    from test_msgs.action import Fibonacci

    server = Aborts(node.context)
    client = ActionClient(node, Fibonacci, "fingers")
    gripper = GripperAction(client, lambda opening: Fibonacci.Goal(order=round(100 * opening)), "/fingers")

    def tick(until):
        gripper.send(0.25, time.monotonic())
        return until()

    wait_until(lambda: tick(lambda: server.goals), 20)
    begin = time.monotonic()
    wait_until(lambda: tick(lambda: "was aborted" in gripper.problem), 1.0)
    print(f"told {1000 * (time.monotonic() - begin):.0f} ms after the goal was taken")
    wait_until(lambda: tick(lambda: "given up after 3" in gripper.problem), 5)
    served, _ = actions(node)
    assert [(e.node, e.kind) for e in served["/fingers"]] == [("/fingers", "test_msgs/action/Fibonacci")]
    assert server.goals == [25] * TRIES
    server.close()
    begin = time.monotonic()
    wait_until(lambda: tick(lambda: "no server of the action /fingers" in gripper.problem), 3)
    print(f"the server's end was told after {1000 * (time.monotonic() - begin):.0f} ms")
    client.destroy()
