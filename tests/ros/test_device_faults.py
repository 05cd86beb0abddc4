"""A person's device that dies in the hand, over DDS: how long and how far the arm goes on, and what is not heard."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager

import numpy as np
import pytest

from drivers.devices import open_device
from drivers.teleop import DeviceLost, DeviceSilent
from tests.ros.rig import Rig, robot_yaml
from tests.ros.test_devices import ROBOT, ended, publish, until  # noqa: F401
from tests.terminal import Typed

pytestmark = pytest.mark.timeout(120)
LET_GO = 0.3  # [s]
REST = {"axes": [0.0, 0.0, 1.0, 0.0, 0.0, 1.0], "buttons": [0] * 8}
PUSH = {"axes": [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], "buttons": [0, 0, 0, 0, 0, 1, 0, 0]}


class Pad:
    """joy_node: publishes what it `says` at 20 Hz from a thread, with stamps; None: it is dead."""

    def __init__(self, node, topic="stick"):
        from sensor_msgs.msg import Joy

        self._node, self._publisher, self._end = node, node.create_publisher(Joy, topic, 10), threading.Event()
        self.says, self.stamp = REST, self.now  # ; [s]
        self.last = 0.0  # when it spoke last, by the steady clock [s]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now(self):
        return self._node.get_clock().now().nanoseconds * 1e-9

    def _run(self):
        while not self._end.wait(0.05):
            if (says := self.says) is not None:
                message, stamp = self._publisher.msg_type(**says), self.stamp()
                message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), int((stamp % 1) * 1e9)
                self._publisher.publish(message)
                self.last = time.monotonic()

    def close(self):
        self._end.set()
        self._thread.join()
        self._node.destroy_publisher(self._publisher)


@contextmanager
def recording(node, spawn, tmp_path, device):
    """A rig, and `collect` that waits for the first motion of the hand on it."""
    file = robot_yaml(tmp_path / "robot.yaml")
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Rig(node, file)
    for wish in rig.wishes.values():  # `collect` is who wishes
        node.destroy_publisher(wish)
    words = ("collect", "--out", tmp_path / "mine", "--robot", file, "--device", device, "--episodes", 1)
    try:
        with closing(Typed(*words)) as typed:
            at = typed.until("WAITING: 0 of 1", 60)
            typed.press("\n")
            at = typed.until("move to begin", 30, at)
            yield rig, typed, at
    finally:
        rig.close()


def moved_after(rig, since):
    """How long the setpoint moved after `since` [s], and how far [m]."""
    before = [p for t, p, _ in rig.setpoints if t <= since][-1]
    return rig.braked_since(since) - since, float(np.linalg.norm(rig.setpoints[-1][1] - before))


def test_fault_f37_a_joystick_that_dies_with_its_button_held(node, spawn, tmp_path):
    with closing(Pad(node)) as pad, recording(node, spawn, tmp_path, "joy:stick") as (rig, typed, at):
        pad.says = PUSH
        at = typed.until(r"HELD.*success, failure or discard", 20, at)
        rig.until(lambda: rig.setpoints and rig.setpoints[-1][1][1] > 0.1, 5, "it moves at full speed")
        pad.says = None
        at = typed.until("free.*nothing came on joy:stick", 5, at)
        time.sleep(0.3)
        took, way = moved_after(rig, pad.last)
        print(f"joy: the setpoint moved for {1000 * took:.0f} ms after the last message, {100 * way:.1f} cm")
        assert took < LET_GO + 0.2 and way < 0.25 * (LET_GO + 0.2), "let go, and braked"
        pad.says, here = PUSH, rig.setpoints[-1][1]  # it comes back, with its button down
        time.sleep(0.7)
        assert np.linalg.norm(rig.setpoints[-1][1] - here) < 1e-3
        pad.says = REST
        time.sleep(0.3)
        pad.says = PUSH
        rig.until(lambda: rig.setpoints[-1][1][1] > here[1] + 0.02, 3, "it was let go, and held again")
        pad.says = None
        at = typed.until("LOST", 5, at)
        assert typed.wait(20) == 2
        rig.judge()


def drives(device):
    try:
        return device.hand() is not None
    except DeviceSilent:
        return False


def lasts(device, seconds=1.2):
    """How long it still drives [s]; it must not begin again."""
    begin, last = time.monotonic(), 0.0
    while (now := time.monotonic()) < begin + seconds:
        if drives(device):
            last = now - begin
        time.sleep(0.01)
    return last


def test_fault_f37_messages_with_other_stamps_and_of_another_publisher_are_not_heard(node, domain):  # noqa: F811
    with closing(Pad(node)) as pad, closing(open_device("joy:stick", ROBOT.spec())) as device:
        still = [0.0]
        for stamp, what in (
            (lambda: pad.now() - 1, "old"),
            (lambda: pad.now() + 1, "future"),
            (lambda: still[0], "same"),
        ):
            pad.stamp, pad.says = pad.now, REST
            time.sleep(0.2)
            drives(device)
            pad.says = PUSH
            until(lambda: drives(device), 2)
            still[0] = pad.now()
            pad.stamp = stamp
            took = lasts(device, 0.8)
            print(f"joy with {what} stamps: it drove for {1000 * took:.0f} ms")
            assert took <= LET_GO + 0.05
        pad.stamp, pad.says = lambda: 0.0, REST  # who stamps nothing is heard when it comes
        time.sleep(0.2)
        drives(device)
        pad.says = PUSH
        until(lambda: drives(device), 2)
        with closing(Pad(node)):  # another one on the same topic, whose button is up
            took = lasts(device)
            with pytest.raises(DeviceSilent, match="another publisher was heard on stick"):
                device.hand()
            print(f"a second publisher: it drove for {1000 * took:.0f} ms")
            assert took <= 0.15 + LET_GO
        pad.says = REST
        time.sleep(1.3)
        drives(device)
        pad.says = PUSH
        until(lambda: drives(device), 2)


def test_fault_f37_a_twist_that_is_old_or_falls_silent_and_returns(publish, node):  # noqa: F811
    from geometry_msgs.msg import TwistStamped

    says, age = {"x": 0.0, "silent": False}, [0.0]

    def twist():
        message, stamp = TwistStamped(), node.get_clock().now().nanoseconds * 1e-9 - age[0]
        message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), int((stamp % 1) * 1e9)
        message.twist.linear.x = says["x"]
        return None if says["silent"] else message

    publish("twist", TwistStamped, twist)
    with closing(open_device("twist:twist", ROBOT.spec())) as device:
        for fault in ("silence", "age"):
            says["x"], says["silent"], age[0] = 0.0, False, 0.0
            time.sleep(0.3)
            assert device.hand() is None
            says["x"] = 0.3
            until(lambda: drives(device), 3)
            says["silent"], age[0] = fault == "silence", 5.0 * (fault == "age")
            took = lasts(device, 0.6)
            print(f"twist, {fault}: it drove for {1000 * took:.0f} ms")
            assert took <= LET_GO + 0.05
            says["silent"], age[0] = False, 0.0
            assert lasts(device, 0.4) == 0, "it goes on as it was"
            with pytest.raises(DeviceLost, match="let go"):
                device.hand()
