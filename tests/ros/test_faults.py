"""Faults injected into a real arm node over real DDS; numbers and criteria: F1 to F30 of docs/faults.md."""

from __future__ import annotations

import math
import os
import signal
import time

import numpy as np
import pytest

from robot_rl.geometry import quat_from_vector, quat_product
from tests.ros.rig import DOWN, HOLD, MIDDLE, ROBOT, Rig, robot_yaml

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def rig(node, file, arm_node):
    """Armed for the policy; at the end no setpoint that was ever sent may have left box or speed."""
    rig = Rig(node, file)
    rig.arm()
    yield rig
    rig.close()
    rig.judge()


def holds(rig, since):
    """The setpoint has braked `HOLD` after `since`, then moves on to the measured pose, if at all, and stays."""
    braking = rig.robot.limits.speed / rig.robot.limits.acceleration
    time.sleep(HOLD + braking + 0.3)
    braked, rests = rig.braked_since(since) - since, max(rig.moved_last() - since, 0.0)
    print(f"braked {1000 * braked:.0f} ms, at rest {1000 * rests:.0f} ms after it; {rig.stopped}")
    assert braked <= HOLD
    assert rests <= HOLD + braking


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_fault_f01_no_number_is_never_sent_and_the_next_wish_is_still_limited(rig, bad):
    rig.stroll(0.3)
    rejected = int(rig.value("rejected"))
    rig.wish([bad, 0.0, 0.3])
    rig.until(lambda: int(rig.value("rejected")) == rejected + 1, 1, "the reject is counted, once")
    rig.wish(MIDDLE + [0.2, 0, 0])  # and then a jump
    time.sleep(0.3)
    assert max(p[0] for _, p, _ in rig.setpoints) < MIDDLE[0] + 0.1


def test_fault_f02_a_gripper_of_no_or_two_positions_moves_nothing(rig, arm_node):
    from sensor_msgs.msg import JointState

    fingers = rig.node.create_publisher(JointState, "policy/target_gripper", 1)
    time.sleep(0.5)
    for positions in ([], [0.0, 1.0], [math.nan]):
        fingers.publish(JointState(position=positions))
    rig.stroll(0.3)
    assert arm_node.poll() is None and "Traceback" not in arm_node.log.read_text()


def test_fault_f04_limits_that_are_none_refuse_to_start(spawn, tmp_path):
    for name, value, words in (
        ("speed", math.nan, "speed is nan"),
        ("speed", -1.0, "above 0"),
        ("box_low", [0.9, 0, 0], "box is empty"),
    ):
        limits = {**ROBOT["limits"], name: value}
        process = spawn("-m", "drivers.arm_node", "--robot", robot_yaml(tmp_path / "bad.yaml", limits=limits))
        assert process.wait(20) == 2
        assert words in process.log.read_text()
    without = {k: v for k, v in ROBOT.items() if k != "limits"}
    (tmp_path / "bad.yaml").write_text(str(without))
    process = spawn("-m", "drivers.arm_node", "--robot", tmp_path / "bad.yaml")
    assert process.wait(20) == 2 and "limits" in process.log.read_text()


def test_fault_f05_jumps_and_bad_quaternions_and_a_flipped_sign(rig):
    rig.stroll(0.2)
    before = len(rig.setpoints)
    for turn in (-DOWN, DOWN):  # the same rotation
        rig.wish(MIDDLE, turn)
        time.sleep(0.1)
    assert all(np.abs(np.abs(turn @ DOWN) - 1) < 1e-9 for _, _, turn in rig.setpoints[before:])
    for position, turn in (
        (MIDDLE + [0, 0, 0.2], DOWN),
        (MIDDLE, 0.9 * DOWN),
        (MIDDLE, quat_product(quat_from_vector(np.array([0, 0, 1.0])), DOWN)),
    ):
        rig.wish(position, turn)
        time.sleep(0.1)
    rig.until(lambda: rig.stopped, 2, "stopped after three in a row")


def test_fault_f06_outside_the_box_is_cut_at_its_face_and_no_place_to_begin(rig):
    for k in range(60):
        rig.wish(MIDDLE + [min(0.004 * k, 0.22), 0, 0])  # the face is at 0.2
        time.sleep(0.05)
    assert rig.setpoints[-1][1][0] == pytest.approx(rig.robot.limits.box_high[0], abs=1e-6)
    rig.call("policy/release")
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    rig.setpoints.clear()
    rig.position = np.array([0.8, 0.0, 0.3])
    time.sleep(0.1)
    answer = rig.call("policy/arm")
    assert not answer.success and "outside the box" in answer.message
    time.sleep(0.2)
    assert not rig.setpoints


def test_fault_f08_a_policy_killed_or_stopped_is_held_and_not_replayed(rig, spawn, tmp_path):
    rig.node.destroy_publisher(rig.wishes.pop("policy"))
    for sign in (signal.SIGSTOP, signal.SIGKILL):
        streamer = spawn("-m", "tests.ros.streamer")
        moved = len(rig.setpoints)
        rig.until(lambda m=moved: np.ptp([p[1] for _, p, _ in rig.setpoints[m:]] or [0]) > 0.005, 20, "it moves")
        since = time.monotonic()
        os.killpg(streamer.pid, sign)
        holds(rig, since)
        assert "policy" in rig.stopped or "observation" in rig.stopped
        os.killpg(streamer.pid, signal.SIGKILL)
        streamer.wait()
        rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
        still = len(rig.setpoints)
        rig.reset()
        rig.arm()
        time.sleep(0.5)
        later = np.array([p for _, p, _ in rig.setpoints[still:]])
        assert np.ptp(later, axis=0).max() < 1e-3, "armed again, nothing of before is played"


def test_fault_f10_a_silent_arm_stops_and_stays_stopped_until_armed_again(rig):
    rig.stroll(0.3)
    since = time.monotonic()
    rig.publishes = False
    for _ in range(8):
        rig.wish(MIDDLE)
        time.sleep(0.05)
    holds(rig, since)
    assert rig.stopped
    rig.publishes = True
    time.sleep(0.5)
    rig.wish(MIDDLE)
    assert rig.stopped
    rig.reset()
    rig.arm()
    rig.stroll(0.3)
    assert not rig.stopped


@pytest.mark.parametrize("offset", [-1.0, 2.0])
def test_fault_f10_stale_and_future_stamps_of_the_arm_stop_it(rig, offset):
    rig.stroll(0.3)
    since = time.monotonic()
    rig.offset = offset
    rig.stroll(0.5)
    holds(rig, since)
    assert rig.stopped
    for refused in (rig.call("policy/arm"), rig.call("reset")):
        assert not refused.success and "s old" in refused.message


def test_fault_f10_wishes_from_an_old_observation_or_the_future_are_not_followed(rig):
    rig.stroll(0.3)
    before = rig.setpoints[-1][1]
    for age in (1.0, -1.0, 1.0):
        rig.wish(MIDDLE + [0.01, 0, 0], age=age)
        time.sleep(0.05)
    rig.until(lambda: rig.stopped, 2, "stopped after three in a row")
    assert "observation" in rig.stopped
    assert np.abs(rig.setpoints[-1][1] - before).max() < 0.02


def test_fault_f11_joints_in_another_order_are_the_same_and_a_missing_one_stops(rig):
    rig.names, rig.values = rig.names[::-1], rig.values[::-1]
    rig.stroll(0.5)
    assert not rig.stopped
    since = time.monotonic()
    rig.names, rig.values = rig.names[:-1], rig.values[:-1]
    rig.stroll(0.5)
    holds(rig, since)
    assert "joint1" in rig.stopped


def test_fault_f11_a_pose_in_another_frame_stops_with_both_names(rig):
    rig.frame = "world"
    rig.stroll(0.5)
    rig.until(lambda: "'world'" in rig.stopped and "'base'" in rig.stopped, 2, "stopped, with both frames")


def test_fault_f12_another_quality_of_service_is_told_with_the_fix(rig, arm_node):
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data

    rig.node.create_publisher(PoseStamped, "teleop/target_pose", qos_profile_sensor_data)
    rig.until(lambda: "Let it publish reliable" in arm_node.log.read_text(), 2, "told within 2 s")


@pytest.mark.parametrize("topic", ["target_pose", "policy/target_pose"])
def test_fault_f13_a_second_publisher_stops_the_arm_and_both_are_named(rig, topic):
    import rclpy
    from geometry_msgs.msg import PoseStamped

    other = rclpy.create_node("intruder", context=rig.node.context)
    other.create_publisher(PoseStamped, topic, 1)
    rig.until(lambda: rig.stopped, 1.2, "stopped within a second")  # and 0.1 s for the status to come
    assert "intruder" in rig.stopped and ("arm_node" in rig.stopped or "test" in rig.stopped)
    for refused in (rig.call("policy/arm"), rig.call("reset")):
        assert not refused.success and "one of them has to go" in refused.message
    other.destroy_node()


def test_fault_f13_a_second_policy_is_not_armed_while_the_first_commands(rig):
    rig.stroll(0.3)
    rig.wish(MIDDLE)
    answer = rig.call("policy/arm")
    assert not answer.success and "commands the arm already" in answer.message
    assert not rig.stopped


def test_fault_f14_without_a_controller_nothing_is_armed(node, file, arm_node):
    rig = Rig(node, file)
    node.destroy_subscription(rig.controller)
    rig.until(lambda: rig.status and rig.value("sees the arm") == "True", 15, "the node sees the arm")
    answer = rig.call("policy/arm")
    assert not answer.success and "nobody listens" in answer.message
    rig.close()


def test_fault_f15_a_strong_force_stops_for_good(rig):
    rig.stroll(0.3)
    since = time.monotonic()
    rig.force = 90.0
    rig.stroll(0.3)
    holds(rig, since)
    assert "90 N" in rig.stopped
    rig.force = 0.0
    rig.stroll(0.3)
    assert "90 N" in rig.stopped


def test_fault_f16_a_person_takes_over_in_the_middle_and_falls_silent(rig):
    rig.stroll(0.3)
    for k in range(10):
        rig.wish(MIDDLE + [0, 0, 0.001 * k], source="teleop")
        rig.wish(MIDDLE - [0.01, 0, 0])  # the policy goes on
        time.sleep(0.05)
    assert rig.value("holder") == "teleop"
    assert rig.setpoints[-1][1][0] > MIDDLE[0] - 0.002
    since = time.monotonic()
    for _ in range(10):
        rig.wish(MIDDLE - [0.01, 0, 0])
        time.sleep(0.05)
    holds(rig, since)
    assert rig.stopped, "unplugged: held, and the policy does not go on by itself"


def test_fault_f16_fingers_stay_when_a_person_takes_over_whatever_was_asked_of_them_before(rig):
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    asked: list[float] = []
    rig.node.create_subscription(Float64MultiArray, rig.robot.gripper.topic, lambda m: asked.append(m.data[0]), 10)
    hand = {s: rig.node.create_publisher(JointState, f"{s}/target_gripper", 1) for s in ("policy", "teleop")}
    time.sleep(0.5)
    hand["teleop"].publish(JointState(position=[1.0]))  # long ago
    hand["policy"].publish(JointState(position=[0.0]))
    rig.stroll(0.7)
    for _ in range(10):
        rig.wish(MIDDLE, source="teleop")
        time.sleep(0.05)
    assert rig.value("holder") == "teleop" and asked[-1] == 0.0


def test_fault_f18_a_clock_that_stands_still_does_not_keep_the_arm_moving(node, spawn, file):
    from rosgraph_msgs.msg import Clock

    spawn("-m", "drivers.arm_node", "--robot", file, "--ros-args", "-p", "use_sim_time:=true")
    rig = Rig(node, file)
    clock, begin = node.create_publisher(Clock, "/clock", 10), time.monotonic()
    ticking = [True]

    def simulated() -> float:
        return 100.0 + (time.monotonic() - begin if ticking[0] else ticking[1])

    def publish() -> None:
        message, now = Clock(), simulated()
        message.clock.sec, message.clock.nanosec = int(now), int((now % 1) * 1e9)
        clock.publish(message)

    rig.now = simulated
    node.create_timer(0.01, publish)
    rig.arm()
    rig.stroll(0.3)
    since = time.monotonic()
    ticking[:] = [False, time.monotonic() - begin]
    rig.stroll(0.5)
    holds(rig, since)  # no stamp shows it: silence by the steady clock does
    assert "silent" in rig.stopped
    rig.judge()
    rig.close()


def test_fault_f26_speed_changes_only_while_the_arm_is_stopped(rig):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    client = rig.node.create_client(SetParameters, "arm_node/set_parameters")

    def set_scale(value):
        rig.until(client.service_is_ready, 5, "parameters")
        number = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        future = client.call_async(SetParameters.Request(parameters=[Parameter(name="speed_scale", value=number)]))
        rig.until(future.done, 5, "an answer")
        return future.result().results[0]

    answer = set_scale(0.5)
    assert not answer.successful and "stop" in answer.reason
    rig.call("stop")
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    assert set_scale(0.2).successful and not set_scale(2.0).successful
    answer = rig.call("policy/arm")
    assert not answer.success and "somebody called stop" in answer.message, "another speed is no reset"
    rig.reset()
    rig.arm()
    begun = len(rig.setpoints)
    rig.stroll(1.0, speed=0.15)
    ways = np.diff([p for _, p, _ in rig.setpoints[begun:]], axis=0)
    assert np.linalg.norm(ways, axis=1).max() * rig.robot.servo_rate <= 0.2 * rig.robot.limits.speed + 1e-6


def test_fault_f27_a_node_that_the_machine_leaves_no_time_holds_and_never_hurries_after(rig, spawn, arm_node):
    rig.node.destroy_publisher(rig.wishes.pop("policy"))
    streamer = spawn("-m", "tests.ros.streamer")
    rig.until(lambda: np.ptp([p[1] for _, p, _ in rig.setpoints] or [0]) > 0.005, 20, "it moves")
    for _ in range(2 * (os.cpu_count() or 1)):
        spawn("-c", "while True: pass")
    time.sleep(1.0)
    os.killpg(arm_node.pid, signal.SIGSTOP)  # as in a long pause of the garbage collector
    time.sleep(0.3)
    before, at = len(rig.setpoints), time.monotonic()
    os.killpg(arm_node.pid, signal.SIGCONT)
    rig.until(lambda: rig.stopped, 2, "what it knows is old: it stops")
    print(f"{rig.stopped}; the setpoint came {1000 * (rig.moved_last() - at):.0f} ms after the pause to rest")
    after = np.array([p for _, p, _ in rig.setpoints[before - 1 :]])
    assert np.linalg.norm(np.ptp(after, axis=0)) < 0.025, (
        "the way to brake from 0.25 m/s, and back to the measured pose"
    )
    assert streamer.poll() is None


@pytest.mark.parametrize(("sign", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_fault_f28_asked_to_end_it_comes_to_rest_first_and_ends_soon(rig, arm_node, sign, times):
    rig.stroll(0.3, speed=0.15)
    since = time.monotonic()
    for _ in range(times):
        arm_node.send_signal(sign)
        time.sleep(0.03)
    assert arm_node.wait(10) == 0
    assert time.monotonic() - since < 3
    last = [p for _, p, _ in rig.setpoints[-3:]]
    assert np.ptp(last, axis=0).max() * rig.robot.servo_rate < 0.05, "the last setpoints are at rest, or nearly"
