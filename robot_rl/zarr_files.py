"""The files of a zarr store before zarr sees them: in a folder, in a zip, or already read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from robot_rl import unpacking
from robot_rl.formats.paths import require_contained
from robot_rl.types import RobotRLError


class Files(Protocol):
    """Files by their path in the store, "data/state/0.0"."""

    origin: str
    """what to call the store in an error"""
    sizes: dict[str, int]
    """bytes that each file takes on the disk"""

    def read(self, name: str, start: int = 0, count: int | None = None) -> bytes:
        """`count` bytes of a file from `start` on; the whole file where nothing is given."""


class Folder:
    """A folder; raises RobotRLError where a link leads out of it, or there is a device or a pipe in it."""

    def __init__(self, path: Path) -> None:
        require_contained(path)
        self.origin, self._path, self.sizes = str(path), Path(path), dict[str, int]()
        for folder, _, names in os.walk(self._path):
            inside = os.path.relpath(folder, self._path)
            for name in names:
                key = name if inside == "." else f"{inside}/{name}"
                self.sizes[key] = os.stat(os.path.join(folder, name)).st_size

    def read(self, name: str, start: int = 0, count: int | None = None) -> bytes:
        """Bytes of a file."""
        with open(self._path / name, "rb") as file:
            file.seek(start)
            return file.read() if count is None else file.read(count)


class Zipped:
    """A zip, stored or deflated; raises RobotRLError for other methods, and for what unpacks to absurdly much."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.origin, self._archive, self.sizes = str(archive.filename), archive, dict[str, int]()
        for entry in archive.infolist():
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RobotRLError(f"{self.origin}: {entry.filename} is neither stored nor deflated; zip it again so")
            unpacking.require_plausible(entry.file_size, entry.compress_size, f"{self.origin}: {entry.filename}")
            if not entry.is_dir():
                self.sizes[entry.filename] = entry.compress_size

    def read(self, name: str, start: int = 0, count: int | None = None) -> bytes:
        """Bytes of a file."""
        with self._archive.open(name) as file:
            file.seek(start)
            return file.read() if count is None else file.read(count)


class Loaded:
    """Files that lie in the memory."""

    def __init__(self, origin: str, files: Mapping[str, bytes]) -> None:
        self.origin, self._files = origin, files
        self.sizes = {name: len(content) for name, content in files.items()}

    def read(self, name: str, start: int = 0, count: int | None = None) -> bytes:
        """Bytes of a file."""
        return self._files[name][start : None if count is None else start + count]
