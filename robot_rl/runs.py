"""A run's folder: `config.json`, git hash, `metrics.jsonl` and TensorBoard, one checkpoint to resume from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from robot_rl import configs, journal, outputs, sealed
from robot_rl.atomic import atomically
from robot_rl.fingerprints import Fingerprints
from robot_rl.sealed import read as read_torch
from robot_rl.types import Metrics, RobotRLError

__all__ = ["MIN_FREE", "Run", "atomically", "read_torch"]

CHECKPOINT, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"
MIN_FREE = 200 * 2**20  # bytes that must be free before a run starts


class Run:
    """The folder of one run of one verb. Opening a folder again resumes it; another config is refused.

    As a context it holds the folder (`parts` of it, see `outputs.py`) and refuses one that holds something else.
    `begin` is called once all else has been checked, and writes `config.json`: what is refused leaves no run behind.
    On resuming, the settings in `free` may have changed, and those in `grows` may be larger; each is named by its path.
    """

    def __init__(
        self,
        path: Path,
        verb: str,
        config: dict[str, Any],
        *,
        free: Sequence[str] = (),
        grows: Sequence[str] = (),
        parts: Sequence[str] = outputs.WHOLE,
    ) -> None:
        self.path = Path(path)
        self._described = {"verb": verb, **{k: configs.to_data(v) for k, v in config.items()}}
        self._free, self._grows, self._parts = free, grows, parts
        self._board: SummaryWriter | None = None
        self._begun, self._stack = False, ExitStack()

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            stack.enter_context(outputs.folder(self.path, self._parts, 0 if self._file.exists() else MIN_FREE))
            self._require_mine()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board:
            self._board.close()
        self._stack.close()

    def begin(self, sources: Fingerprints | None = None) -> None:
        """Write `config.json`, or what changed of it; raises where `sources` are not what the run began with."""
        self._begun = True
        self.path.mkdir(parents=True, exist_ok=True)
        about = self._about()
        recorded = about.setdefault("sources", sources or {})
        for name, fingerprint in (sources or {}).items():
            if name in recorded and recorded[name] != fingerprint:
                raise RobotRLError(
                    f"{name} is not what the run in {self.path} began with ({_told(recorded[name])} then, "
                    f"{_told(fingerprint)} now): begin a new run in another folder, or put back what was there"
                )
        if changed := self._changes(about["config"]):
            print(f"{self.path} goes on with {', '.join(changed)}", file=sys.stderr)
            about["config"] = self._described
            about.setdefault("resumed", []).append({"changed": changed, "command": sys.argv, "git": _git_hash()})
        if changed or not self._file.exists():
            atomically(self._file, lambda part: part.write_text(json.dumps(about, indent=2) + "\n"))

    @property
    def sources(self) -> Fingerprints:
        """What the run began with, where it has; see `begin`."""
        return self._about().get("sources", {}) if self._file.exists() else {}

    def log(self, step: int, metrics: Metrics) -> None:
        """One line of `metrics.jsonl`, and the same to TensorBoard. `step` counts what the verb counts."""
        self._require_begun()
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
        self._require_begun()
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

    @property
    def _file(self) -> Path:
        return self.path / "config.json"

    def _require_begun(self) -> None:
        if not self._begun:
            self.begin()

    def _about(self) -> dict[str, Any]:
        """What `config.json` says, or is to say."""
        if self._file.exists():
            about = journal.settings(self._file)
            if isinstance(about.get("config"), dict):
                return about
            raise RobotRLError(f"{self._file} is damaged (it has no config): begin a new run in another folder")
        return {
            "config": self._described,
            "git": _git_hash(),
            "command": sys.argv,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
        }

    def _require_mine(self) -> None:
        """Raise where the folder holds another run, or something else."""
        if self._file.exists():
            there = self._about()["config"]
            changed = self._changes(there)
            if lines := [line for line in configs.difference(self._described, there) if line not in changed]:
                listing = "\n  ".join(lines)
                raise RobotRLError(
                    f"{self.path} holds a run of another config:\n  {listing}\n"
                    "Use its settings to resume it, or another folder."
                )
            return
        if any(not f.name.startswith((".part-", ".lock-")) for f in self.path.iterdir()) and not self._file.exists():
            # looked for twice: another process may just have begun the same run
            raise RobotRLError(f"{self.path} is not empty and holds no run of robot-rl; name another folder")

    def _changes(self, there: dict[str, Any]) -> list[str]:
        """The lines of those differences from the config `there` with which it may be resumed."""
        lines = configs.difference(self._described, there)
        path = {line: line.partition(": ")[0] for line in lines}
        may = [*self._free]
        for key in (key for key in self._grows if key in path.values()):
            mine, its = (configs.at(data, key) for data in (self._described, there))
            if not isinstance(its, int):
                continue  # another config altogether, or a damaged one
            if mine < its:
                raise RobotRLError(
                    f"the run in {self.path} has {key} {its}, which may grow on resuming and not fall to {mine}"
                )
            may.append(key)
        return [line for line in lines if path[line] in may]


def _told(fingerprint: dict[str, Any]) -> str:
    many = f"{fingerprint['episodes']} episodes, " if "episodes" in fingerprint else ""
    return f"{many}{fingerprint['sha256'][:12]}"


def _git_hash() -> str:
    where = Path(__file__).parent
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=where, capture_output=True, text=True
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"
