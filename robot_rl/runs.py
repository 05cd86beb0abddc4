"""A run's folder: `config.json`, git hash, `metrics.jsonl` and TensorBoard, one checkpoint to resume from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from robot_rl import configs, outputs
from robot_rl.fingerprints import Fingerprints
from robot_rl.types import Metrics, RobotRLError

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
            mine = self.path / f".part-config-{os.getpid()}.json"  # an actor and a learner may begin at once
            atomically(mine, lambda part: part.write_text(json.dumps(about, indent=2) + "\n"))
            os.replace(mine, self._file)

    @property
    def sources(self) -> Fingerprints:
        """What the run began with, where it has; see `begin`."""
        return self._about().get("sources", {}) if self._file.exists() else {}

    def log(self, step: int, metrics: Metrics) -> None:
        """One line of `metrics.jsonl`, and the same to TensorBoard. `step` counts what the verb counts."""
        self._require_begun()
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
        self._require_begun()
        atomically(self.path / name, lambda part: torch.save(state, part))
        return self.path / name

    def load(self, name: str = "checkpoint.pt") -> dict[str, Any] | None:
        """What `save` wrote, or None where the run has not got so far."""
        path = self.path / name
        return read_torch(path) if path.exists() else None

    @property
    def _file(self) -> Path:
        return self.path / "config.json"

    def _require_begun(self) -> None:
        if not self._begun:
            self.begin()

    def _about(self) -> dict[str, Any]:
        """What `config.json` says, or is to say."""
        if self._file.exists():
            try:
                about: dict[str, Any] = json.loads(self._file.read_text())
                if isinstance(about["config"], dict):
                    return about
                found = "its config is none"
            except (KeyError, TypeError, ValueError, OSError) as error:
                found = str(error)
            raise RobotRLError(f"{self._file} is damaged ({found}): begin a new run in another folder")
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
