"""What is shown in rerun's viewer, read back from its own recording file."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from drivers.live_view import LiveView
from drivers.sync import Stream
from robot_rl import cli
from robot_rl.episodes import EpisodeStore
from robot_rl.screen import ScreenConfig
from robot_rl.types import ArmState, RobotRLError
from tests.test_episodes import SPEC
from tests.test_inspect import in_range

rerun = pytest.importorskip("rerun", reason="pip install 'robot-rl[view]'")
pytestmark = pytest.mark.filterwarnings("error")  # rerun drops what it cannot show, and only warns


def shown(path) -> dict[str, int]:
    """Every entity of a recording, and how many times it has."""
    recording = rerun.dataframe.load_recording(path)
    entities = {c.entity_path.lstrip("/") for c in recording.schema().component_columns() if not c.is_static}
    counts = {}
    for entity in entities:
        counts[entity] = recording.view(index="time", contents=f"/{entity}").select().read_all().num_rows
    return counts


def arm(stamp):
    return ArmState(stamp, np.full(3, stamp), np.array([0, 0, 0, 1.0]), np.zeros(7), 1.0, np.zeros(6))


def test_every_reading_is_shown_once_at_most_and_silence_costs_nothing(tmp_path):
    readings, pictures, tracker = Stream("arm", 9), Stream("top", 8), Stream("cube", 9)
    listener = SimpleNamespace(readings=readings)
    streams = SimpleNamespace(listener=listener, sensors={"cube": tracker}, shown={"top": pictures}, success=False)
    screen = ScreenConfig(out=tmp_path / "live.rrd").build("bench")
    view = LiveView(screen, streams)
    view.show()  # nothing came yet
    for k in range(4):
        readings.add(100.0 + k, arm(100.0 + k))
        if k % 2:
            pictures.add(100.0 + k, np.full((6, 8, 3), 9 * k, np.uint8))
            tracker.add(100.0 + k, {"x": 0.1})
        view.asked["wishes/policy"].add(100.0 + k, np.zeros(3))
        view.plan.add(100.0 + k, np.arange(9.0).reshape(3, 3))
        view.value.add(100.0 + k, 0.5)
        view.status = ("teleop" if k > 1 else "policy", "")
        view.show()
        view.show()
    screen.close()
    counts = shown(tmp_path / "live.rrd")
    assert counts["space/tool"] == counts["arm/joint0"] == counts["episode/human"] == counts["space/wishes/policy"] == 4
    assert counts["space/plan"] == counts["policy/value"] == 4
    assert counts["cameras/top"] == counts["sensors/cube/x"] == 2
    assert counts["log"] == 2  # the policy commands; then a person
    assert "space/setpoint" not in counts


def test_a_stored_episode_is_shown_whole(tmp_path, capsys):
    with EpisodeStore.create(tmp_path / "store", SPEC) as store:
        store.append(in_range())
    out = tmp_path / "stored.rrd"
    assert cli.main(["view", "--store", str(tmp_path / "store"), "--out", str(out)]) == 0
    counts = shown(out)
    T = 70
    assert {counts[f"cameras/{c.name}"] for c in SPEC.cameras} == {T + 1}
    assert counts[f"state/{SPEC.state[0].name}"] == T + 1 and counts["episode/human"] == counts["episode/reward"] == T
    assert counts["remembered/base/0"] == T + 1
    assert cli.main(["view", "--store", str(tmp_path / "store"), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["view", "--store", str(tmp_path / "store"), "--episode", "3"]) == 2
    assert "no episode 3" in capsys.readouterr().err
    assert cli.main(["view"]) == 2 and "--robot" in capsys.readouterr().err


def test_a_recording_is_not_overwritten(tmp_path):
    (tmp_path / "a.rrd").write_text("precious")
    with pytest.raises(RobotRLError, match="exists"):
        ScreenConfig(out=tmp_path / "a.rrd").build("it")
    assert (tmp_path / "a.rrd").read_text() == "precious"


def test_a_viewer_elsewhere_reads_what_is_served_also_what_came_before_it(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    screen = ScreenConfig(serve=port).build("bench")
    address = capsys.readouterr().out.split()[-1]
    for k in range(5):
        screen.at(100.0 + k)
        screen.numbers("arm", {"joint0": k})
        screen.picture("cameras/near", np.full((4, 6, 1), 500 + k, np.uint16))
    file = tmp_path / "seen.rrd"
    viewer = Path(sys.executable).with_name("rerun")
    reading = subprocess.Popen([viewer, "--save", file, "--connect", address], stderr=subprocess.DEVNULL)
    try:
        end, size = time.monotonic() + 30, 0
        while not (file.exists() and 2000 < file.stat().st_size == size):  # all is there, and no more comes
            assert time.monotonic() < end and reading.poll() is None
            size = file.stat().st_size if file.exists() else 0
            time.sleep(0.5)
    finally:
        reading.kill()  # SIGINT is ignored where the tests run in the background
        reading.wait()
    screen.close()
    assert shown(file) == {"arm/joint0": 5, "cameras/near": 5}
