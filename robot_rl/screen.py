"""What rerun's viewer shows: pictures, poses and numbers over time. The one file that knows rerun (extra `view`).

Whoever shows something live does so from a process of its own, which listens and is never waited for. The viewer, or
the server that it reads from, keeps no more than `memory` and forgets the oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl import control
from robot_rl.geometry import matrix_from_quat
from robot_rl.types import Episode, RobotRLError, Spec

QUALITY = 80  # of JPEG, which the pictures become


@dataclass(frozen=True)
class ScreenConfig:
    """Where it is shown: in a window of this machine, unless something else is asked for."""

    out: Path | None = None
    """write a recording instead, a new file *.rrd"""
    serve: int = 0
    """let viewers on other machines read from this port instead: anyone who reaches it sees the pictures"""
    memory: str = "1GB"
    """that window or server keep at most"""

    def build(self, name: str) -> Screen:
        """Open it; raises where there is no rerun, or the file exists."""
        try:
            import rerun
        except ImportError as error:
            raise RobotRLError(f"a view needs rerun: pip install 'robot-rl[view]' ({error})") from error
        if self.out is not None and self.out.exists():
            raise RobotRLError(f"{self.out} exists and is not overwritten; remove it or choose another name")
        stream = rerun.RecordingStream(f"robot-rl {name}")
        if self.out is not None:
            stream.save(self.out)
        elif self.serve:
            address = stream.serve_grpc(grpc_port=self.serve, server_memory_limit=self.memory)
            print(f"to see it: rerun {address}")
        else:
            stream.spawn(memory_limit=self.memory)
        return Screen(rerun, stream)


class Screen:
    """Made by `ScreenConfig.build`. Everything lands at the moment that `at` named last."""

    def __init__(self, rerun: Any, stream: Any) -> None:
        self._rerun, self._stream = rerun, stream

    def at(self, moment: float) -> None:
        """[s]"""
        self._stream.set_time("time", timestamp=float(moment))

    def picture(self, name: str, image: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB, or depth (H, W, 1) uint16 [mm]."""
        if image.dtype == np.uint16:
            self._stream.log(name, self._rerun.DepthImage(image[..., 0], meter=1000.0))
        else:
            self._stream.log(name, self._rerun.Image(image).compress(jpeg_quality=QUALITY))

    def pose(self, name: str, position: np.ndarray, turn: np.ndarray) -> None:
        """Position (3,) [m] and quaternion (4,) xyzw, drawn as axes."""
        turned = matrix_from_quat(turn)  # the newest rerun for numpy 1 drops quaternions, with a warning
        self._stream.log(name, self._rerun.Transform3D(translation=position, mat3x3=turned, axis_length=0.1))

    def point(self, name: str, position: np.ndarray) -> None:
        """(3,) [m]"""
        self._stream.log(name, self._rerun.Points3D([position], radii=0.01))

    def path(self, name: str, points: np.ndarray) -> None:
        """(n, 3) [m], as a line."""
        self._stream.log(name, self._rerun.LineStrips3D([points], radii=0.002))

    def numbers(self, name: str, values: Mapping[str, float]) -> None:
        """A curve each."""
        for key, value in values.items():
            self._stream.log(f"{name}/{key}", self._rerun.Scalars(float(value)))

    def words(self, name: str, text: str) -> None:
        """A line of a log."""
        self._stream.log(name, self._rerun.TextLog(text))

    def close(self) -> None:
        """Send or write what is still held back."""
        self._stream.flush(blocking=True)
        self._stream.disconnect()


def show_episode(screen: Screen, spec: Spec, episode: Episode) -> None:
    """A stored episode: what was seen and done, in the units of `spec`, whose it was, and what agents remembered."""
    asked = control.to_physical(episode.action, spec.action)
    scalars = {f"remembered/{k}": v for k, v in episode.extras.items() if v.ndim == 1}
    vectors = {f"remembered/{k}": v for k, v in episode.extras.items() if v.ndim == 2}
    for t, moment in enumerate(episode.obs["stamp/state"]):
        screen.at(moment)
        screen.numbers("state", dict(zip([c.name for c in spec.state], episode.obs["state"][t], strict=True)))
        for camera in spec.cameras:
            screen.picture(f"cameras/{camera.name}", episode.obs[f"image/{camera.name}"][t])
        for name, rows in scalars.items():
            screen.numbers(name, {"value": rows[t]})
        for name, rows in vectors.items():
            screen.numbers(name, {str(i): v for i, v in enumerate(rows[t])})
        if t < len(episode):
            screen.numbers("action", dict(zip([c.name for c in spec.action], asked[t], strict=True)))
            told = {"reward": episode.reward[t], "score": episode.score[t], "human": episode.intervened[t]}
            screen.numbers("episode", told)
