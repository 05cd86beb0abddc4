"""What the HDF5 formats share: a group `data` with one group `demo_<i>` a demonstration, and errors that name them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl.formats import hdf5_guard
from robot_rl.types import RobotRLError


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file at `path`, for reading; raises where it is missing, no HDF5, cut short, or reads other files."""
    if not path.is_file():
        raise RobotRLError(f"{path} is no file; give the path of an HDF5 file of demonstrations")
    try:
        with h5py.File(path, "r") as file:
            hdf5_guard.require_safe(file)
            yield file
    except OSError as error:
        raise RobotRLError(f"{path} is not a whole HDF5 file ({error}); copy or download it again") from error


def demos(file: h5py.File) -> Iterator[tuple[str, str, h5py.Group]]:
    """Every demonstration in the order recorded: its name, how to call it in an error, and its group."""
    data = file.get("data")
    found = [name for name in data if re.fullmatch(r"demo_\d+", name)] if isinstance(data, h5py.Group) else []
    if not found:
        raise RobotRLError(f"{file.filename} holds no demonstrations: it has no data/demo_<i>; is it another format?")
    for name in sorted(found, key=lambda n: int(n[5:])):
        yield name, f"{file.filename}: {name}", data[name]


def array(group: h5py.Group, key: str, where: str) -> np.ndarray:
    """The dataset `key` of a demonstration; raises where it is missing or holds NaN or infinity."""
    if not isinstance(group.get(key), h5py.Dataset):
        raise RobotRLError(f"{where} lacks '{key}'; it has {sorted(group)}. Record or convert it again with it")
    hdf5_guard.require_numbers(group[key], where)
    values = group[key][()]
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        first = int(np.argmax(~np.isfinite(values).reshape(len(values), -1).all(1)))
        raise RobotRLError(f"{where}: '{key}' holds NaN or infinity, first at step {first}; remove it from the file")
    return values


def require_equal_lengths(lengths: dict[str, int], where: str) -> None:
    """Raise unless every array of a demonstration has as many rows, and one at least."""
    if len(set(lengths.values())) != 1:
        raise RobotRLError(f"{where} has arrays of unequal lengths: {lengths}; the recording is incomplete, remove it")
    if 0 in lengths.values():
        raise RobotRLError(f"{where} is empty: its arrays have no rows; remove it from the file")


def json_attribute(group: h5py.Group, key: str) -> dict[str, Any]:
    """The attribute `key`, a JSON object."""
    try:
        value = json.loads(group.attrs[key])
    except (KeyError, TypeError, ValueError) as error:
        raise RobotRLError(
            f"{group.file.filename}: the attribute '{key}' of {group.name} is missing or no JSON ({error}); "
            f"it has {sorted(group.attrs)}. Record or convert the file again"
        ) from error
    if not isinstance(value, dict):
        raise RobotRLError(f"{group.file.filename}: the attribute '{key}' of {group.name} is no JSON object")
    return value
