"""The view beside a real arm node over real DDS: it shows what was said."""

from __future__ import annotations

import signal

import pytest

from tests.ros.rig import Rig, robot_yaml
from tests.test_screen import shown

pytest.importorskip("rerun", reason="pip install 'robot-rl[view]'")
ENOUGH = 500_000  # bytes: a row takes a few thousand
pytestmark = pytest.mark.timeout(120)


def test_what_happens_is_in_the_recording(node, spawn, tmp_path):
    file = robot_yaml(tmp_path / "robot.yaml")
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Rig(node, file)
    out = tmp_path / "live.rrd"
    process = spawn("-m", "drivers.live_view", "--robot", file, "--out", out)
    rig.until(lambda: "view" in node.get_node_names(), 30, "the view is up")
    rig.arm("teleop")
    for _ in range(20):  # until enough was written, however busy the machine is
        rig.stroll(0.5, source="teleop")
        if out.exists() and out.stat().st_size > ENOUGH:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    rig.close()
    counts = shown(out)
    assert {"space/tool", "space/setpoint", "space/wishes/teleop", "arm/gripper", "episode/human", "log"} <= set(counts)
    assert counts["space/tool"] >= 5 and "cameras" not in counts
