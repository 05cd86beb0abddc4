"""A run's folder: `config.json`, git hash, `metrics.jsonl` and TensorBoard, one checkpoint to resume from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from robot_rl import configs, journal, sealed
from robot_rl.atomic import atomically
from robot_rl.sealed import read as read_torch
from robot_rl.types import Metrics, RobotRLError

__all__ = ["MIN_FREE", "Run", "atomically", "read_torch"]

CHECKPOINT, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"
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
        journal.append(self.path / "metrics.jsonl", {"step": step, **metrics})
        for key, value in metrics.items():
            self._board.add_scalar(key, value, step)

    def rewind(self, step: int) -> None:
        """Forget metrics past `step`, which a resumed run will write again."""
        journal.rewind(self.path / "metrics.jsonl", step)

    def save(self, state: dict[str, Any], name: str = CHECKPOINT) -> Path:
        """Write `state` so that a reader, or a crash, meets the old file or the new one, never half of one.

        Of the checkpoint the one before is kept too, to go on from where the newest turns out to be damaged.
        """
        path = self.path / name
        if name != CHECKPOINT or not path.exists():
            sealed.write(state, path)
            return path
        new = self.path / f".part-{name}"
        sealed.write(state, new)
        os.replace(path, self.path / PREVIOUS)
        os.replace(new, path)
        return path

    def load(self) -> dict[str, Any] | None:
        """The state that `save` wrote last and that is whole; None where the run has not got so far.

        A damaged checkpoint is renamed, which is said, and the one before is taken: the run does the rest again.
        """
        newest, before = self.path / CHECKPOINT, self.path / PREVIOUS
        try:
            if newest.exists():
                return sealed.read(newest)
        except RobotRLError as error:
            if not before.exists():
                raise
            state, damaged = sealed.read(before), self.path / DAMAGED
            os.replace(newest, damaged)
            print(f"{error}\nIt is now {damaged}; the run goes on from the checkpoint before it.", file=sys.stderr)
            return state
        return sealed.read(before) if before.exists() else None

    def _claim(self, described: dict[str, Any]) -> None:
        file = self.path / "config.json"
        if file.exists():
            there = journal.settings(file)
            if lines := configs.difference(described, there.get("config")):
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


def _git_hash() -> str:
    where = Path(__file__).parent
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=where, capture_output=True, text=True
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"
