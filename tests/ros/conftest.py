"""Real ROS between real processes: a domain of its own for every test, and nothing left running after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ros.rig import robot_yaml

ROOT = Path(__file__).parents[2]
DOMAINS = range(1, 102)  # of 0 to 101, those that Linux leaves free ports for; 0 is where people work


def pytest_collection_modifyitems(items):
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        # In real time on a shared machine a stall of the test's own process looks like the arm's silence, which rightly
        # stops the arm. A fault of ours shows again at once; reruns are counted in pytest's last line.
        item.add_marker(pytest.mark.flaky(reruns=2))
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        reason = f"NOT TESTED: ROS 2 is not importable ({error}); pip install 'robot-rl[ros]'"
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def domain(monkeypatch) -> int:
    """A ROS_DOMAIN_ID for this test and its children, on this machine only."""
    number = DOMAINS[(os.getpid() * 7919 + time.monotonic_ns() // 1000) % len(DOMAINS)]
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


@pytest.fixture
def spawn(domain, tmp_path):
    """`spawn(*arguments)` starts `python *arguments`; what it prints goes to the file `.log`. All are killed after."""
    started = []

    def start(*arguments: object) -> subprocess.Popen:
        log = tmp_path / f"process{len(started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process.log = log
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"--- {process.args[1:]} ended with {process.returncode}:\n{process.log.read_text(errors='replace')}")


@pytest.fixture
def file(tmp_path) -> Path:
    """The rig's robot."""
    return robot_yaml(tmp_path / "robot.yaml")


@pytest.fixture
def arm_node(spawn, file):
    """Its arm node, a process of its own."""
    return spawn("-m", "drivers.arm_node", "--robot", file)


@pytest.fixture
def node(domain):
    """A node of the test's own process; `wait_until` spins it."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    made = rclpy.create_node("test", context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


@pytest.fixture
def wait_until(node):
    """`wait_until(predicate, timeout)` spins `node` until the predicate holds, and returns what it gave; [s]."""
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def wait(predicate, timeout: float):
        until = time.monotonic() + timeout
        while not (held := predicate()):
            assert time.monotonic() < until, f"not within {timeout} s"
            executor.spin_once(timeout_sec=0.02)
        return held

    yield wait
    executor.shutdown()
