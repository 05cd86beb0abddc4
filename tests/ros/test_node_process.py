"""How a process with a node ends."""

import signal
import subprocess
import sys
import time

START = """
import ctypes
import time
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


def test_two_words_do_not_break_the_end_and_the_third_kills_who_hangs() -> None:
    """A terminal's Ctrl-C, and one more from ros2 launch; then a person who has waited for 2 s."""
    hangs = "print('here', file=__import__('sys').stderr, flush=True)\nspin(node, asked, lambda: time.sleep(60))"
    process = _python(hangs)
    assert process.stderr is not None and process.stderr.readline() == "here\n"
    for pause in (0.2, 2.1):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(2.0) == -signal.SIGINT


def test_words_while_dds_ends_are_no_death() -> None:
    process = _python("print('here', file=__import__('sys').stderr, flush=True)\nspin(node, asked)\ntime.sleep(0.3)")
    assert process.stderr is not None and process.stderr.readline() == "here\n"
    for _ in range(8):
        process.send_signal(signal.SIGINT)
        time.sleep(0.04)
    assert process.communicate(timeout=10)[1] == "" and process.returncode == 0


def test_a_process_that_ends_in_order_says_nothing() -> None:
    process = _python("end_ros(node)\nprint('after', file=__import__('sys').stderr)")
    assert process.communicate(timeout=30)[1] == "after\n" and process.returncode == 0
