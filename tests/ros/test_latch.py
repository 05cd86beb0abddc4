"""A stopped arm stays stopped until a person resets it, and nobody commands whose lease is over: over real DDS."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import numpy as np
import pytest

from drivers.messages import pose_msg
from tests.ros.conftest import ROOT
from tests.ros.rig import DOWN, MIDDLE, Rig, robot_yaml
from tests.ros.test_faults import holds

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def file(tmp_path):
    return robot_yaml(tmp_path / "robot.yaml", home=[*(MIDDLE + [0.0, 0.25, 0.0]).tolist(), *DOWN.tolist()])


@pytest.fixture
def rig(node, file, spawn):
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Rig(node, file)
    rig.until(lambda: rig.status and rig.value("sees the arm") == "True", 15, "the node sees the arm")
    yield rig
    rig.close()
    rig.judge()


def way(rig, since=0):
    """Of the setpoints [m]."""
    positions = np.array([p for _, p, _ in rig.setpoints[since:]])
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()) if len(positions) > 1 else 0.0


def forced(rig):
    rig.force = 500.0
    rig.stroll(0.2)
    return "500 N", lambda: setattr(rig, "force", 0.0)


def rejected(rig):
    for _ in range(4):
        rig.wish(MIDDLE + [0, 0, 0.25])
        time.sleep(0.05)
    return "rejected", None


def silent_policy(rig):
    time.sleep(0.4)
    return "silent", None


def silent_state(rig):
    rig.publishes = False
    rig.stroll(0.4)
    return "silent|old", lambda: setattr(rig, "publishes", True)


def second_publisher(rig):
    import rclpy
    from geometry_msgs.msg import PoseStamped

    other = rclpy.create_node("intruder", context=rig.node.context)
    other.create_publisher(PoseStamped, "target_pose", 1)
    rig.stroll(1.0)
    return "intruder", other.destroy_node


def by_a_person(rig):
    assert rig.call("stop").success
    return "called stop", None


def fault_of_the_policy(rig):
    from std_msgs.msg import String

    fault = rig.node.create_publisher(String, "policy/fault", 1)
    rig.until(fault.get_subscription_count, 3, "the arm's node listens")
    fault.publish(String(data="camera 'wrist' is 0.31 s old"))
    return "'policy' stopped it: camera 'wrist'", None


CAUSES = [by_a_person, forced, rejected, silent_policy, silent_state, second_publisher, fault_of_the_policy]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_fault_f31_whatever_stopped_it_only_a_persons_reset_lets_it_be_armed_again(rig, cause):
    rig.arm()
    rig.stroll(0.3)
    words, mend = cause(rig)
    rig.until(lambda: rig.value("needs reset") == "True", 2, "stopped for good")
    lease = rig.value("lease")
    assert any(word in rig.stopped for word in words.split("|"))
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    if mend is not None:
        refused = rig.call("reset")
        assert not refused.success and "stays stopped" in refused.message, "the cause is still there"
        mend()
        rig.until(lambda: rig.call("reset").success, 5, "a reset, once it is mended")
        rig.call("stop")
    rig.setpoints.clear()
    for source in ("teleop", "policy", "homing"):
        answer = rig.call(f"{source}/arm")
        assert not answer.success and "only a person" in answer.message and "reset_arm" in answer.message
    for k in range(12):
        for source in ("teleop", "policy"):
            rig.wish(MIDDLE + [0, 0.001 * k, 0], source=source)
        rig.beat(int(lease) + k % 2)
        time.sleep(0.05)
    assert rig.value("needs reset") == "True" and rig.value("lease") == lease
    assert not rig.setpoints, "nothing moved"
    rig.reset()
    rig.stroll(0.3)
    assert not rig.setpoints and rig.value("lease") == lease, "a reset moves nothing and lets nobody command"
    rig.arm()
    rig.stroll(0.3)
    assert rig.setpoints and not rig.stopped


def test_fault_f31_a_release_may_be_armed_again_by_a_program_and_a_stop_after_it_latches(rig):
    rig.arm()
    rig.stroll(0.2)
    assert rig.call("policy/release").success
    rig.until(lambda: rig.value("rests") == "True", 2, "at rest")
    assert rig.value("needs reset") == "False" and "let go" in rig.stopped
    assert "nothing to reset" in rig.call("reset").message
    rig.arm()
    rig.call("policy/release")
    rig.call("stop")
    answer = rig.call("policy/arm")
    assert not answer.success and "called stop" in answer.message


def go_home(rig, seconds, every=0.1):
    """As the owner of homing, who beats at 10 Hz; the lease."""
    answer = rig.call("homing/arm")
    assert answer.success and "heartbeat" in answer.message, "it says what is needed"
    lease, end = int(answer.message.partition(";")[0]), time.monotonic() + seconds
    while time.monotonic() < end:
        rig.beat(lease)
        time.sleep(every)
    return lease


def test_fault_f32_homing_moves_only_while_its_owners_heart_beats(rig):
    answer = rig.call("homing/arm")  # once, as `ros2 service call` would
    assert answer.success and "homing/heartbeat" in answer.message
    time.sleep(1.0)
    assert way(rig) < 1e-6, "nobody's heart beats: nothing moves"
    rig.call("homing/release")
    rig.until(lambda: rig.value("rests") == "True", 2, "at rest")
    go_home(rig, 1.0)
    since = time.monotonic()  # the last beat was 0.1 s ago
    assert way(rig) > 0.05
    holds(rig, since)
    assert "homing's owner" in rig.stopped and rig.value("needs reset") == "True"
    rig.reset()
    lease = go_home(rig, 0.5)
    since = time.monotonic()
    assert rig.call("homing/release").success
    for _ in range(10):  # whose heart goes on
        rig.beat(lease)
        time.sleep(0.02)
    holds(rig, since)
    assert "'homing' let go" in rig.stopped and rig.value("needs reset") == "False"


def test_fault_f38_at_home_is_where_the_arm_is_measured(rig):
    go_home(rig, 3.0, every=0.02)
    assert rig.value("at home") == "True" and np.linalg.norm(rig.position - rig.setpoints[-1][1]) < 0.02
    rig.call("homing/release")
    rig.until(lambda: rig.value("rests") == "True", 2, "at rest")
    rig.position = MIDDLE + [0.0, 0.1, 0.0]  # carried there by hand
    rig.setpoints.clear()
    time.sleep(0.1)
    assert rig.value("at home") == "False"


def test_fault_f44_a_lower_source_and_another_of_the_same_are_refused_and_leases_only_rise(rig):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    rig.arm("teleop")
    leases = [int(rig.value("lease"))]
    drives = rig.node.create_timer(0.03, lambda: rig.wish(MIDDLE, source="teleop"))
    time.sleep(0.2)
    for _ in range(6):
        for source in ("policy", "homing", "teleop"):
            answer = rig.call(f"{source}/arm")
            assert not answer.success and "'teleop' commands the arm already" in answer.message
    assert rig.value("holder") == "teleop" and int(rig.value("lease")) == leases[0] and not rig.stopped
    rig.call("teleop/release")
    rig.node.destroy_timer(drives)
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    client = rig.node.create_client(SetParameters, "arm_node/set_parameters")
    rig.until(client.service_is_ready, 5, "parameters")
    half = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.5)
    future = client.call_async(SetParameters.Request(parameters=[Parameter(name="speed_scale", value=half)]))
    rig.until(future.done, 5, "an answer")
    assert future.result().results[0].successful
    rig.arm("policy")
    leases.append(int(rig.value("lease")))
    rig.stroll(0.2)
    rig.wish(MIDDLE, source="teleop")  # takes over by right of way
    rig.until(lambda: rig.value("holder") == "teleop", 1, "the person goes before")
    leases.append(int(rig.value("lease")))
    assert leases == sorted(set(leases)) and leases[0] > 1.7e12, "and above those of nodes that ran before"


def test_fault_f44_a_publisher_that_hung_and_comes_back_under_its_successors_lease_does_not_drive(rig):
    from geometry_msgs.msg import PoseStamped

    old = rig.wishes["policy"]
    rig.arm()
    rig.stroll(1.0)  # and then it hangs
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    rig.reset()
    rig.arm()
    rig.wishes["policy"] = rig.node.create_publisher(PoseStamped, "policy/target_pose", 1)  # of a node of that name
    rig.until(rig.wishes["policy"].get_subscription_count, 3, "the arm's node listens")
    begun = len(rig.setpoints)
    rig.stroll(0.5, speed=0.0)
    for _ in range(10):
        old.publish(pose_msg(rig.now(), "base", MIDDLE + [0.04, 0, 0], DOWN))
        time.sleep(0.025)  # of two in the same moment the node may see only the later one
        rig.wish(MIDDLE)
        time.sleep(0.025)
    assert "two publish on policy/target_pose" in rig.stopped and rig.value("needs reset") == "True"
    along = np.array([p[0] for _, p, _ in rig.setpoints[begun:]])
    print(f"the setpoint went {1000 * (along.max() - MIDDLE[0]):.1f} mm its way")
    assert along.max() - MIDDLE[0] < 0.02


def reset_arm(answer, terminal=True):
    """The person's tool in a terminal: return code, and what it said."""
    words = [sys.executable, "-m", "drivers.reset_arm"]
    if not terminal:
        done = subprocess.run(words, input=answer, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
        return done.returncode, done.stdout + done.stderr
    ours, theirs = pty.openpty()
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True)
    os.close(theirs)
    said, end = b"", time.monotonic() + 30
    while time.monotonic() < end:
        try:
            said += os.read(ours, 4096)
        except OSError:  # it has ended
            break
        if answer and b"anything else" in said:
            os.write(ours, answer.encode())
            answer = ""
    process.wait(10)
    os.close(ours)
    return process.returncode, said.decode()


def test_fault_f31_the_persons_tool_says_why_asks_and_needs_a_terminal(rig):
    rig.arm()
    rig.call("stop")
    code, said = reset_arm("reset\n", terminal=False)
    assert code == 2 and "terminal" in said and rig.value("needs reset") == "True"
    code, said = reset_arm("yes\n")
    assert code == 1 and "somebody called stop" in said and "stays stopped" in said
    assert rig.value("needs reset") == "True"
    code, said = reset_arm("reset\n")
    assert code == 0 and "may be armed again" in said, said
    rig.until(lambda: rig.value("needs reset") == "False", 2, "reset")
    code, said = reset_arm("")
    assert code == 0 and "needs no reset" in said
