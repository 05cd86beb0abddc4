"""The camera's node as a process of its own, heard over real DDS."""

from __future__ import annotations

import signal
import time

import cv2
import numpy as np
import pytest
import yaml

from drivers.messages import frame_of, stamp_of
from tests.ros.conftest import ROOT

HEIGHT, WIDTH, RATE = 48, 64, 30
STARTED = 20.0  # a process that imports rclpy on a busy machine [s]
FROZEN = 150  # grey of the picture that stays


@pytest.fixture
def robot(tmp_path):
    """A robot's file with one camera, which plays a video: grey rises 2 a picture for 3 s, then stays for 1 s."""
    greys = [20 + 2 * (i % 50) for i in range(3 * RATE)] + [FROZEN] * RATE
    video = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for grey in greys:
        picture = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
        picture[:, : WIDTH // 2, 2] = 255  # BGR: the left half is reddish
        writer.write(picture)
    writer.release()
    data = yaml.safe_load((ROOT / "launch/params/sim_panda_lift.yaml").read_text())
    mode = {"height": HEIGHT, "width": WIDTH, "rate": float(RATE)}
    data["cameras"] = {
        "wrist": mode | {"topic": "wrist/image_raw", "device": f"opencv:{video}"},
        "side": mode | {"topic": "side/image_raw", "device": "sim:side"},
        "gone": mode | {"topic": "gone/image_raw", "device": "opencv:/dev/video97"},
    }
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.fixture
def start(spawn, robot):
    return lambda name="wrist", *more: spawn("-m", "drivers.camera_node", "--robot", robot, "--camera", name, *more)


@pytest.fixture
def listen(node):
    """`listen(type, topic, qos)` gives a list that fills with (moment of arrival [s], message)."""

    def subscribe(kind, topic, qos):
        heard = []
        node.create_subscription(kind, topic, lambda message: heard.append((time.time(), message)), qos)
        return heard

    return subscribe


@pytest.fixture
def pictures(listen):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    return listen(Image, "wrist/image_raw", qos_profile_sensor_data)


@pytest.fixture
def diagnostics(listen):
    from diagnostic_msgs.msg import DiagnosticArray

    return listen(DiagnosticArray, "diagnostics", 10)


def values(message):
    return {pair.key: float(pair.value) for pair in message.status[0].values}


def test_pictures_arrive_as_taken_with_frame_stamp_and_rate(start, pictures, diagnostics, wait_until):
    start("wrist", "--ros-args", "-p", "frame_id:=hand_lens")
    wait_until(lambda: len(pictures) >= 40 and len(diagnostics) >= 2, STARTED)
    frames = [frame_of(message) for _, message in pictures]
    for (arrival, message), frame in zip(pictures, frames, strict=True):
        assert message.header.frame_id == "hand_lens" and message.encoding == "rgb8"
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and 0 <= arrival - frame.stamp < 0.5
        left, right = frame.image[:, : WIDTH // 2 - 8], frame.image[:, WIDTH // 2 + 8 :]
        assert left[..., 0].mean() > 245 and np.ptp(right.mean((0, 1))) < 6, "red is the first channel"
    stamps = np.array([frame.stamp for frame in frames])
    assert np.median(np.diff(stamps)) == pytest.approx(1 / RATE, rel=0.2) and (np.diff(stamps) > 0).all()
    status = diagnostics[-1][1].status[0]
    assert (status.name, status.hardware_id.split(":")[0]) == ("camera wrist", "opencv")
    assert values(diagnostics[-1][1])["rate [Hz]"] == pytest.approx(RATE, rel=0.3)


def test_fault_f10_a_frozen_camera_is_reported_within_200_ms(start, pictures, diagnostics, wait_until):
    start()

    def report():
        return [m for _, m in diagnostics if m.status[0].level == b"\x02" and "frozen" in m.status[0].message]

    def moves():
        return pictures and abs(frame_of(pictures[-1][1]).image[:, -8:].mean() - FROZEN) > 3

    wait_until(moves, STARTED)  # where discovery takes 3 s, the first that is heard is in the middle of the freeze
    diagnostics.clear()
    found = stamp_of(wait_until(report, STARTED)[0].header)
    frames = [frame_of(message) for _, message in pictures]
    moved = next(f.stamp for f in frames if abs(f.image[:, -8:].mean() - FROZEN) > 3)
    stuck = [f.stamp for f in frames if moved < f.stamp < found and abs(f.image[:, -8:].mean() - FROZEN) < 3]
    assert 0.1 < found - stuck[0] <= 0.2, "of the first picture that stays"


def test_fault_f12_a_reliable_subscriber_is_reported_within_2_s_with_the_remedy(start, listen, diagnostics, wait_until):
    from sensor_msgs.msg import Image

    process = start()
    wait_until(lambda: diagnostics, STARTED)
    heard = listen(Image, "wrist/image_raw", 10)
    wait_until(lambda: "qos_profile_sensor_data (best effort" in process.log.read_text(), 2.0)
    assert "a subscriber to /wrist/image_raw gets no pictures: its QoS policy RELIABILITY" in process.log.read_text()
    wait_until(lambda: values(diagnostics[-1][1])["subscribers refused for their QoS"] == 1, 2.0)
    assert not heard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fault_f28_a_signal_ends_it_cleanly_within_two_seconds(start, pictures, wait_until, number):
    process = start()
    wait_until(lambda: pictures, STARTED)
    process.send_signal(number)
    assert process.wait(timeout=2.0) == 0
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("side", "robot-rl simulate"),
        ("gone", "there is no camera or video /dev/video97"),
        ("nose", "no camera 'nose': it has"),
    ],
)
def test_a_camera_that_cannot_be_opened_ends_it_with_2_and_the_reason(start, name, words):
    process = start(name)
    assert process.wait(timeout=STARTED) == 2
    assert words in process.log.read_text() and "Traceback" not in process.log.read_text()


def test_the_frame_cannot_be_changed_while_it_runs_and_is_described(start, node, pictures, wait_until):
    from rcl_interfaces.srv import DescribeParameters, SetParameters
    from rclpy.parameter import Parameter

    start()
    wait_until(lambda: pictures, STARTED)

    def answer(kind, service, request):
        client = node.create_client(kind, f"wrist_camera/{service}")
        wait_until(client.service_is_ready, 5.0)
        future = client.call_async(request)
        wait_until(future.done, 5.0)
        return future.result()

    described = answer(
        DescribeParameters, "describe_parameters", DescribeParameters.Request(names=["frame_id"])
    ).descriptors[0]
    assert described.read_only and "tf frame" in described.description
    change = Parameter("frame_id", value="elsewhere").to_parameter_msg()
    assert not answer(SetParameters, "set_parameters", SetParameters.Request(parameters=[change])).results[0].successful
