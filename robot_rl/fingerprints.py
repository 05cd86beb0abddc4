"""What a run was made of, so that a resume notices when something else stands under the same path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robot_rl.episodes import EpisodeStore
from robot_rl.types import RobotRLError

Fingerprints = dict[str, dict[str, Any]]  # by resolved path
PIECE = 2**20  # of a file that is held at a time [bytes]


def of_stores(stores: Iterable[tuple[EpisodeStore, int]]) -> Fingerprints:
    """Of so many first episodes of each store."""
    return {
        str(store.path.resolve()): {"episodes": episodes, "sha256": store.fingerprint(episodes)}
        for store, episodes in stores
    }


def of_files(files: Iterable[Path]) -> Fingerprints:
    """Of whole files."""
    return {str(Path(file).resolve()): {"sha256": _digest(Path(file))} for file in files}


def _digest(file: Path) -> str:
    sha = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            while piece := opened.read(PIECE):
                sha.update(piece)
    except OSError as error:
        raise RobotRLError(f"{file} cannot be read ({error.strerror}); make it again, or name another") from error
    return sha.hexdigest()
