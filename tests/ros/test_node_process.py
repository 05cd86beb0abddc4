"""How a process with a node ends."""

import signal
import subprocess
import sys
import time

START = """
import ctypes
from drivers.node_process import end_ros, spin, start_ros
asked = start_ros()
import rclpy
node = rclpy.create_node("ends")
"""
LOCKED = "node.destroy_node = lambda: ctypes.PyDLL(None).sleep(60)"  # as Fast DDS does it: it never lets go of the GIL


def _python(program: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", START + program], stderr=subprocess.PIPE, text=True)


def test_a_process_that_dds_locks_up_ends_all_the_same_and_says_where() -> None:
    process = _python(f"{LOCKED}\nend_ros(node)")
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "Timeout" in said and "in end_ros" in said


def test_a_second_word_kills_who_is_locked_up() -> None:
    process = _python(f"{LOCKED}\nprint('here', file=__import__('sys').stderr, flush=True)\nspin(node, asked)")
    assert process.stderr is not None and process.stderr.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(2.0) == -signal.SIGINT


def test_a_process_that_ends_in_order_says_nothing() -> None:
    process = _python("end_ros(node)\nprint('after', file=__import__('sys').stderr)")
    assert process.communicate(timeout=30)[1] == "after\n" and process.returncode == 0
