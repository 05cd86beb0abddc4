"""What the HDF5 formats share: a group `data` with one group `demo_<i>` a demonstration, and errors that name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot_rl import memory
from robot_rl.formats import guard, hdf5_guard, metadata, pictures
from robot_rl.formats.account import Account
from robot_rl.formats.metadata import Metadata
from robot_rl.formats.seen import LARGEST, odd
from robot_rl.types import CameraSpec, RobotRLError

PIECE = 16  # pictures read at a time
WIDEST = 4096  # numbers of one vector


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file at `path`, for reading; raises where it is missing, no HDF5, cut short, or reads other files."""
    if not path.is_file():
        raise RobotRLError(f"{path} is no file; give the path of an HDF5 file of demonstrations")
    guard.require_file(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise RobotRLError(f"{path} is not a whole HDF5 file ({error}); copy or download it again") from error
    with file, guard.reading(str(path)):
        hdf5_guard.require_safe(file)
        yield file


DEMO = "demo_[0-9]{1,9}"


def demos(file: h5py.File, chosen: set[str] | None = None) -> Iterator[tuple[str, str, h5py.Group]]:
    """Every demonstration, or those `chosen`, in the order recorded: its name, how to call it, and its group."""
    with guard.reading(f"{file.filename}: data"):
        data = file.get("data")
        names = list(data) if isinstance(data, h5py.Group) else []
        found = [n for n in names if re.fullmatch(DEMO, n) and (chosen is None or n in chosen)]
    if not found:
        raise RobotRLError(f"{file.filename} holds no demonstrations: it has no data/demo_<i>; is it another format?")
    for name in sorted(found, key=lambda n: int(n[5:])):
        yield name, f"{file.filename}: {name}", group(data, name, f"{file.filename}: data")


def masked(file: h5py.File, filter_key: str | None, account: Account) -> set[str] | None:
    """The demonstrations in the mask `filter_key`; None: all. What `data` holds beside demonstrations is told."""
    with guard.reading(f"{file.filename}: mask"):
        masks, data = file.get("mask"), file.get("data")
        held = sorted(data) if isinstance(data, h5py.Group) else []
    if odd := [name for name in held if not re.fullmatch(DEMO, name)]:
        more = f" and {len(odd) - 6} more" if len(odd) > 6 else ""
        account.leave_out(f"data/{', '.join(odd[:6])}{more}", "not called demo_<i>")
    there = sorted(masks) if isinstance(masks, h5py.Group) else []
    if filter_key is None:
        for name in there:
            account.leave_out(f"mask {name}", "all demonstrations are read, choose with --filter-key")
        return None
    if filter_key not in there:
        raise RobotRLError(f"{file.filename} has no mask '{filter_key}'; it has: {', '.join(there) or 'none'}")
    where = f"{file.filename}: mask '{filter_key}'"
    with guard.reading(where):
        names = {name.decode() if isinstance(name, bytes) else str(name) for name in masks[filter_key][()].ravel()}
    if not names:
        raise RobotRLError(f"{where} names nothing; choose another mask, or leave --filter-key out")
    if unknown := sorted(names - {name for name in held if re.fullmatch(DEMO, name)}):
        raise RobotRLError(
            f"{where} names {some_of(unknown)}, which is not in the file as data/demo_<i>: mend the mask, rename the "
            "demonstration so, or choose another mask"
        )
    return names


def group(parent: h5py.Group, key: str, where: str) -> h5py.Group:
    """The group `key` in `parent`."""
    with guard.reading(f"{where}: '{key}'"):
        found = parent.get(key)
    if not isinstance(found, h5py.Group):
        raise RobotRLError(
            f"{where}: '{key}' is no group; it has {some(parent)}. Copy the file again, or convert it anew"
        )
    return found


def dataset(parent: h5py.Group, key: str, where: str) -> h5py.Dataset:
    """The dataset `key` in `parent`: one of numbers, with rows."""
    with guard.reading(f"{where}: '{key}'"):
        found = parent.get(key)
        if not isinstance(found, h5py.Dataset):
            raise RobotRLError(f"{where} lacks '{key}'; it has {some(parent)}. Record or convert it again with it")
        if found.shape is None or not found.shape or found.dtype.kind not in "biuf" or found.dtype.itemsize > 8:
            raise RobotRLError(f"{where}: '{key}' is {found.dtype} {found.shape}; it must hold rows of numbers")
    return found


def array(parent: h5py.Group, key: str, where: str, rows: int | None = None) -> np.ndarray:
    """The first `rows` rows, or all, of a demonstration's dataset; raises where it is missing, or NaN or infinite."""
    found = dataset(parent, key, where)
    size = found.dtype.itemsize * int(np.prod(found.shape[1:], dtype=np.float64)) * (rows or found.shape[0])
    memory.require(2 * size, f"{where}: '{key}' {found.shape}")
    with guard.reading(f"{where}: '{key}'"):
        values = found[:rows]
    if np.issubdtype(values.dtype, np.floating) and not (sound := np.abs(values) <= LARGEST).all():
        first = int(np.argmax(~sound.reshape(len(values), -1).all(1)))
        raise RobotRLError(f"{where}: '{key}' holds {odd(values)}, first at step {first}; remove it from the file")
    return values


def vector(parent: h5py.Group, key: str, where: str, rows: int | None = None) -> np.ndarray:
    """(N, D) of a dataset (N, D), or (N,), whose numbers become rows of one."""
    values = array(parent, key, where, rows)
    if values.ndim > 2 or (values.ndim == 2 and not 0 < values.shape[1] <= WIDEST):
        raise RobotRLError(f"{where}: '{key}' is {values.shape}; it must be a table of at most {WIDEST} columns")
    return values[:, None] if values.ndim == 1 else values


def images(
    parent: h5py.Group,
    key: str,
    where: str,
    rows: int,
    camera: CameraSpec,
    account: Account,
    last_of: str | None = None,
) -> np.ndarray:
    """The first `rows` pictures of a dataset as those of `camera`, and the last one of another dataset behind them.

    Colours may come first or last. `account` tells where their sizes differ.
    """
    found, count = _pieces(parent, key, where, slice(0, rows)), rows
    if last_of is not None:
        found, count = chain(found, _pieces(parent, last_of, where, slice(rows - 1, rows))), rows + 1
    return pictures.gathered(found, count, camera, f"{where}: '{key}'", account)


def _pieces(parent: h5py.Group, key: str, where: str, rows: slice) -> Iterator[np.ndarray]:
    found = dataset(parent, key, where)
    for start in range(rows.start, min(rows.stop, found.shape[0]), PIECE):
        with guard.reading(f"{where}: '{key}'"):
            piece = found[start : min(start + PIECE, rows.stop)]
        yield from (np.moveaxis(piece, 1, -1) if colours_first(piece.shape) else piece)


def colours_first(shape: tuple[int, ...]) -> bool:
    """Whether pictures of `shape` (N, C, H, W) are so, and not (N, H, W, C)."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3, 4)


def require_equal_lengths(lengths: dict[str, int], where: str) -> None:
    """Raise unless every array of a demonstration has as many rows, and one at least."""
    if len(set(lengths.values())) != 1:
        raise RobotRLError(f"{where} has arrays of unequal lengths: {lengths}; the recording is incomplete, remove it")
    if 0 in lengths.values():
        raise RobotRLError(f"{where} is empty: its arrays have no rows; remove it from the file")


def json_attribute(parent: h5py.Group, key: str) -> Metadata:
    """The attribute `key`, a JSON object."""
    where = f"{parent.file.filename}: the attribute '{key}' of {parent.name}"
    value = attribute(parent, key)
    if not isinstance(value, (str, bytes)):
        what = "is missing" if value is None else f"is {type(value).__name__}, no text"
        raise RobotRLError(f"{where} {what}; it has {sorted(parent.attrs)}. Record or convert the file again")
    return metadata.parsed(value, where)


def attribute(parent: h5py.Group, key: str) -> Any:
    """The attribute `key`; None where there is none."""
    with guard.reading(f"{parent.file.filename}: the attribute '{key}' of {parent.name}"):
        return parent.attrs.get(key)


def some(parent: h5py.Group) -> str:
    """What a group holds, for an error."""
    return some_of(sorted(parent)) or "nothing"


def some_of(names: Sequence[str]) -> str:
    """The first of `names`, for an error."""
    return f"{', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
