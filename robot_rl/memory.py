"""Memory is asked for before it is taken: what will not fit is refused by name, and not by the kernel hours later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot_rl.types import CameraSpec, RobotRLError

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
VERSIONS = (  # of cgroups: limit, use, and where the idle page cache stands, with its name there
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
REMEDY = "use fewer episodes, smaller pictures or a larger machine"


def available() -> int:
    """Bytes that this process can still take: what the machine has, or what its container is allowed, if less."""
    free = _lines(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    for limit, use, stat, cache in VERSIONS:
        most, taken = _number(CGROUP / limit), _number(CGROUP / use)
        if most is not None and taken is not None:
            idle = _lines(CGROUP / stat).get(cache, 0)  # of the page cache: given back when asked for
            free = min(free, max(most - taken + idle, 0))
    return free


def require(size: float, what: str, remedy: str = REMEDY) -> None:
    """Raise unless `size` bytes are available for `what`."""
    if size > (free := available()):
        raise RobotRLError(
            f"{what} would need {size / GIB:,.1f} GiB of memory, and {free / GIB:.1f} GiB are available: {remedy}"
        )


def of_pictures(cameras: Sequence[CameraSpec], rows: int) -> int:
    """Bytes of so many pictures of each camera."""
    return rows * sum(int(np.prod(camera.shape)) * camera.dtype.itemsize for camera in cameras)


def require_pictures(cameras: Sequence[CameraSpec], rows: int, copies: int = 1) -> None:
    """Raise unless so many pictures of each camera fit, `copies` times."""
    sides = ", ".join(f"{c.name} of {c.height} x {c.width} pixels" for c in cameras)
    require(
        copies * of_pictures(cameras, rows),
        f"{rows:,} pictures each of {sides}{f', held {copies} times,' if copies > 1 else ''}",
        "use fewer episodes (--max-episodes) or cameras, or record them smaller (--image-size)",
    )


def _lines(file: Path) -> dict[str, int]:
    """The lines "key number ..." of a file of the kernel's; none where there is no such file."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines}


def _number(file: Path) -> int | None:
    """The number in `file`; None where there is no such file or, as "max", no limit in it."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
