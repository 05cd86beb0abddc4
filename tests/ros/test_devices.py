"""Devices that are somebody else's publishers, over DDS: a joystick, and a leader arm like the simulated Panda."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from drivers import robot_file, ros_devices
from drivers.devices import open_device
from drivers.kinematics import from_file
from drivers.messages import numbers_msg, pose_msg
from drivers.teleop import DeviceLost
from robot_rl.types import RobotRLError

ROBOT = robot_file.load(Path(__file__).parents[2] / "launch/params/sim_panda_lift.yaml")
READY = np.array([0.0, 0.2, 0.0, -2.0, 0.0, 2.2, 0.8])


@pytest.fixture(autouse=True)
def ended(domain):
    """The devices' own nodes are in this process, and shall be in the domain of their test."""
    import rclpy

    yield
    rclpy.try_shutdown()


@pytest.fixture
def publish(node, domain):
    """`publish(topic, make)` sends what `make()` gives at 50 Hz from a thread; None: nothing is sent."""
    from rclpy.qos import qos_profile_sensor_data

    sending, ended = [], threading.Event()

    def run():
        while not ended.wait(0.02):
            for publisher, make in list(sending):
                if (message := make()) is not None:
                    publisher.publish(message)

    def begin(topic, kind, make):
        sensors = qos_profile_sensor_data if topic in (ROBOT.pose, ROBOT.joint_states) else 10
        sending.append((node.create_publisher(kind, topic, sensors), make))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield begin
    ended.set()
    thread.join()


def until(predicate, timeout=5.0):
    end = time.monotonic() + timeout
    while (held := predicate()) is None or held is False:
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return held


def test_a_joystick_moves_while_its_button_is_down_and_is_lost_when_silent(publish):
    from sensor_msgs.msg import Joy

    says = {"axes": [0.0, 1.0, 1.0, 0.0, 0.0, 1.0], "buttons": [0] * 8}
    publish("joy", Joy, lambda: Joy(**says) if says else None)
    with closing(open_device("joy:joy,4", ROBOT.spec())) as device:
        assert device.hand() is None
        says["buttons"] = [0, 0, 0, 0, 1, 0, 0, 1]
        hand = until(device.hand)
        assert hand[0] == 1 and not hand[1:6].any() and hand[6] == -1 and device.events() == ["start"]
        says["buttons"] = [1, 0, 0, 0, 1, 0, 0, 0]
        until(lambda: bool(device.hand()[6] == 1))
        with pytest.raises(RobotRLError, match="reads 1, 0 or -1"):
            ros_devices.Joy("joy", 4, 0.5)
        says["axes"] = [0.0, np.nan, 1.0, 0.0, 0.0, 1.0]
        until(lambda: device.hand() is None)
        says.clear()
        with pytest.raises(DeviceLost, match="nothing came on joy"):
            until(lambda: device.hand() is not None)


def test_a_topic_on_which_nobody_publishes_is_named(domain, monkeypatch):
    monkeypatch.setattr(ros_devices, "PATIENCE", 0.3)
    with pytest.raises(RobotRLError, match="nobody publishes .*nothing"):
        open_device("joy:nothing", ROBOT.spec())


def test_a_leader_engages_near_the_arm_and_then_leads_it(publish, node):
    from geometry_msgs.msg import PoseStamped, WrenchStamped
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Bool

    kinematics, names = from_file(ROBOT.kinematics), [*ROBOT.joints, ROBOT.gripper.joint]
    arm = kinematics.pose(READY)
    leads = {"joints": READY.copy(), "held": False, "speaks": True}

    def now():
        return node.get_clock().now().nanoseconds * 1e-9

    publish(ROBOT.joint_states, JointState, lambda: numbers_msg(now(), names, np.append(READY, 0.04)))
    publish(ROBOT.pose, PoseStamped, lambda: pose_msg(now(), ROBOT.base_frame, *arm))
    publish("wrench", WrenchStamped, WrenchStamped)
    publish(
        "lead", JointState,
        lambda: numbers_msg(now(), names, np.append(leads["joints"], 0.0)) if leads["speaks"] else None,
    )  # fmt: skip
    publish("lead/held", Bool, lambda: Bool(data=leads["held"]))
    leads["joints"] = READY + [0.5, 0, 0, 0, 0, 0, 0]
    with closing(open_device("leader:lead", ROBOT.spec(), ROBOT)) as device:
        time.sleep(1.0)
        assert device.hand() is None  # far away
        leads["held"] = True
        time.sleep(0.3)
        assert device.hand() is None and "0.29 m" in device.hint
        leads["joints"] = READY + [0.05, 0, 0, 0, 0, 0, 0]
        time.sleep(0.3)
        hand = until(device.hand)
        way = kinematics.pose(leads["joints"])[0] - arm[0]
        np.testing.assert_allclose(hand[:3], np.clip(way / 0.05, -1, 1), atol=1e-3)
        assert hand[6] == 1.0  # its fingers are closed
        for turned in np.arange(0.05, 0.5, 0.05):
            leads["joints"] = READY + [turned, 0, 0, 0, 0, 0, 0]
            time.sleep(0.03)
            device.hand()
        until(lambda: device.hand() is not None and bool(abs(device.hand()[1]) == 1.0))  # once engaged it may lead far
        leads["held"] = False
        until(lambda: device.hand() is None)
        leads["held"] = True
        time.sleep(0.3)
        assert device.hand() is None  # far away again
        leads["speaks"] = False
        with pytest.raises(DeviceLost, match="nothing came on"):
            until(lambda: device.hand() is not None)
