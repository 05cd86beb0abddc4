"""Parquet tables: columns as numbers, every error with the file and the column in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl import memory, unpacking
from robot_rl.formats import guard
from robot_rl.formats.seen import LARGEST, odd
from robot_rl.types import RobotRLError

WIDEST = 4096  # numbers in a row of a column


def names(file: Path) -> list[str]:
    """The columns of a parquet file."""
    return list(_opened(file).schema_arrow.names)


def table(file: Path, columns: Sequence[str] | None = None, without: str | None = None) -> Any:
    """A parquet file, as pyarrow's table; only `columns` of it, or those that do not begin with `without`."""
    opened = _opened(file)
    with guard.reading(f"{file} is no whole parquet file and"):
        told = opened.metadata
        if columns is not None and (lacks := [c for c in columns if c not in opened.schema_arrow.names]):
            raise RobotRLError(
                f"{file} lacks the column '{', '.join(lacks)}'; it has {', '.join(opened.schema_arrow.names)}"
            )
        kept = [n for n in opened.schema_arrow.names if without is None or not n.startswith(without)]
        size = sum(told.row_group(i).total_byte_size for i in range(told.num_row_groups)) + 8 * told.num_rows
        unpacking.require_plausible(size, file.stat().st_size, str(file))
        memory.require(2 * size, f"{file}: its {told.num_rows} rows")
        return opened.read(columns=list(columns) if columns is not None else kept)


def _opened(file: Path) -> Any:
    guard.require_file(file)
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise RobotRLError(f"LeRobot datasets need pyarrow: pip install 'robot-rl[lerobot]' ({error})") from error
    with guard.reading(f"{file} is no whole parquet file and"):
        return parquet.ParquetFile(file)


def numbers(rows: Any, key: str, where: str, width: int | None = None) -> np.ndarray:
    """Column `key` as (N, D) float64, all of it there and finite; D is `width` where that is given.

    Raises where rows are null, of unequal or another length, matrices, or no numbers.
    """
    if key not in rows.column_names:
        raise RobotRLError(f"{where} lacks the column '{key}'; it has {', '.join(rows.column_names)}")
    with guard.reading(f"{where}: column '{key}'"):
        column = rows[key].combine_chunks()
        _require_whole(column, key, where)
        if hasattr(column.type, "value_type"):
            size = _width(column, key, where)
            column = column.flatten()
            _require_whole(column, key, where, size)
        else:
            size = 1
        if hasattr(column.type, "value_type"):
            raise RobotRLError(f"{where}: '{key}' holds matrices in its rows; a row must be a vector. Flatten them")
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind not in "biuf":
            raise RobotRLError(f"{where}: '{key}' holds {rows[key].type}, not numbers")
        values = values.astype(np.float64).reshape(rows.num_rows, size)
    if width is not None and size != width:
        raise RobotRLError(f"{where}: '{key}' has {size} numbers in a row, meta/info.json says {width}")
    if not (sound := np.abs(values) <= LARGEST).all():
        first = int(np.argmax(~sound.all(1)))
        raise RobotRLError(f"{where}: '{key}' holds {odd(values)}, first in row {first}; remove that episode")
    return values


def _require_whole(column: Any, key: str, where: str, size: int = 1) -> None:
    if column.null_count:
        first = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False))) // size
        raise RobotRLError(f"{where}: '{key}' is null in rows, first in row {first}; remove the episode, or fill it")


def _width(column: Any, key: str, where: str) -> int:
    """How many numbers every row of a column of lists has."""
    if (fixed := getattr(column.type, "list_size", None)) is not None:
        return int(fixed)
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if len(column) else np.zeros(1, int)
    if len(lengths) != 1 or lengths[0] > WIDEST:
        raise RobotRLError(
            f"{where}: the rows of '{key}' have {lengths.min()} to {lengths.max()} numbers, not all as many"
        )
    return int(lengths[0])
