"""What a node's command line says to ROS, and signals at any moment of its life: one line and 2, or silence and 0."""

from __future__ import annotations

import os
import signal
import time

import pytest

from drivers import arm_node, camera_node, live_view, recorder
from drivers.ros_arguments import split_ros_arguments
from tests.ros.rig import robot_yaml

pytestmark = pytest.mark.timeout(120)
FIRST = 0.25  # the interpreter itself takes up to 0.1 s on a busy machine before the first line of ours [s]


@pytest.fixture
def file(tmp_path):
    camera = {"topic": "w", "height": 4, "width": 4, "device": "opencv:/dev/video97"}
    return robot_yaml(tmp_path / "robot.yaml", cameras={"wrist": camera})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "typo.yaml").write_text("/**:\n  ros__parameters: {speed_scal: 0.5}\n")
    (tmp_path / "high.yaml").write_text("arm_node:\n  ros__parameters: {speed_scale: 5.0}\n")
    (tmp_path / "none.yaml").write_text("speed_scale: 0.5\n")
    (tmp_path / "bomb.yaml").write_text("a: &a [*a]\n")
    return tmp_path


WRONG = {
    "a word": (["-p", "speed_scale:=abc"], "the parameter speed_scale takes a number with a point, from 0.01 to 1: "),
    "no point": (["-p", "speed_scale:=1"], "takes a number with a point"),
    "too large": (["-p", "speed_scale:=5.0"], "from 0.01 to 1: "),
    "of a node": (["-p", "arm_node:speed_scale:=5.0"], "from 0.01 to 1: "),
    "misspelt": (["-p", "speed_scal:=0.5"], "there is no parameter 'speed_scal': did you mean 'speed_scale'?"),
    "unknown": (["--param", "foo:=0.5"], "there is no parameter 'foo'; there are: speed_scale"),
    "no value": (["-p", "speed_scale"], "Couldn't parse parameter override rule"),
    "no bool": (["-p", "use_sim_time:=maybe"], "'use_sim_time' to 'maybe'"),
    "no file": (["--params-file", "missing.yaml"], "missing.yaml cannot be read: No such file"),
    "a typo in a file": (["--params-file", "typo.yaml"], "'speed_scal', which is none: did you mean 'speed_scale'?"),
    "too high in a file": (["--params-file", "high.yaml"], "from 0.01 to 1: "),
    "no parameters": (["--params-file", "none.yaml"], "holds none: it takes NODE"),
    "a bomb": (["--params-file", "bomb.yaml"], "is no YAML: the alias"),
    "no level": (["--log-level", "loud"], "Couldn't parse log level"),
    "no remap": (["-r", "garbage"], "Couldn't parse remap rule"),
    "no name": (["-r", "__node:=bad name"], "Couldn't parse remap rule"),
    "no namespace": (["-r", "__ns:=bad ns"], "Couldn't parse remap rule"),
    "no flag": (["--frobnicate"], "nothing called '--frobnicate' after --ros-args"),
}


@pytest.mark.parametrize("ros, words", WRONG.values(), ids=WRONG)
def test_fault_f48_what_ros_is_told_and_cannot_be_is_one_line(domain, file, files, monkeypatch, capfd, ros, words):
    import rclpy

    monkeypatch.chdir(files)
    try:
        assert arm_node.main(["--robot", str(file), "--ros-args", *ros]) == 2
    finally:
        rclpy.try_shutdown()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    said = capfd.readouterr().err
    assert said.startswith("arm_node: ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "module, more, ros, words",
    [
        (recorder, ["--out", "store"], ["-p", "free_gib:=1e12"], "the parameter free_gib takes"),
        (camera_node, ["--camera", "wrist"], ["-p", "frame_id:=3"], "the parameter frame_id takes a word"),
        (live_view, ["--out", "view.rrd"], ["--log-level", "loud"], "log level"),
    ],
)
def test_fault_f48_so_do_the_other_nodes(domain, file, files, monkeypatch, capfd, module, more, ros, words):
    import rclpy

    if module is live_view:
        pytest.importorskip("rerun")
    monkeypatch.chdir(files)
    try:
        assert module.main(["--robot", str(file), *more, "--ros-args", *ros]) == 2
    finally:
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    said = capfd.readouterr().err
    assert words in said and said.count("\n") == 1


def test_fault_f48_a_verb_is_told_too_and_exits_with_2(spawn, file):
    process = spawn("-m", "robot_rl.cli", "check", "--robot", file, "--ros-args", "-p", "speed_scal:=0.5")
    assert process.wait(60) == 2
    assert process.log.read_text().startswith("robot-rl: there is no parameter 'speed_scal'")


def test_what_follows_the_end_of_ros_words_is_ours():
    words = ["--robot", "x", "--ros-args", "-p", "a:=1", "--", "--camera", "y"]
    assert split_ros_arguments(words) == (["--robot", "x", "--camera", "y"], words[2:6])


@pytest.mark.parametrize("moments", [(FIRST,), (0.5,), (1.0,), (2.0,), (0.5, 0.3), (2.0, 0.1), (2.0, 0.3), (2.0, 0.01)])
def test_fault_f48_interrupted_at_any_moment_it_ends_with_0_and_no_word(spawn, file, moments):
    process = spawn("-m", "drivers.arm_node", "--robot", file)
    for pause in moments:
        time.sleep(pause)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("moment", [FIRST, 0.6, 2.0])
def test_fault_f48_a_terminal_and_a_launch_may_both_interrupt_whoever_records(spawn, file, tmp_path, moment):
    process = spawn("-m", "drivers.recorder", "--robot", file, "--out", tmp_path / "store")
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert "Traceback" not in process.log.read_text()


def test_fault_f48_a_simulation_and_its_cameras_process_end_quietly(spawn, node, wait_until):
    from tests.ros.test_sim_cameras import ROBOT

    process = spawn("-m", "robot_rl.cli", "simulate", "--robot", ROBOT)
    wait_until(lambda: node.count_publishers("current_pose"), 90)
    time.sleep(0.5)  # the cameras' process imports
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    assert "Traceback" not in process.log.read_text()
