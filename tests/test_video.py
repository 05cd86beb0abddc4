"""A written video has every frame, in a form that browsers play."""

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.types import RobotRLError
from robot_rl.video import write_video


def _decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 70), height=st.integers(1, 50), width=st.integers(1, 50), rate=st.sampled_from([0.5, 10, 29.97])
)
def test_every_frame_comes_back(tmp_path_factory, n, height, width, rate):
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, [np.full((height, width, 3), 200 * (i % 2), np.uint8) for i in range(n)], rate)
    frames = _decode(path)
    assert len(frames) == n
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    assert [int(f.mean() > 100) for f in frames] == [i % 2 for i in range(n)]  # in order, none blended


def test_colours_and_time_survive(tmp_path):
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 230
    write_video(tmp_path / "red.mp4", [red] * 20, 10.0)
    assert np.abs(_decode(tmp_path / "red.mp4")[7].astype(int) - red).max() < 12
    with av.open(str(tmp_path / "red.mp4")) as file:
        stream = file.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(2.0, abs=0.01)


def test_browsers_play_it(tmp_path):
    write_video(tmp_path / "a.mp4", [np.zeros((33, 47, 3), np.uint8)] * 5, 20)
    with av.open(str(tmp_path / "a.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(
    ("frames", "rate", "message"),
    [
        ([], 10, "no frames"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], 10, "frame 1"),
        ([np.zeros((4, 4, 3), np.float32)], 10, "float32"),
        ([np.zeros((4, 4, 3), np.uint8)], 0, "0 Hz"),
    ],
)
def test_refuses(tmp_path, frames, rate, message):
    with pytest.raises(RobotRLError, match=message):
        write_video(tmp_path / "a.mp4", frames, rate)
    assert not any(tmp_path.iterdir())


def test_a_failure_midway_leaves_the_old_video(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 3, 10)
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robot_rl.video.os.replace", full)
    with pytest.raises(RobotRLError, match="No space left"):
        write_video(path, [np.ones((16, 16, 3), np.uint8)] * 9, 10)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
