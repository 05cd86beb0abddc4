"""A run's folder: `config.json`, git hash, `metrics.jsonl` and TensorBoard, one checkpoint to resume from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from robot_rl import configs
from robot_rl.types import Metrics, RobotRLError

MIN_FREE = 200 * 2**20  # bytes that must be free before a run starts


class Run:
    """The folder of one run of one verb. Opening a folder again resumes it; another config is refused."""

    def __init__(self, path: Path, verb: str, config: dict[str, Any]) -> None:
        self.path = Path(path)
        described = {"verb": verb, **{k: configs.to_data(v) for k, v in config.items()}}
        self._claim(described)
        self._board: SummaryWriter | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board:
            self._board.close()

    def log(self, step: int, metrics: Metrics) -> None:
        """One line of `metrics.jsonl`, and the same to TensorBoard. `step` counts what the verb counts."""
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step)
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for key, value in metrics.items():
            self._board.add_scalar(key, value, step)

    def rewind(self, step: int) -> None:
        """Forget metrics past `step`, which a resumed run will write again."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [
                line
                for line in path.read_text().splitlines(True)
                if line.endswith("\n") and json.loads(line)["step"] <= step
            ]
            atomically(path, lambda part: part.write_text("".join(kept)))

    def save(self, state: dict[str, Any], name: str = "checkpoint.pt") -> Path:
        """Write `state` so that a reader, or a crash, meets the old file or the new one, never half of one."""
        atomically(self.path / name, lambda part: torch.save(state, part))
        return self.path / name

    def load(self, name: str = "checkpoint.pt") -> dict[str, Any] | None:
        """What `save` wrote, or None where the run has not got so far."""
        path = self.path / name
        return read_torch(path) if path.exists() else None

    def _claim(self, described: dict[str, Any]) -> None:
        file = self.path / "config.json"
        if file.exists():
            there = json.loads(file.read_text())
            if lines := configs.difference(described, there["config"]):
                listing = "\n  ".join(lines)
                raise RobotRLError(
                    f"{self.path} holds a run of another config:\n  {listing}\n"
                    "Use its settings to resume it, or another folder."
                )
            return
        others = self.path.exists() and any(not f.name.startswith(".part-") for f in self.path.iterdir())
        if others and not file.exists():  # another process may just have begun the same run
            raise RobotRLError(f"{self.path} is not empty and holds no run of robot-rl; name another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self.path).free) < MIN_FREE:
            raise RobotRLError(
                f"only {free / 2**20:.0f} MiB are free at {self.path}; a run needs {MIN_FREE / 2**20:.0f}"
            )
        about = {
            "config": described,
            "git": _git_hash(),
            "command": sys.argv,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
        }
        mine = self.path / f".part-config-{os.getpid()}.json"  # an actor and a learner may begin at once
        atomically(mine, lambda part: part.write_text(json.dumps(about, indent=2) + "\n"))
        os.replace(mine, file)


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, and rename it into place."""
    part = path.with_name(f".part-{path.name}")
    try:
        write(part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        part.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free / 2**20
        raise RobotRLError(
            f"could not write {path} ({error}); {free:.0f} MiB are free. What was there before is untouched."
        ) from error


def read_torch(path: Path) -> dict[str, Any]:
    """A file of `torch.save`, tensors and plain data only: unpickling runs no code."""
    if not Path(path).is_file():
        raise RobotRLError(f"there is no checkpoint {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RobotRLError(
            f"{path} is not a readable checkpoint ({type(error).__name__}: {error}); train it again or use another"
        ) from error


def _git_hash() -> str:
    where = Path(__file__).parent
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=where, capture_output=True, text=True
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"
