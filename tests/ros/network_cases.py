"""F19: between policy and robot a network that loses, delays, or is cut. A real one: see bad_network.py.

In a process of its own (test_network.py), since Fast DDS asks for the network's devices once and keeps the answer.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from tests.ros.bad_network import BadNetwork
from tests.ros.rig import Rig, robot_yaml
from tests.ros.test_faults import holds

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def network(domain, monkeypatch):
    """Nodes find one another across it; there is no memory that they share."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    try:
        network = BadNetwork(f"rr{domain}")
    except OSError as error:
        pytest.skip(f"NOT TESTED: a network namespace needs root and /dev/net/tun ({error})")
    with network.entered():
        yield network
    network.close()


@pytest.fixture
def rig(network, node, spawn, tmp_path):
    """The arm and its node here, armed; behind the network a policy that moves it."""
    file = robot_yaml(tmp_path / "robot.yaml")
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Rig(node, file)
    node.destroy_publisher(rig.wishes.pop("policy"))
    command = network.behind(sys.executable, "-m", "tests.ros.streamer")
    rig.policy = spawn("-c", f"import os; os.execvp('ip', {command!r})")
    follows(rig)
    yield rig
    rig.close()
    rig.judge()


def moves(rig, seconds=0.5):
    """Whether the setpoint moves now."""
    begun = len(rig.setpoints)
    time.sleep(seconds)
    return len(rig.setpoints) > begun + 2 and np.ptp([p[1] for _, p, _ in rig.setpoints[begun:]]) > 0.005


def again(rig):
    """As the person."""
    if rig.status is not None and rig.value("needs reset") == "True":
        rig.reset()
    rig.arm()


def follows(rig, within=20.0):
    """The arm obeys the policy, once it is armed."""
    end = time.monotonic() + within
    while not moves(rig):
        assert time.monotonic() < end, f"not within {within} s; {rig.status}"
        if rig.status is None or rig.stopped:
            again(rig)


def test_fault_f19_one_packet_in_twenty_lost_and_20_ms_round_the_arm_is_moved_all_the_same(rig, network):
    network.loss, network.delay = 0.05, 0.01
    assert sum(moves(rig, 1.0) for _ in range(4)) == 4 and not rig.stopped
    print(f"{network.lost} of {network.lost + network.passed} frames lost")
    assert 0.02 < network.lost / (network.lost + network.passed) < 0.1


def test_fault_f19_a_round_trip_of_more_than_the_limit_of_age_moves_nothing(rig, network):
    network.delay = 0.12
    rig.until(lambda: rig.stopped, 2, "stopped")
    print(rig.stopped)
    assert "old" in rig.stopped or "silent" in rig.stopped
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    again(rig)
    assert not moves(rig, 0.8), "no wish is young enough"
    network.delay = 0.0
    follows(rig, 5.0)


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_fault_f19_cut_off_it_is_held_and_stays_so_until_it_is_armed_again(rig, network, seconds):
    since = time.monotonic()
    network.cut = True
    holds(rig, since)
    assert "silent" in rig.stopped or "old" in rig.stopped
    time.sleep(max(since + seconds - time.monotonic(), 0.0))
    network.cut = False
    assert not moves(rig, 1.0) and rig.stopped, "it does not go on by itself"
    begin = time.monotonic()
    again(rig)
    follows(rig, 5.0)
    print(f"obeys again {time.monotonic() - begin:.1f} s after it was armed")


def test_fault_f19_a_tenth_of_a_second_without_a_network_is_no_reason_to_stop(rig, network):
    for _ in range(3):
        network.cut = True
        time.sleep(0.1)
        network.cut = False
        assert moves(rig, 0.7) and not rig.stopped
